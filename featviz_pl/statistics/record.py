"""Color and spectrum of one set of pictures, together and on disk."""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import os
import pickle
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from featviz_pl.numerics.checks import whole_number
from featviz_pl.statistics.color_covariance import ColorStatistics
from featviz_pl.statistics.spectrum_statistics import SpectrumStatistics

_FORMAT, _VERSION = "featviz_pl.statistics", 1


class Statistics:
    """Hold what was measured of a set of pictures.

    Parameterizations take it as it is, ``FourierImage(…, color=statistics)``: they read `matrix`.

    Args:
        color: mean and covariance over all pixels.
        spectrum: mean magnitude in the decorrelated channels of `color`.
        unreadable: number of files that could not be read and were left out.
        too_small: number of pictures that were smaller than the spectrum and count for the colors only.

    Example:
        >>> natural = natural_statistics()
        >>> natural.matrix.shape, natural.spectrum.size, [round(value, 2) for value in natural.mean.tolist()]
        (torch.Size([3, 3]), (128, 128), [0.48, 0.46, 0.41])
    """

    def __init__(
        self, color: ColorStatistics, spectrum: SpectrumStatistics, unreadable: int = 0, too_small: int = 0
    ) -> None:
        if color.channels != spectrum.channels:
            raise ValueError(f"spectrum: {spectrum.channels} channels do not fit the {color.channels} of the colors")
        self.color = color
        self.spectrum = spectrum
        self.unreadable = whole_number("unreadable", unreadable, least=0)
        self.too_small = whole_number("too_small", too_small, least=0)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.color.channels

    @property
    def mean(self) -> Tensor:
        """(C,) mean of every channel over all pixels."""
        return self.color.mean

    @property
    def covariance(self) -> Tensor:
        """(C, C) covariance of the channels over all pixels."""
        return self.color.covariance

    @property
    def matrix(self) -> Tensor:
        """(C, C) from decorrelated to picture channels; see `ColorStatistics.matrix`."""
        return self.color.matrix

    @property
    def count(self) -> int:
        """Number of pixels; `spectrum.count` is the number of pictures."""
        return self.color.count

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that tell these colors and this spectrum from others: the same before `save` and after `load_statistics`.

        A file in half precision holds another spectrum, so its digits are others.
        """
        matrix = self.spectrum.matrix
        parts = [self.mean, self.covariance, self.spectrum.magnitude.float(), *([] if matrix is None else [matrix])]
        content = hashlib.sha256(repr([list(part.shape) for part in parts]).encode())
        for part in parts:
            content.update(part.double().numpy().astype("<f8").tobytes())
        return content.hexdigest()[:16]

    def save(self, path: str | os.PathLike[str], compact: bool = False) -> Path:
        """Write the statistics to a file for `load_statistics`; missing folders are made, and the file is whole or absent.

        Args:
            path: of the file.
            compact: store the magnitude in float16: half the size, and at most 0.05 % off.

        Raises:
            ValueError: when `compact` is asked for magnitudes beyond what float16 holds.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     load_statistics(natural_statistics().save(f"{folder}/own.pt")).count == natural_statistics().count
            True
        """
        magnitude = self.spectrum.magnitude.to(torch.float16 if compact else torch.float32)
        if not torch.isfinite(magnitude).all():
            raise ValueError("compact: a magnitude is beyond what float16 holds; save without it")
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "mean": self.mean,
            "covariance": self.covariance,
            "count": self.count,
            "magnitude": magnitude,
            "size": list(self.spectrum.size),
            "pictures": self.spectrum.count,
            "spectrum_matrix": self.spectrum.matrix,
            "unreadable": self.unreadable,
            "too_small": self.too_small,
        }
        buffer = io.BytesIO()  # through memory, because torch.save would write the file's temporary name into it
        torch.save(content, buffer)
        return _write_whole(Path(path), buffer.getvalue())

    def __repr__(self) -> str:
        return f"Statistics(color={self.color!r}, spectrum={self.spectrum!r}, unreadable={self.unreadable}, too_small={self.too_small})"


def _write_whole(path: Path, content: bytes) -> Path:
    """Write under a temporary name, then rename: `io.write_whole` for a room beside `io`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:100]}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load_statistics(path: str | os.PathLike[str], channels: int | None = None, argument: str = "path") -> Statistics:
    """Read statistics from a file that `Statistics.save` wrote; no code in the file is run.

    Args:
        path: of the file.
        channels: that the statistics must have; any number unless given.
        argument: how errors call the path.

    Raises:
        ValueError: when the file is missing, none of statistics, from another version of the format, or for other
            channels.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load_statistics(natural_statistics().save(f"{folder}/own.pt")).spectrum.size
        (128, 128)
    """
    if not Path(path).is_file():
        raise ValueError(f"{argument}: there is no file {str(path)!r}")
    try:
        with Path(path).open("rb") as file:
            held = torch.load(file, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
    ) as error:
        raise ValueError(
            f"{argument}: {str(path)!r} is damaged or holds no statistics of featviz_pl; make some with {_MAKER}"
        ) from error
    statistics = _from_content(held, str(path), argument)
    if channels is not None and statistics.channels != channels:
        raise ValueError(
            f"{argument}: {str(path)!r} holds statistics of {statistics.channels}-channel pictures, which do not fit {channels} channels; "
            f"measure pictures of {channels} channels"
        )
    return statistics


_MAKER = "featviz stats FOLDER -o FILE, or Statistics.save in Python"


def _from_content(held: Any, name: str, argument: str) -> Statistics:
    """Build statistics from what a file holds, or say what is wrong with it."""
    if not isinstance(held, Mapping) or held.get("format") != _FORMAT:
        raise ValueError(f"{argument}: {name!r} holds no statistics of featviz_pl; make some with {_MAKER}")
    if held.get("version") != _VERSION:
        raise ValueError(
            f"{argument}: {name!r} is of version {held.get('version')!r} of the format, this library reads version {_VERSION}; "
            "measure again, or use the library that wrote it"
        )
    try:
        color = ColorStatistics(held["mean"], held["covariance"], held["count"])
        spectrum = SpectrumStatistics(held["magnitude"], held["size"], held["pictures"], held["spectrum_matrix"])
        return Statistics(color, spectrum, held["unreadable"], held["too_small"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{argument}: {name!r} is damaged ({error}); measure again") from error


def natural_statistics() -> Statistics:
    """Return the statistics of photos that ship with the library: of 1,000 photos, one for each class of ImageNet.

    `NATURAL_CARD.md` beside this file says how they were made. Each call returns an object of its own.

    Example:
        >>> from featviz_pl.numerics.color import color_matrix
        >>> published, measured = color_matrix("imagenet", 3), natural_statistics().matrix
        >>> published is not None and round(float((measured - published).norm()), 2)
        0.02
    """
    return copy.deepcopy(_natural())


@functools.cache
def _natural() -> Statistics:
    """Read the shipped file once."""
    with resources.as_file(resources.files("featviz_pl.statistics").joinpath("natural.pt")) as path:
        return load_statistics(path)
