"""Graders of exercises on losses of K classes: what they cost, what they ask for, how they are built."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np

from gence.course.small import FINE, HandLoss, as_floats, beliefs, is_distribution, lattice, smallest_lie
from gence.course.trial import Broken, Trial, exercise, named, number, numbers, words, yes_or_no

__all__ = ["E02", "E03", "E04", "E07", "E08", "E09", "E13", "E21"]

Found = Iterator[Broken | None]
log, sqrt = math.log, math.sqrt


def _squares(p: list[float], k: int) -> float:
    return sum((x - (j == k)) ** 2 for j, x in enumerate(p))


def _smoothed(amount: float) -> HandLoss:
    return lambda p, k: -(1 - amount) * log(p[k]) - amount / len(p) * sum(map(log, p))


def _entropic(amount: float) -> HandLoss:
    return lambda p, k: -log(p[k]) - amount * sum(x * log(x) for x in p)


CE = named("-log p_y", lambda p, k: -log(p[k]))
SQUARES = named("sum of (p - e_y)^2", _squares)
SPHERE = named("-p_y / |p|", lambda p, k: -p[k] / sqrt(sum(x * x for x in p)))
ZERO_ONE = named("1 unless the label has the largest p", lambda p, k: float(p.index(max(p)) != k))
FOCAL = named("-(1 - p_y)^2 log p_y", lambda p, k: -((1 - p[k]) ** 2) * log(p[k]))
LINEAR = named("1 - p_y", lambda p, k: 1 - p[k])
LQ = named("(1 - p_y^0.7) / 0.7", lambda p, k: (1 - p[k] ** 0.7) / 0.7)
SMOOTH = named("-log p_y with labels smoothed by 0.3", _smoothed(0.3))
HONEST = [CE, SQUARES, SPHERE, ZERO_ONE, named("3 + 2 sum of (p - e_y)^2", lambda p, k: 3 + 2 * _squares(p, k))]
HONEST += [named("-log2 p_y", lambda p, k: -math.log2(p[k])), named("1, always", lambda p, k: 1.0)]
HONEST += [named("-log p_y + sum of (p - e_y)^2", lambda p, k: CE(p, k) + _squares(p, k))]
HONEST += [named("sum of (p - e_y)^2 over classes 0 and 1", lambda p, k: _squares(p[:2], k))]
PLAIN_LIES = [LINEAR, FOCAL, LQ, SMOOTH]
PLAIN_LIES += [named("-p_y / |p|^2", lambda p, k: -p[k] / sum(x * x for x in p))]
PLAIN_LIES += [named("-log p_y, three times for class 0", lambda p, k: -(3 if k == 0 else 1) * log(p[k]))]
PLAIN_LIES += [named("-log max(p_y, 0.3)", lambda p, k: -log(max(p[k], 0.3)))]
SMALL_LIES = [named("-log p_y with labels smoothed by 0.01", _smoothed(0.01))]
SMALL_LIES += [named("-log p_y less 0.02 times the entropy of p", _entropic(-0.02))]
SMALL_LIES += [named("-log p_y, 1.02 times for class 0", lambda p, k: -(1.02 if k == 0 else 1) * log(p[k]))]
SUMMITS = [named("minus the sum of (p - e_y)^2", lambda p, k: -_squares(p, k))]
SUMMITS += [named("log p_y", lambda p, k: log(p[k]))]
OF_THREE = [named("(1 - p_y)^2", lambda p, k: (1 - p[k]) ** 2)]
OF_THREE += [
    named("sum of (p - e_y)^2 less p_2^2 for labels 0 and 1", lambda p, k: _squares(p, k) - (k < 2) * p[2] ** 2)
]


def honest_is_cheapest(f: Trial, sizes: tuple[int, ...] = (2, 3), *more: object) -> Found:
    """The smallest lie of a student's loss of (p, label, ...), if it has one."""
    for n_classes in sizes:
        lie = smallest_lie(lambda p, k: f(p, k, *more), n_classes)
        yield lie and lie.broken()


E02 = exercise("E02", numbers(None))


def _log_softmax(z: tuple[float, ...]) -> np.ndarray:
    top = max(z)
    return np.array([x - top - log(math.fsum(math.exp(y - top) for y in z)) for x in z])


def _rows(levels: tuple[float, ...], sizes: tuple[int, ...] = (1, 2, 3)) -> Iterator[tuple[float, ...]]:
    return (z for n in sizes for z in product(levels, repeat=n))


@E02.law("each entry is its logit less the log of the sum of exponentials")
def _(f: Trial) -> Found:
    for z in _rows((0, 1, -1)):
        right, p = _log_softmax(z), np.exp(_log_softmax(z))
        slips = {"this is the softmax, without its logarithm": p, "a logarithm to the base 2": right / log(2)}
        yield f.differs(f(list(z)), right, slips=slips, within=1e-12)


@E02.law("large logits lose nothing")
def _(f: Trial) -> Found:
    for z in _rows((0, 50, -50, 10_000, -10_000)):
        yield f.differs(f(list(z)), _log_softmax(z), within=1e-12)


@E02.law("a masked class, with logit -inf, has log-probability -inf and leaves the others alone")
def _(f: Trial) -> Found:
    for z in _rows((0, 1, -math.inf), (2, 3)):
        if max(z) > -math.inf:
            yield f.differs(f(list(z)), _log_softmax(z), within=1e-12)


E03 = exercise("E03", numbers(None))
_ASKED = [(loss, q) for loss in (CE, LINEAR, FOCAL, LQ, SMOOTH) for n in (2, 3) for q in beliefs(n, (2, 3, 4, 5))[:6]]


@E03.law("an answer is a distribution over the classes")
def _(f: Trial) -> Found:
    for loss, q in _ASKED:
        p = f(loss, list(q))
        yield f.holds(len(p) == len(q) and is_distribution(p), words(p), f"{len(q)} probabilities that sum to 1")


@E03.law("no other answer is cheaper under the belief")
def _(f: Trial) -> Found:
    for loss, q in _ASKED:
        answers, prices = _price_list(loss, len(q))
        p, risks = f(loss, list(q)).tolist(), prices @ np.array(q, dtype=np.float64)
        cost, least = _risk(loss, p, q), int(risks.argmin())
        wanted = f"at most {words(risks[least], 7)}, the price of {words(answers[least])}"
        yield f.holds(cost <= risks[least] + 1e-6, f"{words(p)}, which costs {words(cost, 7)}", wanted)


@cache
def _price_list(loss: HandLoss, n_classes: int) -> tuple[list[list[float]], np.ndarray]:
    """Answers, almost sure ones among them, and what each costs with each label."""
    answers = [as_floats(p) for p in lattice(n_classes, FINE)] + np.eye(n_classes).clip(1e-9).tolist()
    return answers, np.array([[loss(p, k) for k in range(n_classes)] for p in answers])


def _risk(loss: HandLoss, p: list[float], q: tuple[Fraction, ...]) -> float:
    try:
        return math.fsum(float(x) * loss(p, k) for k, x in enumerate(q))
    except (ValueError, ZeroDivisionError):  # the logarithm of 0
        return math.inf


E04 = exercise("E04", yes_or_no)


@E04.law("it calls a proper loss proper")
def _(f: Trial) -> Found:
    for loss, n in product(HONEST, (2, 3)):
        yield f.differs(f(loss, n), True)


def _caught(f: Trial, losses: list[HandLoss], sizes: tuple[int, ...]) -> Found:
    for loss, n in product(losses, sizes):
        if f(loss, n):
            lie = smallest_lie(loss, n)
            costs = f"costs {words(lie.costs, 7)}, honesty {words(lie.honest, 7)}"
            yield Broken(
                f.given, "True", f"False: for the belief {words(lie.belief)} the answer {words(lie.answer)} {costs}"
            )


E04.law("it catches a loss that distorts beliefs in two classes")(lambda f: _caught(f, PLAIN_LIES, (2,)))
E04.law("it catches a loss for which honesty is stationary, and the worst answer")(lambda f: _caught(f, SUMMITS, (2,)))
E04.law("it catches a loss that only distorts beliefs in three classes")(lambda f: _caught(f, OF_THREE, (3,)))
E04.law("it catches a small lie")(lambda f: _caught(f, SMALL_LIES, (2, 3)))


E07 = exercise("E07", number)
ENTROPIES = [
    (named("1 - |p|^2", lambda p: 1 - sum(x * x for x in p)), named("its gradient", lambda p: [-2 * x for x in p])),
    (
        named("-sum of p log p", lambda p: -sum(x * log(x) for x in p)),
        named("its gradient", lambda p: [-log(x) - 1 for x in p]),
    ),
    (
        named("sum of roots of p", lambda p: sum(map(sqrt, p))),
        named("its gradient", lambda p: [0.5 / sqrt(x) for x in p]),
    ),
]


@E07.law("on average, honesty costs the entropy")
def _(f: Trial) -> Found:
    for (entropy, gradient), n in product(ENTROPIES, (2, 3)):
        for p in beliefs(n, (2, 3, 4)):
            mean = sum(float(x) * f(entropy, gradient, list(p), k) for k, x in enumerate(p))
            given = f"entropy {words(entropy)}, p {words(p)}, all labels with probabilities p"
            yield f.differs(mean, entropy([float(x) for x in p]), given=given)


@E07.law("honesty is the cheapest answer for every belief")
def _(f: Trial) -> Found:
    for entropy, gradient in ENTROPIES:
        lie = smallest_lie(lambda p, k, e=entropy, g=gradient: f(e, g, p, k), 2)
        if lie:
            b = lie.broken()
            yield Broken(f"entropy {words(entropy)}, {b.given}", b.got, b.wanted)


E08 = exercise("E08", number)
E08.law("honesty is the cheapest answer for every belief")(honest_is_cheapest)


@E08.law("an answer p costs |p - q|^2 more than the belief q")
def _(f: Trial) -> Found:
    for n in (2, 3, 4):
        for q, p in product(beliefs(n, (n, n + 1)), beliefs(n, (n, n + 1))):
            extra = sum(float(x) * (f(list(p), k) - f(list(q), k)) for k, x in enumerate(q))
            right = sum(float(a - b) ** 2 for a, b in zip(p, q, strict=True))
            slips = {"a mean over the classes instead of a sum": right / n, "half of it": right / 2}
            yield f.differs(extra, right, given=f"belief {words(q)}, answer {words(p)}: what p costs more", slips=slips)


@E08.law("a sure answer that is right costs nothing")
def _(f: Trial) -> Found:
    for n in (2, 3, 4):
        for k in range(n):
            yield f.differs(f([float(j == k) for j in range(n)], k), 0)


E09 = exercise("E09", number)


@E09.law("honesty is the cheapest answer for every belief, b = 2, 1.5 and 3")
def _(f: Trial) -> Found:
    for b in (2, Fraction(3, 2), 3):
        for broken in honest_is_cheapest(f, (2, 3), b):
            yield broken and Broken(f"b {words(b)}, {broken.given}", broken.got, broken.wanted, broken.slips)


@E09.law("(1 + loss) / (b - 1) tends to -log p_y as b tends to 1")
def _(f: Trial) -> Found:
    for n in (2, 3):
        for p, k in product(beliefs(n, (2, 3, 4)), range(n)):
            b = 1 + 1e-6
            given = f"p {words(p)}, label {k}, b 1.000001: (1 + loss) / (b - 1)"
            yield f.differs((1 + f(list(p), k, b)) / (b - 1), -log(p[k]), given=given, within=1e-4)


E13 = exercise("E13", numbers(None))
_FOCAL_ANSWERS = [(p, g) for g in (2, 1, Fraction(1, 2), 5) for n in (2, 3, 4) for p in beliefs(n, (2, 3, 4, 5))]


@E13.law("a belief is a distribution over the classes")
def _(f: Trial) -> Found:
    for p, gamma in _FOCAL_ANSWERS:
        q = f(list(p), gamma)
        yield f.holds(len(q) == len(p) and is_distribution(q), words(q), f"{len(p)} probabilities that sum to 1")


@E13.law("what is likeliest in p is likeliest in the belief")
def _(f: Trial) -> Found:
    for p, gamma in _FOCAL_ANSWERS:
        if p.count(max(p)) == 1:
            q, k = f(list(p), gamma), p.index(max(p))
            yield f.holds(q[k] >= max(q) - 1e-9, f"{words(q)}, where class {q.argmax()} leads", f"class {k} leads")


@E13.law("under that belief the risk is level at p: no probability wants to move")
def _(f: Trial) -> Found:
    for p, gamma in _FOCAL_ANSWERS:
        q, g = f(list(p), gamma), float(gamma)
        slopes = [
            x * (g * (1 - r) ** (g - 1) * log(r) - (1 - r) ** g / r) for x, r in zip(q, map(float, p), strict=True)
        ]
        got = f"{words(q)}: slopes of the risk in p {words(slopes)}"
        yield f.holds(max(slopes) - min(slopes) <= 1e-6, got, "a belief under which the slopes are all the same")


E21 = exercise("E21", number)


def _pull(loss: HandLoss, p: list[float], k: int, h: float = 1e-5) -> float:
    """Slope in the logit of the label, by differences."""
    sides = []
    for step in (h, -h):
        raised = [x * math.exp(step * (j == k)) for j, x in enumerate(p)]
        sides.append(loss([x / sum(raised) for x in raised], k))
    return (sides[0] - sides[1]) / (2 * h)


def _pulls(f: Trial, losses: list[HandLoss]) -> Found:
    for loss, n in product(losses, (2, 3)):
        for q, k in product(beliefs(n, (2, 3, 4, 5)), range(n)):
            p = [float(x) for x in q]
            slope = _pull(loss, p, k)
            slips = {
                "with its sign; a weight is a size": slope,
                "a slope in p, not in the logit": -slope / (p[k] * (1 - p[k])),
            }
            yield f.differs(f(loss, list(q), k), abs(slope), slips=slips, within=1e-4)


E21.law("cross-entropy weighs a sample by 1 - p_y")(lambda f: _pulls(f, [CE]))
E21.law("other losses weigh it by how fast they fall with its logit")(lambda f: _pulls(f, [FOCAL, LQ, SQUARES, LINEAR]))
