"""A contact sheet of a whole layer, from files, one picture in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from featviz_pl.io.pictures import write_png
from featviz_pl.io.reading import open_picture

WIDEST = 8192  # pixels: what programs still show; the pictures of larger layers are reduced
GAP = 2


def save_sheet(pictures: Sequence[Path | None], path: Path, provenance: Mapping[str, Any]) -> Path | None:
    """Lay pictures out in rows on white, smaller where there are many; a place without a picture stays white.

    Args:
        pictures: files of one size, or None where a unit has none.
        path: of the sheet.
        provenance: of the sheet.

    Returns:
        The sheet, or None where there is no picture at all.
    """
    first = next((file for file in pictures if file is not None), None)
    if first is None:
        return None
    example = open_picture(first)
    (width, height), mode = example.size, example.mode
    across = math.ceil(math.sqrt(len(pictures) * height / width))
    down = math.ceil(len(pictures) / across)
    scale = min(1.0, (WIDEST / across - GAP) / width, (WIDEST / down - GAP) / height)
    cell = max(1, int(width * scale)), max(1, int(height * scale))
    sheet = Pillow.new(mode, (across * (cell[0] + GAP) - GAP, down * (cell[1] + GAP) - GAP), "white")
    for index, file in enumerate(pictures):
        if file is not None:
            picture = open_picture(file)
            small = picture if picture.size == cell else picture.resize(cell, Pillow.Resampling.BOX)
            sheet.paste(small, (index % across * (cell[0] + GAP), index // across * (cell[1] + GAP)))
    return write_png(sheet, path, provenance)
