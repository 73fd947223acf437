"""The image that a run begins with: its parameterization, and the picture from which it starts."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from featviz_pl.images import Image
from featviz_pl.images.base import check_pictures
from featviz_pl.io import read_picture, to_uint8
from featviz_pl.networks import FrozenNetwork
from featviz_pl.numerics.checks import size_pair
from featviz_pl.numerics.digest import digest
from featviz_pl.presets import Recipe, image_class
from featviz_pl.statistics import Statistics
from featviz_pl.statistics.arguments import image_arguments


def initial_image(
    recipe: Recipe,
    network: FrozenNetwork,
    image: Image | str | None = None,
    size: int | Sequence[int] | None = None,
    start: Tensor | None = None,
    stats: Statistics | None = None,
) -> Image:
    """Return an image as it is, or make one of the recipe's parameterization or of another by its name.

    Args:
        recipe: whose parameterization and size are used.
        network: whose channels and size are used.
        image: what is returned, or the name of a parameterization.
        size: of the picture in pixels; that of `start`, of the recipe or of the network, or 224.
        start: pictures (N, C, H, W), whose size is used.
        stats: measured colors and spectrum for the parameterization.

    Raises:
        ValueError: when a size or statistics are given beside an image that has its own, or a name is unknown.

    Example:
        >>> from torch import nn
        >>> from featviz_pl.presets import lucid
        >>> initial_image(lucid(), FrozenNetwork(nn.Conv2d(1, 4, 3)), size=(8, 9))
        FourierImage(size=(8, 9), count=None, channels=1, color='auto', decay=1)
    """
    if isinstance(image, Image):
        if size is not None and size_pair("size", size) != image.size:
            raise ValueError(f"size: {size} differs from that of the image, {image.size}; give one of them")
        if stats is not None:
            raise ValueError("stats: the image is built already; give it color=… and, where it takes one, spectrum=…")
        return image
    if image is not None and not isinstance(image, str):
        raise TypeError(f"image must be an Image or the name of one, got {type(image).__name__}")
    make = recipe.image if image is None else image_class(image)
    usual = recipe.size or network.size or 224 if start is None else tuple(start.shape[-2:])
    measured = {} if stats is None else image_arguments(make, stats)
    return make(size=size_pair("size", usual if size is None else size), channels=network.channels, **measured)


def read_start(start: str | os.PathLike[str] | Tensor, channels: int) -> Tensor:
    """Return the pictures (N, C, H, W) to start from; a file is read with so many channels.

    Raises:
        ValueError: when there is no such picture, or values lie outside [0, 1].

    Example:
        >>> import torch
        >>> read_start(torch.zeros(3, 4, 5), 3).shape
        torch.Size([1, 3, 4, 5])
    """
    if isinstance(start, (str, os.PathLike)):
        start = read_picture(start, channels, "start")
    return check_pictures("start", start)


def start_digest(pictures: Tensor) -> str:
    """Return 16 hexadecimal digits that tell one start from another, for provenance.

    Example:
        >>> import torch
        >>> len(start_digest(torch.zeros(1, 3, 4, 5)))
        16
    """
    return digest([to_uint8(pictures)])
