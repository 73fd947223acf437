"""Every configuration under examples/ runs as it is, in small: what users are shown cannot go stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]

from featviz_pl.cli import main
from featviz_pl.io import read_provenance
from featviz_pl.lightning_cli import FeatvizCLI

# Lightning 2.6 calls a method that jsonargparse 4.53 deprecates; hidden from users, as every DeprecationWarning of a library is.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "examples" / "configs").glob("*.yaml"))


def reduced(config: Any, folder: Path) -> Any:
    """Replace what costs time: the trained network, sizes, steps and folders."""
    if isinstance(config, dict):
        small = {key: reduced(value, folder) for key, value in config.items()}
        if "load_network" in str(small.get("class_path", "")):
            small["init_args"] = {"name": "guests:small_embedded"}
        for key in small:
            if key == "size":
                small[key] = 16
            elif key == "steps":
                small[key] = 2
            elif key == "folder":
                small[key] = str(folder / Path(str(small[key])).name)
            elif key == "every":
                small[key] = [1] if isinstance(small[key], list) else 1
        return small
    return [reduced(entry, folder) for entry in config] if isinstance(config, list) else config


def quiet(config: dict[str, Any]) -> dict[str, Any]:
    config.setdefault("trainer", {}).update(
        {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    )
    return config


def test_there_are_configurations() -> None:
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configuration_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    config = quiet(reduced(yaml.safe_load(path.read_text()), tmp_path / "out"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    state = torch.get_rng_state()
    assert main(["fit", "--config", str(tmp_path / "config.yaml")]) == 0
    assert torch.equal(torch.get_rng_state(), state)
    finals = list((tmp_path / "out").rglob("final.png"))
    assert finals
    assert {read_provenance(final)["steps"] for final in finals} == {2}
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_layers_of_a_configuration_are_those_of_the_shipped_network(path: Path) -> None:
    from featviz_pl.networks import EmbeddedNetwork

    config = yaml.safe_load(path.read_text())
    if config["model"]["network"]["init_args"]["name"] == "embedded":
        names = {name for name, _ in EmbeddedNetwork().named_modules()} | {"output"}
        assert config["model"]["objective"]["init_args"].get("layer", "output") in names


def test_flags_alone_make_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [
        *("--model.network=toys:toy", "--model.objective=features.5:1-2", "--model.steps=3", "--model.image=PixelImage"),
        *("--model.image.size=10", "--model.optimizer=torch.optim.SGD", "--model.seed=4"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
        *("--trainer.callbacks+=ImageSnapshot", f"--trainer.callbacks.folder={tmp_path / 'out'}", "--trainer.callbacks.every=2"),
    ]
    assert main(["fit", *arguments]) == 0
    origin = read_provenance(tmp_path / "out" / "final-1.png")
    assert (origin["target"], origin["seed"], origin["steps"]) == ("features.5:1", 4, 3)
    assert origin["image"].startswith("PixelImage(size=(10, 10)")
    assert (origin["optimizer"], origin["lr"]) == ("SGD", 0.001)  # torch's default: the configuration's class brings its own
    assert "0x" not in str(origin)  # an address would tell two equal runs apart


def test_only_fit_is_offered() -> None:
    assert list(FeatvizCLI.subcommands()) == ["fit"]
