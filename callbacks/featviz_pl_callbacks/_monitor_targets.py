"""Targets of callbacks, from their shorthand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featviz_pl.objectives import Channel, DeepDream, Neuron, parse_target


@dataclass(frozen=True)
class Target:
    """Name one picture: a unit of a layer, a neuron, or a whole layer.

    Args:
        layer: as the user wrote it.
        unit: of the layer; None for all of it.
        place: what follows the unit: ``"@4,5"``, ``"@"`` for the centre, or nothing.
    """

    layer: str
    unit: int | None = None
    place: str = ""

    def __str__(self) -> str:
        """Return the shorthand."""
        return _shorthand(self.layer, [] if self.unit is None else [self.unit], self.place)


def listed_targets(targets: str | Sequence[str]) -> list[Target]:
    """Return one target for each picture.

    Raises:
        TypeError: for anything but texts.
        ValueError: when a text does not parse, names a class, or none is given.

    Example:
        >>> [str(target) for target in listed_targets(["net.layer3:0-1", "net.layer4:5@"])]
        ['net.layer3:0', 'net.layer3:1', 'net.layer4:5@']
    """
    texts = [targets] if isinstance(targets, str) else targets
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"targets must be a text such as 'net.layer3:0-15', or several, got {targets!r}")
    found = dict.fromkeys(target for text in texts for target in _parsed(text))
    if not found:
        raise ValueError("targets: none are given; name at least one, such as 'net.layer3:0-15'")
    return list(found)


def _parsed(text: str) -> list[Target]:
    objective = parse_target(text)
    if isinstance(objective, DeepDream):
        return [Target(objective.layer)]
    if not isinstance(objective, (Channel, Neuron)):
        raise ValueError(
            f"targets: {text!r} names a class, and a network in training has numbers only, such as 'output:3'"
        )
    place = "@" + text.partition("@")[2].replace(" ", "") if isinstance(objective, Neuron) else ""
    return [Target(objective.layer, unit, place) for unit in objective.units]


def _shorthand(layer: str, units: Sequence[int], place: str) -> str:
    return f"{layer}:{','.join(map(str, units))}{place}" if units else layer
