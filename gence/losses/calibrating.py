"""Losses that mean to calibrate: MMCE, AdaFocal and entropy terms."""

from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gence.losses._column_scores import without_autocast
from gence.losses._contract import Batch, check_positive
from gence.losses.focal import focal_factor
from gence.losses.generative import generative_terms
from gence.losses.pointwise import reverse_cross_entropy

__all__ = ["AdaFocalLoss", "EntropyLoss", "mmce_loss"]


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
        ignore_index, sample_weight: see :mod:`gence.losses`.

    Returns:
        A scalar: nats plus a calibration error.

    Raises:
        ValueError: `bandwidth` <= 0, ``reduction="none"``, class probabilities; and what all losses raise.

    Source: Kumar, Sarawagi and Jain (2018), eqs. (3) and (5); code of Mukhoti et al. (2020).

    Example:
        >>> import torch
        >>> from gence.losses import cross_entropy
        >>> z, y = torch.zeros(1, 2), torch.tensor([0])  # confidence 1/2, correct: MMCE is 1/2
        >>> round((mmce_loss(z, y, coefficient=1.0) - cross_entropy(z, y)).item(), 6)
        0.5
    """
    check_positive("bandwidth", bandwidth)
    if reduction not in ("mean", "sum"):
        raise ValueError(f"mmce is a loss of the whole batch: use reduction='mean' or 'sum', not {reduction!r}")
    batch = Batch(input, target, ignore_index, sample_weight)
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
    with without_autocast(u):
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


def _root(square: Tensor) -> Tensor:
    """The square root, with gradient 0 instead of infinity where rounding leaves nothing."""
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()


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
        reduction, ignore_index: see :mod:`gence.losses`.
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
        check_positive("rate", rate)
        check_positive("switch", switch)
        self.rate, self.switch, self.gamma_range = rate, switch, gamma_range
        self.reduction, self.generative, self.ignore_index = reduction, generative, ignore_index
        self.register_buffer("gammas", torch.full((n_bins,), float(gamma_init)))
        self.register_buffer("edges", torch.linspace(0, 1, n_bins + 1)[1:-1])

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Move bins and gammas by validation logits (N, K) and labels (N,); with a warning, not by NaN or infinity."""
        batch = Batch(logits, labels, self.ignore_index, None)
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
        batch = Batch(input, target, self.ignore_index, sample_weight)
        nll = batch.nll()
        bins = torch.bucketize(torch.exp(-nll.detach()), self.edges.to(nll), right=True)
        terms = generative_terms(batch, nll, 1.0) if self.generative else nll
        return batch.reduce(focal_factor(nll, self.gammas.to(nll)[bins]) * terms, self.reduction)


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
        reduction, ignore_index: see :mod:`gence.losses`.

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
        batch = Batch(input, target, self.ignore_index, sample_weight)
        b_1, b_2, log_base_1, log_base_2 = F.softplus(self.raw.to(batch.z.dtype))
        nll = batch.nll()
        if self.kind == "mix":
            second = reverse_cross_entropy(nll, math.log(1e-6))
        else:
            log_p = F.log_softmax(batch.z, dim=1)
            second = batch.of_rows(-(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(1))
        return batch.reduce(b_1 / log_base_1 * nll + b_2 / log_base_2 * second, self.reduction)
