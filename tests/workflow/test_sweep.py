"""The engine of the experiments: grids, jobs, what a sweep costs, clusters, kills, and collecting the records."""

from __future__ import annotations

import io
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from processes import kill, processes_of
from sweeping import (
    ROOT,
    Watch,
    check_that_nothing_is_lost_or_done_twice,
    engine,
    run_engine,
    sweep,
    write_grid,
)

from gence import losses
from gence.lab import runs, storage
from gence.lab.records import RECORD_SCHEMA
from gence.lab.results import sources
from gence.lab.runs import ParameterError, RunParameters, parameters, record

GRIDS = sorted((ROOT / "workflow" / "grids").glob("*.yaml"))
PROFILES = ROOT / "workflow" / "profiles"
DATASETS = (
    *("digits", "cifar10", "cifar100", "tiny_imagenet", "svhn", "emnist_letters", "mnist", "fashion_mnist"),
    *("av1451", "av1451_synthetic", "cifar100_features"),
)
# A sweep of as many runs is killed again and again in the thorough tests. GENCE_KILL_RUNS=30 makes it the long one.
KILL_RUNS = int(os.environ.get("GENCE_KILL_RUNS", "4"))


def blocks(path: Path) -> list[dict]:
    content = yaml.safe_load(path.read_text())
    return content if isinstance(content, list) else [content]


def settings_of(path: Path) -> list[dict]:
    """Every combination of a grid file, by a plain loop of its own."""
    found = []
    for block in blocks(path):
        combined = [dict(block.get("fixed") or {})]
        for key, values in (block.get("vary") or {}).items():
            names = key.split(", ")  # names that vary together
            rows = values if len(names) > 1 else [[value] for value in values]
            combined = [setting | dict(zip(names, row, strict=True)) for setting in combined for row in rows]
        found += combined
    return found


def whole_record(identity: str, seed: int) -> str:
    """A record as the engine wants it, with numbers that nobody measured."""
    metrics = dict.fromkeys(("error", "nll", "brier", "ece", "adaece", "classwise_ece"), 0.5)
    of_checkpoints = {
        name: {"last": value, "best": value} for name, value in (("test", metrics), ("class_error", [0.5]))
    }
    more = {key: {} for key in ("parameters", "recipe", "batch_sizes", "foreign", "history")}
    more |= {"class_counts": [1], "best_epoch": 0, "train_error": 0.5, "provenance": {"commit": None, "device": "cpu"}}
    return json.dumps({"schema": RECORD_SCHEMA, "identity": identity, "seed": seed, **of_checkpoints, **more})


def small_grid(path: Path, out: Path) -> Path:
    """Two losses in two batch sizes, smoke sized."""
    fixed = {"tier": "smoke", "n_per_class": 5, "out": str(out)}
    return write_grid(path, {"fixed": fixed, "vary": {"loss": ["ce", "gence"], "batch_size": [16, 8]}})


@pytest.fixture
def grid(tmp_path) -> Path:
    """The small grid; its records go to tmp_path/runs."""
    return small_grid(tmp_path / "small.yaml", tmp_path / "runs")


# --- grids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_a_grid_file_is_well_formed_and_holds_no_setting_twice(path):
    settings = settings_of(path)
    texts = Counter(json.dumps(setting, sort_keys=True) for setting in settings)
    assert max(texts.values()) == 1
    for setting in settings:
        assert setting["dataset"] in DATASETS
        assert setting["loss"] in losses.loss_names()
        losses.make_loss(setting["loss"], **_with_counts(setting))
        assert "device" not in setting, "where a grid runs is the profile's business"
    assert path.read_text().startswith("#"), "a grid says what it is for"


def _with_counts(setting: dict) -> dict:
    options = setting.get("loss_options", {})
    known = losses.REGISTRY[setting["loss"]].options
    return {"class_counts": [1.0, 1.0], **options} if "class_counts" in known else options


LAPTOP = {"smoke", "laptop", "minibatch", "ragged", "learning_rate", "tabular_synthetic"}
LAPTOP |= {"capstone", "capstone_attack", "capstone_noise", "capstone_rate", "capstone_rates"}


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_a_grid_file_expands(path):
    expanded = sweep.read_grid(path)
    assert len({run.identity for run in expanded}) == len(settings_of(path))
    if path.stem not in LAPTOP:
        assert {run.tier for run in expanded} == {"full"}


def test_the_main_grid_is_the_papers_tables():
    """Table 1 has 11 settings and 7 losses; one setting, AV1451, is a grid of its own."""
    main, tabular = settings_of(ROOT / "workflow/grids/main.yaml"), settings_of(ROOT / "workflow/grids/tabular.yaml")
    columns = {"ce", "brier", "mmce_w", "flsd_53", "dual_focal", "adafocal", "gence"}
    rows = {(s["dataset"], s["model"]) for s in (*main, *tabular)}
    assert len(rows) == 11
    assert {(s["dataset"], s["model"], s["loss"]) for s in (*main, *tabular)} == {
        (*row, c) for row in rows for c in columns
    }
    assert {s["seeds"] for s in (*main, *tabular)} == {"1-10"}
    assert {s["dataset"]: s["epochs"] for s in main} == {"cifar10": 350, "cifar100": 350, "tiny_imagenet": 100}


def test_mmce_is_that_of_the_reference_code_wherever_it_runs():
    """At coefficient 2 the published form hardly learns; only the code's variant was made for that number."""
    runs_of = {path.stem: [s for s in settings_of(path) if s["loss"] == "mmce_w"] for path in GRIDS}
    assert {name: len(found) for name, found in runs_of.items() if found} == {
        **{
            "main": 10,
            "long_tails": 8,
            "tabular": 1,
            "tabular_synthetic": 1,
            "cost": 2,
            "pixels_rates": 16,
            "pixels": 2,
        }
    }
    for found in runs_of.values():
        assert all(setting["loss_options"] == {"official": True} for setting in found)


def test_the_entropy_grid_has_weights_that_stay_beside_those_that_learn():
    found = settings_of(ROOT / "workflow/grids/entropy.yaml")
    assert Counter((s["loss"], s.get("loss_options", {}).get("learnable")) for s in found) == {
        **{("ce", None): 1, ("gence", None): 1},
        **{(loss, learnable): 1 for loss in ("min_ent", "mix_ent") for learnable in (True, False)},
    }


@pytest.mark.parametrize("name", ["main", "long_tails"])
def test_the_gammas_of_the_dual_focal_loss_are_the_published_ones(name):
    for setting in settings_of(ROOT / f"workflow/grids/{name}.yaml"):
        network = setting["model"].removesuffix("_reference").removesuffix("_tiny").replace("wrn28_10", "wide_resnet")
        published = losses.DUAL_FOCAL_GAMMAS.get((setting["dataset"], network))
        if setting["loss"] == "dual_focal" and published is not None:
            assert setting["loss_options"] == {"gamma": published}, setting


def test_the_hybrid_shares_its_other_runs_with_the_main_grid():
    """Runs of one identity that differ in their seeds only train once."""
    main, hybrid = (sweep.read_grid(ROOT / f"workflow/grids/{name}.yaml") for name in ("main", "hybrid"))
    known = {run.identity for run in main}
    assert all(run.identity in known for run in hybrid if run.loss != "gence_adafocal")
    assert len(hybrid) == 6


def test_a_list_of_grids_is_the_runs_of_all_and_no_run_twice(tmp_path):
    first, second = {"fixed": {"rho": 1}, "vary": {"loss": ["ce", "gence"]}}, {"vary": {"rho": [10, 50]}}
    got = sweep.read_grid(write_grid(tmp_path / "a.yaml", [first, second]))
    assert [(run.loss, run.rho) for run in got] == [("ce", 1), ("gence", 1), ("gence", 10), ("gence", 50)]
    again = {"fixed": {"seeds": 3, "loss": "gence"}}  # other seeds of the same run
    with pytest.raises(ParameterError, match="block 2 holds a run again: digits-mlp-gence"):
        sweep.read_grid(write_grid(tmp_path / "b.yaml", [first, again]))
    with pytest.raises(ParameterError, match="block 1"):
        sweep.read_grid(write_grid(tmp_path / "c.yaml", ["loss"]))
    with pytest.raises(FileNotFoundError, match=r"workflow/grids/laptop\.yaml"):
        sweep.read_grid(tmp_path / "absent.yaml")


# --- jobs ------------------------------------------------------------------------------------------------------


def test_seeds_of_a_small_network_stay_together_and_those_of_a_large_one_are_shared_out(monkeypatch):
    run = RunParameters.of(seeds="1-10")
    assert [job.run.seeds for job in sweep.jobs_of(run, 4)] == [tuple(range(1, 11))]
    monkeypatch.setattr(parameters, "STACKED", ())
    jobs = sweep.jobs_of(run, 4)
    assert [job.run.seeds_text for job in jobs] == ["1-4", "5-8", "9-10"]
    assert {job.run.identity for job in jobs} == {run.identity}
    assert [Path(job.notebook).name for job in jobs] == ["train-1-4.ipynb", "train-5-8.ipynb", "train-9-10.ipynb"]
    assert len(sweep.jobs_of(run)) == 1
    monkeypatch.undo()
    image = RunParameters.of(seeds="1-10", dataset="cifar10")
    assert len(sweep.jobs_of(image, 5)) == 2, "the same network trains seed by seed on images"
    smoke = RunParameters.of(seeds="1-10", tier="smoke")
    monkeypatch.setattr(parameters, "STACKED", ())
    assert [job.run.seeds for job in sweep.jobs_of(smoke, 1)] == [(1,), (2,)]


def test_reading_what_a_job_needs_does_not_wait_for_torch():
    """A job's process reads the engine first; torch is the business of the notebook's kernel."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'workflow')!r}); import sweep; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_jobs_of_one_run_train_at_the_same_time(tmp_path, monkeypatch):
    both_inside = threading.Barrier(2, timeout=2)
    monkeypatch.setattr(record, "_train_and_record", lambda *_: both_inside.wait())
    parts = [RunParameters.of(seeds=[seed], out=str(tmp_path)) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        for started in [pool.submit(runs.execute, part, progress=False) for part in parts]:
            started.result()


def test_a_job_asks_for_more_at_each_attempt_and_for_time_by_its_seeds(monkeypatch):
    (job,) = sweep.jobs_of(RunParameters.of(tier="full", seeds=10, device="cuda:1"))
    assert (job.memory_mb(2), job.minutes(3)) == (2 * job.memory_mb(1), 3 * job.minutes(1))
    together = job.minutes()
    monkeypatch.setattr(parameters, "STACKED", ())
    (job,) = sweep.jobs_of(RunParameters.of(tier="full", seeds=10, device="cuda:1"))
    assert job.minutes() == 10 * together


def test_a_wrong_setting_of_a_sweep_is_named(grid):
    with pytest.raises(ParameterError, match=r"'seed_per_job'.*seeds_per_job"):
        sweep.read_jobs({"grid": str(grid), "seed_per_job": 1})
    for wrong in (0, True, 1.5, "2"):
        with pytest.raises(ParameterError, match=f"seeds_per_job = {wrong!r} is not allowed: use a whole number"):
            sweep.read_jobs({"grid": str(grid), "seeds_per_job": wrong})
    with pytest.raises(ParameterError, match="device = 'gpu'"):
        sweep.read_jobs({"grid": str(grid), "device": "gpu"})


def test_a_grid_is_read_again_without_torch_until_anything_it_depends_on_changes(grid, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "BUILD", tmp_path / "build")
    monkeypatch.setenv("GENCE_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    really, read = sweep._jobs_of_grid, []
    monkeypatch.setattr(sweep, "_jobs_of_grid", lambda config: read.append(config) or really(config))
    config = {"grid": str(grid)}
    first = sweep.read_jobs(config)
    assert sweep.read_jobs(config) == first and len(read) == 1
    changes = [
        lambda: config.update(device="cuda"),
        lambda: config.update(out=str(tmp_path / "elsewhere")),
        lambda: monkeypatch.setenv("GENCE_RUNS", str(tmp_path / "there")),
        lambda: (tmp_path / "data" / "mine.npz").write_bytes(b"1") or os.utime(tmp_path / "data" / "mine.npz", (1, 1)),
        lambda: grid.write_text(grid.read_text() + "# a comment"),
        lambda: (tmp_path / "build" / "plans" / "small.json").write_text("{"),
        lambda: monkeypatch.setattr(sweep, "__file__", __file__),  # other code
    ]
    monkeypatch.setattr(storage, "YOUNG", -1.0)
    for number, change in enumerate(changes, start=2):
        change()
        sweep.read_jobs(config)
        assert len(read) == number, f"change {number - 1} was not seen"
        sweep.read_jobs(config)
        assert len(read) == number, "and it is read once"
    monkeypatch.setattr(storage, "YOUNG", 1e9)
    sweep.read_jobs(config)
    sweep.read_jobs(config)
    assert len(read) == number + 2, "a file that has just changed is not relied on"


def test_a_name_that_yaml_would_drop_is_refused_and_merged_blocks_are_not(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("fixed:\n  loss: ce\n  rho: 2\n  loss: gence\n")
    with pytest.raises(ParameterError, match=r"grid\.yaml, line 2: loss stands there twice"):
        sweep.read_grid(path)
    path.write_text("- fixed: &a {loss: ce, rho: 2}\n- fixed: {<<: *a, loss: gence, lr: 1e-2}\n")
    assert [(run.loss, run.rho, run.lr) for run in sweep.read_grid(path)] == [("ce", 2, None), ("gence", 2, 0.01)]
    path.write_text("fixed: [")
    with pytest.raises(ParameterError, match=r"grid\.yaml is no YAML"):
        sweep.read_grid(path)
    path.write_bytes(b"fixed: {loss: \xff}")
    with pytest.raises(ParameterError, match=r"grid\.yaml is no YAML"):
        sweep.read_grid(path)
    with pytest.raises(FileNotFoundError, match=r"no profile nowhere. The profiles are: workflow/profiles/cpu"):
        sweep.settings(path, Path("nowhere"))


def test_many_seeds_that_do_not_follow_each_other_still_make_a_file_name():
    (job,) = sweep.jobs_of(RunParameters.of(seeds=list(range(0, 600, 2))))
    assert len(Path(job.notebook).name) < 60 and Path(job.notebook).name.startswith("train-300-seeds-")


# --- what it costs ---------------------------------------------------------------------------------------------


def test_the_cost_counts_what_is_left_and_invents_no_time(grid):
    jobs = sweep.read_jobs({"grid": str(grid)})
    assert sweep.cost(jobs, []).splitlines() == [
        "4 runs, 8 seeds, 4 jobs",
        "to do: 8 seeds in 4 jobs; 0 seeds have their record",
        "training time unknown: digits, mlp, batch 16, cpu: no measured rate (4 seeds)",
        "training time unknown: digits, mlp, batch 8, cpu: no measured rate (4 seeds)",
        "measure on the machine that will train: make calibrate GRID=... PROFILE=...",
    ]
    for seed in jobs[0].seeds:
        runs.write_atomically(jobs[0].record_path(seed), whole_record(jobs[0].identity, seed))
    # 6 seeds x 50 images x 3 epochs at 0.25 images/s are one hour.
    rate = {"model": "mlp", "device": "cpu", "device_name": "cpu (a)", "images_per_s": 0.25}
    assert sweep.cost(jobs, [rate]).splitlines() == [
        "4 runs, 8 seeds, 4 jobs",
        "to do: 6 seeds in 3 jobs; 2 seeds have their record",
        "training time: 1.0 hours of one cpu (a)",
    ]


def test_the_rate_that_says_most_about_a_run_is_taken_and_none_that_contradicts_it():
    run = RunParameters.of(batch_size=16)
    rates = [
        {"device": "cpu", "model": "mlp", "images_per_s": 1},
        {"device": "cpu", "model": "mlp", "batch_size": 16, "images_per_s": 2},
        {"device": "cpu", "model": "mlp", "batch_size": 16, "dataset": "cifar10", "images_per_s": 3},
        {"device": "cuda", "model": "mlp", "batch_size": 16, "dataset": "digits", "images_per_s": 4},
    ]
    assert sweep.rate_of(run, rates)["images_per_s"] == 2
    assert sweep.rate_of(run.model_copy(update={"batch_size": 8}), rates)["images_per_s"] == 1
    assert sweep.rate_of(run.model_copy(update={"model": "linear"}), rates) is None


def test_a_calibration_is_written_with_its_provenance_and_then_used(grid, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "CALIBRATION_SECONDS", 0.05)
    jobs = sweep.read_jobs({"grid": str(grid)})
    (path,) = sweep.calibrate(jobs, tmp_path)
    assert path == tmp_path / "training-cpu.json"
    content = json.loads(path.read_text())
    assert [row["batch_size"] for row in content["rates"]] == [16, 8]
    assert all(row["images_per_s"] > 0 for row in content["rates"])
    assert content["provenance"]["device"].startswith("cpu")
    assert "unknown" not in sweep.cost(jobs, sweep.read_rates(tmp_path))
    assert not (tmp_path / "runs").exists(), "a calibration leaves no record among the results"
    sweep.calibrate(jobs[:1], tmp_path)  # measured again: its row is replaced, the other one stays
    assert [row["batch_size"] for row in json.loads(path.read_text())["rates"]] == [8, 16]
    path.write_text('{"schema": 0}')
    with pytest.raises(SystemExit, match="schema 0"):
        sweep.read_rates(tmp_path)


# --- collecting ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of runs of the small grid, trained once."""
    out = tmp_path_factory.mktemp("trained") / "runs"
    for run in sweep.read_grid(small_grid(out.with_name("small.yaml"), out)):
        runs.execute(run, progress=False)
    return out


@pytest.fixture
def recorded(grid, trained, tmp_path) -> list[RunParameters]:
    shutil.copytree(trained, tmp_path / "runs")
    return sweep.read_grid(grid)


def test_collecting_twice_gives_the_same_bytes_and_every_record(recorded, tmp_path):
    target = tmp_path / "results" / "small.csv"
    said = sweep.collect(recorded, target)
    assert said.endswith("small.csv: 8 records of 4 runs")
    once = target.read_bytes()
    assert sweep.collect(list(reversed(recorded)), target) == said
    assert target.read_bytes() == once
    target.unlink()
    sweep.collect(recorded, target)
    assert target.read_bytes() == once

    table = pd.read_csv(target)
    assert len(table) == 16  # 4 runs, 2 seeds, 2 checkpoints
    assert table[["identity", "seed", "checkpoint"]].apply(tuple, axis=1).is_monotonic_increasing
    assert {"commit", "dirty", "device", "torch", "date", "loss", "batch_size", "error", "ece"} <= set(table.columns)
    assert "path" not in table.columns
    records = runs.read_records(tmp_path / "runs").set_index(["identity", "seed", "checkpoint"])
    collected = table.set_index(["identity", "seed", "checkpoint"])
    for metric in ("error", "nll", "ece"):
        assert (collected[metric] - records[metric]).abs().max() <= 0.5e-6


def test_a_part_of_the_records_loses_nothing_and_says_what_is_missing(recorded, tmp_path):
    target = tmp_path / "small.csv"
    sweep.collect(recorded, target)
    whole = target.read_bytes()
    shutil.rmtree(recorded[0].folder)  # its records lie on another machine now
    assert "missing" not in sweep.collect(recorded, target)
    assert target.read_bytes() == whole
    target.unlink()
    recorded[1].record_path(1).unlink()
    said = sweep.collect(recorded, target)
    assert "5 records of 3 runs" in said
    assert f"missing: {recorded[0].identity}, seeds 0-1" in said
    assert f"missing: {recorded[1].identity}, seeds 1" in said
    shutil.rmtree(tmp_path / "runs")
    assert "5 records of 3 runs" in sweep.collect(recorded, target)
    with pytest.raises(FileNotFoundError, match="no record of this grid"):
        sweep.collect(recorded, tmp_path / "other.csv")


def test_collecting_takes_out_what_the_grid_no_longer_holds(recorded, tmp_path):
    target = tmp_path / "small.csv"
    sweep.collect(recorded, target)
    said = sweep.collect(recorded[:2], target)
    assert said.count("no longer in the grid") == 2
    assert set(pd.read_csv(target)["identity"]) == {run.identity for run in recorded[:2]}


def test_collecting_refuses_broken_foreign_moved_and_contradicting_records(recorded, tmp_path):
    target = tmp_path / "small.csv"
    sweep.collect(recorded, target)
    before = target.read_bytes()
    path = recorded[0].record_path(1)
    good = path.read_text()
    test = json.loads(good)["test"]
    for broken, reason in [
        (good[: len(good) // 2], "not a whole record"),
        (good.replace(f'"schema": {RECORD_SCHEMA}', '"schema": 99', 1), "schema 99"),
        (recorded[1].record_path(1).read_text(), "it was moved"),
        (recorded[0].record_path(0).read_text(), "it was moved"),
        (json.dumps({**json.loads(good), "test": {**test, "last": {**test["last"], "nll": 7.0}}}), "nll = .* says 7.0"),
    ]:
        path.write_text(broken)
        with pytest.raises(ValueError, match=reason) as error:
            sweep.collect(recorded, target)
        assert str(path) in str(error.value) or recorded[0].identity in str(error.value)
        assert target.read_bytes() == before


def test_numbers_that_another_run_gives_only_to_many_digits_are_no_contradiction(recorded, tmp_path):
    target = tmp_path / "small.csv"
    sweep.collect(recorded, target)
    before = target.read_bytes()
    path = recorded[0].record_path(0)
    record = json.loads(path.read_text())
    stored = float(pd.read_csv(target, dtype=str)["nll"][0])
    record["test"]["best"]["nll"] = stored + 1e-9
    record["provenance"]["date"] = "2030-01-01T00:00:00+00:00"
    path.write_text(json.dumps(record))
    sweep.collect(recorded, target)
    assert target.read_bytes() == before


def test_collecting_adds_what_calibration_gives_with_the_papers_bins(recorded, tmp_path):
    target = tmp_path / "small.csv"
    sweep.collect(recorded, target)
    table = pd.read_csv(target).set_index(sweep.KEY)
    columns = sources.calibrated_columns("digits", "mlp")
    assert list(table.columns[-len(columns) :]) == columns
    for run in recorded:
        expected = sources.calibrated(runs.read_records(run.folder)).set_index(sweep.KEY)
        assert (table.loc[expected.index, columns] - expected[columns]).abs().max().max() <= 0.5e-6
    assert (table["ats_error"] - table["error"]).abs().max() == 0


def test_a_stopped_collection_fits_no_record_again(recorded, tmp_path, monkeypatch):
    target, really, fitted = tmp_path / "small.csv", sources.calibrated, []

    def stopped_at_the_third(records):
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(records["identity"].iloc[0])
        return really(records)

    monkeypatch.setattr(sources, "calibrated", stopped_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        sweep.collect(recorded, target)
    assert pd.read_csv(target)["ats_ece"].notna().sum() == 2 * 4  # two runs of 2 seeds and 2 checkpoints

    def go_on(records):
        fitted.append(records["identity"].iloc[0])
        return really(records)

    monkeypatch.setattr(sources, "calibrated", go_on)
    sweep.collect(recorded, target)
    assert sorted(fitted) == sorted(run.identity for run in recorded), "each run was fitted once"
    resumed = target.read_bytes()
    sweep.collect(recorded, target)
    assert len(fitted) == 4 and target.read_bytes() == resumed
    target.unlink()
    sweep.collect(recorded, target)
    assert target.read_bytes() == resumed, "stopping in between changes nothing"


def test_a_table_from_before_the_calibration_gets_its_columns(recorded, tmp_path):
    target = tmp_path / "small.csv"
    sweep.collect(recorded, target)
    whole = target.read_bytes()
    table = pd.read_csv(target, dtype=str, keep_default_na=False)
    columns = sources.calibrated_columns("digits", "mlp")
    table.drop(columns=columns).to_csv(target, index=False)
    sweep.collect(recorded, target)
    assert target.read_bytes() == whole
    shutil.rmtree(tmp_path / "runs")  # the records lie on another machine now
    sweep.collect(recorded, target)
    assert target.read_bytes() == whole


def test_a_record_without_logits_is_collected_and_named(recorded, tmp_path, monkeypatch):
    target = tmp_path / "small.csv"
    recorded[0].record_path(1).with_suffix(".npz").unlink()
    said = sweep.collect(recorded, target)
    assert f"without values after calibration: {recorded[0].identity}, seeds 1: no logits here" in said
    table = pd.read_csv(target)
    empty = table[table["ats_ece"].isna()]
    assert set(zip(empty["identity"], empty["seed"], strict=True)) == {(recorded[0].identity, 1)}
    assert len(table) == 16 and table["ece"].notna().all()

    target.unlink()
    really = sources.calibrated

    def too_few(records):
        if records["identity"].iloc[0] == recorded[1].identity:
            raise ValueError("9 validation samples are too few")
        return really(records)

    monkeypatch.setattr(sources, "calibrated", too_few)
    said = sweep.collect(recorded, target)
    assert f"{recorded[1].identity}, seeds 0-1: 9 validation samples are too few" in said
    assert pd.read_csv(target)["ats_ece"].notna().sum() == 16 - 4 - 2


def test_cost_sweep_and_collect_agree_on_damaged_and_deleted_records(recorded, grid, tmp_path):
    """The executed notebook of a job is still there: it decides nothing."""
    jobs = sweep.read_jobs({"grid": str(grid)})
    for job in jobs:
        Path(job.notebook).write_text("{}")
        Path(job.marker).write_text("")
    assert not set(sweep.inputs_of_sweep(jobs)) & {job.marker for job in jobs}
    assert all(Path(name).exists() for name in sweep.inputs_of_sweep(jobs))
    damaged, deleted = jobs[0].record_path(1), jobs[2].record_path(0)
    damaged.write_text(damaged.read_text()[:700])
    deleted.unlink()
    needed = sweep.inputs_of_sweep(jobs)
    assert set(needed) & {job.marker for job in jobs} == {jobs[0].marker, jobs[2].marker}
    assert [Path(job.marker).exists() for job in jobs] == [False, True, False, True], "else the engine would not run it"
    said = sweep.cost(jobs, [])
    assert "to do: 2 seeds in 2 jobs; 6 seeds have their record" in said
    assert f"to do again: {damaged} is not a whole record: it is no JSON" in said
    with pytest.raises(ValueError, match=rf"{damaged} is not a whole record.*make sweep"):
        sweep.collect(recorded, tmp_path / "small.csv")
    end = sweep.closing(jobs, needed, "my grid.yaml", "workflow/profiles/gpu")
    assert f"6 of 8 records are in {tmp_path / 'runs'}/<run>/" in end and "Go on: make sweep" in end
    assert "collect them:  make collect GRID='my grid.yaml' PROFILE=workflow/profiles/gpu" in end
    assert "plot them:     make plot GRID='my grid.yaml'\n" in end + "\n"
    assert not any(Path(job.marker).exists() for job in jobs)
    with pytest.warns(UserWarning, match="training again"):
        for job in (jobs[0], jobs[2]):
            runs.execute(job.run, progress=False)
    assert not any(job.missing for job in jobs)
    assert "missing" not in sweep.collect(recorded, tmp_path / "small.csv")
    assert "8 of 8 records" in sweep.closing(jobs, [], "small.yaml")


def test_a_marker_in_the_storage_of_a_cluster_decides_nothing_either(grid, tmp_path):
    jobs = sweep.read_jobs({"grid": str(grid)})
    kept = tmp_path / "storage" / jobs[0].marker.lstrip("/")
    kept.parent.mkdir(parents=True)
    kept.write_text("")
    sweep.inputs_of_sweep(jobs, str(tmp_path / "storage"))
    assert not kept.exists()


def test_a_small_validation_set_is_collected_with_fewer_bins(tmp_path, monkeypatch):
    monkeypatch.setenv("GENCE_DATA", str(tmp_path))
    x, y = np.random.default_rng(0).normal(size=(90, 4)), np.arange(90) % 3
    np.savez(tmp_path / "wine.npz", x_train=x, y_train=y, x_test=x[:30], y_test=y[:30])
    run, target = RunParameters.of(dataset="wine", tier="smoke", out=str(tmp_path / "runs")), tmp_path / "wine.csv"
    runs.execute(run, progress=False)
    said = sweep.collect([run.effective()], target)
    assert "9 validation samples are too few for 15 bins" in said
    assert "with fewer bins: make collect GRID=... BINS=5" in said
    said = sweep.collect([run.effective()], target, bins=3)
    assert "too few" not in said
    table = pd.read_csv(target)
    assert table["ats3_ece"].notna().all() and table["ts_ece"].notna().all() and table["ats_ece"].isna().all()
    once = target.read_bytes()
    sweep.collect([run.effective()], target, bins=3)
    assert target.read_bytes() == once


@pytest.mark.parametrize("bins", ["0", "many", "-3", "1.5"])
def test_a_wrong_number_of_bins_is_named(bins, grid, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sweep.py", "collect", str(grid), f"--bins={bins}"])
    with pytest.raises(SystemExit, match="2"):
        sweep.main()
    assert f"'{bins}' is not allowed: use a whole number >= 1" in capsys.readouterr().err


def test_rows_of_the_users_own_table_stay_where_that_table_is_not(recorded, tmp_path, monkeypatch):
    target = tmp_path / "small.csv"
    sweep.collect(recorded, target)
    table = pd.read_csv(target, dtype=str, keep_default_na=False)
    table.loc[0, ["identity", "dataset"]] = ["av1451-elsewhere", "av1451"]
    table.to_csv(target, index=False)
    monkeypatch.setenv("GENCE_DATA", str(tmp_path))
    assert "no longer in the grid" not in sweep.collect(recorded, target)
    assert "av1451-elsewhere" in set(pd.read_csv(target)["identity"])


@pytest.mark.filterwarnings("error:constrained_layout")
def test_a_collected_table_is_drawn(recorded, tmp_path):
    target = tmp_path / "small.csv"
    with pytest.raises(FileNotFoundError, match=r"small\.csv is not there: collect the records first"):
        sweep.plot(target, tmp_path / "small.png")
    sweep.collect(recorded, target)
    drawn = np.asarray(Image.open(sweep.plot(target, tmp_path / "plots" / "small.png")).convert("L"))
    assert drawn.shape[1] > 1000 and (drawn < 128).any()
    sweep.collect(recorded[:1], target)
    sweep.plot(target, tmp_path / "plots" / "one.png")


# --- progress ----------------------------------------------------------------------------------------------------


def test_progress_is_a_line_now_and_then_and_warnings_come_at_once(monkeypatch):
    log, terminal, now = io.StringIO(), io.StringIO(), [0.0]
    monkeypatch.setattr(sweep.time, "monotonic", lambda: now[0])
    progress = sweep.Progress(log, terminal, seconds=20)
    for second in range(60):
        now[0] = float(second)
        progress.write(f"\rrun, seeds 0-1: {second}%|#    | {second}/60 [00:{second:02d}<00:30]")
        if second == 30:
            progress.write("a warning\nin two lines: 5%|\n")
    progress.write("\r" + " " * 60 + "\r")
    shown = [line.split(": ")[1].split("%")[0] for line in terminal.getvalue().splitlines()]
    assert shown == ["5", "25", "45"], "the first one soon, then every 20 seconds"
    assert len(log.getvalue().splitlines()) == 5 and "a warning\nin two lines: 5%|\n" in log.getvalue()


# --- profiles and clusters -------------------------------------------------------------------------------------


def run_engine_until(condition: Callable[[], bool], log: Path, *arguments: str, **environment: str) -> None:
    """Start the engine and kill it and its children as soon as the condition holds, or after a minute."""
    with log.open("w") as file:
        running = subprocess.Popen(
            engine(*arguments),
            cwd=ROOT,
            env=os.environ | environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            end = time.monotonic() + 60
            while not condition() and running.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
        finally:
            kill_group(running)


def kill_group(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# The sweep that is killed runs with the profile for a CPU.
@pytest.mark.parametrize("profile", ["gpu", pytest.param("cpu", marks=pytest.mark.thorough)])
def test_a_local_profile_plans_the_sweep(grid, profile):
    done = run_engine("--profile", f"workflow/profiles/{profile}", "-n", "sweep", "--config", f"grid={grid}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "train        4" in done.stdout + done.stderr


@pytest.mark.parametrize(("profile", "device"), [("cpu", "cpu"), ("gpu", "cuda")])
def test_the_device_of_a_profile_reaches_the_jobs_although_the_command_names_the_grid(grid, profile, device):
    assert sweep.settings(grid, PROFILES / profile)["device"] == device


@pytest.mark.parametrize("profile", sorted(PROFILES.iterdir()), ids=lambda path: path.name)
def test_a_profile_says_where_jobs_run_and_is_resumable(profile):
    content = yaml.safe_load((profile / "config.yaml").read_text())
    assert content["configfile"] == "sweep.yaml"
    assert content["keep-going"] and content["rerun-incomplete"] and content["nolock"]
    assert set(yaml.safe_load((profile / "sweep.yaml").read_text())) <= set(sweep.SETTINGS) - {"grid"}


@pytest.fixture
def slurm(tmp_path) -> dict[str, str]:
    """An environment in which Slurm's commands are those of fake_slurm.py."""
    if find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed: pip install '.[test]'")
    if " " in sys.executable:
        pytest.skip("Snakemake hands no jobs to a cluster from a folder with a blank; the engine says so, tested below")
    commands, notes = tmp_path / "bin", tmp_path / "slurm"
    commands.mkdir()
    notes.mkdir()
    for name in ("sbatch", "srun", "sacct", "squeue", "scancel", "sinfo", "scontrol", "sacctmgr"):
        (commands / name).symlink_to(ROOT / "tests" / "support" / "fake_slurm.py")
    return {"PATH": f"{commands}:{os.environ['PATH']}", "FAKE_SLURM": str(notes)}


def test_a_cluster_is_refused_from_a_folder_with_a_blank():
    from snakemake.exceptions import WorkflowError

    sweep.check_cluster_path("/home/müller/book/.venv/bin/python")
    with pytest.raises(WorkflowError, match="blank in its path, and /home/my book/"):
        sweep.check_cluster_path("/home/my book/.venv/bin/python")


SLURM = (
    "--profile",
    "workflow/profiles/slurm",
    "--slurm-init-seconds-before-status-checks",
    "1",
    "--latency-wait",
    "5",
)


def test_slurm_gets_valid_submissions_one_for_each_job(grid, slurm, tmp_path):
    notes, log = Path(slurm["FAKE_SLURM"]), tmp_path / "log"
    arguments = (*SLURM, "--slurm-logdir", str(tmp_path / "logs"), "sweep", "--config", f"grid={grid}")
    run_engine_until(lambda: len(list(notes.glob("job*.state"))) == 4, log, *arguments, **slurm)
    given = [json.loads(path.read_text()) for path in notes.glob("job*.json")]
    assert len(given) == 4, log.read_text()[-3000:]  # the seeds of its network train together
    memory, minutes = sweep.LIMITS["smoke", "cuda"]
    for options in given:
        asked = {name: options[name] for name in ("partition", "mem", "time", "gpus", "cpus_per_task")}
        assert asked == {
            "partition": "gpu",
            "mem": str(memory),
            "time": str(minutes),
            "gpus": "1",
            "cpus_per_task": "4",
        }
        assert "--executor slurm-jobstep" in options["wrap"]
    assert len({options["comment"] for options in given}) == 4


@pytest.mark.thorough  # the submissions are tested above, a sweep of the CPU below, a real Slurm by `make test-cluster`
def test_a_sweep_runs_through_slurm(grid, slurm, tmp_path):
    one = write_grid(tmp_path / "one.yaml", {**yaml.safe_load(grid.read_text()), "vary": {"loss": ["gence"]}})
    arguments = ("sweep", *SLURM, "--slurm-logdir", str(tmp_path / "logs"), "--set-threads", "train=1")
    done = run_engine(*arguments, "--config", f"grid={one}", "device=cpu", **slurm, FAKE_SLURM_RUNS="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "runs").glob("*/seed*.json"))) == 2
    assert len(list((tmp_path / "runs").glob("*/train-0-1.ipynb"))) == 1


def test_a_gpu_job_that_slurm_refuses_names_the_line_of_the_profile_to_change(grid, slurm, tmp_path):
    arguments = (*SLURM, "--retries", "0", "--slurm-logdir", str(tmp_path / "logs"), "sweep")
    done = run_engine(*arguments, "--config", f"grid={grid}", **slurm, FAKE_SLURM_WITHOUT_GPUS="1")
    assert done.returncode == 1
    hint = [row for row in done.stderr.splitlines() if row.startswith(("Slurm refused", "change", "GPUs"))]
    assert len(hint) == 3, done.stderr[-3000:]
    refused, line, advice = hint
    assert "no machine of the partition has all that a job asks for: sbatch -p gpu --mem 8000" in refused
    assert refused.endswith(" --gpus=1")
    number, row = line.removeprefix("change line ").split(" of workflow/profiles/slurm/config.yaml:  ")
    assert (PROFILES / "slurm" / "config.yaml").read_text().splitlines()[int(number) - 1].strip() == row
    assert row.startswith("slurm_partition: gpu")
    assert "PROFILE=workflow/profiles/slurm_cpu" in advice


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        ("Batch job submission failed: Requested node configuration is not available", "slurm_partition: gpu"),
        ("Invalid generic resource (gres) specification", "slurm_partition: gpu"),
        ("Batch job submission failed: Invalid partition name specified", "slurm_partition: gpu"),
        ("Batch job submission failed: Invalid account or account/partition combination", "# slurm_account: mine"),
    ],
)
def test_each_refusal_of_slurm_has_its_line(words, setting):
    """The words are those of Slurm 22.05."""
    said = f"message: SLURM sbatch failed. The error message was 'sbatch: error: {words}'.\n    sbatch call:\n"
    said += "        sbatch --parsable -p gpu -t 20 --gpus=1 --wrap=x"
    assert f":  {setting}" in sweep.refusal(said, str(PROFILES / "slurm"))
    assert "change" not in sweep.refusal(said, "") and "sbatch -p gpu --gpus=1" in sweep.refusal(said, "")
    assert "sinfo" not in sweep.refusal(said.replace("--gpus=1 ", ""), "")
    assert sweep.refusal(said.replace(words, "Socket timed out"), str(PROFILES / "slurm")) == ""


class FakeKubernetes(BaseHTTPRequestHandler):
    """The part of the Kubernetes interface that the plugin calls: it takes jobs and says that they failed."""

    jobs: list[dict]

    def answer(self, content: dict) -> None:
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/jobs"):
            self.jobs.append(body)
        self.answer(body)

    def do_GET(self) -> None:
        self.answer({"items": []} if "pods" in self.path else {"status": {"failed": 1}})

    def do_DELETE(self) -> None:
        self.answer({})

    def log_message(self, *_: object) -> None:
        pass


def test_kubernetes_gets_valid_jobs(grid, tmp_path):
    for plugin in ("snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_fs"):
        if find_spec(plugin) is None:
            pytest.skip(f"{plugin} is not installed: pip install '.[cluster]'")
    rsync = tmp_path / "bin" / "rsync"  # the storage plugin copies with it; not every machine has it
    rsync.parent.mkdir()
    rsync.write_text('#!/bin/sh\nwhile [ $# -gt 2 ]; do shift; done\nexec cp -r "$1" "$2"\n')
    rsync.chmod(0o755)
    handler = type("Handler", (FakeKubernetes,), {"jobs": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    named = {"cluster": {"server": f"http://127.0.0.1:{server.server_port}"}, "name": "fake"}
    context = {"context": {"cluster": "fake", "user": "fake"}, "name": "fake"}
    config = {"clusters": [named], "contexts": [context], "users": [{"name": "fake", "user": {}}]}
    kubeconfig = write_grid(tmp_path / "kubeconfig", {**config, "current-context": "fake", "kind": "Config"})
    try:
        run_engine_until(
            lambda: len(handler.jobs) == 4,
            tmp_path / "log",
            *("--profile", "workflow/profiles/kubernetes", "--default-storage-prefix", str(tmp_path / "volume")),
            *("sweep", "--config", f"grid={grid}", f"out={tmp_path / 'volume' / 'runs'}"),
            KUBECONFIG=str(kubeconfig),
            PATH=f"{rsync.parent}:{os.environ['PATH']}",
        )
    finally:
        server.shutdown()
        server.server_close()
    assert len(handler.jobs) == 4, (tmp_path / "log").read_text()[-3000:]
    for job in handler.jobs:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        for part in ("requests", "limits"):  # Kubernetes refuses a GPU that is not in both
            assert container["resources"][part]["nvidia.com/gpu"] == "1"
            assert container["resources"][part]["memory"] == f"{sweep.LIMITS['smoke', 'cuda'][0]}M"
        assert {"name": "gence", "mountPath": "/mnt/gence"} in container["volumeMounts"]
        assert "--allowed-rules train" in container["args"][1]
    assert len({job["spec"]["template"]["spec"]["containers"][0]["args"][1] for job in handler.jobs}) == 4


# --- kills -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes of a sweep through /proc")
@pytest.mark.parametrize("n_runs", [2, pytest.param(KILL_RUNS, marks=pytest.mark.thorough)])
def test_a_sweep_that_is_killed_again_and_again_loses_and_repeats_nothing(n_runs, tmp_path):
    """Trainings and engine get SIGKILL at random moments; orphans of a killed engine go on beside the next one."""
    out, rng, token = tmp_path / "runs", random.Random(0), f"GENCE_KILL_TEST={tmp_path}"
    fixed = {"tier": "smoke", "seeds": [0, 1], "n_per_class": 5, "out": str(out)}
    vary = {"batch_size": [16, 32], "rho": [float(n) for n in range(1, n_runs // 2 + 1)]}
    grid = write_grid(tmp_path / "grid.yaml", {"fixed": fixed, "vary": vary})
    command = engine("--profile", "workflow/profiles/cpu", "--cores", "2", "sweep", "--config", f"grid={grid}")
    environment = os.environ | dict([token.split("=", 1)])
    watch = Watch(out)
    watch.start()
    kills = Counter()
    try:
        with (tmp_path / "log").open("w") as log:

            def start() -> subprocess.Popen:
                return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

            def trainings() -> list[int]:
                return [pid for pid in processes_of(token) if pid != running.pid]

            def at_a_random_moment(goal: int) -> list[int]:
                """What trains then, once there are so many records; nothing where the engine came to its end."""
                longest = 2.0  # seconds; half of it where that was too late, so that a fast machine is killed, too
                while running.poll() is None:
                    if len(watch.versions) >= goal and trainings():
                        time.sleep(rng.uniform(0, longest))
                        if running.poll() is None and (found := trainings()):
                            return found
                        longest /= 2
                    time.sleep(0.05)
                return []

            running = start()
            # One kill for every run, each at a random moment while something trains: the first engine before any record
            # is there, so that its orphans train what the next one wants, too.
            for kill_number, victim in zip(range(n_runs), cycle(["engine", "training"]), strict=False):
                found = at_a_random_moment(2 * (kill_number - 1))
                if not found:
                    break
                kill([running.pid if victim == "engine" else rng.choice(found)])
                kills[victim] += 1
                if victim == "engine":
                    running.wait()
                    running = start()
            running.wait(timeout=600)
            if running.returncode != 0:  # a training that was killed too often fails the sweep, not the next one
                start().wait(timeout=600)
    finally:
        kill(processes_of(token))
        watch.end()
    print(f"{n_runs} runs, killed: {dict(kills)}")
    assert kills["engine"] >= 1 and kills["training"] >= 1

    check_that_nothing_is_lost_or_done_twice(grid, watch, "workflow/profiles/cpu", tmp_path / "log")


# --- a folder with a space and an umlaut ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """A copy of the repository in such a folder, with an environment inside it."""
    here = tmp_path_factory.mktemp("there") / "pröj ect"
    for name in ("gence", "workflow", "notebooks", "book", "results"):
        shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "_toc.yml", "Makefile", "pyproject.toml", "constraints.txt", "CITATION.cff"):
        shutil.copy(ROOT / name, here / name)
    (here / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".installed":
            (here / ".venv" / part.name).symlink_to(part)
    (here / ".venv" / ".installed").write_text("")
    return here


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment = clean | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"} | environment
    command = ["make", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def sweep_elsewhere(elsewhere) -> tuple[Callable[[str], subprocess.CompletedProcess], RunParameters]:
    """`make sweep` and `make plan` of one run there, with records in another such folder; and the run."""
    out = elsewhere / "meine läufe"
    shutil.rmtree(out, ignore_errors=True)
    content = {"fixed": {"tier": "smoke", "n_per_class": 5, "seeds": 2}}
    grid = write_grid(elsewhere / "workflow" / "grids" / "mein gitter ä.yaml", content)
    named = f"GRID={grid.relative_to(elsewhere)}"
    return lambda command: make(elsewhere, command, named, "CORES=1", GENCE_RUNS=str(out)), RunParameters.of(
        **content["fixed"], out=str(out)
    )


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:400])


def check_that_it_was_mended(path: Path) -> None:
    assert json.loads(path.read_text())["seed"] == 1
    assert len(path.with_name("seed0001.json.damaged").read_bytes()) == 400
    assert "training again" in path.with_name("train-0-1.log").read_text()


@pytest.mark.thorough
def test_a_sweep_runs_and_mends_in_a_folder_with_a_space_and_an_umlaut(elsewhere, sweep_elsewhere):
    made, run = sweep_elsewhere
    runs.write_atomically(run.record_path(1), whole_record(run.identity, 1))
    damage(run.record_path(1))
    done = made("sweep")
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout + done.stderr
    assert f"2 of 2 records are in {run.out}/<run>/" in said
    assert "make collect GRID='workflow/grids/mein gitter ä.yaml'" in said
    assert sorted(Path(run.out).glob("*/seed*.json")) == [run.record_path(0), run.record_path(1)]
    check_that_it_was_mended(run.record_path(1))
    notebook = run.folder / "train-0-1.ipynb"
    assert not list(run.folder.glob("*.done"))
    executed = json.loads(notebook.read_text())["metadata"]["papermill"]
    assert all(elsewhere in Path(cell["path"]).parents for cell in [executed] if "path" in cell)


@pytest.mark.thorough
def test_a_sweep_there_says_what_is_left_and_mends_what_it_made_itself(sweep_elsewhere):
    made, run = sweep_elsewhere
    assert made("sweep").returncode == 0
    again = made("sweep")
    assert "Nothing to be done" in again.stdout + again.stderr, again.stderr[-3000:]
    assert "make plot" in again.stderr
    damage(run.record_path(1))
    plan = made("plan")
    assert plan.returncode == 0 and "train        1" in plan.stdout + plan.stderr, plan.stderr[-3000:]
    mended = made("sweep")
    assert mended.returncode == 0, mended.stderr[-3000:]
    check_that_it_was_mended(run.record_path(1))


def test_the_book_is_planned_in_a_folder_with_a_space_and_an_umlaut(elsewhere):
    arguments = ("-s", "workflow/Snakefile", "--cores", "1", "--nolock", "-n", "-p", "_build/committed/html/index.html")
    command = [str(elsewhere / ".venv" / "bin" / "python"), "-m", "snakemake", *arguments]
    options = {
        "cwd": elsewhere,
        "env": os.environ | {"PYTHONPATH": str(elsewhere)},
        "capture_output": True,
        "text": True,
    }
    done = subprocess.run(command, check=False, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    shown = done.stdout + done.stderr
    program = shlex.quote(str(elsewhere / ".venv" / "bin" / "python"))
    assert f"{program} workflow/notebook_tools.py stage _build/committed/source" in shown
    book = shlex.quote(str(elsewhere / ".venv" / "bin" / "jupyter-book"))
    assert f"{program} {book} build" in shown


@pytest.mark.parametrize("target", ["plan", "cost", "status", "collect", "plot"])
def test_a_command_that_only_looks_installs_nothing(target, tmp_path):
    folder = tmp_path / "fresh clöne"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    before = sorted(folder.rglob("*"))
    done = make(folder, target, "GRID=workflow/grids/smoke.yaml")
    assert done.returncode != 0 and "run `make setup` first" in done.stderr
    assert make(folder, "help").returncode == 0
    assert sorted(folder.rglob("*")) == before


# --- the page about running ------------------------------------------------------------------------------------

PAGE = ROOT / "book" / "running.md"


def commands_of_the_page() -> list[str]:
    inside, found = False, []
    for line in PAGE.read_text().replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            inside = line == "```bash"
        elif inside and line.strip():
            found.append(line.split("  #")[0].strip())
    return found


def test_the_page_about_running_names_what_exists():
    commands = commands_of_the_page()
    assert len(commands) > 8
    for command in commands:
        for word in shlex.split(command):
            path = word.split("=")[-1].split(":")[0]
            if path.startswith(("workflow/", "notebooks/")):
                assert (ROOT / path).exists(), f"{path} in: {command}"


@pytest.mark.parametrize("command", [c for c in commands_of_the_page() if c.startswith("make ")])
def test_make_knows_the_commands_of_the_page(command):
    done = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sweep" in done.stdout or "evidence" in done.stdout
