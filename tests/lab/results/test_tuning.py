"""Equal tuning: the best try on its own seeds is the one that is compared on the others."""

from __future__ import annotations

import pandas as pd
import pytest

from gence.lab import runs
from gence.lab.results import sources, tuning

SETTINGS = {"tier": "smoke", "n_per_class": 5, "loss": "gence"}
TRIES = [{"lr": 1e-6}, {"lr": 0.3}, {"lr": 0.1}]


def test_the_try_with_the_lowest_mean_on_its_own_seeds_is_compared_on_the_others():
    compared, tried = tuning.tuned(SETTINGS, TRIES, [0, 1], [2, 3])
    means = tried.groupby("lr")["val_error"].mean()
    assert set(tried["seed"]) == {0, 1}
    assert compared["seed"].tolist() == [2, 3]
    assert compared["lr"].unique().tolist() == [means.idxmin()]
    assert means.idxmin() != 1e-6


def test_another_column_may_choose(monkeypatch):
    values = {1e-6: 0.1, 0.3: 0.2, 0.1: 0.3}
    monkeypatch.setattr(tuning, "trained", lambda one, seeds: pd.DataFrame([one | {"x": values[one["lr"]]}]))
    compared, _ = tuning.tuned({}, TRIES, [0], [1], by="x")
    assert compared["lr"].tolist() == [1e-6]


def test_the_records_are_those_of_a_run_with_its_validation_scores(tmp_path):
    found = tuning.trained(SETTINGS | {"lr": 0.1}, [4])
    runs.execute(runs.RunParameters.of(**SETTINGS, lr=0.1, seeds=[4], out=str(tmp_path)), progress=False)
    kept = runs.read_records(tmp_path).query("checkpoint == 'last'").reset_index(drop=True)
    same = ["identity", "seed", "lr", "error", "nll", "train_error"]
    pd.testing.assert_frame_equal(found[same], kept[same])
    pd.testing.assert_frame_equal(found[["val_error", "val_nll"]], sources.on_validation(kept))


def test_a_try_that_diverges_is_left_out_and_none_left_is_said(monkeypatch):
    def trained(one, seeds):
        if one["lr"] > 0.2:
            raise FloatingPointError
        return pd.DataFrame({"lr": [one["lr"]], "seed": list(seeds)[:1], "val_error": [one["lr"]]})

    monkeypatch.setattr(tuning, "trained", trained)
    compared, tried = tuning.tuned({}, TRIES, [0], [1])
    assert tried["lr"].tolist() == [1e-6, 0.1]
    assert compared["lr"].tolist() == [1e-6]
    with pytest.raises(ValueError, match="every one of 1 tries diverges"):
        tuning.tuned({}, [{"lr": 0.3}], [0], [1])


def test_a_seed_that_chooses_is_not_compared():
    with pytest.raises(ValueError, match=r"seeds \[1\] choose and are compared"):
        tuning.tuned(SETTINGS, TRIES, [0, 1], [1, 2])
