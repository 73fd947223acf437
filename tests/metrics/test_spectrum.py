"""The slope of pictures' spectra, and their share of high frequencies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor

from featviz_pl.metrics import HighFrequencyShare, PictureMetric, SpectrumSlope
from featviz_pl.metrics.spectrum import luminance


def each(metric: PictureMetric, pictures: Tensor) -> Tensor:
    """Return the value of every picture."""
    metric.reduction = "none"
    metric.update(pictures)
    return metric.compute()


def drawn(count: int = 3, channels: int = 3, height: int = 7, width: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, height, width, generator=generator, dtype=torch.float64)


# Spectra.


def power_law(slope: float, size: tuple[int, int], count: int = 16, seed: int = 0) -> Tensor:
    """Return pictures whose amplitude is exactly ``f ** slope``, with random phases, by numpy."""
    spectrum = np.fft.fft2(np.random.default_rng(seed).normal(size=(count, *size)))
    length = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None])
    length[0, 0] = 1.0
    waves = np.fft.ifft2(spectrum / np.abs(spectrum) * length**slope).real
    waves -= waves.mean((1, 2), keepdims=True)
    return torch.from_numpy(0.5 + 0.5 * waves / np.abs(waves).max((1, 2), keepdims=True))[:, None]


@pytest.mark.parametrize("slope", [0.0, -0.5, -1.0, -1.25, -2.0])
@pytest.mark.parametrize("size", [(96, 96), (224, 224), (96, 200), (160, 112), (512, 512)])
def test_pictures_made_with_a_slope_have_it_at_any_size(slope: float, size: tuple[int, int]) -> None:
    count = 48 if min(size) < 200 else 12 if min(size) < 500 else 2
    assert each(SpectrumSlope(), power_law(slope, size, count)).mean().item() == pytest.approx(slope, abs=0.05)


def test_a_crop_has_the_slope_of_the_picture_although_its_edges_do_not_match() -> None:
    parts = power_law(-1.25, (300, 300), 12)[..., 20:148, 100:228]
    assert each(SpectrumSlope(), parts).mean().item() == pytest.approx(-1.25, abs=0.06)


def test_colors_count_by_their_luminance() -> None:
    red, blue = power_law(-1.0, (96, 96), 2), power_law(-2.0, (96, 96), 2, seed=1)
    pictures = torch.cat([red, torch.full_like(red, 0.5), blue], dim=1)
    levels = (pictures * 255).round().to(torch.uint8)
    for picture, grey in zip(levels, luminance(levels / 255)):
        by_pillow = np.asarray(Pillow.fromarray(picture.permute(1, 2, 0).numpy()).convert("L"))
        np.testing.assert_allclose(grey.numpy() * 255, by_pillow, atol=1.0)
    grey = 0.299 * red + 0.587 * 0.5 + 0.114 * blue
    torch.testing.assert_close(each(SpectrumSlope(), pictures), each(SpectrumSlope(), grey))
    torch.testing.assert_close(each(SpectrumSlope(), grey.expand(-1, 5, -1, -1)), each(SpectrumSlope(), grey))


def test_contrast_and_brightness_do_not_change_the_slope() -> None:
    pictures = power_law(-1.2, (96, 96), 4)
    changed, expected = (each(SpectrumSlope(), batch) for batch in (0.1 * pictures + 0.7, pictures))
    torch.testing.assert_close(changed, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("frequency", "counts"), [(2 / 224, False), (0.05, True), (0.3, True), (0.4, False), (0.5, False)]
)
def test_frequencies_beyond_the_ends_of_the_line_do_not_count(frequency: float, counts: bool) -> None:
    pictures = 0.5 + 0.3 * (power_law(-1.25, (224, 224), 2) - 0.5)
    with_wave = pictures + 0.7 * (wave(frequency, (224, 224)) - 0.5)
    difference = (each(SpectrumSlope(), with_wave) - each(SpectrumSlope(), pictures)).abs().min().item()
    assert difference > 0.1 if counts else difference < 1e-4


def wave(frequency: float, size: tuple[int, int] = (64, 64), down: bool = False) -> Tensor:
    pixels = torch.arange(size[0] if down else size[1], dtype=torch.float64)
    values = 0.5 + 0.4 * torch.cos(2 * math.pi * frequency * pixels)
    return (values[:, None] if down else values[None]).expand(1, 1, *size)


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize(
    ("frequency", "cutoff", "share"), [(0.125, 0.25, 0), (0.375, 0.25, 1), (0.21, 0.15, 1), (0.11, 0.15, 0)]
)
def test_a_wave_lies_on_its_side_of_the_cutoff(frequency: float, cutoff: float, share: float, down: bool) -> None:
    value = each(HighFrequencyShare(cutoff), wave(frequency, (96, 80), down)).item()
    assert value == pytest.approx(share, abs=1e-3)


def test_the_share_is_one_of_power_and_of_all_channels() -> None:
    # A third of the amplitude has a ninth of the power: 1 / (1 + 9). In one channel of two, that is half of it: 1 / 20.
    low, high = wave(0.125) - 0.5, wave(0.375) - 0.5
    both = 0.5 + (3 * low + high) / 4
    assert each(HighFrequencyShare(), both).item() == pytest.approx(0.1, abs=1e-3)
    equal_power = 0.5 + math.sqrt(10) / 4 * low
    assert each(HighFrequencyShare(), torch.cat([both, equal_power], dim=1)).item() == pytest.approx(0.05, abs=1e-3)


def test_white_noise_has_the_share_of_the_area_above_the_cutoff() -> None:
    # A disc of radius r in the unit square of frequencies.
    for cutoff in (0.1, 0.25, 0.4):
        share = each(HighFrequencyShare(cutoff), drawn(4, 3, 128, 128)).mean().item()
        assert share == pytest.approx(1 - math.pi * cutoff**2, abs=0.01)


def test_a_slope_across_the_picture_is_no_fine_detail() -> None:
    # Without a window, the step from the right edge to the left would be: 7 % here.
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64).expand(1, 1, 64, 64)
    assert each(HighFrequencyShare(), ramp).item() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_flat_pictures_have_no_spectrum(level: float, dtype: torch.dtype) -> None:
    flat = torch.full((2, 3, 48, 40), level, dtype=dtype)
    for metric in (SpectrumSlope(), HighFrequencyShare()):
        torch.testing.assert_close(each(metric, flat), torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)
