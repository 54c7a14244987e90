"""Networks from pixels: who was tuned how, and what the page says in words, from the records by another way."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd
import pytest
import yaml
from references import exact_p

from gence.lab import runs
from gence.lab.results import predictions, sources

KEY = ["dataset", "n_per_class", "rho", "batch_size", "variant"]
BALANCED = [("cifar10", 50, 1, 32), ("cifar10", 100, 1, 32), ("cifar10", 100, 1, 128), ("cifar100", 50, 1, 128)]
MORE_BALANCED = [("cifar10", 300, 1, 32), ("cifar10", 300, 1, 512)]
TAILS = [("cifar10", 500, 100, 32), ("cifar10", 500, 100, 128)]
MORE_TAILS = [("cifar10", 500, 100, 512), ("cifar100", 100, 100, 128)]
SETTINGS = [*BALANCED, *MORE_BALANCED, *TAILS, *MORE_TAILS]
GENTLE = ("cifar10", 500, 10, 32)  # a shorter search, ten seeds
FOCAL = ["flsd_53", "dual_focal", "adafocal"]
PAPER = ["brier", "mmce_w:official=True", *FOCAL]


def named(grid: str) -> pd.DataFrame:
    table = sources.collected(grid)
    return table.assign(variant=predictions.variants(table))


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    return named("pixels")


@pytest.fixture(scope="module")
def tuning() -> pd.DataFrame:
    table = named("pixels_rates")
    return table[table.checkpoint == "last"]


def wide(records: pd.DataFrame, setting: tuple, metric: str = "error", checkpoint: str = "last") -> pd.DataFrame:
    here = (records[KEY[:4]] == list(setting)).all(axis=1) & (records.checkpoint == checkpoint)
    return records[here].pivot(index="seed", columns="variant", values=metric)


def test_every_loss_got_the_pair_with_the_lowest_validation_error_of_as_many_trainings(records, tuning):
    own = records[records.variant != "ce:balanced"]  # it has the rate of cross-entropy
    compared = own.groupby(KEY)[["lr", "epochs"]].agg(["min", "max"])
    for key, chosen in compared.iterrows():
        tried = tuning[(tuning[KEY] == list(key)).all(axis=1)]
        mean = tried.groupby(["lr", "epochs"])[["val_error", "val_nll"]].mean()
        assert len(mean) == (2 if key[:4] == GENTLE else 8)
        assert (tried.groupby(["lr", "epochs"]).seed.nunique() == 2).all()
        best = mean.sort_values(["val_error", "val_nll"]).index[0]
        assert (chosen["lr"] == best[0]).all() and (chosen["epochs"] == best[1]).all(), key


def test_no_seed_that_chose_is_compared(records, tuning):
    for grid in ("pixels_control", "pixels_gentle"):
        fresh = sources.collected(grid)
        for one, other in pairwise((set(tuning.seed), set(records.seed), set(fresh.seed), set(tuning.seed))):
            assert one.isdisjoint(other)
    for key, seeds in records.groupby([*KEY, "checkpoint"]).seed.nunique().items():
        assert seeds == (10 if key[:4] == GENTLE else 12), key


def test_the_grid_holds_the_chosen_pairs(records):
    file = sources.results_folder().parent / "workflow" / "grids" / "pixels.yaml"
    planned = [run for block in yaml.safe_load(file.read_text("utf-8")) for run in runs.expand_grid(block)]
    asked = {
        (r.dataset, r.n_per_class, r.rho, r.batch_size, r.loss, str(r.loss_options), r.lr, r.epochs) for r in planned
    }
    options = records.loss_options.map(str)
    columns = ["dataset", "n_per_class", "rho", "batch_size", "loss", "options", "lr", "epochs"]
    found = set(records.assign(options=options)[columns].itertuples(index=False, name=None))
    assert asked == found


def test_what_the_page_says_of_balanced_classes(records):
    plain = ["gence", "present_class", "ce:label_smoothing=0.1", "gence:strength=0.5"]
    for setting in (*BALANCED, *MORE_BALANCED):
        error = 100 * wide(records, setting)
        mine = error[error.columns.intersection(plain)]
        assert (mine.sub(error.ce, axis=0).mean().abs() < 1).all()  # within a point of each other
        if setting != BALANCED[0]:
            assert exact_p(error.gence - error.ce) > 0.05
    few = 100 * wide(records, BALANCED[0])
    assert exact_p(few.gence - few.ce) < 0.05 and -0.8 < (few.gence - few.ce).mean() < -0.4  # half a point
    assert exact_p(few.present_class - few.ce) > 0.05
    for setting in BALANCED[1:]:
        smooth = "ce:label_smoothing=0.1"
        raw, one = (wide(records, setting, metric).mean()[[*plain, "ce"]] for metric in ("nll", "ts_nll"))
        assert raw.idxmin() == smooth and one.idxmax() == smooth  # one temperature takes it from first to last
    alike = 100 * wide(records, MORE_BALANCED[0])
    assert (alike["ce:balanced"] - alike.ce).mean() > 0  # batches that hold all classes alike gain nothing there


def test_what_the_page_says_of_the_long_tail(records):
    small, large = (100 * wide(records, setting) for setting in TAILS)
    gain = (small.ce - small.gence).mean()
    assert 1.3 < gain < 2 and gain > (large.ce - large.gence).mean() + 0.7
    assert 0.7 < (small.gence - small.present_class).mean() < 1.7  # a point
    for error in (small, large):
        assert 5 < (error.ce - error.logit_adjustment).mean() < 7
        assert error.mean().idxmin() == "logit_adjustment"
    half = (small.ce - small["gence:strength=0.5"]).mean()
    assert 0 < half < gain
    largest, many = (100 * wide(records, setting) for setting in MORE_TAILS)
    assert exact_p(largest.gence - largest.ce) > 0.05
    assert (many.gence < many.ce).all() and (many.ce - many.gence).mean() > 1
    assert abs((many.gence - many.present_class).mean()) < 0.2  # "as much or more"
    assert many.mean().idxmin() == "logit_adjustment"
    adjusted = {
        setting: (100 * wide(records, setting)).eval("gence - logit_adjustment").mean()
        for setting in (TAILS[0], GENTLE, MORE_TAILS[1])
    }
    assert [round(value) for value in adjusted.values()] == [4, 2, 1] and adjusted[MORE_TAILS[1]] < 1


def test_what_the_page_says_of_the_losses_of_the_paper(records, tuning):
    """On the tail and on 100 balanced images of each class, in batches of 32, each against GenCE and CE."""
    tail, even = (100 * wide(records, setting) for setting in (TAILS[0], BALANCED[1]))
    seven = tail[["ce", "gence", *PAPER]].mean().sort_values()
    assert list(seven.index[:3]) == ["gence", "ce", "mmce_w:official=True"] and seven.index[-1] == "adafocal"
    assert all((tail[loss] - tail.gence).mean() > 2 for loss in PAPER)
    long = tuning[(tuning[KEY[:4]] == list(TAILS[0])).all(axis=1) & (tuning.epochs == 90)]
    equal = long.groupby(["lr", "variant"]).val_error.mean().unstack()
    assert len(equal) == 4 and all((equal.gence < equal[loss]).all() for loss in PAPER)
    for loss in ("brier", *FOCAL):  # more than cross-entropy, corrected by the number of losses beside it
        assert (tail.columns.size - 1) * exact_p(tail[loss] - tail.ce) < 0.05 and (tail[loss] - tail.ce).mean() > 0
    for loss in PAPER:
        lead = {base: (even[loss] - even[base]).mean() for base in ("ce", "gence")}
        assert lead["ce"] > lead["gence"] > 0
        shown = len(PAPER) * exact_p(even[loss] - even.ce) < 0.05
        assert shown == (loss != "brier") and (not shown or 1 < lead["ce"] < 2.5)
    costs = [(tail[loss] - tail.ce).mean() for loss in FOCAL]
    assert min(costs) > 1 and max(costs) < 6


def test_what_the_page_says_of_class_balanced_cross_entropy(records, tuning):
    mine = (tuning[KEY[:4]] == list(TAILS[0])).all(axis=1) & (tuning.loss == "class_balanced")
    chosen = records[(records.loss == "class_balanced") & (records.checkpoint == "last")]
    assert set(chosen.lr) == {tuning[mine].lr.min()}
    first = records.join(predictions.groups_of_classes(records))
    head = 100 * wide(first, TAILS[0], "head").mean()
    assert head.class_balanced > head.gence + 10 and head.class_balanced == head.max()
    assert 90 < (1 - 0.9999**500) / (1 - 0.9999**5) < 110  # a hundredfold, about


def test_what_the_page_says_of_their_calibration(records):
    even = {name: 100 * wide(records, BALANCED[1], f"{name}_ece").mean() for name in ("raw", "ts", "ats")}
    assert all(even["raw"][loss] < even["raw"].gence - 10 for loss in FOCAL)
    assert {"ce", "gence"} <= set(even["ts"].nsmallest(3).index) and even["ts"].max() < 2.5
    assert min(even["ats"].ce, even["ats"].gence) > 5 and all(even["ats"][loss] < 2.5 for loss in FOCAL)
    classwise = wide(records, TAILS[0], "ats_classwise_ece").mean()
    assert classwise[["ce", "gence", *PAPER]].idxmin() == "gence"
    assert max(classwise.present_class, classwise.logit_adjustment) < classwise.gence


def test_what_the_page_says_of_foreign_images(records):
    """Ten tests against cross-entropy, one of them shown; AdaFocal ahead with balanced classes, behind on the tail."""

    def auroc(setting):
        here = (records[KEY[:4]] == list(setting)).all(axis=1) & (records.checkpoint == "last")
        other = "cifar100" if setting[0] == "cifar10" else "cifar10"
        scores = [100 * scores[other]["entropy"]["auroc"] for scores in records[here].foreign_scores]
        return records[here].assign(auroc=scores).pivot(index="seed", columns="variant", values="auroc")

    shown = {s: len(SETTINGS) * exact_p(auroc(s).eval("gence - ce")) < 0.05 for s in SETTINGS}
    assert [setting for setting, is_so in shown.items() if is_so] == [MORE_TAILS[1]]
    assert auroc(MORE_TAILS[1]).eval("gence - ce").mean() > 1
    assert 2.5 < auroc(BALANCED[1]).eval("adafocal - gence").mean() < 3
    assert 1.5 < auroc(TAILS[0]).eval("gence - adafocal").mean() < 2


def test_what_the_page_says_of_the_gentle_tail_on_fresh_seeds():
    table = named("pixels_gentle")
    error = 100 * table[table.checkpoint == "last"].pivot(index="seed", columns="variant", values="error")
    assert len(error) == 12 and error.mean().idxmin() == "logit_adjustment" and error.mean().idxmax() == "ce:balanced"
    gain, adjusted = (error.ce - error.gence).mean(), (error.ce - error.logit_adjustment).mean()
    assert 0.5 < gain < 0.9 and 3.5 < adjusted / gain < 4.6


def test_the_short_search_of_the_gentle_tail_holds_what_all_losses_had_chosen_in_small_batches(records, tuning):
    """Of the settings that had been run by then; the losses of the paper came later."""
    first = [BALANCED[0], BALANCED[1], TAILS[0]]
    keys = pd.MultiIndex.from_frame(records[KEY[:4]])
    elsewhere = records[keys.isin(first) & ~records.loss.isin([*PAPER, "mmce_w", "class_balanced"])]
    tried = tuning[tuning.rho == 10]
    assert set(tried.lr) == set(elsewhere.lr) == {0.1, 0.3}
    assert set(tried.epochs) == set(elsewhere.epochs) == {90}


def test_what_the_page_says_of_the_gentle_tail(records):
    """Fewer errors on every seed, of rare classes; more of frequent ones; a lower NLL, a little of it after T."""
    table = records.join(predictions.groups_of_classes(records))

    def gap(metric, checkpoint="last", setting=GENTLE):
        values = wide(table, setting, metric, checkpoint)
        assert len(values) == (10 if setting == GENTLE else 12)
        return values.gence - values.ce

    assert (gap("error") < 0).all() and (gap("error") < -0.02).sum() == 1  # one seed has three points
    assert 0.35 < gap("error").mean() / gap("error", setting=TAILS[0]).mean() < 0.65  # half of the steep one
    assert abs(gap("tail").mean() - gap("tail", setting=TAILS[0]).mean()) < 0.005 and gap("tail").mean() < -0.03
    assert gap("head").mean() > 0.004 and abs(gap("middle").mean()) < 0.003
    assert (gap("nll") < 0).all() and (gap("ts_nll") < 0).all() and gap("ts_nll").mean() > gap("nll").mean() / 3
    assert -0.045 < gap("error", "best").mean() < -0.03
    stops = wide(table, GENTLE, "best_epoch", "best").mean()
    assert stops.gence > stops.ce + 10
    paper = (
        sources.paper_cells(3, metric="test_error")
        .query("rho == 10")
        .pivot(index="model", columns="loss", values="mean")
    )
    assert 100 * gap("error").mean() < (paper["GenCE"] - paper["CE"]).min()


def test_what_the_page_says_of_equal_rates(tuning):
    """On the long tail in batches of 32 GenCE is ahead at every rate of the long training; nowhere else it is."""

    def gaps(setting):
        long = tuning[(tuning[KEY[:4]] == list(setting)).all(axis=1)]
        long = long[long.epochs == long.epochs.max()]
        error = long.groupby(["lr", "variant"]).val_error.mean().unstack()
        return error.gence - error.ce

    assert all((gaps(setting) < 0).all() for setting in (TAILS[0], *MORE_TAILS))
    assert all((gaps(setting) > 0).any() for setting in (*BALANCED, *MORE_BALANCED, TAILS[1]))
    assert gaps(MORE_TAILS[1]).mean() > -0.005 and gaps(MORE_TAILS[1]).idxmin() == gaps(MORE_TAILS[1]).index[-1]
    assert gaps(MORE_TAILS[0]).idxmin() == gaps(MORE_TAILS[0]).index[-1]
    assert gaps(BALANCED[0]).iloc[-1] > 0  # 50 images: the two tuning seeds say the contrary of the twelve


def test_what_the_page_says_of_the_moment_of_stopping(records):
    for setting in (*BALANCED, *MORE_BALANCED, *TAILS):
        error = wide(records, setting, checkpoint="best")
        assert exact_p(error.gence - error.ce) > 0.05
    large, many = (wide(records, setting, checkpoint="best").eval("gence - ce") for setting in MORE_TAILS)
    assert exact_p(large) < 0.05 and large.mean() > 0.05 and exact_p(many) < 0.05 and many.mean() < -0.05
    for setting in (*TAILS, *MORE_TAILS, BALANCED[3]):
        nll = wide(records, setting, "nll", checkpoint="best")
        assert exact_p(nll.gence - nll.ce) < 0.05 and (nll.gence - nll.ce).mean() < 0


def test_what_the_page_says_of_the_control():
    """Half a point again, for GenCE and for cross-entropy in batches that hold all classes alike; neither is shown."""
    table = named("pixels_control")
    error = 100 * table[table.checkpoint == "last"].pivot(index="seed", columns="variant", values="error")
    for variant in ("gence", "ce:balanced"):
        gap = error[variant] - error.ce
        assert -0.8 < gap.mean() < -0.3
        assert 0.02 < exact_p(gap) < 0.05 < 3 * exact_p(gap)  # three tests in the family
    assert abs((error.gence - error["ce:balanced"]).mean()) < 0.3
