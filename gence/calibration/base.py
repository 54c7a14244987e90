"""What all calibrators share: scikit-learn's interface, and checks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from gence import metrics
from gence.calibration._likelihood import (
    PUBLISHED,
    Floats,
    Ints,
    best_temperature,
    less_maximum,
    logit_of_label,
    nll_slope,
)

__all__ = ["Calibrator", "Uncalibrated"]

IMPOSSIBLE = -10.0  # what the network of PTS sees of such a class, in mean spreads


class Calibrator(ClassifierMixin, BaseEstimator):
    """What all calibrators share: checked input, its unit, and softmax as the map to start from.

    Logits whose best temperature lies outside 0.1..10, cosines or logits of thousands for instance, have confidences
    that are all 1/K or all 1. `fit` divides them by their unit, the power of ten nearest to that temperature; what is
    learned then belongs to logits / `unit_`, but for `temperature` and `temperature_`. Else the unit is 1.

    Attributes:
        classes_: (K,) the labels 0..K-1.
        unit_: what logits are divided by before all else.

    Raises:
        ValueError: logits that are not (N, K) with K >= 2 and N >= 1, NaN, +inf or rows without a finite logit,
            probabilities in place of logits in `fit`, labels that are no class indices, another K than in `fit`.
        sklearn.exceptions.NotFittedError: `predict_proba` or `predict` before `fit`.

    Example:
        >>> from gence.calibration import TemperatureScaling
        >>> calibrator = TemperatureScaling().fit([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]], [0, 1, 1])
        >>> calibrator.predict_proba([[1.0, 1.0]]), calibrator.predict([[0.0, 3.0]])
        (array([[0.5, 0.5]]), array([1]))
    """

    keeps_order = False
    _takes_impossible_classes = True

    def fit(self, logits: ArrayLike, labels: ArrayLike) -> Calibrator:
        """Learn from held-out logits (N, K) and labels (N,)."""
        z = self._checked_logits(logits)
        if metrics.are_probabilities(z):
            raise ValueError(
                "logits are needed, but these rows are probabilities. Pass logits, or log(probabilities). "
                "(Are they logits after all? Add 1 to all of them, which changes nothing, to say so.)"
            )
        y = metrics.checked_labels(labels, "logits", z.shape)
        self.classes_ = np.arange(z.shape[1])
        self.n_classes_ = z.shape[1]
        self.unit_ = self._unit(z, y)
        z /= self.unit_
        self._fit(z, y)
        return self

    def predict_proba(self, logits: ArrayLike) -> Floats:
        """Return calibrated probabilities (N, K)."""
        return self._predict(self._checked(logits))

    def predict(self, logits: ArrayLike) -> Ints:
        """Return the most probable classes (N,); of equal ones the lowest."""
        return self.predict_proba(logits).argmax(1)

    def _checked(self, logits: ArrayLike) -> Floats:
        """Checked logits in their unit."""
        check_is_fitted(self, "n_classes_")
        z = self._checked_logits(logits)
        if z.shape[1] != self.n_classes_:
            raise ValueError(f"logits must have the {self.n_classes_} classes of fit, but have {z.shape[1]}")
        z /= self.unit_
        return z

    def _checked_logits(self, logits: ArrayLike) -> Floats:
        z = metrics.to_numpy(logits).astype(np.float64)
        if z.ndim != 2 or len(z) == 0 or z.shape[1] < 2:
            raise ValueError(f"logits must have shape (N, K) with N >= 1 and K >= 2, but got {z.shape}")
        top = z.max(1)
        if not np.isfinite(top).all():  # NaN shows in the largest, too
            row = np.flatnonzero(~np.isfinite(top))[0]
            raise ValueError(f"logits contain NaN or infinite values: the largest of row {row} is {top[row]}")
        if not self._takes_impossible_classes and not np.isfinite(z).all():
            raise ValueError(
                f"logits contain -inf, an impossible class, to which {type(self).__name__} can give no weight. Use "
                "TemperatureScaling, or clip the probabilities before their logarithm."
            )
        return z

    def _unit(self, z: Floats, y: Ints) -> float:
        """The power of ten nearest to the best temperature; 1 where that lies in a usual range or nowhere."""
        if not np.isfinite(logit_of_label(z, y)).all():
            return 1.0
        below = less_maximum(z)
        low, high = (nll_slope(below / t, y).mean() for t in PUBLISHED[::-1])
        best, found = (1.0, True) if low < 0 < high else best_temperature(z, y)
        return 1.0 if not found or PUBLISHED[0] <= best <= PUBLISHED[1] else float(f"1e{round(np.log10(best))}")

    def _fit(self, z: Floats, y: Ints) -> None:
        raise NotImplementedError

    def _predict(self, z: Floats) -> Floats:
        raise NotImplementedError


class Uncalibrated(Calibrator):
    """softmax(z), for comparison.

    Example:
        >>> Uncalibrated().fit([[0.0, 2.0]], [1]).predict_proba([[0.0, 0.0]])
        array([[0.5, 0.5]])
    """

    keeps_order = True

    def _unit(self, z: Floats, y: Ints) -> float:
        return 1.0

    def _fit(self, z: Floats, y: Ints) -> None:
        pass

    def _predict(self, z: Floats) -> Floats:
        return special.softmax(z, axis=1)


def log_odds(p: Floats) -> Floats:
    return special.logit(np.clip(p, 1e-15, 1 - 1e-15))


def renormalised(p: Floats) -> Floats:
    total = p.sum(1, keepdims=True)
    return np.where(total > 0, p / np.where(total > 0, total, 1), 1 / p.shape[1])


def check_enough(z: Floats, n: int) -> None:
    if n < 1 or len(z) < n:
        raise ValueError(f"{len(z)} validation samples are too few for {n} bins or knots. Use fewer, at least 1.")


def check_all_classes(y: Ints, n_classes: int) -> None:
    missing = np.setdiff1d(np.arange(n_classes), y)
    if len(missing):
        raise ValueError(
            f"each of the {n_classes} classes needs a validation sample, but {missing.tolist()[:10]} have none. "
            f"Use temperature scaling, which needs no sample of every class."
        )
