"""The claims of the chapter "What can be asked for", each tested without the chapter's own code."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize, minimize_scalar
from scipy.spatial.distance import jensenshannon

from gence.losses import make_loss
from gence.propriety import elicits, induced_divergence, is_strictly_proper, on_logits

OUTCOMES = np.array([0.0, 1.0, 3.0, 7.0])
SEEDS = range(8)


def pinball(alpha):
    return lambda r, y: (alpha if y > r else 1 - alpha) * abs(y - r)


def draw(seed, size=4):
    return np.random.default_rng(seed).dirichlet(np.ones(size))


@pytest.mark.claim("elicit-functionals")
@pytest.mark.parametrize("seed", SEEDS)
def test_squared_pinball_and_zero_one_loss_ask_for_mean_quantile_and_mode(seed):
    """Best reports by minimising the risk, against NumPy's weighted mean and the definition of quantile and mode."""
    p = draw(seed)

    def best(loss):
        reports = np.arange(-100, 801) / 100
        risks = [sum(w * loss(r, y) for w, y in zip(p, OUTCOMES, strict=True)) for r in reports]
        return reports[int(np.argmin(risks))]

    assert abs(best(lambda r, y: (r - y) ** 2) - np.average(OUTCOMES, weights=p)) <= 0.005 + 1e-9
    for alpha in (0.2, 0.5, 0.9):
        assert best(pinball(alpha)) == OUTCOMES[np.searchsorted(p.cumsum(), alpha)]
    assert best(lambda r, y: float(r != y)) == OUTCOMES[p.argmax()]


@pytest.mark.claim("elicit-functionals")
def test_the_search_agrees():
    for loss, functional in (
        (lambda r, y: (r - y) ** 2, "mean"),
        (pinball(0.75), ("quantile", 0.75)),
        (lambda r, y: abs(r - y), "median"),
        (lambda r, y: float(r != y), "mode"),
    ):
        assert elicits(loss, functional, outcomes=(0, 1, 3)).strictly


FUNCTIONALS = {
    "variance": lambda y, p: p @ y**2 - (p @ y) ** 2,
    "entropy": lambda y, p: -sum(w * math.log(w) for w in p if w > 0),
    "confidence": lambda y, p: p.max(),
}


@pytest.mark.claim("elicit-levels")
@pytest.mark.parametrize("name", FUNCTIONALS)
def test_variance_entropy_and_confidence_change_under_mixing(name):
    functional = FUNCTIONALS[name]
    y = np.array([0.0, 1.0])
    one, other = np.array([0.9, 0.1]), np.array([0.1, 0.9])
    assert math.isclose(functional(y, one), functional(y, other))
    assert abs(functional(y, (one + other) / 2) - functional(y, one)) > 0.1
    verdict = elicits(lambda r, y: (r - y) ** 2, functional, reports=(-1, 7))
    assert verdict.level_set is not None
    values = [functional(verdict.level_outcomes, p) for p in verdict.level_set]
    assert math.isclose(values[0], values[1], abs_tol=1e-9) and abs(values[2] - values[0]) > 1e-6


@pytest.mark.claim("elicit-levels")
def test_the_best_report_of_any_loss_survives_mixing():
    """Random tables of losses: a report that is the only best one for two distributions is so for all mixtures."""
    shared = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        table = rng.normal(size=(4, 3))  # reports, outcomes
        p, q = rng.dirichlet(np.ones(3), size=2)
        if (table @ p).argmin() == (table @ q).argmin():
            shared += 1
            for t in (0.1, 0.5, 0.8):
                assert (table @ (t * p + (1 - t) * q)).argmin() == (table @ p).argmin()
    assert shared > 50


@pytest.mark.claim("elicit-pair")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_loss_with_two_outputs_asks_for_mean_and_variance(seed):
    p = draw(seed)
    mean = p @ OUTCOMES
    variance = p @ (OUTCOMES - mean) ** 2

    def risk(m, v):
        return sum(w * (math.log(v) + (y - m) ** 2 / v) for w, y in zip(p, OUTCOMES, strict=True))

    found = minimize(lambda r: risk(r[0], math.exp(r[1])), [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9})
    assert np.allclose([found.x[0], math.exp(found.x[1])], [mean, variance], rtol=1e-4)
    for m, v in itertools.product(np.linspace(-1, 8, 19), np.geomspace(0.05, 50, 19)):
        assert risk(m, v) >= risk(mean, variance) - 1e-12
    normal = -torch.distributions.Normal(mean, math.sqrt(variance)).log_prob(torch.tensor(OUTCOMES))
    assert math.isclose(2 * float(normal @ torch.tensor(p)) - math.log(2 * math.pi), risk(mean, variance), rel_tol=1e-6)


def ranked(p, y):
    """The score once more in its kernel form, E|X - y| - E|X - X'| / 2."""
    k = np.arange(len(p))
    return p @ np.abs(k - y) - p @ np.abs(k[:, None] - k) @ p / 2


@pytest.mark.claim("elicit-ranked")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_ranked_probability_score_costs_the_squared_distance_of_the_sums(seed):
    p, q = draw(seed, 5), draw(seed + 100, 5)
    F, G = p.cumsum()[:-1], q.cumsum()[:-1]
    for y in range(5):
        assert math.isclose(sum((F - (y <= np.arange(4))) ** 2), ranked(p, y), abs_tol=1e-12)
    regret = sum(q[y] * (ranked(p, y) - ranked(q, y)) for y in range(5))
    assert math.isclose(regret, ((F - G) ** 2).sum(), abs_tol=1e-12) and regret > 0


@pytest.mark.claim("elicit-ranked")
def test_the_ranked_probability_score_is_strictly_proper_to_the_search():
    def loss(p, y):
        return sum((p[: k + 1].sum() - float(y <= k)) ** 2 for k in range(2))

    assert is_strictly_proper(on_logits(loss), 3).strictly


PAIRS = np.array([0, 0, 1, 1])  # four classes in two groups


def minimiser(risk, size=4):
    """Softmax of the logits at which a risk of the forecast is least."""
    found = minimize(lambda z: risk(np.exp(z) / np.exp(z).sum()), np.zeros(size), options={"gtol": 1e-9})
    return np.exp(found.x) / np.exp(found.x).sum()


@pytest.mark.claim("elicit-labels")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_loss_over_the_tree_is_honest_and_soft_labels_are_not(seed):
    q = draw(seed) * 0.9 + 0.025

    def tree(p, y, above, below):
        mine = p[PAIRS[y] == PAIRS].sum()
        return -above * math.log(mine) - below * math.log(p[y] / mine)

    for above, below in ((0.3, 2.0), (5.0, 0.2)):
        best = minimiser(lambda p, a=above, b=below: sum(q[y] * tree(p, y, a, b) for y in range(4)))
        assert np.allclose(best, q, atol=1e-4)
    ce = make_loss("ce")
    logits = torch.tensor(np.log(q))[None]
    for y in range(4):
        assert math.isclose(tree(q, y, 1, 1), ce(logits, torch.tensor([y])).item(), abs_tol=1e-9)
    soft = 0.8 * np.eye(4) + 0.2 * np.eye(4)[[1, 0, 3, 2]]
    best = minimiser(lambda p: -sum(q[y] * soft[y] @ np.log(p) for y in range(4)))
    assert np.allclose(best, soft.T @ q, atol=1e-4)
    assert np.abs(best - q).max() > 1e-3


@pytest.mark.claim("elicit-labels")
@pytest.mark.parametrize("seed", SEEDS)
def test_deciding_by_the_forecast_is_proper_for_any_costs(seed):
    rng = np.random.default_rng(seed)
    cost = rng.exponential(size=(5, 4))  # of five decisions
    p, q = rng.dirichlet(np.ones(4), size=2)
    says = [min(range(5), key=lambda d, b=b: sum(b[y] * cost[d, y] for y in range(4))) for b in (p, q)]
    paid = [sum(q[y] * cost[d, y] for y in range(4)) for d in says]
    assert paid[1] <= paid[0] + 1e-12
    away, group = 3.0, PAIRS  # cost 1 inside the group: the largest p_d + h p_S(d) wins
    tree = np.array([[float(d != y) + away * (group[d] != group[y]) for y in range(4)] for d in range(4)])
    sums = p + away * np.array([p[group == g].sum() for g in group])
    assert (tree @ p).argmin() == sums.argmax()


def squared(p, y):
    return (p - y) ** 2


def zero_one(p, y):
    return float((p > 0.5) != y)


@pytest.mark.claim("elicit-divergence")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_divergences_of_the_plan(seed):
    """SciPy's Jensen-Shannon distance, and loops for the two others; the gain once more by minimising risks."""
    P, Q = draw(seed, 6), draw(seed + 100, 6)
    closed = {
        make_loss("ce"): jensenshannon(P, Q) ** 2,
        zero_one: 0.5 * sum(abs(a - b) for a, b in zip(P, Q, strict=True)) / 2,
        squared: sum((a - b) ** 2 / (a + b) for a, b in zip(P, Q, strict=True)) / 8,
    }
    for loss, expected in closed.items():
        assert abs(induced_divergence(loss, P, Q) - expected) < 1e-9

    def least(q):
        return minimize_scalar(
            lambda p: (1 - q) * squared(p, 0) + q * squared(p, 1), bounds=(0, 1), method="bounded"
        ).fun

    gain = least(0.5) - sum((a + b) / 2 * least(a / (a + b)) for a, b in zip(P, Q, strict=True))
    assert math.isclose(gain, closed[squared], abs_tol=1e-8)


def garbled(P, Q, P_new, Q_new) -> bool:
    """Whether one stochastic matrix leads from the first pair to the second: a linear programme."""
    n, m = len(P), len(P_new)
    rows, right = [], []
    for source, target in ((P, P_new), (Q, Q_new)):
        for j in range(m):
            row = np.zeros((n, m))
            row[:, j] = source
            rows.append(row.ravel())
            right.append(target[j])
    for i in range(n):
        row = np.zeros((n, m))
        row[i] = 1
        rows.append(row.ravel())
        right.append(1.0)
    return linprog(np.zeros(n * m), A_eq=np.array(rows), b_eq=right, bounds=(0, 1)).status == 0


@pytest.mark.claim("elicit-blackwell")
def test_thresholds_decide_what_is_a_garbling():
    """Random pairs, garbled and not; risks by a loop over the actions of a threshold, on a fine grid with all kinks."""
    seen = {True: 0, False: 0}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        P, Q = rng.dirichlet(np.ones(3), size=2)
        M = rng.dirichlet(np.ones(3), size=3)
        P_new, Q_new = (P @ M, Q @ M) if seed % 2 else rng.dirichlet(np.full(3, 4.0), size=2)
        kinks = [a / (a + b) for a, b in (*zip(P, Q, strict=True), *zip(P_new, Q_new, strict=True))]

        def risk(pair, c):
            return sum(min((1 - c) * a, c * b) for a, b in zip(*pair, strict=True)) / 2

        better = all(risk((P, Q), c) <= risk((P_new, Q_new), c) + 1e-9 for c in (*kinks, *np.linspace(0.02, 0.98, 25)))
        assert better == garbled(P, Q, P_new, Q_new), seed
        seen[better] += 1
        if better and seed < 8:
            for loss in (make_loss("ce"), squared):
                assert induced_divergence(loss, P, Q) >= induced_divergence(loss, P_new, Q_new) - 1e-9
    assert seen[True] >= 20
    assert seen[False] >= 5
