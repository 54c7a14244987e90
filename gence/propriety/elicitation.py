"""What a loss on the line asks for: is the best report the mean, the median, another functional? By a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from math import gcd

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize_scalar

from gence.propriety.risk import Floats
from gence.propriety.weights import probabilities

__all__ = ["Elicitation", "elicits"]

PointLoss = Callable[[float, float], float]
# A functional is a name, a name with a level, or a function of (outcomes, probabilities) that returns a number or
# several, all of which are right.
Functional = str | tuple[str, float] | Callable[[Floats, Floats], ArrayLike]
Intervals = list[tuple[float, float]]  # all right reports; a point has two equal ends

_PER_UNIT = 60  # reports tried in a unit: every mean of whole outcomes with denominators up to six is one of them
_LARGEST = {1: 1, 2: 6, 3: 6, 4: 5}  # denominators of the probabilities, for each number of outcomes
TOLERANCE = 1e-9  # of risks, relative to their range over the reports; beside it, their rounding counts


@dataclass(frozen=True)
class Elicitation:
    """What a search for counterexamples found; ``print`` it for a sentence.

    Attributes:
        functional: what was asked for, in words.
        consistent: no report was cheaper than the functional of the distribution.
        strictly: also no other report was as cheap.
        outcomes: (M,) of the smallest distribution that shows what fails; None without a counterexample.
        probabilities: (M,) of these outcomes.
        wanted: right reports there, as intervals (low, high); a point has two equal ends.
        report: the cheaper report, or another one as cheap.
        wanted_risk: expected loss of the right report (the dearest of them).
        report_risk: expected loss of `report`.
        searched: how many distributions were tried.
        level_set: three distributions over the same outcomes, (3, M'), if the functional itself is to blame: the first
            two share a value that their even mixture, the third, has not, so that no loss at all asks for it.
        level_outcomes: (M',) these outcomes.

    Example:
        >>> print(elicits(lambda report, y: abs(report - y), "mean"))  # doctest: +NORMALIZE_WHITESPACE
        not consistent for the mean: if P(0) = 2/3, P(1) = 1/3, the right report 0.3333 costs 0.4444
        and the report 0 costs 0.3333 (16 distributions searched)
    """

    functional: str
    consistent: bool
    strictly: bool
    outcomes: Floats | None
    probabilities: Floats | None
    wanted: tuple[tuple[float, float], ...]
    report: float | None
    wanted_risk: float
    report_risk: float
    searched: int
    level_set: Floats | None = None
    level_outcomes: Floats | None = None

    def __str__(self) -> str:
        """Return the verdict in a sentence."""
        effort = f"({self.searched} distributions searched)"
        if self.outcomes is None or self.probabilities is None:
            return f"strictly consistent for {self.functional}: no counterexample {effort}"
        kind = "consistent, not strictly," if self.consistent else "not consistent"
        right = " or ".join(f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}" for low, high in self.wanted)
        blame = ""
        if self.level_set is not None:
            one, other, mixture = (_in_words(self.level_outcomes, p) for p in self.level_set)
            blame = (
                f". No loss asks for {self.functional}: it is the same if {one} and if {other}, but another in their "
                f"even mixture {mixture}"
            )
        where = f"{kind} for {self.functional}: if {_in_words(self.outcomes, self.probabilities)}"
        costs = f"costs {self.wanted_risk:.4g} and the report {self.report:.4g} costs {self.report_risk:.4g}"
        return f"{where}, the right report {right} {costs} {effort}{blame}"


def elicits(
    loss: PointLoss,
    functional: Functional,
    *,
    outcomes: Sequence[float] = (0.0, 1.0, -1.0, 2.0, 4.0),
    reports: tuple[float, float] | None = None,
) -> Elicitation:
    """Search small distributions for one where the best report under a loss is not the functional asked for.

    All distributions with up to four of the outcomes and probabilities of denominators up to six, fewer outcomes and
    smaller denominators first, so that every machine finds the same, smallest counterexample.

    Args:
        loss: maps a report and an outcome, both numbers, to a number.
        functional: ``"mean"``, ``"median"``, ``"mode"``, ``("quantile", alpha)``, ``("expectile", alpha)``, or a
            function of (outcomes, probabilities), arrays (M,), that returns the right report or several.
        outcomes: what may happen; those that come first are tried first.
        reports: lowest and highest report; as given one unit beyond the outcomes.

    Returns:
        An :class:`Elicitation`. A negative one carries its counterexample; a positive one is evidence, no proof.

    Raises:
        ValueError: an unknown functional or a level outside (0, 1); a loss that is NaN, or a functional that is not
            finite, with the place; fewer than two outcomes or one twice; reports that do not reach from low to high.

    Source: Lambert, Pennock and Shoham (2008); Gneiting (2011).

    Example:
        >>> elicits(lambda report, y: (report - y) ** 2, "mean").strictly
        True
        >>> variance = elicits(lambda report, y: (report - y**2) ** 2, lambda y, p: p @ (y - p @ y) ** 2)
        >>> variance.consistent, variance.level_set.tolist()  # two sure outcomes, and a coin
        (False, [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    """
    support = np.array(outcomes, dtype=np.float64)
    if len(support) < 2 or len(np.unique(support)) < len(support) or not np.isfinite(support).all():
        raise ValueError(f"outcomes must be at least two different finite numbers, but got {tuple(outcomes)}")
    low, high = (support.min() - 1, support.max() + 1) if reports is None else reports
    if not low < high:
        raise ValueError(f"reports must be (low, high) with low < high, but got {reports}")
    name, right_reports = _functional(functional)
    grid = np.arange(np.ceil(low * _PER_UNIT), np.floor(high * _PER_UNIT) + 1) / _PER_UNIT
    table = np.array([[_cost(loss, r, y) for y in support] for r in grid])
    candidates = list(_distributions(len(support)))
    weak: Elicitation | None = None
    for tried, p in enumerate(candidates, 1):
        own = p > 0
        wanted = right_reports(support[own], p[own])
        ends = [x for pair in wanted for x in (*pair, sum(pair) / 2)]
        if min(ends) < low or max(ends) > high:
            raise ValueError(
                f"{name} of {_in_words(support, p)} is {ends[0]:.4g}, but reports go from {low:.4g} to {high:.4g}"
            )
        failure = _failure(loss, support[own], p[own], wanted, grid, table[:, own])
        if failure is None or (failure[0] and weak):
            continue
        found = Elicitation(name, failure[0], False, support[own], p[own], tuple(wanted), *failure[1:], tried)
        if not found.consistent:
            blame = _level_set(support, candidates, right_reports) if callable(functional) else (None, None)
            return replace(found, level_set=blame[0], level_outcomes=blame[1])
        weak = replace(found, searched=len(candidates))
    return weak or Elicitation(name, True, True, None, None, (), None, np.nan, np.nan, len(candidates))


def _failure(
    loss: PointLoss, y: Floats, p: Floats, wanted: Intervals, grid: Floats, table: Floats
) -> tuple[bool, float, float, float] | None:
    """Whether the functional is among the cheapest reports; another report; both risks. None where nothing fails."""

    def risk(r: float) -> float:
        return float(p @ [_cost(loss, r, one) for one in y])

    risks = table @ p
    finite = risks[np.isfinite(risks)] if np.isfinite(risks).any() else np.zeros(1)
    slack = TOLERANCE * float(np.ptp(finite)) + 16 * np.finfo(float).eps * float(np.abs(finite).max())
    right = [risk(r) for low, high in wanted for r in (low, high, (low + high) / 2)]
    at = int(risks.argmin())
    report, lowest = float(grid[at]), float(risks[at])
    if not lowest < max(right) - slack:  # the grid alone may be too coarse for a small advantage
        near = (grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)])
        fine = minimize_scalar(risk, bounds=near, method="bounded", options={"xatol": 1e-9})
        if fine.fun < lowest:
            report, lowest = float(fine.x), float(fine.fun)
    if lowest < max(right) - slack:
        return False, report, max(right), lowest
    away = np.min([np.maximum(low - grid, grid - high) for low, high in wanted], axis=0) > 0.5 / _PER_UNIT
    as_cheap = away & (risks <= max(right) + slack)
    if as_cheap.any():
        other = int(as_cheap.argmax())
        return True, float(grid[other]), max(right), float(risks[other])
    return None


def _cost(loss: PointLoss, report: float, outcome: float) -> float:
    value = float(loss(float(report), float(outcome)))
    if np.isnan(value):
        raise ValueError(
            f"the loss is nan for the report {report:.6g} and the outcome {outcome:.6g}. Restrict outcomes and reports "
            "to where it is defined."
        )
    return value


def _distributions(n_outcomes: int) -> Iterator[Floats]:
    """All small distributions, (n_outcomes,), fewer outcomes and smaller denominators first."""
    for size, largest in _LARGEST.items():
        for denominator in range(size, largest + 1):
            for support in combinations(range(n_outcomes), size):
                for cuts in combinations(range(1, denominator), size - 1):
                    counts = np.diff([0, *cuts, denominator])[::-1]
                    if gcd(*counts.tolist()) == 1:
                        p = np.zeros(n_outcomes)
                        p[list(support)] = counts / denominator
                        yield p


def _functional(functional: Functional) -> tuple[str, Callable[[Floats, Floats], Intervals]]:
    """Its name in words, and a function from a distribution to all right reports."""
    if callable(functional):
        name = getattr(functional, "__name__", "<lambda>")

        def own(y: Floats, p: Floats) -> Intervals:
            found = np.atleast_1d(np.asarray(functional(y, p), dtype=np.float64))
            if not (found.size and np.isfinite(found).all()):
                raise ValueError(f"the functional is {found.tolist()} if {_in_words(y, p)}; it must be finite")
            return [(float(x), float(x)) for x in found]

        return "this functional" if name == "<lambda>" else f"the {name}", own
    if functional == "mean":
        return "the mean", lambda y, p: [(float(p @ y),) * 2]
    if functional == "mode":
        return "the mode", lambda y, p: [(float(x),) * 2 for x in y[p >= p.max() - 1e-12]]
    if functional == "median":
        return "the median", lambda y, p: _quantile(y, p, 0.5)
    if isinstance(functional, tuple) and len(functional) == 2 and functional[0] in ("quantile", "expectile"):
        alpha = float(probabilities(functional[1], "the level of the functional"))
        return f"the {functional[0]} at {alpha:g}", lambda y, p: _LEVELLED[functional[0]](y, p, alpha)
    raise ValueError(
        f"unknown functional {functional!r}. It must be 'mean', 'median', 'mode', ('quantile', alpha), ('expectile', "
        "alpha), or a function of (outcomes, probabilities)."
    )


def _quantile(y: Floats, p: Floats, alpha: float) -> Intervals:
    order = y.argsort()
    below = np.cumsum(p[order])
    at = int((below < alpha - 1e-12).sum())
    tie = abs(below[at] - alpha) <= 1e-12
    return [(float(y[order[at]]), float(y[order[at + tie]]))]


def _expectile(y: Floats, p: Floats, alpha: float) -> Intervals:
    def excess(t: float) -> float:
        return float(p @ np.where(y > t, alpha * (y - t), (1 - alpha) * (y - t)))

    t = float(y[0]) if len(y) == 1 else brentq(excess, y.min(), y.max(), xtol=1e-14, rtol=1e-15)
    return [(t, t)]


_LEVELLED = {"quantile": _quantile, "expectile": _expectile}


def _level_set(
    y: Floats, candidates: list[Floats], right_reports: Callable[[Floats, Floats], Intervals]
) -> tuple[Floats, Floats] | tuple[None, None]:
    """Two small distributions with a right report in common that is wrong for their mixture, that, and the outcomes."""

    def values(p: Floats) -> Floats:
        return np.array([low for low, _ in right_reports(y[p > 0], p[p > 0])])

    def shared(a: Floats, b: Floats) -> Floats:
        return a[np.abs(a[:, None] - b).min(1) < 1e-9]

    small = [(p, values(p)) for p in candidates[:75]]
    for (p, value_p), (q, value_q) in combinations(small, 2):
        common = shared(value_p, value_q)
        if len(common) and len(shared(common, values((p + q) / 2))) < len(common):
            own = p + q > 0
            return np.stack([p, q, (p + q) / 2])[:, own], y[own]
    return None, None


def _in_words(y: Floats, p: Floats) -> str:
    own = [(one, Fraction(weight).limit_denominator(1000)) for one, weight in zip(y, p, strict=True) if weight > 0]
    return ", ".join(f"P({one:g}) = {weight}" for one, weight in sorted(own))
