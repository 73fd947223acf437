"""The callbacks, which live in the source root ``callbacks/`` of this distribution."""

from featviz_pl_callbacks import (
    Augmentation,
    DistributedViews,
    FeatureMonitor,
    FeatureWriter,
    ImageSnapshot,
    PictureEvaluation,
    StepProgressBar,
    StopOnPlateau,
    SweepProgressBar,
    TopActivations,
    log_images,
    logged_step,
    register_image_sink,
)

__all__ = [
    "Augmentation",
    "DistributedViews",
    "FeatureMonitor",
    "FeatureWriter",
    "ImageSnapshot",
    "PictureEvaluation",
    "StepProgressBar",
    "StopOnPlateau",
    "SweepProgressBar",
    "TopActivations",
    "log_images",
    "logged_step",
    "register_image_sink",
]
