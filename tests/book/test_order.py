"""Nothing is used before it is defined: words of the glossary and symbols of the notation, in the order of reading."""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "book" / "_ext")]
import glossary_links as glossary  # noqa: E402
import notebook_tools as nb  # noqa: E402

PAGES = nb.pages_of_toc()
STRICT = ("Words of this book", "Words of the comparisons")
NOTATION = "book/notation"
# Pages that list what stands elsewhere, and are not read in order.
LISTS = {glossary.GLOSSARY, NOTATION, "book/api", "book/claims", "book/references", "book/course/coverage"}
LISTS |= {f"book/course/session_{number}" for number in range(1, 7)}

FENCE = re.compile(r"(`{3,})(?:\{([\w:-]+)\}|\w*)")
PROSE = ("prf:", "exercise", "solution", "admonition", "figure", "math", "note", "tip", "glossary")
LINK = re.compile(r"\]\(([^)#\s]*)[^)\s]*\)")
ROLE = re.compile(r"\{(doc|prf:ref|eq|ref|numref)\}`(?:[^`<]*<)?([^`<>]+)>?`")
LABEL = re.compile(r"^(?::label:\s*(\S+)|.*\$\$\s*\(([\w-]+)\)\s*$)", re.M)
MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.S)


@cache
def source(page: str) -> str:
    """The prose of a page, without code."""
    path = ROOT / f"{page}.md"
    if path.exists():
        text = path.read_text(encoding="utf-8")
    else:
        cells = nbformat.read(ROOT / f"{page}.ipynb", as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return "\n".join(without_code(text))


def without_code(text: str) -> Iterator[str]:
    """The lines outside code; directives that hold prose stay."""
    code = ""
    for line in text.splitlines():
        fence = FENCE.match(line)
        if code:
            code = "" if line.strip() == code else code
        elif fence and line.strip("`") and not (fence[2] or "").startswith(PROSE):
            code = fence[1]
        else:
            yield line


def sections(text: str) -> list[str]:
    """A text, cut before its headings; what announces the chapter belongs to its first section."""
    start, *rest = re.split(r"^(?=##+ )", text, flags=re.M)
    return [start + rest[0], *rest[1:]] if rest else [start]


@cache
def labels() -> dict[str, str]:
    """Which page has which label."""
    found = {}
    for page in PAGES:
        for names in LABEL.findall(source(page)):
            found[next(filter(None, names))] = page
    return found


def linked(text: str, page: str) -> set[str]:
    """The pages that a text of this page leads to, by links and by the numbers of theorems and equations."""
    folder = posixpath.dirname(page)
    targets = LINK.findall(text) + [target for role, target in ROLE.findall(text) if role == "doc"]
    found = {posixpath.normpath(posixpath.join(folder, target)) for target in targets if "://" not in target}
    found |= {labels().get(target, "") for role, target in ROLE.findall(text) if role != "doc"}
    return {posixpath.splitext(target)[0] for target in found}


def words(text: str) -> str:
    """A text without formulas, code, addresses of links and roles."""
    text = re.sub(r"\{[a-z:]+\}`[^`]*`|`[^`\n]*`|https?://\S+", " ", MATH.sub(" ", text))
    return re.sub(r"\]\([^)\s]*\)|[*\[]", "", text)


def formulas(text: str) -> str:
    """The formulas of a text, without the words in them."""
    return "\n".join(re.sub(r"\\text\{[^}]*\}", " ", "".join(hit)) for hit in MATH.findall(text))


def first_use(page: str, uses) -> str | None:
    """What a page says up to the end of the section where something is used first; None where it is not."""
    parts = sections(source(page))
    at = next((at for at, part in enumerate(parts) if uses(part)), None)
    return None if at is None else "".join(parts[: at + 1])


def too_early(defined: str, uses, enough: set[str], pages: list[str]) -> list[str]:
    """The pages before the defining one that use something and do not lead to it."""
    before = [page for page in pages[: pages.index(defined)] if page not in LISTS]
    found = []
    for page in before:
        said = first_use(page, uses)
        if said is not None and not linked(said, page) & (enough | {defined}):
            found.append(page)
    return found


# --- words -----------------------------------------------------------------------------------------------------

ENTRIES = glossary.entries((ROOT / f"{glossary.GLOSSARY}.md").read_text(encoding="utf-8"))


def by_name(entry: glossary.Entry) -> str:
    return entry.names[0]


def uses_word(entry: glossary.Entry):
    search = glossary.pattern(list(entry.names))
    return lambda text: search.search(words(text)) is not None


@pytest.mark.parametrize("entry", ENTRIES, ids=by_name)
def test_a_word_is_defined_on_a_page_that_uses_it(entry):
    assert entry.page in PAGES, f"{entry.names[0]} is defined in {entry.page}, which is no page of the book"
    assert uses_word(entry)(source(entry.page)), f"{entry.page} does not use the word {entry.names}"


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.section in STRICT], ids=by_name)
def test_a_word_of_ours_or_of_statistics_is_not_used_before_it_is_defined(entry):
    early = too_early(entry.page, uses_word(entry), set(), PAGES)
    assert early == [], f"{entry.names} used before {entry.page}, and without a link to it, by {early}"


@pytest.mark.parametrize(
    ("text", "early"),
    [
        ("# One\n\n## Two\n\nAfter Holm it is open.", True),
        ("# One\n\nAfter Holm.\n\n## Two\n\n[Here](../../book/statistics.md).", False),
        ("# One\n\n## Two\n\nAfter Holm.\n\n## Three\n\n[Here](../../book/statistics.md).", True),
        ("# One\n\n```python\nholm = Holm\n```\n\n`Holm`, {cite:p}`Holm` and [so on](Holm.md).", False),
    ],
)
def test_a_use_before_the_definition_is_seen(text, early, monkeypatch):
    page = "notebooks/batch/full_batch"
    prose = "\n".join(without_code(text))
    monkeypatch.setattr(sys.modules[__name__], "source", lambda name: prose if name == page else "# Nothing")
    holm = next(entry for entry in ENTRIES if "Holm" in entry.names)
    assert too_early("book/statistics", uses_word(holm), set(), PAGES) == ([page] if early else [])


def test_the_statistics_that_carry_verdicts_are_among_the_strict_words():
    strict = {glossary.key(name) for entry in ENTRIES if entry.section in STRICT for name in entry.names}
    assert {"wilcoxon's signed rank test", "holm", "equivalence", "ece", "gence"} <= strict


# --- symbols ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Symbol:
    """A row of the notation page: how it is written, the page that introduces it, and where it means something else."""

    written: tuple[str, ...]
    page: str
    elsewhere: frozenset[str]

    def used(self, text: str) -> bool:
        return any(re.search(spelt(tex), formulas(text)) for tex in self.written)


# An index stands for others of its kind: k for a class, i for a sample.
INDEX = {"_k": "_[klmy]", "_i": "_[ij]", r"_\{ik\}": r"_\{[ij][klmy]\}"}


def spelt(tex: str) -> str:
    """The pattern of a symbol, which is no part of a longer name and has no other index."""
    plain = re.escape(tex).replace(r"\ ", r"\s*")
    for index, others in INDEX.items():
        plain = plain.replace(index, others)
    return rf"(?<![A-Za-z\\]){plain}(?![A-Za-z_^'])" if len(tex) == 1 else rf"(?<![A-Za-z\\]){plain}(?![A-Za-z])"


def symbols(text: str) -> list[Symbol]:
    """The symbols of the notation page."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| $")]
    other: dict[str, set[str]] = {}
    for row in filter(lambda row: len(row) == 3, rows):
        other.setdefault(row[0].strip(), set()).update(linked(row[2], NOTATION))
    found = []
    for row in filter(lambda row: len(row) == 4, rows):
        names = tuple(re.findall(r"\$([^$]+)\$", row[0]))
        (page,) = linked(row[3], NOTATION)
        found.append(Symbol(names, page, frozenset(other.pop(row[0].strip(), ()))))
    assert not other, f"letters with two meanings that have no first one: {sorted(other)}"
    return found


SYMBOLS = symbols((ROOT / f"{NOTATION}.md").read_text(encoding="utf-8"))


def test_a_symbol_stands_in_the_notation_once():
    written = [tex for symbol in SYMBOLS for tex in symbol.written]
    assert len(written) == len(set(written)) >= 30


@pytest.mark.parametrize("symbol", SYMBOLS, ids=lambda symbol: symbol.written[0])
def test_a_symbol_is_not_used_before_it_is_introduced(symbol):
    assert symbol.used(source(symbol.page)), f"{symbol.page} does not use {symbol.written}"
    pages = [page for page in PAGES if page not in symbol.elsewhere]
    early = too_early(symbol.page, symbol.used, {NOTATION}, pages)
    assert early == [], f"{symbol.written} used before {symbol.page} without a link to it or to the notation: {early}"
