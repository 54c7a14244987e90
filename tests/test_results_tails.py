"""The statements of the pages on long tails and on scarce labels: the paper's arithmetic, and small runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gence import data, losses, models, recipes, reports, training

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
    cells = reports.paper_cells(number, metric=metric).set_index(["rho", "model", "loss"])[column]
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


@pytest.mark.claim("C4")
def test_gence_does_not_beat_all_baselines_everywhere():
    def won(values):
        return int((values[..., -1] < values[..., :-1].min(-1)).sum())

    assert won(table(ERROR)) == 7
    assert won(table(AFTER)) == 6
    assert won(stored(4, "ClasswiseECE", "before_ats")) == 0


def runs_of(loss: str, batch_size: int | str, epochs: int, lr: float, rho: float, n: int, seeds: range) -> np.ndarray:
    """Test error of each class, one row for each seed."""
    splits = [data.load_splits("digits", seed, n, rho) for seed in seeds]
    nets = [models.make_model("mlp", 64, 10, seed) for seed in seeds]
    options = {"class_counts": splits[0].class_counts.tolist()} if loss == "logit_adjustment" else {}
    recipe = recipes.make_recipe("laptop", batch_size=batch_size, epochs=epochs, lr=lr)
    outcomes = training.train_many(nets, splits, losses.make_loss(loss, **options), recipe, seeds, progress=False)
    wrong = [
        outcome.logits["last"]["test"].argmax(1) != split.y_test
        for outcome, split in zip(outcomes, splits, strict=True)
    ]
    return np.array([[w[split.y_test == k].mean() for k in range(10)] for w, split in zip(wrong, splits, strict=True)])


def test_a_small_batch_of_a_long_tail_lacks_the_tail():
    counts = data.long_tail_counts(50, 50, 10)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), counts)
    drawn = [np.bincount(rng.permutation(labels)[:16], minlength=10) == 0 for _ in range(4000)]
    expected = stats.hypergeom.pmf(0, counts.sum(), counts, 16)
    assert np.allclose(np.mean(drawn, axis=0), expected, atol=0.03)
    assert expected[0] < 0.01 and expected[9] > 0.85 and 4 < expected.sum() < 4.5


SEEDS = range(6)


@pytest.fixture(scope="module")
def short_run() -> dict[str, np.ndarray]:
    """An imbalance ratio of 50, batches of 16, and few epochs; all seeds of the page, because single ones spread."""
    return {loss: runs_of(loss, 16, 30, 0.1, 50, 50, range(20)) for loss in ("ce", "gence", "logit_adjustment")}


@pytest.mark.claim("tails-slow")
def test_after_a_short_training_gence_is_behind(short_run):
    assert short_run["gence"].mean() > short_run["ce"].mean() + 0.01


@pytest.mark.claim("tails-rival")
def test_logit_adjustment_is_the_stronger_rival(short_run):
    head, tail = ({loss: errors[:, at].mean() for loss, errors in short_run.items()} for at in ([0, 1, 2], [7, 8, 9]))
    assert tail["logit_adjustment"] < min(tail["gence"], tail["ce"]) - 0.1
    assert head["logit_adjustment"] > head["gence"]


@pytest.mark.claim("tails-batch")
def test_the_gain_in_the_tail_needs_small_batches():
    def gain(batch_size, epochs, lr):
        ce, gence = (runs_of(loss, batch_size, epochs, lr, 10, 50, SEEDS) for loss in ("ce", "gence"))
        return (gence - ce)[:, 7:].mean()

    small, whole = gain(16, 62, 0.1), gain("full", 120, 0.2)
    assert small < -0.01
    assert whole > small + 0.01


@pytest.mark.claim("scarce-nll")
@pytest.mark.claim("scarce-error")
def test_with_scarce_labels_nll_gains_and_error_does_not(tmp_path):
    fixed = {"seeds": list(SEEDS), "batch_size": 16, "epochs": 100, "n_per_class": 2}
    records = reports.train_grid({"fixed": fixed, "vary": {"loss": ["ce", "gence"]}}, tmp_path, progress=False)
    last = records[records["checkpoint"] == "last"].pivot(index="seed", columns="loss")
    nll, error = (last[name]["gence"] - last[name]["ce"] for name in ("nll", "error"))
    assert (nll < 0).all()
    assert abs(error.mean()) < 0.02  # points beside an error of a quarter
