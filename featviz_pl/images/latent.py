"""Parameterizations with one weight for each picture, decorrelated color and a squash."""

from __future__ import annotations

import inspect
import math
import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from featviz_pl.images.base import Image, check_pictures
from featviz_pl.images.contrast import contrast_limit, contrast_scale
from featviz_pl.numerics.checks import finite_number, unknown, whole_number
from featviz_pl.numerics.color import COLOR_SPACES, color_matrix, color_mean, mix_channels

# Pictures are moved this far from 0 and 1: the inverse sigmoid is infinite there, the gradient of a clip may be 0.
_SQUASH_MARGIN = 1e-4


class ColorImage(Image):
    """Mix the colors of latent pictures and squash them: ``picture = squash(color @ latent)``.

    Shape:
        () -> (N, C, H, W)

    Args: see `LatentImage`.
    """

    color_matrix: Tensor | None
    color_mean: Tensor | None
    contrast_limit: Tensor | None

    def __init__(
        self,
        size: int | Sequence[int] = 224,
        *,
        channels: int = 3,
        color: Any = "auto",
        deviation: float = 0.01,
        squash: Literal["sigmoid", "clip"] = "sigmoid",
        contrast: float | Literal["photos"] | None = None,
    ) -> None:
        super().__init__(size, channels)
        self.deviation = finite_number("deviation", deviation, least=0.0)
        color = _load_color(color, self.channels)
        self.color = color if color is None or isinstance(color, str) else "own"
        if squash not in ("sigmoid", "clip"):
            raise unknown("squash", "squash", str(squash), ["sigmoid", "clip"])
        if contrast is not None and squash == "clip":
            raise ValueError("contrast: is bounded before a sigmoid; leave it out with squash='clip'")
        self.squash, self.contrast = squash, contrast
        with torch.inference_mode(False):
            self.register_buffer("color_matrix", color_matrix(color, self.channels), persistent=False)
            mean = color_mean(color, self.channels).view(-1, 1, 1) if squash == "clip" else None
            self.register_buffer("color_mean", mean, persistent=False)
            self.register_buffer("contrast_limit", contrast_limit(contrast, self.size), persistent=False)

    def to_rgb(self, latent: Tensor) -> Tensor:
        """Mix the decorrelated channels (N, C, H, W) into colors, bound the contrast, and squash into [0, 1]."""
        latent = self.mix_colors(latent)
        if self.contrast_limit is not None:
            latent = latent * contrast_scale(latent, self.contrast_limit)
        return torch.sigmoid(latent) if self.color_mean is None else (latent + self.color_mean.to(latent)).clamp(0, 1)

    def mix_colors(self, latent: Tensor) -> Tensor:
        """Mix the decorrelated channels (N, C, H, W) into colors before the squash."""
        return latent if self.color_matrix is None else mix_channels(latent, self.color_matrix)

    def from_rgb(self, pictures: Tensor) -> Tensor:
        """Invert `to_rgb` in float64, for pictures within the bound of the contrast."""
        latent = pictures.double().clamp(_SQUASH_MARGIN, 1 - _SQUASH_MARGIN)
        latent = torch.logit(latent) if self.color_mean is None else latent - self.color_mean.to(latent)
        if self.color_matrix is None:
            return latent
        return mix_channels(latent, torch.linalg.inv(self.color_matrix.to(latent)))

    def extra_repr(self) -> str:
        """Return the arguments that decide the pictures."""
        text = f"size={self.size}, count={self.count}, channels={self.channels}, color={self.color!r}"
        default = inspect.signature(type(self)).parameters.get("deviation")
        if default is None or default.default != self.deviation:
            text += f", deviation={self.deviation:g}"
        contrast = "" if self.contrast is None else f", contrast={self.contrast!r}"
        return f"{text}{contrast}" if self.squash == "sigmoid" else f"{text}, squash={self.squash!r}"


class LatentImage(ColorImage):
    """Decode one weight tensor per picture, then mix colors and squash: ``squash(color @ decode_latent(weight))``.

    A subclass implements `weight_shape`, `decode_latent` and `encode_latent`.

    Shape:
        () -> (N, C, H, W)

    Args:
        size: of the pictures in pixels, one number or (height, width).
        count: number of pictures; None lets the objective decide.
        channels: of each picture.
        color: ``"auto"`` (decorrelated by the ImageNet matrix for three channels, none otherwise), ``"imagenet"``,
            ``"i1i2i3"``, ``"none"``, a C x C matrix from decorrelated to picture channels, statistics with a
            ``matrix``, or their file.
        deviation: standard deviation of the first weights.
        squash: ``"sigmoid"``, or ``"clip"`` to [0, 1] about the mean color of photos, or of the statistics; about grey
            where colors are not decorrelated.
        contrast: largest standard deviation over the pixels and colors of a picture before the sigmoid, a number or
            ``"photos"`` for the median of photos of this size: ``z <- z * min(1, contrast / std(z))``. Pictures do not
            saturate then. A start picture of more contrast loses the excess. None sets no bound.
    """

    weight: nn.Parameter | None

    def __init__(
        self,
        size: int | Sequence[int] = 224,
        count: int | None = None,
        *,
        channels: int = 3,
        color: Any = "auto",
        deviation: float = 0.01,
        squash: Literal["sigmoid", "clip"] = "sigmoid",
        contrast: float | Literal["photos"] | None = None,
    ) -> None:
        super().__init__(size, channels=channels, color=color, deviation=deviation, squash=squash, contrast=contrast)
        self.register_parameter("weight", None)
        if count is not None:
            self.allocate(count)

    @abstractmethod
    def weight_shape(self) -> tuple[int, ...]:
        """Return the shape of one picture's weights."""

    @abstractmethod
    def decode_latent(self, weight: Tensor) -> Tensor:
        """Decode weights (N, *weight_shape) to decorrelated pictures (N, C, H, W) before the squash."""

    @abstractmethod
    def encode_latent(self, latent: Tensor) -> Tensor:
        """Invert `decode_latent`."""

    @property
    def count(self) -> int | None:
        """Number of pictures, or None before it is known."""
        return None if self.weight is None else len(self.weight)

    def allocate(self, count: int) -> None:
        """Allocate the weights of `count` pictures; a second call with the same number changes nothing."""
        count = whole_number("count", count)
        if self.weight is None:
            with torch.inference_mode(False):
                weight = torch.zeros(count, *self.weight_shape(), device=self.initialized.device, dtype=self._precision)
                self.weight = nn.Parameter(weight)
        elif len(self.weight) != count:
            raise ValueError(f"count: the image holds {len(self.weight)} pictures, but the objective asks for {count}")

    @torch.no_grad()
    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the first weights, each picture's from its own CPU generator."""
        for weight, generator in zip(self.required_weight(), generators):
            weight.copy_(self.draw_weight(generator))

    def draw_weight(self, generator: torch.Generator) -> Tensor:
        """Draw the first weights of one picture in float32, whatever the default type is."""
        return torch.randn(self.weight_shape(), generator=generator, dtype=torch.float32) * self.deviation

    @classmethod
    def from_image(cls, image: Tensor, **arguments: Any) -> LatentImage:
        """Build a parameterization that decodes to these pictures.

        The round trip is exact to 1e-3 where the parameterization can show any picture: values nearer than 1e-4 to 0 or
        1 are moved there, where the squash can be inverted.

        Shape:
            image (C, H, W) or (N, C, H, W) in [0, 1]

        Args:
            image: the pictures to start from.
            arguments: further arguments of the class, without size, count and channels.

        Raises:
            ValueError: when the picture has another number of axes, or values outside [0, 1].
        """
        pictures = check_pictures("image", image)
        _, channels, *size = pictures.shape
        parameterization = cls(size=size, count=len(pictures), channels=channels, **arguments)
        parameterization.start_from(pictures)
        return parameterization

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Encode the pictures (C, H, W) or (N, C, H, W) in [0, 1]; one picture starts all of them."""
        pictures = self.check_start(image)
        weight = self.required_weight()
        weight.copy_(self.encode_latent(self.from_rgb(pictures)).expand_as(weight))
        self.initialized.fill_(True)

    @torch.no_grad()
    def advance(self, step: int, steps: int) -> None:
        """Scale the weights to the bound of the contrast: beyond it, the pictures do not depend on their scale."""
        if self.contrast_limit is not None:
            weight = self.required_weight()
            self.scale_latent(contrast_scale(self.mix_colors(self.decode_latent(weight)), self.contrast_limit))

    def scale_latent(self, scale: Tensor) -> None:
        """Scale the latent of each picture by (N, 1, 1, 1), in place; override it where decoding is not linear."""
        weight = self.required_weight()
        weight.mul_(scale.view(-1, *[1] * (weight.ndim - 1)))

    def forward(self) -> Tensor:
        """Decode the pictures.

        Raises:
            RuntimeError: before the number of pictures is known.
        """
        return self.to_rgb(self.decode_latent(self.required_weight()))

    def required_weight(self) -> nn.Parameter:
        """Return the weights, or raise before they are allocated."""
        if self.weight is None:
            raise RuntimeError("the image holds no pictures yet: give count=…, or run it, or start it from a picture")
        return self.weight

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Allocate as many pictures as a checkpoint holds."""
        weight = state_dict.get(f"{prefix}weight")
        if self.weight is None and isinstance(weight, Tensor) and weight.shape[1:] == self.weight_shape():
            self.allocate(len(weight))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def _load_color(color: Any, channels: int) -> Any:
    """Return the colors that a file holds, or the argument itself where it names no file."""
    if not isinstance(color, (str, os.PathLike)) or color in COLOR_SPACES:
        return color
    from featviz_pl.statistics.arguments import read_color  # imports torchmetrics

    return read_color(color, channels)


def unpack(weights: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Split flat weights into parts.

    Shape:
        (N, D) -> (N, *shape) for each shape

    Example:
        >>> [tuple(part.shape) for part in unpack(torch.zeros(2, 10), [(2, 3), (4,)])]
        [(2, 2, 3), (2, 4)]
    """
    parts = weights.split([math.prod(shape) for shape in shapes], dim=1)
    return [part.reshape(len(weights), *shape) for part, shape in zip(parts, shapes)]
