"""Photos that metrics compare with: reading them, and records of what was measured on a folder of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from featviz_pl.io.photos import PhotoBatch, photo_batches
from featviz_pl.io.records import load_record, save_record
from featviz_pl.numerics.checks import whole_number

_VERSION = 1  # of the format of records
_NO_ARGUMENTS = ("format", "version", "unreadable")  # in files of records; the last one, a count, in older ones
Progress = Callable[[int, int], object]


def read_photos(
    paths: Sequence[str | os.PathLike[str]],
    size: int | Sequence[int],
    *,
    channels: int = 3,
    batch_size: int = 32,
    workers: int = 0,
) -> Iterator[Tensor]:
    """Read photos in batches of one size, in the order of the paths.

    Each is cropped to the aspect of `size` about its center, resampled to it (blurred first where it shrinks, enlarged
    where it is smaller) and rounded to 256 levels, as pictures are before they are scored. Grayscale, CMYK and palettes
    are converted.

    Shape:
        each batch (B, channels, h, w) in [0, 1], float32

    Args:
        paths: of image files.
        size: of the result in pixels, one number or (height, width).
        channels: 3 for color, 1 for grayscale.
        batch_size: photos in a batch; the last may have fewer.
        workers: processes that read beside this one.

    Raises:
        ValueError: when a file cannot be read.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (12, 10), (255, 0, 51)).save(f"{folder}/photo.png")
        ...     [batch] = read_photos([f"{folder}/photo.png"], size=8)
        >>> batch.shape, [round(value, 3) for value in batch[0, :, 0, 0].tolist()]
        (torch.Size([1, 3, 8, 8]), [1.0, 0.0, 0.2])
    """
    return map(_all_pictures, photo_batches(paths, size, channels, batch_size, workers))


def _all_pictures(batch: PhotoBatch) -> Tensor:
    if batch.unreadable:
        raise ValueError(f"paths: a file cannot be read as a photo; {batch.reason}")
    return batch.pictures


class PhotoRecord:
    """Hold what was measured on each photo of a folder; a subclass adds the values.

    Args:
        paths: of the photos, relative to their folder.
        enlarged: how many photos are smaller than the size at which they were read.
        unreadable_paths: of the files that could not be read and were left out.
    """

    KIND: ClassVar[str]
    MAKER: ClassVar[str]  # the function or command that makes such records

    def __init__(self, paths: Sequence[str], enlarged: int = 0, unreadable_paths: Sequence[str] = ()) -> None:
        self.paths = [str(path) for path in paths]
        self.enlarged = whole_number("enlarged", enlarged, least=0)
        self.unreadable_paths = [str(path) for path in unreadable_paths]

    @property
    def unreadable(self) -> int:
        """How many files could not be read."""
        return len(self.unreadable_paths)

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.paths)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the record to a file that is whole or absent; missing folders are made."""
        content = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return save_record(path, self.KIND, _VERSION, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a record from a file that `save` wrote; no code in the file is run.

        Args:
            path: of the file.

        Raises:
            ValueError: when the file is missing, damaged, holds something else, or is of another version of the format.
        """
        content = load_record(path, cls.KIND, _VERSION, cls.MAKER)
        try:
            return cls(**{name: value for name, value in content.items() if name not in _NO_ARGUMENTS})
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ValueError(f"path: {str(path)!r} is damaged ({error}); make it again with {cls.MAKER}") from error

    @classmethod
    def resolve(cls, photos: Self | str | os.PathLike[str]) -> tuple[Self, str]:
        """Return a record, read from its file where that is passed, and the argument as a representation shows it."""
        if isinstance(photos, (str, os.PathLike)):
            return cls.load(photos), repr(os.fspath(photos))
        return photos, repr(photos)


def measure_photos(
    paths: Sequence[str],
    folder: str | os.PathLike[str] | None,
    measure: Callable[[Tensor], dict[str, Tensor]],
    size: tuple[int, int],
    channels: int,
    batch_size: int,
    workers: int,
    progress: Progress | None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the values of all readable photos by name, and the arguments of a `PhotoRecord` of them.

    The names of the photos are their paths relative to the folder, or as they are where there is none.

    Raises:
        ValueError: when no file can be read.
    """
    values: dict[str, list[Tensor]] = {}
    indices: list[int] = []
    skipped: list[int] = []
    enlarged, reason = 0, ""
    for batch in photo_batches(paths, size, channels, batch_size, workers):
        if batch.indices:
            for name, value in measure(batch.pictures).items():
                values.setdefault(name, []).append(value)
        indices += batch.indices
        skipped += batch.unreadable
        enlarged += batch.enlarged
        reason = reason or batch.reason
        if progress is not None:
            progress(len(indices) + len(skipped), len(paths))
    if not indices:
        files = f"{len(paths)} files" + ("" if folder is None else f" in {os.fspath(folder)!r}")
        raise ValueError(f"folder: none of {files} can be read as a photo; {reason or 'there are none'}")
    names = paths if folder is None else [Path(os.path.relpath(path, folder)).as_posix() for path in paths]
    read, unreadable = [names[index] for index in indices], [names[index] for index in skipped]
    joined = {name: torch.cat(parts) for name, parts in values.items()}
    return joined, {"paths": read, "enlarged": enlarged, "unreadable_paths": unreadable}


def device_of(module: torch.nn.Module) -> torch.device:
    """Return the device of a module's weights, the CPU where it has none."""
    return next((weight.device for weight in module.parameters()), torch.device("cpu"))
