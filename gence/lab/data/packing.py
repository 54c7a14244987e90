"""Getting the files of a data set and writing it as one file."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gence.lab.data.arrays import KEYS, Part, checked, write_npz
from gence.lab.data.files import read_part, sum_of
from gence.lab.data.info import INFO, DatasetInfo, how_to_get
from gence.lab.data.readers import READERS, TORCHVISION, open_torchvision, read_images
from gence.lab.data.regimes import dataset_info
from gence.lab.storage import data_folder

__all__ = ["download", "fetch", "images_to_npz", "pack"]


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
        raise ValueError(f"{name!r} cannot be downloaded ({info.title}). {how_to_get(info)}".strip())
    root.mkdir(parents=True, exist_ok=True)
    try:
        if name in TORCHVISION:
            for part in ("train", "test"):
                open_torchvision(name, root, part, download=True)
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
        FileNotFoundError: as ``gence.lab.data.load_splits``.

    Example:
        >>> pack("digits")
        Traceback (most recent call last):
        ...
        ValueError: cannot pack 'digits': it is no built-in data set of images
    """
    path = data_folder() / f"{name}.npz"
    if name not in READERS or not INFO[name].official_test or not INFO[name].files:
        raise ValueError(f"cannot pack {name!r}: it is no built-in data set of images")
    if path.exists():
        raise ValueError(f"{path} is there already; remove it to make it again")
    train, test = read_part(name, "train"), read_part(name, "test")
    arrays = dict(zip(KEYS, (train.x, train.y, test.x, test.y, np.array(train.class_names)), strict=True))
    write_npz(path, **arrays, packed=sum_of(arrays))
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
        arrays[f"x_{part}"] = read_images([path for paths in classes.values() for path in paths], mode)
        arrays[f"y_{part}"] = np.repeat(np.arange(len(names)), [len(paths) for paths in classes.values()])
        checked(Part(arrays[f"x_{part}"], arrays[f"y_{part}"], names), str(folder / part), part)
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        sizes = (arrays[f"x_{part}"].shape[1:3] for part in ("train", "test"))
        raise ValueError("{}: images of different sizes: {} in train, {} in test".format(folder, *sizes))
    write_npz(out, **arrays)
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


# Not known to torchvision; the MD5 sums are those their users have agreed on (Zenodo lists that of CIFAR-10-C).
_ARCHIVES = {
    "tiny_imagenet": ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),
    "cifar10_c": ("https://zenodo.org/records/2535967/files/CIFAR-10-C.tar", "56bf5dcef84df0e2308c6dcbcbbd8499"),
}


def download(name: str) -> None:
    """Download a data set into the data folder and check it; what is there and whole stays.

    Args:
        name: a data set whose ``megabytes`` in :func:`dataset_info` is not 0.

    Raises:
        ValueError: unknown name; a data set that cannot be downloaded.
        OSError: no network, no such page, or a file whose checksum is wrong.

    Example:
        >>> download("digits")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: 'digits' cannot be downloaded (handwritten digits, 8 x 8). Inside scikit-learn, ...
    """
    fetch(dataset_info(name))
