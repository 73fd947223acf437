"""Pictures of the features of a network while it is being trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from featviz_pl.io import save_png
from featviz_pl.io.provenance import provenance
from featviz_pl.networks import FrozenNetwork
from featviz_pl.numerics.checks import finite_number, size_pair, whole_number
from featviz_pl.objectives import Target
from featviz_pl.objectives.target_syntax import parse_targets
from featviz_pl.presets import DEFAULT_PRESET, recipe
from featviz_pl_callbacks._monitor_film import monitor_sheet, save_film
from featviz_pl_callbacks._monitor_network import MonitoredNetwork
from featviz_pl_callbacks._monitor_render import RankShare, RenderSettings, TargetPicture, rank_batches, render_share
from featviz_pl_callbacks._support import (
    Picture,
    choice,
    constructor_arguments,
    constructor_repr,
    other_instances,
    picture_shape,
    warn_if_normalized,
)
from featviz_pl_callbacks._training_guard import check_strategy, gathered, undisturbed
from featviz_pl_callbacks._watched_network import check_names, find_pictures
from featviz_pl_callbacks.image_logging import log_targets

GREY = 128  # level of the pictures that could not be rendered


class FeatureMonitor(Callback):
    """Render and log features of a network while any LightningModule trains it.

    At each interval, the picture of every target takes `steps` steps on a private copy of the network. The training
    stays the same, bit for bit: weights, gradients, optimizers, modes, statistics of batch normalization, hooks and
    random numbers. Pictures go to all loggers that take images; files are written where none does, and where a folder
    is given. Several processes divide the targets. The weights are those being trained, not the averages of Lightning's
    ``WeightAveraging``.

    Layers are the names of the LightningModule's ``named_modules()``, with or without ``_orig_mod`` of
    ``torch.compile``; ``"output"`` is the result of the LightningModule, or of `network`. The first batch tells the
    shape of the pictures, and the smallest module that contains all layers and takes the batch's pictures itself is
    rendered. A LightningModule that normalizes in ``forward`` therefore normalizes these pictures too; one that does so
    in ``training_step`` does not, and needs `mean` and `std`. Users' hooks on the network do not run, and its output
    behind the deepest layer is not computed.

    Args:
        targets: one or several of ``"net.layer3"`` (the whole layer), ``"net.layer3:5"``, ``"net.layer3:0-15"``,
            ``"net.layer3:all"`` (every unit), ``"net.layer3:3,8"``, ``"net.layer3:5@y,x"`` (a neuron; ``@`` alone is
            the centre). One picture for each unit.
        network: name of the submodule that takes the pictures; layers are then relative to it.
        every_n_epochs: interval in epochs, 1 or more.
        steps: of each picture at each interval, 1 or more.
        size: of the pictures, one number or (height, width); that of the first batch's pictures unless given.
        views: of each picture in each step, 1 or more; the preset's number unless given.
        folder: for files; ``<default_root_dir>/<name>`` where no logger takes images.
        on_error: ``"warn"`` warns of errors and goes on training; ``"raise"`` stops it.
        max_seconds: time limit at each interval, above 0; every picture takes at least one step.
        every_n_steps: interval in optimizer steps, 1 or more; in place of epochs.
        when: in an epoch: ``"train_epoch_end"``, or ``"validation_end"`` after each validation but the sanity check.
        mean: subtracted from pictures in [0, 1] before the network takes them, one number or one per channel: what the
            training subtracts from its pictures. None subtracts nothing.
        std: by which they are divided then, above 0. None divides by nothing.
        warm_start: start each picture from the previous one, for a smooth film; else always from the same start.
        preset: of image, views and optimizer. The default needs 64 steps, because its learning rate falls to zero over
            any number of them; 64 of ``"lucid"`` give hazy first pictures, which later intervals continue.
        seed: of every draw, 0 or more.
        name: of the series of pictures in the loggers, and of the folder.
        labels: write target and score under the pictures of the sheets and the film.

    Raises:
        ValueError: when a number, name or target is impossible; at setup, when there is no such layer (listing near
            names), when the strategy shards layers (FSDP, DeepSpeed), and when another monitor has the same name.

    Example:
        >>> monitor = FeatureMonitor("net.layer3:0-3", every_n_epochs=5, mean=0.5, std=0.25)
        >>> monitor
        FeatureMonitor('net.layer3:0-3', every_n_epochs=5, mean=0.5, std=0.25)
        >>> len(monitor.targets)
        4

    Logs: ``<name>/<target>`` and ``<name>/<target>/score`` of each picture, and the sheet of several as `name`, at the
    steps of the file names.

    Writes:
        =====================  ======================================================  ================================
        file                   content                                                 when
        =====================  ======================================================  ================================
        ``step-000120.png``    a sheet of all targets, with its provenance             at each interval
        ``film.webp``          an animation of the sheets                              at the end, and on an exception
        ``film.png``           a row for each target, in 16 columns at most            with ``film.webp``
        =====================  ======================================================  ================================

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def __init__(
        self,
        targets: str | Target | Sequence[str | Target],
        network: str | None = None,
        *,
        every_n_epochs: int = 1,
        steps: int = 64,
        size: int | Sequence[int] | None = None,
        views: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        max_seconds: float | None = None,
        every_n_steps: int | None = None,
        when: Literal["train_epoch_end", "validation_end"] = "train_epoch_end",
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        warm_start: bool = True,
        preset: str = DEFAULT_PRESET,
        seed: int = 0,
        name: str = "features",
        labels: bool = True,
    ) -> None:
        super().__init__()
        self._arguments = constructor_arguments(locals())
        self._requested = [target.without_names() for target in parse_targets(targets)]
        self._targets = self._requested  # one for each picture, as soon as the units of `layer:all` are known
        self.network = network
        self.every_n_epochs = whole_number("every_n_epochs", every_n_epochs)
        self.every_n_steps = None if every_n_steps is None else whole_number("every_n_steps", every_n_steps)
        self.folder = None if folder is None else Path(folder)
        self.on_error = choice("on_error", on_error, ("warn", "raise"))
        self.when = choice("when", when, ("train_epoch_end", "validation_end"))
        if self.every_n_steps is not None and self.when != "train_epoch_end":
            raise ValueError(f"every_n_steps: {every_n_steps} and when={when!r} exclude each other; leave one out")
        normalization = FrozenNetwork(torch.nn.Identity(), mean, std=std)  # checks mean and std
        self.mean, self.std = normalization.mean, normalization.std
        self.warm_start = bool(warm_start)
        selected = recipe(preset)
        self._settings = RenderSettings(
            selected,
            selected.views if views is None else whole_number("views", views),
            whole_number("steps", steps),
            whole_number("seed", seed, least=0),
            None if max_seconds is None else finite_number("max_seconds", max_seconds, above=0.0),
        )
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"name: {name!r} has no letters; give a text such as 'features'")
        self.name, self.labels = name, bool(labels)
        self.size = None if size is None else size_pair("size", size)
        self._network = MonitoredNetwork(network, self.size, self.mean, self.std)
        self._reset()

    def _reset(self) -> None:
        self._pictures: dict[int, TargetPicture] = {}  # the latest of each target
        self._files: list[str] = []
        self._training_picture: Picture | None = None  # shape of the training's pictures
        self._network.reset()
        self._last_step = 0

    @property
    def targets(self) -> list[str]:
        """The target of each picture, in the order of the sheets; ``layer:all`` until the first pictures."""
        return [str(target) for target in self._targets]

    @property
    def images(self) -> dict[str, Tensor]:
        """The latest pictures, (C, H, W) in [0, 1], by target."""
        pictures = sorted(self._pictures.items())
        return {str(self._targets[index]): picture.levels.float() / 255 for index, picture in pictures}

    @property
    def scores(self) -> dict[str, float]:
        """The objective on each of the latest pictures, without views, by target."""
        return {str(self._targets[index]): picture.score for index, picture in sorted(self._pictures.items())}

    # State in checkpoints: start pictures, and the frames of the film.

    @property
    def state_key(self) -> str:
        """Key in checkpoints, different for two instances."""
        return self._generate_state_key(name=self.name, network=self.network, targets=[*map(str, self._requested)])

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "targets": self.targets,
            "labels": self.labels,
            "pictures": {index: picture.levels for index, picture in self._pictures.items()},
            "scores": {index: picture.score for index, picture in self._pictures.items()},
            "files": list(self._files),
            "picture": None if self._training_picture is None else list(self._training_picture),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._targets = parse_targets(state_dict.get("targets", self.targets))
        scores, pictures = state_dict["scores"], state_dict["pictures"]
        self._pictures = {index: TargetPicture(levels, scores[index], 0) for index, levels in pictures.items()}
        if state_dict.get("labels", False) == self.labels:  # a film has sheets of one size
            self._files = list(state_dict["files"])
        if state_dict["picture"] is not None:
            channels, height, width = map(int, state_dict["picture"])
            self._training_picture = (channels, height, width)

    # Hooks, in the order of a training.

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._reset()
        check_strategy(type(self).__name__, trainer.strategy, trainer.world_size)
        if any(monitor.name == self.name for monitor in other_instances(self, trainer, FeatureMonitor)):
            raise ValueError(f"name: two FeatureMonitors have the name {self.name!r}; give one another name")
        if not _creates_modules_later(pl_module):
            self._check_names(pl_module)

    def _check_names(self, module: LightningModule) -> None:
        check_names(module, [target.layer for target in self._targets], self.network)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_names(pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._training_picture is None and (pictures := find_pictures(batch)) is not None:
            self._training_picture = picture_shape(pictures)
            warn_if_normalized(self, pictures, self.mean, self.std, "the network will take pictures in [0, 1]")

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Counted in whole intervals: with several optimizers a batch takes several steps.
        every, step = self.every_n_steps, trainer.global_step
        if every is not None and step // every > self._last_step // every:
            self._last_step = step
            self._render(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.when == "validation_end" and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._end_epoch(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.when == "train_epoch_end" and self.every_n_steps is None:
            self._end_epoch(trainer, pl_module)

    def _end_epoch(self, trainer: Trainer, module: LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._render(trainer, module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_film(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        with suppress(Exception):  # such as a full disk, which must not hide the first exception
            self._save_film(trainer)

    # One interval.

    def _render(self, trainer: Trainer, module: LightningModule) -> None:
        """Render all targets on all processes, log and save the pictures, and leave the training as it is."""
        with undisturbed(module, trainer.strategy.root_device):
            shape = self._training_picture
            self._training_picture = gathered(shape, trainer)[0]  # that of other processes may differ
            share = self._render_share(trainer, module)
            shares = gathered(share, trainer)
            pictures = {index: picture for part in shares for index, picture in part.pictures.items()}
            self._store(pictures)
            errors = [f"{self._names(indices)}: {text}" for part in shares for indices, text in part.errors]
            exception = share.exception
            if pictures and trainer.is_global_zero:
                try:
                    self._publish(trainer, module)
                except Exception as error:
                    exception = exception or error
                    errors.append(f"logging the pictures: {type(error).__name__}: {error}")
            if self.on_error == "raise":  # all processes raise: one that went on would wait for the others
                errors = max(gathered(errors, trainer), key=len)
        self._report(trainer, pictures, errors, exception)

    def _render_share(self, trainer: Trainer, module: LightningModule) -> RankShare:
        """Render this process's targets; exceptions become part of the share, so that every process gathers."""
        rank, ranks, device = trainer.global_rank, trainer.world_size, trainer.strategy.root_device
        try:
            shape = self._network.find(module, self._targets, self._training_picture, device)
            network = self._network.live(module)
            self._targets = self._network.resolve(self._targets, network, shape)
            starts = {
                index: picture.levels
                for index, picture in self._pictures.items()
                if self.warm_start and picture.levels.shape == shape
            }
            targets, batches = self._network.renamed(self._targets), rank_batches(self._targets, rank, ranks)
            return render_share(targets, batches, network, shape, starts, self._settings, device)
        except Exception as error:
            self._network.reset()  # the network may have changed
            share = RankShare()
            share.add_error(range(rank, len(self._targets), ranks), error)
            return share

    def _store(self, pictures: dict[int, TargetPicture]) -> None:
        shapes = {picture.levels.shape for picture in pictures.values()}
        if shapes and any(picture.levels.shape not in shapes for picture in self._pictures.values()):
            self._pictures, self._files = {}, []  # a film has pictures of one size
        self._pictures |= pictures

    def _names(self, indices: Sequence[int]) -> str:
        return ", ".join(str(self._targets[index]) for index in indices)

    def _publish(self, trainer: Trainer, module: LightningModule) -> None:
        """Log the pictures in the first process, and save them where no logger takes them or there is a folder."""
        placeholder = torch.full_like(next(iter(self._pictures.values())).levels, GREY)
        pictures = [self._pictures.get(index) for index in range(len(self._targets))]
        levels = [placeholder if picture is None else picture.levels for picture in pictures]
        images = torch.stack(levels).float() / 255
        scores = [None if picture is None else picture.score for picture in pictures]
        labels = [(target, "" if score is None else f"{score:.3g}") for target, score in zip(self.targets, scores)]
        sheet = monitor_sheet(images, labels if self.labels else None)
        loggers = log_targets(trainer, self.name, images, self.targets, scores, trainer.global_step, sheet)
        if loggers == 0 or self.folder is not None:
            name = f"step-{trainer.global_step:06d}.png"
            values = self._provenance(trainer, module, pictures)
            save_png(sheet, self._output_folder(trainer) / name, values)
            self._files.append(name)

    def _provenance(
        self, trainer: Trainer, module: LightningModule, pictures: Sequence[TargetPicture | None]
    ) -> dict[str, Any]:
        network, settings = self._network.live(module), self._settings
        return provenance(
            {
                "network": network.name,
                "weights": network.weights_hash(),
                "mean": self.mean,
                "std": self.std,
                "trained_steps": trainer.global_step,
                "epoch": trainer.current_epoch,
                "target": self.targets,
                "score": [None if picture is None else picture.score for picture in pictures],
                "steps": [None if picture is None else picture.steps for picture in pictures],
                "preset": settings.recipe.name,
                "size": list(next(iter(self._pictures.values())).levels.shape[1:]),
                "views": settings.views,
                "seed": settings.seed,
                "warm_start": self.warm_start,
            }
        )

    def _report(
        self,
        trainer: Trainer,
        pictures: dict[int, TargetPicture],
        errors: Sequence[str],
        exception: Exception | None,
    ) -> None:
        """Warn of errors, or raise the first."""
        step, settings = trainer.global_step, self._settings
        if errors and self.on_error == "raise":
            raise exception or RuntimeError(f"FeatureMonitor: after step {step}: {'; '.join(errors)}")
        if errors:
            rank_zero_warn(f"FeatureMonitor: after step {step}, and training goes on: {'; '.join(errors)}")
        for failure in dict.fromkeys(picture.failure for picture in pictures.values() if picture.failure is not None):
            failed = [index for index, picture in sorted(pictures.items()) if picture.failure == failure]
            rank_zero_warn(f"FeatureMonitor: {self._names(failed)}: {failure}")
        if unfinished := sum(picture.steps < settings.steps for picture in pictures.values()):
            rank_zero_warn(
                f"FeatureMonitor: max_seconds={settings.max_seconds:g} ended {unfinished} of {len(pictures)} pictures "
                f"before {settings.steps} steps"
            )

    def _output_folder(self, trainer: Trainer) -> Path:
        return self.folder if self.folder is not None else Path(trainer.default_root_dir) / self.name

    def _save_film(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self._files:
            save_film(self._output_folder(trainer), self._files, len(self._targets))

    def __repr__(self) -> str:
        """Return the constructor call, without arguments that equal their defaults."""
        return constructor_repr(self, self._arguments)


def _creates_modules_later(module: LightningModule) -> bool:
    """Return whether the module overrides `setup` or `configure_model`, which Lightning calls after callbacks' setup."""
    return any(
        getattr(type(module), hook, None) is not getattr(LightningModule, hook) for hook in ("setup", "configure_model")
    )
