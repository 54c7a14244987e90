"""Every calibrator by its name."""

from __future__ import annotations

from collections.abc import Callable

from gence.calibration.affine import DirichletCalibration, MatrixScaling, VectorScaling
from gence.calibration.base import Calibrator, Uncalibrated
from gence.calibration.binary import (
    BayesianBinning,
    HistogramBinning,
    IsotonicCalibration,
    PlattScaling,
    SplineCalibration,
)
from gence.calibration.samplewise import (
    BinwiseTemperatureScaling,
    EnsembleTemperatureScaling,
    EntropyTemperatureScaling,
    ParameterizedTemperatureScaling,
)
from gence.calibration.temperature import AdaptiveTemperatureScaling, TemperatureScaling
from gence.words import nearest

__all__ = ["CALIBRATORS", "make_calibrator"]

CALIBRATORS: dict[str, Callable[[], Calibrator]] = {
    "none": Uncalibrated,
    "temperature": TemperatureScaling,
    "temperature_ece": lambda: TemperatureScaling(objective="ece"),
    "ats": AdaptiveTemperatureScaling,
    "binwise": BinwiseTemperatureScaling,
    "entropy": EntropyTemperatureScaling,
    "parameterized": ParameterizedTemperatureScaling,
    "ensemble": EnsembleTemperatureScaling,
    "vector": VectorScaling,
    "matrix": MatrixScaling,
    "dirichlet": DirichletCalibration,
    "platt": PlattScaling,
    "isotonic": IsotonicCalibration,
    "isotonic_shared": lambda: IsotonicCalibration(shared=True),
    "histogram": HistogramBinning,
    "bbq": BayesianBinning,
    "spline": SplineCalibration,
}


def make_calibrator(name: str) -> Calibrator:
    """Build a calibrator by its name.

    Args:
        name: one of :data:`CALIBRATORS`.

    Raises:
        ValueError: an unknown name; the message names the nearest one.

    Example:
        >>> make_calibrator("ats").n_bins
        15
    """
    if name not in CALIBRATORS:
        hint = nearest(name, CALIBRATORS)
        raise ValueError(f"unknown calibrator {name!r}{hint} The calibrators are: {', '.join(CALIBRATORS)}.")
    return CALIBRATORS[name]()
