"""The manifest of a sweep, and the pictures that it lists.

``manifest.jsonl`` begins with the settings of the sweep; a line for each target follows. While a sweep runs, every
process appends to a file of its own, ``manifest.<rank>.jsonl``; at the end they are merged. What decides is the
pictures: a target is finished when its picture can be read whole and its provenance is that of the sweep.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from featviz_pl.io import read_provenance
from featviz_pl.io.files import layer_folder, write_whole
from featviz_pl.io.json_files import path_inside, read_json_lines
from featviz_pl.objectives import Target
from featviz_pl.sweep.targets import target_order

FORMAT = 1
UNITS_PER_FOLDER = 1000
PER_PICTURE_KEYS = ("target", "objective", "score")  # of the provenance of a picture, besides the sweep's settings
_PNG_END = b"IEND\xaeB`\x82"
_PICTURE = re.compile(r"\d+\.png")

Entry = dict[str, Any]


class Manifest(NamedTuple):
    """The settings of a sweep, None where there are none, and the latest entry of each target.

    Args:
        settings: of the sweep.
        entries: of targets, with ``path`` and ``score``, or ``failed`` and the reason.
        skipped: number of lines of another form, or with a path out of the folder.
    """

    settings: Entry | None
    entries: dict[str, Entry]
    skipped: int = 0


def picture_path(folder: str | os.PathLike[str], target: str, units: int) -> Path:
    """Return the file of a target ``layer:unit``; layers of more than 1,000 units have folders of 1,000.

    Args:
        folder: of the sweep.
        target: ``layer:unit``.
        units: of the whole layer.

    Example:
        >>> picture_path("atlas", "features.9:33", 512).as_posix(), picture_path("atlas", "fc:1234", 4096).as_posix()
        ('atlas/features.9/33.png', 'atlas/fc/1/1234.png')
    """
    parsed = Target.parse(target)
    parent = layer_folder(folder, parsed.layer)
    return (
        parent / str(parsed.unit // UNITS_PER_FOLDER) if units > UNITS_PER_FOLDER else parent
    ) / f"{parsed.unit}.png"


def picture_entry(folder: str | os.PathLike[str], path: Path, origin: Mapping[str, Any]) -> Entry:
    """Return the entry of a picture."""
    return {"target": origin["target"], "path": path.relative_to(folder).as_posix(), "score": origin.get("score")}


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Read the manifest of a sweep, also of one that runs; what others may have written into it is skipped.

    Raises:
        ValueError: when the manifest is of another version of its format.
    """
    settings: Entry | None = None
    entries: dict[str, Entry] = {}
    skipped = 0
    for path in [Path(folder) / "manifest.jsonl", *rank_manifests(folder)]:
        try:
            lines, broken = read_json_lines(path)
        except OSError:
            continue
        skipped += broken
        for line in lines:
            if "featviz_sweep" in line:
                if line["featviz_sweep"] != FORMAT:
                    raise ValueError(
                        f"manifest: {str(path)!r} has format {line['featviz_sweep']}, and this version reads {FORMAT}; "
                        "go on with the version that wrote it, or give another folder"
                    )
                settings = line["settings"] if isinstance(line.get("settings"), dict) else settings
            elif _is_entry(folder, line):
                entries[line["target"]] = line
            else:
                skipped += 1
    return Manifest(settings, entries, skipped)


def _is_entry(folder: str | os.PathLike[str], line: Entry) -> bool:
    """Return whether a line is the entry of a target, with the path that its picture has."""
    try:
        target = str(Target.parse(line["target"]).by_number())
        paths = [picture_path(folder, target, units) for units in (1, UNITS_PER_FOLDER + 1)]  # checks the unit too
        if "failed" in line:
            return isinstance(line["failed"], str)
        score = line["score"]
        is_number = isinstance(score, (int, float)) and not isinstance(score, bool) and math.isfinite(score)
        return is_number and path_inside(folder, line["path"]) in paths
    except (KeyError, ValueError, OverflowError):
        return False


def rank_manifests(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the manifests of single processes, in the order of their ranks."""
    paths = [
        path for path in Path(folder).glob("manifest.*.jsonl") if path.name.split(".")[1].isdigit() and path.is_file()
    ]
    return sorted(paths, key=lambda path: int(path.name.split(".")[1]))


def manifest_line(line: Mapping[str, Any]) -> str:
    """Return a line of a manifest."""
    return json.dumps(line) + "\n"


def write_manifest(folder: str | os.PathLike[str], settings: Mapping[str, Any], entries: Iterable[Entry]) -> Path:
    """Write the whole manifest, in the order of layers and units: equal sweeps give equal files."""
    lines: list[Entry] = [{"featviz_sweep": FORMAT, "settings": dict(settings)}]
    lines += sorted(entries, key=lambda entry: target_order(entry["target"]))
    return write_whole(Path(folder) / "manifest.jsonl", "".join(map(manifest_line, lines)))


def rebuild_manifest(folder: str | os.PathLike[str]) -> Path | None:
    """Write the manifest anew from the pictures; units that failed are not known then, and are tried again.

    Returns:
        The manifest, or None where there are no pictures.

    Raises:
        ValueError: when the pictures are of different sweeps.
    """
    settings: Entry | None = None
    entries: list[Entry] = []
    for path in sorted(picture_files(folder)):
        origin = read_origin(path)
        if origin is None or not _is_entry(folder, entry := picture_entry(folder, path, {"target": None, **origin})):
            continue
        common = {key: value for key, value in origin.items() if key not in PER_PICTURE_KEYS}
        settings = common if settings is None else settings
        name = _difference(settings, common)
        if name is not None:
            raise ValueError(
                f"output: {str(folder)!r} holds pictures of different sweeps, with {name} {settings.get(name)!r} and "
                f"{common.get(name)!r}; give another folder, or --overwrite (overwrite=True in Python) to remove them"
            )
        entries.append(entry)
    return None if settings is None else write_manifest(folder, settings, entries)


def check_settings(folder: str | os.PathLike[str], earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to mix two sweeps in one folder.

    Raises:
        ValueError: naming the first setting that differs, and both values.
    """
    name = _difference(settings, earlier)
    if name is not None:
        raise ValueError(
            f"{name}: the pictures in {str(folder)!r} were made with {earlier.get(name)!r}, and this asks for "
            f"{settings.get(name)!r}; give another folder, or --overwrite (overwrite=True in Python) to remove them and "
            "begin anew"
        )


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    return next((name for name in [*first, *second] if first.get(name) != second.get(name)), None)


def read_origin(path: str | os.PathLike[str]) -> Entry | None:
    """Return the provenance of a picture, or None where there is no whole picture of this library."""
    try:
        if not Path(path).is_file():  # a pipe would wait for ever
            return None
        with Path(path).open("rb") as file:
            file.seek(-len(_PNG_END), os.SEEK_END)
            if file.read() != _PNG_END:
                return None
        return read_provenance(path)
    except (OSError, ValueError):
        return None


def picture_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield what may be pictures of a sweep, by their names."""
    for pattern in ("*/*.png", "*/*/*.png"):
        yield from (path for path in Path(folder).glob(pattern) if _PICTURE.fullmatch(path.name))
