"""Print the built pages into one PDF, with contents, bookmarks, and links that lead from page to page.

    python workflow/pdf.py HTML OUT.pdf

Chromium prints one file that holds the articles of all pages, in the order of _toc.yml. Links between pages become
links inside it, and folds stand open.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parent.parent
WHOLE = "whole-book.html"  # lies beside the pages while it is printed
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//")
CONTENTS = "contents"
FOOT = '<div style="width: 100%; text-align: center; font-size: 8px"><span class="pageNumber"></span></div>'
# Articles stand alone here: nothing of the theme's frame, and a page begins on a sheet of its own.
STYLE = """
main article { break-before: page; }
.extra_footer, .headerlink, .foot { display: none; }
"""


def parts_of_toc() -> list[tuple[str, list[str]]]:
    """Captions and pages, in reading order; the landing page first, without a caption."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = [(part["caption"], [chapter["file"] for chapter in part["chapters"]]) for part in toc["parts"]]
    return [("", [toc["root"]]), *parts]


def anchor(page: str, place: str = "") -> str:
    """The name of a place of a page inside the whole book."""
    return re.sub(r"[^\w-]", "-", f"{page}--{place}" if place else page)


def whole_book(html: Path, parts: list[tuple[str, list[str]]]) -> str:
    """All articles in one page."""
    pages = [page for _, names in parts for page in names]
    articles = {page: _article(html / f"{page}.html") for page in pages}
    wanted = {
        target
        for page, article in articles.items()
        for link in article.select("a[href]")
        if (target := _leads(link, page, pages))
    }
    for page, article in articles.items():
        for link in article.select("a[href]"):
            if target := _leads(link, page, pages):
                link["href"] = "#" + anchor(*target)
        _mark_places(article, page, wanted)
        _keep_files(article, page)
        for fold in article.select("details"):
            fold["open"] = ""
    frame = BeautifulSoup((html / f"{pages[0]}.html").read_text(encoding="utf-8"), "html.parser")
    _keep_files(frame.head, pages[0])
    frame.head.append(BeautifulSoup(f"<style>{STYLE}</style>", "html.parser"))
    frame.body.clear()
    frame.body.append(BeautifulSoup(f"<main>{_contents(parts, articles)}</main>", "html.parser"))
    for article in articles.values():
        frame.main.append(article)
    return str(frame)


def _article(path: Path) -> Tag:
    article = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select_one("article.bd-article")
    if article is None:
        raise SystemExit(f"{path} has no article: the theme writes its pages in another way now")
    return article.extract()


def _leads(link: Tag, page: str, pages: list[str]) -> tuple[str, str] | None:
    """Page and place that a link leads to; None where that is not in the book."""
    address, _, place = link["href"].partition("#")
    if ELSEWHERE.match(link["href"]):
        return None
    target = os.path.normpath(Path(page).parent / address).removesuffix(".html") if address else page
    return (target, place) if target in pages else None


def _mark_places(article: Tag, page: str, wanted: set[tuple[str, str]]) -> None:
    """Two pages may use one id; the places that links lead to get names that nothing else has."""
    article["id"] = anchor(page)
    for place in {place for target, place in wanted if target == page and place}:
        if found := article.find(id=place):
            found.insert(0, BeautifulSoup(f'<span id="{anchor(page, place)}"></span>', "html.parser"))


def _keep_files(part: Tag, page: str) -> None:
    """Images, scripts and styles lie where their page has them; the whole book lies at the top."""
    for kind in ("src", "href"):
        for node in part.select(f"[{kind}]"):
            value = node[kind]
            if value and not value.startswith("#") and not ELSEWHERE.match(value):
                node[kind] = os.path.normpath(Path(page).parent / value)


def _contents(parts: list[tuple[str, list[str]]], articles: dict[str, Tag]) -> str:
    rows = []
    for caption, pages in parts:
        rows.append(f"<h2>{caption}</h2>" if caption else "")
        titles = [(page, articles[page].h1.get_text().removesuffix("#").strip()) for page in pages]
        rows.append(
            "<ul>" + "".join(f'<li><a href="#{anchor(page)}">{title}</a></li>' for page, title in titles) + "</ul>"
        )
    return f'<nav id="{CONTENTS}"><h1>Contents</h1>{"".join(rows)}</nav>'


class Quiet(SimpleHTTPRequestHandler):
    """Serve files without a line for each request."""

    def log_message(self, *_):
        pass


def print_pages(html: Path, target: Path) -> None:
    """Write ``target``, whole or not at all."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no browser found (looked for {', '.join(BROWSERS)}): install one, e.g. apt install chromium")
    whole = html / WHOLE
    whole.write_text(whole_book(html, parts_of_toc()), encoding="utf-8")
    half = target.with_suffix(".half")
    try:
        with (
            ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(html))) as server,
            sync_playwright() as playwright,
        ):
            Thread(target=server.serve_forever, daemon=True).start()
            running = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
            page = running.new_page(color_scheme="light")
            page.set_default_timeout(0)  # thousands of formulas take minutes
            page.goto(f"http://127.0.0.1:{server.server_port}/{WHOLE}", wait_until="networkidle")
            page.evaluate("() => window.MathJax?.startup?.promise")
            page.pdf(
                path=half, format="A4", outline=True, tagged=True, print_background=True,
                display_header_footer=True, header_template="<span></span>", footer_template=FOOT,
                margin={"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
            )  # fmt: skip
            running.close()
            server.shutdown()
        half.replace(target)
    finally:
        whole.unlink(missing_ok=True)
        half.unlink(missing_ok=True)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    print_pages(Path(sys.argv[1]), Path(sys.argv[2]))
