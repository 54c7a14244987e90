"""Classification losses on logits: functional forms, thin modules, and ``make_loss``.

Notation, as in the book: N samples, K classes, z logits, p = softmax(z), q target distribution, y label.
Every functional loss takes logits of shape (N, K), (N, K, d1, ...) or (K,) and class indices; those that follow
the whole contract of :func:`torch.nn.functional.cross_entropy` say so.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "BrierLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "GenCELoss",
    "brier_loss",
    "focal_loss",
    "generative_cross_entropy",
    "loss_names",
    "make_loss",
]

CrossEntropyLoss = nn.CrossEntropyLoss


def generative_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    strength: float = 1.0,
) -> Tensor:
    r"""Generative Cross-Entropy: cross-entropy with the true class's score normalised over the batch.

    The loss of sample i is ``-log p_y(x_i) + strength * log C_y`` with the column sum ``C_k = sum_j p_k(x_j)``
    over the batch (and over all positions of a spatial input). ``strength=1`` is the paper's loss, ``strength=0``
    is cross-entropy. Everything else follows :func:`torch.nn.functional.cross_entropy`.

    With weights and soft targets, ``a_ik = w_k q_ik`` counts how much of class k sample i carries and
    ``m_i = sum_k a_ik`` how much of a sample it is. Then ``C_k = sum_j m_j p_k(x_j)``, so that a class weight of 2
    equals having each sample of that class twice, in the column sums too.

    The smallest value is not 0. On a batch with class counts n_k the floor is ``sum_k (n_k/N) log n_k`` (for
    strength 1, no weights): compare values only between batches of the same composition.

    Args:
        input: logits, (N, K), (N, K, d1, ...) or (K,). Half precision is computed in float32.
        target: class indices (N,), (N, d1, ...) or (), or class probabilities of the shape of `input`.
        weight: (K,) non-negative class weights.
        ignore_index: a label whose samples leave both the terms and the column sums (class indices only).
        reduction: ``"mean"`` (over the sum of weights, or over N for probabilities), ``"sum"`` or ``"none"``.
        label_smoothing: epsilon in [0, 1]; the target becomes (1 - epsilon) q + epsilon / K.
        strength: factor of the batch term, in [0, 1].

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of the class-index target.

    Raises:
        ValueError: `strength` outside [0, 1], an unknown `reduction`, batch sizes that differ.
        IndexError: a label outside 0..K-1 that is not `ignore_index`.
        RuntimeError: wrong target dtype or shape, wrong weight shape, `label_smoothing` outside [0, 1].

    Source: Zhan, Zhou and Shen (2026), eq. (4); label smoothing from eqs. (5)-(6) with the target smoothed
    consistently; `strength` and `weight` are the book's.

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
    if input.dim() == 1:  # one sample without a batch dimension
        target = target if target.dim() == 1 and target.shape != input.shape else target[None]
        batched = generative_cross_entropy(
            input[None], target, weight, ignore_index, reduction, label_smoothing, strength=strength
        )
        return batched[0] if reduction == "none" else batched

    log_p = F.log_softmax(_at_least_float32(input), dim=1)
    soft = _is_soft(log_p, target)
    if soft:
        target = target.to(log_p.dtype)
    weight = None if weight is None else weight.to(log_p.dtype)

    def counted(log_score: Tensor, smoothing: float = label_smoothing) -> Tensor:
        """-sum_k a_ik log_score_ik for each sample: the one place where targets, weights and smoothing meet."""
        return _negative_log_score(log_score, target, weight, ignore_index, smoothing, soft=soft)

    loss = counted(log_p)
    minus_one = -torch.ones_like(log_p[:1, :1]).expand_as(log_p)
    if strength > 0:
        multiplicity = counted(minus_one)  # m_i = sum_k a_ik, and 0 for ignored samples
        log_column_sum = _log_column_sum(log_p, multiplicity)
        loss = loss + strength * counted(-log_column_sum.expand_as(log_p))

    if reduction == "none":
        result = loss
    elif reduction == "sum":
        result = loss.sum()
    else:
        result = loss.sum() / (loss.numel() if soft else counted(minus_one, smoothing=0.0).sum())
    return result.to(_output_dtype(input))


def _log_column_sum(log_p: Tensor, multiplicity: Tensor) -> Tensor:
    """log C_k = log sum_j m_j p_k(x_j), over the batch and all positions, shape (1, K, 1, ...)."""
    m = multiplicity.unsqueeze(1)
    # An ignored sample leaves the sums even where its own logits are NaN.
    terms = log_p.masked_fill(m == 0, -torch.inf) + m.masked_fill(m == 0, 1).log()
    # A column that is -inf everywhere (a class masked in every sample, a batch of ignored samples) has no
    # gradient; the smallest finite number gives the same value for all others and 0 instead of NaN there.
    terms = terms.masked_fill(terms == -torch.inf, torch.finfo(terms.dtype).min)
    return torch.logsumexp(terms, dim=[d for d in range(terms.dim()) if d != 1], keepdim=True)


def _negative_log_score(
    log_score: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, smoothing: float, *, soft: bool
) -> Tensor:
    """-sum_k w_k q'_ik log_score_ik with q' = (1 - eps) q + eps / K; torch's nll_loss checks the index targets."""
    if not 0.0 <= smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {smoothing}")
    n_classes = log_score.shape[1]
    if weight is not None and weight.shape != (n_classes,):
        raise RuntimeError(
            f"weight must hold one value for each of the {n_classes} classes, but its shape is {tuple(weight.shape)}"
        )
    if soft:
        if ignore_index >= 0:
            raise RuntimeError("ignore_index is not supported for floating point target")
        return _dot(log_score, (1 - smoothing) * target + smoothing / n_classes, weight)
    loss = F.nll_loss(log_score, target, weight, ignore_index=ignore_index, reduction="none")
    if smoothing == 0:
        return loss
    uniform = _dot(log_score, torch.full_like(log_score[:1, :1], 1 / n_classes).expand_as(log_score), weight)
    return (1 - smoothing) * loss + smoothing * uniform.masked_fill(target == ignore_index, 0.0)


def _dot(log_score: Tensor, q: Tensor, weight: Tensor | None) -> Tensor:
    """-sum_k w_k q_k log_score_k over the class dimension, where 0 * log 0 counts as 0."""
    a = q if weight is None else q * weight.reshape(1, -1, *[1] * (q.dim() - 2))
    return -(a * log_score.masked_fill(a == 0, 0.0)).sum(1)


def _is_soft(log_p: Tensor, target: Tensor) -> bool:
    """Whether the target holds class probabilities; a target of the logits' shape must be floating point."""
    if target.shape != log_p.shape:
        return False
    if not target.is_floating_point():
        raise RuntimeError(f"Expected floating point type for target with class probabilities, got {target.dtype}")
    return True


def _at_least_float32(input: Tensor) -> Tensor:
    return input.float() if input.dtype in (torch.float16, torch.bfloat16) else input


def _output_dtype(input: Tensor) -> torch.dtype:
    """The dtype cross_entropy would return: the logits' own, but float32 for half logits under autocast."""
    half = input.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if half and torch.is_autocast_enabled(input.device.type) else input.dtype


def brier_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    r"""Brier loss ``sum_k (p_k - 1[y = k])^2`` of each sample: squared error on the simplex, bounded by 2.

    Args:
        input: logits (N, K).
        target: class indices (N,).
        reduction: ``"mean"`` (over N, not over N K), ``"sum"`` or ``"none"``.

    Returns:
        The loss (no unit): a scalar, or (N,) for ``"none"``.

    Raises:
        ValueError: an unknown `reduction`. RuntimeError, IndexError: wrong shapes, a label outside 0..K-1.

    Source: Brier (1950), in the multi-class form that sums over the classes.

    Example:
        >>> import torch
        >>> round(brier_loss(torch.zeros(1, 2), torch.tensor([0])).item(), 6)
        0.5
    """
    _check_reduction(reduction)
    p = F.softmax(_at_least_float32(input), dim=1)
    # |p - e_y|^2 = |p|^2 - 2 p_y + 1 needs no one-hot matrix.
    return _reduce(p.square().sum(1) + 1 + 2 * F.nll_loss(p, target, reduction="none"), reduction)


def focal_loss(input: Tensor, target: Tensor, gamma: float = 2.0, reduction: str = "mean") -> Tensor:
    r"""Focal loss ``-(1 - p_y)^gamma log p_y``: cross-entropy that looks away from samples it already knows.

    ``gamma=0`` is cross-entropy. Not proper for any ``gamma > 0``.

    Args:
        input: logits (N, K).
        target: class indices (N,).
        gamma: focusing parameter, >= 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats: a scalar, or (N,) for ``"none"``.

    Raises:
        ValueError: `gamma` < 0, an unknown `reduction`. RuntimeError, IndexError: wrong shapes or labels.

    Source: Lin et al. (2017), multi-class form of Mukhoti et al. (2020).

    Example:
        >>> import torch
        >>> z, y = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([2])
        >>> torch.equal(focal_loss(z, y, gamma=0.0), torch.nn.functional.cross_entropy(z, y))
        True
    """
    if not gamma >= 0:
        raise ValueError(f"gamma must be >= 0 (0 is cross-entropy), but got {gamma}. Use gamma=0 or larger.")
    _check_reduction(reduction)
    log_p = F.log_softmax(_at_least_float32(input), dim=1)
    nll = F.nll_loss(log_p, target, reduction="none")
    if gamma == 0:
        return _reduce(nll, reduction)
    # 1 - p_y from the log-probability keeps its digits when p_y is near 1; the floor keeps the gradient of
    # x^gamma finite at x = 0 for gamma < 1, where it would be NaN.
    rest = (-torch.expm1(-nll)).clamp_min(torch.finfo(nll.dtype).tiny)
    return _reduce(rest.pow(gamma) * nll, reduction)


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    return {"none": loss, "sum": loss.sum(), "mean": loss.mean()}[reduction]


def _check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction!r} is not a valid value for reduction: use 'mean', 'sum' or 'none'")


def _check_strength(strength: float) -> None:
    if not 0.0 <= strength <= 1.0:
        raise ValueError(
            f"strength must lie in [0, 1], but got {strength}. Use 1 for the paper's GenCE, 0 for cross-entropy."
        )


class GenCELoss(nn.Module):
    """Module form of :func:`generative_cross_entropy`, a drop-in replacement for :class:`torch.nn.CrossEntropyLoss`.

    Args:
        weight: (K,) non-negative class weights.
        ignore_index: label to leave out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: epsilon in [0, 1].
        strength: 1 is the paper's loss, 0 is cross-entropy.

    Shape:
        As :class:`torch.nn.CrossEntropyLoss`. The result is in nats.

    Raises:
        ValueError: at construction, for a negative weight or a strength outside [0, 1].
        Otherwise as the functional form.

    Source: Zhan, Zhou and Shen (2026), eq. (4).

    Example:
        >>> import torch
        >>> criterion = GenCELoss()
        >>> round(criterion(torch.zeros(8, 3), torch.arange(8) % 3).item(), 4)  # uniform scores: log 8
        2.0794
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        strength: float = 1.0,
    ) -> None:
        """Keep the options; see the class."""
        super().__init__()
        _check_strength(strength)
        if weight is not None and bool((weight < 0).any()):
            raise ValueError(f"class weights must be >= 0, but the smallest is {weight.min().item()}")
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self.strength = strength

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a batch of logits and targets."""
        return generative_cross_entropy(
            input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing, strength=self.strength
        )


class BrierLoss(nn.Module):
    """Module form of :func:`brier_loss`: logits (N, K) and class indices (N,) to the Brier score.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        As the functional form. Source: Brier (1950).

    Example:
        >>> import torch
        >>> BrierLoss(reduction="none")(torch.zeros(1, 4), torch.tensor([1])).tolist()
        [0.75]
    """

    def __init__(self, reduction: str = "mean") -> None:
        """Keep the options; see the class."""
        super().__init__()
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a batch of logits (N, K) and labels (N,)."""
        return brier_loss(input, target, self.reduction)


class FocalLoss(nn.Module):
    """Module form of :func:`focal_loss`: logits (N, K) and class indices (N,) to the focal loss in nats.

    Args:
        gamma: focusing parameter, >= 0; 0 is cross-entropy.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        As the functional form. Source: Lin et al. (2017), Mukhoti et al. (2020).

    Example:
        >>> import torch
        >>> round(FocalLoss(gamma=1.0)(torch.zeros(1, 2), torch.tensor([0])).item(), 4)  # 0.5 log 2
        0.3466
    """

    def __init__(self, gamma: float = 2.0, reduction: str = "mean") -> None:
        """Keep the options; see the class."""
        super().__init__()
        self.gamma = gamma
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a batch of logits (N, K) and labels (N,)."""
        return focal_loss(input, target, self.gamma, self.reduction)


_LOSSES: dict[str, Callable[..., nn.Module]] = {
    "ce": CrossEntropyLoss,
    "gence": GenCELoss,
    "brier": BrierLoss,
    "focal": FocalLoss,
}


def loss_names() -> tuple[str, ...]:
    """Return the names that :func:`make_loss` knows.

    Example:
        >>> "gence" in loss_names()
        True
    """
    return tuple(_LOSSES)


def make_loss(name: str, **options) -> nn.Module:
    """Build a loss module by name, with that loss's own options.

    Args:
        name: one of :func:`loss_names`.
        **options: arguments of the loss's constructor, for example ``strength=0.5`` for ``"gence"``.

    Returns:
        A module that maps logits and targets to a loss.

    Raises:
        ValueError: an unknown name, or an option the loss does not have; the message names the nearest valid one.

    Example:
        >>> make_loss("gence", strength=0.5).strength
        0.5
    """
    if name not in _LOSSES:
        raise ValueError(f"unknown loss {name!r}{_did_you_mean(name, _LOSSES)} The losses are: {', '.join(_LOSSES)}.")
    known = [p for p in inspect.signature(_LOSSES[name]).parameters if p not in ("size_average", "reduce")]
    for option in options:
        if option not in known:
            raise ValueError(
                f"loss {name!r} has no option {option!r}{_did_you_mean(option, known)} "
                f"Its options are: {', '.join(known)}."
            )
    return _LOSSES[name](**options)


def _did_you_mean(word: str, known) -> str:
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else "."
