"""Random, differentiable views of pictures."""

from featviz_pl.transforms.background import Background
from featviz_pl.transforms.base import GeometricTransform, Transform
from featviz_pl.transforms.compose import Compose
from featviz_pl.transforms.crop import Crop, CropOrPad
from featviz_pl.transforms.geometric import Flip, Jitter, Pad, Rotate, Scale
from featviz_pl.transforms.mesh import MeshView
from featviz_pl.transforms.noise import ColorShift, Noise
from featviz_pl.transforms.pixels import Blur, NormalizeGradient, Roll
from featviz_pl.transforms.ranges import Choice
from featviz_pl.transforms.schedule import Cosine, Linear, Schedule, WarmUp
from featviz_pl.transforms.torchvision import Torchvision
from featviz_pl.transforms.view_presets import VIEW_PRESETS, view_preset
from featviz_pl.transforms.views import Views

__all__ = [
    "VIEW_PRESETS",
    "Background",
    "Blur",
    "Choice",
    "ColorShift",
    "Compose",
    "Cosine",
    "Crop",
    "CropOrPad",
    "Flip",
    "GeometricTransform",
    "Jitter",
    "Linear",
    "MeshView",
    "Noise",
    "NormalizeGradient",
    "Pad",
    "Roll",
    "Rotate",
    "Scale",
    "Schedule",
    "Torchvision",
    "Transform",
    "Views",
    "WarmUp",
    "view_preset",
]
