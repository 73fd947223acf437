"""Photos from files in batches of one size, read by several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from featviz_pl.io.photos import check_photo_channels
from featviz_pl.io.reading import UnreadableError, read_picture
from featviz_pl.numerics.checks import size_pair, whole_number
from featviz_pl.numerics.resampling import crop_and_resize

Size = tuple[int, int]


@dataclass(frozen=True)
class PhotoBatch:
    """Hold the photos of one batch of files.

    Args:
        pictures: (B, C, h, w) in [0, 1], of the files that can be read; B is 0 where none can.
        indices: of those files among all paths.
        enlarged: how many of them have fewer pixels than asked for.
        unreadable: indices of the files that cannot be read.
        reason: why the first of those cannot.
    """

    pictures: Tensor
    indices: list[int]
    enlarged: int = 0
    unreadable: list[int] = field(default_factory=list)
    reason: str = ""


def photo_batches(
    paths: Sequence[str | os.PathLike[str]],
    size: int | Sequence[int],
    channels: int = 3,
    batch_size: int = 32,
    workers: int = 0,
) -> Iterator[PhotoBatch]:
    """Read photos, cut to the aspect of `size` about their centre, resampled to it and rounded to 256 levels.

    The arguments are checked at once, the files are read one batch after the other. The result does not depend on the
    number of workers; it is that of `read_photos`, with what could not be read skipped and counted.
    """
    check_photo_channels(channels)
    photos = _Photos(
        [os.fspath(path) for path in paths], size_pair("size", size), channels, whole_number("batch_size", batch_size)
    )
    # A generator of its own: a loader would draw from the global one. Arrays, not tensors, go through a pipe and need
    # no shared memory.
    loader = DataLoader(
        photos,
        batch_size=None,
        num_workers=whole_number("workers", workers, least=0),
        collate_fn=_as_it_is,
        generator=torch.Generator().manual_seed(0),
    )
    return (_batch(*part) for part in loader)


@dataclass
class Measured:
    """Hold what was measured over photos.

    Args:
        values: a part for each batch, by name.
        indices: of the photos among all paths.
        enlarged: how many of them have fewer pixels than asked for.
        unreadable: indices of the files that cannot be read, and were left out.
        reason: why the first of those cannot.
    """

    values: dict[str, list[Tensor]] = field(default_factory=dict)
    indices: list[int] = field(default_factory=list)
    enlarged: int = 0
    unreadable: list[int] = field(default_factory=list)
    reason: str = ""


def over_photos(
    paths: Sequence[str | os.PathLike[str]],
    size: int | Sequence[int],
    channels: int,
    batch_size: int,
    workers: int,
    measure: Callable[[Tensor], dict[str, Tensor]],
    progress: Callable[[int, int], object] | None = None,
) -> Measured:
    """Measure all photos that can be read, batch by batch; `progress` is called with the files read so far and all of them."""
    found, done = Measured(), 0
    for batch in photo_batches(paths, size, channels, batch_size, workers):
        if batch.indices:
            for name, values in measure(batch.pictures).items():
                found.values.setdefault(name, []).append(values)
        found.indices += batch.indices
        found.enlarged += batch.enlarged
        found.unreadable += batch.unreadable
        found.reason = found.reason or batch.reason
        done += len(batch.indices) + len(batch.unreadable)
        if progress is not None:
            progress(done, len(paths))
    return found


class _Photos(Dataset[Any]):
    """One batch of files at a time, as levels from 0 to 255."""

    def __init__(self, paths: list[str], size: Size, channels: int, batch_size: int) -> None:
        self.paths, self.size, self.channels, self.batch_size = paths, size, channels, batch_size

    def __len__(self) -> int:
        return -(-len(self.paths) // self.batch_size)

    def __getitem__(self, batch: int) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        levels: list[Tensor] = []
        found: dict[str, Any] = {"indices": [], "enlarged": 0, "unreadable": [], "reason": ""}
        first = batch * self.batch_size
        for index, path in enumerate(self.paths[first : first + self.batch_size], first):
            try:
                photo = read_picture(path, self.channels, argument="")
            except UnreadableError as error:
                found["unreadable"].append(index)
                found["reason"] = found["reason"] or str(error)
                continue
            levels.append((crop_and_resize(photo[None], self.size)[0] * 255).round().to(torch.uint8))
            found["indices"].append(index)
            found["enlarged"] += photo.shape[1] < self.size[0] or photo.shape[2] < self.size[1]
        stacked = torch.stack(levels) if levels else torch.empty((0, self.channels, *self.size), dtype=torch.uint8)
        return stacked.numpy(), found


def _batch(levels: np.ndarray[Any, Any], found: dict[str, Any]) -> PhotoBatch:
    return PhotoBatch(torch.from_numpy(levels).to(torch.float32) / 255, **found)


def _as_it_is(part: Any) -> Any:
    return part
