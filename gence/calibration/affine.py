"""Affine maps of the logits: vector and matrix scaling, Dirichlet calibration."""

from __future__ import annotations

import numpy as np
from scipy import optimize, special
from sklearn.linear_model import LogisticRegression

from gence.calibration._likelihood import TOLERANCE, Floats, Ints, best_temperature, mean_nll
from gence.calibration.base import Calibrator, check_all_classes

__all__ = ["DirichletCalibration", "MatrixScaling", "VectorScaling"]


class VectorScaling(Calibrator):
    """Vector scaling: softmax(w * z + b) with a weight and a bias for each class, fitted by NLL.

    Args:
        max_iter: of the optimiser, Newton's method in a trust region.

    Attributes:
        weights_, biases_: (K,) each.
        converged_: what the optimiser says.

    Raises:
        ValueError: a logit of -inf. Otherwise as :class:`Calibrator`.

    Source: Guo et al. (2017).

    Example:
        >>> z = np.random.default_rng(0).normal(size=(300, 3))
        >>> VectorScaling().fit(z, z.argmax(1)).weights_.shape
        (3,)
    """

    _takes_impossible_classes = False

    def __init__(self, max_iter: int = 200) -> None:
        """Keep the options; see the class."""
        self.max_iter = max_iter

    def _fit(self, z: Floats, y: Ints) -> None:
        k = self.n_classes_

        def objective(parameters: Floats) -> tuple[float, Floats]:
            scaled = parameters[:k] * z + parameters[k:]
            gap = special.softmax(scaled, axis=1)
            gap[np.arange(len(y)), y] -= 1
            return mean_nll(scaled, y), np.concatenate([(gap * z).mean(0), gap.mean(0)])

        def curvature(parameters: Floats, direction: Floats) -> Floats:
            p = special.softmax(parameters[:k] * z + parameters[k:], axis=1)
            change = p * (direction[:k] * z + direction[k:])
            change -= p * change.sum(1, keepdims=True)
            return np.concatenate([(change * z).mean(0), change.mean(0)])

        start = np.concatenate([np.full(k, 1 / best_temperature(z, y)[0]), np.zeros(k)])
        options = {"maxiter": self.max_iter, "gtol": TOLERANCE}
        found = optimize.minimize(objective, start, jac=True, hessp=curvature, method="trust-ncg", options=options)
        self.weights_, self.biases_ = found.x[:k], found.x[k:]
        self.converged_ = bool(found.success)

    def _predict(self, z: Floats) -> Floats:
        return special.softmax(self.weights_ * z + self.biases_, axis=1)


class MatrixScaling(Calibrator):
    """Matrix scaling: multinomial logistic regression on the logits (scikit-learn's), with an L2 penalty.

    Args:
        c: inverse strength of the penalty, as in scikit-learn.
        max_iter: of its solver.

    Attributes:
        means_: (K,) means of the features, which are taken off.
        regression_: the fitted scikit-learn model.

    Raises:
        ValueError: a class without a validation sample, a logit of -inf. Otherwise as :class:`Calibrator`.

    Source: Guo et al. (2017).

    Example:
        >>> z = np.random.default_rng(0).normal(size=(300, 3))
        >>> MatrixScaling().fit(z, z.argmax(1)).predict_proba(z).shape
        (300, 3)
    """

    _takes_impossible_classes = False

    def __init__(self, c: float = 1.0, max_iter: int = 100) -> None:
        """Keep the options; see the class."""
        self.c = c
        self.max_iter = max_iter

    def _features(self, z: Floats) -> Floats:
        return z

    def _fit(self, z: Floats, y: Ints) -> None:
        check_all_classes(y, self.n_classes_)
        # The biases are not penalised, so moving the features changes nothing but the number of iterations: much.
        self.means_ = self._features(z).mean(0)
        regression = LogisticRegression(C=self.c, solver="newton-cg", max_iter=self.max_iter, tol=TOLERANCE)
        self.regression_ = regression.fit(self._features(z) - self.means_, y)

    def _predict(self, z: Floats) -> Floats:
        return self.regression_.predict_proba(self._features(z) - self.means_)


class DirichletCalibration(MatrixScaling):
    """Dirichlet calibration: multinomial logistic regression on the log-probabilities, with an L2 penalty.

    Args:
        c: inverse strength of the penalty, as in scikit-learn. (The paper penalises the off-diagonal entries only.)
        max_iter: of its solver.

    Attributes:
        means_: (K,) means of the features, which are taken off.
        regression_: the fitted scikit-learn model.

    Raises:
        As :class:`MatrixScaling`.

    Source: Kull et al. (2019).

    Example:
        >>> z = np.random.default_rng(0).normal(size=(300, 3))
        >>> DirichletCalibration().fit(z, z.argmax(1)).predict_proba(z).shape
        (300, 3)
    """

    def _features(self, z: Floats) -> Floats:
        return special.log_softmax(z, axis=1)
