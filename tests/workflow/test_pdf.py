"""The book on paper: two of its pages printed, joined and read again."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "committed" / "html"
sys.path.insert(0, str(ROOT / "workflow"))
import pdf  # noqa: E402

PAGES = ["notebooks/idea/why_another_loss", "book/loss"]


@pytest.fixture(scope="module")
def printed(browser, tmp_path_factory):
    """The two pages as a PDF. The command has a browser of its own: this one is named to skip where there is none."""
    if not (HTML / "index.html").exists():
        pytest.fail("the book is not built: run `make html` (or `make test`, which does) first")
    target = tmp_path_factory.mktemp("pdf") / "two.pdf"
    subprocess.run([sys.executable, ROOT / "workflow" / "pdf.py", HTML, target, *PAGES], check=True)
    return PdfReader(target)


def squeezed(text: str) -> str:
    """Without white space and ligatures: lines break elsewhere on paper, and its letters run together."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))


@pytest.fixture(scope="module")
def text(printed):
    return squeezed("".join(words(page) for page in printed.pages))


def words(page) -> str:
    """What stands on a sheet, without the running head and the number, which are its first two lines."""
    return page.extract_text().split("\n", 2)[-1]


@pytest.mark.parametrize("name", PAGES)
def test_the_longest_line_of_code_and_the_last_column_of_each_table_are_there(text, name):
    page = BeautifulSoup((HTML / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    lines = [line for block in page.select("article pre") for line in block.text.splitlines()]
    for line in sorted(lines, key=len)[-5:]:
        assert squeezed(line) in text, line
    for table in page.select("article table"):
        for row in table.select("tr"):
            last = row.find_all(["td", "th"])[-1]
            assert last.select(".math") or squeezed(last.text) in text, last.text


def test_folds_are_open_and_what_only_works_on_a_screen_is_gone(text):
    page = BeautifulSoup((HTML / f"{PAGES[0]}.html").read_text(encoding="utf-8"), "html.parser")
    for fold in page.select("article details"):
        for paragraph in fold.select("p"):
            parts = [part for part in paragraph.find_all(string=True, recursive=False) if len(part) > 30]
            assert all(squeezed(part) in text for part in parts), paragraph.text
    for only_screen in (
        "Skiptomaincontent",
        "Backtotop",
        "Onthispage",
        "Showthesource",
        "Showtheset-up",
        "Hidethesource",
        "scrollthetable",
    ):
        assert only_screen not in text


def test_bookmarks_lead_to_chapters_and_sections_and_pages_are_numbered(printed):
    found = {}

    def walk(entries, depth=0):
        for entry in entries:
            if isinstance(entry, list):
                walk(entry, depth + 1)
            else:
                found[entry.title] = (depth, printed.get_destination_page_number(entry))

    walk(printed.outline)
    front = printed.page_labels.index("1")
    assert found["The idea"][0] == 0
    assert found["1. Why another loss?"] == (1, front)
    depth, second = found["2. GenCE on one page"]
    assert depth == 1
    assert second > front
    assert any(depth == 2 and front < sheet < second for depth, sheet in found.values())
    assert printed.page_labels[front : front + 3] == ["1", "2", "3"]
    for number in (1, second - front + 1):
        assert printed.pages[front + number - 1].extract_text().split("\n")[1] == str(number)
    contents = squeezed("".join(page.extract_text() for page in printed.pages[:front]))
    assert f"2.GenCEononepage{second - front + 1}" in contents


def test_links_stay_in_the_document_or_lead_to_the_world(printed):
    inside, outside = set(), set()
    places = printed.named_destinations
    for page in printed.pages:
        for annotation in page.get("/Annots", ()):
            link = annotation.get_object()
            action = link.get("/A", {})
            if "/URI" in action:
                outside.add(str(action["/URI"]))
            target = link.get("/Dest", action.get("/D"))
            if isinstance(target, str):
                assert target in places, target
                inside.add(target)
            elif target is not None:
                assert target[0].get_object()["/Type"] == "/Page"
                inside.add("a page")
    assert "a page" in inside
    assert len(inside) > 1
    assert not [address for address in outside if "127.0.0.1" in address]


def test_a_page_that_is_not_in_the_contents_is_refused():
    with pytest.raises(SystemExit, match=r"no page of _toc.yml: book/lost.*called like book/loss"):
        pdf.chapters(HTML, ["book/lost"])
