"""A training that is killed anywhere and goes on gives what it would have given without the break, to the last bit."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_images import digit_images, small_cnn
from torch import Tensor, nn
from training_worker import RECIPE, train_slowly

from gence.lab import training
from gence.lab.training import Outcome, Recipe, _steps, checkpoints, load_network, load_outcome, train
from gence.losses import make_loss

# 50 images: 4 steps in an epoch, 48 in all; more than one check, and batches of two sizes.
SHORT = Recipe(
    batch_size=16, epochs=12, schedule="onecycle", warmup=0.2, nesterov=True, augment="crop+flip", clip_norm=5.0
)
STEPS = SHORT.steps(50)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk protects from a power cut, which no test can make; it would take most of the time."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


class Killed(BaseException):
    """Stands for a kill inside this process."""


class StopsAt:
    """Lets a training take some steps, and then stops it between the forward and the backward pass of the next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
        self.left = steps
        self.really = _steps.Single.losses

        def losses(nets: _steps.Single, batch: training.Drawn) -> tuple[Tensor, Tensor]:
            self.left -= 1
            if self.left < 0:
                raise Killed
            return self.really(nets, batch)

        monkeypatch.setattr(_steps.Single, "losses", losses)


def run(
    path: Path | None, loss: nn.Module | None = None, recipe: Recipe = SHORT, every: int | None = 1, **changed
) -> Outcome:
    setting = {"model": small_cnn(dropout=0.3), "splits": digit_images(), "seed": 5} | changed
    loss = make_loss("gence") if loss is None else loss
    return train(**setting, loss=loss, recipe=recipe, checkpoint=path, every=every, progress=False)


def assert_bit_equal(actual: Outcome, expected: Outcome) -> None:
    for checkpoint, by_split in expected.logits.items():
        for split, logits in by_split.items():
            assert np.array_equal(actual.logits[checkpoint][split], logits), (checkpoint, split)
    assert actual.history == expected.history
    assert (actual.best_epoch, actual.train_error) == (expected.best_epoch, expected.train_error)


def assert_same_weights(path: Path, other: Path) -> None:
    for which in ("last", "best"):
        a, b = (load_network(p, small_cnn(dropout=0.3), which).state_dict() for p in (path, other))
        assert all(torch.equal(a[name], b[name]) for name in a), which


# --- going on -----------------------------------------------------------------------------------------------------

LOSSES: dict[str, Callable[[], nn.Module]] = {
    "gence": lambda: make_loss("gence"),
    "adafocal": lambda: make_loss("adafocal", rate=3.0),
    "flsc": lambda: make_loss("flsc", gammas=(5, 1), milestones=(6,)),
    "min_ent": lambda: make_loss("min_ent"),
}


@pytest.mark.parametrize(
    ("name", "every"), [("gence", 3), ("gence", None), ("adafocal", 1), ("flsc", 1), ("min_ent", 3)]
)
def test_a_training_that_is_stopped_again_and_again_ends_bit_equal(
    name: str, every: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped in the first step, inside epochs and at their ends."""
    make = LOSSES[name]
    whole = run(tmp_path / "whole.pt", make(), every=None)
    path, taken = tmp_path / "run.pt", 0
    for steps in (0, 1, 7, 4, 6):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            StopsAt(patch, steps)
            run(path, make(), every=every)
        taken += steps
    assert taken < STEPS
    assert_bit_equal(run(path, make(), every=every), whole)
    assert_same_weights(path, tmp_path / "whole.pt")


def test_it_goes_on_from_the_last_checkpoint_and_not_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        StopsAt(patch, 10)
        run(tmp_path / "run.pt", every=4)
    counter = StopsAt(monkeypatch, 1000)
    run(tmp_path / "run.pt", every=4)
    assert 1000 - counter.left == STEPS - 8


def test_the_best_checkpoint_survives_the_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong labels are memorised in the end, so that the best checkpoint lies before the break."""
    images = digit_images()
    noisy = dataclasses.replace(images, y_train=np.roll(images.y_train, 2))
    recipe, path = Recipe(batch_size=16, epochs=30), tmp_path / "run.pt"
    whole = run(tmp_path / "whole.pt", make_loss("ce"), recipe, None, splits=noisy)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        StopsAt(patch, 4 * 29)
        run(path, make_loss("ce"), recipe, None, splits=noisy)
    assert whole.best_epoch < 29
    assert_bit_equal(run(path, make_loss("ce"), recipe, None, splits=noisy), whole)
    assert_same_weights(path, tmp_path / "whole.pt")


def test_a_finished_training_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path / "run.pt")
    assert_bit_equal(run(None), first)  # nor does a checkpoint change anything
    StopsAt(monkeypatch, 0)
    assert_bit_equal(run(tmp_path / "run.pt"), first)


@pytest.mark.parametrize(("every", "writes"), [(None, 12), (1, 48), (10, 5), (100, 1)])
def test_checkpoints_are_as_many_as_wanted(
    every: int | None, writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the training is always written."""
    seen = []
    really = checkpoints.save_checkpoint
    monkeypatch.setattr(checkpoints, "save_checkpoint", lambda *args: (seen.append(args[2]["done"]), really(*args)))
    run(tmp_path / "run.pt", every=every)
    assert len(seen) == writes
    assert seen[-1] == STEPS


def test_every_must_be_a_number_of_steps(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every must be a number of steps >= 1, or None for an epoch, but got 0"):
        run(tmp_path / "run.pt", every=0)


# --- what is refused ----------------------------------------------------------------------------------------------


def of_images(**changed: np.ndarray) -> Callable[[], dict]:
    return lambda: {"splits": dataclasses.replace(digit_images(), **changed)}


OTHERS: dict[str, tuple[Callable[[], dict], str]] = {
    "lr": (lambda: {"recipe": dataclasses.replace(SHORT, lr=0.05)}, r"lr is 0\.1 there and 0\.05 here"),
    "epochs": (lambda: {"recipe": dataclasses.replace(SHORT, epochs=13)}, "epochs is 12 there and 13 here"),
    "seed": (lambda: {"seed": 6}, "seed is 5 there and 6 here"),
    "loss": (lambda: {"loss": make_loss("ce")}, r"loss is generative_cross_entropy\(.*there and cross_entropy\("),
    "strength": (
        lambda: {"loss": make_loss("gence", strength=0.5)},
        r"loss is .*strength=1\.0.*there and.*strength=0\.5.*here",
    ),
    "weight": (lambda: {"loss": make_loss("gence", weight=torch.ones(10))}, "loss is .* there and .* here"),
    "weights of the model": (lambda: {"model": small_cnn(1, dropout=0.3)}, "model is .* there and .* here"),
    "dropout": (lambda: {"model": small_cnn(dropout=0.4)}, "model is .*p=0.3.* there and .*p=0.4.* here"),
    "images": (of_images(x_train=digit_images().x_train[::-1]), "data is [0-9a-f]+ there"),
    "labels": (of_images(y_val=digit_images().y_val[::-1].copy()), "data is [0-9a-f]+ there"),
    "mean": (of_images(mean=(0.31,)), "data is [0-9a-f]+ there"),
}


@pytest.mark.parametrize(("other", "message"), OTHERS.values(), ids=OTHERS)
def test_the_checkpoint_of_another_training_is_refused(
    other: Callable[[], dict], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.pt"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        StopsAt(patch, 5)
        run(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"belongs to another training: {message}.*another path.*delete the file"):
        run(path, **other())
    assert path.read_bytes() == before


def test_the_message_says_only_what_differs(tmp_path: Path) -> None:
    run(tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"another training: seed is 5 there and 6 here\. Choose"):
        run(tmp_path / "run.pt", seed=6)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99, -1])
def test_a_damaged_checkpoint_is_refused_with_the_fix(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    whole = run(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=r"run\.pt is damaged or no checkpoint .*Delete it, and the training begins"):
        run(path)
    path.unlink()
    assert_bit_equal(run(path), whole)


def test_a_checkpoint_with_wrong_bytes_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    run(path)
    content = bytearray(path.read_bytes())
    weights = torch.load(path, weights_only=True)["state"]["network"]["6.weight"].numpy().tobytes()
    at = bytes(content).index(weights)
    content[at : at + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        run(path)


def test_other_files_and_other_schemas_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    for content in ({"weights": torch.zeros(3)}, [1, 2]):
        torch.save(content, path)
        with pytest.raises(ValueError, match="damaged or no checkpoint"):
            run(path)
    torch.save({"schema": 0, "identity": {}, "state": {}}, path)
    with pytest.raises(ValueError, match=r"of schema 0, but this code reads 1\. Delete it"):
        run(path)


def test_nothing_but_data_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "called",)

    torch.save({"schema": 1, "identity": {}, "state": Evil()}, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        run(tmp_path / "run.pt")
    assert not (tmp_path / "called").exists()


# --- values that are not finite -----------------------------------------------------------------------------------


class BreaksOnce(nn.Module):
    """Cross-entropy; while the file is there, its value or its gradient is NaN from some call on."""

    def __init__(self, file: Path, call: int, gradient_only: bool) -> None:
        super().__init__()
        self._file, self._call, self._gradient_only, self._calls = file, call, gradient_only, 0

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        self._calls += 1
        value = F.cross_entropy(logits, labels)
        if self._calls != self._call or not self._file.exists():
            return value
        if self._gradient_only:
            value.register_hook(lambda gradient: gradient * math.nan)
            return value
        return value * math.nan


@pytest.mark.parametrize("gradient_only", [False, True])
@pytest.mark.parametrize("every", [1, 3, None])
def test_a_training_that_breaks_keeps_its_last_good_checkpoint(
    every: int | None, gradient_only: bool, tmp_path: Path
) -> None:
    broken, path = tmp_path / "broken", tmp_path / "run.pt"
    whole = run(None, BreaksOnce(broken, 10, gradient_only))
    broken.touch()
    with pytest.raises(FloatingPointError, match="epoch 3"):
        run(path, BreaksOnce(broken, 10, gradient_only), every=every)
    state = checkpoints.load_checkpoint(path)
    assert state["done"] == {1: 9, 3: 9, None: 8}[every]
    assert all(value.isfinite().all() for value in state["network"].values())
    broken.unlink()
    assert_bit_equal(run(path, BreaksOnce(broken, 10, gradient_only), every=every), whole)


# --- real kills ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_kills", [3, pytest.param(10, marks=pytest.mark.thorough)])
def test_kills_at_random_moments_change_nothing(n_kills: int, tmp_path: Path) -> None:
    """Each process is killed by the system while it computes or writes; the one after them ends bit-equal."""
    context = multiprocessing.get_context("forkserver")
    # What takes long is imported once, not in every process.
    context.set_forkserver_preload(["pytest", "sklearn.datasets", "torch._dynamo", "gence.lab.training"])
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = context.Process(target=train_slowly, args=(whole, 0.0, None))
    undisturbed.start()
    rng, path, found = random.Random(0), killed / "run.pt", []
    for _ in range(n_kills):
        before = path.stat().st_mtime_ns if path.exists() else 0
        process = context.Process(target=train_slowly, args=(killed, 0.002))
        process.start()
        end = time.monotonic() + 60
        while not path.exists() or path.stat().st_mtime_ns == before:  # it has begun to train
            assert process.is_alive(), "the training ended before it could be killed"
            assert time.monotonic() < end, "no checkpoint appeared in time"
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.06))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        found.append(checkpoints.load_checkpoint(path)["done"])
    assert found == sorted(found)
    assert n_kills <= found[-1] < RECIPE.steps(50)
    last = context.Process(target=train_slowly, args=(killed, 0.0))
    for process in (last, undisturbed):
        if process is last:
            process.start()
        process.join(60)
        assert process.exitcode == 0
    assert_bit_equal(load_outcome(killed / "outcome.npz"), load_outcome(whole / "outcome.npz"))
    assert_same_weights(path, whole / "run.pt")
    assert sorted(p.name for p in killed.iterdir()) == ["outcome.npz", "run.pt"], "no half-written file is left"


def test_a_kill_inside_the_write_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    """The process dies when its second checkpoint is written but not yet in place."""
    code = (
        "import os, signal, sys, training_worker as worker\n"
        "from pathlib import Path\n"
        "done = []\n"
        "def die(file):\n"
        "    done.append(file)\n"
        "    if len(done) == 2:\n"
        "        os.truncate(file, os.fstat(file).st_size // 2)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "worker.train_slowly(Path(sys.argv[1]), 0.0, 1, die)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert checkpoints.load_checkpoint(tmp_path / "run.pt")["done"] == 1
    assert (tmp_path / "run.pt.part").stat().st_size > 0
    with pytest.raises(ValueError, match="damaged"):
        checkpoints.load_checkpoint(tmp_path / "run.pt.part")
    train_slowly(tmp_path, 0.0)
    assert not (tmp_path / "run.pt.part").exists()
    assert load_outcome(tmp_path / "outcome.npz").history["epoch"] == list(range(1, 21))
