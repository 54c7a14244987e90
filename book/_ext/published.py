"""What a published page says of itself: its version, where to report a fault, its licence, how to cite it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlencode

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive

# Fields of .github/ISSUE_TEMPLATE/page.yml, by their ids.
FORM = "page.yml"


def report_address(repository: str, page: str, version: str) -> str:
    """The address of the form that reports a fault of a page, with page and version filled in."""
    fields = {"template": FORM, "title": f"{page}: ", "page": page, "version": version}
    return f"{repository}/issues/new?{urlencode(fields)}"


def foot(page: str, version: str, repository: str, published: bool) -> str:
    """The last line of a page; published ones lie side by side in a folder for each version."""
    root = "../" * page.count("/")
    parts = [
        f"Version: {version}",
        f'<a href="{report_address(repository, page, version)}">Report a fault on this page</a>',
        f'<a href="{root}book/index.html#cite-this-book">Cite this book</a>',
        f'Code: <a href="{repository}/blob/HEAD/LICENSE">MIT</a>; '
        f'text and figures: <a href="{repository}/blob/HEAD/LICENSE-TEXT.md">CC BY 4.0, or MIT</a>',
    ]
    if published:
        parts.append(f'<a href="{root}../versions.html">Other versions</a>')
    return f'<p class="foot">{" · ".join(parts)}</p>'


def bibtex(cited: dict, version: str, address: str) -> str:
    """An entry for the book, and one for the paper that it is about, from CITATION.cff."""
    (paper,) = cited["references"]
    number = re.search(r"\d{4}\.\d{5}", paper["journal"])[0]
    people = " and ".join(f"{person['family-names']}, {person['given-names']}" for person in paper["authors"])
    return (
        "@software{gencebook,\n"
        f"  title   = {{{cited['title']}}},\n"
        f"  author  = {{{{{cited['authors'][0]['name']}}}}},\n"
        f"  version = {{{version}}},\n"
        f"  url     = {{{address}}}\n"
        "}\n\n"
        f"@article{{{paper['authors'][0]['family-names'].lower()}{paper['year']}gence,\n"
        f"  title   = {{{paper['title']}}},\n"
        f"  author  = {{{people}}},\n"
        f"  journal = {{{paper['journal']}}},\n"
        f"  year    = {{{paper['year']}}},\n"
        f"  eprint  = {{{number}}}, archivePrefix = {{arXiv}}\n"
        "}"
    )


def _repository(app) -> str:
    return app.config.html_theme_options["repository_url"]


class CiteThis(Directive):
    """``{cite-this}``: what to copy into a list of references, for the book and for the paper."""

    def run(self) -> list[nodes.Node]:
        """Return one block of BibTeX."""
        env = self.state.document.settings.env
        source = Path(env.srcdir, "CITATION.cff")
        env.note_dependency(str(source))
        cited = yaml.safe_load(source.read_text(encoding="utf-8"))
        text = bibtex(cited, env.config.release, _repository(env.app))
        return [nodes.literal_block(text, text, language="bibtex")]


def _say(app, pagename, templatename, context, doctree) -> None:
    if doctree is None:  # the index, the search page
        return
    repository, version = _repository(app), app.config.release
    context["theme_extra_footer"] = app.config.html_theme_options["extra_footer"] + foot(
        pagename, version, repository, app.config.book_is_published
    )
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("label") == "source-issues-button":
                button["url"] = report_address(repository, pagename, version)


def setup(app):
    """Connect to Sphinx, after the theme has made its buttons."""
    app.add_config_value("book_is_published", False, "html")
    app.add_directive("cite-this", CiteThis)
    app.connect("html-page-context", _say, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
