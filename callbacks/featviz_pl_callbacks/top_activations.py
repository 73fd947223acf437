"""The photos that excite units most and least, found while somebody's module looks at them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from featviz_pl.io import to_uint8
from featviz_pl.io.provenance import versions
from featviz_pl.metrics.top_photos.layer_reader import LayerOutputs, LayerReader, Reduction
from featviz_pl.metrics.top_photos.results import UnitActivations, write_results
from featviz_pl.metrics.top_photos.top_k import Crop, ScoreStatistics, TopPhotos
from featviz_pl.networks import FrozenNetwork
from featviz_pl.numerics.checks import unknown, whole_number
from featviz_pl.numerics.random import mix
from featviz_pl.objectives import Target
from featviz_pl.objectives.target_syntax import ALL, parse_targets
from featviz_pl_callbacks._photo_numbers import PhotoNumbers, list_loaders
from featviz_pl_callbacks._photo_patches import PatchBoxes, crop_position, is_compiled
from featviz_pl_callbacks._top_gathering import merge_results
from featviz_pl_callbacks._training_guard import check_strategy, undisturbed
from featviz_pl_callbacks._watched_network import check_names, full_path, modules_by_name, pictures_in

__all__ = ["TopActivations"]


class TopActivations(Callback):
    """Keep the photos that excite each unit most, and least, and random ones: ride along anyone's validation, test or prediction.

    Activations are read by forward hooks while the module looks at its batches: there is no second pass, and hooks,
    weights, modes and random numbers are as before. The score of a photo is the mean activation of the unit over all
    positions, as for `Channel`, or its maximum; the patch is what the position with the highest activation sees of the
    photo (see `receptive_fields`), the whole photo behind attention and other layers that see everything. In a
    training, each validation gives new results; those of the sanity check are left out.

    Photos are known by their index in the data set, where the DataLoader goes through it in order, or as a
    ``DistributedSampler`` divides it; what that one repeats counts once. Otherwise they are numbered as they come.
    Equal scores go to the lower number, so that batches and processes make no difference. Memory: ``k`` patches for
    each unit and kind, and the scores of 4,096 random photos, however many photos there are. A network that was
    compiled runs uncompiled meanwhile, because compiled ones ignore hooks.

    Args:
        targets: one or several of ``"net.layer3:all"`` (all its units), ``"net.layer3:5"``, ``"net.layer3:0-15"``,
            ``"net.layer3:3,8"``. Names are those of the LightningModule's ``named_modules()``; ``"output"`` is the
            result of the LightningModule's forward, or of `network`.
        k: photos of each kind for each unit, 1 or more.
        network: name of the module that is shown the pictures; layers are then relative to it.
        folder: where files go; nothing is written unless given.
        mean: what the data subtracts from its pictures, one number or one per channel: patches are shown without it.
            None: nothing.
        std: by which it divides them then, above 0. None: by nothing.
        reduction: ``"mean"`` or ``"max"`` over positions.
        least: photos that excite it least, 0 or more; `k` unless given.
        random: random photos, 0 or more; `k` unless given. The same for all units.
        seed: of the draw, 0 or more. A photo is drawn by its number, whatever the order.

    Raises:
        ValueError: when a number, name or target is impossible; before the first batch, when there is no such layer
            (listing near names); after it, when there is no such unit, a batch holds no pictures, or the step does not
            run a layer.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> class Module(LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = torch.nn.Conv2d(1, 2, 3)
        ...     def predict_step(self, batch):
        ...         return self.net(batch)
        >>> photos = torch.linspace(0, 1, 20).view(20, 1, 1, 1).expand(20, 1, 8, 8)
        >>> module, callback = Module(), TopActivations("net:1", k=2)
        >>> _ = torch.nn.init.ones_(module.net.weight)
        >>> quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        >>> trainer = Trainer(accelerator="cpu", callbacks=[callback], **quiet)
        >>> _ = trainer.predict(module, DataLoader(photos, batch_size=4))
        >>> [photo.photo for photo in callback.results["net:1"].top], callback.results["net:1"].top[0].box
        ([19, 18], (0, 0, 3, 3))

    Keeps ``results``, for each target a `UnitActivations`: ``top``, ``random``, ``least`` (each a list of photo, score,
    peak, position, box, patch) and ``distribution`` (moments and extremes are exact; percentiles and density are those
    of all photos up to 4,096, of so many random ones beyond).

    Writes:
        ====================================  ========================================================  ==========
        file                                  content                                                   when
        ====================================  ========================================================  ==========
        ``<layer>/<unit>/top-1.png``, …       the patch, with its origin; ``random-…``, ``least-…`` too  at the end
        ``<layer>/<unit>/sheet.png``          a row of each kind                                        at the end
        ``index.json``                        settings, scores, positions, files, distributions         last
        ====================================  ========================================================  ==========

    Reference:
        Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", 2014
    """

    def __init__(
        self,
        targets: str | Target | Sequence[str | Target],
        k: int = 9,
        network: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        reduction: Reduction = "mean",
        least: int | None = None,
        random: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        given = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        self._given = {key: str(value) if isinstance(value, os.PathLike) else value for key, value in given.items()}
        self._units = _units_by_layer(targets)
        self.network = network
        self.folder = None if folder is None else Path(folder)
        held = FrozenNetwork(torch.nn.Identity(), mean, std)  # checks them
        self.mean, self.std = held.mean, held.std
        if reduction not in ("mean", "max"):
            raise unknown("reduction", "choice", str(reduction), ("mean", "max"))
        self.reduction: Reduction = reduction
        self.k = whole_number("k", k)
        self._counts = {
            "top": self.k,
            "random": self.k if random is None else whole_number("random", random, least=0),
            "least": self.k if least is None else whole_number("least", least, least=0),
        }
        self.seed = whole_number("seed", seed, least=0)
        self.results: dict[str, UnitActivations] = {}
        self._clear()

    def _clear(self) -> None:
        """Forget what belongs to one pass through the photos."""
        self._hooks: ExitStack | None = None
        self._readers: dict[str, LayerReader] = {}
        self._kept: dict[str, dict[str, TopPhotos]] = {}
        self._statistics: dict[str, ScoreStatistics] = {}
        self._numbers: dict[int, PhotoNumbers] = {}
        self._loaders: list[Any] = []
        self._patch_boxes: PatchBoxes | None = None
        self._batch: Tensor | None = None

    @property
    def state_key(self) -> str:
        """Tell two instances apart in a checkpoint."""
        return self._generate_state_key(
            targets=self._given["targets"], network=self.network, folder=self._given["folder"], k=self.k
        )

    # What Lightning calls: the same for validation, test and prediction.

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_strategy(type(self).__name__, trainer.strategy, trainer.world_size)
        others = [other for other in trainer.callbacks if isinstance(other, TopActivations) and other is not self]  # type: ignore[attr-defined]
        if self.folder is not None and any(other.folder == self.folder for other in others):
            raise ValueError(
                f"folder: two TopActivations would write into {str(self.folder)!r}; give one another folder"
            )

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_names(pl_module, list(self._units), self.network)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop = trainer.fit_loop.epoch_loop.val_loop if trainer.state.fn == "fit" else trainer.validate_loop
        combined = loop._combined_loader  # `trainer.val_dataloaders` are those of an earlier fit, where there was one
        self._start(pl_module, None if combined is None else combined.iterables)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(pl_module, trainer.test_dataloaders)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(pl_module, trainer.predict_dataloaders)

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._before(trainer, pl_module, batch)

    @override
    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._before(trainer, pl_module, batch)

    @override
    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._before(trainer, pl_module, batch)

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._after(trainer, dataloader_idx)

    @override
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._after(trainer, dataloader_idx)

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._after(trainer, dataloader_idx)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer)

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stop()

    # One pass through the photos.

    def _start(self, module: LightningModule, loaders: Any) -> None:
        self._stop()
        check_names(module, list(self._units), self.network)
        self._loaders = [] if loaders is None else list_loaders(loaders)
        parts = modules_by_name(module)
        self._hooks = ExitStack()
        if is_compiled(module):
            self._hooks.enter_context(torch.compiler.set_stance("force_eager"))
        for layer, units in self._units.items():
            reader = self._readers[layer] = LayerReader(layer, units, self.reduction)
            self._hooks.callback(parts[full_path(layer, self.network)].register_forward_hook(reader).remove)

    def _stop(self) -> None:
        hooks = self._hooks
        self._clear()
        if hooks is not None:
            hooks.close()

    def _before(self, trainer: Trainer, module: LightningModule, batch: Any) -> None:
        pictures = pictures_in(batch)
        if pictures is None:
            raise ValueError(
                "batch: it holds no pictures (N, C, H, W), and TopActivations looks for the photos that excite units"
            )
        self._batch = pictures
        if self._patch_boxes is None:
            self._compare_range(pictures)
            device = trainer.strategy.root_device
            self._patch_boxes = PatchBoxes(module, list(self._units), self.network, device)
            with undisturbed(module, device):
                self._patch_boxes.prepare(_shape(pictures))
            assert self._hooks is not None
            self._patch_boxes.register_hook(self._hooks)
            for layer, reader in self._readers.items():
                reader.channels_last = self._patch_boxes.channels_last(layer)
                reader.outputs = None  # of the probing

    def _compare_range(self, pictures: Tensor) -> None:
        """Say once when pictures are normalised and would be shown cut at 0 and 1."""
        if self.mean is None and self.std is None and pictures.is_floating_point():
            low, high = float(pictures.min()), float(pictures.max())
            if low < 0 or high > 1:
                rank_zero_warn(
                    f"TopActivations: the first batch holds values from {low:.3g} to {high:.3g}, and patches are shown in [0, 1]; give the "
                    "mean and std by which the data is normalised"
                )

    def _after(self, trainer: Trainer, which: int) -> None:
        pictures, self._batch = self._batch, None
        assert pictures is not None
        numbers = self._of_batch(trainer, which, len(pictures))
        rows = [row for row, number in enumerate(numbers) if number is not None]
        said = {layer: reader.pop(len(pictures)) for layer, reader in self._readers.items()}
        if rows:
            levels = self._levels(pictures)
            photos = np.array([numbers[row] for row in rows], dtype=np.int64)
            draws = np.array([float(mix(self.seed, "photo", int(photo))) for photo in photos])
            for layer, one in said.items():
                self._add(layer, one, rows, photos, draws, levels)

    def _of_batch(self, trainer: Trainer, which: int, count: int) -> list[int | None]:
        if which not in self._numbers:
            loader = self._loaders[which] if which < len(self._loaders) else None
            self._numbers[which] = PhotoNumbers(loader, which, trainer.global_rank, trainer.world_size)
            if not self._numbers[which].are_indices and trainer.world_size > 1:
                rank_zero_warn(
                    "TopActivations: ambiguous photo numbers: the order of the DataLoader is not known, so photos are numbered as they come, "
                    "and one that two processes see counts twice; use a DistributedSampler"
                )
        return self._numbers[which].next_batch(count)

    def _levels(self, pictures: Tensor) -> Tensor:
        """Return a batch as it is shown: 256 levels, on the CPU."""
        values = pictures.detach()
        if not values.is_floating_point():
            return values.to(torch.uint8).cpu()
        values = values.float()
        if self.std is not None:
            values = values * values.new_tensor(self.std).view(-1, 1, 1)
        if self.mean is not None:
            values = values + values.new_tensor(self.mean).view(-1, 1, 1)
        return to_uint8(values).cpu()

    def _add(
        self,
        layer: str,
        outputs: LayerOutputs,
        rows: list[int],
        photos: NDArray[Any],
        draws: NDArray[Any],
        levels: Tensor,
    ) -> None:
        """Offer the photos of one batch to the units of one layer."""
        scores, peaks, positions = (values[:, rows] for values in outputs.numpy())
        if layer not in self._kept:
            self._kept[layer] = {kind: TopPhotos(len(scores), count) for kind, count in self._counts.items()}
            self._statistics[layer] = ScoreStatistics(len(scores))
        assert self._patch_boxes is not None
        boxes = self._patch_boxes.boxes(
            layer, outputs.spatial_shape, (levels.shape[1], levels.shape[2], levels.shape[3])
        )
        crops: dict[tuple[int, int], Crop] = {}  # units share a crop of the same position

        def crop(unit: int, column: int) -> Crop:
            row, position = rows[column], int(positions[unit, column])
            if (row, position) not in crops:
                crops[row, position] = crop_position(levels, row, position, outputs.spatial_shape, boxes[position])
            return crops[row, position]

        orders = {"top": -scores.astype(np.float64), "random": draws, "least": scores.astype(np.float64)}
        for kind, kept in self._kept[layer].items():
            ordered, numbered, _ = np.broadcast_arrays(orders[kind], photos, scores)
            kept.update(ordered, numbered, scores, peaks, crop)
        self._statistics[layer].update(scores.T, photos, draws)

    # The end.

    def _finish(self, trainer: Trainer) -> None:
        kept, statistics = self._kept, self._statistics
        known = all(numbers.are_indices for numbers in self._numbers.values())
        self._stop()
        if trainer.sanity_checking:
            return
        self.results = {}
        for layer, units in self._units.items():
            found = merge_results(kept.get(layer), statistics.get(layer), self._counts, trainer)
            names = range(len(found)) if units is None else units
            self.results.update({f"{layer}:{unit}": one for unit, one in zip(names, found)})
        if self.folder is not None and trainer.is_global_zero:
            write_results(self.folder, self.results, self._settings(trainer, known))

    def _settings(self, trainer: Trainer, known: bool) -> dict[str, Any]:
        """Return what the results depend on: plain values, equal for equal runs."""
        return {
            "featviz_pl": versions()["featviz_pl"],
            "reduction": self.reduction,
            "seed": self.seed,
            "stage": str(trainer.state.stage.value if trainer.state.stage is not None else ""),
            "trained_steps": trainer.global_step,
            "photos": "by index" if known else "as they came",
            "mean": self.mean,
            "std": self.std,
        }

    def __repr__(self) -> str:
        """Show the constructor, without what is as usual."""
        usual = {key: parameter.default for key, parameter in inspect.signature(TopActivations).parameters.items()}
        more = [f"{key}={value!r}" for key, value in self._given.items() if key != "targets" and value != usual[key]]
        return f"TopActivations({', '.join([repr(self._given['targets']), *more])})"


def _units_by_layer(targets: str | Target | Sequence[str | Target]) -> dict[str, list[int] | None]:
    """Return the units of each layer, None for all of them."""
    layers: dict[str, list[int] | None] = {}
    for target in parse_targets(targets):
        units = layers.setdefault(target.by_number().layer, [])
        if target.units == ALL:
            layers[target.layer] = None
        elif units is not None:
            units.append(target.unit)
    return layers


def _shape(pictures: Tensor) -> tuple[int, int, int]:
    _, channels, height, width = pictures.shape
    return channels, height, width
