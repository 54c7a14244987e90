"""Somebody's tests, held against somebody's loss and two planted mutants of it, in a process with walls around it.

`python workflow/mutants.py COPY LOSS MUTANT TEST...` runs the tests of a copy, and prints what they said as JSON. LOSS
is `module:function` or `module:Class` with a `forward` of its own; MUTANT is one of `MUTANTS`, or `none`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def _alone(path: Path) -> types.ModuleType:
    """A module without its package: that of the walls brings torch, and a mutant's process would wait for it."""
    found = importlib.util.spec_from_file_location(f"_{path.stem}", path)
    module = sys.modules[found.name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


walls = _alone(ROOT / "gence" / "course" / "walls.py")
NONE = "none"
MUTANTS: dict[str, Callable[[Any], Any]] = {
    "its sign flipped": lambda value: -value,
    "a factor of two dropped": lambda value: value / 2,
}
LIMITS = walls.Limits(total=120, memory=8 * 2**30)
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "_build", "runs", "results", "notebooks", "__pycache__")


def tried(folder: Path, loss: str, tests: list[str], mutant: str, limits: Any = LIMITS) -> dict[str, Any]:
    """What the tests of a folder say of a mutant: `code` of pytest, how many `passed` and `failed`, and `error`."""
    with tempfile.TemporaryDirectory(prefix="gence-", ignore_cleanup_errors=True) as scratch:
        copy = Path(scratch) / "copy"
        shutil.copytree(folder, copy, ignore=LEFT_OUT)
        command = [sys.executable, str(Path(__file__).resolve()), str(copy), loss, mutant, *tests]
        told = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "start_new_session": True}
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, **told)
        try:
            said = process.communicate(timeout=limits.total)[0]
            return json.loads(said.splitlines()[-1])
        except subprocess.TimeoutExpired:
            return {"error": f"no answer within {limits.total:g} seconds"}
        except (ValueError, IndexError):
            return {"error": "the tests ended their process"}
        finally:
            walls.kill(process.pid)
            process.wait()


def plant(loss: str, mutate: Callable[[Any], Any]) -> None:
    """Change what a loss returns, in place: whoever imported it before has the mutant, too."""
    module, _, name = loss.partition(":")
    thing = getattr(importlib.import_module(module), name)
    function = thing.forward if isinstance(thing, type) else thing
    if not isinstance(function, types.FunctionType) or function.__closure__:
        raise TypeError(f"{loss} is no plain function, and no class with a plain forward: name the function in it")
    kept = types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    kept.__kwdefaults__ = function.__kwdefaults__
    function.__signature__ = inspect.signature(kept)
    function.__globals__["_mutated"] = lambda *given, **options: mutate(kept(*given, **options))
    function.__defaults__ = function.__kwdefaults__ = None
    function.__code__ = _door.__code__


def _door(*given: Any, **options: Any) -> Any:
    return _mutated(*given, **options)  # noqa: F821  (stands among the globals of the function that gets this code)


class _Count:
    """Counts tests by their outcome."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed += report.when == "call" and report.passed
        self.failed += report.failed


def _inside(copy: Path, loss: str, mutant: str, tests: list[str], isolated: bool, line: int) -> None:
    """In the process with walls: only here runs what a stranger wrote."""
    walls.enclose(copy, LIMITS, line, isolated)
    try:
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # what is installed beside it only takes time
        ours = {str(ROOT), str(ROOT / "workflow")}
        sys.path[:] = [str(copy), *(path for path in sys.path if path not in ours)]
        import pytest

        if mutant != NONE:
            plant(loss, MUTANTS[mutant])
        count = _Count()
        options = ["-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider", "--rootdir", str(copy)]
        code = int(pytest.main([*options, *tests], plugins=[count]))
        said = {"code": code, "passed": count.passed, "failed": count.failed}
    except BaseException as error:
        said = {"error": f"{type(error).__name__}: {error}"[:300]}
    os.write(line, json.dumps(said).encode())


def main() -> None:
    copy, loss, mutant, *tests = sys.argv[1:]
    isolated = walls.isolate()
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _inside(Path(copy), loss, mutant, tests, isolated, there)
        finally:
            os._exit(0)
    os.close(there)
    with os.fdopen(here, "rb") as said:
        print(said.read().decode())
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
