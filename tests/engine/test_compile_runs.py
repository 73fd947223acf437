"""`compile=True` reaches every kind of run, compiles once for each, and gives the same pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from counting_backend import CountingBackend, backend, nothing_left
from lightning.pytorch import Trainer
from runs import build, fit
from torch import Tensor, nn
from toys import QUIET, adam, toy

import featviz_pl as fv
from featviz_pl.callbacks import Augmentation
from featviz_pl.cli.main import main
from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import FourierImage
from featviz_pl.io import read_provenance
from featviz_pl.networks import FrozenNetwork
from featviz_pl.networks import compiled_reader as compiled
from featviz_pl.objectives import Channel
from featviz_pl.sweep import FeatureSweep, FeatureTargets, RenderedBatch
from featviz_pl.sweep.folder import read_manifest
from featviz_pl.transforms import Views, view_preset

pytestmark = pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")
__all__ = ["backend", "nothing_left"]  # fixtures

STEPS = 20  # the first 16 look for pictures without a gradient
SMALL: dict[str, Any] = {"accelerator": "cpu", "size": 16, "steps": 3}
TINY = ["--accelerator", "cpu", "--size", "16", "--steps", "2"]


class Dead(nn.Module):
    """A rectifier that is off: the first steps take a second pass, by a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.features = toy().features
        self.relu = nn.ReLU()

    def forward(self, shown: Tensor) -> Tensor:
        result: Tensor = self.relu(self.features(shown) - 9)
        return result


@pytest.mark.parametrize(("make", "layer"), [(toy, "features.5"), (Dead, "relu")])
@pytest.mark.filterwarnings("ignore:at step 16 no gradient reaches")
def test_ascend_compiles_once(make: Any, layer: str, backend: CountingBackend) -> None:
    network, found = make(), []
    for flag in (False, True):
        objective = Channel(layer, [1, 2])
        problem = Ascent(
            FourierImage(12),
            FrozenNetwork(network, 0.4, 0.3, compile=flag),
            objective,
            0,
            Views(view_preset("lucid")[0], 2),
        )
        scores = ascend(problem, STEPS, adam())
        found.append((scores, problem.decoded().detach()))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert len(backend.graphs) == 1


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_fit_compiles_once(precision: str, backend: CountingBackend) -> None:
    found = []
    for flag in (False, True):
        model = build([1, 2], FrozenNetwork(toy(), compile=flag), steps=STEPS)
        fit(model, STEPS, [Augmentation("lucid", views=2)], precision=precision, log_every_n_steps=7)
        found.append(model.images)
    assert torch.equal(*found)
    assert len(backend.graphs) == 1


def test_a_sweep_compiles_once_for_each_layer_and_measures_without(backend: CountingBackend) -> None:
    network = FrozenNetwork(toy(), compile=True)
    sweep = FeatureSweep(network, preset="lucid", size=16, steps=2)
    sweep.problem("features.5", [0, 1], "cpu").step(0, 2)  # as measurements make them
    assert not backend.graphs
    targets = FeatureTargets(["features.3:0-5", "features.5:0-3"], batch_size=2)
    batches = Trainer(**QUIET).predict(sweep, targets)
    plain = Trainer(**QUIET).predict(FeatureSweep(network.compiled(False), preset="lucid", size=16, steps=2), targets)
    assert batches is not None
    assert plain is not None
    assert len(batches) == 5
    assert len(backend.graphs) == 2
    for one, other in zip(batches, plain):
        assert isinstance(one, RenderedBatch)
        assert isinstance(other, RenderedBatch)
        assert torch.equal(one.images, other.images)
        assert [origin.get("compile") for origin in one.provenance] == [True, True]
        assert "compile" not in other.provenance[0]


def test_render_compiles_and_says_so_in_the_provenance(backend: CountingBackend) -> None:
    network = FrozenNetwork(toy())
    plain = fv.render(network, "features.5:1", **SMALL)
    own = fv.render(network, "features.5:1", compile=True, precision="auto", **SMALL)
    assert len(backend.graphs) == 1  # precision is measured without
    reduced = own.provenance[0]["precision"] != "32-true"
    if not reduced:
        assert torch.equal(plain.images, own.images)
    again = fv.render(network, "features.5:2", compile=True, precision=own.provenance[0]["precision"], **SMALL)
    assert len(backend.graphs) == 1  # another unit of the same layer
    assert not network.compile
    assert "compile" not in plain.provenance[0]
    assert own.provenance[0]["compile"] is again.provenance[0]["compile"] is True
    assert fv.render(network.compiled(), "features.5:1", **SMALL).provenance[0]["compile"] is True


def test_the_command_render_compiles(
    backend: CountingBackend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.png"
    assert (
        main(["render", "toys:toy", "features.5:1", "--compile", "--mean", "0.4", "--json", "-o", str(file), *TINY])
        == 0
    )
    captured = capsys.readouterr()
    assert json.loads(captured.out)["steps"] == 2
    assert captured.err.startswith("featviz render: the network is compiled for pictures of ")
    assert captured.err.count("\n") == 1
    assert read_provenance(file)["compile"] is True
    assert len(backend.graphs) == 1


def failing(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no working compiler")


def test_the_command_sweep_compiles_and_goes_on_in_the_same_way(
    backend: CountingBackend, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["sweep", "toys:toy", "features.5:0-3", "--batch-size", "2", "-o", str(tmp_path), "--json", *TINY]
    assert main([*command, "--compile"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["done"] == 4
    assert captured.err.count("featviz sweep: the network is compiled for pictures of ") == 1
    assert len(backend.graphs) == 1
    held, _ = read_manifest(tmp_path)
    assert held is not None
    assert held["compile"] is True
    assert main(command) == 2
    assert "error: compile: the pictures" in capsys.readouterr().err
    monkeypatch.setattr(compiled, "BACKEND", failing)
    assert main([*command, "--compile", "--overwrite"]) == 0
    assert capsys.readouterr().err.count("featviz sweep: the network is not compiled: BackendCompilerFailed") == 1


@pytest.mark.parametrize(
    "network",
    [
        "{class_path: FrozenNetwork, init_args: {module: {class_path: toys.ToyNet}, mean: 0.4, compile: true}}",
        "{class_path: featviz_pl.load_network, init_args: {name: 'toys:toy', compile: true}}",
    ],
    ids=["FrozenNetwork", "load_network"],
)
def test_a_configuration_compiles(
    network: str, backend: CountingBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model:\n  network: {network}\n"
        "  objective: features.5:1\n  image: {class_path: FourierImage, init_args: {size: 12}}\n  steps: 2\n"
        "trainer: {accelerator: cpu, logger: false, enable_checkpointing: false, enable_progress_bar: false}\n"
    )
    assert main(["fit", "--config", str(config)]) == 0
    assert len(backend.graphs) == 1


@pytest.mark.slow
def test_a_run_with_inductor_compiles_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "featviz_pl.networks.compiled_reader")
    found = []
    for flag in (False, True):
        torch._dynamo.utils.counters.clear()
        model = build([1, 2], FrozenNetwork(toy(), compile=flag), steps=STEPS)
        fit(model, STEPS, [Augmentation("lucid", views=2)])
        found.append(model.images)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert "the network is compiled" in caplog.text
    torch.testing.assert_close(*found, rtol=0, atol=0.02)
