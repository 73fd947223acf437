"""Pins the conventions of the house (design.md, section 4), each by an example that could be told to a colleague."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import toy

import featviz_pl as fv
from featviz_pl.engine import Ascent
from featviz_pl.images import FourierImage, PixelImage
from featviz_pl.numerics.resampling import resize
from featviz_pl.objectives import L1, L2, Channel, DeepDream, Neuron, Observation, Source, TotalVariation, parse_target
from featviz_pl.transforms import Choice, Compose, Jitter, Pad, Rotate, Scale, Views


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def marked(row: int, column: int, size: tuple[int, int] = (9, 11)) -> Tensor:
    """Return a black picture with one white pixel."""
    image = torch.zeros(1, 3, *size)
    image[..., row, column] = 1.0
    return image


def brightest(image: Tensor) -> tuple[int, int]:
    row, column = np.unravel_index(int(image[0, 0].argmax()), image.shape[-2:])
    return int(row), int(column)


def ascent(image: Any, objective: Any, views: Views | None = None, seed: int = 0) -> Ascent:
    bound = Ascent(image, fv.FrozenNetwork(toy()), objective, seed, views)
    bound.initialize()
    bound.prepare()
    return bound


# Pictures.


@pytest.mark.parametrize("made", [FourierImage, PixelImage])
def test_pictures_are_counted_then_channels_then_height_then_width(made: type[FourierImage] | type[PixelImage]) -> None:
    assert made(size=(4, 6), count=2)().shape == (2, 3, 4, 6)


@pytest.mark.parametrize("made", [FourierImage, PixelImage])
def test_pictures_lie_between_0_and_1(made: type[FourierImage] | type[PixelImage]) -> None:
    image = made(8, deviation=100.0)
    image.initialize(1, generator())
    shown = image().detach()
    assert float(shown.min()) >= 0.0
    assert float(shown.max()) <= 1.0


def test_three_channels_are_red_green_and_blue() -> None:
    # The first decorrelated channel lightens all three alike, the second turns red against blue, the third green
    # against both.
    mixed = []
    for channel in range(3):
        image = PixelImage(1, 1)
        assert image.weight is not None
        with torch.no_grad():
            image.weight[0, channel] = 1.0
        mixed.append((image().detach().flatten() - 0.5).tolist())
    (r0, g0, b0), (r1, g1, b1), (r2, g2, b2) = mixed
    assert min(r0, g0, b0) > 0.1
    assert r1 > 0.04 > abs(g1)
    assert b1 < -0.04
    assert min(r2, b2) > 0.01
    assert g2 < -0.02


def test_sizes_are_height_then_width() -> None:
    assert Compose([Jitter(1)], size=(4, 6))(torch.rand(1, 3, 8, 8), generator()).shape[-2:] == (4, 6)
    assert resize(torch.rand(1, 3, 8, 8), (4, 6)).shape[-2:] == (4, 6)


# Points and angles.


def test_shifts_are_down_then_right() -> None:
    assert brightest(Jitter(3).apply(marked(4, 5), torch.tensor([[2.0, -1.0]]))) == (6, 4)


def test_neurons_are_at_row_then_column() -> None:
    activation = torch.zeros(1, 1, 2, 4, 6)
    activation[0, 0, 1, 3, 5] = 1.0
    seen = Observation(torch.zeros(1, 3, 8, 8), {Source("a"): activation})
    assert Neuron("a", 1, (3, 5))(seen).item() == 1.0
    assert parse_target("a:1@3,5")(seen).item() == 1.0
    assert parse_target("a:1@3,4")(seen).item() == 0.0


@pytest.mark.parametrize(("size", "centre"), [((4, 6), (2, 3)), ((5, 7), (2, 3)), ((1, 2), (0, 1))])
def test_the_centre_of_a_map_is_half_of_it_rounded_down(size: tuple[int, int], centre: tuple[int, int]) -> None:
    activation = torch.zeros(1, 1, 1, *size)
    activation[0, 0, 0, centre[0], centre[1]] = 1.0
    assert Neuron("a", 0)(Observation(torch.zeros(1, 3, 8, 8), {Source("a"): activation})).item() == 1.0


def test_angles_are_degrees_counter_clockwise_as_displayed() -> None:
    # Up-right of the centre (4, 4), turned by 90 degrees: up-left.
    assert brightest(Rotate(90.0).apply(marked(1, 6, (9, 9)), torch.tensor([90.0]))) == (2, 1)
    # From the right to the top, and back.
    assert brightest(Rotate(90.0).apply(marked(4, 7, (9, 9)), torch.tensor([90.0]))) == (1, 4)
    assert brightest(Rotate(90.0).apply(marked(1, 4, (9, 9)), torch.tensor([-90.0]))) == (4, 7)
    # Degrees, not radians: 360 is a whole turn.
    assert brightest(Rotate(360.0).apply(marked(1, 6, (9, 9)), torch.tensor([360.0]))) == (1, 6)


def test_lengths_are_pixels_of_the_picture_also_where_the_view_has_another_size() -> None:
    view = Compose([Jitter(2)], size=(18, 22)).apply(marked(4, 5), (torch.tensor([[2.0, 0.0]]),))
    # Row 4 moved to row 6, which covers rows 12 and 13 of a view twice as large.
    assert float(view[0, 0, 12:14].sum() / view[0, 0].sum()) == pytest.approx(0.75, abs=0.01)
    assert float(view[0, 0, 11:15].sum() / view[0, 0].sum()) == pytest.approx(1.0, abs=0.01)


def test_a_factor_above_one_shows_things_larger_and_the_centre_stays() -> None:
    view = Scale(Choice([3.0])).apply(marked(4, 5), torch.tensor([3.0]))
    assert brightest(view) == (4, 5)
    assert float(view[0, 0].sum()) == pytest.approx(9.0, rel=1e-4)


# Precision.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_pictures_views_and_scores_have_float32_at_least(dtype: torch.dtype) -> None:
    image = FourierImage(8, 1).to(dtype)
    assert image().dtype == torch.float32
    assert Compose([Pad(1), Jitter(1)])(torch.rand(1, 3, 8, 8).to(dtype), generator()).dtype == torch.float32
    activation = torch.ones(1, 1, 2, 3, 3, dtype=dtype)
    assert Channel("a", 0)(Observation(image().detach(), {Source("a"): activation})).dtype == torch.float32


def test_float64_stays_float64() -> None:
    image = FourierImage(8, 1).double()
    assert image().dtype == torch.float64
    assert Compose([Pad(1), Jitter(1)])(image(), generator()).dtype == torch.float64
    activation = torch.ones(1, 1, 2, 3, 3, dtype=torch.float64)
    assert Channel("a", 0)(Observation(image().detach(), {Source("a"): activation})).dtype == torch.float64


def test_autocast_does_not_reach_the_pictures() -> None:
    bound = ascent(FourierImage(8, deviation=0.5), DeepDream("features.2"), Views(Compose([Jitter(2)]), 2))
    expected = bound.decode_and_view(0, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pictures, views, _ = bound.decode_and_view(0, 4)
    assert pictures.dtype == views.dtype == torch.float32
    assert torch.equal(pictures, expected[0])
    assert torch.equal(views, expected[1])


# Objectives.


def test_objectives_are_maximised() -> None:
    bound = ascent(PixelImage(8, deviation=0.1), Channel("features.5", 3))
    before = float(bound.scores())
    optimizer = torch.optim.SGD(bound.image.parameters(), lr=0.1)
    step = bound.step(0, 1)
    assert float(step.loss.detach()) == pytest.approx(-float(step.scores), rel=1e-6)
    step.loss.backward()
    optimizer.step()
    assert float(bound.scores()) > before


@pytest.mark.parametrize("defect", [TotalVariation(), TotalVariation(power=2), L1(0.5), L2(0.5)], ids=repr)
def test_what_is_named_for_a_defect_is_positive_and_subtracted_by_the_user(defect: Any) -> None:
    worse = torch.rand(1, 3, 6, 6, generator=generator())
    better = worse * 0.1 + 0.45
    low, high = (float(defect(Observation(image, {}))) for image in (better, worse))
    assert 0.0 < low < high
    assert float((-1.0 * defect)(Observation(worse, {}))) == pytest.approx(-high)
    assert float((1 - defect)(Observation(worse, {}))) == pytest.approx(1 - high)


@pytest.mark.parametrize("defect", [TotalVariation(), TotalVariation(power=2), L1()], ids=repr)
def test_penalties_are_sums_over_pixels(defect: Any) -> None:
    image = torch.rand(1, 3, 5, 6, generator=generator())
    one = float(defect(Observation(image, {})))
    # Beside its mirror image: twice the pixels, and no difference where they meet.
    two = float(defect(Observation(torch.cat([image, image.flip(-1)], -1), {})))
    assert two == pytest.approx(2 * one, rel=1e-5)


def test_total_variation_is_the_field_s_unless_squared() -> None:
    image = torch.tensor([[[[0.0, 0.5], [0.25, 0.25]]]])
    seen = Observation(image, {})
    assert TotalVariation()(seen).item() == pytest.approx(0.5 + 0.25 + 0.25)
    assert TotalVariation(power=2)(seen).item() == pytest.approx(0.25 + 0.0625 + 0.0625)


def test_scores_are_one_for_each_picture_in_each_view() -> None:
    activation = torch.rand(3, 4, 2, 5, 5, generator=generator())
    seen = Observation(torch.rand(3, 3, 8, 8), {Source("a"): activation})
    assert Channel("a", 1)(seen).shape == (3, 4)
    assert TotalVariation()(seen).shape == (3, 1)
    assert (Channel("a", 1) - TotalVariation())(seen).shape == (3, 4)


def test_the_loss_is_the_sum_over_pictures_of_the_mean_over_views() -> None:
    bound = ascent(PixelImage(8, 3, deviation=0.5), DeepDream("features.2"), Views(Compose([Jitter(2)]), 4))
    parts = [bound.step(0, 4, [view]) for view in range(4)]
    whole = bound.step(0, 4)
    mean = torch.stack([part.scores for part in parts]).mean(0)
    torch.testing.assert_close(whole.scores, mean)
    assert float(whole.loss.detach()) == pytest.approx(-float(mean.sum()), rel=1e-5)
    # So the mean of the shares' losses is the loss of the whole.
    assert float(whole.loss.detach()) == pytest.approx(sum(float(part.loss.detach()) for part in parts) / 4, rel=1e-5)


def test_a_picture_s_gradient_does_not_depend_on_what_it_is_rendered_with() -> None:
    objectives = {units: Channel("features.5", list(units)) - 0.01 * TotalVariation() for units in [(2,), (4, 2, 0)]}
    gradients = []
    for units, objective in objectives.items():
        bound = ascent(PixelImage(8, deviation=0.5), objective, Views(Compose([Jitter(2), Rotate([-10.0, 10.0])]), 2))
        bound.step(0, 4).loss.backward()
        (weight,) = bound.image.parameters()
        assert weight.grad is not None
        gradients.append(weight.grad[units.index(2)])
    assert bool(gradients[0].any())
    torch.testing.assert_close(gradients[0], gradients[1])


# Randomness.


def test_a_run_leaves_the_global_generators_as_found() -> None:
    before = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    bound = ascent(FourierImage(8), Channel("features.5", [0, 1]), Views(Compose([Pad(2, "grey"), Jitter(2)]), 2))
    for step in range(3):
        bound.step(step, 3).loss.backward()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert pickle.dumps(np.random.get_state()) == before[2]  # noqa: NPY002


def test_a_draw_depends_on_seed_step_target_and_view_alone() -> None:
    def pictures(
        units: list[int], step: int, seed: int = 0, view: int = 0
    ) -> dict[int, tuple[list[float], list[float]]]:
        bound = ascent(PixelImage(8), Channel("features.5", units), Views(Compose([Jitter(100)]), 4), seed)
        drawn = bound.decode_and_view(step, 10, [view])[2].parameters
        (weight,) = bound.image.parameters()
        starts = weight.detach().flatten(1).tolist()
        return {unit: (starts[place], drawn[0][place].tolist()) for place, unit in enumerate(units)}

    alone, together = pictures([3], 5), pictures([1, 3, 0], 5)
    assert together[3] == alone[3]
    assert together[1][0] != together[3][0]
    assert together[1][1] != together[3][1]
    assert pictures([3], 6)[3][0] == alone[3][0]
    assert pictures([3], 6)[3][1] != alone[3][1]
    assert pictures([3], 5, view=1)[3][1] != alone[3][1]
    assert pictures([3], 5, seed=1)[3][0] != alone[3][0]
    assert pictures([3], 5, seed=1)[3][1] != alone[3][1]


def test_no_transform_or_image_draws_when_it_is_built() -> None:
    before = torch.get_rng_state()
    FourierImage(8, 2), PixelImage(8, 2)
    Compose([Pad(1, "grey"), Jitter(1), Rotate(5.0), Scale(Choice([1.1]))])
    assert torch.equal(torch.get_rng_state(), before)
