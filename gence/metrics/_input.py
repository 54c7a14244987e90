"""What the metrics accept: probabilities and labels, checked; and what several of them share."""

from __future__ import annotations

import math
from numbers import Integral

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

__all__ = ["MAX_BINS", "are_probabilities", "check_bins", "checked_labels", "to_numpy"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MAX_BINS = 10**6
BLOCK = 2**19  # entries that are binned at a time: what they need beside them stays small


def top_class(probs: ArrayLike, labels: ArrayLike, ignore_index: int | None) -> tuple[Floats, Floats]:
    """Confidence of the most probable class, and 1.0 where it is the label."""
    p, y = checked_input(probs, labels, ignore_index)
    tensor = torch.from_numpy(np.require(p, requirements=["C", "W"]))  # torch is faster along short rows
    confidence = tensor.amax(1).numpy()
    correct = tensor.gather(1, torch.from_numpy(np.require(y, requirements=["W"]))[:, None])[:, 0].numpy() == confidence
    # Two classes can share the largest probability only where it is 1/2 or less; then the lower index is predicted.
    tied = np.flatnonzero(correct & (confidence <= 0.51))
    correct[tied] = p[tied].argmax(1) == y[tied]
    return confidence, correct.astype(np.float64)


def is_compat(compat: str | None) -> bool:
    if compat not in (None, "focal_calibration"):
        raise ValueError(f"compat must be None or 'focal_calibration', but got {compat!r}")
    return compat is not None


def float32_top(probs: ArrayLike, labels: ArrayLike, ignore_index: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    p, y = checked_input(probs, labels, ignore_index)
    confidence, predicted = torch.as_tensor(p, dtype=torch.float32).max(1)
    return confidence, predicted == torch.as_tensor(y)


def check_bins(n_bins: int) -> None:
    if isinstance(n_bins, bool) or not isinstance(n_bins, Integral):
        raise ValueError(f"n_bins must be an integer, but got {n_bins!r}")
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, but got {n_bins}")
    if n_bins > MAX_BINS:
        raise ValueError(f"n_bins must be at most {MAX_BINS:,}, but got {n_bins:,}. 15 are usual.")


def checked_input(probs: ArrayLike, labels: ArrayLike, ignore_index: int | None) -> tuple[Floats, Ints]:
    """Return float64 probabilities (M, K) and int64 labels (M,) of the kept samples, or say what is wrong with them."""
    p, y = checked_as_they_are(probs, labels, ignore_index)
    return p.astype(np.float64, copy=False), y


def checked_as_they_are(probs: ArrayLike, labels: ArrayLike, ignore_index: int | None) -> tuple[NDArray, Ints]:
    """The same, but float32 stays float32."""
    p, y = to_numpy(probs), to_numpy(labels)
    if p.ndim < 2 or 0 in p.shape:
        raise ValueError(f"probs must have shape (N, K) or (N, K, d1, ...) with N, K >= 1, but got {p.shape}")
    y = checked_labels(y, "probs", p.shape, ignore_index).ravel()
    if p.ndim > 2:
        p = np.moveaxis(p, 1, -1).reshape(-1, p.shape[1])
    if ignore_index is not None:
        kept = y != ignore_index
        if not kept.any():
            raise ValueError(f"no sample is left: all labels are the ignore_index {ignore_index}")
        p, y = p[kept], y[kept]
    p = p if p.dtype == np.float32 else p.astype(np.float64, copy=False)
    if not are_probabilities(p):
        raise ValueError(_not_probabilities(p))
    return (p if p.min() >= 0 and p.max() <= 1 else p.clip(0, 1)), y


def checked_labels(labels: ArrayLike, name: str, shape: tuple[int, ...], ignore_index: int | None = None) -> Ints:
    """Return labels (N, d1, ...) that fit an input of that name and `shape` (N, K, d1, ...), or say why they do not."""
    y, expected, n_classes = to_numpy(labels), (shape[0], *shape[2:]), shape[1]
    if y.shape != expected:
        raise ValueError(f"labels must have shape {expected} to match {name} {shape}, but got {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels must be integer class indices, but their dtype is {y.dtype}")
    kept = y if ignore_index is None else y[y != ignore_index]
    if kept.size and (kept.min() < 0 or kept.max() >= n_classes):
        raise ValueError(
            f"labels must lie in 0..{n_classes - 1}, but range from {kept.min()} to {kept.max()}. "
            "(Metrics leave out the samples whose label is their ignore_index.)"
        )
    return y.astype(np.int64, copy=False)


def are_probabilities(p: NDArray[np.floating]) -> bool:
    """Whether rows (N, K) lie in [0, 1] and sum to 1 up to the rounding of what they were computed in."""
    off = max(-p.min(), p.max() - 1, np.abs(p @ np.ones(p.shape[1], p.dtype) - 1).max())
    return bool(off <= _float_rounding(p.shape[1]) or (off <= 0.1 and off <= _half_rounding(p)))  # not for NaN


def _float_rounding(n_classes: int) -> float:
    """Of float32, roughly computed, or of six printed decimals for each class."""
    return 1e-4 + 5e-7 * n_classes


def _half_rounding(p: NDArray[np.floating]) -> float:
    """How far off 1 rows may sum that came from 16 bits, which shows in each value even after a cast; else 0.

    A relative error of `unit` for each value moves the sum by as much; values from a quotient of rounded parts may be
    off by three, exp(log p) by 1 + |log p|, log K on average. float16 also has an absolute error.
    """
    tensor = torch.from_numpy(np.require(p, requirements=["C", "W"]))
    for dtype, unit, smallest in ((torch.bfloat16, 2**-8, 0.0), (torch.float16, 2**-11, 2**-25)):  # coarsest first
        if torch.equal(tensor.to(dtype).to(tensor.dtype), tensor):
            return unit * (3 + math.log(p.shape[1])) + smallest * p.shape[1]
    return 0.0


def _not_probabilities(p: NDArray[np.floating]) -> str:
    if not np.isfinite(p).all():
        return "probs contain NaN or infinite values"
    total = p.sum(1)
    return (
        f"probs must be rows that lie in [0, 1] and sum to 1, but values range from {p.min():.4g} to {p.max():.4g} and "
        f"rows sum to {total.min():.4g}..{total.max():.4g}. Logits? Apply softmax(dim=1). "
        "Rounded probabilities? Divide each row by its sum."
    )


def to_numpy(values: ArrayLike) -> NDArray:
    if hasattr(values, "detach"):  # a tensor, on any device; numpy knows no bfloat16
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)
