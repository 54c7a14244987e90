"""Proofs and open questions among the exercises: how many and where, and every proof is written out."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import course  # noqa: E402
import notebook_tools as nb  # noqa: E402

OTHERS = course.other_exercises()
SOLUTIONS = {place.id: place.cell.source for place in course.places() if place.kind == "solution"}
THEORY = ("idea", "proper", "generative", "batch", "losses", "calibration", "classical")
CHAPTERS = [path for path in nb.all_notebooks() if path.parent.name in THEORY]


def of_kind(kind: str) -> list[str]:
    return [name for name, one in OTHERS.items() if one["kind"] == kind]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_of_the_theory_has_two_proofs(path):
    proofs = Counter(OTHERS[name]["chapter"] for name in of_kind("prove"))
    assert proofs[path.relative_to(ROOT).with_suffix("").as_posix()] >= 2


@pytest.mark.parametrize("name", of_kind("prove"))
def test_a_proof_is_written_out(name):
    assert SOLUTIONS.get(name, "").startswith("*Solution.*")


def test_eight_questions_or_more_are_open():
    assert len(of_kind("open")) >= 8
