"""Making the photographs that the lab brings along from the features of CIFAR-100."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gence.lab.data.arrays import KEYS
from gence.lab.data.embedded import EMBEDDED, checksum_file
from gence.lab.data.features import extract_features
from gence.lab.storage import replace_file

__all__ = ["embed", "principal_components"]

DIMENSIONS = 64
# Codes of one byte; -128 is not used, so that both signs are alike.
LARGEST_CODE = 127
SIZES = (50_000, 10_000)


def embed(network: str = "efficientnet_lite0", size: int = 96, out: Path = EMBEDDED) -> Path:
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
    centre, axes, explained = principal_components(x, DIMENSIONS)
    scores, scores_test = ((part - centre) @ axes for part in (x, x_test))
    step = np.abs(scores).max(0) / LARGEST_CODE
    codes, codes_test = (
        np.rint(np.clip(s / step, -LARGEST_CODE, LARGEST_CODE)).astype(np.int8) for s in (scores, scores_test)
    )
    made |= {"reduced": f"{DIMENSIONS} principal components of the training set, {explained:.4f} of its variance"}
    arrays = {
        "codes_train": codes,
        "y_train": y.astype(np.uint8),
        "codes_test": codes_test,
        "y_test": y_test.astype(np.uint8),
        "class_names": names,
        "unit": step / np.std(codes * step),
        "made_from": np.array(json.dumps(made, sort_keys=True)),
    }
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
