"""From a grid of parameters to runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from gence.lab.runs._messages import ParameterError, nearest_allowed
from gence.lab.runs.parameters import RunParameters

__all__ = ["expand_grid", "grid_settings"]


def expand_grid(grid: Mapping[str, Any]) -> list[RunParameters]:
    """Turn a grid into its runs: the fixed parameters, times every combination of the varied ones.

    Args:
        grid: ``{"fixed": {name: value}, "vary": {name: [values]}}``, as in a YAML file of ``workflow/grids``. Names
            that vary together stand in one key, separated by commas, and each value is then a list of theirs.

    Returns:
        One :class:`RunParameters` for each combination, in the order written.

    Raises:
        ParameterError: an unknown section or parameter, a value that is not allowed, the same run twice.

    Example:
        >>> [run.loss for run in expand_grid({"fixed": {"seeds": 2}, "vary": {"loss": ["ce", "gence"]}})]
        ['ce', 'gence']
        >>> together = {"batch_size, epochs": [[16, 40], ["full", 200]], "rho": [1, 50]}
        >>> [(run.batch_size, run.epochs, run.rho) for run in expand_grid({"vary": together})]
        [(16, 40, 1.0), (16, 40, 50.0), ('full', 200, 1.0), ('full', 200, 50.0)]
    """
    runs = [RunParameters.of(**settings) for settings in grid_settings(grid)]
    names = [run.identity for run in runs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ParameterError(f"the grid holds the same run more than once: {', '.join(sorted(twice))}")
    return runs


def grid_settings(grid: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a grid says of each of its runs, whether or not such a run exists.

    Args:
        grid: as in :func:`expand_grid`.

    Raises:
        ParameterError: an unknown section, a parameter set twice, a key of `vary` without its list of values.

    Example:
        >>> grid_settings({"fixed": {"seeds": 2}, "vary": {"loss": ["my_own"], "batch_size, lr": [[16, 0.1]]}})
        [{'seeds': 2, 'loss': 'my_own', 'batch_size': 16, 'lr': 0.1}]
    """
    for section in grid:
        if section not in ("fixed", "vary"):
            raise ParameterError(
                f"unknown grid section {section!r}{nearest_allowed(section, ['fixed', 'vary'])}. Allowed: fixed, vary."
            )
    fixed, vary = grid.get("fixed") or {}, grid.get("vary") or {}
    for section, content in (("fixed", fixed), ("vary", vary)):
        if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
            raise ParameterError(f"the grid section {section} must hold names and values, but is {content!r}")
    choices = [list(_choices(key, values)) for key, values in vary.items()]
    set_by = [*fixed, *(name for choice in choices for name in choice[0])]
    if twice := sorted({name for name in set_by if set_by.count(name) > 1}):
        raise ParameterError(f"the grid sets {', '.join(twice)} more than once: in fixed or in vary, and there once")
    return [
        {**fixed, **{name: value for part in chosen for name, value in part.items()}}
        for chosen in itertools.product(*choices)
    ]


def _choices(key: str, values: Any) -> Iterator[dict[str, Any]]:
    """The choices of one key of `vary`: one name, or several that vary together."""
    names = re.split(r"\s*,\s*", key.strip())
    if not isinstance(values, list):
        raise ParameterError(f"vary.{key} must be a list of values, but is {values!r}. Write [{values!r}].")
    if not values:
        raise ParameterError(
            f"vary.{key} is an empty list, so the grid would hold no run. Name a value, or leave it out."
        )
    for value in values:
        row = [value] if len(names) == 1 else value
        if not isinstance(row, list) or len(row) != len(names):
            raise ParameterError(f"vary.{key!r} needs a list of {len(names)} values each time, but has {row!r}.")
        yield dict(zip(names, row, strict=True))
