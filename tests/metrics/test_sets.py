from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featviz_pl.metrics import Agreement, Embedding, PairwiseDistance, VendiScore


class Pixels(nn.Module):
    """Give the pixels themselves, so that vectors can be written down as pictures."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def by_pixel(width: int) -> Embedding:
    return Embedding(Pixels(), "output", size=(1, width))


def as_pictures(vectors: Tensor) -> Tensor:
    """Return pictures (N, 3, 1, D) of which each channel is the vector."""
    return vectors[:, None, None].expand(-1, 3, -1, -1)


def drawn(count: int, width: int) -> Tensor:
    return torch.rand(count, width, generator=torch.Generator().manual_seed(count), dtype=torch.float64) ** 3


def cosines(vectors: Tensor) -> np.ndarray[Any, Any]:
    unit = vectors.numpy() / np.linalg.norm(vectors.numpy(), axis=1, keepdims=True)
    product: np.ndarray[Any, Any] = unit @ unit.T
    return product


# Diversity.


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_same_picture_many_times_counts_once_and_different_ones_each(count: int) -> None:
    same, different = VendiScore(by_pixel(7)), VendiScore(by_pixel(7))
    same.update(as_pictures(drawn(1, 7).expand(count, -1)))
    different.update(as_pictures(torch.eye(7, dtype=torch.float64)[:count]))
    np.testing.assert_allclose([same.compute(), different.compute()], [1, count], rtol=1e-12)


@pytest.mark.parametrize(("count", "width"), [(5, 9), (9, 5)])  # both ways to the eigenvalues
def test_vendi_is_the_exponential_of_the_entropy_of_the_eigenvalues(count: int, width: int) -> None:
    vectors = drawn(count, width)
    metric = VendiScore(by_pixel(width))
    metric.update(as_pictures(vectors[:2]))
    metric.update(as_pictures(vectors[2:]))
    shares = np.linalg.eigvalsh(cosines(vectors) / count)
    shares = shares[shares > 1e-12]
    np.testing.assert_allclose(metric.compute(), np.exp(-(shares * np.log(shares)).sum()), rtol=1e-9)


def test_distances_are_those_of_all_pairs() -> None:
    vectors = drawn(6, 4)
    metric = PairwiseDistance(by_pixel(4))
    metric.update(as_pictures(vectors))
    products = cosines(vectors)
    pairs = [1 - products[i, j] for i in range(6) for j in range(i)]
    np.testing.assert_allclose(metric.compute(), np.mean(pairs), rtol=1e-12)


@pytest.mark.parametrize(
    ("vectors", "expected"), [(torch.ones(3, 4), 0), (torch.eye(4), 1), (torch.ones(1, 4), np.nan)]
)
def test_distances_of_equal_orthogonal_and_single_pictures(vectors: Tensor, expected: float) -> None:
    metric = PairwiseDistance(by_pixel(4))
    metric.update(as_pictures(vectors))
    np.testing.assert_allclose(metric.compute(), expected, atol=1e-12)


def test_pictures_of_several_sizes_are_compared() -> None:
    metric = PairwiseDistance(by_pixel(4))
    metric.update(torch.full((1, 3, 6, 8), 0.5))
    metric.update(torch.full((1, 3, 3, 4), 0.5))
    np.testing.assert_allclose(metric.compute(), 0, atol=1e-12)


# Agreement.


def agreement(vectors: Tensor, targets: list[str]) -> float:
    metric = Agreement(by_pixel(vectors.shape[1]))
    metric.update(as_pictures(vectors), targets)
    return float(metric.compute())


def test_agreement_is_within_a_target_between_others_and_the_same() -> None:
    vectors = drawn(7, 5)
    targets = ["a:1", "b:2", "a:1", "c:3", "b:2", "a:1", "d:4"]
    products = cosines(vectors)
    expected = []
    for target in ("a:1", "b:2"):
        same = [index for index in range(7) if targets[index] == target]
        different = [index for index in range(7) if targets[index] != target]
        within = np.mean([products[i, j] for i in same for j in same if i != j])
        between = np.mean([products[i, j] for i in same for j in different])
        expected.append((within - between) / (1 - between))
    assert agreement(vectors, targets) == pytest.approx(np.mean(expected), rel=1e-9)


def test_agreement_is_1_for_the_same_pictures_and_0_for_pictures_like_those_of_others() -> None:
    first, second = torch.eye(2, dtype=torch.float64)
    assert agreement(torch.stack([first, first, second, second]), ["a:1", "a:1", "b:1", "b:1"]) == pytest.approx(1)
    mixed = torch.eye(4, dtype=torch.float64)
    assert agreement(mixed, ["a:1", "a:1", "b:1", "b:1"]) == pytest.approx(0, abs=1e-12)
    assert agreement(torch.ones(4, 2, dtype=torch.float64), ["a:1", "a:1", "b:1", "b:1"]) == 0
    assert agreement(torch.stack([first, second, first, second]), ["a:1", "a:1", "b:1", "b:1"]) < 0


@pytest.mark.parametrize("targets", [["a:1", "a:1", "a:1"], ["a:1", "b:1", "c:1"]])
def test_agreement_needs_two_targets_of_which_one_has_two_pictures(targets: list[str]) -> None:
    assert np.isnan(agreement(drawn(3, 4), targets))
