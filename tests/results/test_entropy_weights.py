"""The statements of the page on MIN-ENT's and MIX-ENT's weights, checked without its code."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict

import numpy as np
import pytest
import torch
from holm_by_loop import rejected
from scipy import optimize, stats

from gence import make_loss
from gence.lab.results import evidence
from gence.lab.results.predictions import load_predictions

PAGE = "experiments/entropy_weights"
SEEDS = 12
BATCH = {"digits": 16, "letters": 64}
STRENGTHS = {
    "ce": (0,),
    "gence": (0,),
    "smoothing": (0.05, 0.1, 0.2),
    "focal": (0.5, 1, 2),
    "min_ent": (0.1, 0.5, 1),
    "mix_ent": (0.1, 0.5, 1),
}
PACES = (0, 1e-4, 1e-3, 1e-2, 1e-1)


@pytest.fixture(scope="module")
def records():
    return evidence.recorded(PAGE)["records"]


@pytest.fixture(scope="module")
def curves():
    return evidence.recorded(PAGE)["curves"]


def rank_p(values: np.ndarray, alternative: str) -> float:
    """Wilcoxon's signed-rank test by all patterns of signs; zeros count half on each side."""
    values = values.round(12)
    ranks = stats.rankdata(abs(values))
    seen = (ranks * (np.sign(values) + 1) / 2).sum()
    moving = ranks[values != 0]
    fixed = ranks[values == 0].sum() / 2
    sums = fixed + np.array(list(itertools.product((0, 1), repeat=len(moving)))) @ moving
    below, above = (sums <= seen + 1e-9).mean(), (sums >= seen - 1e-9).mean()
    return {"less": below, "greater": above, "two-sided": min(1.0, 2 * min(below, above))}[alternative]


def p_values(gap: np.ndarray, expect: str) -> list[float]:
    """That the gap is 0; with a margin, that it is at least that, and that it is less."""
    if "+-" not in expect:
        return [rank_p(gap, "two-sided")]
    margin = float(expect.split("+-")[1])
    inside = max(rank_p(gap - margin, "less"), rank_p(gap + margin, "greater"))
    outside = min(rank_p(gap + margin, "less"), rank_p(gap - margin, "greater"))
    return [inside, min(1.0, 2 * outside)]


def of(records, dataset: str, family: str, strength: str, metric: str) -> np.ndarray:
    """A metric of a loss, seed by seed."""
    rows = records[(records.dataset == dataset) & (records.family == family)]
    if strength == "tuned":
        strength = rows.groupby("strength").tuning_error.first().idxmin()
    values = rows[rows.strength == float(strength)].sort_values("seed")[metric].to_numpy()
    assert len(values) == SEEDS
    return values


def gap_of(item, records) -> np.ndarray:
    """The sum of terms of a prediction, seed by seed."""
    total = np.zeros(SEEDS)
    for sign, family, strength, batch in re.findall(r"([+-]?)\s*(\w+)(?::strength=(\S+))? @ (\d+)", item["terms"]):
        assert int(batch) == BATCH[item["dataset"]]
        total += (-1 if sign == "-" else 1) * of(records, item["dataset"], family, strength or "0", item["metric"])
    return total


@pytest.fixture(scope="module")
def verdicts(records) -> dict[str, list[str]]:
    """Prediction to verdicts in the order of the file, as the rules in predictions.yml have it."""
    asked = load_predictions("predictions_entropy_weights.yml")
    gaps = [gap_of(item, records) for item in asked]
    tests = rejected([p_values(gap, item["expect"]) for gap, item in zip(gaps, asked, strict=True)])
    found: dict[str, list[str]] = defaultdict(list)
    for item, gap, out in zip(asked, gaps, tests, strict=True):
        if len(out) == 2:
            verdict = "met" if out[0] else "refuted" if out[1] else "open"
        else:
            as_said = (np.mean(gap) < 0) == (item["expect"] == "< 0")
            verdict = ("met" if as_said else "refuted") if out[0] else "open"
        found[item["id"]].append(verdict)
    return found


def kept(b, log_base):
    """The sum of integrals that the path keeps, by the trapezoid rule from 1."""

    def integral(end):
        at = np.linspace(1.0, end, 4001)
        return np.trapezoid(at / (1 - np.exp(-at)) ** 2, at)

    return integral(b) + integral(log_base)


@pytest.mark.claim("entropy-weights-path")
@pytest.mark.parametrize("kind", ["min", "mix"])
def test_the_path_of_the_weights_is_the_same_for_all_predictions(kind):
    """Small steps along autograd's gradient of the library's loss, for random logits that change all the time."""
    torch.manual_seed(3)
    for scale in (0.1, 1.0, 5.0):
        loss = make_loss(f"{kind}_ent", weights=(1.0, 0.3))
        states = [torch.nn.functional.softplus(loss.raw.detach()).tolist()]
        for _ in range(1500):
            z, y = scale * torch.randn(6, 4, dtype=torch.float64), torch.randint(4, (6,))
            (slope,) = torch.autograd.grad(loss(z, y), loss.raw)
            loss.raw.data -= 2e-3 / max(1.0, scale) * slope
            states.append(torch.nn.functional.softplus(loss.raw.detach()).tolist())
        for i in (0, 1):
            weights = np.array([(state[i], state[i + 2]) for state in states])
            ratio = weights[:, 0] / weights[:, 1]
            assert (np.diff(ratio) < 0).all() and ratio[-1] < 0.97 * ratio[0]
            sums = [kept(*state) for state in weights[::300]]
            moved = abs(kept(weights[-1, 0], 1.0) - kept(weights[0, 0], 1.0))
            assert np.ptp(sums) < 0.01 * moved


def test_the_evidence_is_what_the_page_says_it_is(records, curves):
    assert not records.drop(columns="tuning_error").isna().any(axis=None)
    runs = {
        (name, family, strength)
        for name in BATCH
        for family, strengths in STRENGTHS.items() | {("min_ent_learned", PACES), ("mix_ent_learned", PACES)}
        for strength in strengths
    }
    assert {key for key, _ in records.groupby(["dataset", "family", "strength"])} == runs
    assert (records.groupby(["dataset", "family", "strength"]).seed.nunique() == SEEDS).all()
    assert len(records) == SEEDS * len(runs)
    starts = curves[curves.epoch == 0]
    assert len(starts) == 20 * SEEDS and np.allclose(starts[["b_1", "b_2", "log_base_1", "log_base_2"]], [1, 0.1, 1, 1])
    stay = curves[curves.strength == 0]
    assert np.allclose(stay[["b_1", "b_2"]], [1, 0.1])


@pytest.mark.claim("entropy-weights-path")
def test_slow_weights_were_on_the_path(curves):
    """All stops of all runs of the two slower paces, both losses and data sets; the pairs keep their sum."""
    slow = curves[curves.strength.isin([1e-4, 1e-3])]
    for i, start in ((1, (1.0, 1.0)), (2, (0.1, 1.0))):
        weights = slow[[f"b_{i}", f"log_base_{i}"]].drop_duplicates().to_numpy()
        at_start = kept(*start)
        for b, log_base in weights[::25]:
            on_path = optimize.brentq(lambda x, b=b, at_start=at_start: kept(b, x) - at_start, 0.9, 6)
            assert abs(log_base - on_path) < 0.03
        assert weights[:, 0].min() < (0.5 if i == 1 else 0.05)


def one_sided_t(values, bound, alternative):
    return stats.ttest_1samp(values, bound, alternative=alternative).pvalue


def within(gap, margin):
    return max(one_sided_t(gap, margin, "less"), one_sided_t(gap, -margin, "greater")) < 0.01


@pytest.mark.claim("entropy-weights-temperature")
def test_one_temperature_takes_the_boldness_of_min_ent_away(records, verdicts):
    """The verdicts again, and t-tests where the page has ranks."""
    assert verdicts["W2"] == verdicts["W3"] == ["met", "met"]
    for name in BATCH:
        before, after = (
            of(records, name, "min_ent", "1", metric) - of(records, name, "ce", "0", metric)
            for metric in ("nll", "tempered_nll")
        )
        assert one_sided_t(before, 0.02, "greater") < 0.001 and within(after, 0.02)


@pytest.mark.claim("entropy-weights-pace")
def test_fast_weights_stop_the_training_and_slow_ones_do_not(records, verdicts):
    assert verdicts["W6"] == verdicts["W7"] == ["met", "met"]
    for name in BATCH:
        stay, slow, fast = (of(records, name, "min_ent_learned", pace, "error") for pace in ("0", "0.0001", "0.1"))
        assert one_sided_t(fast - stay, 0.5, "greater") < 0.001 and within(slow - stay, 0.01)


@pytest.mark.claim("entropy-weights-focal")
def test_the_focal_loss_has_the_lower_nll_until_one_temperature(records, verdicts):
    assert verdicts["W5"] == ["met", "met"]
    for name, least in (("digits", 0.05), ("letters", 0.3)):
        before, after = (
            of(records, name, "min_ent", "tuned", metric) - of(records, name, "focal", "tuned", metric)
            for metric in ("nll", "tempered_nll")
        )
        assert one_sided_t(before, least, "greater") < 0.01 and within(after, 0.02)


def test_what_the_page_leaves_open_is_open(records, verdicts):
    """Label smoothing against MIN-ENT; and no entropy loss errs less than a rival beyond doubt, whatever the family."""
    assert verdicts["W4"] == ["open", "open"]
    assert verdicts["W1"] == ["met", "met", "met", "open"]
    for name in BATCH:
        for ours in ("min_ent", "mix_ent"):
            for other, strength in (("ce", "0"), ("smoothing", "tuned"), ("focal", "tuned")):
                gap = of(records, name, ours, "tuned", "error") - of(records, name, other, strength, "error")
                assert 54 * rank_p(gap, "two-sided") > 0.05 or gap.mean() > 0
