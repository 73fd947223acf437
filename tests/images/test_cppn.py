"""The network of Distill's xy2rgb notebook, pixel by pixel."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from featviz_pl.images import CPPNImage

Array = NDArray[np.float64]
Activation = Literal["composite", "unbiased", "relu"]


def activated(x: Array, activation: str) -> Array:
    """Apply the published activation to (units, points)."""
    if activation == "relu":
        return np.asarray((np.maximum(x, 0) - 0.40) / 0.58)
    a = np.arctan(x)
    return np.concatenate([a / 0.67, a * a / 0.6 if activation == "composite" else (a * a - 0.45) / 0.396])


def colors(layers: list[tuple[Array, Array]], inputs: Array, activation: str) -> Array:
    """Evaluate the network at points (inputs, points)."""
    net = inputs
    for weight, bias in layers[:-1]:
        net = activated(weight @ net + bias[:, None], activation)
    weight, bias = layers[-1]
    return np.asarray(1 / (1 + np.exp(-(weight @ net + bias[:, None]))))


def random_layers(image: CPPNImage, inputs: int, picture: int) -> list[tuple[Array, Array]]:
    """Draw a network and put it into one picture."""
    draw = np.random.default_rng(picture)
    units = image.width if image.activation == "relu" else 2 * image.width
    shapes = [(image.width, inputs), *[(image.width, units)] * (image.depth - 1), (image.channels, units)]
    layers = [(draw.normal(size=shape) / np.sqrt(shape[1]), draw.normal(size=shape[0])) for shape in shapes]
    flat = np.concatenate([np.concatenate([weight, bias[:, None]], axis=1).ravel() for weight, bias in layers])
    assert image.weight is not None
    with torch.no_grad():
        image.weight[picture] = torch.from_numpy(flat)
    return layers


@pytest.mark.parametrize("activation", ["composite", "unbiased", "relu"])
@pytest.mark.parametrize("size", [(6, 6), (5, 9), (8, 3)])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_picture_is_its_network_at_every_pixel(activation: Activation, size: tuple[int, int], depth: int) -> None:
    image = CPPNImage(size, 2, width=4, depth=depth, activation=activation).double()
    height, width = size
    step = 2 * np.sqrt(3) / (max(size) - 1)
    for picture in range(2):
        layers = random_layers(image, 2, picture)
        shown = image()[picture].detach().numpy()
        for row in range(height):
            for column in range(width):
                point = np.array([[(column - (width - 1) / 2) * step], [(row - (height - 1) / 2) * step]])
                np.testing.assert_allclose(
                    shown[:, row, column], colors(layers, point, activation)[:, 0], rtol=0, atol=1e-10
                )


def test_coordinates_are_those_of_the_notebook() -> None:
    # One hidden unit that is x alone, then y alone, read back from the picture.
    for axis in range(2):
        image = CPPNImage(5, 1, channels=1, width=1, depth=1).double()
        with torch.no_grad():
            image.required_weight().copy_(torch.tensor([[1.0 - axis, axis, 0.0, 1.0, 0.0, 0.0]]))
        read = np.tan(0.67 * torch.logit(image()).detach().numpy()[0, 0])
        expected = np.linspace(-np.sqrt(3), np.sqrt(3), 5)
        np.testing.assert_allclose(read[0] if axis == 0 else read[:, 0], expected, atol=1e-9)


def test_the_published_network_has_eight_layers_of_24() -> None:
    image = CPPNImage()
    assert image.layer_shapes() == [(24, 3), *[(24, 49)] * 7, (3, 49)]
    assert image.activation == "composite"
    assert image.color_matrix is None


def test_the_first_weights_are_the_notebook_s() -> None:
    image = CPPNImage(8, width=64, depth=3)
    image.initialize(40, torch.Generator().manual_seed(0))
    weight = image.required_weight().detach()
    first, second = weight[:, : 64 * 3].view(40, 64, 3), weight[:, 64 * 3 : 64 * 3 + 64 * 129].view(40, 64, 129)
    assert float(first[..., :-1].std()) == pytest.approx(1 / np.sqrt(2), rel=0.03)
    assert float(second[..., :-1].std()) == pytest.approx(1 / np.sqrt(128), rel=0.03)
    assert not first[..., -1].any()
    assert not second[..., -1].any()
    assert not weight[:, -3 * 129 :].any(), "the last layer starts from zero"
    assert image().unique().tolist() == [0.5]


def test_deviation_scales_the_hidden_weights() -> None:
    one, two = CPPNImage(4), CPPNImage(4, deviation=2.0)
    for image in (one, two):
        image.initialize(1, torch.Generator().manual_seed(3))
    torch.testing.assert_close(two.required_weight(), 2 * one.required_weight())


def drawn(**more: Any) -> CPPNImage:
    image = CPPNImage(**{"size": 9, "width": 8, "depth": 3, "count": 2, **more}).double()
    with torch.no_grad():
        image.required_weight().copy_(
            torch.randn(image.required_weight().shape, generator=torch.Generator().manual_seed(0)) / 2
        )
    return image


def test_a_larger_picture_shows_the_same_colors_at_the_same_points() -> None:
    image = drawn(size=(9, 5))
    small, large = image().detach(), image.pictures_at((17, 9)).detach()
    torch.testing.assert_close(large[..., ::2, ::2], small, rtol=0, atol=1e-12)
    assert torch.equal(image.pictures_at((9, 5)), image())


def test_a_large_picture_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from featviz_pl.images import cppn

    image = drawn(size=(7, 5))
    whole = image().detach()
    monkeypatch.setattr(cppn, "_CHUNK", 4)
    torch.testing.assert_close(image().detach(), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_a_tile_continues_across_its_borders(size: tuple[int, int]) -> None:
    # Twice the pixels show the same period: its even pixels are the small picture, and the step across the border is
    # like any other.
    image = drawn(size=size, tile=True)
    small = image().detach()
    height, width = size
    large = image.pictures_at((2 * height, 2 * width)).detach()
    torch.testing.assert_close(large[..., ::2, ::2], small, rtol=0, atol=1e-12)
    for axis in (2, 3):
        steps = (large.roll(-1, axis) - large).abs().amax(tuple({0, 1, 2, 3} - {axis}))
        assert float(steps[-1]) <= float(steps[:-1].max()) * 1.05
    plain = drawn(size=size).pictures_at((2 * height, 2 * width)).detach()
    seams = (plain.roll(-1, 3) - plain).abs().amax((0, 1, 2))
    assert float(seams[-1]) > 3 * float(seams[:-1].max()), "without tile there is a seam, so the test can see one"


def test_a_tile_is_its_network_of_sine_and_cosine() -> None:
    image = CPPNImage((3, 4), 1, width=2, depth=1, tile=True).double()
    layers = random_layers(image, 4, 0)
    shown = image()[0].detach().numpy()
    for row in range(3):
        for column in range(4):
            across, down = 2 * np.pi * column / 4, 2 * np.pi * row / 3
            point = np.sqrt(2) * np.array([[np.cos(across)], [np.sin(across)], [np.cos(down)], [np.sin(down)]])
            np.testing.assert_allclose(
                shown[:, row, column], colors(layers, point, "composite")[:, 0], rtol=0, atol=1e-10
            )


def test_a_checkpoint_fills_a_picture_of_another_size() -> None:
    image, other = drawn(), CPPNImage((20, 31), width=8, depth=3).double()
    other.load_state_dict(image.state_dict())
    assert torch.equal(other(), image.pictures_at((20, 31)))


def test_a_picture_of_one_pixel_is_the_middle() -> None:
    torch.testing.assert_close(drawn().pictures_at(1)[..., 0, 0], drawn()()[..., 4, 4], rtol=0, atol=1e-12)


def test_a_given_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="image: a CPPN cannot be started from a picture; use a PixelImage"):
        CPPNImage(8).start_from(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="image: a CPPN cannot be started from a picture"):
        CPPNImage.from_image(torch.rand(3, 8, 8))
