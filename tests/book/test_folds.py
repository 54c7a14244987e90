"""Folds on the built pages: what prepares is one fold, and a result stands above the code that made it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup, SoupStrainer
from drawing import drawn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import notebook_tools as nb  # noqa: E402

HTML = ROOT / "_build" / "committed" / "html"
NAMES = [path.relative_to(ROOT).with_suffix("").as_posix() for path in nb.all_notebooks()]


def only_a_fold_of_code(cell) -> bool:
    inside = cell.find_all(recursive=False)
    checked = any(name.startswith(("tag_solution", "tag_claim")) for name in cell["class"])
    return [part.name for part in inside] == ["details"] and not inside[0].select("div.cell_output") and not checked


@pytest.mark.parametrize("name", drawn(NAMES, 6))
def test_what_prepares_is_one_fold_and_a_result_stands_above_its_code(name):
    text = (HTML / f"{name}.html").read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser", parse_only=SoupStrainer("article"))
    cells = page.select("div.cell")
    assert len(cells) >= 3
    for cell in filter(only_a_fold_of_code, cells):
        after = cell.find_next_sibling()
        assert after is None or "cell" not in after.get("class", []) or not only_a_fold_of_code(after), cell.text[:200]
    for cell in cells:
        parts = [part.name for part in cell.find_all(recursive=False)]
        if "tag_hide-input" in cell["class"] and "div" in parts:
            assert parts == ["div", "details"]
    sources = [cell.source for cell in nb.code_cells(nb.read(ROOT / f"{name}.ipynb"))]
    assert len(page.select("div.cell_input")) == len(sources), "a cell was lost"
