"""Pictures on disk: whole or absent, with their origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor

from featviz_pl.io import (
    as_saved,
    contact_sheet,
    read_picture,
    read_provenance,
    save_animation,
    save_png,
    to_pillow,
    to_uint8,
)
from featviz_pl.io.files import check_output, write_whole


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# Levels.


def test_levels_are_the_nearest_of_256() -> None:
    values = np.linspace(0, 1, 1001)
    levels = to_uint8(torch.from_numpy(values)).numpy()
    nearest = np.abs(values[:, None] - np.arange(256) / 255).min(1)
    np.testing.assert_allclose(np.abs(levels / 255 - values), nearest, atol=1e-7)


def test_levels_outside_the_range_are_clipped() -> None:
    assert to_uint8(torch.tensor([-0.5, 1.5])).tolist() == [0, 255]


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_as_saved_is_what_a_file_gives_back(tmp_path: Path, precision: torch.dtype) -> None:
    image = picture(3, 5, 7).to(precision)
    assert as_saved(image).dtype == precision
    torch.testing.assert_close(
        as_saved(image).float(), read_picture(save_png(image, tmp_path / "a.png")), rtol=0, atol=1e-6
    )


# One picture.


@pytest.mark.parametrize(
    ("channels", "mode", "width"), [(1, "L", 6), (3, "RGB", 6), (4, "RGBA", 6), (2, "L", 12), (7, "L", 42)]
)
def test_any_number_of_channels_is_shown(channels: int, mode: str, width: int) -> None:
    image = picture(channels, 4, 6)
    shown = to_pillow(image)
    assert (shown.mode, shown.size) == (mode, (width, 4))
    levels = np.round(image.numpy() * 255)
    expected = (
        levels[0]
        if channels == 1
        else np.concatenate(list(levels), axis=1)
        if mode == "L"
        else levels.transpose(1, 2, 0)
    )
    assert np.array_equal(np.asarray(shown), expected)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (4, 4)])
def test_only_one_picture_is_turned_into_one(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one picture"):
        to_pillow(picture(*shape))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_survives_its_file(tmp_path: Path, channels: int) -> None:
    image = picture(channels, 5, 3)
    read = read_picture(save_png(image, tmp_path / "a.png"), channels)
    assert read.shape == image.shape
    assert float((read - image).abs().max()) <= 0.5 / 255 + 1e-6


def test_no_file_holds_seven_channels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1, 3 or 4, not 7"):
        read_picture(save_png(picture(7, 4, 4), tmp_path / "a.png"), 7)


# Origin.


def test_origin_survives_the_file(tmp_path: Path) -> None:
    origin: dict[str, Any] = {"target": ["a:0", "ä:1"], "score": 1.5, "seed": 0, "weights": None, "size": [3, 4]}
    path = save_png(picture(3, 4, 4), tmp_path / "a.png", origin)
    assert read_provenance(path) == origin
    with Pillow.open(path) as held:
        assert isinstance(held, Pillow.Image)
        assert "featviz_pl" in held.info


def test_equal_origins_in_another_order_give_equal_bytes(tmp_path: Path) -> None:
    image = picture(3, 4, 4)
    first = save_png(image, tmp_path / "a.png", {"a": 1, "b": 2}).read_bytes()
    assert save_png(image, tmp_path / "b.png", {"b": 2, "a": 1}).read_bytes() == first


def test_a_file_without_origin_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no provenance"):
        read_provenance(save_png(picture(3, 4, 4), tmp_path / "a.png"))


@pytest.mark.parametrize("read", [read_provenance, read_picture])
@pytest.mark.parametrize(
    "content", [None, b"", b"no picture", b"\x89PNG\r\n\x1a\n torn"], ids=["missing", "empty", "text", "torn"]
)
def test_what_cannot_be_read_is_named(tmp_path: Path, read: Any, content: bytes | None) -> None:
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"path: cannot read .*broken\.png"):
        read(path)


@pytest.mark.parametrize("read", [read_provenance, read_picture])
def test_a_truncated_picture_is_refused(tmp_path: Path, read: Any) -> None:
    path = save_png(picture(3, 40, 40), tmp_path / "a.png", {"seed": 0})
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(ValueError, match="path: cannot read"):
        read(path)


# Whole or absent.


@pytest.mark.parametrize("before", [None, b"what was there"], ids=["absent", "present"])
def test_a_failing_writer_leaves_things_as_they_were(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "a.png"
    if before is not None:
        path.write_bytes(before)

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        assert temporary.parent == path.parent  # so that the rename stays on one file system
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, write)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == (
        [] if before is None else [("a.png", before)]
    )


def test_an_interrupted_writer_leaves_no_file(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a.png", write)
    assert list(tmp_path.iterdir()) == []


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"

    def write(temporary: Path) -> None:
        temporary.write_text("first half, ")
        assert not path.exists()
        with temporary.open("a") as file:
            file.write("second half")

    assert write_whole(path, write) == path
    assert path.read_text() == "first half, second half"
    assert list(path.parent.iterdir()) == [path]


# Where a file may go.


def test_a_place_that_works_is_tried_without_a_trace(tmp_path: Path) -> None:
    wanted = tmp_path / "not" / "yet" / "a.PNG"
    assert check_output(wanted) == wanted
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_work_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for path, message in (
        (tmp_path / "a.jpg", r"must end in \.png"),
        (tmp_path / "a", r"must end in \.png"),
        (tmp_path / "folder.png", "is a folder"),
        (tmp_path / "file" / "a.png", "cannot write"),
        (tmp_path / "file" / "deeper" / "a.png", "cannot write"),
    ):
        with pytest.raises(ValueError, match=message):
            check_output(path)

    def refuse(**arguments: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"cannot write '.*a\.png': Permission denied"):
        check_output(tmp_path / "a.png")


# Sheets and animations.


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("columns", [None, 1, 3])
@pytest.mark.parametrize("size", [(2, 3), (5, 2)])
def test_a_sheet_holds_every_picture_once_on_white(count: int, columns: int | None, size: tuple[int, int]) -> None:
    height, width = size
    images = picture(count, 3, height, width) * 0.5
    sheet = contact_sheet(images, columns, gap=1).numpy()
    across = (sheet.shape[2] + 1) // (width + 1)
    if columns is not None:
        assert across == columns
    painted = np.ones_like(sheet)
    place = 0
    for top in range(0, sheet.shape[1], height + 1):
        for left in range(0, sheet.shape[2], width + 1):
            if place < count:
                painted[:, top : top + height, left : left + width] = images[place].numpy()
            place += 1
    assert count <= place < count + across  # every picture has a place, and no row is empty
    assert np.array_equal(sheet, painted)


def test_a_sheet_of_its_own_choice_is_about_square() -> None:
    for count, size in ((16, (8, 8)), (10, (8, 8)), (12, (4, 16)), (30, (16, 4))):
        _, height, width = contact_sheet(picture(count, 3, *size)).shape
        assert 0.35 <= height / width <= 2


def test_an_animation_holds_every_frame_and_the_last_one_longer(tmp_path: Path) -> None:
    frames = [save_png(torch.full((3, 8, 8), value), tmp_path / f"{value}.png") for value in (0.0, 0.5, 1.0)]
    path = save_animation(frames, tmp_path / "a.webp", milliseconds=50)
    with Pillow.open(path) as film:
        assert (film.n_frames, film.size) == (3, (8, 8))  # type: ignore[attr-defined]
        shown = []
        for index in range(3):
            film.seek(index)
            film.load()
            shown.append((film.info["duration"], round(float(np.asarray(film.convert("RGB")).mean()) / 255, 1)))
    assert shown == [(50, 0.0), (50, 0.5), (500, 1.0)]
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".png"] * 3 + [".webp"]


def test_an_animation_goes_into_a_webp(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.webp"):
        save_animation([], tmp_path / "a.gif")
