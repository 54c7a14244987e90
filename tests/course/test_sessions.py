"""The pages for lecturers: they follow their sources, and name what exists."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import copies  # noqa: E402
import course  # noqa: E402
import sessions  # noqa: E402

OBJECTIVES = course.objectives()
QUESTIONS = {one.id: one for one in sessions.quiz.questions(ROOT)}
CLAIMS = {claim["id"] for claim in yaml.safe_load((ROOT / "book" / "claims.yml").read_text(encoding="utf-8"))}
NUMBERS = sorted(sessions.teaching())
every_session = pytest.mark.parametrize("number", NUMBERS)


def test_there_are_as_many_sessions_as_are_set():
    assert NUMBERS == sorted(copies.sessions()) == [1, 2, 3, 4, 5, 6]


@every_session
def test_a_page_is_what_its_sources_say(number):
    """`python workflow/course.py sessions` writes it anew."""
    written = (ROOT / "book" / "course" / f"session_{number}.md").read_text(encoding="utf-8")
    assert written == sessions.page(number, OBJECTIVES)


def test_a_session_lasts_ninety_minutes_and_its_parts_follow_each_other():
    times = list(sessions.minutes().values())
    assert list(sessions.minutes()) == list(sessions.PARTS)
    assert times[0][0] == 0 and times[-1][1] == 90
    assert [end for _, end in times[:-1]] == [start for start, _ in times[1:]]


def test_the_class_lasts_ninety_minutes():
    text = (ROOT / "book" / "course" / "class.md").read_text(encoding="utf-8")
    times = [tuple(map(int, found)) for found in re.findall(r"^\| (\d+)–(\d+) \|", text, re.MULTILINE)]
    assert times[0][0] == 0 and times[-1][1] == 90
    assert [end for _, end in times[:-1]] == [start for start, _ in times[1:]]
    assert set(re.findall(r"\bQ\d\d\b", text)) <= set(QUESTIONS)


@every_session
def test_what_a_session_names_exists_and_is_its_own(number):
    plan = sessions.teaching()[number]
    assert plan.settled.claim is None or plan.settled.claim in CLAIMS
    for name in plan.exit:
        assert QUESTIONS[name].objectives[0].startswith(f"O{number}.")
    for address in (*plan.read, plan.demo_at):
        assert sessions.source(address).is_file()


@every_session
def test_each_objective_of_a_session_is_practised_in_it(number):
    session = copies.sessions()[number]
    practised = {*session.lab, *session.homework}
    for one in OBJECTIVES:
        if one.id.startswith(f"O{number}."):
            assert practised & set(one.exercises), one.id


def test_bars_of_a_table_and_of_latex_are_told_apart():
    assert sessions.table(["a"], [[r"$\KL(P \| Q)$, $|x|$"]]).endswith("| " + r"$\KL(P \Vert Q)$, $\|x\|$" + " |")
