"""Every argument that names a picture file reads it alike, and refuses pipes and damaged files in one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from toys import toy

from featviz_pl.images import FixedImage, FourierImage, MaskedImage
from featviz_pl.metrics import evaluate, read_photos
from featviz_pl.objectives import Content
from featviz_pl.statistics import folder_statistics
from featviz_pl.training.initial_image import read_start

SIZE = (24, 16)
DOORS: dict[str, Callable[[Path], Any]] = {
    "start": lambda path: read_start(str(path), 3)[0],
    "picture": lambda path: FixedImage(str(path)).picture[0],
    "mask": lambda path: MaskedImage(FourierImage(SIZE), torch.zeros(3, *SIZE), str(path)).mask[0].expand(3, -1, -1),
    "reference": lambda path: Content("features.5", str(path)).reference.image[0],
    "pictures": lambda path: evaluate(path, toy(), targets="features.5:1") and None,
    "paths": lambda path: next(iter(read_photos([path], SIZE)))[0],
}


@pytest.mark.parametrize("door", DOORS)
def test_wide_and_turned_pictures_are_read_at_every_door(door: str, tmp_path: Path) -> None:
    levels = np.broadcast_to(np.linspace(0, 1, 24, dtype=np.float32), (16, 24))
    exif = Pillow.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise: 24 rows, falling from the top
    picture = Pillow.fromarray((levels * 65535).astype(np.uint16))
    picture.save(tmp_path / "a.png", exif=exif)
    read = DOORS[door](tmp_path / "a.png")
    if read is not None:
        np.testing.assert_allclose(read.numpy(), np.broadcast_to(levels.T, (3, *SIZE)), atol=0.51 / 255)


@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_picture_is_refused_at_every_door(door: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("no picture")
    for name in ("pipe.png", "text.png", "absent.png"):
        with pytest.raises(ValueError, match=rf"{name}") as caught:
            DOORS[door](tmp_path / name)
        assert "\n" not in str(caught.value)


def test_folders_of_photos_skip_and_count_what_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("no picture")
    Pillow.new("RGB", (8, 8)).save(tmp_path / "a.png")
    statistics = folder_statistics(tmp_path, size=8)
    assert (statistics.spectrum.count, statistics.unreadable) == (1, 2)
