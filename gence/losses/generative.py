"""Generative Cross-Entropy: the function, the module, and the variant that tracks the column sums."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from gence.losses._column_scores import batch_scores, far_from_underflow, log_column_sums, over_group
from gence.losses._contract import (
    Batch,
    as_rows,
    check_counts,
    check_reduction,
    in_dtype_of_cross_entropy,
    is_soft,
    label_shape,
    may_look,
    split_target,
    working_dtype,
)
from gence.losses._module import FunctionalLoss

__all__ = ["GenCELoss", "TrackedGenCELoss", "generative_cross_entropy"]

FEW = 2  # samples whose column sums say almost nothing
LOOK = 32  # rows up to which those that count are counted: in longer batches they are hardly ever so few


def generative_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    strength: float = 1.0,
    group: dist.ProcessGroup | None = None,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Generative Cross-Entropy: cross-entropy with the true class's score normalised over the batch.

    The loss of sample i is ``-log p_y(x_i) + strength * log C_y`` with the column sum ``C_k = sum_j p_k(x_j)``
    over the batch (and over all positions of a spatial input). ``strength=1`` is the paper's loss, ``strength=0``
    is cross-entropy. Everything else follows :func:`torch.nn.functional.cross_entropy`.

    With weights and soft targets, ``a_ik = s_i w_k q_ik`` (s_i the sample weight) counts how much of class k sample i
    carries and ``m_i = sum_k a_ik`` how much of a sample it is. Then ``C_k = sum_j m_j p_k(x_j)``, so that a class
    weight of 2 equals having each sample of that class twice, in the column sums too.

    The smallest value is not 0. On a batch with class counts n_k the floor is ``sum_k (n_k/N) log n_k`` (for
    strength 1, no weights): compare values only between batches of the same composition.

    With `group` the column sums run over the batches of all its processes. The mean of the returned values over the
    processes is then the loss of the whole batch, and DistributedDataParallel, which averages gradients, gives the
    gradient of one process that holds it all. Every process must call forward and backward, an empty shard included.

    Args:
        input: logits, (N, K), (N, K, d1, ...) or (K,).
        target: class indices (N,), (N, d1, ...) or (), or class probabilities of the shape of `input`.
        weight: (K,) non-negative class weights.
        ignore_index: a label whose samples leave both the terms and the column sums (class indices only).
        reduction: ``"mean"`` (over the sum of ``s_i w_y``, or of s_i for probabilities), ``"sum"`` or ``"none"``.
        label_smoothing: epsilon in [0, 1]; the target becomes (1 - epsilon) q + epsilon / K.
        strength: factor of the batch term, in [0, 1].
        group: a torch.distributed process group over whose processes the batch is spread; None is this process only.
        sample_weight: s, of the shape of class indices.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of the class-index target.

    Raises:
        ValueError: `strength` outside [0, 1], an unknown `reduction`, batch sizes that differ.
        IndexError: a label outside 0..K-1 that is not `ignore_index`.
        RuntimeError: wrong target dtype or shape, wrong weight shape, `label_smoothing` outside [0, 1], a second
            derivative with `group`.

    Warns:
        UserWarning: only one or two samples count, in a batch of up to 32 and without `group`.

    Source: Zhan, Zhou and Shen (2026), eq. (4); label smoothing from eqs. (5)-(6) with the target smoothed
    consistently; `strength`, `weight` and `group` are the book's.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
        >>> labels = torch.tensor([0, 1, 1])
        >>> p = logits.softmax(1)
        >>> by_hand = -torch.log(p[range(3), labels] / p.sum(0)[labels]).mean()
        >>> torch.allclose(generative_cross_entropy(logits, labels), by_hand)
        True
    """
    check_strength(strength)
    check_reduction(reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    soft = is_soft(input, target, weight, ignore_index)
    common = input.dtype
    if soft or weight is not None:
        tensors = (input, target if soft else input, input if weight is None else weight)
        common = functools.reduce(torch.promote_types, (x.dtype for x in tensors))
    z = as_rows(input.to(working_dtype(common)))
    y, q, mass = split_target(input, target, z, ignore_index, sample_weight)
    if strength > 0 and group is None and len(z) <= (FEW if mass is None else LOOK):
        _warn_of_few(z, mass)
    if weight is not None:
        if weight.requires_grad:
            raise ValueError("GenCE has no derivative with respect to its class weights. Use weight.detach().")
        weight = weight.to(z.dtype)
    if soft or label_smoothing > 0:
        a, total = _class_mass(z, y, q, mass, weight, label_smoothing)
        loss = _soft_terms(z, a, mass, strength, group)
    else:
        plain = mass is None and weight is None and reduction != "none" and group is None
        small = _small_batch(z, y, reduction, strength) if plain and _is_small(z) else None
        if small is not None:
            return in_dtype_of_cross_entropy(small, common)
        m = z.new_ones(len(z)) if mass is None else mass
        m = m if weight is None else m * weight.gather(0, y)
        loss, *_ = batch_scores(z, m, y, strength, group, weight is None and sample_weight is None)
        total = m.sum()

    if reduction == "none":
        loss = loss.reshape(label_shape(input))
    else:
        loss = loss.sum() if loss.dim() else loss
        if reduction == "mean" and group is None:
            loss = loss / total
        elif reduction == "mean":
            loss = loss * dist.get_world_size(group) / over_group(total.detach(), dist.ReduceOp.SUM, group)
    return in_dtype_of_cross_entropy(loss, common)


def _class_mass(
    z: Tensor, y: Tensor | None, q: Tensor | None, mass: Tensor | None, weight: Tensor | None, smoothing: float
) -> tuple[Tensor, Tensor]:
    """a_ik = s_i w_k q'_ik with q' = (1 - eps) q + eps / K, 0 in rows that do not count; the divisor of the mean."""
    w = 1.0 if weight is None else weight
    if q is None:
        q = torch.zeros_like(z).scatter(1, y[:, None], 1.0)
        each = (q * w).sum(1)
    else:
        each = z.new_ones(len(z))
    a = ((1 - smoothing) * q + smoothing / z.shape[1]) * w
    if mass is None:
        return a, each.sum()
    return (a * mass[:, None]).masked_fill((mass == 0)[:, None], 0.0), (each * mass).sum()


def _warn_of_few(z: Tensor, mass: Tensor | None) -> None:
    """Warn of a batch of one or two samples that count; Python's default filter shows it once.

    Tracers and transforms are left alone, and where a look at the masses would cost a wait all rows count.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or is_functorch_wrapped_tensor(z):
        return
    n = len(z)
    if type(mass) is Tensor and mass.device.type == "cpu" and not is_functorch_wrapped_tensor(mass):
        n = int(mass.count_nonzero())
    if 1 <= n <= FEW:
        warnings.warn(
            "GenCE got a batch of one or two samples that count. The column sums of so few say almost nothing about "
            "the classes: with one sample and strength 1 the gradient is 0. Let no batch be short, with "
            "gence.samplers.EvenBatchSampler or the drop_last of a DataLoader, or take several as one batch, with "
            "gence.losses.accumulated_backward.",
            UserWarning,
            stacklevel=3,
        )


def _small_batch(z: Tensor, y: Tensor, reduction: str, strength: float) -> Tensor | None:
    """``-log p_y + strength * log C_y`` over the batch, unless a C_k may underflow.

    A few operations differentiated by torch: where the batch is small their number counts, not their size.
    """
    log_p = F.log_softmax(z, 1)
    column_sum = log_p.exp().sum(0)
    if not far_from_underflow(column_sum):
        return None
    log_column_sum = column_sum.log()
    return F.nll_loss(log_p - (log_column_sum if strength == 1 else strength * log_column_sum), y, reduction=reduction)


def _is_small(z: Tensor) -> bool:
    return 0 < z.numel() <= 2**14 and may_look(z)


def _soft_terms(z: Tensor, a: Tensor, mass: Tensor | None, strength: float, group: dist.ProcessGroup | None) -> Tensor:
    """The N terms of rows of logits where sample i carries a_ik of class k; 0 log 0 counts as 0."""
    if mass is not None:  # no gradient of a row that does not count, even where its logits are NaN
        z = z.masked_fill((mass == 0)[:, None], 0.0)
    terms = -(a * F.log_softmax(z, 1).masked_fill(a == 0, 0.0)).sum(1)
    if strength == 0:
        return terms
    return terms + strength * (a * log_column_sums(z, a.sum(1), group)).sum(1)


def check_strength(strength: float) -> None:
    if not 0.0 <= strength <= 1.0:
        raise ValueError(
            f"strength must lie in [0, 1], but got {strength}. Use 1 for the paper's GenCE, 0 for cross-entropy."
        )


def generative_terms(batch: Batch, nll: Tensor, strength: float) -> Tensor:
    """-log p + strength log C, beside what :meth:`Batch.of` returns; `nll` is the first part."""
    return nll if strength == 0 else nll + strength * batch.of_classes(log_column_sums(batch.z, batch.counts()))


class GenCELoss(FunctionalLoss):
    """Module form of :func:`generative_cross_entropy`, a drop-in replacement for :class:`torch.nn.CrossEntropyLoss`.

    Args:
        weight: (K,) non-negative class weights.
        ignore_index: label to leave out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: epsilon in [0, 1].
        strength: 1 is the paper's loss, 0 is cross-entropy.
        group: process group over which a batch is spread.

    Shape:
        As :class:`torch.nn.CrossEntropyLoss`, and a call takes `sample_weight`. The result is in nats.

    Raises:
        ValueError: at construction, for a negative weight or a strength outside [0, 1].
        Otherwise what all losses raise.

    Source: Zhan, Zhou and Shen (2026), eq. (4).

    Example:
        >>> import torch
        >>> criterion = GenCELoss()
        >>> round(criterion(torch.zeros(8, 3), torch.arange(8) % 3).item(), 4)  # uniform scores: log 8
        2.0794
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        strength: float = 1.0,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Keep the options; see the class."""
        check_strength(strength)
        weight = None if weight is None else torch.as_tensor(weight)
        if weight is not None and not bool((weight >= 0).all()):
            raise ValueError(f"class weights must be >= 0, but are {weight.tolist()}")
        super().__init__(
            generative_cross_entropy,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
            strength=strength,
            group=group,
        )


class TrackedGenCELoss(nn.Module):
    r"""GenCE with both class marginals of the training set in place of those of the batch.

    In a batch the class term of GenCE is a tax of ``w_k = n_k / C_k`` on the probability of class k. Both numbers are
    noisy, and w_k is 0 for a class that the batch lacks. Here ``w_k = pi_k / m_k``: pi_k is the share of class k in
    the training set, m_k the mean prediction, averaged over about `memory` samples of the past. So the tax does not
    depend on what the batch happens to hold. The value of a sample is ``-log p_y + strength * log(N m_y)``; only the
    current batch's part of m_k has a gradient. With `memory` 0 and the class counts of the batch it is that of GenCE.
    N counts sample weights. A batch with NaN or infinite logits, or without samples, is not remembered.

    Args:
        class_counts: (K,) training samples of each class, each > 0.
        memory: samples over which the mean prediction is averaged, >= 0: after N samples a past value counts
            exp(-N / memory) of what it did.
        strength: of the batch term, in [0, 1].
        reduction, ignore_index: see :mod:`gence.losses`.

    Attributes:
        mean_prediction: (K,) the moving sum of the mean predictions, part of the state dict.
        mass: () the sum of its weights, which corrects the start.

    Raises:
        ValueError: an option out of range. Otherwise what all losses raise.

    Source: the book's own; the moving average is corrected for its start as in Adam (Kingma and Ba, 2015).

    Example:
        >>> import torch
        >>> criterion = TrackedGenCELoss([30.0, 10.0])
        >>> round(criterion(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])).item(), 4)  # uniform scores: log 4
        1.3863
    """

    # Buffers that forward() changes: where several networks train together, each needs its own.
    tracked = ("mean_prediction", "mass")
    mean_prediction: Tensor
    mass: Tensor

    def __init__(
        self,
        class_counts: Tensor | Sequence[float],
        memory: float = 1000.0,
        strength: float = 1.0,
        reduction: str = "mean",
        *,
        ignore_index: int = -100,
    ) -> None:
        """Start without a past; see the class."""
        super().__init__()
        check_strength(strength)
        if not 0 <= memory < math.inf:
            raise ValueError(f"memory must be a number of samples >= 0, but got {memory}")
        counts = torch.as_tensor(class_counts, dtype=torch.float64)
        check_counts(counts)
        self.memory, self.strength = memory, strength
        self.reduction, self.ignore_index = reduction, ignore_index
        self.register_buffer("share", counts / counts.sum())
        self.register_buffer("mean_prediction", torch.zeros_like(counts))
        self.register_buffer("mass", counts.new_zeros(()))

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of logits and targets; in training mode, remember the mean prediction."""
        batch = Batch(input, target, self.ignore_index, sample_weight)
        z = batch.z
        if z.shape[1] != len(self.share):
            raise ValueError(f"class_counts has {len(self.share)} classes, but the logits have {z.shape[1]}")
        p = F.softmax(z, dim=1)
        if batch.mass is None and batch.q is None:
            n, mean = len(z), p.detach().mean(0)
        else:
            counts = batch.counts()
            n = counts.sum()
            mean = (counts[:, None] * p.detach()).sum(0) / n
        mean = self._track(mean, n).to(z.dtype).clamp_min(torch.finfo(z.dtype).tiny)
        tax = (p * (self.share.to(z) / mean)).sum(1)
        level = batch.of_classes((n * mean).log())
        # The value is that of `level`, the gradient that of `tax`.
        return batch.reduce(batch.nll() + self.strength * (level + batch.of_rows(tax - tax.detach())), self.reduction)

    def _track(self, mean: Tensor, n: Tensor | int) -> Tensor:
        """(K,) the mean prediction, this batch of n samples included, unless it is not finite."""
        size = torch.as_tensor(n, dtype=self.mass.dtype, device=self.mass.device)
        old = torch.exp(-size / self.memory) if self.memory else torch.zeros_like(size)
        total = old * self.mean_prediction + (1 - old) * mean.to(self.mean_prediction.dtype)
        good = total.isfinite().all()  # decided without a look, as torch.vmap and a GPU want it
        total = torch.where(good, total, self.mean_prediction)
        mass = torch.where(good, old * self.mass + (1 - old), self.mass)
        if self.training:
            self.mean_prediction.copy_(total)
            self.mass.copy_(mass)
        return total / mass.clamp_min(torch.finfo(mass.dtype).tiny)
