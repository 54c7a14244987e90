"""What a run is told, held against its data set, network and loss before anything is trained."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from gence import losses
from gence.lab import data, networks, training
from gence.lab.runs._messages import nearest_allowed


def check_names(dataset: str, model: str, loss: str, recipe: str, foreign: Sequence[str]) -> None:
    """Refuse names that nothing has."""
    for name, value, known in (
        ("dataset", dataset, data.dataset_names()),
        ("model", model, networks.model_names()),
        ("loss", loss, losses.loss_names()),
        ("recipe", recipe, training.recipe_names()),
        *(("foreign", other, data.dataset_names()) for other in foreign if ":" not in other),
    ):
        if value not in known:
            bring = f" {data.how_to_bring(value)}" if name in ("dataset", "foreign") else ""
            raise ValueError(
                f"{name} = {value!r} is not allowed{nearest_allowed(value, known)}. Allowed: {', '.join(known)}.{bring}"
            )


def check_size(dataset: str, n_per_class: int | None, fraction: float | None) -> None:
    """Refuse two sizes of the training set at once, and more samples of a class than there are."""
    if n_per_class is not None and fraction is not None:
        raise ValueError(f"n_per_class = {n_per_class} and fraction = {fraction} are not allowed together: use one")
    if n_per_class is not None and n_per_class > (capacity := data.class_capacity(dataset)):
        raise ValueError(
            f"n_per_class = {n_per_class} is not allowed: {dataset!r} has {capacity} training samples "
            f"for every class. Allowed: 1..{capacity}, or None for all; nearest valid: {capacity}."
        )


def check_foreign(foreign: Sequence[str], dataset: str) -> None:
    """Refuse what is no other data set of images, for a network of images."""
    for name in foreign:
        if ":" in name and not re.fullmatch(rf"cifar10_c:({'|'.join(data.CORRUPTIONS)}):[1-5]", name):
            raise ValueError(
                f"foreign = {name!r} is not allowed: write cifar10_c:CORRUPTION:SEVERITY with a severity of 1 to 5 "
                f"and one of the corruptions {', '.join(data.CORRUPTIONS)}."
            )
    if foreign and len(data.dataset_info(dataset).shape) != 3:
        raise ValueError(f"foreign = {foreign} is not allowed: {dataset!r} is no data set of images")
    for name in foreign:
        if name == dataset:
            raise ValueError(f"foreign = {name!r} is not allowed: it is the data set itself. Name another one.")
        if ":" not in name and len(data.dataset_info(name).shape) != 3:
            raise ValueError(
                f"foreign = {name!r} is not allowed: it is no data set of images. Those are: "
                f"{', '.join(data.image_names())}, and your own."
            )


def own_content(dataset: str, foreign: Sequence[str]) -> dict[str, str]:
    """The digests of the user's own files that a run reads, by the name of the data set."""
    generated = any(data.GENERATED in name for name in foreign)
    names = {dataset, *(name for name in foreign if ":" not in name), *(["cifar10"] if generated else [])}
    found = {name: data.content(name) for name in sorted(names)}
    own = {name: digest for name, digest in found.items() if digest is not None}
    for name in foreign:
        if name in own and own[name] == own.get(dataset):
            raise ValueError(f"foreign = {name!r} is not allowed: its file is a copy of that of {dataset!r}")
    return own


def check_model(model: str, dataset: str) -> None:
    """Refuse a network that cannot take the samples of a data set."""
    info = data.dataset_info(dataset)
    try:
        _check_fit(model, info.shape, info.n_classes)
    except ValueError as error:
        raise ValueError(f"model = {model!r} is not allowed with dataset = {dataset!r}: {error}") from None


@lru_cache
def _check_fit(model: str, shape: tuple[int, ...], n_classes: int) -> None:
    """Build the network from shapes alone, without weights."""
    networks.make_model(model, shape, n_classes, 0, torch.float32, device="meta")


def defaults_of_loss(name: str) -> dict[str, Any]:
    """The options of a loss with their defaults."""
    build = losses.REGISTRY[name].build
    what = build.args[0] if build.args else build.func
    return {option: parameter.default for option, parameter in inspect.signature(what).parameters.items()}


def check_kinds(where: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse a value of another kind than the default of its option; what has no such option is refused elsewhere."""
    for name, value in options.items():
        if name in defaults and not same_kind(value, defaults[name]):
            kind = _KINDS.get(type(defaults[name]), "a number, a list or a name")
            raise ValueError(
                f"{where}: {name} = {value!r} is not allowed, {kind} is needed (default: {defaults[name]!r})"
            )


def check_values_of_classes(options: Mapping[str, Any], dataset: str, n_classes: int) -> None:
    """Refuse weights or counts of classes that are not one number for each class."""
    for name in ("weight", "class_counts"):
        given = options.get(name)
        if given is not None and not (same_kind(given, ()) and len(given) == n_classes):
            raise ValueError(
                f"{name} must be a list of {n_classes} numbers, one for each class of {dataset!r}, but is {given!r}"
            )


_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a name", tuple: "a list of numbers"}


def same_kind(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int):
        return isinstance(value, int)
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(same_kind(part, 0.0) for part in value)
    kinds = {float: (int, float), str: (str,)}
    return isinstance(value, kinds.get(type(default), object))
