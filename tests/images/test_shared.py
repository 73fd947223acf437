"""What pictures share, in numpy, and what they keep for themselves."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from enlarging import Array, enlarged
from torch import Tensor
from toys import adam, toy

from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import FourierImage, LaplacianPyramidImage, PixelImage, SharedImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel

# As published: the Fourier picture of each, and six shared parts of one or two maps.
NOTEBOOK = ((1, 2), (1, 4), (1, 8), (2, 8), (1, 16), (2, 16))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def squashed(latent: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-latent)))


def along(maps: Array, count: int) -> Array:
    """Spread maps (k, …) along a batch, the first for the first picture and the last for the last."""
    if count == 1:
        return maps[:1]
    spread = []
    for picture in range(count):
        place = picture * (len(maps) - 1) / (count - 1)
        before = min(int(place), max(0, len(maps) - 2))
        after = min(before + 1, len(maps) - 1)
        spread.append(maps[before] * (1 - (place - before)) + maps[after] * (place - before))
    return np.stack(spread)


def filled(image: SharedImage, seed: int = 0) -> SharedImage:
    image.double()
    with torch.no_grad():
        for parameter in image.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(seed), dtype=torch.float64))
    return image


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("size", "shared"), [((16, 16), [(1, 2), (2, 8)]), ((7, 10), [(1, 3), (2, 2), (3, 4)]), ((5, 4), [(2, 16)])]
)
def test_a_picture_is_its_own_part_and_what_is_shared(
    count: int, size: tuple[int, int], shared: list[tuple[int, int]]
) -> None:
    image = filled(SharedImage(PixelImage(size, count, color="none"), shared, own_weight=0.5))
    own = image.image.required_weight().detach().numpy()
    latent, rest = 0.5 * own, image.shared.detach().numpy()
    for maps, divisor in shared:
        shape = (maps, 3, max(1, size[0] // divisor), max(1, size[1] // divisor))
        part, rest = rest[: int(np.prod(shape))].reshape(shape), rest[int(np.prod(shape)) :]
        latent = latent + along(enlarged(part, size), count)
    assert not rest.size
    np.testing.assert_allclose(image().detach().numpy(), squashed(latent), rtol=0, atol=1e-12)


def test_groups_add_as_much_of_each_as_the_matrix_says() -> None:
    groups = [[1.0, 0.0], [0.25, 0.5], [0.0, 2.0]]
    image = filled(
        SharedImage(PixelImage((4, 6), 3, color="none"), [], groups=groups, own_weight=0.7, group_weight=0.5)
    )
    assert image.group is not None
    assert image.group.shape == (2, 3, 4, 6)
    own, group = image.image.required_weight().detach().numpy(), image.group.detach().numpy()
    expected = squashed(0.7 * own + 0.5 * np.einsum("ng,gchw->nchw", np.array(groups), group))
    np.testing.assert_allclose(image().detach().numpy(), expected, rtol=0, atol=1e-12)


def test_groups_are_of_the_image_s_own_parameterization() -> None:
    image = filled(SharedImage(FourierImage((6, 5), 2, decay=1.5), [], groups=torch.eye(2), own_weight=0.0))
    assert image.group is not None
    alone = FourierImage((6, 5), 2, decay=1.5).double()
    with torch.no_grad():
        alone.required_weight().copy_(image.group)
    torch.testing.assert_close(image(), alone(), rtol=0, atol=1e-7)  # the squash and colors are the image's as well


def test_the_defaults_are_those_of_the_notebook_on_aligned_interpolation() -> None:
    image = SharedImage(FourierImage(128))
    assert tuple(image.parts) == NOTEBOOK
    image.initialize(6, generator(0))
    assert image.shared.numel() == 3 * (64**2 + 32**2 + 16**2 + 2 * 16**2 + 8**2 + 2 * 8**2)
    assert float(image.shared.detach().std()) == pytest.approx(
        0.01, rel=0.03
    )  # Lucid's; a hundred times that in Captum


def test_own_weights_are_those_the_image_has_alone() -> None:
    alone = FourierImage((6, 5))
    alone.initialize(3, [generator(seed) for seed in (4, 5, 6)])
    image = SharedImage(FourierImage((6, 5)), groups=[[1.0], [1.0], [1.0]])
    image.initialize(3, [generator(seed) for seed in (4, 5, 6)])
    assert torch.equal(image.image.required_weight(), alone.required_weight())
    assert image.group is not None
    assert float(image.group.detach().std()) == pytest.approx(0.01, rel=0.2)


def test_what_is_shared_comes_from_the_first_picture_s_generator_after_its_own() -> None:
    drawn = []
    for seeds in ((4, 5), (4, 9), (7, 5)):
        image = SharedImage(PixelImage(8, deviation=0.5), [(1, 2)], deviation=0.5)
        image.initialize(2, [generator(seed) for seed in seeds])
        drawn.append(image.shared.detach())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    first = generator(4)
    torch.randn(3, 8, 8, generator=first)
    torch.testing.assert_close(drawn[0], 0.5 * torch.randn(3 * 4 * 4, generator=first), rtol=0, atol=0)


def test_an_image_that_was_started_keeps_its_pictures() -> None:
    given = torch.rand(2, 3, 6, 6, generator=generator(0))
    image = SharedImage(PixelImage.from_image(given), [(1, 2)], deviation=0.0)
    image.initialize(2, generator(1))
    torch.testing.assert_close(image(), given, rtol=0, atol=1e-3)


def test_a_picture_starts_also_with_groups_and_a_weight() -> None:
    given = torch.rand(3, 3, 6, 6, generator=generator(0))
    image = filled(SharedImage(LaplacianPyramidImage(6, 3), [(1, 2)], groups=[[1.0], [0.5], [2.0]], own_weight=0.7))
    image.start_from(given)
    np.testing.assert_allclose(image().detach().numpy(), given.numpy(), rtol=0, atol=1e-3)


def test_pictures_are_moved_by_one_another_through_what_they_share() -> None:
    image = filled(SharedImage(PixelImage(8, 3, color="none"), [(1, 4), (2, 4)]))
    before = image().detach().clone()
    (gradient,) = torch.autograd.grad(image()[0].sum(), image.shared)
    with torch.no_grad():
        image.shared.add_(0.1 * gradient)
    moved = (image().detach() - before).flatten(1).sum(1)
    assert bool((moved > 0).all())
    one, two = gradient[: 3 * 4], gradient[3 * 4 :].view(2, -1)
    assert bool(one.all())
    assert bool(two[0].all())
    assert not bool(two[1].any()), "the first picture takes nothing of the last map"


def test_neighbours_are_more_alike_than_pictures_apart() -> None:
    image = SharedImage(PixelImage(16, 5, deviation=0.0, color="none"), [(2, 2)], deviation=1.0)
    image.initialize(5, generator(0))
    shown = image().detach()
    apart = [float((shown[0] - shown[place]).square().mean()) for place in range(5)]
    assert apart == sorted(apart)
    assert apart[1] < apart[4] / 4


def test_sharing_draws_the_pictures_of_different_units_together() -> None:
    def spread(image: SharedImage | PixelImage) -> Tensor:
        problem = Ascent(image, FrozenNetwork(toy()), Channel("features.5", [1, 4]))
        problem.initialize()
        problem.prepare()
        before = problem.scores()
        after = ascend(problem, steps=20, optimizer=adam())
        assert float((after - before).mean()) > 0
        shown = image().detach()
        return torch.nn.functional.cosine_similarity(shown[0].flatten() - 0.5, shown[1].flatten() - 0.5, dim=0)

    assert float(spread(SharedImage(PixelImage(16, color="none")))) > float(spread(PixelImage(16, color="none"))) + 0.03


def test_a_shared_image_with_groups_survives_copies_and_checkpoints() -> None:
    image = filled(
        SharedImage(FourierImage((5, 6), 2), [(1, 2)], groups=torch.rand(2, 4, generator=generator(0)))
    ).float()
    for copied in (pickle.loads(pickle.dumps(image)), copy.deepcopy(image)):
        assert torch.equal(copied(), image())
        assert repr(copied) == repr(image)
    assert set(image.state_dict()) == {"shared", "group", "initialized", "image.weight", "image.initialized"}
    fresh = SharedImage(FourierImage((5, 6)), [(1, 2)], groups=image.groups)
    fresh.load_state_dict(image.state_dict())
    assert torch.equal(fresh(), image())
    assert image.half()().dtype == torch.float32
    assert "groups=<2 x 4>" in repr(image)


def test_the_caller_s_groups_are_left_alone() -> None:
    groups = torch.ones(2, 1)
    image = filled(SharedImage(PixelImage(4, 2), [], groups=groups))
    before = image().detach().clone()
    groups.zero_()
    assert torch.equal(image(), before)


def test_what_does_not_fit_later_is_refused() -> None:
    with pytest.raises(ValueError, match="groups: 2 rows do not fit 3 pictures"):
        SharedImage(PixelImage(4), groups=[[1.0], [2.0]]).initialize(3, generator(0))
    with pytest.raises(ValueError, match="own_weight: with 0"):
        SharedImage(PixelImage(4), own_weight=0.0).start_from(torch.rand(3, 4, 4))
    with pytest.raises(ValueError, match="image: 3 pictures do not fit 2"):
        SharedImage(PixelImage(4, 2)).start_from(torch.rand(3, 3, 4, 4))
