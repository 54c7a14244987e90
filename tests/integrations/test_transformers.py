"""GenCELoss in the Trainer of Hugging Face, through `compute_loss_func`; a tiny model with random weights, no download.

The contract of `compute_loss_func`: it is called once for each micro-batch, the gradients are added without a division,
and `num_items_in_batch` is the number of labels in all micro-batches of the step, in all processes. So it has to return
a sum over its micro-batch, over that number.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from training_code import (
    CLASSES,
    EVEN,
    Counting,
    close,
    far,
    gradient,
    gradient_of,
    in_two_processes,
    needs,
    plain_gence,
)

from gence import GenCELoss
from gence.losses import accumulated_backward
from gence.samplers import EvenBatchSampler

transformers = needs("transformers")
needs("accelerate")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("accelerate_forgets")]

WORDS, LENGTH = 12, 5


def texts(n: int) -> list[dict]:
    """Random words, of which the first tells the class."""
    words = torch.randint(WORDS, (n, LENGTH), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row[0] % CLASSES} for row in words]


class Collator:
    """Makes batches and keeps them, as the Trainer shuffles."""

    def __init__(self) -> None:
        self.batches: list[tuple[Tensor, Tensor]] = []

    def __call__(self, rows: list[dict]) -> dict:
        batch = {name: torch.stack([row[name] for row in rows]) for name in ("input_ids", "labels")}
        self.batches.append((batch["input_ids"], batch["labels"]))
        return batch


def tiny() -> nn.Module:
    """The same in every call; without dropout, so that gradients can be compared."""
    torch.manual_seed(0)
    sizes = {"vocab_size": WORDS, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = transformers.BertConfig(
        **sizes,
        **still,
        intermediate_size=16,
        max_position_embeddings=LENGTH,
        num_labels=CLASSES,
        initializer_range=0.5,
    )
    return transformers.BertForSequenceClassification(config).double()


def loss_over_items(criterion: nn.Module) -> Callable:
    """The right `compute_loss_func` for a criterion that sums."""

    def compute_loss(outputs, labels: Tensor, num_items_in_batch=None) -> Tensor:
        items = len(labels) if num_items_in_batch is None else num_items_in_batch
        return criterion(outputs.logits, labels) / items

    return compute_loss


def mean_loss(outputs, labels: Tensor, num_items_in_batch=None) -> Tensor:
    """The one that comes to mind first."""
    return GenCELoss()(outputs.logits, labels)


class Keeping(transformers.TrainerCallback):
    """Keeps the gradient of every step."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []

    def on_pre_optimizer_step(self, args, state, control, model: nn.Module, **_) -> None:
        self.gradients.append(gradient(model))


class Even(transformers.Trainer):
    """An epoch in batches of even size."""

    def get_train_dataloader(self) -> DataLoader:
        data = self.train_dataset
        batches = EvenBatchSampler(RandomSampler(data), self.args.per_device_train_batch_size)
        loader = DataLoader(data, batch_sampler=batches, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)


class Exact(transformers.Trainer):
    """A batch in micro-batches of at most four, with the loss of the whole batch."""

    def training_step(self, model: nn.Module, inputs: dict, num_items_in_batch=None) -> Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        labels, words = inputs["labels"], inputs["input_ids"]

        def forward(part: Tensor) -> Tensor:
            return model(part).logits

        criterion = GenCELoss(group=torch.distributed.group.WORLD)
        return accumulated_backward(model, words.split(4), labels.split(4), criterion, forward=forward)


class Run:
    """A training, with the micro-batches it saw and the gradients of its steps."""

    def __init__(self, folder, n: int, batch: int, loss: Callable | None, kind=transformers.Trainer, **options) -> None:
        keeping, collator = Keeping(), Collator()
        quiet = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
        still = {"num_train_epochs": 1, "learning_rate": 0.0, "max_grad_norm": 0.0, "optim": "sgd"}
        args = transformers.TrainingArguments(
            str(folder), use_cpu=True, per_device_train_batch_size=batch, **quiet, **(still | options)
        )
        self.processes_met = torch.distributed.is_initialized()
        more = {"data_collator": collator, "callbacks": [keeping], "compute_loss_func": loss}
        self.trainer = kind(model=tiny(), args=args, train_dataset=texts(n), **more)
        self.trainer.train()
        self.gradients, self.batches = keeping.gradients, collator.batches


def one_batch(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The gradient of GenCE on all parts together."""
    words, y = map(torch.cat, zip(*parts, strict=True))
    return gradient_of(lambda model: plain_gence(model(words).logits, y), tiny())


def in_parts(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The gradient of the mean over all samples, each with the column sums of its own part."""
    n = sum(len(y) for _, y in parts)
    return gradient_of(
        lambda model: sum(plain_gence(model(words).logits, y) * (len(y) / n) for words, y in parts), tiny()
    )


def test_a_step_has_the_gradient_of_a_plain_loop(tmp_path) -> None:
    run = Run(tmp_path, 16, 16, loss_over_items(GenCELoss(reduction="sum")))
    (found,) = run.gradients
    close(found, one_batch(run.batches))


def test_accumulation_averages_over_samples_but_normalises_over_micro_batches(tmp_path) -> None:
    """Right scale, also for the ragged rest; still the loss of the small batches."""
    options = {"gradient_accumulation_steps": 4}
    run = Run(tmp_path, 22, 4, loss_over_items(GenCELoss(reduction="sum")), **options)
    four, rest = run.gradients
    assert [len(y) for _, y in run.batches] == [4] * 5 + [2]
    close(four, in_parts(run.batches[:4]))
    close(rest, in_parts(run.batches[4:]))
    assert far(four, one_batch(run.batches[:4]))


def test_a_mean_is_added_up_so_the_gradient_grows_with_the_accumulation(tmp_path) -> None:
    """The trap: a `compute_loss_func` that ignores `num_items_in_batch`."""
    run = Run(tmp_path, 16, 4, mean_loss, gradient_accumulation_steps=4)
    (found,) = run.gradients
    close(found, 4 * in_parts(run.batches))


def test_training_step_of_ones_own_accumulates_the_whole_batch(tmp_path) -> None:
    run = Run(tmp_path, 16, 16, None, Exact)
    (found,) = run.gradients
    close(found, one_batch(run.batches))


def test_gradient_checkpointing_leaves_the_loss_as_it_is(tmp_path) -> None:
    run = Run(tmp_path, 16, 16, loss_over_items(GenCELoss(reduction="sum")), gradient_checkpointing=True)
    (found,) = run.gradients
    close(found, one_batch(run.batches))


def test_training_in_even_batches_lowers_the_loss(tmp_path) -> None:
    criterion = Counting(reduction="sum")
    words, y = (torch.stack([row[name] for row in texts(50)]) for name in ("input_ids", "labels"))
    options = {"num_train_epochs": 5, "learning_rate": 0.3, "lr_scheduler_type": "constant"}
    run = Run(tmp_path, 50, 16, loss_over_items(criterion), Even, **options)
    assert criterion.sizes == EVEN * 5
    with torch.no_grad():
        before, after = (plain_gence(model.eval()(words).logits, y) for model in (tiny(), run.trainer.model))
    assert after < before - 0.1


def test_without_the_sampler_an_epoch_ends_in_a_batch_of_two(tmp_path) -> None:
    run = Run(tmp_path, 50, 16, loss_over_items(GenCELoss(reduction="sum")))
    assert [len(y) for _, y in run.batches] == [16, 16, 16, 2]


def test_the_loss_of_an_evaluation(tmp_path) -> None:
    """The mean over batches, each with its own column sums: its value depends on `per_device_eval_batch_size`."""
    run = Run(tmp_path, 16, 16, loss_over_items(GenCELoss(reduction="sum")), per_device_eval_batch_size=4)
    found = run.trainer.evaluate(texts(16))["eval_loss"]
    rows = texts(16)
    words, y = (torch.stack([row[name] for row in rows]) for name in ("input_ids", "labels"))
    with torch.no_grad():
        logits = tiny().eval()(words).logits
    parts = torch.stack([plain_gence(z, k) for z, k in zip(logits.split(4), y.split(4), strict=True)])
    assert found == pytest.approx(parts.mean().item(), abs=1e-6)
    assert found < plain_gence(logits, y).item() - 0.5


def work(rank: int, folder: str) -> dict:
    """Sixteen samples in batches of eight, two processes: one step. The loss over items, and the mean."""
    found = {}
    for name in ("sum over items", "mean", "mean, not averaged"):
        args = {} if name != "mean, not averaged" else {"average_tokens_across_devices": False}

        def loss(outputs, labels, num_items_in_batch=None, mean=name != "sum over items"):
            group = torch.distributed.group.WORLD
            if mean:
                return GenCELoss(group=group)(outputs.logits, labels)
            return GenCELoss(reduction="sum", group=group)(outputs.logits, labels) / num_items_in_batch

        run = Run(f"{folder}/{rank}", 16, 8, loss, ddp_backend="gloo", **args)
        found[name] = run.gradients[0]
        assert run.processes_met, "a criterion made after the TrainingArguments can have the group"
    found["exact"] = Run(f"{folder}/{rank}", 16, 8, None, Exact, ddp_backend="gloo").gradients[0]
    words, y = (torch.stack([row[name] for row in texts(16)]) for name in ("input_ids", "labels"))
    found["expected"] = one_batch([(words, y)])
    return found


def test_two_processes_have_the_gradient_of_one(tmp_path) -> None:
    """The Trainer multiplies what the function returns by the number of processes, as `num_items_in_batch` counts them
    all, unless `average_tokens_across_devices` is off."""
    for found in in_two_processes(work, tmp_path, str(tmp_path)):
        close(found["sum over items"], found["expected"])
        close(found["mean"], 2 * found["expected"])
        close(found["mean, not averaged"], found["expected"])
        close(found["exact"], found["expected"])
