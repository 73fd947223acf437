"""``featviz fit``: everything, as a Lightning configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

# Importing the public classes lets a configuration call them by their short names.
from featviz_pl.module import FeatureVisualization


class FeatvizCLI(LightningCLI):
    """Run a `FeatureVisualization` from YAML and flags."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Offer what makes sense for a picture."""
        return {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let the module's steps decide how long the Trainer runs."""
        parser.link_arguments("model.steps", "trainer.max_steps")


def fit(args: Sequence[str] | ArgsType = None) -> int:
    """Run ``featviz fit …`` with LightningCLI.

    Args:
        args: the command line from the subcommand on; that of the process unless given.
    """
    defaults: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    FeatvizCLI(
        FeatureVisualization,
        args=list(args) if isinstance(args, Sequence) else args,
        seed_everything_default=False,  # every draw has its own seed; the global generators stay as they are
        save_config_callback=SaveConfigCallback,
        save_config_kwargs={"overwrite": True, "save_to_log_dir": False},
        trainer_defaults=defaults,
        parser_kwargs={"prog": "featviz"},
    )
    return 0
