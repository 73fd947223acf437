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
SHOWN = re.findall(
    r'<img src="(pictures/\d\d_[^"]+)"', README
)  # each by one script; those of trainings: test_examples_training.py

# What makes each example small, beside a tiny network, 16 px and 2 steps; and how many pictures its sheet holds.
TOY = {
    "02_regularization.py": ("--layer features.3 --unit 1", 4),
    "03_diversity.py": ("--layer features.3 --unit 1", 8),
    "04_negative_positive.py": ("--layer features.2 --units 1 2", 4),
    "05_joint_neurons.py": ("--layer features.3 --pairs 0 1 2 3", 6),
    "06_interpolation.py": ("--layer features.3 --units 1 2 --align features.2", 12),
    "07_cppn.py": ("--layer features.3 --units 1 2", 2),
    "08_transparency.py": ("--layer features.3 --units 1 2", 2),
    "09_inversion_and_caricature.py": (
        "--inversions features.2 output --caricatures features.3 output --photo {photo}",
        4,
    ),
    "10_objectives.py": ("--layer features.3 --unit 1 --label 2", 5),
    "11_style.py": (
        "--content-layer features.2 --style-layers features.1 features.2 --photo {photo} --style {style}",
        1,
    ),
}


def test_every_example_is_run_and_shown() -> None:
    assert sorted(TOY) == SCRIPTS
    for name in SCRIPTS:
        assert f"pictures/{Path(name).stem}.png" in SHOWN, f"{name} has no picture in examples/README.md"
        assert f"python examples/{name} " in README, f"examples/README.md does not say how {name} was run"


@pytest.mark.parametrize("name", SCRIPTS)
def test_example_runs_and_says_where_its_picture_comes_from(name: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    photo, style = (
        save_png(torch.rand(3, 20, width, generator=generator), tmp_path / f"{width}.png") for width in (24, 18)
    )
    asked, count = TOY[name]
    output = tmp_path / "out.png"
    small = "--network toys:toy --size 16 --steps 2 --seed 3"
    main = runpy.run_path(str(EXAMPLES / name))["main"]
    main([*f"{small} {asked.format(photo=photo, style=style)}".split(), "-o", str(output)])
    origin = read_provenance(output)
    assert origin["example"] == name
    assert len(origin["pictures"]) == count
    assert all(one["seed"] == 3 and one["steps"] == 2 and str(tmp_path) not in repr(one) for one in origin["pictures"])


@needs_shared
@pytest.mark.parametrize("shown", SHOWN)
def test_picture_was_made_by_its_example_with_the_real_weights(shown: str) -> None:
    origin = read_provenance(EXAMPLES / shown)
    weights = load_network("squeezenet1_0", str(SHARED / "weights" / "squeezenet1_0.pth")).weights_hash()
    assert origin["example"] == f"{Path(shown).stem}.py"
    assert {(one["network"], one["weights"]) for one in origin["pictures"]} == {("squeezenet1_0", weights)}


def test_pictures_are_small_and_all_shown() -> None:
    files = sorted((EXAMPLES / "pictures").iterdir())
    assert [f"pictures/{file.name}" for file in files] == sorted(re.findall(r'<img src="(pictures/[^"]+)"', README))
    assert sum(file.stat().st_size for file in files) < 3_000_000
