"""Noise and shifted colors: their moments, their seeds, and how they move through a run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featviz_pl.transforms import ColorShift, Noise


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(count: int, channels: int = 3, side: int = 64) -> Tensor:
    return torch.full((count, channels, side, side), 0.5, dtype=torch.float64)


def excess(transform: Any, image: Tensor, progress: float = 0.0, seed: int = 0) -> Tensor:
    parameters = transform.at(transform.sample(generator(seed), len(image)), progress)
    shown: Tensor = transform.apply(image, parameters)
    return shown - image


def test_gaussian_noise_has_its_deviation_and_shape() -> None:
    noise = excess(Noise(0.3), grey(4)).flatten()
    assert float(noise.mean()) == pytest.approx(0.0, abs=4 * 0.3 / math.sqrt(len(noise)))
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02)
    # Within one, two and three deviations.
    for bound, share in [(1, 0.6827), (2, 0.9545), (3, 0.9973)]:
        assert float((noise.abs() < bound * 0.3).double().mean()) == pytest.approx(share, abs=0.01)


def test_uniform_noise_fills_its_range_evenly() -> None:
    noise = excess(Noise(0.0, uniform=0.2), grey(4)).flatten()
    assert float(noise.min()) == pytest.approx(-0.2, abs=1e-3)
    assert float(noise.max()) == pytest.approx(0.2, abs=1e-3)
    assert float(noise.std()) == pytest.approx(0.2 / math.sqrt(3), rel=0.02)
    shares = torch.histc(noise, 8, -0.2, 0.2) / len(noise)
    np.testing.assert_allclose(shares, np.full(8, 1 / 8), atol=0.01)


def test_both_parts_add_up_and_are_independent() -> None:
    both = excess(Noise(0.3, uniform=0.2), grey(2))
    normal, flat = excess(Noise(0.3), grey(2)), excess(Noise(0.0, uniform=0.2), grey(2))
    torch.testing.assert_close(both, normal + flat, rtol=0, atol=1e-7)
    assert abs(float(torch.corrcoef(torch.stack([normal.flatten(), flat.flatten()]))[0, 1])) < 0.03


def test_each_view_and_each_value_has_noise_of_its_own() -> None:
    noise = excess(Noise(0.3), grey(3, 2, 40)).flatten(2).flatten(0, 1)
    correlations = torch.corrcoef(noise) - torch.eye(6)
    assert float(correlations.abs().max()) < 0.1
    assert float(excess(Noise(0.3), grey(1), seed=1).sub(excess(Noise(0.3), grey(1))).abs().max()) > 0.1


def test_noise_of_channels_is_flat() -> None:
    noise = excess(Noise(0.3, channelwise=True), grey(500, 3, 2))
    torch.testing.assert_close(noise, noise[:, :, :1, :1].expand_as(noise), rtol=0, atol=1e-7)
    assert float(noise[:, :, 0, 0].std()) == pytest.approx(0.3, rel=0.08)
    assert noise[:, :, 0, 0].flatten().unique().numel() == 1500


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_the_deviation_moves_in_a_straight_line(progress: float) -> None:
    first = excess(Noise(0.5), grey(1))
    moved = excess(Noise(0.5, end=0.1), grey(1), progress)
    torch.testing.assert_close(moved, first * (0.5 - 0.4 * progress) / 0.5, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
def test_a_logarithmic_decay_is_numpy_s_logspace(progress: float) -> None:
    # Xplique without an intensity: logspace(0, -4).
    _, strengths = Noise(1.0, uniform=0.5, end=1e-4, decay="logarithmic").at(
        Noise(1.0, uniform=0.5).sample(generator(), 2), progress
    )
    expected = np.logspace(0, -4, 101)[round(100 * progress)]
    np.testing.assert_allclose(strengths, [[expected, expected / 2]] * 2, rtol=1e-5)


def test_half_strength_is_half_of_the_same_noise() -> None:
    noise = Noise(0.3, uniform=0.2)
    parameters = noise.sample(generator(), 2)
    image = grey(2)
    half = noise.apply(image, noise.weaken(parameters, 0.5)) - image
    torch.testing.assert_close(half, (noise.apply(image, parameters) - image) / 2, rtol=0, atol=1e-7)


def test_colors_are_shifted_and_stretched_by_the_published_formula() -> None:
    shift = ColorShift()
    # Two greys are enough to find both numbers of a channel.
    parameters = shift.sample(generator(), 4000)
    low = shift.apply(torch.zeros(4000, 3, 1, 1, dtype=torch.float64), parameters).flatten(1)
    high = shift.apply(torch.ones(4000, 3, 1, 1, dtype=torch.float64), parameters).flatten(1)
    sigma = 1 / (high - low)
    mu = -low * sigma
    for drawn in (mu, sigma.log()):  # both uniform in [-1, 1]
        assert float(drawn.min()) == pytest.approx(-1.0, abs=0.01)
        assert float(drawn.max()) == pytest.approx(1.0, abs=0.01)
        assert float(drawn.mean()) == pytest.approx(0.0, abs=0.03)
        assert float(drawn.std()) == pytest.approx(1 / math.sqrt(3), rel=0.03)
        assert float((torch.corrcoef(drawn.T) - torch.eye(3)).abs().max()) < 0.06, "each channel has its own"
    assert abs(float(torch.corrcoef(torch.stack([mu.flatten(), sigma.log().flatten()]))[0, 1])) < 0.04
    middle = shift.apply(torch.full((4000, 3, 1, 1), 0.3, dtype=torch.float64), parameters).flatten(1)
    torch.testing.assert_close(middle, (0.3 - mu) / sigma)


def test_a_shift_is_the_same_at_every_pixel_and_of_any_channel_count() -> None:
    for channels in (1, 3, 7):
        shown = ColorShift()(torch.zeros(5, channels, 3, 4), generator())
        assert torch.equal(shown, shown[:, :, :1, :1].expand_as(shown))
    # The first channels of a picture of seven are those of one of three.
    few, many = (ColorShift()(torch.zeros(5, channels, 1, 1), generator()) for channels in (3, 7))
    assert torch.equal(few, many[:, :3])


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_shifts_calm_down(progress: float) -> None:
    factor = 1 - 0.9 * progress
    image = torch.rand(6, 3, 2, 2, generator=generator(3), dtype=torch.float64)
    plain, calm = ColorShift(factor, factor), ColorShift(end=0.1)
    expected = plain.apply(image, plain.sample(generator(), 6))
    torch.testing.assert_close(
        calm.apply(image, calm.at(calm.sample(generator(), 6), progress)), expected, rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        ColorShift().apply(image, ColorShift().weaken(ColorShift().sample(generator(), 6), factor)), expected
    )


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (lambda: Noise(0.5), "Noise(0.5)"),
        (lambda: Noise(0.04, uniform=0.02), "Noise(0.04, uniform=0.02)"),
        (
            lambda: Noise(1, 0.5, end=1e-4, decay="logarithmic", channelwise=True),
            "Noise(1, uniform=0.5, end=0.0001, decay='logarithmic', channelwise=True)",
        ),
        (lambda: ColorShift(0.5, 0.25, end=0.1), "ColorShift(mean=0.5, scale=0.25, end=0.1)"),
    ],
)
def test_repr_is_the_constructor(transform: Any, text: str) -> None:
    assert repr(transform()) == text
    assert repr(eval(text)) == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Noise(-0.1), "deviation must be at least 0, got -0.1"),
        (lambda: Noise(0.1, uniform=-1), "uniform must be at least 0, got -1"),
        (lambda: Noise(0.1, end=-1), "end must be at least 0, got -1"),
        (
            lambda: Noise(0.1, end=0.0, decay="logarithmic"),
            "decay: 'logarithmic' needs deviation and end above 0, got 0.1 and 0.0",
        ),
        (
            lambda: Noise(0.1, decay="logarithmic"),
            "decay: 'logarithmic' needs deviation and end above 0, got 0.1 and None",
        ),
        (lambda: Noise(0.1, end=0.1, decay="linaer"), "decay: unknown decay 'linaer'; did you mean 'linear'"),  # type: ignore[arg-type]
        (lambda: ColorShift(-1.0), "mean must be at least 0, got -1.0"),
        (lambda: ColorShift(scale=float("inf")), "scale must be at least 0, got inf"),
    ],
)
def test_bad_arguments_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
