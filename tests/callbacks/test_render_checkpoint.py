"""Renders that are interrupted and go on from the checkpoint beside their output."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from guests import At
from lightning.pytorch import Callback
from runs import build, fit
from toys import toy

from featviz_pl.cli.main import main
from featviz_pl.io import read_picture, read_provenance
from featviz_pl.rendering import render
from featviz_pl.training import FeatureVisualization
from featviz_pl_callbacks.render_checkpoint import RenderCheckpoint, checkpoint_beside, checkpoint_to_resume, discard

SMALL: dict[str, Any] = {"steps": 12, "size": 16, "preset": "article", "seed": 3, "accelerator": "cpu"}
COMMAND = [
    "render",
    "toys:toy",
    "features.5:1",
    "--steps",
    "12",
    "--size",
    "16",
    "--accelerator",
    "cpu",
    "-o",
    "a.png",
    "--resume",
]


def press() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def pressed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Press Ctrl-C in the fifth step of the next run, in the middle of it."""
    left = [5]

    def pressing(self: FeatureVisualization, *arguments: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            press()

    monkeypatch.setattr(FeatureVisualization, "on_before_zero_grad", pressing)
    return iter([None])


def test_an_interrupted_render_goes_on_to_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    whole = render(toy(), "features.5:1", **SMALL)
    parts = [render(toy(), "features.5:1", **SMALL, resume=path, callbacks=[At(step, press)]) for step in (3, 4, 9)]
    assert [part.interrupted for part in parts] == [True] * 3
    assert [part.provenance[0]["steps"] for part in parts] == [3, 4, 9]
    done = render(toy(), "features.5:1", **SMALL, resume=str(path))
    assert not done.interrupted
    assert torch.equal(done.images, whole.images)
    assert done.provenance == whole.provenance
    assert path.exists()  # until whoever asked has the picture
    discard(path)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_written_every_so_many_steps_and_is_whole(tmp_path: Path) -> None:
    found: list[tuple[int, list[str]]] = []

    class Look(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            names = [path.name for path in tmp_path.iterdir()]
            step = torch.load(tmp_path / "a.ckpt", weights_only=True)["global_step"] if names else 0
            found.append((step, names))

    fit(build(), 7, [RenderCheckpoint(tmp_path / "a.ckpt", every=3), Look()], accumulate_grad_batches=2)
    assert [step for step, _ in found] == [0] * 5 + [3] * 6 + [6] * 3
    assert {name for _, names in found for name in names} == {"a.ckpt"}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"steps": 13}, "steps 12 there, 13 here"),
        ({"preset": "lucid"}, "made with views .*count=4"),
        ({"views": 2}, r"made with views .*count=4.*count=2"),
        ({"seed": 4}, "its seed is 3, and that of this run is 4"),
        ({"target": "features.5:2"}, "its objective is Channel.* 1.*, and that of this run is Channel.* 2"),
        ({"network": toy(seed=1)}, "weights '.*' there, '.*' here"),
        ({"size": 18}, r"its image is .*\(16, 16\).* of this run is .*\(18, 18\)"),
    ],
)
def test_another_render_does_not_go_on_from_it(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    path, own = (
        tmp_path / "a.ckpt",
        {"network": toy(), "target": "features.5:1", **SMALL, "resume": tmp_path / "a.ckpt"},
    )
    render(**own, callbacks=[At(3, press)])
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        render(**{**own, **other})
    assert path.read_bytes() == before


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    assert checkpoint_to_resume(path) is None
    fit(build(), 1).save_checkpoint(path)
    with pytest.raises(ValueError, match=r"resume: .*a.ckpt' is no checkpoint of a render; move it away"):
        checkpoint_to_resume(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"resume: cannot read .*a.ckpt'.*; delete the file"):
        checkpoint_to_resume(path)


@pytest.mark.parametrize(("output", "name"), [("a.png", "a.ckpt"), ("out/b.c.png", "out/b.c.ckpt")])
def test_the_checkpoint_lies_beside_the_output(output: str, name: str) -> None:
    assert checkpoint_beside(output) == Path(name)


def test_the_command_goes_on_and_tidies_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pressed: None
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(COMMAND) == 130
    assert (
        "interrupted after 5 steps; the picture so far was saved; the same command goes on" in capsys.readouterr().err
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "a.png"]
    assert read_provenance("a.png")["steps"] == 5
    assert main([*COMMAND, "--seed", "9"]) == 2
    assert "its seed is 0, and that of this run is 9" in capsys.readouterr().err
    assert main(COMMAND) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert main([*COMMAND[:-3], "-o", "whole.png"]) == 0
    assert torch.equal(read_picture("a.png"), read_picture("whole.png"))
    assert read_provenance("a.png") == read_provenance("whole.png")
    (tmp_path / "a.ckpt").write_text("something else")
    assert main(COMMAND) == 2
    assert "resume: cannot read 'a.ckpt'" in capsys.readouterr().err
