"""The objectives of the course: each is well formed, at a place that exists, and has what decides it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from gence.course import EXERCISES

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import course  # noqa: E402

OBJECTIVES = course.objectives()
CLAIMS = {claim["id"] for claim in yaml.safe_load((ROOT / "book" / "claims.yml").read_text(encoding="utf-8"))}


def test_there_are_enough_and_no_id_comes_twice():
    assert len(OBJECTIVES) >= 30
    assert len({one.id for one in OBJECTIVES}) == len(OBJECTIVES)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one.id)
def test_an_objective_stands_at_a_section_and_names_claims_and_exercises_that_exist(objective):
    page, heading = objective.section.split("#", 1)
    assert heading in {line.lstrip("#").strip() for line in course.headings_of(page)}
    assert set(objective.claims) <= CLAIMS
    assert set(objective.exercises) <= set(EXERCISES) | set(course.other_exercises())


def test_every_exercise_of_the_course_serves_an_objective():
    """E01 to E47 do; of the others, which stand in chapters beyond the sessions too, those that fit one."""
    used = {name for one in OBJECTIVES for name in one.exercises}
    assert {f"E{n:02}" for n in range(1, 48)} <= used
    assert not set(EXERCISES) & set(course.other_exercises())
    assert {course.kind_of(name) for name in (*EXERCISES, *course.other_exercises())} == set(course.KINDS)


COVERED_BY = ("exercises", "questions")


@pytest.mark.parametrize("kind", COVERED_BY)
def test_no_objective_goes_without(kind):
    assert course.gaps(kind) == []


@pytest.mark.parametrize("kind", COVERED_BY)
def test_a_gap_is_seen(monkeypatch, kind):
    bare = OBJECTIVES[0].model_copy(update={kind: []})
    monkeypatch.setattr(course, "objectives", lambda: [bare, *OBJECTIVES[1:]])
    assert course.gaps(kind) == [bare.id]
