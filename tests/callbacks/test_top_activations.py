"""The photos that excite units, against a plain look at all photos; and a module that notices nothing."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monitored
import numpy as np
import pytest
import top_worker
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from top_worker import Looker, pictures
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler, TensorDataset
from torch.utils.data.distributed import DistributedSampler
from toys import QUIET, needs_shared, toy

import featviz_pl.metrics.top_photos.results as results_module
import featviz_pl.metrics.top_photos.top_k as kept_module
from featviz_pl.io import read_picture, read_provenance
from featviz_pl.metrics.top_photos.results import UnitActivations
from featviz_pl.networks import receptive_fields
from featviz_pl.numerics.random import mix
from featviz_pl_callbacks._photo_numbers import PhotoNumbers
from featviz_pl_callbacks.top_activations import TopActivations

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*shuffling enabled"),
]

Array = NDArray[Any]


class Everywhere(Looker):
    """Show pictures in every stage."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.net(batch[0])

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self.net(batch[0])


def look(
    callback: TopActivations,
    data: Any = None,
    net: nn.Module | None = None,
    batch_size: int = 4,
    stage: str = "validate",
    **more: Any,
) -> dict[str, UnitActivations]:
    """Ride along, and return what was found."""
    given = TensorDataset(pictures()) if data is None else data
    loader = given if isinstance(given, (DataLoader, list)) else DataLoader(given, batch_size)
    trainer = Trainer(**QUIET, callbacks=[callback, *more.pop("callbacks", [])], **more)
    module = Everywhere(toy() if net is None else net)
    arguments = {"return_predictions": False} if stage == "predict" else {"verbose": False}
    getattr(trainer, stage)(module, loader, **arguments)
    return callback.results


def brute_force(shown: Tensor, reduction: str = "mean") -> tuple[Array, Array, Array]:
    """Return scores and peaks (photos, units) of the toy's last convolution, and the positions of the peaks."""
    with torch.no_grad():
        maps = toy().eval().features(shown).numpy()
    flat = maps.reshape(len(maps), maps.shape[1], -1)
    place = flat.argmax(-1)
    return getattr(flat, reduction)(-1), flat.max(-1), np.stack(np.unravel_index(place, maps.shape[2:]), -1)


def order(scores: Array, k: int) -> list[int]:
    """Return the k lowest, equal ones by their number."""
    return sorted(range(len(scores)), key=lambda photo: (scores[photo], photo))[:k]


@pytest.mark.parametrize(
    ("stage", "batch_size", "reduction"),
    [("validate", 4, "mean"), ("test", 1, "max"), ("predict", 23, "mean"), ("validate", 5, "max")],
)
def test_finds_what_a_plain_look_at_all_photos_finds(stage: str, batch_size: int, reduction: Any) -> None:
    found = look(TopActivations("net.features.5:all", k=3, reduction=reduction), batch_size=batch_size, stage=stage)
    scores, peaks, places = brute_force(pictures(), reduction)
    assert list(found) == [f"net.features.5:{unit}" for unit in range(8)]
    for unit, one in enumerate(found.values()):
        expected = {"top": order(-scores[:, unit], 3), "least": order(scores[:, unit], 3)}
        expected["random"] = order(np.array([mix(0, "photo", photo) for photo in range(23)]), 3)
        for kind, photos in expected.items():
            listed = getattr(one, kind)
            assert [photo.photo for photo in listed] == photos
            np.testing.assert_allclose([photo.score for photo in listed], scores[photos, unit], rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose([photo.peak for photo in listed], peaks[photos, unit], rtol=1e-5, atol=1e-7)
            assert [photo.position for photo in listed] == [tuple(places[photo, unit]) for photo in photos]


def test_patches_are_what_the_position_sees_of_the_photo() -> None:
    shown = pictures()
    boxes = receptive_fields(toy(), "features.5", size=16)
    found = look(TopActivations("net.features.5:0-7", k=4))
    sizes = set()
    for one in found.values():
        for photo in (*one.top, *one.least, *one.random):
            top, left, bottom, right = photo.box
            assert photo.box == tuple(boxes[photo.position].tolist())
            assert torch.equal(photo.patch, shown[photo.photo, :, top:bottom, left:right])
            assert photo.size == (16, 16)
            sizes.add(photo.patch.shape)
    assert len(sizes) > 1  # at borders and within


def test_photos_are_shown_as_before_they_were_normalised() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    normalised = (pictures() - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    found = look(TopActivations("net.head:2", k=2, mean=mean, std=std), TensorDataset(normalised))
    for photo in found["net.head:2"].top:
        assert photo.box == (0, 0, 16, 16)  # behind the mean over positions
        assert torch.equal(photo.patch, pictures()[photo.photo])


def test_values_outside_the_unit_range_are_mentioned() -> None:
    with pytest.warns(UserWarning, match="values from -1 to 1, and patches are shown in"):
        look(TopActivations("net.head:2", k=2), TensorDataset(pictures() * 2 - 1))


def test_pictures_of_whole_numbers_are_levels() -> None:
    class OfLevels(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.float().mean((2, 3))

    levels = (pictures() * 255).round().to(torch.uint8)
    found = look(TopActivations("net:all", k=2), TensorDataset(levels), OfLevels())
    assert all(torch.equal(photo.levels, levels[photo.photo]) for photo in found["net:1"].top)


def test_equal_scores_go_to_the_lower_number() -> None:
    same = pictures(1).expand(9, -1, -1, -1)
    found = look(TopActivations("net.features.5:2", k=4), TensorDataset(same), batch_size=2)["net.features.5:2"]
    assert [photo.photo for photo in found.top] == [0, 1, 2, 3]
    assert [photo.photo for photo in found.least] == [0, 1, 2, 3]


def test_fewer_photos_than_are_wanted_are_all_kept() -> None:
    found = look(TopActivations("net.features.5:2", k=9, least=0, random=1), TensorDataset(pictures(4)))[
        "net.features.5:2"
    ]
    assert (len(found.top), len(found.least), len(found.random)) == (4, 0, 1)


def test_the_draw_is_of_the_seed_and_the_number_alone() -> None:
    def drawn(batch_size: int, seed: int) -> list[int]:
        found = look(TopActivations("net.features.5:0-1", k=5, seed=seed), batch_size=batch_size)
        one, other = ([photo.photo for photo in result.random] for result in found.values())
        assert one == other
        return one

    assert drawn(4, 1) == drawn(7, 1) != drawn(4, 2)


def test_the_distribution_is_that_of_all_scores() -> None:
    scores = brute_force(pictures())[0][:, 3].astype(np.float64)
    found = look(TopActivations("net.features.5:3", k=1))["net.features.5:3"].distribution
    assert (found.photos, found.sampled) == (23, 23)
    expected = [scores.mean(), scores.std(), scores.min(), scores.max(), (scores > 0).mean()]
    np.testing.assert_allclose([found.mean, found.std, found.least, found.greatest, found.active], expected, rtol=1e-5)
    percentiles = {"1": 1, "5": 5, "25": 25, "50": 50, "75": 75, "95": 95, "99": 99}
    np.testing.assert_allclose(
        [found.percentiles[name] for name in percentiles], np.percentile(scores, list(percentiles.values())), rtol=1e-5
    )
    counts = np.array(found.density) * np.diff(found.edges) * 23
    np.testing.assert_allclose(
        counts, np.histogram(scores, np.array(found.edges) + 1e-9 * (np.arange(33) == 32))[0], atol=1e-6
    )
    assert len(found.density) == 32


def test_percentiles_of_many_photos_are_those_of_a_random_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "SAMPLE_SIZE", 10)
    scores = brute_force(pictures())[0][:, 3].astype(np.float64)
    drawn = order(np.array([mix(4, "photo", photo) for photo in range(23)]), 10)
    for batch_size in (3, 23):
        found = look(TopActivations("net.features.5:3", k=1, seed=4), batch_size=batch_size)[
            "net.features.5:3"
        ].distribution
        assert (found.photos, found.sampled) == (23, 10)
        assert found.percentiles["50"] == pytest.approx(np.median(scores[drawn]), rel=1e-5)
        assert found.mean == pytest.approx(scores.mean(), rel=1e-5)


# Over processes.


def run_worker(folder: Path, job: str, ranks: int, limit: int = 100) -> list[dict[str, UnitActivations]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, top_worker.__file__, str(folder), job, str(ranks)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit, env=environment)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{job}-{ranks}-{rank}.pt", weights_only=False) for rank in range(ranks)]


def test_two_processes_find_what_one_finds_and_repeated_photos_count_once(tmp_path: Path) -> None:
    alone = look(TopActivations(["net.features.5:all", "net.head:1,3"], k=3, seed=5))
    for found in run_worker(tmp_path, "toy", 2):  # 23 photos: the sampler repeats one
        assert list(found) == list(alone)
        for target, one in found.items():
            for kind in ("top", "least", "random"):
                mine, theirs = getattr(alone[target], kind), getattr(one, kind)
                assert [photo.photo for photo in theirs] == [photo.photo for photo in mine]
                np.testing.assert_allclose(
                    [photo.score for photo in theirs], [photo.score for photo in mine], rtol=1e-5
                )
                assert [photo.box for photo in theirs] == [photo.box for photo in mine]
                assert all(torch.equal(a.levels, b.levels) for a, b in zip(theirs, mine))
            assert one.distribution.photos == 23
            for name, value in vars(alone[target].distribution).items():
                if name not in ("density", "edges", "percentiles"):
                    assert getattr(one.distribution, name) == pytest.approx(value, rel=1e-5), name
            assert one.distribution.percentiles == pytest.approx(alone[target].distribution.percentiles, rel=1e-5)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("photos", "ranks"), [(10, 3), (2, 4), (12, 3)])
def test_every_photo_has_its_number_in_one_process_only(photos: int, ranks: int, shuffle: bool) -> None:
    found = []
    for rank in range(ranks):
        data: Any = range(photos)
        loader: DataLoader[Any] = DataLoader(data, 2, sampler=DistributedSampler(data, ranks, rank, shuffle=shuffle))
        numbers = PhotoNumbers(loader, 1, rank, ranks)
        assert numbers.are_indices
        for batch in loader:
            own = numbers.next_batch(len(batch))
            assert [number for number in own if number is not None] == [
                (1 << 40) + int(index) for index, number in zip(batch, own) if number is not None
            ]
            found += [number for number in own if number is not None]
    assert sorted(found) == [(1 << 40) + index for index in range(photos)]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(pictures().split(1))


def test_photos_in_an_order_that_nobody_knows_are_numbered_as_they_come() -> None:
    def shuffled() -> DataLoader[Any]:
        return DataLoader(TensorDataset(pictures()), 4, shuffle=True, generator=torch.Generator().manual_seed(1))

    seen = torch.cat([batch[0] for batch in shuffled()])
    found = look(TopActivations("net.features.5:2", k=3, reduction="max"), shuffled())["net.features.5:2"]
    assert [photo.photo for photo in found.top] == order(-brute_force(seen, "max")[0][:, 2], 3)
    numbers = PhotoNumbers(DataLoader(Stream()), 0, 1, 2)
    assert not numbers.are_indices
    assert [numbers.next_batch(2), numbers.next_batch(1)] == [[1, 3], [5]]


def test_an_order_is_unknown_where_looking_would_change_it() -> None:
    class Own(SequentialSampler):
        pass

    data: Any = range(6)
    assert not PhotoNumbers(DataLoader(data, 2, sampler=Own(data)), 0, 0, 1).are_indices
    assert not PhotoNumbers(DataLoader(data, 2), 0, 0, 2).are_indices  # both processes would see all
    assert not PhotoNumbers(DataLoader(data, None), 0, 0, 1).are_indices
    assert not PhotoNumbers(None, 0, 0, 1).are_indices


def test_photos_of_several_loaders_are_told_apart() -> None:
    class Two(Everywhere):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.net(batch[0])

    shown = pictures()
    callback = TopActivations("net.features.5:2", k=4)
    Trainer(**QUIET, callbacks=[callback]).validate(
        Two(toy()), [DataLoader(TensorDataset(part), 4) for part in (shown[:10], shown[10:])], verbose=False
    )
    expected = [(int(photo >= 10), photo - 10 * int(photo >= 10)) for photo in order(-brute_force(shown)[0][:, 2], 4)]
    assert [(photo.loader, photo.photo) for photo in callback.results["net.features.5:2"].top] == expected


# Any network.


def test_what_follows_in_place_changes_nothing() -> None:
    """A rectifier in place follows the first convolution; its own values are wanted."""
    with torch.no_grad():
        scores = toy().eval().features[0](pictures()).mean((2, 3)).numpy()
    assert (scores < 0).any()
    found = look(TopActivations("net.features.0:all", k=2))
    assert [[photo.photo for photo in one.least] for one in found.values()] == [
        order(scores[:, unit], 2) for unit in range(6)
    ]


def test_a_compiled_network_is_read_too() -> None:
    compiled: Any = torch.compile(toy(), backend="eager")
    plain = look(TopActivations("net.features.5:all", k=2))
    loader = DataLoader(TensorDataset(pictures()), 4)
    Trainer(**QUIET).validate(Everywhere(compiled), loader, verbose=False)  # hooks that come later would be ignored
    found = look(TopActivations("net.features.5:all", k=2), net=compiled)
    assert {name: one.top for name, one in found.items()} == {name: one.top for name, one in plain.items()}


class Tokens(nn.Module):
    """Patches of 8 x 8 and a class token, which see only themselves; then maps (H, W, C), and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = toy().features[0]
        self.tokens, self.last, self.mean = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        maps = functional.avg_pool2d(self.patches(x), 8)
        self.tokens(torch.cat([maps.new_full((len(x), 1, 6), -9.0), maps.flatten(2).transpose(1, 2)], 1))
        y: Tensor = self.mean(self.last(maps.permute(0, 2, 3, 1)).mean((1, 2)))
        return y


def test_tokens_maps_with_channels_last_and_vectors_have_units_too() -> None:
    net = Tokens()
    with torch.no_grad():
        maps = functional.avg_pool2d(net.patches(pictures()), 8)
    found = look(TopActivations(["net.tokens:4", "net.last:4", "net.mean:4"], k=2, reduction="max"), net=net)
    highest, mean = maps[:, 4].amax((1, 2)).numpy(), maps[:, 4].mean((1, 2)).numpy()
    for target, scores in (("net.tokens:4", highest), ("net.last:4", highest), ("net.mean:4", mean)):
        assert [photo.photo for photo in found[target].top] == order(-scores, 2)
    place = int(maps[found["net.last:4"].top[0].photo, 4].argmax())
    box = (
        max(0, 8 * (place // 2) - 1),
        max(0, 8 * (place % 2) - 1),
        min(16, 8 * (place // 2) + 9),
        min(16, 8 * (place % 2) + 9),
    )
    assert found["net.last:4"].top[0].position == (place // 2, place % 2)
    assert found["net.tokens:4"].top[0].position == (place + 1,)
    assert found["net.last:4"].top[0].box == found["net.tokens:4"].top[0].box == box
    assert (found["net.mean:4"].top[0].position, found["net.mean:4"].top[0].box) == ((), (0, 0, 16, 16))


def test_names_are_relative_to_the_network_that_is_named() -> None:
    found = look(TopActivations("features.5:2", network="net", k=2))["features.5:2"]
    assert found.top == look(TopActivations("net.features.5:2", k=2))["net.features.5:2"].top


def test_a_step_that_resizes_gives_patches_of_the_photos_as_they_came() -> None:
    class Resizes(Everywhere):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.net(functional.interpolate(batch[0], scale_factor=2.0))

    callback = TopActivations("net.features.5:0-7", k=2)
    Trainer(**QUIET, callbacks=[callback]).validate(
        Resizes(toy()), DataLoader(TensorDataset(pictures()), 4), verbose=False
    )
    boxes = receptive_fields(toy(), "features.5", size=32)
    for one in callback.results.values():
        for photo in one.top:
            top, left, bottom, right = boxes[photo.position].tolist()
            assert photo.box == (top // 2, left // 2, -(-bottom // 2), -(-right // 2))


def test_what_cannot_be_probed_has_whole_photos_as_patches() -> None:
    class Replaces(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.nan_to_num()

    with pytest.warns(UserWarning, match="patches are whole photos"):
        found = look(TopActivations("net:1", k=2), net=Replaces())
    assert found["net:1"].top[0].box == (0, 0, 16, 16)
    assert found["net:1"].top[0].photo == order(-pictures()[:, 1].mean((1, 2)).numpy(), 1)[0]


# Other people's training.


def test_a_training_ends_as_it_ends_without(tmp_path: Path) -> None:
    plain, _ = monitored.train("none", kind="dropout", folder=tmp_path)
    callback = TopActivations("net.4:all", k=2, folder=tmp_path / "photos")
    watched, _ = monitored.train("none", kind="dropout", folder=tmp_path, callbacks=[callback])
    assert monitored.differences(plain, watched) == []
    assert len(callback.results) == 8
    assert (tmp_path / "photos" / "index.json").is_file()


def test_each_validation_gives_new_results_and_the_sanity_check_none(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Note(Callback):
        def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append(
                (trainer.sanity_checking, [photo.score for one in callback.results.values() for photo in one.top])
            )

    callback = TopActivations("net.4:0-3", k=2)
    monitored.train("none", folder=tmp_path, callbacks=[callback, Note()], num_sanity_val_steps=1)
    assert [sanity for sanity, _ in seen] == [True, False, False]
    assert seen[0][1] == []
    assert seen[1][1] != seen[2][1]


def hooks_of(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_are_gone_after_a_run_and_after_an_exception(error: type[BaseException]) -> None:
    class Breaks(Everywhere):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            super().validation_step(batch, batch_idx)
            assert hooks_of(self) > 0
            if batch_idx == 2:
                raise error("on purpose")

    module, callback = Breaks(toy()), TopActivations("net.features.5:all", k=2)
    with pytest.raises((error, SystemExit)):
        Trainer(**QUIET, callbacks=[callback]).validate(module, DataLoader(TensorDataset(pictures()), 4), verbose=False)
    assert hooks_of(module) == 0
    Trainer(**QUIET, callbacks=[callback]).test(module, DataLoader(TensorDataset(pictures()), 4), verbose=False)
    assert hooks_of(module) == 0
    assert callback.results["net.features.5:0"].distribution.photos == 23


def test_memory_does_not_grow_with_the_number_of_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "SAMPLE_SIZE", 64)

    class Many(Dataset[Any]):
        def __init__(self, count: int) -> None:
            self.count = count

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, index: int) -> tuple[Tensor]:
            return (torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(index)),)

    def peak(count: int) -> int:
        callback = TopActivations("net.features.5:all", k=4)
        look(callback)  # everything is imported
        tracemalloc.start()
        look(callback, Many(count), batch_size=10)
        highest = tracemalloc.get_traced_memory()[1]  # what torch allocates is not traced; what is kept are arrays
        tracemalloc.stop()
        return highest

    few, many = peak(200), peak(1000)
    of_a_photo = 3 * 32 * 32
    assert few > 8 * 3 * 4 * 49 * 3  # it does see the patches
    assert many - few < 20 * of_a_photo


# Files.


def test_writes_patches_sheets_and_an_index(tmp_path: Path) -> None:
    callback = TopActivations("net.features.5:2,3", k=3, random=2, folder=tmp_path / "out")
    found = look(callback)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert list(index["units"]) == ["net.features.5:2", "net.features.5:3"]
    for target, entry in index["units"].items():
        for kind, count in (("top", 3), ("random", 2), ("least", 3)):
            assert len(entry[kind]) == count
            for line, photo in zip(entry[kind], getattr(found[target], kind)):
                assert torch.equal(read_picture(tmp_path / "out" / line["file"]), photo.patch)
                assert (line["photo"], line["score"], tuple(line["box"])) == (photo.photo, photo.score, photo.box)
                assert read_provenance(tmp_path / "out" / line["file"])["target"] == target
        assert entry["distribution"]["photos"] == 23
        assert (tmp_path / "out" / entry["sheet"]).is_file()
    assert (tmp_path / "out" / "net.features.5" / "2" / "top-1.png").is_file()
    assert index["settings"]["photos"] == "by index"
    assert str(tmp_path) not in json.dumps(index)


def test_files_of_earlier_results_do_not_stay(tmp_path: Path) -> None:
    look(TopActivations("net.features.5:2", k=4, folder=tmp_path))
    (tmp_path / "net.features.5" / "2" / "mine.png").write_bytes(b"mine")
    look(TopActivations("net.features.5:2", k=2, folder=tmp_path))
    names = sorted(path.name for path in (tmp_path / "net.features.5" / "2").iterdir())
    assert names == [
        "least-1.png",
        "least-2.png",
        "mine.png",
        "random-1.png",
        "random-2.png",
        "sheet.png",
        "top-1.png",
        "top-2.png",
    ]


def test_there_is_no_index_where_not_everything_could_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(TopActivations("net.features.5:2", k=2, folder=tmp_path))

    def full(*arguments: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(results_module, "save_png", full)
    with pytest.raises(OSError, match="no space"):
        look(TopActivations("net.features.5:2", k=2, folder=tmp_path))
    assert not (tmp_path / "index.json").exists()


def test_a_score_that_is_no_number_is_never_a_top_one(tmp_path: Path) -> None:
    shown = pictures().clone()
    shown[4] = torch.nan
    callback = TopActivations("net.features.5:2", k=23, mean=0.0, folder=tmp_path)
    found = look(callback, TensorDataset(shown))["net.features.5:2"]
    assert 4 not in [photo.photo for photo in (*found.top, *found.least)]
    assert len(found.top) == 22
    assert (
        json.loads((tmp_path / "index.json").read_text())["units"]["net.features.5:2"]["distribution"]["mean"] is None
    )


# What is refused.

REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a layer that is not there": (
        lambda: look(TopActivations("net.features.55:all")),
        ValueError,
        "targets: unknown layer .*did you mean",
    ),
    "a network that is not there": (
        lambda: look(TopActivations("0:all", network="nat")),
        ValueError,
        "network: unknown module 'nat'",
    ),
    "a unit beyond the layer": (
        lambda: look(TopActivations("net.features.5:8")),
        ValueError,
        "has 8 units, 0 to 7; there is no 8",
    ),
    "a position": (lambda: TopActivations("net.features.5:3@1,2"), ValueError, "targets: .*leave '@' out"),
    "no photos": (lambda: TopActivations("a:all", k=0), ValueError, "k must be at least 1, got 0"),
    "a wrong reduction": (
        lambda: TopActivations("a:all", reduction="sum"),  # type: ignore[arg-type]
        ValueError,
        "reduction: unknown choice 'sum'",
    ),
    "a negative number": (lambda: TopActivations("a:all", least=-1), ValueError, "least must be at least 0"),
    "a wrong std": (lambda: TopActivations("a:all", std=0.0), ValueError, "std"),
    "batches without pictures": (
        lambda: look(TopActivations("net:all", k=1), TensorDataset(torch.rand(4, 6)), nn.Linear(6, 2)),
        ValueError,
        "batch: it holds no pictures",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused(name: str) -> None:
    make, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        make()


@pytest.mark.filterwarnings("ignore:.*patches are whole photos")
def test_a_layer_that_the_step_does_not_run_or_runs_on_something_else_is_refused() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.used(torch.cat([x, x]))
            return y

    with pytest.raises(ValueError, match=r"did not run 'net\.unused'"):
        look(TopActivations("net.unused:all", k=1), net=Skips())
    with pytest.raises(ValueError, match="gave 8 results for a batch of 4 pictures"):
        look(TopActivations("net.used:all", k=1), net=Skips())


def test_two_may_not_write_the_same_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder: two TopActivations would write"):
        look(
            TopActivations("net.features.5:all", folder=tmp_path),
            callbacks=[TopActivations("net.head:all", folder=tmp_path)],
        )


# As an object.


def test_survives_copies_pickles_and_yaml(tmp_path: Path) -> None:
    callback = TopActivations(["net.features.5:1-2", "net.head:all"], k=2, mean=[0.1, 0.2, 0.3], folder=tmp_path)
    assert (
        repr(callback)
        == f"TopActivations(['net.features.5:1-2', 'net.head:all'], k=2, folder={str(tmp_path)!r}, mean=[0.1, 0.2, 0.3])"
    )
    found = look(callback)
    for made in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback)), eval(repr(callback))):
        assert repr(made) == repr(callback)
        assert made.state_key == callback.state_key
        assert look(made) == found
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callback", type=Callback)
    path = "featviz_pl_callbacks.top_activations.TopActivations"
    config = {
        "class_path": path,
        "init_args": {"targets": ["net.head:all"], "k": 2, "std": [0.5, 0.5, 0.5], "reduction": "max"},
    }
    made = parser.instantiate(parser.parse_object({"callback": config})).callback
    assert repr(made) == "TopActivations(['net.head:all'], k=2, std=[0.5, 0.5, 0.5], reduction='max')"


# Real photos.


@pytest.mark.slow
@needs_shared
def test_equals_brute_force_on_all_validation_photos_on_one_process_and_two(tmp_path: Path) -> None:
    net: Any = top_worker.squeezenet().eval()
    means, highest = [], []
    with torch.inference_mode():
        for batch in DataLoader(top_worker.photos(), 50):
            maps = net.features[:10](batch[0])
            means.append(maps.mean((2, 3)))
            highest.append(maps.amax((2, 3)))
    scores, peaks = torch.cat(means).numpy(), torch.cat(highest).numpy()
    assert scores.shape == (3925, 384)
    for ranks in (1, 2):
        for found in run_worker(tmp_path, "photos", ranks, limit=1800):
            assert len(found) == 384
            for unit, one in enumerate(found.values()):
                compare(one, scores[:, unit], peaks[:, unit])


def compare(one: UnitActivations, scores: Array, peaks: Array) -> None:
    """Require the photos of brute force, up to ties within 1e-5."""
    for kind, ordered in (("top", np.argsort(-scores, kind="stable")), ("least", np.argsort(scores, kind="stable"))):
        listed = getattr(one, kind)
        expected = scores[ordered[:9]]
        numbers = [photo.photo for photo in listed]
        assert len(set(numbers)) == 9
        np.testing.assert_allclose([photo.score for photo in listed], expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(scores[numbers], expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose([photo.peak for photo in listed], peaks[numbers], rtol=1e-4, atol=1e-5)
    assert one.distribution.photos == one.distribution.sampled == 3925
    assert one.distribution.percentiles["95"] == pytest.approx(
        np.percentile(scores.astype(np.float64), 95), rel=1e-4, abs=1e-6
    )
