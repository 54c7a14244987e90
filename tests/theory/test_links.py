"""The claims of the chapter "Links and surrogates", each tested without the chapter's own code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit
from scipy.stats import norm

from gence.losses import make_loss
from gence.propriety import Link, binary_regret, canonical_link, composite_curvature

PROBIT = Link(norm.ppf, lambda c: 1 / norm.pdf(norm.ppf(c)))
SIGMOID = Link(logit, lambda c: 1 / (c * (1 - c)))
# Partial losses for label 1 as plain formulas (label 0 by symmetry), and the weights of the literature.
LOSSES = {
    "log": (lambda p: -math.log(p), lambda c: 1 / (c * (1 - c))),
    "squared": (lambda p: (1 - p) ** 2, lambda c: 2.0),
    "exponential": (lambda p: math.sqrt((1 - p) / p), lambda c: 0.5 * (c * (1 - c)) ** -1.5),
    "spherical": (lambda p: 1 - p / math.hypot(p, 1 - p), lambda c: (c * c + (1 - c) ** 2) ** -1.5),
}
GRID = np.arange(1, 1000) / 1000


def by_hand(name):
    return lambda p, label: LOSSES[name][0](float(p) if label == 1 else 1 - float(p))


def squared(p, y):
    return (p - y) ** 2


@pytest.mark.claim("links-convex")
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("link", "inverse"), [(SIGMOID, expit), (PROBIT, norm.cdf)])
def test_the_corridor_decides_convexity_in_the_score(name, link, inverse):
    """Second differences of the values along the score, against the corridor by differences of log w - log psi'."""
    partial, w = LOSSES[name]
    for p in (0.05, 0.2, 0.4, 0.6, 0.9):
        v, h = float(link(p)), 1e-3
        second = sum(s * partial(inverse(v + k * h)) for k, s in ((-1, 1), (0, -2), (1, 1))) / h**2
        step = 1e-4 * p * (1 - p)
        ratio = [math.log(w(c) / link.slope(np.array(c))) for c in (p - step, p + step)]
        kappa = p * (1 - p) * (ratio[1] - ratio[0]) / (2 * step)
        assert (second >= 0) == (kappa <= p)
        assert math.isclose(second, w(p) / link.slope(np.array(p)) ** 2 * (1 - kappa / p), rel_tol=1e-3, abs_tol=1e-5)
        assert math.isclose(composite_curvature(by_hand(name), p, 1, link), second, rel_tol=1e-3, abs_tol=1e-5)


@pytest.mark.claim("links-convex")
def test_squared_error_behind_a_sigmoid_is_concave_below_one_third():
    c = np.linspace(0.01, 0.99, 99)
    curvature = composite_curvature(squared, c, 1)
    assert np.allclose(curvature, 2 * c * (1 - c) ** 2 * (3 * c - 1), atol=1e-9)
    assert ((curvature < 0) == (c < 1 / 3)).all()
    assert abs(composite_curvature(squared, 1 / 3, 1)) < 1e-9
    assert np.allclose(composite_curvature(squared, c, 0), curvature[::-1], atol=1e-9)


@pytest.mark.claim("links-canonical")
@pytest.mark.parametrize("name", LOSSES)
def test_behind_its_own_link_the_slope_is_p_minus_y_and_the_curvature_one_over_w(name):
    partial, w = LOSSES[name]
    link = canonical_link(by_hand(name))
    for p in (0.1, 0.45, 0.8):
        assert math.isclose(link(p), partial(1 - p) - partial(p), abs_tol=1e-9)
        width = quad(w, 0.5, p)[0]  # the score is the area under the weight
        assert math.isclose(link(p), width, rel_tol=1e-8)
        h = 1e-4
        low, high = (float(link.inverse(link(p) + s)) for s in (-h, h))
        for label in (0, 1):
            cost = [partial(c if label else 1 - c) for c in (low, p, high)]
            assert math.isclose((cost[2] - cost[0]) / (2 * h), p - label, abs_tol=1e-6)
            assert math.isclose((cost[2] - 2 * cost[1] + cost[0]) / h**2, 1 / w(p), rel_tol=1e-4)


@pytest.mark.claim("links-canonical")
def test_canonical_links_of_the_plan():
    c = np.linspace(0.01, 0.99, 99)
    assert np.allclose(canonical_link(make_loss("ce"))(c), logit(c), atol=1e-9)
    assert np.allclose(canonical_link(squared)(c), 2 * c - 1, atol=1e-9)
    for loss, w in ((make_loss("ce"), 1 / (c * (1 - c))), (squared, 2.0)):
        for label in (0, 1):
            curvature = composite_curvature(loss, c[4:-4:10], label, canonical_link(loss))
            assert np.allclose(curvature, (1 / w * np.ones(99))[4:-4:10], atol=1e-9)


@pytest.mark.claim("links-canonical")
def test_softmax_and_sparsemax_are_the_maximisers_that_the_entropies_choose():
    """SciPy's constrained maximiser of v p + H(p), against softmax, and the loss of PyTorch and of Brier."""
    rng = np.random.default_rng(5)
    for _ in range(5):
        v = rng.normal(size=4)

        def best(H, v=v):
            found = minimize(
                lambda x: -(v @ x + H(x)),
                np.full(4, 0.25),
                bounds=[(1e-12, 1)] * 4,
                constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
                options={"ftol": 1e-14, "maxiter": 500},
            )
            return found.x, -found.fun

        p, value = best(lambda p: -(p * np.log(p)).sum())
        logits = torch.tensor(v)
        assert np.allclose(p, logits.softmax(0), atol=1e-4)
        for y in range(4):
            ce = torch.nn.functional.cross_entropy(logits[None], torch.tensor([y])).item()
            assert math.isclose(value - v[y], ce, abs_tol=1e-7)
        p, value = best(lambda p: 1 - p @ p)
        thresholds = np.linspace(-4, 4, 80_001)  # the projection once more, by its threshold
        mass = np.maximum(0, v[:, None] / 2 - thresholds).sum(0)
        assert np.allclose(p, np.maximum(0, v / 2 - thresholds[np.abs(mass - 1).argmin()]), atol=1e-3)
        inner = p > 1e-3
        if inner.all():
            assert np.allclose(value - v, ((p - np.eye(4)) ** 2).sum(1), atol=1e-6)


@pytest.mark.claim("links-stuck")
@pytest.mark.parametrize("a", [0.5, 2.0, 5.0])
def test_a_sure_mistake_lasts_linearly_or_exponentially_long(a):
    """The times once more by quadrature, and by many small steps of gradient descent with PyTorch's gradients."""
    squared_time = math.exp(a) / 2 + 1.5 * a + 1.25 - 1.5 * math.exp(-a) - math.exp(-2 * a) / 4
    log_time = a + 1 - math.exp(-a)
    by_quadrature = [
        quad(lambda z: 1 / (1 - expit(z)), -a, 0)[0],
        quad(lambda z: 1 / (2 * expit(z) * (1 - expit(z)) ** 2), -a, 0)[0],
    ]
    assert np.allclose([log_time, squared_time], by_quadrature, rtol=1e-9)
    for loss, time in (
        (lambda z: -torch.nn.functional.logsigmoid(z), log_time),
        (lambda z: (1 - z.sigmoid()) ** 2, squared_time),
    ):
        z, steps, rate = torch.tensor(-a, dtype=torch.float64), 0, time / 400
        while z < 0:
            z.requires_grad_()
            (slope,) = torch.autograd.grad(loss(z), z)
            z, steps = (z - rate * slope).detach(), steps + 1
        assert math.isclose(steps * rate, time, rel_tol=0.05)


@pytest.mark.claim("links-regret")
def test_no_pair_on_the_grid_of_the_plan_breaks_the_bounds():
    p, q = GRID[:, None], GRID[None, :]
    lost = np.abs(2 * q - 1) * ((p > 0.5) != (q > 0.5))
    kl = binary_regret(make_loss("ce"), p, q)
    assert np.allclose(kl, q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)), atol=1e-9)
    assert np.allclose(binary_regret(squared, p, q), (p - q) ** 2, atol=1e-9)
    assert (lost > np.sqrt(2 * np.maximum(kl, 0)) + 1e-9).sum() == 0
    assert (lost > 2 * np.abs(p - q) + 1e-9).sum() == 0


@pytest.mark.claim("links-regret")
@pytest.mark.parametrize("name", LOSSES)
def test_the_bound_is_the_least_regret_of_a_wrong_decision(name):
    """For each belief the cheapest wrong forecast, by SciPy; and the function of the bound is convex."""
    partial, _ = LOSSES[name]

    def entropy(q):
        return q * partial(q) + (1 - q) * partial(1 - q)

    deltas = np.linspace(0.05, 0.95, 19)
    bound = [entropy(0.5) - entropy((1 + d) / 2) for d in deltas]
    for delta, least in zip(deltas, bound, strict=True):
        q = (1 + delta) / 2
        wrong = minimize_scalar(
            lambda p: q * partial(p) + (1 - q) * partial(1 - p) - entropy(q),  # noqa: B023
            bounds=(1e-6, 0.5),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert math.isclose(wrong.fun, least, rel_tol=1e-5)
        assert math.isclose(binary_regret(by_hand(name), 0.5, q), least, abs_tol=1e-12)
    assert (np.diff(bound, 2) > 0).all()
    if name == "exponential":
        assert np.allclose(bound, 1 - np.sqrt(1 - deltas**2))


MARGINS = [
    (lambda z: max(0.0, 1 - z), True),
    (lambda z: math.log1p(math.exp(-z)), True),
    (lambda z: math.exp(-z), True),
    (lambda z: max(0.0, 1 - z) ** 2, True),
    (lambda z: max(0.0, -z), False),  # a kink at 0
    (lambda z: max(-z, -2 * z), False),
    (lambda z: max(0.0, 1 + z), False),  # rises through 0
    (lambda z: z * z, False),  # flat at 0
]


@pytest.mark.claim("links-calibrated")
@pytest.mark.parametrize(("phi", "calibrated"), MARGINS)
def test_a_convex_margin_loss_is_calibrated_iff_it_falls_smoothly_through_zero(phi, calibrated):
    def least(q, low, high):
        risk = lambda z: q * phi(z) + (1 - q) * phi(-z)  # noqa: E731
        found = minimize_scalar(risk, bounds=(low, high), method="bounded", options={"xatol": 1e-11})
        return min(found.fun, risk(low), risk(high))

    gaps = [least(q, -20, 0) - least(q, 0, 20) for q in (0.505, 0.51, 0.6, 0.9)]
    assert (min(gaps) > 1e-7) == calibrated


@pytest.mark.claim("links-calibrated")
def test_the_hinge_pays_decisions_at_par_and_tells_no_probability():
    z = np.arange(-300, 301) / 100
    for q in (0.55, 0.7, 0.95):
        risk = q * np.maximum(0, 1 - z) + (1 - q) * np.maximum(0, 1 + z)
        assert math.isclose(risk[z <= 0].min() - risk.min(), 2 * q - 1, abs_tol=1e-12)
        assert z[risk.argmin()] == 1
