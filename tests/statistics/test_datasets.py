"""Statistics of data sets with items by number, and those of torchvision by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset
from torchvision import datasets
from torchvision.datasets import ImageFolder
from toys import SHARED, needs_shared

from featviz_pl.statistics import Statistics, dataset_statistics, folder_statistics
from featviz_pl.statistics.datasets import torchvision_dataset

Pixels = np.ndarray[Any, Any]


def levels(height: int, width: int, seed: int, channels: int = 3) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, channels), dtype=np.uint8)


PHOTOS = [levels(12, 20, 1), levels(16, 10, 2), levels(9, 9, 3)]


def covariance(photos: list[Pixels]) -> Pixels:
    result: Pixels = np.cov(
        np.concatenate([photo.reshape(-1, photo.shape[2]) for photo in photos]).T.astype(np.float64) / 255, bias=True
    )
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, photo in enumerate(PHOTOS):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        Pillow.fromarray(photo).save(tmp_path / "ab"[number % 2] / f"{number}.png")
    return tmp_path


def same(first: Statistics, second: Statistics) -> None:
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.covariance, second.covariance)
    assert torch.equal(first.spectrum.magnitude, second.spectrum.magnitude)
    assert (first.count, first.spectrum.count, first.too_small) == (
        second.count,
        second.spectrum.count,
        second.too_small,
    )


def test_a_data_set_has_the_statistics_of_its_folder_and_numpy_s_covariance(folder: Path) -> None:
    result = dataset_statistics(ImageFolder(str(folder)), size=(10, 10))
    np.testing.assert_allclose(result.covariance.numpy(), covariance(PHOTOS), atol=1e-8)
    assert (result.count, result.spectrum.count, result.too_small, result.unreadable) == (481, 2, 1, 0)
    same(result, folder_statistics(folder, size=(10, 10)))


def test_items_are_photos_alone_or_first_and_of_pillow_or_tensors() -> None:
    bytes_ = [torch.from_numpy(photo).permute(2, 0, 1) for photo in PHOTOS]
    pillow = [Pillow.fromarray(photo) for photo in PHOTOS]
    expected = dataset_statistics(pillow, size=8)
    np.testing.assert_allclose(expected.covariance.numpy(), covariance(PHOTOS), atol=1e-8)
    same(expected, dataset_statistics([(photo, 3) for photo in pillow], size=8))
    same(expected, dataset_statistics([[photo, None] for photo in bytes_], size=8))
    same(expected, dataset_statistics([photo.float() / 255 for photo in bytes_], size=8))
    same(expected, dataset_statistics(Subset(pillow, [0, 1, 2]), size=8))  # type: ignore[arg-type]
    square = torch.stack([photo[:, :9, :9] for photo in bytes_])
    result = dataset_statistics(TensorDataset(square, torch.arange(3)), size=8)
    np.testing.assert_allclose(result.covariance.numpy(), covariance([photo[:9, :9] for photo in PHOTOS]), atol=1e-8)


def test_photos_are_converted_to_the_channels_asked_for() -> None:
    grey = levels(8, 8, 1, 1)[..., 0]
    result = dataset_statistics([Pillow.fromarray(grey)], size=8, channels=1)
    assert result.matrix.tolist() == [[1.0]]
    assert float(result.covariance) == pytest.approx(np.var(grey / 255), abs=1e-8)
    red = dataset_statistics([Pillow.new("CMYK", (8, 8), (0, 255, 255, 0))], size=8)
    np.testing.assert_allclose(red.mean.numpy(), [1, 0, 0], atol=0.02)


class Partly(Dataset[Any]):
    """Has items of which some cannot be read."""

    def __init__(self, broken: set[int], count: int = 20) -> None:
        self.broken, self.count = broken, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Pillow.Image, int]:
        if index in self.broken:
            raise OSError("image file is truncated")
        return Pillow.new("RGB", (6, 6), (index * 10,) * 3), index


def test_items_that_cannot_be_read_are_skipped_and_counted() -> None:
    result = dataset_statistics(Partly({0, 7, 19}), size=4)
    left = [index for index in range(20) if index not in (0, 7, 19)]
    assert (result.unreadable, result.spectrum.count, result.count) == (3, 17, 17 * 36)
    assert float(result.mean[0]) == pytest.approx(np.mean(left) * 10 / 255, abs=1e-6)
    with pytest.raises(
        ValueError, match=r"dataset: none of 20 items of Partly can be read .*; item 0: image file is truncated"
    ):
        dataset_statistics(Partly(set(range(20))), size=4)


def test_a_limit_is_spread_over_all_items_and_progress_counts_both_readings() -> None:
    calls: list[tuple[int, int]] = []
    result = dataset_statistics(
        Partly(set()), size=4, limit=4, progress=lambda done, total: calls.append((done, total))
    )
    assert float(result.mean[0]) == pytest.approx(np.mean([0, 5, 10, 15]) * 10 / 255, abs=1e-6)
    assert calls == [(4, 8), (8, 8)]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


def test_a_file_that_breaks_when_its_pixels_are_asked_for_is_skipped(tmp_path: Path) -> None:
    Pillow.fromarray(PHOTOS[0]).save(tmp_path / "whole.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "whole.png").read_bytes()[:300])
    with Pillow.open(tmp_path / "torn.png") as torn:
        result = dataset_statistics([torn, Pillow.fromarray(PHOTOS[0])], size=8)
    assert (result.unreadable, result.spectrum.count) == (1, 1)


@pytest.mark.parametrize(
    ("dataset", "arguments", "kind", "message"),
    [
        ([], {}, ValueError, "dataset: list is empty"),
        (
            Stream(),
            {},
            TypeError,
            "dataset: Stream has no length and no items by number; give its batches to statistics.measure",
        ),
        ([("word", 1)], {}, TypeError, "dataset: items of list must be .*got str"),
        ([{"image": 1}], {}, TypeError, "got dict"),
        ([()], {}, TypeError, "got tuple"),
        ([torch.zeros(1, 8, 8)], {}, ValueError, r"photos as tensors must be \(3, H, W\), got shape \(1, 8, 8\)"),
        ([torch.zeros(8, 8)], {}, ValueError, r"got shape \(8, 8\)"),
        (
            [torch.full((3, 8, 8), -2.0)],
            {},
            ValueError,
            r"must lie in \[0, 1\], .*; leave normalisation out of its transform",
        ),
        ([torch.full((3, 8, 8), float("nan"))], {}, ValueError, r"must lie in \[0, 1\]"),
        ([torch.zeros(3, 8, 8, dtype=torch.int64)], {}, ValueError, r"must lie in \[0, 1\], or be torch.uint8"),
        (Partly(set()), {"channels": 4}, ValueError, "channels must be 1 or 3 for photos, got 4"),
        (Partly(set()), {"limit": 0}, ValueError, "limit must be at least 1"),
        (Partly(set()), {"workers": -1}, ValueError, "workers must be at least 0"),
        (
            Partly(set()),
            {"size": 8},
            ValueError,
            "size: none of the photos of Partly has 8 x 8 pixels; the largest shorter side is 6",
        ),
    ],
)
def test_what_holds_no_photos_is_refused(
    dataset: Any, arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        dataset_statistics(dataset, **{"size": 4, **arguments})


# Data sets of torchvision by name.


def test_a_name_and_its_options_build_the_data_set(tmp_path: Path) -> None:
    built = torchvision_dataset("FakeData", options={"size": 7, "image_size": (3, 6, 5)})
    assert len(built) == 7
    assert built[0][0].size == (5, 6)
    for subfolder in ("train/red", "val/red"):
        (tmp_path / subfolder).mkdir(parents=True)
        Pillow.new("RGB", (4, 4)).save(tmp_path / subfolder / "one.png")
    assert len(torchvision_dataset("ImageFolder", root=tmp_path / "train")) == 1


def cifar(root: Path, test: int = 4) -> Path:
    """Write the files of CIFAR10 with few photos; its sums of the files are not asked for, see below."""
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    for name, count in {**{f"data_batch_{part}": 2 for part in range(1, 6)}, "test_batch": test}.items():
        data = np.random.default_rng(count).integers(0, 256, size=(count, 3072), dtype=np.uint8)
        (base / name).write_bytes(pickle.dumps({"data": data, "labels": [0] * count}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": ["cat"]}))
    return root


@pytest.mark.parametrize(("split", "count"), [(None, 10), ("train", 10), ("test", 4), ("val", 4)])
def test_a_split_is_handed_over_as_the_class_calls_it(
    split: str | None, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    assert len(torchvision_dataset("CIFAR10", cifar(tmp_path), split)) == count


def test_a_download_is_for_whoever_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, *_: Path(path).exists())
    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", lambda self: cifar(Path(self.root)))
    with pytest.raises(ValueError, match="the data of CIFAR10 are not in"):
        torchvision_dataset("CIFAR10", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(torchvision_dataset("CIFAR10", tmp_path, "test", download=True)) == 4


@pytest.mark.parametrize("name", ["EMNIST", "QMNIST"])
def test_arguments_that_a_class_hands_on_are_known(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both take `download` by ``**kwargs``, and EMNIST `train` too."""
    downloads: list[bool] = []

    def download(self: Any) -> None:
        folder = Path(self.raw_folder)
        folder.mkdir(parents=True)
        downloads.append(self.train)

    def load(self: Any) -> tuple[Tensor, Tensor]:
        return torch.zeros(3 + self.train, 28, 28, dtype=torch.uint8), torch.zeros(3 + self.train, 8, dtype=torch.long)

    kind = getattr(datasets, name)
    monkeypatch.setattr(kind, "download", download)
    monkeypatch.setattr(kind, "_check_exists", lambda _: bool(downloads))
    monkeypatch.setattr(kind, "_load_data", load)
    split = "digits" if name == "EMNIST" else None
    options = {"train": False}
    with pytest.raises(ValueError, match=f"the data of {name} are not in .*or --download"):
        torchvision_dataset(name, tmp_path, split, options=options)
    assert len(torchvision_dataset(name, tmp_path, split, True, options)) == 3
    assert downloads == [False]
    assert len(torchvision_dataset(name, tmp_path, split)) == 4
    with pytest.raises(
        ValueError, match=f"unknown argument of {name} 'target_transfrom'; did you mean 'target_transform'"
    ):
        torchvision_dataset(name, tmp_path, split, options={"target_transfrom": None})


def test_what_no_class_above_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="download: torchvision cannot download ImageNet"):
        torchvision_dataset("ImageNet", tmp_path, download=True)
    with pytest.raises(ValueError, match="unknown argument of ImageNet 'allow_emty'; did you mean 'allow_empty'"):
        torchvision_dataset("ImageNet", tmp_path, options={"allow_emty": True})


@needs_shared
def test_a_real_data_set_has_the_statistics_of_its_folder() -> None:
    built = torchvision_dataset("Imagenette", SHARED / "data", "val", options={"size": "160px"})
    result = dataset_statistics(built, size=32, limit=20)
    photos = [np.asarray(built[index * len(built) // 20][0].convert("RGB")) for index in range(20)]
    np.testing.assert_allclose(result.covariance.numpy(), covariance(photos), atol=1e-8)
    assert (result.spectrum.count, result.unreadable) == (20, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "CIFAR11"}, "dataset: unknown data set of torchvision 'CIFAR11'; did you mean 'CIFAR10'"),
        ({"name": "VisionDataset"}, "dataset: unknown data set of torchvision 'VisionDataset'"),
        ({"name": "CIFAR10"}, "dataset: CIFAR10 needs --root DIR"),
        ({"name": "CocoCaptions", "root": "."}, "dataset: CocoCaptions needs --option annFile=…"),
        (
            {"name": "CIFAR10", "root": "."},
            r"the data of CIFAR10 are not in '\.', .*; give another --root, or --download",
        ),
        ({"name": "Imagenette", "root": "."}, r"the data of Imagenette are not in '\.'"),
        ({"name": "CIFAR10", "root": ".", "split": "extra"}, "split: CIFAR10 has 'train' and 'test', not 'extra'"),
        (
            {"name": "Imagenette", "root": ".", "split": "test"},
            "dataset: Imagenette cannot be built: .*'test'.*'train', 'val'",
        ),
        ({"name": "FakeData", "split": "train"}, "split: FakeData has none; leave it out"),
        ({"name": "FakeData", "download": True}, "download: torchvision cannot download FakeData"),
        (
            {"name": "FakeData", "options": {"sise": 3}},
            "option: unknown argument of FakeData 'sise'; did you mean 'size'",
        ),
        ({"name": "ImageFolder", "root": "nowhere"}, "dataset: ImageFolder cannot be built: .*nowhere"),
    ],
)
def test_data_sets_that_cannot_be_are_refused(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing downloads by itself")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", refuse)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        torchvision_dataset(**arguments)


def test_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    dataset_statistics(Partly(set()), size=4)
    assert torch.equal(torch.get_rng_state(), before)


def test_tensors_keep_double_precision() -> None:
    photo = torch.rand(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result: Tensor = dataset_statistics([photo], size=8).covariance
    np.testing.assert_allclose(result.numpy(), np.cov(photo.flatten(1).numpy(), bias=True), atol=1e-15)
