"""Graders of exercises on repair: senses of calibrated, temperatures, other calibrators, new priors, conformal sets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import permutations, product
from typing import Any

import numpy as np
from scipy.special import softmax

from gence.calibration import make_calibrator
from gence.course.small import beliefs, is_distribution
from gence.course.trial import Broken, Trial, anything, exercise, number, numbers, words

__all__ = ["E28", "E29", "E30", "E32", "E34"]

Found = Iterator[Broken | None]

E28 = exercise("E28", anything)
Table = list[tuple[float, np.ndarray, np.ndarray]]


def _joint(f: Trial) -> list[Table]:
    """Two tables of rows (weight, forecast, frequencies); an empty list where they are not that."""
    try:
        tables = [[(float(w), np.array(p, float), np.array(q, float)) for w, p, q in table] for table in f()]
    except (TypeError, ValueError):
        return []
    rows = [row for table in tables for row in table]
    fits = len(tables) == 2 and all(
        w > 0 and p.shape == q.shape == (3,) and is_distribution(np.stack([p, q])) for w, p, q in rows
    )
    return tables if fits and all(tables) else []


def _off(table: Table, *, classwise: bool) -> str | None:
    """The first group whose frequency is not what it was told, in words; of a class, or of the likeliest class."""
    groups: dict[tuple[int | str, float], list[tuple[float, float]]] = {}
    for w, p, q in table:
        for k in range(3) if classwise else [int(p.argmax())]:
            key = (f"class {k}" if classwise else "the likeliest class", round(float(p[k]), 9))
            groups.setdefault(key, []).append((w, float(q[k])))
    for (what, level), members in groups.items():
        frequency = sum(w * x for w, x in members) / sum(w for w, _ in members)
        if abs(frequency - level) > 1e-6:
            return f"{what} was given {words(level)} and came with frequency {words(frequency)}"
    return None


@E28.law("the answer is two lists of rows (weight, forecast, frequencies), of three classes")
def _(f: Trial) -> Found:
    yield f.holds(bool(_joint(f)), repr(f())[:200], "two lists of such rows")


def _calibration(f: Trial, which: int, *, classwise: bool, wanted: bool) -> Found:
    for table in _joint(f)[which : which + 1]:
        off, honest = _off(table, classwise=classwise), "every group has the frequency it was told"
        given = f"your {('first', 'second')[which]} table"
        yield f.holds((off is None) == wanted, off or honest, honest if wanted else "some group has not", given=given)


E28.law("the first table is calibrated for its likeliest classes")(
    lambda f: _calibration(f, 0, classwise=False, wanted=True)
)
E28.law("the first table is not calibrated class by class")(lambda f: _calibration(f, 0, classwise=True, wanted=False))
E28.law("the second table is calibrated class by class")(lambda f: _calibration(f, 1, classwise=True, wanted=True))


@E28.law("the second table is not calibrated as a whole")
def _(f: Trial) -> Found:
    means: dict[tuple, list] = {}
    for w, p, q in (row for table in _joint(f)[1:] for row in table):
        means.setdefault(tuple(np.round(p, 9)), []).append((w, q))
    off = [
        p for p, rows in means.items() if np.abs(sum(w * q for w, q in rows) / sum(w for w, _ in rows) - p).max() > 1e-6
    ]
    wanted = "a forecast that is not followed by its own frequencies"
    yield f.holds(
        bool(off) or not means, "each forecast is followed by its own frequencies", wanted, given="your second table"
    )


E29 = exercise("E29", number)


def _slope(z: np.ndarray, y: tuple[int, ...], beta: float) -> float:
    """Derivative of the NLL in beta = 1 / T: mean of the expected logit less that of the label."""
    return float(((softmax(beta * z, axis=1) * z).sum(1) - z[np.arange(len(y)), list(y)]).mean())


def _logits() -> Iterator[tuple[tuple, tuple[int, ...]]]:
    """Small tables with a best temperature: better than chance, and not free of errors."""
    for n, levels in ((2, (0, 1, 2)), (3, (0, 2)), (4, (0, 3))):
        for a in product(levels, repeat=n):
            z = tuple((x, levels[-1] - x if n > 2 else 0) for x in a)
            for y in product((0, 1), repeat=n):
                table = np.array(z, dtype=np.float64)
                if _slope(table, y, 0) < -1e-9 and (table.max(1) - table[range(n), list(y)]).sum() > 0:
                    yield z, y


def _lists(z: tuple) -> list:
    return [list(row) for row in z]


@E29.law("at 1 / T the NLL neither rises nor falls")
def _(f: Trial) -> Found:
    for z, y in _logits():
        t = f(_lists(z), list(y))
        slope = _slope(np.array(z, dtype=np.float64), y, 1 / t) if t > 0 else math.nan
        wanted = "a temperature at which that slope is 0"
        yield f.holds(abs(slope) < 1e-5, f"T = {words(t)}, where the NLL has the slope {words(slope)} in 1 / T", wanted)


@E29.law("a hundred times the logits have a hundred times the temperature")
def _(f: Trial) -> Found:
    for z, y in _logits():
        more = tuple(tuple(100 * x for x in row) for row in z)
        given = f"logits {words(more)}, labels {words(y)}"
        yield f.differs(f(_lists(more), list(y)), 100 * f(_lists(z), list(y)), given=given, within=1e-4)


@E29.law("where every sample is right the NLL falls all the way to T = 0: the answer is 0")
def _(f: Trial) -> Found:
    for n in (1, 2, 3):
        for y in product((0, 1), repeat=n):
            yield f.differs(f([[2 * (k == label) for k in (0, 1)] for label in y], list(y)), 0, within=1e-3)


E30 = exercise("E30", anything)
ON_TRIAL = ("temperature", "ats", "vector", "matrix", "isotonic", "histogram")


def _answers(f: Trial) -> dict[str, Any]:
    """Of each calibrator what was said; only what is True, or a pair, is an answer."""
    found = f()
    found = found if isinstance(found, dict) else {}
    return {
        name: said
        for name in ON_TRIAL
        if (said := found.get(name)) is True or (isinstance(said, tuple | list) and len(said) == 2)
    }


@E30.law("there is an answer for each calibrator: True, or (logits, labels)")
def _(f: Trial) -> Found:
    answers = _answers(f)
    for name in ON_TRIAL:
        yield f.holds(name in answers, "no such answer", "True, or (logits, labels)", given=name)


@E30.law("what is said to keep every decision does so")
def _(f: Trial) -> Found:
    for name, said in _answers(f).items():
        kept = said is not True or make_calibrator(name).keeps_order
        yield f.holds(kept, "True", "logits and labels after which it decides otherwise exist", given=name)


@E30.law("a calibrator fitted on the logits and labels handed in decides otherwise for one of these rows")
def _(f: Trial) -> Found:
    for name, said in _answers(f).items():
        if said is True:
            continue
        try:
            z, y = (np.asarray(part) for part in said)
            new = make_calibrator(name).fit(z, y).predict(z)
        except (ValueError, TypeError) as problem:
            yield Broken(name, f"not taken: {problem}"[:200], "logits and labels that it can be fitted on")
            continue
        got = f"decisions {words(new[:8])}, as before"
        yield f.holds(bool((new != z.argmax(1)).any()), got, "another decision for some row", given=name)


E32 = exercise("E32", numbers(None))
_SHIFTS = [
    case for n in (2, 3) for case in product(beliefs(n, (2, 3, 4)), beliefs(n, (2, 3, 4)), beliefs(n, (2, 3, 4)))
]


def _scaled(v: list[float]) -> list[float]:
    return [x / sum(v) for x in v]


@E32.law("the answer is a distribution")
def _(f: Trial) -> Found:
    for p, old, new in _SHIFTS:
        found = f(list(p), list(old), list(new))
        yield f.holds(is_distribution(found), f"{words(found)}, sum {words(found.sum())}", "entries that sum to 1")


@E32.law("a prior that stays changes nothing")
def _(f: Trial) -> Found:
    for p, old, new in _SHIFTS:
        if old == new:
            yield f.differs(f(list(p), list(old), list(new)), np.array(p, dtype=np.float64))


@E32.law("the answer is that of Bayes' rule with the new prior and the same p(x given y)")
def _(f: Trial) -> Found:
    for p, old, new in _SHIFTS:
        parts = [[float(x) for x in v] for v in zip(p, old, new, strict=True)]
        right = _scaled([a * m / o for a, o, m in parts])
        slips = {
            "the ratio of the priors is upside down": _scaled([a * o / m for a, o, m in parts]),
            "logits move by the logarithm of the ratio of the priors": _scaled(
                [a * math.exp(m - o) for a, o, m in parts]
            ),
        }
        yield f.differs(f(list(p), list(old), list(new)), np.array(right), slips=slips)


E34 = exercise("E34", number)


def _coverage(f: Trial) -> Iterator[tuple[int, Fraction, Fraction, str]]:
    """For n scores and alpha: the share of all orders in which the last score is covered, and one that is not."""
    for n in range(1, 6):
        for alpha in map(Fraction, ("1/2", "1/3", "2/5", "1/4", "1/5", "1/10")):
            missed = [o for o in permutations(range(1, n + 2)) if o[-1] > f(list(o[:-1]), alpha)]
            yield n, alpha, 1 - Fraction(len(missed), math.factorial(n + 1)), words(missed[0]) if missed else "none"


def _slips(n: int, alpha: Fraction) -> dict[str, Fraction]:
    """What share of orders is covered if the threshold is the score of another rank."""
    ranks = {
        "the new score is one of n + 1, not of n": math.ceil(n * (1 - alpha)),
        "rounded down; coverage has to be at least 1 - alpha": math.floor((n + 1) * (1 - alpha)),
        "alpha in place of 1 - alpha": math.ceil((n + 1) * alpha),
        "where all n scores are too few, the largest of them is too small": min(n, math.ceil((n + 1) * (1 - alpha))),
        "a quantile of the n scores, interpolated; the promise is about the rank of one among n + 1": _interpolated(
            n, alpha
        ),
    }
    return {name: Fraction(rank, n + 1) if rank <= n else Fraction(1) for name, rank in ranks.items()}


def _interpolated(n: int, alpha: Fraction) -> int:
    """How many places of a new score among n others lie below their quantile at 1 - alpha, as NumPy has it."""
    rest = (n - 1) * (1 - alpha)
    return math.floor(rest) + 1 + (rest % 1 >= Fraction(1, 2))


@E34.law("of all orders of n + 1 scores at least 1 - alpha have the last one at or below the threshold")
def _(f: Trial) -> Found:
    cases = list(_coverage(f))
    # Where it is right counts, too: two of the mistakes fail at the same inputs and differ elsewhere.
    same = frozenset(name for name in _slips(1, Fraction(1)) if all(_slips(n, a)[name] == c for n, a, c, _ in cases))
    for n, alpha, covered, missed in cases:
        given = f"n = {n} scores, alpha = {words(alpha)}; for instance {missed}: the last is the new one, and left out"
        got = f"{words(covered)} of all {math.factorial(n + 1)} orders"
        yield None if covered >= 1 - alpha else Broken(given, got, f"{words(1 - alpha)} or more", same)


@E34.law("no more are covered than must be: below 1 - alpha + 1 / (n + 1)")
def _(f: Trial) -> Found:
    for n, alpha, covered, _ in _coverage(f):
        most = 1 - alpha + Fraction(1, n + 1)
        given = f"n = {n} scores, alpha = {words(alpha)}"
        got = f"{words(covered)} of all orders"
        yield f.holds(most > 1 or covered < most, got, f"below {words(most)}", given=given)
