"""Each transform against brute force in numpy: centre, sign and border."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sampling import seen
from torch import Tensor

from featviz_pl.transforms import Choice, Compose, Flip, GeometricTransform, Jitter, Pad, Rotate, Scale

Array = NDArray[np.float64]
SIZES = [(6, 6), (5, 8), (7, 4)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(size: tuple[int, int]) -> Tensor:
    return torch.rand(*size, generator=generator(11), dtype=torch.float64)


def view(transform: GeometricTransform, image: Tensor, parameters: Any) -> Array:
    """Show one picture (H, W) through one draw."""
    shown: Array = transform.apply(image[None, None], torch.tensor([parameters]))[0, 0].numpy()
    return shown


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 0), (0, -2), (-1, 2), (2, 2)])
def test_jitter_shifts_by_whole_pixels_into_the_mirror_image(size: tuple[int, int], down: int, right: int) -> None:
    image = picture(size)
    padded = np.pad(image.numpy(), 2, mode="symmetric")
    expected = padded[2 - down : 2 - down + size[0], 2 - right : 2 - right + size[1]]
    np.testing.assert_allclose(view(Jitter(2), image, [float(down), float(right)]), expected, atol=1e-12)


def test_jitter_inside_a_wide_border_is_a_roll() -> None:
    image = torch.zeros(9, 9, dtype=torch.float64)
    image[3:6, 3:6] = picture((3, 3))
    for down, right in [(2, 1), (-3, 0), (1, -2)]:
        rolled = np.roll(image.numpy(), (down, right), axis=(0, 1))
        np.testing.assert_allclose(view(Jitter(3), image, [float(down), float(right)]), rolled, atol=1e-12)


def test_the_mean_of_all_shifts_leaves_a_spot_where_it_is() -> None:
    spot = torch.zeros(25, 1, 11, 11, dtype=torch.float64)
    spot[:, :, 5, 5] = 1.0
    average = (
        Jitter(2)
        .apply(spot, torch.tensor([[float(d), float(r)] for d in range(-2, 3) for r in range(-2, 3)]))
        .mean(0)[0]
        .numpy()
    )
    rows, columns = np.mgrid[0:11, 0:11]
    assert (average * rows).sum() == pytest.approx(5.0)
    assert (average * columns).sum() == pytest.approx(5.0)
    assert average.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [1.0, 1.3, 2.0, 3.7])
def test_scale_zooms_about_the_centre(size: tuple[int, int], factor: float) -> None:
    image = picture(size)
    # The factor as a draw holds it, in float32.
    exact = float(torch.tensor(factor))
    np.testing.assert_allclose(
        view(Scale(Choice([factor])), image, factor), seen(image.numpy(), [("zoom", exact)]), atol=1e-12
    )


def test_scale_by_three_makes_one_pixel_three() -> None:
    image = torch.zeros(9, 9, dtype=torch.float64)
    image[4, 4] = 1.0
    shown = view(Scale(Choice([3.0])), image, 3.0)
    assert shown[4, 4] == pytest.approx(1.0)
    assert shown.sum() == pytest.approx(9.0)
    np.testing.assert_allclose(shown, shown[::-1, ::-1], atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("degrees", [0.0, 17.0, -33.5, 45.0, 90.0, 180.0, 271.0])
def test_rotate_turns_about_the_centre(size: tuple[int, int], degrees: float) -> None:
    image = picture(size)
    np.testing.assert_allclose(view(Rotate(90.0), image, degrees), seen(image.numpy(), [("turn", degrees)]), atol=1e-6)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_counter_clockwise_as_displayed(quarters: int) -> None:
    image = picture((7, 7))
    # numpy's rot90 turns the first axis (down) towards the second (right): counter-clockwise as displayed.
    np.testing.assert_allclose(view(Rotate(90.0), image, 90.0 * quarters), np.rot90(image.numpy(), quarters), atol=1e-6)


def test_a_marker_up_right_of_the_centre_turned_by_90_degrees_lands_up_left() -> None:
    image = torch.zeros(9, 9, dtype=torch.float64)
    image[1, 6] = 1.0
    shown = view(Rotate(90.0), image, 90.0)
    assert tuple(int(at) for at in np.unravel_index(shown.argmax(), shown.shape)) == (2, 1)
    assert shown[2, 1] == pytest.approx(1.0)


@pytest.mark.parametrize(("factors", "shrink"), [((1.0, 2.0), 1.0), ((0.5, 1.0), 2.0), (Choice([0.9, 0.8]), 1.25)])
def test_the_largest_shrink_is_that_of_the_smallest_factor(factors: Any, shrink: float) -> None:
    assert Scale(factors).largest_shrink == pytest.approx(shrink)
    assert Jitter(3).largest_shrink == Rotate(10.0).largest_shrink == Pad(3).largest_shrink == 1.0


@pytest.mark.parametrize("size", SIZES)
def test_a_flip_exchanges_left_and_right_exactly(size: tuple[int, int]) -> None:
    image = picture(size)
    np.testing.assert_allclose(view(Flip(0.5), image, 0.49), image.numpy()[:, ::-1], atol=1e-12)
    np.testing.assert_allclose(view(Flip(0.5), image, 0.5), image, atol=1e-12)


@pytest.mark.parametrize(
    ("probability", "strength", "share"),
    [(0.5, 1.0, 0.5), (0.2, 1.0, 0.2), (0.5, 0.4, 0.2), (1.0, 1.0, 1.0), (1.0, 0.0, 0.0)],
)
def test_flips_happen_as_often_as_they_should(probability: float, strength: float, share: float) -> None:
    flip = Flip(probability)
    maps = flip.matrix(flip.weaken(flip.sample(generator(), 4000), strength), (5, 5))
    assert float((maps[:, 0, 0] < 0).double().mean()) == pytest.approx(share, abs=0.03)
    assert float(Flip(0.0).matrix(torch.zeros(1), (5, 5))[0, 0, 0]) == 1.0


@pytest.mark.parametrize("mode", ["reflect", "constant", "grey"])
@pytest.mark.parametrize("size", SIZES)
def test_pad_alone_shows_the_picture_as_it_is(mode: Any, size: tuple[int, int]) -> None:
    image = picture(size)[None, None].repeat(4, 3, 1, 1)
    shown = Pad(5, mode)(image, generator())
    assert shown.shape == image.shape
    torch.testing.assert_close(shown, image)


@pytest.mark.parametrize(("down", "right"), [(3, 0), (-4, 2), (6, -6)])
def test_a_constant_border_goes_on_for_ever(down: int, right: int) -> None:
    image = picture((5, 6))
    composed = Compose([Pad(1, "constant", value=0.8), Jitter(6)])
    drawn = (torch.tensor([0.8]), torch.tensor([[float(down), float(right)]]))
    expected = np.pad(image.numpy(), 6, constant_values=0.8)[6 - down : 11 - down, 6 - right : 12 - right]
    np.testing.assert_allclose(composed.apply(image[None, None], drawn)[0, 0], expected, atol=1e-7)


def test_a_grey_border_is_another_one_for_each_view() -> None:
    composed = Compose([Pad(2, "grey"), Jitter(3)])
    greys, _ = composed.sample(generator(), 200)
    assert greys.unique().numel() > 190
    assert 0.0 <= float(greys.min()) < 0.1
    assert 0.9 < float(greys.max()) <= 1.0
    shown = composed.apply(torch.ones(200, 3, 4, 4), (greys, torch.tensor([[0.0, 3.0]]).expand(200, 2)))
    torch.testing.assert_close(shown[..., :3], greys.view(200, 1, 1, 1).expand(200, 3, 4, 3))
    torch.testing.assert_close(shown[..., 3:], torch.ones(200, 3, 4, 1))


@pytest.mark.parametrize("reach", [0, 1, 2, 3])
@pytest.mark.parametrize(("down", "right"), [(4, 4), (-4, 3), (2, -4), (1, 0)])
def test_a_mirrored_border_reaches_as_far_as_it_is_padded(reach: int, down: int, right: int) -> None:
    image = picture((5, 6))
    around = np.pad(np.pad(image.numpy(), reach, mode="symmetric"), 4 - reach, mode="edge")
    composed = Compose([Pad(reach), Jitter(4)])
    shown = composed.apply(image[None, None], (torch.tensor([0.5]), torch.tensor([[float(down), float(right)]])))[0, 0]
    np.testing.assert_allclose(shown, around[4 - down : 9 - down, 4 - right : 10 - right], atol=1e-12)


def test_without_a_pad_the_picture_goes_on_as_its_mirror_image() -> None:
    image = picture((3, 4))
    expected = np.pad(image.numpy(), ((9, 9), (10, 10)), mode="symmetric")[0:3, 20:24]
    np.testing.assert_allclose(view(Jitter(10), image, [9.0, -10.0]), expected, atol=1e-12)


def test_half_strength_moves_half_as_far() -> None:
    assert Jitter(4).weaken(torch.tensor([[4.0, -2.0]]), 0.5).tolist() == [[2.0, -1.0]]
    assert Rotate(10.0).weaken(torch.tensor([10.0]), 0.5).tolist() == [5.0]
    # Half of a zoom is the one that makes the whole when it is done twice.
    assert Scale(Choice([4.0])).weaken(torch.tensor([4.0, 0.25]), 0.5).tolist() == [2.0, 0.5]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Flip(1.5), ValueError, "probability must be at least 0 and at most 1, got 1.5"),
        (lambda: Pad(-2), ValueError, "pixels must be at least 0, got -2"),
        (
            lambda: Pad(2, "mirror"),  # type: ignore[arg-type]
            ValueError,
            "mode: unknown border 'mirror'; known: reflect, constant, grey",
        ),
        (
            lambda: Pad(2, "gray"),  # type: ignore[arg-type]
            ValueError,
            "mode: unknown border 'gray'; did you mean 'grey'",
        ),
        (lambda: Pad(2, "constant", value=1.5), ValueError, "value must be at least 0 and at most 1, got 1.5"),
        (lambda: Pad(2, "constant", value=-0.5), ValueError, "value must be at least 0 and at most 1, got -0.5"),
    ],
)
def test_bad_arguments_are_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("transform", "shown"),
    [
        (Flip(0.25), "Flip(0.25)"),
        (Pad(3), "Pad(3, 'reflect')"),
        (Pad(3, "constant", value=0.25), "Pad(3, 'constant', value=0.25)"),
        (Pad(3, "grey"), "Pad(3, 'grey')"),
    ],
)
def test_repr_is_the_constructor(transform: GeometricTransform, shown: str) -> None:
    assert repr(transform) == shown
