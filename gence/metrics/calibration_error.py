"""Calibration errors and reliability diagrams."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats

from gence.metrics._input import BLOCK, Floats, Ints, check_bins, checked_as_they_are, float32_top, is_compat, top_class

__all__ = [
    "ReliabilityCurve",
    "adaptive_calibration_error",
    "classwise_calibration_error",
    "debiased_calibration_error",
    "expected_calibration_error",
    "kolmogorov_smirnov_error",
    "maximum_calibration_error",
    "reliability_curve",
]


def expected_calibration_error(
    probs: ArrayLike,
    labels: ArrayLike,
    n_bins: int = 15,
    *,
    compat: str | None = None,
    ignore_index: int | None = None,
) -> float:
    """ECE: the gap between confidence and accuracy in equal-width bins of the top confidence.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        n_bins: number of bins on [0, 1].
        compat: None, or ``"focal_calibration"``.
        ignore_index: label of the samples to leave out; None keeps all.

    Returns:
        A fraction in [0, 1]. A perfectly calibrated model does not measure 0 but a noise floor that falls with N.

    Raises:
        ValueError: inputs that are not probabilities and labels, `n_bins` out of range.

    Source: Naeini et al. (2015); paper eq. (1).

    Example:
        >>> round(expected_calibration_error([[0.95, 0.05], [1.0, 0.0], [0.4, 0.6]], [0, 1, 0], n_bins=10), 4)
        0.5167
    """
    check_bins(n_bins)
    if is_compat(compat):
        confidence, correct = float32_top(probs, labels, ignore_index)
        return _focal_calibration_error(confidence, correct, torch.linspace(0, 1, n_bins + 1))
    confidence, correct = top_class(probs, labels, ignore_index)
    return _gap(confidence - correct, _equal_width_bin(confidence, n_bins), n_bins)


def adaptive_calibration_error(
    probs: ArrayLike,
    labels: ArrayLike,
    n_bins: int = 15,
    *,
    compat: str | None = None,
    ignore_index: int | None = None,
) -> float:
    """AdaECE: as ECE, in bins of equal mass; samples of equal confidence share a bin.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        n_bins: number of bins.
        compat: None, or ``"focal_calibration"``.
        ignore_index: label of the samples to leave out; None keeps all.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: inputs that are not probabilities and labels, `n_bins` out of range.

    Source: Nguyen and O'Connor (2015).

    Example:
        >>> p = [[c, 1 - c] for c in (0.6, 0.7, 0.8, 0.9)]
        >>> round(adaptive_calibration_error(p, [0, 1, 0, 0], n_bins=2), 4)  # (|.65 - .5| + |.85 - 1|) / 2
        0.15
    """
    check_bins(n_bins)
    if is_compat(compat):
        confidence, correct = float32_top(probs, labels, ignore_index)
        ranks = np.linspace(0, len(confidence), n_bins + 1)
        edges = np.interp(ranks, np.arange(len(confidence)), np.sort(confidence.numpy()))
        return _focal_calibration_error(confidence, correct, edges)
    confidence, correct = top_class(probs, labels, ignore_index)
    return _gap(confidence - correct, _equal_mass_bin(confidence, n_bins), n_bins)


def classwise_calibration_error(
    probs: ArrayLike,
    labels: ArrayLike,
    n_bins: int = 15,
    *,
    compat: str | None = None,
    ignore_index: int | None = None,
) -> float:
    """ClasswiseECE: the ECE of each class's own probability against "is it this class", averaged over all K.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices; classes without a sample count too.
        n_bins: number of equal-width bins on [0, 1].
        compat: None, or ``"focal_calibration"``.
        ignore_index: label of the samples to leave out; None keeps all.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: inputs that are not probabilities and labels, `n_bins` out of range.

    Source: Kull et al. (2019).

    Example:
        >>> classwise_calibration_error([[0.5, 0.5], [0.5, 0.5]], [0, 1])
        0.0
    """
    p, y = checked_as_they_are(probs, labels, ignore_index)
    check_bins(n_bins)
    if is_compat(compat):
        edges = torch.linspace(0, 1, n_bins + 1)
        p32, y32 = torch.as_tensor(p, dtype=torch.float32), torch.as_tensor(y)
        each = [_focal_calibration_error(p32[:, k], y32 == k, edges) for k in range(int(y.max()) + 1)]
        return float(torch.tensor(each, dtype=torch.float32).mean())
    n, n_classes = p.shape
    width = max(BLOCK // max(n, n_bins), n_classes // 64, 1)
    total = 0.0
    for first in range(0, n_classes, width):
        gap = p[:, first : first + width].astype(np.float64)
        bins = _equal_width_bin(gap, n_bins) + n_bins * np.arange(gap.shape[1])
        hit = np.flatnonzero((y >= first) & (y < first + width))
        gap[hit, y[hit] - first] -= 1
        total += _gap(gap.ravel(), bins.ravel(), n_bins * gap.shape[1]) * gap.shape[1]
    return total / n_classes


def maximum_calibration_error(
    probs: ArrayLike, labels: ArrayLike, n_bins: int = 15, *, ignore_index: int | None = None
) -> float:
    """MCE: the largest gap between confidence and accuracy of any bin of ECE that holds a sample.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        n_bins: number of equal-width bins on [0, 1].
        ignore_index: label of the samples to leave out; None keeps all.

    Returns:
        A fraction in [0, 1]; one sample in a bin of its own can decide it.

    Raises:
        ValueError: inputs that are not probabilities and labels, `n_bins` out of range.

    Source: Naeini et al. (2015).

    Example:
        >>> round(maximum_calibration_error([[0.9, 0.1], [0.7, 0.3]], [0, 1], n_bins=10), 4)
        0.7
    """
    curve = reliability_curve(probs, labels, n_bins, ignore_index=ignore_index)
    return float(np.nanmax(np.abs(curve.confidence - curve.accuracy)))


def kolmogorov_smirnov_error(probs: ArrayLike, labels: ArrayLike, *, ignore_index: int | None = None) -> float:
    """KS calibration error: the largest gap between the sums of confidence and of correctness, with no bins.

    The samples are sorted by confidence; the gap is looked at after each group of equal confidences.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        ignore_index: label of the samples to leave out; None keeps all.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: inputs that are not probabilities and labels.

    Source: Gupta et al. (2021).

    Example:
        >>> round(kolmogorov_smirnov_error([[0.9, 0.1], [0.7, 0.3]], [0, 1]), 4)
        0.35
    """
    confidence, correct = top_class(probs, labels, ignore_index)
    order = np.argsort(confidence, kind="stable")
    gap = np.cumsum((confidence - correct)[order])
    ends = np.append(np.diff(confidence[order]) > 0, True)
    return float(np.abs(gap[ends]).max() / len(gap))


def debiased_calibration_error(
    probs: ArrayLike,
    labels: ArrayLike,
    n_bins: int = 15,
    *,
    strategy: str = "quantile",
    ignore_index: int | None = None,
) -> float:
    """Root mean squared calibration error with the noise of the accuracies taken out.

    ``sum_b n_b/N [ (confidence_b - accuracy_b)^2 - accuracy_b (1 - accuracy_b) / (n_b - 1) ]``, unbiased for the
    squared error of the binned model; where it falls below 0 the result is 0. Bins of one sample say nothing about
    their noise and are left out.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        n_bins: number of bins.
        strategy: as in :func:`reliability_curve`.
        ignore_index: label of the samples to leave out; None keeps all.

    Returns:
        A fraction in [0, 1]; near 0 for a calibrated model, unlike ECE. It is an L2 error: not comparable with ECE.

    Raises:
        ValueError: bad inputs, an unknown `strategy`.

    Source: Kumar, Liang and Ma (2019), Definition 5.1.

    Example:
        >>> p = [[0.75, 0.25]] * 4
        >>> debiased_calibration_error(p, [0, 0, 0, 1], n_bins=1)
        0.0
    """
    curve = reliability_curve(probs, labels, n_bins, strategy=strategy, ignore_index=ignore_index)
    known = curve.count > 1
    n, accuracy = curve.count[known], curve.accuracy[known]
    noise = accuracy * (1 - accuracy) / (n - 1)
    square = ((curve.confidence[known] - accuracy) ** 2 - noise) @ n / max(n.sum(), 1)
    return float(np.sqrt(max(square, 0.0)))


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

    def accuracy_band(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Clopper-Pearson interval for the accuracy of each bin; NaN where a bin is empty."""
        right = np.round(self.accuracy * self.count)
        tail = (1 - level) / 2
        low = stats.beta.ppf(tail, right, self.count - right + 1)
        high = stats.beta.ppf(1 - tail, right + 1, self.count - right)
        return np.where(right == 0, 0.0, low), np.where(right == self.count, 1.0, high)

    def consistency_band(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Where the accuracy of each bin would lie if the model were calibrated; NaN where a bin is empty."""
        tail = (1 - level) / 2
        return tuple(stats.binom.ppf(q, self.count, self.confidence) / self.count for q in (tail, 1 - tail))

    @property
    def expected_calibration_error(self) -> float:
        """The calibration error of exactly these bins, a fraction."""
        filled = self.count > 0
        gap = np.abs(self.confidence - self.accuracy)[filled]
        return float((gap * self.count[filled]).sum() / self.count.sum())


def reliability_curve(
    probs: ArrayLike,
    labels: ArrayLike,
    n_bins: int = 15,
    *,
    strategy: str = "uniform",
    ignore_index: int | None = None,
) -> ReliabilityCurve:
    """Mean confidence and accuracy of each bin of the top confidence.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        n_bins: number of bins.
        strategy: ``"uniform"`` for equal-width bins (those of ECE), ``"quantile"`` for equal mass (AdaECE).
        ignore_index: label of the samples to leave out; None keeps all.

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
    confidence, correct = top_class(probs, labels, ignore_index)
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


def _equal_width_bin(values: Floats, n_bins: int) -> Ints:
    """The bin of values in [0, 1]: a product, put right where it was rounded across an edge (faster than a search)."""
    edges = _equal_width_edges(n_bins)
    bins = np.maximum(np.ceil(values * n_bins).astype(np.int64) - 1, 0)
    bins += values > edges[bins + 1]
    bins -= (values <= edges[bins]) & (bins > 0)
    return bins


def _equal_width_edges(n_bins: int) -> Floats:
    """k / B exactly rounded, which np.linspace is not for every B."""
    check_bins(n_bins)
    return np.arange(n_bins + 1) / n_bins


def _equal_mass_upper_edges(values: Floats, n_bins: int) -> Floats:
    """The inner right ends: the largest value among the first j N / B of the sorted values, for j = 1..B-1."""
    ranks = np.round(np.arange(1, n_bins) * len(values) / n_bins).astype(int)
    return np.sort(values)[np.maximum(ranks, 1) - 1]


def _equal_mass_bin(values: Floats, n_bins: int) -> Ints:
    check_bins(n_bins)
    return np.searchsorted(_equal_mass_upper_edges(values, n_bins), values, side="left")


def _gap(confidence_minus_correct: Floats, bins: Ints, n_bins: int) -> float:
    """sum_b |sum_{i in b} (confidence - correct)| / N, which is the count-weighted mean gap of the bins."""
    sums = np.bincount(bins, weights=confidence_minus_correct, minlength=n_bins)
    return float(np.abs(sums).sum() / len(confidence_minus_correct))


def _focal_calibration_error(confidence: torch.Tensor, correct: torch.Tensor, edges: torch.Tensor | Floats) -> float:
    """The sum over the bins (lo, hi] in float32, as in the reference code; what lies in no bin is lost."""
    total = torch.zeros(1)
    for low, high in itertools.pairwise(edges):
        inside = confidence.gt(float(low)) & confidence.le(float(high))
        if inside.any():
            gap = confidence[inside].mean() - correct[inside].float().mean()
            total += gap.abs() * inside.float().mean()
    return float(total)
