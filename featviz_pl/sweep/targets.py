"""Which units a sweep renders: patterns over layers, files of targets, and the batches in which they are made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from featviz_pl.io.files import open_regular
from featviz_pl.networks import FrozenNetwork, LayerInfo
from featviz_pl.numerics.checks import unknown
from featviz_pl.objectives import Target

FORMS = "layer:all, layer:0-63, layer:3,5,8, a pattern such as features.*:all, or a file that ends in .txt"


class TargetBatch(NamedTuple):
    """Hold one batch of a sweep: units of one layer, as many as every other batch has.

    Where the units end, they begin again: that is padding.

    Args:
        layer: of all units.
        units: in their places, padding included.
        padding: how many at the end are there only to fill the batch.
    """

    layer: str
    units: tuple[int, ...]
    padding: int

    @property
    def targets(self) -> list[str]:
        """What is rendered, without padding."""
        return [f"{self.layer}:{unit}" for unit in self.units[: len(self.units) - self.padding]]


class TargetBatches:
    """Give one process its batches of a sweep: sized, no DataLoader, so that Lightning divides nothing again.

    Args:
        batches: of this process; at least one is given, if only an empty one.
    """

    def __init__(self, batches: Sequence[TargetBatch]) -> None:
        self.batches = list(batches) or [TargetBatch("", (), 0)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[TargetBatch]:
        return iter(self.batches)


def parse_sweep(entries: str | Target | Sequence[str | Target]) -> list[Target]:
    """Return the targets of a sweep: units of layers, or of patterns over layers.

    Args:
        entries: targets, and files of targets; a file has one on each line, and comments after ``#``.

    Raises:
        ValueError: when one does not parse, with the line number in a file.

    Example:
        >>> [target.units for target in parse_sweep(["features.9:all", "features.*:0-2"])]
        ['all', (0, 1, 2)]
    """
    listed = [entries] if isinstance(entries, (str, Target)) else list(entries)
    if not listed:
        raise ValueError(f"targets: there are none; forms: {FORMS}")
    return [
        target
        for entry in listed
        for target in (_in_file(entry) if isinstance(entry, str) and entry.endswith(".txt") else [_parse(entry)])
    ]


def _parse(entry: str | Target) -> Target:
    return (entry if isinstance(entry, Target) else Target.parse(entry)).by_number()


def _in_file(name: str) -> Iterator[Target]:
    try:
        with open_regular(name) as file:
            lines = file.read().decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"targets: cannot read {name!r}: {getattr(error, 'strerror', None) or error}") from error
    empty = True
    for number, line in enumerate(lines, start=1):
        entry = line.partition("#")[0].strip()
        if entry:
            empty = False
            try:
                yield _parse(entry)
            except ValueError as error:
                raise ValueError(f"targets: {name!r}, line {number}: {error}") from error
    if empty:
        raise ValueError(f"targets: {name!r} names none; write one on each line")


def resolve_units(targets: Iterable[Target], layers: Sequence[LayerInfo]) -> dict[str, tuple[int, ...]]:
    """Return the units of every layer that is asked for, each once, in the order of the network.

    Of a pattern, layers with fewer units give those that they have.

    Raises:
        ValueError: when there is no such layer or unit.

    Example:
        >>> layers = [LayerInfo("a.0", "Conv2d", (4, 8, 8), 4), LayerInfo("a.1", "Conv2d", (2, 8, 8), 2)]
        >>> resolve_units(parse_sweep(["a.*:1-2", "a.0:all"]), layers)
        {'a.0': (0, 1, 2, 3), 'a.1': (1,)}
    """
    counts = {layer.name: layer.units for layer in layers}
    units_of: dict[str, set[int]] = {}
    for target in targets:
        name = target.layer
        pattern = name not in counts
        names = [layer for layer in counts if fnmatchcase(layer, name)] if pattern else [name]
        if not names:
            raise unknown("layer", "layer or pattern of layers", name, counts)
        most = max(counts[layer] for layer in names)
        units = [single.unit for single in target.resolve(most).singles()]
        beyond = next((unit for unit in units if unit >= most), None)
        if beyond is not None:
            raise ValueError(f"unit: {name!r} has {most} units, 0 to {most - 1}; there is no {beyond}")
        for layer in names:
            units_of.setdefault(layer, set()).update(unit for unit in units if unit < counts[layer])
    return {name: tuple(sorted(units_of[name])) for name in counts if units_of.get(name)}


def batches_of(units: Mapping[str, Sequence[int]], size: int) -> list[TargetBatch]:
    """Divide units into batches of one size, each within one layer; the last of a layer is filled by repeating its own.

    Example:
        >>> [(batch.units, batch.padding) for batch in batches_of({"a": range(5)}, 3)]
        [((0, 1, 2), 0), ((3, 4, 3), 1)]
    """
    batches = []
    for layer, listed in units.items():
        for first in range(0, len(listed), size):
            batch = tuple(listed[first : first + size])
            filled = tuple(batch[index % len(batch)] for index in range(size))
            batches.append(TargetBatch(layer, filled, size - len(batch)))
    return batches


def target_order(target: str) -> tuple[list[tuple[int, str]], int]:
    """Sort targets by layer and unit, with numbers in names by their value.

    Example:
        >>> sorted(["a.10:0", "a.9:10", "a.9:2"], key=target_order)
        ['a.9:2', 'a.9:10', 'a.10:0']
    """
    parsed = Target.parse(target)
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", parsed.layer)]
    return parts, parsed.unit


def by_layer(targets: Iterable[str]) -> dict[str, list[str]]:
    """Return the targets of each layer, in the order of their units.

    Example:
        >>> by_layer(["a:10", "b:1", "a:2"])
        {'a': ['a:2', 'a:10'], 'b': ['b:1']}
    """
    layers: dict[str, list[str]] = {}
    for target in sorted(targets, key=target_order):
        layers.setdefault(Target.parse(target).layer, []).append(target)
    return layers


class ListedNetwork(FrozenNetwork):
    """List the layers once: recipes ask for them with every objective."""

    def __init__(self, network: FrozenNetwork) -> None:
        super().__init__(**network.arguments)
        self._layers: dict[Any, list[LayerInfo]] = {}

    def layers(self, size: int | Sequence[int] | None = None, channels: int | None = None) -> list[LayerInfo]:
        """Return what was listed for this size before, or list it now."""
        key = size if size is None or isinstance(size, int) else tuple(size), channels
        if key not in self._layers:
            self._layers[key] = super().layers(size, channels)
        return self._layers[key]
