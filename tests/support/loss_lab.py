"""The search of the loss lab in Python: the library's smallest lie, and what it does not ask, written here."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from gence.course.small import FINE, as_floats, beliefs, lattice, smallest_lie

Loss = Callable[[list[float], int], float]
Point = tuple[Fraction, ...]


def verdict(loss: Loss, n_classes: int) -> dict:
    """What the page should say: refuted, tied, open or no number, with belief, answer and risks."""
    answers = lattice(n_classes, FINE)
    table = np.array([[loss(as_floats(p), k) for k in range(n_classes)] for p in answers])
    if not np.isfinite(table).all():
        at, label = np.argwhere(~np.isfinite(table))[0]
        return {"verdict": "no number", "answer": answers[at], "label": int(label)}
    if lie := smallest_lie(loss, n_classes):
        return {
            "verdict": "refuted",
            "belief": lie.belief,
            "answer": lie.answer,
            "costs": lie.costs,
            "honest": lie.honest,
            "lowest": risk(loss, lie.cheapest, lie.belief),
        }
    round_first = list(dict.fromkeys([*map(answers.index, beliefs(n_classes)), *range(len(answers))]))
    for q in beliefs(n_classes):
        honest, risks = risk(loss, q, q), table @ np.array(q, dtype=np.float64)
        as_cheap = risks <= honest + 1e-12 * max(1.0, abs(honest))
        for p in (answers[i] for i in round_first if as_cheap[i] and answers[i] != q):
            return {"verdict": "tied", "belief": q, "answer": p, "honest": honest}
    return {"verdict": "open"}


def risk(loss: Loss, p: Point, q: Point) -> float:
    """What the answer costs on average, if the belief is right."""
    return math.fsum(float(x) * loss(as_floats(p), k) for k, x in enumerate(q))
