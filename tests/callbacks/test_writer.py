"""The writer of a sweep: what lies in the folder, what is skipped, redone and refused; and its progress bar."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from toys import QUIET, toy

from featviz_pl.callbacks import FeatureWriter, SweepProgressBar
from featviz_pl.images import FourierImage
from featviz_pl.io import as_saved, read_picture, read_provenance, save_png
from featviz_pl.sweep import FeatureSweep, FeatureTargets
from featviz_pl.sweep.folder import FolderInUseError, SweepFolder
from featviz_pl.sweep.manifest import read_manifest
from featviz_pl.training import FeatureVisualization
from featviz_pl_callbacks import _progress_bar as progress
from featviz_pl_callbacks import feature_writer as room


class Asked(Callback):
    """Remember what was rendered."""

    def __init__(self) -> None:
        self.targets: list[str] = []

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        self.targets += batch.targets


def sweep(
    folder: Path,
    targets: str | Sequence[str] = "features.5:all",
    batch_size: int | str = 3,
    network: nn.Module | None = None,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    **arguments: Any,
) -> tuple[FeatureWriter, list[str]]:
    """Sweep into a folder; return the writer and what was rendered."""
    writer, asked = FeatureWriter(folder, overwrite), Asked()
    bar = any(isinstance(callback, SweepProgressBar) for callback in callbacks)
    trainer = Trainer(**{**QUIET, "callbacks": [writer, asked, *callbacks], "enable_progress_bar": bar})
    module = FeatureSweep(network or toy(), **{"steps": 3, "size": 10, **arguments})
    trainer.predict(module, FeatureTargets(targets, batch_size), return_predictions=False)
    return writer, asked.targets


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def names(units: Sequence[int], layer: str = "features.5") -> list[str]:
    return [f"{layer}:{unit}" for unit in units]


def test_every_unit_has_its_file_and_every_layer_its_sheet(tmp_path: Path) -> None:
    writer, asked = sweep(tmp_path, ["features.5:all", "features.0:1-2"])
    assert asked == [*names([1, 2], "features.0"), *names(range(8))]
    expected = {f"features.5/{unit}.png" for unit in range(8)} | {"features.0/1.png", "features.0/2.png"}
    assert set(files(tmp_path)) == expected | {"manifest.jsonl", "features.0.png", "features.5.png"}
    assert read_picture(tmp_path / "features.0.png").shape == (3, 10, 22)
    assert read_picture(tmp_path / "features.5.png").shape == (3, 34, 34)
    assert torch.equal(
        read_picture(tmp_path / "features.5.png")[:, 12:22, 12:22], read_picture(tmp_path / "features.5" / "4.png")
    )
    assert writer.summary is not None
    assert (writer.summary.rendered, writer.summary.skipped, writer.summary.failed, writer.summary.missing) == (
        10,
        0,
        {},
        [],
    )


def test_files_hold_the_pictures_and_their_origin(tmp_path: Path) -> None:
    sweep(tmp_path, seed=4)
    predicted = Trainer(**QUIET).predict(
        FeatureSweep(toy(), steps=3, size=10, seed=4), FeatureTargets("features.5:all", 3)
    )
    assert predicted is not None
    entries = read_manifest(tmp_path).entries
    for batch in predicted:
        for image, target, score in zip(batch.images, batch.targets, batch.scores):  # type: ignore[union-attr]
            path = tmp_path / "features.5" / f"{target.rpartition(':')[2]}.png"
            assert torch.equal(read_picture(path), as_saved(image))
            origin = read_provenance(path)
            assert (origin["target"], origin["seed"], origin["score"], origin["batch_size"]) == (target, 4, score, 3)
            assert entries[target] == {"target": target, "path": path.relative_to(tmp_path).as_posix(), "score": score}
            expected = toy().eval().features(read_picture(path)[None])[0, int(path.stem)].mean().item()
            assert score == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_large_layers_are_divided_into_folders_of_a_thousand(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 1001))
    writer, _ = sweep(tmp_path, "1:0,999,1000", 3, network, size=6)
    assert {"1/0/0.png", "1/0/999.png", "1/1/1000.png", "1.png"} <= set(files(tmp_path))
    assert writer.summary is not None
    assert writer.summary.rendered == 3
    assert sweep(tmp_path, "1:0,999,1000", 3, network, size=6)[1] == []


# Going on.


def test_what_is_finished_is_not_rendered_again(tmp_path: Path) -> None:
    sweep(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    held = files(tmp_path)
    writer, asked = sweep(tmp_path)
    assert asked == []
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert files(tmp_path) == held
    assert writer.summary is not None
    assert (writer.summary.rendered, writer.summary.skipped) == (0, 8)
    assert len(writer.summary.scores) == 8


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_another(path: Path) -> None:
    path.write_bytes(path.with_name("0.png").read_bytes())


@pytest.mark.parametrize("damage", [Path.unlink, cut, empty, of_another])
def test_a_damaged_picture_is_redone_and_no_other(damage: Any, tmp_path: Path) -> None:
    sweep(tmp_path)
    held = files(tmp_path)
    damage(tmp_path / "features.5" / "4.png")
    writer, asked = sweep(tmp_path)
    assert asked == ["features.5:4"]
    assert files(tmp_path) == held
    assert writer.summary is not None
    assert (writer.summary.rendered, writer.summary.skipped) == (1, 7)


def test_a_lost_manifest_is_rebuilt(tmp_path: Path) -> None:
    sweep(tmp_path)
    held = files(tmp_path)
    (tmp_path / "manifest.jsonl").unlink()
    assert sweep(tmp_path)[1] == []
    assert files(tmp_path) == held
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "manifest.jsonl").write_text("".join(lines[:4]))  # some lines are lost
    assert sweep(tmp_path)[1] == []
    assert files(tmp_path) == held


def test_a_sweep_is_extended_to_more_units_and_layers(tmp_path: Path) -> None:
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    sweep(whole, ["features.0:all", "features.5:all"])
    sweep(grown, "features.5:0-4")
    _, asked = sweep(grown, ["features.0:all", "features.5:all"])
    assert asked == [*names(range(6), "features.0"), *names([5, 6, 7])]
    assert files(grown) == files(whole)


def test_the_batch_size_of_the_folder_is_kept(tmp_path: Path) -> None:
    sweep(tmp_path, "features.5:0-1", 3)
    sweep(tmp_path, "features.5:all", "auto")
    assert read_provenance(tmp_path / "features.5" / "7.png")["batch_size"] == 3
    with pytest.raises(ValueError, match=r"batch_size: the pictures in .* were made with 3, and this asks for 4"):
        sweep(tmp_path, "features.5:all", 4)


def test_auto_is_written_into_the_manifest(tmp_path: Path) -> None:
    sweep(tmp_path, "features.5:0-4", "auto")
    settings = json.loads((tmp_path / "manifest.jsonl").read_text().splitlines()[0])["settings"]
    assert settings["batch_size"] == 4
    assert set(settings) >= {"network", "weights", "seed", "steps", "size", "preset", "views", "featviz_pl", "torch"}


# What is refused.

CHANGES: dict[str, dict[str, Any]] = {
    "steps": {"steps": 4},
    "size": {"size": 12},
    "seed": {"seed": 1},
    "views": {"views": 2},
    "preset": {"preset": "article"},
    "lr": {"lr": 0.1},
    "image": {"image": "pixel"},
    "weights": {"network": toy(seed=3)},
    "optimizer": {"optimizer": torch.optim.SGD},
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_settings_are_refused_by_name_unless_overwritten(name: str, tmp_path: Path) -> None:
    sweep(tmp_path, "features.5:0-2")
    held = files(tmp_path)
    with pytest.raises(
        ValueError, match=f"^{name}: the pictures in .* were made with .*, and this asks for .*overwrite"
    ):
        sweep(tmp_path, "features.5:0-2", **CHANGES[name])
    assert files(tmp_path) == held
    _, asked = sweep(tmp_path, "features.5:1", overwrite=True, **CHANGES[name])
    assert asked == ["features.5:1"]
    assert set(files(tmp_path)) == {"manifest.jsonl", "features.5.png", "features.5/1.png"}


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    sweep(tmp_path, "features.5:0-2")
    held = files(tmp_path)
    other = SweepFolder(tmp_path)
    other.claim()
    with pytest.raises(FolderInUseError, match="another sweep works in"):
        sweep(tmp_path)
    assert files(tmp_path) == held
    other.close()
    sweep(tmp_path)


def test_a_sweep_lets_go_of_its_folder_however_it_ends(tmp_path: Path) -> None:
    sweep(tmp_path, "features.5:0-2")
    with pytest.raises(ValueError, match=r"unknown layer or pattern"):
        sweep(tmp_path, "features.55:all")
    with pytest.raises(ValueError, match="steps"):
        sweep(tmp_path, steps=9)
    sweep(tmp_path)


@pytest.mark.parametrize("kind", [FeatureWriter, SweepProgressBar])
def test_another_module_is_refused_by_name(kind: type[Callback], tmp_path: Path) -> None:
    class Other(LightningModule):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return batch

    made = kind(tmp_path) if kind is FeatureWriter else kind()
    trainer = Trainer(**{**QUIET, "callbacks": [made], "enable_progress_bar": kind is SweepProgressBar})
    with pytest.raises(
        TypeError, match=f"{kind.__name__} works on a FeatureSweep with FeatureTargets, not on Other with NoneType"
    ):
        trainer.predict(Other(), [1])
    assert list(tmp_path.iterdir()) == []


# What fails.


class Brittle(nn.Module):
    """Unit 0 is red, unit 1 breaks when green has risen beyond 0.6, unit 2 is off for ever."""

    def forward(self, x: Tensor) -> Tensor:
        red, green, blue = x.unbind(1)
        return torch.stack([red, -torch.log(0.6 - green), torch.relu(0 * blue - 1)], dim=1)


def test_units_that_fail_are_recorded_and_not_tried_again(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"network": Brittle(), "steps": 30, "lr": 0.2, "batch_size": 2}
    writer, asked = sweep(tmp_path, "output:all", **arguments)
    assert asked == names([0, 1, 2], "output")
    assert writer.summary is not None
    assert set(writer.summary.failed) == {"output:1", "output:2"}
    assert "not finite" in writer.summary.failed["output:1"]
    assert "no gradient" in writer.summary.failed["output:2"]
    entries = read_manifest(tmp_path).entries
    assert entries["output:1"] == {"target": "output:1", "failed": writer.summary.failed["output:1"]}
    assert set(files(tmp_path)) == {"manifest.jsonl", "output.png", "output/0.png"}
    held = files(tmp_path)
    again, asked = sweep(tmp_path, "output:all", **arguments)
    assert asked == []
    assert again.summary is not None
    assert again.summary.failed == writer.summary.failed
    assert files(tmp_path) == held


def test_a_full_disk_stops_at_once_with_what_is_done_intact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole"
    sweep(whole)
    folder, save = tmp_path / "full", save_png
    saved: list[Path] = []

    def until_full(*arguments: Any) -> Path:
        if len(saved) == 4:
            raise OSError(28, "No space left on device", str(arguments[1]))
        saved.append(save(*arguments))
        return saved[-1]

    monkeypatch.setattr(room, "save_png", until_full)
    with pytest.raises(OSError, match="No space left on device"):
        sweep(folder)
    monkeypatch.setattr(room, "save_png", save)
    pictures = [name for name in files(folder) if name.endswith(".png")]
    assert sorted(pictures) == [f"features.5/{unit}.png" for unit in range(4)]
    assert set(read_manifest(folder).entries) == set(names(range(4)))
    _, asked = sweep(folder)
    assert asked == names(range(4, 8))
    assert files(folder) == files(whole)


def test_a_folder_that_vanishes_stops_the_sweep(tmp_path: Path) -> None:
    class Vanish(Callback):
        def on_predict_batch_end(self, trainer: Trainer, *more: Any) -> None:
            (tmp_path / "a" / "features.5").rename(tmp_path / "elsewhere")
            (tmp_path / "a" / "features.5").write_text("something else")

    with pytest.raises((OSError, ValueError)):
        sweep(tmp_path / "a", callbacks=[Vanish()])
    assert len(list((tmp_path / "elsewhere").iterdir())) == 3


def test_a_sweep_that_is_cut_short_says_what_is_missing(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path)
    trainer = Trainer(**{**QUIET, "callbacks": [writer], "limit_predict_batches": 2})
    trainer.predict(FeatureSweep(toy(), steps=2, size=8), FeatureTargets("features.5:all", 3), return_predictions=False)
    assert writer.summary is not None
    assert writer.summary.missing == names([6, 7])


def test_survives_copies_and_pickles_before_and_after_a_sweep(tmp_path: Path) -> None:
    writer, _ = sweep(tmp_path, "features.5:0-2")
    for held in (FeatureWriter(tmp_path), writer):
        for made in (copy.deepcopy(held), pickle.loads(pickle.dumps(held))):
            assert repr(made) == f"FeatureWriter({str(tmp_path)!r}, overwrite=False)"
            trainer = Trainer(**{**QUIET, "callbacks": [made]})
            trainer.predict(
                FeatureSweep(toy(), steps=3, size=10), FeatureTargets("features.5:0-2", 3), return_predictions=False
            )
            assert made.summary is not None
            assert made.summary.skipped == 3


def test_nothing_is_touched_before_a_sweep(tmp_path: Path) -> None:
    FeatureWriter(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


# The progress bar.


class Recorder:
    """Stand for a drawn bar."""

    made: list[Recorder]

    def __init__(self, total: int | None, done: int) -> None:
        self.total, self.updates, self.texts, self.closed = total, list[int](), list[str](), 0
        type(self).made.append(self)

    def update(self, done: int, text: str) -> None:
        self.updates.append(done)
        self.texts.append(text)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    Recorder.made = []
    monkeypatch.setattr(progress, "new_bar", Recorder)
    return Recorder.made


def test_the_bar_counts_features_and_shows_steps_and_speed(tmp_path: Path, bars: list[Recorder]) -> None:
    sweep(tmp_path, callbacks=[SweepProgressBar(refresh_rate=2)], steps=4)
    assert [(bar.total, bar.closed) for bar in bars] == [(8, 1)]
    assert bars[0].updates == [0, 0, 3, 3, 3, 6, 6, 6, 8]
    assert bars[0].texts[:2] == ["step 2 of 4", "step 4 of 4"]
    assert all("features per minute" in text for text in bars[0].texts[2:])
    sweep(tmp_path, callbacks=[SweepProgressBar()], steps=4)  # everything is there
    assert (bars[1].total, bars[1].updates, bars[1].texts) == (8, [8], [""])
    (tmp_path / "features.5" / "2.png").unlink()
    sweep(tmp_path, callbacks=[SweepProgressBar(refresh_rate=9)], steps=4)
    assert (bars[2].total, bars[2].updates) == (8, [8])


def test_the_bar_is_closed_after_a_failure(tmp_path: Path, bars: list[Recorder]) -> None:
    class Fail(Callback):
        def on_predict_batch_end(self, *arguments: Any) -> None:
            raise RuntimeError("over")

    with pytest.raises(RuntimeError, match="over"):
        sweep(tmp_path, callbacks=[SweepProgressBar(), Fail()])
    assert [bar.closed for bar in bars] == [1]


def test_the_bar_is_drawn_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setitem(sys.modules, "rich.console", None)
    sweep(tmp_path, callbacks=[SweepProgressBar()])
    out, err = capsys.readouterr()
    assert out == ""
    assert "8/8" in err
    assert "features per minute" in err


@pytest.mark.parametrize("refresh_rate", [0, -1, 0.5])
def test_impossible_rates_are_refused(refresh_rate: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="refresh_rate must be"):
        SweepProgressBar(refresh_rate)


def test_a_sweep_is_no_training(tmp_path: Path) -> None:
    trainer = Trainer(**{**QUIET, "callbacks": [FeatureWriter(tmp_path)], "max_steps": 1})
    with pytest.raises(TypeError, match="FeatureWriter works on a FeatureSweep"):
        trainer.fit(FeatureVisualization(toy(), "features.5:1", image=FourierImage(8)))
