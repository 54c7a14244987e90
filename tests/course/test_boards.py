"""What stands on a board is true: its arithmetic, and its formulas at points that the lecturer did not choose."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from by_hand import relations, value
from scipy.integrate import quad
from scipy.optimize import approx_fprime
from scipy.special import logsumexp, softmax

from gence.losses import generative_cross_entropy

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import course  # noqa: E402
import sessions  # noqa: E402
import slides  # noqa: E402

NUMBERS = sorted(sessions.teaching())
RNG = np.random.default_rng(7)
PAIRS = RNG.uniform(0.02, 0.98, (40, 2))


def slope(f, x: float) -> float:
    return (f(x + 1e-5) - f(x - 1e-5)) / 2e-5


def bend(f, x: float) -> float:
    return (f(x + 1e-4) - 2 * f(x) + f(x - 1e-4)) / 1e-8


# --- the words of the board --------------------------------------------------------------------------------------


def boards() -> dict[str, str]:
    """All that is written for a board, by where it stands."""
    found = {f"session {number}": "\n".join(plan.lines) for number, plan in sessions.teaching().items()}
    found |= {f"deck {deck}": slides.written(deck) for deck in slides.names()}
    return found | {"class": (ROOT / "book" / "course" / "class.md").read_text(encoding="utf-8")}


@pytest.mark.parametrize(("place", "text"), boards().items(), ids=list(boards()))
def test_equations_between_numbers_hold(place, text):
    assert [said for said, holds in relations(text) if not holds] == []


def test_an_equation_that_does_not_hold_is_seen():
    said = relations(r"$\frac12 \cdot \frac9{16} = \frac{9}{32} < \frac14$ and $\log 8 = 3 \log 2$, $p = \frac12$")
    assert [holds for _, holds in said] == [True, False, True]
    assert value(r"\tfrac16 \log \tfrac32") == pytest.approx(np.log(1.5) / 6)
    assert value(r"p \log 2") is None
    assert len(list(relations("\n".join(boards().values())))) > 10


def test_a_misconception_that_no_question_has_is_refused_and_the_nearest_is_said():
    asked = list(slides.questions().values())
    with pytest.raises(ValueError, match="'Q01 outcome for belief'"):
        sessions.chosen(asked, ["Q01 outcome for beliefs"])


@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_worth_the_time_of_a_class_is_not_folded_and_the_rest_is(number):
    before, after = sessions.page(number, course.objectives()).split("```{dropdown} All the others")
    shown = [line for line in before.partition("## What many believe")[2].splitlines() if ": " in line and "|" in line]
    assert len(shown) == len(sessions.teaching()[number].worth) <= 5
    assert not any(line in after for line in shown)


# --- the formulas of the board -----------------------------------------------------------------------------------


def log_entropy(c: float) -> float:
    return -c * np.log(c) - (1 - c) * np.log(1 - c)


WEIGHTS = {
    "log": (log_entropy, lambda c: 1 / (c * (1 - c))),
    "squares": (lambda c: c * (1 - c), lambda c: 2.0),
    "spherical": (lambda c: -np.hypot(c, 1 - c), lambda c: (c**2 + (1 - c) ** 2) ** -1.5),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_session_2_the_weight_is_minus_the_bend_and_the_regret_is_its_integral(name):
    entropy, weight = WEIGHTS[name]
    for p, q in PAIRS:
        assert bend(entropy, p) == pytest.approx(-weight(p), rel=1e-3)
        regret = entropy(p) + slope(entropy, p) * (q - p) - entropy(q)
        assert regret == pytest.approx(quad(lambda c, q=q: (c - q) * weight(c), q, p)[0], abs=1e-6)
        assert regret >= -1e-9


def test_session_3_the_canonical_link_leaves_p_minus_y_and_squares_behind_a_sigmoid_bend_the_wrong_way():
    losses = {"log": (lambda p: -np.log(p), lambda v: 1 / (1 + np.exp(-v)), lambda p: np.log(p / (1 - p)))}
    losses["squares"] = (lambda p: (1 - p) ** 2, lambda v: (v + 1) / 2, lambda p: 2 * p - 1)
    for name, (loss, back, link) in losses.items():
        for p in PAIRS[:, 0]:
            weight = WEIGHTS[name][1](p)
            assert slope(loss, p) == pytest.approx(-(1 - p) * weight, rel=1e-4)
            assert slope(link, p) == pytest.approx(weight, rel=1e-4)
            assert slope(lambda v, loss=loss, back=back: loss(back(v)), link(p)) == pytest.approx(p - 1, rel=1e-4)

    def stuck(v: float) -> float:
        return (1 - 1 / (1 + np.exp(-v))) ** 2

    for p in PAIRS[:, 0]:
        v = np.log(p / (1 - p))
        assert slope(stuck, v) == pytest.approx(-2 * p * (1 - p) ** 2, rel=1e-4)
        assert bend(stuck, v) == pytest.approx(2 * p * (1 - p) ** 2 * (3 * p - 1), abs=1e-6)


def test_session_3_a_decision_loses_at_most_the_root_of_twice_the_divergence():
    p, q = PAIRS.T
    divergence = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    lost = np.where((p - 0.5) * (q - 0.5) < 0, np.abs(2 * q - 1), 0)
    assert (lost <= 2 * np.abs(p - q)).all() and (2 * (p - q) ** 2 <= divergence).all()
    assert lost.mean() <= np.sqrt(2 * divergence.mean())


def test_session_4_three_parts_of_the_score_and_the_floor():
    for p, r in PAIRS:
        assert r * (1 - p) ** 2 + (1 - r) * p**2 == pytest.approx(r * (1 - r) + (p - r) ** 2)
    told, rates = np.array([1.0, 0.0]), np.array([3 / 4, 1 / 4])
    score = (rates * (1 - told) ** 2 + (1 - rates) * told**2).mean()
    parts = 1 / 4 - ((rates - 0.5) ** 2).mean() + ((told - rates) ** 2).mean()
    assert score == pytest.approx(parts) == pytest.approx(1 / 4)
    bins, samples, c = 15, 15_000, 0.7
    hits = RNG.binomial(samples // bins, c, (4000, bins))
    measured = np.abs(hits - c * samples // bins).sum(1).mean() / samples
    assert np.sqrt(2 * bins * c * (1 - c) / (np.pi * samples)) == pytest.approx(measured, rel=0.03)


def test_session_5_the_slope_of_the_temperature_and_one_factor_a_class():
    logits, labels = RNG.normal(size=(20, 4)), RNG.integers(4, size=20)

    def nll(beta: float) -> float:
        return float((logsumexp(beta * logits, 1) - beta * logits[range(20), labels]).mean())

    p = softmax(0.7 * logits, 1)
    expected = (p * logits).sum(1)
    assert slope(nll, 0.7) == pytest.approx((expected - logits[range(20), labels]).mean(), abs=1e-8)
    assert bend(nll, 0.7) == pytest.approx(((p * logits**2).sum(1) - expected**2).mean(), abs=1e-5)
    tilted = np.array([3 / 4, 1 / 4]) * np.array([1 / 4, 3 / 4]) / np.array([1 / 2, 1 / 2])
    assert tilted[0] / tilted.sum() == pytest.approx(1 / 2)


def divergence(q: np.ndarray, p: np.ndarray) -> float:
    return float((q * np.log(q / p)).sum())


def test_session_6_one_divergence_splits_in_two_ways_and_a_repaired_column_lies_below():
    q, p = (softmax(RNG.normal(size=(12, 3)), 1) for _ in range(2))
    shares, mean = q.mean(0), p.mean(0)
    by_rows = sum(divergence(a, b) for a, b in zip(q, p, strict=True)) / 12
    columns = zip(shares, (q / q.sum(0)).T, (p / p.sum(0)).T, strict=True)
    by_columns = divergence(shares, mean) + sum(share * divergence(a, b) for share, a, b in columns)
    assert divergence(q / 12, p / 12) == pytest.approx(by_rows) == pytest.approx(by_columns)

    logits, labels = RNG.normal(size=(12, 3)), np.arange(12) % 3
    labels[:3] = 0
    counts = np.bincount(labels)
    floor = (counts / 12 * np.log(counts)).sum()
    assert floor == pytest.approx(np.log(12) + (counts / 12 * np.log(counts / 12)).sum())

    def losses(bias: np.ndarray) -> tuple[float, float]:
        table = logits + bias
        ce = (logsumexp(table, 1) - table[range(12), labels]).mean()
        return ce, float(generative_cross_entropy(torch.tensor(table), torch.tensor(labels))) - floor

    for bias in RNG.normal(size=(20, 3)):
        ce, gence = losses(bias)
        column_sums = softmax(logits + bias, 1).sum(0)
        assert gence == pytest.approx(ce - divergence(counts / 12, column_sums / 12), abs=1e-6)
        assert losses(bias + np.log(counts / column_sums))[0] <= gence + 1e-9
    gradient = approx_fprime(np.zeros(3), lambda b: losses(b)[0], 1e-6)
    assert gradient == pytest.approx((softmax(logits, 1).sum(0) - counts) / 12, abs=1e-4)
