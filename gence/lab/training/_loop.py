"""The one loop of all trainings."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from gence.lab.data import Splits
from gence.lab.training import checkpoints
from gence.lab.training._steps import SPLITS, Drawn, Draws, Single, Stack
from gence.lab.training.outcome import Outcome, mean_nll
from gence.lab.training.recipe import Recipe
from gence.samplers import ClassBalancedBatchSampler


class Keep(NamedTuple):
    """Where checkpoints go, what they belong to, and how many steps lie between two."""

    path: Path
    identity: dict[str, str]
    every: int | None


def fit(
    nets: Single | Stack,
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    progress: bool,
    label: str,
    keep: Keep | None = None,
) -> list[Outcome]:
    loop = Loop(nets, recipe, seeds)
    with own_random_state(seeds[0], nets.device):
        if keep is not None and keep.path.exists():
            loop.load(checkpoints.load_checkpoint(keep.path, keep.identity))
        every = loop.steps_per_epoch if keep is None or keep.every is None else keep.every
        with tqdm(
            total=loop.steps, initial=loop.done, desc=label, unit="step", disable=not progress, leave=False
        ) as bar:
            while loop.done < loop.steps:
                loop.advance()
                bar.update()
                if keep is not None and (loop.done % every == 0 or loop.done == loop.steps):
                    loop.stop_if_not_finite()
                    checkpoints.save_checkpoint(keep.path, keep.identity, loop.state())
        return loop.outcomes()


class Loop:
    """The training of S networks: everything that changes while it runs, step by step.

    `nets` knows how to compute losses and logits; every tensor that goes through here has a leading dimension S.
    """

    def __init__(self, nets: Single | Stack, recipe: Recipe, seeds: Sequence[int]) -> None:
        self.nets, self.recipe, self.seeds = nets, recipe, list(seeds)
        sizes = recipe.batch_sizes(nets.n_train)
        self.batches = [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]
        self.steps_per_epoch = len(sizes)
        self.steps = self.steps_per_epoch * recipe.epochs
        self.check_every = -(-recipe.epochs // recipe.checks)
        self.optimiser = torch.optim.SGD(
            nets.trainable(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
        )
        self.draws = Draws(seeds, nets.n_train, self._balanced() if recipe.sampler == "class_balanced" else ())
        self.drawn: Drawn | None = None  # of the epoch that runs
        self.log = _Log()
        self.best = _BestCheckpoint(nets.state())
        self.history: dict[str, list] = {"epoch": [], "train_loss": [], "val_nll": []}
        self.done = 0

    def _balanced(self) -> list[ClassBalancedBatchSampler]:
        how = {"batch_size": self.recipe.batch(self.nets.n_train), "last_batch": self.recipe.last_batch}
        labels = self.nets.labels("train").cpu().numpy()
        return [ClassBalancedBatchSampler(y, seed=seed, **how) for y, seed in zip(labels, self.seeds, strict=True)]

    def advance(self) -> None:
        """Take one step; look at the validation set where an epoch ends."""
        recipe, nets = self.recipe, self.nets
        epoch, step = divmod(self.done, self.steps_per_epoch)
        if self.drawn is None:
            self.drawn = self.draws.epoch(epoch).to(nets.device)
            if hasattr(nets.loss, "set_epoch"):
                nets.loss.set_epoch(epoch)
        batch = self.drawn.part(self.batches[step])
        losses, logits = nets.losses(batch)
        n = batch.rows.shape[1]
        self.optimiser.zero_grad(set_to_none=True)
        # The seeds share no parameter: the gradient of the sum is each seed's own.
        (losses.sum() * n if recipe.reduction == "sum" else losses.sum()).backward()
        if recipe.clip_norm is not None:
            nets.clip(recipe.clip_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.lr_at(self.done, nets.n_train)
        self.optimiser.step()
        self.log.add(losses.detach(), logits.detach(), n)
        self.done += 1
        if step + 1 == self.steps_per_epoch:
            self._end_epoch(epoch + 1)

    def _end_epoch(self, epoch: int) -> None:
        """Check what the epoch gave; `epoch` counts from 1."""
        self.stop_if_not_finite()
        train_loss = self.log.mean_loss()
        self.log, self.drawn = _Log(), None
        check = epoch % self.check_every == 0 or epoch == self.recipe.epochs
        updates = hasattr(self.nets.loss, "update")
        if not (check or updates):
            return
        logits, labels = self.nets.logits("val"), self.nets.labels("val")
        if check:
            val_nll = mean_nll(logits, labels)
            self.best.update(self.nets.state(), val_nll, epoch)
            for key, value in (("epoch", epoch), ("train_loss", train_loss.tolist()), ("val_nll", val_nll.tolist())):
                self.history[key].append(value)
        if updates:
            self.nets.loss.update(logits[0], labels[0])

    def stop_if_not_finite(self) -> None:
        """Raise if a loss of this epoch or a weight is NaN or infinite.

        Nobody waits for a GPU at every step: the losses are looked at when an epoch ends and before a checkpoint is
        written. The weights are looked at too, for the last step may have spoilt them after its loss was computed.
        """
        loss = self.nets.loss._get_name()
        step = self.log.first_bad()
        if step is not None:
            what, fine = loss, self.log.losses().isfinite().all(0)
        else:
            step, what = (self.done - 1) % self.steps_per_epoch, f"A weight trained with {loss}"
            fine = self.nets.finite()
        bad = [seed for seed, is_fine in zip(self.seeds, fine.tolist(), strict=True) if not is_fine]
        if bad:
            raise FloatingPointError(
                f"{what} became NaN or infinite in epoch {(self.done - 1) // self.steps_per_epoch + 1} "
                f"for seeds {bad}, in step {step + 1} of {self.steps_per_epoch}; {self.log.range_until(step)}. "
                f"Lower the learning rate, or look at the data of these seeds."
            )

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds. Order and augmentation need no state: seed and position fix them."""
        device = self.nets.device
        return {
            "done": self.done,
            "network": self.nets.state(),
            "optimiser": self.optimiser.state_dict(),
            "loss": self.nets.loss.state_dict(),
            "best": self.best.__dict__,
            "history": self.history,
            "log": self.log.rows,
            "random": torch.get_rng_state(),
            "random_device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from the state of a checkpoint."""
        device = self.nets.device
        self.done, self.history = state["done"], state["history"]
        self.nets.load(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.nets.loss.load_state_dict(state["loss"])
        self.best.__dict__ = to_device(state["best"], device)
        self.log.rows = to_device(state["log"], device)
        torch.set_rng_state(state["random"])
        if device.type == "cuda" and state["random_device"] is not None:
            torch.cuda.set_rng_state(state["random_device"], device)

    def outcomes(self) -> list[Outcome]:
        """The results of the seeds, in their order; the networks end as the best checkpoint."""
        nets = self.nets
        wrong = (nets.predicted("train") != nets.labels("train")).double().mean(1).tolist()
        logits = {"last": {split: nets.logits(split).cpu().numpy() for split in ("val", "test")}}
        nets.load(self.best.state)
        logits["best"] = {split: nets.logits(split).cpu().numpy() for split in ("val", "test")}
        return [
            Outcome(
                logits={c: {split: z[s] for split, z in by_split.items()} for c, by_split in logits.items()},
                best_epoch=int(self.best.epoch[s]),
                train_error=wrong[s],
                history={
                    "epoch": self.history["epoch"],
                    "train_loss": [values[s] for values in self.history["train_loss"]],
                    "val_nll": [values[s] for values in self.history["val_nll"]],
                },
            )
            for s in range(len(self.seeds))
        ]


class _Log:
    """Loss, smallest and largest logit of the steps of an epoch; they stay on the device until somebody looks."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, Tensor]] = []  # samples in the batch, and (3, S)

    def add(self, losses: Tensor, logits: Tensor, n: int) -> None:
        low, high = logits.flatten(1).aminmax(dim=1)
        self.rows.append((n, torch.stack([losses, low.to(losses), high.to(losses)])))

    def losses(self) -> Tensor:
        """(steps, S)."""
        return torch.stack([values[0] for _, values in self.rows])

    def mean_loss(self) -> Tensor:
        """(S,) mean over the samples."""
        sizes = [n for n, _ in self.rows]
        return sum(n * values[0] for n, values in self.rows) / sum(sizes)

    def first_bad(self) -> int | None:
        """The first step in which a loss is not finite."""
        if not self.rows:
            return None
        bad = torch.nonzero(~self.losses().isfinite().all(1))
        return int(bad[0]) if len(bad) else None

    def range_until(self, step: int) -> str:
        """The range of the logits in a step, or in the last one before it in which it was finite."""
        for at in range(min(step, len(self.rows) - 1), -1, -1):
            low, high = float(self.rows[at][1][1].amin()), float(self.rows[at][1][2].amax())
            if math.isfinite(low) and math.isfinite(high):
                return f"the logits of step {at + 1} lay between {low:.3g} and {high:.3g}"
        return "no logits of this epoch were finite"


class _BestCheckpoint:
    """For each seed, the state of the check with the lowest validation NLL so far."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        first = next(iter(state.values()))
        self.state = {name: value.clone() for name, value in state.items()}
        self.val_nll = torch.full((len(first),), torch.inf, dtype=first.dtype, device=first.device)
        self.epoch = torch.zeros(len(first), dtype=torch.long, device=first.device)

    def update(self, state: dict[str, Tensor], val_nll: Tensor, epoch: int) -> None:
        better = val_nll < self.val_nll
        self.val_nll = torch.where(better, val_nll, self.val_nll)
        self.epoch[better] = epoch
        for name, value in state.items():
            self.state[name][better] = value[better]


def to_device(values: Any, device: torch.device) -> Any:
    """Nested dictionaries, lists and tuples with their tensors on a device."""
    if isinstance(values, Tensor):
        return values.to(device)
    if isinstance(values, dict):
        return {name: to_device(value, device) for name, value in values.items()}
    return type(values)(to_device(value, device) for value in values) if isinstance(values, list | tuple) else values


@contextlib.contextmanager
def own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """torch's random numbers (dropout) depend on the seed inside, and go on afterwards as if nothing had been drawn."""
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed all GPUs, for good
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


def checkpoint_identity(model: nn.Module, splits: Splits, loss: nn.Module, recipe: Recipe, seed: int) -> dict[str, str]:
    """What a checkpoint belongs to, as text by name."""
    arrays = [getattr(splits, f"{kind}_{split}") for kind in "xy" for split in SPLITS]
    settings = {name: repr(value) for name, value in dataclasses.asdict(recipe).items()}
    return settings | {
        "seed": repr(seed),
        "loss": checkpoints.describe_module(loss),
        "model": checkpoints.describe_module(model),
        "data": checkpoints.digest([*arrays, *(np.array(getattr(splits, name, ())) for name in ("mean", "std"))]),
    }


def check_loss(loss: nn.Module, recipe: Recipe) -> None:
    reduction = getattr(loss, "reduction", "mean")
    if reduction == "none" or (reduction == "sum" and recipe.reduction == "sum"):
        raise ValueError(
            f"the loss has reduction={reduction!r} and the recipe reduction={recipe.reduction!r}. "
            f"Build the loss with reduction='mean'; a recipe with reduction='sum' turns it into the sum."
        )


def warn_of_a_short_batch(recipe: Recipe, n: int) -> None:
    """A short batch takes a whole step: the loss on a few samples, at the full learning rate."""
    sizes = recipe.batch_sizes(n)
    if 2 * min(sizes) < recipe.batch(n):
        warnings.warn(
            f"every epoch has a batch of {min(sizes)} samples beside batches of {max(sizes)}, and each of them takes a "
            f"step of its own. That can decide a comparison of losses. Use last_batch='even' or 'drop', or a batch "
            f"size that divides {n}.",
            stacklevel=3,
        )
