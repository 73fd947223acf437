"""What the callbacks share."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule

from featviz_pl.training import FeatureVisualization


def visualization(callback: Callback, module: LightningModule) -> FeatureVisualization:
    """Return the module as what it must be for this callback, or say so."""
    if not isinstance(module, FeatureVisualization):
        raise TypeError(f"{type(callback).__name__} works on a FeatureVisualization, not on {type(module).__name__}")
    return module
