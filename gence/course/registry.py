"""Every graded exercise by its id, and the check that answers a solution."""

from __future__ import annotations

from typing import Any

from gence.course import batch, calibration, decisions, losses, repair
from gence.course.trial import Answer, Exercise
from gence.words import nearest

__all__ = ["EXERCISES", "check"]

_ROOMS = (losses, decisions, calibration, repair, batch)
EXERCISES: dict[str, Exercise] = dict(sorted((name, getattr(room, name)) for room in _ROOMS for name in room.__all__))


def check(id: str, answer: Any) -> Answer:
    """Search small cases for one at which a solution breaks a property of its exercise.

    The search is exhaustive and in a fixed order, so that the same solution gets the same answer everywhere. It calls
    the solution on copies of its inputs, in this process; what it raises becomes part of the answer.

    Args:
        id: of an exercise, as E08.
        answer: the function that the exercise asks for; what it takes stands in ``EXERCISES[id].stub``.

    Returns:
        An :class:`Answer`; ``print`` it for the property that fails, the smallest telling input, and both sides of it.

    Raises:
        ValueError: an unknown `id`. TypeError: `answer` is no function, or takes other arguments.

    Example:
        >>> from gence.course import check
        >>> print(check("E41", lambda frequencies, size: sum(x**size for x in frequencies)))
        E41 Who is missing?: not yet
          property   one draw leaves all classes but one
          input      frequencies (1/3, 1/3, 1/3), size 1
          yours      1
          should be  2
          perhaps    (1 - x)^B, that a class is missed B times, has become x^B
          read       Mini-batches, "Classes that the batch lacks" (notebooks/batch/mini_batches.html)
    """
    if id not in EXERCISES:
        raise ValueError(f"unknown exercise {id!r}. Graded are {', '.join(EXERCISES)}.{nearest(id, EXERCISES)}")
    return EXERCISES[id].judge(answer)
