"""Is one loss better than another? Paired tests, one correction for a whole table, equivalence, and their words.

One rule for every table of the book. Runs are paired by seed. The test is the two-sided exact Wilcoxon signed-rank
test; the interval is its inversion, so both always agree; Holm's correction runs over all rows of a family, and the
p-value that is printed is the one that carries the verdict. Without a verdict a row is *open*. That two losses are
*equivalent* needs a margin that was stated beforehand.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

__all__ = [
    "compare",
    "comparison_table",
    "corrected_interval",
    "holm",
    "signed_rank_interval",
    "signed_rank_p",
    "with_verdict",
]

LEVEL = 0.95
# Errors are multiples of 1/N: the last bits are rounded away, so that equal differences are ties on every machine.
DECIMALS = 12


def signed_rank_p(values: ArrayLike, alternative: str = "two-sided") -> np.ndarray:
    """Exact p-values of Wilcoxon's signed-rank test that paired differences lie around 0.

    The rank sum of the positive differences is the number of pairs (i <= j) whose mean is above 0. Zeros and ties of
    opposite sign make means of exactly 0; these count half on each side. (Wilcoxon dropped zeros. Then no interval
    belongs to the test: zeros would be dropped at 0 and counted next to it.) Without zeros and ties the level is exact.
    With them it is kept on rounded normal differences (0.046 or less at 0.05); the worst of all patterns of 6 to 12
    differences of sizes 0 to 3 has 0.07.

    Args:
        values: (..., n) differences; the last axis is tested.
        alternative: ``"two-sided"``, ``"less"`` or ``"greater"``.

    Returns:
        (...) p-values; 1 where nothing differs. With n differences a two-sided one cannot be below 2^(1-n).

    Raises:
        ValueError: an unknown alternative, or NaN among the values.

    Source: Wilcoxon (1945); ``scipy.stats.wilcoxon`` with ``method="exact", zero_method="zsplit"``, but vectorised.

    Example:
        >>> float(signed_rank_p([-3, -2, -1, -4, -5, -6])), float(signed_rank_p([-1, 0, 1]))
        (0.03125, 1.0)
    """
    sums = _pair_sums(values)
    p_up_to, halves = _rank_sum_cdf(np.shape(values)[-1]), (sums == 0).sum(axis=-1) / 2
    # A half is rounded up, to the larger p.
    less, greater = (p_up_to[np.ceil((side > 0).sum(axis=-1) + halves).astype(int)] for side in (sums, -sums))
    found = {"less": less, "greater": greater, "two-sided": np.minimum(1, 2 * np.minimum(less, greater))}
    if alternative not in found:
        raise ValueError(f"alternative must be one of {', '.join(found)}, but got {alternative!r}")
    return found[alternative]


def signed_rank_interval(values: ArrayLike, *, level: float = LEVEL) -> tuple[float, float, float]:
    """Hodges-Lehmann estimate of the typical difference, and the interval that :func:`signed_rank_p` gives.

    The interval holds the shifts that the two-sided test does not reject: if p is at least 1 - `level`, 0 lies in it,
    else the interval lies on one side of 0. (With zeros or ties an end can be exactly 0; then it is not part of it.)

    Args:
        values: (n,) differences.
        level: of the interval.

    Returns:
        The median of the means of all pairs of differences (Walsh averages), and the ends ``low``, ``high``: two of
        these averages; infinite where n is too small for any rejection (below 6 at 95 %).

    Source: Hodges and Lehmann (1963).

    Example:
        >>> signed_rank_interval([1, 2, 3, 4, 5, 6])
        (3.5, 1.0, 6.0)
    """
    walsh = np.sort(_pair_sums(values)) / 2
    # Rank sums that are rejected: 0, 1, ..., outside - 1.
    outside = int(np.searchsorted(2 * _rank_sum_cdf(len(values)), 1 - level, side="left"))
    low, high = (walsh[outside - 1], walsh[-outside]) if outside else (-np.inf, np.inf)
    return float(np.median(walsh)), float(low), float(high)


def _pair_sums(values: ArrayLike) -> np.ndarray:
    """(..., n) differences to the (..., n(n+1)/2) sums of all pairs i <= j, twice the Walsh averages."""
    differences = np.round(np.asarray(values, dtype=float), DECIMALS)
    if np.isnan(differences).any():
        raise ValueError("a difference is NaN: leave out the seed, for both losses, and say so")
    i, j = np.triu_indices(differences.shape[-1])
    return differences[..., i] + differences[..., j]


@lru_cache
def _rank_sum_cdf(n: int) -> np.ndarray:
    """P(W <= w) of the sum of the positive ones of n ranks with random signs, for w = 0, ..., n(n+1)/2."""
    mass = np.ones(1)
    for rank in range(1, n + 1):
        mass = (np.pad(mass, (0, rank)) + np.pad(mass, (rank, 0))) / 2
    return np.minimum(1, np.cumsum(mass))


def compare(
    baseline: Mapping[int, float] | pd.Series,
    candidate: Mapping[int, float] | pd.Series,
    *,
    level: float = LEVEL,
    margin: float | None = None,
) -> dict[str, float]:
    """Compare two losses seed by seed.

    Args:
        baseline: seed to value, for example the errors of CE.
        candidate: seed to value for the same seeds.
        level: of the interval.
        margin: differences below it do not matter; stated before the runs, in the unit of the values.

    Returns:
        ``n``; means and standard deviations of both; ``difference``, the mean of candidate - baseline; ``typical``,
        the Hodges-Lehmann estimate, with its interval ``low``, ``high``; ``p``, two-sided, that agrees with it, and
        ``side``: -1 where the candidate tends to be lower, 1 where higher; ``margin`` and ``p_equivalence``, the larger
        p of two one-sided tests against -margin and margin (NaN without a margin); ``wins``, the number of seeds in
        which the candidate is lower, and ``ties``.

    Raises:
        ValueError: different seeds, fewer than 2 of them, NaN values, a margin that is not above 0.

    Source: the tests, :func:`signed_rank_p`; equivalence, Schuirmann (1987), here with ranks.

    Example:
        >>> result = compare({n: 0.3 + n / 100 for n in range(8)}, {n: 0.2 for n in range(8)}, margin=0.2)
        >>> round(result["difference"], 3), result["p"], round(result["low"], 3), round(result["high"], 3)
        (-0.135, 0.0078125, -0.16, -0.11)
        >>> result["p_equivalence"]
        0.00390625
    """
    a, b = pd.Series(baseline, dtype=float).sort_index(), pd.Series(candidate, dtype=float).sort_index()
    if not a.index.equals(b.index) or not a.index.is_unique:
        raise ValueError(f"the seeds differ or repeat: baseline {list(a.index)}, candidate {list(b.index)}")
    if len(a) < 2 or a.isna().any() or b.isna().any():
        raise ValueError(f"need at least 2 seeds without NaN, but got {len(a)} seeds")
    if margin is not None and not margin > 0:
        raise ValueError(f"a margin of equivalence is a number above 0, but got {margin!r}")
    difference = np.round((b - a).to_numpy(), DECIMALS)
    typical, low, high = signed_rank_interval(difference, level=level)
    below, above = (float(signed_rank_p(difference, alternative)) for alternative in ("less", "greater"))
    return {
        "n": len(a),
        "baseline_mean": float(a.mean()),
        "baseline_sd": float(a.std(ddof=1)),
        "candidate_mean": float(b.mean()),
        "candidate_sd": float(b.std(ddof=1)),
        "difference": float(np.round(difference.mean(), DECIMALS)),
        "typical": typical,
        "low": low,
        "high": high,
        "p": float(signed_rank_p(difference)),
        "side": int(np.sign(below - above)),
        "margin": np.nan if margin is None else float(margin),
        "p_equivalence": np.nan if margin is None else _p_equivalence(difference, margin),
        "wins": int((difference < 0).sum()),
        "ties": int((difference == 0).sum()),
    }


def _p_equivalence(difference: np.ndarray, margin: float) -> float:
    return float(max(signed_rank_p(difference - margin, "less"), signed_rank_p(difference + margin, "greater")))


def comparison_table(
    results: pd.DataFrame,
    metrics: Sequence[str],
    *,
    by: Sequence[str],
    baseline: str = "ce",
    candidate: str | Sequence[str] = "gence",
    level: float = LEVEL,
    margins: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Compare losses with a baseline in every setting and metric, with one correction over all rows.

    Args:
        results: one row for each loss, seed and setting, with columns ``loss``, ``seed``, `by` and `metrics`.
        metrics: columns to compare.
        by: columns that make a setting.
        baseline: a value of ``loss``.
        candidate: another one, or a list of those that are compared where a setting has them; then the column ``loss``
            says which.
        level: of the intervals and of the verdict.
        margins: metric to its margin of equivalence, stated before the runs.

    Returns:
        One row for each setting, candidate and metric: `by`, ``metric``, the columns of :func:`compare` and of
        :func:`with_verdict`.

    Raises:
        ValueError: as :func:`compare`; a loss or the metric of a margin that is not there; a name in `by` that is also
            a column of the result.

    Example:
        >>> table = pd.DataFrame({"loss": ["ce"] * 6 + ["gence"] * 6, "seed": [*range(6)] * 2, "rho": 1,
        ...                       "error": [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]})
        >>> comparison_table(table, ["error"], by=["rho"])["verdict"].tolist()
        ['lower']
    """
    several, margins = not isinstance(candidate, str), margins or {}
    candidates = list(candidate) if several else [candidate]
    if unknown := {baseline, *candidates} - set(results["loss"]):
        raise ValueError(
            f"no row of {sorted(unknown)}. The losses here are: {', '.join(sorted(set(results['loss'])))}."
        )
    if unknown := set(margins) - set(metrics):
        raise ValueError(f"margins of {sorted(unknown)}, but the metrics compared are: {', '.join(metrics)}")
    rows = []
    for setting, group in results.groupby(list(by), sort=False):
        values = group.pivot(index="seed", columns="loss")
        here = [loss for loss in candidates if loss in set(group["loss"])] if several else candidates
        for loss, metric in itertools.product(here, metrics):
            pair = values[metric][baseline], values[metric][loss]
            named = ({"loss": loss} if several else {}) | {"metric": metric}
            found = named | compare(*pair, level=level, margin=margins.get(metric))
            if clash := set(by) & set(found):
                raise ValueError(f"the result has its own column {sorted(clash)}: rename this one in `by`")
            rows.append(dict(zip(by, setting, strict=True)) | found)
    return with_verdict(pd.DataFrame(rows), level=level)


def with_verdict(comparisons: pd.DataFrame, *, level: float = LEVEL) -> pd.DataFrame:
    """Say of each row what it shows, with one correction over all of them: a family.

    A row asks whether the two differ and, where it has a margin, whether they are equivalent. At most one of the two
    nulls of a row is true, so :func:`holm` counts rows: the chance of any wrong verdict in the family is at most
    1 - `level`.

    Args:
        comparisons: one row for each :func:`compare`.
        level: a verdict needs a corrected p below 1 - `level`.

    Returns:
        The rows with ``verdict``: ``"lower"``, ``"higher"``, ``"equivalent"`` (closer than the margin, even where a
        difference is shown too) or ``"open"``, and ``p_holm``, the corrected p that carries it; for an open row, the
        smallest.

    Example:
        >>> less = compare({n: 0.2 for n in range(6)}, {n: 0.1 for n in range(6)})
        >>> with_verdict(pd.DataFrame([less]))[["verdict", "p_holm"]].values.tolist()
        [['lower', 0.03125]]
    """
    corrected = holm(comparisons[["p", "p_equivalence"]])
    different, equivalent = (corrected < 1 - level).T  # NaN is not
    side = comparisons["side"].to_numpy()
    verdict = np.select([equivalent, different & (side < 0), different], ["equivalent", "lower", "higher"], "open")
    p = np.where(equivalent, corrected[:, 1], np.where(different, corrected[:, 0], np.nanmin(corrected, axis=1)))
    return comparisons.assign(p_holm=p, verdict=verdict)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down correction for testing several hypotheses at once.

    Args:
        p_values: (rows,) uncorrected; or (rows, k) of hypotheses of which at most one in each row can be true, NaN
            where a row has fewer. Then a p is multiplied by the number of rows with a hypothesis that still stands.

    Returns:
        Corrected p-values, in the same shape: some true hypothesis gets one below alpha with a chance of at
        most alpha.

    Raises:
        ValueError: a p outside [0, 1].

    Source: Holm (1979); for hypotheses that exclude each other, Shaffer (1986).

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
        >>> holm([[0.01, 0.9], [0.04, np.nan]]).tolist()
        [[0.02, 0.9], [0.08, nan]]
    """
    p = np.asarray(p_values, dtype=float)
    if not ((p >= 0) & (p <= 1) | np.isnan(p)).all():
        raise ValueError(f"p-values lie in [0, 1], but got {p[(p < 0) | (p > 1)].tolist()}")
    table = p.reshape(len(p), -1)
    asked = np.flatnonzero(~np.isnan(table))
    order = asked[np.argsort(table.flat[asked], kind="stable")]
    place = np.full(table.shape, -1)
    place.flat[order] = np.arange(len(order))
    # A row still stands at a step if its last hypothesis has not been rejected before it.
    standing = (place.max(axis=1, keepdims=True) >= np.arange(len(order))).sum(axis=0)
    corrected = np.full(table.shape, np.nan)
    corrected.flat[order] = np.maximum.accumulate(np.minimum(1, standing * table.flat[order]))
    return corrected.reshape(p.shape)


def corrected_interval(differences: ArrayLike, n_train: int, n_test: int, *, level: float = LEVEL) -> dict[str, float]:
    """Interval and test of the mean difference for splits that are drawn from one pool of samples.

    Such splits share samples, so their differences are not independent: other intervals hold for new splits of this
    pool, this one, wider, for new data.

    Args:
        differences: (J,), one for each split.
        n_train: samples in a training set.
        n_test: samples in a test set.
        level: of the interval.

    Returns:
        ``n``, ``difference``, ``low``, ``high`` and the two-sided ``p``.

    Raises:
        ValueError: fewer than 2 differences, NaN, or an empty set.

    Source: the corrected resampled t-test, Nadeau and Bengio (2003): a variance of (1/J + n_test/n_train) s^2.

    Example:
        >>> found = corrected_interval([-1.0, -2.0, -3.0, -2.0], n_train=100, n_test=50)
        >>> [round(found[name], 2) for name in ("difference", "low", "high", "p")]
        [-2.0, -4.25, 0.25, 0.07]
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2 or np.isnan(values).any():
        raise ValueError(f"need at least 2 splits without NaN, but got {len(values)}")
    if min(n_train, n_test) < 1:
        raise ValueError(f"need samples to train and to test, but got n_train={n_train}, n_test={n_test}")
    mean, freedom = float(values.mean()), len(values) - 1
    error = float(np.sqrt((1 / len(values) + n_test / n_train) * values.var(ddof=1)))
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom)) if error else float(mean == 0)
    return {"n": len(values), "difference": mean, "low": mean - half, "high": mean + half, "p": p}
