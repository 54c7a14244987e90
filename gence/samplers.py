"""Which samples make a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice

import numpy as np
from torch.utils.data import Sampler

from gence.words import nearest

__all__ = ["LAST_BATCH", "ClassBalancedBatchSampler", "EvenBatchSampler", "batch_sizes"]

# What happens where the batch size does not divide the number of samples.
LAST_BATCH = ("even", "drop", "keep")


def batch_sizes(n: int, batch_size: int, last_batch: str = "even") -> list[int]:
    """Return how many samples each batch of an epoch has.

    Args:
        n: samples of the training set, >= 1.
        batch_size: samples in a batch, >= 1; a larger one than n is n.
        last_batch: ``"even"`` takes as few batches as `batch_size` allows and makes their sizes differ by at most one,
            ``"drop"`` leaves out the samples that do not fill a batch (others in each epoch), ``"keep"`` makes a
            short batch of them, as a :class:`torch.utils.data.DataLoader` does. A short batch takes a whole step on a
            few samples, and a loss with a batch term is another loss on it.

    Returns:
        The sizes, in the order of the batches.

    Raises:
        ValueError: no samples, a batch size below 1, or an unknown `last_batch`.

    Example:
        >>> [batch_sizes(50, 16, rest) for rest in LAST_BATCH]
        [[13, 13, 12, 12], [16, 16, 16], [16, 16, 16, 2]]
    """
    if last_batch not in LAST_BATCH:
        raise ValueError(
            f"last_batch = {last_batch!r} is not allowed{nearest(last_batch, LAST_BATCH)} "
            f"Allowed: {', '.join(map(repr, LAST_BATCH))}."
        )
    if n < 1 or batch_size < 1:
        raise ValueError(f"batches need samples and a batch size >= 1, but got {n} samples, batch_size = {batch_size}")
    full, rest = divmod(n, min(batch_size, n))
    if rest and last_batch == "even":
        size, larger = divmod(n, full + 1)
        return [size + 1] * larger + [size] * (full + 1 - larger)
    return [min(batch_size, n)] * full + [rest] * (rest > 0 and last_batch == "keep")


class EvenBatchSampler(Sampler[list[int]]):
    """Batches of a sampler's samples whose sizes differ by at most one, so that no epoch ends in a short batch.

    Hand it to a :class:`torch.utils.data.DataLoader` as ``batch_sampler``, in the place of ``batch_size``.

    Args:
        sampler: yields the indices of an epoch and has a length, as torch's ``RandomSampler`` does.
        batch_size: the most samples in a batch, >= 1.

    Raises:
        ValueError: a batch size below 1, or an empty sampler.

    Source: as torch's ``BatchSampler``, which leaves a short batch or drops it.

    Example:
        >>> [len(batch) for batch in EvenBatchSampler(range(50), batch_size=16)]
        [13, 13, 12, 12]
    """

    def __init__(self, sampler: Sized | Iterable[int], batch_size: int) -> None:
        """Fix the sizes; see the class."""
        self.sampler, self.sizes = sampler, batch_sizes(len(sampler), batch_size)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the next epoch."""
        samples = iter(self.sampler)
        return (list(islice(samples, size)) for size in self.sizes)


class ClassBalancedBatchSampler(Sampler[list[int]]):
    """Batches in which all classes occur equally often, to within one sample.

    A batch smaller than the number of classes holds as many different ones, and the batches take turns. The samples of
    a class are shuffled and used up before they are shuffled again, so a rare class repeats its samples within an
    epoch and a frequent one needs several epochs to show all of its own. An epoch has as many batches and samples as
    :func:`batch_sizes` says. Hand it to a :class:`torch.utils.data.DataLoader` as ``batch_sampler``; every iteration is
    a new epoch.

    Args:
        labels: (n,) class indices of the training set.
        batch_size: samples in a batch, >= 1.
        seed: fixes the batches.
        last_batch: as in :func:`batch_sizes`.

    Raises:
        ValueError: no labels, a batch size below 1, or an unknown `last_batch`.

    Source: class-balanced sampling as in Kang et al. (2020), with counts in each batch in place of chances.

    Example:
        >>> batches = ClassBalancedBatchSampler([0, 0, 0, 0, 0, 1], batch_size=2, seed=0)
        >>> [sorted([0, 0, 0, 0, 0, 1][i] for i in batch) for batch in batches]
        [[0, 1], [0, 1], [0, 1]]
    """

    def __init__(
        self, labels: Sequence[int] | np.ndarray, batch_size: int, seed: int, last_batch: str = "even"
    ) -> None:
        """Sort the samples by class; see the class."""
        labels = np.asarray(labels)
        self.sizes = batch_sizes(len(labels), batch_size, last_batch)
        self._random = np.random.default_rng([seed, 3])
        self._turn: list[int] = []
        self._members = {k: self._without_end(np.flatnonzero(labels == k)) for k in np.unique(labels).tolist()}

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the next epoch."""
        order = iter(self.order().tolist())
        return (list(islice(order, size)) for size in self.sizes)

    def order(self) -> np.ndarray:
        """The samples of the next epoch, batch after batch."""
        return np.array([next(self._members[k]) for size in self.sizes for k in self._batch_of_classes(size)])

    def _batch_of_classes(self, size: int) -> list[int]:
        """Every class equally often; the classes that fill the rest take turns from batch to batch."""
        rounds, rest = divmod(size, len(self._members))
        filled, self._turn = self._turn[:rest], self._turn[rest:]
        if missing := rest - len(filled):
            turn = self._random.permutation(list(self._members)).tolist()
            turn.sort(key=filled.__contains__)  # those that this batch has already come last
            filled, self._turn = filled + turn[:missing], turn[missing:]
        return [*self._members] * rounds + filled

    def _without_end(self, values: np.ndarray) -> Iterator[int]:
        """The values in random order, then in another one, and so on."""
        while True:
            yield from self._random.permutation(values).tolist()
