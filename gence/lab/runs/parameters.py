"""What a run is told: names, kinds and bounds of its parameters, and the identity they give it."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
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

from gence import losses
from gence.lab import data, training
from gence.lab.records import flaw
from gence.lab.runs._checks import (
    check_foreign,
    check_kinds,
    check_model,
    check_names,
    check_size,
    check_values_of_classes,
    defaults_of_loss,
    own_content,
)
from gence.lab.runs._messages import ParameterError, explain, nearest_allowed
from gence.lab.runs._text import (
    LARGEST_SEED,
    SEEDS_TEXT,
    as_number,
    assigned_names,
    is_empty,
    names_from_text,
    number_of_seeds,
    options_from,
    seeds_from_text,
)
from gence.lab.storage import expanded

__all__ = ["ALGORITHM", "OPTIONAL", "SMOKE_EPOCHS", "Parameters", "RunParameters"]

# Counts up when a change of the code changes results for the same parameters; old records are then left alone.
ALGORITHM = 3
SMOKE_SEEDS, SMOKE_EPOCHS = 2, 3
# Settings of the recipe that are parameters of their own.
RECIPE_SETTINGS = ("batch_size", "epochs", "lr", "weight_decay")
# Networks whose seeds train together, in one stack, as long as their inputs are features.
STACKED = ("linear", "mlp", "mlp_256")
# A mirrored character is another one or none.
CHARACTERS = ("digits", "mnist", "emnist_letters", "svhn")
# Parameters that say where and how wide to run, not what: they do not enter the identity of a single seed's record.
NOT_IDENTITY = ("seeds", "device", "out")
# Parameters that are numbers or nothing, and those that are numbers.
OPTIONAL = ("n_per_class", "fraction", "batch_size", "epochs", "lr", "weight_decay")
NUMBERS = (*OPTIONAL, "rho", "label_noise")
# Words for a device that torch does not know.
DEVICE_WORDS = {"gpu": "cuda", "nvidia": "cuda", "processor": "cpu"}


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
                    f"unknown run parameter {name!r}{nearest_allowed(name, cls.model_fields)}. "
                    f"The parameters are: {', '.join(cls.model_fields)}."
                )
        try:
            return cls(**parameters)
        except ValidationError as error:
            raise ParameterError(explain(error, parameters)) from None

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
            return number_of_seeds(value)
        if isinstance(value, str):
            return seeds_from_text(value)
        if not isinstance(value, list | tuple | range) or any(type(seed) is not int for seed in value):
            raise ValueError(SEEDS_TEXT)
        return tuple(value)

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 0 or max(value) > LARGEST_SEED or len(set(value)) < len(value):
            raise ValueError(
                f"must be one or more different integers in 0..{LARGEST_SEED}, for example 20, [0, 1, 2] or '0-4,9'"
            )
        return value


class RunParameters(Parameters):
    """Everything that defines a run, with defaults for the laptop tier.

    Attributes:
        dataset: one of ``gence.lab.data.dataset_names()``.
        model: one of ``gence.lab.networks.model_names()``.
        loss: one of ``gence.losses.loss_names()``.
        loss_options: options of that loss, as a dictionary or its JSON text.
        n_per_class: training samples of each class (of the head class for rho > 1); None takes all.
        fraction: share of the training set that is kept, in (0, 1]; not together with `n_per_class`.
        rho: imbalance ratio of the training set, >= 1.
        label_noise: share of the training labels that are replaced by others, in [0, 1).
        recipe: one of ``gence.lab.training.recipe_names()``.
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
        if is_empty(value):
            if info.field_name in OPTIONAL:
                return None
            raise ValueError("it cannot be empty")
        return as_number(value)

    @field_validator("out", mode="before")
    @classmethod
    def _read_out(cls, value: Any) -> Any:
        if is_empty(value):
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
        if is_empty(value):
            return ()
        names = names_from_text(value) if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError("names of image data sets are needed")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"it holds {', '.join(twice)} more than once")
        return tuple(names)

    @field_validator("loss_options", "recipe_options", mode="before")
    @classmethod
    def _read_options(cls, value: Any) -> Any:
        return options_from(value)

    @field_validator("batch_size")
    @classmethod
    def _check_batch_size(cls, value: int | str | None) -> int | str | None:
        if value is not None and value != training.FULL_BATCH and value < 1:
            raise ValueError("must be a whole number >= 1 or 'full'; nearest valid: 1")
        return value

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", value):
            word = DEVICE_WORDS.get(value.strip().casefold(), value)
            raise ValueError(f"must be 'cpu', 'cuda' or 'cuda:N'{nearest_allowed(word, ['cpu', 'cuda'])}")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> RunParameters:
        check_names(self.dataset, self.model, self.loss, self.recipe, self.foreign)
        check_size(self.dataset, self.n_per_class, self.fraction)
        self._check_recipe()
        check_foreign(self.foreign, self.dataset)
        check_model(self.model, self.dataset)
        self._check_loss()
        self._content = own_content(self.dataset, self.foreign)
        return self

    def _check_recipe(self) -> None:
        defaults = {setting.name: setting.default for setting in fields(training.Recipe)}
        own = {name: value for name, value in self.recipe_options.items() if name not in RECIPE_SETTINGS}
        check_kinds("recipe_options", own, defaults)
        try:
            recipe = self.make_recipe()
        except TypeError as error:
            raise ValueError(f"recipe_options = {self.recipe_options} is not allowed: {error}") from None
        if recipe.augment != "none" and not self._on_images:
            raise ValueError(
                f"recipe_options = {self.recipe_options} is not allowed: augment = {recipe.augment!r} needs images, "
                f"and {self.dataset!r} has features. Use augment = 'none'."
            )

    def _check_loss(self) -> None:
        n_classes = data.dataset_info(self.dataset).n_classes
        try:
            check_kinds("loss_options", self.loss_options, defaults_of_loss(self.loss))
            check_values_of_classes(self.loss_options, self.dataset, n_classes)
            loss = self.make_loss(class_counts=[1.0] * n_classes)
            probe = loss(torch.zeros(3, n_classes, dtype=self._dtype), torch.tensor([0, 1, 1]))
            if probe.dim() > 0:
                raise ValueError("training needs a loss that returns one number; use reduction='mean' or 'sum'")
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
            raise ValueError(f"loss_options = {self.loss_options} is not allowed: {error}") from None

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

    def make_recipe(self) -> training.Recipe:
        """Return the training recipe: the named one, with what is set here in place of its own."""
        own = {name: getattr(self, name) for name in RECIPE_SETTINGS if getattr(self, name) is not None}
        if twice := set(RECIPE_SETTINGS) & set(self.recipe_options):
            raise ValueError(f"recipe_options holds {', '.join(sorted(twice))}, which is a parameter of its own")
        recipe = training.make_recipe(self.recipe, **own, **self.recipe_options)
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


def _augmentation(dataset: str, wanted: str) -> str:
    """What of an augmentation a data set allows: features none at all, characters no mirroring."""
    if len(data.dataset_info(dataset).shape) == 1:
        return "none"
    return wanted.replace("+flip", "") if dataset in CHARACTERS else wanted
