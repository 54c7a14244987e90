from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import expectile

from gence.propriety import elicitation, elicits


def squared(r, y):
    return (r - y) ** 2


def absolute(r, y):
    return abs(r - y)


def pinball(alpha):
    return lambda r, y: (alpha if y > r else 1 - alpha) * abs(y - r)


def skewed_squares(alpha):
    return lambda r, y: (alpha if y > r else 1 - alpha) * (y - r) ** 2


def variance(y, p):
    return p @ (y - p @ y) ** 2


ASKS_FOR = [
    (squared, "mean"),
    (lambda r, y: r**2 - 2 * r * y + 1e6, "mean"),  # an offset costs no verdict
    (absolute, "median"),
    (lambda r, y: float(r != y), "mode"),
    (pinball(0.8), ("quantile", 0.8)),
    (pinball(0.25), ("quantile", 0.25)),
    (skewed_squares(0.8), ("expectile", 0.8)),
    (squared, ("expectile", 0.5)),
]


@pytest.mark.parametrize(("loss", "functional"), ASKS_FOR)
def test_losses_that_ask_for_a_functional_pass(loss, functional):
    verdict = elicits(loss, functional)
    assert verdict.consistent and verdict.strictly and verdict.outcomes is None
    assert str(verdict).startswith("strictly consistent for the") and "no counterexample" in str(verdict)
    assert "proved" not in str(verdict) and verdict.searched > 300


def test_outcomes_and_reports_of_ones_own():
    second = elicits(lambda r, y: (r - y**2) ** 2, lambda y, p: p @ y**2, reports=(0, 17))
    assert second.strictly and str(second).startswith("strictly consistent for this functional")
    poisson = elicits(lambda r, y: r - y * np.log(r), "mean", outcomes=(1, 2, 4), reports=(0.5, 5))
    assert poisson.strictly
    assert elicits(lambda r, y: 1e-8 * (r - y) ** 2 + 1, "mean").strictly  # tolerances follow the unit of the loss


@pytest.mark.parametrize(
    ("loss", "functional", "outcomes", "p"),
    [
        (absolute, "mean", [0, 1], [2 / 3, 1 / 3]),
        (squared, "median", [0, 1], [1 / 2, 1 / 2]),
        (squared, "mode", [0, 1], [1 / 2, 1 / 2]),
        (absolute, ("quantile", 0.8), [0, 1], [2 / 3, 1 / 3]),
        (pinball(0.8), ("quantile", 0.75), [0, 1], [3 / 4, 1 / 4]),
        (lambda r, y: (r - y) ** 4, "mean", [0, 1], [2 / 3, 1 / 3]),
        (lambda r, y: (r - y - 0.01) ** 2, "mean", [0], [1]),  # a bias smaller than the grid
        (lambda r, y: (r - abs(y)) ** 2, "mean", [-1], [1]),
    ],
)
def test_the_smallest_counterexample_is_found(loss, functional, outcomes, p):
    verdict = elicits(loss, functional)
    assert not verdict.consistent and not verdict.strictly and verdict.level_set is None
    assert sorted(zip(verdict.outcomes, verdict.probabilities.round(9), strict=True)) == sorted(
        zip(outcomes, np.round(p, 9), strict=True)
    )
    # It stands without the search.
    risks = [
        sum(w * loss(r, y) for y, w in zip(verdict.outcomes, verdict.probabilities, strict=True))
        for r in (verdict.report, *np.ravel(verdict.wanted))
    ]
    assert risks[0] < max(risks[1:]) and np.isclose(risks[0], verdict.report_risk, rtol=0, atol=1e-12)
    assert str(verdict).startswith("not consistent for") and str(elicits(loss, functional)) == str(verdict)


def test_a_loss_that_does_not_decide_is_consistent_not_strictly():
    verdict = elicits(lambda r, y: 0.0, "mean")
    assert verdict.consistent and not verdict.strictly and verdict.report_risk == verdict.wanted_risk == 0
    assert str(verdict).startswith("consistent, not strictly, for the mean")
    dead_zone = elicits(lambda r, y: max(abs(r - y) - 0.5, 0.0), "median")
    assert not dead_zone.strictly


def test_no_loss_asks_for_the_variance():
    verdict = elicits(squared, variance)
    assert not verdict.consistent
    one, other, mixture = (variance(verdict.level_outcomes, p) for p in verdict.level_set)
    assert one == other == 0 and mixture > 0 and np.allclose(verdict.level_set[:2].mean(0), verdict.level_set[2])
    assert "No loss asks for the variance: it is the same if P(0) = 1 and if P(1) = 1" in str(verdict)
    # The mean of y^2 can be asked for, only not by this loss: nothing is wrong with the functional.
    assert elicits(squared, lambda y, p: p @ y**2, reports=(-2, 17)).level_set is None
    # Several right reports: a mixture keeps those that two distributions share.
    assert elicits(squared, lambda y, p: y[p >= p.max() - 1e-12]).level_set is None


def test_functionals_agree_with_scipy_and_numpy():
    rng = np.random.default_rng(0)
    for _ in range(20):
        y, p = rng.permutation(8)[:5].astype(float), rng.dirichlet(np.ones(5))
        for alpha in (0.1, 0.5, 0.8):
            [(low, high)] = elicitation._functional(("expectile", alpha))[1](y, p)
            assert low == high and abs(low - expectile(y, alpha, weights=p)) < 1e-9
            [(low, high)] = elicitation._functional(("quantile", alpha))[1](y, p)
            assert low == high == np.quantile(y, alpha, weights=p, method="inverted_cdf")
    assert elicitation._functional("median")[1](np.array([3.0, 1.0]), np.array([0.5, 0.5])) == [(1.0, 3.0)]
    assert elicitation._functional("mode")[1](np.array([3.0, 1.0]), np.array([0.5, 0.5])) == [(3.0, 3.0), (1.0, 1.0)]


def test_small_distributions_come_first_and_none_twice():
    found = list(elicitation._distributions(5))
    sizes = [int((p > 0).sum()) for p in found]
    assert sizes == sorted(sizes) and len(found) == len({tuple(p.round(9)) for p in found}) > 300
    assert np.allclose([p.sum() for p in found], 1) and min(p[p > 0].min() for p in found) >= 1 / 6 - 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: elicits(squared, "expectile"), r"unknown functional 'expectile'.*\('expectile', alpha\)"),
        (lambda: elicits(squared, ("quantile", 1.0)), "the level of the functional must lie strictly between 0 and 1"),
        (lambda: elicits(lambda r, y: np.nan, "mean"), "the loss is nan for the report -2 and the outcome 0"),
        (lambda: elicits(squared, lambda y, p: np.nan), r"the functional is \[nan\] if P\(0\) = 1"),
        (lambda: elicits(squared, "mean", outcomes=(1,)), "at least two different finite numbers"),
        (lambda: elicits(squared, "mean", outcomes=(1, 1)), "at least two different"),
        (lambda: elicits(squared, "mean", reports=(2, 1)), "low < high"),
        (
            lambda: elicits(squared, "mean", reports=(0.5, 5)),
            r"the mean of P\(0\) = 1 is 0, but reports go from 0.5 to 5",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
