"""``featviz fit``: everything, as a Lightning configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from featviz_pl import callbacks, images, networks, objectives, transforms
from featviz_pl.module import FeatureVisualization

# Importing the public classes lets a configuration call them by their short names.
SHORT_NAMES = [name for room in (callbacks, images, networks, objectives, transforms) for name in room.__all__]


class FeatvizCLI(LightningCLI):
    """Run a `FeatureVisualization` from YAML and flags."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Offer what makes sense for a picture."""
        return {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"}}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse what was given; Lightning's own warns where `featviz fit` hands on the command line of the process."""
        self.config = parser.parse_object(args) if isinstance(args, (dict, Namespace)) else parser.parse_args(args)

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
        save_config_callback=None,  # without a logger it would write into the current folder
        trainer_defaults=defaults,
        parser_kwargs={"prog": "featviz"},
    )
    return 0
