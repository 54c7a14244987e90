"""The words that tables and figures use for losses, metrics and calibrators: one display name for each key.

A loss or a calibrator that is not named here goes by its name in the registry, with spaces for underscores.
"""

from __future__ import annotations

from collections.abc import Mapping

from gence.calibration import CALIBRATORS
from gence.losses import REGISTRY
from gence.words import nearest

__all__ = ["CALIBRATOR_NAMES", "LOSS_NAMES", "METRIC_NAMES", "calibrator_name", "loss_name", "metric_name"]

LOSS_NAMES: dict[str, str] = {
    **{key: key.replace("_", " ") for key in REGISTRY},
    "ce": "CE",
    "brier": "Brier",
    "gence": "GenCE",
    "flsc": "FLSC",
    "flsd_53": "FLSD-53",
    "flsd_52": "FLSD-52",
    "adafocal": "AdaFocal",
    "gence_focal": "focal GenCE",
    "gence_adafocal": "AdaFocal GenCE",
    "mmce": "MMCE",
    "mmce_w": "weighted MMCE",
    "lq": "$L_q$",
    "sce": "symmetric CE",
    "min_ent": "MIN-ENT",
    "mix_ent": "MIX-ENT",
    "gence_logit_adjustment": "GenCE + logit adjustment",
    "gence_tracked": "tracked GenCE",
    "present_class": "present-class CE",
    "class_balanced": "class-balanced CE",
    # What was varied in a loss, as `gence.lab.results.predictions.variants` writes it.
    "gence:strength=0.5": "half-strength GenCE",
    "ce:balanced": "CE, class-balanced batches",
    "gence:balanced": "GenCE, class-balanced batches",
}
METRIC_NAMES: dict[str, str] = {
    "error": "error",
    "nll": "NLL",
    "brier": "Brier score",
    "ece": "ECE",
    "adaece": "AdaECE",
    "classwise_ece": "class-wise ECE",
    "train_error": "training error",
    "val_error": "validation error",
    "val_nll": "validation NLL",
    "class_error": "error of each class",
    "head": "error, head classes",
    "middle": "error, middle classes",
    "tail": "error, tail classes",
    "auroc": "AUROC",
    # The names that tables.csv takes from the paper.
    "test_error": "error",
    "ECE": "ECE",
    "AdaECE": "AdaECE",
    "ClasswiseECE": "class-wise ECE",
    "OOD_AUROC": "AUROC",
}
CALIBRATOR_NAMES: dict[str, str] = {
    **{key: key.replace("_", " ") for key in CALIBRATORS},
    "none": "uncalibrated",
    "raw": "uncalibrated",
    "ts": "temperature",
    "temperature_ece": "temperature for ECE",
    "ats": "ATS",
    "binwise": "bin-wise temperatures",
    "entropy": "entropy temperatures",
    "parameterized": "parameterised temperatures",
    "ensemble": "ensemble of temperatures",
    "vector": "vector scaling",
    "matrix": "matrix scaling",
    "dirichlet": "Dirichlet",
    "platt": "Platt",
    "isotonic_shared": "isotonic, shared",
    "histogram": "histogram binning",
    "bbq": "BBQ",
    "spline": "splines",
}


def loss_name(key: str) -> str:
    """Return the display name of a loss, or of a variant of one.

    Args:
        key: a name of ``gence.losses.REGISTRY``, or a variant such as ``"gence:strength=0.25"``.

    Raises:
        ValueError: an unknown loss; the message names the nearest valid one.

    Example:
        >>> loss_name("present_class"), loss_name("gence:strength=0.5"), loss_name("gence:strength=0.25")
        ('present-class CE', 'half-strength GenCE', 'GenCE, strength 0.25')
    """
    if key in LOSS_NAMES:
        return LOSS_NAMES[key]
    loss, *varied = key.split(":")
    words = ["class-balanced batches" if part == "balanced" else part.replace("=", " ") for part in varied]
    return ", ".join([_name(loss, LOSS_NAMES, "loss"), *words]).replace("_", " ")


def metric_name(key: str) -> str:
    """Return the display name of a metric, or of one after a calibration.

    Args:
        key: a name of ``gence.metrics.METRICS``, a column of records such as ``"train_error"``, or one of
            ``gence.lab.results.sources.calibrated_columns``, such as ``"ts_ece"``.

    Raises:
        ValueError: an unknown metric; the message names the nearest valid one.

    Example:
        >>> metric_name("nll"), metric_name("raw_ece"), metric_name("ats25_classwise_ece")
        ('NLL', 'ECE, uncalibrated', 'class-wise ECE after ATS (25 bins)')
    """
    if key in METRIC_NAMES:
        return METRIC_NAMES[key]
    before, _, metric = key.partition("_")
    if metric in METRIC_NAMES and before in (where := {"raw": "uncalibrated", "val": "validation set"}):
        return f"{METRIC_NAMES[metric]}, {where[before]}"
    if metric in METRIC_NAMES and before in CALIBRATOR_NAMES:
        return f"{METRIC_NAMES[metric]} after {CALIBRATOR_NAMES[before]}"
    if metric in METRIC_NAMES and before.startswith("ats") and before[3:].isdigit():
        return f"{METRIC_NAMES[metric]} after ATS ({before[3:]} bins)"
    return _name(key, METRIC_NAMES, "metric")


def calibrator_name(key: str) -> str:
    """Return the display name of a calibrator.

    Args:
        key: a name of ``gence.calibration.CALIBRATORS``, or ``"raw"`` or ``"ts"`` as in the columns of records.

    Raises:
        ValueError: an unknown calibrator; the message names the nearest valid one.

    Example:
        >>> calibrator_name("temperature_ece")
        'temperature for ECE'
    """
    return _name(key, CALIBRATOR_NAMES, "calibrator")


def _name(key: str, names: Mapping[str, str], what: str) -> str:
    if key not in names:
        raise ValueError(
            f"the {what} {key!r} has no display name{nearest(key, names)} Add it to gence/lab/results/names.py."
        )
    return names[key]
