"""Slow, plain references for the tests: each formula of the book as loops, with no trick for speed or stability.

GenCE is computed in 50-digit decimals with an unbounded exponent, so that not even logits of +-1e4 need a trick.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gence.data import Splits
from gence.training import Recipe

REDUCTIONS = ("none", "sum", "mean")
K = 4
MASK = -math.inf
EXTREME = {
    "all right by 2e4": (2e4 * F.one_hot(torch.tensor([0, 1, 2, 3, 0]), K) - 1e4, [0, 1, 2, 3, 0]),
    "all wrong by 2e4": (2e4 * F.one_hot(torch.tensor([1, 2, 3, 0, 3]), K) - 1e4, [0, 1, 2, 3, 0]),
    "mixed +-1e4": (1e4 * (-1.0) ** torch.arange(20).reshape(5, K), [0, 1, 2, 3, 1]),
    "class masked in some rows": (torch.tensor([[MASK, 1, 0], [2, 0, 1], [0, MASK, 3.0]]), [1, 0, 2]),
    "class masked everywhere": (torch.tensor([[1, MASK, 0], [2, MASK, 1], [0, MASK, 3.0]]), [2, 0, 2]),
    "one class left in a row": (torch.tensor([[0, MASK, MASK], [2, MASK, 1]]), [0, 2]),
    "one sample, +-1e4": (torch.tensor([[1e4, -1e4, 0.0]]), [1]),
    "one class": (torch.tensor([[3.0], [-1e4]]), [0, 0]),
}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def labels(n: int, n_classes: int = K, seed: int = 0) -> Tensor:
    return torch.randint(n_classes, (n,), generator=torch.Generator().manual_seed(seed))


def gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """Gradient of a loss; without reduction each sample gets another upstream gradient."""
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits)
    value.backward((1 + torch.arange(value.numel()) / max(value.numel(), 1)).reshape(value.shape).to(value.dtype))
    assert logits.grad is not None
    return logits.grad


def close(actual: Tensor, expected: Tensor | float, atol: float = 1e-12, rtol: float = 0.0) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), atol=atol, rtol=rtol)


class GenCEReference(NamedTuple):
    terms: Tensor  # (M,) loss of each sample or position
    gradient: Tensor  # (M, K) of the sum of the terms
    total_weight: float  # W, what the mean divides by

    def reduced(self, reduction: str) -> Tensor:
        if reduction == "none":
            return self.terms
        return self.terms.sum() / (self.total_weight if reduction == "mean" else 1.0)


def rows_of(values: Tensor) -> Tensor:
    """(K,), (N, K) or (N, K, d1, ...) to (M, K), one row for each sample or position."""
    return values[None] if values.dim() == 1 else values.movedim(1, -1).reshape(-1, values.shape[1])


def generative_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    strength: float = 1.0,
) -> GenCEReference:
    """-sum_k a_ik (log p_ik - s log C_k) with C_k = sum_j m_j p_jk, and the closed form of its gradient."""
    z = rows_of(logits.detach().double()).tolist()
    n, n_classes = len(z), logits.shape[min(logits.dim() - 1, 1)]
    classes = range(n_classes)
    w = [1.0] * n_classes if weight is None else weight.double().tolist()
    if target.is_floating_point():
        q = rows_of(target.detach().double()).tolist()
        total_weight = float(n)
    else:
        labels = target.reshape(-1).tolist()
        q = [[float(k == y) if y != ignore_index else math.nan for k in classes] for y in labels]
        total_weight = sum(w[y] for y in labels if y != ignore_index)

    with localcontext() as context:
        context.prec = 50
        s, eps = Decimal(strength), Decimal(label_smoothing)
        a = [[Decimal(w[k]) * ((1 - eps) * Decimal(row[k]) + eps / n_classes) for k in classes] for row in q]
        a = [[Decimal(0) if v.is_nan() else v for v in row] for row in a]  # ignored samples count for nothing
        p = [[Decimal(v).exp() / sum(Decimal(u).exp() for u in row) for v in row] for row in z]
        m = [sum(row) for row in a]
        n_k = [sum(row[k] for row in a) for k in classes]
        column = [sum(m[j] * p[j][k] for j in range(n)) for k in classes]
        terms, gradient = [], []
        for i in range(n):
            # 0 log 0 = 0: a class that the sample does not carry has no part in its term.
            terms.append(-sum(a[i][k] * (p[i][k].ln() - s * column[k].ln()) for k in classes if a[i][k]))
            r = [m[i] * p[i][k] / column[k] if column[k] else Decimal(0) for k in classes]
            pull = sum(n_k[k] * r[k] for k in classes)
            gradient.append([m[i] * p[i][k] - a[i][k] + s * (n_k[k] * r[k] - p[i][k] * pull) for k in classes])
    as_tensor = [
        torch.tensor([[float(v) for v in row] for row in rows], dtype=torch.float64) for rows in ([terms], gradient)
    ]
    return GenCEReference(as_tensor[0][0], as_tensor[1], total_weight)


def plain_softmax(row: Sequence[float]) -> list[float]:
    return [math.exp(v) / math.fsum(math.exp(u) for u in row) for v in row]


def ece(confidence: Sequence[float], hit: Sequence[float], n_bins: int) -> float:
    """Equal-width calibration error by loops: value c lies in the bin (lo, hi] with number ceil(c B), or 1 for 0."""
    numbers = [max(math.ceil(c * n_bins), 1) for c in confidence]
    return gap_of_bins(confidence, hit, numbers)


def adaptive_ece(confidence: Sequence[float], hit: Sequence[float], n_bins: int) -> float:
    """Equal-mass calibration error by loops: cuts at round(j N / B), and a tie stays with its first sample."""
    order = sorted(range(len(confidence)), key=lambda i: confidence[i])
    cuts = [max(round(j * len(order) / n_bins), 1) for j in range(1, n_bins)]
    numbers = [0] * len(order)
    for rank, i in enumerate(order):
        tied = rank > 0 and confidence[i] == confidence[order[rank - 1]]
        numbers[i] = numbers[order[rank - 1]] if tied else sum(cut <= rank for cut in cuts)
    return gap_of_bins(confidence, hit, numbers)


def gap_of_bins(confidence: Sequence[float], hit: Sequence[float], numbers: Sequence[int]) -> float:
    """sum_b n_b/N |mean confidence - mean hit| over the bins that hold samples."""
    total = 0.0
    for b in set(numbers):
        members = [i for i, number in enumerate(numbers) if number == b]
        mean_confidence = math.fsum(confidence[i] for i in members) / len(members)
        mean_hit = math.fsum(hit[i] for i in members) / len(members)
        total += len(members) / len(numbers) * abs(mean_confidence - mean_hit)
    return total


class PlainRun(NamedTuple):
    logits: dict[str, dict[str, np.ndarray]]
    history: dict[str, list[float]]
    best_epoch: int
    train_error: float


def plain_training(model: nn.Module, splits: Splits, loss: nn.Module, recipe: Recipe, seed: int) -> PlainRun:
    """One seed trained as anybody would write it: a module, SGD, a loop over epochs and batches."""
    model = copy.deepcopy(model)
    x, y, x_val, y_val, x_test = map(
        torch.as_tensor, (splits.x_train, splits.y_train, splits.x_val, splits.y_val, splits.x_test)
    )
    n, epochs = len(y), recipe.epochs
    batch = n if recipe.batch_size == "full" else recipe.batch_size
    optimiser = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    milestones = [max(1, round(epochs * 150 / 350)), max(1, round(epochs * 250 / 350))]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.1)
    rng = np.random.default_rng([seed, 1])
    history: dict[str, list[float]] = {"epoch": [], "train_loss": [], "val_nll": []}
    best_nll, best_epoch, best = math.inf, 0, {}
    for epoch in range(1, epochs + 1):
        order = torch.as_tensor(rng.permutation(n))
        total = 0.0
        for start in range(0, n, batch):
            rows = order[start : start + batch]
            optimiser.zero_grad()
            value = loss(model(x[rows]), y[rows])
            value.backward()
            optimiser.step()
            total += value.item() * len(rows)
        schedule.step()
        if epoch % math.ceil(epochs / 50) == 0 or epoch == epochs:
            with torch.no_grad():
                current = {"val": model(x_val).numpy(), "test": model(x_test).numpy()}
            val_nll = F.cross_entropy(torch.as_tensor(current["val"]), y_val).item()
            if val_nll < best_nll:
                best_nll, best_epoch, best = val_nll, epoch, current
            for key, number in (("epoch", epoch), ("train_loss", total / n), ("val_nll", val_nll)):
                history[key].append(number)
    with torch.no_grad():
        train_error = (model(x).argmax(1) != y).double().mean().item()
    return PlainRun({"last": current, "best": best}, history, best_epoch, train_error)
