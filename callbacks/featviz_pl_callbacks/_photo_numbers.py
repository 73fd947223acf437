"""Index in the data set of each photo of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import BatchSampler, IterableDataset, SequentialSampler

PHOTOS_PER_LOADER = 1 << 40  # photos of different DataLoaders have different numbers

# By name, because both packages of Lightning have their own classes.
_DISTRIBUTED_SAMPLERS = {
    "DistributedSampler",
    "DistributedSamplerWrapper",
    "UnrepeatedDistributedSampler",
    "UnrepeatedDistributedSamplerWrapper",
}


class PhotoNumbers:
    """Number the photos of one DataLoader, batch by batch.

    Numbers are indices into the data set where the order is deterministic: sequential, or as a ``DistributedSampler``
    divides and shuffles. The samples that it repeats, so that all processes have equally many, have no number.
    Otherwise (random order in one process, custom samplers, iterable data sets) photos are numbered as they come.

    Args:
        loader: the DataLoader, or any iterable of batches.
        loader_index: of the DataLoader, 0 or more.
        rank: of this process.
        ranks: number of processes.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> numbers = PhotoNumbers(DataLoader(range(5), batch_size=2), 0, 0, 1)
        >>> numbers.are_indices, numbers.next_batch(2), numbers.next_batch(2), numbers.next_batch(1)
        (True, [0, 1], [2, 3], [4])
    """

    def __init__(self, loader: Any, loader_index: int, rank: int, ranks: int) -> None:
        self._offset, self._rank, self._ranks = loader_index * PHOTOS_PER_LOADER, rank, ranks
        self._batches = _index_batches(loader, ranks)
        self._count = 0

    @property
    def are_indices(self) -> bool:
        """Whether the numbers are indices into the data set."""
        return self._batches is not None

    def next_batch(self, size: int) -> list[int | None]:
        """Return the numbers of the next batch; None for samples that the sampler repeats."""
        if self._batches is None:
            start, self._count = self._count, self._count + size
            return [self._offset + index * self._ranks + self._rank for index in range(start, self._count)]
        numbers = next(self._batches, [])
        if len(numbers) != size:
            raise ValueError(
                f"batch: ambiguous photo numbers: it has {size} pictures, and its sampler gave {len(numbers)} indices; "
                "return one picture for each"
            )
        return [None if number is None else self._offset + number for number in numbers]


def _index_batches(loader: Any, ranks: int) -> Iterator[list[int | None]] | None:
    """Return the indices of each batch, or None when reading them would disturb the sampler."""
    batches = getattr(loader, "batch_sampler", None)
    batches = getattr(batches, "_batch_sampler", batches)  # Lightning's wrapper for predictions
    if (
        type(batches) is not BatchSampler
        or isinstance(loader.dataset, IterableDataset)
        or not getattr(loader, "in_order", True)
    ):
        return None
    sampler: Any = batches.sampler
    if type(sampler).__name__ in _DISTRIBUTED_SAMPLERS:
        inner = getattr(sampler.dataset, "_sampler", None)  # the user's, which Lightning divides
        if getattr(sampler, "num_replicas", None) != ranks or not (inner is None or type(inner) is SequentialSampler):
            return None
        return _distributed_batches(batches, sampler)
    return map(list, batches) if type(sampler) is SequentialSampler and ranks == 1 else None


def _distributed_batches(batches: BatchSampler, sampler: Any) -> Iterator[list[int | None]]:
    """Yield the indices of rank r, every R-th from the r-th; None for those repeated at the end."""
    position, total = 0, len(sampler.dataset)
    for batch in batches:
        global_positions = ((position + row) * sampler.num_replicas + sampler.rank for row in range(len(batch)))
        yield [index if row < total else None for row, index in zip(global_positions, batch)]
        position += len(batch)


def list_loaders(loaders: Any) -> list[Any]:
    """Return the DataLoaders of a Trainer as a list, whether it has one, or several in lists and mappings.

    Example:
        >>> list_loaders({"a": 1, "b": [2, 3]}), list_loaders(4)
        ([1, 2, 3], [4])
    """
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if not isinstance(loaders, (list, tuple)):
        return [loaders]
    return [loader for part in loaders for loader in list_loaders(part)]
