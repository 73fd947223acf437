from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from guests import condition, require_same
from PIL import Image as Pillow
from torch import Tensor, nn
from toys import SHARED, Passes, needs_shared, toy

from featviz_pl.metrics import load_activations, measure_activations, read_photos
from featviz_pl.networks import FrozenNetwork, load_network

Pixels = np.ndarray[Any, Any]


def levels(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def as_levels(pictures: Tensor) -> Pixels:
    return (pictures.permute(0, 2, 3, 1).double() * 255).round().numpy().astype(int)


# Reading.


def test_photos_of_the_size_itself_are_read_as_they_are_and_in_the_order_of_the_paths(tmp_path: Path) -> None:
    photos = {name: levels(6, 9, seed) for seed, name in enumerate(("c", "a", "b"))}
    for name, photo in photos.items():
        Pillow.fromarray(photo).save(tmp_path / f"{name}.png")
    batches = list(read_photos([tmp_path / f"{name}.png" for name in photos], (6, 9), batch_size=2))
    assert [len(batch) for batch in batches] == [2, 1]
    assert batches[0].dtype == torch.float32
    np.testing.assert_array_equal(as_levels(torch.cat(batches)), np.stack(list(photos.values())))


@pytest.mark.parametrize(
    ("photo_size", "box", "size"),
    [
        ((30, 40), (5, 0, 35, 30), (10, 10)),  # box: left, top, right, bottom of the middle square
        ((40, 30), (0, 5, 30, 35), (10, 10)),
        ((30, 40), (0, 5, 40, 25), (8, 16)),
        ((31, 40), (4, 0, 35, 31), (10, 10)),  # an odd remainder is on the right
        ((5, 6), (0, 0, 5, 5), (10, 10)),  # enlarged
        ((1, 3), (1, 0, 2, 1), (4, 4)),
    ],
)
def test_photos_are_cropped_to_the_aspect_about_their_center_and_resampled_as_by_pillow(
    tmp_path: Path, photo_size: tuple[int, int], box: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    Pillow.fromarray(levels(*photo_size)).save(tmp_path / "a.png")
    [read] = read_photos([tmp_path / "a.png"], size)
    with Pillow.open(tmp_path / "a.png") as photo:
        expected = np.array(photo.crop(box).resize(size[::-1], Pillow.Resampling.BILINEAR))
    assert np.abs(as_levels(read)[0] - expected).max() <= 1  # Pillow computes in 8 bits
    np.testing.assert_array_equal(read.numpy(), (as_levels(read).transpose(0, 3, 1, 2) / 255).astype(np.float32))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"paths: a file cannot be read as a photo; cannot read .*torn.png': "):
        list(read_photos([tmp_path / "torn.png"], 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be at least 1"),
        ({"channels": 4}, "channels must be 1 or 3 for photos, got 4"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"workers": -1}, "workers must be at least 0"),
    ],
)
def test_wrong_arguments_are_refused_before_the_first_photo(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_photos(["nowhere.png"], **{"size": 8, **arguments})


# Measuring.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make six photos of 12 x 10 pixels in two classes, which a network of that size reads without resizing."""
    for index, name in enumerate(("b/one", "a/two", "a/three", "c", "a/deep/four", "b/five")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(levels(12, 10, index)).save(tmp_path / f"{name}.png")
    return tmp_path


NAMES = ["a/deep/four.png", "a/three.png", "a/two.png", "b/five.png", "b/one.png", "c.png"]
SEEDS = [4, 2, 1, 5, 0, 3]
LAYERS = ["features.0", "features.5", "output"]


def by_hooks(network: nn.Module, layers: list[nn.Module], mean: float = 0.0, std: float = 1.0) -> list[Pixels]:
    """Run a network on each photo, without the library, and average maps over positions."""
    outputs: list[list[Pixels]] = [[] for _ in layers]
    for module, values in zip(layers, outputs):
        module.register_forward_hook(lambda _m, _i, result, values=values: values.append(result[0].clone().numpy()))
    dtype = next(network.parameters()).dtype
    with torch.no_grad():
        for seed in SEEDS:
            photo = torch.from_numpy(levels(12, 10, seed)).permute(2, 0, 1)[None].to(torch.float32) / 255
            network.eval()((photo.to(dtype) - mean) / std)
    return [np.stack([value.reshape(len(value), -1).mean(1) for value in values]) for values in outputs]


def test_all_layers_and_units_are_those_of_the_network_photo_by_photo(folder: Path) -> None:
    net = toy()
    photos = measure_activations(FrozenNetwork(net, mean=0.5, std=0.25, size=(12, 10)), folder, LAYERS, batch_size=4)
    assert (photos.paths, photos.layers, len(photos)) == (NAMES, LAYERS, 6)
    for layer, expected in zip(LAYERS, by_hooks(net, [net.features[0], net.features[5], net], 0.5, 0.25)):
        np.testing.assert_allclose(photos.values[layer].numpy(), expected, rtol=1e-5, atol=1e-6)
        assert photos.values[layer].dtype == torch.float32
        np.testing.assert_allclose(photos.of(f"{layer}:2").numpy(), expected[:, 2], rtol=1e-5, atol=1e-6)


def test_double_precision_stays(folder: Path) -> None:
    net = toy().double()
    photos = measure_activations(FrozenNetwork(net, size=(12, 10)), folder, "features.5", batch_size=5)
    assert photos.values["features.5"].dtype == torch.float64
    [expected] = by_hooks(net, [net.features[5]])
    np.testing.assert_allclose(photos.values["features.5"].numpy(), expected, rtol=1e-12, atol=1e-12)


class Tokens(nn.Module):
    """Give tokens (T, F): one for each row of the picture, its features the means of the channels and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(3).transpose(1, 2)
        y: Tensor = self.tokens(torch.cat([means, means.sum(2, keepdim=True)], 2))
        return y.mean(1)


def test_tokens_are_averaged_and_their_features_are_the_units(folder: Path) -> None:
    photos = measure_activations(FrozenNetwork(Tokens(), size=(12, 10)), folder, "tokens")
    means = (np.stack([levels(12, 10, seed) for seed in SEEDS]) / 255).mean((1, 2))
    expected = np.concatenate([means, means.sum(1, keepdims=True)], 1)
    np.testing.assert_allclose(photos.values["tokens"].numpy(), expected, rtol=1e-5)


def test_one_pass_for_each_batch_reads_all_layers(folder: Path) -> None:
    net = Passes()
    measure_activations(FrozenNetwork(net, size=8), folder, ["first", "second", "output"], batch_size=3)
    assert [count for count, layer in net.passes if count > 2 and layer == "second"] == [
        3,
        3,
    ]  # passes of one picture find shapes


def test_unreadable_files_are_skipped_and_small_photos_are_counted(folder: Path) -> None:
    content = (folder / "c.png").read_bytes()
    (folder / "a" / "deep" / "torn.png").write_bytes(content[: len(content) // 2])
    (folder / "a" / "two.png").write_text("hello")
    Pillow.fromarray(levels(30, 40, 9)).save(folder / "large.png")
    calls: list[tuple[int, int]] = []
    arguments: dict[str, Any] = {"size": 20, "progress": lambda *counts: calls.append(counts)}
    photos = measure_activations(toy(), folder, "features.5", batch_size=3, **arguments)
    assert photos.paths == ["a/deep/four.png", "a/three.png", "b/five.png", "b/one.png", "c.png", "large.png"]
    assert (photos.unreadable, photos.enlarged, photos.size) == (2, 5, (20, 20))
    assert photos.unreadable_paths == ["a/deep/torn.png", "a/two.png"]
    assert calls == [(3, 8), (6, 8), (8, 8)]
    alone = measure_activations(toy(), folder, "features.5", batch_size=1, **arguments)
    torch.testing.assert_close(alone.values["features.5"], photos.values["features.5"])
    assert alone.paths == photos.paths


def test_a_limit_spreads_over_the_folder_and_the_network_has_a_default_size(folder: Path) -> None:
    assert measure_activations(toy(), folder, "features.5", size=8, limit=3).paths == NAMES[::2]
    assert measure_activations(FrozenNetwork(toy(), size=(14, 18)), folder, "output", limit=1).size == (14, 18)
    assert measure_activations(toy(), folder, "output", limit=1).size == (224, 224)


A = {"a.png": b"x"}


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({}, {"folder": "/nowhere"}, "folder: there is no folder '/nowhere'"),
        ({}, {}, "folder: .* holds no image files"),
        ({"a.txt": b"x"}, {}, "folder: .* holds no image files"),
        (
            {"a.png": b"x", "b.jpg": b""},
            {},
            "folder: none of 2 files in .* can be read as a photo; cannot read .*a.png'",
        ),
        (A, {"layers": "features.50"}, "layer: the network has no layer 'features.50'; did you mean 'features.5'"),
        (A, {"layers": ["output", "head2"]}, "layer: the network has no layer 'head2'; did you mean 'head'"),
        (A, {"layers": []}, "layers must name at least one layer"),
        (A, {"size": 0}, "size must be at least 1"),
        (A, {"limit": 0}, "limit must be at least 1"),
        (A, {"batch_size": 0}, "batch_size must be at least 1"),
        (A, {"workers": -1}, "workers must be at least 0"),
        (A, {"network": toy(channels=4)}, "channels must be 1 or 3 for photos, got 4"),
        (A, {"network": nn.Sequential(nn.Conv2d(3, 2, 9))}, "a picture of 8 x 8 is too small for output; the least"),
        (A, {"network": nn.Flatten(0)}, "no axis counts the pictures"),
    ],
)
def test_mistakes_are_explained(
    tmp_path: Path, files: dict[str, bytes], arguments: dict[str, Any], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        measure_activations(**{"network": toy(), "folder": tmp_path, "layers": "output", "size": 8, **arguments})


def test_a_network_that_gives_nan_is_refused(folder: Path) -> None:
    net = toy()
    for weight in net.features[0].parameters():
        nn.init.constant_(weight, torch.nan)
    with pytest.raises(ValueError, match=r"values: 'features\.0' gives NaN for 6 of 6 photos"):
        measure_activations(net, folder, "features.0", size=8)


def test_modes_gradients_and_global_generators_are_left_alone(folder: Path) -> None:
    net = toy().train()
    before = condition(net)
    generators = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        inside = measure_activations(net, folder, LAYERS, size=8)
    outside = measure_activations(net, folder, LAYERS, size=8)
    for layer in LAYERS:
        assert torch.equal(inside.values[layer], outside.values[layer])
        assert not inside.values[layer].is_inference()
    require_same(before, condition(net))
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert (random.getstate(), pickle.dumps(np.random.get_state())) == generators[1:]  # noqa: NPY002


WORKERS = """
if __name__ == "__main__":
    from toys import toy
    from featviz_pl.metrics import measure_activations
    for workers in (0, 2):
        photos = measure_activations(toy(), "photos", ["features.5", "output"], size=8, batch_size=2, workers=workers)
        photos.save(f"{workers}.pt")
"""


@pytest.mark.slow
def test_workers_give_the_same_values_to_the_last_digit(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    program_folder = tmp_path_factory.mktemp("program")
    (folder / "torn.png").write_bytes(b"")
    (program_folder / "photos").symlink_to(folder)
    (program_folder / "program.py").write_text(WORKERS)
    support = str(Path(__file__).parents[1] / "support")
    # A program of its own, so that the workers do not come from a process with threads.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([support, str(Path(__file__).parents[2])])}
    subprocess.run([sys.executable, "program.py"], cwd=program_folder, env=environment, check=True, timeout=120)
    assert (program_folder / "0.pt").read_bytes() == (program_folder / "2.pt").read_bytes()
    photos = load_activations(program_folder / "2.pt")
    assert (photos.paths, photos.unreadable) == (NAMES, 1)


@needs_shared
def test_real_photos_and_weights_give_what_torchvision_gives() -> None:
    weights, folder = SHARED / "weights" / "squeezenet1_0.pth", SHARED / "data" / "imagenet-samples"
    photos = measure_activations(load_network("squeezenet1_0", weights), folder, ["features.9", "output"], limit=3)
    original = torchvision.models.squeezenet1_0()
    original.load_state_dict(torch.load(weights, weights_only=True))
    original.eval()
    [pixels] = read_photos([folder / path for path in photos.paths], 224)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        features, output = original.features[:10]((pixels - mean) / std), original((pixels - mean) / std)
    torch.testing.assert_close(photos.values["features.9"], features.mean((2, 3)), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(photos.values["output"], output, rtol=1e-4, atol=1e-3)
