"""Penalties on pictures: values against loops, gradients, and alpha where there is some."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from references import numbers
from toys import adam

from featviz_pl.engine import Ascent, ascend
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import (
    AlphaBlurDistance,
    AlphaMean,
    BlurDistance,
    BoundaryComplexity,
    Channel,
    HighFrequency,
    LInfinity,
    Observation,
)

Array = NDArray[np.float64]
PIXELS: Array = np.random.default_rng(0).random((3, 4, 7, 10))
PENALTIES: dict[str, Callable[[], Any]] = {
    "LInfinity": lambda: LInfinity(0.5),
    "BlurDistance": BlurDistance,
    "BoundaryComplexity": lambda: BoundaryComplexity(2, kernel=3),
    "HighFrequency": lambda: HighFrequency(0.125),
    "AlphaMean": lambda: AlphaMean(of_views=False),
    "AlphaBlurDistance": AlphaBlurDistance,
}


def blurred(plane: Array, kernel: int) -> Array:
    """Average (H, W) over the neighbours that are there; those on the rim of the kernel count half."""
    reach, (height, width) = kernel // 2, plane.shape
    result = np.zeros_like(plane)
    for y in range(height):
        for x in range(width):
            total = weights = 0.0
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        weight = 0.5 if max(abs(dy), abs(dx)) == reach else 1.0
                        total, weights = total + weight * plane[y + dy, x + dx], weights + weight
            result[y, x] = total / weights
    return result


def boundary(picture: Array, width: int, kernel: int) -> float:
    total, (channels, height, across) = 0.0, picture.shape
    for channel in range(channels):
        smooth = blurred(picture[channel], kernel)
        for y in range(height):
            for x in range(across):
                if y < width or x < width or y >= height - width or x >= across - width:
                    value = picture[channel, y, x]
                    total += (smooth[y, x] - value) ** 2 + 0.8 * (value - 0.5) ** 2
    return total


def high_share(picture: Array, cutoff: float) -> float:
    """Sum the squares of a Fourier series, written out."""
    high = total = 0.0
    channels, height, width = picture.shape
    ys, xs = np.arange(height)[:, None], np.arange(width)
    for channel in range(channels):
        for v in range(-(height // 2), height - height // 2):
            for u in range(-(width // 2), width - width // 2):
                energy = abs((picture[channel] * np.exp(-2j * np.pi * (v * ys / height + u * xs / width))).sum()) ** 2
                if (u, v) != (0, 0):
                    total += energy
                    high += energy if math.hypot(v / height, u / width) > cutoff + 1e-12 else 0.0
    return high / total


EXPECTED: list[tuple[Any, Callable[[Array], float]]] = [
    (LInfinity(), lambda x: max(abs(x.ravel()))),
    (LInfinity(0.5), lambda x: max(abs(x.ravel() - 0.5))),
    (BlurDistance(), lambda x: 0.5 * sum(float(((plane - blurred(plane, 3)) ** 2).sum()) for plane in x)),
    (AlphaBlurDistance(), lambda x: 0.5 * float(((x[-1] - blurred(x[-1], 3)) ** 2).sum())),
    (AlphaMean(), lambda x: float(x[-1].mean())),
    (BoundaryComplexity(2), lambda x: boundary(x, 2, 5)),
    (BoundaryComplexity(1, kernel=3), lambda x: boundary(x, 1, 3)),
    (BoundaryComplexity(), lambda x: boundary(x, 20, 5)),  # wider than the picture: all of it is frame
    (BoundaryComplexity(4, kernel=7), lambda x: boundary(x, 4, 7)),  # 4 rows from above and 4 from below meet
    (HighFrequency(), lambda x: high_share(x, 0.25)),
    (HighFrequency(0.1), lambda x: high_share(x, 0.1)),
    (HighFrequency(0.5), lambda x: high_share(x, 0.5)),
    (HighFrequency(2 / 7), lambda x: high_share(x, 2 / 7)),  # a frequency that the picture has is not above itself
]


@pytest.mark.parametrize(("penalty", "value"), EXPECTED, ids=[repr(penalty) for penalty, _ in EXPECTED])
@pytest.mark.parametrize("count", [1, 3])
def test_values_are_those_of_loops(penalty: Any, value: Callable[[Array], float], count: int) -> None:
    scores = penalty(Observation(torch.from_numpy(PIXELS[:count]), {}))
    assert (scores.shape, scores.dtype) == ((count, 1), torch.float64)
    np.testing.assert_allclose(scores.numpy()[:, 0], [value(picture) for picture in PIXELS[:count]], rtol=1e-11)


@pytest.mark.parametrize("make", PENALTIES.values(), ids=PENALTIES)
def test_single_precision_stays_and_views_do_not_count(make: Callable[[], Any]) -> None:
    observation = Observation(torch.from_numpy(PIXELS).float(), {}, views=torch.zeros(3, 5, 3, 6, 6))
    assert make()(observation).dtype == torch.float32
    assert make()(observation).shape == (3, 1)
    assert bool((make()(observation) > 0).all())


def test_the_gradient_of_blur_is_the_difference_from_the_blurred_picture() -> None:
    picture = torch.from_numpy(PIXELS).clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(BlurDistance()(Observation(picture, {})).sum(), picture)
    expected = PIXELS - np.array([[blurred(plane, 3) for plane in single] for single in PIXELS])
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-10, atol=1e-14)
    (gradient,) = torch.autograd.grad(AlphaBlurDistance()(Observation(picture, {})).sum(), picture)
    np.testing.assert_allclose(gradient[:, -1].numpy(), expected[:, -1], rtol=1e-10, atol=1e-14)
    assert not gradient[:, :-1].any()


@pytest.mark.parametrize("make", PENALTIES.values(), ids=PENALTIES)
def test_a_plain_picture_and_a_tiny_one_have_finite_gradients(make: Callable[[], Any]) -> None:
    for size in ((1, 4, 6, 6), (1, 4, 1, 1), (1, 4, 2, 3)):
        picture = torch.full(size, 0.5, requires_grad=True)
        scores = make()(Observation(picture, {}))
        (gradient,) = torch.autograd.grad(scores.sum(), picture)
        assert torch.isfinite(scores).all()
        assert torch.isfinite(gradient).all()
        if not isinstance(make(), AlphaMean):
            assert scores.item() == pytest.approx(0, abs=1e-10)


def test_the_share_of_fine_detail_lies_between_nothing_and_all() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(1, 3, 8, 4)
    waves = (0.5 + 0.5 * torch.sin(2 * torch.pi * torch.arange(16) / 16)).expand(1, 3, 16, 16)
    assert HighFrequency()(Observation(stripes, {})).item() == pytest.approx(1)
    assert HighFrequency()(Observation(waves, {})).item() == pytest.approx(0, abs=1e-10)
    assert HighFrequency()(Observation(torch.full((1, 3, 8, 8), 0.3), {})).item() == pytest.approx(0, abs=1e-10)


# Alpha


def test_opacity_is_that_of_each_view_where_the_views_still_carry_it() -> None:
    transparent = torch.from_numpy(PIXELS)
    views = numbers(3, 5, 4, 6, 6)
    np.testing.assert_allclose(
        AlphaMean()(Observation(transparent, {}, views=views)).numpy(), views[:, :, 3].numpy().mean((2, 3)), rtol=1e-12
    )
    full = PIXELS[:, 3].mean((1, 2))[:, None]
    np.testing.assert_allclose(
        AlphaMean()(Observation(transparent, {}, views=views[:, :, :3])).numpy(), full, rtol=1e-12
    )
    np.testing.assert_allclose(
        AlphaMean(of_views=False)(Observation(transparent, {}, views=views)).numpy(), full, rtol=1e-12
    )


def test_pictures_become_transparent_where_nothing_needs_them() -> None:
    from featviz_pl.images import AlphaImage, PixelImage

    network = FrozenNetwork(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)))
    run = Ascent(AlphaImage(image=PixelImage(12)), network, -AlphaMean() - 0.01 * AlphaBlurDistance())
    run.initialize()
    run.prepare()
    before = run.scores()
    after = ascend(run, steps=5, optimizer=adam(0.1))
    assert float(after) > float(before)
    steered = Channel("0", 1) * (1 - AlphaMean())
    assert repr(steered) == "Channel('0', 1) * (1 - AlphaMean())"


# Arguments
