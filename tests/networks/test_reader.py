"""Layers are read as a plain forward hook on the network in evaluation mode reads them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from guests import small_embedded
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision.models.vision_transformer import VisionTransformer
from toys import QUIET, toy

from featviz_pl.networks import FrozenNetwork
from featviz_pl.networks.probing import probe

PICTURES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def by_plain_hook(network: nn.Module, pictures: Tensor, layer: str) -> Any:
    """Run a copy of the network to its end and return a copy of what the layer gave last."""
    plain = copy.deepcopy(network).eval()
    kept: list[Any] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        kept.append(output.clone() if isinstance(output, Tensor) else output)

    (plain if layer == "output" else plain.get_submodule(layer)).register_forward_hook(keep)
    plain(pictures)
    return kept[-1]


class InPlace(nn.Module):
    """Rectify in place by function, right behind the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(nn.functional.relu(self.first(x), inplace=True).mul_(2))
        return y


class Repeated(nn.Module):
    """Use one convolution and one rectifier three times."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.relu, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.relu(self.again(x))
        y: Tensor = self.last(x)
        return y


class Bundles(nn.Module):
    """Give tuples and dictionaries between layers."""

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[str, Tensor, Tensor]:
            return "first comes a text", x * 2, x * 3

    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"step": 3, "features": x + 1, "rest": x}

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.named = Bundles.Pair(), Bundles.Named()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        result: dict[str, Tensor] = self.named(self.pair(x)[1])
        return {"logits": result["features"].mean((2, 3))}


class Tied(nn.Module):
    """Share one weight between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return y


class Model(LightningModule):
    """Hold a toy network, and losses of the epoch that still have their graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.network = toy()
        self.losses: list[Any] = []

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x)
        return y

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self(batch[0]).square().mean()
        self.losses.append({"loss": loss})
        return torch.as_tensor(loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def weight_normed(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    network = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), nn.ReLU(inplace=True), norm(nn.Conv2d(4, 2, 3)))
    network(torch.rand(1, 3, 8, 8))  # leaves derived weights with a graph behind
    return network


def doubled_by_a_hook() -> nn.Module:
    network = toy()
    network.features[0].register_forward_hook(lambda *call: call[2] * 2)
    return network


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "rectifier in place": (toy, ["features.0", "features.1", "features.3", "features", "head", "output"]),
    "function in place": (InPlace, ["first", "last"]),
    "called several times": (Repeated, ["again", "relu", "last"]),
    "tied weights": (Tied, ["first", "second"]),
    "weight norm": (lambda: weight_normed(parametrizations.weight_norm), ["0", "2", "output"]),
    "spectral norm": (lambda: weight_normed(parametrizations.spectral_norm), ["0", "2", "output"]),
    "a hook of the user": (doubled_by_a_hook, ["features.0", "output"]),
    "embedded": (small_embedded, ["stem.0", "blocks.1.residual.2", "blocks.1.shortcut", "blocks.4", "output"]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_layer_and_all_together_equal_a_plain_hook(name: str) -> None:
    make, layers = NETWORKS[name]
    network = make().double()
    frozen, reader = FrozenNetwork(network), FrozenNetwork(network).reader()
    together = frozen.activations(PICTURES, layers)
    assert set(together) == set(layers)
    for layer in layers:
        expected = by_plain_hook(network, PICTURES, layer)
        torch.testing.assert_close(together[layer], expected, rtol=1e-9, atol=1e-12)
        for _ in range(2):  # the second reading of a reader knows what is overwritten
            torch.testing.assert_close(reader.activations(PICTURES, [layer])[layer], expected, rtol=1e-9, atol=1e-12)


def test_reading_under_inference_mode_gives_the_same() -> None:
    network = InPlace().double()
    with torch.inference_mode():
        read = FrozenNetwork(network).activations(PICTURES, ["first"])["first"]
    torch.testing.assert_close(read.clone(), by_plain_hook(network, PICTURES, "first"))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weight_norm_of_the_older_kind() -> None:
    network = weight_normed(torch.nn.utils.weight_norm).double()
    with torch.no_grad():
        network[0].weight_g.mul_(3)  # type: ignore[index]
    read = FrozenNetwork(network).activations(PICTURES, ["0"])["0"]
    first: Any = network[0]  # type: ignore[index]
    direction = first.weight_v / first.weight_v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(read, nn.functional.conv2d(PICTURES, first.weight_g * direction, first.bias))


def test_tuples_and_dictionaries_give_their_first_tensor() -> None:
    read = FrozenNetwork(Bundles()).activations(PICTURES, ["pair", "named", "output"])
    torch.testing.assert_close(read["pair"], PICTURES * 2)
    torch.testing.assert_close(read["named"], PICTURES * 2 + 1)
    torch.testing.assert_close(read["output"], (PICTURES * 2 + 1).mean((2, 3)))


@pytest.mark.parametrize("in_place", [False, True], ids=["wrapped", "in place"])
def test_a_compiled_network_is_read_by_the_names_of_the_plain_one(in_place: bool) -> None:
    plain = toy().double()
    compiled: Any = copy.deepcopy(plain)
    if in_place:
        compiled.compile(backend="eager")
    else:
        compiled = torch.compile(compiled, backend="eager")
    compiled.eval()
    with torch.no_grad():
        compiled(PICTURES)  # a compiled forward is ready, and would ignore hooks that come later
    read = FrozenNetwork(compiled).activations(PICTURES, ["features.0", "head"])
    for layer, activation in read.items():
        torch.testing.assert_close(activation, by_plain_hook(plain, PICTURES, layer), rtol=1e-9, atol=1e-12)


def test_a_compiled_network_has_the_name_and_hash_of_the_plain_one() -> None:
    compiled: Any = torch.compile(toy(), backend="eager")
    assert FrozenNetwork(compiled).name == "ToyNet"
    assert FrozenNetwork(compiled).weights_hash() == FrozenNetwork(toy()).weights_hash()


def test_a_compiled_part_of_a_network_is_read() -> None:
    plain = toy().double()
    partly = copy.deepcopy(plain)
    partly.features = torch.compile(partly.features, backend="eager")  # type: ignore[assignment]
    read = FrozenNetwork(partly).activations(PICTURES, ["features.2"])["features.2"]
    torch.testing.assert_close(read, by_plain_hook(plain, PICTURES, "features.2"), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*many workers")
def test_a_lightning_module_can_be_read_in_its_own_training() -> None:
    model = Model()
    trainer = Trainer(max_steps=2, **QUIET)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(PICTURES.float()), batch_size=1)
    trainer.fit(model, data)
    assert model._trainer is trainer
    assert model.losses[-1]["loss"].requires_grad
    read = FrozenNetwork(model).activations(PICTURES.float(), ["network.features.3"])["network.features.3"]
    torch.testing.assert_close(read, by_plain_hook(model.network, PICTURES.float(), "features.3"), rtol=1e-4, atol=1e-5)
    assert model._trainer is trainer


# Transformers


def transformer() -> VisionTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = VisionTransformer(
            image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
        )
        nn.init.normal_(network.heads.head.weight)  # it starts from zero, which nothing could be told from
        return network


class Encoder(nn.Module):
    """Use torch's own encoder, which in evaluation mode without gradients hides its parts in one fused call."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.encoder(self.patches(x).flatten(2).transpose(1, 2))
        return y


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad], ids=["with gradients", "without"])
@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (transformer, "conv_proj"),
        (transformer, "encoder.layers.encoder_layer_0.mlp.0"),
        (transformer, "encoder.layers.encoder_layer_1.self_attention"),
        (transformer, "encoder.ln"),
        (transformer, "output"),
        (Encoder, "encoder.layers.0.linear1"),
        (Encoder, "encoder.layers.1.self_attn"),
        (Encoder, "encoder.layers.1.norm2"),
        (Encoder, "encoder"),
    ],
)
def test_layers_of_transformers_equal_a_plain_hook(make: Callable[[], nn.Module], layer: str, mode: Any) -> None:
    network = make().double()
    expected = by_plain_hook(network, PICTURES.clone().requires_grad_(True), layer)
    expected = expected[0] if isinstance(expected, tuple) else expected
    reader = FrozenNetwork(network).reader()
    probe(reader, (3, 16, 16), [layer])
    with mode():
        torch.testing.assert_close(reader.activations(PICTURES, [layer])[layer], expected, rtol=1e-9, atol=1e-12)


def test_a_network_of_one_size_is_resized_at_its_door_and_only_then() -> None:
    frozen = FrozenNetwork(transformer().double(), size=16)
    color = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64).view(1, 3, 1, 1)
    expected = frozen.activations(color.expand(1, 3, 16, 16), ["encoder.ln"])["encoder.ln"]
    reader = frozen.reader()
    assert probe(reader, (3, 40, 24), ["encoder.ln"]) == {"encoder.ln": (5, 16)}
    assert reader.only_size == (16, 16)
    # A picture of one color is the same picture in every size, whatever resizes it.
    torch.testing.assert_close(reader.activations(color.expand(1, 3, 40, 24), ["encoder.ln"])["encoder.ln"], expected)
    native = frozen.reader()
    probe(native, (3, 16, 16), ["encoder.ln"])
    assert native.only_size is None
    anysize = FrozenNetwork(toy(), size=16).reader()
    probe(anysize, (3, 24, 24), ["output"])
    assert anysize.only_size is None


@pytest.mark.parametrize("side", [8, 24])
def test_a_network_of_one_unknown_size_says_that_its_forward_fails(side: int) -> None:
    with pytest.raises(ValueError, match=rf"its forward fails on a picture of shape \(3, {side}, {side}\): .*16"):
        probe(FrozenNetwork(transformer()).reader(), (3, side, side), ["encoder.ln"])


# Pictures on their way to the network


@pytest.mark.parametrize(
    ("channels", "mean", "std"),
    [
        (1, 0.3, 0.5),
        (1, (0.3,), (0.5,)),
        (3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (3, None, 0.5),
        (3, 0.5, None),
        (7, 0.1, 0.2),
    ],
)
def test_pictures_are_standardised(channels: int, mean: Any, std: Any) -> None:
    pictures = np.random.default_rng(0).random((2, channels, 4, 5))
    read = FrozenNetwork(nn.Identity(), mean=mean, std=std).activations(torch.from_numpy(pictures), ["output"])[
        "output"
    ]
    expected = pictures - np.asarray(0.0 if mean is None else mean).reshape(-1, 1, 1)
    expected = expected / np.asarray(1.0 if std is None else std).reshape(-1, 1, 1)
    np.testing.assert_allclose(read.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("channels", [1, 7])
def test_networks_of_other_channels_are_read(channels: int) -> None:
    network = toy(channels).double()
    pictures = torch.rand(2, channels, 9, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    frozen = FrozenNetwork(network)
    assert frozen.channels == channels
    torch.testing.assert_close(frozen.activations(pictures, ["head"])["head"], by_plain_hook(network, pictures, "head"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_networks_keep_their_precision(dtype: torch.dtype) -> None:
    network = nn.Conv2d(3, 2, 1).to(dtype)
    read = FrozenNetwork(network).activations(PICTURES.float(), ["output"])["output"]
    assert read.dtype == dtype
    assert network.bias is not None
    exact = np.einsum("oi,nihw->nohw", network.weight.detach().double().numpy()[:, :, 0, 0], PICTURES.numpy())
    exact += network.bias.detach().double().numpy()[:, None, None]
    np.testing.assert_allclose(read.detach().double().numpy(), exact, atol=1e-6 if dtype == torch.float64 else 0.02)


def test_gradients_reach_pictures_in_single_precision_through_a_network_in_half_precision() -> None:
    picture = PICTURES.float().requires_grad_(True)
    FrozenNetwork(nn.Conv2d(3, 2, 1).bfloat16()).activations(picture, ["output"])["output"].sum().backward()
    assert picture.grad is not None
    assert picture.grad.dtype == torch.float32
    assert bool(picture.grad.abs().sum() > 0)


def test_a_mean_for_other_channels_is_refused_instead_of_broadcast() -> None:
    frozen = FrozenNetwork(nn.Conv2d(3, 2, 1), mean=(0.4, 0.5, 0.6))
    with pytest.raises(ValueError, match=r"channels: pictures have 1, but .* 3"):
        frozen.activations(torch.rand(1, 1, 4, 4), ["output"])


@pytest.mark.parametrize(
    ("mean", "std", "named"), [((0.4, 0.5), None, "mean has 2 values"), (None, (0.4, 0.5), "std has 2 values")]
)
def test_the_error_names_which_of_mean_and_std_does_not_fit(mean: Any, std: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"channels: pictures have 3, but the network's {named}"):
        FrozenNetwork(nn.Conv2d(3, 2, 1), mean, std=std).activations(torch.rand(1, 3, 4, 4), ["output"])
