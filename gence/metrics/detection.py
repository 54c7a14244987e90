"""How well scores tell foreign inputs from those of the training distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import special
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from gence.metrics._input import Floats, to_numpy

__all__ = ["OOD_SCORES", "ood_detection"]

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
