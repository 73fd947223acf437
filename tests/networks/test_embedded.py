"""The network that ships with the library."""

from __future__ import annotations

from importlib import resources

import pytest
import torch

from featviz_pl.networks import load_network
from featviz_pl.rendering import FIRST_SIZE, FIRST_STEPS, FIRST_TARGET, render

# torchvision.datasets.Imagenette, in its order.
CLASSES = (
    "tench",
    "English springer",
    "cassette player",
    "chain saw",
    "church",
    "French horn",
    "garbage truck",
    "gas pump",
    "golf ball",
    "parachute",
)


def test_the_file_is_small_and_holds_half_precision_weights() -> None:
    source = resources.files("featviz_pl.networks").joinpath("embedded.pt")
    with resources.as_file(source) as path:
        assert path.stat().st_size <= 4 * 2**20
        held = torch.load(path, map_location="cpu", weights_only=True)
    floats = {name: value.dtype for name, value in held["state_dict"].items() if value.is_floating_point()}
    assert floats
    assert set(floats.values()) == {torch.float16}


def test_it_names_the_ten_classes_of_imagenette() -> None:
    network = load_network("embedded")
    assert network.classes == CLASSES
    assert network.channels == 3
    assert all(parameter.dtype == torch.float32 for parameter in network.module.parameters())
    assert all(bool(torch.isfinite(value).all()) for value in network.module.state_dict().values())


def test_the_first_command_shows_a_class_large_enough_to_look_at() -> None:
    result = render(accelerator="cpu")
    assert result.targets == [FIRST_TARGET]
    assert FIRST_TARGET.removeprefix("output:") in CLASSES
    assert result.images.shape == (1, 3, FIRST_SIZE, FIRST_SIZE)
    assert result.provenance[0]["steps"] == FIRST_STEPS


def test_what_is_given_beside_no_target_counts() -> None:
    result = render(steps=2, size=32, accelerator="cpu")
    assert result.images.shape == (1, 3, 32, 32)
    assert result.provenance[0]["steps"] == 2


def test_a_target_of_the_embedded_network_is_shown_at_the_networks_size() -> None:
    size = load_network("embedded").size
    assert size is not None
    assert render(target="blocks.2:7", steps=1, accelerator="cpu").images.shape == (1, 3, *size)


@pytest.mark.parametrize("name", ["church", "golf ball", "French horn"])
def test_a_class_picture_is_taken_for_its_class(name: str) -> None:
    result = render(target=f"output:{name}", steps=24, accelerator="cpu")
    network = load_network("embedded")
    logits = network.activations(result.images, ["output"])["output"]
    assert int(logits.argmax()) == CLASSES.index(name)
