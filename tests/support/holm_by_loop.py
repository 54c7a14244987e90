"""Holm's correction once more, for statements that are held against records without the book's statistics."""

from __future__ import annotations


def rejected(rows: list[list[float]], level: float = 0.05) -> list[list[bool]]:
    """Holm by a loop; of the hypotheses of a row at most one is true, so rows are counted that have one left."""
    left = {(i, j): p for i, row in enumerate(rows) for j, p in enumerate(row)}
    while left:
        at = min(left, key=left.get)
        if left[at] * len({i for i, _ in left}) >= level:
            break
        del left[at]
    return [[(i, j) not in left for j in range(len(row))] for i, row in enumerate(rows)]
