"""Weights, links, regrets, divergences, mixability: the classical theory of two classes against its closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.spatial.distance import jensenshannon
from scipy.special import beta as beta_function
from scipy.special import betaincc, expit, logit, rel_entr

from gence.losses import make_loss
from gence.propriety import (
    Link,
    binary_regret,
    canonical_link,
    composite_curvature,
    conditional_risk,
    elementary_loss,
    induced_divergence,
    is_strictly_proper,
    loss_from_entropy,
    loss_from_weight,
    mixability_constant,
    murphy_diagram,
    on_logits,
    weight_function,
)

C = np.array([1e-4, 0.01, 0.1, 0.3, 0.5, 0.77, 0.95, 0.999])


def log_loss(p, label):
    return -torch.log(p[label])


def squared(p, y):
    return (p - y) ** 2


def spherical(p, label):
    return 1 - p[label] / p.norm()


def exponential(p, label):
    return torch.sqrt((1 - p[label]) / p[label])


def zero_one(p, y):
    return float((p > 0.5) != y)


# Loss, its weight, its mixability constant.
CLOSED = {
    "log": (log_loss, lambda c: 1 / (c * (1 - c)), 1.0),
    "ce of the library": (make_loss("ce"), lambda c: 1 / (c * (1 - c)), 1.0),
    "squared": (squared, lambda c: 2 + 0 * c, 2.0),
    "brier of the library": (make_loss("brier"), lambda c: 4 + 0 * c, 1.0),
    "spherical": (spherical, lambda c: (c**2 + (1 - c) ** 2) ** -1.5, math.sqrt(2)),
    "exponential": (exponential, lambda c: (c * (1 - c)) ** -1.5 / 2, 0.0),
    "log in math": (lambda p, y: -math.log(p if y else 1 - p), lambda c: 1 / (c * (1 - c)), 1.0),
    "spherical in NumPy": (
        lambda p, label: 1 - p[label] / np.sqrt((p**2).sum()),
        lambda c: (c**2 + (1 - c) ** 2) ** -1.5,
        math.sqrt(2),
    ),
    "detached": (lambda p, label: -torch.log(p[label].detach()), lambda c: 1 / (c * (1 - c)), 1.0),
}


@pytest.mark.parametrize("name", CLOSED)
def test_weights_have_their_closed_forms(name):
    loss, weight, _ = CLOSED[name]
    found = weight_function(loss)(C)
    assert found.dtype == np.float64 and np.abs(found / weight(C) - 1).max() < 1e-9
    with torch.no_grad():
        assert np.abs(weight_function(loss)(C.reshape(2, 4)) - found.reshape(2, 4)).max() == 0


@pytest.mark.parametrize("name", CLOSED)
def test_mixability_constants_have_their_closed_forms(name):
    assert abs(mixability_constant(CLOSED[name][0]) - CLOSED[name][2]) < 1e-9


def test_a_constant_that_is_reached_only_at_an_end():
    assert abs(mixability_constant(loss_from_weight(lambda c: 1 / c)) - 1) < 1e-9
    assert abs(mixability_constant(loss_from_weight(lambda c: 2 / (1 - c))) - 0.5) < 1e-9
    assert mixability_constant(lambda p, y: 3.0) == np.inf


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (1.0, 3.0), (-0.5, -0.5), (1.0, 0.0)])
def test_the_beta_family_comes_back_from_its_weights(a, b):
    """Incomplete beta functions are the integrals; a = b = 0 is the log loss, -1/2 boosting, up to factors."""

    def weight(c):
        return c ** (a - 1) * (1 - c) ** (b - 1)

    loss = loss_from_weight(weight)
    for c in (1e-5, 0.2, 0.5, 0.9, 0.9999):
        if b + 1 > 0 and a > 0:
            expected = beta_function(a, b + 1) * betaincc(a, b + 1, c)
            assert np.isclose(loss(c, 1).item(), expected, rtol=1e-9, atol=1e-13)
        elif a == b == 0:
            assert abs(loss(c, 1).item() / -np.log(c) - 1) < 1e-9
        else:
            assert abs(loss(c, 1).item() / (2 * np.sqrt((1 - c) / c)) - 1) < 1e-9
        # A forecast of c for class 1 is one of 1 - c for class 0, with the ends of the weight exchanged.
        mirrored = loss_from_weight(lambda c: (1 - c) ** (a - 1) * c ** (b - 1))
        assert np.isclose(loss(1 - c, 0).item(), mirrored(c, 1).item(), rtol=1e-7, atol=1e-13)
    found = weight_function(loss)
    assert np.abs(found(C[1:-1]) / weight(C[1:-1]) - 1).max() < 1e-9


def test_a_weight_drawn_by_hand_with_a_step_is_a_loss_and_comes_back():
    loss = loss_from_weight(lambda c: 1.0 + 3.0 * (c > 0.302), breaks=[0.302])
    assert abs(loss(0.2, 1).item() - (0.8**2 / 2 + 3 * 0.698**2 / 2)) < 1e-12
    assert abs(loss([0.8, 0.2], 0).item() - 0.2**2 / 2) < 1e-12
    assert weight_function(loss)([0.1, 0.29, 0.31, 0.8]).round(9).tolist() == [1, 1, 4, 4]


def test_the_ends_of_a_loss_from_its_weight():
    loss = loss_from_weight(lambda c: 1 / (c * (1 - c)))
    assert loss(1.0, 1) == loss(0.0, 0) == 0 and loss(0.0, 1) == loss(1.0, 0) == np.inf
    assert abs(loss(1e-300, 1).item() / (300 * np.log(10)) - 1) < 1e-9


ENTROPIES = {
    "shannon": (lambda p: torch.special.entr(p).sum(), log_loss),
    "gini": (lambda p: 1 - (p**2).sum(), lambda p, y: ((p - torch.eye(len(p))[y]) ** 2).sum()),
    "norm": (lambda p: 1 - p.norm(), spherical),
}


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("name", ENTROPIES)
def test_an_entropy_gives_the_loss_whose_risk_at_the_truth_it_is(name, n_classes):
    entropy, expected = ENTROPIES[name]
    loss = loss_from_entropy(entropy, n_classes)
    for p in torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(n_classes), 10)):
        found = [loss(p, k).item() for k in range(n_classes)]
        assert np.allclose(found, [float(expected(p, k)) for k in range(n_classes)], rtol=0, atol=1e-12)
        assert abs(p.numpy() @ found - entropy(p).item()) < 1e-12


def test_an_entropy_of_one_number_in_numpy_gives_the_same_loss():
    ours = loss_from_entropy(lambda c: -c * np.log(c) - (1 - c) * np.log(1 - c))
    for c in (0.01, 0.3, 0.9):
        assert abs(ours(c, 1).item() + np.log(c)) < 1e-10 and abs(ours([1 - c, c], 0).item() + np.log(1 - c)) < 1e-10
    assert np.abs(weight_function(ours)([0.1, 0.5]) - [1 / 0.09, 4]).max() < 1e-7  # differences of differences
    sure = loss_from_entropy(ENTROPIES["shannon"][0])
    assert sure([0.0, 1.0], 1) == 0 and sure([0.0, 1.0], 0) == np.inf
    assert loss_from_entropy(lambda c: c * np.sqrt(2) * (1 - c))([0.0, 1.0], 1) == 0
    with pytest.raises(ValueError, match="edge of the simplex"):
        loss_from_entropy(lambda c: c * np.sqrt(2) * (1 - c) if isinstance(c, float) else 1 / 0)([0.0, 1.0], 0)


def test_the_loss_of_an_entropy_is_found_strictly_proper():
    assert is_strictly_proper(
        on_logits(loss_from_entropy(ENTROPIES["norm"][0], 3)), 3, n_beliefs=4, n_starts=2
    ).strictly


def test_canonical_links_have_their_closed_forms_and_inverses():
    for loss, link in [(log_loss, logit), (squared, lambda c: 2 * c - 1), (make_loss("brier"), lambda c: 4 * c - 2)]:
        found = canonical_link(loss)
        assert np.abs(found(C) - link(C)).max() < 1e-9
        assert np.abs(found.inverse(link(C)) - C).max() < 1e-9
        assert np.abs(found.slope(C) / weight_function(loss)(C) - 1).max() < 1e-12
    odds = np.sqrt(C / (1 - C)) - np.sqrt((1 - C) / C)
    assert np.allclose(canonical_link(exponential)(C), odds, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", [log_loss, squared, spherical, exponential, make_loss("brier")])
def test_behind_its_canonical_link_a_proper_loss_is_convex_with_slope_c_minus_y(loss):
    link, weight = canonical_link(loss), weight_function(loss)
    inside = C[1:-1]
    for label in (0, 1):
        found = composite_curvature(loss, inside, label, link)
        assert (found > 0).all() and np.abs(found * weight(inside) - 1).max() < 1e-8
    # The slope in the score, by differences of the loss itself.
    if loss is spherical:
        score, h = float(link(0.3)), 1e-5
        risks = [float(loss(torch.tensor([1 - c, c]), 1)) for c in link.inverse([score - h, score + h])]
        assert abs((risks[1] - risks[0]) / (2 * h) - (0.3 - 1)) < 1e-8


def test_squared_error_behind_a_sigmoid_is_concave_below_one_third():
    turn = brentq(lambda c: float(composite_curvature(squared, c, 1)), 0.2, 0.5, xtol=1e-13)
    assert abs(turn - 1 / 3) < 1e-9
    c = np.linspace(0.01, 0.99, 99)
    closed = 2 * c * (1 - c) ** 2 * (3 * c - 1)  # second derivative of (1 - sigmoid(z))^2
    assert np.abs(composite_curvature(squared, c, 1) - closed).max() < 1e-9
    assert np.abs(composite_curvature(squared, c, 0) - closed[::-1]).max() < 1e-9
    assert np.abs(composite_curvature(make_loss("ce"), c, 1) - c * (1 - c)).max() < 1e-9


def test_a_link_of_ones_own_and_its_range():
    own = Link(lambda c: c**3, lambda c: 3 * c**2)
    assert abs(own.inverse(0.125) - 0.5) < 1e-12
    with pytest.raises(ValueError, match=r"no probability has the score 1.5: this link goes from"):
        canonical_link(squared).inverse(1.5)


def test_regrets_are_divergences_and_bound_the_regret_of_decisions():
    q = np.arange(1, 1000) / 1000
    p = q[:, None]
    kl = rel_entr(q, p) + rel_entr(1 - q, 1 - p)
    log_regret, squared_regret = binary_regret(log_loss, p, q), binary_regret(squared, p, q)
    assert np.abs(log_regret - kl).max() < 1e-9 and np.abs(squared_regret - (p - q) ** 2).max() < 1e-12
    decisions = 2 * binary_regret(elementary_loss(0.5), p, q)
    wrong = (p > 0.5) != (q > 0.5)
    assert np.abs(decisions - np.where(wrong, np.abs(2 * q - 1), 0)).max() < 1e-12
    assert (decisions <= np.sqrt(2 * np.maximum(log_regret, 0)) + 1e-9).all()
    assert (decisions <= 2 * np.sqrt(np.maximum(squared_regret, 0)) + 1e-9).all()
    at_half = decisions[499]  # the bound by squared error is met where the forecast is 1/2
    assert np.abs(at_half[500:] - 2 * np.sqrt(squared_regret[499, 500:])).max() < 1e-12


def test_regrets_at_the_ends():
    assert binary_regret(make_loss("ce"), [1.0, 0.0, 0.5], [1.0, 1.0, 1.0]).tolist() == [0, np.inf, np.log(2)]
    by_lab = conditional_risk(make_loss("focal"), [0.4, 0.6], [0.1, 0.9]) - conditional_risk(
        make_loss("focal"), [0.1, 0.9], [0.1, 0.9]
    )
    assert abs(binary_regret(make_loss("focal"), 0.6, 0.9) - by_lab) < 1e-12


def distributions(seed):
    p, q = np.random.default_rng(seed).dirichlet(np.full(6, 0.5), 2)
    p[2], q[4] = 0, 0
    return p / p.sum(), q / q.sum()


@pytest.mark.parametrize("seed", range(3))
def test_divergences_that_losses_induce(seed):
    P, Q = distributions(seed)
    for loss in (log_loss, make_loss("ce")):
        assert abs(induced_divergence(loss, P, Q) - jensenshannon(P, Q) ** 2) < 1e-9
    variation = np.abs(P - Q).sum() / 2
    assert abs(induced_divergence(zero_one, P, Q) - variation / 2) < 1e-9
    assert abs(2 * induced_divergence(elementary_loss(0.5), P, Q) - variation / 2) < 1e-9
    seen = P + Q > 0
    triangular = ((P - Q)[seen] ** 2 / (P + Q)[seen]).sum()
    assert abs(induced_divergence(squared, P, Q) - triangular / 8) < 1e-9


def test_divergences_need_no_proper_loss_and_see_the_prior():
    P, Q = distributions(1)
    # Absolute error is not proper: its best forecasts are 0 and 1, so its risks are those of the 0-1 loss.
    for prior in (0.5, 0.3):
        gain = min(prior, 1 - prior) - np.minimum(prior * P, (1 - prior) * Q).sum()
        assert abs(induced_divergence(lambda p, y: abs(p - y), P, Q, prior=prior) - gain) < 1e-9
    smoothing = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    soft = [0.9 * x + 0.05 for x in (P / (P + Q + (P + Q == 0)), 0.5)]
    shannon = [-(x * np.log(x) + (1 - x) * np.log(1 - x)) for x in soft]
    assert abs(induced_divergence(smoothing, P, Q) - (shannon[1] - (P + Q) / 2 @ shannon[0])) < 1e-9
    assert abs(induced_divergence(make_loss("focal"), P, P)) < 1e-12


def partial_losses(loss, c):
    return np.array([[float(loss(torch.tensor([1 - x, x], dtype=torch.float64), k)) for k in (0, 1)] for x in c])


@pytest.mark.parametrize(("loss", "eta"), [(log_loss, 1.0), (spherical, math.sqrt(2))])
def test_the_mixability_constant_is_where_the_exponentials_stop_being_concave(loss, eta):
    """By definition: the curve (exp(-eta loss 0), exp(-eta loss 1)) bounds a convex set."""
    values = partial_losses(loss, np.linspace(0.01, 0.99, 981))

    def bulges(eta):
        steps = np.diff(np.exp(-eta * values), axis=0)
        return (steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]).min() >= -1e-15

    assert bulges(eta * 0.999) and not bulges(eta * 1.01)


def test_the_aggregating_algorithm_keeps_its_promise_up_to_the_constant_and_no_further():
    rng, n, eta = np.random.default_rng(0), 5, mixability_constant(squared)
    experts, outcomes = rng.beta(0.3, 0.3, (400, n)), rng.random(400) < 0.4

    def play(eta):
        total, each, worst = 0.0, np.zeros(n), -np.inf
        for forecasts, y in zip(experts, outcomes, strict=True):
            weights = np.exp(-eta * (each - each.min()))
            mixes = [-np.log(weights @ np.exp(-eta * (forecasts - k) ** 2) / weights.sum()) / eta for k in (0, 1)]
            c = np.clip((1 + mixes[0] - mixes[1]) / 2, 0, 1)  # the forecast equally good for both labels
            worst = max(worst, c**2 - mixes[0], (1 - c) ** 2 - mixes[1])
            total, each = total + (c - y) ** 2, each + (forecasts - y) ** 2
        return total - each.min(), worst

    regret, worst = play(eta)
    assert regret <= np.log(n) / eta and worst <= 1e-12
    assert play(1.5 * eta)[1] > 1e-3


def test_a_loss_by_hand_as_a_module_is_the_library_s_own():
    z, y = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3
    z.requires_grad_()
    for branch in (lambda p, k: -torch.log(p[k]), lambda p, k: -torch.log(p[k]) if p[k] > 0 else torch.inf):
        ours, theirs = on_logits(branch)(z, y), torch.nn.functional.cross_entropy(z, y)
        gradients = [torch.autograd.grad(v, z)[0] for v in (ours, theirs)]
        assert abs(ours - theirs) < 1e-12 and torch.allclose(*gradients, rtol=0, atol=1e-12)
    for reduction, expected in (("sum", (7,)), ("none", (7, 7))):
        found = on_logits(log_loss, reduction)(z, y)
        assert found.numel() * 7 == np.prod(expected) or found.shape == y.shape
        assert abs(found.sum() - 7 * theirs) < 1e-12
    two = on_logits(squared, "none")(z[:, :2], torch.tensor([0, 1, 1, 0, 1, 0, 0]))
    assert torch.allclose(two[1], (expit((z[1, 1] - z[1, 0]).item()) - 1) ** 2 * torch.ones((), dtype=z.dtype))
    verdict = is_strictly_proper(on_logits(lambda p, k: 1 - p[k]), 3, n_beliefs=4, n_starts=2)
    assert verdict.proper is False


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weight_function(make_loss("focal")), r"not proper.*belief 0.333333 .*forecast 0.4 costs .*honesty"),
        (lambda: weight_function(torch.nn.CrossEntropyLoss(label_smoothing=0.005)), "not proper"),
        (lambda: weight_function(lambda p, y: -((p - y) ** 2)), "not proper.*belief 0.5"),
        (lambda: weight_function(lambda p, y: abs(p - y)), "not proper"),
        (lambda: weight_function(zero_one), r"not differentiable: it jumps at c = 0\.5,"),
        (lambda: weight_function(elementary_loss(0.302)), r"jumps at c = 0\.302"),
        (lambda: weight_function(make_loss("gence")), "couples the samples"),
        (lambda: weight_function(lambda p, y: (p[y] - 0.3) ** 0.5), "the loss is nan at p = "),
        (lambda: weight_function(lambda p, y: p[2]), "cannot be evaluated for 2 classes.*IndexError"),
        (lambda: weight_function(torch.nn.functional.cross_entropy), "must be a torch.nn.Module"),
        (
            lambda: weight_function(torch.nn.CrossEntropyLoss(weight=torch.ones(3))),
            "cannot be evaluated for two classes",
        ),
        (lambda: weight_function(squared)(1.0), "c must lie strictly between 0 and 1, but got 1.0"),
        (lambda: weight_function(squared)(np.nan), "c must lie strictly between 0 and 1, but got nan"),
        (lambda: canonical_link(lambda p, y: 0.0), "proper, not strictly: its weight is 0"),
        (lambda: mixability_constant(zero_one), "jumps"),
        (lambda: composite_curvature(squared, 0.5, 2), "label must be one of 0 to 1, but got 2"),
        (lambda: loss_from_weight(lambda c: -1.0), r"a weight must be a number >= 0, but w\(0.5\) = -1.0"),
        (lambda: loss_from_weight(lambda c: np.nan), r"w\(0.5\) = nan"),
        (lambda: loss_from_weight(lambda c: 1 / (1 - c) ** 2), "grows so fast towards 1 that no loss has it"),
        (lambda: loss_from_weight(lambda c: 1 / c**2), "grows so fast towards 0"),
        (lambda: loss_from_weight(lambda c: 1.0, breaks=[2]), "breaks must lie strictly between"),
        (lambda: loss_from_weight(lambda c: 1.0)([0.2, 0.3, 0.5], 0), r"for two classes, but has \(3,\)"),
        (lambda: loss_from_weight(lambda c: 1.0)(1.5, 0), r"must lie in \[0, 1\], but got 1.5"),
        (lambda: loss_from_weight(lambda c: 1.0)(0.5, 2), "label must be one of 0 to 1"),
        (lambda: elementary_loss(0), "threshold must lie strictly between"),
        (lambda: loss_from_entropy(lambda p: (p**2).sum()), r"not concave: half way between .* no loss has this"),
        (lambda: loss_from_entropy(lambda c: np.sin(5 * c)), "not concave"),
        (lambda: loss_from_entropy(lambda p: p.sum() * torch.nan, 3), "H is nan at"),
        (lambda: loss_from_entropy(lambda p: p[2]), "cannot be evaluated for 2 classes"),
        (lambda: loss_from_entropy(lambda p: 1 - p.norm(), 1), "n_classes must be at least 2"),
        (lambda: loss_from_entropy(lambda p: 1 - p.norm())([0.2, 0.3, 0.5], 0), r"p must have shape \(2,\), but has"),
        (lambda: binary_regret(squared, 1.5, 0.5), r"p must lie in \[0, 1\], but got 1.5"),
        (lambda: induced_divergence(squared, [0.5, 0.5], [1.0]), "two distributions over the same M values"),
        (lambda: induced_divergence(squared, [0.5, 0.6], [0.5, 0.5]), "P must hold distributions"),
        (lambda: induced_divergence(squared, [0.5, np.nan], [0.5, 0.5]), "P must hold distributions"),
        (lambda: induced_divergence(squared, [1.0], [1.0], prior=1), "prior must lie strictly"),
        (lambda: induced_divergence(make_loss("gence"), [1.0], [1.0]), "couples the samples"),
        (lambda: on_logits(log_loss, "max"), "reduction must be"),
        (
            lambda: on_logits(lambda p, y: -np.log(p[y]))(
                torch.zeros(2, 3).normal_().requires_grad_(), torch.arange(2)
            ),
            "no gradient comes back",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_module_is_no_loss_by_hand():
    with pytest.raises(TypeError, match="takes logits already"):
        on_logits(make_loss("ce"))


@pytest.mark.parametrize(
    "loss",
    [make_loss("brier"), spherical, lambda p, label: 1 - p[label] / np.sqrt((p**2).sum())],
    ids=["module", "torch", "numpy"],
)
def test_one_loss_goes_through_all_tools(loss):
    """As it does in one cell of a notebook; what each gives is tested above."""
    w = weight_function(loss)
    link = canonical_link(loss)
    again = loss_from_weight(w) if loss is spherical else None
    assert link.inverse(link(0.3)) == pytest.approx(0.3, abs=1e-9)
    assert composite_curvature(loss, 0.3, 1, link) > 0
    assert induced_divergence(loss, [0.8, 0.2], [0.3, 0.7]) > 0
    assert binary_regret(loss, 0.4, 0.3) > 0
    assert mixability_constant(loss) > 0
    assert murphy_diagram([0.3, 0.6], [0, 1]).mean_score(w) > 0
    if again:
        assert abs(again(0.3, 1).item() - (1 - 0.3 / math.hypot(0.3, 0.7))) < 1e-9
