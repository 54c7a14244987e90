"""Print the built pages into one PDF, in the order of _toc.yml: bookmarks, contents, page numbers, links that work.

    python workflow/pdf.py _build/committed/html _build/gence-book.pdf
    python workflow/pdf.py _build/committed/html two.pdf book/index book/loss     only these pages

Chromium prints each page with the book's print style; pypdf joins them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import posixpath
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from html import escape, unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import yaml
from playwright.sync_api import Browser, Page, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.constants import PageLabelStyle
from pypdf.generic import ArrayObject, DictionaryObject, Fit, NameObject, NullObject, NumberObject, TextStringObject

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LINK = re.compile(r'href="([^"#:]+\.html)#([^"]+)"')
SLOW = 300_000  # milliseconds: a page of many formulas on a busy machine

# Margins, the running head and the number of the page; the first page of a chapter continues the count.
PAPER = """
@page { size: A4; margin: 20mm 18mm 18mm; @top-right { content: %s; font: 8pt sans-serif; color: #555; }
        @bottom-center { content: counter(page%s); font: 9pt sans-serif; color: #333; } }
html { counter-reset: page %d; }
"""

# Images that load when they come near come now; folds open; what is a target of a link, here or on another page, gets a
# name that is unique in the whole book, and a speck that links to it, without which Chromium forgets the place.
PREPARE = """async ([prefix, wanted]) => {
    for (const image of document.images) image.loading = 'eager';
    await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
    for (const fold of document.querySelectorAll('article details')) fold.open = true;
    const article = document.querySelector('article');
    const links = [...article.querySelectorAll('a[href^="#"]')];
    const sections = [...article.querySelectorAll('section > h2')].map(head => {
        const words = head.cloneNode(true);
        words.querySelector('.headerlink')?.remove();
        return [head.parentElement.id, words.textContent.trim()];
    });
    wanted.push(...sections.map(([id]) => id));
    for (const id of new Set([...wanted, ...links.map(link => decodeURIComponent(link.hash.slice(1)))])) {
        const target = id && document.getElementById(id);
        if (!target) continue;
        target.id = prefix + id;
        for (const link of links) if (decodeURIComponent(link.hash.slice(1)) === id) link.href = '#' + prefix + id;
        if (!wanted.includes(id)) continue;
        const speck = document.createElement('a');
        speck.href = '#' + prefix + id;
        speck.textContent = '.';
        speck.style.cssText = 'font-size: 1px; color: transparent';
        article.append(speck);
    }
    return sections.map(([id, title]) => [prefix + id, title]);
}"""


@dataclass
class Chapter:
    """A page of the book: where it is, what it is called, and, once printed, its sheets."""

    name: str
    title: str
    part: str | None
    printed: PdfReader | None = field(default=None, repr=False)
    sections: list[tuple[str, str]] = field(default_factory=list)  # a name and a title for each
    first: int = 0  # the number of its first sheet, counted from 0 after the contents

    @property
    def prefix(self) -> str:
        return re.sub(r"\W", "-", self.name) + "--"


def chapters(html: Path, only: list[str]) -> list[Chapter]:
    """The pages to print, in the order of the contents."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    named = [(toc["root"], None)]
    named += [(page["file"], part["caption"]) for part in toc["parts"] for page in part["chapters"]]
    if unknown := sorted(set(only) - {name for name, _ in named}):
        raise SystemExit(f"no page of _toc.yml: {', '.join(unknown)}. A page is called like book/loss")
    return [Chapter(name, title_of(html / f"{name}.html"), part) for name, part in named if not only or name in only]


def title_of(page: Path) -> str:
    found = re.search(r"<title>(.*?)(?: &#8212; .*?)?</title>", page.read_text(encoding="utf-8"), re.DOTALL)
    return unescape(found[1]).strip()


def targets(html: Path, pages: list[Chapter]) -> dict[str, set[str]]:
    """For each page the places on it that other pages link to."""
    found: dict[str, set[str]] = defaultdict(set)
    for page in pages:
        for link, place in LINK.findall((html / f"{page.name}.html").read_text(encoding="utf-8")):
            there = posixpath.normpath(posixpath.join(posixpath.dirname(page.name), link)).removesuffix(".html")
            found[there].add(unquote(place))
    return found


# --- printing --------------------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


def on_paper(page: Page, head: str, number: int, style: str = "") -> PdfReader:
    """What a page of the browser looks like on paper, its first sheet numbered `number`."""
    # JSON strings are CSS strings, too.
    page.add_style_tag(content=PAPER % (json.dumps(head, ensure_ascii=False), style, number - 1))
    return PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True, print_background=True, tagged=True)))


def print_chapters(browser: Browser, site: str, html: Path, pages: list[Chapter]) -> None:
    """Print all pages one after the other, so that each begins with the number after the last."""
    wanted, number = targets(html, pages), 0
    for chapter in pages:
        page = browser.new_page(viewport={"width": 720, "height": 1000}, color_scheme="light")
        page.set_default_timeout(SLOW)
        page.goto(f"{site}/{chapter.name}.html", wait_until="load")
        page.wait_for_function("() => window.MathJax?.startup?.promise.then(() => true) ?? true")
        page.emulate_media(media="print")
        chapter.sections = page.evaluate(PREPARE, [chapter.prefix, sorted(wanted[chapter.name])])
        chapter.first, chapter.printed = number, on_paper(page, chapter.title, number + 1)
        number += len(chapter.printed.pages)
        print(f"{chapter.name}: {len(chapter.printed.pages)} pages", flush=True)
        page.close()


CONTENTS = """<!DOCTYPE html><html lang="en"><title>Contents</title><style>
body {{ font: 10.5pt/1.5 sans-serif; margin: 0 }} h1 {{ font-size: 30pt; margin: 55mm 0 4mm }}
h2 {{ break-before: page; font-size: 18pt }} h3 {{ margin: 5mm 0 1mm; font-size: 11pt; break-after: avoid }}
ol {{ list-style: none; margin: 0; padding: 0 }} li {{ break-inside: avoid }}
a {{ display: flex; gap: 3mm; color: inherit; text-decoration: none }} a span {{ margin-left: auto }}
</style><h1>{title}</h1><p>{about}</p><h2>Contents</h2>{list}</html>"""


def contents(browser: Browser, site: str, pages: list[Chapter]) -> PdfReader:
    """The title page and the contents, which lead to the chapters."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    lines, part = [], None
    for chapter in pages:
        if chapter.part != part:
            part = chapter.part
            lines.append(f"</ol><h3>{escape(part)}</h3><ol>")
        entry = f"{escape(chapter.title)}<span>{chapter.first + 1}</span>"
        lines.append(f'<li><a href="{site}/{chapter.name}.html">{entry}</a></li>')
    about = f"{escape(config['author'])}<br>Version {version('gence')}<br>{escape(config['repository']['url'])}"
    page = browser.new_page()
    page.set_content(CONTENTS.format(title=escape(config["title"]), about=about, list=f"<ol>{''.join(lines)}</ol>"))
    printed = on_paper(page, config["title"], 1, ", lower-roman")
    page.close()
    return printed


# --- joining ---------------------------------------------------------------------------------------------------


def join(front: PdfReader, pages: list[Chapter], site: str) -> PdfWriter:
    """One document: contents and chapters, with bookmarks, labels of pages, and links from page to page."""
    writer = PdfWriter()
    for printed in (front, *(chapter.printed for chapter in pages)):
        writer.append(printed, import_outline=False)
    offset = len(front.pages)
    add_bookmarks(writer, pages, offset)
    add_links(writer, {chapter.name: chapter for chapter in pages}, offset, site)
    writer.set_page_label(0, offset - 1, style=PageLabelStyle.LOWERCASE_ROMAN)
    writer.set_page_label(offset, len(writer.pages) - 1, style=PageLabelStyle.DECIMAL)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    writer.add_metadata({"/Title": config["title"], "/Author": config["author"]})
    writer.root_object[NameObject("/Lang")] = TextStringObject("en")
    return writer


def add_bookmarks(writer: PdfWriter, pages: list[Chapter], offset: int) -> None:
    """Parts, chapters in them, sections in these."""
    part, parent = None, None
    writer.add_outline_item(title="Contents", page_number=1 if offset > 1 else 0)
    for chapter in pages:
        if chapter.part != part:
            part = chapter.part
            parent = writer.add_outline_item(title=part, page_number=offset + chapter.first, bold=True)
        own = writer.add_outline_item(title=chapter.title, page_number=offset + chapter.first, parent=parent)
        places = chapter.printed.named_destinations
        for name, title in chapter.sections:
            found = places[f"/{name}"]  # Chromium writes a place as a name of PDF, with its stroke
            sheet = chapter.printed.get_destination_page_number(found)
            place = {"page_number": offset + chapter.first + sheet, "fit": Fit.xyz(top=found.top)}
            writer.add_outline_item(title=title, parent=own, **place)


def add_links(writer: PdfWriter, known: dict[str, Chapter], offset: int, site: str) -> None:
    """Links to pages of the site become links inside the document: to the place, or to the chapter's first page."""
    places = set(writer.named_destinations)
    for sheet in writer.pages:
        for annotation in sheet.get("/Annots", ()):
            action = annotation.get_object().get("/A", {})
            address = str(action.get("/URI", ""))
            if not address.startswith(site):
                continue
            url = urlsplit(address)
            chapter = known.get(url.path.strip("/").removesuffix(".html"))
            if chapter is None:  # a page that is not printed: the link would lead to this machine
                del annotation.get_object()["/A"]
                continue
            place = f"/{chapter.prefix}{unquote(url.fragment)}"
            first = writer.pages[offset + chapter.first].indirect_reference
            top = ArrayObject([first, NameObject("/XYZ"), NullObject(), NullObject(), NumberObject(0)])
            target = NameObject(place) if place in places else top
            annotation.get_object()[NameObject("/A")] = DictionaryObject(
                {NameObject("/S"): NameObject("/GoTo"), NameObject("/D"): target}
            )


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Browser, str]]:
    """A browser, and the address at which it finds the pages of a folder.

    Raises:
        SystemExit: there is no browser; it says how to get one.
    """
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        raise SystemExit(f"no browser found (looked for {', '.join(BROWSERS)}): install one, e.g. apt install chromium")
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as playwright:
        Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield browser, f"http://127.0.0.1:{server.server_port}"
        browser.close()
        server.shutdown()


def make(html: Path, target: Path, only: list[str]) -> int:
    """Print the pages of `html` into `target`; the number of its sheets."""
    pages = chapters(html, only)
    with opened(html) as (browser, site):
        print_chapters(browser, site, html, pages)
        writer = join(contents(browser, site, pages), pages, site)
    writer.compress_identical_objects()
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_suffix(".part")
    writer.write(half)
    os.replace(half, target)
    return len(writer.pages)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("html", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("pages", nargs="*", help="only these, for example book/loss")
    given = parser.parse_args()
    sheets = make(given.html, given.target, given.pages)
    print(f"{given.target}: {sheets} pages, {given.target.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
