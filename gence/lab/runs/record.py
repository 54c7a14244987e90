"""A run: its parameters, its identity, its provenance, its record; reading records.

*Identity* is what decides the numbers (data, model, loss, regime, recipe, seed): it names the record, and a run whose
record exists is not repeated. *Provenance* is where the numbers came from (commit, versions, device, time): it is
stored in the record and never decides anything.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import itertools
import json
import math
import os
import platform
import re
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gence import data, losses, metrics, models, recipes, training
from gence._files import expanded, replace_file
from gence._records import DAMAGED, RECORD_SCHEMA, flaw, read_record
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
# Parameters that are numbers or nothing, and those that are numbers.
OPTIONAL = ("n_per_class", "fraction", "batch_size", "epochs", "lr", "weight_decay")
NUMBERS = (*OPTIONAL, "rho", "label_noise")
# What a command line or a YAML file has for nothing.
EMPTY = ("", "none", "null")
MOST_SEEDS, LARGEST_SEED = 10_000, 2**32 - 1
# Words for a device that torch does not know.
DEVICE_WORDS = {"gpu": "cuda", "nvidia": "cuda", "processor": "cpu"}


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
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, int) and not isinstance(value, bool):
            if not 1 <= value <= MOST_SEEDS:
                raise ValueError(
                    f"a number of seeds lies in 1..{MOST_SEEDS:,}; nearest valid: {max(1, MOST_SEEDS * (value > 0))}"
                )
            return tuple(range(value))
        if isinstance(value, str):
            return _seeds_from_text(value)
        if not isinstance(value, list | tuple | range) or any(type(seed) is not int for seed in value):
            raise ValueError(_SEEDS_TEXT)
        return tuple(value)

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 0 or max(value) > LARGEST_SEED or len(set(value)) < len(value):
            raise ValueError(
                f"must be one or more different integers in 0..{LARGEST_SEED}, for example 20, [0, 1, 2] or '0-4,9'"
            )
        return value


_SEEDS_TEXT = "must be a number of seeds, a list, or text such as '0-4,9'"


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
        foreign: other image data sets on whose test images the trained network is scored too, for out-of-distribution
            detection; ``"cifar10_c:fog:5"`` names a corruption and its severity.
        seeds: as in :class:`Parameters`.
        tier: as in :class:`Parameters`.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        out: folder of the records; empty takes the environment variable ``GENCE_RUNS``, or ``runs``. ``~`` is the home
            folder.

    What may be empty can be given as None, ``""``, ``"none"`` or ``"null"``, and a number as its text, ``"1e-1"``.

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
    rho: float = Field(default=1.0, ge=1, allow_inf_nan=False)
    label_noise: float = Field(default=0.0, ge=0, lt=1)
    recipe: str = "laptop"
    recipe_options: dict[str, Any] = Field(default_factory=dict)
    batch_size: int | Literal["full"] | None = None
    epochs: int | None = Field(default=None, ge=1)
    lr: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    weight_decay: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    foreign: tuple[str, ...] = ()
    device: str = "cpu"
    out: str = ""
    # The digests of the user's own files that this run reads, by the name of the data set: found once, here, so that
    # the run keeps its name even if a file is replaced while it trains.
    _content: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator(*NUMBERS, mode="before")
    @classmethod
    def _read_number(cls, value: Any, info: ValidationInfo) -> Any:
        if _is_empty(value):
            if info.field_name in OPTIONAL:
                return None
            raise ValueError("it cannot be empty")
        return _number(value)

    @field_validator("out", mode="before")
    @classmethod
    def _read_out(cls, value: Any) -> Any:
        if _is_empty(value):
            return ""
        return str(value) if isinstance(value, Path) else value

    @field_validator("out")
    @classmethod
    def _check_out(cls, value: str) -> str:
        expanded(value, "out")
        return value

    @field_validator("foreign", mode="before")
    @classmethod
    def _read_names(cls, value: Any) -> Any:
        if _is_empty(value):
            return ()
        names = _names_from_text(value) if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError("names of image data sets are needed")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"it holds {', '.join(twice)} more than once")
        return tuple(names)

    @field_validator("loss_options", "recipe_options", mode="before")
    @classmethod
    def _read_options(cls, value: Any) -> Any:
        if _is_empty(value):
            return {}
        if isinstance(value, str):  # papermill's command line passes a dictionary as text
            try:
                value = json.loads(value, object_pairs_hook=_without_repetition)
            except json.JSONDecodeError as error:
                example = '{"strength": 0.5}'
                raise ValueError(f"must be a dictionary or its JSON text, for example {example}: {error}") from None
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise ValueError("must be a dictionary of names and values, or its JSON text")
        return {name: _option_value(name, option) for name, option in value.items()}

    @field_validator("batch_size")
    @classmethod
    def _check_batch_size(cls, value: int | str | None) -> int | str | None:
        if value is not None and value != recipes.FULL_BATCH and value < 1:
            raise ValueError("must be a whole number >= 1 or 'full'; nearest valid: 1")
        return value

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", value):
            word = DEVICE_WORDS.get(value.strip().casefold(), value)
            raise ValueError(f"must be 'cpu', 'cuda' or 'cuda:N'{_nearest(word, ['cpu', 'cuda'])}")
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
                bring = f" {data.how_to_bring(value)}" if name in ("dataset", "foreign") else ""
                raise ValueError(
                    f"{name} = {value!r} is not allowed{_nearest(value, known)}. Allowed: {', '.join(known)}.{bring}"
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
        self._check_recipe()
        self._check_foreign()
        self._check_model()
        self._check_loss()
        self._content = _own_content(self)
        return self

    def _check_recipe(self) -> None:
        defaults = {setting.name: setting.default for setting in fields(recipes.Recipe)}
        own = {name: value for name, value in self.recipe_options.items() if name not in RECIPE_SETTINGS}
        _check_kinds("recipe_options", own, defaults)
        try:
            recipe = self.make_recipe()
        except TypeError as error:
            raise ValueError(f"recipe_options = {self.recipe_options} is not allowed: {error}") from None
        if recipe.augment != "none" and not self._on_images:
            raise ValueError(
                f"recipe_options = {self.recipe_options} is not allowed: augment = {recipe.augment!r} needs images, "
                f"and {self.dataset!r} has features. Use augment = 'none'."
            )

    def _check_model(self) -> None:
        info = data.dataset_info(self.dataset)
        try:
            _fits(self.model, info.shape, info.n_classes)
        except ValueError as error:
            raise ValueError(
                f"model = {self.model!r} is not allowed with dataset = {self.dataset!r}: {error}"
            ) from None

    def _check_loss(self) -> None:
        n_classes = data.dataset_info(self.dataset).n_classes
        try:
            _check_kinds("loss_options", self.loss_options, _defaults_of_loss(self.loss))
            for name in ("weight", "class_counts"):
                given = self.loss_options.get(name)
                if given is not None and not (_same_kind(given, ()) and len(given) == n_classes):
                    raise ValueError(
                        f"{name} must be a list of {n_classes} numbers, one for each class of {self.dataset!r}, but is "
                        f"{given!r}"
                    )
            loss = self.make_loss(class_counts=[1.0] * n_classes)
            probe = loss(torch.zeros(2, n_classes, dtype=self._dtype), torch.tensor([0, 1]))
            if probe.dim() > 0:
                raise ValueError("training needs a loss that returns one number; use reduction='mean' or 'sum'")
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
            raise ValueError(f"loss_options = {self.loss_options} is not allowed: {error}") from None

    def _check_foreign(self) -> None:
        for name in self.foreign:
            if ":" in name and not re.fullmatch(rf"cifar10_c:({'|'.join(data.CORRUPTIONS)}):[1-5]", name):
                raise ValueError(
                    f"foreign = {name!r} is not allowed: write cifar10_c:CORRUPTION:SEVERITY with a severity of 1 to 5 "
                    f"and one of the corruptions {', '.join(data.CORRUPTIONS)}."
                )
        if self.foreign and not self._on_images:
            raise ValueError(f"foreign = {self.foreign} is not allowed: {self.dataset!r} is no data set of images")
        for name in self.foreign:
            if name == self.dataset:
                raise ValueError(f"foreign = {name!r} is not allowed: it is the data set itself. Name another one.")
            if ":" not in name and len(data.dataset_info(name).shape) != 3:
                raise ValueError(
                    f"foreign = {name!r} is not allowed: it is no data set of images. Those are: "
                    f"{', '.join(data.image_names())}, and your own."
                )

    @property
    def _on_images(self) -> bool:
        return len(data.dataset_info(self.dataset).shape) == 3

    @property
    def _dtype(self) -> torch.dtype:
        """The dtype of the logits, which the weights of a loss must share."""
        precision = self.make_recipe().precision or ("float32" if self._on_images else "float64")
        return torch.float64 if precision == "float64" else torch.float32

    def _smoke(self) -> dict[str, Any]:
        return super()._smoke() | {"epochs": min(self.make_recipe().epochs, SMOKE_EPOCHS)}

    def make_loss(self, class_counts: Sequence[float]):
        """Build the loss module; a loss that needs the class counts of the training set gets them."""
        known = losses.REGISTRY[self.loss].options
        options = ({"class_counts": class_counts} if "class_counts" in known else {}) | self.loss_options
        if isinstance(options.get("weight"), list):
            options["weight"] = torch.tensor(options["weight"], dtype=self._dtype)
        return losses.make_loss(self.loss, **options)

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
        if self._content:  # published data are known by their names
            decides["content"] = self._content
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:10]
        size = f"n{run.n_per_class}" if run.n_per_class else f"f{run.fraction:g}" if run.fraction else "nall"
        return f"{run.dataset}-{run.model}-{run.loss}-{size}-rho{run.rho:g}-b{recipe.batch_size}-{digest}"

    @property
    def folder(self) -> Path:
        """Where the records of this run go: ``<out>/<identity>``."""
        name = "out" if self.out else "GENCE_RUNS"
        return expanded(self.out or os.environ.get("GENCE_RUNS") or "runs", name) / self.identity

    @property
    def seeds_text(self) -> str:
        """The seeds in short: consecutive ones as a range, for file names."""
        groups = itertools.groupby(enumerate(sorted(self.effective().seeds)), key=lambda pair: pair[1] - pair[0])
        runs = [[seed for _, seed in group] for _, group in groups]
        return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)

    @property
    def trains_together(self) -> bool:
        """Whether all seeds train in one stack: small networks of features, with a loss that keeps no state."""
        recipe = self.make_recipe()
        plain = recipe.precision != "bfloat16" and not recipe.compile
        return self.model in STACKED and not self._on_images and plain and losses.REGISTRY[self.loss].adapts != "update"

    def flaw(self, seed: int) -> str | None:
        """Say why a seed has no record; None where it has one, and an empty text where there is no file."""
        return flaw(self.record_path(seed), self.identity, seed)

    def record_path(self, seed: int) -> Path:
        """Where the record of one seed goes; its logits lie beside it, in an .npz file of the same name."""
        return self.folder / f"seed{seed:04d}.json"

    def checkpoint_path(self, seed: int) -> Path:
        """Where the state of a training that is not done yet goes."""
        return self.folder / "checkpoints" / f"seed{seed:04d}.pt"


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
    regime = {name: getattr(run, name) for name in ("n_per_class", "rho", "fraction", "label_noise")}
    splits = [data.load_splits(run.dataset, seed, **regime) for seed in seeds]
    if _own_content(run) != run._content:
        raise ParameterError(
            f"the files of {', '.join(run._content)} were replaced since this run began: start it again"
        )
    nets = [_network(run, split, seed) for split, seed in zip(splits, seeds, strict=True)]
    loss, recipe = run.make_loss(splits[0].class_counts.tolist()), run.make_recipe()
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


def _network(run: RunParameters, split: data.Splits, seed: int) -> torch.nn.Module:
    """Small models of features run in float64, so that runs agree to many digits; images in float32."""
    dtype = torch.float32 if split.is_image else torch.float64
    return models.make_model(run.model, split.input_shape, len(split.class_names), seed, dtype=dtype)


@lru_cache
def _fits(model: str, shape: tuple[int, ...], n_classes: int) -> None:
    """Refuse a network that cannot take these samples: built from shapes alone, without weights."""
    models.make_model(model, shape, n_classes, 0, torch.float32, device="meta")


def _own_content(run: RunParameters) -> dict[str, str]:
    """The digests of the user's own files that a run reads, by the name of the data set."""
    generated = any(data.GENERATED in name for name in run.foreign)
    names = {run.dataset, *(name for name in run.foreign if ":" not in name), *(["cifar10"] if generated else [])}
    found = {name: data.content(name) for name in sorted(names)}
    own = {name: digest for name, digest in found.items() if digest is not None}
    for name in run.foreign:
        if name in own and own[name] == own.get(run.dataset):
            raise ValueError(f"foreign = {name!r} is not allowed: its file is a copy of that of {run.dataset!r}")
    return own


def _defaults_of_loss(name: str) -> dict[str, Any]:
    """The options of a loss with their defaults."""
    build = losses.REGISTRY[name].build
    what = build.args[0] if build.args else build.func
    return {option: parameter.default for option, parameter in inspect.signature(what).parameters.items()}


def _check_kinds(where: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse a value of another kind than the default of its option; what has no such option is refused elsewhere."""
    for name, value in options.items():
        if name in defaults and not _same_kind(value, defaults[name]):
            kind = _KINDS.get(type(defaults[name]), "a number, a list or a name")
            raise ValueError(
                f"{where}: {name} = {value!r} is not allowed, {kind} is needed (default: {defaults[name]!r})"
            )


_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a name", tuple: "a list of numbers"}


def _same_kind(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int):
        return isinstance(value, int)
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(_same_kind(part, 0.0) for part in value)
    kinds = {float: (int, float), str: (str,)}
    return isinstance(value, kinds.get(type(default), object))


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
    for section, content in (("fixed", fixed), ("vary", vary)):
        if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
            raise ParameterError(f"the grid section {section} must hold names and values, but is {content!r}")
    choices = [list(_choices(key, values)) for key, values in vary.items()]
    set_by = [*fixed, *(name for choice in choices for name in choice[0])]
    if twice := sorted({name for name in set_by if set_by.count(name) > 1}):
        raise ParameterError(f"the grid sets {', '.join(twice)} more than once: in fixed or in vary, and there once")
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
    if not values:
        raise ParameterError(
            f"vary.{key} is an empty list, so the grid would hold no run. Name a value, or leave it out."
        )
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


def _seeds_from_text(text: str) -> tuple[int, ...]:
    """'3' -> 0..2 (a number of seeds), '0-4,9' -> 0, 1, 2, 3, 4, 9, '[1, 2]' -> 1, 2."""
    body = text.strip().strip("[]() ")
    if not re.fullmatch(r"[0-9]+(-[0-9]+)?(\s*,\s*[0-9]+(-[0-9]+)?)*,?", body):
        raise ValueError(_SEEDS_TEXT)
    if body.isdigit() and text.strip() == body:
        return Parameters._read_seeds(int(body))
    seeds: list[int] = []
    for part in filter(None, re.split(r"\s*,\s*", body)):
        first, _, last = part.partition("-")
        size = int(last or first) - int(first) + 1
        if size < 1:
            raise ValueError(f"{part} ends before it begins")
        if len(seeds) + size > MOST_SEEDS:
            raise ValueError(f"these are more than {MOST_SEEDS:,} seeds")
        seeds += range(int(first), int(last or first) + 1)
    return tuple(seeds)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().casefold() in EMPTY)


def _number(value: Any) -> Any:
    """A number from its text or its array; what is neither stays as it is, and what only looks like one is refused."""
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    if isinstance(value, bool):
        raise ValueError("this is a truth value and no number")
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", value):
        value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("this is no finite number")
    return value


def _option_value(name: str, value: Any) -> Any:
    """An option with its numbers read (YAML takes 1e-1 for text), also in a list of them."""
    if isinstance(value, list | tuple):
        return [_option_value(name, part) for part in value]
    if hasattr(value, "tolist"):
        return _option_value(name, value.tolist())
    if isinstance(value, bool):
        return value
    try:
        return _number(value)
    except ValueError as error:
        raise ValueError(f"{name} = {value!r}: {error}") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError(f"an option is given more than once, among {', '.join(found)}")
    return found


def _names_from_text(text: str) -> list[Any]:
    """Names from JSON text, or from words between commas or spaces, with or without brackets and quotes."""
    with contextlib.suppress(json.JSONDecodeError):
        if isinstance(found := json.loads(text), list):
            return found
    return [name.strip("'\"") for name in re.split(r"[\s,]+", text.strip().strip("[]()")) if name.strip("'\"")]


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
            message = _PLAIN_WORDS.get(item["type"], message)
            message = f": {message}" + (f"; nearest valid: {context['ge']:g}" if "ge" in context else "")
        lines[name] = f"{name} = {given.get(name)!r} is not allowed{message}. Allowed: {_allowed(name)}."
    return "\n".join(lines.values())


def _allowed(name: str) -> str:
    names = {
        "dataset": data.dataset_names,
        "model": models.model_names,
        "loss": losses.loss_names,
        "recipe": recipes.recipe_names,
    }
    return ", ".join(names[name]()) if name in names else _ALLOWED_TEXT[name]


_PLAIN_WORDS = {
    "string_type": "a name is needed",
    "finite_number": "this is no finite number",
    "int_from_float": "this is no whole number",
    "int_parsing": "this is no whole number",
    "int_type": "this is no whole number",
    "float_parsing": "this is no number",
    "float_type": "this is no number",
}
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
    "seeds": "a number of seeds, a list of them, or text such as '0-4,9'",
    "device": "cpu, cuda, cuda:0, cuda:1, ...",
    "out": "the path of a folder, or None for that of GENCE_RUNS",
    "foreign": "names such as 'svhn' or ['svhn', 'cifar10_c:fog:5'], or [] for none",
    "loss_options": "a dictionary such as {'strength': 0.5}, or its JSON text",
    "recipe_options": "a dictionary such as {'nesterov': true}, or its JSON text",
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
