from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from sampling import seen

from featviz_pl.numerics.jit_tracing import untraced
from featviz_pl.numerics.resampling import affine_sample, antialias, gaussian_blur, resize


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shift(down: float, right: float) -> torch.Tensor:
    return torch.tensor([[[1.0, 0.0, -right], [0.0, 1.0, -down], [0.0, 0.0, 1.0]]], dtype=torch.float64)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -2), (-1.5, 0.25), (20, -31)])
def test_without_a_reach_the_mirror_image_has_no_end(down: float, right: float) -> None:
    image = picture(5, 7)
    result = affine_sample(image[None, None], shift(down, right), (5, 7))[0, 0]
    np.testing.assert_allclose(result, seen(image.numpy(), [("shift", (down, right))]), atol=1e-12)


@pytest.mark.parametrize("reach", [0, 1, 2, 4])
def test_beyond_the_reach_the_last_mirrored_pixel_repeats(reach: int) -> None:
    image = picture(5, 6)
    # The whole border at once: six pixels on every side, mirrored as far as the reach and repeated from there.
    expected = np.pad(np.pad(image.numpy(), reach, mode="symmetric"), 6 - reach, mode="edge")
    result = affine_sample(image[None, None], shift(0, 0), (5, 6), reach=reach)[0, 0]
    np.testing.assert_allclose(result, image, atol=1e-12)
    for down, right in [(6, 6), (-6, 6), (6, -6), (-6, -6), (3, 0)]:
        moved = affine_sample(image[None, None], shift(down, right), (5, 6), reach=reach)[0, 0]
        np.testing.assert_allclose(moved, expected[6 - down : 11 - down, 6 - right : 12 - right], atol=1e-12)


def test_each_picture_has_its_own_value_outside() -> None:
    images, fill = torch.ones(3, 2, 4, 4, dtype=torch.float64), torch.tensor([0.0, 0.25, 0.75], dtype=torch.float64)
    result = affine_sample(images, shift(0, 2).expand(3, -1, -1), (4, 4), "constant", fill)
    torch.testing.assert_close(result[..., 2:], images[..., 2:])
    torch.testing.assert_close(result[..., :2], fill.view(3, 1, 1, 1).expand(3, 2, 4, 2))


def test_the_value_outside_is_grey_unless_given() -> None:
    result = affine_sample(torch.ones(1, 1, 1, 4, dtype=torch.float64), shift(0, 1), (1, 4), "constant")
    torch.testing.assert_close(result.flatten(), torch.tensor([0.5, 1, 1, 1], dtype=torch.float64))


@pytest.mark.parametrize("border", ["reflect", "constant"])
def test_sampling_is_differentiable(border: str) -> None:
    matrix = torch.tensor([[[0.9, -0.3, 0.7], [0.3, 0.9, -1.1], [0.0, 0.0, 1.0]]], dtype=torch.float64)

    def sampled(image: torch.Tensor) -> torch.Tensor:
        return affine_sample(image, matrix, (3, 5), "reflect" if border == "reflect" else "constant", reach=2)

    assert torch.autograd.gradcheck(sampled, picture(4, 3)[None, None].requires_grad_(True))


@pytest.mark.parametrize("shrink", [2.0, 3.0, 4.0])
def test_the_blur_removes_what_would_alias_and_keeps_what_would_not(shrink: float) -> None:
    positions = np.arange(96)

    def gain(frequency: float) -> float:
        wave = np.cos(2 * np.pi * frequency * positions + 0.3)
        blurred = antialias(torch.from_numpy(wave)[None, None, None], shrink)[0, 0, 0].numpy()
        inside = slice(24, 72)  # far from the border
        return float(np.abs(blurred[inside]).max() / np.abs(wave[inside]).max())

    assert gain(1 / shrink) < 0.1  # the frequency that folds to a constant
    assert gain(1 / (2 * shrink)) < 0.5  # the highest one that the shrunk picture can hold
    assert gain(1 / (10 * shrink)) > 0.9


@pytest.mark.parametrize("shrink", [1.5, 2.0, 3.5])
def test_the_blur_widens_half_a_pixel_to_half_a_shrunk_one(shrink: float) -> None:
    impulse = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    impulse[..., 20, 20] = 1.0
    response = antialias(impulse, shrink)[0, 0].numpy()
    offsets = np.arange(41) - 20
    assert response.sum() == pytest.approx(1.0)
    for spread in (response.sum(0), response.sum(1)):
        assert (spread * offsets).sum() == pytest.approx(0.0, abs=1e-12)
        # A sampled Gaussian cut off at three deviations has a little less than the variance of the whole one.
        assert 0.25 + (spread * offsets**2).sum() == pytest.approx((0.5 * shrink) ** 2, rel=0.12)


@pytest.mark.parametrize("size", [(6, 9), (1, 5), (2, 2), (1, 1)])
@pytest.mark.parametrize("shrink", [1.1, 2.0, 8.0])
def test_the_blur_keeps_the_mean_of_any_picture(size: tuple[int, int], shrink: float) -> None:
    image = picture(*size)[None, None].repeat(2, 3, 1, 1)
    blurred = antialias(image, shrink)
    assert blurred.shape == image.shape
    torch.testing.assert_close(blurred.mean((2, 3)), image.mean((2, 3)))


def test_the_blur_of_the_mirrored_picture_is_the_mirrored_blur() -> None:
    image = picture(5, 6)
    mirrored = torch.from_numpy(np.pad(image.numpy(), 12, mode="symmetric"))
    inside = antialias(mirrored[None, None], 2.0)[0, 0, 12:17, 12:18]
    torch.testing.assert_close(antialias(image[None, None], 2.0)[0, 0], inside)


@pytest.mark.parametrize("shrink", [0.5, 1.0])
def test_what_does_not_shrink_is_not_blurred(shrink: float) -> None:
    image = picture(4, 4)[None, None]
    assert antialias(image, shrink) is image


def test_channels_are_blurred_apart() -> None:
    image = torch.stack([picture(6, 6, seed) for seed in range(3)])[None]
    together = antialias(image, 2.0)
    for channel in range(3):
        torch.testing.assert_close(together[:, channel : channel + 1], antialias(image[:, channel : channel + 1], 2.0))


@pytest.mark.parametrize("size", [(4, 6), (5, 5), (12, 20), (9, 4), (3, 20)])
def test_resize_agrees_with_pillow(size: tuple[int, int]) -> None:
    image = picture(9, 11).float()
    pillow = PillowImage.fromarray(image.numpy()).resize((size[1], size[0]), PillowImage.Resampling.BILINEAR)
    np.testing.assert_allclose(resize(image[None, None], size)[0, 0].numpy(), np.asarray(pillow), atol=1e-5)


def test_resize_leaves_a_picture_of_that_size_alone() -> None:
    image = picture(4, 6)[None, None]
    assert resize(image, (4, 6)) is image


def test_rotation_by_a_matrix_turns_x_to_y() -> None:
    # (x, y) of the result shows (y, -x) of the picture: content turns clockwise by a quarter.
    quarter = torch.tensor([[[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    image = picture(5, 5)
    np.testing.assert_allclose(
        affine_sample(image[None, None], quarter, (5, 5))[0, 0], np.rot90(image.numpy(), -1), atol=1e-12
    )


@pytest.mark.parametrize("deviation", [0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("reach", [None, 0, 3])
def test_a_gaussian_blur_is_the_sum_over_the_mirrored_plane(deviation: float, reach: int | None) -> None:
    image = picture(4, 5)
    limit = int(np.ceil(4 * deviation)) if reach is None else reach
    offsets = range(-limit, limit + 1)
    weight = {
        offset: np.exp(-0.5 * (offset / deviation) ** 2) if deviation else float(offset == 0) for offset in offsets
    }
    around = np.pad(image.numpy(), limit, mode="symmetric")
    expected = sum(
        weight[down] * weight[right] * around[limit + down : limit + down + 4, limit + right : limit + right + 5]
        for down in offsets
        for right in offsets
    )
    result = gaussian_blur(image[None, None], torch.tensor([deviation], dtype=torch.float64), reach)[0, 0]
    np.testing.assert_allclose(result, expected / sum(weight.values()) ** 2, atol=1e-12)


def test_a_gaussian_blur_is_twice_differentiable() -> None:
    image, deviation = (
        picture(3, 4)[None, None].repeat(2, 1, 1, 1).requires_grad_(True),
        torch.tensor([0.7, 1.6], dtype=torch.float64),
    )
    assert torch.autograd.gradcheck(lambda x: gaussian_blur(x, deviation), image)
    assert torch.autograd.gradgradcheck(lambda x: gaussian_blur(x, deviation) ** 2, image)


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:FutureWarning")
def test_blurs_are_the_same_in_a_traced_graph() -> None:
    image = picture(6, 7)[None, None].repeat(2, 1, 1, 1)
    deviation = torch.tensor([0.5, 2.0])
    blurs: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda x: antialias(x, 2.5),
        lambda x: gaussian_blur(x, deviation),
    ]
    for blur in blurs:
        traced = torch.jit.trace(blur, (image,))
        torch.testing.assert_close(traced(image.flip(-1)), blur(image.flip(-1)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:FutureWarning")
def test_what_is_untraced_is_a_constant_of_the_graph() -> None:
    def moved(image: torch.Tensor) -> torch.Tensor:
        with untraced():
            height = int(image.shape[-2])
            drawn = torch.rand(height, 1, generator=torch.Generator().manual_seed(0), dtype=image.dtype)
        return image + drawn

    traced = torch.jit.trace(moved, (picture(4, 5),))
    kinds = {node.kind() for node in traced.graph.nodes()}
    assert "aten::add" in kinds
    assert not kinds & {"aten::rand", "aten::size"}
    image = picture(4, 5, seed=1)
    torch.testing.assert_close(traced(image), moved(image))


@pytest.mark.parametrize(
    ("count", "height", "strips"),
    [(1, 24, 4), (1, 6, 3), (1, 10, 2), (1, 7, 1), (2, 24, 2), (2, 7, 1), (3, 24, 1), (4, 24, 1)],
)
@pytest.mark.parametrize("border", ["reflect", "constant"])
def test_pictures_are_sampled_in_strips_by_several_cores(
    border: Any, count: int, height: int, strips: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(
        count, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True
    )
    turned = torch.tensor([[[0.8, -0.4, 0.7], [0.4, 0.8, -1.1], [0.0, 0.0, 1.0]]], dtype=torch.float64).expand(
        count, 3, 3
    )
    counts: list[int] = []
    sample = torch.nn.functional.grid_sample

    def counted(pictures: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        counts.append(len(pictures))
        return sample(pictures, *arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "grid_sample", counted)
    result = affine_sample(images, turned, (height, 9), border)
    repeated = affine_sample(images.repeat(4, 1, 1, 1), turned.repeat(4, 1, 1), (height, 9), border)[:count]
    assert counts == [count * strips, 4 * count]  # four pictures or more are not divided
    assert torch.equal(result, repeated)
    weights = torch.randn(result.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradients = [torch.autograd.grad(output, images, weights)[0] for output in (result, repeated)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_gradients_do_not_depend_on_the_number_of_threads(count: int) -> None:
    images = torch.rand(count, 3, 128, 128, generator=torch.Generator().manual_seed(1), requires_grad=True)
    turned = torch.tensor([[[0.8, -0.4, 0.7], [0.4, 0.8, -1.1], [0.0, 0.0, 1.0]]]).expand(count, 3, 3)
    weights = torch.randn(count, 3, 128, 128, generator=torch.Generator().manual_seed(2))
    threads = torch.get_num_threads()
    gradients: list[torch.Tensor] = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            gradients += torch.autograd.grad(affine_sample(images, turned, (128, 128)), images, weights)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*gradients)
