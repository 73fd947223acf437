"""A sheet for each unit of a sweep: its picture, and the photos that excite it most beside it; and all of a layer in one.

``photos.json`` in the folder of the sweep says which photos those are, so that a sweep that goes on does not look at
all photos again. A sheet is finished when it can be read whole and its origin is what it would be now.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from featviz_pl.io.files import layer_folder, read_regular, write_whole
from featviz_pl.io.json_files import parse_object
from featviz_pl.io.pictures import write_png
from featviz_pl.io.provenance import as_plain
from featviz_pl.io.reading import open_picture
from featviz_pl.io.sheets import save_sheet
from featviz_pl.numerics.digest import digest
from featviz_pl.objectives import Target
from featviz_pl.sweep.datamodule import FeatureTargets
from featviz_pl.sweep.folder import PHOTO_RECORD, PHOTO_SHEET, SweepFolder
from featviz_pl.sweep.manifest import Entry, picture_path, read_manifest, read_origin
from featviz_pl.sweep.module import FeatureSweep
from featviz_pl.sweep.photos import PhotosOfUnits, PhotoSource, Progress, UnitPhoto
from featviz_pl.sweep.targets import by_layer

MIN_HEIGHT, MAX_HEIGHT = 160, 256  # pixels, of a picture in its sheet
GAP, MARGIN, CAPTION, LETTERS = 2, 10, 18, 12  # pixels
INK = (90, 90, 90)


@dataclass
class PhotoSummary:
    """The sheets of a sweep after a run.

    Args:
        sheets: that are there, of the units that were asked for.
        new: of these, made by this run.
        without: units that have no photo.
        photos: files that were looked at; None for an index.
        unreadable: files that could not be read.
        reason: why the first of these could not, where this run has tried.
    """

    sheets: int = 0
    new: int = 0
    without: list[str] = field(default_factory=list)
    photos: int | None = None
    unreadable: list[str] = field(default_factory=list)
    reason: str = ""


def sheet_path(folder: Path, target: str, units: int) -> Path:
    """Return where the sheet of a target lies: beside its picture.

    Example:
        >>> sheet_path(Path("atlas"), "features.9:33", 512).as_posix(), sheet_path(Path("atlas"), "fc:1234", 4096).as_posix()
        ('atlas/features.9/33-photos.png', 'atlas/fc/1/1234-photos.png')
    """
    path = picture_path(folder, target, units)
    return path.with_name(f"{path.stem}{PHOTO_SHEET}")


def layer_sheet_path(folder: Path, layer: str) -> Path:
    """Return where the sheet of all units of a layer lies.

    Example:
        >>> layer_sheet_path(Path("atlas"), "features.9").as_posix()
        'atlas/features.9-photos.png'
    """
    pictures = layer_folder(folder, layer)
    return pictures.with_name(f"{pictures.name}{PHOTO_SHEET}")


def save_photo_sheets(
    folder: Path,
    source: PhotoSource,
    sweep: FeatureSweep,
    targets: FeatureTargets,
    device: torch.device,
    progress: Progress,
) -> PhotoSummary:
    """Find the photos, and make the sheets that are missing; the sweep has ended, and this is its first process.

    Args:
        folder: of the sweep.
        source: of the photos.
        sweep: that rendered the pictures.
        targets: that were asked for.
        device: on which the photos are looked at.
        progress: called with the photos read so far and those to be read.

    Raises:
        ValueError: when no photo can be read, or another sweep works in the folder.
    """
    files = SweepFolder(folder)
    swept = files.claim() or {}
    try:
        entries = read_manifest(folder).entries
        settings = _settings(source, sweep)
        photos, unreadable = _photos_of_units(folder, settings, source, sweep, targets, device, progress)
        origins = {
            target: _origin(swept, settings, entries.get(target, {}), target, of_unit)
            for target, of_unit in photos.items()
        }
        new: set[str] = set()
        for target in targets.targets():
            path = sheet_path(folder, target, targets.layer_units[Target.parse(target).layer])
            if read_origin(path) != origins[target]:
                _save_unit(
                    path, folder, entries.get(target, {}), source, photos[target], origins[target], sweep, settings
                )
                new.add(target)
        of_layers = by_layer(origins)
        for layer, count in targets.layer_units.items():
            of_layer = {target: origins[target] for target in of_layers.get(layer, ())}
            _save_layer(folder, layer, count, of_layer, {**swept, "photos": settings})
    finally:
        files.close()
    return PhotoSummary(
        sheets=targets.count,
        new=len(new),
        without=[target for target in targets.targets() if not photos[target]],
        photos=settings["source"].get("photos"),
        unreadable=list(dict.fromkeys([*unreadable, *source.unreadable])),
        reason=source.reason,
    )


def _settings(source: PhotoSource, sweep: FeatureSweep) -> dict[str, Any]:
    """Return what decides which photos are shown: plain values, equal for equal runs."""
    network = sweep.network
    values = {
        "source": source.settings(),
        "weights": network.weights_hash(),
        "mean": network.mean,
        "std": network.std,
        "size": network.size or sweep.views_size,
    }
    return as_plain(values)


def _photos_of_units(
    folder: Path,
    settings: dict[str, Any],
    source: PhotoSource,
    sweep: FeatureSweep,
    targets: FeatureTargets,
    device: torch.device,
    progress: Progress,
) -> tuple[PhotosOfUnits, list[str]]:
    """Return the photos of each unit, and files that could not be read; only units of no earlier run are looked for."""
    photos, unreadable = _read_record(folder, settings)
    missing = {
        layer: [unit for unit in units if f"{layer}:{unit}" not in photos] for layer, units in targets.units.items()
    }
    missing = {layer: units for layer, units in missing.items() if units}
    if missing:
        photos |= source.find(sweep.network, tuple(settings["size"]), missing, device, progress)
        unreadable = list(source.unreadable)
        text = json.dumps({"settings": settings, "unreadable": unreadable, "units": photos})
        write_whole(folder / PHOTO_RECORD, text + "\n")
    return photos, unreadable


def _read_record(folder: Path, settings: Mapping[str, Any]) -> tuple[PhotosOfUnits, list[str]]:
    """Return what an earlier run has found, nothing where it had other settings."""
    try:
        record = parse_object(read_regular(folder / PHOTO_RECORD), finite=False)
        if record["settings"] == settings:
            units = {target: [UnitPhoto(*photo) for photo in of_unit] for target, of_unit in record["units"].items()}
            return units, list(record["unreadable"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}, []


def _origin(
    swept: Mapping[str, Any], settings: Mapping[str, Any], entry: Entry, target: str, photos: Sequence[UnitPhoto]
) -> dict[str, Any]:
    """Return where a sheet comes from. It names no objective, as sheets of several pictures do not."""
    values = {"target": target, "score": entry.get("score"), "failed": entry.get("failed"), "photos": settings}
    values = {**swept, **values, "shown": [[photo.photo, photo.score, photo.box] for photo in photos]}
    return as_plain(values)


def _save_unit(
    path: Path,
    folder: Path,
    entry: Entry,
    source: PhotoSource,
    photos: Sequence[UnitPhoto],
    origin: Mapping[str, Any],
    sweep: FeatureSweep,
    settings: Mapping[str, Any],
) -> None:
    height, width = sweep.image.size
    channels, size = sweep.network.channels, tuple(settings["size"])
    patches = [source.patch(photo, channels, (size[0], size[1])) for photo in photos]
    picture: Pillow.Image | None = None
    if "path" in entry:
        picture = open_picture(folder / entry["path"])
    sheet = unit_sheet(picture, (height, width), patches, source.count, _captions(entry, origin["target"], photos))
    write_png(sheet, path, origin)


def _captions(entry: Entry, target: str, photos: Sequence[UnitPhoto]) -> tuple[str, str]:
    """Return what stands above the picture and above the photos."""
    score = (
        f"   {entry['score']:.4g}"
        if isinstance(entry.get("score"), float)
        else "   failed"
        if "failed" in entry
        else ""
    )
    scores = [photo.score for photo in photos if math.isfinite(photo.score)]
    caption = f"photos   {scores[0]:.3g} to {scores[-1]:.3g}" if scores else "no photos"
    return target + score, caption


def unit_sheet(
    picture: Pillow.Image | None,
    size: tuple[int, int],
    patches: Sequence[Pillow.Image | None],
    count: int,
    captions: tuple[str, str],
) -> Pillow.Image:
    """Draw one sheet: the picture at the left, the photos in a block of its height at the right; what is missing stays white.

    Args:
        picture: of the unit, or None where it failed.
        size: of the pictures, (height, width).
        patches: of photos; all are enlarged alike, so that what was cut at the border of a photo is smaller here too.
        count: places for photos.
        captions: above the picture, and above the photos.
    """
    height = min(max(size[0], MIN_HEIGHT), MAX_HEIGHT)
    width = max(1, round(size[1] * height / size[0]))
    rows = max(1, math.isqrt(count))
    across = -(-count // rows)
    cell = (height - (rows - 1) * GAP) // rows
    left = width + MARGIN
    sheet = Pillow.new("RGB", (left + across * (cell + GAP) - GAP + 2 * MARGIN, CAPTION + height + MARGIN), "white")
    if picture is not None:
        sheet.paste(_opaque(picture).resize((width, height), Pillow.Resampling.BICUBIC), (0, CAPTION))
    longest = max((side for patch in patches if patch is not None for side in patch.size), default=1)
    for index, patch in enumerate(patches[:count]):
        if patch is not None:
            wide, high = (max(1, round(side * cell / longest)) for side in patch.size)
            corner = (
                left + index % across * (cell + GAP) + (cell - wide) // 2,
                CAPTION + index // across * (cell + GAP) + (cell - high) // 2,
            )
            sheet.paste(_opaque(patch).resize((wide, high), Pillow.Resampling.BICUBIC), corner)
    _write_captions(sheet, left, captions)
    return sheet


def _opaque(picture: Pillow.Image) -> Pillow.Image:
    """Return a picture in colors, a transparent one on white."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    ground = Pillow.new("RGBA", picture.size, "white")
    return Pillow.alpha_composite(ground, picture).convert("RGB")


def _write_captions(sheet: Pillow.Image, left: int, captions: tuple[str, str]) -> None:
    font = ImageFont.load_default(LETTERS)
    draw = ImageDraw.Draw(sheet)
    texts = [text.encode("ascii", "replace").decode() for text in captions]
    room = left - MARGIN
    while len(texts[0]) > 1 and draw.textlength(texts[0], font=font) > room:  # keep the end: the unit and its score
        texts[0] = "..." + texts[0].lstrip(".")[1:] if len(texts[0]) > 4 else texts[0][1:]
    for x, text in zip((0, left), texts):
        draw.text((x, 2), text, fill=INK, font=font)


def _save_layer(
    folder: Path, layer: str, units: int, origins: Mapping[str, dict[str, Any]], origin: Mapping[str, Any]
) -> None:
    """Lay out the sheets of a layer, without those of an earlier sweep, unless that has been done."""
    paths = {target: sheet_path(folder, target, units) for target in origins}
    finished = [target for target, path in paths.items() if read_origin(path) == origins[target]]
    sheets = digest([json.dumps([origins[target] for target in finished], sort_keys=True)])
    provenance = as_plain({**origin, "target": layer, "sheets": sheets})
    path = layer_sheet_path(folder, layer)
    if read_origin(path) != provenance:
        save_sheet([paths[target] for target in finished], path, provenance)
