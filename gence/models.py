"""The networks, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["MLP", "make_model", "model_names"]


class MLP(nn.Module):
    """Multi-layer perceptron with ReLU units: (N, n_features) to logits (N, n_classes).

    Args:
        n_features: width of the input.
        n_classes: K.
        hidden: widths of the hidden layers; empty gives a linear model.

    Example:
        >>> MLP(64, 10)(torch.zeros(3, 64)).shape
        torch.Size([3, 10])
    """

    def __init__(self, n_features: int, n_classes: int, hidden: Sequence[int] = (64,)) -> None:
        """Build the layers with PyTorch's default initialisation; see the class."""
        super().__init__()
        layers: list[nn.Module] = []
        width = n_features
        for units in hidden:
            layers += [nn.Linear(width, units), nn.ReLU()]
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of flat inputs."""
        return self.layers(x)


_MODELS: dict[str, Callable[[int, int], nn.Module]] = {
    "mlp": MLP,
    "linear": lambda n_features, n_classes: MLP(n_features, n_classes, hidden=()),
}


def model_names() -> tuple[str, ...]:
    """Return the names that :func:`make_model` knows.

    Example:
        >>> "mlp" in model_names()
        True
    """
    return tuple(_MODELS)


def make_model(name: str, n_features: int, n_classes: int, seed: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Build a network whose initial weights depend on the seed alone.

    Args:
        name: one of :func:`model_names`.
        n_features: width of the input.
        n_classes: K.
        seed: fixes the initial weights; the global random state is left untouched.
        dtype: float64 by default: small models run in it on the CPU, so that runs agree to many digits.

    Returns:
        The network on the CPU.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> a, b = (make_model("mlp", 4, 3, seed=7) for _ in range(2))
        >>> all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
        True
    """
    if name not in _MODELS:
        raise ValueError(f"unknown model {name!r}. The models are: {', '.join(_MODELS)}.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too, for good
        return _MODELS[name](n_features, n_classes).to(dtype)
