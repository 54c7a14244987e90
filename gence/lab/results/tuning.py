"""Equal tuning: what a loss is given is chosen on seeds of its own, then the loss is compared on others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from gence.lab import runs
from gence.lab.results import sources

__all__ = ["trained", "tuned"]


def trained(settings: Mapping[str, Any], seeds: Iterable[int]) -> pd.DataFrame:
    """Train some seeds of a setting, and return their records without keeping them.

    Args:
        settings: parameters of a run, as in :class:`gence.lab.runs.RunParameters`.
        seeds: which are trained.

    Returns:
        As :func:`gence.lab.runs.read_records`, with ``val_error`` and ``val_nll``, the rows of ``last`` only.

    Raises:
        ParameterError: a parameter that does not exist, or a value that is not allowed.
        FloatingPointError: the training diverges.

    Example:
        >>> trained({"tier": "smoke", "n_per_class": 5}, [0, 1])["seed"].tolist()
        [0, 1]
    """
    with tempfile.TemporaryDirectory() as out:
        runs.execute(runs.RunParameters.of(**settings, seeds=list(seeds), out=out), progress=False)
        records = runs.read_records(out)
        last = records[records["checkpoint"] == "last"].reset_index(drop=True)
        return last.join(sources.on_validation(last))


def tuned(
    settings: Mapping[str, Any],
    tries: Sequence[Mapping[str, Any]],
    choose_on: Iterable[int],
    compare_on: Iterable[int],
    by: str = "val_error",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Choose one of some tries on seeds of their own, and train it on the seeds that are compared.

    Args:
        settings: what all tries share.
        tries: what is tried, for example ``{"lr": 0.1, "epochs": 20}``; the first of equally good ones is chosen.
        choose_on: seeds of which the mean of `by` decides.
        compare_on: the other seeds.
        by: a column of the records, lower is better.

    Returns:
        The records of the chosen try, and those of all tries, without the ones that diverged.

    Raises:
        ValueError: seeds that choose are compared, or every try diverges.

    Example:
        >>> settings = {"tier": "smoke", "n_per_class": 5}
        >>> compared, all_tries = tuned(settings, [{"lr": 0.01}, {"lr": 0.1}], [0], [1, 2])
        >>> len(compared), len(all_tries), compared["lr"].nunique()
        (2, 2, 1)
    """
    choose_on, compare_on = list(choose_on), list(compare_on)
    if twice := sorted({*choose_on} & {*compare_on}):
        raise ValueError(f"seeds {twice} choose and are compared: choose on other seeds")
    found, means = [], {}
    for at, one in enumerate(tries):
        try:
            records = trained({**settings, **one}, choose_on)
        except FloatingPointError:
            continue
        found.append(records)
        means[at] = records[by].mean()
    if not means:
        raise ValueError(f"every one of {len(tries)} tries diverges: add smaller learning rates")
    return trained({**settings, **tries[min(means, key=means.get)]}, compare_on), pd.concat(found, ignore_index=True)
