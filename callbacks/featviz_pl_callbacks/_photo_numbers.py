"""Which photo of the data set each picture of a batch is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import BatchSampler, IterableDataset, SequentialSampler

OF_ONE_LOADER = 1 << 40  # photos of different DataLoaders have different numbers

# By name, because both namespaces of Lightning have their own.
_DIVIDES = {
    "DistributedSampler",
    "DistributedSamplerWrapper",
    "UnrepeatedDistributedSampler",
    "UnrepeatedDistributedSamplerWrapper",
}


class PhotoNumbers:
    """Number the photos of one DataLoader, batch by batch.

    Numbers are indices of the data set where the order is known beforehand: in order, or as a ``DistributedSampler``
    divides and shuffles. What that sampler repeats, so that all processes have equally many, has no number. Otherwise
    (random order on one process, samplers of one's own, iterable data sets) photos are numbered as they come.

    Args:
        loader: the DataLoader, or anything that gives batches.
        which: number of the DataLoader, 0 or more.
        rank: of this process.
        ranks: number of processes.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> numbers = PhotoNumbers(DataLoader(range(5), batch_size=2), 0, 0, 1)
        >>> numbers.known, numbers.of_batch(2), numbers.of_batch(2), numbers.of_batch(1)
        (True, [0, 1], [2, 3], [4])
    """

    def __init__(self, loader: Any, which: int, rank: int, ranks: int) -> None:
        self._first, self._rank, self._ranks = which * OF_ONE_LOADER, rank, ranks
        self._batches = _known_batches(loader, ranks)
        self._seen = 0

    @property
    def known(self) -> bool:
        """Whether the numbers are indices of the data set."""
        return self._batches is not None

    def of_batch(self, count: int) -> list[int | None]:
        """Return the numbers of the next batch, of that many pictures; None for repeated ones."""
        if self._batches is not None:
            numbers = next(self._batches, [])
            if len(numbers) == count:
                return [None if number is None else self._first + number for number in numbers]
            raise ValueError(
                f"batch: it holds {count} pictures, but its sampler gave {len(numbers)} indices, so that nobody knows which photos they "
                "are; give one picture for each index"
            )
        numbers = [(self._seen + place) * self._ranks + self._rank for place in range(count)]
        self._seen += count
        return [self._first + number for number in numbers if number is not None]


def _known_batches(loader: Any, ranks: int) -> Iterator[list[int | None]] | None:
    """Return the indices of each batch, or None when nobody can know them without disturbing the sampler."""
    batches = getattr(loader, "batch_sampler", None)
    batches = getattr(batches, "_batch_sampler", batches)  # what Lightning wraps for predictions
    if (
        type(batches) is not BatchSampler
        or isinstance(loader.dataset, IterableDataset)
        or not getattr(loader, "in_order", True)
    ):
        return None
    sampler: Any = batches.sampler
    if type(sampler).__name__ in _DIVIDES:
        inner = getattr(sampler.dataset, "_sampler", None)  # the user's own, which Lightning divides
        if getattr(sampler, "num_replicas", None) != ranks or not (inner is None or type(inner) is SequentialSampler):
            return None
        return _divided(batches, sampler)
    return _in_order(batches) if type(sampler) is SequentialSampler and ranks == 1 else None


def _in_order(batches: BatchSampler) -> Iterator[list[int | None]]:
    for batch in batches:
        yield list(batch)


def _divided(batches: BatchSampler, sampler: Any) -> Iterator[list[int | None]]:
    """Process r has every R-th index from the r-th; indices are repeated at the end of what all have together."""
    seen, total = 0, len(sampler.dataset)
    for batch in batches:
        places = range(seen, seen + len(batch))
        yield [
            index if place * sampler.num_replicas + sampler.rank < total else None
            for place, index in zip(places, batch)
        ]
        seen += len(batch)


def listed_loaders(loaders: Any) -> list[Any]:
    """Return all DataLoaders of what Lightning holds: one, or several in lists and mappings.

    Example:
        >>> listed_loaders({"a": 1, "b": [2, 3]}), listed_loaders(4)
        ([1, 2, 3], [4])
    """
    parts = (
        loaders.values() if isinstance(loaders, Mapping) else loaders if isinstance(loaders, (list, tuple)) else None
    )
    return [loaders] if parts is None else [loader for part in parts for loader in listed_loaders(part)]
