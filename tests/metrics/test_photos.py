from __future__ import annotations

import copy
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
from PIL import Image as Pillow
from torch import Tensor, nn
from toys import SHARED, needs_shared, toy

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
    ("given", "box", "size"),
    [
        ((30, 40), (5, 0, 35, 30), (10, 10)),  # box: left, top, right, bottom of the middle square
        ((40, 30), (0, 5, 30, 35), (10, 10)),
        ((30, 40), (0, 5, 40, 25), (8, 16)),
        ((31, 40), (4, 0, 35, 31), (10, 10)),  # an odd rest lies on the right
        ((5, 6), (0, 0, 5, 5), (10, 10)),  # enlarged
        ((1, 3), (1, 0, 2, 1), (4, 4)),
    ],
)
def test_photos_are_cut_to_the_aspect_about_their_centre_and_resampled_as_pillow_does_it(
    tmp_path: Path, given: tuple[int, int], box: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    Pillow.fromarray(levels(*given)).save(tmp_path / "a.png")
    [read] = read_photos([tmp_path / "a.png"], size)
    with Pillow.open(tmp_path / "a.png") as photo:
        expected = np.array(photo.crop(box).resize(size[::-1], Pillow.Resampling.BILINEAR))
    assert np.abs(as_levels(read)[0] - expected).max() <= 1  # Pillow reckons in 8 bits
    np.testing.assert_array_equal(read.numpy(), (as_levels(read).transpose(0, 3, 1, 2) / 255).astype(np.float32))


def test_grayscale_and_cmyk_are_converted(tmp_path: Path) -> None:
    Pillow.fromarray(levels(8, 8)[..., 0]).save(tmp_path / "grey.png")
    Pillow.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg")  # magenta and yellow ink
    [read] = read_photos([tmp_path / "grey.png", tmp_path / "red.jpg"], 8)
    np.testing.assert_array_equal(as_levels(read)[0], np.repeat(levels(8, 8)[..., :1], 3, 2))
    np.testing.assert_allclose(read[1].mean((1, 2)).numpy(), [1, 0, 0], atol=0.02)
    [grey] = read_photos([tmp_path / "grey.png"], 8, channels=1)
    np.testing.assert_array_equal(as_levels(grey)[0], levels(8, 8)[..., :1])


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
def test_what_cannot_be_asked_for_is_refused_before_the_first_photo(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_photos(["nowhere.png"], **{"size": 8, **arguments})


# Measuring.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make six photos of 12 x 10 pixels in two classes, so that a network of that size sees them as they are."""
    for index, name in enumerate(("b/one", "a/two", "a/three", "c", "a/deep/four", "b/five")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(levels(12, 10, index)).save(tmp_path / f"{name}.png")
    return tmp_path


NAMES = ["a/deep/four.png", "a/three.png", "a/two.png", "b/five.png", "b/one.png", "c.png"]
SEEDS = [4, 2, 1, 5, 0, 3]
LAYERS = ["features.0", "features.5", "output"]


def by_hooks(
    network: nn.Module, layers: dict[str, nn.Module], seeds: list[int], mean: float = 0.0, std: float = 1.0
) -> dict[str, Pixels]:
    """Run the network itself on one photo after the other, and average maps over positions."""
    held: dict[str, list[Pixels]] = {name: [] for name in layers}
    network.eval()
    handles = [
        module.register_forward_hook(
            lambda _module, _inputs, result, name=name: held[name].append(result[0].detach().clone().numpy())
        )
        for name, module in layers.items()
    ]
    dtype = next(network.parameters()).dtype
    with torch.no_grad():
        for seed in seeds:
            photo = torch.from_numpy(levels(12, 10, seed)).permute(2, 0, 1)[None].to(torch.float32) / 255
            network((photo.to(dtype) - mean) / std)
    for handle in handles:
        handle.remove()
    return {
        name: np.stack([one if one.ndim == 1 else one.mean((1, 2)) for one in found]) for name, found in held.items()
    }


def test_all_layers_and_units_are_what_the_network_itself_gives_photo_by_photo(folder: Path) -> None:
    net = toy()
    held = measure_activations(FrozenNetwork(net, mean=0.5, std=0.25, size=(12, 10)), folder, LAYERS, batch_size=4)
    expected = by_hooks(
        net, {"features.0": net.features[0], "features.5": net.features[5], "output": net}, SEEDS, 0.5, 0.25
    )
    assert held.paths == NAMES
    assert held.layers == LAYERS
    assert len(held) == 6
    for layer in LAYERS:
        np.testing.assert_allclose(held.values[layer].numpy(), expected[layer], rtol=1e-5, atol=1e-6)
        assert held.values[layer].dtype == torch.float32
        np.testing.assert_allclose(held.of(f"{layer}:2").numpy(), expected[layer][:, 2], rtol=1e-5, atol=1e-6)


def test_double_precision_is_kept(folder: Path) -> None:
    net = toy().double()
    held = measure_activations(FrozenNetwork(net, size=(12, 10)), folder, "features.5", batch_size=5)
    assert held.values["features.5"].dtype == torch.float64
    expected = by_hooks(net, {"x": net.features[5]}, SEEDS)["x"]
    np.testing.assert_allclose(held.values["features.5"].numpy(), expected, rtol=1e-12, atol=1e-12)


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
    held = measure_activations(FrozenNetwork(Tokens(), size=(12, 10)), folder, "tokens")
    photos = np.stack([levels(12, 10, seed) for seed in SEEDS]) / 255
    means = photos.mean((1, 2))
    np.testing.assert_allclose(
        held.values["tokens"].numpy(), np.concatenate([means, means.sum(1, keepdims=True)], 1), rtol=1e-5
    )


class Counted(nn.Module):
    """Note how many pictures every pass has; copies share the note."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = SharedList()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append(len(x))
        y: Tensor = self.second(self.first(x))
        return y


class SharedList(list[int]):
    def __deepcopy__(self, memo: dict[int, Any]) -> SharedList:
        return self


def test_one_pass_for_each_batch_reads_all_layers(folder: Path) -> None:
    net = Counted()
    measure_activations(FrozenNetwork(net, size=8), folder, ["first", "second", "output"], batch_size=3)
    assert [count for count in net.passes if count > 1] == [3, 3]  # looks at one picture tell shapes


def test_what_cannot_be_read_is_skipped_and_small_photos_are_counted(folder: Path) -> None:
    whole = (folder / "c.png").read_bytes()
    (folder / "a" / "deep" / "torn.png").write_bytes(whole[: len(whole) // 2])
    (folder / "a" / "two.png").write_text("hello")
    Pillow.fromarray(levels(30, 40, 9)).save(folder / "large.png")
    calls: list[tuple[int, int]] = []
    held = measure_activations(
        toy(), folder, "features.5", size=20, batch_size=3, progress=lambda *at: calls.append(at)
    )
    assert held.paths == ["a/deep/four.png", "a/three.png", "b/five.png", "b/one.png", "c.png", "large.png"]
    assert (held.unreadable, held.enlarged, held.size) == (2, 5, (20, 20))
    assert held.unreadable_paths == ["a/deep/torn.png", "a/two.png"]
    assert calls == [(3, 8), (6, 8), (8, 8)]
    alone = measure_activations(toy(), folder, "features.5", size=20, batch_size=1)
    torch.testing.assert_close(alone.values["features.5"], held.values["features.5"])
    assert alone.paths == held.paths


def test_a_limit_takes_photos_from_the_whole_folder(folder: Path) -> None:
    held = measure_activations(toy(), folder, "features.5", size=8, limit=3)
    assert held.paths == NAMES[::2]


def test_the_network_s_own_size_is_the_default(folder: Path) -> None:
    assert measure_activations(FrozenNetwork(toy(), size=(14, 18)), folder, "output", limit=1).size == (14, 18)
    assert measure_activations(toy(), folder, "output", limit=1).size == (224, 224)


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({}, {}, "folder: .* holds no image files"),
        ({"a.txt": b"x"}, {}, "folder: .* holds no image files"),
        (
            {"a.png": b"x", "b.jpg": b""},
            {},
            "folder: none of 2 files in .* can be read as a photo; cannot read .*a.png'",
        ),
        (
            {"a.png": b"x"},
            {"layers": "features.50"},
            "layer: the network has no layer 'features.50'; did you mean 'features.5'",
        ),
        (
            {"a.png": b"x"},
            {"layers": ["output", "head2"]},
            "layer: the network has no layer 'head2'; did you mean 'head'",
        ),
        ({"a.png": b"x"}, {"layers": []}, "layers must name at least one layer"),
        ({"a.png": b"x"}, {"size": 0}, "size must be at least 1"),
        ({"a.png": b"x"}, {"limit": 0}, "limit must be at least 1"),
        ({"a.png": b"x"}, {"batch_size": 0}, "batch_size must be at least 1"),
        ({"a.png": b"x"}, {"workers": -1}, "workers must be at least 0"),
        ({"a.png": b"x"}, {"network": toy(channels=4)}, "channels must be 1 or 3 for photos, got 4"),
        (
            {"a.png": b"x"},
            {"network": nn.Sequential(nn.Conv2d(3, 2, 9))},
            "a picture of 8 x 8 is too small for output; the least size",
        ),
        ({"a.png": b"x"}, {"network": nn.Flatten(0)}, "first axis of 'output' is not the batch"),
    ],
)
def test_what_cannot_be_measured_says_so(
    tmp_path: Path, files: dict[str, bytes], arguments: dict[str, Any], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        measure_activations(**{"network": toy(), "folder": tmp_path, "layers": "output", "size": 8, **arguments})


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(ValueError, match="folder: there is no folder '/nowhere'"):
        measure_activations(toy(), "/nowhere", "output")


def test_a_network_that_gives_nan_is_refused(folder: Path) -> None:
    net = toy()
    for weight in net.features[0].parameters():
        nn.init.constant_(weight, torch.nan)
    with pytest.raises(ValueError, match=r"values: 'features\.0' gives NaN for 6 of 6 photos"):
        measure_activations(net, folder, "features.0", size=8)


def test_modes_gradients_and_global_generators_are_left_alone(folder: Path) -> None:
    net = toy().train()
    state = copy.deepcopy(net.state_dict())
    before = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        inside = measure_activations(net, folder, LAYERS, size=8)
    outside = measure_activations(net, folder, LAYERS, size=8)
    for layer in LAYERS:
        assert torch.equal(inside.values[layer], outside.values[layer])
        assert not inside.values[layer].is_inference()
    assert net.training
    assert all(weight.requires_grad and weight.grad is None for weight in net.parameters())
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert pickle.dumps(np.random.get_state()) == before[2]  # noqa: NPY002


WORKERS = """
if __name__ == "__main__":
    from toys import toy
    from featviz_pl.metrics import measure_activations
    for workers in (0, 2):
        measure_activations(toy(), "photos", ["features.5", "output"], size=8, batch_size=2, workers=workers).save(f"{workers}.pt")
"""


def test_workers_find_the_same_to_the_last_digit(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("program")
    (folder / "torn.png").write_bytes(b"")
    (place / "photos").symlink_to(folder)
    (place / "program.py").write_text(WORKERS)
    support = str(Path(__file__).parents[1] / "support")
    # A program of its own, so that the workers do not come from a process with threads.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([support, str(Path(__file__).parents[2])])}
    subprocess.run([sys.executable, "program.py"], cwd=place, env=environment, check=True, timeout=120)
    assert (place / "0.pt").read_bytes() == (place / "2.pt").read_bytes()
    assert (load_activations(place / "2.pt").paths, load_activations(place / "2.pt").unreadable) == (NAMES, 1)


@needs_shared
def test_real_photos_and_weights_give_what_torchvision_gives() -> None:
    import torchvision

    weights = SHARED / "weights" / "squeezenet1_0.pth"
    photos = SHARED / "data" / "imagenet-samples"
    held = measure_activations(load_network("squeezenet1_0", weights), photos, ["features.9", "output"], limit=3)
    original = torchvision.models.squeezenet1_0()
    original.load_state_dict(torch.load(weights, weights_only=True))
    original.eval()
    [shown] = read_photos([photos / path for path in held.paths], 224)
    standard = (shown - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    with torch.no_grad():
        torch.testing.assert_close(
            held.values["features.9"], original.features[:10](standard).mean((2, 3)), rtol=1e-4, atol=1e-3
        )
        torch.testing.assert_close(held.values["output"], original(standard), rtol=1e-4, atol=1e-3)
