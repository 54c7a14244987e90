"""The proper loss of a concave entropy: the price of each class on the tangent plane at the forecast."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gence.propriety.by_hand import HandLoss, along, reading
from gence.propriety.risk import Floats
from gence.propriety.weights import check_label

__all__ = ["loss_from_entropy"]

Entropy = Callable[[Any], Any]


def loss_from_entropy(H: Entropy, n_classes: int = 2) -> HandLoss:
    """Build the proper loss whose risk at the truth is the entropy H: ``H(p) + <grad H(p), e_label - p>``.

    Args:
        H: a concave function of the probabilities (K,), or for two classes of that of class 1. Operations of torch keep
            the gradient of the loss; of other functions (NumPy, math) the values are right, but have no gradient.
        n_classes: K.

    Returns:
        A function of (p, label), where p is (K,), or for two classes the probability of class 1; it returns a float64
        tensor. :func:`on_logits` makes a module of it. The loss is strictly proper where H is strictly concave.

        At the edge of the simplex it is what torch makes of H there: torch.special.entr(p) is right, -p log p is NaN.

    Raises:
        ValueError: `n_classes` < 2; H that is NaN, or not concave, with two beliefs that show it (all pairs from a
            lattice are tried); H that cannot be evaluated. From the loss: p of another shape, another label.

    Source: Savage (1971); McCarthy (1956).

    Example:
        >>> brier = loss_from_entropy(lambda p: 1 - (p**2).sum(), n_classes=3)
        >>> round(brier([0.5, 0.3, 0.2], 1).item(), 9)  # 0.5^2 + 0.7^2 + 0.2^2
        0.78
    """
    if n_classes < 2:
        raise ValueError(f"n_classes must be at least 2, but got {n_classes}")
    read = reading(H, n_classes)

    def entropy(p: Tensor) -> Tensor:
        return torch.as_tensor(H(read(p)), dtype=p.dtype).reshape(())

    _refuse_not_concave(entropy, n_classes)
    exact = _gradient_is_right(entropy, n_classes)

    def loss(p: ArrayLike | Tensor, label: int) -> Tensor:
        p = _belief(p, n_classes)
        direction = torch.nn.functional.one_hot(torch.tensor(check_label(label, n_classes)), n_classes) - p
        if exact:
            gradient, value = torch.func.grad_and_value(entropy)(p)
            found = value + torch.where(direction == 0, 0.0, direction * gradient).sum()
        else:
            found = entropy(p) + along(entropy, p, direction)
        return found

    return loss


def _belief(p: ArrayLike | Tensor, n_classes: int) -> Tensor:
    found = p if isinstance(p, Tensor) else torch.as_tensor(p, dtype=torch.float64)
    if found.dim() == 0 and n_classes == 2:
        found = torch.stack([1 - found, found])
    if found.shape != (n_classes,):
        raise ValueError(
            f"p must have shape ({n_classes},), but has {tuple(found.shape)}; give loss_from_entropy the n_classes"
        )
    return found


def _lattice(n_classes: int) -> Floats:
    """Beliefs for a search, the even one first: round ones, and some near each corner."""
    k = np.eye(n_classes)
    even = np.full(n_classes, 1 / n_classes)
    parts = [t * k + (1 - t) * even for t in (0.5, 0.9, 0.99, -1 / (2 * n_classes))]
    pairs = [0.45 * (k[i] + k[j]) + 0.1 * even for i, j in combinations(range(min(n_classes, 6)), 2)]
    ramp = np.arange(1, n_classes + 1) / np.arange(1, n_classes + 1).sum()
    fine = [np.array([1 - c, c]) for c in np.arange(1, 20) / 20] if n_classes == 2 else []
    return np.vstack([even, *fine, *(np.reshape(x, (-1, n_classes)) for x in (*parts, *pairs, ramp, ramp[::-1]))])


def _refuse_not_concave(entropy: Callable[[Tensor], Tensor], n_classes: int) -> None:
    beliefs = torch.from_numpy(_lattice(n_classes))
    with torch.no_grad():
        values = [float(entropy(p)) for p in beliefs]
        for p, value in zip(beliefs, values, strict=True):
            if not np.isfinite(value):
                raise ValueError(f"H is {value} at {_shown(p)}; an entropy must be finite inside the simplex")
        for i, j in combinations(range(len(beliefs)), 2):
            middle, mean = float(entropy((beliefs[i] + beliefs[j]) / 2)), (values[i] + values[j]) / 2
            if not middle >= mean - 1e-10 * max(1.0, abs(mean)):
                raise ValueError(
                    f"H is not concave: half way between {_shown(beliefs[i])} and {_shown(beliefs[j])} it is "
                    f"{middle:.6g}, below the mean {mean:.6g} of its values there, so no loss has this entropy"
                )


def _gradient_is_right(entropy: Callable[[Tensor], Tensor], n_classes: int) -> bool:
    """Whether autograd gives the slope that differences of the values give, as it does unless H leaves torch."""
    agree = []
    for p in torch.from_numpy(_lattice(n_classes)[1:8]):
        direction = torch.eye(n_classes, dtype=p.dtype)[0] - p
        try:
            slope = torch.func.grad(entropy)(p) @ direction
        except Exception:  # NumPy and others refuse a tensor with a gradient, each in its own way
            return False
        agree.append(np.isclose(float(slope), float(along(entropy, p, direction)), rtol=1e-5, atol=1e-8))
    return float(np.mean(agree)) > 0.7  # a kink may lie at some


def _shown(p: Tensor) -> str:
    return f"({', '.join(f'{x:.4g}' for x in p.tolist())})"
