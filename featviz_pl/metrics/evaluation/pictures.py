"""Pictures that are to be evaluated: tensors, and files with what they say of themselves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from featviz_pl.io import read_picture, read_provenance
from featviz_pl.numerics.color import on_grey

PICTURE_CHANNELS = (1, 3, 4)  # of files


@dataclass(frozen=True)
class EvaluatedPicture:
    """Hold one picture with its target.

    Args:
        name: path of the file, or the number of the tensor.
        image: (C, H, W) in [0, 1].
        target: in the shorthand, or, of a file whose objective has no shorthand, whatever it says.
        origin: what the file says of itself.
    """

    name: str
    image: Tensor
    target: str
    origin: dict[str, Any] = field(default_factory=dict, repr=False)


Pictures = Tensor | str | os.PathLike[str] | Sequence[Tensor | str | os.PathLike[str] | EvaluatedPicture]


def gather(
    pictures: Pictures, channels: int, targets: str | Sequence[str] | None = None
) -> tuple[list[EvaluatedPicture], list[str]]:
    """Return pictures with their targets, and notes on files that were left out.

    Args:
        pictures: tensors (N, C, H, W) or (C, H, W), files, folders, or a list of these. Sheets of several pictures are
            left out.
        channels: that the network takes.
        targets: one for each picture, or one for all; files say their own unless given.

    Raises:
        ValueError: when there are no pictures, a file cannot be read, a picture has no target, or the numbers differ.
    """
    given = [pictures] if isinstance(pictures, (Tensor, str, os.PathLike)) else list(pictures)
    found: list[EvaluatedPicture] = []
    sheets: list[str] = []
    for one in given:
        if isinstance(one, EvaluatedPicture):
            found.append(replace(one, image=_opaque(one.image, channels)))
        elif isinstance(one, Tensor):
            found += [
                EvaluatedPicture(str(len(found) + place), image, "")
                for place, image in enumerate(_batch(one, channels))
            ]
        elif isinstance(one, (str, os.PathLike)):
            for path in picture_files([one]):
                origin = own_origin(path)
                if is_sheet(origin):
                    sheets.append(str(path))
                else:
                    found.append(
                        EvaluatedPicture(str(path), _read(path, channels), str(origin.get("target", "")), origin)
                    )
        else:
            raise TypeError(f"pictures must be tensors (N, C, H, W) in [0, 1] or paths, got {type(one).__name__}")
    left_out = (
        f"{named(sheets)} left out: a sheet of several pictures; evaluate the files of single ones" if sheets else ""
    )
    if not found:
        raise ValueError(f"pictures: {left_out or 'there are none; give tensors (N, C, H, W) or PNG files'}")
    chosen = [_own_target(one) for one in found] if targets is None else _given_targets(targets, len(found), left_out)
    return [replace(one, target=target) for one, target in zip(found, chosen)], [left_out] if sheets else []


def picture_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return files as they are given, folders as the PNG files below them, in the order of their names and numbers.

    The manifest of a sweep, which ``folder/*`` names too, is left out.

    Raises:
        ValueError: when a folder holds no PNG file.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            below = [file for file in path.rglob("*.png") if not file.name.startswith(".")]
            if not below:
                raise ValueError(f"pictures: the folder {str(path)!r} holds no PNG files")
            found += sorted(below, key=_order)
        elif not (path.suffix == ".jsonl" and path.name.startswith("manifest.")):
            found.append(path)
    return found


def _order(path: Path) -> list[tuple[int, str]]:
    """Return a key that puts 9.png before 10.png."""
    return [(int(part.stem) if part.stem.isdigit() else -1, str(part)) for part in map(Path, path.parts)]


def own_origin(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a file says of itself, nothing where it says nothing."""
    try:
        origin = read_provenance(path)
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}


def is_sheet(origin: dict[str, Any]) -> bool:
    """Say whether a file shows several pictures: those of a run, or of a layer of a sweep."""
    return isinstance(origin.get("target"), list) or ("target" in origin and "objective" not in origin)


def _batch(images: Tensor, channels: int) -> list[Tensor]:
    if images.ndim not in (3, 4):
        raise ValueError(f"pictures must be (N, C, H, W) or (C, H, W), got shape {tuple(images.shape)}")
    return [_opaque(image, channels) for image in (images if images.ndim == 4 else images[None])]


def _opaque(image: Tensor, channels: int) -> Tensor:
    """Return a picture (C, H, W) as the network takes it, a transparent one on grey."""
    if len(image) not in (channels, channels + 1):
        raise ValueError(f"pictures: {len(image)} channels do not fit the network, which takes {channels}")
    return on_grey(image.detach()) if len(image) > channels else image.detach()


def _read(path: Path, channels: int) -> Tensor:
    if channels not in PICTURE_CHANNELS:
        raise ValueError(
            f"pictures: the network takes {channels} channels, and files hold 1, 3 or 4; give tensors (N, {channels}, H, W)"
        )
    return on_grey(read_picture(path, 4)) if channels == 3 else read_picture(path, channels)


def _given_targets(targets: str | Sequence[str], count: int, left_out: str) -> list[str]:
    given = [targets] if isinstance(targets, str) else list(targets)
    if len(given) not in (1, count):
        more = f" ({left_out})" if left_out else ""
        raise ValueError(f"targets: {len(given)} do not fit {count} pictures{more}; give one for all, or one for each")
    return given * count if len(given) == 1 else given


def _own_target(picture: EvaluatedPicture) -> str:
    if not picture.target:
        what = "file" if picture.name and not picture.name.isdigit() else "tensor"
        raise ValueError(
            f"targets: the {what} {picture.name!r} does not say what it shows; give its target, such as 'features.9:33' (--target)"
        )
    return picture.target


def named(names: Sequence[str], most: int = 3) -> str:
    """Return the first names of a list, and the number of the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
