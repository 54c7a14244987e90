"""Accumulation gives the gradient of the whole batch; GenCE warns of batches of one or two samples."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from gence.losses import (
    GenCELoss,
    TrackedGenCELoss,
    accumulated_backward,
    generative_cross_entropy,
    make_loss,
    mmce_loss,
)

K = 4
SIZES = ([7, 4], [1, 5, 2], [3, 1, 4, 2, 1, 3, 2, 5])
# Options of the loss, and what the batch carries.
CASES: dict[str, tuple[dict, str]] = {
    "plain": ({}, ""),
    "sum": ({"reduction": "sum"}, ""),
    "class-weights": ({"weight": torch.tensor([0.5, 2.0, 0.0, 1.5], dtype=torch.float64)}, ""),
    "ignored": ({"ignore_index": 2}, ""),
    "soft": ({}, "soft"),
    "smoothing": ({"label_smoothing": 0.1}, ""),
    "sample-weights": ({}, "weighted"),
    "half": ({"strength": 0.5}, ""),
}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, K)).double()


def conv_net() -> nn.Module:
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(0.4), nn.Flatten(), nn.Linear(64, K), nn.Dropout(0.1))
    return nn.Sequential(*layers).double()


def norm_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, K)).double()


def problem(sizes: list[int], kind: str = "") -> tuple[list[Tensor], list[Tensor], list[Tensor] | None]:
    """Micro-batches of images, their targets, and their sample weights if the kind is "weighted"."""
    generator = torch.Generator().manual_seed(len(sizes))
    n = sum(sizes)
    x = torch.randn(n, 1, 6, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(K, (n,), generator=generator)
    if kind == "soft":
        y = torch.rand(n, K, generator=generator, dtype=torch.float64)
        y = y / y.sum(1, keepdim=True)
    weights = torch.rand(n, generator=generator, dtype=torch.float64) if kind == "weighted" else None
    return list(x.split(sizes)), list(y.split(sizes)), None if weights is None else list(weights.split(sizes))


def gradient(network: nn.Module) -> Tensor:
    """The gradient of all parameters, which are left without one."""
    flat = torch.cat([p.grad.reshape(-1) for p in network.parameters()])
    network.zero_grad()
    return flat


def in_one_graph(
    network: Callable, xs: list, ys: list[Tensor], loss: Callable, weights: list[Tensor] | None = None
) -> Tensor:
    """The loss of the whole batch, with a graph through all micro-batches."""
    options = {} if weights is None else {"sample_weight": torch.cat(weights)}
    return loss(torch.cat([network(x) for x in xs]), torch.cat(ys), **options)


def close(a: Tensor, b: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("sizes", SIZES, ids=len)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("build", [mlp, conv_net])
def test_the_gradient_of_the_whole_batch(build: Callable[[], nn.Module], case: str, sizes: list[int]) -> None:
    options, kind = CASES[case]
    torch.manual_seed(0)
    network, loss = build(), GenCELoss(**options)
    xs, ys, weights = problem(sizes, kind)
    torch.manual_seed(1)
    expected = in_one_graph(network, xs, ys, loss, weights)
    expected.backward()
    whole, random_state = gradient(network), torch.get_rng_state()
    if build is mlp:  # nothing in it is random, so that a call of the network with all samples is the same
        close(in_one_graph(network, [torch.cat(xs)], ys, loss, weights), expected)

    torch.manual_seed(1)
    value = accumulated_backward(network, xs, ys, loss, sample_weights=weights)
    close(gradient(network), whole)
    close(value, expected.detach())
    assert not value.requires_grad
    assert torch.equal(torch.get_rng_state(), random_state)  # training goes on with the numbers that it would have had


def test_the_mean_over_micro_batches_is_another_loss() -> None:
    """Of GenCE, not of cross-entropy."""
    torch.manual_seed(0)
    network = mlp()
    xs, ys, _ = problem([6, 6, 6])
    for loss, same in ((GenCELoss(), False), (GenCELoss(strength=0.0), True)):
        accumulated_backward(network, xs, ys, loss)
        whole = gradient(network)
        for x, y in zip(xs, ys, strict=True):
            (loss(network(x), y) / len(xs)).backward()
        difference = (gradient(network) - whole).abs().max() / whole.abs().max()
        assert difference < 1e-12 if same else difference > 0.1


LOSSES = {"mmce": mmce_loss, "focal": make_loss("focal"), "gence": GenCELoss(strength=0.3)}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_any_loss_of_the_library(loss: Callable) -> None:
    torch.manual_seed(0)
    network = mlp()
    xs, ys, _ = problem([3, 6])
    in_one_graph(network, xs, ys, loss).backward()
    whole = gradient(network)
    accumulated_backward(network, xs, ys, loss)
    close(gradient(network), whole)


def test_a_loss_that_remembers_is_called_once() -> None:
    torch.manual_seed(0)
    network, loss = mlp(), TrackedGenCELoss([5.0, 4.0, 3.0, 2.0])
    xs, ys, _ = problem([3, 6])
    alone = copy.deepcopy(loss)
    in_one_graph(network, xs, ys, alone).backward()
    whole = gradient(network)
    accumulated_backward(network, xs, ys, loss)
    close(gradient(network), whole)
    assert torch.equal(loss.mass, alone.mass) and torch.equal(loss.mean_prediction, alone.mean_prediction)


class Pixels(nn.Module):
    """Logits (n, K, 6, 6) of images, moved by a number for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, K, 3, padding=1).double()

    def forward(self, image: Tensor, shift: Tensor) -> Tensor:
        return self.layer(image) + self.layer.bias[:, None, None] * shift[:, None, None, None]


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_spatial_logits_and_several_inputs(kind: str) -> None:
    torch.manual_seed(0)
    network, sizes = Pixels(), [2, 1, 4]
    xs, _, _ = problem(sizes)
    shifts = torch.randn(7, dtype=torch.float64).split(sizes)
    ys = list(torch.randint(K, (7, 6, 6)).split(sizes))
    pairs = list(zip(xs, shifts, strict=True))
    inputs = pairs if kind == "tuple" else [{"image": x, "shift": s} for x, s in pairs]

    def forward(batch: tuple | dict) -> Tensor:
        return network(*batch) if kind == "tuple" else network(**batch)

    in_one_graph(forward, inputs, ys, GenCELoss()).backward()
    whole = gradient(network)
    accumulated_backward(network, inputs, ys, GenCELoss(), forward=forward)
    close(gradient(network), whole)


def test_gradients_are_added_to_those_that_are_there() -> None:
    torch.manual_seed(0)
    network = mlp()
    xs, ys, _ = problem([3, 6])
    accumulated_backward(network, xs, ys, GenCELoss())
    once = gradient(network)
    for _ in range(2):
        accumulated_backward(network, xs, ys, GenCELoss())
    close(gradient(network), 2 * once)


def test_parameters_of_the_loss_get_a_gradient() -> None:
    torch.manual_seed(0)
    network, temperature = mlp(), torch.ones((), dtype=torch.float64, requires_grad=True)
    xs, ys, _ = problem([3, 6])

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return generative_cross_entropy(z / temperature, y)

    (expected,) = torch.autograd.grad(in_one_graph(network, xs, ys, loss), temperature)
    accumulated_backward(network, xs, ys, loss)
    close(temperature.grad, expected)


@pytest.mark.parametrize("compiled", ["", "function", "method"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_running_statistics_move_once(wrapped: bool, compiled: str) -> None:
    """Also where a function calls the network, and where the network is compiled."""
    torch.manual_seed(0)
    network = norm_net()
    alone = copy.deepcopy(network)
    xs, ys, _ = problem([7, 4, 5])
    in_one_graph(alone, xs, ys, GenCELoss()).backward()
    called = torch.compile(network, backend="eager") if compiled == "function" else network
    if compiled == "method":
        network.compile(backend="eager")
    accumulated_backward(called, xs, ys, GenCELoss(), forward=(lambda x: called(x)) if wrapped else None)
    for (name, mine), theirs in zip(network.named_buffers(), alone.buffers(), strict=True):
        assert torch.equal(mine, theirs), name
    close(gradient(network), gradient(alone))


def test_outputs_that_depend_on_buffers() -> None:
    """Spectral normalisation moves a vector in each call and divides by what it finds."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(36, K).double()))
    alone = copy.deepcopy(network)
    xs, ys, _ = problem([7, 4, 5])
    in_one_graph(alone, xs, ys, GenCELoss()).backward()
    accumulated_backward(network, xs, ys, GenCELoss())
    close(gradient(network), gradient(alone))


def test_buffers_are_put_back_after_an_error() -> None:
    network = norm_net()
    before = copy.deepcopy(network.state_dict())
    xs, ys, _ = problem([7, 4])
    with pytest.raises(RuntimeError):
        accumulated_backward(network, [xs[0], xs[1][..., :4]], ys, GenCELoss())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_autocast_and_a_gradient_scaler(dtype: torch.dtype, rounding: float) -> None:
    torch.manual_seed(0)
    network = conv_net().float()
    xs, ys, _ = problem([7, 4, 5])
    xs = [x.float() for x in xs]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=dtype):
        expected = in_one_graph(network, xs, ys, GenCELoss())
    scaler.scale(expected).backward()
    whole = gradient(network)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=dtype):
        value = accumulated_backward(network, xs, ys, GenCELoss(), scale=scaler.scale)
    close(value, expected.detach(), atol=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    scaled = torch.cat([p.grad.reshape(-1) for p in network.parameters()])
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    close(gradient(network) * 2.0**10, scaled, atol=1e-4)
    # One graph sums the gradients of its half-precision weights over the micro-batches, which rounds.
    close(scaled, whole, atol=rounding * whole.abs().max().item())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_dropout_and_autocast_on_a_gpu() -> None:
    torch.manual_seed(0)
    network = conv_net().float().cuda()
    xs, ys, _ = problem([7, 4, 5])
    xs, ys = [x.float().cuda() for x in xs], [y.cuda() for y in ys]
    for dtype, atol in ((None, 1e-6), (torch.float16, 1e-2), (torch.bfloat16, 1e-2)):
        with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
            torch.manual_seed(1)
            expected = in_one_graph(network, xs, ys, GenCELoss())
        expected.backward()
        whole = gradient(network)
        with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
            torch.manual_seed(1)
            value = accumulated_backward(network, xs, ys, GenCELoss())
        close(value, expected.detach(), atol=atol)
        close(gradient(network), whole, atol=atol * whole.abs().max().item())


def test_what_is_wrong_is_named() -> None:
    network = mlp()
    xs, ys, _ = problem([3, 6])
    loss = GenCELoss()
    with pytest.raises(ValueError, match="no micro-batches"):
        accumulated_backward(network, [], [], loss)
    with pytest.raises(ValueError, match=r"2 micro-batches need 2 targets.* there are 9\. Split both"):
        accumulated_backward(network, xs, torch.cat(ys), loss)
    with pytest.raises(ValueError, match=r"2 micro-batches need 2 sample_weights.* there are 1"):
        accumulated_backward(network, xs, ys, loss, sample_weights=[torch.ones(9)])
    with pytest.raises(ValueError, match=r"has the shape \(9,\)\. Use reduction='mean' or 'sum'"):
        accumulated_backward(network, xs, ys, GenCELoss(reduction="none"))
    with pytest.raises(TypeError, match="are a dict"):
        accumulated_backward(network, xs, ys, loss, forward=lambda x: {"logits": network(x)})
    with pytest.raises(TypeError, match="network must be a module, but is a function"):
        accumulated_backward(lambda x: network(x), xs, ys, loss)
    with pytest.raises(ValueError, match=r"gave the shape \(4,\)\. Give a list of micro-batches"):
        accumulated_backward(nn.Linear(36, K), torch.zeros(9, 36), torch.cat(ys), loss)


def test_a_second_pass_that_differs_is_refused() -> None:
    """Here the random numbers are numpy's, which are not repeated."""
    network, random = mlp(), np.random.default_rng(0)
    xs, ys, _ = problem([3, 6])
    with pytest.raises(RuntimeError, match="other logits in the second pass"):
        accumulated_backward(network, xs, ys, GenCELoss(), forward=lambda x: network(x * random.random()))


def test_masked_classes_and_nothing_but_ignored_labels() -> None:
    torch.manual_seed(0)
    network = mlp()
    xs, ys, _ = problem([3, 6])
    mask = torch.zeros(K, dtype=torch.float64).index_fill(0, torch.tensor(3), -torch.inf)
    ys = [y.clamp(max=2) for y in ys]

    def masked(x: Tensor) -> Tensor:
        return network(x) + mask

    in_one_graph(masked, xs, ys, GenCELoss()).backward()
    whole = gradient(network)
    accumulated_backward(network, xs, ys, GenCELoss(), forward=masked)
    close(gradient(network), whole)
    value = accumulated_backward(network, xs, [torch.full_like(y, -100) for y in ys], GenCELoss())
    assert value.isnan() and not gradient(network).any()


# --- The warning of batches of one or two samples -----------------------------------------------------------------


@pytest.fixture
def caught() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        yield messages


def about_gence(messages: list[warnings.WarningMessage]) -> int:
    return sum(str(m.message).startswith("GenCE got a batch of one or two samples") for m in messages)


def test_one_or_two_samples_warn(caught: list) -> None:
    for n in (1, 2):
        GenCELoss()(torch.zeros(n, 3), torch.arange(n))
        generative_cross_entropy(torch.zeros(n, 3), torch.arange(n), strength=0.1)
        generative_cross_entropy(torch.zeros(n, 3), torch.zeros(n, 3).softmax(1))
    generative_cross_entropy(torch.zeros(3), torch.tensor(0))
    assert about_gence(caught) == 7
    generative_cross_entropy(torch.zeros(5, 3), torch.tensor([0, 1, -100, -100, -100]))
    generative_cross_entropy(torch.zeros(5, 3), torch.zeros(5, 3).softmax(1), sample_weight=torch.arange(5) // 3 * 0.5)
    assert about_gence(caught) == 9
    message = str(caught[0].message)
    assert all(word in message for word in ("EvenBatchSampler", "drop_last", "accumulated_backward"))


def test_the_warning_is_shown_once() -> None:
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("default")  # as Python does
        criterion = GenCELoss()
        for n in (1, 2, 2, 1):
            criterion(torch.zeros(n, 3), torch.arange(n))
        assert about_gence(messages) == 1


def test_what_does_not_warn(caught: list) -> None:
    z, y = torch.zeros(3, 3), torch.arange(3)
    GenCELoss()(z, y)
    GenCELoss(strength=0.0)(z[:1], y[:1])
    make_loss("ce")(z[:1], y[:1])
    GenCELoss()(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
    generative_cross_entropy(z, torch.full((3,), -100))
    generative_cross_entropy(z[:0], y[:0])
    network = nn.Linear(3, 3)
    accumulated_backward(network, z.split(1), y.split(1), GenCELoss())
    assert about_gence(caught) == 0


def test_tracers_and_transforms_do_not_warn(caught: list) -> None:
    z, y = torch.zeros(4, 2, 3), torch.arange(2).expand(4, 2)
    vmap(generative_cross_entropy)(z, y)
    vmap(grad(generative_cross_entropy))(z, y)
    vmap(lambda w: generative_cross_entropy(z.reshape(8, 3), y.reshape(8), sample_weight=w))(torch.ones(2, 8))
    torch.compile(GenCELoss(), backend="eager", fullgraph=True)(z[0], y[0])
    compiled = torch.compile(generative_cross_entropy, backend="eager", fullgraph=True)
    compiled(z[0], y[0], sample_weight=torch.tensor([1.0, 0.0]))
    torch.jit.trace(generative_cross_entropy, (z[0], y[0]), check_trace=False)
    assert about_gence(caught) == 0
