"""What each process of test_loss_distributed.py does; a module of its own, so that spawned processes can import it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from references import K, labels, normal
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gence.losses import GenCELoss, accumulated_backward

N_FEATURES = 5


@dataclass(frozen=True)
class Case:
    """A whole batch, how it is spread over the processes, and the options of GenCE."""

    shards: tuple[int, ...]
    options: dict = field(default_factory=dict)
    soft: bool = False
    with_group: bool = True
    # Micro-batches of each process, whose gradient accumulates; None for one pass.
    accumulated: int | None = None

    def batch(self) -> tuple[Tensor, Tensor]:
        """Features and targets, the same in every process; the ignored label is that of the first samples."""
        n = sum(self.shards)
        y = labels(n)
        y[:2] = self.options.get("ignore_index", 0)
        return normal(n, N_FEATURES), normal(n, K, seed=1).softmax(1) if self.soft else y


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(N_FEATURES, 8), nn.Tanh(), nn.Linear(8, K)).double()


def gradients(of: nn.Module) -> Tensor:
    return torch.cat([p.grad.reshape(-1) for p in of.parameters()])


def run(rank: int, cases: dict[str, Case], environment: dict[str, str], init_method: str, folder: str) -> None:
    """Join the group, run all cases on this process's shard and save their losses and gradients."""
    torch.set_num_threads(1)
    os.environ.update(environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
    joined = {} if init_method == "env://" else {"rank": rank, "world_size": int(environment["WORLD_SIZE"])}
    dist.init_process_group("gloo", init_method=init_method, **joined)
    try:
        results = {name: one(case, rank) for name, case in cases.items()}
        results["second derivative"] = second_derivative()
        torch.save(results, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def one(case: Case, rank: int) -> tuple[Tensor, Tensor]:
    """Loss of this shard and DDP's gradient, which is the same in every process."""
    parallel = DistributedDataParallel(model())
    x, target = (part.split(case.shards)[rank] for part in case.batch())
    criterion = GenCELoss(**case.options, group=dist.group.WORLD if case.with_group else None)
    if case.accumulated is None:
        loss = criterion(parallel(x), target)
        loss.backward()
    else:
        parts = (part.tensor_split(case.accumulated) for part in (x, target))
        loss = accumulated_backward(parallel, *parts, criterion)
    return loss.detach(), gradients(parallel.module)


def second_derivative() -> str:
    """The message of the error."""
    z = normal(3, K).requires_grad_()
    loss = GenCELoss(group=dist.group.WORLD)(z, labels(3))
    try:
        torch.autograd.grad(loss, z, create_graph=True)
    except RuntimeError as error:
        return str(error)
    return ""
