"""Error, proper scores and their decomposition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special
from sklearn.isotonic import isotonic_regression

from gence.metrics._input import Floats, checked_input, top_class

__all__ = ["Decomposition", "brier_score", "calibration_refinement", "error_rate", "negative_log_likelihood"]


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
    p, y = checked_input(probs, labels, ignore_index)
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
    p, y = checked_input(probs, labels, ignore_index)
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
    p, y = checked_input(probs, labels, ignore_index)
    return float(np.mean((p**2).sum(1) - 2 * p[np.arange(len(y)), y] + 1))


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
    confidence, correct = top_class(probs, labels, ignore_index)
    _, group = np.unique(confidence, return_inverse=True)
    size = np.bincount(group)
    recalibrated = isotonic_regression(np.bincount(group, weights=correct) / size, sample_weight=size)[group]

    def mean(c: Floats) -> float:
        if score == "brier":
            return float(np.mean((c - correct) ** 2))
        return float(np.mean(-special.xlogy(correct, c) - special.xlog1py(1 - correct, -c)))

    before, after = mean(confidence), mean(recalibrated)
    return Decomposition(before, before - after, after)
