"""Many random views of the pictures at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from featviz_pl.numerics.checks import size_pair, whole_number
from featviz_pl.training import FeatureVisualization
from featviz_pl.transforms import Compose, Schedule, Transform, Views, view_preset
from featviz_pl.transforms.schedule import schedule_named
from featviz_pl_callbacks._support import visualization


class Augmentation(Callback):
    """Show the pictures through random, differentiable transforms: the regulariser of feature visualization.

    The callback owns the transforms, the number of views and how their strength changes over the run; it hands the
    module a pipeline, which the module applies. Every view of every picture has a draw of its own, made from the seed,
    the step and the view's number alone, so a resumed run and a run on several devices see the same views. Without this
    callback the pictures are seen as they are.

    Args:
        transforms: a transform, a list of them, or the name of a preset (``"lucid"``, ``"article"``); those of the
            module's recipe unless given.
        views: in total, over all devices; the recipe's or the preset's number unless given, 1 for other transforms.
        schedule: strength of the views over the run: ``"linear"`` and ``"cosine"`` rise from 0 to 1, ``"warmup"`` rises
            over the first tenth, or a `Schedule`. None is full strength throughout.
        size: of the views, one number or (height, width); the recipe's or that of the pictures unless given.

    Raises:
        ValueError: when a name is unknown or a number impossible, or, at setup, when the run has two of these
            callbacks.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(max_steps=64, callbacks=[Augmentation("article", views=8, schedule="cosine")], logger=False)
        >>> trainer.callbacks[0]
        Augmentation('article', views=8, schedule=Cosine(start=0, end=1), size=None)

    Logs: nothing.
    """

    def __init__(
        self,
        transforms: str | Transform | Sequence[Transform] | None = None,
        views: int | None = None,
        schedule: str | Schedule | None = None,
        size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.name = transforms if isinstance(transforms, str) else None
        self.size = None if size is None else size_pair("size", size)
        self.count = None if views is None else whole_number("views", views)
        self.schedule = schedule_named(schedule)
        self._views: Views | None = None  # the recipe's
        if isinstance(transforms, str):
            self._views = Views(*view_preset(transforms))
        elif transforms is not None:
            self._views = Views(Compose([transforms] if isinstance(transforms, Transform) else list(transforms)))

    def views_for(self, model: FeatureVisualization) -> Views:
        """Return the views of a run of this module."""
        views = model.recipe.make_views(model.network) if self._views is None else self._views
        transforms = views.transforms if self.size is None else Compose(views.transforms.listed(), self.size)
        return Views(transforms, self.count or views.count, self.schedule)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module = visualization(self, pl_module)
        others = [other for other in trainer.callbacks if isinstance(other, Augmentation) and other is not self]  # type: ignore[attr-defined]
        if others:
            raise ValueError("the Trainer has two Augmentation callbacks; put all transforms into one")
        module.set_views(self.views_for(module))

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        visualization(self, pl_module).set_views(None)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        visualization(self, pl_module).set_views(None)  # teardown does not run after an exception

    def __repr__(self) -> str:
        """Show what is applied."""
        transforms: Any = self.name if self.name is not None or self._views is None else self._views.transforms
        return f"Augmentation({transforms!r}, views={self.count}, schedule={self.schedule!r}, size={self.size})"
