"""What is said of a parameter that is not allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import (
    ValidationError,
)

from gence import losses
from gence.lab import data, networks, training
from gence.words import nearest

__all__ = ["ParameterError"]

TIERS = ("smoke", "laptop", "full")


class ParameterError(ValueError):
    """A run parameter has an unknown name or a value that is not allowed; the message names the fix."""


def explain(error: ValidationError, given: Mapping[str, Any]) -> str:
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
            names = TIERS if name == "tier" else (training.FULL_BATCH,)
            message = nearest_allowed(given[name], names)
        else:
            message = _PLAIN_WORDS.get(item["type"], message)
            message = f": {message}" + (f"; nearest valid: {context['ge']:g}" if "ge" in context else "")
        lines[name] = f"{name} = {given.get(name)!r} is not allowed{message}. Allowed: {allowed_values(name)}."
    return "\n".join(lines.values())


def allowed_values(name: str) -> str:
    names = {
        "dataset": data.dataset_names,
        "model": networks.model_names,
        "loss": losses.loss_names,
        "recipe": training.recipe_names,
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


def nearest_allowed(word: Any, known: Any) -> str:
    return nearest(word, known, say="; nearest valid: {!r}", otherwise="")
