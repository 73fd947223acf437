"""Callbacks of featviz_pl; import them as ``featviz_pl.callbacks``."""

from featviz_pl_callbacks.augmentation import Augmentation
from featviz_pl_callbacks.distributed_views import DistributedViews
from featviz_pl_callbacks.feature_monitor import FeatureMonitor
from featviz_pl_callbacks.feature_writer import FeatureWriter
from featviz_pl_callbacks.image_logging import log_images, logged_step, register_image_sink
from featviz_pl_callbacks.image_snapshot import ImageSnapshot
from featviz_pl_callbacks.picture_evaluation import PictureEvaluation
from featviz_pl_callbacks.step_progress import StepProgressBar
from featviz_pl_callbacks.stop_on_plateau import StopOnPlateau
from featviz_pl_callbacks.sweep_progress import SweepProgressBar
from featviz_pl_callbacks.top_activations import TopActivations

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
