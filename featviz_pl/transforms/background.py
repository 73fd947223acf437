"""Transparent pictures on a background."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from featviz_pl.numerics.checks import finite_number, unknown
from featviz_pl.numerics.color import color_matrix, mix_channels
from featviz_pl.numerics.device_transfer import to_device
from featviz_pl.numerics.fourier import spectrum_scale
from featviz_pl.numerics.jit_tracing import untraced
from featviz_pl.transforms.base import Transform
from featviz_pl.transforms.noise import Seeded, from_seeds
from featviz_pl.transforms.ranges import draw_seeds
from featviz_pl.transforms.warp import at_least_float32, sizes

KINDS = ("noise", "random", "constant")


class Background(Transform):
    """Show a transparent picture on a background: ``colors * alpha + background * (1 - alpha)``, alpha last.

    A random background gives nothing to hide in: what is to be seen on each of them must be opaque. Noise has the
    spectrum and, where there are three colors, the colors of photos: a spectrum of independent normal numbers times
    ``deviation / f ** decay``, divided by 4 as Lucid does, its colors mixed by the ImageNet matrix, through a sigmoid.

    Shape:
        (N, 4, H, W) -> (N, 3, H, W), or (N, 2, H, W) -> (N, 1, H, W); parameters: seeds (N,) in int64, and (N,) how far
        the background is from the constant color to the drawn one

    Args:
        kind: ``"noise"``; ``"random"``, a uniform color for each view; or ``"constant"``, always `color`.
        color: in [0, 1], one number or one for each channel; what weakened backgrounds come near to.
        deviation: of the spectrum of noise, above 0.
        decay: exponent of the frequency.

    Raises:
        ValueError: when a picture has no alpha, or `color` does not fit its channels.

    Example:
        >>> image = torch.tensor([1.0, 0.0, 0.0, 0.25]).view(1, 4, 1, 1)
        >>> Background("constant", color=1.0)(image, torch.Generator()).flatten().tolist()
        [1.0, 0.75, 0.75]

    Reference:
        Mordvintsev, Pezzotti, Schubert, Olah, "Differentiable Image Parameterizations", Distill, 2018
    """

    def __init__(
        self,
        kind: Literal["noise", "random", "constant"] = "noise",
        color: float | Sequence[float] = 0.5,
        *,
        deviation: float = 0.2,
        decay: float = 1.5,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown("kind", "background", str(kind), KINDS)
        listed = color if isinstance(color, Sequence) and not isinstance(color, str) else [color]
        if len(listed) not in (1, 3):
            raise ValueError(f"color must be one number or three, got {len(listed)}")
        self.kind = kind
        self.color = tuple(finite_number("color", value, least=0.0, most=1.0) for value in listed)
        self.deviation, self.decay = finite_number("deviation", deviation, above=0.0), finite_number("decay", decay)

    def sample(self, generator: torch.Generator, n: int) -> Seeded:
        """Draw n seeds."""
        return draw_seeds(generator, n), torch.ones(n, dtype=torch.float32)

    def weaken(self, parameters: Seeded, strength: float) -> Seeded:
        """Bring the background nearer to the constant color: some background there must be."""
        return parameters[0], parameters[1] * strength

    def apply(self, image: Tensor, parameters: Seeded) -> Tensor:  # type: ignore[override]
        """Lay each picture on its background."""
        image = at_least_float32(image)
        with untraced():
            channels = int(image.shape[1]) - 1
            if channels not in (1, 3):
                raise ValueError(
                    f"Background: a picture of {channels + 1} channels has no alpha; it must have 2 or 4, alpha last"
                )
            background = to_device(self._drawn(channels, sizes(image)[1:], parameters).to(image.dtype), image.device)
        return image[:, :-1] * image[:, -1:] + background * (1 - image[:, -1:])

    def _drawn(self, channels: int, size: tuple[int, int], parameters: Seeded) -> Tensor:
        """Return the backgrounds (N, channels, H or 1, W or 1), on the CPU."""
        if len(self.color) not in (1, channels):
            raise ValueError(f"color: {len(self.color)} numbers do not fit a picture of {channels} color; give one")
        constant = torch.tensor(self.color, dtype=torch.float32).view(1, -1, 1, 1)
        seeds, strength = parameters[0], parameters[1].to("cpu", torch.float32).view(-1, 1, 1, 1)
        if self.kind == "constant":
            return constant.expand(len(seeds), channels, 1, 1)
        if self.kind == "random":
            drawn = from_seeds(
                seeds, lambda generator: torch.rand(channels, 1, 1, generator=generator, dtype=torch.float32)
            )
        else:
            drawn = self._noise(seeds, channels, size)
        return torch.lerp(constant.expand(len(seeds), channels, 1, 1), drawn, strength)

    def _noise(self, seeds: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
        scale = spectrum_scale(size, self.decay)
        shape = (channels, *scale.shape, 2)
        spectrum = from_seeds(seeds, lambda generator: torch.randn(shape, generator=generator, dtype=torch.float32))
        raw = torch.fft.irfft2(torch.view_as_complex(spectrum) * scale * self.deviation, s=size, norm="ortho") / 4
        matrix = color_matrix("auto", channels)
        with torch.autocast("cpu", enabled=False):
            return torch.sigmoid(raw if matrix is None else mix_channels(raw, matrix))

    def extra_repr(self) -> str:
        """Show what is behind."""
        color = f"{self.color[0]:g}" if len(self.color) == 1 else f"[{', '.join(f'{value:g}' for value in self.color)}]"
        noise = f", deviation={self.deviation:g}, decay={self.decay:g}" if self.kind == "noise" else ""
        return f"{self.kind!r}, color={color}{noise}"
