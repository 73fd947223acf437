"""The README's blocks, run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from featviz_pl.cli.main import main
from featviz_pl.io import read_provenance
from featviz_pl.networks import load_network

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
INSTALLS = "python3 -m venv"  # run by .ci/run, in environments of their own

pytestmark = pytest.mark.filterwarnings(
    # Lightning 2.6 with jsonargparse 4.53; see tests/test_configs.py.
    "ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning",
    # Lightning's advice for larger trainings than a block shows.
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*smaller than the logging interval:UserWarning",
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("console") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(INSTALLS)]


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[0][:40])
def test_python_block_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one folder for all commands: later ones take what earlier ones made, as for a reader."""
    return tmp_path_factory.mktemp("readme")


@pytest.mark.parametrize("command", commands())
def test_console_command_runs(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *arguments = shlex.split(command)
    assert program == "featviz"
    arguments = [str(ROOT / argument) if argument.startswith("examples/") else argument for argument in arguments]
    monkeypatch.chdir(folder)
    assert main(arguments) == 0
    assert not capsys.readouterr().err


def test_the_picture_was_made_by_the_code_beneath_it() -> None:
    """Its origin names the network that ships now and the arguments of the first block; the pixels are not compared."""
    picture = re.search(r"!\[.*\]\((.*)\)", README)
    assert picture is not None
    origin = read_provenance(ROOT / picture[1])
    block = blocks("python")[0]
    assert '"output:0-9", size=128, steps=128, seed=0' in block
    assert origin["target"] == [f"output:{index}" for index in range(10)]
    assert (origin["steps"], origin["seed"], origin["preset"]) == (128, 0, "featviz")
    assert "size=(128, 128)" in origin["image"]
    assert origin["weights"] == load_network("embedded").weights_hash()


def test_the_readme_has_both_install_lines_and_blocks_to_run() -> None:
    assert "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/featviz render" in README
    assert "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest" in README
    assert len(blocks("python")) >= 2
    assert len(commands()) >= 3
