"""How many images a second the training loop takes, beside the same recipe written plainly.

    python benchmarks/training.py                                        a small network on one CPU thread, a minute
    python benchmarks/training.py --device cuda --model resnet50         on a GPU, into a record of its own
    python benchmarks/training.py --images 256 --rounds 3 --out quick.json

"Plainly" is what most training scripts do: a torchvision data set with random crop and flip of one image after the
other, a DataLoader, float32, F.cross_entropy. The loop of ``gence.lab.training`` gets the same images, batch size and
settings. All take turns: in every round each trains one epoch, in a new order, and is compared with the plain script
*of the same round*, so that a machine's drift cancels. The images are random numbers: they cost the same as real ones.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from losses import ROOT, at_least, check_target, cpu_model, no_garbage_collection, one_of, rounded, timed
from torch import nn
from tqdm import tqdm

from gence.lab import networks, runs
from gence.lab.data import Splits
from gence.lab.training import Recipe
from gence.lab.training._loop import Loop
from gence.lab.training._steps import Single
from gence.losses import make_loss

SCHEMA = 1
PLAIN = "plain script"
N_CLASSES, SIZE = 100, 32
MEAN, STD = (0.49, 0.48, 0.45), (0.2, 0.2, 0.2)
MODELS = networks.model_names()


@dataclass(frozen=True)
class Settings:
    """What to measure, and where.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        threads: of the CPU.
        model: of :data:`MODELS`.
        images: in an epoch.
        batch_size: samples in a batch.
        rounds: epochs of each.
        workers: processes of the plain script's DataLoader; 0 loads in the process that trains.
        precisions: of the loop; the plain script is float32.
        out: path of the record.
    """

    device: str
    threads: int
    model: str
    images: int
    batch_size: int
    rounds: int
    workers: int
    precisions: tuple[str, ...]
    out: Path


@dataclass
class Script:
    """One way to train: calling it trains one epoch."""

    name: str
    loss: str
    precision: str
    epoch: Callable[[], None]


def random_images(n: int) -> np.ndarray:
    """(n, 3, 32, 32) bytes."""
    return np.random.default_rng(0).integers(0, 256, (n, 3, SIZE, SIZE), dtype=np.uint8)


def make_network(name: str) -> nn.Module:
    """A network for 32 x 32 images in float32, the same in every call."""
    return networks.make_model(name, (3, SIZE, SIZE), N_CLASSES, 0, dtype=torch.float32)


def plain_script(settings: Settings, network: nn.Module, x: np.ndarray, y: np.ndarray) -> Script:
    """The training as most scripts have it.

    Args:
        settings: what to measure.
        network: left unchanged.
        x: (n, 3, H, W) bytes.
        y: (n,) labels.

    Returns:
        The script.
    """
    from PIL import Image
    from torchvision import transforms

    transform = transforms.Compose(
        [
            transforms.RandomCrop(SIZE, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    pictures = x.transpose(0, 2, 3, 1)

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(y)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            return transform(Image.fromarray(pictures[i])), int(y[i])

    loader = torch.utils.data.DataLoader(
        Pictures(),
        settings.batch_size,
        shuffle=True,
        num_workers=settings.workers,
        pin_memory=settings.device == "cuda",
        persistent_workers=settings.workers > 0,
    )
    network = copy.deepcopy(network).to(settings.device).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def epoch() -> None:
        for images, labels in loader:
            images, labels = (v.to(settings.device, non_blocking=True) for v in (images, labels))
            optimiser.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimiser.step()

    return Script(PLAIN, "F.cross_entropy", "float32", epoch)


def loop_script(
    settings: Settings, network: nn.Module, x: np.ndarray, y: np.ndarray, loss: str, precision: str
) -> Script:
    """The loop of ``gence.lab.training``, one epoch for each call; a check on so few validation images costs nothing.

    Args:
        settings: what to measure.
        network: left unchanged.
        x: (n, 3, H, W) bytes.
        y: (n,) labels.
        loss: a name of ``gence.losses``.
        precision: as in a recipe.

    Returns:
        The script.
    """
    names = tuple(f"class {k}" for k in range(N_CLASSES))
    held_out = (x[:8], y[:8])
    splits = Splits(x, y, *held_out, *held_out, names, MEAN, STD)
    recipe = Recipe(settings.batch_size, epochs=10_000, milestones=(), augment="crop+flip", precision=precision)
    loop = Loop(Single(network, splits, make_loss(loss), recipe, torch.device(settings.device)), recipe, [0])

    def epoch() -> None:
        for _ in range(loop.steps_per_epoch):
            loop.advance()

    return Script("gence.lab.training", loss, precision, epoch)


def time_in_turns(scripts: Sequence[Script], settings: Settings, *, progress: bool = True) -> np.ndarray:
    """Train one epoch of each in every round; a first round is dropped.

    Args:
        scripts: what to time.
        settings: device and number of rounds.
        progress: show a bar.

    Returns:
        (rounds, scripts) seconds of an epoch.
    """
    times = np.empty((settings.rounds, len(scripts)))
    with no_garbage_collection():
        for i, order in enumerate(tqdm(list(orders(len(scripts), settings.rounds + 1)), disable=not progress)):
            for j in order:
                taken = timed(scripts[j].epoch, 1, settings.device)
                if i > 0:
                    times[i - 1, j] = taken
    return times


def orders(n: int, rounds: int) -> Iterator[list[int]]:
    """The order of each round, shuffled.

    Example:
        >>> [sorted(order) for order in orders(3, 2)]
        [[0, 1, 2], [0, 1, 2]]
    """
    for i in range(rounds):
        yield random.Random(i).sample(range(n), n)


def row_of(script: Script, times: np.ndarray, baseline: np.ndarray, images: int) -> dict[str, Any]:
    """What the record says about a script: medians over the rounds, and quartiles.

    Args:
        script: what was timed.
        times: (rounds,) seconds of an epoch.
        baseline: (rounds,) seconds of the plain script.
        images: in an epoch.

    Returns:
        The row; ``speedup`` is against the plain script of the same round.

    Example:
        >>> script = Script("gence.lab.training", "ce", "float32", lambda: None)
        >>> row = row_of(script, np.array([1.0, 2.0]), np.array([3.0, 6.0]), images=100)
        >>> row["images_per_s"], row["speedup"]
        (75.0, 3.0)
    """
    speed = np.quantile(images / times, [0.5, 0.25, 0.75])
    speedup = np.quantile(baseline / times, [0.5, 0.25, 0.75])
    names = [f"{what}{end}" for what in ("images_per_s", "speedup") for end in ("", "_q1", "_q3")]
    return {
        "script": script.name,
        "loss": script.loss,
        "precision": script.precision,
        **dict(zip(names, map(rounded, (*speed, *speedup)), strict=True)),
        "n_rounds": len(times),
    }


def measure(settings: Settings, *, progress: bool = True) -> dict[str, Any]:
    """Measure everything.

    Args:
        settings: what to measure.
        progress: show a bar.

    Returns:
        The record: ``schema``, ``provenance``, ``settings``, ``machine``, ``rows``.
    """
    start = time.perf_counter()
    torch.set_num_threads(settings.threads)
    origin = runs.provenance(settings.device)
    network = make_network(settings.model)
    x = random_images(settings.images)
    y = np.random.default_rng(1).integers(0, N_CLASSES, settings.images)
    scripts = [plain_script(settings, network, x, y)]
    scripts += [
        loop_script(settings, network, x, y, loss, precision)
        for precision in settings.precisions
        for loss in ("ce", "gence")
    ]
    times = time_in_turns(scripts, settings, progress=progress)
    return {
        "schema": SCHEMA,
        "provenance": origin | {"duration_s": round(time.perf_counter() - start)},
        "settings": {name: value for name, value in asdict(settings).items() if name != "out"},
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count()},
        "rows": [row_of(s, times[:, j], times[:, 0], settings.images) for j, s in enumerate(scripts)],
    }


def settings_of(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line.

    Args:
        arguments: None takes those of the process.

    Returns:
        The settings.

    Raises:
        SystemExit: a wrong argument (the message names the fix), or a GPU that is not there.

    Example:
        >>> settings_of(["--images", "64"]).out.name
        'throughput-cpu-small_cnn.json'
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--threads", type=at_least(1), default=1, help="of the CPU (default: 1)")
    add("--model", type=one_of(MODELS, "model"), default="small_cnn", help=f"of {', '.join(MODELS)}")
    add("--images", type=at_least(2), help="in an epoch (default: 1280, on a GPU 25600)")
    add("--batch-size", type=at_least(2), default=128, help="default: 128")
    add("--rounds", type=at_least(1), default=7, help="epochs of each script (default: 7)")
    add("--workers", type=at_least(0), help="of the plain script (default: 0, on a GPU 4)")
    add("--out", type=Path, help="the record (default: results/benchmarks/throughput-DEVICE-MODEL.json)")
    given = parser.parse_args(arguments)
    gpu = given.device == "cuda"
    if gpu and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU on this machine")
    if len(given.model) > 1:
        parser.error(f"--model: one network for each record, but got {', '.join(given.model)}")
    return Settings(
        device=given.device,
        threads=given.threads,
        model=given.model[0],
        images=given.images or (25_600 if gpu else 1280),
        batch_size=given.batch_size,
        rounds=given.rounds,
        workers=(4 if gpu else 0) if given.workers is None else given.workers,
        precisions=("float32", "bfloat16") if gpu else ("float32",),
        out=given.out or ROOT / "results" / "benchmarks" / f"throughput-{given.device}-{given.model[0]}.json",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the record."""
    settings = settings_of(arguments)
    check_target(settings.out, settings.device)
    record = measure(settings)
    runs.write_atomically(settings.out, json.dumps(record, indent=1) + "\n")
    for row in record["rows"]:
        print(f"{row['script']:15} {row['loss']:16} {row['precision']:9} {row['images_per_s']:9.0f} images/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
