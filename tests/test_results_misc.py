"""Statements of the pages on cost, hybrids, bins of ATS and entropy, checked without their code."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gence import data, reports, statistics

SMALL = {"dataset": "digits", "model": "mlp", "n_per_class": 5, "batch_size": 16, "epochs": 40, "seeds": [0, 1, 2]}


def last(tmp_path, **changes):
    records = reports.train_grid({"fixed": SMALL | changes}, tmp_path, progress=False)
    return records[records.checkpoint == "last"]


def ratios(loss):
    cells = reports.paper_cells(6).set_index(["loss", "model"])["mean"]
    return (cells[loss] / cells["CE"]).round(3).to_dict()


@pytest.mark.claim("E1")
def test_the_printed_time_of_gence_is_that_of_ce():
    assert ratios("GenCE") == {"ResNet-50": 1.011, "Wide-ResNet": 0.998}


@pytest.mark.claim("E2")
def test_the_printed_time_of_afl_is_the_longest():
    assert ratios("AFL") == {"ResNet-50": 1.14, "Wide-ResNet": 1.066}
    cells = reports.paper_cells(6)
    assert set(cells.loc[cells.groupby("model")["mean"].idxmax(), "loss"]) == {"AFL"}


@pytest.mark.claim("loss-share")
def test_the_losses_of_table_6_are_a_small_share_of_a_step():
    record = json.loads((reports.results_folder() / "benchmarks" / "losses-cpu.json").read_text(encoding="utf-8"))
    table = [r for r in record["rows"] if (r["mode"], r["n"], r["k"]) == ("eager", 128, 10)]
    extra = [
        r["extra_us"] for r in table if r["loss"] in ("brier", "mmce_w", "flsd_53", "dual_focal", "adafocal", "gence")
    ]
    assert len(extra) == 6
    assert max(extra) < 0.01 * 1e3 * record["cnn"][0]["median_ms"]


@pytest.mark.claim("F1")
def test_the_printed_hybrid_has_the_error_of_gence_and_the_calibration_of_afl():
    cells = reports.paper_cells(9).set_index(["metric", "model", "loss"]).sort_index()["mean"]
    for model in ("ResNet-50", "ResNet-110"):
        error = cells["test_error", model]
        assert abs(error["AFL+GenCE"] - error["GenCE"]) < 0.15
        assert error["AFL+GenCE"] > error["AFL"] + 2
        assert cells["ECE", model]["AFL+GenCE"] < cells["ECE", model]["GenCE"] - 0.4
        assert cells["ECE", model]["AFL+GenCE"] < cells["ECE", model]["AFL"] + 0.02


@pytest.mark.claim("five-runs")
def test_five_runs_do_not_survive_a_correction_for_two_comparisons():
    best = [-5.0, -4.0, -3.0, -2.0, -1.0]
    p = stats.wilcoxon(best, alternative="less", method="exact").pvalue
    assert p == 1 / 32
    assert statistics.holm([p]).max() < 0.05 < statistics.holm([p, p]).min()
    assert statistics.signed_rank_p(best) == 2 * p > 0.05  # and two-sided not even one comparison


@pytest.mark.claim("F4")
def test_the_five_runs_of_table_9_are_not_better_calibrated_than_the_ten():
    five = reports.paper_cells(9).set_index(["metric", "model", "loss"])["mean"]
    for metric, table in (("test_error", 1), ("ECE", 2), ("AdaECE", 7)):
        ten = reports.paper_cells(table, dataset="Tiny-ImageNet").set_index(["metric", "model", "loss"])["mean"]
        for model in ("ResNet-50", "ResNet-110"):
            for loss in ("AFL", "GenCE"):
                shift = round(five[metric, model, loss] - ten[metric, model, loss], 2)
                assert abs(shift) <= 0.09 if metric == "test_error" else shift >= 0
    assert round(five["AdaECE", "ResNet-50", "GenCE"], 2) == 1.71


@pytest.mark.claim("F3")
def test_the_rows_with_15_bins_repeat_other_tables():
    for metric, table in (("ECE", 2), ("AdaECE", 7), ("ClasswiseECE", 8)):
        bins = reports.paper_cells(10, metric=metric, ats_bins=15).set_index("loss")["mean"]
        other = reports.paper_cells(table, dataset="CIFAR-10", model="ResNet-50").set_index("loss")["mean"]
        assert len(bins) == 7
        assert (bins == other[bins.index]).all()


@pytest.mark.claim("min-ent-gain")
def test_the_reported_gain_of_min_ent_is_below_one_standard_error():
    n, a = data.dataset_info("emnist_letters").n_test, 0.9586
    assert round((0.95933 - a) * n) == 15
    assert 0.95933 - a < np.sqrt(2 * a * (1 - a) / n)


@pytest.mark.claim("entropy-laptop")
def test_entropy_makes_bold_and_learned_weights_freeze(tmp_path):
    ce = last(tmp_path, loss="ce")
    bold = last(tmp_path, loss="min_ent", loss_options={"learnable": False, "weights": [1.0, 1.0]})
    learned = last(tmp_path, loss="min_ent")
    assert (bold.nll.to_numpy() > ce.nll.to_numpy()).all()
    assert bold.ece.mean() > ce.ece.mean() + 0.01
    assert ce.train_error.max() == 0 < 0.3 < learned.train_error.min()


def decisions(records):
    """Seed to the predicted classes of the test images."""
    found = {}
    for seed, path in zip(records.seed, records.path, strict=True):
        with np.load(path.replace(".json", ".npz")) as kept:
            found[seed] = kept["last_test"].argmax(1)
    return found


@pytest.mark.claim("hybrid-laptop")
def test_the_hybrid_decides_like_gence_and_not_like_afl(tmp_path):
    """Image by image: a hybrid without its batch term would decide like AFL, one without its focal factor as GenCE."""
    names = ("adafocal", "gence", "gence_adafocal", "gence_focal")
    trained = {loss: last(tmp_path, loss=loss, seeds=list(range(6))).set_index("seed", drop=False) for loss in names}
    decided = {loss: decisions(records) for loss, records in trained.items()}

    def apart(loss):
        return np.array([(decided["gence_adafocal"][seed] != decided[loss][seed]).mean() for seed in range(6)])

    assert (apart("gence") < apart("adafocal")).all() and apart("gence").mean() < 0.6 * apart("adafocal").mean()
    assert apart("gence").min() > 0.01
    hybrid, gence, afl, fixed = (trained[loss].error for loss in ("gence_adafocal", "gence", "adafocal", "gence_focal"))
    assert abs((hybrid - gence).mean()) < 0.01
    assert (hybrid - afl).mean() < -0.01 and (hybrid < afl).sum() >= 5
    assert (fixed - gence).mean() > 0.005


@pytest.mark.claim("ats-bins-laptop")
def test_more_bins_of_ats_are_worse_on_average_and_never_shown_to_be_better(tmp_path):
    from gence.calibration import AdaptiveTemperatureScaling as ATS

    rules = {str(n): partial(ATS, n_bins=n) for n in (5, 10, 15, 20, 25)}
    rows, rise = [], []
    for loss in ("ce", "gence", "brier", "flsd_53"):
        records = last(tmp_path / loss, loss=loss, seeds=list(range(600, 612)))
        after = reports.recalibrate(records, rules, n_bins=20)
        for metric in ("ece", "adaece", "classwise_ece"):
            values = after.pivot(index="seed", columns="calibrator", values=metric)
            for few, many in (("5", "15"), ("10", "15"), ("15", "20"), ("15", "25"), ("5", "25")):
                rows.append(statistics.compare(values[few], values[many]))
            if metric != "classwise_ece":
                rise.append(values["25"] - values["5"])
    assert not (statistics.with_verdict(pd.DataFrame(rows))["verdict"] == "lower").any()  # more bins are the candidate
    assert statistics.signed_rank_p(pd.concat(rise, axis=1).mean(axis=1), "greater") < 0.05
