"""Values of parameters from text, as command lines and papermill hand them over."""

from __future__ import annotations

import ast
import contextlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

# What a command line or a YAML file has for nothing.
EMPTY = ("", "none", "null")
MOST_SEEDS, LARGEST_SEED = 10_000, 2**32 - 1
SEEDS_TEXT = "must be a number of seeds, a list, or text such as '0-4,9'"


def seeds_from_text(text: str) -> tuple[int, ...]:
    """'3' -> 0..2 (a number of seeds), '0-4,9' -> 0, 1, 2, 3, 4, 9, '[1, 2]' -> 1, 2."""
    body = text.strip().strip("[]() ")
    if not re.fullmatch(r"[0-9]+(-[0-9]+)?(\s*,\s*[0-9]+(-[0-9]+)?)*,?", body):
        raise ValueError(SEEDS_TEXT)
    if body.isdigit() and text.strip() == body:
        return number_of_seeds(int(body))
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


def number_of_seeds(value: int) -> tuple[int, ...]:
    """3 -> 0, 1, 2."""
    if not 1 <= value <= MOST_SEEDS:
        nearest = max(1, MOST_SEEDS * (value > 0))
        raise ValueError(f"a number of seeds lies in 1..{MOST_SEEDS:,}; nearest valid: {nearest}")
    return tuple(range(value))


def is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().casefold() in EMPTY)


def as_number(value: Any) -> Any:
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


def option_value(name: str, value: Any) -> Any:
    """An option with its numbers read (YAML takes 1e-1 for text), also in a list of them."""
    if isinstance(value, list | tuple):
        return [option_value(name, part) for part in value]
    if hasattr(value, "tolist"):
        return option_value(name, value.tolist())
    if isinstance(value, bool):
        return value
    try:
        return as_number(value)
    except ValueError as error:
        raise ValueError(f"{name} = {value!r}: {error}") from None


def options_from(value: Any) -> dict[str, Any]:
    """Options of a loss or a recipe, from a dictionary or from its JSON text."""
    if is_empty(value):
        return {}
    if isinstance(value, str):  # papermill's command line passes a dictionary as text
        try:
            value = json.loads(value, object_pairs_hook=_without_repetition)
        except json.JSONDecodeError as error:
            example = '{"strength": 0.5}'
            raise ValueError(f"must be a dictionary or its JSON text, for example {example}: {error}") from None
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be a dictionary of names and values, or its JSON text")
    return {name: option_value(name, option) for name, option in value.items()}


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError(f"an option is given more than once, among {', '.join(found)}")
    return found


def names_from_text(text: str) -> list[Any]:
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
