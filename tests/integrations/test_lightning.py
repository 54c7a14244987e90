"""GenCELoss in PyTorch Lightning: whole batches, accumulation, batches of even size, two processes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, TensorDataset
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

pl = needs("pytorch_lightning", "pytorch-lightning")
pytestmark = pytest.mark.filterwarnings("ignore")


class Module(pl.LightningModule):
    """As a user writes it, and it keeps the gradient of every step and the weights before it."""

    def __init__(self, lr: float = 0.5) -> None:
        super().__init__()
        self.network, self.criterion, self.lr = network(), Counting(), lr
        self.gradients: list[Tensor] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return self.criterion(self.network(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.gradients.append(gradient(self.network))


class Exact(Module):
    """Manual optimisation: one batch of the loader in micro-batches of at most four, one step."""

    automatic_optimization = False

    def between(self) -> None:
        """Nothing, between backward pass and step."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        optimizer = self.optimizers()
        optimizer.zero_grad()
        accumulated_backward(self.network, x.split(4), y.split(4), self.criterion)
        self.between()
        optimizer.step()


def fit(module: pl.LightningModule, loader: DataLoader, **options) -> None:
    options = {"max_epochs": 1, "devices": 1} | options
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", enable_model_summary=False, **quiet, **options)
    trainer.fit(module, loader)


def test_a_step_has_the_gradient_of_a_plain_loop() -> None:
    x, y = samples(16)
    module = Module()
    fit(module, DataLoader(TensorDataset(x, y), batch_size=16))
    (found,) = module.gradients
    close(found, plain_gradient(network(), x, y))


def test_training_in_even_batches_lowers_the_loss() -> None:
    data, module = dataset(), Module()
    before = whole_loss(module.network)
    batches = EvenBatchSampler(RandomSampler(data), batch_size=16)
    fit(module, DataLoader(data, batch_sampler=batches), max_epochs=5)
    assert module.criterion.sizes == EVEN * 5
    assert whole_loss(module.network) < before - 0.1


def test_without_the_sampler_an_epoch_ends_in_a_batch_of_two() -> None:
    module = Module()
    fit(module, DataLoader(dataset(), batch_size=16))
    assert module.criterion.sizes == [16, 16, 16, 2]


def test_accumulate_grad_batches_averages_losses_of_micro_batches() -> None:
    """Each loss is divided by the number of batches, also where the last group has fewer of them."""
    x, y = samples(24)
    module = Module(lr=0.0)
    fit(module, DataLoader(TensorDataset(x, y), batch_size=4), accumulate_grad_batches=4)
    four, rest = module.gradients
    close(four, plain_gradient(network(), x[:16], y[:16], sizes=[4] * 4))
    assert far(four, plain_gradient(network(), x[:16], y[:16]))
    close(rest, plain_gradient(network(), x[16:], y[16:], sizes=[4] * 2) / 2)


def test_manual_optimisation_accumulates_the_whole_batch() -> None:
    x, y = samples(16)
    module = Exact()
    fit(module, DataLoader(TensorDataset(x, y), batch_size=16))
    (found,) = module.gradients
    close(found, plain_gradient(network(), x, y))
    assert module.criterion.sizes == [16], "the loss sees the whole batch once"


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions(precision: str) -> None:
    x, y = samples(16)
    x = x if precision == "64-true" else x.float()
    module = Module()
    module.network = module.network if precision == "64-true" else module.network.float()
    fit(module, DataLoader(TensorDataset(x, y), batch_size=16), precision=precision)
    (found,) = module.gradients
    expected = plain_gradient(network(), *samples(16))
    close(found.double(), expected, atol=1e-10 if precision == "64-true" else 0.02 * expected.norm().item())


def test_several_processes_need_a_sampler_of_ones_own() -> None:
    """Lightning would replace the sampler inside the batch sampler, refuses, and names the option that this needs."""
    from pytorch_lightning.utilities.data import _dataloader_init_kwargs_resolve_sampler as inject

    data = dataset()
    loader = DataLoader(data, batch_sampler=EvenBatchSampler(RandomSampler(data), 16))
    own = DistributedSampler(data, num_replicas=2, rank=0)
    with pytest.raises(TypeError, match="use_distributed_sampler=False"):
        inject(loader, own)
    assert [len(batch) for batch in EvenBatchSampler(own, 16)] == [13, 12]


class Spread(Module):
    """The process group is there from `setup` on; in `__init__` it is not yet."""

    def setup(self, stage: str) -> None:
        self.criterion = GenCELoss(group=torch.distributed.group.WORLD)


class SpreadExact(Exact, Spread):
    """Lightning wraps the module, not the network inside it, so that it does not see the backward passes."""

    def between(self) -> None:
        self.unsynchronised = gradient(self.network)
        for p in self.parameters():
            p.grad = self.trainer.strategy.reduce(p.grad)


def work(rank: int) -> dict:
    """Sixteen samples in batches of eight, two processes: one step."""
    found = {}
    for name, kind in (("group", Spread), ("alone", Module)):
        module = kind()
        loader = DataLoader(TensorDataset(*samples(16)), batch_size=8)
        fit(module, loader, devices=2, strategy="ddp")
        (found[name],) = module.gradients
    module = SpreadExact()
    fit(module, DataLoader(TensorDataset(*samples(16)), batch_size=8), devices=2, strategy="ddp")
    (found["exact"],) = module.gradients
    found["unsynchronised"] = module.unsynchronised
    return found


def test_two_processes_have_the_gradient_of_one(tmp_path) -> None:
    whole = plain_gradient(network(), *samples(16))
    for found in in_two_processes(work, tmp_path):
        close(found["group"], whole)
        assert far(found["alone"], whole)
        close(found["exact"], whole)
        assert far(found["unsynchronised"], whole), "Lightning averages by itself now: the page says that it does not"


def test_the_criterion_is_part_of_the_module() -> None:
    """Class weights are a buffer, so they move to the device and are in the checkpoint."""
    module = Module()
    module.criterion = Counting(weight=torch.ones(3))
    assert "criterion.weight" in module.state_dict()
    assert isinstance(module.criterion, nn.Module)
