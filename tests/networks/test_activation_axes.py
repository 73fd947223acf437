"""Which axis is which: maps with channels last, layers without a batch, and names that mean two things."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer

from featviz_pl.networks import FrozenNetwork


class Move(nn.Module):
    """Permute the axes."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.axes)


def last() -> nn.Sequential:
    """Build a convolution of five channels whose map is brought to (H, W, C), normalised there, and brought back."""
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), Move(0, 2, 3, 1), nn.LayerNorm(5, elementwise_affine=False), Move(0, 3, 1, 2)
    )


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (12, 8), (1, 4), (5, 5), (3, 5)], ids=str)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode], ids=lambda mode: str(mode.__name__))
def test_maps_with_channels_last_come_with_channels_first(
    size: tuple[int, int], mode: Callable[[], torch.no_grad]
) -> None:
    network = last()
    pictures = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with mode():
        read = FrozenNetwork(network).activations(pictures, ["0", "1", "2", "3"])
    assert isinstance(network[0], nn.Conv2d)
    plain = nn.functional.conv2d(pictures, network[0].weight, network[0].bias, padding=1).detach()
    centred = plain - plain.mean(1, keepdim=True)
    normal = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    for layer, expected in {"0": plain, "1": plain, "2": normal, "3": normal}.items():
        torch.testing.assert_close(read[layer].detach().clone(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [8, (8, 12)], ids=str)
def test_units_of_maps_with_channels_last_are_their_channels(size: int | tuple[int, int]) -> None:
    shape = (5, 8, 8) if size == 8 else (5, 8, 12)
    assert [(info.shape, info.units) for info in FrozenNetwork(last()).layers(size)][:4] == [(shape, 5)] * 4


@pytest.mark.parametrize(("size", "grid"), [(32, (8, 8)), ((32, 48), (8, 12))], ids=str)
def test_the_layers_of_a_swin_transformer_count_channels(size: int | tuple[int, int], grid: tuple[int, int]) -> None:
    with torch.random.fork_rng(devices=[]):
        network = SwinTransformer([4, 4], 12, [1, 1], [2, 2], [4, 4], num_classes=5)
    table = {info.name: (info.shape, info.units) for info in FrozenNetwork(network).layers(size)}
    height, width = grid  # patches of 4 x 4 pixels, then merged two by two
    assert table["features.0"] == ((12, height, width), 12)
    assert table["features.1.0.attn"] == ((12, height, width), 12)
    assert table["features.3"] == ((24, height // 2, width // 2), 24)
    assert table["permute"] == ((24, height // 2, width // 2), 24)
    assert table["output"] == ((5,), 5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_layer_whose_second_axis_is_the_batch_comes_with_the_batch_first(count: int) -> None:
    frozen = FrozenNetwork(nn.Sequential(Move(1, 0, 2, 3), Move(1, 0, 2, 3)))
    pictures = torch.rand(count, 3, 6, 6)
    for value in frozen.activations(pictures, ["0", "1"]).values():
        torch.testing.assert_close(value, pictures)
    assert [info.shape for info in frozen.layers(6)] == [(3, 6, 6)] * 3


class Named(nn.Module):
    """Have a layer called output, and one layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Conv2d(3, 4, 1)
        self.alias = self.output

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output(x)
        return y * 3


def test_output_means_the_result_also_where_a_layer_has_this_name() -> None:
    network = Named()
    pictures = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    plain = nn.functional.conv2d(pictures, network.output.weight, network.output.bias)
    read = FrozenNetwork(network).activations(pictures, ["output", "alias"])
    torch.testing.assert_close(read["output"], 3 * plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(read["alias"], plain, rtol=1e-4, atol=1e-5)


def test_a_shared_layer_can_be_named_in_each_way() -> None:
    shared = nn.Conv2d(3, 3, 1)
    network = nn.ModuleDict({"first": nn.Sequential(shared, nn.ReLU()), "second": nn.Sequential(shared)})

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = network

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.parts["second"](self.parts["first"](x))
            return y

    pictures = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    read = FrozenNetwork(Twice()).activations(pictures, ["parts.first.0", "parts.second.0"])
    first = nn.functional.conv2d(pictures, shared.weight, shared.bias).clamp(min=0)
    expected = nn.functional.conv2d(first, shared.weight, shared.bias)  # the last of its results
    for value in read.values():
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
