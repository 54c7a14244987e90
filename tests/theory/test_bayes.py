"""The chapter "From p(y|x) to p(x|y)": each statement on random tables in float64, from its own definition."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from gence import generative_cross_entropy

SHAPES = [(1, 2), (2, 5), (7, 3), (32, 10), (20, 60)]
CASES = [(seed, n, k) for seed in range(5) for n, k in SHAPES]


@pytest.fixture(params=CASES, ids=str)
def batch(request):
    """Logits (N, K), labels (N,), soft targets (N, K) as arrays, and the generator."""
    seed, n, k = request.param
    rng = np.random.default_rng([seed, n, k, 99])
    return 3 * rng.normal(size=(n, k)), rng.integers(k, size=n), rng.dirichlet(np.ones(k), size=n), rng


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def one_hot(labels: np.ndarray, k: int) -> np.ndarray:
    return np.eye(k)[labels]


def gence(logits: np.ndarray, target: np.ndarray, **options) -> float:
    return generative_cross_entropy(torch.as_tensor(logits), torch.as_tensor(target), **options).item()


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    return torch.nn.functional.cross_entropy(torch.as_tensor(logits), torch.as_tensor(labels)).item()


def class_counts_floor(labels: np.ndarray) -> float:
    counts = np.unique(labels, return_counts=True)[1]
    return float((counts * np.log(counts)).sum() / len(labels))


def test_the_definition_by_loops(batch):
    logits, labels, *_ = batch
    p = softmax(logits)
    total = 0.0
    for i, y in enumerate(labels):
        total -= np.log(p[i, y] / sum(p[j, y] for j in range(len(labels))))
    assert gence(logits, labels) == pytest.approx(total / len(labels), abs=1e-12)


@pytest.mark.claim("density-ratio")
@pytest.mark.parametrize("seed", range(5))
def test_the_batch_posterior_is_the_density_ratio_up_to_one_factor_per_class(seed):
    rng = np.random.default_rng(seed)
    k = 2 + seed
    means, scales, pi = rng.normal(scale=2, size=k), rng.uniform(0.5, 2, k), rng.dirichlet(np.full(k, 5.0))
    worst = []
    for n in (50, 200_000):
        y = rng.choice(k, n, p=pi)
        x = means[y] + scales[y] * rng.normal(size=n)
        density = np.exp(-(((x[:, None] - means) / scales) ** 2) / 2) / scales
        posterior = pi * density / (density @ pi)[:, None]
        ratio = density / (density @ pi)[:, None]
        quotient = n * posterior / posterior.sum(0) / ratio  # must be constant down each column
        np.testing.assert_allclose(quotient, np.broadcast_to(pi / posterior.mean(0), (n, k)), rtol=1e-10)
        worst.append(np.abs(np.log(quotient[0])).max())
    assert worst[1] < 0.03
    assert worst[1] < worst[0]


@pytest.mark.claim("G5")
def test_gence_is_cross_entropy_plus_the_class_term(batch):
    logits, labels, *_ = batch
    column_sums = softmax(logits).sum(0)
    counts = np.bincount(labels, minlength=logits.shape[1])
    term = (counts * np.log(column_sums)).sum() / len(labels)
    assert gence(logits, labels) == pytest.approx(cross_entropy(logits, labels) + term, abs=1e-12)


@pytest.mark.claim("gence-floor")
def test_the_floor_holds_and_is_reached_only_by_columns_that_are_constant_on_their_class(batch):
    logits, labels, _, rng = batch
    n, k = logits.shape
    floor = class_counts_floor(labels)
    pi = np.bincount(labels, minlength=k) / n
    entropy = -sum(f * np.log(f) for f in pi if f > 0)
    assert floor == pytest.approx(np.log(n) - entropy, abs=1e-12)
    assert gence(logits, labels) >= floor - 1e-12
    # Equality: every present class keeps its own constant share, the rest goes to absent classes.
    absent = np.flatnonzero(pi == 0)
    p = one_hot(labels, k).astype(float)
    if len(absent):
        share = rng.uniform(0.1, 1, size=k)[labels]
        p *= share[:, None]
        p[:, absent] = (1 - share)[:, None] / len(absent)
    with np.errstate(divide="ignore"):
        assert gence(np.log(p), labels) == pytest.approx(floor, abs=1e-12)
    # No equality: unequal entries inside a class, or mass on another present class.
    twice = np.flatnonzero(np.bincount(labels, minlength=k) > 1)
    if len(twice) and len(absent):
        one = np.flatnonzero(labels == twice[0])[0]
        moved = p[one, twice[0]] / 2
        p[one, twice[0]] -= moved
        p[one, absent] += moved / len(absent)
        with np.errstate(divide="ignore"):
            assert gence(np.log(p), labels) > floor + 1e-6
    if n > 1 and len(np.unique(labels)) > 1:
        mixed = 0.9 * one_hot(labels, k) + 0.1 * one_hot(np.roll(labels, 1), k)
        with np.errstate(divide="ignore"):
            assert gence(np.log(mixed), labels) > floor + 1e-6


@pytest.mark.claim("gence-infonce")
def test_gence_is_cross_entropy_over_the_samples(batch):
    logits, labels, *_ = batch
    columns = torch.log_softmax(torch.as_tensor(logits), 1).T[torch.as_tensor(labels)]
    contest = torch.nn.functional.cross_entropy(columns, torch.arange(len(labels)))
    assert gence(logits, labels) == pytest.approx(contest.item(), abs=1e-12)
    # The scale of a column of p is invisible: the critic may be shifted for each class.
    shifted = columns + torch.as_tensor(batch[3].normal(size=(len(labels), 1)))
    other = torch.nn.functional.cross_entropy(shifted, torch.arange(len(labels)))
    assert other.item() == pytest.approx(contest.item(), abs=1e-12)


@pytest.mark.claim("infonce-bound")
@pytest.mark.parametrize("seed", range(12))
def test_the_expected_loss_bounds_the_mutual_information(seed):
    """All batches of N independent pairs from a small alphabet, through the library's loss."""
    rng = np.random.default_rng(seed)
    inputs, k, n = 3, 2, 3
    joint = rng.dirichlet(np.full(inputs * k, 0.4)).reshape(inputs, k)
    joint = 0.98 * joint + 0.02 / joint.size
    information = (joint * np.log(joint / (joint.sum(1, keepdims=True) * joint.sum(0)))).sum()
    truth = joint / joint.sum(1, keepdims=True)
    pairs = list(product(range(inputs), range(k)))
    gains = []
    for network in (truth, rng.dirichlet(np.ones(k), size=inputs)):
        gain = 0.0
        for drawn in product(pairs, repeat=n):
            chance = np.prod([joint[pair] for pair in drawn])
            x, y = (np.array(part) for part in zip(*drawn, strict=True))
            gain += chance * (np.log(n) - gence(np.log(network[x]), y))
        assert gain <= information + 1e-12
        gains.append(gain)
    assert 0 < gains[0] <= information


@pytest.mark.claim("gence-columns")
def test_gence_is_a_sum_of_divergences_between_columns(batch):
    logits, _, q, _ = batch
    r = softmax(logits)
    r /= r.sum(0)
    counts = q.sum(0)
    target = q / counts
    entropy = -(target * np.log(target)).sum(0)
    divergence = (target * np.log(target / r)).sum(0)
    assert (divergence > -1e-12).all()
    assert gence(logits, q) == pytest.approx((counts * (entropy + divergence)).sum() / len(q), abs=1e-11)
    assert gence(np.log(q), q) == pytest.approx((counts * entropy).sum() / len(q), abs=1e-12)


def smoothing_parts(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    log_r = np.log(softmax(logits))
    log_r -= np.log(np.exp(log_r).sum(0))
    return log_r[range(len(labels)), labels].mean(), log_r.mean()


@pytest.mark.claim("smoothing-targets")
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.3, 1.0])
def test_label_smoothing_is_the_form_that_follows_from_smoothed_targets(batch, eps):
    logits, labels, q, _ = batch
    k = logits.shape[1]
    hot, everything = smoothing_parts(logits, labels)
    consistent = -(1 - eps) * hot - eps * everything
    assert gence(logits, labels, label_smoothing=eps) == pytest.approx(consistent, abs=1e-11)
    assert gence(logits, (1 - eps) * one_hot(labels, k) + eps / k) == pytest.approx(consistent, abs=1e-11)
    assert gence(logits, q, label_smoothing=eps) == pytest.approx(gence(logits, (1 - eps) * q + eps / k), abs=1e-11)


@pytest.mark.claim("smoothing-readings")
def test_the_other_readings_of_the_label_smoothing_displays(batch):
    logits, labels, *_ = batch
    k, eps = logits.shape[1], 0.2
    hot, everything = smoothing_parts(logits, labels)
    weaker = (1 + eps) * gence(logits, labels, label_smoothing=eps / (1 + eps))
    assert -hot - eps * everything == pytest.approx(weaker, abs=1e-11)
    if len(np.unique(labels)) < 2:
        return
    with_plus, with_minus = [], []
    for t in (20.0, 40.0, 80.0, 160.0, 320.0):
        hot, everything = smoothing_parts(t * one_hot(labels, k), labels)
        with_plus.append([-(1 - eps) * hot + eps * everything, -hot + eps * everything])
        with_minus.append([-(1 - eps) * hot - eps * everything, -hot - eps * everything])
    assert (np.diff(with_plus, axis=0) < -1e-2).all()  # down without end
    assert (np.diff(with_minus, axis=0) > 1e-2).all()  # confidence costs


@pytest.mark.claim("smoothing-rank")
def test_smoothing_keeps_the_rank_of_the_targets(batch):
    logits, labels, q, _ = batch
    k = logits.shape[1]
    for target in (one_hot(labels, k), q):
        rank = np.linalg.matrix_rank(target)
        for eps in (0.01, 0.5, 0.9):
            assert np.linalg.matrix_rank((1 - eps) * target + eps / k) == rank
    assert np.linalg.matrix_rank(np.full_like(q, 1 / k)) == 1


@pytest.mark.claim("weights-repeat")
def test_weights_are_repeated_samples_and_weights_on_the_terms_only_are_not(batch):
    logits, labels, _, rng = batch
    weight = rng.permutation(1 + np.arange(logits.shape[1]) % 4).astype(float)
    copies = weight[labels].astype(int)
    repeated = gence(np.repeat(logits, copies, axis=0), np.repeat(labels, copies))
    assert gence(logits, labels, weight=torch.as_tensor(weight)) == pytest.approx(repeated, abs=1e-11)
    if len(labels) >= 7 and len(np.unique(copies)) > 1:
        p = softmax(logits)
        terms = -np.log((p / p.sum(0))[range(len(labels)), labels])
        naive = (copies * terms).sum() / copies.sum() + np.log(copies.sum() / len(labels))
        assert abs(naive - repeated) > 1e-6


def test_a_batch_and_its_copy_differ_by_log_two(batch):
    logits, labels, *_ = batch
    twice = gence(np.vstack([logits, logits]), np.concatenate([labels, labels]))
    assert twice == pytest.approx(gence(logits, labels) + np.log(2), abs=1e-12)


@pytest.mark.claim("triplet-is-cold-infonce")
@pytest.mark.parametrize("negatives", [1, 6])
@pytest.mark.parametrize("tau", [2.0, 0.05])
def test_info_nce_times_its_temperature_lies_just_above_the_triplet_loss(negatives, tau):
    """Similarities of unit vectors, sample by sample; the triplet loss by torch, in distances."""
    rng = np.random.default_rng([negatives, 7])
    margin = 0.3
    for _ in range(200):
        a, p, *others = (v / np.linalg.norm(v) for v in rng.normal(size=(2 + negatives, 4)))
        triplets = [
            torch.nn.functional.triplet_margin_with_distance_loss(
                *map(torch.tensor, (a, p, n)), distance_function=lambda x, y: ((x - y) ** 2).sum(), margin=2 * margin
            ).item()
            for n in others
        ]
        weights = [np.exp(a @ p / tau)] + [np.exp((a @ n + margin) / tau) for n in others]
        contest = -tau * np.log(weights[0] / sum(weights))
        above = contest - max(triplets) / 2  # the hardest negative costs most
        assert -1e-9 < above <= tau * np.log(negatives + 1) + 1e-9
