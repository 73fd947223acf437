"""The callbacks, which live in the source root ``callbacks/`` of this distribution."""

from featviz_pl_callbacks import (
    Augmentation,
    DistributedViews,
    FeatureWriter,
    ImageSnapshot,
    PictureEvaluation,
    StepProgressBar,
    StopOnPlateau,
    SweepProgressBar,
)

__all__ = [
    "Augmentation",
    "DistributedViews",
    "FeatureWriter",
    "ImageSnapshot",
    "PictureEvaluation",
    "StepProgressBar",
    "StopOnPlateau",
    "SweepProgressBar",
]
