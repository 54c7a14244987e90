"""The autograd core of GenCE: scores normalised over the batch, with their gradient in closed form."""

from __future__ import annotations

import contextlib
import inspect

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import (
    TransformType,
    get_interpreter_stack,
)

from gence.losses._contract import may_look


def far_from_underflow(x: Tensor) -> bool:
    """Whether all entries are numbers (not NaN) that have all their digits, whatever was lost to underflow.

    False where torch.vmap inside another transform hides the values.
    """
    limits = torch.finfo(x.dtype)
    try:
        return bool((x.detach().amin() > limits.tiny / limits.eps).all())
    except RuntimeError:
        return False


def log_column_sums(z: Tensor, m: Tensor | None, group: dist.ProcessGroup | None = None) -> Tensor:
    """(K,) log C_k = log sum_i m_i p_ik."""
    nowhere = torch.zeros(len(z), dtype=torch.long, device=z.device)  # no row has a label of its own
    m = z.new_ones(len(z)) if m is None else m
    return batch_scores(z, m, nowhere, 0.0, group, False)[1]


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
        with without_autocast(z):
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
        with without_autocast(e):
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
                h = over_group(h, dist.ReduceOp.SUM, group)
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
        with without_autocast(e):
            scale = torch.ones_like(e[0]) if len(c) == 0 else c.exp()
            s = torch.where(m == 0, 1.0, e @ scale)
            by_e = e * by_z
            by_log_p = by_z - ((by_e @ scale) / s)[:, None]
            d, of_columns = (over_group((m / s) @ x, dist.ReduceOp.SUM, ctx.group) for x in (e, e * by_log_p))
            by_log_c = torch.where(d > 0, of_columns / d, 0.0)
            terms = m * (ctx.strength * by_log_c.gather(0, y) - by_log_p.gather(1, y[:, None])[:, 0])
        return terms, by_log_c, by_e, None, None


def batch_scores(*inputs) -> tuple[Tensor, ...]:
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
    if len(z) == 0 or group is not None or not may_look(z):
        return None
    e = F.softmax(z, 1)
    d = m @ e
    p_y = -F.nll_loss(e, y, reduction="none")
    if not all(far_from_underflow(x) for x in (m, d, p_y)):
        return None
    return -p_y.log(), e, z.new_empty(0), d


def _by_columns(z: Tensor, m: Tensor, y: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, ...]:
    """The same with the columns' maxima of log p as a second scale: exact for any logits."""
    # An ignored sample leaves the sums even where its own logits are NaN.
    log_p = F.log_softmax(z, 1).masked_fill((m == 0)[:, None], -torch.inf)
    nll = F.nll_loss(log_p, y, reduction="none").masked_fill(m == 0, 0.0)
    c = log_p.amax(0) if len(z) else z.new_full((z.shape[1],), -torch.inf)
    # The smallest finite number stands for -inf, the scale of a class that no sample allows.
    c = over_group(c, dist.ReduceOp.MAX, group).clamp_min(torch.finfo(z.dtype).min)
    e = log_p.sub_(c).exp_()
    return nll, e, c, over_group(m @ e, dist.ReduceOp.SUM, group)


def over_group(x: Tensor, op: dist.ReduceOp, group: dist.ProcessGroup | None) -> Tensor:
    """The sum or maximum of x over the processes of a group."""
    if group is None:
        return x
    x = x.clone()
    dist.all_reduce(x, op, group)
    return x


def without_autocast(x: Tensor):
    """Autocast would turn the column sums back into half precision."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else contextlib.nullcontext()
