"""A region of a picture: the mixture in numpy, what a region starts from, and what never changes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor
from toys import adam, toy

from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import AlphaImage, CPPNImage, FourierImage, MaskedImage, PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_pictures(count: int, channels: int = 3, seed: int = 1) -> Tensor:
    return torch.rand(count, channels, 6, 7, generator=generator(seed))


@pytest.mark.parametrize("counts", [(1, 1), (3, 1), (1, 3), (3, 3)])
def test_the_picture_is_the_published_mixture(counts: tuple[int, int]) -> None:
    picture, mask = random_pictures(counts[0]), random_pictures(counts[1], 1, seed=2)
    inner = PixelImage((6, 7), 3, deviation=2.0)
    image = MaskedImage(inner, picture, mask, start="drawn")
    image.initialize(3, generator())
    inside = inner().detach().numpy()
    np.testing.assert_allclose(
        image().detach().numpy(), mask.numpy() * inside + (1 - mask.numpy()) * picture.numpy(), atol=1e-6
    )


@pytest.mark.parametrize("shape", [(6, 7), (1, 6, 7), (1, 1, 6, 7)])
def test_masks_are_accepted_in_every_form(shape: tuple[int, ...]) -> None:
    mask = torch.zeros(6, 7)
    mask[2:4, 1:5] = 1
    for given in (mask, mask.bool()):
        image = MaskedImage(PixelImage((6, 7)), random_pictures(1), given.view(shape))
        assert torch.equal(image.mask[0, 0], mask)


def test_pictures_and_masks_decide_how_many_there_are() -> None:
    assert MaskedImage(PixelImage((6, 7)), random_pictures(1), torch.ones(6, 7)).count is None
    assert MaskedImage(PixelImage((6, 7)), random_pictures(3), torch.ones(6, 7)).count == 3
    image = MaskedImage(PixelImage((6, 7)), random_pictures(1), torch.ones(3, 1, 6, 7))
    assert image.count == 3
    with pytest.raises(ValueError, match="count: 3 masks do not fit 2 images"):
        image.allocate(2)
    image.start_from(random_pictures(1)[0])
    assert image.image.count == 3


def test_the_region_begins_as_the_picture_unless_it_was_started_or_shall_be_drawn() -> None:
    picture, other, mask = random_pictures(1), random_pictures(1, seed=5), torch.ones(6, 7)

    def begun(start: Literal["picture", "drawn"], inner: PixelImage) -> Tensor:
        image = MaskedImage(inner, picture, mask, start=start)
        image.initialize(1, generator(3))
        shown: Tensor = image()
        return shown.detach()

    np.testing.assert_allclose(begun("picture", PixelImage((6, 7))).numpy(), picture.numpy(), atol=1e-3)
    np.testing.assert_allclose(begun("picture", PixelImage.from_image(other)).numpy(), other.numpy(), atol=1e-3)  # type: ignore[arg-type]
    later = MaskedImage(PixelImage((6, 7)), picture, mask)
    later.image.start_from(other)
    later.initialize(1, generator(3))
    np.testing.assert_allclose(later().detach().numpy(), other.numpy(), atol=1e-3)
    drawn = PixelImage((6, 7))
    drawn.initialize(1, generator(3))
    assert torch.equal(begun("drawn", PixelImage((6, 7))), drawn())


def test_an_image_that_no_picture_can_start_says_what_to_do() -> None:
    image = MaskedImage(CPPNImage((6, 7)), random_pictures(1), torch.ones(6, 7))
    with pytest.raises(ValueError, match=r"cannot be started.*; start='drawn'"):
        image.initialize(1, generator())
    drawn = MaskedImage(CPPNImage((6, 7)), random_pictures(1), torch.ones(6, 7), start="drawn")
    drawn.initialize(1, generator())
    assert bool(drawn.initialized)


@pytest.mark.parametrize("kind", [PixelImage, FourierImage])
def test_outside_nothing_changes_in_a_run_and_inside_it_does(kind: type[PixelImage] | type[FourierImage]) -> None:
    picture, mask = random_pictures(1), torch.zeros(6, 7)
    mask[2:5, 2:5] = 1
    problem = Ascent(MaskedImage(kind((6, 7)), picture, mask), FrozenNetwork(toy()), Channel("features.5", [1, 2]))
    problem.initialize()
    problem.prepare()
    before = problem.scores()
    assert bool((ascend(problem, steps=15, optimizer=adam()) > before).all())
    shown = problem.image().detach()
    outside = (mask == 0).expand_as(shown)
    assert torch.equal(shown[outside], picture.expand(2, -1, -1, -1)[outside]), "to the last bit"
    assert float((shown - picture).abs()[~outside].max()) > 0.05


def test_files_are_resampled_to_the_image(tmp_path: Path) -> None:
    Pillow.fromarray(np.full((12, 14, 3), 51, dtype=np.uint8)).save(tmp_path / "picture.png")
    halves = np.zeros((6, 7), dtype=np.uint8)
    halves[:, 3:] = 255
    Pillow.fromarray(halves).save(tmp_path / "mask.png")
    image = MaskedImage(PixelImage((6, 7)), str(tmp_path / "picture.png"), str(tmp_path / "mask.png"), start="drawn")
    image.initialize(1, generator())
    np.testing.assert_allclose(image()[..., :3].detach().numpy(), 0.2, atol=1e-6)
    assert not np.allclose(image()[..., 3:].detach().numpy(), 0.2, atol=0.1)


def test_a_picture_without_alpha_is_opaque_around_a_transparent_region() -> None:
    mask = torch.zeros(6, 7)
    mask[2:4, 2:4] = 1
    image = MaskedImage(AlphaImage((6, 7)), random_pictures(1), mask)
    image.initialize(1, generator())
    assert image.alpha
    assert bool((image()[0, 3][mask == 0] == 1).all())
    assert MaskedImage(AlphaImage((6, 7)), random_pictures(1, 4), mask).alpha
    image.start_from(random_pictures(1)[0])
    assert float(image()[0, 3].detach().min()) > 0.99


def test_the_given_tensors_are_left_alone_and_not_shared() -> None:
    picture, mask = random_pictures(1), torch.full((6, 7), 0.5)
    image = MaskedImage(PixelImage((6, 7), 1), picture, mask)
    before = image().detach().clone()
    picture.zero_()
    mask.zero_()
    assert torch.equal(image(), before)
