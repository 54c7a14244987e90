"""Two classes: a proper loss as a mixture of decisions, each with its own costs, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.special import expit, roots_legendre
from torch import Tensor

from gence.propriety.by_hand import AnyLoss, BinaryLoss, HandLoss
from gence.propriety.risk import Floats

__all__ = [
    "Weight",
    "binary_regret",
    "elementary_loss",
    "integral",
    "loss_from_weight",
    "probabilities",
    "weight_function",
]

Weight = Callable[[Any], Any]

# Beliefs at which honesty is put to the test, the roundest first, so that the message shows a round one.
_BELIEFS = np.array(
    list(dict.fromkeys([i / n for n in (2, 3, 4, 5, 10, 20) for i in range(1, n)] + [0.01, 0.99, 0.001, 0.999]))
)
_NODES, _WEIGHTS = roots_legendre(8)
_QUADRATURE_ERROR = 1e-8  # an integral whose estimated error is larger, beside max(1, |value|), is refused


def weight_function(loss: AnyLoss) -> Callable[[ArrayLike], Floats]:
    """Return the weight w(c) that a proper loss for two classes gives to the decision with threshold c.

    A decision with threshold c acts when the probability of class 1 exceeds c; it is right to do so when a false
    alarm costs c and a miss 1 - c. Every proper loss is a mixture of the losses of these decisions,
    ``loss(p, y) = integral of elementary_loss(c)(p, y) w(c) dc`` up to a function of y, and w is minus the second
    derivative of its entropy.

    Args:
        loss: a module of logits (``make_loss("ce")``), or a function of (p, label), where p holds the probabilities
            (2,) of one sample, or is the probability of class 1 if the function does not make one number of the two.
            By operations of torch w is exact to rounding, otherwise (NumPy, math) to about 1e-10 of its size.

    Returns:
        w, which maps probabilities strictly between 0 and 1, of any shape, to float64 weights of that shape.

    Raises:
        ValueError: a loss that is not proper, with a belief at which a lie is cheaper; one that jumps, as its weight is
            a point mass; one that couples samples, is NaN, or cannot judge two classes. From w: c outside (0, 1).

    Source: Schervish (1989); Buja, Stuetzle and Shen (2005); Reid and Williamson (2010).

    Example:
        >>> import torch
        >>> w = weight_function(lambda p, label: -torch.log(p[label]))
        >>> w([0.1, 0.5]).round(6).tolist()  # 1 / (c (1 - c))
        [11.111111, 4.0]
        >>> weight_function(lambda p, y: (p - y) ** 2)(0.3).round(9)
        np.float64(2.0)
    """
    binary = BinaryLoss(loss)
    _refuse_improper(binary)
    _refuse_jumps(binary)

    def weight(c: ArrayLike) -> Floats:
        points = probabilities(c)
        slopes = binary.slopes(points.ravel())
        return (slopes[:, 0] - slopes[:, 1]).reshape(points.shape)[()]

    return weight


def loss_from_weight(w: Weight, *, breaks: Sequence[float] = ()) -> HandLoss:
    """Build the proper loss for two classes that gives the weight w(c) to the decision with threshold c.

    It is ``integral from p to 1 of (1 - c) w(c) dc`` for label 1 and ``integral from 0 to p of c w(c) dc`` for label 0,
    by adaptive quadrature; its gradient is exact.

    Args:
        w: maps a threshold, a float in (0, 1), to a weight >= 0.
        breaks: thresholds where w jumps; the quadrature may step over a jump that is not named.

    Returns:
        A function of (p, label) where p is (2,) or the probability of class 1; it returns a float64 tensor, for label
        1 and p = 0 (and label 0 and p = 1) infinite where the integral is. :func:`on_logits` makes a module of it.

    Raises:
        ValueError: a weight that is negative, NaN or infinite, or so large at an end that certainty in the right class
            would cost infinitely much. From the loss: p of another shape or outside [0, 1], another label.

    Source: Schervish (1989); the beta family is that of Buja, Stuetzle and Shen (2005).

    Example:
        >>> loss = loss_from_weight(lambda c: 1 / (c * (1 - c)))  # the log loss
        >>> round(loss(0.25, 1).item(), 9), round(loss([0.25, 0.75], 1).item(), 9)
        (1.386294361, 0.287682072)
    """
    stops = probabilities(list(breaks), "breaks").tolist()
    for c in _BELIEFS:
        _weight_at(w, c)
    terms: tuple[Weight, Weight] = (lambda c: c * _weight_at(w, c), lambda c: (1 - c) * _weight_at(w, c))
    for label, ends in enumerate(((0.0, 0.5), (0.5, 1.0))):
        if np.isinf(integral(terms[label], *ends, stops)):
            raise ValueError(
                f"w grows so fast towards {label} that no loss has it: the integral of "
                f"{('c', '(1 - c)')[label]} w(c) from {ends[0]} to {ends[1]} diverges, so label {label} would cost "
                "infinitely much even where it is certain"
            )

    def loss(p: ArrayLike | Tensor, label: int) -> Tensor:
        c = class_one(p)
        return _Mixture.apply(c, terms[check_label(label)], label, stops)

    return loss


def elementary_loss(threshold: float) -> HandLoss:
    """Build the loss of the decision that acts when the probability of class 1 exceeds a threshold.

    A false alarm costs `threshold`, a miss 1 - `threshold`. Twice the one with threshold 1/2 is the 0-1 loss.

    Args:
        threshold: strictly between 0 and 1.

    Returns:
        A function of (p, label) where p is (2,) or the probability of class 1. It is proper, not strictly.

    Raises:
        ValueError: a threshold outside (0, 1); from the loss, as that of :func:`loss_from_weight`.

    Source: Shuford, Albert and Massengill (1966); Schervish (1989); Ehm, Gneiting, Jordan and Krüger (2016).

    Example:
        >>> rain = elementary_loss(0.2)
        >>> rain(0.3, 0).item(), rain(0.1, 1).item(), rain(0.3, 1).item()
        (0.2, 0.8, 0.0)
    """
    threshold = float(probabilities(threshold, "threshold"))

    def loss(p: ArrayLike | Tensor, label: int) -> Tensor:
        c = class_one(p)
        acts = (c > threshold).to(c.dtype)
        return (1 - threshold) * (1 - acts) if check_label(label) else threshold * acts

    return loss


def binary_regret(loss: AnyLoss, p: ArrayLike, q: ArrayLike) -> Floats:
    """Risk of the forecast p under the belief q, above the risk of q itself; for two classes, elementwise.

    Args:
        loss: as in :func:`weight_function`, but it need not be proper.
        p: forecasts, probabilities of class 1 in [0, 1].
        q: beliefs, likewise; p and q are broadcast against each other.

    Returns:
        Float64 regrets in the unit of the loss; negative where the loss is not proper and p cheaper than the truth.

    Raises:
        ValueError: probabilities outside [0, 1], a loss as in :func:`weight_function`.

    Source: Savage (1971); for the bounds by surrogates Reid and Williamson (2011).

    Example:
        >>> binary_regret(lambda p, y: (p - y) ** 2, [0.5, 0.7], 0.9).round(9).tolist()  # (p - q)^2
        [0.16, 0.04]
    """
    p, q = probabilities(p, "p", ends=True), probabilities(q, "q", ends=True)
    binary = BinaryLoss(loss)
    at_p, at_q = (binary.values(x.ravel()).reshape(*x.shape, 2) for x in (p, q))
    belief = np.stack([1 - q, q], axis=-1)
    with np.errstate(invalid="ignore"):
        return np.where(belief > 0, belief * (at_p - at_q), 0.0).sum(-1)[()]


def probabilities(values: ArrayLike, name: str = "c", *, ends: bool = False) -> Floats:
    """Float64 probabilities of any shape, or a ValueError that names the first that is none; with 0 and 1 or not."""
    found = np.asarray(values, dtype=np.float64)
    good = (found >= 0) & (found <= 1) if ends else (found > 0) & (found < 1)
    if not good.all():
        allowed = "lie in [0, 1]" if ends else "lie strictly between 0 and 1"
        raise ValueError(f"{name} must {allowed}, but got {found[~good][0]}")
    return found


def class_one(p: ArrayLike | Tensor) -> Tensor:
    """The probability of class 1 of a forecast for two classes, (2,) or already that number."""
    found = p if isinstance(p, Tensor) else torch.as_tensor(p, dtype=torch.float64)
    if found.shape not in ((), (2,)):
        raise ValueError(f"p must be a number or have shape (2,), for two classes, but has {tuple(found.shape)}")
    c = found if found.dim() == 0 else found[1]
    if not 0 <= c <= 1:
        raise ValueError(f"a probability must lie in [0, 1], but got {c.item()}")
    return c


def check_label(label: int, n_classes: int = 2) -> int:
    """The label, or a ValueError."""
    if label not in range(n_classes):
        raise ValueError(f"label must be one of 0 to {n_classes - 1}, but got {label!r}")
    return int(label)


class _Mixture(torch.autograd.Function):
    """An integral over decisions, from the forecast to the end where the label is certain."""

    @staticmethod
    def forward(ctx: Any, c: Tensor, term: Weight, label: int, breaks: Sequence[float]) -> Tensor:
        ctx.term, ctx.c, ctx.sign = term, float(c), -1 if label else 1
        ends = (ctx.c, 1.0) if label else (0.0, ctx.c)
        return c.new_tensor(integral(term, *ends, breaks))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        inside = min(max(ctx.c, np.finfo(float).tiny), 1 - np.finfo(float).epsneg)
        return grad * ctx.sign * float(ctx.term(inside)), None, None, None


def _weight_at(w: Weight, c: float) -> float:
    value = float(w(c))
    if not 0 <= value < np.inf:
        raise ValueError(f"a weight must be a number >= 0, but w({c:.6g}) = {value}")
    return value


def integral(term: Weight, low: float, high: float, breaks: Sequence[float] = ()) -> float:
    """The integral of a function that is >= 0; infinite where the quadrature does not come to an end."""

    def inside(c: float) -> float:
        return term(c) if 0 < c < 1 else 0.0  # a node so near an end that it is rounded to it

    # Where it starts near an end, a weight may fall by orders of magnitude: one decade at a time.
    decades = [10.0**-k for k in range(1, math.ceil(-math.log10(low)))] if low > 0 else []
    decades += [1 - 10.0**-k for k in range(1, math.ceil(-math.log10(1 - high)))] if high < 1 else []
    total, ends = 0.0, [low, *sorted({x for x in (*breaks, *decades) if low < x < high}), high]
    for pair in pairwise(ends):
        value, error, *_ = quad(inside, *pair, epsabs=1e-13, epsrel=1e-12, limit=400, full_output=1)
        total += value if error <= _QUADRATURE_ERROR * max(1.0, abs(value)) else np.inf
    return total


def _refuse_improper(binary: BinaryLoss) -> None:
    """Raise a ValueError where a forecast near a belief is cheaper than the belief, and the slopes say so too."""
    slopes = binary.slopes(_BELIEFS)
    parts = np.stack([(1 - _BELIEFS) * slopes[:, 0], _BELIEFS * slopes[:, 1]])
    dishonest = np.abs(parts.sum(0)) > 1e-7 * np.abs(parts).sum(0)
    worst_of_all = slopes[:, 0] - slopes[:, 1] < -1e-9 * np.abs(slopes).sum(1)
    for q in _BELIEFS[dishonest | worst_of_all]:
        honest = binary.risks(np.array([q]), np.array([q]))[0]
        for step in (0.2, 0.05, 0.01, 0.001):
            p = q + step * min(q, 1 - q) * np.array([-1.0, 1.0])
            lies = binary.risks(p, np.full(2, q))
            if lies.min() < honest - 1e-12 * max(1.0, abs(honest)):
                raise ValueError(
                    f"the loss is not proper, so it has no weight function: with the belief {q:.6g} in class 1 the "
                    f"forecast {p[lies.argmin()]:.6g} costs {lies.min():.6g}, honesty {honest:.6g}. "
                    "is_strictly_proper says how far it leads astray."
                )


def _refuse_jumps(binary: BinaryLoss) -> None:
    """Raise a ValueError where a partial loss changes by more than its slope explains, however small the step."""
    edges = np.linspace(-7, 7, 41)
    low, high = edges[:-1], edges[1:]

    def unexplained(low: Floats, high: Floats) -> tuple[Floats, Floats]:
        half = (high - low)[:, None] / 2
        c = expit(low[:, None] + half * (1 + _NODES))
        slopes = binary.slopes(c.ravel()).reshape(*c.shape, 2) * (c * (1 - c) * half * _WEIGHTS)[..., None]
        steps = binary.values(expit(high)) - binary.values(expit(low))
        return (steps - slopes.sum(1)), np.abs(steps) + np.abs(slopes).sum(1)

    missing, size = unexplained(low, high)
    threshold = 1e-6 * size + 1e-10
    bad = (np.abs(missing) > threshold).any(1)
    low, high, threshold = low[bad], high[bad], threshold[bad]
    for _ in range(35 if bad.any() else 0):
        middle = (low + high) / 2
        left = np.abs(unexplained(low, middle)[0]).max(1) >= np.abs(unexplained(middle, high)[0]).max(1)
        low, high = np.where(left, low, middle), np.where(left, middle, high)
    jumps = (np.abs(unexplained(low, high)[0]) > threshold).any(1) if bad.any() else np.array([], dtype=bool)
    if jumps.any():
        raise ValueError(
            f"the loss is not differentiable: it jumps at c = {expit(low[jumps][0]):.6g}, so its weight is a point "
            "mass there and no function. binary_regret and induced_divergence take such losses."
        )
