"""Statistics of one's own photos in renders, sweeps and configurations: what they change, and what says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from toys import QUIET, toy

from featviz_pl.cli.main import main
from featviz_pl.images import FourierImage, GrowingImage, MacoImage, PixelImage
from featviz_pl.io import read_picture, read_provenance, save_png
from featviz_pl.objectives import Channel
from featviz_pl.rendering import render
from featviz_pl.statistics import ColorStatistics, SpectrumStatistics, Statistics, load_statistics
from featviz_pl.sweep import FeatureSweep, FeatureTargets

QUICK: dict[str, Any] = {"preset": "lucid", "steps": 2, "size": 12, "accelerator": "cpu"}
TINY = ["--preset", "lucid", "--steps", "2", "--size", "12", "--accelerator", "cpu"]


def toy_statistics(channels: int = 3, scale: float = 1.0) -> Statistics:
    """Return statistics of photos that are blue, and differ in red most."""
    mix = torch.tensor([[0.3, 0.05, 0.0], [0.1, 0.0, 0.03], [0.05, -0.05, 0.0]]) if channels == 3 else torch.ones(1, 1)
    color = ColorStatistics(torch.tensor([0.2, 0.3, 0.7][:channels]), scale * mix @ mix.T, 100)
    magnitude = torch.rand(channels, 8, 5, generator=torch.Generator().manual_seed(0)) + 0.1
    return Statistics(color, SpectrumStatistics(magnitude, 8, 3, color.matrix))


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with statistics for three channels and for one, and two pictures to start from."""
    folder = tmp_path / "here"
    toy_statistics().save(folder / "own.pt")
    toy_statistics(1).save(folder / "grey.pt")
    for name, level in (("dark", 0.3), ("light", 0.7)):
        save_png(torch.full((3, 12, 12), level), folder / f"{name}.png")
    monkeypatch.chdir(folder)
    return folder


def line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that an error is."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    return err


# Renders.


def test_a_render_uses_the_colors_of_an_object_or_of_its_file() -> None:
    by_hand = render(
        toy(),
        "features.5:2",
        image=FourierImage(12, color=toy_statistics(), decay=1.0),
        preset="lucid",
        steps=2,
        accelerator="cpu",
    )
    for stats in (toy_statistics(), "own.pt", Path("own.pt")):
        result = render(toy(), "features.5:2", stats=stats, **QUICK)
        assert torch.equal(result.images, by_hand.images)
        assert result.provenance[0]["stats"] == toy_statistics().digest
        assert "own.pt" not in json.dumps(result.provenance)
    assert not torch.equal(render(toy(), "features.5:2", **QUICK).images, by_hand.images)


def test_provenance_tells_statistics_apart_and_says_nothing_without_any() -> None:
    digests = {
        render(toy(), "features.5:2", stats=toy_statistics(scale=scale), **QUICK).provenance[0]["stats"]
        for scale in (1.0, 1.1)
    }
    assert len(digests) == 2
    assert "stats" not in render(toy(), "features.5:2", **QUICK).provenance[0]


def test_maco_takes_the_spectrum_too() -> None:
    by_hand = render(
        toy(),
        "features.5:2",
        preset="maco",
        image=MacoImage(12, spectrum=toy_statistics()),
        views=2,
        steps=2,
        accelerator="cpu",
    )
    result = render(toy(), "features.5:2", stats=toy_statistics(), views=2, **{**QUICK, "preset": "maco"})
    assert torch.equal(result.images, by_hand.images)
    assert "spectrum='own'" in result.provenance[0]["image"]


def test_an_image_of_stages_takes_the_colors() -> None:
    arguments = {"color": toy_statistics().matrix.tolist()}
    by_hand = render(
        toy(), "features.5:2", image=GrowingImage(12, arguments=arguments), preset="lucid", steps=2, accelerator="cpu"
    )
    assert torch.equal(
        render(toy(), "features.5:2", image="growing", stats=toy_statistics(), **QUICK).images, by_hand.images
    )


def test_statistics_that_do_not_fit_are_refused() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"stats": "grey.pt"},
            r"stats: 'grey\.pt' holds statistics of 1 channels, which do not fit 3",
        ),
        ({"stats": toy_statistics(1)}, "stats: measured on pictures of 1 channels, which do not fit 3"),
        ({"stats": "none.pt"}, r"stats: there is no file 'none\.pt'"),
        ({"stats": "dark.png"}, r"stats: cannot read 'dark\.png'"),
        (
            {"stats": toy_statistics(), "preset": "plug_in_inversion"},
            "stats: the image .* has neither color nor spectrum",
        ),
        ({"stats": toy_statistics(), "image": PixelImage(12)}, "stats: the image is built already; give it color=…"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            render(toy(), "features.5:2", **{**QUICK, **arguments})
        with pytest.raises(ValueError, match=message):
            FeatureSweep(toy(), steps=2, size=12, **arguments)
    assert render(toy(channels=1), "features.5:2", stats="grey.pt", **QUICK).images.shape == (1, 1, 12, 12)


def test_the_command_renders_with_statistics(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "toys:toy", "features.5:2", "--stats", "own.pt", *TINY]) == 0
    origin = read_provenance("feature.png")
    assert origin["stats"] == toy_statistics().digest
    expected = render("toys:toy", "features.5:2", stats=toy_statistics(), **QUICK)
    expected.save("again.png")
    assert (workdir / "feature.png").read_bytes() == (workdir / "again.png").read_bytes()
    capsys.readouterr()
    assert main(["render", "toys:toy", "features.5:2", "--stats", "grey.pt", *TINY]) == 2
    assert "stats: 'grey.pt' holds statistics of 1 channels" in line(capsys)
    # Before the network is looked for: it may have to be downloaded.
    assert main(["render", "no network", "features.5:2", "--stats", "none.pt"]) == 2
    assert "stats: there is no file 'none.pt'" in line(capsys)


# Sweeps.


def pictures(sweep: FeatureSweep, targets: str, batch_size: int = 2) -> dict[str, torch.Tensor]:
    batches: Any = Trainer(**QUIET).predict(sweep, FeatureTargets(targets, batch_size))
    return {name: image for batch in batches for name, image in zip(batch.targets, batch.images)}


def test_a_sweep_uses_the_colors_as_a_render_does() -> None:
    result = pictures(FeatureSweep(toy(), "lucid", steps=2, size=12, stats="own.pt"), "features.5:2-4")
    for target, picture in result.items():
        assert torch.equal(picture, render(toy(), target, stats=toy_statistics(), **QUICK).images[0])
    settings = FeatureSweep(toy(), steps=2, size=12, stats=toy_statistics()).settings()
    assert settings["stats"] == toy_statistics().digest
    assert not {"stats", "start"} & set(FeatureSweep(toy(), steps=2, size=12).settings())  # so that older sweeps go on


@pytest.mark.parametrize("preset", ["lucid", "accentuation"])
def test_a_sweep_starts_all_pictures_from_one(preset: str) -> None:
    sweep = FeatureSweep(toy(), preset, steps=3, start="dark.png", views=2)
    assert sweep.image.size == (12, 12)
    result = pictures(sweep, "features.5:2-3", batch_size=1)
    for target, picture in result.items():
        alone = render(toy(), target, preset=preset, steps=3, start="dark.png", views=2, accelerator="cpu")
        torch.testing.assert_close(picture, alone.images[0], rtol=0, atol=1e-6)
        assert sweep.settings()["start"] == alone.provenance[0]["start"]
    lighter = FeatureSweep(toy(), preset, steps=3, start=torch.full((3, 12, 12), 0.7), views=2)
    assert lighter.settings()["start"] != sweep.settings()["start"]
    assert not torch.equal(pictures(lighter, "features.5:2", 1)["features.5:2"], result["features.5:2"])


def test_a_start_is_brought_to_the_size_asked_for_and_may_be_made_without_gradients() -> None:
    network = toy()
    with torch.inference_mode():
        sweep = FeatureSweep(network, steps=1, size=(8, 10), start=torch.full((3, 12, 12), 0.3), lr=1e-9)
    [picture] = pictures(sweep, "features.5:0").values()
    np.testing.assert_allclose(picture.numpy(), np.full((3, 8, 10), 0.3), atol=0.01)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("none.png", r"cannot read a picture from 'none\.png'"),
        (torch.zeros(2, 3, 12, 12), "start: a sweep starts all its pictures from one, got 2"),
        (torch.full((3, 12, 12), 2.0), "start"),
    ],
)
def test_what_cannot_start_a_sweep_is_refused(start: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureSweep(toy(), steps=1, start=start)


def test_a_sweep_goes_on_with_the_same_statistics_and_start_only(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", "toys:toy", "features.5:0-1", "-o", "atlas", *TINY, "--batch-size", "2"]
    flags = ["--stats", "own.pt", "--start", "dark.png"]
    assert main([*command, *flags]) == 0
    origin = read_provenance("atlas/features.5/1.png")
    assert origin["stats"] == toy_statistics().digest
    assert not {"own.pt", "dark.png"} & set(json.dumps(origin).split('"'))
    toy_statistics().save(workdir / "copy.pt")  # the content counts, not the name
    capsys.readouterr()
    assert main([*command, "--stats", "copy.pt", "--start", "dark.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["skipped"] == 2
    toy_statistics(scale=1.1).save(workdir / "own.pt")
    light = ["--stats", "copy.pt", "--start", "light.png"]
    for changed, name in ((flags, "stats"), (light, "start"), (flags[2:], "image"), (["--stats", "copy.pt"], "start")):
        assert main([*command, *changed]) == 2
        assert f"{name}: the pictures in 'atlas' were made with " in line(capsys)


def test_cheap_mistakes_of_a_sweep_are_told_before_the_network_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, message in (
        (["--stats", "none.pt"], "there is no file 'none.pt'"),
        (["--start", "none.png"], "'none.png'"),
    ):
        assert main(["sweep", "no network", "a:0", "-o", "atlas", *flags]) == 2
        assert message in line(capsys)


# Configurations.

IMAGES: dict[str, dict[str, Any]] = {
    "MacoImage": {"spectrum": "own.pt"},
    "GrowingImage": {"arguments": {"color": "own.pt"}},
}


# jsonargparse 4.53 deprecates a method that Lightning calls.
@pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")
@pytest.mark.parametrize("name", IMAGES)
def test_a_configuration_names_the_file(name: str, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config: dict[str, Any] = {
        "model": {
            "network": {"class_path": "featviz_pl.networks.load_network", "init_args": {"name": "toys:toy"}},
            "objective": "features.5:2",
            "image": {"class_path": name, "init_args": {"size": 12, **IMAGES[name]}},
            "steps": 1,
        },
        "trainer": {
            **{key: value for key, value in QUIET.items() if key != "logger"},
            "callbacks": [{"class_path": "ImageSnapshot", "init_args": {"folder": "out"}}],
        },
    }
    (workdir / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "config.yaml"]) == 0
    image_repr = read_provenance("out/final.png")["image"]
    assert image_repr.startswith(f"{name}(")
    assert "='own'" in image_repr or name == "GrowingImage"
    (workdir / "own.pt").write_bytes(b"no statistics")
    capsys.readouterr()
    assert main(["fit", "--config", "config.yaml"]) == 2
    assert "cannot read 'own.pt'" in line(capsys)


@pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_a_configuration_of_a_sweep_names_statistics_and_start(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["featviz"])
    model = {"network": "toys:toy", "steps": 1, "size": 12, "stats": "own.pt", "start": "dark.png"}
    (workdir / "config.yaml").write_text(yaml.safe_dump({"model": model, "trainer": QUIET}))
    arguments: dict[str, Any] = {"run": False, "save_config_callback": None, "seed_everything_default": False}
    cli = LightningCLI(FeatureSweep, args=["--config", "config.yaml"], **arguments)
    expected = FeatureSweep("toys:toy", steps=1, size=12, stats=toy_statistics(), start=read_picture("dark.png"))
    assert cli.model.settings() == expected.settings()
    assert cli.model.settings()["stats"] == load_statistics("own.pt").digest


def test_the_objective_stays_what_was_asked_for() -> None:
    assert (
        Channel("features.5", 2).portable_formula()
        == render(toy(), "features.5:2", stats=toy_statistics(), **QUICK).provenance[0]["objective"]
    )
