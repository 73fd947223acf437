"""The configuration of a run beside what the run writes."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from typing_extensions import override

from featviz_pl.callbacks import FeatureWriter, ImageSnapshot
from featviz_pl.io.files import write_whole

NAME = "config.yaml"


class SavedConfig(SaveConfigCallback):
    """Save the whole configuration as ``config.yaml`` in every folder into which the run writes pictures.

    Without such a folder it goes to the Trainer's folder, if the run writes anything there: logs, checkpoints. The
    configuration of an earlier run with other settings is kept as ``config-1.yaml``, ``config-2.yaml``, …: its pictures
    may still be there.
    """

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folders = picture_folders(trainer) or other_folders(
            trainer
        )  # in every process: Lightning's folder is agreed upon
        if trainer.is_global_zero:
            text = self.parser.dump(self.config, skip_none=False)
            for folder in folders:
                keep_config(folder / NAME, text)


def picture_folders(trainer: Trainer) -> list[Path]:
    """Return the folders into which the callbacks of a run write its pictures."""
    found = [callback.folder for callback in trainer.callbacks if isinstance(callback, (ImageSnapshot, FeatureWriter))]  # type: ignore[attr-defined]
    return list(dict.fromkeys(found))


def other_folders(trainer: Trainer) -> list[Path]:
    """Return the Trainer's folder, if something is written there."""
    folder = trainer.log_dir
    used = trainer.loggers or trainer.checkpoint_callbacks or trainer.default_root_dir != str(Path.cwd())
    return [Path(folder)] if used and folder is not None else []


def keep_config(path: Path, text: str) -> None:
    """Write a configuration, whole or not at all; another one that is there gets a number."""
    try:
        earlier = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        earlier = text
    if earlier != text:
        number = next(
            number for number in range(1, 1 << 31) if not path.with_name(f"{path.stem}-{number}{path.suffix}").exists()
        )
        path.replace(path.with_name(f"{path.stem}-{number}{path.suffix}"))
    write_whole(path, text)
