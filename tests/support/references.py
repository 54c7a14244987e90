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
from scipy import stats
from torch import Tensor, nn

from gence.lab.data import Splits
from gence.lab.training import Recipe

REDUCTIONS = ("none", "sum", "mean")
K = 4
COUNTS = [50.0, 3.0, 20.0, 7.0]
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


# --- The loss family, sample by sample, each from its published formula -------------------------------------------


def focal(p: Sequence[float], y: int, gamma: float = 2.0) -> float:
    return -((1 - p[y]) ** gamma) * math.log(p[y])


def inverse_focal(p: Sequence[float], y: int, gamma: float = 2.0) -> float:
    return -((1 + p[y]) ** gamma) * math.log(p[y])


def brier(p: Sequence[float], y: int) -> float:
    return sum((p_k - (k == y)) ** 2 for k, p_k in enumerate(p))


def flsd_53(p: Sequence[float], y: int) -> float:
    return focal(p, y, 5.0 if p[y] < 0.2 else 3.0)


def flsd_52(p: Sequence[float], y: int) -> float:
    return focal(p, y, 5.0 if p[y] < 0.2 else 3.0 if p[y] < 0.5 else 2.0)


def dual_focal(p: Sequence[float], y: int, gamma: float = 5.0) -> float:
    rival = max((p_k for p_k in p if p_k < p[y]), default=0.0)
    return -((1 - p[y] + rival) ** gamma) * math.log(p[y])


def lq(p: Sequence[float], y: int, q: float = 0.7, truncation: float = 0.0) -> float:
    return (1 - max(p[y], truncation) ** q) / q


def reverse_cross_entropy(p: Sequence[float], y: int, log_zero: float) -> float:
    return -sum(p_k * (0.0 if k == y else log_zero) for k, p_k in enumerate(p))


def symmetric_cross_entropy(
    p: Sequence[float], y: int, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0
) -> float:
    return -alpha * math.log(p[y]) + beta * reverse_cross_entropy(p, y, log_zero)


def symmetric_cross_entropy_official(p: Sequence[float], y: int, alpha: float = 0.1, beta: float = 1.0) -> float:
    """Of the reverse part: p clamped at 1e-7, the one-hot label at 1e-4."""
    reverse = -sum(max(p_k, 1e-7) * math.log(1.0 if k == y else 1e-4) for k, p_k in enumerate(p))
    return -alpha * math.log(p[y]) + beta * reverse


def min_ent(p: Sequence[float], y: int, weights=(1.0, 0.1), log_bases=(math.e, math.e)) -> float:
    entropy = -sum(p_k * math.log(p_k, log_bases[1]) for p_k in p)
    return -weights[0] * math.log(p[y], log_bases[0]) + weights[1] * entropy


def mix_ent(p: Sequence[float], y: int, weights=(1.0, 0.1), log_bases=(math.e, math.e)) -> float:
    reverse = reverse_cross_entropy(p, y, math.log(1e-6, log_bases[1]))
    return -weights[0] * math.log(p[y], log_bases[0]) + weights[1] * reverse


def logit_adjusted(p: Sequence[float], y: int, class_counts: Sequence[float], tau: float = 1.0, plus=0.0) -> float:
    pull = [(n / sum(class_counts)) ** tau + plus for n in class_counts]
    return -math.log(pull[y] * p[y] / sum(a * b for a, b in zip(pull, p, strict=True)))


def class_balanced_weights(class_counts: Sequence[float], beta: float) -> list[float]:
    effective = [sum(beta**i for i in range(round(n))) for n in class_counts]  # (1 - beta^n) / (1 - beta)
    return [len(effective) / n / sum(1 / m for m in effective) for n in effective]


def class_balanced(p: Sequence[float], y: int, class_counts: Sequence[float], beta: float = 0.9999) -> float:
    return -class_balanced_weights(class_counts, beta)[y] * math.log(p[y])


def adafocal(p: Sequence[float], y: int, gammas: Sequence[float], edges: Sequence[float]) -> float:
    """A sample on an edge belongs to the bin above it."""
    gamma = gammas[sum(p[y] >= edge for edge in edges)]
    return focal(p, y, gamma) if gamma >= 0 else inverse_focal(p, y, -gamma)


# --- What the tests of all losses must know of each: a new loss has a line in both ---------------------------------

# The formula of a sample at the default options, for the losses that are one.
FORMULAS: dict[str, Callable[[Sequence[float], int], float]] = {
    "ce": lambda p, y: -math.log(p[y]),
    "brier": brier,
    "focal": focal,
    "inverse_focal": inverse_focal,
    "flsc": lambda p, y: focal(p, y, 5.0),
    "flsd_53": flsd_53,
    "flsd_52": flsd_52,
    "dual_focal": dual_focal,
    "adafocal": lambda p, y: focal(p, y, 1.0),
    "lq": lq,
    "sce": symmetric_cross_entropy,
    "min_ent": min_ent,
    "mix_ent": mix_ent,
    "logit_adjustment": lambda p, y: logit_adjusted(p, y, COUNTS),
    "class_balanced": lambda p, y: class_balanced(p, y, COUNTS),
}
# For each option of its own another value than the default, one that changes the loss.
OTHER_VALUES: dict[str, dict[str, object]] = {
    "focal": {"gamma": 3.0},
    "inverse_focal": {"gamma": 3.0},
    "dual_focal": {"gamma": 3.0},
    "flsd_53": {"gammas": (4.0, 2.0), "thresholds": (0.4,)},
    "gence_focal": {"gamma": 3.0, "strength": 0.3},
    "lq": {"q": 0.5, "truncation": 0.4},
    "sce": {"alpha": 6.0, "beta": 0.1, "log_zero": -2.0, "official": True},
}


def formula(name: str) -> Callable[[Sequence[float], int], float]:
    assert name in FORMULAS, f"give FORMULAS in tests/support/references.py the formula of a sample of {name!r}"
    return FORMULAS[name]


def gence_focal(p: Sequence[Sequence[float]], y: Sequence[int], gamma: float = 2.0, strength: float = 1.0) -> list:
    """-(1 - p_y)^gamma (log p_y - strength log sum_j p_y(x_j)) of each sample of a batch."""
    return [
        focal(row, k, gamma) + (1 - row[k]) ** gamma * strength * math.log(sum(other[k] for other in p))
        for row, k in zip(p, y, strict=True)
    ]


def mmce(p: Sequence[Sequence[float]], y: Sequence[int], bandwidth: float = 0.4) -> float:
    """The square of the MMCE."""
    r, c = confidence_and_hit(p, y)
    n = range(len(r))
    kernel = [[math.exp(-abs(r[i] - r[j]) / bandwidth) for j in n] for i in n]
    return sum((c[i] - r[i]) * (c[j] - r[j]) * kernel[i][j] for i in n for j in n) / len(r) ** 2


def mmce_w(p: Sequence[Sequence[float]], y: Sequence[int], bandwidth: float = 0.4, official: bool = False) -> float:
    """The square of MMCE_w: two sums within the correct and the wrong samples, less twice the one across."""
    r, c = confidence_and_hit(p, y)
    right, wrong = [a for a, hit in zip(r, c, strict=True) if hit], [a for a, hit in zip(r, c, strict=True) if not hit]
    m, n = len(right), len(wrong)

    def mean(values: Sequence[float], others: Sequence[float], first: Callable, second: Callable) -> float:
        terms = [first(a) * second(b) * math.exp(-abs(a - b) / bandwidth) for a in values for b in others]
        return sum(terms) / len(terms) if terms else 0.0

    parts = (
        (mean(right, right, lambda a: 1 - a, lambda b: 1 - b), m * m),
        (mean(wrong, wrong, lambda a: a, lambda b: b), n * n),
        (-2 * mean(right, wrong, lambda a: 1 - a, lambda b: b), m * n),
    )
    # The official code divides the means by the squared numbers once more.
    return sum(value / (pairs + 1e-5) if official else value for value, pairs in parts)


def confidence_and_hit(p: Sequence[Sequence[float]], y: Sequence[int]) -> tuple[list[float], list[bool]]:
    return [max(row) for row in p], [row.index(max(row)) == k for row, k in zip(p, y, strict=True)]


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


def batches(order: torch.Tensor, batch: int, last_batch: str) -> list[torch.Tensor]:
    """The samples of an epoch in batches, by what NumPy and torch have for it."""
    if last_batch == "even":
        return [torch.as_tensor(rows) for rows in np.array_split(order.numpy(), math.ceil(len(order) / batch))]
    rows = torch.utils.data.BatchSampler(order.tolist(), batch, drop_last=last_batch == "drop")
    return [torch.as_tensor(part) for part in rows]


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
        total = seen = 0.0
        for rows in batches(order, batch, recipe.last_batch):
            optimiser.zero_grad()
            value = loss(model(x[rows]), y[rows])
            value.backward()
            optimiser.step()
            total += value.item() * len(rows)
            seen += len(rows)
        schedule.step()
        if epoch % math.ceil(epochs / 50) == 0 or epoch == epochs:
            with torch.no_grad():
                current = {"val": model(x_val).numpy(), "test": model(x_test).numpy()}
            val_nll = F.cross_entropy(torch.as_tensor(current["val"]), y_val).item()
            if val_nll < best_nll:
                best_nll, best_epoch, best = val_nll, epoch, current
            for key, number in (("epoch", epoch), ("train_loss", total / seen), ("val_nll", val_nll)):
                history[key].append(number)
    with torch.no_grad():
        train_error = (model(x).argmax(1) != y).double().mean().item()
    return PlainRun({"last": current, "best": best}, history, best_epoch, train_error)


def exact_p(difference: Sequence[float]) -> float:
    """The two-sided p of Wilcoxon's signed ranks, by scipy, without an approximation."""
    return float(stats.wilcoxon(difference, method="exact").pvalue)
