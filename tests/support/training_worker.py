"""The training that the kill test kills; each process of that test runs :func:`train_slowly`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tiny_images import digit_images, small_cnn
from torch import Tensor

from gence.lab.training import Recipe, save_outcome, train
from gence.losses import AdaFocalLoss

RECIPE = Recipe(batch_size=8, epochs=20, schedule="cosine", warmup=0.1, augment="crop+flip", clip_norm=2.0)


class Slow(AdaFocalLoss):
    """A loss with a state, which takes its time, so that a kill finds the training somewhere in the middle."""

    pause = 0.0

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        time.sleep(Slow.pause)
        return super().forward(input, target)


def train_slowly(
    folder: Path, pause: float, every: int | None = 1, while_writing: Callable[[int], None] | None = None
) -> None:
    """Train with a pause in every step and in every write of a checkpoint, between its last byte and its new name."""
    torch.set_num_threads(1)
    Slow.pause = pause
    os.fsync = while_writing or (lambda file: time.sleep(pause))  # nobody pulls the plug here
    images = digit_images()
    outcome = train(
        small_cnn(dropout=0.2), images, Slow(), RECIPE, 5, checkpoint=folder / "run.pt", every=every, progress=False
    )
    save_outcome(outcome, images, folder / "outcome.npz")
