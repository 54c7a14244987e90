"""The statements of the pages on the benchmark and on foreign images, checked without the pages' code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from evidence_of import SOURCES, table_of, trained
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from gence import metrics
from gence.lab.data import load_splits
from gence.lab.networks import make_model
from gence.lab.results import evidence, sources, statistics
from gence.lab.training import Recipe, train_many
from gence.losses import cross_entropy, generative_cross_entropy, make_loss

LOSSES = ["CE", "Brier", "MMCE", "FLSD", "DFL", "AFL", "GenCE"]
FOCAL = ["FLSD", "DFL", "AFL"]


def printed(number: int, column: str = "mean"):
    """Setting x loss."""
    return sources.paper_cells(number).pivot(index=["dataset", "model"], columns="loss", values=column)[LOSSES]


@pytest.mark.claim("A1", "A2", "A3", "A6")
@pytest.mark.refutes("A7")
def test_counts_of_the_lowest_errors():
    error = printed(1)
    winners = error.idxmin(axis=1)
    assert (winners == "GenCE").sum() == 8
    assert sorted(winners[winners != "GenCE"]) == ["AFL", "AFL", "CE"]
    assert sum(a < b for a, b in zip(error["GenCE"], error["CE"], strict=True)) == 9
    assert (winners["CIFAR-100"] == "GenCE").all()
    tiny = error.loc["Tiny-ImageNet"]
    assert all(tiny[loss].lt(tiny["GenCE"]).all() for loss in FOCAL)
    worse = {
        name: int((error.loc[name, FOCAL].to_numpy() > error.loc[name, ["CE"]].to_numpy()).sum())
        for name in ("CIFAR-10", "CIFAR-100", "Tiny-ImageNet", "AV1451")
    }
    assert worse == {"CIFAR-10": 11, "CIFAR-100": 4, "Tiny-ImageNet": 0, "AV1451": 3}


@pytest.mark.claim("A5")
@pytest.mark.refutes("A4")
def test_welch_from_means_and_deviations_by_hand():
    error, sd = printed(1), printed(1, "std")

    def p_value(setting, loss):
        a, b = sd.loc[setting, "GenCE"] ** 2 / 10, sd.loc[setting, loss] ** 2 / 10
        freedom = (a + b) ** 2 / (a**2 / 9 + b**2 / 9)
        return stats.t.cdf((error.loc[setting, "GenCE"] - error.loc[setting, loss]) / np.sqrt(a + b), freedom)

    settings = [s for s in error.index if s[0].startswith("CIFAR")]
    found = {(s, loss): p_value(s, loss) for s in settings for loss in LOSSES[:-1]}
    assert len(found) == 48
    assert sum(p < 0.05 for p in found.values()) == 36
    wrong_sign = {key for key in found if error.loc[key[0], "GenCE"] > error.loc[key]}
    assert wrong_sign == {(("CIFAR-10", "Wide-ResNet"), "CE"), (("CIFAR-10", "Wide-ResNet"), "DFL")}
    scans = ("AV1451", "MLP")
    assert error.loc[scans].idxmin() == "GenCE"
    assert p_value(scans, "Brier") > 0.4


@pytest.mark.claim("ats-levels-printed")
def test_what_ats_leaves_of_the_advantage():
    for number, most in ((2, 0.1), (7, 0.12)):
        before, after = (printed(number, c).drop("AV1451", level="dataset").mean() for c in ("before_ats", "mean"))
        assert 0 < (after["CE"] - after["GenCE"]) < most * (before["CE"] - before["GenCE"])
        assert after.std() < 0.25 * before.std()


SETTINGS = {
    "5 a class": {"n_per_class": 5, "batch_size": 16, "epochs": 60},
    "20 a class": {"n_per_class": 20, "batch_size": 64, "epochs": 50},
}


@pytest.mark.claim("ats-levels-losses")
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_ats_draws_the_losses_together_on_digits(source, setting, tmp_path):
    losses = ["ce", "gence", "flsd_53", "brier", "adafocal"]
    if source == "page":
        judged = table_of("experiments/benchmark", "judged", **SETTINGS[setting])
    else:
        records = trained(tmp_path, losses, "620-631", **SETTINGS[setting])
        judged = sources.recalibrate(records, ["none", "ats"], n_bins=20)
    # Seed by loss and calibrator.
    ece = judged[judged["loss"].isin(losses)].pivot(index="seed", columns=["loss", "calibrator"], values="ece")
    raw, fitted = (ece.xs(name, axis=1, level="calibrator")[losses] for name in ("none", "ats"))
    for left_out in ([], *([loss] for loss in losses)):  # no single loss makes it
        before, after = (table.drop(columns=left_out).mean().std(ddof=0) for table in (raw, fitted))
        assert after < 0.5 * before, left_out
    closer = statistics.compare(raw.std(axis=1, ddof=0), fitted.std(axis=1, ddof=0))
    assert closer["side"] == -1 and closer["p"] < 0.01
    if setting == "20 a class":  # every batch has all classes
        errors = judged[judged["calibrator"] == "none"].pivot(index="seed", columns="loss", values="error")
        assert statistics.compare(errors["ce"], errors["gence"], margin=0.005)["p_equivalence"] < 0.05
        assert raw["flsd_53"].mean() > raw["ce"].mean() + 0.04  # FLSD starts too modest


@pytest.mark.claim("D1", "D2")
def test_counts_of_the_foreign_images():
    auroc = printed(5)
    assert len(auroc) == 8
    assert (auroc["GenCE"] > auroc["CE"]).all()
    assert (auroc["AFL"] > auroc["GenCE"]).all()
    assert (auroc["Brier"] > auroc["GenCE"]).sum() == 4


@pytest.mark.claim("ood-no-density")
def test_neither_loss_sees_the_density_of_the_inputs():
    rng = np.random.default_rng(1)
    q = torch.tensor(rng.dirichlet(np.ones(3), size=12))
    rows = torch.tensor(rng.integers(0, 12, size=60))  # a sample of the samples: another density
    rows = torch.cat([rows, torch.arange(12)])
    for loss in (cross_entropy, generative_cross_entropy):
        z = q.log().requires_grad_()
        (slope,) = torch.autograd.grad(loss(z[rows], q[rows]), z)
        assert slope.abs().max() < 1e-12
        other = q.log() + torch.tensor(0.3 * rng.normal(size=q.shape))
        assert loss(other[rows], q[rows]) > loss(q.log()[rows], q[rows]) + 1e-4
    known, foreign = rng.normal(size=(2, 50, 3))
    y, c = torch.tensor(rng.integers(0, 3, 50)), rng.uniform(50, 60, size=(50, 1))
    for loss in (cross_entropy, generative_cross_entropy):
        assert loss(torch.tensor(known), y).item() == pytest.approx(loss(torch.tensor(known + c), y).item(), abs=1e-9)
    assert metrics.ood_detection(known + c, foreign, "energy")["auroc"] == 1
    assert metrics.ood_detection(known - c, foreign, "energy")["auroc"] == 0


@pytest.mark.claim("ood-follows-confidence")
@pytest.mark.parametrize("setting", ["5 a class, batch 16", "20 a class, batch 64"])
def test_brier_tells_noise_from_digits_better_than_gence_which_does_it_like_ce_on_the_page(setting):
    scores = evidence.recorded("experiments/ood")["scores"]
    rows = scores[(scores["setting"] == setting) & (scores["foreign"] == "noise 0.4")]
    told_apart(rows.pivot(index="seed", columns="loss", values="entropy"))


def told_apart(auroc):
    """Seed by loss, with the page's margin."""
    above = statistics.compare(auroc["gence"], auroc["brier"])
    assert above["side"] == 1 and above["p"] < 0.01 and above["difference"] > 0.005
    assert statistics.compare(auroc["ce"], auroc["gence"], margin=0.005)["p_equivalence"] < 0.05


def trained_on(splits, loss, recipe):
    seeds = list(range(len(splits)))
    nets = [make_model("mlp", 64, 7, seed) for seed in seeds]
    return [o.logits["last"] for o in train_many(nets, splits, make_loss(loss), recipe, seeds, progress=False)]


@pytest.mark.thorough
@pytest.mark.claim("ood-follows-confidence")
@pytest.mark.parametrize(("n_per_class", "recipe"), [(5, Recipe(16, epochs=60)), (20, Recipe(64, epochs=50))])
def test_brier_tells_noise_from_digits_better_than_gence_which_does_it_like_ce(n_per_class, recipe):
    """Both settings of the page with other seeds and its margin; AUROC by scikit-learn."""
    seeds, rng = list(range(20)), np.random.default_rng(0)
    joined = []
    for s in (load_splits("digits", seed, n_per_class) for seed in seeds):
        train, val, test = (y < 7 for y in (s.y_train, s.y_val, s.y_test))
        known = s.x_test[test]
        x = np.concatenate([known, np.clip(known + 0.4 * rng.normal(size=known.shape), 0, 1)])
        of_known = {"x_train": s.x_train[train], "y_train": s.y_train[train], "x_val": s.x_val[val]}
        of_known |= {"y_val": s.y_val[val], "class_names": s.class_names[:7]}
        joined.append(replace(s, x_test=x, y_test=np.zeros(len(x), dtype=np.int64), **of_known))
    auroc = {}
    for loss in ("ce", "gence", "brier"):
        auroc[loss] = []
        for z in trained_on(joined, loss, recipe):
            p = softmax(z["test"], axis=1)
            auroc[loss].append(roc_auc_score(np.arange(len(p)) >= len(p) // 2, -(p * np.log(p + 1e-300)).sum(1)))
    told_apart(pd.DataFrame(auroc))
