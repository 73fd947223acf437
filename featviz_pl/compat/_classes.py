"""The classes of `featviz_pl.compat`, in a private module: a configuration finds the library's own by their short names alone."""

from __future__ import annotations

from featviz_pl import callbacks, sweep
from featviz_pl.training import module

try:
    import pytorch_lightning
    from pytorch_lightning.callbacks import BasePredictionWriter, ProgressBar
except ImportError as error:
    raise ImportError(
        "featviz_pl.compat: the package pytorch_lightning cannot be imported; pip install pytorch-lightning, or use "
        "lightning.pytorch with featviz_pl itself, which needs nothing from featviz_pl.compat"
    ) from error

_THEIRS, _OURS = ("pytorch_lightning", "lightning_fabric"), ("lightning",)


class _TheirsFirst(type):
    """Look up what this library leaves to Lightning in ``pytorch_lightning``, then in ``lightning``.

    A Trainer tells hooks that somebody has written from its own by their code, which differs between releases of the
    two packages.
    """

    def mro(cls) -> list[type]:
        """Return the classes in which attributes are looked up, in order."""
        usual = super().mro()
        theirs = [one for one in usual if one.__module__.split(".")[0] in _THEIRS]
        ours = [one for one in usual if one.__module__.split(".")[0] in _OURS]
        first = min(usual.index(one) for one in (*theirs, *ours))
        rest = [one for one in usual[first:] if one not in theirs and one not in ours]
        return [*usual[:first], *theirs, *ours, *rest]


class _FeatureVisualization(module.FeatureVisualization, pytorch_lightning.LightningModule, metaclass=_TheirsFirst):  # type: ignore[misc]
    """Be `featviz_pl.FeatureVisualization` for the Trainer of ``pytorch_lightning``."""


class _FeatureSweep(sweep.FeatureSweep, pytorch_lightning.LightningModule, metaclass=_TheirsFirst):  # type: ignore[misc]
    """Be `featviz_pl.FeatureSweep` for the Trainer of ``pytorch_lightning``."""


class _FeatureTargets(sweep.FeatureTargets, pytorch_lightning.LightningDataModule, metaclass=_TheirsFirst):  # type: ignore[misc]
    """Be `featviz_pl.FeatureTargets` for the Trainer of ``pytorch_lightning``."""


class _Augmentation(callbacks.Augmentation, pytorch_lightning.Callback, metaclass=_TheirsFirst):  # type: ignore[misc]
    """Be `featviz_pl.callbacks.Augmentation` for the Trainer of ``pytorch_lightning``."""


class _DistributedViews(callbacks.DistributedViews, pytorch_lightning.Callback, metaclass=_TheirsFirst):  # type: ignore[misc]
    """Be `featviz_pl.callbacks.DistributedViews` for the Trainer of ``pytorch_lightning``."""


class _FeatureMonitor(callbacks.FeatureMonitor, pytorch_lightning.Callback, metaclass=_TheirsFirst):  # type: ignore[misc]
    """Be `featviz_pl.callbacks.FeatureMonitor` for the Trainer of ``pytorch_lightning``."""


class _FeatureWriter(callbacks.FeatureWriter, BasePredictionWriter, metaclass=_TheirsFirst):  # type: ignore[misc]
    """Be `featviz_pl.callbacks.FeatureWriter` for the Trainer of ``pytorch_lightning``."""


class _ImageSnapshot(callbacks.ImageSnapshot, pytorch_lightning.Callback, metaclass=_TheirsFirst):  # type: ignore[misc]
    """Be `featviz_pl.callbacks.ImageSnapshot` for the Trainer of ``pytorch_lightning``."""


class _PictureEvaluation(callbacks.PictureEvaluation, pytorch_lightning.Callback, metaclass=_TheirsFirst):  # type: ignore[misc]
    """Be `featviz_pl.callbacks.PictureEvaluation` for the Trainer of ``pytorch_lightning``."""


class _StepProgressBar(callbacks.StepProgressBar, ProgressBar, metaclass=_TheirsFirst):  # type: ignore[misc]
    """Be `featviz_pl.callbacks.StepProgressBar` for the Trainer of ``pytorch_lightning``."""


class _StopOnPlateau(callbacks.StopOnPlateau, pytorch_lightning.Callback, metaclass=_TheirsFirst):  # type: ignore[misc]
    """Be `featviz_pl.callbacks.StopOnPlateau` for the Trainer of ``pytorch_lightning``."""


class _SweepProgressBar(callbacks.SweepProgressBar, ProgressBar, metaclass=_TheirsFirst):  # type: ignore[misc]
    """Be `featviz_pl.callbacks.SweepProgressBar` for the Trainer of ``pytorch_lightning``."""


class _TopActivations(callbacks.TopActivations, pytorch_lightning.Callback, metaclass=_TheirsFirst):  # type: ignore[misc]
    """Be `featviz_pl.callbacks.TopActivations` for the Trainer of ``pytorch_lightning``."""
