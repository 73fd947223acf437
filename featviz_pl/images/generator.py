"""Pictures that a generative network paints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from featviz_pl.images.latent import LatentImage
from featviz_pl.numerics.checks import finite_number, size_pair, whole_number
from featviz_pl.numerics.isolated_copy import frozen_copy


class GeneratorImage(LatentImage):
    """Optimize the latent of a generator: ``picture = clip((generator(weight) - low) / (high - low))``.

    The generator's prior keeps pictures natural; they show what both networks have learned. The image uses a frozen
    copy that shares the generator's weights, in evaluation mode and in the image's precision, and that is in no
    checkpoint or optimizer. The generator must be deterministic.

    Shape:
        () -> (N, C, H, W)

    Args:
        generator: any ``nn.Module`` from latents (N, *latent_shape) to pictures (N, C, H, W).
        latent_shape: of one latent, a whole number or several.
        size: of the generator's pictures, one number or (height, width), which is checked; measured unless given.
        count: number of pictures; None lets the objective decide.
        channels: of the generator's pictures, which are checked; measured unless given.
        value_range: (low, high) of the generator's pictures, shown as 0 and 1.
        deviation: standard deviation of the first latents; 1 is what most generators were trained on.

    Raises:
        ValueError: when the generator fails on such a latent, or gives other pictures than `size` and `channels` say.

    Example:
        >>> generator = nn.Sequential(nn.Linear(5, 3 * 4 * 6), nn.Tanh(), nn.Unflatten(1, (3, 4, 6)))
        >>> GeneratorImage(generator, latent_shape=5, count=2)().shape
        torch.Size([2, 3, 4, 6])

    Reference:
        Nguyen, Dosovitskiy, Yosinski, Brox, Clune, "Synthesizing the preferred inputs for neurons in neural networks
        via deep generator networks", 2016
    """

    def __init__(
        self,
        generator: nn.Module,
        latent_shape: int | Sequence[int],
        *,
        size: int | Sequence[int] | None = None,
        count: int | None = None,
        channels: int | None = None,
        value_range: Sequence[float] = (-1.0, 1.0),
        deviation: float = 1.0,
    ) -> None:
        if not isinstance(generator, nn.Module):
            raise TypeError(f"generator must be an nn.Module, got {type(generator).__name__}")
        axes = [latent_shape] if isinstance(latent_shape, int) else latent_shape
        shape = tuple(whole_number("latent_shape", axis) for axis in axes)
        copy = frozen_copy(generator)
        depth, *pixels = _output_shape(copy, shape)
        if size is not None and size_pair("size", size) != tuple(pixels):
            raise ValueError(
                f"size: the generator's pictures have {tuple(pixels)} pixels, not {size_pair('size', size)}"
            )
        if channels is not None and whole_number("channels", channels) != depth:
            raise ValueError(f"channels: the generator's pictures have {depth}, not {channels}")
        super().__init__(pixels, channels=depth, color="none", deviation=deviation, squash="clip")
        low, high = value_range if len(value_range) == 2 else (0, 0)
        self.value_range = (finite_number("value_range", low), finite_number("value_range", high))
        if self.value_range[0] >= self.value_range[1]:
            raise ValueError(f"value_range must be (low, high), low below high, got {value_range!r}")
        self.latent_shape = shape
        self._generator = (copy,)  # in a tuple it is no submodule: not in checkpoints, optimizers and DDP
        if count is not None:
            self.allocate(count)

    @property
    def generator(self) -> nn.Module:
        """The frozen copy of the generator."""
        return self._generator[0]

    def weight_shape(self) -> tuple[int, ...]:
        """Return the shape of one latent."""
        return self.latent_shape

    def decode_latent(self, weight: Tensor) -> Tensor:
        """Run the generator on the device of the weights and in their precision."""
        like = _first_tensor(self.generator)
        if like is not None and (like.device, like.dtype) != (weight.device, weight.dtype):
            self.generator.to(weight.device, weight.dtype)
        pictures: Tensor = self.generator(weight)
        return pictures

    def to_rgb(self, latent: Tensor) -> Tensor:
        """Map the generator's range to [0, 1]."""
        low, high = self.value_range
        return ((latent - low) / (high - low)).clamp(0, 1)

    def encode_latent(self, latent: Tensor) -> Tensor:
        """Raise ValueError: a generator has no inverse."""
        raise ValueError(
            "image: a generator cannot be inverted, so no picture can start it; maximize Inversion of the picture"
        )

    def from_rgb(self, pictures: Tensor) -> Tensor:
        """Map [0, 1] to the generator's range."""
        low, high = self.value_range
        return pictures * (high - low) + low

    def extra_repr(self) -> str:
        """Return the arguments, the generator by its class."""
        return (
            f"generator={type(self.generator).__name__}, latent_shape={self.latent_shape}, size={self.size}, "
            f"count={self.count}, channels={self.channels}, value_range={self.value_range}, deviation={self.deviation:g}"
        )


def _first_tensor(module: nn.Module) -> Tensor | None:
    return next((tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()), None)


def _output_shape(generator: nn.Module, latent_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (C, H, W) of the generator's picture for a latent of zeros."""
    like = _first_tensor(generator)
    latent = torch.zeros(1, *latent_shape, dtype=torch.float32)
    latent = latent if like is None else latent.to(like)
    try:
        with torch.no_grad(), torch.inference_mode(False):
            picture = generator(latent)
    except Exception as error:
        raise ValueError(
            f"latent_shape: the generator fails on a latent (1, {str(latent_shape)[1:]}: {error}"
        ) from error
    if not isinstance(picture, Tensor) or picture.ndim != 4 or len(picture) != 1:
        got = tuple(picture.shape) if isinstance(picture, Tensor) else type(picture).__name__
        raise ValueError(f"generator must return pictures (N, C, H, W), got {got} for one latent")
    return picture.shape[1], picture.shape[2], picture.shape[3]
