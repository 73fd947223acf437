"""Scores of pictures for targets in the shorthand: what a render would report of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from featviz_pl.networks import FrozenNetwork
from featviz_pl.networks.probing import probe
from featviz_pl.numerics.color import on_grey
from featviz_pl.objectives import Objective, Observation, Setting, Source, Target
from featviz_pl.objectives.target_syntax import ALL
from featviz_pl.transforms import Views

_AT_ONCE = 32  # pictures or views in one pass, so that a large batch does not fill the memory


def single_target(text: str) -> Target:
    """Return the target of one picture.

    Raises:
        ValueError: when the target does not parse, or is one of several units.
    """
    target = Target.parse(text)
    if target.units is not None and (target.units == ALL or len(target.units) > 1):
        count = "all" if target.units == ALL else len(target.units)
        raise ValueError(f"targets: {text!r} names {count} units; give each picture a target with one of them")
    return target


class Scorer:
    """Score pictures with a network as it is now: one pass for all targets of a layer, which ends at that layer.

    Args:
        network: the guest; a reader of it is made here.
    """

    def __init__(self, network: FrozenNetwork) -> None:
        self.network = network
        self._reader = network.reader()
        self._shapes: dict[tuple[str, tuple[int, int, int]], tuple[int, ...]] = {}

    def scores(self, pictures: Tensor, targets: Sequence[str], views: Views | None = None, seed: int = 0) -> Tensor:
        """Return the score (N,) in float64 of each picture (N, C, H, W) for its own target, the mean over views where there are some.

        Every picture is seen through the same views. Transparent pictures are put on grey.
        """
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(pictures.device.type, enabled=False):
            opaque = self._opaque(pictures)
            layers = {text: single_target(text).layer for text in dict.fromkeys(targets)}
            objectives = {text: Target.parse(text).objective() for text in layers}
            for text, layer in layers.items():
                self._check(objectives[text], Source(layer), opaque, views)
            scores = torch.empty(len(opaque), dtype=torch.float64, device=opaque.device)
            by_layer: dict[str, list[int]] = {}
            for place, target in enumerate(targets):
                by_layer.setdefault(layers[target], []).append(place)
            at_once = max(1, _AT_ONCE // (1 if views is None else views.count))
            for layer, places in by_layer.items():
                for first in range(0, len(places), at_once):
                    part = places[first : first + at_once]
                    seen = _shown(opaque[part], views, seed)
                    own = [targets[place] for place in part]
                    scores[part] = self._of_layer(seen, layer, {target: objectives[target] for target in own}, own)
            return scores

    def _of_layer(self, views: Tensor, layer: str, objectives: dict[str, Objective], targets: list[str]) -> Tensor:
        """Return the scores (n,) of pictures in views (n, V, C, h, w) whose targets are all in one layer."""
        read = self._reader.activations(views.flatten(0, 1), [layer])[layer].unflatten(0, views.shape[:2])
        scores = torch.empty(len(views), dtype=torch.float64, device=views.device)
        for target, objective in objectives.items():
            own = [place for place, other in enumerate(targets) if other == target]
            seen = Observation(views[own, 0], {Source(layer): read[own]}, self.network.classes)
            scores[own] = objective(seen).double().mean(1)
        return scores

    def _opaque(self, pictures: Tensor) -> Tensor:
        if pictures.shape[1] != self.network.channels + 1:
            return pictures
        return on_grey(pictures)

    def _check(self, objective: Objective, source: Source, pictures: Tensor, views: Views | None) -> None:
        """Refuse a layer, unit or class that the network does not have, before anything is measured."""
        size = (int(pictures.shape[-2]), int(pictures.shape[-1]))
        picture = (int(pictures.shape[1]), *(size if views is None else views.transforms.output_size(size)))
        key = source.layer, picture
        if key not in self._shapes:
            self._shapes[key] = probe(self._reader, picture, [source.layer])[source.layer]
        objective.check(Setting({source: self._shapes[key]}, 1, picture, self.network.classes))


def _shown(pictures: Tensor, views: Views | None, seed: int) -> Tensor:
    """Return the views (n, V, C, h, w) of pictures, the same for each."""
    if views is None:
        return pictures[:, None]
    shown: Tensor = views.apply(pictures, views.sample(seed, 0, [0] * len(pictures)), 0.0)
    return shown
