"""The links from the chapters to the glossary: which words get one, and where none is made."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup, SoupStrainer
from docutils import nodes
from docutils.utils import new_document
from drawing import drawn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "book"), str(ROOT / "book" / "_ext")]
import comparing_pictures  # noqa: E402
import glossary_links as glossary  # noqa: E402
import notebook_tools as nb  # noqa: E402

HTML = ROOT / "_build" / "committed" / "html"
SOURCE = """# Glossary

## Ours

```{glossary}
proper loss
proper
  No prediction beats the *belief*. Defined in [Proper losses](../notebooks/proper/proper_losses.ipynb).

strictly proper
  Proper, and more. Defined in [Proper losses](../notebooks/proper/proper_losses.ipynb#x).

ECE
  A gap [in words](statistics.md). See [Calibration](calibration.ipynb).
```
"""
ENTRIES = glossary.entries(SOURCE)
ADDRESS = {glossary.key(name): f"#{name}" for entry in ENTRIES for name in entry.names}


def linked(*parts: nodes.Node, page: str = "book/other") -> tuple[list[str], nodes.document]:
    document = new_document("page")
    document += parts
    return glossary.link_first_uses(document, ENTRIES, ADDRESS, page), document


def paragraph(text: str) -> nodes.paragraph:
    return nodes.paragraph("", text)


def test_an_entry_has_names_a_page_a_section_and_a_tip():
    proper, strictly, ece = ENTRIES
    assert (proper.names, proper.page, proper.section) == (
        ("proper loss", "proper"),
        "notebooks/proper/proper_losses",
        "Ours",
    )
    assert proper.tip == "No prediction beats the belief."
    assert strictly.page == "notebooks/proper/proper_losses"
    assert (ece.page, ece.tip) == ("book/calibration", "A gap in words.")


@pytest.mark.parametrize("text", ["word\n  Without a page.", "  Without a [name](page.md)."])
def test_an_entry_without_a_name_or_a_page_is_refused(text):
    with pytest.raises(ValueError, match="is missing"):
        glossary.entries(f"```{{glossary}}\n{text}\n```")


def test_the_longest_name_is_linked_once_and_the_text_stays():
    text = "Strictly proper is more than proper. A proper loss is proper; an improper one is not."
    names, document = linked(paragraph(text))
    assert names == ["strictly proper", "proper"]
    assert document.astext() == text
    links = list(document.findall(nodes.reference))
    assert [link.astext() for link in links] == ["Strictly proper", "proper"]
    assert links[1]["refuri"] == "#proper"
    assert links[1]["reftitle"] == "No prediction beats the belief."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("two proper\nlosses and Proper-losses", ["proper loss"]),
        ("the ECEs of both", ["ece"]),
        ("the ece of both", []),
        ("properly, non-proper, proper-ish", []),
    ],
)
def test_plurals_line_ends_and_abbreviations(text, found):
    assert linked(paragraph(text))[0] == found


@pytest.mark.parametrize(
    "part",
    [
        nodes.title("", "ECE"),
        nodes.paragraph("", "", nodes.literal("", "ECE"), nodes.math("", "ECE")),
        nodes.paragraph("", "", nodes.reference("", "ECE", refuri="x")),
        nodes.container("", nodes.paragraph("", "ECE"), classes=["cell_output"]),
        nodes.figure("", nodes.caption("", "ECE")),
        nodes.table("", nodes.paragraph("", "ECE")),
    ],
)
def test_headings_code_formulas_links_outputs_captions_and_tables_are_left_alone(part):
    names, document = linked(part, paragraph("Here is an ECE."))
    assert names == ["ece"]
    assert [link.parent.astext() for link in document.findall(nodes.reference) if link.get("reftitle")] == [
        "Here is an ECE."
    ]


def test_what_a_page_defines_is_not_linked_there_nor_a_part_of_it():
    assert linked(paragraph("A proper loss, an ECE."), page="notebooks/proper/proper_losses")[0] == ["ece"]


def test_tips_are_plain_sentences():
    for entry in glossary.entries((ROOT / f"{glossary.GLOSSARY}.md").read_text(encoding="utf-8")):
        assert re.fullmatch(r"[^$\\*`\[\]]{15,220}\.", entry.tip), entry.tip


@pytest.mark.parametrize("name", drawn([page for page in nb.pages_of_toc() if page.startswith("notebooks/")], 6))
def test_the_links_of_a_page_lead_to_entries_and_each_is_made_once(name):
    article = BeautifulSoup(
        (HTML / f"{name}.html").read_text("utf-8"), "html.parser", parse_only=SoupStrainer("article")
    )
    target = BeautifulSoup((HTML / f"{glossary.GLOSSARY}.html").read_text("utf-8"), "html.parser")
    links = article.select("a.glossary-term")
    assert len(links) >= 3
    definitions = [target.find(id=link["href"].partition("#")[2]).find_next("dd").get_text() for link in links]
    assert len(set(definitions)) == len(definitions)
    for link, definition in zip(links, definitions, strict=True):
        assert link["href"].partition("#")[0].endswith("book/glossary.html")
        assert link["title"] in " ".join(definition.split())
        assert link.find_parent(["h1", "h2", "h3", "figcaption", "pre", "code", "table"]) is None


def test_the_index_has_all_words_of_the_glossary():
    index = BeautifulSoup((HTML / "genindex.html").read_text("utf-8"), "html.parser").get_text()
    for entry in glossary.entries((ROOT / f"{glossary.GLOSSARY}.md").read_text(encoding="utf-8")):
        for name in entry.names:
            assert name.replace("'", "’") in index.replace("'", "’"), name


def test_the_pictures_of_the_comparisons_show_what_their_captions_say():
    table = comparing_pictures.judged()
    assert table["verdict"].tolist() == ["lower", "equivalent", "open", "equivalent"]
    assert table["low"][2] < -comparing_pictures.MARGIN < 0 < table["high"][2]
    assert table["low"][3] > 0
    assert comparing_pictures.statistics.signed_rank_p(comparing_pictures.CHANGE) == 14 / 1024
    assert (comparing_pictures.P_VALUES < 0.05).sum() == 3
    assert (comparing_pictures.statistics.holm(comparing_pictures.P_VALUES) < 0.05).sum() == 2
    for name in ("pairs", "verdicts"):
        assert (comparing_pictures.FOLDER / f"{name}.svg").stat().st_size > 5_000
