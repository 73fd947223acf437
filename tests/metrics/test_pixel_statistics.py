"""Clipped values, colors and variation of pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor
from torchmetrics import Metric

from featviz_pl.metrics import (
    ClippedShare,
    ColorDistance,
    HighFrequencyShare,
    PictureMetric,
    SpectrumSlope,
    VariationPerPixel,
)
from featviz_pl.statistics import ColorStatistics, natural_statistics


def each(metric: PictureMetric, pictures: Tensor) -> Tensor:
    """Return the value of every picture."""
    metric.reduction = "none"
    metric.update(pictures)
    return metric.compute()


def drawn(count: int = 3, channels: int = 3, height: int = 7, width: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, height, width, generator=generator, dtype=torch.float64)


# Clipped values.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("metric", "clipped"),
    [
        (ClippedShare(), {0, 1, 254, 255}),
        (ClippedShare(0.0), {0, 255}),
        (ClippedShare(4 / 255), {0, 1, 2, 3, 4, 251, 252, 253, 254, 255}),
    ],
    ids=repr,
)
def test_levels_near_the_ends_are_clipped(metric: ClippedShare, clipped: set[int], dtype: torch.dtype) -> None:
    metric.reset()
    levels = torch.arange(256, dtype=dtype).view(256, 1, 1, 1) / 255
    assert {index for index, value in enumerate(each(metric, levels).tolist()) if value} == clipped


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
    pixel_covariance = np.atleast_2d(np.cov(pixels, bias=True))
    common = np.sqrt(np.clip(np.linalg.eigvals(pixel_covariance @ covariance).real, 0, None)).sum()
    squared = ((pixels.mean(1) - mean) ** 2).sum() + np.trace(pixel_covariance) + np.trace(covariance) - 2 * common
    return float(np.sqrt(squared))


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


def test_colors_have_no_distance_from_themselves_also_where_they_are_grey() -> None:
    for pictures in (drawn(1), drawn(1, 1).expand(1, 3, 7, 9), torch.full((1, 3, 4, 4), 0.25)):
        pixels = pictures[0].flatten(1).double().numpy()
        statistics = ColorStatistics(pixels.mean(1).tolist(), np.cov(pixels, bias=True).tolist(), 63)
        assert each(ColorDistance(statistics), pictures).item() < 1e-6


def test_statistics_are_those_of_the_library_an_object_or_a_file(tmp_path: Path) -> None:
    natural, pictures = natural_statistics(), drawn()
    expected = each(ColorDistance(), pictures)
    path = str(natural.save(tmp_path / "natural.pt"))
    for statistics in (natural, natural.color, path):
        assert torch.equal(each(ColorDistance(statistics), pictures), expected)
    constants = natural.mean.numpy(), natural.covariance.numpy()
    np.testing.assert_allclose(expected, [numpy_distance(picture, *constants) for picture in pictures.numpy()])
    assert repr(ColorDistance(path)) == f"ColorDistance(statistics={path!r}, reduction='mean')"


# Variation.


def test_variation_is_the_mean_difference_down_and_across() -> None:
    down, across = (np.abs(np.diff(drawn().numpy(), axis=axis)).mean((1, 2, 3)) for axis in (2, 3))
    np.testing.assert_allclose(each(VariationPerPixel(), drawn()).numpy(), down + across, rtol=1e-12)


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


# As metrics.

# jsonargparse 4.53 deprecates the method that older ones have.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")
KINDS = [
    (ClippedShare, {"level": 0.01}, "ClippedShare(level=0.01, reduction='mean')"),
    (ColorDistance, {"reduction": "none"}, "ColorDistance(statistics=None, reduction='none')"),
    (SpectrumSlope, {}, "SpectrumSlope(reduction='mean')"),
    (VariationPerPixel, {"reduction": "none"}, "VariationPerPixel(reduction='none')"),
    (HighFrequencyShare, {"cutoff": 0.125}, "HighFrequencyShare(cutoff=0.125, reduction='mean')"),
]


def from_config(kind: Any, arguments: dict[str, Any]) -> Any:
    parser = ArgumentParser()
    parser.add_argument("--metric", type=Metric)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    config = {"class_path": f"featviz_pl.metrics.{kind.__name__}", "init_args": arguments}
    return instantiate(parser.parse_object({"metric": config})).metric


@pytest.mark.parametrize(("kind", "arguments", "text"), KINDS)
def test_metrics_show_their_constructor_and_are_built_from_a_config(
    kind: Any, arguments: dict[str, Any], text: str
) -> None:
    assert repr(kind(**arguments)) == text == repr(eval(text)) == repr(from_config(kind, arguments))


def test_a_config_names_the_file_of_statistics_or_holds_them(tmp_path: Path) -> None:
    path = str(natural_statistics().save(tmp_path / "natural.pt"))
    arguments = {"mean": [0.5], "covariance": [[0.04]], "count": 9}
    photos = {"class_path": "featviz_pl.statistics.ColorStatistics", "init_args": arguments}
    for statistics, channels in ((path, 3), (photos, 1)):
        assert len(from_config(ColorDistance, {"statistics": statistics}).natural_mean) == channels


def test_colors_are_built_from_their_representation() -> None:
    metric = ColorDistance(ColorStatistics([0.5], [[0.04]], 9))
    rebuilt = eval(repr(metric))
    assert repr(rebuilt) == repr(metric)
    assert torch.equal(rebuilt.natural_covariance, metric.natural_covariance)


@pytest.mark.parametrize("kind", [kind for kind, _, _ in KINDS])
def test_metrics_built_in_inference_mode_or_under_another_precision_work_later(kind: Any) -> None:
    pictures = drawn(2, 3, 40, 40).float()
    expected = each(kind(), pictures)
    with torch.inference_mode():
        built = kind()
    assert torch.equal(each(built, pictures), expected)
    torch.set_default_dtype(torch.bfloat16)
    try:
        built = kind()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(each(built, pictures), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(each(kind(), pictures), expected)
