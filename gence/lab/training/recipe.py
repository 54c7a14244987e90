"""How to train, as data: settings of the optimiser, the schedule, the augmentation and the precision, by name."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from gence.samplers import LAST_BATCH, batch_sizes
from gence.words import nearest

__all__ = ["FULL_BATCH", "RECIPES", "Recipe", "make_recipe", "recipe_names"]

FULL_BATCH = "full"
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "schedule": ("step", "onecycle", "cosine"),
    "reduction": ("mean", "sum"),
    "augment": ("none", "crop", "crop+flip"),
    "sampler": ("shuffle", "class_balanced"),
    "last_batch": LAST_BATCH,
    "precision": (None, "float32", "bfloat16", "float64"),
}


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with momentum, its schedule, the augmentation and the precision.

    Attributes:
        batch_size: the most samples in a batch, or ``"full"``.
        epochs: passes over the training set.
        lr: the largest learning rate.
        momentum: of SGD.
        weight_decay: L2 penalty on all parameters.
        nesterov: use Nesterov's momentum.
        schedule: ``"step"`` divides the learning rate by 10 at the milestones, ``"onecycle"`` lets it fall linearly
            to 0, ``"cosine"`` along half a cosine.
        milestones: of ``"step"``: shares of the epochs, rounded to whole epochs.
        warmup: share of the steps in which the learning rate first rises linearly from 0 to `lr`.
        reduction: ``"mean"`` takes the loss as it is, ``"sum"`` times the number of samples in the batch.
        clip_norm: the largest norm of the whole gradient; None does not clip.
        augment: ``"none"``, ``"crop"`` (4 black pixels around, then a random crop to the old size) or
            ``"crop+flip"`` (and mirrored with probability 1/2). Digits and letters must not be mirrored.
        precision: ``"float32"``, ``"float64"``, ``"bfloat16"`` (weights and loss in float32, the network in
            autocast), or None for that of the network.
        compile: run the network through :func:`torch.compile`.
        sampler: ``"shuffle"`` shows every sample once an epoch, ``"class_balanced"`` fills each batch with all classes
            alike (:class:`gence.samplers.ClassBalancedBatchSampler`).
        last_batch: what happens where `batch_size` does not divide the training set: ``"even"`` makes batches whose
            sizes differ by at most one, ``"drop"`` leaves the rest out, ``"keep"`` makes a short batch of it
            (:func:`gence.samplers.batch_sizes`).
        checks: how often, at most, the validation set is looked at for the best checkpoint.

    Raises:
        ValueError: a value that is not allowed; the message names the allowed ones.

    Source: optimiser, momentum, weight decay and default schedule of Zhan, Zhou and Shen (2026), section 5; batch
    size, epochs and learning rate are the caller's. One cycle: Smith and Topin (2017), here without a cycle of the
    momentum.

    Example:
        >>> Recipe(batch_size=32, epochs=10).steps(100)
        40
    """

    batch_size: int | str = 32
    epochs: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False
    schedule: str = "step"
    milestones: tuple[float, ...] = (150 / 350, 250 / 350)
    warmup: float = 0.0
    reduction: str = "mean"
    clip_norm: float | None = None
    augment: str = "none"
    precision: str | None = None
    compile: bool = False
    sampler: str = "shuffle"
    last_batch: str = "even"
    checks: int = 50

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.batch_size != FULL_BATCH and not (isinstance(self.batch_size, int) and self.batch_size >= 1):
            raise ValueError(f"batch_size must be a whole number >= 1 or 'full', but got {self.batch_size!r}")
        for name in ("epochs", "checks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}")
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                hint = nearest(value, [choice for choice in allowed if choice])
                raise ValueError(f"{name} = {value!r} is not allowed{hint} Allowed: {', '.join(map(repr, allowed))}.")
        for name, ok, allowed in (
            ("lr", self.lr >= 0, ">= 0"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1), and > 0 with nesterov"),
            ("momentum", self.momentum > 0 or not self.nesterov, "in [0, 1), and > 0 with nesterov"),
            ("weight_decay", self.weight_decay >= 0, ">= 0"),
            ("milestones", all(0 < share < 1 for share in self.milestones), "shares of the epochs, each in (0, 1)"),
            ("warmup", 0 <= self.warmup < 1, "a share of the steps, in [0, 1)"),
            ("clip_norm", self.clip_norm is None or self.clip_norm > 0, "> 0, or None"),
        ):
            if not ok:
                raise ValueError(f"{name} must be {allowed}, but got {getattr(self, name)!r}")

    def batch(self, n: int) -> int:
        """Samples in a full batch when the training set has n."""
        return n if self.batch_size == FULL_BATCH else min(int(self.batch_size), n)

    def batch_sizes(self, n: int) -> list[int]:
        """Samples in each batch of an epoch on n samples."""
        return batch_sizes(n, self.batch(n), self.last_batch)

    def steps(self, n: int) -> int:
        """Optimiser steps of the whole training on n samples."""
        return self.epochs * len(self.batch_sizes(n))

    def lr_at(self, step: int, n: int) -> float:
        """Return the learning rate of a step, counted from 0, of a training on n samples.

        Example:
            >>> recipe = Recipe(batch_size=10, epochs=10, lr=1.0, schedule="onecycle", warmup=0.2)
            >>> [recipe.lr_at(step, 10) for step in range(10)]
            [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
        """
        total = self.steps(n)
        rising = round(self.warmup * total)
        if step < rising:
            return self.lr * (step + 1) / rising
        if self.schedule == "step":
            epochs_done = step // (total // self.epochs)
            passed = sum(epochs_done >= max(1, round(share * self.epochs)) for share in self.milestones)
            return self.lr * 0.1**passed
        left = (total - step) / (total - rising)
        return self.lr * (left if self.schedule == "onecycle" else (1 - math.cos(math.pi * left)) / 2)


_PAPER = Recipe(batch_size=128, epochs=350, augment="crop+flip", precision="float32")
_REFERENCE_CODE = dataclasses.replace(
    _PAPER, reduction="sum", clip_norm=2.0, milestones=(149 / 350, 249 / 350), last_batch="keep"
)
RECIPES: dict[str, Recipe] = {
    "laptop": Recipe(epochs=50),
    "paper": _PAPER,
    "paper-tiny-imagenet": dataclasses.replace(_PAPER, epochs=100, milestones=(0.4, 0.6)),
    "reference-code": _REFERENCE_CODE,
    "reference-code-tiny-imagenet": dataclasses.replace(
        _REFERENCE_CODE, batch_size=64, epochs=100, milestones=(0.39, 0.59)
    ),
    "short": Recipe(
        batch_size=512,
        epochs=30,
        lr=0.4,
        nesterov=True,
        schedule="onecycle",
        warmup=0.2,
        augment="crop+flip",
        precision="bfloat16",
    ),
}


def recipe_names() -> tuple[str, ...]:
    """Return the names that :func:`make_recipe` knows.

    Example:
        >>> "paper" in recipe_names()
        True
    """
    return tuple(RECIPES)


def make_recipe(name: str, **overrides: Any) -> Recipe:
    """Return a recipe by name, with some of its settings replaced.

    - ``"laptop"``: the default of :class:`Recipe` for 50 epochs, for small networks.
    - ``"paper"``, ``"paper-tiny-imagenet"``: as the GenCE paper states it. What it does not state (augmentation, no
      clipping, no Nesterov, float32, even batches) is filled in: the augmentation is that of the code the paper builds
      on.
    - ``"reference-code"``, ``"reference-code-tiny-imagenet"``: as that code does it. It sums the loss over the batch
      and then clips the norm of the gradient at 2, so that early training is normalised gradient descent. It keeps the
      short last batch. It moves
      its schedule before the first epoch, so each decay comes one epoch earlier than its documentation says. It takes
      the mean for the Brier loss (use ``reduction="mean"``), and clips the gradient of the network only; here the
      parameters of a loss, where it has any, count too.
    - ``"short"``: one cycle up to a learning rate of 0.4 with batches of 512, in 30 epochs, in mixed precision. It is
      meant to fit the training set as far as the long recipes do; look at the training error before comparing.

    Args:
        name: one of :func:`recipe_names`.
        **overrides: attributes of :class:`Recipe`, for example ``epochs=10``.

    Returns:
        The recipe.

    Raises:
        ValueError: an unknown name or setting (the message names the nearest valid one), or a value out of range.

    Source: Zhan, Zhou and Shen (2026), section 5; the public code of Mukhoti et al. (2020). The short recipe takes
    batch, largest learning rate, its rise and fall, Nesterov and weight decay from the code of Page (2018).

    Example:
        >>> round(make_recipe("paper", augment="crop").lr_at(150 * 352, n=45_000), 6)
        0.01
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}{nearest(name, RECIPES)} The recipes are: {', '.join(RECIPES)}.")
    known = [setting.name for setting in dataclasses.fields(Recipe)]
    for setting in overrides:
        if setting not in known:
            raise ValueError(
                f"a recipe has no setting {setting!r}{nearest(setting, known)} Its settings are: {', '.join(known)}."
            )
    return dataclasses.replace(RECIPES[name], **overrides)
