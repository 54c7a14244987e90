"""Graders of exercises on measures of calibration: the ECE and its noise, the parts of a score, flattery."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import product

import numpy as np
from scipy.stats import binom

from gence.course.small import data_sets, is_distribution
from gence.course.trial import Broken, Trial, exercise, number, numbers, words
from gence.metrics import expected_calibration_error, negative_log_likelihood

__all__ = ["E23", "E24", "E25", "E27"]

Found = Iterator[Broken | None]

E23 = exercise("E23", number)


@E23.law("for one sample it is the distance of confidence and hit")
def _(f: Trial) -> Found:
    for c, h, bins in data_sets(1):
        signed = float(c[0] - h[0])
        slips = {"with its sign: errors would cancel": signed, "-": -signed, "the distance is squared": signed**2}
        yield f.differs(f(c, h, bins), abs(signed), slips=slips)


@E23.law("with one bin it is the distance of mean confidence and accuracy")
def _(f: Trial) -> Found:
    for c, h, bins in data_sets(3):
        if bins == 1:
            # Three samples cannot tell the two apart where one has confidence 1.
            slip = "a mean of distances (a bin first takes means, then their distance), or confidence 1 alone in a bin"
            slips = {slip: sum(abs(float(a) - b) for a, b in zip(c, h, strict=True)) / len(c)}
            yield f.differs(f(c, h, 1), abs(float(sum(c)) - sum(h)) / len(c), slips=slips)


@E23.law("every sample twice changes nothing")
def _(f: Trial) -> Found:
    for c, h, bins in data_sets(2):
        given = f"confidences {words(c)}, hits {words(h)}, bins {bins}, and each sample twice"
        yield f.differs(f(c * 2, h * 2, bins), f(c, h, bins), given=given)


@E23.law("bins are closed on the right, and weighted by their samples")
def _(f: Trial) -> Found:
    for c, h, bins in data_sets(3):
        right = _ece([math.ceil(x * bins) for x in c], c, h)
        left = _ece([min(int(x * bins), bins - 1) for x in c], c, h)
        slips = {"a confidence on an edge goes to the bin above": left}
        yield f.differs(f(c, h, bins), right, slips=slips)


def _ece(bins: list[int], c: list[Fraction], h: list[int]) -> float:
    gaps = {b: sum(x - y for a, x, y in zip(bins, c, h, strict=True) if a == b) for b in bins}
    return float(sum(abs(gap) for gap in gaps.values()) / len(c))


E24 = exercise("E24", number)


def _floors(f: Trial, groups: list[tuple[tuple[int, ...], tuple[Fraction, ...]]]) -> Found:
    for counts, confidences in groups:
        c, n, total = [float(x) for x in confidences], np.array(counts), sum(counts)
        right = sum(_spread(size, x) for size, x in zip(counts, c, strict=True)) / total
        share, variance = n / total, np.array(c) * (1 - np.array(c))
        each = np.sqrt(2 * variance / (math.pi * np.maximum(n, 1)))
        slips = {
            "each bin counts the same, however many samples it has": each.mean(),
            "a variance in place of its root": share @ (2 * variance / (math.pi * np.maximum(n, 1))),
            "a root mean square; the mean distance is smaller, by the root of 2/pi": share
            @ each
            * math.sqrt(math.pi / 2),
        }
        found = f(list(counts), list(confidences))
        if found == 0:  # a variance is near 0, too
            slips = {"a perfect model, but its samples are finite": 0.0}
        yield f.differs(found, right, slips=slips, within=0.05 * right)


def _spread(n: int, c: float) -> float:
    """Mean of \\|hits - n c\\|, exactly."""
    k = np.arange(n + 1)
    return float(binom.pmf(k, n, c) @ np.abs(k - n * c))


_CONFIDENCES = [Fraction(x, 20) for x in (10, 16, 18, 19)]
E24.law("one bin: the mean distance of accuracy and confidence, within 5 %")(
    lambda f: _floors(f, [((n,), (c,)) for n in (400, 1600) for c in _CONFIDENCES])
)
E24.law("several bins of unequal size, some empty, within 5 %")(
    lambda f: _floors(f, [((a, b, 0), tuple(_CONFIDENCES[:3])) for a in (100, 400) for b in (900, 2500)])
)

E25 = exercise("E25", numbers(3))
_GROUPS = [
    groups
    for size in (1, 2)
    for groups in product(
        [(Fraction(c, 4), n, h) for n in (1, 2, 4) for c in (1, 2, 3) for h in range(n + 1)], repeat=size
    )
    if len({g[0] for g in groups}) == size
]


def _samples(groups: tuple) -> tuple[int, Fraction]:
    n = sum(size for _, size, _ in groups)
    return n, Fraction(sum(hits for *_, hits in groups), n)


@E25.law("the uncertainty is that of the base rate b alone, b (1 - b)")
def _(f: Trial) -> Found:
    for groups in _GROUPS:
        _, base = _samples(groups)
        yield f.differs(f(list(groups))[0], float(base * (1 - base)))


@E25.law("the calibration part is 0 exactly where each group's frequency is its forecast")
def _(f: Trial) -> Found:
    for groups in _GROUPS:
        honest = all(Fraction(h, n) == c for c, n, h in groups)
        n, base = _samples(groups)
        _, second, part = f(list(groups))
        own = [float(sum(m * (Fraction(h, m) - x) ** 2 for x, m, h in rows) / n)
               for rows in (groups, [(base, *rest) for _, *rest in groups])]  # fmt: skip
        changed = abs(second - own[0]) + abs(part - own[1]) < 1e-12
        slips = {"resolution and calibration have changed places"} if changed else set()
        wrong = Broken(f.given, words(part), "0" if honest else "above 0", frozenset(slips))
        yield None if (abs(part) < 1e-12) == honest else wrong


@E25.law("uncertainty - resolution + calibration is the mean of (forecast - outcome)^2")
def _(f: Trial) -> Found:
    for groups in _GROUPS:
        n, _ = _samples(groups)
        score = sum(h * (1 - c) ** 2 + (size - h) * c**2 for c, size, h in groups) / n
        parts = f(list(groups))
        given = f"{f.given}: parts {words(parts)}, which make"
        slips = {
            "each group counts the same, however many samples it has": _even(groups),
            "the sign of the resolution: it is subtracted already": float(score) - 2 * parts[1] * (parts[1] < 0),
        }
        yield f.differs(parts[0] - parts[1] + parts[2], float(score), given=given, slips=slips)


def _even(groups: tuple) -> float:
    """What the parts make where the mean is taken over groups, not over samples."""
    _, base = _samples(groups)
    rates = [(c, Fraction(h, size)) for c, size, h in groups]
    return float(base * (1 - base) + sum((c - r) ** 2 - (r - base) ** 2 for c, r in rates) / len(rates))


@E25.law("a group told as two groups of the same forecast leaves every part as it is")
def _(f: Trial) -> Found:
    for groups in _GROUPS:
        c, n, h = groups[0]
        if (n, h) == (2, 1):
            parts = [(c, 1, 1), (c, 1, 0), *groups[1:]]
            yield f.differs(f(parts), f(list(groups)), given=f"groups {words(groups)}, and {words(parts)}")


E27 = exercise("E27", numbers(None, None))


def _calibrated(sure: tuple[Fraction, ...], unsure: tuple[Fraction, ...], n: int) -> tuple[list, list, str]:
    """Honest forecasts: n that are sure of class 0 and n that are not, each class as frequent as it was told."""
    labels = [k for p in (sure, unsure) for k, x in enumerate(p) for _ in range(int(x * n))]
    given = f"{n} forecasts {words(sure)} and {n} forecasts {words(unsure)}, classes as frequent as told"
    return [list(sure)] * n + [list(unsure)] * n, labels, given


def _percent(*values: int) -> tuple[Fraction, ...]:
    return tuple(Fraction(v, 100) for v in values)


_INPUTS = [
    _calibrated(_percent(98, 2), _percent(55, 45), 100),
    _calibrated(_percent(98, 1, 1), _percent(50, 30, 20), 100),
]


def _flattered(f: Trial, *, only_forecasts: bool = True) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, str]]:
    for probs, labels, given in _INPUTS:
        found, p = f(probs, labels), np.array(probs, dtype=np.float64)
        if not only_forecasts or _are_forecasts(found, p):
            yield found, p, np.array(labels), given


def _are_forecasts(found: np.ndarray, p: np.ndarray) -> bool:
    return found.shape == p.shape and is_distribution(found) and bool((found > 0).all())


@E27.law("each forecast stays a distribution, with the same likeliest class")
def _(f: Trial) -> Found:
    for found, p, _, given in _flattered(f, only_forecasts=False):
        top = np.sort(found, 1)
        kept = _are_forecasts(found, p) and (found.argmax(1) == p.argmax(1)).all() and (top[:, -1] > top[:, -2]).all()
        wanted = "entries above 0 with sum 1, the largest where it was"
        yield f.holds(bool(kept), f"first row {words(found[:1])}", wanted, given=given)


@E27.law("its ECE, in 15 bins, is below half a percent")
def _(f: Trial) -> Found:
    for found, _, labels, given in _flattered(f):
        ece = expected_calibration_error(found, labels)
        yield f.holds(ece < 0.005, f"ECE {words(ece)}", "below 0.005", given=given)


@E27.law("its log score is worse than that of the input, by 0.1 nats or more")
def _(f: Trial) -> Found:
    for found, p, labels, given in _flattered(f):
        new, old = negative_log_likelihood(found, labels), negative_log_likelihood(p, labels)
        yield f.holds(new >= old + 0.1, f"NLL {words(new)}", f"{words(old)} + 0.1 or more", given=given)
