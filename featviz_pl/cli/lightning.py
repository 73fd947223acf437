"""``featviz fit`` and ``featviz predict``: everything, as a Lightning configuration."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from featviz_pl.callbacks import FeatureWriter, StepProgressBar, SweepProgressBar
from featviz_pl.cli.config_parser import ConfigError, ConfigFile, ConfigParser, first_reason
from featviz_pl.cli.config_saving import SavedConfig, picture_folders
from featviz_pl.cli.exit_codes import STOPPED
from featviz_pl.cli.sweep import report_failures, report_stopped, require_complete
from featviz_pl.presets import recipe
from featviz_pl.sweep import FeatureSweep, FeatureTargets
from featviz_pl.training import FeatureVisualization
from featviz_pl.training.stopping import run_until_stopped

_UNSAVED = "no callback has saved the pictures so far"
_NO_SNAPSHOT = "no picture was saved: trainer.callbacks has no ImageSnapshot"
# What Lightning's methods take that is the configuration's own, or no matter of pictures.
_HIDDEN_ARGUMENTS = {
    "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
    "predict": {"model", "dataloaders", "datamodule", "return_predictions", "ckpt_path", "weights_only"},
}
_HELP = re.compile(r"-h$|--help$|--(model|data)\.[\w.]+\.help\b")  # of all, or of a class that the module takes
_BAR = {"fit": StepProgressBar, "predict": SweepProgressBar}
_DESCRIPTION = {
    "fit": "Optimise pictures of a network's units: a FeatureVisualization, run by Lightning's Trainer.",
    "predict": "Render many units of a network: a FeatureSweep over FeatureTargets, run by Lightning's Trainer.",
}
_EPILOG = (
    "Classes are given by their names, or as package.module.Class: your own subclasses work everywhere, also as model.class_path. "
    "--KEY.help CLASS shows the arguments of one, such as --trainer.callbacks.help Augmentation; --print_config the whole configuration."
)


class FeatvizCLI(LightningCLI):
    """Build a module, its data and a Trainer from YAML and flags, and run one method of the Trainer.

    Args:
        method: ``"fit"`` or ``"predict"``.
        model: the module's class; a configuration may name a subclass.
        data: the class of its data, likewise, where it needs any.
        args: the command line, or a configuration as a dictionary; the command line of the process unless given.
    """

    def __init__(
        self,
        method: str,
        model: type[LightningModule],
        data: type[LightningDataModule] | None = None,
        args: ArgsType = None,
    ) -> None:
        self.method, self._takes_data = method, data is not None
        given = sys.argv[1:] if args is None else args
        # Help lists the arguments of the library's own class; a run takes those of any subclass, which is another kind
        # of argument.
        self._helps = isinstance(given, list) and any(map(_HELP.match, given))
        super().__init__(
            model,
            data,
            args=args,
            run=False,
            seed_everything_default=False,  # every draw has its own seed; the global generators stay as they are
            save_config_callback=SavedConfig,
            trainer_defaults={"logger": False, "enable_checkpointing": False, "enable_model_summary": False},
            parser_kwargs={
                "prog": f"featviz {method}",
                "description": _DESCRIPTION[method],
                "epilog": _EPILOG,
                "dump_header": [f"featviz {method} --config config.yaml", f"featviz_pl=={version('featviz_pl')}"],
            },
            subclass_mode_model=not self._helps,
            subclass_mode_data=not self._helps,
            auto_configure_optimizers=False,  # the module has its own, as model.optimizer
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make a parser that reads files of configuration."""
        parser = ConfigParser(**kwargs)
        parser.add_argument(
            "-c", "--config", action=ConfigFile, help="file of a configuration, of several the later ones win"
        )
        return parser

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add module, data and Trainer, the module first; data only where they are not the module's own."""
        classes = {"model": self._model_class, **({"data": self._datamodule_class} if self._takes_data else {})}
        for key, chosen in classes.items():
            parser.add_lightning_class_args(chosen, key, subclass_mode=not self._helps)
            if not self._helps:  # so that a configuration names a class only where it wants another
                parser.set_defaults({key: {"class_path": f"{chosen.__module__}.{chosen.__qualname__}"}})
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in self.trainer_defaults.items()})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let one number of steps decide how long the Trainer runs and how long a cosine is."""
        self._offered = parser.add_method_arguments(
            self.trainer_class, self.method, skip=set(_HIDDEN_ARGUMENTS[self.method])
        )
        if self.method == "fit":
            model = "model" if self._helps else "model.init_args"
            sources = (f"{model}.steps", f"{model}.preset")
            parser.link_arguments(sources, "trainer.max_steps", compute_fn=_steps)
            if not self._helps:
                parser.link_arguments(sources, f"{model}.scheduler.init_args.T_max", compute_fn=_steps)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments; Lightning's own method warns where `featviz` hands on the command line of the process."""
        if isinstance(args, (dict, Namespace)):
            self.config = parser.parse_object(args)
        else:
            parser.check_linked_flags(sys.argv[1:] if args is None else args)  # type: ignore[attr-defined]
            self.config = parser.parse_args(args)
        self._check_lr_conflict()

    def _check_lr_conflict(self) -> None:
        """Refuse a learning rate beside an optimizer, which has its own."""
        arguments = (self.config.get("model") or {}).get("init_args") or {}
        lr, optimizer = arguments.get("lr"), arguments.get("optimizer")
        if optimizer is not None and lr is not None:
            raise ConfigError(f"model.lr: {lr} has no effect with model.optimizer; give model.optimizer.lr")

    def instantiate_classes(self) -> None:
        """Make module, data, callbacks and Trainer; where an argument is refused, say why in one line."""
        try:
            super().instantiate_classes()
        except (TypeError, ValueError) as error:
            raise ConfigError(first_reason(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add a progress bar of this library on a terminal, and none elsewhere, unless the configuration says otherwise."""
        config = self._get(self.config_init, "trainer")
        listed = config.get("callbacks") or []
        own = list(listed) if isinstance(listed, list) else [listed]
        if config.get("enable_progress_bar") is None and not any(isinstance(callback, ProgressBar) for callback in own):
            shown = sys.stderr.isatty() and not config.get("barebones")
            kwargs = {
                "enable_progress_bar": shown,
                "callbacks": [*own, *([_BAR[self.method]()] if shown else [])],
                **kwargs,
            }
        return super().instantiate_trainer(**kwargs)

    def run(self, **more: Any) -> signal.Signals | None:
        """Run the Trainer's method, and return the signal that stopped it, or None."""
        named = {name: self._get(self.config_init, name) for name in self._offered}
        if self.datamodule is not None:
            named["datamodule"] = self.datamodule
        if self.method == "fit":
            named["weights_only"] = True  # a checkpoint from anywhere must not run code
        method = getattr(self.trainer, self.method)
        return run_until_stopped(self.trainer, lambda: method(self.model, **named, **more))


def _steps(steps: int | None, preset: Any) -> int:
    """Return the number of steps of a run."""
    return recipe(preset).steps if steps is None else steps


def fit(args: Sequence[str] | ArgsType = None) -> int:
    """Run ``featviz fit …`` with LightningCLI and return its exit code: 0, 130 for Ctrl-C, or 143 for a termination.

    Args:
        args: the command line after the command; that of the process unless given.
    """
    cli = FeatvizCLI("fit", FeatureVisualization, args=list(args) if isinstance(args, Sequence) else args)
    began = time.perf_counter()
    stopped = cli.run()
    trainer, model = cli.trainer, cli.model
    if stopped == signal.SIGINT and trainer.global_step == 0:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        folders = ", ".join(map(str, picture_folders(trainer)))
        if stopped:
            saved = f"the pictures so far are in {folders}" if folders and trainer.global_step > 0 else _UNSAVED
            print(f"featviz fit: {STOPPED[stopped]} after {model.steps_taken} steps; {saved}", file=sys.stderr)
        else:
            what = model.targets[0] if len(model.targets) == 1 else f"{len(model.targets)} pictures"
            done = f"{what}, {model.steps_taken} steps in {time.perf_counter() - began:.1f} s"
            print(f"{folders}: {done}" if folders else f"{done}; {_NO_SNAPSHOT}")
    return 128 + stopped if stopped else 0


def predict(args: Sequence[str] | ArgsType = None) -> int:
    """Run ``featviz predict …`` with LightningCLI and return its exit code: 0, 3 when units failed, 130 for Ctrl-C, or 143.

    Args:
        args: the command line after the command; that of the process unless given.

    Raises:
        ValueError: when no callback would keep the pictures, or units are missing at the end.
    """
    cli = FeatvizCLI("predict", FeatureSweep, FeatureTargets, list(args) if isinstance(args, Sequence) else args)
    writers = [callback for callback in cli.trainer.callbacks if isinstance(callback, BasePredictionWriter)]  # type: ignore[attr-defined]
    if not writers:
        raise ValueError("trainer.callbacks: none of them keeps the pictures; add FeatureWriter with a folder")
    writer = next((writer for writer in writers if isinstance(writer, FeatureWriter)), None)
    if writer is not None and cli.trainer.is_global_zero:  # before other processes start: it is refused once
        writer.claim(cli.trainer, cli.model, cli.datamodule)
    began = time.perf_counter()
    stopped = cli.run(return_predictions=False)
    if not cli.trainer.is_global_zero:
        return 128 + stopped if stopped else 0
    if stopped:
        return report_stopped("featviz predict", stopped)
    if writer is None:
        return 0
    summary = require_complete(writer)
    counts = f"{summary.rendered + summary.skipped} pictures, {summary.rendered} of them new"
    print(f"{writer.folder}: {counts}, in {time.perf_counter() - began:.1f} s")
    return report_failures("featviz predict", summary)
