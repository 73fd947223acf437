"""Statistics as arguments of parameterizations."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from featviz_pl import images
from featviz_pl.images import FourierImage, GrowingImage, LatentImage, MacoImage, PixelImage
from featviz_pl.presets import PRESETS
from featviz_pl.statistics import AmplitudeSpectrum, ColorStatistics, SpectrumStatistics, Statistics
from featviz_pl.statistics.arguments import as_statistics, image_arguments, read_color

MIX = torch.tensor([[0.2, 0.05, 0.0], [0.2, 0.0, 0.03], [0.2, -0.05, 0.0]], dtype=torch.float64)
MEAN = (0.3, 0.5, 0.6)


def toy_statistics(channels: int = 3) -> Statistics:
    """Return statistics with a color space of their own."""
    mix = MIX if channels == 3 else torch.ones(1, 1)
    color = ColorStatistics(torch.tensor(MEAN[:channels]), mix @ mix.T, 100)
    magnitude = torch.rand(channels, 8, 5, generator=torch.Generator().manual_seed(0)) + 0.1
    return Statistics(color, SpectrumStatistics(magnitude, 8, 3, color.matrix))


TAKES_COLOR = sorted(
    name
    for name in images.__all__
    if not inspect.isabstract(getattr(images, name))
    and issubclass(getattr(images, name), LatentImage)
    and name not in ("BallImage", "GeneratorImage")  # what they show is bound to a picture, or made by a network
)


def colored(image: Any) -> Tensor:
    matrix = image.color_matrix
    assert isinstance(matrix, Tensor)
    return matrix.double()


@pytest.mark.parametrize("name", TAKES_COLOR)
def test_every_parameterization_takes_measured_colors_as_an_object_or_a_file(name: str, tmp_path: Path) -> None:
    make, stats = getattr(images, name), toy_statistics()
    path = stats.save(tmp_path / "own.pt")
    for color_argument in (stats, stats.color, str(path), path):
        image = make(size=8, color=color_argument)
        torch.testing.assert_close(colored(image), stats.matrix, rtol=0, atol=1e-6)
        assert "color='own'" in repr(image)
        assert str(tmp_path) not in repr(image)
    image = make(size=8, channels=3, **image_arguments(make, stats))
    torch.testing.assert_close(colored(image), stats.matrix, rtol=0, atol=1e-6)


def test_the_table_is_not_empty() -> None:
    assert {"FourierImage", "PixelImage", "MacoImage", "LaplacianPyramidImage", "CPPNImage"} <= set(TAKES_COLOR)


def test_a_clip_is_about_the_mean_of_the_file(tmp_path: Path) -> None:
    image = PixelImage(4, 1, color=str(toy_statistics().save(tmp_path / "own.pt")), deviation=0.0, squash="clip")
    torch.testing.assert_close(image().detach()[0, :, 0, 0], torch.tensor(MEAN))


def test_a_spectrum_brings_its_own_channels() -> None:
    stats = toy_statistics()
    image = MacoImage(8, **image_arguments(MacoImage, stats))
    torch.testing.assert_close(
        image.magnitude[:, 1:, 1:4].double(), stats.spectrum.magnitude[:, 1:, 1:4], rtol=1e-5, atol=0
    )
    torch.testing.assert_close(colored(image), stats.matrix, rtol=0, atol=1e-6)
    fixed = partial(MacoImage, color="none", spectrum="natural")  # a recipe's own choice goes behind what is asked for
    torch.testing.assert_close(colored(fixed(8, **image_arguments(fixed, stats))), stats.matrix, rtol=0, atol=1e-6)


def test_an_image_of_stages_hands_the_colors_on() -> None:
    image = GrowingImage(8, sizes=[4, 8], **image_arguments(GrowingImage, toy_statistics()))
    for stage in image.stages:
        torch.testing.assert_close(colored(stage), toy_statistics().matrix, rtol=0, atol=1e-6)
    assert "tensor" not in repr(image)


def test_what_takes_neither_is_refused() -> None:
    def grey(size: Any, channels: int = 3) -> FourierImage:
        return FourierImage(size, channels=channels, color="none")

    with pytest.raises(ValueError, match=r"stats: the image .* has neither color nor spectrum"):
        image_arguments(grey, toy_statistics())


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"plug_in_inversion"}))
def test_every_preset_takes_statistics(preset: str) -> None:
    make = PRESETS[preset]().image
    image = make(size=8, channels=3, **image_arguments(make, toy_statistics()))
    torch.testing.assert_close(colored(image), toy_statistics().matrix, rtol=0, atol=1e-6)


def test_the_preset_of_grey_pixels_that_grow_says_that_it_takes_none() -> None:
    with pytest.raises(ValueError, match="choose another, such as 'fourier'"):
        image_arguments(PRESETS["plug_in_inversion"]().image, toy_statistics())


def test_a_spectrum_is_measured_in_the_channels_of_a_file(tmp_path: Path) -> None:
    pictures = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    matrices = []
    for color in (toy_statistics(), str(toy_statistics().save(tmp_path / "own.pt"))):
        spectrum = AmplitudeSpectrum(8, color)
        spectrum.update(pictures)
        matrices.append(spectrum.compute().magnitude)
    assert torch.equal(*matrices)


@pytest.mark.parametrize("color", ["auto", "imagenet", "i1i2i3", "none", None, [[1.0]], MIX])
def test_what_is_no_file_is_handed_on(color: Any) -> None:
    assert read_color(color, 3) is color


@pytest.mark.parametrize("make", [FourierImage, AmplitudeSpectrum])
def test_an_unknown_name_lists_the_names_and_says_that_there_is_no_file(make: Any, tmp_path: Path) -> None:
    message = "color: unknown color space '{}', and no file of that name; use 'auto', 'imagenet', 'i1i2i3', 'none', a 3 x 3 matrix, or a file"
    for name in ("imagnet", "stats.pt", str(tmp_path)):
        with pytest.raises(ValueError, match=message.format(name)):
            make(8, color=name)


@pytest.mark.parametrize("argument", ["color", "stats"])
def test_files_that_do_not_fit_are_named_with_their_argument(argument: str, tmp_path: Path) -> None:
    def read(path: Any) -> Any:
        return FourierImage(8, color=path) if argument == "color" else as_statistics(path, 3)

    text, grey = tmp_path / "text.pt", toy_statistics(1).save(tmp_path / "grey.pt")
    text.write_text("hello")
    with pytest.raises(
        ValueError,
        match=rf"{argument}: cannot read '.*text\.pt': .*; make statistics",
    ):
        read(text)
    with pytest.raises(
        ValueError,
        match=rf"{argument}: '.*grey\.pt' holds statistics of 1 channels, which do not fit 3",
    ):
        read(str(grey))


def test_objects_that_are_no_statistics_are_refused() -> None:
    assert as_statistics(toy_statistics(), 3).channels == 3
    assert as_statistics(toy_statistics(1)).channels == 1
    with pytest.raises(ValueError, match="stats: measured on pictures of 1 channels, which do not fit 3"):
        as_statistics(toy_statistics(1), 3)
    with pytest.raises(ValueError, match=r"stats: there is no file 'nowhere\.pt'"):
        as_statistics("nowhere.pt")
    color_argument: Any = toy_statistics().color
    with pytest.raises(
        TypeError, match="stats must be measured statistics or the path of their file, got ColorStatistics"
    ):
        as_statistics(color_argument)
