"""Networks to trace, and what their own forward gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.networks import ActivationReader, FrozenNetwork


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Make a batch norm that has seen data: a fresh one changes next to nothing."""
    norm = nn.BatchNorm2d(channels)
    generator = torch.Generator().manual_seed(channels)
    for held, low, high in (
        (norm.weight, 0.5, 2),
        (norm.bias, -1, 1),
        (norm.running_mean, -1, 1),
        (norm.running_var, 0.5, 2),
    ):
        assert held is not None
        held.data = low + (high - low) * torch.rand(channels, generator=generator)
    return norm


class Residual(nn.Module):
    """Two branches, batch norms, a rectifier that is used twice, and a head that takes one size only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 7, 2, bias=False), batch_norm(8)
        self.relu = nn.ReLU(inplace=True)
        self.left, self.left_norm = nn.Conv2d(8, 8, 3, padding=1), batch_norm(8)
        self.right = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, pictures: Tensor) -> Tensor:
        stem = self.relu(self.norm(self.stem(pictures)))
        left, right = self.left_norm(self.left(stem)), self.right(stem)
        left += right
        result: Tensor = self.head(self.relu(left).mean((2, 3)))
        return result


class Forward(nn.Module):
    """A network of two convolutions between which something happens."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 4, 3), batch_norm(4), nn.Conv2d(4, 5, 3)
        self.between = between

    def forward(self, pictures: Tensor) -> Any:
        return self.second(self.between(self, self.first(pictures)))


def read_fully(network: nn.Module, pictures: Tensor, layers: list[str]) -> list[Tensor]:
    """Read layers by hooks on the network itself, as a user would."""
    results: dict[str, Tensor] = {}
    modules = {**dict(network.named_modules()), "output": network}

    def keep(layer: str) -> Any:
        def hook(module: nn.Module, inputs: Any, result: Tensor) -> None:
            results[layer] = result.clone()

        return hook

    handles = [modules[layer].register_forward_hook(keep(layer)) for layer in layers]
    network(pictures)
    for handle in handles:
        handle.remove()
    return [results[layer] for layer in layers]


def graph_of(activation_reader: ActivationReader) -> Any:
    """Return the graph that the last reading found, or None."""
    (reader,) = activation_reader._traced.values()
    return None if reader is None else reader.graph


def assert_reads_as_the_network(network: nn.Module, layers: list[str]) -> ActivationReader:
    network = network.double().eval()
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=generator, requires_grad=True)
    expected = read_fully(network, pictures, layers)
    weights = [torch.randn(value.shape, dtype=torch.float64, generator=generator) for value in expected]
    (gradient,) = torch.autograd.grad(expected, pictures, weights)
    activation_reader = FrozenNetwork(network).reader()
    for _ in range(2):  # the first reading finds out, the second uses it
        read = [activation_reader.activations(pictures, layers)[layer] for layer in layers]
        torch.testing.assert_close(read, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(torch.autograd.grad(read, pictures, weights)[0], gradient, rtol=0, atol=1e-10)
    return activation_reader
