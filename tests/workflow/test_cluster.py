"""Sweeps on a real Slurm, which the tests start on this machine: `make test-cluster`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import real_slurm
from processes import kill, processes_of
from sweeping import (
    ROOT,
    Watch,
    check_that_nothing_is_lost_or_done_twice,
    engine,
    run_engine,
    write_grid,
)

CPU, GPU = "workflow/profiles/slurm_cpu", "workflow/profiles/slurm"
# A file system on one machine needs no long wait, and small jobs no long pauses between two looks at them.
SOON = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5")
# Longer than any step of a sweep takes on a machine that is busy with other things.
PATIENCE = 600


@pytest.fixture(scope="module")
def slurm() -> Iterator[real_slurm.Slurm]:
    """A Slurm of this module; its folder has a short name, for there is a socket in it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    running = real_slurm.Slurm(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder)


@pytest.fixture
def grid(tmp_path) -> Path:
    """Four jobs."""
    fixed = {"tier": "smoke", "seeds": [0, 1], "n_per_class": 5, "out": str(tmp_path / "runs")}
    vary = {"loss": ["ce", "gence"], "batch_size": [16, 8]}
    return write_grid(tmp_path / "grid.yaml", {"fixed": fixed, "vary": vary})


def arguments_of(profile: str, grid: Path, *more: str) -> tuple[str, ...]:
    logs = str(grid.parent / "logs")
    return ("--profile", profile, *SOON, "--slurm-logdir", logs, *more, "sweep", "--config", f"grid={grid}")


class Sweep:
    """A sweep of the CPU profile, two jobs at a time, whose engine can be started again."""

    def __init__(self, slurm: real_slurm.Slurm, grid: Path) -> None:
        self.slurm, self.token, self.log = slurm, f"GENCE_CLUSTER_TEST={grid.parent}", grid.parent / "log"
        self.command = engine(*arguments_of(CPU, grid, "--jobs", "2"))
        self.start()

    def start(self) -> None:
        name, value = self.token.split("=", 1)
        with self.log.open("a") as log:
            environment = os.environ | {"PATH": self.slurm.path, name: value}
            self.engine = subprocess.Popen(self.command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def jobs(self) -> list[str]:
        """What runs in Slurm."""
        return self.slurm.run("squeue", "-h", "--states=running", "-o", "%i").split()

    def wait_for(self, condition: Callable[[], object], *, while_engine_runs: bool = True) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            ended = while_engine_runs and self.engine.poll() is not None
            assert time.monotonic() < end and not ended, self.log.read_text()[-3000:]
            time.sleep(0.1)

    def training(self) -> list[int]:
        """The notebooks that are executed now."""
        return [pid for pid in processes_of(self.token) if "ipykernel" in real_slurm.command_of(pid)]

    def finish(self) -> None:
        """Until the engine is done; what failed too often is left to the same command, given once more."""
        if self.engine.wait(timeout=PATIENCE):
            self.start()
            assert self.engine.wait(timeout=PATIENCE) == 0, self.log.read_text()[-3000:]

    def clean(self) -> None:
        self.slurm.run("scancel", "--signal=KILL", "--full", *self.jobs())
        kill(processes_of(self.token))


def kill_job(sweep: Sweep) -> None:
    first, *_ = sweep.jobs()
    sweep.slurm.run("scancel", "--signal=KILL", "--full", first)
    sweep.wait_for(lambda: first not in sweep.jobs())


def kill_slurmd(sweep: Sweep) -> None:
    """The daemon is away while the trainings of its jobs end."""
    orphans = sweep.training()
    sweep.slurm.kill_slurmd()
    sweep.wait_for(lambda: not set(orphans) & set(sweep.training()))
    sweep.slurm.start_slurmd()


def kill_engine(sweep: Sweep) -> None:
    """Its jobs go on beside those of the next engine, which trains the same runs."""
    kill([sweep.engine.pid])
    sweep.engine.wait()
    assert sweep.training(), "no job of the killed engine goes on"
    sweep.start()


KILLS = (kill_job, kill_slurmd, kill_engine)


@pytest.mark.cluster
@pytest.mark.parametrize("kill_one", KILLS, ids=lambda kill_one: kill_one.__name__)
def test_a_sweep_on_slurm_that_is_killed_loses_and_repeats_nothing(slurm, grid, tmp_path, kill_one):
    watch = Watch(tmp_path / "runs")
    watch.start()
    sweep = Sweep(slurm, grid)
    try:
        sweep.wait_for(sweep.training)
        kill_one(sweep)
        sweep.finish()
        # Orphans of a killed engine may still look at what is done by now.
        sweep.wait_for(lambda: not sweep.jobs(), while_engine_runs=False)
    finally:
        sweep.clean()
        watch.end()
    check_that_nothing_is_lost_or_done_twice(grid, watch, CPU, sweep.log)


@pytest.mark.cluster
def test_a_job_of_the_gpu_profile_gets_its_gpu(slurm, grid):
    """This Slurm has a GPU in name only, so that the training itself then fails and says so."""
    one = {"tier": "smoke", "n_per_class": 5, "out": str(grid.parent / "runs")}
    arguments = arguments_of(GPU, write_grid(grid, {"fixed": one}), "--retries", "0")
    done = run_engine(*arguments, PATH=slurm.path, CUDA_VISIBLE_DEVICES="")
    asked = slurm.run("squeue", "-h", "--states=all", "--partition=gpu", "-O", "state:20,tres-per-job:20,tres-alloc:60")
    assert asked.split() == ["FAILED", "gres:gpu:1", "cpu=4,mem=8000M,node=1,billing=4"], done.stderr[-3000:]
    (log,) = (grid.parent / "runs").glob("*/*.log")
    assert "torch sees no GPU on this machine" in log.read_text()


@pytest.mark.cluster
def test_a_gpu_job_on_a_partition_without_gpus_names_the_line_to_change(slurm, grid, tmp_path):
    profile = Path(shutil.copytree(ROOT / GPU, tmp_path / "profile"))
    settings = profile / "config.yaml"
    settings.write_text(settings.read_text().replace("slurm_partition: gpu ", "slurm_partition: bare "))
    done = run_engine(*arguments_of(str(profile), grid, "--retries", "0"), PATH=slurm.path)
    assert done.returncode == 1
    assert "no machine of the partition has all that a job asks for: sbatch -p bare --mem 8000" in done.stderr
    assert f" of {settings}:  slurm_partition: bare " in done.stderr
    assert "To train without: PROFILE=workflow/profiles/slurm_cpu" in done.stderr


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(real_slurm, "missing_programs", list)
    kept = tmp_path / "slurm.conf"
    kept.write_text("ClusterName=mine\n")
    with pytest.raises(real_slurm.SlurmError, match="holds other things: name a folder that is empty"):
        real_slurm.Slurm(tmp_path).start()
    assert kept.read_text() == "ClusterName=mine\n" and list(tmp_path.iterdir()) == [kept]


def test_programs_that_are_missing_are_named_with_the_command_that_installs_them(tmp_path, monkeypatch):
    monkeypatch.setattr(real_slurm, "SEARCHED", str(tmp_path))
    with pytest.raises(real_slurm.SlurmError, match=r"not installed: munged, slurmctld.* apt install slurm-wlm munge"):
        real_slurm.Slurm(tmp_path / "slurm").start()


@pytest.mark.cluster
def test_a_slurm_that_runs_is_not_started_again(slurm):
    with pytest.raises(real_slurm.SlurmError, match=r"munged, slurmctld, slurmd of .* run already: stop them first"):
        slurm.start()
