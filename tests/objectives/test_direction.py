"""Directions, blocks, embeddings and weighted channels, against formulas written out in numpy."""

from __future__ import annotations

import itertools
import math
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
    Similarity,
    Source,
    TensorDirection,
    WeightedChannels,
)

Array = NDArray[np.float64]
UNITS = 4
SHAPES: dict[str, tuple[int, ...]] = {"map": (UNITS, 4, 5), "tokens": (6, UNITS), "vector": (UNITS,)}
SIZES = [(1, 1), (3, 4)]  # pictures and views


def activation(kind: str, pictures: int, views: int) -> Array:
    return np.random.default_rng([pictures, views, len(kind)]).normal(size=(pictures, views, *SHAPES[kind]))


def seen(values: Array | Tensor, layer: str = "layer") -> Observation:
    value = torch.as_tensor(values)
    return Observation(torch.zeros(len(value), 3, 4, 4, dtype=torch.float64), {Source(layer): value})


def positions(values: Array) -> Array:
    """Line up positions: (pictures, views, positions, units)."""
    last = np.moveaxis(values, 2, -1) if values.ndim == 5 else values
    return last.reshape(*last.shape[:2], -1, UNITS)


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


def require(objective: Objective, values: Array, reference: Array) -> None:
    scores = objective(seen(values))
    assert scores.dtype == torch.float64
    assert scores.shape == reference.shape
    np.testing.assert_allclose(scores.numpy(), reference, rtol=1e-11, atol=1e-13)


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
    source = Direction("layer", torch.from_numpy(rows), compare=compare, power=power, floor=floor)
    require(source, values, expected(values, rows, compare, power, floor))
    assert source.count() == pictures
    single = Direction("layer", torch.from_numpy(rows[0]), compare=compare, power=power, floor=floor)
    require(single, values, expected(values, np.repeat(rows[:1], pictures, 0), compare, power, floor))
    assert single.count() is None


def test_the_floor_holds_where_the_activation_points_away() -> None:
    values = np.array([[[-3.0, 0.0, 0.0, 0.0]]])
    require(Direction("layer", [2.0, 0, 0, 0], power=2), values, np.array([[-6 * 0.01]]))
    require(Direction("layer", [2.0, 0, 0, 0], power=2, floor=0.5), values, np.array([[-6 * 0.25]]))


def test_whitening_is_applied_to_the_vector_from_the_right() -> None:
    values, matrix = activation("map", 2, 2), np.arange(16.0).reshape(4, 4)
    vector = np.array([1.0, -2.0, 0.5, 3.0])
    whitened = np.array([sum(vector[i] * matrix[i, j] for i in range(4)) for j in range(4)])
    for power in (0, 4):
        objective = Direction("layer", torch.from_numpy(vector), power=power, whitening=torch.from_numpy(matrix))
        require(objective, values, expected(values, np.stack([whitened] * 2), power=power))


@pytest.mark.parametrize("kind", SHAPES)
def test_a_one_hot_direction_is_a_channel(kind: str) -> None:
    values = activation(kind, 3, 2)
    for objective in (
        Direction("layer", [0, 0, 1, 0]),
        WeightedChannels("layer", [0, 0, 1, 0]),
        WeightedChannels("layer", {2: 1}),
    ):
        torch.testing.assert_close(objective(seen(values)), Channel("layer", 2)(seen(values)), rtol=1e-12, atol=1e-14)
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
    objective = NeuronDirection("layer", torch.from_numpy(rows), position, compare=compare, power=power, floor=floor)
    lined = positions(values)[:, :, index]
    require(
        objective,
        values,
        np.array([[at_one(a, row, compare, power, floor) for a in source] for source, row in zip(lined, rows)]),
    )


def test_a_one_hot_neuron_direction_is_a_neuron() -> None:
    values = activation("map", 2, 3)
    for position in (None, (3, 0)):
        objective = NeuronDirection("layer", [0, 1, 0, 0], position)
        torch.testing.assert_close(
            objective(seen(values)), Neuron("layer", 1, position)(seen(values)), rtol=1e-12, atol=1e-14
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
    reference = np.zeros((3, 2))
    for n, v, i, j in itertools.product(range(3), range(2), range(height), range(width)):
        reference[n, v] += at_one(values[n, v, :, top + i, left + j], blocks[n, :, i, j], "dot", power, 0.1) / (
            height * width
        )
    objective = TensorDirection("layer", torch.from_numpy(blocks[0] if single else blocks), power)
    require(objective, values, reference)
    assert objective.count() == (None if single else 3)


# Embeddings


@pytest.mark.parametrize(("pictures", "views"), SIZES)
@pytest.mark.parametrize("kind", SHAPES)
def test_similarity_is_the_cosine_of_the_mean_over_positions(kind: str, pictures: int, views: int) -> None:
    values, rows = activation(kind, pictures, views), np.random.default_rng(9).normal(size=(pictures, UNITS))
    mean = positions(values).mean(2)
    reference = np.zeros((pictures, views))
    for n, v in itertools.product(range(pictures), range(views)):
        reference[n, v] = mean[n, v] @ rows[n] / math.sqrt((mean[n, v] @ mean[n, v]) * (rows[n] @ rows[n]))
    require(Similarity("layer", torch.from_numpy(rows)), values, reference)
    assert np.abs(reference).max() <= 1


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
    source = WeightedChannels("layer", torch.from_numpy(rows))
    require(source, values, np.stack([mean[n] @ rows[n] for n in range(pictures)]))
    assert source.count() == pictures


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
    for value in forms:
        for objective in (Direction("layer", value), Similarity("layer", value), WeightedChannels("layer", value)):
            assert repr(objective) == f"{type(objective).__name__}('layer', [0.5, -1.0, 2.0, 0.25])"
    torch.save(vector.view(4, 1, 1), tmp_path / "block.pt")
    assert TensorDirection("layer", str(tmp_path / "block.pt")).vectors.shape == (4, 1, 1)


def test_the_vectors_are_private() -> None:
    value = torch.ones(4)
    objective = Direction("layer", value)
    value.zero_()
    assert objective.vectors.tolist() == [1, 1, 1, 1]
    assert not list(objective.parameters())
    assert not objective.state_dict()


def test_many_numbers_are_named_by_their_content() -> None:
    vector = torch.arange(512.0)
    first, second, third = (repr(Direction("a", value)) for value in (vector, vector.double(), vector + 1e-3))
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
