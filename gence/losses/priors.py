"""Losses that know how frequent the classes are: logit adjustment, class-balanced, present classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gence.losses._contract import Batch, as_float, checked_counts, is_soft
from gence.losses.generative import generative_cross_entropy

__all__ = ["class_balanced_loss", "logit_adjusted_loss", "present_class_cross_entropy"]


def logit_adjusted_loss(
    input: Tensor,
    target: Tensor,
    class_counts: Tensor | Sequence[float],
    tau: float = 1.0,
    reduction: str = "mean",
    *,
    strength: float = 0.0,
    official: bool = False,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Logit-adjusted cross-entropy: ``-log softmax(z + tau log pi)_y`` with pi the training class frequencies.

    The network then learns what is left when the frequencies are given, so that softmax(z) serves balanced classes.

    Args:
        input, target: logits and labels or class probabilities.
        class_counts: (K,) training samples of each class, each > 0.
        tau: strength of the adjustment; 0 is cross-entropy.
        reduction, ignore_index, sample_weight: see :mod:`gence.losses`.
        strength: of the batch term of GenCE, computed from the adjusted logits; 0 is the published loss, 1 is
            ``"gence_logit_adjustment"``.
        official: add 1e-12 to pi^tau, as the official code does.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of class indices.

    Raises:
        ValueError: class counts that do not fit or are not positive; and what all losses raise.

    Source: Menon et al. (2021), eq. (10), and their code; `strength` is the book's.

    Example:
        >>> import torch
        >>> z, y = torch.zeros(1, 2), torch.tensor([1])
        >>> round(logit_adjusted_loss(z, y, [3.0, 1.0]).exp().item(), 4)  # 1 / (1/4)
        4.0
    """
    is_soft(input, target, None, ignore_index)
    counts = checked_counts(class_counts, input)
    pi = counts / counts.sum()
    shift = (pi**tau + 1e-12).log() if official else tau * pi.log()
    adjusted = as_float(input) + _along_classes(shift, input)
    if strength == 0:
        batch = Batch(adjusted, target, ignore_index, sample_weight)
        return batch.reduce(batch.nll(), reduction)
    return generative_cross_entropy(
        adjusted, target, None, ignore_index, reduction, strength=strength, sample_weight=sample_weight
    )


def class_balanced_loss(
    input: Tensor,
    target: Tensor,
    class_counts: Tensor | Sequence[float],
    beta: float = 0.9999,
    reduction: str = "mean",
    *,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Class-balanced cross-entropy ``-w_y log p_y`` with ``w_k = (1 - beta) / (1 - beta^n_k)``, scaled to sum K.

    The mean is over N, as published. (One popular code applies the weights to a binary cross-entropy of softmax
    outputs, another hands them to torch's weighted cross-entropy, which divides by their sum.)

    Args:
        input, target: logits and labels or class probabilities.
        class_counts: (K,) training samples n_k of each class, each > 0.
        beta: in [0, 1); 0 weighs all classes alike, towards 1 the weights become 1 / n_k.
        reduction, ignore_index, sample_weight: see :mod:`gence.losses`.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of class indices.

    Raises:
        ValueError: `beta` out of range, class counts that do not fit or are not positive; and what all losses raise.

    Source: Cui et al. (2019), eq. (5).

    Example:
        >>> import torch
        >>> from gence.losses import cross_entropy
        >>> z, y = torch.zeros(1, 2), torch.tensor([1])
        >>> round((class_balanced_loss(z, y, [30.0, 10.0], beta=1 - 1e-6) / cross_entropy(z, y)).item(), 3)
        1.5
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must lie in [0, 1), but got {beta}. The paper uses 0.9, 0.99, 0.999 and 0.9999.")
    batch = Batch(input, target, ignore_index, sample_weight)
    counts = checked_counts(class_counts, input)
    weight = torch.ones_like(counts) if beta == 0 else (1 - beta) / -torch.expm1(counts * math.log(beta))
    weight = weight * len(weight) / weight.sum()
    return batch.reduce(batch.of_classes(weight) * batch.nll(), reduction)


def present_class_cross_entropy(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    *,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Cross-entropy with the softmax over the classes of the batch: ``-log(exp z_y / sum_{k present} exp z_k)``.

    A class that no sample of the batch carries gets no gradient. With all classes in the batch this is cross-entropy;
    with one class alone it is 0. With noisy labels, in batches that lack classes, it is not proper: it aims at about
    ``q_k / s_k``, with s_k the chance that the batch holds class k. Near a fit its gradient is nearly that of GenCE, if
    the batch holds two classes and the rest of the mass is not all on absent ones.

    Args:
        input, target: logits and labels or class probabilities; the batch is all N samples and all positions.
        reduction, ignore_index, sample_weight: see :mod:`gence.losses`.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of class indices.

    Raises:
        What all losses raise.

    Source: the book's own chapter on mini-batches. Restricting the softmax is known from federated learning (Li and
    Zhan, 2021) and from continual learning (Caccia et al., 2022), there to the classes of a client or of a task.

    Example:
        >>> import torch
        >>> z = torch.zeros(2, 4)
        >>> round(present_class_cross_entropy(z, torch.tensor([0, 1])).exp().item(), 4)  # two of four classes
        2.0
    """
    batch = Batch(input, target, ignore_index, sample_weight)
    counts = batch.counts()
    nothing = batch.z.new_zeros(batch.z.shape[1])
    carried = batch.q.sum(0) if batch.y is None else nothing.scatter_add(0, batch.y, counts)
    batch.z = batch.z.masked_fill(carried == 0, -torch.inf)
    return batch.reduce(batch.nll(), reduction)


def _along_classes(x: Tensor, input: Tensor) -> Tensor:
    return x.reshape(-1, *[1] * (input.dim() - 2))
