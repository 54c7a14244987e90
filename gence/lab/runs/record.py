"""Executing a run, writing its records, reading records."""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from gence import metrics
from gence.lab import data, networks, training
from gence.lab.records import DAMAGED, RECORD_SCHEMA, read_record
from gence.lab.runs._checks import own_content
from gence.lab.runs._messages import ParameterError
from gence.lab.runs.parameters import NOT_IDENTITY, RECIPE_SETTINGS, RunParameters
from gence.lab.runs.provenance import provenance, write_atomically

__all__ = ["Prepared", "execute", "prepare", "read_records"]


def execute(parameters: RunParameters, *, progress: bool = True) -> list[Path]:
    """Train all seeds of a run that have no whole record yet, and write one record for each.

    Small networks train together, larger ones one after the other, each from its checkpoint if it was interrupted. Two
    processes that execute the same run wait for each other, so no seed is trained twice. A record that is damaged is
    kept beside the new one, as ``seed0000.json.damaged``.

    Args:
        parameters: the run.
        progress: show a progress bar.

    Returns:
        The paths of all records of the run, in the order of the seeds.

    Raises:
        ParameterError: a GPU is asked for where there is none; data that were replaced meanwhile.
        FileNotFoundError: the data set, or a foreign one, is not in the data folder. Before any training.
        ValueError: data that are damaged. Before any training.
        FloatingPointError: the loss of a seed became NaN or infinite.
        OSError: the folder cannot be written.

    Example:
        >>> execute(RunParameters.of(tier="smoke", n_per_class=5, out=getfixture("tmpdir").strpath))[0].name
        'seed0000.json'
    """
    run = parameters.effective()
    if run.device.startswith("cuda") and not torch.cuda.is_available():
        raise ParameterError(f"device = {run.device!r} is not there: torch sees no GPU on this machine. Use 'cpu'.")
    run.folder.mkdir(parents=True, exist_ok=True)
    for together in [sorted(run.seeds)] if run.trains_together else [[seed] for seed in run.seeds]:
        with contextlib.ExitStack() as held:
            for seed in together:  # in order, so that nobody waits in a circle; the system frees the locks of the dead
                held.enter_context(FileLock(run.folder / f".seed{seed:04d}.lock"))
            missing = [seed for seed in together if not _has_record(run, seed)]
            if missing:
                _check_foreign_data(run)
                _train_and_record(run, missing, progress)
    return [run.record_path(seed) for seed in run.seeds]


class Prepared(NamedTuple):
    """What a run trains: splits and network of each seed, and the loss and the recipe that all seeds share."""

    splits: list[data.Splits]
    nets: list[torch.nn.Module]
    loss: torch.nn.Module
    recipe: training.Recipe


def prepare(run: RunParameters, seeds: Sequence[int]) -> Prepared:
    """Return what a run trains, before any step.

    Small networks on features are float64, so that runs agree to many digits; those on images are float32.

    Args:
        run: what is trained.
        seeds: of these.

    Raises:
        FileNotFoundError: the data set is not in the data folder.
        ValueError: data that are damaged.

    Example:
        >>> prepared = prepare(RunParameters.of(tier="smoke", n_per_class=5), [0, 1])
        >>> len(prepared.nets), len(prepared.splits[0].y_train)
        (2, 50)
    """
    regime = {name: getattr(run, name) for name in ("n_per_class", "rho", "fraction", "label_noise")}
    splits = [data.load_splits(run.dataset, seed, **regime) for seed in seeds]
    first = splits[0]
    size, dtype = (first.input_shape, len(first.class_names)), torch.float32 if first.is_image else torch.float64
    nets = [networks.make_model(run.model, *size, seed, dtype=dtype) for seed in seeds]
    return Prepared(splits, nets, run.make_loss(first.class_counts.tolist()), run.make_recipe())


def _has_record(run: RunParameters, seed: int) -> bool:
    """Whether a seed has a whole record; a damaged one is put aside."""
    reason, path = run.flaw(seed), run.record_path(seed)
    if reason:
        os.replace(path, path.with_name(path.name + DAMAGED))
        warnings.warn(f"training again: {reason}", stacklevel=3)
    return reason is None


def _check_foreign_data(run: RunParameters) -> None:
    """Read the foreign images once, so that what is absent or damaged is said before the training and not after it."""
    for name in run.foreign:
        _foreign_images(name, None)


def _train_and_record(run: RunParameters, seeds: list[int], progress: bool) -> None:
    """Train some seeds in one stack, or a single one from its checkpoint, and write their records."""
    start = time.perf_counter()
    splits, nets, loss, recipe = prepare(run, seeds)
    if own_content(run.dataset, run.foreign) != run._content:
        raise ParameterError(
            f"the files of {', '.join(run._content)} were replaced since this run began: start it again"
        )
    part = run.model_copy(update={"seeds": tuple(seeds)}).seeds_text
    options = {"device": run.device, "progress": progress, "label": f"{run.identity}, seeds {part} of {run.seeds_text}"}
    foreign: dict[str, Any] = {}
    if run.trains_together:
        outcomes = training.train_many(nets, splits, loss, recipe, seeds, **options)
    else:
        kept = run.checkpoint_path(seeds[0])
        kept.parent.mkdir(exist_ok=True)
        outcomes = [training.train(nets[0], splits[0], loss, recipe, seeds[0], checkpoint=kept, **options)]
        foreign = _score_foreign(run, nets[0], splits[0], outcomes[0], kept)
    origin = provenance(run.device) | {"tier": run.tier, "duration_s": round(time.perf_counter() - start, 3)}
    origin |= {"seeds_trained_together": len(seeds), "own_data": run._content}
    for seed, split, outcome in zip(seeds, splits, outcomes, strict=True):
        training.save_outcome(outcome, split, run.record_path(seed).with_suffix(".npz"))
        record = _record(run, seed, split, outcome) | {"foreign": foreign, "provenance": origin}
        write_atomically(run.record_path(seed), json.dumps(record, indent=1) + "\n")
        run.checkpoint_path(seed).unlink(missing_ok=True)  # what it is for is done


def _record(run: RunParameters, seed: int, split: data.Splits, outcome: training.Outcome) -> dict[str, Any]:
    recipe = asdict(run.make_recipe())
    return {
        "schema": RECORD_SCHEMA,
        "identity": run.identity,
        "seed": seed,
        "parameters": run.model_dump(exclude=set(NOT_IDENTITY)) | {name: recipe[name] for name in RECIPE_SETTINGS},
        "recipe": recipe,
        "batch_sizes": {str(size): n for size, n in Counter(run.make_recipe().batch_sizes(len(split.y_train))).items()},
        "class_counts": split.class_counts.tolist(),
        "test": training.evaluate_outcome(outcome, split),
        "class_error": {c: _class_errors(z["test"], split) for c, z in outcome.logits.items()},
        "best_epoch": outcome.best_epoch,
        "train_error": outcome.train_error,
        "history": outcome.history,
    }


def _class_errors(logits: np.ndarray, split: data.Splits) -> list[float | None]:
    """The test error of each class, None where it has no test sample."""
    n_classes = len(split.class_names)
    size = np.bincount(split.y_test, minlength=n_classes)
    wrong = np.bincount(split.y_test, logits.argmax(1) != split.y_test, n_classes)
    return [float(w / n) if n else None for w, n in zip(wrong, size, strict=True)]


def _score_foreign(
    run: RunParameters, net: torch.nn.Module, split: data.Splits, outcome: training.Outcome, kept: Path
) -> dict[str, Any]:
    """AUROC, AUPR and FPR95 of every score, for each foreign data set and checkpoint."""
    found: dict[str, Any] = {}
    for name in run.foreign:
        images = _foreign_images(name, split.input_shape)
        for checkpoint, logits in outcome.logits.items():
            trained = training.load_network(kept, net, checkpoint)
            options = {"precision": run.make_recipe().precision, "device": run.device}
            of_foreign = training.predict(trained, images, split, **options)
            scores = {s: metrics.ood_detection(logits["test"], of_foreign, s) for s in metrics.OOD_SCORES}
            found.setdefault(name, {})[checkpoint] = scores
    return found


def _foreign_images(name: str, shape: tuple[int, ...] | None) -> np.ndarray:
    base, *how = name.split(":")
    return data.cifar10_c(how[0], int(how[1]))[0] if how else data.load_test_images(base, shape)


def read_records(folder: str | Path) -> pd.DataFrame:
    """Read all records under a folder into one tidy table.

    Args:
        folder: holds ``<identity>/seed*.json`` at any depth.

    Returns:
        One row for each record and checkpoint: ``identity``, ``seed``, all parameters, ``checkpoint``
        (``"last"`` or ``"best"``), all metrics, ``class_error`` (the test error of each class), ``foreign_scores``
        (foreign data set to score to AUROC, AUPR, FPR95), ``best_epoch``, ``train_error``, ``batch_sizes`` (size, as
        text, to the number of such batches in an epoch), ``commit``, ``device``, ``path``.

    Raises:
        FileNotFoundError: no records there.
        ValueError: a record that is not whole or not of this schema, with its path and what to do.

    Example:
        >>> out = getfixture("tmpdir").strpath
        >>> _ = execute(RunParameters.of(tier="smoke", n_per_class=5, out=out))
        >>> read_records(out)["checkpoint"].tolist()
        ['last', 'best', 'last', 'best']
    """
    paths = sorted(Path(folder).rglob("seed*.json"))
    if not paths:
        raise FileNotFoundError(f"no records (seed*.json) under {folder}; run notebooks/experiments/train.ipynb first")
    return pd.DataFrame([row for path in paths for row in _rows(path)])


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    record = read_record(path)
    common = {
        "identity": record["identity"],
        "seed": record["seed"],
        **record["parameters"],
        "best_epoch": record["best_epoch"],
        "train_error": record["train_error"],
        "batch_sizes": record["batch_sizes"],
        "commit": record["provenance"]["commit"],
        "device": record["provenance"]["device"],
        "path": str(path),
    }
    for checkpoint, values in record["test"].items():
        foreign = {name: scores[checkpoint] for name, scores in record["foreign"].items()}
        more = {"class_error": record["class_error"][checkpoint], "foreign_scores": foreign}
        yield common | {"checkpoint": checkpoint} | values | more
