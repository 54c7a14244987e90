"""Test images of shifted and of foreign distributions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gence.lab.data.arrays import Part, checked
from gence.lab.data.files import own_file, read_part
from gence.lab.data.info import not_found
from gence.lab.data.regimes import dataset_info, image_names
from gence.lab.storage import data_folder
from gence.words import nearest

__all__ = ["CORRUPTIONS", "GENERATED", "add_gaussian_noise", "cifar10_c", "load_test_images"]

GENERATED = "generated_gaussian_noise"
# Published for gaussian_noise of CIFAR-10-C, severity 1 to 5, in units of pixels in [0, 1].
GAUSSIAN_NOISE_SIGMAS = (0.04, 0.06, 0.08, 0.09, 0.10)
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    *("speckle_noise", "gaussian_blur", "spatter", "saturate"),
    GENERATED,
)


def load_test_images(name: str, shape: tuple[int, int, int] | None = None) -> NDArray[np.uint8]:
    """Return only the test images of a data set, for example as foreign data for a model trained on another one.

    Args:
        name: a data set of images.
        shape: (C, H, W) that is wanted: grey images are repeated in 3 channels, colour becomes luma (ITU-R 601), and
            the size changes by Pillow's antialiased bilinear interpolation. None leaves the images as they are.

    Returns:
        (N, C, H, W) uint8.

    Raises:
        ValueError: not a data set of images; a shape with other than 1 or 3 channels.
        FileNotFoundError: as :func:`load_splits`.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> getfixture("monkeypatch").setenv("GENCE_DATA", str(folder))
        >>> x, y = np.zeros((4, 28, 28), dtype=np.uint8), [0, 1, 0, 1]
        >>> np.savez(folder / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        >>> load_test_images("mine", shape=(3, 32, 32)).shape
        (4, 3, 32, 32)
    """
    if len(dataset_info(name).shape) != 3:
        raise ValueError(f"{name!r} is no data set of images. Those are: {', '.join(image_names())}.")
    if shape is not None and (len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1):
        raise ValueError(f"shape must be (1 or 3, height, width), but got {shape}")
    x = read_part(name, "test").x
    if shape is None or x.shape[1:] == tuple(shape):
        return x.copy()
    channels, height, width = shape
    pictures = (Image.fromarray(one[0] if len(one) == 1 else one.transpose(1, 2, 0)) for one in x)
    mode = "L" if channels == 1 else "RGB"
    made = [np.asarray(p.convert(mode).resize((width, height), Image.Resampling.BILINEAR)) for p in pictures]
    return np.ascontiguousarray(np.stack(made).reshape(len(made), height, width, channels).transpose(0, 3, 1, 2))


def cifar10_c(corruption: str, severity: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the CIFAR-10 test images under one corruption at one severity, with their labels.

    Args:
        corruption: one of ``CORRUPTIONS``. All are published files, except ``"generated_gaussian_noise"``: made here
            from the clean test images, with the published deviations 0.04, 0.06, 0.08, 0.09, 0.10 of pixels in [0, 1]
            and a fixed seed. It has the distribution of ``"gaussian_noise"``, but its images are other ones.
        severity: 1 to 5.

    Returns:
        (N, 3, 32, 32) uint8 images and (N,) int64 labels; N is 10,000 in the published files.

    Raises:
        ValueError: unknown corruption or severity; files that do not hold five severities of labelled images.
        FileNotFoundError: ``CIFAR-10-C/<corruption>.npy`` or ``labels.npy`` is missing.

    Source: Hendrycks and Dietterich (2019).

    Example:
        >>> folder = getfixture("tmp_path")
        >>> getfixture("monkeypatch").setenv("GENCE_DATA", str(folder))
        >>> (folder / "CIFAR-10-C").mkdir()
        >>> np.save(folder / "CIFAR-10-C" / "fog.npy", np.zeros((5 * 2, 32, 32, 3), dtype=np.uint8))
        >>> np.save(folder / "CIFAR-10-C" / "labels.npy", np.tile([3, 8], 5))
        >>> images, labels = cifar10_c("fog", severity=3)
        >>> images.shape, labels.tolist()
        ((2, 3, 32, 32), [3, 8])
    """
    if corruption not in CORRUPTIONS:
        hint = nearest(corruption, CORRUPTIONS)
        raise ValueError(f"unknown corruption {corruption!r}{hint} The corruptions are: {', '.join(CORRUPTIONS)}.")
    if severity not in range(1, 6):
        raise ValueError(f"severity must be 1, 2, 3, 4 or 5, but got {severity!r}")
    own_file("cifar10_c")
    if corruption == GENERATED:
        clean = read_part("cifar10", "test")
        return add_gaussian_noise(clean.x, severity), clean.y.copy()
    folder = data_folder() / "CIFAR-10-C"
    paths = folder / f"{corruption}.npy", folder / "labels.npy"
    if not all(path.exists() for path in paths):
        raise not_found("cifar10_c")
    try:
        x, y = (np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{paths[0]} or labels.npy is damaged: {error}. Download it again.") from error
    if x.shape[1:] != (32, 32, 3) or len(x) != len(y) or len(y) % 5:
        raise ValueError(
            f"{paths[0]} has shape {x.shape} and labels.npy {y.shape}, but (5 n, 32, 32, 3) and (5 n,) are expected: "
            "n images at severity 1, then n at severity 2, and so on"
        )
    rows = slice((severity - 1) * len(y) // 5, severity * len(y) // 5)
    found = checked(Part(x[rows], y[rows], tuple("0123456789")), str(paths[0]), "test")
    return found.x, found.y


def add_gaussian_noise(x: NDArray[np.uint8], severity: int) -> NDArray[np.uint8]:
    """Return images with the noise of CIFAR-10-C, always the same at one severity and shape.

    Values are cut off, not rounded, as the published code does.

    Args:
        x: (N, C, H, W) images.
        severity: 1 to 5, for deviations of 0.04, 0.06, 0.08, 0.09, 0.10 of pixels in [0, 1].

    Example:
        >>> grey = np.full((1, 3, 32, 32), 128, dtype=np.uint8)
        >>> [round(float(add_gaussian_noise(grey, severity).std()) / 255, 2) for severity in (1, 5)]
        [0.04, 0.1]
    """
    # In blocks, because a float copy takes eight times the memory.
    rng, sigma = np.random.default_rng([10, severity]), GAUSSIAN_NOISE_SIGMAS[severity - 1]
    noisy = np.empty_like(x)
    for start in range(0, len(x), 1000):
        block = x[start : start + 1000] / 255.0
        noisy[start : start + 1000] = np.clip(block + rng.normal(scale=sigma, size=block.shape), 0, 1) * 255
    return noisy
