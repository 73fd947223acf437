"""The graph that TensorBoard draws, read back from its event files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guests import At, condition, require_same
from lightning.pytorch.loggers import TensorBoardLogger
from runs import build, fit
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.graph_pb2 import GraphDef
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from toys import toy

from featviz_pl.callbacks import Augmentation
from featviz_pl.images import FourierImage, PixelImage
from featviz_pl.networks import FrozenNetwork, redirected_relu, relaxed_max_pool
from featviz_pl.objectives import Channel, Observation, Source, Term, TotalVariation
from featviz_pl.training import FeatureVisualization, graph_module
from featviz_pl.transforms import Jitter, Views

# torch deprecates what add_graph itself calls.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:FutureWarning")

AUGMENTATION = Augmentation([Jitter(2)], views=3)


def nodes(folder: Path) -> dict[str, str]:
    """Return the operation of every node in the event files under a folder, by the node's name."""
    found: dict[str, str] = {}
    for path in folder.rglob("events*"):
        for event in EventFileLoader(str(path)).Load():
            if event.HasField("graph_def"):
                found |= {node.name: node.op for node in GraphDef.FromString(event.graph_def).node}
    return found


def drawn(graph: nn.Module, folder: Path, example: Any = ()) -> dict[str, str]:
    """Let TensorBoard draw a graph and read it back."""
    with SummaryWriter(str(folder)) as writer:
        writer.add_graph(graph, example)
    return nodes(folder)


def places(found: dict[str, str], operation: str) -> list[str]:
    """Return the boxes in which an operation stands."""
    return [name.rpartition("/")[0].partition("/")[2] for name, op in found.items() if op == operation]


def everything(model: FeatureVisualization) -> dict[str, Any]:
    """Return what drawing must leave as it was: network, image, module and the global generators."""
    return {
        "network": condition(model.network.module),
        "model": condition(model.image),
        "pictures": model.images.clone() if bool(model.image.initialized) else None,
        "held": {name: id(value) for name, value in vars(model).items()},
        "views": model.views,
        "generators": [torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()],  # type: ignore[index]  # noqa: NPY002
    }


def require_untouched(before: dict[str, Any], model: FeatureVisualization) -> None:
    after = everything(model)
    torch_before, *others_before = before.pop("generators")
    torch_after, *others_after = after.pop("generators")
    assert torch.equal(torch_before, torch_after)
    assert others_before == others_after
    require_same(before, after)


def guest() -> nn.Module:
    """Build a network in the middle of its own training, with hooks of both kinds."""
    network = toy().train()
    network.features[3].eval()
    network.head.weight.grad = torch.ones_like(network.head.weight)
    network.features[0].register_forward_hook(lambda *_: None)
    network.features[2].register_full_backward_hook(lambda *_: None)
    return network


@pytest.mark.parametrize(
    "views",
    [None, AUGMENTATION, AUGMENTATION.views_for(build()), Augmentation("article", views=2)],
    ids=["no views", "callback", "views", "views that shrink"],
)
def test_the_whole_way_is_drawn_and_everything_left_as_it_was(tmp_path: Path, views: Any) -> None:
    model = build([1, 4], guest())
    before = everything(model)
    found = drawn(graph_module(model, views), tmp_path)
    require_untouched(before, model)
    assert places(found, "aten::fft_irfft2") == ["FourierImage[image]"]
    assert places(found, "aten::sigmoid") == ["FourierImage[image]"]
    assert places(found, "aten::grid_sampler") == ([] if views is None else ["Viewing[views]"])
    network = "Scoring[score]/ToyNet[network]/Sequential[features]"
    assert places(found, "aten::_convolution") == [
        f"{network}/Conv2d[{index}]" for index in (0, 2, 5)
    ]  # and not the classifier
    assert places(found, "aten::relu") == [f"{network}/ReLU[{index}]" for index in (1, 4)]
    assert not places(found, "aten::linear")
    assert any(place == "Scoring[score]/Channel[objective]" for place in places(found, "aten::mean"))
    assert found["output/output.1"] == "IO Node"


@pytest.mark.parametrize("callbacks", [[], [AUGMENTATION]], ids=["no views", "views"])
def test_during_a_run_the_graph_scores_as_the_coming_step_will(callbacks: list[Augmentation]) -> None:
    model = build([1, 4])
    graphs: list[Tensor] = []
    steps: list[Tensor] = []

    def keep() -> None:
        assert model.last is not None
        steps.append(model.last.scores)

    before = At(1, lambda: graphs.append(graph_module(model, step=1)()), before=True)
    fit(model, 2, [*callbacks, before, At(2, keep)])
    assert graphs[0].shape == (2,)
    torch.testing.assert_close(graphs[0].detach(), steps[0])


def test_each_step_shows_its_own_views() -> None:
    model = build([1, 4])
    model.setup("fit")
    shown = [graph_module(model, AUGMENTATION, step).views(model.images) for step in (0, 0, 7)]
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])


def test_pictures_can_be_given_in_place_of_the_run_s_own(tmp_path: Path) -> None:
    model = build([1, 4])
    pictures = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    graph = graph_module(model)
    expected = model.network.activations(pictures, ["features.5"])["features.5"][[0, 1], [1, 4]].mean((1, 2))
    torch.testing.assert_close(graph(pictures).detach(), expected)
    found = drawn(graph, tmp_path, pictures)
    assert not places(found, "aten::fft_irfft2")
    assert len(places(found, "aten::_convolution")) == 3
    assert [op for name, op in found.items() if name.startswith("input/")] == ["IO Node"]


def test_after_a_fit_the_graph_is_of_the_fitted_pictures_and_the_trainer_is_left(tmp_path: Path) -> None:
    model = build([1, 4], guest())
    trainer = fit(model, 3, [AUGMENTATION])
    before = everything(model)
    graph = graph_module(model, AUGMENTATION)
    torch.testing.assert_close(graph.image().detach(), model.images)
    assert places(drawn(graph, tmp_path, graph.example_input_array), "aten::grid_sampler") == ["Viewing[views]"]
    require_untouched(before, model)
    assert model.trainer is trainer


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=lambda mode: str(mode.__name__))
def test_a_graph_made_without_gradients_is_the_same(tmp_path: Path, mode: Any) -> None:
    model = build()
    with mode():
        graph = graph_module(model, AUGMENTATION)
    assert sorted(drawn(graph, tmp_path / "a").values()) == sorted(
        drawn(graph_module(model, AUGMENTATION), tmp_path / "b").values()
    )


class Attention(nn.Module):
    """Mix patches with a transformer layer, which torch computes in one piece when no gradient is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.patches(x).flatten(2).mT)
        return y


def test_a_transformer_is_drawn_layer_by_layer(tmp_path: Path) -> None:
    model = FeatureVisualization(Attention(), Channel("layer.linear1", 3), image=FourierImage(12))
    found = drawn(graph_module(model), tmp_path / "own")
    assert "Scoring[score]/Attention[network]/TransformerEncoderLayer[layer]/Linear[linear1]" in places(
        found, "aten::linear"
    )
    given = drawn(graph_module(model), tmp_path / "given", torch.rand(1, 3, 12, 12))
    assert places(given, "aten::linear") == places(found, "aten::linear")


@pytest.mark.parametrize("rule", [redirected_relu, relaxed_max_pool], ids=lambda rule: str(rule.__name__))
def test_under_a_gradient_rule_the_forward_pass_is_drawn(tmp_path: Path, rule: Any) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1))
    with rule():
        found = drawn(graph_module(FeatureVisualization(network, Channel("3", 1), image=FourierImage(12))), tmp_path)
    assert places(found, "aten::relu") == ["Scoring[score]/Sequential[network]/ReLU[1]"]
    assert places(found, "aten::max_pool2d") == ["Scoring[score]/Sequential[network]/MaxPool2d[2]"]


def test_shared_weights_and_several_terms_are_drawn(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3))
    network[2].weight = network[0].weight
    objective = Channel("2", 1) - 1e-3 * TotalVariation()
    found = drawn(
        graph_module(FeatureVisualization(FrozenNetwork(network, 0.5, std=0.25), objective, image=PixelImage(12))),
        tmp_path,
    )
    assert places(found, "aten::_convolution") == [
        f"Scoring[score]/Sequential[network]/Conv2d[{index}]" for index in (0, 2)
    ]
    assert any("TotalVariation" in place for place in places(found, "aten::abs"))


class Attribution(Term):
    """Score a layer by what it does for a later one: the gradient enters the graph as a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.later = Channel("features.5", 1)

    def formula(self) -> str:
        return "attribution"

    def term_sources(self) -> list[Source]:
        return [Source("features.2"), Source("features.2", gradient_of=self.later)]

    def score(self, seen: Observation) -> Tensor:
        activation, gradient = (seen.activations[source] for source in self.term_sources())
        return (activation * gradient).flatten(2).sum(2)


def test_an_objective_that_needs_gradients_is_drawn(tmp_path: Path) -> None:
    found = drawn(graph_module(FeatureVisualization(toy(), Attribution(), image=FourierImage(12))), tmp_path)
    assert places(found, "aten::mul")[-1] == "Scoring[score]/Attribution[objective]"
    assert not any("backward" in op for op in found.values())


@pytest.mark.parametrize("callbacks", [[], [AUGMENTATION]], ids=["no views", "views"])
def test_lightning_draws_how_the_module_decodes_its_pictures(tmp_path: Path, callbacks: list[Augmentation]) -> None:
    model = build([1, 4])
    fit(model, 2, callbacks, logger=TensorBoardLogger(str(tmp_path), log_graph=True), log_every_n_steps=1)
    found = nodes(tmp_path)
    assert places(found, "aten::fft_irfft2") == ["FourierImage[image]"]
    assert places(found, "aten::sigmoid") == ["FourierImage[image]"]
    plain = build([1, 4])
    fit(plain, 2, callbacks)
    assert torch.equal(model.images, plain.images)


def test_impossible_arguments_are_named() -> None:
    model = build()
    with pytest.raises(TypeError, match="model must be a FeatureVisualization, got ToyNet"):
        graph_module(toy())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="views must be an Augmentation callback or Views, got Jitter"):
        graph_module(model, Jitter(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        graph_module(model, Views(Jitter(2)), step=-1)
    with pytest.raises(ValueError, match=r"features\.9"):
        graph_module(FeatureVisualization(toy(), "features.9:1", image=FourierImage(12)))
