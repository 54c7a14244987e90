"""gence: Generative Cross-Entropy (GenCE) for PyTorch, with the losses, metrics and calibrators around it.

The two names most users want are here; everything else is imported from its own room, for example
``from gence.metrics import expected_calibration_error``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["GenCELoss", "generative_cross_entropy", "make_loss"]

if TYPE_CHECKING:
    from gence.losses import GenCELoss, generative_cross_entropy, make_loss


def __getattr__(name: str):
    """Import on first use, so that tools which need no losses never wait for torch."""
    if name == "__version__":
        from importlib.metadata import version

        return version("gence")
    if name in __all__:
        from gence import losses

        return getattr(losses, name)
    raise AttributeError(f"module 'gence' has no attribute {name!r}")
