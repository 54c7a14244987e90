"""The statements of the analyses of the tabular rows, of batch size and of strength, checked without their code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evidence_of import SOURCES, table_of
from scipy import stats
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax

from gence import generative_cross_entropy, metrics
from gence.lab.results import sources, statistics

SCANS, RUNS = 108, 10


def errors():
    return sources.paper_cells(1, dataset="AV1451").set_index("loss")


@pytest.mark.refutes("H1")
def test_the_printed_means_are_inconsistent_with_1080_scans_and_fit_900_also_after_a_scan():
    def possible(total):
        return [loss for loss, value in errors()["mean"].items() if _is_count(value, total)]

    assert possible(RUNS * SCANS) == ["AFL"]
    assert len(possible(900)) == 6 and "Brier" not in possible(900)
    # Numbers of two decimals drawn at random: how often does any total from 50 to 1080 fit as surprisingly?
    totals = np.arange(50, 1081)
    fits_by_number = np.array([[_is_multiple(n, total) for total in totals] for n in range(3600, 3900)])
    drawn = np.random.default_rng(4).integers(len(fits_by_number), size=(20_000, 7))
    surprise = np.array([stats.binom.sf(np.arange(8) - 1, 7, total / 10_000) for total in totals])
    fits = fits_by_number[drawn].sum(1)
    best = surprise[np.arange(len(totals)), fits].min(1)
    assert (best <= stats.binom.sf(5, 7, 0.09)).mean() < 0.005


def _is_multiple(hundredths, total):
    """Whether some multiple of 100 / total rounds to a number of hundredths (halves either way)."""
    low, high = (hundredths - 0.5) * total, (hundredths + 0.5) * total
    return np.floor(high / 10_000) >= np.ceil(low / 10_000)


def _is_count(printed, total):
    """Whether some whole number of mistakes in `total` rounds to the printed percentage."""
    return any(f"{100 * k / total:.2f}" == f"{printed:.2f}" for k in range(total + 1))


@pytest.mark.claim("A5")
def test_gence_has_the_lowest_error_on_the_scans_without_a_shown_difference_to_ce():
    cells = errors()
    assert cells["mean"].idxmin() == "GenCE"
    for other in ("CE", "Brier"):
        a, b = cells.loc["GenCE"], cells.loc[other]
        standard_error = np.sqrt((a["std"] ** 2 + b["std"] ** 2) / RUNS)
        assert -1.3 < (a["mean"] - b["mean"]) / standard_error < 0


@pytest.mark.claim("tabular-fixed-split")
def test_the_printed_spread_is_too_small_for_redrawn_test_sets():
    cells, rng = errors(), np.random.default_rng(0)
    drawn = 100 * rng.binomial(SCANS, cells["mean"].min() / 100, size=(20_000, RUNS)) / SCANS
    assert (drawn.std(axis=1, ddof=1) > cells["std"].max()).all()


@pytest.mark.claim("tabular-floor")
@pytest.mark.parametrize(
    ("table", "metric"),
    [
        (2, metrics.expected_calibration_error),
        (7, metrics.adaptive_calibration_error),
        (8, metrics.classwise_calibration_error),
    ],
)
def test_a_calibrated_model_measures_more_than_half_of_the_printed_calibration_errors(table, metric):
    """Another family of honest probabilities than in the notebook: Dirichlet, with about the same error."""
    rng = np.random.default_rng(1)
    assert 0.35 < 1 - rng.dirichlet(np.full(3, 0.85), size=10_000).max(1).mean() < 0.38
    small, large = [], []
    for n, values in [(SCANS, small)] * 100 + [(10_000, large)] * 3:
        p = rng.dirichlet(np.full(3, 0.85), size=n)
        y = np.array([rng.choice(3, p=row) for row in p]) if n == SCANS else (p.cumsum(1) < rng.random((n, 1))).sum(1)
        values.append(100 * metric(p, np.minimum(y, 2), 20))
    assert np.mean(small) > 0.5 * sources.paper_cells(table, dataset="AV1451")["before_ats"].mean()
    assert np.mean(large) < 3


@pytest.mark.claim("full-batch-bias")
def test_both_losses_have_the_same_best_bias_on_a_full_batch_and_not_without_a_class():
    rng = np.random.default_rng(2)
    y = np.repeat(np.arange(4), [12, 6, 3, 2])
    z = rng.normal(size=(len(y), 4))

    def gence(bias, z, y):
        log_p = log_softmax(z + bias, axis=1)
        return -np.mean(log_p[np.arange(len(y)), y] - logsumexp(log_p, axis=0)[y])

    def ce(bias, z, y):
        return -np.mean(log_softmax(z + bias, axis=1)[np.arange(len(y)), y])

    def best(loss, z, y):
        found = minimize(loss, np.zeros(z.shape[1]), args=(z, y), tol=1e-12)
        return found.x - found.x.mean(), found.fun

    assert gence(0, z, y) == pytest.approx(float(generative_cross_entropy(torch.tensor(z), torch.tensor(y))))
    (b_ce, ce_value), (b_gence, gence_value) = best(ce, z, y), best(gence, z, y)
    np.testing.assert_allclose(b_ce, b_gence, atol=1e-4)
    share = np.bincount(y) / len(y)
    assert gence_value - ce_value == pytest.approx(np.log(len(y)) - stats.entropy(share), abs=1e-9)
    z, y = z[y < 3], y[y < 3]
    assert abs(best(ce, z, y)[0] - best(gence, z, y)[0]).max() > 0.1


@pytest.mark.claim("strength-force")
@pytest.mark.parametrize("strength", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_late_in_training_the_share_one_minus_s_of_the_push_on_absent_classes_is_left(strength):
    rng = np.random.default_rng(3)
    y = np.arange(24) % 6
    z = rng.normal(size=(24, 9))
    z[np.arange(24), y] += 14
    logits = torch.tensor(z, requires_grad=True)
    generative_cross_entropy(logits, torch.tensor(y), strength=strength).backward()
    push, of_ce = logits.grad[:, 6:].sum().item(), softmax(z, axis=1)[:, 6:].sum() / 24
    assert push / of_ce == pytest.approx(1 - strength, abs=1e-3)


LONG_TAIL, BALANCED = {"n_per_class": 96, "rho": 50.0}, {"n_per_class": 10, "rho": 1.0}


@pytest.mark.claim("batch-size-effect")
def test_in_a_short_training_gence_is_worse_in_batches_of_eight_and_level_on_the_full_batch(records_of):
    def against_ce(metrics, seeds, margin=None, **settings):
        records = records_of("experiments/batch_size", ["ce", "gence"], seeds, **settings).set_index("seed")
        ce, gence = (records[records["loss"] == loss] for loss in ("ce", "gence"))
        return [statistics.compare(ce[metric], gence[metric], margin=margin) for metric in metrics]

    short = {"batch_size": 8, "epochs": 20, "lr": 0.05}
    worse = against_ce(["error", "nll"], "590-599", **short, **LONG_TAIL)
    worse += against_ce(["nll", "ece"], "590-599", **short, **BALANCED)
    assert all(found["p"] < 0.05 and found["side"] == 1 for found in worse)
    for batches in ({"batch_size": 32, "epochs": 40, "lr": 0.1}, {"batch_size": "full", "epochs": 200, "lr": 0.3}):
        (level,) = against_ce(["error"], "580-595", margin=0.005, **batches, **BALANCED)
        assert level["p_equivalence"] < 0.05


@pytest.mark.claim("strength-dose")
def test_strengths_between_the_ends_improve_the_probabilities_on_the_long_tail_and_keep_the_error(records_of):
    def of(strength, regime):
        settings = {"loss_options": {"strength": strength}, "batch_size": 16, "epochs": 30}
        return records_of("experiments/strength", ["gence"], "560-599", **settings, **regime).set_index("seed")

    ce = of(0.0, LONG_TAIL)
    for strength in (0.25, 0.5, 0.75):
        part = of(strength, LONG_TAIL)
        for metric in ("nll", "ece"):
            found = statistics.compare(ce[metric], part[metric])
            assert found["p"] < 0.05 and found["side"] == -1
        if strength == 0.25:
            assert statistics.compare(ce.error, part.error, margin=0.005)["p_equivalence"] < 0.05
    ce = of(0.0, BALANCED)
    for strength in (0.25, 0.5):
        found = statistics.compare(ce.error, of(strength, BALANCED).error, margin=0.005)
        assert found["p_equivalence"] < 0.05


STAND_IN = ["ce", "gence", "brier", "focal", "adafocal"]


@pytest.mark.claim("tabular-stand-in")
@pytest.mark.parametrize("source", SOURCES)
def test_on_the_stand_in_ats_raises_the_nll_of_five_losses_and_gence_against_ce_is_open(source, tmp_path):
    """The page's margin of one scan."""
    if source == "anew":
        fixed = {"dataset": "av1451_synthetic", "batch_size": 128, "epochs": 20, "seeds": "30-49"}
        records = sources.train_grid({"fixed": fixed, "vary": {"loss": STAND_IN}}, tmp_path, progress=False)
        early = records[records.checkpoint == "best"]
        after = sources.recalibrate(early, ["none", "ats"], n_bins=20)
    else:
        early, after = (table_of("experiments/tabular", name) for name in ("records", "after"))
    errors = early.pivot(index="seed", columns="loss", values="error")
    gap = statistics.compare(errors["ce"], errors["gence"], margin=1 / SCANS)
    assert gap["n"] == 20 and gap["p"] > 0.05 and gap["p_equivalence"] > 0.05
    wide = after.pivot(index="seed", columns=["loss", "calibrator"], values="nll")
    for loss in STAND_IN:
        assert (wide[loss, "ats"] - wide[loss, "none"]).mean() > 0, loss
