"""A moment of a training as a sheet of pictures, and all moments as a film."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from featviz_pl.io import contact_sheet, read_picture, save_animation, save_png
from featviz_pl.io.pictures import displayable

GAP = 2
MOST_MOMENTS = 16  # in the still film; the animation has all


def save_moment(folder: Path, step: int, pictures: Tensor, origin: dict[str, Any]) -> str:
    """Save pictures (N, C, H, W) as one sheet, and return the name of the file."""
    name = f"step-{step:06d}.png"
    shown = torch.stack([displayable(picture) for picture in pictures])
    save_png(contact_sheet(shown, _columns(len(shown)), GAP), folder / name, origin)
    return name


def save_film(folder: Path, names: Sequence[str], count: int) -> None:
    """Join the sheets of several moments, `count` pictures each: ``film.webp`` moves, ``film.png`` has a row for each picture."""
    frames = [folder / name for name in dict.fromkeys(names) if (folder / name).is_file()]
    if len(frames) < 2:
        return
    save_animation(frames, folder / "film.webp", milliseconds=400)
    moments = [_pictures(frame, count) for frame in evenly(frames, MOST_MOMENTS)]
    rows = torch.stack(moments, dim=1).flatten(0, 1)  # picture by picture, each through all moments
    save_png(contact_sheet(rows, len(moments), GAP), folder / "film.png")


def evenly(frames: Sequence[Path], most: int) -> list[Path]:
    """Return the first, the last, and as many between them as there may be, evenly.

    Example:
        >>> [path.name for path in evenly([Path(str(number)) for number in range(9)], 3)]
        ['0', '4', '8']
    """
    if len(frames) <= most:
        return list(frames)
    return [frames[round(place * (len(frames) - 1) / (most - 1))] for place in range(most)]


def _columns(count: int) -> int:
    return math.ceil(math.sqrt(count))


def _pictures(path: Path, count: int) -> Tensor:
    """Cut a sheet into its pictures (N, 3, H, W)."""
    sheet, across = read_picture(path), _columns(count)
    down = math.ceil(count / across)
    height, width = (sheet.shape[1] + GAP) // down, (sheet.shape[2] + GAP) // across
    corners = [(place // across * height, place % across * width) for place in range(count)]
    return torch.stack([sheet[:, top : top + height - GAP, left : left + width - GAP] for top, left in corners])
