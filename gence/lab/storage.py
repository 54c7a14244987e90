"""Files: where they lie, what they hold, and the one way to write them, so that a reader never sees half of one."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

__all__ = ["data_folder", "expanded", "file_digest", "file_stamp", "replace_file"]

# A file that changed less than this many seconds ago could change again without a new time stamp.
YOUNG = 2.0


def expanded(folder: str | Path, name: str) -> Path:
    """Return a folder that a user named, with ``~`` for the home folder.

    Args:
        folder: what was given.
        name: of the setting, for the message.

    Raises:
        ValueError: the home folder of a user who does not exist.

    Example:
        >>> expanded("runs", "out").as_posix()
        'runs'
    """
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise ValueError(f"{name} = {str(folder)!r} names the home folder of a user who is not known here") from None


def data_folder() -> Path:
    """Return the folder of the data files: ``GENCE_DATA``, or ``data`` in the current folder.

    Example:
        >>> data_folder().is_absolute()
        True
    """
    return expanded(os.environ.get("GENCE_DATA") or "data", "GENCE_DATA").resolve()


def file_stamp(path: Path) -> tuple[int, int, int, int] | None:
    """Return what changes when a file does; None for one that has just changed and may do so again unseen.

    Example:
        >>> file_stamp(Path(__file__)) is None
        False
    """
    found = path.stat()
    young = time.time() - max(found.st_mtime, found.st_ctime) < YOUNG
    return None if young else (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)


def file_digest(path: Path) -> str:
    """Return the SHA-256 sum of a file; it is read again only when its time stamps, its size or its place changed.

    Example:
        >>> len(file_digest(Path(__file__)))
        64
    """
    stamp = file_stamp(path)
    return _digest(path) if stamp is None else _known_digest(path, stamp)


@lru_cache(maxsize=64)
def _known_digest(path: Path, stamp: tuple[int, int, int, int]) -> str:
    return _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that a reader sees the old one or all of the new one, even if this process is killed.

    The content goes to ``<path>.part`` first. A failed write takes that file away again. A killed process may leave it
    behind; the next one writes over it, so kills do not fill the disk. Two processes must therefore not write one file
    at the same time: trainings hold a lock on their seed.

    Args:
        path: the file; its folder is made.
        write: writes the content into an open binary file; what it returns is ignored.

    Raises:
        OSError: the folder cannot be written.

    Example:
        >>> target = Path(getfixture("tmpdir")) / "deep" / "a.bin"
        >>> replace_file(target, lambda file: file.write(b"whole"))
        >>> target.read_bytes()
        b'whole'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # else the new name could outlive a power cut, and the content not
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
