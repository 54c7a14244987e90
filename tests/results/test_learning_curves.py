"""Learning curves on photographs: who was tuned how, a drawn network again, and what the page says, by another way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawing import drawn
from references import exact_p
from scipy import stats

from gence.lab.results import evidence, tuning

PAGE = "experiments/learning_curves"
SIZES = [5, 10, 20, 50, 100, 200]
CELL = ["n_per_class", "variant"]


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return evidence.recorded(PAGE)


def gap(tables: dict[str, pd.DataFrame], n: int, variant: str, metric: str = "error", base: str = "ce") -> pd.Series:
    at = tables["records"].query("n_per_class == @n").pivot(index="seed", columns="variant", values=metric)
    assert len(at) == 20 and at.notna().all(axis=None)
    return at[variant] - at[base]


def test_every_loss_got_the_pair_with_the_lowest_validation_error_of_as_many_trainings(tables):
    for cell, records in tables["records"].groupby(CELL):
        tried = tables["tuning"].set_index(CELL).loc[[cell]]
        mean = tried.groupby(["lr", "epochs"]).val_error.mean()
        assert len(mean) == 9 and (tried.groupby(["lr", "epochs"]).seed.nunique() == 2).all(), cell
        (chosen,) = set(records[["lr", "epochs"]].itertuples(index=False, name=None))
        assert mean[chosen] == mean.min(), cell
        assert set(tried.seed).isdisjoint(records.seed) and records.seed.nunique() == len(records) == 20


def test_all_sizes_are_seen_for_as_many_steps(tables):
    tried = tables["tuning"].groupby("n_per_class").epochs.unique()
    for n in SIZES:
        steps = np.sort(tried[n]) * np.ceil(n * 100 / 64)
        assert steps == pytest.approx([160, 640, 2560], rel=0.1 if n < 200 else 1.0), n


def test_a_drawn_network_is_what_its_training_gives(tables):
    ((at),) = drawn(range(len(tables["records"])), 1)
    row = tables["records"].loc[at]
    settings = {"dataset": "cifar100_features", "model": "mlp", "n_per_class": int(row.n_per_class), "loss": row.loss}
    settings |= {"batch_size": 64, "lr": row.lr, "epochs": int(row.epochs), "recipe_options": row.recipe_options}
    again = tuning.trained(settings, [int(row.seed)]).loc[0]
    for column in ("error", "nll", "ece", "brier", "train_error", "val_error"):
        assert again[column] == pytest.approx(row[column], abs=1e-4), (dict(row), column)


@pytest.mark.parametrize("n", SIZES)
def test_errors_are_equivalent_within_a_point_but_at_one_size(tables, n):
    """Two one-sided tests against the margin, each at 5 % over twelve: the family of the page."""
    difference = gap(tables, n, "gence")
    one_sided = [
        stats.wilcoxon(difference + 0.01, alternative="greater").pvalue,
        stats.wilcoxon(difference - 0.01, alternative="less").pvalue,
    ]
    assert (max(one_sided) < 0.05 / 12) == (n != 100), one_sided
    if n == 100:
        assert difference.min() > 0 and exact_p(difference) < 0.05 / 12


def test_the_nll_is_lower_with_few_images_and_not_with_many(tables):
    for n in SIZES:
        difference = gap(tables, n, "gence", "nll")
        assert (difference.median() < -0.15 and exact_p(difference) < 0.001) == (n <= 20), n


def test_present_class_cross_entropy_does_the_same(tables):
    apart = [abs(gap(tables, n, "present_class", base="gence").mean()) for n in SIZES]
    assert max(apart) < 0.004


def test_lengths_chosen_by_nll_leave_nothing_of_the_gap(tables):
    mean = tables["tuning"].groupby([*CELL, "lr", "epochs"])[["val_error", "val_nll"]].mean()

    def chosen(n: int, variant: str, by: str) -> pd.Series:
        return mean.loc[(n, variant)].sort_values(by).iloc[0]

    for n in (5, 10, 20):
        by_error, by_nll = (
            chosen(n, "gence", by).val_nll - chosen(n, "ce", by).val_nll for by in ("val_error", "val_nll")
        )
        assert by_error < -0.2 and by_nll > -0.05, n


def test_at_equal_settings_it_is_behind_in_short_trainings_and_level_in_long_ones(tables):
    mean = tables["tuning"].groupby(["n_per_class", "lr", "epochs", "variant"]).val_error.mean().unstack()
    gaps = mean["gence"] - mean["ce"]
    for n in SIZES:
        by_length = gaps.loc[n].unstack("epochs")
        assert (by_length.iloc[:, 0] > 0.005).all()
        assert by_length.loc[0.12].iloc[-1] < 0.003
