"""Picture files of every kind: what they hold is read, and what cannot be read is refused in one line."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from featviz_pl.io import read_picture, read_provenance
from featviz_pl.io.reading import open_picture

RAMP = np.linspace(0, 1, 24, dtype=np.float64).reshape(4, 6)
WIDE = (RAMP * 65535).round().astype(np.uint16)
COLORS = np.random.default_rng(0).integers(0, 256, (4, 6, 4), dtype=np.uint8)
ORIENTATION = 0x0112


def file(folder: Path, name: str, values: Any, **options: Any) -> Path:
    picture = values if isinstance(values, Pillow.Image) else Pillow.fromarray(values)
    picture.save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize(
    ("name", "values", "step"),
    [
        ("8.png", (RAMP * 255).round().astype(np.uint8), 255),
        ("16.png", WIDE, 65535),
        ("16.tiff", WIDE, 65535),
        ("big-endian.tiff", WIDE.astype(">u2"), 65535),
        ("16.pgm", WIDE.astype(np.int32), 65535),
        ("32.tiff", WIDE.astype(np.int32), 65535),
        ("float.tiff", RAMP.astype(np.float32), 2**24),
    ],
)
def test_grey_pictures_keep_their_precision(tmp_path: Path, name: str, values: Any, step: int) -> None:
    path = file(tmp_path, name, values)
    for channels in (1, 3, 4):
        read = read_picture(path, channels).numpy()
        assert read.dtype == np.float32
        np.testing.assert_allclose(read[:3], np.broadcast_to(RAMP, read[:3].shape), rtol=0, atol=0.51 / step)
        assert (read[3:] == 1).all()


def test_colors_of_every_mode_are_those_of_their_pixels(tmp_path: Path) -> None:
    colors = COLORS[..., :3]
    expected = colors.transpose(2, 0, 1) / 255
    cmyk = Pillow.new("CMYK", (6, 4), (0, 255, 51, 51))  # no cyan, all magenta
    for path, right, tolerance in (
        (file(tmp_path, "rgb.png", colors), expected, 0),
        (file(tmp_path, "rgb.bmp", colors), expected, 0),
        (file(tmp_path, "rgb.webp", colors, lossless=True), expected, 0),
        (file(tmp_path, "rgb.tiff", colors, compression="tiff_lzw"), expected, 0),
        (file(tmp_path, "cmyk.tiff", cmyk), np.array([0.8, 0, 0.64])[:, None, None], 0.005),
        (file(tmp_path, "cmyk.jpg", cmyk, quality=100), np.array([0.8, 0, 0.64])[:, None, None], 0.02),
        (file(tmp_path, "palette.png", Pillow.fromarray(colors).quantize(9)), None, 0),
        (file(tmp_path, "bit.png", RAMP > 0.5), np.broadcast_to(RAMP > 0.5, (3, 4, 6)), 0),
    ):
        read = read_picture(path).numpy()
        if right is None:
            right = np.asarray(Pillow.open(path).convert("RGB")).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(read, np.broadcast_to(right, read.shape), rtol=0, atol=tolerance + 1e-6)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "palette", "key"])
def test_transparent_pictures_are_put_on_grey(tmp_path: Path, mode: str) -> None:
    if mode == "palette":
        path = file(tmp_path, "a.png", Pillow.fromarray(COLORS[..., 0]).convert("P"), transparency=bytes(range(256)))
    elif mode == "key":
        path = file(tmp_path, "a.png", COLORS[..., 0], transparency=int(COLORS[0, 0, 0]))
    else:
        path = file(tmp_path, "a.png", Pillow.fromarray(COLORS).convert(mode))
    rgba = np.asarray(Pillow.open(path).convert("RGBA")).transpose(2, 0, 1) / 255
    assert rgba[3].min() < 1
    np.testing.assert_allclose(read_picture(path, 4).numpy(), rgba, rtol=0, atol=1e-6)
    on_grey = rgba[:3] * rgba[3] + 0.5 * (1 - rgba[3])
    np.testing.assert_allclose(read_picture(path, 3).numpy(), on_grey, rtol=0, atol=1e-6)
    luminance = np.tensordot([0.299, 0.587, 0.114], on_grey, 1)
    np.testing.assert_allclose(read_picture(path, 1).numpy()[0], luminance, rtol=0, atol=1 / 255)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(10))
def test_pictures_are_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = np.kron(np.array([[0, 80, 160], [240, 40, 120]], np.uint8), np.ones((16, 16), np.uint8))
    stored = {  # what a camera held that way writes, from the rows and columns that EXIF names
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }.get(orientation, upright)
    exif = Pillow.Exif()
    exif[ORIENTATION] = orientation
    path = file(tmp_path, f"a.{suffix}", np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_allclose(read_picture(path, 1).numpy()[0] * 255, upright, rtol=0, atol=4)


def test_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Pillow.new("RGB", (5, 4), (level, 0, 0)) for level in (255, 0)]
    for name in ("a.gif", "a.tiff", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert read_picture(tmp_path / name)[0].mean() > 0.98


def png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def strange_files(folder: Path) -> dict[str, Path]:
    """Return files that hold no picture, by the reason why."""
    for name, content in {
        "empty": b"",
        "text": b"no picture",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "P": b"P",
        "header": b"\x89PNG\r\n\x1a\n torn",
        "bomb": png(60000, 60000),
    }.items():
        (folder / name).write_bytes(content)
    whole = file(folder, "whole.jpg", np.zeros((64, 64, 3), np.uint8) + np.arange(64, dtype=np.uint8)[:, None])
    (folder / "truncated").write_bytes(whole.read_bytes()[:400])
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    file(folder, "nan.tiff", np.full((4, 4), np.nan, np.float32))
    file(folder, "bright.tiff", np.full((4, 4), 2.0, np.float32))
    file(folder, "white.tiff", np.full((4, 4), 70000, np.int32))
    file(folder, "negative.tiff", np.full((4, 4), -1, np.int32))
    (folder / "loop").symlink_to(folder / "loop")
    return {
        "No such file": folder / "absent",
        "none of JPEG": folder / "text",
        "it is a folder": folder / "folder",
        "no regular file": folder / "pipe",
        "regular": Path(os.devnull),
        "60000 x 60000 pixels": folder / "bomb",
        "truncated": folder / "truncated",
        "damaged or none": folder / "empty",
        "it is damaged": folder / "header",
        "none of": folder / "postscript",
        "picture": folder / "P",
        "values from nan": folder / "nan.tiff",
        "values from 2 to 2": folder / "bright.tiff",
        "between 0 and 65535": folder / "white.tiff",
        "values from -1": folder / "negative.tiff",
        "symbolic": folder / "loop",
        "embedded null": folder / "nul\0",
    }


def test_what_is_no_picture_is_refused_in_one_line(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for reason, path in strange_files(tmp_path).items():
        with pytest.raises(ValueError, match=reason) as caught:
            read_picture(path, argument="start")
        assert str(caught.value).startswith("start: cannot read a picture from ")
        assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match="path: "):
            read_provenance(path)
    assert not recwarn.list


def test_large_photos_are_read_in_silence(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    Pillow.new("1", (10000, 9000)).save(tmp_path / "a.png")  # Pillow warns of more than 89 megapixels
    assert open_picture(tmp_path / "a.png").size == (10000, 9000)
    assert not recwarn.list


def test_no_file_holds_seven_channels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1, 3 or 4, not 7"):
        read_picture(file(tmp_path, "a.png", COLORS), 7)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_hide_a_picture(tmp_path: Path) -> None:
    path = file(tmp_path, "a.jpg", COLORS[..., :3], exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert read_picture(path).shape == (3, 4, 6)
    assert torch.isfinite(read_picture(path)).all()
