from __future__ import annotations

import copy
import dataclasses
import functools
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import references
import torch
import torch.nn.functional as F
from references import PlainRun
from tiny_images import digit_images, small_cnn
from torch import Tensor, nn

from gence import metrics
from gence.lab.data import Selection, Splits, load_splits
from gence.lab.networks import make_model
from gence.lab.training import (
    Outcome,
    Recipe,
    _steps,
    evaluate_outcome,
    load_network,
    load_outcome,
    make_recipe,
    predict,
    recipe_names,
    save_outcome,
    train,
    train_many,
)
from gence.lab.training._steps import SPLITS, Draws, _augmented
from gence.losses import make_loss

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
@pytest.mark.parametrize(
    ("batch_size", "last_batch"),  # 50 samples: batches of 16 leave two
    [(16, "even"), (16, "drop"), (16, "keep"), (25, "even"), ("full", "even"), (1000, "drop")],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:every epoch has a batch of 2 samples")
def test_many_seeds_equal_a_plain_loop_for_each(loss: str, batch_size: int | str, last_batch: str) -> None:
    """All losses start at the same weights and see the same batches: the pairing on which comparisons rest."""
    recipe = Recipe(batch_size=batch_size, epochs=12, last_batch=last_batch)
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


def copied(splits: Splits) -> Splits:
    """The same data as arrays of its own, with nothing in common with other seeds."""
    x = {f"x_{part}": np.array(getattr(splits, f"x_{part}")) for part in ("train", "val", "test")}
    return dataclasses.replace(splits, **x)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("digits", None),
        ("av1451_synthetic", "float32"),
        pytest.param("digits", "float32", marks=pytest.mark.thorough),
        pytest.param("av1451_synthetic", None, marks=pytest.mark.thorough),
    ],
)
def test_sharing_samples_changes_no_bit(name: str, precision: str | None) -> None:
    """Seeds hold the samples of a data set once; av1451_synthetic is scaled by each seed in its own way."""
    splits = [load_splits(name, seed) for seed in SEEDS]
    width, n_classes = splits[0].input_shape[0], len(splits[0].class_names)
    models = [make_model("mlp", width, n_classes, seed) for seed in SEEDS]
    how = (make_loss("gence"), Recipe(batch_size=16, epochs=3, precision=precision), SEEDS)
    shared = train_many(models, splits, *how, progress=False)
    assert all(isinstance(s.__dict__["x_train"], Selection) for s in splits), "and makes no copy of them"
    mixed = [splits[0], *map(copied, splits[1:])]
    for data in (list(map(copied, splits)), mixed):
        for a, b in zip(shared, train_many(models, data, *how, progress=False), strict=True):
            assert_same(a, b, atol=0)


def test_the_pool_of_samples_is_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = [load_splits("digits", seed) for seed in range(20)]
    models = [make_model("linear", 64, 10, seed) for seed in range(20)]
    nets = _steps.Stack(models, splits, make_loss("ce"), Recipe(), torch.device("cpu"))
    assert nets.x["train"].pool.shape[0] <= 1797
    whole = nets.logits("train")
    monkeypatch.setattr(_steps, "EVALUATION_VALUES", 20 * 64 * 100)  # 100 samples at a time
    assert [rows.shape[1] for rows in nets.x["train"].all_rows()] == [100] * 9 + [60]
    torch.testing.assert_close(nets.logits("train"), whole, rtol=0, atol=1e-12)


def test_steps_are_counted_in_batches() -> None:
    assert [Recipe(batch_size=b, epochs=10).steps(50) for b in (16, 25, 50, 1000, "full")] == [40, 20, 10, 10, 10]
    assert [Recipe(batch_size=16, epochs=10, last_batch=b).steps(50) for b in ("even", "drop", "keep")] == [40, 30, 40]


@pytest.mark.parametrize(
    ("batch_size", "last_batch", "warns"),
    [
        (16, "keep", True),
        (16, "even", False),
        (16, "drop", False),
        (17, "keep", False),
        (24, "keep", True),
        (25, "keep", False),
        (33, "keep", False),
        (34, "keep", True),
        ("full", "keep", False),
    ],
)
def test_a_batch_under_half_the_size_warns(batch_size: int | str, last_batch: str, warns: bool) -> None:
    """50 samples; 33 leaves a batch of 17, which is just over a half, 34 one of 16, which is under it."""
    models, splits = setup([0])
    recipe = Recipe(batch_size=batch_size, epochs=1, last_batch=last_batch)
    for call in (
        lambda: train(models[0], splits[0], make_loss("ce"), recipe, seed=0, progress=False),
        lambda: train_many(models, splits, make_loss("ce"), recipe, [0], progress=False),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        found = [str(w.message) for w in caught if "a step of its own" in str(w.message)]
        assert len(found) == warns, found
        assert not warns or f"a batch of {50 % batch_size} samples beside batches of {batch_size}" in found[0]


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


# --- one network: the same loop -----------------------------------------------------------------------------------

RECIPES_THAT_BOTH_RUN = {
    "as now": Recipe(batch_size=16, epochs=6),
    "full batch": Recipe(batch_size="full", epochs=6),
    "one cycle": Recipe(batch_size=16, epochs=6, schedule="onecycle", warmup=0.3, nesterov=True),
    "cosine": Recipe(batch_size=16, epochs=6, schedule="cosine", warmup=0.1, momentum=0.5, weight_decay=0.01),
    "sum and clip": Recipe(batch_size=16, epochs=6, reduction="sum", clip_norm=2.0, milestones=(0.5,)),
}


@pytest.mark.parametrize("loss", ["ce", "gence", "min_ent", "flsc"])
@pytest.mark.parametrize("recipe", RECIPES_THAT_BOTH_RUN.values(), ids=RECIPES_THAT_BOTH_RUN)
def test_one_network_and_many_agree(loss: str, recipe: Recipe) -> None:
    models, splits = setup(SEEDS)
    criterion = make_loss(loss, **({"gammas": (5, 0), "milestones": (3,)} if loss == "flsc" else {}))
    together = train_many(models, splits, criterion, recipe, SEEDS, progress=False)
    for outcome, model, data, seed in zip(together, models, splits, SEEDS, strict=True):
        assert_same(train(model, data, criterion, recipe, seed, progress=False), outcome)


def plain_logits(model: nn.Module, data: Splits, loss: nn.Module, recipe: Recipe, seed: int) -> np.ndarray:
    """The last test logits, with torch's own schedules, clipping and summed loss."""
    model, loss = copy.deepcopy(model), copy.deepcopy(loss)
    x, y, x_test = map(torch.as_tensor, (data.x_train, data.y_train, data.x_test))
    parameters = [*model.parameters(), *loss.parameters()]
    optimiser = torch.optim.SGD(
        parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )
    steps = recipe.steps(len(y))
    rising = round(recipe.warmup * steps)
    falling = {
        "onecycle": lambda: torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps - rising),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps - rising),
        "step": lambda: torch.optim.lr_scheduler.MultiStepLR(
            optimiser, [round(share * recipe.epochs) * steps // recipe.epochs for share in recipe.milestones]
        ),
    }[recipe.schedule]()
    rng, done = np.random.default_rng([seed, 1]), 0
    for _ in range(recipe.epochs):
        order = torch.as_tensor(rng.permutation(len(y)))
        for rows in references.batches(order, recipe.batch(len(y)), recipe.last_batch):
            if done < rising:
                optimiser.param_groups[0]["lr"] = recipe.lr * (done + 1) / rising
            elif done == rising:
                optimiser.param_groups[0]["lr"] = recipe.lr
            optimiser.zero_grad()
            value = loss(model(x[rows]), y[rows])
            (value * len(rows) if recipe.reduction == "sum" else value).backward()
            if recipe.clip_norm:
                nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
            optimiser.step()
            done += 1
            if done > rising:
                falling.step()
    return model(x_test).detach().numpy()


@pytest.mark.parametrize("recipe", RECIPES_THAT_BOTH_RUN.values(), ids=RECIPES_THAT_BOTH_RUN)
@pytest.mark.parametrize("loss", ["gence", "min_ent"])
def test_every_option_equals_a_plain_loop(loss: str, recipe: Recipe) -> None:
    models, splits = setup([5])
    outcome = train(models[0], splits[0], make_loss(loss), recipe, 5, progress=False)
    expected = plain_logits(models[0], splits[0], make_loss(loss), recipe, 5)
    np.testing.assert_allclose(outcome.logits["last"]["test"], expected, rtol=0, atol=1e-9)


def test_clipping_acts_on_each_seed_alone() -> None:
    """The seed with the largest gradient must not hold the others back; and the limit is felt at all."""
    models, splits = setup(SEEDS)
    splits[0] = dataclasses.replace(splits[0], x_train=100 * splits[0].x_train)
    recipe = Recipe(batch_size=16, epochs=3, reduction="sum", clip_norm=0.5)
    clipped = train_many(models, splits, make_loss("ce"), recipe, SEEDS, progress=False)
    for outcome, model, data, seed in zip(clipped, models, splits, SEEDS, strict=True):
        assert_same(train(model, data, make_loss("ce"), recipe, seed, progress=False), outcome)
    free = train_many(
        models, splits, make_loss("ce"), dataclasses.replace(recipe, clip_norm=None), SEEDS, progress=False
    )
    assert np.abs(free[1].logits["last"]["test"] - clipped[1].logits["last"]["test"]).max() > 0.1


# --- schedules and recipes by name --------------------------------------------------------------------------------


def rates(recipe: Recipe, n: int) -> np.ndarray:
    return np.array([recipe.lr_at(step, n) for step in range(recipe.steps(n))])


@pytest.mark.parametrize(
    ("name", "n", "decays"),
    [
        ("paper", 45_000, (150, 250)),
        ("reference-code", 45_000, (149, 249)),
        ("paper-tiny-imagenet", 90_000, (40, 60)),
        ("reference-code-tiny-imagenet", 90_000, (39, 59)),
    ],
)
def test_the_learning_rate_falls_by_ten_at_the_published_epochs(name: str, n: int, decays: tuple[int, int]) -> None:
    recipe = make_recipe(name)
    by_epoch = rates(recipe, n).reshape(recipe.epochs, -1)
    assert (by_epoch == by_epoch[:, :1]).all()
    expected = [0.1] * decays[0] + [0.01] * (decays[1] - decays[0]) + [0.001] * (recipe.epochs - decays[1])
    np.testing.assert_allclose(by_epoch[:, 0], expected, rtol=1e-12)


def test_the_published_settings() -> None:
    paper, code, tiny = (make_recipe(n) for n in ("paper", "reference-code", "reference-code-tiny-imagenet"))
    for recipe in (paper, code, tiny):
        assert (recipe.lr, recipe.momentum, recipe.weight_decay, recipe.nesterov) == (0.1, 0.9, 5e-4, False)
        assert (recipe.augment, recipe.precision) == ("crop+flip", "float32")
    assert (paper.batch_size, paper.epochs, paper.reduction, paper.clip_norm) == (128, 350, "mean", None)
    assert (code.batch_size, code.epochs, code.reduction, code.clip_norm) == (128, 350, "sum", 2.0)
    assert (tiny.batch_size, tiny.epochs, tiny.reduction, tiny.clip_norm) == (64, 100, "sum", 2.0)
    assert make_recipe("laptop") == Recipe(epochs=50)
    assert make_recipe("short").steps(45_000) < 0.03 * paper.steps(45_000)


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_the_rate_rises_to_its_largest_value_and_falls_towards_zero(schedule: str) -> None:
    recipe = Recipe(batch_size=10, epochs=20, lr=0.4, schedule=schedule, warmup=0.2)
    curve = rates(recipe, 100)
    assert curve.argmax() == 39
    assert curve.max() == 0.4
    np.testing.assert_allclose(np.diff(curve[:40]), 0.4 / 40)
    assert (np.diff(curve[40:]) < 0).all()
    assert 0 < curve[-1] < 0.003


def test_a_recipe_by_name_takes_other_settings() -> None:
    recipe = make_recipe("paper", epochs=7, augment="crop")
    assert (recipe.epochs, recipe.augment, recipe.batch_size) == (7, "crop", 128)
    assert make_recipe("paper").epochs == 350
    assert set(recipe_names()) >= {"laptop", "paper", "reference-code", "short"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_recipe("papr"), r"unknown recipe 'papr'; did you mean 'paper'\?.*laptop, paper"),
        (lambda: make_recipe("paper", epoch=3), r"no setting 'epoch'; did you mean 'epochs'\?"),
        (lambda: Recipe(schedule="cosin"), r"schedule = 'cosin' is not allowed; did you mean 'cosine'\?"),
        (lambda: Recipe(augment="flip"), r"augment = 'flip'.*'none', 'crop', 'crop\+flip'"),
        (lambda: Recipe(precision="bf16"), r"precision = 'bf16'.*'bfloat16'"),
        (lambda: Recipe(reduction="none"), r"reduction = 'none'.*'mean', 'sum'"),
        (lambda: Recipe(batch_size=0), "batch_size must be .*, but got 0"),
        (lambda: Recipe(epochs=0), "epochs must be at least 1, but got 0"),
        (lambda: Recipe(lr=-1.0), "lr must be >= 0, but got -1.0"),
        (lambda: Recipe(momentum=1.0), r"momentum must be in \[0, 1\).*but got 1.0"),
        (lambda: Recipe(momentum=0.0, nesterov=True), "momentum must be .* > 0 with nesterov, but got 0.0"),
        (lambda: Recipe(weight_decay=-0.1), "weight_decay must be >= 0"),
        (lambda: Recipe(milestones=(150, 250)), r"milestones must be shares.*but got \(150, 250\)"),
        (lambda: Recipe(warmup=1.0), "warmup must be a share"),
        (lambda: Recipe(clip_norm=0.0), "clip_norm must be > 0, or None, but got 0.0"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_refused(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- images: bytes, normalisation, augmentation -------------------------------------------------------------------


def flat_network(seed: int = 0, n: int = 64) -> nn.Module:
    return nn.Sequential(nn.Flatten(), make_model("mlp", n, 10, seed))


def test_images_are_normalised_as_documented() -> None:
    images = digit_images()
    mean, std = images.mean[0], images.std[0]
    by_hand = {f"x_{s}": ((getattr(images, f"x_{s}") / 255 - mean) / std).reshape(-1, 64) for s in SPLITS}
    features = dataclasses.replace(images, **by_hand, mean=(), std=())
    recipe = Recipe(batch_size=16, epochs=4)
    expected = train(flat_network(), features, make_loss("gence"), recipe, 0, progress=False)
    assert_same(train(flat_network(), images, make_loss("gence"), recipe, 0, progress=False), expected)
    assert_same(train_many([flat_network()], [images], make_loss("gence"), recipe, [0], progress=False)[0], expected)


def test_each_channel_has_its_own_mean() -> None:
    """A linear network on colour images against the same on values that are normalised channel by channel."""
    rng = np.random.default_rng(0)
    x = {f"x_{s}": rng.integers(0, 256, (30, 3, 4, 4), dtype=np.uint8) for s in SPLITS}
    y = {f"y_{s}": rng.integers(0, 10, 30) for s in SPLITS}
    mean, std = (0.1, 0.5, 0.9), (1.0, 0.5, 0.2)
    images = Splits(**x, **y, class_names=tuple(f"class {k}" for k in range(10)), mean=mean, std=std)
    by_hand = {
        name: np.stack([(v[:, c] / 255 - mean[c]) / std[c] for c in range(3)], 1).reshape(30, -1)
        for name, v in x.items()
    }
    recipe = Recipe(batch_size=16, epochs=3)
    assert_same(
        train(flat_network(n=48), images, make_loss("ce"), recipe, 0, progress=False),
        train(flat_network(n=48), dataclasses.replace(images, **by_hand), make_loss("ce"), recipe, 0, progress=False),
    )


def augmented_by_hand(x: np.ndarray, shift: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    made = np.zeros_like(x)
    for i, (top, left) in enumerate(shift):
        _, height, width = x[i].shape
        for row in range(height):
            for column in range(width):
                source = (row + top - 4, (width - 1 - column if mirror[i] else column) + left - 4)
                if 0 <= source[0] < height and 0 <= source[1] < width:
                    made[i, :, row, column] = x[i, :, source[0], source[1]]
    return made


def test_augmentation_equals_loops_over_the_pixels() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (90, 3, 5, 7), dtype=np.uint8)
    shift = np.stack(np.divmod(np.arange(90) % 81, 9), 1)  # every corner
    mirror = rng.integers(0, 2, 90) == 1
    made = _augmented(*map(torch.as_tensor, (x, shift, mirror)))
    assert made.dtype == torch.uint8
    assert np.array_equal(made.numpy(), augmented_by_hand(x, shift, mirror))
    unmirrored = _augmented(torch.as_tensor(x), torch.as_tensor(shift), None)
    assert np.array_equal(unmirrored.numpy(), augmented_by_hand(x, shift, np.zeros(90, bool)))


def test_crops_reach_every_corner_and_half_of_the_images_are_mirrored() -> None:
    drawn = [Draws([7], 2000).epoch(epoch) for epoch in range(2)]
    corners = torch.bincount(9 * drawn[0].shift[:, 0] + drawn[0].shift[:, 1], minlength=81)
    assert corners.min() > 0
    assert corners.max() < 3 * 2000 / 81
    assert 0.45 < drawn[0].mirror.double().mean() < 0.55
    assert (drawn[0].shift != drawn[1].shift).any(1).double().mean() > 0.9, "each epoch has its own"
    assert (drawn[0].shift != Draws([8], 2000).epoch(0).shift).any(1).double().mean() > 0.9, "each seed has its own"


def test_draws_do_not_depend_on_where_one_goes_on() -> None:
    run_through = Draws([3, 4], 50)
    all_epochs = [run_through.epoch(epoch) for epoch in range(4)]
    for values, expected in zip(Draws([3, 4], 50).epoch(3), all_epochs[3], strict=True):
        assert torch.equal(values, expected)


class Recorder(nn.Module):
    """A network that keeps what it is shown while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = flat_network()
        self.seen: list[Tensor] = []

    def __deepcopy__(self, memo: dict) -> Recorder:
        return self  # so that the test sees it

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.clone())
        return self.layers(x)


def shown(loss: str, augment: str, seed: int = 0) -> Tensor:
    network = Recorder()
    train(network, digit_images(), make_loss(loss), Recipe(batch_size=16, epochs=2, augment=augment), seed)
    return torch.cat(network.seen)


@pytest.mark.claim("paired-runs")
@pytest.mark.parametrize("augment", ["none", "crop", "crop+flip"])
def test_all_losses_see_the_same_images(augment: str) -> None:
    first = shown("ce", augment)
    for loss in ("gence", "adafocal", "min_ent"):
        assert torch.equal(shown(loss, augment), first)
    assert not torch.equal(shown("ce", augment, seed=1), first)


def test_the_training_shows_the_images_it_was_told_to() -> None:
    images = digit_images()
    drawn = [Draws([0], 50).epoch(epoch) for epoch in range(2)]
    for augment, uses_mirror in (("crop+flip", True), ("crop", False)):
        expected = [
            augmented_by_hand(images.x_train[d.rows[0]], d.shift.numpy(), d.mirror.numpy() & uses_mirror) for d in drawn
        ]
        seen = shown("gence", augment) * images.std[0] + images.mean[0]
        np.testing.assert_allclose(seen.numpy() * 255, np.concatenate(expected), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "recipe", "message"),
    [
        (
            {"class_names": tuple("0123456789")},
            Recipe(augment="crop+flip"),
            "mirror the characters 0, 1.*augment='crop'",
        ),
        ({"x_train": np.zeros((50, 64))}, Recipe(augment="crop"), r"needs uint8 images.*float64 \(50, 64\)"),
        ({"mean": ()}, Recipe(), r"one mean and one std for each channel.*\(50, 1, 8, 8\), mean is \(\)"),
        ({"std": (1.0, 1.0, 1.0)}, Recipe(), r"std is \(1.0, 1.0, 1.0\)"),
    ],
)
def test_images_that_do_not_fit_the_recipe(change: dict, recipe: Recipe, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(flat_network(), dataclasses.replace(digit_images(), **change), make_loss("ce"), recipe, 0)


def test_characters_may_be_cropped() -> None:
    digits = dataclasses.replace(digit_images(), class_names=tuple("0123456789"))
    assert train(flat_network(), digits, make_loss("ce"), Recipe(epochs=1, augment="crop"), 0).best_epoch == 1


# --- precision, evaluation, compilation ---------------------------------------------------------------------------


class SeesLogits(nn.Module):
    """Cross-entropy that keeps the dtype of its logits, and whether it was called in autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[torch.dtype, bool]] = set()

    def __deepcopy__(self, memo: dict) -> SeesLogits:
        return self

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.seen.add((logits.dtype, torch.is_autocast_enabled("cpu")))
        return F.cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", np.float32), ("bfloat16", np.float32), ("float64", np.float64), (None, np.float32)],
)
def test_precision(precision: str | None, dtype: type) -> None:
    loss, recipe = SeesLogits(), Recipe(batch_size=16, epochs=2, precision=precision)
    outcome = train(small_cnn(), digit_images(), loss, recipe, 0)
    assert loss.seen == {(torch.as_tensor(np.zeros(1, dtype)).dtype, False)}
    assert {z.dtype for by_split in outcome.logits.values() for z in by_split.values()} == {np.dtype(dtype)}
    exact = train(small_cnn(), digit_images(), loss, dataclasses.replace(recipe, precision="float64"), 0)
    error = np.abs(outcome.logits["last"]["test"] - exact.logits["last"]["test"]).max()
    low, high = {"bfloat16": (1e-4, 0.3), "float64": (0, 0)}.get(precision, (1e-9, 1e-4))
    assert low <= error <= high


def test_evaluation_is_in_eval_mode_and_changes_nothing() -> None:
    """Other validation images change neither the weights nor the running means; and dropout is off."""
    images, model, recipe = digit_images(), small_cnn(dropout=0.5), Recipe(batch_size=16, epochs=3)
    outcome = train(model, images, make_loss("ce"), recipe, 0)
    other = dataclasses.replace(images, x_val=255 - images.x_val[:7], y_val=images.y_val[:7])
    changed = train(model, other, make_loss("ce"), recipe, 0)
    assert np.array_equal(outcome.logits["last"]["test"], changed.logits["last"]["test"])
    assert not np.array_equal(outcome.history["val_nll"], changed.history["val_nll"])
    twice = dataclasses.replace(images, x_val=images.x_test, y_val=images.y_test)
    logits = train(model, twice, make_loss("ce"), recipe, 0).logits["last"]
    assert np.array_equal(logits["val"], logits["test"])


def test_batch_normalisation_equals_a_plain_loop() -> None:
    """In train mode in every step, also in those after an evaluation, and in eval mode at the end."""
    images, recipe = digit_images(), Recipe(batch_size=25, epochs=4, milestones=())
    model = small_cnn(dtype=torch.float64)
    outcome = train(model, images, make_loss("ce"), recipe, 2)
    x, _, x_test = ((torch.as_tensor(getattr(images, f"x_{s}")).double() / 255 - 0.3) / 0.4 for s in SPLITS)
    y, rng = torch.as_tensor(images.y_train), np.random.default_rng([2, 1])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(4):
        for rows in torch.as_tensor(rng.permutation(50)).split(25):
            optimiser.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    np.testing.assert_allclose(outcome.logits["last"]["test"], model.eval()(x_test).detach(), rtol=0, atol=1e-9)


def test_evaluation_in_batches_equals_evaluation_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = functools.partial(train, small_cnn(dtype=torch.float64), digit_images(), make_loss("ce"), Recipe(epochs=2), 0)
    at_once = run()
    monkeypatch.setitem(_steps.EVALUATION_BATCH, "cpu", 7)
    assert_same(run(), at_once)


def test_the_training_error_is_that_of_the_plain_images(tmp_path: Path) -> None:
    images, model = digit_images(), small_cnn(dropout=0.3)
    recipe = Recipe(batch_size=16, epochs=20, augment="crop")
    outcome = train(model, images, make_loss("ce"), recipe, 0, checkpoint=tmp_path / "run.pt")
    logits = predict(load_network(tmp_path / "run.pt", model), images.x_train, images)
    assert outcome.train_error == (logits.argmax(1) != images.y_train).mean()
    assert 0 < outcome.train_error < 1


def test_dropout_depends_on_the_seed_alone_and_leaves_the_global_state() -> None:
    def run() -> np.ndarray:
        recipe = Recipe(batch_size=16, epochs=2, precision="float64")
        return train(small_cnn(dropout=0.5), digit_images(), make_loss("ce"), recipe, 3).logits["last"]["test"]

    torch.manual_seed(0)
    first = run()
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), after)
    assert np.array_equal(run(), first)


def test_compile_runs_the_training_through_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    class Compiled(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network, self.calls = network, 0
            compiled.append(self)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.network(x)

    monkeypatch.setattr(torch, "compile", Compiled)
    recipe = Recipe(batch_size=16, epochs=3)
    plain = train(small_cnn(), digit_images(), make_loss("ce"), recipe, 0)
    assert compiled == []
    assert_same(
        train(small_cnn(), digit_images(), make_loss("ce"), dataclasses.replace(recipe, compile=True), 0), plain, atol=0
    )
    assert [c.calls for c in compiled] == [recipe.steps(50)]


# --- losses that change while they train --------------------------------------------------------------------------


class Diary(nn.Module):
    """A loss that notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple] = []

    def __deepcopy__(self, memo: dict) -> Diary:
        return self

    def set_epoch(self, epoch: int) -> None:
        self.notes.append(("epoch", epoch))

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.notes.append(("update", logits.clone(), labels.clone()))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.notes.append(("step",))
        return F.cross_entropy(logits, labels)


def test_the_loss_is_told_the_epoch_before_and_the_validation_logits_after() -> None:
    images, loss = digit_images(), Diary()
    recipe = Recipe(batch_size=25, epochs=60)
    outcome = train(small_cnn(), images, loss, recipe, 0)
    kinds = [note[0] for note in loss.notes]
    assert kinds == ["epoch", "step", "step", "update"] * 60, "also after the epochs without a check"
    assert [note[1] for note in loss.notes if note[0] == "epoch"] == list(range(60))
    updates = [note for note in loss.notes if note[0] == "update"]
    for _, logits, labels in updates:
        assert logits.shape == (60, 10)
        assert not logits.requires_grad
        assert np.array_equal(labels, images.y_val)
    assert np.array_equal(updates[-1][1], outcome.logits["last"]["val"])


@pytest.mark.parametrize("name", ["adafocal", "gence_adafocal"])
def test_adafocal_equals_a_plain_loop(name: str) -> None:
    images, recipe = digit_images(), Recipe(batch_size=25, epochs=5, milestones=())
    outcome = train(flat_network(), images, make_loss(name, rate=3.0), recipe, 2)
    model, loss, rng = flat_network(), make_loss(name, rate=3.0), np.random.default_rng([2, 1])
    x, x_val, x_test = ((torch.as_tensor(getattr(images, f"x_{s}")).double() / 255 - 0.3) / 0.4 for s in SPLITS)
    y, y_val = torch.as_tensor(images.y_train), torch.as_tensor(images.y_val)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(5):
        for rows in torch.as_tensor(rng.permutation(50)).split(25):
            optimiser.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimiser.step()
        with torch.no_grad():
            loss.update(model(x_val), y_val)
    np.testing.assert_allclose(outcome.logits["last"]["test"], model(x_test).detach(), rtol=0, atol=1e-6)


def test_the_parameters_of_a_loss_are_trained_and_the_callers_loss_is_not() -> None:
    models, splits = setup([5])
    loss = make_loss("min_ent")
    before = loss.raw.detach().clone()
    recipe = Recipe(batch_size=16, epochs=6)
    learned = train(models[0], splits[0], loss, recipe, 5)
    fixed = train(models[0], splits[0], make_loss("min_ent", learnable=False), recipe, 5)
    assert torch.equal(loss.raw, before)
    assert np.abs(learned.logits["last"]["test"] - fixed.logits["last"]["test"]).max() > 0.1


# --- more errors --------------------------------------------------------------------------------------------------


class BreaksAtCall(nn.Module):
    """Cross-entropy that goes wrong once; `what` is the factor of the loss, or of its gradient only."""

    def __init__(self, call: int, what: float, gradient_only: bool = False) -> None:
        super().__init__()
        self.call, self.what, self.gradient_only, self.calls = call, what, gradient_only, 0

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        value = F.cross_entropy(1000 * logits, labels) if self.calls == self.call else F.cross_entropy(logits, labels)
        if self.calls != self.call:
            return value
        if self.gradient_only:
            value.register_hook(lambda gradient: gradient * self.what)
            return value
        return value * self.what


@pytest.mark.parametrize("what", [math.nan, math.inf])
def test_a_broken_loss_names_epoch_step_and_logits(what: float) -> None:
    message = r"BreaksAtCall became NaN or infinite in epoch 3 for seeds \[0\], in step 2 of 4; "
    message += r"the logits of step 2 lay between -[\d.]+ and [\d.]+\. Lower the learning rate"
    with pytest.raises(FloatingPointError, match=message):
        train(small_cnn(), digit_images(), BreaksAtCall(10, what), Recipe(batch_size=16, epochs=5), 0)


def test_a_broken_weight_is_found_before_it_is_saved() -> None:
    """The gradient of the last step of an epoch is NaN, and its loss is not."""
    message = r"A weight trained with BreaksAtCall became NaN or infinite in epoch 2 for seeds \[0\], in step 4 of 4"
    with pytest.raises(FloatingPointError, match=message):
        train(small_cnn(), digit_images(), BreaksAtCall(8, math.nan, True), Recipe(batch_size=16, epochs=5), 0)


class SpoilsItself(nn.Module):
    """Cross-entropy with a parameter of its own that gets a NaN gradient, and nothing else does."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.zeros(()))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        own = 1.0 * self.own
        own.register_hook(lambda gradient: gradient * math.nan)
        return F.cross_entropy(logits, labels) + 0.0 * own


def test_a_broken_parameter_of_the_loss_is_found() -> None:
    with pytest.raises(FloatingPointError, match=r"A weight trained with SpoilsItself.*in epoch 1"):
        train(small_cnn(), digit_images(), SpoilsItself(), Recipe(batch_size=50, epochs=2), 0)


def test_logits_that_were_never_finite() -> None:
    models, splits = setup([0])
    broken = dataclasses.replace(splits[0], x_train=np.full_like(splits[0].x_train, math.nan))
    with pytest.raises(FloatingPointError, match=r"step 1 of 2; no logits of this epoch were finite"):
        train(models[0], broken, make_loss("ce"), Recipe(epochs=3), 0)


@pytest.mark.parametrize(
    ("loss", "recipe"),
    [({"reduction": "none"}, Recipe()), ({"reduction": "sum"}, Recipe(reduction="sum"))],
)
def test_a_loss_whose_reduction_does_not_fit(loss: dict, recipe: Recipe) -> None:
    models, splits = setup([0])
    with pytest.raises(ValueError, match="Build the loss with reduction='mean'"):
        train(models[0], splits[0], make_loss("ce", **loss), recipe, 0)
    with pytest.raises(ValueError, match="Build the loss with reduction='mean'"):
        train_many(models, splits, make_loss("ce", **loss), recipe, [0])


@pytest.mark.parametrize(
    ("model", "loss", "recipe", "what"),
    [
        (flat_network(), "ce", Recipe(augment="crop"), "augment = 'crop'"),
        (flat_network(), "ce", Recipe(precision="bfloat16"), "precision = 'bfloat16'"),
        (flat_network(), "ce", Recipe(compile=True), "compile = True"),
        (small_cnn(), "ce", Recipe(), "a network with BatchNorm2d, Dropout"),
        (flat_network(), "adafocal", Recipe(), "AdaFocalLoss, which is updated"),
    ],
)
def test_what_only_one_network_can_do_is_refused_for_many(model, loss: str, recipe: Recipe, what: str) -> None:
    with pytest.raises(ValueError, match=f"train_many cannot do this: {what}.*gence.lab.training.train"):
        train_many([model], [digit_images()], make_loss(loss), recipe, [0], progress=False)


# --- outcomes on disk ---------------------------------------------------------------------------------------------


def test_an_outcome_is_read_as_it_was_written(tmp_path: Path) -> None:
    images = digit_images()
    outcome = train(small_cnn(), images, make_loss("gence"), Recipe(batch_size=16, epochs=3), 0)
    save_outcome(outcome, images, tmp_path / "deep" / "outcome.npz")
    again = load_outcome(tmp_path / "deep" / "outcome.npz")
    assert_same(again, outcome, atol=0)
    assert again.history == outcome.history
    assert evaluate_outcome(again, images) == evaluate_outcome(outcome, images)
    with np.load(tmp_path / "deep" / "outcome.npz") as content:
        assert np.array_equal(content["y_test"], images.y_test)
        assert np.array_equal(content["y_val"], images.y_val)
        assert content["last_test"].dtype == np.float32
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["outcome.npz"]


def test_a_write_that_fails_leaves_the_old_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, path = digit_images(), tmp_path / "outcome.npz"
    save_outcome(Outcome({"last": {"val": np.zeros((2, 3))}}, 1, 0.0), images, path)

    def full_disk(*_args: object, **_options: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_outcome(Outcome({"last": {"val": np.ones((2, 3))}}, 2, 0.0), images, path)
    assert load_outcome(path).best_epoch == 1


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_network_from_a_checkpoint_gives_its_logits(which: str, tmp_path: Path) -> None:
    images, model = digit_images(), small_cnn(dropout=0.3)
    noisy = dataclasses.replace(images, y_train=np.roll(images.y_train, 2))
    outcome = train(model, noisy, make_loss("ce"), Recipe(batch_size=16, epochs=30), 0, checkpoint=tmp_path / "run.pt")
    assert outcome.best_epoch < 30
    network = load_network(tmp_path / "run.pt", model, which)
    assert np.array_equal(predict(network, images.x_test, images), outcome.logits[which]["test"])
    with pytest.raises(ValueError, match="must be 'last' or 'best', but got 'first'"):
        load_network(tmp_path / "run.pt", model, "first")


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
