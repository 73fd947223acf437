"""Color spaces: matrices from decorrelated channels to the channels of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

COLOR_SPACES = ("auto", "imagenet", "i1i2i3", "none")  # the names that `color_matrix` knows

# The square root of the color covariance of ImageNet as Lucid publishes it (lucid/optvis/param/color.py).
IMAGENET_COLOR_ROOT = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))

IMAGENET_COLOR_MEAN = (0.48, 0.46, 0.41)  # added where colors are decorrelated and clipped, as Lucid does

# From red, green and blue to intensity and two opponent colors.
I1I2I3 = ((1 / 3, 1 / 3, 1 / 3), (1 / 2, 0.0, -1 / 2), (-1 / 4, 1 / 2, -1 / 4))


def normalized_color_root(root: Tensor) -> Tensor:
    """Divide a square root of a color covariance by its largest column norm, as Lucid does.

    Shape:
        (3, 3) -> (3, 3)

    Example:
        >>> [round(v, 4) for v in normalized_color_root(torch.tensor(IMAGENET_COLOR_ROOT))[0].tolist()]
        [0.5628, 0.1948, 0.0433]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """
    largest: Tensor = root.norm(dim=0).max()
    return root / largest


def color_matrix(color: Any, channels: int) -> Tensor | None:
    """Return the matrix from decorrelated to picture channels of a color space.

    Args:
        color: ``"auto"`` (the ImageNet matrix for three channels, none otherwise), ``"imagenet"``, ``"i1i2i3"``,
            ``"none"`` or None, a square matrix, or any object with a ``matrix`` attribute such as measured statistics.
        channels: of the picture.

    Raises:
        ValueError: when the name is unknown, or the matrix does not fit the channels or cannot be inverted.

    Reference:
        Ohta, Kanade, Sakai, "Color information for region segmentation", 1980, for I1I2I3

    Example:
        >>> color_matrix("auto", 3).shape, color_matrix("auto", 1)
        (torch.Size([3, 3]), None)
    """
    if isinstance(color, str):
        if color == "none" or (color == "auto" and channels != 3):
            return None
        if color == "i1i2i3":
            # The published matrix analyses pictures; pictures are made by its inverse, whose columns are orthogonal.
            matrix = normalized_color_root(torch.linalg.inv(torch.tensor(I1I2I3, dtype=torch.float64))).float()
        elif color in ("auto", "imagenet"):
            matrix = normalized_color_root(torch.tensor(IMAGENET_COLOR_ROOT, dtype=torch.float32))
        else:
            names = ", ".join(map(repr, COLOR_SPACES))
            raise ValueError(f"color: unknown color space {color!r}; use {names} or a {channels} x {channels} matrix")
    elif color is None:
        return None
    else:
        matrix = torch.as_tensor(getattr(color, "matrix", color), dtype=torch.float32).detach().clone()
    if matrix.shape != (channels, channels):
        shape = tuple(matrix.shape)
        raise ValueError(
            f"color: the matrix must be ({channels}, {channels}) for {channels} channels, got shape {shape}"
        )
    if not torch.isfinite(matrix).all() or torch.linalg.matrix_rank(matrix) < channels:
        raise ValueError("color: the matrix cannot be inverted, so that no picture can start from it")
    return matrix


def color_mean(color: Any, channels: int) -> Tensor:
    """Return the mean picture color that goes with a color space: of photos, of the statistics, or grey.

    Shape:
        () -> (channels,)

    Raises:
        ValueError: when the mean of the statistics does not fit the channels.

    Example:
        >>> [round(value, 2) for value in color_mean("auto", 3).tolist()], color_mean("none", 1).tolist()
        ([0.48, 0.46, 0.41], [0.5])
    """
    if isinstance(color, str) and channels == 3 and color in ("auto", "imagenet"):
        return torch.tensor(IMAGENET_COLOR_MEAN, dtype=torch.float32)
    mean = None if isinstance(color, (str, Tensor)) else getattr(color, "mean", None)
    if isinstance(mean, (Tensor, Sequence)):
        values = torch.as_tensor(mean, dtype=torch.float32).detach().clone()
        if values.shape != (channels,) or not torch.isfinite(values).all():
            raise ValueError(f"color: the mean must be finite and ({channels},), got shape {tuple(values.shape)}")
        return values
    return torch.full((channels,), 0.5, dtype=torch.float32)


def on_grey(pictures: Tensor) -> Tensor:
    """Put transparent pictures on grey, on which they are scored.

    ``color * alpha + 0.5 * (1 - alpha)``, where the last channel is the opacity.

    Shape:
        (…, C + 1, H, W) -> (…, C, H, W)

    Example:
        >>> on_grey(torch.tensor([1.0, 0.25]).view(2, 1, 1)).item()
        0.625
    """
    opacity = pictures[..., -1:, :, :]
    opaque: Tensor = pictures[..., :-1, :, :] * opacity + 0.5 * (1 - opacity)
    return opaque


def mix_channels(image: Tensor, matrix: Tensor | Sequence[Sequence[float]]) -> Tensor:
    """Multiply the channels of every pixel by a matrix.

    Shape:
        image (N, C, H, W), matrix (D, C) -> (N, D, H, W)

    Example:
        >>> mix_channels(torch.ones(1, 2, 1, 1), torch.tensor([[1.0, 1.0], [1.0, -1.0]])).flatten().tolist()
        [2.0, 0.0]
    """
    matrix = torch.as_tensor(matrix, dtype=image.dtype, device=image.device)
    return torch.matmul(matrix, image.flatten(2)).view(len(image), -1, *image.shape[2:])
