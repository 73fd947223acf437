"""Pictures on disk while they form."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from featviz_pl.io import save_animation, save_png
from featviz_pl.io.sheets import sheet
from featviz_pl.numerics.checks import whole_number
from featviz_pl.objectives.target_syntax import picture_names
from featviz_pl.training import FeatureVisualization
from featviz_pl_callbacks._support import visualization
from featviz_pl_callbacks.image_logging import log_images


class ImageSnapshot(Callback):
    """Save the pictures every so many steps and at the end, with their origin; join the snapshots into an animation.

    Several pictures go into one contact sheet for each snapshot, and at the end also into files of their own. What was
    done is kept when the run is interrupted or fails. Only the first process writes. Loggers that take images get each
    snapshot too.

    Args:
        folder: where the files go; made when missing.
        every: a number of steps, or the list of steps at which to save, each 1 or more.
        animate: join the snapshots at the end.

    Raises:
        ValueError: when a step is below 1, or, at setup, when the folder cannot be written.

    Example:
        >>> ImageSnapshot("out", every=[32, 128, 512]).at(128), ImageSnapshot("out", every=32).at(48)
        (True, False)

    Writes:
        ==========================  ==================================  =============================================
        file                        content                             when
        ==========================  ==================================  =============================================
        ``step-000032.png``         the picture, or a sheet of all      at each listed step
        ``final.png``               the same, with the score            at the end, on an interrupt and on a failure
        ``final-<picture>.png``     each picture alone, of several      with ``final.png``
        ``animation.webp``          the snapshots, then the last state  with ``final.png``
        ==========================  ==================================  =============================================
    """

    def __init__(self, folder: str | os.PathLike[str], every: int | Sequence[int] = 64, animate: bool = True) -> None:
        super().__init__()
        self.folder = Path(folder)
        steps = every if isinstance(every, Sequence) else [every]
        self.steps = tuple(whole_number("every", step) for step in steps)
        self.periodic = not isinstance(every, Sequence)
        self.animate = animate
        self._latest = 0
        self._frames: list[str] = []

    def at(self, step: int) -> bool:
        """Say whether the state after `step` optimizer steps is saved."""
        return step > 0 and (step % self.steps[0] == 0 if self.periodic else step in self.steps)

    @property
    def state_key(self) -> str:
        """Tell two instances apart in a checkpoint."""
        return self._generate_state_key(folder=str(self.folder), every=list(self.steps))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"latest": self._latest, "frames": list(self._frames)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._latest, self._frames = int(state_dict["latest"]), list(state_dict["frames"])

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        visualization(self, pl_module)
        self._latest, self._frames = 0, []
        if trainer.is_global_zero:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"folder: cannot make {str(self.folder)!r}: {error.strerror or error}") from error
            if not os.access(self.folder, os.W_OK):
                raise ValueError(f"folder: cannot write into {str(self.folder)!r}")

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._latest or not self.at(step):  # an accumulated step ends several batches
            return
        self._latest = step
        if trainer.is_global_zero:
            module = visualization(self, pl_module)
            images = module.images
            name = f"step-{step:06d}.png"
            save_png(sheet(images), self.folder / name, module.sheet_provenance(steps=step))
            self._frames.append(name)
            log_images(trainer, "pictures", images, caption=module.targets)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, visualization(self, pl_module))

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.global_step > 0:
            with suppress(OSError):  # a full disk must not hide what went wrong first
                self._finish(
                    trainer, visualization(self, pl_module), failed=not isinstance(exception, KeyboardInterrupt)
                )

    def _finish(self, trainer: Trainer, module: FeatureVisualization, failed: bool = False) -> None:
        if not trainer.is_global_zero:
            return
        step, images = trainer.global_step, module.images
        # A network that has just failed is not asked for a score: the pictures matter more.
        scores = [None] * len(images) if failed else module.scores().tolist()
        save_png(sheet(images), self.folder / "final.png", module.sheet_provenance(steps=step, score=scores))
        if len(images) > 1:
            for index, name in enumerate(picture_names(module.targets)):
                save_png(
                    images[index],
                    self.folder / f"final-{name}.png",
                    module.provenance(index, steps=step, score=scores[index]),
                )
        frames = [self.folder / name for name in [*self._frames, "final.png"] if (self.folder / name).is_file()]
        if self.animate and len(frames) > 1:
            save_animation(frames, self.folder / "animation.webp")
