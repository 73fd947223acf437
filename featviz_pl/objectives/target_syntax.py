"""The shorthand of targets: ``layer``, ``layer:unit``, ``layer:0-63``, ``layer:all``, ``layer:unit@y,x``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from featviz_pl.objectives.activation import Channel, DeepDream, Neuron
from featviz_pl.objectives.base import Objective
from featviz_pl.objectives.classes import ClassLogit
from featviz_pl.objectives.per_picture import PerPicture

ALL: Literal["all"] = "all"
FORMS = "layer, layer:unit, layer:0-63, layer:3,5,8, layer:all, layer:unit@y,x, output:class"
_MOST_UNITS = 1_000_000  # more than any layer has
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_RUN = 3  # consecutive units that are printed as a range


@dataclass(frozen=True)
class Target:
    """Name what pictures show, in the shorthand of targets: a whole layer, units of a layer, or classes by name.

    ======================  ==========================================  ======================
    shorthand               meaning                                     objective
    ======================  ==========================================  ======================
    ``features.9``          the whole layer, one picture                `DeepDream`
    ``features.9:33``       one unit                                    `Channel`
    ``features.9:0-2,8``    one picture for each of these units         `Channel`
    ``features.9:all``      one picture for every unit of the layer     `Channel`
    ``features.9:33@4,5``   the neuron at row 4, column 5               `Neuron`
    ``features.9:33@``      the neuron at the centre                    `Neuron`
    ``output:church``       a class by name                             `ClassLogit`
    ======================  ==========================================  ======================

    In sweeps the layer may be a pattern, such as ``features.*:all``.

    Args:
        layer: dotted module name, or ``"output"``.
        units: numbers from 0, or names of classes, one for each picture; ``"all"`` for every unit; None for the layer.
        position: (y, x) on the map or (index,) of a token, ``()`` for the centre, None for all positions.

    Example:
        >>> target = Target.parse("features.9:0-2,8")
        >>> target.units, str(target), [str(single) for single in target.singles()][-1]
        ((0, 1, 2, 8), 'features.9:0-2,8', 'features.9:8')
        >>> Target("features.9", (3,)).objective()
        Channel('features.9', 3)
    """

    layer: str
    units: tuple[int, ...] | tuple[str, ...] | Literal["all"] | None = None
    position: tuple[int, ...] | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read the shorthand.

        Raises:
            ValueError: when the text has another form; the message lists the forms.
        """
        if not isinstance(text, str) or not text.strip():
            raise _unparsed(text)
        layer, colon, rest = (part.strip() for part in text.partition(":"))
        if not layer or (colon and not rest):
            raise _unparsed(text)
        if not colon:
            if re.search(r"\s", layer):  # rather a formula, or a sentence
                raise _unparsed(text)
            return cls(layer)
        units, at, position = (part.strip() for part in rest.partition("@"))
        parsed = ALL if units == ALL else _class_names(units) if layer == "output" and not at else None
        return cls(layer, parsed or _parse_units(text, units), _parse_position(text, position) if at else None)

    def __str__(self) -> str:
        """Return the shorthand; runs of units are ranges."""
        if self.units is None:
            return self.layer
        units = ALL if self.units == ALL else ",".join(_ranges(self.units))
        return f"{self.layer}:{units}" + ("" if self.position is None else f"@{','.join(map(str, self.position))}")

    @property
    def unit(self) -> int:
        """Number of the only unit.

        Raises:
            ValueError: for a target of several units, a class name or the whole layer.
        """
        if not isinstance(self.units, tuple) or len(self.units) != 1 or not isinstance(self.units[0], int):
            raise ValueError(f"target: {str(self)!r} is not one unit by number, such as {self.layer + ':3'!r}")
        return self.units[0]

    @property
    def class_name(self) -> str | None:
        """Name of the only class, None for a target of units or of the layer."""
        units = self.units
        return units[0] if isinstance(units, tuple) and len(units) == 1 and isinstance(units[0], str) else None

    def singles(self) -> list[Target]:
        """Return a target for each picture: for each unit, or the whole layer.

        Raises:
            ValueError: for ``layer:all``, whose units are not known before `resolve`.
        """
        if self.units is None:
            return [self]
        return [replace(self, units=(unit,)) for unit in self._listed_units()]  # type: ignore[arg-type]

    def resolve(self, count: int) -> Target:
        """Return the target with the units of a layer that has `count` of them in place of ``all``."""
        return replace(self, units=tuple(range(count))) if self.units == ALL else self

    def by_number(self) -> Target:
        """Return this target if it names units by number at all positions, as sweeps and photos need it.

        Raises:
            ValueError: for a whole layer, a position or a class name; the message says what to write.
        """
        if self.units is None:
            every = f"{self.layer}:{ALL}"
            raise ValueError(f"targets: {str(self)!r} is the whole layer, one picture; write {every!r} for every unit")
        if self.position is not None:
            raise ValueError(f"targets: {str(self)!r} is one position, and units are taken at all; leave '@' out")
        return self.without_names()

    def without_names(self) -> Target:
        """Return this target if it does not name a class.

        Raises:
            ValueError: when it does.
        """
        if isinstance(self.units, tuple) and isinstance(self.units[0], str):
            raise ValueError(f"targets: {str(self)!r} names a class; give the number of it, such as 'output:3'")
        return self

    def objective(self) -> Objective:
        """Return the objective that the target stands for.

        Raises:
            ValueError: for ``layer:all``, whose units are not known before `resolve`.
        """
        if self.units is None:
            return DeepDream(self.layer)
        units = self._listed_units()
        several = units if len(units) > 1 else units[0]
        if isinstance(units[0], str):
            return ClassLogit(several)
        if self.position is None:
            return Channel(self.layer, several)  # type: ignore[arg-type] # no names
        return Neuron(self.layer, several, self.position or None)  # type: ignore[arg-type]

    def _listed_units(self) -> list[int | str]:
        if self.units == ALL:
            raise ValueError(f"target: the number of units of {str(self)!r} is not known here; write {self.layer}:0-63")
        return list(self.units or ())


def parse_target(target: str) -> Objective:
    """Turn the shorthand of a target into an objective; `Target` lists the forms.

    Args:
        target: in one of these forms, ``layer:all`` excepted: it needs the network.

    Raises:
        ValueError: when the text has another form; the message lists the forms.

    Example:
        >>> parse_target("features.9:33"), parse_target("features.9:0-63"), parse_target("output:church")
        (Channel('features.9', 33), Channel('features.9', range(64)), ClassLogit('church'))
    """
    return Target.parse(target).objective()


def parse_objective(
    argument: str,
    value: Objective | Target | str | Sequence[Objective | Target | str],
    count_units: Callable[[str], int] | None = None,
) -> Objective:
    """Return an objective as it is, a target as its objective, and several of either as `PerPicture`.

    Args:
        argument: name of the argument, for errors.
        value: an objective, a target, its shorthand, or a list of these.
        count_units: returns the number of units of a layer, for ``layer:all``.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(value, (list, tuple)) and value:
        parts = [parse_objective(argument, part, count_units) for part in value]
        return parts[0] if len(parts) == 1 else PerPicture(parts)
    if isinstance(value, Objective):
        return value
    if not isinstance(value, (str, Target)):
        raise TypeError(
            f"{argument} must be an Objective or a target such as 'features.9:33', got {type(value).__name__} "
            f"({value!r})"
        )
    target = Target.parse(value) if isinstance(value, str) else value
    if target.units == ALL and count_units is not None:
        target = target.resolve(count_units(target.layer))
    return target.objective()


def parse_targets(targets: str | Target | Sequence[str | Target]) -> list[Target]:
    """Return one target for each picture, each once; ``layer:all`` stays as it is.

    Raises:
        TypeError: for anything but texts and targets.
        ValueError: when a text does not parse, or there is none.

    Example:
        >>> [str(target) for target in parse_targets(["net.layer3:0-1", "net.layer4:5@", "net.layer4:all"])]
        ['net.layer3:0', 'net.layer3:1', 'net.layer4:5@', 'net.layer4:all']
    """
    entries = [targets] if isinstance(targets, (str, Target)) else targets
    if not isinstance(entries, Sequence) or not all(isinstance(entry, (str, Target)) for entry in entries):
        raise TypeError(f"targets must be a text such as 'net.layer3:0-15', or several, got {targets!r}")
    parsed = [Target.parse(entry) if isinstance(entry, str) else entry for entry in entries]
    if not parsed:
        raise ValueError("targets: none are given; name at least one, such as 'net.layer3:0-15'")
    return list(
        dict.fromkeys(single for target in parsed for single in ([target] if target.units == ALL else target.singles()))
    )


def picture_names(targets: Sequence[str]) -> list[str]:
    """Return a short file name part for each picture: its unit or class where these differ, else its number.

    Example:
        >>> picture_names(["features.9:3", "features.9:12"]), picture_names(["a:1", "b:1"])
        (['3', '12'], ['0', '1'])
    """
    names = [re.sub(r"[^\w,@-]+", "-", target.rpartition(":")[2]).strip("-") for target in targets]
    if len(set(names)) == len(names) and all(names):
        return names
    width = len(str(len(names) - 1))
    return [f"{index:0{width}d}" for index in range(len(names))]


def _ranges(units: Sequence[int | str]) -> list[str]:
    """Return the parts of a list of units, with runs of at least three as ranges."""
    parts: list[str] = []
    start = 0
    while start < len(units):
        first, end = units[start], start + 1
        while isinstance(first, int) and end < len(units) and units[end] == first + end - start:
            end += 1
        run = units[start:end]
        parts += [f"{first}-{run[-1]}"] if len(run) >= _RUN else map(str, run)
        start = end
    return parts


def _class_names(text: str) -> tuple[str, ...] | None:
    """Return the names of classes in a list, None where it holds numbers."""
    names = tuple(name.strip() for name in text.split(","))
    return None if any(not name or _RANGE.fullmatch(name) or name.startswith("-") for name in names) else names


def _parse_units(target: str, text: str) -> tuple[int, ...]:
    units: list[int] = []
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
        units.extend(range(first, last + 1))
    return tuple(units)


def _parse_position(target: str, text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"(\d+(\s*,\s*\d+)?)?", text):
        raise ValueError(f"target: {target!r} has no position (y, x) of whole numbers, 0 or more, after the @")
    return tuple(int(part) for part in text.split(",")) if text else ()


def _unparsed(target: object) -> ValueError:
    return ValueError(f"target: {target!r} does not parse; forms: {FORMS}")
