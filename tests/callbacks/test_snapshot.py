"""Pictures on disk while they form: which, when, and what is kept when a run does not end well."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from guests import At, Breakable
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image as Pillow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from toys import QUIET, toy

from featviz_pl.callbacks import Augmentation, ImageSnapshot
from featviz_pl.images import FourierImage
from featviz_pl.io import read_picture, read_provenance
from featviz_pl.training import FeatureVisualization


def model(target: str = "features.5:1", **arguments: Any) -> FeatureVisualization:
    return FeatureVisualization(toy(), target, image=FourierImage((8, 10)), preset="lucid", lr=0.2, **arguments)


def fit(
    module: FeatureVisualization, *callbacks: Callback, max_steps: int = 7, ckpt_path: Any = None, **arguments: Any
) -> Trainer:
    trainer = Trainer(**{**QUIET, "max_steps": max_steps, "callbacks": list(callbacks), **arguments})
    trainer.fit(module, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def frames(folder: Path) -> int:
    with Pillow.open(folder / "animation.webp") as film:
        return int(film.n_frames)  # type: ignore[attr-defined]


class Pictures(Callback):
    """Remember the pictures after every step."""

    def __init__(self) -> None:
        self.after: dict[int, Tensor] = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, FeatureVisualization)
        self.after[trainer.global_step] = pl_module.images.clone()


@pytest.mark.parametrize(
    ("every", "saved"),
    [(2, [2, 4, 6]), (3, [3, 6]), ([1, 5], [1, 5]), ((7,), [7]), ([9], []), (50, [])],
    ids=str,
)
def test_pictures_at_the_steps_asked_for(tmp_path: Path, every: Any, saved: list[int]) -> None:
    seen = Pictures()
    fit(model(), ImageSnapshot(tmp_path / "new" / "folder", every=every), seen)
    folder = tmp_path / "new" / "folder"
    snapshots = [f"step-{step:06d}.png" for step in saved]
    assert names(folder) == sorted([*snapshots, "final.png", *(["animation.webp"] if saved else [])])
    for step, name in zip(saved, snapshots):
        assert float((read_picture(folder / name) - seen.after[step][0]).abs().max()) <= 0.5 / 255 + 1e-6
    assert float((read_picture(folder / "final.png") - seen.after[7][0]).abs().max()) <= 0.5 / 255 + 1e-6


def test_the_animation_holds_every_snapshot_and_the_end(tmp_path: Path) -> None:
    fit(model(), ImageSnapshot(tmp_path, every=2))
    assert frames(tmp_path) == 4


def test_no_animation_where_none_is_wanted(tmp_path: Path) -> None:
    fit(model(), ImageSnapshot(tmp_path, every=2, animate=False))
    assert "animation.webp" not in names(tmp_path)


def test_several_pictures_make_a_sheet_and_files_of_their_own_at_the_end(tmp_path: Path) -> None:
    module = model("features.5:0-2")
    fit(module, ImageSnapshot(tmp_path, every=4))
    assert names(tmp_path) == [
        "animation.webp",
        "final-0.png",
        "final-1.png",
        "final-2.png",
        "final.png",
        "step-000004.png",
    ]
    for index in range(3):
        assert (
            float((read_picture(tmp_path / f"final-{index}.png") - module.images[index]).abs().max())
            <= 0.5 / 255 + 1e-6
        )
    # 8 x 10 pictures, 2 white pixels between them, two in the first row.
    assert read_picture(tmp_path / "final.png").shape == (3, 8 + 2 + 8, 10 + 2 + 10)
    assert read_picture(tmp_path / "step-000004.png").shape == (3, 18, 22)
    assert torch.equal(read_picture(tmp_path / "final.png")[:, 10:, :10], read_picture(tmp_path / "final-2.png"))


def test_the_pictures_alone_are_named_by_their_units(tmp_path: Path) -> None:
    module = model("features.5:5,3")
    fit(module, ImageSnapshot(tmp_path), max_steps=1)
    assert names(tmp_path) == ["final-3.png", "final-5.png", "final.png"]
    assert read_provenance(tmp_path / "final-3.png")["target"] == "features.5:3"
    assert float((read_picture(tmp_path / "final-3.png") - module.images[1]).abs().max()) <= 0.5 / 255 + 1e-6


def test_pictures_carry_their_origin(tmp_path: Path) -> None:
    module = model("features.5:0-1", seed=5)
    fit(module, ImageSnapshot(tmp_path, every=4), Augmentation("article"))
    halfway, final, first = (
        read_provenance(tmp_path / name) for name in ("step-000004.png", "final.png", "final-0.png")
    )
    assert (halfway["steps"], final["steps"], first["steps"]) == (4, 7, 7)
    assert (halfway["target"], first["target"]) == (["features.5:0", "features.5:1"], "features.5:0")
    assert {origin["seed"] for origin in (halfway, final, first)} == {5}
    assert "score" not in halfway
    expected = toy().eval().features(read_picture(tmp_path / "final-0.png")[None])[0, 0].mean().item()
    assert first["score"] == pytest.approx(expected, rel=1e-4)
    assert final["score"] == [first["score"], read_provenance(tmp_path / "final-1.png")["score"]]
    assert "count=4" in first["views"]


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for run in ("a", "b"):
        fit(model("features.5:0-1"), ImageSnapshot(tmp_path / run, every=3), Augmentation("article"))
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_accumulated_batches_count_as_one_step(tmp_path: Path) -> None:
    fit(model(), ImageSnapshot(tmp_path, every=1), max_steps=2, accumulate_grad_batches=3)
    assert names(tmp_path) == ["animation.webp", "final.png", "step-000001.png", "step-000002.png"]


def stop(error: type[BaseException]) -> Any:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_or_failure_keeps_what_was_done(tmp_path: Path, error: type[BaseException]) -> None:
    module = model("features.5:0-1")
    with pytest.raises((SystemExit, RuntimeError)):
        fit(module, ImageSnapshot(tmp_path, every=2), At(5, stop(error)))
    expected = ["animation.webp", "final-0.png", "final-1.png", "final.png", "step-000002.png", "step-000004.png"]
    assert names(tmp_path) == expected
    assert read_provenance(tmp_path / "final.png")["steps"] == 5
    assert float((read_picture(tmp_path / "final-1.png") - module.images[1]).abs().max()) <= 0.5 / 255 + 1e-6
    assert frames(tmp_path) == 3


def test_a_step_that_is_not_finite_keeps_the_last_good_picture(tmp_path: Path) -> None:
    network, seen = Breakable(), Pictures()
    module = FeatureVisualization(network, "output:0", image=FourierImage(8))

    def throw() -> None:
        network.switch.on = True

    with pytest.raises(ValueError, match="step 4: the score is not finite"):
        fit(module, ImageSnapshot(tmp_path, every=2), At(4, throw, before=True), seen)
    assert {"final.png", "step-000002.png", "step-000004.png"} <= set(names(tmp_path))
    assert float((read_picture(tmp_path / "final.png") - seen.after[4][0]).abs().max()) <= 0.5 / 255 + 1e-6


def test_a_failure_before_the_first_step_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 8 units"):
        fit(model("features.5:99"), ImageSnapshot(tmp_path, every=1))
    assert names(tmp_path) == []


def test_a_resumed_run_goes_on_with_the_animation(tmp_path: Path) -> None:
    straight, folder = tmp_path / "straight", tmp_path / "resumed"
    fit(model(), ImageSnapshot(straight, every=2))

    trainer = Trainer(**{**QUIET, "max_steps": 7, "callbacks": [ImageSnapshot(folder, every=2)]})

    def save_and_stop() -> None:
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        raise KeyboardInterrupt

    trainer.callbacks.append(At(4, save_and_stop))  # type: ignore[attr-defined]
    with pytest.raises(SystemExit):
        trainer.fit(model())
    assert frames(folder) == 2  # the state after step 4 is both the second snapshot and the end

    fit(model(), ImageSnapshot(folder, every=2), ckpt_path=tmp_path / "a.ckpt")
    assert names(folder) == names(straight)
    assert frames(folder) == frames(straight) == 4
    for name in names(folder):
        assert (folder / name).read_bytes() == (straight / name).read_bytes()


def test_a_resume_from_before_the_last_snapshot_writes_no_frame_twice(tmp_path: Path) -> None:
    trainer = Trainer(**{**QUIET, "max_steps": 7, "callbacks": [ImageSnapshot(tmp_path / "out", every=2)]})
    trainer.callbacks.append(At(3, lambda: trainer.save_checkpoint(tmp_path / "a.ckpt")))  # type: ignore[attr-defined]
    trainer.fit(model())
    again = ImageSnapshot(tmp_path / "out", every=2)
    fit(model(), again, ckpt_path=tmp_path / "a.ckpt")
    assert again.state_dict()["frames"] == ["step-000002.png", "step-000004.png", "step-000006.png"]
    assert frames(tmp_path / "out") == 4


def test_a_second_run_begins_its_animation_anew(tmp_path: Path) -> None:
    snapshots = ImageSnapshot(tmp_path, every=2)
    fit(model(), snapshots)
    fit(model(), snapshots, max_steps=3)
    assert snapshots.state_dict()["frames"] == ["step-000002.png"]
    assert frames(tmp_path) == 2


def test_loggers_get_a_picture_and_a_score_for_each_unit_at_the_steps_of_the_files(tmp_path: Path) -> None:
    board, table = TensorBoardLogger(str(tmp_path / "board")), CSVLogger(str(tmp_path / "table"))
    seen = Pictures()
    fit(
        model("features.5:0-1"),
        ImageSnapshot(tmp_path / "out", every=3),
        seen,
        logger=[board, table],
        log_every_n_steps=1,
    )
    events = EventAccumulator(board.log_dir)
    events.Reload()
    assert events.Tags()["images"] == ["pictures", "pictures/features.5:0", "pictures/features.5:1"]
    assert {(image.height, image.width) for image in events.Images("pictures")} == {(8, 22)}  # two side by side
    assert {"step-000003.png", "step-000006.png"} <= set(names(tmp_path / "out"))
    with (Path(table.log_dir) / "metrics.csv").open(newline="") as file:
        rows = {row["step"]: row for row in csv.DictReader(file) if row["pictures/features.5:0/score"]}
    assert set(rows) == {"3", "6"}
    for unit in (0, 1):
        tag = f"pictures/features.5:{unit}"
        assert [image.step for image in events.Images(tag)] == [3, 6]
        for step in (3, 6):
            path = Path(table.log_dir) / "images" / tag.replace(":", "-") / f"step-{step:06d}.png"
            picture = read_picture(path)
            assert float((picture - seen.after[step][unit]).abs().max()) <= 0.5 / 255 + 1e-6
            score = toy().eval().features(picture[None])[0, unit].mean().item()
            assert float(rows[str(step)][f"{tag}/score"]) == pytest.approx(score, rel=1e-4)


def test_a_folder_that_cannot_be_made_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder: cannot make"):
        fit(model(), ImageSnapshot(tmp_path / "file" / "out"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match="folder: cannot write into"):
        fit(model(), ImageSnapshot(tmp_path))


@pytest.mark.parametrize("every", [0, -1, [4, 0], 1.5])
def test_impossible_steps_are_refused(tmp_path: Path, every: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="every must be"):
        ImageSnapshot(tmp_path, every=every)


def test_a_network_that_fails_leaves_the_pictures_without_a_score(tmp_path: Path) -> None:
    broken: list[bool] = []

    class Fails(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if bool(x.isnan().any()) or broken:  # asked of the values, so in every step
                raise RuntimeError("the device is lost")
            return x

    module, seen = FeatureVisualization(Fails(), "output:0,2", image=FourierImage(8)), Pictures()
    with pytest.raises(RuntimeError, match="the device is lost"):
        fit(module, ImageSnapshot(tmp_path, every=2), At(4, lambda: broken.append(True), before=True), seen)
    assert names(tmp_path) == [
        "animation.webp",
        "final-0.png",
        "final-2.png",
        "final.png",
        "step-000002.png",
        "step-000004.png",
    ]
    origin = read_provenance(tmp_path / "final-2.png")
    assert (origin["steps"], origin["score"], origin["target"]) == (4, None, "output:2")
    assert float((read_picture(tmp_path / "final-2.png") - seen.after[4][1]).abs().max()) <= 0.5 / 255 + 1e-6
