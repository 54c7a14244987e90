"""Which file stands for a data set, what it holds, and its parts, kept in memory."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gence.lab.data.arrays import KEYS, Part, check_against, checked, pixel_statistics, read_npz, what_is
from gence.lab.data.info import INFO, how_to_bring
from gence.lab.data.readers import READERS
from gence.lab.storage import data_folder, file_digest

__all__ = ["content", "made_from", "own_file", "read_part"]


def read_part(name: str, part: str) -> Part:
    """Read ``"train"`` or ``"test"`` of a data set that exists; read again when a file of the user has changed.

    Raises:
        ValueError: a file that is damaged or holds something else.
        FileNotFoundError: the files are not in the data folder; the message says how to get them.

    Example:
        >>> read_part("digits", "train").x.shape
        (1797, 64)
    """
    if name in INFO and name not in READERS:
        raise ValueError(f"{name!r} cannot be read like this. {INFO[name].note}")
    file = own_file(name)
    return cached_part(name, part, data_folder(), file, file and digest_of(file))


def own_file(name: str) -> Path | None:
    """Return the user's own file that stands for a data set: ``NAME.npz``, or the table of av1451; None without one.

    Raises:
        ValueError: a file ``NAME.npz`` that could not be used, because the data set is built in and not of files.
        FileNotFoundError: no such file for a name that is not built in.

    Example:
        >>> own_file("digits") is None
        True
    """
    root = data_folder()
    npz = root / f"{name}.npz"
    info = INFO.get(name)
    if info is None:
        if not npz.exists():
            raise FileNotFoundError(f"{npz} is not there. {how_to_bring(name)}")
        return npz
    if npz.exists() and (name not in READERS or not info.official_test or not info.files):
        raise ValueError(
            f"{npz} would not be used: {name!r} is the name of a built-in data set ({info.title}). Give your own data "
            f"a name of its own, for example my_{name}.npz, or remove the file."
        )
    own = root / "av1451.csv" if name == "av1451" else npz
    return own if own.exists() else None


def content(name: str) -> str | None:
    """Return a digest of the user's own file that stands for a data set; None for published data.

    A file that :func:`pack` wrote, and nobody changed, holds the published data. Features that
    ``gence.lab.data.features`` made are known by what they were made from: another machine gives other last digits.

    Raises:
        ValueError: as :func:`own_file`; features that were changed after they were made.
        FileNotFoundError: as :func:`own_file`.

    Example:
        >>> content("digits") is None
        True
    """
    file = own_file(name)
    if file is None:
        return None
    digest = digest_of(file)
    if file.suffix != ".npz":
        return digest
    if name in READERS:
        return None if _is_packed(file, digest) else digest
    made = made_from(file, digest)
    return digest if made is None else hashlib.sha256(made.encode()).hexdigest()


def digest_of(file: Path) -> str:
    try:
        return file_digest(file)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {what_is(file) or error}") from error


@lru_cache(maxsize=16)
def _is_packed(path: Path, digest: str) -> bool:
    try:
        with np.load(path, allow_pickle=False) as file:
            return "packed" in file and str(file["packed"]) == sum_of({key: file[key] for key in KEYS})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return False  # reading it will say what is wrong


@lru_cache(maxsize=16)
def made_from(path: Path, digest: str) -> str | None:
    """Return what the features in a file were made from; None for a file of another kind.

    Args:
        path: the file.
        digest: its SHA-256 sum; a file with another one is looked at anew.

    Raises:
        ValueError: features whose checksum does not match: the file was changed after it was made.

    Example:
        >>> path = Path(getfixture("tmpdir")) / "mine.npz"
        >>> np.savez(path, x_train=np.zeros((2, 3)))
        >>> made_from(path, "a digest") is None
        True
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if "features_sum" not in file:
                return None
            arrays = {key: file[key] for key in file.files if key != "features_sum"}
            whole = str(file["features_sum"]) == sum_of(arrays)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None  # reading it will say what is wrong; a single array is no context, hence TypeError
    if not whole or "made_from" not in arrays:
        raise ValueError(
            f"{path} holds features whose checksum does not match: the file was changed after it was made. Remove it "
            "and make it again: python -m gence.lab.data --features NAME"
        )
    return str(arrays["made_from"])


def sum_of(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for key, values in sorted(arrays.items()):
        array = np.asarray(values)
        digest.update(f"{key} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=4)
def cached_part(name: str, part: str, root: Path, own: Path | None, digest: str | None) -> Part:
    npz = own if own is not None and own.suffix == ".npz" else None
    where = str(own or (root / " and ".join(INFO[name].files) if INFO[name].files else name))
    if npz and digest and name not in INFO:
        made_from(npz, digest)  # refuses features that were changed
    raw = read_npz(npz, part) if npz else READERS[name](root, part)
    found = checked(raw, where, part)
    info = INFO.get(name)
    if info is not None:
        check_against(info, found, where, part)
    if part == "train" and found.x.ndim == 4:
        mean, std = (info.mean, info.std) if info is not None and info.mean else pixel_statistics(found.x)
        found = replace(found, mean=mean, std=std)
    for array in (found.x, found.y):
        array.flags.writeable = False  # callers get copies: nobody may change what the next one sees
    return found
