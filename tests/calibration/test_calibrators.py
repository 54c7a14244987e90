from __future__ import annotations

import math
import pickle
from bisect import bisect_left
from collections.abc import Callable
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
import references
import torch
from numpy.typing import NDArray
from scipy import interpolate, optimize, special
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from gence import metrics
from gence.calibration import (
    CALIBRATORS,
    AdaptiveTemperatureScaling,
    BayesianBinning,
    BinwiseTemperatureScaling,
    Calibrator,
    DirichletCalibration,
    EnsembleTemperatureScaling,
    EntropyTemperatureScaling,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    ParameterizedTemperatureScaling,
    PlattScaling,
    SplineCalibration,
    TemperatureScaling,
    VectorScaling,
)

K = 4
ORDERED = [name for name, make in CALIBRATORS.items() if make().keeps_order]
WITH_TEMPERATURE = [name for name, make in CALIBRATORS.items() if hasattr(make(), "temperature")]
TOO_FEW = r"1 validation samples are too few for \d+ bins or knots"
NO_SAMPLE = r"each of the 4 classes needs a validation sample, but \[.*\] have none"
NEEDS_SAMPLES = {"ats": TOO_FEW, "binwise": TOO_FEW, "spline": TOO_FEW}
NEEDS_CLASSES = dict.fromkeys(["matrix", "dirichlet", "platt"], NO_SAMPLE)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def labels_of(logits: NDArray, rng: np.random.Generator) -> NDArray:
    """Labels drawn from softmax(logits)."""
    return (logits + rng.gumbel(size=logits.shape)).argmax(1)


def problem(
    n: int = 600, n_classes: int = K, temperature: float = 2.0, seed: int = 0, scale: float = 2.0
) -> tuple[NDArray, NDArray]:
    """Overconfident logits: the labels come from softmax(z / temperature)."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(n, n_classes))
    return temperature * logits, labels_of(logits, rng)


def quick(name: str) -> Calibrator:
    """The calibrator of that name, with few steps where it trains a network."""
    made = CALIBRATORS[name]()
    return made.set_params(n_steps=30) if "n_steps" in made.get_params() else made


def nll(probs: NDArray, labels: NDArray) -> float:
    return metrics.negative_log_likelihood(probs, labels)


def temperature_error(logits: NDArray, temperature: float) -> float:
    """Standard error of the temperature of the lowest NLL: 1/T has the information N Var_p(z)."""
    p = special.softmax(logits / temperature, axis=1)
    information = ((p * logits**2).sum(1) - (p * logits).sum(1) ** 2).sum()
    return temperature**2 / math.sqrt(information)


# --- what all calibrators share ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALIBRATORS)
def test_rows_are_probabilities_for_tensors_arrays_and_lists(name: str) -> None:
    z, y = problem(200)
    expected = quick(name).fit(z, y).predict_proba(z)
    assert expected.shape == z.shape
    assert expected.dtype == np.float64
    assert (expected >= 0).all()
    np.testing.assert_allclose(expected.sum(1), 1, atol=1e-12)
    for logits, labels in ((torch.tensor(z, requires_grad=True), torch.tensor(y)), (z.tolist(), y.astype(np.uint8))):
        np.testing.assert_array_equal(quick(name).fit(logits, labels).predict_proba(logits), expected)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_clones_and_second_fits_are_the_same(name: str) -> None:
    z, y = problem()
    fitted = quick(name).fit(z, y)
    expected = fitted.predict_proba(z)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        copy.predict_proba(z)
    np.testing.assert_array_equal(copy.fit(z, y).predict_proba(z), expected)
    fitted.fit(-z[:300, :3], y[:300] % 3)  # forgotten
    np.testing.assert_array_equal(fitted.fit(z, y).predict_proba(z), expected)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_fitted_calibrators_can_be_saved(name: str) -> None:
    z, y = problem(200)
    fitted = quick(name).fit(z, y)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(z), fitted.predict_proba(z))


@pytest.mark.parametrize("decimals", [8, 0], ids=["generic", "ties"])
@pytest.mark.parametrize("name", CALIBRATORS)
def test_the_order_of_samples_does_not_matter(name: str, decimals: int) -> None:
    """PTS too, as long as one batch holds all the samples."""
    z, y = problem()
    z = np.round(z, decimals)
    order = np.random.default_rng(1).permutation(len(y))
    expected, shuffled = (quick(name).fit(z[rows], y[rows]).predict_proba(z) for rows in (np.arange(len(y)), order))
    np.testing.assert_allclose(shuffled, expected, atol=1e-9)


def test_minibatches_of_pts_follow_the_order_of_samples() -> None:
    """More than 1,000 samples are drawn by their position: another order gives other batches, a little."""
    z, y = problem(1500)
    order = np.random.default_rng(1).permutation(len(y))
    expected, shuffled = (
        quick("parameterized").fit(z[rows], y[rows]).predict_proba(z) for rows in (np.arange(len(y)), order)
    )
    assert 1e-6 < np.abs(shuffled - expected).max() < 0.1


@pytest.mark.parametrize("name", ORDERED)
def test_the_most_probable_class_of_a_million_logits_stays(name: str) -> None:
    fitted = quick(name).fit(*problem())
    rng = np.random.default_rng(2)
    for scale in (1, 1, 3, 3, 10):
        z = scale * rng.normal(size=(200_000, K))
        np.testing.assert_array_equal(fitted.predict_proba(z).argmax(1), z.argmax(1))


@pytest.mark.parametrize("name", ORDERED)
@pytest.mark.parametrize("worst", [False, True], ids=["chance", "always wrong"])
def test_labels_that_the_logits_do_not_know_leave_the_order_alone(name: str, worst: bool) -> None:
    z, y = problem()
    y = z.argmin(1) if worst else np.random.default_rng(3).permutation(y)
    np.testing.assert_array_equal(quick(name).fit(z, y).predict_proba(z).argmax(1), z.argmax(1))


@pytest.mark.parametrize("name", [name for name in CALIBRATORS if name not in ORDERED])
def test_the_others_can_change_the_most_probable_class(name: str) -> None:
    """Classes 0 and 1 are swapped in the labels."""
    z, y = problem()
    swapped = np.array([1, 0, 2, 3])[y]
    assert (CALIBRATORS[name]().fit(z, swapped).predict_proba(z).argmax(1) != z.argmax(1)).mean() > 0.1


@pytest.mark.parametrize("name", CALIBRATORS)
def test_unfitted_and_other_number_of_classes(name: str) -> None:
    z, y = problem()
    with pytest.raises(NotFittedError, match="not fitted yet"):
        CALIBRATORS[name]().predict_proba(z)
    fitted = quick(name).fit(z, y)
    with pytest.raises(ValueError, match="the 4 classes of fit, but have 3"):
        fitted.predict_proba(z[:, :3])


@pytest.mark.parametrize("name", WITH_TEMPERATURE)
def test_temperatures_are_positive_and_checked_like_predictions(name: str) -> None:
    z, y = problem()
    with pytest.raises(NotFittedError, match="not fitted yet"):
        CALIBRATORS[name]().temperature(z)
    fitted = quick(name).fit(z, y)
    t = fitted.temperature(z)
    assert (t > 0).all()
    np.testing.assert_allclose(fitted.predict_proba(z), special.softmax(z / t[:, None], axis=1), atol=1e-12)
    with pytest.raises(ValueError, match="the 4 classes of fit, but have 3"):
        fitted.temperature(z[:, :3])


GOOD = [[2.0, -1.0], [0.5, 3.0]]
BAD_LOGITS = [
    ([[math.nan, 1.0], [0.5, 0.5]], "NaN"),
    ([[math.inf, 0.0], [0.5, 0.5]], "infinite"),
    ([1.0, 2.0], r"shape \(N, K\).*got \(2,\)"),
    ([[1.0], [2.0]], "K >= 2"),
    (np.empty((0, 2)), "N >= 1"),
    ([[-math.inf, -math.inf], [0.0, 1.0]], "infinite values: the largest of row 0 is -inf"),
]
PROBABILITIES = [[[0.3, 0.7], [0.5, 0.5]], torch.full((2, 2), 0.5), [[1.0, -1e-17], [0.3, 0.7]]]
BAD_LABELS = [
    ([0], r"shape \(2,\) to match logits"),
    ([[0], [1]], r"got \(2, 1\)"),
    ([0, 2], r"0\.\.1, but range from 0 to 2"),
    ([-1, 1], "range from -1"),
    ([0.0, 1.0], "integer class indices"),
    ([False, True], "integer class indices"),
]


@pytest.mark.parametrize("name", CALIBRATORS)
def test_bad_input_says_what_is_wrong(name: str) -> None:
    fitted = quick(name).fit(*problem(n_classes=2))
    for logits, message in BAD_LOGITS:
        for call in (lambda z: CALIBRATORS[name]().fit(z, [0, 1]), fitted.predict_proba):
            with pytest.raises(ValueError, match=message):
                call(logits)
    for probs in PROBABILITIES:
        with pytest.raises(ValueError, match="these rows are probabilities"):
            CALIBRATORS[name]().fit(probs, [0, 1])
    for labels, message in BAD_LABELS:
        with pytest.raises(ValueError, match=message):
            CALIBRATORS[name]().fit(GOOD, labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_probabilities_of_every_precision_are_recognised(dtype: torch.dtype) -> None:
    """Rows of half precision sum to 1 only roughly, also after a cast; logarithms of them are logits."""
    z, y = problem(n_classes=100)
    probs = torch.tensor(z).softmax(1).to(dtype)
    for these in (probs, probs.float(), probs.double()):
        with pytest.raises(ValueError, match="these rows are probabilities"):
            TemperatureScaling().fit(these, y)
    TemperatureScaling().fit(probs.clamp_min(1e-6).log(), y)


@pytest.mark.parametrize("name", [name for name in CALIBRATORS if name not in ("none", "parameterized")])
def test_constant_confidences_become_the_accuracy(name: str) -> None:
    """One and the same row a hundred times: .61 for class 0, which is right 40 times. ATS is still on its way."""
    z, y = np.tile([2.0, 0.0, 0.0, 1.0], (100, 1)), np.repeat([0, 3, 1, 2], [40, 24, 18, 18])
    probs = CALIBRATORS[name]().fit(z, y).predict_proba(z)
    assert np.ptp(probs, axis=0).max() == 0
    assert probs[0, 0] == pytest.approx(0.4, abs=0.05 if name == "ats" else 0.02)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_equal_logits_stay_uniform(name: str) -> None:
    probs = quick(name).fit(np.zeros((100, K)), np.arange(100) % K).predict_proba(np.zeros((2, K)))
    np.testing.assert_allclose(probs, 1 / K, atol=1e-6)


def assert_probabilities_or(message: str | None, name: str, z: NDArray, y: NDArray) -> None:
    if message:
        with pytest.raises(ValueError, match=message):
            CALIBRATORS[name]().fit(z, y)
    else:
        probs = quick(name).fit(z, y).predict_proba(z)
        assert (probs >= 0).all()
        np.testing.assert_allclose(probs.sum(1), 1, atol=1e-12)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_one_sample(name: str) -> None:
    z, y = problem()
    assert_probabilities_or((NEEDS_SAMPLES | NEEDS_CLASSES).get(name), name, z[:1], y[:1])


@pytest.mark.parametrize("name", CALIBRATORS)
def test_labels_of_one_class(name: str) -> None:
    z, _ = problem()
    assert_probabilities_or(NEEDS_CLASSES.get(name), name, z, np.zeros(len(z), dtype=int))


@pytest.mark.parametrize("name", CALIBRATORS)
def test_enormous_logits_stay_finite(name: str) -> None:
    z, y = problem()
    assert_probabilities_or(None, name, 1e4 * z, y)
    assert np.isfinite(quick(name).fit(z, y).predict_proba(1e4 * z)).all()


@pytest.mark.parametrize("name", [name for name in CALIBRATORS if name != "none"])
def test_every_calibrator_calibrates(name: str) -> None:
    """Logits twice too large: on other data less than half of the calibration error is left, and the NLL is lower."""
    fitted = CALIBRATORS[name]().fit(*problem(3000))
    z, y = problem(20_000, seed=1)
    before, after = special.softmax(z, axis=1), fitted.predict_proba(z)
    ece = metrics.expected_calibration_error
    assert ece(before, y) > 0.1
    assert ece(after, y) < ece(before, y) / 2
    assert nll(np.maximum(after, 1e-9) / np.maximum(after, 1e-9).sum(1, keepdims=True), y) < nll(before, y)


# --- gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "points"),
    [
        (VectorScaling, lambda rng: rng.normal(size=2 * K)),
        (EntropyTemperatureScaling, lambda rng: rng.normal(size=2)),
        (EnsembleTemperatureScaling, lambda rng: rng.dirichlet([1, 1, 1])),
        (lambda: EnsembleTemperatureScaling("nll"), lambda rng: rng.dirichlet([1, 1, 1])),
    ],
    ids=["vector", "entropy", "ensemble", "ensemble nll"],
)
def test_gradients_that_are_given_to_the_optimiser(make: Callable, points: Callable) -> None:
    z, y = problem(100)
    with mock.patch.object(optimize, "minimize", wraps=optimize.minimize) as minimize:
        make().fit(z, y)
    objective = minimize.call_args.args[0]
    rng = np.random.default_rng(0)
    for _ in range(5):
        x = points(rng)
        error = optimize.check_grad(lambda v: objective(v)[0], lambda v: objective(v)[1], x)
        assert error < 1e-5 * max(1, np.abs(objective(x)[1]).max())


# --- one temperature --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_temperature_is_the_minimum_of_the_nll(seed: int) -> None:
    z, y = problem(300, seed=seed)
    fitted = TemperatureScaling().fit(z, y)

    def of(t: float) -> float:
        return nll(special.softmax(z / t, axis=1), y)

    bounded = optimize.minimize_scalar(of, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-9})
    assert fitted.converged_
    assert fitted.temperature_ == pytest.approx(bounded.x, rel=1e-6)
    assert of(fitted.temperature_) <= min(map(of, np.geomspace(0.1, 100, 2000))) + 1e-12


@pytest.mark.parametrize("truth", [0.3, 1.0, 2.0, 30.0])
def test_temperature_recovers_the_true_one(truth: float) -> None:
    z, y = problem(20_000, 10, truth)
    assert TemperatureScaling().fit(z, y).temperature_ == pytest.approx(truth, abs=4 * temperature_error(z, truth))


@pytest.mark.parametrize(("right", "end"), [(True, 0.01), (False, 100.0)])
def test_temperature_without_a_minimum_warns(right: bool, end: float) -> None:
    z, _ = problem()
    y = z.argmax(1) if right else z.argmin(1)
    with pytest.warns(ConvergenceWarning, match=f"no minimum.*took {end:g}"):
        fitted = TemperatureScaling().fit(z, y)
    assert (fitted.temperature_, fitted.converged_) == (end, False)


def test_temperature_by_ece_is_the_best_of_the_grid() -> None:
    z, y = problem(150)
    errors = {}
    for t in range(1, 101):
        p = special.softmax(z / (t / 10), axis=1)
        errors[t / 10] = references.ece(p.max(1).tolist(), (p.argmax(1) == y).tolist(), 15)
    assert TemperatureScaling(objective="ece").fit(z, y).temperature_ == min(errors, key=errors.get)


@pytest.mark.parametrize("make", [TemperatureScaling, EnsembleTemperatureScaling])
def test_unknown_objective(make: type) -> None:
    with pytest.raises(ValueError, match="but got 'mae'"):
        make(objective="mae").fit(*problem())


# --- adaptive temperature scaling -------------------------------------------------------------------------------


def plain_ats(
    z: NDArray, y: NDArray, n_bins: int, step: float, clip: float, n_rounds: int
) -> tuple[list[list[float]], list[float]]:
    """Algorithm 1 sample by sample: the temperatures before the first round and after each, and their ECE."""

    def confidence(row: list[float], t: float) -> float:
        return max(references.plain_softmax([v / t for v in row]))

    rows, n = z.tolist(), len(z)
    hit = [row.index(max(row)) == label for row, label in zip(rows, y.tolist(), strict=True)]
    unscaled = [confidence(row, 1.0) for row in rows]
    ordered = sorted(unscaled)
    thresholds = []
    for m in range(1, n_bins):
        position = (n - 1) * m / n_bins
        below, part = int(position), position - int(position)
        thresholds.append(ordered[below] * (1 - part) + ordered[below + 1] * part)
    bins = [bisect_left(thresholds, c) for c in unscaled]
    temperatures = [1.0] * n_bins
    path, history = [], []
    for r in range(n_rounds + 1):
        if r:
            for m in reversed(range(n_bins)):
                members = [i for i in range(n) if bins[i] == m]
                if not members:
                    continue
                mean = math.fsum(confidence(rows[i], temperatures[m]) for i in members) / len(members)
                gap = mean - sum(hit[i] for i in members) / len(members)
                change = min(max(step * gap, -clip), clip)
                temperatures[m] = min(max(temperatures[m] + change, 0.1), 10.0)
        path.append(list(temperatures))
        scaled = [confidence(row, temperatures[b]) for row, b in zip(rows, bins, strict=True)]
        history.append(references.ece(scaled, hit, 15))
    return path, history


@pytest.mark.parametrize(("step", "clip"), [(0.05, 0.1), (2.0, 0.1), (30.0, 20.0)])
def test_ats_is_algorithm_1(step: float, clip: float) -> None:
    """Also where the inner clip acts (step 2) and where temperatures reach .1 and 10 (step 30)."""
    z, y = problem(121, 3)
    path, history = plain_ats(z, y, 7, step, clip, 40)
    fitted = AdaptiveTemperatureScaling(n_bins=7, step=step, clip=clip, n_rounds=40).fit(z, y)
    np.testing.assert_allclose(fitted.history_, history, atol=1e-9)
    assert fitted.best_round_ == history.index(min(history))
    np.testing.assert_allclose(fitted.temperatures_, path[fitted.best_round_], atol=1e-9)
    last = AdaptiveTemperatureScaling(n_bins=7, step=step, clip=clip, n_rounds=40, select="last").fit(z, y)
    np.testing.assert_allclose(last.temperatures_, path[-1], atol=1e-9)


def test_ats_keeps_the_best_round() -> None:
    z, y = problem(500)
    fitted = AdaptiveTemperatureScaling(step=1.0).fit(z, y)
    assert 0 < fitted.best_round_ < 200
    assert fitted.history_[fitted.best_round_] == fitted.history_.min()
    probs = fitted.predict_proba(z)
    assert metrics.expected_calibration_error(probs, y) == pytest.approx(fitted.history_.min(), abs=1e-12)
    until_then = AdaptiveTemperatureScaling(step=1.0, n_rounds=fitted.best_round_, select="last").fit(z, y)
    np.testing.assert_array_equal(until_then.temperatures_, fitted.temperatures_)


PIECES = np.array([0.7, 1.3, 2.0, 3.2, 1.6])


def piecewise_problem(n: int = 10_000, n_classes: int = 10) -> tuple[NDArray, NDArray, NDArray]:
    """Logits whose right temperature depends on the confidence bin, their labels and bins."""
    rng = np.random.default_rng(0)
    z = 2 * rng.normal(size=(n, n_classes))
    confidence = special.softmax(z, axis=1).max(1)
    bins = np.searchsorted(np.quantile(confidence, np.arange(1, 5) / 5), confidence)
    return z, labels_of(z / PIECES[bins, None], rng), bins


def distance_in_standard_errors(z: NDArray, bins: NDArray, found: NDArray) -> NDArray:
    """Of the temperatures at which mean confidence is accuracy: sd of the gap over the slope of the confidence."""

    def confidence(b: int, t: float) -> NDArray:
        return special.softmax(z[bins == b] / t, axis=1).max(1)

    errors = []
    for b, t in enumerate(PIECES):
        c = confidence(b, t)
        slope = (confidence(b, t + 1e-4).mean() - confidence(b, t - 1e-4).mean()) / 2e-4
        errors.append(math.sqrt((c * (1 - c)).sum()) / len(c) / abs(slope))
    return np.abs(found - PIECES) / errors


def test_ats_recovers_piecewise_temperatures_given_time() -> None:
    """Within 3.5 standard errors after 3,000 rounds; the published 200 end at 2.3 instead of 3.2."""
    z, y, bins = piecewise_problem()
    long, published, faster = (
        AdaptiveTemperatureScaling(n_bins=5, n_rounds=n, step=step, select="last").fit(z, y)
        for n, step in ((3000, 0.05), (200, 0.05), (200, 1.0))
    )
    assert distance_in_standard_errors(z, bins, long.temperatures_).max() < 3.5
    assert distance_in_standard_errors(z, bins, published.temperatures_).max() > 4
    np.testing.assert_allclose(faster.temperatures_, long.temperatures_, atol=5e-3)
    gap = metrics.expected_calibration_error(faster.predict_proba(z), y, 1)
    assert gap == pytest.approx(0, abs=1e-3)


def test_200_rounds_of_ats_do_not_reach_a_temperature_of_2() -> None:
    """100 classes, published settings: the last round is the best, the ECE on other data many times that of one T."""
    z, y = problem(5000, 100, scale=1.0)
    ats = AdaptiveTemperatureScaling().fit(z, y)
    assert 1.5 < np.median(ats.temperatures_) < 1.8
    assert ats.best_round_ > 190
    other = problem(20_000, 100, seed=1, scale=1.0)
    ece = [
        metrics.expected_calibration_error(c.predict_proba(other[0]), other[1])
        for c in (ats, TemperatureScaling().fit(z, y))
    ]
    assert ece[0] > 4 * ece[1]


def test_the_inner_clip_of_ats_is_dead_code_at_the_published_step() -> None:
    """A gap is at most 1, so a change at most .05."""
    z, y = problem(300)

    def history(step: float, clip: float) -> NDArray:
        return AdaptiveTemperatureScaling(step=step, clip=clip).fit(z, y).history_

    np.testing.assert_array_equal(history(0.05, 0.1), history(0.05, 1.0))
    assert np.abs(history(1.0, 0.1) - history(1.0, 1.0)).max() > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_bins": 601}, "600 validation samples are too few for 601 bins"),
        ({"n_bins": 0}, "at least 1"),
        ({"select": "nll"}, "'ece' or 'last', but got 'nll'"),
        ({"step": -1.0}, "step, clip and n_rounds must be >= 0"),
        ({"n_rounds": -1}, "step, clip and n_rounds must be >= 0"),
        ({"temperature_range": (0.0, 10.0)}, "0 < low <= high"),
        ({"temperature_range": (10.0, 0.1)}, "0 < low <= high"),
        ({"selection_bins": 0}, "n_bins must be at least 1"),
    ],
)
def test_options_of_ats_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptiveTemperatureScaling(**options).fit(*problem())


def test_as_many_bins_as_samples_and_new_confidences_beyond_all_bins() -> None:
    z, y = problem(15)
    fitted = AdaptiveTemperatureScaling().fit(z, y)
    t = fitted.temperature([[0.1, 0.0, 0.0, 0.0], [50.0, 0.0, 0.0, 0.0]])
    assert t.tolist() == [fitted.temperatures_[0], fitted.temperatures_[-1]]


# --- the other temperatures -------------------------------------------------------------------------------------


def test_binwise_is_temperature_scaling_in_each_bin() -> None:
    z, y = problem(2000)
    fitted = BinwiseTemperatureScaling(n_bins=4, top=0.95).fit(z, y)
    confidence = special.softmax(z, axis=1).max(1)
    edges = [0, *np.quantile(confidence[confidence <= 0.95], [0.25, 0.5, 0.75]), 0.95, 1]
    assert len(fitted.temperatures_) == len(edges) - 1
    for b, t in enumerate(fitted.temperatures_):
        here = (confidence > edges[b]) & (confidence <= edges[b + 1])
        assert t == pytest.approx(TemperatureScaling().fit(z[here], y[here]).temperature_, rel=1e-9)


def test_binwise_takes_the_global_temperature_where_a_bin_has_no_error() -> None:
    z, y = problem(2000)
    sure = special.softmax(z, axis=1).max(1) > 0.99
    y[sure] = z.argmax(1)[sure]
    fitted = BinwiseTemperatureScaling(n_bins=4, top=0.99).fit(z, y)
    assert fitted.temperatures_[-1] == TemperatureScaling().fit(z, y).temperature_


def test_entropy_scaling_recovers_its_own_parameters() -> None:
    """T = softplus(w log(H / log K) + b) + .01 with w = -.5 and b = 1: within 5 % everywhere."""
    rng = np.random.default_rng(0)
    z = 4 * rng.normal(size=(20_000, 10))
    p = special.softmax(z, axis=1)
    share = special.entr(p).sum(1) / np.log(10)
    truth = np.log1p(np.exp(-0.5 * np.log(share) + 1)) + 0.01
    fitted = EntropyTemperatureScaling().fit(z, labels_of(z / truth[:, None], rng))
    assert (fitted.weight_, fitted.bias_) == pytest.approx((-0.5, 1), abs=0.15)
    np.testing.assert_allclose(fitted.temperature(z), truth, rtol=0.05)


def test_entropy_scaling_is_not_worse_than_one_temperature() -> None:
    z, y = problem()
    one, by_entropy = (c.fit(z, y).predict_proba(z) for c in (TemperatureScaling(), EntropyTemperatureScaling()))
    assert nll(by_entropy, y) <= nll(one, y) + 1e-9


def test_entropy_scaling_says_when_certainty_would_be_best() -> None:
    """Without an error the NLL has no minimum at positive temperatures; plain temperature scaling says so, too."""
    z, _ = problem(108)
    with pytest.warns(ConvergenceWarning, match="found no minimum with positive temperatures on 108 samples"):
        fitted = EntropyTemperatureScaling().fit(z, z.argmax(1))
    assert not fitted.converged_
    assert EntropyTemperatureScaling().fit(*problem(600)).converged_


def test_pts_improves_its_objective_and_is_decided_by_its_seed() -> None:
    z, y = problem(500)
    before = torch.random.get_rng_state()
    first, again, other = (ParameterizedTemperatureScaling(n_steps=200, seed=s).fit(z, y) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(first.temperature(z), again.temperature(z))
    assert np.abs(first.temperature(z) - other.temperature(z)).max() > 1e-3
    start = ParameterizedTemperatureScaling(n_steps=0).fit(z, y)
    brier = [metrics.brier_score(c.predict_proba(z), y) for c in (start, quick("parameterized").fit(z, y), first)]
    assert brier == sorted(brier, reverse=True)
    assert brier[2] < metrics.brier_score(special.softmax(z, axis=1), y)


# --- ensemble, vector, matrix, Dirichlet ------------------------------------------------------------------------


def ensemble_objective(objective: str, weights: NDArray, parts: list[NDArray], y: NDArray) -> float:
    p = sum(w * part for w, part in zip(weights, parts, strict=True))
    return metrics.brier_score(p, y) if objective == "mse" else nll(p, y)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("objective", ["mse", "nll"])
def test_ensemble_weights_are_the_best_of_a_grid(objective: str, noise: float) -> None:
    z, y = problem(400)
    rng = np.random.default_rng(1)
    y = np.where(rng.random(len(y)) < noise, rng.integers(K, size=len(y)), y)
    fitted = EnsembleTemperatureScaling(objective).fit(z, y)
    assert fitted.weights_.min() >= 0
    assert fitted.weights_.sum() == pytest.approx(1, abs=1e-12)
    t = TemperatureScaling().fit(z, y).temperature_
    assert fitted.temperature_ == t
    parts = [special.softmax(z / t, axis=1), special.softmax(z, axis=1), np.full(z.shape, 1 / K)]
    grid = [np.array([i, j, 40 - i - j]) / 40 for i in range(41) for j in range(41 - i)]  # TS alone is its last point
    best = min(ensemble_objective(objective, w, parts, y) for w in grid)
    assert ensemble_objective(objective, fitted.weights_, parts, y) <= best + 1e-9
    np.testing.assert_allclose(
        fitted.predict_proba(z), np.einsum("a,ank->nk", fitted.weights_, np.stack(parts)), atol=1e-12
    )


def test_vector_scaling_is_the_minimum_of_the_nll() -> None:
    z, y = problem()
    fitted = VectorScaling().fit(z, y)
    weights, biases = (torch.tensor(v, requires_grad=True) for v in (fitted.weights_, fitted.biases_))
    loss = torch.nn.functional.cross_entropy(weights * torch.tensor(z) + biases, torch.tensor(y))
    loss.backward()
    assert max(weights.grad.abs().max(), biases.grad.abs().max()) < 1e-4
    assert nll(fitted.predict_proba(z), y) == pytest.approx(loss.item(), abs=1e-12)
    assert loss.item() <= nll(TemperatureScaling().fit(z, y).predict_proba(z), y)


def test_vector_scaling_recovers_weights_and_biases() -> None:
    rng = np.random.default_rng(0)
    z = 2 * rng.normal(size=(30_000, K))
    weights, biases = np.array([0.5, 1.0, 1.5, 0.7]), np.array([0.0, -1.0, 0.5, 0.2])
    fitted = VectorScaling().fit(z, labels_of(weights * z + biases, rng))
    np.testing.assert_allclose(fitted.weights_, weights, atol=0.08)
    np.testing.assert_allclose(fitted.biases_ - fitted.biases_[0], biases, atol=0.12)


@pytest.mark.parametrize(
    ("make", "feature"), [(MatrixScaling, lambda z: z), (DirichletCalibration, lambda z: special.log_softmax(z, 1))]
)
@pytest.mark.parametrize("n_classes", [2, K])
def test_matrix_and_dirichlet_are_logistic_regressions(make: type, feature: Callable, n_classes: int) -> None:
    z, y = problem(n_classes=n_classes)
    expected = LogisticRegression(C=0.3, max_iter=1000, tol=1e-10).fit(feature(z), y).predict_proba(feature(z))
    np.testing.assert_allclose(make(c=0.3).fit(z, y).predict_proba(z), expected, atol=1e-5)


# --- one class against the rest ---------------------------------------------------------------------------------


def test_platt_of_two_classes_is_a_logistic_regression_on_the_log_odds() -> None:
    z, y = problem(n_classes=2)
    odds = (z[:, 1] - z[:, 0])[:, None]
    expected = LogisticRegression(C=np.inf, tol=1e-8).fit(odds, y).predict_proba(odds)
    np.testing.assert_allclose(PlattScaling().fit(z, y).predict_proba(z), expected, atol=1e-4)


def one_against_rest(z: NDArray, of_class: Callable[[int, NDArray], NDArray]) -> NDArray:
    p = special.softmax(z, axis=1)
    rows = np.column_stack([of_class(k, p[:, k]) for k in range(z.shape[1])])
    return rows / rows.sum(1, keepdims=True)


def test_isotonic_is_one_regression_for_each_class() -> None:
    z, y = problem()
    expected = one_against_rest(z, lambda k, p: IsotonicRegression().fit(p, (y == k).astype(float)).predict(p))
    np.testing.assert_allclose(IsotonicCalibration().fit(z, y).predict_proba(z), expected, atol=1e-10)


def test_shared_isotonic_is_one_regression_and_keeps_the_order_of_all_classes() -> None:
    z, y = problem()
    p, hit = special.softmax(z, axis=1).ravel(), np.eye(K)[y].ravel()
    regression = IsotonicRegression().fit(p, hit)
    got = IsotonicCalibration(shared=True).fit(z, y).predict_proba(z)
    np.testing.assert_allclose(got, one_against_rest(z, lambda k, q: regression.predict(q)), atol=1e-7)
    np.testing.assert_array_equal(got.argsort(1), z.argsort(1))
    assert not IsotonicCalibration().keeps_order


def test_a_row_without_any_frequency_is_uniform() -> None:
    """Below the certain half of their samples the maps of classes 0 and 1 are 0, and that of class 2 is 0 anyway."""
    fitted = IsotonicCalibration().fit([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]] * 2, [0, 1, 0, 1])
    np.testing.assert_allclose(fitted.predict_proba([[0.0, 0.0, 20.0]]), 1 / 3)


def test_histogram_binning_equals_a_plain_loop() -> None:
    z, y = problem(100)
    p = special.softmax(z, axis=1)

    def frequency(k: int, value: float) -> float:
        b = max(math.ceil(value * 15), 1)
        members = [i for i in range(len(y)) if max(math.ceil(p[i, k] * 15), 1) == b]
        return sum(y[i] == k for i in members) / len(members) if members else (b - 0.5) / 15

    new, _ = problem(50, seed=1)
    expected = one_against_rest(new, lambda k, column: np.array([frequency(k, v) for v in column]))
    np.testing.assert_allclose(HistogramBinning().fit(z, y).predict_proba(new), expected, atol=1e-12)


@pytest.mark.parametrize("n_bins", [0, -1])
def test_histogram_binning_needs_a_bin(n_bins: int) -> None:
    with pytest.raises(ValueError, match=f"n_bins must be at least 1, but got {n_bins}"):
        HistogramBinning(n_bins=n_bins).fit(*problem())


def bbq_by_loops(p: list[float], hit: list[bool], value: float, prior: float = 2.0, spread: float = 10.0) -> float:
    """Naeini's formulas, one binning and one bin after the other: the average estimate for one probability."""
    pairs = sorted(zip(p, hit, strict=True))
    n, root = len(pairs), len(pairs) ** (1 / 3)
    scores, estimates = [], []
    for n_bins in range(max(int(root / spread), 1), min(int(root * spread), n) + 1):
        cuts = {n * b // n_bins for b in range(1, n_bins)}
        edges = [0.0, *sorted({(pairs[i - 1][0] + pairs[i][0]) / 2 for i in cuts}), 1.0]
        strength, score = prior / (len(edges) - 1), 0.0
        for b, (low, high) in enumerate(pairwise(edges)):
            inside = [h for q, h in pairs if low < q <= high or (b == 0 and q == 0)]
            alpha, beta = strength * (low + high) / 2, strength * (1 - (low + high) / 2)
            m, rest = sum(inside), len(inside) - sum(inside)
            score += math.lgamma(strength) - math.lgamma(len(inside) + strength)
            score += math.lgamma(m + alpha) - math.lgamma(alpha) + math.lgamma(rest + beta) - math.lgamma(beta)
            if low < value <= high or (b == 0 and value == 0):
                estimates.append((m + alpha) / (len(inside) + strength))
        scores.append(score)
    weights = [math.exp(score - max(scores)) for score in scores]
    return sum(w * e for w, e in zip(weights, estimates, strict=True)) / sum(weights)


@pytest.mark.parametrize("decimals", [8, 0], ids=["generic", "ties"])
def test_bayesian_binning_equals_a_plain_loop(decimals: int) -> None:
    z, y = problem(80)
    z = np.round(z, decimals)
    p = special.softmax(z, axis=1)
    new = np.concatenate([problem(20, seed=1)[0], z[:5]])  # values on both sides of the edges, and seen ones
    expected = one_against_rest(
        new, lambda k, column: np.array([bbq_by_loops(p[:, k].tolist(), (y == k).tolist(), v) for v in column])
    )
    np.testing.assert_allclose(BayesianBinning().fit(z, y).predict_proba(new), expected, atol=1e-10)


def test_bayesian_binning_finds_a_step() -> None:
    """One class is certain above 1/2 and a coin below: two bins say all, and the average should say nearly that."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.01, 0.99, size=4000)
    y = (rng.random(4000) > np.where(p > 0.5, 1.0, 0.5)).astype(int)  # 1 is "not class 0"
    fitted = BayesianBinning().fit(np.column_stack([special.logit(p), np.zeros(4000)]), y)
    got = fitted.predict_proba(np.column_stack([special.logit([0.2, 0.4, 0.6, 0.8]), np.zeros(4)]))[:, 0]
    np.testing.assert_allclose(got, [0.5, 0.5, 1.0, 1.0], atol=0.03)


@pytest.mark.parametrize("options", [{"prior": 0.0}, {"spread": 0.5}, {"prior": float("nan")}])
def test_bayesian_binning_refuses_options(options: dict) -> None:
    with pytest.raises(ValueError, match="prior must be > 0 and spread >= 1"):
        BayesianBinning(**options).fit(*problem())


# --- splines ----------------------------------------------------------------------------------------------------


def test_spline_is_the_slope_of_the_cumulative_gap() -> None:
    """The coefficients by a dense least-squares fit of truncated powers with natural ends, not of knot values."""
    z, y = problem(400)
    p = special.softmax(z, axis=1)
    order = p.max(1).argsort()
    confidence, hit = p.max(1)[order], (p.argmax(1) == y)[order]
    share = np.arange(1, len(y) + 1) / len(y)
    knots = np.linspace(0, 1, 6)

    def natural(x: NDArray) -> NDArray:
        d = [(np.maximum(x - k, 0) ** 3 - np.maximum(x - 1, 0) ** 3) / (1 - k) for k in knots[:-1]]
        return np.column_stack([np.ones_like(x), x] + [d[j] - d[-1] for j in range(4)])

    coefficients, *_ = np.linalg.lstsq(natural(share), np.cumsum(hit - confidence) / len(y), rcond=None)
    slope = (natural(share + 1e-6) - natural(share - 1e-6)) @ coefficients / 2e-6
    fitted = SplineCalibration().fit(z, y)
    np.testing.assert_allclose(fitted.confidences_, confidence)
    np.testing.assert_allclose(fitted.accuracies_[1:-1], (confidence + slope)[1:-1], atol=1e-6)


def test_top_confidence_follows_the_spline_and_the_order_stays() -> None:
    z, y = problem(2000)
    fitted = SplineCalibration().fit(z, y)
    new, _ = problem(500, seed=1)
    wanted = np.interp(special.softmax(new, axis=1).max(1), fitted.confidences_, fitted.accuracies_)
    got = fitted.predict_proba(new)
    reachable = (wanted > 0.27) & (wanted < 1)
    assert reachable.mean() > 0.8
    np.testing.assert_allclose(got.max(1)[reachable], wanted[reachable], atol=1e-6)
    np.testing.assert_array_equal(got.argsort(1), new.argsort(1))


def test_spline_repairs_a_known_distortion() -> None:
    """Confidences whose accuracy is c - .3 c (1 - c): on other data the ECE falls to the noise floor."""

    def draw(seed: int, n: int = 10_000) -> tuple[NDArray, NDArray]:
        rng = np.random.default_rng(seed)
        c = rng.uniform(0.6, 0.99, size=n)
        wrong = rng.random(n) > c - 0.3 * c * (1 - c)
        return np.column_stack([np.log(c / (1 - c)), np.zeros(n)]), wrong.astype(int)

    z, y = draw(1)
    before = metrics.expected_calibration_error(special.softmax(z, axis=1), y)
    after = metrics.expected_calibration_error(SplineCalibration().fit(*draw(0)).predict_proba(z), y)
    assert before > 0.04
    assert after < 0.015


def test_spline_basis_is_natural() -> None:
    """What the calibrator relies on: scipy's natural spline is linear in its values at the knots."""
    knots, values = np.linspace(0, 1, 6), np.random.default_rng(0).normal(size=6)
    x = np.linspace(0, 1, 50)
    basis = interpolate.CubicSpline(knots, np.eye(6), bc_type="natural")(x)
    np.testing.assert_allclose(basis @ values, interpolate.CubicSpline(knots, values, bc_type="natural")(x), atol=1e-12)
