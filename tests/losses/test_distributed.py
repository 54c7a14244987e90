"""GenCE over the processes of a group: DistributedDataParallel with gloo against one process with the whole batch."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from distributed_worker import Case, gradients, model, run
from references import K, close
from torch import Tensor

from gence.losses import GenCELoss

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")

WEIGHT = torch.tensor([0.5, 2.0, 0.0, 1.5], dtype=torch.float64)
SHARDS = {2: [(4, 4), (5, 3), (8, 0)], 4: [(2, 2, 2, 2), (3, 1, 2, 4), (4, 1, 0, 3)]}
OPTIONS: dict[str, dict] = {
    "plain": {},
    "half strength": {"strength": 0.5},
    "cross-entropy": {"strength": 0.0},
    "weight": {"weight": WEIGHT},
    "ignored": {"ignore_index": -100},
    "smoothed": {"label_smoothing": 0.1},
    "weight, ignored, smoothed": {"weight": WEIGHT, "ignore_index": 1, "label_smoothing": 0.1},
    "sum": {"reduction": "sum"},
    "sum, weight": {"reduction": "sum", "weight": WEIGHT},
}
SOFT: dict[str, dict] = {"soft": {}, "soft, weight, smoothed": {"weight": WEIGHT, "label_smoothing": 0.1}}


def cases(world: int) -> dict[str, Case]:
    shared = {}
    for shards in SHARDS[world]:
        where = "/".join(map(str, shards))
        shared |= {f"{name}, {where}": Case(shards, options) for name, options in OPTIONS.items()}
        shared |= {f"{name}, {where}": Case(shards, options, soft=True) for name, options in SOFT.items()}
    for n in (2, 3):
        shared[f"accumulated over {n}"] = Case(SHARDS[world][1], {"weight": WEIGHT}, accumulated=n)
    alone = Case(SHARDS[world][0], with_group=False)
    return shared | {"without a group": alone}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(
    scope="module", params=[2, pytest.param(4, marks=pytest.mark.thorough)], ids=lambda world: f"{world} processes"
)
def spread(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, list[dict]]]:
    """The number of processes, and what each of them found for all cases.

    Two processes meet as torchrun has them meet, by environment variables, and four by a file.
    """
    world, folder = request.param, tmp_path_factory.mktemp("gloo")
    environment = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    init_method = "env://" if world == 2 else f"file://{folder / 'store'}"
    torch.multiprocessing.spawn(run, (cases(world), environment, init_method, str(folder)), nprocs=world)
    yield world, [torch.load(folder / f"{rank}.pt") for rank in range(world)]


def whole(case: Case) -> tuple[Tensor, Tensor]:
    """Loss and gradient of one process that holds the whole batch."""
    network = model()
    x, target = case.batch()
    loss = GenCELoss(**case.options)(network(x), target)
    loss.backward()
    return loss.detach(), gradients(network)


def test_the_gradient_is_that_of_one_process(spread: tuple[int, list[dict]]) -> None:
    """DDP averages over the R processes: reduction="mean" gives the whole batch's gradient, "sum" gives it over R."""
    world, found = spread
    for name, case in cases(world).items():
        if not case.with_group:
            continue
        loss, gradient = whole(case)
        assert gradient.abs().max() > 0.01
        losses = torch.stack([results[name][0] for results in found])
        summed = case.options.get("reduction") == "sum"
        try:
            close(losses.sum() if summed else losses.mean(), loss, atol=1e-12)
            for results in found:
                close(results[name][1], gradient / world if summed else gradient)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_without_a_group_each_process_has_a_loss_of_its_own(spread: tuple[int, list[dict]]) -> None:
    """The reason for `group`, and proof that the comparison above can fail."""
    world, found = spread
    case = cases(world)["without a group"]
    _, gradient = whole(case)
    assert (found[0]["without a group"][1] - gradient).abs().max() > 0.1 * gradient.abs().max()


def test_the_cases_have_shards_without_kept_samples() -> None:
    """An empty shard, and one whose samples are all ignored, are among the cases."""
    for world in SHARDS:
        assert any(0 in case.shards for case in cases(world).values())
    case = cases(4)["ignored, 2/2/2/2"]
    assert (case.batch()[1].split(case.shards)[0] == -100).all()


def test_a_second_derivative_over_a_group_is_refused(spread: tuple[int, list[dict]]) -> None:
    for results in spread[1]:
        assert "no second derivative with group" in results["second derivative"]


def test_a_group_of_one_process(tmp_path) -> None:
    """The group changes nothing then, and the scores need not be a model's."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        for case in (Case((8,)), Case((8,), {"weight": WEIGHT, "reduction": "none"})):
            z = case.batch()[0][:, :K]
            for scale in (1.0, 1e4):
                one = GenCELoss(**case.options, group=dist.group.WORLD)(scale * z, case.batch()[1])
                close(one, GenCELoss(**case.options)(scale * z, case.batch()[1]), rtol=1e-12)
    finally:
        dist.destroy_process_group()
