"""A network without what a run does not need gives what the whole network gives, or is not used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from traced import Forward, Residual, assert_reads_as_the_network, graph_of

from featviz_pl.engine import Ascent
from featviz_pl.images import PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel


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


@pytest.mark.parametrize(
    "layers",
    [["left_norm", "output"], ["left_norm"], ["output"], ["relu"], ["stem", "right"], ["norm"], ["left", "output"]],
    ids=str,
)
def test_values_and_gradients_are_those_of_the_network(layers: list[str]) -> None:
    reader = assert_reads_as_the_network(Residual(), layers)
    assert graph_of(reader) is not None


@pytest.mark.parametrize("between", FORWARDS, ids=lambda between: between.__name__)
@pytest.mark.parametrize("layers", [["output"], ["first", "second"], ["norm"]], ids=str)
def test_forwards_that_a_trace_does_not_see_are_followed_all_the_same(
    between: Callable[..., Any], layers: list[str]
) -> None:
    if layers == ["norm"] and between not in (norm_twice, norm_beside):
        pytest.skip("the layer is not run")
    reader = assert_reads_as_the_network(Forward(between), layers)
    if between in (without_gradient, by_content) or (between is overwritten and "first" in layers):
        assert graph_of(reader) is None


def test_branches_that_lead_nowhere_are_not_run() -> None:
    reader = assert_reads_as_the_network(Residual(), ["right"])
    assert [str(node.target) for node in graph_of(reader).nodes if node.op == "call_module"] == ["folded_1", "right"]


def test_a_batch_norm_is_folded_only_where_nothing_else_reads_the_convolution() -> None:
    reader = assert_reads_as_the_network(Residual(), ["stem", "norm"])
    assert [str(node.target) for node in graph_of(reader).nodes if node.op == "call_module"] == ["stem", "norm"]
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
    reader = FrozenNetwork(network).reader()
    read = reader.activations(pictures, ["output"])["output"]
    torch.testing.assert_close(read, network(pictures.bfloat16()), rtol=0.05, atol=0.05)
    assert "norm" in str(graph_of(reader))


def test_reading_without_gradients_looks_for_nothing() -> None:
    reader = FrozenNetwork(Residual()).reader()
    reader.activations(torch.rand(1, 3, 16, 16), ["output"])
    assert not reader._traced


def test_a_move_is_followed() -> None:
    reader = FrozenNetwork(Residual()).reader()
    single = reader.activations(torch.rand(1, 3, 16, 16, requires_grad=True), ["output"])["output"]
    reader.apply_(lambda tensor: tensor.double())
    double = reader.activations(torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True), ["output"])["output"]
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)


def test_every_size_is_found_out_for_itself() -> None:
    reader = FrozenNetwork(Residual()).reader()
    for side in (16, 24, 16):
        assert (
            reader.activations(torch.rand(1, 3, side, side, requires_grad=True), ["relu"])["relu"].shape[2]
            == (side - 7) // 2 + 1
        )
    assert len(reader._traced) == 2


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
    reader = FrozenNetwork(network).reader()
    for _ in range(3):
        reader.activations(torch.rand(1, 3, 16, 16, requires_grad=True), ["right"])
    assert graph_of(reader) is None
    assert len(seen) == 1 + 3  # one pass to find out what there is
