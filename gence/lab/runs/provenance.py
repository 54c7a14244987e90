"""Where a record comes from: commit, versions, machine; and writing it whole."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gence.lab.storage import replace_file

__all__ = ["provenance", "write_atomically"]

LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn")


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or nothing, even if this process is killed.

    Args:
        path: the file; its folder is made.
        text: its whole content.

    Raises:
        OSError: the folder cannot be written.

    Example:
        >>> target = Path(getfixture("tmpdir")) / "a.txt"
        >>> write_atomically(target, "whole")
        >>> target.read_text()
        'whole'
    """
    replace_file(path, lambda file: file.write(text.encode("utf-8")))


def provenance(device: str = "cpu") -> dict[str, Any]:
    """Say where numbers come from: code, libraries, machine, time.

    Args:
        device: the device that is used.

    Returns:
        ``commit``, ``dirty`` (None outside a git checkout), ``gence``, ``python``, library versions, ``device``,
        ``threads``, ``date`` (UTC, to the second).

    Example:
        >>> provenance()["device"].startswith("cpu")
        True
    """
    commit, dirty = _git_state()
    name = f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else f"cpu ({_cpu()})"
    return {
        "commit": commit,
        "dirty": dirty,
        "gence": _version("gence"),
        "python": platform.python_version(),
        **{library: _version(library) for library in LIBRARIES},
        "device": name,
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout this package lies in, and whether tracked files differ from it."""

    def git(*arguments: str) -> str | None:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).resolve().parents[3]), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        root, here = git("rev-parse", "--show-toplevel"), str(Path(__file__).resolve().parents[3])
        if root is None or Path(root).resolve() != Path(here):
            return None, None
        return git("rev-parse", "--short=12", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except FileNotFoundError:  # no git on this machine
        return None, None


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
