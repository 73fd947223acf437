from __future__ import annotations

import copy
import pickle
import random
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
    result: Pixels = np.cov(
        np.concatenate([photo.reshape(-1, 3) for photo in photos]).T.astype(np.float64) / 255, bias=True
    )
    return result


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, list[Pixels]]:
    """Make photos by classes, of different sizes, and return their pixels."""
    photos = [levels(12, 20, 1), levels(16, 10, 2), levels(9, 9, 3)]
    for root, photo in zip(("a/one.png", "b/two.PNG", "b/deeper/three.bmp"), photos):
        (tmp_path / root).parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(photo).save(tmp_path / root)
    return tmp_path, photos


# Folders.


def test_all_photos_below_a_folder_are_pooled(folder: tuple[Path, list[Pixels]]) -> None:
    root, photos = folder
    (root / "notes.txt").write_text("no photo")
    (root / "._one.png").write_text("no photo either")
    result = folder_statistics(root, size=8)
    np.testing.assert_allclose(result.covariance.numpy(), covariance(photos), atol=1e-8)
    assert (result.count, result.spectrum.count, result.unreadable, result.too_small) == (
        12 * 20 + 16 * 10 + 81,
        3,
        0,
        0,
    )
    spectrum = AmplitudeSpectrum(8, result)
    for photo in photos:
        spectrum.update(torch.from_numpy(photo).permute(2, 0, 1)[None].double() / 255)
    torch.testing.assert_close(result.spectrum.magnitude, spectrum.compute().magnitude, rtol=1e-4, atol=1e-4)


@needs_shared
def test_real_photos_have_numpy_s_covariance() -> None:
    root = SHARED / "data" / "imagenet-samples"
    paths = sorted(root.glob("*.JPEG"))
    photos = []
    for path in paths[::40]:
        with Pillow.open(path) as photo:
            photos.append(np.array(photo.convert("RGB")))
    result = folder_statistics(root, size=32, limit=25)  # every fortieth of a thousand
    np.testing.assert_allclose(result.covariance.numpy(), covariance(photos), atol=1e-8)
    assert result.spectrum.count == 25


def test_what_cannot_be_read_is_skipped_and_counted(folder: tuple[Path, list[Pixels]]) -> None:
    root, photos = folder
    complete = (root / "a" / "one.png").read_bytes()
    (root / "torn.png").write_bytes(complete[: len(complete) // 2])
    (root / "text.jpg").write_text("hello")
    (root / "empty.jpg").touch()
    result = folder_statistics(root, size=8)
    assert (result.spectrum.count, result.unreadable) == (3, 3)
    np.testing.assert_allclose(result.covariance.numpy(), covariance(photos), atol=1e-8)


def test_small_photos_count_for_the_colors_only(folder: tuple[Path, list[Pixels]]) -> None:
    root, photos = folder
    result = folder_statistics(root, size=10)
    assert (result.spectrum.count, result.too_small) == (2, 1)
    np.testing.assert_allclose(result.covariance.numpy(), covariance(photos), atol=1e-8)


def test_one_channel_measures_grayscale(folder: tuple[Path, list[Pixels]], tmp_path: Path) -> None:
    result = folder_statistics(folder[0], size=8, channels=1)
    assert result.matrix.tolist() == [[1.0]]
    assert result.spectrum.magnitude.shape == (1, 8, 5)
    assert load_statistics(result.save(tmp_path / "grey.pt"), channels=1).channels == 1


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
    result = folder_statistics(tmp_path, size=4, limit=2)
    assert round(float(result.mean[0]) * 255 * 2) == 0 + 5 * 25
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


def check_against_metrics(result: Statistics, images: Tensor) -> None:
    colors, spectrum = ColorCovariance(images.shape[1]), AmplitudeSpectrum(8, result, images.shape[1])
    colors.update(images)
    spectrum.update(images)
    torch.testing.assert_close(result.covariance, colors.compute().covariance)
    torch.testing.assert_close(result.spectrum.magnitude, spectrum.compute().magnitude)
    assert (result.count, result.spectrum.count) == (len(images) * 120, len(images))


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
            self.tensors = {"fit": pictures()}[stage]

        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(self.tensors, torch.arange(7)), batch_size=3)

    check_against_metrics(measure(Data(), 8), pictures())


@pytest.mark.parametrize(
    ("batches", "kind", "message"),
    [
        (iter([torch.zeros(1, 3, 8, 8)]), ValueError, "batches are read twice"),
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
    result = load_statistics(path, channels)
    assert torch.equal(result.mean, saved.mean)
    assert torch.equal(result.covariance, saved.covariance)
    assert torch.equal(result.matrix, saved.matrix)
    torch.testing.assert_close(result.spectrum.magnitude, saved.spectrum.magnitude, rtol=1e-7, atol=0)
    assert (result.count, result.spectrum.count, result.spectrum.size) == (saved.count, saved.spectrum.count, (8, 6))
    assert (result.unreadable, result.too_small) == (4, 2)
    assert result.spectrum.matrix is not None
    torch.testing.assert_close(result.spectrum.matrix, saved.matrix, rtol=1e-6, atol=1e-7)
    half = load_statistics(saved.save(tmp_path / "half.pt", compact=True))
    torch.testing.assert_close(half.spectrum.magnitude, saved.spectrum.magnitude, rtol=5e-4, atol=0)


def test_equal_statistics_make_equal_files(tmp_path: Path) -> None:
    assert statistics().save(tmp_path / "a.pt").read_bytes() == statistics().save(tmp_path / "b.pt").read_bytes()


def test_digits_tell_colors_and_spectra_apart_and_nothing_else(tmp_path: Path) -> None:
    original = statistics()
    assert len(original.digest) == 16
    assert set(original.digest) <= set("0123456789abcdef")
    assert (
        load_statistics(original.save(tmp_path / "a.pt")).digest == original.digest
    )  # through float32 and another name
    counted = Statistics(
        original.color, SpectrumStatistics(original.spectrum.magnitude, (8, 6), 1, original.spectrum.matrix), 3, 2
    )
    assert counted.digest == original.digest
    mean = ColorStatistics(original.mean + 1e-9, original.covariance, original.count)
    covariance = ColorStatistics(original.mean, original.covariance * 1.001, original.count)
    spectra = [
        SpectrumStatistics(original.spectrum.magnitude * 1.001, (8, 6), 5, original.spectrum.matrix),
        SpectrumStatistics(original.spectrum.magnitude, (8, 6), 5, None),
    ]
    variants = [Statistics(color, original.spectrum) for color in (mean, covariance)] + [
        Statistics(original.color, spectrum) for spectrum in spectra
    ]
    assert len({original.digest, *(variant.digest for variant in variants)}) == 5


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(ValueError, match="path: there is no file"):
        load_statistics(path)
    complete = statistics().save(path).read_bytes()
    for content in (b"", b"hello", complete[:500]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"(cannot read|holds no statistics).*; make "):
            load_statistics(path)
    for variant in ({"weight": torch.zeros(1)}, [1, 2], torch.zeros(3)):
        torch.save(variant, path)
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
    with pytest.raises(ValueError, match="holds statistics of 1 channels, which do not fit 3"):
        load_statistics(path, channels=3)
    with pytest.raises(ValueError, match=r"color: the matrix must be .*got shape \(1, 1\)"):
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
    result = statistics()
    for variant in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert repr(variant) == repr(result)
        assert torch.equal(variant.matrix, result.matrix)
    assert repr(result).startswith("Statistics(color=ColorStatistics(mean=[")


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
