"""Answers to the exercises on losses of K classes: a solution of each, and wrong ones with what must refuse them.

A wrong one is (the mistake, the function, words of the property that must break, words that the answer must hold).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.special import log_softmax, softmax

log, sqrt = math.log, math.sqrt


def moved(p, i, j, t):
    return [x + t if k == i else x - t if k == j else x for k, x in enumerate(p)]


def best_answer(loss, belief):
    """Search corners and a lattice, then ever smaller steps from the best points found."""
    n = len(belief)

    def risk(p):
        return sum(q * loss(p, k) for k, q in enumerate(belief) if q)

    corners = [[1 - (n - 1) * 1e-12 if k == j else 1e-12 for k in range(n)] for j in range(n)]
    cuts = itertools.combinations(range(1, 30), n - 1)
    lattice = [[(b - a) / 30 for a, b in zip((0, *c), (*c, 30), strict=True)] for c in cuts]
    starts = sorted([*corners, *lattice], key=risk)[:2]
    found = []
    for p in starts:
        step, least = 1 / 30, risk(p)
        while step > 1e-7:
            tries = [moved(p, i, j, step) for i, j in itertools.permutations(range(n), 2) if p[j] > step]
            q = min(tries, key=risk, default=p)
            if (r := risk(q)) < least:
                p, least = q, r
            else:
                step /= 2
        found.append((least, p))
    return min(found)[1]


def lattice_points(n, d):
    cuts = itertools.combinations(range(1, d), n - 1)
    return np.array([np.diff((0, *c, d)) for c in cuts]) / d


def is_proper(loss, n_classes, *, small=1e-10, denominators=(2, 3, 4, 5, 10), close=True):
    """Compare honesty with all answers of a lattice, and with small steps to all sides."""
    answers = lattice_points(n_classes, 60 if n_classes == 2 else 20)
    table = np.array([[loss(p, k) for k in range(n_classes)] for p in answers.tolist()])
    for q in (q for d in denominators if d >= n_classes for q in lattice_points(n_classes, d).tolist()):

        def risk(p, q=q):
            return math.fsum(x * loss(p, k) for k, x in enumerate(q))

        honest = risk(q)
        if (table @ q).min() < honest - small:
            return False
        pairs = itertools.permutations(range(n_classes), 2)
        if close and any(risk(moved(q, i, j, 1e-4)) < honest - 1e-9 for i, j in pairs):
            return False
    return True


def always_at_corner(loss, n_classes):
    """Look at sure answers only."""
    corners = np.full((n_classes, n_classes), 1e-3) + np.eye(n_classes) * (1 - n_classes * 1e-3)
    for q in lattice_points(n_classes, 10).tolist():
        risks = [sum(x * loss(p, k) for k, x in enumerate(q)) for p in (q, *corners.tolist())]
        if min(risks[1:]) < risks[0] - 1e-9:
            return False
    return True


def is_stationary(loss, n_classes):
    """Look at the slope only, which is 0 at the worst answer, too."""
    for q in lattice_points(n_classes, 10).tolist():
        for i, j in itertools.combinations(range(n_classes), 2):
            ends = [sum(x * loss(moved(q, i, j, t), k) for k, x in enumerate(q)) for t in (1e-4, -1e-4)]
            if abs(ends[0] - ends[1]) / 2e-4 > 1e-3:
                return False
    return True


def price(entropy, gradient, p, label):
    g = gradient(p)
    return entropy(p) + g[label] - sum(a * b for a, b in zip(g, p, strict=True))


def brier(p, label):
    return sum((x - (k == label)) ** 2 for k, x in enumerate(p))


def pseudospherical(p, label, b):
    return -((p[label] / sum(x**b for x in p) ** (1 / b)) ** (b - 1))


def belief_behind(p, gamma, power=1.0):
    p = np.array(p)
    slopes = (1 - p) ** gamma / p - gamma * (1 - p) ** (gamma - 1) * np.log(p)
    return (1 / slopes**power) / (1 / slopes**power).sum()


def pull(loss, p, label, h=1e-5):
    z = np.log(p)

    def at(step):
        return loss(softmax(z + step * (np.arange(len(p)) == label)).tolist(), label)

    return abs(at(h) - at(-h)) / (2 * h)


def slope_in_p(loss, p, label, h=1e-6):
    ends = [loss([x + t * (k == label) for k, x in enumerate(p)], label) for t in (h, -h)]
    return abs(ends[0] - ends[1]) / (2 * h)


HONEST, PLANE = "honesty is the cheapest", "honesty costs the entropy"
ZOO = {
    "E02": (
        lambda logits: log_softmax(logits),
        [
            ("no logarithm", lambda z: softmax(z), "each entry", "without its logarithm"),
            ("base 2", lambda z: log_softmax(z) / log(2), "each entry", "base 2"),
            ("only the sum", lambda z: -np.log(np.exp(z).sum()) * np.ones(len(z)), "each entry", "logits (1)"),
            ("overflows", lambda z: np.log(np.exp(z) / np.exp(z).sum()), "large logits", "logits (10000)"),
            (
                "subtracts the mean",
                lambda z: (z - np.mean(z)) - np.log(np.exp(z - np.mean(z)).sum()),
                "large logits",
                "(0, 10000)",
            ),
            ("adds 1e-30", lambda z: np.log(softmax(z) + 1e-30), "large logits", "-49.99"),
            ("raises", lambda z: [x - log(sum(map(math.exp, z))) for x in z], "answers every", "OverflowError"),
            ("clamps at -1e5", lambda z: np.maximum(log_softmax(z), -1e5), "masked", "-inf"),
        ],
    ),
    "E03": (
        best_answer,
        [
            ("not scaled", lambda loss, q: [2 * x for x in q], "is a distribution", "sum to 1"),
            ("honest, always", lambda loss, q: q, "no other answer", "loss 1 - p_y"),
            ("a corner, always", lambda loss, q: np.eye(len(q))[np.argmax(q)], "no other answer", "-log p_y"),
            (
                "a coarse grid",
                lambda loss, q: min(
                    lattice_points(len(q), 12).tolist(), key=lambda p: sum(x * loss(p, k) for k, x in enumerate(q))
                ),
                "no other answer",
                "the price of",
            ),
            ("one label only", lambda loss, q: best_answer(loss, np.eye(len(q))[0]), "no other answer", "-log p_y"),
        ],
    ),
    "E04": (
        is_proper,
        [
            ("refuses all", lambda loss, n: False, "proper loss proper", "-log p_y"),
            (
                "wants it strict",
                lambda loss, n: is_proper(loss, n) and loss([0.6] + [0.4 / (n - 1)] * (n - 1), 0) != 1.0,
                "proper loss proper",
                "1, always",
            ),
            (
                "wants the least price at certainty to be 0",
                lambda loss, n: is_proper(loss, n) and abs(loss([1 - 1e-9] + [1e-9 / (n - 1)] * (n - 1), 0)) < 1e-6,
                "proper loss proper",
                "-p_y / |p|",
            ),
            ("accepts all", lambda loss, n: True, "two classes", "1 - p_y"),
            ("sure answers only", always_at_corner, "two classes", "the answer"),
            ("slopes only", is_stationary, "stationary", "minus the sum"),
            ("two classes only", lambda loss, n: n > 2 or is_proper(loss, n), "three classes", "(1 - p_y)^2"),
            (
                "a loose tolerance",
                lambda loss, n: is_proper(loss, n, small=1e-3, close=False),
                "small lie",
                "the answer",
            ),
        ],
    ),
    "E07": (
        price,
        [
            ("forgets <g, p>", lambda H, g, p, k: H(p) + g(p)[k], PLANE, "entropy 1 - |p|^2"),
            (
                "the gradient of -H",
                lambda H, g, p, k: H(p) - g(p)[k] + sum(a * b for a, b in zip(g(p), p, strict=True)),
                HONEST,
                "the answer costs",
            ),
            ("the entropy for each label", lambda H, g, p, k: H(p), HONEST, "the answer costs"),
        ],
    ),
    "E08": (
        brier,
        [
            ("the label's term only", lambda p, k: (1 - p[k]) ** 2, HONEST, "belief (0.25, 0.25, 0.5)"),
            ("the sign", lambda p, k: -brier(p, k), HONEST, "is the sign right"),
            ("a distance of 1", lambda p, k: sum(abs(x - (j == k)) for j, x in enumerate(p)), HONEST, "sure bet"),
            ("one-hot off by one", lambda p, k: brier(p, (k + 1) % len(p)), HONEST, "the answer costs"),
            ("the mean over classes", lambda p, k: brier(p, k) / len(p), "|p - q|^2 more", "instead of a sum"),
            ("half", lambda p, k: brier(p, k) / 2, "|p - q|^2 more", "half of it"),
            ("cross-entropy", lambda p, k: -log(max(p[k], 1e-300)), "|p - q|^2 more", "belief"),
            ("without the 1", lambda p, k: brier(p, k) - 1, "costs nothing", "-1"),
        ],
    ),
    "E09": (
        pseudospherical,
        [
            ("no root", lambda p, k, b: -((p[k] / sum(x**b for x in p)) ** (b - 1)), HONEST, "b 2"),
            ("no outer power", lambda p, k, b: -p[k] / sum(x**b for x in p) ** (1 / b), HONEST, "b 1.5"),
            ("spherical for every b", lambda p, k, b: pseudospherical(p, k, 2), "tends to -log", "b 1.000001"),
            ("Brier", lambda p, k, b: brier(p, k), "tends to -log", "p (0.5, 0.5)"),
            ("halved", lambda p, k, b: pseudospherical(p, k, b) / 2, "tends to -log", "p (0.5, 0.5)"),
        ],
    ),
    "E13": (
        belief_behind,
        [
            ("not scaled", lambda p, g: 1 / ((1 - np.array(p)) ** g / p), "is a distribution", "sum to 1"),
            (
                "weighs by the factor",
                lambda p, g: softmax(np.log(p) + g * np.log1p(-np.array(p))),
                "likeliest",
                "leads",
            ),
            ("the answer itself", lambda p, g: p, "risk is level", "slopes of the risk"),
            ("a temperature", lambda p, g: softmax(np.log(p) * (1 + g / 2)), "risk is level", "slopes of the risk"),
            ("only the factor's inverse", lambda p, g: belief_behind(p, g, 2), "risk is level", "p (1/3, 2/3)"),
        ],
    ),
    "E21": (
        pull,
        [
            ("with its sign", lambda loss, p, k: -pull(loss, p, k), "cross-entropy weighs", "a weight is a size"),
            ("a slope in p", slope_in_p, "cross-entropy weighs", "a slope in p"),
            ("the loss itself", lambda loss, p, k: loss(p, k), "cross-entropy weighs", "p (0.5, 0.5)"),
            ("1 - p_y, always", lambda loss, p, k: 1 - p[k], "other losses", "-(1 - p_y)^2 log p_y"),
        ],
    ),
}
