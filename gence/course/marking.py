"""Marks for a notebook: student code runs in one process, the graders in a second, and the marks are kept in a third.

For each submission the marker's process starts an *examiner*, which reads the notebook and holds the graders, and the
examiner starts the *student*, behind :mod:`gence.course.walls`. The student answers calls by values, sent as JSON; the
verdict is the examiner's, told on a line that the student does not hold. Where the student ends, or has to be ended,
both start again without the cell, or the exercise, that did it. So each start settles something, and nothing is lost.
"""

from __future__ import annotations

import ast
import inspect
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gence.course import walls, wire
from gence.course.registry import EXERCISES
from gence.course.student import study
from gence.course.submission import Cell, answers, read
from gence.course.trial import words

__all__ = ["Mark", "Marked", "mark"]

_GRACE = 2.0  # seconds beyond its limit after which a process is ended
FUNCTIONS = {name: ast.parse(exercise.stub).body[-1].name for name, exercise in EXERCISES.items()}


@dataclass
class Mark:
    """One exercise of one submission.

    Attributes:
        exercise: its id. points: 1 where no property fails, else 0; None where a person has to decide.
        verdict: passed, not yet, stopped, missing, not tried, or by hand.
        holds: how many properties hold, in their order, before the first that fails. of: how many there are.
        property: the one that fails. answer: what the student reads, or has written. note: what else to know.
        seconds: of the check.
    """

    exercise: str
    points: int | None
    verdict: str
    holds: int = 0
    of: int = 0
    property: str = ""
    answer: str = ""
    note: str = ""
    seconds: float = 0.0


@dataclass
class Marked:
    """One submission: its marks in the order asked for, what went wrong in its cells, what it printed."""

    marks: list[Mark] = field(default_factory=list)
    problem: str = ""
    faults: list[str] = field(default_factory=list)
    printed: str = ""
    walls: dict[str, bool] = field(default_factory=dict)
    seconds: float = 0.0


def mark(path: Path, graded: Sequence[str], by_hand: Sequence[str] = (), limits: walls.Limits | None = None) -> Marked:
    """Mark one notebook; whatever it does, each exercise has its line.

    Args:
        path: of the notebook.
        graded: ids of exercises that a grader decides.
        by_hand: ids of those that a person decides: their cells are collected.
        limits: what it may use.

    Raises:
        ValueError: an id in `graded` is no graded exercise.
    """
    if unknown := sorted(set(graded) - set(EXERCISES)):
        raise ValueError(f"no graded exercise: {', '.join(unknown)}. Graded are {', '.join(EXERCISES)}.")
    limits, start = limits or walls.Limits(), time.monotonic()
    found, done, skip = Marked(), {}, {}
    for attempt in count():
        todo = [name for name in graded if name not in done]
        left = limits.total - (time.monotonic() - start)
        if attempt and (not todo or found.problem or left <= 0):
            break
        at, lost = None, None
        for kind, what in _events(path, todo, () if attempt else by_hand, tuple(skip), limits, left):
            if kind == "mark":
                done[what.exercise] = what
            elif kind == "at":
                at = what
            elif kind == "lost":
                lost = what
            else:
                setattr(found, kind, what)
        if lost and isinstance(at, int):
            skip[at] = lost
        elif lost and at:
            done[at] = Mark(at, 0, "stopped", note=lost)
        elif lost:
            found.problem = lost
    found.faults = [f"cell {at + 1}: {why}" for at, why in skip.items()] + found.faults
    why = found.problem or f"{limits.total:g} seconds for one submission are over"
    rest = {name: Mark(name, None if name in by_hand else 0, "not tried", note=why) for name in (*graded, *by_hand)}
    found.marks = list((rest | done).values())
    for one in found.marks:
        one.of = len(EXERCISES[one.exercise].laws) if one.exercise in graded else 0
    found.seconds = round(time.monotonic() - start, 1)
    return found


def _events(
    path: Path, todo: Sequence[str], by_hand: Sequence[str], skip: Sequence[int], limits: walls.Limits, left: float
) -> Iterator[tuple[str, Any]]:
    """What an examiner tells, up to its end: a mark, where it is, what was lost, or a field of :class:`Marked`."""
    here, there = Pipe(duplex=False)
    deadline, student = time.monotonic() + left, None
    with tempfile.TemporaryDirectory(prefix="gence-", ignore_cleanup_errors=True) as folder:
        examiner = os.fork()
        if examiner == 0:
            _leave_after(_examine, there, path, todo, by_hand, skip, limits, Path(folder))
        there.close()
        try:
            while True:
                if not here.poll(max(0.0, deadline - time.monotonic())):
                    yield "lost", f"{limits.total:g} seconds for one submission are over"
                    return
                kind, what = here.recv()
                if kind == "student":
                    student = what
                elif kind != "end":
                    yield kind, what
                if kind in ("end", "lost", "problem"):
                    return
        except (EOFError, OSError):
            yield "lost", "its examiner was ended"
        finally:
            here.close()
            for pid in filter(None, (student, examiner)):
                walls.kill(pid)


def _leave_after(do: Callable, *arguments: Any) -> None:
    """Do this, then end the process: what it was forked from goes on elsewhere."""
    try:
        do(*arguments)
    finally:
        os._exit(0)


# --- the examiner ----------------------------------------------------------------------------------------------


class _Lost(BaseException):
    """The student has ended, or does not answer: no answer of a function, so that no grader catches it."""


def _examine(
    tell: Connection,
    path: Path,
    todo: Sequence[str],
    by_hand: Sequence[str],
    skip: Sequence[int],
    limits: walls.Limits,
    folder: Path,
) -> None:
    os.setsid()
    try:
        cells = read(path)
    except (ValueError, OSError) as problem:
        return tell.send(("problem", str(problem)))
    for name in by_hand:
        tell.send(("mark", _to_read(name, cells)))
    known, isolated = wire.functions(), walls.isolate()
    line, theirs = Pipe()
    pid = os.fork()
    if pid == 0:
        _leave_after(_enter, theirs, cells, skip, limits, folder, isolated, known)
    theirs.close()
    tell.send(("student", pid))
    student = _Student(line, pid, limits)
    try:
        ready = student.load(tell, len(cells), skip)
        for name in todo:
            tell.send(("at", name))
            tell.send(("mark", _judge(name, student, ready.get(FUNCTIONS[name]))))
        tell.send(("end", None))
    except _Lost as lost:
        tell.send(("lost", str(lost)))
    except Exception as error:
        tell.send(("lost", f"the grader failed: {error!r}"))


def _enter(
    line: Connection,
    cells: list[Cell],
    skip: Sequence[int],
    limits: walls.Limits,
    folder: Path,
    alone: bool,
    known: dict,
) -> None:
    stays = walls.enclose(folder, limits, line.fileno(), alone)
    line.send_bytes(wire.pack(["walls", {"namespaces": alone, "landlock": stays}]))
    study(line, cells, skip, tuple(FUNCTIONS.values()), limits, known)


def _to_read(name: str, cells: list[Cell]) -> Mark:
    text = "\n\n".join(cell.source for cell in answers(cells, name))
    return Mark(name, None, "by hand" if text else "missing", answer=text)


def _judge(name: str, student: _Student, defined: dict[str, Any] | None) -> Mark:
    exercise, start = EXERCISES[name], time.monotonic()
    if defined is None:
        return Mark(name, 0, "missing", note=f"no function {FUNCTIONS[name]} in its cells")
    times = defined["times"]
    note = f"{FUNCTIONS[name]} is defined {times} times; the last one counts" if times > 1 else ""
    try:
        function = student.function(FUNCTIONS[name], defined["takes"])
        exercise.accept(function)
    except TypeError as problem:
        return Mark(name, 0, "not yet", property="the function takes what is asked for", answer=str(problem), note=note)
    answer = exercise.judge(function)
    verdict = "passed" if answer.passed else "not yet"
    mark = Mark(name, int(answer.passed), verdict, answer.holds, property=answer.broken or "", answer=str(answer))
    mark.note, mark.seconds = note, round(time.monotonic() - start, 2)
    return mark


class _Student:
    """The examiner's end of the line."""

    def __init__(self, line: Connection, pid: int, limits: walls.Limits) -> None:
        self.line, self.pid, self.limits = line, pid, limits
        self.begin()

    def begin(self) -> None:
        """From here on its time counts."""
        self.clock, self.used = time.monotonic(), walls.used(self.pid)

    def is_late(self) -> bool:
        """Whether it has used up its time; `_GRACE` more than a cell that ends itself."""
        clock = time.monotonic() - self.clock - _GRACE
        return clock > self.limits.seconds and (
            clock > self.limits.patience or walls.used(self.pid) - self.used > self.limits.seconds
        )

    def load(self, tell: Connection, n_cells: int, skip: Sequence[int]) -> dict[str, Any]:
        """Follow the student through the cells; return which functions there are."""
        faults = []
        while True:
            self.begin()
            kind, *what = self.hear()
            try:
                if kind == "cell" and what[0] in set(range(n_cells)) - set(skip):
                    tell.send(("at", int(what[0])))
                elif kind == "walls":
                    tell.send(("walls", {str(name): bool(stands) for name, stands in what[0].items()}))
                elif kind == "fault":
                    faults.append(f"cell {int(what[0]) + 1}: {str(what[1])[:300]}")
                elif kind == "ready":
                    tell.send(("faults", faults))
                    tell.send(("printed", str(what[1])))
                    return {str(name): {"times": int(d["times"]), "takes": d["takes"]} for name, d in what[0].items()}
                else:
                    raise ValueError(kind)
            except (ValueError, TypeError, LookupError, AttributeError):
                raise _Lost("it sent a message that is none of ours") from None

    def hear(self) -> list[Any]:
        """The next message, which is a list."""
        while not self.line.poll(0.2) or self.is_late():
            if self.is_late():
                raise _Lost(f"no answer within {self.limits.seconds:g} seconds")
        try:
            message = wire.unpack(self.line.recv_bytes(2 * wire.MOST))
            if isinstance(message, list) and message:
                return message
        except (EOFError, ConnectionError):
            raise _Lost(self.ended()) from None
        except (ValueError, OSError):  # also where it claims to be longer than any of ours
            pass
        raise _Lost("it sent a message that is none of ours")

    def ended(self) -> str:
        """How its process came to its end, in words."""
        status = 0
        with suppress(OSError):
            for _ in range(20):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    break
                time.sleep(0.05)
        if os.WIFSIGNALED(status):
            return f"its process was ended by {signal.Signals(os.WTERMSIG(status)).name}"
        return f"it ended its own process, exit code {os.WEXITSTATUS(status)}"

    def function(self, name: str, takes: Any) -> Callable:
        """The student's function, to be called from here; a TypeError where it is none."""
        if isinstance(takes, str):
            raise TypeError(f"{name} is no function, but {takes}")
        self.begin()

        def ask(*inputs: Any) -> Any:
            try:
                with suppress(BrokenPipeError):  # it has ended: its end of the line says so
                    self.line.send_bytes(wire.pack([name, list(inputs)]))
                kind, *what = self.hear()
            except _Lost as lost:
                raise _Lost(f"{lost}; the last call was {name}{words(inputs)[:200]}") from None
            if kind == "error" and len(what) == 2:
                raise wire.raised(str(what[0]), str(what[1]))
            if kind != "value" or len(what) != 1:
                raise _Lost("it sent a message that is none of ours")
            return what[0]

        if takes is not None:
            kinds = inspect._ParameterKind
            with suppress(ValueError, TypeError):
                of = [inspect.Parameter(n, kinds(k), default=0 if d else inspect.Parameter.empty) for n, k, d in takes]
                ask.__signature__ = inspect.Signature(of)
        return ask
