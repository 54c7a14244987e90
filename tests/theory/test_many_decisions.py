"""The claims of the chapter "One loss, many decisions", each tested without the chapter's own code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from gence.losses import make_loss
from gence.propriety import binary_regret, elementary_loss, loss_from_weight, murphy_diagram, weight_function

# Partial losses as plain formulas of the probability of class 1, (label 0, label 1), and the weights of the literature.
LOSSES = {
    "log": (lambda p: (-math.log(1 - p), -math.log(p)), lambda c: 1 / (c * (1 - c))),
    "squared": (lambda p: (p * p, (1 - p) ** 2), lambda c: 2.0),
    "spherical": (
        lambda p: (1 - (1 - p) / math.hypot(p, 1 - p), 1 - p / math.hypot(p, 1 - p)),
        lambda c: (c * c + (1 - c) ** 2) ** -1.5,
    ),
    "exponential": (
        lambda p: (math.sqrt(p / (1 - p)), math.sqrt((1 - p) / p)),
        lambda c: 0.5 * (c * (1 - c)) ** -1.5,
    ),
}
BELIEFS = [0.02, 0.2, 0.5, 0.71, 0.97]


def by_hand(name):
    return lambda p, label: LOSSES[name][0](float(p))[label]


def decision(c: float, p: float, label: int) -> float:
    acts = p > c
    return (c if acts else 0.0) if label == 0 else (0.0 if acts else 1 - c)


@pytest.mark.claim("many-mixture")
@pytest.mark.parametrize("name", LOSSES)
def test_a_proper_loss_is_its_crowd_of_decisions(name):
    """The weight once more as minus the second difference of the entropy, and the mixture by quadrature."""
    partial, w = LOSSES[name]

    def entropy(q):
        return (1 - q) * partial(q)[0] + q * partial(q)[1]

    for p in BELIEFS:
        h = 1e-3 * min(p, 1 - p)
        second = (entropy(p + h) - 2 * entropy(p) + entropy(p - h)) / h**2
        assert math.isclose(-second, w(p), rel_tol=1e-5)
        assert math.isclose(weight_function(by_hand(name))(p), w(p), rel_tol=1e-8)
        for label in (0, 1):
            area = sum(quad(lambda c: decision(c, p, label) * w(c), *ends)[0] for ends in ((0, p), (p, 1)))  # noqa: B023
            assert math.isclose(area, partial(p)[label], abs_tol=1e-7)
            assert math.isclose(loss_from_weight(w)(p, label).item(), partial(p)[label], abs_tol=1e-7)
            assert elementary_loss(0.3)(p, label).item() == pytest.approx(decision(0.3, p, label))


@pytest.mark.claim("many-mixture")
def test_the_weights_of_the_plan_to_rounding():
    c = np.linspace(0.01, 0.99, 99)
    assert np.allclose(weight_function(make_loss("ce"))(c), 1 / (c * (1 - c)), rtol=1e-12)
    assert np.allclose(weight_function(lambda p, y: (p - y) ** 2)(c), 2, rtol=1e-12)


@pytest.mark.claim("many-tempered")
@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_tempered_losses_have_the_weight_of_two_powers(t):
    """Their divergence is integrated from its definition, the area under the difference of two tempered logarithms."""

    def log_t(x):
        return math.log(x) if t == 1 else (x ** (1 - t) - 1) / (1 - t)

    def loss(p, label):
        truth = (1 - label, label)
        forecast = (1 - float(p), float(p))
        return sum(quad(lambda s: log_t(s) - log_t(f), f, y)[0] for y, f in zip(truth, forecast, strict=True))  # noqa: B023

    built = loss_from_weight(lambda c: c**-t + (1 - c) ** -t)
    for p in BELIEFS:
        for label in (0, 1):
            assert math.isclose(built(p, label).item(), loss(p, label), abs_tol=1e-7)


@pytest.mark.claim("many-regret")
@pytest.mark.parametrize("name", LOSSES)
def test_regret_is_paid_between_forecast_and_truth(name):
    partial, w = LOSSES[name]
    for p in BELIEFS:
        for q in BELIEFS:
            risk = sum(b * (x - y) for b, x, y in zip((1 - q, q), partial(p), partial(q), strict=True))
            area = quad(lambda c: abs(q - c) * w(c), min(p, q), max(p, q))[0]  # noqa: B023
            assert math.isclose(risk, area, abs_tol=1e-9)
            assert math.isclose(binary_regret(by_hand(name), p, q), area, abs_tol=1e-9)


@pytest.mark.claim("many-murphy")
def test_a_murphy_diagram_holds_every_proper_loss_and_dominance_in_it_is_dominance_under_all():
    rng = np.random.default_rng(3)
    truth = rng.uniform(0.02, 0.98, 40)
    labels = (rng.uniform(size=40) < truth).astype(int)
    for name, (partial, w) in LOSSES.items():
        mean = np.mean([partial(p)[y] for p, y in zip(truth, labels, strict=True)])
        assert math.isclose(murphy_diagram(truth, labels).mean_score(w), mean, rel_tol=1e-8), name
    # Nearer to what happened is lower everywhere; a shift to one side crosses, and then two crowds disagree.
    better = truth + 0.3 * (labels - truth)
    c = np.linspace(0.003, 0.997, 401)
    assert (murphy_diagram(better, labels).at(c) <= murphy_diagram(truth, labels).at(c)).all()
    for partial, _ in LOSSES.values():
        assert np.mean([partial(p)[y] for p, y in zip(better, labels, strict=True)]) < np.mean(
            [partial(p)[y] for p, y in zip(truth, labels, strict=True)]
        )
    one, other = murphy_diagram([0.3, 0.6], [1, 0]), murphy_diagram([0.45, 0.75], [1, 0])
    assert one.at(0.7) < other.at(0.7)
    assert one.at(0.35) > other.at(0.35)
    for low, high, winner in ((0.65, 0.7, one), (0.33, 0.4, other)):
        costs = [
            d.mean_score(lambda c, low=low, high=high: float(low < c < high), breaks=(low, high)) for d in (one, other)
        ]
        assert (costs[0] < costs[1]) == (winner is one)


@pytest.mark.claim("many-gradient")
@pytest.mark.parametrize("name", LOSSES)
def test_every_proper_loss_reweights_the_gradient_of_cross_entropy(name):
    """Central differences in the logit; cross-entropy's gradient from torch."""
    partial, w = LOSSES[name]
    for z in (-3.0, -0.4, 0.0, 1.7, 3.5):
        for label in (0, 1):
            p, h = 1 / (1 + math.exp(-z)), 1e-5
            values = [partial(1 / (1 + math.exp(-x)))[label] for x in (z - h, z + h)]
            slope = (values[1] - values[0]) / (2 * h)
            logits = torch.tensor([[0.0, z]], dtype=torch.float64, requires_grad=True)
            torch.nn.functional.cross_entropy(logits, torch.tensor([label])).backward()
            assert math.isclose(slope, w(p) * p * (1 - p) * logits.grad[0, 1].item(), rel_tol=1e-7, abs_tol=1e-9)
