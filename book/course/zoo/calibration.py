"""Answers to the exercises on measures of calibration: solutions and wrong ones, as ``losses.py`` explains."""

from __future__ import annotations

import math

import numpy as np


def ece(confidences, hits, bins, *, left=False, even=False, inside=False, drop=False, power=1):
    groups = {}
    for c, h in zip(confidences, hits, strict=True):
        b = int(c * bins + 1e-9) if left else math.ceil(c * bins - 1e-9) - 1
        if drop and c == 1:
            continue
        groups.setdefault(min(b, bins - 1), []).append((c, h))
    total = 0.0
    for members in groups.values():
        c, h = np.transpose(members)
        gap = np.abs(c - h).mean() if inside else abs(c.mean() - h.mean())
        total += gap**power * (1 / len(groups) if even else len(members) / len(hits))
    return total


def spare_bin(confidences, hits, bins):
    one = np.array(confidences) == 1
    parts = [(np.array(confidences)[m], np.array(hits)[m]) for m in (one, ~one) if m.any()]
    return sum(ece(list(c), list(h), bins) * len(c) for c, h in parts) / len(hits)


def floor(counts, confidences):
    n, c = np.array(counts), np.array(confidences)
    return float(np.sqrt(2 / np.pi * n * c * (1 - c)).sum() / n.sum())


def each(counts, confidences):
    n, c = np.maximum(counts, 1), np.array(confidences)
    return np.sqrt(2 / np.pi * c * (1 - c) / n)


def parts(groups):
    merged = {}
    for c, n, h in groups:
        size, hits = merged.get(c, (0, 0))
        merged[c] = size + n, hits + h
    n = sum(size for size, _ in merged.values())
    base = sum(hits for _, hits in merged.values()) / n
    resolution = sum(size * (hits / size - base) ** 2 for size, hits in merged.values()) / n
    calibration = sum(size * (hits / size - c) ** 2 for c, (size, hits) in merged.items()) / n
    return base * (1 - base), resolution, calibration


def score(groups):
    return sum(h * (1 - c) ** 2 + (n - h) * c**2 for c, n, h in groups) / sum(n for _, n, _ in groups)


def with_rest(groups, calibration):
    """Parts that add up, whatever the calibration part is."""
    uncertainty = parts(groups)[0]
    return uncertainty, uncertainty + calibration - score(groups), calibration


def unweighted(groups):
    """Means over groups, whatever their size; the uncertainty is right."""
    uncertainty, rates = parts(groups)[0], [(c, h / n) for c, n, h in groups]
    base = sum(h for *_, h in groups) / sum(n for _, n, _ in groups)
    resolution = sum((r - base) ** 2 for _, r in rates) / len(rates)
    return uncertainty, resolution, sum((c - r) ** 2 for c, r in rates) / len(rates)


def unmerged(groups):
    """Treats groups of the same forecast as different groups."""
    n = sum(size for _, size, _ in groups)
    return with_rest(groups, sum(size * (hits / size - c) ** 2 for c, size, hits in groups) / n)


def unbiased(groups):
    """The uncertainty of a sample, with n - 1."""
    n = sum(size for _, size, _ in groups)
    uncertainty, *rest = parts(groups)
    return [uncertainty * n / max(n - 1, 1), *rest]


def flatter(probs, labels, confidence=None):
    """Give every sample the accuracy as its confidence."""
    p = np.array(probs)
    accuracy = np.mean(p.argmax(1) == labels) if confidence is None else confidence
    flat = np.full(p.shape, (1 - accuracy) / (p.shape[1] - 1))
    flat[np.arange(len(p)), p.argmax(1)] = accuracy
    return flat


def softened(probs, labels):
    z = np.log(probs) / 2
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


ONE, BIN, TWICE, CLOSED = "for one sample", "with one bin", "every sample twice", "closed on the right"
BASE, ZERO, SUM, SPLIT = "base rate b alone", "exactly where", "is the mean of", "told as two groups"
ZOO = {
    "E23": (
        ece,
        [
            ("signed", lambda c, h, m: sum(c) / len(c) - sum(h) / len(h), ONE, "confidences (0.5), hits (1)"),
            ("drops confidence 1", lambda c, h, m: ece(c, h, m, drop=True), ONE, "confidences (1), hits (0)"),
            ("squared", lambda c, h, m: ece(c, h, m, power=2), ONE, "squared"),
            ("divides by bins", lambda c, h, m: ece(c, h, m) * len(c) / m, ONE, "bins 2"),
            ("mean of distances", lambda c, h, m: ece(c, h, m, inside=True), BIN, "first takes means"),
            ("confidence 1 in a bin of its own", spare_bin, BIN, "confidence 1 alone in a bin"),
            ("divides by n - 1", lambda c, h, m: ece(c, h, m) * len(c) / max(len(c) - 1, 1), BIN, "bins 1"),
            (
                "skips bins of one sample, unless it is alone",
                lambda c, h, m: ece(c, h, m) if len(c) == 1 or m == 1 else ece(c, h, m) * (len(c) > 2),
                TWICE,
                "each sample twice",
            ),
            ("closed on the left", lambda c, h, m: ece(c, h, m, left=True), CLOSED, "goes to the bin above"),
            ("bins count the same", lambda c, h, m: ece(c, h, m, even=True), CLOSED, "confidences"),
        ],
    ),
    "E24": (
        floor,
        [
            ("a variance", lambda n, c: np.average(each(n, c) ** 2, weights=n), "one bin", "in place of its root"),
            (
                "a root mean square",
                lambda n, c: floor(n, c) * math.sqrt(math.pi / 2),
                "one bin",
                "by the root of 2/pi",
            ),
            ("0: it is perfect", lambda n, c: 0.0, "one bin", "samples are finite"),
            ("forgets c (1 - c)", lambda n, c: floor(n, [0.5] * len(n)), "one bin", "confidences (0.8)"),
            ("bins count the same", lambda n, c: each(n, c).mean(), "several bins", "each bin counts the same"),
            (
                "one bin of all samples",
                lambda n, c: floor([sum(n)], [np.average(c, weights=n)]),
                "several bins",
                "counts",
            ),
        ],
    ),
    "E25": (
        parts,
        [
            ("divides by n - 1", unbiased, BASE, "groups"),
            ("the score is all uncertainty", lambda g: (score(g), 0, 0), BASE, "groups"),
            ("no calibration part", lambda g: with_rest(g, 0.0), ZERO, "above 0"),
            (
                "calibration against the base rate",
                lambda g: with_rest(
                    g, sum(n * (c - sum(x[2] for x in g) / sum(x[1] for x in g)) ** 2 for c, n, _ in g)
                ),
                ZERO,
                "yours",
            ),
            ("in another order", lambda g: np.array(parts(g))[[0, 2, 1]], ZERO, "changed places"),
            ("each group counts the same", unweighted, SUM, "each group counts the same"),
            ("resolution below 0", lambda g: np.array(parts(g)) * [1, -1, 1], SUM, "subtracted already"),
            ("resolution forgotten", lambda g: (parts(g)[0], 0, parts(g)[2]), SUM, "which make"),
            (
                "totals instead of means",
                lambda g: (parts(g)[0], *(x * sum(n for _, n, _ in g) for x in parts(g)[1:])),
                SUM,
                "which make",
            ),
            ("groups not merged", unmerged, SPLIT, "and ("),
        ],
    ),
    "E27": (
        flatter,
        [
            ("says nothing", lambda p, y: np.full(np.shape(p), 1 / len(p[0])), "same likeliest class", "(0.5, 0.5)"),
            (
                "knows the labels",
                lambda p, y: np.eye(len(p[0]))[y] * 0.9 + 0.05,
                "same likeliest class",
                "where it was",
            ),
            ("one sure word for all", lambda p, y: flatter(p, y, 0.9), "below half a percent", "ECE"),
            ("softer", softened, "below half a percent", "ECE"),
            ("as it was", lambda p, y: p, "log score is worse", "or more"),
        ],
    ),
}
