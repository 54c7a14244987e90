"""Links: from probabilities to scores on the line; the canonical one makes a proper loss convex in its score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit

from gence.propriety.by_hand import AnyLoss, BinaryLoss, slope_of
from gence.propriety.risk import Floats
from gence.propriety.weights import check_label, probabilities, weight_function

__all__ = ["Link", "canonical_link", "composite_curvature"]

_FAR = 36.0  # logits beyond which 1 - c is rounded to 0


@dataclass(frozen=True)
class Link:
    """An increasing map from the probability of class 1 to a score; call it, or its inverse.

    Attributes:
        forward: (n,) float64 probabilities inside (0, 1) to (n,) scores.
        slope: their derivative, likewise; positive.

    Raises:
        ValueError: from the call, a probability outside (0, 1); from the inverse, a score that no probability has.

    Example:
        >>> import scipy
        >>> probit = Link(scipy.stats.norm.ppf, lambda c: 1 / scipy.stats.norm.pdf(scipy.stats.norm.ppf(c)))
        >>> probit(0.5), probit.inverse(1.96).round(3)
        (np.float64(0.0), np.float64(0.975))
    """

    forward: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]

    def __call__(self, c: ArrayLike) -> Floats:
        """Scores of probabilities of any shape."""
        points = probabilities(c)
        return np.asarray(self.forward(points.ravel()), dtype=np.float64).reshape(points.shape)[()]

    def inverse(self, scores: ArrayLike) -> Floats:
        """Probabilities of scores of any shape, by Brent's method."""
        found = np.asarray(scores, dtype=np.float64)
        return np.array([self._inverse(s) for s in found.ravel()]).reshape(found.shape)[()]

    def _inverse(self, score: float) -> float:
        def excess(z: float) -> float:
            return float(self(expit(z))) - score

        if not (excess(-_FAR) <= 0 <= excess(_FAR)):
            low, high = self(expit([-_FAR, _FAR]))
            raise ValueError(f"no probability has the score {score}: this link goes from {low:.6g} to {high:.6g}")
        return float(expit(brentq(excess, -_FAR, _FAR, xtol=1e-14, rtol=1e-15)))


LOGIT = Link(logit, lambda c: 1 / (c * (1 - c)))  # two classes' softmax, backwards


def canonical_link(loss: AnyLoss) -> Link:
    """Return the link with which a strictly proper loss for two classes is convex in the score.

    It is minus the derivative of the entropy, ``loss(c, 0) - loss(c, 1)``; its slope is the weight function, and the
    slope of the composite loss in the score is c - y.

    Args:
        loss: as in :func:`weight_function`.

    Returns:
        A :class:`Link`.

    Raises:
        ValueError: as :func:`weight_function`; a weight that is 0 somewhere, as then the link has no inverse.

    Source: Buja, Stuetzle and Shen (2005); Reid and Williamson (2010).

    Example:
        >>> import scipy, torch
        >>> link = canonical_link(lambda p, label: -torch.log(p[label]))
        >>> bool(abs(link(0.9) - scipy.special.logit(0.9)) < 1e-12), link.inverse(0.0)
        (True, np.float64(0.5))
    """
    weight, binary = weight_function(loss), BinaryLoss(loss)
    grid = expit(np.linspace(-7, 7, 57))
    flat = weight(grid) <= 0
    if flat.any():
        raise ValueError(
            f"the loss is proper, not strictly: its weight is 0 at c = {grid[flat][0]:.4g}, where its canonical link "
            "is flat and has no inverse"
        )

    def forward(c: Floats) -> Floats:
        values = binary.values(c)
        return values[:, 0] - values[:, 1]

    return Link(forward, weight)


def composite_curvature(loss: AnyLoss, c: ArrayLike, label: int, link: Link = LOGIT) -> Floats:
    """Second derivative of a loss in the score ``link(c)``: where it is negative, the composite loss is concave.

    Args:
        loss: a differentiable loss for two classes, as in :func:`weight_function`; it need not be proper.
        c: probabilities of class 1, inside (0, 1), of any shape: where to look.
        label: 0 or 1.
        link: a :class:`Link`, as given the logit, whose inverse is the sigmoid (and for two classes the softmax).

    Returns:
        Float64 curvatures of the shape of `c`; with the canonical link 1 / w(c) for both labels.

    Raises:
        ValueError: c outside (0, 1), another label, or a loss as in :func:`weight_function`.

    Source: Reid and Williamson (2010), who characterise its sign by weight and link.

    Example:
        >>> squared = composite_curvature(lambda p, y: (p - y) ** 2, [0.3, 0.4], 1)  # stuck below 1/3
        >>> squared.round(4).tolist()
        [-0.0294, 0.0576]
    """
    points, binary, label = probabilities(c), BinaryLoss(loss), check_label(label)

    def slope_in_score(c: Floats) -> Floats:
        return (binary.slopes(c)[:, label] / link.slope(c))[:, None]

    flat = points.ravel()
    return (slope_of(slope_in_score, flat)[:, 0] / link.slope(flat)).reshape(points.shape)[()]
