"""Verdicts on predictions are computed from the records, by the rule that was written down."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gence import predictions, runs, statistics
from gence.predictions import groups_of_classes, judge, load_predictions, variants

SEEDS = 20


def records(**effects: float) -> pd.DataFrame:
    """Errors of "loss_batch" around the given means; the seeds share a difficulty of their own."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.02, SEEDS)
    rows = []
    for name, mean in effects.items():
        loss, size = name.rsplit("_", 1)
        own = rng.normal(0, 0.004, SEEDS)
        for seed in range(SEEDS):
            error = mean + shared[seed] + own[seed]
            rows.append({"loss": loss, "batch_size": size, "seed": seed, "error": error, "rho": 50.0})
    table = pd.DataFrame(rows).assign(checkpoint="last", dataset="digits")
    nested = {"loss_options": {}, "recipe_options": {}, "class_error": [0.1] * 10}
    return table.assign(**{name: [value] * len(table) for name, value in nested.items()})


def prediction(terms: str, expect: str, **more) -> dict:
    fixed = {"id": "P", "says": "s", "why": "w", "grid": "g", "metric": "error", "checkpoint": "last", "rho": 50}
    return fixed | {"terms": terms, "expect": expect} | more


def verdicts(table: pd.DataFrame, *asked: dict) -> list[str]:
    return judge(list(asked), lambda grid: table)["verdict"].tolist()


@pytest.mark.parametrize(
    ("gap", "expect", "verdict"),
    [
        (-0.02, "< 0", "met"),
        (0.02, "< 0", "refuted"),
        (0.02, "> 0", "met"),
        (-0.02, "> 0", "refuted"),
        (0.0, "< 0", "open"),
        (0.0, "> 0", "open"),
        (0.0, "0 +- 0.01", "met"),
        (0.05, "0 +- 0.01", "refuted"),
        (-0.05, "0 +- 0.01", "refuted"),
        (0.01, "0 +- 0.01", "open"),
    ],
)
def test_a_known_effect_gets_its_verdict(gap, expect, verdict):
    table = records(ce_8=0.2, gence_8=0.2 + gap)
    assert verdicts(table, prediction("gence @ 8 - ce @ 8", expect)) == [verdict]


def test_difference_interval_and_p_values_are_those_of_scipy():
    table = records(ce_8=0.2, gence_8=0.195, ce_64=0.2, gence_64=0.2)
    asked = prediction("gence @ 8 - ce @ 8 - gence @ 64 + ce @ 64", "< 0"), prediction("ce @ 8 - ce @ 64", "0 +- 0.01")
    found = judge(list(asked), lambda grid: table)
    wide = table.assign(run=table.loss + table.batch_size).pivot(index="seed", columns="run", values="error")
    sums = wide.gence8 - wide.ce8 - wide.gence64 + wide.ce64, wide.ce8 - wide.ce64
    p = {
        (shift, side): stats.wilcoxon(sums[1] + shift, alternative=side).pvalue
        for shift in (-0.01, 0.01)
        for side in ("less", "greater")
    }
    inside = max(p[-0.01, "less"], p[0.01, "greater"])
    outside = min(1, 2 * min(p[0.01, "less"], p[-0.01, "greater"]))
    assert np.allclose(found.p, [stats.wilcoxon(sums[0]).pvalue, inside], rtol=1e-9)
    assert np.allclose(found.p_outside, [np.nan, outside], rtol=1e-9, equal_nan=True)
    assert inside < found.p[0] and np.allclose(found.p_holm, [2 * found.p[0], 2 * inside])  # two rows
    for row, values in zip(found.itertuples(), sums, strict=True):
        compared = statistics.compare(0 * values, values)
        assert np.allclose([row.difference, row.low, row.high], [compared[k] for k in ("difference", "low", "high")])


def test_met_and_refuted_need_the_same_evidence():
    """Whatever the gap, a prediction is met exactly where its opposite is refuted."""
    for expected, opposite in (("< 0", "> 0"), ("> 0", "< 0")):
        seen = set()
        for gap in np.linspace(-0.008, 0.008, 9):
            table = records(ce_8=0.2, gence_8=0.2 + gap)
            pair = [verdicts(table, prediction("gence @ 8 - ce @ 8", e))[0] for e in (expected, opposite)]
            assert pair in (["met", "refuted"], ["refuted", "met"], ["open", "open"])
            seen.add(pair[0])
        assert seen == {"met", "refuted", "open"}


def test_holm_counts_the_predictions_of_a_family_and_no_others():
    """One of many: an effect that is clear alone is not when four hundred others are asked with it."""
    rng = np.random.default_rng(3)
    table = records(ce_8=0.2, gence_8=0.2)
    change = np.concatenate([np.zeros(SEEDS), rng.normal(-0.003, 0.004, SEEDS)])
    table["error"] = np.concatenate([table.error[:SEEDS]] * 2) + change
    asked = prediction("gence @ 8 - ce @ 8", "< 0")
    assert verdicts(table, asked) == ["met"]
    assert verdicts(table, asked, *[prediction("gence @ 8 - ce @ 8", "0 +- 0.003")] * 60)[0] == "open"
    assert verdicts(table, asked, *[prediction("gence @ 8 - ce @ 8", "> 0", grid="h")] * 60)[0] == "met"


def test_a_run_that_is_missing_is_not_run_and_never_met():
    table = records(ce_8=0.2, gence_8=0.1)
    asked = [prediction("gence @ 16 - ce @ 8", "< 0"), prediction("gence @ 8 - ce @ 8", "< 0", rho=10)]
    assert verdicts(table, *asked) == ["not run", "not run"]


def test_different_seeds_are_refused():
    table = records(ce_8=0.2, gence_8=0.1)
    with pytest.raises(ValueError, match="different seeds"):
        verdicts(table.iloc[1:], prediction("gence @ 8 - ce @ 8", "< 0"))


def test_variants_and_groups_are_told_apart():
    table = pd.DataFrame(
        {
            "loss": ["gence", "gence", "gence"],
            "loss_options": [{}, {"strength": 0.5}, {}],
            "recipe_options": [{}, {"precision": "bfloat16"}, {"sampler": "class_balanced"}],
            "class_error": [[0.0] * 3 + [0.25] * 4 + [1.0] * 3, [0.5, 0.5], [0.1] * 10],
        }
    )
    assert variants(table).tolist() == ["gence", "gence:strength=0.5", "gence:balanced"]
    groups = groups_of_classes(table)
    assert groups.loc[0].tolist() == [0.0, 0.25, 1.0] and groups.loc[1].isna().all()
    assert np.allclose(groups.loc[2], 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expect": "<0"}, "is not allowed"),
        ({"over": [{"rho": 1, "terms": "gence @ 16 ce @ 16"}]}, "write terms as"),
        ({"why": ""}, "lacks why"),
        ({"pilot_seen": True}, "pilot_seen = True of P is not allowed"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, change, message):
    entry = {"id": "P", "says": "s", "why": "w", "grid": "g", "metric": "error", "expect": "< 0"}
    entry |= {"over": [{"rho": 1, "terms": "gence @ 16 - ce @ 16"}]} | change
    path = tmp_path / "p.yml"
    path.write_text(json.dumps({"predictions": [entry]}))  # JSON is YAML
    with pytest.raises(ValueError, match=message):
        load_predictions(path)


ROUNDS = {"predictions.yml": 20, "predictions_follow_up.yml": 2}


@pytest.mark.parametrize(("file", "number"), ROUNDS.items())
def test_the_predictions_of_the_book_can_be_read_and_name_runs_of_their_grids(file, number):
    import yaml

    asked = load_predictions(file)
    assert len({item["id"] for item in asked}) == number
    folder = predictions.reports.results_folder().parent / "workflow" / "grids"
    for grid in {item["grid"] for item in asked}:
        blocks = yaml.safe_load((folder / f"{grid}.yaml").read_text())
        planned = [
            run for block in (blocks if isinstance(blocks, list) else [blocks]) for run in runs.expand_grid(block)
        ]
        table = pd.DataFrame(
            [
                {"loss": r.loss, "loss_options": r.loss_options, "recipe_options": r.recipe_options, "rho": r.rho}
                | {"batch_size": str(r.batch_size), "seed": s, "checkpoint": c, "dataset": r.dataset, "ece": 0.1}
                | {"error": 0.1, "class_error": [0.1] * 10}
                for r in planned
                for s in r.seeds[:2]
                for c in ("last", "best")
            ]
        )
        mine = [item for item in asked if item["grid"] == grid]
        assert "not run" not in verdicts(table, *mine)


def test_each_prediction_of_the_book_says_what_was_known_and_what_the_old_rule_said():
    asked = [item for file in ROUNDS for item in load_predictions(file)]
    assert {item["pilot_seen"] for item in asked} == {"yes", "near", "no"}
    before = pd.Series([item["verdict_before"] for item in asked]).value_counts()
    assert before.to_dict() == {"met": 36, "open": 15, "refuted": 3}
    # With ten seeds no family is so large that its smallest p cannot reach the level.
    sizes = pd.Series([item["family"] for item in asked]).value_counts()
    seeds = {"minibatch": 20, "minibatch_cifar": 10, "minibatch_longer": 10}
    assert all(size * 2.0 ** (1 - seeds[family]) < 0.05 for family, size in sizes.items())


STATUS = {"met": "holds", "refuted": "fails", "open": "open", "not run": "open"}


def overall(verdicts: pd.Series) -> str:
    """Of a prediction with several tests: refuted if one is, met if all are, else open."""
    found = set(verdicts)
    return "refuted" if "refuted" in found else "met" if found == {"met"} else "open"


@pytest.mark.claim(
    "prediction-1", "prediction-2", "prediction-3", "prediction-4", "prediction-5", "prediction-6", "prediction-7",
    "prediction-8", "prediction-9", "prediction-10", "prediction-11", "prediction-12", "prediction-13",
    "prediction-14", "prediction-15", "prediction-16", "prediction-17", "prediction-18", "prediction-19",
    "prediction-20", "prediction-21", "prediction-22",
)  # fmt: skip
def test_the_ledger_says_of_each_prediction_what_the_records_say():
    import yaml

    path = predictions.reports.results_folder().parent / "book" / "claims.yml"
    ledger = {row["id"]: row["status"] for row in yaml.safe_load(path.read_text(encoding="utf-8"))}
    table = pd.concat([judge(load_predictions(file)) for file in ROUNDS])  # each round has a correction of its own
    for name, verdict in table.groupby("id").verdict.agg(overall).items():
        assert ledger[f"prediction-{name[1:]}"] == STATUS[verdict], name


def lost_classes(records: pd.DataFrame, variant: str) -> pd.Series:
    """Seed to the number of classes of which no test image is recognised."""
    mine = records[(records["variant"] == variant) & (records["checkpoint"] == "last")].set_index("seed")
    return mine["class_error"].map(lambda errors: sum(error == 1 for error in errors)).sort_index()


@pytest.mark.claim("lost-classes")
def test_on_balanced_cifar100_gence_loses_classes_in_every_seed_and_cross_entropy_few():
    for grid, settings in (("minibatch_cifar", 4), ("minibatch_longer", 1)):
        records = predictions.reports.collected(grid)
        records = records[records["dataset"] == "cifar100"]
        records = records.assign(variant=variants(records))
        assert records["batch_size"].nunique() == settings
        for _, part in records.groupby("batch_size"):
            gence, ce = lost_classes(part, "gence"), lost_classes(part, "ce")
            assert len(gence) == len(ce) == 10
            assert (gence > ce).all()
    fitted = records[records["checkpoint"] == "last"].set_index(["variant", "seed"])["train_error"]
    assert (fitted["ce"] == 0).all()
    whole_classes = 100 * fitted["gence"]  # of 100 classes of equal size
    assert (whole_classes >= 1 - 1e-6).all() and np.allclose(whole_classes, whole_classes.round(), atol=0.05)
