"""Run parameters, identity, records that are whole or absent, and paired comparison."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from gence import losses
from gence.lab import data, runs, training
from gence.lab.runs import ParameterError, Parameters, RunParameters, execute, expand_grid, parameters, record
from gence.lab.training import _loop

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
        ({"device": "gpu"}, ["device = 'gpu'", "nearest valid: 'cuda'", "Allowed: cpu, cuda, cuda:0"]),
        ({"device": "CUDA"}, ["device = 'CUDA'", "nearest valid: 'cuda'"]),
        ({"device": None}, ["device = None", "a name is needed", "cpu, cuda"]),
        ({"loss": "CE"}, ["loss = 'CE'", "nearest valid: 'ce'"]),
        ({"loss": "GenCE"}, ["loss = 'GenCE'", "nearest valid: 'gence'"]),
        ({"loss": None}, ["loss = None", "a name is needed", "Allowed: ce, brier"]),
        ({"loss": False}, ["loss = False", "a name is needed"]),  # what YAML makes of `no`
        ({"dataset": 5}, ["dataset = 5", "a name is needed", "Allowed: digits"]),
        ({"dataset": "other"}, ["dataset = 'other'", "bring your own", "other.npz", "x_train, y_train", "GENCE_DATA"]),
        ({"dataset": "Digits"}, ["nearest valid: 'digits'"]),
        ({"model": "ResNet50", "dataset": "cifar10"}, ["nearest valid: 'resnet50'"]),
        ({"model": "resnet50"}, ["model = 'resnet50' is not allowed with dataset = 'digits'", "takes images", "mlp"]),
        ({"model": "vgg5", "dataset": "av1451_synthetic"}, ["with dataset = 'av1451_synthetic'", "takes images"]),
        ({"epochs": True}, ["epochs = True", "truth value", "Allowed: a whole number >= 1"]),
        ({"batch_size": True}, ["batch_size = True", "truth value", "'full'"]),
        ({"batch_size": "FULL"}, ["batch_size = 'FULL'", "nearest valid: 'full'"]),
        ({"rho": True}, ["rho = True", "truth value", "Allowed: a number >= 1"]),
        ({"rho": np.bool_(True)}, ["rho = ", "truth value"]),
        ({"fraction": True}, ["fraction = True", "truth value"]),
        ({"label_noise": False}, ["label_noise = False", "truth value"]),
        ({"rho": float("inf")}, ["rho = inf", "no finite number"]),
        ({"rho": "1e400"}, ["rho = '1e400'", "no finite number", "Allowed: a number >= 1"]),
        ({"rho": "inf"}, ["rho = 'inf'", "finite number"]),
        ({"lr": float("nan")}, ["lr = nan", "no finite number"]),
        ({"weight_decay": float("inf")}, ["weight_decay = inf", "no finite number"]),
        ({"epochs": float("inf")}, ["epochs = inf", "no finite number"]),
        ({"epochs": "many"}, ["epochs = 'many'", "no whole number"]),
        ({"lr": [0.1]}, ["lr = [0.1]", "no number"]),
        ({"rho": None}, ["rho = None", "cannot be empty", "Allowed: a number >= 1"]),
        ({"label_noise": "null"}, ["label_noise = 'null'", "cannot be empty"]),
        ({"tier": None}, ["tier = None", "smoke, laptop, full"]),
        ({"seeds": None}, ["seeds = None", "a number of seeds"]),
        ({"seeds": ""}, ["seeds = ''", "0-4,9"]),
        ({"seeds": 2.0}, ["seeds = 2.0", "a number of seeds"]),
        ({"seeds": [True, 2]}, ["seeds = [True, 2]", "a number of seeds"]),
        ({"seeds": "3-1"}, ["seeds = '3-1'", "ends before it begins"]),
        ({"seeds": 10**12}, ["seeds = 1000000000000", "1..10,000"]),
        ({"seeds": "0-999999999999"}, ["more than 10,000 seeds"]),
        ({"seeds": [2**40]}, ["different integers in 0.."]),
        ({"seeds": {"a": 1}}, ["seeds = {'a': 1}", "a number of seeds"]),
        ({"out": "~nobody-of-this-name/x"}, ["out = '~nobody-of-this-name/x'", "home folder of a user"]),
        ({"out": 5}, ["out = 5", "the path of a folder"]),
        ({"foreign": 5}, ["foreign = 5", "names of image data sets", "or [] for none"]),
        ({"foreign": [1]}, ["foreign = [1]", "names of image data sets"]),
        ({"dataset": "cifar10", "foreign": "svhn,svhn"}, ["svhn more than once"]),
        ({"dataset": "cifar10", "foreign": "cifar10"}, ["foreign = 'cifar10'", "the data set itself"]),
        ({"dataset": "cifar10", "foreign": "digits"}, ["'digits'", "no data set of images. Those are: cifar10"]),
        ({"loss_options": "[1]"}, ["loss_options = '[1]'", "dictionary"]),
        ({"loss_options": 5}, ["loss_options = 5", "dictionary"]),
        ({"loss_options": {1: 2}}, ["loss_options = {1: 2}", "dictionary of names"]),
        ({"loss_options": '{"strength": 1, "strength": 0}'}, ["more than once, among strength"]),
        ({"loss_options": {"strength": True}}, ["strength = True", "a number is needed (default: 1.0)"]),
        ({"loss_options": {"strength": "half"}}, ["strength = 'half'", "a number is needed"]),
        ({"loss_options": {"strength": float("nan")}}, ["strength = nan", "no finite number"]),
        ({"loss": "focal", "loss_options": '{"gamma": 1e400}'}, ["gamma = inf", "no finite number"]),
        ({"loss": "mmce_w", "loss_options": {"official": 1}}, ["official = 1", "True or False is needed"]),
        ({"loss_options": {"weight": [1, 2, 3]}}, ["a list of 10 numbers", "'digits'", "[1, 2, 3]"]),
        ({"loss_options": {"weight": 2}}, ["a list of 10 numbers"]),
        ({"loss_options": {"weight": ["a"] * 10}}, ["a list of 10 numbers"]),
        ({"loss": "logit_adjustment", "loss_options": {"class_counts": [1, 2]}}, ["class_counts must be a list of 10"]),
        ({"recipe_options": {"momentum": "much"}}, ["momentum = 'much'", "a number is needed"]),
        ({"recipe_options": {"nesterov": 1}}, ["nesterov = 1", "True or False"]),
        ({"recipe_options": {"checks": True}}, ["checks = True", "a whole number"]),
        ({"recipe_options": {"checks": 2.5}}, ["checks = 2.5", "a whole number"]),
        ({"recipe_options": {"clip_norm": True}}, ["clip_norm = True"]),
        ({"recipe_options": {"clip_norm": "some"}}, ["recipe_options", "not supported"]),
        ({"recipe_options": {"milestones": 0.5}}, ["milestones = 0.5", "a list of numbers"]),
        ({"recipe_options": {"warmup": float("inf")}}, ["warmup = inf", "no finite number"]),
        ({"recipe_options": {"augment": "crop"}}, ["augment = 'crop' needs images", "Use augment = 'none'"]),
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
        patch.setattr(training, "save_outcome", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            execute(run, progress=False)
    assert [path.name for path in run.folder.rglob("*.pt")] == ["seed0000.pt"]
    steps = []
    with monkeypatch.context() as patch:
        advance = _loop.Loop.advance
        patch.setattr(_loop.Loop, "advance", lambda loop: (steps.append(loop.seeds[0]), advance(loop)))
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
    monkeypatch.setattr(parameters, "STACKED", ())
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
    counts = list(range(1, 11))
    run = RunParameters.of(loss="logit_adjustment", loss_options={"class_counts": counts, "tau": 2.0})
    assert run.make_loss([5] * 10).class_counts == counts


# --- what a command line and YAML make of values ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"lr": "1e-1"}, "lr", 0.1),
        ({"rho": "5e1"}, "rho", 50.0),
        ({"epochs": "1e2"}, "epochs", 100),
        ({"epochs": np.int64(3)}, "epochs", 3),
        ({"batch_size": "16"}, "batch_size", 16),
        ({"weight_decay": "5e-4"}, "weight_decay", 5e-4),
        ({"recipe_options": {"momentum": "9e-1"}}, "recipe_options", {"momentum": 0.9}),
        ({"recipe_options": '{"milestones": ["5e-1", 0.75]}'}, "recipe_options", {"milestones": [0.5, 0.75]}),
        ({"loss_options": {"strength": "5e-1"}}, "loss_options", {"strength": 0.5}),
        ({"loss_options": "none"}, "loss_options", {}),
        ({"recipe_options": None}, "recipe_options", {}),
        ({"foreign": "[]"}, "foreign", ()),
        ({"foreign": []}, "foreign", ()),
        ({"dataset": "cifar10", "foreign": "[svhn, 'mnist']"}, "foreign", ("svhn", "mnist")),
        ({"dataset": "cifar10", "foreign": '["svhn", "cifar10_c:fog:5"]'}, "foreign", ("svhn", "cifar10_c:fog:5")),
        *(({name: empty}, name, None) for name in runs.OPTIONAL for empty in (None, "None", "null", "none", "")),
        *(({"foreign": empty}, "foreign", ()) for empty in (None, "None", "null", "none", "")),
        *(({"out": empty}, "out", "") for empty in (None, "None", "null", "none", "")),
    ],
)
def test_values_are_read_whatever_form_they_come_in(given, name, value):
    assert getattr(RunParameters.of(**given), name) == value


@pytest.mark.parametrize("given", [[1.0] * 9 + [3.0], "text"], ids=["list", "text"])
@pytest.mark.parametrize("loss", ["ce", "gence"])
def test_class_weights_reach_the_loss_in_the_precision_of_the_network(loss, given, tmp_path):
    weight = [1.0] * 9 + [3.0]
    options = {"weight": weight} if given != "text" else json.dumps({"weight": weight})
    plain = RunParameters.of(**SMOKE, loss=loss, seeds=1, out=str(tmp_path))
    run = RunParameters.of(**SMOKE, loss=loss, loss_options=options, seeds=1, out=str(tmp_path))
    made = run.make_loss([1] * 10)
    assert made.weight.dtype == torch.float64 and made.weight.tolist() == weight
    on_images = RunParameters.of(dataset="cifar10", loss=loss, loss_options=options)
    assert on_images.make_loss([1] * 10).weight.dtype == torch.float32
    losses_of = [json.loads(execute(r, progress=False)[0].read_text())["history"]["train_loss"] for r in (run, plain)]
    assert losses_of[0] != losses_of[1], "the weights count"


def test_a_recipe_in_mixed_precision_trains_small_networks_one_by_one(tmp_path):
    run = RunParameters.of(**SMOKE, recipe="short", out=str(tmp_path))
    assert not run.trains_together
    assert len(execute(run, progress=False)) == 2


def test_the_home_folder_can_be_named_by_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunParameters.of(out="~/läufe hier").folder.parent == tmp_path / "läufe hier"
    monkeypatch.setenv("GENCE_RUNS", "~/x")
    assert RunParameters.of().folder.parent == tmp_path / "x"
    monkeypatch.setenv("GENCE_RUNS", "~nobody-of-this-name/x")
    with pytest.raises(ValueError, match="GENCE_RUNS = '~nobody-of-this-name/x'"):
        _ = RunParameters.of().folder


# --- own data ----------------------------------------------------------------------------------------------------


def write_numbers(folder, name="mine", shift=0.0):
    x, y = np.random.default_rng(0).normal(size=(60, 4)) + shift * np.eye(60, 4), np.arange(60) % 3
    np.savez(folder / f"{name}.npz", x_train=x, y_train=y, x_test=x[:12], y_test=y[:12])


def test_a_replaced_file_is_another_run_and_the_old_one_comes_back_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("GENCE_DATA", str(tmp_path))
    given = {"dataset": "mine", "tier": "smoke", "seeds": 1, "out": str(tmp_path / "runs")}
    write_numbers(tmp_path)
    first = RunParameters.of(**given)
    (path,) = execute(first, progress=False)
    assert json.loads(path.read_text())["provenance"]["own_data"] == {"mine": data.content("mine")}
    write_numbers(tmp_path, shift=1.0)
    second = RunParameters.of(**given)
    assert second.identity != first.identity
    (other,) = execute(second, progress=False)
    assert other != path and other.exists() and path.exists()
    write_numbers(tmp_path)
    assert RunParameters.of(**given).identity == first.identity


def test_a_file_that_is_replaced_while_a_run_starts_stops_it(tmp_path, monkeypatch):
    monkeypatch.setenv("GENCE_DATA", str(tmp_path))
    write_numbers(tmp_path)
    run = RunParameters.of(dataset="mine", tier="smoke", seeds=1, out=str(tmp_path / "runs"))
    name = run.identity
    write_numbers(tmp_path, shift=1.0)
    assert run.identity == name, "a run keeps its name"
    with pytest.raises(ParameterError, match="files of mine were replaced"):
        execute(run, progress=False)
    assert not list(tmp_path.rglob("seed*.json"))


def test_published_data_leave_the_identity_as_it_is(tmp_path, monkeypatch):
    name = RunParameters.of().identity
    monkeypatch.setenv("GENCE_DATA", str(tmp_path))
    write_numbers(tmp_path)
    assert RunParameters.of().identity == name
    write_numbers(tmp_path, "digits")
    with pytest.raises(ParameterError, match=r"digits\.npz would not be used"):
        RunParameters.of()


def test_foreign_images_are_content_too_and_no_copy_of_the_data_set(pictures, tmp_path):
    name = RunParameters.of(**pictures, foreign="noise").identity
    x = np.zeros((60, 8, 8, 3), dtype=np.uint8)
    y = np.arange(60) % 2
    np.savez(tmp_path / "noise.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert RunParameters.of(**pictures, foreign="noise").identity != name
    (tmp_path / "copy.npz").write_bytes((tmp_path / "mine.npz").read_bytes())
    with pytest.raises(ParameterError, match="foreign = 'copy' is not allowed: its file is a copy of that of 'mine'"):
        RunParameters.of(**pictures, foreign="copy")


def test_foreign_data_that_are_absent_or_damaged_stop_a_run_before_it_trains(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "_train_and_record", lambda *_: pytest.fail("it trained"))
    with pytest.raises(FileNotFoundError, match=r"'svhn' is not in .*--download svhn"):
        execute(RunParameters.of(**pictures, foreign="svhn", out=str(tmp_path)), progress=False)
    with pytest.raises(FileNotFoundError, match=r"--download cifar10_c"):
        execute(RunParameters.of(**pictures, foreign=["cifar10_c:fog:5"], out=str(tmp_path)), progress=False)
    write_numbers(tmp_path, "table")
    with pytest.raises(ParameterError, match="foreign = 'table' is not allowed: it is no data set of images"):
        RunParameters.of(**pictures, foreign="table")
    (tmp_path / "noise.npz").write_bytes((tmp_path / "noise.npz").read_bytes()[:5000])
    with pytest.raises(ParameterError, match=r"noise\.npz is damaged"):
        RunParameters.of(**pictures, foreign="noise")
    with pytest.raises(ParameterError, match=r"'vgg5'.*needs at least"):
        RunParameters.of(**pictures | {"model": "vgg5"})


# --- damaged records ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = RunParameters.of(**SMOKE, out=str(tmp_path_factory.mktemp("runs")))
    return run, [path.read_text() for path in execute(run, progress=False)]


def changed(text: str, **values) -> str:
    record = json.loads(text)
    return json.dumps({name: value for name, value in (record | values).items() if value is not ...})


def without_metric(text: str) -> str:
    record = json.loads(text)
    del record["test"]["best"]["nll"]
    return json.dumps(record)


DAMAGE = {
    "empty": (lambda t: b"", "it is empty"),
    "zeros": (lambda t: bytes(4096), "it is no JSON"),
    "cut": (lambda t: t[: len(t) // 2].encode(), "it is no JSON"),
    "two in one": (lambda t: (t + t).encode(), "it is no JSON"),
    "latin-1": (lambda t: t.replace("seed", "sääd").encode("latin-1"), "it is no UTF-8 text"),
    "list": (lambda t: b"[]", "it holds a list and no record"),
    "null": (lambda t: b"null", "it holds nothing and no record"),
    "number": (lambda t: b"3.5", "it holds a float and no record"),
    "text": (lambda t: b'"text"', "it holds a str and no record"),
    "nothing in it": (lambda t: b"{}", "it has schema None"),
    "deep": (lambda t: b"[" * 100_000, "it is no JSON"),
    "schema": (lambda t: changed(t, schema=99).encode(), "it has schema 99"),
    "no tests": (lambda t: changed(t, test={}).encode(), "its test lacks best, last"),
    "half the tests": (lambda t: changed(t, test={"last": {}}).encode(), "its test lacks best"),
    "no metrics": (lambda t: changed(t, test={"last": {}, "best": {}}).encode(), "lack ece, error, nll"),
    "one metric less": (lambda t: without_metric(t).encode(), "lack nll"),
    "tests as text": (lambda t: changed(t, test="good").encode(), "its test is 'good'"),
    "no errors": (lambda t: changed(t, class_error={}).encode(), "its class_error lacks best, last"),
    "no foreign": (lambda t: changed(t, foreign={"svhn": {}}).encode(), "its foreign svhn lacks best, last"),
    "no origin": (lambda t: changed(t, provenance=...).encode(), "it lacks provenance"),
    "empty origin": (lambda t: changed(t, provenance={}).encode(), "its provenance lacks commit, device"),
    "no parameters": (lambda t: changed(t, parameters=None).encode(), "its parameters is None"),
    "another seed": (lambda t: changed(t, seed=7).encode(), "seed 7: it was moved"),
    "another run": (lambda t: changed(t, identity="x").encode(), "the record of x, seed 0: it was moved"),
    "true as a seed": (lambda t: changed(t, seed=False).encode(), "its seed is False"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_record_is_no_record(case, trained):
    run, texts = trained
    damage, reason = DAMAGE[case]
    path = run.record_path(0)
    path.write_bytes(damage(texts[0]))
    try:
        assert reason in run.effective().flaw(0)
        assert f"kept as {path.name}.damaged" in run.effective().flaw(0)
        if "moved" not in reason:
            with pytest.raises(ValueError, match=r"seed0000\.json is not a whole record.*`make sweep`"):
                runs.read_records(run.folder)
        assert run.effective().flaw(1) is None
    finally:
        path.write_text(texts[0])
    assert run.effective().flaw(0) is None


def test_a_damaged_record_is_put_aside_and_trained_again_to_the_same_numbers(trained):
    run, texts = trained
    path = run.record_path(0)
    path.write_text(texts[0][:500])
    with pytest.warns(UserWarning, match="training again: .*is not a whole record"):
        execute(run, progress=False)
    again, first = (json.loads(text)["test"]["last"] for text in (path.read_text(), texts[0]))
    assert again == pytest.approx(first, rel=1e-9)
    assert path.with_name("seed0000.json.damaged").read_text() == texts[0][:500]
    assert run.record_path(1).read_text() == texts[1], "the other seed was whole"
    path.unlink()
    execute(run, progress=False)
    assert run.effective().flaw(0) is None


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"vary": {"loss": []}}, r"vary\.loss is an empty list"),
        ({"fixed": {"loss": "ce"}, "vary": {"loss": ["ce", "gence"]}}, "the grid sets loss more than once"),
        ({"vary": {"loss": ["ce"], "loss, rho": [["ce", 1]]}}, "the grid sets loss more than once"),
        ({"fixed": ["loss"]}, "section fixed must hold names and values, but is"),
        ({"vary": "loss"}, "section vary must hold names and values, but is 'loss'"),
        ({"fixed": {1: 2}}, "section fixed must hold names and values"),
    ],
)
def test_a_grid_that_says_something_twice_or_nothing_is_refused(grid, message):
    with pytest.raises(ParameterError, match=message):
        expand_grid(grid)
