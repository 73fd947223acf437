"""Affine sampling of pictures: what geometric transforms share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from featviz_pl.numerics.jit_tracing import untraced
from featviz_pl.numerics.resampling import affine_sample, antialias


class Border(NamedTuple):
    """What lies outside a picture.

    Args:
        mode: ``"reflect"`` mirrors the picture, ``"constant"`` shows `fill`.
        reach: how far a mirrored border reaches, in pixels.
        fill: (n,) the value of a constant border.
    """

    mode: Literal["reflect", "constant"]
    reach: int
    fill: Tensor


class Geometric(Protocol):
    """What `warp` asks of a geometric transform."""

    def matrix(self, parameters: Any, size: tuple[int, int]) -> Tensor:
        """Return (n, 3, 3) maps from a point of the view to the point of the picture it shows."""

    def shrink(self, parameters: Any) -> float:
        """Return how many pixels of the picture make one of the view, at most."""

    def border(self, parameters: Any) -> Border | None:
        """Return what lies outside the picture, where the transform sets it."""


def sizes(image: Tensor) -> tuple[int, int, int]:
    """Return number, height and width of pictures, as plain numbers also while a graph is traced."""
    with untraced():
        return int(image.shape[0]), int(image.shape[-2]), int(image.shape[-1])


def at_least_float32(image: Tensor) -> Tensor:
    """Return a picture in float32, or as it is where it is more precise."""
    return image.to(torch.promote_types(image.dtype, torch.float32))


def identity(n: int, like: Tensor) -> Tensor:
    """Return n identity maps (n, 3, 3) with the precision and device of a tensor."""
    return (
        torch.eye(3, dtype=like.dtype, device=like.device).expand(n, 3, 3).clone()
    )  # `repeat` takes five times as long


def warp(image: Tensor, steps: Sequence[tuple[Geometric, Any]], size: tuple[int, int], draws: int) -> Tensor:
    """Sample a picture once, at the points to which all transforms together map the view.

    Shape:
        (N, C, H, W) -> (draws, C, h, w)

    Args:
        image: the picture; repeated where there are several draws for each.
        steps: transforms with their parameters, in the order in which they happen to the picture.
        size: (h, w) of the view, in pixels.
        draws: number of views, a multiple of N.
    """
    # Coordinates need float32, and `affine_sample` takes the picture's precision: views are seen in float32 at least.
    image = at_least_float32(image)
    with untraced(), torch.autocast("cpu", enabled=False):
        _, height, width = sizes(image)
        zoom_y, zoom_x = height / size[0], width / size[1]
        total = identity(draws, torch.empty((), dtype=image.dtype, device="cpu"))
        shrink, border = max(zoom_x, zoom_y), None
        for transform, parameters in steps:
            if (changed := transform.border(parameters)) is not None:
                border = changed
                continue
            total = total @ transform.matrix(parameters.to("cpu", image.dtype), (height, width))
            shrink *= transform.shrink(parameters)
        total = total * total.new_tensor([zoom_x, zoom_y, 1.0])  # `affine_sample` brings it to the picture
    image = repeated(antialias(image, max(1.0, shrink)), draws)
    if border is None:
        return affine_sample(image, total, size)
    if border.mode == "reflect":
        return affine_sample(image, total, size, reach=border.reach)
    return affine_sample(image, total, size, "constant", border.fill)


def repeated(image: Tensor, draws: int) -> Tensor:
    """Repeat each picture (N, C, H, W) so that there is one for each of the draws, a multiple of N."""
    count = sizes(image)[0]
    return image if count == draws else image.repeat_interleave(draws // count, dim=0)


def draw_count(parameters: Any) -> int:
    """Return for how many views there are parameters; 0 where there are none at all."""
    if isinstance(parameters, tuple):
        return max(map(draw_count, parameters), default=0)
    with untraced():
        return len(parameters)
