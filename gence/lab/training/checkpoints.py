"""Checkpoints that are whole or not there: replaced in one move, with what they belong to written inside.

A checkpoint holds the state of a training and the *identity* of that training. It is only given back to a training of
the same identity, so that nothing can go on from the weights of another recipe, seed, loss, model or data set.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gence.lab.storage import replace_file

__all__ = ["describe_module", "digest", "load_checkpoint", "save_checkpoint"]

# Counts up when what a checkpoint holds changes; older ones are then refused.
SCHEMA = 1


def save_checkpoint(path: Path, identity: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Write a checkpoint in one move.

    Args:
        path: the file.
        identity: what the state belongs to, as text by name.
        state: tensors, numbers, text, and lists and dictionaries of these.

    Raises:
        OSError: the folder cannot be written.

    Example:
        >>> path = Path(getfixture("tmpdir")) / "run.pt"
        >>> save_checkpoint(path, {"seed": "0"}, {"done": 3})
        >>> load_checkpoint(path, {"seed": "0"})
        {'done': 3}
    """
    content = {"schema": SCHEMA, "identity": dict(identity), "state": dict(state)}
    replace_file(path, lambda file: torch.save(content, file))


def load_checkpoint(path: Path, identity: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read a checkpoint; nothing but data is unpickled.

    Args:
        path: the file.
        identity: what it must belong to; None takes any.

    Returns:
        The state, its tensors on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged or no checkpoint, or one of another identity; the message says what differs.

    Example:
        >>> path = Path(getfixture("tmpdir")) / "run.pt"
        >>> save_checkpoint(path, {"seed": "0"}, {"done": 3})
        >>> load_checkpoint(path, {"seed": "1"})
        Traceback (most recent call last):
        ...
        ValueError: .../run.pt belongs to another training: seed is 0 there and 1 here. ...
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:  # torch.load does not look at the checksums
                if archive.testzip() is not None:
                    raise ValueError("a checksum is wrong")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
            schema, there, state = content["schema"], content["identity"], content["state"]
        except Exception as error:  # a damaged file may fail anywhere in the reader
            first = (str(error).splitlines() or [""])[0]
            raise ValueError(
                f"{path} is damaged or no checkpoint ({type(error).__name__}: {first[:120]}). "
                f"Delete it, and the training begins anew."
            ) from error
    if schema != SCHEMA:
        raise ValueError(f"{path} is a checkpoint of schema {schema}, but this code reads {SCHEMA}. Delete it.")
    if identity is not None and there != dict(identity):
        names = [name for name in {**there, **identity} if there.get(name) != identity.get(name)]
        differs = "; ".join(
            f"{n} is {there.get(n, 'not set')} there and {identity.get(n, 'not set')} here" for n in names
        )
        raise ValueError(
            f"{path} belongs to another training: {differs}. "
            f"Choose another path for this training, or delete the file to begin anew."
        )
    return state


def digest(arrays: Iterable[np.ndarray | Tensor]) -> str:
    """Return a short hash of shapes, dtypes and values.

    Example:
        >>> a = np.zeros((2, 3))
        >>> digest([a]) == digest([a.copy()]), digest([a]) == digest([a.T])
        (True, False)
    """
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        found.update(f"{array.dtype} {tuple(array.shape)}".encode())
        if isinstance(array, Tensor):  # by its bytes: numpy knows no bfloat16
            array = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def describe_module(module: nn.Module) -> str:
    """Name a module by its structure, its options and a hash of its parameters and buffers.

    Options are the attributes of the outermost module that are numbers, text, or lists of them. Long structures are
    hashed.

    Example:
        >>> describe_module(nn.ReLU())
        'ReLU() inplace=False e4a6a0577479b2b4'
    """
    structure = " ".join(repr(module).split())
    plain = (int, float, str, tuple, list)
    options = [
        f"{name}={value!r}"
        for name, value in vars(module).items()
        if isinstance(value, plain) and f"{name}=" not in structure and name != "training" and not name.startswith("_")
    ]
    if len(structure) > 400:  # a deep network; nobody reads that in a message
        structure = f"{module._get_name()} {hashlib.blake2b(structure.encode(), digest_size=8).hexdigest()}"
    values = [tensor for _, tensor in sorted(module.state_dict().items())]
    return " ".join([structure, *options, digest(values)])
