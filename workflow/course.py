"""The course: its own pages, copies for a class, exports to other people's graders.

python workflow/course.py matrix            write book/course/kill_matrix.md
python workflow/course.py coverage          write book/course/coverage.md
python workflow/course.py sessions          write book/course/session_1.md to session_6.md
python workflow/course.py class             write board and clock into book/course/class.md
python workflow/course.py bets              write book/course/bets.md
python workflow/course.py gaps              say which objectives lack an exercise or a question
python workflow/course.py copies            write the student copies, and with a key the instructor's archive
python workflow/course.py slides            write the slides; with pdf after it, print them, too
python workflow/course.py export otter      write the labs as otter-grader takes them; nbgrader: as that does
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import bets
import clock
import copies
import exports
import nbformat
import notebook_tools as nb
import sessions
import slides
import yaml
from copies import kind_of, title_of
from pydantic import BaseModel, Field
from zoo import Wrong, zoo

from gence.course import EXERCISES, Answer, Exercise, check

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import quiz  # noqa: E402

COURSE = ROOT / "book" / "course"
MATRIX = COURSE / "kill_matrix.md"
COVERAGE = COURSE / "coverage.md"
other_exercises = copies.others


def stub_of(exercise: Exercise) -> Callable:
    """The function that a student starts from."""
    names: dict[str, Any] = {}
    exec(exercise.stub, names)
    return next(value for name, value in names.items() if callable(value) and name != "__builtins__")


def kill_matrix() -> str:
    """The page that says what each planted wrong solution breaks."""
    return "\n\n".join([HEAD, *(matrix_of(name) for name in EXERCISES)]) + "\n"


HEAD = """# What the graders refuse

Each exercise comes with wrong solutions, planted to see whether its grader notices. Here is what refuses them. *First*
is the property that the answer names, beside the smallest telling input; *also* are properties that would refuse the
mistake by themselves. Every property is the first for some mistake. A wrong solution that gets through in a class
becomes one more line in `book/course/zoo/`.

This page is written by `python workflow/course.py matrix`, and a test holds it to the graders."""


@cache
def refusals(name: str) -> tuple[tuple[Wrong, Answer], ...]:
    """What the grader of an exercise answers to each planted mistake."""
    return tuple((wrong, check(name, wrong.function)) for wrong in zoo()[name][1])


def matrix_of(name: str) -> str:
    """The section of one exercise: its properties, and a row for each mistake."""
    exercise = EXERCISES[name]
    laws = list(exercise.laws)
    lines = [f"## {name} {exercise.title}", "", *(f"{n}. {_escaped(says)}" for n, says in enumerate(laws, 1)), ""]
    lines += ["| Mistake | First | Also | Input |", "| --- | --- | --- | --- |"]
    for wrong, answer in refusals(name):
        first = laws.index(answer.broken) if answer.broken in laws else -1
        trial = exercise.accept(wrong.function)
        also = [n for n, says in enumerate(laws, 1) if n > first + 1 and exercise.first_broken(says, trial)]
        cells = [wrong.mistake, str(first + 1) if first >= 0 else "stops", ", ".join(map(str, also)), answer.given]
        lines.append(f"| {' | '.join(map(_escaped, cells))} |")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Words that Markdown takes as they are, on one line of a table."""
    return re.sub(r"([|\\`*_$<>\[\]])", r"\\\1", text if len(text) <= 120 else f"{text[:117]}...")


class Objective(BaseModel, extra="forbid"):
    """What a reader can do after a section."""

    id: str = Field(pattern=r"^O[1-6]\.\d$")
    verb: Literal["state", "compute", "implement", "derive", "prove", "decide", "predict", "build", "choose", "explain"]
    text: str = Field(min_length=10)
    section: str = Field(pattern=r"^(notebooks|book)/[\w/]+#.+$")
    claims: list[str]
    exercises: list[str]
    questions: list[str]  # filled from quizzes.yml


def objectives() -> list[Objective]:
    """All of them, as book/course/objectives.yml has them, with the questions that name them."""
    written = yaml.safe_load((COURSE / "objectives.yml").read_text(encoding="utf-8"))
    asked = quiz.questions(ROOT)
    return [Objective(**one, questions=[q.id for q in asked if one["id"] in q.objectives]) for one in written]


def graded_cell(name: str) -> str:
    """What a chapter says of a graded exercise: its statement, and the function that `check` asks for."""
    exercise = EXERCISES[name]
    lines = [textwrap.fill(line, 68, subsequent_indent="    ") for line in exercise.stub.strip().splitlines()]
    call = f'check("{name}", {stub_of(exercise).__name__})'
    code = "\n".join(["```python", *lines, "", "", call, "```"])
    stop = "" if exercise.title.endswith("?") else "."
    return f"**{name}. {exercise.title}{stop}** {exercise.statement}\n\n{code}"


class Place(NamedTuple):
    """A cell of a chapter that is an exercise, or a part of its solution."""

    kind: Literal["exercise", "solution"]
    id: str
    chapter: str  # as notebooks/proper/proper_losses
    cell: nbformat.NotebookNode


@cache
def places() -> tuple[Place, ...]:
    """All cells with a tag ``exercise:ID`` or ``solution:ID``."""
    return tuple(_places())


def _places() -> Iterator[Place]:
    for path in nb.all_notebooks():
        for cell in nb.read(path).cells:
            for tag in cell.metadata.get("tags", []):
                if found := re.fullmatch(r"(exercise|solution):(.+)", tag):
                    yield Place(*found.groups(), path.relative_to(ROOT).with_suffix("").as_posix(), cell)


COVERAGE_HEAD = """# What the course covers

Each objective of the course is what a reader can do after a section: *after it you can*. Here it stands with that
section, the statements of [the ledger](../claims.md) that it rests on, each linked to the page that checks it, the
exercises that practise it, each linked to its chapter, and the number of its [questions](quiz.md). Exercises in bold
are graded: a program answers, and [what it refuses](kill_matrix.md) is a page of its own.

This page is written by `python workflow/course.py coverage`, and a test holds it to the chapters."""

KINDS = ("graded", "compute", "prove", "experiment", "read", "open")


def coverage() -> str:
    """The page that says what each objective rests on, and which exercises there are."""
    exercises = {place.id: place.chapter for place in places() if place.kind == "exercise"}
    parts = [COVERAGE_HEAD]
    for session in sorted({one.id[:2] for one in objectives()}):
        parts += [f"## Session {session[1:]}", "\n".join(_rows_of(session, exercises))]
    return "\n\n".join([*parts, "## The exercises", "\n".join(_counts(exercises)), *_lists()]) + "\n"


def _rows_of(session: str, exercises: dict[str, str]) -> Iterator[str]:
    checks = {claim["id"]: claim["check"].split("#")[0] for claim in nb.claims() if claim.get("check")}
    yield "| After it you can | Section | Claims | Exercises | Questions |\n| --- | --- | --- | --- | --- |"
    for one in objectives():
        if one.id.startswith(session):
            page, heading = one.section.split("#", 1)
            claims = ", ".join(_link(name, checks[name]) for name in one.claims)
            practice = ", ".join(_link(_bold(name), f"{exercises[name]}.ipynb") for name in one.exercises)
            yield (
                f"| **{one.id}** {one.verb} {one.text} | {_link(heading, f'{page}.ipynb')} | {claims or '–'} "
                f"| {practice} | {len(one.questions)} |"
            )


def _counts(exercises: dict[str, str]) -> Iterator[str]:
    kinds = [kind_of(name) for name in exercises]
    yield f"| {' | '.join(KINDS)} | all |\n|{' --- |' * (len(KINDS) + 1)}"
    yield f"| {' | '.join(str(kinds.count(kind)) for kind in KINDS)} | {len(kinds)} |"


def _lists() -> Iterator[str]:
    pages = nb.pages_of_toc()
    for chapter in sorted({place.chapter for place in places()}, key=pages.index):
        its = [_named(place) for place in places() if (place.kind, place.chapter) == ("exercise", chapter)]
        yield f"{_link(headings_of(chapter)[0].lstrip('# '), f'{chapter}.ipynb')}: {'; '.join(its)}."


def _named(place: Place) -> str:
    """An exercise with its number in the chapter; graded ones have none."""
    number = re.match(r"\*\*(\d+)\.\*\* ", place.cell.source)
    return f"{f'{number[1]}. ' if number else ''}{title_of(place.id)} ({_bold(place.id)}, {kind_of(place.id)})"


def _bold(name: str) -> str:
    return f"**{name}**" if name in EXERCISES else name


def _link(text: str, path: str) -> str:
    """A link from the course's pages."""
    return f"[{text}](../../{path})"


def headings_of(address: str) -> list[str]:
    """The headings of a page, a notebook or Markdown."""
    return re.findall(r"^#+ .+$", sessions.words_of(address), re.MULTILINE)


def gaps(kind: Literal["exercises", "questions"]) -> list[str]:
    """Objectives that have none of these."""
    return [one.id for one in objectives() if not getattr(one, kind)]


def main(arguments: list[str]) -> int:
    """Do what the arguments say."""
    if arguments == ["matrix"]:
        MATRIX.write_text(kill_matrix(), encoding="utf-8")
    elif arguments == ["coverage"]:
        COVERAGE.write_text(coverage(), encoding="utf-8")
    elif arguments == ["sessions"]:
        sessions.write(objectives())
    elif arguments == ["class"]:
        clock.PAGE.write_text(clock.page(), encoding="utf-8")
    elif arguments == ["bets"]:
        bets.PAGE.write_text(bets.page(), encoding="utf-8")
    elif arguments == ["gaps"]:
        for kind in ("exercises", "questions"):
            print(f"without {kind}: {', '.join(gaps(kind)) or 'none'}")
    elif arguments == ["copies"]:
        try:
            print(copies.make_copies())
        except (ValueError, ImportError) as problem:
            raise SystemExit(str(problem)) from None
    elif arguments in (["slides"], ["slides", "pdf"]):
        try:
            print(f"Slides: {slides.build() / 'index.html'}")
            if arguments[1:]:
                print("\n".join(map(str, slides.print_decks())))
        except ValueError as problem:
            raise SystemExit(str(problem)) from None
    elif arguments in (["export", "otter"], ["export", "nbgrader"]):
        print(exports.export(arguments[1]))
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
