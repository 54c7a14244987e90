"""The best single temperature, and pieces of the log-likelihood that the calibrators share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

__all__ = ["TEMPERATURES", "best_temperature"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
TEMPERATURES = (0.01, 100.0)  # where a temperature is looked for first
PUBLISHED = (0.1, 10.0)  # the range of published searches
TOLERANCE = 1e-8  # of the gradient of a regression: results then agree to many digits on other processors
LONG = 5.0  # seconds after which a progress bar appears


def best_temperature(z: Floats, y: Ints) -> tuple[float, bool]:
    """Return the temperature of the lowest NLL, and whether there is one.

    There is one if a sample is wrong and the labels' logits are, on average, above the mean of their rows. Else the NLL
    falls until T = 0 or until T = infinity, and an end of :data:`TEMPERATURES` stands for that, or a temperature beyond
    where that would not be extreme for logits of this size.

    Args:
        z: (N, K) logits; -inf for impossible classes.
        y: (N,) labels.

    Raises:
        ValueError: a label whose logit is -inf.

    Example:
        >>> t, found = best_temperature(np.array([[4.0, 0.0]] * 4), np.array([0, 0, 0, 1]))
        >>> round(t, 4), found
        (3.641, True)
    """
    below = less_maximum(z)
    impossible = np.flatnonzero(logit_of_label(below, y) == -np.inf)
    if len(impossible):
        raise ValueError(
            f"{len(impossible)} of {len(y)} labels have the logit -inf, the first in row {impossible[0]}: their NLL is "
            "infinite at every temperature. Leave these samples out, or clip probabilities before their logarithm."
        )

    def slope(log_scale: float) -> float:
        with np.errstate(over="ignore"):  # -inf is as good
            return float(nll_slope(below * np.exp(log_scale), y).mean())  # the sign of the derivative in 1/T

    low, high = -np.log(TEMPERATURES[1]), -np.log(TEMPERATURES[0])
    far, possible = np.log(1e4), below > -np.inf
    if slope(low) >= 0:
        size = -below.min(where=possible, initial=0.0)
        gain = (
            logit_of_label(below, y) - np.mean(below, axis=1, where=possible)
        ).mean()  # of sharpness, at T = infinity
        if gain <= 1e-12 * size:
            return max(TEMPERATURES[1], size), False
        while slope(low) >= 0:
            low, high = low - far, low
    elif slope(high) <= 0:
        if (logit_of_label(below, y) == 0).all():
            size = -below.min(where=possible, initial=0.0)
            return min(TEMPERATURES[0], 0.01 * size), False
        while slope(high) <= 0:
            low, high = high, high + far
    return float(np.exp(-optimize.brentq(slope, low, high, xtol=1e-12))), True


def less_maximum(z: Floats) -> Floats:
    """Logits less the largest of their row, so that nothing can overflow."""
    return z - z.max(1, keepdims=True)


def logit_of_label(z: Floats, y: Ints) -> Floats:
    return z[np.arange(len(y)), y]


def mean_nll(z: Floats, y: Ints) -> float:
    return float((special.logsumexp(z, axis=1) - logit_of_label(z, y)).mean())


def nll_slope(z: Floats, y: Ints) -> Floats:
    """For each sample the derivative of its NLL when its logits are multiplied by 1 + d."""
    p = special.softmax(z, axis=1)
    return (p * np.where(z > -np.inf, z, 0)).sum(1) - logit_of_label(z, y)
