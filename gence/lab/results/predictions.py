"""Predictions that were written down before the runs, and what the runs say about them.

``book/predictions.yml`` holds the predictions with what would refute each, ``book/predictions_follow_up.yml`` those of
a second round that the first one asked for, and two more files those about photographs; ``results/`` holds the runs. A
verdict is computed and never typed; ``verdict_before`` is the one that an older rule gave to older runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from gence.lab.results import evidence, sources, statistics
from gence.lab.results.names import loss_name

__all__ = ["groups_of_classes", "judge", "load_predictions", "records_of", "terms_in_words", "variants"]

# Of the classes sorted by size: the shares of the groups in which long tails are reported.
GROUPS = {"head": (0.0, 0.3), "middle": (0.3, 0.7), "tail": (0.7, 1.0)}
FIELDS = ("id", "says", "why", "grid", "metric", "expect", "over")
LEVEL = 0.05
PILOT_SEEN = ("yes", "near", "no")
SHOWN = ("id", "says", "family", "grid", "dataset", "n_per_class", "rho", "terms", "metric", "checkpoint", "expect")
SHOWN += ("pilot_seen", "verdict_before")
MEASURED = ("difference", "typical", "low", "high", "side")
_TERM = re.compile(r"\s*([+-]?)\s*([\w:.=]+)\s*@\s*(\w+)")


def load_predictions(path: str | Path = "predictions.yml") -> list[dict[str, Any]]:
    """Read the predictions, one entry for each statement about runs.

    Args:
        path: a YAML file; where there is none, the one of this name in the repository's folder ``book``.

    Returns:
        One dictionary for each item under ``over``, with all fields of its prediction.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a field is missing, or an expectation, a sum of terms or ``pilot_seen`` cannot be read.

    Example:
        >>> path = Path(getfixture("tmpdir")) / "p.yml"
        >>> _ = path.write_text('''predictions:
        ...   - {id: P1, says: s, why: w, grid: g, metric: error, expect: "< 0", over: [{rho: 1, terms: a @ 8 - b @ 8}]}
        ... ''')
        >>> load_predictions(path)[0]["terms"]
        'a @ 8 - b @ 8'
    """
    folder = sources.results_folder()
    if not Path(path).exists() and folder is not None:
        path = folder.parent / "book" / path
    entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["predictions"]
    found = []
    for entry in entries:
        if missing := [name for name in FIELDS if not entry.get(name)]:
            raise ValueError(f"{path}: prediction {entry.get('id')!r} lacks {', '.join(missing)}")
        common = {"checkpoint": "last", "family": entry["grid"], "pilot_seen": None, "verdict_before": None}
        common |= {name: value for name, value in entry.items() if name != "over"}
        found += [common | item for item in entry["over"]]
    for item in found:
        _margin(item["expect"])
        _terms(item["terms"])
        if item["pilot_seen"] not in (None, *PILOT_SEEN):
            raise ValueError(
                f"{path}: pilot_seen = {item['pilot_seen']!r} of {item['id']} is not allowed. "
                f"Allowed, in quotation marks: {', '.join(PILOT_SEEN)}."
            )
    return found


def variants(records: pd.DataFrame) -> pd.Series:
    """Name the loss of each record together with what was varied in it, as the predictions write it.

    Args:
        records: of :func:`gence.lab.results.sources.collected` or :func:`gence.lab.runs.read_records`.

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
    """Return the mean test errors of head, middle and tail classes (30, 40 and 30 %) of each record.

    Args:
        records: with a column ``class_error``: a list of errors, that of the most frequent class first.

    Returns:
        Columns ``head``, ``middle``, ``tail``, NaN for fewer than ten classes.

    Example:
        >>> groups_of_classes(pd.DataFrame({"class_error": [[0.0] * 3 + [0.5] * 4 + [1.0] * 3]})).loc[0].tolist()
        [0.0, 0.5, 1.0]
    """
    rows = [
        {name: _mean_of_share(errors, *ends) if len(errors) >= 10 else np.nan for name, ends in GROUPS.items()}
        for errors in records["class_error"]
    ]
    return pd.DataFrame(rows, index=records.index, columns=list(GROUPS))


def _mean_of_share(errors: list[float], start: float, end: float) -> float:
    return float(np.mean(errors[round(start * len(errors)) : round(end * len(errors))]))


def records_of(grid: str) -> pd.DataFrame:
    """Return what predictions about a grid are held against.

    Args:
        grid: the name of a collected grid, or of a page with evidence, such as ``"experiments/frozen_features"``.

    Returns:
        As :func:`gence.lab.results.sources.collected`; of a page its table ``records``. Without rows where not run.

    Example:
        >>> len(records_of("no_such_grid")), len(records_of("experiments/no_such_page"))
        (0, 0)
    """
    if "/" not in grid:
        return sources.collected(grid)
    folder = evidence.pages_folder()
    made = folder is not None and evidence.read_origin(folder / grid)
    return evidence.recorded(grid)["records"] if made else pd.DataFrame()


def judge(predictions: list[dict[str, Any]], collected: Callable[[str], pd.DataFrame] = records_of) -> pd.DataFrame:
    """Hold the predictions against the records, with one correction (Holm) over each family.

    A direction (``"< 0"``, ``"> 0"``) has one two-sided test: *met* if the corrected p is below 0.05 and the difference
    on the predicted side, *refuted* if it is on the other. A margin (``"0 +- m"``) has two nulls, of which one is true:
    that the difference is at least m, and that it is less. It is *met* if the first is rejected (by two one-sided
    tests), *refuted* if the second is (by a two-sided test), at the same corrected level. Anything else is *open*.

    Ten paired seeds have a smallest two-sided p of 0.002, twenty of 0.000002: with ten, a family of up to 25
    predictions can reach a verdict in each.

    Args:
        predictions: of :func:`load_predictions`.
        collected: grid name to records.

    Returns:
        One row for each prediction: ``id``, ``says``, ``family``, ``grid``, ``dataset``, ``n_per_class``, ``rho``,
        ``terms``, ``metric``, ``checkpoint``, ``expect``, ``pilot_seen``, ``verdict_before``; ``n`` (paired seeds),
        ``difference``, ``typical``, ``low``, ``high``, ``side`` as of :func:`gence.lab.results.statistics.compare`;
        ``p``, and for a margin ``p_outside``, uncorrected; ``p_holm``, the corrected p that carries the verdict (of an
        open row, the smaller); and ``verdict``: ``"met"``, ``"refuted"``, ``"open"`` or ``"not run"``.

    Raises:
        ValueError: the runs of a sum of terms have different seeds.

    Example:
        >>> judge(load_predictions(), collected=lambda grid: pd.DataFrame())["verdict"].unique().tolist()
        ['not run']

    Source: equivalence by two one-sided tests, Schuirmann (1987), here with ranks.
    """
    tables = {grid: _prepared(collected(grid)) for grid in {item["grid"] for item in predictions}}
    table = pd.DataFrame([_row(item, tables[item["grid"]]) for item in predictions]).assign(p_holm=np.nan)
    for _, family in table[table["n"] > 0].groupby("family"):
        corrected = statistics.holm(family[["p", "p_outside"]])
        table.loc[family.index, "p_holm"] = np.nanmin(corrected, axis=1)
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    return table


def _prepared(records: pd.DataFrame) -> pd.DataFrame:
    """With the names of the variants and the errors of the groups of classes."""
    if not len(records):
        return records
    groups = groups_of_classes(records) if "class_error" in records else records[[]]
    more = groups.assign(variant=variants(records))
    return pd.concat([records.drop(columns=more.columns, errors="ignore"), more], axis=1)


def _row(item: Mapping[str, Any], records: pd.DataFrame) -> dict[str, Any]:
    row = {name: item.get(name) for name in SHOWN} | {"family": item.get("family") or item["grid"]}
    sums = _sum_of_terms(item, records)
    if sums is None:
        return row | {"n": 0} | dict.fromkeys((*MEASURED, "p", "p_outside"), np.nan)
    margin = _margin(item["expect"])
    found = statistics.compare(0 * sums, sums, margin=margin)
    row |= {name: found[name] for name in ("n", *MEASURED)}
    if margin is None:
        return row | {"p": found["p"], "p_outside": np.nan}
    sides = statistics.signed_rank_p(sums + margin, "less"), statistics.signed_rank_p(sums - margin, "greater")
    return row | {"p": found["p_equivalence"], "p_outside": min(1.0, 2 * float(min(sides)))}


def _sum_of_terms(item: Mapping[str, Any], records: pd.DataFrame) -> pd.Series | None:
    """Seed to the sum of the terms; None where a run is missing."""
    if not len(records):
        return None
    same = (records["checkpoint"] == item["checkpoint"]) & (records["rho"] == item["rho"])
    for name in ("dataset", "n_per_class"):
        if item.get(name):
            same &= records[name] == item[name]
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


def terms_in_words(terms: str) -> str:
    """Name the losses and the batches of a prediction's sum, as tables show it.

    Example:
        >>> terms_in_words("gence @ 8 - ce @ 8"), terms_in_words("gence @ 8 - gence @ full")
        ('GenCE - CE, batch 8', 'GenCE at 8 - GenCE at full')
    """
    parts = list(_terms(terms))
    batches = {batch for *_, batch in parts}
    at = "" if len(batches) == 1 else " at {}"
    words = [f"{'+' if sign > 0 else '-'} {loss_name(variant)}{at.format(batch)}" for sign, variant, batch in parts]
    text = " ".join(words).removeprefix("+ ")
    return text if at else f"{text}, " + ("full batch" if batches == {"full"} else f"batch {batches.pop()}")


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
    if row["p_holm"] >= LEVEL:
        return "open"
    wanted = {"< 0": -1, "> 0": 1}.get(row["expect"])
    as_said = row["side"] == wanted if wanted else row["p"] <= row["p_outside"]
    return "met" if as_said else "refuted"
