"""Graders of exercises on losses of two classes and of reports on the line: weights, links, functionals, pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise, product

import numpy as np

from gence.course.small import beliefs, is_distribution
from gence.course.trial import Broken, Trial, anything, exercise, named, number, words
from gence.propriety import elicits

__all__ = ["E11", "E12", "E15", "E16", "E17", "E18", "E22", "E44"]

Found = Iterator[Broken | None]
log = math.log
# A weight of costs, and the prices of both labels that it adds up to.
FLAT = (named("1", lambda c: 1.0), lambda c: c**2 / 2, lambda c: (1 - c) ** 2 / 2)
RISING = (named("2 c", lambda c: 2 * c), lambda c: 2 * c**3 / 3, lambda c: 1 / 3 - c**2 + 2 * c**3 / 3)
STEEP = (named("1 / (c (1 - c))", lambda c: 1 / (c * (1 - c))), lambda c: -log(1 - c), lambda c: -log(c))
GRID = [Fraction(i, 20) for i in range(1, 20)]
SQUARED = named("(c - label)^2", lambda c, label: (c - label) ** 2)
LOG = named("-log of what c gives the label", lambda c, label: -log(c if label else 1 - c))
SKEW = named("the price of the weight 2 c", lambda c, label: RISING[1 + (label == 1)](c) if label else RISING[1](c))

E11 = exercise("E11", number)


@E11.law("a forecast that is sure and right costs nothing")
def _(f: Trial) -> Found:
    for (w, *_), label in product((FLAT, RISING), (0, 1)):
        yield f.differs(f(w, Fraction(label), label), 0, within=1e-4)


@E11.law("from one forecast to another the price moves by the decisions between them, each at its cost")
def _(f: Trial) -> Found:
    for (w, *prices), label, (a, b) in product((FLAT, RISING, STEEP), (0, 1), pairwise(GRID[1:-1:2])):
        own, other = (prices[k](float(b)) - prices[k](float(a)) for k in (label, 1 - label))
        given = f"w {words(w)}, label {label}: price at c = {words(b)} less price at c = {words(a)}"
        slips = {"the prices of the two labels have changed sides": other}
        yield f.differs(f(w, b, label) - f(w, a, label), own, given=given, slips=slips, within=1e-4)


E12 = exercise("E12", number)


def _weights(f: Trial, loss: Callable, w: Callable[[float], float]) -> Found:
    for c in [*GRID, Fraction(1, 50), Fraction(49, 50)]:
        right = w(float(c))
        yield f.differs(f(loss, c), right, slips={"the sign: entropies bend down": -right}, within=1e-3)


E12.law("the squared error weighs all decisions the same")(lambda f: _weights(f, SQUARED, lambda c: 2.0))
E12.law("the log loss weighs most what is nearly sure")(lambda f: _weights(f, LOG, STEEP[0]))
E12.law("the two labels need not mirror each other")(lambda f: _weights(f, SKEW, RISING[0]))

E15 = exercise("E15", number)
PERCENT = [Fraction(i, 100) for i in range(1, 100)]


@E15.law("every forecast strictly between 0 and 1 has a finite price")
def _(f: Trial) -> Found:
    for c, label in product(PERCENT, (0, 1)):
        price = f(c, label)
        yield f.holds(math.isfinite(price), words(price), "a finite number")


@E15.law("honesty is the cheapest forecast for every belief")
def _(f: Trial) -> Found:
    table = np.array([[f(c, 0), f(c, 1)] for c in PERCENT])
    for i, q in enumerate(PERCENT):
        risks = table @ [1 - float(q), float(q)]
        at = int(risks.argmin())
        given = f"belief {words(q)} in class 1, forecast {words(PERCENT[at])}"
        got, wanted = f"the forecast costs {words(risks[at], 7)}", f"honesty, {words(risks[i], 7)}, costs no more"
        yield f.holds(risks[at] >= risks[i] - 1e-9, got, wanted, given=given)


@E15.law("decisions at 5 % weigh at least ten times those at 50 %")
def _(f: Trial) -> Found:
    h = 1e-3

    def entropy(c: float) -> float:
        return (1 - c) * f(c, 0) + c * f(c, 1)

    low, middle = (-(entropy(c + h) - 2 * entropy(c) + entropy(c - h)) / h**2 for c in (0.05, 0.5))
    got = f"{words(low, 3)} at 5 %, {words(middle, 3)} at 50 %"
    given = "the weights at 5 % and at 50 %, from the entropy"
    yield f.holds(low >= 9.9 * middle > 0, got, "the first at least ten times the second, both above 0", given=given)


def _finite(found: object) -> float:
    if not math.isfinite(value := number(found)):
        raise ValueError(f"{value}, but a finite number is wanted")
    return value


E16 = exercise("E16", _finite)


def _asks_for(f: Trial, level: Fraction) -> Found:
    found = elicits(lambda report, y: f(report, y, level), ("quantile", float(level)), outcomes=(0.0, 1.0, 2.0))
    if found.outcomes is not None and not found.consistent:
        chances = ", ".join(
            f"P({words(y)}) = {words(p)}" for y, p in zip(found.outcomes, found.probabilities, strict=True)
        )
        right = " or ".join(words(a) if a == b else f"{words(a)} to {words(b)}" for a, b in found.wanted)
        got = f"the report {words(found.report)} costs {words(found.report_risk)}"
        wanted = f"the quantile, {right}, costs no more, but it costs {words(found.wanted_risk)}"
        yield Broken(f"level {words(level)}, {chances}", got, wanted)


E16.law("at level 1/2 no report is cheaper than the median")(lambda f: _asks_for(f, Fraction(1, 2)))
for _level in (Fraction(1, 4), Fraction(9, 10)):
    E16.law(f"at level {words(_level)} no report is cheaper than the quantile")(lambda f, t=_level: _asks_for(f, t))


@E16.law("a report that is off costs more than one that is right")
def _(f: Trial) -> Found:
    for level in (Fraction(1, 2), Fraction(1, 4)):
        near, far = f(0, 0, level), f(1, 0, level)
        given = f"outcome 0, level {words(level)}: the prices of the reports 0 and 1"
        yield f.holds(far > near, f"{words(near)} and {words(far)}", "the second above the first", given=given)


E17 = exercise("E17", anything)


def _mixed(f: Trial) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Outcomes, p and q as three vectors of the same length; an empty list where they are not that."""
    try:
        y, p, q = (np.asarray(part, dtype=np.float64) for part in f())
    except (TypeError, ValueError):
        return []
    fits = y.ndim == 1 and y.shape == p.shape == q.shape and is_distribution(np.stack([p, q]), 1e-9)
    return [(y, p, q)] if fits else []


def _variance(y: np.ndarray, p: np.ndarray) -> float:
    return float(p @ (y - p @ y) ** 2)


@E17.law("the answer is outcomes and two distributions over them, three lists of the same length")
def _(f: Trial) -> Found:
    yield f.holds(bool(_mixed(f)), repr(f())[:200], "(outcomes, p, q), p and q not below 0 and with sum 1")


@E17.law("both have the same variance")
def _(f: Trial) -> Found:
    for y, p, q in _mixed(f):
        given = f"outcomes {words(y)}, p {words(p)}, q {words(q)}: variance of q, beside that of p"
        yield f.differs(_variance(y, q), _variance(y, p), given=given)


@E17.law("their even mixture has another variance")
def _(f: Trial) -> Found:
    for y, p, q in _mixed(f):
        m = (p + q) / 2
        other = abs(_variance(y, m) - _variance(y, p)) > 1e-9
        given = f"outcomes {words(y)}, p {words(p)}, q {words(q)}, mixture {words(m)}"
        yield f.holds(other, f"variance {words(_variance(y, m))}", "another than that of p and q", given=given)


E18 = exercise("E18", number)
_COMPOSED = [(loss, pair) for loss in (LOG, SQUARED, SKEW) for pair in pairwise(GRID)]


@E18.law("a link rises with the probability")
def _(f: Trial) -> Found:
    for loss, (a, b) in _COMPOSED:
        low, high = f(loss, a), f(loss, b)
        given = f"loss {words(loss)}: scores at c = {words(a)} and {words(b)}"
        yield f.holds(high > low, f"{words(low)} and {words(high)}", "the second above the first", given=given)


@E18.law("behind the link the loss is convex in the score, for both labels")
def _(f: Trial) -> Found:
    for (loss, (a, b)), label in product(_COMPOSED, (0, 1)):
        if b == GRID[-1]:
            continue
        c = [float(x) for x in (a, b, b + Fraction(1, 20))]
        s = [f(loss, x) for x in (a, b, b + Fraction(1, 20))]
        price = [loss(x, label) for x in c]
        chord = price[0] + (price[2] - price[0]) * (s[1] - s[0]) / (s[2] - s[0])
        given = f"loss {words(loss)}, label {label}, scores {words(s)} of c = {words(c)}: price of the middle one"
        yield f.holds(
            price[1] <= chord + 1e-7, words(price[1], 6), f"at most the chord, {words(chord, 6)}", given=given
        )


@E18.law("the slope of the price in the score is c - label")
def _(f: Trial) -> Found:
    for (loss, (a, b)), label in product(_COMPOSED, (0, 1)):
        slope = (loss(float(b), label) - loss(float(a), label)) / (f(loss, b) - f(loss, a))
        low, high = float(a) - label, float(b) - label
        given = f"loss {words(loss)}, label {label}, from c = {words(a)} to {words(b)}"
        wanted = f"between {words(low)} and {words(high)}"
        yield f.holds(low - 1e-4 <= slope <= high + 1e-4, f"slope {words(slope)}", wanted, given=given)


E22 = exercise("E22", number)
_EXPERTS = [
    (w, x)
    for n in (2, 3)
    for w in beliefs(n, (2, 3, 4))
    for x in product([Fraction(i, 10) for i in ((0, 1, 5, 9, 10) if n == 2 else (0, 5, 10))], repeat=n)
]


@E22.law("only the proportions of the weights count")
def _(f: Trial) -> Found:
    for w, x in _EXPERTS:
        given = f"weights {words(w)}, forecasts {words(x)}, and the weights doubled"
        yield f.differs(f([2 * v for v in w], list(x)), f(list(w), list(x)), given=given)


@E22.law("for either outcome the price is at most -1/2 log of the sum of w exp(-2 (x - outcome)^2)")
def _(f: Trial) -> Found:
    for (w, x), outcome in product(_EXPERTS, (0, 1)):
        c = f(list(w), list(x))
        bound = -0.5 * log(sum(float(v) * math.exp(-2 * (float(u) - outcome) ** 2) for v, u in zip(w, x, strict=True)))
        price = (c - outcome) ** 2
        got, given = f"forecast {words(c)}, price {words(price, 6)}", f"{f.given}, outcome {outcome}"
        yield f.holds(price <= bound + 1e-9, got, f"a price of at most {words(bound, 6)}", given=given)


E44 = exercise("E44", number)
_ENTROPIES = [
    named("c (1 - c)", lambda c: c * (1 - c)),
    named("min(c, 1 - c)", lambda c: min(c, 1 - c)),
    named("-c log c - (1 - c) log(1 - c)", lambda c: -sum(x * log(x) for x in (c, 1 - c) if x > 0)),
]


def _kl(p: tuple, q: tuple) -> float:
    return sum(float(a) * log(a / b) for a, b in zip(p, q, strict=True))


@E44.law("an observation that says nothing, P = Q, is worth nothing")
def _(f: Trial) -> Found:
    for entropy, p in product(_ENTROPIES, beliefs(2, (2, 3)) + beliefs(3, (3,))):
        yield f.differs(f(entropy, list(p), list(p)), 0)


@E44.law("the gain is the risk before the observation, less the mean risk after it")
def _(f: Trial) -> Found:
    for entropy, n in product(_ENTROPIES, (2, 3)):
        for p, q in product(beliefs(n, (2, 3, 4)), repeat=2):
            pairs = [(float(a), float(b)) for a, b in zip(p, q, strict=True)]
            gain = entropy(0.5) - sum((a + b) / 2 * entropy(a / (a + b)) for a, b in pairs)
            slips = {
                "the mean is taken under P alone; half of all observations come from Q": entropy(0.5)
                - sum(a * entropy(a / (a + b)) for a, b in pairs),
                "this is KL(P, Q), whatever the loss": _kl(p, q),
            }
            yield f.differs(f(entropy, list(p), list(q)), gain, slips=slips)


@E44.law("an observation that never occurs changes nothing")
def _(f: Trial) -> Found:
    for entropy, (p, q) in product(_ENTROPIES, product(beliefs(2, (2, 3)), repeat=2)):
        without = f(entropy, list(p), list(q))
        yield f.differs(f(entropy, [*p, 0], [*q, 0]), without)
