"""What every transform promises. A class that is exported without an entry in the table below fails."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, Uniform
from torchvision.transforms import v2

from featviz_pl import transforms
from featviz_pl.transforms import (
    Background,
    Blur,
    Choice,
    ColorShift,
    Compose,
    Crop,
    CropOrPad,
    Flip,
    GeometricTransform,
    Jitter,
    MeshView,
    Noise,
    NormalizeGradient,
    Pad,
    Roll,
    Rotate,
    Scale,
    Torchvision,
    Transform,
)


@dataclass(frozen=True)
class Case:
    """Say what a class does differently from the others, and why.

    Args:
        make: one that draws different things.
        other: the same with other ranges.
        random: False where nothing is drawn at all.
        bounded: False where results are meant to leave [0, 1].
        alpha: True where the last channel of the picture is its alpha, and goes.
        size: of the result, where it is fixed.
        differentiable: False where the gradient is meant to be another one than that of what is shown.
        still: False where strength 0 cannot show the picture as it is.
    """

    make: Callable[[], Transform]
    other: Callable[[], Transform]
    random: bool = True
    bounded: bool = True
    alpha: bool = False
    size: tuple[int, int] | None = None
    differentiable: bool = True
    still: bool = True


CASES: dict[type[Transform], Case] = {
    Jitter: Case(lambda: Jitter(2), lambda: Jitter(3)),
    Scale: Case(lambda: Scale(Choice([0.8, 1.0, 1.3])), lambda: Scale(Choice([0.9, 1.0, 1.1]))),
    Rotate: Case(lambda: Rotate(Choice([-30.0, 0.0, 10.0, 90.0])), lambda: Rotate([0.0, 5.0])),
    Flip: Case(lambda: Flip(), lambda: Flip(0.25)),
    Crop: Case(lambda: Crop(side=Choice([0.2, 0.5, 0.9]), end=0.1), lambda: Crop("anywhere")),
    Pad: Case(lambda: Pad(2, "grey"), lambda: Pad(3, "grey")),
    CropOrPad: Case(
        lambda: CropOrPad((5, 8)), lambda: CropOrPad((5, 8), value=0.0), random=False, size=(5, 8), still=False
    ),
    Roll: Case(lambda: Roll(2), lambda: Roll(3)),
    Blur: Case(lambda: Blur(Choice([0.0, 0.6, 1.4])), lambda: Blur(1.0, kernel=5)),
    Noise: Case(lambda: Noise(0.2, uniform=0.1, end=0.0), lambda: Noise(0.2, channelwise=True), bounded=False),
    ColorShift: Case(lambda: ColorShift(end=0.5), lambda: ColorShift(0.5, 0.1), bounded=False),
    MeshView: Case(
        lambda: MeshView("sphere", (5, 8), distance=[3.0, 6.0], field_of_view=40.0),
        lambda: MeshView("cube", (5, 8), distance=4.0, field_of_view=40.0),
        size=(5, 8),
        still=False,
    ),
    # Something must be behind a transparent picture, at any strength.
    Background: Case(lambda: Background("noise"), lambda: Background("random", color=0.25), alpha=True, still=False),
    NormalizeGradient: Case(
        lambda: NormalizeGradient(), lambda: NormalizeGradient(), random=False, differentiable=False
    ),
    Torchvision: Case(
        lambda: Torchvision(v2.RandomAffine(20.0, translate=(0.2, 0.2))),
        lambda: Torchvision(v2.RandomHorizontalFlip(p=0.25)),
    ),
    Compose: Case(
        lambda: Compose([Pad(2), Jitter(2), Rotate(Choice([-20.0, 0.0, 20.0])), Scale(Choice([0.8, 1.0, 1.3]))]),
        lambda: Compose([Jitter(1)]),
    ),
}
# The same classes with other ways to draw; every test but those of the table itself runs on them too.
MORE: dict[str, Case] = {
    "Jitter of a distribution": Case(lambda: Jitter(normal(0.0, 2.0)), lambda: Jitter(1)),
    "Scale of a distribution": Case(lambda: Scale(uniform(0.8, 1.3)), lambda: Scale(Choice([1]))),
    "Rotate of a distribution": Case(lambda: Rotate(normal(0.0, 20.0)), lambda: Rotate(1)),
    "Blur of a distribution": Case(lambda: Blur(uniform(0.5, 1.0), kernel=3), lambda: Blur(1.0)),
    "Crop anywhere": Case(lambda: Crop("anywhere", side=normal(0.5, 0.3), end=normal(0.1, 0.3)), lambda: Crop()),
    "Noise of channels": Case(lambda: Noise(0.2, channelwise=True), lambda: Noise(0.2), bounded=False),
    "Background of a color": Case(lambda: Background("random"), lambda: Background(), alpha=True, still=False),
    "Composition of everything": Case(
        lambda: Compose(
            [
                Background(),
                Pad(2),
                Jitter(1),
                Crop(),
                Blur(0.5),
                Noise(0.1),
                Torchvision(v2.RandomHorizontalFlip()),
                Roll(1),
                Flip(),
            ]
        ),
        lambda: Compose([]),
        bounded=False,
        alpha=True,
        still=False,
    ),
}

ALL = {made.__name__: case for made, case in CASES.items()} | MORE
every = pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())


def normal(mean: float, deviation: float) -> Normal:
    return Normal(torch.tensor(mean, dtype=torch.float32), torch.tensor(deviation, dtype=torch.float32))


def uniform(low: float, high: float) -> Uniform:
    return Uniform(torch.tensor(low, dtype=torch.float32), torch.tensor(high, dtype=torch.float32))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(
    count: int = 3, channels: int = 3, size: tuple[int, int] = (6, 7), dtype: torch.dtype = torch.float64
) -> Tensor:
    return torch.rand(count, channels, *size, generator=generator(99), dtype=dtype)


def suited(
    case: Case, count: int = 3, channels: int = 3, size: tuple[int, int] = (6, 7), dtype: torch.dtype = torch.float64
) -> Tensor:
    """Return pictures of so many colors, with the alpha that some need."""
    return pictures(count, channels + case.alpha, size, dtype)


def leaves(parameters: Any) -> list[Tensor]:
    return [leaf for part in parameters for leaf in leaves(part)] if isinstance(parameters, tuple) else [parameters]


def row_of(parameters: Any, row: int) -> Any:
    return (
        tuple(row_of(part, row) for part in parameters) if isinstance(parameters, tuple) else parameters[row : row + 1]
    )


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(left, right) for left, right in zip(leaves(one), leaves(other), strict=True))


def test_every_exported_transform_is_in_the_table() -> None:
    exported = [getattr(transforms, name) for name in transforms.__all__]
    classes = [listed for listed in exported if isinstance(listed, type) and issubclass(listed, Transform)]
    assert {listed for listed in classes if not inspect.isabstract(listed)} == set(CASES)
    for listed, case in CASES.items():
        assert type(case.make()) is type(case.other()) is listed


@every
def test_draws_come_from_the_given_generator_and_nothing_else(case: Case) -> None:
    transform = case.make()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        first = transform.sample(generator(), 50)
        torch.default_generator.manual_seed(2)
        before = torch.get_rng_state()
        assert same(transform.sample(generator(), 50), first)
        assert torch.equal(torch.get_rng_state(), before)
    if not case.random:
        return
    assert not same(transform.sample(generator(1), 50), first)
    own = generator()
    transform.sample(own, 50)
    assert not same(transform.sample(own, 50), first), "the generator goes on from draw to draw"


@every
@pytest.mark.parametrize("n", [1, 4])
def test_parameters_are_plain_tensors_with_one_row_for_each_view(case: Case, n: int) -> None:
    for leaf in leaves(case.make().sample(generator(), n)):
        assert leaf.shape[0] == n
        assert leaf.dtype in (torch.float32, torch.int64)  # whole numbers are seeds
        assert not leaf.requires_grad
        assert leaf.device.type == "cpu"


@every
@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_draws_do_not_depend_on_the_program_s_default_precision(case: Case, default: torch.dtype) -> None:
    # Lightning sets it around the steps of a run with precision="bf16-true" or "64-true".
    transform, image = case.make(), suited(case, dtype=torch.float32)
    expected = transform.sample(generator(), 3)
    shown = transform.apply(image, transform.at(expected, 0.5))
    torch.set_default_dtype(default)
    try:
        again = case.make()
        found = again.sample(generator(), 3)
        shown_again = again.apply(image, again.at(found, 0.5))
    finally:
        torch.set_default_dtype(torch.float32)
    assert same(found, expected)
    assert shown_again.dtype == torch.float32
    assert torch.equal(shown_again, shown)


@every
def test_apply_is_a_pure_function(case: Case) -> None:
    transform, image = case.make(), suited(case)
    parameters = transform.sample(generator(), 3)
    kept_image, kept_parameters, before = image.clone(), copy.deepcopy(parameters), torch.get_rng_state()
    first = transform.apply(image, parameters)
    transform.apply(suited(case).flip(0), transform.sample(generator(5), 3))
    assert torch.equal(transform.apply(image, parameters), first)
    assert torch.equal(transform(image, generator()), first), "a call draws and applies"
    assert torch.equal(image, kept_image)
    assert same(parameters, kept_parameters)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(case.make().apply(image, parameters), first), "another one of the same ranges replays the view"


@every
@pytest.mark.parametrize(
    ("count", "channels", "size"), [(1, 1, (5, 5)), (2, 3, (8, 5)), (3, 7, (4, 9)), (1, 3, (1, 1))]
)
def test_pictures_of_any_shape_are_seen_whole(case: Case, count: int, channels: int, size: tuple[int, int]) -> None:
    if case.alpha and channels == 7:
        pytest.skip("pictures with an alpha have one or three colors")
    view = case.make()(suited(case, count, channels, size), generator())
    assert view.shape == (count, channels, *(case.size or case.make().output_size(size)))
    assert torch.isfinite(view).all()
    if case.bounded:
        assert -1e-12 <= float(view.min()) <= float(view.max()) <= 1.0 + 1e-12


@every
def test_float32_and_float64_stay_and_less_is_raised(case: Case) -> None:
    transform = case.make()
    parameters = transform.sample(generator(), 3)
    exact = transform.apply(suited(case), parameters)
    assert exact.dtype == torch.float64
    single = transform.apply(suited(case).float(), parameters)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=1e-6, atol=1e-5)
    for reduced in (torch.float16, torch.bfloat16):
        rounded = suited(case).to(reduced)
        view = transform.apply(rounded, parameters)
        assert view.dtype == torch.float32
        assert torch.equal(view, transform.apply(rounded.float(), parameters))


@every
def test_autocast_changes_nothing(case: Case) -> None:
    transform, image = case.make(), suited(case, dtype=torch.float32)
    parameters = transform.sample(generator(), 3)
    expected = transform.apply(image, parameters)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(transform.apply(image, parameters), expected)


@every
def test_apply_is_differentiable(case: Case) -> None:
    transform = case.make()
    parameters = transform.sample(generator(2), 2)
    image = suited(case, 2, 1, (4, 3)).requires_grad_(True)
    if case.differentiable:
        assert torch.autograd.gradcheck(lambda given: transform.apply(given, parameters), image)
    else:
        assert transform.apply(image, parameters).requires_grad


@every
def test_a_view_and_its_gradient_do_not_depend_on_its_companions(case: Case) -> None:
    transform, image = case.make(), suited(case).requires_grad_(True)
    parameters = transform.sample(generator(), 3)
    together = transform.apply(image, parameters)
    for row in range(3):
        alone = transform.apply(image[row : row + 1], row_of(parameters, row))
        torch.testing.assert_close(alone, together[row : row + 1])
    # Other weights for the companions, as other objectives would have.
    weights = torch.rand(together.shape, generator=generator(3), dtype=torch.float64)
    for factor in (1.0, 100.0):
        companions = torch.tensor([1.0, factor, factor], dtype=torch.float64).view(3, 1, 1, 1)
        (found,) = torch.autograd.grad((together * weights * companions).sum(), image, retain_graph=True)
        alone = image[:1].detach().clone().requires_grad_(True)
        (expected,) = torch.autograd.grad((transform.apply(alone, row_of(parameters, 0)) * weights[:1]).sum(), alone)
        torch.testing.assert_close(found[:1], expected, rtol=1e-10, atol=1e-10)


@every
def test_full_strength_changes_nothing_and_none_shows_the_picture(case: Case) -> None:
    transform = case.make()
    parameters = transform.sample(generator(), 20)
    assert same(transform.weaken(parameters, 1.0), parameters)
    still = transform.weaken(parameters, 0.0)
    parts = list(zip(transform.listed(), still)) if isinstance(transform, Compose) else [(transform, still)]
    for part, own in parts:
        if isinstance(part, GeometricTransform):
            # What is shown may be blurred, always by what the strongest draw needs.
            torch.testing.assert_close(part.matrix(own, (6, 7)), torch.eye(3).expand(20, 3, 3), rtol=0, atol=1e-7)
        elif case.still:
            image = pictures(20)
            torch.testing.assert_close(part.apply(image, own), image, rtol=0, atol=1e-12)


@every
@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_ranges_that_move_are_pure_functions_of_the_progress(case: Case, progress: float) -> None:
    transform = case.make()
    parameters = transform.sample(generator(), 5)
    kept = copy.deepcopy(parameters)
    moved = transform.at(parameters, progress)
    assert same(parameters, kept)
    assert same(transform.at(parameters, progress), moved)
    assert [leaf.shape for leaf in leaves(moved)] == [leaf.shape for leaf in leaves(parameters)]
    assert [leaf.dtype for leaf in leaves(moved)] == [leaf.dtype for leaf in leaves(parameters)]
    if progress == 0:
        assert same(moved, parameters)
    for row in range(5):
        assert same(transform.at(row_of(parameters, row), progress), row_of(moved, row))


@every
def test_transforms_survive_pickle_and_deepcopy(case: Case) -> None:
    transform, image = case.make(), suited(case)
    for copied in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        assert repr(copied) == repr(transform)
        assert torch.equal(copied(image, generator(7)), transform(image, generator(7)))


@every
def test_transforms_made_in_inference_mode_serve_a_training(case: Case) -> None:
    with torch.inference_mode():
        transform = case.make()
    image = suited(case).requires_grad_(True)
    shown = transform(image, generator(1))
    assert torch.equal(shown, case.make()(image, generator(1)))
    shown.sum().backward()
    assert image.grad is not None


@every
def test_transforms_hold_no_tensors(case: Case) -> None:
    transform = case.make()
    transform(suited(case), generator())
    assert not transform.state_dict()
    assert not list(transform.parameters())
    assert not list(transform.buffers())


@every
def test_repr_is_one_line_that_tells_ranges_apart(case: Case) -> None:
    transform, equal, different = case.make(), case.make(), case.other()
    transform(suited(case), generator())
    assert repr(transform) == repr(equal)
    assert repr(transform).startswith(f"{type(transform).__name__}(")
    assert repr(transform) != repr(different) or isinstance(transform, NormalizeGradient), "which has no ranges"
    assert "0x" not in repr(transform)
    assert "\n" not in repr(transform)


@pytest.mark.parametrize(
    "made", [Jitter, Scale, Rotate, Flip, Crop, Pad, Roll, Blur, Compose], ids=lambda made: made.__name__
)
def test_mirrored_views_of_a_constant_picture_are_constant(made: type[Transform]) -> None:
    image = torch.full((20, 3, 6, 7), 0.3, dtype=torch.float64)
    torch.testing.assert_close(CASES[made].make()(image, generator()), image)
