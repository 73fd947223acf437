"""The callbacks, which live in the source root ``callbacks/`` of this distribution."""

from featviz_pl_callbacks import Augmentation, ImageSnapshot, StepProgressBar, StopOnPlateau

__all__ = ["Augmentation", "ImageSnapshot", "StepProgressBar", "StopOnPlateau"]
