"""Several images as one batch: their order, their share of generators and pictures, and how they are counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import adam, toy

from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import FixedImage, FourierImage, Image, PixelImage, StackImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Layer


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def picture(level: float = 0.5, count: int = 1) -> Tensor:
    return torch.full((count, 3, 4, 4), level)


def test_the_pictures_stand_in_order() -> None:
    one, other = PixelImage(4, 2), FourierImage(4, 1)
    stack = StackImage([FixedImage(picture(0.25)), one, other])
    stack.initialize(4, generators(1, 2, 3, 4))
    assert torch.equal(stack(), torch.cat([picture(0.25), one(), other()]))


def test_generators_are_dealt_out_in_order() -> None:
    # The fixed picture uses none, but has its place.
    stack = StackImage([FixedImage(picture()), PixelImage(4, 2), FourierImage(4)])
    stack.initialize(4, generators(1, 2, 3, 4))
    pixel, fourier = PixelImage(4), FourierImage(4)
    pixel.initialize(2, generators(2, 3))
    fourier.initialize(1, generators(4))
    assert torch.equal(stack()[1:3], pixel())
    assert torch.equal(stack()[3:], fourier())


@pytest.mark.parametrize(
    ("counts", "asked", "divided"),
    [
        ((2, 1), 3, [2, 1]),
        ((None,), 4, [4]),
        ((2, None), 5, [2, 3]),
        ((None, 2), 3, [1, 2]),
        ((None, None), 2, [1, 1]),
        ((None, 3, None), 5, [1, 3, 1]),
    ],
)
def test_the_number_of_pictures_is_divided(counts: tuple[int | None, ...], asked: int, divided: list[int]) -> None:
    stack = StackImage([PixelImage(4, count) for count in counts])
    assert stack.count == (None if counts.count(None) == 1 else asked)
    stack.allocate(asked)
    stack.allocate(asked)
    assert [image.count for image in stack.parts] == divided
    assert stack.count == asked


@pytest.mark.parametrize(
    ("counts", "asked", "held"),
    [
        ((2, 1), 4, "PixelImage 2, PixelImage 1"),
        ((2, None), 2, "PixelImage 2, PixelImage at least 1"),
        ((None, None), 3, "PixelImage 1, PixelImage 1"),
        ((4,), 3, "PixelImage 4"),
    ],
)
def test_what_does_not_add_up_is_refused_and_changes_nothing(
    counts: tuple[int | None, ...], asked: int, held: str
) -> None:
    stack = StackImage([PixelImage(4, count) for count in counts])
    with pytest.raises(ValueError, match=f"count: {asked} pictures do not fit the images, {held}; give each"):
        stack.allocate(asked)
    assert tuple(image.count for image in stack.parts) == counts


def test_fixed_pictures_stay_and_others_move() -> None:
    given = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    inside: list[Image] = [PixelImage(4, 1), FixedImage(given), FourierImage(4, 1)]
    problem = Ascent(StackImage(inside), FrozenNetwork(toy()), Layer("features.5"))
    problem.initialize()
    problem.prepare()
    before, scores = problem.image().detach(), problem.scores()
    after = ascend(problem, steps=10, optimizer=adam())
    shown = problem.image().detach()
    assert torch.equal(shown[1:3], given)
    assert bool((after[[0, 3]] > scores[[0, 3]]).all())
    assert torch.equal(after[1:3], scores[1:3])
    assert float((shown - before)[[0, 3]].abs().amax((1, 2, 3)).min()) > 0.01


def test_pictures_start_their_share_and_fixed_ones_keep_theirs() -> None:
    given = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    stack = StackImage([PixelImage(4, 1), FixedImage(picture(0.25)), FourierImage(4)])
    stack.start_from(given)
    expected = given.clone()
    expected[1] = 0.25
    np.testing.assert_allclose(stack().detach().numpy(), expected.numpy(), atol=1e-3)
    waiting = StackImage([PixelImage(4), FourierImage(4)])
    waiting.start_from(given[0])
    np.testing.assert_allclose(waiting().detach().numpy(), given[:1].expand(2, -1, -1, -1).numpy(), atol=1e-3)
