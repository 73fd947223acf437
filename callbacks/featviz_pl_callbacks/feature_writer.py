"""The pictures of a sweep on disk: one file for each unit, a manifest, and a contact sheet for each layer."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from typing_extensions import override

from featviz_pl.io import save_png
from featviz_pl.io.file_sheets import save_sheet
from featviz_pl.io.files import layer_folder
from featviz_pl.numerics.digest import digest
from featviz_pl.objectives import Target
from featviz_pl.sweep import FeatureSweep, FeatureTargets, RenderedBatch
from featviz_pl.sweep.folder import Entry, SweepFolder, finished_entry, picture_path, read_manifest, read_origin
from featviz_pl.sweep.targets import by_layer


@dataclass
class SweepSummary:
    """Say how a sweep ended, for the units that it was asked for.

    Args:
        rendered: pictures that this run made.
        skipped: pictures that were there already.
        failed: units that have failed, with their reasons, those of earlier runs included.
        missing: units that have neither picture nor reason: the run was cut short.
        scores: of all pictures that are there.
    """

    rendered: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


class _Neither:
    """Lightning asks writers for their interval, to look for batch indices, which only its own DataLoaders have, and warns."""

    on_batch = on_epoch = False


class FeatureWriter(BasePredictionWriter):
    """Save every picture of a `FeatureSweep` as soon as its batch is done, and go on where an earlier run was stopped.

    Pictures are whole or absent, and carry their origin. What is finished is not rendered again, once its file has been
    read whole and its origin fits. Units that failed are in the manifest with their reason; they are not tried again.
    Two sweeps at once in one folder, and other settings than those of the pictures there, are refused.

    Args:
        folder: where the files go; made when missing.
        overwrite: remove the pictures and the manifest of an earlier sweep in the folder, and begin anew.

    Raises:
        ValueError: at setup, when the folder cannot be written, is in use, or holds pictures of other settings.
        TypeError: at setup, when there is no `FeatureSweep` with `FeatureTargets`.

    Example:
        >>> import tempfile, torch
        >>> from featviz_pl.sweep.module import FeatureSweep, FeatureTargets
        >>> quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        >>> sweep = FeatureSweep(torch.nn.Conv2d(3, 4, 3), steps=2, size=16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = FeatureWriter(folder)
        ...     trainer = Trainer(accelerator="cpu", callbacks=[writer], **quiet)
        ...     _ = trainer.predict(sweep, FeatureTargets("output:all", batch_size=2), return_predictions=False)
        ...     print(sorted(path.name for path in writer.folder.rglob("*.*") if path.is_file() and path.name != ".lock"))
        ['0.png', '1.png', '2.png', '3.png', 'manifest.jsonl', 'output.png']

    Writes:
        ===========================================  =======================================================
        ================= file                                         content
        when ===========================================  =======================================================
        ================= ``<layer>/<unit>.png``                       the picture
        after its batch ``<layer>/<unit // 1000>/<unit>.png``        the same, in layers of more than 1,000 units
        after its batch ``manifest.<rank>.jsonl``                    a line for each unit of one process
        after its batch ``manifest.jsonl``                           the settings, and at the end a line for each unit
        begin and end ``<layer>.png``                              all pictures of the layer
        at the end ===========================================  =======================================================
        =================
    """

    def __init__(self, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
        super().__init__("batch")
        self.interval: Any = _Neither
        self.folder = Path(folder)
        self._files = SweepFolder(self.folder)
        self.overwrite = overwrite
        self.summary: SweepSummary | None = None  # of the first process, at the end
        self._settings: Entry | None = None  # of the sweep, batch size included
        self._failed: dict[str, str] = {}
        self._sweep: FeatureSweep | None = None
        self._targets: FeatureTargets | None = None

    def claim(self, trainer: Trainer, sweep: FeatureSweep, targets: FeatureTargets) -> None:
        """Take the folder, as the first process of a sweep, before others are started; at setup this happens by itself.

        Raises:
            ValueError: when the sweep cannot begin.
        """
        targets.bind(sweep, trainer.world_size)
        held = self._files.claim(self.overwrite)
        try:
            size = targets.batch_size if held is None or targets.batch_size is not None else held.get("batch_size")
            if size is None:
                size = sweep.automatic_batch_size(targets, trainer)
            settings = {**sweep.settings(str(trainer.precision)), "batch_size": int(size)}
            self._files.adopt(settings, held)
        except BaseException:
            self._files.close()
            raise
        self._settings = settings

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._sweep, self._targets = _sweep_and_targets(self, trainer, pl_module)
        refusal: Exception | None = None
        finished: frozenset[str] = frozenset()
        if trainer.is_global_zero:
            try:
                if self._settings is None:
                    self.claim(trainer, self._sweep, self._targets)
                _, entries = read_manifest(self.folder)
                self._failed = {target: entry["failed"] for target, entry in entries.items() if "failed" in entry}
                finished = frozenset(filter(self.is_finished, self._targets.targets()))
            except (ValueError, OSError) as error:
                refusal = error
        # Every process hears it: one that waited for a process that has gone would hang, and all must agree on what is
        # left.
        self._settings, finished, refusal = trainer.strategy.broadcast((self._settings, finished, refusal))
        if refusal is not None:
            raise refusal
        assert self._settings is not None
        self._targets.batch_size = self._settings["batch_size"]
        self._targets.finished = finished
        self._files.join(trainer.global_rank)

    def is_finished(self, target: str) -> bool:
        """Say whether a target needs no rendering: its picture is whole and of this sweep, or it has failed before."""
        return target in self._failed or self._finished(target) is not None

    def _finished(self, target: str) -> Entry | None:
        """Return the manifest's line of a picture that is there, read from the picture."""
        assert self._sweep is not None
        assert self._settings is not None
        path = self._path(target)
        origin = read_origin(path)
        expected = {**self._settings, **self._sweep.origin(target)}
        if origin is None or {key: value for key, value in origin.items() if key != "score"} != expected:
            return None
        return finished_entry(self.folder, path, origin)

    def _path(self, target: str) -> Path:
        assert self._targets is not None
        return picture_path(self.folder, target, self._targets.layer_units[Target.parse(target).layer])

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
        self.write_on_batch_end(trainer, pl_module, outputs, None, batch, batch_idx, dataloader_idx)

    @override
    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: RenderedBatch,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        for image, target, origin, failure in zip(
            prediction.images, prediction.targets, prediction.provenance, prediction.failures
        ):
            if failure is None:
                path = save_png(image, self._path(target), origin)
                self._files.record(finished_entry(self.folder, path, origin))
            else:
                self._files.record({"target": target, "failed": failure})

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ended = self._files.wait_for(trainer.world_size if trainer.is_global_zero else 1)
        if not ended:  # a file system without locks
            trainer.strategy.barrier("sweep")
        if trainer.is_global_zero:
            self._finish()
        self._files.close()

    def _finish(self) -> None:
        assert self._targets is not None
        assert self._settings is not None
        targets = self._targets.targets()
        _, entries = read_manifest(self.folder)
        lost = [entry for target in targets if target not in entries and (entry := self._finished(target)) is not None]
        made = self._files.rendered()
        entries = self._files.merge(self._settings, lost)
        asked = {target: entries[target] for target in targets if target in entries}
        pictures = {target for target, entry in asked.items() if "failed" not in entry}
        self.summary = SweepSummary(
            rendered=len(pictures & made),
            skipped=len(pictures - made),
            failed={target: entry["failed"] for target, entry in asked.items() if "failed" in entry},
            missing=[target for target in targets if target not in asked],
            scores=[asked[target]["score"] for target in targets if target in pictures],
        )
        of_layers = by_layer(entries)
        for layer in self._targets.units:
            self._save_sheet(layer, of_layers.get(layer, []), entries)

    def _save_sheet(self, layer: str, own: list[str], entries: dict[str, Entry]) -> None:
        """Lay out all pictures of a layer, unless its sheet shows just these."""
        place = layer_folder(self.folder, layer)
        path = place.with_name(f"{place.name}.png")
        files = {target: self.folder / entries[target]["path"] for target in own if "failed" not in entries[target]}
        files = {
            target: file for target, file in files.items() if file.is_file()
        }  # somebody may delete one that is not asked for again
        shown = digest([json.dumps([[target, entries[target].get("score")] for target in files])])
        if (read_origin(path) or {}).get("pictures") != shown:
            save_sheet(
                [files.get(target) for target in own],
                path,
                {**(self._settings or {}), "target": layer, "pictures": shown},
            )

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._let_go()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._let_go()

    def __repr__(self) -> str:
        """Show where the files go."""
        return f"FeatureWriter({str(self.folder)!r}, overwrite={self.overwrite})"

    def _let_go(self) -> None:
        self._files.close()
        if self._targets is not None:
            self._targets.finished = frozenset()
        self._settings = self._sweep = self._targets = None


def _sweep_and_targets(
    callback: Callback, trainer: Trainer, module: LightningModule
) -> tuple[FeatureSweep, FeatureTargets]:
    """Return what this callback works on, or say what it must be."""
    targets = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(module, FeatureSweep) or not isinstance(targets, FeatureTargets):
        raise TypeError(
            f"{type(callback).__name__} works on a FeatureSweep with FeatureTargets, not on {type(module).__name__} with "
            f"{type(targets).__name__}"
        )
    return module, targets
