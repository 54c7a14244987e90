"""GenCELoss with Hugging Face Accelerate: accumulation in one process, and a batch over two."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset
from training_code import (
    EVEN,
    Counting,
    close,
    dataset,
    far,
    gradient,
    in_two_processes,
    needs,
    network,
    plain_gradient,
    samples,
    whole_loss,
)

from gence import GenCELoss
from gence.losses import accumulated_backward
from gence.samplers import EvenBatchSampler

accelerate = needs("accelerate")
pytestmark = pytest.mark.usefixtures("accelerate_forgets")


def prepared(accelerator, loader: DataLoader, lr: float = 0.0) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader]:
    model = network()
    return accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=lr), loader)


def test_a_step_has_the_gradient_of_a_plain_loop() -> None:
    x, y = samples(16)
    accelerator = accelerate.Accelerator(cpu=True)
    model, _, loader = prepared(accelerator, DataLoader(TensorDataset(x, y), batch_size=16))
    for a, b in loader:
        accelerator.backward(GenCELoss()(model(a), b))
    close(gradient(model), plain_gradient(network(), x, y))


def test_training_in_even_batches_lowers_the_loss() -> None:
    data, criterion = dataset(), Counting()
    batches = EvenBatchSampler(RandomSampler(data), batch_size=16)
    accelerator = accelerate.Accelerator(cpu=True)
    model, optimiser, loader = prepared(accelerator, DataLoader(data, batch_sampler=batches), lr=0.5)
    before = whole_loss(model)
    for _ in range(5):
        for x, y in loader:
            optimiser.zero_grad()
            accelerator.backward(criterion(model(x), y))
            optimiser.step()
    assert criterion.sizes == EVEN * 5
    assert whole_loss(model) < before - 0.1


def test_accumulate_averages_losses_of_micro_batches() -> None:
    """`backward` divides each loss by the number of steps, also where the last group has fewer of them."""
    x, y = samples(24)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=4)
    model, optimiser, loader = prepared(accelerator, DataLoader(TensorDataset(x, y), batch_size=4))
    found: list[Tensor] = []
    for a, b in loader:
        with accelerator.accumulate(model):
            accelerator.backward(GenCELoss()(model(a), b))
            if accelerator.sync_gradients:
                found.append(gradient(model))
            optimiser.step()
            optimiser.zero_grad()
    four, rest = found
    close(four, plain_gradient(network(), x[:16], y[:16], sizes=[4] * 4))
    assert far(four, plain_gradient(network(), x[:16], y[:16]))
    close(rest, plain_gradient(network(), x[16:], y[16:], sizes=[4] * 2) / 2)


def test_accumulated_backward_has_the_gradient_of_the_whole_batch() -> None:
    x, y = samples(16)
    accelerator = accelerate.Accelerator(cpu=True)
    model, _, loader = prepared(accelerator, DataLoader(TensorDataset(x, y), batch_size=16))
    for a, b in loader:
        accumulated_backward(model, a.split(4), b.split(4), GenCELoss())
    close(gradient(model), plain_gradient(network(), x, y))


def test_several_processes_take_turns_with_the_batches() -> None:
    """Accelerate deals whole batches out, and starts again where their number does not go up."""
    sizes = {n: [] for n in (50, 40)}
    for n, of_processes in sizes.items():
        loader = DataLoader(dataset(n), batch_sampler=EvenBatchSampler(range(n), batch_size=16))
        for r in range(2):
            shard = accelerate.data_loader.prepare_data_loader(loader, num_processes=2, process_index=r)
            of_processes.append([len(y) for _, y in shard])
    assert sizes == {50: [[13, 12], [13, 12]], 40: [[14, 13], [13, 14]]}


def work(rank: int) -> dict:
    """Each process has eight of the sixteen samples."""
    accelerator = accelerate.Accelerator(cpu=True)
    x, y = samples(16)
    model, _, loader = prepared(accelerator, DataLoader(TensorDataset(x, y), batch_size=8))
    found = {}
    for name, group in (("group", torch.distributed.group.WORLD), ("alone", None)):
        model.zero_grad()
        for a, b in loader:
            accelerator.backward(GenCELoss(group=group)(model(a), b))
        found[name] = gradient(model)
    model.zero_grad()
    for a, b in loader:
        accumulated_backward(model, a.split(4), b.split(4), GenCELoss(group=torch.distributed.group.WORLD))
    return found | {"accumulated": gradient(model)}


def test_two_processes_have_the_gradient_of_one(tmp_path) -> None:
    whole = plain_gradient(network(), *samples(16))
    for found in in_two_processes(work, tmp_path):
        close(found["group"], whole)
        close(found["accumulated"], whole)
        assert far(found["alone"], whole)
