"""The solutions of the graded exercises and the wrong ones that are planted beside them, from book/course/zoo.

They lie by themselves, so that a student's copy can leave them out as a folder.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ZOO = Path(__file__).resolve().parent.parent / "book" / "course" / "zoo"


class Wrong(NamedTuple):
    """A planted wrong solution: its mistake, the function, words of the property that breaks and of the answer."""

    mistake: str
    function: Callable
    breaks: str
    shows: str


@cache
def zoo() -> dict[str, tuple[Callable, tuple[Wrong, ...]]]:
    """Of each exercise a solution, and the wrong ones."""
    found: dict[str, Any] = {}
    for path in sorted(ZOO.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"zoo_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found |= module.ZOO
    return {name: (good, tuple(Wrong(*w) for w in wrong)) for name, (good, wrong) in sorted(found.items())}
