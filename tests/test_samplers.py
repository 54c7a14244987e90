"""Class-balanced batches, alone and in the training loop; losses that remember, one memory for each seed."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from gence.lab import runs
from gence.lab.data import load_splits
from gence.lab.networks import make_model
from gence.lab.training import Recipe, train, train_many
from gence.losses import make_loss
from gence.samplers import ClassBalancedBatchSampler, EvenBatchSampler, batch_sizes


def long_tail(k: int = 7, head: int = 60) -> np.ndarray:
    counts = [max(1, int(head / 3**i)) for i in range(k)]
    return np.random.default_rng(0).permutation(np.repeat(np.arange(k), counts))


@pytest.mark.parametrize("size", [1, 3, 7, 10, 16, 64, 1000])
def test_every_batch_holds_all_classes_alike_to_within_one_sample(size):
    labels = long_tail()
    sampler = ClassBalancedBatchSampler(labels, size, seed=1)
    for _ in range(3):
        batches = list(sampler)
        assert len(batches) == len(sampler) and sum(map(len, batches)) == len(labels)
        for batch in batches:
            counts = np.bincount(labels[batch], minlength=7)
            assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("size", [2, 3, 5, 10, 17])
def test_over_many_batches_the_classes_take_turns(size):
    labels = long_tail()
    sampler = ClassBalancedBatchSampler(labels, size, seed=2)
    counts = np.bincount(np.concatenate([labels[b] for _ in range(20) for b in sampler]), minlength=7)
    assert counts.max() - counts.min() <= 1


def test_the_samples_of_a_class_are_used_up_before_one_comes_again():
    labels = np.array([0] * 12 + [1] * 4)
    sampler = ClassBalancedBatchSampler(labels, 4, seed=0)
    seen = [i for _ in range(6) for batch in sampler for i in batch]
    for k, members in ((0, 12), (1, 4)):
        mine = [i for i in seen if labels[i] == k]
        for start in range(0, len(mine) - members + 1, members):
            assert sorted(mine[start : start + members]) == np.flatnonzero(labels == k).tolist()


def test_the_seed_fixes_the_batches_and_an_epoch_is_not_the_one_before():
    labels = long_tail()
    a, b, c = (ClassBalancedBatchSampler(labels, 8, seed) for seed in (5, 5, 6))
    first = list(a)
    assert first == list(b) and first != list(c) and first != list(a)


def test_it_is_a_batch_sampler_of_torch():
    labels = long_tail()
    data = TensorDataset(torch.arange(len(labels)), torch.as_tensor(labels))
    loader = DataLoader(data, batch_sampler=ClassBalancedBatchSampler(labels, 14, seed=0, last_batch="drop"))
    for x, y in loader:
        assert (y == torch.as_tensor(labels)[x]).all()
        assert set(Counter(y.tolist()).values()) == {2}


@pytest.mark.parametrize(("labels", "size"), [([], 4), ([0, 1], 0)])
def test_what_makes_no_batches_is_refused(labels, size):
    with pytest.raises(ValueError, match=f"a batch size >= 1, but got {len(labels)} samples, batch_size = {size}"):
        ClassBalancedBatchSampler(labels, size, seed=0)


# --- Batches of even size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 16, 17, 31, 50, 100, 1257])
@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 64, 2000])
def test_sizes_of_batches(n, size):
    """Against NumPy's and torch's ways of cutting a list."""
    assert batch_sizes(n, size, "even") == [len(part) for part in np.array_split(np.arange(n), -(-n // size))]
    for rest, drop in (("keep", False), ("drop", True)):
        assert batch_sizes(n, size, rest) == [len(part) for part in BatchSampler(range(n), min(size, n), drop)]
    even = batch_sizes(n, size)
    assert max(even) - min(even) <= 1 and max(even) <= size and 2 * min(even) >= min(size, n)


def test_even_batches_in_a_data_loader():
    data = TensorDataset(torch.arange(50))
    generator = torch.Generator().manual_seed(0)
    sampler = EvenBatchSampler(RandomSampler(data, generator=generator), batch_size=16)
    loader = DataLoader(data, batch_sampler=sampler)
    epochs = [[x.tolist() for (x,) in loader] for _ in range(2)]
    assert [[len(batch) for batch in batches] for batches in epochs] == 2 * [[13, 13, 12, 12]]
    assert (
        all(sorted(i for batch in batches for i in batch) == list(range(50)) for batches in epochs)
        and epochs[0] != epochs[1]
    )
    assert len(loader) == 4


@pytest.mark.parametrize("last_batch", ["evn", "Drop", "", None])
def test_an_unknown_way_with_the_last_batch_is_refused(last_batch):
    for call in (
        lambda: batch_sizes(50, 16, last_batch),
        lambda: Recipe(last_batch=last_batch),
        lambda: ClassBalancedBatchSampler([0, 1], 1, seed=0, last_batch=last_batch),
    ):
        with pytest.raises(ValueError, match=rf"last_batch = {last_batch!r} is not allowed.*'even', 'drop', 'keep'"):
            call()


@pytest.mark.parametrize("last_batch", ["even", "drop", "keep"])
def test_the_record_holds_the_batch_sizes(tmp_path, last_batch):
    """What the record says is what the loss saw."""
    Noting.notes.clear()
    splits = load_splits("digits", seed=0, n_per_class=7)  # 70 samples: 16 leaves 6
    recipe = Recipe(batch_size=16, epochs=3, last_batch=last_batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(make_model("mlp", 64, 10, seed=0), splits, Noting(), recipe, seed=0, progress=False)
        run = runs.RunParameters.of(
            n_per_class=7, batch_size=16, recipe_options={"last_batch": last_batch}, tier="smoke", out=str(tmp_path)
        )
        runs.execute(run, progress=False)
    seen = Counter(str(len(labels)) for labels in Noting.notes)
    recorded = runs.read_records(tmp_path)["batch_sizes"].iloc[0]
    assert seen == {size: 3 * n for size, n in recorded.items()}


# --- In the training loop -----------------------------------------------------------------------------------------


class Noting(torch.nn.Module):
    """Cross-entropy that notes the labels of each batch; the note survives a copy of the module."""

    notes: list[list[int]] = []  # noqa: RUF012

    def forward(self, logits, labels):
        self.notes.append(labels.tolist())
        return torch.nn.functional.cross_entropy(logits, labels)


@pytest.mark.parametrize(("sampler", "balanced"), [("class_balanced", True), ("shuffle", False)])
def test_a_recipe_chooses_the_sampler(sampler, balanced):
    splits = load_splits("digits", seed=0, n_per_class=30, rho=10)
    Noting.notes.clear()
    recipe = Recipe(batch_size=20, epochs=2, sampler=sampler)
    train(make_model("mlp", 64, 10, seed=0), splits, Noting(), recipe, seed=0, progress=False)
    found = [np.bincount(y, minlength=10) for y in Noting.notes]
    assert all(counts.max() - counts.min() <= 1 for counts in found) == balanced
    assert sum(map(len, Noting.notes)) == 2 * len(splits.y_train)


@pytest.mark.parametrize("loss", ["gence_tracked", "present_class"])
def test_seeds_that_train_together_get_what_each_gets_alone(loss):
    """The tracked marginals belong to a seed, and so do class-balanced batches."""
    seeds = [0, 1, 2]
    splits = [load_splits("digits", seed, n_per_class=12, rho=4) for seed in seeds]
    nets = [make_model("mlp", 64, 10, seed) for seed in seeds]
    options = {"class_counts": splits[0].class_counts.tolist()} if loss == "gence_tracked" else {}
    criterion, recipe = make_loss(loss, **options), Recipe(batch_size=16, epochs=4, sampler="class_balanced")
    together = train_many(nets, splits, criterion, recipe, seeds, progress=False)
    for net, split, seed, outcome in zip(nets, splits, seeds, together, strict=True):
        alone = train(net, split, criterion, recipe, seed, progress=False)
        assert np.allclose(alone.logits["last"]["test"], outcome.logits["last"]["test"], atol=1e-9)
    if loss == "gence_tracked":
        assert (criterion.mass == 0).all(), "the loss that was handed over is left unchanged"


def test_tracked_gence_in_class_balanced_batches_goes_on_from_a_checkpoint(tmp_path):
    splits = load_splits("digits", seed=0, n_per_class=12, rho=4)
    criterion = make_loss("gence_tracked", class_counts=splits.class_counts.tolist())
    recipe, net = Recipe(batch_size=16, epochs=6, sampler="class_balanced"), make_model("mlp", 64, 10, seed=0)
    whole = train(net, splits, criterion, recipe, 0, progress=False)

    class Stop(Exception):
        pass

    class Stopping(type(criterion)):
        calls = 0

        def forward(self, logits, labels):
            type(self).calls += 1
            if type(self).calls == 11:
                raise Stop
            return super().forward(logits, labels)

    options = {"checkpoint": tmp_path / "run.pt", "every": 3, "progress": False}
    stopping = Stopping(splits.class_counts.tolist())
    with pytest.raises(Stop):
        train(net, splits, stopping, recipe, 0, **options)
    resumed = train(net, splits, stopping, recipe, 0, **options)
    assert (resumed.logits["last"]["test"] == whole.logits["last"]["test"]).all()


@pytest.mark.parametrize(("checks", "looks"), [(1, 1), (5, 5), (50, 20)])
def test_checks_says_how_often_the_validation_set_is_looked_at(checks, looks):
    splits = load_splits("digits", seed=0, n_per_class=5)
    recipe = Recipe(epochs=20, checks=checks)
    outcome = train(make_model("mlp", 64, 10, seed=0), splits, make_loss("ce"), recipe, 0, progress=False)
    assert len(outcome.history["epoch"]) == looks and outcome.history["epoch"][-1] == 20


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({"rho, n_per_class": [[1, 5], [2]]}, "needs a list of 2 values each time, but has \\[2\\]"),
        ({"rho, n_per_class": 3}, "must be a list of values"),
        ({"rho, n_pr_class": [[1, 5]]}, "unknown run parameter 'n_pr_class'"),
    ],
)
def test_names_that_vary_together_are_checked(vary, message):
    with pytest.raises(runs.ParameterError, match=message):
        runs.expand_grid({"vary": vary})
