"""Data sets by name, their small, long-tailed and noisy variants, and splits that a seed fixes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gence.lab.data.arrays import Part
from gence.lab.data.files import read_part
from gence.lab.data.info import INFO, DatasetInfo, how_to_bring
from gence.lab.data.readers import READERS
from gence.lab.storage import data_folder
from gence.words import nearest

__all__ = [
    "Selection",
    "Splits",
    "class_capacity",
    "dataset_info",
    "dataset_names",
    "image_names",
    "load_splits",
    "long_tail_counts",
]


@dataclass(frozen=True)
class Selection:
    """Samples as rows of a pool that all seeds share; called, it gives them as an array of their own.

    Attributes:
        pool: (N, ...) samples that may not be written.
        rows: (n,) which of them, in order.
        shift: (D,) is subtracted from features; None leaves them.
        scale: (D,) divides them then.

    Example:
        >>> Selection(np.array([[1.0], [2.0], [4.0]]), np.array([2, 0]), np.array([1.0]), np.array([2.0]))().tolist()
        [[1.5], [0.0]]
    """

    pool: NDArray
    rows: NDArray[np.int64]
    shift: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None

    def __call__(self) -> NDArray:
        """The samples, (n, ...)."""
        x = self.pool[self.rows]
        return x if self.shift is None else (x - self.shift) / self.scale


class _Samples:
    """A field of :class:`Splits` that holds an array, or a selection that becomes one when somebody asks for it.

    20 seeds of 50,000 images with 1,280 features would be 10 GB as arrays; as selections they are one pool.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, splits: Any, owner: type) -> NDArray:
        if splits is None:
            raise AttributeError(self.name)  # a field without a default
        found = splits.__dict__[self.name]
        if isinstance(found, Selection):
            found = splits.__dict__[self.name] = found()
        return found

    def __set__(self, splits: Any, value: NDArray | Selection) -> None:
        splits.__dict__[self.name] = value


@dataclass(frozen=True)
class Splits:
    """One paired train / validation / test split.

    Attributes:
        x_train: images as (n, C, H, W) uint8, or features as (n, D) float64.
        y_train: (n,) int64 labels 0..K-1.
        x_val: as `x_train`, the validation samples.
        y_val: as `y_train`.
        x_test: as `x_train`, the test samples, never used for any choice.
        y_test: as `y_train`.
        class_names: the K names.
        mean: of the pixels in [0, 1], one for each channel; empty for features. The same for every seed and regime.
        std: as `mean`, the standard deviation.

    Example:
        >>> splits = load_splits("digits", seed=0, n_per_class=10)
        >>> splits.x_train.shape, splits.input_shape, splits.is_image
        ((100, 64), (64,), False)
    """

    x_train: NDArray = _Samples()
    y_train: NDArray[np.int64]
    x_val: NDArray = _Samples()
    y_val: NDArray[np.int64]
    x_test: NDArray = _Samples()
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """(K,) training samples of each class, as labelled."""
        return np.bincount(self.y_train, minlength=len(self.class_names))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (C, H, W) of an image, (D,) of features."""
        return tuple(int(n) for n in self.selection("train").pool.shape[1:])

    @property
    def is_image(self) -> bool:
        """Whether the samples are uint8 images."""
        return self.selection("train").pool.ndim == 4

    def selection(self, part: str) -> Selection:
        """Return the samples of ``"train"``, ``"val"`` or ``"test"`` as rows of a pool, without a copy."""
        found = self.__dict__[f"x_{part}"]
        return found if isinstance(found, Selection) else Selection(found, np.arange(len(found)))


def dataset_names() -> tuple[str, ...]:
    """Return the names :func:`load_splits` knows: the built-in ones and those of the .npz files in the data folder.

    A built-in name is listed whether or not its files are there.

    Example:
        >>> dataset_names()[:2]
        ('digits', 'cifar100_features')
    """
    own = (path.stem for path in sorted(data_folder().glob("*.npz")))
    return (*READERS, *(name for name in own if name not in INFO))


def image_names() -> list[str]:
    """Return the names of the built-in data sets of images.

    Example:
        >>> image_names()[0]
        'cifar10'
    """
    return [name for name in READERS if len(INFO[name].shape) == 3]


def dataset_info(name: str) -> DatasetInfo:
    """Return what is known about a data set, for example for a table of data sets.

    Args:
        name: one of :func:`dataset_names`, or ``"cifar10_c"`` (see :func:`cifar10_c`).

    Returns:
        The :class:`DatasetInfo`; that of the user's own file is read from it.

    Raises:
        ValueError: unknown name; a file of the user that cannot be used.

    Example:
        >>> dataset_info("svhn").source
        'netzer2011reading'
    """
    if name in INFO:
        return INFO[name]
    if name not in dataset_names():
        known = dataset_names()
        raise ValueError(
            f"unknown dataset {name!r}{nearest(name, known)} The data sets are: {', '.join(known)}. "
            f"{how_to_bring(name)}"
        )
    train, test = read_part(name, "train"), read_part(name, "test")
    return DatasetInfo(
        name,
        f"own data ({name}.npz)",
        n_train=len(train.y),
        n_test=len(test.y),
        shape=train.x.shape[1:],
        n_classes=len(train.class_names),
        smallest_class=int(np.bincount(train.y).min()),
        source="",
        licence="the user's own",
        files=(f"{name}.npz",),
        standardise=train.x.ndim == 2,
    )


def long_tail_counts(n_max: int, rho: float, n_classes: int) -> NDArray[np.int64]:
    """Class counts of an exponential long tail: n_max * rho^(-k / (K-1)), rounded half up, at least 1.

    Args:
        n_max: samples of the head class (class 0).
        rho: imbalance ratio, head count over tail count, >= 1; 1 is balanced.
        n_classes: K.

    Returns:
        (K,) counts, falling with the class index. When ``n_max < rho`` the tail is cut at 1, so the ratio that is
        realised, ``counts[0] / counts[-1]``, is smaller than `rho`.

    Raises:
        ValueError: `n_max` < 1, `rho` < 1 or `n_classes` < 1.

    Source: Cui et al. (2019); the paper's n_k = 5000 rho^(-k/9).

    Example:
        >>> long_tail_counts(100, 50, 3).tolist()
        [100, 14, 2]
    """
    if n_max < 1 or n_classes < 1:
        raise ValueError(f"n_max and n_classes must be at least 1, but got n_max={n_max}, n_classes={n_classes}")
    if not rho >= 1:
        raise ValueError(f"rho must be >= 1 (1 is balanced), but got {rho}")
    exponent = np.arange(n_classes) / max(n_classes - 1, 1)
    return np.maximum(np.floor(n_max * rho**-exponent + 0.5), 1).astype(np.int64)


def load_splits(
    name: str,
    seed: int,
    n_per_class: int | None = None,
    rho: float = 1.0,
    *,
    fraction: float | None = None,
    label_noise: float = 0.0,
) -> Splits:
    """Load a data set and cut it into train, validation and test samples.

    The seed permutes the samples to learn from, class by class. First the validation set is taken out, the same share
    of each class (10 %: 5,000 images of CIFAR); the training set takes its samples from the rest. So a smaller
    training set is a subset of a larger one, and validation and test set do not depend on the regime. An official test
    set is the test set for every seed; where there is none (digits, av1451) the seed draws one, before the validation
    set. All scans of one subject (av1451) fall into the same part.

    With neither `n_per_class` nor `rho` the training set is all that is left; of digits, the same number of each class.

    A long tail is cut *after* the validation set is taken out: its head class has ``class_capacity(name)`` samples
    unless `n_per_class` says fewer, for CIFAR-10 n_k = 4500 rho^(-k/9). The paper keeps 5,000 images of the head class
    and also holds 5,000 of the same 50,000 images out, which cannot both be; this is the reading that never lets a
    validation image into training. The validation set stays balanced, class 0 is the head, counts are rounded half up.

    Args:
        name: one of :func:`dataset_names`.
        seed: fixes the split.
        n_per_class: training samples of each class (of the head class when `rho` > 1).
        rho: imbalance ratio of the training set; validation and test stay as the data set is.
        fraction: share of the training set that is kept, the same of each class, at least one sample; not together
            with `n_per_class`.
        label_noise: share of the training labels that are replaced, each by one of the other classes with equal
            probability (symmetric noise). Validation and test labels stay clean.

    Returns:
        A :class:`Splits`.

    Raises:
        ValueError: unknown name, `n_per_class` outside 1..capacity, `rho` < 1, `fraction` outside (0, 1],
            `label_noise` outside [0, 1); a file that is damaged or holds something else.
        FileNotFoundError: the files are not in the data folder; the message says how to get them.

    Source: Cui et al. (2019) and the paper's appendix for long tails; Zhang and Sabuncu (2018) for symmetric noise.

    Example:
        >>> load_splits("digits", seed=0, n_per_class=50, rho=10).class_counts.tolist()
        [50, 39, 30, 23, 18, 14, 11, 8, 6, 5]
        >>> load_splits("digits", seed=0, fraction=0.25).class_counts.tolist() == [24] * 10
        True
    """
    _check_regime(n_per_class, rho, fraction, label_noise)
    info, pool = dataset_info(name), read_part(name, "train")
    sizes = np.bincount(pool.y)
    held_out = np.array([_held_out(n, info.held_out) for n in sizes])
    counts = _training_counts(info, sizes - held_out.sum(1), n_per_class, rho, fraction)
    cut = _cut_classes if pool.subjects is None else _cut_subjects
    rows = cut(pool, held_out, np.random.default_rng([seed, 0]))
    test, val = (np.concatenate([members[p] for members in rows]) for p in (0, 1))
    train = np.concatenate([members[2][:n] for members, n in zip(rows, counts, strict=True)])
    scaling = _scaling(pool.x[train]) if info.standardise else (None, None)
    x_test, y_test = (pool.x, pool.y[test])
    if info.official_test:
        x_test, y_test = _official_test(name, pool)
        test = np.arange(len(y_test))
    x = (Selection(*chosen, *scaling) for chosen in ((pool.x, train), (pool.x, val), (x_test, test)))
    y_train = _replace_labels(pool.y[train], label_noise, len(sizes), np.random.default_rng([seed, 1]))
    x_train, x_val, x_test = x
    return Splits(x_train, y_train, x_val, pool.y[val], x_test, y_test, pool.class_names, pool.mean, pool.std)


def class_capacity(name: str) -> int:
    """Return how many training samples every class of a data set can give.

    Args:
        name: one of :func:`dataset_names`.

    Returns:
        The capacity of the smallest class; as published, where the files of a built-in data set are not there.

    Raises:
        ValueError: unknown name; a file that is damaged or holds something else.
        FileNotFoundError: the user's table of av1451 is not there; its size is not known in advance.

    Example:
        >>> class_capacity("digits"), class_capacity("fashion_mnist")
        (96, 5400)
    """
    info = dataset_info(name)
    try:
        sizes = np.bincount(read_part(name, "train").y)
    except FileNotFoundError:
        if not info.smallest_class:
            raise
        sizes = np.array([info.smallest_class])
    return int(min(n - sum(_held_out(n, info.held_out)) for n in sizes))


def _check_regime(n_per_class: int | None, rho: float, fraction: float | None, label_noise: float) -> None:
    if not rho >= 1:
        raise ValueError(f"rho must be >= 1 (1 is balanced), but got {rho}")
    if fraction is not None and not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1], but got {fraction}. Use None or 1 for the whole training set.")
    if fraction is not None and n_per_class is not None:
        raise ValueError(f"give n_per_class={n_per_class} or fraction={fraction}, not both")
    if not 0 <= label_noise < 1:
        raise ValueError(f"label_noise must lie in [0, 1), but got {label_noise}. Use 0 for clean labels.")


def _training_counts(
    info: DatasetInfo, available: NDArray[np.int64], n_per_class: int | None, rho: float, fraction: float | None
) -> NDArray[np.int64]:
    """(K,) training samples of each class."""
    capacity = int(available.min())
    if n_per_class is not None and not 1 <= n_per_class <= capacity:
        raise ValueError(
            f"n_per_class must lie in 1..{capacity} for {info.name!r} after its test and validation samples are set "
            f"aside, but got {n_per_class}. Use n_per_class={min(max(n_per_class, 1), capacity)}."
        )
    counts = available
    if n_per_class is not None or rho > 1 or info.balanced:
        counts = long_tail_counts(n_per_class or capacity, rho, len(available))
    return counts if fraction is None else np.maximum(np.floor(fraction * counts + 0.5), 1).astype(np.int64)


def _held_out(n: int, shares: tuple[float, float]) -> tuple[int, int]:
    """Test and validation samples of a class with n samples; at least one for validation."""
    return round(shares[0] * n), max(round(shares[1] * n), 1)


def _cut_classes(pool: Part, held_out: NDArray[np.int64], rng: np.random.Generator) -> list[list[NDArray]]:
    """Rows of test, validation and training samples, class by class."""
    members = (rng.permutation(np.flatnonzero(pool.y == k)) for k in range(len(held_out)))
    return [np.split(rows, np.cumsum(taken)) for rows, taken in zip(members, held_out, strict=True)]


def _cut_subjects(pool: Part, held_out: NDArray[np.int64], rng: np.random.Generator) -> list[list[NDArray]]:
    """As :func:`_cut_classes`, but all scans of a subject go into one part.

    Subjects come in random order; each goes into the test, or else the validation set, if that still lacks at least
    as many scans of each class as the subject has. So no class gets more than its share there, and it gets just its
    share when enough subjects have a single scan. The training set takes its own share of what is left.
    """
    _, subject = np.unique(pool.subjects, return_inverse=True)
    scans = np.zeros((subject.max() + 1, len(held_out)), dtype=np.int64)
    np.add.at(scans, (subject, pool.y), 1)
    lacking, part = held_out.T.copy(), np.full(len(scans), 2)
    for s in rng.permutation(len(scans)):
        part[s] = next((p for p in (0, 1) if (scans[s] <= lacking[p]).all()), 2)
        if part[s] < 2:
            lacking[part[s]] -= scans[s]
    members = [rng.permutation(np.flatnonzero(pool.y == k)) for k in range(len(held_out))]
    return [[rows[part[subject[rows]] == p] for p in range(3)] for rows in members]


def _replace_labels(y: NDArray[np.int64], share: float, n_classes: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Replace a share of the labels by another class; a larger share replaces the same ones and more."""
    n = int(np.floor(share * len(y) + 0.5))
    rows, steps = rng.permutation(len(y))[:n], rng.integers(1, n_classes, size=len(y))[:n]
    noisy = y.copy()
    noisy[rows] = (y[rows] + steps) % n_classes
    return noisy


def _official_test(name: str, pool: Part) -> tuple[NDArray, NDArray[np.int64]]:
    test = read_part(name, "test")
    if test.x.shape[1:] != pool.x.shape[1:]:
        raise ValueError(f"{name!r}: training samples have shape {pool.x.shape[1:]}, test samples {test.x.shape[1:]}")
    return test.x, test.y.copy()


def _scaling(x: NDArray) -> tuple[NDArray, NDArray]:
    """What brings each feature of the training samples to mean 0 and deviation 1; constant ones only to 0."""
    shift, scale = x.mean(0), x.std(0)
    scale[np.ptp(x, axis=0) == 0] = 1.0
    return shift, scale
