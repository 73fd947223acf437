"""What is known of a unit after all photos, and how it is written."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from featviz_pl.io import contact_sheet, save_png
from featviz_pl.io.files import layer_folder, write_whole
from featviz_pl.objectives import Target

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
KINDS = ("top", "random", "least")
INDEX = "index.json"
WHITE = 1.0


@dataclass(frozen=True)
class PhotoPatch:
    """Hold one photo of a unit: how much it excites the unit, where, and the part that is seen there.

    Args:
        photo: index in the data set.
        loader: number of the DataLoader.
        score: of the unit for the whole photo.
        peak: the highest activation.
        position: where in the layer that is: (y, x), (token,), or nothing for a vector.
        box: (top, left, bottom, right) of what this position sees, in pixels of the photo.
        size: (height, width) of the photo.
        levels: that part (C, h, w), in 256 levels.
    """

    photo: int
    loader: int
    score: float
    peak: float
    position: tuple[int, ...]
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    levels: Tensor = field(repr=False, compare=False)

    @property
    def patch(self) -> Tensor:
        """That part (C, h, w) in [0, 1]."""
        return self.levels.float() / 255


@dataclass(frozen=True)
class ScoreDistribution:
    """Hold the distribution of a unit's scores.

    Args:
        photos: how many there are; mean, std, least, greatest and active are exact.
        sampled: how many of them the percentiles and the density are of: all, or a random sample.
        mean: of the scores.
        std: root of their mean squared deviation.
        least: of them.
        greatest: of them.
        active: share of the photos whose score is above 0.
        percentiles: by percent, between two photos linearly.
        edges: of equal bins from the least to the greatest, one more than there are bins; none where scores are not
            finite.
        density: in each bin; times the width of a bin, they sum to 1.
    """

    photos: int
    sampled: int
    mean: float
    std: float
    least: float
    greatest: float
    active: float
    percentiles: dict[str, float]
    edges: list[float]
    density: list[float]


@dataclass(frozen=True)
class UnitActivations:
    """Hold what is known of one unit.

    Args:
        top: photos with the highest scores, the highest first.
        random: photos that were drawn, the same for all units.
        least: photos with the lowest scores, the lowest first.
        distribution: of the scores of all photos.
    """

    top: list[PhotoPatch]
    random: list[PhotoPatch]
    least: list[PhotoPatch]
    distribution: ScoreDistribution


def write_results(folder: Path, results: dict[str, UnitActivations], settings: dict[str, Any]) -> None:
    """Write all patches, a sheet for each unit, and at the end the index: where it is, everything is.

    Args:
        folder: made when missing; files of earlier results there are replaced.
        results: by target.
        settings: for the index and the origin of each picture.
    """
    (folder / INDEX).unlink(missing_ok=True)
    units = {target: _write_unit(folder, target, result, settings) for target, result in results.items()}
    text = json.dumps({"featviz_top_activations": 1, "settings": settings, "units": units}, indent=1, allow_nan=False)
    write_whole(folder / INDEX, text + "\n")


def unit_folder(folder: Path, target: str) -> Path:
    """Return the folder of a unit.

    Example:
        >>> unit_folder(Path("photos"), "net.layer3:5").as_posix()
        'photos/net.layer3/5'
    """
    parsed = Target.parse(target)
    return layer_folder(folder, parsed.layer) / str(parsed.unit)


def _write_unit(folder: Path, target: str, result: UnitActivations, settings: dict[str, Any]) -> dict[str, Any]:
    place = unit_folder(folder, target)
    for kind in KINDS:
        for old in place.glob(f"{kind}-*.png"):
            old.unlink()
    origin = {**settings, "target": target}
    entry: dict[str, Any] = {}
    for kind in KINDS:
        entry[kind] = []
        for number, one in enumerate(getattr(result, kind), 1):
            path = save_png(one.patch, place / f"{kind}-{number}.png", {**origin, "kind": kind, **_plain(one)})
            entry[kind].append({"file": path.relative_to(folder).as_posix(), **_plain(one)})
    entry["distribution"] = {name: _finite(value) for name, value in vars(result.distribution).items()}
    if any(entry[kind] for kind in KINDS):
        path = save_png(unit_sheet(result), place / "sheet.png", origin)
        entry["sheet"] = path.relative_to(folder).as_posix()
    return entry


def _plain(one: PhotoPatch) -> dict[str, Any]:
    return {name: _finite(value) for name, value in vars(one).items() if name != "levels"}


def _finite(value: Any) -> Any:
    """Return a value that JSON can hold: None for what is no finite number."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def unit_sheet(result: UnitActivations) -> Tensor:
    """Lay out the patches of a unit: a row for the top, one for the random, and one for the least photos.

    Shape:
        -> (C, height, width)
    """
    rows = [row for kind in KINDS if (row := [one.patch for one in getattr(result, kind)])]
    height, width = (max(patch.shape[axis] for row in rows for patch in row) for axis in (1, 2))
    across, channels = max(map(len, rows)), rows[0][0].shape[0]
    cells = torch.full((len(rows) * across, channels, height, width), WHITE)
    for number, row in enumerate(rows):
        for column, patch in enumerate(row):
            top, left = (
                (height - patch.shape[1]) // 2,
                (width - patch.shape[2]) // 2,
            )  # those at a border of their photo are smaller
            cells[number * across + column, :, top : top + patch.shape[1], left : left + patch.shape[2]] = patch
    return contact_sheet(cells, across)
