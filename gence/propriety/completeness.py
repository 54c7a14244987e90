"""Regret identities, completeness and the other minimisers of an incomplete table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from gence.losses import generative_cross_entropy
from gence.propriety.risk import Floats, as_table, without_batch_warning

__all__ = ["Completeness", "Regret", "completeness", "flat_directions", "other_minimiser", "regret"]


@dataclass(frozen=True)
class Regret:
    """Risk of a prediction table above that of the truth, and its parts; all in nats per sample.

    Attributes:
        ce: regret of CE, the mean over the rows of KL(q_i || p_i).
        marginal: KL(pi || mean p), the part of it that only concerns how frequent the classes are.
        columns: sum_k pi_k KL(column k of Q || column k of P), both divided by their sums.
        gence: regret of GenCE with the strength asked for, from the loss itself.

    Example:
        >>> r = regret([[0.5, 0.5], [0.2, 0.8]], [[0.6, 0.4], [0.1, 0.9]])
        >>> abs(r.gence - (r.ce - r.marginal)) < 1e-12 and abs(r.gence - r.columns) < 1e-12
        True
    """

    ce: float
    marginal: float
    columns: float
    gence: float


def regret(p: ArrayLike, q: ArrayLike, *, strength: float = 1.0) -> Regret:
    """Regrets of CE and GenCE, each computed from its own definition, so that their identities can be tested.

    The identities are ``gence = ce - strength * marginal = (1 - strength) * ce + strength * columns``.

    Args:
        p: (N, K) predictions, positive wherever q is.
        q: (N, K) truth.
        strength: of GenCE.

    Returns:
        A :class:`Regret`.

    Raises:
        ValueError: as :func:`conditional_risk`, or vectors instead of tables, or `strength` outside [0, 1].

    Source: ours; the chain rule of the Kullback-Leibler divergence.

    Example:
        >>> regret([[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]).gence
        0.0
    """
    p, q = as_table(p, "p"), as_table(q, "q")
    pi, mean_p = q.mean(0), p.mean(0)
    seen = pi > 0
    columns = [pi[k] * _kl(q[:, k] / q[:, k].sum(), p[:, k] / p[:, k].sum()) for k in np.flatnonzero(seen)]

    def gence(prediction: Floats) -> float:
        log_p = torch.from_numpy(prediction).log()
        with without_batch_warning():
            return float(generative_cross_entropy(log_p, torch.from_numpy(q), strength=strength))

    return Regret(_kl(q, p) / len(q), _kl(pi[seen], mean_p[seen]), float(sum(columns)), gence(p) - gence(q))


@dataclass(frozen=True)
class Completeness:
    """Whether the columns of a belief table are linearly independent, and how nearly they are not.

    Attributes:
        rank: of Q, samples x classes.
        n_classes: K; the table is complete when the rank is K.
        condition: largest singular value over the smallest; infinite when incomplete.

    Example:
        >>> completeness([[0.5, 0.5], [0.5, 0.5]]).complete
        False
    """

    rank: int
    n_classes: int
    condition: float

    @property
    def complete(self) -> bool:
        """Whether the rank is the number of classes."""
        return self.rank == self.n_classes


def completeness(q: ArrayLike) -> Completeness:
    """Rank and condition number of a belief table, samples x classes.

    Args:
        q: (N, K) beliefs.

    Returns:
        A :class:`Completeness`. A class that no row allows, or fewer samples than classes, makes a table incomplete.

    Raises:
        ValueError: no table of distributions.

    Source: the condition of Zhan, Zhou and Shen (2026), Theorem 1, put for samples in rows.

    Example:
        >>> completeness([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        Completeness(rank=2, n_classes=2, condition=1.4142135623730951)
    """
    q = as_table(q, "q")
    rank, singular = int(np.linalg.matrix_rank(q)), np.linalg.svd(q, compute_uv=False)
    condition = float(singular[0] / singular[-1]) if rank == q.shape[1] else np.inf
    return Completeness(rank, q.shape[1], condition)


def flat_directions(q: ArrayLike) -> Floats:
    """Orthonormal v with Q v = 0: rescaling column k of Q by 1 + t v_k keeps all rows on the simplex.

    Args:
        q: (N, K) beliefs.

    Returns:
        (K, K - rank); no column where the table is complete.

    Raises:
        ValueError: no table of distributions.

    Source: ours; these are all directions in which GenCE is constant, up to those that fill classes Q lacks.

    Example:
        >>> abs(flat_directions([[0.5, 0.25, 0.25], [0.2, 0.4, 0.4]])[:, 0]).round(4).tolist()
        [0.0, 0.7071, 0.7071]
    """
    q = as_table(q, "q")
    return np.linalg.svd(q)[2][np.linalg.matrix_rank(q) :].T


def other_minimiser(q: ArrayLike, reach: float = 0.9) -> Floats:
    """A table P far from Q with the GenCE of Q, which exists exactly where completeness fails.

    GenCE only sees each column up to its scale, so ``p_k = c_k q_k`` costs the same as Q. Rows keep their sum when
    ``Q (c - 1) = 0``: take c = 1 + t v with v a flat direction. Where no direction moves a present class, a class is
    absent from Q; then all present columns are scaled by 1 - `reach` and the rest of each row goes to absent classes.

    Args:
        q: (N, K) beliefs, not complete.
        reach: in (0, 1): how far to go towards the point where the smallest scale would be 0.

    Returns:
        P, (N, K) rows on the simplex.

    Raises:
        ValueError: a complete table, which has no other minimiser; `reach` outside (0, 1).

    Source: ours.

    Example:
        >>> q = [[0.5, 0.25, 0.25], [0.2, 0.4, 0.4]]  # the last two classes go together
        >>> p = other_minimiser(q, reach=0.8)
        >>> bool(abs(regret(p, q).gence) < 1e-12), sorted(p[0].round(3).tolist())
        (True, [0.05, 0.45, 0.5])
    """
    q = as_table(q, "q")
    if not 0 < reach < 1:
        raise ValueError(f"reach must lie strictly between 0 and 1, but got {reach}. Try 0.9.")
    if completeness(q).complete:
        raise ValueError(
            f"Q is complete (rank {q.shape[1]} = number of classes): Q itself is the only minimiser of GenCE"
        )
    present = q.sum(0) > 0
    moves = flat_directions(q[:, present])
    if moves.shape[1]:
        tables = []
        for v in np.hstack([moves, -moves]).T:  # Q v = 0, so v has both signs
            tables.append(q.copy())
            tables[-1][:, present] *= 1 + reach * v / -v.min()
        return max(tables, key=lambda p: np.abs(p - q).max())
    return (1 - reach) * q + reach * ~present / (~present).sum()


def _kl(q: Floats, p: Floats) -> float:
    """sum q log(q / p) over all entries, where 0 log 0 counts as 0."""
    seen = q > 0
    with np.errstate(divide="ignore"):
        return float((q[seen] * np.log(q[seen] / p[seen])).sum())
