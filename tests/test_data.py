from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from gence.data import Splits, class_capacity, dataset_names, load_splits, long_tail_counts

PARTS = ("train", "val", "test")


def samples(splits: Splits, part: str) -> set[tuple[bytes, int]]:
    """The samples of a part as a set; no two digits are the same picture, so sets count them."""
    x, y = getattr(splits, f"x_{part}"), getattr(splits, f"y_{part}")
    found = {(row.tobytes(), int(label)) for row, label in zip(x, y, strict=True)}
    assert len(found) == len(x) == len(y)
    return found


def digits() -> tuple[NDArray, NDArray]:
    bunch = load_digits()
    return bunch.data / 16, bunch.target


# --- splits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", [{}, {"n_per_class": 5}, {"n_per_class": 50, "rho": 20.0}], ids=str)
def test_parts_are_disjoint_and_hold_real_samples(regime: dict) -> None:
    splits = load_splits("digits", seed=3, **regime)
    train, val, test = (samples(splits, part) for part in PARTS)
    assert not (train & val or train & test or val & test)
    x, y = digits()
    assert train | val | test <= {(row.tobytes(), int(label)) for row, label in zip(x, y, strict=True)}


def test_parts_cover_the_smallest_class() -> None:
    """At full capacity nothing of it is left over; the other classes are cut down to its training count."""
    splits = load_splits("digits", seed=0)
    counts = np.bincount(digits()[1])
    smallest = int(counts.argmin())
    held = [s for part in PARTS for s in samples(splits, part) if s[1] == smallest]
    assert len(held) == counts.min()
    assert splits.class_counts.tolist() == [class_capacity("digits")] * 10


def test_held_out_parts_are_stratified() -> None:
    """30 % of each class for test, 15 % for validation, to half a sample."""
    splits, counts = load_splits("digits", seed=1), np.bincount(digits()[1])
    assert np.abs(np.bincount(splits.y_test) - 0.30 * counts).max() <= 0.5
    assert np.abs(np.bincount(splits.y_val) - 0.15 * counts).max() <= 0.5


def test_the_seed_fixes_everything() -> None:
    np.random.seed(0)  # the global state must not matter
    a = load_splits("digits", seed=5, n_per_class=20, rho=4)
    np.random.seed(1)
    b = load_splits("digits", seed=5, n_per_class=20, rho=4)
    for name in (f"{kind}_{part}" for kind in "xy" for part in PARTS):
        assert np.array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("part", PARTS)
def test_another_seed_gives_other_samples(part: str) -> None:
    a, b = (samples(load_splits("digits", seed=seed, n_per_class=10), part) for seed in (0, 1))
    assert len(a) == len(b)
    assert len(a & b) < 0.5 * len(a)


def test_smaller_training_sets_are_nested() -> None:
    regimes = [{"n_per_class": n} for n in (1, 10, 50)] + [{}]
    sets = [samples(load_splits("digits", seed=2, **regime), "train") for regime in regimes]
    assert [len(s) for s in sets] == [10, 100, 500, 960]
    assert sets[0] < sets[1] < sets[2] < sets[3]


def test_a_long_tail_is_a_subset_of_the_balanced_set() -> None:
    tail = load_splits("digits", seed=2, n_per_class=50, rho=50)
    assert tail.class_counts.tolist() == long_tail_counts(50, 50, 10).tolist()
    assert samples(tail, "train") < samples(load_splits("digits", seed=2, n_per_class=50), "train")


@pytest.mark.parametrize("regime", [{"n_per_class": 1}, {"n_per_class": 50, "rho": 50.0}, {"rho": 10.0}], ids=str)
def test_validation_and_test_do_not_depend_on_the_regime(regime: dict) -> None:
    full, other = load_splits("digits", seed=4), load_splits("digits", seed=4, **regime)
    for name in ("x_val", "y_val", "x_test", "y_test"):
        assert np.array_equal(getattr(full, name), getattr(other, name))


def test_types_and_range() -> None:
    splits = load_splits("digits", seed=0)
    for part in PARTS:
        x, y = getattr(splits, f"x_{part}"), getattr(splits, f"y_{part}")
        assert (x.dtype, y.dtype, x.shape[1]) == (np.float64, np.int64, 64)
        assert x.min() == 0 and x.max() == 1
    assert splits.class_names == tuple("0123456789")


def test_writing_into_a_split_does_not_reach_the_next_one() -> None:
    first = load_splits("digits", seed=0, n_per_class=5)
    before = first.x_train.copy()
    first.x_train[:] = -1
    first.y_test[:] = -1
    again = load_splits("digits", seed=0, n_per_class=5)
    assert np.array_equal(again.x_train, before) and again.y_test.min() == 0


# --- long tails -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_max", "rho", "n_classes"), [(5000, 10, 10), (500, 100, 100), (96, 50, 10), (7, 1, 3)])
def test_long_tail_is_its_formula(n_max: int, rho: int, n_classes: int) -> None:
    expected = [math.floor(n_max * rho ** (-k / (n_classes - 1)) + 0.5) for k in range(n_classes)]
    assert long_tail_counts(n_max, rho, n_classes).tolist() == [max(n, 1) for n in expected]


@pytest.mark.parametrize(("rho", "total"), [(10, 20_434), (100, 12_408)])
def test_long_tail_cifar10_totals(rho: int, total: int) -> None:
    """The published CIFAR-10 sizes at 5,000 images in the head class, with rounded counts."""
    counts = long_tail_counts(5000, rho, 10)
    assert counts.sum() == total
    assert Fraction(int(counts[0]), int(counts[-1])) == rho


def test_long_tail_rounds_half_up_and_ends_at_one() -> None:
    assert long_tail_counts(5, 2, 2).tolist() == [5, 3]  # 2.5
    assert long_tail_counts(3, 100, 4).tolist() == [3, 1, 1, 1]
    assert long_tail_counts(4, 50, 1).tolist() == [4]
    assert long_tail_counts(4, 1, 3).tolist() == [4, 4, 4]


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10, 10), "n_max=0"),
        ((10, 10, 0), "n_classes=0"),
        ((10, 0.5, 10), "rho must be >= 1"),
        ((10, math.nan, 10), "rho must be >= 1"),
    ],
)
def test_long_tail_bad_arguments(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        long_tail_counts(*arguments)


@pytest.mark.parametrize(("n_per_class", "advice"), [(97, 96), (10_000, 96), (0, 1), (-5, 1)])
def test_capacity_is_checked(n_per_class: int, advice: int) -> None:
    with pytest.raises(ValueError, match=rf"1\.\.96.*got {n_per_class}\. Use n_per_class={advice}\."):
        load_splits("digits", seed=0, n_per_class=n_per_class)


def test_bad_names_and_ratios() -> None:
    for call in (lambda: load_splits("digit", seed=0), lambda: class_capacity("digit")):
        with pytest.raises(ValueError, match=r"unknown dataset 'digit'.*digits"):
            call()
    with pytest.raises(ValueError, match="rho must be >= 1"):
        load_splits("digits", seed=0, rho=0.9)


@pytest.mark.parametrize("name", dataset_names())
def test_every_dataset_gives_its_capacity(name: str) -> None:
    splits = load_splits(name, seed=0)
    assert (splits.class_counts == class_capacity(name)).all()
