from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor
from toys import SHARED, needs_shared

from featviz_pl.io import read_picture
from featviz_pl.io.photos import photo_paths
from featviz_pl.numerics.fourier import spectrum_scale
from featviz_pl.statistics import AmplitudeSpectrum, SpectrumStatistics, natural_statistics

XPLIQUE = [[0.56282854, 0.58447580, 0.58447580], [0.19482528, 0.0, -0.19482528], [0.04329450, -0.10823626, 0.06494176]]
SIZES = [(8, 8), (7, 9), (6, 5), (4, 12)]


def pictures(count: int, size: tuple[int, int], channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numpy_magnitude(images: np.ndarray[Any, Any], matrix: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
    """Average the magnitude as the formula has it."""
    bounded = np.clip(images, 0.01, 0.99)
    latent = np.log(bounded / (1 - bounded))
    if matrix is not None:
        latent = np.einsum("dc,nchw->ndhw", np.linalg.inv(matrix), latent)
    result: np.ndarray[Any, Any] = np.abs(np.fft.rfft2(latent, norm="ortho")).mean(axis=0)
    return result


def spectrum(images: Tensor, size: int | tuple[int, int], **arguments: Any) -> SpectrumStatistics:
    metric = AmplitudeSpectrum(size, channels=images.shape[1], **arguments)
    for part in images.split(3):
        metric.update(part)
    return metric.compute()


# What is measured.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("color", "matrix"), [("auto", np.array(XPLIQUE).T), ("none", None)])
def test_it_is_the_mean_magnitude_of_numpy_s_transform(
    size: tuple[int, int], color: str, matrix: np.ndarray[Any, Any] | None
) -> None:
    images = pictures(5, size)
    result = spectrum(images, size, color=color)
    assert (result.size, result.count) == (size, 5)
    np.testing.assert_allclose(result.magnitude.numpy(), numpy_magnitude(images.numpy(), matrix), rtol=1e-6)


def test_own_matrices_and_statistics_set_the_channels() -> None:
    images = pictures(4, (8, 8), 2)
    old = np.array([[1.0, 0.5], [1.0, -0.5]])
    expected = numpy_magnitude(images.numpy(), old)
    by_list = spectrum(images, 8, color=old.tolist())
    np.testing.assert_allclose(by_list.magnitude.numpy(), expected, rtol=1e-6)
    assert by_list.matrix is not None
    np.testing.assert_allclose(by_list.matrix.numpy(), old)
    np.testing.assert_allclose(spectrum(images, 8, color=by_list).magnitude.numpy(), expected, rtol=1e-6)
    assert spectrum(images, 8, color="none").matrix is None


@pytest.mark.parametrize("size", SIZES)
def test_the_energy_of_one_picture_is_that_of_its_spectrum(size: tuple[int, int]) -> None:
    image = pictures(1, size, 1)
    magnitude = spectrum(image, size, color="none").magnitude.numpy()[0]
    twice = np.full(magnitude.shape, 2.0)  # columns whose mirror images the half spectrum leaves out
    twice[:, 0] = 1.0
    if size[1] % 2 == 0:
        twice[:, -1] = 1.0
    bounded = np.clip(image.numpy(), 0.01, 0.99)
    assert (twice * magnitude**2).sum() == pytest.approx((np.log(bounded / (1 - bounded)) ** 2).sum())


def test_black_and_white_are_as_far_from_grey_as_one_percent() -> None:
    image = torch.zeros(1, 1, 8, 8)
    assert float(spectrum(image, 8, color="none").magnitude[0, 0, 0]) == pytest.approx(8 * np.log(99), rel=1e-5)


def test_larger_pictures_are_cut_around_their_centre_and_shrunk() -> None:
    centre = pictures(1, (16, 16), 1)
    wide = torch.cat(
        [torch.ones(1, 1, 16, 9, dtype=torch.float64), centre, torch.zeros(1, 1, 16, 9, dtype=torch.float64)], 3
    )
    expected = spectrum(centre, 16, color="none")
    torch.testing.assert_close(spectrum(wide, 16, color="none").magnitude, expected.magnitude)
    torch.testing.assert_close(
        spectrum(wide.mT.contiguous(), 16, color="none").magnitude, spectrum(centre.mT, 16, color="none").magnitude
    )
    # A gradient stays one when it is halved: every two pixels become their mean, but for the ends.
    ramp = torch.linspace(0.25, 0.75, 32, dtype=torch.float64).expand(1, 1, 32, 32)
    halved = numpy_magnitude(ramp.numpy()[..., ::2, :].reshape(1, 1, 16, 16, 2).mean(-1), None)
    np.testing.assert_allclose(
        spectrum(ramp, 16, color="none").magnitude[:, 0, 1:4].numpy(), halved[:, 0, 1:4], rtol=0.02
    )
    # Not square: the same shape is kept as it is, at half the size.
    assert spectrum(torch.full((1, 1, 12, 20), 0.75), (6, 10), color="none").magnitude[0, 0, 0] == pytest.approx(
        60**0.5 * np.log(3)
    )


@pytest.mark.parametrize("size", [(3, 8), 2, (16, 3)])
def test_sizes_without_a_spectrum_are_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="size must be at least 4 pixels on each side"):
        AmplitudeSpectrum(size)
    with pytest.raises(ValueError, match="size must be at least 4 pixels on each side"):
        SpectrumStatistics(torch.ones(1, 8, 5), 8, 1).resized(size)


def test_pictures_are_never_enlarged() -> None:
    message = r"images: 8 x 20 pixels are too few for size \(10, 10\).*size of at most 8"
    with pytest.raises(ValueError, match=message):
        spectrum(pictures(1, (8, 20)), 10)


def test_what_is_no_spectrum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"magnitude must be .*got shape \(1, 8, 4\)"):
        SpectrumStatistics(torch.ones(1, 8, 4), 8, 1)
    with pytest.raises(ValueError, match="finite and not negative"):
        SpectrumStatistics(-torch.ones(1, 8, 5), 8, 1)
    with pytest.raises(ValueError, match="finite and not negative"):
        SpectrumStatistics(torch.full((1, 8, 5), float("nan")), 8, 1)
    with pytest.raises(ValueError, match=r"matrix: shape \(3, 3\) does not fit 1 channels"):
        SpectrumStatistics(torch.ones(1, 8, 5), 8, 1, torch.eye(3))


def test_the_result_is_a_copy_that_survives_copying() -> None:
    magnitudes = torch.ones(1, 8, 5, dtype=torch.float64)
    result = SpectrumStatistics(magnitudes, 8, 3, torch.eye(1))
    magnitudes.zero_()
    for duplicate in (result, copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert float(duplicate.magnitude.sum()) == 40.0
        assert repr(duplicate) == repr(result)


# Other sizes.


@pytest.mark.parametrize("old", [(16, 16), (12, 20), (9, 15)])
@pytest.mark.parametrize("new", [(8, 8), (32, 32), (24, 10), (7, 31), (4, 4)])
def test_one_over_the_frequency_stays_that_at_every_size(old: tuple[int, int], new: tuple[int, int]) -> None:
    # A spectrum like that of photos has the same magnitude at the same cycles per pixel, whatever the size: the
    # orthonormal transform.
    def ideal(size: tuple[int, int]) -> Tensor:
        magnitude = 3.0 / spectrum_scale(size, -1.0).double()
        magnitude[0, 0] = 7.0 * (size[0] * size[1]) ** 0.5
        return magnitude[None]

    template = ideal(old)
    result = SpectrumStatistics(template, old, 5).resized(new)
    assert (result.size, result.count) == (new, 5)
    below = spectrum_scale(new) == float(max(new))  # there, spectrum_scale is bounded
    below[0, 0] = False
    expected = ideal(new)
    np.testing.assert_allclose(result.magnitude[:, ~below].numpy(), expected[:, ~below].numpy(), rtol=1e-5)


def test_the_same_size_changes_nothing() -> None:
    template = SpectrumStatistics(pictures(1, (8, 5), 2)[0], 8, 3, torch.eye(2))
    assert torch.equal(template.resized(8).magnitude, template.magnitude)
    assert torch.equal(template.resized((8, 8)).magnitude, template.magnitude)


@pytest.mark.parametrize("new", [(6, 6), (12, 12), (9, 14), (14, 9), (5, 5)])
def test_a_resized_spectrum_is_that_of_real_pictures(new: tuple[int, int]) -> None:
    result = spectrum(pictures(3, (8, 8)), 8).resized(new).magnitude.numpy()
    # Of a real picture: any phases that are antisymmetric; so a spectrum with these magnitudes comes back unchanged.
    phases = np.angle(np.fft.rfft2(pictures(1, new, 3, seed=5).numpy()[0] - 0.5))
    decoded = np.fft.irfft2(result * np.exp(1j * phases), s=new, norm="ortho")
    np.testing.assert_allclose(np.abs(np.fft.rfft2(decoded, norm="ortho")), result, atol=1e-9)
    assert bool((result > 0).all())


def test_directions_are_kept() -> None:
    # Stripes: energy along one axis only.
    magnitude = torch.full((1, 16, 9), 0.01)
    magnitude[0, 0] = 1.0
    for new in (8, 24):
        result = SpectrumStatistics(magnitude, 16, 1).resized(new).magnitude[0]
        assert float(result[0, 1:].min()) > 20 * float(result[2:-1, 0].max())


@needs_shared
def test_photos_have_the_resized_spectrum_at_another_size() -> None:
    folder = str(SHARED / "data" / "imagenet-samples")
    sizes = [(64, 64), (112, 112), (64, 96)]
    metrics = [AmplitudeSpectrum(size) for size in sizes]
    for path in photo_paths(folder, 200):
        with Pillow.open(path) as photo:
            if min(photo.size) < 224:  # only such as are shrunk for every size, so that all are equally sharp
                continue
        pixels = read_picture(path)[None]
        for metric in metrics:
            metric.update(pixels)
    measured = {metric.size: metric.compute() for metric in metrics}
    for old, new in [(sizes[1], sizes[0]), (sizes[0], sizes[1]), (sizes[1], sizes[2])]:
        result, expected = measured[old].resized(new).magnitude.clone(), measured[new].magnitude.clone()
        ratio = (result / expected)[:, 1:]
        assert 0.85 < float(ratio.median()) < 1.15
        assert float(((ratio > 0.6) & (ratio < 1.6)).double().mean()) > 0.95
        assert float((result[:, 0, 0] / expected[:, 0, 0]).log().abs().max()) < 0.2
        result[:, 0, 0] = expected[:, 0, 0] = 0.0
        # The contrast of pictures with random phases.
        assert float(result.norm() / expected.norm()) == pytest.approx(1.0, abs=0.08)


def decoded(statistics: Any, size: int, count: int = 30) -> Tensor:
    """Return pictures with the measured magnitude and random phases."""
    magnitude = statistics.spectrum.resized(size).magnitude.numpy()
    phases = np.random.default_rng(0).uniform(-np.pi, np.pi, size=(count, *magnitude.shape))
    latent = np.fft.irfft2(magnitude * np.exp(1j * phases), s=(size, size), norm="ortho")
    mixed = np.einsum("dc,nchw->ndhw", statistics.matrix.numpy(), latent)
    return torch.from_numpy(1 / (1 + np.exp(-mixed)))


@pytest.mark.parametrize("size", [64, 128, 224])
def test_the_shipped_spectrum_has_the_contrast_and_the_colors_of_photos(size: int) -> None:
    result = decoded(natural_statistics(), size)
    # Of the photos at 128 pixels: they deviate by 0.216 from their mean; neighbouring channels correlate by 0.91, 0.82
    # and 0.92.
    assert float(result.std((2, 3)).mean()) == pytest.approx(0.216, rel=0.15)
    correlations = torch.stack([torch.corrcoef(picture.flatten(1)) for picture in result]).mean(0)
    for (first, second), photos in {(0, 1): 0.912, (0, 2): 0.823, (1, 2): 0.921}.items():
        assert float(correlations[first, second]) == pytest.approx(photos, abs=0.04)
