"""A training in two processes takes the steps of one process that holds the whole batches; needs torch alone.

tests/losses/test_distributed.py checks the loss, its options and shards of any size. Here is the loop around it.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from training_code import close, far, gradient, in_two_processes, network, plain_gence, plain_gradient, samples

from gence import GenCELoss
from gence.losses import accumulated_backward
from gence.samplers import EvenBatchSampler

EPOCHS, LR = 3, 0.5


def weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def work(rank: int) -> dict:
    """50 samples, 25 for each process, in its batches of at most eight: the weights at the end, and the batches."""
    dist.init_process_group("gloo")
    x, y = samples()
    data = TensorDataset(torch.arange(len(y)), x, y)
    found = {}
    for name in ("group", "alone"):
        shards = DistributedSampler(data)
        loader = DataLoader(data, batch_sampler=EvenBatchSampler(shards, batch_size=8))
        model = DistributedDataParallel(network())
        optimiser = torch.optim.SGD(model.parameters(), lr=LR)
        criterion = GenCELoss(group=dist.group.WORLD if name == "group" else None)
        indices = []
        for epoch in range(EPOCHS):
            shards.set_epoch(epoch)
            for i, a, b in loader:
                indices.append(i.tolist())
                optimiser.zero_grad()
                criterion(model(a), b).backward()
                optimiser.step()
        found[name] = weights(model)
        found["indices"] = indices
    found["accumulated"] = accumulated(rank)
    return found


def accumulated(rank: int) -> Tensor:
    """The gradient after micro-batches of four samples each, two in each process."""
    x, y = (part.split(8)[rank].split(4) for part in samples(16))
    model = DistributedDataParallel(network())
    accumulated_backward(model, x, y, GenCELoss(group=dist.group.WORLD))
    return gradient(model)


def test_two_processes_train_as_one_does(tmp_path) -> None:
    found = in_two_processes(work, tmp_path)
    x, y = samples()
    model = network()
    optimiser = torch.optim.SGD(model.parameters(), lr=LR)
    steps = list(zip(*(of["indices"] for of in found), strict=True))
    assert [[len(part) for part in step] for step in steps] == [[7, 7], [6, 6], [6, 6], [6, 6]] * EPOCHS
    for first, second in steps:
        optimiser.zero_grad()
        plain_gence(model(x[first + second]), y[first + second]).backward()
        optimiser.step()
    for of in found:
        close(of["group"], weights(model))
        assert far(of["alone"], weights(model), part=0.01)
        close(of["accumulated"], plain_gradient(network(), *samples(16)))
