"""What the pictures of a run are worth, measured at its end."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from typing_extensions import override

from featviz_pl._evaluated_pictures import EvaluatedPicture
from featviz_pl._evaluation_table import class_of
from featviz_pl.evaluation import Evaluation, evaluate
from featviz_pl.io import as_saved
from featviz_pl.metrics import judge_classes, load_activations
from featviz_pl.module import FeatureVisualization
from featviz_pl.networks import FrozenNetwork, as_network, load_network
from featviz_pl.numerics._checks import whole_number
from featviz_pl.statistics.measuring import photo_paths
from featviz_pl_callbacks._support import visualization


class PictureEvaluation(Callback):
    """Measure at the end of a run what its pictures are worth: `featviz_pl.evaluation.evaluate` on them as they are saved.

    The first process measures, logs and writes; the run and its pictures are as they would be without. What can be refused is refused
    at setup; should the measuring fail at the end, there is a warning, and the run is as good as before. Runs that were interrupted
    are not measured.

    Args:
        folder: where the table goes; made when missing. Nothing is written unless given.
        judge: an independent classifier, by name, or a network.
        judge_weights: of a judge by name; see `load_network`.
        photos: folder of photos to compare with.
        activations: file of the photos' activations, from ``featviz stats``; measured unless given.
        views: number of held-out views, 1 or more.
        limit: of the photos, evenly spread; all unless given.
        workers: processes that read photos beside this one.

    Raises:
        ValueError: at setup, when the judge does not have a class, there are no photos, or the folder cannot be written.

    Example:
        >>> from featviz_pl.images import FourierImage
        >>> callback = PictureEvaluation(views=2)
        >>> quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        >>> trainer = Trainer(max_steps=2, accelerator="cpu", callbacks=[callback], **quiet)
        >>> trainer.fit(FeatureVisualization(nn.Conv2d(3, 4, 3), "output:2", FourierImage(48)))
        >>> callback.result.rows[0]["target"], sorted(callback.result.summary)[:3]
        ('output:2', ['clipped', 'color_distance', 'held_out'])

    Logs: ``evaluation/<column>``, the mean over the pictures, and ``evaluation/<name>`` of what is measured of all together, once.
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

    @property
    def state_key(self) -> str:
        """Tell two instances apart in a checkpoint."""
        judge = self.judge if isinstance(self.judge, str) else repr(self.judge)
        return self._generate_state_key(folder=str(self.folder), judge=judge, photos=self.photos, views=self.views, limit=self.limit)

    def __repr__(self) -> str:
        """Return the constructor."""
        folder = None if self.folder is None else str(self.folder)
        return (
            f"PictureEvaluation(folder={folder!r}, judge={self.judge!r}, judge_weights={self.judge_weights!r}, photos={self.photos!r}, "
            f"activations={self.activations!r}, views={self.views}, limit={self.limit}, workers={self.workers})"
        )

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module = visualization(self, pl_module)
        self.result = None
        refusal: Exception | None = None
        if trainer.is_global_zero:
            try:
                self._check(module)
            except Exception as error:
                refusal = error
        refusal = trainer.strategy.broadcast(refusal)  # every process hears it: one that waited for the first would hang
        if refusal is not None:
            raise refusal

    def _check(self, module: FeatureVisualization) -> None:
        """Refuse before the run what could not be measured after it."""
        if self.photos is not None:
            photo_paths(self.photos, self.limit)
        if self.activations is not None:
            load_activations(self.activations).check(module.network)
        judge = self._judge()
        if judge is not None:
            classes = [class_of(target, module.network) for target in module.targets]
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
            return load_network(self.judge, self.judge_weights)
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
            warnings.warn(f"PictureEvaluation: the pictures could not be measured ({type(error).__name__}: {error})", stacklevel=2)

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
        means: dict[str, Any] = {f"evaluation/{name}": value for name, value in found.summary.items() if value is not None}
        for logger in trainer.loggers:
            logger.log_metrics(means, step=max(0, trainer.global_step - 1))  # the axis on which Lightning logs the last step
        if self.folder is not None:
            for name in ("evaluation.json", "evaluation.csv"):
                found.save(self.folder / name)
