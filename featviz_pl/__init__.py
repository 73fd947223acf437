"""Feature visualization as training, in PyTorch Lightning.

The names below are imported when they are first used, so that ``import featviz_pl`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from featviz_pl import (
        callbacks,
        compat,
        engine,
        images,
        io,
        metrics,
        networks,
        objectives,
        presets,
        statistics,
        sweep,
        training,
        transforms,
    )
    from featviz_pl.networks import FrozenNetwork, load_network
    from featviz_pl.rendering import render
    from featviz_pl.sweep import FeatureSweep, FeatureTargets
    from featviz_pl.training import FeatureVisualization, graph_module

_DEFINED_IN = {
    "FeatureSweep": "sweep",
    "FeatureTargets": "sweep",
    "FeatureVisualization": "training",
    "FrozenNetwork": "networks",
    "graph_module": "training",
    "load_network": "networks",
    "render": "rendering",
}

__all__ = [
    "FeatureSweep",
    "FeatureTargets",
    "FeatureVisualization",
    "FrozenNetwork",
    "callbacks",
    "compat",
    "engine",
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
    "sweep",
    "training",
    "transforms",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _DEFINED_IN:
        return getattr(import_module(f"featviz_pl.{_DEFINED_IN[name]}"), name)
    if name in __all__:
        return import_module(f"featviz_pl.{name}")
    raise AttributeError(f"module 'featviz_pl' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, "__version__"])
