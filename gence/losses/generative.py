"""Classification losses on logits: functional forms, modules, a registry, and ``make_loss``.

Notation, as in the book: N samples, K classes, z logits, p = softmax(z), q target distribution, y label.
Where published formula and official code differ, the formula is the default.

What all losses share, and the docstrings below do not repeat:

- `input`: logits (N, K), (N, K, d1, ...) or (K,). Half precision is computed in float32.
- `target`: class indices (N,), (N, d1, ...) or () of any integer type, or class probabilities q of the shape of
  `input`, as mixup makes them. The value is then ``sum_k q_k`` times the loss for label k.
- `ignore_index`: a label whose samples are as if they were not there, in the sums over a batch too.
- `sample_weight`: constants >= 0 of the shape of class indices, handed over with the batch. A weight of 2 equals having
  the sample twice, a weight of 0 not having it, in the sums over a batch too.
- `reduction`: ``"mean"`` (the sum over the sum of the sample weights), ``"sum"``, or ``"none"`` for the shape of class
  indices. The mean over nothing is NaN, with gradient 0.
- Errors: ValueError for an unknown `reduction` or wrong sample weights; IndexError for a label outside 0..K-1 (on a
  GPU, torch's own assertion); for shapes and dtypes the type that :func:`torch.nn.functional.cross_entropy` raises.

:func:`cross_entropy` and :func:`generative_cross_entropy` follow that function's whole contract, and a class `weight`
may have another floating-point dtype than the logits.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import (
    TransformType,
    get_interpreter_stack,
    get_unwrapped,
    is_batchedtensor,
    is_functorch_wrapped_tensor,
)
from torch._subclasses import FakeTensor

from gence._words import nearest

__all__ = [
    "DUAL_FOCAL_GAMMAS",
    "REGISTRY",
    "AdaFocalLoss",
    "EntropyLoss",
    "FunctionalLoss",
    "GenCELoss",
    "LossInfo",
    "ScheduledFocalLoss",
    "TrackedGenCELoss",
    "brier_loss",
    "class_balanced_loss",
    "cross_entropy",
    "dual_focal_loss",
    "flsd_loss",
    "focal_loss",
    "gence_focal_loss",
    "generative_cross_entropy",
    "inverse_focal_loss",
    "logit_adjusted_loss",
    "loss_names",
    "lq_loss",
    "make_loss",
    "mmce_loss",
    "present_class_cross_entropy",
    "symmetric_cross_entropy",
]


# --- GenCE ------------------------------------------------------------------------------------------------------


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
    _check_strength(strength)
    _check_reduction(reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    soft = _is_soft(input, target, weight, ignore_index)
    common = input.dtype
    if soft or weight is not None:
        tensors = (input, target if soft else input, input if weight is None else weight)
        common = functools.reduce(torch.promote_types, (x.dtype for x in tensors))
    z = _rows(input.to(_working_dtype(common)))
    y, q, mass = _targets(input, target, z, ignore_index, sample_weight)
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
            return _in_dtype_of_cross_entropy(small, common)
        m = z.new_ones(len(z)) if mass is None else mass
        m = m if weight is None else m * weight.gather(0, y)
        loss, *_ = _batch_scores(z, m, y, strength, group, weight is None and sample_weight is None)
        total = m.sum()

    if reduction == "none":
        loss = loss.reshape(_label_shape(input))
    else:
        loss = loss.sum() if loss.dim() else loss
        if reduction == "mean" and group is None:
            loss = loss / total
        elif reduction == "mean":
            loss = loss * dist.get_world_size(group) / _over_group(total.detach(), dist.ReduceOp.SUM, group)
    return _in_dtype_of_cross_entropy(loss, common)


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


def _small_batch(z: Tensor, y: Tensor, reduction: str, strength: float) -> Tensor | None:
    """``-log p_y + strength * log C_y`` over the batch, unless a C_k may underflow.

    A few operations differentiated by torch: where the batch is small their number counts, not their size.
    """
    log_p = F.log_softmax(z, 1)
    column_sum = log_p.exp().sum(0)
    if not _far_from_underflow(column_sum):
        return None
    log_column_sum = column_sum.log()
    return F.nll_loss(log_p - (log_column_sum if strength == 1 else strength * log_column_sum), y, reduction=reduction)


def _is_small(z: Tensor) -> bool:
    return 0 < z.numel() <= 2**14 and _may_look(z)


def _may_look(z: Tensor) -> bool:
    """Whether a decision may depend on values: not under torch.vmap or a tracer, nor where it costs a wait."""
    return z.device.type == "cpu" and not is_batchedtensor(z) and not _is_traced()


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _far_from_underflow(x: Tensor) -> bool:
    """Whether all entries are numbers (not NaN) that have all their digits, whatever was lost to underflow.

    False where torch.vmap inside another transform hides the values.
    """
    limits = torch.finfo(x.dtype)
    try:
        return bool((x.detach().amin() > limits.tiny / limits.eps).all())
    except RuntimeError:
        return False


def _soft_terms(z: Tensor, a: Tensor, mass: Tensor | None, strength: float, group: dist.ProcessGroup | None) -> Tensor:
    """The N terms of rows of logits where sample i carries a_ik of class k; 0 log 0 counts as 0."""
    if mass is not None:  # no gradient of a row that does not count, even where its logits are NaN
        z = z.masked_fill((mass == 0)[:, None], 0.0)
    terms = -(a * F.log_softmax(z, 1).masked_fill(a == 0, 0.0)).sum(1)
    if strength == 0:
        return terms
    return terms + strength * (a * _log_column_sums(z, a.sum(1), group)).sum(1)


def _log_column_sums(z: Tensor, m: Tensor | None, group: dist.ProcessGroup | None = None) -> Tensor:
    """(K,) log C_k = log sum_i m_i p_ik."""
    nowhere = torch.zeros(len(z), dtype=torch.long, device=z.device)  # no row has a label of its own
    m = z.new_ones(len(z)) if m is None else m
    return _batch_scores(z, m, nowhere, 0.0, group, False)[1]


class _BatchScores(torch.autograd.Function):
    """From logits (N, K) to the terms m_i (-log p_y + strength log C_y) and to log C_k, with a closed-form backward.

    The one N x K buffer that is kept is ``e_ik = p_ik / exp(c_k)`` with a column scale c that avoids underflow. The
    column sums are ``exp(c_k) D_k`` with ``D_k = sum_i m_i e_ik``. If g_i is the derivative of term i, and
    ``h_k = strength * sum_i m_i g_i 1[y_i = k]`` + the derivative of log C_k, then

        dL/dz_ik = e_ik [ (m_i g_i - m_i t_i) exp(c_k) + m_i h_k / D_k ] - m_i g_i 1[k = y_i]

    with ``t_i = sum_k e_ik h_k / D_k``. The buffer is an output, so that autograd can differentiate this formula again.
    It then reads the buffer as ``e_ik = exp(z_ik - a_i - c_k)`` with constants a and c, on which no result depends, and
    divides by the row sums ``s_i = sum_k e_ik exp(c_k)``, which are 1.

    Rows with m_i = 0 have e_ik = 0. So where `unweighted` says that every other m_i is 1, the first m_i in the brackets
    can be left out as well.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        z: Tensor,
        m: Tensor,
        y: Tensor,
        strength: float,
        group: dist.ProcessGroup | None,
        unweighted: bool,
    ) -> tuple[Tensor, ...]:
        with _without_autocast(z):
            nll, e, c, d = _by_rows(z, m, y, group) or _by_columns(z, m, y, group)
            log_column_sum = d.log() if len(c) == 0 else (d.log() + c).clamp_min(torch.finfo(z.dtype).min)
            each = nll if strength == 0 else nll + strength * log_column_sum.gather(0, y)
            return m * each, log_column_sum, e, c, d

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        _, m, y, ctx.strength, ctx.group, ctx.unweighted = inputs
        _, _, e, c, d = output
        ctx.mark_non_differentiable(c, d)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(m, y, e, c, d)

    @staticmethod
    def backward(ctx, g: Tensor | None, h: Tensor | None, of_e: Tensor | None, *_) -> tuple[Tensor | None, ...]:
        m, y, e, c, d = ctx.saved_tensors
        group = ctx.group
        again = torch.is_grad_enabled()  # what follows may be differentiated again
        if again and group is not None:
            raise RuntimeError("generative_cross_entropy has no second derivative with group; use group=None for it")
        with _without_autocast(e):
            scale = c.exp() if len(c) else None
            w, s = m, None
            if again:
                s = torch.where(m == 0, 1.0, e.sum(1) if scale is None else e @ scale)
                w = m / s
                d = w @ e
            # The mean over nothing has derivative infinity; an ignored row has none, as in cross_entropy.
            g = torch.zeros_like(m) if g is None else (m * g).masked_fill(m == 0, 0.0)
            if ctx.strength > 0:
                of_labels = torch.zeros_like(d).scatter_add(0, y, ctx.strength * g)
                h = of_labels if h is None else h + of_labels
            row, share = g, None
            if h is not None:
                h = _over_group(h, dist.ReduceOp.SUM, group)
                share = h / d if scale is None else torch.where(d > 0, h / d, 0.0)
                row = g - w * (e @ share)
            row = row if s is None else row / s
            by_z = row[:, None] if scale is None else torch.outer(row, scale)
            if share is None:
                by_z = by_z * e
            elif ctx.unweighted and not again:  # w is m
                by_z = (by_z + share).mul_(e)  # one new buffer
            else:
                by_z = torch.outer(w, share).add_(by_z).mul_(e)
            by_z = by_z.scatter_add_(1, y[:, None], -g[:, None])
            if of_e is not None:  # only when autograd differentiates this formula again
                by_z = by_z + of_e * e
        return by_z, None, None, None, None, None


class _BatchScoresBothWays(_BatchScores):
    """With the forward-mode derivative, which torch.compile does not take."""

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        _BatchScores.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[1:3], *output[2:])

    @staticmethod
    def jvp(ctx, by_z: Tensor | None, *_) -> tuple[Tensor | None, ...]:
        """The derivative in a direction of the logits, from e alone, so that it can be differentiated again."""
        m, y, e, c, _ = ctx.saved_tensors
        with _without_autocast(e):
            scale = torch.ones_like(e[0]) if len(c) == 0 else c.exp()
            s = torch.where(m == 0, 1.0, e @ scale)
            by_e = e * by_z
            by_log_p = by_z - ((by_e @ scale) / s)[:, None]
            d, of_columns = (_over_group((m / s) @ x, dist.ReduceOp.SUM, ctx.group) for x in (e, e * by_log_p))
            by_log_c = torch.where(d > 0, of_columns / d, 0.0)
            terms = m * (ctx.strength * by_log_c.gather(0, y) - by_log_p.gather(1, y[:, None])[:, 0])
        return terms, by_log_c, by_e, None, None


def _batch_scores(*inputs) -> tuple[Tensor, ...]:
    if torch.compiler.is_compiling():
        return _BatchScores.apply(*inputs)
    if [level.key() for level in get_interpreter_stack() or ()].count(TransformType.Jvp) > 1:
        raise NotImplementedError(  # torch would leave the inner derivative out, without a word
            "GenCE has no forward-mode derivative of a forward-mode derivative. Take one of the two in reverse mode, "
            "as torch.func.hessian does: jacfwd(jacrev(loss))."
        )
    return _BatchScoresBothWays.apply(*inputs)


# torch binds the arguments of every call to the signature, and would work it out anew each time (60 microseconds).
_BatchScores.forward.__signature__ = inspect.signature(_BatchScores.forward)


def _by_rows(z: Tensor, m: Tensor, y: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, ...] | None:
    """-log p_y, e, c and D with e = p and no column scale, unless a row has no weight or p_y or C_k is near underflow.

    It saves a second exponential for each logit, which is what counts on a CPU; elsewhere the look at the values would
    cost more than it saves.
    """
    if len(z) == 0 or group is not None or not _may_look(z):
        return None
    e = F.softmax(z, 1)
    d = m @ e
    p_y = -F.nll_loss(e, y, reduction="none")
    if not all(_far_from_underflow(x) for x in (m, d, p_y)):
        return None
    return -p_y.log(), e, z.new_empty(0), d


def _by_columns(z: Tensor, m: Tensor, y: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, ...]:
    """The same with the columns' maxima of log p as a second scale: exact for any logits."""
    # An ignored sample leaves the sums even where its own logits are NaN.
    log_p = F.log_softmax(z, 1).masked_fill((m == 0)[:, None], -torch.inf)
    nll = F.nll_loss(log_p, y, reduction="none").masked_fill(m == 0, 0.0)
    c = log_p.amax(0) if len(z) else z.new_full((z.shape[1],), -torch.inf)
    # The smallest finite number stands for -inf, the scale of a class that no sample allows.
    c = _over_group(c, dist.ReduceOp.MAX, group).clamp_min(torch.finfo(z.dtype).min)
    e = log_p.sub_(c).exp_()
    return nll, e, c, _over_group(m @ e, dist.ReduceOp.SUM, group)


def _over_group(x: Tensor, op: dist.ReduceOp, group: dist.ProcessGroup | None) -> Tensor:
    """The sum or maximum of x over the processes of a group."""
    if group is None:
        return x
    x = x.clone()
    dist.all_reduce(x, op, group)
    return x


def _without_autocast(x: Tensor):
    """Autocast would turn the column sums back into half precision."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else contextlib.nullcontext()


# --- The contract of all losses -----------------------------------------------------------------------------------

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class _Batch:
    """A batch in the form that the losses compute with: rows of logits, labels or class probabilities, and masses.

    Attributes:
        z: (M, K) logits in the working dtype, a row for each sample and position; 0 in rows that do not count.
        y: (M,) labels in 0..K-1, or None.
        q: (M, K) class probabilities, or None.
        mass: (M,) sample weights, 0 where the label is ignored; None where every row counts 1.
        shape: of class indices.
    """

    def __init__(self, input: Tensor, target: Tensor, ignore_index: int, sample_weight: Tensor | None) -> None:
        _is_soft(input, target, None, ignore_index)
        self.z, self.shape = _rows(_float(input)), _label_shape(input)
        self.y, self.q, self.mass = _targets(input, target, self.z, ignore_index, sample_weight)
        if self.mass is not None:  # not even a row of NaN may spoil a sum over the batch, or a gradient
            without = (self.mass == 0)[:, None]
            self.z = self.z.masked_fill(without, 0.0)
            self.q = None if self.q is None else self.q.masked_fill(without, 0.0)

    def of(self, table: Tensor) -> Tensor:
        """What a loss is computed for: (M,) a table's entries of the labels; for class probabilities all (M, K)."""
        return table if self.y is None else table.gather(1, self.y[:, None])[:, 0]

    def of_rows(self, values: Tensor) -> Tensor:
        """(M,) values of the rows, beside what :meth:`of` returns."""
        return values[:, None] if self.y is None else values

    def of_classes(self, values: Tensor) -> Tensor:
        """(K,) values of the classes, beside what :meth:`of` returns."""
        return values if self.y is None else values.gather(0, self.y)

    def nll(self) -> Tensor:
        """-log p of the labels; of all classes for class probabilities, but 0 where they are 0, as 0 log 0 is 0."""
        log_p = F.log_softmax(self.z, dim=1)
        if self.y is None:
            return -log_p.masked_fill(self.q == 0, 0.0)
        return F.nll_loss(log_p, self.y, reduction="none")

    def counts(self) -> Tensor:
        """(M,) how much of a sample each row is."""
        mass = self.z.new_ones(len(self.z)) if self.mass is None else self.mass
        return mass if self.q is None else mass * self.q.sum(1)

    def size(self) -> Tensor | int:
        """The divisor of the mean."""
        return len(self.z) if self.mass is None else self.mass.sum()

    def reduce(self, terms: Tensor, reduction: str) -> Tensor:
        """From terms in the form of :meth:`of` to the loss."""
        _check_reduction(reduction)
        if self.q is not None:
            terms = (self.q * terms).sum(1)
        if self.mass is not None:
            terms = (self.mass * terms).masked_fill(self.mass == 0, 0.0)
        if reduction == "none":
            return terms.reshape(self.shape)
        if reduction == "mean" and self.mass is None:
            return terms.mean()
        return terms.sum() if reduction == "sum" else terms.sum() / self.size()


def _is_soft(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> bool:
    """Whether the target holds class probabilities. What does not fit is refused with the error type of torch."""
    fault = _fault(input, target, weight, ignore_index)
    if fault is None:
        return target.shape == input.shape
    kind = ValueError
    try:
        F.cross_entropy(input.detach(), target, weight, ignore_index=ignore_index)
    except (ValueError, IndexError, RuntimeError, TypeError) as error:
        kind = type(error)
    except Exception:  # torch.vmap has assertions of its own
        pass
    raise kind(fault)


def _fault(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> str | None:
    """What is wrong with dtypes and shapes, and what to do."""
    for name, value in (("logits", input), ("the target", target), ("weight", weight)):
        if not isinstance(value, Tensor) and value is not None:
            return f"{name} must be a tensor, but is a {type(value).__name__}. Use torch.as_tensor."
    if input.dim() == 0 or not input.is_floating_point():
        return (
            f"logits must be floating-point numbers (N, K), (N, K, d1, ...) or (K,), but have the dtype {input.dtype} "
            f"and the shape {tuple(input.shape)}. Use the float output of the network, before any softmax or argmax."
        )
    shape, n_classes = _label_shape(input), input.shape[min(1, input.dim() - 1)]
    if weight is not None and weight.shape != (n_classes,):
        return (
            f"weight must hold one number for each of the {n_classes} classes, but has the shape "
            f"{tuple(weight.shape)}. A weight for each sample is sample_weight."
        )
    if target.shape == input.shape:
        if not target.is_floating_point():
            return (
                f"a target of the shape of the logits, {tuple(input.shape)}, must hold class probabilities, but has "
                f"the dtype {target.dtype}. Use target.float(), or class indices of shape {shape}."
            )
        if ignore_index >= 0:
            return (
                f"ignore_index = {ignore_index} is for class indices, but the target holds class probabilities. "
                f"Give rows that shall not count a sample_weight of 0."
            )
    elif target.shape != shape and not (input.dim() == 1 and target.shape == (1,)):
        return (
            f"logits of shape {tuple(input.shape)} need class indices of shape {shape} or class probabilities of "
            f"shape {tuple(input.shape)}, but the target has the shape {tuple(target.shape)}."
        )
    elif target.dtype not in INTEGERS:
        return f"class indices must be integers, but have the dtype {target.dtype}. Use target.long()."
    return None


def _targets(
    input: Tensor, target: Tensor, z: Tensor, ignore_index: int, sample_weight: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(M,) labels in 0..K-1, (M, K) class probabilities and (M,) masses of the rows z, as in :class:`_Batch`."""
    mass = None if sample_weight is None else _row_weights(sample_weight, _label_shape(input)).to(z.dtype)
    if target.shape == input.shape:
        return None, _rows(target).to(z.dtype), mass
    y = target if target.dim() == 1 and target.dtype == torch.long else target.reshape(-1).long()
    kept = _kept(y, z.shape[1], ignore_index)
    if kept is None:
        return y, None, mass
    return torch.where(kept, y, 0), None, kept.to(z.dtype) if mass is None else torch.where(kept, mass, 0.0)


def _row_weights(sample_weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(sample_weight, Tensor) or sample_weight.shape != shape:
        found = tuple(sample_weight.shape) if isinstance(sample_weight, Tensor) else type(sample_weight).__name__
        raise ValueError(f"sample_weight must be a tensor of the shape of class indices, {shape}, but is {found}.")
    if sample_weight.requires_grad:
        raise ValueError("sample_weight is a constant: use sample_weight.detach(), or weigh with reduction='none'.")
    known = _known(sample_weight)
    if known is not None and not bool(((known >= 0) & (known < math.inf)).all()):
        wrong = known[~((known >= 0) & (known < math.inf))].flatten()[0].item()
        raise ValueError(f"sample_weight must hold finite numbers >= 0, but one is {wrong}. Use clamp(min=0).")
    return sample_weight.reshape(-1)


def _kept(y: Tensor, n_classes: int, ignore_index: int) -> Tensor | None:
    """(M,) which labels count, None if it is known that all do. Others outside 0..K-1 are refused if they can be read.

    Otherwise the kernels that look the labels up refuse them.
    """
    known = _known(y)
    if known is None:
        return y != ignore_index
    if known.numel() == 0:
        return None
    low, high = (int(v) for v in known.aminmax())
    if low >= 0 and high < n_classes and not low <= ignore_index <= high:
        return None
    count = known != ignore_index
    outside = known[count & ((known < 0) | (known >= n_classes))]
    if outside.numel():
        raise IndexError(
            f"label {int(outside[0])} is out of bounds: with {n_classes} classes labels lie in 0..{n_classes - 1}. "
            f"Number the classes from 0; for samples to leave out use ignore_index, which is {ignore_index} here."
        )
    return None if bool(count.all()) else y != ignore_index


def _known(x: Tensor) -> Tensor | None:
    """The values behind all torch.func transforms, or None where they are unknown or reading them costs a wait."""
    if x.device.type != "cpu" or _is_traced():
        return None
    while is_functorch_wrapped_tensor(x):
        x = get_unwrapped(x)
    return None if isinstance(x, FakeTensor) else x


def _label_shape(input: Tensor) -> tuple[int, ...]:
    return () if input.dim() == 1 else (*input.shape[:1], *input.shape[2:])


def _rows(x: Tensor) -> Tensor:
    """(K,), (N, K) or (N, K, d1, ...) to one row of K entries for each sample and position."""
    if x.dim() == 2:
        return x
    if x.dim() == 1:
        return x[None]
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def _in_dtype_of_cross_entropy(loss: Tensor, common: torch.dtype) -> Tensor:
    """The common dtype of logits, targets and weights, but float32 for half logits under autocast."""
    return loss if loss.dtype == common or torch.is_autocast_enabled(loss.device.type) else loss.to(common)


def _working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Losses of half precision logits are computed in float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction!r} is not a valid value for reduction: use 'mean', 'sum' or 'none'")


def _check_strength(strength: float) -> None:
    if not 0.0 <= strength <= 1.0:
        raise ValueError(
            f"strength must lie in [0, 1], but got {strength}. Use 1 for the paper's GenCE, 0 for cross-entropy."
        )


# --- The family: losses of one sample ---------------------------------------------------------------------------


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
        reduction, ignore_index, sample_weight: see the head of the module. The mean divides by the sum of the weights.
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
    _check_positive("temperature", temperature)
    if smoothing_over == "others" and label_smoothing > 0:
        n_classes = input.shape[min(1, input.dim() - 1)]
        if not label_smoothing * n_classes <= n_classes - 1:
            raise ValueError(
                f"label_smoothing over the others must be at most (K - 1) / K = {(n_classes - 1) / n_classes:.4g} for "
                f"K = {n_classes} classes, but got {label_smoothing}"
            )
        label_smoothing = label_smoothing * n_classes / (n_classes - 1)
    soft = _is_soft(input, target, weight, ignore_index)
    scaled = input if temperature == 1 else input / temperature
    options = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
    if sample_weight is not None or (weight is not None and weight.dtype != input.dtype):  # torch cannot do these
        return generative_cross_entropy(scaled, target, weight, **options, strength=0.0, sample_weight=sample_weight)
    if not soft:
        target = target.long()
        _kept(target, input.shape[min(1, input.dim() - 1)], ignore_index)
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
        reduction, ignore_index, sample_weight: see the head of the module.

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
    batch = _Batch(input, target, ignore_index, sample_weight)
    p = F.softmax(batch.z, dim=1)
    # |p - e_y|^2 = |p|^2 - 2 p_y + 1 needs no one-hot matrix.
    return batch.reduce(batch.of_rows(p.square().sum(1) + 1) - 2 * batch.of(p), reduction)


def focal_loss(
    input: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    reduction: str = "mean",
    *,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Focal loss ``-(1 - p_y)^gamma log p_y``: cross-entropy that looks away from samples it already knows.

    ``gamma=0`` is cross-entropy. Not proper for any ``gamma > 0``.

    Args:
        input, target: logits and labels or class probabilities.
        gamma: focusing parameter, >= 0.
        reduction, ignore_index, sample_weight: see the head of the module.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of class indices.

    Raises:
        ValueError: `gamma` < 0; and what all losses raise.

    Source: Lin et al. (2017), multi-class form of Mukhoti et al. (2020).

    Example:
        >>> import torch
        >>> z, y = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([2])
        >>> torch.equal(focal_loss(z, y, gamma=0.0), torch.nn.functional.cross_entropy(z, y))
        True
    """
    _check_gamma(gamma)
    batch = _Batch(input, target, ignore_index, sample_weight)
    nll = batch.nll()
    return batch.reduce(_focus(nll, gamma) * nll, reduction)


def inverse_focal_loss(
    input: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    reduction: str = "mean",
    *,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Inverse focal loss ``-(1 + p_y)^gamma log p_y``: weighs the samples it already knows more, not less.

    Above gamma = 3.59 (1 / W(1/e)) it is no longer monotone: a larger p_y can cost more.

    Args:
        input, target: logits and labels or class probabilities.
        gamma: >= 0; 0 is cross-entropy.
        reduction, ignore_index, sample_weight: see the head of the module.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of class indices.

    Raises:
        ValueError: `gamma` < 0; and what all losses raise.

    Source: Wang, Feng and Zhang (2021); the negative branch of Ghosh, Schaaf and Gormley (2022).

    Example:
        >>> import torch
        >>> round(inverse_focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0).item(), 4)  # 1.5 log 2
        1.0397
    """
    _check_gamma(gamma)
    batch = _Batch(input, target, ignore_index, sample_weight)
    nll = batch.nll()
    return batch.reduce(_focus(nll, -gamma) * nll, reduction)


def flsd_loss(
    input: Tensor,
    target: Tensor,
    gammas: Sequence[float] = (5.0, 3.0),
    thresholds: Sequence[float] = (0.2,),
    reduction: str = "mean",
    *,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Sample-dependent focal loss (FLSD): the focusing parameter is chosen by p_y.

    A sample with p_y below ``thresholds[0]`` gets ``gammas[0]``, and so on; the last gamma is for the rest. The choice
    has no gradient. The default is FLSD-53. FLSD-52 in the official code has three levels, because its table keeps
    gamma 3 below p_y = 0.5 whatever the last gamma is: ``gammas=(5, 3, 2), thresholds=(0.2, 0.5)``.

    Args:
        input, target: logits and labels or class probabilities.
        gammas: one more than `thresholds`, each >= 0.
        thresholds: increasing values of p_y in (0, 1).
        reduction, ignore_index, sample_weight: see the head of the module.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of class indices.

    Raises:
        ValueError: lists that do not fit; and what all losses raise.

    Source: Mukhoti et al. (2020), section 5 and their code.

    Example:
        >>> import torch
        >>> z, y = torch.zeros(1, 4), torch.tensor([0])  # p_y is 0.25: gamma 3
        >>> torch.equal(flsd_loss(z, y), focal_loss(z, y, gamma=3.0))
        True
    """
    if len(gammas) != len(thresholds) + 1 or min(gammas) < 0 or list(thresholds) != sorted(set(thresholds)):
        raise ValueError(
            f"flsd needs one more gamma than increasing thresholds, but got gammas = {tuple(gammas)} and thresholds = "
            f"{tuple(thresholds)}. FLSD-53 is gammas=(5, 3), thresholds=(0.2,)."
        )
    batch = _Batch(input, target, ignore_index, sample_weight)
    nll = batch.nll()
    level = torch.bucketize(torch.exp(-nll.detach()), nll.new_tensor(thresholds), right=True)
    return batch.reduce(_focus(nll, nll.new_tensor(gammas)[level]) * nll, reduction)


# The focusing parameters that Tao, Dong and Xu chose on validation data for each data set and network.
DUAL_FOCAL_GAMMAS = {
    ("cifar10", "resnet50"): 5.0,
    ("cifar10", "resnet110"): 4.5,
    ("cifar10", "wide_resnet"): 2.6,
    ("cifar10", "densenet121"): 5.0,
    ("cifar100", "resnet50"): 5.0,
    ("cifar100", "resnet110"): 6.1,
    ("cifar100", "wide_resnet"): 3.9,
    ("cifar100", "densenet121"): 3.4,
    ("tiny_imagenet", "resnet50"): 2.3,
}


def dual_focal_loss(
    input: Tensor,
    target: Tensor,
    gamma: float = 5.0,
    reduction: str = "mean",
    *,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Dual focal loss ``-(1 - p_y + p_j)^gamma log p_y`` with p_j the largest probability strictly below p_y.

    p_j is 0 where no class lies below the true one. For a misclassified sample it is not the strongest rival, which
    lies above. ``DUAL_FOCAL_GAMMAS`` holds the gammas of the paper's code for each data set and network.

    Args:
        input, target: logits and labels or class probabilities.
        gamma: >= 0; 0 is cross-entropy. (The official default, 0, is never used.)
        reduction, ignore_index, sample_weight: see the head of the module.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of class indices.

    Raises:
        ValueError: `gamma` < 0; and what all losses raise.

    Source: Tao, Dong and Xu (2023), eq. (7), and their code.

    Example:
        >>> import torch
        >>> z, y = torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([1])
        >>> round((dual_focal_loss(z, y, gamma=1.0) / -z[0, 1]).item(), 4)  # 1 - 0.2 + 0.1
        0.9
    """
    _check_gamma(gamma)
    batch = _Batch(input, target, ignore_index, sample_weight)
    nll = batch.nll()
    p = F.softmax(batch.z, dim=1)
    if batch.y is None:  # of every class the next one below
        ordered = p.sort(1).values
        below = torch.searchsorted(ordered.detach(), p.detach())
        p_j = torch.where(below > 0, ordered.gather(1, (below - 1).clamp_min(0)), 0.0)
    else:
        p_j = torch.where(p < batch.of(p)[:, None], p, 0.0).amax(1)
    return batch.reduce(_power(-torch.expm1(-nll) + p_j, gamma) * nll, reduction)


def gence_focal_loss(
    input: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    reduction: str = "mean",
    *,
    strength: float = 1.0,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""GenCE times focal loss, ``-(1 - p_y)^gamma log(p_y / C_y)``, the hybrid of the paper's section 7.

    Args:
        input, target: logits and labels or class probabilities.
        gamma: >= 0; 0 is GenCE.
        reduction, ignore_index, sample_weight: see the head of the module.
        strength: of the class term, in [0, 1]; 0 is the focal loss.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of class indices.

    Raises:
        ValueError: `gamma` < 0, `strength` outside [0, 1]; and what all losses raise.

    Source: Zhan, Zhou and Shen (2026), eq. (9), with the factor inside the sum.

    Example:
        >>> import torch
        >>> z, y = torch.eye(3), torch.arange(3)
        >>> torch.allclose(gence_focal_loss(z, y, gamma=0.0), generative_cross_entropy(z, y))
        True
    """
    _check_gamma(gamma)
    _check_strength(strength)
    batch = _Batch(input, target, ignore_index, sample_weight)
    nll = batch.nll()
    return batch.reduce(_focus(nll, gamma) * _generative(batch, nll, strength), reduction)


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
        reduction, ignore_index, sample_weight: see the head of the module.

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
    batch = _Batch(input, target, ignore_index, sample_weight)
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
        reduction, ignore_index, sample_weight: see the head of the module.
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
    batch = _Batch(input, target, ignore_index, sample_weight)
    nll = batch.nll()
    if official:
        p = F.softmax(batch.z, dim=1).clamp(1e-7, 1.0)
        reverse = -math.log(1e-4) * (batch.of_rows(p.sum(1)) - batch.of(p))
    else:
        reverse = _reverse_cross_entropy(nll, log_zero)
    return batch.reduce(alpha * nll + beta * reverse, reduction)


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
        reduction, ignore_index, sample_weight: see the head of the module.
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
    _is_soft(input, target, None, ignore_index)
    counts = _class_counts(class_counts, input)
    pi = counts / counts.sum()
    shift = (pi**tau + 1e-12).log() if official else tau * pi.log()
    adjusted = _float(input) + _along_classes(shift, input)
    if strength == 0:
        batch = _Batch(adjusted, target, ignore_index, sample_weight)
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
        reduction, ignore_index, sample_weight: see the head of the module.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of class indices.

    Raises:
        ValueError: `beta` out of range, class counts that do not fit or are not positive; and what all losses raise.

    Source: Cui et al. (2019), eq. (5).

    Example:
        >>> import torch
        >>> z, y = torch.zeros(1, 2), torch.tensor([1])
        >>> round((class_balanced_loss(z, y, [30.0, 10.0], beta=1 - 1e-6) / cross_entropy(z, y)).item(), 3)
        1.5
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must lie in [0, 1), but got {beta}. The paper uses 0.9, 0.99, 0.999 and 0.9999.")
    batch = _Batch(input, target, ignore_index, sample_weight)
    counts = _class_counts(class_counts, input)
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
    with one class alone it is 0. GenCE has the same gradient up to a relative error of the order of mean(1 - p_y).

    Args:
        input, target: logits and labels or class probabilities; the batch is all N samples and all positions.
        reduction, ignore_index, sample_weight: see the head of the module.

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
    batch = _Batch(input, target, ignore_index, sample_weight)
    counts = batch.counts()
    nothing = batch.z.new_zeros(batch.z.shape[1])
    carried = batch.q.sum(0) if batch.y is None else nothing.scatter_add(0, batch.y, counts)
    batch.z = batch.z.masked_fill(carried == 0, -torch.inf)
    return batch.reduce(batch.nll(), reduction)


def mmce_loss(
    input: Tensor,
    target: Tensor,
    coefficient: float = 2.0,
    bandwidth: float = 0.4,
    reduction: str = "mean",
    *,
    weighted: bool = False,
    official: bool = False,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Cross-entropy plus the maximum mean calibration error (MMCE) of the batch.

    With confidence r_i = max_k p_ik, correctness c_i and the kernel ``k(a, b) = exp(-|a - b| / bandwidth)``,
    ``MMCE^2 = sum_ij u_i u_j k(r_i, r_j)`` with u_i = (c_i - r_i) / N. `weighted` (MMCE_w) divides by the number of
    correct samples for the correct ones and of wrong samples for the wrong ones instead. The official code takes no
    root of MMCE^2; in MMCE_w it divides by the squared numbers twice, so that the term falls as the batch grows, and
    drops the term if all or none are correct.

    Args:
        input, target: logits and labels. Whether a sample is right has no clear meaning for class probabilities.
        coefficient: of the calibration term; the code of Mukhoti et al. uses 2.
        bandwidth: of the kernel, > 0.
        reduction: ``"mean"``, or ``"sum"`` for N times the mean. The term belongs to the batch: no ``"none"``.
        weighted: MMCE_w.
        official: the variant of the code of Mukhoti et al. (2020).
        ignore_index, sample_weight: see the head of the module.

    Returns:
        A scalar: nats plus a calibration error.

    Raises:
        ValueError: `bandwidth` <= 0, ``reduction="none"``, class probabilities; and what all losses raise.

    Source: Kumar, Sarawagi and Jain (2018), eqs. (3) and (5); code of Mukhoti et al. (2020).

    Example:
        >>> import torch
        >>> z, y = torch.zeros(1, 2), torch.tensor([0])  # confidence 1/2, correct: MMCE is 1/2
        >>> round((mmce_loss(z, y, coefficient=1.0) - cross_entropy(z, y)).item(), 6)
        0.5
    """
    _check_positive("bandwidth", bandwidth)
    if reduction not in ("mean", "sum"):
        raise ValueError(f"mmce is a loss of the whole batch: use reduction='mean' or 'sum', not {reduction!r}")
    batch = _Batch(input, target, ignore_index, sample_weight)
    if batch.y is None:
        raise ValueError(
            f"mmce needs class indices of shape {batch.shape}, but the target holds class probabilities, for which it "
            f"is not defined. Train on mixed labels with another loss, for example make_loss('focal')."
        )
    confidence, predicted = F.softmax(batch.z, dim=1).max(1)
    correct = predicted == batch.y
    counts = batch.counts()
    gap = counts * (correct.to(confidence) - confidence)
    kernel = torch.exp(-(confidence[:, None] - confidence).abs() / bandwidth)
    n_correct, n_wrong = (counts * correct).sum(), (counts * ~correct).sum()
    group_size = torch.where(correct, n_correct, n_wrong) if weighted else counts.sum().expand_as(gap)
    u = gap / torch.where(group_size > 0, group_size, 1.0)
    with _without_autocast(u):
        if not official:
            penalty = _root(u @ kernel @ u)
        elif not weighted:
            penalty = u @ kernel @ u
        else:
            sizes = group_size[:, None] * group_size
            value = _root((u[:, None] * u * kernel / (sizes + 1e-5)).sum() + 1e-10)
            penalty = torch.where((n_correct > 0) & (n_wrong > 0), value, 0.0)
    size = batch.size() if reduction == "sum" else 1
    return batch.reduce(batch.nll(), reduction) + coefficient * size * penalty


# --- The formulas that several losses share -----------------------------------------------------------------------


def _float(input: Tensor) -> Tensor:
    dtype = _working_dtype(input.dtype)
    return input if input.dtype == dtype else input.to(dtype)


def _generative(batch: _Batch, nll: Tensor, strength: float) -> Tensor:
    """-log p + strength log C, beside what :meth:`_Batch.of` returns; `nll` is the first part."""
    return nll if strength == 0 else nll + strength * batch.of_classes(_log_column_sums(batch.z, batch.counts()))


def _focus(nll: Tensor, gamma: float | Tensor) -> Tensor:
    """The focal factor of -log p_y: (1 - p_y)^gamma, and (1 + p_y)^|gamma| for a negative gamma."""
    if not isinstance(gamma, Tensor):
        return _power(-torch.expm1(-nll), gamma) if gamma >= 0 else (1 + torch.exp(-nll)) ** -gamma
    # Each branch sees only exponents of its own sign, so that no unused power spoils the gradient.
    falling = _power(-torch.expm1(-nll), gamma.clamp_min(0))
    return torch.where(gamma >= 0, falling, (1 + torch.exp(-nll)) ** -gamma.clamp_max(0))


def _power(base: Tensor, gamma: float | Tensor) -> Tensor:
    """base^gamma for base >= 0; the floor keeps the gradient finite at 0 for gamma < 1, where it would be NaN."""
    return base.clamp_min(torch.finfo(base.dtype).tiny) ** gamma


def _reverse_cross_entropy(nll: Tensor, log_zero: float) -> Tensor:
    """-sum_k p_k log q_k for a label, with log 0 = A: -A (1 - p_y)."""
    return log_zero * torch.expm1(-nll)


def _root(square: Tensor) -> Tensor:
    """The square root, with gradient 0 instead of infinity where rounding leaves nothing."""
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()


def _class_counts(class_counts: Tensor | Sequence[float], input: Tensor) -> Tensor:
    """(K,) in the dtype of the losses; a compiler reads no values, but the modules check theirs when they are built."""
    counts = torch.as_tensor(class_counts, device=input.device).to(_working_dtype(input.dtype))
    n_classes = input.shape[min(1, input.dim() - 1)]
    if counts.shape != (n_classes,):
        raise ValueError(
            f"class_counts must hold one number for each of the {n_classes} classes, but is {counts.tolist()}. {_COUNT}"
        )
    if not _is_traced():
        _check_counts(counts)
    return counts


def _check_counts(class_counts: Tensor | Sequence[float]) -> None:
    counts = torch.as_tensor(class_counts)
    if counts.dim() != 1 or not bool(((counts > 0) & (counts < math.inf)).all()):
        raise ValueError(f"class_counts must hold a positive number for each class, but is {counts.tolist()}. {_COUNT}")


_COUNT = "Count the labels of the training set, for example with torch.bincount."


def _along_classes(x: Tensor, input: Tensor) -> Tensor:
    return x.reshape(-1, *[1] * (input.dim() - 2))


def _check_gamma(gamma: float) -> None:
    if not gamma >= 0:
        raise ValueError(f"gamma must be >= 0 (0 is cross-entropy), but got {gamma}. Use gamma=0 or larger.")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, but got {value}")


# --- Modules ------------------------------------------------------------------------------------------------------


class FunctionalLoss(nn.Module):
    """A loss function with its options, as a module; tensors among the options move with it to a device.

    Each option of the function is an attribute and may be set later. `weight` is a buffer from the start, as in
    :class:`torch.nn.CrossEntropyLoss`: set later, it is in the state dict too.

    Args:
        function: maps logits, targets and options to a loss.
        **options: its options; the others have the defaults of the function.

    Raises:
        TypeError: an option that the function cannot do without is missing. ValueError: wrong class counts.

    Example:
        >>> import torch
        >>> FunctionalLoss(focal_loss, gamma=1.0)
        focal_loss(gamma=1.0, reduction='mean')
    """

    def __init__(self, function: Callable[..., Tensor], **options) -> None:
        """Keep the options; see the class."""
        super().__init__()
        self.function = function
        parameters = inspect.signature(function).parameters.values()
        known = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in _OF_A_BATCH}
        missing = [name for name, value in (known | options).items() if value is inspect.Parameter.empty]
        if missing:
            raise TypeError(f"{self._get_name()} needs {missing[0]}. Its options are: {', '.join(known)}.")
        if "class_counts" in options:
            _check_counts(options["class_counts"])
        self.option_names = tuple({**known, **options})
        self._shown = sorted({"reduction", *options} & set(self.option_names))
        for name, value in (known | options).items():
            if name == "weight":
                value = None if value is None else torch.as_tensor(value)
            if name == "weight" or isinstance(value, Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of a batch of logits and targets."""
        options = {name: getattr(self, name) for name in self.option_names}
        if sample_weight is not None:
            options["sample_weight"] = sample_weight
        return self.function(input, target, **options)

    def _get_name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def extra_repr(self) -> str:
        """Show the options that were given."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)


_OF_A_BATCH = ("input", "target", "sample_weight")


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
        _check_strength(strength)
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


class ScheduledFocalLoss(nn.Module):
    """Focal loss whose gamma falls with the epochs (FLSc); call :meth:`set_epoch` at the start of each epoch.

    Args:
        gammas: one more than `milestones`, each >= 0.
        milestones: epochs, counted from 0, at which the next gamma takes over. The published ones are (100, 250) of
            350 epochs for CIFAR and (30, 70) of 100 for Tiny-ImageNet.
        reduction, ignore_index: see the head of the module.

    Raises:
        ValueError: lists that do not fit. Otherwise what all losses raise.

    Source: Mukhoti et al. (2020), appendix, and their code.

    Example:
        >>> criterion = ScheduledFocalLoss()
        >>> criterion.set_epoch(100)
        >>> criterion.gamma
        3.0
    """

    def __init__(
        self,
        gammas: Sequence[float] = (5.0, 3.0, 1.0),
        milestones: Sequence[int] = (100, 250),
        reduction: str = "mean",
        *,
        ignore_index: int = -100,
    ) -> None:
        """Start at epoch 0; see the class."""
        super().__init__()
        if len(gammas) != len(milestones) + 1 or list(milestones) != sorted(set(milestones)):
            raise ValueError(
                f"flsc needs one more gamma than increasing milestones, but got gammas = {tuple(gammas)} and "
                f"milestones = {tuple(milestones)}. CIFAR has gammas=(5, 3, 1), milestones=(100, 250)."
            )
        for gamma in gammas:
            _check_gamma(gamma)
        self.gammas, self.milestones = tuple(gammas), tuple(milestones)
        self.reduction, self.ignore_index = reduction, ignore_index
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the gamma of an epoch, counted from 0."""
        self.gamma = self.gammas[sum(epoch >= milestone for milestone in self.milestones)]

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the focal loss with the gamma of the current epoch."""
        options = {"ignore_index": self.ignore_index, "sample_weight": sample_weight}
        return focal_loss(input, target, self.gamma, self.reduction, **options)


class AdaFocalLoss(nn.Module):
    r"""Adaptive focal loss (AdaFocal): each range of p_y has its own gamma, moved by the validation set.

    Call :meth:`update` with validation logits after each epoch. It cuts their confidences into `n_bins` bins of equal
    mass, takes the gap (confidence less accuracy) of each bin, and multiplies gamma by ``exp(rate * gap)`` (by
    ``exp(-rate * gap)`` where gamma is negative): overconfident bins get more focus. A gamma closer to 0 than `switch`
    changes sign and becomes -switch or +switch; a negative gamma is the inverse focal loss ``(1 + p_y)^|gamma|``. The
    validation data steer the training: do not use them to judge calibration afterwards.

    Args:
        n_bins: number of bins, >= 1.
        rate: lambda of the paper, > 0.
        switch: S_th of the paper, > 0.
        gamma_init: first gamma of all bins.
        gamma_range: smallest and largest gamma.
        reduction, ignore_index: see the head of the module.
        generative: modulate GenCE instead of cross-entropy (the hybrid of Zhan, Zhou and Shen, Table 9).

    Attributes:
        gammas: (n_bins,) current gammas, part of the state dict.
        edges: (n_bins - 1,) current inner edges, in p_y for training and in confidence for the update.

    Raises:
        ValueError: an option out of range; :meth:`update` without samples.

    Source: Ghosh, Schaaf and Gormley (2022), Algorithm 1 and code; Zhan, Zhou and Shen (2026), eq. (16). Unlike the
    code, the bins keep the sample of lowest confidence.

    Example:
        >>> import torch
        >>> criterion = AdaFocalLoss(n_bins=1)
        >>> criterion.update(torch.tensor([[50.0, 0.0], [50.0, 0.0]]), torch.tensor([0, 1]))  # sure, half right
        >>> round(criterion.gammas.item(), 4)  # exp(1/2)
        1.6487
    """

    gammas: Tensor
    edges: Tensor

    def __init__(
        self,
        n_bins: int = 15,
        rate: float = 1.0,
        switch: float = 0.2,
        gamma_init: float = 1.0,
        gamma_range: tuple[float, float] = (-2.0, 20.0),
        reduction: str = "mean",
        *,
        generative: bool = False,
        ignore_index: int = -100,
    ) -> None:
        """Start with equal gammas and bins of equal width; see the class."""
        super().__init__()
        if n_bins < 1:
            raise ValueError(f"n_bins must be at least 1, but got {n_bins}")
        _check_positive("rate", rate)
        _check_positive("switch", switch)
        self.rate, self.switch, self.gamma_range = rate, switch, gamma_range
        self.reduction, self.generative, self.ignore_index = reduction, generative, ignore_index
        self.register_buffer("gammas", torch.full((n_bins,), float(gamma_init)))
        self.register_buffer("edges", torch.linspace(0, 1, n_bins + 1)[1:-1])

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Move bins and gammas by validation logits (N, K) and labels (N,); with a warning, not by NaN or infinity."""
        batch = _Batch(logits, labels, self.ignore_index, None)
        if batch.y is None:
            raise ValueError(f"AdaFocal is moved by class indices, but the labels have the dtype {labels.dtype}")
        kept = slice(None) if batch.mass is None else batch.mass > 0
        p, labels = F.softmax(batch.z[kept], dim=1), batch.y[kept]
        if len(labels) == 0:
            raise ValueError("AdaFocal needs validation samples, but got none")
        if not p.isfinite().all():
            warnings.warn("AdaFocal keeps its gammas: some validation logits are NaN or infinite", stacklevel=2)
            return
        confidence, predicted = p.max(1)
        n_bins = len(self.gammas)
        edges = torch.quantile(confidence, torch.linspace(0, 1, n_bins + 1).to(confidence)[1:-1])
        bins = torch.bucketize(confidence, edges)
        ahead = confidence - (predicted == labels).to(confidence)
        size = torch.bincount(bins, minlength=n_bins).clamp_min(1)
        gap = torch.bincount(bins, weights=ahead, minlength=n_bins).to(confidence) / size
        gammas = self.gammas.to(gap)
        gammas = gammas * torch.exp(self.rate * gap * gammas.sign())
        flipped = torch.where(gammas > 0, -self.switch, self.switch)
        gammas = torch.where(gammas.abs() < self.switch, flipped, gammas).clamp(*self.gamma_range)
        self.gammas, self.edges = gammas.to(self.gammas.dtype), edges.to(self.edges.dtype)

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss with each sample's own gamma."""
        batch = _Batch(input, target, self.ignore_index, sample_weight)
        nll = batch.nll()
        bins = torch.bucketize(torch.exp(-nll.detach()), self.edges.to(nll), right=True)
        terms = _generative(batch, nll, 1.0) if self.generative else nll
        return batch.reduce(_focus(nll, self.gammas.to(nll)[bins]) * terms, self.reduction)


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
        reduction, ignore_index: see the head of the module.

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
        _check_strength(strength)
        if not 0 <= memory < math.inf:
            raise ValueError(f"memory must be a number of samples >= 0, but got {memory}")
        counts = torch.as_tensor(class_counts, dtype=torch.float64)
        _check_counts(counts)
        self.memory, self.strength = memory, strength
        self.reduction, self.ignore_index = reduction, ignore_index
        self.register_buffer("share", counts / counts.sum())
        self.register_buffer("mean_prediction", torch.zeros_like(counts))
        self.register_buffer("mass", counts.new_zeros(()))

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of logits and targets; in training mode, remember the mean prediction."""
        batch = _Batch(input, target, self.ignore_index, sample_weight)
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


class EntropyLoss(nn.Module):
    r"""MIN-ENT and MIX-ENT: cross-entropy plus a term that rewards confident predictions.

    MIN-ENT is ``b_1 CE / log B_1 + b_2 H(p) / log B_2`` with the entropy H of the prediction, MIX-ENT has the reverse
    cross-entropy ``-sum_k p_k log q_k`` (log 0 is log 1e-6) in place of H. The entropy is minimised, the opposite of
    a confidence penalty. Weights b and log bases B can be learned; a softplus keeps b and log B positive. Beware:
    nothing but weight decay keeps an optimiser from shrinking the loss by shrinking its weights.

    Args:
        kind: ``"min"`` or ``"mix"``.
        weights: b_1 and b_2, > 0.
        log_bases: B_1 and B_2, > 1.
        learnable: make weights and bases parameters (hand them to the optimiser), else they stay.
        reduction, ignore_index: see the head of the module.

    Raises:
        ValueError: an option out of range. Otherwise what all losses raise.

    Source: Ibraheem (2025), from abstract and summary; the official loss code was not found, and the start values and
    the rate at which weights and bases learn are not published.

    Example:
        >>> import torch
        >>> criterion = EntropyLoss("min", weights=(1.0, 0.5))
        >>> round(criterion(torch.zeros(1, 2), torch.tensor([0])).item(), 4)  # 1.5 log 2
        1.0397
    """

    def __init__(
        self,
        kind: str,
        weights: tuple[float, float] = (1.0, 0.1),
        log_bases: tuple[float, float] = (math.e, math.e),
        learnable: bool = True,
        reduction: str = "mean",
        *,
        ignore_index: int = -100,
    ) -> None:
        """Keep the options; see the class."""
        super().__init__()
        if kind not in ("min", "mix"):
            raise ValueError(f"kind must be 'min' or 'mix', but got {kind!r}")
        if not (min(weights) > 0 and min(log_bases) > 1):
            raise ValueError(f"weights must be > 0 and log bases > 1, but got {weights} and {log_bases}")
        self.kind, self.reduction, self.ignore_index = kind, reduction, ignore_index
        start = torch.tensor([*weights, *(math.log(base) for base in log_bases)], dtype=torch.float64)
        raw = torch.log(torch.expm1(start))  # the inverse of softplus
        if learnable:
            self.raw = nn.Parameter(raw)
        else:
            self.register_buffer("raw", raw)

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of logits and targets."""
        batch = _Batch(input, target, self.ignore_index, sample_weight)
        b_1, b_2, log_base_1, log_base_2 = F.softplus(self.raw.to(batch.z.dtype))
        nll = batch.nll()
        if self.kind == "mix":
            second = _reverse_cross_entropy(nll, math.log(1e-6))
        else:
            log_p = F.log_softmax(batch.z, dim=1)
            second = batch.of_rows(-(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(1))
        return batch.reduce(b_1 / log_base_1 * nll + b_2 / log_base_2 * second, self.reduction)


# --- The registry -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LossInfo:
    """What the book says about a loss, in one place.

    Attributes:
        build: makes the module from its options.
        options: the names of these options.
        formula: the term of a sample, in LaTeX.
        proper: ``"strictly"``, ``"if complete"`` (strictly, when the columns of the belief table are linearly
            independent), ``"after adjustment"`` or ``"no"``, at the default options.
        local: whether it depends on the prediction through the true class's probability only.
        cost: of value and gradient, for N samples and K classes.
        source: key in the bibliography.
        adapts: what must be called while training, if anything.

    Example:
        >>> REGISTRY["brier"].proper
        'strictly'
    """

    build: Callable[..., nn.Module]
    options: tuple[str, ...]
    formula: str
    proper: str
    local: bool
    source: str
    cost: str = "N K"
    adapts: str = ""


def _info(what: Callable, *facts, fixed: dict | None = None, **more) -> LossInfo:
    """The entry of a functional loss or a module class, with some options fixed."""
    fixed = fixed or {}
    options = tuple(name for name in inspect.signature(what).parameters if name not in (*_OF_A_BATCH, "group", *fixed))
    build = what if inspect.isclass(what) else functools.partial(FunctionalLoss, what)
    return LossInfo(functools.partial(build, **fixed), options, *facts, **more)


_CONTRAST = r"\log\frac{p_y}{C_y}"

REGISTRY: dict[str, LossInfo] = {
    "ce": _info(cross_entropy, r"-\log p_y", "strictly", True, "good1952rational"),
    "brier": _info(brier_loss, r"\sum_k (p_k - 1[k = y])^2", "strictly", False, "brier1950verification"),
    "gence": _info(GenCELoss, rf"-{_CONTRAST}", "if complete", False, "zhan2026gence"),
    "focal": _info(focal_loss, r"-(1 - p_y)^\gamma \log p_y", "no", True, "lin2017focal"),
    "inverse_focal": _info(inverse_focal_loss, r"-(1 + p_y)^\gamma \log p_y", "no", True, "wang2021rethinking"),
    "flsc": _info(
        ScheduledFocalLoss, r"-(1 - p_y)^{\gamma(t)} \log p_y", "no", True, "mukhoti2020calibrating", adapts="set_epoch"
    ),
    "flsd_53": _info(flsd_loss, r"-(1 - p_y)^{\gamma(p_y)} \log p_y", "no", True, "mukhoti2020calibrating"),
    "flsd_52": _info(
        flsd_loss,
        r"-(1 - p_y)^{\gamma(p_y)} \log p_y",
        "no",
        True,
        "mukhoti2020calibrating",
        fixed={"gammas": (5.0, 3.0, 2.0), "thresholds": (0.2, 0.5)},
    ),
    "dual_focal": _info(dual_focal_loss, r"-(1 - p_y + p_j)^\gamma \log p_y", "no", False, "tao2023dual"),
    "adafocal": _info(
        AdaFocalLoss,
        r"-(1 \mp p_y)^{|\gamma_{b(p_y)}|} \log p_y",
        "no",
        True,
        "ghosh2022adafocal",
        fixed={"generative": False},
        adapts="update",
    ),
    "gence_focal": _info(gence_focal_loss, rf"-(1 - p_y)^\gamma {_CONTRAST}", "no", False, "zhan2026gence"),
    "gence_adafocal": _info(
        AdaFocalLoss,
        rf"-(1 \mp p_y)^{{|\gamma_{{b(p_y)}}|}} {_CONTRAST}",
        "no",
        False,
        "zhan2026gence",
        fixed={"generative": True},
        adapts="update",
    ),
    "mmce": _info(mmce_loss, r"-\log p_y + \lambda\,\mathrm{MMCE}", "no", False, "kumar2018trainable", "N K + N^2"),
    "mmce_w": _info(
        mmce_loss,
        r"-\log p_y + \lambda\,\mathrm{MMCE}_w",
        "no",
        False,
        "kumar2018trainable",
        "N K + N^2",
        fixed={"weighted": True},
    ),
    "lq": _info(lq_loss, r"(1 - p_y^q) / q", "no", True, "zhang2018generalized"),
    "sce": _info(symmetric_cross_entropy, r"-\alpha \log p_y - \beta A (1 - p_y)", "no", True, "wang2019symmetric"),
    "min_ent": _info(
        EntropyLoss, r"-b_1 \log p_y + b_2 H(p)", "no", False, "ibraheem2025minent", fixed={"kind": "min"}
    ),
    "mix_ent": _info(
        EntropyLoss,
        r"-b_1 \log p_y - b_2 \log(\epsilon) (1 - p_y)",
        "no",
        True,
        "ibraheem2025minent",
        fixed={"kind": "mix"},
    ),
    "logit_adjustment": _info(
        logit_adjusted_loss,
        r"-\log \mathrm{softmax}(z + \tau \log \pi)_y",
        "after adjustment",
        False,
        "menon2021longtail",
    ),
    "gence_logit_adjustment": _info(
        logit_adjusted_loss,
        r"-\log \frac{p_y}{C_y}, p = \mathrm{softmax}(z + \tau \log \pi)",
        "after adjustment",
        False,
        "menon2021longtail",
        fixed={"strength": 1.0, "official": False},
    ),
    "gence_tracked": _info(TrackedGenCELoss, r"-\log\frac{p_y}{N m_y}", "if complete", False, "zhan2026gence"),
    "present_class": _info(
        present_class_cross_entropy,
        r"-\log \frac{\exp z_y}{\sum_{k: n_k > 0} \exp z_k}",
        "strictly",
        False,
        "prentice1979logistic",
    ),
    "class_balanced": _info(class_balanced_loss, r"-w_y \log p_y", "no", True, "cui2019classbalanced"),
}


def loss_names() -> tuple[str, ...]:
    """Return the names that :func:`make_loss` knows.

    Example:
        >>> "gence" in loss_names()
        True
    """
    return tuple(REGISTRY)


def make_loss(name: str, **options) -> nn.Module:
    """Build a loss module by name, with that loss's own options.

    Args:
        name: one of :func:`loss_names`.
        **options: arguments of the loss, for example ``strength=0.5`` for ``"gence"``.

    Returns:
        A module that maps logits and targets to a loss.

    Raises:
        ValueError: an unknown name, or an option the loss does not have; the message names the nearest valid one.

    Example:
        >>> make_loss("gence", strength=0.5).strength
        0.5
    """
    if name not in REGISTRY:
        raise ValueError(f"unknown loss {name!r}{nearest(name, REGISTRY)} The losses are: {', '.join(REGISTRY)}.")
    known = REGISTRY[name].options
    for option in options:
        if option not in known:
            raise ValueError(
                f"loss {name!r} has no option {option!r}{nearest(option, known)} Its options are: {', '.join(known)}."
            )
    return REGISTRY[name].build(**options)
