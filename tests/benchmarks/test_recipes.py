"""The benchmark of recipes in small, and its arithmetic."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import recipes
from featviz_pl.presets import Recipe, fast, lucid

pytestmark = pytest.mark.usefixtures("_loud_again")


def test_recipes_are_compared_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["recipes.py", "--quick", "--json", str(file)])
    recipes.main()
    (rows,) = json.loads(file.read_text())["parts"].values()
    assert [row["recipe"] for row in rows] == ["lucid", "the default, featviz"]
    assert all(0 <= row["clipped"] <= 1 and row["features.2:1"] == pytest.approx(row["of lucid in 3"]) for row in rows)


def test_shares_are_of_lucids_longer_run_and_their_mean_is_geometric(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {("lucid", 512): {"a:0": 10.0, "b:0": 2.0}, ("other", 160): {"a:0": 40.0, "b:0": 2.0}}

    def measured(network: Any, target: str, recipe: Recipe, steps: int, options: Any) -> tuple[float, float]:
        return scores[recipe.name, steps][target], {"a:0": 0.5, "b:0": 0.0}[target]

    monkeypatch.setattr(recipes, "measured", measured)
    options: Any = type("Options", (), {"targets": ["a:0", "b:0"], "goal_steps": 512, "steps": 160})
    network: Any = None
    rows = recipes.rows(network, {"it": replace(lucid(), name="other")}, options)
    assert rows == [{"recipe": "it", "of lucid in 512": pytest.approx(2.0), "clipped": 0.25, "a:0": 4.0, "b:0": 1.0}]


def test_the_fast_preset_is_the_recipe_that_was_compared() -> None:
    (compared,) = [recipe for name, recipe in recipes.RECIPES.items() if name.startswith("fast")]
    preset, parameters = fast(), [torch.nn.Parameter(torch.zeros(1))]
    assert preset.make_optimizer(parameters).defaults == compared.make_optimizer(parameters).defaults
    assert preset.optimizer is compared.optimizer
    assert preset.scheduler is compared.scheduler
    assert repr(preset.transforms) == repr(compared.transforms)
    assert repr(preset.image(size=8)) == repr(compared.image(size=8))
