"""Crops against brute force, and crop-or-pad against numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sampling import seen
from torch import Tensor
from torch.distributions import Normal, Uniform

from featviz_pl.transforms import Choice, Compose, Crop, CropOrPad


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(height: int, width: int, seed: int = 3) -> Tensor:
    return torch.rand(height, width, generator=generator(seed), dtype=torch.float64)


def parameters(center: tuple[float, float], side: float) -> Tensor:
    return torch.tensor([[*center, side, side, side]])


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (16, 4)])
@pytest.mark.parametrize(
    ("center", "side"), [((0.5, 0.5), 0.5), ((0.25, 0.75), 0.5), ((0.625, 0.375), 0.25), ((0.5, 0.5), 1.0)]
)
def test_a_crop_is_a_zoom_about_its_centre(size: tuple[int, int], center: tuple[float, float], side: float) -> None:
    image = picture(*size)
    shown = Crop(side=side).apply(image[None, None], parameters(center, side))[0, 0]
    moves = [("shift", ((0.5 - center[0]) * size[0], (0.5 - center[1]) * size[1])), ("zoom", 1 / side)]
    np.testing.assert_allclose(shown, seen(image.numpy(), moves), atol=1e-6)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (2, 5), (6, 9)])
def test_a_crop_at_its_own_size_is_a_slice(top: int, left: int) -> None:
    image = picture(12, 18)
    center = ((top + 3) / 12, (left + 4.5) / 18)
    shown = Compose([Crop(side=0.5)], size=(6, 9)).apply(image[None, None], (parameters(center, 0.5),))
    np.testing.assert_allclose(shown[0, 0], image[top : top + 6, left : left + 9], atol=1e-6)


def test_a_crop_stays_inside_the_picture() -> None:
    for center, inside in [((0.0, 0.0), (0.25, 0.25)), ((0.9, 0.1), (0.75, 0.25)), ((-3.0, 4.0), (0.25, 0.75))]:
        assert torch.equal(
            Crop().matrix(parameters(center, 0.5), (8, 8)), Crop().matrix(parameters(inside, 0.5), (8, 8))
        )
    # The outermost points of the view lie on the edge of the picture, whatever was drawn.
    crop = Crop(center=Normal(0.5, 3.0), side=Normal(0.5, 0.5))
    maps = crop.matrix(crop.sample(generator(), 500), (10, 20))
    for corner in ([-10.0, -5.0, 1.0], [10.0, 5.0, 1.0]):
        x, y, _ = (maps @ torch.tensor(corner)).unbind(1)
        assert float(x.abs().max()) <= 10 + 1e-4
        assert float(y.abs().max()) <= 5 + 1e-4
    sides = maps[:, 0, 0]
    assert float(sides.min()) == pytest.approx(0.05)
    assert float(sides.max()) == pytest.approx(1.0)


def test_centres_and_sides_are_drawn_as_they_say() -> None:
    drawn = Crop().sample(generator(), 20_000)
    assert drawn[:, :2].mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.005)
    assert drawn[:, :2].std(0).tolist() == pytest.approx([0.15, 0.15], rel=0.03)
    assert float(drawn[:, 2].mean()) == pytest.approx(0.225, abs=0.001)
    assert float(drawn[:, 2].std()) == pytest.approx(0.05 / math.sqrt(12), rel=0.03)
    assert abs(float(torch.corrcoef(drawn[:, :3].T).triu(1).abs().max())) < 0.03


def test_anywhere_is_uniform_over_all_places_that_fit() -> None:
    crop = Crop("anywhere", side=Choice([0.25, 0.75]))
    drawn = crop.sample(generator(), 20_000)
    maps = crop.matrix(drawn, (100, 200))
    for side in (0.25, 0.75):
        of_this = maps[drawn[:, 2] == side]
        for place, length in ((of_this[:, 0, 2], 200), (of_this[:, 1, 2], 100)):
            room = (1 - side) * length
            assert float(place.min()) == pytest.approx(-room / 2, rel=0.01)
            assert float(place.max()) == pytest.approx(room / 2, rel=0.01)
            assert float(place.mean()) == pytest.approx(0.0, abs=0.01 * length)
            assert float(place.std()) == pytest.approx(room / math.sqrt(12), rel=0.03)


def test_the_side_moves_to_its_end_with_the_same_luck() -> None:
    # MACO: sides of N(s, 0.05) with s from 0.5 to 0.05.
    crop = Crop(center=Normal(0.5, 0.15), side=Normal(0.5, 0.05), end=Normal(0.05, 0.05))
    drawn = crop.sample(generator(), 5000)
    luck = (drawn[:, 2] - 0.5) / 0.05
    for progress, mean in [(0.0, 0.5), (0.5, 0.275), (1.0, 0.05)]:
        moved = crop.at(drawn, progress)
        torch.testing.assert_close(moved[:, 2], mean + 0.05 * luck, rtol=0, atol=1e-6)
        assert torch.equal(moved[:, :2], drawn[:, :2])
        sides = crop.matrix(moved, (8, 8))[:, 0, 0]
        np.testing.assert_allclose(sides, np.clip(mean + 0.05 * luck.numpy(), 0.05, 1.0), atol=1e-6)
    assert float(luck.std()) == pytest.approx(1.0, rel=0.05)


def test_without_an_end_the_side_stays() -> None:
    crop = Crop(side=[0.2, 0.4])
    drawn = crop.sample(generator(), 20)
    assert torch.equal(crop.at(drawn, 0.7), drawn)


def test_choices_move_from_place_to_place() -> None:
    crop = Crop(side=Choice([0.8, 0.6]), end=Choice([0.4, 0.2]))
    drawn = crop.sample(generator(), 50)
    assert {(round(first, 5), round(last, 5)) for first, last in drawn[:, 2:4].tolist()} == {(0.8, 0.4), (0.6, 0.2)}


def test_half_strength_is_half_way_to_the_whole_picture() -> None:
    weak = Crop().weaken(torch.tensor([[0.1, 0.9, 0.2, 0.4, 0.25]]), 0.5)
    assert weak[0].tolist() == pytest.approx([0.3, 0.7, 0.6, 0.7, 0.625])


@pytest.mark.parametrize(
    ("crop", "text"),
    [
        (lambda: Crop(), "Crop(center=Normal(loc=0.5, scale=0.15), side=Uniform(low=0.2, high=0.25))"),
        (lambda: Crop("anywhere", 0.5), "Crop(center='anywhere', side=Choice([0.5]))"),
        (
            lambda: Crop(0.5, (0.5, 0.75), end=Uniform(0.1, 0.2)),
            "Crop(center=Choice([0.5]), side=Uniform(low=0.5, high=0.75), end=Uniform(low=0.1, high=0.2))",
        ),
        (lambda: CropOrPad(4), "CropOrPad((4, 4), value=0.5)"),
        (lambda: CropOrPad((4, 6), value=0), "CropOrPad((4, 6), value=0)"),
    ],
)
def test_repr_is_the_constructor(crop: Any, text: str) -> None:
    assert repr(crop()) == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crop("nowhere"), "center: unknown place 'nowhere'; did you mean 'anywhere'"),  # type: ignore[arg-type]
        (lambda: Crop(side=0.0), "side must be above 0 and at most 1, got 0.0"),
        (lambda: Crop(side=[0.5, 1.5]), "side must be above 0 and at most 1, got 1.5"),
        (lambda: Crop(end=2.0), "end must be above 0 and at most 1, got 2.0"),
        (lambda: Crop(center=-0.5), "center must be at least 0 and at most 1, got -0.5"),
        (lambda: CropOrPad(0), "size must be at least 1, got 0"),
        (lambda: CropOrPad(4, value=2.0), "value must be at least 0 and at most 1, got 2.0"),
    ],
)
def test_bad_arguments_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# (given, wanted): what TensorFlow's resize_with_crop_or_pad does, written out: cut or added (before, after).
@pytest.mark.parametrize(
    ("given", "wanted", "before", "after"),
    [(5, 3, -1, -1), (6, 3, -1, -2), (5, 4, 0, -1), (3, 5, 1, 1), (3, 6, 1, 2), (4, 5, 0, 1), (4, 4, 0, 0)],
)
def test_the_odd_pixel_is_at_the_bottom_and_on_the_right(given: int, wanted: int, before: int, after: int) -> None:
    image = picture(given, 4)

    def margins(values: Any) -> Any:
        kept = values[max(0, -before) : given - max(0, -after)]
        return np.pad(kept, ((max(0, before), max(0, after)), (0, 0)), constant_values=0.25)

    crop = CropOrPad((wanted, 4), value=0.25)
    np.testing.assert_allclose(crop(image[None, None], generator())[0, 0], margins(image.numpy()), atol=1e-12)
    crop = CropOrPad((4, wanted), value=0.25)
    np.testing.assert_allclose(crop(image.T[None, None], generator())[0, 0], margins(image.numpy()).T, atol=1e-12)


def test_one_axis_may_be_cut_and_the_other_padded() -> None:
    image = picture(7, 2)
    shown = CropOrPad((4, 5), value=1.0)(image[None, None], generator())[0, 0]
    np.testing.assert_allclose(shown, np.pad(image[1:5].numpy(), ((0, 0), (1, 2)), constant_values=1.0), atol=1e-12)
    assert CropOrPad((4, 5)).output_size((7, 2)) == (4, 5)
