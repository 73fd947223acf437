from __future__ import annotations

import numpy as np
import pytest
import torch

from featviz_pl.numerics.fourier import frequencies, spectrum_scale

SIZES = [(8, 8), (7, 9), (6, 5), (5, 6), (1, 4), (5, 1), (2, 16)]


@pytest.mark.parametrize("size", SIZES)
def test_frequencies_are_those_of_numpy_s_half_spectrum(size: tuple[int, int]) -> None:
    height, width = size
    expected = np.empty((height, width // 2 + 1))
    for row in range(height):
        for column in range(width // 2 + 1):
            vertical = row if row <= height // 2 else row - height
            expected[row, column] = np.sqrt((vertical / height) ** 2 + (column / width) ** 2)
    np.testing.assert_allclose(frequencies(size).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("decay", [1.0, 0.85, 1.5, 0.0])
def test_the_scale_is_one_over_the_frequency_from_the_lowest_one_up(size: tuple[int, int], decay: float) -> None:
    height, width = size
    vertical, horizontal = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    length = np.sqrt(vertical**2 + horizontal**2)
    expected = 1.0 / np.maximum(length, 1.0 / max(width, height)) ** decay
    scale = spectrum_scale(size, decay)
    assert scale.dtype == torch.float32
    np.testing.assert_allclose(scale.numpy(), expected, rtol=1e-6)


def test_the_constant_part_weighs_as_much_as_the_lowest_frequency() -> None:
    scale = spectrum_scale((6, 10))
    assert float(scale[0, 0]) == pytest.approx(10.0)  # 1 / (1 / max(6, 10))
    assert float(scale[0, 1]) == pytest.approx(10.0)
    assert float(scale[1, 0]) == pytest.approx(6.0)
