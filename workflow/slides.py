"""The slides of the course: one deck for each session and one for the class, without a request to another host.

`python workflow/course.py slides` writes them under _build/course/slides, `... slides pdf` prints them there, too.

A deck is book/course/slides/NAME.md. What can be wrong stands elsewhere and is named on a line of its own:

    {claim}`ID`       a statement of the ledger
    {figure}`NAME`    a figure of a chapter, as the committed notebook has drawn it, with its alternative text
    {question}`ID`    a question of quizzes.yml with its options
    {says}`PART`      what teaching.yml says of the session: bet, board, settled, ...
    :::{notes} 5 bet  opens the notes of the speaker: five minutes, which belong to the bet
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import nbformat
import notebook_tools as nb
import sessions

from gence.words import nearest

ROOT = Path(__file__).resolve().parent.parent
DECKS = ROOT / "book" / "course" / "slides"
OUT = ROOT / "_build" / "course" / "slides"
# A deck stands beside the book: what a link says stays, where it leads goes.
LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
NAMED = re.compile(r"^\{(claim|figure|question|says)\}`([^`]+)`$", re.MULTILINE)
NOTES = re.compile(r"^:::\{notes\} (\d+) (\w+)$", re.MULTILINE)
Found = TypeVar("Found")


class Figure(NamedTuple):
    """A figure of a chapter."""

    chapter: str
    cell: nbformat.NotebookNode

    @property
    def alt(self) -> str:
        return " ".join(self.cell.metadata["mystnb"]["image"]["alt"].split())

    @property
    def png(self) -> bytes:
        pictures = (output.get("data", {}).get("image/png") for output in self.cell.outputs)
        return base64.b64decode(next(filter(None, pictures)))


def names() -> list[str]:
    """The decks."""
    return sorted(path.stem for path in DECKS.glob("*.md"))


@cache
def figures() -> dict[str, Figure]:
    """All figures of the chapters, by name."""
    found = {}
    for path in nb.all_notebooks():
        notebook = nb.read(path)
        heading = re.search(r"^# (.+)$", "\n".join(nb_markdown(notebook)), re.MULTILINE)
        for cell in nb.code_cells(notebook):
            if name := cell.metadata.get("mystnb", {}).get("figure", {}).get("name"):
                found[name] = Figure(heading[1] if heading else path.stem, cell)
    return found


def nb_markdown(notebook: nbformat.NotebookNode) -> Iterable[str]:
    return (cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@cache
def claims() -> dict[str, dict[str, str]]:
    return {claim["id"]: claim for claim in nb.claims()}


@cache
def questions() -> dict[str, sessions.quiz.Question]:
    return {one.id: one for one in sessions.quiz.questions(ROOT)}


def named(kind: str, name: str, known: dict[str, Found]) -> Found:
    """What has this name; the nearest one is said where nothing has."""
    if name not in known:
        raise ValueError(f"no {kind} is called {name!r}{nearest(name, known)}")
    return known[name]


def _claim(name: str, _: str) -> str:
    claim = named("claim", name, claims())
    held = "" if claim["status"] == "holds" else f", {claim['status']}"
    return f"::::{{container}} quoted claim\n{claim['statement']}\n\nLedger: `{name}`{held}\n::::"


def _figure(name: str, _: str) -> str:
    figure = named("figure", name, figures())
    lines = [f"```{{image}} figures/{name}.png\n:alt: {figure.alt}\n```"]
    return "\n\n".join([*lines, f":::{{container}} quoted source\nFigure of *{figure.chapter}*\n:::"])


def _question(name: str, _: str) -> str:
    question = named("question", name, questions())
    options = "\n".join(f"1. {option.text}" for option in question.options)
    return f"::::{{container}} quoted question\n{question.stem}\n\n{options}\n::::"


def _says(part: str, deck: str) -> str:
    plan = sessions.teaching()[int(deck[1:])]
    said = plan.model_dump() | {"settled": f"The bet is settled: {plan.settled.by}."}
    return LINK.sub(r"\1", named("part of teaching.yml", part, said))


EXPANDED: dict[str, Callable[[str, str], str]] = {
    "claim": _claim,
    "figure": _figure,
    "question": _question,
    "says": _says,
}


def written(deck: str) -> str:
    """A deck as its file has it."""
    return (DECKS / f"{deck}.md").read_text(encoding="utf-8")


def expanded(deck: str) -> str:
    """A deck with all that it names."""
    try:
        text = NAMED.sub(lambda found: EXPANDED[found[1]](found[2], deck), written(deck))
    except ValueError as problem:
        raise ValueError(f"book/course/slides/{deck}.md: {problem}") from None
    return "---\norphan: true\n---\n" + NOTES.sub(r":::{revealjs-notes}\n\1 min, \2.", text)


def index() -> str:
    """The page that leads to the decks."""
    titles = [(name, re.search(r"^# (.+)$", written(name), re.MULTILINE)[1]) for name in names()]
    return "\n".join(["# Slides", "", *(f"- [{title}]({name}.md)" for name, title in titles)]) + "\n"


def build(out: Path = OUT) -> Path:
    """Write all decks, which share one copy of reveal.js and MathJax."""
    source = out.with_name(f"{out.name}-source")
    for folder in (source, out):
        shutil.rmtree(folder, ignore_errors=True)
    (source / "figures").mkdir(parents=True)
    (source / "index.md").write_text(index(), encoding="utf-8")
    for deck in names():
        (source / f"{deck}.md").write_text(expanded(deck), encoding="utf-8")
        for kind, name in NAMED.findall(written(deck)):
            if kind == "figure":
                (source / "figures" / f"{name}.png").write_bytes(figures()[name].png)
    command = [sys.executable, "-m", "sphinx", "-b", "revealjs", "-q", "-W", "--keep-going", "-c", DECKS, source, out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"Sphinx does not take the decks:\n{done.stderr}")
    for folder in (source, out / ".doctrees"):
        shutil.rmtree(folder, ignore_errors=True)
    return out


def print_decks(out: Path = OUT) -> list[Path]:
    """Print each deck into a PDF beside it, a page for each slide."""
    import pdf

    with pdf.opened(out) as (browser, site):
        for deck in names():
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.set_default_timeout(pdf.SLOW)
            page.goto(f"{site}/{deck}.html?print-pdf", wait_until="load")
            page.wait_for_function("() => Reveal.isReady() && document.querySelector('.pdf-page')")
            page.evaluate("() => window.MathJax?.startup?.promise")
            page.pdf(path=out / f"{deck}.pdf", prefer_css_page_size=True, print_background=True, tagged=True)
            page.close()
    return [out / f"{deck}.pdf" for deck in names()]
