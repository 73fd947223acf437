"""Noise and color casts, made from a seed for each view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from featviz_pl.numerics.checks import finite_number, unknown
from featviz_pl.numerics.device_transfer import to_device
from featviz_pl.numerics.jit_tracing import untraced
from featviz_pl.transforms.base import Transform
from featviz_pl.transforms.ranges import draw_seeds
from featviz_pl.transforms.warp import at_least_float32

Seeded = tuple[Tensor, Tensor]


def from_seeds(seeds: Tensor, make: Callable[[torch.Generator], Tensor]) -> Tensor:
    """Stack what is made from the generator of each seed, on the CPU: it is the same for every device."""
    with untraced():
        return torch.stack([make(torch.Generator().manual_seed(seed)) for seed in seeds.tolist()])


class Noise(Transform):
    """Add Gaussian noise, uniform noise, or both to every value; results may leave [0, 1].

    ``x + deviation * normal + uniform * (2 * rand - 1)``. The same seed and shape give the same noise, on every device.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters: seeds (N,) in int64, and (N, 2) deviation and reach of the uniform
        part

    Args:
        deviation: of the Gaussian part, 0 or more; pictures are in [0, 1].
        uniform: the uniform part reaches from -uniform to uniform.
        end: the deviation at the end of the run; None keeps it. The uniform part moves in proportion.
        decay: how `end` is reached: ``"linear"``, or ``"logarithmic"`` (linear in the logarithm; both ends above 0).
        channelwise: draw one number for each channel, not for each value: a cast of color, not a grain.

    Raises:
        ValueError: when a number is negative, or a logarithmic decay begins or ends at 0.

    Example:
        >>> noise = Noise(0.5, end=0.0)
        >>> seeds, strengths = noise.at(noise.sample(torch.Generator(), 1), progress=0.75)
        >>> strengths.tolist()
        [[0.125, 0.0]]
    """

    def __init__(
        self,
        deviation: float,
        uniform: float = 0.0,
        *,
        end: float | None = None,
        decay: Literal["linear", "logarithmic"] = "linear",
        channelwise: bool = False,
    ) -> None:
        super().__init__()
        self.deviation = finite_number("deviation", deviation, least=0.0)
        self.uniform = finite_number("uniform", uniform, least=0.0)
        self.end = None if end is None else finite_number("end", end, least=0.0)
        if decay not in ("linear", "logarithmic"):
            raise unknown("decay", "decay", str(decay), ["linear", "logarithmic"])
        if decay == "logarithmic" and (self.end is None or not self.end or not self.deviation):
            raise ValueError(f"decay: 'logarithmic' needs deviation and end above 0, got {deviation!r} and {end!r}")
        self.decay, self.channelwise = decay, bool(channelwise)

    def sample(self, generator: torch.Generator, n: int) -> Seeded:
        """Draw n seeds."""
        strengths = torch.tensor([[self.deviation, self.uniform]], dtype=torch.float32).repeat(n, 1)
        return draw_seeds(generator, n), strengths

    def at(self, parameters: Seeded, progress: float) -> Seeded:
        """Move the deviation, and the uniform part in proportion."""
        if self.end is None:
            return parameters
        if self.decay == "logarithmic":
            now = self.deviation * (self.end / self.deviation) ** progress
        else:
            now = self.deviation + (self.end - self.deviation) * progress
        strengths = torch.tensor(
            [now, self.uniform * now / self.deviation if self.deviation else self.uniform], dtype=torch.float32
        )
        return parameters[0], strengths.expand_as(parameters[1]).clone()

    def weaken(self, parameters: Seeded, strength: float) -> Seeded:
        """Add less of the same noise."""
        return parameters[0], parameters[1] * strength

    def apply(self, image: Tensor, parameters: Seeded) -> Tensor:  # type: ignore[override]
        """Add the noise of each seed."""
        image = at_least_float32(image)
        with untraced():
            seeds, strengths = parameters[0], parameters[1].to("cpu")
            shape = (
                (int(image.shape[1]), 1, 1) if self.channelwise else tuple(int(length) for length in image.shape[1:])
            )
            deviation, reach = strengths.to(torch.float32).view(-1, 2, 1, 1, 1).unbind(1)
            noise = deviation * from_seeds(
                seeds, lambda generator: torch.randn(shape, generator=generator, dtype=torch.float32)
            )
            if reach.any():
                # Seeds of their own, so that either part stays what it is without the other.
                flat = from_seeds(
                    seeds ^ 1, lambda generator: torch.rand(shape, generator=generator, dtype=torch.float32)
                )
                noise = noise + reach * (2 * flat - 1)
            noise = to_device(noise.to(image.dtype), image.device)
        return image + noise

    def extra_repr(self) -> str:
        """Show the strengths."""
        uniform = f", uniform={self.uniform:g}" if self.uniform else ""
        end = "" if self.end is None else f", end={self.end:g}"
        decay = "" if self.decay == "linear" else f", decay={self.decay!r}"
        return f"{self.deviation:g}{uniform}{end}{decay}{', channelwise=True' if self.channelwise else ''}"


class ColorShift(Transform):
    """Shift and scale each channel of each view: ``(x - m) / s``, m from U(-mean, mean), s from exp U(-scale, scale).

    x is the picture in [0, 1], as in the authors' code, which normalises for the network after it; results leave [0,
    1].

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters: seeds (N,) in int64, and (N,) a factor of both ranges

    Args:
        mean: largest shift, 0 or more.
        scale: largest logarithm of the stretch, 0 or more.
        end: factor of both ranges at the end of the run, reached linearly, 0 or more; None keeps them.

    Example:
        >>> shift = ColorShift(mean=0.5, scale=0.0)
        >>> shifted = shift(torch.zeros(2, 3, 4, 4), torch.Generator().manual_seed(0))
        >>> bool((shifted.amax((2, 3)) == shifted.amin((2, 3))).all()), bool(shifted.abs().max() <= 0.5)
        (True, True)

    Reference:
        Ghiasi, Kazemi, Reich, Zhu, Goldblum, Goldstein, "Plug-In Inversion: Model-Agnostic Inversion for Vision with
        Data Augmentations", 2022
    """

    def __init__(self, mean: float = 1.0, scale: float = 1.0, *, end: float | None = None) -> None:
        super().__init__()
        self.mean, self.scale = finite_number("mean", mean, least=0.0), finite_number("scale", scale, least=0.0)
        self.end = None if end is None else finite_number("end", end, least=0.0)

    def sample(self, generator: torch.Generator, n: int) -> Seeded:
        """Draw n seeds."""
        return draw_seeds(generator, n), torch.ones(n, dtype=torch.float32)

    def at(self, parameters: Seeded, progress: float) -> Seeded:
        """Move the factor."""
        if self.end is None:
            return parameters
        return parameters[0], torch.full_like(parameters[1], 1 + (self.end - 1) * progress)

    def weaken(self, parameters: Seeded, strength: float) -> Seeded:
        """Shift and stretch less."""
        return parameters[0], parameters[1] * strength

    def apply(self, image: Tensor, parameters: Seeded) -> Tensor:  # type: ignore[override]
        """Shift and stretch."""
        image = at_least_float32(image)
        with untraced():
            channels = int(image.shape[1])
            drawn = from_seeds(
                parameters[0], lambda generator: torch.rand((channels, 2), generator=generator, dtype=torch.float32)
            )
            # (N, C, 2) in [-1, 1], in the picture's precision.
            drawn = (2 * drawn.to(image.dtype) - 1) * parameters[1].to("cpu", image.dtype).view(-1, 1, 1)
            shift = to_device(drawn[:, :, 0] * self.mean, image.device)
            stretch = to_device(torch.exp(drawn[:, :, 1] * self.scale), image.device)
        return (image - shift[..., None, None]) / stretch[..., None, None]

    def extra_repr(self) -> str:
        """Show the ranges."""
        return f"mean={self.mean:g}, scale={self.scale:g}" + ("" if self.end is None else f", end={self.end:g}")
