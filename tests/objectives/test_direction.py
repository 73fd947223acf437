"""Directions, blocks, embeddings and weighted channels, against formulas written out in numpy."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from featviz_pl.objectives import (
    Channel,
    Direction,
    Neuron,
    NeuronDirection,
    Objective,
    Observation,
    Setting,
    Similarity,
    Source,
    TensorDirection,
    WeightedChannels,
)

Array = NDArray[np.float64]
UNITS = 4
SHAPES: dict[str, tuple[int, ...]] = {"map": (UNITS, 4, 5), "tokens": (6, UNITS), "vector": (UNITS,)}
SIZES = [(1, 1), (1, 4), (3, 1), (3, 4)]  # pictures and views


def activation(kind: str, pictures: int, views: int) -> Array:
    return np.random.default_rng([pictures, views, len(kind)]).normal(size=(pictures, views, *SHAPES[kind]))


def seen(values: Array | Tensor, layer: str = "layer") -> Observation:
    given = torch.as_tensor(values)
    return Observation(torch.zeros(len(given), 3, 4, 4, dtype=torch.float64), {Source(layer): given})


def positions(values: Array) -> Array:
    """Line up positions: (pictures, views, positions, units)."""
    last = np.moveaxis(values, 2, -1) if values.ndim == 5 else values
    return last.reshape(*last.shape[:2], -1, UNITS)


def setting(shape: tuple[int, ...], count: int = 1) -> Setting:
    return Setting({Source("layer"): shape}, count, (3, 32, 32))


def at_one(a: Array, v: Array, compare: str, power: float, floor: float) -> float:
    """Compare two vectors as the source's formula says, number by number."""
    dot = sum(x * y for x, y in zip(a, v))
    lengths = [1e-4 + math.sqrt(sum(x * x for x in vector)) for vector in (a, v)]
    cosine = dot / (lengths[0] * lengths[1])
    if compare == "cosine":
        return float(cosine)
    return float(dot * max(floor, cosine) ** power) if power else float(dot)


def expected(values: Array, rows: Array, compare: str = "dot", power: float = 0.0, floor: float = 0.1) -> Array:
    """Average over positions; rows (pictures, units)."""
    lined = positions(values)
    result = np.zeros(lined.shape[:2])
    for n, v in itertools.product(*map(range, lined.shape[:2])):
        result[n, v] = sum(at_one(a, rows[n], compare, power, floor) for a in lined[n, v]) / lined.shape[2]
    return result


def require(objective: Objective, values: Array, wanted: Array) -> None:
    scores = objective(seen(values))
    assert scores.dtype == torch.float64
    assert scores.shape == wanted.shape
    np.testing.assert_allclose(scores.numpy(), wanted, rtol=1e-11, atol=1e-13)


COMPARED: list[tuple[str, float, float]] = [
    ("dot", 0, 0.1),
    ("dot", 2, 0.1),
    ("dot", 4, 0.1),
    ("dot", 1.5, 0.3),
    ("cosine", 0, 0.1),
]


@pytest.mark.parametrize(("pictures", "views"), SIZES)
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("compare", "power", "floor"), COMPARED)
def test_direction_is_the_mean_over_positions(
    compare: Any, power: float, floor: float, kind: str, pictures: int, views: int
) -> None:
    values = activation(kind, pictures, views)
    rows = np.random.default_rng(7).normal(size=(pictures, UNITS))
    own = Direction("layer", torch.from_numpy(rows), compare=compare, power=power, floor=floor)
    require(own, values, expected(values, rows, compare, power, floor))
    assert own.count() == pictures
    one = Direction("layer", torch.from_numpy(rows[0]), compare=compare, power=power, floor=floor)
    require(one, values, expected(values, np.repeat(rows[:1], pictures, 0), compare, power, floor))
    assert one.count() is None


def test_the_floor_holds_where_the_activation_points_away() -> None:
    values = np.array([[[-3.0, 0.0, 0.0, 0.0]]])
    require(Direction("layer", [2.0, 0, 0, 0], power=2), values, np.array([[-6 * 0.01]]))
    require(Direction("layer", [2.0, 0, 0, 0], power=2, floor=0.5), values, np.array([[-6 * 0.25]]))


def test_whitening_is_applied_to_the_vector_from_the_right() -> None:
    values, matrix = activation("map", 2, 2), np.arange(16.0).reshape(4, 4)
    vector = np.array([1.0, -2.0, 0.5, 3.0])
    whitened = np.array([sum(vector[i] * matrix[i, j] for i in range(4)) for j in range(4)])
    for power in (0, 4):
        made = Direction("layer", torch.from_numpy(vector), power=power, whitening=torch.from_numpy(matrix))
        require(made, values, expected(values, np.stack([whitened] * 2), power=power))


@pytest.mark.parametrize("kind", SHAPES)
def test_a_one_hot_direction_is_a_channel(kind: str) -> None:
    values = activation(kind, 3, 2)
    for made in (
        Direction("layer", [0, 0, 1, 0]),
        WeightedChannels("layer", [0, 0, 1, 0]),
        WeightedChannels("layer", {2: 1}),
    ):
        torch.testing.assert_close(made(seen(values)), Channel("layer", 2)(seen(values)), rtol=1e-12, atol=1e-14)
    eye = torch.eye(4)[[3, 0, 3]]
    torch.testing.assert_close(
        Direction("layer", eye)(seen(values)), Channel("layer", [3, 0, 3])(seen(values)), rtol=1e-12, atol=1e-14
    )


# At one position


@pytest.mark.parametrize(
    ("kind", "position", "index"),
    [
        ("map", None, 2 * 5 + 2),
        ("map", (0, 4), 4),
        ("map", [3, 1], 16),
        ("tokens", None, 3),
        ("tokens", 5, 5),
        ("vector", None, 0),
    ],
)
@pytest.mark.parametrize(("compare", "power", "floor"), COMPARED)
def test_neuron_direction_is_at_one_position(
    compare: Any, power: float, floor: float, kind: str, position: Any, index: int
) -> None:
    values, rows = activation(kind, 3, 2), np.random.default_rng(3).normal(size=(3, UNITS))
    made = NeuronDirection("layer", torch.from_numpy(rows), position, compare=compare, power=power, floor=floor)
    lined = positions(values)[:, :, index]
    require(
        made, values, np.array([[at_one(a, row, compare, power, floor) for a in own] for own, row in zip(lined, rows)])
    )


def test_a_one_hot_neuron_direction_is_a_neuron() -> None:
    values = activation("map", 2, 3)
    for position in (None, (3, 0)):
        made = NeuronDirection("layer", [0, 1, 0, 0], position)
        torch.testing.assert_close(
            made(seen(values)), Neuron("layer", 1, position)(seen(values)), rtol=1e-12, atol=1e-14
        )


# Blocks


@pytest.mark.parametrize(
    ("height", "width", "top", "left"),
    [(1, 1, 1, 2), (2, 2, 1, 1), (3, 2, 0, 1), (3, 5, 0, 0), (4, 5, 0, 0), (2, 3, 1, 1)],
)
@pytest.mark.parametrize("power", [0, 2])
@pytest.mark.parametrize("single", [True, False])
def test_tensor_direction_is_centred(height: int, width: int, top: int, left: int, power: float, single: bool) -> None:
    values = activation("map", 3, 2)
    blocks = np.random.default_rng(5).normal(size=(3, UNITS, height, width))
    blocks = np.repeat(blocks[:1], 3, 0) if single else blocks
    wanted = np.zeros((3, 2))
    for n, v, i, j in itertools.product(range(3), range(2), range(height), range(width)):
        wanted[n, v] += at_one(values[n, v, :, top + i, left + j], blocks[n, :, i, j], "dot", power, 0.1) / (
            height * width
        )
    made = TensorDirection("layer", torch.from_numpy(blocks[0] if single else blocks), power)
    require(made, values, wanted)
    assert made.count() == (None if single else 3)


# Embeddings


@pytest.mark.parametrize(("pictures", "views"), SIZES)
@pytest.mark.parametrize("kind", SHAPES)
def test_similarity_is_the_cosine_of_the_mean_over_positions(kind: str, pictures: int, views: int) -> None:
    values, rows = activation(kind, pictures, views), np.random.default_rng(9).normal(size=(pictures, UNITS))
    mean = positions(values).mean(2)
    wanted = np.zeros((pictures, views))
    for n, v in itertools.product(range(pictures), range(views)):
        wanted[n, v] = mean[n, v] @ rows[n] / math.sqrt((mean[n, v] @ mean[n, v]) * (rows[n] @ rows[n]))
    require(Similarity("layer", torch.from_numpy(rows)), values, wanted)
    assert np.abs(wanted).max() <= 1


@pytest.mark.parametrize(("scale", "cosine"), [(3.0, 1.0), (-0.01, -1.0), (1e6, 1.0)])
def test_similarity_does_not_depend_on_lengths(scale: float, cosine: float) -> None:
    values = np.array([[[1.0, 2.0, -1.0, 0.5]]]) * scale
    require(Similarity("layer", [1.0, 2.0, -1.0, 0.5]), values, np.array([[cosine]]))


# Weighted channels


@pytest.mark.parametrize(("pictures", "views"), SIZES)
@pytest.mark.parametrize("kind", SHAPES)
def test_weighted_channels_are_a_weighted_sum_of_means(kind: str, pictures: int, views: int) -> None:
    values = activation(kind, pictures, views)
    mean = positions(values).mean(2)
    require(WeightedChannels("layer", {3: 2.0, 0: -0.5}), values, 2 * mean[..., 3] - 0.5 * mean[..., 0])
    weights = [0.5, -1.0, 2.0, 0.25]
    require(WeightedChannels("layer", weights), values, sum(w * mean[..., unit] for unit, w in enumerate(weights)))
    rows = np.random.default_rng(2).normal(size=(pictures, UNITS))
    own = WeightedChannels("layer", torch.from_numpy(rows))
    require(own, values, np.stack([mean[n] @ rows[n] for n in range(pictures)]))
    assert own.count() == pictures


@pytest.mark.parametrize("patch", [(0, 0, 4, 5), (1, 2, 2, 3), (3, 4, 1, 1)])
def test_a_patch_restricts_the_positions(patch: tuple[int, int, int, int]) -> None:
    values, (y, x, height, width) = activation("map", 2, 2), patch
    inside = values[:, :, :, y : y + height, x : x + width].mean((3, 4))
    require(WeightedChannels("layer", {1: 3.0}, patch), values, 3 * inside[..., 1])
    require(WeightedChannels("layer", [1.0, 0, 0, -1], patch), values, inside[..., 0] - inside[..., 3])


@pytest.mark.parametrize("weights", [{"3": 2, "0": -0.5}, {3: 2, 0: -0.5}])
def test_units_may_be_written_as_digits(weights: Any) -> None:
    assert repr(WeightedChannels("layer", weights)) == "WeightedChannels('layer', {3: 2, 0: -0.5})"


# Gradients and precision

DIFFERENTIABLE: dict[str, Callable[[], Objective]] = {
    "Direction": lambda: Direction("layer", [1.0, -2, 0.5, 3]),
    "Direction with a power": lambda: Direction("layer", [1.0, -2, 0.5, 3], power=2),
    "Direction by cosine": lambda: Direction("layer", [1.0, -2, 0.5, 3], compare="cosine"),
    "NeuronDirection": lambda: NeuronDirection("layer", [1.0, -2, 0.5, 3], (1, 1), power=4),
    "TensorDirection": lambda: TensorDirection("layer", torch.arange(8.0).view(4, 2, 1) - 3, power=2),
    "Similarity": lambda: Similarity("layer", [1.0, -2, 0.5, 3]),
    "WeightedChannels": lambda: WeightedChannels("layer", {1: 2.0, 3: -1.0}, (0, 0, 2, 2)),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_those_of_the_score(name: str) -> None:
    made = DIFFERENTIABLE[name]()
    values = torch.from_numpy(activation("map", 2, 1)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda given: made(seen(given)), values)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_layer_that_is_off_gives_finite_gradients(name: str) -> None:
    values = torch.zeros(1, 1, 4, 4, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(DIFFERENTIABLE[name]()(seen(values)).sum(), values)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_reduced_precision_is_scored_in_single_precision(name: str, dtype: torch.dtype) -> None:
    values = torch.from_numpy(activation("map", 2, 2)).to(dtype)
    scores = DIFFERENTIABLE[name]()(seen(values))
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, DIFFERENTIABLE[name]()(seen(values.double())).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_copies_score_alike_and_casts_never_reduce_the_vectors(name: str) -> None:
    made, values = DIFFERENTIABLE[name](), activation("map", 2, 2)
    for twin in (
        copy.deepcopy(made),
        pickle.loads(pickle.dumps(made)),
        copy.deepcopy(made).half(),
        copy.deepcopy(made).double(),
    ):
        assert torch.equal(twin(seen(values)), made(seen(values)))
        assert all(buffer.dtype != torch.float16 for buffer in twin.buffers())
        assert repr(twin) == repr(made)


# What is given, and how it is written


def test_vectors_may_come_from_a_file(tmp_path: Path) -> None:
    vector = torch.tensor([0.5, -1.0, 2.0, 0.25])
    torch.save(vector, tmp_path / "vector.pt")
    np.save(tmp_path / "vector.npy", vector.numpy())
    forms: list[Any] = [
        str(tmp_path / "vector.pt"),
        str(tmp_path / "vector.npy"),
        vector,
        vector.numpy(),
        vector.tolist(),
        tuple(vector),
    ]
    for given in forms:
        for made in (Direction("layer", given), Similarity("layer", given), WeightedChannels("layer", given)):
            assert repr(made) == f"{type(made).__name__}('layer', [0.5, -1.0, 2.0, 0.25])"
    torch.save(vector.view(4, 1, 1), tmp_path / "block.pt")
    assert TensorDirection("layer", str(tmp_path / "block.pt")).vectors.shape == (4, 1, 1)


def test_a_file_executes_nothing(tmp_path: Path) -> None:
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(ValueError, match=r"vectors: .*evil.pt"):
        Direction("layer", str(tmp_path / "evil.pt"))


def test_the_vectors_are_private() -> None:
    given = torch.ones(4)
    made = Direction("layer", given)
    given.zero_()
    assert made.vectors.tolist() == [1, 1, 1, 1]
    assert not list(made.parameters())
    assert not made.state_dict()


@pytest.mark.parametrize(
    ("make", "written"),
    [
        (lambda: Direction("a", [0.1, 1e-8, 3]), "Direction('a', [0.1, 1e-08, 3.0])"),
        (lambda: Direction("a", [[1, 2], [3, 4]], power=2), "Direction('a', [[1.0, 2.0], [3.0, 4.0]], power=2)"),
        (
            lambda: Direction("a", [1, 2], compare="cosine", tokens="class"),
            "Direction('a', [1.0, 2.0], compare='cosine', tokens='class')",
        ),
        (
            lambda: Direction("a", [1, 2], power=4, floor=0.2, whitening=[[1, 0], [0, 1]]),
            "Direction('a', [1.0, 2.0], power=4, floor=0.2, whitening=[[1.0, 0.0], [0.0, 1.0]])",
        ),
        (lambda: NeuronDirection("a", [1], (2, 3)), "NeuronDirection('a', [1.0], (2, 3))"),
        (lambda: NeuronDirection("a", [1], 4, tokens=5), "NeuronDirection('a', [1.0], 4, tokens=5)"),
        (lambda: NeuronDirection("a", [1], power=2), "NeuronDirection('a', [1.0], power=2)"),
        (lambda: TensorDirection("a", [[[1, 2]]], 2), "TensorDirection('a', [[[1.0, 2.0]]], power=2)"),
        (lambda: Similarity("output", [1, 0], "patches"), "Similarity('output', [1.0, 0.0], tokens='patches')"),
        (lambda: WeightedChannels("a", {7: 0.5}, (0, 1, 2, 3)), "WeightedChannels('a', {7: 0.5}, (0, 1, 2, 3))"),
        (lambda: WeightedChannels("a", [0.1, 2]), "WeightedChannels('a', [0.1, 2.0])"),
    ],
)
def test_few_numbers_are_written_exactly(make: Any, written: str) -> None:
    assert repr(make()) == written
    assert repr(eval(written)) == written


def test_many_numbers_are_named_by_their_content() -> None:
    vector = torch.arange(512.0)
    first, second, third = (repr(Direction("a", given)) for given in (vector, vector.double(), vector + 1e-3))
    assert first.startswith("Direction('a', <(512,) tensor ")
    assert first == second
    assert first != third


def test_the_target_of_a_picture_does_not_depend_on_its_companions() -> None:
    rows = torch.arange(12.0).view(3, 4)
    together = Direction("a", rows).targets(3)
    assert len(set(together)) == 3
    assert [Direction("a", row[None]).targets(1) for row in rows] == [[name] for name in together]
    assert Direction("a", rows[1]).targets(2) == [together[1]] * 2
    assert all(name.startswith("a:Direction-") for name in together)
    assert NeuronDirection("a", rows[:1], (1, 2)).targets(1)[0].endswith("@1,2")
    assert WeightedChannels("a", {3: 2, 0: -0.5}).targets(2) == ["a:{3: 2, 0: -0.5}"] * 2


# What cannot work


@pytest.mark.parametrize(
    ("objective", "shape", "message"),
    [
        (Direction("layer", [1, 2]), (4, 3, 3), "vectors: 'layer' has 4 units, so a vector has 4 numbers, got 2"),
        (Direction("layer", [1, 2, 3]), (17, 4), "vectors: 'layer' has 4 units, so a vector has 4 numbers, got 3"),
        (Direction("layer", [[1, 2]] * 2), (5,), "vectors: 'layer' has 5 units, so a vector has 5 numbers, got 2"),
        (Similarity("layer", [1, 2]), (512,), "vectors: 'layer' has 512 units, so a vector has 512 numbers, got 2"),
        (Similarity("layer", [1, 2]), (), "'layer' gives one number for each picture and has no units"),
        (
            NeuronDirection("layer", [1, 2], (3, 0)),
            (2, 3, 3),
            r"position: \(3, 0\) lies outside the map of 'layer', which is \(3, 3\)",
        ),
        (NeuronDirection("layer", [1, 2], 3), (2, 3, 3), "position: 'layer' has 2 axes of positions"),
        (
            TensorDirection("layer", torch.zeros(2, 4, 1)),
            (2, 3, 3),
            r"tensor: the block \(2, 4, 1\) is larger than the map of 'layer'",
        ),
        (
            TensorDirection("layer", torch.zeros(3, 1, 1)),
            (2, 3, 3),
            r"tensor: 'layer' has 2 channels, and the block \(3, 1, 1\) has 3",
        ),
        (TensorDirection("layer", torch.zeros(2, 1, 1)), (17, 2), r"tensor: 'layer' gives \(17, 2\), not a map"),
        (WeightedChannels("layer", {4: 1.0}), (4, 3, 3), "unit: 'layer' has 4 units, 0 to 3; there is no 4"),
        (
            WeightedChannels("layer", [1, 2]),
            (4, 3, 3),
            "weights: 'layer' has 4 units, so a vector has 4 numbers, got 2",
        ),
        (
            WeightedChannels("layer", {0: 1}, (2, 0, 2, 1)),
            (4, 3, 3),
            r"patch: \(2, 0, 2, 1\) .*leaves the map of 'layer'",
        ),
        (WeightedChannels("layer", {0: 1}, (0, 0, 1, 1)), (17, 4), r"patch: 'layer' gives \(17, 4\), not a map"),
    ],
)
def test_the_impossible_is_refused_before_the_first_step(
    objective: Objective, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        objective.check(setting(shape))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Direction("a", []), ValueError, "vectors holds no numbers"),
        (
            lambda: Direction("a", torch.zeros(2, 2, 2)),
            ValueError,
            r"vectors must have 1 or 2 axes, got shape \(2, 2, 2\)",
        ),
        (lambda: Direction("a", 3.0), ValueError, r"vectors must have 1 or 2 axes, got shape \(\)"),  # type: ignore[arg-type]
        (lambda: Direction("a", [1.0, float("nan")]), ValueError, "vectors must be finite"),
        (
            lambda: Direction("a", torch.tensor([1.0, float("inf")])),
            ValueError,
            "vectors must be finite, got NaN or infinity",
        ),
        (lambda: Direction("a", [[1.0], [1.0, 2.0]]), ValueError, "vectors must be rows of one length"),
        (lambda: Direction("a", [True, False]), TypeError, "vectors must be a number, got True"),
        (lambda: Direction("a", torch.tensor([True])), TypeError, "vectors must be numbers, got torch.bool"),
        (lambda: Direction("a", ["x"]), TypeError, "vectors must be a number, got 'x'"),  # type: ignore[arg-type]
        (lambda: Direction("a", "nowhere.pt"), ValueError, "vectors: there is no file 'nowhere.pt'"),
        (
            lambda: Direction("a", [1], compare="dto"),  # type: ignore[arg-type]
            ValueError,
            "compare: unknown way to compare 'dto'; did you mean 'dot'",
        ),
        (lambda: Direction("a", [1], compare="cosine", power=2), ValueError, "power: 2 is the power of the cosine"),
        (lambda: Direction("a", [1], power=-1), ValueError, "power must be at least 0"),
        (lambda: Direction("a", [1], floor=0), ValueError, "floor must be above 0"),
        (
            lambda: Direction("a", [1, 2], whitening=torch.eye(3)),
            ValueError,
            r"whitening must be \(2, 2\) for vectors of 2 numbers",
        ),
        (lambda: Direction("", [1]), TypeError, "layer must be a module name"),
        (lambda: TensorDirection("a", torch.zeros(2, 2)), ValueError, "tensor must have 3 or 4 axes"),
        (lambda: WeightedChannels("a", {}), ValueError, "weights must hold at least one unit"),
        (lambda: WeightedChannels("a", {True: 1.0}), TypeError, "unit must be a whole number"),
        (lambda: WeightedChannels("a", {1: True}), TypeError, "weight must be a number"),
        (lambda: WeightedChannels("a", {-1: 1.0}), ValueError, "unit must be at least 0"),
        (lambda: WeightedChannels("a", {1: 1.0, "1": 2.0}), ValueError, "weights: a unit stands twice"),  # type: ignore[dict-item]
        (lambda: WeightedChannels("a", {1: 1.0}, (1, 2, 3)), ValueError, r"patch must be \(y, x, height, width\)"),
        (lambda: WeightedChannels("a", {1: 1.0}, (1, 2, 0, 3)), ValueError, "patch must be at least 1"),
    ],
)
def test_impossible_arguments_are_refused_where_they_are_given(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
