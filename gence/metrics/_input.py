"""How good are predicted probabilities: error, proper scores, calibration errors and reliability curves.

Every function takes probabilities of shape (N, K) and labels of shape (N,), as tensors or arrays, computes in
float64 and returns a plain float. Images, (N, K, d1, ...) with labels (N, d1, ...), count one sample for each position,
and samples whose label is ``ignore_index`` are left out before anything is checked. Rows may leave [0, 1] and the sum
1 by the rounding of the format that they were computed in, also if that was a 16-bit one; they are not renormalised.

Bins are right-closed, (lo, hi], and the first one also holds 0, so no sample is ever lost; ties always share a bin.
``compat="focal_calibration"`` gives the numbers of the code of Mukhoti et al. (2020) instead, on which most published
tables rest: float32, a confidence of exactly 0 lost, in AdaECE the smallest confidences lost, in ClasswiseECE the
classes above the largest label.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from sklearn.isotonic import isotonic_regression
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

__all__ = [
    "METRICS",
    "OOD_SCORES",
    "Decomposition",
    "ReliabilityCurve",
    "adaptive_calibration_error",
    "brier_score",
    "calibration_refinement",
    "classwise_calibration_error",
    "debiased_calibration_error",
    "error_rate",
    "evaluate",
    "expected_calibration_error",
    "kolmogorov_smirnov_error",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "ood_detection",
    "reliability_curve",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_BINS = 10**6
BLOCK = 2**19  # entries that are binned at a time: what they need beside them stays small


def error_rate(probs: ArrayLike, labels: ArrayLike, *, ignore_index: int | None = None) -> float:
    """Share of samples whose most probable class is not the label (ties go to the lower class index).

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        ignore_index: label of the samples to leave out; None keeps all.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: as all functions here, for inputs that are not probabilities and labels, or if no label is left.

    Example:
        >>> error_rate([[0.9, 0.1], [0.8, 0.2]], [0, 1])
        0.5
    """
    p, y = _checked(probs, labels, ignore_index)
    return float(np.mean(p.argmax(1) != y))


def negative_log_likelihood(probs: ArrayLike, labels: ArrayLike, *, ignore_index: int | None = None) -> float:
    """Mean of -log p_y in nats; infinite when a label was given probability 0.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        ignore_index: label of the samples to leave out; None keeps all.

    Returns:
        Nats per sample, >= 0.

    Raises:
        ValueError: inputs that are not probabilities and labels.

    Example:
        >>> round(negative_log_likelihood([[0.5, 0.5]], [1]), 4)
        0.6931
    """
    p, y = _checked(probs, labels, ignore_index)
    with np.errstate(divide="ignore"):
        return float(-np.log(p[np.arange(len(y)), y]).mean())


def brier_score(probs: ArrayLike, labels: ArrayLike, *, ignore_index: int | None = None) -> float:
    """Mean over the samples of sum_k (p_k - 1[y = k])^2, between 0 and 2.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        ignore_index: label of the samples to leave out; None keeps all.

    Returns:
        The score, no unit.

    Raises:
        ValueError: inputs that are not probabilities and labels.

    Source: Brier (1950), multi-class form.

    Example:
        >>> brier_score([[0.5, 0.5]], [1])
        0.5
    """
    p, y = _checked(probs, labels, ignore_index)
    return float(np.mean((p**2).sum(1) - 2 * p[np.arange(len(y)), y] + 1))


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
    if _is_compat(compat):
        confidence, correct = _float32_top(probs, labels, ignore_index)
        return _focal_calibration_error(confidence, correct, torch.linspace(0, 1, n_bins + 1))
    confidence, correct = _top(probs, labels, ignore_index)
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
    if _is_compat(compat):
        confidence, correct = _float32_top(probs, labels, ignore_index)
        ranks = np.linspace(0, len(confidence), n_bins + 1)
        edges = np.interp(ranks, np.arange(len(confidence)), np.sort(confidence.numpy()))
        return _focal_calibration_error(confidence, correct, edges)
    confidence, correct = _top(probs, labels, ignore_index)
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
    p, y = _checked_as_they_are(probs, labels, ignore_index)
    check_bins(n_bins)
    if _is_compat(compat):
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
    confidence, correct = _top(probs, labels, ignore_index)
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
class Decomposition:
    """A proper score of "the top class is right", split in two parts that add up.

    Attributes:
        score: mean Brier score (of one event, between 0 and 1) or NLL in nats.
        calibration: what a monotone recalibration would save, >= 0.
        refinement: the score after it: what is left because the confidences do not tell right from wrong.

    Example:
        >>> Decomposition(0.3, 0.1, 0.2).calibration
        0.1
    """

    score: float
    calibration: float
    refinement: float


def calibration_refinement(
    probs: ArrayLike, labels: ArrayLike, score: str = "brier", *, ignore_index: int | None = None
) -> Decomposition:
    """Split a proper score of the top confidence into calibration and refinement.

    The recalibrated confidences are those of isotonic regression on the same data, the best monotone map for every
    proper score. No bins are chosen; the calibration part is a little too large for small N, as the map fits noise.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        score: ``"brier"`` or ``"nll"``.
        ignore_index: label of the samples to leave out; None keeps all.

    Returns:
        A :class:`Decomposition`.

    Raises:
        ValueError: bad inputs, an unknown `score`.

    Source: DeGroot and Fienberg (1983); Dimitriadis, Gneiting and Jordan (2021) for the isotonic form.

    Example:
        >>> split = calibration_refinement([[0.9, 0.1]] * 4, [0, 0, 1, 1])
        >>> round(split.score, 4), round(split.calibration, 4), round(split.refinement, 4)
        (0.41, 0.16, 0.25)
    """
    if score not in ("brier", "nll"):
        raise ValueError(f"score must be 'brier' or 'nll', but got {score!r}")
    confidence, correct = _top(probs, labels, ignore_index)
    _, group = np.unique(confidence, return_inverse=True)
    size = np.bincount(group)
    recalibrated = isotonic_regression(np.bincount(group, weights=correct) / size, sample_weight=size)[group]

    def mean(c: Floats) -> float:
        if score == "brier":
            return float(np.mean((c - correct) ** 2))
        return float(np.mean(-special.xlogy(correct, c) - special.xlog1py(1 - correct, -c)))

    before, after = mean(confidence), mean(recalibrated)
    return Decomposition(before, before - after, after)


# Scores of logits (N, K) that are large for inputs from another distribution.
OOD_SCORES: dict[str, Callable[[Floats], Floats]] = {
    "entropy": lambda z: special.entr(special.softmax(z, axis=1)).sum(1),
    "msp": lambda z: -special.softmax(z, axis=1).max(1),
    "energy": lambda z: -special.logsumexp(z, axis=1),
}


def ood_detection(logits_in: ArrayLike, logits_out: ArrayLike, score: str = "entropy") -> dict[str, float]:
    """How well a score of the logits tells foreign inputs (the positive class) from known ones.

    Args:
        logits_in: (N, K) logits of inputs from the training distribution.
        logits_out: (M, K) logits of foreign inputs.
        score: ``"entropy"``, ``"msp"`` (one less the top probability) or ``"energy"`` (minus log-sum-exp).

    Returns:
        ``auroc`` and ``aupr`` with the foreign inputs as the positive class, and ``fpr95``, the share of foreign
        inputs that pass as known when 95 % of the known ones pass. Fractions.

    Raises:
        ValueError: an unknown `score`, logits that are not finite (N, K) arrays of one K.

    Source: Hendrycks and Gimpel (2017) for msp, Liang, Li and Srikant (2018) for fpr95, Liu et al. (2020) for energy.

    Example:
        >>> ood_detection([[9.0, 0.0]] * 3, [[0.1, 0.0]] * 2)["auroc"]
        1.0
    """
    if score not in OOD_SCORES:
        raise ValueError(f"score must be one of {', '.join(OOD_SCORES)}, but got {score!r}")
    known, foreign = (to_numpy(z).astype(np.float64) for z in (logits_in, logits_out))
    for name, z in (("logits_in", known), ("logits_out", foreign)):
        if z.ndim != 2 or 0 in z.shape or z.shape[1] != known.shape[-1] or not np.isfinite(z).all():
            raise ValueError(f"{name} must be finite logits (N, K), the same K for both, but its shape is {z.shape}")
    values = np.concatenate([OOD_SCORES[score](known), OOD_SCORES[score](foreign)])
    is_foreign = np.repeat([0, 1], [len(known), len(foreign)])
    foreign_passed, known_passed, _ = roc_curve(1 - is_foreign, -values, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(is_foreign, values)),
        "aupr": float(average_precision_score(is_foreign, values)),
        "fpr95": float(foreign_passed[np.argmax(known_passed >= 0.95)]),
    }


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
    confidence, correct = _top(probs, labels, ignore_index)
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


METRICS: dict[str, Callable[..., float]] = {
    "error": error_rate,
    "nll": negative_log_likelihood,
    "brier": brier_score,
    "ece": expected_calibration_error,
    "adaece": adaptive_calibration_error,
    "classwise_ece": classwise_calibration_error,
}


def evaluate(probs: ArrayLike, labels: ArrayLike, *, ignore_index: int | None = None) -> dict[str, float]:
    """Return every metric of :data:`METRICS` at its default options.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class indices.
        ignore_index: label of the samples to leave out; None keeps all.

    Returns:
        Name to value: fractions, the NLL in nats.

    Raises:
        ValueError: inputs that are not probabilities and labels.

    Example:
        >>> sorted(evaluate([[0.5, 0.5]], [0]))
        ['adaece', 'brier', 'classwise_ece', 'ece', 'error', 'nll']
    """
    return {name: metric(probs, labels, ignore_index=ignore_index) for name, metric in METRICS.items()}


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


def _top(probs: ArrayLike, labels: ArrayLike, ignore_index: int | None) -> tuple[Floats, Floats]:
    """Confidence of the most probable class, and 1.0 where it is the label."""
    p, y = _checked(probs, labels, ignore_index)
    tensor = torch.from_numpy(np.require(p, requirements=["C", "W"]))  # torch is faster along short rows
    confidence = tensor.amax(1).numpy()
    correct = tensor.gather(1, torch.from_numpy(np.require(y, requirements=["W"]))[:, None])[:, 0].numpy() == confidence
    # Two classes can share the largest probability only where it is 1/2 or less; then the lower index is predicted.
    tied = np.flatnonzero(correct & (confidence <= 0.51))
    correct[tied] = p[tied].argmax(1) == y[tied]
    return confidence, correct.astype(np.float64)


def _is_compat(compat: str | None) -> bool:
    if compat not in (None, "focal_calibration"):
        raise ValueError(f"compat must be None or 'focal_calibration', but got {compat!r}")
    return compat is not None


def _float32_top(probs: ArrayLike, labels: ArrayLike, ignore_index: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    p, y = _checked(probs, labels, ignore_index)
    confidence, predicted = torch.as_tensor(p, dtype=torch.float32).max(1)
    return confidence, predicted == torch.as_tensor(y)


def _focal_calibration_error(confidence: torch.Tensor, correct: torch.Tensor, edges: torch.Tensor | Floats) -> float:
    """The sum over the bins (lo, hi] in float32, as in the reference code; what lies in no bin is lost."""
    total = torch.zeros(1)
    for low, high in itertools.pairwise(edges):
        inside = confidence.gt(float(low)) & confidence.le(float(high))
        if inside.any():
            gap = confidence[inside].mean() - correct[inside].float().mean()
            total += gap.abs() * inside.float().mean()
    return float(total)


def check_bins(n_bins: int) -> None:
    if isinstance(n_bins, bool) or not isinstance(n_bins, Integral):
        raise ValueError(f"n_bins must be an integer, but got {n_bins!r}")
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, but got {n_bins}")
    if n_bins > MAX_BINS:
        raise ValueError(f"n_bins must be at most {MAX_BINS:,}, but got {n_bins:,}. 15 are usual.")


def _checked(probs: ArrayLike, labels: ArrayLike, ignore_index: int | None) -> tuple[Floats, Ints]:
    """Return float64 probabilities (M, K) and int64 labels (M,) of the kept samples, or say what is wrong with them."""
    p, y = _checked_as_they_are(probs, labels, ignore_index)
    return p.astype(np.float64, copy=False), y


def _checked_as_they_are(probs: ArrayLike, labels: ArrayLike, ignore_index: int | None) -> tuple[NDArray, Ints]:
    """The same, but float32 stays float32."""
    p, y = to_numpy(probs), to_numpy(labels)
    if p.ndim < 2 or 0 in p.shape:
        raise ValueError(f"probs must have shape (N, K) or (N, K, d1, ...) with N, K >= 1, but got {p.shape}")
    y = checked_labels(y, "probs", p.shape, ignore_index).ravel()
    if p.ndim > 2:
        p = np.moveaxis(p, 1, -1).reshape(-1, p.shape[1])
    if ignore_index is not None:
        kept = y != ignore_index
        if not kept.any():
            raise ValueError(f"no sample is left: all labels are the ignore_index {ignore_index}")
        p, y = p[kept], y[kept]
    p = p if p.dtype == np.float32 else p.astype(np.float64, copy=False)
    if not are_probabilities(p):
        raise ValueError(_not_probabilities(p))
    return (p if p.min() >= 0 and p.max() <= 1 else p.clip(0, 1)), y


def checked_labels(labels: ArrayLike, name: str, shape: tuple[int, ...], ignore_index: int | None = None) -> Ints:
    """Return labels (N, d1, ...) that fit an input of that name and `shape` (N, K, d1, ...), or say why they do not."""
    y, expected, n_classes = to_numpy(labels), (shape[0], *shape[2:]), shape[1]
    if y.shape != expected:
        raise ValueError(f"labels must have shape {expected} to match {name} {shape}, but got {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels must be integer class indices, but their dtype is {y.dtype}")
    kept = y if ignore_index is None else y[y != ignore_index]
    if kept.size and (kept.min() < 0 or kept.max() >= n_classes):
        raise ValueError(
            f"labels must lie in 0..{n_classes - 1}, but range from {kept.min()} to {kept.max()}. "
            "(Metrics leave out the samples whose label is their ignore_index.)"
        )
    return y.astype(np.int64, copy=False)


def are_probabilities(p: NDArray[np.floating]) -> bool:
    """Whether rows (N, K) lie in [0, 1] and sum to 1 up to the rounding of what they were computed in."""
    off = max(-p.min(), p.max() - 1, np.abs(p @ np.ones(p.shape[1], p.dtype) - 1).max())
    return bool(off <= _float_rounding(p.shape[1]) or (off <= 0.1 and off <= _half_rounding(p)))  # not for NaN


def _float_rounding(n_classes: int) -> float:
    """Of float32, roughly computed, or of six printed decimals for each class."""
    return 1e-4 + 5e-7 * n_classes


def _half_rounding(p: NDArray[np.floating]) -> float:
    """How far off 1 rows may sum that came from 16 bits, which shows in each value even after a cast; else 0.

    A relative error of `unit` for each value moves the sum by as much; values from a quotient of rounded parts may be
    off by three, exp(log p) by 1 + |log p|, log K on average. float16 also has an absolute error.
    """
    tensor = torch.from_numpy(np.require(p, requirements=["C", "W"]))
    for dtype, unit, smallest in ((torch.bfloat16, 2**-8, 0.0), (torch.float16, 2**-11, 2**-25)):  # coarsest first
        if torch.equal(tensor.to(dtype).to(tensor.dtype), tensor):
            return unit * (3 + math.log(p.shape[1])) + smallest * p.shape[1]
    return 0.0


def _not_probabilities(p: NDArray[np.floating]) -> str:
    if not np.isfinite(p).all():
        return "probs contain NaN or infinite values"
    total = p.sum(1)
    return (
        f"probs must be rows that lie in [0, 1] and sum to 1, but values range from {p.min():.4g} to {p.max():.4g} and "
        f"rows sum to {total.min():.4g}..{total.max():.4g}. Logits? Apply softmax(dim=1). "
        "Rounded probabilities? Divide each row by its sum."
    )


def to_numpy(values: ArrayLike) -> NDArray:
    if hasattr(values, "detach"):  # a tensor, on any device; numpy knows no bfloat16
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)
