"""Data sets by name, their small and long-tailed variants, and splits that a seed fixes.

A split depends on the data set, the seed and the regime only, never on the loss or the model: runs that differ in
the loss alone see the same training, validation and test samples, so their results can be compared in pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Splits", "class_capacity", "dataset_names", "load_splits", "long_tail_counts"]

TEST_FRACTION = 0.30
VALIDATION_FRACTION = 0.15


@dataclass(frozen=True)
class Splits:
    """One paired train / validation / test split.

    Attributes:
        x_train: (n, D) float64 features, in [0, 1] for images.
        y_train: (n,) int64 labels 0..K-1.
        x_val: as `x_train`, the validation samples.
        y_val: as `y_train`.
        x_test: as `x_train`, the test samples, never used for any choice.
        y_test: as `y_train`.
        class_names: the K names.

    Example:
        >>> load_splits("digits", seed=0, n_per_class=10).x_train.shape
        (100, 64)
    """

    x_train: NDArray[np.float64]
    y_train: NDArray[np.int64]
    x_val: NDArray[np.float64]
    y_val: NDArray[np.int64]
    x_test: NDArray[np.float64]
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """(K,) training samples of each class."""
        return np.bincount(self.y_train, minlength=len(self.class_names))


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


def load_splits(name: str, seed: int, n_per_class: int | None = None, rho: float = 1.0) -> Splits:
    """Load a data set and cut it into stratified train, validation and test samples.

    The seed permutes each class; the first samples become the test set, the next ones the validation set, and the
    training set takes its samples from the rest. A smaller `n_per_class` takes a subset of what a larger one takes.

    Args:
        name: one of :func:`dataset_names`.
        seed: fixes the split.
        n_per_class: training samples of each class (of the head class when `rho` > 1); None takes as many as every
            class has.
        rho: imbalance ratio of the training set; validation and test stay as the data set is.

    Returns:
        A :class:`Splits`.

    Raises:
        ValueError: unknown name, `n_per_class` outside 1..capacity, `rho` < 1.

    Example:
        >>> load_splits("digits", seed=0, n_per_class=50, rho=10).class_counts.tolist()
        [50, 39, 30, 23, 18, 14, 11, 8, 6, 5]
    """
    x, y, class_names = _load(name)
    capacity = class_capacity(name)
    n_max = capacity if n_per_class is None else n_per_class
    if not 1 <= n_max <= capacity:
        raise ValueError(
            f"n_per_class must lie in 1..{capacity} for {name!r} after its test and validation samples are set aside, "
            f"but got {n_per_class}. Use n_per_class={min(max(n_max, 1), capacity)}."
        )
    counts = long_tail_counts(n_max, rho, len(class_names))
    rng = np.random.default_rng([seed, 0])
    parts: tuple[list, list, list] = ([], [], [])
    for k, n_train in enumerate(counts):
        rows = rng.permutation(np.flatnonzero(y == k))
        n_test, n_val = _held_out(len(rows))
        test, val, rest = np.split(rows, [n_test, n_test + n_val])
        for part, chosen in zip(parts, (rest[:n_train], val, test), strict=True):
            part.append(chosen)
    train, val, test = (np.concatenate(part) for part in parts)
    return Splits(x[train], y[train], x[val], y[val], x[test], y[test], class_names)


def class_capacity(name: str) -> int:
    """Return how many training samples every class of a data set can give.

    Args:
        name: one of :func:`dataset_names`.

    Returns:
        The capacity of the smallest class.

    Raises:
        ValueError: unknown name.

    Example:
        >>> class_capacity("digits")
        96
    """
    _, y, _ = _load(name)
    return int(min(n - sum(_held_out(n)) for n in np.bincount(y)))


def dataset_names() -> tuple[str, ...]:
    """Return the names :func:`load_splits` knows.

    Example:
        >>> "digits" in dataset_names()
        True
    """
    return tuple(_DATASETS)


def _held_out(n: int) -> tuple[int, int]:
    """Test and validation samples of a class with n samples."""
    return round(TEST_FRACTION * n), round(VALIDATION_FRACTION * n)


@lru_cache(maxsize=4)
def _load(name: str) -> tuple[NDArray[np.float64], NDArray[np.int64], tuple[str, ...]]:
    if name not in _DATASETS:
        raise ValueError(f"unknown dataset {name!r}. The data sets are: {', '.join(_DATASETS)}.")
    return _DATASETS[name]()


def _digits() -> tuple[NDArray[np.float64], NDArray[np.int64], tuple[str, ...]]:
    """1,797 handwritten digits, 8 x 8 pixels with values 0..16, inside scikit-learn: nothing to download."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.data / 16.0, bunch.target.astype(np.int64), tuple(str(name) for name in bunch.target_names)


_DATASETS: dict[str, Callable[[], tuple[NDArray[np.float64], NDArray[np.int64], tuple[str, ...]]]] = {
    "digits": _digits,
}
