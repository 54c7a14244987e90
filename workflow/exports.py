"""The labs and homeworks for other people's graders: each test is the one call of ``check`` that the book makes.

python workflow/course.py export otter       sources for `otter assign`, under _build/course/otter
python workflow/course.py export nbgrader    a course folder for nbgrader, under _build/course/nbgrader

No solution goes along: the search for a counterexample is the grader, and it needs none.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Literal

import copies
import nbformat
import yaml

Cells = list[nbformat.NotebookNode]


def export(to: Literal["otter", "nbgrader"]) -> str:
    """Write all sheets as sources of that grader; return what to do with them."""
    out = copies.OUT / to
    shutil.rmtree(out, ignore_errors=True)
    for number in copies.sessions():
        for kind in ("lab", "homework"):
            name = f"session_{number}_{kind}"
            folder = out / name if to == "otter" else out / "source" / name
            copies.write(KINDS[to](copies.sheet(number, kind), name), folder / f"{name}.ipynb")
    return f"{out}\nNext, there: {NEXT[to]}"


NEXT = {
    "otter": "otter assign session_1_lab/session_1_lab.ipynb made",
    "nbgrader": "nbgrader generate_assignment session_1_lab --create",
}


def parts(notebook: nbformat.NotebookNode) -> dict[str, Cells]:
    """The cells of a sheet by exercise; what stands before them under the empty name."""
    found: dict[str, Cells] = {"": []}
    name = ""
    for cell in notebook.cells:
        name = next(iter(copies.tagged(cell, "exercise")), name)
        found.setdefault(name, []).append(cell)
    return found


def _raw(name: str, source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_raw_cell(source, id=name)


def _points(name: str) -> int:
    """As many as the guide has steps; 1 for a graded exercise."""
    return len(copies.steps().get(name, "1"))


def otter(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """A source of `otter assign`: tests are functions that raise with the answer of ``check``."""
    config = {"name": name, "init_cell": True, "run_tests": False, "tests": {"ok_format": False}, "generate": True}
    cells: Cells = [_raw("config", f"# ASSIGNMENT CONFIG\n{yaml.safe_dump(config)}")]
    for of, its in parts(notebook).items():
        if not of:
            cells += its
            continue
        graded = len(its) == 3
        about = {"name": of, "points": _points(of), "manual": not graded}
        cells += [_raw(f"{of}-begin", f"# BEGIN QUESTION\n{yaml.safe_dump(about)}"), its[0]]
        cells.append(_raw(f"{of}-solution", "# BEGIN SOLUTION"))
        if graded:
            its[1].source = its[1].source.replace("# your code", "pass  # SOLUTION")
        cells += [its[1], _raw(f"{of}-written", "# END SOLUTION")]
        if graded:
            cells += [_raw(f"{of}-tests", "# BEGIN TESTS"), its[2], _raw(f"{of}-tested", "# END TESTS")]
            its[2].source = _otter_test(of, its[2].source)
        cells.append(_raw(f"{of}-end", "# END QUESTION"))
    notebook.cells = cells
    return notebook


def _otter_test(name: str, check: str) -> str:
    function = check.split(", ")[1].rstrip(")")
    return (
        f"def test_{name}({function}):\n    from gence.course import check\n\n"
        f"    answer = {check}\n    assert answer.passed, str(answer)"
    )


def nbgrader(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """A source of `nbgrader generate_assignment`: solution cells without one, and tests that raise."""
    for of, its in parts(notebook).items():
        if of and len(its) == 3:
            its[1].source = its[1].source.replace("# your code", "### BEGIN SOLUTION\n    pass\n    ### END SOLUTION")
            its[2].source = f"answer = {its[2].source}\nassert answer.passed, answer"
            its[1].metadata["nbgrader"] = _about(f"{of}-function", solution=True)
            its[2].metadata["nbgrader"] = _about(f"{of}-check", grade=True, locked=True, points=1)
        elif of:
            points = _points(of)
            its[1].metadata["nbgrader"] = _about(f"{of}-answer", solution=True, grade=True, points=points)
    return notebook


def _about(name: str, **wanted: bool | int) -> dict[str, object]:
    plain = {"grade": False, "solution": False, "locked": False, "task": False, "schema_version": 3}
    return plain | {"grade_id": name} | wanted


KINDS: dict[str, Callable[[nbformat.NotebookNode, str], nbformat.NotebookNode]] = {"otter": otter, "nbgrader": nbgrader}
