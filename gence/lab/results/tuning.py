"""Trained for a comparison and not kept: settings, equal tuning on seeds of its own, and inputs beside the test set."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gence.lab import data, runs, training
from gence.lab.results import sources

__all__ = ["trained", "trained_on_more", "tuned"]


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


def trained_on_more(
    settings: Mapping[str, Any], seeds: Iterable[int], more: Mapping[str, NDArray[Any]]
) -> list[tuple[data.Splits, training.Outcome, dict[str, NDArray[np.floating[Any]]]]]:
    """Train some seeds of a setting, and ask the trained networks about more inputs than the test set.

    Args:
        settings: parameters of a run, as in :class:`gence.lab.runs.RunParameters`.
        seeds: which are trained.
        more: name to inputs (n, ...) of the shape of the test inputs, such as noisy or foreign images.

    Returns:
        For each seed its splits, its outcome, whose test logits go on behind the test set, and the logits (n, K) after
        the last epoch by name: ``val``, ``test``, and those of `more`.

    Raises:
        ParameterError: a parameter that does not exist, or a value that is not allowed.
        ValueError: inputs of another shape, or under the name of a split.
        FloatingPointError: the training diverges.

    Example:
        >>> settings = {"tier": "smoke", "n_per_class": 5}
        >>> [(splits, _, logits)] = trained_on_more(settings, [0], {"black": np.zeros((3, 64))})
        >>> len(splits.y_test) == len(logits["test"]), logits["black"].shape
        (True, (3, 10))
    """
    if taken := {"train", "val", "test"} & set(more):
        raise ValueError(f"more inputs may not be named {', '.join(sorted(taken))}: these are the splits themselves")
    run = runs.RunParameters.of(**settings, seeds=list(seeds)).effective()
    splits, nets, *how = runs.prepare(run, run.seeds)
    longer = [_with_more(split, more) for split in splits]
    if run.trains_together:
        outcomes = training.train_many(nets, longer, *how, run.seeds, progress=False)
    else:
        each = zip(nets, longer, run.seeds, strict=True)
        outcomes = [training.train(net, split, *how, seed, progress=False) for net, split, seed in each]
    return [(split, outcome, _by_name(split, outcome, more)) for split, outcome in zip(splits, outcomes, strict=True)]


def _with_more(split: data.Splits, more: Mapping[str, NDArray[Any]]) -> data.Splits:
    """The inputs behind those of the test set, under labels that nobody reads."""
    for name, x in more.items():
        if x.shape[1:] != split.x_test.shape[1:]:
            raise ValueError(f"{name!r} holds inputs of the shape {x.shape[1:]}, but needs {split.x_test.shape[1:]}")
    x = np.concatenate([split.x_test, *more.values()])
    return replace(split, x_test=x, y_test=np.resize(split.y_test, len(x)))


def _by_name(
    split: data.Splits, outcome: training.Outcome, more: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.floating[Any]]]:
    last = outcome.logits["last"]
    cuts = np.cumsum([len(split.y_test), *map(len, more.values())])[:-1]
    return {"val": last["val"]} | dict(zip(("test", *more), np.split(last["test"], cuts), strict=True))


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
