from __future__ import annotations

import copy
import os
import pickle
import random
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image as Pillow
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from toys import SHARED, needs_shared

from featviz_pl.images import FourierImage
from featviz_pl.statistics import (
    AmplitudeSpectrum,
    ColorCovariance,
    ColorStatistics,
    SpectrumStatistics,
    Statistics,
    folder_statistics,
    load_statistics,
    measure,
    natural_statistics,
)

Pixels = np.ndarray[Any, Any]


def levels(height: int, width: int, seed: int = 0, channels: int = 3) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, channels), dtype=np.uint8)


def covariance(photos: list[Pixels]) -> Pixels:
    found: Pixels = np.cov(
        np.concatenate([photo.reshape(-1, 3) for photo in photos]).T.astype(np.float64) / 255, bias=True
    )
    return found


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, list[Pixels]]:
    """Make photos by classes, of different sizes, and return their pixels."""
    photos = [levels(12, 20, 1), levels(16, 10, 2), levels(9, 9, 3)]
    for place, photo in zip(("a/one.png", "b/two.PNG", "b/deeper/three.bmp"), photos):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(photo).save(tmp_path / place)
    return tmp_path, photos


# Folders.


def test_all_photos_below_a_folder_are_pooled(folder: tuple[Path, list[Pixels]]) -> None:
    place, photos = folder
    (place / "notes.txt").write_text("no photo")
    (place / "._one.png").write_text("no photo either")
    found = folder_statistics(place, size=8)
    np.testing.assert_allclose(found.covariance.numpy(), covariance(photos), atol=1e-8)
    assert (found.count, found.spectrum.count, found.unreadable, found.too_small) == (12 * 20 + 16 * 10 + 81, 3, 0, 0)
    spectrum = AmplitudeSpectrum(8, found)
    for photo in photos:
        spectrum.update(torch.from_numpy(photo).permute(2, 0, 1)[None].double() / 255)
    torch.testing.assert_close(found.spectrum.magnitude, spectrum.compute().magnitude, rtol=1e-4, atol=1e-4)


@needs_shared
def test_real_photos_have_numpy_s_covariance() -> None:
    place = SHARED / "data" / "imagenet-samples"
    paths = sorted(place.glob("*.JPEG"))
    photos = []
    for path in paths[::40]:
        with Pillow.open(path) as photo:
            photos.append(np.array(photo.convert("RGB")))
    found = folder_statistics(place, size=32, limit=25)  # every fortieth of a thousand
    np.testing.assert_allclose(found.covariance.numpy(), covariance(photos), atol=1e-8)
    assert found.spectrum.count == 25


def test_grayscale_palettes_and_transparency_are_converted(tmp_path: Path) -> None:
    grey = levels(8, 8, 1, 1)[..., 0]
    Pillow.fromarray(grey).save(tmp_path / "grey.png")
    found = folder_statistics(tmp_path, size=8)
    np.testing.assert_allclose(found.covariance.numpy(), np.full((3, 3), np.var(grey / 255)), atol=1e-8)
    Pillow.fromarray(levels(8, 8, 2)).quantize(16).save(tmp_path / "palette.png")
    Pillow.fromarray(grey).save(tmp_path / "see-through.png", transparency=3)
    Pillow.fromarray(grey).convert("P").save(tmp_path / "palette-see-through.png", transparency=b"\x00\x80" * 8)
    Pillow.fromarray(levels(8, 8, 3, 4)).save(tmp_path / "alpha.png")
    Pillow.fromarray(grey).convert("1").save(tmp_path / "bits.png")
    found = folder_statistics(tmp_path, size=8)
    assert (found.spectrum.count, found.unreadable) == (6, 0)


def test_cmyk_is_converted_to_what_it_looks_like(tmp_path: Path) -> None:
    Pillow.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg")  # magenta and yellow ink
    np.testing.assert_allclose(folder_statistics(tmp_path, size=8).mean.numpy(), [1, 0, 0], atol=0.02)


def test_what_cannot_be_read_is_skipped_and_counted(folder: tuple[Path, list[Pixels]]) -> None:
    place, photos = folder
    whole = (place / "a" / "one.png").read_bytes()
    (place / "torn.png").write_bytes(whole[: len(whole) // 2])
    (place / "text.jpg").write_text("hello")
    (place / "empty.jpg").touch()
    found = folder_statistics(place, size=8)
    assert (found.spectrum.count, found.unreadable) == (3, 3)
    np.testing.assert_allclose(found.covariance.numpy(), covariance(photos), atol=1e-8)


def test_small_photos_count_for_the_colors_only(folder: tuple[Path, list[Pixels]]) -> None:
    place, photos = folder
    found = folder_statistics(place, size=10)
    assert (found.spectrum.count, found.too_small) == (2, 1)
    np.testing.assert_allclose(found.covariance.numpy(), covariance(photos), atol=1e-8)


def test_one_channel_measures_grayscale(folder: tuple[Path, list[Pixels]], tmp_path: Path) -> None:
    found = folder_statistics(folder[0], size=8, channels=1)
    assert found.matrix.tolist() == [[1.0]]
    assert found.spectrum.magnitude.shape == (1, 8, 5)
    assert load_statistics(found.save(tmp_path / "grey.pt"), channels=1).channels == 1


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({}, {}, "folder: .* holds no image files"),
        ({"a.txt": b"x"}, {}, "folder: .* holds no image files"),
        (
            {"a.png": b"x", "b.jpg": b""},
            {},
            "folder: none of 2 files in .* can be read as a photo; cannot read .*a.png'",
        ),
        (
            {"a.ppm": b"P6 5 6 255 " + bytes(90)},
            {},
            "size: none of the photos .* has 8 x 8 pixels; the largest shorter side is 5",
        ),
        ({"a.ppm": b"P6 5 6 255 " + bytes(90)}, {"channels": 4}, "channels must be 1 or 3 for photos, got 4"),
        ({"a.ppm": b"P6 5 6 255 " + bytes(90)}, {"limit": 0}, "limit must be at least 1"),
        ({"a.ppm": b"P6 5 6 255 " + bytes(90)}, {"workers": -1}, "workers must be at least 0"),
        ({"a.ppm": b"P6 5 6 255 " + bytes(90)}, {"size": 1}, "size must be at least 4 pixels"),
    ],
)
def test_folders_without_photos_say_so(
    tmp_path: Path, files: dict[str, bytes], arguments: dict[str, Any], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        folder_statistics(tmp_path, **{"size": 8, **arguments})


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(ValueError, match="folder: there is no folder '/nowhere'"):
        folder_statistics("/nowhere")


def test_a_limit_takes_photos_from_the_whole_folder(tmp_path: Path) -> None:
    for level in range(10):
        Pillow.new("RGB", (4, 4), (level * 25,) * 3).save(tmp_path / f"{level}.png")
    found = folder_statistics(tmp_path, size=4, limit=2)
    assert round(float(found.mean[0]) * 255 * 2) == 0 + 5 * 25
    assert folder_statistics(tmp_path, size=4, limit=99).spectrum.count == 10


def test_progress_counts_both_readings(tmp_path: Path) -> None:
    for level in range(20):
        Pillow.new("RGB", (4, 4), (level,) * 3).save(tmp_path / f"{level}.png")
    calls: list[tuple[int, int]] = []
    folder_statistics(tmp_path, size=4, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(16, 40), (20, 40), (36, 40), (40, 40)]


def test_global_generators_are_left_alone(folder: tuple[Path, list[Pixels]]) -> None:
    before = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    folder_statistics(folder[0], size=8)
    measure([torch.full((1, 3, 8, 8), 0.5)], size=8)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert pickle.dumps(np.random.get_state()) == before[2]  # noqa: NPY002


# Batches.


def pictures(count: int = 7, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, 12, 10, generator=torch.Generator().manual_seed(0))


def check_against_metrics(found: Statistics, images: Tensor) -> None:
    colors, spectrum = ColorCovariance(images.shape[1]), AmplitudeSpectrum(8, found, images.shape[1])
    colors.update(images)
    spectrum.update(images)
    torch.testing.assert_close(found.covariance, colors.compute().covariance)
    torch.testing.assert_close(found.spectrum.magnitude, spectrum.compute().magnitude)
    assert (found.count, found.spectrum.count) == (len(images) * 120, len(images))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_batches_are_tensors_or_begin_with_one(channels: int) -> None:
    images = pictures(7, channels)
    check_against_metrics(measure(list(images.split(3)), 8), images)
    check_against_metrics(measure([(part, torch.zeros(len(part))) for part in images.split(2)], 8), images)
    check_against_metrics(measure(DataLoader(TensorDataset(images, torch.arange(7)), batch_size=4), 8), images)


def test_the_loader_of_a_data_module_will_do() -> None:
    class Data(LightningDataModule):
        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(pictures()), batch_size=2)

    check_against_metrics(measure(Data().train_dataloader(), 8), pictures())


def test_a_data_module_is_set_up_but_downloads_nothing() -> None:
    class Data(LightningDataModule):
        def prepare_data(self) -> None:
            raise AssertionError("what may download is called by whoever wants that")

        def setup(self, stage: str) -> None:
            self.held = {"fit": pictures()}[stage]

        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(self.held, torch.arange(7)), batch_size=3)

    check_against_metrics(measure(Data(), 8), pictures())


@pytest.mark.parametrize(
    ("batches", "kind", "message"),
    [
        (iter([torch.zeros(1, 3, 8, 8)]), ValueError, "batches can be read once only, but are needed twice"),
        (5, TypeError, r"batches must be a list or a DataLoader of tensors \(N, C, H, W\), got int"),
        ([], ValueError, "batches: there are none"),
        ([{"image": torch.zeros(1, 3, 8, 8)}], TypeError, "batches: each must be a tensor .* got dict"),
        ([[]], TypeError, "batches: each must be a tensor .* got list"),
        ([torch.zeros(3, 8, 8)], ValueError, r"batches: each must be \(N, C, H, W\), got shape \(3, 8, 8\)"),
        ([torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 8, 8)], ValueError, "images: 4 channels do not fit channels=3"),
        ([torch.zeros(1, 3, 6, 8)], ValueError, "images: 6 x 8 pixels are too few"),
        ([torch.zeros(1, 3, 8, 8, dtype=torch.uint8)], ValueError, "divide levels from 0 to 255 by 255"),
    ],
)
def test_what_cannot_be_measured_is_refused(batches: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        measure(batches, 8)


def test_batches_are_begun_once_for_each_of_the_two_readings() -> None:
    class Batches:
        begun = 0

        def __iter__(self) -> Any:
            self.begun += 1
            return iter([pictures()])

    batches = Batches()
    check_against_metrics(measure(batches, 8), pictures())
    assert batches.begun == 2


# Files.


def statistics(channels: int = 3) -> Statistics:
    return measure([pictures(5, channels)], (8, 6))


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_gives_back_what_was_saved(channels: int, tmp_path: Path) -> None:
    saved = statistics(channels)
    saved = Statistics(saved.color, saved.spectrum, unreadable=4, too_small=2)
    path = saved.save(tmp_path / "deep" / "own.pt")
    assert names(path.parent) == ["own.pt"]
    found = load_statistics(path, channels)
    assert torch.equal(found.mean, saved.mean)
    assert torch.equal(found.covariance, saved.covariance)
    assert torch.equal(found.matrix, saved.matrix)
    torch.testing.assert_close(found.spectrum.magnitude, saved.spectrum.magnitude, rtol=1e-7, atol=0)
    assert (found.count, found.spectrum.count, found.spectrum.size) == (saved.count, saved.spectrum.count, (8, 6))
    assert (found.unreadable, found.too_small) == (4, 2)
    assert found.spectrum.matrix is not None
    torch.testing.assert_close(found.spectrum.matrix, saved.matrix, rtol=1e-6, atol=1e-7)
    half = load_statistics(saved.save(tmp_path / "half.pt", compact=True))
    torch.testing.assert_close(half.spectrum.magnitude, saved.spectrum.magnitude, rtol=5e-4, atol=0)


def test_equal_statistics_make_equal_files(tmp_path: Path) -> None:
    assert statistics().save(tmp_path / "a.pt").read_bytes() == statistics().save(tmp_path / "b.pt").read_bytes()


def test_digits_tell_colors_and_spectra_apart_and_nothing_else(tmp_path: Path) -> None:
    own = statistics()
    assert len(own.digest) == 16
    assert set(own.digest) <= set("0123456789abcdef")
    assert load_statistics(own.save(tmp_path / "a.pt")).digest == own.digest  # through float32 and another name
    counted = Statistics(own.color, SpectrumStatistics(own.spectrum.magnitude, (8, 6), 1, own.spectrum.matrix), 3, 2)
    assert counted.digest == own.digest
    mean = ColorStatistics(own.mean + 1e-9, own.covariance, own.count)
    covariance = ColorStatistics(own.mean, own.covariance * 1.001, own.count)
    spectra = [
        SpectrumStatistics(own.spectrum.magnitude * 1.001, (8, 6), 5, own.spectrum.matrix),
        SpectrumStatistics(own.spectrum.magnitude, (8, 6), 5, None),
    ]
    others = [Statistics(color, own.spectrum) for color in (mean, covariance)] + [
        Statistics(own.color, one) for one in spectra
    ]
    assert len({own.digest, *(other.digest for other in others)}) == 5


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = statistics().save(tmp_path / "own.pt")
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        statistics(1).save(path)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["own.pt"]


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(ValueError, match="path: there is no file"):
        load_statistics(path)
    whole = statistics().save(path).read_bytes()
    for content in (b"", b"hello", whole[:500]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"(cannot read|holds no statistics).*; make "):
            load_statistics(path)
    for other in ({"weight": torch.zeros(1)}, [1, 2], torch.zeros(3)):
        torch.save(other, path)
        with pytest.raises(ValueError, match="holds no statistics of featviz_pl"):
            load_statistics(path)
    torch.save(torch.nn.Linear(1, 1), path)  # whose reading would run code
    with pytest.raises(ValueError, match="not read for safety; make statistics"):
        load_statistics(path)


def test_other_versions_and_damaged_contents_are_refused(tmp_path: Path) -> None:
    path = statistics().save(tmp_path / "own.pt")
    content = torch.load(path, weights_only=True)
    torch.save({**content, "version": 2}, path)
    with pytest.raises(ValueError, match="version 2 of the format"):
        load_statistics(path)
    for change in ({"size": [8, 8]}, {"covariance": torch.zeros(2, 2)}, {"count": -1}, {"magnitude": None}):
        torch.save({**content, **change}, path)
        with pytest.raises(ValueError, match=r"is damaged .*; measure again"):
            load_statistics(path)
    del content["mean"]
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"is damaged .*; measure again"):
        load_statistics(path)


def test_a_file_for_other_channels_is_refused(tmp_path: Path) -> None:
    path = statistics(1).save(tmp_path / "own.pt")
    with pytest.raises(ValueError, match="holds statistics of 1-channel pictures, which do not fit 3 channels"):
        load_statistics(path, channels=3)
    with pytest.raises(ValueError, match=r"color: a matrix of shape \(1, 1\) does not fit 3 channels"):
        FourierImage(8, 1, color=load_statistics(path))


def test_magnitudes_beyond_half_precision_are_not_stored_in_it(tmp_path: Path) -> None:
    large = Statistics(
        ColorStatistics(torch.zeros(1), torch.ones(1, 1), 1), SpectrumStatistics(torch.full((1, 4, 3), 1e5), 4, 1)
    )
    with pytest.raises(ValueError, match="compact: a magnitude is beyond what float16 holds"):
        large.save(tmp_path / "own.pt", compact=True)
    assert names(tmp_path) == []


def test_colors_and_spectrum_must_have_the_same_channels() -> None:
    with pytest.raises(ValueError, match="spectrum: 1 channels do not fit the 3 of the colors"):
        Statistics(statistics().color, statistics(1).spectrum)


def test_statistics_survive_copies_and_show_themselves() -> None:
    found = statistics()
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert repr(other) == repr(found)
        assert torch.equal(other.matrix, found.matrix)
    assert repr(found).startswith("Statistics(color=ColorStatistics(mean=[")


# What ships.


def test_the_shipped_file_is_small_and_nearly_the_published_matrix() -> None:
    natural = natural_statistics()
    assert len(resources.files("featviz_pl.statistics").joinpath("natural.pt").read_bytes()) < 100_000
    published = np.array([[0.5628, 0.1948, 0.0433], [0.5845, 0, -0.1082], [0.5845, -0.1948, 0.0649]])
    measured = natural.matrix.numpy()
    cosines = (measured * published).sum(axis=0) / np.linalg.norm(measured, axis=0) / np.linalg.norm(published, axis=0)
    np.testing.assert_allclose(cosines, [0.99999, 0.9996, 0.9958], atol=1e-4)  # as the card says
    assert np.linalg.norm(measured - published) == pytest.approx(0.0175, abs=1e-4)
    # Of ImageNet, as every network's preprocessing has them.
    np.testing.assert_allclose(natural.mean.numpy(), [0.485, 0.456, 0.406], atol=0.01)
    np.testing.assert_allclose(natural.covariance.diagonal().sqrt().numpy(), [0.229, 0.224, 0.225], atol=0.06)


def test_nobody_can_change_what_ships_for_others() -> None:
    natural_statistics().color.mean.zero_()
    assert float(natural_statistics().mean.min()) > 0.4


@needs_shared
def test_the_shipped_file_is_that_of_the_photos() -> None:
    natural = natural_statistics()
    part = folder_statistics(SHARED / "data" / "imagenet-samples", limit=40)
    deviations = (part.covariance - natural.covariance).abs()
    assert float(deviations.max()) < 0.02
    assert float((part.spectrum.magnitude / natural.spectrum.magnitude).median()) == pytest.approx(1.0, abs=0.1)


def test_workers_find_the_same_to_the_last_digit(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(40):
        Pillow.fromarray(levels(16, 16, seed)).save(tmp_path / "photos" / f"{seed}.png")
    alone = folder_statistics(tmp_path / "photos", size=8)
    # A program of its own, so that the workers do not come from a process with threads.
    command = [
        sys.executable,
        "-m",
        "featviz_pl",
        "stats",
        "photos",
        "-o",
        "shared.pt",
        "--size",
        "8",
        "--workers",
        "2",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    shared = load_statistics(tmp_path / "shared.pt")
    assert torch.equal(shared.covariance, alone.covariance)
    assert shared.digest == alone.digest
    assert torch.equal(shared.spectrum.magnitude, alone.spectrum.magnitude.float().double())
