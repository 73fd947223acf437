"""A network without what a run does not need gives what the whole network gives, or is not used."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from featviz_pl.ascent import Ascent
from featviz_pl.images import PixelImage
from featviz_pl.networks import FrozenNetwork, Shadow, redirected_relu, relaxed_max_pool
from featviz_pl.networks.gradient_rules import GradientRules
from featviz_pl.objectives import Channel


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Make a batch norm that has seen data: a fresh one changes next to nothing."""
    norm = nn.BatchNorm2d(channels)
    generator = torch.Generator().manual_seed(channels)
    for held, low, high in ((norm.weight, 0.5, 2), (norm.bias, -1, 1), (norm.running_mean, -1, 1), (norm.running_var, 0.5, 2)):
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


def without_gradient(network: nn.Module, maps: Tensor) -> Tensor:
    with torch.no_grad():
        scale = maps.mean((2, 3), keepdim=True)
    return maps * scale


def by_content(network: nn.Module, maps: Tensor) -> Tensor:
    return maps * 2 if bool(maps.mean() > 0) else maps * 3


def overwritten(network: Any, maps: Tensor) -> Tensor:
    return functional.relu_(maps)


def norm_twice(network: Any, maps: Tensor) -> Tensor:
    return network.norm(network.norm(maps))  # type: ignore[no-any-return]


def norm_beside(network: Any, maps: Tensor) -> Tensor:
    return network.norm(maps) + maps  # type: ignore[no-any-return]


def by_shape(network: Any, maps: Tensor) -> Tensor:
    return maps.reshape(maps.shape[0], 4, -1).softmax(-1).reshape(maps.shape)


FORWARDS = [without_gradient, by_content, overwritten, norm_twice, norm_beside, by_shape]


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


def graph_of(shadow: Shadow) -> Any:
    """Return the graph that the last reading found, or None."""
    (reader,) = shadow._traced.values()
    return None if reader is None else reader.graph


def assert_reads_as_the_network(network: nn.Module, layers: list[str]) -> Shadow:
    network = network.double().eval()
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=generator, requires_grad=True)
    expected = read_fully(network, pictures, layers)
    weights = [torch.randn(value.shape, dtype=torch.float64, generator=generator) for value in expected]
    (gradient,) = torch.autograd.grad(expected, pictures, weights)
    shadow = FrozenNetwork(network).shadow()
    for _ in range(2):  # the first reading finds out, the second uses it
        read = [shadow.activations(pictures, layers)[layer] for layer in layers]
        torch.testing.assert_close(read, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(torch.autograd.grad(read, pictures, weights)[0], gradient, rtol=0, atol=1e-10)
    return shadow


@pytest.mark.parametrize(
    "layers", [["left_norm", "output"], ["left_norm"], ["output"], ["relu"], ["stem", "right"], ["norm"], ["left", "output"]], ids=str
)
def test_values_and_gradients_are_those_of_the_network(layers: list[str]) -> None:
    shadow = assert_reads_as_the_network(Residual(), layers)
    assert graph_of(shadow) is not None


@pytest.mark.parametrize("between", FORWARDS, ids=lambda between: between.__name__)
@pytest.mark.parametrize("layers", [["output"], ["first", "second"], ["norm"]], ids=str)
def test_forwards_that_a_trace_does_not_see_are_followed_all_the_same(between: Callable[..., Any], layers: list[str]) -> None:
    if layers == ["norm"] and between not in (norm_twice, norm_beside):
        pytest.skip("the layer is not run")
    shadow = assert_reads_as_the_network(Forward(between), layers)
    if between in (without_gradient, by_content) or (between is overwritten and "first" in layers):
        assert graph_of(shadow) is None


def test_branches_that_lead_nowhere_are_not_run() -> None:
    shadow = assert_reads_as_the_network(Residual(), ["right"])
    assert [str(node.target) for node in graph_of(shadow).nodes if node.op == "call_module"] == ["folded_1", "right"]


def test_a_batch_norm_is_folded_only_where_nothing_else_reads_the_convolution() -> None:
    shadow = assert_reads_as_the_network(Residual(), ["stem", "norm"])
    assert [str(node.target) for node in graph_of(shadow).nodes if node.op == "call_module"] == ["stem", "norm"]
    assert "folded" not in str(graph_of(assert_reads_as_the_network(Forward(norm_beside), ["output"])))


def test_the_network_is_left_alone() -> None:
    network = Residual().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert_reads_as_the_network(network, ["output"])
    assert [name for name, _ in network.named_modules()] == [name for name, _ in Residual().named_modules()]
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name].to(value.dtype), rtol=0, atol=0)


def test_a_network_of_little_precision_is_not_folded_and_its_results_are_its_own() -> None:
    network = Forward(lambda self, maps: self.norm(maps)).bfloat16().eval()  # type: ignore[operator]
    pictures = torch.rand(1, 3, 16, 16, requires_grad=True)
    shadow = FrozenNetwork(network).shadow()
    read = shadow.activations(pictures, ["output"])["output"]
    torch.testing.assert_close(read, network(pictures.bfloat16()), rtol=0.05, atol=0.05)
    assert "norm" in str(graph_of(shadow))


def test_reading_without_gradients_looks_for_nothing() -> None:
    shadow = FrozenNetwork(Residual()).shadow()
    shadow.activations(torch.rand(1, 3, 16, 16), ["output"])
    assert not shadow._traced


def test_a_move_is_followed() -> None:
    shadow = FrozenNetwork(Residual()).shadow()
    single = shadow.activations(torch.rand(1, 3, 16, 16, requires_grad=True), ["output"])["output"]
    shadow.apply_(lambda tensor: tensor.double())
    double = shadow.activations(torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True), ["output"])["output"]
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)


def test_every_size_is_found_out_for_itself() -> None:
    shadow = FrozenNetwork(Residual()).shadow()
    for side in (16, 24, 16):
        assert shadow.activations(torch.rand(1, 3, side, side, requires_grad=True), ["relu"])["relu"].shape[2] == (side - 7) // 2 + 1
    assert len(shadow._traced) == 2


class Convolutions(TorchFunctionMode):
    """Count convolutions."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.conv2d
        return func(*args, **(kwargs or {}))


def test_steps_of_a_run_leave_out_what_leads_nowhere() -> None:
    problem = Ascent(PixelImage(16), FrozenNetwork(Residual()), Channel("right", 1))
    problem.initialize()
    problem.prepare()
    with Convolutions() as counted:
        for step in range(3):
            problem.step(step, 3)
    assert counted.count == 3 * 2  # the stem and the branch, not the one beside it
    with Convolutions() as counted:
        problem.scores()
    assert counted.count == 3  # without gradients the network runs as it is, up to the layer


def test_a_network_that_somebody_watches_runs_as_it_is() -> None:
    network, seen = Residual(), []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    shadow = FrozenNetwork(network).shadow()
    for _ in range(3):
        shadow.activations(torch.rand(1, 3, 16, 16, requires_grad=True), ["right"])
    assert graph_of(shadow) is None
    assert len(seen) == 1 + 3  # one pass to find out what there is


@pytest.mark.parametrize("rule", [redirected_relu, relaxed_max_pool])
def test_gradient_rules_reach_a_traced_network(rule: Callable[[], Any]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3)).double().eval()
    with torch.no_grad():
        network[0].bias.fill_(-5)  # type: ignore[operator] # all rectifiers are off
    pictures = torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    shadow = FrozenNetwork(network).shadow()
    shadow.activations(pictures, ["output"])
    assert graph_of(shadow) is not None
    with rule():
        (own,) = torch.autograd.grad(shadow.activations(pictures, ["output"])["output"].sum(), pictures)
        (theirs,) = torch.autograd.grad(network(pictures).sum(), pictures)
    torch.testing.assert_close(own, theirs, rtol=0, atol=1e-12)


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
        self.left, self.right, self.relu, self.pool = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)

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
    assert [target for target in called if isinstance(target, str) or target in (torch.relu_, torch.cat, torch.relu)] == expected


def test_rectifying_after_a_pool_is_exact_for_every_window() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(2)).double().eval()
    with torch.no_grad():
        network[0].weight.fill_(1)  # type: ignore[operator]
    windows = torch.tensor(list(itertools.product([-2.0, -1.0, 0.0, 1.0, 2.0], repeat=4)), dtype=torch.float64)
    pictures = windows.view(-1, 1, 2, 2).requires_grad_(True)  # with every tie there is
    shadow = FrozenNetwork(network).shadow()
    for _ in range(2):
        own, theirs = shadow.activations(pictures, ["2"])["2"], network(pictures)
        assert torch.equal(own, theirs)
        assert torch.equal(*(torch.autograd.grad(result.sum(), pictures)[0] for result in (own, theirs)))
    assert torch.relu_ in {node.target for node in graph_of(shadow).nodes}


@pytest.mark.parametrize("layers", [["output"], ["relu", "output"]], ids=str)
def test_weights_that_autocast_would_cast_in_every_step_are_cast_once(layers: list[str]) -> None:
    shadow = FrozenNetwork(Residual().eval()).shadow()
    pictures = torch.rand(2, 3, 16, 16, requires_grad=True, generator=torch.Generator().manual_seed(3))

    def read() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            values = list(shadow.activations(pictures, layers).values())
        return [*values, *torch.autograd.grad([value.float().square().sum() for value in values], pictures)]

    found = read()
    key = next(key for key in shadow._traced if torch.bfloat16 in key)
    cast = shadow._traced[key]
    held = [part for part in cast.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    assert held
    assert {part.weight.dtype for part in held} == {torch.bfloat16}
    shadow._traced[key] = shadow._traced[key[:-1]]  # whose weights are cast in every step
    for own, again in zip(found, read()):
        assert torch.equal(own, again)
    assert {part.weight.dtype for part in shadow.module.modules() if isinstance(part, nn.Conv2d)} == {torch.float32}


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
        shadow = FrozenNetwork(network.eval()).shadow()
        for _ in range(runs):
            assert not torch.autograd.grad(shadow.activations(pictures, ["output"])["output"].sum(), pictures)[0].any()
        with redirected_relu():
            gradients += torch.autograd.grad(shadow.activations(pictures, ["output"])["output"].sum(), pictures)
            assert len(shadow._traced) == (runs > 0)  # a trace would record the rule
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
        FrozenNetwork(Residual()).shadow().activations(torch.rand(1, 3, 16, 16), ["nowhere"])
    assert not GradientRules.are_open()
    assert seen == [False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_networks_of_double_precision_alone(dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 7, 2), nn.ReLU(), nn.Conv2d(4, 2, 3)).double().eval()
    pictures = torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    shadow = FrozenNetwork(network).shadow()
    for _ in range(2):
        with torch.autocast("cpu", dtype):
            own, theirs = shadow.activations(pictures, ["output"])["output"], network(pictures)
        torch.testing.assert_close(own, theirs, rtol=0, atol=1e-12)
        one, other = (torch.autograd.grad(result.sum(), pictures)[0] for result in (own, theirs))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def without_autocast(network: Any, maps: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return maps.float() * 2


def test_a_forward_that_switches_autocast_off_is_followed() -> None:
    network = nn.Sequential(Forward(lambda _, maps: maps), Between()).eval()
    pictures = torch.rand(1, 3, 16, 16, requires_grad=True)
    shadow = FrozenNetwork(network).shadow()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            assert shadow.activations(pictures, ["output"])["output"].dtype == network(pictures).dtype == torch.float32
    assert shadow.activations(pictures, ["output"])["output"].dtype == torch.float32


class Between(nn.Module):
    """Multiply in full precision, whatever the caller says."""

    def forward(self, maps: Tensor) -> Tensor:
        return without_autocast(self, maps)


def test_a_pass_without_gradients_does_not_spoil_those_that_follow() -> None:
    shadow = FrozenNetwork(Residual().eval()).shadow()
    pictures = torch.rand(1, 3, 16, 16).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context, torch.autocast("cpu", torch.bfloat16):
            shadow.activations(pictures, ["output"])
        assert not shadow._traced
    with torch.autocast("cpu", torch.bfloat16):
        read = shadow.activations(pictures, ["output"])["output"]
    assert torch.autograd.grad(read.float().sum(), pictures)[0].any()
    assert all(shadow._traced.values())


def test_weights_are_cast_once_for_all_sizes() -> None:
    shadow = FrozenNetwork(Residual().eval()).shadow()
    for side in (16, 24):
        with torch.autocast("cpu", torch.bfloat16):
            shadow.activations(torch.rand(1, 3, side, side, requires_grad=True), ["right"])
    readers = [reader for key, reader in shadow._traced.items() if torch.bfloat16 in key]
    assert len(readers) == 2
    rights = {part for reader in readers for part in reader.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)}
    assert len(rights) == 1
