"""The losses inside PyTorch: compilation, functional transforms, second derivatives, autocast, memory, accumulation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import references
import torch
import torch.nn.functional as F
from drawing import drawn, others_thorough
from references import EXTREME, K, close, gradient, labels, normal
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from gence.losses import REGISTRY, GenCELoss, _column_scores, generative_cross_entropy, make_loss


def keys(options: dict) -> str:
    return "-".join(options) or "plain"


WEIGHT = torch.tensor([0.5, 2.0, 0.0, 1.5], dtype=torch.float64)
COUNTS = {"class_counts": torch.tensor([50.0, 3.0, 20.0, 7.0])}  # checked by value, but when the module is built
NEEDS_COUNTS = {name for name, info in REGISTRY.items() if "class_counts" in info.options}
# All losses and options: none decides by values in Python.
CAPTURED: dict[str, tuple[str, dict]] = {
    **{name: (name, COUNTS if name in NEEDS_COUNTS else {}) for name in REGISTRY},
    "gence-half": ("gence", {"strength": 0.5}),
    "gence-0": ("gence", {"strength": 0.0}),
    "gence-weight": ("gence", {"weight": WEIGHT}),
    "gence-smoothing": ("gence", {"label_smoothing": 0.1}),
    "gence-weight-smoothing": ("gence", {"weight": WEIGHT, "label_smoothing": 0.1}),
    "gence-ignore": ("gence", {"ignore_index": 1}),
    "class_balanced-list": ("class_balanced", {"class_counts": COUNTS["class_counts"].tolist()}),
}


def batch(n: int = 12) -> tuple[Tensor, Tensor]:
    return 2 * normal(n, K), labels(n)


def check_captured(loss: Callable[[Tensor, Tensor], Tensor], z: Tensor, target: Tensor) -> None:
    """Value and gradient of a capture in one piece; fullgraph=True raises at a graph break."""
    torch._dynamo.reset()
    captured = torch.compile(loss, fullgraph=True, backend="aot_eager")
    close(captured(z, target), loss(z, target))
    close(gradient(lambda v: captured(v, target), z), gradient(lambda v: loss(v, target), z))


@pytest.mark.parametrize("name", others_thorough(CAPTURED, {"gence", *drawn(CAPTURED, 8)}))
def test_compiles_in_one_graph(name: str) -> None:
    registered, options = CAPTURED[name]
    check_captured(make_loss(registered, **options), *batch())


@pytest.mark.parametrize("options", [{}, {"weight": WEIGHT, "label_smoothing": 0.1}], ids=["plain", "weighted"])
def test_gence_with_soft_targets_compiles_in_one_graph(options: dict) -> None:
    z, _ = batch()
    check_captured(GenCELoss(**options), z, normal(*z.shape, seed=1).softmax(1))


# --- torch.func ---------------------------------------------------------------------------------------------------

TRANSFORMED = ("ce", "brier", "gence", "focal", "inverse_focal", "flsc", "dual_focal", "gence_focal", "lq", "sce")
TRANSFORMED += ("mmce", "mmce_w", "flsd_53", "flsd_52", "adafocal", "gence_adafocal")


@pytest.mark.parametrize("name", TRANSFORMED)
def test_vmap_over_grad_is_a_loop_over_batches(name: str) -> None:
    loss = make_loss(name)
    z, y = 2 * normal(5, 8, K), labels(40).reshape(5, 8)
    loop = torch.stack([gradient(lambda v, t=t: loss(v, t), one) for one, t in zip(z, y, strict=True)])
    close(vmap(grad(loss))(z, y), loop)
    close(torch.stack([grad(loss)(one, t) for one, t in zip(z, y, strict=True)]), loop)


@pytest.mark.parametrize(
    "options",
    [{"weight": WEIGHT}, {"label_smoothing": 0.1}, {"ignore_index": 1}, {"reduction": "sum"}, {"strength": 0.3}],
    ids=keys,
)
def test_vmap_over_grad_of_gence_with_options(options: dict) -> None:
    loss = GenCELoss(**options)
    z, y = 2 * normal(5, 8, K), labels(40).reshape(5, 8)
    loop = torch.stack([gradient(lambda v, t=t: loss(v, t), one) for one, t in zip(z, y, strict=True)])
    close(vmap(grad(loss))(z, y), loop)


# --- Second derivatives -------------------------------------------------------------------------------------------


def plain_gence(z: Tensor, y: Tensor, strength: float, weight: Tensor | None = None) -> Tensor:
    """The sum of the terms from elementary operations, which autograd differentiates as often as one likes."""
    w = torch.ones(z.shape[1], dtype=z.dtype) if weight is None else weight
    p = z.softmax(1)
    columns = (w[y][:, None] * p).sum(0)
    own = p.gather(1, y[:, None])[:, 0]
    return -(w[y] * (own / columns[y] ** strength).log()).sum()


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_hessian_of_gence(strength: float, weight: Tensor | None) -> None:
    z, y = batch(5)
    y[y == 2] = 3  # whose weight is not 0

    def loss(v: Tensor) -> Tensor:
        return generative_cross_entropy(v, y, weight, reduction="sum", strength=strength)

    expected = torch.autograd.functional.hessian(lambda v: plain_gence(v, y, strength, weight), z)
    assert expected.abs().max() > 0.1
    close(torch.autograd.functional.hessian(loss, z), expected)
    close(jacrev(jacrev(loss))(z), expected)


@pytest.mark.parametrize("soft", [False, True], ids=["index", "soft"])
@pytest.mark.parametrize(
    "options", [{}, {"weight": WEIGHT}, {"strength": 0.5}, {"label_smoothing": 0.1}, {"ignore_index": -100}], ids=keys
)
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_second_derivatives_by_finite_differences(soft: bool, options: dict, reduction: str) -> None:
    z, y = batch(4)
    target = normal(4, K, seed=1).softmax(1) if soft else y
    if "ignore_index" in options and not soft:
        y[0] = -100
    assert torch.autograd.gradgradcheck(
        lambda v: generative_cross_entropy(v, target, reduction=reduction, **options), z.requires_grad_()
    )


# --- The two paths of the forward pass ----------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("options", [{}, {"weight": WEIGHT}, {"ignore_index": 1}, {"label_smoothing": 0.1}], ids=keys)
def test_both_paths_agree(monkeypatch: pytest.MonkeyPatch, options: dict, strength: float) -> None:
    z, y = batch(30)

    def loss(v: Tensor) -> Tensor:
        return generative_cross_entropy(v, y, reduction="none", strength=strength, **options)

    expected = loss(z), gradient(loss, z), grad(lambda v: grad(lambda u: loss(u).sum())(v).square().sum())(z)
    taken = []
    by_columns = _column_scores._by_columns
    monkeypatch.setattr(_column_scores, "_by_rows", lambda *_: None)
    monkeypatch.setattr(_column_scores, "_by_columns", lambda *a: taken.append(1) or by_columns(*a))
    actual = loss(z), gradient(loss, z), grad(lambda v: grad(lambda u: loss(u).sum())(v).square().sum())(z)
    assert taken or (strength == 0 and "label_smoothing" in options)  # which needs no column sums
    for one, other in zip(actual, expected, strict=True):
        close(one, other)


@pytest.mark.parametrize(("name", "columns"), [("usual", False), ("all wrong by 2e4", True), ("NaN", True)])
def test_extreme_logits_take_the_path_by_columns(monkeypatch: pytest.MonkeyPatch, name: str, columns: bool) -> None:
    z, y = batch(5)
    if name == "NaN":
        z[0], y[0] = torch.nan, -100
    elif name != "usual":
        # Every row gives the last class a probability below underflow.
        z, y = EXTREME[name][0].double(), torch.tensor(EXTREME[name][1])
        z[:, 3] = -3e4
    taken = []
    by_columns = _column_scores._by_columns
    monkeypatch.setattr(_column_scores, "_by_columns", lambda *a: taken.append(1) or by_columns(*a))
    assert generative_cross_entropy(z, y).isfinite()
    assert bool(taken) is columns


# --- Number formats -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [(4, 3), (64, 10), (256, 100), (33, 1000)], ids=str)
def test_the_gradient_in_half_precision_is_rounded_once(dtype: torch.dtype, size: tuple[int, int]) -> None:
    z, y = (2 * normal(*size)).to(dtype), labels(*size)
    for strength in (0.0, 1.0):

        def loss(v: Tensor, s: float = strength) -> Tensor:
            return generative_cross_entropy(v, y, reduction="sum", strength=s)

        expected = gradient(loss, z.double())
        limits = torch.finfo(dtype)
        subnormal = limits.tiny * limits.eps
        close(gradient(loss, z).double(), expected, rtol=0.51 * limits.eps, atol=max(subnormal, 1e-6))


def test_autocast_leaves_the_loss_alone() -> None:
    """Float32 logits under bfloat16 autocast: column sums in bfloat16 would be off by 1e-3."""
    z, y = (2 * normal(200, 10)).float(), labels(200, 10)
    outside = generative_cross_entropy(z, y), gradient(lambda v: generative_cross_entropy(v, y), z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = generative_cross_entropy(z, y), gradient(lambda v: generative_cross_entropy(v, y), z)
    for one, other in zip(inside, outside, strict=True):
        assert torch.equal(one, other)


def test_training_under_autocast_follows_float64() -> None:
    """The gradient of the weights of a bfloat16 layer is that of float64 logits up to the rounding of the layer."""
    x, y = normal(64, 20), labels(64)
    layer = nn.Linear(20, K).double()
    generative_cross_entropy(layer(x), y).backward()
    expected = layer.weight.grad
    layer.weight.grad, layer = None, layer.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        generative_cross_entropy(layer(x.float()), y).backward()
    scale = expected.abs().max().item()
    close(layer.weight.grad.double(), expected, atol=4 * torch.finfo(torch.bfloat16).eps * scale)


# --- Memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("by_rows", [True, False])
def test_one_buffer_of_all_logits_is_kept(monkeypatch: pytest.MonkeyPatch, by_rows: bool, strength: float) -> None:
    """What is saved between forward and backward: N x K numbers once, and vectors."""
    if not by_rows:
        monkeypatch.setattr(_column_scores, "_by_rows", lambda *_: None)
    n, n_classes = 1024, 1000
    z, y = normal(n, n_classes, dtype=torch.float32).requires_grad_(), labels(n, n_classes)
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = generative_cross_entropy(z, y, strength=strength)
    assert n * n_classes * 4 <= sum(kept.values()) <= 1.1 * n * n_classes * 4
    loss.backward()
    close(z.grad.double(), gradient(lambda v: generative_cross_entropy(v, y, strength=strength), z.double()), atol=1e-8)


# --- Gradient accumulation ----------------------------------------------------------------------------------------


def test_gradient_accumulation_in_two_passes() -> None:
    """The loss of the joined logits, as a leaf, gives each micro-batch its part of the gradient of the whole batch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, K)).double()
    x, y = normal(24, 5), labels(24)

    def gradients() -> Tensor:
        flat = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
        model.zero_grad()
        return flat

    generative_cross_entropy(model(x), y).backward()
    whole = gradients()

    chunks = x.split([10, 7, 7])
    with torch.no_grad():
        joined = torch.cat([model(chunk) for chunk in chunks])
    joined.requires_grad_()
    generative_cross_entropy(joined, y).backward()
    for chunk, part in zip(chunks, joined.grad.split([10, 7, 7]), strict=True):
        model(chunk).backward(part)
    close(gradients(), whole)

    for chunk, part in zip(chunks, y.split([10, 7, 7]), strict=True):
        (generative_cross_entropy(model(chunk), part) * len(part) / len(y)).backward()
    assert (gradients() - whole).abs().max() > 0.1 * whole.abs().max()


def test_per_sample_gradients_of_a_model_add_up() -> None:
    """jacrev through a model: the terms' own gradients, which add up to that of the sum."""
    torch.manual_seed(0)
    model = nn.Linear(5, K).double()
    x, y = normal(6, 5), labels(6)
    parameters = dict(model.named_parameters())

    def terms(values: dict[str, Tensor]) -> Tensor:
        return generative_cross_entropy(functional_call(model, values, x), y, reduction="none")

    each = jacrev(terms)({name: p.detach() for name, p in parameters.items()})
    generative_cross_entropy(model(x), y, reduction="sum").backward()
    for name, p in parameters.items():
        close(each[name].sum(0), p.grad)


def test_the_reference_of_this_file_is_the_decimal_one() -> None:
    z, y = batch()
    for strength in (0.0, 0.5, 1.0):
        expected = references.generative_cross_entropy(z, y, strength=strength).terms.sum()
        close(plain_gence(z, y, strength), expected)
        assert strength > 0 or torch.isclose(expected, F.cross_entropy(z, y, reduction="sum"))
