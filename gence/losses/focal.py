"""The focal family: cross-entropy, or GenCE, with a factor that depends on the confidence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gence.losses._contract import Batch, check_gamma
from gence.losses.generative import check_strength, generative_terms

__all__ = [
    "DUAL_FOCAL_GAMMAS",
    "ScheduledFocalLoss",
    "dual_focal_loss",
    "flsd_loss",
    "focal_loss",
    "gence_focal_loss",
    "inverse_focal_loss",
]


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
        reduction, ignore_index, sample_weight: see :mod:`gence.losses`.

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
    check_gamma(gamma)
    batch = Batch(input, target, ignore_index, sample_weight)
    nll = batch.nll()
    return batch.reduce(focal_factor(nll, gamma) * nll, reduction)


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
        reduction, ignore_index, sample_weight: see :mod:`gence.losses`.

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
    check_gamma(gamma)
    batch = Batch(input, target, ignore_index, sample_weight)
    nll = batch.nll()
    return batch.reduce(focal_factor(nll, -gamma) * nll, reduction)


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
        reduction, ignore_index, sample_weight: see :mod:`gence.losses`.

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
    batch = Batch(input, target, ignore_index, sample_weight)
    nll = batch.nll()
    level = torch.bucketize(torch.exp(-nll.detach()), nll.new_tensor(thresholds), right=True)
    return batch.reduce(focal_factor(nll, nll.new_tensor(gammas)[level]) * nll, reduction)


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
        reduction, ignore_index, sample_weight: see :mod:`gence.losses`.

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
    check_gamma(gamma)
    batch = Batch(input, target, ignore_index, sample_weight)
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
        reduction, ignore_index, sample_weight: see :mod:`gence.losses`.
        strength: of the class term, in [0, 1]; 0 is the focal loss.

    Returns:
        The loss in nats: a scalar, or for ``"none"`` the shape of class indices.

    Raises:
        ValueError: `gamma` < 0, `strength` outside [0, 1]; and what all losses raise.

    Source: Zhan, Zhou and Shen (2026), eq. (9), with the factor inside the sum.

    Example:
        >>> import torch
        >>> from gence.losses import generative_cross_entropy
        >>> z, y = torch.eye(3), torch.arange(3)
        >>> torch.allclose(gence_focal_loss(z, y, gamma=0.0), generative_cross_entropy(z, y))
        True
    """
    check_gamma(gamma)
    check_strength(strength)
    batch = Batch(input, target, ignore_index, sample_weight)
    nll = batch.nll()
    return batch.reduce(focal_factor(nll, gamma) * generative_terms(batch, nll, strength), reduction)


def focal_factor(nll: Tensor, gamma: float | Tensor) -> Tensor:
    """The focal factor of -log p_y: (1 - p_y)^gamma, and (1 + p_y)^|gamma| for a negative gamma."""
    if not isinstance(gamma, Tensor):
        return _power(-torch.expm1(-nll), gamma) if gamma >= 0 else (1 + torch.exp(-nll)) ** -gamma
    # Each branch sees only exponents of its own sign, so that no unused power spoils the gradient.
    falling = _power(-torch.expm1(-nll), gamma.clamp_min(0))
    return torch.where(gamma >= 0, falling, (1 + torch.exp(-nll)) ** -gamma.clamp_max(0))


def _power(base: Tensor, gamma: float | Tensor) -> Tensor:
    """base^gamma for base >= 0; the floor keeps the gradient finite at 0 for gamma < 1, where it would be NaN."""
    return base.clamp_min(torch.finfo(base.dtype).tiny) ** gamma


class ScheduledFocalLoss(nn.Module):
    """Focal loss whose gamma falls with the epochs (FLSc); call :meth:`set_epoch` at the start of each epoch.

    Args:
        gammas: one more than `milestones`, each >= 0.
        milestones: epochs, counted from 0, at which the next gamma takes over. The published ones are (100, 250) of
            350 epochs for CIFAR and (30, 70) of 100 for Tiny-ImageNet.
        reduction, ignore_index: see :mod:`gence.losses`.

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
            check_gamma(gamma)
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
