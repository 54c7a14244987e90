"""What a message says about a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["nearest"]


def nearest(word: object, known: Iterable[object], say: str = "; did you mean {!r}?", otherwise: str = ".") -> str:
    """Name the known word that is nearest to an unknown one, as the end of a clause; capitals do not count.

    Args:
        word: what was given.
        known: what could be given.
        say: the hint, with a place for the nearest word.
        otherwise: what to say where none is near.

    Example:
        >>> nearest("gense", ["ce", "gence"]), nearest("xyz", ["ce", "gence"]), nearest("CE", ["ce", "gence"])
        ("; did you mean 'gence'?", '.', "; did you mean 'ce'?")
    """
    spelled = {str(name).casefold(): str(name) for name in known}
    near = difflib.get_close_matches(str(word).casefold(), list(spelled), n=1, cutoff=0.4)
    return say.format(spelled[near[0]]) if near else otherwise
