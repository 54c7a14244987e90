"""How well forecasts can be pooled under a proper loss: its mixability constant."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit

from gence.propriety.by_hand import AnyLoss
from gence.propriety.risk import Floats
from gence.propriety.weights import weight_function

__all__ = ["mixability_constant"]

_EDGE = 10.0  # logits up to which 1 - c is known well enough for differences of a loss that leaves torch
_GROWTH = 1e-3  # growth of log(c (1 - c) w) per unit of logit at an edge, from which on it counts as unbounded


def mixability_constant(loss: AnyLoss) -> float:
    """Return the largest eta for which a proper loss for two classes is eta-mixable: ``min of 1 / (c (1 - c) w(c))``.

    The aggregating algorithm keeps the total loss of a committee of n forecasters within ``ln(n) / eta`` of that of
    the best of them, for any number of rounds. The minimum compares the curvature of the entropy with that of log loss.

    Args:
        loss: as in :func:`weight_function`.

    Returns:
        eta, in 1 / (unit of the loss); 0 where c (1 - c) w(c) still grows like a power at 5e-5 from an end, as it does
        for the exponential loss, which is not mixable; infinite for a constant loss.

    Raises:
        ValueError: as :func:`weight_function`.

    Source: Vovk (1998); the formula is that of van Erven, Reid and Williamson (2012).

    Example:
        >>> import torch
        >>> round(mixability_constant(lambda p, label: -torch.log(p[label])), 9)
        1.0
        >>> round(mixability_constant(lambda p, y: (p - y) ** 2), 9)
        2.0
    """
    w = weight_function(loss)

    def curvature(z: float | np.ndarray) -> np.ndarray:
        c = expit(z)
        return c * (1 - c) * w(c)

    z = np.linspace(-_EDGE, _EDGE, 161)
    found = curvature(z)
    if found.max() <= 0:
        return np.inf
    for towards in (found[:33:8], found[:-34:-8]):  # each end and points one to four units of logit inside
        if towards[0] == found.max() and towards[0] > towards[1] * np.exp(_GROWTH):
            return 0.0
        if towards[0] == found.max() and towards[0] > towards[1] * (1 + 1e-8):
            return float(1 / _limit(_limit(towards))[0])
    at = int(found.argmax())
    low, high = z[max(at - 1, 0)], z[min(at + 1, len(z) - 1)]
    peak = minimize_scalar(lambda x: -curvature(x), bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    return float(1 / max(found[at], -float(peak.fun)))


def _limit(values: Floats) -> Floats:
    """Where each three values in a row, the last first, lead if they approach it by a constant factor (Aitken)."""
    steps = values[:-1] - values[1:]
    return values[:-2] - steps[:-1] ** 2 / (steps[:-1] - steps[1:])
