from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image as Pillow
from torch import Tensor
from torchmetrics import Metric
from toys import SHARED, needs_shared

from featviz_pl.io import read_picture, save_png
from featviz_pl.metrics import (
    ClippedShare,
    ColorDistance,
    HighFrequencyShare,
    PictureMetric,
    SpectrumSlope,
    VariationPerPixel,
    natural_slope,
)
from featviz_pl.metrics.spectrum import luminance
from featviz_pl.statistics import ColorStatistics, natural_statistics


def each(metric: PictureMetric, pictures: Tensor) -> Tensor:
    """Return the value of every picture."""
    metric.reduction = "none"
    metric.update(pictures)
    return metric.compute()


def drawn(count: int = 3, channels: int = 3, height: int = 7, width: int = 9, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, height, width, generator=generator, dtype=torch.float64)


# Clipped values.


def test_the_two_outermost_of_256_levels_count_as_clipped_at_each_end() -> None:
    levels = torch.arange(256, dtype=torch.float32).view(256, 1, 1, 1) / 255
    expected = torch.tensor([float(level in (0, 1, 254, 255)) for level in range(256)], dtype=torch.float64)
    assert torch.equal(each(ClippedShare(), levels), expected)
    assert torch.equal(each(ClippedShare(), levels.double()), expected)


@pytest.mark.parametrize(("level", "clipped"), [(0.0, {0, 255}), (4 / 255, {0, 1, 2, 3, 4, 251, 252, 253, 254, 255})])
def test_the_level_says_how_near_is_clipped(level: float, clipped: set[int]) -> None:
    levels = torch.arange(256, dtype=torch.float32).view(256, 1, 1, 1) / 255
    assert {index for index, value in enumerate(each(ClippedShare(level), levels).tolist()) if value} == clipped


def test_every_channel_of_every_pixel_counts_for_the_share() -> None:
    picture = torch.full((1, 3, 2, 2), 0.5)
    picture[0, 0, 0, 0], picture[0, 1, 0, 0], picture[0, 2, 1, 1] = 0.0, 1.0, 1.0
    assert each(ClippedShare(), picture).item() == 0.25


# Colors.


def numpy_distance(
    picture: np.ndarray[Any, Any], mean: np.ndarray[Any, Any], covariance: np.ndarray[Any, Any]
) -> float:
    """Return the distance with the root of the product of covariances, whose eigenvalues are those of the symmetric form."""
    pixels = picture.reshape(len(picture), -1)
    own = np.atleast_2d(np.cov(pixels, bias=True))
    product = np.linalg.eigvals(own @ covariance)
    common = np.sqrt(np.clip(product.real, 0, None)).sum()
    return float(np.sqrt(((pixels.mean(1) - mean) ** 2).sum() + np.trace(own) + np.trace(covariance) - 2 * common))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_color_distance_is_numpy_s(channels: int) -> None:
    draw = np.random.default_rng(channels)
    root = draw.normal(size=(channels, channels)) * 0.2
    photos = ColorStatistics(draw.uniform(size=channels).tolist(), (root @ root.T).tolist(), 10)
    pictures = drawn(4, channels)
    expected = [numpy_distance(picture, photos.mean.numpy(), photos.covariance.numpy()) for picture in pictures.numpy()]
    np.testing.assert_allclose(each(ColorDistance(photos), pictures).numpy(), expected, rtol=1e-9)


def test_independent_channels_are_as_far_apart_as_their_means_and_deviations() -> None:
    # All four combinations of two signs: covariance diag(a², b²), which commutes with another diagonal one.
    signs = torch.tensor([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]], dtype=torch.float64)
    picture = torch.tensor([[0.5], [0.4]]) + torch.tensor([[0.3], [0.1]]) * signs
    photos = ColorStatistics([0.45, 0.6], [[0.2**2, 0.0], [0.0, 0.25**2]], 10)
    expected = math.sqrt(0.05**2 + 0.2**2 + 0.1**2 + 0.15**2)
    assert each(ColorDistance(photos), picture.view(1, 2, 2, 2)).item() == pytest.approx(expected, rel=1e-6)


def test_a_set_of_colors_is_no_distance_from_itself_also_where_they_are_grey() -> None:
    for pictures in (drawn(1), drawn(1, 1).expand(1, 3, 7, 9), torch.full((1, 3, 4, 4), 0.25)):
        pixels = pictures[0].flatten(1).double().numpy()
        own = ColorStatistics(pixels.mean(1).tolist(), np.cov(pixels, bias=True).tolist(), 63)
        assert each(ColorDistance(own), pictures).item() < 1e-6


def test_shipped_statistics_are_the_default_and_may_be_given_as_object_or_file(tmp_path: Path) -> None:
    natural, pictures = natural_statistics(), drawn()
    expected = each(ColorDistance(), pictures)
    path = str(natural.save(tmp_path / "own.pt"))
    for given in (natural, natural.color, path):
        assert torch.equal(each(ColorDistance(given), pictures), expected)
    np.testing.assert_allclose(
        expected.numpy(),
        [numpy_distance(picture, natural.mean.numpy(), natural.covariance.numpy()) for picture in pictures.numpy()],
    )
    assert repr(ColorDistance(path)) == f"ColorDistance(statistics={path!r}, reduction='mean')"


# Neighbours.


def test_variation_is_the_mean_difference_down_and_across() -> None:
    pictures = drawn()
    expected = np.abs(np.diff(pictures.numpy(), axis=2)).mean((1, 2, 3)) + np.abs(
        np.diff(pictures.numpy(), axis=3)
    ).mean((1, 2, 3))
    np.testing.assert_allclose(each(VariationPerPixel(), pictures).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("size", [2, 5, 64])
def test_a_checkerboard_has_the_largest_variation_at_any_size(size: int) -> None:
    board = (torch.arange(size)[:, None] + torch.arange(size)) % 2
    assert each(VariationPerPixel(), board.float().expand(1, 3, size, size)).item() == 2.0


def test_tiling_a_picture_does_not_change_its_variation_much_but_enlarging_halves_it() -> None:
    picture = drawn(1, 3, 64, 64)
    alone = each(VariationPerPixel(), picture).item()
    assert alone == pytest.approx(2 / 3, rel=0.02)  # the mean difference of two uniform numbers is 1/3
    assert each(VariationPerPixel(), picture.repeat(1, 1, 2, 3)).item() == pytest.approx(alone, rel=0.02)
    enlarged = picture.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert each(VariationPerPixel(), enlarged).item() == pytest.approx(alone / 2, rel=0.02)


# Spectra.


def power_law(slope: float, size: tuple[int, int], count: int = 16, seed: int = 0) -> Tensor:
    """Return pictures whose amplitude is exactly ``f ** slope``, with random phases, by numpy."""
    spectrum = np.fft.fft2(np.random.default_rng(seed).normal(size=(count, *size)))
    length = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None])
    length[0, 0] = 1.0
    waves = np.fft.ifft2(spectrum / np.abs(spectrum) * length**slope).real
    waves -= waves.mean((1, 2), keepdims=True)
    return torch.from_numpy(0.5 + 0.5 * waves / np.abs(waves).max((1, 2), keepdims=True))[:, None]


@pytest.mark.parametrize("slope", [0.0, -0.5, -1.0, -1.25, -2.0])
@pytest.mark.parametrize("size", [(96, 96), (128, 128), (224, 224), (96, 200), (160, 112)])
def test_pictures_made_with_a_slope_have_it_at_any_size(slope: float, size: tuple[int, int]) -> None:
    count = 48 if min(size) < 200 else 12
    assert each(SpectrumSlope(), power_law(slope, size, count)).mean().item() == pytest.approx(slope, abs=0.05)


def test_a_large_picture_has_the_slope_that_it_was_made_with() -> None:
    assert each(SpectrumSlope(), power_law(-1.25, (512, 512), 2)).mean().item() == pytest.approx(-1.25, abs=0.05)


def test_a_part_of_a_picture_has_the_slope_of_the_whole_although_its_edges_do_not_meet() -> None:
    parts = power_law(-1.25, (300, 300), 12)[..., 20:148, 100:228]
    assert each(SpectrumSlope(), parts).mean().item() == pytest.approx(-1.25, abs=0.06)


def test_colors_count_by_their_luminance() -> None:
    red, blue = power_law(-1.0, (96, 96), 2), power_law(-2.0, (96, 96), 2, seed=1)
    pictures = torch.cat([red, torch.full_like(red, 0.5), blue], dim=1)
    levels = (pictures * 255).round().to(torch.uint8)
    for picture, grey in zip(levels, luminance(levels / 255)):
        by_pillow = np.asarray(Pillow.fromarray(picture.permute(1, 2, 0).numpy()).convert("L"))
        np.testing.assert_allclose(grey.numpy() * 255, by_pillow, atol=1.0)
    grey = 0.299 * red + 0.587 * 0.5 + 0.114 * blue
    torch.testing.assert_close(each(SpectrumSlope(), pictures), each(SpectrumSlope(), grey))
    torch.testing.assert_close(each(SpectrumSlope(), grey.expand(-1, 5, -1, -1)), each(SpectrumSlope(), grey))


def test_contrast_and_brightness_do_not_change_the_slope() -> None:
    pictures = power_law(-1.2, (96, 96), 4)
    torch.testing.assert_close(
        each(SpectrumSlope(), 0.1 * pictures + 0.7), each(SpectrumSlope(), pictures), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    ("frequency", "counts"), [(2 / 224, False), (0.05, True), (0.3, True), (0.4, False), (0.5, False)]
)
def test_what_is_beyond_the_ends_of_the_line_does_not_count(frequency: float, counts: bool) -> None:
    pictures = 0.5 + 0.3 * (power_law(-1.25, (224, 224), 2) - 0.5)
    with_wave = pictures + 0.7 * (wave(frequency, (224, 224)) - 0.5)
    difference = (each(SpectrumSlope(), with_wave) - each(SpectrumSlope(), pictures)).abs().min().item()
    assert difference > 0.1 if counts else difference < 1e-4


def wave(frequency: float, size: tuple[int, int] = (64, 64), down: bool = False) -> Tensor:
    places = torch.arange(size[0] if down else size[1], dtype=torch.float64)
    values = 0.5 + 0.4 * torch.cos(2 * math.pi * frequency * places)
    return (values[:, None] if down else values[None]).expand(1, 1, *size)


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize(
    ("frequency", "cutoff", "share"), [(0.125, 0.25, 0), (0.375, 0.25, 1), (0.21, 0.15, 1), (0.11, 0.15, 0)]
)
def test_a_wave_lies_on_its_side_of_the_cutoff(frequency: float, cutoff: float, share: float, down: bool) -> None:
    value = each(HighFrequencyShare(cutoff), wave(frequency, (96, 80), down)).item()
    assert value == pytest.approx(share, abs=1e-3)


def test_the_share_is_one_of_power_and_of_all_channels() -> None:
    # A third of the amplitude has a ninth of the power: 1 / (1 + 9). In one channel of two, that is half of it: 1 / 20.
    low, high = wave(0.125) - 0.5, wave(0.375) - 0.5
    both = 0.5 + (3 * low + high) / 4
    assert each(HighFrequencyShare(), both).item() == pytest.approx(0.1, abs=1e-3)
    other = 0.5 + math.sqrt(10) / 4 * low
    assert each(HighFrequencyShare(), torch.cat([both, other], dim=1)).item() == pytest.approx(0.05, abs=1e-3)


def test_white_noise_has_the_share_of_the_area_above_the_cutoff() -> None:
    # A disc of radius r in the unit square of frequencies.
    for cutoff in (0.1, 0.25, 0.4):
        share = each(HighFrequencyShare(cutoff), drawn(4, 3, 128, 128)).mean().item()
        assert share == pytest.approx(1 - math.pi * cutoff**2, abs=0.01)


def test_a_slope_across_the_picture_is_no_fine_detail() -> None:
    # Without a window, the step from the right edge to the left would be: 7 % here.
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64).expand(1, 1, 64, 64)
    assert each(HighFrequencyShare(), ramp).item() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_flat_pictures_have_no_spectrum(level: float, dtype: torch.dtype) -> None:
    flat = torch.full((2, 3, 48, 40), level, dtype=dtype)
    for metric in (SpectrumSlope(), HighFrequencyShare()):
        torch.testing.assert_close(each(metric, flat), torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)


# Photos.


def script() -> Any:
    """Import the script that measured photos."""
    specification = importlib.util.spec_from_file_location(
        "natural_script", Path(__file__).parents[2] / "benchmarks" / "natural.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@needs_shared
def test_some_photos_have_the_values_that_are_said_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert script().main([str(SHARED / "data" / "imagenet-samples"), "--limit", "80", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] > 60
    said = {
        "ClippedShare": (0.034, 0.072),
        "ColorDistance": (0.254, 0.127),
        "SpectrumSlope": natural_slope(),
        "VariationPerPixel": (0.087, 0.047),
        "HighFrequencyShare": (0.069, 0.069),
    }
    assert set(found["metrics"]) == set(said)
    for name, (mean, deviation) in said.items():
        assert abs(found["metrics"][name]["mean"] - mean) < 4 * deviation / math.sqrt(found["pictures"]), name


def test_the_script_measures_files_too_and_says_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_png(drawn(1, 3, 40, 50)[0], tmp_path / "one.png")
    (tmp_path / "two.png").write_text("no picture")
    program = script()
    assert program.main([str(path), str(tmp_path / "two.png"), "--size", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pictures"], found["skipped"]) == (1, 1)
    expected = each(VariationPerPixel(), read_picture(path)[None]).item()
    assert found["metrics"]["VariationPerPixel"]["mean"] == pytest.approx(expected)
    assert program.main([str(path)]) == 2
    assert "none of 1 pictures" in capsys.readouterr().err
    assert program.main([str(path), "--size", "32", "--shrink"]) == 0
    assert "SpectrumSlope" in capsys.readouterr().out


# As metrics.


@pytest.mark.parametrize(
    ("kind", "arguments", "text"),
    [
        (ClippedShare, {"level": 0.01}, "ClippedShare(level=0.01, reduction='mean')"),
        (ColorDistance, {"reduction": "none"}, "ColorDistance(statistics=None, reduction='none')"),
        (SpectrumSlope, {}, "SpectrumSlope(reduction='mean')"),
        (VariationPerPixel, {"reduction": "none"}, "VariationPerPixel(reduction='none')"),
        (HighFrequencyShare, {"cutoff": 0.125}, "HighFrequencyShare(cutoff=0.125, reduction='mean')"),
    ],
)
# jsonargparse 4.53 deprecates the method that older ones have.
@pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_metrics_show_their_constructor_and_are_built_from_a_config(
    kind: Any, arguments: dict[str, Any], text: str
) -> None:
    assert repr(kind(**arguments)) == text
    assert repr(eval(text)) == text
    parser = ArgumentParser()
    parser.add_argument("--metric", type=Metric)
    config = {"class_path": f"featviz_pl.metrics.{kind.__name__}", "init_args": arguments}
    assert repr(parser.instantiate_classes(parser.parse_object({"metric": config})).metric) == text


def test_a_config_names_the_file_of_statistics_or_holds_them(tmp_path: Path) -> None:
    path = str(natural_statistics().save(tmp_path / "own.pt"))
    parser = ArgumentParser()
    parser.add_argument("--metric", type=Metric)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    photos = {
        "class_path": "featviz_pl.statistics.ColorStatistics",
        "init_args": {"mean": [0.5], "covariance": [[0.04]], "count": 9},
    }
    for given in (path, photos):
        config = {"class_path": "featviz_pl.metrics.ColorDistance", "init_args": {"statistics": given}}
        metric = instantiate(parser.parse_object({"metric": config})).metric
        assert isinstance(metric, ColorDistance)
        assert len(metric.natural_mean) == (3 if given is path else 1)


def test_colors_are_built_from_what_they_show() -> None:
    metric = ColorDistance(ColorStatistics([0.5], [[0.04]], 9))
    again = eval(repr(metric))
    assert repr(again) == repr(metric)
    assert torch.equal(again.natural_covariance, metric.natural_covariance)


def test_metrics_that_were_built_in_inference_mode_or_under_another_precision_work_later() -> None:
    pictures = drawn(2, 3, 40, 40).float()
    for kind in (ClippedShare, ColorDistance, SpectrumSlope, VariationPerPixel, HighFrequencyShare):
        expected = each(kind(), pictures)
        with torch.inference_mode():
            built = kind()
        assert torch.equal(each(built, pictures), expected)
        torch.set_default_dtype(torch.bfloat16)
        try:
            other = kind()
        finally:
            torch.set_default_dtype(torch.float32)
        assert torch.equal(each(other, pictures), expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(each(kind(), pictures), expected)
