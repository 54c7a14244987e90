"""The claims of the chapter "Proper losses", each tested without the chapter's own code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

from gence.losses import make_loss
from gence.propriety import conditional_risk, find_minimisers, is_strictly_proper

SHAPES = [2, 3, 5, 8]
SEEDS = range(5)


def lq(z, y, a=0.7):
    return (1 - log_softmax(z, 1).exp().pow(a)[torch.arange(len(y)), y]) / a


def min_ent(z, y, weight=0.1):
    log_p = log_softmax(z, 1)
    return -log_p[torch.arange(len(y)), y] - weight * (log_p.exp() * log_p).sum(1)


def inner_belief(seed: int, n_classes: int) -> np.ndarray:
    q = np.random.default_rng(seed).dirichlet(np.full(n_classes, 2.0))
    return 0.9 * q + 0.1 / n_classes


def risk_by_loops(f, p, q) -> float:
    return sum(q_k * f(p, k) for k, q_k in enumerate(q))


# Losses and entropies once more, as plain formulas of lists.
LOSSES = {
    "ce": lambda p, k: -math.log(p[k]),
    "brier": lambda p, k: sum((p_j - (j == k)) ** 2 for j, p_j in enumerate(p)),
}
ENTROPIES = {
    "ce": lambda q: -sum(x * math.log(x) for x in q),
    "brier": lambda q: 1 - sum(x * x for x in q),
}


@pytest.mark.claim("savage-entropy")
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("n_classes", SHAPES)
def test_ce_and_brier_are_the_tangent_planes_of_their_entropies(name, n_classes):
    """The slope along the simplex comes from central differences, so no formula of the chapter is reused."""
    step = 1e-6
    for seed in SEEDS:
        p = inner_belief(seed, n_classes)
        assert math.isclose(risk_by_loops(LOSSES[name], p, p), ENTROPIES[name](p), abs_tol=1e-12)
        for k in range(n_classes):
            towards = np.eye(n_classes)[k] - p
            slope = (ENTROPIES[name](p + step * towards) - ENTROPIES[name](p - step * towards)) / (2 * step)
            assert math.isclose(ENTROPIES[name](p) + slope, LOSSES[name](p, k), abs_tol=1e-7)
            label = np.eye(n_classes)[k]
            assert math.isclose(conditional_risk(make_loss(name), p, label), LOSSES[name](p, k), abs_tol=1e-12)


@pytest.mark.claim("savage-entropy")
def test_the_entropy_of_a_proper_loss_is_concave_and_a_convex_one_makes_a_loss_that_is_not_proper():
    for name, entropy in ENTROPIES.items():
        for seed in SEEDS:
            a, b = inner_belief(seed, 4), inner_belief(seed + 100, 4)
            assert entropy((a + b) / 2) > (entropy(a) + entropy(b)) / 2, name

    def from_convex_entropy(z, y):  # the tangent planes of +|q|^2
        p = z.softmax(1)
        return 2 * p[torch.arange(len(y)), y] - p.square().sum(1)

    assert not is_strictly_proper(from_convex_entropy, 3).proper


@pytest.mark.claim("regret-is-bregman")
@pytest.mark.parametrize("n_classes", SHAPES)
def test_the_regrets_of_ce_and_brier_are_kl_and_squared_distance(n_classes):
    for seed in SEEDS:
        p, q = inner_belief(seed, n_classes), inner_belief(seed + 100, n_classes)
        kl = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
        square = sum((a - b) ** 2 for a, b in zip(p, q, strict=True))
        for name, divergence in (("ce", kl), ("brier", square)):
            by_loops = risk_by_loops(LOSSES[name], p, q) - risk_by_loops(LOSSES[name], q, q)
            by_library = conditional_risk(make_loss(name), p, q) - conditional_risk(make_loss(name), q, q)
            assert math.isclose(by_loops, divergence, abs_tol=1e-12)
            assert math.isclose(by_library, divergence, abs_tol=1e-12)


@pytest.mark.claim("local-loss-map")
@pytest.mark.parametrize("a", [0.3, 0.7])
@pytest.mark.parametrize("n_classes", SHAPES)
def test_lq_raises_the_belief_to_a_power(a, n_classes):
    for seed in SEEDS:
        q = inner_belief(seed, n_classes)
        power = q ** (1 / (1 - a))
        found = find_minimisers(lambda z, y: lq(z, y, a), q, n_starts=4)
        assert found.converged.any()
        assert np.abs(found.best - power / power.sum()).max() < 1e-6


@pytest.mark.claim("local-loss-map")
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("n_classes", SHAPES)
def test_the_belief_behind_a_focal_prediction_is_one_over_the_slope(gamma, n_classes):
    """The slope of -(1 - t)^gamma log t from autograd, not from the formula."""
    for seed in SEEDS:
        q = inner_belief(seed, n_classes)
        t = torch.tensor(find_minimisers(make_loss("focal", gamma=gamma), q, n_starts=4).best, requires_grad=True)
        (slope,) = torch.autograd.grad((-((1 - t) ** gamma) * t.log()).sum(), t)
        behind = (1 / slope.abs() / (1 / slope.abs()).sum()).numpy()
        assert np.abs(behind - q).max() < 1e-6


@pytest.mark.claim("label-smoothing-map")
@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.4])
@pytest.mark.parametrize("n_classes", SHAPES)
def test_label_smoothing_mixes_the_belief_with_the_even_one(epsilon, n_classes):
    for seed in SEEDS:
        q = inner_belief(seed, n_classes)
        found = find_minimisers(make_loss("ce", label_smoothing=epsilon), q, n_starts=6)
        assert found.converged.all()
        assert np.abs(found.points - ((1 - epsilon) * q + epsilon / n_classes)).max() < 1e-6


@pytest.mark.claim("min-ent-map")
@pytest.mark.parametrize("weight", [0.05, 0.1, -0.1])
@pytest.mark.parametrize("n_classes", SHAPES)
def test_the_belief_behind_a_prediction_of_ce_with_an_entropy_term(weight, n_classes):
    for seed in SEEDS:
        q = inner_belief(seed, n_classes)
        p = find_minimisers(lambda z, y: min_ent(z, y, weight), q, n_starts=4).best
        entropy = -sum(x * math.log(x) for x in p)
        behind = [x * (1 - weight * (math.log(x) + entropy)) for x in p]
        assert np.abs(np.array(behind) - q).max() < 1e-6
        assert (p.max() > q.max()) == (weight > 0), "a positive weight makes the prediction bolder"


@pytest.mark.claim("propriety-lab")
@pytest.mark.parametrize(
    ("loss", "complete_only", "proper", "strictly"),
    [
        (make_loss("ce"), False, True, True),
        (make_loss("brier"), False, True, True),
        (make_loss("focal", gamma=2.0), False, False, False),
        (make_loss("ce", label_smoothing=0.1), False, False, False),
        (lq, False, False, False),
        (min_ent, False, False, False),
        (make_loss("gence"), False, True, False),
        (make_loss("gence"), True, True, True),
        (make_loss("gence", strength=0.5), False, True, True),
    ],
    ids=["ce", "brier", "focal", "smoothing", "lq", "min-ent", "gence", "gence-complete", "gence-half"],
)
def test_the_verdicts_of_the_lab(loss, complete_only, proper, strictly):
    verdict = is_strictly_proper(loss, 3, complete_only=complete_only, seed=7)
    assert verdict.converged
    assert (verdict.proper, verdict.strictly) == (proper, strictly)
    if not proper:  # the counterexample stands on its own
        lower = conditional_risk(loss, verdict.minimiser, verdict.belief)
        assert lower < conditional_risk(loss, verdict.belief, verdict.belief) - 1e-4


def test_the_focal_loss_moves_beliefs_near_nine_tenths_furthest_and_certain_ones_hardly():
    t = np.linspace(0.5, 1 - 1e-6, 200_001)  # predictions for two classes, gamma = 2
    slope = {
        k: (1 - p) ** 2 / p - 2 * (1 - p) * np.log(p)  # |f'| of f(p) = -(1 - p)^2 log p
        for k, p in {"top": t, "other": 1 - t}.items()
    }
    belief = (1 / slope["top"]) / (1 / slope["top"] + 1 / slope["other"])
    moved = belief - t
    assert 0.89 < belief[moved.argmax()] < 0.95
    at = {q: np.interp(q, belief, moved) for q in (0.75, 0.92, 0.99, 0.999)}
    assert at[0.92] > 1.4 * at[0.99] > 2 * at[0.999] > 0
    for q in (0.75, 0.92, 0.99):  # the rule against the search
        found = find_minimisers(make_loss("focal", gamma=2.0), [q, 1 - q], n_starts=4).best
        assert q - found[0] == pytest.approx(at[q], abs=1e-4)
