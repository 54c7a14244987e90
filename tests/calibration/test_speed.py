"""Bounds on one core, in CPU seconds, so that other work on the machine does not count."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from drawing import drawn, others_thorough
from scipy import special
from threadpoolctl import threadpool_limits
from torchmetrics.functional.classification import multiclass_calibration_error

from gence import metrics
from gence.calibration import CALIBRATORS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


def problem(n: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(n, n_classes))
    return 1.5 * logits, (logits + rng.gumbel(size=logits.shape)).argmax(1)


def seconds(*calls: Callable[[], object], rounds: int) -> list[float]:
    """The best of some rounds for each call; the calls take turns."""
    best = [np.inf] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            start = time.process_time()
            call()
            best[i] = min(best[i], time.process_time() - start)
    return best


@pytest.fixture(scope="module")
def million() -> tuple[np.ndarray, np.ndarray]:
    logits, labels = problem(10**6, 10)
    return special.softmax(logits, axis=1), labels


def test_ece_of_a_million_samples(million: tuple) -> None:
    """<= .25 s, and of the order of torchmetrics: which of the two is ahead depends on the processor's caches."""
    p, y = map(torch.as_tensor, million)
    own, torchmetrics = seconds(
        lambda: metrics.expected_calibration_error(*million),
        lambda: multiclass_calibration_error(p, y, num_classes=10, n_bins=15, norm="l1"),
        rounds=4,
    )
    print(f"ECE {own:.3f} s, torchmetrics x {torchmetrics / own:.2f}")
    assert own <= 0.25
    assert own < 2 * torchmetrics


def test_ece_of_a_million_samples_is_faster_than_netcal(million: tuple) -> None:
    """About 2.5 times."""
    netcal = pytest.importorskip("netcal.metrics")
    own, other = seconds(
        lambda: metrics.expected_calibration_error(*million), lambda: netcal.ECE(15).measure(*million), rounds=4
    )
    print(f"ECE {own:.3f} s, netcal x {other / own:.2f}")
    assert own < other / 1.5


@pytest.mark.parametrize("name", others_thorough(CALIBRATORS, drawn(CALIBRATORS, 4)))
def test_fit_of_ten_thousand_samples_of_100_classes(name: str) -> None:
    logits, labels = problem(10_000, 100)
    (fit,) = seconds(lambda: CALIBRATORS[name]().fit(logits, labels), rounds=1)
    print(f"{name}: {fit:.2f} s")
    assert fit <= 10


def test_classwise_error_of_many_classes() -> None:
    """<= 3 s, and less memory than twice the input beside it, in the precision that networks give."""
    rng = np.random.default_rng(0)
    probs = rng.standard_exponential((20_000, 1000), dtype=np.float32) ** 4
    probs /= probs.sum(1, keepdims=True)
    labels = rng.integers(1000, size=20_000)
    (own,) = seconds(lambda: metrics.classwise_calibration_error(probs, labels), rounds=1)
    tracemalloc.start()
    metrics.classwise_calibration_error(probs, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"classwise ECE {own:.2f} s, {peak / probs.nbytes:.2f} times the memory of its input")
    assert own <= 3
    assert peak <= 2 * probs.nbytes


def test_the_largest_number_of_bins() -> None:
    """A million bins, <= 2 s for a curve; more are refused."""
    logits, labels = problem(1000, 5)
    (own,) = seconds(
        lambda: metrics.reliability_curve(special.softmax(logits, axis=1), labels, metrics.MAX_BINS), rounds=1
    )
    assert own <= 2
