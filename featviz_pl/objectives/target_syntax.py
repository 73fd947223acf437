"""The shorthand of targets: ``layer``, ``layer:unit``, ``layer:0-63``, ``layer:3,5,8``, ``layer:unit@y,x``."""

from __future__ import annotations

import re

from featviz_pl.objectives.activation import Channel, DeepDream, Neuron
from featviz_pl.objectives.base import Objective
from featviz_pl.objectives.classes import ClassLogit

FORMS = "layer, layer:unit, layer:0-63, layer:3,5,8, layer:unit@y,x, output:class"
_MOST_UNITS = 1_000_000  # more than any layer has
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def parse_target(target: str) -> Objective:
    """Turn the shorthand of a target into an objective.

    ``features.9:33`` is a channel, ``features.9:0-63`` and ``features.9:3,5,8`` are one picture for each channel,
    ``features.9:33@4,5`` is the neuron at row 4, column 5 (``@`` alone: the centre), a bare layer is `DeepDream`, and
    ``output:church`` is a class by name. Units are 0 or more.

    Args:
        target: in one of these forms.

    Raises:
        ValueError: when the text has another form; the message lists the forms.

    Example:
        >>> parse_target("features.9:33"), parse_target("features.9:0-63"), parse_target("output:church")
        (Channel('features.9', 33), Channel('features.9', range(64)), ClassLogit('church'))
    """
    if not isinstance(target, str) or not target.strip():
        raise ValueError(f"target: {target!r} does not parse; forms: {FORMS}")
    layer, colon, units = (part.strip() for part in target.partition(":"))
    if not layer or re.search(r"\s", layer) or (colon and not units):
        raise _unparsed(target)
    if not colon:
        return DeepDream(layer)
    units, at, position = (part.strip() for part in units.partition("@"))
    if layer == "output" and not at:
        names = [name.strip() for name in units.split(",")]
        if not any(_RANGE.fullmatch(name) or name.startswith("-") for name in names):
            return ClassLogit(names if len(names) > 1 else names[0])
    chosen = _units(target, units)
    single = len(chosen) == 1 and "-" not in units
    if at:
        return Neuron(layer, chosen[0] if single else chosen, _position(target, position))
    return Channel(layer, chosen[0] if single else chosen)


def wanted(argument: str, value: Objective | str) -> Objective:
    """Return an objective as it is, and the shorthand of a target as an objective.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(value, str):
        return parse_target(value)
    if isinstance(value, Objective):
        return value
    raise TypeError(
        f"{argument} must be an Objective or a target such as 'features.9:33', got {type(value).__name__} ({value!r})"
    )


def _units(target: str, text: str) -> list[int]:
    chosen: list[int] = []
    for part in text.split(","):
        part = part.strip()
        if part.startswith("-"):
            raise ValueError(f"target: {target!r} asks for a negative unit; units are 0 or more")
        match = _RANGE.fullmatch(part)
        if not match:
            raise _unparsed(target)
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first >= _MOST_UNITS:
            raise ValueError(f"target: {target!r} asks for more than {_MOST_UNITS} units")
        if last < first:
            raise ValueError(f"target: {target!r} has a range that ends before it begins")
        chosen.extend(range(first, last + 1))
    return chosen


def _position(target: str, text: str) -> tuple[int, ...] | None:
    if not text:
        return None
    if not re.fullmatch(r"\d+(\s*,\s*\d+)?", text):
        raise ValueError(f"target: {target!r} has no position (y, x) of whole numbers, 0 or more, after the @")
    return tuple(int(part) for part in text.split(","))


def _unparsed(target: str) -> ValueError:
    return ValueError(f"target: {target!r} does not parse; forms: {FORMS}")
