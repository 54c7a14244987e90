"""Is a loss proper? Conditional risks, their minimisers, and a numerical verdict."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gence._progress import tqdm

__all__ = ["Minimisers", "Verdict", "conditional_risk", "couples_samples", "find_minimisers", "is_strictly_proper"]

Floats = NDArray[np.float64]
# Logits and targets to one loss for each sample. A module with a `reduction`, such as make_loss returns, is taken as
# it is; a loss that couples the samples must accept (N, K) soft targets too, and torch.vmap.
Loss = Callable[[Tensor, Tensor], Tensor]
RISK_TOLERANCE = 1e-9  # a lower risk than the belief's by more than this is a counterexample
DISTANCE_TOLERANCE = 1e-3  # a minimiser further away than this is another one


def couples_samples(loss: Loss, n_classes: int) -> bool:
    """Whether the loss of a sample changes with its batch: False for pointwise losses, True for GenCE.

    Args:
        loss: a loss as in :mod:`gence.propriety`.
        n_classes: K.

    Raises:
        ValueError: the loss does not return one value for each sample.

    Example:
        >>> from gence.losses import make_loss
        >>> couples_samples(make_loss("ce"), 3), couples_samples(make_loss("gence"), 3)
        (False, True)
    """
    z = torch.linspace(-1, 1, 4 * n_classes, dtype=torch.float64).sin().reshape(4, n_classes)
    y = torch.arange(4) % n_classes
    each = _with_reduction(loss, "none")
    together = each(z, y)
    if together.shape != y.shape:
        raise ValueError(
            f"a loss must return one value for each sample, shape {tuple(y.shape)} here, but it returned shape "
            f"{tuple(together.shape)}. Give it reduction='none'."
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "GenCE got a batch of one")  # that is the question
        alone = torch.cat([each(z[i : i + 1], y[i : i + 1]) for i in range(len(y))])
    return not torch.allclose(together, alone, rtol=0, atol=1e-9)


def conditional_risk(loss: Loss, p: ArrayLike, q: ArrayLike) -> float:
    """Expected loss of the prediction p when labels follow the belief q, given the inputs.

    For vectors it is ``sum_k q_k loss(p, k)``. For tables it is the mean of that over the rows, or, where the loss
    couples the samples, the loss with soft targets Q (for GenCE these agree with drawing labels row by row).

    Args:
        loss: a loss as in :mod:`gence.propriety`.
        p: prediction, (K,) or (N, K) rows on the simplex.
        q: belief, of the shape of `p`.

    Returns:
        The risk, in the unit of the loss; infinite where p excludes a class that q allows and the loss is unbounded.

    Raises:
        ValueError: rows that are no distributions, shapes that differ, a vector for a loss that couples samples.

    Source: Savage (1971); for tables Zhan, Zhou and Shen (2026), eq. (10), divided by N.

    Example:
        >>> from gence.losses import make_loss
        >>> round(conditional_risk(make_loss("brier"), [0.5, 0.5], [0.9, 0.1]), 6)
        0.5
    """
    p, q = _distributions(p, "p"), _distributions(q, "q")
    if p.shape != q.shape:
        raise ValueError(f"p and q must have the same shape, but p has {p.shape} and q has {q.shape}")
    z = torch.from_numpy(p).log()[None]
    return float(_risk(loss, torch.from_numpy(q))(z)[0].detach())


@dataclass(frozen=True)
class Minimisers:
    """What a search from S random starts found.

    Attributes:
        belief: (K,) or (N, K), what the search was for.
        points: (S, K) or (S, N, K) predictions, one for each start.
        risks: (S,) their risks.
        converged: (S,) whether the largest gradient entry fell below the tolerance; the others only stopped.

    Example:
        >>> from gence.losses import make_loss
        >>> find_minimisers(make_loss("brier"), [0.7, 0.3], n_starts=4).best.round(6).tolist()
        [0.7, 0.3]
    """

    belief: Floats
    points: Floats
    risks: Floats
    converged: NDArray[np.bool_]

    @property
    def best(self) -> Floats:
        """The point of lowest risk."""
        return self.points[self.risks.argmin()]

    @property
    def distances(self) -> Floats:
        """(S,) the largest ``|p - q|`` of each point."""
        return np.abs(self.points - self.belief).reshape(len(self.points), -1).max(1)

    @property
    def spread(self) -> float:
        """The largest ``|p - q|`` over the converged points as good as the best: 0 for a strict minimum at q."""
        good = self.converged & (self.risks <= self.risks.min() + RISK_TOLERANCE)
        return float(self.distances[good].max(initial=0.0))


def find_minimisers(
    loss: Loss,
    q: ArrayLike,
    *,
    n_starts: int = 32,
    seed: int = 0,
    scale: float = 2.0,
    tolerance: float = 1e-10,
    max_iter: int = 1000,
) -> Minimisers:
    """Minimise the conditional risk over p = softmax(z) from many random starts by L-BFGS, all starts at once.

    Args:
        loss: a loss as in :mod:`gence.propriety`.
        q: belief, (K,) or (N, K).
        n_starts: S.
        seed: of the starting logits.
        scale: standard deviation of the starting logits.
        tolerance: a start has converged when no entry of the logit gradient is larger (unit of the loss).
        max_iter: steps after which a start is given up, as not converged.

    Returns:
        A :class:`Minimisers`.

    Raises:
        ValueError: as :func:`conditional_risk`; `n_starts` < 1.

    Source: L-BFGS of Liu and Nocedal (1989), with backtracking.

    Example:
        >>> found = find_minimisers(torch.nn.CrossEntropyLoss(label_smoothing=0.1), [0.8, 0.2], n_starts=4)
        >>> found.best.round(6).tolist(), bool(found.converged.all())  # (1 - 0.1) q + 0.1 / 2
        ([0.77, 0.23], True)
    """
    q = _distributions(q, "q")
    if n_starts < 1:
        raise ValueError(f"n_starts must be at least 1, but got {n_starts}")
    z = scale * torch.randn(n_starts, *q.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z, risks, slopes = _lbfgs(_risk(loss, torch.from_numpy(q)), z, tolerance, max_iter)
    return Minimisers(q, z.softmax(-1).numpy(), risks.numpy(), (slopes <= tolerance).numpy())


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

            z, risks, slopes = _lbfgs(_risk(loss, q, one_belief_each=True), 2.0 * start, 1e-10, 1000, keep_on=keep_on)
            bar.update(before + len(q) - bar.n)
            parts = (z.softmax(-1).numpy(), risks.numpy(), (slopes <= 1e-10).numpy())
            for i, belief in enumerate(group):
                found.append(Minimisers(belief, *(x[i * n_starts : (i + 1) * n_starts] for x in parts)))
    return found, time.monotonic() < end


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


def _with_reduction(loss: Loss, reduction: str) -> Loss:
    """The same loss with another reduction, where it is a module that has one."""
    if hasattr(loss, "reduction"):
        loss = copy.copy(loss)
        loss.reduction = reduction
    return loss


def _risk(loss: Loss, q: Tensor, *, one_belief_each: bool = False) -> Callable[[Tensor], Tensor]:
    """Logits of S predictions, (S, K) or (S, N, K), to their (S,) risks under the belief q, or S beliefs."""
    n_classes = q.shape[-1]
    each = _with_reduction(loss, "none")
    pointwise = one_belief_each and q.dim() == 2
    if not pointwise and couples_samples(loss, n_classes):
        if one_belief_each:
            together = torch.func.vmap(lambda z, own: each(z, own).mean())
            return lambda z: together(z, q)
        if q.dim() == 1:
            raise ValueError(
                "this loss couples the samples of a batch, so its belief must be a table (N, K), but got a vector "
                f"of shape {tuple(q.shape)}. Give one row for each sample."
            )
        return torch.func.vmap(lambda z: each(z, q).mean())

    def row_by_row(z: Tensor) -> Tensor:
        rows = z.reshape(-1, n_classes)
        labels = torch.arange(n_classes).repeat(len(rows))
        losses = each(rows.repeat_interleave(n_classes, 0), labels).reshape(z.shape)
        risks = (q * losses.masked_fill((q == 0).expand_as(losses), 0.0)).sum(-1)
        return risks.reshape(len(z), -1).mean(1)

    return row_by_row


def _lbfgs(
    risk: Callable[[Tensor], Tensor],
    z: Tensor,
    tolerance: float,
    max_iter: int,
    memory: int = 20,
    keep_on: Callable[[Tensor], bool] = lambda done: True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise S independent risks side by side; return the points, their risks and largest gradient entries.

    `keep_on` is told before each step which of them are done, and says whether to take it.
    A step counts as a descent up to the rounding of the risk, so that the gradient falls far below its square root.
    """
    shape, z = z.shape, z.reshape(len(z), -1)

    def value_and_gradient(z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_()
        value = risk(z.reshape(shape))
        return value.detach(), torch.autograd.grad(value.sum(), z)[0]

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(1, keepdim=True)

    value, gradient = value_and_gradient(z)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    scale, stuck = torch.ones(len(z), 1, dtype=z.dtype), torch.zeros(len(z), dtype=torch.bool)
    for _ in range(max_iter):
        done = stuck | (gradient.abs().amax(1) <= tolerance)
        if not keep_on(done) or bool(done.all()):
            break
        step, weights = gradient.clone(), []
        for s, y, rho in reversed(history):
            weights.append(rho * dot(s, step))
            step = step - weights[-1] * y
        step = scale * step
        for (s, y, rho), weight in zip(history, reversed(weights), strict=True):
            step = step + s * (weight - rho * dot(y, step))
        step = -torch.where(dot(step, gradient) > 0, step, gradient)
        step = step * (4 / step.abs().amax(1, keepdim=True).clamp_min(4))  # no leap into the flat far field
        slope, length = dot(step, gradient)[:, 0], torch.where(done, 0.0, torch.ones_like(value))
        for _ in range(30):
            new_value, new_gradient = value_and_gradient(z + length[:, None] * step)
            slack = 4 * torch.finfo(z.dtype).eps * value.abs()
            worse = ~(new_value <= value + 1e-4 * length * slope + slack)
            if not bool(worse.any()):
                break
            length = torch.where(worse, length / 2, length)
        stuck = stuck | worse
        s, y = length[:, None] * step, new_gradient - gradient
        curvature, squares = dot(s, y), dot(y, y)
        useful = curvature > 1e-12 * (dot(s, s) * squares).sqrt()
        rho = torch.where(useful, 1 / curvature.where(useful, torch.ones_like(curvature)), 0.0)
        # Where the risk curves down, as on the plateaus of bounded losses, steps grow until it curves up again.
        scale = torch.where(useful, curvature / squares.where(useful, torch.ones_like(squares)), 4 * scale)
        scale = scale.clamp_max(1e6)
        history = [*history[-memory + 1 :], (s, y, rho)]
        z, value, gradient = z + s, new_value, new_gradient
    return z.reshape(shape), value, gradient.abs().amax(1)


def _distributions(values: ArrayLike, name: str) -> Floats:
    """Float64 rows on the simplex, or a ValueError that says what is wrong."""
    rows = np.ascontiguousarray(values, dtype=np.float64)
    if rows.ndim not in (1, 2) or 0 in rows.shape:
        raise ValueError(f"{name} must have shape (K,) or (N, K), but got {rows.shape}")
    if not np.isfinite(rows).all() or rows.min() < 0 or np.abs(rows.sum(-1) - 1).max() > 1e-8:
        raise ValueError(
            f"{name} must hold distributions: entries >= 0 that sum to 1 in each row, but the smallest entry is "
            f"{rows.min():.4g} and rows sum to {rows.sum(-1).min():.6g}..{rows.sum(-1).max():.6g}. "
            "Divide by the row sums."
        )
    return rows


def as_table(values: ArrayLike, name: str) -> Floats:
    table = _distributions(values, name)
    if table.ndim != 2:
        raise ValueError(f"{name} must be a table of shape (N, K), but got a vector of shape {table.shape}")
    return table
