from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
import references
import torch
import torch.nn.functional as F
from references import PlainRun
from torch import Tensor, nn

from gence import metrics
from gence.data import Splits, load_splits
from gence.losses import make_loss
from gence.models import make_model
from gence.training import Outcome, Recipe, evaluate_outcome, train, train_many

SEEDS = [3, 0, 11]


def setup(seeds: list[int], n_per_class: int = 5, model: str = "mlp") -> tuple[list[nn.Module], list[Splits]]:
    return (
        [make_model(model, 64, 10, seed) for seed in seeds],
        [load_splits("digits", seed, n_per_class=n_per_class) for seed in seeds],
    )


def run(loss: str | nn.Module, recipe: Recipe, seeds: list[int] = SEEDS, **options) -> list[Outcome]:
    models, splits = setup(seeds, **options)
    loss = make_loss(loss) if isinstance(loss, str) else loss
    return train_many(models, splits, loss, recipe, seeds, progress=False)


def assert_same(actual: Outcome | PlainRun, expected: Outcome | PlainRun, atol: float = 1e-9) -> None:
    for checkpoint in ("last", "best"):
        for split in ("val", "test"):
            np.testing.assert_allclose(
                actual.logits[checkpoint][split], expected.logits[checkpoint][split], rtol=0, atol=atol
            )
    for key in ("epoch", "train_loss", "val_nll"):
        np.testing.assert_allclose(actual.history[key], expected.history[key], rtol=0, atol=atol)
    assert actual.best_epoch == expected.best_epoch
    assert actual.train_error == pytest.approx(expected.train_error, abs=1e-12)


# --- the loop against a plain one -------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["ce", "gence", "brier"])
@pytest.mark.parametrize("batch_size", [16, 25, "full", 1000], ids=str)  # 50 samples: 16 leaves a last batch of 2
def test_many_seeds_equal_a_plain_loop_for_each(loss: str, batch_size: int | str) -> None:
    """All losses start at the same weights and see the same batches: the pairing on which comparisons rest."""
    recipe = Recipe(batch_size=batch_size, epochs=12)
    models, splits = setup(SEEDS)
    together = train_many(models, splits, make_loss(loss), recipe, SEEDS, progress=False)
    for outcome, model, data, seed in zip(together, models, splits, SEEDS, strict=True):
        size = min(batch_size, 50) if isinstance(batch_size, int) else batch_size
        plain = dataclasses.replace(recipe, batch_size=size)
        assert_same(outcome, references.plain_training(model, data, make_loss(loss), plain, seed))


def test_long_training_equals_a_plain_loop() -> None:
    """More epochs than validation checks (120 against 50), and every other option away from its default."""
    recipe = Recipe(batch_size=4, epochs=120, lr=0.3, momentum=0.5, weight_decay=0.01)
    models, splits = setup([5], n_per_class=1, model="linear")
    outcome = train(models[0], splits[0], make_loss("gence"), recipe, seed=5)
    assert outcome.history["epoch"] == list(range(3, 121, 3))
    assert_same(outcome, references.plain_training(models[0], splits[0], make_loss("gence"), recipe, seed=5))


@pytest.mark.parametrize("batch_size", [16, "full"])
def test_seeds_do_not_interact(batch_size: int | str) -> None:
    recipe = Recipe(batch_size=batch_size, epochs=12)
    models, splits = setup(SEEDS)
    loss = make_loss("gence")
    alone = [train(m, d, loss, recipe, seed) for m, d, seed in zip(models, splits, SEEDS, strict=True)]
    for a, b in zip(run(loss, recipe), alone, strict=True):
        assert_same(a, b)
    for a, b in zip(run(loss, recipe, SEEDS[::-1]), alone[::-1], strict=True):
        assert_same(a, b)


def test_each_seed_gives_its_own_result() -> None:
    a, b, c = (o.logits["last"]["test"] for o in run("ce", Recipe(epochs=2)))
    assert min(np.abs(a - b).max(), np.abs(a - c).max(), np.abs(b - c).max()) > 0.1


def test_last_short_batch_is_kept() -> None:
    assert [Recipe(batch_size=b, epochs=10).steps(50) for b in (16, 25, 50, 1000, "full")] == [40, 20, 10, 10, 10]


# --- pairing ----------------------------------------------------------------------------------------------------


def test_the_loss_is_the_only_difference() -> None:
    """Two losses that agree everywhere give the same run, although they are other classes with other options."""
    recipe = Recipe(batch_size=16, epochs=12)
    for a, b in zip(run(make_loss("gence", strength=0.0), recipe), run("ce", recipe), strict=True):
        assert_same(a, b)


def test_the_global_random_state_does_not_matter() -> None:
    outcomes = []
    for state in (0, 1):
        torch.manual_seed(state)
        np.random.seed(state)
        outcomes.append(run("gence", Recipe(batch_size=16, epochs=2)))
    for a, b in zip(*outcomes, strict=True):
        assert_same(a, b, atol=0)


class LabelCode(nn.Module):
    """A loss that trains nothing and whose value tells which labels are in the batch, and in which order."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        place = torch.arange(1, len(labels) + 1, dtype=logits.dtype)
        return self.factor * (labels * place.sqrt()).mean() + 0 * logits.sum()


def test_the_batch_order_depends_on_seed_and_epoch_but_not_on_the_loss() -> None:
    recipe = Recipe(batch_size=16, epochs=6)
    one, two = (run(LabelCode(factor), recipe) for factor in (1.0, 2.0))
    curves = np.array([o.history["train_loss"] for o in one])
    np.testing.assert_allclose(2 * curves, [o.history["train_loss"] for o in two], rtol=1e-12)
    assert len(np.unique(curves.round(9))) == curves.size


def test_models_data_and_loss_are_left_unchanged() -> None:
    models, splits = setup(SEEDS)
    loss = make_loss("gence", weight=torch.linspace(1, 2, 10, dtype=torch.float64))
    before = copy.deepcopy((models, splits, loss.state_dict()))
    train_many(models, splits, loss, Recipe(epochs=2), SEEDS, progress=False)
    for model, old in zip(models, before[0], strict=True):
        assert all(
            torch.equal(p, q) and p.grad is None for p, q in zip(model.parameters(), old.parameters(), strict=True)
        )
    for data, old in zip(splits, before[1], strict=True):
        assert np.array_equal(data.x_train, old.x_train) and np.array_equal(data.y_train, old.y_train)
    assert torch.equal(loss.weight, before[2]["weight"])


# --- what comes out ---------------------------------------------------------------------------------------------


def test_best_checkpoint_has_the_lowest_validation_nll() -> None:
    """Wrong labels are memorised in the end, so that best and last differ."""
    models, splits = setup(SEEDS)
    noisy = [dataclasses.replace(d, y_train=np.roll(d.y_train, 2)) for d in splits]  # 2 of 5 in each class
    for outcome, data in zip(
        train_many(models, noisy, make_loss("ce"), Recipe(batch_size=16, epochs=40), SEEDS, progress=False),
        noisy,
        strict=True,
    ):
        nll = {
            checkpoint: F.cross_entropy(torch.as_tensor(by_split["val"]), torch.as_tensor(data.y_val)).item()
            for checkpoint, by_split in outcome.logits.items()
        }
        curve = outcome.history["val_nll"]
        assert outcome.best_epoch == outcome.history["epoch"][int(np.argmin(curve))] < 40
        assert nll["best"] == pytest.approx(min(curve), abs=1e-9)
        assert nll["last"] == pytest.approx(curve[-1], abs=1e-9)
        assert nll["best"] < nll["last"] - 0.01


def test_no_learning_rate_keeps_the_initial_network() -> None:
    models, splits = setup(SEEDS)
    for outcome, model, data in zip(
        train_many(models, splits, make_loss("gence"), Recipe(epochs=2, lr=0.0), SEEDS, progress=False),
        models,
        splits,
        strict=True,
    ):
        expected = model(torch.as_tensor(data.x_test)).detach().numpy()
        for checkpoint in ("last", "best"):
            np.testing.assert_allclose(outcome.logits[checkpoint]["test"], expected, rtol=0, atol=1e-12)


def test_training_learns() -> None:
    for outcome in run("gence", Recipe(batch_size=16, epochs=30)):
        assert outcome.train_error == 0.0
        assert outcome.history["val_nll"][-1] < 1.0  # log 10 = 2.3 without learning


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_training_runs_in_the_dtype_of_the_models(dtype: torch.dtype) -> None:
    models, splits = setup(SEEDS)
    models = [m.to(dtype) for m in models]
    outcome = train_many(models, splits, make_loss("gence"), Recipe(epochs=1), SEEDS, progress=False)[0]
    assert torch.as_tensor(outcome.logits["best"]["val"]).dtype == dtype


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluate_outcome_measures_both_checkpoints(split: str) -> None:
    """On made-up logits, so that no checkpoint and no split can stand in for another."""
    data = load_splits("digits", seed=0, n_per_class=5)
    rng = np.random.default_rng(0)
    sizes = {"val": len(data.y_val), "test": len(data.y_test)}
    logits = {c: {s: rng.normal(size=(n, 10)) for s, n in sizes.items()} for c in ("last", "best")}
    measured = evaluate_outcome(Outcome(logits, best_epoch=1, train_error=0.0), data, split)
    labels = torch.as_tensor({"val": data.y_val, "test": data.y_test}[split])
    assert set(measured) == {"last", "best"}
    for checkpoint, values in measured.items():
        z = torch.as_tensor(logits[checkpoint][split])
        assert set(values) == set(metrics.METRICS)
        assert values["error"] == pytest.approx((z.argmax(1) != labels).double().mean().item(), abs=1e-12)
        assert values["nll"] == pytest.approx(F.cross_entropy(z, labels).item(), abs=1e-12)
        assert values["ece"] == metrics.expected_calibration_error(z.softmax(1), labels)


# --- errors -----------------------------------------------------------------------------------------------------


def test_nan_in_the_data_of_a_seed_names_the_seed() -> None:
    models, splits = setup(SEEDS)
    splits[2] = dataclasses.replace(splits[2], x_train=np.full_like(splits[2].x_train, math.nan))
    with pytest.raises(FloatingPointError, match=r"cross_entropy.*epoch 1 for seeds \[11\]"):
        train_many(models, splits, make_loss("ce"), Recipe(epochs=3), SEEDS, progress=False)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_breaks_later_names_the_epoch(bad: float) -> None:
    class BreaksInEpoch3(nn.Module):
        calls = 0

        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            self.calls += 1
            return F.cross_entropy(logits, labels) * (bad if self.calls == 3 else 1.0)

    with pytest.raises(FloatingPointError, match=r"BreaksInEpoch3.*epoch 3 for seeds \[3, 0, 11\]"):
        run(BreaksInEpoch3(), Recipe(batch_size="full", epochs=5))


@pytest.mark.parametrize("drop", ["models", "splits", "seeds"])
def test_lists_of_different_lengths(drop: str) -> None:
    models, splits = setup(SEEDS)
    lists = {"models": models, "splits": splits, "seeds": SEEDS}
    lists[drop] = lists[drop][:2]
    with pytest.raises(ValueError, match="equally many"):
        train_many(loss=make_loss("ce"), recipe=Recipe(epochs=1), progress=False, **lists)


def test_no_seed_at_all() -> None:
    with pytest.raises(ValueError, match="at least one, but are 0, 0 and 0"):
        train_many([], [], make_loss("ce"), Recipe(epochs=1), [], progress=False)


def test_splits_of_different_sizes() -> None:
    models, splits = setup([0, 1])
    splits[1] = load_splits("digits", 1, n_per_class=6)
    with pytest.raises(ValueError, match=r"equal sizes.*\(50, .*\(60, "):
        train_many(models, splits, make_loss("ce"), Recipe(epochs=1), [0, 1], progress=False)


# --- speed ------------------------------------------------------------------------------------------------------


def best_of(times: int, work: Callable[[], object]) -> float:
    def clock() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return min(clock() for _ in range(times))


def test_20_seeds_together_are_at_least_twice_as_fast() -> None:
    """Far under the measured ratio, so that a busy machine passes too."""
    seeds, recipe, loss = list(range(20)), Recipe(batch_size=16, epochs=3), make_loss("gence")
    models, splits = setup(seeds, n_per_class=10)

    def together() -> None:
        train_many(models, splits, loss, recipe, seeds, progress=False)

    def one_after_the_other() -> None:
        for model, data, seed in zip(models, splits, seeds, strict=True):
            train(model, data, loss, recipe, seed)

    together()  # the first call pays for imports and caches
    assert best_of(2, one_after_the_other) > 2 * best_of(2, together)
