"""Lucid's Laplacian pyramid, level by level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from enlarging import enlarged

from featviz_pl.images import LaplacianPyramidImage, PixelImage


@pytest.mark.parametrize(
    ("size", "levels", "sizes"),
    [
        ((16, 16), 4, [(16, 16), (8, 8), (4, 4), (2, 2)]),
        ((7, 9), 3, [(7, 9), (3, 4), (1, 2)]),
        ((12, 2), 4, [(12, 2), (6, 1), (3, 1), (1, 1)]),
        ((1, 5), 2, [(1, 5), (1, 2)]),
    ],
)
def test_a_picture_is_the_sum_of_its_enlarged_levels(
    size: tuple[int, int], levels: int, sizes: list[tuple[int, int]]
) -> None:
    image = LaplacianPyramidImage(size, 2, color="none", levels=levels).double()
    assert image.level_sizes() == sizes
    draw = np.random.default_rng(0)
    drawn = [draw.normal(size=(2, 3, *own)) for own in sizes]
    assert image.weight is not None
    assert image.weight.shape == (2, 3 * sum(height * width for height, width in sizes))
    with torch.no_grad():
        image.weight.copy_(torch.from_numpy(np.concatenate([level.reshape(2, -1) for level in drawn], axis=1)))
    latent = sum(enlarged(level, size) for level in drawn)
    np.testing.assert_allclose(image().detach().numpy(), 1 / (1 + np.exp(-latent)), rtol=0, atol=1e-12)


def test_the_defaults_are_lucid_s() -> None:
    image = LaplacianPyramidImage(48)
    assert (image.levels, image.deviation) == (4, 0.01)
    image.initialize(2, torch.Generator().manual_seed(0))
    assert image.weight is not None
    assert float(image.weight.detach().std()) == pytest.approx(0.01, rel=0.03)


def test_the_coarse_levels_hold_what_is_coarse_in_a_picture_it_starts_from() -> None:
    # A ramp is smooth: almost all of it fits in few pixels, and the finest level is left with little.
    ramp = (0.2 + 0.6 * torch.linspace(0, 1, 32)).expand(3, 32, 32)
    image = LaplacianPyramidImage.from_image(ramp, color="none")
    assert image.weight is not None
    finest, coarsest = image.weight[0, : 3 * 32 * 32], image.weight[0, -3 * 4 * 4 :]
    assert float(coarsest.detach().abs().mean()) > 10 * float(finest.detach().abs().mean())


def test_the_same_step_moves_what_is_coarse_further_than_in_pixels() -> None:
    # Steepest descent on the mean of one corner: the pyramid moves its neighbours along.
    moved = []
    for made in (PixelImage, LaplacianPyramidImage):
        image = made(32, 1, color="none")
        (gradient,) = torch.autograd.grad(image()[..., 4, 4].sum(), image.required_weight())
        with torch.no_grad():
            image.required_weight().add_(gradient)
        moved.append((image().detach() - 0.5).abs())
    assert float(moved[0][..., 4, 6].max()) == 0.0
    assert float(moved[1][..., 4, 6].min()) > 1e-3
    assert float(moved[1][..., 30, 30].max()) == 0.0
