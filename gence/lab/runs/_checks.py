"""Checks of options and networks before anything is trained."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

from gence import losses
from gence.lab import networks


@lru_cache
def check_fit(model: str, shape: tuple[int, ...], n_classes: int) -> None:
    """Refuse a network that cannot take these samples: built from shapes alone, without weights."""
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
