"""Photos in folders, and in batches of one size that several processes read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from featviz_pl.io.reading import UnreadableError, read_picture
from featviz_pl.numerics.checks import size_pair, whole_number
from featviz_pl.numerics.resampling import crop_and_resize

_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif")
_FEW_PHOTOS = 500  # are read sooner than processes are started
_MAX_WORKERS = 16


def photo_paths(folder: str | os.PathLike[str], limit: int | None = None) -> list[str]:
    """Return the image files of a folder and its subfolders, sorted, or at most `limit` of them, evenly spread.

    Raises:
        ValueError: when the folder is missing or holds none.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"folder: there is no folder {str(folder)!r}")
    paths = sorted(
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(_SUFFIXES) and not name.startswith(".")
    )
    if not paths:
        raise ValueError(f"folder: {str(folder)!r} holds no image files ({', '.join(_SUFFIXES)})")
    return [paths[index] for index in spread(len(paths), limit)]


def spread(count: int, limit: int | None) -> list[int]:
    """Return the numbers below `count`, or at most `limit` of them, evenly spread.

    Example:
        >>> spread(10, 4), spread(3, 4)
        ([0, 2, 5, 7], [0, 1, 2])
    """
    length = count if limit is None else min(count, whole_number("limit", limit))
    return [index * count // length for index in range(length)]


def useful_workers(photos: int) -> int:
    """Return how many processes should read so many photos besides this one: none for few, else one for each core.

    Example:
        >>> useful_workers(500)
        0
    """
    if photos <= _FEW_PHOTOS:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MAX_WORKERS)


def check_photo_channels(channels: int) -> None:
    """Refuse numbers of channels that photos do not have."""
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3 for photos, got {channels!r}")


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
    number of workers.
    """
    check_photo_channels(channels)
    files = [os.fspath(path) for path in paths]
    photos = _Photos(files, size_pair("size", size), channels, whole_number("batch_size", batch_size))
    loader = DataLoader(
        photos,
        batch_size=None,
        num_workers=whole_number("workers", workers, least=0),
        collate_fn=_identity,  # arrays, unlike tensors, go through a pipe and need no shared memory
        generator=torch.Generator().manual_seed(0),  # a loader would draw from the global one
    )
    return (PhotoBatch(torch.from_numpy(levels).to(torch.float32) / 255, **outcome) for levels, outcome in loader)


class _Photos(Dataset[Any]):
    """One batch of files at a time: levels from 0 to 255, and the other arguments of `PhotoBatch`."""

    def __init__(self, paths: list[str], size: tuple[int, int], channels: int, batch_size: int) -> None:
        self.paths, self.size, self.channels, self.batch_size = paths, size, channels, batch_size

    def __len__(self) -> int:
        return -(-len(self.paths) // self.batch_size)

    def __getitem__(self, batch: int) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        levels = [torch.empty((0, self.channels, *self.size), dtype=torch.uint8)]
        indices: list[int] = []
        unreadable: dict[int, str] = {}
        enlarged = 0
        first = batch * self.batch_size
        for index, path in enumerate(self.paths[first : first + self.batch_size], first):
            try:
                photo = read_picture(path, self.channels, argument="")
            except UnreadableError as error:
                unreadable[index] = str(error)
                continue
            levels.append((crop_and_resize(photo[None], self.size) * 255).round().to(torch.uint8))
            indices.append(index)
            enlarged += photo.shape[1] < self.size[0] or photo.shape[2] < self.size[1]
        reason = next(iter(unreadable.values()), "")
        outcome = {"indices": indices, "enlarged": enlarged, "unreadable": list(unreadable), "reason": reason}
        return torch.cat(levels).numpy(), outcome


def _identity(part: Any) -> Any:
    return part
