from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from featviz_pl.numerics.activation_axes import unit_axis
from featviz_pl.numerics.checks import finite_number, near, size_pair, unknown, whole_number


@pytest.mark.parametrize("value", [3, np.int64(3), torch.tensor(3)])
def test_whole_numbers_of_any_library_are_taken(value: Any) -> None:
    number = whole_number("views", value)
    assert number == 3
    assert type(number) is int


@pytest.mark.parametrize("value", [0, -2])
def test_whole_numbers_below_the_least_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match=f"views must be at least 1, got {value}"):
        whole_number("views", value)


@pytest.mark.parametrize("value", [2**63, 10**30, 10**5000], ids=["int64", "30", "5000"])
def test_whole_numbers_without_bound_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="views must be at most 9223372036854775807, got") as refusal:
        whole_number("views", value)
    assert len(str(refusal.value)) < 120


@pytest.mark.parametrize("value", [10**7, (1, 10**13)])
def test_sizes_beyond_memory_are_refused_with_what_they_would_take(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^size: 1\d* x 1\d* pixels take at least [\d,]+ GiB of memory, and this mac"):
        size_pair("size", value)


@pytest.mark.parametrize("value", [2.0, "2", None, True, [2]])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="views must be a whole number of at least 1, got"):
        whole_number("views", value)


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (-0.1, {"least": 0.0}, "lr must be at least 0, got -0.1"),
        (0.0, {"above": 0.0}, "lr must be above 0, got 0.0"),
        (1.5, {"above": 0.0, "most": 1.0}, "lr must be above 0 and at most 1, got 1.5"),
        (-0.5, {"least": 0.0, "most": 1.0}, "lr must be at least 0 and at most 1, got -0.5"),
        (2, {"most": 1.0}, "lr must be at most 1, got 2"),
        (float("nan"), {}, "lr must be finite, got nan"),
        (float("inf"), {"above": 0.0}, "lr must be above 0, got inf"),
    ],
)
def test_numbers_outside_their_bounds_are_refused(value: float, bounds: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        finite_number("lr", value, **bounds)


@pytest.mark.parametrize("value", ["0.1", None, False, [0.1]])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="lr must be a number, got"):
        finite_number("lr", value)


def test_numbers_at_their_bounds_are_taken() -> None:
    assert finite_number("lr", 0, least=0.0, most=1.0) == 0.0
    assert finite_number("lr", 1, least=0.0, most=1.0) == 1.0


def test_a_size_is_one_number_or_height_and_width() -> None:
    assert size_pair("size", 8) == (8, 8)
    assert size_pair("size", (4, 6)) == size_pair("size", [4, 6]) == (4, 6)


@pytest.mark.parametrize("value", [(4,), (4, 6, 3), []])
def test_a_size_of_another_length_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"size must be one number or \(height, width\), got"):
        size_pair("size", value)


@pytest.mark.parametrize(
    ("value", "error"), [("8", TypeError), ((4, 0), ValueError), (-1, ValueError), ((4.5, 4), TypeError)]
)
def test_a_size_of_anything_but_positive_whole_numbers_is_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="size must be"):
        size_pair("size", value)


def test_near_names_are_suggested() -> None:
    known = ["features.0", "features.1", "classifier"]
    assert near("clasifier", known) == "did you mean 'classifier'?"
    assert "'features.1'" in near("feature.1", known)
    assert near("zzz", known) == "known: features.0, features.1, classifier"
    assert near("zzz", [f"layer{number}" for number in range(20)]).endswith("layer11, …")


def test_parts_of_names_are_near_too() -> None:
    assert near("net", ["squeezenet1_0", "alexandria"]) == "did you mean 'squeezenet1_0'?"


def test_an_unknown_name_is_named_with_its_argument() -> None:
    error = unknown("preset", "preset", "lucd", ["lucid", "article"])
    assert str(error) == "preset: unknown preset 'lucd'; did you mean 'lucid'?"


@pytest.mark.parametrize(("shape", "axis"), [((64, 8, 8), 0), ((197, 768), 1), ((1000,), 0), ((8, 2, 3, 4), 0)])
def test_units_are_channels_features_or_entries(shape: tuple[int, ...], axis: int) -> None:
    assert unit_axis(shape) == axis
