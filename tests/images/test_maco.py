"""Phase, magnitude and transparency of MACO, in numpy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from toys import toy

from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import MacoImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.numerics.color import color_matrix
from featviz_pl.objectives import Channel
from featviz_pl.statistics import ColorStatistics, SpectrumStatistics, Statistics, natural_statistics

Array = NDArray[np.float64]
SIZES = [(8, 8), (5, 7), (6, 9), (9, 4), (4, 2), (3, 1), (1, 5)]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def template(channels: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Return the magnitude of a random real picture: symmetric, as every such magnitude is."""
    return torch.abs(
        torch.fft.rfft2(torch.randn(channels, *size, generator=generator(seed), dtype=torch.float64), norm="ortho")
    )


def drawn(size: tuple[int, int] = (6, 8), count: int = 2, channels: int = 3, **more: Any) -> MacoImage:
    image = MacoImage(
        size, count, channels=channels, **{"color": "none", "spectrum": template(channels, size), **more}
    ).double()
    with torch.no_grad():
        image.required_weight().copy_(
            torch.randn(image.required_weight().shape, generator=generator(1), dtype=torch.float64)
        )
    return image


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_magnitude_of_the_decoded_picture_is_the_template(size: tuple[int, int], channels: int) -> None:
    image = drawn(size, channels=channels)
    latent = image.decode_latent(image.required_weight()).detach().numpy()
    found = np.abs(np.fft.rfft2(latent, norm="ortho"))
    expected = template(channels, size).numpy()
    np.testing.assert_allclose(
        found, np.broadcast_to(expected, found.shape), rtol=0, atol=1e-6
    )  # the template is kept in float32
    assert (latent.mean((2, 3)) > 0).all(), "the mean is real and positive"


def xplique(phase: Array, magnitude: Array, size: tuple[int, int]) -> Array:
    """Decode one picture (C, H, W): the published standardisation, then a whole spectrum with the symmetry of real pictures."""
    phase = phase - np.mean(phase)
    phase = phase / (np.std(phase) + 1e-5)
    height, width = size
    spectrum = np.zeros((len(phase), height, width), dtype=complex)
    for row in range(height):
        for column in range(width // 2 + 1):
            mirrored = (-row) % height, (-column) % width
            angle = phase[:, row, column]
            if mirrored[1] == column:  # both of the pair are in the half spectrum
                angle = (angle - phase[:, mirrored[0], column]) / 2
            spectrum[:, row, column] = magnitude[:, row, column] * np.exp(1j * angle)
            spectrum[:, mirrored[0], mirrored[1]] = np.conj(spectrum[:, row, column])
    picture = np.fft.ifft2(spectrum) * np.sqrt(height * width)
    assert np.abs(picture.imag).max() < 1e-9
    return np.asarray(picture.real)


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_is_made_of_its_standardised_phase(size: tuple[int, int]) -> None:
    image = drawn(size, color="imagenet")
    magnitude = image.magnitude.double().numpy()
    matrix = color_matrix("imagenet", 3)
    assert matrix is not None
    for picture, phase in zip(image().detach().numpy(), image.required_weight().detach().numpy()):
        mixed = np.einsum("dc,chw->dhw", matrix.numpy().astype(float), xplique(phase, magnitude, size))
        np.testing.assert_allclose(picture, 1 / (1 + np.exp(-mixed)), rtol=0, atol=1e-7)


def test_shift_and_scale_of_the_phase_change_nothing() -> None:
    image = drawn()
    weight = image.required_weight().detach()
    torch.testing.assert_close(image.decode_latent(3.0 * weight + 2.0), image.decode_latent(weight), rtol=0, atol=1e-4)


def test_a_lopsided_template_is_made_symmetric() -> None:
    lopsided = torch.ones(1, 4, 3)
    lopsided[0, 1, 0], lopsided[0, 3, 0] = 3.0, 5.0
    image = drawn((4, 4), channels=1, spectrum=lopsided)
    found = torch.fft.rfft2(image.decode_latent(image.required_weight()), norm="ortho").abs()
    assert found[0, 0, :, 0].round(decimals=4).tolist() == [1.0, 4.0, 1.0, 4.0]
    assert lopsided[0, 1, 0] == 3.0


def test_natural_pictures_have_the_contrast_of_photos() -> None:
    image = MacoImage(128, 2)
    image.initialize(2, generator(0))
    # The docstring of AmplitudeSpectrum says what was measured: 0.20 with random phases, 0.22 for photos.
    assert 0.12 < float(image().detach().std((2, 3)).mean()) < 0.28
    np.testing.assert_allclose(
        without_mean(image.magnitude), without_mean(natural_statistics().spectrum.magnitude), rtol=1e-3
    )


def without_mean(magnitude: Tensor) -> Array:
    return magnitude.flatten(1)[:, 1:].numpy()


@pytest.mark.parametrize("size", [(64, 64), (48, 65)])
def test_pictures_have_the_mean_color_of_the_statistics(size: tuple[int, int]) -> None:
    natural = natural_statistics()
    image = MacoImage(size, 2)
    image.initialize(2, generator(0))
    mean = natural.mean.double().numpy()
    latent = np.linalg.inv(natural.matrix.double().numpy()) @ np.log(mean / (1 - mean))
    decoded = image.decode_latent(image.required_weight()).detach().mean((2, 3)).numpy()
    np.testing.assert_allclose(decoded, np.stack([latent, latent]), rtol=0, atol=1e-4)
    # The sigmoid of a spread is not quite the sigmoid of its mean.
    np.testing.assert_allclose(image().detach().mean((0, 2, 3)).numpy(), mean, rtol=0, atol=0.04)


@pytest.mark.parametrize("size", [(64, 64), (48, 65)])
def test_statistics_come_as_a_name_a_file_an_object_and_a_part_of_one(size: tuple[int, int], tmp_path: Path) -> None:
    natural = natural_statistics()
    expected = natural.spectrum.resized(size).magnitude.numpy()
    given = [
        "natural",
        str(natural.save(tmp_path / "own.pt")),
        natural,
        natural.spectrum,
        SimpleNamespace(spectrum=natural.spectrum),
    ]
    for spectrum in [*given, torch.from_numpy(expected), expected]:
        image = MacoImage(size, 1, spectrum=spectrum)
        np.testing.assert_allclose(without_mean(image.magnitude), without_mean(torch.from_numpy(expected)), rtol=2e-3)
        assert image().shape == (1, 3, *size)
        assert str(tmp_path) not in repr(image)


def test_auto_colors_are_those_the_spectrum_was_measured_in() -> None:
    matrix = torch.tensor([[0.9, 0.1, 0.0], [0.9, 0.0, 0.1], [0.9, -0.1, 0.0]])
    for held in (matrix, None):
        measured = SpectrumStatistics(template(3, (8, 8)), 8, 1, held)
        image = MacoImage(8, 1, spectrum=measured)
        assert (image.color_matrix is None) == (held is None)
        if held is not None and image.color_matrix is not None:
            torch.testing.assert_close(image.color_matrix, matrix)
        assert "color='auto'" in repr(image)
    assert MacoImage(8, 1, color="none", spectrum=natural_statistics()).color_matrix is None
    for color in ("auto", "imagenet"):
        torch.testing.assert_close(
            MacoImage(8, 1, color=color, spectrum=template(3, (8, 8))).color_matrix, color_matrix("imagenet", 3)
        )


def test_a_picture_it_starts_from_lends_its_phase() -> None:
    given = 0.2 + 0.6 * torch.rand(2, 3, 6, 9, generator=generator(0), dtype=torch.float64)
    image = MacoImage((6, 9), color="none", spectrum=template(3, (6, 9))).double()
    image.start_from(given)
    assert bool(image.initialized)
    phase = np.angle(np.fft.rfft2(np.log(given.numpy() / (1 - given.numpy()))))
    found = np.angle(np.fft.rfft2(image.decode_latent(image.required_weight()).detach().numpy()))
    free = np.ones(phase.shape, dtype=bool)
    free[:, :, [0, 3], 0] = False  # a frequency that is its own negative has no phase; its sign is positive here
    np.testing.assert_allclose(np.exp(1j * found[free]), np.exp(1j * phase[free]), rtol=0, atol=1e-6)


def test_a_picture_with_the_template_s_magnitude_comes_back() -> None:
    given = drawn()().detach()
    image = MacoImage((6, 8), color="none", spectrum=template(3, (6, 8))).double()
    image.start_from(given)
    torch.testing.assert_close(image(), given, rtol=0, atol=1e-3)
    kept = MacoImage((6, 8), color="none", spectrum=template(3, (6, 8)))
    kept.load_state_dict(image.state_dict())
    torch.testing.assert_close(kept().double(), given, rtol=0, atol=1e-3)


def test_a_started_picture_can_still_move() -> None:
    image = drawn()
    image.start_from(drawn()().detach())
    image().square().sum().backward()
    gradient = image.required_weight().grad
    assert gradient is not None
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().max()) > 1e-4


def importance(seed: int = 3) -> Tensor:
    return torch.randn(2, 3, 6, 8, generator=generator(seed), dtype=torch.float64)


def test_transparency_is_the_sum_of_the_gradient_s_magnitude() -> None:
    image, expected = drawn(), np.zeros((2, 6, 8))
    assert image.transparency is not None
    for seed in (3, 4):
        wanted = importance(seed)
        (image() * wanted).sum().backward()
        expected += np.abs(wanted.numpy()).mean(1)
    np.testing.assert_allclose(image.transparency.numpy(), expected, rtol=1e-12)


def test_listening_changes_no_gradient() -> None:
    image = drawn()
    (image() * importance()).sum().backward()
    silent = drawn()
    (silent.to_rgb(silent.decode_latent(silent.required_weight())) * importance()).sum().backward()
    assert image.required_weight().grad is not None
    torch.testing.assert_close(image.required_weight().grad, silent.required_weight().grad, rtol=0, atol=0)


def test_without_gradients_nothing_is_recorded() -> None:
    image = drawn()
    assert image.transparency is not None
    with torch.no_grad():
        image()
    image().detach().sum()
    assert not image.transparency.any()
    image.required_weight().requires_grad_(False)
    assert not image().requires_grad


def test_what_is_not_finite_never_reaches_the_transparency() -> None:
    image = drawn()
    wanted = importance()
    wanted[0, 0, 0, 0], wanted[1, 0, 0, 1] = float("nan"), float("inf")
    (image() * wanted).sum().backward()
    assert image.transparency is not None
    assert bool(torch.isfinite(image.transparency).all())
    assert float(image.transparency[0, 0, 0]) == 0.0
    assert float(image.transparency[0, 0, 1]) == pytest.approx(float(wanted[0, :, 0, 1].abs().mean()))


def test_in_a_run_only_the_phase_moves_and_eight_at_once_are_eight_alone() -> None:
    spectrum = template(3, (12, 9))

    def run(units: list[int]) -> MacoImage:
        image = MacoImage((12, 9), spectrum=spectrum).double()
        problem = Ascent(image, FrozenNetwork(toy().double()), Channel("features.5", units))
        problem.prepare(dtype=torch.float64)
        ascend(problem, steps=3, optimizer=lambda weights: torch.optim.NAdam(weights, lr=1.0))
        return image

    together = run(list(range(8)))
    assert [name for name, weight in together.named_parameters() if weight.requires_grad] == ["weight"]
    assert not together.template.requires_grad
    latent = together.decode_latent(together.required_weight()).detach().numpy()
    found = np.abs(np.fft.rfft2(latent, norm="ortho"))
    np.testing.assert_allclose(found, np.broadcast_to(spectrum.numpy(), found.shape), rtol=0, atol=1e-6)
    for unit in range(8):
        alone = run([unit])
        torch.testing.assert_close(together().detach()[unit], alone().detach()[0], rtol=0, atol=1e-10)
    assert not torch.equal(together()[0], together()[1])


def test_the_mask_is_clipped_at_a_percentile_of_each_picture() -> None:
    image = drawn((5, 4), 2)
    assert image.transparency is not None
    wanted = np.random.default_rng(0).uniform(size=(2, 5, 4)) ** 3
    image.transparency.copy_(torch.from_numpy(wanted))
    for percentile in (50.0, 80.0, 100.0):
        expected = [np.clip(own, None, np.percentile(own, percentile)) for own in wanted]
        expected = [own / own.max() for own in expected]
        np.testing.assert_allclose(image.mask(percentile)[:, 0].numpy(), np.stack(expected), rtol=1e-12)
    torch.testing.assert_close(image.mask(), image.mask(80))
    assert image.rgba().shape == (2, 4, 5, 4)
    assert torch.equal(image.rgba()[:, :3], image())
    assert torch.equal(image.rgba(50)[:, 3:], image.mask(50))


def test_pictures_that_nothing_was_wanted_of_are_opaque() -> None:
    image = drawn((5, 4), 2)
    assert image.transparency is not None
    image.transparency[1, 2, 3] = 7.0  # most pixels want nothing, so the percentile is zero
    assert image.mask()[0].unique().tolist() == [1.0]
    assert image.mask()[1].sum() == 1.0
    assert float(image.mask()[1, 0, 2, 3]) == 1.0


@pytest.mark.parametrize("percentile", [0.0, 101.0, float("nan")])
def test_percentiles_that_cannot_be_are_refused(percentile: float) -> None:
    with pytest.raises(ValueError, match="percentile must be above 0 and at most 100"):
        drawn().mask(percentile)


def test_own_statistics_of_one_channel_serve_pictures_of_one_channel() -> None:
    color = ColorStatistics(torch.tensor([0.5]), torch.tensor([[0.05]]), 100)
    own = Statistics(color, SpectrumStatistics(template(1, (8, 8)), 8, 1, color.matrix))
    image = MacoImage((8, 12), 1, channels=1, spectrum=own)
    assert image().shape == (1, 1, 8, 12)
    with pytest.raises(RuntimeError, match="the image holds no pictures yet"):
        MacoImage(8).mask()
