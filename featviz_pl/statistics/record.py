"""Color and spectrum of one set of pictures, in memory and on disk."""

from __future__ import annotations

import copy
import functools
import os
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from featviz_pl.io.records import load_record, save_record
from featviz_pl.numerics.checks import whole_number
from featviz_pl.numerics.digest import digest
from featviz_pl.statistics.color_covariance import ColorStatistics
from featviz_pl.statistics.spectrum_statistics import SpectrumStatistics

_VERSION = 1  # of the file format
_MAKER = "featviz stats FOLDER -o FILE, or Statistics.save in Python"


class Statistics:
    """Hold color and spectrum of a set of pictures.

    Parameterizations accept it as ``FourierImage(…, color=statistics)``, and read `matrix`.

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
        """16 hexadecimal digits of colors and spectrum, equal before `save` and after `load_statistics`, unless `compact`."""
        matrix = self.spectrum.matrix
        parts = [self.mean, self.covariance, self.spectrum.magnitude.float(), *([] if matrix is None else [matrix])]
        return digest([repr([list(part.shape) for part in parts]), *(part.double() for part in parts)])

    def save(self, path: str | os.PathLike[str], compact: bool = False) -> Path:
        """Write the statistics to a file that is whole or absent; missing folders are made.

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
        return save_record(path, "statistics", _VERSION, content)

    def __repr__(self) -> str:
        counts = f"unreadable={self.unreadable}, too_small={self.too_small}"
        return f"Statistics(color={self.color!r}, spectrum={self.spectrum!r}, {counts})"


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
    content = load_record(path, "statistics", _VERSION, _MAKER, argument)
    try:
        color = ColorStatistics(content["mean"], content["covariance"], content["count"])
        spectrum = SpectrumStatistics(
            content["magnitude"], content["size"], content["pictures"], content["spectrum_matrix"]
        )
        statistics = Statistics(color, spectrum, content["unreadable"], content["too_small"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{argument}: {str(path)!r} is damaged ({error}); measure again") from error
    if channels is not None and statistics.channels != channels:
        count = statistics.channels
        raise ValueError(f"{argument}: {str(path)!r} holds statistics of {count} channels, which do not fit {channels}")
    return statistics


def natural_statistics() -> Statistics:
    """Return the statistics of photos that ship with the library: of 1,000 photos, one for each class of ImageNet.

    `NATURAL_CARD.md` beside this file says how they were made. Each call returns a new object.

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
