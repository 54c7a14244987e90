"""The worked example of the capstone: its theory by another way, its rates by its rule, its points by the script."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import softmax

from gence import make_loss

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import capstone  # noqa: E402
import capstone_folder  # noqa: E402
import yaml  # noqa: E402

GRIDS = ("capstone", "capstone_noise", "capstone_attack")
CELL = ["dataset", "label_noise", "rho", "batch_size", "loss"]


@pytest.mark.parametrize("q", [0.2, 0.5, 0.8])
def test_lq_behind_its_temperature_asks_for_the_belief(q):
    """By a search on the logits that know nothing of the proof; without the temperature it asks for a power."""
    rng = np.random.default_rng(0)
    loss = make_loss("lq", q=q, reduction="none")
    for _ in range(5):
        eta = rng.dirichlet([2, 2, 2])

        def risk(z: np.ndarray, sharper: float, eta: np.ndarray = eta) -> float:
            seen = torch.as_tensor(np.tile(sharper * z, (3, 1)))
            return float(eta @ loss(seen, torch.arange(3)).numpy())

        for sharper, wanted in ((1 / (1 - q), eta), (1.0, eta ** (1 / (1 - q)))):
            options = {"method": "BFGS", "options": {"gtol": 1e-9}}
            found = softmax(minimize(risk, np.log(eta), args=(sharper,), **options).x)
            assert np.abs(found - wanted / wanted.sum()).max() < 1e-4


def test_every_rate_is_the_one_that_the_rule_chose_on_other_seeds():
    tuning = pd.read_csv(ROOT / "results" / "capstone_rates.csv").query("checkpoint == 'last'")
    mean = tuning.groupby([*CELL, "lr"])[["val_error", "val_nll"]].mean().reset_index()
    best = mean.sort_values(["val_error", "val_nll"]).groupby(CELL).first()["lr"]
    n_compared = 0
    for name in GRIDS:
        compared = pd.read_csv(ROOT / "results" / f"{name}.csv")
        assert not set(compared["seed"]) & set(tuning["seed"])
        for cell, rates in compared.groupby(CELL)["lr"]:
            assert set(rates) == {best[cell]}, (name, cell)
            n_compared += 1
    assert n_compared == len(best) == 16


def test_the_script_finds_the_predictions_first_and_the_records_whole():
    """The rows that need no loss of its own: the example is made of one that the book has."""
    says = {"loss": "gence.losses.pointwise:lq_loss", "variant": "lq:q=0.5", "tests": ["tests/results/test_trial.py"]}
    says |= {"rivals": ["logit_adjustment", "temperature"], "predictions": "book/predictions_capstone.yml"}
    says |= {
        "grids": [f"workflow/grids/{name}.yaml" for name in (*GRIDS, "capstone_rate")],
        "verdicts": "results/none.csv",
    }
    work = capstone.Work(ROOT, capstone_folder.HandedIn(**says, page="notebooks/experiments/trial.ipynb"))
    for check in (capstone.can_be_read, capstone.has_seeds_and_rivals, capstone.are_complete):
        assert list(check(work)) == []
    if not (ROOT / ".git").exists() or work.git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("a copy without its history cannot say what came first")
    assert list(capstone.come_first(work)) == []


def test_the_grids_hold_what_the_records_hold():
    for name in GRIDS:
        planned = capstone.runs_of(yaml.safe_load((ROOT / "workflow" / "grids" / f"{name}.yaml").read_text()))
        table = pd.read_csv(ROOT / "results" / f"{name}.csv")
        assert table["identity"].nunique() == len(planned)
