"""The statements of the chapter on accuracy and calibration, checked without the chapter's own code."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from gence import metrics
from gence.lab.results import sources

CALIBRATION = ("ece", "adaece", "classwise_ece")


def draw(rng: np.random.Generator, posterior: np.ndarray) -> np.ndarray:
    """One label for each row of probabilities."""
    return np.array([rng.choice(len(row), p=row) for row in posterior])


def frequencies(keys: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
    """Label frequencies among the samples with the same key."""
    onehot = np.eye(n_classes)[y]
    return np.stack([onehot[keys == key].mean(0) for key in keys])


def prediction_keys(p: np.ndarray) -> np.ndarray:
    names = {row.tobytes(): i for i, row in enumerate(p)}
    return np.array([names[row.tobytes()] for row in p])


@pytest.mark.claim("G1")
def test_the_example_of_the_paper_in_exact_fractions_and_with_the_metrics():
    cells = {"A": (40, 10), "B": (20, 30)}  # positive, negative
    models = {
        "constant": {"A": Fraction(3, 5), "B": Fraction(3, 5)},
        "group": {"A": Fraction(4, 5), "B": Fraction(2, 5)},
    }
    accuracy = {}
    for model, says in models.items():
        for said in set(says.values()):
            members = [cells[name] for name in cells if says[name] == said]
            assert Fraction(sum(pos for pos, _ in members), sum(map(sum, members))) == said  # calibrated, exactly
        right = sum(pos if says[name] > Fraction(1, 2) else neg for name, (pos, neg) in cells.items())
        accuracy[model] = Fraction(right, 100)
    assert accuracy == {"constant": Fraction(60, 100), "group": Fraction(70, 100)}

    y = np.repeat([1, 0, 1, 0], [40, 10, 20, 30])
    for model, says in models.items():
        positive = np.repeat([float(says["A"]), float(says["B"])], 50)
        p = np.stack([1 - positive, positive], axis=1)
        values = metrics.evaluate(p, y)
        assert values["error"] == pytest.approx(1 - float(accuracy[model]), abs=1e-15)
        assert max(values[name] for name in CALIBRATION) < 1e-14
    assert metrics.brier_score(p, y) == pytest.approx(0.4)  # the model by group; the constant one has 0.48
    constant = np.tile([0.4, 0.6], (100, 1))
    assert metrics.brier_score(constant, y) > metrics.brier_score(p, y)
    assert metrics.negative_log_likelihood(constant, y) > metrics.negative_log_likelihood(p, y)


@pytest.mark.claim("coarse-is-calibrated")
@pytest.mark.parametrize(("n_classes", "n_bins"), [(2, 15), (3, 7), (6, 20)])
def test_any_grouping_is_calibrated_and_a_finer_one_scores_no_worse(n_classes, n_bins):
    rng = np.random.default_rng(n_classes)
    for _ in range(5):
        fine = rng.permutation(np.arange(240) % 12)
        coarse = rng.integers(4, size=12)[fine]
        y = draw(rng, rng.dirichlet(np.ones(n_classes), size=12)[fine])
        p_fine, p_coarse = (frequencies(keys, y, n_classes) for keys in (fine, coarse))
        for p in (p_fine, p_coarse):
            assert metrics.expected_calibration_error(p, y, n_bins) < 1e-13
            assert metrics.adaptive_calibration_error(p, y, n_bins) < 1e-13
            assert metrics.classwise_calibration_error(p, y, n_bins) < 1e-13
        assert metrics.error_rate(p_fine, y) <= metrics.error_rate(p_coarse, y) + 1e-13
        for score in (metrics.brier_score, metrics.negative_log_likelihood):
            assert score(p_fine, y) < score(p_coarse, y) - 1e-6  # random cells differ: strictly better


@pytest.mark.claim("score-decomposition")
@pytest.mark.parametrize("score", ["brier", "nll"])
@pytest.mark.parametrize(("n_classes", "n_cells", "n_predictions"), [(2, 2, 1), (3, 8, 4), (5, 10, 10), (4, 9, 2)])
def test_a_proper_score_is_calibration_plus_grouping_plus_irreducible(score, n_classes, n_cells, n_predictions):
    rng = np.random.default_rng([n_classes, n_cells])

    def expected(p, o):
        """Score of predicting p when labels follow o, straight from the definition of the score."""
        total = 0.0
        for k in np.flatnonzero(o):
            total += o[k] * (-np.log(p[k]) if score == "nll" else ((p - np.eye(n_classes)[k]) ** 2).sum())
        return total

    def mean(values):
        return float(np.mean(list(values)))

    for _ in range(5):
        cell = rng.permutation(np.arange(120) % n_cells)
        # every prediction is used, and cells share their prediction
        p = rng.dirichlet(np.ones(n_classes), size=n_predictions)[cell % n_predictions]
        y = draw(rng, rng.dirichlet(np.full(n_classes, 0.4), size=n_cells)[cell])
        c, q = frequencies(prediction_keys(p), y, n_classes), frequencies(cell, y, n_classes)
        calibration = mean(expected(a, b) - expected(b, b) for a, b in zip(p, c, strict=True))
        grouping = mean(expected(a, b) - expected(b, b) for a, b in zip(c, q, strict=True))
        irreducible = mean(expected(b, b) for b in q)
        measured = metrics.METRICS[score](p, y)
        assert abs(measured - (calibration + grouping + irreducible)) < 1e-12
        assert calibration > 0
        assert grouping >= -1e-14
        overall = c.mean(0)
        resolution = mean(expected(overall, b) - expected(b, b) for b in c)
        assert abs(grouping + irreducible - (expected(overall, overall) - resolution)) < 1e-12


@pytest.mark.claim("score-decomposition")
def test_an_injective_map_changes_the_calibration_term_only():
    rng = np.random.default_rng(0)
    keys = rng.permutation(np.arange(200) % 8)
    p = rng.dirichlet(np.ones(3), size=8)[keys]
    y = draw(rng, rng.dirichlet(np.ones(3), size=8)[keys])
    refinement = metrics.negative_log_likelihood(frequencies(keys, y, 3), y)
    for temperature in (0.3, 1.0, 4.0):
        scaled = p ** (1 / temperature)
        scaled = scaled / scaled.sum(1, keepdims=True)
        c = frequencies(prediction_keys(scaled), y, 3)
        assert metrics.negative_log_likelihood(c, y) == pytest.approx(refinement, abs=1e-13)
        calibration = np.where(c > 0, c * np.log(np.where(c > 0, c, 1) / scaled), 0).sum(1).mean()
        assert metrics.negative_log_likelihood(scaled, y) == pytest.approx(refinement + calibration, abs=1e-12)


@pytest.mark.claim("G8")
def test_a_positive_temperature_for_each_sample_keeps_the_accuracy_but_not_the_order_of_samples():
    rng = np.random.default_rng(0)
    for k in (2, 10, 100):
        z, y = 4 * rng.standard_normal((400, k)), rng.integers(k, size=400)
        temperature = np.exp(rng.uniform(-3, 3, size=(400, 1)))
        before, after = (np.exp(s - s.max(1, keepdims=True)) for s in (z, z / temperature))
        before, after = (e / e.sum(1, keepdims=True) for e in (before, after))
        assert (before.argmax(1) == after.argmax(1)).all()
        assert metrics.error_rate(before, y) == metrics.error_rate(after, y)
    # Two samples, two bins: the less confident one overtakes.
    z = np.array([[2.0, 0.0], [1.0, 0.0]])
    confidence = 1 / (1 + np.exp(-z[:, 0] / np.array([4.0, 1.0])))
    assert confidence[0] < confidence[1]


@pytest.mark.claim("ece-noise-floor")
@pytest.mark.parametrize(("n", "n_bins"), [(1_000, 15), (10_000, 15), (10_000, 20)])
@pytest.mark.parametrize("accuracy", [0.95, 0.78, 0.5])
def test_the_noise_floor_of_a_calibrated_model_is_as_predicted(n, n_bins, accuracy):
    rng = np.random.default_rng([n, n_bins, round(100 * accuracy)])
    # the largest of two probabilities lies above one half, so a lower confidence needs a third class
    c = rng.beta(2 * accuracy, 2 * (1 - accuracy), size=n).clip(0.06, 1)
    rest = (1 - c)[:, None] * np.full((1, 20), 1 / 20)
    p = np.concatenate([c[:, None], rest], axis=1)
    assert (p.argmax(1) == 0).all()
    measured = []
    for _ in range(40):
        y = np.where(rng.random(n) < c, 0, 1)
        measured.append(metrics.expected_calibration_error(p, y, n_bins))
    edges = np.arange(n_bins + 1) / n_bins
    v = [(c * (1 - c))[(low < c) & (c <= high)].sum() for low, high in pairwise(edges)]
    bound = np.sqrt(v).sum() / n
    error = np.std(measured, ddof=1) / np.sqrt(len(measured))
    assert np.mean(measured) < bound - 4 * error  # strictly below the bound ...
    assert abs(np.mean(measured) - np.sqrt(2 / np.pi) * bound) < 0.03 * bound + 4 * error  # ... and at its 0.8-fold
    if n == 10_000:
        assert 0.003 < np.mean(measured) < 0.016


@pytest.mark.claim("ece-noise-floor")
def test_the_floor_falls_with_the_root_of_n_and_rises_with_the_root_of_the_bins():
    c = np.linspace(0.5, 1, 12_000, endpoint=False) + 0.5 / 24_000

    def floor(confidence, n_bins):
        v = np.bincount(np.ceil(confidence * n_bins).astype(int), confidence * (1 - confidence))
        return np.sqrt(2 / np.pi) * np.sqrt(v).sum() / len(confidence)

    assert floor(c, 20) / floor(np.repeat(c, 4), 20) == pytest.approx(2, rel=1e-9)
    assert floor(c, 80) / floor(c, 20) == pytest.approx(2, rel=0.03)


def test_nine_of_the_papers_fourteen_values_on_tiny_imagenet_lie_below_the_floor_of_a_calibrated_model():
    """Exercise 4: half of 10,000 images right, 20 bins, confidences from Beta distributions of two shapes."""
    rng = np.random.default_rng(0)
    edges = np.linspace(0, 1, 21)
    floors = []
    for total in (2, 1):
        c = rng.beta(total / 2, total / 2, 400_000)
        v = np.histogram(c, edges, weights=c * (1 - c))[0] / len(c)
        floors.append(100 * np.sqrt(2 / np.pi) * np.sqrt(v / 10_000).sum())
    printed = sources.paper_cells(2, dataset="Tiny-ImageNet", metric="ECE")
    below = printed[printed["mean"] < min(floors)]
    assert len(printed) == 14 and len(below) == 9
    assert (below["loss"] == "GenCE").sum() == 2
    assert printed["mean"].between(min(floors), max(floors)).sum() == 0  # no value between the two floors
