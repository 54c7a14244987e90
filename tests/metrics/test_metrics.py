from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import references
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, log_loss
from statsmodels.stats.proportion import proportion_confint
from torchmetrics.functional.classification import multiclass_calibration_error

from gence.metrics import (
    METRICS,
    OOD_SCORES,
    ReliabilityCurve,
    adaptive_calibration_error,
    brier_score,
    calibration_error,
    calibration_refinement,
    classwise_calibration_error,
    debiased_calibration_error,
    error_rate,
    evaluate,
    expected_calibration_error,
    kolmogorov_smirnov_error,
    maximum_calibration_error,
    negative_log_likelihood,
    ood_detection,
    reliability_curve,
)

BINNED = {
    "ece": expected_calibration_error,
    "adaece": adaptive_calibration_error,
    "classwise_ece": classwise_calibration_error,
}
COMPAT = {name: partial(metric, compat="focal_calibration") for name, metric in BINNED.items()}
OTHERS = {
    "mce": maximum_calibration_error,
    "ks": kolmogorov_smirnov_error,
    "debiased": debiased_calibration_error,
    "debiased uniform": partial(debiased_calibration_error, strategy="uniform"),
    "calibration brier": lambda p, y, **o: calibration_refinement(p, y, "brier", **o).calibration,
    "refinement brier": lambda p, y, **o: calibration_refinement(p, y, "brier", **o).refinement,
    "calibration nll": lambda p, y, **o: calibration_refinement(p, y, "nll", **o).calibration,
    "refinement nll": lambda p, y, **o: calibration_refinement(p, y, "nll", **o).refinement,
}
EVERY = METRICS | OTHERS | {f"{name} compat": metric for name, metric in COMPAT.items()}


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
    assert expected_calibration_error(probs, labels, n_bins) == pytest.approx(float(oracle), abs=1e-6)  # float32


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


NETCAL = "netcal.metrics"
UNCERTAINTY = "calibration"  # the package uncertainty-calibration


@pytest.mark.parametrize("n_bins", [2, 10, 15])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ece_and_mce_equal_netcal_away_from_the_edges(n_bins: int, seed: int) -> None:
    netcal = pytest.importorskip(NETCAL)
    probs, labels = random_problem(seed=seed)
    for metric, oracle in ((expected_calibration_error, netcal.ECE), (maximum_calibration_error, netcal.MCE)):
        assert metric(probs, labels, n_bins) == pytest.approx(oracle(n_bins).measure(probs, labels), abs=1e-10)


@pytest.mark.parametrize("n_bins", [1, 4, 15])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_errors_equal_uncertainty_calibration(n_bins: int, seed: int) -> None:
    """For equal mass only where the number of bins divides N: elsewhere the bins are cut at other ranks."""
    oracle = pytest.importorskip(UNCERTAINTY)
    probs, labels = random_problem(n=300, seed=seed)
    width = {"num_bins": n_bins, "binning_scheme": oracle.get_equal_prob_bins}
    mass = {"num_bins": n_bins, "binning_scheme": oracle.get_equal_bins}
    ce = oracle.utils.lower_bound_scaling_ce
    expected = {
        expected_calibration_error: ce(probs, labels, p=1, debias=False, mode="top-label", **width),
        adaptive_calibration_error: ce(probs, labels, p=1, debias=False, mode="top-label", **mass),
        classwise_calibration_error: ce(probs, labels, p=1, debias=False, mode="marginal", **width),
        debiased_calibration_error: ce(probs, labels, p=2, debias=True, mode="top-label", **mass),
    }
    for metric, value in expected.items():
        assert metric(probs, labels, n_bins) == pytest.approx(value, abs=1e-10)


def test_uncertainty_calibration_counts_bins_of_one_sample_as_free_of_error() -> None:
    """.3^2 - .24 / 9 in one bin of 10 and nothing known of the other: it divides by 11, gence by 10."""
    oracle = pytest.importorskip(UNCERTAINTY)
    probs, labels = with_confidence([0.9] * 10 + [0.4], [True] * 6 + [False] * 4 + [True])
    theirs = oracle.utils.lower_bound_scaling_ce(
        probs, np.array(labels), p=2, num_bins=2, binning_scheme=oracle.get_equal_prob_bins, mode="top-label"
    )
    square = 0.3**2 - 0.6 * 0.4 / 9
    assert theirs == pytest.approx(math.sqrt(square * 10 / 11), abs=1e-10)
    ours = debiased_calibration_error(probs, labels, 2, strategy="uniform")
    assert ours == pytest.approx(math.sqrt(square), abs=1e-10)


DISAGREEMENTS = {  # confidences, hits, bins, gence, torchmetrics, netcal
    # torchmetrics puts a confidence of 1 in a bin of its own.
    "A": ([0.95, 1.0, 0.4], [True, False, False], 10, 0.45, 1.45 / 3, 0.45),
    # Both close bins on the left, so that .5 goes up.
    "B": ([0.5, 0.6, 0.45], [True, False, False], 2, 0.65 / 3, 0.55 / 3, 0.55 / 3),
}


@pytest.mark.parametrize("letter", DISAGREEMENTS)
def test_where_libraries_disagree_about_ece(letter: str) -> None:
    netcal = pytest.importorskip(NETCAL)
    confidence, hit, n_bins, ours, torchmetrics, theirs = DISAGREEMENTS[letter]
    probs, labels = with_confidence(confidence, hit)
    assert expected_calibration_error(probs, labels, n_bins) == pytest.approx(ours, abs=1e-12)
    got = multiclass_calibration_error(torch.as_tensor(probs), torch.tensor(labels), 30, n_bins, "l1")
    assert float(got) == pytest.approx(torchmetrics, abs=1e-6)
    binary = np.array(confidence), np.array(hit, dtype=int)  # two labels of 30 would be taken for a binary problem
    assert netcal.ECE(n_bins).measure(*binary) == pytest.approx(theirs, abs=1e-6)


def test_netcal_has_no_equal_mass_bins_for_ties() -> None:
    """Example D: six confidences of .9 leave bins without width."""
    netcal = pytest.importorskip(NETCAL)
    with pytest.raises(ValueError):
        netcal.ECE(10, equal_intervals=False).measure(np.full(6, 0.9), np.array([1, 1, 1, 0, 0, 0]))


def test_torchmetrics_takes_logits_between_0_and_1_for_probabilities() -> None:
    """Example F; gence takes only probabilities, and says so."""
    logits, labels = torch.tensor([[0.9, 0.2]]), torch.tensor([0])
    as_they_are = multiclass_calibration_error(logits, labels, num_classes=2, norm="l1")
    after_softmax = multiclass_calibration_error(logits.softmax(1), labels, num_classes=2, norm="l1")
    assert float(as_they_are) == pytest.approx(0.1, abs=1e-6)
    assert float(after_softmax) == pytest.approx(1 / (1 + math.exp(0.7)), abs=1e-6)
    with pytest.raises(ValueError, match="Logits"):
        expected_calibration_error(logits, labels)


# --- compat="focal_calibration" ---------------------------------------------------------------------------------


def focal_calibration_error(confidence: torch.Tensor, hit: torch.Tensor, edges: Sequence[float]) -> torch.Tensor:
    """What the reference code does: float32, bins (lo, hi], weights n_b / N, and what lies in no bin is lost."""
    total = torch.zeros(1)
    for b in range(len(edges) - 1):
        members = torch.nonzero((confidence > edges[b]) & (confidence <= edges[b + 1]))[:, 0]
        if len(members):
            share = torch.tensor(len(members) / len(confidence))
            total = total + (confidence[members].mean() - hit[members].float().mean()).abs() * share
    return total


def focal_calibration(name: str, probs: NDArray, labels: NDArray, n_bins: int) -> float:
    p, y = torch.tensor(np.asarray(probs), dtype=torch.float32), torch.tensor(labels)
    equal_width = torch.linspace(0, 1, n_bins + 1).tolist()
    if name == "classwise_ece":
        classes = range(max(labels) + 1)
        return float(torch.cat([focal_calibration_error(p[:, k], y == k, equal_width) for k in classes]).mean())
    confidence, predicted = p.max(1)
    if name == "adaece":
        n = len(confidence)
        ordered = sorted(confidence.tolist())
        edges = np.interp(np.linspace(0, n, n_bins + 1), np.arange(n), ordered).tolist()
        return float(focal_calibration_error(confidence, predicted == y, edges))
    return float(focal_calibration_error(confidence, predicted == y, equal_width))


@pytest.mark.parametrize("name", COMPAT)
@pytest.mark.parametrize("n_bins", [1, 2, 10, 15, 20])
@pytest.mark.parametrize("decimals", [1, 2, 16])
def test_compat_is_the_reference_code_bit_for_bit(name: str, n_bins: int, decimals: int) -> None:
    probs, labels = random_problem(n=203, seed=n_bins)
    labels[labels == 4] = 0  # the last class has no label
    probs = np.round(probs, decimals) + 1e-3 * (decimals < 16)  # ties and values on edges
    probs /= probs.sum(1, keepdims=True)
    assert COMPAT[name](probs, labels, n_bins) == focal_calibration(name, probs, labels, n_bins)


PINNED = {  # metric, confidences, hits, bins, reference code, gence
    "A": ("ece", [0.95, 1.0, 0.4], [True, False, False], 10, 0.45, 0.45),
    "B": ("ece", [0.5, 0.6, 0.45], [True, False, False], 2, 0.65 / 3, 0.65 / 3),
    # The edges are .4, .6, .8, .9: the smallest confidence is in no bin.
    "C": ("adaece", [0.4, 0.5, 0.6, 0.7, 0.8, 0.9], [False, True] * 3, 3, 0.35 / 3, 0.55 / 3),
    # All edges are .9, and no bin (.9, .9] holds anything.
    "D": ("adaece", [0.9] * 6, [True] * 3 + [False] * 3, 3, 0.0, 0.4),
    "D, ECE": ("ece", [0.9] * 6, [True] * 3 + [False] * 3, 15, 0.4, 0.4),
    "G": ("adaece", [0.4, 0.9, 0.95], [False, True, False], 1, 0.85 / 3, 1.25 / 3),
}


@pytest.mark.parametrize("letter", PINNED)
def test_pinned_examples_of_the_reference_code(letter: str) -> None:
    name, confidence, hit, n_bins, theirs, ours = PINNED[letter]
    probs, labels = with_confidence(confidence, hit)
    assert COMPAT[name](probs, labels, n_bins) == pytest.approx(theirs, abs=1e-6)
    assert focal_calibration(name, probs, labels, n_bins) == pytest.approx(theirs, abs=1e-6)
    assert BINNED[name](probs, labels, n_bins) == pytest.approx(ours, abs=1e-12)


def test_e_in_the_reference_code_averages_over_classes_up_to_the_largest_label() -> None:
    probs, labels = np.tile([0.7, 0.2, 0.1], (4, 1)), [0, 0, 1, 1]
    assert COMPAT["classwise_ece"](probs, labels) == pytest.approx(0.25, abs=1e-6)


def test_the_reference_code_loses_a_probability_of_exactly_0() -> None:
    """Class 1 is the label of one of two samples that give it 0, and only class 0 is seen to be wrong."""
    probs, labels = [[1.0, 0.0], [1.0, 0.0]], [0, 1]
    assert COMPAT["classwise_ece"](probs, labels) == 0.25
    assert classwise_calibration_error(probs, labels) == 0.5


# --- MCE, KS and debiased error ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bins", [1, 7, 15])
def test_mce_equals_a_plain_loop(n_bins: int) -> None:
    probs, labels = random_problem(n=101)
    c, hit = top(probs, labels)
    gaps = []
    for b in range(n_bins):
        members = [i for i, value in enumerate(c) if max(math.ceil(value * n_bins), 1) == b + 1]
        if members:
            gaps.append(abs(sum(c[i] - hit[i] for i in members)) / len(members))
    assert maximum_calibration_error(probs, labels, n_bins) == pytest.approx(max(gaps), abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 2, 16])
def test_ks_equals_a_plain_loop(decimals: int) -> None:
    """The largest |sum over the samples with confidence <= t of (confidence - hit)| / N over all t."""
    probs, labels = random_problem(n=101)
    confidence = np.round(probs.max(1), decimals).clip(0.2, 1.0)
    probs, labels = with_confidence(confidence.tolist(), (probs.argmax(1) == labels).tolist())
    c, hit = top(probs, np.array(labels))
    gaps = [abs(math.fsum(a - h for a, h in zip(c, hit, strict=True) if a <= t)) for t in c]
    assert kolmogorov_smirnov_error(probs, labels) == pytest.approx(max(gaps) / len(c), abs=1e-12)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]])
def test_ks_looks_only_after_all_equal_confidences(order: list[int]) -> None:
    """Within the tie the gap can be larger: .45 after three misses."""
    probs, labels = with_confidence([0.9] * 6, [True] * 3 + [False] * 3)
    assert kolmogorov_smirnov_error(probs[order], np.array(labels)[order]) == pytest.approx(0.4, abs=1e-12)


def test_ks_is_at_least_the_gap_of_one_bin_and_at_most_ece_of_single_samples() -> None:
    for seed in range(5):
        probs, labels = random_problem(seed=seed)
        ks = kolmogorov_smirnov_error(probs, labels)
        assert expected_calibration_error(probs, labels, 1) <= ks + 1e-12
        assert ks <= adaptive_calibration_error(probs, labels, len(labels)) + 1e-12


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_debiased_error_equals_a_plain_loop(strategy: str) -> None:
    probs, labels = random_problem(n=101)
    curve = reliability_curve(probs, labels, 10, strategy=strategy)
    c, hit = (np.array(v) for v in top(probs, labels))
    total = weight = 0.0
    for b, (low, high) in enumerate(zip(curve.lower, curve.upper, strict=True)):
        members = (c >= low if b == 0 else c > low) & (c <= high)
        if members.sum() > 1:
            noise = hit[members].var(ddof=1) / members.sum()  # of the mean of the hits
            total += members.sum() * ((c[members].mean() - hit[members].mean()) ** 2 - noise)
            weight += members.sum()
    expected = math.sqrt(max(total / weight, 0))
    assert debiased_calibration_error(probs, labels, 10, strategy=strategy) == pytest.approx(expected, abs=1e-12)


def test_noise_floor() -> None:
    """A calibrated model of accuracy .77, N = 10,000: ECE measures about a percent, the debiased error often 0."""
    rng = np.random.default_rng(0)
    ece, debiased = [], []
    for _ in range(40):
        confidence = rng.uniform(0.54, 1.0, size=10_000)
        probs = np.column_stack([confidence, 1 - confidence])
        labels = (rng.random(10_000) > confidence).astype(int)
        ece.append(expected_calibration_error(probs, labels))
        debiased.append(debiased_calibration_error(probs, labels))
    assert min(ece) > 0.002
    assert 0.006 < np.mean(ece) < 0.014
    assert np.median(debiased) < np.median(ece) / 2
    assert 0.3 < np.mean(np.array(debiased) == 0) < 0.7  # the estimate of the square is unbiased


def test_debiased_error_of_a_biased_model_is_the_bias() -> None:
    """Accuracy .1 below every confidence, within 4 standard errors."""
    rng = np.random.default_rng(0)
    n = 100_000
    confidence = rng.uniform(0.6, 1.0, size=n)
    probs = np.column_stack([confidence, 1 - confidence])
    labels = (rng.random(n) > confidence - 0.1).astype(int)
    assert debiased_calibration_error(probs, labels) == pytest.approx(0.1, abs=4 * 0.45 / math.sqrt(n))


# --- calibration and refinement ---------------------------------------------------------------------------------


def max_min_isotonic(values: NDArray) -> NDArray:
    """The isotonic fit of a sequence of equal weights: max over starts of min over ends of the mean between."""
    n = len(values)
    return np.array([max(min(values[j : k + 1].mean() for k in range(i, n)) for j in range(i + 1)) for i in range(n)])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("score", ["brier", "nll"])
def test_refinement_is_the_score_after_the_best_monotone_map(score: str, seed: int) -> None:
    probs, labels = random_problem(n=24, seed=seed)
    c, hit = (np.array(v)[np.argsort(probs.max(1))] for v in top(probs, labels))
    after = max_min_isotonic(hit)
    of = {
        "brier": lambda q: float(np.mean((q - hit) ** 2)),
        "nll": lambda q: -float(np.mean(np.log(np.where(hit == 1, q, 1 - q)))),
    }[score]
    split = calibration_refinement(probs, labels, score)
    assert split.score == pytest.approx(of(c), abs=1e-12)
    assert split.refinement == pytest.approx(of(after), abs=1e-12)
    assert split.calibration == pytest.approx(of(c) - of(after), abs=1e-12)


@pytest.mark.parametrize("score", ["brier", "nll"])
@pytest.mark.parametrize("seed", range(4))
def test_parts_add_up_and_are_not_negative(score: str, seed: int) -> None:
    split = calibration_refinement(*random_problem(seed=seed), score)
    assert split.calibration + split.refinement == pytest.approx(split.score, abs=1e-15)
    assert split.calibration >= 0
    assert split.refinement >= 0


@pytest.mark.parametrize("score", ["brier", "nll"])
def test_refinement_does_not_change_under_strictly_monotone_maps(score: str) -> None:
    probs, labels = random_problem()
    hit = (probs.argmax(1) == labels).tolist()
    confidence = probs.max(1).clip(0.2)
    before, after = (
        calibration_refinement(*with_confidence(c.tolist(), hit), score)
        for c in (confidence, 0.1 + 0.9 * confidence**3)
    )
    assert after.refinement == pytest.approx(before.refinement, abs=1e-12)
    assert after.calibration != pytest.approx(before.calibration, abs=1e-3)


def test_constant_confidence_has_a_divergence_and_an_entropy() -> None:
    c, a = 0.9, 0.6
    probs, labels = with_confidence([c] * 10, [True] * 6 + [False] * 4)
    brier, nll = (calibration_refinement(probs, labels, score) for score in ("brier", "nll"))
    assert (brier.calibration, brier.refinement) == pytest.approx(((c - a) ** 2, a * (1 - a)), abs=1e-12)
    entropy = stats.entropy([a, 1 - a])
    assert (nll.calibration, nll.refinement) == pytest.approx((stats.entropy([a, 1 - a], [c, 1 - c]), entropy))


def test_calibrated_groups_have_no_calibration_part() -> None:
    probs, labels = with_confidence([0.5] * 4 + [0.75] * 4, [True, False] * 2 + [True, True, True, False])
    for score in ("brier", "nll"):
        assert calibration_refinement(probs, labels, score).calibration == pytest.approx(0, abs=1e-12)


def test_groups_of_equal_confidences_count_by_their_size() -> None:
    """.6 is right three times of three and .8 never, once: the monotone map is 3/4 for both, not 1/2."""
    probs, labels = with_confidence([0.6] * 3 + [0.8], [True] * 3 + [False])
    assert calibration_refinement(probs, labels).refinement == pytest.approx(3 / 16, abs=1e-12)


def test_certain_and_wrong_is_an_infinite_calibration_part() -> None:
    split = calibration_refinement([[1.0, 0.0], [1.0, 0.0]], [0, 1], "nll")
    assert (split.score, split.calibration) == (math.inf, math.inf)
    assert split.refinement == pytest.approx(math.log(2))


# --- foreign inputs ---------------------------------------------------------------------------------------------

ORACLE_SCORES = {
    "entropy": lambda z: torch.distributions.Categorical(logits=z).entropy(),
    "msp": lambda z: 1 - z.softmax(1).amax(1),
    "energy": lambda z: -z.exp().sum(1).log(),
}


@pytest.mark.parametrize("score", OOD_SCORES)
@pytest.mark.parametrize("decimals", [0, 8])
def test_ood_detection_equals_plain_counts(score: str, decimals: int) -> None:
    """AUROC by pairs, a tie counts half; FPR95 by the smallest threshold that passes 95 % of the known inputs."""
    rng = np.random.default_rng(0)
    known, foreign = np.round(3 * rng.normal(size=(60, 4)), decimals), np.round(rng.normal(size=(41, 4)), decimals)
    # From the module's own scores, rounded alike, so that ties stay ties.
    a, b = (OOD_SCORES[score](z) for z in (known, foreign))
    for z, own in ((known, a), (foreign, b)):
        oracle = ORACLE_SCORES[score](torch.tensor(z)).numpy()
        np.testing.assert_allclose(own - own[0], oracle - oracle[0], atol=1e-10)
    pairs = [1.0 if out > within else 0.5 if out == within else 0.0 for out in b for within in a]
    thresholds = [t for t in sorted(a) if np.mean(a <= t) >= 0.95]
    got = ood_detection(known, foreign, score)
    assert got["auroc"] == pytest.approx(np.mean(pairs), abs=1e-10)
    oracle = average_precision_score([0] * len(a) + [1] * len(b), np.concatenate([a, b]))
    assert got["aupr"] == pytest.approx(oracle, abs=1e-10)
    # A threshold may also be a foreign score between two known ones: it passes the same known inputs, more foreign.
    assert got["fpr95"] == pytest.approx(np.mean(b <= thresholds[0]), abs=1e-10)


@pytest.mark.parametrize("score", OOD_SCORES)
def test_ood_detection_at_the_extremes(score: str) -> None:
    sure, unsure = np.tile([9.0, 0.0, 0.0], (20, 1)), np.zeros((5, 3))
    assert ood_detection(sure, unsure, score) == {"auroc": 1.0, "aupr": 1.0, "fpr95": 0.0}
    reverse = ood_detection(unsure, sure, score)
    assert (reverse["auroc"], reverse["fpr95"]) == (0.0, 1.0)
    same = ood_detection(sure, sure[:5], score)  # all tied: chance, and the threshold passes everything
    assert same == {"auroc": 0.5, "aupr": pytest.approx(0.2), "fpr95": 1.0}


def test_fpr95_passes_exactly_95_percent_where_it_can() -> None:
    """20 known inputs: 19 must pass, not all; of 19, all must (18/19 is less than 95 %)."""
    known = np.column_stack([np.arange(20, 0, -1.0), np.zeros(20)])  # entropy rises with the index
    foreign = np.array([[1.5, 0.0]])  # between the last two
    assert ood_detection(known, foreign)["fpr95"] == 0.0
    assert ood_detection(known[1:], foreign)["fpr95"] == 1.0


def test_ood_detection_of_enormous_logits_is_finite() -> None:
    got = [ood_detection([[1e4, 0.0], [0.0, -1e4]], [[1.0, 0.0]], score) for score in OOD_SCORES]
    assert np.isfinite([list(g.values()) for g in got]).all()


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


def one_bin(count: int, confidence: float, accuracy: float) -> ReliabilityCurve:
    return ReliabilityCurve(*(np.array([v]) for v in (0.0, 1.0, count, confidence, accuracy)))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_accuracy_band_is_clopper_pearson(level: float) -> None:
    curve = reliability_curve(*random_problem())
    filled = curve.count > 0
    low, high = curve.accuracy_band(level)
    right = np.round(curve.accuracy * curve.count)[filled]
    oracle = proportion_confint(right, curve.count[filled], alpha=1 - level, method="beta")
    np.testing.assert_allclose((low[filled], high[filled]), oracle, atol=1e-10)
    assert np.isnan([low[~filled], high[~filled]]).all() and (~filled).any()


@pytest.mark.parametrize("right", [0, 1, 9, 10])
def test_accuracy_band_of_all_wrong_or_right(right: int) -> None:
    low, high = one_bin(10, 0.8, right / 10).accuracy_band()
    assert (low[0] == 0, high[0] == 1) == (right == 0, right == 10)
    np.testing.assert_allclose((low[0], high[0]), proportion_confint(right, 10, method="beta"), atol=1e-10)


@pytest.mark.parametrize(("n", "truth"), itertools.product([1, 5, 30, 200], [0.02, 0.5, 0.93]))
def test_bands_cover_at_least_their_level(n: int, truth: float) -> None:
    """Summed over all outcomes of a bin, not simulated."""
    hits = np.arange(n + 1)
    chance = stats.binom.pmf(hits, n, truth)
    covered = [low[0] <= truth <= high[0] for low, high in (one_bin(n, truth, h / n).accuracy_band() for h in hits)]
    assert chance @ covered >= 0.95
    low, high = one_bin(n, truth, 0.5).consistency_band()
    inside = (hits / n >= low[0]) & (hits / n <= high[0])
    assert chance @ inside >= 0.95
    for end in (hits[inside][0], hits[inside][-1]):  # and no wider than need be: each end cuts off at most 2.5 %
        assert min(chance[: end + 1].sum(), chance[end:].sum()) > 0.025


def test_bands_cover_in_simulations() -> None:
    """A calibrated model with different confidences in a bin: 95 % of the filled bins, less 3 standard errors."""
    rng = np.random.default_rng(0)
    in_accuracy, in_consistency = [], []
    for _ in range(100):
        confidence = rng.uniform(0.5, 1, size=400)
        labels = (rng.random(400) > confidence).astype(int)
        curve = reliability_curve(np.column_stack([confidence, 1 - confidence]), labels, 10)
        filled = curve.count > 0
        for band, value, out in (
            (curve.accuracy_band(), curve.confidence, in_accuracy),
            (curve.consistency_band(), curve.accuracy, in_consistency),
        ):
            out += ((band[0] <= value) & (value <= band[1]))[filled].tolist()
    slack = 3 * math.sqrt(0.95 * 0.05 / len(in_accuracy))
    assert min(np.mean(in_accuracy), np.mean(in_consistency)) > 0.95 - slack


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


def test_tied_top_classes_count_the_lower_one_in_every_metric_of_the_top() -> None:
    """Rows of a few exact values tie two to four ways; by plain loops, first index of the largest."""
    rng = np.random.default_rng(0)
    rows = np.array([[0.25] * 4, [0.5, 0.5, 0, 0], [0.4, 0.2, 0.4, 0], [0.1, 0.3, 0.3, 0.3], [0.7, 0.1, 0.1, 0.1]])
    probs = np.array([rng.permutation(rows[i]) for i in rng.integers(5, size=400)])
    labels = rng.integers(4, size=400)
    right = [list(p).index(max(p)) == label for p, label in zip(probs, labels, strict=True)]
    curve = reliability_curve(probs, labels, 20)
    filled = curve.count > 0
    assert (curve.accuracy[filled] @ curve.count[filled]) == pytest.approx(sum(right), abs=1e-9)
    gaps = [max(p) - hit for p, hit in zip(probs, right, strict=True)]
    expected = sum(abs(sum(g for g, p in zip(gaps, probs, strict=True) if max(p) == top)) for top in set(probs.max(1)))
    assert expected_calibration_error(probs, labels, 20) == pytest.approx(expected / 400, abs=1e-12)


@pytest.mark.parametrize("n_bins", [1, 2, 3, 7, 10, 15, 20, 49, 100])
def test_values_beside_an_edge_fall_on_the_right_side(n_bins: int) -> None:
    """Products such as .07 * 100 are rounded across an edge: the edge itself belongs to the bin on its left."""
    edges = np.arange(n_bins + 1) / n_bins
    values = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 1), [0.0, 5e-324]])
    values = values[(values >= 0) & (values <= 1)]
    expected = [max(next(b for b in range(n_bins + 1) if v <= edges[b]) - 1, 0) for v in values]
    np.testing.assert_array_equal(calibration_error._equal_width_bin(values, n_bins), expected)


@pytest.mark.parametrize("name", EVERY)
def test_the_order_of_samples_does_not_matter(name: str) -> None:
    probs, labels = random_problem()
    probs = np.round(probs, 1) + 1e-3  # many ties
    probs /= probs.sum(1, keepdims=True)
    order = np.random.default_rng(1).permutation(len(labels))
    tolerance = 1e-6 if "compat" in name else 1e-12  # float32
    assert EVERY[name](probs[order], labels[order]) == pytest.approx(EVERY[name](probs, labels), abs=tolerance)


@pytest.mark.parametrize("name", EVERY)
def test_renamed_classes_do_not_matter(name: str) -> None:
    probs, labels = random_problem()
    order = np.array([3, 0, 4, 2, 1])
    renamed = EVERY[name](probs[:, order], order.argsort()[labels])
    assert renamed == pytest.approx(EVERY[name](probs, labels), abs=1e-6 if "compat" in name else 1e-12)


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


@pytest.mark.parametrize("name", EVERY)
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
        EVERY[name](probs, labels)


@pytest.mark.parametrize("name", ["ece", "mce", "brier", "error"])
def test_rounding_below_0_and_above_1(name: str) -> None:
    """As from 1 - p: confidences 1 and .7 are right, so that the ECE is .3 / 2."""
    expected = {"ece": 0.15, "mce": 0.3, "brier": 0.09, "error": 0.0}[name]
    for low, high in ((-1e-17, 1.0), (-1e-9, 1.0), (0.0, 1.0000000000000002), (-5e-8, 1.0 + 1.2e-7)):
        assert EVERY[name]([[high, low], [0.3, 0.7]], [0, 1]) == pytest.approx(expected, abs=1e-12)


def test_rounding_below_0_against_netcal() -> None:
    netcal = pytest.importorskip(NETCAL)
    probs, labels = np.array([[1, -1e-17], [0.3, 0.7]]), np.array([0, 1])
    assert netcal.ECE(15).measure(probs.max(1), (probs.argmax(1) == labels).astype(int)) == pytest.approx(0.15)
    assert expected_calibration_error(probs, labels) == pytest.approx(0.15)


ROUNDED = {  # ways to come by probabilities in 16 bits
    "softmax": lambda z: z.softmax(1),
    "quotient": lambda z: (
        (z - z.amax(1, keepdim=True)).exp() / (z - z.amax(1, keepdim=True)).exp().sum(1, keepdim=True)
    ),
    "exp log": lambda z: z.log_softmax(1).exp(),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n_classes", [2, 100, 1000])
@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0])
def test_probabilities_of_16_bits_after_a_cast(dtype: torch.dtype, n_classes: int, spread: float) -> None:
    """The same value in any container; the ECE is torchmetrics'. Uniform rows are the farthest from the sum 1."""
    generator = torch.Generator().manual_seed(n_classes)
    logits = (spread * torch.randn(300, n_classes, generator=generator)).to(dtype)
    labels = torch.randint(n_classes, (300,), generator=generator)
    for way in ROUNDED.values():
        half = way(logits)
        for metric in (expected_calibration_error, brier_score, classwise_calibration_error):
            values = {metric(p, labels) for p in (half, half.float(), half.double(), half.double().numpy())}
            assert len(values) == 1
        if spread == 3:
            oracle = multiclass_calibration_error(half.float(), labels, num_classes=n_classes, n_bins=15, norm="l1")
            assert expected_calibration_error(half.float(), labels) == pytest.approx(float(oracle), abs=1e-5)


def test_six_printed_decimals_of_many_classes_are_accepted() -> None:
    probs, labels = random_problem(n_classes=1000)
    assert evaluate(np.round(probs, 6), labels)["ece"] == pytest.approx(evaluate(probs, labels)["ece"], abs=1e-6)


@pytest.mark.parametrize("n_classes", [2, 100, 1000])
def test_what_is_not_rounding_is_refused(n_classes: int) -> None:
    """Rows that sum to .99 or 1.02, entries of -1 %, logits in any precision, also such as lie in [0, 1]."""
    probs, labels = random_problem(n_classes=n_classes)
    shifted = probs.copy()
    shifted[:, :2] += [0.01, -0.01]
    logits = np.random.default_rng(0).uniform(size=probs.shape)
    for bad in (0.99 * probs, 1.02 * probs, np.round(shifted - 0.01, 12), logits):
        with pytest.raises(ValueError, match=r"sum to 1.*Logits\? Apply softmax.*Divide each row by its sum"):
            evaluate(bad, labels)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        with pytest.raises(ValueError, match="Logits"):
            evaluate(torch.tensor(logits).to(dtype), labels)


# --- images and ignored labels ----------------------------------------------------------------------------------


def images(seed: int, *shape: int, n_classes: int = 4, ignore_index: int = -100) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (N, K, d1, ...) and labels (N, d1, ...), a fifth of them ignored, with nonsense in their place."""
    probs, labels = random_problem(n=int(np.prod(shape)), n_classes=n_classes, seed=seed)
    probs, labels = torch.tensor(probs).reshape(*shape, n_classes).movedim(-1, 1), torch.tensor(labels).reshape(shape)
    ignored = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.2
    probs = torch.where(ignored[:, None], torch.tensor(float("nan") if seed % 2 else 7.0), probs)
    return probs, torch.where(ignored, ignore_index, labels)


def kept_rows(probs: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> tuple[NDArray, NDArray]:
    """One sample after the other, by plain loops over the positions."""
    places = [i for i in np.ndindex(labels.shape) if labels[i] != ignore_index]
    rows = [[float(probs[i[0], k, *i[1:]]) for k in range(probs.shape[1])] for i in places]
    return np.array(rows), np.array([int(labels[i]) for i in places])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(60,), (6, 11), (3, 4, 5), (2, 3, 2, 5)])
def test_images_and_ignored_labels(name: str, shape: tuple[int, ...]) -> None:
    for seed, ignore_index in enumerate((-100, 255)):
        probs, labels = images(seed, *shape, ignore_index=ignore_index)
        rows, classes = kept_rows(probs, labels, ignore_index)
        got = EVERY[name](probs, labels, ignore_index=ignore_index)
        assert got == pytest.approx(EVERY[name](rows, classes), abs=1e-6 if "compat" in name else 1e-12)


@pytest.mark.parametrize("ignore_index", [-1, 2, 255])
def test_ignored_pixels_as_in_torchmetrics(ignore_index: int) -> None:
    """Also a label that is a class, which then has no sample."""
    probs, labels = images(0, 5, 6, 7, ignore_index=ignore_index)
    oracle = multiclass_calibration_error(
        torch.where(probs > 1, 0.25, probs), labels, num_classes=4, n_bins=15, norm="l1", ignore_index=ignore_index
    )
    got = expected_calibration_error(probs, labels, ignore_index=ignore_index)
    assert got == pytest.approx(float(oracle), abs=1e-6)
    curve = reliability_curve(probs, labels, ignore_index=ignore_index)
    assert curve.count.sum() == (labels != ignore_index).sum()
    assert curve.expected_calibration_error == pytest.approx(got, abs=1e-12)
    everything = evaluate(probs, labels, ignore_index=ignore_index)
    assert everything == {name: metric(probs, labels, ignore_index=ignore_index) for name, metric in METRICS.items()}


@pytest.mark.parametrize("name", EVERY)
def test_ignored_labels_that_go_wrong(name: str) -> None:
    with pytest.raises(ValueError, match="no sample is left: all labels are the ignore_index -100"):
        EVERY[name]([[0.5, 0.5]], [-100], ignore_index=-100)
    with pytest.raises(ValueError, match=r"0\.\.1, but range from -100 to 1.*ignore_index"):
        EVERY[name]([[0.5, 0.5]] * 2, [-100, 1])
    with pytest.raises(
        ValueError, match=r"labels must have shape \(2, 3\) to match probs \(2, 5, 3\), but got \(2, 5\)"
    ):
        EVERY[name](np.full((2, 5, 3), 0.2), np.zeros((2, 5), dtype=int))


@pytest.mark.parametrize("case", range(60))
def test_random_relatives(case: int) -> None:
    """Any precision, shape, K, ignored label and rounding: the value of the rounded rows in float64, or a refusal."""
    rng = np.random.default_rng([case, 14])
    name = list(EVERY)[case % len(EVERY)]
    k, shape = int(rng.choice([2, 3, 10, 100, 1000])), tuple(rng.integers(2, 7, size=rng.integers(1, 4)))
    logits = torch.tensor(10 ** rng.uniform(-4, 2) * rng.normal(size=(*shape, k)))
    labels = torch.tensor(rng.integers(k, size=shape))
    dtype = [torch.float16, torch.bfloat16, torch.float32, torch.float64][case // 3 % 4]
    probs = logits.to(dtype).softmax(-1)
    probs = probs.to([dtype, torch.float32, torch.float64][rng.integers(3)] if dtype.itemsize < 4 else dtype)
    if dtype.itemsize >= 4 and rng.random() < 0.5:
        probs = probs + torch.finfo(dtype).eps * torch.tensor(rng.normal(size=probs.shape)).to(dtype)
    ignored = torch.tensor(rng.random(shape) < rng.choice([0.0, 0.3]))
    ignored.view(-1)[0] = False
    ignore_index = int(rng.choice([-100, -1, k]))
    labels[ignored] = ignore_index
    probs[ignored] = float("nan")
    given = probs.movedim(-1, 1)
    rows = probs[~ignored].double().clamp(0, 1).numpy()
    got = EVERY[name](given, labels, ignore_index=ignore_index)
    expected = EVERY[name](rows, labels[~ignored].numpy())
    assert got == expected or got == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match=r"Logits\? Apply softmax"):
        EVERY[name]((given * 1.05).nan_to_num(0), labels, ignore_index=ignore_index)
    with pytest.raises(ValueError, match=r"labels must lie in|no sample is left"):
        EVERY[name](given.nan_to_num(0), torch.full(shape, k + 1), ignore_index=ignore_index)


# --- bins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bins", [1, 15, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_classwise_error_in_blocks_is_the_one_of_a_loop_over_classes(
    n_bins: int, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_error, "BLOCK", 3000)  # seven classes at a time, three at the end
    probs, labels = random_problem(n=400, n_classes=38)
    probs = probs.astype(dtype)
    exact = probs.astype(np.float64)
    total = 0.0
    for k in range(38):
        bins = np.maximum(np.searchsorted(np.arange(n_bins + 1) / n_bins, exact[:, k]), 1)
        gaps = exact[:, k] - (labels == k)
        total += sum(abs(math.fsum(gaps[bins == b])) for b in np.unique(bins))
    assert classwise_calibration_error(probs, labels, n_bins) == pytest.approx(total / 400 / 38, abs=1e-15)


@pytest.mark.parametrize(
    ("n_bins", "message"),
    [
        (10**7, "at most 1,000,000, but got 10,000,000"),
        (2.5, r"an integer, but got 2\.5"),
        (True, "an integer, but got True"),
        ("15", "an integer, but got '15'"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [*BINNED.values(), *COMPAT.values(), maximum_calibration_error, debiased_calibration_error, reliability_curve],
)
def test_bins_that_are_no_numbers_of_bins(function: Callable, n_bins: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"n_bins must be {message}"):
        function([[0.9, 0.1]], [0], n_bins=n_bins)


@pytest.mark.parametrize("n_bins", [0, -1])
@pytest.mark.parametrize(
    "function",
    [*BINNED.values(), *COMPAT.values(), maximum_calibration_error, debiased_calibration_error, reliability_curve],
)
def test_at_least_one_bin(function: Callable, n_bins: int) -> None:
    with pytest.raises(ValueError, match=f"n_bins must be at least 1, but got {n_bins}"):
        function([[0.9, 0.1]], [0], n_bins=n_bins)


@pytest.mark.parametrize("function", [reliability_curve, debiased_calibration_error])
def test_unknown_strategy(function: Callable) -> None:
    with pytest.raises(ValueError, match="'uniform' or 'quantile', but got 'equal'"):
        function([[0.9, 0.1]], [0], strategy="equal")


@pytest.mark.parametrize("function", BINNED.values())
def test_unknown_compat(function: Callable) -> None:
    with pytest.raises(ValueError, match="None or 'focal_calibration', but got 'torchmetrics'"):
        function([[0.9, 0.1]], [0], compat="torchmetrics")


def test_unknown_scores() -> None:
    with pytest.raises(ValueError, match="'brier' or 'nll', but got 'mse'"):
        calibration_refinement([[0.9, 0.1]], [0], "mse")
    with pytest.raises(ValueError, match="one of entropy, msp, energy, but got 'odin'"):
        ood_detection([[0.9, 0.1]], [[0.0, 0.0]], "odin")


@pytest.mark.parametrize(
    ("known", "foreign", "which"),
    [
        ([[math.nan, 0.0]], [[0.0, 1.0]], "logits_in"),
        ([[0.0, 1.0]], [[math.inf, 0.0]], "logits_out"),
        ([[0.0, 1.0]], [[0.0, 1.0, 2.0]], "logits_out"),
        ([0.0, 1.0], [[0.0, 1.0]], "logits_in"),
        ([[0.0, 1.0]], np.empty((0, 2)), "logits_out"),
    ],
)
def test_bad_logits_for_ood_detection(known: object, foreign: object, which: str) -> None:
    with pytest.raises(ValueError, match=f"{which} must be finite logits"):
        ood_detection(known, foreign)
