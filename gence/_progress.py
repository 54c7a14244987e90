"""Progress bars, where tqdm is installed: the laboratory brings it, the library does without."""

from __future__ import annotations

from typing import Any

try:
    from tqdm import tqdm
except ImportError:

    class tqdm:
        """What the library uses of tqdm's bar, and shows nothing."""

        def __init__(self, iterable: Any = (), **options: Any) -> None:
            """Keep the iterable; count from 0."""
            self.iterable = iterable
            self.n = 0

        def __iter__(self):
            """Pass the iterable on."""
            return iter(self.iterable)

        def __enter__(self):
            """Nothing to open."""
            return self

        def __exit__(self, *error: Any) -> None:
            """Nothing to close."""

        def update(self, n: int = 1) -> None:
            """Count."""
            self.n += n


__all__ = ["tqdm"]
