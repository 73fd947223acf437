"""What images that are made of other images promise. A class of their modules that is exported without an entry below fails."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import adam, toy

from featviz_pl import images
from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import (
    AlphaImage,
    BallImage,
    CPPNImage,
    FixedImage,
    FourierImage,
    GeneratorImage,
    GrowingImage,
    Image,
    MaskedImage,
    PixelImage,
    StackImage,
)
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel

MODULES = {
    f"featviz_pl.images.{name}" for name in ("alpha", "ball", "fixed", "generator", "growing", "masked", "stack")
}
SIZES = [(8, 8), (5, 7), (6, 9), (9, 4)]
LOUD: dict[str, Any] = {"deviation": 0.5}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_pictures(count: int, channels: int, size: tuple[int, int], seed: int = 9) -> Tensor:
    return torch.rand(count, channels, *size, generator=generator(seed))


def painter(channels: int = 3, size: tuple[int, int] = (5, 6), latent: int = 4) -> nn.Module:
    """Build a generator from its own seed."""
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        return nn.Sequential(
            nn.Linear(latent, channels * size[0] * size[1]), nn.Tanh(), nn.Unflatten(1, (channels, *size))
        )


def ramp(size: tuple[int, int]) -> Tensor:
    """Return a mask from 0 to 1."""
    return torch.linspace(0, 1, size[0] * size[1]).view(size)


def alpha(size: tuple[int, int], count: int | None, channels: int) -> Image:
    return AlphaImage(image=PixelImage(size, count, channels, **LOUD), opacity=0.25)


def ball(size: tuple[int, int], count: int | None, channels: int) -> Image:
    return BallImage(random_pictures(1, channels, size)[0], radius=0.7, count=count, **LOUD)


def fixed(size: tuple[int, int], count: int | None, channels: int) -> Image:
    return FixedImage(random_pictures(count or 2, channels, size))


def generated(size: tuple[int, int], count: int | None, channels: int) -> Image:
    return GeneratorImage(painter(channels, size), 4, count=count)


def growing(size: tuple[int, int], count: int | None, channels: int) -> Image:
    return GrowingImage(size, count, channels, sizes=[2, min(size)], zoom=0.5, arguments=LOUD)


def masked(size: tuple[int, int], count: int | None, channels: int) -> Image:
    return MaskedImage(
        FourierImage(size, count, channels, **LOUD), random_pictures(1, channels, size)[0], ramp(size), start="drawn"
    )


def stack(size: tuple[int, int], count: int | None, channels: int) -> Image:
    if count == 1:
        return StackImage([FourierImage(size, None, channels, **LOUD)])
    rest = None if count is None else count - 1
    return StackImage([PixelImage(size, 1, channels, **LOUD), FourierImage(size, rest, channels, **LOUD)])


Make = Callable[[tuple[int, int], "int | None", int], Image]
CASES: dict[type[Image], Make] = {
    AlphaImage: alpha,
    BallImage: ball,
    FixedImage: fixed,
    GeneratorImage: generated,
    GrowingImage: growing,
    MaskedImage: masked,
    StackImage: stack,
}
every = pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
trained = pytest.mark.parametrize(
    "kind", [kind for kind in CASES if kind is not FixedImage], ids=lambda kind: kind.__name__
)
# What a checkpoint of two pictures holds.
STATE = {
    AlphaImage: {"initialized", "image.weight", "image.initialized", "plane.weight", "plane.initialized"},
    BallImage: {"initialized", "weight"},
    FixedImage: {"initialized"},
    GeneratorImage: {"initialized", "weight"},
    GrowingImage: {
        *("initialized", "stage", "stages.0.weight", "stages.0.initialized", "stages.1.weight", "stages.1.initialized"),
    },
    MaskedImage: {"initialized", "image.weight", "image.initialized"},
    StackImage: {"initialized", "images.0.weight", "images.0.initialized", "images.1.weight", "images.1.initialized"},
}
SHOWN = {
    AlphaImage: f"AlphaImage(image={PixelImage((5, 6), 2, **LOUD)!r}, opacity=0.25)",
    BallImage: "BallImage(picture=Tensor(1, 3, 5, 6), radius=0.7, norm='l2', count=2)",
    FixedImage: "FixedImage(picture=Tensor(2, 3, 5, 6))",
    GeneratorImage: (
        "GeneratorImage(generator=Sequential, latent_shape=(4,), size=(5, 6), count=2, channels=3, value_range=(-1.0, 1.0), deviation=1)"
    ),
    GrowingImage: (
        "GrowingImage(size=(5, 6), count=2, channels=3, sizes=(2, 5), starts=(0.0, 0.5), zoom=0.5, image=FourierImage, "
        "arguments={'deviation': 0.5})"
    ),
    MaskedImage: (
        f"MaskedImage(image={FourierImage((5, 6), 2, **LOUD)!r}, picture=Tensor(1, 3, 5, 6), mask=Tensor(1, 1, 5, 6), start='drawn')"
    ),
    StackImage: f"StackImage(images=[{PixelImage((5, 6), 1, **LOUD)!r}, {FourierImage((5, 6), 1, **LOUD)!r}])",
}


def made(kind: type[Image], count: int | None = 2, size: tuple[int, int] = (5, 6), channels: int = 3) -> Image:
    return CASES[kind](size, count, channels)


def started(kind: type[Image], count: int = 2, seed: int = 0) -> Image:
    image = made(kind, count)
    image.initialize(count, generator(seed))
    return image


def test_every_exported_class_is_in_the_table() -> None:
    exported = [getattr(images, name) for name in images.__all__]
    concrete = {listed for listed in exported if listed.__module__ in MODULES and not inspect.isabstract(listed)}
    assert concrete == set(CASES) == set(STATE) == set(SHOWN)


@every
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("count", [1, 3])
def test_pictures_have_the_shape_asked_for_and_lie_between_0_and_1(
    kind: type[Image], count: int, channels: int, size: tuple[int, int]
) -> None:
    image = CASES[kind](size, count, channels)
    image.initialize(count, generator(0))
    shown = image().detach()
    assert image.size == size
    assert image.channels == channels + int(image.alpha)
    assert shown.shape == (count, image.channels, *size)
    assert shown.dtype == torch.float32
    assert 0.0 <= float(shown.min()) < float(shown.max()) <= 1.0


@trained
def test_the_objective_decides_how_many_pictures_there_are(kind: type[Image]) -> None:
    image = made(kind, None)
    assert image.count is None
    with pytest.raises(RuntimeError, match="the image holds no pictures yet"):
        image()
    image.allocate(3)
    image.allocate(3)
    assert image.count == 3
    assert image().shape[0] == 3


@every
def test_another_number_of_pictures_is_refused(kind: type[Image]) -> None:
    with pytest.raises(ValueError, match=r"count: .*\b3\b"):
        started(kind).allocate(3)
    assert started(kind).count == 2
    if kind is not FixedImage:
        with pytest.raises(ValueError, match="generator: 1 generators do not fit 2 pictures"):
            made(kind, 2).initialize(2, [generator(0)])


@every
def test_nothing_is_drawn_when_built_and_nothing_global_in_a_start(kind: type[Image]) -> None:
    before = torch.get_rng_state()
    one, other = made(kind), made(kind)
    assert torch.equal(one(), other())
    assert bool(one.initialized) == (kind is FixedImage)
    started(kind)
    assert torch.equal(torch.get_rng_state(), before)


@trained
def test_initialising_draws_once(kind: type[Image]) -> None:
    image = started(kind, seed=0)
    assert bool(image.initialized)
    before = image().detach().clone()
    image.initialize(2, generator(1))
    assert torch.equal(image(), before)
    assert not torch.equal(started(kind, seed=1)(), before), "another seed draws another picture"
    assert not torch.equal(before[0], before[1]), "one generator draws different pictures"


@pytest.mark.parametrize(
    "kind", [kind for kind in CASES if kind not in (FixedImage, StackImage)], ids=lambda kind: kind.__name__
)
def test_a_picture_does_not_depend_on_its_companions(kind: type[Image]) -> None:
    together = made(kind, 3)
    together.initialize(3, [generator(seed) for seed in (4, 5, 6)])
    for place, seed in enumerate((4, 5, 6)):
        alone = made(kind, 1)
        alone.initialize(1, [generator(seed)])
        torch.testing.assert_close(alone()[0], together()[place])


@every
def test_one_picture_s_gradient_moves_no_other(kind: type[Image]) -> None:
    image = started(kind, 3)
    before = image().detach().clone()
    if kind is FixedImage:
        assert list(image.parameters()) == []
        return
    ascent = torch.optim.SGD(image.parameters(), lr=0.1, maximize=True)
    image()[1].sum().backward()
    ascent.step()
    shown = image().detach()
    assert float(shown[1].sum()) > float(before[1].sum())
    torch.testing.assert_close(shown[[0, 2]], before[[0, 2]], rtol=0, atol=0)


@every
def test_a_state_dict_fills_a_fresh_image(kind: type[Image]) -> None:
    image, fresh = started(kind, 3), made(kind, 3 if kind is FixedImage else None)
    fresh.load_state_dict(image.state_dict())
    assert fresh.count == 3
    assert torch.equal(fresh(), image())
    fresh.initialize(3, generator(9))
    assert torch.equal(fresh(), image()), "what came from a checkpoint is not drawn again"


def test_a_state_dict_fills_images_within_images_within_a_module() -> None:
    def nested(count: int | None) -> tuple[nn.Module, StackImage, GrowingImage]:
        inner = GrowingImage((5, 6), count, image=AlphaImage, sizes=[2, 5])
        whole = MaskedImage(inner, random_pictures(1, 3, (5, 6)), ramp((5, 6)))
        module, stacked = nn.Module(), StackImage([FixedImage(random_pictures(1, 4, (5, 6)), alpha=True), whole])
        module.image = stacked
        return module, stacked, inner

    (outer, trained_one, _), (fresh, loaded, stages) = nested(2), nested(None)
    trained_one.initialize(3, generator(0))
    trained_one.advance(7, 8)
    fresh.load_state_dict(outer.state_dict())
    assert torch.equal(loaded(), trained_one())
    assert stages.current.size == (5, 6), "the stage is kept too"


@every
def test_checkpoints_hold_what_is_trained_and_no_constants(kind: type[Image]) -> None:
    assert set(started(kind).state_dict()) == STATE[kind]


@every
def test_pickle_and_deepcopy_keep_the_picture_and_part_from_it(kind: type[Image]) -> None:
    image = started(kind)
    for copied in (pickle.loads(pickle.dumps(image)), copy.deepcopy(image)):
        assert torch.equal(copied(), image())
        assert repr(copied) == repr(image)
        assert (copied.alpha, copied.has_idle_parameters) == (image.alpha, image.has_idle_parameters)
        before = image().detach().clone()
        with torch.no_grad():
            for weight in (
                *copied.parameters(),
                *(buffer for buffer in copied.buffers() if buffer.is_floating_point()),
            ):
                weight.mul_(0.5)
        assert torch.equal(image(), before)
        assert not torch.equal(copied(), before)


@trained
def test_an_image_without_pictures_can_be_copied_too(kind: type[Image]) -> None:
    image, expected = made(kind, None), started(kind)
    for copied in (pickle.loads(pickle.dumps(image)), copy.deepcopy(image)):
        copied.initialize(2, generator(0))
        torch.testing.assert_close(copied(), expected())


@every
def test_the_representation_is_the_constructor(kind: type[Image]) -> None:
    assert repr(made(kind)) == SHOWN[kind]


@every
@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_reduced_precision_is_raised_to_float32(kind: type[Image], name: str) -> None:
    image, expected = started(kind), started(kind)()
    assert getattr(image, name)() is image
    assert image().dtype == torch.float32
    assert torch.equal(image(), expected), "nothing was rounded on the way"


@every
def test_double_precision_stays(kind: type[Image]) -> None:
    early = made(kind, 2 if kind is FixedImage else None).double()
    early.initialize(2, generator(0))
    for image in (started(kind).double(), early):
        assert image().dtype == torch.float64
        np.testing.assert_allclose(image().detach().numpy(), started(kind)().detach().numpy(), atol=1e-5)
        assert image.half()().dtype == torch.float64


@every
@pytest.mark.parametrize("default", [torch.bfloat16, torch.float16, torch.float64])
def test_the_program_s_default_precision_changes_no_picture(kind: type[Image], default: torch.dtype) -> None:
    # Lightning sets it around the steps of a run with precision="bf16-true" or "64-true". The given tensors stay
    # float32.
    expected = started(kind)().detach()
    given, network, mask = random_pictures(2, 3, (5, 6)), painter(), ramp((5, 6))
    torch.set_default_dtype(default)
    try:
        again: dict[type[Image], Callable[[], Image]] = {
            BallImage: lambda: BallImage(random_like(given), radius=0.7, count=2, **LOUD),
            FixedImage: lambda: FixedImage(given),
            GeneratorImage: lambda: GeneratorImage(network, 4, count=2),
            MaskedImage: lambda: MaskedImage(FourierImage((5, 6), 2, **LOUD), random_like(given), mask, start="drawn"),
        }
        image = again.get(kind, lambda: made(kind))()
        image.initialize(2, generator(0))
        shown = image().detach()
    finally:
        torch.set_default_dtype(torch.float32)
    assert shown.dtype == (torch.float64 if default == torch.float64 else torch.float32)
    np.testing.assert_allclose(shown.numpy(), expected.numpy(), atol=1e-6)


def random_like(pictures: Tensor) -> Tensor:
    """Return the one picture that the cases start from: of a float32 draw, whatever the default is."""
    drawn = torch.rand(1, *pictures.shape[1:], generator=generator(9), dtype=torch.float32)
    return drawn[0]


@trained
def test_decoding_is_differentiable(kind: type[Image]) -> None:
    image = CASES[kind]((4, 3), 2, 1).double()
    image.initialize(2, generator(0))
    names = [name for name, _ in image.named_parameters()]
    weights = [weight.detach().clone().requires_grad_(True) for weight in image.parameters()]

    def decoded(*own: Tensor) -> Tensor:
        return torch.func.functional_call(image, dict(zip(names, own)), ())  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(decoded, tuple(weights))


@trained
def test_an_image_that_was_built_in_inference_mode_can_be_trained(kind: type[Image]) -> None:
    with torch.inference_mode():
        image = started(kind)
    image.advance(0, 4)
    image().square().sum().backward()
    assert any(weight.grad is not None and bool(weight.grad.any()) for weight in image.parameters())


@trained
def test_an_ascent_raises_the_score(kind: type[Image]) -> None:
    problem = Ascent(made(kind, None, (8, 8)), FrozenNetwork(toy()), Channel("features.5", [1, 4]))
    problem.initialize()
    problem.prepare()
    before = problem.scores()
    assert bool((ascend(problem, steps=12, optimizer=adam()) > before).all())


@pytest.mark.parametrize("kind", [AlphaImage, BallImage, MaskedImage, StackImage], ids=lambda kind: kind.__name__)
def test_one_picture_starts_all(kind: type[Image]) -> None:
    image = made(kind)
    given = random_pictures(1, image.channels, (5, 6))[0]
    given = 0.9 * random_pictures(1, 3, (5, 6))[0] + 0.1 * given[:3] if kind is BallImage else given
    image.start_from(given)
    shown = image().detach().numpy()
    expected = given.numpy()
    if kind is MaskedImage:
        expected = (
            ramp((5, 6)).numpy() * expected + (1 - ramp((5, 6)).numpy()) * random_pictures(1, 3, (5, 6))[0].numpy()
        )
    np.testing.assert_allclose(shown, np.broadcast_to(expected, shown.shape), atol=1e-3)
    image.initialize(2, generator(3))
    assert np.array_equal(image().detach().numpy(), shown), "started pictures are not drawn"


@pytest.mark.parametrize(
    "kind", [AlphaImage, BallImage, GrowingImage, MaskedImage, StackImage], ids=lambda kind: kind.__name__
)
def test_a_start_that_does_not_fit_is_refused(kind: type[Image]) -> None:
    image = made(kind)
    with pytest.raises(ValueError, match=r"image: shape \(\d, 6, 5\) does not fit pictures of \(\d, 5, 6\)"):
        image.start_from(torch.zeros(3, 6, 5))
    with pytest.raises(ValueError, match="image: 3 pictures do not fit 2"):
        image.start_from(torch.zeros(3, 3, 5, 6))
    with pytest.raises(TypeError, match="image must be a tensor"):
        image.start_from([[0.5]])  # type: ignore[arg-type]
    assert not bool(image.initialized)


@pytest.mark.parametrize("kind", [FixedImage, GeneratorImage], ids=lambda kind: kind.__name__)
def test_what_has_no_inverse_says_so(kind: type[Image]) -> None:
    image = made(kind)
    with pytest.raises(ValueError, match=r"image: .*(no other|cannot be inverted)"):
        image.start_from(torch.zeros(3, 5, 6))


def test_parts_that_were_started_are_left_alone() -> None:
    given = random_pictures(1, 3, (5, 6))
    inner = PixelImage.from_image(given)
    whole = AlphaImage(image=inner)
    assert not bool(whole.initialized), "the alpha plane still awaits its draw"
    whole.initialize(1, generator(0))
    np.testing.assert_allclose(whole()[:, :3].detach().numpy(), given.numpy(), atol=1e-3)
    stacked = StackImage([inner])
    assert bool(stacked.initialized)


def test_transparency_rest_and_stages_reach_through_images() -> None:
    def inside(kind: str) -> GrowingImage:
        return GrowingImage((5, 6), 1, 3, sizes=[2, 5], image=AlphaImage if kind == "alpha" else PixelImage)

    for kind in ("alpha", "plain"):
        inner = inside(kind)
        masked = MaskedImage(inner, random_pictures(1, 3, (5, 6)), ramp((5, 6)))
        whole: list[Image] = [masked, StackImage([masked])]
        if kind == "plain":
            whole.append(AlphaImage(image=inner))
        for image in whole:
            assert image.alpha == (kind == "alpha" or isinstance(image, AlphaImage))
            assert image.has_idle_parameters
            image.initialize(1, generator(0))
            inner._enter(0)
            image.advance(3, 4)
            assert inner.current.size == (5, 6)
    assert not made(StackImage).has_idle_parameters
    assert not made(MaskedImage).alpha


PICTURE, MASK = torch.full((3, 5, 6), 0.5), torch.ones(5, 6)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: AlphaImage(size=0), ValueError, "size must be at least 1, got 0"),
        (
            lambda: AlphaImage(size=8, image=PixelImage(4)),
            ValueError,
            r"size: 8 differs from that of the image, \(4, 4\)",
        ),
        (
            lambda: AlphaImage(channels=1, image=PixelImage(4)),
            ValueError,
            "channels: 1 differs from that of the image, 3",
        ),
        (lambda: AlphaImage(image=AlphaImage(4)), ValueError, "image: AlphaImage has an alpha channel already"),
        (lambda: AlphaImage(image=toy()), TypeError, "image must be an Image, got ToyNet"),  # type: ignore[arg-type]
        (lambda: AlphaImage(4, opacity=0), ValueError, "opacity must be at least 0.001 and at most 0.999, got 0"),
        (lambda: AlphaImage(4, opacity=1.5), ValueError, "opacity must be at least 0.001"),
        (lambda: AlphaImage(count=3, image=PixelImage(4, 2)), ValueError, "count: the image holds 2 pictures"),
        (lambda: BallImage(PICTURE, radius=0), ValueError, "radius must be above 0, got 0"),
        (lambda: BallImage(PICTURE, radius=float("inf")), ValueError, "radius must be above 0, got inf"),
        (lambda: BallImage(PICTURE, 1.0, norm="l1"), ValueError, "norm: unknown norm 'l1'"),  # type: ignore[arg-type]
        (lambda: BallImage(PICTURE * 3, 1.0), ValueError, r"picture must lie in \[0, 1\], got values from 1.5 to 1.5"),
        (
            lambda: BallImage(PICTURE.expand(2, -1, -1, -1), 1.0, count=3),
            ValueError,
            "count: 2 centres were given, but 3 pictures",
        ),
        (lambda: FixedImage([]), TypeError, "picture must be a tensor or the path of a picture file or several"),
        (lambda: FixedImage(3), TypeError, "picture must be a tensor or the path"),  # type: ignore[arg-type]
        (lambda: FixedImage("absent.png"), ValueError, "picture: cannot read a picture from 'absent.png'"),
        (
            lambda: FixedImage("absent.png", channels=2),
            ValueError,
            "picture: channels: picture files hold 1, 3 or 4, not 2",
        ),
        (lambda: FixedImage(PICTURE, channels=4), ValueError, "picture: pictures of 3 channels do not fit 4"),
        (lambda: FixedImage(PICTURE[0]), ValueError, "picture must be floats"),
        (lambda: GeneratorImage("generator", 4), TypeError, "generator must be an nn.Module, got str"),  # type: ignore[arg-type]
        (lambda: GeneratorImage(painter(), 7), ValueError, r"latent_shape: the generator fails on a latent \(1, 7,\)"),
        (lambda: GeneratorImage(painter(), 0), ValueError, "latent_shape must be at least 1, got 0"),
        (lambda: GeneratorImage(nn.Flatten(), (2, 3)), ValueError, r"generator must give pictures .* it gave \(1, 6\)"),
        (
            lambda: GeneratorImage(painter(), 4, size=9),
            ValueError,
            r"size: the generator's pictures have \(5, 6\) pixels, not \(9, 9\)",
        ),
        (
            lambda: GeneratorImage(painter(), 4, channels=1),
            ValueError,
            "channels: the generator's pictures have 3, not 1",
        ),
        (
            lambda: GeneratorImage(painter(), 4, value_range=(1, -1)),
            ValueError,
            r"value_range must be \(low, high\), low below high",
        ),
        (
            lambda: GrowingImage(8, sizes=[4, 6]),
            ValueError,
            r"sizes must grow up to the shorter side of the picture, 8, got \[4, 6\]",
        ),
        (lambda: GrowingImage(8, sizes=[4, 4, 8]), ValueError, "sizes must grow"),
        (lambda: GrowingImage(8, sizes=[]), ValueError, "sizes must grow"),
        (lambda: GrowingImage(8, sizes=[0, 8]), ValueError, "sizes must be at least 1, got 0"),
        (lambda: GrowingImage(8, sizes=[4, 8], starts=[0]), ValueError, "starts must be 2 growing shares of the run"),
        (
            lambda: GrowingImage(8, sizes=[4, 8], starts=[0.1, 0.5]),
            ValueError,
            "starts must be 2 growing shares of the run, 0 first",
        ),
        (lambda: GrowingImage(8, sizes=[4, 8], starts=[0, 1]), ValueError, r"below 1, got \[0.0, 1.0\]"),
        (lambda: GrowingImage(8, zoom=1.5), ValueError, "zoom must be at least 0 and at most 1, got 1.5"),
        (lambda: GrowingImage(8, image=nn.Linear), TypeError, "image must be a class of images, such as FourierImage"),  # type: ignore[arg-type]
        (
            lambda: GrowingImage(8, image=CPPNImage),
            ValueError,
            "image: a stage begins from the picture before it, but CPPNImage refuses",
        ),
        (lambda: MaskedImage(toy(), PICTURE, MASK), TypeError, "image must be an Image, got ToyNet"),  # type: ignore[arg-type]
        (
            lambda: MaskedImage(PixelImage(5), PICTURE, MASK),
            ValueError,
            r"picture: shape \(3, 5, 6\) does not fit an image of \(3, 5, 5\)",
        ),
        (
            lambda: MaskedImage(PixelImage((5, 6)), PICTURE, MASK.T),
            ValueError,
            r"mask: shape \(1, 1, 6, 5\) does not fit; it must be \(5, 6\)",
        ),
        (
            lambda: MaskedImage(PixelImage((5, 6)), PICTURE, PICTURE),
            ValueError,
            r"mask: shape \(1, 3, 5, 6\) does not fit",
        ),
        (lambda: MaskedImage(PixelImage((5, 6)), PICTURE, 0 * MASK), ValueError, "mask: it is 0 everywhere"),
        (lambda: MaskedImage(PixelImage((5, 6)), PICTURE, 2 * MASK), ValueError, r"mask must lie in \[0, 1\]"),
        (lambda: MaskedImage(PixelImage((5, 6)), PICTURE, "absent.png"), ValueError, "mask: cannot read a picture"),
        (
            lambda: MaskedImage(PixelImage((5, 6)), PICTURE, MASK, start="photo"),  # type: ignore[arg-type]
            ValueError,
            "start: unknown start 'photo'",
        ),
        (
            lambda: MaskedImage(PixelImage((5, 6), 3), PICTURE.expand(2, -1, -1, -1), MASK),
            ValueError,
            "mask: 1 masks, 2 pictures and 3 images do not fit; give one or as many",
        ),
        (lambda: StackImage([]), TypeError, "images must be one Image or more"),
        (lambda: StackImage([PixelImage(4), toy()]), TypeError, "images must be one Image or more"),  # type: ignore[list-item]
        (
            lambda: StackImage([PixelImage(4), FourierImage(5)]),
            ValueError,
            r"images: FourierImage of shape \(3, 5, 5\) without alpha at place 1 does not fit PixelImage of shape \(3, 4, 4\)",
        ),
        (
            lambda: StackImage([AlphaImage(4), PixelImage(4, channels=4)]),
            ValueError,
            "without alpha at place 1 does not fit AlphaImage",
        ),
    ],
)
def test_bad_arguments_are_named(build: Callable[[], Image], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()
