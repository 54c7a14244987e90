"""Predictions that were written down before the runs, and what the runs say about them.

``book/predictions.yml`` holds the predictions with what would refute each, ``book/predictions_follow_up.yml`` those of
a second round that the first one asked for; ``results/`` holds the runs. A verdict is computed and never typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from gence import reports, runs

__all__ = ["groups_of_classes", "judge", "load_predictions", "variants"]

# Of 10 classes sorted by size: the groups in which long tails are reported.
GROUPS = {"head": slice(0, 3), "middle": slice(3, 7), "tail": slice(7, 10)}
FIELDS = ("id", "says", "why", "grid", "metric", "expect", "over")
LEVEL = 0.05
_TERM = re.compile(r"\s*([+-]?)\s*([\w:.=]+)\s*@\s*(\w+)")


def load_predictions(path: str | Path = "predictions.yml") -> list[dict[str, Any]]:
    """Read the predictions, one entry for each statement about runs.

    Args:
        path: a YAML file; where there is none, the one of this name in the repository's folder ``book``.

    Returns:
        One dictionary for each item under ``over``, with all fields of its prediction.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a field is missing, or an expectation or a sum of terms cannot be read.

    Example:
        >>> path = Path(getfixture("tmpdir")) / "p.yml"
        >>> _ = path.write_text('''predictions:
        ...   - {id: P1, says: s, why: w, grid: g, metric: error, expect: "< 0", over: [{rho: 1, terms: a @ 8 - b @ 8}]}
        ... ''')
        >>> load_predictions(path)[0]["terms"]
        'a @ 8 - b @ 8'
    """
    folder = reports.results_folder()
    if not Path(path).exists() and folder is not None:
        path = folder.parent / "book" / path
    entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["predictions"]
    found = []
    for entry in entries:
        if missing := [name for name in FIELDS if not entry.get(name)]:
            raise ValueError(f"{path}: prediction {entry.get('id')!r} lacks {', '.join(missing)}")
        common = {"checkpoint": "last"} | {name: value for name, value in entry.items() if name != "over"}
        found += [common | item for item in entry["over"]]
    for item in found:
        _margin(item["expect"])
        _terms(item["terms"])
    return found


def variants(records: pd.DataFrame) -> pd.Series:
    """Name the loss of each record together with what was varied in it, as the predictions write it.

    Args:
        records: of :func:`gence.reports.collected` or :func:`gence.runs.read_records`.

    Returns:
        ``"gence"``, ``"gence:strength=0.5"``, ``"gence:balanced"`` (class-balanced batches), ...

    Example:
        >>> table = pd.DataFrame({"loss": ["gence"], "loss_options": [{"strength": 0.5}], "recipe_options": [{}]})
        >>> variants(table).tolist()
        ['gence:strength=0.5']
    """

    def name(loss: str, options: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
        parts = [f"{key}={value}" for key, value in sorted(options.items())]
        parts += ["balanced"] * (recipe.get("sampler") == "class_balanced")
        return ":".join([loss, *parts])

    columns = (records["loss"], records["loss_options"], records["recipe_options"])
    return pd.Series([name(*row) for row in zip(*columns, strict=True)], index=records.index, dtype=str)


def groups_of_classes(records: pd.DataFrame) -> pd.DataFrame:
    """Return the mean test errors of head, middle and tail classes (3, 4 and 3 of 10) of each record.

    Args:
        records: with a column ``class_error``: a list of ten errors.

    Returns:
        Columns ``head``, ``middle``, ``tail``, NaN for another number of classes.

    Example:
        >>> groups_of_classes(pd.DataFrame({"class_error": [[0.0] * 3 + [0.5] * 4 + [1.0] * 3]})).loc[0].tolist()
        [0.0, 0.5, 1.0]
    """
    rows = [
        {name: float(np.mean(errors[part])) if len(errors) == 10 else np.nan for name, part in GROUPS.items()}
        for errors in records["class_error"]
    ]
    return pd.DataFrame(rows, index=records.index, columns=list(GROUPS))


def judge(
    predictions: list[dict[str, Any]], collected: Callable[[str], pd.DataFrame] = reports.collected
) -> pd.DataFrame:
    """Hold the predictions against the records, with Holm's correction over all of them.

    A direction (``"< 0"``, ``"> 0"``) is tested with a one-sided Wilcoxon test, ``"0 +- m"`` with two of them, against
    -m and m, of which the larger p counts (a test of equivalence). A prediction is met if the corrected p is below
    0.05, and refuted if the 95 % interval of the mean lies wholly on the other side, or outside [-m, m]. Anything else
    is open.

    Args:
        predictions: of :func:`load_predictions`.
        collected: grid name to records.

    Returns:
        One row for each prediction: ``id``, ``says``, ``dataset``, ``rho``, ``terms``, ``metric``, ``checkpoint``,
        ``expect``, ``n`` (paired seeds), ``effect``, ``low``, ``high``, ``p``, ``p_holm`` and ``verdict``: ``"met"``,
        ``"refuted"``, ``"open"`` or ``"not run"``.

    Raises:
        ValueError: the runs of a sum of terms have different seeds.

    Example:
        >>> judge(load_predictions(), collected=lambda grid: pd.DataFrame())["verdict"].unique().tolist()
        ['not run']

    Source: equivalence by two one-sided tests, Schuirmann (1987), here with ranks.
    """
    tables = {grid: _prepared(collected(grid)) for grid in {item["grid"] for item in predictions}}
    table = pd.DataFrame([_row(item, tables[item["grid"]]) for item in predictions])
    tested = table["p"].notna()
    table["p_holm"] = np.nan
    if tested.any():
        table.loc[tested, "p_holm"] = runs.holm(table.loc[tested, "p"])
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    return table


def _prepared(records: pd.DataFrame) -> pd.DataFrame:
    """With the names of the variants and the errors of the groups of classes."""
    if not len(records):
        return records
    more = groups_of_classes(records).assign(variant=variants(records))
    return pd.concat([records.drop(columns=more.columns, errors="ignore"), more], axis=1)


def _row(item: Mapping[str, Any], records: pd.DataFrame) -> dict[str, Any]:
    names = ("id", "says", "grid", "dataset", "rho", "terms", "metric", "checkpoint", "expect")
    row = {name: item.get(name) for name in names}
    sums = _sum_of_terms(item, records)
    if sums is None:
        return row | {"n": 0} | dict.fromkeys(("effect", "low", "high", "p"), np.nan)
    margin = _margin(item["expect"])
    if margin is None:
        p = _p_value(sums, "less" if item["expect"] == "< 0" else "greater")
    else:
        p = max(_p_value(sums - margin, "less"), _p_value(sums + margin, "greater"))
    found = runs.compare(0 * sums, sums)
    return row | {"n": found["n"], "effect": found["difference"], "low": found["low"], "high": found["high"], "p": p}


def _p_value(values: pd.Series, alternative: str) -> float:
    return runs.compare(0 * values, values, alternative=alternative)["p"]


def _sum_of_terms(item: Mapping[str, Any], records: pd.DataFrame) -> pd.Series | None:
    """Seed to the sum of the terms; None where a run is missing."""
    if not len(records):
        return None
    same = (records["checkpoint"] == item["checkpoint"]) & (records["rho"] == item["rho"])
    if item.get("dataset"):
        same &= records["dataset"] == item["dataset"]
    total: pd.Series | None = None
    for sign, variant, size in _terms(item["terms"]):
        chosen = records[same & (records["variant"] == variant) & (records["batch_size"].astype(str) == size)]
        if not len(chosen):
            return None
        values = sign * chosen.set_index("seed")[item["metric"]].sort_index()
        if total is not None and not total.index.equals(values.index):
            raise ValueError(f"{item['id']}, {item['terms']}: the runs have different seeds")
        total = values if total is None else total + values
    return total


def _terms(text: str) -> Iterator[tuple[int, str, str]]:
    """'a @ 8 - b @ full' -> (1, 'a', '8'), (-1, 'b', 'full')."""
    found, at = [], 0
    while at < len(text.rstrip()):
        term = _TERM.match(text, at)
        if term is None or (found and not term[1]):
            raise ValueError(f"cannot read {text!r}: write terms as 'gence @ 16 - ce @ 16'")
        found.append((-1 if term[1] == "-" else 1, term[2], term[3]))
        at = term.end()
    if not found:
        raise ValueError("a prediction needs terms, for example 'gence @ 16 - ce @ 16'")
    return iter(found)


def _margin(expect: str) -> float | None:
    """The margin of '0 +- 0.01'; None for '< 0' and '> 0'."""
    if expect in ("< 0", "> 0"):
        return None
    equal = re.fullmatch(r"0 \+- (\d+(?:\.\d+)?)", expect)
    if equal is None:
        raise ValueError(f"expect = {expect!r} is not allowed. Allowed: '< 0', '> 0', or a margin as '0 +- 0.01'.")
    return float(equal[1])


def _verdict(row: Mapping[str, Any]) -> str:
    if row["n"] == 0:
        return "not run"
    if row["p_holm"] < LEVEL:
        return "met"
    margin = _margin(row["expect"])
    above = row["low"] > (margin or 0.0) and row["expect"] != "> 0"
    below = row["high"] < -(margin or 0.0) and row["expect"] != "< 0"
    return "refuted" if above or below else "open"
