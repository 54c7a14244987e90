"""What a prediction costs under a belief, for losses that judge each sample alone and for those that couple them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["conditional_risk", "couples_samples"]

Floats = NDArray[np.float64]
# Logits and targets to one loss for each sample. A module with a `reduction`, such as make_loss returns, is taken as
# it is; a loss that couples the samples must accept (N, K) soft targets too, and torch.vmap.
Loss = Callable[[Tensor, Tensor], Tensor]


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
    each = with_reduction(loss, "none")
    together = each(z, y)
    if together.shape != y.shape:
        raise ValueError(
            f"a loss must return one value for each sample, shape {tuple(y.shape)} here, but it returned shape "
            f"{tuple(together.shape)}. Give it reduction='none'."
        )
    with without_batch_warning():
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
    p, q = distributions(p, "p"), distributions(q, "q")
    if p.shape != q.shape:
        raise ValueError(f"p and q must have the same shape, but p has {p.shape} and q has {q.shape}")
    z = torch.from_numpy(p).log()[None]
    return float(risk_of_logits(loss, torch.from_numpy(q))(z)[0].detach())


@contextmanager
def without_batch_warning() -> Iterator[None]:
    """No warning of a batch of one: a table of one row is a population, and a sample is judged alone on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "GenCE got a batch of one")
        yield


def with_reduction(loss: Loss, reduction: str) -> Loss:
    """The same loss with another reduction, where it is a module that has one."""
    if hasattr(loss, "reduction"):
        loss = copy.copy(loss)
        loss.reduction = reduction
    return loss


def risk_of_logits(loss: Loss, q: Tensor, *, one_belief_each: bool = False) -> Callable[[Tensor], Tensor]:
    """Logits of S predictions, (S, K) or (S, N, K), to their (S,) risks under the belief q, or S beliefs."""
    n_classes = q.shape[-1]
    each = with_reduction(loss, "none")
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


def distributions(values: ArrayLike, name: str) -> Floats:
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
    table = distributions(values, name)
    if table.ndim != 2:
        raise ValueError(f"{name} must be a table of shape (N, K), but got a vector of shape {table.shape}")
    return table
