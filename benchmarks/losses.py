"""What every loss costs beside ``F.cross_entropy``: time of forward and backward, and memory.

    python benchmarks/losses.py                     all losses and sizes on one CPU thread, about 20 minutes
    python benchmarks/losses.py --device cuda       the same on a GPU, into a record of its own
    python benchmarks/losses.py --sizes 128x10 --losses gence,focal --mode eager --repeats 10 --out quick.json

The losses take turns: in every round each is timed once, in a new order, and is divided by F.cross_entropy *of the same
round*. A machine drifts while minutes pass (clock rate, heat, other programs); what slows a whole round cancels in such
a ratio. Reported are medians over the rounds. The page ``notebooks/engine/speed.ipynb`` shows the record.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import json
import logging
import math
import os
import platform
import random
import shutil
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from gence.lab import runs
from gence.losses import REGISTRY, loss_names, make_loss
from gence.words import nearest

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = 1
BASELINE = "F.cross_entropy"
# Made for an argument, not for training: they cost what GenCE or cross-entropy does, and a few operations more.
NOT_MEASURED = ("gence_logit_adjustment", "gence_tracked", "present_class")
NAMES = (BASELINE, *(name for name in loss_names() if name not in NOT_MEASURED))
MODES = ("eager", "compiled")
DEFAULT_SIZES = "128x10,128x100,1024x1000,512x10000,2048x32000"
DTYPE = torch.float32

MIN_ROUNDS = 5  # below this a median means little, whatever the time budget says
MIN_TICK = 0.02  # seconds: fast losses are repeated inside one timing until it lasts that long
MMAP_LIMIT = 2**25  # bytes: larger buffers come fresh from the system in every call, whatever ran before
CNN_BATCH, CNN_CLASSES = 128, 100

# What GenCE has to keep, as data: the page computes the verdicts from them. `device` and `threads` say where a limit
# applies. Quantities: `ratio` and `extra_us` (microseconds) of time, `extra_buffers` of N x K numbers at the peak of
# memory, each against eager F.cross_entropy.
REQUIREMENTS: tuple[dict[str, Any], ...] = tuple(
    dict(zip(("device", "threads", "mode", "n", "k", "quantity", "limit"), values, strict=True))
    for values in (
        ("cpu", 1, "eager", 128, 10, "extra_us", 150),
        ("cpu", 1, "eager", 1024, 1000, "ratio", 1.3),
        ("cpu", 1, "eager", 2048, 32000, "ratio", 1.15),
        ("cpu", 1, "eager", 1024, 1000, "extra_buffers", 1),
        ("cpu", 1, "eager", 2048, 32000, "extra_buffers", 1),
        ("cpu", 1, "cnn", CNN_BATCH, CNN_CLASSES, "ratio", 1.02),
        ("cuda", None, "compiled", 1024, 1000, "ratio", 1.0),
        ("cuda", None, "compiled", 2048, 32000, "ratio", 1.0),
    )
)


@dataclass(frozen=True)
class Settings:
    """What to measure, and where.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        threads: of the CPU.
        sizes: (N, K) pairs, measured from small to large.
        losses: names of :data:`NAMES`; the baseline is always among them.
        modes: of :data:`MODES`.
        repeats: rounds for each size.
        seconds: time after which no new round of a size begins (but at least :data:`MIN_ROUNDS` are run).
        cnn_repeats: rounds of the training step; 0 leaves it out.
        out: path of the record.
    """

    device: str
    threads: int
    sizes: tuple[tuple[int, int], ...]
    losses: tuple[str, ...]
    modes: tuple[str, ...]
    repeats: int
    seconds: float
    cnn_repeats: int
    out: Path


@dataclass
class Step:
    """One loss at one size: `value` computes the loss, calling the step adds the gradient of `inputs`.

    `note` says why a step was not run, and is None where it was. `compile_s` is the first call; it is short where the
    compiler finds its work of an earlier run in its cache (an empty TORCHINDUCTOR_CACHE_DIR makes it work afresh).
    """

    loss: str
    mode: str
    value: Callable[[], Tensor]
    inputs: list[Tensor]
    compile_s: float | None = None
    graph_breaks: int | None = None
    note: str | None = None

    def __call__(self) -> tuple[Tensor, ...]:
        """Run forward and backward; the gradients are returned, so that no accumulation is timed."""
        return torch.autograd.grad(self.value(), self.inputs)

    @property
    def is_baseline(self) -> bool:
        """Whether everything is divided by this step."""
        return (self.loss, self.mode) == (BASELINE, "eager")


# --- The floor ----------------------------------------------------------------------------------------------------


def traffic_floor_bytes(n: int, k: int, itemsize: int = 4) -> int:
    """Bytes that forward plus backward of any softmax loss must move through memory: three times N x K numbers.

    The forward pass has to read every logit. The backward pass can begin only when the forward pass has returned, and
    no gradient is known before a whole row is: so it has to read the N x K numbers again (the logits, or a buffer made
    of them), and to write N x K gradients. What has N or K numbers only is left out. Fewer bytes are possible only
    where the batch stays in the processor's cache between the passes.

    Args:
        n: samples.
        k: classes.
        itemsize: bytes of one number.

    Returns:
        The number of bytes.

    Example:
        >>> traffic_floor_bytes(128, 10)
        15360
    """
    return 3 * n * k * itemsize


def copy_bandwidth(device: str, n_bytes: int = 2**28, rounds: int = 10) -> float:
    """Bytes a second that a large copy moves (read plus written): the best of some rounds.

    The target exists already: a fresh clone would also pay for new pages of memory, which is no traffic.

    Args:
        device: where.
        n_bytes: of the tensor that is copied; far larger than any cache.
        rounds: tries.

    Returns:
        Bytes a second.

    Example:
        >>> copy_bandwidth("cpu", n_bytes=2**20, rounds=2) > 0
        True
    """
    source = torch.ones(n_bytes // 4, device=device)
    target = source.clone()
    best = min(timed(lambda: target.copy_(source), 5, device) for _ in range(rounds))
    return 2 * n_bytes / best


# --- Time ---------------------------------------------------------------------------------------------------------


def timed(call: Callable[[], Any], inner: int, device: str) -> float:
    """Seconds of one call, as the mean of `inner` calls in a row; a GPU is waited for before and after.

    Where calls are repeated, one more goes before them untimed. The loss that ran before has left the heap as *it*
    needs it, and getting pages back from the system can take longer than the loss: each loss shall find its own state.
    """
    if inner > 1:
        call()
    synchronise(device)
    start = time.perf_counter()
    for _ in range(inner):
        call()
    synchronise(device)
    return (time.perf_counter() - start) / inner


def keep_heap() -> None:
    """Make the C library keep freed memory up to :data:`MMAP_LIMIT` for the next call, as in a process that trains.

    glibc begins by handing freed buffers of some megabytes back to the system, and asks for them anew in the next call.
    That takes longer than a loss of this size, and which loss has to pay depends on what lies beside its buffers. The
    first large buffer that a process frees, as every training step does, raises that limit for good.
    """
    torch.ones(MMAP_LIMIT - 2**16, dtype=torch.uint8)


def synchronise(device: str) -> None:
    """Wait for a GPU; the CPU is always done."""
    if device == "cuda":
        torch.cuda.synchronize()


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python's collector from running inside a timing."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def order_of_round(steps: Sequence[Step], round_number: int) -> list[int]:
    """The order of one round: shuffled, with GenCE and the baseline next to each other.

    A round of the largest size lasts long enough for a machine to drift inside it. The two steps that the requirements
    compare are therefore kept together, in random order; all others lie around them.
    """
    shuffle = random.Random(round_number)
    pair = [i for i, step in enumerate(steps) if step.is_baseline or (step.loss, step.mode) == ("gence", "eager")]
    others = [i for i in range(len(steps)) if i not in pair]
    shuffle.shuffle(pair)
    shuffle.shuffle(others)
    at = shuffle.randint(0, len(others))
    return others[:at] + pair + others[at:]


def time_in_turns(
    steps: Sequence[Step], *, device: str, repeats: int, seconds: float, inner: int, label: str, progress: bool = True
) -> np.ndarray:
    """Time all steps in rounds; a first round is dropped.

    Args:
        steps: what to time.
        device: where they run.
        repeats: rounds.
        seconds: no round begins later than this, once :data:`MIN_ROUNDS` are done.
        inner: calls in one timing.
        label: of the progress bar.
        progress: show it.

    Returns:
        (rounds, steps) seconds of one call.
    """
    rounds: list[list[float]] = []
    begin = time.perf_counter()
    with no_garbage_collection(), tqdm(total=repeats, desc=label, unit="round", disable=not progress) as bar:
        while len(rounds) <= repeats:  # one more than asked for: the first is a warm-up
            if len(rounds) > min(MIN_ROUNDS, repeats) and time.perf_counter() - begin > seconds:
                break
            taken = [math.nan] * len(steps)
            for i in order_of_round(steps, len(rounds)):
                taken[i] = timed(steps[i], inner, device)
            rounds.append(taken)
            bar.update(len(rounds) > 1)
    return np.array(rounds[1:])


def summarise(times: np.ndarray, baseline: np.ndarray) -> dict[str, float]:
    """Medians and interquartile ranges of a step's rounds, and of its ratio to the baseline in the same round.

    Args:
        times: (rounds,) seconds.
        baseline: (rounds,) seconds of F.cross_entropy.

    Returns:
        ``median_ms``, ``iqr_ms``, ``ratio``, ``ratio_q1``, ``ratio_q3``, ``extra_us``, ``n_rounds``.

    Example:
        >>> summary = summarise(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))
        >>> summary["ratio"], summary["extra_us"], summary["n_rounds"]
        (2.0, 2000000.0, 3)
    """
    low, high = np.quantile(times, [0.25, 0.75])
    ratio_q1, ratio, ratio_q3 = np.quantile(times / baseline, [0.25, 0.5, 0.75])
    summary = {
        "median_ms": 1e3 * np.median(times),
        "iqr_ms": 1e3 * (high - low),
        "ratio": ratio,
        "ratio_q1": ratio_q1,
        "ratio_q3": ratio_q3,
        "extra_us": 1e6 * np.median(times - baseline),
    }
    return {name: rounded(value) for name, value in summary.items()} | {"n_rounds": len(times)}


def rounded(value: float, digits: int = 5) -> float:
    """Significant digits only: a record is read by people, too."""
    return float(f"{value:.{digits}g}")


# --- Memory -------------------------------------------------------------------------------------------------------


def peak_bytes(call: Callable[[], Any], device: str) -> int:
    """The most bytes that are allocated at once during a call, above what was allocated before it.

    On a GPU the allocator counts them. On the CPU the profiler notes every allocation and release of torch's allocator
    with its size, and the running sum has an exact maximum that does not depend on timing. Scratch memory that a
    library takes from the system directly is not in it.

    Args:
        call: what to run; its result counts until it is released.
        device: where it runs.

    Returns:
        Bytes.

    Example:
        >>> x = torch.zeros(1000)
        >>> peak_bytes(lambda: x.clone(), "cpu")
        4000
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own log lines would tear the progress bars
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())  # stable, so equal times keep their order
    return int(np.cumsum([0, *(event.nbytes() for event in events)]).max())


def saved_bytes(step: Step) -> int:
    """Bytes that the forward pass keeps for the backward pass, beyond the inputs, which are there anyway.

    Args:
        step: only its forward pass is run.

    Returns:
        Bytes of the different storages that autograd packs away.
    """
    kept: dict[int, Any] = {}  # holding the storages keeps their addresses apart

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step.value()
    inputs = {tensor.untyped_storage().data_ptr() for tensor in step.inputs}
    return sum(storage.nbytes() for address, storage in kept.items() if address not in inputs)


# --- The losses ---------------------------------------------------------------------------------------------------


def make_criterion(name: str, k: int, device: str) -> tuple[Callable[[Tensor, Tensor], Tensor], list[Tensor]]:
    """The loss as a user calls it, and its learnable parameters, whose gradients belong to the cost.

    Class counts, where a loss wants them, are equal.
    """
    if name == BASELINE:
        return F.cross_entropy, []
    options = {"class_counts": torch.full((k,), 100.0)} if "class_counts" in REGISTRY[name].options else {}
    module = make_loss(name, **options).to(device)
    return module, list(module.parameters())


def make_step(name: str, mode: str, z: Tensor, y: Tensor) -> Step:
    """Prepare one loss and call it once, which compiles it if `mode` says so; a failure becomes the step's note.

    Args:
        name: of :data:`NAMES`.
        mode: of :data:`MODES`.
        z: logits.
        y: labels.

    Returns:
        The step.
    """
    loss, parameters = make_criterion(name, z.shape[1], z.device.type)
    call = compiled(loss, name) if mode == "compiled" else loss
    step = Step(name, mode, lambda: call(z, y), [z, *parameters])
    if mode == "compiled" and z.device.type == "cpu" and not has_compiler():
        step.note = "not run: no compiler"
        return step
    breaks = torch._dynamo.utils.counters["graph_break"]
    breaks.clear()
    try:
        seconds = timed(step, 1, z.device.type)
    except Exception as error:  # a compiler or a lack of memory may fail in any way, and the record should say how
        if step.is_baseline:
            raise
        lines = str(error).strip().splitlines() or [""]
        step.note = f"failed: {type(error).__name__}: {lines[0][:200]}"
    else:
        if mode == "compiled":
            step.compile_s, step.graph_breaks = round(seconds, 2), sum(breaks.values())
    return step


def compiled(loss: Callable[[Tensor, Tensor], Tensor], name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss through torch.compile, for inputs of one shape."""

    def value(z: Tensor, y: Tensor) -> Tensor:
        return loss(z, y)

    # Compiled code is looked up by code object: with one for all losses, each call would search among all of them.
    code = value.__code__.replace(co_name=f"loss_{name.replace('.', '_')}")
    own = types.FunctionType(code, value.__globals__, closure=value.__closure__)
    return torch.compile(own, fullgraph=False, dynamic=False)


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on a CPU."""
    return any(map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++"))))


def batch(n: int, k: int, device: str) -> tuple[Tensor, Tensor]:
    """Logits of a network that has learned something, and labels; the same on every machine."""
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(k, (n,), generator=rng)
    z = torch.randn(n, k, generator=rng, dtype=DTYPE)
    z[torch.arange(n), y] += 3.0
    return z.to(device).requires_grad_(), y.to(device)


def measure_size(n: int, k: int, settings: Settings, *, progress: bool = True) -> list[dict[str, Any]]:
    """Measure all losses at one size.

    Args:
        n: samples.
        k: classes.
        settings: what to measure.
        progress: show bars.

    Returns:
        One row for each loss and mode.
    """
    torch._dynamo.reset()
    keep_heap()
    z, y = batch(n, k, settings.device)
    wanted = [(name, mode) for mode in settings.modes for name in settings.losses]
    if (BASELINE, "eager") not in wanted:
        wanted.insert(0, (BASELINE, "eager"))
    bar = tqdm(wanted, desc=f"{n}x{k}, preparing", unit="loss", disable=not progress)
    steps = [make_step(name, mode, z, y) for name, mode in bar]
    rows = [row_of(step, z, settings.device) for step in steps]

    running = [step for step in steps if step.note is None]
    (baseline,) = [step for step in running if step.is_baseline]
    fastest = min(timed(baseline, 1, settings.device) for _ in range(5))
    inner = max(1 if z.nbytes > MMAP_LIMIT else 2, math.ceil(MIN_TICK / fastest))
    times = time_in_turns(
        running,
        device=settings.device,
        repeats=settings.repeats,
        seconds=settings.seconds,
        inner=inner,
        label=f"{n}x{k}",
        progress=progress,
    )
    of_baseline = times[:, running.index(baseline)]
    for i, step in enumerate(running):
        rows[steps.index(step)] |= summarise(times[:, i], of_baseline) | {"calls_per_round": inner}
    return rows


def row_of(step: Step, z: Tensor, device: str) -> dict[str, Any]:
    """The part of a row that is not time."""
    row: dict[str, Any] = {
        "loss": step.loss,
        "mode": step.mode,
        "n": z.shape[0],
        "k": z.shape[1],
        "dtype": str(DTYPE).removeprefix("torch."),
        "note": step.note,
    }
    if step.mode == "compiled":
        row |= {"compile_s": step.compile_s, "graph_breaks": step.graph_breaks}
    if step.note is not None:
        return row
    peak, buffer = peak_bytes(step, device), z.numel() * z.element_size()
    row |= {"peak_bytes": peak, "peak_buffers": rounded(peak / buffer)}
    if step.mode == "eager":  # compiled code decides by itself what to keep, and hooks would compile it anew
        saved = saved_bytes(step)
        row |= {"saved_bytes": saved, "saved_buffers": rounded(saved / buffer)}
    return row


# --- A training step ----------------------------------------------------------------------------------------------


def small_cnn(n_classes: int) -> nn.Module:
    """A small convolutional network for 32 x 32 images: what surrounds a loss in practice."""

    def block(n_in: int, n_out: int) -> list[nn.Module]:
        return [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(), nn.MaxPool2d(2)]

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, n_classes)]
    return nn.Sequential(*block(3, 32), *block(32, 64), *block(64, 128), *head)


def training_step(loss: Callable[[Tensor, Tensor], Tensor], net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """One step of SGD with momentum on a fixed batch."""
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimiser.zero_grad()
        loss(net(x), y).backward()
        optimiser.step()

    return step


def measure_cnn(settings: Settings, *, size: int = 32, progress: bool = True) -> list[dict[str, Any]]:
    """Time a training step with GenCE and with F.cross_entropy, in turns.

    Args:
        settings: device and number of rounds.
        size: height and width of the images.
        progress: show a bar.

    Returns:
        One row for each of both; ``ratio`` has a 95 % bootstrap interval ``ratio_low``, ``ratio_high``.
    """
    if settings.cnn_repeats == 0:
        return []
    torch.manual_seed(0)
    x = torch.randn(CNN_BATCH, 3, size, size).to(settings.device)
    y = torch.randint(CNN_CLASSES, (CNN_BATCH,)).to(settings.device)
    net = small_cnn(CNN_CLASSES).to(settings.device)
    names = (BASELINE, "gence")
    calls = [
        training_step(make_criterion(name, CNN_CLASSES, settings.device)[0], copy.deepcopy(net), x, y) for name in names
    ]
    times = np.empty((settings.cnn_repeats, 2))
    with no_garbage_collection():
        for i in tqdm(range(-2, settings.cnn_repeats), desc="training step", unit="round", disable=not progress):
            for j in (0, 1) if i % 2 else (1, 0):
                taken = timed(calls[j], 1, settings.device)
                if i >= 0:
                    times[i, j] = taken
    rows = []
    for j, name in enumerate(names):
        low, high = bootstrap_median(times[:, j] / times[:, 0])
        rows.append(
            {"loss": name, "mode": "cnn", "n": CNN_BATCH, "k": CNN_CLASSES, "note": None}
            | summarise(times[:, j], times[:, 0])
            | {"ratio_low": rounded(low), "ratio_high": rounded(high)}
        )
    return rows


def bootstrap_median(values: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile interval of the median.

    Args:
        values: (rounds,) numbers.
        draws: resamples.

    Returns:
        Lower and upper end.

    Example:
        >>> [round(float(end), 1) for end in bootstrap_median(np.array([1.0, 1.0, 1.0]))]
        [1.0, 1.0]
    """
    resampled = np.random.default_rng(0).choice(values, (draws, len(values)))
    low, high = np.quantile(np.median(resampled, axis=1), [0.025, 0.975])
    return float(low), float(high)


# --- The record ---------------------------------------------------------------------------------------------------


def measure(settings: Settings, *, progress: bool = True) -> dict[str, Any]:
    """Measure everything.

    Args:
        settings: what to measure.
        progress: show bars.

    Returns:
        The record: ``schema``, ``provenance``, ``settings``, ``machine``, ``requirements``, ``rows``, ``cnn``.
    """
    start = time.perf_counter()
    torch.set_num_threads(settings.threads)
    origin = runs.provenance(settings.device)
    bandwidth = copy_bandwidth(settings.device)
    rows = []
    for n, k in sorted(settings.sizes, key=math.prod):
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):  # else it would silently run as Python
            found = measure_size(n, k, settings, progress=progress)
        floor = traffic_floor_bytes(n, k, DTYPE.itemsize)
        rows += [row | {"floor_ms": rounded(1e3 * floor / bandwidth)} for row in found]
        if settings.device == "cuda":
            torch.cuda.empty_cache()
    return {
        "schema": SCHEMA,
        "provenance": origin | {"duration_s": round(time.perf_counter() - start)},
        "settings": {name: value for name, value in asdict(settings).items() if name != "out"},
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "copy_gb_per_s": rounded(bandwidth / 1e9, 4)},
        "requirements": list(REQUIREMENTS),
        "rows": rows,
        "cnn": measure_cnn(settings, progress=progress),
    }


def cpu_model() -> str:
    """The processor's name, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def check_target(out: Path, device: str) -> None:
    """Refuse to write over the record of another kind of device, before anything is measured.

    Args:
        out: path of the record to be.
        device: that is going to be measured.

    Raises:
        SystemExit: there is such a record, or a file that is none.
    """
    if not out.exists():
        return
    try:
        there = json.loads(out.read_text(encoding="utf-8"))["settings"]["device"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise SystemExit(f"{out} exists and is no record of this benchmark: choose another --out") from None
    if there != device:
        raise SystemExit(f"{out} holds measurements on {there!r}, not {device!r}: choose another --out")


# --- The command line ---------------------------------------------------------------------------------------------


def sizes_of(text: str) -> tuple[tuple[int, int], ...]:
    """Read sizes such as ``"128x10,1024x1000"``.

    Args:
        text: NxK pairs, separated by commas.

    Returns:
        (N, K) pairs.

    Raises:
        argparse.ArgumentTypeError: text that is no such pair, or N or K too small.

    Example:
        >>> sizes_of("128x10,1024x1000")
        ((128, 10), (1024, 1000))
    """
    sizes = []
    for part in text.split(","):
        n, _, k = part.strip().partition("x")
        if not (n.isdecimal() and k.isdecimal() and int(n) >= 1 and int(k) >= 2):
            raise argparse.ArgumentTypeError(
                f"{part.strip()!r} is no size: write NxK with N >= 1 samples and K >= 2 classes, for example 128x10"
            )
        sizes.append((int(n), int(k)))
    return tuple(dict.fromkeys(sizes))


def one_of(known: Sequence[str], what: str) -> Callable[[str], tuple[str, ...]]:
    """A reader of comma-separated names, which names the nearest valid one for an unknown name."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
        for name in names:
            if name not in known:
                hint = nearest(name, known, say="; nearest valid: {!r}", otherwise="")
                raise argparse.ArgumentTypeError(f"unknown {what} {name!r}{hint}. Known: {', '.join(known)}")
        return names

    return read


def at_least(smallest: float, kind: type = int) -> Callable[[str], float]:
    """A reader of numbers with a lower limit."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = -math.inf
        if not value >= smallest:
            raise argparse.ArgumentTypeError(f"must be a number >= {smallest}, but is {text!r}")
        return value

    return read


def settings_of(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line.

    Args:
        arguments: None takes those of the process.

    Returns:
        The settings.

    Raises:
        SystemExit: a wrong argument (the message names the fix), or a GPU that is not there.

    Example:
        >>> settings_of(["--sizes", "128x10", "--losses", "gence"]).losses
        ('F.cross_entropy', 'gence')
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--threads", type=at_least(1), default=1, help="of the CPU (default: 1)")
    add("--sizes", type=sizes_of, default=DEFAULT_SIZES, help=f"NxK,... (default: {DEFAULT_SIZES})")
    add("--losses", type=one_of(NAMES, "loss"), default=",".join(NAMES), help="default: all")
    add("--mode", type=one_of(MODES, "mode"), default=",".join(MODES), help="default: eager,compiled")
    add("--repeats", type=at_least(1), default=50, help="rounds for each size (default: 50)")
    add("--seconds", type=at_least(0, float), default=240.0, help="time for the rounds of a size (default: 240)")
    add("--cnn-repeats", type=at_least(0), default=100, help="rounds of the training step (default: 100; 0: none)")
    add("--out", type=Path, help="the record (default: results/benchmarks/losses-DEVICE.json)")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU on this machine")
    return Settings(
        device=given.device,
        threads=given.threads,
        sizes=given.sizes,
        losses=tuple(dict.fromkeys((BASELINE, *given.losses))),
        modes=given.mode,
        repeats=given.repeats,
        seconds=given.seconds,
        cnn_repeats=given.cnn_repeats,
        out=given.out or ROOT / "results" / "benchmarks" / f"losses-{given.device}.json",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the record."""
    settings = settings_of(arguments)
    check_target(settings.out, settings.device)
    for name in ("torch._dynamo", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)  # graph breaks are counted in the rows, not printed
    record = measure(replace(settings, out=settings.out.resolve()))
    runs.write_atomically(settings.out, json.dumps(record, indent=1) + "\n")
    print(f"{len(record['rows'])} rows in {settings.out}, {record['provenance']['duration_s']} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
