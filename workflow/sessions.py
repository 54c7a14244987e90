"""The pages of the course's sessions, written from what decides them: times, objectives, exercises, questions.

`python workflow/course.py sessions` writes book/course/session_1.md to session_6.md.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from itertools import accumulate
from pathlib import Path

import copies
import yaml
from pydantic import BaseModel, Field

from gence.words import nearest

ROOT = Path(__file__).resolve().parent.parent
COURSE = ROOT / "book" / "course"
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import quiz  # noqa: E402

# The parts of every session, in their order, and what a lecturer does in them.
PARTS = {
    "bet": "Bet",
    "picture": "Picture",
    "board": "Proof on the board",
    "demo": "Live, with a prediction before each run",
    "others": "What others do and did",
    "exit": "Settle the bet, three questions",
}
BELIEFS = ["Belief", "Question", "What shows it"]
HEAD = "<!-- Written by `python workflow/course.py sessions` from teaching.yml and its neighbours: edit those. -->"


class Settled(BaseModel, extra="forbid"):
    """How a bet is settled, and the claim of the ledger that says so."""

    by: str
    claim: str | None


class Teaching(BaseModel, extra="forbid"):
    """What happens in the ninety minutes of a session; each part is what the lecturer says or shows."""

    read: list[str] = Field(min_length=1)
    bet: str
    settled: Settled
    picture: str
    board: str
    lines: list[str] = Field(min_length=5, max_length=9)
    left_out: str
    demo: str
    demo_at: str
    others: str
    ask: str
    late: str
    trips: str
    hand_out: list[str] = ["book/course/bets"]
    worth: list[str] = Field(min_length=1, max_length=5)
    exit: list[str] = Field(min_length=3, max_length=3)


@cache
def written() -> dict:
    return yaml.safe_load((COURSE / "teaching.yml").read_text(encoding="utf-8"))


def teaching() -> dict[int, Teaching]:
    """Every session, by number."""
    return {number: Teaching(**one) for number, one in written()["sessions"].items()}


def minutes() -> dict[str, tuple[int, int]]:
    """When each part of a session begins and ends."""
    parts = written()["parts"]
    ends = list(accumulate(parts.values()))
    return {name: (end - length, end) for (name, length), end in zip(parts.items(), ends, strict=True)}


def page(number: int, objectives: list) -> str:
    """The page of a session; `objectives` are those of :func:`course.objectives`."""
    session, plan = copies.sessions()[number], teaching()[number]
    mine = [one for one in objectives if one.id.startswith(f"O{number}.")]
    asked = [one for one in quiz.questions(ROOT) if one.objectives[0] in {o.id for o in mine}]
    parts = [
        f"# Session {number}: {session.title}",
        HEAD,
        "**You will be able to**",
        "\n".join(f"- {one.verb} {one.text} ({link(one.section.partition('#')[0])})" + "," for one in mine)[:-1] + ".",
        f"**Before it, read** {listed([f'{link(address)} ({time_of(address)})' for address in plan.read])}. "
        f"**In it:** ninety minutes, then a lab of as many. **After it:** the homework.",
        "## The ninety minutes",
        table(["Minutes", "Part", "What happens"], clock(plan)),
        "## On the board",
        "\n".join(f"{n}. {line}" for n, line in enumerate(plan.lines, 1)),
        f"**Left out:** {plan.left_out}",
        "## Beside it",
        f"**Slides.** `make course` writes them to `_build/course/slides/s{number}.html`; press S for the notes.",
        f"**To print.** {listed([link(address) for address in plan.hand_out])}.",
        f"**To start the discussion.** {plan.ask}",
        f"**If it gets late.** {plan.late}",
        "## Lab and homework",
        "Both are notebooks that `make course` writes ({doc}`marking`); graded exercises answer back.",
        table(["Set", "Exercise", "Kind"], [*work("lab", session.lab), *work("homework", session.homework)]),
        f"**What the lab trips over.** {plan.trips}",
        "## Three questions on the way out",
        "\n".join(f"{n}. {said(name)}" for n, name in enumerate(plan.exit, 1)),
        "They are answered with probabilities, like all questions of the course: {doc}`quiz`.",
        "## What many believe at first",
        "Each line is a wrong answer of one of the session's questions, and what shows that it is wrong. These are "
        "worth the time of the class; the page of questions has the others, too.",
        table(BELIEFS, chosen(asked, plan.worth)),
        folded("All the others", table(BELIEFS, rest(asked, plan.worth))),
    ]
    return "\n\n".join(parts) + "\n"


def clock(plan: Teaching) -> list[list[str]]:
    """A row for each part: from, to, what."""
    settled = f"The bet is settled: {plan.settled.by}"
    settled += f" (claim `{plan.settled.claim}` of the [ledger](../claims.md))." if plan.settled.claim else "."
    says = {name: getattr(plan, name) for name in ("bet", "picture", "board", "demo", "others")} | {"exit": settled}
    says["demo"] += f" ({link(plan.demo_at)})"
    return [[f"{start}–{end}", PARTS[name], says[name]] for name, (start, end) in minutes().items()]


def work(kind: str, names: list[str]) -> list[list[str]]:
    """A row for each exercise of a lab or a homework."""
    return [[kind, f"{name} {copies.title_of(name)}", copies.kind_of(name)] for name in names]


def said(name: str) -> str:
    """The stem of a question, with its number on the page of questions."""
    return next(f"{one.stem} ({one.id})" for one in quiz.questions(ROOT) if one.id == name)


def misconceptions(asked: list) -> dict[str, list[str]]:
    """A row for each wrong option, by question and misconception."""
    return {
        f"{one.id} {option.misconception}": [option.misconception, f"{one.id}: {option.text}", option.why]
        for one in asked
        for option in one.options
        if option.misconception
    }


def chosen(asked: list, worth: list[str]) -> list[list[str]]:
    """The rows that are worth the time of a class, in the order in which the plan names them."""
    rows = misconceptions(asked)
    if unknown := [name for name in worth if name not in rows]:
        raise ValueError(f"teaching.yml: no wrong answer of the session is {unknown[0]!r}{nearest(unknown[0], rows)}")
    return [rows[name] for name in worth]


def rest(asked: list, worth: list[str]) -> list[list[str]]:
    return [row for name, row in misconceptions(asked).items() if name not in worth]


def folded(title: str, text: str) -> str:
    return f"```{{dropdown}} {title}\n\n{text}\n```"


def source(address: str) -> Path:
    path = ROOT / f"{address}.md"
    return path if path.exists() else path.with_suffix(".ipynb")


@cache
def words_of(address: str) -> str:
    """The Markdown of a page."""
    path = source(address)
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = copies.nb.read(path).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def link(address: str) -> str:
    """A link to a page of the book, by its title."""
    title = re.search(r"^# (.+)$", words_of(address), re.MULTILINE)[1]
    return f"[{title}](../../{source(address).relative_to(ROOT)})"


def time_of(address: str) -> str:
    """What a page says of its reading time."""
    found = re.search(r"\*\*Time:\*\* (?:about )?([^.;,]+)", words_of(address))
    if found is None:
        raise ValueError(f"{source(address).relative_to(ROOT)} does not say its **Time:**")
    return found[1]


def listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; a bar in a cell is not its end, and a double one of LaTeX stays double."""
    lines = [heads, ["---"] * len(heads), *rows]
    clean = [[" ".join(cell.replace(r"\|", r"\Vert ").replace("|", r"\|").split()) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in clean)


def write(objectives: list) -> None:
    """Write the pages."""
    for number in teaching():
        (COURSE / f"session_{number}.md").write_text(page(number, objectives), encoding="utf-8")
