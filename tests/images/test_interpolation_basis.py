"""Lucid's basis for interpolating between every two objectives, picture by picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from enlarging import Array, enlarged

from featviz_pl.images import InterpolationBasisImage


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(objectives: int = 3, steps: int = 4, size: tuple[int, int] = (9, 17), **more: Any) -> InterpolationBasisImage:
    image = InterpolationBasisImage(objectives, steps, size=size, **{"color": "none", **more}).double()
    with torch.no_grad():
        for seed, parameter in enumerate(image.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator(seed), dtype=torch.float64))
    return image


def summed(flat: Array, maps: int, size: tuple[int, int], divisors: list[int]) -> Array:
    """Return the sum of low-resolution parts of so many maps, (maps, C, H, W)."""
    total = np.zeros((maps, 3, *size))
    for divisor in divisors:
        shape = (maps, 3, max(1, size[0] // divisor), max(1, size[1] // divisor))
        part, flat = flat[: int(np.prod(shape))].reshape(shape), flat[int(np.prod(shape)) :]
        total += enlarged(part, size)
    assert not flat.size
    return total


@pytest.mark.parametrize(("objectives", "steps", "size"), [(2, 2, (8, 8)), (3, 4, (9, 17)), (4, 3, (5, 3))])
def test_every_picture_is_the_sum_of_its_parts(objectives: int, steps: int, size: tuple[int, int]) -> None:
    image = drawn(objectives, steps, size)
    constant = summed(image.constant.detach().numpy(), 1, size, [1, 2, 4, 8])[0]
    examples = []
    for flat in image.examples.detach().numpy():
        first, last = summed(flat, 2, size, [1, 2, 4, 8])
        examples.append([first + (last - first) * step / (steps - 1) for step in range(steps)])
    between, pair = {}, iter(image.between.detach().numpy())
    for n in range(objectives):
        for m in range(n + 1, objectives):
            between[n, m] = summed(next(pair), steps, size, [1, 2])
            between[m, n] = between[n, m][::-1]
    shown = image().detach().unflatten(0, (objectives, objectives, steps)).numpy()
    for n in range(objectives):
        for m in range(objectives):
            for step in range(steps):
                latent = constant + examples[n][step] + examples[m][steps - 1 - step]
                if n != m:
                    latent = latent + between[n, m][step]
                np.testing.assert_allclose(shown[n, m, step], 1 / (1 + np.exp(-latent)), rtol=0, atol=1e-12)


def test_the_way_back_is_the_way_reversed() -> None:
    shown = drawn()().detach().unflatten(0, (3, 3, 4))
    torch.testing.assert_close(shown, shown.transpose(0, 1).flip(2), rtol=0, atol=1e-12)
    assert not torch.equal(shown[0, 1], shown[1, 0])


def test_the_published_sizes() -> None:
    image = InterpolationBasisImage()
    assert (image.objectives, image.steps, image.size, image.count) == (6, 5, (128, 128), 180)
    image.initialize(180, [generator(seed) for seed in range(180)])
    for part in (image.constant, image.examples, image.between):
        assert float(part.detach().std()) == pytest.approx(0.01, rel=0.03)
    assert image.between.shape == (15, 5 * 3 * (128**2 + 64**2))


def test_an_objective_s_gradient_reaches_its_own_pairs_only() -> None:
    image = drawn()
    image().unflatten(0, (3, 3, 4))[0, 1].sum().backward()
    assert image.between.grad is not None
    assert image.examples.grad is not None
    assert [bool(own.any()) for own in image.between.grad] == [True, False, False]  # (0, 1), (0, 2), (1, 2)
    assert [bool(own.any()) for own in image.examples.grad] == [True, True, False]


def test_one_picture_starts_all_and_several_are_refused() -> None:
    given = torch.rand(3, 9, 17, generator=generator(0))
    image = drawn()
    image.start_from(given)
    np.testing.assert_allclose(image().detach().numpy(), given.expand(36, -1, -1, -1).numpy(), rtol=0, atol=1e-3)
    before = image().detach().clone()
    image.initialize(36, generator(3))
    assert torch.equal(image(), before)
    with pytest.raises(ValueError, match="image: 36 pictures cannot start shared parts"):
        image.start_from(torch.rand(36, 3, 9, 17))
    with pytest.raises(ValueError, match=r"image: shape \(3, 4, 4\) does not fit pictures of \(3, 9, 17\)"):
        image.start_from(torch.rand(3, 4, 4))


def test_a_clip_serves_too() -> None:
    given = torch.rand(3, 9, 17, generator=generator(0))
    image = drawn(color="imagenet", squash="clip")
    image.start_from(given)
    np.testing.assert_allclose(image()[7].detach().numpy(), given.numpy(), rtol=0, atol=1e-3)
    assert "squash='clip'" in repr(image)


def test_a_state_dict_of_other_objectives_is_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch for examples"):
        drawn(objectives=2).load_state_dict(drawn().state_dict())


def test_another_number_of_pictures_says_how_many_there_are() -> None:
    with pytest.raises(ValueError, match="count: the image holds 6 x 6 x 5 = 180 pictures"):
        InterpolationBasisImage(size=8).allocate(30)
