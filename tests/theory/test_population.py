"""The theorem for a population: functions for tables, what samples and batches see of it, and the end of training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import references
import torch
from scipy import integrate, optimize, special, stats

from gence import generative_cross_entropy, propriety
from gence.losses import present_class_cross_entropy

SEEDS = range(5)
MEANS, PRIOR = np.array([-1.5, 0.0, 1.0]), np.array([0.5, 0.2, 0.3])


def joint(x: float) -> np.ndarray:
    return PRIOR * stats.norm.pdf(x, MEANS)


def predictor(x: float) -> np.ndarray:
    """Some predictor: no posterior of normal classes."""
    return special.softmax([math.sin(x), 0.3 * x, 0.5 - 0.2 * x**2])


def integral(f: Callable[[float], float]) -> float:
    return integrate.quad(f, -12, 12, epsabs=1e-11, epsrel=1e-11, limit=300)[0]


def risk(p: np.ndarray, q: np.ndarray, mu: np.ndarray) -> float:
    """R(p) on finitely many inputs, in loops."""
    total = 0.0
    for k in range(q.shape[1]):
        mean = sum(mu[i] * p[i, k] for i in range(len(mu)))
        total -= sum(mu[i] * q[i, k] * math.log(p[i, k] / mean) for i in range(len(mu)) if q[i, k] > 0)
    return total


def random_world(seed: int, m: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, m, k])
    return rng.dirichlet(np.full(k, 2.0), m), rng.dirichlet(np.full(m, 3.0))


def twins(seed: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes, the last two in the ratio 7 to 3."""
    q, mu = random_world(seed, m, 2)
    return np.column_stack([q[:, 0], 0.7 * q[:, 1], 0.3 * q[:, 1]]), mu


def best_table(objective: Callable[[np.ndarray], float], m: int, k: int, seed: int) -> np.ndarray:
    """The minimiser over tables of free logits, with numerical gradients."""
    start = np.random.default_rng([seed, 9]).normal(0, 0.5, m * k)
    found = optimize.minimize(lambda z: objective(special.softmax(z.reshape(m, k), 1)), start, options={"gtol": 1e-7})
    return special.softmax(found.x.reshape(m, k), 1)


# --- The theorem ---------------------------------------------------------------------------------------------------


@pytest.mark.claim("population-regret")
def test_the_regret_on_the_line_is_that_of_the_class_densities():
    """All integrals by adaptive quadrature; the densities of the classes are written down, not divided out."""
    m = np.array([integral(lambda x, k=k: joint(x).sum() * predictor(x)[k]) for k in range(3)])
    columns, ce, information, value = 0.0, 0.0, 0.0, 0.0
    for k in range(3):
        density = stats.norm(MEANS[k]).pdf

        def implied(x, k=k):
            return joint(x).sum() * predictor(x)[k] / m[k]

        columns += PRIOR[k] * integral(lambda x, d=density, f=implied: d(x) * math.log(d(x) / f(x)))
        value -= PRIOR[k] * integral(lambda x, d=density, k=k: d(x) * math.log(predictor(x)[k] / m[k]))
        information += PRIOR[k] * integral(lambda x, d=density: d(x) * math.log(d(x) / joint(x).sum()))
        ce += integral(lambda x, k=k: joint(x)[k] * math.log(joint(x)[k] / joint(x).sum() / predictor(x)[k]))
    assert columns > 0.1
    assert value == pytest.approx(columns - information, abs=1e-8)  # R(p) = regret + R(q), and R(q) = -I
    assert columns == pytest.approx(ce - special.rel_entr(PRIOR, m).sum(), abs=1e-8)


@pytest.mark.claim("population-regret")
def test_gence_of_a_large_batch_less_log_n_is_near_the_risk():
    rng = np.random.default_rng(7)
    n = 200_000
    y = rng.choice(3, n, p=PRIOR)
    x = rng.normal(MEANS[y])
    p = special.softmax(np.column_stack([np.sin(x), 0.3 * x, 0.5 - 0.2 * x**2]), 1)
    found = generative_cross_entropy(torch.tensor(p).log(), torch.tensor(y)).item() - math.log(n)
    m = np.array([integral(lambda x, k=k: joint(x).sum() * predictor(x)[k]) for k in range(3)])
    expected = -sum(integral(lambda x, k=k: joint(x)[k] * math.log(predictor(x)[k] / m[k])) for k in range(3))
    error = np.std(-np.log(p[range(n), y] / m[y])) / math.sqrt(n)
    assert abs(found - expected) < 5 * error < 0.02


@pytest.mark.claim("population-complete")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_minimiser_is_unique_exactly_if_the_posteriors_are_independent(seed):
    q, mu = random_world(seed, 4, 3)
    assert np.abs(best_table(lambda p: risk(p, q, mu), 4, 3, seed) - q).max() < 1e-3
    q, mu = twins(seed, 4)
    for t in (-0.9, 0.4, 1.2):
        p = q * (1 + t * np.array([0, 0.3, -0.7]))
        assert np.allclose(p.sum(1), 1)
        assert abs(risk(p, q, mu) - risk(q, q, mu)) < 1e-12
        assert np.abs(p - q).max() > 1e-3

    def tied(z: np.ndarray) -> np.ndarray:
        first, second = special.softmax(z.reshape(4, 2), 1).T
        return np.column_stack([first, 0.7 * second, 0.3 * second])

    found = optimize.minimize(lambda z: risk(tied(z), q, mu), np.zeros(8), options={"gtol": 1e-7})
    assert np.abs(tied(found.x) - q).max() < 1e-3


@pytest.mark.claim("population-complete")
def test_a_class_that_never_occurs_leaves_its_mass_free():
    q, mu = random_world(3, 4, 2)
    q = np.column_stack([q, np.zeros(4)])
    p = 0.8 * q + 0.2 * np.eye(3)[2]
    assert abs(risk(p, q, mu) - risk(q, q, mu)) < 1e-12


@pytest.mark.claim("population-complete")
@pytest.mark.parametrize("seed", SEEDS)
def test_completeness_is_that_mixtures_reveal_their_weights(seed):
    """Both ways: nonnegative least squares finds the weights, and a linear programme finds other ones for twins."""
    weights = np.random.default_rng(seed).dirichlet(np.ones(3))
    for (q, mu), reveals in ((random_world(seed, 6, 3), True), (twins(seed, 6), False)):
        densities = mu[:, None] * q / (mu @ q)
        mixture = densities @ weights
        least = np.linalg.eigvalsh(q.T @ (mu[:, None] * q))[0]
        ranges = [
            [optimize.linprog(sign * np.eye(3)[k], A_eq=densities, b_eq=mixture).x[k] for sign in (1, -1)]
            for k in range(3)
        ]
        spread = np.ptp(ranges, axis=1).max()
        assert (spread < 1e-6) == reveals == (least > 1e-6)
        if reveals:
            assert np.allclose(optimize.nnls(densities, mixture)[0], weights, atol=1e-9)


# --- Sample and population -----------------------------------------------------------------------------------------


@pytest.mark.claim("sample-population")
def test_a_complete_population_has_incomplete_batches_and_twins_have_complete_samples():
    rng = np.random.default_rng(1)
    q, mu = random_world(0, 8, 4)
    assert propriety.completeness(q).complete
    for i in itertools.combinations_with_replacement(range(8), 3):
        assert not propriety.completeness(q[list(i)]).complete
    assert not propriety.completeness(q[[0, 1, 2, 0, 1, 2, 2]]).complete
    share = [
        np.mean([propriety.completeness(q[rng.choice(8, n, p=mu)]).complete for _ in range(200)]) for n in (4, 8, 32)
    ]
    assert share[0] < share[1] < share[2]
    assert share[2] > 0.99
    pair, mu = twins(0, 8)
    for n in (3, 10, 50):
        at = rng.choice(8, n, p=mu)
        labels = np.concatenate([np.arange(3), [rng.choice(3, p=pair[i]) for i in at[3:]]])
        assert not propriety.completeness(pair[at]).complete
        assert propriety.completeness(np.eye(3)[labels.astype(int)]).complete


@pytest.mark.claim("sample-population")
def test_the_evidence_against_a_split_of_twins_does_not_grow_with_the_sample():
    """Exact: two inputs, twins alone, so that the labels of n samples at each input are binomial counts."""
    scale = np.array([1.3, 0.3])  # 1 + v, with v = (0.3, -0.7)

    def expected(n: int, truth: tuple[float, float]) -> tuple[float, float]:
        count = np.arange(n + 1)
        a, b = (grid.ravel() for grid in np.meshgrid(count, count))
        chance = stats.binom.pmf(a, n, truth[0]) * stats.binom.pmf(b, n, truth[1])
        q = np.stack([np.stack([c, n - c], 1) for c in (a, b)], 1) / n
        p = q * scale / (q * scale).sum(2, keepdims=True)
        ce = special.rel_entr(q, p).sum((1, 2)) / 2
        marginal = special.rel_entr(q.mean(1), p.mean(1)).sum(1)
        return chance @ (ce - marginal), chance @ ce

    sizes = (20, 40, 80, 160)
    gence, ce = np.array([expected(n, (0.7, 0.7)) for n in sizes]).T
    assert np.allclose(gence[1:] / gence[:-1], 0.5, atol=0.06)  # as 1/n
    assert np.allclose(ce, ce[-1], rtol=0.03)
    other, _ = np.array([expected(n, (0.7, 0.2)) for n in sizes]).T
    assert np.allclose(other, other[-1], rtol=0.05)
    assert other[-1] > 10 * gence[-1]


# --- What a batch estimates ----------------------------------------------------------------------------------------

X, SHARES = np.array([-1.0, 0.0, 1.0]), np.array([0.3, 0.4, 0.3])


def model(theta: np.ndarray) -> np.ndarray:
    second = special.expit(theta[0] + theta[1] * X)
    return np.column_stack([1 - second, second])


def by_enumeration(p: np.ndarray, q: np.ndarray, size: int) -> float:
    """Mean of the library's GenCE less log B over all inputs and all labels of a batch."""
    total = 0.0
    for at in itertools.product(range(3), repeat=size):
        for y in itertools.product(range(2), repeat=size):
            chance = math.prod(SHARES[i] * q[i, k] for i, k in zip(at, y, strict=True))
            loss = generative_cross_entropy(torch.tensor(p[list(at)]).log(), torch.tensor(y))
            total += chance * (loss.item() - math.log(size))
    return total


def by_counts(p: np.ndarray, q: np.ndarray, size: int) -> float:
    """The same by symmetry: one sample and the binomial counts of the others."""
    total = -sum(SHARES @ (q * np.log(p)))
    for a in range(size):
        for b in range(size - a):
            others = np.array([a, b, size - 1 - a - b])
            chance = stats.multinomial.pmf(others, size - 1, SHARES)
            for i in range(3):
                column = (others @ p + p[i]) / size
                total += chance * SHARES[i] * (q[i] @ np.log(column))
    return total


def minimum(value: Callable[[np.ndarray], float]) -> np.ndarray:
    return optimize.minimize(value, np.zeros(2), options={"gtol": 1e-8}).x


@pytest.mark.claim("batch-moves-model")
@pytest.mark.filterwarnings("ignore:GenCE got a batch of one")
def test_a_model_that_is_wrong_moves_as_one_over_the_batch_and_one_that_is_right_does_not():
    second = np.array([0.1, 0.75, 0.6])
    q = np.column_stack([1 - second, second])
    for size in (2, 3):
        assert by_counts(model([0.2, 0.7]), q, size) == pytest.approx(by_enumeration(model([0.2, 0.7]), q, size))
    limit = minimum(lambda t: risk(model(t), q, SHARES))
    ce = minimum(lambda t: -sum(SHARES @ (q * np.log(model(t)))))
    assert np.allclose(limit, ce, atol=1e-4)  # a free bias
    moved = {size: size * (minimum(lambda t, s=size: by_counts(model(t), q, s)) - limit) for size in (4, 8, 16)}
    assert abs(moved[4][0]) > 0.5

    def first_order(theta: np.ndarray, q: np.ndarray = q) -> float:
        p, total = model(theta), 0.0
        for k in range(2):
            m, pi = SHARES @ p[:, k], SHARES @ q[:, k]
            own = SHARES @ (p[:, k] * q[:, k]) / (pi * m) - 1
            total += pi * (own - (SHARES @ p[:, k] ** 2 - m**2) / (2 * m**2))
        return total

    def slope(f: Callable[[np.ndarray], float], at: np.ndarray, h: float = 1e-3) -> np.ndarray:
        return np.array([(f(at + h * e) - f(at - h * e)) / (2 * h) for e in np.eye(2)])

    curvature = np.array(
        [slope(lambda t, e=e: slope(lambda u: risk(model(u), q, SHARES), t) @ e, limit) for e in np.eye(2)]
    )
    predicted = -np.linalg.solve(curvature, slope(first_order, limit))
    extrapolated = 2 * moved[16] - moved[8]  # what is left is of the order 1/B^2
    assert np.allclose(extrapolated, predicted, atol=0.02)
    truth = np.array([0.4, 1.1])
    for size in (2, 5):
        found = minimum(lambda t, s=size: by_counts(model(t), model(truth), s))
        assert np.allclose(found, truth, atol=1e-4)
    assert np.abs(slope(lambda t: first_order(t, model(truth)), truth)).max() < 1e-6


# --- Local and non-local -------------------------------------------------------------------------------------------


@pytest.mark.claim("gence-non-local")
@pytest.mark.parametrize("seed", SEEDS)
def test_two_samples_meet_in_gence_and_in_no_sum_of_scores(seed):
    """Central differences of the loss in 50-digit decimals, along the simplex in both samples."""
    rng = np.random.default_rng(seed)
    y = torch.tensor([0, 0, 1, 2, 2])
    p = torch.tensor(rng.dirichlet(np.full(3, 3.0), 5))
    step, h = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64), 1e-4

    def total(a: float, b: float, i: int, j: int, loss: str) -> float:
        moved = p.clone()
        moved[i] += a * step
        moved[j] += b * step
        if loss == "ce":
            return -moved[range(5), y].log().sum().item()
        return 5 * references.generative_cross_entropy(moved.log(), y).reduced("mean").item()

    c, n = p.sum(0), torch.bincount(y)
    for i, j in ((0, 1), (0, 3), (2, 4)):
        for loss, expected in (("gence", -(n[0] / c[0] ** 2 + n[1] / c[1] ** 2).item()), ("ce", 0.0)):
            signs = itertools.product((h, -h), repeat=2)
            mixed = sum(np.sign(a * b) * total(a, b, i, j, loss) for a, b in signs) / (4 * h**2)
            assert mixed == pytest.approx(expected, abs=1e-5)


@pytest.mark.claim("gence-non-local")
def test_a_score_depends_on_the_column_of_its_label_only():
    p = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(4), 6))
    y = torch.tensor([0, 0, 1, 1, 2, 0])
    before = references.generative_cross_entropy(p.log(), y).terms
    swapped = p.clone()
    swapped[:, [2, 3]] = p[:, [3, 2]]
    after = references.generative_cross_entropy(swapped.log(), y).terms
    assert torch.allclose(before[y != 2], after[y != 2], atol=1e-15)
    assert not torch.allclose(before[y == 2], after[y == 2])


@pytest.mark.claim("only-log-of-density")
@pytest.mark.parametrize(
    ("phi", "proper"),
    [
        (lambda r: -np.log(r), True),
        (lambda r: 5 - 2 * np.log(r), True),
        (lambda r: -r, False),
        (lambda r: -np.sqrt(r), False),
        (lambda r: 1 / r, False),
        (lambda r: np.log1p(1 / r), False),
    ],
)
def test_only_the_logarithm_of_the_class_density_is_smallest_at_the_truth(phi, proper):
    """A search over all predictors of two classes on three inputs, from the truth."""
    away = []
    for seed in SEEDS:
        q, mu = random_world(seed, 3, 2)

        def value(z: np.ndarray, q: np.ndarray = q, mu: np.ndarray = mu) -> float:
            p = np.column_stack([special.expit(z), special.expit(-z)])
            return float(mu @ (q * phi(p / (mu @ p))).sum(1))

        truth = special.logit(q[:, 0])
        found = optimize.minimize(value, truth, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
        away.append(value(truth) - found.fun)
    assert (max(away) < 1e-9) if proper else (min(away) > 1e-7)


# --- The end of training -------------------------------------------------------------------------------------------


def plain_gradients(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """N times the gradients in the logits of GenCE and of present-class CE, entry by entry."""
    n, k = p.shape
    counts = np.bincount(y, minlength=k)
    sums = [sum(p[:, m]) for m in range(k)]
    gence, present = np.zeros((n, k)), np.zeros((n, k))
    for i, m in itertools.product(range(n), range(k)):
        tax = sum(counts[j] / sums[j] * p[i, j] for j in range(k))
        gence[i, m] = p[i, m] * (1 + counts[m] / sums[m] - tax) - (m == y[i])
        if counts[m]:
            present[i, m] = p[i, m] / sum(p[i, j] for j in range(k) if counts[j]) - (m == y[i])
    return gence, present


def gap_and_bound(p: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    counts = np.bincount(y, minlength=p.shape[1])
    here = counts > 0
    absent = p[:, ~here].sum()
    lost = 1 - p[range(len(y)), y]
    off = max(abs(counts[k] / p[:, k].sum() - 1) for k in np.flatnonzero(here))
    eps = lost.max()
    assert eps <= 0.5
    assert off <= eps * max(max(2, len(y) / n - 1) for n in counts[here]) + 1e-12
    gence, present = plain_gradients(p, y)
    gap = np.abs(gence - present).sum() / np.abs(present).sum()
    return gap, 0.9 * off + 2 * eps**2 + (eps + off) * absent / (lost.sum() - absent)


@pytest.mark.claim("late-limit-bound")
def test_the_gap_to_present_class_ce_stays_below_its_bound():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        n, k = int(rng.integers(2, 15)), int(rng.integers(2, 9))
        y = np.concatenate([[0, 1], rng.integers(k, size=n)])
        right = np.eye(k)[y]
        p = right + 10 ** rng.uniform(-6, -0.4) * (special.softmax(rng.normal(0, 4, right.shape), 1) - right)
        gap, bound = gap_and_bound(p, y)
        assert gap <= bound * (1 + 1e-6) + 1e-9
        z, labels = torch.tensor(np.log(p)).requires_grad_(), torch.tensor(y)
        for loss, plain in zip(
            (generative_cross_entropy, present_class_cross_entropy), plain_gradients(p, y), strict=True
        ):
            (slope,) = torch.autograd.grad(loss(z, labels), z)
            assert np.allclose(len(y) * slope.numpy(), plain, atol=1e-10)


@pytest.mark.claim("late-limit-bound")
def test_without_its_conditions_the_late_limit_fails():
    y = np.zeros(4, dtype=int)  # one class
    p = np.array([[0.9, 0.1], [0.95, 0.05], [0.99, 0.01], [0.999, 0.001]])
    gence, present = plain_gradients(p, y)
    assert not present.any()
    assert np.abs(gence).max() > 1e-3
    y, gaps = np.array([0, 0, 1, 1]), []  # doubt on an absent class
    for eps in (1e-2, 1e-3, 1e-4):
        p = np.zeros((4, 3))
        p[:, 2] = eps * np.array([0.5, 1.5, 0.5, 1.5])
        p[range(4), 1 - y] = eps**3
        p[range(4), y] = 1 - p.sum(1)
        gap, bound = gap_and_bound(p, y)
        assert gap <= bound
        gaps.append(gap)
    assert gaps[2] > 8 * gaps[1] > 64 * gaps[0]
    common = np.array([0] * 60 + [1] * 4)  # a rare class is late only later, at the same doubt
    found = {}
    for name, y in (("rare", np.array([0] * 63 + [1])), ("less rare", common)):
        p = np.where(np.eye(2)[y] > 0, 1 - 1e-3, 1e-3)
        found[name] = gap_and_bound(p, y)[0]
    assert found["rare"] > 3 * found["less rare"] > 0.03


@pytest.mark.claim("shift-diluted")
@pytest.mark.parametrize("seed", range(3))
def test_shifts_and_batches_are_diluted_by_the_norm(seed):
    """Three classes in the plane, the largest margin by a quadratic programme, all sets of wrong classes by hand."""
    rng = np.random.default_rng(seed)
    y = np.array([0] * 6 + [1] * 3 + [2] * 2)
    centre = 3 * np.column_stack([np.cos(2.1 * y), np.sin(2.1 * y)])
    x = np.column_stack([centre + rng.normal(0, 0.4, (11, 2)), np.ones(11)])
    shift, chance = np.array([0.0, 1.0, 2.0]), np.array([0.9, 0.5, 0.2])  # of a class, as a wrong one

    def margins(w: np.ndarray) -> np.ndarray:
        z = x @ w.reshape(3, 3)
        return np.array([[z[i, y[i]] - z[i, k] for k in range(3) if k != y[i]] for i in range(11)])

    hard = optimize.minimize(
        lambda w: w @ w,
        rng.normal(size=9),
        jac=lambda w: 2 * w,
        constraints={"type": "ineq", "fun": lambda w: margins(w).ravel() - 1},
        options={"maxiter": 500},
    )
    best = 1 / np.linalg.norm(hard.x)
    assert hard.success
    assert best > 0.1
    wrong = np.array([[k for k in range(3) if k != y[i]] for i in range(11)])
    moved = shift[wrong] - shift[y][:, None]

    def loss(w: np.ndarray) -> float:
        terms, total = np.exp(moved - margins(w)), 0.0
        for there in itertools.product((0, 1), repeat=2):
            weight = np.where(there, chance[wrong], 1 - chance[wrong]).prod(1)
            total += weight @ np.log1p(terms @ np.array(there))
        return math.log(total)

    c = math.log(11 * 2 / (0.2 * math.log(2)))
    for factor in (1.2, 3, 10):
        radius = factor * (2 + c) / best
        ball = {"type": "ineq", "fun": lambda w, r=radius: 1 - w @ w / r**2, "jac": lambda w, r=radius: -2 * w / r**2}
        start = radius * hard.x * best * 0.99
        found = optimize.minimize(loss, start, constraints=ball, method="SLSQP", options={"maxiter": 300})
        assert found.fun <= loss(start)
        reached = margins(found.x).min() / radius
        assert best - 0.2 * (2 * 2 + c) / radius <= reached <= best * (1 + 1e-6)
    assert reached > 0.9 * best
