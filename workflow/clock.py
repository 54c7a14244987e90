"""The class of ninety minutes: what stands on its board, and whether its parts fit their minutes.

`python workflow/course.py class` writes both into book/course/class.md, between the lines that name them.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import sessions
import slides
import yaml
from pydantic import BaseModel, Field

COURSE = Path(__file__).resolve().parent.parent / "book" / "course"
PAGE, TIMES = COURSE / "class.md", COURSE / "class.yml"
DECK = "class90"
BLOCK = r"(?<=<!-- {name}, written by `python workflow/course.py class` -->\n\n).*?(?=\n\n<!-- end -->)"


class Part(BaseModel, extra="forbid"):
    """What a part takes beside the words: minutes of the students, seconds of the machine, lines on the board."""

    students: float = Field(ge=0)
    machine: float = Field(ge=0)
    board: list[str]


class Class(BaseModel, extra="forbid"):
    """The class, part by part."""

    bet: str
    losses: list[str]
    words_a_minute: float = Field(gt=0)
    minutes_a_line: float = Field(gt=0)
    parts: dict[str, Part]
    left_out: str


def times() -> Class:
    """What class.yml says."""
    return Class(**yaml.safe_load(TIMES.read_text(encoding="utf-8")))


def planned() -> dict[str, int]:
    """Minutes of each part, by the notes of the deck."""
    found: Counter = Counter()
    for length, part in slides.NOTES.findall(slides.written(DECK)):
        found[part] += int(length)
    return dict(found)


def words() -> Counter:
    """How many words of each part are spoken or read: notes, slides, what they quote, reasons of the answers."""
    found: Counter = Counter()
    for slide in re.split(r"^(?=##? )", slides.written(DECK), flags=re.MULTILINE)[1:]:
        part = slides.NOTES.search(slide)[2]
        found[part] += count(slides.NOTES.sub("", slides.NAMED.sub(read_out, slide)))
    return found


def read_out(named: re.Match) -> str:
    """The words of what a slide names; a figure has none."""
    kind, name = named.groups()
    if kind == "question":
        question = slides.questions()[name]
        return " ".join([question.stem, *(f"{option.text} {option.why}" for option in question.options)])
    return slides.claims()[name]["statement"] if kind == "claim" else ""


def count(text: str) -> int:
    """Words of Markdown; a formula counts as one."""
    text = re.sub(r"\$\$.+?\$\$|\$[^$]+\$", " formula ", text, flags=re.DOTALL)
    return len(re.findall(r"[^\W_]+(?:[’'-][^\W_]+)*", re.sub(r"\{[\w-]+\}", "", text)))


def minutes() -> dict[str, float]:
    """What each part takes."""
    plan, said = times(), words()
    return {
        name: said[name] / plan.words_a_minute
        + part.students
        + len(part.board) * plan.minutes_a_line
        + part.machine / 60
        for name, part in plan.parts.items()
    }


HEADS = ["Part", "Planned", "Words", "To say or read", "On the board", "Students", "Machine", "Together", "Left"]


def rows() -> list[list[str]]:
    """The table of the class's clock: a row for each part and one for all."""
    plan, said, total, given = times(), words(), minutes(), planned()
    found = []
    for name, part in plan.parts.items():
        board = len(part.board) * plan.minutes_a_line
        numbers = [said[name] / plan.words_a_minute, board, part.students]
        found.append([given[name], said[name], *numbers, part.machine, total[name], given[name] - total[name]])
    found.append([sum(column) for column in zip(*found, strict=True)])
    return [[name, *written(row)] for name, row in zip([*plan.parts, "all"], found, strict=True)]


def written(row: list[float]) -> list[str]:
    given, said, spoken, board, students, machine, total, left = row
    return [f"{given}", f"{said}", *(f"{one:.1f}" for one in (spoken, board, students)), f"{machine:.0f} s",
            f"{total:.1f}", f"{left:.1f}"]  # fmt: skip


def board() -> str:
    """What stands on the board, in its order, and what does not."""
    plan = times()
    lines = [line for part in plan.parts.values() for line in part.board]
    listed = "\n".join(f"{n}. {line}" for n, line in enumerate(lines, 1))
    return f"{listed}\n\n**Left out:** {plan.left_out}"


def page() -> str:
    """The page of the class, with board and clock as they are now."""
    text = PAGE.read_text(encoding="utf-8")
    for name, block in (("Board", board()), ("Clock", sessions.table(HEADS, rows()))):
        text, found = re.subn(BLOCK.format(name=name), lambda _, block=block: block, text, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"class.md has {found} places for the block {name!r}, and needs one")
    return text
