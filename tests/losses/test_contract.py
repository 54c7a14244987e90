"""The whole contract of torch.nn.functional.cross_entropy for GenCE at strength 0 and for our cross-entropy."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from references import REDUCTIONS, close, gradient, labels, normal
from torch import Tensor

from gence.losses import cross_entropy, generative_cross_entropy

OURS = {"gence": functools.partial(generative_cross_entropy, strength=0.0), "ce": cross_entropy}
SHAPES = {
    "K": (3,),
    "N-K": (6, 3),
    "N-K-d": (3, 3, 2),
    "N-K-d1-d2": (2, 3, 2, 2),
    "N=0": (0, 3),
    "N=1": (1, 3),
    "K=1": (4, 1),
    "strided": (6, 3),  # N-K from transposed and sliced memory
    "strided-N-K-d": (3, 3, 2),
}
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
KINDS = ("int64", "uint8", "int32", "soft", "one-hot", "one-hot integers")
OTHER_INTEGERS = ("uint8", "int32")  # torch takes them for some shapes and options only, we always

WEIGHTS = ("none", "uniform", "with a zero")
IGNORED = ("none", "some", "all", "some, in range", "all, in range")
SMOOTHINGS = (0.0, 0.1, 1.0)
N_CASES = 30_000  # of the whole grid, both losses; the test below counts


class Case(NamedTuple):
    kind: str
    weight: str
    ignored: str
    smoothing: float
    reduction: str


def cases(dtype: torch.dtype) -> Iterator[Case]:
    """All combinations, but for half precision only those that a dtype can change."""
    whole = dtype in (torch.float64, torch.float32)
    kinds, ignored = (KINDS, IGNORED) if whole else (("int64", "soft"), ("none", "some"))
    for point in product(kinds, WEIGHTS, ignored, SMOOTHINGS, REDUCTIONS):
        case = Case(*point)
        if case.kind != "uint8" or case.ignored in ("none", "some, in range", "all, in range"):  # it has no -100
            yield case


def build(shape: str, dtype: torch.dtype, case: Case) -> tuple[Tensor, Tensor, dict]:
    """Logits, target and options of a case; a new case has new memory."""
    size = SHAPES[shape]
    class_dim = min(len(size) - 1, 1)
    n_classes = size[class_dim]
    logits = (2 * normal(*size)).to(dtype)
    label_size = tuple(n for dim, n in enumerate(size) if dim != class_dim)
    target = labels(math.prod(label_size), n_classes).reshape(label_size)
    options: dict = {"label_smoothing": case.smoothing, "reduction": case.reduction}
    if case.weight != "none":
        options["weight"] = torch.full((n_classes,), 2.0).to(dtype)
        options["weight"][-1] = 0.0 if case.weight == "with a zero" else 2.0
    if case.ignored != "none":
        index = n_classes - 1 if "in range" in case.ignored else -100
        options["ignore_index"] = index
        target.view(-1)[:: 1 if "all" in case.ignored else 2] = index
    if case.kind == "soft":
        target = normal(*size, seed=1).softmax(class_dim).to(dtype)
    elif case.kind.startswith("one-hot"):
        one_hot = F.one_hot(target.clamp_min(0), n_classes)
        target = (one_hot if len(size) == 1 else one_hot.movedim(-1, 1)).to(torch.long if "int" in case.kind else dtype)
    else:
        target = target.to(getattr(torch, case.kind))
    if shape.startswith("strided"):
        logits, target = strided(logits), strided(target)
    return logits, target, options


def strided(x: Tensor) -> Tensor:
    """The same values, every second entry of memory with the dimensions reversed."""
    memory = torch.zeros(*reversed(x.shape), 2, dtype=x.dtype)
    memory[..., 0] = x.permute(*reversed(range(x.dim())))
    return memory[..., 0].permute(*reversed(range(x.dim())))


class Outcome(NamedTuple):
    value: Tensor | None
    gradient: Tensor | None
    error: type[Exception] | None


def outcome(loss: Callable[..., Tensor], logits: Tensor, target: Tensor, options: dict) -> Outcome:
    """Value and gradient, with another upstream gradient for each entry of the value, or the type of the error."""
    logits = logits.detach().requires_grad_()
    try:
        value = loss(logits, target, **options)
    except Exception as error:
        return Outcome(None, None, type(error))
    value.backward((1 + torch.arange(value.numel()) / max(value.numel(), 1)).reshape(value.shape).to(value.dtype))
    return Outcome(value.detach(), logits.grad, None)


def compare(expected: Outcome, actual: Outcome, dtype: torch.dtype, reduction: str) -> None:
    assert actual.error == expected.error
    if expected.value is None:
        return
    known = torch.ones_like(expected.gradient, dtype=torch.bool)
    if expected.value.isnan().any():
        # The mean over a total weight of 0. Where torch's gradient is 0 there, so is ours; where 0/0 makes it NaN, it
        # depends on the order of adding.
        assert reduction == "mean" and not actual.value.isfinite().any()
        known = expected.gradient.isfinite()
        expected, actual = (one._replace(value=expected.value) for one in (expected, actual))
    # assert_close looks at dtype and shape too. Half precision: torch rounds in between, we only at the end.
    tolerance = 1e-12 if dtype == torch.float64 else 8 * torch.finfo(dtype).eps
    gradients = (torch.where(known, one.gradient, 0.0) for one in (actual, expected))
    for ours, theirs in ((actual.value, expected.value), gradients):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)


# How a shape is read does not depend on the precision: the thorough tests meet the odd ones in each.
IN_EACH_PRECISION = ("N-K", "N-K-d", "N=0", "N=1")
GRID = [
    pytest.param(dtype, shape, marks=() if common else pytest.mark.thorough)
    for dtype in DTYPES
    for shape in SHAPES
    for common in [dtype == torch.float64 or shape in IN_EACH_PRECISION]
]


@pytest.mark.parametrize(("dtype", "shape"), GRID)
def test_the_grid(dtype: torch.dtype, shape: str) -> None:
    """Value, gradient, dtype and shape where cross_entropy accepts; the same type of error where it refuses."""
    refused = 0
    for case in cases(dtype):
        logits, target, options = build(shape, dtype, case)
        before = logits._version, target._version
        expected = outcome(F.cross_entropy, logits, target.long() if case.kind in OTHER_INTEGERS else target, options)
        refused += expected.error is not None
        for name, loss in OURS.items():
            try:
                compare(expected, outcome(loss, logits, target, options), dtype, case.reduction)
            except AssertionError as error:
                raise AssertionError(f"{name}, {shape}, {dtype}, {case}: {error}") from error
        assert logits._version == before[0] and target._version == before[1]  # nobody wrote into the input
    n = len(list(cases(dtype)))
    assert n - refused > 50  # most of the grid compares numbers
    assert refused > 0 or dtype in (torch.float16, torch.bfloat16)


ROWS = torch.tensor([[1.0, 2.0, 0.5], [0.0, 1.0, -1.0]], dtype=torch.float64)
MASKED = torch.tensor([[1.0, 2.0, -math.inf], [0.0, 1.0, -math.inf]], dtype=torch.float64)
PADDED = torch.cat([ROWS, torch.full((1, 3), math.nan, dtype=torch.float64)])
PADDED_LABELS = torch.tensor([0, 1, -100])
NO_THIRD = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
# What GenCE at strength 0 does otherwise, and on purpose: the call, what torch does and what we do (an error or NaN, or
# the value), and the reason.
INTENDED = {
    "negative smoothing": (
        (ROWS, torch.tensor([0, 1]), {"label_smoothing": -0.1}),
        F.cross_entropy(ROWS, torch.tensor([0, 1])),
        RuntimeError,
        "torch takes anything below 0 for 0 without a word; nobody means that",
    ),
    "smoothing NaN": (
        (ROWS, torch.tensor([0, 1]), {"label_smoothing": math.nan}),
        F.cross_entropy(ROWS, torch.tensor([0, 1])),
        RuntimeError,
        "as above",
    ),
    "soft target 0 on a masked class": (
        (MASKED, NO_THIRD, {}),
        math.nan,
        F.cross_entropy(MASKED[:, :2], NO_THIRD[:, :2]),
        "0 log 0 counts as 0, so that a class can be masked with -inf",
    ),
    "an ignored row of NaN, smoothed": (
        (PADDED, PADDED_LABELS, {"label_smoothing": 0.1}),
        F.cross_entropy(ROWS, torch.tensor([0, 1]), label_smoothing=0.1),
        F.cross_entropy(ROWS, torch.tensor([0, 1]), label_smoothing=0.1),
        "the value is torch's; its gradient must not be NaN either, see below",
    ),
}


def happens(loss: Callable[..., Tensor], call: tuple[Tensor, Tensor, dict], expected: object) -> None:
    logits, target, options = call
    if isinstance(expected, type):
        with pytest.raises(expected):
            loss(logits, target, **options)
    else:
        value = loss(logits, target, **options)
        torch.testing.assert_close(value, torch.as_tensor(expected).to(value), rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", INTENDED)
def test_intended_differences(name: str) -> None:
    call, of_torch, of_ours, _ = INTENDED[name]
    happens(F.cross_entropy, call, of_torch)  # if torch changes its mind, this table is out of date
    happens(OURS["gence"], call, of_ours)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_an_ignored_row_of_nan_spoils_no_other_gradient(strength: float, smoothing: float) -> None:
    options = {"strength": strength, "label_smoothing": smoothing}

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return generative_cross_entropy(z, y, **options)

    got = gradient(lambda z: loss(z, PADDED_LABELS), PADDED)
    close(got[:2], gradient(lambda z: loss(z, PADDED_LABELS[:2]), ROWS))
    assert got[:2].any()


def test_the_number_of_cases() -> None:
    assert sum(len(list(cases(dtype))) for dtype in DTYPES) * len(SHAPES) * len(OURS) >= N_CASES
