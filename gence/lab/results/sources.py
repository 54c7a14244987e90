"""Where the numbers of a page on results come from: the paper's cells, records, a grid trained on the spot."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

from gence import calibration, metrics
from gence.lab import runs

if TYPE_CHECKING:  # notebooks have it; whoever only trains need not
    pass

__all__ = [
    "NESTED",
    "PAPER_NAMES",
    "benchmark_records",
    "calibrated",
    "calibrated_columns",
    "collected",
    "on_validation",
    "paper_cells",
    "recalibrate",
    "results_folder",
    "train_grid",
]

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
CHOSEN_BY = ("error", "nll")  # on the validation set: what a learning rate is chosen by
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
    for root in (Path(__file__).resolve().parents[3], here, *here.parents):
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
        grid: as in :func:`gence.lab.runs.expand_grid`.
        out: folder of the records.
        progress: show a bar.

    Returns:
        As :func:`gence.lab.runs.read_records`, of this grid only.

    Raises:
        ParameterError: as :func:`gence.lab.runs.expand_grid`.

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
        records: of :func:`gence.lab.runs.read_records`; the logits lie beside the records.
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

    ``val_*`` is before any calibration on the validation set: learning rates are chosen by it. All others are of the
    test set. Calibration errors have 20 bins here, as in the paper. ``raw_*`` is before any calibration, ``ts_*`` after
    one temperature, ``ats_*`` after adaptive temperature scaling with 15 bins; ``ats5_*`` and so on, with other numbers
    of bins, belong to the network of the paper's Table 10, or to whoever asks for that number.

    Args:
        dataset: of the run.
        model: of the run.
        ats_bins: of adaptive temperature scaling.

    Example:
        >>> calibrated_columns("digits", "mlp")[:5]
        ['val_error', 'val_nll', 'raw_ece', 'raw_adaece', 'raw_classwise_ece']
        >>> calibrated_columns("cifar10", "resnet50")[-3:]
        ['ats25_ece', 'ats25_adaece', 'ats25_classwise_ece']
    """
    after = [f"{name}_{metric}" for name in _calibrators(dataset, model, ats_bins) for metric in _measured_after(name)]
    return [*(f"val_{metric}" for metric in CHOSEN_BY), *after]


def calibrated(records: pd.DataFrame, ats_bins: int = PAPER_ATS_BINS) -> pd.DataFrame:
    """Calibrate the trained networks of one run as the paper does, and measure them with its number of bins.

    Args:
        records: of :func:`gence.lab.runs.read_records`, of one data set and one network; the logits lie beside them.
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
    found = on_validation(records).set_axis(pd.MultiIndex.from_frame(records[key]))
    for name in made:
        part = after[after["calibrator"] == name].set_index(key)
        for metric in _measured_after(name):
            found[f"{name}_{metric}"] = part[metric]
    return found.reset_index()


def on_validation(records: pd.DataFrame) -> pd.DataFrame:
    """Return ``val_error`` and ``val_nll`` of each record: what learning rates are chosen by.

    Args:
        records: of :func:`gence.lab.runs.read_records`; the logits lie beside them.

    Raises:
        FileNotFoundError: a record without its logits.

    Example:
        >>> grid = {"fixed": {"tier": "smoke", "n_per_class": 5, "loss": "ce"}}
        >>> list(on_validation(train_grid(grid, getfixture("tmpdir"), progress=False)))
        ['val_error', 'val_nll']
    """
    rows = map(_of_validation_set, records["path"], records["checkpoint"])
    return pd.DataFrame(rows, index=records.index)


def _of_validation_set(path: str, checkpoint: str) -> dict[str, float]:
    with np.load(Path(path).with_suffix(".npz"), allow_pickle=False) as kept:
        probs, labels = softmax(kept[f"{checkpoint}_val"].astype(float), axis=1), kept["y_val"]
    return {f"val_{metric}": metrics.METRICS[metric](probs, labels) for metric in CHOSEN_BY}


def _calibrators(dataset: str, model: str, ats_bins: int) -> dict[str, Callable[[], calibration.Calibrator]]:
    """What is fitted to a trained network, by the start of its columns."""
    all_bins = (ats_bins, *_other_ats_bins(dataset, model))
    made = {"raw": calibration.Uncalibrated, "ts": calibration.TemperatureScaling}
    return made | {ats_column(bins): partial(calibration.AdaptiveTemperatureScaling, n_bins=bins) for bins in all_bins}


def ats_column(bins: int) -> str:
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


def collected(grid: str, folder: str | Path | None = None) -> pd.DataFrame:
    """Return the collected records of a grid, ``results/<grid>.csv``; without rows where it was not run.

    Options, errors of the classes and scores on foreign images come as in :func:`gence.lab.runs.read_records`.

    Beside what the records hold it has the :func:`calibrated_columns`, empty where the logits were not at hand.

    Args:
        grid: its name, for example ``"long_tails"``.
        folder: where the table lies; None takes ``results`` of this repository.

    Example:
        >>> len(collected("no_such_grid"))
        0
    """
    folder = folder or results_folder()
    path = None if folder is None else Path(folder) / f"{grid}.csv"
    if path is None or not path.exists():
        return pd.DataFrame()
    table = pd.read_csv(path)
    nested = [name for name in NESTED if name in table]
    return table.assign(**{name: table[name].map(json.loads) for name in nested})
