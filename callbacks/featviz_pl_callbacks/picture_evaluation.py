"""What the pictures of a run are worth, measured at its end."""

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
from featviz_pl_callbacks._support import visualization


class PictureEvaluation(Callback):
    """Measure at the end of a run what its pictures are worth: `featviz_pl.metrics.evaluate` on them as they are saved.

    The first process measures, logs and writes; the run and its pictures are as they would be without. What can be
    refused is refused at setup; should the measuring fail at the end, there is a warning, and the run is as good as
    before. Runs that were interrupted are not measured.

    Args:
        folder: where the table goes; made when missing. Nothing is written unless given.
        judge: an independent classifier, by name, or a network.
        judge_weights: of a judge by name; see `load_network`.
        photos: folder of photos to compare with.
        activations: file of the photos' activations, from ``featviz stats``; measured unless given. Of the folder,
            exactly their photos are then compared.
        views: number of held-out views, 1 or more.
        limit: of the photos, evenly spread; all unless given.
        workers: processes that read photos beside this one.

    Raises:
        ValueError: at setup, when the judge does not have a class, there are no photos, the activations are of other
            photos, layers or networks, or the folder cannot be written.

    Example:
        >>> from featviz_pl.images import FourierImage
        >>> callback = PictureEvaluation(views=2)
        >>> quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        >>> trainer = Trainer(max_steps=2, accelerator="cpu", callbacks=[callback], **quiet)
        >>> trainer.fit(FeatureVisualization(nn.Conv2d(3, 4, 3), "output:2", FourierImage(48)))
        >>> callback.result.rows[0]["target"], sorted(callback.result.summary)[:3]
        ('output:2', ['clipped', 'color_distance', 'held_out'])

    Logs: ``evaluation/<column>``, the mean over the pictures (of ``score`` and ``held_out`` none where targets differ),
        and
    ``evaluation/<name>`` of what is measured of all together, once.
    Keeps ``result``, the `Evaluation`, in the first process.

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
        judge_weights: str = "DEFAULT",
        photos: str | os.PathLike[str] | None = None,
        activations: str | os.PathLike[str] | None = None,
        views: int = 16,
        limit: int | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.folder = None if folder is None else Path(folder)
        self.judge, self.judge_weights = judge, judge_weights
        self.photos = None if photos is None else os.fspath(photos)
        self.activations = None if activations is None else os.fspath(activations)
        self.views = whole_number("views", views)
        self.limit = None if limit is None else whole_number("limit", limit)
        self.workers = whole_number("workers", workers, least=0)
        self.result: Evaluation | None = None
        self._loaded: FrozenNetwork | None = None  # a judge by name, from setup to the end of the run

    @property
    def state_key(self) -> str:
        """Tell two instances apart in a checkpoint."""
        return self._generate_state_key(
            folder=str(self.folder), judge=self._judge_name(), photos=self.photos, views=self.views, limit=self.limit
        )

    def __repr__(self) -> str:
        """Return the constructor."""
        folder = None if self.folder is None else str(self.folder)
        return (
            f"PictureEvaluation(folder={folder!r}, judge={self._judge_name()}, judge_weights={self.judge_weights!r}, "
            f"photos={self.photos!r}, activations={self.activations!r}, views={self.views}, limit={self.limit}, workers={self.workers})"
        )

    def _judge_name(self) -> str:
        """Return the judge in few words: one by name as it is given, a network by what it is called."""
        if self.judge is None or isinstance(self.judge, str):
            return repr(self.judge)
        return f"<{self.judge.name if isinstance(self.judge, FrozenNetwork) else type(self.judge).__name__}>"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be loaded again."""
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
        refusal = trainer.strategy.broadcast(
            refusal
        )  # every process hears it: one that waited for the first would hang
        if refusal is not None:
            raise refusal

    def _check(self, module: FeatureVisualization) -> None:
        """Refuse before the run what could not be measured after it."""
        shown = [
            EvaluatedPicture("", torch.empty(0), target, module.provenance(index))
            for index, target in enumerate(module.targets)
        ]
        targets = [target for target in (target_of(picture, from_file=True) for picture in shown) if target is not None]
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
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"folder: cannot make {str(self.folder)!r}: {error.strerror or error}") from error
            if not os.access(self.folder, os.W_OK):
                raise ValueError(f"folder: cannot write into {str(self.folder)!r}")

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
        except Exception as error:  # the pictures matter more than what they are worth
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

    def _report(self, trainer: Trainer, found: Evaluation) -> None:
        means: dict[str, Any] = {
            f"evaluation/{name}": value for name, value in found.summary.items() if value is not None
        }
        for logger in trainer.loggers:
            logger.log_metrics(
                means, step=max(0, trainer.global_step - 1)
            )  # the axis on which Lightning logs the last step
        if self.folder is not None:
            for name in ("evaluation.json", "evaluation.csv"):
                found.save(self.folder / name)
