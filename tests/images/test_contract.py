"""What every parameterization promises. A class that is exported without an entry in the table below fails."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentParser
from torch import Tensor
from toys import adam, toy

from featviz_pl import images
from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import (
    CPPNImage,
    FourierImage,
    Image,
    InterpolationBasisImage,
    LaplacianPyramidImage,
    LatentImage,
    MacoImage,
    MultiResolutionImage,
    PixelImage,
    SharedImage,
)
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel


@dataclass(frozen=True)
class Case:
    """How a parameterization is built here, and which promises it cannot keep."""

    arguments: dict[str, Any]  # that differ from the defaults, so that forgetting one shows
    state: set[str] = field(default_factory=lambda: {"weight", "initialized"})  # what a checkpoint holds
    starts: str = ""  # why a picture does not come back
    joint: str = ""  # why a picture depends on its companions
    counts: tuple[int, ...] = (1, 3)


CASES: dict[type[Image], Case] = {
    CPPNImage: Case(
        {"width": 5, "depth": 2, "activation": "unbiased", "tile": True},
        starts="a network that draws a picture would have to be trained",
    ),
    FourierImage: Case({"decay": 1.25}),
    InterpolationBasisImage: Case(
        {"objectives": 2, "steps": 3},
        state={"constant", "examples", "between", "initialized"},
        starts="the pictures share their parts, so they can all be one picture only; see test_interpolation_basis.py",
        joint="the pictures share their parts",
        counts=(12,),
    ),
    LaplacianPyramidImage: Case({"levels": 3}),
    MacoImage: Case(
        {},  # its spectrum has to fit the size: see `make`
        state={"weight", "initialized", "transparency", "phase_mean", "phase_deviation"},
        starts="the magnitude is the template's; see test_maco.py",
    ),
    MultiResolutionImage: Case({"interpolation": "bilinear"}),
    PixelImage: Case({}),
    SharedImage: Case(
        {"shared": [(1, 2), (2, 3)], "own_weight": 0.75},
        state={"shared", "initialized", "image.weight", "image.initialized"},
        joint="the pictures share low-resolution parts",
    ),
}
SIZES = [(8, 8), (5, 7), (6, 9), (9, 4)]


def among(*wanted: type[Image]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("made", wanted, ids=lambda made: made.__name__)


every = among(*CASES)
every_latent = among(*(made for made in CASES if issubclass(made, LatentImage)))
every_start = among(*(made for made, case in CASES.items() if not case.starts))
every_independent = among(*(made for made, case in CASES.items() if not case.joint))
COUNTED = [(made, count) for made, case in CASES.items() for count in case.counts]
every_count = pytest.mark.parametrize(("made", "count"), COUNTED, ids=lambda value: getattr(value, "__name__", value))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, channels: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Draw pictures that hold 0 and 1 too."""
    drawn = torch.rand(count, channels, *size, generator=generator(seed))
    drawn[:, :, 0, 0], drawn[:, :, -1, -1] = 0.0, 1.0
    return drawn


def spectrum(channels: int, size: tuple[int, int]) -> Tensor:
    """Return a magnitude that falls with frequency."""
    lengths = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None])
    return torch.from_numpy(1 / (lengths + 0.2)).expand(channels, -1, -1)


def make(
    made: type[Image], size: tuple[int, int] = (5, 6), count: int | None = None, channels: int = 3, **more: Any
) -> Image:
    own = CASES[made].arguments
    if made is SharedImage:
        return SharedImage(PixelImage(size, count, channels, **more), deviation=0.5, **own)
    if made is InterpolationBasisImage:
        return InterpolationBasisImage(size=size, channels=channels, **{**own, **more})
    if made is MacoImage:
        more = {"spectrum": spectrum(channels, size), **more}
    built: Any = made
    image: Image = built(size, count, channels, **{**own, **more})
    return image


def awake(image: Image) -> Image:
    """Give the last layer of a CPPN weights: it starts from zero, so every first picture of it is grey."""
    if isinstance(image, CPPNImage) and image.weight is not None:
        elements = image.channels * (2 * image.width + 1)
        with torch.no_grad():
            image.weight[:, -elements:] = torch.randn(elements, generator=generator(99), dtype=torch.float32)
    return image


def started(made: type[Image], count: int | None = None, seed: int = 0, **more: Any) -> Image:
    image = make(made, **{"deviation": 0.5, **more})
    image.initialize(count or two(made), generator(seed))
    return awake(image)


def two(made: type[Image]) -> int:
    """Return two pictures, or as many as there must be."""
    return 2 if 1 in CASES[made].counts else CASES[made].counts[0]


def started_from(made: type[Image], given: Tensor, **more: Any) -> Image:
    batch = given if given.ndim == 4 else given[None]
    image = make(made, (batch.shape[2], batch.shape[3]), len(batch), batch.shape[1], **more)
    image.start_from(given)
    return image


def test_every_exported_class_is_in_the_table() -> None:
    exported = [getattr(images, name) for name in images.__all__]
    concrete = {
        listed
        for listed in exported
        if isinstance(listed, type) and issubclass(listed, Image) and not inspect.isabstract(listed)
    }
    assert set(CASES) <= concrete
    # Images made of other images cannot be built from a size alone; each has these promises in a file of its own beside
    # this one.
    elsewhere = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py") if file != Path(__file__))
    for made in concrete - set(CASES):
        assert made.__name__ in elsewhere, f"{made.__name__} has neither an entry in the table nor tests of its own"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 7])
@every_count
def test_pictures_have_the_shape_asked_for_and_lie_between_0_and_1(
    made: type[Image], count: int, channels: int, size: tuple[int, int]
) -> None:
    image = make(made, size, count, channels, deviation=3.0)
    image.initialize(count, generator(0))
    shown = awake(image)().detach()
    assert shown.shape == (count, channels, *size)
    assert shown.dtype == torch.float32
    assert 0.0 <= float(shown.min()) < float(shown.max()) <= 1.0


@every_start
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("count", [1, 3])
def test_a_picture_comes_back_within_a_thousandth(
    made: type[Image], count: int, channels: int, size: tuple[int, int]
) -> None:
    given = pictures(count, channels, size)
    image = started_from(made, given)
    assert image.count == count
    np.testing.assert_allclose(image().detach().numpy(), given.numpy(), rtol=0, atol=1e-3)


@every_start
@pytest.mark.parametrize("color", ["none", "imagenet", "i1i2i3", [[1.0, 0.2, 0.0], [0.0, 1.0, 0.5], [0.3, 0.0, -1.0]]])
def test_a_picture_comes_back_in_any_color_space(made: type[Image], color: Any) -> None:
    given = pictures(2, 3, (5, 4))
    np.testing.assert_allclose(
        started_from(made, given, color=color)().detach().numpy(), given.numpy(), rtol=0, atol=1e-3
    )


@among(FourierImage, LaplacianPyramidImage, PixelImage)
@pytest.mark.parametrize("color", ["none", "imagenet", "i1i2i3"])
def test_a_picture_comes_back_through_a_clip(made: type[Image], color: str) -> None:
    given = pictures(2, 3, (5, 4))
    image = started_from(made, given, color=color, squash="clip")
    np.testing.assert_allclose(image().detach().numpy(), given.numpy(), rtol=0, atol=1e-3)
    assert "squash='clip'" in repr(image)
    with pytest.raises(ValueError, match=r"squash: unknown squash 'clamp'; did you mean 'clip'"):
        make(made, squash="clamp")


@every_start
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("squash", ["sigmoid", "clip"])
def test_black_and_white_pictures_can_start_one(made: type[Image], value: float, squash: str) -> None:
    chosen = {"squash": squash} if made is not MultiResolutionImage else {}  # its squash is the tanh of the source
    image = started_from(made, torch.full((3, 5, 5), value), **chosen)
    np.testing.assert_allclose(image().detach().numpy(), value, rtol=0, atol=1e-3)
    image().sum().backward()
    assert any(bool(weight.grad.any()) for weight in image.parameters() if weight.grad is not None), (
        "a saturated picture can still move"
    )


@every_start
def test_a_single_picture_of_double_or_half_precision_can_start_one(made: type[Image]) -> None:
    given = pictures(1, 3, (5, 6))[0]
    for dtype, tolerance in ((torch.float64, 1e-3), (torch.float16, 2e-3)):
        image = started_from(made, given.to(dtype))
        assert image().dtype == torch.float32
        np.testing.assert_allclose(image()[0].detach().numpy(), given.numpy(), rtol=0, atol=tolerance)


@every_start
def test_one_picture_starts_all(made: type[Image]) -> None:
    given = pictures(1, 3, (5, 6))[0]
    image = make(made, (5, 6), 3)
    image.start_from(given)
    np.testing.assert_allclose(image().detach().numpy(), given.expand(3, -1, -1, -1).numpy(), rtol=0, atol=1e-3)


@every_start
def test_a_started_picture_is_not_drawn_again(made: type[Image]) -> None:
    image = started_from(made, pictures(2, 3, (5, 6)))
    before = image().detach().clone()
    image.initialize(2, generator(7))
    assert torch.equal(image(), before)


@every_start
def test_the_caller_s_picture_is_left_alone(made: type[Image]) -> None:
    given = pictures(1, 3, (5, 6))
    kept = given.clone()
    image = started_from(made, given)
    with torch.no_grad():
        for weight in image.parameters():
            weight.fill_(9.0)
    assert torch.equal(given, kept)


@among(FourierImage, LaplacianPyramidImage, MultiResolutionImage, PixelImage)
def test_pictures_become_images_in_one_call(made: type[LatentImage]) -> None:
    given = pictures(2, 3, (5, 6))
    image = made.from_image(given, **CASES[made].arguments)
    assert type(image) is made
    np.testing.assert_allclose(image().detach().numpy(), given.numpy(), rtol=0, atol=1e-3)


@every
def test_nothing_is_drawn_when_built(made: type[Image]) -> None:
    before = torch.get_rng_state()
    one, other = make(made, (8, 8), two(made)), make(made, (8, 8), two(made))
    assert torch.equal(one(), other())
    assert not bool(one.initialized)
    started(made)
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_initialising_twice_changes_nothing(made: type[Image]) -> None:
    image = started(made, seed=0)
    before = image().detach().clone()
    image.initialize(two(made), generator(1))
    assert torch.equal(image(), before)
    assert not torch.equal(started(made, seed=1)(), before), "another seed draws another picture"


@every_independent
def test_a_picture_does_not_depend_on_its_companions(made: type[Image]) -> None:
    together = make(made, deviation=0.5)
    together.initialize(3, [generator(seed) for seed in (4, 5, 6)])
    awake(together)
    for place, seed in enumerate((4, 5, 6)):
        alone = make(made, deviation=0.5)
        alone.initialize(1, [generator(seed)])
        awake(alone)
        for own, all_of_them in zip(alone.parameters(), together.parameters()):
            assert torch.equal(own[0], all_of_them[place])
        torch.testing.assert_close(alone()[0], together()[place])
    assert not torch.equal(together()[0], together()[1])


@every_independent
def test_a_picture_s_gradient_does_not_depend_on_its_companions(made: type[Image]) -> None:
    # The weight of a pixel in the loss stands for a network: every pixel has its own.
    together = make(made, deviation=0.5).double()
    together.initialize(3, [generator(seed) for seed in (4, 5, 6)])
    importance = torch.randn(3, 3, 5, 6, dtype=torch.float64, generator=generator(0))
    (awake(together)().square() * importance).sum().backward()
    for place, seed in enumerate((4, 5, 6)):
        alone = make(made, deviation=0.5).double()
        alone.initialize(1, [generator(seed)])
        (awake(alone)().square() * importance[place]).sum().backward()
        for own, all_of_them in zip(alone.parameters(), together.parameters()):
            assert own.grad is not None
            assert all_of_them.grad is not None
            np.testing.assert_allclose(own.grad[0].numpy(), all_of_them.grad[place].numpy(), rtol=0, atol=1e-10)


@every
def test_one_generator_draws_different_pictures(made: type[Image]) -> None:
    shown = started(made, count=3 if two(made) == 2 else None)()
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
                weight.mul_(torch.linspace(0.5, 1.5, weight.shape[-1]))
        assert torch.equal(image(), before)
        assert not torch.equal(copied(), before)


@every
def test_an_image_without_pictures_can_be_copied_too(made: type[Image]) -> None:
    image = make(made, deviation=0.5)
    for copied in (pickle.loads(pickle.dumps(image)), copy.deepcopy(image)):
        copied.initialize(two(made), generator(0))
        assert torch.equal(awake(copied)(), started(made)())


@every
def test_a_state_dict_fills_a_fresh_image(made: type[Image]) -> None:
    count = CASES[made].counts[-1]
    image, fresh = started(made, count), make(made)
    assert fresh.count in (None, count)
    fresh.load_state_dict(image.state_dict())
    assert fresh.count == count
    assert torch.equal(fresh(), image())
    fresh.initialize(count, generator(9))
    assert torch.equal(fresh(), image()), "what came from a checkpoint is not drawn again"


@every
def test_a_state_dict_fills_an_image_inside_another_module(made: type[Image]) -> None:
    outer, fresh = torch.nn.Module(), torch.nn.Module()
    outer.image, fresh.image = started(made), make(made)
    fresh.load_state_dict(outer.state_dict())
    assert torch.equal(fresh.image(), outer.image())


@every
def test_a_state_dict_of_another_size_or_count_is_refused(made: type[Image]) -> None:
    if made is not CPPNImage:  # the same network draws every size; see test_cppn.py
        with pytest.raises(RuntimeError, match=r"weight|constant"):
            make(made, (5, 8)).load_state_dict(started(made).state_dict())
    if 1 in CASES[made].counts:
        with pytest.raises(RuntimeError, match=r"size mismatch for (image\.)?weight"):
            make(made, (5, 6), 1).load_state_dict(started(made).state_dict())


@every
def test_checkpoints_hold_what_is_trained_and_no_constants(made: type[Image]) -> None:
    assert set(started(made).state_dict()) == CASES[made].state


@every
def test_repr_tells_images_apart(made: type[Image]) -> None:
    shown = repr(make(made, (5, 6), 2, 1, color="auto", deviation=0.125))
    assert shown.startswith(f"{made.__name__}(")
    assert "\n" not in shown
    counted = [] if made is InterpolationBasisImage else ["count=2"]
    for part in ("size=(5, 6)", *counted, "channels=1", "color='auto'", "deviation=0.125"):
        assert part in shown
    assert "color='own'" in repr(make(made, (4, 4), color=torch.eye(3)))
    for name, value in CASES[made].arguments.items():
        assert f"{name}={value!r}" in shown


@every
@pytest.mark.filterwarnings(
    "ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning"
)  # instantiate_classes, since 4.53
def test_a_configuration_file_builds_it(made: type[Image]) -> None:
    listed = {
        name: [list(part) for part in value] if name == "shared" else value
        for name, value in CASES[made].arguments.items()
    }
    own = (
        {"image": {"class_path": "PixelImage", "init_args": {"size": [5, 6]}}, **listed}
        if made is SharedImage
        else {"size": [5, 6], **listed}
    )
    if made is MacoImage:
        own["spectrum"] = "natural"
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--image", type=Image)
    config = parser.parse_string(
        yaml.safe_dump({"image": {"class_path": f"featviz_pl.images.{made.__name__}", "init_args": own}})
    )
    built = parser.instantiate_classes(config).image
    assert type(built) is made
    assert built.size == (5, 6)
    for name, value in CASES[made].arguments.items():
        assert f"{name}={value!r}" in repr(built)
    built.initialize(two(made), generator(0))
    assert built().shape == (two(made), 3, 5, 6)


@every
@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_reduced_precision_is_raised_to_float32(made: type[Image], name: str) -> None:
    image, expected = started(made), started(made)()
    assert getattr(image, name)() is image
    assert image().dtype == torch.float32
    assert torch.equal(image(), expected), "nothing was rounded on the way"
    empty = getattr(make(made, deviation=0.5), name)()
    empty.initialize(two(made), generator(0))
    assert torch.equal(awake(empty)(), expected)


@every
def test_double_precision_stays(made: type[Image]) -> None:
    image = started(made).double()
    assert image().dtype == torch.float64
    np.testing.assert_allclose(image().detach().numpy(), started(made)().detach().numpy(), atol=1e-5)
    assert image.half()().dtype == torch.float64


@every
def test_double_precision_asked_for_before_the_pictures_are_there_stays(made: type[Image]) -> None:
    image = make(made, deviation=0.5).double()
    image.initialize(two(made), generator(0))
    assert awake(image)().dtype == torch.float64
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
def test_an_image_built_without_gradients_can_be_trained(made: type[Image]) -> None:
    with torch.inference_mode():
        image = make(made, count=two(made), deviation=0.5)
        assert image().shape[0] == two(made)
    image.initialize(two(made), generator(0))
    awake(image)().sum().backward()
    assert any(weight.grad is not None and bool(weight.grad.any()) for weight in image.parameters())


@every
@pytest.mark.parametrize(("size", "channels"), [((3, 4), 3), ((4, 3), 1), ((1, 2), 2)])
def test_decoding_is_differentiable(made: type[Image], size: tuple[int, int], channels: int) -> None:
    image = make(made, size, two(made), channels).double()
    names = [name for name, _ in image.named_parameters()]
    draw = generator(0)
    weights = tuple(
        torch.randn(own.shape, dtype=torch.float64, generator=draw).requires_grad_(True) for own in image.parameters()
    )

    def decoded(*own: Tensor) -> Tensor:
        return torch.func.functional_call(image, dict(zip(names, own)), ())  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(decoded, weights)


@every_independent
def test_a_step_up_the_gradient_raises_one_picture_and_no_other(made: type[Image]) -> None:
    image = started(made)
    ascent = torch.optim.SGD(image.parameters(), lr=0.1, maximize=True)
    before = image().detach().clone()
    ascent.zero_grad()
    image()[0].sum().backward()
    ascent.step()
    assert float(image()[0].detach().sum()) > float(before[0].sum())
    assert torch.equal(image()[1], before[1]), "one picture's gradient does not move another"


@every_count
def test_pictures_climb_on_a_network(made: type[Image], count: int) -> None:
    image = make(made, (12, 9), count)
    problem = Ascent(image, FrozenNetwork(toy()), Channel("features.5", [place % 8 for place in range(count)]), seed=1)
    problem.initialize()
    problem.prepare()
    before = problem.scores()
    climb = ascend(problem, steps=12, optimizer=adam(0.05)) - before
    # Pictures that share their parts also share what moves them: then the sum is what climbs.
    assert float(climb.mean() if CASES[made].joint else climb.min()) > 1e-3


@every_latent
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
        ({"color": "lab"}, ValueError, "color: unknown color space 'lab'"),
        ({"color": "imagenet", "channels": 1}, ValueError, "color: a matrix of shape .* does not fit 1 channels"),
        ({"color": torch.ones(3, 3)}, ValueError, "color: the matrix cannot be inverted"),
    ],
)
def test_bad_arguments_are_named(
    made: type[LatentImage], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    own = {"spectrum": torch.ones(3, 8, 5)} if made is MacoImage else CASES[made].arguments
    with pytest.raises(error, match=message):
        made(**{"size": 8, **own, **arguments})


@every_latent
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
def test_what_cannot_start_a_picture_is_refused(
    made: type[LatentImage], given: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        made.from_image(given)


@every_independent
def test_a_start_that_does_not_fit_is_refused(made: type[Image]) -> None:
    image = make(made, (5, 6), 2)
    with pytest.raises(ValueError, match=r"image: shape \(3, 6, 5\) does not fit pictures of \(3, 5, 6\)"):
        image.start_from(torch.zeros(3, 6, 5))
    with pytest.raises(ValueError, match="image: 3 pictures do not fit 2"):
        image.start_from(torch.zeros(3, 3, 5, 6))
    assert not bool(image.initialized)


@every
def test_counts_that_do_not_fit_are_refused(made: type[Image]) -> None:
    image, count = make(made), two(made)
    if 1 in CASES[made].counts:
        with pytest.raises(RuntimeError, match="the image holds no pictures yet"):
            image()
    with pytest.raises(ValueError, match=f"generator: 1 generators do not fit {count} pictures"):
        image.initialize(count, [generator(0)])
    image.allocate(count)
    assert image.count == count
    with pytest.raises(ValueError, match=rf"count: the image holds {count} pictures.*, but the objective asks for 17"):
        image.initialize(17, generator(0))
