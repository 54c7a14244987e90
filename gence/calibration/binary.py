"""Calibrators of one class against the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, special
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from gence import metrics
from gence._progress import tqdm
from gence.calibration._likelihood import LONG, TOLERANCE, Floats, Ints, less_maximum
from gence.calibration.base import Calibrator, check_all_classes, check_enough, log_odds, renormalised
from gence.calibration.temperature import Temperatures, temperature_for, top_confidence

__all__ = ["BayesianBinning", "HistogramBinning", "IsotonicCalibration", "PlattScaling", "SplineCalibration"]


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
        return renormalised(np.column_stack([of_class(p[:, k]) for k, of_class in enumerate(self.maps_)]))


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
        return self.regression.predict_proba(log_odds(p)[:, None])[:, 1]


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
        check_all_classes(y, self.n_classes_)
        super()._fit(z, y)

    def _fit_class(self, p: Floats, hit: NDArray[np.bool_]) -> Callable[[Floats], Floats]:
        return _Logistic(LogisticRegression(C=np.inf, max_iter=200, tol=TOLERANCE).fit(log_odds(p)[:, None], hit))


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


class SplineCalibration(Temperatures):
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
        check_enough(z, self.n_knots)
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
        below = less_maximum(z)
        wanted = np.interp(top_confidence(below, np.ones(len(z))), self.confidences_, self.accuracies_)
        return temperature_for(below, wanted)
