"""Losses of one sample: cross-entropy, Brier, L_q and symmetric cross-entropy."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gence.losses._contract import Batch, check_positive, is_soft, kept_labels
from gence.losses.generative import generative_cross_entropy

__all__ = ["brier_loss", "cross_entropy", "lq_loss", "symmetric_cross_entropy"]


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    smoothing_over: str = "all",
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy ``-log p_y``: :func:`torch.nn.functional.cross_entropy` with two more options.

    Args:
        input, target: logits and labels or class probabilities.
        weight: (K,) class weights.
        reduction, ignore_index, sample_weight: see :mod:`gence.losses`. The mean divides by the sum of the weights.
        label_smoothing: epsilon in [0, 1].
        smoothing_over: ``"all"`` gives epsilon / K to every class, as Szegedy et al. do; ``"others"`` gives
            epsilon / (K - 1) to every class but the true one, as some papers and codes do. The second is the first
            with epsilon K / (K - 1).
        temperature: the logits are divided by it; > 0.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of the class-index target.

    Raises:
        ValueError: an unknown `smoothing_over`, a `temperature` <= 0, an epsilon too large for ``"others"``; and what
        all losses raise.

    Source: Szegedy et al. (2016), section 7, for the smoothing.

    Example:
        >>> import torch
        >>> z, y = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])
        >>> a = cross_entropy(z, y, label_smoothing=0.2, smoothing_over="others")
        >>> torch.allclose(a, cross_entropy(z, y, label_smoothing=0.3))
        True
    """
    if smoothing_over not in ("all", "others"):
        raise ValueError(f"smoothing_over must be 'all' or 'others', but got {smoothing_over!r}")
    check_positive("temperature", temperature)
    if smoothing_over == "others" and label_smoothing > 0:
        n_classes = input.shape[min(1, input.dim() - 1)]
        if not label_smoothing * n_classes <= n_classes - 1:
            raise ValueError(
                f"label_smoothing over the others must be at most (K - 1) / K = {(n_classes - 1) / n_classes:.4g} for "
                f"K = {n_classes} classes, but got {label_smoothing}"
            )
        label_smoothing = label_smoothing * n_classes / (n_classes - 1)
    soft = is_soft(input, target, weight, ignore_index)
    scaled = input if temperature == 1 else input / temperature
    options = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
    if sample_weight is not None or (weight is not None and weight.dtype != input.dtype):  # torch cannot do these
        return generative_cross_entropy(scaled, target, weight, **options, strength=0.0, sample_weight=sample_weight)
    if not soft:
        target = target.long()
        kept_labels(target, input.shape[min(1, input.dim() - 1)], ignore_index)
    return F.cross_entropy(scaled, target, weight, **options)


def brier_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    *,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Brier loss ``sum_k (p_k - 1[y = k])^2`` of each sample: squared error on the simplex, bounded by 2.

    Args:
        input, target: logits and labels or class probabilities.
        reduction, ignore_index, sample_weight: see :mod:`gence.losses`.

    Returns:
        The loss (no unit): a scalar, or for ``"none"`` the shape of class indices.

    Raises:
        What all losses raise.

    Source: Brier (1950), in the multi-class form that sums over the classes.

    Example:
        >>> import torch
        >>> round(brier_loss(torch.zeros(1, 2), torch.tensor([0])).item(), 6)
        0.5
    """
    batch = Batch(input, target, ignore_index, sample_weight)
    p = F.softmax(batch.z, dim=1)
    # |p - e_y|^2 = |p|^2 - 2 p_y + 1 needs no one-hot matrix.
    return batch.reduce(batch.of_rows(p.square().sum(1) + 1) - 2 * batch.of(p), reduction)


def lq_loss(
    input: Tensor,
    target: Tensor,
    q: float = 0.7,
    truncation: float | None = None,
    reduction: str = "mean",
    *,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Generalized cross-entropy ``L_q = (1 - p_y^q) / q``: between cross-entropy (q = 0) and 1 - p_y (q = 1).

    With `truncation` k the loss is held at L_q(k) where p_y <= k, so that such samples, probably mislabelled, have no
    gradient. The official code freezes this choice between passes over the training data and subtracts the constant
    L_q(k); here the choice is made anew at every step, as in the formula.

    Args:
        input, target: logits and labels or class probabilities.
        q: exponent, in (0, 1].
        truncation: None, or k in (0, 1); the paper uses 0.5.
        reduction, ignore_index, sample_weight: see :mod:`gence.losses`.

    Returns:
        The loss (no unit), at most 1 / q: a scalar, or for ``"none"`` the shape of class indices.

    Raises:
        ValueError: `q` or `truncation` out of range; and what all losses raise.

    Source: Zhang and Sabuncu (2018), eqs. (6) and (8).

    Example:
        >>> import torch
        >>> lq_loss(torch.zeros(1, 2), torch.tensor([0]), q=1.0).item()
        0.5
    """
    if not 0 < q <= 1:
        raise ValueError(f"q must lie in (0, 1], but got {q}. The paper uses 0.7; for q = 0 use cross-entropy.")
    if truncation is not None and not 0 < truncation < 1:
        raise ValueError(f"truncation must be None or lie in (0, 1), but got {truncation}. The paper uses 0.5.")
    batch = Batch(input, target, ignore_index, sample_weight)
    nll = batch.nll()
    if truncation is not None:
        nll = nll.clamp_max(-math.log(truncation))
    return batch.reduce(-torch.expm1(-q * nll) / q, reduction)


def symmetric_cross_entropy(
    input: Tensor,
    target: Tensor,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = -4.0,
    reduction: str = "mean",
    *,
    official: bool = False,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Symmetric cross-entropy ``alpha CE + beta RCE``: the reverse part asks how probable the label finds p.

    The reverse cross-entropy ``-sum_k p_k log q_k`` meets log 0, which is set to `log_zero` = A: it is
    ``-A (1 - p_y)``. The official code clamps q at 1e-4 instead, that is A = log 1e-4 = -9.21, and p at 1e-7.

    Args:
        input, target: logits and labels or class probabilities.
        alpha: weight of the cross-entropy; the paper uses 0.1 for CIFAR-10 and 6 for CIFAR-100.
        beta: weight of the reverse cross-entropy; 1 and 0.1.
        log_zero: A, < 0.
        reduction, ignore_index, sample_weight: see :mod:`gence.losses`.
        official: clamp as the official code does; `log_zero` is not used then.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of class indices.

    Raises:
        ValueError: `log_zero` >= 0; and what all losses raise.

    Source: Wang et al. (2019), eqs. (6)-(9), and their code.

    Example:
        >>> import torch
        >>> symmetric_cross_entropy(torch.zeros(1, 2), torch.tensor([0]), alpha=0.0).item()  # 4 (1 - 0.5)
        2.0
    """
    if not log_zero < 0:
        raise ValueError(f"log_zero stands for log 0 and must be negative, but got {log_zero}. The paper uses -4.")
    batch = Batch(input, target, ignore_index, sample_weight)
    nll = batch.nll()
    if official:
        p = F.softmax(batch.z, dim=1).clamp(1e-7, 1.0)
        reverse = -math.log(1e-4) * (batch.of_rows(p.sum(1)) - batch.of(p))
    else:
        reverse = reverse_cross_entropy(nll, log_zero)
    return batch.reduce(alpha * nll + beta * reverse, reduction)


def reverse_cross_entropy(nll: Tensor, log_zero: float) -> Tensor:
    """-sum_k p_k log q_k for a label, with log 0 = A: -A (1 - p_y)."""
    return log_zero * torch.expm1(-nll)
