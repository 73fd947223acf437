"""Statistics as arguments of parameterizations: objects or files."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featviz_pl.numerics.color import COLOR_SPACES
from featviz_pl.statistics.record import Statistics, load_statistics


def read_color(color: Any, channels: int) -> Any:
    """Return a color space as it is, or the statistics in the file that it names.

    Raises:
        ValueError: when there is no such file, or it holds no statistics of so many channels.

    Example:
        >>> read_color("imagenet", 3)
        'imagenet'
    """
    if not isinstance(color, (str, os.PathLike)) or color in COLOR_SPACES:
        return color
    if not Path(color).is_file():
        names = ", ".join(map(repr, COLOR_SPACES))
        raise ValueError(
            f"color: unknown color space {os.fspath(color)!r}, and no file of that name; "
            f"use {names}, a {channels} x {channels} matrix, or a file of featviz stats"
        )
    return load_statistics(color, channels, "color")


def as_statistics(stats: str | os.PathLike[str] | Statistics, channels: int | None = None) -> Statistics:
    """Return statistics as they are, or from a file.

    Args:
        stats: measured statistics or the path of their file.
        channels: that they must have; any number unless given.

    Raises:
        TypeError: when it is neither.
        ValueError: when the file cannot be read, or the statistics are of another number of channels.

    Example:
        >>> from featviz_pl.statistics import natural_statistics
        >>> as_statistics(natural_statistics(), 3).channels
        3
    """
    if isinstance(stats, (str, os.PathLike)):
        return load_statistics(stats, channels, "stats")
    if not isinstance(stats, Statistics):
        raise TypeError(f"stats must be measured statistics or the path of their file, got {type(stats).__name__}")
    if channels is not None and stats.channels != channels:
        raise ValueError(f"stats: measured on pictures of {stats.channels} channels, which do not fit {channels}")
    return stats


def image_arguments(make: Callable[..., Any], stats: Statistics) -> dict[str, Any]:
    """Return the arguments that pass statistics to the constructor of a parameterization.

    They are its ``spectrum``, which includes the channels, or its ``color``; an image that consists of others
    (``arguments``, as in `GrowingImage`) passes the color matrix to them.

    Args:
        make: a class of images, or a function that returns one.
        stats: of pictures of as many channels.

    Raises:
        ValueError: when it has none of these arguments.

    Example:
        >>> from featviz_pl.images import FourierImage, MacoImage
        >>> from featviz_pl.statistics import natural_statistics
        >>> [sorted(image_arguments(make, natural_statistics())) for make in (FourierImage, MacoImage)]
        [['color'], ['color', 'spectrum']]
    """
    parameters = inspect.signature(make).parameters
    if "spectrum" in parameters:
        return {"color": "auto", "spectrum": stats}
    if "color" in parameters:
        return {"color": stats}
    if "arguments" in parameters:
        return {"arguments": {"color": stats.matrix.tolist()}}  # numbers, since the repr of such images shows them
    raise ValueError(
        "stats: the image of this recipe has neither color nor spectrum; choose another, such as 'fourier'"
    )
