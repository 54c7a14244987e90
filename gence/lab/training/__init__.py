"""One training loop for one network of any size, and for many seeds of a small one at once.

Both go through the same loop. It holds everything that decides the numbers: the recipe, the schedule, the order of the
batches, the augmentation, the best checkpoint, the history and the check for values that are not finite. What differs
is how a step is computed. :func:`train` runs one network on images that stay on the device as bytes, with augmentation,
mixed precision and checkpoints. :func:`train_many` stacks the networks of S seeds: every parameter gets a leading seed
dimension, forward pass and loss are vectorised over it, and one optimiser step moves all of them. The seeds do not
interact: each has its own data split, initial weights and batch order, and gets the result it would get alone.

What is random is drawn on the CPU from the seed alone, whatever the loss and the device: two losses that are compared
start at the same weights and see the same images, cropped and mirrored in the same way, in the same order.

- ``recipe``: how to train, as data. ``trainers``: one network, or many seeds at once.
- ``outcome``: what a training gives. ``checkpoints``: whole, or not there.
"""

from __future__ import annotations

from gence.lab.training.checkpoints import describe_module, digest, load_checkpoint, save_checkpoint
from gence.lab.training.outcome import Outcome, evaluate_outcome, load_outcome, save_outcome
from gence.lab.training.recipe import FULL_BATCH, RECIPES, Recipe, make_recipe, recipe_names
from gence.lab.training.trainers import load_network, predict, train, train_many

__all__ = [
    "FULL_BATCH",
    "RECIPES",
    "Outcome",
    "Recipe",
    "describe_module",
    "digest",
    "evaluate_outcome",
    "load_checkpoint",
    "load_network",
    "load_outcome",
    "make_recipe",
    "predict",
    "recipe_names",
    "save_checkpoint",
    "save_outcome",
    "train",
    "train_many",
]
