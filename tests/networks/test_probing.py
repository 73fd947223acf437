"""The table of layers, the least picture that reaches one, and errors that teach."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from guests import Wordy, shrinking
from torch import Tensor, nn
from toys import toy

from featviz_pl.networks import FrozenNetwork, LayerInfo
from featviz_pl.networks.probing import probe


class Mixed(nn.Module):
    """Have layers of every kind: a map, tokens, a dictionary, a text, a number for each picture, and one that never runs."""

    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"note": "text", "tokens": x}

    class Score(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2))

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Conv2d(3, 3, 1)
        self.score = Mixed.Score()  # registered before the layers that run before it
        self.patches = nn.Conv2d(3, 6, 4, 4)
        self.named, self.words = Mixed.Named(), Wordy.Words()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.named(self.patches(x).flatten(2).transpose(1, 2))["tokens"]
        self.words(tokens)
        return tokens.mean(1), self.score(tokens)


class Pooled(nn.Module):
    """Shrink by pools and a large kernel; concatenates nothing, so that every larger picture works."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 2, 5), nn.MaxPool2d(2), nn.Conv2d(2, 2, 4), nn.AvgPool2d(3), nn.Conv2d(2, 2, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


class Cropped(nn.Module):
    """Cut a border off, which leaves nothing of a small picture and raises no error."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.crop = nn.Conv2d(3, 2, 1), nn.ZeroPad2d(0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.crop(self.convolution(x)[:, :, 5:-5, 5:-5])
        return y


MAPS = "channels x height x width"


def test_the_table_of_a_convolutional_network() -> None:
    assert FrozenNetwork(toy()).layers(16) == [
        LayerInfo("features.0", "Conv2d", (6, 16, 16), 6, MAPS),
        LayerInfo("features.1", "ReLU", (6, 16, 16), 6, MAPS),
        LayerInfo("features.2", "Conv2d", (8, 8, 8), 8, MAPS),
        LayerInfo("features.3", "BatchNorm2d", (8, 8, 8), 8, MAPS),
        LayerInfo("features.4", "ReLU", (8, 8, 8), 8, MAPS),
        LayerInfo("features.5", "Conv2d", (8, 8, 8), 8, MAPS),
        LayerInfo("features", "Sequential", (8, 8, 8), 8, MAPS),
        LayerInfo("head", "Linear", (5,), 5, "features"),
        LayerInfo("output", "ToyNet", (5,), 5, "features"),
    ]


def test_the_table_of_tokens_dictionaries_and_layers_without_units() -> None:
    table = {info.name: (info.shape, info.units) for info in FrozenNetwork(Mixed()).layers((8, 12))}
    assert table == {"patches": ((6, 2, 3), 6), "named": ((6, 6), 6), "output": ((6,), 6)}
    assert list(table) == ["patches", "named", "output"]


def test_units_of_tokens_are_their_features() -> None:
    (info,) = [info for info in FrozenNetwork(Mixed()).layers((8, 16)) if info.name == "named"]
    assert (info.shape, info.units) == ((8, 6), 6)  # eight tokens of six features


def test_the_table_takes_the_size_and_channels_of_the_network() -> None:
    (info,) = FrozenNetwork(nn.Sequential(nn.Conv2d(7, 2, 3)), size=(10, 12)).layers()[:1]
    assert info.shape == (2, 8, 10)
    (info,) = FrozenNetwork(nn.Identity(), mean=(0.1,) * 5).layers(4)
    assert info.shape == (5, 4, 4)
    (info,) = FrozenNetwork(nn.Identity()).layers(4, channels=2)
    assert info.shape == (2, 4, 4)
    (info,) = FrozenNetwork(nn.Identity()).layers()
    assert info.shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("layer", "near"),
    [("features.O", "'features.[0-5]'"), ("feature.3", "'features.3'"), ("heads", "'head'"), ("outputs", "'output'")],
)
def test_an_unknown_layer_lists_near_names(layer: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"layer: the network has no layer {layer!r}; did you mean .*{near}"):
        FrozenNetwork(toy()).activations(torch.rand(1, 3, 8, 8), [layer])


def test_an_unknown_layer_that_is_near_to_nothing_lists_the_first_ones() -> None:
    with pytest.raises(ValueError, match=r"no layer 'xyzzy'; known: features, features\.0"):
        probe(FrozenNetwork(toy()).reader(), (3, 8, 8), ["xyzzy"])


def test_a_layer_that_never_runs_says_so() -> None:
    with pytest.raises(ValueError, match="'unused' exists but is never run"):
        FrozenNetwork(Mixed()).activations(torch.rand(1, 3, 8, 8), ["unused"])


def test_a_layer_whose_output_is_no_tensor_says_what_it_is() -> None:
    with pytest.raises(ValueError, match="the output of 'words' holds no tensor, but str"):
        FrozenNetwork(Wordy()).activations(torch.rand(1, 3, 8, 8), ["words"])


def test_a_layer_that_only_some_pictures_reach_says_so() -> None:
    class Choosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bright = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.bright(x) if bool(x.mean() > 0.5) else x
            return y

    reader = FrozenNetwork(Choosy()).reader()
    reader.activations(torch.ones(1, 3, 4, 4), ["bright"])
    with pytest.raises(ValueError, match="'bright' ran in the first pass but not in this one"):
        reader.activations(torch.zeros(1, 3, 4, 4), ["bright"])


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (shrinking(), ["output"]),
        (shrinking(), ["0"]),
        (Pooled(), ["output"]),
        (Pooled(), ["body.1"]),
        (Pooled(), ["body.0", "body.3"]),
        (Cropped(), ["crop"]),
    ],
)
def test_a_picture_too_small_names_the_least_size_that_works(network: nn.Module, layers: list[str]) -> None:
    def works(side: int) -> bool:
        """Run layer by layer up to the deepest one that is asked for."""
        deepest = layers[-1]
        found: list[Tensor] = []
        handle = (network if deepest == "output" else network.get_submodule(deepest)).register_forward_hook(
            lambda *call: found.append(call[2])
        )
        try:
            network(torch.zeros(1, 3, side, side))
        except RuntimeError:
            pass
        finally:
            handle.remove()
        return bool(found) and found[0].numel() > 0

    sizes = [side for side in range(1, 41) if works(side)]
    least = sizes[0]
    assert sizes == list(range(least, 41))
    for side in range(1, least):
        with pytest.raises(
            ValueError,
            match=rf"size: a picture of {side} x {side} is too small .* the least size that works is {least}$",
        ):
            probe(FrozenNetwork(network).reader(), (3, side, side), layers)
    probe(FrozenNetwork(network).reader(), (3, least, least), layers)
    if least > 1:
        with pytest.raises(ValueError, match=f"least size that works is {least}$"):
            probe(FrozenNetwork(network).reader(), (3, least - 1, 40), layers)


def test_a_network_of_even_sizes_only_is_not_told_a_least_size() -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, ::2] + x[:, :, 1::2]

    with pytest.raises(ValueError, match=r"its forward fails on a picture of shape \(3, 7, 7\)"):
        probe(FrozenNetwork(Halves()).reader(), (3, 7, 7), ["output"])


@pytest.mark.parametrize("mean", [None, (0.4, 0.5, 0.6)])
@pytest.mark.parametrize("channels", [1, 4])
def test_a_picture_of_other_channels_says_so(channels: int, mean: Any) -> None:
    with pytest.raises(ValueError, match=r"channels"):
        probe(FrozenNetwork(toy(), mean=mean).reader(), (channels, 8, 8), ["output"])


def test_probing_gives_shapes_without_the_batch() -> None:
    shapes = probe(FrozenNetwork(toy()).reader(), (3, 8, 12), ["features.2", "output"])
    assert shapes == {"features.2": (8, 4, 6), "output": (5,)}


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError, ZeroDivisionError])
def test_a_network_may_refuse_small_pictures_with_any_error(error: type[Exception]) -> None:
    class Refuses(nn.Module):
        def __init__(self, least: float) -> None:
            super().__init__()
            self.least = least

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] < self.least:
                raise error("too small\nby far")
            return x

    with pytest.raises(
        ValueError, match=r"size: a picture of 6 x 6 is too small for output; the least size that works is 11$"
    ):
        probe(FrozenNetwork(Refuses(11)).reader(), (3, 6, 6), ["output"])
    with pytest.raises(
        ValueError, match=r"network: its forward fails on a picture of shape \(3, 6, 6\): .*too small"
    ) as caught:
        probe(FrozenNetwork(Refuses(float("inf"))).reader(), (3, 6, 6), ["output"])
    assert "\n" not in str(caught.value)


def test_means_that_are_not_for_the_channels_of_the_network_are_named() -> None:
    # Two means ask for pictures of two channels, which the network then refuses.
    with pytest.raises(
        ValueError, match=r"its forward fails on a picture of shape \(2, 8, 8\).*channels.*mean has 2 values"
    ):
        FrozenNetwork(toy(), mean=(0.4, 0.5)).layers(8)
