"""The paper's cells, calibration after the training, and tables that say what was not run."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from gence import calibration, losses, metrics, models, reports, runs

GRID = {"fixed": {"tier": "smoke", "n_per_class": 5, "seeds": [3, 4]}, "vary": {"loss": ["ce", "gence"]}}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return reports.train_grid(GRID, tmp_path_factory.mktemp("runs"), progress=False)


def test_the_papers_tables_are_whole():
    """Cells of a table: settings times losses (times metrics, or numbers of bins)."""
    expected = {1: 77, 2: 77, 3: 56, 4: 56, 5: 56, 6: 14, 7: 77, 8: 77, 9: 24, 10: 105}
    assert {number: len(reports.paper_cells(number)) for number in expected} == expected
    for number in expected:
        assert set(reports.paper_cells(number)["reading"]) <= {"printed", "repaired", "uncertain"}


def test_the_papers_cells_are_those_that_the_ledger_counts():
    """Claims A1 and B10 of the paper, counted anew: lowest error in 8 of 11; ATS lowers the ECE in 69 of 77 cells."""
    error = reports.paper_cells(1).pivot(index=["dataset", "model"], columns="loss", values="mean")
    assert (error.idxmin(axis=1) == "GenCE").sum() == 8
    ece = reports.paper_cells(2)
    assert (ece["mean"] < ece["before_ats"]).sum() == 69


def test_a_table_or_column_that_is_not_there():
    with pytest.raises(ValueError, match="tables 1 to 10, but got 11"):
        reports.paper_cells(11)
    with pytest.raises(ValueError, match=r"no 'los'\. It has: table, dataset"):
        reports.paper_cells(1, los="CE")


def test_the_papers_names_are_names_here():
    assert set(reports.PAPER_NAMES["loss"]) <= set(losses.loss_names())
    assert set(reports.PAPER_NAMES["model"]) <= set(models.model_names())
    assert set(reports.PAPER_NAMES["metric"]) <= set(metrics.METRICS)
    for kind, numbers in (("dataset", (1, 2, 7, 8)), ("model", (1, 2, 3)), ("loss", (1, 9))):
        printed = set().union(*(reports.paper_cells(number)[kind] for number in numbers)) - {"CIFAR-10-LT"}
        assert printed == set(reports.PAPER_NAMES[kind].values())


def test_a_grid_is_trained_once_and_read_alone(tmp_path):
    first = reports.train_grid(GRID, tmp_path, progress=False)
    other = reports.train_grid({**GRID, "vary": {"loss": ["brier"]}}, tmp_path, progress=False)
    assert len(first) == 2 * 2 * 2
    assert set(other["loss"]) == {"brier"}
    again = reports.train_grid(GRID, tmp_path, progress=False)
    pd.testing.assert_frame_equal(first, again)


def test_recalibration_is_that_of_the_kept_logits(records):
    table = reports.recalibrate(records, ["none", "temperature"], n_bins=20)
    assert len(table) == 2 * len(records)
    row = table[(table.calibrator == "temperature") & (table.checkpoint == "last")].iloc[0]
    with np.load(row.path.replace(".json", ".npz")) as kept:
        fitted = calibration.TemperatureScaling().fit(kept["last_val"], kept["y_val"])
        probs, labels = fitted.predict_proba(kept["last_test"]), kept["y_test"]
        plain = softmax(kept["last_test"], axis=1)
    assert row.nll == metrics.negative_log_likelihood(probs, labels)
    assert row.ece == metrics.expected_calibration_error(probs, labels, n_bins=20)
    untouched = table[(table.calibrator == "none") & (table.path == row.path) & (table.checkpoint == "last")].iloc[0]
    assert untouched.brier == pytest.approx(metrics.brier_score(plain, labels), abs=1e-12)
    assert untouched.error == row.error


def test_a_calibrator_of_ones_own_and_an_unknown_one(records):
    table = reports.recalibrate(records.head(1), {"mine": calibration.Uncalibrated})
    assert table["calibrator"].tolist() == ["mine"]
    with pytest.raises(KeyError, match="temprature"):
        reports.recalibrate(records, ["temprature"])


def test_a_calibrator_without_an_optimum_is_marked(records, tmp_path):
    """On a validation set that the network gets all right no temperature is best."""
    record = records.head(1).copy()
    path = tmp_path / "seed0000.json"
    z = 5 * np.eye(10)
    np.savez(path.with_suffix(".npz"), last_val=z, last_test=z, y_val=np.arange(10), y_test=np.arange(10))
    record["path"] = str(path)
    assert reports.recalibrate(record, ["none", "temperature"])["converged"].tolist() == [True, False]


def full_tier(loss: str, error: float, seed: int, **more) -> dict:
    row = {"dataset": "cifar10", "model": "resnet50", "loss": loss, "tier": "full", "checkpoint": "last"}
    return row | {"error": error, "seed": seed} | more


def test_ours_stand_beside_the_papers_only_where_the_setting_is_the_same():
    ours = pd.DataFrame(
        [
            full_tier("gence", 0.04, 1),
            full_tier("gence", 0.06, 2),
            full_tier("gence", 0.5, 3, tier="laptop"),
            full_tier("gence", 0.5, 4, checkpoint="best"),
            full_tier("gence", 0.5, 5, dataset="cifar100"),
            full_tier("ce", 0.07, 1),
        ]
    )
    table = reports.beside_paper(reports.paper_cells(1, dataset="CIFAR-10", model="ResNet-50"), ours)
    found = table.set_index("loss")
    assert found.loc["GenCE", "ours"] == "5.00 (1.41)"
    assert found.loc["GenCE", "n"] == 2
    assert found.loc["CE", "ours"] == "7.00"
    assert found.loc["Brier", "ours"] == reports.NOT_RUN
    printed = reports.paper_cells(1, dataset="CIFAR-10", model="ResNet-50", loss="CE").iloc[0]
    assert found.loc["CE", "paper"] == f"{printed['mean']:.2f} ({printed['std']:.2f})"


def test_uncertain_readings_are_marked_and_metrics_not_mixed():
    cells = reports.paper_cells(1)
    table = reports.beside_paper(cells, pd.DataFrame())
    assert (table["paper"].str.endswith(" ?")).sum() == (cells["reading"] == "uncertain").sum() > 0
    with pytest.raises(ValueError, match="one metric"):
        reports.beside_paper(reports.paper_cells(9), pd.DataFrame())


def test_collected_results_are_read_where_they_are(tmp_path, monkeypatch):
    (tmp_path / "paper").mkdir()
    monkeypatch.setattr(reports, "results_folder", lambda: tmp_path)
    assert reports.collected("main").empty
    pd.DataFrame([full_tier("ce", 0.1, 0)]).to_csv(tmp_path / "main.csv", index=False)
    assert math.isclose(reports.collected("main")["error"].iloc[0], 0.1)
    monkeypatch.setattr(reports, "results_folder", lambda: None)
    assert reports.collected("main").empty
    with pytest.raises(FileNotFoundError, match="clone it"):
        reports.paper_cells(1)


def test_the_records_of_a_grid_come_from_runs(records):
    assert set(records["identity"]) == {run.identity for run in runs.expand_grid(GRID)}
