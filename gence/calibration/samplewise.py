"""Post-hoc calibration in scikit-learn style: ``fit(logits, labels)`` on held-out data, then ``predict_proba(logits)``.

Every calibrator takes logits (N, K) and class indices (N,), as tensors or arrays, computes in float64 and keeps what it
learned in attributes that end with an underscore. It is a scikit-learn classifier of the labels 0..K-1, for
``cross_val_predict``, pipelines and grid searches (the first of these renumbers labels, so all K must occur).
``keeps_order`` says whether it can change which class of a sample is the most probable.

A logit of -inf is a class that is impossible for this sample, as in log(p) with p = 0. Temperatures leave it so; maps
of single probabilities see a 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import interpolate, optimize, special
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from gence import metrics
from gence._words import nearest

__all__ = [
    "CALIBRATORS",
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
    "make_calibrator",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TEMPERATURES = (0.01, 100.0)  # where a temperature is looked for first
PUBLISHED = (0.1, 10.0)  # the range of published searches
IMPOSSIBLE = -10.0  # what the network of PTS sees of such a class, in mean spreads
TILT = 1e-6  # share of softmax(z) that ETS keeps at least
TOLERANCE = 1e-8  # of the gradient of a regression: results then agree to many digits on other processors
LONG = 5.0  # seconds after which a progress bar appears


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
        if not np.isfinite(_of_label(z, y)).all():
            return 1.0
        below = _below(z)
        low, high = (_nll_slope(below / t, y).mean() for t in PUBLISHED[::-1])
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


class _Temperatures(Calibrator):
    """softmax(z / T(x)) with a positive temperature for each sample, which never changes the most probable class."""

    keeps_order = True

    def temperature(self, logits: ArrayLike) -> Floats:
        """Return the temperature (N,) that each sample gets."""
        return self._temperature(self._checked(logits)) * self.unit_

    def _temperature(self, z: Floats) -> Floats:
        raise NotImplementedError

    def _predict(self, z: Floats) -> Floats:
        return special.softmax(_below(z) / self._temperature(z)[:, None], axis=1)

    def _say_if_scaled(self) -> None:
        """Algorithms with a published range of temperatures are not run as published where another unit is taken."""
        if self.unit_ != 1:
            warnings.warn(
                f"{type(self).__name__}: the best temperature of these logits lies outside the published range "
                f"{PUBLISHED}. They are divided by unit_ = {self.unit_:g} first.",
                UserWarning,
                stacklevel=4,
            )


class TemperatureScaling(_Temperatures):
    """One temperature for all samples: softmax(z / T).

    The NLL is convex in 1/T, so its minimum is found as the root of its derivative, to machine precision and at any
    scale of the logits. Where there is none (a validation set without a single error wants T = 0, one that is no better
    than chance T = infinity), T is 0.01 or 100, or beyond if the logits are very small or large, `converged_` is False
    and a ConvergenceWarning says so.

    Args:
        objective: ``"nll"``, or ``"ece"`` for the grid 0.1, 0.2, ..., 10 by validation ECE, as the code of Mukhoti et
            al. (2020) does by default, times `unit_`.
        n_bins: of that ECE.

    Attributes:
        temperature_: T, no unit.
        converged_: whether a minimum was found.

    Raises:
        ValueError: an unknown objective, a label whose logit is -inf. Otherwise as :class:`Calibrator`.

    Source: Guo et al. (2017).

    Example:
        >>> calibrator = TemperatureScaling().fit([[4.0, 0.0]] * 4, [0, 0, 0, 1])
        >>> round(calibrator.temperature_, 4)  # 4 / log 3
        3.641
    """

    def __init__(self, objective: str = "nll", n_bins: int = 15) -> None:
        """Keep the options; see the class."""
        self.objective = objective
        self.n_bins = n_bins

    def _fit(self, z: Floats, y: Ints) -> None:
        if self.objective == "nll":
            best, self.converged_ = best_temperature(z, y)
            self.temperature_ = self.unit_ * best
            if not self.converged_:
                warnings.warn(
                    f"the NLL has no minimum at any temperature; took {self.temperature_:g}. The {len(y)} validation "
                    "samples are all right, or their logits no better than chance.",
                    ConvergenceWarning,
                    stacklevel=3,
                )
        elif self.objective == "ece":
            grid = np.arange(1, 101) / 10
            errors = [metrics.expected_calibration_error(special.softmax(z / t, axis=1), y, self.n_bins) for t in grid]
            self.temperature_, self.converged_ = self.unit_ * float(grid[np.argmin(errors)]), True
            self._say_if_scaled()
        else:
            raise ValueError(f"objective must be 'nll' or 'ece', but got {self.objective!r}")

    def _temperature(self, z: Floats) -> Floats:
        return np.full(len(z), self.temperature_ / self.unit_)


class AdaptiveTemperatureScaling(_Temperatures):
    """Adaptive temperature scaling (ATS), Algorithm 1 of the GenCE paper: one temperature for each confidence bin.

    The bins are quantiles of the unscaled validation confidences. In each round every bin's temperature moves by
    ``clip(step * (mean confidence - accuracy), -clip, clip)`` of its samples scaled by its present temperature; the
    temperatures of the round with the lowest validation ECE are kept. With the published step the inner clip never
    acts, since a gap is at most 1. Logits whose best temperature lies outside the published range are divided by their
    unit first, and a UserWarning says so.

    Args:
        n_bins: number of bins of equal mass.
        step: factor of the gap.
        clip: largest change in a round.
        n_rounds: number of rounds.
        temperature_range: smallest and largest temperature, in `unit_`.
        select: ``"ece"`` keeps the best round, ``"last"`` the last one.
        selection_bins: bins of that ECE (not stated in the paper).

    Attributes:
        temperatures_: (n_bins,) kept temperatures, in `unit_`.
        thresholds_: (n_bins - 1,) inner edges of the bins, in confidence.
        history_: (n_rounds + 1,) validation ECE before the first round and after each.
        best_round_: 0 is before the first.

    Raises:
        ValueError: fewer samples than bins, options out of range. Otherwise as :class:`Calibrator`.

    Source: Zhan, Zhou and Shen (2026), Algorithm 1 and section 5.

    Example:
        >>> z = [[4.0, 0.0]] * 4
        >>> ats = AdaptiveTemperatureScaling(n_bins=1, n_rounds=2000, select="last").fit(z, [0, 0, 0, 1])
        >>> round(float(ats.temperatures_[0]), 2)  # 4 / log 3
        3.64
    """

    def __init__(
        self,
        n_bins: int = 15,
        step: float = 0.05,
        clip: float = 0.1,
        n_rounds: int = 200,
        temperature_range: tuple[float, float] = PUBLISHED,
        select: str = "ece",
        selection_bins: int = 15,
    ) -> None:
        """Keep the options; see the class."""
        self.n_bins = n_bins
        self.step = step
        self.clip = clip
        self.n_rounds = n_rounds
        self.temperature_range = temperature_range
        self.select = select
        self.selection_bins = selection_bins

    def _fit(self, z: Floats, y: Ints) -> None:
        if self.select not in ("ece", "last"):
            raise ValueError(f"select must be 'ece' or 'last', but got {self.select!r}")
        low, high = self.temperature_range
        if min(self.step, self.clip, self.n_rounds) < 0 or not 0 < low <= high:
            raise ValueError(
                f"step, clip and n_rounds must be >= 0 and 0 < low <= high in temperature_range, but got "
                f"{self.step}, {self.clip}, {self.n_rounds} and {self.temperature_range}"
            )
        metrics.check_bins(self.selection_bins)
        _check_enough(z, self.n_bins)
        self._say_if_scaled()
        below = _below(z)
        correct = (z.argmax(1) == y).astype(np.float64)
        confidence = _top_confidence(below, np.ones(len(z)))
        self.thresholds_ = np.quantile(confidence, np.arange(1, self.n_bins) / self.n_bins)
        bins = np.searchsorted(self.thresholds_, confidence)
        size = np.maximum(np.bincount(bins, minlength=self.n_bins), 1)
        temperatures = np.ones(self.n_bins)
        tried, errors = [temperatures], [_top_ece(confidence, correct, self.selection_bins)]
        for _ in tqdm(range(self.n_rounds), desc="ATS", unit="round", delay=LONG, leave=False):
            gap = np.bincount(bins, confidence - correct, self.n_bins) / size
            change = np.clip(self.step * gap, -self.clip, self.clip)
            temperatures = np.clip(temperatures + change, low, high)
            confidence = _top_confidence(below, temperatures[bins])
            tried.append(temperatures)
            errors.append(_top_ece(confidence, correct, self.selection_bins))
        self.history_ = np.array(errors)
        self.best_round_ = int(self.history_.argmin()) if self.select == "ece" else self.n_rounds
        self.temperatures_ = tried[self.best_round_]

    def _temperature(self, z: Floats) -> Floats:
        confidence = _top_confidence(_below(z), np.ones(len(z)))
        return self.temperatures_[np.searchsorted(self.thresholds_, confidence)]


class BinwiseTemperatureScaling(_Temperatures):
    """Bin-wise temperature scaling (BTS): the NLL's temperature in each bin of confidence.

    Args:
        n_bins: number of bins of equal mass below `top`.
        top: confidences above it share one more bin.

    Attributes:
        temperatures_: (n_bins + 1,), in `unit_`; 1 where a bin is empty, and the global one where its NLL has no
            minimum.
        thresholds_: (n_bins,) inner edges.

    Raises:
        As :class:`AdaptiveTemperatureScaling`.

    Source: Ji et al. (2019).

    Example:
        >>> BinwiseTemperatureScaling(n_bins=1).fit([[4.0, 0.0]] * 4, [0, 0, 0, 1]).temperatures_.round(2).tolist()
        [3.64, 1.0]
    """

    def __init__(self, n_bins: int = 50, top: float = 0.999) -> None:
        """Keep the options; see the class."""
        self.n_bins = n_bins
        self.top = top

    def _fit(self, z: Floats, y: Ints) -> None:
        _check_enough(z, self.n_bins)
        confidence = special.softmax(z, axis=1).max(1)
        low = confidence[confidence <= self.top]
        inner = np.quantile(low, np.arange(1, self.n_bins) / self.n_bins) if len(low) else np.zeros(self.n_bins - 1)
        self.thresholds_ = np.append(inner, self.top)
        bins = np.searchsorted(self.thresholds_, confidence)
        everywhere, _ = best_temperature(z, y)
        self.temperatures_ = np.ones(self.n_bins + 1)
        for b in np.unique(bins):
            here = bins == b
            temperature, converged = best_temperature(z[here], y[here])
            self.temperatures_[b] = temperature if converged else everywhere

    def _temperature(self, z: Floats) -> Floats:
        return self.temperatures_[np.searchsorted(self.thresholds_, special.softmax(z, axis=1).max(1))]


class EntropyTemperatureScaling(_Temperatures):
    """Entropy-based temperature scaling (HTS): ``T(x) = softplus(w log(H(x) / log K) + b)`` with the entropy H.

    Attributes:
        weight_, bias_: w and b.
        converged_: what the optimiser says, and whether all temperatures stay off 0: few samples without an error among
            the sure ones want certainty there. Otherwise a ConvergenceWarning says so.

    Raises:
        As :class:`Calibrator`.

    Source: Balanya, Maroñas and Ramos (2024).

    Example:
        >>> z = np.random.default_rng(0).normal(size=(200, 3))
        >>> bool((EntropyTemperatureScaling().fit(z, z.argmax(1)).temperature(z) > 0).all())
        True
    """

    def _fit(self, z: Floats, y: Ints) -> None:
        feature = _log_normalised_entropy(z)

        def temperature(parameters: Floats) -> tuple[Floats, Floats]:
            linear = parameters[0] * feature + parameters[1]
            return np.logaddexp(0, linear) + TEMPERATURES[0], special.expit(linear)

        def objective(parameters: Floats) -> tuple[float, Floats]:
            t, slope = temperature(parameters)
            scaled = z / t[:, None]
            by_t = -_nll_slope(scaled, y) / t * slope
            return _nll(scaled, y), np.array([(by_t * feature).mean(), by_t.mean()])

        best = best_temperature(z, y)[0]
        start = np.array([0.01, best + np.log(-np.expm1(-best))])  # the inverse of softplus
        found = optimize.minimize(objective, start, jac=True, method="BFGS")
        self.weight_, self.bias_ = map(float, found.x)
        lowest = float(temperature(found.x)[0].min())
        self.converged_ = bool(found.success) and lowest > 2 * TEMPERATURES[0]
        if not self.converged_:
            warnings.warn(
                f"entropy-based scaling found no minimum with positive temperatures on {len(y)} samples (the "
                f"lowest is {lowest:.3g}). Use more samples, or temperature scaling.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _temperature(self, z: Floats) -> Floats:
        return np.logaddexp(0, self.weight_ * _log_normalised_entropy(z) + self.bias_) + TEMPERATURES[0]


class ParameterizedTemperatureScaling(_Temperatures):
    """Parameterized temperature scaling (PTS): a small network maps the largest logits to a temperature.

    The network sees the `n_top` largest logits less the largest, sorted and divided by their mean spread, through two
    hidden layers. It is trained on the squared error of the probabilities in batches of 1,000, as published, but with
    a larger learning rate for 1,000 steps and not 100,000, so that it takes seconds.

    Args:
        n_top: number of largest logits.
        width: of the two hidden layers.
        n_steps: steps of Adam.
        lr: its learning rate.
        seed: of the initial weights and the batches.

    Attributes:
        network_: the trained torch network.
        spread_: the divisor of its input.

    Raises:
        As :class:`Calibrator`.

    Source: Tomani, Cremers and Buettner (2022).

    Example:
        >>> z = 3 * np.random.default_rng(0).normal(size=(200, 3))
        >>> pts = ParameterizedTemperatureScaling(n_steps=20).fit(z, z.argmax(1))
        >>> bool((pts.temperature(z) > 0).all())
        True
    """

    def __init__(self, n_top: int = 10, width: int = 5, n_steps: int = 1000, lr: float = 0.005, seed: int = 0) -> None:
        """Keep the options; see the class."""
        self.n_top = n_top
        self.width = width
        self.n_steps = n_steps
        self.lr = lr
        self.seed = seed

    def _fit(self, z: Floats, y: Ints) -> None:
        below = _below(z)
        self.spread_ = float(max(-np.mean(below, where=below > -np.inf), 1e-12))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            sizes = [self._features(z).shape[1], self.width, self.width, 1]
            layers = [torch.nn.Linear(a, b, dtype=torch.float64) for a, b in pairwise(sizes)]
        self.network_ = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
        x, logits = torch.from_numpy(self._features(z)), torch.from_numpy(np.maximum(below, -1e5))  # finite gradients
        one_hot = torch.nn.functional.one_hot(torch.from_numpy(y), self.n_classes_)
        rng = np.random.default_rng(self.seed)
        optimiser = torch.optim.Adam(self.network_.parameters(), lr=self.lr)
        for _ in tqdm(range(self.n_steps), desc="PTS", unit="step", delay=LONG, leave=False):
            rows = torch.from_numpy(rng.choice(len(z), min(len(z), 1000), replace=False))
            optimiser.zero_grad()
            p = (logits[rows] / self._positive(x[rows])[:, None]).softmax(1)
            (p - one_hot[rows]).square().sum(1).mean().backward()
            optimiser.step()

    def _features(self, z: Floats) -> Floats:
        top = -np.sort(-_below(z), axis=1)[:, 1 : self.n_top] / self.spread_
        return np.where(top > -np.inf, top, IMPOSSIBLE)

    def _positive(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.softplus(self.network_(x)[:, 0]) + TEMPERATURES[0]

    def _temperature(self, z: Floats) -> Floats:
        with torch.no_grad():
            return self._positive(torch.from_numpy(self._features(z))).numpy()


class EnsembleTemperatureScaling(Calibrator):
    """Ensemble temperature scaling (ETS): ``w_1 softmax(z / T) + w_2 softmax(z) + w_3 / K``, with z in its unit.

    The uniform part is shared by the classes that are possible for a sample. Where it alone would be best (labels that
    the logits know nothing of), 1e-6 of the second part is kept, so that the most probable class stays.

    Args:
        objective: ``"mse"`` as the official code in fact does, or ``"nll"``, for the weights; T is that of the NLL.

    Attributes:
        temperature_: T.
        weights_: (3,) >= 0, summing to 1.

    Raises:
        ValueError: an unknown objective. Otherwise as :class:`Calibrator`.

    Source: Zhang, Kailkhura and Han (2020).

    Example:
        >>> ets = EnsembleTemperatureScaling().fit([[4.0, 0.0]] * 4, [0, 0, 0, 1])
        >>> ets.predict_proba([[4.0, 0.0]]).round(3).tolist()
        [[0.75, 0.25]]
    """

    keeps_order = True

    def __init__(self, objective: str = "mse") -> None:
        """Keep the options; see the class."""
        self.objective = objective

    def _fit(self, z: Floats, y: Ints) -> None:
        if self.objective not in ("mse", "nll"):
            raise ValueError(f"objective must be 'mse' or 'nll', but got {self.objective!r}")
        self.temperature_ = self.unit_ * best_temperature(z, y)[0]
        parts = self._parts(z)
        of_label = parts[:, np.arange(len(y)), y]
        products = np.einsum("ank,bnk->ab", parts, parts) / len(y)

        def mse(w: Floats) -> tuple[float, Floats]:
            gradient = 2 * (products @ w - of_label.mean(1))
            return float(w @ products @ w - 2 * w @ of_label.mean(1) + 1), gradient

        def nll(w: Floats) -> tuple[float, Floats]:
            p = np.maximum(w @ of_label, 1e-300)
            return float(-np.log(p).mean()), -(of_label / p).mean(1)

        found = optimize.minimize(
            {"mse": mse, "nll": nll}[self.objective],
            np.array([1.0, 0.0, 0.0]),
            jac=True,
            method="SLSQP",
            bounds=[(0, 1)] * 3,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
            options={"ftol": 1e-12, "maxiter": 200},
        )
        weights = np.clip(found.x, 0, 1)
        weights[1] += max(TILT - weights[:2].sum(), 0)  # the uniform part alone would forget the order of the classes
        self.weights_ = weights / weights.sum()

    def _parts(self, z: Floats) -> Floats:
        possible = z > -np.inf
        uniform = possible / possible.sum(1, keepdims=True)
        scaled = z / (self.temperature_ / self.unit_)
        return np.stack([special.softmax(scaled, axis=1), special.softmax(z, axis=1), uniform])

    def _predict(self, z: Floats) -> Floats:
        return np.tensordot(self.weights_, self._parts(z), axes=1)


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
            return _nll(scaled, y), np.concatenate([(gap * z).mean(0), gap.mean(0)])

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
        _check_all_classes(y, self.n_classes_)
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


class _OneVsRest(Calibrator):
    """One map from p_k to the frequency of class k for each class; the rows are renormalised."""

    def _fit(self, z: Floats, y: Ints) -> None:
        p = special.softmax(z, axis=1)
        classes = tqdm(range(self.n_classes_), desc=type(self).__name__, unit="class", delay=LONG, leave=False)
        self.maps_ = [self._fit_class(p[:, k], y == k) for k in classes]

    def _fit_class(self, p: Floats, hit: NDArray[np.bool_]) -> Callable[[Floats], Floats]:
        raise NotImplementedError

    def _predict(self, z: Floats) -> Floats:
        p = special.softmax(z, axis=1)
        return _renormalised(np.column_stack([of_class(p[:, k]) for k, of_class in enumerate(self.maps_)]))


@dataclass(frozen=True)
class _Steps:
    """A step function: values[b] on the right-closed interval between edges[b - 1] and edges[b]."""

    edges: Floats
    values: Floats

    def __call__(self, p: Floats) -> Floats:
        return self.values[np.searchsorted(self.edges, p)]


@dataclass(frozen=True)
class _Logistic:
    """Logistic regression on the log-odds."""

    regression: LogisticRegression

    def __call__(self, p: Floats) -> Floats:
        return self.regression.predict_proba(_log_odds(p)[:, None])[:, 1]


@dataclass(frozen=True)
class _Monotone:
    """Isotonic regression, plus a little of p itself."""

    regression: IsotonicRegression
    tilt: float

    def __call__(self, p: Floats) -> Floats:
        return self.regression.predict(p) + self.tilt * p


class PlattScaling(_OneVsRest):
    """Platt scaling, one class against the rest: a logistic regression (scikit-learn's) on log(p / (1 - p)).

    Attributes:
        maps_: the K maps.

    Raises:
        ValueError: a class without, or with only, validation samples. Otherwise as :class:`Calibrator`.

    Source: Platt (1999).

    Example:
        >>> z = np.random.default_rng(0).normal(size=(300, 3))
        >>> PlattScaling().fit(z, z.argmax(1)).predict_proba(z).shape
        (300, 3)
    """

    def _fit(self, z: Floats, y: Ints) -> None:
        _check_all_classes(y, self.n_classes_)
        super()._fit(z, y)

    def _fit_class(self, p: Floats, hit: NDArray[np.bool_]) -> Callable[[Floats], Floats]:
        return _Logistic(LogisticRegression(C=np.inf, max_iter=200, tol=TOLERANCE).fit(_log_odds(p)[:, None], hit))


class IsotonicCalibration(_OneVsRest):
    """Isotonic regression (scikit-learn's) of the frequency on the probability.

    Args:
        shared: one map for all classes, fitted to all N K pairs (IRM), instead of one for each class. A little of p is
            added to keep the order of the classes.

    Attributes:
        maps_: the K maps.

    Raises:
        As :class:`Calibrator`.

    Source: Zadrozny and Elkan (2002); Zhang, Kailkhura and Han (2020) for the shared map.

    Example:
        >>> z = np.random.default_rng(0).normal(size=(300, 3))
        >>> IsotonicCalibration(shared=True).fit(z, z.argmax(1)).predict_proba(z).shape
        (300, 3)
    """

    def __init__(self, shared: bool = False) -> None:
        """Keep the options; see the class."""
        self.shared = shared

    @property
    def keeps_order(self) -> bool:
        """Only the shared map does."""
        return self.shared

    def _fit(self, z: Floats, y: Ints) -> None:
        if self.shared:
            p = special.softmax(z, axis=1)
            hit = np.zeros_like(p, dtype=bool)
            hit[np.arange(len(y)), y] = True
            self.maps_ = [self._fit_class(p.ravel(), hit.ravel())] * self.n_classes_
        else:
            super()._fit(z, y)

    def _fit_class(self, p: Floats, hit: NDArray[np.bool_]) -> Callable[[Floats], Floats]:
        return _Monotone(IsotonicRegression(out_of_bounds="clip").fit(p, hit), tilt=1e-9 if self.shared else 0.0)


class HistogramBinning(_OneVsRest):
    """Histogram binning, one class against the rest: p_k becomes the frequency of class k in its bin of p_k.

    Args:
        n_bins: number of bins of equal width; an empty one keeps its middle.

    Attributes:
        maps_: the K maps.

    Raises:
        ValueError: `n_bins` < 1. Otherwise as :class:`Calibrator`.

    Source: Zadrozny and Elkan (2001).

    Example:
        >>> HistogramBinning(n_bins=1).fit([[4.0, 0.0]] * 4, [0, 0, 0, 1]).predict_proba([[0.0, 0.0]]).tolist()
        [[0.75, 0.25]]
    """

    def __init__(self, n_bins: int = 15) -> None:
        """Keep the options; see the class."""
        self.n_bins = n_bins

    def _fit_class(self, p: Floats, hit: NDArray[np.bool_]) -> Callable[[Floats], Floats]:
        metrics.check_bins(self.n_bins)
        edges = np.arange(1, self.n_bins) / self.n_bins
        bins = np.searchsorted(edges, p)
        size = np.bincount(bins, minlength=self.n_bins)
        middle = (np.arange(self.n_bins) + 0.5) / self.n_bins
        frequency = np.where(size > 0, np.bincount(bins, hit, self.n_bins) / np.maximum(size, 1), middle)
        return _Steps(edges, frequency)


class BayesianBinning(_OneVsRest):
    """Bayesian binning into quantiles (BBQ), one class against the rest: an average over many histogram binnings.

    A binning has B bins of equal mass, with B from N^(1/3) / spread to N^(1/3) * spread. The frequency of a bin has a
    Beta prior that counts `prior` / B samples at the middle of the bin. This gives each binning a closed posterior
    weight, and the estimates are averaged with these weights.

    Args:
        prior: the N' of the paper, samples that the prior of a whole binning counts for.
        spread: the C of the paper.

    Attributes:
        maps_: the K maps.

    Raises:
        ValueError: `prior` <= 0 or `spread` < 1. Otherwise as :class:`Calibrator`.

    Source: Naeini, Cooper and Hauskrecht (2015), section "BBQ". (netcal's class of this name weighs the binnings by
    AIC or BIC instead.)

    Example:
        >>> z = np.random.default_rng(0).normal(size=(300, 3))
        >>> BayesianBinning().fit(z, z.argmax(1)).predict_proba(z).shape
        (300, 3)
    """

    def __init__(self, prior: float = 2.0, spread: float = 10.0) -> None:
        """Keep the options; see the class."""
        self.prior = prior
        self.spread = spread

    def _fit_class(self, p: Floats, hit: NDArray[np.bool_]) -> Callable[[Floats], Floats]:
        if not self.prior > 0 or not self.spread >= 1:
            raise ValueError(f"prior must be > 0 and spread >= 1, but got {self.prior} and {self.spread}")
        order = np.argsort(p, kind="stable")
        p, hits = p[order], np.append(0, np.cumsum(hit[order]))
        root = len(p) ** (1 / 3)
        sizes = range(max(int(root / self.spread), 1), min(int(root * self.spread), len(p)) + 1)
        binnings, scores = zip(*(self._binning(p, hits, n_bins) for n_bins in sizes), strict=True)
        weights = special.softmax(scores)
        felt = np.flatnonzero(weights > 1e-20)  # the others, most of them, would not change a digit
        binnings, weights = [binnings[i] for i in felt], weights[felt]
        edges = np.unique(np.concatenate([binning.edges for binning in binnings]))
        ends = np.append(edges, 1.0)  # an average of step functions is one, and constant up to each edge of any
        return _Steps(edges, sum(w * binning(ends) for w, binning in zip(weights, binnings, strict=True)))

    def _binning(self, p: Floats, hits: Ints, n_bins: int) -> tuple[_Steps, float]:
        """A binning of sorted probabilities and the log of its marginal likelihood; `hits` are summed from the left."""
        cut = len(p) * np.arange(1, n_bins) // n_bins
        edges = np.unique((p[cut - 1] + p[cut]) / 2)
        position = np.concatenate([[0], np.searchsorted(p, edges, side="right"), [len(p)]])  # equal p share a bin
        size, hit = np.diff(position), np.diff(hits[position])
        limits = np.concatenate([[0.0], edges, [1.0]])
        middle = np.clip((limits[:-1] + limits[1:]) / 2, 1e-9, 1 - 1e-9)
        counts = self.prior / len(size)
        evidence = special.betaln(hit + counts * middle, size - hit + counts * (1 - middle))
        evidence -= special.betaln(counts * middle, counts * (1 - middle))
        return _Steps(edges, (hit + counts * middle) / (size + counts)), float(evidence.sum())


class SplineCalibration(_Temperatures):
    """Spline calibration of the top confidence: the slope of a natural cubic spline through the cumulative gap.

    With the samples sorted by confidence c, the sum of (correct - c) / N is a function h of the share of samples so
    far, and the accuracy at a confidence is c + h'. Natural cubic splines with a few knots are fitted to h by least
    squares. The original says nothing of the other classes; here each sample gets the temperature at which its top
    confidence is the wanted one, so that the order of its classes stays.

    Args:
        n_knots: equally spaced knots.

    Attributes:
        confidences_, accuracies_: the map, linear between these points.

    Raises:
        ValueError: fewer samples than knots. Otherwise as :class:`Calibrator`.

    Source: Gupta et al. (2021).

    Example:
        >>> z = np.random.default_rng(0).normal(size=(300, 3))
        >>> SplineCalibration().fit(z, z.argmax(1)).predict_proba(z).shape
        (300, 3)
    """

    def __init__(self, n_knots: int = 6) -> None:
        """Keep the options; see the class."""
        self.n_knots = n_knots

    def _fit(self, z: Floats, y: Ints) -> None:
        _check_enough(z, self.n_knots)
        p = special.softmax(z, axis=1)
        self.confidences_, group = np.unique(p.max(1), return_inverse=True)
        size = np.bincount(group)
        gap = np.bincount(group, p.argmax(1) == y) / size - self.confidences_  # of equal confidences the mean
        share = np.arange(1, len(y) + 1) / len(y)
        knots = np.linspace(0, 1, self.n_knots)
        # A natural spline is linear in its values at the knots, so its least squares are an ordinary regression.
        spline = interpolate.CubicSpline(knots, np.eye(self.n_knots), bc_type="natural")
        values, *_ = np.linalg.lstsq(spline(share), np.cumsum(np.repeat(gap, size)) / len(y), rcond=None)
        slope = np.bincount(np.sort(group), spline(share, 1) @ values) / size
        self.accuracies_ = self.confidences_ + slope

    def _temperature(self, z: Floats) -> Floats:
        below = _below(z)
        wanted = np.interp(_top_confidence(below, np.ones(len(z))), self.confidences_, self.accuracies_)
        return _temperature_for(below, wanted)


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


def best_temperature(z: Floats, y: Ints) -> tuple[float, bool]:
    """Return the temperature of the lowest NLL, and whether there is one.

    There is one if a sample is wrong and the labels' logits are, on average, above the mean of their rows. Else the NLL
    falls until T = 0 or until T = infinity, and an end of :data:`TEMPERATURES` stands for that, or a temperature beyond
    where that would not be extreme for logits of this size.

    Args:
        z: (N, K) logits; -inf for impossible classes.
        y: (N,) labels.

    Raises:
        ValueError: a label whose logit is -inf.

    Example:
        >>> t, found = best_temperature(np.array([[4.0, 0.0]] * 4), np.array([0, 0, 0, 1]))
        >>> round(t, 4), found
        (3.641, True)
    """
    below = _below(z)
    impossible = np.flatnonzero(_of_label(below, y) == -np.inf)
    if len(impossible):
        raise ValueError(
            f"{len(impossible)} of {len(y)} labels have the logit -inf, the first in row {impossible[0]}: their NLL is "
            "infinite at every temperature. Leave these samples out, or clip probabilities before their logarithm."
        )

    def slope(log_scale: float) -> float:
        with np.errstate(over="ignore"):  # -inf is as good
            return float(_nll_slope(below * np.exp(log_scale), y).mean())  # the sign of the derivative in 1/T

    low, high = -np.log(TEMPERATURES[1]), -np.log(TEMPERATURES[0])
    far, possible = np.log(1e4), below > -np.inf
    if slope(low) >= 0:
        size = -below.min(where=possible, initial=0.0)
        gain = (_of_label(below, y) - np.mean(below, axis=1, where=possible)).mean()  # of sharpness, at T = infinity
        if gain <= 1e-12 * size:
            return max(TEMPERATURES[1], size), False
        while slope(low) >= 0:
            low, high = low - far, low
    elif slope(high) <= 0:
        if (_of_label(below, y) == 0).all():
            size = -below.min(where=possible, initial=0.0)
            return min(TEMPERATURES[0], 0.01 * size), False
        while slope(high) <= 0:
            low, high = high, high + far
    return float(np.exp(-optimize.brentq(slope, low, high, xtol=1e-12))), True


def _below(z: Floats) -> Floats:
    """Logits less the largest of their row, so that nothing can overflow."""
    return z - z.max(1, keepdims=True)


def _of_label(z: Floats, y: Ints) -> Floats:
    return z[np.arange(len(y)), y]


def _nll(z: Floats, y: Ints) -> float:
    return float((special.logsumexp(z, axis=1) - _of_label(z, y)).mean())


def _nll_slope(z: Floats, y: Ints) -> Floats:
    """For each sample the derivative of its NLL when its logits are multiplied by 1 + d."""
    p = special.softmax(z, axis=1)
    return (p * np.where(z > -np.inf, z, 0)).sum(1) - _of_label(z, y)


def _top_confidence(below: Floats, temperature: Floats) -> Floats:
    """max_k softmax(z / T) from z less its row maximum."""
    return 1 / np.exp(below / temperature[:, None]).sum(1)


def _temperature_for(below: Floats, wanted: Floats) -> Floats:
    """The temperatures, inside their range, at which the top confidences are nearest to the wanted ones."""
    low, high = (np.full(len(below), np.log(t)) for t in TEMPERATURES)
    for _ in range(40):  # the confidence falls as the temperature rises: bisection to 1e-11 in log T
        middle = (low + high) / 2
        too_sure = _top_confidence(below, np.exp(middle)) > wanted
        low, high = np.where(too_sure, middle, low), np.where(too_sure, high, middle)
    return np.exp((low + high) / 2)


def _top_ece(confidence: Floats, correct: Floats, n_bins: int) -> float:
    bins = np.searchsorted(np.arange(1, n_bins) / n_bins, confidence)
    return float(np.abs(np.bincount(bins, confidence - correct, n_bins)).sum() / len(correct))


def _log_normalised_entropy(z: Floats) -> Floats:
    entropy = special.entr(special.softmax(z, axis=1)).sum(1)
    return np.log(np.maximum(entropy / np.log(z.shape[1]), 1e-12))  # the floor stands for certainty


def _log_odds(p: Floats) -> Floats:
    return special.logit(np.clip(p, 1e-15, 1 - 1e-15))


def _renormalised(p: Floats) -> Floats:
    total = p.sum(1, keepdims=True)
    return np.where(total > 0, p / np.where(total > 0, total, 1), 1 / p.shape[1])


def _check_enough(z: Floats, n: int) -> None:
    if n < 1 or len(z) < n:
        raise ValueError(f"{len(z)} validation samples are too few for {n} bins or knots. Use fewer, at least 1.")


def _check_all_classes(y: Ints, n_classes: int) -> None:
    missing = np.setdiff1d(np.arange(n_classes), y)
    if len(missing):
        raise ValueError(
            f"each of the {n_classes} classes needs a validation sample, but {missing.tolist()[:10]} have none. "
            f"Use temperature scaling, which needs no sample of every class."
        )
