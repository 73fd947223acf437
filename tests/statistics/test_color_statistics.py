from __future__ import annotations

import copy
import itertools
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image as Pillow
from torch import Tensor, nn
from torchmetrics import Metric
from toys import SHARED, needs_shared

from featviz_pl.images import FourierImage
from featviz_pl.statistics import AmplitudeSpectrum, ColorCovariance, ColorStatistics

PUBLISHED = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])  # lucid/optvis/param/color.py


def numpy_covariance(images: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return mean and covariance of pixels as columns."""
    pixels = np.moveaxis(images.astype(np.float64), 1, 0).reshape(images.shape[1], -1)
    return pixels.mean(axis=1), np.cov(pixels, bias=True)


def smooth(channels: int = 3, count: int = 20, size: int = 48, seed: int = 0) -> Tensor:
    """Return pictures of independent channels whose neighbouring pixels are nearly equal."""
    noise = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    spectrum = torch.fft.rfft2(noise)
    spectrum = spectrum * torch.exp(
        -200.0 * (torch.fft.fftfreq(size)[:, None] ** 2 + torch.fft.rfftfreq(size)[None] ** 2)
    )
    blurred = torch.fft.irfft2(spectrum, s=(size, size))
    return torch.sigmoid(2.0 * blurred / blurred.std())


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Return the centre of a thousand photos, so small that all have it, in the pixels of half their size."""
    pictures = []
    for path in sorted((SHARED / "data" / "imagenet-samples").glob("*.JPEG")):
        with Pillow.open(path) as photo:
            photo.draft(None, (photo.width // 2, photo.height // 2))
            levels = np.asarray(photo.convert("RGB"))
        top, left = (levels.shape[0] - 28) // 2, (levels.shape[1] - 28) // 2
        pictures.append(levels[top : top + 28, left : left + 28])
    assert len(pictures) == 1000
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def measured(images: Tensor, batch: int, metric: ColorCovariance | None = None) -> ColorStatistics:
    metric = metric or ColorCovariance(images.shape[1])
    for part in images.split(batch):
        metric.update(part)
    return metric.compute()


# Against numpy.


@needs_shared
@pytest.mark.parametrize("batch", [7, 1000])
def test_a_thousand_photos_have_numpy_s_covariance(photos: Tensor, batch: int) -> None:
    mean, covariance = numpy_covariance(photos.numpy())
    result = measured(photos, batch)
    assert result.count == 1000 * 28 * 28
    np.testing.assert_allclose(result.mean.numpy(), mean, atol=1e-9)
    np.testing.assert_allclose(result.covariance.numpy(), covariance, atol=1e-9)


@needs_shared
def test_mixed_pixels_would_be_noticed_on_photos(photos: Tensor) -> None:
    # What a library of the field does: (N, C, H, W) read as rows of C numbers, which are neighbours of one channel.
    _, covariance = numpy_covariance(photos.numpy())
    mixed = np.cov(photos.double().reshape(-1, 3).numpy().T, bias=True)
    assert np.abs(mixed - covariance).max() > 1e-3  # a thousand times what is allowed

    class Mixed(ColorCovariance):
        def update(self, images: Tensor) -> None:
            super().update(images.reshape(-1, 3).T.reshape(1, 3, 1, -1))

    with pytest.raises(AssertionError):
        np.testing.assert_allclose(measured(photos, 1000, Mixed()).covariance.numpy(), covariance, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
@pytest.mark.parametrize("batch", [1, 3, 20])
def test_any_number_of_channels_and_any_batch_size(channels: int, batch: int) -> None:
    images = smooth(channels, 20, 12)
    mean, covariance = numpy_covariance(images.numpy())
    result = measured(images, batch)
    np.testing.assert_allclose(result.mean.numpy(), mean, atol=1e-12)
    np.testing.assert_allclose(result.covariance.numpy(), np.atleast_2d(covariance), atol=1e-12)


def test_batches_may_differ_in_size_and_each_pixel_counts_the_same() -> None:
    large, small = smooth(3, 2, 24, 1), smooth(3, 3, 8, 2)
    metric = ColorCovariance()
    metric.update(large)
    metric.update(small)
    pixels = np.concatenate([np.moveaxis(images.numpy(), 1, 0).reshape(3, -1) for images in (large, small)], axis=1)
    np.testing.assert_allclose(metric.compute().covariance.numpy(), np.cov(pixels, bias=True), atol=1e-12)


def test_independent_smooth_channels_have_no_covariance() -> None:
    images = smooth()
    # What a library of the field does: reshaping without moving the channels takes three neighbouring pixels for one.
    mixed = np.corrcoef(images.numpy().reshape(-1, 3).T)
    assert mixed[0, 1] > 0.7
    assert mixed[0, 2] > 0.7
    result = measured(images, 6).covariance
    deviations = result.diagonal().sqrt()
    correlations = result / torch.outer(deviations, deviations)
    assert float((correlations - torch.eye(3, dtype=torch.float64)).abs().max()) < 0.15


def test_it_is_the_covariance_about_the_global_mean_not_the_mean_of_covariances() -> None:
    # Each picture is flat: no covariance within, all of it between.
    images = torch.tensor([[0.0, 0.2], [1.0, 0.6]])[:, :, None, None].expand(2, 2, 4, 4)
    result = measured(images, 1)
    torch.testing.assert_close(result.mean, torch.tensor([0.5, 0.4], dtype=torch.float64))
    torch.testing.assert_close(result.covariance, torch.tensor([[0.25, 0.1], [0.1, 0.04]], dtype=torch.float64))


def test_pictures_made_with_a_covariance_have_it() -> None:
    # All eight combinations of signs have the unit matrix as covariance; mixing them by A makes it A Aᵀ.
    mix = np.array([[0.10, 0.02, 0.01], [0.11, 0.00, -0.03], [0.09, -0.04, 0.02]])
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=3))).T
    pixels = np.array([[0.4], [0.5], [0.6]]) + mix @ signs
    result = measured(torch.from_numpy(pixels.reshape(1, 3, 2, 4)), 1)
    np.testing.assert_allclose(result.mean.numpy(), [0.4, 0.5, 0.6], atol=1e-12)
    np.testing.assert_allclose(result.covariance.numpy(), mix @ mix.T, atol=1e-12)
    # The root mixes like A up to a rotation and the norm of its largest column.
    scale = np.sqrt(np.linalg.eigvalsh(mix @ mix.T).max())
    np.testing.assert_allclose(result.matrix.numpy() @ result.matrix.numpy().T * scale**2, mix @ mix.T, atol=1e-9)


# The matrix.


def test_the_matrix_of_the_published_covariance_is_the_published_one() -> None:
    # Lucid's root has columns that are orthogonal up to its two digits, so the decomposition gives them back.
    result = ColorStatistics(torch.zeros(3), torch.from_numpy(PUBLISHED @ PUBLISHED.T), 1).matrix.numpy()
    normalised = PUBLISHED / np.linalg.norm(PUBLISHED, axis=0).max()
    np.testing.assert_allclose(result, normalised, atol=0.016)
    assert np.linalg.norm(result, axis=0).max() == pytest.approx(1.0)


def test_signs_and_order_of_columns_are_settled() -> None:
    draw = np.random.default_rng(3)
    for _ in range(20):
        root = draw.normal(size=(4, 4))
        matrix = ColorStatistics(torch.zeros(4), torch.from_numpy(root @ root.T), 1).matrix
        assert bool((matrix[0] > 0).all())
        norms = matrix.norm(dim=0)
        assert bool((norms[:-1] >= norms[1:]).all())
        np.testing.assert_allclose(matrix.mT @ matrix, torch.diag(norms**2), atol=1e-9)


def test_a_first_entry_of_nothing_does_not_settle_a_sign() -> None:
    covariance = torch.diag(torch.tensor([0.01, 0.04, 0.09], dtype=torch.float64))
    expected = torch.tensor([[0, 0, 1 / 3], [0, 2 / 3, 0], [1, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(ColorStatistics(torch.zeros(3), covariance, 1).matrix, expected, atol=1e-6, rtol=0)


def test_grey_pictures_still_give_a_matrix_that_can_be_inverted() -> None:
    grey = smooth(1, 4).expand(-1, 3, -1, -1)
    result = measured(grey, 2)
    picture = FourierImage.from_image(grey[0], color=result)()
    torch.testing.assert_close(picture[0].double(), grey[0], atol=1e-3, rtol=0)
    flat = measured(torch.full((1, 3, 4, 4), 0.25), 1)
    torch.testing.assert_close(flat.covariance, torch.zeros(3, 3, dtype=torch.float64), atol=1e-15, rtol=0)
    assert int(torch.linalg.matrix_rank(flat.matrix)) == 3


def test_parameterizations_take_the_result_as_color() -> None:
    result = measured(smooth(), 20)
    image = FourierImage(8, 1, color=result)
    assert image.color_matrix is not None
    torch.testing.assert_close(image.color_matrix.double(), result.matrix, atol=1e-7, rtol=0)


# As a metric.


METRICS: list[Any] = [
    (ColorCovariance, {"channels": 2}, "ColorCovariance(channels=2)"),
    (AmplitudeSpectrum, {"size": 6, "channels": 2}, "AmplitudeSpectrum(size=(6, 6), color='auto', channels=2)"),
]


def states(metric: Metric) -> list[Tensor]:
    return [value.clone() for value in metric.metric_state.values() if isinstance(value, Tensor)]


@pytest.mark.parametrize(("kind", "arguments", "text"), METRICS)
def test_metrics_survive_copies_and_show_their_arguments(kind: Any, arguments: dict[str, Any], text: str) -> None:
    metric = kind(**arguments)
    assert repr(metric) == text
    assert repr(eval(text)) == text
    metric.update(smooth(2, 3, 12))
    for duplicate in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert all(torch.equal(first, second) for first, second in zip(states(metric), states(duplicate)))
        duplicate.update(smooth(2, 3, 12))
        assert duplicate.compute().count == 2 * metric.compute().count
    metric.reset()
    with (
        pytest.raises(ValueError, match="has seen no pictures yet"),
        pytest.warns(UserWarning, match="before the ``update`` method"),
    ):
        metric.compute()


# jsonargparse 4.53 deprecates the method that older ones have.
@pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")
@pytest.mark.parametrize(("kind", "arguments", "text"), METRICS)
def test_metrics_are_built_from_a_config(kind: Any, arguments: dict[str, Any], text: str) -> None:
    parser = ArgumentParser()
    parser.add_argument("--metric", type=Metric)
    config = {"class_path": f"featviz_pl.statistics.{kind.__name__}", "init_args": arguments}
    assert repr(parser.instantiate_classes(parser.parse_object({"metric": config})).metric) == text


@pytest.mark.parametrize(("kind", "arguments", "text"), METRICS)
def test_no_cast_reaches_the_sums(kind: Any, arguments: dict[str, Any], text: str) -> None:
    images = smooth(2, 5, 12).float()
    expected = kind(**arguments)
    expected.update(images)
    casts: list[Callable[[Metric], Any]] = [
        lambda metric: nn.ModuleList([metric]).half(),
        lambda metric: metric.to(torch.float32),
        lambda metric: metric.to(torch.bfloat16),
        lambda metric: metric.set_dtype(torch.float16),
    ]
    for cast in casts:
        metric = kind(**arguments)
        cast(metric)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            metric.update(images)
        cast(metric)
        assert all(torch.equal(first, second) for first, second in zip(states(expected), states(metric)))


@pytest.mark.parametrize(("kind", "arguments", "text"), METRICS)
@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_the_program_s_default_precision_does_not_matter(
    kind: Any, arguments: dict[str, Any], text: str, default: torch.dtype
) -> None:
    images, expected = smooth(2, 5, 12), kind(**arguments)
    expected.update(images)
    torch.set_default_dtype(default)
    try:
        metric = kind(**arguments)
        metric.update(images)
        result = metric.compute()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(first, second) for first, second in zip(states(expected), states(metric)))
    assert result.count == expected.compute().count


@pytest.mark.parametrize("default", [torch.float32, torch.bfloat16])
def test_colors_are_built_from_what_they_show(default: torch.dtype) -> None:
    result = measured(smooth(2, 3, 12), 3)
    torch.set_default_dtype(default)
    try:
        rebuilt = eval(repr(result))
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(rebuilt.covariance, result.covariance)
    assert torch.equal(rebuilt.mean, result.mean)
    assert rebuilt.count == result.count


def test_forward_returns_the_batch_s_own_and_adds_it() -> None:
    images = smooth(2, 6, 12)
    metric = ColorCovariance(2)
    first, second = metric(images[:2]), metric(images[2:])
    np.testing.assert_allclose(first.covariance.numpy(), numpy_covariance(images[:2].numpy())[1], atol=1e-12)
    np.testing.assert_allclose(second.covariance.numpy(), numpy_covariance(images[2:].numpy())[1], atol=1e-12)
    np.testing.assert_allclose(metric.compute().covariance.numpy(), numpy_covariance(images.numpy())[1], atol=1e-12)


def test_what_was_measured_in_inference_mode_can_be_trained_with() -> None:
    with torch.inference_mode():
        result = measured(smooth(2, 3, 12), 3)
    weight = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    (weight * result.covariance).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_pictures_of_any_precision_are_summed_in_float64(dtype: torch.dtype) -> None:
    images = smooth(3, 3, 12).to(dtype)
    np.testing.assert_allclose(measured(images, 3).covariance.numpy(), numpy_covariance(images.numpy())[1], atol=1e-12)


BAD: list[Any] = [
    (np.zeros((1, 3, 4, 4)), TypeError, "images must be a tensor"),
    (
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
        ValueError,
        "torch.uint8 holds no values in .0, 1.; divide levels from 0 to 255 by 255",
    ),
    (torch.zeros(3, 4, 4), ValueError, r"must be a batch \(N, 3, H, W\), got shape \(3, 4, 4\)"),
    (torch.zeros(0, 3, 4, 4), ValueError, r"must be a batch \(N, 3, H, W\)"),
    (torch.zeros(1, 4, 4, 4), ValueError, "images: 4 channels do not fit channels=3"),
    (torch.full((1, 3, 4, 4), 2.0), ValueError, "got values from 2 to 2; pass pictures before they are normalised"),
    (torch.full((1, 3, 4, 4), -0.1), ValueError, "images must lie in"),
    (torch.full((1, 3, 4, 4), float("nan")), ValueError, "images must lie in"),
]


@pytest.mark.parametrize(("images", "kind", "message"), BAD)
def test_what_is_no_picture_is_refused_and_changes_nothing(images: Any, kind: type[Exception], message: str) -> None:
    for metric in (ColorCovariance(), AmplitudeSpectrum(4)):
        metric.update(torch.full((1, 3, 4, 4), 0.25))
        before = states(metric)
        with pytest.raises(kind, match=message):
            metric.update(images)
        assert all(torch.equal(first, second) for first, second in zip(before, states(metric)))


def test_channels_and_covariance_must_fit() -> None:
    with pytest.raises(ValueError, match="channels must be at least 1"):
        ColorCovariance(0)
    with pytest.raises(ValueError, match=r"covariance: .* got \(2,\) and \(3, 3\)"):
        ColorStatistics(torch.zeros(2), torch.eye(3), 1)


class Axis:
    """Stands for a matplotlib axis, and writes down what is drawn on it."""

    def __init__(self) -> None:
        self.drawn: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def get_figure(self) -> str:
        return "figure"

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self.drawn.append((name, arguments, options))


def test_plots_draw_the_numbers() -> None:
    colors, spectrum = ColorCovariance(2), AmplitudeSpectrum(8, channels=2)
    images = smooth(2, 3, 12)
    colors.update(images)
    spectrum.update(images)
    axis: Any = Axis()
    assert colors.plot(ax=axis) == ("figure", axis)
    texts = [arguments[2] for name, arguments, _ in axis.drawn if name == "text"]
    assert texts == [f"{value:.4f}" for value in numpy_covariance(images.numpy())[1].flatten()]
    axis = Axis()
    spectrum.plot(spectrum.compute(), axis)
    lines = [arguments for name, arguments, _ in axis.drawn if name == "loglog"]
    assert [line[0] for line in lines] == [[0.125, 0.25, 0.375, 0.5]] * 2
    assert all(first > second for line in lines for first, second in itertools.pairwise(line[1]))  # smooth pictures


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    metric = ColorCovariance(1)
    metric.update(torch.zeros(1, 1, 2, 2))
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        metric.plot()
