"""Differentiable resampling: affine sampling with a mirrored or constant border, and blurs that preserve the mean."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.numerics.device_transfer import numbers_on, to_device
from featviz_pl.numerics.jit_tracing import tracing, untraced

Border = Literal["reflect", "constant"]
_MAX_STRIPS = 4  # of all pictures together; the gradient of each has the size of a picture


def affine_sample(
    image: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    border: Border = "reflect",
    fill: Tensor | None = None,
    reach: float | None = None,
) -> Tensor:
    """Sample a picture bilinearly at affinely mapped points: ``(x, y, 1)_image = matrix (x, y, 1)_result``.

    Points are in pixels from the centre of their picture, x to the right and y down.

    Shape:
        image (N, C, H, W), matrix (N, 3, 3), size (h, w) -> (N, C, h, w)

    Args:
        image: that is sampled.
        matrix: from points of the result to points of `image`; best on the CPU, where the sampling grid is computed.
        size: of the result, (height, width).
        border: values outside the picture: its mirror image, or `fill`.
        fill: (N,) value outside the picture for ``"constant"``.
        reach: for ``"reflect"``, how many pixels outside the picture are mirrored; beyond, the last one is repeated.
            None: no limit.

    Example:
        >>> image = torch.arange(9.0).view(1, 1, 3, 3)
        >>> shift = torch.tensor([[[1.0, 0, 1], [0, 1, 0], [0, 0, 1]]])
        >>> affine_sample(image, shift, (3, 3))[0, 0, 0].round(decimals=3).tolist()
        [1.0, 2.0, 2.0]
    """
    with untraced():
        height, width = image.shape[-2:]
        to_pixels = matrix.new_tensor([size[1] / 2, size[0] / 2, 1.0])
        from_pixels = matrix.new_tensor([2 / width, 2 / height])
        theta = to_device((matrix[:, :2] * to_pixels * from_pixels[:, None]).to(image.dtype), image.device)
        if border == "constant":
            value = torch.tensor(0.5, device="cpu") if fill is None else torch.as_tensor(fill)
            level = to_device(value.to(image.dtype), image.device).view(-1, 1, 1, 1)
        elif reach is not None:
            # The centre of the last mirrored pixel: half a pixel further would show a blend of it and the next one.
            limit = numbers_on(image.device, [1 + (2 * reach - 1) / width, 1 + (2 * reach - 1) / height], image.dtype)
    # functional.affine_grid does the same with a matrix product, four times slower.
    rows = _pixel_centres(size[0], theta)[:, None] * theta[:, None, :, 1] + theta[:, None, :, 2]
    columns = _pixel_centres(size[1], theta)[:, None] * theta[:, None, :, 0]
    grid = rows[:, :, None] + columns[:, None]
    if border == "constant":
        return _grid_sample(image - level, grid, "zeros") + level
    if reach is not None:
        grid = torch.maximum(torch.minimum(grid, limit), -limit)
    return _grid_sample(image, grid, "reflection")


def _grid_sample(image: Tensor, grid: Tensor, border: str) -> Tensor:
    """Sample with all cores of a CPU, also where there are fewer pictures than cores: torch uses one for each."""
    count, height = grid.shape[:2]
    strips = 1 if tracing() or image.device.type != "cpu" else _strips(int(count), int(height))
    if strips == 1:
        return functional.grid_sample(image, grid, padding_mode=border, align_corners=False)
    repeated = image[:, None].expand(-1, strips, -1, -1, -1).flatten(0, 1)
    parts = grid.reshape(count * strips, height // strips, *grid.shape[2:])
    sampled = functional.grid_sample(repeated, parts, padding_mode=border, align_corners=False)
    joined: Tensor = sampled.unflatten(0, (count, strips)).transpose(1, 2).flatten(2, 3)
    return joined


def _strips(count: int, height: int) -> int:
    """Return the number of strips of equal height into which each picture is divided: enough for four cores.

    The gradients of strips are added up, so that their number must not depend on the machine.
    """
    return next((strips for strips in range(_MAX_STRIPS // count, 1, -1) if height % strips == 0), 1)


def _pixel_centres(length: int, like: Tensor) -> Tensor:
    """Return the centres of pixels on an axis from -1 to 1."""
    return (2 * torch.arange(length, dtype=like.dtype, device=like.device) + 1) / length - 1


def antialias(image: Tensor, shrink: float) -> Tensor:
    """Blur a picture as much as it must be before it shrinks by a factor, so that nothing aliases.

    A discrete Gaussian of variance ``0.25 * (shrink ** 2 - 1)`` square pixels: it widens the deviation of a pixel, one
    half, to half a shrunk pixel. It consists of passes ``[v / 2, 1 - v, v / 2]`` whose variances v <= 1/2 add up to it.
    Slight shrinking takes one pass, ten times faster than a convolution. The border is mirrored, so that the mean stays.

    Shape:
        (N, C, H, W) -> (N, C, H, W)

    Args:
        image: that will shrink.
        shrink: how many pixels become one, at least 1 (1 leaves the picture as it is).

    Example:
        >>> antialias(torch.ones(1, 1, 4, 4), 2.0).unique().round(decimals=5).tolist()
        [1.0]
    """
    if shrink <= 1:
        return image
    total = 0.25 * (shrink**2 - 1)
    passes = math.ceil(total / 0.5)
    half = total / passes / 2
    blurred: Tensor = _passes(image, half, passes) if tracing() else _Blur.apply(image, half, passes)
    return blurred


class _Blur(torch.autograd.Function):
    """Convolve both axes with ``[half, 1 - 2 half, half]``, `passes` times; the mirrored border makes it its own transpose."""

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


def _passes(image: Tensor, half: float, passes: int) -> Tensor:
    """Do as `_Blur` in operations that a graph can display."""
    with untraced():
        sizes = {axis: int(image.shape[axis]) for axis in (-2, -1)}
    for _ in range(passes):
        for axis, length in sizes.items():
            before = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, length - 1)], axis)
            after = torch.cat([image.narrow(axis, 1, length - 1), image.narrow(axis, length - 1, 1)], axis)
            image = image * (1 - 2 * half) + (before + after) * half
    return image


def gaussian_blur(image: Tensor, deviation: Tensor, reach: int | None = None) -> Tensor:
    """Blur each picture with its sampled Gaussian: weights ``exp(-t ** 2 / (2 deviation ** 2))``, divided by their sum.

    The border is mirrored, its last pixel included, so that the mean stays. A deviation of 0 leaves the picture as it is.

    Shape:
        image (N, C, H, W), deviation (N,) -> (N, C, H, W)

    Args:
        image: the pictures.
        deviation: in pixels, 0 or more.
        reach: number of weights to either side; four deviations of each picture by default.

    Example:
        >>> spot = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 5)
        >>> [round(value, 4) for value in gaussian_blur(spot, torch.tensor([1.0]), reach=1).flatten().tolist()]
        [0.0, 0.2741, 0.4519, 0.2741, 0.0]
    """
    with untraced():
        weights = to_device(_gaussian(deviation.detach().to("cpu", image.dtype), reach), image.device)
    blurred: Tensor = _weighted(image, weights) if tracing() else _Weighted.apply(image, weights)
    return blurred


def _gaussian(deviation: Tensor, reach: int | None) -> Tensor:
    """Return half of each kernel (N, reach + 1), from its centre outwards."""
    limits = torch.ceil(4 * deviation) if reach is None else torch.full_like(deviation, reach)
    offsets = torch.arange(int(limits.max()) + 1, dtype=deviation.dtype)
    weights = torch.exp(-0.5 * (offsets / deviation[:, None].clamp_min(1e-6)) ** 2)
    # Each kernel ends where it would if its picture were alone.
    weights = torch.where(offsets <= limits[:, None], weights, 0)
    return weights / (2 * weights.sum(1, keepdim=True) - weights[:, :1])


def _weighted(image: Tensor, weights: Tensor) -> Tensor:
    """Convolve both axes of each picture with a symmetric kernel, half of which is (N, reach + 1)."""
    reach = weights.shape[1] - 1
    with untraced():
        sizes = {axis: int(image.shape[axis]) for axis in (-2, -1)}
    for axis, length in sizes.items():
        indices = torch.arange(-reach, length + reach, device=image.device) % (2 * length)
        padded = image.index_select(axis, torch.minimum(indices, 2 * length - 1 - indices))
        image = padded.narrow(axis, reach, length) * weights[:, 0, None, None, None]
        for offset in range(1, reach + 1):
            both = padded.narrow(axis, reach - offset, length) + padded.narrow(axis, reach + offset, length)
            image = torch.addcmul(image, both, weights[:, offset, None, None, None])
    return image


class _Weighted(torch.autograd.Function):
    """`_weighted`, which is its own transpose: kernels are symmetric and the border is mirrored."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return _weighted(image, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weights,) = ctx.saved_tensors
        return _Weighted.apply(gradients[0], weights), None


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample a picture to a size, bilinearly, blurred where it shrinks.

    Shape:
        (N, C, H, W) -> (N, C, h, w)

    Example:
        >>> resize(torch.ones(1, 3, 8, 8), (4, 6)).shape
        torch.Size([1, 3, 4, 6])
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)


def crop_and_shrink(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop pictures about their centre to the aspect of `size`, and shrink them to it.

    Shape:
        (N, C, H, W) -> (N, C, height, width)

    Raises:
        ValueError: when the pictures are smaller.

    Example:
        >>> crop_and_shrink(torch.rand(1, 3, 12, 30), (6, 8)).shape
        torch.Size([1, 3, 6, 8])
    """
    height, width = images.shape[-2:]
    if height < size[0] or width < size[1]:
        raise ValueError(
            f"images: {height} x {width} pixels are too few for size {size}; enlarged, they would have no high frequencies. "
            f"Choose a size of at most {min(height, width)}"
        )
    return crop_and_resize(images, size)


def crop_and_resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop pictures about their centre to the aspect of `size`, and resample them to it, blurred where they shrink.

    Shape:
        (N, C, H, W) -> (N, C, height, width), enlarged where they are smaller

    Example:
        >>> crop_and_resize(torch.arange(4.0).expand(1, 1, 2, 4), (1, 1)).item()
        1.5
    """
    height, width = images.shape[-2:]
    scale = min(height / size[0], width / size[1])  # pixels of the picture that make one of the result
    rows, columns = (max(1, round(side * scale)) for side in size)
    top, left = (height - rows) // 2, (width - columns) // 2
    pictures = images[..., top : top + rows, left : left + columns]
    return resize(pictures.to(torch.promote_types(images.dtype, torch.float32)), size)
