"""Pictures of many units: the LightningModule of a sweep, its targets and its folder."""

from featviz_pl.sweep.datamodule import FeatureTargets
from featviz_pl.sweep.module import FeatureSweep, RenderedBatch

__all__ = ["FeatureSweep", "FeatureTargets", "RenderedBatch"]
