"""Theorem 1 and its relatives, in plain numpy float64 where possible; see notebooks/generative/theorem_1.ipynb."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch

from gence import generative_cross_entropy, make_loss, propriety

SHAPES = [(4, 2), (6, 3), (10, 4), (15, 5), (24, 6)]


def draw(n, k, seed):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(k), n) * 0.98 + 0.02 / k


def twins(n, k, seed):
    q = draw(n, k - 1, seed)
    return np.column_stack([q[:, :-1], 0.7 * q[:, -1], 0.3 * q[:, -1]])


def ce(p, q):
    return -sum(q[i, k] * np.log(p[i, k]) for i, k in np.ndindex(q.shape) if q[i, k] > 0) / len(q)


def gence(p, q, strength=1.0):
    sums = p.sum(0)
    return ce(p, q) + strength * sum(q[:, k].sum() * np.log(sums[k]) for k in range(q.shape[1]) if q[:, k].any()) / len(
        q
    )


def kl(a, b):
    return sum(x * np.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)


@pytest.mark.claim("soft-targets")
def test_the_risk_is_the_expected_loss_over_drawn_labels():
    p, q = draw(4, 3, 0), draw(4, 3, 1)
    log_p = torch.from_numpy(p).log()
    for strength in (0.0, 0.4, 1.0):
        expected = sum(
            np.prod(q[range(4), y]) * float(generative_cross_entropy(log_p, torch.tensor(y), strength=strength))
            for y in product(range(3), repeat=4)
        )
        assert abs(expected - gence(p, q, strength)) < 1e-12


@pytest.mark.claim("regret-identity")
def test_gence_regret_is_ce_regret_without_the_label_marginal():
    for seed, (n, k) in product(range(20), SHAPES):
        p, q = draw(n, k, seed), draw(n, k, 1000 + seed)
        regret = gence(p, q) - gence(q, q)
        rows = np.mean([kl(q[i], p[i]) for i in range(n)])
        columns = sum(q[:, j].mean() * kl(q[:, j] / q[:, j].sum(), p[:, j] / p[:, j].sum()) for j in range(k))
        assert abs(regret - (rows - kl(q.mean(0), p.mean(0)))) < 1e-12
        assert abs(regret - columns) < 1e-12
        assert regret > 0


@pytest.mark.claim("G2")
def test_a_complete_table_is_the_only_minimiser_from_a_hundred_starts():
    for n, k in SHAPES:
        q = draw(n, k, 7)
        assert np.linalg.matrix_rank(q) == k
        found = propriety.find_minimisers(make_loss("gence"), q, n_starts=100, tolerance=1e-12, max_iter=2000)
        assert found.distances.max() < 1e-6
        assert abs(found.risks.max() - gence(q, q)) < 1e-12


@pytest.mark.claim("completeness-needed")
def test_an_incomplete_table_has_other_minimisers():
    for seed, (n, k) in product(range(5), SHAPES[1:]):
        absent = np.column_stack([draw(n, k - 1, seed), np.zeros(n)])
        for q in (twins(n, k, seed), draw(k - 1, k, seed), absent):
            p = propriety.other_minimiser(q)
            assert p.min() >= 0 and np.abs(p.sum(1) - 1).max() < 1e-12
            assert np.abs(p - q).max() > 0.02
            assert abs(gence(p, q) - gence(q, q)) < 1e-12
        assert np.abs(propriety.other_minimiser(twins(n, k, seed)) - twins(n, k, seed)).max() > 0.05


def gradient(z, q, strength):
    """In closed form, with w_k = n_k / C_k."""
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    w = q.sum(0) / p.sum(0)
    return (p - q + strength * p * (w - (p * w).sum(1, keepdims=True))) / len(q)


@pytest.mark.claim("no-traps")
def test_every_stationary_point_is_a_global_minimiser():
    for strength in (0.5, 1.0):
        q, z = twins(6, 3, 3), torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
        loss = generative_cross_entropy(z, torch.from_numpy(q), strength=strength)
        by_autograd = torch.autograd.grad(loss, z)[0].numpy()
        assert np.abs(gradient(z.detach().numpy(), q, strength) - by_autograd).max() < 1e-12
        # The identity of the proof holds at every point, stationary or not, with u = 1 - w.
        p = z.detach().softmax(1).numpy()
        u = 1 - q.sum(0) / p.sum(0)
        energy = (1 - strength) * (p.sum(0) * u**2).sum() + strength * ((p @ u) ** 2).sum()
        assert abs(len(q) * u @ by_autograd.sum(0) - energy) < 1e-12
        found = propriety.find_minimisers(make_loss("gence", strength=strength), q, n_starts=60, max_iter=2000)
        assert found.converged.all()
        assert np.abs(found.risks - gence(q, q, strength)).max() < 1e-12
        scales = found.points / q
        assert np.ptp(scales, axis=1).max() < 1e-5  # one factor for each column
        assert (found.spread > 0.05) == (strength == 1.0)


@pytest.mark.claim("bridge")
def test_any_strength_below_one_is_strictly_proper_without_a_condition():
    for seed, (n, k), s in product(range(5), SHAPES[1:], (0.0, 0.5, 0.9)):
        q = twins(n, k, seed)
        for p in (draw(n, k, 50 + seed), propriety.other_minimiser(q)):
            regret, at_ce = gence(p, q, s) - gence(q, q, s), ce(p, q) - ce(q, q)
            assert abs(regret - ((1 - s) * at_ce + s * (gence(p, q) - gence(q, q)))) < 1e-12
            assert (np.abs(p - q).sum(1) ** 2).mean() <= 2 / (1 - s) * regret + 1e-12
    for n, k in SHAPES[1:4]:
        found = propriety.find_minimisers(make_loss("gence", strength=0.5), twins(n, k, 1), n_starts=20)
        assert found.distances.max() < 1e-6


@pytest.mark.refutes("G3")
def test_cross_entropy_needs_no_rank_condition():
    for n, k in SHAPES[1:]:
        found = propriety.find_minimisers(make_loss("ce"), twins(n, k, 2), n_starts=20)
        assert found.distances.max() < 1e-6
    one_hot = np.eye(4)[[0, 0, 1, 1]]  # rank 2 of 4
    for seed in range(20):
        p = draw(4, 4, seed)
        assert ce(p, one_hot) > ce(one_hot, one_hot) + np.abs(p - one_hot).max() ** 2 / 8


@pytest.mark.refutes("G4")
def test_mass_on_absent_classes_costs_nothing_in_one_batch():
    q = np.eye(5)[[0, 0, 1, 2, 2, 2]]
    for seed, c in product(range(10), (0.5, 0.1, 1e-3)):
        present = draw(6, 3, seed)
        base = np.column_stack([present, np.zeros((6, 2))])
        moved = np.column_stack([c * present, np.full((6, 2), (1 - c) / 2)])
        assert abs(gence(moved, q) - gence(base, q)) < 1e-12
        assert abs(ce(moved, q) - ce(base, q) + np.log(c)) < 1e-12


def expected_over_batches(log_p, q, size):
    batches = torch.tensor(list(combinations(range(len(q)), size)))
    log_p, q = log_p[batches], q[batches]
    return -(q * (log_p - log_p.logsumexp(1, keepdim=True))).sum((1, 2)).mean() / size


@pytest.mark.claim("pairs-suffice")
@pytest.mark.parametrize(("n", "k", "size"), [(5, 2, 2), (6, 4, 2), (6, 4, 3), (7, 5, 4)])
def test_all_batches_of_two_or_more_need_a_complete_whole_only(n, k, size):
    q = torch.from_numpy(draw(n, k, 11))
    assert size < k or (n, k) == (5, 2)

    def each(z, target):  # one value for each sample, as find_minimisers asks; the mean is what counts
        soft = target if target.dim() == 2 else torch.nn.functional.one_hot(target, z.shape[1]).to(z)
        return expected_over_batches(z.log_softmax(1), soft, min(size, len(z))).expand(len(z))

    found = propriety.find_minimisers(each, q.numpy(), n_starts=20, tolerance=1e-12, max_iter=2000)
    assert found.distances.max() < 1e-6
    table = torch.from_numpy(twins(n, max(k, 3), 11))
    other = torch.from_numpy(propriety.other_minimiser(table.numpy()))
    gap = expected_over_batches(other.log(), table, size) - expected_over_batches(table.log(), table, size)
    assert abs(float(gap)) < 1e-12


def test_batches_of_one_say_nothing():
    q = torch.from_numpy(draw(5, 3, 0))
    for seed in range(3):
        assert abs(float(expected_over_batches(torch.from_numpy(draw(5, 3, seed)).log(), q, 1))) < 1e-12


def test_one_hot_labels_over_all_pairs_have_one_minimiser():
    """Where classes lack in every batch, mass moved to an absent class is paid for in another batch."""
    q = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 2, 3, 3]]
    log_q = q.clamp_min(1e-300).log()
    floor = float(expected_over_batches(log_q, q, 2))
    for seed in range(20):
        p = 0.9 * q + 0.1 * torch.from_numpy(draw(6, 4, seed))
        assert float(expected_over_batches(p.log(), q, 2)) > floor + 1e-3
