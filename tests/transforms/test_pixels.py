"""Roll, blur and normalised gradients against numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, Uniform

from featviz_pl.transforms import Blur, Compose, Jitter, NormalizeGradient, Roll, Views


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator(9), dtype=torch.float64)


def test_a_roll_is_numpy_s_roll_exactly() -> None:
    image = pictures(4, 2, 5, 6)
    shifts = torch.tensor([[2.0, 1.0], [-3.0, 0.0], [0.0, -4.0], [0.0, 0.0]])
    shown = Roll(4).apply(image, shifts)
    for row, (down, right) in enumerate(shifts.int().tolist()):
        assert np.array_equal(shown[row].numpy(), np.roll(image[row].numpy(), (down, right), axis=(1, 2)))


def test_rolls_are_drawn_evenly_and_weakened_to_whole_pixels() -> None:
    drawn = Roll(3).sample(generator(), 7000)
    assert set(drawn.flatten().tolist()) == set(range(-3, 4))
    for shift in range(-3, 4):
        assert float((drawn == shift).float().mean()) == pytest.approx(1 / 7, abs=0.02)
    assert Roll(9).weaken(torch.tensor([[9.0, -5.0]]), 0.3).tolist() == [[3.0, -2.0]]


def blurred(image: Any, sigma: float, reach: int) -> Any:
    """Blur one channel (H, W) by definition: sum over every offset in the mirrored plane."""
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    around = np.pad(image, reach, mode="symmetric")
    rows = np.stack([np.convolve(column, kernel, mode="valid") for column in around.T]).T
    return np.stack([np.convolve(row, kernel, mode="valid") for row in rows])


@pytest.mark.parametrize("size", [(9, 7), (3, 4), (1, 2)])
@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.3])
def test_a_blur_is_a_gaussian_of_the_mirrored_picture(size: tuple[int, int], sigma: float) -> None:
    image = pictures(1, 2, *size)
    shown = Blur(sigma).apply(image, torch.tensor([sigma], dtype=torch.float64))
    for channel in range(2):
        np.testing.assert_allclose(
            shown[0, channel], blurred(image[0, channel].numpy(), sigma, math.ceil(4 * sigma)), atol=1e-12
        )


def test_the_kernel_may_be_cut_short() -> None:
    image = pictures(1, 1, 8, 9)
    shown = Blur(2.0, kernel=5).apply(image, torch.tensor([2.0]))
    np.testing.assert_allclose(shown[0, 0], blurred(image[0, 0].numpy(), 2.0, 2), atol=1e-12)


def test_each_view_has_its_own_blur_and_none_is_none() -> None:
    image = pictures(3, 1, 8, 9)
    shown = Blur([0.0, 1.0]).apply(image, torch.tensor([0.5, 0.0, 3.0]))
    np.testing.assert_allclose(shown[0, 0], blurred(image[0, 0].numpy(), 0.5, 2), atol=1e-12)
    assert torch.equal(shown[1], image[1])
    np.testing.assert_allclose(shown[2, 0], blurred(image[2, 0].numpy(), 3.0, 12), atol=1e-12)


def test_a_blur_keeps_the_mean() -> None:
    image = pictures(4, 3, 6, 11)
    shown = Blur(Uniform(0.5, 4.0))(image, generator())
    torch.testing.assert_close(shown.mean((2, 3)), image.mean((2, 3)))
    assert float(shown.std()) < 0.6 * float(image.std())


def test_sigma_is_drawn_as_it_says_and_never_negative() -> None:
    drawn = Blur(Uniform(1.0, 1.1)).sample(generator(), 5000)
    assert 1.0 <= float(drawn.min()) < 1.01
    assert 1.09 < float(drawn.max()) <= 1.1
    assert float(Blur(Normal(0.0, 1.0)).sample(generator(), 100).min()) == 0.0
    assert Blur(2.0).weaken(torch.tensor([2.0]), 0.25).tolist() == [0.5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Blur(1.0, kernel=10),
            "kernel must be odd, .* got 10, use 11",
        ),
        (lambda: Blur(1.0, kernel=0), "kernel must be at least 1, got 0"),
        (lambda: Roll(-1), "pixels must be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_gradients_of_each_view_have_length_one_and_their_own_direction() -> None:
    image = pictures(3, 2, 4, 5).requires_grad_(True)
    upstream = pictures(3, 2, 4, 5) * torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64).view(3, 1, 1, 1)
    shown = NormalizeGradient()(image, generator())
    assert torch.equal(shown, image)
    shown.backward(upstream)
    assert image.grad is not None
    for row in range(3):
        expected = upstream[row].numpy() / np.sqrt((upstream[row].numpy() ** 2).sum())
        np.testing.assert_allclose(image.grad[row], expected, rtol=1e-12)


def test_a_gradient_of_zero_stays_zero() -> None:
    image = pictures(2, 1, 3, 3).requires_grad_(True)
    NormalizeGradient()(image, generator())[0].sum().backward()
    assert image.grad is not None
    assert not image.grad[1].any()
    assert float(image.grad[0].norm()) == pytest.approx(1.0)


def test_a_weakened_normalisation_divides_by_a_power() -> None:
    image = pictures(1, 1, 3, 3).requires_grad_(True)
    normalize = NormalizeGradient()
    shown = normalize.apply(image, normalize.weaken(torch.ones(1), 0.5))
    shown.backward(torch.full((1, 1, 3, 3), 3.0, dtype=torch.float64))  # of length 9
    assert image.grad is not None
    torch.testing.assert_close(image.grad, torch.full_like(image, 1.0))


def test_other_ways_to_the_picture_keep_their_gradient() -> None:
    image = pictures(1, 1, 3, 3).requires_grad_(True)
    (NormalizeGradient()(image, generator()).sum() * 5 + image.sum() * 2).backward()
    assert image.grad is not None
    torch.testing.assert_close(image.grad, torch.full_like(image, 1 / 3 + 2))


def test_every_view_of_a_picture_pulls_equally_hard() -> None:
    image = pictures(1, 1, 5, 5).requires_grad_(True)
    views = Views(Compose([NormalizeGradient(), Jitter(0)]), 2)
    shown = views.apply(image, views.sample(0, 0, [1]), 0.0)
    weights = pictures(1, 2, 1, 5, 5)
    weights[:, 0] *= 1000
    (shown * weights).sum().backward()
    expected = sum(weights[0, view] / weights[0, view].norm() for view in range(2))
    assert image.grad is not None
    torch.testing.assert_close(image.grad[0], expected, rtol=1e-6, atol=1e-6)


def test_nothing_is_hooked_where_no_gradient_is_wanted() -> None:
    with torch.no_grad():
        image = pictures(1, 1, 3, 3)
        assert torch.equal(NormalizeGradient()(image, generator()), image)
