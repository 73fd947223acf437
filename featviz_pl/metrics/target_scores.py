"""Scores of pictures for their targets, as a render reports them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from featviz_pl.metrics.cached_reader import CachedReader
from featviz_pl.metrics.targets import single_target
from featviz_pl.numerics.color import on_grey
from featviz_pl.objectives import Objective, Observation, Setting, Source
from featviz_pl.transforms import Views

_BATCH_SIZE = 32  # pictures or views in one pass, which bounds the memory


def target_scores(
    reader: CachedReader, pictures: Tensor, targets: Sequence[str], views: Views | None = None, seed: int = 0
) -> Tensor:
    """Return the score (N,) in float64 of each picture (N, C, H, W) for its target: the mean over views where given.

    Pictures whose targets are in one layer share a pass, which ends at that layer. Every picture is seen through the
    same views. Transparent pictures are put on grey.
    """
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(pictures.device.type, enabled=False):
        opaque = on_grey(pictures) if pictures.shape[1] == reader.network.channels + 1 else pictures
        parsed = {target: single_target(target) for target in dict.fromkeys(targets)}
        objectives = {target: value.objective() for target, value in parsed.items()}
        for name, target in parsed.items():
            _check(reader, objectives[name], target.layer, opaque, views)
        scores = torch.empty(len(opaque), dtype=torch.float64, device=opaque.device)
        by_layer: dict[str, list[int]] = {}
        for index, name in enumerate(targets):
            by_layer.setdefault(parsed[name].layer, []).append(index)
        batch_size = max(1, _BATCH_SIZE // (1 if views is None else views.count))
        for layer, indices in by_layer.items():
            for first in range(0, len(indices), batch_size):
                batch = indices[first : first + batch_size]
                viewed = _viewed(opaque[batch], views, seed)
                scores[batch] = _layer_scores(reader, viewed, layer, [objectives[targets[index]] for index in batch])
        return scores


def _layer_scores(reader: CachedReader, views: Tensor, layer: str, objectives: list[Objective]) -> Tensor:
    """Return the scores (n,) of pictures in views (n, V, C, h, w), all for objectives on one layer."""
    activations = reader.activations(views.flatten(0, 1), [layer])[layer].unflatten(0, views.shape[:2])
    scores = torch.empty(len(views), dtype=torch.float64, device=views.device)
    for objective in {id(objective): objective for objective in objectives}.values():
        rows = [row for row, candidate in enumerate(objectives) if candidate is objective]
        observation = Observation(
            views[rows, 0], {Source(layer): activations[rows]}, class_names=reader.network.classes
        )
        scores[rows] = objective(observation).double().mean(1)
    return scores


def _check(reader: CachedReader, objective: Objective, layer: str, pictures: Tensor, views: Views | None) -> None:
    """Refuse a layer, unit or class that the network does not have, before anything is measured."""
    size = (int(pictures.shape[-2]), int(pictures.shape[-1]))
    picture = (int(pictures.shape[1]), *(size if views is None else views.transforms.output_size(size)))
    shape = reader.shape(layer, picture)
    objective.check(Setting({Source(layer): shape}, 1, picture, class_names=reader.network.classes))


def _viewed(pictures: Tensor, views: Views | None, seed: int) -> Tensor:
    """Return the views (n, V, C, h, w) of pictures, the same for each."""
    if views is None:
        return pictures[:, None]
    viewed: Tensor = views.apply(pictures, views.sample(seed, 0, [0] * len(pictures)), 0.0)
    return viewed
