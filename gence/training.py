"""One plain training loop that trains many seeds of a small network at once.

The S networks of S seeds are stacked: every parameter gets a leading seed dimension, the forward pass and the loss
are vectorised over it, and one optimiser step moves all of them. The seeds do not interact: each has its own data
split, initial weights and batch order, and gets the result it would get alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from tqdm import tqdm

from gence import metrics
from gence.data import Splits

__all__ = ["FULL_BATCH", "Outcome", "Recipe", "evaluate_outcome", "train", "train_many"]

FULL_BATCH = "full"
# The learning rate falls by 10 at these shares of the training, as in the paper (epochs 150 and 250 of 350).
DECAY_AT = (150 / 350, 250 / 350)
# How often, at most, the validation set is looked at for early stopping.
N_CHECKS = 50


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with momentum, the learning rate divided by 10 twice.

    Attributes:
        batch_size: samples in a batch, or ``"full"``. The last batch of an epoch may be shorter and is kept.
        epochs: passes over the training set.
        lr: initial learning rate.
        momentum: of SGD.
        weight_decay: L2 penalty on all parameters.

    Raises:
        ValueError: a batch size or a number of epochs below 1.

    Source: optimiser, momentum, decay and schedule of Zhan, Zhou and Shen (2026), section 5; batch size, epochs
    and learning rate are the caller's.

    Example:
        >>> Recipe(batch_size=32, epochs=10).steps(100)
        40
    """

    batch_size: int | str = 32
    epochs: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.batch_size != FULL_BATCH and not (isinstance(self.batch_size, int) and self.batch_size >= 1):
            raise ValueError(f"batch_size must be a whole number >= 1 or 'full', but got {self.batch_size!r}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, but got {self.epochs}")

    def batch(self, n: int) -> int:
        """Samples in a full batch when the training set has n."""
        return n if self.batch_size == FULL_BATCH else min(int(self.batch_size), n)

    def steps(self, n: int) -> int:
        """Optimiser steps of the whole training on n samples."""
        return self.epochs * -(-n // self.batch(n))


@dataclass
class Outcome:
    """What the training of one seed gives.

    Attributes:
        logits: checkpoint (``"last"``, ``"best"`` on validation NLL) to split (``"val"``, ``"test"``) to (N, K) logits.
        best_epoch: the epoch, counted from 1, of the ``"best"`` checkpoint.
        train_error: error of the last checkpoint on the training set, a fraction.
        history: curves over the training: ``epoch``, ``train_loss`` (mean of the epoch), ``val_nll``.

    Example:
        >>> Outcome(logits={}, best_epoch=3, train_error=0.0).best_epoch
        3
    """

    logits: dict[str, dict[str, np.ndarray]]
    best_epoch: int
    train_error: float
    history: dict[str, list[float]] = field(default_factory=dict)


def train(
    model: nn.Module, splits: Splits, loss: nn.Module, recipe: Recipe, seed: int, *, device: str = "cpu"
) -> Outcome:
    """Train one network; :func:`train_many` with a single seed.

    Args:
        model: gives the initial weights and is left unchanged.
        splits: its data.
        loss: maps logits (n, K) and labels (n,) to a scalar.
        recipe: how to train.
        seed: fixes the order of the batches.
        device: ``"cpu"`` or a CUDA device.

    Returns:
        An :class:`Outcome`.

    Raises:
        FloatingPointError: as :func:`train_many`.

    Example:
        >>> from gence.data import load_splits
        >>> from gence.losses import make_loss
        >>> from gence.models import make_model
        >>> splits = load_splits("digits", seed=0, n_per_class=5)
        >>> outcome = train(make_model("mlp", 64, 10, seed=0), splits, make_loss("gence"), Recipe(epochs=30), seed=0)
        >>> outcome.logits["last"]["test"].shape
        (539, 10)
    """
    return train_many([model], [splits], loss, recipe, [seed], device=device, progress=False)[0]


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
    """Train S networks of one architecture together, each on its own split and in its own batch order.

    Args:
        models: S networks with their initial weights; left unchanged.
        splits: S data splits of equal sizes.
        loss: maps logits (n, K) and labels (n,) to a scalar; applied to each seed on its own.
        recipe: how to train.
        seeds: S seeds that fix the batch orders.
        device: ``"cpu"`` or a CUDA device.
        progress: show a progress bar.
        label: its text.

    Returns:
        S outcomes, in the order of the seeds.

    Raises:
        ValueError: lists of different lengths, splits of different sizes.
        FloatingPointError: the loss of a seed became NaN or infinite; the message says which and when.

    Example:
        >>> from gence.data import load_splits
        >>> from gence.losses import make_loss
        >>> from gence.models import make_model
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
    dtype = next(models[0].parameters()).dtype
    data = _Stacked.of(splits, device, dtype)
    parameters, buffers = stack_module_state([copy.deepcopy(m).to(device) for m in models])
    parameters = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
    forward = _stacked_forward(models[0])
    loss = copy.deepcopy(loss).to(device)
    per_seed_loss = torch.vmap(loss)

    n = data.y_train.shape[1]
    batch = recipe.batch(n)
    optimiser = torch.optim.SGD(
        parameters.values(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    decay = [max(1, round(share * recipe.epochs)) for share in DECAY_AT]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, decay, gamma=0.1)
    orders = _batch_orders(seeds, n, recipe.epochs)
    best = _BestCheckpoint(parameters)
    history: dict[str, list] = {"epoch": [], "train_loss": [], "val_nll": []}
    check_every = -(-recipe.epochs // N_CHECKS)

    for epoch in tqdm(range(1, recipe.epochs + 1), desc=label, unit="epoch", disable=not progress, leave=False):
        if hasattr(loss, "set_epoch"):
            loss.set_epoch(epoch - 1)
        order = torch.as_tensor(next(orders), device=device)
        total = torch.zeros(len(seeds), dtype=dtype, device=device)
        for start in range(0, n, batch):
            rows = order[:, start : start + batch]
            x, y = _take(data.x_train, rows), data.y_train.gather(1, rows)
            losses = per_seed_loss(forward(parameters, buffers, x), y)
            optimiser.zero_grad(set_to_none=True)
            losses.sum().backward()  # the seeds share no parameter: the gradient of the sum is each seed's own
            optimiser.step()
            total += losses.detach() * rows.shape[1]
        schedule.step()
        _stop_if_not_finite(total, loss, seeds, epoch)
        if epoch % check_every == 0 or epoch == recipe.epochs:
            with torch.no_grad():
                val_nll = _nll(forward(parameters, buffers, data.x_val), data.y_val)
            best.update(parameters, val_nll, epoch)
            for key, value in (("epoch", epoch), ("train_loss", total / n), ("val_nll", val_nll)):
                history[key].append(value.cpu().numpy() if isinstance(value, Tensor) else value)

    with torch.no_grad():
        train_logits = forward(parameters, buffers, data.x_train)
        logits = {
            checkpoint: {split: forward(state, buffers, x).cpu().numpy() for split, x in data.held_out().items()}
            for checkpoint, state in (("last", parameters), ("best", best.parameters))
        }
    train_error = (train_logits.argmax(-1) != data.y_train).double().mean(1).cpu()
    return [
        Outcome(
            logits={c: {split: z[s] for split, z in by_split.items()} for c, by_split in logits.items()},
            best_epoch=int(best.epoch[s]),
            train_error=float(train_error[s]),
            history={
                "epoch": history["epoch"],
                "train_loss": [float(v[s]) for v in history["train_loss"]],
                "val_nll": [float(v[s]) for v in history["val_nll"]],
            },
        )
        for s in range(len(seeds))
    ]


def evaluate_outcome(outcome: Outcome, splits: Splits, split: str = "test") -> dict[str, dict[str, float]]:
    """Return all metrics of both checkpoints on a held-out split.

    Args:
        outcome: of :func:`train`.
        splits: the data it was trained on.
        split: ``"val"`` or ``"test"``.

    Returns:
        Checkpoint to metric to value.

    Example:
        >>> from gence.data import load_splits
        >>> splits = load_splits("digits", seed=0, n_per_class=5)
        >>> certain = 50 * np.eye(10)[splits.y_test]
        >>> outcome = Outcome(logits={"last": {"test": certain}}, best_epoch=1, train_error=0.0)
        >>> evaluate_outcome(outcome, splits)["last"]["error"]
        0.0
    """
    labels = {"val": splits.y_val, "test": splits.y_test}[split]
    return {
        checkpoint: metrics.evaluate(torch.as_tensor(logits[split]).softmax(1), labels)
        for checkpoint, logits in outcome.logits.items()
    }


@dataclass(frozen=True)
class _Stacked:
    """The data of S seeds as (S, n, ...) tensors on one device."""

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor

    @classmethod
    def of(cls, splits: Sequence[Splits], device: str, dtype: torch.dtype) -> _Stacked:
        sizes = {(len(s.y_train), len(s.y_val), len(s.y_test)) for s in splits}
        if len(sizes) > 1:
            raise ValueError(f"the splits must have equal sizes to be trained together, but have {sorted(sizes)}")

        def stack(name: str, kind: torch.dtype) -> Tensor:
            return torch.as_tensor(np.stack([getattr(s, name) for s in splits]), device=device).to(kind)

        kinds = {"x_train": dtype, "y_train": torch.long, "x_val": dtype, "y_val": torch.long, "x_test": dtype}
        return cls(**{name: stack(name, kind) for name, kind in kinds.items()})

    def held_out(self) -> dict[str, Tensor]:
        return {"val": self.x_val, "test": self.x_test}


class _BestCheckpoint:
    """For each seed, the parameters of the check with the lowest validation NLL so far."""

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        first = next(iter(parameters.values()))
        self.parameters = {name: p.detach().clone() for name, p in parameters.items()}
        self.val_nll = torch.full((len(first),), torch.inf, dtype=first.dtype, device=first.device)
        self.epoch = torch.zeros(len(first), dtype=torch.long, device=first.device)

    def update(self, parameters: dict[str, Tensor], val_nll: Tensor, epoch: int) -> None:
        better = val_nll < self.val_nll
        self.val_nll = torch.where(better, val_nll, self.val_nll)
        self.epoch[better] = epoch
        for name, p in parameters.items():
            self.parameters[name][better] = p.detach()[better]


def _stacked_forward(model: nn.Module) -> Callable[[dict, dict, Tensor], Tensor]:
    def call(parameters: dict, buffers: dict, x: Tensor) -> Tensor:
        return functional_call(model, (parameters, buffers), (x,))

    return torch.vmap(call)


def _batch_orders(seeds: Sequence[int], n: int, epochs: int) -> Iterator[np.ndarray]:
    """For each epoch an (S, n) array: every seed's own permutation of its training rows."""
    generators = [np.random.default_rng([seed, 1]) for seed in seeds]
    for _ in range(epochs):
        yield np.stack([generator.permutation(n) for generator in generators])


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """x[s, rows[s]] for every seed s."""
    return x[torch.arange(len(x), device=x.device)[:, None], rows]


def _nll(logits: Tensor, labels: Tensor) -> Tensor:
    """(S,) mean negative log-likelihood of (S, N, K) logits."""
    return -logits.log_softmax(-1).gather(-1, labels[..., None]).mean((1, 2))


def _stop_if_not_finite(total: Tensor, loss: nn.Module, seeds: Sequence[int], epoch: int) -> None:
    bad = [seed for seed, ok in zip(seeds, torch.isfinite(total).tolist(), strict=True) if not ok]
    if bad:
        raise FloatingPointError(
            f"{loss._get_name()} became NaN or infinite in epoch {epoch} for seeds {bad}. "
            f"Lower the learning rate, or look at the data of these seeds."
        )
