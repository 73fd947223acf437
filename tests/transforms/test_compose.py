"""Several geometric transforms are one sampling, to a fixed size, blurred first where they can shrink."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sampling import Move, seen
from torch import Tensor

from featviz_pl.transforms import Choice, Compose, Crop, CropOrPad, Jitter, Pad, Rotate, Scale, Transform


class Negative(Transform):
    """A transform that moves nothing: black for white."""

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        return torch.ones(n)

    def apply(self, image: Tensor, parameters: Tensor) -> Tensor:  # type: ignore[override]
        return parameters.view(-1, 1, 1, 1).to(image) - image


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(size: tuple[int, int], seed: int = 5) -> Tensor:
    return torch.rand(*size, generator=generator(seed), dtype=torch.float64)


def exact(value: float) -> float:
    """Return what a draw in float32 holds."""
    return float(torch.tensor(value, dtype=torch.float32))


JITTER, TURN, ZOOM = (
    (Jitter(4), ("shift", (3.0, -2.0))),
    (Rotate(25.0), ("turn", 25.0)),
    (Scale(Choice([1.5])), ("zoom", 1.5)),
)
SECOND = (Jitter(2), ("shift", (-1.0, 2.0)))


def drawn(moves: list[Move]) -> tuple[Tensor, ...]:
    return tuple(torch.tensor([amount], dtype=torch.float32) for _, amount in moves)


@pytest.mark.parametrize(
    "order", [[JITTER, TURN, ZOOM], [ZOOM, TURN, JITTER], [TURN, JITTER], [JITTER, ZOOM, TURN, SECOND], []]
)
@pytest.mark.parametrize("size", [(7, 7), (6, 9)])
def test_a_chain_is_one_sampling_of_the_picture_in_the_order_given(
    order: list[tuple[Transform, Move]], size: tuple[int, int]
) -> None:
    image, moves = picture(size), [move for _, move in order]
    shown = Compose([transform for transform, _ in order]).apply(image[None, None], drawn(moves))[0, 0]
    np.testing.assert_allclose(shown, seen(image.numpy(), moves), atol=1e-6)


def test_a_chain_that_comes_back_shows_the_picture_untouched() -> None:
    # Two interpolations would have blurred it.
    image = picture((8, 8))[None, None]
    there_and_back = Compose([Rotate(30.0), Rotate(30.0), Scale(Choice([2.0])), Jitter(1), Jitter(1)])
    parameters = (
        *(torch.tensor([value]) for value in (30.0, -30.0, 1.0)),
        torch.tensor([[0.5, 0.25]]),
        torch.tensor([[-0.5, -0.25]]),
    )
    torch.testing.assert_close(there_and_back.apply(image, parameters), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["reflect", "constant"])
def test_a_chain_ends_at_its_border(mode: Any) -> None:
    image, moves = picture((6, 8)), [JITTER[1], TURN[1], ZOOM[1], ("shift", (-4.0, 4.0))]
    composed = Compose([Pad(2, mode, value=0.75), JITTER[0], TURN[0], ZOOM[0], Jitter(4)])
    shown = composed.apply(image[None, None], (torch.tensor([0.75]), *drawn(moves)))[0, 0]
    expected = seen(image.numpy(), moves, reach=2) if mode == "reflect" else seen(image.numpy(), moves, outside=0.75)
    np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_the_border_is_the_same_wherever_it_stands_and_the_last_one_counts() -> None:
    image, shift = picture((5, 5))[None, None], torch.tensor([[3.0, 0.0]])
    first = Compose([Pad(1, "constant"), Jitter(3)]).apply(image, (torch.tensor([0.2]), shift))
    last = Compose([Pad(2), Jitter(3), Pad(1, "constant")]).apply(
        image, (torch.tensor([0.9]), shift, torch.tensor([0.2]))
    )
    assert torch.equal(first, last)


@pytest.mark.parametrize("size", [(12, 18), (7, 9), (6, 13)])
def test_the_result_has_the_fixed_size_asked_for(size: tuple[int, int]) -> None:
    image, moves = picture((6, 9)), [JITTER[1], TURN[1]]
    shown = Compose([JITTER[0], TURN[0]], size=size).apply(image[None, None], drawn(moves))[0, 0]
    assert tuple(shown.shape) == size
    # Enlarged, so nothing was blurred; shifts are in pixels of the picture.
    np.testing.assert_allclose(shown, seen(image.numpy(), moves, size=size), atol=1e-6)


@pytest.mark.parametrize("size", [4, (3, 5), (20, 2)])
def test_every_draw_has_the_same_size(size: int | tuple[int, int]) -> None:
    composed = Compose([Pad(2), Jitter(2), Scale(Choice([0.5, 1.0, 2.0])), Rotate(90.0)], size=size)
    expected = (size, size) if isinstance(size, int) else size
    assert composed(torch.rand(12, 3, 8, 8, generator=generator()), generator()).shape == (12, 3, *expected)


def test_nothing_to_do_but_resize() -> None:
    image = picture((4, 6))[None, None]
    assert torch.equal(Compose([]).apply(image, ()), image)
    shown = Compose([], size=(8, 12)).apply(image, ())[0, 0]
    np.testing.assert_allclose(shown, seen(image[0, 0].numpy(), size=(8, 12)), atol=1e-12)


def test_transforms_that_move_nothing_part_two_samplings() -> None:
    image, moves = picture((6, 6)), [JITTER[1], ("shift", (0.5, 1.5))]
    composed = Compose([JITTER[0], Negative(), Jitter(2)], size=(9, 9))
    shown = composed.apply(image[None, None], (drawn(moves[:1])[0], torch.ones(1), drawn(moves[1:])[0]))[0, 0]
    # The last sampling reaches the size: until then, pixels are those of the picture.
    first = 1.0 - seen(image.numpy(), moves[:1])
    np.testing.assert_allclose(shown, seen(first, moves[1:], size=(9, 9)), atol=1e-6)


def test_a_size_is_reached_also_without_geometry() -> None:
    image = picture((4, 4))[None, None]
    shown = Compose([Negative()], size=(6, 8)).apply(image, (torch.ones(1),))
    np.testing.assert_allclose(shown[0, 0], seen(1.0 - image[0, 0].numpy(), size=(6, 8)), atol=1e-12)


def test_sizes_chain_in_order() -> None:
    chain = Compose([CropOrPad((4, 9)), Jitter(1), Compose([], size=5), CropOrPad(7)])
    assert chain.output_size((20, 30)) == (7, 7)
    assert Compose([CropOrPad((4, 9)), Jitter(1)]).output_size((20, 30)) == (4, 9)
    assert Compose([chain], size=(2, 3)).output_size((20, 30)) == (2, 3)
    image = torch.rand(2, 3, 20, 30, generator=generator())
    assert chain(image, generator()).shape == (2, 3, 7, 7)
    assert Compose([chain], size=(2, 3))(image, generator()).shape == (2, 3, 2, 3)


def test_what_sets_a_size_does_so_in_pixels_of_the_picture() -> None:
    image, moves = picture((10, 10)), [JITTER[1]]
    composed = Compose([JITTER[0], CropOrPad(6)], size=12)
    shown = composed.apply(image[None, None], (drawn(moves)[0], torch.zeros(1)))[0, 0]
    middle = seen(image.numpy(), moves)[2:8, 2:8]
    np.testing.assert_allclose(shown, seen(middle, size=(12, 12)), atol=1e-6)


def test_an_empty_inner_composition_may_have_a_size() -> None:
    image = picture((5, 5))[None, None]
    assert Compose([Compose([], size=3)]).apply(image, ((),)).shape == (1, 1, 3, 3)
    composed = Compose([Compose([], size=3), Jitter(1)])
    assert composed.apply(image, composed.sample(generator(), 4)).shape == (4, 1, 3, 3)


def test_a_crop_joins_the_one_sampling() -> None:
    image = picture((12, 16))
    crop = torch.tensor([[0.25, 0.75, 0.5, 0.5, 0.5]])
    composed = Compose([JITTER[0], Crop(side=0.5), TURN[0]])
    shown = composed.apply(image[None, None], (drawn([JITTER[1]])[0], crop, drawn([TURN[1]])[0]))[0, 0]
    # The crop's centre comes to the middle, then everything is twice as large.
    moves = [JITTER[1], ("shift", (3.0, -4.0)), ("zoom", 2.0), TURN[1]]
    np.testing.assert_allclose(shown, seen(image.numpy(), moves), atol=1e-6)


@pytest.mark.parametrize(
    ("side", "size", "blurred"), [(0.5, 8, False), (0.25, 4, False), (0.5, 4, True), (1.0, 8, True)]
)
def test_crops_are_blurred_by_what_they_shrink_and_not_by_the_whole(side: float, size: int, blurred: bool) -> None:
    image = picture((16, 16))[None, None]
    composed = Compose([Crop(center=0.5, side=side)], size=size)
    shown = composed(image, generator())[0, 0].numpy()
    sharp = seen(image[0, 0].numpy(), [("zoom", 1 / side)], size=(size, size))
    assert (float(np.abs(shown - sharp).max()) > 0.01) == blurred
    if blurred:  # two pixels of the picture become one in both cases
        soft = Scale(Choice([0.5])).apply(image, torch.tensor([1.0]))[0, 0].numpy()
        np.testing.assert_allclose(shown, seen(soft, [("zoom", 1 / side)], size=(size, size)), atol=1e-6)


def test_the_blur_of_crops_follows_their_range_through_the_run() -> None:
    shrinks: list[float] = []
    crop = Crop(center=0.5, side=(0.4, 0.8), end=(0.1, 0.2))
    parameters = crop.sample(generator(), 3)
    for progress in (0.0, 0.5, 1.0):
        shrinks.append(crop.shrink(crop.at(parameters, progress)))
    assert shrinks == pytest.approx([0.8, 0.5, 0.2])
    # Weakened crops show more of the picture: none at all shrinks it whole.
    assert crop.shrink(crop.weaken(parameters, 0.0)) == pytest.approx(1.0)
    assert crop.shrink(crop.weaken(crop.at(parameters, 1.0), 0.5)) == pytest.approx(0.6)
    assert crop.largest_shrink == pytest.approx(0.8)


def test_a_composition_is_a_transform_of_a_composition() -> None:
    image = picture((6, 6))[None, None].repeat(3, 1, 1, 1)
    inner = Compose([Jitter(2), Rotate([0.0, 10.0])])
    nested = Compose([inner, Negative()])
    parameters = nested.sample(generator(), 3)
    torch.testing.assert_close(nested.apply(image, parameters), 1.0 - inner.apply(image, parameters[0]))


def checkerboard(side: int) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((rows + columns) % 2).double()


def test_a_checkerboard_shrunk_to_half_is_grey() -> None:
    board = checkerboard(17)
    # Read without a blur, every second pixel: all black or all white. This is the alias.
    naive = seen(board.numpy(), [("zoom", 0.5)])[5:12, 5:12]
    assert naive.min() == naive.max()
    assert naive.max() in (0.0, 1.0)
    shown = Scale(Choice([0.5])).apply(board[None, None], torch.tensor([0.5]))[0, 0].numpy()
    np.testing.assert_allclose(shown[5:12, 5:12], 0.5, atol=0.01)
    # Where the mirror image begins two equal pixels stand side by side: a little light or dark is really there.
    np.testing.assert_allclose(shown, 0.5, atol=0.15)


@pytest.mark.parametrize("axis", [0, 1])
def test_stripes_seen_at_a_third_of_the_size_are_grey(axis: int) -> None:
    stripes = (torch.arange(27) % 2).double().view((-1, 1) if axis == 0 else (1, -1)).expand(27, 27)
    naive = seen(stripes.numpy(), size=(9, 9))
    assert set(naive.flatten().round(6).tolist()) == {0.0, 1.0}
    shown = Compose([], size=(9, 9)).apply(stripes[None, None], ())[0, 0].numpy()
    np.testing.assert_allclose(shown[1:-1, 1:-1], 0.5, atol=0.01)
    np.testing.assert_allclose(shown, 0.5, atol=0.15)


def test_a_coarse_pattern_survives_the_shrink() -> None:
    halves = torch.zeros(32, 32, dtype=torch.float64)
    halves[:, 16:] = 1.0
    shown = Scale(Choice([0.5])).apply(halves[None, None], torch.tensor([0.5]))[0, 0].numpy()
    assert shown[:, 10:14].max() < 0.01
    assert shown[:, 18:22].min() > 0.99


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.0])
def test_the_blur_is_that_of_the_largest_shrink_whatever_is_drawn(factor: float) -> None:
    image, scale = picture((9, 9)), Scale(Choice([0.5, 0.75, 1.0]))
    unmoved = scale.apply(image[None, None], torch.tensor([1.0]))[0, 0].numpy()
    assert float(np.abs(unmoved - image.numpy()).max()) > 0.1, "blurred though this draw does not shrink"
    shown = scale.apply(image[None, None], torch.tensor([factor]))[0, 0].numpy()
    np.testing.assert_allclose(shown, seen(unmoved, [("zoom", factor)]), atol=1e-6)
    np.testing.assert_allclose(
        unmoved, Scale(Choice([0.5])).apply(image[None, None], torch.tensor([1.0]))[0, 0].numpy(), atol=1e-12
    )


def test_the_blur_of_one_view_does_not_depend_on_the_draws_of_others() -> None:
    image, scale = picture((9, 9))[None, None].repeat(2, 1, 1, 1), Scale(Choice([0.5, 1.0]))
    one = scale.apply(image, torch.tensor([1.0, 1.0]))[0]
    other = scale.apply(image, torch.tensor([1.0, 0.5]))[0]
    torch.testing.assert_close(one, other)


def test_shrinks_multiply() -> None:
    image = picture((12, 12))[None, None]
    stay = torch.tensor([1.0])
    both = Compose([Scale(Choice([0.5, 1.0])), Scale(Choice([0.5, 1.0]))]).apply(image, (stay, stay))
    torch.testing.assert_close(both, Scale(Choice([0.25])).apply(image, stay))


def test_ranges_that_cannot_shrink_do_not_blur() -> None:
    image = picture((9, 9))[None, None]
    still = Compose([Pad(4), Jitter(3), Rotate([-10.0, 10.0]), Scale(Choice([1.0, 1.2]))])
    parameters = still.weaken(still.sample(generator(), 1), 0.0)
    torch.testing.assert_close(still.apply(image, parameters), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factors", [[0.5, 0.5], [0.5, 2.0]])
def test_a_constant_picture_stays_constant_through_the_blur(factors: list[float]) -> None:
    image = torch.full((30, 3, 8, 8), 0.7, dtype=torch.float64)
    composed = Compose([Jitter(5), Scale(factors), Rotate([0.0, 33.0])], size=(5, 6))
    torch.testing.assert_close(composed(image, generator()), image[..., :5, :6])


def test_what_is_no_transform_is_refused() -> None:
    with pytest.raises(TypeError, match="transforms must hold featviz_pl transforms, got Linear"):
        Compose([torch.nn.Linear(1, 1)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        Compose([], size=0)


def test_own_transforms_are_seen_by_torch() -> None:
    composed = Compose([Jitter(1), Compose([Rotate(5.0)])])
    assert [type(module).__name__ for module in composed.modules() if isinstance(module, Transform)] == [
        "Compose",
        "Jitter",
        "Compose",
        "Rotate",
    ]


def test_draws_hold_the_numbers_of_the_lists() -> None:
    factor, angle = Compose([Scale(Choice([0.9])), Rotate(Choice([3.5]))]).sample(generator(), 1)
    assert float(factor) == exact(0.9)
    assert float(angle) == 3.5


@pytest.mark.parametrize("turned", [False, True], ids=["geometry first", "geometry last"])
def test_several_draws_for_each_picture_are_those_of_each_alone(turned: bool) -> None:
    moves = [Pad(2, "grey"), Scale(Choice([0.4, 0.7, 1.2])), Jitter(3)]
    composed = Compose([Negative(), *moves] if turned else [*moves, Negative()], (7, 9))
    images = torch.rand(2, 3, 10, 12, generator=generator(), dtype=torch.float64)
    parameters = composed.sample(generator(1), 6)
    shown = composed.apply(images, parameters)
    assert shown.shape == (6, 3, 7, 9)
    for view in range(6):
        alone = composed.apply(images[view // 3][None], tuple(part[view : view + 1] for part in parameters))
        torch.testing.assert_close(shown[view], alone[0])


def test_a_picture_is_blurred_once_for_all_its_views(monkeypatch: pytest.MonkeyPatch) -> None:
    blurred: list[int] = []

    def counted(image: Tensor, shrink: float) -> Tensor:
        blurred.append(len(image))
        return image

    monkeypatch.setattr("featviz_pl.transforms.warp.antialias", counted)
    composed = Compose([Scale(Choice([0.5]))])
    composed.apply(torch.rand(2, 3, 8, 8), composed.sample(generator(), 10))
    assert blurred == [2]


def test_an_inner_composition_joins_the_one_sampling() -> None:
    image = picture((9, 9))[None, None]
    turn, zoom, shift = Rotate(25.0), Scale(Choice([1.5])), Jitter(3)
    drawn = (torch.tensor([25.0]), torch.tensor([1.5]), torch.tensor([[2.0, -1.0]]))
    flat = Compose([turn, zoom, shift]).apply(image, drawn)
    nested = Compose([turn, Compose([zoom, shift])]).apply(image, (drawn[0], (drawn[1], drawn[2])))
    torch.testing.assert_close(nested, flat, rtol=0, atol=0)


def test_an_empty_inner_composition_changes_nothing() -> None:
    image = picture((5, 5))[None, None]
    torch.testing.assert_close(
        Compose([Compose([]), Jitter(1)]).apply(image, ((), torch.zeros(1, 2))), image, rtol=0, atol=1e-6
    )
