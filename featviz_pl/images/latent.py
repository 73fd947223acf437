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
from featviz_pl.numerics.checks import finite_number, unknown, whole_number
from featviz_pl.numerics.color import COLOR_SPACES, color_matrix, color_mean, mix_channels

_SQUASH_MARGIN = (
    1e-4  # pictures are moved this far from 0 and 1: the inverse sigmoid is infinite there, a clip's gradient may be 0
)


class ColorImage(Image):
    """Mix the colors of latent pictures and squash them: ``picture = squash(color @ latent)``.

    Shape:
        () -> (N, C, H, W)

    Args:
        size: of the pictures in pixels, one number or (height, width).
        channels: of each picture.
        color: see `LatentImage`.
        deviation: standard deviation of the first weights.
        squash: see `LatentImage`.
    """

    color_matrix: Tensor | None
    color_mean: Tensor | None

    def __init__(
        self,
        size: int | Sequence[int] = 224,
        channels: int = 3,
        color: Any = "auto",
        deviation: float = 0.01,
        squash: Literal["sigmoid", "clip"] = "sigmoid",
    ) -> None:
        super().__init__(size, channels)
        self.deviation = finite_number("deviation", deviation, least=0.0)
        color = _read_where_a_file(color, self.channels)
        self.color = color if color is None or isinstance(color, str) else "own"
        if squash not in ("sigmoid", "clip"):
            raise unknown("squash", "squash", str(squash), ["sigmoid", "clip"])
        self.squash = squash
        with torch.inference_mode(False):
            self.register_buffer("color_matrix", color_matrix(color, self.channels), persistent=False)
            mean = color_mean(color, self.channels).view(-1, 1, 1) if squash == "clip" else None
            self.register_buffer("color_mean", mean, persistent=False)

    def finish(self, latent: Tensor) -> Tensor:
        """Mix the colors of decorrelated pictures (N, C, H, W) and squash them into [0, 1]."""
        if self.color_matrix is not None:
            latent = mix_channels(latent, self.color_matrix)
        return torch.sigmoid(latent) if self.color_mean is None else (latent + self.color_mean.to(latent)).clamp(0, 1)

    def unfinish(self, pictures: Tensor) -> Tensor:
        """Invert `finish`, in float64."""
        latent = pictures.double().clamp(_SQUASH_MARGIN, 1 - _SQUASH_MARGIN)
        latent = torch.logit(latent) if self.color_mean is None else latent - self.color_mean.to(latent)
        return (
            latent
            if self.color_matrix is None
            else mix_channels(latent, torch.linalg.inv(self.color_matrix.to(latent)))
        )

    def extra_repr(self) -> str:
        """Show what makes this parameterization differ from another."""
        shown = f"size={self.size}, count={self.count}, channels={self.channels}, color={self.color!r}"
        default = inspect.signature(type(self)).parameters.get("deviation")
        if default is None or default.default != self.deviation:
            shown += f", deviation={self.deviation:g}"
        return shown if self.squash == "sigmoid" else f"{shown}, squash={self.squash!r}"


class LatentImage(ColorImage):
    """Decode one weight tensor for each picture, then mix the colors and squash: ``picture = squash(color @ decode_latent(weight))``.

    A new parameterization implements `weight_shape`, `decode_latent` and `encode_latent`.

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
        squash: ``"sigmoid"``, or ``"clip"`` to [0, 1] about the mean color of photos (of the statistics; grey where
            colors are not decorrelated).
    """

    weight: nn.Parameter | None

    def __init__(
        self,
        size: int | Sequence[int] = 224,
        count: int | None = None,
        channels: int = 3,
        color: Any = "auto",
        deviation: float = 0.01,
        squash: Literal["sigmoid", "clip"] = "sigmoid",
    ) -> None:
        super().__init__(size, channels, color, deviation, squash)
        self.register_parameter("weight", None)
        if count is not None:
            self.allocate(count)

    @abstractmethod
    def weight_shape(self) -> tuple[int, ...]:
        """Return the shape of one picture's weights."""

    @abstractmethod
    def decode_latent(self, weight: Tensor) -> Tensor:
        """Turn weights (N, *weight_shape) into decorrelated, unsquashed pictures (N, C, H, W)."""

    @abstractmethod
    def encode_latent(self, latent: Tensor) -> Tensor:
        """Invert `decode_latent`."""

    @property
    def count(self) -> int | None:
        """Number of pictures, or None before it is known."""
        return None if self.weight is None else len(self.weight)

    def allocate(self, count: int) -> None:
        """Make room for `count` pictures; asking again for the same number changes nothing.

        Raises:
            ValueError: when the pictures were allocated with another number.
        """
        count = whole_number("count", count)
        if self.weight is None:
            device = self.initialized.device
            with torch.inference_mode(False):
                self.weight = nn.Parameter(
                    torch.zeros(count, *self.weight_shape(), device=device, dtype=self._precision)
                )
        elif len(self.weight) != count:
            raise ValueError(f"count: the image holds {len(self.weight)} pictures, but the objective asks for {count}")

    @torch.no_grad()
    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the first weights, each picture's from its own CPU generator."""
        assert self.weight is not None
        for weight, own in zip(self.weight, generators):
            weight.copy_(self.draw_weight(own))

    def draw_weight(self, generator: torch.Generator) -> Tensor:
        """Draw the first weights of one picture: the same numbers whatever the program's default precision is."""
        return torch.randn(self.weight_shape(), generator=generator, dtype=torch.float32) * self.deviation

    @classmethod
    def from_image(cls, image: Tensor, **arguments: Any) -> LatentImage:
        """Build a parameterization whose pictures are the given ones.

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
        made = cls(size=tuple(pictures.shape[-2:]), count=len(pictures), channels=pictures.shape[1], **arguments)
        made.start_from(pictures)
        return made

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Set the weights so that the pictures are the given ones; one picture starts all of them.

        Shape:
            image (C, H, W) or (N, C, H, W) in [0, 1]

        Raises:
            ValueError: when the picture has another shape than the parameterization.
        """
        pictures = self.fitting(image)
        assert self.weight is not None
        self.weight.copy_(self.encode_latent(self.unfinish(pictures)).expand_as(self.weight))
        self.initialized.fill_(True)

    def forward(self) -> Tensor:
        """Decode the pictures.

        Raises:
            RuntimeError: before the number of pictures is known.
        """
        return self.finish(self.decode_latent(self.required_weight()))

    def required_weight(self) -> nn.Parameter:
        """Return the weights, or raise where there are none yet."""
        if self.weight is None:
            raise RuntimeError("the image holds no pictures yet: give count=…, or run it, or start it from a picture")
        return self.weight

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Allocate what a checkpoint holds, so that a fresh parameterization can be filled from it."""
        held = state_dict.get(f"{prefix}weight")
        if self.weight is None and isinstance(held, Tensor) and held.shape[1:] == self.weight_shape():
            self.allocate(len(held))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _read_where_a_file(color: Any, channels: int) -> Any:
    """Return measured colors where a file of them is named, else what was given."""
    if not isinstance(color, (str, os.PathLike)) or color in COLOR_SPACES:
        return color
    from featviz_pl.statistics.arguments import read_color  # torchmetrics: only where there is a file to read

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
