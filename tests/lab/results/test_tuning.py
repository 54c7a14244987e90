"""Equal tuning: the best try on its own seeds is the one that is compared on the others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from gence import metrics
from gence.lab import data, runs
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


@pytest.mark.parametrize("loss", ["gence", "adafocal"])  # trained together, and one after the other
def test_more_inputs_change_nothing_and_are_scored_by_the_trained_network(loss, tmp_path):
    settings = SETTINGS | {"loss": loss, "lr": 0.1}
    test = data.load_splits("digits", 4, n_per_class=5).x_test
    more = {"first": test[:7], "again": test[3:5]}
    found = tuning.trained_on_more(settings, [4, 5], more)
    records = tuning.trained(settings, [4, 5])
    for (splits, _, logits), record in zip(found, records.to_dict("records"), strict=True):
        assert metrics.error_rate(softmax(logits["test"], axis=1), splits.y_test) == record["error"]
        assert metrics.error_rate(softmax(logits["val"], axis=1), splits.y_val) == record["val_error"]
    _, _, logits = found[0]
    np.testing.assert_allclose(logits["first"], logits["test"][:7], atol=1e-9)
    np.testing.assert_allclose(logits["again"], logits["test"][3:5], atol=1e-9)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"val": np.zeros((1, 64))}, "may not be named val"),
        ({"a": np.zeros((1, 63))}, r"'a' .* \(63,\), but needs \(64,\)"),
    ],
)
def test_more_inputs_that_cannot_be_scored_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        tuning.trained_on_more(SETTINGS, [0], more)


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
