"""The example scripts, run at toy size, and the pictures that they made of a real network."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch
from toys import SHARED, needs_shared

from featviz_pl.io import read_provenance, save_png
from featviz_pl.networks import load_network

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("[0-9][0-9]_*.py"))
README = (EXAMPLES / "README.md").read_text()
PICTURES = re.findall(r'<img src="(pictures/\d\d_[^"]+)"', README)  # those of trainings: test_examples_training.py

# What makes each example small, beside a tiny network, 16 px and 2 steps; and how many pictures its sheet holds.
TOY = {
    "02_regularization.py": ("--layer features.3 --unit 1", 4),
    "03_diversity.py": ("--layer features.3 --unit 1", 8),
    "04_negative_positive.py": ("--layer features.2 --units 1 2", 4),
    "05_joint_neurons.py": ("--layer features.3 --pairs 0 1 2 3", 6),
    "06_interpolation.py": ("--layer features.3 --units 1 2 --align features.2", 12),
    "07_cppn.py": ("--layer features.3 --units 1 2", 2),
    "08_transparency.py": ("--layer features.3 --units 1 2", 2),
    "09_inversion_and_caricature.py": ("--inversions features.2 output --caricatures features.3 --photo {photo}", 3),
    "10_objectives.py": ("--layer features.3 --unit 1 --label 2", 5),
    "11_style.py": ("--content-layer features.2 --style-layers features.1 --photo {photo} --style {style}", 1),
}


def test_every_example_is_run_and_has_a_picture() -> None:
    assert sorted(TOY) == SCRIPTS
    for name in SCRIPTS:
        assert f"pictures/{Path(name).stem}.png" in PICTURES, f"{name} has no picture in examples/README.md"
        assert f"python examples/{name} " in README, f"examples/README.md does not say how {name} was run"


@pytest.mark.parametrize("name", SCRIPTS)
def test_example_runs_and_writes_its_provenance(name: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    files = [save_png(torch.rand(3, 20, width, generator=generator), tmp_path / f"{width}.png") for width in (24, 18)]
    arguments, count = TOY[name]
    output = tmp_path / "out.png"
    small = "--network toys:toy --size 16 --steps 2 --seed 3"
    main = runpy.run_path(str(EXAMPLES / name))["main"]
    main([*f"{small} {arguments.format(photo=files[0], style=files[1])}".split(), "-o", str(output)])
    origin = read_provenance(output)
    assert origin["example"] == name
    assert len(origin["pictures"]) == count
    assert {(picture["seed"], picture["steps"]) for picture in origin["pictures"]} == {(3, 2)}
    assert str(tmp_path) not in repr(origin)


@needs_shared
@pytest.mark.parametrize("picture", PICTURES)
def test_picture_was_made_by_its_example_with_the_real_weights(picture: str) -> None:
    origin = read_provenance(EXAMPLES / picture)
    weights = load_network("squeezenet1_0", str(SHARED / "weights" / "squeezenet1_0.pth")).weights_hash()
    assert origin["example"] == f"{Path(picture).stem}.py"
    assert {(entry["network"], entry["weights"]) for entry in origin["pictures"]} == {("squeezenet1_0", weights)}


def test_pictures_are_small_and_all_in_the_text() -> None:
    files = sorted((EXAMPLES / "pictures").iterdir())
    assert [f"pictures/{file.name}" for file in files] == sorted(re.findall(r'<img src="(pictures/[^"]+)"', README))
    assert sum(file.stat().st_size for file in files) < 3_000_000
