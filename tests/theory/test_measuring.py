"""The statements of the chapters on measuring calibration and on temperatures, checked without the chapters' code."""

from __future__ import annotations

import warnings
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from gence import calibration, metrics


def random_predictions(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with ties and values on the edges of bins, and labels that often agree with them."""
    p = np.round(rng.dirichlet(np.full(k, 0.3), size=n), 1)
    p[:, 0] += 1 - p.sum(1)
    p = np.abs(p) / np.abs(p).sum(1, keepdims=True)
    return p, np.where(rng.random(n) < 0.6, p.argmax(1), rng.integers(k, size=n))


@pytest.mark.claim("merging-bins")
@pytest.mark.parametrize("k", [2, 5, 20])
def test_merging_bins_never_raises_the_ece(k):
    rng = np.random.default_rng(k)
    for _ in range(20):
        p, y = random_predictions(rng, 200, k)
        gap = p.max(1) - (p.argmax(1) == y)
        low, high = abs(gap.mean()), np.abs(gap).mean()
        for chain in ((1, 2, 4, 12, 24, 120, 720), (1, 3, 15, 60), (1, 5, 10, 50)):
            values = [metrics.expected_calibration_error(p, y, b) for b in chain]
            assert values[0] == pytest.approx(low, abs=1e-12)
            assert all(coarse <= fine + 1e-12 for coarse, fine in pairwise(values))
            assert values[-1] <= high + 1e-12
        for b in (1, 7, 15, 50):
            assert low - 1e-12 <= metrics.adaptive_calibration_error(p, y, b) <= high + 1e-12
        assert low - 1e-12 <= metrics.kolmogorov_smirnov_error(p, y) <= high + 1e-12


@pytest.mark.claim("ks-floor")
@pytest.mark.parametrize(("n", "shape"), [(2_000, (2.0, 1.0)), (5_000, (1.0, 1.0)), (5_000, (5.0, 0.5))])
def test_the_floor_of_the_ks_error(n, shape):
    rng = np.random.default_rng(n)
    c = 0.5 + rng.beta(*shape, size=n) / 2
    p = np.stack([c, 1 - c], axis=1)
    measured = [metrics.kolmogorov_smirnov_error(p, (rng.random(n) > c).astype(int)) for _ in range(300)]
    floor = np.sqrt(np.pi / 2) * np.sqrt((c * (1 - c)).sum()) / n
    error = np.std(measured, ddof=1) / np.sqrt(len(measured))
    assert abs(np.mean(measured) - floor) < 0.05 * floor + 4 * error


@pytest.mark.claim("ks-floor")
def test_the_mean_maximum_of_brownian_motion():
    from scipy.integrate import quad

    value, _ = quad(lambda u: 1 / np.cosh(u), 0, 50)
    assert np.sqrt(2 / np.pi) * value == pytest.approx(np.sqrt(np.pi / 2), abs=1e-12)


@pytest.mark.claim("ks-floor")
@pytest.mark.parametrize("c", [0.55, 0.8, 0.97])
@pytest.mark.parametrize("n", [2, 5, 12])
def test_the_debiased_square_has_mean_zero(c, n):
    from scipy.stats import binom

    right = np.arange(n + 1)
    a = right / n
    square = (c - a) ** 2 - a * (1 - a) / (n - 1)
    assert abs(binom.pmf(right, n, c) @ square) < 1e-14
    # and it is what the library takes the root of
    for r, value in zip(right, square, strict=True):
        p = np.tile([c, 1 - c], (n, 1))
        found = metrics.debiased_calibration_error(p, np.repeat([0, 1], [r, n - r]), n_bins=3)
        assert found == pytest.approx(np.sqrt(max(value, 0)), abs=1e-9)


@pytest.mark.claim("edges-decide")
def test_the_small_examples_in_exact_fractions():
    def exact(bins):
        """bins: lists of (confidence, correct) in hundredths."""
        n = sum(map(len, bins))
        return sum(abs(sum(Fraction(c, 100) - r for c, r in members)) for members in bins) / n

    def top(confidence, correct):
        c = np.array(confidence) / 100
        return np.stack([c, *[(1 - c) / 3] * 3], axis=1), 1 - np.array(correct)

    ece, adaece = metrics.expected_calibration_error, metrics.adaptive_calibration_error
    edge = exact([[(95, 1), (100, 0)], [(40, 0)]])
    assert ece(*top([95, 100, 40], [1, 0, 0]), 10) == pytest.approx(float(edge)) == 0.45
    assert exact([[(95, 1)], [(100, 0)], [(40, 0)]]) == Fraction(29, 60)  # 1.0 in a bin of its own
    inner = exact([[(50, 1), (45, 0)], [(60, 0)]])
    assert ece(*top([50, 60, 45], [1, 0, 0]), 2) == pytest.approx(float(inner))
    assert inner != exact([[(50, 1), (60, 0)], [(45, 0)]])  # the edge on the other side
    mass = exact([[(40, 0), (50, 1)], [(60, 0), (70, 1)], [(80, 0), (90, 1)]])
    data = top([40, 50, 60, 70, 80, 90], [0, 1, 0, 1, 0, 1])
    assert adaece(*data, 3) == pytest.approx(float(mass))
    assert adaece(*data, 3, compat="focal_calibration") == pytest.approx(7 / 60, abs=1e-6)  # the lowest sample lost
    tied = top([90] * 6, [1, 1, 0, 1, 0, 0])
    assert adaece(*tied, 3) == pytest.approx(0.4)
    assert adaece(*tied, 3, compat="focal_calibration") == 0.0
    cuts = {exact([[(90, order[i]), (90, order[i + 1])] for i in (0, 2, 4)]) for order in set(product((0, 1), repeat=6))
            if sum(order) == 3}  # fmt: skip
    assert len(cuts) > 1  # cutting ties depends on the order
    assert Fraction(2, 5) in cuts
    p, y = np.tile([0.75, 0.15, 0.1], (2, 1)), np.array([0, 1])
    assert metrics.classwise_calibration_error(p, y) == pytest.approx(7 / 30)
    assert metrics.classwise_calibration_error(p, y, compat="focal_calibration") == pytest.approx(0.3, abs=1e-6)
    with pytest.raises(ValueError, match="softmax"):
        ece([[0.9, 0.2], [0.7, 0.1]], [0, 0])


@pytest.mark.claim("flatterer")
@pytest.mark.parametrize("k", [3, 10, 50])
def test_the_flatterer_wins_by_ece_and_loses_by_refinement(k):
    rng = np.random.default_rng(k)
    for _ in range(10):
        p, y = random_predictions(rng, 300, k)
        accuracy = 1 - metrics.error_rate(p, y)
        for stated in (accuracy, accuracy - 0.03):
            flat = np.full(p.shape, (1 - stated) / (k - 1))
            flat[np.arange(len(p)), p.argmax(1)] = stated
            assert metrics.error_rate(flat, y) == metrics.error_rate(p, y)
            for n_bins in (1, 4, 15, 100):
                for measure in (metrics.expected_calibration_error, metrics.adaptive_calibration_error):
                    assert measure(flat, y, n_bins) == pytest.approx(accuracy - stated, abs=1e-12)
            worst = metrics.calibration_refinement(flat, y).refinement
            assert worst == pytest.approx(accuracy * (1 - accuracy))
            assert metrics.calibration_refinement(p, y).refinement <= worst + 1e-12


def random_logits(seed: int, n: int = 400, k: int = 6, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident logits and labels of which every class has some."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((n, k))
    y = (truth + rng.gumbel(size=truth.shape)).argmax(1)
    y[:k] = np.arange(k)
    return scale * truth + 0.3 * rng.standard_normal((n, k)), y


@pytest.mark.claim("nll-convex")
@pytest.mark.parametrize("k", [2, 5, 30])
def test_the_nll_is_convex_in_the_inverse_temperature(k):
    for seed in range(5):
        z, y = random_logits(seed, k=k)

        def nll(beta, z=z, y=y):
            scores = np.exp(beta * (z - z.max(1, keepdims=True)))
            return -np.log(scores[np.arange(len(y)), y] / scores.sum(1)).mean()

        betas = np.linspace(0.02, 2, 100)
        values = np.array([nll(b) for b in betas])
        assert (np.diff(values, 2) > 0).all()
        fitted = calibration.TemperatureScaling().fit(z, y)
        assert fitted.converged_
        best = 1 / fitted.temperature_
        assert nll(best) <= min(nll(best * f) for f in (0.9, 0.999, 1.001, 1.1))
        p = fitted.predict_proba(z)
        assert (p * z).sum(1).mean() == pytest.approx(z[np.arange(len(y)), y].mean(), abs=1e-8)


@pytest.mark.claim("nll-convex")
def test_there_is_no_best_temperature_without_an_error_or_without_knowledge():
    z = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
    with pytest.warns(ConvergenceWarning):
        perfect = calibration.TemperatureScaling().fit(z, [0, 1])
    assert perfect.temperature_ == calibration.TEMPERATURES[0]
    with pytest.warns(ConvergenceWarning):
        ignorant = calibration.TemperatureScaling().fit(z, [1, 0])  # labels below the mean logit
    assert ignorant.temperature_ == calibration.TEMPERATURES[1]


@pytest.mark.claim("order-kept")
@pytest.mark.parametrize("name", calibration.CALIBRATORS)
def test_who_keeps_the_decision(name):
    changed = 0
    for seed in range(3):
        z, y = random_logits(seed)
        new, _ = random_logits(100 + seed)
        new = new + np.linspace(-1, 1, new.shape[1])
        make = calibration.CALIBRATORS[name]
        calibrator = make() if name != "parameterized" else calibration.ParameterizedTemperatureScaling(n_steps=50)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            p = calibrator.fit(z + np.linspace(-1, 1, z.shape[1]), y).predict_proba(new)
        changed += (p.argmax(1) != new.argmax(1)).sum()
    assert (changed == 0) == calibrator.keeps_order


@pytest.mark.claim("one-temperature")
def test_a_temperature_repairs_a_factor_and_no_bias():
    rng = np.random.default_rng(0)
    truth = 1.5 * rng.standard_normal((4_000, 4))
    y = (truth + rng.gumbel(size=truth.shape)).argmax(1)

    def softmax(z):
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def excess(p):
        true_p = softmax(truth)
        return (true_p * np.log(true_p / p)).sum(1).mean()

    even = calibration.TemperatureScaling().fit(2 * truth, y)
    assert even.temperature_ == pytest.approx(2, rel=0.1)
    assert excess(even.predict_proba(2 * truth)) < 0.003
    tilted = truth + np.array([-2.0, -1.0, 1.0, 2.0])
    by_vector = excess(calibration.VectorScaling().fit(tilted, y).predict_proba(tilted))
    assert by_vector < 0.005
    # no temperature, not even the best for every single sample, does as well
    grid = np.geomspace(0.05, 50, 200)
    each = np.stack([(softmax(truth) * np.log(softmax(truth) / softmax(tilted / t))).sum(1) for t in grid])
    assert each.min(0).mean() > 10 * by_vector
    assert excess(calibration.TemperatureScaling().fit(tilted, y).predict_proba(tilted)) > 20 * by_vector
