"""How a step is computed: for one network of any size, and for a stack of small ones.

Both classes offer the training loop the same methods, and every tensor that goes through these has a leading dimension
S, the number of networks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from gence.lab.data import Splits
from gence.lab.training.recipe import Recipe
from gence.samplers import ClassBalancedBatchSampler

SPLITS = ("train", "val", "test")
# Black pixels around an image before it is cropped to its old size again.
CROP_PADDING = 4
# Samples that are evaluated at once: on a CPU so many that what the layers pass on stays in its cache (a small CNN is
# twice as fast as with 1,000), on a GPU so many that it has enough to do.
EVALUATION_BATCH = {"cpu": 250, "cuda": 1000}
# Inputs of all networks of a stack that are evaluated at once, in numbers: 128 MB in float64.
EVALUATION_VALUES = 2**24


class Drawn(NamedTuple):
    """What chance decides about the samples of an epoch or of a batch.

    `rows` (S, n) of the training set, how far the image of each is moved (n, 2), and whether it is mirrored (n,).
    """

    rows: Tensor
    shift: Tensor
    mirror: Tensor

    def to(self, device: torch.device) -> Drawn:
        return Drawn(*(values.to(device) for values in self))

    def part(self, samples: slice) -> Drawn:
        return Drawn(self.rows[:, samples], self.shift[samples], self.mirror[samples])


class Draws:
    """Batch orders and augmentation: drawn on the CPU from the seeds alone, so the same for all losses and devices."""

    def __init__(self, seeds: Sequence[int], n: int, batches: Sequence[ClassBalancedBatchSampler] = ()) -> None:
        self.seeds, self.n, self.drawn = seeds, n, 0
        orders = [np.random.default_rng([seed, 1]) for seed in seeds]
        self.orders = [batch.order for batch in batches] or [lambda g=g: g.permutation(n) for g in orders]

    def epoch(self, epoch: int) -> Drawn:
        """All samples of an epoch, counted from 0; the orders before it are drawn and dropped."""
        while self.drawn <= epoch:
            order = np.stack([draw() for draw in self.orders])
            self.drawn += 1
        views = np.random.default_rng([self.seeds[0], 2, epoch])  # only one network at a time is augmented
        shift, mirror = views.integers(0, 2 * CROP_PADDING + 1, (self.n, 2)), views.integers(0, 2, self.n) == 1
        return Drawn(*map(torch.as_tensor, (order, shift, mirror)))


class _Preparation:
    """From stored data to the input of a network: pixels become (x / 255 - mean) / std, features stay as they are."""

    def __init__(self, x: np.ndarray, splits: Splits, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.scale = dtype, None
        if x.dtype == np.uint8:
            channels = x.shape[1] if x.ndim == 4 else None
            if not len(splits.mean) == len(splits.std) == channels:
                raise ValueError(
                    f"images must be uint8 (n, C, H, W), with one mean and one std for each channel, but the shape is "
                    f"{x.shape}, mean is {splits.mean} and std is {splits.std}. Set them in the splits."
                )
            mean, std = (
                torch.tensor(v, dtype=dtype, device=device).reshape(-1, 1, 1) for v in (splits.mean, splits.std)
            )
            self.scale, self.shift = 1 / (255 * std), -mean / std

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        return x if self.scale is None else x * self.scale + self.shift


class Forward:
    """A network on its device, in its precision, from stored data to logits."""

    def __init__(self, model: nn.Module, x: np.ndarray, splits: Splits, recipe: Recipe, device: torch.device) -> None:
        self.device = device
        self.dtype = _weights_dtype(recipe, model)
        self.model = model.to(device, self.dtype)
        if x.ndim == 4:
            self.model.to(memory_format=torch.channels_last)  # what convolutions on a GPU want
        self.prepare = _Preparation(x, splits, self.dtype, device)
        self.mixed = recipe.precision == "bfloat16"

    def __call__(self, x: Tensor, network: nn.Module) -> Tensor:
        """Logits (n, K) of stored data (n, ...), in the dtype of the weights; `network` may be compiled."""
        x = self.prepare(x)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            logits = network(x)
        return logits.to(self.dtype)

    @torch.no_grad()
    def in_batches(self, x: Tensor) -> Tensor:
        """Logits in eval mode; nothing of the network changes."""
        was_training = self.model.training
        self.model.eval()
        parts = x.split(EVALUATION_BATCH[self.device.type])
        logits = torch.cat([self(part.to(self.device), self.model) for part in parts])
        self.model.train(was_training)
        return logits


class Single:
    """One network of any size; images stay on the device as bytes."""

    def __init__(self, model: nn.Module, splits: Splits, loss: nn.Module, recipe: Recipe, device: torch.device) -> None:
        _check_augmentation(splits, recipe)
        self.device, self.n_train = device, len(splits.y_train)
        self.net = Forward(copy.deepcopy(model).train(), splits.x_train, splits, recipe, device)
        self.network = torch.compile(self.net.model) if recipe.compile else self.net.model
        self.loss = copy.deepcopy(loss).to(device)
        self.x = {split: as_tensor(getattr(splits, f"x_{split}"), device) for split in SPLITS}
        self.y = {split: as_tensor(getattr(splits, f"y_{split}"), device).long() for split in SPLITS}
        self.augment = recipe.augment

    def trainable(self) -> list[Tensor]:
        return [*self.net.model.parameters(), *self.loss.parameters()]

    def losses(self, batch: Drawn) -> tuple[Tensor, Tensor]:
        """(1,) loss and (1, n, K) logits."""
        (rows,) = batch.rows
        x = self.x["train"][rows]
        if self.augment != "none":
            x = _augmented(x, batch.shift, batch.mirror if self.augment == "crop+flip" else None)
        logits = self.net(x, self.network)
        return self.loss(logits, self.y["train"][rows])[None], logits[None]

    def clip(self, norm: float) -> None:
        nn.utils.clip_grad_norm_(self.trainable(), norm)

    def finite(self) -> Tensor:
        """(1,) whether all that training changes is finite."""
        values = [*self.trainable(), *self.net.model.buffers(), *self.loss.buffers()]
        return torch.stack([value.isfinite().all() for value in values]).all()[None]

    def state(self) -> dict[str, Tensor]:
        return {name: value[None] for name, value in self.net.model.state_dict().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        self.net.model.load_state_dict({name: value[0] for name, value in state.items()})

    def logits(self, split: str) -> Tensor:
        return self.net.in_batches(self.x[split])[None]

    def predicted(self, split: str) -> Tensor:
        return self.logits(split).argmax(-1)

    def labels(self, split: str) -> Tensor:
        return self.y[split][None]


class _Shared:
    """The samples of S seeds. A pool that seeds share is held once, of it only what one of them uses."""

    def __init__(self, splits: Sequence[Splits], part: str, dtype: torch.dtype, device: torch.device) -> None:
        chosen = [s.selection(part) for s in splits]
        groups: dict[tuple, list[int]] = {}
        for seed, (s, c) in enumerate(zip(splits, chosen, strict=True)):
            groups.setdefault((id(c.pool), s.mean, s.std), []).append(seed)
        scaled = any(c.shift is not None for c in chosen)
        pools, rows, start = [], np.empty((len(splits), len(chosen[0].rows)), dtype=np.int64), 0
        for seeds in groups.values():
            first = seeds[0]
            used, inverse = np.unique(np.stack([chosen[s].rows for s in seeds]), return_inverse=True)
            rows[seeds] = start + inverse.reshape(len(seeds), -1)
            start += len(used)
            x = chosen[first].pool
            x = x if len(used) == len(x) else x[used]
            # Features that each seed scales in its own way keep their precision until then.
            prepare = _Preparation(x, splits[first], dtype if not scaled else torch.float64, device)
            pools.append(prepare(as_tensor(x, device)))
        self.pool = torch.cat(pools) if len(pools) > 1 else pools[0]
        self.rows, self.dtype = as_tensor(rows, device), dtype
        self.shift = self.scale = None
        if scaled:
            shifts = [np.zeros(c.pool.shape[1:]) if c.shift is None else c.shift for c in chosen]
            scales = [np.ones(c.pool.shape[1:]) if c.scale is None else c.scale for c in chosen]
            self.shift, self.scale = (as_tensor(np.stack(values)[:, None], device) for values in (shifts, scales))

    def __call__(self, rows: Tensor) -> Tensor:
        """(S, n, ...) inputs of the networks, of rows (S, n) of the part."""
        x = self.pool[self.rows.gather(1, rows)]
        return x if self.shift is None else ((x - self.shift) / self.scale).to(self.dtype)

    def all_rows(self) -> Sequence[Tensor]:
        """(S, n) numbers 0, 1, ... of the samples, in pieces whose inputs fit into memory."""
        seeds, n = self.rows.shape
        every = torch.arange(n, device=self.rows.device).expand(seeds, n)
        return every.split(max(1, EVALUATION_VALUES // (seeds * self.pool[0].numel())), dim=1)


class Stack:
    """Small networks of S seeds; parameters, and what a batch takes of the data, have a leading seed dimension."""

    def __init__(
        self,
        models: Sequence[nn.Module],
        splits: Sequence[Splits],
        loss: nn.Module,
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        sizes = {(len(s.y_train), len(s.y_val), len(s.y_test)) for s in splits}
        if len(sizes) > 1:
            raise ValueError(f"the splits must have equal sizes to be trained together, but have {sorted(sizes)}")
        dtype = _weights_dtype(recipe, models[0])
        self.device, self.n_train = device, len(splits[0].y_train)
        copies = [copy.deepcopy(model).to(device, dtype) for model in models]
        parameters, self.buffers = stack_module_state(copies)
        self.parameters = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
        self.forward = torch.vmap(
            lambda parameters, buffers, x: functional_call(copies[0], (parameters, buffers), (x,))
        )
        self.loss = copy.deepcopy(loss).to(device)
        self.loss_parameters = {
            name: p.detach().expand(len(models), *p.shape).clone().requires_grad_()
            for name, p in self.loss.named_parameters()
        }
        # What a loss remembers from batch to batch; it writes into these in place.
        self.loss_memory = {
            name: getattr(self.loss, name).expand(len(models), *getattr(self.loss, name).shape).clone()
            for name in getattr(self.loss, "tracked", ())
        }
        self.loss_of_each = torch.vmap(lambda own, z, y: functional_call(self.loss, own, (z, y)))

        self.x = {split: _Shared(splits, split, dtype, device) for split in SPLITS}
        labels = {split: np.stack([getattr(s, f"y_{split}") for s in splits]) for split in SPLITS}
        self.y = {split: as_tensor(y, device).long() for split, y in labels.items()}

    def trainable(self) -> list[Tensor]:
        return [*self.parameters.values(), *self.loss_parameters.values()]

    def losses(self, batch: Drawn) -> tuple[Tensor, Tensor]:
        """(S,) losses and (S, n, K) logits."""
        rows = batch.rows
        logits = self.forward(self.parameters, self.buffers, self.x["train"](rows))
        own = {**self.loss_parameters, **self.loss_memory}
        return self.loss_of_each(own, logits, self.y["train"].gather(1, rows)), logits

    def clip(self, norm: float) -> None:
        """As :func:`torch.nn.utils.clip_grad_norm_`, for each seed on its own."""
        gradients = [p.grad for p in self.trainable() if p.grad is not None]
        found = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
        factor = (norm / (found + 1e-6)).clamp(max=1.0)
        for g in gradients:
            g.mul_(factor.reshape(-1, *[1] * (g.dim() - 1)))

    def finite(self) -> Tensor:
        """(S,) whether all that training changes is finite."""
        return torch.stack([p.isfinite().reshape(len(p), -1).all(1) for p in self.trainable()]).all(0)

    def state(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.parameters.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(state[name])

    def _pieces(self, split: str) -> Iterator[Tensor]:
        x = self.x[split]
        return (self.forward(self.parameters, self.buffers, x(rows)) for rows in x.all_rows())

    @torch.no_grad()
    def logits(self, split: str) -> Tensor:
        return torch.cat(list(self._pieces(split)), dim=1)

    @torch.no_grad()
    def predicted(self, split: str) -> Tensor:
        """(S, n) classes with the largest logits; the logits of a training set need not fit into memory."""
        return torch.cat([logits.argmax(-1) for logits in self._pieces(split)], dim=1)

    def labels(self, split: str) -> Tensor:
        return self.y[split]


def as_tensor(values: np.ndarray, device: torch.device) -> Tensor:
    """A copy of any array, views with a negative step and arrays that must not be written included."""
    return torch.tensor(np.ascontiguousarray(values), device=device)


def _weights_dtype(recipe: Recipe, model: nn.Module) -> torch.dtype:
    """The dtype of weights, loss and logits."""
    if recipe.precision is None:
        return next(model.parameters()).dtype
    return torch.float64 if recipe.precision == "float64" else torch.float32


def _augmented(x: Tensor, shift: Tensor, mirror: Tensor | None) -> Tensor:
    """Images (n, C, H, W) after zero padding, cropped with the corner at `shift`, then mirrored where `mirror` says."""
    padded = F.pad(x, (CROP_PADDING,) * 4)
    crops = padded.unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)  # a view: (n, C, corner y, corner x, H, W)
    x = crops[torch.arange(len(x), device=x.device), :, shift[:, 0], shift[:, 1]]
    return x if mirror is None else torch.where(mirror[:, None, None, None], x.flip(-1), x)


def _check_augmentation(splits: Splits, recipe: Recipe) -> None:
    if recipe.augment == "none":
        return
    if splits.x_train.dtype != np.uint8:
        raise ValueError(
            f"augment = {recipe.augment!r} needs uint8 images (n, C, H, W), but the training inputs are "
            f"{splits.x_train.dtype} {splits.x_train.shape}. Use augment='none'."
        )
    if recipe.augment == "crop+flip" and all(len(name) == 1 for name in splits.class_names):
        raise ValueError(
            f"augment = 'crop+flip' would mirror the characters {', '.join(splits.class_names)}, and a mirrored "
            f"character is another one or none. Use augment='crop'."
        )


def check_stackable(model: nn.Module, loss: nn.Module, recipe: Recipe) -> None:
    """Refuse what only :func:`train` can do."""
    changing = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
    found = [module._get_name() for module in model.modules() if isinstance(module, changing)]
    for needs_train, what in (
        (recipe.augment != "none", f"augment = {recipe.augment!r}"),
        (recipe.precision == "bfloat16", "precision = 'bfloat16'"),
        (recipe.compile, "compile = True"),
        (found, f"a network with {', '.join(dict.fromkeys(found))}"),
        (hasattr(loss, "update"), f"{loss._get_name()}, which is updated with validation logits,"),
    ):
        if needs_train:
            raise ValueError(f"train_many cannot do this: {what}. Train each seed with gence.lab.training.train.")
