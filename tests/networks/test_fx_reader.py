"""Traced networks give values and gradients of the network with fewer calls, and are not used where they cannot."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from featviz_pl.networks import ActivationReader, FrozenNetwork, redirected_relu, relaxed_max_pool
from featviz_pl.networks.gradient_rules import GradientRules

COUNTED = ("conv2d", "linear", "batch_norm", "relu", "relu_", "cat", "max_pool2d", "mul", "add", "arange")


class Calls(TorchFunctionMode):
    """Note the calls of torch, and the precision of the weights of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.weights: set[torch.dtype] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names += [func.__name__] if getattr(func, "__name__", "") in COUNTED else []
        self.weights |= {args[1].dtype} if func is torch.conv2d else set()
        return func(*args, **(kwargs or {}))


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Make a batch norm with statistics: a fresh one changes next to nothing."""
    norm, generator = nn.BatchNorm2d(channels), torch.Generator().manual_seed(channels)
    for tensor, low, high in (
        (norm.weight, 0.5, 2),
        (norm.bias, -1, 1),
        (norm.running_mean, -1, 1),
        (norm.running_var, 0.5, 2),
    ):
        assert tensor is not None
        tensor.data = low + (high - low) * torch.rand(channels, generator=generator)
    return norm


class Residual(nn.Module):
    """Two branches, batch norms, a rectifier that is used twice, and a head."""

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


def read_by_hooks(network: nn.Module, pictures: Tensor, layers: list[str]) -> list[Tensor]:
    """Read layers by hooks on the network itself, as a user would."""
    results: dict[str, Tensor] = {}
    modules = {**dict(network.named_modules()), "output": network}

    def keep(layer: str) -> Any:
        def hook(module: nn.Module, inputs: Any, result: Any) -> None:
            first = next(iter(result.values())) if isinstance(result, dict) else result
            results[layer] = (first[0] if isinstance(first, tuple) else first).clone()

        return hook

    handles = [modules[layer].register_forward_hook(keep(layer)) for layer in layers]
    network(pictures)
    for handle in handles:
        handle.remove()
    return [results[layer] for layer in layers]


def assert_reads_as(network: Any, layers: list[str], *shape: int) -> list[str]:
    """Compare values and gradients for batches of 2 and 3 pictures, and return the calls of the last pass."""
    network = network.double().eval()
    reader = FrozenNetwork(network).reader()
    for count in (2, 3, 3):
        pictures = draw(count, *(shape or (3, 16, 16)))
        expected = read_by_hooks(network, pictures, layers)
        with Calls() as calls:
            values = list(reader.activations(pictures, layers).values())
        weights = [torch.linspace(-1, 1, value.numel(), dtype=torch.float64).view(value.shape) for value in expected]
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-10)
        gradients = [torch.autograd.grad(result, pictures, weights)[0] for result in (values, expected)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)
        names: list[str] = calls.names
    return names


@pytest.mark.parametrize(
    ("layers", "calls"),
    [
        (["output"], ["conv2d", "relu_", "conv2d", "conv2d", "add", "relu", "linear"]),
        (["left_norm", "output"], ["conv2d", "relu_", "conv2d", "conv2d", "add", "relu", "linear"]),
        (["right"], ["conv2d", "relu_", "conv2d"]),
        (["left_norm"], ["conv2d", "relu_", "conv2d"]),
        (["norm"], ["conv2d"]),
        (["stem", "norm"], ["conv2d", "batch_norm"]),
        (["left", "relu"], ["conv2d", "relu_", "conv2d", "batch_norm", "conv2d", "add", "relu"]),
    ],
    ids=str,
)
def test_only_what_leads_to_the_layers_runs_with_norms_folded(layers: list[str], calls: list[str]) -> None:
    assert assert_reads_as(Residual(), layers) == calls


class Between(nn.Module):
    """Do something between two convolutions."""

    def __init__(self, forward: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 4, 3), batch_norm(4), nn.Conv2d(4, 5, 3)
        self.table = nn.Parameter(torch.linspace(-1, 1, 4))
        self.between = forward

    def forward(self, pictures: Tensor, mask: Tensor | None = None) -> Any:
        pictures = pictures if mask is None else pictures * mask
        functional.linear(pictures, pictures.new_ones(1, pictures.shape[3]))  # leads nowhere: a traced network skips it
        return self.second(self.between(self, self.first(pictures)))


class Doubled(torch.autograd.Function):
    """Double the gradient only."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x * 1.0

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 2


def without_gradient(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = x.mean((2, 3), keepdim=True)
    return x * scale


def windows(net: Any, x: Tensor) -> Tensor:
    count, channels, height, width = x.shape
    tokens = x.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, channels)
    inner = tokens.view(tokens.shape[0] // 7, 7, 4, channels).softmax(2)  # the first axis is the batch times windows
    return inner.reshape(count, height // 2, width // 2, 2, 2, channels).permute(0, 5, 1, 3, 2, 4).reshape(x.size())


def masked(net: Any, x: Tensor) -> Tensor:
    mask = x.new_zeros(x.shape[2:])
    mask[2:5] = 1
    return x.masked_fill(mask == 1, 0.5) + torch.zeros(x.shape[0], 1, 1, 1, dtype=x.dtype)


def positions(net: Any, x: Tensor) -> Any:
    return x * torch.arange(x.shape[-1], dtype=x.dtype) / x.shape[1] ** 0.5


def parts(net: Any, x: Tensor) -> Tensor:
    (left, right), rows = x.chunk(2, 1), [*x.unbind(2)]
    return torch.cat([left, right], dim=1) + rows[0].unsqueeze(2)


def by_picture(net: Any, x: Tensor) -> Tensor:
    return torch.stack([picture / (1 + index) for index, picture in enumerate(x)])


def scaled(net: Any, x: Tensor) -> Any:
    return x * net.table.view(1, -1, 1, 1) + net.table.exp().view(-1, 1, 1)


TRACED: dict[str, tuple[Callable[[Any, Tensor], Any], list[str]]] = {  # with the calls between the convolutions
    "windows": (windows, []),
    "masked": (masked, ["add"]),
    "positions": (positions, ["mul"]),
    "parts": (parts, ["cat", "add"]),
    "frozen norm": (scaled, []),
    "scalar": (lambda _, x: (x * 2).add(1), ["mul", "add"]),
    "written over": (lambda _, x: functional.relu_(x), ["relu_"]),
    "norm twice": (lambda net, x: net.norm(net.norm(x)), []),
    "norm beside": (lambda net, x: net.norm(x) + x, ["batch_norm", "add"]),
}
UNTRACED: dict[str, Callable[[Any, Tensor], Any]] = {
    "condition": lambda _, x: x * 2 if bool(x.mean() > 0) else x * 3,
    "number": lambda _, x: x / float(x.detach().max()),
    "list": lambda _, x: x + torch.tensor(x.tolist(), dtype=x.dtype),
    "array": lambda _, x: x + torch.from_numpy(x.detach().numpy()),
    "no gradient": without_gradient,
    "custom gradient": lambda _, x: Doubled.apply(x),
    "pictures one by one": by_picture,
}


@pytest.mark.parametrize("name", TRACED)
def test_forwards_are_traced(name: str) -> None:
    between, calls = TRACED[name]
    assert assert_reads_as(Between(between), ["output"]) == ["conv2d", *calls, "conv2d"]
    assert_reads_as(Between(between), ["first", "second"])


@pytest.mark.parametrize("name", UNTRACED)
def test_forwards_that_depend_on_values_run_as_they_are(name: str) -> None:
    assert "linear" in assert_reads_as(Between(UNTRACED[name]), ["output"])


class Structured(nn.Module):
    """Return a mapping that holds a tuple, from a layer inside an attention block of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.block = nn.Conv2d(3, 8, 4, 4), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, pictures: Tensor) -> Any:
        tokens = self.block(self.conv(pictures).flatten(2).transpose(1, 2))
        return {"tokens": tokens, "pooled": tokens.mean(1)}


@pytest.mark.parametrize("layers", [["output"], ["block"], ["block.linear1"], ["block.linear1", "output"]], ids=str)
def test_layers_inside_blocks_of_torch_and_structured_outputs_are_traced(layers: list[str]) -> None:
    calls = assert_reads_as(Structured(), layers)
    assert calls.count("linear") == (1 if layers == ["block.linear1"] else 2)


LATE: dict[str, tuple[Callable[[Any, Tensor, Tensor], Tensor], list[str]]] = {  # with the calls of a pass
    "pooled": (lambda net, left, _: net.pool(net.relu(left)), ["conv2d", "max_pool2d", "relu_"]),
    "functional": (lambda net, left, _: net.pool(functional.relu(left)), ["conv2d", "max_pool2d", "relu_"]),
    "in place": (lambda net, left, _: net.pool(functional.relu(left, True)), ["conv2d", "max_pool2d", "relu_"]),
    "joined": (
        lambda net, left, right: torch.cat([net.relu(left), net.relu(right)], 1) * 2,
        ["conv2d", "conv2d", "cat", "relu_", "mul"],
    ),
    "joined and pooled": (
        lambda net, left, right: net.pool(torch.cat([net.relu(left), net.relu(right)], 1)),
        ["conv2d", "conv2d", "cat", "max_pool2d", "relu_"],
    ),
    "one rectified": (
        lambda net, left, right: torch.cat([net.relu(left), right], 1),
        ["conv2d", "conv2d", "relu_", "cat"],
    ),
    "one joined twice": (
        lambda net, left, right: torch.cat([(left := net.relu(left)), left, net.relu(right)], 1),
        ["conv2d", "conv2d", "cat", "relu_"],
    ),
    "read again": (
        lambda net, left, _: net.pool(left := net.relu(left)).sum() + left,
        ["conv2d", "relu_", "max_pool2d", "add"],
    ),
}


class Branches(nn.Module):
    """Two branches of one picture, with windows that are off, on and partly both."""

    def __init__(self, join: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.relu, self.pool, self.join = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True), join
        for part in (self.left, self.right):
            assert part.bias is not None
            part.bias.data = torch.linspace(-1.2, 0.4, 4)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.join(self, self.left(pictures), self.right(pictures))


@pytest.mark.parametrize("name", LATE)
def test_maps_are_rectified_once_they_are_joined_and_pooled(name: str) -> None:
    join, calls = LATE[name]
    assert assert_reads_as(Branches(join), ["output"]) == calls
    assert_reads_as(Branches(join), ["left", "output"])


def test_layers_that_are_read_are_not_written_over() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2, return_indices=True))
    assert assert_reads_as(network, ["0", "1"]) == ["conv2d", "relu"]
    assert assert_reads_as(network, ["1", "2"]) == ["conv2d", "relu_"]


def test_rectifying_after_a_pool_is_exact_for_every_window() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(2)).double().eval()
    network[0].weight.data.fill_(1)  # type: ignore[operator]
    windows = torch.tensor(list(itertools.product([-2.0, -1.0, 0.0, 1.0, 2.0], repeat=4)), dtype=torch.float64)
    pictures = windows.view(-1, 1, 2, 2).requires_grad_(True)  # with every tie
    reader = FrozenNetwork(network).reader()
    for _ in range(2):
        actual, expected = reader.activations(pictures, ["2"])["2"], network(pictures)
        assert torch.equal(actual, expected)
        assert torch.equal(*(torch.autograd.grad(result.sum(), pictures)[0] for result in (actual, expected)))


@pytest.mark.parametrize("rule", [redirected_relu, relaxed_max_pool])
def test_gradient_rules_reach_a_network_that_has_been_traced(rule: Callable[[], Any]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3)).double().eval()
    network[0].bias.data.fill_(-5)  # type: ignore[operator] # all rectifiers are off
    pictures, reader = draw(1, 3, 16, 16), FrozenNetwork(network).reader()
    for trace in (False, True):
        if trace:
            reader.activations(pictures, ["output"])
        with rule():
            (actual,) = torch.autograd.grad(reader.activations(pictures, ["output"])["output"].sum(), pictures)
            (expected,) = torch.autograd.grad(network(pictures).sum(), pictures)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    assert expected.any() == (rule is redirected_relu)


def test_gradient_rules_belong_to_their_thread() -> None:
    is_open: list[bool] = []
    with redirected_relu(), relaxed_max_pool():
        thread = threading.Thread(target=lambda: is_open.append(GradientRules.are_open()))
        thread.start()
        thread.join()
        assert GradientRules.are_open()
    with pytest.raises(ValueError, match="no layer 'nowhere'"), redirected_relu():
        FrozenNetwork(Residual()).activations(torch.rand(1, 3, 16, 16), ["nowhere"])
    assert not GradientRules.are_open()
    assert is_open == [False]


def test_a_network_with_hooks_runs_as_it_is() -> None:
    network, shapes = Residual(), []
    network.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    reader = FrozenNetwork(network).reader()
    for _ in range(3):
        reader.activations(draw(1, 3, 16, 16), ["right"])
    assert len(shapes) == 1 + 3  # one pass counts calls


def read(reader: ActivationReader, pictures: Tensor, layer: str = "output", **autocast: Any) -> tuple[Tensor, Calls]:
    with torch.autocast("cpu", **({"enabled": False} | autocast)), Calls() as calls:
        return reader.activations(pictures, [layer])[layer], calls


def test_a_move_and_every_size_are_traced() -> None:
    reader = FrozenNetwork(Residual()).reader()
    for side in (16, 24, 16):
        for dtype in (torch.float32, torch.float64):
            reader.apply_(partial(Tensor.to, dtype=dtype))
            for _ in range(2):
                value, calls = read(reader, draw(1, 3, side, side, dtype=dtype), "relu")
            assert (value.dtype, value.shape[2]) == (dtype, (side - 7) // 2 + 1)
            assert calls.names == ["conv2d", "relu_", "conv2d", "conv2d", "add", "relu"]


def test_passes_without_gradients_are_not_traced() -> None:
    reader, pictures = FrozenNetwork(Residual()).reader(), draw(1, 3, 16, 16, dtype=torch.float32)
    for context in (torch.no_grad(), torch.inference_mode()):
        for _ in range(2):
            with context:
                assert "batch_norm" in read(reader, pictures, dtype=torch.bfloat16, enabled=True)[1].names
    for _ in range(2):
        value, calls = read(reader, pictures, dtype=torch.bfloat16, enabled=True)
    assert "batch_norm" not in calls.names
    assert torch.autograd.grad(value.float().sum(), pictures)[0].any()


def test_autocast_casts_weights_once() -> None:
    pictures = draw(1, 3, 16, 16, dtype=torch.float32)
    plain, reader = (FrozenNetwork(Residual()).reader() for _ in range(2))
    plain.module.load_state_dict(reader.module.state_dict())
    expected = read(plain, pictures)[0]
    for _ in range(2):
        value, calls = read(reader, pictures, dtype=torch.bfloat16, enabled=True)
    assert calls.weights == {torch.bfloat16}
    torch.testing.assert_close(value.float(), expected, rtol=0.1, atol=0.1)
    assert read(reader, pictures)[1].weights == {torch.float32}


class InFullPrecision(nn.Module):
    """Multiply in single precision, whatever the caller's autocast."""

    def forward(self, maps: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return maps.float() @ maps.float().transpose(2, 3)


def test_the_precision_of_the_network_is_kept() -> None:
    mixed = nn.Sequential(nn.Conv2d(3, 4, 7, 2), InFullPrecision()).eval()
    double = nn.Sequential(nn.Conv2d(3, 4, 7, 2), batch_norm(4), nn.ReLU(), nn.Conv2d(4, 2, 3)).double().eval()
    half = nn.Sequential(nn.Conv2d(3, 4, 7, 2), batch_norm(4)).bfloat16().eval()
    for network, precision in ((mixed, torch.float32), (double, torch.float64), (half, torch.bfloat16)):
        pictures = draw(1, 3, 16, 16, dtype=torch.float32).to(precision).detach().requires_grad_(True)
        reader = FrozenNetwork(network).reader()
        for _ in range(2):
            value, _ = read(reader, pictures, dtype=torch.bfloat16, enabled=True)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                expected = network(pictures)
            tolerance = 1e-12 if precision == torch.float64 else 0.05
            torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)
