"""Gradient ascent on an objective, without Lightning."""

from featviz_pl.engine.ascent import Ascent
from featviz_pl.engine.loop import ascend
from featviz_pl.engine.step import NonFiniteError, Step

__all__ = ["Ascent", "NonFiniteError", "Step", "ascend"]
