"""Post-hoc calibration in scikit-learn style: ``fit(logits, labels)`` on held-out data, then ``predict_proba(logits)``.

Every calibrator takes logits (N, K) and class indices (N,), as tensors or arrays, computes in float64 and keeps what it
learned in attributes that end with an underscore. It is a scikit-learn classifier of the labels 0..K-1, for
``cross_val_predict``, pipelines and grid searches (the first of these renumbers labels, so all K must occur).
``keeps_order`` says whether it can change which class of a sample is the most probable.

A logit of -inf is a class that is impossible for this sample, as in log(p) with p = 0. Temperatures leave it so; maps
of single probabilities see a 0.

- ``base``: what all share. ``temperature``: one temperature, and Algorithm 1. ``samplewise``: one for each sample.
- ``affine``: vector, matrix and Dirichlet scaling. ``binary``: one class against the rest. ``registry``: by name.
"""

from __future__ import annotations

from gence.calibration._likelihood import TEMPERATURES, best_temperature
from gence.calibration.affine import DirichletCalibration, MatrixScaling, VectorScaling
from gence.calibration.base import Calibrator, Uncalibrated
from gence.calibration.binary import (
    BayesianBinning,
    HistogramBinning,
    IsotonicCalibration,
    PlattScaling,
    SplineCalibration,
)
from gence.calibration.registry import CALIBRATORS, make_calibrator
from gence.calibration.samplewise import (
    BinwiseTemperatureScaling,
    EnsembleTemperatureScaling,
    EntropyTemperatureScaling,
    ParameterizedTemperatureScaling,
)
from gence.calibration.temperature import AdaptiveTemperatureScaling, TemperatureScaling

__all__ = [
    "CALIBRATORS",
    "TEMPERATURES",
    "AdaptiveTemperatureScaling",
    "BayesianBinning",
    "BinwiseTemperatureScaling",
    "Calibrator",
    "DirichletCalibration",
    "EnsembleTemperatureScaling",
    "EntropyTemperatureScaling",
    "HistogramBinning",
    "IsotonicCalibration",
    "MatrixScaling",
    "ParameterizedTemperatureScaling",
    "PlattScaling",
    "SplineCalibration",
    "TemperatureScaling",
    "Uncalibrated",
    "VectorScaling",
    "best_temperature",
    "make_calibrator",
]
