"""Wide, strided convolutions: the faster form gives what the usual one gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from featviz_pl.networks import FrozenNetwork
from featviz_pl.networks.strided import StridedConv2d, speed_up_strided

GAIN = {
    "squeezenet": {"in_channels": 3, "kernel_size": 7, "stride": 2},
    "resnet": {"in_channels": 3, "kernel_size": 7, "stride": 2, "padding": 3, "bias": False},
    "alexnet": {"in_channels": 3, "kernel_size": 11, "stride": 4, "padding": 2},
    "patches": {"in_channels": 1, "kernel_size": 16, "stride": 16},
    "oblong": {"in_channels": 2, "kernel_size": (9, 7), "stride": (2, 3), "padding": (0, 1)},
    "more padding than the kernel reaches": {"in_channels": 3, "kernel_size": 7, "stride": 5, "padding": 6},
}
LEAVE = {
    "small": {"in_channels": 3, "kernel_size": 3, "stride": 2},
    "dense": {"in_channels": 3, "kernel_size": 7, "stride": 1},
    "deep": {"in_channels": 64, "kernel_size": 7, "stride": 2},
    "grouped": {"in_channels": 4, "kernel_size": 7, "stride": 2, "groups": 2},
    "dilated": {"in_channels": 3, "kernel_size": 7, "stride": 2, "dilation": 2},
    "mirrored": {"in_channels": 3, "kernel_size": 7, "stride": 2, "padding": 3, "padding_mode": "reflect"},
}


@pytest.mark.parametrize("size", [(32, 32), (37, 45), (17, 16)])
@pytest.mark.parametrize("name", GAIN)
def test_values_and_gradients_are_those_of_the_convolution(name: str, size: tuple[int, int]) -> None:
    arguments = GAIN[name]
    usual = nn.Conv2d(out_channels=5, **arguments).double()  # type: ignore[arg-type]
    pictures = torch.rand(2, usual.in_channels, *size, dtype=torch.float64, requires_grad=True)
    shadow = FrozenNetwork(nn.Sequential(usual)).shadow()
    assert type(shadow.module[0]) is StridedConv2d  # type: ignore[index]
    faster, expected = shadow.module(pictures), usual(pictures)
    torch.testing.assert_close(faster, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(expected)
    (own,), (theirs,) = (torch.autograd.grad(result, pictures, weights) for result in (faster, expected))
    torch.testing.assert_close(own, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LEAVE)
def test_other_convolutions_stay_as_they_are(name: str) -> None:
    module = nn.Sequential(nn.Conv2d(out_channels=8, **LEAVE[name]))  # type: ignore[arg-type]
    speed_up_strided(module)
    assert type(module[0]) is nn.Conv2d


def test_a_guest_keeps_its_class_and_users_see_its_name() -> None:
    guest = nn.Sequential(nn.Conv2d(3, 8, 7, 2), nn.ReLU())
    frozen = FrozenNetwork(guest)
    assert [layer.kind for layer in frozen.layers(32)][:2] == ["Conv2d", "ReLU"]
    assert repr(frozen.shadow().module) == repr(guest)
    assert type(guest[0]) is nn.Conv2d


def test_a_picture_that_is_too_small_gets_the_words_of_torch() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 7, 2))
    speed_up_strided(module)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        module(torch.rand(1, 3, 5, 9))


def test_weights_that_change_are_followed() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 7, 2, bias=False))
    speed_up_strided(module)
    pictures = torch.rand(1, 3, 16, 16)
    before = module(pictures)
    with torch.no_grad():
        module[0].weight.mul_(2)  # type: ignore[operator]
    torch.testing.assert_close(module(pictures), 2 * before)
