"""Differentiable resampling: affine sampling with an honest border, and the blur that keeps shrinking free of aliases."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

Border = Literal["reflect", "constant"]


def affine_sample(
    image: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    border: Border = "reflect",
    fill: Tensor | None = None,
    reach: float | None = None,
) -> Tensor:
    """Read a picture at affinely mapped points, bilinearly.

    Points are in pixels from the centre of their picture, x to the right and y down; `matrix` maps a point of the result to the
    point of `image` that it shows, ``(x, y, 1)_image = matrix (x, y, 1)_result``.

    Shape:
        image (N, C, H, W), matrix (N, 3, 3), size (h, w) -> (N, C, h, w)

    Args:
        image: what is read.
        matrix: maps points of the result to points of `image`.
        size: of the result, (height, width).
        border: what lies outside the picture: its mirror image, or `fill`.
        fill: (N,) value outside the picture for ``"constant"``.
        reach: for ``"reflect"``, how many pixels outside the picture are mirrored; beyond, the last one is repeated. None: no end.

    Example:
        >>> image = torch.arange(9.0).view(1, 1, 3, 3)
        >>> shift = torch.tensor([[[1.0, 0, 1], [0, 1, 0], [0, 0, 1]]])
        >>> affine_sample(image, shift, (3, 3))[0, 0, 0].round(decimals=3).tolist()
        [1.0, 2.0, 2.0]
    """
    height, width = image.shape[-2:]
    to_pixels = matrix.new_tensor([size[1] / 2, size[0] / 2, 1.0])
    from_pixels = matrix.new_tensor([2 / width, 2 / height])
    theta = (matrix[:, :2] * to_pixels * from_pixels[:, None]).to(image.dtype)
    # functional.affine_grid does the same with a matrix product, four times slower.
    rows = _pixel_centres(size[0], theta)[:, None] * theta[:, None, :, 1] + theta[:, None, :, 2]
    columns = _pixel_centres(size[1], theta)[:, None] * theta[:, None, :, 0]
    grid = rows[:, :, None] + columns[:, None]
    if border == "constant":
        level = torch.as_tensor(0.5 if fill is None else fill, dtype=image.dtype, device=image.device).view(-1, 1, 1, 1)
        return functional.grid_sample(image - level, grid, padding_mode="zeros", align_corners=False) + level
    if reach is not None:
        # The centre of the last mirrored pixel: half a pixel further would show a blend of it and the next one.
        limit = grid.new_tensor([1 + (2 * reach - 1) / width, 1 + (2 * reach - 1) / height])
        grid = torch.maximum(torch.minimum(grid, limit), -limit)
    return functional.grid_sample(image, grid, padding_mode="reflection", align_corners=False)


def _pixel_centres(length: int, like: Tensor) -> Tensor:
    """Return where the centres of pixels lie on an axis from -1 to 1."""
    return (2 * torch.arange(length, dtype=like.dtype, device=like.device) + 1) / length - 1


def antialias(image: Tensor, shrink: float) -> Tensor:
    """Blur a picture just enough to be shrunk by a factor without aliases.

    A discrete Gaussian of variance ``0.25 * (shrink ** 2 - 1)`` square pixels: it widens a pixel's deviation of one half to the half
    of a shrunk one. Made of passes ``[v / 2, 1 - v, v / 2]`` whose variances v <= 1/2 add up to it exactly: for the slight shrinks of
    views one pass does, ten times faster than a convolution. The border is mirrored, so the mean of the picture stays.

    Shape:
        (N, C, H, W) -> (N, C, H, W)

    Args:
        image: what will be shrunk.
        shrink: how many pixels become one, at least 1 (1 leaves the picture as it is).

    Example:
        >>> antialias(torch.ones(1, 1, 4, 4), 2.0).unique().round(decimals=5).tolist()
        [1.0]
    """
    if shrink <= 1:
        return image
    total = 0.25 * (shrink**2 - 1)
    passes = math.ceil(total / 0.5)
    blurred: Tensor = _Blur.apply(image, total / passes / 2, passes)
    return blurred


class _Blur(torch.autograd.Function):
    """Pass `[half, 1 - 2 half, half]` over both axes so many times; with a mirrored border this is its own transpose."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, half: float, passes: int) -> Tensor:
        ctx.half, ctx.passes = half, passes
        for _ in range(passes):
            for axis in (-2, -1):
                last = image.shape[axis] - 1
                blurred = image * (1 - 2 * half)
                blurred.narrow(axis, 1, last).add_(image.narrow(axis, 0, last), alpha=half)
                blurred.narrow(axis, 0, last).add_(image.narrow(axis, 1, last), alpha=half)
                for edge in (0, last):
                    blurred.narrow(axis, edge, 1).add_(image.narrow(axis, edge, 1), alpha=half)
                image = blurred
        return image

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Blur.apply(gradients[0], ctx.half, ctx.passes), None, None


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample a picture to a size, bilinearly, blurred first where it shrinks.

    Shape:
        (N, C, H, W) -> (N, C, h, w)

    Example:
        >>> resize(torch.ones(1, 3, 8, 8), (4, 6)).shape
        torch.Size([1, 3, 4, 6])
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
