"""Graders of exercises on GenCE: its value, its other minimisers, its gradient in parts, its bias, absent classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import product

import numpy as np
import torch

from gence.course.small import beliefs, is_distribution
from gence.course.trial import Broken, Trial, anything, exercise, number, numbers, words
from gence.losses import generative_cross_entropy
from gence.propriety import completeness, regret

__all__ = ["E36", "E37", "E39", "E40", "E41"]

Found = Iterator[Broken | None]

E36 = exercise("E36", number)
_TABLES = [
    (rows, y)
    for n, k in ((2, 2), (3, 2), (2, 3))
    for rows in product(beliefs(k, (2, 3, 4)), repeat=n)
    for y in product(range(k), repeat=n)
]


@E36.law("predictions that are the same for all N samples cost log N")
def _(f: Trial) -> Found:
    for rows, y in _TABLES:
        if len(set(rows)) == 1:
            slips = {
                "the column sums are divided by N: log N is missing": 0,
                "this is cross-entropy": -_mean_log(rows, y),
            }
            yield f.differs(f(_lists(rows), list(y)), math.log(len(y)), slips=slips)


@E36.law("a factor on a whole column changes nothing")
def _(f: Trial) -> Found:
    for (rows, y), column in product(_TABLES, (0, 1)):
        scaled = [[x / 2 if k == column else x for k, x in enumerate(row)] for row in rows]
        given = f"probs {words(rows)}, labels {words(y)}, and column {column} halved"
        yield f.differs(f(scaled, list(y)), f(_lists(rows), list(y)), given=given)


@E36.law("the loss is the mean over the samples of -log p_y + log of the sum of column y")
def _(f: Trial) -> Found:
    for rows, y in _TABLES:
        log_p = torch.tensor(np.log(np.array(rows, dtype=np.float64)))
        yield f.differs(f(_lists(rows), list(y)), float(generative_cross_entropy(log_p, torch.tensor(y))))


def _lists(rows: tuple) -> list:
    return [list(row) for row in rows]


def _mean_log(rows: tuple, y: tuple) -> float:
    return sum(math.log(row[k]) for row, k in zip(rows, y, strict=True)) / len(y)


E37 = exercise("E37", anything)


def _tables(f: Trial) -> list[tuple[np.ndarray, np.ndarray]]:
    """Q and P, if they are two tables of distributions of one shape, P positive where Q is; else an empty list."""
    try:
        q, p = (np.asarray(part, dtype=np.float64) for part in f())
    except (TypeError, ValueError):
        return []
    fits = q.ndim == 2 and q.shape == p.shape and q.shape[1] > 1 and is_distribution(np.stack([q, p]), 1e-9)
    return [(q, p)] if fits and p.min() >= 0 and q.min() >= 0 and (p[q > 0] > 0).all() else []


@E37.law("the answer is two tables of one shape, each row a distribution, P above 0 where Q is")
def _(f: Trial) -> Found:
    yield f.holds(bool(_tables(f)), repr(f())[:200], "(Q, P)")


@E37.law("the columns of Q are linearly dependent")
def _(f: Trial) -> Found:
    for q, _ in _tables(f):
        rank, n_classes = completeness(q).rank, q.shape[1]
        yield f.holds(rank < n_classes, f"rank {rank}", f"below {n_classes}, the classes", given=f"Q {words(q)}")


@E37.law("P has the GenCE of Q, under the truth Q")
def _(f: Trial) -> Found:
    for q, p in _tables(f):
        given = f"Q {words(q)}, P {words(p)}: GenCE of P less that of Q"
        yield f.differs(regret(p, q).gence, 0, given=given, within=1e-10)


@E37.law("P is another table: an entry differs by 0.05 or more")
def _(f: Trial) -> Found:
    for q, p in _tables(f):
        far = np.abs(p - q).max()
        yield f.holds(far >= 0.05, words(far), "0.05 or more", given=f"Q {words(q)}, P {words(p)}: largest |P - Q|")


E39 = exercise("E39", numbers(None, None))


def _gradient(f: Trial, first: int) -> Found:
    """The gradient of the first rows of a batch, asked for by themselves."""
    batches = [((1, 0), (0, 0)), ((0, 2), (1, 0), (-1, 1)), ((1, 0, 0), (0, 2, 0), (0, 0, -1))]
    for z in batches:
        for y in product(range(len(z[0])), repeat=len(z)):
            n = first or len(z)
            logits = torch.tensor(z, dtype=torch.float64, requires_grad=True)
            generative_cross_entropy(logits, torch.tensor(y)).backward()
            p = logits.detach().softmax(1)
            counts = [y.count(k) for k in range(len(z[0]))]
            tax = (torch.tensor(counts) / p.sum(0) * p)[:n]
            plain = p[:n] - torch.eye(p.shape[1], dtype=p.dtype)[list(y[:n])]
            slips = {
                "this is the gradient of cross-entropy: the column sums are held fixed": plain / len(z),
                "cross terms are missing: the softmax ties the logits of a row together": (plain + tax) / len(z),
                "divided by the samples of the part, not of the batch": logits.grad[:n].numpy() * len(z) / n,
            }
            got = f(_lists(z[:n]), list(y[:n]), p.sum(0).tolist(), counts)
            yield f.differs(got, logits.grad[:n].numpy(), slips=slips)


E39.law("a part that is the whole batch has the gradient of the whole batch")(lambda f: _gradient(f, 0))
E39.law("the rows of a part have the gradient that they have in the whole batch")(lambda f: _gradient(f, 1))

E40 = exercise("E40", numbers(None))


def _levels(f: Trial, levels: tuple[int, ...], shapes: tuple[tuple[int, int], ...]) -> Found:
    for n, k in shapes:
        for z in product(product(levels, repeat=k), repeat=n):
            y = tuple(min(i, k - 1) for i in range(n))
            counts = np.array([y.count(j) for j in range(k)], dtype=np.float64)
            b = f(_lists(z), list(y))
            sums = torch.tensor(np.array(z) + b[:k]).softmax(1).sum(0).numpy() if len(b) == k else b
            yield f.differs(sums, counts, given=f"{f.given}: column sums with your bias {words(b)}", within=1e-6)


E40.law("with the bias the predictions count the labels: column sums are class counts")(
    lambda f: _levels(f, (0, 1), ((2, 2), (3, 2), (3, 3)))
)
E40.law("also where logits are far apart")(lambda f: _levels(f, (0, 8), ((3, 2),)))

E41 = exercise("E41", number)


def _absent(f: Trial, frequencies: list[tuple[Fraction, ...]], sizes: tuple[int, ...]) -> Found:
    for pi, size in product(frequencies, sizes):
        right = Fraction(0)
        for drawn in product(range(len(pi)), repeat=size):
            right += math.prod((pi[k] for k in drawn), start=Fraction(1)) * (len(pi) - len(set(drawn)))
        p = [float(x) for x in pi]
        slips = {
            "(1 - x)^B, that a class is missed B times, has become x^B": sum(x**size for x in p),
            "labels are drawn with replacement: a batch of K need not hold all K": max(0, len(p) - size),
            "a class is missed B times, not B - 1 times": sum((1 - x) ** (size - 1) for x in p),
            "exp(-B x) is near, for large batches": sum(math.exp(-size * x) for x in p),
        }
        yield f.differs(f(list(pi), size), float(right), slips=slips)


_EVEN = [tuple(Fraction(1, k) for _ in range(k)) for k in (2, 3, 4)]
E41.law("one draw leaves all classes but one")(lambda f: _absent(f, [*_EVEN, *beliefs(2, (3, 4))], (1,)))
E41.law("classes of equal frequency: the mean over all sequences of labels")(lambda f: _absent(f, _EVEN, (2, 3, 4)))
E41.law("classes of any frequency: the mean over all sequences of labels")(
    lambda f: _absent(f, [*beliefs(2, (3, 4)), *beliefs(3, (4, 5))], (2, 3, 4))
)
