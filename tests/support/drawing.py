"""What `make test` repeats only in part: the commit decides which part, so that nobody chooses and all come in turn."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import pytest

# Of what costs seconds a piece, `make test` takes one in so many.
ONE_IN = 12
# Losses that decide by thresholds, so that a last bit grows: on another kind of processor, or for a seed that trains
# alone and not in its stack, training gives other networks. The pages say so.
UNSTEADY = {"mmce_w", "dual_focal"}
ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "workflow"))

import touched  # noqa: E402


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "no git here"


def drawn(candidates: Iterable, n: int) -> list:
    """Some of the candidates."""
    here = commit()
    return sorted(candidates, key=lambda one: hashlib.sha256(f"{here} {one}".encode()).hexdigest())[:n]


def changed_or_drawn(files: Iterable[str]) -> set[str]:
    """Those files, named from the root of the repository, that the change touches, and one in twelve of all."""
    files = set(files)
    try:
        changed = set(touched.changed_files(None))
    except SystemExit:  # a copy without history
        changed = set()
    return (files & changed) | set(drawn(files, -(-len(files) // ONE_IN)))


def others_thorough(candidates: Iterable, kept: Container) -> list[Any]:
    """The candidates as parameters; those that are not kept are left to `make test-thorough`."""
    return [one if one in kept else pytest.param(one, marks=pytest.mark.thorough) for one in candidates]
