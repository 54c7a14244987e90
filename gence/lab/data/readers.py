"""Reading the published files of each data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from gence.lab.data.arrays import Part
from gence.lab.data.embedded import read_embedded
from gence.lab.data.info import INFO, not_found

__all__ = ["READERS"]

DIAGNOSES = ("CN", "MCI", "AD")


def _digits(root: Path, part: str) -> Part:
    """1,797 handwritten digits, 8 x 8 pixels with values 0..16, inside scikit-learn: nothing to download."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Part(bunch.data / 16.0, bunch.target, tuple(str(name) for name in bunch.target_names))


TORCHVISION = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
    "emnist_letters": "EMNIST",
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
}


def open_torchvision(name: str, root: Path, part: str, *, download: bool = False) -> Any:
    """Torchvision's own data set; it checks the files of CIFAR and SVHN by MD5 before it opens them."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # a torchvision of another release than torch fails with RuntimeError
        raise ImportError(
            f"{name!r} is read by torchvision, which cannot be imported: {error}. Install the torchvision that belongs "
            "to your torch, from the same index (pip install torchvision)."
        ) from error
    options: dict[str, Any] = {"split": part} if name == "svhn" else {"train": part == "train"}
    if name == "emnist_letters":
        options["split"] = "letters"
    return getattr(datasets, TORCHVISION[name])(root, download=download, **options)


def _from_torchvision(name: str, root: Path, part: str) -> Part:
    file = root / INFO[name].files[0 if part == "train" else -1]
    if not file.exists():
        raise not_found(name)
    try:
        found = open_torchvision(name, root, part)
    except (RuntimeError, AssertionError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged, incomplete or not the published file ({error}). Remove it and get it again: "
            f"python -m gence.lab.data --download {name}"
        ) from error
    x, y = np.asarray(found.data), np.asarray(found.labels if name == "svhn" else found.targets)
    if name == "emnist_letters":  # stored on their side, and counted from 1
        return Part(x.swapaxes(1, 2), y - 1, tuple(found.classes[1:]))
    return Part(x, y, tuple("0123456789") if name in ("svhn", "mnist") else tuple(found.classes))


def _tiny_imagenet(root: Path, part: str) -> Part:
    folder = root / INFO["tiny_imagenet"].files[0]
    if not folder.is_dir():
        raise not_found("tiny_imagenet")
    try:
        ids = (folder / "wnids.txt").read_text().split()
        words = dict(line.split("\t", 1) for line in (folder / "words.txt").read_text().splitlines())
        if part == "train":
            found = [(path, k) for k, i in enumerate(ids) for path in sorted((folder / "train" / i).rglob("*.JPEG"))]
        else:
            lines = (folder / "val" / "val_annotations.txt").read_text().splitlines()
            rows = [line.split("\t")[:2] for line in lines]
            found = [(folder / "val" / "images" / file, ids.index(i)) for file, i in rows]
        names = tuple(words[i].split(",")[0] for i in ids)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder} is damaged or incomplete ({error}). Remove it and get it again.") from error
    return Part(read_images([path for path, _ in found], "RGB"), np.array([k for _, k in found], dtype=int), names)


def read_images(paths: Sequence[Path], mode: str) -> NDArray[np.uint8]:
    """Read images of one size as (n, H, W) or (n, H, W, 3)."""

    def read(path: Path) -> NDArray[np.uint8]:
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert(mode))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{path} is missing or no image that can be read: {error}") from error

    images = None
    with ThreadPoolExecutor() as workers:
        for row, image in enumerate(workers.map(read, paths)):
            if images is None:
                images = np.empty((len(paths), *image.shape), dtype=np.uint8)
            if image.shape != images.shape[1:]:
                raise ValueError(
                    f"images of different sizes (height, width): {images.shape[1:3]} in {paths[0]}, {image.shape[:2]} "
                    f"in {paths[row]}. Resize them first."
                )
            images[row] = image
    return np.empty((0, 1, 1), dtype=np.uint8) if images is None else images


def _av1451(root: Path, part: str) -> Part:
    """The user's own table: columns subject and diagnosis (CN, MCI, AD), and 68 columns of regional uptake."""
    path = root / "av1451.csv"
    if not path.exists():
        raise not_found("av1451")
    try:
        table = pd.read_csv(path)
    except ValueError as error:
        raise ValueError(f"{path} is no table of comma-separated values: {error}") from error
    if missing := [name for name in ("subject", "diagnosis") if name not in table]:
        raise ValueError(f"{path} lacks the column {' and '.join(missing)}; its columns are {', '.join(table)[:200]}")
    features = table.drop(columns=["subject", "diagnosis"])
    if text := list(features.select_dtypes(exclude="number")):
        raise ValueError(f"{path}: these columns are not numbers: {', '.join(text)}. Remove them, or repair them.")
    if unknown := set(table["diagnosis"].map(str)) - set(DIAGNOSES):
        raise ValueError(f"{path}: diagnosis has {', '.join(sorted(unknown))}, but must be one of CN, MCI, AD")
    if table["subject"].isna().any():
        raise ValueError(f"{path}: {table['subject'].isna().sum()} scans have no subject; without it parts would mix")
    labels = table["diagnosis"].map(DIAGNOSES.index)
    return Part(features.to_numpy(dtype=float), labels.to_numpy(), DIAGNOSES, table["subject"].to_numpy())


SEPARATION = 1.2


def _av1451_synthetic(root: Path, part: str) -> Part:
    """A stand-in for AV1451: invented numbers of the same shape, not patients.

    432 subjects, 108 each with 1, 2, 3 and 4 scans; the diagnosis belongs to the subject (about 1/2, 1/3, 1/6). A scan
    is 34 regions in 2 hemispheres: a spatial pattern times a burden that grows with the diagnosis, plus what all scans
    of a subject share, plus noise of the scan. SEPARATION was tuned by hand until the MLP of this book, trained with
    cross-entropy (batch 128, learning rate 0.1, 20 epochs, checkpoint with the best validation NLL, 40 seeds), erred
    about as often as the paper's 36.8 % on the real scans: 38.4 % at 1.15, 37.3 % at 1.2, 36.0 % at 1.25.
    """
    rng = np.random.default_rng(1451)
    scans = np.repeat([1, 2, 3, 4], 108)
    label = rng.choice(3, size=len(scans), p=[1 / 2, 1 / 3, 1 / 6])
    pattern = rng.uniform(0.2, 1.0, size=34)
    regions = rng.normal(size=(6, 34)) / np.sqrt(6)
    burden = SEPARATION * label + rng.normal(size=len(scans))
    own = burden[:, None] * pattern + rng.normal(size=(len(scans), 6)) @ regions
    subject = np.repeat(np.arange(len(scans)), scans)
    region = own[subject] + 0.3 * rng.normal(size=(len(subject), 34))
    sides = np.stack([region, region], axis=2) + 0.4 * rng.normal(size=(len(subject), 34, 2))
    return Part(1.2 + 0.1 * sides.reshape(-1, 68), label[subject], DIAGNOSES, subject)


READERS: dict[str, Callable[[Path, str], Part]] = {
    "digits": _digits,
    "cifar100_features": lambda root, part: read_embedded(part),
    **{name: partial(_from_torchvision, name) for name in TORCHVISION},
    "tiny_imagenet": _tiny_imagenet,
    "av1451": _av1451,
    "av1451_synthetic": _av1451_synthetic,
}
