"""What all losses accept: logits with labels or class probabilities, weights, ignored labels; and its checks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import (
    get_unwrapped,
    is_batchedtensor,
    is_functorch_wrapped_tensor,
)
from torch._subclasses import FakeTensor


def may_look(z: Tensor) -> bool:
    """Whether a decision may depend on values: not under torch.vmap or a tracer, nor where it costs a wait."""
    return z.device.type == "cpu" and not is_batchedtensor(z) and not _is_traced()


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Batch:
    """A batch in the form that the losses compute with: rows of logits, labels or class probabilities, and masses.

    Attributes:
        z: (M, K) logits in the working dtype, a row for each sample and position; 0 in rows that do not count.
        y: (M,) labels in 0..K-1, or None.
        q: (M, K) class probabilities, or None.
        mass: (M,) sample weights, 0 where the label is ignored; None where every row counts 1.
        shape: of class indices.
    """

    def __init__(self, input: Tensor, target: Tensor, ignore_index: int, sample_weight: Tensor | None) -> None:
        is_soft(input, target, None, ignore_index)
        self.z, self.shape = as_rows(as_float(input)), label_shape(input)
        self.y, self.q, self.mass = split_target(input, target, self.z, ignore_index, sample_weight)
        if self.mass is not None:  # not even a row of NaN may spoil a sum over the batch, or a gradient
            without = (self.mass == 0)[:, None]
            self.z = self.z.masked_fill(without, 0.0)
            self.q = None if self.q is None else self.q.masked_fill(without, 0.0)

    def of(self, table: Tensor) -> Tensor:
        """What a loss is computed for: (M,) a table's entries of the labels; for class probabilities all (M, K)."""
        return table if self.y is None else table.gather(1, self.y[:, None])[:, 0]

    def of_rows(self, values: Tensor) -> Tensor:
        """(M,) values of the rows, beside what :meth:`of` returns."""
        return values[:, None] if self.y is None else values

    def of_classes(self, values: Tensor) -> Tensor:
        """(K,) values of the classes, beside what :meth:`of` returns."""
        return values if self.y is None else values.gather(0, self.y)

    def nll(self) -> Tensor:
        """-log p of the labels; of all classes for class probabilities, but 0 where they are 0, as 0 log 0 is 0."""
        log_p = F.log_softmax(self.z, dim=1)
        if self.y is None:
            return -log_p.masked_fill(self.q == 0, 0.0)
        return F.nll_loss(log_p, self.y, reduction="none")

    def counts(self) -> Tensor:
        """(M,) how much of a sample each row is."""
        mass = self.z.new_ones(len(self.z)) if self.mass is None else self.mass
        return mass if self.q is None else mass * self.q.sum(1)

    def size(self) -> Tensor | int:
        """The divisor of the mean."""
        return len(self.z) if self.mass is None else self.mass.sum()

    def reduce(self, terms: Tensor, reduction: str) -> Tensor:
        """From terms in the form of :meth:`of` to the loss."""
        check_reduction(reduction)
        if self.q is not None:
            terms = (self.q * terms).sum(1)
        if self.mass is not None:
            terms = (self.mass * terms).masked_fill(self.mass == 0, 0.0)
        if reduction == "none":
            return terms.reshape(self.shape)
        if reduction == "mean" and self.mass is None:
            return terms.mean()
        return terms.sum() if reduction == "sum" else terms.sum() / self.size()


def is_soft(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> bool:
    """Whether the target holds class probabilities. What does not fit is refused with the error type of torch."""
    fault = _fault(input, target, weight, ignore_index)
    if fault is None:
        return target.shape == input.shape
    kind = ValueError
    try:
        F.cross_entropy(input.detach(), target, weight, ignore_index=ignore_index)
    except (ValueError, IndexError, RuntimeError, TypeError) as error:
        kind = type(error)
    except Exception:  # torch.vmap has assertions of its own
        pass
    raise kind(fault)


def _fault(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> str | None:
    """What is wrong with dtypes and shapes, and what to do."""
    for name, value in (("logits", input), ("the target", target), ("weight", weight)):
        if not isinstance(value, Tensor) and value is not None:
            return f"{name} must be a tensor, but is a {type(value).__name__}. Use torch.as_tensor."
    if input.dim() == 0 or not input.is_floating_point():
        return (
            f"logits must be floating-point numbers (N, K), (N, K, d1, ...) or (K,), but have the dtype {input.dtype} "
            f"and the shape {tuple(input.shape)}. Use the float output of the network, before any softmax or argmax."
        )
    shape, n_classes = label_shape(input), input.shape[min(1, input.dim() - 1)]
    if weight is not None and weight.shape != (n_classes,):
        return (
            f"weight must hold one number for each of the {n_classes} classes, but has the shape "
            f"{tuple(weight.shape)}. A weight for each sample is sample_weight."
        )
    if target.shape == input.shape:
        if not target.is_floating_point():
            return (
                f"a target of the shape of the logits, {tuple(input.shape)}, must hold class probabilities, but has "
                f"the dtype {target.dtype}. Use target.float(), or class indices of shape {shape}."
            )
        if ignore_index >= 0:
            return (
                f"ignore_index = {ignore_index} is for class indices, but the target holds class probabilities. "
                f"Give rows that shall not count a sample_weight of 0."
            )
    elif target.shape != shape and not (input.dim() == 1 and target.shape == (1,)):
        return (
            f"logits of shape {tuple(input.shape)} need class indices of shape {shape} or class probabilities of "
            f"shape {tuple(input.shape)}, but the target has the shape {tuple(target.shape)}."
        )
    elif target.dtype not in INTEGERS:
        return f"class indices must be integers, but have the dtype {target.dtype}. Use target.long()."
    return None


def split_target(
    input: Tensor, target: Tensor, z: Tensor, ignore_index: int, sample_weight: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(M,) labels in 0..K-1, (M, K) class probabilities and (M,) masses of the rows z, as in :class:`Batch`."""
    mass = None if sample_weight is None else _row_weights(sample_weight, label_shape(input)).to(z.dtype)
    if target.shape == input.shape:
        return None, as_rows(target).to(z.dtype), mass
    y = target if target.dim() == 1 and target.dtype == torch.long else target.reshape(-1).long()
    kept = kept_labels(y, z.shape[1], ignore_index)
    if kept is None:
        return y, None, mass
    return torch.where(kept, y, 0), None, kept.to(z.dtype) if mass is None else torch.where(kept, mass, 0.0)


def _row_weights(sample_weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(sample_weight, Tensor) or sample_weight.shape != shape:
        found = tuple(sample_weight.shape) if isinstance(sample_weight, Tensor) else type(sample_weight).__name__
        raise ValueError(f"sample_weight must be a tensor of the shape of class indices, {shape}, but is {found}.")
    if sample_weight.requires_grad:
        raise ValueError("sample_weight is a constant: use sample_weight.detach(), or weigh with reduction='none'.")
    known = _known(sample_weight)
    if known is not None and not bool(((known >= 0) & (known < math.inf)).all()):
        wrong = known[~((known >= 0) & (known < math.inf))].flatten()[0].item()
        raise ValueError(f"sample_weight must hold finite numbers >= 0, but one is {wrong}. Use clamp(min=0).")
    return sample_weight.reshape(-1)


def kept_labels(y: Tensor, n_classes: int, ignore_index: int) -> Tensor | None:
    """(M,) which labels count, None if it is known that all do. Others outside 0..K-1 are refused if they can be read.

    Otherwise the kernels that look the labels up refuse them.
    """
    known = _known(y)
    if known is None:
        return y != ignore_index
    if known.numel() == 0:
        return None
    low, high = (int(v) for v in known.aminmax())
    if low >= 0 and high < n_classes and not low <= ignore_index <= high:
        return None
    count = known != ignore_index
    outside = known[count & ((known < 0) | (known >= n_classes))]
    if outside.numel():
        raise IndexError(
            f"label {int(outside[0])} is out of bounds: with {n_classes} classes labels lie in 0..{n_classes - 1}. "
            f"Number the classes from 0; for samples to leave out use ignore_index, which is {ignore_index} here."
        )
    return None if bool(count.all()) else y != ignore_index


def _known(x: Tensor) -> Tensor | None:
    """The values behind all torch.func transforms, or None where they are unknown or reading them costs a wait."""
    if x.device.type != "cpu" or _is_traced():
        return None
    while is_functorch_wrapped_tensor(x):
        x = get_unwrapped(x)
    return None if isinstance(x, FakeTensor) else x


def label_shape(input: Tensor) -> tuple[int, ...]:
    return () if input.dim() == 1 else (*input.shape[:1], *input.shape[2:])


def as_rows(x: Tensor) -> Tensor:
    """(K,), (N, K) or (N, K, d1, ...) to one row of K entries for each sample and position."""
    if x.dim() == 2:
        return x
    if x.dim() == 1:
        return x[None]
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def in_dtype_of_cross_entropy(loss: Tensor, common: torch.dtype) -> Tensor:
    """The common dtype of logits, targets and weights, but float32 for half logits under autocast."""
    return loss if loss.dtype == common or torch.is_autocast_enabled(loss.device.type) else loss.to(common)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Losses of half precision logits are computed in float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction!r} is not a valid value for reduction: use 'mean', 'sum' or 'none'")


def as_float(input: Tensor) -> Tensor:
    dtype = working_dtype(input.dtype)
    return input if input.dtype == dtype else input.to(dtype)


def checked_counts(class_counts: Tensor | Sequence[float], input: Tensor) -> Tensor:
    """(K,) in the dtype of the losses; a compiler reads no values, but the modules check theirs when they are built."""
    counts = torch.as_tensor(class_counts, device=input.device).to(working_dtype(input.dtype))
    n_classes = input.shape[min(1, input.dim() - 1)]
    if counts.shape != (n_classes,):
        raise ValueError(
            f"class_counts must hold one number for each of the {n_classes} classes, but is {counts.tolist()}. {_COUNT}"
        )
    if not _is_traced():
        check_counts(counts)
    return counts


def check_counts(class_counts: Tensor | Sequence[float]) -> None:
    counts = torch.as_tensor(class_counts)
    if counts.dim() != 1 or not bool(((counts > 0) & (counts < math.inf)).all()):
        raise ValueError(f"class_counts must hold a positive number for each class, but is {counts.tolist()}. {_COUNT}")


_COUNT = "Count the labels of the training set, for example with torch.bincount."


def check_gamma(gamma: float) -> None:
    if not gamma >= 0:
        raise ValueError(f"gamma must be >= 0 (0 is cross-entropy), but got {gamma}. Use gamma=0 or larger.")


def check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, but got {value}")
