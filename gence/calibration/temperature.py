"""One temperature for all samples, and Algorithm 1 (adaptive temperature scaling)."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import special
from sklearn.exceptions import ConvergenceWarning

from gence import metrics
from gence._progress import tqdm
from gence.calibration._likelihood import LONG, PUBLISHED, TEMPERATURES, Floats, Ints, best_temperature, less_maximum
from gence.calibration.base import Calibrator, check_enough

__all__ = ["AdaptiveTemperatureScaling", "TemperatureScaling"]


class Temperatures(Calibrator):
    """softmax(z / T(x)) with a positive temperature for each sample, which never changes the most probable class."""

    keeps_order = True

    def temperature(self, logits: ArrayLike) -> Floats:
        """Return the temperature (N,) that each sample gets."""
        return self._temperature(self._checked(logits)) * self.unit_

    def _temperature(self, z: Floats) -> Floats:
        raise NotImplementedError

    def _predict(self, z: Floats) -> Floats:
        return special.softmax(less_maximum(z) / self._temperature(z)[:, None], axis=1)

    def _say_if_scaled(self) -> None:
        """Algorithms with a published range of temperatures are not run as published where another unit is taken."""
        if self.unit_ != 1:
            warnings.warn(
                f"{type(self).__name__}: the best temperature of these logits lies outside the published range "
                f"{PUBLISHED}. They are divided by unit_ = {self.unit_:g} first.",
                UserWarning,
                stacklevel=4,
            )


class TemperatureScaling(Temperatures):
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


class AdaptiveTemperatureScaling(Temperatures):
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
        check_enough(z, self.n_bins)
        self._say_if_scaled()
        below = less_maximum(z)
        correct = (z.argmax(1) == y).astype(np.float64)
        confidence = top_confidence(below, np.ones(len(z)))
        self.thresholds_ = np.quantile(confidence, np.arange(1, self.n_bins) / self.n_bins)
        bins = np.searchsorted(self.thresholds_, confidence)
        size = np.maximum(np.bincount(bins, minlength=self.n_bins), 1)
        temperatures = np.ones(self.n_bins)
        tried, errors = [temperatures], [_top_ece(confidence, correct, self.selection_bins)]
        for _ in tqdm(range(self.n_rounds), desc="ATS", unit="round", delay=LONG, leave=False):
            gap = np.bincount(bins, confidence - correct, self.n_bins) / size
            change = np.clip(self.step * gap, -self.clip, self.clip)
            temperatures = np.clip(temperatures + change, low, high)
            confidence = top_confidence(below, temperatures[bins])
            tried.append(temperatures)
            errors.append(_top_ece(confidence, correct, self.selection_bins))
        self.history_ = np.array(errors)
        self.best_round_ = int(self.history_.argmin()) if self.select == "ece" else self.n_rounds
        self.temperatures_ = tried[self.best_round_]

    def _temperature(self, z: Floats) -> Floats:
        confidence = top_confidence(less_maximum(z), np.ones(len(z)))
        return self.temperatures_[np.searchsorted(self.thresholds_, confidence)]


def top_confidence(below: Floats, temperature: Floats) -> Floats:
    """max_k softmax(z / T) from z less its row maximum.

    By PyTorch: on CPUs without AVX-512 its exponential is four times as fast as NumPy's, and ATS waits for little else.
    """
    scaled = torch.from_numpy(below) / torch.from_numpy(temperature)[:, None]
    return scaled.exp_().sum(1).reciprocal_().numpy()


def temperature_for(below: Floats, wanted: Floats) -> Floats:
    """The temperatures, inside their range, at which the top confidences are nearest to the wanted ones."""
    low, high = (np.full(len(below), np.log(t)) for t in TEMPERATURES)
    for _ in range(40):  # the confidence falls as the temperature rises: bisection to 1e-11 in log T
        middle = (low + high) / 2
        too_sure = top_confidence(below, np.exp(middle)) > wanted
        low, high = np.where(too_sure, middle, low), np.where(too_sure, high, middle)
    return np.exp((low + high) / 2)


def _top_ece(confidence: Floats, correct: Floats, n_bins: int) -> float:
    bins = np.searchsorted(np.arange(1, n_bins) / n_bins, confidence)
    return float(np.abs(np.bincount(bins, confidence - correct, n_bins)).sum() / len(correct))
