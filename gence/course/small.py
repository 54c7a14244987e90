"""Small cases in a fixed order, evenest and smallest first; and the smallest belief that a loss distorts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import combinations, combinations_with_replacement

import numpy as np

from gence.course.trial import Broken, words

__all__ = ["FINE", "Lie", "as_floats", "beliefs", "data_sets", "is_distribution", "lattice", "smallest_lie"]

HandLoss = Callable[[list[float], int], float]
FINE = 60  # answers tried: all small denominators divide it
_CHEAPER = 1e-9


@cache
def lattice(n_classes: int, denominator: int) -> tuple[tuple[Fraction, ...], ...]:
    """All distributions with this denominator and no zero, the evenest first."""
    cuts = combinations(range(1, denominator), n_classes - 1)
    counts = [tuple(b - a for a, b in zip((0, *c), (*c, denominator), strict=True)) for c in cuts]
    return tuple(tuple(Fraction(n, denominator) for n in c) for c in sorted(counts, key=lambda c: (max(c), c)))


@cache
def beliefs(n_classes: int, denominators: tuple[int, ...] = (2, 3, 4, 5, 10)) -> tuple[tuple[Fraction, ...], ...]:
    """Small distributions without a zero, smaller denominators first, each once."""
    return tuple(dict.fromkeys(q for d in denominators if d >= n_classes for q in lattice(n_classes, d)))


def as_floats(p: tuple[Fraction, ...]) -> list[float]:
    """The same probabilities, as a loss takes them."""
    return [float(x) for x in p]


def data_sets(most: int) -> Iterator[tuple[list, list, int]]:
    """Confidences, hits and a number of bins, for one to `most` samples."""
    kinds = [(Fraction(x, 20), hit) for x in (10, 12, 14, 19, 20) for hit in (1, 0)]
    for n in range(1, most + 1):
        for bins in (1, 2, 5):
            for samples in combinations_with_replacement(kinds, n):
                confidences, hits = zip(*samples, strict=True)
                yield list(confidences), list(hits), bins


def is_distribution(p: np.ndarray, within: float = 1e-6) -> bool:
    """Whether all entries are at least 0 and sum to one, in each row."""
    return bool(np.all(p >= -within) and np.all(np.abs(p.sum(-1) - 1) <= within))


@dataclass(frozen=True)
class Lie:
    """A belief for which another answer is cheaper than honesty; `cheapest` is the cheapest of all that were tried."""

    belief: tuple
    answer: tuple
    cheapest: tuple
    costs: float
    honest: float

    def broken(self) -> Broken:
        """Both sides in words, with what the answer looks like."""
        given = f"belief {words(self.belief)}, answer {words(self.answer)}"
        digits = next((d for d in (4, 8, 12) if words(self.costs, d) != words(self.honest, d)), 16)
        wanted = f"honesty costs no more, but it costs {words(self.honest, digits)}"
        return Broken(given, f"the answer costs {words(self.costs, digits)}", wanted, frozenset([self._looks()]))

    def _looks(self) -> str:
        q, p = (as_floats(v) for v in (self.belief, self.cheapest))
        top = max(range(len(q)), key=q.__getitem__)
        if max(p) > 0.95:
            sure = "it rewards a sure bet on the likeliest class: a decision, not a probability"
            return sure if p[top] == max(p) else "it rewards a bet on an unlikely class: is the sign right?"
        if abs(max(p) - max(q)) < 1e-12:
            return "the cheaper answer moves probability between classes"
        return f"the cheaper answer is {'more timid' if max(p) < max(q) else 'bolder'} than the belief"


def smallest_lie(loss: HandLoss, n_classes: int) -> Lie | None:
    """The smallest belief for which another answer is cheaper, on a grid and then close by; None without one."""
    answers = lattice(n_classes, FINE)
    table = np.array([[loss(as_floats(p), k) for k in range(n_classes)] for p in answers])
    place = {p: i for i, p in enumerate(answers)}
    plain = [place[p] for p in beliefs(n_classes)]
    for q in beliefs(n_classes):
        risks = table @ np.array(q, dtype=np.float64)
        honest = float(risks[place[q]])
        if not np.isfinite(risks).all():
            at = int((~np.isfinite(risks)).argmax())
            return Lie(q, answers[at], answers[at], float(risks[at]), honest)
        below = honest - _CHEAPER * max(1.0, abs(honest))
        for some in (plain, range(len(answers))):  # round numbers first
            at = some[int((risks[some] <= risks[some].min() + 1e-12).argmax())]
            if risks[at] < below:
                return Lie(q, answers[at], answers[int(risks.argmin())], float(risks[at]), honest)
        if lie := _close_by(loss, q, honest):
            return lie
    return None


def _close_by(loss: HandLoss, q: tuple[Fraction, ...], honest: float) -> Lie | None:
    """A small distortion hides between the points of a grid: follow the slope of the risk at the belief."""
    h = Fraction(1, 10_000)
    for i, j in combinations(range(len(q)), 2):

        def moved(t: Fraction, i: int = i, j: int = j) -> tuple[Fraction, ...]:
            return tuple(x + t if k == i else x - t if k == j else x for k, x in enumerate(q))

        def risk(t: Fraction, moved: Callable = moved) -> float:
            return math.fsum(float(x) * loss(as_floats(moved(t)), k) for k, x in enumerate(q))

        t = h if risk(h) < risk(-h) else -h
        if not risk(t) < honest - 1e-12 * max(1.0, abs(honest)):
            continue
        while min(moved(2 * t)) > 0 and risk(2 * t) < risk(t):
            t *= 2
        return Lie(q, moved(t), moved(t), risk(t), honest)
    return None
