"""Wide, strided convolutions: the faster form gives what the usual one gives."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from featviz_pl.networks import FrozenNetwork
from featviz_pl.networks.strided_conv import StridedConv2d, speed_up_strided

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
    reader = FrozenNetwork(nn.Sequential(usual)).reader()
    assert type(reader.module[0]) is StridedConv2d  # type: ignore[index]
    faster, expected = reader.module(pictures), usual(pictures)
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
    assert repr(frozen.reader().module) == repr(guest)
    assert type(guest[0]) is nn.Conv2d


def test_a_picture_that_is_too_small_gets_the_words_of_torch() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 7, 2))
    speed_up_strided(module)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        module(torch.rand(1, 3, 5, 9))


def slope(module: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    shown = pictures.clone().requires_grad_(True)
    result = module(shown)
    (gradient,) = torch.autograd.grad(result.float().square().sum(), shown)
    return gradient


def test_the_gradient_follows_weights_that_change_and_copies_have_their_own() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 7, 2, bias=False)).requires_grad_(False)
    speed_up_strided(module)
    pictures = torch.rand(1, 3, 16, 16)
    before = slope(module, pictures)
    copied = copy.deepcopy(module)
    module[0].weight.mul_(2)  # type: ignore[operator]
    torch.testing.assert_close(slope(module, pictures), 4 * before)
    torch.testing.assert_close(slope(copied, pictures), before)
    assert not [name for name in pickle.loads(pickle.dumps(module))[0].__dict__ if "blocks" in name]
    torch.testing.assert_close(slope(module.double(), pictures.double()), 4 * before.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["squeezenet", "resnet"])
def test_less_precision_gives_what_the_convolution_gives_in_it(name: str) -> None:
    usual = nn.Conv2d(out_channels=8, **GAIN[name]).requires_grad_(False)  # type: ignore[arg-type]
    faster = copy.deepcopy(usual)
    module = nn.Sequential(faster)
    speed_up_strided(module)
    pictures = torch.rand(1, 3, 32, 32)
    exact = slope(usual, pictures)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(pictures.requires_grad_(True)), usual(pictures))
        own = slope(module, pictures.detach())
    assert own.dtype == torch.float32
    torch.testing.assert_close(own, exact, rtol=0.05, atol=0.05 * float(exact.abs().max()))


def test_weights_that_learn_get_their_gradient() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 7, 2))
    speed_up_strided(module)
    module(torch.rand(1, 3, 16, 16, requires_grad=True)).sum().backward()
    assert module[0].weight.grad is not None
