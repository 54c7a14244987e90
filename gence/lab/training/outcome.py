"""What a training gives: logits and what was measured on the way; saved, loaded, evaluated."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gence import metrics
from gence.lab.data import Splits
from gence.lab.training import checkpoints

__all__ = ["Outcome", "evaluate_outcome", "load_outcome", "save_outcome"]


@dataclass
class Outcome:
    """What the training of one seed gives.

    Attributes:
        logits: checkpoint (``"last"``, ``"best"`` on validation NLL) to split (``"val"``, ``"test"``) to (N, K) logits.
        best_epoch: the epoch, counted from 1, of the ``"best"`` checkpoint.
        train_error: error of the last checkpoint on the training set, not augmented; a fraction.
        history: curves over the training: ``epoch``, ``train_loss`` (mean of the epoch), ``val_nll``.

    Example:
        >>> Outcome(logits={}, best_epoch=3, train_error=0.0).best_epoch
        3
    """

    logits: dict[str, dict[str, np.ndarray]]
    best_epoch: int
    train_error: float
    history: dict[str, list[float]] = field(default_factory=dict)


def evaluate_outcome(outcome: Outcome, splits: Splits, split: str = "test") -> dict[str, dict[str, float]]:
    """Return all metrics of both checkpoints on a held-out split.

    Args:
        outcome: of :func:`train`.
        splits: the data it was trained on.
        split: ``"val"`` or ``"test"``.

    Returns:
        Checkpoint to metric to value.

    Example:
        >>> from gence.lab.data import load_splits
        >>> splits = load_splits("digits", seed=0, n_per_class=5)
        >>> certain = 50 * np.eye(10)[splits.y_test]
        >>> outcome = Outcome(logits={"last": {"test": certain}}, best_epoch=1, train_error=0.0)
        >>> evaluate_outcome(outcome, splits)["last"]["error"]
        0.0
    """
    labels = {"val": splits.y_val, "test": splits.y_test}[split]
    return {
        checkpoint: metrics.evaluate(torch.as_tensor(logits[split]).softmax(1), labels)
        for checkpoint, logits in outcome.logits.items()
    }


def save_outcome(outcome: Outcome, splits: Splits, path: str | Path) -> None:
    """Write an outcome and the labels of its held-out splits into an .npz file, whole or not at all.

    All that comes after the training (metrics, calibration) can be computed from this file, without the network. It
    holds the logits ``last_val``, ``last_test``, ``best_val``, ``best_test``, the labels ``y_val``, ``y_test``, and the
    rest as JSON text.

    Args:
        outcome: of :func:`train`.
        splits: the data it was trained on.
        path: the file.

    Raises:
        OSError: the folder cannot be written.

    Example:
        >>> from gence.lab.data import load_splits
        >>> splits = load_splits("digits", seed=0, n_per_class=5)
        >>> path = Path(getfixture("tmpdir")) / "outcome.npz"
        >>> save_outcome(Outcome({"last": {"val": np.zeros((2, 10))}}, 3, 0.0), splits, path)
        >>> load_outcome(path).logits["last"]["val"].shape
        (2, 10)
    """
    facts = {name: getattr(outcome, name) for name in ("best_epoch", "train_error", "history")}
    arrays = {f"{c}_{split}": z for c, by_split in outcome.logits.items() for split, z in by_split.items()}
    content = arrays | {"y_val": splits.y_val, "y_test": splits.y_test, "facts": np.array(json.dumps(facts))}
    checkpoints.replace_file(Path(path), lambda file: np.savez(file, **content))


def load_outcome(path: str | Path) -> Outcome:
    """Read what :func:`save_outcome` wrote.

    Args:
        path: the file.

    Returns:
        The outcome. The labels are in the file too: ``numpy.load(path)["y_test"]``.

    Raises:
        FileNotFoundError: there is no such file.

    Example:
        See :func:`save_outcome`.
    """
    with np.load(path, allow_pickle=False) as content:
        logits: dict[str, dict[str, np.ndarray]] = {}
        for name in content.files:
            if name[:2] != "y_" and name != "facts":
                checkpoint, _, split = name.partition("_")
                logits.setdefault(checkpoint, {})[split] = content[name]
        return Outcome(logits, **json.loads(str(content["facts"])))


def mean_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """(S,) mean negative log-likelihood of (S, N, K) logits."""
    return -logits.log_softmax(-1).gather(-1, labels[..., None]).mean((1, 2))
