"""Every objective as a configuration writes it: YAML text, and the formula of what it builds."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentParser
from PIL import Image

from featviz_pl import objectives
from featviz_pl.cli.main import main
from featviz_pl.io import read_provenance
from featviz_pl.objectives import Objective

# instantiate_classes, since 4.49
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")

# Class, its arguments in YAML (LAYER_B stands for a layer), and the formula of what is built.
# {folder} holds picture.png, 6 x 7 pixels; vector.npy, [1, 0.5]; dictionary.pt, with W_enc (2, 3).
LAYER_B = "{class_path: Layer, init_args: {layer: b}}"
TABLE: list[tuple[str, str, str]] = [
    ("Channel", "layer: a, units: 3", "Channel('a', 3)"),
    ("Channel", "layer: a, units: [3, 5], tokens: 5", "Channel('a', [3, 5], tokens=5)"),
    ("ClassLogit", "classes: golf ball", "ClassLogit('golf ball')"),
    ("ClassLogit", "classes: [cat, 3]", "ClassLogit(['cat', 3])"),
    ("ClassProbability", "classes: 7", "ClassProbability(7)"),
    ("Constant", "value: 2", "2"),
    ("DeepDream", "layer: a, tokens: patches", "DeepDream('a', tokens='patches')"),
    ("Layer", "layer: a, tokens: class", "Layer('a', tokens='class')"),
    ("Neuron", "layer: a, unit: 3", "Neuron('a', 3)"),
    ("Neuron", "layer: a, unit: 3, position: [1, 2]", "Neuron('a', 3, (1, 2))"),
    ("Neuron", "layer: a, unit: 3, position: 7, tokens: 1", "Neuron('a', 3, 7, tokens=1)"),
    ("Sum", "terms: [{class_path: L1}, {class_path: Constant, init_args: {value: 2}}]", "L1() + 2"),
    ("Product", "left: {class_path: Constant, init_args: {value: -1}}, right: {class_path: L1}", "-L1()"),
    ("Quotient", "left: {class_path: L1}, right: {class_path: L2}", "L1() / L2()"),
    ("Power", "base: {class_path: L1}, exponent: 0.5", "L1() ** 0.5"),
    ("Direction", "layer: a, vectors: [1, 0.5]", "Direction('a', [1.0, 0.5])"),
    ("Direction", "layer: a, vectors: '{folder}/vector.npy'", "Direction('a', [1.0, 0.5])"),
    (
        "Direction",
        "layer: a, vectors: [[1, 0.5], [2, 3]], power: 2, whitening: [[1, 0], [0, 1]], tokens: 5",
        "Direction('a', [[1.0, 0.5], [2.0, 3.0]], power=2, whitening=[[1.0, 0.0], [0.0, 1.0]], tokens=5)",
    ),
    (
        "NeuronDirection",
        "layer: a, vectors: [1, 2], position: [3, 4], compare: cosine",
        "NeuronDirection('a', [1.0, 2.0], (3, 4), compare='cosine')",
    ),
    ("TensorDirection", "layer: a, tensor: [[[1, 2]], [[3, 4]]]", "TensorDirection('a', [[[1.0, 2.0]], [[3.0, 4.0]]])"),
    ("Similarity", "layer: a, vectors: [1, 2], tokens: class", "Similarity('a', [1.0, 2.0], tokens='class')"),
    ("WeightedChannels", "layer: a, weights: {3: 1.5, '4': -2}", "WeightedChannels('a', {3: 1.5, 4: -2})"),
    (
        "WeightedChannels",
        "layer: a, weights: [1, 2], patch: [0, 1, 2, 3]",
        "WeightedChannels('a', [1.0, 2.0], (0, 1, 2, 3))",
    ),
    (
        "Latent",
        "layer: a, dictionary: [[1, 2], [3, 4]], units: [0, 1]",
        "Latent('a', [[1.0, 2.0], [3.0, 4.0]], [0, 1])",
    ),
    (
        "Latent",
        "layer: a, dictionary: '{folder}/dictionary.pt', units: 2",
        "Latent('a', [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], 2)",
    ),
    ("Interpolation", "first: 'a:3', second: LAYER_B, count: 3", "Interpolation(Channel('a', 3), Layer('b'), count=3)"),
    (
        "Interpolation",
        "first: 'a:3', second: 'a:4', weights: [0, 0.5, 1]",
        "Interpolation(Channel('a', 3), Channel('a', 4), weights=[0, 0.5, 1])",
    ),
    ("PerPicture", "objectives: [{class_path: L1}, {class_path: L2}]", "PerPicture([L1(), L2()])"),
    ("Alignment", "layers: a", "Alignment('a')"),
    ("Alignment", "layers: [a, b], distance: 2, decay: 5", "Alignment(['a', 'b'], distance=2, decay=5)"),
    ("Diversity", "layer: a", "Diversity('a')"),
    (
        "Across",
        "objectives: 'a:3', networks: [null, squeezenet1_0]",
        "Across(Channel('a', 3), [None, 'squeezenet1_0'])",
    ),
    (
        "Across",
        "objectives: ['a:3', LAYER_B], networks: [null, {class_path: toys.ToyNet}]",
        "Across([Channel('a', 3), Layer('b')], [None, <ToyNet>])",
    ),
    (
        "Across",
        "objectives: a, networks: [{class_path: featviz_pl.load_network, init_args: {name: 'toys:toy'}}]",
        "Across(DeepDream('a'), [<toys:toy>])",
    ),
    ("Logged", "objective: 'a:3'", "Logged(Channel('a', 3))"),
    ("TotalVariation", "power: 2", "TotalVariation(power=2)"),
    ("L1", "center: 0.5", "L1(0.5)"),
    ("L2", "", "L2()"),
    (
        "Caricature",
        "layer: a, image: '{folder}/picture.png', power: 2, attribution: LAYER_B",
        "Caricature('a', '{folder}/picture.png', power=2, attribution=Layer('b'))",
    ),
    (
        "Inversion",
        "layer: a, image: ['{folder}/picture.png'], norm: 1, through_views: false",
        "Inversion('a', ['{folder}/picture.png'], norm=1, through_views=False)",
    ),
    ("Content", "layer: a, image: '{folder}/picture.png'", "Content('a', '{folder}/picture.png')"),
    (
        "StayNear",
        "image: '{folder}/picture.png', layer: a, balance: LAYER_B",
        "StayNear('{folder}/picture.png', layer='a', balance=Layer('b'))",
    ),
    (
        "Style",
        "layers: [a, b], image: '{folder}', weights: [1, 0.5], average: 0.95",
        "Style(['a', 'b'], '{folder}', weights=[1, 0.5], average=0.95)",
    ),
    ("SortMatching", "layers: a, images: '{folder}'", "SortMatching('a', '{folder}')"),
    (
        "Facet",
        "objective: LAYER_B, layers: {a: [1, 0.5], c.1: '{folder}/vector.npy'}, strength: [0.1, 5]",
        "Facet(Layer('b'), {'a': [1.0, 0.5], 'c.1': '{folder}/vector.npy'}, strength=[0.1, 5])",
    ),
    ("LInfinity", "center: 0.5", "LInfinity(0.5)"),
    ("BlurDistance", "", "BlurDistance()"),
    ("BoundaryComplexity", "width: 5, kernel: 3", "BoundaryComplexity(5, kernel=3)"),
    ("HighFrequency", "cutoff: 0.125", "HighFrequency(0.125)"),
    ("AlphaMean", "of_views: false", "AlphaMean(of_views=False)"),
    ("AlphaBlurDistance", "", "AlphaBlurDistance()"),
]
ABSTRACT_OR_DATA = {"Target", "Objective", "Observation", "Reference", "Setting", "Source", "Term"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (7, 6), (10, 128, 250)).save(tmp_path / "picture.png")
    np.save(tmp_path / "vector.npy", np.array([1, 0.5]))
    torch.save({"W_enc": torch.arange(6.0).view(2, 3)}, tmp_path / "dictionary.pt")
    return tmp_path


def built(text: str) -> Objective:
    """Build an objective as LightningCLI does."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--objective", type=Objective)
    parsed = parser.parse_object({"objective": yaml.safe_load(text)})
    objective: Any = parser.instantiate_classes(parsed).objective
    assert isinstance(objective, Objective)
    return objective


# Formulas that evaluate to themselves; files of a fixture.
EXACT = [
    "Direction('a', [0.1, 1e-08, 3.0])",
    "Direction('a', [1.0, 2.0], compare='cosine', tokens='class')",
    "Direction('a', [1.0, 2.0], power=4, floor=0.2, whitening=[[1.0, 0.0], [0.0, 1.0]])",
    "NeuronDirection('a', [1.0], 4, tokens=5)",
    "NeuronDirection('a', [1.0], power=2)",
    "TensorDirection('a', [[[1.0, 2.0]]], power=2)",
    "WeightedChannels('a', {7: 0.5}, (0, 1, 2, 3))",
    "Latent('a', [[1.0, 2.0], [0.0, 0.5]], [1, 0], subtract_offset=False)",
    "Channel('a', range(4, 8), tokens='patches')",
    "Interpolation(Channel('a', 0), DeepDream('a'), count=3, weights=[0, 0.25, 1.5])",
    "Across([Channel('a', 1), DeepDream('b')], ['x', None])",
    "-Across(Channel('a', 1), ['x']) ** 2",
    "Channel('a', [1, 2]) + Logged(Channel('b', 1))",
    "Caricature('a', '{folder}', power=2, attribution=Channel('b', [0, 3]), through_views=False)",
    "Caricature('a', '{folder}/picture.png')",
    "Inversion('a', ['{folder}/picture.png', '{folder}/picture.png'], norm=1)",
    "Content('a', '{folder}/picture.png', through_views=False)",
    "StayNear('{folder}/picture.png', norm=1)",
    "StayNear('{folder}/picture.png', layer='a', balance=Channel('b', 3), through_views=False)",
    "Style('a', '{folder}')",
    "SortMatching(['a', 'b'], '{folder}', weights=[1, 100])",
    "Facet(Neuron('b', 3), {'a': '{folder}/vector.npy'})",
    "Facet(Neuron('b', 3), {'a': '{folder}/vector.npy'}, strength=5)",
    "Facet(Neuron('b', 3), {'a': [1.0, 0.5]}, strength=[1])",
]


@pytest.mark.parametrize("formula", EXACT)
def test_the_formula_builds_the_objective(formula: str, folder: Path) -> None:
    text = formula.replace("{folder}", str(folder))
    assert repr(eval(text, {name: getattr(objectives, name) for name in objectives.__all__})) == text


@pytest.mark.parametrize(("name", "arguments", "formula"), TABLE, ids=[formula for *_, formula in TABLE])
def test_the_configuration_builds_the_objective(name: str, arguments: str, formula: str, folder: Path) -> None:
    text = f"{{class_path: {name}, init_args: {{{arguments.replace('LAYER_B', LAYER_B)}}}}}"
    assert repr(built(text.replace("{folder}", str(folder)))) == formula.replace("{folder}", str(folder))


def test_every_exported_objective_is_in_the_table() -> None:
    exported = {name for name in objectives.__all__ if inspect.isclass(getattr(objectives, name))} - ABSTRACT_OR_DATA
    assert {name for name, *_ in TABLE} == exported


@pytest.mark.slow
def test_a_run_from_a_configuration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    config = """
model:
  network: toys:toy
  objective:
    class_path: Across
    init_args:
      objectives:
        - class_path: Direction
          init_args: {layer: features.3, vectors: [1, 0, 0, -1, 0, 0, 0, 0.5], power: 2}
        - "output:1"
      networks: [null, "toys:toy"]
  image: {class_path: PixelImage, init_args: {size: 10}}
  steps: 2
trainer:
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  callbacks: [{class_path: ImageSnapshot, init_args: {folder: out, every: 1}}]
"""
    (folder / "config.yaml").write_text(config)
    assert main(["fit", "--config", "config.yaml"]) == 0
    origin = read_provenance(folder / "out" / "final.png")
    direction = "Direction('features.3', [1.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.5], power=2)"
    assert origin["objective"] == f"Across([{direction}, Channel('output', 1)], [None, 'toys:toy'])"
    assert origin["target"].startswith("features.3:Direction-")
