"""Link the first use of each glossary term on a page to its entry, whose first sentence is the text of the tip.

The chapters name no roles for this: a notebook stays plain Markdown. Headings, captions, code, formulas, links, tables,
outputs, questions and cards are left alone, and so is the page that defines the term.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

GLOSSARY = "book/glossary"
WITHOUT_LINKS = (GLOSSARY, "book/notation", "book/claims", "book/references", "book/api")
# Where no link is made: inside nodes of these kinds, or of these classes.
KINDS = (nodes.title, nodes.caption, nodes.literal, nodes.literal_block, nodes.math, nodes.reference, nodes.table)
KINDS += (nodes.raw, nodes.footnote, nodes.citation, nodes.legend, nodes.topic)
CLASSES = {"cell_output", "cell_input", "quiz", "sd-card", "freshness"}

LINK = re.compile(r"\[([^\]]*)\]\(([^)]*)\)")


@dataclass(frozen=True)
class Entry:
    """One definition: the names it goes by, what it says, where the book defines it, and the section it stands in."""

    names: tuple[str, ...]
    text: str
    page: str
    section: str

    @property
    def tip(self) -> str:
        """The first sentence, without marks."""
        plain = re.sub(r"[*`]", "", LINK.sub(r"\1", self.text))
        return re.split(r"(?<=[.!?])\s", plain, maxsplit=1)[0]


def entries(source: str, folder: str = "book") -> list[Entry]:
    """The entries of a page with `{glossary}` directives; the last link of each leads to the page that defines it."""
    found, section, names, inside = [], "", [], False
    for line in source.splitlines():
        if line.startswith("```"):
            inside = line.startswith("```{glossary}")
        elif line.startswith("## "):
            section = line[3:].strip()
        elif inside and line.startswith("  "):
            links = [target for _, target in LINK.findall(line)]
            if not names or not links:
                raise ValueError(f"{GLOSSARY}: a term, and a link to the page that defines it, is missing: {line!r}")
            page = posixpath.normpath(posixpath.join(folder, links[-1].partition("#")[0]))
            found.append(Entry(tuple(names), line.strip(), posixpath.splitext(page)[0], section))
            names = []
        elif inside and line.strip() and not line.startswith(":"):
            names.append(line.strip())
    return found


def pattern(names: list[str]) -> re.Pattern[str]:
    """Any of the names, the longest first: plurals too, any case but for abbreviations, over ends of lines."""

    def written(name: str) -> str:
        words = r"[\s-]+".join(map(re.escape, re.split(r"[\s-]", name)))
        return words if re.search(r"[A-Z]{2}|[A-Z]\d", name) else f"(?i:{words})"

    ordered = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?P<name>{'|'.join(map(written, ordered))})(?:e?s)?(?![\w-])")


def key(written: str) -> str:
    """What a name in a text and in the glossary have in common."""
    return re.sub(r"[\s-]+", " ", written).lower()


def texts(document: nodes.document) -> Iterator[nodes.Text]:
    """The running text of a page: what stands in its paragraphs, outside all that is left alone."""
    for text in document.findall(nodes.Text):
        above, node = [], text.parent
        while node is not None:
            above.append(node)
            node = node.parent
        alone = any(isinstance(node, KINDS) for node in above) or any(
            CLASSES & set(node.get("classes", ())) for node in above if isinstance(node, nodes.Element)
        )
        if not alone and any(isinstance(node, nodes.paragraph) for node in above):
            yield text


def link_first_uses(document: nodes.document, glossary: list[Entry], address: dict[str, str], page: str) -> list[str]:
    """Link them in place; return the names that got a link. `address` has the target of each name.

    What the page itself defines gets none, and no part of such a name does.
    """
    by_name = {key(name): entry for entry in glossary for name in entry.names}
    open_names = {name for name, entry in by_name.items() if entry.page != page}
    linked = []
    if not by_name:
        return linked
    search = pattern([name for entry in glossary for name in entry.names])
    for text in list(texts(document)):
        written, pieces, end = text.astext(), [], 0
        for hit in search.finditer(written):
            name = key(hit["name"])
            if name not in open_names:
                continue
            entry = by_name[name]
            open_names -= {key(other) for other in entry.names}
            linked.append(name)
            pieces.append(nodes.Text(written[end : hit.start()]))
            link = nodes.reference("", hit[0], internal=True, refuri=address[name], reftitle=entry.tip)
            link["classes"].append("glossary-term")
            pieces.append(link)
            end = hit.end()
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(written[end:])])
    return linked


class GlossaryLinks(SphinxPostTransform):
    """After references are resolved, so that no text of a link is linked once more."""

    default_priority = 210
    formats = ("html",)

    def run(self, **kwargs) -> None:
        """Rewrite the document in place."""
        page = self.env.docname
        if page in WITHOUT_LINKS or GLOSSARY not in self.env.found_docs:
            return
        source = Path(self.env.doc2path(GLOSSARY)).read_text(encoding="utf-8")
        here = self.app.builder.get_relative_uri(page, GLOSSARY)
        terms = self.env.get_domain("std").objects
        address = {key(name): f"{here}#{id_}" for (kind, name), (_, id_) in terms.items() if kind == "term"}
        link_first_uses(self.document, entries(source), address, page)


def setup(app):
    """Connect to Sphinx."""
    app.add_post_transform(GlossaryLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
