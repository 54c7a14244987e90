"""Exercises and solutions stand where the lists say, each in cells of its own, and the coverage page says so."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from gence.course import EXERCISES

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import course  # noqa: E402
import notebook_tools as nb  # noqa: E402

PLACES = course.places()
LISTED = {*EXERCISES, *course.other_exercises()}
on_every_notebook = pytest.mark.parametrize("path", nb.all_notebooks(), ids=lambda path: path.stem)


def faults_of_tags(notebook: nbformat.NotebookNode) -> list[str]:
    """What is wrong with the cells of exercises and solutions of a notebook."""
    found, last, graded = [], None, False
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        ids = [tag.split(":")[1] for tag in tags if re.match("(exercise|solution):", tag)]
        starts = nb.OPENING.findall(cell.source) if cell.cell_type == "markdown" else []
        graded = graded or cell.source.startswith("### Graded exercises")
        where = cell.source[:60]
        if len(ids) > 1 or len(starts) > 1:
            found.append(f"more than one exercise or solution in a cell: {where}")
        elif re.match(r"\*\*\d+\.\*\* ", cell.source) and tags != [f"exercise:{ids and ids[0]}"]:
            found.append(f"an exercise without its tag: {where}")
        elif starts and not nb.OPENING.match(cell.source):
            found.append(f"an exercise or a solution begins within a cell: {where}")
        elif (cell.source.startswith("*Solution.*") or "solution" in tags) and f"solution:{last}" not in tags:
            found.append(f"a solution without the tag of its exercise, solution:{last}: {where}")
        elif any(tag.startswith("solution:") for tag in tags) and (ids != [last] or graded):
            found.append(f"a solution that does not follow its exercise: {where}")
        elif graded and ids and ids[0] not in EXERCISES:
            found.append(f"not graded, and below the heading of the graded ones: {where}")
        last = ids[0] if ids else last
    return found


@on_every_notebook
def test_exercises_and_solutions_have_cells_and_tags_of_their_own(path):
    assert faults_of_tags(nb.read(path)) == []


def cells(*described: tuple[str, str]) -> nbformat.NotebookNode:
    made = [nbformat.v4.new_markdown_cell(text, metadata={"tags": tags.split()}) for text, tags in described]
    return nbformat.v4.new_notebook(cells=made)


@pytest.mark.parametrize(
    ("described", "fault"),
    [
        ([("**1.** Why?", "")], "an exercise without"),
        ([("*Solution.* So.\n\n**2.** And?", "solution:E50")], "more than one"),
        ([("Read.\n\n**2.** And?", "exercise:E50")], "begins within"),
        ([("**1.** Why?", "exercise:E50"), ("*Solution.* So.", "")], "without the tag of its exercise, solution:E50"),
        ([("**1.** Why?", "exercise:E50"), ("*Solution.* So.", "solution:E51")], "without the tag of its exercise"),
        ([("**1.** Why?", "exercise:E50"), ("So.", "solution:E51")], "does not follow"),
        (
            [("### Graded exercises", ""), ("**E08.** B", "exercise:E08"), ("So.", "solution:E08")],
            "does not follow",
        ),
        ([("### Graded exercises", ""), ("**E01.** Prices", "exercise:E01")], "not graded"),
    ],
)
def test_a_fault_of_tags_is_seen(described, fault):
    (found,) = faults_of_tags(cells(*described))
    assert fault in found


def test_every_exercise_stands_in_one_cell_and_every_cell_is_listed():
    tagged = Counter(place.id for place in PLACES if place.kind == "exercise")
    assert tagged == Counter(LISTED)


def test_every_solution_has_its_exercise_and_graded_exercises_have_none():
    solved = {place.id for place in PLACES if place.kind == "solution"}
    assert solved <= LISTED - set(EXERCISES)


def test_exercises_stand_in_the_chapter_that_their_list_names():
    written = {name: one["chapter"] for name, one in course.other_exercises().items()}
    assert {(place.id, place.chapter) for place in PLACES if place.id in written} == set(written.items())


@pytest.mark.parametrize("name", EXERCISES)
def test_a_chapter_has_the_statement_of_the_graded_exercise(name):
    (cell,) = [place.cell for place in PLACES if (place.kind, place.id) == ("exercise", name)]
    assert cell.source == course.graded_cell(name)
    assert EXERCISES[name].statement in cell.source
    assert f'check("{name}", ' in cell.source


def test_the_coverage_page_is_what_the_chapters_make_it():
    assert course.COVERAGE.read_text(encoding="utf-8") == course.coverage(), "run: python workflow/course.py coverage"
