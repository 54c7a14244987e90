"""The process that runs a student's notebook: it reports cell by cell, then answers calls of the graded functions."""

from __future__ import annotations

import ast
import inspect
import io
import signal
import sys
import types
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from gence.course import registry, wire
from gence.course.submission import Cell, python
from gence.course.walls import Limits

__all__ = ["study"]

_SHOWN = 2000  # characters of what a notebook prints


class _Late(BaseException):
    """Raised in the student's code when its time is over."""


class _Printed(io.TextIOBase):
    """Keeps the beginning of what is printed."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text[: _SHOWN - len(self.text)]
        return len(text)


def study(
    line: Connection, cells: Sequence[Cell], skip: Sequence[int], names: Sequence[str], limits: Limits, known: dict
) -> None:
    """Run the cells, say which of `names` they define, then answer calls until the line closes.

    Messages are ``["cell", i]`` before a cell, ``["fault", i, text]`` for the first thing that went wrong in it, then
    ``["ready", {name: {"times": definitions, "takes": arguments}}, printed]``; of a call ``["value", value]`` or
    ``["error", name, text]``.
    """
    printed = sys.stdout = sys.stderr = _Printed()
    # Marks do not come from here: what the notebook checks itself is not tried twice.
    registry.check = sys.modules["gence.course"].check = lambda id, answer: None
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    space = vars(main)
    space |= {"display": lambda *things, **options: None, "get_ipython": lambda: None}
    defined: Counter[str] = Counter()
    signal.signal(signal.SIGALRM, _ring)
    signal.signal(signal.SIGPROF, _ring)
    for at, cell in enumerate(cells):
        if cell.is_code and at not in skip:
            line.send_bytes(wire.pack(["cell", at]))
            if fault := _run(cell.source, space, names, defined, limits):
                line.send_bytes(wire.pack(["fault", at, fault]))
    ready = {name: {"times": times, "takes": _takes(space[name])} for name, times in defined.items() if name in space}
    line.send_bytes(wire.pack(["ready", ready, printed.text]))
    while True:
        name, inputs = wire.unpack(line.recv_bytes(), known)
        line.send_bytes(_answer(space[name], inputs))


def _ring(*_: object) -> None:
    raise _Late


def _run(source: str, space: dict[str, Any], names: Sequence[str], defined: Counter[str], limits: Limits) -> str | None:
    """Run a cell, statement by statement: one that fails does not take the next with it. Return the first fault."""
    fault = None
    signal.setitimer(signal.ITIMER_PROF, limits.seconds, 1)  # again each second: the first may be caught
    signal.setitimer(signal.ITIMER_REAL, limits.patience, 1)
    try:
        for statement in ast.parse(python(source)).body:
            before = {name: space.get(name) for name in names}
            if _is_stub(statement) and before.get(statement.name) is not None:
                continue  # a copy of the empty cell is no answer
            try:
                exec(compile(ast.Module([statement], []), "<your notebook>", "exec"), space)
            except _Late:
                raise
            except BaseException as error:
                fault = fault or _words(error)
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                defined.update(name for name in names if space.get(name) is not before[name])
    except _Late:
        fault = f"stopped after {limits.seconds:g} seconds"
    except BaseException as error:
        fault = _words(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return fault


def _takes(thing: Any) -> str | list | None:
    """Of each argument its name, kind, and whether it has a default; None if they cannot be seen; text: no function."""
    if not callable(thing):
        return type(thing).__name__
    try:
        arguments = inspect.signature(thing).parameters.values()
    except Exception:
        return None
    return [[a.name, int(a.kind), a.default is not a.empty] for a in arguments]


def _is_stub(statement: ast.stmt) -> bool:
    """A function without a body: words, ``...``, ``pass``, or an exception that says it is not written."""
    return isinstance(statement, ast.FunctionDef) and all(
        isinstance(line, ast.Pass | ast.Raise) or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
        for line in statement.body
    )


def _words(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".split("\n")[0][:200]
    except BaseException:  # its own words fail
        return type(error).__name__


def _answer(function: Callable, inputs: list[Any]) -> bytes:
    try:
        return wire.pack(["value", function(*inputs)])
    except BaseException as error:
        return wire.pack(["error", type(error).__name__, _words(error).partition(": ")[2]])
