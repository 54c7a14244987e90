"""Arrays of a data set: from a file, checked and mended, or refused with the reason."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gence.lab.data.info import DatasetInfo
from gence.lab.storage import replace_file

__all__ = ["Part", "checked"]

KEYS = ("x_train", "y_train", "x_test", "y_test", "class_names")


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


def checked(raw: Part, where: str, part: str) -> Part:
    """Bring samples into the shapes and types of ``gence.lab.data.Splits``, or say what is wrong with them.

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


def check_against(info: DatasetInfo, found: Part, where: str, part: str) -> None:
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


def pixel_statistics(x: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
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


def read_npz(path: Path, part: str) -> Part:
    if (is_instead := what_is(path)) is not None:
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


def what_is(path: Path) -> str | None:
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


def write_npz(path: Path, **arrays: Any) -> None:
    replace_file(path, lambda file: np.savez(file, **arrays))
