"""A handed-in capstone, a folder that is read as data: what it says of itself, its records, grids and history."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gence.lab import runs
from gence.lab.results import sources

MANIFEST = "capstone.yml"


class HandedIn(BaseModel):
    """What `capstone.yml` says. All paths lie in the folder."""

    model_config = ConfigDict(extra="forbid")

    loss: str = Field(pattern=r"^[\w.]+:\w+$")
    variant: str
    rivals: list[str] = Field(min_length=1)
    tests: list[str] = Field(min_length=1)
    predictions: str
    grids: list[str] = Field(min_length=1)
    verdicts: str
    page: str

    @field_validator("tests", "predictions", "grids", "verdicts", "page")
    @classmethod
    def _stays_inside(cls, given: Any) -> Any:
        for path in given if isinstance(given, list) else [given]:
            if Path(path).is_absolute() or ".." in Path(path).parts or path.startswith("-"):
                raise ValueError(f"{path!r} must lie in the folder")
        return given


class Work(NamedTuple):
    """A folder, and what it says of itself."""

    folder: Path
    says: HandedIn

    def path(self, name: str) -> Path:
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder):
            raise ValueError(f"{name} leads out of the folder")
        if not path.exists():
            raise ValueError(f"{name} is not there")
        return path

    def records(self, grid: str) -> pd.DataFrame:
        """The collected table of a grid; without rows where there is none."""
        name = f"results/{grid}.csv"
        return sources.collected(grid, self.path(name).parent) if (self.folder / name).exists() else pd.DataFrame()

    def git(self, *words: str) -> str:
        """What git says; nothing that the folder's own settings name is started."""
        off = ["-c", "core.fsmonitor=", "-c", f"core.hooksPath={os.devnull}", "-c", f"safe.directory={self.folder}"]
        quiet = os.environ | {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_NO_LAZY_FETCH": "1"}
        command = ["git", "--no-pager", *off, "-C", str(self.folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=quiet)
        if done.returncode:
            raise ValueError(f"git {words[0]} fails: {done.stderr.strip().splitlines()[-1:] or 'no words'}")
        return done.stdout


def read(folder: Path) -> Work:
    """What was handed in.

    Raises:
        SystemExit: no `capstone.yml`, or one that cannot be read; it says what to write.
    """
    path = folder.resolve() / MANIFEST
    if not path.is_file():
        raise SystemExit(f"{folder} has no {MANIFEST}. It names: {', '.join(HandedIn.model_fields)}.")
    try:
        return Work(folder.resolve(), HandedIn.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))))
    except (ValidationError, yaml.YAMLError) as error:
        raise SystemExit(f"{path} cannot be read: {error}") from None


def runs_of(content: Any) -> list[dict[str, Any]]:
    """The settings of each run of a grid, or of several, with its seeds; any loss will do."""
    every = [one for grid in (content if isinstance(content, list) else [content]) for one in runs.grid_settings(grid)]
    return [one | {"seeds": list(runs.RunParameters.of(seeds=one.get("seeds", 1)).seeds)} for one in every]
