"""Evidence of a page on results: ``make evidence`` trains its networks once, and the page reads what they gave.

A page names its grids and what it measures from the logits, which are too large to keep. Here both become tables: read
from ``results/pages/<page>/``, or trained anew. Both ways pass through the same text, so that the digits are the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import model_validator

from gence import metrics
from gence.lab import runs
from gence.lab.results import sources
from gence.lab.runs.parameters import NOT_IDENTITY, RECIPE_SETTINGS
from gence.words import nearest

__all__ = [
    "ORIGIN",
    "WRITE_TO",
    "PageParameters",
    "of_grids",
    "of_trainings",
    "pages_folder",
    "read_origin",
    "recorded",
]

# Counts up when the files hold something else than before.
SCHEMA = 1
HOLDS = {"schema", "page", "seeds", "networks", "tables", "runs", "provenance"}
ORIGIN = "origin.json"  # where the tables beside it come from, and their digests
SOURCES = ("records", "train")
# `make evidence` names here the folder where the tables go.
WRITE_TO = "GENCE_EVIDENCE"
# What a row of records keeps: the number of its grid on the page, its run, its seed.
GRID = "grid"
OF_ROW = [GRID, "identity", "seed"]
# What a record, or a calibrator, says beside the parameters; a page keeps of it what it shows.
MEASURED = (*metrics.METRICS, "train_error", "class_error", "best_epoch", "batch_sizes", "foreign_scores", "converged")
ELSEWHERE = ("commit", "device", "path")  # said once, in the origin, or gone with the logits

Tables = dict[str, pd.DataFrame]


class PageParameters(runs.Parameters):
    """What a page on results has: its seeds, its tier, and where its numbers come from.

    Attributes:
        seeds: as in :class:`gence.lab.runs.Parameters`.
        tier: likewise; the tier ``"smoke"`` always trains.
        source: ``"records"`` reads what ``make evidence`` recorded, ``"train"`` trains the networks of the page anew.

    Raises:
        ParameterError: from ``of`` and ``from_notebook``.

    Example:
        >>> PageParameters.of(seeds=3).source, PageParameters.of(seeds=3, tier="smoke").effective().source
        ('records', 'train')
    """

    source: str = "records"

    @model_validator(mode="before")
    @classmethod
    def _check_source(cls, given: Any) -> Any:
        value = given.get("source", SOURCES[0])
        if value not in SOURCES:
            near = nearest(value, SOURCES, say="; nearest valid: {!r}", otherwise="")
            raise ValueError(f"source = {value!r} is not allowed{near}. Allowed: {', '.join(SOURCES)}.")
        return given

    def _smoke(self) -> dict[str, Any]:
        return super()._smoke() | {"source": "train"}


def pages_folder() -> Path | None:
    """Return the folder of all pages' evidence, ``results/pages`` of the repository; None without one.

    Example:
        >>> pages_folder().name
        'pages'
    """
    folder = sources.results_folder()
    return None if folder is None else folder / "pages"


def read_origin(folder: Path) -> dict[str, Any] | None:
    """Return where the tables in a folder come from; None where none were made.

    Args:
        folder: of one page.

    Returns:
        ``schema``, ``page``, ``seeds``, ``networks``, ``tables`` (name to rows, digest and kinds of columns), ``runs``
        (identity to parameters; empty for a page that trains by its own function), ``provenance``, and, where the
        engine made them, ``code``.

    Raises:
        ValueError: a file that is damaged or of another schema.

    Example:
        >>> read_origin(Path(getfixture("tmpdir"))) is None
        True
    """
    path = folder / ORIGIN
    if not path.is_file():
        return None
    try:
        origin = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): restore it from git, or `make evidence`") from None
    if not isinstance(origin, dict) or (missing := HOLDS - set(origin)):
        lost = ", ".join(sorted(missing)) if isinstance(origin, dict) else "everything"
        raise ValueError(f"{path} lacks {lost}: restore it from git, or `make evidence`")
    if origin["schema"] != SCHEMA:
        raise ValueError(f"{path} has schema {origin['schema']}, expected {SCHEMA}: `make evidence`")
    return origin


def recorded(page: str) -> Tables:
    """Return the tables of a page as they lie in ``results/pages``, without what its grids say.

    Args:
        page: the notebook below ``notebooks/``, without its ending.

    Raises:
        ValueError: they are not there, or damaged; it says what to do.

    Example:
        >>> list(recorded("experiments/strength")["records"])
        ['grid', 'identity', 'seed', 'train_error', 'checkpoint', 'error', 'nll', 'ece']
    """
    if (above := pages_folder()) is None:
        raise ValueError(f"the evidence of {page} is part of the repository: clone it, or train with source = 'train'")
    folder, again = above / page, _how(page)
    origin = read_origin(folder)
    if origin is None:
        raise ValueError(f"there is no evidence of {page} in results/pages. {again}")
    if not origin["tables"]:
        raise ValueError(f"the evidence of {page} in results/pages holds no table. {again}")
    tables = {}
    for name, described in origin["tables"].items():
        path = folder / f"{name}.csv"
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != described["sha256"]:
            lost = "not the table that was written" if path.is_file() else "missing"
            raise ValueError(f"results/pages/{page}/{path.name} is {lost}. Restore it from git. Or: {again}")
        tables[name] = _from_text(content.decode("utf-8"), described)
    return tables


def of_grids(
    page: str,
    grids: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
    run: PageParameters,
    measure: Callable[[pd.DataFrame], Mapping[str, pd.DataFrame]] | None = None,
    *,
    columns: Sequence[str] = ("error", "nll", "ece", "train_error"),
    checkpoint: str | None = "last",
) -> Tables:
    """Return the records of a page's grids, and what the page measured from their logits.

    Args:
        page: the notebook below ``notebooks/``, without its ending.
        grids: labels and a grid, as in :func:`gence.lab.runs.expand_grid`, without seeds and tier: these are the
            page's. Labels become columns, and stand before a parameter of the same name.
        run: the page's parameters.
        measure: from the records, with ``path`` (the logits lie beside it), to tables by name. They keep the
            columns of the records and give what they add names of its own. A table ``records`` stands for the records.
        columns: what of a record's measurements is kept.
        checkpoint: ``"last"``, ``"best"`` or None for both.

    Returns:
        Tables by name, ``records`` first: identity, seed, labels, parameters, checkpoint, what was measured.

    Raises:
        ParameterError: as :func:`gence.lab.runs.expand_grid`.
        ValueError: evidence that is not there, damaged, or not of these runs; it says what to do.

    Example:
        >>> grids = [({"labels": 5}, {"fixed": {"n_per_class": 5}, "vary": {"loss": ["ce", "gence"]}})]
        >>> found = of_grids("some/page", grids, PageParameters.of(tier="smoke").effective(), columns=["error"])
        >>> found["records"].groupby("loss").size().to_dict()
        {'ce': 2, 'gence': 2}
    """
    labelled = [(dict(labels), _of_page(grid, run)) for labels, grid in grids]
    # Two grids may hold the same run: the smoke tier cuts both to as few epochs. So a row says which grid it is of.
    expanded = [(at, labels, one) for at, (labels, grid) in enumerate(labelled) for one in runs.expand_grid(grid)]
    keys = [{GRID: at, "identity": one.identity} for at, _, one in expanded]
    told = pd.DataFrame([_told(labels, one) for _, labels, one in expanded])
    told.index = pd.MultiIndex.from_frame(pd.DataFrame(keys))

    def make() -> Tables:
        with tempfile.TemporaryDirectory() as out:
            parts = [
                sources.train_grid(grid, out, progress=False).assign(**labels, **{GRID: at})
                for at, (labels, grid) in enumerate(labelled)
            ]
            records = pd.concat(parts, ignore_index=True)
            if checkpoint is not None:
                records = records[records["checkpoint"] == checkpoint].reset_index(drop=True)
            tables = {"records": records} | dict(measure(records) if measure else {})
        return {name: _kept(name, table, told, columns) for name, table in tables.items()}

    about = {one.identity: one.model_dump(mode="json", exclude=set(NOT_IDENTITY)) for *_, one in expanded}
    tables = _read_or_make(page, keys, run, make, about)
    return {name: _with_told(table, told) for name, table in tables.items()}


def of_trainings(
    page: str, keys: Iterable[Mapping[str, Any]], run: PageParameters, make: Callable[[], Mapping[str, pd.DataFrame]]
) -> Tables:
    """Return the tables of a page that trains by a function of its own.

    Args:
        page: the notebook below ``notebooks/``, without its ending.
        keys: what tells the trained networks of one seed apart, for example one ``{"loss": "ce"}`` for each loss.
        run: the page's parameters.
        make: trains all, for the seeds of the page; returns tables by name. Each has the columns of the keys, and
            ``seed``; the first has rows of all of them.

    Returns:
        The tables.

    Raises:
        ValueError: evidence that is not there, damaged, or of other trainings; it says what to do.

    Example:
        >>> run = PageParameters.of(seeds=2, source="train")
        >>> rows = [{"loss": "ce", "seed": seed, "error": seed / 3} for seed in run.seeds]
        >>> found = of_trainings("some/page", [{"loss": "ce"}], run, lambda: {"errors": pd.DataFrame(rows)})
        >>> found["errors"]["error"].tolist() == [0, 1 / 3]
        True
    """
    return _read_or_make(page, [dict(key) for key in keys], run, lambda: dict(make()), {})


def _of_page(grid: Mapping[str, Any], run: PageParameters) -> dict[str, Any]:
    """A grid with the seeds and the tier of its page."""
    return {**grid, "fixed": {**(grid.get("fixed") or {}), "tier": run.tier, "seeds": list(run.seeds)}}


def _told(labels: Mapping[str, Any], one: runs.RunParameters) -> dict[str, Any]:
    """What a record says of its parameters, and the labels."""
    effective = one.effective()
    recipe = effective.make_recipe()
    told = effective.model_dump(mode="json", exclude=set(NOT_IDENTITY))
    return told | {name: getattr(recipe, name) for name in RECIPE_SETTINGS} | labels


def _kept(name: str, table: pd.DataFrame, told: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """A table without what the grids say, and without measurements that the page does not show."""
    if missing := {*OF_ROW} - set(table):
        raise ValueError(f"the measured table {name!r} lacks {', '.join(sorted(missing))}: keep rows of the records")
    wanted = _of_rows(table, told)
    for column in told.columns.intersection(table.columns):
        if table[column].astype(str).tolist() != wanted[column].astype(str).tolist():
            raise ValueError(f"the measured table {name!r} changes {column!r}: give it a column of another name")
    dropped = {*OF_ROW, *told.columns, *ELSEWHERE, *(set(MEASURED) - set(columns))}
    return table[[*OF_ROW, *(column for column in table if column not in dropped)]].reset_index(drop=True)


def _with_told(table: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """A table with labels and parameters from the grids, behind identity and seed."""
    return pd.concat([table[["identity", "seed"]], _of_rows(table, told), table.drop(columns=OF_ROW)], axis=1)


def _of_rows(table: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """What the grids say of each row."""
    return told.loc[pd.MultiIndex.from_frame(table[[GRID, "identity"]])].reset_index(drop=True)


def _read_or_make(
    page: str,
    keys: list[dict[str, Any]],
    run: PageParameters,
    make: Callable[[], Tables],
    about: Mapping[str, Mapping[str, Any]],
) -> Tables:
    if run.source == "records":
        tables = recorded(page)
    else:
        start = time.perf_counter()
        packed = {name: _as_text(table) for name, table in make().items()}
        tables = {name: _from_text(*both) for name, both in packed.items()}
        origin = {"schema": SCHEMA, "page": page, "seeds": list(run.seeds), "networks": len(keys) * len(run.seeds)}
        origin |= {"tables": {name: described for name, (_, described) in packed.items()}, "runs": dict(about)}
        spent = round(time.perf_counter() - start, 1)
        origin["provenance"] = runs.provenance() | {"tier": run.tier, "duration_s": spent}
        if folder := os.environ.get(WRITE_TO):
            _write(Path(folder) / page, origin, {name: text for name, (text, _) in packed.items()})
    _check(page, next(iter(tables.values())), keys, run)
    return {name: table[table["seed"].isin(run.seeds)].reset_index(drop=True) for name, table in tables.items()}


# --- tables as text --------------------------------------------------------------------------------------------


def _as_text(table: pd.DataFrame) -> tuple[str, dict[str, Any]]:
    """A table as CSV with all digits, and what the CSV does not say: which columns are text, which hold lists."""
    nested = [name for name in table if table[name].map(lambda cell: isinstance(cell, list | tuple | dict)).any()]
    words = [name for name in table if name not in nested and not pd.api.types.is_numeric_dtype(table[name])]
    flat = table.assign(**{name: table[name].map(json.dumps) for name in nested})
    text = flat.to_csv(index=False, lineterminator="\n")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text, {"rows": len(table), "sha256": digest, "words": words, "nested": nested}


def _from_text(text: str, described: Mapping[str, Any]) -> pd.DataFrame:
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    numbers = [name for name in table if name not in (*described["words"], *described["nested"])]
    table = table.assign(**{name: _numbers(table[name].tolist()) for name in numbers})
    return table.assign(**{name: table[name].map(json.loads) for name in described["nested"]})


def _numbers(cells: list[str]) -> list[int] | list[float] | list[bool]:
    """Numbers from their text by Python's own reader, which loses no digit."""
    if set(cells) <= {"True", "False"}:
        return [cell == "True" for cell in cells]
    if all(cell.lstrip("-").isdecimal() for cell in cells):
        return [int(cell) for cell in cells]
    return [float(cell or "nan") for cell in cells]


def _write(folder: Path, origin: Mapping[str, Any], texts: Mapping[str, str]) -> None:
    """Write the tables, and last the origin, which knows their digests: a torn set of files is seen."""
    for name, text in texts.items():
        runs.write_atomically(folder / f"{name}.csv", text)
    runs.write_atomically(folder / ORIGIN, json.dumps(origin, indent=1) + "\n")


def _how(page: str) -> str:
    return f"Make it: `make evidence PAGE={page}`; or train now: source = 'train' (papermill: -p source train)."


def _check(page: str, table: pd.DataFrame, keys: list[dict[str, Any]], run: PageParameters) -> None:
    """Refuse evidence of other trainings than the page asks for; it may have more seeds."""
    names = list(keys[0])
    have = set(zip(*(table[name] for name in names), table["seed"], strict=True))
    found = {one[:-1] for one in have}
    asked = {tuple(key[name] for name in names) for key in keys}
    for what, left in (
        ("lacks", asked - found),
        ("has, beside what the page asks for,", found - asked),
        ("lacks seeds:", {(*key, seed) for key in asked for seed in run.seeds} - have),
    ):
        if left:
            shown = [at for at, name in enumerate((*names, "seed")) if name != GRID]
            texts = sorted({", ".join(str(one[at]) for at in shown if at < len(one)) for one in left})
            some = "; ".join(texts[:3])
            more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
            raise ValueError(f"the evidence of {page} {what} {some}{more}. {_how(page)}")
