"""What every parameterization promises. A class that is exported without an entry in the table below fails."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featviz_pl import images
from featviz_pl.images import FourierImage, Image, PixelImage

# Arguments that differ from the defaults, so that forgetting one shows.
CASES: dict[type[Image], dict[str, Any]] = {
    FourierImage: {"decay": 1.25},
    PixelImage: {},
}
SIZES = [(8, 8), (5, 7), (6, 9), (9, 4)]

every = pytest.mark.parametrize("made", CASES, ids=lambda made: made.__name__)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, channels: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Draw pictures that hold 0 and 1 too."""
    drawn = torch.rand(count, channels, *size, generator=generator(seed))
    drawn[:, :, 0, 0], drawn[:, :, -1, -1] = 0.0, 1.0
    return drawn


def started(made: type[Image], count: int = 2, seed: int = 0, **more: Any) -> Image:
    arguments: dict[str, Any] = {"size": (5, 6), "deviation": 0.5, **CASES[made], **more}
    image = made(**arguments)
    image.initialize(count, generator(seed))
    return image


def test_every_exported_class_is_in_the_table() -> None:
    exported = [getattr(images, name) for name in images.__all__]
    concrete = {listed for listed in exported if isinstance(listed, type) and issubclass(listed, Image) and listed is not Image}
    assert concrete == set(CASES)


@every
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("count", [1, 3])
def test_pictures_have_the_shape_asked_for_and_lie_between_0_and_1(
    made: type[Image], count: int, channels: int, size: tuple[int, int]
) -> None:
    image = made(size, count, channels, deviation=3.0, **CASES[made])
    image.initialize(count, generator(0))
    shown = image().detach()
    assert shown.shape == (count, channels, *size)
    assert shown.dtype == torch.float32
    assert 0.0 <= float(shown.min()) < float(shown.max()) <= 1.0


@every
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("count", [1, 3])
def test_a_picture_comes_back_within_a_thousandth(made: type[Image], count: int, channels: int, size: tuple[int, int]) -> None:
    given = pictures(count, channels, size)
    image = made.from_image(given, **CASES[made])
    assert type(image) is made
    assert image.count == count
    np.testing.assert_allclose(image().detach().numpy(), given.numpy(), rtol=0, atol=1e-3)


@every
@pytest.mark.parametrize("color", ["none", "imagenet", [[1.0, 0.2, 0.0], [0.0, 1.0, 0.5], [0.3, 0.0, -1.0]]])
def test_a_picture_comes_back_in_any_colour_space(made: type[Image], color: Any) -> None:
    given = pictures(2, 3, (5, 4))
    image = made.from_image(given, color=color, **CASES[made])
    np.testing.assert_allclose(image().detach().numpy(), given.numpy(), rtol=0, atol=1e-3)


@every
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_pictures_can_start_one(made: type[Image], value: float) -> None:
    image = made.from_image(torch.full((3, 5, 5), value), **CASES[made])
    np.testing.assert_allclose(image().detach().numpy(), value, rtol=0, atol=1e-3)
    image().sum().backward()
    assert image.weight is not None
    assert image.weight.grad is not None
    assert bool(image.weight.grad.any()), "a saturated picture can still move"


@every
def test_a_single_picture_of_double_or_half_precision_can_start_one(made: type[Image]) -> None:
    given = pictures(1, 3, (5, 6))[0]
    for dtype, tolerance in ((torch.float64, 1e-3), (torch.float16, 2e-3)):
        image = made.from_image(given.to(dtype), **CASES[made])
        assert image().dtype == torch.float32
        np.testing.assert_allclose(image()[0].detach().numpy(), given.numpy(), rtol=0, atol=tolerance)


@every
def test_one_picture_starts_all(made: type[Image]) -> None:
    given = pictures(1, 3, (5, 6))[0]
    image = made((5, 6), 3, **CASES[made])
    image.start_from(given)
    np.testing.assert_allclose(image().detach().numpy(), given.expand(3, -1, -1, -1).numpy(), rtol=0, atol=1e-3)


@every
def test_a_started_picture_is_not_drawn_again(made: type[Image]) -> None:
    image = made.from_image(pictures(2, 3, (5, 6)), **CASES[made])
    before = image().detach().clone()
    image.initialize(2, generator(7))
    assert torch.equal(image(), before)


@every
def test_the_caller_s_picture_is_left_alone(made: type[Image]) -> None:
    given = pictures(1, 3, (5, 6))
    kept = given.clone()
    image = made.from_image(given, **CASES[made])
    with torch.no_grad():
        for weight in image.parameters():
            weight.fill_(9.0)
    assert torch.equal(given, kept)


@every
def test_nothing_is_drawn_when_built(made: type[Image]) -> None:
    before = torch.get_rng_state()
    one, other = made(8, 2, **CASES[made]), made(8, 2, **CASES[made])
    assert torch.equal(one(), other())
    assert not bool(one.initialized)
    started(made)
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_initialising_twice_changes_nothing(made: type[Image]) -> None:
    image = started(made, seed=0)
    before = image().detach().clone()
    image.initialize(2, generator(1))
    assert torch.equal(image(), before)
    assert not torch.equal(started(made, seed=1)(), before), "another seed draws another picture"


@every
def test_a_picture_does_not_depend_on_its_companions(made: type[Image]) -> None:
    together = made((5, 6), deviation=0.5, **CASES[made])
    together.initialize(3, [generator(seed) for seed in (4, 5, 6)])
    for place, seed in enumerate((4, 5, 6)):
        alone = made((5, 6), deviation=0.5, **CASES[made])
        alone.initialize(1, [generator(seed)])
        assert alone.weight is not None
        assert together.weight is not None
        assert torch.equal(alone.weight[0], together.weight[place])
        torch.testing.assert_close(alone()[0], together()[place])
    assert not torch.equal(together()[0], together()[1])


@every
def test_one_generator_draws_different_pictures(made: type[Image]) -> None:
    shown = started(made, count=3)()
    assert not torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[1], shown[2])


@every
def test_pickle_and_deepcopy_keep_the_picture_and_part_from_it(made: type[Image]) -> None:
    image = started(made)
    for copied in (pickle.loads(pickle.dumps(image)), copy.deepcopy(image)):
        assert torch.equal(copied(), image())
        assert repr(copied) == repr(image)
        before = image().detach().clone()
        with torch.no_grad():
            for weight in copied.parameters():
                weight.add_(1.0)
        assert torch.equal(image(), before)
        assert not torch.equal(copied(), before)


@every
def test_an_image_without_pictures_can_be_copied_too(made: type[Image]) -> None:
    image = made((5, 6), deviation=0.5, **CASES[made])
    for copied in (pickle.loads(pickle.dumps(image)), copy.deepcopy(image)):
        copied.initialize(2, generator(0))
        assert torch.equal(copied(), started(made)())


@every
def test_a_state_dict_fills_a_fresh_image(made: type[Image]) -> None:
    image = started(made, count=3)
    fresh = made((5, 6), **CASES[made])
    assert fresh.count is None
    fresh.load_state_dict(image.state_dict())
    assert fresh.count == 3
    assert torch.equal(fresh(), image())
    fresh.initialize(3, generator(9))
    assert torch.equal(fresh(), image()), "what came from a checkpoint is not drawn again"


@every
def test_a_state_dict_fills_an_image_inside_another_module(made: type[Image]) -> None:
    outer, fresh = torch.nn.Module(), torch.nn.Module()
    outer.image, fresh.image = started(made), made((5, 6), **CASES[made])
    fresh.load_state_dict(outer.state_dict())
    assert torch.equal(fresh.image(), outer.image())


@every
def test_a_state_dict_of_another_size_or_count_is_refused(made: type[Image]) -> None:
    with pytest.raises(RuntimeError, match="weight"):
        made((5, 8), **CASES[made]).load_state_dict(started(made).state_dict())
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        made((5, 6), 1, **CASES[made]).load_state_dict(started(made).state_dict())


@every
def test_checkpoints_hold_what_is_trained_and_no_constants(made: type[Image]) -> None:
    assert set(started(made).state_dict()) == {"weight", "initialized"}


@every
def test_repr_tells_images_apart(made: type[Image]) -> None:
    shown = repr(made((5, 6), 2, 1, **CASES[made]))
    assert shown.startswith(f"{made.__name__}(")
    for part in ("size=(5, 6)", "count=2", "channels=1", "color='auto'"):
        assert part in shown
    assert "color='own'" in repr(made(4, color=torch.eye(3), **CASES[made]))
    for name, value in CASES[made].items():
        assert f"{name}={value}" in shown


@every
@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_reduced_precision_is_raised_to_float32(made: type[Image], name: str) -> None:
    image, expected = started(made), started(made)()
    assert getattr(image, name)() is image
    assert image().dtype == torch.float32
    assert torch.equal(image(), expected), "nothing was rounded on the way"
    empty = getattr(made((5, 6), deviation=0.5, **CASES[made]), name)()
    empty.initialize(2, generator(0))
    assert torch.equal(empty(), expected)


@every
def test_double_precision_stays(made: type[Image]) -> None:
    image = started(made).double()
    assert image().dtype == torch.float64
    np.testing.assert_allclose(image().detach().numpy(), started(made)().detach().numpy(), atol=1e-5)
    assert image.half()().dtype == torch.float64


@every
def test_double_precision_asked_for_before_the_pictures_are_there_stays(made: type[Image]) -> None:
    image = made((5, 6), deviation=0.5, **CASES[made]).double()
    image.initialize(2, generator(0))
    assert image().dtype == torch.float64
    np.testing.assert_allclose(image().detach().numpy(), started(made)().detach().numpy(), atol=1e-5)


@every
@pytest.mark.parametrize("default", [torch.bfloat16, torch.float16, torch.float64])
def test_the_program_s_default_precision_changes_no_picture(made: type[Image], default: torch.dtype) -> None:
    # Lightning sets it around the steps of a run with precision="bf16-true" or "64-true".
    expected = started(made)().detach()
    torch.set_default_dtype(default)
    try:
        image = started(made)
        shown = image().detach()
    finally:
        torch.set_default_dtype(torch.float32)
    assert shown.dtype == (torch.float64 if default == torch.float64 else torch.float32)
    np.testing.assert_allclose(shown.numpy(), expected.numpy(), atol=1e-6)


@every
@pytest.mark.parametrize(("size", "channels"), [((3, 4), 3), ((4, 3), 1), ((1, 2), 2)])
def test_decoding_is_differentiable(made: type[Image], size: tuple[int, int], channels: int) -> None:
    image = made(size, 2, channels, **CASES[made]).double()
    weight = torch.randn(2, *image.weight_shape(), dtype=torch.float64, generator=generator(0)).requires_grad_(True)

    def decoded(own: Tensor) -> Tensor:
        return torch.func.functional_call(image, {"weight": own}, ())  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(decoded, weight)


@every
def test_a_step_up_the_gradient_raises_one_picture_and_no_other(made: type[Image]) -> None:
    image = started(made, count=2)
    ascent = torch.optim.SGD(image.parameters(), lr=0.1, maximize=True)
    before = image().detach().clone()
    ascent.zero_grad()
    image()[0].sum().backward()
    ascent.step()
    assert float(image()[0].detach().sum()) > float(before[0].sum())
    assert torch.equal(image()[1], before[1]), "one picture's gradient does not move another"


@every
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": 0}, ValueError, "size must be at least 1, got 0"),
        ({"size": (4, -1)}, ValueError, "size must be at least 1, got -1"),
        ({"size": (4, 5, 6)}, ValueError, r"size must be one number or \(height, width\), got \(4, 5, 6\)"),
        ({"size": 4.5}, TypeError, "size must be a whole number of at least 1, got 4.5"),
        ({"size": "8"}, TypeError, "size must be a whole number of at least 1, got '8'"),
        ({"channels": 0}, ValueError, "channels must be at least 1, got 0"),
        ({"count": 0}, ValueError, "count must be at least 1, got 0"),
        ({"count": True}, TypeError, "count must be a whole number of at least 1, got True"),
        ({"deviation": -0.1}, ValueError, "deviation must be at least 0, got -0.1"),
        ({"deviation": float("nan")}, ValueError, "deviation must be at least 0, got nan"),
        ({"color": "lab"}, ValueError, "color: unknown colour space 'lab'"),
        ({"color": "imagenet", "channels": 1}, ValueError, "color: a matrix of shape .* does not fit 1 channels"),
        ({"color": torch.ones(3, 3)}, ValueError, "color: the matrix cannot be inverted"),
    ],
)
def test_bad_arguments_are_named(made: type[Image], arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made(**{"size": 8, **CASES[made], **arguments})


@every
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([[0.5]], TypeError, r"image must be a tensor \(C, H, W\) or \(N, C, H, W\) in \[0, 1\], got list"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), ValueError, "image must be floats .*, got torch.uint8 of shape"),
        (torch.zeros(4, 4), ValueError, r"image must be floats .* of shape \(4, 4\)"),
        (torch.zeros(0, 3, 4, 4), ValueError, r"image must be floats .* of shape \(0, 3, 4, 4\)"),
        (torch.full((3, 4, 4), 1.5), ValueError, r"image must lie in \[0, 1\], got values from 1.5 to 1.5"),
        (torch.full((3, 4, 4), -0.5), ValueError, r"image must lie in \[0, 1\]"),
        (torch.full((3, 4, 4), float("nan")), ValueError, r"image must lie in \[0, 1\]"),
    ],
)
def test_what_cannot_start_a_picture_is_refused(made: type[Image], given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made.from_image(given)


@every
def test_a_start_that_does_not_fit_is_refused(made: type[Image]) -> None:
    image = made((5, 6), 2, **CASES[made])
    with pytest.raises(ValueError, match=r"image: shape \(3, 6, 5\) does not fit pictures of \(3, 5, 6\)"):
        image.start_from(torch.zeros(3, 6, 5))
    with pytest.raises(ValueError, match="image: 3 pictures do not fit 2"):
        image.start_from(torch.zeros(3, 3, 5, 6))
    assert not bool(image.initialized)


@every
def test_counts_that_do_not_fit_are_refused(made: type[Image]) -> None:
    image = made(8, **CASES[made])
    with pytest.raises(RuntimeError, match="the image holds no pictures yet"):
        image()
    with pytest.raises(ValueError, match="generator: 1 generators do not fit 2 pictures"):
        image.initialize(2, [generator(0)])
    image.allocate(2)
    assert image.count == 2
    with pytest.raises(ValueError, match="count: the image holds 2 pictures, but the objective asks for 3"):
        image.initialize(3, generator(0))
