"""Pictures on disk: whole or absent, with their provenance."""

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
from featviz_pl.io.sheets import save_sheet


def random_picture(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


# Levels and files.


def test_levels_are_the_nearest_of_256() -> None:
    values = np.linspace(-0.5, 1.5, 1000)
    levels = to_uint8(torch.from_numpy(values)).numpy()
    nearest = np.abs(values[:, None] - np.arange(256) / 255).argmin(1)
    assert np.array_equal(levels, nearest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_as_saved_is_what_a_file_gives_back(tmp_path: Path, dtype: torch.dtype, channels: int) -> None:
    image = random_picture(channels, 5, 7).to(dtype)
    saved = as_saved(image)
    assert saved.dtype == dtype
    assert float((saved - image).abs().max()) <= 0.5 / 255 + 1e-6
    read = read_picture(save_png(image, tmp_path / "a.png"), channels)
    torch.testing.assert_close(saved.float(), read, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "mode", "width"), [(1, "L", 6), (3, "RGB", 6), (4, "RGBA", 6), (2, "L", 12), (7, "L", 42)]
)
def test_any_number_of_channels_is_displayed(channels: int, mode: str, width: int) -> None:
    image = random_picture(channels, 4, 6)
    picture = to_pillow(image)
    assert (picture.mode, picture.size) == (mode, (width, 4))
    levels = np.round(image.numpy() * 255)
    panels = np.concatenate(list(levels), axis=1)
    assert np.array_equal(np.asarray(picture), panels if mode == "L" else levels.transpose(1, 2, 0))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (4, 4)])
def test_only_a_single_picture_becomes_a_pillow_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one picture"):
        to_pillow(random_picture(*shape))


# Provenance.


def test_provenance_survives_the_file_and_equal_values_give_equal_bytes(tmp_path: Path) -> None:
    values: dict[str, Any] = {"target": ["a:0", "ä:1"], "score": 1.5, "weights": None, "size": [3, 4]}
    image = random_picture(3, 4, 4)
    path = save_png(image, tmp_path / "a.png", values)
    assert read_provenance(path) == values
    reordered = dict(reversed(values.items()))
    assert save_png(image, tmp_path / "b.png", reordered).read_bytes() == path.read_bytes()
    with Pillow.open(path) as picture:
        picture.load()
        assert "featviz_pl" in picture.info


@pytest.mark.parametrize("values", [None, [1, 2], 3, "text"])
def test_a_file_without_provenance_says_so(tmp_path: Path, values: Any) -> None:
    with pytest.raises(ValueError, match="no provenance"):
        read_provenance(save_png(random_picture(3, 4, 4), tmp_path / "a.png", values))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "{}}"])
def test_damaged_provenance_is_none(tmp_path: Path, text: str) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("featviz_pl", text)
    Pillow.new("L", (2, 2)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(ValueError, match="no provenance"):
        read_provenance(tmp_path / "a.png")


# Whole or absent.


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [None, b"earlier"])
def test_a_failing_writer_leaves_things_as_they_were(
    tmp_path: Path, before: bytes | None, error: BaseException
) -> None:
    path = tmp_path / "a.png"
    if before is not None:
        path.write_bytes(before)

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        assert temporary.parent == path.parent  # so that the rename stays on one file system
        raise error

    with pytest.raises(type(error)):
        write_whole(path, write)
    files = [(file.name, file.read_bytes()) for file in tmp_path.iterdir()]
    assert files == ([] if before is None else [("a.png", before)])


@pytest.mark.parametrize("name", ["a.txt", "字" * 83 + ".png"])
def test_the_file_appears_only_when_it_is_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / "folder" / name

    def write(temporary: Path) -> None:
        temporary.write_text("first half, ")
        assert not path.exists()
        with temporary.open("a") as file:
            file.write("second half")

    assert write_whole(path, write) == path
    assert path.read_text() == "first half, second half"
    assert write_whole(path, "ä\n").read_bytes() == "ä\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_outputs_are_tried_without_a_trace(tmp_path: Path) -> None:
    output = tmp_path / "not" / "yet" / "a.PNG"
    assert check_output(output) == output
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be_written_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for name, message in (
        ("a.jpg", r"must end in \.png"),
        ("a", r"must end in \.png"),
        ("folder.png", "is a folder"),
        ("file/a.png", "cannot write"),
        ("file/deeper/a.png", "cannot write"),
        ("a" * 300 + ".png", "cannot write .*too long"),
    ):
        with pytest.raises(ValueError, match=message):
            check_output(tmp_path / name)

    def refuse(**arguments: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"cannot write '.*a\.png': Permission denied"):
        check_output(tmp_path / "a.png")


# Sheets and animations.


@pytest.mark.parametrize(("count", "columns"), [(1, None), (2, 1), (3, 3), (5, None), (5, 3), (12, None)])
@pytest.mark.parametrize("size", [(2, 3), (5, 2)])
def test_a_sheet_holds_every_picture_once_on_white(count: int, columns: int | None, size: tuple[int, int]) -> None:
    height, width = size
    images = random_picture(count, 3, height, width) * 0.5
    sheet = contact_sheet(images, columns, gap=1).numpy()
    across = (sheet.shape[2] + 1) // (width + 1)
    assert columns in (None, across)
    painted = np.ones_like(sheet)
    corners = [(y, x) for y in range(0, sheet.shape[1], height + 1) for x in range(0, sheet.shape[2], width + 1)]
    assert count <= len(corners) < count + across  # every picture has a cell, and no row is empty
    for image, (top, left) in zip(images, corners, strict=False):
        painted[:, top : top + height, left : left + width] = image.numpy()
    assert np.array_equal(sheet, painted)


def test_a_sheet_without_a_number_of_columns_is_about_square() -> None:
    for count, size in ((16, (8, 8)), (10, (8, 8)), (12, (4, 16)), (30, (16, 4))):
        _, height, width = contact_sheet(random_picture(count, 3, *size)).shape
        assert 0.35 <= height / width <= 2


def test_a_sheet_of_files_has_a_cell_for_every_unit(tmp_path: Path) -> None:
    files = [save_png(torch.full((3, 4, 5), unit / 255), tmp_path / f"{unit}.png") for unit in (10, 20, 30)]
    path = save_sheet([files[0], None, *files[1:]], tmp_path / "a.png", {"target": "a"})
    assert path is not None
    assert read_provenance(path) == {"target": "a"}
    expected = torch.full((10, 12), 255.0)  # two rows of 4 and two columns of 5 pixels, with gaps of 2
    expected[:4, :5], expected[6:, :5], expected[6:, 7:] = 10, 20, 30
    assert torch.equal((read_picture(path) * 255).round()[0], expected)
    assert save_sheet([None, None], tmp_path / "none.png", {}) is None
    assert not (tmp_path / "none.png").exists()


def test_a_sheet_of_many_files_is_reduced(tmp_path: Path) -> None:
    files = [save_png(torch.full((1, 16, 16), 0.5), tmp_path / f"{unit}.png") for unit in range(9)]
    path = save_sheet(files, tmp_path / "sheet.png", {}, longest_side=20)
    assert path is not None
    sheet = read_picture(path, channels=1)
    assert sheet.shape == (1, 16, 16)  # three of 4 pixels and two gaps: 20 // 3 - 2 = 4
    assert float((sheet < 0.6).float().mean()) == pytest.approx(144 / 256)


def test_an_animation_holds_every_frame_and_the_last_longer(tmp_path: Path) -> None:
    frames = [save_png(torch.full((3, 8, 8), value), tmp_path / f"{value}.png") for value in (0.0, 0.5, 1.0)]
    path = save_animation(frames, tmp_path / "a.webp", milliseconds=50)
    with Pillow.open(path) as film:
        assert (film.n_frames, film.size) == (3, (8, 8))  # type: ignore[attr-defined]
        times = []
        for index, level in enumerate((0.0, 0.5, 1.0)):
            film.seek(index)
            film.load()
            times.append(film.info["duration"])
            assert float(np.asarray(film.convert("RGB")).mean()) / 255 == pytest.approx(level, abs=0.02)
    assert times == [50, 50, 500]
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".png"] * 3 + [".webp"]
    with pytest.raises(ValueError, match=r"must end in \.webp"):
        save_animation([], tmp_path / "a.gif")
