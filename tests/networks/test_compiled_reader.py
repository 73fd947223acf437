"""`compile=True` gives the same, compiles once for each network and layer, and else runs as without."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, fx, nn
from toys import QUIET, toy

import featviz_pl as fv
from featviz_pl.cli.main import main
from featviz_pl.io import read_provenance
from featviz_pl.networks import FrozenNetwork, load_network
from featviz_pl.objectives import Channel, StayNear
from featviz_pl.sweep import FeatureSweep, FeatureTargets

BACKEND = "featviz_pl.networks.compiled_reader.BACKEND"
SMALL: dict[str, Any] = {"accelerator": "cpu", "size": 16, "steps": 3}


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[fx.GraphModule]:
    """Compile with a backend that runs graphs as they are, and return the graphs that it got."""
    compiled: list[fx.GraphModule] = []

    def backend(graph: fx.GraphModule, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(BACKEND, backend)
    return compiled


def read(network: FrozenNetwork, layer: str = "features.5") -> list[Tensor]:
    pictures = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0), requires_grad=True)
    values = network.reader().activations(pictures, [layer])[layer]
    return [values, *torch.autograd.grad(values.square().sum(), pictures)]


def test_readers_compile_once_until_the_network_is_trained(graphs: list[fx.GraphModule]) -> None:
    module = toy()
    for runs in (1, 2):
        compiled, plain = FrozenNetwork(module, 0.4, compile=True), FrozenNetwork(module, 0.4)
        for _ in range(2):
            torch.testing.assert_close(read(compiled), read(plain))
        assert len(graphs) == runs
        compiled.layers(12)  # a single pass
        with torch.no_grad():
            module.get_parameter("features.0.weight").mul_(1.5)
    assert pickle.loads(pickle.dumps(compiled)).compile
    assert load_network("toys:toy", compile=True).compile


def no_compiler(graph: fx.GraphModule, inputs: Any) -> Any:
    raise RuntimeError("no compiler")


class ByContent(nn.Module):
    def forward(self, pictures: Tensor) -> Tensor:
        return pictures * 2 if bool(pictures.mean() > -9) else pictures * 3


@pytest.mark.parametrize(("module", "reason"), [(toy(), "no compiler"), (ByContent(), "cannot be traced")])
def test_what_cannot_be_compiled_runs_as_it_is(
    module: nn.Module, reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "featviz_pl")
    monkeypatch.setattr(BACKEND, no_compiler)
    torch.testing.assert_close(
        read(FrozenNetwork(module, compile=True), "output"), read(FrozenNetwork(module), "output")
    )
    (line,) = caplog.messages
    assert line.startswith("the network is not compiled: ")
    assert reason in line


def test_renders_and_sweeps_compile_once_for_each_layer(graphs: list[fx.GraphModule], tmp_path: Path) -> None:
    plain = fv.render(toy(), "features.5:1", **SMALL)
    compiled = fv.render(toy(), "features.5:1", compile=True, **SMALL)
    torch.testing.assert_close(plain.images, compiled.images)
    assert "compile" not in plain.provenance[0]
    assert compiled.provenance[0]["compile"] is True
    arguments = ["--accelerator", "cpu", "--size", "16", "--steps", "2", "-o", str(tmp_path / "a.png")]
    assert main(["render", "toys:toy", "features.5:1", "--compile", *arguments]) == 0
    assert read_provenance(tmp_path / "a.png")["compile"] is True
    graphs.clear()
    sweep = FeatureSweep(FrozenNetwork(toy(), compile=True), preset="lucid", size=16, steps=2)
    Trainer(**QUIET).predict(sweep, FeatureTargets(["features.3:0-5", "features.5:0-3"], batch_size=2))
    assert len(graphs) == 2


@pytest.mark.slow
def test_a_graph_that_is_kept_is_differentiated_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BACKEND, "aot_eager")
    unit = Channel("features.5", 1)
    objective = unit + StayNear(torch.full((1, 3, 16, 16), 0.3), layer="features.3", balance=unit)
    compiled, plain = (fv.render(toy(), objective, compile=flag, **SMALL).images for flag in (True, False))
    torch.testing.assert_close(compiled, plain)


@pytest.mark.slow
def test_inductor_gives_the_same() -> None:
    torch.testing.assert_close(
        read(FrozenNetwork(toy(), compile=True)), read(FrozenNetwork(toy())), rtol=1e-3, atol=1e-4
    )
