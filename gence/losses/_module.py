"""From a loss function with options to a module."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gence.losses._contract import check_counts

__all__ = ["FunctionalLoss"]


class FunctionalLoss(nn.Module):
    """A loss function with its options, as a module; tensors among the options move with it to a device.

    Each option of the function is an attribute and may be set later. `weight` is a buffer from the start, as in
    :class:`torch.nn.CrossEntropyLoss`: set later, it is in the state dict too.

    Args:
        function: maps logits, targets and options to a loss.
        **options: its options; the others have the defaults of the function.

    Raises:
        TypeError: an option that the function cannot do without is missing. ValueError: wrong class counts.

    Example:
        >>> import torch
        >>> from gence.losses import focal_loss
        >>> FunctionalLoss(focal_loss, gamma=1.0)
        focal_loss(gamma=1.0, reduction='mean')
    """

    def __init__(self, function: Callable[..., Tensor], **options) -> None:
        """Keep the options; see the class."""
        super().__init__()
        self.function = function
        parameters = inspect.signature(function).parameters.values()
        known = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in OF_A_BATCH}
        missing = [name for name, value in (known | options).items() if value is inspect.Parameter.empty]
        if missing:
            raise TypeError(f"{self._get_name()} needs {missing[0]}. Its options are: {', '.join(known)}.")
        if "class_counts" in options:
            check_counts(options["class_counts"])
        self.option_names = tuple({**known, **options})
        self._shown = sorted({"reduction", *options} & set(self.option_names))
        for name, value in (known | options).items():
            if name == "weight":
                value = None if value is None else torch.as_tensor(value)
            if name == "weight" or isinstance(value, Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of a batch of logits and targets."""
        options = {name: getattr(self, name) for name in self.option_names}
        if sample_weight is not None:
            options["sample_weight"] = sample_weight
        return self.function(input, target, **options)

    def _get_name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def extra_repr(self) -> str:
        """Show the options that were given."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)


OF_A_BATCH = ("input", "target", "sample_weight")
