"""Top photos and score distribution of a unit, and the files that hold them."""

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
from featviz_pl.io.labels import add_labels, text_lines, text_width
from featviz_pl.objectives import Target

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
KINDS = ("top", "random", "least")
INDEX = "index.json"
WHITE = 1.0
WIDEST_SCORE = "-8.88e-88"


@dataclass(frozen=True)
class PhotoPatch:
    """A photo that a unit responds to: score, position, and the part of the photo that this position sees.

    Args:
        photo: index in the data set.
        loader: number of the DataLoader.
        score: of the unit for the whole photo.
        peak: the highest activation.
        position: of the peak in the layer: (y, x), (token,), or () for a vector.
        box: (top, left, bottom, right) of the position's receptive field, in pixels of the photo.
        size: (height, width) of the photo.
        levels: the patch (C, h, w), in 256 levels.
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
        """The part of the photo inside `box` (C, h, w), in [0, 1]."""
        return self.levels.float() / 255


@dataclass(frozen=True)
class ScoreDistribution:
    """Distribution of a unit's scores over all photos.

    Args:
        photos: number of photos; mean, std, least, greatest and active are exact.
        sampled: number of photos behind the percentiles and the density: all, or a random sample.
        mean: mean score.
        std: root of the mean squared deviation.
        least: lowest score.
        greatest: highest score.
        active: share of the photos whose score is above 0.
        percentiles: by percent, interpolated linearly.
        edges: of equal bins from least to greatest, one more than bins; empty where scores are not finite.
        density: in each bin; the sum times the width of a bin is 1.
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
    """Photos and score distribution of a unit.

    Args:
        top: photos with the highest scores, the highest first.
        random: photos drawn at random, the same for all units.
        least: photos with the lowest scores, the lowest first.
        distribution: of its scores on all photos.
    """

    top: list[PhotoPatch]
    random: list[PhotoPatch]
    least: list[PhotoPatch]
    distribution: ScoreDistribution


def write_results(
    folder: Path, results: dict[str, UnitActivations], settings: dict[str, Any], labels: bool = True
) -> None:
    """Write all patches, a sheet for each unit, and at the end the index: where it is, everything is.

    Args:
        folder: created when missing; files of earlier results are replaced.
        results: by target.
        settings: for the index and the provenance of each picture.
        labels: write target and scores into the sheets.
    """
    (folder / INDEX).unlink(missing_ok=True)
    units = {target: _write_unit(folder, target, result, settings, labels) for target, result in results.items()}
    index = {"featviz_top_activations": 1, "settings": settings, "units": units}
    write_whole(folder / INDEX, json.dumps(index, indent=1, allow_nan=False) + "\n")


def unit_folder(folder: Path, target: str) -> Path:
    """Return the folder of a unit.

    Example:
        >>> unit_folder(Path("photos"), "net.layer3:5").as_posix()
        'photos/net.layer3/5'
    """
    parsed = Target.parse(target)
    return layer_folder(folder, parsed.layer) / str(parsed.unit)


def _write_unit(
    folder: Path, target: str, result: UnitActivations, settings: dict[str, Any], labels: bool
) -> dict[str, Any]:
    directory, provenance = unit_folder(folder, target), {**settings, "target": target}
    entry: dict[str, Any] = {}
    for kind in KINDS:
        for old in directory.glob(f"{kind}-*.png"):
            old.unlink()
        entry[kind] = []
        for number, photo in enumerate(getattr(result, kind), 1):
            values = {name: _json_value(value) for name, value in vars(photo).items() if name != "levels"}
            path = directory / f"{kind}-{number}.png"
            save_png(photo.patch, path, {**provenance, "kind": kind, **values})
            entry[kind].append({"file": path.relative_to(folder).as_posix(), **values})
    entry["distribution"] = {name: _json_value(value) for name, value in vars(result.distribution).items()}
    if any(entry[kind] for kind in KINDS):
        path = save_png(unit_sheet(result, target if labels else None), directory / "sheet.png", provenance)
        entry["sheet"] = path.relative_to(folder).as_posix()
    return entry


def _json_value(value: Any) -> Any:
    """Return a value for JSON: None for NaN and infinities."""
    if isinstance(value, dict):
        return {key: _json_value(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def unit_sheet(result: UnitActivations, title: str | None = None) -> Tensor:
    """Lay out the patches of a unit: a row for the top, one for the random, and one for the least photos.

    Args:
        result: photos of the unit.
        title: text above, with the score under each patch; None for no text.

    Shape:
        -> (C, height, width)
    """
    rows = [row for kind in KINDS if (row := getattr(result, kind))]
    patches = [photo.patch for row in rows for photo in row]
    height, width = (max(patch.shape[axis] for patch in patches) for axis in (1, 2))
    columns, channels = max(map(len, rows)), patches[0].shape[0]
    empty = torch.full((channels, height, width), WHITE)
    cells = []
    for row in rows:
        for photo in [*row, *[None] * (columns - len(row))]:
            cell = empty.clone()
            if photo is not None:  # patches at a border of their photo are smaller
                patch = photo.patch
                top, left = (height - patch.shape[1]) // 2, (width - patch.shape[2]) // 2
                cell[:, top : top + patch.shape[1], left : left + patch.shape[2]] = patch
            text = "" if photo is None else f"{photo.score:.3g}"
            cells.append(cell if title is None else add_labels(cell, [text], text_width(WIDEST_SCORE)))
    sheet = contact_sheet(torch.stack(cells), columns)
    if title is None:
        return sheet
    sheet = add_labels(sheet, [], text_width(title))
    return torch.cat([text_lines([title], sheet.shape[2], channels), sheet], dim=1)
