"""Helpers that several callbacks share."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from featviz_pl.networks import FrozenNetwork
from featviz_pl.numerics.checks import unknown
from featviz_pl.sweep import FeatureSweep, FeatureTargets
from featviz_pl.training import FeatureVisualization

_CallbackT = TypeVar("_CallbackT", bound=Callback)
Picture = tuple[int, int, int]  # (C, H, W)


def visualization(callback: Callback, module: LightningModule) -> FeatureVisualization:
    """Return the module if it is a `FeatureVisualization`, or raise TypeError."""
    if not isinstance(module, FeatureVisualization):
        raise TypeError(f"{type(callback).__name__} works on a FeatureVisualization, not on {type(module).__name__}")
    return module


def sweep_and_targets(
    callback: Callback, trainer: Trainer, module: LightningModule
) -> tuple[FeatureSweep, FeatureTargets]:
    """Return the module and the data if they are a `FeatureSweep` with `FeatureTargets`, or raise TypeError."""
    targets = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(module, FeatureSweep) or not isinstance(targets, FeatureTargets):
        raise TypeError(
            f"{type(callback).__name__} works on a FeatureSweep with FeatureTargets, not on {type(module).__name__} "
            f"with {type(targets).__name__}"
        )
    return module, targets


def other_instances(callback: _CallbackT, trainer: Trainer, kind: type[_CallbackT]) -> list[_CallbackT]:
    """Return the other callbacks of a class that a Trainer has."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return [instance for instance in callbacks if isinstance(instance, kind) and instance is not callback]


def constructor_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a constructor from its ``locals()``, with paths as texts."""
    arguments = {name: value for name, value in values.items() if name not in ("self", "__class__")}
    return {name: str(value) if isinstance(value, os.PathLike) else value for name, value in arguments.items()}


def constructor_repr(callback: Callback, arguments: Mapping[str, Any]) -> str:
    """Return the constructor call, without arguments that equal their defaults; the first one without its name."""
    parameters = inspect.signature(type(callback)).parameters
    changed = {name: value for name, value in arguments.items() if value != parameters[name].default}
    first = next(iter(arguments))
    texts = [("" if name == first else f"{name}=") + short_repr(value) for name, value in changed.items()]
    return f"{type(callback).__name__}({', '.join(texts)})"


def short_repr(value: Any) -> str:
    """Return the repr of a value, and only the name of a network."""
    if isinstance(value, (nn.Module, FrozenNetwork)):
        return f"<{value.name if isinstance(value, FrozenNetwork) else type(value).__name__}>"
    return repr(value)


def picture_shape(pictures: Tensor) -> Picture:
    """Return the shape (C, H, W) of a batch (N, C, H, W)."""
    _, channels, height, width = pictures.shape
    return channels, height, width


def choice(argument: str, value: Any, choices: Sequence[str]) -> str:
    """Return a text that is one of the choices, or raise ValueError."""
    if value not in choices:
        raise unknown(argument, "choice", str(value), choices)
    return str(value)


def warn_if_normalized(callback: Callback, pictures: Tensor, mean: Any, std: Any, consequence: str) -> None:
    """Warn when pictures have values outside [0, 1] and no normalization is known."""
    if mean is None and std is None and pictures.is_floating_point():
        low, high = float(pictures.min()), float(pictures.max())
        if low < 0 or high > 1:
            rank_zero_warn(
                f"{type(callback).__name__}: the first batch has values from {low:.3g} to {high:.3g}, and {consequence};"
                " give the mean and std by which the data is normalized"
            )


def make_writable(folder: Path) -> None:
    """Create a folder.

    Raises:
        ValueError: when it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"folder: cannot make {str(folder)!r}: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"folder: cannot write into {str(folder)!r}")
