"""GenCELoss under torch.autocast and with a GradScaler, on the CPU; needs torch alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from training_code import Counting, close, gradient, network, plain_gence, plain_gradient, samples, whole_loss

from gence import GenCELoss
from gence.losses import accumulated_backward

DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def single() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    x, y = samples(16)
    return network().float(), x.float(), y


@DTYPES
def test_under_autocast_the_loss_is_computed_in_float32(dtype: torch.dtype) -> None:
    model, x, y = single()
    with torch.autocast("cpu", dtype):
        logits = model(x)
        loss = GenCELoss()(logits, y)
    assert (logits.dtype, loss.dtype) == (dtype, torch.float32)
    close(loss, plain_gence(logits.double(), y), atol=1e-6)


@DTYPES
def test_the_gradient_is_that_of_full_precision_but_for_rounding(dtype: torch.dtype) -> None:
    model, x, y = single()
    with torch.autocast("cpu", dtype):
        loss = GenCELoss()(model(x), y)
    loss.backward()
    expected = plain_gradient(network(), *samples(16))
    assert (gradient(model).double() - expected).norm() < 0.03 * expected.norm()


def test_half_precision_without_autocast_returns_what_cross_entropy_returns() -> None:
    model, x, y = single()
    logits = model.bfloat16()(x.bfloat16())
    assert GenCELoss()(logits, y).dtype == nn.CrossEntropyLoss()(logits, y).dtype == torch.bfloat16


@DTYPES
def test_a_gradient_scaler_changes_nothing(dtype: torch.dtype) -> None:
    """Its scale is a power of two, so that scaled and unscaled gradients agree to the last bits of the dtype."""
    model, x, y = single()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.autocast("cpu", dtype):
        loss = GenCELoss()(model(x), y)
    scaler.scale(loss).backward()
    scaler.unscale_(optimiser)
    found = gradient(model)

    plain, x, y = single()
    with torch.autocast("cpu", dtype):
        loss = GenCELoss()(plain(x), y)
    loss.backward()
    assert (found - gradient(plain)).norm() < 0.01 * gradient(plain).norm()
    assert scaler.step(optimiser) is None, "SGD returns no loss"
    scaler.update()
    assert scaler.get_scale() == 2.0**10, "no overflow"


def test_training_with_a_scaler_lowers_the_loss() -> None:
    x, y = samples(48)
    model, x, criterion = network().float(), x.float(), Counting()
    before = whole_loss(network(), 48)
    scaler, optimiser = torch.amp.GradScaler("cpu"), torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(10):
        for a, b in zip(x.split(16), y.split(16), strict=True):
            optimiser.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = criterion(model(a), b)
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
    assert criterion.sizes == [16] * 30
    assert whole_loss(model.double(), 48) < before - 0.1


def test_accumulation_takes_the_scale() -> None:
    model, x, y = single()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    value = accumulated_backward(model, x.split(4), y.split(4), GenCELoss(), scale=scaler.scale)
    close(value, plain_gence(network()(samples(16)[0]), y).float().detach(), atol=1e-5)
    close(gradient(model).double() / 2.0**10, plain_gradient(network(), *samples(16)), atol=1e-6)
