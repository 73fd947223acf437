"""Pictures that a generative network paints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from featviz_pl.images.latent import LatentImage
from featviz_pl.numerics.checks import finite_number, size_pair, whole_number
from featviz_pl.numerics.isolated_copy import frozen_copy


class GeneratorImage(LatentImage):
    """Optimise the latent of a generator: ``picture = clip((generator(weight) - low) / (high - low))``.

    The generator's prior keeps pictures natural, and puts into them what it knows: a picture shows what both networks
    agree on. The generator is a frozen guest: the image works on a private copy that shares its weights, in evaluation
    mode, in the image's own precision, and is no part of checkpoints or optimizers. It must give the same picture for
    the same latent.

    Shape:
        () -> (N, C, H, W)

    Args:
        generator: any ``nn.Module`` from latents (N, *latent_shape) to pictures (N, C, H, W).
        latent_shape: of one latent, a whole number or several.
        size: of the generator's pictures, one number or (height, width), to be checked; found by one pass unless given.
        count: number of pictures; None lets the objective decide.
        channels: of the generator's pictures, to be checked; found unless given.
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
        guest = frozen_copy(generator)
        found = _pictured(guest, shape)
        if size is not None and size_pair("size", size) != found[1:]:
            raise ValueError(f"size: the generator's pictures have {found[1:]} pixels, not {size_pair('size', size)}")
        if channels is not None and whole_number("channels", channels) != found[0]:
            raise ValueError(f"channels: the generator's pictures have {found[0]}, not {channels}")
        super().__init__(found[1:], None, found[0], "none", deviation, "clip")
        if len(value_range) != 2 or not finite_number("value_range", value_range[0]) < finite_number(
            "value_range", value_range[1]
        ):
            raise ValueError(f"value_range must be (low, high), low below high, got {value_range!r}")
        self.value_range = (float(value_range[0]), float(value_range[1]))
        self.latent_shape = shape
        self._guest = (guest,)  # in a tuple it is no submodule: not in checkpoints, optimizers and DDP
        if count is not None:
            self.allocate(count)

    @property
    def generator(self) -> nn.Module:
        """The private copy of the generator."""
        return self._guest[0]

    def weight_shape(self) -> tuple[int, ...]:
        """Return the shape of one latent."""
        return self.latent_shape

    def decode_latent(self, weight: Tensor) -> Tensor:
        """Let the generator paint, where the weights are and in their precision."""
        held = _first_weight(self.generator)
        if held is not None and (held.device, held.dtype) != (weight.device, weight.dtype):
            self.generator.to(weight.device, weight.dtype)
        painted: Tensor = self.generator(weight)
        return painted

    def finish(self, latent: Tensor) -> Tensor:
        """Map the generator's range to [0, 1]."""
        low, high = self.value_range
        return ((latent - low) / (high - low)).clamp(0, 1)

    def encode_latent(self, latent: Tensor) -> Tensor:
        """Refuse: a generator has no inverse.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "image: a generator cannot be inverted, so no picture can start its latent; maximise Inversion of the picture instead"
        )

    def unfinish(self, pictures: Tensor) -> Tensor:
        """Return what the generator would have to paint."""
        low, high = self.value_range
        return pictures * (high - low) + low

    def extra_repr(self) -> str:
        """Show the generator by its class."""
        return (
            f"generator={type(self.generator).__name__}, latent_shape={self.latent_shape}, size={self.size}, count={self.count}, "
            f"channels={self.channels}, value_range={self.value_range}, deviation={self.deviation:g}"
        )


def _first_weight(module: nn.Module) -> Tensor | None:
    return next((held for held in (*module.parameters(), *module.buffers()) if held.is_floating_point()), None)


def _pictured(generator: nn.Module, latent_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (C, H, W) of what the generator paints from a latent of zeros."""
    like = _first_weight(generator)
    latent = torch.zeros(
        1,
        *latent_shape,
        device=None if like is None else like.device,
        dtype=torch.float32 if like is None else like.dtype,
    )
    try:
        with torch.no_grad(), torch.inference_mode(False):
            painted = generator(latent)
    except Exception as error:
        raise ValueError(
            f"latent_shape: the generator fails on a latent (1, {str(latent_shape)[1:]}: {error}"
        ) from error
    if not isinstance(painted, Tensor) or painted.ndim != 4 or len(painted) != 1:
        got = tuple(painted.shape) if isinstance(painted, Tensor) else type(painted).__name__
        raise ValueError(f"generator must give pictures (N, C, H, W); for one latent it gave {got}")
    _, channels, height, width = painted.shape
    return channels, height, width
