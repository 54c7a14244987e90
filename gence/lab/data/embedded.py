"""The photographs that the lab brings along: features of CIFAR-100 in one small file, with its checksum beside it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gence.lab.data.arrays import Part
from gence.words import nearest

__all__ = ["EMBEDDED", "EMBEDDED_SHIFTED", "SHIFTED", "checksum_file", "read_embedded", "read_shifted"]

EMBEDDED = Path(__file__).with_name("cifar100_features.npz")
EMBEDDED_SHIFTED = Path(__file__).with_name("cifar100_features_shifted.npz")
NOISY = tuple(f"noise_{severity}" for severity in range(1, 6))
FOREIGN = ("cifar10", "emnist_letters")
# Test images of CIFAR-100 under noise of severity 1 to 5, and images of other data sets.
SHIFTED = (*NOISY, *FOREIGN)


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


def read_shifted(name: str, path: Path = EMBEDDED_SHIFTED) -> Part:
    """Read features, as those of :func:`read_embedded`, of images that a network of CIFAR-100 was not trained for.

    Args:
        name: ``"noise_1"`` to ``"noise_5"``: the first 1,400 test images of CIFAR-100 under the Gaussian noise of
            CIFAR-10-C at that severity; ``"cifar10"`` or ``"emnist_letters"``: 1,400 test images of that data set.
        path: of the file.

    Returns:
        (1400, 64) float64 features; the labels are those of the name's own data set.

    Raises:
        ValueError: an unknown name; the file is not the one whose checksum lies beside it, or one of them is missing.

    Source: Hendrycks and Dietterich (2019) for the noise; Cohen et al. (2017) for EMNIST.

    Example:
        >>> noisy = read_shifted("noise_3")
        >>> noisy.x.shape, bool((noisy.y == read_embedded("test").y[:1400]).all())
        ((1400, 64), True)
    """
    if name not in SHIFTED:
        raise ValueError(f"unknown images {name!r}{nearest(name, SHIFTED)} They are: {', '.join(SHIFTED)}.")
    _check(path)
    with np.load(path, allow_pickle=False) as file:
        of = "cifar100" if name in NOISY else name
        x: NDArray[np.float64] = file[f"codes_{name}"] * file["unit"]
        return Part(x, file[f"y_{of}"].astype(np.int64), tuple(file[f"names_{of}"].tolist()))


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
    "python -m gence.lab.data --embed, then --embed-shifted"
)
