"""Making the photographs that the lab brings along: features of CIFAR-100, and of noisy and of foreign images."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gence.lab.data.arrays import KEYS, Part
from gence.lab.data.embedded import EMBEDDED, EMBEDDED_SHIFTED, FOREIGN, NOISY, checksum_file
from gence.lab.data.features import extract_features, features_of
from gence.lab.data.files import read_part
from gence.lab.data.pretrained import Pretrained, load_pretrained
from gence.lab.data.shifted import add_gaussian_noise
from gence.lab.storage import replace_file

__all__ = ["embed", "embed_shifted", "principal_components"]

DIMENSIONS = 64
# Codes of one byte; -128 is not used, so that both signs are alike.
LARGEST_CODE = 127
SIZES = (50_000, 10_000)
# Images of each noise and of each foreign data set.
N_SHIFTED = 1400


def embed(network: str | Pretrained = "efficientnet_lite0", size: int = 96, out: Path = EMBEDDED) -> Path:
    """Reduce the features of CIFAR-100 to 64 principal components of one byte each, and write them with a checksum.

    Centre, components and units come from the 50,000 training images without their labels; the test images are only
    projected. Features that are not in the data folder yet are extracted first.

    Args:
        network: whose features, as ``gence.lab.data.features.extract_features`` takes it.
        size: of the images that it sees.
        out: the file; its checksum lies beside it. The default is the file that the lab ships.

    Returns:
        The path of the file.

    Raises:
        ValueError: files that do not hold all of CIFAR-100.
        FileNotFoundError: CIFAR-100 is not in the data folder.
        ImportError: the network is not installed.
        OSError: the file cannot be written.

    Example:
        .. code-block:: bash

            OMP_NUM_THREADS=1 python -m gence.lab.data --embed
    """
    with np.load(extract_features("cifar100", network, size), allow_pickle=False) as file:
        x, y, x_test, y_test, names = (file[key] for key in KEYS)
        made = json.loads(str(file["made_from"]))
    if (len(y), len(y_test)) != SIZES:
        raise ValueError(f"all {SIZES} images of CIFAR-100 are needed, but there are {len(y):,} and {len(y_test):,}")
    reduction = _Reduction.of(x)
    codes, codes_test = (
        np.clip(reduction.codes(part), -LARGEST_CODE, LARGEST_CODE).astype(np.int8) for part in (x, x_test)
    )
    arrays = {
        "codes_train": codes,
        "y_train": y.astype(np.uint8),
        "codes_test": codes_test,
        "y_test": y_test.astype(np.uint8),
        "class_names": names,
        "unit": reduction.unit(codes),
        "made_from": np.array(json.dumps(made | {"reduced": reduction.words}, sort_keys=True)),
    }
    return _write(out, arrays)


def embed_shifted(
    network: str | Pretrained = "efficientnet_lite0", size: int = 96, out: Path = EMBEDDED_SHIFTED
) -> Path:
    """Write features of noisy and of foreign images, reduced by the axes and units of :func:`embed`.

    Codes of two bytes: features of foreign images may lie beyond those of all training images, and are not cut off.

    Args:
        network: as for :func:`embed`.
        size: of the images that it sees.
        out: the file; its checksum lies beside it. The default is the file that the lab ships.

    Returns:
        The path of the file.

    Raises:
        ValueError, FileNotFoundError, ImportError, OSError: as :func:`embed`, for CIFAR-10 and EMNIST letters too.

    Example:
        .. code-block:: bash

            OMP_NUM_THREADS=1 python -m gence.lab.data --embed-shifted
    """
    test = {name: read_part(name, "test") for name in ("cifar100", *FOREIGN)}
    test = {name: Part(part.x[:N_SHIFTED], part.y[:N_SHIFTED], part.class_names) for name, part in test.items()}
    images = {name: add_gaussian_noise(test["cifar100"].x, severity) for severity, name in enumerate(NOISY, 1)}
    images |= {name: test[name].x for name in FOREIGN}
    network = load_pretrained(network, size) if isinstance(network, str) else network
    with np.load(extract_features("cifar100", network, size), allow_pickle=False) as file:
        x = file["x_train"]
    reduction = _Reduction.of(x)
    arrays = {"unit": reduction.unit(reduction.codes(x))}
    for name, shifted in tqdm(images.items(), desc="shifted images", unit="set"):
        arrays[f"codes_{name}"] = reduction.codes(features_of(shifted, network, size)).astype(np.int16)
    for name, part in test.items():
        arrays |= {f"y_{name}": part.y.astype(np.uint8), f"names_{name}": np.array(part.class_names)}
    arrays["made_from"] = np.array(json.dumps({"network": network.name, "weights": network.weights, "size": size}))
    return _write(out, arrays)


@dataclass(frozen=True)
class _Reduction:
    """From features to whole numbers for each of the first principal components of the training set."""

    centre: NDArray
    axes: NDArray
    step: NDArray
    words: str

    @classmethod
    def of(cls, x: NDArray) -> _Reduction:
        centre, axes, explained = principal_components(x, DIMENSIONS)
        step = np.abs((x - centre) @ axes).max(0) / LARGEST_CODE
        words = f"{DIMENSIONS} principal components of the training set, {explained:.4f} of its variance"
        return cls(centre, axes, step, words)

    def codes(self, x: NDArray) -> NDArray:
        return np.rint((x - self.centre) @ self.axes / self.step)

    def unit(self, codes: NDArray) -> NDArray:
        """What one step is worth, so that the deviation of all training values together is 1."""
        return self.step / np.std(codes * self.step)


def _write(out: Path, arrays: dict[str, NDArray]) -> Path:
    replace_file(out, lambda file: np.savez_compressed(file, **arrays))
    line = f"{hashlib.sha256(out.read_bytes()).hexdigest()}  {out.name}\n"
    replace_file(checksum_file(out), lambda file: file.write(line.encode()))
    return out


def principal_components(x: NDArray, n: int) -> tuple[NDArray, NDArray, float]:
    """Return the centre, the first n principal axes and their share of the variance.

    Args:
        x: (N, D) samples.
        n: axes wanted, at most D.

    Returns:
        (D,) centre, (D, n) orthonormal axes, whose largest entry in size is positive, and a share in [0, 1].

    Example:
        >>> x = np.array([[0.0, 3.0], [0.0, 1.0], [0.0, 2.0]])
        >>> centre, axes, share = principal_components(x, 1)
        >>> centre.tolist(), axes.ravel().tolist(), share
        ([0.0, 2.0], [0.0, 1.0], 1.0)
    """
    centre = x.mean(0, dtype=np.float64)
    shifted = x - centre
    values, vectors = np.linalg.eigh(shifted.T @ shifted)
    axes = vectors[:, ::-1][:, :n]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(n)])  # a sign of its own choice differs by machine
    return centre, axes, float(values[::-1][:n].sum() / values.sum())
