"""Tables of the pages on results: means with their spread, the paper's cells beside ours.

The printed tables of the GenCE paper are in ``results/paper/tables.csv``. A cell that was not run says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:  # notebooks have it; whoever only trains need not
    from IPython.display import Markdown
from gence.lab.results.sources import BINNED, PAPER_NAMES, ats_column

__all__ = ["NOT_RUN", "OOD_SCORE", "beside_paper", "markdown", "mean_sd"]

NOT_RUN = "not run"
DASH = "–"
# Table 5 names the foreign data where other tables name the data set; its networks are those of CIFAR-10.
OOD_METRIC, OOD_DATASET, OOD_SCORE = "OOD_AUROC", "CIFAR-10", "entropy"


def markdown(
    table: pd.DataFrame | Iterable[Mapping[str, Any]], *, index: bool = False, labels: Sequence[str] | None = None
) -> Markdown:
    """Show a table in a notebook, its numbers as they are written; what is missing stays empty.

    "not run" is said once, below the table: rows and columns that hold nothing else are left out, and a dash marks a
    single cell.

    Args:
        table: a data frame, or one mapping for each row; a row may lack columns.
        index: show the names of the rows too.
        labels: columns that say what a row is; None means those to the left of the first "not run" in which no number
            has a decimal point.

    Example:
        >>> print(markdown([{"loss": "CE", "error": "1.50"}, {"loss": "GenCE"}]).data)
        | loss   | error   |
        |:-------|:--------|
        | CE     | 1.50    |
        | GenCE  |         |
        >>> rows = [{"loss": "CE", "a": "1.5", "b": "not run"}, {"loss": "GenCE", "a": "not run", "b": "not run"}]
        >>> print(markdown(rows).data)
        | loss   | a   |
        |:-------|:----|
        | CE     | 1.5 |
        <BLANKLINE>
        Not run: 3 of 4 cells (all of GenCE; all of b).
    """
    from IPython.display import Markdown

    frame = pd.DataFrame(table)
    if frame.isna().any(axis=None):
        frame = frame.astype(object).where(frame.notna(), "")
    frame, sentence = _said_once(frame, labels, index)
    text = frame.to_markdown(index=index, disable_numparse=True) if len(frame) else ""
    return Markdown("\n\n".join(filter(None, [text, sentence])))


def _said_once(frame: pd.DataFrame, labels: Sequence[str] | None, index: bool) -> tuple[pd.DataFrame, str]:
    """The table without rows and columns of nothing but "not run", and a sentence that says so."""
    missing = frame == NOT_RUN
    if not missing.any(axis=None):
        return frame, ""
    first = int(np.argmax(missing.any(axis=0)))
    if labels is None:
        numbers = frame.astype(str).apply(lambda column: column.str.contains(r"\d\.\d").any())
        labels = [name for name in frame.columns[:first] if not numbers[name]]
    is_label = frame.columns.isin(labels)
    values, gaps = frame.loc[:, ~is_label], missing.loc[:, ~is_label]
    nothing = gaps | values.isin(["", "-"])
    rows = nothing.all(axis=1) & gaps.any(axis=1)
    names = frame.index[rows] if index else frame.loc[rows, is_label].iloc[:, :1].squeeze(axis=1)
    left = nothing[~rows]
    columns = list(left.columns[left.all(axis=0) & gaps[~rows].any(axis=0)]) if len(left) else []
    parts = [f"all of {', '.join(dict.fromkeys(map(str, part)))}" for part in (names, columns) if len(part)]
    shown = frame[~rows].drop(columns=columns)
    if (shown == NOT_RUN).any(axis=None):
        shown = shown.replace(NOT_RUN, DASH)
        parts.append(f"and those with {DASH}" if parts else DASH)
    count, of = int(gaps.sum(axis=None)), gaps.size - int((nothing & ~gaps).sum(axis=None))
    which = f" ({'; '.join(parts)})" if parts else ""
    return shown, f"Not run: {count} of {of} cells{which}."


def mean_sd(values: Sequence[float], *, scale: float = 100.0, digits: int = 2) -> str:
    """Write a mean with its standard deviation; without values say "not run".

    Args:
        values: one for each seed.
        scale: 100 writes fractions in per cent.
        digits: after the point.

    Example:
        >>> mean_sd([0.10, 0.12]), mean_sd([0.1]), mean_sd([])
        ('11.00 (1.41)', '10.00', 'not run')
    """
    values = scale * np.asarray(values, dtype=float)
    if len(values) == 0:
        return NOT_RUN
    spread = f" ({values.std(ddof=1):.{digits}f})" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def beside_paper(
    cells: pd.DataFrame,
    ours: pd.DataFrame,
    *,
    by: Sequence[str] = ("dataset", "model", "loss"),
    checkpoint: str = "last",
) -> pd.DataFrame:
    """Put the paper's cells beside the means of our full-tier runs of the same setting.

    Equal stands beside equal: a calibration error that the paper states after ATS (``ats_bins`` is set) stands beside
    ours after ATS with as many bins, one without (``ats_bins`` is NaN) beside ours before any calibration, both with
    the paper's 20 bins; an OOD AUROC beside that of the same foreign images and score, the entropy. Training times
    have no unit in the paper, so nothing stands beside them.

    Args:
        cells: of :func:`paper_cells`, of one metric.
        ours: records, for example of :func:`collected`; may be empty.
        by: columns that make a setting.
        checkpoint: which of ours.

    Returns:
        One row for each cell, as text: `by`, ``paper`` (mean, standard deviation in brackets), ``paper n``, ``ours``,
        ``n``. A misread cell of the paper carries a question mark where its reading is uncertain.

    Raises:
        ValueError: cells of several metrics.

    Example:
        >>> from gence.lab.results.sources import paper_cells
        >>> cells = paper_cells(1, dataset="CIFAR-10", model="ResNet-50")
        >>> table = beside_paper(cells, pd.DataFrame())
        >>> table["loss"].tolist()[:2], set(table["ours"])
        (['CE', 'Brier'], {'not run'})
    """
    if cells["metric"].nunique() != 1:
        raise ValueError(f"cells of one metric are needed, but got {sorted(set(cells['metric']))}")
    full = ours if ours.empty else ours[(ours["tier"] == "full") & (ours["checkpoint"] == checkpoint)]
    lines = []
    for cell in cells.to_dict("records"):
        values = _values_for(cell, _of_setting(cell, full, by))
        printed = "-" if np.isnan(cell["mean"]) else f"{cell['mean']:.2f}"
        printed += "" if np.isnan(cell["std"]) else f" ({cell['std']:.2f})"
        printed += " ?" if cell["reading"] == "uncertain" else ""
        lines.append(
            {name: f"{cell[name]:g}" if isinstance(cell[name], float) else cell[name] for name in by}
            | {"paper": printed, "paper n": cell["n_runs"], "ours": mean_sd(values), "n": len(values)}
        )
    return pd.DataFrame(lines)


def _of_setting(cell: Mapping[str, Any], ours: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Our rows of the setting of a printed cell."""
    wanted = {**cell, "dataset": OOD_DATASET} if cell["metric"] == OOD_METRIC else cell
    for name in () if ours.empty else by:
        words = PAPER_NAMES.get(name, {})
        ours = ours[[words.get(value, value) == wanted[name] for value in ours[name]]]
    return ours


def _values_for(cell: Mapping[str, Any], same: pd.DataFrame) -> list[float]:
    """Our values of what a printed cell measures, of those runs that have one."""
    if same.empty:
        return []
    if cell["metric"] == OOD_METRIC:
        return list(_auroc(same["foreign_scores"], cell["dataset"])) if "foreign_scores" in same else []
    column = _our_column(cell)
    return [] if column not in same else same[column].dropna().tolist()


def _our_column(cell: Mapping[str, Any]) -> str | None:
    """The column of collected records that holds what a printed cell measures; None where none does."""
    metric = {theirs: name for name, theirs in PAPER_NAMES["metric"].items()}.get(cell["metric"])
    if metric not in BINNED:
        return metric  # ATS changes no prediction, so an error is the same before and after
    bins = cell["ats_bins"]
    return f"raw_{metric}" if np.isnan(bins) else f"{ats_column(int(bins))}_{metric}"


def _auroc(scores: Iterable[Mapping[str, Any]], foreign: str) -> Iterable[float]:
    """Our AUROC on foreign images in the paper's words."""
    names = {theirs: name for name, theirs in PAPER_NAMES["foreign"].items()}
    for of_run in scores:
        if found := of_run.get(names.get(foreign, "")):
            yield found[OOD_SCORE]["auroc"]
