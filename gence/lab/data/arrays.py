"""Reading the files of each data set: formats, checksums, unpacking, and what is known about each of them.

A reader turns what lies in the data folder into a :class:`Part`: samples, labels, class names. All of them are brought
into one form and checked here; ``gence.data`` cuts splits out of them.
"""

from __future__ import annotations

import hashlib
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from gence._files import data_folder, file_digest, replace_file

__all__ = [
    "INFO",
    "READERS",
    "DatasetInfo",
    "Part",
    "checked",
    "content",
    "data_folder",
    "fetch",
    "how_to_bring",
    "images_to_npz",
    "not_found",
    "own_file",
    "pack",
    "read_part",
]

DIAGNOSES = ("CN", "MCI", "AD")
KEYS = ("x_train", "y_train", "x_test", "y_test", "class_names")


# --- what is known about a data set -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set is and where it comes from.

    Attributes:
        name: as ``gence.data.load_splits`` takes it.
        title: what it is, in a few words.
        n_train: samples to learn from as distributed; the validation samples are taken out of them.
        n_test: samples of the official test set; 0 where there is none and the seed draws one.
        shape: of a sample, (C, H, W) or (D,).
        n_classes: K.
        smallest_class: samples to learn from in the smallest class; 0 where that is not known in advance.
        source: key in ``book/references.bib``; empty for the user's own data.
        licence: what its distributor says about its use.
        files: what lies in :func:`data_folder`; where there are two, the second serves the test set.
        megabytes: of the download; 0 where there is none.
        held_out: shares of each class that become test and validation set; the first is 0 with an official test set.
        mean: of the pixels in [0, 1] of all training images, where published; otherwise it is computed.
        std: as `mean`: the deviation of all pixels of a channel. Some recipes use the mean over the images of each
            image's own deviation instead (0.2023, 0.1994, 0.2010 for CIFAR-10).
        balanced: whether all classes are cut to the same size when no regime is asked for.
        standardise: whether features get mean 0 and deviation 1 over the training samples.
        note: what a reader of results must know.

    Example:
        >>> info = INFO["cifar10"]
        >>> info.n_train, info.n_test, info.shape, info.official_test
        (50000, 10000, (3, 32, 32), True)
    """

    name: str
    title: str
    n_train: int
    n_test: int
    shape: tuple[int, ...]
    n_classes: int
    smallest_class: int
    source: str
    licence: str
    files: tuple[str, ...] = ()
    megabytes: int = 0
    held_out: tuple[float, float] = (0.0, 0.1)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    balanced: bool = False
    standardise: bool = False
    note: str = ""

    @property
    def official_test(self) -> bool:
        """Whether the test set is the distributor's, the same for every seed."""
        return self.n_test > 0


# --- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The samples to learn from, or the official test set; `mean` and `std` only of images to learn from.

    Example:
        >>> Part(np.zeros((2, 3)), np.array([0, 1]), ("a", "b")).subjects is None
        True
    """

    x: NDArray
    y: NDArray[np.int64]
    class_names: tuple[str, ...]
    subjects: NDArray | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


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
    return _cached(name, part, data_folder(), file, file and _digest_of(file))


def own_file(name: str) -> Path | None:
    """Return the user's own file that stands for a data set: ``NAME.npz``, or the table of av1451; None without one.

    Raises:
        ValueError: a file ``NAME.npz`` that could not be used, because the data set is built in and has no test set.
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
    if npz.exists() and (name not in READERS or not info.official_test):
        raise ValueError(
            f"{npz} would not be used: {name!r} is the name of a built-in data set ({info.title}). Give your own data "
            f"a name of its own, for example my_{name}.npz, or remove the file."
        )
    own = root / "av1451.csv" if name == "av1451" else npz
    return own if own.exists() else None


def content(name: str) -> str | None:
    """Return a digest of the user's own file that stands for a data set; None for published data.

    A file that :func:`pack` wrote, and nobody changed, holds the published data.

    Raises:
        ValueError: as :func:`own_file`.
        FileNotFoundError: as :func:`own_file`.

    Example:
        >>> content("digits") is None
        True
    """
    file = own_file(name)
    if file is None:
        return None
    digest = _digest_of(file)
    return None if name in READERS and file.suffix == ".npz" and _is_packed(file, digest) else digest


def _digest_of(file: Path) -> str:
    try:
        return file_digest(file)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {_what_is(file) or error}") from error


@lru_cache(maxsize=16)
def _is_packed(path: Path, digest: str) -> bool:
    try:
        with np.load(path, allow_pickle=False) as file:
            return "packed" in file and str(file["packed"]) == _sum_of({key: file[key] for key in KEYS})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return False  # reading it will say what is wrong


def _sum_of(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for key, values in sorted(arrays.items()):
        array = np.asarray(values)
        digest.update(f"{key} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=4)
def _cached(name: str, part: str, root: Path, own: Path | None, digest: str | None) -> Part:
    npz = own if own is not None and own.suffix == ".npz" else None
    where = str(own or root / " and ".join(INFO[name].files))
    raw = _read_npz(npz, part) if npz else READERS[name](root, part)
    found = checked(raw, where, part)
    info = INFO.get(name)
    if info is not None:
        _check_against(info, found, where, part)
    if part == "train" and found.x.ndim == 4:
        mean, std = (info.mean, info.std) if info is not None and info.mean else _pixel_statistics(found.x)
        found = replace(found, mean=mean, std=std)
    for array in (found.x, found.y):
        array.flags.writeable = False  # callers get copies: nobody may change what the next one sees
    return found


def checked(raw: Part, where: str, part: str) -> Part:
    """Bring samples into the shapes and types of ``gence.data.Splits``, or say what is wrong with them.

    Args:
        raw: as read.
        where: the file, for messages.
        part: ``"train"`` or ``"test"``.

    Raises:
        ValueError: samples or labels that cannot be used.

    Example:
        >>> checked(Part(np.zeros((2, 8, 8), dtype=np.uint8), [0, 1], ("a", "b")), "a file", "test").x.shape
        (2, 1, 8, 8)
    """
    x, n_classes = np.asarray(raw.x), len(raw.class_names)
    if x.dtype == np.uint8 and x.ndim in (3, 4):
        x = _channels_first(x, f"{where}: x_{part}")
    elif x.ndim == 2 and x.dtype.kind in "fiu" and x.size:
        x = x.astype(np.float64)
        if not np.isfinite(x).all():
            raise ValueError(f"{where}: x_{part} has values that are missing or infinite; remove or fill those rows")
    else:
        raise ValueError(
            f"{where}: x_{part} has type {x.dtype} and shape {x.shape}, but must hold uint8 images (0..255) of shape "
            f"(n, H, W), (n, H, W, C) or (n, C, H, W), or numbers of shape (n, D).{_mend_samples(x)}"
        )
    y = _whole_numbers(np.asarray(raw.y), f"{where}: y_{part}")
    if len(y) != len(x) or not len(y):
        raise ValueError(
            f"{where}: y_{part} has {len(y)} labels, but must hold one whole number for each of the {len(x)} samples "
            f"of x_{part}, and there must be samples"
        )
    if n_classes < 2:
        raise ValueError(f"{where}: class_names names {n_classes} class, but at least 2 are needed")
    if y.min() < 0 or y.max() >= n_classes:
        mend = f" Labels start at 1 here: save y_{part} - 1." if (y.min(), y.max()) == (1, n_classes) else ""
        raise ValueError(
            f"{where}: y_{part} has labels {y.min()}..{y.max()}, but must lie in 0..{n_classes - 1}: there are "
            f"{n_classes} classes, {', '.join(map(repr, raw.class_names[:10]))}.{mend}"
        )
    if part == "train" and (rare := np.flatnonzero(np.bincount(y, minlength=n_classes) < 2)).size:
        names = ", ".join(f"{raw.class_names[k]!r} (label {k})" for k in rare[:10])
        raise ValueError(
            f"{where}: every class needs at least 2 training samples, one to learn from and one for validation; "
            f"too few of: {names}"
        )
    return replace(raw, x=x, y=y)


def _check_against(info: DatasetInfo, found: Part, where: str, part: str) -> None:
    if (found.x.shape[1:], len(found.class_names)) != (info.shape, info.n_classes):
        raise ValueError(
            f"{where}: samples of shape {found.x.shape[1:]} in {len(found.class_names)} classes are not {info.name!r}, "
            f"which has shape {info.shape} and {info.n_classes} classes. Give your own data a name of its own."
        )
    size = info.n_train if part == "train" else info.n_test
    if info.official_test and len(found.y) != size:
        warnings.warn(
            f"{where} holds {len(found.y):,} {part} images, the published data set {size:,}: call your results those "
            "of a variant",
            stacklevel=5,
        )


def _channels_first(x: NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
    """Bring images (n, H, W), (n, H, W, C) or (n, C, H, W) into the last form, where C is 1 or 3."""
    if x.ndim == 3:
        return np.ascontiguousarray(x[:, None])
    first, last = (x.shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        raise ValueError(f"{where} has shape {x.shape}: cannot tell which of its axes holds the 1 or 3 channels")
    return np.ascontiguousarray(x if first else x.transpose(0, 3, 1, 2))


def _pixel_statistics(x: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, of pixels in [0, 1], from histograms: exact, without a float copy."""
    counts = np.zeros((x.shape[1], 256))
    for start in range(0, len(x), 1000):
        for channel, pixels in zip(counts, x[start : start + 1000].swapaxes(0, 1), strict=True):
            channel += np.bincount(pixels.ravel(), minlength=256)
    levels, weights = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = weights @ levels
    std = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(1))
    std[std == 0] = 1.0  # a channel without content is left as it is
    return tuple(mean.tolist()), tuple(std.tolist())


def _mend_samples(x: NDArray) -> str:
    """How to make samples of them, where that is plain."""
    if x.dtype.kind in "OUS":
        return " Save numbers, for example with x.astype(float)."
    if x.ndim in (3, 4) and x.dtype.kind == "f" and x.size and x.min() >= 0 and x.max() <= 1:
        return " Pixels in [0, 1] become bytes with (255 * x).round().astype(np.uint8)."
    if x.ndim in (3, 4) and x.dtype.kind in "iuf" and x.size and x.min() >= 0 and x.max() <= 255:
        return " Pixels in 0..255 become bytes with x.astype(np.uint8)."
    return " A single feature is a column: x[:, None]." if x.ndim == 1 and x.dtype.kind in "iuf" else ""


def _whole_numbers(y: NDArray, where: str) -> NDArray[np.int64]:
    """Labels as integers, or what they are instead, and how to make labels of them."""
    name = where.rsplit(" ", 1)[-1]
    if y.ndim == 2 and y.shape[1] == 1:
        raise ValueError(f"{where} has shape {y.shape}, a column, but labels have shape (n,): save {name}.ravel()")
    if y.ndim == 2 and y.dtype.kind in "iufb" and y.size and np.allclose(y.sum(1), 1) and y.min() >= 0:
        kind = "one-hot" if (y.max(1) == 1).all() else "class probabilities"
        raise ValueError(f"{where} is {kind}, of shape {y.shape}; labels have shape (n,): save {name}.argmax(1)")
    if y.ndim != 1:
        raise ValueError(f"{where} has type {y.dtype} and shape {y.shape}, but labels are whole numbers of shape (n,)")
    if y.dtype.kind in "US":
        some = ", ".join(repr(str(word)) for word in np.unique(y)[:3])
        raise ValueError(
            f"{where} holds text ({some}, ...), but labels are whole numbers 0..K-1. Number them, with the same "
            f"numbers in both parts, and save the text too: class_names, y_train = np.unique(y_train, "
            f"return_inverse=True); y_test = np.searchsorted(class_names, y_test)"
        )
    if y.dtype.kind == "f" and (broken := y[y != np.floor(y)]).size:
        raise ValueError(f"{where} holds {broken[0]:g}, but labels are whole numbers 0..K-1, one for each sample")
    if y.dtype.kind in "fb":
        some = ", ".join(str(label) for label in np.unique(y)[:3])
        raise ValueError(
            f"{where} has type {y.dtype} ({some}, ...), but labels are whole numbers: save {name}.astype(np.int64)"
        )
    if y.dtype.kind not in "iu":
        raise ValueError(f"{where} has type {y.dtype} and shape {y.shape}, but labels are whole numbers of shape (n,)")
    return y.astype(np.int64)


def _read_npz(path: Path, part: str) -> Part:
    if (is_instead := _what_is(path)) is not None:
        raise ValueError(
            f"{path} is no .npz file: {is_instead}. Read it with its own library, for example pandas, and write "
            "x_train, y_train, x_test and y_test with numpy.savez."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            if missing := [key for key in KEYS[:4] if key not in file]:
                raise ValueError(
                    f"{path} lacks {', '.join(missing)}: it holds {', '.join(file.files) or 'nothing'}, and must hold "
                    "x_train, y_train, x_test and y_test"
                )
            wanted = dict.fromkeys((f"x_{part}", f"y_{part}", "y_train", "class_names"))
            arrays = {key: _plain_array(file, key, path) for key in wanted if key in file}
    except (OSError, TypeError, EOFError, AttributeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged, or no .npz file of plain arrays: {error}. Write it again.") from error
    names = _names(arrays["class_names"], path) if "class_names" in arrays else _numbered(arrays["y_train"], str(path))
    return Part(arrays[f"x_{part}"], arrays[f"y_{part}"], names)


def _plain_array(file: Any, key: str, path: Path) -> NDArray:
    try:
        return file[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise ValueError(f"{path} is damaged, or no .npz file of plain arrays: {error}. Write it again.") from error
        as_plain = "np.array(class_names, dtype=str)" if key == "class_names" else f"{key}.astype(np.int64)"
        raise ValueError(
            f"{path}: {key} is an array of Python objects, not a plain array. Such arrays are pickled and never "
            f"opened here, because they could run code. Save it as {as_plain}."
        ) from None


def _what_is(path: Path) -> str | None:
    """What a file is that is no zip archive; None for one that starts like an archive."""
    try:
        with path.open("rb") as file:
            start = file.read(40)
    except IsADirectoryError:
        return "it is a folder"
    except PermissionError:
        return "there is no permission to read it"
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return None
    for magic, what in ((b"\x93NUMPY", "a single array (.npy)"), (b"\x89HDF", "HDF5"), (b"\x80", "a pickle")):
        if start.startswith(magic):
            return f"it is {what}"
    if start and all(32 <= byte < 127 or byte in b"\r\n\t" for byte in start):
        return f"it is text that starts with {start.splitlines()[0].decode()!r}"
    return "it is damaged" if start else "it is empty"


def _names(found: NDArray, path: Path) -> tuple[str, ...]:
    flat = np.atleast_1d(found)
    names = tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in flat.tolist())
    if flat.ndim != 1 or len(set(names)) < len(names):
        raise ValueError(
            f"{path}: class_names must hold K different names in one row, but has shape {flat.shape} and holds "
            f"{', '.join(map(repr, names[:10]))}"
        )
    return names


def _numbered(y: NDArray, path: str) -> tuple[str, ...]:
    """Names for classes that have none: their numbers."""
    found = np.unique(_whole_numbers(y, f"{path}: y_train"))
    if len(found) < 2:
        one = f"a single class (label {found[0]})" if len(found) else "no labels"
        raise ValueError(f"{path}: y_train has {one}, but at least 2 classes are needed")
    if not np.array_equal(found, np.arange(len(found))):
        if np.array_equal(found, np.arange(1, len(found) + 1)):
            mend = f"labels start at 1 (1..{len(found)}): save y_train - 1 and y_test - 1"
        else:
            shown = ", ".join(map(str, found[:10])) + (", ..." if len(found) > 10 else "")
            mend = (
                f"the labels are {shown}. Number them anew, with the same numbers in both parts: labels, y_train = "
                "np.unique(y_train, return_inverse=True); y_test = np.searchsorted(labels, y_test)"
            )
        raise ValueError(f"{path}: y_train must hold whole numbers 0..K-1, of all K classes, but {mend}")
    return tuple(str(k) for k in found)


def how_to_bring(name: str) -> str:
    """Say how the user's own data become a data set of a name.

    Example:
        >>> how_to_bring("mine").startswith("To bring your own data, write mine.npz ")
        True
    """
    root = data_folder()
    where = f"{root}, the folder that GENCE_DATA names" + ("" if root.is_dir() else " (there is no such folder yet)")
    others = sorted(path.name for path in root.glob("*") if path.stem == name and path.suffix != ".npz")
    instead = f" {others[0]} is there, but only .npz files are read." if others else ""
    return (
        f"To bring your own data, write {name}.npz with the arrays x_train, y_train, x_test, y_test (and class_names) "
        f"into {where}.{instead} For folders of images: python -m gence.data FOLDER {root / name}.npz"
    )


def _digits(root: Path, part: str) -> Part:
    """1,797 handwritten digits, 8 x 8 pixels with values 0..16, inside scikit-learn: nothing to download."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Part(bunch.data / 16.0, bunch.target, tuple(str(name) for name in bunch.target_names))


_TORCHVISION = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
    "emnist_letters": "EMNIST",
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
}


def _torchvision(name: str, root: Path, part: str, *, download: bool = False) -> Any:
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
    return getattr(datasets, _TORCHVISION[name])(root, download=download, **options)


def _from_torchvision(name: str, root: Path, part: str) -> Part:
    file = root / INFO[name].files[0 if part == "train" else -1]
    if not file.exists():
        raise not_found(name)
    try:
        found = _torchvision(name, root, part)
    except (RuntimeError, AssertionError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged, incomplete or not the published file ({error}). Remove it and get it again: "
            f"python -m gence.data --download {name}"
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
    return Part(_read_images([path for path, _ in found], "RGB"), np.array([k for _, k in found], dtype=int), names)


def _read_images(paths: Sequence[Path], mode: str) -> NDArray[np.uint8]:
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


# --- getting files and making them ----------------------------------------------------------------------------------


def fetch(info: DatasetInfo) -> None:
    """Download a data set into the data folder, check and unpack it; what is there and whole stays.

    Raises:
        ValueError: a data set that cannot be downloaded.
        OSError: no network, no such page, or a file whose checksum is wrong.

    Example:
        >>> fetch(INFO["digits"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: 'digits' cannot be downloaded (handwritten digits, 8 x 8). Inside scikit-learn, ...
    """
    name, root = info.name, data_folder()
    if not info.megabytes:
        raise ValueError(f"{name!r} cannot be downloaded ({info.title}). {_how_to_get(info)}".strip())
    root.mkdir(parents=True, exist_ok=True)
    try:
        if name in _TORCHVISION:
            for part in ("train", "test"):
                _torchvision(name, root, part, download=True)
        else:
            from torchvision.datasets.utils import download_and_extract_archive

            url, md5 = _ARCHIVES[name]
            download_and_extract_archive(url, str(root), md5=md5)
    except (OSError, RuntimeError, HTTPException) as error:
        raise OSError(
            f"downloading {name!r} failed: {error}. Without a network, download it on another machine and copy "
            f"{' and '.join(info.files)} into {root}."
        ) from error


def pack(name: str) -> Path:
    """Write a built-in data set of images as ``NAME.npz`` into the data folder: one file that loads fast.

    Args:
        name: a data set with an official test set, whose files are in the data folder.

    Returns:
        The path of the file. From now on it stands for the data set, and for the same data: a run on it has the same
        identity as one on the published files, as long as nobody changes the file.

    Raises:
        ValueError: another data set; the file is there already.
        FileNotFoundError: as ``gence.data.load_splits``.

    Example:
        >>> pack("digits")
        Traceback (most recent call last):
        ...
        ValueError: cannot pack 'digits': it is no built-in data set of images
    """
    path = data_folder() / f"{name}.npz"
    if name not in READERS or not INFO[name].official_test:
        raise ValueError(f"cannot pack {name!r}: it is no built-in data set of images")
    if path.exists():
        raise ValueError(f"{path} is there already; remove it to make it again")
    train, test = read_part(name, "train"), read_part(name, "test")
    arrays = dict(zip(KEYS, (train.x, train.y, test.x, test.y, np.array(train.class_names)), strict=True))
    _write_npz(path, **arrays, packed=_sum_of(arrays))
    return path


def images_to_npz(folder: str | Path, out: str | Path) -> Path:
    """Convert folders of images, ``folder/{train,test}/<class>/*.png|jpg``, to one file that is a data set.

    The classes are the names of the folders in ``train``, sorted. If all images are grey they stay so; otherwise all
    become RGB, and transparency is dropped. Images are not resized: they must all have the same size.

    Args:
        folder: holds ``train`` and ``test`` with the same classes.
        out: a path that ends in ``.npz``. In the data folder it is a data set with the name of the file.

    Returns:
        The path of the file, which is written atomically.

    Raises:
        ValueError: classes that differ, a class without images, images of different sizes or with more than 8 bits,
            files that cannot be read.
        OSError: `out` cannot be written.

    Example:
        >>> root = getfixture("tmp_path")
        >>> for number, name in enumerate(["train/a/1", "train/a/2", "train/b/1", "train/b/2", "test/a/1", "test/b/1"]):
        ...     (root / name).parent.mkdir(parents=True, exist_ok=True)
        ...     Image.new("L", (8, 8), color=number).save(root / f"{name}.png")
        >>> with np.load(images_to_npz(root, root / "mine.npz")) as made:
        ...     made["x_train"].shape, made["y_train"].tolist(), made["class_names"].tolist()
        ((4, 8, 8), [0, 0, 1, 1], ['a', 'b'])
    """
    folder, out = Path(folder), Path(out)
    if out.suffix != ".npz":
        raise ValueError(f"the file must end in .npz, but is {out}")
    files = {part: _image_files(folder / part) for part in ("train", "test")}
    names = tuple(files["train"])
    if names != tuple(files["test"]):
        differ = ", ".join(sorted(set(names) ^ set(files["test"])))
        raise ValueError(f"{folder}: train and test must have the same classes, but only one of them has: {differ}")
    mode = _common_mode([path for part in files.values() for paths in part.values() for path in paths])
    arrays: dict[str, Any] = {"class_names": names}
    for part, classes in files.items():
        arrays[f"x_{part}"] = _read_images([path for paths in classes.values() for path in paths], mode)
        arrays[f"y_{part}"] = np.repeat(np.arange(len(names)), [len(paths) for paths in classes.values()])
        checked(Part(arrays[f"x_{part}"], arrays[f"y_{part}"], names), str(folder / part), part)
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        sizes = (arrays[f"x_{part}"].shape[1:3] for part in ("train", "test"))
        raise ValueError("{}: images of different sizes: {} in train, {} in test".format(folder, *sizes))
    _write_npz(out, **arrays)
    return out


def _image_files(folder: Path) -> dict[str, list[Path]]:
    """Image files of each class, sorted."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; expected {folder}/<class>/*.png or *.jpg")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {
        c.name: sorted(path for path in c.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
        for c in classes
    }
    if empty := [name for name, paths in found.items() if not paths] or ([] if found else ["no class at all"]):
        raise ValueError(f"{folder}: no .png or .jpg images of: {', '.join(empty)}")
    return found


def _common_mode(paths: Sequence[Path]) -> str:
    """``"L"`` if all images are grey, otherwise ``"RGB"``; reads only their headers."""
    modes = {}
    for path in paths:
        try:
            with Image.open(path) as image:
                modes.setdefault(image.mode, path)
        except OSError as error:
            raise ValueError(f"{path} is no image that can be read: {error}") from error
    if deep := [mode for mode in modes if mode.startswith(("I", "F"))]:
        raise ValueError(f"{modes[deep[0]]} has more than 8 bits (mode {deep[0]}); convert it to 8 bits first")
    return "L" if set(modes) <= {"1", "L"} else "RGB"


def _write_npz(path: Path, **arrays: Any) -> None:
    replace_file(path, lambda file: np.savez(file, **arrays))


def not_found(name: str) -> FileNotFoundError:
    """Say that a data set is not there, and how to get it.

    Example:
        >>> str(not_found("svhn")).startswith("'svhn' is not in ")
        True
    """
    info, root = INFO[name], data_folder()
    instead = f" or {name}.npz" if name in READERS and info.official_test else ""
    return FileNotFoundError(
        f"{name!r} is not in {root}. {_how_to_get(info)} Or let the environment variable GENCE_DATA name the folder "
        f"that holds {' and '.join(info.files)}{instead}."
    )


def _how_to_get(info: DatasetInfo) -> str:
    if info.megabytes:
        return f"Download it once ({info.megabytes:,} MB): python -m gence.data --download {info.name}."
    return f"{info.note}"


# --- what there is --------------------------------------------------------------------------------------------------

READERS: dict[str, Callable[[Path, str], Part]] = {
    "digits": _digits,
    **{name: partial(_from_torchvision, name) for name in _TORCHVISION},
    "tiny_imagenet": _tiny_imagenet,
    "av1451": _av1451,
    "av1451_synthetic": _av1451_synthetic,
}

# Not known to torchvision; the MD5 sums are those their users have agreed on (Zenodo lists that of CIFAR-10-C).
_ARCHIVES = {
    "tiny_imagenet": ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),
    "cifar10_c": ("https://zenodo.org/records/2535967/files/CIFAR-10-C.tar", "56bf5dcef84df0e2308c6dcbcbbd8499"),
}

# fmt: off
INFO = {info.name: info for info in (
    DatasetInfo(
        "digits", "handwritten digits, 8 x 8", n_train=1797, n_test=0, shape=(64,), n_classes=10, smallest_class=174,
        source="alpaydin1998digits", licence="CC BY 4.0", held_out=(0.30, 0.15), balanced=True,
        note="Inside scikit-learn, which has the 1,797 test images of the 5,620 of the original.",
    ),
    DatasetInfo(
        "cifar10", "small colour photographs of 10 kinds of things", n_train=50_000, n_test=10_000, shape=(3, 32, 32),
        n_classes=10, smallest_class=5000, source="krizhevsky2009learning",
        licence="no formal licence; the author asks to be cited", files=("cifar-10-batches-py",), megabytes=170,
        mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616),
    ),
    DatasetInfo(
        "cifar100", "small colour photographs of 100 kinds of things", n_train=50_000, n_test=10_000,
        shape=(3, 32, 32), n_classes=100, smallest_class=500, source="krizhevsky2009learning",
        licence="no formal licence; the author asks to be cited", files=("cifar-100-python",), megabytes=169,
        mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762),
        note="The fine labels. Some test images are in the training set too.",
    ),
    DatasetInfo(
        "svhn", "house numbers, cut to one digit", n_train=73_257, n_test=26_032, shape=(3, 32, 32), n_classes=10,
        smallest_class=4659, source="netzer2011reading", licence="for non-commercial use only",
        files=("train_32x32.mat", "test_32x32.mat"), megabytes=246,
        mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970),
        note="Classes of different sizes. Without the 531,131 easier extra images.",
    ),
    DatasetInfo(
        "emnist_letters", "handwritten letters, capital and small ones in one class", n_train=124_800, n_test=20_800,
        shape=(1, 28, 28), n_classes=26, smallest_class=4800, source="cohen2017emnist",
        licence="none stated with the files; made from NIST Special Database 19", files=("EMNIST/raw",), megabytes=562,
        note="Turned upright here; the files hold the images transposed.",
    ),
    DatasetInfo(
        "mnist", "handwritten digits, 28 x 28", n_train=60_000, n_test=10_000, shape=(1, 28, 28), n_classes=10,
        smallest_class=5421, source="lecun1998gradient", licence="none stated with the files", files=("MNIST/raw",),
        megabytes=12, mean=(0.1307,), std=(0.3081,), note="Classes of different sizes.",
    ),
    DatasetInfo(
        "fashion_mnist", "grey pictures of 10 kinds of clothes", n_train=60_000, n_test=10_000, shape=(1, 28, 28),
        n_classes=10, smallest_class=6000, source="xiao2017fashion", licence="MIT", files=("FashionMNIST/raw",),
        megabytes=31, mean=(0.2860,), std=(0.3530,),
    ),
    DatasetInfo(
        "tiny_imagenet", "200 classes of ImageNet, reduced to 64 x 64", n_train=100_000, n_test=10_000,
        shape=(3, 64, 64), n_classes=200, smallest_class=500, source="le2015tiny",
        licence="as ImageNet: non-commercial research and education", files=("tiny-imagenet-200",), megabytes=248,
        mean=(0.4802, 0.4481, 0.3975), std=(0.2770, 0.2691, 0.2821),
        note="The test set here is the official validation set: the official test images have no public labels.",
    ),
    DatasetInfo(
        "cifar10_c", "the test images of cifar10 under 19 corruptions of 5 severities", n_train=0, n_test=10_000,
        shape=(3, 32, 32), n_classes=10, smallest_class=0, source="hendrycks2019benchmarking", licence="CC BY 4.0",
        files=("CIFAR-10-C",), megabytes=2918, note="For testing only: read it with cifar10_c(corruption, severity).",
    ),
    DatasetInfo(
        "av1451", "tau PET scans of ADNI, 68 regional uptakes: the user's own table", n_train=1080, n_test=0,
        shape=(68,), n_classes=3, smallest_class=0, source="weiner2017adni3",
        licence="ADNI's data use agreement; may not be passed on", files=("av1451.csv",), held_out=(0.1, 0.1),
        standardise=True,
        note="Apply for the scans at https://adni.loni.usc.edu and write av1451.csv: columns subject, diagnosis (CN, "
        "MCI or AD) and 68 regional uptakes. For a try without them use av1451_synthetic.",
    ),
    DatasetInfo(
        "av1451_synthetic", "invented numbers in the shape of av1451, no patients", n_train=1080, n_test=0,
        shape=(68,), n_classes=3, smallest_class=0, source="", licence="MIT, as this book", held_out=(0.1, 0.1),
        standardise=True,
        note="Tuned to be as hard for an MLP with cross-entropy as the paper's scans; says nothing about real scans.",
    ),
)}
# fmt: on
