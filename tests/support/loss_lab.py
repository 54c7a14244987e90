"""The search of the loss lab in Python: the library's smallest lie, and what it does not ask, written here."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from gence.course.small import FINE, as_floats, beliefs, lattice, smallest_lie

Loss = Callable[[list[float], int], float]
Point = tuple[Fraction, ...]


def verdict(loss: Loss, n_classes: int) -> dict:
    """What the page should say: refuted, tied, open or no number, with belief, answer and risks."""
    answers = lattice(n_classes, FINE)
    for p in answers:
        for label in range(n_classes):
            if not math.isfinite(loss(as_floats(p), label)):
                return {"verdict": "no number", "answer": p, "label": label}
    if lie := smallest_lie(loss, n_classes):
        return {
            "verdict": "refuted",
            "belief": lie.belief,
            "answer": lie.answer,
            "costs": lie.costs,
            "honest": lie.honest,
            "lowest": risk(loss, lie.cheapest, lie.belief),
        }
    for q in beliefs(n_classes):
        honest = risk(loss, q, q)
        for p in (*beliefs(n_classes), *answers):
            if p != q and risk(loss, p, q) <= honest + 1e-12 * max(1.0, abs(honest)):
                return {"verdict": "tied", "belief": q, "answer": p, "honest": honest}
    return {"verdict": "open"}


def risk(loss: Loss, p: Point, q: Point) -> float:
    """What the answer costs on average, if the belief is right."""
    return math.fsum(float(x) * loss(as_floats(p), k) for k, x in enumerate(q))
