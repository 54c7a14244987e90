"""Run parameters, identity, records that are whole or absent, and paired comparison."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from sklearn.datasets import load_digits

from gence import losses, runs
from gence.runs import (
    ParameterError,
    Parameters,
    RunParameters,
    execute,
    expand_grid,
)

SMOKE = {"tier": "smoke", "n_per_class": 5}


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({"lss": "gence"}, ["'lss'", "nearest valid: 'loss'", "dataset, model, loss"]),
        ({"loss": "genc"}, ["loss = 'genc'", "nearest valid: 'gence'", "Allowed: ce, brier, gence"]),
        ({"dataset": "digit"}, ["dataset = 'digit'", "nearest valid: 'digits'"]),
        ({"model": "mpl"}, ["model = 'mpl'", "nearest valid: 'mlp'"]),
        ({"rho": 0}, ["rho = 0", "nearest valid: 1", "Allowed: a number >= 1"]),
        ({"rho": float("nan")}, ["rho = nan", "Allowed: a number >= 1"]),
        ({"rho": "many"}, ["rho = 'many'", "Allowed: a number >= 1"]),
        ({"n_per_class": 0}, ["n_per_class = 0", "nearest valid: 1"]),
        ({"n_per_class": 5000}, ["n_per_class = 5000", "nearest valid: 96"]),
        ({"batch_size": "ful"}, ["batch_size = 'ful'", "nearest valid: 'full'"]),
        ({"batch_size": 0}, ["batch_size = 0", "nearest valid: 1"]),
        ({"epochs": 2.5}, ["epochs = 2.5", "whole number"]),
        ({"lr": 0}, ["lr = 0", "Allowed: a number > 0"]),
        ({"seeds": 0}, ["seeds = 0", "nearest valid: 1"]),
        ({"seeds": [1, 1]}, ["seeds = [1, 1]", "different"]),
        ({"seeds": "a-b"}, ["seeds = 'a-b'", "0-4,9"]),
        ({"tier": "lap"}, ["tier = 'lap'", "nearest valid: 'laptop'", "smoke, laptop, full"]),
        ({"device": "gpu"}, ["device = 'gpu'", "cuda"]),
        ({"loss_options": "{"}, ["loss_options", "JSON"]),
        ({"loss": "focal", "loss_options": {"gama": 2}}, ["'gama'", "'gamma'"]),
        ({"loss_options": {"strength": 2}}, ["strength must lie in [0, 1]"]),
        ({"loss_options": {"reduction": "none"}}, ["one number", "reduction"]),
        ({"recipe": "papr"}, ["recipe = 'papr'", "nearest valid: 'paper'", "Allowed: laptop, paper"]),
        ({"recipe_options": {"nestrov": True}}, ["'nestrov'", "'nesterov'"]),
        ({"recipe_options": {"lr": 1}}, ["recipe_options holds lr"]),
        ({"recipe_options": {"augment": "crop+flp"}}, ["augment", "'crop+flip'"]),
        ({"fraction": 0}, ["fraction = 0", "Allowed: a number in (0, 1]"]),
        ({"fraction": 0.5, "n_per_class": 5}, ["n_per_class = 5 and fraction = 0.5", "use one"]),
        ({"label_noise": 1}, ["label_noise = 1", "Allowed: a number in [0, 1)"]),
        ({"dataset": "cifar10", "foreign": "svnh"}, ["foreign = 'svnh'", "nearest valid: 'svhn'"]),
        ({"dataset": "cifar10", "foreign": ["cifar10_c:fogg:1"]}, ["cifar10_c:CORRUPTION:SEVERITY", "fog"]),
        ({"foreign": "svhn"}, ["'digits' is no data set of images"]),
        ({"loss": "class_balanced", "loss_options": {"beta": 1}}, ["beta must lie in [0, 1)", "got 1"]),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed_and_what_is_nearest(given, needed):
    with pytest.raises(ParameterError) as error:
        RunParameters.of(**given)
    for part in needed:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("given", "seeds"),
    [(3, (0, 1, 2)), ("3", (0, 1, 2)), ("0-2,9", (0, 1, 2, 9)), ("[4, 7]", (4, 7)), ([5], (5,)), ("[5]", (5,))],
)
def test_seeds_can_be_given_in_every_form_a_command_line_passes(given, seeds):
    assert Parameters.of(seeds=given).seeds == seeds


def test_identity_holds_what_decides_the_numbers_and_nothing_else():
    base = RunParameters.of()
    for same in ({"seeds": 3}, {"device": "cuda"}, {"out": "elsewhere"}, {"rho": 1}):
        assert RunParameters.of(**same).identity == base.identity
    others = [{"loss": "ce"}, {"rho": 2}, {"batch_size": "full"}, {"epochs": 51}, {"lr": 0.2}, {"weight_decay": 0}]
    others += [{"label_noise": 0.1}, {"fraction": 0.5}, {"recipe_options": {"nesterov": True}}]
    others += [{"loss_options": {"strength": 0.5}}, {"n_per_class": 10}, {"tier": "smoke"}, {"model": "linear"}]
    names = {RunParameters.of(**other).identity for other in others} | {base.identity}
    assert len(names) == len(others) + 1


def test_a_recipe_in_other_words_is_the_same_run():
    """Identity holds the whole recipe and not its name: a named recipe that is changed one day names other runs."""
    named = RunParameters.of(recipe="laptop", epochs=30)
    spelled = RunParameters.of(recipe="paper", batch_size=32, epochs=30, recipe_options='{"precision": null}')
    assert named.make_recipe() == spelled.make_recipe()
    assert named.identity == spelled.identity


@pytest.mark.parametrize(
    ("dataset", "recipe", "augment"),
    [
        ("cifar10", "paper", "crop+flip"),
        ("svhn", "paper", "crop"),
        ("digits", "short", "none"),
        ("svhn", "laptop", "none"),
    ],
)
def test_augmentation_is_what_a_data_set_allows(dataset, recipe, augment):
    assert RunParameters.of(dataset=dataset, recipe=recipe).make_recipe().augment == augment


def test_asked_for_augmentation_is_not_changed():
    run = RunParameters.of(dataset="svhn", recipe="paper", recipe_options={"augment": "crop+flip"})
    assert run.make_recipe().augment == "crop+flip"


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """The 8 x 8 digits as colour images of an own data set, and some noise as a foreign one."""
    digits = load_digits()
    x = np.repeat((255 * digits.images / 16).astype(np.uint8)[:600, :, :, None], 3, axis=3)
    y = digits.target[:600]
    names = [f"digit {k}" for k in range(10)]
    np.savez(tmp_path / "mine.npz", x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:], class_names=names)
    noise = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(60) % 2
    np.savez(tmp_path / "noise.npz", x_train=noise, y_train=labels, x_test=noise, y_test=labels)
    monkeypatch.setenv("GENCE_DATA", str(tmp_path))
    return {"dataset": "mine", "model": "small_cnn", "recipe": "short", "batch_size": 64, "epochs": 2, "seeds": 2}


def test_a_run_on_images_keeps_logits_and_scores_foreign_images(tmp_path, pictures):
    run = RunParameters.of(**pictures, foreign="noise", rho=3, out=str(tmp_path))
    paths = execute(run, progress=False)
    assert len(paths) == 2
    for path in paths:
        record, kept = json.loads(path.read_text()), np.load(path.with_suffix(".npz"))
        assert record["parameters"]["batch_size"] == 64
        assert record["recipe"]["augment"] == "crop+flip"
        assert kept["y_test"].shape == (200,)
        for checkpoint in ("last", "best"):
            logits = kept[f"{checkpoint}_test"]
            wrong = logits.argmax(1) != kept["y_test"]
            assert record["test"][checkpoint]["error"] == pytest.approx(wrong.mean(), abs=1e-12)
            sizes = np.bincount(kept["y_test"], minlength=10)
            assert np.dot(record["class_error"][checkpoint], sizes) == pytest.approx(wrong.sum(), abs=1e-9)
            assert set(record["foreign"]["noise"][checkpoint]["energy"]) == {"auroc", "aupr", "fpr95"}
    assert not list(run.folder.rglob("*.pt")), "a checkpoint has done its work when the record is there"
    table = runs.read_records(tmp_path)
    assert len(table) == 4
    assert 0 <= table.foreign_scores[0]["noise"]["msp"]["auroc"] <= 1
    assert len(table.class_error[0]) == 10


def test_an_interrupted_seed_goes_on_from_its_checkpoint(tmp_path, pictures, monkeypatch):
    whole = execute(RunParameters.of(**pictures, out=str(tmp_path / "whole")), progress=False)
    run = RunParameters.of(**pictures, out=str(tmp_path / "broken"))
    with monkeypatch.context() as patch:
        patch.setattr(runs.training, "save_outcome", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            execute(run, progress=False)
    assert [path.name for path in run.folder.rglob("*.pt")] == ["seed0000.pt"]
    steps = []
    with monkeypatch.context() as patch:
        advance = runs.training._Loop.advance
        patch.setattr(runs.training._Loop, "advance", lambda loop: (steps.append(loop.seeds[0]), advance(loop)))
        again = execute(run, progress=False)
    assert 0 not in steps
    assert 1 in steps
    for a, b in zip(whole, again, strict=True):
        kept = [np.load(path.with_suffix(".npz")) for path in (a, b)]
        np.testing.assert_array_equal(kept[0]["last_test"], kept[1]["last_test"])


def test_losses_that_learn_from_the_validation_set_train_too(tmp_path):
    run = RunParameters.of(**SMOKE, loss="adafocal", out=str(tmp_path))
    records = [json.loads(path.read_text()) for path in execute(run, progress=False)]
    assert [record["provenance"]["seeds_trained_together"] for record in records] == [1, 1]


def test_the_notebook_guard_reads_the_parameter_cells_and_no_others():
    cells = ["", "import numpy as np", "loss = 'ce'  # a comment\nseeds = 2", "# Parameters\nseeds = 3", "guard()"]
    found = RunParameters.from_notebook({"In": cells, "loss": "ce", "seeds": 3, "np": np, "rows": 1})
    assert (found.loss, found.seeds) == ("ce", (0, 1, 2))
    with pytest.raises(ParameterError, match="'sed'; nearest valid: 'seeds'"):
        RunParameters.from_notebook({"In": ["sed = 3", "guard()"], "sed": 3})


@pytest.mark.parametrize("history", [{}, {"In": [""]}, {"In": []}])
def test_without_a_history_the_parameters_are_those_the_namespace_holds(history):
    """nbval executes cells without a history."""
    found = RunParameters.from_notebook(history | {"loss": "ce", "rho": 50, "np": np, "rows": 1})
    assert (found.loss, found.rho, found.seeds) == ("ce", 50.0, RunParameters().seeds)
    with pytest.raises(ParameterError, match="nearest valid: 'ce'"):
        RunParameters.from_notebook(history | {"loss": "cee"})


def test_execute_resumes_without_repeating_a_seed(tmp_path):
    first = RunParameters.of(**SMOKE, seeds=[0], out=str(tmp_path))
    (record,) = execute(first, progress=False)
    written = record.stat().st_mtime_ns
    both = execute(RunParameters.of(**SMOKE, seeds=[0, 1], out=str(tmp_path)), progress=False)
    assert [path.name for path in both] == ["seed0000.json", "seed0001.json"]
    assert record.stat().st_mtime_ns == written


def test_a_record_says_what_was_run_and_where(tmp_path):
    run = RunParameters.of(**SMOKE, rho=5, loss="ce", seeds=[7], out=str(tmp_path))
    record = json.loads(execute(run, progress=False)[0].read_text())
    assert record["identity"] == run.identity
    assert record["seed"] == 7
    assert record["parameters"]["epochs"] == runs.SMOKE_EPOCHS
    assert record["class_counts"] == [5, 4, 3, 3, 2, 2, 2, 1, 1, 1]
    assert set(record["test"]) == {"last", "best"}
    origin = record["provenance"]
    assert origin["tier"] == "smoke"
    assert origin["duration_s"] > 0
    assert {"commit", "dirty", "torch", "device", "date", "python"} <= set(origin)


def test_a_seed_gets_the_same_record_whatever_it_is_trained_with(tmp_path):
    alone = execute(RunParameters.of(**SMOKE, seeds=[1], out=str(tmp_path / "a")), progress=False)[0]
    together = execute(RunParameters.of(**SMOKE, seeds=[0, 1], out=str(tmp_path / "b")), progress=False)[1]
    a, b = (json.loads(path.read_text())["test"]["last"] for path in (alone, together))
    assert a == pytest.approx(b, rel=1e-9)


def test_a_gpu_that_is_not_there_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ParameterError, match="no GPU"):
        execute(RunParameters.of(**SMOKE, device="cuda", out=str(tmp_path)))


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "record.json"
    runs.write_atomically(target, "first")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        runs.write_atomically(target, "second, half of it")
    assert target.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_the_content_is_on_the_disk_before_the_name_and_a_leftover_does_no_harm(tmp_path, monkeypatch):
    target, steps = tmp_path / "record.json", []
    (tmp_path / "record.json.part").write_text("what a killed process left, which is longer")
    for name in ("fsync", "replace"):
        really = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, n=name, f=really: (steps.append(n), f(*given))[1])
    runs.write_atomically(target, "whole, with an ä")
    assert steps == ["fsync", "replace"]
    assert target.read_text(encoding="utf-8") == "whole, with an ä"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_seeds_train_together_in_a_stack_of_features_only(monkeypatch):
    assert RunParameters.of().trains_together
    assert not RunParameters.of(dataset="cifar10").trains_together
    assert not RunParameters.of(model="small_cnn", dataset="cifar10").trains_together
    assert not RunParameters.of(loss="adafocal").trains_together
    monkeypatch.setattr(runs, "STACKED", ())
    assert not RunParameters.of().trains_together


def test_read_records_names_a_broken_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.ipynb"):
        runs.read_records(tmp_path)
    (tmp_path / "seed0000.json").write_text('{"schema": 1, "seed"')
    with pytest.raises(ValueError, match=r"seed0000.json is not a whole record"):
        runs.read_records(tmp_path)


def test_a_grid_is_the_product_of_what_varies():
    grid = {"fixed": {"seeds": 2}, "vary": {"loss": ["ce", "gence"], "rho": [1, 50]}}
    assert [(r.loss, r.rho) for r in expand_grid(grid)] == [("ce", 1), ("ce", 50), ("gence", 1), ("gence", 50)]
    with pytest.raises(ParameterError, match="'varies'; nearest valid: 'vary'"):
        expand_grid({"varies": {}})
    with pytest.raises(ParameterError, match=r"Write \['ce'\]"):
        expand_grid({"vary": {"loss": "ce"}})
    with pytest.raises(ParameterError, match="more than once"):
        expand_grid({"vary": {"rho": [1, 1.0]}})


@pytest.mark.parametrize("loss", [name for name in losses.loss_names() if losses.REGISTRY[name].adapts != "update"])
def test_every_loss_of_the_registry_trains(loss, tmp_path):
    """A loss that needs the class counts gets those of the long-tailed training set."""
    run = RunParameters.of(loss=loss, rho=5, tier="smoke", n_per_class=10, out=str(tmp_path))
    record = json.loads(execute(run, progress=False)[0].read_text())
    assert np.isfinite(record["history"]["train_loss"]).all()
    made = run.make_loss(record["class_counts"])
    assert getattr(made, "class_counts", record["class_counts"]) == record["class_counts"]


def test_class_counts_of_the_user_win():
    run = RunParameters.of(loss="logit_adjustment", loss_options={"class_counts": [1, 2, 3], "tau": 2.0})
    assert run.make_loss([5, 5, 5]).class_counts == [1, 2, 3]
