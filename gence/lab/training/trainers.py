"""Train one network of any size, or many seeds of a small one at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gence.lab.data import Splits
from gence.lab.training import checkpoints
from gence.lab.training._loop import Keep, check_loss, checkpoint_identity, fit, warn_of_a_short_batch
from gence.lab.training._steps import Forward, Single, Stack, as_tensor, check_stackable
from gence.lab.training.outcome import Outcome
from gence.lab.training.recipe import Recipe

__all__ = ["load_network", "predict", "train", "train_many"]


def train(
    model: nn.Module,
    splits: Splits,
    loss: nn.Module,
    recipe: Recipe,
    seed: int,
    *,
    device: str = "cpu",
    checkpoint: str | Path | None = None,
    every: int | None = None,
    progress: bool = True,
    label: str = "training",
) -> Outcome:
    """Train one network of any size; go on where a killed training stopped.

    The data are copied to the device once, images as bytes; whole batches are augmented and normalised there. Several
    seeds of a large network are trained by as many processes, one after the other or side by side; there is nothing to
    gain from training them together. For many seeds of a small network see :func:`train_many`.

    With `checkpoint`, the state is written to that file during the training, and a training that finds the file goes
    on from it. On a CPU the result is then the same, to the last bit, as without a break. The file stays when the
    training is done: it holds the weights, see :func:`load_network`.

    A loss may have parameters (they are trained), buffers (they are in the checkpoint), a method ``set_epoch``, called
    with the epoch counted from 0 before each, and a method ``update``, called with the validation logits and labels
    after each.

    Args:
        model: gives the initial weights and is left unchanged.
        splits: its data; images are uint8 (n, C, H, W) and need ``mean`` and ``std``.
        loss: maps logits (n, K) and labels (n,) to a scalar; left unchanged.
        recipe: how to train.
        seed: fixes the order of the batches, the augmentation and the dropout.
        device: ``"cpu"`` or a CUDA device.
        checkpoint: path of the checkpoint; None writes none.
        every: steps between two checkpoints; None is one epoch. The end of the training is always written.
        progress: show a progress bar with the time that is left.
        label: its text.

    Returns:
        An :class:`Outcome`, its logits in float64 if the network runs in float64 and else in float32.

    Warns:
        UserWarning: the smallest batch has less than half the batch size.

    Raises:
        FloatingPointError: the loss or a weight became NaN or infinite; the message says when and at which logits. The
            last checkpoint is kept.
        ValueError: data, recipe and loss that do not fit together; a checkpoint that is damaged or belongs to another
            training (recipe, seed, loss, model or data); the message says what to do.

    Example:
        >>> from gence.lab.data import load_splits
        >>> from gence.losses import make_loss
        >>> from gence.lab.networks import make_model
        >>> splits = load_splits("digits", seed=0, n_per_class=5)
        >>> outcome = train(make_model("mlp", 64, 10, seed=0), splits, make_loss("gence"), Recipe(epochs=30), seed=0)
        >>> outcome.logits["last"]["test"].shape
        (539, 10)
    """
    check_loss(loss, recipe)
    warn_of_a_short_batch(recipe, len(splits.y_train))
    if every is not None and every < 1:
        raise ValueError(f"every must be a number of steps >= 1, or None for an epoch, but got {every}")
    keep = None
    if checkpoint is not None:
        keep = Keep(Path(checkpoint), checkpoint_identity(model, splits, loss, recipe, seed), every)
    nets = Single(model, splits, loss, recipe, torch.device(device))
    return fit(nets, recipe, [seed], progress=progress, label=label, keep=keep)[0]


def train_many(
    models: Sequence[nn.Module],
    splits: Sequence[Splits],
    loss: nn.Module,
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    device: str = "cpu",
    progress: bool = True,
    label: str = "training",
) -> list[Outcome]:
    """Train S small networks of one architecture together, each on its own split and in its own batch order.

    Args:
        models: S networks with their initial weights; left unchanged.
        splits: S data splits of equal sizes.
        loss: maps logits (n, K) and labels (n,) to a scalar; applied to each seed on its own, with its own parameters
            if it has any; left unchanged.
        recipe: how to train.
        seeds: S seeds that fix the batch orders.
        device: ``"cpu"`` or a CUDA device.
        progress: show a progress bar with the time that is left.
        label: its text.

    Returns:
        S outcomes, in the order of the seeds.

    Warns:
        UserWarning: the smallest batch has less than half the batch size.

    Raises:
        ValueError: lists of different lengths, splits of different sizes; what only :func:`train` does (augmentation,
            bfloat16, compilation, batch normalisation, dropout, a loss that is updated with validation logits).
        FloatingPointError: the loss or a weight of a seed became NaN or infinite; the message says which and when.

    Example:
        >>> from gence.lab.data import load_splits
        >>> from gence.losses import make_loss
        >>> from gence.lab.networks import make_model
        >>> seeds = [0, 1, 2]
        >>> many = train_many([make_model("mlp", 64, 10, s) for s in seeds],
        ...                   [load_splits("digits", s, n_per_class=5) for s in seeds],
        ...                   make_loss("ce"), Recipe(epochs=2), seeds, progress=False)
        >>> len(many)
        3
    """
    if not len(models) == len(splits) == len(seeds) > 0:
        raise ValueError(
            f"models, splits and seeds must be equally many and at least one, "
            f"but are {len(models)}, {len(splits)} and {len(seeds)}"
        )
    check_loss(loss, recipe)
    check_stackable(models[0], loss, recipe)
    warn_of_a_short_batch(recipe, len(splits[0].y_train))
    nets = Stack(models, splits, loss, recipe, torch.device(device))
    return fit(nets, recipe, seeds, progress=progress, label=label)


def load_network(path: str | Path, model: nn.Module, which: str = "last") -> nn.Module:
    """Return a trained network from a checkpoint of :func:`train`.

    Args:
        path: the checkpoint.
        model: a network of the same architecture; left unchanged.
        which: ``"last"`` or ``"best"`` on validation NLL.

    Returns:
        A copy of `model` with the trained weights, on its device, in eval mode.

    Raises:
        ValueError: an unknown `which`; a damaged checkpoint.
        RuntimeError: a network of another architecture.

    Example:
        >>> from gence.lab.data import load_splits
        >>> from gence.losses import make_loss
        >>> from gence.lab.networks import make_model
        >>> splits, model = load_splits("digits", seed=0, n_per_class=5), make_model("mlp", 64, 10, seed=0)
        >>> path = Path(getfixture("tmpdir")) / "run.pt"
        >>> outcome = train(model, splits, make_loss("gence"), Recipe(epochs=3), seed=0, checkpoint=path)
        >>> again = predict(load_network(path, model), splits.x_test, splits)
        >>> bool((again == outcome.logits["last"]["test"]).all())
        True
    """
    if which not in ("last", "best"):
        raise ValueError(f"which must be 'last' or 'best', but got {which!r}")
    state = checkpoints.load_checkpoint(Path(path))
    weights = state["network"] if which == "last" else state["best"]["state"]
    trained = copy.deepcopy(model)
    trained.load_state_dict({name: value[0] for name, value in weights.items()})
    return trained.eval()


def predict(
    model: nn.Module, x: np.ndarray, splits: Splits, *, precision: str | None = None, device: str = "cpu"
) -> np.ndarray:
    """Return the logits of any inputs, prepared like those of the training; for example of out-of-distribution images.

    Args:
        model: a trained network; left unchanged.
        x: (n, ...) inputs as in the splits: uint8 images or features.
        splits: the training's data, for their mean and standard deviation.
        precision: as in :class:`Recipe`.
        device: ``"cpu"`` or a CUDA device.

    Returns:
        (n, K) logits.

    Raises:
        ValueError: images without mean and standard deviation.

    Example:
        See :func:`load_network`.
    """
    net = Forward(copy.deepcopy(model), x, splits, Recipe(precision=precision), torch.device(device))
    return net.in_batches(as_tensor(x, torch.device("cpu"))).cpu().numpy()
