"""Pictures to evaluate: tensors, and files with their provenance."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from featviz_pl.io import read_picture, read_provenance
from featviz_pl.numerics.color import on_grey

_FILE_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class EvaluatedPicture:
    """Hold one picture with its target.

    Args:
        name: path of the file, or the index of the tensor.
        image: (C, H, W) in [0, 1].
        target: in the shorthand, or, of a file whose objective has no shorthand, as in its provenance.
        provenance: of the file.
    """

    name: str
    image: Tensor
    target: str
    provenance: dict[str, Any] = field(default_factory=dict, repr=False)


Pictures = Tensor | str | os.PathLike[str] | Sequence[Tensor | str | os.PathLike[str] | EvaluatedPicture]


def gather_pictures(
    pictures: Pictures, channels: int, targets: str | Sequence[str] | None = None
) -> tuple[list[EvaluatedPicture], list[str]]:
    """Return pictures with their targets, and notes on files that were left out.

    Args:
        pictures: tensors (N, C, H, W) or (C, H, W), files, folders, or a list of these. Sheets of several pictures are
            left out.
        channels: of the network.
        targets: one for each picture, or one for all; those of the files unless given.

    Raises:
        ValueError: when there are no pictures, a file cannot be read, a picture has no target, or the numbers differ.
    """
    gathered: list[EvaluatedPicture] = []
    sheets: list[str] = []
    for item in [pictures] if isinstance(pictures, (Tensor, str, os.PathLike)) else pictures:
        if isinstance(item, EvaluatedPicture):
            gathered.append(replace(item, image=_opaque(item.image, channels)))
        elif isinstance(item, Tensor):
            first = len(gathered)
            images = [_opaque(image, channels) for image in _batch(item)]
            gathered += [EvaluatedPicture(str(first + index), image, "") for index, image in enumerate(images)]
        elif isinstance(item, (str, os.PathLike)):
            for path in picture_files([item]):
                provenance = file_provenance(path)
                if is_sheet(provenance):
                    sheets.append(str(path))
                else:
                    target = str(provenance.get("target", ""))
                    gathered.append(EvaluatedPicture(str(path), _read(path, channels), target, provenance))
        else:
            raise TypeError(f"pictures must be tensors (N, C, H, W) in [0, 1] or paths, got {type(item).__name__}")
    notes = (
        [f"{first_names(sheets)} left out: a sheet of several pictures; evaluate the files of single ones"]
        if sheets
        else []
    )
    if not gathered:
        raise ValueError(f"pictures: {'; '.join(notes) or 'there are none; give tensors (N, C, H, W) or PNG files'}")
    if targets is None:
        for picture in gathered:
            _check_has_target(picture)
        return gathered, notes
    listed = [targets] if isinstance(targets, str) else list(targets)
    if len(listed) not in (1, len(gathered)):
        hint = f" ({'; '.join(notes)})" if notes else ""
        counts = f"{len(listed)} do not fit {len(gathered)} pictures"
        raise ValueError(f"targets: {counts}{hint}; give one for all, or one for each")
    listed *= len(gathered) if len(listed) == 1 else 1
    return [replace(picture, target=target) for picture, target in zip(gathered, listed)], notes


def picture_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return files as they are given, folders as the PNG files below them, sorted by names and numbers.

    The manifest of a sweep, which ``folder/*`` names too, is left out.

    Raises:
        ValueError: when a folder holds no PNG file.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            below = [file for file in path.rglob("*.png") if not file.name.startswith(".")]
            if not below:
                raise ValueError(f"pictures: the folder {str(path)!r} holds no PNG files")
            files += sorted(below, key=_sort_key)
        elif not (path.suffix == ".jsonl" and path.name.startswith("manifest.")):
            files.append(path)
    return files


def _sort_key(path: Path) -> list[tuple[int, str]]:
    """Return a key that puts 9.png before 10.png."""
    return [(int(part.stem) if part.stem.isdigit() else -1, str(part)) for part in map(Path, path.parts)]


def file_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the provenance of a file, empty where it has none."""
    try:
        provenance = read_provenance(path)
    except ValueError:
        return {}
    return provenance if isinstance(provenance, dict) else {}


def is_sheet(provenance: dict[str, Any]) -> bool:
    """Say whether a file shows several pictures: those of a run, or of a layer of a sweep."""
    return isinstance(provenance.get("target"), list) or ("target" in provenance and "objective" not in provenance)


def first_names(names: Sequence[str], count: int = 3) -> str:
    """Return the first names of a list, and the number of the others."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _batch(images: Tensor) -> Tensor:
    if images.ndim not in (3, 4):
        raise ValueError(f"pictures must be (N, C, H, W) or (C, H, W), got shape {tuple(images.shape)}")
    return images if images.ndim == 4 else images[None]


def _opaque(image: Tensor, channels: int) -> Tensor:
    """Return a picture (C, H, W) as the network takes it, a transparent one on grey."""
    if len(image) not in (channels, channels + 1):
        raise ValueError(f"pictures: {len(image)} channels do not fit the network, which takes {channels}")
    return on_grey(image.detach()) if len(image) > channels else image.detach()


def _read(path: Path, channels: int) -> Tensor:
    if channels not in _FILE_CHANNELS:
        raise ValueError(f"pictures: files hold 1, 3 or 4 channels; give tensors (N, {channels}, H, W) to this network")
    return read_picture(path, channels, "pictures")


def _check_has_target(picture: EvaluatedPicture) -> None:
    if not picture.target:
        kind = "file" if picture.name and not picture.name.isdigit() else "tensor"
        hint = "give its target, such as 'features.9:33' (--target)"
        raise ValueError(f"targets: the {kind} {picture.name!r} does not say what it shows; {hint}")
