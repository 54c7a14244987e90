"""What calibrators make of unusual input: any scale, impossible classes, rows that look like probabilities, sklearn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import optimize, special
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from gence.calibration import CALIBRATORS, Calibrator, HistogramBinning, TemperatureScaling, VectorScaling
from gence.metrics import negative_log_likelihood

K = 4
NEED_FINITE = ("vector", "matrix", "dirichlet")
NEED_POSSIBLE_LABELS = ("temperature", "binwise", "entropy", "ensemble")
PUBLISHED_RANGE = ("temperature_ece", "ats")


def problem(n: int = 200, n_classes: int = K, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Logits twice too large."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, n_classes))
    return 2 * logits, (logits + rng.gumbel(size=logits.shape)).argmax(1)


def masked_problem(n: int = 200, seed: int = 0) -> tuple[NDArray, NDArray, NDArray]:
    """The same with a third of the classes impossible, never all and never the label's; and which."""
    z, y = problem(n, seed=seed)
    impossible = np.random.default_rng([seed, 1]).random(z.shape) < 1 / 3
    impossible[np.arange(n), y] = False
    return np.where(impossible, -np.inf, z), y, impossible


def quick(name: str) -> Calibrator:
    made = CALIBRATORS[name]()
    return made.set_params(n_steps=30) if "n_steps" in made.get_params() else made


def best_of_torch(z: NDArray, y: NDArray) -> float:
    """The temperature of the lowest cross-entropy of torch, by a search over log T without derivatives."""
    logits, labels = torch.as_tensor(z, dtype=torch.float64), torch.as_tensor(y)

    def nll(log_t: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / math.exp(log_t), labels))

    start = min(np.linspace(-25, 25, 101), key=nll)
    found = optimize.minimize_scalar(nll, bounds=(start - 1, start + 1), method="bounded", options={"xatol": 1e-9})
    return math.exp(found.x)


@pytest.fixture(autouse=True)
def no_warnings_but_expected() -> Iterator[None]:
    """A search that says "no minimum" where there is one fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        yield


# --- scale ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e4, 100.0, 7.3, 1e-3, 1e-8])
def test_temperature_follows_the_scale_of_the_logits(scale: float) -> None:
    z, y = problem()
    one, scaled = TemperatureScaling().fit(z, y), TemperatureScaling().fit(scale * z, y)
    assert one.temperature_ == pytest.approx(best_of_torch(z, y), rel=1e-6)
    assert scaled.temperature_ == pytest.approx(scale * one.temperature_, rel=1e-9)
    assert scaled.converged_
    nll = [negative_log_likelihood(c.predict_proba(s * z), y) for c, s in ((one, 1), (scaled, scale))]
    assert nll[1] == pytest.approx(nll[0], abs=1e-9)


@pytest.mark.parametrize("scale", [1e4, 100.0, 1e-3])
@pytest.mark.parametrize("name", [name for name in CALIBRATORS if name != "none"])
def test_every_calibrator_follows_the_scale_of_the_logits(name: str, scale: float) -> None:
    z, y = problem()
    one, scaled = quick(name).fit(z, y), quick(name)
    if name in PUBLISHED_RANGE:
        with pytest.warns(UserWarning, match=r"published range \(0\.1, 10\.0\).*divided by unit_"):
            scaled.fit(scale * z, y)
    else:
        scaled.fit(scale * z, y)
    assert (one.unit_, scaled.unit_) == (1.0, scale)
    np.testing.assert_allclose(scaled.predict_proba(scale * z), one.predict_proba(z), atol=1e-6)
    if hasattr(one, "temperature"):
        np.testing.assert_allclose(scaled.temperature(scale * z), scale * one.temperature(z), rtol=1e-6)
    if hasattr(one, "temperature_"):
        assert scaled.temperature_ == pytest.approx(scale * one.temperature_, rel=1e-9)


@pytest.mark.parametrize("scale", [1e4, 1.0, 1e-4])
@pytest.mark.parametrize("right", [True, False])
def test_there_is_a_warning_where_there_is_no_minimum_at_any_scale(right: bool, scale: float) -> None:
    """All right: near certainty. No better than chance: near 1/K."""
    z, _ = problem()
    y = z.argmax(1) if right else z.argmin(1)
    with pytest.warns(ConvergenceWarning, match="no minimum at any temperature"):
        fitted = TemperatureScaling().fit(scale * z, y)
    probs = fitted.predict_proba(scale * z)
    assert not fitted.converged_
    assert (np.median(probs.max(1)) > 0.999) == right
    assert (probs.max() < 0.6) == (not right)


def test_a_minimum_far_out_is_found_without_a_warning() -> None:
    """One sample in 1,000 wrong by 1e-3, the others right by 2; 501 of 1,000 right by 2, the others wrong by 2."""
    z = np.tile([2.0, 0.0], (1000, 1))
    z[0] = [0.0, 1e-3]
    sharp = TemperatureScaling().fit(z, np.zeros(1000, dtype=int))
    assert sharp.temperature_ == pytest.approx(best_of_torch(z, np.zeros(1000, dtype=int)), rel=1e-5)
    z, y = np.tile([2.0, 0.0], (1000, 1)), (np.arange(1000) >= 501).astype(int)
    assert TemperatureScaling().fit(z, y).temperature_ == pytest.approx(2 / math.log(501 / 499), rel=1e-9)


# --- probabilities or logits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[[0.0, 1.0]], [[0.3, 0.7]], [[0.0, 1.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.6]]])
def test_logits_that_look_like_probabilities_are_logits_when_predicting(rows: list) -> None:
    fitted = TemperatureScaling().fit([[4.0, 0.0]] * 4, [0, 0, 0, 1])  # T = 4 / log 3
    expected = [1 / (1 + 3 ** ((b - a) / 4)) for a, b in rows]
    np.testing.assert_allclose(fitted.predict_proba(rows)[:, 0], expected, rtol=1e-9)


def test_logits_that_look_like_probabilities_are_fitted_when_one_says_so() -> None:
    z, y = [[0.0, 1.0], [0.3, 0.7], [0.9, 0.1]], [1, 0, 0]
    with pytest.raises(ValueError, match="Are they logits after all\\? Add 1"):
        TemperatureScaling().fit(z, y)
    assert TemperatureScaling().fit(np.add(z, 1), y).temperature_ == pytest.approx(best_of_torch(z, y), rel=1e-6)


# --- impossible classes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CALIBRATORS if name not in NEED_FINITE])
def test_impossible_classes(name: str) -> None:
    """A temperature leaves them impossible and is that of the other classes; a very low logit gives the same."""
    z, y, impossible = masked_problem()
    fitted = quick(name).fit(z, y)
    probs = fitted.predict_proba(z)
    assert np.isfinite(probs).all()
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-12)
    if fitted.keeps_order:
        assert (probs[impossible] == 0).all()
        np.testing.assert_array_equal(probs.argmax(1), z.argmax(1))
    if hasattr(fitted, "temperature_") and name != "temperature_ece":
        assert fitted.temperature_ == pytest.approx(best_of_torch(z, y), rel=1e-6)
    if name not in ("parameterized", "ensemble", "temperature", "binwise"):  # these treat a low logit in other ways
        low = np.where(impossible, -1e4, z)
        np.testing.assert_allclose(quick(name).fit(low, y).predict_proba(low), probs, atol=1e-6)


def test_logarithms_of_probabilities_with_zeros() -> None:
    """As trees give them: one sample has p = 0 for all but its class."""
    p = np.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.4, 0.0]])
    with np.errstate(divide="ignore"):
        z = np.log(p)
    y = np.array([0, 0, 1, 1])
    assert TemperatureScaling().fit(z, y).temperature_ == pytest.approx(best_of_torch(z, y), rel=1e-6)


@pytest.mark.parametrize("name", NEED_FINITE)
def test_weights_need_finite_logits(name: str) -> None:
    z, y, _ = masked_problem()
    fitted = CALIBRATORS[name]().fit(*problem())
    for call in (lambda: CALIBRATORS[name]().fit(z, y), lambda: fitted.predict_proba(z)):
        with pytest.raises(ValueError, match=r"-inf, an impossible class.*Use TemperatureScaling, or clip"):
            call()


@pytest.mark.parametrize("name", [name for name in CALIBRATORS if name not in NEED_FINITE])
def test_impossible_labels(name: str) -> None:
    """Their NLL is infinite at every temperature; who minimises something else does not mind."""
    z, y = problem()
    z[[3, 7], y[[3, 7]]] = -np.inf
    if name in NEED_POSSIBLE_LABELS:
        with pytest.raises(ValueError, match="2 of 200 labels have the logit -inf, the first in row 3"):
            quick(name).fit(z, y)
    else:
        np.testing.assert_allclose(quick(name).fit(z, y).predict_proba(z).sum(1), 1, atol=1e-12)


# --- scikit-learn -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALIBRATORS)
def test_cross_validation(name: str) -> None:
    """The out-of-fold predictions of a plain loop."""
    z, y = problem(240, 3)
    folds = StratifiedKFold(3)
    expected = np.empty_like(z)
    for train, test in folds.split(z, y):
        expected[test] = quick(name).fit(z[train], y[train]).predict_proba(z[test])
    assert is_classifier(quick(name))
    got = cross_val_predict(quick(name), z, y, cv=3, method="predict_proba")  # the same folds, for a classifier
    np.testing.assert_allclose(got, expected, atol=1e-9)
    np.testing.assert_array_equal(cross_val_predict(quick(name), z, y, cv=3), expected.argmax(1))


def test_scores_pipelines_and_searches() -> None:
    z, y = problem(240, 3)
    of_fold = [
        log_loss(y[test], TemperatureScaling().fit(z[train], y[train]).predict_proba(z[test]))
        for train, test in StratifiedKFold(3).split(z, y)
    ]
    np.testing.assert_allclose(
        cross_val_score(TemperatureScaling(), z, y, cv=3, scoring="neg_log_loss"), [-v for v in of_fold]
    )
    piped = make_pipeline(FunctionTransformer(np.log), TemperatureScaling()).fit(special.softmax(z, axis=1), y)
    assert piped[-1].temperature_ == pytest.approx(TemperatureScaling().fit(z, y).temperature_, rel=1e-9)
    assert piped.score(special.softmax(z, axis=1), y) == (z.argmax(1) == y).mean()
    assert piped.classes_.tolist() == [0, 1, 2]
    search = GridSearchCV(HistogramBinning(), {"n_bins": [1, 10]}, scoring="neg_brier_score", cv=3).fit(z, y)
    assert search.best_params_ == {"n_bins": 10}


def test_cross_validation_without_a_class_is_not_silent() -> None:
    """scikit-learn renumbers the labels 0 and 2 to 0 and 1 there, which no calibrator can see."""
    z, y = problem(240, 3)
    with pytest.raises(IndexError), pytest.warns(RuntimeWarning, match="Number of classes"):
        cross_val_predict(TemperatureScaling(), z, np.where(y == 1, 2, y), method="predict_proba")


# --- random relatives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", range(60))
def test_random_relatives(case: int) -> None:
    """Any precision, scale, size, offset and mask: as without scale and offset in float64, or refused for a reason."""
    rng = np.random.default_rng([case, 14])
    name = list(CALIBRATORS)[case % len(CALIBRATORS)]
    n, k, power = int(rng.integers(60, 250)), int(rng.integers(2, 12)), int(rng.choice([-4, -3, -2, 0, 1, 2, 3, 4, 5]))
    dtype = [torch.float64, torch.float32, torch.float16, torch.bfloat16][rng.integers(4)]
    z, y = problem(n, k, seed=case)
    y[:k] = np.arange(k)
    if masked := rng.random() < 0.3:
        impossible = rng.random(z.shape) < 0.3
        impossible[np.arange(n), y] = False
        z[impossible] = -np.inf
    half = dtype in (torch.float16, torch.bfloat16)
    z = torch.tensor(z).to(dtype).double().numpy()  # rounded before it is scaled
    scale = 10.0 ** (0 if half else power)
    offset = rng.choice([0.0, 30.0]) * scale if dtype == torch.float64 else 0.0
    given = torch.tensor(scale * z + offset).to(dtype)
    if masked and name in NEED_FINITE:
        with pytest.raises(ValueError, match="-inf, an impossible class"):
            quick(name).fit(given, y)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)  # entropy: few samples
        expected, got = quick(name).fit(z, y), quick(name).fit(given, y)
    if name == "none":
        np.testing.assert_allclose(
            got.predict_proba(given), special.softmax(given.double().numpy(), axis=1), atol=1e-12
        )
        return
    assert expected.unit_ == 1
    assert got.unit_ == scale
    tolerance = {"vector": 1e-2, "parameterized": 1e-3}.get(name, 1e-4 if dtype == torch.float32 else 1e-5)
    if name in ("histogram", "temperature_ece", "ats", "bbq", "isotonic", "isotonic_shared"):
        # A value that is rounded across an edge of a bin moves it by a sample.
        assert np.mean(np.abs(got.predict_proba(given) - expected.predict_proba(z)) > tolerance) < 0.05
    else:
        np.testing.assert_allclose(got.predict_proba(given), expected.predict_proba(z), atol=tolerance)
    if name == "temperature":
        assert got.temperature_ == pytest.approx(best_of_torch(given.double().numpy(), y), rel=1e-5)


BAD = {
    "NaN": (lambda z: np.where(z > z.max() - 1, np.nan, z), "contain NaN or infinite values: the largest of row"),
    "+inf": (lambda z: np.where(z > z.max() - 1, np.inf, z), "the largest of row \\d+ is inf"),
    "a row of -inf": (lambda z: np.where(np.arange(len(z))[:, None] == 5, -np.inf, z), "the largest of row 5 is -inf"),
    "three axes": (lambda z: z[:, :, None], r"must have shape \(N, K\) with N >= 1 and K >= 2, but got"),
    "one class": (lambda z: z[:, :1], r"K >= 2, but got"),
    "fewer classes": (lambda z: z[:, :2], r"must have the 4 classes of fit, but have 2"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
@pytest.mark.parametrize("make", [TemperatureScaling, VectorScaling])
def test_refusals_are_clear_at_every_scale(make: type, scale: float, kind: str) -> None:
    spoil, message = BAD[kind]
    z, y = problem()
    fitted = make().fit(scale * z, y)
    with pytest.raises(ValueError, match=message):
        fitted.predict_proba(spoil(scale * z))
