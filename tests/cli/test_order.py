"""The command line: what is looked at first, and who writes when a run ends early or runs on several processes."""

from __future__ import annotations

import errno
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from featviz_pl.cli.main import main
from featviz_pl.rendering import RenderResult

TINY = ["--steps", "2", "--size", "12", "--accelerator", "cpu"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder that holds nothing."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


class Interrupting(nn.Module):
    """Be interrupted in the first pass."""

    def forward(self, x: Tensor) -> Tensor:
        raise KeyboardInterrupt


def test_an_interrupt_before_the_first_step_is_one_line_and_its_own_code(
    empty_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import toys

    monkeypatch.setattr(toys, "interrupting", Interrupting, raising=False)
    assert main(["render", "toys:interrupting", "output:0", *TINY]) == 130
    assert capsys.readouterr() == ("", "featviz render: interrupted; nothing was written\n")
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset", "lucit"], "unknown preset 'lucit'; did you mean 'lucid'"),
        (["--image", "furier"], "unknown parameterization 'furier'; did you mean 'fourier'"),
        (["--start", "missing.png"], "cannot read a picture from 'missing.png'"),
        (["--steps", "0"], "steps must be at least 1"),
    ],
    ids=str,
)
def test_what_needs_no_network_is_refused_before_one_is_loaded(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: object) -> None:
        raise AssertionError("the network was loaded")

    monkeypatch.setattr("featviz_pl.networks.load_network", load)
    assert main(["render", "toys:toy", "features.5:0", *flags]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


@pytest.mark.parametrize(
    "arguments", [["layers", "toys:toy"], ["render", "toys:toy", "features.5:0", *TINY]], ids=["layers", "render"]
)
def test_an_error_of_the_operating_system_is_one_line_that_names_the_file(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/secret/weights.pth")

    monkeypatch.setattr("featviz_pl.networks.load_network", load)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"featviz {arguments[0]}: error: Permission denied: '/secret/weights.pth'\n")


@pytest.mark.parametrize(("interrupted", "code"), [(False, 0), (True, 130)])
def test_another_process_of_the_run_neither_writes_nor_reports(
    interrupted: bool,
    code: int,
    empty_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def elsewhere(*args: Any, **kwargs: Any) -> RenderResult:
        return RenderResult(
            torch.zeros(1, 3, 4, 4), [0.5], ["features.5:0"], [{"steps": 2}], 0.1, interrupted, is_writer=False
        )

    monkeypatch.setattr(
        import_module("featviz_pl.rendering"), "render", elsewhere
    )  # the package has the function of this name
    assert main(["render", "toys:toy", "features.5:0", "--json", *TINY]) == code
    assert capsys.readouterr() == ("", "")
    assert list(empty_folder.iterdir()) == []


def test_what_a_factory_prints_is_not_taken_for_a_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import toys

    def talkative() -> nn.Module:
        print("loading …")
        return toys.toy()

    monkeypatch.setattr(toys, "talkative", talkative, raising=False)
    assert main(["layers", "toys:talkative", "--size", "12", "--json"]) == 0
    assert {"features.0", "output"} <= {layer["name"] for layer in json.loads(capsys.readouterr().out)}
