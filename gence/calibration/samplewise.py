"""Temperatures that depend on the sample, and mixtures of temperatures."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import torch
from scipy import optimize, special
from sklearn.exceptions import ConvergenceWarning

from gence._progress import tqdm
from gence.calibration._likelihood import (
    LONG,
    TEMPERATURES,
    Floats,
    Ints,
    best_temperature,
    less_maximum,
    mean_nll,
    nll_slope,
)
from gence.calibration.base import IMPOSSIBLE, Calibrator, check_enough
from gence.calibration.temperature import Temperatures

__all__ = [
    "BinwiseTemperatureScaling",
    "EnsembleTemperatureScaling",
    "EntropyTemperatureScaling",
    "ParameterizedTemperatureScaling",
]

TILT = 1e-6  # share of softmax(z) that ETS keeps at least


class BinwiseTemperatureScaling(Temperatures):
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
        check_enough(z, self.n_bins)
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


class EntropyTemperatureScaling(Temperatures):
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
            by_t = -nll_slope(scaled, y) / t * slope
            return mean_nll(scaled, y), np.array([(by_t * feature).mean(), by_t.mean()])

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


class ParameterizedTemperatureScaling(Temperatures):
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
        below = less_maximum(z)
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
        top = -np.sort(-less_maximum(z), axis=1)[:, 1 : self.n_top] / self.spread_
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


def _log_normalised_entropy(z: Floats) -> Floats:
    entropy = special.entr(special.softmax(z, axis=1)).sum(1)
    return np.log(np.maximum(entropy / np.log(z.shape[1]), 1e-12))  # the floor stands for certainty
