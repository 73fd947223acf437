"""Named recipes: image, views, optimizer and steps that belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from featviz_pl.images import FourierImage, Image
from featviz_pl.numerics._checks import unknown
from featviz_pl.transforms import Compose, view_preset

__all__ = ["PRESETS", "Recipe", "article", "image_class", "lucid", "recipe"]


@dataclass(frozen=True)
class Recipe:
    """Hold what a preset fixes.

    Args:
        name: of the preset.
        source: where its constants come from.
        image: makes the parameterization for a size and number of channels.
        transforms: of each view.
        views: how many.
        optimizer: class that makes the optimizer.
        lr: its learning rate.
        steps: of the run.
    """

    name: str
    source: str
    image: Callable[..., Image]
    transforms: Compose
    views: int
    optimizer: type[torch.optim.Optimizer]
    lr: float
    steps: int


def lucid() -> Recipe:
    """Return the recipe of Lucid: Fourier basis, decorrelated colour, its standard transforms, Adam at 0.05 for 512 steps.

    Example:
        >>> lucid().lr, lucid().steps
        (0.05, 512)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """
    return Recipe(
        "lucid", "Lucid 6dcc927, optvis/render.py and transform.py", FourierImage, *view_preset("lucid"), torch.optim.Adam, 0.05, 512
    )


def article() -> Recipe:
    """Return the recipe of the article this library starts from: as `lucid`, with four views of its own ranges.

    Example:
        >>> article().views
        4
    """
    return Recipe("article", "the article's views on Lucid's image", FourierImage, *view_preset("article"), torch.optim.Adam, 0.05, 512)


PRESETS: dict[str, Callable[[], Recipe]] = {"lucid": lucid, "article": article}


def recipe(preset: str | Recipe) -> Recipe:
    """Return a recipe by name, or as it is.

    Raises:
        ValueError: when there is no such preset.
    """
    if isinstance(preset, Recipe):
        return preset
    if preset not in PRESETS:
        raise unknown("preset", "preset", str(preset), PRESETS)
    return PRESETS[preset]()


def image_class(name: str) -> Callable[..., Any]:
    """Return a parameterization by its short name, such as ``"fourier"``, or its class name.

    Raises:
        ValueError: when there is no such parameterization.

    Example:
        >>> image_class("pixel").__name__
        'PixelImage'
    """
    from featviz_pl import images

    known = {listed.removesuffix("Image").lower(): getattr(images, listed) for listed in images.__all__ if listed != "Image"}
    chosen = known.get(name.removesuffix("Image").lower())
    if chosen is None:
        raise unknown("image", "parameterization", name, known)
    made: Callable[..., Any] = chosen
    return made
