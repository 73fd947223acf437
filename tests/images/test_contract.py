"""What every parameterization promises. A class that is exported without an entry in the table below fails."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentParser
from PIL import Image as Pillow
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
    InterpolationBasisImage,
    LaplacianPyramidImage,
    LatentImage,
    MacoImage,
    MaskedImage,
    MultiResolutionImage,
    PixelImage,
    SharedImage,
    StackImage,
)
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel

LOUD: dict[str, Any] = {"deviation": 0.5}
Size = tuple[int, int]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(count: int, channels: int, size: Size, seed: int = 9) -> Tensor:
    """Draw pictures that hold 0 and 1 too."""
    pictures = torch.rand(count, channels, *size, generator=generator(seed), dtype=torch.float32)
    pictures[:, :, 0, 0], pictures[:, :, -1, -1] = 0.0, 1.0
    return pictures


def ramp(size: Size) -> Tensor:
    """Return a mask from 0 to 1."""
    return torch.linspace(0, 1, size[0] * size[1], dtype=torch.float32).view(size)


class Waves(nn.Module):
    """Make pictures from four numbers."""

    def __init__(self, channels: int = 3, height: int = 5, width: int = 6) -> None:
        super().__init__()
        self.shape = channels, height, width
        weight = torch.randn(channels * height * width, 4, generator=generator(1), dtype=torch.float32)
        self.weight = nn.Parameter(weight)

    def forward(self, latent: Tensor) -> Tensor:
        return torch.tanh(latent @ self.weight.T).view(-1, *self.shape)


waves = cache(Waves)


def latent(kind: type[LatentImage], **arguments: Any) -> Callable[[Size, int | None, int], Image]:
    return lambda size, count, channels: kind(size, count, channels=channels, **{**LOUD, **arguments})


def cppn(size: Size, count: int | None, channels: int) -> Image:
    """Build a CPPN whose last layer is drawn too: it starts from zero, so that every first picture would be grey."""

    class AwakeCPPN(CPPNImage):
        __qualname__ = "CPPNImage"

        def draw_weight(self, generator: torch.Generator) -> Tensor:
            weight = super().draw_weight(generator)
            last = self.channels * (2 * self.width + 1)
            weight[-last:] = torch.randn(last, generator=generator, dtype=torch.float32)
            return weight

    AwakeCPPN.__name__ = "CPPNImage"
    return AwakeCPPN(size, count, channels=channels, deviation=0.5, width=5, depth=2, activation="unbiased", tile=True)


def maco(size: Size, count: int | None, channels: int) -> Image:
    lengths = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None])
    magnitude = torch.from_numpy(1 / (lengths + 0.2)).expand(channels, -1, -1)
    return MacoImage(size, count, channels=channels, spectrum=magnitude, deviation=0.5)


def basis(size: Size, count: int | None, channels: int) -> Image:
    return InterpolationBasisImage(2, 3, size=size, channels=channels, **LOUD)


def shared(size: Size, count: int | None, channels: int) -> Image:
    image = PixelImage(size, count, channels=channels, **LOUD)
    return SharedImage(image, [(1, 2), (2, 3)], own_weight=0.75, deviation=0.5)


def alpha(size: Size, count: int | None, channels: int) -> Image:
    return AlphaImage(image=PixelImage(size, count, channels=channels, **LOUD), opacity=0.25)


def ball(size: Size, count: int | None, channels: int) -> Image:
    return BallImage(photos(1, channels, size)[0], 0.7, count=count, **LOUD)


def fixed(size: Size, count: int | None, channels: int) -> Image:
    return FixedImage(photos(count or 2, channels, size))


def generated(size: Size, count: int | None, channels: int) -> Image:
    return GeneratorImage(waves(channels, *size), 4, count=count)


def growing(size: Size, count: int | None, channels: int) -> Image:
    return GrowingImage(size, count, channels=channels, sizes=[2, min(size)], zoom=0.5, arguments=LOUD)


def masked(size: Size, count: int | None, channels: int) -> Image:
    inner = FourierImage(size, count, channels=channels, **LOUD)
    return MaskedImage(inner, photos(1, channels, size)[0], ramp(size), start="drawn")


def stack(size: Size, count: int | None, channels: int) -> Image:
    kinds = [FourierImage] if count == 1 else [PixelImage, FourierImage]
    counts = [count] if count == 1 else [1, count and count - 1]
    return StackImage([kind(size, each, channels=channels, **LOUD) for kind, each in zip(kinds, counts)])


@dataclass(frozen=True)
class Case:
    """How a parameterization is built here, and which promises it cannot keep."""

    make: Callable[[Size, int | None, int], Image]
    shown: str  # the arguments in `repr` for two pictures of 5 x 6
    yaml: str = "{size: [5, 6], count: 2}"
    state: tuple[str, ...] = ("weight",)  # what a checkpoint of two pictures holds, besides "initialized"
    inverse: bool = True  # a picture comes back
    joint: bool = False  # a picture depends on the others
    counts: tuple[int, int] = (1, 3)


PIXELS, FOURIER = "size=(5, 6), count={}, channels=3, color='auto', deviation=0.5", ", decay=1.3"
CASES: dict[type[Image], Case] = {
    CPPNImage: Case(
        cppn,
        "size=(5, 6), count=2, channels=3, color='none', deviation=0.5, width=5, depth=2, activation='unbiased', tile=True",
        inverse=False,
    ),
    FourierImage: Case(
        latent(FourierImage, decay=1.25), f"{PIXELS}, decay=1.25", "{size: [5, 6], decay: 1.5, count: 2}"
    ),
    InterpolationBasisImage: Case(
        basis,
        "objectives=2, steps=3, size=(5, 6), channels=3, color='auto', deviation=0.5",
        "{objectives: 2, steps: 3, size: [5, 6]}",
        ("constant", "examples", "between"),
        inverse=False,
        joint=True,
        counts=(12, 12),
    ),
    LaplacianPyramidImage: Case(latent(LaplacianPyramidImage, levels=3), f"{PIXELS}, levels=3"),
    MacoImage: Case(
        maco,
        "size=(5, 6), count=2, channels=3, color='auto', deviation=0.5, spectrum='own'",
        state=("weight", "transparency", "phase_mean", "phase_deviation"),
        inverse=False,
    ),
    MultiResolutionImage: Case(
        latent(MultiResolutionImage, interpolation="bilinear"),
        f"{PIXELS.replace('auto', 'none')}, resolutions=[1, 2, 4, 6], interpolation='bilinear'",
    ),
    PixelImage: Case(latent(PixelImage), PIXELS, "{size: [5, 6], squash: clip, color: i1i2i3, count: 2}"),
    SharedImage: Case(
        shared,
        f"PixelImage({PIXELS}), shared=[(1, 2), (2, 3)], own_weight=0.75, group_weight=1, deviation=0.5",
        "{image: {class_path: PixelImage, init_args: {size: [5, 6], count: 2}}, shared: [[1, 2], [2, 3]]}",
        ("shared", "image.weight", "image.initialized"),
        joint=True,
    ),
    AlphaImage: Case(
        alpha,
        f"image=PixelImage({PIXELS}), opacity=0.25",
        "{count: 2, image: {class_path: PixelImage, init_args: {size: [5, 6]}}}",
        ("image.weight", "image.initialized", "plane.weight", "plane.initialized"),
    ),
    BallImage: Case(
        ball,
        "picture=Tensor(1, 3, 5, 6), radius=0.7, norm='l2', count=2",
        "{picture: 'FOLDER/picture.png', radius: 2, norm: l2, count: 2}",
        inverse=False,
    ),
    FixedImage: Case(
        fixed,
        "picture=Tensor(2, 3, 5, 6)",
        "{picture: ['FOLDER/picture.png', 'FOLDER/picture.png']}",
        (),
        inverse=False,
    ),
    GeneratorImage: Case(
        generated,
        "generator=Waves, latent_shape=(4,), size=(5, 6), count=2, channels=3, value_range=(-1.0, 1.0), deviation=1",
        f"{{generator: {{class_path: {__name__}.Waves}}, latent_shape: [4], count: 2}}",
        inverse=False,
    ),
    GrowingImage: Case(
        growing,
        "size=(5, 6), count=2, channels=3, sizes=(2, 5), starts=(0.0, 0.5), zoom=0.5, image=FourierImage, "
        "arguments={'deviation': 0.5}",
        "{size: [5, 6], count: 2, sizes: [2, 5], image: featviz_pl.images.PixelImage}",
        ("stage", "stages.0.weight", "stages.0.initialized", "stages.1.weight", "stages.1.initialized"),
        inverse=False,
    ),
    MaskedImage: Case(
        masked,
        f"image=FourierImage({PIXELS}{FOURIER}), picture=Tensor(1, 3, 5, 6), mask=Tensor(1, 1, 5, 6), start='drawn'",
        "{image: {class_path: PixelImage, init_args: {size: [5, 6], count: 2}}, picture: 'FOLDER/picture.png', "
        "mask: 'FOLDER/mask.png'}",
        ("image.weight", "image.initialized"),
        inverse=False,
    ),
    StackImage: Case(
        stack,
        "images=[PixelImage(size=(5, 6), count=1, channels=3, color='auto', deviation=0.5), "
        "FourierImage(size=(5, 6), count=1, channels=3, color='auto', deviation=0.5, decay=1.3)]",
        "{images: [{class_path: FixedImage, init_args: {picture: 'FOLDER/picture.png'}}, "
        "{class_path: PixelImage, init_args: {size: [5, 6], count: 1}}]}",
        ("images.0.weight", "images.0.initialized", "images.1.weight", "images.1.initialized"),
    ),
}


def among(*kinds: type[Image]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.__name__)


every = among(*CASES)
every_trained = among(*(kind for kind in CASES if kind is not FixedImage))
every_independent = among(*(kind for kind, case in CASES.items() if not case.joint and kind is not FixedImage))
every_inverse = among(*(kind for kind, case in CASES.items() if case.inverse))
every_latent = among(FourierImage, LaplacianPyramidImage, MultiResolutionImage, PixelImage, MacoImage, CPPNImage)
# Sizes, channels and counts pairwise.
SHAPES = [((8, 8), 1, 1), ((5, 7), 3, 3), ((6, 9), 7, 1), ((9, 4), 1, 3), ((5, 6), 3, 1), ((4, 4), 7, 3)]
shapes = pytest.mark.parametrize(("size", "channels", "count"), SHAPES)


def two(kind: type[Image]) -> int:
    """Return two pictures, or as many as there must be."""
    return 2 if CASES[kind].counts[0] == 1 else CASES[kind].counts[0]


def make(kind: type[Image], count: int | None = None, size: Size = (5, 6), channels: int = 3) -> Any:
    return CASES[kind].make(size, count, channels)


def started(kind: type[Image], count: int | None = None, seed: int = 0) -> Any:
    image = make(kind, count or two(kind))
    image.initialize(count or two(kind), generator(seed))
    return image


def started_from(kind: type[Image], pictures: Tensor) -> Any:
    count, channels, height, width = pictures.shape
    image = make(kind, count, (height, width), channels)
    image.start_from(pictures)
    return image


def decoded(image: Image) -> Tensor:
    return image().detach()  # type: ignore[no-any-return]


def test_every_exported_class_is_in_the_table() -> None:
    exported = [getattr(images, name) for name in images.__all__]
    assert set(CASES) == {export for export in exported if not inspect.isabstract(export)}


@every
@shapes
def test_pictures_have_the_shape_asked_for_and_lie_between_0_and_1(
    kind: type[Image], size: Size, channels: int, count: int
) -> None:
    count = count if CASES[kind].counts[0] == 1 else two(kind)
    image = make(kind, count, size, channels)
    image.initialize(count, generator(0))
    pictures = decoded(image)
    assert (image.size, image.channels, image.count) == (size, channels + int(image.alpha), count)
    assert pictures.shape == (count, image.channels, *size)
    assert pictures.dtype == torch.float32
    assert 0.0 <= float(pictures.min()) < float(pictures.max()) <= 1.0


@every_inverse
@shapes
def test_a_picture_comes_back_within_a_thousandth(kind: type[Image], size: Size, channels: int, count: int) -> None:
    expected = photos(count, channels, size)
    before = expected.clone()
    image = started_from(kind, expected)
    assert image.count == count
    np.testing.assert_allclose(decoded(image)[:, :channels].numpy(), expected.numpy(), rtol=0, atol=1e-3)
    image.initialize(count, generator(7))
    np.testing.assert_allclose(decoded(image)[:, :channels].numpy(), expected.numpy(), rtol=0, atol=1e-3)
    with torch.no_grad():
        for weight in image.parameters():
            weight.fill_(9.0)
    assert torch.equal(expected, before), "the caller's picture is not changed"


@among(FourierImage, LaplacianPyramidImage, MultiResolutionImage, PixelImage)
@pytest.mark.parametrize("squash", ["sigmoid", "clip"])
@pytest.mark.parametrize("color", ["none", "imagenet", "i1i2i3", [[1.0, 0.2, 0.0], [0.0, 1.0, 0.5], [0.3, 0.0, -1.0]]])
def test_a_picture_comes_back_in_any_color_space_and_through_a_clip(
    kind: type[LatentImage], color: Any, squash: str
) -> None:
    expected = photos(2, 3, (5, 4))
    arguments = {} if kind is MultiResolutionImage else {"squash": squash}  # its squash is the tanh of the source
    image = kind.from_image(expected, color=color, **arguments)
    assert type(image) is kind
    np.testing.assert_allclose(decoded(image).numpy(), expected.numpy(), rtol=0, atol=1e-3)
    assert ("squash='clip'" in repr(image)) == (arguments == {"squash": "clip"})
    for value in (0.0, 1.0):
        flat = kind.from_image(torch.full((3, 5, 5), value), color=color, **arguments)
        np.testing.assert_allclose(decoded(flat).numpy(), value, rtol=0, atol=1e-3)
        flat().sum().backward()
        assert bool(flat.required_weight().grad.any()), "a saturated picture can still move"  # type: ignore[union-attr]


@every_inverse
def test_one_picture_of_any_precision_starts_all(kind: type[Image]) -> None:
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.float64, 1e-3), (torch.float16, 2e-3)):
        image, expected = make(kind, 3), photos(1, 3, (5, 6))
        image.start_from(expected[0].to(dtype))
        assert decoded(image).dtype == torch.float32
        np.testing.assert_allclose(
            decoded(image)[:, :3].numpy(), expected.expand(3, -1, -1, -1).numpy(), rtol=0, atol=tolerance
        )


@every
def test_nothing_is_drawn_when_built_and_nothing_global_in_a_start(kind: type[Image]) -> None:
    before = torch.get_rng_state()
    first, second = make(kind, two(kind)), make(kind, two(kind))
    assert torch.equal(first(), second())
    assert bool(first.initialized) == (kind is FixedImage)
    started(kind)
    assert torch.equal(torch.get_rng_state(), before)


@every_trained
def test_initialize_draws_once_and_different_pictures(kind: type[Image]) -> None:
    image = started(kind, seed=0)
    assert bool(image.initialized)
    before = decoded(image).clone()
    image.initialize(two(kind), generator(1))
    assert torch.equal(image(), before)
    assert not torch.equal(started(kind, seed=1)(), before), "another seed draws another picture"
    assert not torch.equal(before[0], before[1]), "one generator draws different pictures"


@every_independent
def test_a_picture_and_its_gradient_do_not_depend_on_the_others(kind: type[Image]) -> None:
    if kind is StackImage:
        pytest.skip("its images differ in kind; see test_stack.py")
    # The weight of a pixel in the loss stands for a network: every pixel has its own.
    importance = torch.randn(3, 4, 5, 6, dtype=torch.float64, generator=generator(0))

    def run(count: int, seeds: tuple[int, ...], weights: Tensor) -> Any:
        image = make(kind, count).double()
        image.initialize(count, [generator(seed) for seed in seeds])
        (image().square() * weights[:, : image.channels]).sum().backward()
        return image

    together = run(3, (4, 5, 6), importance)
    for index, seed in enumerate((4, 5, 6)):
        alone = run(1, (seed,), importance[index : index + 1])
        torch.testing.assert_close(alone()[0], together()[index])
        for single, batch in zip(alone.parameters(), together.parameters()):
            assert torch.equal(single[0], batch[index])
            if single.grad is not None:
                np.testing.assert_allclose(single.grad[0].numpy(), batch.grad[index].numpy(), rtol=0, atol=1e-10)


@every_independent
def test_a_step_up_the_gradient_raises_one_picture_and_no_other(kind: type[Image]) -> None:
    image = started(kind, 3)
    optimizer = torch.optim.SGD(image.parameters(), lr=0.1, maximize=True)
    before = decoded(image).clone()
    image()[1].sum().backward()
    optimizer.step()
    assert float(decoded(image)[1].sum()) > float(before[1].sum())
    assert torch.equal(decoded(image)[[0, 2]], before[[0, 2]])


@every
def test_pickle_and_deepcopy_keep_the_picture_and_share_nothing(kind: type[Image]) -> None:
    if kind is CPPNImage:
        image: Any = CPPNImage(8, 2, width=3, depth=1)
        with torch.no_grad():
            image.required_weight().normal_(generator=generator(0))
    else:
        image = started(kind)
    for copied in (pickle.loads(pickle.dumps(image)), copy.deepcopy(image)):
        assert torch.equal(copied(), image())
        assert repr(copied) == repr(image)
        assert (copied.alpha, copied.has_idle_parameters) == (image.alpha, image.has_idle_parameters)
        before = decoded(image).clone()
        with torch.no_grad():
            for tensor in (*copied.parameters(), *(each for each in copied.buffers() if each.is_floating_point())):
                tensor.mul_(torch.linspace(0.3, 0.7, tensor.shape[-1]))
        assert torch.equal(image(), before)
        assert not torch.equal(copied(), before)


@every_trained
def test_an_image_without_pictures_can_be_copied_too(kind: type[Image]) -> None:
    copied = copy.deepcopy(make(kind))
    copied.initialize(two(kind), generator(0))
    torch.testing.assert_close(copied(), started(kind)())


@every
def test_a_state_dict_fills_a_fresh_image_alone_and_in_a_module(kind: type[Image]) -> None:
    count = CASES[kind].counts[1]
    outer: Any = nn.Module()
    fresh: Any = nn.Module()
    outer.image, fresh.image = started(kind, count), make(kind, 3 if kind is FixedImage else None)
    assert set(outer.image.state_dict()) >= {"initialized", *CASES[kind].state}
    fresh.load_state_dict(outer.state_dict())
    assert fresh.image.count == count
    assert torch.equal(fresh.image(), outer.image())
    alone = make(kind, 3 if kind is FixedImage else None)
    alone.load_state_dict(outer.image.state_dict())
    alone.initialize(count, generator(9))
    assert torch.equal(alone(), outer.image()), "what came from a checkpoint is not drawn again"


@every_latent
def test_a_state_dict_of_another_size_or_count_is_refused(kind: type[Image]) -> None:
    if kind is not CPPNImage:  # the same network draws every size; see test_cppn.py
        with pytest.raises(RuntimeError, match="weight"):
            make(kind, size=(5, 8)).load_state_dict(started(kind).state_dict())
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        make(kind, 1).load_state_dict(started(kind).state_dict())


@every
def test_checkpoints_hold_what_is_trained_and_no_constants(kind: type[Image]) -> None:
    assert set(started(kind).state_dict()) == {"initialized", *CASES[kind].state}


@every
def test_the_representation_is_the_constructor(kind: type[Image]) -> None:
    assert repr(make(kind, 2)) == f"{kind.__name__}({CASES[kind].shown.replace('{}', '2')})"


@every
@pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_a_configuration_builds_it(kind: type[Image], tmp_path: Path) -> None:
    for file in ("picture.png", "mask.png"):
        Pillow.fromarray(np.full((5, 6, 3), 51, dtype=np.uint8)).save(tmp_path / file)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--image", type=Image)
    arguments = yaml.safe_load(CASES[kind].yaml.replace("FOLDER", str(tmp_path)))
    config = {"image": {"class_path": kind.__name__, "init_args": arguments}}
    image = parser.instantiate(parser.parse_object(config)).image
    assert type(image) is kind
    image.initialize(two(kind), generator(0))
    assert image().shape == (two(kind), 4 if kind is AlphaImage else 3, 5, 6)
    for name in ("decay", "squash"):
        if name in arguments:
            assert getattr(image, name) == arguments[name]


@every
def test_reduced_precision_is_raised_to_float32_and_double_stays(kind: type[Image]) -> None:
    expected = decoded(started(kind))
    for name in ("half", "bfloat16"):
        image, empty = started(kind), getattr(make(kind, 2 if kind is FixedImage else None), name)()
        assert getattr(image, name)() is image
        empty.initialize(two(kind), generator(0))
        assert image().dtype == torch.float32
        assert torch.equal(image(), expected), "nothing was rounded on the way"
        torch.testing.assert_close(decoded(empty), expected)
    empty = make(kind, 2 if kind is FixedImage else None).double()
    empty.initialize(two(kind), generator(0))
    for image in (started(kind).double(), empty):
        assert image().dtype == image.half()().dtype == torch.float64
        np.testing.assert_allclose(decoded(image).numpy(), expected.numpy(), atol=1e-5)


@every
@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_the_default_type_changes_no_picture(kind: type[Image], default: torch.dtype) -> None:
    # Lightning sets it around the steps of a run with precision="bf16-true" or "64-true".
    expected = decoded(started(kind))
    torch.set_default_dtype(default)
    try:
        pictures = decoded(started(kind))
    finally:
        torch.set_default_dtype(torch.float32)
    assert pictures.dtype == torch.float32
    np.testing.assert_allclose(pictures.numpy(), expected.numpy(), atol=1e-6)


@every_trained
def test_an_image_built_in_inference_mode_can_be_trained(kind: type[Image]) -> None:
    with torch.inference_mode():
        image = make(kind, two(kind))
        assert len(image()) == two(kind)
        drawn = started(kind)
    image.initialize(two(kind), generator(0))
    for each in (image, drawn):
        each.advance(0, 4)
        each().square().sum().backward()
        assert any(weight.grad is not None and bool(weight.grad.any()) for weight in each.parameters())


@every_trained
@pytest.mark.parametrize(("size", "channels"), [((3, 4), 3), ((4, 3), 1)])
def test_decoding_is_differentiable(kind: type[Image], size: Size, channels: int) -> None:
    image = make(kind, two(kind), size, channels).double()
    image.initialize(two(kind), generator(0))
    names = [name for name, _ in image.named_parameters()]
    weights = tuple(weight.detach().clone().requires_grad_(True) for weight in image.parameters())

    def decode(*values: Tensor) -> Tensor:
        return torch.func.functional_call(image, dict(zip(names, values)), ())  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(decode, weights)


@every_trained
def test_pictures_climb_on_a_network(kind: type[Image]) -> None:
    count = CASES[kind].counts[1]
    problem = Ascent(make(kind, size=(12, 9)), FrozenNetwork(toy()), Channel("features.5", [1, 4, 2] * (count // 3)))
    problem.initialize()
    problem.prepare()
    before = problem.scores()
    climb = ascend(problem, steps=12, optimizer=adam(0.05)) - before
    # Pictures that share their parts also share what moves them: then the sum is what climbs.
    assert float(climb.mean() if CASES[kind].joint else climb.min()) > 3e-4


@every
def test_counts_that_do_not_fit_are_refused(kind: type[Image]) -> None:
    image, count = make(kind, 2 if kind is FixedImage else None), two(kind)
    if image.count is None:
        with pytest.raises(RuntimeError, match="the image holds no pictures yet"):
            image()
    image.allocate(count)
    image.allocate(count)
    assert image.count == count
    if kind is not FixedImage:
        with pytest.raises(ValueError, match=f"generator: 1 generators do not fit {count} pictures"):
            image.initialize(count, [generator(0)])
    with pytest.raises(ValueError, match=r"count: .*\b17\b"):
        image.initialize(17, generator(0))
    assert image.count == count


@among(*(kind for kind in CASES if kind not in (CPPNImage, FixedImage, GeneratorImage, InterpolationBasisImage)))
def test_a_start_that_does_not_fit_is_refused(kind: type[Image]) -> None:
    image = make(kind, 2)
    for start, error, message in [
        (torch.zeros(3, 6, 5), ValueError, r"image: shape \(\d, 6, 5\) does not fit pictures of \(\d, 5, 6\)"),
        (torch.zeros(3, 3, 5, 6), ValueError, "image: 3 pictures do not fit 2"),
        ([[0.5]], TypeError, "image must be a tensor"),
        (torch.zeros(3, 5, 6, dtype=torch.uint8), ValueError, "image must be floats .*, got torch.uint8 of shape"),
        (torch.zeros(5, 6), ValueError, "image must be floats"),
        (torch.zeros(0, 3, 5, 6), ValueError, "image must be floats"),
        (torch.full((3, 5, 6), 1.5), ValueError, r"image must lie in \[0, 1\], got values from 1.5 to 1.5"),
        (torch.full((3, 5, 6), float("nan")), ValueError, r"image must lie in \[0, 1\]"),
    ]:
        with pytest.raises(error, match=message):
            image.start_from(start)
    assert not bool(image.initialized)


@among(CPPNImage, FixedImage, GeneratorImage)
def test_an_image_without_an_inverse_says_so(kind: type[Image]) -> None:
    with pytest.raises(ValueError, match=r"image: .*(cannot be)"):
        make(kind, 2).start_from(torch.zeros(3, 5, 6))
