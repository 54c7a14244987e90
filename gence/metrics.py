"""How good are predicted probabilities: error, proper scores, calibration errors and reliability curves.

Every function takes probabilities of shape (N, K) and labels of shape (N,), as tensors or arrays, computes in
float64 and returns a plain float. Bins are right-closed, (lo, hi], and the first one also holds 0, so no sample
is ever lost; ties always share a bin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "METRICS",
    "ReliabilityCurve",
    "adaptive_calibration_error",
    "brier_score",
    "classwise_calibration_error",
    "error_rate",
    "evaluate",
    "expected_calibration_error",
    "negative_log_likelihood",
    "reliability_curve",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def error_rate(probs: ArrayLike, labels: ArrayLike) -> float:
    """Share of samples whose most probable class is not the label (ties go to the lower class index).

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: as all functions here, for inputs that are not probabilities and labels.

    Example:
        >>> error_rate([[0.9, 0.1], [0.8, 0.2]], [0, 1])
        0.5
    """
    p, y = _checked(probs, labels)
    return float(np.mean(p.argmax(1) != y))


def negative_log_likelihood(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log p_y in nats; infinite when a label was given probability 0.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.

    Returns:
        Nats per sample, >= 0.

    Raises:
        ValueError: inputs that are not probabilities and labels.

    Example:
        >>> round(negative_log_likelihood([[0.5, 0.5]], [1]), 4)
        0.6931
    """
    p, y = _checked(probs, labels)
    with np.errstate(divide="ignore"):
        return float(-np.log(p[np.arange(len(y)), y]).mean())


def brier_score(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean over the samples of sum_k (p_k - 1[y = k])^2, between 0 and 2.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.

    Returns:
        The score, no unit.

    Raises:
        ValueError: inputs that are not probabilities and labels.

    Source: Brier (1950), multi-class form.

    Example:
        >>> brier_score([[0.5, 0.5]], [1])
        0.5
    """
    p, y = _checked(probs, labels)
    return float(np.mean((p**2).sum(1) - 2 * p[np.arange(len(y)), y] + 1))


def expected_calibration_error(probs: ArrayLike, labels: ArrayLike, n_bins: int = 15) -> float:
    """ECE: the gap between confidence and accuracy in equal-width bins of the top confidence.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        n_bins: number of bins on [0, 1].

    Returns:
        A fraction in [0, 1]. A perfectly calibrated model does not measure 0 but a noise floor that falls with N.

    Raises:
        ValueError: inputs that are not probabilities and labels, `n_bins` < 1.

    Source: Naeini et al. (2015); paper eq. (1).

    Example:
        >>> round(expected_calibration_error([[0.95, 0.05], [1.0, 0.0], [0.4, 0.6]], [0, 1, 0], n_bins=10), 4)
        0.5167
    """
    confidence, correct = _top(probs, labels)
    return _gap(confidence - correct, _equal_width_bin(confidence, n_bins), n_bins)


def adaptive_calibration_error(probs: ArrayLike, labels: ArrayLike, n_bins: int = 15) -> float:
    """AdaECE: as ECE, in bins of equal mass; samples of equal confidence share a bin.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        n_bins: number of bins.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: inputs that are not probabilities and labels, `n_bins` < 1.

    Source: Nguyen and O'Connor (2015).

    Example:
        >>> p = [[c, 1 - c] for c in (0.6, 0.7, 0.8, 0.9)]
        >>> round(adaptive_calibration_error(p, [0, 1, 0, 0], n_bins=2), 4)  # (|.65 - .5| + |.85 - 1|) / 2
        0.15
    """
    confidence, correct = _top(probs, labels)
    return _gap(confidence - correct, _equal_mass_bin(confidence, n_bins), n_bins)


def classwise_calibration_error(probs: ArrayLike, labels: ArrayLike, n_bins: int = 15) -> float:
    """ClasswiseECE: the ECE of each class's own probability against "is it this class", averaged over all K.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices; classes without a sample count too.
        n_bins: number of equal-width bins on [0, 1].

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: inputs that are not probabilities and labels, `n_bins` < 1.

    Source: Kull et al. (2019).

    Example:
        >>> classwise_calibration_error([[0.5, 0.5], [0.5, 0.5]], [0, 1])
        0.0
    """
    p, y = _checked(probs, labels)
    n_classes = p.shape[1]
    gap = p.copy()
    gap[np.arange(len(y)), y] -= 1
    bins = _equal_width_bin(p, n_bins) + n_bins * np.arange(n_classes)
    return _gap(gap.ravel(), bins.ravel(), n_bins * n_classes)


@dataclass(frozen=True)
class ReliabilityCurve:
    """Confidence against accuracy, bin by bin; bins without samples hold NaN.

    Attributes:
        lower: (B,) left ends of the bins (open, but the first bin also holds its left end).
        upper: (B,) right ends (closed).
        count: (B,) samples in each bin.
        confidence: (B,) mean confidence.
        accuracy: (B,) share of correct samples.

    Example:
        >>> reliability_curve([[0.9, 0.1]], [0], n_bins=2).count.tolist()
        [0, 1]
    """

    lower: Floats
    upper: Floats
    count: Ints
    confidence: Floats
    accuracy: Floats

    @property
    def expected_calibration_error(self) -> float:
        """The calibration error of exactly these bins, a fraction."""
        filled = self.count > 0
        gap = np.abs(self.confidence - self.accuracy)[filled]
        return float((gap * self.count[filled]).sum() / self.count.sum())


def reliability_curve(
    probs: ArrayLike, labels: ArrayLike, n_bins: int = 15, *, strategy: str = "uniform"
) -> ReliabilityCurve:
    """Mean confidence and accuracy of each bin of the top confidence.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        n_bins: number of bins.
        strategy: ``"uniform"`` for equal-width bins (those of ECE), ``"quantile"`` for equal mass (AdaECE).

    Returns:
        A :class:`ReliabilityCurve`.

    Raises:
        ValueError: bad inputs, an unknown `strategy`.

    Source: DeGroot and Fienberg (1983); the names of the strategies are scikit-learn's.

    Example:
        >>> curve = reliability_curve([[0.9, 0.1], [0.8, 0.2]], [0, 1], n_bins=1)
        >>> round(float(curve.confidence[0]), 2), float(curve.accuracy[0])
        (0.85, 0.5)
    """
    confidence, correct = _top(probs, labels)
    if strategy == "uniform":
        edges, bins = _equal_width_edges(n_bins), _equal_width_bin(confidence, n_bins)
    elif strategy == "quantile":
        bins = _equal_mass_bin(confidence, n_bins)
        edges = np.concatenate([[confidence.min()], _equal_mass_upper_edges(confidence, n_bins), [confidence.max()]])
    else:
        raise ValueError(f"strategy must be 'uniform' or 'quantile', but got {strategy!r}")
    count = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        mean = [np.bincount(bins, weights=v, minlength=n_bins) / count for v in (confidence, correct)]
    return ReliabilityCurve(edges[:-1], edges[1:], count, *mean)


METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "error": error_rate,
    "nll": negative_log_likelihood,
    "brier": brier_score,
    "ece": expected_calibration_error,
    "adaece": adaptive_calibration_error,
    "classwise_ece": classwise_calibration_error,
}


def evaluate(probs: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Return every metric of :data:`METRICS` at its default options.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.

    Returns:
        Name to value: fractions, the NLL in nats.

    Raises:
        ValueError: inputs that are not probabilities and labels.

    Example:
        >>> sorted(evaluate([[0.5, 0.5]], [0]))
        ['adaece', 'brier', 'classwise_ece', 'ece', 'error', 'nll']
    """
    return {name: metric(probs, labels) for name, metric in METRICS.items()}


def _equal_width_bin(values: Floats, n_bins: int) -> Ints:
    return np.searchsorted(_equal_width_edges(n_bins)[1:-1], values, side="left")


def _equal_width_edges(n_bins: int) -> Floats:
    """k / B exactly rounded, which np.linspace is not for every B."""
    _check_bins(n_bins)
    return np.arange(n_bins + 1) / n_bins


def _equal_mass_upper_edges(values: Floats, n_bins: int) -> Floats:
    """The inner right ends: the largest value among the first j N / B of the sorted values, for j = 1..B-1."""
    ranks = np.round(np.arange(1, n_bins) * len(values) / n_bins).astype(int)
    return np.sort(values)[np.maximum(ranks, 1) - 1]


def _equal_mass_bin(values: Floats, n_bins: int) -> Ints:
    _check_bins(n_bins)
    return np.searchsorted(_equal_mass_upper_edges(values, n_bins), values, side="left")


def _gap(confidence_minus_correct: Floats, bins: Ints, n_bins: int) -> float:
    """sum_b |sum_{i in b} (confidence - correct)| / N, which is the count-weighted mean gap of the bins."""
    sums = np.bincount(bins, weights=confidence_minus_correct, minlength=n_bins)
    return float(np.abs(sums).sum() / len(confidence_minus_correct))


def _top(probs: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """Confidence of the most probable class, and 1.0 where it is the label."""
    p, y = _checked(probs, labels)
    return p.max(1), (p.argmax(1) == y).astype(np.float64)


def _check_bins(n_bins: int) -> None:
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, but got {n_bins}")


def _checked(probs: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints]:
    """Return float64 probabilities and int64 labels, or say what is wrong with them."""
    p, y = _to_numpy(probs), _to_numpy(labels)
    if p.ndim != 2 or 0 in p.shape:
        raise ValueError(f"probs must have shape (N, K) with N, K >= 1, but got {p.shape}")
    if y.shape != (len(p),):
        raise ValueError(f"labels must have shape ({len(p)},) to match probs {p.shape}, but got {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels must be integer class indices, but their dtype is {y.dtype}")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels must lie in 0..{p.shape[1] - 1}, but range from {y.min()} to {y.max()}")
    # Probabilities that were computed in float16 or float32 sum to 1 only up to their own rounding.
    tolerance = 1e-2 if _precision(probs) <= 2 else 1e-4
    p = p.astype(np.float64)
    if not np.isfinite(p).all():
        raise ValueError("probs contain NaN or infinite values")
    if p.min() < 0 or p.max() > 1 + tolerance or np.abs(p.sum(1) - 1).max() > tolerance:
        raise ValueError(
            f"probs must be rows that lie in [0, 1] and sum to 1, but values range from {p.min():.4g} to "
            f"{p.max():.4g} and rows sum to {p.sum(1).min():.4g}..{p.sum(1).max():.4g}. Logits? Apply softmax(dim=1)."
        )
    return np.minimum(p, 1.0), y.astype(np.int64)


def _precision(values: ArrayLike) -> int:
    """Bytes of one number."""
    return values.element_size() if hasattr(values, "element_size") else np.asarray(values).itemsize


def _to_numpy(values: ArrayLike) -> NDArray:
    if hasattr(values, "detach"):  # a tensor, on any device; numpy knows no bfloat16
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)
