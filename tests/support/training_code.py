"""What the tests of other frameworks share: data, a network, GenCE in one plain line, and a criterion that keeps count.

A module of its own, which needs torch and gence alone, so that spawned processes can import it.
"""

from __future__ import annotations

import copy
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from gence import GenCELoss

N, FEATURES, CLASSES = 50, 6, 3  # 50 samples in batches of 16 leave a rest of two
EVEN = [13, 13, 12, 12]


def needs(package: str, pip_name: str | None = None):
    """The package, or a skip that says what to install."""
    name = pip_name or package
    return pytest.importorskip(package, reason=f"{name} is missing: pip install 'gence[integrations]'")


def samples(n: int = N, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three overlapping clouds, one for each class."""
    random = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (n,), generator=random)
    centres = 2 * torch.eye(CLASSES, FEATURES, dtype=torch.float64)
    return centres[y] + torch.randn(n, FEATURES, dtype=torch.float64, generator=random), y


def dataset(n: int = N) -> TensorDataset:
    return TensorDataset(*samples(n))


def network() -> nn.Module:
    """The same in every call, and so bold that its predictions differ from sample to sample."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()
    with torch.no_grad():
        model[2].weight *= 5
    return model


def plain_gence(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss as the book writes it, without a line of the library; labels are indices or probabilities."""
    p = logits.softmax(1)
    q = labels if labels.is_floating_point() else nn.functional.one_hot(labels, logits.shape[1]).to(p)
    return -(q * (p / p.sum(0)).log()).sum(1).mean()


def gradient(of: nn.Module) -> Tensor:
    """All gradients of a module in one vector, 0 where there is none."""
    parts = (torch.zeros_like(p) if p.grad is None else p.grad for p in of.parameters())
    return torch.cat([part.detach().reshape(-1) for part in parts])


def gradient_of(value: Callable[[nn.Module], Tensor], model: nn.Module) -> Tensor:
    """The gradient of a number that a copy of the model gives."""
    model = copy.deepcopy(model)
    model.zero_grad()
    value(model).backward()
    return gradient(model)


def plain_gradient(model: nn.Module, x: Tensor, y: Tensor, sizes: Iterable[int] | None = None) -> Tensor:
    """The gradient of GenCE on the batch, or of the mean of its values on parts of the given sizes, each by itself."""
    sizes = [len(x)] if sizes is None else list(sizes)
    parts = list(zip(x.split(sizes), y.split(sizes), strict=True))
    return gradient_of(lambda m: sum(plain_gence(m(a), b) for a, b in parts) / len(parts), model)


def close(actual: Tensor, expected: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected.to(actual), atol=atol, rtol=0.0)


def far(one: Tensor, other: Tensor, part: float = 0.05) -> bool:
    """Whether two gradients are far apart, so that a comparison of them could have failed."""
    return bool((one - other).norm() > part * other.norm())


class Counting(GenCELoss):
    """GenCE that keeps the sizes of the batches that it was called with for training."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.sizes: list[int] = []

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        if input.requires_grad:
            self.sizes.append(len(input))
        return super().forward(input, target, sample_weight)


def whole_loss(model: nn.Module, n: int = N) -> float:
    """GenCE of all samples as one batch, which a training is to lower."""
    x, y = samples(n)
    with torch.no_grad():
        return plain_gence(model.eval()(x), y).item()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def in_two_processes(work: Callable[..., dict], folder: Path, *arguments, seconds: float = 300) -> list[dict]:
    """What `work(rank, *arguments)` returns in each of two processes that meet as torchrun has them meet.

    On Linux they are forks, which spares them the imports: those of some frameworks take longer than the work.
    """
    if not dist.is_gloo_available():
        pytest.skip("torch was built without gloo")
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    method = "fork" if sys.platform == "linux" else "spawn"
    arguments = (work, environment, str(folder), arguments)
    processes = torch.multiprocessing.start_processes(_one_of_two, arguments, nprocs=2, join=False, start_method=method)
    end = time.monotonic() + seconds
    while not processes.join(timeout=1):
        if time.monotonic() > end:
            for process in processes.processes:
                process.kill()
            pytest.fail(f"two processes did not finish within {seconds:.0f} seconds")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _one_of_two(rank: int, work: Callable[..., dict], environment: dict, folder: str, arguments: tuple) -> None:
    torch.set_num_threads(1)
    os.environ.update(environment | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"})
    try:
        torch.save(work(rank, *arguments), Path(folder) / f"{rank}.pt")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
