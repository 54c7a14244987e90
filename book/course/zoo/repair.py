"""Answers to the exercises on repair, shift and sets: solutions and wrong ones, as ``losses.py`` explains."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax


def nll(z, y, beta):
    return -log_softmax(beta * np.array(z, float), axis=1)[np.arange(len(y)), y].mean()


def best_temperature(z, y):
    z = np.array(z, float)
    own = z[np.arange(len(y)), y]

    def slope(log_beta):
        beta = math.exp(log_beta)
        return ((softmax(beta * z, axis=1) * z).sum(1) - own).mean()

    if (z.max(1) == own).all():
        return 0.0
    return math.exp(-brentq(slope, -25, 25, xtol=1e-13))


def in_a_range(z, y):
    if (np.max(z, axis=1) == np.array(z)[np.arange(len(y)), y]).all():
        return 0.0
    return min(max(best_temperature(z, y), 0.05), 20.0)


def on_a_grid(z, y):
    return min(np.arange(1, 1000) / 100, key=lambda t: nll(z, y, 1 / t))


def least_brier(z, y):
    onehot = np.eye(len(z[0]))[y]
    return minimize_scalar(
        lambda t: ((softmax(np.array(z) / t, axis=1) - onehot) ** 2).sum(), bounds=(0.01, 50), method="bounded"
    ).x


ORDERS = list(itertools.permutations((0.5, 0.3, 0.2)))


def parity(p):
    return 1 if ORDERS.index(p) in (0, 3, 4) else -1  # the even ones, as itertools lists them


def two_tables():
    """Even orders of a forecast are off one way, odd ones the other: in each class they cancel."""
    first = [(1, (0.6, 0.3, 0.1), (0.6, 0.1, 0.3))]
    second = [(1, p, tuple(x + parity(p) * d for x, d in zip(p, (0.1, -0.05, -0.05), strict=True))) for p in ORDERS]
    return first, second


FULL = [(1, (0.6, 0.3, 0.1), (0.6, 0.3, 0.1))]
OFF = [(1, (0.6, 0.3, 0.1), (0.5, 0.4, 0.1))]


def keeps_decisions():
    """Logits that always name class 0, with labels that say otherwise."""
    z = [[1.0, 0.0], [1.2, 0.0], [0.9, 0.0], [1.1, 0.0], [0.8, 0.0], [0.0, 1.0], [0.2, 0.9], [1.0, 0.1]] * 4
    y = [1, 1, 1, 0, 1, 1, 0, 1] * 4
    return {"temperature": True, "ats": True} | dict.fromkeys(("vector", "matrix", "isotonic", "histogram"), (z, y))


HARMLESS = ([[2.0, 0.0], [0.0, 2.0], [1.5, 0.0], [0.0, 1.5], [1.0, 0.0], [0.0, 1.0]] * 4, [0, 1, 0, 1, 1, 0] * 4)


def for_new_prior(p, old, new):
    q = np.array(p) * new / old
    return q / q.sum()


def scaled(v):
    return np.array(v) / np.sum(v)


def threshold(scores, alpha, rank=None):
    n = len(scores)
    k = math.ceil((n + 1) * (1 - alpha) - 1e-9) if rank is None else rank
    return sorted(scores)[max(k, 1) - 1] if k <= n else math.inf


NLL, HUNDRED = "neither rises nor falls", "a hundred times"
COVERED, NO_MORE = "at least 1 - alpha", "no more are covered"
ZOO = {
    "E28": (
        two_tables,
        [
            ("one table", lambda: (FULL,), "two lists of rows", "two lists"),
            (
                "frequencies do not sum to 1",
                lambda: (FULL, [(1, (1, 0, 0), (1, 1, 0))]),
                "two lists of rows",
                "two lists",
            ),
            (
                "the first is off at the top",
                lambda: (OFF, two_tables()[1]),
                "for its likeliest",
                "came with frequency 0.5",
            ),
            ("the first is honest", lambda: (FULL, two_tables()[1]), "first table is not", "the frequency it was told"),
            (
                "the second is off",
                lambda: (two_tables()[0], two_tables()[0]),
                "calibrated class by class",
                "class 1 was given",
            ),
            ("the second is honest", lambda: (two_tables()[0], FULL), "as a whole", "its own frequencies"),
        ],
    ),
    "E29": (
        best_temperature,
        [
            ("1 / T", lambda z, y: 1 / t if (t := best_temperature(z, y)) else 0.0, NLL, "slope"),
            ("a grid", on_a_grid, NLL, "slope"),
            ("the least Brier score", least_brier, NLL, "slope"),
            ("1, always", lambda z, y: 1.0, NLL, "T = 1"),
            ("in a range", in_a_range, HUNDRED, "yours      20"),
            ("the smallest allowed", lambda z, y: best_temperature(z, y) or 0.05, "every sample is right", "0.05"),
        ],
    ),
    "E30": (
        keeps_decisions,
        [
            ("one is missing", lambda: {"temperature": True}, "an answer for each", "ats"),
            ("a word", lambda: keeps_decisions() | {"matrix": "no"}, "an answer for each", "matrix"),
            ("all keep", lambda: dict.fromkeys(keeps_decisions(), True), "said to keep", "vector"),
            ("logits that change nothing", lambda: keeps_decisions() | {"vector": HARMLESS}, "fitted on", "as before"),
            ("none keeps", lambda: keeps_decisions() | {"temperature": HARMLESS}, "fitted on", "temperature"),
            (
                "rows of different length",
                lambda: keeps_decisions() | {"vector": ([[1], [1, 2]], [0, 1])},
                "fitted on",
                "vector",
            ),
            ("one row", lambda: keeps_decisions() | {"isotonic": ([[1.0, 0.0]], [0])}, "fitted on", "isotonic"),
        ],
    ),
    "E32": (
        for_new_prior,
        [
            ("not scaled", lambda p, o, m: np.array(p) * m / o, "is a distribution", "sum"),
            ("forgets the old prior", lambda p, o, m: scaled(np.array(p) * m), "a prior that stays", "new"),
            ("upside down", lambda p, o, m: for_new_prior(p, m, o), "Bayes' rule", "upside down"),
            (
                "adds priors to logits",
                lambda p, o, m: softmax(np.log(p) + np.array(m) - o),
                "Bayes' rule",
                "by the logarithm of the ratio",
            ),
            ("nothing", lambda p, o, m: p, "Bayes' rule", "p"),
        ],
    ),
    "E34": (
        threshold,
        [
            ("n for n + 1", lambda s, a: threshold(s, a, math.ceil(len(s) * (1 - a) - 1e-9)), COVERED, "not of n"),
            (
                "rounded down",
                lambda s, a: threshold(s, a, math.floor((len(s) + 1) * (1 - a) + 1e-9)),
                COVERED,
                "rounded down",
            ),
            (
                "alpha",
                lambda s, a: threshold(s, a, math.ceil((len(s) + 1) * a - 1e-9)),
                COVERED,
                "in place of 1 - alpha",
            ),
            ("the largest", lambda s, a: max(s), COVERED, "alpha = 1/3"),
            (
                "never infinite",
                lambda s, a: threshold(s, a, min(len(s), math.ceil((len(s) + 1) * (1 - a) - 1e-9))),
                COVERED,
                "largest of them is too small",
            ),
            ("numpy's quantile", lambda s, a: np.quantile(s, 1 - a), COVERED, "interpolated"),
            ("unsorted", lambda s, a: s[min(int(len(s) * (1 - a)), len(s) - 1)], COVERED, "of all"),
            ("infinite", lambda s, a: math.inf, NO_MORE, "1 of all orders"),
            (
                "one rank too high",
                lambda s, a: threshold(s, a, math.ceil((len(s) + 1) * (1 - a)) + 1),
                NO_MORE,
                "below",
            ),
        ],
    ),
}
