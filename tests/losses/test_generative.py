from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import pytest
import references
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from references import EXTREME, MASK, REDUCTIONS, K, close, gradient, labels, normal, rows_of
from sklearn.metrics import brier_score_loss
from torch import Tensor, nn

from gence.losses import (
    REGISTRY,
    AdaFocalLoss,
    EntropyLoss,
    GenCELoss,
    ScheduledFocalLoss,
    TrackedGenCELoss,
    brier_loss,
    class_balanced_loss,
    cross_entropy,
    flsd_loss,
    focal_loss,
    generative_cross_entropy,
    logit_adjusted_loss,
    loss_names,
    lq_loss,
    make_loss,
    mmce_loss,
)

STRENGTHS = (0.0, 0.5, 1.0)
SHAPES = {"N-K": (6, K), "N-K-d": (3, K, 2), "N-K-d1-d2": (2, K, 2, 2), "K": (K,)}


@dataclass(frozen=True)
class Case:
    """One point of the grid of targets and options."""

    shape: str
    soft: bool
    weighted: bool
    smoothing: float
    ignoring: bool

    def __str__(self) -> str:
        flags = [name for name in ("weighted", "ignoring") if getattr(self, name)]
        return "-".join([self.shape, "soft" if self.soft else "index", *flags, f"smooth{self.smoothing}"])

    def build(self, seed: int = 0) -> tuple[Tensor, Tensor, dict]:
        """Logits, target and the options that cross_entropy takes too."""
        rng = torch.Generator().manual_seed(seed)
        shape = SHAPES[self.shape]
        class_dim = min(len(shape) - 1, 1)
        logits = 2 * torch.randn(shape, dtype=torch.float64, generator=rng)
        label_shape = tuple(size for dim, size in enumerate(shape) if dim != class_dim)
        target = torch.randint(K, label_shape, generator=rng)
        options: dict = {"label_smoothing": self.smoothing}
        if self.soft:
            target = torch.randn(shape, dtype=torch.float64, generator=rng).softmax(class_dim)
        elif self.ignoring:
            # The ignored label is a class of its own right, the hardest case; one sample is kept in any shape.
            target.view(-1)[1::2], target.view(-1)[0], options["ignore_index"] = 1, 2, 1
        if self.weighted:
            options["weight"] = torch.tensor([0.5, 2.0, 0.0, 1.5], dtype=torch.float64)
            target = target if self.soft else torch.where(target == 2, 3, target)  # W > 0 in any shape
        return logits, target, options


GRID = [
    Case(*point)
    for point in product(SHAPES, (False, True), (False, True), (0.0, 0.1), (False, True))
    if not (point[1] and point[4])  # cross_entropy allows ignore_index for class indices only
]
over_grid = pytest.mark.parametrize("case", GRID, ids=str)


# --- GenCE against its formula ----------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", STRENGTHS)
@over_grid
def test_value_is_the_formula(case: Case, strength: float) -> None:
    logits, target, options = case.build()
    expected = references.generative_cross_entropy(logits, target, strength=strength, **options)
    for reduction in REDUCTIONS:
        value = generative_cross_entropy(logits, target, reduction=reduction, strength=strength, **options)
        assert value.shape == F.cross_entropy(logits, target, reduction=reduction, **options).shape
        close(value.reshape(-1), expected.reduced(reduction).reshape(-1))


@pytest.mark.parametrize("strength", STRENGTHS)
@over_grid
def test_gradient_is_the_closed_form(case: Case, strength: float) -> None:
    logits, target, options = case.build(seed=1)
    expected = references.generative_cross_entropy(logits, target, strength=strength, **options)
    for reduction, scale in (("sum", 1.0), ("mean", 1 / expected.total_weight)):
        got = gradient(
            lambda z, r=reduction: generative_cross_entropy(z, target, reduction=r, strength=strength, **options),
            logits,
        )
        close(rows_of(got), scale * expected.gradient)


@over_grid
def test_strength_0_is_cross_entropy(case: Case) -> None:
    """Value and gradient, with another upstream gradient for each sample where nothing is reduced."""
    logits, target, options = case.build(seed=2)
    for reduction in REDUCTIONS:

        def gence(z: Tensor, r: str = reduction) -> Tensor:
            return generative_cross_entropy(z, target, reduction=r, strength=0.0, **options)

        def cross_entropy(z: Tensor, r: str = reduction) -> Tensor:
            return F.cross_entropy(z, target, reduction=r, **options)

        close(gence(logits), cross_entropy(logits))
        close(gradient(gence, logits), gradient(cross_entropy, logits))


@pytest.mark.parametrize("case", [c for c in GRID if c.shape in ("N-K", "N-K-d") and c.weighted], ids=str)
def test_gradcheck_without_reduction(case: Case) -> None:
    """Finite differences of every sample's term in every logit; the closed form above covers the reduced losses."""
    logits, target, options = case.build(seed=3)
    assert torch.autograd.gradcheck(
        lambda z: generative_cross_entropy(z, target, reduction="none", strength=0.7, **options),
        logits.requires_grad_(),
    )


@given(data=st.data())
def test_any_logits_up_to_1e4(data: st.DataObject) -> None:
    """Value and gradient equal the formula in 50 digits; rows of the gradient sum to zero."""
    n, n_classes = data.draw(st.integers(1, 5), "N"), data.draw(st.integers(1, 4), "K")
    logit = st.floats(-1e4, 1e4)
    z = torch.tensor(
        data.draw(st.lists(st.lists(logit, min_size=n_classes, max_size=n_classes), min_size=n, max_size=n), "z"),
        dtype=torch.float64,
    )
    y = torch.tensor(data.draw(st.lists(st.integers(0, n_classes - 1), min_size=n, max_size=n), "y"))
    strength = data.draw(st.floats(0, 1), "strength")
    expected = references.generative_cross_entropy(z, y, strength=strength)
    close(generative_cross_entropy(z, y, reduction="none", strength=strength), expected.terms, atol=1e-9)
    got = gradient(lambda v: generative_cross_entropy(v, y, reduction="sum", strength=strength), z)
    close(got, expected.gradient, atol=1e-9)
    close(got.sum(1), torch.zeros(n), atol=1e-9)


# --- GenCE: properties ------------------------------------------------------------------------------------------


def test_integer_class_weights_repeat_the_samples() -> None:
    """Column sums included: each sample's term is its weight times its term in the batch of repeated samples."""
    z, y = normal(9, K), labels(9)
    weight = torch.tensor([1.0, 3.0, 2.0, 4.0], dtype=torch.float64)
    times = weight[y].long()

    def repeated(v: Tensor, reduction: str) -> Tensor:
        return generative_cross_entropy(v.repeat_interleave(times, 0), y.repeat_interleave(times), reduction=reduction)

    for reduction in ("sum", "mean"):

        def weighted(v: Tensor, r: str = reduction) -> Tensor:
            return generative_cross_entropy(v, y, weight, reduction=r)

        close(weighted(z), repeated(z, reduction))
        close(gradient(weighted, z), gradient(lambda v, r=reduction: repeated(v, r), z))
    first_copy = times.cumsum(0) - times
    close(generative_cross_entropy(z, y, weight, reduction="none"), times * repeated(z, "none")[first_copy])


def test_soft_targets_that_are_one_hot_equal_labels() -> None:
    z, y = normal(7, K), labels(7)
    for smoothing in (0.0, 0.2):
        soft = generative_cross_entropy(z, F.one_hot(y, K).double(), label_smoothing=smoothing)
        close(soft, generative_cross_entropy(z, y, label_smoothing=smoothing))


def test_ignored_rows_equal_rows_that_are_not_there() -> None:
    z, y = normal(8, K), labels(8)
    y[[1, 4, 5]] = -100
    kept = y != -100
    close(generative_cross_entropy(z, y), generative_cross_entropy(z[kept], y[kept]))
    got = gradient(lambda v: generative_cross_entropy(v, y), z)
    assert not got[~kept].any()


def test_ignored_rows_may_hold_anything() -> None:
    """Padding is often NaN or -inf throughout; cross_entropy's value does not see it."""
    z, y = normal(5, K), labels(5)
    expected = generative_cross_entropy(z[:4], y[:4])
    y[4] = -100
    for rubbish in (math.nan, math.inf, -math.inf):
        z[4] = rubbish
        assert F.cross_entropy(z, y).isfinite()
        close(generative_cross_entropy(z, y), expected)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_floor_of_a_perfect_classifier(strength: float) -> None:
    """sum_k n_k/N log n_k, times the strength; not 0."""
    counts = torch.tensor([5, 2, 1, 0])
    y = torch.arange(K).repeat_interleave(counts)
    z = 200.0 * F.one_hot(y, K).double()
    floor = sum(n / 8 * math.log(n) for n in (5, 2, 1))
    close(generative_cross_entropy(z, y, strength=strength), strength * floor)


def test_uniform_logits_give_log_n() -> None:
    close(generative_cross_entropy(torch.zeros(12, 3, dtype=torch.float64), labels(12, 3)), math.log(12))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_predictions_that_ignore_x_give_log_n(strength: float) -> None:
    """For any constant prediction and any labels: the class frequencies do not matter at strength 1."""
    z, y = normal(K).expand(10, K), labels(10)
    got = gradient(lambda v: generative_cross_entropy(v, y), z)
    close(got.sum(0), torch.zeros(K))  # no direction of a bias that all samples share changes the loss
    expected = (1 - strength) * F.cross_entropy(z, y) + strength * math.log(10)
    close(generative_cross_entropy(z, y, strength=strength), expected)


def test_batch_of_one_has_no_loss_and_no_gradient() -> None:
    z, y = normal(1, K), labels(1)
    close(generative_cross_entropy(z, y), 0.0)
    close(gradient(lambda v: generative_cross_entropy(v, y), z), torch.zeros(1, K))


def test_gradient_rows_sum_to_zero() -> None:
    z, y = normal(6, K, 3), labels(18).reshape(6, 3)
    weight = torch.tensor([1.0, 0.3, 2.0, 0.7], dtype=torch.float64)
    got = gradient(lambda v: generative_cross_entropy(v, y, weight, label_smoothing=0.1), z)
    close(got.sum(1), torch.zeros(6, 3))
    assert got.abs().max() > 0.01  # and not because there is no gradient


def test_permuted_samples_give_permuted_terms() -> None:
    z, y = normal(8, K), labels(8)
    order = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])
    terms = generative_cross_entropy(z, y, reduction="none")
    close(generative_cross_entropy(z[order], y[order], reduction="none"), terms[order])


def test_renamed_classes_change_nothing() -> None:
    z, y, weight = normal(8, K), labels(8), torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    order = torch.tensor([2, 0, 3, 1])
    renamed = generative_cross_entropy(z[:, order], order.argsort()[y], weight[order], reduction="none")
    close(renamed, generative_cross_entropy(z, y, weight, reduction="none"))


def test_a_shift_of_a_row_changes_nothing() -> None:
    z, y = normal(8, K), labels(8)
    shifted = z + 10 * normal(8, 1, seed=1)
    close(
        generative_cross_entropy(shifted, y, reduction="none"),
        generative_cross_entropy(z, y, reduction="none"),
        atol=1e-11,
    )


@pytest.mark.parametrize("seed", range(5))
def test_regret_is_that_of_cross_entropy_less_the_marginal_divergence(seed: int) -> None:
    """GenCE regret = CE regret - KL(pi || mean p), for soft targets Q and predictions P."""
    q = normal(20, K, seed=seed).softmax(1)
    p = normal(20, K, seed=100 + seed).softmax(1)

    def regret(loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return loss(p.log(), q) - loss(q.log(), q)

    pi = q.mean(0)
    divergence = (pi * (pi / p.mean(0)).log()).sum()
    close(regret(generative_cross_entropy), regret(F.cross_entropy) - divergence)


@pytest.mark.parametrize("case", [c for c in GRID if c.shape in ("N-K", "N-K-d")], ids=str)
def test_vmap_equals_the_loop(case: Case) -> None:
    built = [case.build(seed) for seed in range(3)]
    logits, targets = (torch.stack([b[i] for b in built]) for i in (0, 1))

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return generative_cross_entropy(z, y, strength=0.8, **built[0][2])

    close(torch.vmap(loss)(logits, targets), torch.stack([loss(z, y) for z, y in zip(logits, targets, strict=True)]))


def test_input_and_target_are_never_modified() -> None:
    for case in GRID:
        logits, target, options = case.build()
        before = [v.clone() for v in (logits, target)]
        gradient(lambda z, y=target, o=options: generative_cross_entropy(z, y, **o), logits)
        assert torch.equal(logits, before[0]) and torch.equal(target, before[1])


def test_non_contiguous_input() -> None:
    z, y = normal(K, 6).t(), labels(12)[::2]
    q = normal(K, 6, seed=1).t().softmax(1)
    assert not z.is_contiguous()
    assert torch.equal(generative_cross_entropy(z, y), generative_cross_entropy(z.contiguous(), y.contiguous()))
    assert torch.equal(generative_cross_entropy(z, q), generative_cross_entropy(z.contiguous(), q.contiguous()))


# --- GenCE: extreme and degenerate batches ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", EXTREME)
def test_extreme_logits_are_exact_in_value_and_gradient(name: str, dtype: torch.dtype) -> None:
    z, y = EXTREME[name][0].to(dtype), torch.tensor(EXTREME[name][1])
    tolerance = 1e-9 if dtype == torch.float64 else 3e-3  # float32 has steps of 2e-3 at the score differences of 2e4
    for target in (y, F.one_hot(y, z.shape[1]).to(dtype)):  # masked classes have 0 log 0 in soft targets
        expected = references.generative_cross_entropy(z, target)
        close(generative_cross_entropy(z, target, reduction="none"), expected.terms, rtol=tolerance, atol=tolerance)
        got = gradient(lambda v, t=target: generative_cross_entropy(v, t, reduction="sum"), z)
        close(got, expected.gradient, atol=tolerance)


def test_a_masked_true_class_costs_infinity_but_makes_no_nan() -> None:
    z, y = torch.tensor([[MASK, 1.0, 0.0], [0.5, 0.0, 1.0]]), torch.tensor([0, 0])
    terms = generative_cross_entropy(z, y, reduction="none")
    assert terms[0] == math.inf and terms[1].isfinite()
    assert gradient(lambda v: generative_cross_entropy(v, y), z).isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("batch", ["all ignored", "empty", "empty soft", "single sample ignored"])
def test_a_batch_of_nothing_is_as_in_cross_entropy(batch: str, reduction: str, smoothing: float) -> None:
    """Zeros, or NaN for the mean over nothing."""
    z, y = {
        "all ignored": (normal(3, K), torch.full((3,), -100)),
        "empty": (normal(0, K), labels(0)),
        "empty soft": (normal(0, K), normal(0, K)),
        "single sample ignored": (normal(K), torch.tensor(-100)),
    }[batch]
    expected = F.cross_entropy(z, y, reduction=reduction, label_smoothing=smoothing)
    value = generative_cross_entropy(z, y, reduction=reduction, label_smoothing=smoothing)
    torch.testing.assert_close(value, expected, equal_nan=True, atol=0, rtol=0)
    if reduction != "mean":
        got = gradient(lambda v: generative_cross_entropy(v, y, reduction=reduction, label_smoothing=smoothing), z)
        assert torch.equal(got, torch.zeros_like(z))


# --- GenCE: number formats --------------------------------------------------------------------------------------

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


@HALVES
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_half_precision_only_rounds_the_result(dtype: torch.dtype, reduction: str) -> None:
    """Computed in float32: off from the exact loss of the same logits by one rounding, in cross_entropy's dtype."""
    z, y = (3 * normal(32, K)).to(dtype), labels(32)
    weight = torch.tensor([1.0, 0.5, 2.0, 1.5]).to(dtype)  # exact in half precision
    value = generative_cross_entropy(z, y, weight, reduction=reduction)
    assert value.dtype == F.cross_entropy(z, y, weight, reduction=reduction).dtype == dtype
    expected = references.generative_cross_entropy(z, y, weight)
    rounding = 0.501 * torch.finfo(dtype).eps
    close(value.double(), expected.reduced(reduction), rtol=rounding, atol=1e-5)
    got = gradient(lambda v: generative_cross_entropy(v, y, weight, reduction="sum"), z)
    assert got.dtype == dtype
    close(got.double(), expected.gradient, rtol=rounding, atol=1e-4)


@HALVES
@pytest.mark.parametrize("soft", [False, True])
def test_autocast_returns_float32_as_cross_entropy_does(dtype: torch.dtype, soft: bool) -> None:
    features, y = normal(16, 5, dtype=torch.float32), labels(16)
    target = normal(16, K, seed=1, dtype=torch.float32).softmax(1) if soft else y
    layer = torch.nn.Linear(5, K)
    with torch.autocast("cpu", dtype=dtype):
        z = layer(features)
        assert z.dtype == dtype
        value = generative_cross_entropy(z, target)
        assert value.dtype == F.cross_entropy(z, target).dtype == torch.float32
    close(value.double(), references.generative_cross_entropy(z, target).reduced("mean"), rtol=1e-6)
    value.backward()
    assert layer.weight.grad is not None and layer.weight.grad.isfinite().all() and layer.weight.grad.any()


# --- GenCE: bad input -------------------------------------------------------------------------------------------

GOOD = normal(4, 3)
PROBS = normal(4, 3, seed=1).softmax(1)
BAD_INPUT: dict[str, tuple[Tensor, Tensor, dict]] = {
    "label too large": (GOOD, torch.tensor([0, 1, 3, 1]), {}),
    "label negative": (GOOD, torch.tensor([0, 1, -1, 1]), {}),
    "batch sizes differ": (GOOD, torch.tensor([0, 1, 2]), {}),
    "spatial sizes differ": (normal(2, 3, 4), torch.zeros(2, 5, dtype=torch.long), {}),
    "float labels": (GOOD, torch.tensor([0.0, 1.0, 2.0, 1.0]), {}),
    "bool labels": (GOOD, torch.tensor([True, False, True, True]), {}),
    "integer probabilities": (GOOD, torch.ones(4, 3, dtype=torch.long), {}),
    "integer logits": (torch.ones(4, 3, dtype=torch.long), torch.tensor([0, 1, 2, 1]), {}),
    "weight too long": (GOOD, torch.tensor([0, 1, 2, 1]), {"weight": torch.ones(4, dtype=torch.float64)}),
    "weight too long, soft": (GOOD, PROBS, {"weight": torch.ones(4, dtype=torch.float64)}),
    "weight 2-D": (GOOD, torch.tensor([0, 1, 2, 1]), {"weight": torch.ones(1, 3, dtype=torch.float64)}),
    "label_smoothing 2": (GOOD, torch.tensor([0, 1, 2, 1]), {"label_smoothing": 2.0}),
    "label_smoothing 2, soft": (GOOD, PROBS, {"label_smoothing": 2.0}),
    "unknown reduction": (GOOD, torch.tensor([0, 1, 2, 1]), {"reduction": "average"}),
    "ignore_index with probabilities": (GOOD, PROBS, {"ignore_index": 1}),
}


@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_raises_what_cross_entropy_raises(name: str, strength: float) -> None:
    logits, target, options = BAD_INPUT[name]
    with pytest.raises((ValueError, IndexError, RuntimeError)) as expected:
        F.cross_entropy(logits, target, **options)
    with pytest.raises(expected.type):
        generative_cross_entropy(logits, target, strength=strength, **options)


@pytest.mark.parametrize("strength", [-0.1, 1.0001, math.inf, math.nan])
def test_strength_outside_0_to_1(strength: float) -> None:
    with pytest.raises(ValueError, match="strength must lie in"):
        generative_cross_entropy(GOOD, labels(4, 3), strength=strength)


def test_negative_class_weight() -> None:
    with pytest.raises(ValueError, match=r"weights must be >= 0.*-1"):
        GenCELoss(torch.tensor([1.0, -1.0]))


def test_one_sample_with_a_label_of_shape_1() -> None:
    z, y = normal(K), torch.tensor([2])
    assert generative_cross_entropy(z, y, strength=0.0) == F.cross_entropy(z, y)


# --- Brier and focal --------------------------------------------------------------------------------------------


def test_brier_equals_scikit_learn() -> None:
    z, y = 2 * normal(50, K), labels(50)
    expected = brier_score_loss(y.numpy(), z.softmax(1).numpy(), labels=range(K), scale_by_half=False)
    close(brier_loss(z, y), expected)


def test_focal_with_gamma_0_is_cross_entropy() -> None:
    z, y = 5 * normal(10, K), labels(10)
    close(focal_loss(z, y, gamma=0.0), F.cross_entropy(z, y))
    close(gradient(lambda v: focal_loss(v, y, gamma=0.0), z), gradient(lambda v: F.cross_entropy(v, y), z))


@pytest.mark.parametrize("gamma", [0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_focal_at_certainty_has_a_gradient(gamma: float, dtype: torch.dtype) -> None:
    """(1 - p)^gamma has an infinite slope at p = 1 for gamma < 1; the loss there is 0 and so is its gradient."""
    z, y = (1e4 * F.one_hot(torch.tensor([0, 1]), 3)).to(dtype), torch.tensor([0, 1])
    close(focal_loss(z, y, gamma).double(), 0.0)
    close(gradient(lambda v: focal_loss(v, y, gamma), z).double(), torch.zeros(2, 3))


@pytest.mark.parametrize("loss", [brier_loss, focal_loss])
def test_brier_and_focal_at_certain_mistakes_are_finite(loss: Callable) -> None:
    z, y = 1e4 * F.one_hot(torch.tensor([0, 1]), 3).double(), torch.tensor([1, 2])
    close(loss(z, y), {brier_loss: 2.0, focal_loss: 1e4}[loss], atol=1e-8)
    assert gradient(lambda v: loss(v, y), z).isfinite().all()


@pytest.mark.parametrize("gamma", [-0.5, math.nan])
def test_focal_gamma_must_not_be_negative(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be >= 0"):
        focal_loss(GOOD, labels(4, 3), gamma)


@pytest.mark.parametrize("loss", [brier_loss, focal_loss])
def test_brier_and_focal_bad_input(loss: Callable) -> None:
    with pytest.raises(ValueError, match="'average' is not a valid value for reduction"):
        loss(GOOD, labels(4, 3), reduction="average")
    with pytest.raises(IndexError):
        loss(GOOD, torch.tensor([0, 1, 3, 1]))
    with pytest.raises(ValueError, match=r"need class indices of shape \(4,\).*has the shape \(5,\)"):
        loss(GOOD, labels(5, 3))


# --- modules and names ------------------------------------------------------------------------------------------

# The functional form (or class) of a loss, the options it is compared with, and another value for each option, so that
# none is lost or swapped on the way. The plain ones are taken from the registry, and OTHER_VALUES of the references.
COUNTS = torch.tensor([1e8, 1.0, 1e6])  # so rare a class that 1e-12 next to its frequency shows in float32
WEIGHT = torch.tensor([1.0, 2.0, 0.5])
IGNORE = {"ignore_index": 1}
OF_CE = IGNORE | {"weight": WEIGHT, "reduction": "sum", "label_smoothing": 0.1}
OF_MMCE = IGNORE | {"coefficient": 1.0, "bandwidth": 0.2, "reduction": "sum", "official": True}
OF_ADAFOCAL = IGNORE | {
    "n_bins": 3,
    "rate": 2.0,
    "switch": 5.0,
    "gamma_init": 3.0,
    "gamma_range": (-0.1, 0.5),
    "reduction": "sum",
}
OF_ENTROPY = IGNORE | {"weights": (0.5, 0.3), "log_bases": (2.0, 10.0), "reduction": "sum", "learnable": False}
SPECIAL: dict[str, tuple[Callable, dict, dict]] = {
    "ce": (cross_entropy, {"label_smoothing": 0.05}, OF_CE | {"smoothing_over": "others", "temperature": 2.0}),
    "gence": (generative_cross_entropy, {}, OF_CE | {"strength": 0.3}),
    "flsc": (
        ScheduledFocalLoss,
        {},
        IGNORE | {"gammas": (4.0, 2.0, 1.0), "milestones": (1, 2), "reduction": "sum"},
    ),
    "adafocal": (AdaFocalLoss, {}, OF_ADAFOCAL),
    "gence_adafocal": (functools.partial(AdaFocalLoss, generative=True), {}, OF_ADAFOCAL),
    "mmce": (mmce_loss, {}, OF_MMCE | {"weighted": True}),
    "mmce_w": (functools.partial(mmce_loss, weighted=True), {}, OF_MMCE),
    "min_ent": (functools.partial(EntropyLoss, "min"), {}, OF_ENTROPY),
    "mix_ent": (functools.partial(EntropyLoss, "mix"), {}, OF_ENTROPY),
    "logit_adjustment": (
        logit_adjusted_loss,
        {"class_counts": COUNTS},
        IGNORE | {"class_counts": WEIGHT, "tau": 0.5, "reduction": "sum", "strength": 0.3, "official": True},
    ),
    "gence_logit_adjustment": (
        functools.partial(logit_adjusted_loss, strength=1.0),
        {"class_counts": COUNTS},
        IGNORE | {"class_counts": WEIGHT, "tau": 0.5, "reduction": "sum"},
    ),
    "gence_tracked": (
        TrackedGenCELoss,
        {"class_counts": COUNTS},
        IGNORE | {"class_counts": WEIGHT, "memory": 10.0, "strength": 0.3, "reduction": "sum"},
    ),
    "class_balanced": (
        class_balanced_loss,
        {"class_counts": COUNTS},
        IGNORE | {"class_counts": WEIGHT, "beta": 0.9, "reduction": "sum"},
    ),
}


def of_registry(name: str) -> tuple[Callable, dict, dict]:
    """The same for a loss that is not listed: what the registry builds it from, without the module around it."""
    info = REGISTRY[name]
    functional = functools.partial(*info.build.args, **info.build.keywords) if info.build.args else info.build
    base = {"class_counts": COUNTS} if "class_counts" in info.options else {}
    return functional, base, IGNORE | {"reduction": "sum"} | references.OTHER_VALUES.get(name, {})


FUNCTIONAL = {name: SPECIAL[name] if name in SPECIAL else of_registry(name) for name in REGISTRY}
# There is nothing to remember yet, and the counts of tracked GenCE act on its gradient only (tests/theory/test_tax.py).
NO_CHANGE_OF_VALUE = {"learnable", "memory", ("gence_tracked", "class_counts")}


@pytest.mark.parametrize("name", REGISTRY)
def test_every_registered_loss_and_option_is_tested_here(name: str) -> None:
    _, base, options = FUNCTIONAL[name]
    missing = set(REGISTRY[name].options) - {*base, *options}
    assert not missing, f"give OTHER_VALUES[{name!r}] in tests/support/references.py other values of {missing}"
    assert {*base, *options} <= set(REGISTRY[name].options), "an option that the loss does not have"


def test_the_plain_functions_are_those_of_their_names() -> None:
    """What the registry builds a loss from is not only compared with itself; test_batches.py has all their formulas."""
    for name, function in (("brier", brier_loss), ("focal", focal_loss), ("lq", lq_loss), ("flsd_52", flsd_loss)):
        assert FUNCTIONAL[name][0].func is function
    assert set(loss_names()) == set(REGISTRY)


def of_second_epoch(loss: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    """The loss after what it must be told while training."""
    if hasattr(loss, "set_epoch"):
        loss.set_epoch(1)
    if hasattr(loss, "update"):
        loss.update(3 * normal(40, 3, seed=1, dtype=torch.float32), labels(40, 3, seed=1))
    return loss(z, y)


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_module_equals_functional_form(name: str) -> None:
    """With the defaults, and with each option alone."""
    functional, base, options = FUNCTIONAL[name]
    z, y = normal(12, 3, dtype=torch.float32), labels(12, 3)

    def direct(**some) -> Tensor:
        is_class = isinstance(getattr(functional, "func", functional), type)
        return of_second_epoch(functional(**some), z, y) if is_class else functional(z, y, **some)

    default = direct(**base)
    assert torch.equal(of_second_epoch(make_loss(name, **base), z, y), default)
    for option, value in options.items():
        expected = direct(**base | {option: value})
        assert NO_CHANGE_OF_VALUE & {option, (name, option)} or expected != default, option
        assert torch.equal(of_second_epoch(make_loss(name, **base | {option: value}), z, y), expected), option


def test_class_weight_is_a_buffer() -> None:
    """It moves and is saved with the model that holds the loss."""
    loss = GenCELoss(torch.tensor([1.0, 2.0]))
    assert loss.double().weight.dtype == torch.float64
    assert "weight" in loss.state_dict()


@pytest.mark.parametrize(("typo", "nearest"), [("gense", "gence"), ("focl", "focal"), ("bier", "brier")])
def test_unknown_loss_names_the_nearest(typo: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"unknown loss '{typo}'; did you mean '{nearest}'"):
        make_loss(typo)


@pytest.mark.parametrize(
    ("name", "typo", "nearest"),
    [("gence", "stregth", "strength"), ("focal", "gama", "gamma"), ("ce", "label_smooth", "label_smoothing")],
)
def test_unknown_option_names_the_nearest(name: str, typo: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"no option '{typo}'; did you mean '{nearest}'"):
        make_loss(name, **{typo: 0.5})


def test_a_name_unlike_all_others_lists_them() -> None:
    with pytest.raises(ValueError, match=", ".join(loss_names())):
        make_loss("xyzzy")
