"""Is a loss proper? A numerical verdict, by a search for beliefs that the loss distorts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gence._progress import tqdm
from gence.propriety.minimisers import RISK_TOLERANCE, Minimisers, lbfgs
from gence.propriety.risk import Floats, Loss, conditional_risk, couples_samples, risk_of_logits

__all__ = ["Verdict", "is_strictly_proper"]

DISTANCE_TOLERANCE = 1e-3  # a minimiser further away than this is another one


@dataclass(frozen=True)
class Verdict:
    """What a search for counterexamples found; ``print`` it for a sentence.

    Attributes:
        proper: no prediction had a lower risk than the belief itself; None where time was up before that was known.
        strictly: also no other prediction had the same risk; None likewise.
        belief: the worst belief found, (K,) or (N, K); None without a counterexample.
        minimiser: what the loss makes of it, of the shape of `belief`.
        gap: risk of the belief minus risk of the minimiser, in the unit of the loss.
        distance: the largest ``|p - q|`` between the two (over all beliefs without a counterexample).
        searched: how many beliefs were tried.
        converged: whether every belief had a start that converged; if not, do not trust a good verdict.
        planned: how many beliefs were to be tried.

    Example:
        >>> from gence.losses import make_loss
        >>> is_strictly_proper(make_loss("focal"), 3).proper
        False
    """

    proper: bool | None
    strictly: bool | None
    belief: Floats | None
    minimiser: Floats | None
    gap: float
    distance: float
    searched: int
    converged: bool
    planned: int

    def __str__(self) -> str:
        """Return the verdict in a sentence."""
        part = "" if self.searched == self.planned else f" of {self.planned}"
        stopped = f"{', time was up' if self.proper is None else ''}{'' if self.converged else ', NOT all converged'}"
        effort = f"{self.searched}{part} beliefs searched{stopped}"
        if self.belief is None:
            kind = "strictly proper: no counterexample" if self.strictly else "undecided: no counterexample so far"
            return f"{kind} ({effort})"
        kind = {True: "proper, not strictly", False: "not proper", None: "not strictly proper"}[self.proper]
        where = np.array2string(self.belief, precision=3, separator=", ")
        p = np.array2string(self.minimiser, precision=3, separator=", ")
        return f"{kind}: belief {where} has the minimiser {p}, off by {self.distance:.3f} ({effort})"


def is_strictly_proper(
    loss: Loss,
    n_classes: int,
    *,
    complete_only: bool = False,
    n_beliefs: int = 40,
    n_starts: int = 6,
    seed: int = 0,
    max_seconds: float = 120.0,
    progress: bool = True,
) -> Verdict:
    """Search beliefs, random and structured, for one that the loss distorts or leaves undecided.

    The structured ones come first, so that a search that runs out of time has tried the likeliest counterexamples.

    Args:
        loss: a loss as in :mod:`gence.propriety`.
        n_classes: K, at least 2.
        complete_only: for losses that couple samples, search complete tables only (Theorem 1's condition).
        n_beliefs: random beliefs; tables cost more, so only a quarter as many are tried.
        n_starts: starts of each minimisation.
        seed: of beliefs and starts.
        max_seconds: when to stop and judge by what was searched by then, > 0; the verdict says how much that is.
        progress: show a bar if it takes longer than 5 seconds.

    Returns:
        A :class:`Verdict`. A negative one carries its counterexample; a positive one is evidence, no proof.

    Raises:
        ValueError: `n_classes` < 2, `max_seconds` <= 0, or a loss of the wrong form.

    Example:
        >>> from gence.losses import make_loss
        >>> gence = make_loss("gence")
        >>> is_strictly_proper(gence, 3).strictly, is_strictly_proper(gence, 3, complete_only=True).strictly
        (False, True)
    """
    if n_classes < 2:
        raise ValueError(f"n_classes must be at least 2, but got {n_classes}")
    if not max_seconds > 0:
        raise ValueError(f"max_seconds must be > 0, but got {max_seconds}. Use math.inf for a search without an end.")
    rng = np.random.default_rng(seed)
    if couples_samples(loss, n_classes):
        beliefs = _tables(n_classes, rng, max(n_beliefs // 4, 2), complete_only)
    else:
        beliefs = _vectors(n_classes, rng, n_beliefs)
    found, finished = _search(loss, beliefs, n_starts, seed, max_seconds, progress)
    gaps = np.array([conditional_risk(loss, f.belief, f.belief) - f.risks.min() for f in found])
    spreads = np.array([f.spread for f in found])
    proper = bool(gaps.max() <= RISK_TOLERANCE)
    strictly = proper and bool(spreads.max() <= DISTANCE_TOLERANCE)
    effort = (len(found), all(bool(f.converged.any()) for f in found), len(beliefs))
    known = True if finished else None  # a counterexample stands whatever else is searched
    if strictly:
        return Verdict(known, known, None, None, float(gaps.max()), float(spreads.max()), *effort)
    at = int(spreads.argmax() if proper else gaps.argmax())
    worst = found[at]
    good = worst.converged & (worst.risks <= worst.risks.min() + RISK_TOLERANCE)
    point = worst.points[np.where(good, worst.distances, -1).argmax()] if proper else worst.best
    distance = float(np.abs(point - worst.belief).max())
    return Verdict(known if proper else False, False, worst.belief, point, float(gaps[at]), distance, *effort)


def _search(
    loss: Loss, beliefs: list[Floats], n_starts: int, seed: int, max_seconds: float, progress: bool
) -> tuple[list[Minimisers], bool]:
    """find_minimisers for each belief, those of the same shape at once, in the order of their shapes, until time is up.

    The first shape is always searched, if only for a part of the steps it needs. The second result: whether all were,
    with all their steps.
    """
    end, found = time.monotonic() + max_seconds, []
    with tqdm(total=n_starts * len(beliefs), desc="minima found", delay=5, leave=False, disable=not progress) as bar:
        for shape in dict.fromkeys(q.shape for q in beliefs):
            if found and time.monotonic() > end:
                break
            group = [q for q in beliefs if q.shape == shape]
            q = torch.from_numpy(np.repeat(group, n_starts, axis=0))
            rng = torch.Generator().manual_seed(seed)
            if len(shape) == 1:
                start = torch.randn(q.shape, generator=rng, dtype=torch.float64)
            else:
                start = torch.randn(n_starts, *shape, generator=rng, dtype=torch.float64).repeat(len(group), 1, 1)
            before = bar.n

            def keep_on(done: Tensor, before: int = before) -> bool:
                bar.update(before + int(done.sum()) - bar.n)
                return time.monotonic() < end

            z, risks, slopes = lbfgs(
                risk_of_logits(loss, q, one_belief_each=True), 2.0 * start, 1e-10, 1000, keep_on=keep_on
            )
            bar.update(before + len(q) - bar.n)
            parts = (z.softmax(-1).numpy(), risks.numpy(), (slopes <= 1e-10).numpy())
            for i, belief in enumerate(group):
                found.append(Minimisers(belief, *(x[i * n_starts : (i + 1) * n_starts] for x in parts)))
    return found, time.monotonic() < end


def _vectors(n_classes: int, rng: np.random.Generator, n: int) -> list[Floats]:
    """Random and structured beliefs, a little away from the edge, where minimisers would be infinite logits."""
    k = np.arange(n_classes)
    shapes = [k == 0, k <= 1, k + 1.0, 2.0**-k, np.ones(n_classes)]  # sure, a tie, a ramp, halving, even
    drawn = [rng.dirichlet(np.full(n_classes, a)) for a in rng.choice([0.3, 1.0, 3.0], n)]
    return [0.95 * q / np.sum(q) + 0.05 / n_classes for q in [*shapes, *drawn]]


def _tables(n_classes: int, rng: np.random.Generator, n: int, complete_only: bool) -> list[Floats]:
    """Random complete tables and, where asked for, the three ways to be incomplete."""

    def draw(rows: int, classes: int) -> Floats:
        own = np.eye(classes)[np.arange(rows) % classes]  # each row leans to one class: well-conditioned
        return 0.5 * own + 0.5 * rng.dirichlet(np.ones(classes), rows)

    tables = [draw(n_classes * (2 + i % 3), n_classes) for i in range(n)]
    if complete_only:
        return tables
    narrow = draw(2 * n_classes, n_classes - 1)
    twins = np.column_stack([narrow[:, :-1], 0.7 * narrow[:, -1], 0.3 * narrow[:, -1]])  # two classes go together
    absent = np.column_stack([narrow, np.zeros(len(narrow))])
    few = [rng.dirichlet(np.ones(n_classes), n_classes - 1)] if n_classes > 2 else []  # fewer samples than classes
    return [*few, twins, absent, *tables]
