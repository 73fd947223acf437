"""Variants of the modules and callbacks for the Trainer of the separate package ``pytorch_lightning``.

``lightning.pytorch`` and ``pytorch_lightning`` are two packages with equal names and different classes. A Trainer of
one refuses modules of the other: given `featviz_pl.FeatureVisualization`, that of ``pytorch_lightning`` raises
``TypeError: `model` must be a `LightningModule` or `torch._dynamo.OptimizedModule`, got `FeatureVisualization```. The
classes here inherit from both packages; pictures are the same bit for bit, and checkpoints can be exchanged. Both
packages are installed with this library; ``pytorch_lightning`` 2.4 and newer works. From 2.6 on, a list of callbacks
may contain those of `featviz_pl.callbacks` too; those from here are recognized everywhere: alone
(``callbacks=callback``), in YAML files, and as progress bars. `log_images` works with the loggers of both packages.

Example:
    >>> import torch
    >>> from pytorch_lightning import Trainer
    >>> from featviz_pl.compat import Augmentation, FeatureVisualization
    >>> from featviz_pl.images import FourierImage
    >>> model = FeatureVisualization(torch.nn.Conv2d(3, 8, 3), "output:4", size=16)
    >>> quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    >>> Trainer(max_steps=2, accelerator="cpu", callbacks=[Augmentation("lucid")], **quiet).fit(model)
    >>> model.images.shape
    torch.Size([1, 3, 16, 16])
"""

from __future__ import annotations

from typing import Any

from featviz_pl import callbacks, sweep, training

try:
    from pytorch_lightning import Callback, LightningDataModule, LightningModule
    from pytorch_lightning.callbacks import BasePredictionWriter, ProgressBar
except ImportError as error:
    raise ImportError(
        "featviz_pl.compat: the package pytorch_lightning cannot be imported; pip install pytorch-lightning, or use "
        "lightning.pytorch with featviz_pl itself, which needs nothing from featviz_pl.compat"
    ) from error

__all__ = [
    "Augmentation",
    "DistributedViews",
    "FeatureMonitor",
    "FeatureSweep",
    "FeatureTargets",
    "FeatureVisualization",
    "FeatureWriter",
    "ImageSnapshot",
    "PictureEvaluation",
    "StepProgressBar",
    "StopOnPlateau",
    "SweepProgressBar",
    "TopActivations",
]
_LOOKUP_ORDER = {"pytorch_lightning": 0, "lightning_fabric": 0, "lightning": 1}  # then every other package


class _Variant(type):
    """Metaclass of classes that inherit from this library and from ``pytorch_lightning``."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _Variant:
        """Make a class with a private qualified name: LightningCLI resolves short names among all public subclasses."""
        namespace |= {
            "__qualname__": (qualname := f"_{name}"),
            "__doc__": f"Variant of `{bases[0].__module__}.{name}` for ``pytorch_lightning``.",
            "_generate_state_key": lambda _, **arguments: f"{name}{arguments!r}",  # as in ``lightning.pytorch``
        }
        globals()[qualname] = variant = super().__new__(mcs, name, bases, namespace)  # where pickle finds the class
        return variant

    def mro(cls) -> list[type]:
        """Look attributes up in this library, then ``pytorch_lightning``, then ``lightning``, then everything else.

        A Trainer recognizes an overridden hook by its code, which differs between releases of the two packages.
        """

        def order(base: type) -> int:
            return _LOOKUP_ORDER.get(base.__module__.partition(".")[0], 2)

        usual = super().mro()
        first = next(index for index, base in enumerate(usual) if order(base) < 2)
        return [*usual[:first], *sorted(usual[first:], key=order)]


# fmt: off
class FeatureVisualization(training.FeatureVisualization, LightningModule, metaclass=_Variant): ...  # type: ignore[misc]
class FeatureSweep(sweep.FeatureSweep, LightningModule, metaclass=_Variant): ...  # type: ignore[misc]
class FeatureTargets(sweep.FeatureTargets, LightningDataModule, metaclass=_Variant): ...  # type: ignore[misc]
class Augmentation(callbacks.Augmentation, Callback, metaclass=_Variant): ...  # type: ignore[misc]
class DistributedViews(callbacks.DistributedViews, Callback, metaclass=_Variant): ...  # type: ignore[misc]
class FeatureMonitor(callbacks.FeatureMonitor, Callback, metaclass=_Variant): ...  # type: ignore[misc]
class FeatureWriter(callbacks.FeatureWriter, BasePredictionWriter, metaclass=_Variant): ...  # type: ignore[misc]
class ImageSnapshot(callbacks.ImageSnapshot, Callback, metaclass=_Variant): ...  # type: ignore[misc]
class PictureEvaluation(callbacks.PictureEvaluation, Callback, metaclass=_Variant): ...  # type: ignore[misc]
class StepProgressBar(callbacks.StepProgressBar, ProgressBar, metaclass=_Variant): ...  # type: ignore[misc]
class StopOnPlateau(callbacks.StopOnPlateau, Callback, metaclass=_Variant): ...  # type: ignore[misc]
class SweepProgressBar(callbacks.SweepProgressBar, ProgressBar, metaclass=_Variant): ...  # type: ignore[misc]
class TopActivations(callbacks.TopActivations, Callback, metaclass=_Variant): ...  # type: ignore[misc]
