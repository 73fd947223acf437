"""How a picture is seen: random, differentiable views."""

from featviz_pl.transforms.base import GeometricTransform, Transform
from featviz_pl.transforms.compose import Compose
from featviz_pl.transforms.geometry import Jitter, Pad, Rotate, Scale
from featviz_pl.transforms.presets import PRESETS, article, lucid, view_preset
from featviz_pl.transforms.schedule import Cosine, Linear, Schedule, WarmUp
from featviz_pl.transforms.views import Views

__all__ = [
    "PRESETS",
    "Compose",
    "Cosine",
    "GeometricTransform",
    "Jitter",
    "Linear",
    "Pad",
    "Rotate",
    "Scale",
    "Schedule",
    "Transform",
    "Views",
    "WarmUp",
    "article",
    "lucid",
    "view_preset",
]
