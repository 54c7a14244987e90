"""Murphy diagrams: what forecasts cost each decision maker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit, roots_legendre

from gence.propriety.risk import Floats, distributions
from gence.propriety.weights import Weight, integral, probabilities

__all__ = ["MurphyDiagram", "murphy_diagram"]

_NODES, _WEIGHTS = roots_legendre(20)
_LONGEST = 4.0  # in logit: pieces on which 20 nodes integrate the weights of the beta family to 1e-12


@dataclass(frozen=True)
class MurphyDiagram:
    """Mean cost of acting on forecasts, for each threshold; plot `scores` over `thresholds`, lower is better.

    Attributes:
        thresholds: (T,) inside (0, 1): a false alarm costs the threshold, a miss 1 minus it.
        scores: (T,) mean cost per sample.
        events: sorted forecasts of what happened.
        others: sorted forecasts of what did not happen.
        n_samples: N, by which costs are divided.

    Example:
        >>> diagram = murphy_diagram([0.9, 0.4, 0.2], [1, 0, 0])
        >>> round(float(diagram.at(0.3)), 6), round(diagram.mean_score(lambda c: 2.0), 6)  # one false alarm; (p - y)^2
        (0.1, 0.07)
    """

    thresholds: Floats
    scores: Floats
    events: Floats
    others: Floats
    n_samples: int

    def at(self, thresholds: ArrayLike) -> Floats:
        """Mean costs at other thresholds, exactly; a ValueError outside (0, 1)."""
        c = probabilities(thresholds, "thresholds")
        misses = np.searchsorted(self.events, c, side="right")
        alarms = len(self.others) - np.searchsorted(self.others, c, side="right")
        return ((1 - c) * misses + c * alarms) / self.n_samples

    def mean_score(self, weight: Weight, *, breaks: Sequence[float] = ()) -> float:
        """The area under the diagram times w(c): the mean of the proper loss that has this weight.

        Args:
            weight: maps a threshold to a weight >= 0, as :func:`weight_function` returns.
            breaks: thresholds where it jumps.

        Raises:
            ValueError: the integral diverges, as it does where a forecast is certain and wrong and the loss infinite.
        """
        stops = np.concatenate([self.events, self.others, probabilities(list(breaks), "breaks"), [0.5]])
        stops = np.unique(stops[(stops > 0) & (stops < 1)])

        def term(c: float) -> float:
            return float(self.at(c) * weight(c))

        ends = integral(term, 0.0, stops[0]) + integral(term, stops[-1], 1.0)
        if np.isinf(ends):
            raise ValueError("the integral diverges: a certain forecast was wrong, which costs infinitely much here")
        # Between forecasts the diagram is a line, and in logits the weight is smooth: Gauss and Legendre's nodes do.
        inner = logit(stops)
        counts = np.maximum(1, np.ceil(np.diff(inner) / _LONGEST)).astype(int)
        cuts = [np.linspace(a, b, n + 1)[:-1] for a, b, n in zip(inner[:-1], inner[1:], counts, strict=True)]
        edges = np.concatenate([*cuts, inner[-1:]])
        half = np.diff(edges)[:, None] / 2
        c = expit(edges[:-1, None] + half * (1 + _NODES)).ravel()
        steps = (half * _WEIGHTS).ravel() * c * (1 - c)
        return float(ends + steps @ [term(x) for x in c])


def murphy_diagram(
    probs: ArrayLike, labels: ArrayLike, *, of: int | str | None = None, thresholds: ArrayLike | None = None
) -> MurphyDiagram:
    """Return the mean elementary scores of forecasts over all thresholds: one curve for all proper losses at once.

    Of two forecasts of the same labels, one that is lower everywhere is better under every proper loss; where the
    curves cross, it depends on the costs.

    Args:
        probs: (N,) probabilities of class 1, or (N, K) rows on the simplex.
        labels: (N,) labels, 0 to K - 1 (K = 2 for a vector).
        of: which class is to be found among the rest, for K > 2 (for two it is class 1 as given). With ``"all"`` the
            scores of every class against the rest are added up; weighted by 2 that sum is the Brier score of K classes.
            The log score of K > 2 classes is no such sum: a diagram shows decisions about one class.
        thresholds: where to evaluate, inside (0, 1); as given 0.005, 0.015, ... 0.995.

    Returns:
        A :class:`MurphyDiagram`.

    Raises:
        ValueError: probabilities or labels that are none, shapes that differ, K > 2 without `of`, a class that is none.

    Source: Ehm, Gneiting, Jordan and Krüger (2016); the decisions are those of Schervish (1989).

    Example:
        >>> murphy_diagram([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], [0, 2], of=2, thresholds=[0.2, 0.5]).scores.tolist()
        [0.0, 0.25]
    """
    p, y = np.asarray(probs, dtype=np.float64), np.asarray(labels)
    if p.ndim == 1:
        p = probabilities(p, "probs", ends=True)
        p = np.stack([1 - p, p], axis=-1)
    p = distributions(p, "probs")
    n_samples, n_classes = p.shape
    if y.shape != (n_samples,):
        raise ValueError(f"labels must have shape ({n_samples},), one for each row of probs, but have {y.shape}")
    if not np.isin(y, np.arange(n_classes)).all():
        wrong = y[~np.isin(y, np.arange(n_classes))][0]
        raise ValueError(f"labels must be 0 to {n_classes - 1}, but one is {wrong}")
    happened = y[:, None] == np.arange(n_classes)
    chosen = _chosen(of, n_classes)
    events, others = np.sort(p[:, chosen][happened[:, chosen]]), np.sort(p[:, chosen][~happened[:, chosen]])
    c = (np.arange(100) + 0.5) / 100 if thresholds is None else np.atleast_1d(probabilities(thresholds, "thresholds"))
    diagram = MurphyDiagram(c, np.empty(0), events, others, n_samples)
    return MurphyDiagram(c, diagram.at(c), events, others, n_samples)


def _chosen(of: int | str | None, n_classes: int) -> list[int]:
    if of is None and n_classes == 2:
        return [1]
    if isinstance(of, str) and of == "all":
        return list(range(n_classes))
    if of in range(n_classes):
        return [int(of)]
    raise ValueError(
        f"a diagram shows decisions about one class against the rest, and there are {n_classes}: give of=0 to "
        f"of={n_classes - 1}, or of='all' for their sum, but got of={of!r}"
    )
