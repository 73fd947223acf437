from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metric_cases_activation import (
    CLASSES,
    MEAN,
    STD,
    TARGETS,
    activation,
    held_out,
    network,
    percentile,
    photos,
    pictures,
)
from PIL import Image as Pillow
from torch import Tensor, nn
from toys import SHARED, Passes, needs_shared, toy

import featviz_pl as fv
from featviz_pl.engine import Ascent
from featviz_pl.images import AlphaImage, PixelImage
from featviz_pl.metrics import Activation, ActivationPercentile, HeldOutActivation, measure_activations, read_photos
from featviz_pl.metrics.activation import held_out_transforms
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import parse_target
from featviz_pl.transforms import Choice, Compose, Crop, Flip, Noise, Pad, Rotate, view_preset

Pixels = np.ndarray[Any, Any]


def values(metric: Any, images: Tensor, targets: str | list[str]) -> Pixels:
    """Return the value of each picture in a metric made with ``reduction="none"``."""
    metric.update(images, targets)
    result: Pixels = metric.compute().numpy()
    return result


def by_hooks(images: Tensor) -> dict[str, Pixels]:
    """Run the contract's toy itself, and return its two convolutions and its logits."""
    net: Any = network().module
    outputs: list[Pixels] = []
    for name in ("features.0", "features.5"):
        net.get_submodule(name).register_forward_hook(lambda _m, _i, output: outputs.append(output.clone().numpy()))
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        outputs.append(net.eval()((images.double() - mean) / std).numpy())
    return dict(zip(("features.0", "features.5", "output"), outputs))


# The score.


def test_scores_are_means_over_the_network_s_own_activations() -> None:
    images = pictures(5).double()
    activations = by_hooks(images)
    expected = [
        activations["features.0"][0, 3].mean(),
        activations["output"][1, CLASSES.index("wolf")],
        activations["features.5"][2, 0].mean(),
        activations["output"][3, 1],
        activations["features.0"][4, 1, 2, 5],
    ]
    np.testing.assert_allclose(values(activation(reduction="none"), images, list(TARGETS)), expected, rtol=1e-10)
    np.testing.assert_allclose(values(activation(), images, list(TARGETS)), np.mean(expected), rtol=1e-10)


@pytest.mark.parametrize("target", [*TARGETS, "features.5:7@", "features.2", "features", "features.3:1-1"])
def test_scores_are_those_of_a_run(target: str) -> None:
    images = pictures(1)
    problem = Ascent(PixelImage((10, 12)), network(), parse_target(target))
    problem.prepare()
    result = values(activation(reduction="none"), images, target)
    np.testing.assert_allclose(result, problem.scores(images).numpy(), rtol=1e-10)


def test_transparent_pictures_are_scored_on_grey_as_in_a_run() -> None:
    images = torch.cat([pictures(2), torch.linspace(0, 1, 120).view(1, 1, 10, 12).expand(2, -1, -1, -1)], 1)
    problem = Ascent(AlphaImage((10, 12)), network(), parse_target("features.5:1-2"))
    problem.prepare()
    result = values(activation(reduction="none"), images, ["features.5:1", "features.5:2"])
    np.testing.assert_allclose(result, problem.scores(images).numpy(), rtol=1e-10)
    grey = images[:, :3] * images[:, 3:] + 0.5 * (1 - images[:, 3:])
    transparent, opaque = (values(held_out(reduction="none"), batch, "output:1") for batch in (images, grey))
    np.testing.assert_allclose(transparent, opaque)


def test_scores_are_those_that_a_render_reports() -> None:
    result = fv.render("embedded", "blocks.2:3,40", steps=2, size=32)
    metric = Activation("embedded", reduction="none")
    np.testing.assert_allclose(values(metric, result.images, result.targets), result.scores, rtol=1e-5)
    assert repr(metric) == "Activation('embedded', reduction='none')"


def passes_of(targets: list[str]) -> list[tuple[int, str]]:
    net = Passes()
    Activation(net).update(torch.rand(len(targets), 3, 4, 4, generator=torch.Generator().manual_seed(0)), targets)
    return [call for call in net.passes if call[0] > 2]  # passes of one or two pictures find shapes


def test_one_pass_scores_all_units_of_a_layer_and_ends_there() -> None:
    assert passes_of([f"first:{unit}" for unit in range(20)]) == [(20, "first")]
    mixed = [f"{('first', 'second')[index % 2]}:{index // 2}" for index in range(10)]
    assert passes_of(mixed) == [(5, "first"), (5, "first"), (5, "second")]
    sizes = [count for count, layer in passes_of(["second:1"] * 70) if layer == "second"]
    assert sizes == [32, 32, 6]  # so that memory is bounded


def test_the_network_of_a_training_is_read_anew_after_a_reset() -> None:
    net = toy().double()
    metric = Activation(net, reduction="none")
    first = values(metric, pictures(2), "features.5:1")
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(1.5)
    metric.reset()
    repeated = values(metric, pictures(2), "features.5:1")
    np.testing.assert_allclose(repeated, values(Activation(net, reduction="none"), pictures(2), "features.5:1"))
    assert not np.allclose(first, repeated)


# Held-out views.


def test_every_picture_and_target_is_seen_through_the_same_views() -> None:
    """Count how many of 8 views are mirrored by what a single neuron sees on the left and on the right."""
    images = pictures(4)
    plain, mirrored = by_hooks(images)["features.0"], by_hooks(images.flip(3))["features.0"]
    targets = ["features.0:1@2,5", "features.0:3@0,0", "features.0:5@9,1", "features.0:1@2,5"]
    neurons = [(1, 2, 5), (3, 0, 0), (5, 9, 1), (1, 2, 5)]
    result = values(HeldOutActivation(network(), 8, transforms=Flip(0.5), reduction="none"), images, targets)
    counts = []
    for index, neuron in enumerate(neurons):
        before, after = plain[(index, *neuron)], mirrored[(index, *neuron)]
        counts.append(8 * (result[index] - before) / (after - before))
    np.testing.assert_allclose(counts, round(counts[0]), atol=1e-3)  # float32 coordinates
    assert 0.5 < counts[0] < 7.5


def test_views_of_a_whole_turn_leave_the_score_as_it_is() -> None:
    metric = HeldOutActivation(network(), 3, transforms=Rotate(Choice([360.0, -360.0])), reduction="none")
    expected = by_hooks(pictures(3))["features.5"][:, 2].mean((1, 2))
    np.testing.assert_allclose(values(metric, pictures(3), "features.5:2"), expected, rtol=1e-4)


def test_views_may_have_another_size_than_the_picture() -> None:
    half = Compose([Crop(center=0.5, side=0.5)], size=(5, 6))
    metric = HeldOutActivation(network(), 2, transforms=half, reduction="none")
    rows = [pictures(2)[:, :, first : first + 5, 3:9] for first in (2, 3)]  # rows 2.5 to 7.5 lie between pixels
    expected = by_hooks((rows[0] + rows[1]) / 2)["features.0"][:, 1].mean((1, 2))
    np.testing.assert_allclose(values(metric, pictures(2), "features.0:1"), expected, rtol=1e-3)


def test_views_are_those_of_the_seed_and_none_of_a_run_with_that_seed() -> None:
    def result(seed: int) -> float:
        metric = HeldOutActivation(network(), 2, transforms=Noise(0.1), seed=seed)
        return float(values(metric, pictures(1), "features.5:1"))

    assert result(0) == result(0) != result(1)
    views = fv.transforms.Views(Noise(0.1), 2)
    trained = views.apply(pictures(1), views.sample(0, 0, [0]), 0.0)
    as_trained = by_hooks(trained[0])["features.5"][:, 1].mean()
    assert abs(result(0) - as_trained) > 1e-6


def test_the_held_out_views_are_the_same_at_every_size() -> None:
    small, large = held_out_transforms((32, 48)), held_out_transforms((128, 96))
    first, second = (views.sample(torch.Generator().manual_seed(0), 200) for views in (small, large))
    grey, turn, zoom, shift, blur, noise = range(6)
    for same in (grey, turn, zoom):
        assert torch.equal(first[same], second[same])
    torch.testing.assert_close(3 * first[shift], second[shift])
    torch.testing.assert_close(3 * first[blur], second[blur])
    assert torch.equal(first[noise][0], second[noise][0])
    ranges = [(turn, 8.0, -8.0), (zoom, 1.15, 0.85), (shift, 2.0, -2.0), (blur, 32 / 448, 0.0)]
    for drawn, high, low in ((first[index], high, low) for index, high, low in ranges):
        assert low <= float(drawn.min()) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < float(drawn.max()) <= high
    assert [float(strength) for strength in first[noise][1][0]] == pytest.approx([0.02, 0.0])


def test_no_preset_trains_on_the_held_out_views() -> None:
    border = held_out_transforms((32, 32)).listed()[0]
    assert isinstance(border, Pad)
    assert border.mode == "grey"
    for name in fv.transforms.VIEW_PRESETS:
        assert "'grey'" not in repr(view_preset(name)[0])


class Matched(nn.Module):
    """Respond to stripes of one pixel, and to brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.units = nn.Conv2d(1, 2, 8, bias=False)
        stripes = torch.tensor([1.0, -1.0]).repeat(4).expand(8, 8)
        with torch.no_grad():
            self.units.weight.copy_(torch.stack([stripes, torch.ones(8, 8)])[:, None])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.units(x).abs()
        return y


def test_fragile_pictures_lose_their_score_through_held_out_views_and_robust_ones_do_not() -> None:
    stripes = torch.tensor([1.0, 0.0]).repeat(16).expand(1, 1, 32, 32)
    images, targets = torch.cat([stripes, torch.full((1, 1, 32, 32), 0.5)]), ["output:0", "output:1"]
    clean = values(Activation(Matched(), reduction="none"), images, targets)
    retained = values(HeldOutActivation(Matched(), reduction="none"), images, targets) / clean
    np.testing.assert_allclose(clean, [32, 32])
    assert retained[0] < 0.5
    assert 0.9 < retained[1] < 1.1


# Among photos.


def test_percentiles_count_the_photos_that_score_less() -> None:
    targets = ["features.0:3", "features.5:0", "output:wolf", "output:4"]
    scores = values(activation(reduction="none"), pictures(4), targets)
    activations = photos().values
    columns = [
        activations["features.0"][:, 3],
        activations["features.5"][:, 0],
        activations["output"][:, 1],
        activations["output"][:, 4],
    ]
    expected = [100 * np.mean(column.numpy() < score) for column, score in zip(columns, scores)]
    assert len(set(expected)) > 2
    np.testing.assert_allclose(values(percentile(reduction="none"), pictures(4), targets), expected)
    assert float(values(percentile(), pictures(4), targets)) == pytest.approx(np.mean(expected))


def test_photos_may_be_in_a_file(tmp_path: Path) -> None:
    path = photos().save(tmp_path / "photos.pt")
    metric = ActivationPercentile(network(), str(path), reduction="none")
    expected = values(percentile(reduction="none"), pictures(2), "output:1")
    np.testing.assert_array_equal(values(metric, pictures(2), "output:1"), expected)
    assert repr(metric) == f"ActivationPercentile(<toy>, {str(path)!r}, reduction='none')"


def test_a_photo_has_the_percentile_of_its_rank(tmp_path: Path) -> None:
    for index in range(5):
        photo = np.random.default_rng(index).integers(0, 256, size=(10, 12, 3), dtype=np.uint8)
        Pillow.fromarray(photo).save(tmp_path / f"{index}.png")
    activations = measure_activations(network(), tmp_path, ["features.5", "output"], size=(10, 12))
    [images] = read_photos([tmp_path / path for path in activations.paths], (10, 12))
    metric = ActivationPercentile(network(), activations, reduction="none")
    for target in ("features.5:3", "output:owl"):
        metric.reset()
        ranks = np.argsort(np.argsort(activations.of(target).numpy()))
        result = values(metric, images, target)
        # Alone or among others, a picture scores the same but for the last digit.
        assert np.all(np.abs(result - 100 * (ranks + 0.5) / 5) <= 10)


def test_a_network_that_was_trained_since_is_refused() -> None:
    net = toy().double()
    frozen = FrozenNetwork(net, MEAN, std=STD, classes=CLASSES)
    metric = ActivationPercentile(frozen, photos())
    metric.update(pictures(1), "output:1")
    metric.reset()
    with torch.no_grad():
        net.head.weight.mul_(2)
    with pytest.raises(ValueError, match="photos: they were measured with 'toy'"):
        metric.update(pictures(1), "output:1")


@needs_shared
def test_a_rendered_picture_excites_its_unit_more_than_any_photo() -> None:
    activations = measure_activations("embedded", SHARED / "data" / "imagenet-samples", "blocks.2", size=64, limit=40)
    result = fv.render("embedded", "blocks.2:3,40", steps=24, size=64)
    metric = ActivationPercentile("embedded", activations, reduction="none")
    assert values(metric, result.images, result.targets).tolist() == [100, 100]
