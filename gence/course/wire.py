"""Values between two processes as JSON: what a student's code sends is read as data, and never as code."""

from __future__ import annotations

import gc
import json
import numbers
import types
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["MOST", "functions", "pack", "raised", "unpack"]

MOST = 4 * 2**20  # bytes of one message
_KNOWN = {error.__name__: error for error in (NotImplementedError, SystemExit)}


def functions() -> dict[int, Callable]:
    """The functions that graders hand to students, by a number that holds in this process and in forks of it."""
    every = (thing for thing in gc.get_objects() if type(thing) is types.FunctionType)
    return {id(thing): thing for thing in every if (thing.__module__ or "").startswith("gence.course.")}


def pack(value: Any) -> bytes:
    """A value as JSON: numbers, text, lists, dicts and arrays as they are, functions by number, all else by name.

    Raises:
        ValueError: it is too large, too deep, or holds itself.

    Example:
        >>> unpack(pack(["value", (0.1, float("inf")), np.float32(2)]))
        ['value', (0.1, inf), np.float32(2.0)]
    """
    try:
        text = json.dumps(_plain(value)).encode()
    except RecursionError:
        raise ValueError("too deep") from None
    if len(text) > MOST:
        raise ValueError(f"too large: {len(text)} bytes, and {MOST} are the most")
    return text


def unpack(text: bytes, known: dict[int, Callable] | None = None) -> Any:
    """The value again; `known` are the functions that numbers stand for. Raises a ValueError for anything else."""
    try:
        return _value(json.loads(text), known or {})
    except (RecursionError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a message: {error}") from None


def raised(name: str, message: str) -> BaseException:
    """An exception as it was on the other side, by its name."""
    kind = _KNOWN.get(name) or type(name if name.isidentifier() else "Exception", (Exception,), {})
    return kind(message)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | str) or type(value) in (int, float):
        return value
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, tuple):
        return {"tuple": [_plain(v) for v in value]}
    if isinstance(value, dict):
        return {"dict": [[_plain(k), _plain(v)] for k, v in value.items()]}
    if isinstance(value, types.FunctionType):
        return {"function": id(value), "name": value.__name__}
    value = value.detach().cpu() if hasattr(value, "detach") else value
    kind = str(getattr(value, "dtype", "")).removeprefix("torch.")
    if hasattr(value, "tolist"):
        return {"array": value.tolist(), "kind": "float32" if kind == "bfloat16" else kind}
    if isinstance(value, numbers.Real):
        return float(value)
    return {"other": type(value).__name__, "says": repr(value)[:200]}


def _value(found: Any, known: dict[int, Callable]) -> Any:
    if isinstance(found, list):
        return [_value(v, known) for v in found]
    if not isinstance(found, dict):
        return found
    if "tuple" in found:
        return tuple(_value(v, known) for v in found["tuple"])
    if "dict" in found:
        return {_value(k, known): _value(v, known) for k, v in found["dict"]}
    if "array" in found:
        numeric = found["kind"].startswith(("float", "int", "uint", "bool"))
        return np.array(found["array"], dtype=found["kind"] if numeric else None)[()]
    if found.get("function") in known:
        return known[found["function"]]
    return _other(found.get("other") or "function", found.get("says") or str(found.get("name")))


def _other(name: str, says: str) -> Any:
    """Something that is no data: it keeps its name and its words."""
    kind = type(name if name.isidentifier() else "object", (), {"__repr__": lambda self: says})
    return kind()
