"""The whole way from the weights of the pictures to their scores, as one module that TensorBoard can draw."""

from __future__ import annotations

import copy
import warnings
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from featviz_pl.engine import Ascent
from featviz_pl.numerics.checks import whole_number
from featviz_pl.training.module import FeatureVisualization
from featviz_pl.transforms import Views


class MakesViews(Protocol):
    """Anything that makes the views of a run, such as the `Augmentation` callback."""

    def views_for(self, model: FeatureVisualization) -> Views:
        """Return the views of a run of this module."""


def graph_module(model: FeatureVisualization, views: MakesViews | Views | None = None, step: int = 0) -> GraphModule:
    """Return a module that goes from the pictures of a run through views and network to their scores, for a graph logger.

    ``SummaryWriter.add_graph(graph_module(model), ())`` draws image, views, network and objective as nested boxes. It
    works before, during and after a run, and on private copies: the model, its network and every generator stay as they
    are.

    Args:
        model: the run.
        views: the `Augmentation` callback of the run, or its `Views`; those that the model has at the moment unless
            given, which it has only during a run.
        step: whose views are shown, 0 or more.

    Raises:
        TypeError: when `model` is no `FeatureVisualization`, or `views` are none.
        ValueError: when a layer, unit, size or class cannot work.

    Example:
        >>> model = FeatureVisualization(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), "1:4", size=16)
        >>> graph = graph_module(model)
        >>> [name for name, _ in graph.named_children()], graph().shape
        (['image', 'views', 'score'], torch.Size([1]))
    """
    if not isinstance(model, FeatureVisualization):
        raise TypeError(f"model must be a FeatureVisualization, got {type(model).__name__}")
    if views is not None and not isinstance(views, Views):
        if not hasattr(views, "views_for"):
            raise TypeError(f"views must be an Augmentation callback or Views, got {type(views).__name__}")
        views = views.views_for(model)
    with torch.inference_mode(False), torch.enable_grad():
        return GraphModule(model, model.views if views is None else views, whole_number("step", step, least=0))


class GraphModule(nn.Module):
    """Score the pictures of a run in the views of one step; made by `graph_module`.

    Shape:
        () -> (N,), from the run's own pictures; or pictures (N, C, H, W) in [0, 1] -> (N,)
    """

    def __init__(self, model: FeatureVisualization, views: Views | None, step: int) -> None:
        super().__init__()
        # One copy of both: an objective may hold the image's own parts.
        image, objective = copy.deepcopy((model.image, model.objective))
        ascent = Ascent(image, model.network, objective, model.seed, views)
        ascent.initialize()
        ascent.prepare(model.device)
        steps = max(model.total_steps, step + 1)
        image.advance(step, steps)
        drawn = ascent._observer.draw(model.seed, step, step / max(1, steps - 1), ascent.view_keys, None)
        self.image = image
        self.views = Viewing(ascent, drawn)
        self.score = Scoring(ascent, drawn, step)
        self.example_input_array = ()  # what a graph logger passes: nothing, the pictures are parameters
        self()  # networks are probed once, which belongs in no graph

    def forward(self, pictures: Tensor | None = None) -> Tensor:
        """Return the scores (N,): of the run's own pictures unless others are given."""
        # With gradients, as in a run: networks skip layers in passes without, and tracing makes one pass with and one
        # without.
        with warnings.catch_warnings(), torch.enable_grad():
            # Tracing warns where the shape of a picture decides something: the graph is of these pictures, and shapes
            # are fixed.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            pictures = self.image() if pictures is None else pictures.detach().requires_grad_(True)
            scores: Tensor = self.score(pictures, self.views(pictures))
        return scores


class Viewing(nn.Module):
    """Show pictures through the views that were drawn."""

    def __init__(self, ascent: Ascent, drawn: Any) -> None:
        super().__init__()
        self.observer, self.drawn = ascent._observer, drawn

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the views (N, V, C, h, w)."""
        return self.observer.view(pictures, self.drawn)


class Scoring(nn.Module):
    """Run the networks on views and score what is found there."""

    def __init__(self, ascent: Ascent, drawn: Any, step: int) -> None:
        super().__init__()
        self.observer, self.drawn, self.step = ascent._observer, drawn, step
        self.objective = ascent.objective
        for index, reader in enumerate(self.observer._readers.values()):
            self.add_module("network" if index == 0 else f"network_{index + 1}", reader.module)
            for part in reader.module.modules():
                part._backward_hooks.clear()  # a module that has some cannot be traced

    def forward(self, pictures: Tensor, views: Tensor) -> Tensor:
        """Return the scores (N,), the mean over views."""
        seen = self.observer.observe(pictures, views, self.drawn, self.step)
        scores: Tensor = self.objective(seen)
        return scores.expand(-1, views.shape[1]).mean(1)
