"""The claims of the chapter "When the world moves", each tested without the chapter's own code."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import minimize

N_CLASSES, N_CELLS = 3, 8


def world(seed: int):
    """Densities of the classes over cells, old and new shares."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(N_CLASSES, 3.0), 2) + 0.03
    return rng.dirichlet(np.full(N_CELLS, 0.8), N_CLASSES), *(s / s.sum() for s in shares)


def posterior(density, shares):
    """By Bayes' rule, entry by entry."""
    table = [[shares[k] * density[k, x] for k in range(N_CLASSES)] for x in range(N_CELLS)]
    return np.array([[value / sum(row) for value in row] for row in table])


@pytest.mark.claim("shift-tilt")
def test_the_posterior_of_the_new_world_is_a_tilt_of_the_old_one():
    for seed in range(20):
        density, old, new = world(seed)
        before, after = posterior(density, old), posterior(density, new)
        odds = (before[:, 0] / before[:, 1]) * (new[0] / old[0]) / (new[1] / old[1])
        assert np.allclose(after[:, 0] / after[:, 1], odds, rtol=1e-10)
        # A change of the densities is no tilt: the ratio of the two posteriors depends on the cell.
        other = posterior(world(seed + 100)[0], new)
        ratio = (other / before) / (other / before)[:, :1]
        assert ratio.std(0).max() > 1e-2


@pytest.mark.claim("shift-estimates")
def test_the_likelihood_is_largest_at_the_new_shares_and_decisions_count_them():
    """The maximum by SLSQP from another start, the shares from decisions by least squares."""
    for seed in range(10):
        density, old, new = world(seed)
        q, inputs = posterior(density, old), density.T @ new

        def loss(shares, q=q, inputs=inputs, old=old):
            return -inputs @ np.log(q @ (shares / old))

        simplex = {"type": "eq", "fun": lambda s: s.sum() - 1}
        found = minimize(
            loss,
            np.full(N_CLASSES, 1 / N_CLASSES),
            bounds=[(1e-6, 1)] * N_CLASSES,
            constraints=[simplex],
            options={"ftol": 1e-15, "maxiter": 500},
        ).x
        assert np.abs(found - new).max() < 1e-4
        guess = old.copy()
        for _ in range(4000):  # EM, as Saerens et al. write it
            tilted = q * (guess / old)
            step = inputs @ (tilted / tilted.sum(1, keepdims=True))
            assert loss(step) <= loss(guess) + 1e-13
            guess = step
        assert np.abs(guess - new).max() < 1e-4
        decides = np.array([0, 1, 2, *np.random.default_rng(seed).integers(0, 3, N_CELLS - 3)])
        joint = np.array([[old[k] * density[k, decides == j].sum() for k in range(3)] for j in range(3)])
        counts = np.array([inputs[decides == j].sum() for j in range(3)])
        if np.linalg.cond(joint) < 1e6:
            ratio = np.linalg.lstsq(joint, counts, rcond=None)[0]
            assert np.allclose(ratio * old, new, atol=1e-8)


@pytest.mark.claim("shift-estimates")
def test_a_class_that_is_a_mixture_of_others_hides_its_share():
    """Without independence the likelihood is flat: the reason for the condition."""
    rng = np.random.default_rng(0)
    first, second = rng.dirichlet(np.ones(N_CELLS), 2)
    density, old = np.array([first, second, (first + second) / 2]), np.full(3, 1 / 3)
    q = posterior(density, old)
    one, other = np.array([0.3, 0.3, 0.4]), np.array([0.5, 0.5, 0.0])
    assert np.allclose(q @ (one / old), q @ (other / old), atol=1e-12)


@pytest.mark.claim("shift-covariate")
def test_only_the_posterior_is_calibrated_whatever_the_inputs_are():
    rng = np.random.default_rng(1)
    q = rng.dirichlet(np.ones(3), 6)
    inputs = rng.dirichlet(np.ones(6))
    lump = {0: (0, 1, 2), 1: (3, 4), 2: (5,)}

    def worst_gap(f, inputs):
        gaps = []
        for row in np.unique(f, axis=0):
            same = (f == row).all(1)
            gaps.append(np.abs(np.average(q[same], axis=0, weights=inputs[same]) - row).max())
        return max(gaps)

    f = np.empty_like(q)
    for cells in lump.values():
        f[list(cells)] = np.average(q[list(cells)], axis=0, weights=inputs[list(cells)])
    assert worst_gap(f, inputs) < 1e-12
    for x in range(6):
        gathered = np.full(6, 1e-9)
        gathered[x] = 1
        assert worst_gap(q, gathered) < 1e-12
        assert worst_gap(f, gathered) >= np.abs(q[x] - f[x]).max() - 1e-6


@pytest.mark.claim("shift-undo")
def test_weights_shift_and_focal_factor_are_undone_together():
    """The minimiser by SLSQP on the simplex in float64, from a loss written out."""
    rng = np.random.default_rng(2)
    for _ in range(6):
        q, pi = rng.dirichlet(np.full(3, 2.0)) * 0.94 + 0.02, rng.dirichlet(np.full(3, 2.0)) * 0.94 + 0.02
        w, gamma, tau = rng.uniform(0.4, 2.5, 3), rng.uniform(1, 3), rng.uniform(0.3, 1.2)

        def risk(z, q=q, w=w, gamma=gamma, tau=tau, pi=pi):
            shifted = np.array([*z, 0.0]) + tau * np.log(pi)
            p = np.exp(shifted - shifted.max())
            p /= p.sum()
            return -sum(q[k] * w[k] * (1 - p[k]) ** gamma * math.log(p[k]) for k in range(3))

        z = np.array([*minimize(risk, np.zeros(2), tol=1e-12).x, 0.0])
        p = np.exp(z) * pi**tau
        p /= p.sum()
        g = (1 - p) ** gamma - gamma * p * (1 - p) ** (gamma - 1) * np.log(p)
        belief = p / (w * g)
        assert np.abs(belief / belief.sum() - q).max() < 1e-4
        assert np.abs(p - q).max() > 1e-3, "nothing was distorted, so nothing was tested"


@pytest.mark.claim("shift-conformal")
def test_split_conformal_sets_cover_k_over_n_plus_one_in_exact_arithmetic():
    """Over all orders of the scores, in fractions."""
    for n, alpha in ((1, Fraction(1, 3)), (4, Fraction(1, 4)), (6, Fraction(1, 10)), (6, Fraction(2, 5))):
        k = math.ceil((n + 1) * (1 - alpha))
        covered = 0
        for order in itertools.permutations(range(n + 1)):
            limit = sorted(order[:n])[k - 1] if k <= n else math.inf
            covered += order[n] <= limit
        coverage = Fraction(covered, math.factorial(n + 1))
        assert coverage == Fraction(k, n + 1)
        assert 1 - alpha <= coverage < 1 - alpha + Fraction(1, n + 1)


@pytest.mark.claim("shift-conformal")
def test_a_small_group_can_be_left_out_for_ever():
    """A certain network that is wrong on one input in twenty, at the level 90 %."""
    rng, alpha = np.random.default_rng(3), 0.1
    for n, least in ((50, 0.8), (1000, 0.999)):
        k, silent = math.ceil((n + 1) * (1 - alpha)), 0
        for _ in range(2000):
            scores = np.sort((rng.random(n) < 0.05) * 1.0)
            silent += scores[k - 1] < 1  # the group's label has the score 1: it is in the set only if the limit is 1
        assert silent / 2000 > least
