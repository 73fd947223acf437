"""The Fourier basis of pictures, scaled as the spectrum of photos falls."""

from __future__ import annotations

import torch
from torch import Tensor


def frequencies(size: tuple[int, int]) -> Tensor:
    """Return the length of every spatial frequency of a real picture, in cycles per pixel.

    Shape:
        (height, width) -> (height, width // 2 + 1)

    Example:
        >>> frequencies((4, 4))[0].tolist()
        [0.0, 0.25, 0.5]
    """
    vertical = torch.fft.fftfreq(size[0], dtype=torch.float64)
    horizontal = torch.fft.rfftfreq(size[1], dtype=torch.float64)
    return torch.hypot(vertical[:, None], horizontal[None, :])


def spectrum_scale(size: tuple[int, int], decay: float = 1.0) -> Tensor:
    """Return the weight of every frequency: ``1 / max(f, 1 / max(height, width)) ** decay``.

    With the orthonormal transform this equals Lucid's ``sqrt(height * width)`` times the default, unnormalised one.

    Shape:
        (height, width) -> (height, width // 2 + 1)

    Example:
        >>> spectrum_scale((4, 4))[0].tolist()
        [4.0, 4.0, 2.0]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """
    lowest = 1.0 / max(size)
    return frequencies(size).clamp_min(lowest).pow(-decay).to(torch.float32)
