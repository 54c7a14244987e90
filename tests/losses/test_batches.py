"""What every loss makes of a batch: ignored labels, class probabilities, sample weights, types of labels, nothing.

The expected values are loops over the formulas in float64 (`loops` below), or equivalent batches: without the rows that
do not count, with rows repeated.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import references
import torch
import torch.nn.functional as F
from references import COUNTS, MASK, REDUCTIONS, K, close, gradient, labels, normal, plain_softmax
from torch import Tensor, nn
from torch.autograd import forward_ad

from gence.losses import REGISTRY, AdaFocalLoss, GenCELoss, TrackedGenCELoss, generative_cross_entropy, make_loss

WEIGHT = [0.5, 2.0, 0.25, 1.5]
OF_A_BATCH = ("mmce", "mmce_w")  # one value for the batch
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32)
every_loss = pytest.mark.parametrize("name", REGISTRY)
with_probabilities = pytest.mark.parametrize("name", [name for name in REGISTRY if name not in OF_A_BATCH])


def build(name: str, **options) -> nn.Module:
    """A loss that has seen nothing yet."""
    counts = {"class_counts": COUNTS} if "class_counts" in REGISTRY[name].options else {}
    return make_loss(name, **counts | options)


def reductions(name: str) -> tuple[str, ...]:
    return ("sum", "mean") if name in OF_A_BATCH else REDUCTIONS


def value_and_gradient(name: str, z: Tensor, target: Tensor, options: dict, weight: Tensor | None = None) -> tuple:
    """With a fresh loss for each, and another upstream gradient for each entry."""
    return (
        build(name, **options)(z, target, sample_weight=weight).detach(),
        gradient(lambda v: build(name, **options)(v, target, sample_weight=weight), z),
    )


# --- The formulas as loops ----------------------------------------------------------------------------------------

# What the columns of the batch make of them; the others are a formula for each sample.
GENERATIVE = ("gence", "gence_focal", "gence_adafocal", "gence_logit_adjustment", "gence_tracked")


def loops(
    name: str, z: Tensor, q: Tensor, mass: Sequence[float], reduction: str, class_weight: Sequence[float] | None = None
) -> Tensor:
    """A loss of (M, K) logits, (M, K) class probabilities and M masses; rows of mass 0 are not looked at."""
    rows = [i for i, m in enumerate(mass) if m > 0]
    p = [plain_softmax(z[i].double().tolist()) for i in rows]
    t, s = [q[i].double().tolist() for i in rows], [float(mass[i]) for i in rows]
    w = [1.0] * K if class_weight is None else list(class_weight)
    weigh = class_weight is not None and bool(((q == 0) | (q == 1)).all())
    total = sum(
        m * (sum(a * b for a, b in zip(w, row, strict=True)) if weigh else 1.0) for m, row in zip(s, t, strict=True)
    )
    if name in OF_A_BATCH:
        return torch.tensor(batch_loss(name, p, t, s) * (total if reduction == "sum" else 1.0), dtype=torch.float64)
    if name == "gence_logit_adjustment":
        pulled = [[c * x for c, x in zip(COUNTS, row, strict=True)] for row in p]
        p = [[x / sum(row) for x in row] for row in pulled]
    # a_ik is how much of class k a row carries; C_k and the mean prediction count rows by their sum.
    a = [[m * v * x for v, x in zip(w, row, strict=True)] for m, row in zip(s, t, strict=True)]
    column = [sum(sum(b) * row[k] for b, row in zip(a, p, strict=True)) for k in range(K)]
    present = [k for k in range(K) if sum(row[k] for row in t) > 0]

    def of_label(row: Sequence[float], k: int) -> float:
        if name == "present_class":
            return -math.log(row[k] / sum(row[j] for j in present))
        if name not in GENERATIVE:
            return references.formula(name)(row, k)
        # Tracked GenCE without a past has C_k of the batch.
        factor = {"gence_focal": (1 - row[k]) ** 2, "gence_adafocal": 1 - row[k]}.get(name, 1.0)
        return factor * -math.log(row[k] / column[k])

    terms = [0.0] * len(mass)
    for i, row, b in zip(rows, p, a, strict=True):
        terms[i] = sum(b[k] * of_label(row, k) for k in range(K) if b[k] != 0)
    result = torch.tensor(terms, dtype=torch.float64)
    return result if reduction == "none" else result.sum() / (total if reduction == "mean" else 1.0)


def batch_loss(name: str, p: list, t: list, s: list) -> float:
    """Cross-entropy plus 2 MMCE, with u_i = m_i (c_i - r_i) over the mass of all, or of the right or wrong rows."""
    n = sum(s)
    y = [row.index(1.0) for row in t]
    r, c = references.confidence_and_hit(p, y)
    size = [sum(m for m, hit in zip(s, c, strict=True) if hit == own) if name == "mmce_w" else n for own in c]
    u = [m * (hit - conf) / own for m, hit, conf, own in zip(s, c, r, size, strict=True)]
    square = sum(
        x * v * math.exp(-abs(a - b) / 0.4) for x, a in zip(u, r, strict=True) for v, b in zip(u, r, strict=True)
    )
    return sum(-m * math.log(row[k]) for m, row, k in zip(s, p, y, strict=True)) / n + 2 * math.sqrt(max(square, 0.0))


# --- Labels to ignore ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [-100, 1, 255])
@every_loss
def test_an_ignored_row_is_as_if_it_were_not_there(name: str, index: int) -> None:
    """In value and gradient, whatever the row holds: numbers, NaN, or a mask."""
    z, y = 2 * normal(8, K), torch.tensor([0, 2, 3, 2, 0, 3, 3, 2])
    kept = torch.tensor([1, 1, 0, 1, 0, 1, 1, 1]) == 1
    y[~kept] = index
    for rubbish in (0.0, math.nan, math.inf, MASK):
        z[2] = rubbish
        for reduction in reductions(name):
            options = {"reduction": reduction, "ignore_index": index}
            value, by_z = value_and_gradient(name, z, y, options)
            if reduction == "none":
                assert not value[~kept].any()
                value = value[kept]
                upstream = (1 + torch.arange(8) / 8)[kept].double()
                expected = torch.func.vjp(lambda v, o=options: build(name, **o)(v, y[kept]), z[kept])[1](upstream)[0]
            else:
                expected = value_and_gradient(name, z[kept], y[kept], options)[1]
            close(value, build(name, **options)(z[kept], y[kept]))
            close(by_z[kept], expected)
            if name != "ce" or rubbish == 0:  # which is torch's own, where a row of NaN has a gradient of NaN
                assert not by_z[~kept].any()


@every_loss
def test_many_classes_and_the_default_label(name: str) -> None:
    """-100 is a row from the end of a table of 150 classes."""
    z, y = normal(6, 150), labels(6, 150)
    y[1] = y[4] = -100
    counts = {"class_counts": torch.arange(1.0, 151)} if "class_counts" in REGISTRY[name].options else {}
    kept = y != -100
    close(make_loss(name, **counts)(z, y), make_loss(name, **counts)(z[kept], y[kept]))


@every_loss
def test_a_label_out_of_bounds_is_named(name: str) -> None:
    """In a batch, with positions, and under torch.vmap."""
    for label in (K, -1, -K, 200, -101):
        z, y = normal(5, K), labels(5)
        y[3] = label
        says = f"label {label} is out of bounds: with 4 classes labels lie in 0..3.*ignore_index, which is -100"
        for call, logits, target in (
            (build(name), z, y),
            (build(name), z.T[None], y[None]),
            (torch.vmap(build(name)), z.expand(2, 5, K), y.expand(2, 5)),
        ):
            with pytest.raises(IndexError, match=says):
                call(logits, target)


# --- Class probabilities ------------------------------------------------------------------------------------------


@with_probabilities
def test_one_hot_probabilities_are_labels(name: str) -> None:
    z, y = 2 * normal(8, K), labels(8)
    for reduction in REDUCTIONS:
        hard = value_and_gradient(name, z, y, {"reduction": reduction})
        soft = value_and_gradient(name, z, F.one_hot(y, K).double(), {"reduction": reduction})
        for one, other in zip(soft, hard, strict=True):
            close(one, other)


@with_probabilities
def test_mixed_labels_are_the_formula(name: str) -> None:
    """Mixup: lambda of one label, 1 - lambda of another; then probabilities of all classes."""
    z, y, other, share = 2 * normal(8, K), labels(8), labels(8, seed=1), torch.linspace(0, 1, 8).double()[:, None]
    mixed = share * F.one_hot(y, K) + (1 - share) * F.one_hot(other, K)
    for q in (mixed, normal(8, K, seed=2).softmax(1)):
        for reduction in REDUCTIONS:
            close(build(name, reduction=reduction)(z, q), loops(name, z, q, [1.0] * 8, reduction), atol=1e-10)
        if name != "gence_tracked":  # whose gradient is that of another value
            each = build(name, reduction="none")
            assert torch.autograd.gradcheck(lambda v, q=q, f=each: f(v, q), z.clone().requires_grad_())
    close(
        build("focal")(z, mixed),
        (share[:, 0] * build("focal", reduction="none")(z, y)).mean()
        + ((1 - share[:, 0]) * build("focal", reduction="none")(z, other)).mean(),
    )


@pytest.mark.parametrize("name", OF_A_BATCH)
def test_mmce_refuses_probabilities(name: str) -> None:
    with pytest.raises(ValueError, match=r"needs class indices of shape \(3,\).*another loss"):
        build(name)(normal(3, K), normal(3, K).softmax(1))


@every_loss
def test_an_index_to_ignore_is_for_labels(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"ignore_index = 1 is for class indices.*sample_weight of 0"):
        build(name, ignore_index=1)(normal(3, K), normal(3, K).softmax(1))


# --- Sample weights -----------------------------------------------------------------------------------------------


@every_loss
def test_sample_weights_repeat_the_samples(name: str) -> None:
    """Weights of 0, 1, 2 and 3, beside an ignored label; labels and class probabilities."""
    z, y, times = 2 * normal(9, K), labels(9), torch.tensor([1, 3, 0, 2, 1, 0, 2, 1, 3])
    y[4] = -100
    z[2] = math.nan
    targets = [y] if name in OF_A_BATCH else [y, normal(9, K, seed=1).softmax(1)]
    for target in targets:
        for reduction in ("sum", "mean"):
            weighted = value_and_gradient(name, z, target, {"reduction": reduction}, times.float())

            def repeated(v: Tensor, r: str = reduction, t: Tensor = target) -> Tensor:
                return build(name, reduction=r)(v.repeat_interleave(times, 0), t.repeat_interleave(times, 0))

            close(weighted[0], repeated(z))
            close(weighted[1], gradient(repeated, z))
        if name not in OF_A_BATCH:
            each = build(name, reduction="none")(z, target, sample_weight=times)
            close(each.sum(), build(name, reduction="sum")(z, target, sample_weight=times))
            assert not each[times == 0].any()


@every_loss
def test_any_sample_weights_are_the_formula(name: str) -> None:
    z, y, weight = 2 * normal(8, K), labels(8), normal(8, seed=3).exp()
    weight[5] = 0
    for reduction in reductions(name):
        expected = loops(name, z, F.one_hot(y, K), weight.tolist(), reduction)
        close(build(name, reduction=reduction)(z, y, sample_weight=weight), expected, atol=1e-10)
    spatial = z.reshape(2, 4, K).movedim(-1, 1), y.reshape(2, 4), weight.reshape(2, 4)
    close(build(name)(*spatial), loops(name, z, F.one_hot(y, K), weight.tolist(), "mean"), atol=1e-10)


@pytest.mark.parametrize("strength", [0.0, 0.7])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sample_and_class_weights_of_gence_together(strength: float, smoothing: float) -> None:
    """The weights multiply: in the terms, in the column sums and in the divisor."""
    z, y, weight, times = 2 * normal(6, K), labels(6), torch.tensor(WEIGHT), torch.tensor([1, 2, 0, 1, 3, 1])
    options = {"strength": strength, "label_smoothing": smoothing}
    expected = references.generative_cross_entropy(
        z.repeat_interleave(times, 0), y.repeat_interleave(times), weight, **options
    )
    got = generative_cross_entropy(z, y, weight, sample_weight=times, **options)
    close(got, expected.reduced("mean"))
    if strength == 0:
        close(build("ce", weight=weight, label_smoothing=smoothing)(z, y, sample_weight=times), got)


BAD_WEIGHTS = {
    "too few": (torch.ones(4), r"shape of class indices, \(5,\), but is \(4,\)"),
    "per class": (torch.ones(5, K), r"\(5,\), but is \(5, 4\)"),
    "negative": (torch.tensor([1.0, -2.0, 1, 1, 1]), r"one is -2\.0.*clamp"),
    "NaN": (torch.tensor([1.0, math.nan, 1, 1, 1]), "one is nan"),
    "infinite": (torch.tensor([1.0, math.inf, 1, 1, 1]), "one is inf"),
    "learned": (torch.ones(5, requires_grad=True), r"detach\(\)"),
    "a list": ([1.0] * 5, "but is list"),
}


@every_loss
def test_bad_sample_weights_are_named(name: str) -> None:
    for weight, says in BAD_WEIGHTS.values():
        with pytest.raises(ValueError, match=says):
            build(name)(normal(5, K), labels(5), sample_weight=weight)


# --- Types, and nothing at all ------------------------------------------------------------------------------------


@every_loss
def test_labels_of_any_integer_type(name: str) -> None:
    z, y, options = 2 * normal(8, K), torch.tensor([1, 1, 3, 2, 0, 1, 2, 3]), {"ignore_index": 7}
    for dtype, here in itertools.product(INTEGERS, (y, torch.where(y == 1, 7, y))):
        for one, other in zip(
            value_and_gradient(name, z, here.to(dtype), options),
            value_and_gradient(name, z, here, options),
            strict=True,
        ):
            close(one, other)


@pytest.mark.parametrize("kind", ["empty", "empty probabilities", "all ignored", "all of weight 0"])
@every_loss
def test_a_batch_of_nothing(name: str, kind: str) -> None:
    """As in cross_entropy: sum 0, mean NaN, and gradient 0 in both."""
    z, y = 2 * normal(3, K), labels(3)
    z, target, weight = {
        "empty": (z[:0], y[:0], None),
        "empty probabilities": (z[:0], z[:0], None),
        "all ignored": (z, y.fill_(-100), None),
        "all of weight 0": (z, y, torch.zeros(3)),
    }[kind]
    if kind == "empty probabilities" and name in OF_A_BATCH:
        return
    for reduction in reductions(name):
        value, by_z = value_and_gradient(name, z, target, {"reduction": reduction}, weight)
        assert value.isnan().all() if reduction == "mean" else not value.any()
        assert not by_z.any() and by_z.shape == z.shape


@with_probabilities
def test_masked_classes_beside_ignored_rows(name: str) -> None:
    """-inf logits, hard and soft targets that leave the class out: finite, and no gradient from the ignored row."""
    z, y = normal(5, K), torch.tensor([0, 1, 2, 1, -100])
    z[:, 3] = MASK
    q = torch.cat([normal(5, K - 1, seed=1).softmax(1), torch.zeros(5, 1)], 1)
    for target, weight in ((y, None), (q, torch.tensor([1.0, 1, 2, 1, 0]))):
        value, by_z = value_and_gradient(name, z, target, {}, weight)
        assert value.isfinite() and by_z.isfinite().all() and by_z[:4].any() and not by_z[4].any()


@every_loss
def test_one_sample_without_a_batch_dimension(name: str) -> None:
    z = normal(K)
    for y in (torch.tensor(2), torch.tensor([2])):
        close(build(name)(z, y), build(name)(z[None], torch.tensor([2])))


BAD_TARGETS = {
    "float labels": (torch.ones(5), "must be integers, but have the dtype torch.float32.*long"),
    "bool labels": (torch.ones(5, dtype=torch.bool), "must be integers, but have the dtype torch.bool"),
    "too many": (
        torch.ones(6, dtype=torch.long),
        r"need class indices of shape \(5,\).*the target has the shape \(6,\)",
    ),
    "a column": (torch.ones(5, 1, dtype=torch.long), r"the target has the shape \(5, 1\)"),
    "integer one-hot": (
        torch.ones(5, K, dtype=torch.long),
        "must hold class probabilities, but has the dtype torch.int64",
    ),
    "a list": ([0, 1, 2, 3, 0], "the target must be a tensor, but is a list"),
    "an array": (np.zeros(5, dtype=int), "the target must be a tensor, but is a ndarray"),
}


@every_loss
def test_bad_targets_and_logits_are_named(name: str) -> None:
    for target, says in BAD_TARGETS.values():
        with pytest.raises((ValueError, RuntimeError, TypeError), match=says):
            build(name)(normal(5, K), target)
    with pytest.raises(RuntimeError, match=r"torch.int64 and the shape \(5, 4\).*float output of the network"):
        build(name)(torch.ones(5, K, dtype=torch.long), labels(5))


# --- Mixed precision ----------------------------------------------------------------------------------------------

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


@HALVES
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"strength": 0.0}, {"reduction": "none"}], ids=str)
@pytest.mark.parametrize("shape", [(6, K), (2, K, 3, 5)], ids=str)
def test_half_logits_with_float32_weights(dtype: torch.dtype, autocast: bool, options: dict, shape: tuple) -> None:
    z = (2 * normal(*shape)).to(dtype)
    y = labels(z.numel() // K).reshape(shape[:1] + shape[2:])
    rest = {key: value for key, value in options.items() if key != "reduction"}
    expected = references.generative_cross_entropy(z, y, torch.tensor(WEIGHT), **rest)
    reduction = options.get("reduction", "mean")
    with torch.autocast("cpu", dtype, enabled=autocast):
        for loss in (GenCELoss(torch.tensor(WEIGHT), **options), make_loss("gence", weight=WEIGHT, **options)):
            value = loss(z, y)
            assert value.dtype == torch.float32
            close(value.double().reshape(-1), expected.reduced(reduction).reshape(-1), rtol=1e-5, atol=1e-5)
        if options.get("strength") == 0.0:
            close(value, F.cross_entropy(z.float(), y, torch.tensor(WEIGHT)), rtol=1e-5)
            close(make_loss("ce", weight=torch.tensor(WEIGHT))(z, y), value, rtol=1e-5)
    with torch.autocast("cpu", dtype, enabled=autocast), pytest.raises(ValueError, match=r"\(6,\).*\(5,\)"):
        loss(z[:6].reshape(-1, K)[:6], labels(5))


@HALVES
def test_weighted_gence_behind_a_layer_under_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, x, y = nn.Linear(5, K), normal(6, 5, dtype=torch.float32), labels(6)
    with torch.autocast("cpu", dtype):
        z = layer(x)
        value = GenCELoss(torch.tensor(WEIGHT))(z, y)
    value.backward()
    expected = references.generative_cross_entropy(z, y, torch.tensor(WEIGHT))
    close(value.double(), expected.reduced("mean"), rtol=1e-5)
    assert layer.weight.grad.isfinite().all() and layer.weight.grad.any()


@HALVES
@every_loss
def test_autocast_changes_no_loss(name: str, dtype: torch.dtype) -> None:
    """Float32 logits and sample weights: no sum of a batch in half precision."""
    z, y, weight = normal(64, K, dtype=torch.float32), labels(64), normal(64, seed=1, dtype=torch.float32).exp()
    outside = build(name)(z, y), build(name)(z, y, sample_weight=weight)
    with torch.autocast("cpu", dtype):
        inside = build(name)(z, y), build(name)(z, y, sample_weight=weight)
    for one, other in zip(inside, outside, strict=True):
        close(one, other, rtol=1e-6)


# --- Losses that remember -----------------------------------------------------------------------------------------


def bad_batches() -> dict[str, tuple[Tensor, Tensor]]:
    z, y = normal(6, K, seed=5), labels(6, seed=5)
    found = {name: (z.clone(), y) for name in ("inf", "NaN", "-inf row")}
    for (bad, _), number in zip(found.values(), (math.inf, math.nan, MASK), strict=True):
        bad[2] = number
    found["one inf"] = z.clone(), y
    found["one inf"][0][3, 1] = math.inf
    return found | {"empty": (z[:0], y[:0]), "all ignored": (z, torch.full((6,), -100))}


@pytest.mark.parametrize("when", ["first", "later"])
@pytest.mark.parametrize("kind", bad_batches())
def test_a_bad_batch_is_not_remembered(kind: str, when: str) -> None:
    """The memory stands, and the next good batch has the value that it would have had."""
    z, y = normal(10, K), labels(10)
    loss, other = (TrackedGenCELoss([4, 3, 2, 1], memory=20.0) for _ in range(2))
    if when == "later":
        for one in (loss, other):
            one(normal(7, K, seed=1), labels(7))
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    value = loss(*bad_batches()[kind])
    assert not value.isfinite()  # so a gradient scaler skips the step
    for name, old in before.items():
        assert torch.equal(loss.state_dict()[name], old)
    for _ in range(2):
        expected = other(z, y)
        assert expected.isfinite() and torch.equal(loss(z, y), expected)


def test_the_memory_is_the_moving_average_by_hand() -> None:
    """Of the rows that count, by their weights; value -log p_y + log(n m_y)."""
    loss, total, mass = TrackedGenCELoss([4, 3, 2, 1], memory=20.0), [0.0] * K, 0.0
    for seed in range(4):
        z, y, weight = normal(6, K, seed=seed), labels(6, seed=seed), normal(6, seed=seed + 9).exp()
        y[seed] = -100
        rows = [(plain_softmax(z[i].tolist()), int(y[i]), float(weight[i])) for i in range(6) if y[i] != -100]
        n = sum(w for _, _, w in rows)
        old = math.exp(-n / 20)
        mean = [sum(w * p[k] for p, _, w in rows) / n for k in range(K)]
        total, mass = [old * a + (1 - old) * b for a, b in zip(total, mean, strict=True)], old * mass + 1 - old
        expected = sum(w * (-math.log(p[k]) + math.log(n * total[k] / mass)) for p, k, w in rows) / n
        close(loss(z, y, sample_weight=weight), expected)


def test_one_of_several_seeds_has_a_bad_batch() -> None:
    """Under torch.vmap, as several networks are trained together, each with a memory of its own."""
    loss = TrackedGenCELoss([4, 3, 2, 1], memory=20.0)
    memory = {name: torch.stack([getattr(loss, name)] * 3) for name in loss.tracked}
    together = torch.vmap(lambda own, z, y: torch.func.functional_call(loss, own, (z, y)))
    alone = [TrackedGenCELoss([4, 3, 2, 1], memory=20.0) for _ in range(3)]
    for step in range(3):
        z, y = normal(3, 6, K, seed=step), labels(18, seed=step).reshape(3, 6)
        if step == 1:
            z[1, 4, 2] = math.inf
            y[2, :2] = -100
        got = together(memory, z, y)
        expected = torch.stack([one(a, b) for one, a, b in zip(alone, z, y, strict=True)])
        torch.testing.assert_close(got, expected, equal_nan=True, rtol=0, atol=1e-12)
        assert got.isfinite().tolist() == [True, step != 1, True]
        for name in loss.tracked:
            close(memory[name], torch.stack([getattr(one, name) for one in alone]))


def test_a_step_that_a_gradient_scaler_skips() -> None:
    """An overflow in the forward pass in float16: the weights stand, and so does what the loss remembers."""
    torch.manual_seed(0)
    layer, loss = nn.Linear(5, K), TrackedGenCELoss([4, 3, 2, 1])
    optimiser, scaler = torch.optim.SGD(layer.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    scales = []
    for step in range(4):
        x, before = normal(8, 5, seed=step, dtype=torch.float32), layer.weight.detach().clone()
        remembered = loss.mean_prediction.clone()
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.float16):
            value = loss(layer(x * 1e6 if step == 1 else x), labels(8, seed=step))
        scaler.scale(value).backward()
        scaler.step(optimiser)
        scaler.update()
        scales.append(scaler.get_scale())
        skipped = step == 1
        assert value.isfinite() != skipped
        assert torch.equal(layer.weight, before) == skipped == torch.equal(loss.mean_prediction, remembered)
    assert scales[1] < scales[0]


@pytest.mark.parametrize("generative", [False, True])
@pytest.mark.parametrize("kind", bad_batches())
def test_adafocal_is_not_moved_by_a_bad_validation_set(kind: str, generative: bool) -> None:
    loss, other = (AdaFocalLoss(n_bins=3, generative=generative) for _ in range(2))
    z, y = bad_batches()[kind]
    if kind in ("empty", "all ignored"):
        with pytest.raises(ValueError, match="needs validation samples"):
            loss.update(z, y)
    else:
        with pytest.warns(UserWarning, match="keeps its gammas"):
            loss.update(z, y)
    for one in (loss, other):
        one.update(normal(40, K), labels(40))
    for name, value in other.state_dict().items():
        assert torch.equal(loss.state_dict()[name], value)
    assert loss.gammas.unique().numel() > 1


def test_adafocal_ignores_labels_of_a_validation_set() -> None:
    loss, other = AdaFocalLoss(n_bins=3), AdaFocalLoss(n_bins=3)
    z, y = normal(40, K), labels(40)
    other.update(z[10:], y[10:])
    y[:10], z[:5] = -100, math.nan
    loss.update(z, y)
    assert torch.equal(loss.gammas, other.gammas) and torch.equal(loss.edges, other.edges)


# --- Forward mode, traces, and options set later ------------------------------------------------------------------


@every_loss
def test_forward_mode_is_reverse_mode(name: str) -> None:
    z, y, direction = 2 * normal(6, K), labels(6), normal(6, K, seed=1)
    y[2] = -100
    weight = normal(6, seed=2).exp()
    soft = [] if name in OF_A_BATCH else [normal(6, K, seed=3).softmax(1)]
    for target in (y, *soft):

        def loss(v: Tensor, t: Tensor = target) -> Tensor:
            return build(name)(v, t, sample_weight=weight)

        expected = (gradient(loss, z) * direction).sum()
        close(torch.func.jvp(loss, (z,), (direction,))[1], expected)
        with forward_ad.dual_level():
            close(forward_ad.unpack_dual(loss(forward_ad.make_dual(z, direction))).tangent, expected)


@pytest.mark.parametrize("case", ["large", "underflow", "class weights", "smoothing", "each", "soft"])
def test_forward_mode_of_gence_on_every_path(case: str) -> None:
    n, n_classes = (600, 40) if case == "large" else (6, K)  # over 2^14 logits
    z, y, direction = normal(n, n_classes), labels(n, n_classes), normal(n, n_classes, seed=1)
    if case == "underflow":
        z[:, 3] = -3e4
    target = normal(n, n_classes, seed=2).softmax(1) if case == "soft" else y
    options = {
        "class weights": {"weight": torch.tensor(WEIGHT)},
        "smoothing": {"label_smoothing": 0.1},
        "each": {"reduction": "none"},
    }.get(case, {})

    def loss(v: Tensor) -> Tensor:
        return generative_cross_entropy(v, target, strength=0.7, **options).sum()

    close(torch.func.jvp(loss, (z,), (direction,))[1], (gradient(loss, z) * direction).sum(), atol=1e-11)
    if case != "large":
        expected = torch.autograd.functional.hessian(loss, z)
        close(torch.func.hessian(loss)(z), expected)  # forward over reverse
        close(torch.func.jacrev(torch.func.jacfwd(loss))(z), expected)


def test_forward_over_forward_is_refused_and_not_wrong() -> None:
    z, y = normal(6, K), labels(6)
    y[2] = -100
    with pytest.raises(NotImplementedError, match="jacrev"):
        torch.func.jacfwd(torch.func.jacfwd(lambda v: generative_cross_entropy(v, y)))(z)


@every_loss
def test_a_trace_is_right_for_other_labels_and_logits(name: str) -> None:
    z, y = normal(6, K), labels(6)
    other, far = y.clone(), z.clone()
    other[2], far[:, 1] = -100, far[:, 1] - 800
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        traced = torch.jit.trace(build(name).eval(), (z, y), check_trace=False)
    for logits, target in ((z, other), (far, y)):
        close(traced(logits, target), build(name).eval()(logits, target))


def test_options_set_later_count_and_weights_are_saved() -> None:
    z, y = normal(6, K), labels(6)
    weight = torch.tensor(WEIGHT, dtype=torch.float64)
    for name in ("ce", "gence"):
        loss = make_loss(name)
        assert "weight" not in loss.state_dict()
        loss.weight = weight
        assert torch.equal(loss.state_dict()["weight"], weight)
        close(loss(z, y), make_loss(name, weight=weight)(z, y))
        assert loss.float().weight.dtype == torch.float32
    loss = make_loss("focal")
    loss.gamma, loss.ignore_index = 3.0, 1
    close(loss(z, y), make_loss("focal", gamma=3.0, ignore_index=1)(z, y))


@pytest.mark.parametrize("name", ["logit_adjustment", "gence_logit_adjustment", "class_balanced", "gence_tracked"])
def test_class_counts_are_checked_when_the_loss_is_built(name: str) -> None:
    for counts in ([1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf]):
        with pytest.raises(ValueError, match=r"positive number for each class, but is \[1\.0, .*bincount"):
            make_loss(name, class_counts=counts)
    with pytest.raises(TypeError, match="class_counts"):
        make_loss(name)


# --- Random relatives ---------------------------------------------------------------------------------------------

N_RELATIVES = 400
SHAPES = {"N-K": (6, K), "N-K-d": (2, K, 3), "N-K-d1-d2": (1, K, 2, 3), "K": (K,), "N=1": (1, K)}
LABELS = 3 * ("int64", "uint8", "int8", "int32", "soft", "one-hot") + ("too large", "negative", "float", "other shape")
WEIGHTS = 4 * ("none", "some", "with zeros", "bool") + ("negative", "other shape")


class Relative(NamedTuple):
    """A batch, the loss it goes to, and why it must be refused, if it must."""

    loss: nn.Module
    call: tuple[Tensor, Tensor, Tensor | None]
    expected: Tensor | None
    says: str
    how: str

    def __str__(self) -> str:
        return f"{self.loss}, {[None if x is None else (x.dtype, tuple(x.shape)) for x in self.call]}, {self.how}"


def relative(seed: int) -> Relative:
    rng = np.random.default_rng(seed)

    def pick(options: Sequence) -> object:
        return options[int(rng.integers(len(options)))]

    name, kind, weights, how = pick(list(REGISTRY)), pick(LABELS), pick(WEIGHTS), pick(("plain", "autocast", "vmap"))
    dtype = pick((torch.float64, torch.float32, torch.float16, torch.bfloat16))
    shape, reduction, index = SHAPES[pick(list(SHAPES))], pick(reductions(name)), pick((-100, -100, 2, 99))
    z = (2 * normal(*shape, seed=seed)).to(dtype)
    where = min(len(shape) - 1, 1)
    label_shape = tuple(n for i, n in enumerate(shape) if i != where)
    m = math.prod(label_shape)
    y = labels(m, seed=seed)
    soft, faults = kind in ("soft", "one-hot"), []
    if soft:
        q = normal(m, K, seed=seed + 1).softmax(1) if kind == "soft" else F.one_hot(y, K).double()
        target = q.T.reshape(shape) if len(shape) == 1 else q.reshape(*label_shape, K).movedim(-1, 1).to(dtype)
        target = target.to(dtype)
        q = target.double().reshape(1, K) if len(shape) == 1 else target.double().movedim(1, -1).reshape(m, K)
        kept = torch.ones(m)
        index_fits = index < 0
        if not index_fits:
            faults.append(f"ignore_index = {index} is for class indices")
        elif name in OF_A_BATCH:
            faults.append("needs class indices")
    else:
        wide = index if kind != "uint8" or index >= 0 else 99  # uint8 has no -100
        index = wide
        y[torch.as_tensor(rng.random(m) < 0.3)] = index
        kept, q = (y != index).double(), F.one_hot(torch.where(y != index, y, 0), K).double()
        target = y.reshape(label_shape)
        if kind in ("int64", "uint8", "int8", "int32"):
            target = target.to(getattr(torch, kind))
        elif kind == "float":
            target = target.float() if label_shape != shape else target
            faults.append("must be integers, but have the dtype torch.float32")
        elif kind == "other shape":
            target = torch.zeros(*label_shape, 7, dtype=torch.long)
            faults.append(f"need class indices of shape {label_shape}")
        else:
            wrong = K + seed % 50 if kind == "too large" else -1 - seed % 50
            target.view(-1)[-1] = wrong
            if wrong != index:
                faults.append(f"label {wrong} is out of bounds")
            else:
                kept[-1] = 0
    weight, mass = None, kept
    if weights != "none":
        weight = normal(m, seed=seed + 2).exp().reshape(label_shape)
        if weights == "with zeros":
            weight = weight * torch.as_tensor(rng.random(m) < 0.6).reshape(label_shape)
        if weights == "bool":
            weight = weight > 0.7
        if weights == "negative":
            weight = -weight
            faults.append("sample_weight must hold finite numbers >= 0")
        if weights == "other shape":
            weight = torch.ones(*label_shape, 7)
            faults.append("sample_weight must be a tensor of the shape of class indices")
        if not faults:
            mass = kept * weight.reshape(-1).double()
    options, class_weight = {"reduction": reduction, "ignore_index": index}, None
    if name in ("ce", "gence") and rng.random() < 0.5:
        class_weight = WEIGHT
        options["weight"] = torch.tensor(WEIGHT)  # float32, whatever the logits are
    rows = z[None] if len(shape) == 1 else z.movedim(1, -1).reshape(m, K)
    expected = None
    if not faults:
        if float(mass.sum()) > 0:
            expected = loops(name, rows, q, mass.tolist(), reduction, class_weight)
        else:
            nothing = {"sum": torch.zeros(()), "mean": torch.full((), math.nan), "none": torch.zeros(m)}
            expected = nothing[reduction]
    says = "|".join(map(re.escape, faults))
    return Relative(build(name, **options), (z, target, weight), expected, says, how)


def called(one: Relative) -> Tensor:
    given = [x for x in one.call if x is not None]
    if one.how == "vmap":
        return torch.vmap(one.loss.eval())(*(x[None] for x in given))[0]
    with torch.autocast("cpu", torch.bfloat16, enabled=one.how == "autocast"):
        return one.loss(*given)


@pytest.mark.parametrize("block", range(4))
def test_random_relatives_are_right_or_refused_with_a_reason(block: int) -> None:
    """None is silent, none unclear."""
    for seed in range(block, N_RELATIVES, 4):
        one = relative(seed)
        if one.says:
            with pytest.raises((ValueError, IndexError, RuntimeError, TypeError), match=one.says):
                called(one)
            continue
        value = called(one).double().reshape(-1)
        z = one.call[0]
        rtol = 1e-10 if z.dtype == torch.float64 else 3e-4 if z.dtype == torch.float32 else 2 * torch.finfo(z.dtype).eps
        torch.testing.assert_close(
            value,
            one.expected.double().reshape(-1),
            rtol=rtol,
            atol=rtol,
            equal_nan=True,
            msg=lambda m, o=one: f"{o}: {m}",
        )


def test_the_relatives_hold_both_kinds() -> None:
    drawn = [relative(seed) for seed in range(N_RELATIVES)]
    refused = sum(bool(one.says) for one in drawn)
    assert (
        150 < refused < 300 and sum(one.expected is not None and one.expected.isfinite().all() for one in drawn) > 100
    )
