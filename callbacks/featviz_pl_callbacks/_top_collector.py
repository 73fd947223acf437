"""Collect the top photos of units during one pass of a LightningModule over its DataLoaders."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor

from featviz_pl.io import to_uint8
from featviz_pl.metrics.top_photos.layer_reader import LayerOutputs, LayerReader, Reduction
from featviz_pl.metrics.top_photos.results import UnitActivations
from featviz_pl.metrics.top_photos.top_k import Crop, ScoreStatistics, TopPhotos
from featviz_pl.numerics.random import mix
from featviz_pl_callbacks._photo_numbers import PhotoNumbers, list_loaders
from featviz_pl_callbacks._photo_patches import PatchBoxes, crop_position, is_compiled
from featviz_pl_callbacks._support import picture_shape
from featviz_pl_callbacks._top_gathering import merge_results
from featviz_pl_callbacks._training_guard import undisturbed
from featviz_pl_callbacks._watched_network import full_path, modules_by_name


@dataclass(frozen=True)
class CollectorSettings:
    """Options of a `TopPhotosCollector`.

    Args:
        units: indices by layer, None for all of a layer.
        network: name of the submodule that takes the pictures, or None.
        reduction: over positions, for the score.
        counts: photos of each kind.
        seed: of the random photos.
        mean: that the data subtracts, by channel.
        std: by which it divides.
    """

    units: dict[str, list[int] | None]
    network: str | None
    reduction: Reduction
    counts: dict[str, int]
    seed: int
    mean: Sequence[float] | None
    std: Sequence[float] | None


class TopPhotosCollector:
    """Read layers by forward hooks, and keep the top photos of each unit.

    Args:
        settings: units, counts and normalization.
        module: the LightningModule; hooks stay on it until `close`.
        loaders: of the Trainer.
        trainer: that runs the module.
    """

    def __init__(self, settings: CollectorSettings, module: LightningModule, loaders: Any, trainer: Trainer) -> None:
        self._settings, self._module, self._trainer = settings, module, trainer
        self._loaders = [] if loaders is None else list_loaders(loaders)
        self._readers: dict[str, LayerReader] = {}
        self._photos: dict[str, dict[str, TopPhotos]] = {}
        self._statistics: dict[str, ScoreStatistics] = {}
        self._numbers: dict[int, PhotoNumbers] = {}
        self._patch_boxes: PatchBoxes | None = None
        self._pictures: Tensor | None = None  # of the current batch
        self._hooks = ExitStack()
        if is_compiled(module):  # compiled networks ignore hooks
            self._hooks.enter_context(torch.compiler.set_stance("force_eager"))
        submodules = modules_by_name(module)
        for layer, units in settings.units.items():
            reader = self._readers[layer] = LayerReader(layer, units, settings.reduction)
            submodule = submodules[full_path(layer, settings.network)]
            self._hooks.callback(submodule.register_forward_hook(reader).remove)

    def close(self) -> None:
        """Remove all hooks."""
        self._hooks.close()

    @property
    def started(self) -> bool:
        """Whether there was a batch."""
        return self._patch_boxes is not None

    def start_batch(self, pictures: Tensor) -> None:
        """Take the pictures (N, C, H, W) of a batch before the module does; the first tell the receptive fields."""
        self._pictures = pictures
        if self._patch_boxes is None:
            device = self._trainer.strategy.root_device
            self._patch_boxes = PatchBoxes(self._module, list(self._readers), self._settings.network, device)
            with undisturbed(self._module, device):
                self._patch_boxes.prepare(picture_shape(pictures))
            self._patch_boxes.register_hook(self._hooks)
            for layer, reader in self._readers.items():
                reader.layout = self._patch_boxes.layout(layer)
                reader.outputs = None

    def end_batch(self, loader_index: int) -> None:
        """Add the photos of the batch to the top photos of every unit."""
        pictures, self._pictures = self._pictures, None
        assert pictures is not None
        numbers = self._photo_numbers(loader_index).next_batch(len(pictures))
        rows = [row for row, number in enumerate(numbers) if number is not None]
        outputs = {layer: reader.pop(len(pictures)) for layer, reader in self._readers.items()}
        if rows:
            levels = self._to_levels(pictures)
            photos = np.array([numbers[row] for row in rows], dtype=np.int64)
            keys = np.array([float(mix(self._settings.seed, "photo", int(photo))) for photo in photos])
            for layer in outputs:
                self._update(layer, outputs[layer], rows, photos, keys, levels)

    def _photo_numbers(self, loader_index: int) -> PhotoNumbers:
        if loader_index not in self._numbers:
            loader = self._loaders[loader_index] if loader_index < len(self._loaders) else None
            numbers = PhotoNumbers(loader, loader_index, self._trainer.global_rank, self._trainer.world_size)
            self._numbers[loader_index] = numbers
            if not numbers.are_indices and self._trainer.world_size > 1:
                rank_zero_warn(
                    "TopActivations: ambiguous photo numbers: the order of the DataLoader is not known, so photos are "
                    "numbered as they come, and one that two processes see counts twice; use a DistributedSampler"
                )
        return self._numbers[loader_index]

    def _to_levels(self, pictures: Tensor) -> Tensor:
        """Return a batch without its normalization in 256 levels, on the CPU."""
        values = pictures.detach()
        if not values.is_floating_point():
            return values.to(torch.uint8).cpu()
        values = values.float()
        if self._settings.std is not None:
            values = values * values.new_tensor(self._settings.std).view(-1, 1, 1)
        if self._settings.mean is not None:
            values = values + values.new_tensor(self._settings.mean).view(-1, 1, 1)
        return to_uint8(values).cpu()

    def _update(
        self,
        layer: str,
        outputs: LayerOutputs,
        rows: list[int],
        photos: NDArray[Any],
        keys: NDArray[Any],
        levels: Tensor,
    ) -> None:
        """Update the units of one layer."""
        scores, peaks, positions = (values[:, rows] for values in outputs.numpy())
        if layer not in self._photos:
            counts = self._settings.counts
            self._photos[layer] = {kind: TopPhotos(len(scores), count) for kind, count in counts.items()}
            self._statistics[layer] = ScoreStatistics(len(scores))
        assert self._patch_boxes is not None
        boxes = self._patch_boxes.boxes(layer, outputs.spatial_shape, picture_shape(levels))
        crops: dict[tuple[int, int], Crop] = {}  # units share a crop of the same position

        def crop(unit: int, column: int) -> Crop:
            row, position = rows[column], int(positions[unit, column])
            if (row, position) not in crops:
                crops[row, position] = crop_position(levels, row, position, outputs.spatial_shape, boxes[position])
            return crops[row, position]

        sort_keys = {"top": -scores.astype(np.float64), "random": keys, "least": scores.astype(np.float64)}
        for kind, top in self._photos[layer].items():
            kind_keys, numbers, _ = np.broadcast_arrays(sort_keys[kind], photos, scores)
            top.update(kind_keys, numbers, scores, peaks, crop)
        self._statistics[layer].update(scores.T, photos, keys)

    def results(self) -> dict[str, UnitActivations]:
        """Return the results of all processes by target; a collective operation."""
        results = {}
        for layer, units in self._settings.units.items():
            photos, statistics = self._photos.get(layer), self._statistics.get(layer)
            merged = merge_results(photos, statistics, self._settings.counts, self._trainer)
            for unit, activations in zip(range(len(merged)) if units is None else units, merged):
                results[f"{layer}:{unit}"] = activations
        return results

    @property
    def provenance(self) -> dict[str, Any]:
        """What the results depend on: plain values, equal for equal runs."""
        stage, settings = self._trainer.state.stage, self._settings
        return {
            "reduction": settings.reduction,
            "seed": settings.seed,
            "stage": "" if stage is None else str(stage.value),
            "trained_steps": self._trainer.global_step,
            "photos": "by index" if all(part.are_indices for part in self._numbers.values()) else "as they came",
            "mean": settings.mean,
            "std": settings.std,
        }
