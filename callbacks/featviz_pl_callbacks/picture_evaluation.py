"""Evaluate the pictures of a run at its end."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from typing_extensions import override

from featviz_pl.io import as_saved
from featviz_pl.metrics import Evaluation, evaluate, judge_classes
from featviz_pl.metrics.evaluation import EvaluatedPicture, check_photos, class_of, is_unit, target_of
from featviz_pl.networks import FrozenNetwork, as_network, load_network
from featviz_pl.numerics.checks import whole_number
from featviz_pl.training import FeatureVisualization
from featviz_pl_callbacks._support import (
    constructor_arguments,
    constructor_repr,
    make_writable,
    short_repr,
    visualization,
)


class PictureEvaluation(Callback):
    """Evaluate the pictures at the end of a run with `featviz_pl.metrics.evaluate`, as they are saved.

    The first process evaluates, logs and writes; the run and its pictures stay the same. Impossible arguments raise at
    setup; an error at the end is a warning. Interrupted runs are not evaluated.

    Args:
        folder: for the table; created when missing. Nothing is written unless given.
        judge: an independent classifier, by name, or a network.
        judge_weights: of a judge by name; see `load_network`.
        photos: folder of photos to compare with.
        activations: file of the photos' activations, from ``featviz stats``; measured unless given. It also selects
            the photos of the folder.
        views: number of held-out views, 1 or more.
        limit: number of photos, evenly spread; all unless given.
        workers: number of additional processes that read photos.

    Raises:
        ValueError: at setup, when the judge does not have a class, there are no photos, the activations are of other
            photos, layers or networks, or the folder cannot be written.

    Example:
        >>> from featviz_pl.images import FourierImage
        >>> callback = PictureEvaluation(views=2)
        >>> quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False)
        >>> trainer = Trainer(max_steps=2, enable_checkpointing=False, callbacks=[callback], **quiet)
        >>> trainer.fit(FeatureVisualization(nn.Conv2d(3, 4, 3), "output:2", size=48))
        >>> callback.result.rows[0]["target"], sorted(callback.result.summary)[:3]
        ('output:2', ['clipped', 'color_distance', 'held_out'])

    Logs: ``evaluation/<column>``, the mean over the pictures (of ``score`` and ``held_out`` only where all targets are
    the same), and ``evaluation/<name>`` for metrics of the whole set. Keeps ``result``, the `Evaluation`, in the first
    process.

    Writes:
        ===================  ==================================  ==========
        file                 content                             when
        ===================  ==================================  ==========
        ``evaluation.json``  rows, means, settings, notes        at the end
        ``evaluation.csv``   the rows                            at the end
        ===================  ==================================  ==========
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        judge: str | nn.Module | FrozenNetwork | None = None,
        *,
        judge_weights: str = "DEFAULT",
        photos: str | os.PathLike[str] | None = None,
        activations: str | os.PathLike[str] | None = None,
        views: int = 16,
        limit: int | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self._arguments = constructor_arguments(locals())
        self.folder = None if folder is None else Path(folder)
        self.judge, self.judge_weights = judge, judge_weights
        self.photos = None if photos is None else os.fspath(photos)
        self.activations = None if activations is None else os.fspath(activations)
        self.views = whole_number("views", views)
        self.limit = None if limit is None else whole_number("limit", limit)
        self.workers = whole_number("workers", workers, least=0)
        self.result: Evaluation | None = None
        self._loaded: FrozenNetwork | None = None  # the judge by name, during a run

    @property
    def state_key(self) -> str:
        """Key in checkpoints, different for two instances."""
        names = ("folder", "judge", "photos", "views", "limit")
        return self._generate_state_key(**{name: short_repr(self._arguments[name]) for name in names})

    def __repr__(self) -> str:
        """Return the constructor call, without arguments that equal their defaults."""
        return constructor_repr(self, self._arguments)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the loaded judge."""
        return {**vars(self), "_loaded": None}

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module = visualization(self, pl_module)
        self.result = self._loaded = None
        refusal: Exception | None = None
        if trainer.is_global_zero:
            try:
                self._check(module)
            except Exception as error:
                refusal = error
        refusal = trainer.strategy.broadcast(refusal)  # all raise: a process that went on would wait for the first
        if refusal is not None:
            raise refusal

    def _check(self, module: FeatureVisualization) -> None:
        """Refuse before the run what could not be measured after it."""
        pictures = (
            EvaluatedPicture("", torch.empty(0), target, module.provenance(index))
            for index, target in enumerate(module.targets)
        )
        targets = [target for picture in pictures if (target := target_of(picture, from_file=True)) is not None]
        activations = check_photos(self.photos, self.activations, self.limit)
        if activations is not None:
            activations.check(module.network)
            for target in filter(is_unit, targets):
                activations.of(target)
        judge = self._judge()
        if judge is not None:
            classes = [class_of(target, module.network) for target in targets]
            judge_classes([name for name in classes if name is not None], judge.classes)
        if self.folder is not None:
            make_writable(self.folder)

    def _judge(self) -> FrozenNetwork | None:
        if isinstance(self.judge, str):
            if self._loaded is None:
                self._loaded = load_network(self.judge, self.judge_weights)
            return self._loaded
        return None if self.judge is None else as_network(self.judge)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        module = visualization(self, pl_module)
        try:
            self.result = self._measure(module)
            self._report(trainer, self.result)
        except Exception as error:  # the run must not fail for it
            warnings.warn(
                f"PictureEvaluation: the pictures could not be measured ({type(error).__name__}: {error})", stacklevel=2
            )
        finally:
            self._loaded = None

    def _measure(self, module: FeatureVisualization) -> Evaluation:
        images = as_saved(module.images)
        pictures = [
            EvaluatedPicture(str(index), image, target, module.provenance(index))
            for index, (image, target) in enumerate(zip(images, module.targets))
        ]
        return evaluate(
            pictures,
            module.network,
            judge=self._judge(),
            photos=self.photos,
            activations=self.activations,
            views=self.views,
            limit=self.limit,
            workers=self.workers,
        )

    def _report(self, trainer: Trainer, result: Evaluation) -> None:
        means: dict[str, Any] = {f"evaluation/{k}": value for k, value in result.summary.items() if value is not None}
        for logger in trainer.loggers:
            logger.log_metrics(means, step=trainer.global_step)
        if self.folder is not None:
            for name in ("evaluation.json", "evaluation.csv"):
                result.save(self.folder / name)
