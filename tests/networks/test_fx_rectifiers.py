"""Rectifiers of a traced network: late and in place, but where a gradient rule wants each in its own order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from traced import Forward, Residual, assert_reads_as_the_network, graph_of

from featviz_pl.networks import FrozenNetwork, redirected_relu, relaxed_max_pool
from featviz_pl.networks.gradient_rules import GradientRules


def test_rectifiers_write_over_convolutions_that_nobody_else_reads() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    graph = graph_of(assert_reads_as_the_network(network, ["1", "2", "3"]))
    called = [node.target for node in graph.nodes if node.op in ("call_module", "call_function")]
    assert called == ["0", torch.relu_, "2", "3"]


def before_and_after(name: str) -> tuple[nn.Module, list[str], list[Any]]:
    """Return a network, layers, and what its graph calls in which order."""
    first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    if name == "pooled":
        return nn.Sequential(first, nn.ReLU(inplace=True), pool, second), ["3"], ["0", "2", torch.relu_, "3"]
    if name == "pooled, and read before":
        return nn.Sequential(first, nn.ReLU(), pool, second), ["1", "3"], ["0", torch.relu_, "2", "3"]
    if name == "pooled, and that is read":
        return nn.Sequential(first, nn.ReLU(), pool, second), ["2", "3"], ["0", "2", torch.relu_, "3"]
    if name == "with indices":
        return nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2, return_indices=True)), ["1"], ["0", torch.relu_]
    return Joined(name), ["pool"] if "pooled" in name else ["output"], JOINED[name]


class Joined(nn.Module):
    """Two rectified branches beside each other."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.left, self.right, self.relu, self.pool = (
            nn.Conv2d(3, 4, 1),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        left, right = self.relu(self.left(pictures)), self.right(pictures)
        right = right if self.name == "joined, one rectified" else self.relu(right)
        parts = [left, left, right] if self.name == "joined, one twice" else [left, right]
        joined = torch.cat(parts, 1)
        if self.name == "joined, and one read again":
            joined = joined + left.repeat(1, 2, 1, 1)
        pooled: Tensor = self.pool(joined) if self.name == "joined and pooled" else joined * 2
        return pooled


JOINED: dict[str, list[Any]] = {
    "joined": ["left", "right", torch.cat, torch.relu_],
    "joined and pooled": ["left", "right", torch.cat, "pool", torch.relu_],
    "joined, one rectified": ["left", torch.relu_, "right", torch.cat],
    "joined, one twice": ["left", "right", torch.cat, torch.relu_],
    "joined, and one read again": ["left", torch.relu_, "right", torch.relu_, torch.cat],
}
LATE = ["pooled", "pooled, and read before", "pooled, and that is read", "with indices", *JOINED]


@pytest.mark.parametrize("name", LATE)
def test_maps_are_rectified_once_they_are_joined_and_pooled(name: str) -> None:
    network, layers, expected = before_and_after(name)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.Conv2d) and part.bias is not None:
                part.bias.copy_(torch.linspace(-1.2, 0.4, len(part.bias)))  # windows that are off, on, and partly both
    graph = graph_of(assert_reads_as_the_network(network, layers))
    called = [node.target for node in graph.nodes if node.op in ("call_module", "call_function")]
    assert [
        target for target in called if isinstance(target, str) or target in (torch.relu_, torch.cat, torch.relu)
    ] == expected


def test_rectifying_after_a_pool_is_exact_for_every_window() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(2)).double().eval()
    with torch.no_grad():
        network[0].weight.fill_(1)  # type: ignore[operator]
    windows = torch.tensor(list(itertools.product([-2.0, -1.0, 0.0, 1.0, 2.0], repeat=4)), dtype=torch.float64)
    pictures = windows.view(-1, 1, 2, 2).requires_grad_(True)  # with every tie there is
    reader = FrozenNetwork(network).reader()
    for _ in range(2):
        own, theirs = reader.activations(pictures, ["2"])["2"], network(pictures)
        assert torch.equal(own, theirs)
        assert torch.equal(*(torch.autograd.grad(result.sum(), pictures)[0] for result in (own, theirs)))
    assert torch.relu_ in {node.target for node in graph_of(reader).nodes}


@pytest.mark.parametrize("rule", [redirected_relu, relaxed_max_pool])
def test_gradient_rules_reach_a_traced_network(rule: Callable[[], Any]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3)).double().eval()
    with torch.no_grad():
        network[0].bias.fill_(-5)  # type: ignore[operator] # all rectifiers are off
    pictures = torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    reader = FrozenNetwork(network).reader()
    reader.activations(pictures, ["output"])
    assert graph_of(reader) is not None
    with rule():
        (own,) = torch.autograd.grad(reader.activations(pictures, ["output"])["output"].sum(), pictures)
        (theirs,) = torch.autograd.grad(network(pictures).sum(), pictures)
    torch.testing.assert_close(own, theirs, rtol=0, atol=1e-12)


RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "functional": functional.relu,
    "functional, in place": lambda x: functional.relu(x, inplace=True),
    "torch": torch.relu,
    "torch, in place": torch.relu_,
    "relu6": functional.relu6,
    "hardtanh": functional.hardtanh,
    "module": nn.ReLU(),
}


@pytest.mark.parametrize("name", RECTIFIERS)
def test_a_rule_reaches_every_rectifier_of_a_network_that_has_been_traced(name: str) -> None:
    network = Forward(lambda _, maps: RECTIFIERS[name](maps - 50))
    pictures = torch.rand(1, 3, 16, 16, requires_grad=True, generator=torch.Generator().manual_seed(3))
    gradients: list[Tensor] = []
    for runs in (0, 2):
        reader = FrozenNetwork(network.eval()).reader()
        for _ in range(runs):
            assert not torch.autograd.grad(reader.activations(pictures, ["output"])["output"].sum(), pictures)[0].any()
        with redirected_relu():
            gradients += torch.autograd.grad(reader.activations(pictures, ["output"])["output"].sum(), pictures)
            assert len(reader._traced) == (runs > 0)  # a trace would record the rule
    assert gradients[0].any()
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_rules_are_counted_for_each_thread() -> None:
    seen: list[bool] = []
    with redirected_relu(), relaxed_max_pool():
        other = threading.Thread(target=lambda: seen.append(GradientRules.are_open()))
        other.start()
        other.join()
        assert GradientRules.are_open()
    with pytest.raises(ValueError, match="no layer 'nowhere'"), redirected_relu():
        FrozenNetwork(Residual()).reader().activations(torch.rand(1, 3, 16, 16), ["nowhere"])
    assert not GradientRules.are_open()
    assert seen == [False]
