"""What objectives refuse: impossible arguments at once, and what a network does not have before the first step."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from references import bound, pictures
from torch import nn

from featviz_pl import objectives
from featviz_pl.objectives import Channel, ClassLogit, Diversity, Facet, Objective, Setting, Source, StayNear, Style

PICTURE = torch.full((3, 12, 12), 0.25)
NAN = float("nan")
W = torch.ones(4, 7)


class OfTwo(nn.Module):
    """Return latents and something beside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 7)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.inner(x), None


NAMES: dict[str, Any] = {
    **{name: getattr(objectives, name) for name in objectives.__all__},
    **{"torch": torch, "nn": nn, "PICTURE": PICTURE, "NAN": NAN, "W": W, "OfTwo": OfTwo},
}

ARGUMENTS: list[tuple[str, type[Exception], str]] = [
    ("Channel('a', -1)", ValueError, "unit must be at least 0, got -1"),
    ("Channel('a', [0, -2])", ValueError, "unit must be at least 0, got -2"),
    ("Channel('a', [])", ValueError, "at least one unit"),
    ("Channel('a', 1.5)", TypeError, "unit must be a whole number"),
    ("Channel('a', '3')", TypeError, "unit must be a whole number"),
    ("Channel('a', True)", TypeError, "unit must be a whole number"),
    ("Channel('a', None)", TypeError, "unit must be a whole number"),
    ("Channel('', 1)", TypeError, "layer must be a module name"),
    ("Channel(3, 1)", TypeError, "layer must be a module name"),
    ("Layer(None)", TypeError, "layer must be a module name"),
    ("Layer('a', tokens='patch')", ValueError, "tokens: unknown choice 'patch'; did you mean 'patches'"),
    ("Layer('a', tokens=0)", ValueError, "tokens must be at least 1"),
    ("Layer('a', tokens=-1)", ValueError, "tokens must be at least 1"),
    ("Layer('a', tokens=True)", TypeError, "tokens must be a whole number"),
    ("Layer('a', tokens=1.5)", TypeError, "tokens must be a whole number"),
    ("Layer('a', tokens=None)", TypeError, "tokens must be a whole number"),
    ("Neuron('a', 0, -1)", ValueError, "position must be at least 0"),
    ("Neuron('a', 0, (1, 2.5))", TypeError, "position must be a whole number"),
    ("ClassLogit([])", ValueError, "at least one class"),
    ("ClassLogit(-1)", ValueError, "class must be at least 0"),
    ("ClassLogit(0.5)", TypeError, "class must be a whole number"),
    # Penalties
    ("TotalVariation(0)", ValueError, "power must be at least 1"),
    ("TotalVariation('2')", TypeError, "power must be a number"),
    ("L2(NAN)", ValueError, "center must be finite"),
    ("LInfinity('0')", TypeError, "center must be a number"),
    ("BoundaryComplexity(0)", ValueError, "width must be at least 1"),
    ("BoundaryComplexity(2.5)", TypeError, "width must be a whole number"),
    ("BoundaryComplexity(5, 4)", ValueError, "kernel must be odd, so that it has a middle, got 4"),
    ("BoundaryComplexity(5, 1)", ValueError, "kernel must be at least 3"),
    ("HighFrequency(-0.1)", ValueError, "cutoff must be at least 0 and at most 0.7"),
    ("HighFrequency(0.8)", ValueError, "cutoff must be at least 0 and at most 0.7, got 0.8"),
    # Vectors
    ("Direction('a', [])", ValueError, "vectors holds no numbers"),
    ("Direction('a', torch.zeros(2, 2, 2))", ValueError, r"vectors must have 1 or 2 axes, got shape \(2, 2, 2\)"),
    ("Direction('a', 3.0)", ValueError, r"vectors must have 1 or 2 axes, got shape \(\)"),
    ("Direction('a', [1.0, NAN])", ValueError, "vectors must be finite"),
    ("Direction('a', torch.tensor([1.0, float('inf')]))", ValueError, "vectors must be finite, got NaN or infinity"),
    ("Direction('a', [[1.0], [1.0, 2.0]])", ValueError, "vectors must be rows of one length"),
    ("Direction('a', [True, False])", TypeError, "vectors must be a number, got True"),
    ("Direction('a', torch.tensor([True]))", TypeError, "vectors must be numbers, got torch.bool"),
    ("Direction('a', ['x'])", TypeError, "vectors must be a number, got 'x'"),
    ("Direction('a', 'nowhere.pt')", ValueError, "vectors: there is no file 'nowhere.pt'"),
    ("Direction('a', 'print.pt')", ValueError, "vectors: cannot read 'print.pt'"),
    ("Direction('a', [1], compare='dto')", ValueError, "compare: unknown way to compare 'dto'; did you mean 'dot'"),
    ("Direction('a', [1], compare='cosine', power=2)", ValueError, "power: 2 is the power of the cosine"),
    ("Direction('a', [1], power=-1)", ValueError, "power must be at least 0"),
    ("Direction('a', [1], floor=0)", ValueError, "floor must be above 0"),
    ("Direction('a', [1, 2], whitening=torch.eye(3))", ValueError, r"whitening must be \(2, 2\) for vectors of 2"),
    ("TensorDirection('a', torch.zeros(2, 2))", ValueError, "tensor must have 3 or 4 axes"),
    ("WeightedChannels('a', {})", ValueError, "weights must hold at least one unit"),
    ("WeightedChannels('a', {True: 1.0})", TypeError, "unit must be a whole number"),
    ("WeightedChannels('a', {1: True})", TypeError, "weight must be a number"),
    ("WeightedChannels('a', {-1: 1.0})", ValueError, "unit must be at least 0"),
    ("WeightedChannels('a', {1: 1.0, '1': 2.0})", ValueError, "weights: a unit stands twice"),
    ("WeightedChannels('a', {1: 1.0}, (1, 2, 3))", ValueError, r"patch must be \(y, x, height, width\)"),
    ("WeightedChannels('a', {1: 1.0}, (1, 2, 0, 3))", ValueError, "patch must be at least 1"),
    # Dictionaries
    ("Latent('a', {}, 0)", ValueError, r"dictionary: these names are not those of a linear encoder: \(nothing\)"),
    ("Latent('a', {'W': W}, 0)", ValueError, "not those of a linear encoder: W; known: W_enc, encoder.weight"),
    ("Latent('a', {'W_enc': W, 'r_mag': W}, 0)", ValueError, "linear encoder: r_mag; .*give the module itself"),
    ("Latent('a', {'W_enc': W, 'b_enc': W[:, 0]}, 0)", ValueError, "dictionary: these shapes do not make an encoder"),
    ("Latent('a', torch.zeros(3), 0)", ValueError, r"dictionary must be a matrix \(units, features\), got shape \(3,"),
    ("Latent('a', [1.0, 2.0], 0)", ValueError, "dictionary must have 2 axes"),
    ("Latent('a', 'nowhere.pt', 0)", ValueError, "dictionary: there is no file 'nowhere.pt'"),
    ("Latent('a', torch.full((3, 2), NAN), 0)", ValueError, "dictionary must be finite"),
    ("Latent('a', W.T, [0, 7])", ValueError, "unit: the dictionary has 7 units, 0 to 6; there is no 7"),
    ("Latent('a', {'W_enc': W}, [0, 7])", ValueError, "unit: the dictionary has 7 units, 0 to 6; there is no 7"),
    ("Latent('a', nn.Linear(4, 7), 7)", ValueError, "unit: the dictionary has 7 units, 0 to 6; there is no 7"),
    *((f"Latent('a', W.T, {units})", ValueError, "unit") for units in ("[]", "-1")),
    *((f"Latent('a', W.T, {units})", TypeError, "unit") for units in ("1.5", "True", "'3'")),
    # Batches and networks
    ("Interpolation('a:0', 'a:1', count=1)", ValueError, "count must be at least 2"),
    ("Interpolation('a:0', 'a:1', count=3, weights=[0, 1])", ValueError, "weights: 2 weights do not fit 3 pictures"),
    ("Interpolation('a:0', 'a:1', weights=[])", ValueError, "weights must hold a weight for each picture"),
    ("Interpolation('a:0', 'a:1', weights=[0, '1'])", TypeError, "weights must be a number"),
    ("Interpolation('a:0', 'a:1', weights=[0, True])", TypeError, "weights must be a number"),
    ("Interpolation('a:0', 'a:1', weights=[NAN])", ValueError, "weights must be finite"),
    ("Interpolation(3, 'a:1')", TypeError, "first must be an Objective or a target such as 'features.9:33', got int"),
    ("Interpolation('a:0', 'a:')", ValueError, "target: 'a:' does not parse"),
    ("Alignment([])", ValueError, "layers must hold at least one layer"),
    ("Alignment([3])", TypeError, "layers must be module names"),
    ("Alignment('a', 0)", ValueError, "distance must be at least 1"),
    ("Alignment('a', decay=0)", ValueError, "decay must be above 0"),
    ("Diversity('')", TypeError, "layer must be a module name"),
    ("Across('a:1', [])", ValueError, "networks must hold at least one network; None is the run's own"),
    ("Across(['a:1', 'a:2'], ['x'])", ValueError, "objectives: 2 objectives do not fit 1 networks; give one, or as"),
    ("Across([], ['x'])", ValueError, "objectives: 0 objectives do not fit 1 networks"),
    ("Across([3], ['x'])", TypeError, "objectives must be an Objective or a target"),
    ("PerPicture([])", ValueError, "objectives must hold at least one objective"),
    ("PerPicture([L1(), 'a:1'])", TypeError, "an objective combines with objectives and numbers, not with str"),
    ("PerPicture([StayNear(PICTURE, 'a', balance='b:1')])", ValueError, r"StayNear\(.*\) needs the whole batch"),
    ("PerPicture([Facet('b:1,2', {'a': [1.0]})])", ValueError, r"Facet\(.*\) needs the whole batch"),
    ("Logged(3)", TypeError, "objective must be an Objective or a target"),
    # References
    ("Caricature('', PICTURE)", TypeError, "layer must be a module name"),
    ("Caricature('a', PICTURE, power=-1)", ValueError, "power must be at least 0"),
    ("Caricature('a', PICTURE, attribution=3)", TypeError, "attribution must be an Objective or a target"),
    ("Caricature('a', 3)", TypeError, "image must be a tensor .* path of a picture or a folder, or a list.*got int"),
    ("Caricature('a', None)", TypeError, "image must be a tensor .* got NoneType"),
    ("Caricature('a', [PICTURE, 3])", TypeError, "image must be a tensor .* got int"),
    ("Caricature('a', [])", ValueError, "image must hold at least one picture"),
    ("Caricature('a', PICTURE * 255)", ValueError, r"image must lie in \[0, 1\], got values from 63.75"),
    ("Caricature('a', PICTURE * NAN)", ValueError, r"image must lie in \[0, 1\]"),
    ("Caricature('a', torch.zeros(5, 5))", ValueError, "image must be floats"),
    ("Caricature('a', PICTURE.byte())", ValueError, "image must be floats .* got torch.uint8"),
    ("Caricature('a', 'absent.png')", ValueError, "image: .*'absent.png'"),
    ("Caricature('a', [PICTURE, PICTURE[:, :6]])", ValueError, "image: the pictures have different shapes, .*resize"),
    ("Inversion('a', PICTURE, 3)", ValueError, "norm must be 1 or 2, got 3"),
    ("Inversion('a', PICTURE, True)", ValueError, "norm must be 1 or 2, got True"),
    ("Inversion('a', PICTURE, '2')", ValueError, "norm must be 1 or 2, got '2'"),
    ("Content(None, PICTURE)", TypeError, "layer must be a module name"),
    ("Content('a', torch.tensor([-0.01, 1.0]).expand(3, 2, 2))", ValueError, r"image must lie in \[0, 1\]"),
    ("Content('a', 'empty')", ValueError, r"image: the folder 'empty' holds no pictures \(\.png, "),
    ("Content('a', 'print.pt')", ValueError, r"image: .*'print\.pt'"),
    ("StayNear(PICTURE, '')", TypeError, "layer must be a module name such as 'features.9', got ''"),
    ("StayNear(PICTURE, 'a', balance=3)", TypeError, "balance must be an Objective or a target"),
    (
        "StayNear(PICTURE, balance=Layer('a'))",
        ValueError,
        "balance: the pixels have no layer to balance in; give layer",
    ),
    ("StayNear(PICTURE, 'a', norm=3)", ValueError, "norm must be 1 or 2, got 3"),
    ("StayNear(PICTURE * 3 + 1)", ValueError, r"image must lie in \[0, 1\]"),
    ("Style([], PICTURE)", ValueError, "layers must hold at least one layer"),
    ("Style(None, PICTURE)", TypeError, "layers must be module names such as 'features.9', got None"),
    ("Style(['a', 3], PICTURE)", TypeError, "layers must be module names such as 'features.9', got 3"),
    ("Style(['a', 'b', 'a'], PICTURE)", ValueError, r"layers: each may be named once, got \['a', 'b', 'a'\]"),
    ("Style('a', 'absent.png')", ValueError, "image: .*'absent.png'"),
    (
        "Style(['a', 'b'], PICTURE, weights=[1])",
        ValueError,
        "weights: 1 weights do not fit 2 layers; give one for each",
    ),
    ("Style('a', PICTURE, weights=[-1])", ValueError, "weights must be at least 0"),
    ("Style('a', PICTURE, average=1)", ValueError, "average must be below 1, or the style would never change, got 1"),
    ("Style('a', PICTURE, average=-0.5)", ValueError, "average must be at least 0"),
    ("Style('a', PICTURE, average='0.5')", TypeError, "average must be a number"),
    ("SortMatching('a', [])", ValueError, "images must hold at least one picture"),
    ("SortMatching('a', 'absent')", ValueError, "images: .*'absent'"),
    ("Facet(3, {'a': [1.0]})", TypeError, "objective must be an Objective or a target"),
    ("Facet('b:1', ['a'])", TypeError, "layers must give weights by the name of a layer, got list"),
    ("Facet('b:1', {})", ValueError, "layers must hold at least one layer"),
    ("Facet('b:1', {'a': 'absent.pt'})", ValueError, r"layers\['a'\]: there is no file 'absent.pt'"),
    ("Facet('b:1', {'a': [1.0, NAN]})", ValueError, r"layers\['a'\]"),
    ("Facet('b:1', {'a': torch.ones(1, 1, 1, 1)})", ValueError, r"layers\['a'\] must have 1 or 2 or 3 axes"),
    ("Facet('b:1', {'a': [1.0]}, [])", ValueError, "strength must hold at least one number"),
    ("Facet('b:1', {'a': [1.0]}, '5')", TypeError, "strength must be a number"),
    ("Facet('b:1', {'a': [1.0]}, [1.0, float('inf')])", ValueError, "strength must be finite"),
]


@pytest.mark.parametrize(("text", "error", "message"), ARGUMENTS, ids=[text for text, *_ in ARGUMENTS])
def test_impossible_arguments_are_refused_at_once(
    text: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "print.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(error, match=message):
        eval(text, NAMES)


SHAPES: dict[str, tuple[int, ...]] = {
    "map": (8, 4, 5),
    "square": (4, 3, 3),
    "tokens": (17, 12),
    "ten": (10, 4),
    "one": (1, 4),
    "vector": (4,),
    "number": (),
    "output": (3,),
}
LAYERS: list[tuple[str, str]] = [
    ("Channel('map', 8)", "unit: 'map' has 8 units, 0 to 7; there is no 8"),
    ("Channel('map', [0, 99])", "unit: 'map' has 8 units, 0 to 7; there is no 99"),
    ("Channel('tokens', 12)", "unit: 'tokens' has 12 units, 0 to 11; there is no 12"),
    ("Channel('output', 3)", "unit: 'output' has 3 units, 0 to 2; there is no 3"),
    ("Channel('number', 0)", "'number' gives one number for each picture and has no units"),
    ("Layer('map') - 0.1 * Channel('map', 8)", "there is no 8"),
    ("Interpolation('map:1', 'square:9', weights=[1])", "unit: 'square' has 4 units"),
    ("Channel('map', 1) + Logged('output:3')", "unit: 'output' has 3 units"),
    ("Neuron('map', 8)", "there is no 8"),
    ("Neuron('map', 0, (4, 0))", r"position: \(4, 0\) lies outside the map of 'map', which is \(4, 5\)"),
    ("Neuron('map', 0, (0, 5))", r"position: \(0, 5\) lies outside the map of 'map', which is \(4, 5\)"),
    ("Neuron('tokens', 0, 17)", r"position: \(17,\) lies outside .* \(17,\)"),
    ("Neuron('map', 0, 3)", r"position: 'map' has 2 axes of positions \(4, 5\), got \(3,\)"),
    ("Neuron('tokens', 0, (1, 2))", r"position: 'tokens' has 1 axes of positions \(17,\), got \(1, 2\)"),
    ("Neuron('output', 0, 0)", r"position: 'output' has 0 axes"),
    ("Neuron('ten', 0, 10)", r"position: \(10,\) lies outside the map of 'ten', which is \(10,\)"),
    ("Neuron('ten', 0, 9, tokens='patches')", r"position: \(9,\) lies outside .* \(9,\)"),
    ("Neuron('ten', 0, 1, tokens='class')", r"position: \(1,\) lies outside .* \(1,\)"),
    ("Neuron('ten', 0, (3, 0), tokens='patches')", r"position: \(3, 0\) lies outside .* \(3, 3\)"),
    ("Neuron('ten', 0, (1, 1), tokens=4)", r"position: 'ten' has 1 axes of positions \(6,\), got \(1, 1\)"),
    ("NeuronDirection('ten', [1.0] * 4, 9, tokens='patches')", r"position: \(9,\) lies outside .* \(9,\)"),
    (
        "NeuronDirection('square', [1.0] * 4, (3, 0))",
        r"position: \(3, 0\) lies outside the map of 'square', .*\(3, 3\)",
    ),
    ("NeuronDirection('square', [1.0] * 4, 3)", "position: 'square' has 2 axes of positions"),
    ("Layer('one', tokens='patches')", "tokens: 'one' has 1 tokens, and none is left with tokens='patches'"),
    ("Layer('ten', tokens=10)", "tokens: 'ten' has 10 tokens, and none is left with tokens=10"),
    ("Layer('ten', tokens=11)", "tokens: 'ten' has 10 tokens, and none is left with tokens=11"),
    ("ClassLogit(3)", "class: the network has 3 classes, 0 to 2; there is no 3"),
    ("ClassProbability([0, 7])", "class: the network has 3 classes, 0 to 2; there is no 7"),
    ("ClassLogit('golfball')", "class: unknown class 'golfball'; did you mean 'golf ball'"),
    ("Direction('square', [1, 2])", "vectors: 'square' has 4 units, so a vector has 4 numbers, got 2"),
    ("Direction('ten', [1, 2, 3])", "vectors: 'ten' has 4 units, so a vector has 4 numbers, got 3"),
    ("Direction('output', [[1, 2]] * 2)", "vectors: 'output' has 3 units, so a vector has 3 numbers, got 2"),
    ("Similarity('number', [1, 2])", "'number' gives one number for each picture and has no units"),
    ("TensorDirection('square', torch.zeros(4, 4, 1))", r"tensor: the block \(4, 4, 1\) is larger than the map"),
    ("TensorDirection('square', torch.zeros(3, 1, 1))", r"tensor: 'square' has 4 channels, and the block .* has 3"),
    ("TensorDirection('ten', torch.zeros(4, 1, 1))", r"tensor: 'ten' gives \(10, 4\), not a map"),
    ("WeightedChannels('square', {4: 1.0})", "unit: 'square' has 4 units, 0 to 3; there is no 4"),
    ("WeightedChannels('square', [1, 2])", "weights: 'square' has 4 units, so a vector has 4 numbers, got 2"),
    ("WeightedChannels('square', {0: 1}, (2, 0, 2, 1))", r"patch: \(2, 0, 2, 1\) .*leaves the map of 'square'"),
    ("WeightedChannels('ten', {0: 1}, (0, 0, 1, 1))", r"patch: 'ten' gives \(10, 4\), not a map"),
    ("Latent('map', nn.Linear(4, 7), 2)", "dictionary: 'map' has 8 units, and the dictionary is one for 4"),
    ("Latent('map', W.T, 2)", "dictionary: 'map' has 8 units, and the dictionary is one for 4"),
    ("Latent('map', OfTwo(), 2)", "dictionary: it does not take the 8 units of 'map'"),
    ("Latent('vector', OfTwo(), 7)", "unit: the dictionary has 7 units, 0 to 6; there is no 7"),
    ("Latent('vector', nn.Flatten(0), 0)", "dictionary: .* the module returns .*, not one row of units for each"),
    ("Interpolation('map:1', 'map:2')", r"Interpolation\(.*\) needs two pictures or more, got 1; give the image a"),
    ("PerPicture([Layer('map'), Channel('square', 4)])", "unit: 'square' has 4 units, 0 to 3; there is no 4"),
    ("PerPicture([Layer('map'), Diversity('map')])", "needs two pictures or more, got 1"),
    ("Alignment('map')", r"Alignment\('map'\) needs two pictures or more, got 1; give the image a count"),
    ("Diversity('map')", r"Diversity\('map'\) needs two pictures or more, got 1; give the image a count"),
    ("Diversity('output')", r"layer: 'output' gives \(3,\), and the Gram matrix of a vector layer has no positions"),
    ("Diversity('number')", r"layer: 'number' gives \(\), and the Gram matrix of a vector layer has no positions"),
    ("2 * AlphaMean()", r"AlphaMean\(\): the pictures, 3 channels, have no alpha channel; use an AlphaImage"),
    ("AlphaBlurDistance()", "have no alpha channel; use an AlphaImage"),
    ("StayNear(PICTURE[:, :6])", r"image: its shape is \(3, 6, 12\), that of the picture \(3, 12, 12\); resize it"),
]
ALLOWED = [
    "Channel('map', 7)",
    "Channel('tokens', 11)",
    "Neuron('map', 7, (3, 4))",
    "Neuron('tokens', 0, 16)",
    "Neuron('ten', 0, (2, 2), tokens='patches')",
    "Neuron('output', 2)",
    "Layer('ten', tokens=9)",
    "ClassLogit('dog')",
    "Interpolation('map:1', 'map:2', weights=[0.5])",
    "WeightedChannels('square', {0: 1}, (2, 2, 1, 1))",
    "StayNear(PICTURE)",
]


def setting(count: int = 1, alpha: bool = False, **shapes: tuple[int, ...]) -> Setting:
    sources = {Source(layer): shape for layer, shape in (SHAPES | shapes).items()}
    return Setting(sources, count, (3 + alpha, 12, 12), class_names=("cat", "dog", "golf ball"), alpha=alpha)


@pytest.mark.parametrize(("text", "message"), LAYERS, ids=[text for text, _ in LAYERS])
def test_the_impossible_is_refused_before_the_first_step(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        eval(text, NAMES).check(setting())


@pytest.mark.parametrize("text", ALLOWED)
def test_the_last_of_everything_is_allowed(text: str) -> None:
    eval(text, NAMES).check(setting())


def test_several_pictures_and_alpha_are_allowed_where_they_exist() -> None:
    for text in ("Interpolation('map:1', 'map:2')", "Alignment('map')", "Diversity('map')"):
        eval(text, NAMES).check(setting(count=2))
    for text in ("AlphaMean()", "AlphaBlurDistance()"):
        eval(text, NAMES).check(setting(alpha=True))
        with pytest.raises(ValueError, match="use an AlphaImage"):
            bound(-eval(text, NAMES), pictures(1))


def test_classes_need_a_vector_and_names() -> None:
    with pytest.raises(ValueError, match="no class names, so 'cat' is unknown; give an index"):
        ClassLogit("cat").check(Setting({Source("output"): (3,)}, 1, (3, 32, 32)))
    ClassLogit(2).check(Setting({Source("output"): (3,)}, 1, (3, 32, 32)))
    with pytest.raises(ValueError, match=r"classes: the network's output has shape \(3, 9, 9\).*use Channel"):
        ClassLogit(0).check(setting(output=(3, 9, 9)))


@pytest.mark.parametrize("term", ["Layer('map', tokens='patches')", "Latent('vector', [[1.0] * 4], 0, tokens=1)"])
def test_maps_and_vectors_have_no_tokens(term: str) -> None:
    with pytest.raises(ValueError, match=r"tokens: '(map|vector)' gives .*not tokens \(T, F\); leave tokens at 'all'"):
        eval(term, NAMES).check(setting())


def shapes_of(objective: Objective, shape: tuple[int, ...], reference: tuple[int, ...]) -> Setting:
    shapes = {source: shape if source.reference is None else reference for source in objective.sources()}
    return Setting(shapes, 1, (3, 224, 200))


@pytest.mark.parametrize("name", ["Caricature", "Content", "Inversion"])
def test_a_reference_of_another_size_is_refused(name: str) -> None:
    term = NAMES[name]("features.9", torch.zeros(3, 64, 48), through_views=False)
    message = r"reference: activations of 'features.9' are \(8, 4, 3\) for a picture of 64 x 48, and \(8, 14, 13\) for "
    with pytest.raises(ValueError, match=message + "the picture of 224 x 200; resize it to 224 x 200"):
        term.check(shapes_of(term, (8, 14, 13), (8, 4, 3)))
    term.check(shapes_of(term, (8, 4, 3), (8, 4, 3)))
    for through_views in (True, False):
        with pytest.raises(ValueError, match=r"reference: .*resize it"):
            bound(NAMES[name]("2", pictures(1, size=16), through_views=through_views), pictures(1))


@pytest.mark.parametrize("arguments", [{}, {"layer": "2"}, {"layer": "2", "through_views": False}], ids=str)
def test_a_picture_of_another_size_to_stay_near_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"(image|reference): .*resize it"):
        bound(StayNear(pictures(1, size=16), **arguments), pictures(1))


@pytest.mark.parametrize(("shape", "reference"), [((8, 4, 4), (8, 4, 5)), ((17, 12), (26, 12))])
def test_references_with_other_numbers_of_positions_are_refused(
    shape: tuple[int, ...], reference: tuple[int, ...]
) -> None:
    term = NAMES["SortMatching"]("a", torch.zeros(2, 3, 30, 40))
    message = r"images: 'a' has (20|26) positions for a picture of 30 x 40, and (16|17) .*resize them to 224 x 200"
    with pytest.raises(ValueError, match=message):
        term.check(shapes_of(term, shape, reference))
    term.check(shapes_of(term, shape, shape))
    with pytest.raises(ValueError, match=r"images: '2' has .* resize them to 12 x 12"):
        bound(NAMES["SortMatching"]("2", [*pictures(2), pictures(1, size=16)[0]]), pictures(1))


def test_a_layer_of_vectors_has_no_style() -> None:
    term = Style(["a", "head"], PICTURE)
    shapes = {source: (8, 4, 4) if source.layer == "a" else (5,) for source in term.sources()}
    with pytest.raises(ValueError, match=r"layers: 'head' gives a vector \(5,\), which has no positions; choose a map"):
        term.check(Setting(shapes, 1, (3, 8, 8)))


@pytest.mark.parametrize(
    ("shape", "weights", "message"),
    [
        ((4, 3, 5), (5,), r"weights for 'a' have shape \(5,\); .* \(4,\), one for each unit, or \(4, 3, 5\)"),
        ((4, 3, 5), (4, 5, 3), r"weights for 'a' have shape \(4, 5, 3\); they must be \(4,\)"),
        ((6, 4), (6,), r"weights for 'a' have shape \(6,\); they must be \(4,\), one for each unit, or \(6, 4\)"),
        ((4,), (4, 1), r"weights for 'a' have shape \(4, 1\)"),
        ((), (1,), "'a' gives one number for each picture and has no units"),
    ],
)
def test_probes_that_do_not_fit_their_layer_are_refused(
    shape: tuple[int, ...], weights: tuple[int, ...], message: str
) -> None:
    term = Facet(Channel("unit", 1), {"a": torch.ones(weights)})
    with pytest.raises(ValueError, match=message):
        term.check(Setting(dict.fromkeys(term.sources(), shape) | {Source("unit"): (3,)}, 1, (3, 8, 8)))


def test_objectives_inside_objectives_are_checked_too() -> None:
    for text in (
        "Facet('4:9', {'1': torch.ones(4)})",
        "StayNear(PICTURE, '2', balance='4:9')",
        "Caricature('2', PICTURE, attribution='4:9')",
    ):
        with pytest.raises(ValueError, match="unit: '4' has 3 units"):
            bound(eval(text, NAMES), pictures(1))
    shapes = {Source("a"): (8, 3, 3), Source("a", "other"): (4, 3, 3)}
    for text, message in (
        ("Across('a:7', [None, 'other'])", r"unit: 'a' has 4 units, 0 to 3; there is no 7 \(network 'other'\)"),
        ("Across('a:9', [None])", r"unit: 'a' has 8 units, 0 to 7; there is no 9$"),
    ):
        with pytest.raises(ValueError, match=message):
            eval(text, NAMES).check(Setting(shapes, 1, (3, 8, 8)))
    eval("Across('a:3', [None, 'other'])", NAMES).check(Setting(shapes, 1, (3, 8, 8)))


def test_a_layer_that_does_not_lead_to_the_objective_is_refused() -> None:
    unit = 1.0 + Channel("0", 1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).double()
    problem = bound(unit + Facet(unit, {"1": torch.ones(4)}), pictures(1), network=network)
    with pytest.raises(ValueError, match=r"layer: '1' does not lead to 1 \+ Channel\('0', 1\); choose a layer before"):
        problem.step(0, 10)


def test_the_gram_matrix_needs_more_than_the_layer_alone() -> None:
    Diversity("tokens").check(setting(count=3))
    with pytest.raises(ValueError, match="none is left"):
        Diversity("one", tokens="patches").check(setting(count=3))
