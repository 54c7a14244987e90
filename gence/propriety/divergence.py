"""What an experiment is worth under a loss: the divergence between two distributions that the loss induces."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from gence.propriety.by_hand import AnyLoss, BinaryLoss
from gence.propriety.risk import Floats, distributions
from gence.propriety.weights import probabilities, weight_function

__all__ = ["induced_divergence"]


def induced_divergence(loss: AnyLoss, P: ArrayLike, Q: ArrayLike, *, prior: float = 0.5) -> float:
    """Return how much the best forecast gains when it may see an observation first, drawn from P or from Q.

    Class 1 has probability `prior`; an observation is drawn from P for class 1 and from Q for class 0. The divergence
    is the smallest risk without the observation minus the smallest expected risk with it. At prior 1/2 the log loss
    gives the Jensen-Shannon divergence, the 0-1 loss half the total variation, and (p - y)^2 an eighth of
    ``sum (P - Q)^2 / (P + Q)``.

    Args:
        loss: as in :func:`weight_function`, but it need not be proper: only its smallest risks count. For a loss that
            is not proper they are searched for, on a grid and from its best point.
        P: (M,) distribution of the observation for class 1, over M values.
        Q: (M,) the same for class 0.
        prior: probability of class 1, strictly between 0 and 1.

    Returns:
        A number >= 0 up to rounding, in the unit of the loss; 0 where P = Q.

    Raises:
        ValueError: P or Q are no distributions (M,) of the same M; a prior outside (0, 1); a loss that couples samples,
            cannot judge two classes, or is NaN.

    Source: DeGroot (1962); Nguyen, Wainwright and Jordan (2009); Reid and Williamson (2011).

    Example:
        >>> total_variation = induced_divergence(lambda p, y: float((p > 0.5) != y), [0.8, 0.2], [0.3, 0.7]) * 2
        >>> round(total_variation, 9)
        0.5
    """
    given_1, given_0 = distributions(P, "P"), distributions(Q, "Q")
    if given_1.ndim != 1 or given_1.shape != given_0.shape:
        raise ValueError(
            f"P and Q must be two distributions over the same M values, of shape (M,), but have shapes {given_1.shape} "
            f"and {given_0.shape}"
        )
    prior = float(probabilities(prior, "prior"))
    joint_1, joint_0 = prior * given_1, (1 - prior) * given_0
    seen = joint_1 + joint_0
    possible = seen > 0
    posterior = joint_1[possible] / seen[possible]
    lowest = _smallest_risks(loss, np.append(posterior, prior))
    return float(lowest[-1] - seen[possible] @ lowest[:-1])


def _smallest_risks(loss: AnyLoss, q: Floats) -> Floats:
    """The least risk under each belief in class 1: that of honesty for a proper loss, else by a search."""
    binary = BinaryLoss(loss)
    honest = binary.risks(q, q)
    try:
        weight_function(loss)
        return honest
    except ValueError:  # not proper, or it jumps
        return np.array([min(h, _least(binary, belief)) for h, belief in zip(honest, q, strict=True)])


def _least(binary: BinaryLoss, q: float) -> float:
    grid = np.concatenate([[1e-15, 1e-9, 1e-4], np.arange(1, 200) / 200, [1 - 1e-4, 1 - 1e-9, 1 - 1e-15]])
    risks = binary.risks(grid, np.full(len(grid), q))
    at = int(risks.argmin())
    best = minimize_scalar(
        lambda c: float(binary.risks(np.array([c]), np.array([q]))[0]),
        bounds=(grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return min(float(risks[at]), float(best.fun))
