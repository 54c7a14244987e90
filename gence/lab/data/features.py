"""Images turned into features once, by a network that was trained on ImageNet: full data sets in minutes.

The features are a data set of their own: ``cifar100_efficientnet_lite0_96`` are those of cifar100 at 96 x 96 pixels.
What is learned from them is transfer from ImageNet, and says so in its name. The classes of Tiny-ImageNet are among
those the network was trained on, its training images too: its features are a check of the machinery, no evidence.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from gence.lab.data.arrays import KEYS, Part, write_npz
from gence.lab.data.files import made_from, read_part, sum_of
from gence.lab.data.pretrained import Pretrained, load_pretrained
from gence.lab.data.regimes import dataset_info
from gence.lab.data.shifted import cifar10_c
from gence.lab.storage import data_folder, file_digest, replace_file

__all__ = ["extract_features", "features_name", "features_of"]

# Images between two files of an extraction: what a kill can cost, 10 seconds or so.
CHUNK = 1000
# Images in one pass of the network: more do not fit the cache of a core, and take longer.
PASS = 16
SMALLEST, LARGEST = 32, 1024


def features_name(dataset: str, network: str = "efficientnet_lite0", size: int = 96) -> str:
    """Return the name of the data set that :func:`extract_features` makes.

    Example:
        >>> features_name("cifar10_c:generated_gaussian_noise:3")
        'cifar10_c_generated_gaussian_noise_3_efficientnet_lite0_96'
    """
    return f"{dataset.replace(':', '_')}_{network}_{size}"


def extract_features(
    dataset: str, network: str | Pretrained = "efficientnet_lite0", size: int = 96, *, progress: bool = True
) -> Path:
    """Write the features of a data set of images into the data folder, as a data set; go on where a kill stopped it.

    Grey images become three equal channels; all are resized by Pillow's bicubic interpolation, and normalised as the
    network was trained. The file holds what it was made from (checksums of the images, of the labels and of the
    network's weights, the input size) and a checksum of its content. Runs know it by what it was made from, so one who
    makes it again elsewhere, where the last digits differ, has the same runs.

    Args:
        dataset: a data set of images, or ``"cifar10_c:CORRUPTION:SEVERITY"``: then the training part is that of clean
            CIFAR-10, and the test part the corrupted test images.
        network: one of ``gence.lab.data.pretrained.NETWORKS``, or a network with weights of one's own.
        size: height and width to which the images are resized, in pixels.
        progress: show a progress bar with the time that is left.

    Returns:
        The path of the file, ``NAME.npz``; its name is that of :func:`features_name`.

    Raises:
        ValueError: not a data set of images, an unknown network, a size outside 32..1024; the file is there already
            and was made from something else; another process is making it.
        FileNotFoundError: the images are not in the data folder; the message says how to get them.
        ImportError: the package of the network is not installed.
        OSError: weights that cannot be downloaded, a folder that cannot be written.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> getfixture("monkeypatch").setenv("GENCE_DATA", str(folder))
        >>> x, y = np.zeros((4, 8, 8), dtype=np.uint8), [0, 1, 0, 1]
        >>> np.savez(folder / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        >>> body = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> mean_colour = Pretrained("colour", body, (0.0,) * 3, (1.0,) * 3)
        >>> path = extract_features("mine", mean_colour, 32, progress=False)
        >>> path.name, read_part("mine_colour_32", "train").x.shape
        ('mine_colour_32.npz', (4, 3))
    """
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"size must lie in {SMALLEST}..{LARGEST} pixels, but got {size}")
    train, test = _parts(dataset)
    network = load_pretrained(network, size) if isinstance(network, str) else network
    work = _Extraction(dataset, network, size, train, test)
    path = data_folder() / f"{work.name}.npz"
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        with lock:
            if not _is_there(path, work.identity):
                work.write(path, progress)
    except Timeout:
        raise ValueError(f"another process is writing {path}: wait for it") from None
    return path


def _parts(dataset: str) -> tuple[Part, Part]:
    name, *shift = dataset.split(":")
    if shift and (name != "cifar10_c" or len(shift) != 2 or not shift[1].isdigit()):
        raise ValueError(f"{dataset!r} is no data set: corrupted images are named cifar10_c:CORRUPTION:SEVERITY")
    clean = "cifar10" if shift else name
    if len(dataset_info(clean).shape) != 3:
        raise ValueError(f"{dataset!r} is no data set of images: it has features already")
    train, test = read_part(clean, "train"), None if shift else read_part(clean, "test")
    if test is None:
        x, y = cifar10_c(shift[0], int(shift[1]))
        test = Part(x, y, train.class_names)
    return train, test


def _is_there(path: Path, identity: str) -> bool:
    if not path.exists():
        return False
    if made_from(path, file_digest(path)) != identity:
        raise ValueError(
            f"{path} is there already, and was not made from these images and this network. Remove it, or give it "
            "another name, to make it again."
        )
    return True


@dataclass(frozen=True)
class _Extraction:
    dataset: str
    network: Pretrained
    size: int
    train: Part
    test: Part

    @property
    def name(self) -> str:
        return features_name(self.dataset, self.network.name, self.size)

    @cached_property
    def images(self) -> dict[str, str]:
        return {part: sum_of({"x": getattr(self, part).x}) for part in ("train", "test")}

    @cached_property
    def machine(self) -> dict[str, object]:
        """What turns an image into features."""
        pixels = {"size": self.size, "mean": self.network.mean, "std": self.network.std, "resize": "bicubic"}
        return {"network": self.network.name, "weights": self.network.weights} | pixels

    @cached_property
    def identity(self) -> str:
        labels = {"train": self.train.y, "test": self.test.y, "names": np.array(self.train.class_names)}
        made = {"dataset": self.dataset, "images": self.images, "labels": sum_of(labels)} | self.machine
        return json.dumps(made, sort_keys=True)

    def write(self, path: Path, progress: bool) -> None:
        total = len(self.train.y) + len(self.test.y)
        folders = []
        with tqdm(total=total, desc=self.name, unit="image", disable=not progress) as bar:
            found = {}
            for part in ("train", "test"):
                folders.append(self._chunks(path, part))
                found[part] = self._known(part, path.parent)
                if found[part] is None:
                    found[part] = self._features(getattr(self, part).x, folders[-1], bar)
                else:
                    bar.update(len(found[part]))
        y = self.train.y, self.test.y
        arrays = dict(
            zip(KEYS, (found["train"], y[0], found["test"], y[1], np.array(self.train.class_names)), strict=True)
        )
        arrays["made_from"] = np.array(self.identity)
        write_npz(path, **arrays, features_sum=sum_of(arrays))
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _known(self, part: str, folder: Path) -> NDArray[np.float32] | None:
        """The features of the same images in another file, as CIFAR-10's training images in those of its noises."""
        wanted = {"images": self.images[part], **json.loads(json.dumps(self.machine))}
        for file in sorted(folder.glob(f"*_{self.network.name}_{self.size}.npz")):
            made = json.loads(made_from(file, file_digest(file)) or "{}")
            if made and wanted == {"images": made["images"][part], **{key: made.get(key) for key in self.machine}}:
                with np.load(file, allow_pickle=False) as found:
                    return found[f"x_{part}"]
        return None

    def _chunks(self, path: Path, part: str) -> Path:
        """Where the chunks of a part lie: named by images and network, so that no others are taken for them."""
        key = sum_of({"of": np.array(json.dumps([self.images[part], self.machine, CHUNK]))})
        return path.with_name(f".{path.stem}.{part}-{key[:16]}")

    def _features(self, x: NDArray[np.uint8], folder: Path, bar: tqdm) -> NDArray[np.float32]:
        found = []
        for start in range(0, len(x), CHUNK):
            images, file = x[start : start + CHUNK], folder / f"{start:07d}.npy"
            features = _finished(file, len(images))
            if features is None:
                features = features_of(images, self.network, self.size)
                replace_file(file, partial(np.save, arr=features))
            found.append(features)
            bar.update(len(images))
        return np.concatenate(found)


def features_of(images: NDArray[np.uint8], network: Pretrained, size: int) -> NDArray[np.float32]:
    """Return the features (n, D) of (n, 1 or 3, H, W) images, resized to size x size pixels.

    Raises:
        ValueError: the network gives no vector of finite values for an image.
    """
    passes = range(0, len(images), PASS)
    found = [network(torch.from_numpy(resized(images[i : i + PASS], size))) for i in passes]
    features = torch.cat(found).float().numpy()
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(
            f"the network {network.name} gives shape {features.shape[1:]} for an image, not (D,), or values that are "
            "missing or infinite"
        )
    return features


def _finished(file: Path, n: int) -> NDArray[np.float32] | None:
    """The features of a chunk, if it was written whole; None to make them."""
    try:
        features = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = features.dtype == np.float32 and features.ndim == 2 and len(features) == n and np.isfinite(features).all()
    return features if whole else None


def resized(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(n, 3, size, size) of (n, 1 or 3, H, W)."""
    if images.shape[1] == 1:
        images = images.repeat(3, axis=1)
    pictures = (Image.fromarray(image) for image in np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
    made = [np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC)) for picture in pictures]
    return np.ascontiguousarray(np.stack(made).transpose(0, 3, 1, 2))
