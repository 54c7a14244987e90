"""Answers to the exercises on two classes and on reports: solutions and wrong ones, as ``losses.py`` explains."""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import quad

log = math.log


def price_of_costs(w, c, label, *, cost=True, swapped=False):
    def factor(t):
        return ((1 - t) if label != swapped else t) if cost else 1.0

    ends = (c, 1) if label else (0, c)
    return quad(lambda t: factor(t) * w(t), *ends)[0]


def weight(loss, c, h=None):
    h = min(1e-3, c / 10, (1 - c) / 10) if h is None else h

    def entropy(x):
        return (1 - x) * loss(x, 0) + x * loss(x, 1)

    return -(entropy(c + h) - 2 * entropy(c) + entropy(c - h)) / h**2


def mirrored(loss, c):
    """Take the price of label 0 for that of label 1 at 1 - c."""
    return weight(lambda x, label: loss(x if label == 0 else 1 - x, 0), c)


def screening_loss(c, label):
    """The prices of the weight w(t) = 1 / (t + a)^2, integrated by hand."""
    a = 0.01
    if label:
        return (1 + a) * (1 / (c + a) - 1 / (1 + a)) - log((1 + a) / (c + a))
    return log((c + a) / a) + a / (c + a) - 1


def quantile_loss(report, outcome, t):
    return max(t * (outcome - report), (t - 1) * (outcome - report))


def slope(loss, c, label, h=1e-5):
    return (loss(c + h, label) - loss(c - h, label)) / (2 * h)


def link(loss, c):
    """Minus the derivative of the entropy: the difference of the two prices, for a proper loss."""
    return loss(c, 0) - loss(c, 1)


def committee(weights, forecasts):
    w = np.array(weights) / np.sum(weights)
    g0, g1 = (-0.5 * np.log(w @ np.exp(-2 * (np.array(forecasts) - y) ** 2)) for y in (0, 1))
    return 0.5 + (g0 - g1) / 2


def geometric(weights, forecasts):
    x = np.clip(forecasts, 1e-9, 1 - 1e-9)
    z = np.average(np.log(x / (1 - x)), weights=weights)
    return 1 / (1 + np.exp(-z))


def gain(entropy, P, Q):
    pairs = [(p, q) for p, q in zip(P, Q, strict=True) if p + q > 0]
    return entropy(0.5) - sum((p + q) / 2 * entropy(p / (p + q)) for p, q in pairs)


def kl(P, Q):
    return sum(p * log(p / q) for p, q in zip(P, Q, strict=True) if p > 0)


HONEST = "honesty is the cheapest forecast"
DECISIONS, MEDIAN, MIXTURE = "the decisions between them", "cheaper than the median", "even mixture has another"
ZOO = {
    "E11": (
        price_of_costs,
        [
            (
                "from 0 for both labels",
                lambda w, c, y: -quad(lambda t: (1 - t) * w(t), 0, c)[0] if y else price_of_costs(w, c, 0),
                "sure and right costs nothing",
                "label 1",
            ),
            ("no cost", lambda w, c, y: price_of_costs(w, c, y, cost=False), DECISIONS, "label 0"),
            ("costs change sides", lambda w, c, y: price_of_costs(w, c, y, swapped=True), DECISIONS, "label 0"),
            (
                "both labels change sides",
                lambda w, c, y: price_of_costs(w, c, 1 - y) - price_of_costs(w, y, 1 - y),
                DECISIONS,
                "changed sides",
            ),
        ],
    ),
    "E12": (
        weight,
        [
            ("no minus", lambda loss, c: -weight(loss, c), "weighs all decisions the same", "entropies bend down"),
            (
                "a first derivative",
                lambda loss, c: slope(loss, c, 0),
                "weighs all decisions the same",
                "2",
            ),
            ("steps too wide for the ends", lambda loss, c: weight(loss, c, 0.015), "nearly sure", "c 0.05"),
            ("mirrors one label", mirrored, "need not mirror", "the price of the weight 2 c"),
        ],
    ),
    "E15": (
        screening_loss,
        [
            ("infinite below 2 %", lambda c, y: -log(c) if c > 0.02 else math.inf, "finite price", "c 0.01"),
            ("cross-entropy with a class weight", lambda c, y: -19 * log(c) if y else -log(1 - c), HONEST, "belief"),
            ("Brier", lambda c, y: (c - y) ** 2, "at least ten times", "2 at 5 %"),
            ("log loss", lambda c, y: -log(c if y else 1 - c), "at least ten times", "21.1 at 5 %"),
        ],
    ),
    "E16": (
        quantile_loss,
        [
            ("squared", lambda r, y, t: (r - y) ** 2, MEDIAN, "P(0) = 0.5, P(1) = 0.5"),
            ("squared pinball", lambda r, y, t: quantile_loss(r, y, t) ** 2, MEDIAN, "costs"),
            ("not finite", lambda r, y, t: math.nan, "answers every", "nan"),
            ("t and 1 - t", lambda r, y, t: quantile_loss(r, y, 1 - t), "at level 0.25", "the quantile"),
            ("absolute", lambda r, y, t: abs(r - y), "at level 0.25", "the quantile"),
            (
                "right for quarters only",
                lambda r, y, t: quantile_loss(r, y, min(max(t, 0.25), 0.75)),
                "at level 0.9",
                "the quantile",
            ),
            ("constant", lambda r, y, t: 1.0, "off costs more", "1 and 1"),
        ],
    ),
    "E17": (
        lambda: ([0, 1], [1, 0], [0, 1]),
        [
            ("not scaled", lambda: ([0, 1], [1, 1], [0, 1]), "two distributions", "sum 1"),
            ("two lists", lambda: ([0, 1], [1, 0]), "two distributions", "(outcomes, p, q)"),
            ("variances differ", lambda: ([0, 1], [1, 0], [0.5, 0.5]), "same variance", "0.25"),
            ("p = q", lambda: ([0, 1], [0.5, 0.5], [0.5, 0.5]), MIXTURE, "variance 0.25"),
            ("equal means", lambda: ([-1, 0, 1], [0.5, 0, 0.5], [0.5, 0, 0.5]), MIXTURE, "variance 1"),
        ],
    ),
    "E18": (
        link,
        [
            ("the sign", lambda loss, c: -link(loss, c), "rises", "the second above the first"),
            ("logit, always", lambda loss, c: log(c / (1 - c)), "convex", "loss (c - label)^2"),
            ("doubled", lambda loss, c: 2 * link(loss, c), "the slope of the price", "slope"),
            ("the price of label 0", lambda loss, c: loss(c, 0), "the slope of the price", "between"),
        ],
    ),
    "E22": (
        committee,
        [
            ("weights not scaled", lambda w, x: committee([0.3, *w], [0.5, *x]), "proportions", "weights doubled"),
            ("their mean", lambda w, x: np.average(x, weights=w), "either outcome", "forecasts"),
            ("a geometric mean", geometric, "either outcome", "forecasts"),
            ("the heaviest expert", lambda w, x: x[int(np.argmax(w))], "either outcome", "outcome"),
        ],
    ),
    "E44": (
        gain,
        [
            ("the risk that is left", lambda H, P, Q: H(0.5) - gain(H, P, Q), "says nothing", "0.25"),
            (
                "a mean under P",
                lambda H, P, Q: H(0.5) - sum(p * H(p / (p + q)) for p, q in zip(P, Q, strict=True) if p + q > 0),
                "risk before",
                "under P alone",
            ),
            ("KL for every loss", lambda H, P, Q: kl(P, Q), "risk before", "whatever the loss"),
            (
                "counts observations that never occur",
                lambda H, P, Q: gain(H, P, Q) - sum(0.1 for p, q in zip(P, Q, strict=True) if p + q == 0),
                "never occurs",
                "P (0.5, 0.5, 0)",
            ),
            (
                "divides by 0",
                lambda H, P, Q: H(0.5) - sum((p + q) / 2 * H(p / (p + q)) for p, q in zip(P, Q, strict=True)),
                "answers every",
                "ZeroDivisionError",
            ),
        ],
    ),
}
