"""The photographs that the lab brings along: features of CIFAR-100 in one small file, with its checksum beside it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gence.lab.data.arrays import Part

__all__ = ["EMBEDDED", "checksum_file", "read_embedded"]

EMBEDDED = Path(__file__).with_name("cifar100_features.npz")


def checksum_file(path: Path) -> Path:
    """Return where the SHA-256 sum of the embedded file lies, as ``sha256sum --check`` reads it.

    Example:
        >>> checksum_file(EMBEDDED).name
        'cifar100_features.npz.sha256'
    """
    return path.with_name(path.name + ".sha256")


def read_embedded(part: str, path: Path = EMBEDDED) -> Part:
    """Read ``"train"`` or ``"test"`` of the embedded features.

    The file holds whole numbers -127..127 for each of the principal components, and what one step of each is worth:
    x = codes * unit. The units make the deviation of all training values together 1; the first components vary most,
    as they did.

    Args:
        part: ``"train"`` or ``"test"``.
        path: of the file.

    Returns:
        (n, 64) float64 features with the fine labels of CIFAR-100.

    Raises:
        ValueError: the file is not the one whose checksum lies beside it, or one of them is missing.

    Example:
        >>> test = read_embedded("test")
        >>> test.x.shape, test.class_names[:2]
        ((10000, 64), ('apple', 'aquarium_fish'))
    """
    _check(path)
    with np.load(path, allow_pickle=False) as file:
        x: NDArray[np.float64] = file[f"codes_{part}"] * file["unit"]
        return Part(x, file[f"y_{part}"].astype(np.int64), tuple(file["class_names"].tolist()))


@lru_cache(maxsize=4)
def _check(path: Path) -> None:
    try:
        expected, found = checksum_file(path).read_text().split()[0], hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, IndexError) as error:
        raise ValueError(f"{path} or its checksum is missing ({error}). {_MEND}") from error
    if found != expected:
        raise ValueError(f"{path} is not as it was made: its SHA-256 sum is {found}, not {expected}. {_MEND}")


_MEND = (
    "Install the package again; in a checkout: git checkout gence/lab/data. To make the features anew from CIFAR-100: "
    "python -m gence.lab.data --embed"
)
