from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import references
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from gence.metrics import (
    METRICS,
    adaptive_calibration_error,
    brier_score,
    classwise_calibration_error,
    error_rate,
    evaluate,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_curve,
)

CALIBRATION_ERRORS = [expected_calibration_error, adaptive_calibration_error, classwise_calibration_error]


def random_problem(n: int = 400, n_classes: int = 5, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Probabilities that know the label somewhat."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    logits = 1.5 * rng.normal(size=(n, n_classes)) + np.eye(n_classes)[labels]
    probs = np.exp(logits)
    return probs / probs.sum(1, keepdims=True), labels


def with_confidence(confidence: Sequence[float], hit: Sequence[bool], n_classes: int = 30) -> tuple[NDArray, list[int]]:
    """Probabilities with these top confidences (class 0), the rest spread evenly, and labels that hit or miss."""
    c = np.asarray(confidence, dtype=float)[:, None]
    return np.hstack([c, np.repeat((1 - c) / (n_classes - 1), n_classes - 1, axis=1)]), [0 if h else 1 for h in hit]


def top(probs: NDArray, labels: NDArray) -> tuple[list[float], list[float]]:
    return probs.max(1).tolist(), (probs.argmax(1) == labels).astype(float).tolist()


# --- pinned examples: letters as in shared/anchors/code.md, section 3 -------------------------------------------


def test_a_confidence_of_exactly_1_belongs_to_the_last_bin() -> None:
    probs, labels = with_confidence([0.95, 1.0, 0.40], [True, False, False])
    assert expected_calibration_error(probs, labels, n_bins=10) == pytest.approx(0.45, abs=1e-12)


def test_b_bins_are_right_closed() -> None:
    probs, labels = with_confidence([0.5, 0.6, 0.45], [True, False, False])
    assert expected_calibration_error(probs, labels, n_bins=2) == pytest.approx(0.65 / 3, abs=1e-12)  # not .1833


def test_c_equal_mass_bins_lose_no_sample() -> None:
    probs, labels = with_confidence([0.4, 0.5, 0.6, 0.7, 0.8, 0.9], [False, True] * 3)
    assert adaptive_calibration_error(probs, labels, n_bins=3) == pytest.approx(0.55 / 3, abs=1e-12)  # not .1167


@pytest.mark.parametrize("metric", [expected_calibration_error, adaptive_calibration_error])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5]])
def test_d_equal_confidences_share_a_bin(metric: Callable, order: list[int]) -> None:
    probs, labels = with_confidence([0.9] * 6, [True, True, True, False, False, False])
    assert metric(probs[order], np.array(labels)[order]) == pytest.approx(0.4, abs=1e-12)  # not 0 or .4667


def test_e_classwise_averages_over_classes_without_a_label_too() -> None:
    probs, labels = np.tile([0.7, 0.2, 0.1], (4, 1)), [0, 0, 1, 1]
    # |.7 - .5|, |.2 - .5| and |.1 - 0|; over the two classes with labels it would be .25
    assert classwise_calibration_error(probs, labels) == pytest.approx(0.2, abs=1e-12)


def test_g_one_equal_mass_bin_holds_all_samples() -> None:
    probs, labels = with_confidence([0.4, 0.9, 0.95], [False, True, False])
    assert adaptive_calibration_error(probs, labels, n_bins=1) == pytest.approx(1.25 / 3, abs=1e-12)  # not .2833


# --- independent oracles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bins", [1, 2, 10, 15, 20])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ece_equals_torchmetrics_away_from_the_edges(n_bins: int, seed: int) -> None:
    probs, labels = random_problem(seed=seed)
    oracle = multiclass_calibration_error(
        torch.as_tensor(probs), torch.as_tensor(labels), num_classes=5, n_bins=n_bins, norm="l1"
    )
    assert expected_calibration_error(probs, labels, n_bins) == pytest.approx(float(oracle), abs=1e-6)


def test_proper_scores_and_error_equal_scikit_learn() -> None:
    probs, labels = random_problem()
    assert error_rate(probs, labels) == pytest.approx(1 - accuracy_score(labels, probs.argmax(1)), abs=1e-12)
    assert negative_log_likelihood(probs, labels) == pytest.approx(log_loss(labels, probs), abs=1e-12)
    oracle = brier_score_loss(labels, probs, labels=range(5), scale_by_half=False)
    assert brier_score(probs, labels) == pytest.approx(oracle, abs=1e-12)


@pytest.mark.parametrize("n_bins", [1, 3, 7, 15, 1000])
@pytest.mark.parametrize("decimals", [1, 2, 16])
def test_calibration_errors_equal_plain_loops(n_bins: int, decimals: int) -> None:
    """Rounded confidences make ties, also across the cuts of equal-mass bins; they stay off the equal-width edges."""
    probs, labels = random_problem(n=101)
    confidence = np.round(probs.max(1), decimals).clip(0.3, 0.9) + (0.0123 if decimals < 16 else 0)
    probs, labels = with_confidence(confidence.tolist(), (probs.argmax(1) == labels).tolist())
    c, hit = top(probs, np.array(labels))
    assert expected_calibration_error(probs, labels, n_bins) == pytest.approx(references.ece(c, hit, n_bins), abs=1e-12)
    assert adaptive_calibration_error(probs, labels, n_bins) == pytest.approx(
        references.adaptive_ece(c, hit, n_bins), abs=1e-12
    )


@pytest.mark.parametrize("n_bins", [1, 2, 15])
def test_classwise_equals_the_mean_of_binary_errors(n_bins: int) -> None:
    probs, labels = random_problem(n=150)
    one_class = [references.ece(probs[:, k].tolist(), (labels == k).tolist(), n_bins) for k in range(5)]
    assert classwise_calibration_error(probs, labels, n_bins) == pytest.approx(math.fsum(one_class) / 5, abs=1e-12)


def test_adaptive_bins_hold_equally_many_samples() -> None:
    probs, labels = random_problem(n=300)
    assert reliability_curve(probs, labels, 15, strategy="quantile").count.tolist() == [20] * 15


# --- the reliability curve --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bins", [1, 4, 15, 600])
@pytest.mark.parametrize(
    ("strategy", "metric"), [("uniform", expected_calibration_error), ("quantile", adaptive_calibration_error)]
)
def test_curve_is_the_calibration_error_bin_by_bin(strategy: str, metric: Callable, n_bins: int) -> None:
    probs, labels = random_problem()
    curve = reliability_curve(probs, labels, n_bins, strategy=strategy)
    assert curve.expected_calibration_error == pytest.approx(metric(probs, labels, n_bins), abs=1e-12)
    assert {len(v) for v in (curve.lower, curve.upper, curve.count, curve.confidence, curve.accuracy)} == {n_bins}
    assert curve.count.sum() == len(labels)
    confidence, hit = (np.array(v) for v in top(probs, labels))
    for b in range(n_bins):
        low_side = confidence >= curve.lower[b] if b == 0 else confidence > curve.lower[b]
        members = low_side & (confidence <= curve.upper[b])
        assert curve.count[b] == members.sum()
        if members.any():
            assert curve.confidence[b] == pytest.approx(confidence[members].mean(), abs=1e-12)
            assert curve.accuracy[b] == pytest.approx(hit[members].mean(), abs=1e-12)
        else:
            assert np.isnan([curve.confidence[b], curve.accuracy[b]]).all()


def test_curve_of_tied_confidences() -> None:
    probs, labels = with_confidence([0.8, 0.8, 0.9], [True, False, True])
    curve = reliability_curve(probs, labels, 5, strategy="quantile")
    assert curve.count.tolist() == [2, 0, 0, 0, 1]
    assert curve.expected_calibration_error == pytest.approx(0.7 / 3, abs=1e-12)


@pytest.mark.parametrize("n_bins", [10, 15, 20])
def test_every_edge_belongs_to_the_bin_below(n_bins: int) -> None:
    """For the default of 15 bins, the paper's 20, and 10: confidences of exactly k/B."""
    for k in range(1, n_bins + 1):
        curve = reliability_curve(*with_confidence([k / n_bins], [True]), n_bins)
        assert curve.count.argmax() == k - 1


def test_every_edge_belongs_to_the_bin_below_for_any_number_of_bins() -> None:
    for n_bins in range(2, 26):
        for k in range(2, n_bins + 1):
            curve = reliability_curve(*with_confidence([k / n_bins], [True], n_classes=60), n_bins)
            assert curve.count.argmax() == k - 1, (k, n_bins)


# --- edge cases -------------------------------------------------------------------------------------------------


def test_probability_exactly_0_is_in_the_first_bin() -> None:
    """Class 1 has probability 0 twice and is the label once: a gap of 1/2 that must not be dropped."""
    probs, labels = [[1.0, 0.0], [1.0, 0.0]], [0, 1]
    assert classwise_calibration_error(probs, labels) == pytest.approx(0.5, abs=1e-12)
    assert negative_log_likelihood(probs, labels) == math.inf


def test_certain_and_right_or_wrong() -> None:
    certain = np.eye(3)
    assert evaluate(certain, [0, 1, 2]) == dict.fromkeys(METRICS, 0.0)
    wrong = evaluate(certain, [1, 2, 0])
    assert wrong == {"error": 1.0, "nll": math.inf, "brier": 2.0, "ece": 1.0, "adaece": 1.0} | {
        "classwise_ece": pytest.approx(2 / 3)
    }


@pytest.mark.parametrize("n_bins", [1, 2, 15])
@pytest.mark.parametrize("hit", [True, False])
def test_one_sample(n_bins: int, hit: bool) -> None:
    probs, labels = with_confidence([0.7], [hit])
    for metric in (expected_calibration_error, adaptive_calibration_error):
        assert metric(probs, labels, n_bins) == pytest.approx(abs(0.7 - hit), abs=1e-12)


def test_one_bin_is_mean_confidence_against_accuracy() -> None:
    probs, labels = random_problem()
    expected = abs(probs.max(1).mean() - (probs.argmax(1) == labels).mean())
    for metric in (expected_calibration_error, adaptive_calibration_error):
        assert metric(probs, labels, 1) == pytest.approx(expected, abs=1e-12)


def test_more_bins_than_samples_puts_each_in_its_own() -> None:
    probs, labels = with_confidence([0.31, 0.52, 0.73, 0.94], [True, False, True, False])
    expected = (0.69 + 0.52 + 0.27 + 0.94) / 4
    for metric in (expected_calibration_error, adaptive_calibration_error):
        assert metric(probs, labels, 50) == pytest.approx(expected, abs=1e-12)


def test_ties_for_the_top_go_to_the_lower_class() -> None:
    assert error_rate([[0.5, 0.5], [0.5, 0.5]], [0, 1]) == 0.5


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_samples_does_not_matter(name: str) -> None:
    probs, labels = random_problem()
    probs = np.round(probs, 1) + 1e-3  # many ties
    probs /= probs.sum(1, keepdims=True)
    order = np.random.default_rng(1).permutation(len(labels))
    assert METRICS[name](probs[order], labels[order]) == pytest.approx(METRICS[name](probs, labels), abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_renamed_classes_do_not_matter(name: str) -> None:
    probs, labels = random_problem()
    order = np.array([3, 0, 4, 2, 1])
    renamed = METRICS[name](probs[:, order], order.argsort()[labels])
    assert renamed == pytest.approx(METRICS[name](probs, labels), abs=1e-12)


def test_evaluate_is_every_metric_at_its_defaults() -> None:
    probs, labels = random_problem()
    assert evaluate(probs, labels) == {
        "error": error_rate(probs, labels),
        "nll": negative_log_likelihood(probs, labels),
        "brier": brier_score(probs, labels),
        "ece": expected_calibration_error(probs, labels, 15),
        "adaece": adaptive_calibration_error(probs, labels, 15),
        "classwise_ece": classwise_calibration_error(probs, labels, 15),
    }


# --- kinds of input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_tensors_and_arrays_agree(dtype: torch.dtype) -> None:
    """Multiples of 1/64 are exact in every format; a tensor that requires a gradient is read all the same."""
    shares = np.random.default_rng(0).multinomial(64, [0.5, 0.3, 0.2], size=50)
    labels = np.random.default_rng(1).integers(3, size=50)
    tensor = torch.as_tensor(shares / 64).to(dtype).requires_grad_()
    expected = evaluate(shares / 64, labels)
    for these in (torch.as_tensor(labels), labels.astype(np.uint8), labels.tolist()):
        assert evaluate(tensor, these) == expected
    assert evaluate((shares / 64).tolist(), labels) == expected


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float16,
        torch.bfloat16,
        torch.float32,
    ],
    ids=str,
)
def test_softmax_in_low_precision_is_accepted(dtype: torch.dtype) -> None:
    """Its rows sum to 1 only up to the format's own rounding."""
    logits = torch.randn(200, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels = torch.arange(200) % 10
    exact = evaluate(logits.double().softmax(1), labels)
    got = evaluate(logits.softmax(1), labels)
    for name in ("nll", "brier"):  # the others jump where a probability crosses an edge
        assert got[name] == pytest.approx(exact[name], abs=torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        ([[2.0, -1.0], [0.5, 0.5]], [0, 1], r"Logits\? Apply softmax"),
        ([[0.3, 0.3], [0.5, 0.5]], [0, 1], r"sum to 1.*rows sum to 0\.6\.\.1"),
        ([[0.9, 0.8], [0.5, 0.5]], [0, 1], "softmax"),
        ([[1.5, -0.5], [0.5, 0.5]], [0, 1], r"range from -0\.5 to 1\.5"),
        ([[math.nan, 1.0], [0.5, 0.5]], [0, 1], "NaN"),
        ([[math.inf, 0.0], [0.5, 0.5]], [0, 1], "infinite"),
        ([0.5, 0.5], [0, 1], r"shape \(N, K\).*got \(2,\)"),
        (np.empty((0, 2)), np.empty(0, dtype=int), r"N, K >= 1"),
        ([[0.5, 0.5], [0.5, 0.5]], [0], r"shape \(2,\) to match probs"),
        ([[0.5, 0.5], [0.5, 0.5]], [[0], [1]], r"got \(2, 1\)"),
        ([[0.5, 0.5], [0.5, 0.5]], [0, 2], r"0\.\.1.*range from 0 to 2"),
        ([[0.5, 0.5], [0.5, 0.5]], [-1, 1], "range from -1"),
        ([[0.5, 0.5], [0.5, 0.5]], [0.0, 1.0], "integer class indices"),
        ([[0.5, 0.5], [0.5, 0.5]], [False, True], "integer class indices"),
    ],
)
def test_bad_input_says_what_is_wrong(name: str, probs: object, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        METRICS[name](probs, labels)


@pytest.mark.parametrize("n_bins", [0, -1])
@pytest.mark.parametrize("function", [*CALIBRATION_ERRORS, reliability_curve])
def test_at_least_one_bin(function: Callable, n_bins: int) -> None:
    with pytest.raises(ValueError, match=f"n_bins must be at least 1, but got {n_bins}"):
        function([[0.9, 0.1]], [0], n_bins=n_bins)


def test_unknown_strategy() -> None:
    with pytest.raises(ValueError, match="'uniform' or 'quantile', but got 'equal'"):
        reliability_curve([[0.9, 0.1]], [0], strategy="equal")
