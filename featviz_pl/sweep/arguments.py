"""What a sweep is asked for, checked: the parameterization of its pictures, and whether some may be finished before others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from torch import Tensor

from featviz_pl.engine.start import read_start
from featviz_pl.engine.step_invariance import follows_progress
from featviz_pl.images import Image
from featviz_pl.networks import FrozenNetwork
from featviz_pl.numerics.checks import finite_number, size_pair
from featviz_pl.presets import Recipe, image_class
from featviz_pl.statistics import Statistics
from featviz_pl.statistics.arguments import image_arguments
from featviz_pl.transforms import Views


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


def checked_tolerance(tolerance: float | None, recipe: Recipe, image: Image, views: Iterable[Views]) -> float | None:
    """Return the tolerance with which a picture has converged, if pictures of this recipe may.

    Args:
        tolerance: 0 or more, or None.
        recipe: of the pictures.
        image: their parameterization.
        views: all the ways in which they are seen.

    Raises:
        ValueError: when it is negative, or given for a recipe that follows the progress of the run.
    """
    if tolerance is None:
        return None
    changes = (
        recipe.scheduler is not None
        or recipe.make_objective is not None
        or any(follows_progress(image, own) for own in views)
    )
    if changes:
        raise ValueError(
            f"tolerance: the recipe {recipe.name!r} changes as the run goes on, so no picture of it is finished before the last step; "
            "give none, or a preset that is the same in every step, such as lucid"
        )
    return finite_number("tolerance", tolerance, least=0.0)
