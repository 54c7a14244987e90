"""One rule for all comparisons: an exact test, an interval that agrees, a family that keeps its level, right words."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from gence.lab.results import statistics, wording
from gence.lab.results.statistics import compare, comparison_table, holm, signed_rank_p, with_verdict
from gence.lab.results.wording import comparison_markdown

ALPHA = 0.05
# Few distinct values, so that zeros and ties are the rule.
COARSE = st.lists(st.integers(-4, 4).map(lambda k: k / 8), min_size=2, max_size=25)
FINE = st.lists(st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 9)), min_size=2, max_size=25)


def enumerated_p(values: np.ndarray) -> float:
    """Two-sided p by all sign patterns, for values without zeros and ties."""
    ranks = stats.rankdata(np.abs(values))
    sums = np.array([ranks @ np.array(signs) for signs in itertools.product((0, 1), repeat=len(values))])
    seen = ranks @ (values > 0)
    return min(1.0, 2 * min((sums <= seen).mean(), (sums >= seen).mean()))


@pytest.mark.parametrize("n", [2, 5, 8, 11])
def test_without_ties_the_p_value_is_that_of_all_sign_patterns(n):
    for seed in range(10):
        values = np.random.default_rng([n, seed]).normal(0.5, 1, n)
        assert signed_rank_p(values) == pytest.approx(enumerated_p(values), abs=1e-12)
        assert signed_rank_p(values) == signed_rank_p(-values)
        for side in ("less", "greater"):
            assert signed_rank_p(values, side) == stats.wilcoxon(values, alternative=side).pvalue


def test_with_ties_and_zeros_the_p_value_is_that_of_scipy():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        values = rng.integers(-3, 4, rng.integers(2, 25))
        for side in ("two-sided", "less", "greater"):
            expected = stats.wilcoxon(values, alternative=side, method="exact", zero_method="zsplit").pvalue
            assert signed_rank_p(values, side) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="two-sided, but got 'lower'"):
        signed_rank_p([1.0], "lower")


@pytest.mark.parametrize("n", [6, 10])
def test_the_level_with_ties_and_zeros_is_the_stated_one(n):
    """Of all sign patterns of any sizes 0 to 3, at most 7 % get a p below 0.05, and at most 1.6 % one below 0.01."""
    signs = np.array(list(itertools.product((-1, 1), repeat=n)))
    for sizes in itertools.combinations_with_replacement((0, 1, 2, 3), n):
        p = signed_rank_p(signs * np.array(sizes))
        assert (p < 0.05).mean() < 0.071 and (p < 0.01).mean() < 0.016, sizes


def test_a_p_value_of_nan_is_refused():
    with pytest.raises(ValueError, match="leave out the seed"):
        signed_rank_p([0.1, np.nan])


@given(values=st.one_of(COARSE, FINE), level=st.sampled_from([0.8, 0.9, 0.9375, 0.95, 0.99]))
def test_a_verdict_is_never_contradicted_by_its_interval(values, level):
    found = compare(dict.fromkeys(range(len(values)), 0.0), dict(enumerate(values)), level=level)
    assert found["low"] <= found["typical"] <= found["high"]
    if found["p"] >= 1 - level:
        assert found["low"] <= 0 <= found["high"]
    else:
        assert found["low"] >= 0 if found["side"] > 0 else found["high"] <= 0
        if (np.array(values) != 0).all() and len({abs(v) for v in values}) == len(values):
            assert found["low"] > 0 or found["high"] < 0  # without zeros and ties no end can be 0


@given(values=st.one_of(COARSE, FINE), shift=st.integers(-40, 40).map(lambda k: k / 32 + 1 / 97))
def test_the_interval_holds_the_shifts_that_are_not_rejected(values, shift):
    _, low, high = statistics.signed_rank_interval(values)
    assert (signed_rank_p(np.array(values) - shift) >= ALPHA) == (low <= shift <= high)


@given(values=st.one_of(COARSE, FINE), margin=st.integers(1, 60).map(lambda k: k / 64 + 1 / 193))
def test_equivalence_is_the_90_percent_interval_inside_the_margin(values, margin):
    found = compare(dict.fromkeys(range(len(values)), 0.0), dict(enumerate(values)), margin=margin)
    _, low, high = statistics.signed_rank_interval(values, level=0.9)
    assert (found["p_equivalence"] < ALPHA) == (-margin < low and high < margin)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_too_few_seeds_have_no_interval_and_no_verdict(n):
    found = compare(dict.fromkeys(range(n), 0.0), dict.fromkeys(range(n), 1.0))
    assert (found["low"], found["high"]) == (-np.inf, np.inf) and found["p"] == 2.0 ** (1 - n)
    assert "too few seeds" in wording.difference_text(found)


def test_compare_agrees_with_arithmetic_by_hand():
    rng = np.random.default_rng(0)
    a = pd.Series(rng.normal(size=12))
    b = a + rng.normal(-0.3, 1, size=12)
    got = compare(a, b.sample(frac=1, random_state=1), margin=2.0)  # pairs by seed, not by position
    d = (b - a).to_numpy()
    walsh = sorted((d[i] + d[j]) / 2 for i in range(12) for j in range(i, 12))
    assert got["p"] == stats.wilcoxon(d).pvalue
    # The table of the signed-rank test: with 12 pairs a sum of at most 13 is significant at 5 %, two-sided.
    assert (got["typical"], got["low"], got["high"]) == pytest.approx(
        (np.median(walsh), walsh[13], walsh[-14]), abs=1e-11
    )
    assert got["difference"] == pytest.approx(d.mean()) and got["wins"] == (d < 0).sum()
    assert got["p_equivalence"] == max(
        stats.wilcoxon(d - 2, alternative="less").pvalue, stats.wilcoxon(d + 2, alternative="greater").pvalue
    )
    means = a.mean(), a.std(ddof=1), b.mean(), b.std(ddof=1)
    assert tuple(got[k] for k in ("baseline_mean", "baseline_sd", "candidate_mean", "candidate_sd")) == means


def test_compare_handles_ties_and_refuses_what_cannot_be_paired():
    same = dict.fromkeys(range(8), 0.1)
    found = compare(same, same)
    assert (found["p"], found["side"], found["ties"], found["low"], found["high"]) == (1.0, 0, 8, 0.0, 0.0)
    assert np.isnan(found["margin"]) and np.isnan(found["p_equivalence"])
    with pytest.raises(ValueError, match="seeds differ"):
        compare({0: 0.1, 1: 0.2}, {0: 0.1, 2: 0.2})
    with pytest.raises(ValueError, match="at least 2"):
        compare({0: 0.1}, {0: 0.2})
    for margin in (0, -0.1, np.nan):
        with pytest.raises(ValueError, match="a number above 0"):
            compare(same, same, margin=margin)


def test_holm_is_that_of_statsmodels():
    rng = np.random.default_rng(2)
    for size in (1, 2, 3, 18):
        for p in (rng.uniform(0, 0.2, size), rng.choice([0.0, 0.01, 0.05, 1.0], size)):
            assert np.allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-15)


@given(p=st.lists(st.tuples(st.floats(0, 1), st.one_of(st.just(np.nan), st.floats(0, 1))), min_size=1, max_size=4))
def test_of_hypotheses_that_exclude_each_other_holm_is_the_closed_test(p):
    """By the closure principle: the largest Bonferroni p of all sets of hypotheses that can be true together."""
    table = np.array(p)
    choices = [[None, *np.flatnonzero(~np.isnan(row))] for row in table]
    expected = np.full(table.shape, np.nan)
    for chosen in itertools.product(*choices):
        held = [(row, column) for row, column in enumerate(chosen) if column is not None]
        if held:
            bonferroni = min(1.0, len(held) * min(table[at] for at in held))
            for at in held:
                expected[at] = np.nanmax([expected[at], bonferroni])
    assert np.allclose(holm(table), expected, equal_nan=True)


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match=r"\[1.5\]"):
        holm([0.1, 1.5])


def row(difference: float, *, spread: float = 0.01, n: int = 10, margin: float | None = None) -> dict:
    ranks = np.arange(n) - (n - 1) / 2
    return compare(dict.fromkeys(range(n), 0.0), dict(enumerate(difference + spread * ranks)), margin=margin)


def test_verdicts_and_the_p_values_that_carry_them():
    rows = [row(-1.0), row(1.0), row(0.0), row(0.0, margin=0.1), row(0.0, margin=0.01), row(-0.06, margin=0.5)]
    table = with_verdict(pd.DataFrame(rows))
    # The last one is both lower and closer than the margin.
    assert table["verdict"].tolist() == ["lower", "higher", "open", "equivalent", "open", "equivalent"]
    least = 2.0**-10  # one-sided; two-sided twice as much
    assert table["p_holm"].iloc[[0, 1, 3, 5]].tolist() == pytest.approx([12 * least, 12 * least, 6 * least, 6 * least])
    assert (table["p_holm"].iloc[[2, 4]] >= ALPHA).all()
    assert "verdict" not in pd.DataFrame(rows)
    # Without a margin nothing is equivalent, however equal.
    assert with_verdict(pd.DataFrame([row(0.0, spread=0.0)]))["verdict"].tolist() == ["open"]


def test_the_p_value_of_a_row_is_below_the_level_exactly_where_it_has_a_verdict():
    rng = np.random.default_rng(5)
    rows = [
        compare(dict.fromkeys(range(12), 0.0), dict(enumerate(rng.normal(m, 1, 12))), margin=s)
        for m in (-2, -1, 0, 0.6, 2)
        for s in (None, 1, 3)
    ]
    table = with_verdict(pd.DataFrame(rows))
    assert ((table["p_holm"] < ALPHA) == (table["verdict"] != "open")).all()
    assert set(table["verdict"]) == {"lower", "higher", "equivalent", "open"}


# Simulated pages of 18 rows, 1,000 times, with 20 or with 10 seeds. Paired differences are normal with standard
# deviation 1, in most tests rounded to quarters, so that zeros and ties are as many as among errors of small test sets.
PAGES, ROWS = 1000, 18


def pages(
    mean: np.ndarray | float, n: int, *, margin: float | None = None, number: int = PAGES, step: float = 0.25
) -> pd.DataFrame:
    """Verdicts of simulated pages, each a family of its own; `mean` is one number or one for each row."""
    d = np.random.default_rng(n).normal(0, 1, (number, ROWS, n)) + np.reshape(mean, (1, -1, 1))
    d = step * np.round(d / step)
    less, greater = signed_rank_p(d, "less"), signed_rank_p(d, "greater")
    within = np.full(less.shape, np.nan)
    if margin is not None:
        within = np.maximum(signed_rank_p(d - margin, "less"), signed_rank_p(d + margin, "greater"))
    columns = {"p": signed_rank_p(d), "side": np.sign(less - greater), "p_equivalence": within}
    for at in ((0, 0), (7, 3)):  # vectorised, but what compare says
        single = compare(dict.fromkeys(range(n), 0.0), dict(enumerate(d[at])), margin=margin)
        assert all(np.allclose(values[at], single[name], equal_nan=True) for name, values in columns.items())
    columns |= {"less": less, "greater": greater}
    return pd.concat(
        with_verdict(pd.DataFrame({name: values[page] for name, values in columns.items()})).assign(page=page)
        for page in range(number)
    )


def share_of_pages(table: pd.DataFrame, wrong: pd.Series) -> float:
    return float(wrong.groupby(table["page"]).any().mean())


@pytest.mark.parametrize("n", [20, 10])
def test_where_nothing_differs_at_most_one_page_in_twenty_has_a_verdict(n):
    """Measured: 4.8 % of the pages with 20 seeds, 3.1 % with 10. One correction for each side, as once: 7.9, 6.6 %."""
    table = pages(0.0, n, step=0.01)
    assert share_of_pages(table, table["verdict"] != "open") <= 0.06
    two_corrections = table.groupby("page")[["less", "greater"]].apply(
        lambda page: (np.minimum(holm(page["less"]), holm(page["greater"])) < ALPHA).any()
    )
    assert two_corrections.mean() > 0.06  # so this simulation can fail


def test_many_ties_make_no_more_verdicts():
    """Differences in quarters of a standard deviation; measured: 4.2 % of the pages."""
    table = pages(0.0, 20)
    assert share_of_pages(table, table["verdict"] != "open") <= 0.06


@pytest.mark.parametrize("n", [20, 10])
def test_with_margins_too_at_most_one_page_in_twenty_has_a_wrong_verdict(n):
    """In half of the rows nothing differs, in the others the difference is the margin itself, 1 sd: the worst cases."""
    table = pages(np.repeat([0.0, 1.0], ROWS // 2), n, margin=1.0, number=400)
    same = table.index < ROWS // 2
    wrong = np.where(same, table["verdict"].isin(["lower", "higher"]), table["verdict"].isin(["lower", "equivalent"]))
    assert share_of_pages(table, pd.Series(wrong, table.index)) <= 0.06
    at_the_margin = pages(1.0, n, margin=1.0, number=400)
    assert share_of_pages(at_the_margin, at_the_margin["verdict"] == "equivalent") <= 0.06


@pytest.mark.parametrize(("n", "one_row", "all_rows"), [(20, 0.81, 0.965), (10, 0.11, 0.12)])
def test_the_power_to_find_a_difference_of_one_standard_deviation(n, one_row, all_rows):
    """With 20 seeds a page of 18 rows finds it in 81 % (one such row) to 96 % (all rows), with 10 in 11 to 12 %."""
    alone = pages(np.r_[1.0, np.zeros(ROWS - 1)], n)
    assert (alone.loc[0, "verdict"] == "higher").mean() == pytest.approx(one_row, abs=0.01)
    together = pages(1.0, n, number=200)
    assert (together["verdict"] == "higher").mean() == pytest.approx(all_rows, abs=0.01)
    assert not (together["verdict"] == "lower").any()


@pytest.mark.parametrize(("n", "one_sd", "one_and_a_half"), [(20, 0.73, 0.995), (10, 0.04, 0.39)])
def test_the_power_to_find_equivalence(n, one_sd, one_and_a_half):
    """Where nothing differs: 73 % of the rows with 20 seeds (99.9 % within 1.5 sd), 4 % (39 %) with 10."""
    for margin, expected in ((1.0, one_sd), (1.5, one_and_a_half)):
        table = pages(0.0, n, margin=margin, number=200)
        assert (table["verdict"] == "equivalent").mean() == pytest.approx(expected, abs=0.01)


def long_table(steps: dict[str, float], settings: str, spread: float = 0.01) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"loss": loss, "seed": s, "setting": name, "error": s + step * (1 + spread * s)}
            for name in settings
            for loss, step in steps.items()
            for s in range(10)
        ]
    )


def test_several_candidates_are_corrected_together():
    rows = long_table({"ce": 0.0, "better": -1.0, "worse": 1.0, "same": 0.0}, "ab")
    table = comparison_table(rows, ["error"], by=["setting"], candidate=["worse", "better", "same"])
    assert table[["setting", "loss"]].to_numpy().tolist() == [[s, c] for s in "ab" for c in ("worse", "better", "same")]
    assert table["verdict"].tolist() == ["higher", "lower", "open"] * 2
    assert table["p_holm"].tolist() == pytest.approx([6 * 2**-9, 6 * 2**-9, 1] * 2)
    one = comparison_table(rows, ["error"], by=["setting"], candidate="better")
    assert one["p_holm"].tolist() == pytest.approx([2 * 2**-9] * 2) and "loss" not in one
    gaps = rows[(rows["setting"] != "b") | (rows["loss"] != "same")]
    table = comparison_table(gaps, ["error"], by=["setting"], candidate=["better", "same"])
    assert table[["setting", "loss"]].to_numpy().tolist() == [["a", "better"], ["a", "same"], ["b", "better"]]
    with pytest.raises(ValueError, match=r"no row of \['bettr'\]. The losses here are: better, ce"):
        comparison_table(rows, ["error"], by=["setting"], candidate=["bettr"])


def test_margins_belong_to_metrics():
    rows = long_table({"ce": 0.0, "gence": 1e-3}, "a").assign(nll=lambda t: t["error"])
    table = comparison_table(rows, ["error", "nll"], by=["setting"], candidate="gence", margins={"error": 0.01})
    assert table["verdict"].tolist() == ["equivalent", "higher"] and table["margin"].isna().tolist() == [False, True]
    text = comparison_markdown(table, ["setting"])
    assert text.endswith("*Equivalent*: closer than a margin stated beforehand: error (%) 1.00.")
    with pytest.raises(ValueError, match=r"margins of \['eror'\], but the metrics compared are: error"):
        comparison_table(rows, ["error"], by=["setting"], margins={"eror": 0.01})


def test_a_setting_cannot_hide_a_column_of_the_comparison():
    rows = [{"loss": loss, "seed": s, "n": 500, "error": s} for loss in ("ce", "gence") for s in range(3)]
    with pytest.raises(ValueError, match=r"its own column \['n'\]"):
        comparison_table(pd.DataFrame(rows), ["error"], by=["n"])


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_corrected_interval_holds_for_splits_of_one_pool(level):
    """Test sets of 100 drawn 20 times from 300 samples: it holds the truth as often as it says or a little oftener."""
    rng = np.random.default_rng(0)
    held, held_by_student = 0, 0
    for _ in range(1000):
        pool = rng.normal(0, 1, 300)
        means = np.array([rng.permutation(pool)[:100].mean() for _ in range(20)])
        found = statistics.corrected_interval(means, n_train=200, n_test=100, level=level)
        student = stats.t.interval(level, 19, means.mean(), stats.sem(means))
        held += found["low"] <= 0 <= found["high"]
        held_by_student += student[0] <= 0 <= student[1]
        assert (found["p"] >= 1 - level) == (found["low"] <= 0 <= found["high"])
    assert level <= held / 1000 <= level + 0.035  # measured: 0.927 and 0.969
    assert held_by_student / 1000 < level - 0.2


def test_the_corrected_interval_without_spread_and_without_splits():
    assert statistics.corrected_interval([0.0, 0.0], 10, 10)["p"] == 1.0
    assert statistics.corrected_interval([0.5, 0.5], 10, 10) == {
        "n": 2, "difference": 0.5, "low": 0.5, "high": 0.5, "p": 0.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="at least 2 splits"):
        statistics.corrected_interval([0.1], 10, 10)
    with pytest.raises(ValueError, match="n_test=0"):
        statistics.corrected_interval([0.1, 0.2], 10, 0)


def test_a_p_value_is_never_written_as_zero_nor_across_the_level():
    grid = np.r_[np.logspace(-9, 0, 2000), np.linspace(0.0490, 0.0510, 401), 0.0, 0.05, 1.0]
    for p in grid:
        sign, number = wording.p_text(p).split()
        assert (float(number) < ALPHA) == (p < ALPHA) and "e" not in number
        assert (sign, number) == ("<", "0.0001") if p < 1e-4 else float(number) == pytest.approx(p, rel=0.06)


@given(
    values=st.lists(st.sampled_from([-0.3, -0.004, -4e-6, 0.0, 4e-6, 1e-3, 0.3]), min_size=2, max_size=12),
    metric=st.sampled_from(["error", "nll", "classwise_ece", "brier"]),
)
def test_a_table_has_no_signed_zeros_no_raw_names_and_no_p_of_zero(values, metric):
    rows = [{"loss": "ce", "seed": s, "rho": 1, metric: 0.5} for s in range(len(values))]
    rows += [{"loss": "flsd_53", "seed": s, "rho": 1, metric: 0.5 + v} for s, v in enumerate(values)]
    table = comparison_table(pd.DataFrame(rows), [metric], by=["rho"], candidate=["flsd_53"])
    text = comparison_markdown(table, ["rho", "loss"], names=("CE", "other"))
    assert not re.search(r"[-+]0\.0+(?![0-9])|0\.0000\b(?<!< 0.0001)|nan|classwise_ece|flsd_53", text)
    mean, low, high = table.loc[0, ["difference", "low", "high"]]
    assert (wording.DAGGER in text) == (len(values) > 5 and not low <= mean <= high)


@pytest.mark.parametrize(
    ("by", "pair", "twice"),
    [
        (["setting", "loss"], ("CE", "loss"), "'loss'"),
        (["setting"], ("setting", "GenCE"), "'setting'"),
        (["setting"], ("GenCE", "GenCE"), "'GenCE'"),
        (["metric"], ("CE", "GenCE"), "'metric'"),
    ],
)
def test_a_comparison_refuses_a_head_that_would_overwrite_a_column(by, pair, twice):
    rows = long_table({"ce": 0.0, "gence": -1.0}, "a")
    table = comparison_table(rows, ["error"], by=["setting"])
    with pytest.raises(ValueError, match=rf"two columns would be headed {twice}\. .*names=\('CE', 'candidate'\)"):
        comparison_markdown(table, by, names=pair)


def test_a_comparison_is_narrow_and_says_what_carries_it():
    rows = long_table({"ce": 0.0, "gence": -1.0}, "a").rename(columns={"error": "classwise_ece"})
    text = comparison_markdown(comparison_table(rows, ["classwise_ece"], by=["setting"]), ["setting"])
    header, _, line = ([cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines())
    assert header == ["setting", "metric", "CE", "GenCE", "difference [95 % interval]", "GenCE is"]
    assert line == ["a", "class-wise ECE (%)", "450.00", "345.50", "-104.50 [-107.00, -102.00]", "lower (p = 0.002)"]
