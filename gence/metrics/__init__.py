"""How good are predicted probabilities: error, proper scores, calibration errors and reliability curves.

Every function takes probabilities of shape (N, K) and labels of shape (N,), as tensors or arrays, computes in
float64 and returns a plain float. Images, (N, K, d1, ...) with labels (N, d1, ...), count one sample for each position,
and samples whose label is ``ignore_index`` are left out before anything is checked. Rows may leave [0, 1] and the sum
1 by the rounding of the format that they were computed in, also if that was a 16-bit one; they are not renormalised.

Bins are right-closed, (lo, hi], and the first one also holds 0, so no sample is ever lost; ties always share a bin.
``compat="focal_calibration"`` gives the numbers of the code of Mukhoti et al. (2020) instead, on which most published
tables rest: float32, a confidence of exactly 0 lost, in AdaECE the smallest confidences lost, in ClasswiseECE the
classes above the largest label.

- ``scores``: error, proper scores and their decomposition.
- ``calibration_error``: calibration errors and reliability diagrams.
- ``detection``: foreign inputs.
- ``registry``: the metrics that records hold.
"""

from __future__ import annotations

from gence.metrics._input import MAX_BINS, are_probabilities, check_bins, checked_labels, to_numpy
from gence.metrics.calibration_error import (
    ReliabilityCurve,
    adaptive_calibration_error,
    classwise_calibration_error,
    debiased_calibration_error,
    expected_calibration_error,
    kolmogorov_smirnov_error,
    maximum_calibration_error,
    reliability_curve,
)
from gence.metrics.detection import OOD_SCORES, ood_detection
from gence.metrics.registry import METRICS, evaluate
from gence.metrics.scores import Decomposition, brier_score, calibration_refinement, error_rate, negative_log_likelihood

__all__ = [
    "MAX_BINS",
    "METRICS",
    "OOD_SCORES",
    "Decomposition",
    "ReliabilityCurve",
    "adaptive_calibration_error",
    "are_probabilities",
    "brier_score",
    "calibration_refinement",
    "check_bins",
    "checked_labels",
    "classwise_calibration_error",
    "debiased_calibration_error",
    "error_rate",
    "evaluate",
    "expected_calibration_error",
    "kolmogorov_smirnov_error",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "ood_detection",
    "reliability_curve",
    "to_numpy",
]
