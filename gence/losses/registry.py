"""Every loss by its name, with what the book says of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from gence.losses._module import OF_A_BATCH, FunctionalLoss
from gence.losses.calibrating import AdaFocalLoss, EntropyLoss, mmce_loss
from gence.losses.focal import (
    ScheduledFocalLoss,
    dual_focal_loss,
    flsd_loss,
    focal_loss,
    gence_focal_loss,
    inverse_focal_loss,
)
from gence.losses.generative import GenCELoss, TrackedGenCELoss
from gence.losses.pointwise import brier_loss, cross_entropy, lq_loss, symmetric_cross_entropy
from gence.losses.priors import class_balanced_loss, logit_adjusted_loss, present_class_cross_entropy
from gence.words import nearest

__all__ = ["REGISTRY", "LossInfo", "loss_names", "make_loss"]


@dataclass(frozen=True)
class LossInfo:
    """What the book says about a loss, in one place.

    Attributes:
        build: makes the module from its options.
        options: the names of these options.
        formula: the term of a sample, in LaTeX.
        proper: ``"strictly"``, ``"if complete"`` (strictly, when the columns of the belief table are linearly
            independent), ``"if all present"`` (strictly, in batches that hold every class; with drawn labels that may
            lack some it is not proper), ``"after adjustment"`` or ``"no"``, at the default options.
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
    options = tuple(name for name in inspect.signature(what).parameters if name not in (*OF_A_BATCH, "group", *fixed))
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
        "if all present",
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
