"""The graders: stubs and planted mistakes are refused as their authors expect, solutions pass, answers are readable."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from gence.course import EXERCISES, check

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import course  # noqa: E402

IDS = list(EXERCISES)
SECONDS = 5.0
on_every_exercise = pytest.mark.parametrize("name", IDS)


def test_there_are_enough_and_each_has_its_answers():
    assert len(IDS) >= 24
    assert {"E04", "E17", "E28", "E30", "E34", "E37", "E41"} <= set(IDS)
    assert list(course.zoo()) == IDS


@on_every_exercise
def test_a_stub_is_not_written_yet(name):
    answer = check(name, course.stub_of(EXERCISES[name]))
    assert not answer.passed and answer.got == "nothing: not written yet, or a return is missing"
    assert len(str(answer)) < 1200, "an input of hundreds of numbers is shown by its beginning"


@on_every_exercise
def test_a_solution_passes_in_time_and_twice_the_same(name):
    solution = course.zoo()[name][0]
    before = time.process_time()
    first = check(name, solution)
    assert time.process_time() - before <= SECONDS
    assert first.passed, str(first)
    assert first.calls > 0


@on_every_exercise
def test_a_planted_mistake_is_refused_with_its_symptom_and_each_property_is_the_first_for_one(name):
    before = time.process_time()
    refused = course.refusals(name)
    assert time.process_time() - before <= SECONDS * len(refused)
    for wrong, answer in refused:
        assert not answer.passed, wrong.mistake
        assert wrong.breaks in answer.broken, f"{wrong.mistake}: {answer}"
        assert wrong.shows in str(answer), f"{wrong.mistake}: {answer}"
        assert answer.got != answer.wanted, "both sides of a broken relation are shown"
        assert "Traceback" not in str(answer) and "0x" not in str(answer)
    first = {answer.broken for _, answer in refused}
    assert set(EXERCISES[name].laws) <= first, "a property that refuses nothing has no place, or needs a mistake"
    wrong, answer = refused[-1]
    assert str(check(name, wrong.function)) == str(answer), "the same bytes twice"


@pytest.mark.thorough
@on_every_exercise
def test_the_kill_matrix_is_that_of_the_graders(name):
    assert course.matrix_of(name) in course.MATRIX.read_text(encoding="utf-8"), "run: python workflow/course.py matrix"


@on_every_exercise
def test_where_to_read_exists(name):
    title, heading, address = re.fullmatch(r'(.+), "(.+)" \((.+)\.html\)', EXERCISES[name].read).groups()
    headings = course.headings_of(address)
    assert headings[0] == f"# {title}"
    assert heading in {line.lstrip("#").strip() for line in headings}


@on_every_exercise
def test_statements_are_short_and_show_no_solution(name):
    exercise = EXERCISES[name]
    assert len(re.findall(r"[.?:](?= |$)", exercise.statement)) <= 4
    assert "return " not in exercise.stub


def test_bad_use_says_what_is_allowed():
    with pytest.raises(ValueError, match=r"'E99'.*E02.*E44"):
        check("E99", max)
    with pytest.raises(TypeError, match=r"E08 asks for a function brier\(p, label\), but got float"):
        check("E08", 0.3)
    with pytest.raises(TypeError, match=r"brier\(p, label\), but yours takes \(p\)"):
        check("E08", lambda p: 0.0)
    with pytest.raises(ValueError, match="unknown exercise 8"):
        check(8, max)


def raising(p, label):
    raise KeyError(f"at {object()}")


def leaving(p, label):
    raise SystemExit(3)


def endless(p, label):
    return endless(p, label)


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (raising, "KeyError: 'at <object object at ...>'"),
        (leaving, "SystemExit: 3"),
        (endless, "RecursionError"),
        (lambda p, label: "0.3 or so", "str that holds no numbers"),
        (lambda p, label: [1.0, 2.0], "list with 2 numbers, but one is wanted"),
        (lambda p, label: p[5], "IndexError: list index out of range"),
        (lambda p, label: print, "that holds no numbers"),
        (lambda p, label: (_ for _ in ()).throw(NotImplementedError), "not written yet"),
    ],
)
def test_whatever_a_student_does_becomes_an_answer_that_names_the_input(answer, got):
    found = check("E08", answer)
    assert not found.passed and got in found.got
    assert found.given.startswith("p (0.5, 0.5), label 0")


def double(x):
    return torch.tensor(x, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("kind", [np.array, double])
def test_numbers_of_numpy_and_torch_are_numbers(kind):
    assert check("E08", lambda p, label: kind(sum((x - (k == label)) ** 2 for k, x in enumerate(p)))).passed


@pytest.mark.parametrize("kind", [np.float32, torch.tensor])
def test_single_precision_is_told_and_not_called_wrong(kind):
    found = check("E08", lambda p, label: kind(sum((x - (k == label)) ** 2 for k, x in enumerate(p))))
    assert "use float64" in found.got


def test_a_solution_that_changes_its_input_changes_no_other():
    def brier(p, label):
        p[label] -= 1
        return sum(x * x for x in p)

    assert check("E08", brier).passed


def test_nan_is_no_answer():
    found = check("E08", lambda p, label: float("nan"))
    assert not found.passed and "nan" in found.got
