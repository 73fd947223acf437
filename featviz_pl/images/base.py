"""The contract of every parameterization: trainable weights that decode to pictures in [0, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.numerics._checks import finite_number, size_pair, whole_number
from featviz_pl.numerics.colour import color_matrix, mix_channels

_SQUASH_MARGIN = 1e-4  # pictures are moved this far from 0 and 1 before the inverse sigmoid, which is infinite there


class Image(nn.Module, ABC):
    """Hold the weights of N pictures and decode them to (N, C, H, W) in [0, 1].

    A picture draws nothing when it is built: its weights are allocated once the number of pictures is known (`allocate`) and
    drawn once by the run, from the run's seed (`initialize`), unless they came from a picture (`from_image`) or a checkpoint.
    Weights stay in float32 at least, whatever precision the rest of the program is cast to.

    A new parameterization implements `weight_shape`, `decode_latent` and `encode_latent`; colour and squash are done here:
    ``picture = sigmoid(colour @ decode_latent(weight))``.

    Shape:
        () -> (N, C, H, W)

    Args:
        size: of the pictures in pixels, one number or (height, width).
        count: number of pictures; None lets the objective decide.
        channels: of each picture.
        color: ``"auto"`` (decorrelated by the ImageNet matrix for three channels, none otherwise), ``"imagenet"``, ``"none"``,
            a C x C matrix from decorrelated to picture channels, or statistics with a ``matrix``.
        deviation: standard deviation of the first weights.
    """

    weight: nn.Parameter | None
    initialized: Tensor
    color_matrix: Tensor | None

    def __init__(
        self,
        size: int | Sequence[int] = 224,
        count: int | None = None,
        channels: int = 3,
        color: Any = "auto",
        deviation: float = 0.01,
    ) -> None:
        super().__init__()
        self.size = size_pair("size", size)
        self.channels = whole_number("channels", channels)
        self.deviation = finite_number("deviation", deviation, least=0.0)
        self.color = color if color is None or isinstance(color, str) else "own"
        with torch.inference_mode(False):  # an image made during a validation must also serve a training
            self.register_buffer("color_matrix", color_matrix(color, self.channels), persistent=False)
            self.register_buffer("initialized", torch.tensor(False))
        self.register_parameter("weight", None)
        # Of weights that are not there yet: float32 at least, also where the program's default is less.
        self._precision = torch.promote_types(torch.get_default_dtype(), torch.float32)
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
                self.weight = nn.Parameter(torch.zeros(count, *self.weight_shape(), device=device, dtype=self._precision))
        elif len(self.weight) != count:
            raise ValueError(f"count: the image holds {len(self.weight)} pictures, but the objective asks for {count}")

    @torch.no_grad()
    def initialize(self, count: int, generator: torch.Generator | Sequence[torch.Generator]) -> None:
        """Draw the first weights; pictures that were started already are left alone.

        Args:
            count: number of pictures.
            generator: one CPU generator, or one for each picture so that no picture depends on its companions.
        """
        self.allocate(count)
        if bool(self.initialized):
            return
        assert self.weight is not None
        generators = [generator] * count if isinstance(generator, torch.Generator) else list(generator)
        if len(generators) != count:
            raise ValueError(f"generator: {len(generators)} generators do not fit {count} pictures")
        for weight, own in zip(self.weight, generators):
            # The same numbers whatever the program's default precision is.
            weight.copy_(torch.randn(weight.shape, generator=own, dtype=torch.float32) * self.deviation)
        self.initialized.fill_(True)

    @classmethod
    def from_image(cls, image: Tensor, **arguments: Any) -> Image:
        """Build a parameterization whose pictures are the given ones.

        The round trip is exact to 1e-3: values nearer than 1e-4 to 0 or 1 are moved there, where the squash can be inverted.

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
        pictures = check_pictures("image", image)
        if tuple(pictures.shape[1:]) != (self.channels, *self.size):
            raise ValueError(f"image: shape {tuple(pictures.shape[1:])} does not fit pictures of {(self.channels, *self.size)}")
        if self.weight is None:
            self.allocate(len(pictures))
        assert self.weight is not None
        if len(pictures) not in (1, len(self.weight)):
            raise ValueError(f"image: {len(pictures)} pictures do not fit {len(self.weight)}")
        latent = torch.logit(pictures.to(torch.float64).clamp(_SQUASH_MARGIN, 1 - _SQUASH_MARGIN))
        if self.color_matrix is not None:
            latent = mix_channels(latent, torch.linalg.inv(self.color_matrix.double().cpu()))
        self.weight.copy_(self.encode_latent(latent).expand_as(self.weight))
        self.initialized.fill_(True)

    def forward(self) -> Tensor:
        """Decode the pictures.

        Raises:
            RuntimeError: before the number of pictures is known.
        """
        if self.weight is None:
            raise RuntimeError("the image holds no pictures yet: give count=…, or run it, or start it from a picture")
        latent = self.decode_latent(self.weight)
        if self.color_matrix is not None:
            latent = mix_channels(latent, self.color_matrix)
        return torch.sigmoid(latent)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Image:
        """Move or cast as asked, but never below float32."""

        def at_least_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            reduced = moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if reduced and tensor.is_floating_point() else moved

        super()._apply(at_least_float32, recurse)  # type: ignore[no-untyped-call]
        self._precision = at_least_float32(torch.empty(0, dtype=self._precision)).dtype
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Allocate what a checkpoint holds, so that a fresh parameterization can be filled from it."""
        held = state_dict.get(f"{prefix}weight")
        if self.weight is None and isinstance(held, Tensor) and held.shape[1:] == self.weight_shape():
            self.allocate(len(held))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Show what makes this parameterization differ from another."""
        return f"size={self.size}, count={self.count}, channels={self.channels}, color={self.color!r}"


def check_pictures(argument: str, image: Tensor) -> Tensor:
    """Return pictures as (N, C, H, W), or raise an error that names the argument."""
    if not isinstance(image, Tensor):
        raise TypeError(f"{argument} must be a tensor (C, H, W) or (N, C, H, W) in [0, 1], got {type(image).__name__}")
    if image.ndim == 3:
        image = image[None]
    if image.ndim != 4 or not image.is_floating_point() or not image.numel():
        raise ValueError(f"{argument} must be floats (C, H, W) or (N, C, H, W) in [0, 1], got {image.dtype} of shape {tuple(image.shape)}")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(f"{argument} must lie in [0, 1], got values from {low:g} to {high:g}")
    return image
