"""Sweeps as processes: the engine, and one who watches the records."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import sweep  # noqa: E402


def write_grid(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def engine(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflow/Snakefile"), *arguments]


def run_engine(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        engine(*arguments), cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )


class Watch(threading.Thread):
    """Sees every version of every record: a record that is written again has another inode."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.versions, self.done = folder, {}, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.02):
            for path in self.folder.glob("*/seed*.json"):
                state = path.stat()
                self.versions.setdefault(path, set()).add((state.st_ino, state.st_mtime_ns))

    def end(self) -> None:
        self.done.set()
        self.join()


def check_that_nothing_is_lost_or_done_twice(grid: Path, watch: Watch, profile: str, log: Path, seeds: int = 2) -> None:
    """All records of a grid are there and whole, each was written once, and no half of one is left."""
    runs_of_grid, table = sweep.read_grid(grid), log.with_name("collected.csv")
    assert "missing" not in sweep.collect(runs_of_grid, table), log.read_text()[-3000:]
    assert len(pd.read_csv(table)) == 2 * seeds * len(runs_of_grid)  # the last and the best epoch
    assert {len(versions) for versions in watch.versions.values()} == {1}, "a record was written twice"
    assert len(watch.versions) == seeds * len(runs_of_grid)
    again = run_engine("--profile", profile, "-n", "sweep", "--config", f"grid={grid}")
    assert "Nothing to be done" in again.stdout + again.stderr
    assert not [path for path in watch.folder.rglob("*") if path.suffix in (".tmp", ".part")]
