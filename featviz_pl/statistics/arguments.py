"""Statistics as arguments of what makes pictures: by file, by object, for one parameterization or for any."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featviz_pl.numerics.color import COLOR_SPACES
from featviz_pl.statistics.record import Statistics, load_statistics


def read_color(color: Any, channels: int) -> Any:
    """Return what is given as a color space, read from a file where one is named.

    Raises:
        ValueError: when there is no such file, or it holds no statistics of so many channels.

    Example:
        >>> read_color("imagenett", 3)
        Traceback (most recent call last):
        ValueError: color: unknown color space 'imagenett', and no file of that name; use 'auto', 'imagenet', 'i1i2i3', 'none', a 3 x 3 \
matrix, or a file that featviz stats wrote
    """
    if not isinstance(color, (str, os.PathLike)) or color in COLOR_SPACES:
        return color
    if not Path(color).is_file():
        names = ", ".join(map(repr, COLOR_SPACES))
        raise ValueError(
            f"color: unknown color space {os.fspath(color)!r}, and no file of that name; use {names}, a {channels} x {channels} matrix, "
            "or a file that featviz stats wrote"
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
        raise ValueError(
            f"stats: measured on pictures of {stats.channels} channels, which do not fit {channels}; measure others"
        )
    return stats


def image_arguments(make: Callable[..., Any], stats: Statistics) -> dict[str, Any]:
    """Return the arguments that give statistics to what makes a parameterization.

    A ``spectrum`` brings its own channels with it; where only ``color`` is taken, it is that; an image that is made of
    others (``arguments``, as in `GrowingImage`) hands the color matrix on to them.

    Args:
        make: a class of images, or a function that makes one.
        stats: of pictures of as many channels.

    Raises:
        ValueError: when it takes none of these.

    Example:
        >>> from featviz_pl.images import FourierImage, MacoImage
        >>> from featviz_pl.statistics import natural_statistics
        >>> [sorted(image_arguments(make, natural_statistics())) for make in (FourierImage, MacoImage)]
        [['color'], ['color', 'spectrum']]
    """
    taken = inspect.signature(make).parameters
    if "spectrum" in taken:
        return {"color": "auto", "spectrum": stats}
    if "color" in taken:
        return {"color": stats}
    if "arguments" in taken:
        return {
            "arguments": {"color": stats.matrix.tolist()}
        }  # plain numbers, because such images show them in their repr
    raise ValueError(
        "stats: the image of this recipe takes neither color nor spectrum; choose another image, such as 'fourier'"
    )
