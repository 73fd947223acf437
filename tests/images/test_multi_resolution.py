"""The formula of direct ascent synthesis."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from enlarging import cubic, enlarged, tent

from featviz_pl.images import MultiResolutionImage


@pytest.mark.parametrize(("interpolation", "kernel"), [("bicubic", cubic), ("bilinear", tent)])
@pytest.mark.parametrize(
    ("size", "resolutions", "sizes"),
    [
        ((8, 8), None, [(1, 1), (2, 2), (4, 4), (8, 8)]),
        ((9, 6), None, [(1, 1), (2, 1), (4, 3), (8, 5), (9, 6)]),  # square pixels: r pixels along the longer side
        ((5, 13), [1, 5, 9, 13], [(1, 1), (2, 5), (3, 9), (5, 13)]),
        ((6, 6), [3, 1], [(3, 3), (1, 1)]),  # any list, in any order
    ],
)
def test_a_picture_is_a_tanh_of_the_sum_of_all_resolutions(
    size: tuple[int, int],
    resolutions: list[int] | None,
    sizes: list[tuple[int, int]],
    interpolation: Literal["bicubic", "bilinear"],
    kernel: Any,
) -> None:
    image = MultiResolutionImage(size, 2, resolutions=resolutions, interpolation=interpolation).double()
    assert image.level_sizes() == sizes
    draw = np.random.default_rng(0)
    drawn = [draw.normal(size=(2, 3, *own)) for own in sizes]
    assert image.weight is not None
    with torch.no_grad():
        image.weight.copy_(torch.from_numpy(np.concatenate([level.reshape(2, -1) for level in drawn], axis=1)))
    summed = sum(enlarged(level, size, kernel) for level in drawn)
    np.testing.assert_allclose(image().detach().numpy(), 0.5 * (1 + np.tanh(summed)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("side", "resolutions"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (64, [1, 2, 4, 8, 16, 32, 64])]
)
def test_the_resolutions_are_the_powers_of_two_and_the_size(side: int, resolutions: list[int]) -> None:
    assert MultiResolutionImage(side).resolutions == resolutions
    assert MultiResolutionImage((side, 1)).resolutions == resolutions


def test_it_starts_from_grey_as_published_and_colors_are_not_mixed() -> None:
    image = MultiResolutionImage(8)
    image.initialize(1, torch.Generator().manual_seed(0))
    assert image().unique().tolist() == [0.5]
    assert image.color_matrix is None
    image().sum().backward()
    assert image.weight is not None
    assert image.weight.grad is not None
    assert bool((image.weight.grad > 0).any()), "grey can move"


def test_one_pixel_is_one_color() -> None:
    image = MultiResolutionImage((6, 4), 1, resolutions=[1])
    with torch.no_grad():
        image.required_weight().copy_(torch.tensor([[0.5, 0.0, -0.5]]))
    shown = image().detach().numpy()
    np.testing.assert_allclose(shown[0, :, 0, 0], 0.5 * (1 + np.tanh([0.5, 0.0, -0.5])), atol=1e-6)
    np.testing.assert_allclose(shown - shown[..., :1, :1], 0, atol=1e-6)


def test_without_its_own_resolution_a_picture_is_started_from_roughly() -> None:
    ramp = (0.2 + 0.6 * torch.linspace(0, 1, 16)).expand(3, 16, 16)
    image = MultiResolutionImage.from_image(ramp, resolutions=[1, 4, 8])
    difference = (image().detach()[0] - ramp).abs()
    assert 1e-3 < float(difference.max()) < 0.05
