"""The contact sheets of a `FeatureMonitor`, and the film that joins them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from featviz_pl.io import contact_sheet, read_picture, save_animation, save_png
from featviz_pl.io.labels import add_labels, text_width
from featviz_pl.io.pictures import displayable

GAP = 2  # pixels between pictures
WIDEST_SCORE = "-8.88e-88"
MAX_COLUMNS = 16  # of the still film; the animation has all sheets


def monitor_sheet(pictures: Tensor, labels: Sequence[tuple[str, str]] | None = None) -> Tensor:
    """Return the contact sheet of pictures (N, C, H, W), with target and score under each where there are labels."""
    cells = [displayable(picture) for picture in pictures]
    if labels is not None:  # the width depends on the targets alone: all sheets of a film have one size
        width = max(text_width(text) for target, _ in labels for text in (target, WIDEST_SCORE))
        cells = [add_labels(cell, lines, width) for cell, lines in zip(cells, labels)]
    return contact_sheet(torch.stack(cells), _columns(len(cells)), GAP)


def save_film(folder: Path, names: Sequence[str], count: int) -> None:
    """Join sheets of `count` pictures each: ``film.webp`` moves, ``film.png`` has a row for each picture."""
    frames = [folder / name for name in dict.fromkeys(names) if (folder / name).is_file()]
    if len(frames) < 2:
        return
    save_animation(frames, folder / "film.webp", milliseconds=400)
    columns = [_cut_sheet(frame, count) for frame in evenly_spaced(frames, MAX_COLUMNS)]
    rows = torch.stack(columns, dim=1).flatten(0, 1)  # picture by picture, each through all frames
    save_png(contact_sheet(rows, len(columns), GAP), folder / "film.png")


def evenly_spaced(frames: Sequence[Path], limit: int) -> list[Path]:
    """Return the first frame, the last, and evenly spaced ones between, `limit` at most.

    Example:
        >>> [path.name for path in evenly_spaced([Path(str(number)) for number in range(9)], 3)]
        ['0', '4', '8']
    """
    if len(frames) <= limit:
        return list(frames)
    return [frames[round(index * (len(frames) - 1) / (limit - 1))] for index in range(limit)]


def _columns(count: int) -> int:
    return math.ceil(math.sqrt(count))


def _cut_sheet(path: Path, count: int) -> Tensor:
    """Return the pictures (N, 3, H, W) of a sheet."""
    sheet, columns = read_picture(path), _columns(count)
    height = (sheet.shape[1] + GAP) // math.ceil(count / columns)
    width = (sheet.shape[2] + GAP) // columns
    corners = [(index // columns * height, index % columns * width) for index in range(count)]
    return torch.stack([sheet[:, top : top + height - GAP, left : left + width - GAP] for top, left in corners])
