"""Transforms of torchvision, and of anybody, with a random stream of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from featviz_pl.transforms import Compose, Jitter, Torchvision


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator(8), dtype=torch.float64)


def negative(picture: Tensor) -> Tensor:
    return 1 - picture


def whole_numbers(picture: Tensor) -> Tensor:
    return (picture * 255).to(torch.uint8)


def global_noise(picture: Tensor) -> Tensor:
    return picture + torch.rand_like(picture)


def cut_at_random(picture: Tensor) -> Tensor:
    return picture[:, : int(torch.randint(2, 6, ()))]


def test_what_is_wrapped_does_what_it_does() -> None:
    image = pictures(3, 3, 5, 6)
    assert torch.equal(Torchvision(v2.RandomHorizontalFlip(p=1.0))(image, generator()), image.flip(-1))
    assert torch.equal(Torchvision(v2.RandomHorizontalFlip(p=0.0))(image, generator()), image)
    assert torch.equal(Torchvision(negative)(image, generator()), 1 - image)
    blurred = Torchvision(v2.GaussianBlur(3, sigma=1.0))(image, generator())
    torch.testing.assert_close(blurred, functional.gaussian_blur(image, [3, 3], [1.0, 1.0]))


def test_global_generators_are_neither_read_nor_changed() -> None:
    wrapped, image = Torchvision(global_noise), pictures(2, 3, 4, 4)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        first = wrapped(image, generator())
        torch.default_generator.manual_seed(2)
        before = torch.get_rng_state()
        assert torch.equal(wrapped(image, generator()), first)
        wrapped.output_size((3, 4))
        assert torch.equal(torch.get_rng_state(), before)


def test_everything_is_put_back_after_an_error() -> None:
    def fails(picture: Tensor) -> Tensor:
        torch.rand(3)
        raise RuntimeError("no")

    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(RuntimeError, match="no"):
            Torchvision(fails)(pictures(1, 3, 4, 4), generator())
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("transform", "size"),
    [
        (v2.Resize((7, 4)), (7, 4)),
        (v2.CenterCrop(3), (3, 3)),
        (v2.Pad(2), (9, 10)),
        (v2.RandomResizedCrop(8), (8, 8)),
        (negative, (5, 6)),
    ],
)
def test_the_size_of_views_is_found_by_trying(transform: Any, size: tuple[int, int]) -> None:
    wrapped = Torchvision(transform)
    assert wrapped.output_size((5, 6)) == size
    assert wrapped(pictures(2, 3, 5, 6), generator()).shape == (2, 3, *size)
    assert Compose([wrapped, Jitter(1)]).output_size((5, 6)) == size
    assert Compose([wrapped], size=11)(pictures(2, 3, 5, 6), generator()).shape == (2, 3, 11, 11)


def test_weakened_transforms_are_applied_to_a_share() -> None:
    wrapped, image = Torchvision(negative), pictures(1, 1, 2, 2).expand(2000, -1, -1, -1)
    parameters = wrapped.sample(generator(), 2000)
    for strength, share in [(1.0, 1.0), (0.25, 0.25), (0.0, 0.0)]:
        shown = wrapped.apply(image, wrapped.weaken(parameters, strength))
        changed = (shown != image).flatten(1).any(1)
        assert float(changed.double().mean()) == pytest.approx(share, abs=0.03)
        assert torch.equal(shown[changed], 1 - image[changed])


def test_one_that_changes_the_size_is_always_applied() -> None:
    wrapped, image = Torchvision(v2.CenterCrop(3)), pictures(4, 3, 5, 6)
    assert wrapped.apply(image, wrapped.weaken(wrapped.sample(generator(), 4), 0.0)).shape == (4, 3, 3, 3)


def test_gradients_flow_through_it() -> None:
    turn = v2.RandomRotation(20.0, interpolation=v2.InterpolationMode.BILINEAR, fill=None)
    wrapped = Torchvision(v2.Compose([turn, v2.GaussianBlur(3)]))
    parameters = wrapped.sample(generator(), 2)
    image = pictures(2, 1, 4, 5).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda given: wrapped.apply(given, parameters), image, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Torchvision(3), TypeError, r"transform must map a picture \(C, H, W\) to a picture, got int"),  # type: ignore[arg-type]
        (
            lambda: Torchvision(nn.Conv2d(3, 3, 1)),
            TypeError,
            "transform must hold no parameters .* Conv2d",
        ),
        (
            lambda: Torchvision(whole_numbers)(pictures(1, 3, 4, 4), generator()),
            ValueError,
            r"transform: <function whole_numbers> must return floats of 3 channels for \(3, 4, 4\), "
            r"got \(3, 4, 4\) of torch.uint8",
        ),
        (
            lambda: Torchvision(v2.Grayscale(1))(pictures(1, 3, 4, 4), generator()),
            ValueError,
            r"3 channels .*, got \(1, 4, 4\)",
        ),
        (lambda: Torchvision(v2.FiveCrop(2))(pictures(1, 3, 4, 4), generator()), ValueError, "got tuple"),
        (
            lambda: Torchvision(cut_at_random)(pictures(20, 3, 6, 6), generator()),
            ValueError,
            r"transform: <function cut_at_random> must return pictures of one size, got \[\(2, 6\), .*",
        ),
    ],
)
def test_what_cannot_be_wrapped_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (v2.RandomHorizontalFlip(p=0.25), "Torchvision(RandomHorizontalFlip(p=0.25))"),
        (v2.Compose([v2.Resize(4), v2.GaussianBlur(3)]), "Torchvision(Compose( Resize(size=[4]"),
        (negative, "Torchvision(<function negative>)"),
    ],
)
def test_repr_shows_what_is_wrapped_without_an_address(transform: Any, text: str) -> None:
    assert repr(Torchvision(transform)).startswith(text)
    assert "0x" not in repr(Torchvision(transform))
    assert "\n" not in repr(Torchvision(transform))
