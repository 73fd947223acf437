"""How natural the spectrum of a picture is: its slope, and its share of high frequencies; no network takes part.

What the docstrings report of photos are mean and standard deviation over the central 224 x 224 pixels of 934 photos of
ImageNet, each of another class, measured by ``python benchmarks/natural.py imagenet-samples``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from featviz_pl.metrics.base import PictureMetric, Reduction
from featviz_pl.numerics.checks import finite_number

_LOWEST, _HIGHEST = 1 / 32, 0.35  # cycles per pixel between which the slope is taken
_RINGS = 14  # about four in an octave
_LEAST_SIDE = 32  # pixels: a wave of the lowest frequency just fits
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow turns RGB to grey
_FLOOR = 1e-6  # least amplitude: rounding to 256 levels alone makes 1e-3
_FLAT = 1e-12  # power per pixel below which a picture counts as flat


def natural_slope() -> tuple[float, float]:
    """Return mean and standard deviation of `SpectrumSlope` over photos.

    Measured on the central 224 x 224 pixels of 934 photos of ImageNet, each of another class, by
    ``python benchmarks/natural.py imagenet-samples``; 66 photos have fewer pixels. Central parts of 96 and 128 pixels
    give means within 0.02. Shrinking softens: the largest square about the centre shrunk to 224 pixels has -1.36 ±
    0.22.

    Example:
        >>> natural_slope()
        (-1.2236, 0.2339)
    """
    return -1.2236, 0.2339


class SpectrumSlope(PictureMetric):
    """Measure how fast the spectrum falls: the slope of log mean amplitude over log frequency.

    The picture's luminance (ITU-R BT.601 for three channels, else the mean of the channels), less its mean and under a
    Hann window against the edges, is transformed; amplitudes are averaged in 14 rings of equal width in log frequency
    from 1/32 to 0.35 cycles per pixel, and a line is fitted to the logarithms by least squares:
    ``amplitude ~ f^slope``. White noise has 0, photos have -1.22 ± 0.23 (`natural_slope`), blurred pictures less. Rings
    are in cycles per pixel, so pictures of different sizes can be compared. A flat picture has 0.

    Of pictures with a known slope between 0 and -1.5, the mean is right within 0.05 from 64 pixels on and within 0.02
    from 96; a single one scatters by 0.1 at 64 pixels and by 0.03 at 224. At 32 pixels the slope is 0.15 too high.

    Range: (-∞, ∞); neither end is better, near that of photos is.

    Shape:
        update: pictures (N, C, H, W) in [0, 1]; compute: () or, with ``"none"``, (all pictures,)

    Args:
        reduction, kwargs: of `PictureMetric`.

    Raises:
        ValueError: when a side of the pictures has fewer than 32 pixels.

    Example:
        >>> noise = torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        >>> slope = SpectrumSlope()
        >>> slope.update(noise)
        >>> round(slope.compute().item(), 1) + 0.0
        0.0

    Reference:
        Field, "Relations between the statistics of natural images and the response properties of cortical cells",
        Journal of the Optical Society of America A, 1987
    """

    def measure(self, pictures: Tensor, *inputs: Any) -> Tensor:
        """Return the slope of each picture."""
        height, width = pictures.shape[-2:]
        if min(height, width) < _LEAST_SIDE:
            needed = f"each side needs at least {_LEAST_SIDE}"
            raise ValueError(f"pictures: {height} x {width} pixels are too few for a slope; {needed}")
        amplitude = windowed_power(luminance(pictures)).sqrt()
        length = _lengths(height, width, pictures.device)
        logarithm = (length / _LOWEST).log() / math.log(_HIGHEST / _LOWEST)  # 0 to 1 between the two
        frequencies, levels = [], []
        for ring in range(_RINGS):
            inside = (logarithm >= ring / _RINGS) & (logarithm < (ring + 1) / _RINGS)
            if inside.any():  # small pictures have no frequencies in some
                frequencies.append(length[inside].log().mean())
                levels.append(amplitude[:, inside].mean(1).clamp_min(_FLOOR).log())
        centered = torch.stack(frequencies) - torch.stack(frequencies).mean()
        return (torch.stack(levels, 1) * centered).sum(1) / centered.square().sum()


class HighFrequencyShare(PictureMetric):
    """Measure the share of a picture's power above a frequency.

    ``sum of |fft2|² where f > cutoff, by that of all f``, over all channels, each less its mean and under a Hann window
    against the edges. Photos have 0.069 ± 0.069 at the default, white noise has ``1 - π / 16 = 0.80``, checkerboards
    have 1. A flat picture has 0.

    Range: [0, 1]; neither end is better, near that of photos is.

    Shape:
        update: pictures (N, C, H, W) in [0, 1]; compute: () or, with ``"none"``, (all pictures,)

    Args:
        cutoff: in cycles per pixel, above 0 and below 0.5; the default is a wave of four pixels.
        reduction, kwargs: of `PictureMetric`.

    Raises:
        ValueError: when `cutoff` is out of range.

    Example:
        >>> waves = [0.5 + 0.25 * torch.cos(2 * math.pi * f * torch.arange(64)).expand(1, 1, 64, 64) for f in (0.125, 0.375)]
        >>> share = HighFrequencyShare()
        >>> share.update((waves[0] + waves[1]) / 2)  # both waves are equally strong
        >>> round(share.compute().item(), 3)
        0.5

    Reference:
        Odena, Dumoulin, Olah, "Deconvolution and Checkerboard Artifacts", Distill, 2016
    """

    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, cutoff: float = 0.25, *, reduction: Reduction = "mean", **kwargs: Any) -> None:
        super().__init__(reduction, **kwargs)
        self.cutoff = finite_number("cutoff", cutoff, above=0.0)
        if self.cutoff >= 0.5:
            raise ValueError(f"cutoff must be below 0.5 cycles per pixel, the Nyquist frequency, got {cutoff!r}")

    def measure(self, pictures: Tensor, *inputs: Any) -> Tensor:
        """Return the share of high frequencies of each picture."""
        power = windowed_power(pictures.double()).sum(1)
        high = _lengths(pictures.shape[-2], pictures.shape[-1], pictures.device) > self.cutoff
        total = power.sum((1, 2))
        flat = total <= _FLAT * pictures[0].numel()
        return torch.where(flat, 0.0, power[:, high].sum(1) / total.where(~flat, 1.0))

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"cutoff={self.cutoff!r}, {super().extra_repr()}"


def luminance(pictures: Tensor) -> Tensor:
    """Return the luminance of RGB pictures, and the mean of the channels of others, in float64.

    Shape:
        (N, C, H, W) -> (N, H, W)

    Example:
        >>> luminance(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).item()
        0.299
    """
    channels = pictures.shape[1]
    weights = _LUMA if channels == len(_LUMA) else (1 / channels,) * channels
    luma = torch.tensor(weights, dtype=torch.float64, device=pictures.device)
    return torch.einsum("nchw,c->nhw", pictures.double(), luma)


def windowed_power(values: Tensor) -> Tensor:
    """Return the power of every frequency, under a Hann window whose mean square is 1 and without the mean under it.

    Shape:
        (…, H, W) -> (…, H, W), all frequencies in the order of ``torch.fft.fft2``

    Example:
        >>> windowed_power(torch.full((4, 4), 0.5, dtype=torch.float64)).sum().item()
        0.0
    """
    height, width = values.shape[-2:]
    window = _hann(height, values)[:, None] * _hann(width, values)
    window = window / window.square().mean().sqrt()
    mean = (values * window).sum((-2, -1), keepdim=True) / window.sum()
    power: Tensor = torch.fft.fft2((values - mean) * window, norm="ortho").abs().square()
    return power


def _hann(count: int, like: Tensor) -> Tensor:
    """Return a symmetric Hann window, which is above 0 at the first and last pixel."""
    centers = torch.arange(count, dtype=like.dtype, device=like.device) + 0.5
    window: Tensor = (math.pi * centers / count).sin().square()
    return window


def _lengths(height: int, width: int, device: torch.device) -> Tensor:
    """Return the length of every frequency in cycles per pixel, in the order of ``torch.fft.fft2``."""
    vertical, horizontal = (torch.fft.fftfreq(count, dtype=torch.float64, device=device) for count in (height, width))
    return torch.hypot(vertical[:, None], horizontal)
