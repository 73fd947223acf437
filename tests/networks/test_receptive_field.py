"""What the positions of a layer see, against the arithmetic of convolutions, and by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import toy

from featviz_pl.networks import FrozenNetwork, load_network, receptive_fields


def by_arithmetic(size: int, layers: list[tuple[int, int, int, int]]) -> list[tuple[int, int]]:
    """Return (start, end) of each position along one axis, for layers of (kernel, stride, padding, dilation)."""
    lengths = [size]
    for kernel, stride, padding, dilation in layers:
        lengths.append((lengths[-1] + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
    found = []
    for position in range(lengths[-1]):
        seen = {position}
        for length, (kernel, stride, padding, dilation) in zip(reversed(lengths[:-1]), reversed(layers)):
            seen = {at * stride - padding + tap * dilation for at in seen for tap in range(kernel)} & set(range(length))
        found.append((min(seen), max(seen) + 1))
    return found


def net_of(layers: list[tuple[int, int, int, int]]) -> nn.Module:
    parts: list[nn.Module] = []
    for kernel, stride, padding, dilation in layers:
        parts += [nn.Conv2d(3, 3, kernel, stride, padding, dilation), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)


STACKS = {
    "one convolution": [(3, 1, 0, 1)],
    "with padding": [(3, 1, 1, 1), (3, 1, 1, 1)],
    "with strides": [(3, 2, 1, 1), (3, 1, 1, 1), (5, 2, 2, 1)],
    "dilated": [(3, 1, 2, 2), (3, 2, 1, 1)],
    "with a stride that skips pixels": [(1, 2, 0, 1), (1, 2, 0, 1)],
    "wider than the picture": [(7, 1, 3, 1), (7, 1, 3, 1), (7, 1, 3, 1)],
}


@pytest.mark.parametrize("name", STACKS)
def test_boxes_are_those_of_the_arithmetic_of_convolutions(name: str) -> None:
    layers = STACKS[name]
    boxes = receptive_fields(net_of(layers), "output", size=(15, 18))
    rows, columns = by_arithmetic(15, layers), by_arithmetic(18, layers)
    assert boxes.shape == (len(rows), len(columns), 4)
    expected = [[[top, left, bottom, right] for left, right in columns] for top, bottom in rows]
    assert boxes.tolist() == expected


def test_rectifiers_that_are_off_and_pools_hide_nothing() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 3), nn.ReLU6()
    )
    for parameter in net.parameters():
        nn.init.constant_(parameter, -1.0)
    boxes = receptive_fields(net, "5", size=17)
    rows = by_arithmetic(17, [(3, 1, 0, 1), (3, 2, 0, 1), (3, 1, 0, 1)])
    assert boxes[:, 0, [0, 2]].tolist() == [list(row) for row in rows]


def test_the_embedded_network_sees_what_its_gradient_sees() -> None:
    network = load_network("embedded")
    names = [info.name for info in network.layers(48) if len(info.shape) == 3]
    layer = names[len(names) // 2]
    boxes = receptive_fields(network, layer, size=48)
    images = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    value = network.activations(images, [layer])[layer].sum(1)[0]
    y, x = value.shape[0] // 2, value.shape[1] // 2
    (gradient,) = torch.autograd.grad(value[y, x], images)
    rows, columns = (gradient[0] != 0).any(0).nonzero().unbind(1)
    top, left, bottom, right = boxes[y, x].tolist()
    assert top <= int(rows.min())
    assert int(rows.max()) < bottom
    assert left <= int(columns.min())
    assert int(columns.max()) < right
    assert (bottom - top) * (right - left) <= 1.5 * len(rows)  # and hardly more than what a random picture shows


def test_a_vector_behind_a_mean_sees_the_whole_picture() -> None:
    assert receptive_fields(toy(), "head", size=(12, 10)).tolist() == [0, 0, 12, 10]


class Attention(nn.Module):
    """Embed patches of 4 x 4, add a class token, and let all tokens look at all."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.tokens = nn.Identity()
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        y: Tensor = self.block(self.tokens(torch.cat([x.new_ones(len(x), 1, 8), tokens], 1)))
        return y


def test_tokens_see_their_patch_before_attention_and_everything_after_it() -> None:
    boxes = receptive_fields(Attention(), "tokens", size=(8, 12))
    assert boxes.tolist() == [[0, 0, 0, 0]] + [[4 * y, 4 * x, 4 * y + 4, 4 * x + 4] for y in range(2) for x in range(3)]
    assert receptive_fields(Attention(), "block", size=(8, 12)).tolist() == [[0, 0, 8, 12]] * 7


def test_squeeze_and_excitation_sees_everything() -> None:
    class Squeeze(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * functional.adaptive_avg_pool2d(x, 1).sigmoid()

    boxes = receptive_fields(nn.Sequential(nn.Conv2d(3, 2, 3), Squeeze()), "1", size=6)
    assert boxes.reshape(-1, 4).tolist() == [[0, 0, 6, 6]] * 16


class LastAxis(nn.Module):
    """Give maps (H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


def test_maps_with_channels_last_are_read_as_maps() -> None:
    boxes = receptive_fields(nn.Sequential(nn.Conv2d(3, 4, 3), LastAxis()), "1", size=(6, 9))
    assert boxes.shape == (4, 7, 4)
    assert boxes[1, 2].tolist() == [1, 2, 4, 5]


def test_the_network_and_the_settings_of_torch_stay_as_they_were() -> None:
    net = toy().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    settings = torch.backends.nnpack.enabled if hasattr(torch.backends.nnpack, "enabled") else None
    state = torch.random.get_rng_state()
    with torch.inference_mode():
        receptive_fields(net, "features.5", size=12)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training
    assert torch.equal(state, torch.random.get_rng_state())
    assert (torch.backends.nnpack.enabled if hasattr(torch.backends.nnpack, "enabled") else None) == settings


def test_half_and_double_precision_see_the_same() -> None:
    expected = receptive_fields(toy(), "features.5", size=12)
    assert torch.equal(receptive_fields(toy().double(), "features.5", size=12), expected)
    assert torch.equal(receptive_fields(toy().bfloat16(), "features.5", size=12), expected)


@pytest.fixture
def medium() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("medium")
def test_kernels_of_reduced_precision_mix_no_neighbours() -> None:
    layers = STACKS["with padding"]
    boxes = receptive_fields(net_of(layers), "output", size=15)
    assert boxes[0, :, [1, 3]].tolist() == [list(row) for row in by_arithmetic(15, layers)]
    assert torch.get_float32_matmul_precision() == "medium"


def test_what_cannot_be_probed_is_refused() -> None:
    class Replace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.nan_to_num()

    with pytest.raises(ValueError, match="layer: '1' becomes NaN nowhere"):
        receptive_fields(nn.Sequential(nn.Conv2d(3, 2, 3), Replace()), "1", size=6)
    with pytest.raises(ValueError, match=r"did you mean .features\.5"):
        receptive_fields(toy(), "features.55", size=12)


def test_a_network_by_name_has_its_own_size() -> None:
    network = load_network("embedded")
    assert isinstance(network, FrozenNetwork)
    first = next(info for info in network.layers() if len(info.shape) == 3)
    assert receptive_fields("embedded", first.name).shape == (*first.shape[1:], 4)
