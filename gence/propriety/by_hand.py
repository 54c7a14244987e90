"""Reading a loss: a module of logits, as the library has them, or a function of (p, label) written by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gence.propriety.risk import Floats, couples_samples, with_reduction

__all__ = ["BinaryLoss", "along", "on_logits", "reading", "slope_of"]

# A module (make_loss, torch.nn.CrossEntropyLoss) takes logits and targets; any other callable takes the probabilities
# of one sample and its label, and returns one number.
HandLoss = Callable[[Any, int], Any]
AnyLoss = nn.Module | HandLoss

# Central differences of order eight: steps of h to the right and their weights; those to the left have the other sign.
_STEPS = np.arange(1, 5)
_WEIGHTS = np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280])
# Where autograd is compared with differences: nowhere that a loss written by hand is likely to have a kink.
_PROBES = np.array([0.07, 0.13, 0.23, 0.31, 0.42, 0.58, 0.66, 0.79, 0.88, 0.95])


def on_logits(loss: HandLoss, reduction: str = "mean") -> nn.Module:
    """Make a module of logits and targets of a loss written by hand, for a training or :func:`is_strictly_proper`.

    Args:
        loss: maps the probabilities p (K,) of one sample and its label, an int, to one number, by operations of
            torch. For two classes it may take the probability of class 1 instead: see :func:`weight_function`.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        A module that maps logits (N, K) and labels (N,) to the loss of ``softmax(logits)``.

    Raises:
        TypeError: `loss` is a module already. ValueError: an unknown `reduction`; on a batch, a loss that leaves torch
            on the way, so that no gradient comes back.

    Example:
        >>> from gence.propriety import is_strictly_proper
        >>> spherical = on_logits(lambda p, label: 1 - p[label] / p.norm())
        >>> is_strictly_proper(spherical, 3).strictly
        True
    """
    if isinstance(loss, nn.Module):
        raise TypeError(f"{type(loss).__name__} is a module and takes logits already; use it as it is")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', but got {reduction!r}")
    return _OnLogits(loss, reduction)


class _OnLogits(nn.Module):
    def __init__(self, loss: HandLoss, reduction: str) -> None:
        super().__init__()
        self.loss, self.reduction = loss, reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        p = input.softmax(-1)
        read = reading(lambda p: self.loss(p, 0), p.shape[1])
        values = p.new_zeros(len(p))
        for label in target.unique().tolist():
            rows = (target == label).nonzero()[:, 0]
            found = _side_by_side(lambda row, label=label: self.loss(read(row), label), p[rows])
            values = values.index_put((rows,), found.to(p.dtype))
        if input.requires_grad and not values.requires_grad and len(values.unique()) > 1:
            raise ValueError(
                "no gradient comes back from this loss. Write it with operations of torch (torch.log, not math.log or "
                "np.log); a loss that is constant between jumps has none."
            )
        return {"mean": torch.mean, "sum": torch.sum, "none": lambda v: v}[self.reduction](values)


def _side_by_side(loss: Callable[[Tensor], Any], p: Tensor) -> Tensor:
    """One value for each row, in one sweep where the function allows it, else row by row."""
    try:
        return torch.vmap(lambda row: loss(row).reshape(()))(p)
    except Exception:  # a branch on p, a number of Python, an integral: whatever it is, row by row shows it
        return torch.stack([_number(loss(row), p) for row in p])


def _number(value: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype).reshape(())


def reading(function: Callable[[Any], Any], n_classes: int) -> Callable[[Tensor], Any]:
    """Find out what a function written by hand takes: all K probabilities or that of class 1, of torch or of NumPy.

    Returns what makes that argument of a tensor (K,). Raises a ValueError where the function takes none of them.
    """
    p = torch.full((n_classes,), 1 / n_classes, dtype=torch.float64)
    arguments: dict[str, Callable[[Tensor], Any]] = {
        "the vector p of all classes": lambda p: p,
        "p as an array of NumPy": lambda p: p.detach().numpy(),
    }
    if n_classes == 2:
        arguments["the probability of class 1"] = lambda p: p[1]
        arguments["that as a number of NumPy"] = lambda p: p.detach().numpy()[1]
    problems = []
    for name, argument in arguments.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)  # NumPy's at a tensor
                size = torch.as_tensor(function(argument(p))).numel()
            if size == 1:
                return argument
            problems.append(f"{name} gives {size} numbers, not one")
        except Exception as error:  # whatever it raises says that it does not take this
            problems.append(f"{name} gives {type(error).__name__}: {error}")
    raise ValueError(
        f"the function cannot be evaluated for {n_classes} classes. It must take p, and for a loss the label too, and "
        f"return one number, but {'; '.join(problems)}. A loss of logits must be a torch.nn.Module."
    )


class BinaryLoss:
    """The two partial losses of a loss for two classes, and their slopes, at probabilities c of class 1.

    Slopes come from autograd where that agrees with differences of the values, which it does not where a loss
    leaves torch or detaches a part; then they are the differences, of order eight.
    """

    def __init__(self, loss: AnyLoss) -> None:
        """Find out how the loss takes its arguments; a ValueError where it cannot judge two classes."""
        self._of_tensor = _of_logits(loss) if isinstance(loss, nn.Module) else _of_probabilities(loss)
        self._exact = self._autograd_is_right()

    def values(self, c: Floats) -> Floats:
        """Of n probabilities the (n, 2) losses with label 0 and 1; a ValueError for NaN, and for inf inside (0, 1)."""
        with torch.no_grad():
            found = self._of_tensor(torch.from_numpy(np.atleast_1d(np.asarray(c, dtype=np.float64)))).numpy()
        inside = ((c > 0) & (c < 1))[:, None]
        wrong = np.isnan(found) | (np.isinf(found) & inside)
        if wrong.any():
            i, label = np.argwhere(wrong)[0]
            raise ValueError(f"the loss is {found[i, label]} at p = ({1 - c[i]:.6g}, {c[i]:.6g}) with label {label}")
        return found

    def slopes(self, c: Floats) -> Floats:
        """The (n, 2) derivatives of the partial losses in c, inside (0, 1)."""
        found = self._autograd(c) if self._exact else slope_of(self.values, c)
        if not np.isfinite(found).all():
            i, label = np.argwhere(~np.isfinite(found))[0]
            raise ValueError(f"the slope of the loss is {found[i, label]} at c = {c[i]:.6g} with label {label}")
        return found

    def risks(self, c: Floats, q: Floats) -> Floats:
        """The expected loss of the forecast c under the belief q in class 1, elementwise."""
        values, belief = self.values(c), np.stack([1 - q, q], axis=-1)
        return np.where(belief > 0, belief * np.where(belief > 0, values, 0.0), 0.0).sum(-1)

    def _autograd(self, c: Floats) -> Floats:
        x = torch.from_numpy(np.array(c, dtype=np.float64)).requires_grad_()
        with torch.enable_grad():  # also inside torch.no_grad, where slopes would be 0 without a word
            columns = self._of_tensor(x).unbind(-1)
            slopes = [
                torch.autograd.grad(v.sum(), x, retain_graph=True)[0] if v.requires_grad else torch.zeros_like(x)
                for v in columns
            ]
        return torch.stack(slopes, dim=-1).numpy()

    def _autograd_is_right(self) -> bool:
        differences = slope_of(self.values, _PROBES)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, where a loss makes a plain number of a tensor
                exact = self._autograd(_PROBES)
        except Exception:  # a tensor with a gradient is refused by NumPy and others, each in its own way
            return False
        agree = np.isclose(exact, differences, rtol=1e-5, atol=1e-8).all(-1)
        return bool(agree.mean() >= 0.8)  # a kink near one probe spoils the differences there


def slope_of(function: Callable[[Floats], Floats], c: Floats) -> Floats:
    """Derivative of a function of probabilities inside (0, 1), (n,) to (n, m), by central differences of order 8."""
    h = 0.01 * np.minimum(c, 1 - c)
    points = c + _STEPS[:, None] * h, c - _STEPS[:, None] * h
    right, left = (function(x.ravel()).reshape(len(_STEPS), len(c), -1) for x in points)
    return np.tensordot(_WEIGHTS, right - left, 1) / h[:, None]


def _of_logits(loss: nn.Module) -> Callable[[Tensor], Tensor]:
    try:
        coupled = couples_samples(loss, 2)
    except Exception as error:
        raise ValueError(f"the loss cannot be evaluated for two classes: {error}") from error
    if coupled:
        raise ValueError(
            "this loss couples the samples of a batch: it has no price for one forecast. Use a loss that judges each "
            "sample alone."
        )
    each = with_reduction(loss, "none")

    def values(c: Tensor) -> Tensor:
        z = torch.stack([torch.log1p(-c), torch.log(c)], dim=-1)
        return torch.stack([each(z, torch.full((len(c),), k)) for k in (0, 1)], dim=-1)

    return values


def _of_probabilities(loss: HandLoss) -> Callable[[Tensor], Tensor]:
    read = reading(lambda p: loss(p, 1), 2)

    def values(c: Tensor) -> Tensor:
        rows = torch.stack([1 - c, c], dim=-1)
        return torch.stack([torch.stack([_number(loss(read(p), k), c) for k in (0, 1)]) for p in rows])

    return values


def along(function: Callable[[Tensor], Tensor], p: Tensor, direction: Tensor) -> Tensor:
    """Slope of a function of probabilities (K,) from p towards p + direction, by central differences of order 8."""
    moves = direction != 0
    if not bool(moves.any()):
        return torch.zeros((), dtype=p.dtype)
    h = 0.01 * float((p[moves] / direction[moves].abs()).min())
    if h <= 0:
        raise ValueError(
            f"the slope at the edge of the simplex, p = {p.tolist()}, needs a function written with operations of torch"
        )
    with torch.no_grad():
        right, left = (torch.stack([function(p + sign * h * t * direction) for t in _STEPS]) for sign in (1, -1))
        return (torch.from_numpy(_WEIGHTS) * (right - left)).sum() / h
