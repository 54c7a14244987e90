"""Exercises that answer back: a check of a student's function by a search for its smallest counterexample.

``check("E08", brier)`` tries the properties that a solution must have on small cases, all of them, in a fixed order,
and shows the first that fails with the input at which it does. It knows no solution, and shows none.

- ``trial``: exercises, properties, answers. ``small``: small cases, and the smallest belief that a loss distorts.
- ``losses``, ``decisions``, ``calibration``, ``repair``, ``batch``: the graders. ``registry``: all, and ``check``.
- ``exercises.toml``: title, statement, stub, and where to read.
- ``python -m gence.course mark FOLDER --out OUT`` marks what was handed in. ``submission``: a notebook as data;
  ``wire``, ``walls``: values between processes, and what a process may do; ``student``, ``marking``: who runs its code,
  and who judges; ``reports``: lists and pages. ``sealed``: the instructor's archive.
"""

from __future__ import annotations

from gence.course.registry import EXERCISES, check
from gence.course.trial import Answer, Exercise

__all__ = ["EXERCISES", "Answer", "Exercise", "check"]
