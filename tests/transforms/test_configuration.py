"""Every transform is built from YAML, its ranges included."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentParser

from featviz_pl import transforms
from featviz_pl.cli.main import main
from featviz_pl.io import read_provenance
from featviz_pl.transforms import Transform

CASES = yaml.safe_load("""
- [{class_path: Jitter, init_args: {pixels: 3}}, Jitter(3)]
- - {class_path: Jitter, init_args: {pixels: {class_path: torch.distributions.Normal, init_args: {loc: 0, scale: 2}}}}
  - "Jitter(Normal(loc=0, scale=2))"
- [{class_path: Jitter, init_args: {pixels: [-2, 4]}}, "Jitter((-2, 4))"]
- [{class_path: Scale, init_args: {factors: [0.9, 1.1]}}, "Scale(Uniform(low=0.9, high=1.1))"]
- - {class_path: Scale, init_args: {factors: {class_path: Choice, init_args: {values: [0.9, 1, 1.1]}}}}
  - "Scale(Choice([0.9, 1, 1.1]))"
- [{class_path: Rotate, init_args: {degrees: 10}}, "Rotate(Uniform(low=-10, high=10))"]
- - {class_path: Rotate, init_args: {degrees: {class_path: featviz_pl.transforms.Choice, init_args: {values: [-90, 90]}}}}
  - "Rotate(Choice([-90, 90]))"
- - {class_path: Scale, init_args: {factors: {class_path: torch.distributions.Uniform, init_args: {low: 0.9, high: 1.1}}}}
  - "Scale(Uniform(low=0.9, high=1.1))"
- - {class_path: Rotate, init_args: {degrees: {class_path: torch.distributions.Laplace, init_args: {loc: 0.0, scale: 4.0}}}}
  - "Rotate(Laplace(loc=0, scale=4))"
- [{class_path: Flip}, Flip(0.5)]
- [{class_path: Pad, init_args: {pixels: 3, mode: grey}}, "Pad(3, 'grey')"]
- [{class_path: Crop}, "Crop(center=Normal(loc=0.5, scale=0.15), side=Uniform(low=0.2, high=0.25))"]
- - class_path: Crop
    init_args: {center: anywhere, side: {class_path: torch.distributions.Normal, init_args: {loc: 0.5, scale: 0.05}}, end: [0.1, 0.2]}
  - "Crop(center='anywhere', side=Normal(loc=0.5, scale=0.05), end=Uniform(low=0.1, high=0.2))"
- [{class_path: CropOrPad, init_args: {size: [3, 4], value: 0}}, "CropOrPad((3, 4), value=0)"]
- [{class_path: CropOrPad, init_args: {size: 3}}, "CropOrPad((3, 3), value=0.5)"]
- [{class_path: Roll, init_args: {pixels: 4}}, Roll(4)]
- - {class_path: Blur, init_args: {sigma: {class_path: torch.distributions.Uniform, init_args: {low: 1, high: 1.1}}, kernel: 11}}
  - "Blur(Uniform(low=1, high=1.1), kernel=11)"
- [{class_path: Noise, init_args: {deviation: 0.5, end: 0.1, decay: logarithmic}}, "Noise(0.5, end=0.1, decay='logarithmic')"]
- [{class_path: ColorShift, init_args: {end: 0.1}}, "ColorShift(mean=1, scale=1, end=0.1)"]
- [{class_path: Background, init_args: {kind: constant, color: [0.1, 0.2, 0.3]}}, "Background('constant', color=[0.1, 0.2, 0.3])"]
- [{class_path: Blur, init_args: {sigma: 2}}, "Blur(Choice([2]))"]
- [{class_path: NormalizeGradient}, NormalizeGradient()]
- - {class_path: MeshView, init_args: {mesh: cube, size: 8, distance: [3, 4], field_of_view: 40}}
  - "MeshView('cube', (8, 8), distance=Uniform(low=3, high=4), field_of_view=40, background=0.5)"
- - {class_path: Torchvision, init_args: {transform: {class_path: torchvision.transforms.v2.RandomHorizontalFlip, init_args: {p: 0.25}}}}
  - "Torchvision(RandomHorizontalFlip(p=0.25))"
- - class_path: Compose
    init_args:
      size: 8
      transforms:
      - {class_path: Rotate, init_args: {degrees: {class_path: torch.distributions.Uniform, init_args: {low: -1, high: 1}}}}
      - {class_path: Flip}
  - "Compose([Rotate(Uniform(low=-1, high=1)), Flip(0.5)], size=(8, 8))"
""")


@pytest.mark.parametrize(("config", "text"), CASES, ids=[text for _, text in CASES])
def test_a_transform_is_built_from_yaml(config: object, text: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--transform", type=Transform)
    built = parser.instantiate(parser.parse_object({"transform": config})).transform
    assert isinstance(built, Transform)
    assert repr(built) == text


def test_every_exported_transform_is_built() -> None:
    exported = [getattr(transforms, name) for name in transforms.__all__]
    classes = {
        listed
        for listed in exported
        if isinstance(listed, type) and issubclass(listed, Transform) and not inspect.isabstract(listed)
    }
    assert {config["class_path"] for config, _ in CASES} == {listed.__name__ for listed in classes}


@pytest.mark.filterwarnings(
    "ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning"
)  # Lightning 2.6 calls one
def test_a_run_is_configured_with_a_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uniform = {"class_path": "torch.distributions.Uniform", "init_args": {"low": 0.9, "high": 1.1}}
    crops = {
        "class_path": "Augmentation",
        "init_args": {"transforms": [{"class_path": "Scale", "init_args": {"factors": uniform}}], "views": 2},
    }
    snapshots = {"class_path": "ImageSnapshot", "init_args": {"folder": "out", "every": 2}}
    config = {
        "model": {
            "network": "toys:toy",
            "objective": "features.5:1",
            "steps": 2,
            "image": {"class_path": "PixelImage", "init_args": {"size": 10}},
        },
        "trainer": {
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [crops, snapshots],
        },
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "run.yaml")]) == 0
    (final,) = (tmp_path / "out").glob("final*.png")
    assert read_provenance(final)["views"].startswith("Views(Compose([Scale(Uniform(low=0.9, high=1.1))]), count=2")
