"""Optimising images as training: the LightningModule, its checkpoints and its steps."""

from featviz_pl.training.graph import graph_module
from featviz_pl.training.module import FeatureVisualization

__all__ = ["FeatureVisualization", "graph_module"]
