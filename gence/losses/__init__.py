"""Classification losses on logits: functional forms, modules, a registry, and ``make_loss``.

- ``generative``: GenCE, the loss of the book, and the variant that tracks the column sums.
- ``accumulation``: the gradient of a whole batch from micro-batches.
- ``pointwise``, ``focal``, ``priors``, ``calibrating``: the other losses of the book, by what they do.
- ``registry``: every loss by its name.
- ``_contract``, ``_column_scores``, ``_module``: what they share.

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

from gence.losses._module import FunctionalLoss
from gence.losses.accumulation import accumulated_backward
from gence.losses.calibrating import AdaFocalLoss, EntropyLoss, mmce_loss
from gence.losses.focal import (
    DUAL_FOCAL_GAMMAS,
    ScheduledFocalLoss,
    dual_focal_loss,
    flsd_loss,
    focal_loss,
    gence_focal_loss,
    inverse_focal_loss,
)
from gence.losses.generative import GenCELoss, TrackedGenCELoss, generative_cross_entropy
from gence.losses.pointwise import brier_loss, cross_entropy, lq_loss, symmetric_cross_entropy
from gence.losses.priors import class_balanced_loss, logit_adjusted_loss, present_class_cross_entropy
from gence.losses.registry import REGISTRY, LossInfo, loss_names, make_loss

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
    "accumulated_backward",
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
