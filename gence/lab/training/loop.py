"""One training loop for one network of any size, and for many seeds of a small one at once.

Both go through the same loop. It holds everything that decides the numbers: the recipe, the schedule, the order of the
batches, the augmentation, the best checkpoint, the history and the check for values that are not finite. What differs
is how a step is computed. :func:`train` runs one network on images that stay on the device as bytes, with augmentation,
mixed precision and checkpoints. :func:`train_many` stacks the networks of S seeds: every parameter gets a leading seed
dimension, forward pass and loss are vectorised over it, and one optimiser step moves all of them. The seeds do not
interact: each has its own data split, initial weights and batch order, and gets the result it would get alone.

What is random is drawn on the CPU from the seed alone, whatever the loss and the device: two losses that are compared
start at the same weights and see the same images, cropped and mirrored in the same way, in the same order.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from gence import checkpoints, metrics
from gence._steps import SPLITS, Drawn, Draws, Forward, Single, Stack, as_tensor, check_stackable
from gence.data import Splits
from gence.recipes import FULL_BATCH, RECIPES, Recipe, make_recipe, recipe_names
from gence.samplers import ClassBalancedBatchSampler

__all__ = [
    "FULL_BATCH",
    "RECIPES",
    "Outcome",
    "Recipe",
    "evaluate_outcome",
    "load_network",
    "load_outcome",
    "make_recipe",
    "predict",
    "recipe_names",
    "save_outcome",
    "train",
    "train_many",
]


# --- Results ------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What the training of one seed gives.

    Attributes:
        logits: checkpoint (``"last"``, ``"best"`` on validation NLL) to split (``"val"``, ``"test"``) to (N, K) logits.
        best_epoch: the epoch, counted from 1, of the ``"best"`` checkpoint.
        train_error: error of the last checkpoint on the training set, not augmented; a fraction.
        history: curves over the training: ``epoch``, ``train_loss`` (mean of the epoch), ``val_nll``.

    Example:
        >>> Outcome(logits={}, best_epoch=3, train_error=0.0).best_epoch
        3
    """

    logits: dict[str, dict[str, np.ndarray]]
    best_epoch: int
    train_error: float
    history: dict[str, list[float]] = field(default_factory=dict)


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


def save_outcome(outcome: Outcome, splits: Splits, path: str | Path) -> None:
    """Write an outcome and the labels of its held-out splits into an .npz file, whole or not at all.

    All that comes after the training (metrics, calibration) can be computed from this file, without the network. It
    holds the logits ``last_val``, ``last_test``, ``best_val``, ``best_test``, the labels ``y_val``, ``y_test``, and the
    rest as JSON text.

    Args:
        outcome: of :func:`train`.
        splits: the data it was trained on.
        path: the file.

    Raises:
        OSError: the folder cannot be written.

    Example:
        >>> from gence.data import load_splits
        >>> splits = load_splits("digits", seed=0, n_per_class=5)
        >>> path = Path(getfixture("tmpdir")) / "outcome.npz"
        >>> save_outcome(Outcome({"last": {"val": np.zeros((2, 10))}}, 3, 0.0), splits, path)
        >>> load_outcome(path).logits["last"]["val"].shape
        (2, 10)
    """
    facts = {name: getattr(outcome, name) for name in ("best_epoch", "train_error", "history")}
    arrays = {f"{c}_{split}": z for c, by_split in outcome.logits.items() for split, z in by_split.items()}
    content = arrays | {"y_val": splits.y_val, "y_test": splits.y_test, "facts": np.array(json.dumps(facts))}
    checkpoints.replace_file(Path(path), lambda file: np.savez(file, **content))


def load_outcome(path: str | Path) -> Outcome:
    """Read what :func:`save_outcome` wrote.

    Args:
        path: the file.

    Returns:
        The outcome. The labels are in the file too: ``numpy.load(path)["y_test"]``.

    Raises:
        FileNotFoundError: there is no such file.

    Example:
        See :func:`save_outcome`.
    """
    with np.load(path, allow_pickle=False) as content:
        logits: dict[str, dict[str, np.ndarray]] = {}
        for name in content.files:
            if name[:2] != "y_" and name != "facts":
                checkpoint, _, split = name.partition("_")
                logits.setdefault(checkpoint, {})[split] = content[name]
        return Outcome(logits, **json.loads(str(content["facts"])))


# --- Training -----------------------------------------------------------------------------------------------------


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
        >>> from gence.data import load_splits
        >>> from gence.losses import make_loss
        >>> from gence.models import make_model
        >>> splits = load_splits("digits", seed=0, n_per_class=5)
        >>> outcome = train(make_model("mlp", 64, 10, seed=0), splits, make_loss("gence"), Recipe(epochs=30), seed=0)
        >>> outcome.logits["last"]["test"].shape
        (539, 10)
    """
    _check_loss(loss, recipe)
    _warn_of_a_short_batch(recipe, len(splits.y_train))
    if every is not None and every < 1:
        raise ValueError(f"every must be a number of steps >= 1, or None for an epoch, but got {every}")
    keep = None
    if checkpoint is not None:
        keep = _Keep(Path(checkpoint), _identity(model, splits, loss, recipe, seed), every)
    nets = Single(model, splits, loss, recipe, torch.device(device))
    return _fit(nets, recipe, [seed], progress=progress, label=label, keep=keep)[0]


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
    _check_loss(loss, recipe)
    check_stackable(models[0], loss, recipe)
    _warn_of_a_short_batch(recipe, len(splits[0].y_train))
    nets = Stack(models, splits, loss, recipe, torch.device(device))
    return _fit(nets, recipe, seeds, progress=progress, label=label)


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
        >>> from gence.data import load_splits
        >>> from gence.losses import make_loss
        >>> from gence.models import make_model
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


# --- The loop -----------------------------------------------------------------------------------------------------


class _Keep(NamedTuple):
    """Where checkpoints go, what they belong to, and how many steps lie between two."""

    path: Path
    identity: dict[str, str]
    every: int | None


def _fit(
    nets: Single | Stack,
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    progress: bool,
    label: str,
    keep: _Keep | None = None,
) -> list[Outcome]:
    loop = _Loop(nets, recipe, seeds)
    with _own_random_state(seeds[0], nets.device):
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


class _Loop:
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
            val_nll = _nll(logits, labels)
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
        self.best.__dict__ = _to(state["best"], device)
        self.log.rows = _to(state["log"], device)
        torch.set_rng_state(state["random"])
        if device.type == "cuda" and state["random_device"] is not None:
            torch.cuda.set_rng_state(state["random_device"], device)

    def outcomes(self) -> list[Outcome]:
        """The results of the seeds, in their order; the networks end as the best checkpoint."""
        nets = self.nets
        wrong = (nets.logits("train").argmax(-1) != nets.labels("train")).double().mean(1).tolist()
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


# --- Small pieces -------------------------------------------------------------------------------------------------


def _nll(logits: Tensor, labels: Tensor) -> Tensor:
    """(S,) mean negative log-likelihood of (S, N, K) logits."""
    return -logits.log_softmax(-1).gather(-1, labels[..., None]).mean((1, 2))


def _to(values: Any, device: torch.device) -> Any:
    """Nested dictionaries, lists and tuples with their tensors on a device."""
    if isinstance(values, Tensor):
        return values.to(device)
    if isinstance(values, dict):
        return {name: _to(value, device) for name, value in values.items()}
    return type(values)(_to(value, device) for value in values) if isinstance(values, list | tuple) else values


@contextlib.contextmanager
def _own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """torch's random numbers (dropout) depend on the seed inside, and go on afterwards as if nothing had been drawn."""
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed all GPUs, for good
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


# --- Checks -------------------------------------------------------------------------------------------------------


def _identity(model: nn.Module, splits: Splits, loss: nn.Module, recipe: Recipe, seed: int) -> dict[str, str]:
    """What a checkpoint belongs to, as text by name."""
    arrays = [getattr(splits, f"{kind}_{split}") for kind in "xy" for split in SPLITS]
    settings = {name: repr(value) for name, value in dataclasses.asdict(recipe).items()}
    return settings | {
        "seed": repr(seed),
        "loss": checkpoints.describe_module(loss),
        "model": checkpoints.describe_module(model),
        "data": checkpoints.digest([*arrays, *(np.array(getattr(splits, name, ())) for name in ("mean", "std"))]),
    }


def _check_loss(loss: nn.Module, recipe: Recipe) -> None:
    reduction = getattr(loss, "reduction", "mean")
    if reduction == "none" or (reduction == "sum" and recipe.reduction == "sum"):
        raise ValueError(
            f"the loss has reduction={reduction!r} and the recipe reduction={recipe.reduction!r}. "
            f"Build the loss with reduction='mean'; a recipe with reduction='sum' turns it into the sum."
        )


def _warn_of_a_short_batch(recipe: Recipe, n: int) -> None:
    """A short batch takes a whole step: the loss on a few samples, at the full learning rate."""
    sizes = recipe.batch_sizes(n)
    if 2 * min(sizes) < recipe.batch(n):
        warnings.warn(
            f"every epoch has a batch of {min(sizes)} samples beside batches of {max(sizes)}, and each of them takes a "
            f"step of its own. That can decide a comparison of losses. Use last_batch='even' or 'drop', or a batch "
            f"size that divides {n}.",
            stacklevel=3,
        )
