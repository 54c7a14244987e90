"""A run: its parameters, its identity, its provenance, its record; reading records.

*Identity* is what decides the numbers (data, model, loss, regime, recipe, seed): it names the record, and a run whose
record exists is not repeated. *Provenance* is where the numbers came from (commit, versions, device, time): it is
stored in the record and never decides anything.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import itertools
import json
import os
import platform
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gence import data, losses, metrics, models, recipes, training
from gence._files import replace_file
from gence._words import nearest

__all__ = [
    "ParameterError",
    "Parameters",
    "RunParameters",
    "execute",
    "expand_grid",
    "provenance",
    "read_records",
    "write_atomically",
]

# Counts up when a change of the code changes results for the same parameters; old records are then left alone.
ALGORITHM = 3
RECORD_SCHEMA = 3
TIERS = ("smoke", "laptop", "full")
SMOKE_SEEDS, SMOKE_EPOCHS = 2, 3
# Settings of the recipe that are parameters of their own.
RECIPE_SETTINGS = ("batch_size", "epochs", "lr", "weight_decay")
# Networks whose seeds train together, in one stack, as long as their inputs are features.
STACKED = ("linear", "mlp")
# A mirrored character is another one or none.
CHARACTERS = ("digits", "mnist", "emnist_letters", "svhn")
# Parameters that say where and how wide to run, not what: they do not enter the identity of a single seed's record.
NOT_IDENTITY = ("seeds", "device", "out")
LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn")


class ParameterError(ValueError):
    """A run parameter has an unknown name or a value that is not allowed; the message names the fix."""


class Parameters(BaseModel):
    """What every parameterised notebook has: its seeds and its tier. Chapters use this class as it is.

    Attributes:
        seeds: a number of seeds (20 means 0..19), a list, or text such as ``"0-4,9"``.
        tier: ``"smoke"`` (cuts seeds and epochs, for tests), ``"laptop"`` or ``"full"``.

    Raises:
        ParameterError: from :meth:`of` and :meth:`from_notebook`.

    Example:
        >>> Parameters.of(seeds=3).seeds
        (0, 1, 2)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: tuple[int, ...] = tuple(range(20))
    tier: Literal["smoke", "laptop", "full"] = "laptop"

    @classmethod
    def of(cls, **parameters: Any) -> Self:
        """Build from keyword arguments; raise :class:`ParameterError` in plain words where something is wrong."""
        for name in parameters:
            if name not in cls.model_fields:
                raise ParameterError(
                    f"unknown run parameter {name!r}{_nearest(name, cls.model_fields)}. "
                    f"The parameters are: {', '.join(cls.model_fields)}."
                )
        try:
            return cls(**parameters)
        except ValidationError as error:
            raise ParameterError(_explain(error, parameters)) from None

    @classmethod
    def from_notebook(cls, namespace: Mapping[str, Any]) -> Self:
        """Build from a notebook's globals, right after its parameters cell.

        papermill only warns about a parameter it does not know, and injects it all the same. So the names are read
        from the cells before this one that hold nothing but assignments: the notebook's own parameters cell and the
        cell papermill injected after it. Where cells run without a history (nbval runs them so), the parameters are
        what the namespace holds under their names, and a name that does not exist stays unseen.
        """
        history = namespace.get("In", [])[:-1]
        names = assigned_names(history) if any(history) else [name for name in cls.model_fields if name in namespace]
        return cls.of(**{name: namespace[name] for name in names})

    def effective(self) -> Self:
        """The parameters that are run: the smoke tier cuts seeds and epochs."""
        return self.model_copy(update=self._smoke()) if self.tier == "smoke" else self

    def _smoke(self) -> dict[str, Any]:
        return {"seeds": self.seeds[:SMOKE_SEEDS]}

    @field_validator("seeds", mode="before")
    @classmethod
    def _read_seeds(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                raise ValueError("must be at least 1 seed; nearest valid: 1")
            return tuple(range(value))
        if isinstance(value, str):
            return _seeds_from_text(value)
        return value

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 0 or len(set(value)) < len(value):
            raise ValueError("must be one or more different integers >= 0, for example 20, [0, 1, 2] or '0-4,9'")
        return value


class RunParameters(Parameters):
    """Everything that defines a run, with defaults for the laptop tier.

    Attributes:
        dataset: one of ``gence.data.dataset_names()``.
        model: one of ``gence.models.model_names()``.
        loss: one of ``gence.losses.loss_names()``.
        loss_options: options of that loss, as a dictionary or its JSON text.
        n_per_class: training samples of each class (of the head class for rho > 1); None takes all.
        fraction: share of the training set that is kept, in (0, 1]; not together with `n_per_class`.
        rho: imbalance ratio of the training set, >= 1.
        label_noise: share of the training labels that are replaced by others, in [0, 1).
        recipe: one of ``gence.recipes.recipe_names()``.
        recipe_options: other settings of the recipe, as a dictionary or its JSON text.
        batch_size: samples in a batch, or ``"full"``; None is the recipe's, as for the next three.
        epochs: passes over the training set.
        lr: the largest learning rate.
        weight_decay: L2 penalty.
        foreign: image data sets on whose test images the trained network is scored too, for out-of-distribution
            detection; ``"cifar10_c:fog:5"`` names a corruption and its severity.
        seeds: as in :class:`Parameters`.
        tier: as in :class:`Parameters`.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        out: folder of the records; empty takes the environment variable ``GENCE_RUNS``, or ``runs``.

    Raises:
        ParameterError: from ``of`` and ``from_notebook``.

    Example:
        >>> RunParameters.of(loss="gence", rho=50, seeds="0-2").seeds
        (0, 1, 2)
    """

    dataset: str = "digits"
    model: str = "mlp"
    loss: str = "gence"
    loss_options: dict[str, Any] = Field(default_factory=dict)
    n_per_class: int | None = Field(default=None, ge=1)
    fraction: float | None = Field(default=None, gt=0, le=1)
    rho: float = Field(default=1.0, ge=1)
    label_noise: float = Field(default=0.0, ge=0, lt=1)
    recipe: str = "laptop"
    recipe_options: dict[str, Any] = Field(default_factory=dict)
    batch_size: int | Literal["full"] | None = None
    epochs: int | None = Field(default=None, ge=1)
    lr: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    foreign: tuple[str, ...] = ()
    device: str = "cpu"
    out: str = ""

    @field_validator("foreign", mode="before")
    @classmethod
    def _read_names(cls, value: Any) -> Any:
        return tuple(filter(None, re.split(r"[\s,]+", value))) if isinstance(value, str) else value

    @field_validator("loss_options", "recipe_options", mode="before")
    @classmethod
    def _read_options(cls, value: Any) -> Any:
        if isinstance(value, str):  # papermill's command line passes a dictionary as text
            try:
                return json.loads(value or "{}")
            except json.JSONDecodeError as error:
                example = '{"strength": 0.5}'
                raise ValueError(f"must be a dictionary or its JSON text, for example {example}: {error}") from None
        return value

    @field_validator("batch_size")
    @classmethod
    def _check_batch_size(cls, value: int | str | None) -> int | str | None:
        if value is not None and value != recipes.FULL_BATCH and value < 1:
            raise ValueError("must be a whole number >= 1 or 'full'; nearest valid: 1")
        return value

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", value):
            raise ValueError(f"must be 'cpu', 'cuda' or 'cuda:N'{_nearest(value, ['cpu', 'cuda'])}")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> RunParameters:
        for name, value, known in (
            ("dataset", self.dataset, data.dataset_names()),
            ("model", self.model, models.model_names()),
            ("loss", self.loss, losses.loss_names()),
            ("recipe", self.recipe, recipes.recipe_names()),
            *(("foreign", name, data.dataset_names()) for name in self.foreign if ":" not in name),
        ):
            if value not in known:
                raise ValueError(
                    f"{name} = {value!r} is not allowed{_nearest(value, known)}. Allowed: {', '.join(known)}."
                )
        if self.n_per_class is not None and self.fraction is not None:
            raise ValueError(
                f"n_per_class = {self.n_per_class} and fraction = {self.fraction} are not allowed together: use one"
            )
        if self.n_per_class is not None and self.n_per_class > (capacity := data.class_capacity(self.dataset)):
            raise ValueError(
                f"n_per_class = {self.n_per_class} is not allowed: {self.dataset!r} has {capacity} training samples "
                f"for every class. Allowed: 1..{capacity}, or None for all; nearest valid: {capacity}."
            )
        self.make_recipe()
        self._check_foreign()
        try:
            probe = self.make_loss(class_counts=[1.0, 1.0, 1.0])(torch.zeros(2, 3), torch.tensor([0, 1]))
            if probe.dim() > 0:
                raise ValueError("training needs a loss that returns one number; use reduction='mean' or 'sum'")
        except (ValueError, TypeError, RuntimeError) as error:
            raise ValueError(f"loss_options = {self.loss_options} is not allowed: {error}") from None
        return self

    def _check_foreign(self) -> None:
        for name in self.foreign:
            if ":" in name and not re.fullmatch(rf"cifar10_c:({'|'.join(data.CORRUPTIONS)}):[1-5]", name):
                raise ValueError(
                    f"foreign = {name!r} is not allowed: write cifar10_c:CORRUPTION:SEVERITY with a severity of 1 to 5 "
                    f"and one of the corruptions {', '.join(data.CORRUPTIONS)}."
                )
        if self.foreign and len(data.dataset_info(self.dataset).shape) == 1:
            raise ValueError(f"foreign = {self.foreign} is not allowed: {self.dataset!r} is no data set of images")

    def _smoke(self) -> dict[str, Any]:
        return super()._smoke() | {"epochs": min(self.make_recipe().epochs, SMOKE_EPOCHS)}

    def make_loss(self, class_counts: Sequence[float]):
        """Build the loss module; a loss that needs the class counts of the training set gets them."""
        known = losses.REGISTRY[self.loss].options
        counts = {"class_counts": class_counts} if "class_counts" in known else {}
        return losses.make_loss(self.loss, **(counts | self.loss_options))

    def make_recipe(self) -> recipes.Recipe:
        """Return the training recipe: the named one, with what is set here in place of its own."""
        own = {name: getattr(self, name) for name in RECIPE_SETTINGS if getattr(self, name) is not None}
        if twice := set(RECIPE_SETTINGS) & set(self.recipe_options):
            raise ValueError(f"recipe_options holds {', '.join(sorted(twice))}, which is a parameter of its own")
        recipe = recipes.make_recipe(self.recipe, **own, **self.recipe_options)
        if "augment" not in self.recipe_options and recipe.augment != "none":
            recipe = replace(recipe, augment=_augmentation(self.dataset, recipe.augment))
        return recipe

    @property
    def identity(self) -> str:
        """Readable name plus a hash of everything that decides the numbers except the seed."""
        run = self.effective()
        recipe = run.make_recipe()  # whole, so that a recipe that is changed one day gives another identity
        decides = run.model_dump(exclude={*NOT_IDENTITY, *RECIPE_SETTINGS, "recipe", "recipe_options"})
        decides |= {"recipe": asdict(recipe), "algorithm": ALGORITHM}
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:10]
        size = f"n{run.n_per_class}" if run.n_per_class else f"f{run.fraction:g}" if run.fraction else "nall"
        return f"{run.dataset}-{run.model}-{run.loss}-{size}-rho{run.rho:g}-b{recipe.batch_size}-{digest}"

    @property
    def folder(self) -> Path:
        """Where the records of this run go: ``<out>/<identity>``."""
        return Path(self.out or os.environ.get("GENCE_RUNS") or "runs") / self.identity

    @property
    def seeds_text(self) -> str:
        """The seeds in short: consecutive ones as a range, for file names."""
        groups = itertools.groupby(enumerate(sorted(self.effective().seeds)), key=lambda pair: pair[1] - pair[0])
        runs = [[seed for _, seed in group] for _, group in groups]
        return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)

    @property
    def trains_together(self) -> bool:
        """Whether all seeds train in one stack: small networks of features, with a loss that keeps no state."""
        image = len(data.dataset_info(self.dataset).shape) > 1
        return self.model in STACKED and not image and losses.REGISTRY[self.loss].adapts != "update"

    def record_path(self, seed: int) -> Path:
        """Where the record of one seed goes; its logits lie beside it, in an .npz file of the same name."""
        return self.folder / f"seed{seed:04d}.json"

    def checkpoint_path(self, seed: int) -> Path:
        """Where the state of a training that is not done yet goes."""
        return self.folder / "checkpoints" / f"seed{seed:04d}.pt"


def execute(parameters: RunParameters, *, progress: bool = True) -> list[Path]:
    """Train all seeds of a run that have no record yet, and write one record for each.

    Small networks train together, larger ones one after the other, each from its checkpoint if it was interrupted. Two
    processes that execute the same run wait for each other, so no seed is trained twice.

    Args:
        parameters: the run.
        progress: show a progress bar.

    Returns:
        The paths of all records of the run, in the order of the seeds.

    Raises:
        ParameterError: a GPU is asked for where there is none.
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
            missing = [seed for seed in together if not run.record_path(seed).exists()]
            if missing:
                _train_and_record(run, missing, progress)
    return [run.record_path(seed) for seed in run.seeds]


def _train_and_record(run: RunParameters, seeds: list[int], progress: bool) -> None:
    """Train some seeds in one stack, or a single one from its checkpoint, and write their records."""
    start = time.perf_counter()
    regime = {name: getattr(run, name) for name in ("n_per_class", "rho", "fraction", "label_noise")}
    splits = [data.load_splits(run.dataset, seed, **regime) for seed in seeds]
    nets = [_network(run, split, seed) for split, seed in zip(splits, seeds, strict=True)]
    loss, recipe = run.make_loss(splits[0].class_counts.tolist()), run.make_recipe()
    options = {"device": run.device, "progress": progress, "label": run.identity}
    foreign: dict[str, Any] = {}
    if run.trains_together:
        outcomes = training.train_many(nets, splits, loss, recipe, seeds, **options)
    else:
        kept = run.checkpoint_path(seeds[0])
        kept.parent.mkdir(exist_ok=True)
        outcomes = [training.train(nets[0], splits[0], loss, recipe, seeds[0], checkpoint=kept, **options)]
        foreign = _score_foreign(run, nets[0], splits[0], outcomes[0], kept)
    origin = provenance(run.device) | {"tier": run.tier, "duration_s": round(time.perf_counter() - start, 3)}
    origin["seeds_trained_together"] = len(seeds)
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


def _foreign_images(name: str, shape: tuple[int, ...]) -> np.ndarray:
    base, *how = name.split(":")
    return data.cifar10_c(how[0], int(how[1]))[0] if how else data.load_test_images(base, shape)


def _network(run: RunParameters, split: data.Splits, seed: int) -> torch.nn.Module:
    """Small models of features run in float64, so that runs agree to many digits; images in float32."""
    dtype = torch.float32 if split.is_image else torch.float64
    return models.make_model(run.model, split.input_shape, len(split.class_names), seed, dtype=dtype)


def _augmentation(dataset: str, wanted: str) -> str:
    """What of an augmentation a data set allows: features none at all, characters no mirroring."""
    if len(data.dataset_info(dataset).shape) == 1:
        return "none"
    return wanted.replace("+flip", "") if dataset in CHARACTERS else wanted


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or nothing, even if this process is killed.

    Args:
        path: the file; its folder is made.
        text: its whole content.

    Raises:
        OSError: the folder cannot be written.

    Example:
        >>> target = Path(getfixture("tmpdir")) / "a.txt"
        >>> write_atomically(target, "whole")
        >>> target.read_text()
        'whole'
    """
    replace_file(path, lambda file: file.write(text.encode("utf-8")))


def provenance(device: str = "cpu") -> dict[str, Any]:
    """Say where numbers come from: code, libraries, machine, time.

    Args:
        device: the device that is used.

    Returns:
        ``commit``, ``dirty`` (None outside a git checkout), ``gence``, ``python``, library versions, ``device``,
        ``threads``, ``date`` (UTC, to the second).

    Example:
        >>> provenance()["device"].startswith("cpu")
        True
    """
    commit, dirty = _git_state()
    name = f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else f"cpu ({_cpu()})"
    return {
        "commit": commit,
        "dirty": dirty,
        "gence": _version("gence"),
        "python": platform.python_version(),
        **{library: _version(library) for library in LIBRARIES},
        "device": name,
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def expand_grid(grid: Mapping[str, Any]) -> list[RunParameters]:
    """Turn a grid into its runs: the fixed parameters, times every combination of the varied ones.

    Args:
        grid: ``{"fixed": {name: value}, "vary": {name: [values]}}``, as in a YAML file of ``workflow/grids``. Names
            that vary together stand in one key, separated by commas, and each value is then a list of theirs.

    Returns:
        One :class:`RunParameters` for each combination, in the order written.

    Raises:
        ParameterError: an unknown section or parameter, a value that is not allowed, the same run twice.

    Example:
        >>> [run.loss for run in expand_grid({"fixed": {"seeds": 2}, "vary": {"loss": ["ce", "gence"]}})]
        ['ce', 'gence']
        >>> together = {"batch_size, epochs": [[16, 40], ["full", 200]], "rho": [1, 50]}
        >>> [(run.batch_size, run.epochs, run.rho) for run in expand_grid({"vary": together})]
        [(16, 40, 1.0), (16, 40, 50.0), ('full', 200, 1.0), ('full', 200, 50.0)]
    """
    for section in grid:
        if section not in ("fixed", "vary"):
            raise ParameterError(
                f"unknown grid section {section!r}{_nearest(section, ['fixed', 'vary'])}. Allowed: fixed, vary."
            )
    fixed, vary = grid.get("fixed") or {}, grid.get("vary") or {}
    choices = [list(_choices(key, values)) for key, values in vary.items()]
    runs = [
        RunParameters.of(**fixed, **{name: value for part in chosen for name, value in part.items()})
        for chosen in itertools.product(*choices)
    ]
    names = [run.identity for run in runs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ParameterError(f"the grid holds the same run more than once: {', '.join(sorted(twice))}")
    return runs


def _choices(key: str, values: Any) -> Iterator[dict[str, Any]]:
    """The choices of one key of `vary`: one name, or several that vary together."""
    names = re.split(r"\s*,\s*", key.strip())
    if not isinstance(values, list):
        raise ParameterError(f"vary.{key} must be a list of values, but is {values!r}. Write [{values!r}].")
    for value in values:
        row = [value] if len(names) == 1 else value
        if not isinstance(row, list) or len(row) != len(names):
            raise ParameterError(f"vary.{key!r} needs a list of {len(names)} values each time, but has {row!r}.")
        yield dict(zip(names, row, strict=True))


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
        ValueError: a record that is not whole or not of this schema, with its path.

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
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != RECORD_SCHEMA:
            raise ValueError(f"schema {record['schema']}, expected {RECORD_SCHEMA}")
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
    except (json.JSONDecodeError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a whole record: {error!r}. Delete it and run again.") from error


def _seeds_from_text(text: str) -> tuple[int, ...]:
    """'3' -> 0..2 (a number of seeds), '0-4,9' -> 0, 1, 2, 3, 4, 9, '[1, 2]' -> 1, 2."""
    body = text.strip().strip("[]() ")
    if not re.fullmatch(r"\d+(-\d+)?(\s*,\s*\d+(-\d+)?)*,?", body):
        raise ValueError("must be a number of seeds, a list, or text such as '0-4,9'")
    if body.isdigit() and text.strip() == body:
        return tuple(range(int(body)))
    seeds: list[int] = []
    for part in filter(None, re.split(r"\s*,\s*", body)):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return tuple(seeds)


def assigned_names(cells: Sequence[str]) -> list[str]:
    """Names that the last cells assign, going back while a cell holds nothing but assignments and comments."""
    names: list[str] = []
    for source in reversed(cells):
        try:
            body = ast.parse(source).body
        except SyntaxError:
            break
        if not all(isinstance(node, ast.Assign | ast.AnnAssign) for node in body):
            break
        for node in body:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [t.id for t in targets if isinstance(t, ast.Name)]
    return list(dict.fromkeys(names))


def _explain(error: ValidationError, given: Mapping[str, Any]) -> str:
    """One plain sentence for each thing that is wrong."""
    lines: dict[str, str] = {}
    # A union such as "integer or 'full'" reports each of its members; the last one is the one to explain.
    for item in error.errors():
        message = item["msg"].removeprefix("Value error, ")
        if not item["loc"]:
            lines[""] = message
            continue
        name, context = str(item["loc"][0]), item.get("ctx", {})
        if item["type"] == "literal_error":
            names = TIERS if name == "tier" else (recipes.FULL_BATCH,)
            message = _nearest(given[name], names)
        else:
            message = f": {message}" + (f"; nearest valid: {context['ge']:g}" if "ge" in context else "")
        allowed = f" Allowed: {_ALLOWED_TEXT[name]}." if name in _ALLOWED_TEXT else ""
        lines[name] = f"{name} = {given.get(name)!r} is not allowed{message}.{allowed}"
    return "\n".join(lines.values())


_ALLOWED_TEXT = {
    "fraction": "a number in (0, 1], or None for all",
    "label_noise": "a number in [0, 1)",
    "rho": "a number >= 1 (1 is balanced)",
    "n_per_class": "a whole number >= 1, or None for all",
    "batch_size": "a whole number >= 1, 'full', or None for the recipe's",
    "epochs": "a whole number >= 1, or None for the recipe's",
    "lr": "a number > 0, or None for the recipe's",
    "weight_decay": "a number >= 0, or None for the recipe's",
    "tier": ", ".join(TIERS),
}


def _nearest(word: Any, known: Any) -> str:
    return nearest(word, known, say="; nearest valid: {!r}", otherwise="")


def _git_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout this package lies in, and whether tracked files differ from it."""

    def git(*arguments: str) -> str | None:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).resolve().parent.parent), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        root, here = git("rev-parse", "--show-toplevel"), str(Path(__file__).resolve().parent.parent)
        if root is None or Path(root).resolve() != Path(here):
            return None, None
        return git("rev-parse", "--short=12", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except FileNotFoundError:  # no git on this machine
        return None, None


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
