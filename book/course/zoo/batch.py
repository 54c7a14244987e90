"""Answers to the exercises on GenCE: solutions and wrong ones, as ``losses.py`` explains."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import softmax


def gence(probs, labels):
    p = np.array(probs)
    rows = np.arange(len(p))
    return float(-np.log(p[rows, labels] / p.sum(0)[labels]).mean())


def ce(probs, labels):
    return float(-np.log(np.array(probs)[np.arange(len(labels)), labels]).mean())


def twice(probs, labels):
    """Divides the batch posterior by its row sums as well."""
    r = np.array(probs) / np.sum(probs, axis=0)
    return ce(r / r.sum(1, keepdims=True), labels)


def by_class(probs, labels):
    p, y = np.array(probs), np.array(labels)
    r = p / p.sum(0)
    return float(np.mean([-np.log(r[y == k, k]).mean() for k in set(labels)]))


def over_batch(probs, labels):
    return ce(softmax(np.array(probs), axis=0), labels)


TWINS = [[0.5, 0.25, 0.25], [0.2, 0.4, 0.4]]
OTHER = [[0.5, 0.375, 0.125], [0.2, 0.6, 0.2]]


def part_of_gradient(logits, labels, column_sums, class_counts, *, tied=True, taxed=True):
    p = softmax(np.array(logits, float), axis=1)
    n, w = np.sum(class_counts), np.array(class_counts) / column_sums
    tax = p * w - (p * (p * w).sum(1, keepdims=True) if tied else 0)
    return (p - np.eye(p.shape[1])[labels] + (tax if taxed else 0)) / n


def of_its_own(logits, labels, column_sums, class_counts):
    p = softmax(np.array(logits, float), axis=1)
    return part_of_gradient(logits, labels, p.sum(0), np.bincount(labels, minlength=p.shape[1]))


def own_share(logits, labels, column_sums, class_counts):
    return part_of_gradient(logits, labels, column_sums, class_counts) * sum(class_counts) / len(labels)


def best_bias(logits, labels, rounds=200, start=0.0):
    z = np.array(logits, float)
    counts, b = np.bincount(labels, minlength=z.shape[1]), np.zeros(z.shape[1])
    for _ in range(rounds):  # Newton's method, with shorter steps where one does not lower the loss
        p = softmax(z + b, axis=1)
        slope = p.sum(0) - counts
        if np.abs(slope).max() < 1e-11:
            break
        curve = np.diag(p.sum(0)) - p.T @ p + 1e-13 * np.eye(len(b)) + np.ones((len(b),) * 2) / len(b)
        step = np.linalg.solve(curve, slope)
        while value(z, labels, b - step) > value(z, labels, b) + 1e-13:
            step /= 2
        b = b - step
    return b


def value(z, y, b):
    return ce(np.maximum(softmax(z + b, axis=1), 1e-300), y)


def counting(logits, labels, rounds):
    """Multiply by counts over sums, so many times: Sinkhorn's scaling."""
    z = np.array(logits, float)
    counts, b = np.bincount(labels, minlength=z.shape[1]), np.zeros(z.shape[1])
    for _ in range(rounds):
        b = b + np.log(counts / softmax(z + b, axis=1).sum(0))
    return b


def log_frequencies(logits, labels):
    return np.log(np.bincount(labels, minlength=len(logits[0])))


def absent_classes(frequencies, size):
    return sum((1 - x) ** size for x in frequencies)


SAME, COLUMN, MEAN = "are the same for all", "factor on a whole column", "the mean over the samples"
WHOLE, ROWS = "is the whole batch has", "the rows of a part"
COUNTS = "column sums are class counts"
ONE, EVEN, ANY = "one draw", "equal frequency", "any frequency"
ZOO = {
    "E36": (
        gence,
        [
            ("means for sums", lambda p, y: gence(p, y) - math.log(len(y)), SAME, "log N is missing"),
            ("cross-entropy", ce, SAME, "this is cross-entropy"),
            ("rows divided, too", twice, SAME, "should be"),
            ("a softmax over the batch", over_batch, COLUMN, "halved"),
            ("a sum over samples", lambda p, y: gence(p, y) * len(y), SAME, "should be"),
            ("classes count the same", by_class, MEAN, "labels (0, 0, 1)"),
        ],
    ),
    "E37": (
        lambda: (TWINS, OTHER),
        [
            ("one table", lambda: TWINS[0], "two tables of one shape", "(Q, P)"),
            ("not scaled", lambda: (TWINS, np.array(OTHER) * 2), "two tables of one shape", "(Q, P)"),
            ("complete", lambda: ([[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.2, 0.8]]), "linearly dependent", "rank 2"),
            ("another risk", lambda: (TWINS, [[0.5, 0.375, 0.125], [0.2, 0.4, 0.4]]), "has the GenCE of Q", "P ("),
            ("the same table", lambda: (TWINS, TWINS), "another table", "0.05 or more"),
        ],
    ),
    "E39": (
        part_of_gradient,
        [
            ("cross-entropy", lambda *a: part_of_gradient(*a, taxed=False), WHOLE, "held fixed"),
            ("no cross terms", lambda *a: part_of_gradient(*a, tied=False), WHOLE, "cross terms are missing"),
            ("the sign", lambda *a: -part_of_gradient(*a), WHOLE, "should be"),
            ("sums of its own", of_its_own, ROWS, "column_sums"),
            ("divides by its own size", own_share, ROWS, "not of the batch"),
        ],
    ),
    "E40": (
        best_bias,
        [
            ("the prior's logarithm", log_frequencies, COUNTS, "column sums with your bias"),
            ("one step", lambda z, y: counting(z, y, 1), COUNTS, "column sums with your bias"),
            ("the sign", lambda z, y: -best_bias(z, y), COUNTS, "column sums with your bias"),
            ("two numbers, always", lambda z, y: best_bias(z, y)[:2], COUNTS, "column sums with your bias"),
            ("too few steps", lambda z, y: counting(z, y, 60), "far apart", "column sums with your bias"),
        ],
    ),
    "E41": (
        absent_classes,
        [
            ("x^B", lambda f, b: sum(x**b for x in f), ONE, "has become x^B"),
            ("B - 1", lambda f, b: sum((1 - x) ** (b - 1) for x in f), ONE, "not B - 1 times"),
            ("an approximation", lambda f, b: sum(math.exp(-b * x) for x in f), ONE, "is near"),
            ("without replacement", lambda f, b: max(0, len(f) - b), EVEN, "need not hold all"),
            ("equal frequencies", lambda f, b: len(f) * (1 - 1 / len(f)) ** b, ANY, "frequencies (1/3, 2/3)"),
        ],
    ),
}
