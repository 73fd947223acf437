"""Precision of a traced network: what autocast would cast is cast once, and only that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from traced import Forward, Residual

from featviz_pl.networks import FrozenNetwork


@pytest.mark.parametrize("layers", [["output"], ["relu", "output"]], ids=str)
def test_weights_that_autocast_would_cast_in_every_step_are_cast_once(layers: list[str]) -> None:
    activation_reader = FrozenNetwork(Residual().eval()).reader()
    pictures = torch.rand(2, 3, 16, 16, requires_grad=True, generator=torch.Generator().manual_seed(3))

    def read() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            values = list(activation_reader.activations(pictures, layers).values())
        return [*values, *torch.autograd.grad([value.float().square().sum() for value in values], pictures)]

    found = read()
    key = next(key for key in activation_reader._traced if torch.bfloat16 in key)
    cast = activation_reader._traced[key]
    held = [part for part in cast.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    assert held
    assert {part.weight.dtype for part in held} == {torch.bfloat16}
    activation_reader._traced[key] = activation_reader._traced[key[:-1]]  # whose weights are cast in every step
    for own, again in zip(found, read()):
        assert torch.equal(own, again)
    assert {part.weight.dtype for part in activation_reader.module.modules() if isinstance(part, nn.Conv2d)} == {
        torch.float32
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_networks_of_double_precision_alone(dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 7, 2), nn.ReLU(), nn.Conv2d(4, 2, 3)).double().eval()
    pictures = torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    activation_reader = FrozenNetwork(network).reader()
    for _ in range(2):
        with torch.autocast("cpu", dtype):
            own, theirs = activation_reader.activations(pictures, ["output"])["output"], network(pictures)
        torch.testing.assert_close(own, theirs, rtol=0, atol=1e-12)
        one, other = (torch.autograd.grad(result.sum(), pictures)[0] for result in (own, theirs))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def without_autocast(network: Any, maps: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return maps.float() * 2


def test_a_forward_that_switches_autocast_off_is_followed() -> None:
    network = nn.Sequential(Forward(lambda _, maps: maps), Between()).eval()
    pictures = torch.rand(1, 3, 16, 16, requires_grad=True)
    activation_reader = FrozenNetwork(network).reader()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            assert (
                activation_reader.activations(pictures, ["output"])["output"].dtype
                == network(pictures).dtype
                == torch.float32
            )
    assert activation_reader.activations(pictures, ["output"])["output"].dtype == torch.float32


class Between(nn.Module):
    """Multiply in full precision, whatever the caller says."""

    def forward(self, maps: Tensor) -> Tensor:
        return without_autocast(self, maps)


def test_a_pass_without_gradients_does_not_spoil_those_that_follow() -> None:
    activation_reader = FrozenNetwork(Residual().eval()).reader()
    pictures = torch.rand(1, 3, 16, 16).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context, torch.autocast("cpu", torch.bfloat16):
            activation_reader.activations(pictures, ["output"])
        assert not activation_reader._traced
    with torch.autocast("cpu", torch.bfloat16):
        read = activation_reader.activations(pictures, ["output"])["output"]
    assert torch.autograd.grad(read.float().sum(), pictures)[0].any()
    assert all(activation_reader._traced.values())


def test_weights_are_cast_once_for_all_sizes() -> None:
    activation_reader = FrozenNetwork(Residual().eval()).reader()
    for side in (16, 24):
        with torch.autocast("cpu", torch.bfloat16):
            activation_reader.activations(torch.rand(1, 3, side, side, requires_grad=True), ["right"])
    readers = [reader for key, reader in activation_reader._traced.items() if torch.bfloat16 in key]
    assert len(readers) == 2
    rights = {
        part
        for reader in readers
        for part in reader.modules()
        if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)
    }
    assert len(rights) == 1
