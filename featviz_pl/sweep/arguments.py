"""The parameterization of a sweep's pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from featviz_pl.engine.start import read_start
from featviz_pl.images import Image
from featviz_pl.networks import FrozenNetwork
from featviz_pl.numerics.checks import size_pair
from featviz_pl.presets import Recipe, image_class
from featviz_pl.statistics import Statistics
from featviz_pl.statistics.arguments import image_arguments


def described_image(
    recipe: Recipe,
    network: FrozenNetwork,
    image: Image | str | None,
    size: int | Sequence[int] | None,
    start: str | os.PathLike[str] | Tensor | None,
    stats: Statistics | None,
) -> Image:
    """Return the parameterization of which every batch gets a copy: the given one, or the recipe's.

    Raises:
        ValueError: when a size or statistics are given beside an image that has its own, or a name is unknown.
    """
    if isinstance(image, Image):
        if size is not None and size_pair("size", size) != image.size:
            raise ValueError(f"size: {size} differs from that of the image, {image.size}; give one of them")
        if stats is not None:
            raise ValueError("stats: the image is built already; give it color=… and, where it takes one, spectrum=…")
        return image
    make = recipe.image if image is None else image_class(image)
    own = recipe.size or network.size or 224 if start is None else read_start(start, network.channels).shape[-2:]
    measured = {} if stats is None else image_arguments(make, stats)
    return make(size=size_pair("size", own if size is None else size), channels=network.channels, **measured)
