"""Callbacks of featviz_pl; import them as ``featviz_pl.callbacks``."""

from featviz_pl_callbacks.augmentation import Augmentation
from featviz_pl_callbacks.distributed import DistributedViews
from featviz_pl_callbacks.evaluation import PictureEvaluation
from featviz_pl_callbacks.image_logging import log_images, logged_step, register_image_sink
from featviz_pl_callbacks.monitor import FeatureMonitor
from featviz_pl_callbacks.plateau import StopOnPlateau
from featviz_pl_callbacks.progress import StepProgressBar
from featviz_pl_callbacks.snapshot import ImageSnapshot
from featviz_pl_callbacks.sweep_progress import SweepProgressBar
from featviz_pl_callbacks.top_activations import TopActivations
from featviz_pl_callbacks.writer import FeatureWriter

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
