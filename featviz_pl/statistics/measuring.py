"""Statistics of pictures in batches and of photos in folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from featviz_pl.io.photos import check_photo_channels, photo_paths
from featviz_pl.io.reading import UnreadableError, read_picture
from featviz_pl.numerics.checks import whole_number
from featviz_pl.statistics.amplitude_spectrum import AmplitudeSpectrum, summed_magnitude
from featviz_pl.statistics.color_covariance import ColorCovariance, from_moments, pixel_moments
from featviz_pl.statistics.record import Statistics
from featviz_pl.statistics.spectrum_statistics import SpectrumStatistics, spectrum_size

_CHUNK = 16  # photos whose sums a worker sends together


def measure(batches: Any, size: int | tuple[int, int] = 128) -> Statistics:
    """Measure colors and spectrum of pictures that come in batches.

    The batches are read twice, because the spectrum is that of decorrelated channels: first all pixels for the colors,
    then the pictures, cropped and shrunk to `size`, for the spectrum.

    Args:
        batches: a DataLoader or list of tensors (N, C, H, W) in [0, 1], or of tuples that begin with one; or a
            LightningDataModule, of which ``setup("fit")`` and ``train_dataloader()`` are called, not ``prepare_data``.
        size: of the spectrum in pixels; no picture may be smaller.

    Raises:
        TypeError: when these are no batches, or one holds no pictures.
        ValueError: when there is no batch, it can be read once only, or its pictures do not fit; see the metrics.

    Example:
        >>> pictures = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> statistics = measure([(pictures[:5], None), (pictures[5:], None)], size=16)
        >>> statistics.count, statistics.spectrum.count
        (2048, 8)
    """
    pair = spectrum_size(size)
    if hasattr(batches, "train_dataloader"):
        batches.setup("fit")
        batches = batches.train_dataloader()
    # Not by `iter`, which would start the workers of a loader.
    if not isinstance(batches, Iterable) and not hasattr(batches, "__getitem__"):
        raise TypeError(f"batches must be a list or a DataLoader of tensors (N, C, H, W), got {type(batches).__name__}")
    if isinstance(batches, Iterator):
        raise ValueError("batches are read twice; give a list or a DataLoader in place of a generator")
    covariance: ColorCovariance | None = None
    for images in _pictures(batches):
        covariance = covariance or ColorCovariance(_channels(images)).to(images.device)
        covariance.update(images)
    if covariance is None:
        raise ValueError("batches: there are none")
    color = covariance.compute()
    spectrum = AmplitudeSpectrum(pair, color, color.channels).to(covariance.device)
    for images in _pictures(batches):
        spectrum.update(images)
    return Statistics(color, spectrum.compute())


def _pictures(batches: Iterable[Any]) -> Iterator[Tensor]:
    """Return the pictures of every batch."""
    for batch in batches:
        images = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        if not isinstance(images, Tensor):
            name = type(batch).__name__
            raise TypeError(f"batches: each must be a tensor (N, C, H, W), or a tuple that begins with one, got {name}")
        yield images


def _channels(images: Tensor) -> int:
    """Return the number of channels of the first batch."""
    if images.ndim != 4:
        raise ValueError(f"batches: each must be (N, C, H, W), got shape {tuple(images.shape)}")
    return images.shape[1]


def folder_statistics(
    folder: str | os.PathLike[str],
    size: int | tuple[int, int] = 128,
    channels: int = 3,
    limit: int | None = None,
    workers: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> Statistics:
    """Measure colors and spectrum of the photos in a folder and its subfolders.

    Every photo is read twice: first all its pixels for the colors, then its centre, shrunk to `size`, for the spectrum. They
    are read as `read_picture` does. Files that cannot be read are skipped and counted
    (`Statistics.unreadable`); photos smaller than `size` count for the colors only (`Statistics.too_small`). The
    result does not depend on the number of workers.

    Args:
        folder: with photos, by classes or not.
        size: of the spectrum in pixels.
        channels: 3 for color, 1 for grayscale.
        limit: read at most this many photos, evenly spread over the sorted names; all unless given.
        workers: further processes that read photos; a script that uses some needs a main guard, as for any DataLoader.
        progress: called with the photos read so far and those to be read, counting both readings.

    Raises:
        ValueError: when the folder is missing or empty, no file in it can be read, or all photos are smaller than
            `size`.

    Example:
        >>> import tempfile
        >>> from PIL import Image as Pillow
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for level in (64, 192):
        ...         Pillow.new("RGB", (12, 10), (level, level, 0)).save(f"{folder}/{level}.png")
        ...     statistics = folder_statistics(folder, size=8)
        >>> [round(value * 255) for value in statistics.mean.tolist()], statistics.count, statistics.spectrum.count
        ([128, 128, 0], 240, 2)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """
    check_photo_channels(channels)
    paths = photo_paths(folder, limit)
    return measured(_Files(paths, channels), ("folder", "files", f"in {str(folder)!r}"), size, workers, progress)


def measured(
    photos: Photos,
    words: tuple[str, str, str],
    size: int | tuple[int, int],
    workers: int,
    progress: Callable[[int, int], object] | None,
) -> Statistics:
    """Read all photos twice, for the colors and for the spectrum in these colors.

    Args:
        photos: a sequence of them.
        words: for errors: the argument that named them, what they are called, where they are.
        size: see `folder_statistics`; so are the others.
        workers: see there.
        progress: see there.

    Raises:
        ValueError: when none can be read, or all are smaller than `size`.
    """
    pair = spectrum_size(size)
    argument, items, where = words
    whole_number("workers", workers, least=0)

    def report(done: int) -> None:
        if progress is not None:
            progress(done, 2 * len(photos))

    first = _sums(_Parts(photos), workers, report)
    if not first["pixels"]:
        raise ValueError(f"{argument}: none of {len(photos)} {items} {where} can be read as a photo; {first['reason']}")
    color = from_moments(first["pixels"], first["total"], first["outer"])
    second = _sums(_Parts(photos, pair, color.matrix), workers, lambda done: report(len(photos) + done))
    if not second["pictures"]:
        raise ValueError(
            f"size: none of the photos {where} has {pair[0]} x {pair[1]} pixels; "
            f"the largest shorter side is {second['shorter']}, so choose a size of at most that"
        )
    spectrum = SpectrumStatistics(second["magnitude"] / second["pictures"], pair, second["pictures"], color.matrix)
    return Statistics(color, spectrum, second["unreadable"], second["too_small"])


class Photos(Protocol):
    """A sequence of photos (channels, H, W) in [0, 1]; those that cannot be read raise `UnreadableError`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


class _Files:
    """Photos in files."""

    def __init__(self, paths: list[str], channels: int) -> None:
        self.paths, self.channels = paths, channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return read_picture(self.paths[index], self.channels, argument="")


class _Parts(Dataset[dict[str, Any]]):
    """Sums over chunks of photos: of colors, or of the spectrum where a size is given."""

    def __init__(self, photos: Photos, size: tuple[int, int] | None = None, matrix: Tensor | None = None) -> None:
        self.photos, self.size, self.matrix = photos, size, matrix

    def __len__(self) -> int:
        return -(-len(self.photos) // _CHUNK)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sums: dict[str, Any] = {"unreadable": 0, "reason": ""}
        numbers = range(index * _CHUNK, min((index + 1) * _CHUNK, len(self.photos)))
        for number in numbers:
            try:
                photo = self.photos[number][None]
            except UnreadableError as error:
                sums["unreadable"] += 1
                sums["reason"] = sums["reason"] or str(error)
                continue
            _add(sums, self._of_spectrum(photo) if self.size else self._of_colors(photo))
        return {**sums, "done": len(numbers)}

    def _of_colors(self, photo: Tensor) -> dict[str, Any]:
        pixels, total, outer = pixel_moments(photo)
        return {"pixels": pixels, "total": total, "outer": outer}

    def _of_spectrum(self, photo: Tensor) -> dict[str, Any]:
        assert self.size is not None
        height, width = photo.shape[-2:]
        if height < self.size[0] or width < self.size[1]:
            return {"too_small": 1, "shorter": min(height, width)}
        return {"pictures": 1, "magnitude": summed_magnitude(photo, self.size, self.matrix)}


def _add(sums: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add the sums over further photos, in place; the first reason and the largest side remain."""
    for name, value in more.items():
        if name == "reason":
            sums[name] = sums.get(name) or value
        elif name == "shorter":
            sums[name] = max(sums.get(name, 0), value)
        else:
            sums[name] = sums[name] + value if name in sums else value


def _sums(photos: _Parts, workers: int, report: Callable[[int], None]) -> dict[str, Any]:
    """Add up the sums of all chunks, in order."""
    sums: dict[str, Any] = {"pixels": 0, "pictures": 0, "too_small": 0, "unreadable": 0, "done": 0}
    # With its generator, because a loader would draw from the global one.
    loader = DataLoader(photos, batch_size=None, num_workers=workers, generator=torch.Generator().manual_seed(0))
    for part in loader:
        _add(sums, part)
        report(sums["done"])
    return sums
