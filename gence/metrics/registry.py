"""The metrics that records hold, by name."""

from __future__ import annotations

from collections.abc import Callable

from numpy.typing import ArrayLike

from gence.metrics.calibration_error import (
    adaptive_calibration_error,
    classwise_calibration_error,
    expected_calibration_error,
)
from gence.metrics.scores import brier_score, error_rate, negative_log_likelihood

__all__ = ["METRICS", "evaluate"]

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
