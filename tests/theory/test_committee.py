"""The claims of the chapter "A committee of forecasters", each tested without the chapter's own code."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize_scalar

from gence.losses import make_loss
from gence.propriety import canonical_link, mixability_constant

# Costs of the forecast p under the labels 0 and 1, and the constants of the literature.
COSTS = {
    "log": (lambda p: -math.log(1 - p), lambda p: -math.log(p)),
    "squared": (lambda p: p * p, lambda p: (1 - p) ** 2),
    "brier": (lambda p: 2 * p * p, lambda p: 2 * (1 - p) ** 2),
    "spherical": (lambda p: 1 - (1 - p) / math.hypot(p, 1 - p), lambda p: 1 - p / math.hypot(p, 1 - p)),
}
CONSTANTS = {"log": 1.0, "squared": 2.0, "brier": 1.0, "spherical": math.sqrt(2)}


def by_hand(name):
    return lambda p, label: COSTS[name][label](float(p))


def mixed(name: str, members: list[float], weights: list[float], eta: float) -> list[float]:
    """Minus the logarithm of the weighted mean of exp(-eta cost), over eta, for each label."""
    means = [sum(v * math.exp(-eta * cost(p)) for v, p in zip(weights, members, strict=True)) for cost in COSTS[name]]
    return [-math.log(mean) / eta for mean in means]


def best_slack(name: str, target: list[float]) -> float:
    """The largest slack under the worse label that any forecast has, by a search over forecasts."""
    found = minimize_scalar(
        lambda p: -min(t - cost(p) for t, cost in zip(target, COSTS[name], strict=True)),
        bounds=(1e-12, 1 - 1e-12),
        method="bounded",
        options={"xatol": 1e-13},
    )
    return -float(found.fun)


def equal_slack(name: str, target: list[float]) -> float:
    """The forecast with the same slack under both labels, by bisection."""
    zero, one = COSTS[name]
    return brentq(lambda p: zero(p) - one(p) - target[0] + target[1], 1e-15, 1 - 1e-15, xtol=1e-15)


@pytest.mark.claim("committee-constant")
def test_the_constants_of_the_plan_to_1e_9():
    tools = {
        "log": make_loss("ce"),
        "squared": lambda p, y: (p - y) ** 2,
        "brier": make_loss("brier"),
        "spherical": lambda p, y: 1 - p[y] / p.norm(),
    }
    for name, known in CONSTANTS.items():
        assert abs(mixability_constant(tools[name]) - known) < 1e-9, name
        assert abs(mixability_constant(by_hand(name)) - known) < 1e-6, name
    assert mixability_constant(lambda p, y: torch.sqrt((1 - p[y]) / p[y])) == 0


@pytest.mark.claim("committee-constant")
@pytest.mark.parametrize("name", COSTS)
def test_up_to_the_constant_every_mean_can_be_matched_and_beyond_it_not(name):
    """By a search for the forecast, not by curvature."""
    eta, rng = CONSTANTS[name], np.random.default_rng(1)
    for _ in range(60):
        members, v = rng.uniform(0.005, 0.995, 3), rng.dirichlet(np.ones(3))
        assert best_slack(name, mixed(name, members, v, eta)) > -1e-7
    if name != "log":  # whose curve is straight at 1: there any two members show it
        close = mixed(name, [0.47, 0.53], [0.5, 0.5], 1.05 * eta)
        assert best_slack(name, close) < -1e-6
    else:
        assert best_slack(name, mixed(name, [0.1, 0.9], [0.5, 0.5], 1.05)) < -1e-3


@pytest.mark.claim("committee-link")
@pytest.mark.parametrize("name", COSTS)
def test_the_canonical_link_finds_the_forecast(name):
    eta, rng, link = CONSTANTS[name], np.random.default_rng(2), canonical_link(by_hand(name))
    for _ in range(8):
        members, v = rng.uniform(0.02, 0.98, 4), rng.dirichlet(np.ones(4))
        target = mixed(name, members, v, eta)
        p = float(link.inverse(target[0] - target[1]))
        assert math.isclose(p, equal_slack(name, target), abs_tol=1e-8)
        assert min(t - cost(p) for t, cost in zip(target, COSTS[name], strict=True)) > -1e-8


@pytest.mark.claim("committee-bound")
@pytest.mark.parametrize("name", COSTS)
def test_no_sequence_of_labels_carries_a_member_further_ahead(name):
    """All 2^7 sequences of labels, members that contradict each other."""
    eta, rounds = CONSTANTS[name], 7
    said = np.random.default_rng(3).beta(0.3, 0.3, (rounds, 3)).clip(1e-4, 1 - 1e-4)
    worst = -math.inf
    for labels in itertools.product((0, 1), repeat=rounds):
        totals, own = [0.0] * 3, 0.0
        for members, label in zip(said, labels, strict=True):
            v = [math.exp(-eta * total) for total in totals]
            target = mixed(name, list(members), [x / sum(v) for x in v], eta)
            own += COSTS[name][label](equal_slack(name, target))
            totals = [total + COSTS[name][label](p) for total, p in zip(totals, members, strict=True)]
            worst = max(worst, own - min(totals))
    assert worst <= math.log(3) / eta + 1e-9
    assert worst > 0.3 * math.log(3) / eta, "a bound that is far from what happens would be no test"


@pytest.mark.claim("committee-mean")
def test_the_mean_is_enough_up_to_one_for_the_log_loss_and_one_half_for_the_squared_error():
    def lead(name, members, eta):
        target = mixed(name, members, [0.5, 0.5], eta)
        mean = sum(members) / 2
        return min(t - cost(mean) for t, cost in zip(target, COSTS[name], strict=True))

    rng = np.random.default_rng(4)
    for name, eta in (("log", 1.0), ("squared", 0.5)):
        assert min(lead(name, list(rng.uniform(1e-3, 1 - 1e-3, 2)), eta) for _ in range(500)) > -1e-12
    assert lead("log", [0.2, 0.7], 1.05) < -1e-4
    assert lead("squared", [0.96, 1 - 1e-9], 0.55) < -1e-7
    zero, one = COSTS["spherical"]  # at an end, the mean of two forecasts costs more than the mean of their costs
    assert one(0.05) > (one(0.0) + one(0.1)) / 2 + 1e-4
    assert all(lead("spherical", [1e-9, 0.1], eta) < 0 for eta in (1e-3, 0.1, 1.0))
    assert zero(0.0) == 0


@pytest.mark.claim("committee-coin")
def test_a_single_decision_lets_the_better_of_two_get_ahead_like_a_square_root():
    """By running through all sequences for short games, and by simulation for a long one."""
    for rounds in (1, 2, 5, 10):
        better = [0.5 * min(sum(s), rounds - sum(s)) for s in itertools.product((0, 1), repeat=rounds)]
        direct = rounds / 4 - np.mean(better)
        heads = np.arange(rounds + 1)
        pmf = [math.comb(rounds, int(h)) / 2**rounds for h in heads]
        assert math.isclose(direct, 0.5 * float(np.dot(pmf, abs(heads - rounds / 2))), abs_tol=1e-12)
    tosses = np.random.default_rng(5).binomial(4000, 0.5, 200_000)
    ahead = 0.5 * abs(tosses - 2000).mean()
    assert math.isclose(ahead, math.sqrt(4000 / (8 * math.pi)), rel_tol=0.01)
