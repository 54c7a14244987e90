"""The statements of the pages on long tails and on scarce labels: the paper's arithmetic, and small runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from evidence_of import trained
from scipy import stats

from gence.lab import data
from gence.lab.results import predictions, sources, statistics

# Tables 3 and 4 of the paper, in per cent. Columns: CE, Brier, MMCE, FLSD, DFL, AFL, GenCE. Rows: ResNet-50,
# ResNet-110, Wide-ResNet, DenseNet-121, at rho = 10, then at rho = 100.
ERROR = """
10.55 10.90 10.55 11.44 11.04 11.71 10.28
10.54 10.86 10.61 11.38 10.93 11.72 10.44
 9.08  9.65  9.06  9.47  9.15 10.70  9.03
10.23 10.03 10.11 11.16 10.46 11.52 10.06
26.62 31.05 26.69 28.43 26.89 29.92 25.35
26.85 30.82 26.77 28.16 27.00 29.24 25.62
25.20 27.58 25.01 26.88 25.63 28.79 23.75
26.02 25.30 26.07 26.84 26.21 28.92 23.79
"""
AFTER = """
1.24 1.24 1.28 1.34 1.31 1.36 1.20
1.23 1.24 1.22 1.39 1.28 1.42 1.22
1.08 1.12 1.08 1.16 1.14 1.39 1.07
1.21 1.12 1.23 1.30 1.21 1.31 1.15
3.76 3.95 3.74 4.15 3.88 4.54 3.46
3.75 3.89 3.75 4.20 3.86 4.51 3.45
3.71 3.75 3.64 4.18 3.90 4.52 3.37
3.59 3.41 3.59 4.01 3.76 4.31 3.19
"""
LOSSES = ["CE", "Brier", "MMCE", "FLSD", "DFL", "AFL", "GenCE"]
NETWORKS = ["ResNet-50", "ResNet-110", "Wide-ResNet", "DenseNet-121"]


def table(text: str) -> np.ndarray:
    """(rho, network, loss)."""
    return np.array(text.split(), dtype=float).reshape(2, 4, 7)


def stored(number: int, metric: str, column: str = "mean") -> np.ndarray:
    cells = sources.paper_cells(number, metric=metric).set_index(["rho", "model", "loss"])[column]
    return np.array([[[cells[rho, model, loss] for loss in LOSSES] for model in NETWORKS] for rho in (10, 100)])


def test_the_stored_cells_are_those_of_the_printed_tables():
    assert np.array_equal(stored(3, "test_error"), table(ERROR))
    assert np.array_equal(stored(4, "ClasswiseECE"), table(AFTER))


@pytest.mark.claim("C1")
@pytest.mark.claim("C2")
def test_every_loss_loses_accuracy_with_rho_and_gence_least():
    rise = np.diff(table(ERROR), axis=0)[0]
    assert (rise > 13).all() and (rise < 21).all()
    assert (rise.argmin(1) == LOSSES.index("GenCE")).all()


@pytest.mark.claim("C3")
def test_the_advantage_over_ce_grows_with_rho():
    gain = table(ERROR)[..., 0] - table(ERROR)[..., -1]
    assert (gain[0] > 0).all() and (gain[1] > 4 * gain[0]).all()
    sd = stored(3, "test_error", "std")[..., 0]
    assert (gain[0] < sd[0]).all() and (gain[1] > sd[1]).all()


@pytest.mark.refutes("C4")
def test_gence_does_not_beat_all_baselines_everywhere():
    def won(values):
        return int((values[..., -1] < values[..., :-1].min(-1)).sum())

    assert won(table(ERROR)) == 7
    assert won(table(AFTER)) == 6
    assert won(stored(4, "ClasswiseECE", "before_ats")) == 0


def by_seed(records: pd.DataFrame) -> pd.DataFrame:
    """With the errors of head and tail."""
    return records.join(predictions.groups_of_classes(records)).set_index("seed")


def compared(
    records: pd.DataFrame, metric: str, candidate: str, baseline: str = "ce", margin: float | None = None
) -> dict[str, float]:
    return statistics.compare(
        *(records[records["loss"] == loss][metric] for loss in (baseline, candidate)), margin=margin
    )


def test_a_small_batch_of_a_long_tail_lacks_the_tail():
    counts = data.long_tail_counts(50, 50, 10)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), counts)
    drawn = [np.bincount(rng.permutation(labels)[:16], minlength=10) == 0 for _ in range(4000)]
    expected = stats.hypergeom.pmf(0, counts.sum(), counts, 16)
    assert np.allclose(np.mean(drawn, axis=0), expected, atol=0.03)
    assert expected[0] < 0.01 and expected[9] > 0.85 and 4 < expected.sum() < 4.5


LONG_TAIL = {"n_per_class": 50, "rho": 50.0}


@pytest.mark.refutes("tails-slow")
def test_after_a_short_training_gence_is_behind(tmp_path):
    """Few steps and small ones: with larger ones of the same number the difference shrinks."""
    short = {"n_per_class": 96, "rho": 50.0, "batch_size": 16, "epochs": 20, "lr": 0.02}
    found = compared(by_seed(trained(tmp_path, ["ce", "gence"], "0-9", **short)), "error", "gence")
    assert found["p"] < 0.01 and found["side"] == 1
    assert found["difference"] > 0.02


SMALL = {1.0: {"batch_size": 16, "epochs": 25}, 50.0: {"batch_size": 16, "epochs": 90}}  # by rho
WHOLE = {"batch_size": "full", "epochs": 200, "lr": 0.2}


@pytest.mark.claim("tails-rival")
@pytest.mark.parametrize("batches", [SMALL[50.0], WHOLE], ids=["small", "full"])
def test_logit_adjustment_is_the_stronger_rival(records_of, batches):
    losses = ["ce", "gence", "logit_adjustment"]
    records = by_seed(records_of("experiments/long_tails", losses, "0-7", **batches, **LONG_TAIL))
    for baseline in ("ce", "gence"):
        found = compared(records, "tail", "logit_adjustment", baseline)
        assert found["p"] < 0.01 and found["difference"] < -0.1
    assert compared(records, "head", "logit_adjustment", "gence")["difference"] > 0  # what it pays


@pytest.mark.claim("tails-batch")
def test_the_gain_of_small_batches_belongs_to_long_tails(records_of):
    def gains(rho, batches):
        """GenCE - CE in the tail, by seed."""
        of = {"n_per_class": 50, "rho": rho, **batches}
        records = by_seed(records_of("experiments/long_tails", ["ce", "gence"], "700-719", **of))
        return records[records["loss"] == "gence"]["tail"] - records[records["loss"] == "ce"]["tail"]

    long_tail = statistics.compare(*(gains(50.0, batches) for batches in (WHOLE, SMALL[50.0])))
    assert long_tail["p"] < 0.01 and long_tail["difference"] < -0.03
    balanced = statistics.compare(*(gains(1.0, batches) for batches in (WHOLE, SMALL[1.0])), margin=0.015)
    assert balanced["p_equivalence"] < 0.05


def no_gain(ce: pd.Series, gence: pd.Series, margin: float) -> bool:
    """Whether a gain of `margin` is excluded."""
    return bool(statistics.signed_rank_p(gence - ce + margin, "greater") < 0.05)


@pytest.mark.refutes("scarce-error")
@pytest.mark.parametrize(("n_per_class", "epochs"), [(2, 100), (5, 60)])
def test_scarce_labels_are_not_saved(records_of, n_per_class, epochs):
    batches = {"batch_size": 16, "epochs": epochs, "n_per_class": n_per_class}
    records = records_of("experiments/data_efficiency", ["ce", "gence"], "0-11", **batches).set_index("seed")
    ce, gence = (records[records["loss"] == loss]["error"] for loss in ("ce", "gence"))
    assert no_gain(ce, gence, 0.01)
    assert not no_gain(ce, gence - 0.015, 0.01)  # the same rule sees a gain of one and a half points


@pytest.mark.claim("scarce-nll")
@pytest.mark.parametrize(("n_per_class", "epochs", "side"), [(2, 100, -1), (5, 60, -1), (50, 20, 1), (96, 12, 1)])
def test_with_scarce_labels_nll_gains_and_with_many_it_does_not(records_of, n_per_class, epochs, side):
    batches = {"batch_size": 16, "epochs": epochs, "n_per_class": n_per_class}
    records = records_of("experiments/data_efficiency", ["ce", "gence"], "0-9", **batches).set_index("seed")
    found = compared(records, "nll", "gence")
    assert found["p"] < 0.05 and found["side"] == side


@pytest.mark.refutes("scarce-error")
def test_a_last_batch_of_two_made_the_gain_at_five_images_a_class():
    """The records of the mini-batch chapter: 60 seeds."""
    ragged = sources.collected("ragged")
    ragged = ragged[(ragged["checkpoint"] == "last") & (ragged["batch_size"] == 16)].set_index("seed")
    how = ragged["recipe_options"].map(lambda options: options["last_batch"])
    kept, even = (compared(ragged[how == name], "error", "gence", margin=0.005) for name in ("keep", "even"))
    assert kept["n"] == even["n"] == 60
    assert kept["p"] < 0.05 and kept["side"] == -1
    assert even["p_equivalence"] < 0.001
    kept, even = (compared(ragged[how == name], "nll", "gence") for name in ("keep", "even"))
    assert kept["high"] < even["low"] < even["high"] < 0
