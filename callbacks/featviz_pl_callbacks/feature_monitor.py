"""Features of a network while it is being trained."""

from __future__ import annotations

import inspect
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

from featviz_pl.io.provenance import provenance
from featviz_pl.networks import FrozenNetwork
from featviz_pl.numerics.checks import finite_number, size_pair, unknown, whole_number
from featviz_pl.objectives import Target
from featviz_pl.objectives.target_syntax import ALL, parse_targets
from featviz_pl.presets import DEFAULT_PRESET, recipe
from featviz_pl_callbacks._monitor_film import save_film, save_moment
from featviz_pl_callbacks._monitor_render import Rendered, Settings, Share, batches_of, render_share
from featviz_pl_callbacks._training_guard import check_strategy, gathered, undisturbed
from featviz_pl_callbacks._watched_network import (
    GuestNetwork,
    Picture,
    check_names,
    find_forward,
    full_path,
    guest,
    pictures_in,
    relative,
)
from featviz_pl_callbacks.image_logging import log_images

GREY = 128  # the level of pictures that could not be rendered


class FeatureMonitor(Callback):
    """Render features of the network that is being trained, and log them: put it into anyone's Trainer and watch features form.

    Each time, every target's picture takes `steps` steps on a private copy of the network as it is then. The training
    is left as it is, bit for bit: weights, gradients, optimizers, modes, statistics of batch normalisation, hooks and
    random numbers. Pictures go to all loggers that take some; where none does, and where a folder is given, files are
    written. Over several processes the targets are divided. Averaged weights (Lightning's ``WeightAveraging``) are not
    looked at, but those that are being trained.

    Layers are the names of the LightningModule's ``named_modules()``, with or without ``_orig_mod`` of
    ``torch.compile``; ``"output"`` is the result of the LightningModule, or of `network`. What is shown the pictures is
    found once the first batch of the training has told their shape: the smallest module that contains all layers and is
    handed the picture itself. A LightningModule whose ``forward`` normalises is therefore run with it; one that
    normalises in ``training_step`` is not, and `mean` and `std` are needed. Users' hooks on the network do not run, and
    its output behind the deepest layer is not computed.

    Args:
        targets: one or several of ``"net.layer3"`` (the whole layer), ``"net.layer3:5"``, ``"net.layer3:0-15"``,
            ``"net.layer3:all"`` (every unit), ``"net.layer3:3,8"``, ``"net.layer3:5@y,x"`` (a neuron; ``@`` alone is
            the centre). One picture for each unit.
        network: name of the module that is shown the pictures; layers are then relative to it.
        every_n_epochs: epochs between two times, 1 or more.
        steps: of each picture each time, 1 or more.
        size: of the pictures, one number or (height, width); that of the first batch's pictures unless given.
        views: of each picture in each step, 1 or more.
        folder: where files go too; ``<default_root_dir>/<name>`` where no logger takes pictures.
        on_error: ``"warn"`` says what went wrong and goes on training; ``"raise"`` stops it.
        max_seconds: a budget for each time: after it no picture takes a further step, but each takes at least one.
        every_n_steps: optimizer steps between two times, 1 or more; instead of epochs.
        when: within an epoch: ``"train_epoch_end"``, or ``"validation_end"`` after each validation, without the sanity
            check.
        mean: subtracted from pictures in [0, 1] before the network sees them, one number or one per channel: what the
            training subtracts from its pictures. None subtracts nothing.
        std: by which they are divided then, above 0. None divides by nothing.
        warm_start: begin each picture from that of the time before, so that a film moves little; else from the same
            start each time.
        preset: of image, views and optimizer. The default one is done in 64 steps, because its learning rate falls to
            zero over however many there are; after 64 of ``"lucid"`` the first pictures are hazy, and later ones go on
            where these were left.
        seed: of every draw, 0 or more.
        name: of the pictures in the loggers, and of the folder.

    Raises:
        ValueError: when a number, name or target is impossible; at setup, when there is no such layer (listing near
            names), when the strategy divides layers over processes (FSDP, DeepSpeed), and when another monitor has the
            same name.

    Example:
        >>> monitor = FeatureMonitor("net.layer3:0-3", every_n_epochs=5, mean=0.5, std=0.25)
        >>> monitor
        FeatureMonitor('net.layer3:0-3', every_n_epochs=5, mean=0.5, std=0.25)
        >>> len(monitor.targets)
        4

    Logs: pictures `name`, on the step of the training's own numbers.

    Writes:
        =====================  ======================================================  ================================
        file                   content                                                 when
        =====================  ======================================================  ================================
        ``step-000120.png``    a sheet of all targets, with its origin                 each time
        ``film.webp``          all of these, in motion                                 at the end, and on an exception
        ``film.png``           a row for each target, with 16 moments at the most      with ``film.webp``
        =====================  ======================================================  ================================

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def __init__(
        self,
        targets: str | Target | Sequence[str | Target],
        network: str | None = None,
        every_n_epochs: int = 1,
        steps: int = 64,
        size: int | Sequence[int] | None = None,
        views: int = 1,
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
    ) -> None:
        super().__init__()
        given = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        self._given = {key: str(value) if isinstance(value, os.PathLike) else value for key, value in given.items()}
        self._requested = [target.without_names() for target in parse_targets(targets)]
        self.network = network
        self.every_n_epochs = whole_number("every_n_epochs", every_n_epochs)
        self.every_n_steps = None if every_n_steps is None else whole_number("every_n_steps", every_n_steps)
        self.size = None if size is None else size_pair("size", size)
        self.folder = None if folder is None else Path(folder)
        self.on_error = _one_of("on_error", on_error, ("warn", "raise"))
        self.when = _one_of("when", when, ("train_epoch_end", "validation_end"))
        if self.every_n_steps is not None and self.when != "train_epoch_end":
            raise ValueError(
                f"every_n_steps: {every_n_steps} steps are not counted after validations; leave one of it and `when` out"
            )
        held = FrozenNetwork(torch.nn.Identity(), mean, std)  # checks them
        self.mean, self.std = held.mean, held.std
        self.warm_start = bool(warm_start)
        seconds = None if max_seconds is None else finite_number("max_seconds", max_seconds, above=0.0)
        self._settings = Settings(
            recipe(preset),
            whole_number("views", views),
            whole_number("steps", steps),
            whole_number("seed", seed, least=0),
            seconds,
        )
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"name: {name!r} names nothing; give a text such as 'features'")
        self.name = name
        self._reset()

    def _reset(self) -> None:
        self._targets = self._requested  # of every picture, as soon as the units of `layer:all` are known
        self._rendered: dict[int, Rendered] = {}  # the latest picture of each target
        self._files: list[str] = []
        self._picture: Picture | None = None  # shape of the training's own pictures
        self._forward: tuple[str, Picture] | None = None  # what is shown the pictures, and in which shape
        self._latest = 0

    @property
    def targets(self) -> list[str]:
        """What each picture looks for, in the order of the sheets; ``layer:all`` until the first pictures."""
        return [str(target) for target in self._targets]

    @property
    def images(self) -> dict[str, Tensor]:
        """The latest pictures, (C, H, W) in [0, 1], by target."""
        return {str(self._targets[index]): one.levels.float() / 255 for index, one in sorted(self._rendered.items())}

    @property
    def scores(self) -> dict[str, float]:
        """The objective on each of the latest pictures, without views, by target."""
        return {str(self._targets[index]): one.score for index, one in sorted(self._rendered.items())}

    # State in checkpoints: pictures to start from, and the frames of the film.

    @property
    def state_key(self) -> str:
        """Tell two instances apart in a checkpoint."""
        return self._generate_state_key(name=self.name, network=self.network, targets=[*map(str, self._requested)])

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "targets": self.targets,
            "pictures": {index: one.levels for index, one in self._rendered.items()},
            "scores": {index: one.score for index, one in self._rendered.items()},
            "files": list(self._files),
            "picture": None if self._picture is None else list(self._picture),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._targets = parse_targets(state_dict.get("targets", self.targets))
        scores = state_dict["scores"]
        self._rendered = {index: Rendered(levels, scores[index], 0) for index, levels in state_dict["pictures"].items()}
        self._files = list(state_dict["files"])
        shape = state_dict["picture"]
        self._picture = None if shape is None else (int(shape[0]), int(shape[1]), int(shape[2]))

    # What Lightning calls, in its order.

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._reset()
        check_strategy(type(self).__name__, trainer.strategy, trainer.world_size)
        others = [other for other in trainer.callbacks if isinstance(other, FeatureMonitor) and other is not self]  # type: ignore[attr-defined]
        if any(other.name == self.name for other in others):
            raise ValueError(
                f"name: two FeatureMonitors are called {self.name!r}, and would write the same files; give one another name"
            )
        if not _makes_modules_later(pl_module):
            check_names(pl_module, [target.layer for target in self._targets], self.network)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_names(pl_module, [target.layer for target in self._targets], self.network)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._latest = trainer.global_step

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._picture is None and (shown := pictures_in(batch)) is not None:
            self._picture = (int(shown.shape[1]), int(shown.shape[2]), int(shown.shape[3]))
            self._compare_range(shown)

    def _compare_range(self, shown: Tensor) -> None:
        """Say once when the training's pictures are normalised and ours would not be."""
        if self.mean is None and self.std is None and shown.is_floating_point():
            low, high = float(shown.min()), float(shown.max())
            if low < 0 or high > 1:
                rank_zero_warn(
                    f"FeatureMonitor: the first batch holds values from {low:.3g} to {high:.3g}, but the network will be shown pictures "
                    "in [0, 1]; give the mean and std by which the training normalises its own"
                )

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Counted in whole intervals: with several optimizers a batch takes several steps.
        if (
            self.every_n_steps is not None
            and trainer.global_step // self.every_n_steps > self._latest // self.every_n_steps
        ):
            self._latest = trainer.global_step
            self._render(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.when == "validation_end" and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._at_epoch(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.when == "train_epoch_end" and self.every_n_steps is None:
            self._at_epoch(trainer, pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_film(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        with suppress(Exception):  # a full disk must not hide what went wrong first
            self._save_film(trainer)

    # One moment.

    def _at_epoch(self, trainer: Trainer, module: LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._render(trainer, module)

    def _render(self, trainer: Trainer, module: LightningModule) -> None:
        """Render all targets on all processes, and hand the pictures out; leave the training as it was."""
        with undisturbed(module, trainer.strategy.root_device):
            self._picture = gathered(self._picture, trainer)[0]  # batches of other processes may have another size
            share = self._share(trainer, module)
            shares = gathered(share, trainer)
            rendered = {index: one for other in shares for index, one in other.rendered.items()}
            self._keep(rendered)
            trouble = [
                f"{', '.join(self._named(indices))}: {what}" for other in shares for indices, what in other.failures
            ]
            error = share.error
            if rendered and trainer.is_global_zero:
                try:
                    self._hand_out(trainer, module)
                except Exception as failure:
                    error = error or failure
                    trouble.append(f"handing out the pictures: {type(failure).__name__}: {failure}")
            if self.on_error == "raise":  # in every process: one that went on alone would wait for the others for ever
                trouble = max(gathered(trouble, trainer), key=len)
        self._say(trainer, rendered, trouble, error)

    def _share(self, trainer: Trainer, module: LightningModule) -> Share:
        """Render this process's targets; whatever goes wrong is in the share, so that every process comes to the gathering."""
        device = trainer.strategy.root_device
        try:
            network, forward, picture = self._network(module, device)
            self._targets = [
                single
                for target in self._targets
                for single in target.resolve(self._count_units(target, network, forward, picture)).singles()
            ]
            names = [self._layer_name(target, forward) for target in self._targets]
            batches = batches_of(self._targets, trainer.global_rank, trainer.world_size)
            starts = {
                index: one.levels
                for index, one in self._rendered.items()
                if self.warm_start and one.levels.shape == picture
            }
            return render_share(self._targets, batches, names, network, picture, starts, self._settings, device)
        except Exception as error:
            self._forward = None  # the network may have changed
            share = Share()
            share.failed(range(trainer.global_rank, len(self._targets), trainer.world_size), error)
            return share

    def _layer_name(self, target: Target, forward: str) -> str:
        """Return the name of a target's layer below the module that is shown the pictures."""
        return relative(full_path(target.layer, self.network), forward)

    def _count_units(self, target: Target, network: GuestNetwork, forward: str, picture: Picture) -> int:
        """Return the number of units of a target's layer where it asks for all, else 0."""
        return (
            0
            if target.units != ALL
            else network.count_units(self._layer_name(target, forward), picture[1:], picture[0])
        )

    def _network(self, module: LightningModule, device: torch.device) -> tuple[GuestNetwork, str, Picture]:
        """Return what is shown the pictures, its name, and their shape."""
        layers = [target.layer for target in self._targets]
        check_names(module, layers, self.network)  # again: a network may lose layers between epochs
        if self._forward is None:
            if self.size is None and self._picture is None:
                raise ValueError(
                    "size: the first batch holds no pictures (N, C, H, W), so theirs is not known; give size=…"
                )
            channels, height, width = self._picture or (3, 0, 0)
            wanted = (channels, *(self.size or (height, width)))
            paths = [full_path(layer, self.network) for layer in layers]
            self._forward = find_forward(
                module, paths, self.network, wanted, device, any_channels=self._picture is None
            )
        forward, picture = self._forward
        return guest(module, forward, self.mean, self.std), forward, picture

    def _keep(self, rendered: dict[int, Rendered]) -> None:
        shapes = {one.levels.shape for one in rendered.values()}
        if shapes and any(one.levels.shape not in shapes for one in self._rendered.values()):
            self._rendered, self._files = {}, []  # pictures of another size make no film with these
        self._rendered |= rendered

    def _named(self, indices: Sequence[int]) -> list[str]:
        return [str(self._targets[index]) for index in indices]

    def _hand_out(self, trainer: Trainer, module: LightningModule) -> None:
        """Log the pictures, on the first process, and write them where that is wanted."""
        like = next(iter(self._rendered.values())).levels
        empty = torch.full_like(like, GREY)
        shown = [
            self._rendered[index].levels if index in self._rendered else empty for index in range(len(self._targets))
        ]
        pictures = torch.stack(shown).float() / 255
        taken = log_images(trainer, self.name, pictures, caption=self.targets)
        if taken == 0 or self.folder is not None:
            self._files.append(
                save_moment(self._place(trainer), trainer.global_step, pictures, self._origin(trainer, module))
            )

    def _origin(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """Return where the pictures come from: plain values, equal for equal trainings."""
        network = guest(module, self._forward[0] if self._forward is not None else "", self.mean, self.std)
        plan, ordered = self._settings, [self._rendered.get(index) for index in range(len(self._targets))]
        values = {
            "network": network.name,
            "weights": network.weights_hash(),
            "mean": self.mean,
            "std": self.std,
            "trained_steps": trainer.global_step,
            "epoch": trainer.current_epoch,
            "target": self.targets,
            "score": [None if one is None else one.score for one in ordered],
            "steps": [None if one is None else one.steps for one in ordered],
            "preset": plan.recipe.name,
            "size": list(next(iter(self._rendered.values())).levels.shape[1:]),
            "views": plan.views,
            "seed": plan.seed,
            "warm_start": self.warm_start,
        }
        return provenance(values)

    def _say(
        self, trainer: Trainer, rendered: dict[int, Rendered], trouble: Sequence[str], error: Exception | None
    ) -> None:
        """Warn of what went wrong, or raise it."""
        step = trainer.global_step
        if trouble and self.on_error == "raise":
            raise error or RuntimeError(f"FeatureMonitor: after step {step}: {'; '.join(trouble)}")
        if trouble:
            rank_zero_warn(f"FeatureMonitor: after step {step}, and training goes on: {'; '.join(trouble)}")
        for reason in dict.fromkeys(one.reason for one in rendered.values() if one.reason is not None):
            which = self._named([index for index, one in sorted(rendered.items()) if one.reason == reason])
            rank_zero_warn(f"FeatureMonitor: {', '.join(which)}: {reason}")
        cut = [one.steps for one in rendered.values() if one.steps < self._settings.steps]
        if cut:
            rank_zero_warn(
                f"FeatureMonitor: max_seconds={self._settings.seconds:g} ended {len(cut)} of {len(rendered)} pictures before "
                f"{self._settings.steps} steps"
            )

    def _place(self, trainer: Trainer) -> Path:
        return self.folder if self.folder is not None else Path(trainer.default_root_dir) / self.name

    def _save_film(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self._files:
            save_film(self._place(trainer), self._files, len(self._targets))

    def __repr__(self) -> str:
        """Show the constructor, without what is as usual."""
        usual = {key: parameter.default for key, parameter in inspect.signature(FeatureMonitor).parameters.items()}
        more = [f"{key}={value!r}" for key, value in self._given.items() if key != "targets" and value != usual[key]]
        return f"FeatureMonitor({', '.join([repr(self._given['targets']), *more])})"


def _one_of(argument: str, value: Any, known: Sequence[str]) -> str:
    if value not in known:
        raise unknown(argument, "choice", str(value), known)
    return str(value)


def _makes_modules_later(module: LightningModule) -> bool:
    """Say whether the module has its own `setup` or `configure_model`, which Lightning calls after ours."""
    kind = type(module)
    return any(getattr(kind, hook, None) is not getattr(LightningModule, hook) for hook in ("setup", "configure_model"))
