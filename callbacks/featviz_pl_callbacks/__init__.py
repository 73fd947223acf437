"""Callbacks of featviz_pl; import them as ``featviz_pl.callbacks``."""

from featviz_pl_callbacks.augmentation import Augmentation
from featviz_pl_callbacks.plateau import StopOnPlateau
from featviz_pl_callbacks.progress import StepProgressBar
from featviz_pl_callbacks.snapshot import ImageSnapshot

__all__ = ["Augmentation", "ImageSnapshot", "StepProgressBar", "StopOnPlateau"]
