"""Which axes count pictures, units and positions: whatever a network's own order, each picture's activations are its own."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer

from featviz_pl.networks import FrozenNetwork

SIGNAL, TOKENS, MAPS, FEATURES = "channels x positions", "tokens x features", "channels x height x width", "features"


class Signal(nn.Module):
    """Read the picture's one row as a signal."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.act = nn.Conv1d(1, 6, 9, stride=2, padding=4), nn.BatchNorm1d(6), nn.ReLU()
        self.last = nn.Conv1d(6, 3, 5)

    def forward(self, pictures: Tensor) -> Tensor:
        result: Tensor = self.last(self.act(self.norm(self.first(pictures[:, :1].flatten(2)))))
        return result


class BatchSecond(nn.Module):
    """Encode tokens with the batch second, torch's default."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32)

    def forward(self, pictures: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(self.patches(pictures).flatten(2).permute(2, 0, 1))
        return tokens.mean(0)


class Windows(nn.Module):
    """Cut maps into quarters, those of a picture side by side on the first axis, or apart from one another."""

    def __init__(self, interleaved: bool) -> None:
        super().__init__()
        self.conv, self.mlp, self.axis = nn.Conv2d(3, 8, 1), nn.Linear(8, 5), 0 if interleaved else 1

    def forward(self, pictures: Tensor) -> Tensor:
        maps = self.conv(pictures)
        half = maps.shape[-1] // 2
        quarters = torch.stack([part for rows in maps.split(half, 2) for part in rows.split(half, 3)], self.axis)
        windows = self.mlp(quarters.flatten(0, 1).flatten(2).transpose(1, 2))
        result: Tensor = windows.unflatten(0, quarters.shape[:2]).mean((self.axis, 2))
        return result


def swin() -> nn.Module:
    network: nn.Module = SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4])
    return network


class Last(nn.Module):
    """Hold maps with the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 6)

    def forward(self, pictures: Tensor) -> Tensor:
        result: Tensor = self.mix(self.conv(pictures).permute(0, 2, 3, 1)).mean((1, 2))
        return result


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], dict[str, tuple[str, int]]]] = {
    "signals": (
        Signal,
        (1, 64),
        {"first": (SIGNAL, 6), "norm": (SIGNAL, 6), "act": (SIGNAL, 6), "last": (SIGNAL, 3), "output": (SIGNAL, 3)},
    ),
    "batch second": (
        BatchSecond,
        (32, 32),
        {
            "patches": (MAPS, 16),
            "encoder.linear1": (TOKENS, 32),
            "encoder.norm2": (TOKENS, 16),
            "encoder.dropout1": (TOKENS, 16),
            "output": (FEATURES, 16),
        },
    ),
    "windows": (partial(Windows, False), (16, 16), {"conv": (MAPS, 8), "mlp": (TOKENS, 5), "output": (FEATURES, 5)}),
    "interleaved windows": (partial(Windows, True), (16, 16), {"mlp": (TOKENS, 5), "output": (FEATURES, 5)}),
    "channels last": (Last, (16, 12), {"conv": (MAPS, 8), "mix": (MAPS, 6), "output": (FEATURES, 6)}),
    "swin": (
        swin,
        (64, 64),
        {"features.1.0": (MAPS, 16), "features.1.0.mlp.0": (MAPS, 64), "output": (FEATURES, 1000)},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_axes_are_found_and_a_picture_does_not_depend_on_its_batch(name: str) -> None:
    make, size, layers = NETWORKS[name]
    torch.manual_seed(0)
    network = FrozenNetwork(make().double(), channels=3)
    infos = {info.name: (info.axes, info.units) for info in network.layers(size)}
    assert {layer: infos.get(layer) for layer in layers} == layers
    pictures = torch.rand(3, 3, *size, dtype=torch.float64)
    together = network.activations(pictures, list(layers))
    for layer, (axes, units) in layers.items():
        alone = torch.cat([network.activations(picture[None], [layer])[layer] for picture in pictures])
        assert torch.allclose(together[layer], alone, atol=1e-12), layer
        assert together[layer].shape[2 if axes == TOKENS else 1] == units


def test_a_signal_is_read_as_a_map_of_height_1() -> None:
    torch.manual_seed(0)
    module = Signal().eval()
    picture = torch.rand(2, 1, 1, 64)
    read = FrozenNetwork(module).activations(picture, ["act"])["act"]
    expected = torch.relu(module.norm(module.first(picture.flatten(2))))
    assert torch.allclose(read, expected[:, :, None], atol=1e-6)


@dataclass
class Result:
    """What a structured forward returns."""

    loss: Tensor | None
    logits: Tensor
    states: tuple[Tensor, ...]


class Structured(nn.Module):
    """Return a dataclass, and run a layer three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pair = nn.Conv2d(3, 3, 3, padding=1), Pair()

    def forward(self, pictures: Tensor) -> Result:
        states = [self.conv(pictures)]
        states += [self.conv(states[-1]), self.conv(self.conv(states[-1]))]
        return Result(None, self.pair(states[-1])["sum"].mean((2, 3)), tuple(states))


class Pair(nn.Module):
    """Return a dict."""

    def forward(self, maps: Tensor) -> dict[str, Tensor]:
        return {"sum": maps + 1, "product": 2 * maps}


def test_calls_and_parts_have_names() -> None:
    torch.manual_seed(0)
    module = Structured()
    picture = torch.rand(1, 3, 8, 8)
    result, conv = module(picture), module.conv
    expected = {
        "output": result.logits,
        "output.logits": result.logits,
        "output.states.1": result.states[1],
        "pair": result.states[-1] + 1,
        "pair.product": 2 * result.states[-1],
        "conv": conv(conv(conv(picture))),
        "conv#2": conv(conv(picture)),
    }
    read = FrozenNetwork(module).activations(picture, list(expected))
    assert all(torch.allclose(read[name], value, atol=1e-6) for name, value in expected.items())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("output.logit", "'output.logits'"),
        ("pair.quotient", "'pair.product'"),
        ("conv#9", "runs 4 times"),
        ("conv.3", "no layer 'conv.3'"),
        ("conf", "'conv'"),
    ],
)
def test_names_of_nothing_list_what_there_is(layer: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrozenNetwork(Structured()).activations(torch.rand(1, 3, 8, 8), [layer])


class TwoInputs(nn.Module):
    """Need a second input, by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, *, pixel_values: Tensor, scale: float) -> dict[str, Any]:
        return {"loss": None, "logits": self.conv(pixel_values).mean((2, 3)) * scale}


def with_scale(module: nn.Module, pictures: Tensor) -> Any:
    return module(pixel_values=pictures, scale=3.0)


def test_a_forward_that_takes_more_than_pictures_is_called_by_a_function() -> None:
    module = TwoInputs()
    with pytest.raises(ValueError, match="call="):
        FrozenNetwork(module).layers(8)
    network = pickle.loads(pickle.dumps(FrozenNetwork(module, call=with_scale)))
    assert [info.name for info in network.layers(8)] == ["conv", "output"]
    picture = torch.rand(1, 3, 8, 8)
    for layer in ("output", "output.logits"):
        read = network.activations(picture, [layer])[layer]
        assert torch.allclose(read, 3 * module.conv(picture).mean((2, 3)), atol=1e-6)


def test_the_function_may_be_named_by_its_path() -> None:
    network = FrozenNetwork(nn.Conv2d(3, 4, 3), call="torch.nn.functional:relu")
    assert getattr(network, "call") == nn.functional.relu  # noqa: B009 - mypy knows both types
    with pytest.raises(ValueError, match="call: cannot import"):
        FrozenNetwork(nn.Conv2d(3, 4, 3), call="torch.nn.functional:rellu")
    with pytest.raises(TypeError, match="call must be"):
        FrozenNetwork(nn.Conv2d(3, 4, 3), call=3)  # type: ignore[arg-type]


def test_volumes_say_how_to_wrap_them() -> None:
    video = nn.Conv3d(3, 4, 3, padding=1)
    network = FrozenNetwork(
        nn.Sequential(video), call=lambda module, pictures: module(pictures[:, :, None].expand(-1, -1, 4, -1, -1))
    )
    with pytest.raises(ValueError, match="volumes and videos are not read yet; wrap"):
        network.activations(torch.rand(1, 3, 8, 8), ["0"])


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()


GUESTS: dict[str, tuple[Callable[[], Any], str]] = {
    "traced": (lambda: torch.jit.trace(plain(), torch.rand(1, 3, 16, 16)), "output"),
    "scripted": (lambda: torch.jit.script(plain()), "output"),
    "a scripted child": (lambda: nn.Sequential(plain(), torch.jit.script(nn.Identity())), "0.0"),
    "parallel": (lambda: nn.DataParallel(plain()), "1"),
    "exported": (lambda: torch.export.export(plain(), (torch.rand(1, 3, 16, 16),)).module(), "output"),
}


@pytest.mark.parametrize("kind", GUESTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_guests_that_are_no_plain_modules_are_read_with_their_gradient(kind: str) -> None:
    make, layer = GUESTS[kind]
    picture = torch.rand(1, 3, 16, 16, requires_grad=True)
    read = FrozenNetwork(make()).activations(picture, [layer])[layer]
    assert torch.allclose(read, plain()(picture) if layer != "0.0" else plain()[0](picture), atol=1e-6)
    (gradient,) = torch.autograd.grad(read.sum(), picture)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("module", "message"),
    [(nn.Sequential(nn.LazyConv2d(4, 3)), "lazy"), (nn.Conv2d(3, 4, 3, device="meta"), "meta device")],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_networks_without_numbers_are_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrozenNetwork(module)


def test_a_network_of_one_size_names_it() -> None:
    network = FrozenNetwork(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 10)))
    with pytest.raises(ValueError, match="it works at size=28"):
        network.layers()
