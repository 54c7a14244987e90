"""Where a conditional risk is least: searches from many random starts, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gence.propriety.risk import Floats, Loss, distributions, risk_of_logits

__all__ = ["Minimisers", "find_minimisers"]

RISK_TOLERANCE = 1e-9  # a lower risk than the belief's by more than this is a counterexample


@dataclass(frozen=True)
class Minimisers:
    """What a search from S random starts found.

    Attributes:
        belief: (K,) or (N, K), what the search was for.
        points: (S, K) or (S, N, K) predictions, one for each start.
        risks: (S,) their risks.
        converged: (S,) whether the largest gradient entry fell below the tolerance; the others only stopped.

    Example:
        >>> from gence.losses import make_loss
        >>> find_minimisers(make_loss("brier"), [0.7, 0.3], n_starts=4).best.round(6).tolist()
        [0.7, 0.3]
    """

    belief: Floats
    points: Floats
    risks: Floats
    converged: NDArray[np.bool_]

    @property
    def best(self) -> Floats:
        """The point of lowest risk."""
        return self.points[self.risks.argmin()]

    @property
    def distances(self) -> Floats:
        """(S,) the largest ``|p - q|`` of each point."""
        return np.abs(self.points - self.belief).reshape(len(self.points), -1).max(1)

    @property
    def spread(self) -> float:
        """The largest ``|p - q|`` over the converged points as good as the best: 0 for a strict minimum at q."""
        good = self.converged & (self.risks <= self.risks.min() + RISK_TOLERANCE)
        return float(self.distances[good].max(initial=0.0))


def find_minimisers(
    loss: Loss,
    q: ArrayLike,
    *,
    n_starts: int = 32,
    seed: int = 0,
    scale: float = 2.0,
    tolerance: float = 1e-10,
    max_iter: int = 1000,
) -> Minimisers:
    """Minimise the conditional risk over p = softmax(z) from many random starts by L-BFGS, all starts at once.

    Args:
        loss: a loss as in :mod:`gence.propriety`.
        q: belief, (K,) or (N, K).
        n_starts: S.
        seed: of the starting logits.
        scale: standard deviation of the starting logits.
        tolerance: a start has converged when no entry of the logit gradient is larger (unit of the loss).
        max_iter: steps after which a start is given up, as not converged.

    Returns:
        A :class:`Minimisers`.

    Raises:
        ValueError: as :func:`conditional_risk`; `n_starts` < 1.

    Source: L-BFGS of Liu and Nocedal (1989), with backtracking.

    Example:
        >>> found = find_minimisers(torch.nn.CrossEntropyLoss(label_smoothing=0.1), [0.8, 0.2], n_starts=4)
        >>> found.best.round(6).tolist(), bool(found.converged.all())  # (1 - 0.1) q + 0.1 / 2
        ([0.77, 0.23], True)
    """
    q = distributions(q, "q")
    if n_starts < 1:
        raise ValueError(f"n_starts must be at least 1, but got {n_starts}")
    z = scale * torch.randn(n_starts, *q.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z, risks, slopes = lbfgs(risk_of_logits(loss, torch.from_numpy(q)), z, tolerance, max_iter)
    return Minimisers(q, z.softmax(-1).numpy(), risks.numpy(), (slopes <= tolerance).numpy())


def lbfgs(
    risk: Callable[[Tensor], Tensor],
    z: Tensor,
    tolerance: float,
    max_iter: int,
    memory: int = 20,
    keep_on: Callable[[Tensor], bool] = lambda done: True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise S independent risks side by side; return the points, their risks and largest gradient entries.

    `keep_on` is told before each step which of them are done, and says whether to take it.
    A step counts as a descent up to the rounding of the risk, so that the gradient falls far below its square root.
    """
    shape, z = z.shape, z.reshape(len(z), -1)

    def value_and_gradient(z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_()
        value = risk(z.reshape(shape))
        return value.detach(), torch.autograd.grad(value.sum(), z)[0]

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(1, keepdim=True)

    value, gradient = value_and_gradient(z)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    scale, stuck = torch.ones(len(z), 1, dtype=z.dtype), torch.zeros(len(z), dtype=torch.bool)
    for _ in range(max_iter):
        done = stuck | (gradient.abs().amax(1) <= tolerance)
        if not keep_on(done) or bool(done.all()):
            break
        step, weights = gradient.clone(), []
        for s, y, rho in reversed(history):
            weights.append(rho * dot(s, step))
            step = step - weights[-1] * y
        step = scale * step
        for (s, y, rho), weight in zip(history, reversed(weights), strict=True):
            step = step + s * (weight - rho * dot(y, step))
        step = -torch.where(dot(step, gradient) > 0, step, gradient)
        step = step * (4 / step.abs().amax(1, keepdim=True).clamp_min(4))  # no leap into the flat far field
        slope, length = dot(step, gradient)[:, 0], torch.where(done, 0.0, torch.ones_like(value))
        for _ in range(30):
            new_value, new_gradient = value_and_gradient(z + length[:, None] * step)
            slack = 4 * torch.finfo(z.dtype).eps * value.abs()
            worse = ~(new_value <= value + 1e-4 * length * slope + slack)
            if not bool(worse.any()):
                break
            length = torch.where(worse, length / 2, length)
        stuck = stuck | worse
        s, y = length[:, None] * step, new_gradient - gradient
        curvature, squares = dot(s, y), dot(y, y)
        useful = curvature > 1e-12 * (dot(s, s) * squares).sqrt()
        rho = torch.where(useful, 1 / curvature.where(useful, torch.ones_like(curvature)), 0.0)
        # Where the risk curves down, as on the plateaus of bounded losses, steps grow until it curves up again.
        scale = torch.where(useful, curvature / squares.where(useful, torch.ones_like(squares)), 4 * scale)
        scale = scale.clamp_max(1e6)
        history = [*history[-memory + 1 :], (s, y, rho)]
        z, value, gradient = z + s, new_value, new_gradient
    return z.reshape(shape), value, gradient.abs().amax(1)
