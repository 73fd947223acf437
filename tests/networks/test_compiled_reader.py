"""What a run reads of a network is compiled once, gives the same, and otherwise is not used."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import re
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
from counting_backend import CountingBackend, backend, nothing_left
from torch import Tensor, fx, nn
from toys import adam, toy

from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import PixelImage
from featviz_pl.networks import (
    ActivationReader,
    FrozenNetwork,
    load_network,
    receptive_fields,
    redirected_relu,
    relaxed_max_pool,
)
from featviz_pl.networks import compiled_reader as compiled
from featviz_pl.numerics.compile_config import differentiable_again
from featviz_pl.objectives import Channel, StayNear

__all__ = ["backend", "nothing_left"]  # fixtures

LAYERS = ["features.3", "output"]
LINES = "featviz_pl.networks.compiled_reader"


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, LINES)
    return caplog


def pictures(count: int = 2, side: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def read(reader: ActivationReader, layers: list[str] = LAYERS, reduced: bool = False, **which: Any) -> list[Tensor]:
    """Return what layers give, and a gradient."""
    shown = pictures(**which)
    with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
        values = list(reader.activations(shown, layers).values())
    return [*values, *torch.autograd.grad([value.float().square().sum() for value in values], shown)]


def readers(network: nn.Module) -> tuple[ActivationReader, ActivationReader]:
    """Return a reader that compiles, and a plain one."""
    return tuple(FrozenNetwork(network, 0.4, 0.3, compile=flag).reader() for flag in (True, False))  # type: ignore[return-value]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for own, theirs in zip(found, expected):
        assert torch.equal(own, theirs)


@pytest.mark.parametrize("reduced", [False, True])
def test_values_and_gradients_are_those_without_bit_for_bit_and_nothing_is_compiled_twice(
    backend: CountingBackend, reduced: bool
) -> None:
    own, plain = readers(toy())
    for seed in range(4):
        assert_equal(read(own, reduced=reduced, seed=seed), read(plain, reduced=reduced, seed=seed))
    assert len(backend.graphs) == 1


def test_layers_precisions_and_shapes_are_compiled_once_each(
    backend: CountingBackend, lines: pytest.LogCaptureFixture
) -> None:
    reader, _ = readers(toy())
    ways: list[dict[str, Any]] = [{}, {"reduced": True}, {"count": 3}, {"side": 16}, {"layers": ["features.3"]}]
    for _ in range(3):
        for way in ways:
            read(reader, **way)
    assert len(backend.graphs) == len(ways)
    assert lines.messages[0].startswith("the network is compiled for pictures of 2 x 3 x 12 x 12 in ")


def test_more_shapes_than_torch_compiles_of_one_function(backend: CountingBackend) -> None:
    network = FrozenNetwork(toy(), compile=True)
    reader, counts = network.reader(), range(1, torch._dynamo.config.cache_size_limit + 3)
    for _ in range(2):
        for count in counts:
            read(reader, count=count)
    assert len(backend.graphs) == len(counts)
    assert len(network._compiler._held) == 4


def test_readers_of_one_network_share_what_is_compiled(backend: CountingBackend) -> None:
    network = FrozenNetwork(toy(), compile=True)
    for other in (network, copy.deepcopy(network), network.compiled(False).compiled()):
        read(other.reader())
    assert len(backend.graphs) == 1
    moved = network.reader()
    moved.apply_(lambda held: held.double())
    moved.activations(pictures().double(), LAYERS)
    read(network.reader())
    assert len(backend.graphs) == 2  # in double precision


@pytest.mark.parametrize(("layer", "graphs"), [("features.0", 2), ("head", 1)])
def test_a_network_that_was_trained_meanwhile_is_followed(layer: str, graphs: int, backend: CountingBackend) -> None:
    module = toy()
    network = FrozenNetwork(module, 0.4, 0.3, compile=True)
    before = read(network.reader())
    with torch.no_grad():
        module.get_parameter(f"{layer}.weight").add_(1e-4)
    after = read(network.reader())
    assert not torch.equal(before[1], after[1])
    assert_equal(after, read(FrozenNetwork(module, 0.4, 0.3).reader()))
    assert len(backend.graphs) == graphs  # weights whose layout stays are shared, and so are always those of the guest


def test_reading_without_gradients_and_single_passes_compile_nothing(backend: CountingBackend) -> None:
    reader, _ = readers(toy())
    reader.activations(pictures().detach(), LAYERS)
    FrozenNetwork(toy(), compile=True).layers(12)
    receptive_fields(FrozenNetwork(toy(), compile=True), "features.3", 12)
    with torch.no_grad():
        FrozenNetwork(toy(), compile=True).reader().activations(pictures(), LAYERS)
    read(reader)
    assert len(backend.graphs) == 1


@pytest.mark.parametrize("rule", [redirected_relu, relaxed_max_pool])
def test_rules_run_the_plain_network(backend: CountingBackend, rule: Callable[[], Any]) -> None:
    own, plain = readers(toy())
    for _ in range(2):
        with rule():
            assert_equal(read(own), read(plain))
        assert_equal(read(own), read(plain))
    assert len(backend.graphs) == 1


def test_wide_strided_convolutions_are_the_usual_ones_in_a_compiled_graph(backend: CountingBackend) -> None:
    own, plain = readers(nn.Sequential(nn.Conv2d(3, 4, 7, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)))
    for found, expected in zip(read(own, ["output"], side=24), read(plain, ["output"], side=24)):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.detach().abs().max()))
    (graph,) = backend.graphs
    called = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert called.count(torch.conv2d) == 2
    assert not any("Function" in str(target) or "apply" in str(target) for target in called)


def failing(graph: fx.GraphModule, inputs: Any) -> Any:
    raise RuntimeError("no working\ncompiler was found")


def other_values(graph: fx.GraphModule, inputs: Any) -> Any:
    return lambda *given: [value * 1.2 for value in graph(*given)]


def other_gradients(graph: fx.GraphModule, inputs: Any) -> Any:
    return lambda *given: [value * 1.2 - value.detach() * 0.2 for value in graph(*given)]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (failing, r"BackendCompilerFailed: .*no working compiler was found"),
        (other_values, r"values or gradients differ from its own$"),
        (other_gradients, r"values or gradients differ from its own$"),
        ("no_such_backend", r"InvalidBackend: "),
    ],
)
def test_where_compiling_fails_or_gives_something_else_the_plain_network_runs(
    wrong: Any, reason: str, monkeypatch: pytest.MonkeyPatch, lines: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", wrong)
    network = FrozenNetwork(toy(), 0.4, 0.3, compile=True)
    plain = FrozenNetwork(toy(), 0.4, 0.3).reader()
    for reader in (network.reader(), network.reader()):
        for seed in range(2):
            assert_equal(read(reader, seed=seed), read(plain, seed=seed))
    (line,) = lines.messages
    assert line.startswith("the network is not compiled: ")
    assert re.search(reason, line), line
    assert "\n" not in line


class ByContent(nn.Module):
    """A forward that torch.fx cannot trace."""

    def forward(self, shown: Tensor) -> Tensor:
        return shown * 2 if bool(shown.mean() > -9) else shown * 3


def watched() -> nn.Module:
    network = toy()
    network.register_forward_pre_hook(lambda *_: None)
    return network


@pytest.mark.parametrize("make", [ByContent, watched])
def test_a_network_that_cannot_be_traced_runs_as_it_is_and_says_so(
    make: Callable[[], nn.Module], backend: CountingBackend, lines: pytest.LogCaptureFixture
) -> None:
    own, plain = readers(make())
    for seed in range(3):
        assert_equal(read(own, ["output"], seed=seed), read(plain, ["output"], seed=seed))
    assert lines.messages == [
        "the network is not compiled: torch.fx cannot trace its forward, or somebody's hooks watch it"
    ]
    assert not backend.graphs


def test_the_flag_survives_copies_and_pickles_and_what_is_compiled_stays_behind(backend: CountingBackend) -> None:
    network = FrozenNetwork(toy(), 0.4, 0.3, compile=True)
    reader = network.reader()
    expected = read(reader)
    for other in (copy.copy(network), copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert other.compile
        assert_equal(read(other.reader()), expected)
    assert len(backend.graphs) == 2  # once here, and once for the pickle
    assert_equal(read(pickle.loads(pickle.dumps(reader))), expected)


def test_the_flag_reaches_networks_by_name_and_leaves_the_users_alone() -> None:
    assert load_network("embedded", compile=True).compile
    assert not load_network("embedded").compile
    assert load_network("toys:toy", compile=True).compile
    network = FrozenNetwork(toy())
    assert (network.compiled().compile, network.compile) == (True, False)


def test_the_guest_torch_and_its_generators_are_left_as_they_are(backend: CountingBackend) -> None:
    network = toy().eval()
    held = {name: (id(own), own._version, set(vars(own))) for name, own in network.named_parameters()}
    attributes = {name: dict(vars(part)) for name, part in network.named_modules()}
    theirs = torch.compile(lambda number: number.sin(), backend=backend)  # somebody's own
    theirs(torch.ones(2))
    state, config = torch.random.get_rng_state(), torch._dynamo.config.get_config_copy()
    read(FrozenNetwork(network, compile=True).reader())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch._dynamo.config.get_config_copy() == config
    assert held == {name: (id(own), own._version, set(vars(own))) for name, own in network.named_parameters()}
    assert attributes == {name: dict(vars(part)) for name, part in network.named_modules()}
    assert len(backend.graphs) == 2
    theirs(torch.ones(2))
    assert len(backend.graphs) == 2


def test_what_is_compiled_goes_with_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    network = FrozenNetwork(toy(), compile=True)
    reader = network.reader()
    read(reader)
    (held,) = network._compiler._held.values()
    assert held is not None
    gone = weakref.ref(held[0])
    del network, reader, held
    gc.collect()
    assert gone() is None


def test_a_graph_that_is_kept_can_be_gone_through_twice(
    monkeypatch: pytest.MonkeyPatch, lines: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    own, plain = readers(toy())
    shown = pictures()
    value, expected = (one.activations(shown, LAYERS)["output"].square().sum() for one in (own, plain))
    with differentiable_again():
        first = torch.autograd.grad(value, shown, retain_graph=True)
    torch.testing.assert_close(
        [*first, *torch.autograd.grad(value, shown)], [*torch.autograd.grad(expected, shown)] * 2
    )
    assert "is compiled" in lines.text


def test_objectives_that_go_back_twice_give_the_same(
    monkeypatch: pytest.MonkeyPatch, lines: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    unit = Channel("features.5", 1)
    found = []
    for flag in (False, True):
        objective = unit + StayNear(torch.full((1, 3, 12, 12), 0.3), layer="features.3", balance=unit)
        problem = Ascent(PixelImage(12), FrozenNetwork(toy(), compile=flag), objective)
        ascend(problem, 20, adam())
        found.append(problem.decoded().detach())
    torch.testing.assert_close(*found)
    assert "is compiled" in lines.text


@pytest.mark.slow
@pytest.mark.parametrize("reduced", [False, True])
def test_inductor_gives_the_same(reduced: bool, lines: pytest.LogCaptureFixture) -> None:
    torch._dynamo.utils.counters.clear()
    own, plain = readers(toy())
    for seed in range(3):
        for found, expected in zip(read(own, reduced=reduced, seed=seed), read(plain, reduced=reduced, seed=seed)):
            assert (found - expected).norm() <= (0.05 if reduced else 1e-5) * expected.norm()
    assert "is compiled" in lines.text
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
