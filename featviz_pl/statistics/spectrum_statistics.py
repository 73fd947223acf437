"""Mean amplitude spectra of photos."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from featviz_pl.numerics.checks import size_pair, whole_number
from featviz_pl.numerics.fourier import frequencies
from featviz_pl.statistics.exact_metric import plain

_LEAST_SIDE = 4  # pixels: below, there is nothing between the lowest frequency and the highest


class SpectrumStatistics:
    """Hold the mean magnitude of the spectrum of a set of pictures, channel by channel.

    Args:
        magnitude: (C, H, W // 2 + 1) of the orthonormal half transform of decorrelated, unsquashed pictures; see
            `AmplitudeSpectrum`.
        size: (H, W) of the pictures, in pixels.
        count: number of pictures.
        matrix: (C, C) from decorrelated to picture channels; None where channels are not decorrelated.

    Example:
        >>> flat = SpectrumStatistics(torch.ones(1, 8, 5), (8, 8), 10)
        >>> flat.resized((16, 12)).magnitude.shape
        torch.Size([1, 16, 7])
    """

    def __init__(self, magnitude: Tensor, size: int | Sequence[int], count: int, matrix: Tensor | None = None) -> None:
        self.magnitude = plain(magnitude)
        self.size = spectrum_size(size)
        self.count = whole_number("count", count)
        self.matrix = None if matrix is None else plain(matrix)
        height, width = self.size[0], self.size[1] // 2 + 1
        if self.magnitude.ndim != 3 or tuple(self.magnitude.shape[1:]) != (height, width):
            shape = tuple(self.magnitude.shape)
            raise ValueError(f"magnitude must be (C, {height}, {width}) for size {self.size}, got shape {shape}")
        if not (self.magnitude >= 0).all() or not torch.isfinite(self.magnitude).all():
            raise ValueError("magnitude must be finite and not negative")
        if self.matrix is not None and self.matrix.shape != (self.channels, self.channels):
            raise ValueError(f"matrix: shape {tuple(self.matrix.shape)} does not fit {self.channels} channels")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.magnitude)

    def resized(self, size: int | Sequence[int]) -> SpectrumStatistics:
        """Return the magnitude for pictures of another size.

        The spectrum of photos falls about as ``1 / frequency``, so that ``magnitude * f`` is resampled, with ``f`` in
        cycles per pixel. A photo at another size keeps its low frequencies in cycles per picture, while its highest
        ones follow the pixels. The lowest therefore maps to the lowest and the highest to the highest, linearly in log
        frequency between them: with ``n = sqrt(h w)``, ``f n`` cycles come from
        ``(f n) ** (log(N / 2) / log(n / 2))`` cycles of the template of ``N = sqrt(H W)`` pixels, in the same
        direction. The mean grows with ``n``, as in the orthonormal transform.

        Between sizes from 64 to 224 the contrast is within 2 % of the measured one (6 % for pictures that are not
        square), a magnitude within 15 % at the median, the highest frequencies within 30 %. This holds for shrunk
        photos: unshrunk ones have up to three times as strong high frequencies.

        Shape:
            () -> magnitude (C, h, w // 2 + 1)

        Args:
            size: in pixels, one number or (height, width), of at least 4.

        Example:
            >>> constant = torch.zeros(1, 8, 5)
            >>> constant[:, 0, 0] = 4.0  # 8 * 0.5: of pictures that are 0.5 everywhere
            >>> float(SpectrumStatistics(constant, 8, 1).resized(16).magnitude[0, 0, 0])
            8.0
        """
        target = spectrum_size(size)
        if target == self.size:
            return self
        old, new = math.sqrt(self.size[0] * self.size[1]), math.sqrt(target[0] * target[1])
        length = frequencies(target)
        length[0, 0] = 1.0  # the mean is set below
        stretch = (length * new) ** (math.log(old / 2) / math.log(new / 2)) / old / length
        rows = torch.fft.fftfreq(target[0], dtype=torch.float64)[:, None] * stretch
        columns = torch.fft.rfftfreq(target[1], dtype=torch.float64)[None] * stretch
        weighted = self.magnitude * frequencies(self.size)
        # Below the lowest frequency, the mean of its neighbours.
        weighted[:, 0, 0] = (weighted[:, 0, 1] + weighted[:, 1, 0] + weighted[:, -1, 0]) / 3
        result = _between(weighted, rows * self.size[0], columns * self.size[1], self.size) / length
        result[:, 0, 0] = self.magnitude[:, 0, 0] * new / old
        return SpectrumStatistics(_mirrored(result, target), target, self.count, self.matrix)

    def __repr__(self) -> str:
        return f"SpectrumStatistics(magnitude={self.magnitude}, size={self.size}, count={self.count}, matrix={self.matrix})"


def spectrum_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) of at least 4 pixels each, or raise."""
    pair = size_pair("size", size)
    if min(pair) < _LEAST_SIDE:
        raise ValueError(f"size must be at least {_LEAST_SIDE} pixels on each side, got {size!r}")
    return pair


def _between(values: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate a half spectrum bilinearly; rows are periodic, and frequencies are clamped to the highest."""
    rows = rows.clamp(-size[0] / 2, size[0] / 2)
    columns = columns.clamp(0, size[1] // 2)
    row, column = rows.floor().long(), columns.floor().long()
    down, right = rows - row, columns - column
    above, below = row % size[0], (row + 1) % size[0]
    last = (column + 1).clamp_max(size[1] // 2)
    upper = values[:, above, column] * (1 - right) + values[:, above, last] * right
    lower = values[:, below, column] * (1 - right) + values[:, below, last] * right
    return upper * (1 - down) + lower * down


def _mirrored(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Make the columns that mirror themselves symmetric, as they are for every real picture."""
    for column in {0, size[1] // 2} if size[1] % 2 == 0 else {0}:
        values[:, :, column] = (values[:, :, column] + values[:, :, column].flip(-1).roll(1, -1)) / 2
    return values
