"""The published formulas of the parameterizations, in numpy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from featviz_pl.images import FourierImage, PixelImage

Array = NDArray[np.float64]
# Lucid's color matrix, already divided by its largest column norm, as row vectors (Xplique prints it so).
COLOR = np.array(
    [[0.56282854, 0.58447580, 0.58447580], [0.19482528, 0.0, -0.19482528], [0.04329450, -0.10823626, 0.06494176]]
).T
SIZES = [(8, 8), (7, 9), (6, 5), (5, 6), (12, 4), (1, 7)]


def squashed(latent: Array) -> Array:
    """Mix the colors and squash, as Lucid does in `to_valid_rgb`."""
    mixed = np.einsum("dc,nchw->ndhw", COLOR, latent) if latent.shape[1] == 3 else latent
    return np.asarray(1 / (1 + np.exp(-mixed)))


def lucid(weight: Array, size: tuple[int, int], decay: float) -> Array:
    """Decode as Lucid does (optvis/param/spatial.py): the default inverse transform, sqrt(w * h) in the scale, a quarter of it all."""
    height, width = size
    vertical = np.fft.fftfreq(height)[:, None]
    horizontal = np.abs(np.fft.fftfreq(width)[: width // 2 + 1])
    lengths = np.sqrt(horizontal**2 + vertical**2)
    scale = 1.0 / np.maximum(lengths, 1.0 / max(width, height)) ** decay
    scale *= np.sqrt(width * height)
    spectrum = scale * (weight[..., 0] + 1j * weight[..., 1])
    return squashed(np.fft.irfft2(spectrum, s=size) / 4.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("decay", [1.0, 1.5])
@pytest.mark.parametrize("channels", [3, 1])
def test_a_fourier_image_is_lucid_s(size: tuple[int, int], decay: float, channels: int) -> None:
    weight = np.random.default_rng(0).normal(size=(2, channels, size[0], size[1] // 2 + 1, 2))
    image = FourierImage(size, 2, channels=channels, decay=decay).double()
    assert image.weight is not None
    with torch.no_grad():
        image.weight.copy_(torch.from_numpy(weight))
    # float32 constants, so not closer than its precision.
    np.testing.assert_allclose(image().detach().numpy(), lucid(weight, size, decay), atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_a_pixel_image_is_a_squashed_mixture(size: tuple[int, int]) -> None:
    weight = np.random.default_rng(0).normal(size=(2, 3, *size))
    image = PixelImage(size, 2).double()
    assert image.weight is not None
    with torch.no_grad():
        image.weight.copy_(torch.from_numpy(weight))
    np.testing.assert_allclose(image().detach().numpy(), squashed(weight), atol=1e-7)


@pytest.mark.parametrize("made", [FourierImage, PixelImage])
def test_the_first_weights_deviate_by_a_hundredth_around_zero(made: type[FourierImage] | type[PixelImage]) -> None:
    image = made(48)
    image.initialize(2, torch.Generator().manual_seed(0))
    assert image.weight is not None
    weight = image.weight.detach().numpy()
    assert weight.size > 10_000
    assert weight.std() == pytest.approx(0.01, rel=0.03)
    assert abs(weight.mean()) < 4 * 0.01 / np.sqrt(weight.size)
    if made is FourierImage:
        # Real and imaginary part each.
        assert weight[..., 0].std() == pytest.approx(0.01, rel=0.03)
        assert weight[..., 1].std() == pytest.approx(0.01, rel=0.03)


def test_the_deviation_scales_the_same_draw() -> None:
    one, ten = PixelImage(8), PixelImage(8, deviation=0.1)
    for image in (one, ten):
        image.initialize(1, torch.Generator().manual_seed(3))
    assert one.weight is not None
    assert ten.weight is not None
    torch.testing.assert_close(ten.weight, one.weight * 10)


def test_a_start_without_deviation_is_grey() -> None:
    image = FourierImage(8, deviation=0.0)
    image.initialize(1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(image(), torch.full((1, 3, 8, 8), 0.5))


def test_unclipped_weights_cannot_leave_the_range() -> None:
    image = PixelImage(4, 1)
    assert image.weight is not None
    with torch.no_grad():
        image.weight.fill_(1e6)
        image.weight[..., 0] = -1e6
    assert torch.isfinite(image()).all()
    assert set(image().detach().flatten().tolist()) == {0.0, 1.0}


def test_low_frequencies_move_further_than_high_ones() -> None:
    # The same step on a low and on a high frequency: Lucid's scale makes the amplitudes differ as 1 / f does.
    moved = []
    for column in (1, 8):
        image = FourierImage(32, 1, channels=1, decay=1.0)
        assert image.weight is not None
        with torch.no_grad():
            image.weight[0, 0, 0, column, 0] = 1e-3
        moved.append(float((image().detach() - 0.5).abs().max()))
    assert moved[0] / moved[1] == pytest.approx(8.0, rel=1e-3)


def test_more_decay_makes_smoother_pictures() -> None:
    def roughness(decay: float) -> float:
        image = FourierImage(32, channels=1, decay=decay)
        image.initialize(1, torch.Generator().manual_seed(0))
        shown = image().detach() - image().detach().mean()
        return float(shown.diff(dim=-1).square().mean() / shown.square().mean())

    assert roughness(1.5) < roughness(1.0) < roughness(0.5)


def test_the_weights_of_a_fourier_image_are_the_half_spectrum_as_real_pairs() -> None:
    assert FourierImage((6, 9), channels=2).weight_shape() == (2, 6, 5, 2)
    assert FourierImage((6, 8), channels=2).weight_shape() == (2, 6, 5, 2)
    assert PixelImage((6, 9), channels=2).weight_shape() == (2, 6, 9)


def clipped(latent: Array, mean: Array) -> Array:
    """Clip as Lucid does where it does not squash (optvis/param/color.py and images.py)."""
    z = 2 * (np.einsum("dc,nchw->ndhw", COLOR, latent) + mean.reshape(-1, 1, 1)) - 1
    return np.asarray(0.5 + 0.5 * z / np.maximum(1, np.abs(z)))


@pytest.mark.parametrize("made", [FourierImage, PixelImage])
def test_a_clip_is_lucid_s_about_the_mean_color_of_photos(made: type[FourierImage] | type[PixelImage]) -> None:
    size, draw = (6, 5), np.random.default_rng(0)
    image = made(size, 2, squash="clip").double()
    weight = draw.normal(size=image.required_weight().shape)
    with torch.no_grad():
        image.required_weight().copy_(torch.from_numpy(weight))
    latent = weight
    if made is FourierImage:
        # What `lucid` above squashes, read back before its squash.
        mixed = lucid(weight, size, 1.3)
        latent = np.einsum("dc,nchw->ndhw", np.linalg.inv(COLOR), np.log(mixed / (1 - mixed)))
    expected = clipped(latent, np.array([0.48, 0.46, 0.41]))
    assert expected.min() == 0.0
    assert expected.max() == 1.0
    np.testing.assert_allclose(image().detach().numpy(), expected, rtol=0, atol=1e-6)


def test_a_clip_without_decorrelated_colors_starts_from_grey() -> None:
    # Lucid adds no mean there, and starts from black, where half of all pixels have no gradient.
    image = PixelImage(4, 1, color="none", squash="clip")
    assert image().unique().tolist() == [0.5]
    with torch.no_grad():
        image.required_weight().fill_(0.25)
    assert image().unique().tolist() == [0.75]


def test_a_clip_about_the_mean_of_statistics() -> None:
    image = PixelImage(4, 1, color=SimpleNamespace(matrix=torch.eye(3), mean=[0.25, 0.5, 0.75]), squash="clip")
    np.testing.assert_array_equal(image()[0, :, 0, 0].detach().numpy(), [0.25, 0.5, 0.75])


def test_a_clipped_pixel_gets_no_gradient_as_in_the_source() -> None:
    image = PixelImage(2, 1, channels=1, squash="clip")
    with torch.no_grad():
        image.required_weight().copy_(torch.tensor([[[[0.6, 0.1], [-0.6, -0.1]]]]))
    (gradient,) = torch.autograd.grad(image().sum(), image.required_weight())
    assert gradient.flatten().tolist() == [0.0, 1.0, 0.0, 1.0]


def test_clipped_pixels_that_overshot_get_their_gradient_back() -> None:
    image = PixelImage(4, 1, color="none", squash="clip")
    with torch.no_grad():
        for weight in image.parameters():
            weight.fill_(3.0)
    image().sum().backward()
    (weight,) = image.parameters()
    assert weight.grad is not None
    assert not weight.grad.any()
    image.advance(0, 2)
    np.testing.assert_allclose(image().detach().numpy(), 1.0, atol=2e-4)
    image().sum().backward()
    assert bool((weight.grad == 1).all())
