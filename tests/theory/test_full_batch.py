"""Full-batch GenCE is cross-entropy: the theorem and its limits; see notebooks/batch/full_batch.ipynb.

The references are plain numpy: sums over samples and classes, Newton's method for the best bias of cross-entropy.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, root

from gence import generative_cross_entropy
from gence.lab.results import sources, statistics

SHAPES = [(7, 2), (12, 3), (25, 4), (40, 6), (80, 10)]
SEEDS = range(12)
DRAWS = list(product(SEEDS, SHAPES))


def draw(seed, shape, spread=2.0):
    n, k = shape
    rng = np.random.default_rng([seed, n, k, 15])
    labels = np.concatenate([np.arange(k), rng.choice(k, n - k, p=rng.dirichlet(np.ones(k)))])
    return spread * rng.standard_normal((n, k)) + rng.standard_normal(k), rng.permutation(labels)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def ce_by_hand(z, a, divisor):
    p = softmax(z)
    return -sum(a[i, k] * math.log(p[i, k]) for i, k in np.ndindex(a.shape) if a[i, k] > 0) / divisor


def gence_by_hand(z, a, divisor):
    p, m = softmax(z), a.sum(1)
    total = 0.0
    for k in range(a.shape[1]):
        column = sum(m[j] * p[j, k] for j in range(len(p)))
        for i in range(len(p)):
            if a[i, k] > 0:
                total -= a[i, k] * math.log(p[i, k] / column)
    return total / divisor


def best_bias_of_ce(z, a):
    """Newton's method with halved steps on the convex function of the bias; the last entry stays zero."""
    b, m, counts = np.zeros(z.shape[1]), a.sum(1), a.sum(0)
    for _ in range(200):
        p = softmax(z + b)
        gradient = m @ p - counts
        hessian = np.diag(m @ p) - (p * m[:, None]).T @ p
        step = np.append(np.linalg.solve(hessian[:-1, :-1], gradient[:-1]), 0.0)
        now, t = ce_by_hand(z + b, a, 1.0), 1.0
        while t > 1e-8 and ce_by_hand(z + b - t * step, a, 1.0) > now + 1e-12:
            t /= 2
        b = b - t * step
        if np.abs(gradient).max() < 1e-12:
            break
    assert np.abs(m @ softmax(z + b) - counts).max() < 1e-10
    return b - b.mean()


def library(z, target, **options):
    return float(generative_cross_entropy(torch.as_tensor(z), torch.as_tensor(target), **options))


def library_bias(z, target, start, **options):
    """The library's own best bias: BFGS from a start, then the zero of its gradient; mean zero."""
    z, target = torch.as_tensor(z), torch.as_tensor(target)

    def value_and_gradient(free):
        b = torch.tensor(np.append(free, 0.0), requires_grad=True)
        value = generative_cross_entropy(z + b, target, **options)
        value.backward()
        return value.item(), b.grad[:-1].numpy()

    near = minimize(value_and_gradient, start, jac=True, options={"gtol": 1e-9}).x
    b = np.append(root(lambda free: value_and_gradient(free)[1], near, options={"xtol": 1e-14}).x, 0.0)
    return b - b.mean()


def one_hot(labels, k):
    return np.eye(k)[labels]


@pytest.mark.claim("full-batch-is-ce")
def test_both_losses_have_their_minimum_over_the_bias_at_the_same_place_and_a_constant_apart():
    assert len(DRAWS) >= 50 and len(SHAPES) >= 5
    for seed, shape in DRAWS:
        z, labels = draw(seed, shape)
        a, n = one_hot(labels, shape[1]), shape[0]
        pi = a.mean(0)
        constant = math.log(n) + sum(x * math.log(x) for x in pi)
        b = best_bias_of_ce(z, a)
        low = ce_by_hand(z + b, a, n)
        assert abs(gence_by_hand(z + b, a, n) - low - constant) < 1e-12
        start = np.random.default_rng(seed).standard_normal(shape[1] - 1)
        own = library_bias(z, labels, start)
        assert abs(library(z + own, labels) - low - constant) < 1e-12
        assert np.abs(own - b).max() < 1e-6


@pytest.mark.claim("full-batch-is-ce")
def test_no_bias_and_no_free_sample_scales_reach_below_the_minimum():
    for seed, shape in DRAWS[:30]:
        z, labels = draw(seed, shape)
        n, k = shape
        low = library(z + best_bias_of_ce(z, one_hot(labels, k)), labels)
        rng = np.random.default_rng(seed)
        for size in (0.01, 1.0, 20.0):
            assert library(z + size * rng.standard_normal(k), labels) >= low - 1e-12
        shares = np.bincount(labels) / n

        def free_scales(u, z=z, labels=labels, shares=shares):
            scores = z + u[:, None]
            top = scores.max(0)
            log_sums = top + np.log(np.exp(scores - top).sum(0))
            r = np.exp(scores - log_sums)
            return -(scores - log_sums)[np.arange(len(z)), labels].mean(), r @ shares - 1 / len(z)

        found = minimize(free_scales, np.zeros(n), jac=True, options={"gtol": 1e-10})
        assert abs(found.fun - low) < 1e-9


@pytest.mark.claim("full-batch-soft-targets")
@pytest.mark.parametrize("kind", ["soft", "smoothed", "weighted", "all"])
def test_soft_targets_smoothing_and_class_weights_keep_the_theorem(kind):
    for seed, shape in DRAWS[:20]:
        z, labels = draw(seed, shape)
        n, k = shape
        rng = np.random.default_rng([seed, k])
        q, w = rng.dirichlet(np.full(k, 0.6), n), rng.uniform(0.2, 3.0, k)
        weight = torch.tensor(w)
        target, options, a, divisor = {
            "soft": (q, {}, q, n),
            "smoothed": (labels, {"label_smoothing": 0.1}, 0.9 * one_hot(labels, k) + 0.1 / k, n),
            "weighted": (labels, {"weight": weight}, one_hot(labels, k) * w, w[labels].sum()),
            "all": (q, {"weight": weight, "label_smoothing": 0.3}, (0.7 * q + 0.3 / k) * w, n),
        }[kind]
        b = best_bias_of_ce(z, a)
        constant = sum(x * math.log(x) for x in a.sum(0)) / divisor
        own = library_bias(z, target, rng.standard_normal(k - 1), **options)
        low = ce_by_hand(z + b, a, divisor)
        assert abs(library(z + own, target, **options) - low - constant) < 1e-12
        assert np.abs(own - b).max() < 1e-6


def other_best_bias(seed, shape):
    """Logits with two equal columns, labels, the best bias of CE, and another one that is best for GenCE."""
    z, labels = draw(seed, shape)
    z[:, -1] = z[:, -2]
    b = best_bias_of_ce(z, one_hot(labels, shape[1]))
    p = softmax(z + b)
    c = np.ones(shape[1])  # P c = 1, by moving mass between the twins
    c[-1] = 0.3
    c[-2] = 1 + 0.7 * p[0, -1] / p[0, -2]
    assert np.abs(p @ c - 1).max() < 1e-12
    return z, labels, b, b + np.log(c)


@pytest.mark.claim("full-batch-which-biases")
def test_dependent_columns_have_other_best_biases_for_gence_only():
    for seed, shape in product(SEEDS, SHAPES[1:]):
        z, labels, b, other = other_best_bias(seed, shape)
        a, n = one_hot(labels, shape[1]), len(z)
        low, value = (library(z + x, labels) for x in (b, other))
        assert abs(value - low) < 1e-12
        assert low == pytest.approx(gence_by_hand(z + b, a, n), abs=1e-12)
        assert ce_by_hand(z + other, a, n) > ce_by_hand(z + b, a, n) + 1e-3
        assert library(z + b + 0.1 * np.random.default_rng(seed).standard_normal(shape[1]), labels) > low


@pytest.mark.claim("full-batch-no-traps")
def test_every_stationary_bias_is_best_from_far_starts():
    reached = 0
    for seed, shape in DRAWS[:25]:
        z, labels = draw(seed, shape)
        low = library(z + best_bias_of_ce(z, one_hot(labels, shape[1])), labels)
        b = library_bias(z, labels, 5 * np.random.default_rng(seed).standard_normal(shape[1] - 1))
        t = torch.tensor(b, requires_grad=True)
        generative_cross_entropy(torch.tensor(z) + t, torch.tensor(labels)).backward()
        if t.grad.abs().max() < 1e-10 and np.abs(b).max() < 15:
            reached += 1
            assert abs(library(z + b, labels) - low) < 1e-12
    assert reached > 12


@pytest.mark.claim("half-a-step")
def test_gence_lies_between_ce_before_and_after_a_step_of_sinkhorn():
    for seed, shape in DRAWS:
        z, labels = draw(seed, shape)
        n, k = shape
        a = one_hot(labels, k)
        p, counts = softmax(z), np.bincount(labels)
        excess = library(z, labels) - sum(c / n * math.log(c) for c in counts)
        marginal = sum(c / n * math.log(c / C) for c, C in zip(counts, p.sum(0), strict=True))
        w = counts / p.sum(0)
        rows = -sum(math.log(sum(w[j] * p[i, j] for j in range(k))) for i in range(n)) / n
        before, after = ce_by_hand(z, a, n), ce_by_hand(z + np.log(w), a, n)
        assert abs(excess - (before - marginal)) < 1e-12
        assert abs(excess - (after + rows)) < 1e-12
        assert marginal >= 0 and rows >= -1e-15


COUNTS = (50, 25, 15)
LABELS = np.repeat(np.arange(3), COUNTS)


def points(seed):
    centres = np.array([[2.0, 1.0], [1.0, 2.5], [2.5, 2.5]])
    return centres[LABELS] + np.random.default_rng([seed, 99]).standard_normal((len(LABELS), 2))


def fit_linear(value_and_gradient, x, on_bias=0.0):
    """Fit a linear model whose last class has zero weights by the gradient in the logits; the probabilities."""
    size = 2 * x.shape[1]

    def both(theta):
        w = np.column_stack([theta.reshape(-1, 2), np.zeros(x.shape[1])])
        value, g = value_and_gradient(x @ w)
        gradient = (x.T @ g)[:, :2]
        gradient[-1] += on_bias * w[-1, :2]
        return value + on_bias * (w[-1] ** 2).sum() / 2, gradient.ravel()

    near = minimize(both, np.zeros(size), jac=True, options={"gtol": 1e-9}).x
    theta = root(lambda t: both(t)[1], near, options={"xtol": 1e-14}).x
    assert np.abs(both(theta)[1]).max() < 1e-10
    return softmax(x @ np.column_stack([theta.reshape(-1, 2), np.zeros(x.shape[1])]))


def ce_parts(z):
    p, a = softmax(z), one_hot(LABELS, 3)
    return -np.log(p[np.arange(len(z)), LABELS]).mean(), (p - a) / len(z)


def library_parts(z):
    t = torch.tensor(z, requires_grad=True)
    value = generative_cross_entropy(t, torch.tensor(LABELS))
    value.backward()
    return value.item(), t.grad.numpy()


def with_ones(x):
    return np.column_stack([x, np.ones(len(x))])


@pytest.mark.claim("full-batch-linear")
def test_a_linear_model_with_a_free_bias_has_the_same_optimum():
    for seed in range(10):
        x = with_ones(points(seed))
        p, own = fit_linear(ce_parts, x), fit_linear(library_parts, x)
        assert np.abs(p - own).max() < 1e-6
        assert np.abs(own.mean(0) - np.array(COUNTS) / sum(COUNTS)).max() < 1e-9


@pytest.mark.claim("full-batch-needs-a-bias")
def test_without_a_free_bias_the_optima_differ():
    for seed in range(10):
        x = points(seed)
        assert np.abs(fit_linear(ce_parts, x) - fit_linear(library_parts, x)).max() > 0.1
    for seed in range(3):
        gaps = []
        for penalty in (0.0, 0.001, 0.1):
            pair = [fit_linear(f, with_ones(points(seed)), penalty) for f in (ce_parts, library_parts)]
            gaps.append(np.abs(pair[0] - pair[1]).max())
        assert gaps[0] < 1e-6 < 1e-3 < gaps[1] < gaps[2]


@pytest.mark.claim("full-batch-stationary")
def test_at_balanced_column_sums_both_losses_have_the_same_gradient_in_every_logit():
    for seed, shape in DRAWS:
        z, labels = draw(seed, shape)
        a = one_hot(labels, shape[1])
        balanced = torch.tensor(z + best_bias_of_ce(z, a), requires_grad=True)
        generative_cross_entropy(balanced, torch.tensor(labels)).backward()
        ce_gradient = (softmax(balanced.detach().numpy()) - a) / len(z)
        assert np.abs(balanced.grad.numpy() - ce_gradient).max() < 1e-11
        free = torch.tensor(z, requires_grad=True)
        generative_cross_entropy(free, torch.tensor(labels)).backward()
        assert np.abs(free.grad.numpy() - (softmax(z) - a) / len(z)).max() > 1e-4


@pytest.mark.claim("full-batch-stationary")
def test_the_converse_needs_complete_predictions():
    for seed, shape in product(SEEDS, SHAPES[1:]):
        z, labels, _, other = other_best_bias(seed, shape)
        b = torch.tensor(other, requires_grad=True)
        generative_cross_entropy(torch.tensor(z) + b, torch.tensor(labels)).backward()
        counts = np.bincount(labels)
        assert b.grad.abs().max() < 1e-10
        assert np.abs(softmax(z + other).sum(0) - counts).max() > 0.1


@pytest.mark.claim("full-batch-paths-differ")
def test_full_batch_paths_part_and_meet_again():
    x = points(0)
    x = with_ones(x - x.mean(0))

    def walk(parts, steps):
        w = np.zeros((3, 3))
        for _ in range(steps):
            w -= 0.2 * x.T @ parts(x @ w)[1]
        return softmax(x @ w)

    at = {steps: np.abs(walk(ce_parts, steps) - walk(library_parts, steps)).max() for steps in (0, 10, 2500)}
    assert at[0] == 0 and at[10] > 0.05 and at[2500] < at[10] / 10
    bias_gradient = library_parts(np.zeros((len(x), 3)))[1].sum(0)
    assert np.abs(bias_gradient).max() < 1e-12 < np.abs(ce_parts(np.zeros((len(x), 3)))[1].sum(0)).max()


@pytest.mark.claim("full-batch-not-mini")
def test_averaged_over_small_batches_the_optimum_is_another():
    x, n = with_ones(points(1)), len(LABELS)
    rng = np.random.default_rng(1)

    def parts_of(size):
        batches = np.concatenate([rng.permutation(n).reshape(-1, size) for _ in range(5)])

        def parts(z):
            t, y = torch.tensor(z, requires_grad=True), torch.tensor(LABELS)
            value = sum(generative_cross_entropy(t[list(rows)], y[list(rows)]) for rows in batches) / len(batches)
            value.backward()
            return value.item(), t.grad.numpy()

        return parts

    p = fit_linear(ce_parts, x)
    assert np.abs(fit_linear(parts_of(n), x) - p).max() < 1e-6
    assert np.abs(fit_linear(parts_of(9), x) - p).max() > 5e-3


@pytest.mark.claim("full-batch-mlp")
def test_a_perceptron_trained_on_the_full_balanced_batch_has_the_same_error_within_half_a_point(tmp_path):
    fixed = {"dataset": "digits", "n_per_class": 10, "batch_size": "full", "epochs": 300, "lr": 0.3}
    fixed |= {"weight_decay": 0.0, "recipe_options": {"checks": 1}, "seeds": "100-111"}
    records = sources.train_grid({"fixed": fixed, "vary": {"loss": ["ce", "gence"]}}, tmp_path, progress=False)
    last = records[records.checkpoint == "last"]
    assert (last.train_error == 0).all()
    table = statistics.comparison_table(last, ["error", "nll"], by=["rho"], margins={"error": 0.005})
    assert table.verdict.tolist() == ["equivalent", "lower"]
