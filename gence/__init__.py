"""gence: Generative Cross-Entropy (GenCE) for PyTorch, and the small module the GenCE book shares.

The two names most users want are here; everything else is imported from its own room, for example
``from gence.metrics import expected_calibration_error``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["GenCELoss", "generative_cross_entropy", "make_loss"]

if TYPE_CHECKING:
    from gence.losses import GenCELoss, generative_cross_entropy, make_loss


def __getattr__(name: str):
    """Import the losses on first use, so that tools which only need ``gence.runs`` never wait for torch."""
    if name in __all__:
        from gence import losses

        return getattr(losses, name)
    raise AttributeError(f"module 'gence' has no attribute {name!r}")
