"""Targets of single pictures in the shorthand."""

from __future__ import annotations

from featviz_pl.objectives import Target
from featviz_pl.objectives.target_syntax import ALL


def single_target(text: str) -> Target:
    """Return the target of one picture.

    Raises:
        ValueError: when the target does not parse, or is one of several units.
    """
    target = Target.parse(text)
    if target.units is not None and (target.units == ALL or len(target.units) > 1):
        count = "all" if target.units == ALL else len(target.units)
        raise ValueError(f"targets: {text!r} names {count} units; give each picture a target with one of them")
    return target
