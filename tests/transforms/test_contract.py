"""What every transform promises. A class that is exported without an entry in the table below fails."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from featviz_pl import transforms
from featviz_pl.transforms import Compose, GeometricTransform, Jitter, Pad, Rotate, Scale, Transform

# Each class: one that draws different things, and the same with other ranges.
CASES: dict[type[Transform], tuple[Callable[[], Transform], Callable[[], Transform]]] = {
    Jitter: (lambda: Jitter(2), lambda: Jitter(3)),
    Scale: (lambda: Scale([0.8, 1.0, 1.3]), lambda: Scale([0.9, 1.0, 1.1])),
    Rotate: (lambda: Rotate([-30.0, 0.0, 10.0, 90.0]), lambda: Rotate([0.0, 5.0])),
    Pad: (lambda: Pad(2, "grey"), lambda: Pad(3, "grey")),
    Compose: (
        lambda: Compose([Pad(2), Jitter(2), Rotate([-20.0, 0.0, 20.0]), Scale([0.8, 1.0, 1.3])]),
        lambda: Compose([Jitter(1)]),
    ),
}

every = pytest.mark.parametrize("make", [case[0] for case in CASES.values()], ids=[made.__name__ for made in CASES])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 3, channels: int = 3, size: tuple[int, int] = (6, 7), dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, channels, *size, generator=generator(99), dtype=dtype)


def leaves(parameters: Any) -> list[Tensor]:
    return [leaf for part in parameters for leaf in leaves(part)] if isinstance(parameters, tuple) else [parameters]


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(left, right) for left, right in zip(leaves(one), leaves(other), strict=True))


def test_every_exported_transform_is_in_the_table() -> None:
    exported = [getattr(transforms, name) for name in transforms.__all__]
    classes = [listed for listed in exported if isinstance(listed, type) and issubclass(listed, Transform)]
    assert {listed for listed in classes if not inspect.isabstract(listed)} == set(CASES)
    for listed, makers in CASES.items():
        assert all(type(make()) is listed for make in makers)


@every
def test_draws_come_from_the_given_generator_and_nothing_else(make: Callable[[], Transform]) -> None:
    transform = make()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        first = transform.sample(generator(), 50)
        torch.default_generator.manual_seed(2)
        before = torch.get_rng_state()
        assert same(transform.sample(generator(), 50), first)
        assert torch.equal(torch.get_rng_state(), before)
    assert not same(transform.sample(generator(1), 50), first)
    own = generator()
    transform.sample(own, 50)
    assert not same(transform.sample(own, 50), first), "the generator goes on from draw to draw"


@every
@pytest.mark.parametrize("n", [1, 4])
def test_parameters_are_plain_tensors_with_one_row_for_each_view(make: Callable[[], Transform], n: int) -> None:
    for leaf in leaves(make().sample(generator(), n)):
        assert leaf.shape[0] == n
        assert leaf.dtype == torch.float32
        assert not leaf.requires_grad
        assert leaf.device.type == "cpu"


@every
@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_draws_do_not_depend_on_the_program_s_default_precision(make: Callable[[], Transform], default: torch.dtype) -> None:
    # Lightning sets it around the steps of a run with precision="bf16-true" or "64-true".
    expected = make().sample(generator(), 20)
    torch.set_default_dtype(default)
    try:
        found = make().sample(generator(), 20)
    finally:
        torch.set_default_dtype(torch.float32)
    assert same(found, expected)


@every
def test_apply_is_a_pure_function(make: Callable[[], Transform]) -> None:
    transform, image = make(), pictures()
    parameters = transform.sample(generator(), 3)
    kept_image, kept_parameters, before = image.clone(), copy.deepcopy(parameters), torch.get_rng_state()
    first = transform.apply(image, parameters)
    transform.apply(pictures().flip(0), transform.sample(generator(5), 3))
    assert torch.equal(transform.apply(image, parameters), first)
    assert torch.equal(image, kept_image)
    assert same(parameters, kept_parameters)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(make().apply(image, parameters), first), "another one of the same ranges replays the view"


@every
def test_calling_draws_and_applies(make: Callable[[], Transform]) -> None:
    transform, image = make(), pictures()
    assert torch.equal(transform(image, generator(3)), transform.apply(image, transform.sample(generator(3), 3)))


@every
def test_a_view_does_not_depend_on_its_companions(make: Callable[[], Transform]) -> None:
    transform, image = make(), pictures()
    parameters = transform.sample(generator(), 3)
    together = transform.apply(image, parameters)
    for row in range(3):
        own = tuple(part[row : row + 1] for part in parameters) if isinstance(parameters, tuple) else parameters[row : row + 1]
        torch.testing.assert_close(transform.apply(image[row : row + 1], own), together[row : row + 1])


@every
@pytest.mark.parametrize(("count", "channels", "size"), [(1, 1, (5, 5)), (2, 3, (8, 5)), (3, 7, (4, 9)), (1, 3, (1, 1))])
def test_pictures_of_any_shape_are_seen_whole(make: Callable[[], Transform], count: int, channels: int, size: tuple[int, int]) -> None:
    view = make()(pictures(count, channels, size), generator())
    assert view.shape == (count, channels, *size)
    assert torch.isfinite(view).all()
    assert 0.0 <= float(view.min()) <= float(view.max()) <= 1.0 + 1e-12


@every
def test_float32_and_float64_stay_and_less_is_raised(make: Callable[[], Transform]) -> None:
    transform = make()
    parameters = transform.sample(generator(), 3)
    exact = transform.apply(pictures(), parameters)
    assert exact.dtype == torch.float64
    single = transform.apply(pictures().float(), parameters)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-5)
    for reduced in (torch.float16, torch.bfloat16):
        rounded = pictures().to(reduced)
        view = transform.apply(rounded, parameters)
        assert view.dtype == torch.float32
        assert torch.equal(view, transform.apply(rounded.float(), parameters))


@every
def test_apply_is_differentiable(make: Callable[[], Transform]) -> None:
    transform = make()
    parameters = transform.sample(generator(2), 2)
    image = pictures(2, 1, (4, 3)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda given: transform.apply(given, parameters), image)


@every
def test_full_strength_changes_nothing_and_none_moves_nothing(make: Callable[[], Transform]) -> None:
    transform = make()
    parameters = transform.sample(generator(), 20)
    assert same(transform.weaken(parameters, 1.0), parameters)
    still = transform.weaken(parameters, 0.0)
    parts = transform.transforms if isinstance(transform, Compose) else [transform]
    for part, own in zip(parts, still if isinstance(still, tuple) else [still]):
        assert isinstance(part, GeometricTransform)
        torch.testing.assert_close(part.matrix(own), torch.eye(3).expand(20, 3, 3), rtol=0, atol=1e-7)


@every
def test_transforms_survive_pickle_and_deepcopy(make: Callable[[], Transform]) -> None:
    transform, image = make(), pictures()
    for copied in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        assert repr(copied) == repr(transform)
        assert torch.equal(copied(image, generator(7)), transform(image, generator(7)))


@every
def test_transforms_hold_no_tensors(make: Callable[[], Transform]) -> None:
    assert not make().state_dict()
    assert not list(make().parameters())
    assert not list(make().buffers())


@pytest.mark.parametrize("made", CASES, ids=lambda made: made.__name__)
def test_repr_shows_the_class_and_tells_ranges_apart(made: type[Transform]) -> None:
    one, other = (repr(make()) for make in CASES[made])
    assert one.startswith(f"{made.__name__}(")
    assert one != other


@pytest.mark.parametrize("made", [Jitter, Scale, Rotate, Pad, Compose], ids=lambda made: made.__name__)
def test_mirrored_views_of_a_constant_picture_are_constant(made: type[Transform]) -> None:
    image = torch.full((20, 3, 6, 7), 0.3, dtype=torch.float64)
    torch.testing.assert_close(CASES[made][0]()(image, generator()), image)
