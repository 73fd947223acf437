"""Feature visualization as training, in PyTorch Lightning.

The names below are imported when they are first used, so that ``import featviz_pl`` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from featviz_pl import callbacks, images, io, metrics, networks, objectives, presets, statistics, transforms
    from featviz_pl.graph import graph_module
    from featviz_pl.module import FeatureVisualization
    from featviz_pl.networks import FrozenNetwork, load_network
    from featviz_pl.render import render
    from featviz_pl.sweep import FeatureSweep, FeatureTargets

_ROOMS = ("callbacks", "images", "io", "metrics", "networks", "objectives", "presets", "statistics", "transforms")
_NAMES = {
    "FeatureSweep": "featviz_pl.sweep",
    "FeatureTargets": "featviz_pl.sweep",
    "FeatureVisualization": "featviz_pl.module",
    "FrozenNetwork": "featviz_pl.networks",
    "graph_module": "featviz_pl.graph",
    "load_network": "featviz_pl.networks",
    "render": "featviz_pl.render",
}

__all__ = [
    "FeatureSweep",
    "FeatureTargets",
    "FeatureVisualization",
    "FrozenNetwork",
    "callbacks",
    "graph_module",
    "images",
    "io",
    "load_network",
    "metrics",
    "networks",
    "objectives",
    "presets",
    "render",
    "statistics",
    "transforms",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _ROOMS:
        return import_module(f"featviz_pl.{name}")
    if name in _NAMES:
        value = getattr(import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'featviz_pl' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, "__version__"])


class _Package(ModuleType):
    """Keep `render` the function: importing the submodule of that name would bind the submodule over it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _NAMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
