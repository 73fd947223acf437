"""The command line: what it writes, what it prints, and one clear line for every mistake."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO
from unittest.mock import Mock
from urllib.error import URLError

import pytest
import torch
from toys import toy

import featviz_pl
from featviz_pl.cli.main import main
from featviz_pl.io import read_picture, read_provenance
from featviz_pl.networks import network_names
from featviz_pl.rendering import RenderResult

TINY = ["--steps", "2", "--size", "12", "--accelerator", "cpu"]
RENDER = ("render", "toys:toy", "features.5:0")
KEYS = {"path", "network", "target", "steps", "seed", "score", "seconds"}  # design.md, section 2
SEVERAL = {"paths", "targets", "scores"}


def run(*args: str) -> int:
    """Run the command line in this process and return its exit code."""
    try:
        return main(list(args))
    except SystemExit as stopped:
        return int(stopped.code or 0)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder that holds nothing, with no downloaded weights anywhere."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return folder


# What works.


def test_render_writes_a_picture_and_says_so(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("render", "toys:toy", "features.5:2", *TINY) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"feature\.png: features\.5:2 of toys:toy, score \S+, 2 steps in \S+ s\n", out)
    assert err == ""
    assert [path.name for path in empty_folder.iterdir()] == ["feature.png"]
    assert read_picture("feature.png").shape == (3, 12, 12)


def test_json_is_one_line_with_the_documented_keys(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("render", "toys:toy", "features.5:2", "-o", "new/f.png", "--seed", "7", "--json", *TINY) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    report = json.loads(out)
    assert set(report) == KEYS
    assert (report["path"], report["network"], report["target"]) == (str(Path("new/f.png")), "toys:toy", "features.5:2")
    assert (report["steps"], report["seed"]) == (2, 7)
    assert report["seconds"] > 0
    expected = toy().eval().features(read_picture("new/f.png")[None])[0, 2].mean().item()
    assert report["score"] == pytest.approx(expected, rel=1e-4)
    assert read_provenance("new/f.png")["score"] == report["score"]


def test_json_of_several_has_lists(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("render", "toys:toy", "features.5:0-2", "-o", "f.png", "--json", *TINY) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == KEYS | SEVERAL
    assert report["targets"] == [f"features.5:{unit}" for unit in range(3)]
    assert report["paths"] == [f"f-{unit}.png" for unit in range(3)]
    assert report["score"] == pytest.approx(sum(report["scores"]) / 3)
    assert {path.name for path in empty_folder.iterdir()} == {"f.png", "f-0.png", "f-1.png", "f-2.png"}


def test_two_runs_write_the_same_bytes(empty_folder: Path) -> None:
    for name in ("a.png", "b.png"):
        assert run("render", "toys:toy", "features.5:2", "-o", name, "--preset", "article", *TINY) == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_flags_reach_the_run(empty_folder: Path) -> None:
    torch.save(toy(seed=5).state_dict(), "weights.pth")
    network = ["--weights", "weights.pth", "--mean", "0.5", "--std", "0.25"]
    flags = ["--views", "3", "--preset", "article", "--lr", "0.5", "--image", "pixel", "--seed", "9", *TINY]
    assert run(*RENDER, "-o", "f.png", *network, *flags, "--size", "8x14") == 0
    picture = read_picture("f.png")
    assert picture.shape == (3, 8, 14)
    origin = read_provenance("f.png")
    assert (origin["seed"], origin["lr"], origin["preset"], origin["steps"]) == (9, 0.5, "article", 2)
    assert origin["image"].startswith("PixelImage")
    assert "count=3" in origin["views"]
    expected = toy(seed=5).eval().features((picture[None] - 0.5) / 0.25)[0, 0].mean().item()
    assert origin["score"] == pytest.approx(expected, rel=1e-4)
    assert run(*RENDER, "-o", "g.png", "--start", "f.png", "--steps", "1", "--accelerator", "cpu") == 0
    assert read_picture("g.png").shape == (3, 8, 14)


def test_layers_lists_names_shapes_and_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("layers", "toys:toy", "--size", "12") == 0
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    table = {row[0].strip(): [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}
    assert table["layer"] == ["kind", "shape", "units", "axes"]
    assert table["features.0"] == ["Conv2d", "6 x 12 x 12", "6", "channels x height x width"]
    assert table["features.2"] == ["Conv2d", "8 x 6 x 6", "8", "channels x height x width"]
    assert table["output"][:3] == ["ToyNet", "5", "5"]


def test_layers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("layers", "toys:toy", "--size", "12", "--json") == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    by_name = {layer["name"]: layer for layer in json.loads(out)}
    expected = {"name": "features.2", "kind": "Conv2d", "shape": [8, 6, 6], "units": 8}
    assert by_name["features.2"].items() >= expected.items()


def test_layers_of_a_zoo_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("layers", "squeezenet1_0", "--weights", "none", "--size", "64", "--json") == 0
    by_name = {layer["name"]: layer for layer in json.loads(capsys.readouterr().out)}
    assert by_name["features.9"]["units"] == 384  # the published architecture: this fire module expands to 192 + 192


# What is refused: one line on stderr, exit code 2, nothing on stdout, nothing on disk.

MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown network": (
        ("render", "squeezenet1_2", "features.9:33"),
        r"unknown network 'squeezenet1_2'; did you mean .*'squeezenet1_[01]'",
    ),
    "unknown factory": (("render", "toys:toi", "features.9:33"), "cannot import 'toys:toi'"),
    "factory of something else": (("render", "toys:QUIET", "features.5:0"), "gave dict, not an nn.Module"),
    "unknown layer": (
        ("render", "toys:toy", "features.55:0", *TINY),
        "no layer 'features.55'; did you mean .*'features.5'",
    ),
    "no target": (("render", "toys:toy", *TINY), "target: say what to look for"),
    "unit out of range": (
        ("render", "toys:toy", "features.5:8", *TINY),
        "'features.5' has 8 units, 0 to 7; there is no 8",
    ),
    "range out of range": (("render", "toys:toy", "features.5:6-9", *TINY), "has 8 units"),
    "negative unit": (("render", "toys:toy", "features.5:-1", *TINY), "negative unit; units are 0 or more"),
    "class out of range": (("render", "toys:toy", "output:9", *TINY), "has 5 (units|classes)"),
    "class without names": (("render", "toys:toy", "output:church", *TINY), "no class names"),
    "position outside": (("render", "toys:toy", "features.5:0@9,9", *TINY), r"position: \(9, 9\) lies outside"),
    "unparsable target": (("render", "toys:toy", "features.5:a:b", *TINY), "does not parse; forms: layer, layer:unit"),
    "empty target": (("render", "toys:toy", "", *TINY), "does not parse"),
    "backward range": (("render", "toys:toy", "features.5:3-1", *TINY), "ends before it begins"),
    "missing weights": ((*RENDER, "--weights", "missing.pth", *TINY), "there is no file 'missing.pth'"),
    "unknown weights": (
        ("render", "squeezenet1_0", "features.9:33", "--weights", "IMAGENET"),
        "unknown weights of squeezenet1_0 'IMAGENET'",
    ),
    "too small": (
        ("render", "guests:shrinking", "output:0", "--steps", "1", "--size", "5"),
        "5 x 5 is too small.*least size that works is 7",
    ),
    "too small zoo": (
        ("render", "squeezenet1_0", "features.9:33", "--weights", "none", "--size", "8"),
        r"too small.*least size that works is \d+",
    ),
    "size 0": ((*RENDER, "--size", "0"), "size must be at least 1, got 0"),
    "size below 0": ((*RENDER, "--size", "-5"), "size must be at least 1, got -5"),
    "size of words": ((*RENDER, "--size", "big"), "size must be a number of pixels or HEIGHTxWIDTH, got 'big'"),
    "size of three": ((*RENDER, "--size", "4x4x4"), "size must be a number"),
    "flat size": ((*RENDER, "--size", "12x0"), "size must be at least 1"),
    "views 0": ((*RENDER, "--views", "0"), "views must be at least 1, got 0"),
    "views below 0": ((*RENDER, "--views", "-1"), "views must be at least 1, got -1"),
    "steps 0": ((*RENDER, "--steps", "0"), "steps must be at least 1, got 0"),
    "steps below 0": ((*RENDER, "--steps", "-3"), "steps must be at least 1, got -3"),
    "steps of words": ((*RENDER, "--steps", "many"), "invalid int value: 'many'"),
    "seed below 0": ((*RENDER, "--seed", "-1", *TINY), "seed must be at least 0"),
    "rate 0": ((*RENDER, "--lr", "0", *TINY), "lr must be above 0"),
    "std 0": ((*RENDER, "--std", "0", *TINY), "std must be above 0"),
    "mean of two": ((*RENDER, "--mean", "0.5", "0.5", *TINY), "3 channels, but got 2"),
    "unknown preset": ((*RENDER, "--preset", "lucit", *TINY), "unknown preset 'lucit'; did you mean 'lucid'"),
    "unknown image": (
        (*RENDER, "--image", "furier", *TINY),
        "unknown parameterization 'furier'; did you mean 'fourier'",
    ),
    "missing statistics": ((*RENDER, "--stats", "missing.pt", *TINY), "stats: there is no file 'missing.pt'"),
    "missing start": ((*RENDER, "--start", "missing.png", *TINY), "cannot read a picture from 'missing.png'"),
    "wrong ending": ((*RENDER, "-o", "f.jpg", *TINY), r"'f\.jpg' must end in \.png"),
    "no tensor": (("render", "guests:Wordy", "words:0", *TINY), "output of 'words' holds no tensor, but str"),
    "nan": (("render", "guests:always_nan", "output:0", *TINY), "step 0: the score is not finite"),
    "wrong accelerator": ((*RENDER, "--steps", "1", "--accelerator", "abacus"), "abacus"),
    "wrong precision": ((*RENDER, "--precision", "3-true", *TINY), "3-true"),
    "no devices": ((*RENDER, "--devices", "0", *TINY), "devices"),
    "no nodes": ((*RENDER, "--num-nodes", "0", *TINY), "num_nodes must be at least 1"),
    "size beyond memory": ((*RENDER, "--size", "1000000"), "1000000 x 1000000 pixels take at least [0-9,]+ GiB"),
    "narrow size beyond memory": ((*RENDER, "--size", "1x9000000000000"), "take at least"),
    "pictures beyond memory": (("render", "toys:toy", "features.5:0-999999", "--size", "400"), "units|take at least"),
    "steps without bound": ((*RENDER, "--steps", "9" * 23), "steps must be at most"),
    "steps of many digits": ((*RENDER, "--steps", "9" * 5000), "invalid int value"),
    "views without bound": ((*RENDER, "--views", "99999999"), "views must be at most"),
    "seed without bound": ((*RENDER, "--seed", "9" * 23), "seed must be at most"),
    "rate beyond float32": ((*RENDER, "--lr", "1e40"), "lr must be above 0 and at most"),
    "rate of nothing": ((*RENDER, "--lr", "nan"), "lr must be above 0"),
    "mean of nothing": ((*RENDER, "--mean", "inf"), "mean must be finite"),
    "missing package": ((*RENDER, "--precision", "transformer-engine", *TINY), "transformer_engine"),
    "unavailable accelerator": ((*RENDER, "--steps", "1", "--accelerator", "tpu"), "torch_xla|TPU"),
    "devices beyond sense": ((*RENDER, "--devices", "99999", *TINY), "devices must be at most"),
    "nodes beyond sense": ((*RENDER, "--num-nodes", "99999999"), "num_nodes must be at most"),
    "batch beyond sense": (
        ("sweep", "toys:toy", "a:1", "-o", "o", "--batch-size", "99999999"),
        "batch_size must be at",
    ),
    "workers beyond sense": (("stats", "photos", "--workers", "99999999"), "workers must be at most"),
    "spectrum beyond memory": (("stats", "photos", "--size", "1000000"), "take at least"),
    "unknown flag": ((*RENDER, "--stepz", "3"), "unrecognized arguments: --stepz 3"),
    "unknown command": (("rendr",), "invalid choice: 'rendr'"),
    "no command": ((), "COMMAND"),
    "layers of an unknown network": (("layers", "resnet19"), "unknown network 'resnet19'; did you mean .*'resnet18'"),
    "layers of too small a picture": (("layers", "guests:shrinking", "--size", "3"), "least size that works is 7"),
    "layers of no picture": (("layers", "toys:toy", "--size", "0"), "size must be at least 1"),
}


def require_one_line(capsys: pytest.CaptureFixture[str], code: int, message: str) -> None:
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert err.startswith("featviz")
    assert re.search(message, err), err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line(mistake: str, empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = MISTAKES[mistake]
    require_one_line(capsys, run(*arguments), message)
    assert list(empty_folder.iterdir()) == []


def test_near_names_are_real_names(capsys: pytest.CaptureFixture[str]) -> None:
    run("render", "resnet51", "layer1:0")
    suggested = re.findall(r"'(\w+)'", capsys.readouterr().err.partition("did you mean")[2])
    assert suggested
    assert set(suggested) <= set(network_names())


@pytest.mark.parametrize("kind", ["misfit", "text", "folder"])
def test_weights_that_do_not_fit_are_one_clear_line(
    kind: str, tmp_path: Path, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.pth"
    if kind == "misfit":
        torch.save({**toy().state_dict(), "extra": torch.zeros(1)}, path)
    elif kind == "text":
        path.write_text("no weights")
    else:
        path.mkdir()
    require_one_line(capsys, run(*RENDER, "--weights", str(path), *TINY), "weights.*weights.pth|extra")
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("place", ["file/f.png", "file/deeper/f.png", "folder.png"])
def test_an_output_that_cannot_be_written_is_one_clear_line(
    place: str, tmp_path: Path, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("something else")
    (tmp_path / "folder.png").mkdir()
    # The network does not exist either: the output is looked at first, before anything costs time.
    require_one_line(capsys, run("render", "nothing", "a:0", "-o", str(tmp_path / place)), r"cannot write|is a folder")
    assert (tmp_path / "file").read_text() == "something else"
    assert list(empty_folder.iterdir()) == []
    assert list((tmp_path / "folder.png").iterdir()) == []


def test_a_failure_while_saving_leaves_nothing(
    empty_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image as Pillow

    def fail(self: Pillow.Image, file: BinaryIO, **more: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Pillow.Image, "save", fail)
    require_one_line(capsys, run(*RENDER, "-o", "new/f.png", *TINY), "No space left on device")
    assert [path for path in empty_folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["plain", "json"])
def test_a_download_that_fails_names_the_file_and_the_flag(
    flags: list[str],
    tmp_path: Path,
    empty_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("no network here")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    code = run("render", "squeezenet1_0", "features.9:33", "-o", "f.png", *flags)
    require_one_line(
        capsys, code, r"no network here.*https://download\.pytorch\.org/models/squeezenet1_0-\w+\.pth.*--weights"
    )
    assert list(empty_folder.iterdir()) == []
    assert [path for path in (tmp_path / "torch").rglob("*") if path.is_file()] == []


def test_an_interrupt_before_anything_is_written_is_one_line_and_its_own_code(
    empty_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    for name in ("toys.ToyNet.forward", "featviz_pl.networks.load_network"):
        monkeypatch.setattr(name, interrupt)
        assert run(*RENDER, *TINY) == 130
        assert capsys.readouterr() == ("", "featviz render: interrupted; nothing was written\n")
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize(
    "flags", [["--preset", "lucit"], ["--image", "furier"], ["--start", "missing.png"], ["--steps", "0"]], ids=str
)
def test_what_needs_no_network_is_refused_before_one_is_loaded(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    require_one_line(capsys, run("render", "no:network", "features.5:0", *flags), flags[1])


@pytest.mark.parametrize("arguments", [("layers", "toys:toy"), (*RENDER, *TINY)], ids=["layers", "render"])
def test_an_error_of_the_operating_system_is_one_line_that_names_the_file(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/secret/weights.pth")

    monkeypatch.setattr("featviz_pl.networks.load_network", load)
    require_one_line(capsys, run(*arguments), "Permission denied: '/secret/weights.pth'")


@pytest.mark.parametrize(("interrupted", "code"), [(False, 0), (True, 130)])
def test_another_process_of_the_run_neither_writes_nor_reports(
    interrupted: bool,
    code: int,
    empty_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = RenderResult(torch.zeros(1, 3, 4, 4), [0.5], ["a:0"], [{"steps": 2}], 0.1, interrupted, is_writer=False)
    monkeypatch.setattr("featviz_pl.rendering.render", Mock(return_value=result))
    assert run(*RENDER, "--json", *TINY) == code
    assert capsys.readouterr() == ("", "")
    assert list(empty_folder.iterdir()) == []


def test_what_a_factory_prints_is_not_taken_for_a_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def talkative() -> torch.nn.Module:
        print("loading …")
        return toy()

    monkeypatch.setattr("toys.talkative", talkative, raising=False)
    assert run("layers", "toys:talkative", "--size", "12", "--json") == 0
    assert {"features.0", "output"} <= {layer["name"] for layer in json.loads(capsys.readouterr().out)}


# Programs of their own.


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60)


COMMANDS = ("render", "sweep", "stats", "evaluate", "layers", "presets")

HELP = """
import sys
from featviz_pl.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as stopped:
    assert not stopped.code, stopped.code
heavy = sorted({"torch", "torchvision", "lightning", "numpy", "PIL", "jsonargparse"} & set(sys.modules))
print("HEAVY", heavy)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], *([command, "--help"] for command in COMMANDS), ["--version"]], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = program("-W", "error", "-c", HELP, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    if arguments == ["--help"]:
        assert all(command in done.stdout for command in (*COMMANDS, "fit"))


def test_the_package_runs_as_a_program() -> None:
    done = program("-m", "featviz_pl", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"featviz {featviz_pl.__version__}\n", "")


@pytest.mark.parametrize("command", ["render", "sweep"])
def test_help_names_every_flag_of_the_design(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    flags = "weights mean std steps size views seed preset lr image start stats accelerator devices num-nodes precision"
    text = capsys.readouterr().out
    for flag in (*(f"--{name}" for name in flags.split()), "--compile", "-o", "--json"):
        assert re.search(rf"(^|[\s,]){flag}\b", text), flag
