"""Every configuration under examples/ runs as it is, in small: what users are shown cannot go stale."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml  # type: ignore[import-untyped]

from featviz_pl.cli.lightning import FeatvizCLI
from featviz_pl.cli.main import main
from featviz_pl.io import read_picture, read_provenance
from featviz_pl.networks import EmbeddedNetwork
from featviz_pl.training import FeatureVisualization

# Lightning 2.6 calls a method that jsonargparse 4.53 deprecates; hidden from users, as every DeprecationWarning of a
# library is.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
IDEAS = {"channel", "class", "direction", "deepdream", "diversity", "maco", "cppn", "sweep", "multi_gpu"}
FEW = ["--model.steps=2", "--trainer.accelerator=cpu"]
SMALL = {"sweep": ["--model.size=16", "--data.targets=blocks.2:0-1"]}  # of the others the image has the size
PICTURES = {"sweep": ["blocks.2/0.png", "blocks.2/1.png"], "diversity": [f"final-{index}.png" for index in range(4)]}
ON_ONE_PROCESS = [path for path in CONFIGS if path.stem != "multi_gpu"]


def command(path: Path) -> list[str]:
    """Return the command in the first line of a configuration, in small."""
    program, method, flag, named = shlex.split(path.read_text().partition("\n")[0].removeprefix("#"))
    assert (program, flag, named) == ("featviz", "--config", f"examples/configs/{path.name}")
    return [method, flag, str(path), *FEW, *SMALL.get(path.stem, ["--model.image.size=16"])]


def test_there_is_a_configuration_for_every_idea_and_the_readme_names_it() -> None:
    assert {path.stem for path in CONFIGS} == IDEAS
    readme = (FOLDER.parent / "README.md").read_text()
    assert [path.name for path in CONFIGS if f"configs/{path.name}" not in readme] == []


@pytest.mark.parametrize("path", ON_ONE_PROCESS, ids=lambda path: path.stem)
def test_the_configuration_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = torch.get_rng_state()
    assert main(command(path)) == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    folder = tmp_path / "out" / path.stem
    for name in PICTURES.get(path.stem, ["final.png"]):
        assert read_provenance(folder / name)["steps"] == 2
        assert read_picture(folder / name).std() > 0
    assert (folder / "config.yaml").is_file()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_a_configuration_asks_for_is_in_the_shipped_network(path: Path) -> None:
    """Whole layers and units, as written: the run in small may ask for fewer."""
    text = path.read_text()
    layers = {name for name, _ in EmbeddedNetwork().named_modules()} | {"output"}
    asked = [
        word
        for word in text.replace('"', " ").replace(",", " ").replace("}", " ").split()
        if word.startswith(("blocks.", "stem"))
    ]
    assert {word.partition(":")[0] for word in asked} - {"blocks.*"} <= layers
    assert yaml.safe_load(text)["model"]["network"] == "embedded"


def test_the_configuration_for_several_devices_divides_its_views() -> None:
    path = FOLDER / "multi_gpu.yaml"
    cli = FeatvizCLI("fit", FeatureVisualization, args=[*command(path)[1:], "--trainer.devices=2"])
    assert type(cli.trainer.strategy).__name__ == "DDPStrategy"
    assert (cli.trainer.num_devices, cli.trainer.max_steps) == (2, 2)
    names = [type(callback).__name__ for callback in cli.trainer.callbacks][:3]  # type: ignore[attr-defined]
    assert names == ["Augmentation", "DistributedViews", "ImageSnapshot"]
    assert cli.model.steps == 2


@pytest.mark.slow
def test_the_configuration_for_several_devices_runs_on_two_processes(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "featviz_pl", *command(FOLDER / "multi_gpu.yaml")]
    for devices, folder in ((1, "one"), (2, "two")):
        (tmp_path / folder).mkdir()
        done = subprocess.run(
            [*arguments, f"--trainer.devices={devices}"],
            cwd=tmp_path / folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1
    one, two = (read_picture(tmp_path / folder / "out" / "multi_gpu" / "final.png") for folder in ("one", "two"))
    assert (one - two).abs().max() <= 1.5 / 255  # gradients are added in another order
