"""The paper's cells, calibration after the training, and tables that say what was not run."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp, softmax

from gence import calibration, losses, metrics
from gence.lab import networks, runs
from gence.lab.results import sources, tables

GRID = {"fixed": {"tier": "smoke", "n_per_class": 5, "seeds": [3, 4]}, "vary": {"loss": ["ce", "gence"]}}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return sources.train_grid(GRID, tmp_path_factory.mktemp("runs"), progress=False)


def test_the_papers_tables_are_whole():
    """Cells of a table: settings times losses (times metrics, or numbers of bins)."""
    expected = {1: 77, 2: 77, 3: 56, 4: 56, 5: 56, 6: 14, 7: 77, 8: 77, 9: 24, 10: 105}
    assert {number: len(sources.paper_cells(number)) for number in expected} == expected
    for number in expected:
        assert set(sources.paper_cells(number)["reading"]) <= {"printed", "repaired", "uncertain"}


def test_the_papers_cells_are_those_that_the_ledger_counts():
    """Claims A1 and B10 of the paper, counted anew: lowest error in 8 of 11; ATS lowers the ECE in 69 of 77 cells."""
    error = sources.paper_cells(1).pivot(index=["dataset", "model"], columns="loss", values="mean")
    assert (error.idxmin(axis=1) == "GenCE").sum() == 8
    ece = sources.paper_cells(2)
    assert (ece["mean"] < ece["before_ats"]).sum() == 69


def test_a_table_or_column_that_is_not_there():
    with pytest.raises(ValueError, match="tables 1 to 10, but got 11"):
        sources.paper_cells(11)
    with pytest.raises(ValueError, match=r"no 'los'\. It has: table, dataset"):
        sources.paper_cells(1, los="CE")


def test_the_papers_names_are_names_here():
    assert set(sources.PAPER_NAMES["loss"]) <= set(losses.loss_names())
    assert set(sources.PAPER_NAMES["model"]) <= set(networks.model_names())
    assert set(sources.PAPER_NAMES["metric"]) <= set(metrics.METRICS)
    for kind, numbers in (("dataset", (1, 2, 7, 8)), ("model", (1, 2, 3)), ("loss", (1, 9))):
        printed = set().union(*(sources.paper_cells(number)[kind] for number in numbers)) - {"CIFAR-10-LT"}
        assert printed == set(sources.PAPER_NAMES[kind].values())


def test_a_grid_is_trained_once_and_read_alone(tmp_path):
    first = sources.train_grid(GRID, tmp_path, progress=False)
    other = sources.train_grid({**GRID, "vary": {"loss": ["brier"]}}, tmp_path, progress=False)
    assert len(first) == 2 * 2 * 2
    assert set(other["loss"]) == {"brier"}
    again = sources.train_grid(GRID, tmp_path, progress=False)
    pd.testing.assert_frame_equal(first, again)


def test_recalibration_is_that_of_the_kept_logits(records):
    table = sources.recalibrate(records, ["none", "temperature"], n_bins=20)
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
    table = sources.recalibrate(records.head(1), {"mine": calibration.Uncalibrated})
    assert table["calibrator"].tolist() == ["mine"]
    with pytest.raises(ValueError, match="unknown calibrator 'temprature'; did you mean 'temperature'"):
        sources.recalibrate(records, ["temprature"])


def test_a_calibrator_without_an_optimum_is_marked(records, tmp_path):
    """On a validation set that the network gets all right no temperature is best."""
    record = records.head(1).copy()
    path = tmp_path / "seed0000.json"
    z = 5 * np.eye(10)
    np.savez(path.with_suffix(".npz"), last_val=z, last_test=z, y_val=np.arange(10), y_test=np.arange(10))
    record["path"] = str(path)
    assert sources.recalibrate(record, ["none", "temperature"])["converged"].tolist() == [True, False]


def test_the_columns_after_calibration_are_those_of_the_papers_settings(records):
    """20 bins for the calibration errors, 15 for ATS, one temperature by NLL: written out."""
    part = records[records["loss"] == "ce"]
    table = sources.calibrated(part)
    assert table.columns.tolist() == ["identity", "seed", "checkpoint", *sources.calibrated_columns("digits", "mlp")]
    assert len(table) == len(part)
    for row, record in zip(table.to_dict("records"), part.to_dict("records"), strict=True):
        assert [row[name] for name in ("identity", "seed", "checkpoint")] == [
            record[name] for name in ("identity", "seed", "checkpoint")
        ]
        with np.load(record["path"].replace(".json", ".npz")) as kept:
            val, test = (kept[f"{row['checkpoint']}_{split}"] for split in ("val", "test"))
            y_val, y_test = kept["y_val"], kept["y_test"]
        fitted = {
            "raw": softmax(test.astype(float), axis=1),
            "ts": calibration.TemperatureScaling().fit(val, y_val).predict_proba(test),
            "ats": calibration.AdaptiveTemperatureScaling(n_bins=15).fit(val, y_val).predict_proba(test),
        }
        for name, probs in fitted.items():
            assert row[f"{name}_ece"] == pytest.approx(
                metrics.expected_calibration_error(probs, y_test, n_bins=20), abs=1e-12
            )
        assert row["ats_adaece"] == metrics.adaptive_calibration_error(fitted["ats"], y_test, n_bins=20)
        assert row["ats_classwise_ece"] == metrics.classwise_calibration_error(fitted["ats"], y_test, n_bins=20)
        assert row["ats_nll"] == metrics.negative_log_likelihood(fitted["ats"], y_test)
        assert row["ats_error"] == row["ts_error"] == record["error"]
        with np.load(record["path"].replace(".json", ".npz")) as kept:
            z, y = kept[f"{row['checkpoint']}_val"].astype(float), kept["y_val"]
        assert row["val_error"] == (z.argmax(1) != y).mean()
        assert row["val_nll"] == pytest.approx((logsumexp(z, axis=1) - z[range(len(y)), y]).mean(), abs=1e-12)
    assert table["ats_ece"].ne(table["raw_ece"]).any()


def test_other_numbers_of_ats_bins_belong_to_the_network_of_table_10():
    assert not [name for name in sources.calibrated_columns("cifar100", "resnet50") if name[3:4].isdigit()]
    starts = {name.split("_")[0] for name in sources.calibrated_columns("cifar10", "resnet50")}
    assert starts == {"val", "raw", "ts", "ats", "ats5", "ats10", "ats20", "ats25"}


def test_records_of_two_networks_are_not_calibrated_together(records):
    with pytest.raises(ValueError, match="one data set and network"):
        sources.calibrated(records.assign(model=["mlp", "linear"] * (len(records) // 2)))


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
    table = tables.beside_paper(sources.paper_cells(1, dataset="CIFAR-10", model="ResNet-50"), ours)
    found = table.set_index("loss")
    assert found.loc["GenCE", "ours"] == "5.00 (1.41)"
    assert found.loc["GenCE", "n"] == 2
    assert found.loc["CE", "ours"] == "7.00"
    assert found.loc["Brier", "ours"] == tables.NOT_RUN
    printed = sources.paper_cells(1, dataset="CIFAR-10", model="ResNet-50", loss="CE").iloc[0]
    assert found.loc["CE", "paper"] == f"{printed['mean']:.2f} ({printed['std']:.2f})"


def test_uncertain_readings_are_marked_and_metrics_not_mixed():
    cells = sources.paper_cells(1)
    table = tables.beside_paper(cells, pd.DataFrame())
    assert (table["paper"].str.endswith(" ?")).sum() == (cells["reading"] == "uncertain").sum() > 0
    with pytest.raises(ValueError, match="one metric"):
        tables.beside_paper(sources.paper_cells(9), pd.DataFrame())


# One value for each column, so that a cell says which column it came from.
SIGNS = {
    **{"error": 0.01, "ece": 0.02, "adaece": 0.03, "classwise_ece": 0.04},
    **{"raw_ece": 0.05, "raw_adaece": 0.06, "raw_classwise_ece": 0.07},
    **{"ts_error": 0.08, "ts_ece": 0.09, "ts_adaece": 0.10, "ts_classwise_ece": 0.11},
    **{"ats_error": 0.01, "ats_ece": 0.13, "ats_adaece": 0.14, "ats_classwise_ece": 0.15},
    **{"ats5_ece": 0.16, "ats5_adaece": 0.17, "ats5_classwise_ece": 0.18},
}


def ours_beside(number: int, ours: dict, **where) -> list[str]:
    by = ("rho", "model", "loss") if number in (3, 4) else ("dataset", "model", "loss")
    cells = sources.paper_cells(number, model="ResNet-50", loss="GenCE", **where)
    return tables.beside_paper(cells, pd.DataFrame([ours]), by=by)["ours"].tolist()


@pytest.mark.parametrize(
    ("number", "where", "expected"),
    [
        (1, {"dataset": "CIFAR-10"}, "1.00"),
        (2, {"dataset": "CIFAR-10"}, "13.00"),
        (3, {"rho": 100}, "1.00"),
        (4, {"rho": 100}, "15.00"),
        (7, {"dataset": "CIFAR-10"}, "14.00"),
        (8, {"dataset": "CIFAR-10"}, "15.00"),
        (9, {"metric": "test_error"}, "1.00"),
        (9, {"metric": "ECE"}, "13.00"),
        (9, {"metric": "AdaECE"}, "14.00"),
        (9, {"metric": "ClasswiseECE"}, "15.00"),
        (10, {"metric": "ECE", "ats_bins": 15}, "13.00"),
        (10, {"metric": "ECE", "ats_bins": 5}, "16.00"),
        (10, {"metric": "ClasswiseECE", "ats_bins": 5}, "18.00"),
        (10, {"metric": "ECE", "ats_bins": 25}, tables.NOT_RUN),
        (6, {}, tables.NOT_RUN),
    ],
)
def test_a_cell_stands_beside_the_column_that_measures_the_same(number, where, expected):
    model = "resnet50_tiny" if number == 9 else "resnet50"
    ours = full_tier("gence", 0.01, 1, model=model, rho=where.get("rho", 1), duration_s=9.0) | SIGNS
    ours |= {"dataset": "tiny_imagenet"} if number == 9 else {}
    assert ours_beside(number, ours, **where) == [expected]


@pytest.mark.parametrize("number", [2, 4, 7, 8, 9, 10])
def test_a_raw_value_never_stands_in_a_cell_after_ats(number):
    """Records that were not calibrated: whatever the paper states after ATS stays empty."""
    raw = {name: value for name, value in SIGNS.items() if not name.startswith(("ats", "ts"))}
    cells = sources.paper_cells(number)
    names = {
        theirs: name for kind in ("dataset", "model", "loss") for name, theirs in sources.PAPER_NAMES[kind].items()
    }
    checked = 0
    for _, group in cells[cells["metric"] != "test_error"].groupby("metric"):
        ours = group.assign(tier="full", checkpoint="last", **raw)
        for kind in ("dataset", "model", "loss"):
            ours[kind] = [names.get(value, value) for value in ours[kind]]
        assert set(tables.beside_paper(group, ours)["ours"]) == {tables.NOT_RUN}
        filled = tables.beside_paper(group, ours.assign(**SIGNS))
        assert "not run" not in set(filled.loc[(group["ats_bins"] == 15).to_numpy(), "ours"]), (
            "else this checks nothing"
        )
        checked += len(group)
    assert checked == (cells["metric"] != "test_error").sum() > 0


def test_a_cell_before_ats_stands_beside_our_raw_value_with_the_papers_bins():
    cells = sources.paper_cells(2, dataset="CIFAR-10", model="ResNet-50", loss="GenCE")
    before = cells.assign(mean=cells["before_ats"], std=np.nan, ats_bins=np.nan)
    ours = pd.DataFrame([full_tier("gence", 0.01, 1) | SIGNS])
    assert tables.beside_paper(before, ours)["ours"].tolist() == ["5.00"]


def test_only_runs_that_have_the_value_are_counted():
    cells = sources.paper_cells(2, dataset="CIFAR-10", model="ResNet-50", loss="GenCE")
    ours = pd.DataFrame([full_tier("gence", 0.01, seed, ats_ece=value) for seed, value in ((1, 0.02), (2, np.nan))])
    table = tables.beside_paper(cells, ours)
    assert (table["ours"][0], table["n"][0]) == ("2.00", 1)


def test_an_ood_cell_stands_beside_the_same_foreign_images_and_score():
    def scores(svhn: float) -> dict:
        other = {"auroc": 0.1, "aupr": 0.2, "fpr95": 0.3}
        return {
            "svhn": {"entropy": other | {"auroc": svhn}, "energy": other},
            "cifar10_c:fog:5": {"entropy": other},
        }

    ours = pd.DataFrame(
        [
            full_tier("gence", 0.01, 1, foreign_scores=scores(0.93)),
            full_tier("gence", 0.01, 2, foreign_scores=scores(0.95)),
            full_tier("gence", 0.01, 3, foreign_scores={}),
            full_tier("gence", 0.01, 4, foreign_scores=scores(0.5), dataset="cifar100"),
        ]
    )
    table = tables.beside_paper(sources.paper_cells(5, model="ResNet-50", loss="GenCE"), ours).set_index("dataset")
    assert tuple(table.loc["SVHN", ["ours", "n"]]) == ("94.00 (1.41)", 2)
    assert table.drop("SVHN")["ours"].tolist() == [tables.NOT_RUN]
    without = sources.paper_cells(5, loss="GenCE")
    assert set(tables.beside_paper(without, pd.DataFrame([full_tier("gence", 0.01, 1)]))["ours"]) == {tables.NOT_RUN}


def test_the_foreign_images_of_the_paper_are_those_of_the_grid_and_its_score_one_of_ours():
    assert set(sources.paper_cells(5)["dataset"]) == set(sources.PAPER_NAMES["foreign"].values())
    assert tables.OOD_SCORE in metrics.OOD_SCORES
    assert runs.RunParameters.of(dataset="cifar10", foreign=list(sources.PAPER_NAMES["foreign"])).foreign


def test_collected_results_are_read_where_they_are(tmp_path, monkeypatch):
    (tmp_path / "paper").mkdir()
    monkeypatch.setattr(sources, "results_folder", lambda: tmp_path)
    assert sources.collected("main").empty
    pd.DataFrame([full_tier("ce", 0.1, 0)]).to_csv(tmp_path / "main.csv", index=False)
    assert math.isclose(sources.collected("main")["error"].iloc[0], 0.1)
    nested = {
        "loss_options": {"strength": 0.5},
        "recipe_options": {},
        "foreign": ["svhn"],
        "class_error": [0.5, None],
        "foreign_scores": {"svhn": {"entropy": {"auroc": 0.9}}},
        "batch_sizes": {"16": 3, "2": 1},
    }
    assert set(nested) == set(sources.NESTED)
    as_text = {name: json.dumps(value) for name, value in nested.items()}
    pd.DataFrame([full_tier("ce", 0.1, 0) | as_text]).to_csv(tmp_path / "nested.csv", index=False)
    assert sources.collected("nested")[list(nested)].iloc[0].to_dict() == nested
    monkeypatch.setattr(sources, "results_folder", lambda: None)
    assert sources.collected("main").empty
    with pytest.raises(FileNotFoundError, match="clone it"):
        sources.paper_cells(1)


def test_the_records_of_a_grid_come_from_runs(records):
    assert set(records["identity"]) == {run.identity for run in runs.expand_grid(GRID)}


def test_not_run_is_said_once():
    rows = [
        {"data": "A", "net": "x", "s = 1": "1.0", "s = 2": "not run"},
        {"data": "A", "net": "y", "s = 1": "not run", "s = 2": "2.0"},
        {"data": "B", "net": "x", "s = 1": "not run", "s = 2": "not run"},
        {"data": "B", "net": "y", "s = 1": "not run", "s = 2": "-"},
    ]
    text = tables.markdown(rows, labels=["data", "net"]).data
    assert "not run" not in text and text.count("Not run") == 1
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:4]] == ["A", "A"]
    assert text.endswith("Not run: 5 of 7 cells (all of B; and those with –).")
    assert tables.markdown(rows[:1]).data.endswith("Not run: 1 of 2 cells (all of s = 2).")


def test_a_table_without_any_run_is_one_sentence():
    rows = [{"data": name, "error": "not run", "ece": "not run"} for name in "AB"]
    assert tables.markdown(rows).data == "Not run: 4 of 4 cells (all of A, B)."


def test_the_papers_cells_stay_where_ours_were_not_run():
    table = tables.beside_paper(sources.paper_cells(1, dataset="CIFAR-10"), pd.DataFrame())
    text = tables.markdown(table, labels=["dataset", "model", "loss"]).data
    assert len([line for line in text.splitlines() if line.startswith("| CIFAR-10")]) == len(table)
    assert "ours" not in text.split("Not run")[0] and f"Not run: {len(table)} of" in text


def test_rows_named_by_the_index_are_named_in_the_sentence():
    table = pd.DataFrame({"CE": ["1.0", "not run"], "GenCE": ["2.0", "not run"]}, index=["paper", "ours"])
    text = tables.markdown(table, index=True).data
    assert text.endswith("Not run: 2 of 4 cells (all of ours).") and "| paper" in text
