"""What the pages on results share: a grid trained on the spot, calibration afterwards, the paper's cells beside ours.

Numbers come from records (`gence.runs`) and from ``results/paper/tables.csv``, the printed tables of the GenCE paper.
A cell that was not run says so.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

from gence import calibration, metrics, runs

if TYPE_CHECKING:  # notebooks have it; whoever only trains need not
    from IPython.display import Markdown

__all__ = [
    "NOT_RUN",
    "benchmark_records",
    "beside_paper",
    "calibrated",
    "calibrated_columns",
    "collected",
    "markdown",
    "mean_sd",
    "paper_cells",
    "recalibrate",
    "results_folder",
    "train_grid",
]

NOT_RUN = "not run"
DASH = "–"
# The paper's words for what our records call otherwise.
PAPER_NAMES: dict[str, dict[str, str]] = {
    "dataset": {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "tiny_imagenet": "Tiny-ImageNet", "av1451": "AV1451"},
    "model": {
        "resnet50": "ResNet-50",
        "resnet50_tiny": "ResNet-50",
        "resnet110_reference": "ResNet-110",
        "resnet110_tiny": "ResNet-110",
        "wrn28_10_reference": "Wide-ResNet",
        "densenet121": "DenseNet-121",
        "mlp": "MLP",
    },
    "loss": {
        "ce": "CE",
        "brier": "Brier",
        "mmce_w": "MMCE",
        "flsd_53": "FLSD",
        "dual_focal": "DFL",
        "adafocal": "AFL",
        "gence": "GenCE",
        "gence_adafocal": "AFL+GenCE",
    },
    "metric": {"error": "test_error", "ece": "ECE", "adaece": "AdaECE", "classwise_ece": "ClasswiseECE"},
    "foreign": {"svhn": "SVHN", "cifar10_c:gaussian_noise:5": "CIFAR-10-C (Gaussian noise, severity 5)"},
}
PAPER_BINS = 20  # of the calibration errors in the paper's tables
PAPER_ATS_BINS = 15  # of its adaptive temperature scaling, but in Table 10, which compares numbers of bins
# Table 5 names the foreign data where other tables name the data set; its networks are those of CIFAR-10.
OOD_METRIC, OOD_DATASET, OOD_SCORE = "OOD_AUROC", "CIFAR-10", "entropy"
BINNED = ("ece", "adaece", "classwise_ece")
# Columns of collected records that hold JSON text.
NESTED = ("loss_options", "recipe_options", "foreign", "class_error", "foreign_scores", "batch_sizes")


def results_folder() -> Path | None:
    """Return the folder ``results`` of the repository this package or the current folder lies in; None without one.

    Example:
        >>> results_folder().name
        'results'
    """
    here = Path.cwd().resolve()
    for root in (Path(__file__).resolve().parents[1], here, *here.parents):
        if (root / "results" / "paper").is_dir():
            return root / "results"
    return None


def _repository_results(wanted: str) -> Path:
    folder = results_folder()
    if folder is None:
        raise FileNotFoundError(f"results/{wanted} is part of the repository: clone it and run this there")
    return folder


def paper_cells(table: int, **where: Any) -> pd.DataFrame:
    """Return cells of a printed table of the GenCE paper.

    Args:
        table: its number, 1 to 10.
        **where: columns and the values wanted, for example ``metric="ECE"``.

    Returns:
        One row for each cell: ``dataset``, ``rho``, ``model``, ``loss``, ``metric``, ``unit``, ``n_runs`` (text),
        ``ats_bins``, ``mean``, ``std``, ``before_ats`` (the same without adaptive temperature scaling) and ``reading``:
        ``"printed"``, ``"repaired"`` (a misread sign or point was put right) or ``"uncertain"``.

    Raises:
        ValueError: an unknown table or column.
        FileNotFoundError: the repository is not there.

    Source: Zhan, Zhou and Shen (2026), Tables 1 to 10.

    Example:
        >>> cell = paper_cells(1, dataset="CIFAR-10", model="ResNet-50", loss="GenCE").iloc[0]
        >>> cell["unit"], cell["n_runs"], bool(cell["std"] > 0)
        ('%', '10', True)
    """
    cells = pd.read_csv(_repository_results("paper") / "paper" / "tables.csv", dtype={"n_runs": str})
    if table not in set(cells["table"]):
        raise ValueError(f"the paper has tables {cells['table'].min()} to {cells['table'].max()}, but got {table!r}")
    cells = cells[cells["table"] == table]
    for column, value in where.items():
        if column not in cells:
            raise ValueError(f"a cell has no {column!r}. It has: {', '.join(cells)}.")
        cells = cells[cells[column] == value]
    return cells.reset_index(drop=True)


def benchmark_records(pattern: str) -> list[dict[str, Any]]:
    """Return the records of speed and memory in ``results/benchmarks`` whose file names match.

    Args:
        pattern: as for files, for example ``"losses-*"``.

    Returns:
        One dictionary for each file, in the order of their names; empty where none was made.

    Raises:
        FileNotFoundError: the repository is not there.

    Example:
        >>> [record["provenance"]["threads"] for record in benchmark_records("losses-cpu")]
        [1]
    """
    paths = sorted((_repository_results("benchmarks") / "benchmarks").glob(f"{pattern}.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def train_grid(grid: Mapping[str, Any], out: str | Path, *, progress: bool = True) -> pd.DataFrame:
    """Train all runs of a grid that have no record yet, and read their records.

    Args:
        grid: as in :func:`gence.runs.expand_grid`.
        out: folder of the records.
        progress: show a bar.

    Returns:
        As :func:`gence.runs.read_records`, of this grid only.

    Raises:
        ParameterError: as :func:`gence.runs.expand_grid`.

    Example:
        >>> grid = {"fixed": {"tier": "smoke", "n_per_class": 5}, "vary": {"loss": ["ce", "gence"]}}
        >>> sorted(set(train_grid(grid, getfixture("tmpdir"), progress=False)["loss"]))
        ['ce', 'gence']
    """
    fixed = {**(grid.get("fixed") or {}), "out": str(out)}
    expanded = runs.expand_grid({**grid, "fixed": fixed})
    bar = tqdm(expanded, desc="grid", unit="run", disable=not progress, leave=False)
    paths = [str(path) for run in bar for path in runs.execute(run, progress=False)]
    records = runs.read_records(out)
    return records[records["path"].isin(paths)].reset_index(drop=True)


def recalibrate(
    records: pd.DataFrame,
    calibrators: Iterable[str] | Mapping[str, Callable[[], calibration.Calibrator]],
    *,
    n_bins: int | None = None,
) -> pd.DataFrame:
    """Fit calibrators to the validation logits of trained runs and measure them on the test logits.

    Args:
        records: of :func:`gence.runs.read_records`; the logits lie beside the records.
        calibrators: names in ``gence.calibration.CALIBRATORS``, or a name for each of some functions that make one.
        n_bins: of the calibration errors; None takes the metrics' default, 15. The paper's tables use 20.

    Returns:
        The rows of `records`, once for each calibrator, with its name in ``calibrator``, the metrics after it, and
        ``converged``: False where it warned that it found no optimum.

    Raises:
        ValueError: an unknown calibrator.
        FileNotFoundError: a record without its logits.

    Example:
        >>> grid = {"fixed": {"tier": "smoke", "n_per_class": 5, "loss": "ce"}}
        >>> records = train_grid(grid, getfixture("tmpdir"), progress=False)
        >>> sorted(set(recalibrate(records, ["none", "temperature"])["calibrator"]))
        ['none', 'temperature']
    """
    if not isinstance(calibrators, Mapping):
        calibrators = {name: partial(calibration.make_calibrator, name) for name in calibrators}
    rows = []
    for record in records.to_dict("records"):
        with np.load(Path(record["path"]).with_suffix(".npz"), allow_pickle=False) as kept:
            val, test = (kept[f"{record['checkpoint']}_{split}"] for split in ("val", "test"))
            y_val, y_test = kept["y_val"], kept["y_test"]
        for name, make in calibrators.items():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ConvergenceWarning)
                probs = make().fit(val, y_val).predict_proba(test)
            converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
            rows.append(record | {"calibrator": name, "converged": converged} | _evaluate(probs, y_test, n_bins))
    return pd.DataFrame(rows)


def _evaluate(probs: np.ndarray, labels: np.ndarray, n_bins: int | None) -> dict[str, float]:
    options = {} if n_bins is None else {"n_bins": n_bins}
    return {
        name: metric(probs, labels, **(options if name in BINNED else {})) for name, metric in metrics.METRICS.items()
    }


def calibrated_columns(dataset: str, model: str, ats_bins: int = PAPER_ATS_BINS) -> list[str]:
    """Name the columns that :func:`calibrated` adds to a record.

    Calibration errors have 20 bins here, as in the paper. ``raw_*`` is before any calibration, ``ts_*`` after one
    temperature, ``ats_*`` after adaptive temperature scaling with 15 bins; ``ats5_*`` and so on, with another number
    of bins, belong to the network of the paper's Table 10, or to whoever asks for that number.

    Args:
        dataset: of the run.
        model: of the run.
        ats_bins: of adaptive temperature scaling.

    Example:
        >>> calibrated_columns("digits", "mlp")[:5]
        ['raw_ece', 'raw_adaece', 'raw_classwise_ece', 'ts_error', 'ts_nll']
        >>> calibrated_columns("cifar10", "resnet50")[-3:]
        ['ats25_ece', 'ats25_adaece', 'ats25_classwise_ece']
    """
    return [f"{name}_{metric}" for name in _calibrators(dataset, model, ats_bins) for metric in _measured_after(name)]


def calibrated(records: pd.DataFrame, ats_bins: int = PAPER_ATS_BINS) -> pd.DataFrame:
    """Calibrate the trained networks of one run as the paper does, and measure them with its number of bins.

    Args:
        records: of :func:`gence.runs.read_records`, of one data set and one network; the logits lie beside them.
        ats_bins: of adaptive temperature scaling, at most the number of validation samples.

    Returns:
        One row for each record: ``identity``, ``seed``, ``checkpoint`` and the :func:`calibrated_columns`.

    Raises:
        ValueError: records of several networks; a validation set with fewer samples than ATS has bins.
        FileNotFoundError: a record without its logits.

    Example:
        >>> grid = {"fixed": {"tier": "smoke", "n_per_class": 5, "loss": "ce"}}
        >>> records = train_grid(grid, getfixture("tmpdir"), progress=False)
        >>> table = calibrated(records)
        >>> len(table) == len(records), bool((table["ats_error"] == records["error"]).all())
        (True, True)
    """
    settings = set(zip(records["dataset"], records["model"], strict=True))
    if len(settings) != 1:
        raise ValueError(f"records of one data set and network are needed, but got {sorted(settings)}")
    ((dataset, model),) = settings
    made = _calibrators(dataset, model, ats_bins)
    after = recalibrate(records, made, n_bins=PAPER_BINS)
    key = ["identity", "seed", "checkpoint"]
    found = after[key].drop_duplicates().set_index(key)
    for name in made:
        part = after[after["calibrator"] == name].set_index(key)
        for metric in _measured_after(name):
            found[f"{name}_{metric}"] = part[metric]
    return found.reset_index()


def _calibrators(dataset: str, model: str, ats_bins: int) -> dict[str, Callable[[], calibration.Calibrator]]:
    """What is fitted to a trained network, by the start of its columns."""
    all_bins = (ats_bins, *_other_ats_bins(dataset, model))
    made = {"raw": calibration.Uncalibrated, "ts": calibration.TemperatureScaling}
    return made | {_ats(bins): partial(calibration.AdaptiveTemperatureScaling, n_bins=bins) for bins in all_bins}


def _ats(bins: int) -> str:
    return "ats" if bins == PAPER_ATS_BINS else f"ats{bins}"


def _measured_after(name: str) -> tuple[str, ...]:
    """Error and NLL have no bins: before a calibration and with another number of ATS bins they say nothing more."""
    return ("error", "nll", *BINNED) if name in ("ts", "ats") else BINNED


@lru_cache
def _other_ats_bins(dataset: str, model: str) -> tuple[int, ...]:
    """Numbers of ATS bins other than the usual one that the paper prints for a network."""
    words = {name: PAPER_NAMES[name].get(value) for name, value in (("dataset", dataset), ("model", model))}
    if results_folder() is None or None in words.values():
        return ()
    return tuple(sorted({int(bins) for bins in paper_cells(10, **words)["ats_bins"]} - {PAPER_ATS_BINS}))


def collected(grid: str) -> pd.DataFrame:
    """Return the collected records of a grid, ``results/<grid>.csv``; without rows where it was not run.

    Options, errors of the classes and scores on foreign images come as in :func:`gence.runs.read_records`.

    Beside what the records hold it has the :func:`calibrated_columns`, empty where the logits were not at hand.

    Args:
        grid: its name, for example ``"long_tails"``.

    Example:
        >>> len(collected("no_such_grid"))
        0
    """
    folder = results_folder()
    path = None if folder is None else folder / f"{grid}.csv"
    if path is None or not path.exists():
        return pd.DataFrame()
    table = pd.read_csv(path)
    nested = [name for name in NESTED if name in table]
    return table.assign(**{name: table[name].map(json.loads) for name in nested})


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
    return f"raw_{metric}" if np.isnan(bins) else f"{_ats(int(bins))}_{metric}"


def _auroc(scores: Iterable[Mapping[str, Any]], foreign: str) -> Iterable[float]:
    """Our AUROC on foreign images in the paper's words."""
    names = {theirs: name for name, theirs in PAPER_NAMES["foreign"].items()}
    for of_run in scores:
        if found := of_run.get(names.get(foreign, "")):
            yield found[OOD_SCORE]["auroc"]
