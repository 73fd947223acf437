"""The photos that excite units most and least, found during a validation, test or prediction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from featviz_pl.io.provenance import versions
from featviz_pl.metrics.top_photos.layer_reader import Reduction
from featviz_pl.metrics.top_photos.results import UnitActivations, write_results
from featviz_pl.networks import FrozenNetwork
from featviz_pl.numerics.checks import whole_number
from featviz_pl.objectives import Target
from featviz_pl.objectives.target_syntax import ALL, parse_targets
from featviz_pl_callbacks._support import (
    choice,
    constructor_arguments,
    constructor_repr,
    other_instances,
    warn_if_normalized,
)
from featviz_pl_callbacks._top_collector import CollectorSettings, TopPhotosCollector
from featviz_pl_callbacks._training_guard import check_strategy
from featviz_pl_callbacks._watched_network import check_names, find_pictures

__all__ = ["TopActivations"]


class TopActivations(Callback):
    """Find the photos that excite each unit most and least, and random ones, in any validation, test or prediction.

    Forward hooks read the activations while the module processes its batches: there is no second pass, and hooks,
    weights, modes and random numbers are as before. The score of a photo is the mean activation of the unit over all
    positions, as for `Channel`, or its maximum; the patch is the receptive field of the position with the highest
    activation (see `receptive_fields`), the whole photo behind attention and other global layers. In a training, each
    validation gives new results, except the sanity check.

    Photos are known by their index in the data set, where the DataLoader is sequential, or as a ``DistributedSampler``
    divides it; samples that it repeats count once. Otherwise they are numbered as they come. Ties go to the lower
    number, so that batches and processes make no difference. Memory: ``k`` patches for each unit and kind, and the
    scores of 4,096 random photos, however many photos there are. A compiled network runs uncompiled meanwhile, because
    compiled ones ignore hooks.

    Args:
        targets: one or several of ``"net.layer3:all"`` (all its units), ``"net.layer3:5"``, ``"net.layer3:0-15"``,
            ``"net.layer3:3,8"``. Names are those of the LightningModule's ``named_modules()``; ``"output"`` is the
            result of the LightningModule's forward, or of `network`.
        k: photos of each kind for each unit, 1 or more.
        network: name of the submodule that takes the pictures; layers are then relative to it.
        folder: for files; nothing is written unless given.
        mean: what the data subtracts from its pictures, one number or one per channel; patches are shown without it.
            None: nothing.
        std: by which it divides them then, above 0. None: by nothing.
        reduction: ``"mean"`` or ``"max"`` over positions.
        least: photos with the lowest scores, 0 or more; `k` unless given.
        random: random photos, 0 or more; `k` unless given. The same for all units.
        seed: of the random photos, 0 or more. A draw depends on the photo's number alone.
        labels: write target and scores into the sheets.

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
        >>> quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False)
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
        ``<layer>/<unit>/top-1.png``, …       the patch, with its provenance; ``random-…``, ``least-…``  at the end
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
        *,
        network: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        reduction: Reduction = "mean",
        least: int | None = None,
        random: int | None = None,
        seed: int = 0,
        labels: bool = True,
    ) -> None:
        super().__init__()
        self._arguments = constructor_arguments(locals())
        self.folder = None if folder is None else Path(folder)
        normalization = FrozenNetwork(torch.nn.Identity(), mean, std=std)  # checks mean and std
        counts = {
            "top": whole_number("k", k),
            "random": whole_number("random", k if random is None else random, least=0),
            "least": whole_number("least", k if least is None else least, least=0),
        }
        self._settings = CollectorSettings(
            units=_units_by_layer(targets),
            network=network,
            reduction="mean" if choice("reduction", reduction, ("mean", "max")) == "mean" else "max",
            counts=counts,
            seed=whole_number("seed", seed, least=0),
            mean=normalization.mean,
            std=normalization.std,
        )
        self.labels = bool(labels)
        self.results: dict[str, UnitActivations] = {}
        self._collector: TopPhotosCollector | None = None  # during a pass over the photos

    @property
    def state_key(self) -> str:
        """Key in checkpoints, different for two instances."""
        arguments = {name: self._arguments[name] for name in ("targets", "network", "folder", "k")}
        return self._generate_state_key(**arguments)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_strategy(type(self).__name__, trainer.strategy, trainer.world_size)
        folders = [callback.folder for callback in other_instances(self, trainer, TopActivations)]
        if self.folder is not None and self.folder in folders:
            raise ValueError(f"folder: two TopActivations would write into {str(self.folder)!r}; give one another")

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_names(pl_module, list(self._settings.units), self._settings.network)

    # Lightning calls the same hooks for validation, test and prediction.

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop = trainer.fit_loop.epoch_loop.val_loop if trainer.state.fn == "fit" else trainer.validate_loop
        combined = loop._combined_loader  # `trainer.val_dataloaders` are those of an earlier fit, where there was one
        self._start(trainer, pl_module, None if combined is None else combined.iterables)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(trainer, pl_module, trainer.test_dataloaders)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(trainer, pl_module, trainer.predict_dataloaders)

    def _start(self, trainer: Trainer, module: LightningModule, loaders: Any) -> None:
        self._close()
        check_names(module, list(self._settings.units), self._settings.network)
        self._collector = TopPhotosCollector(self._settings, module, loaders, trainer)

    def _close(self) -> None:
        if self._collector is not None:
            self._collector.close()
        self._collector = None

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        pictures = find_pictures(batch)
        if pictures is None:
            raise ValueError("batch: it holds no pictures (N, C, H, W), and TopActivations looks for photos")
        assert self._collector is not None
        if not self._collector.started:
            mean, std = self._settings.mean, self._settings.std
            warn_if_normalized(self, pictures, mean, std, "patches are shown in [0, 1]")
        self._collector.start_batch(pictures)

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
        assert self._collector is not None
        self._collector.end_batch(dataloader_idx)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        collector = self._collector
        self._close()
        if trainer.sanity_checking or collector is None:
            return
        self.results = collector.results()
        if self.folder is not None and trainer.is_global_zero:
            settings = {"featviz_pl": versions()["featviz_pl"], **collector.provenance}
            write_results(self.folder, self.results, settings, self.labels)

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
    on_test_end = on_predict_end = on_validation_end

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def __repr__(self) -> str:
        """Return the constructor call, without arguments that equal their defaults."""
        return constructor_repr(self, self._arguments)


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
