"""Records as files: what makes one whole. Without torch, so that the engine can look at thousands of them at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["DAMAGED", "RECORD_SCHEMA", "flaw", "read_record"]

# Counts up when a record holds something else than before.
RECORD_SCHEMA = 3
# What is put behind the name of a record that is not whole, when its seed is trained again.
DAMAGED = ".damaged"
CHECKPOINTS = {"last", "best"}
KINDS: dict[str, type | tuple[type, ...]] = {
    "identity": str,
    "seed": int,
    "parameters": dict,
    "recipe": dict,
    "batch_sizes": dict,
    "class_counts": list,
    "test": dict,
    "class_error": dict,
    "foreign": dict,
    "best_epoch": (int, list, dict, type(None)),
    "train_error": (int, float, dict, type(None)),
    "history": dict,
    "provenance": dict,
}


def read_record(path: Path, identity: str | None = None, seed: int | None = None) -> dict[str, Any]:
    """Read one record, or say why it is none.

    Args:
        path: of the record.
        identity: of the run that the record must belong to; None does not ask.
        seed: the seed that it must belong to; None does not ask.

    Raises:
        ValueError: not whole, of another schema, or of another run or seed; with the path and what to do.
        OSError: no such file, or it may not be read.

    Example:
        >>> path = Path(getfixture("tmpdir")) / "seed0000.json"
        >>> _ = path.write_text("[]")
        >>> read_record(path)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: ...seed0000.json is not a whole record: it holds a list and no record. Train it again: ...
    """
    reason, record = None, None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except IsADirectoryError:
        reason = "it is a folder"
    except UnicodeDecodeError:
        reason = "it is no UTF-8 text"
    except (json.JSONDecodeError, RecursionError) as error:
        reason = f"it is no JSON ({error})" if path.stat().st_size else "it is empty"
    reason = reason or _flaw_of(record)
    if reason is None and identity is not None and (record["identity"], record["seed"]) != (identity, seed):
        reason = f"it holds the record of {record['identity']}, seed {record['seed']}: it was moved"
    if reason is not None:
        raise ValueError(
            f"{path} is not a whole record: {reason}. Train it again: `make sweep` with its grid, or "
            f"gence.lab.runs.execute with its parameters; the file is then kept as {path.name}{DAMAGED}."
        )
    return record


def flaw(path: Path, identity: str, seed: int) -> str | None:
    """Say why there is no record of a seed; None where there is one, and an empty text where there is no file.

    Example:
        >>> flaw(Path("nowhere/seed0000.json"), "a-run", 0)
        ''
    """
    try:
        read_record(path, identity, seed)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except ValueError as error:
        return str(error)
    return None


def _flaw_of(record: Any) -> str | None:
    if not isinstance(record, dict):
        return f"it holds {'nothing' if record is None else f'a {type(record).__name__}'} and no record"
    if record.get("schema") != RECORD_SCHEMA:
        return f"it has schema {record.get('schema')}, expected {RECORD_SCHEMA}"
    for name, kind in KINDS.items():
        if name not in record:
            return f"it lacks {name}"
        if not isinstance(record[name], kind) or isinstance(record[name], bool):
            return f"its {name} is {record[name]!r}"[:200]
    if missing := {"commit", "device"} - set(record["provenance"]):
        return f"its provenance lacks {_listed(missing)}"
    of_checkpoints = {"test": record["test"], "class_error": record["class_error"]}
    of_checkpoints |= {f"foreign {name}": scores for name, scores in record["foreign"].items()}
    for name, values in of_checkpoints.items():
        if not isinstance(values, dict) or (missing := CHECKPOINTS - set(values)):
            return f"its {name} lacks {_listed(missing) if isinstance(values, dict) else 'everything'}"
    for checkpoint in CHECKPOINTS:
        if (reason := _flaw_of_metrics(record["test"][checkpoint])) is not None:
            return f"its test metrics of the {checkpoint} epoch {reason}"
    return None


def _flaw_of_metrics(values: Mapping[str, Any]) -> str | None:
    if not isinstance(values, dict) or (missing := {"error", "nll", "ece"} - set(values)):
        return f"lack {_listed(missing) if isinstance(values, dict) else 'everything'}"
    wrong = [name for name, v in values.items() if not isinstance(v, int | float) or isinstance(v, bool)]
    return f"are no numbers: {_listed(wrong)}" if wrong else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
