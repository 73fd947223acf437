from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from featviz_pl.numerics.color import (
    IMAGENET_COLOR_ROOT,
    color_matrix,
    color_mean,
    mix_channels,
    normalized_color_root,
)

# As published: Lucid's square root of the covariance, and the row-vector form of the normalised one in Xplique and
# Horama.
LUCID_ROOT = [[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]]
XPLIQUE = [[0.56282854, 0.58447580, 0.58447580], [0.19482528, 0.0, -0.19482528], [0.04329450, -0.10823626, 0.06494176]]


def test_the_stored_root_is_lucid_s() -> None:
    np.testing.assert_array_equal(np.array(IMAGENET_COLOR_ROOT), np.array(LUCID_ROOT))


@pytest.mark.parametrize("name", ["auto", "imagenet"])
def test_the_imagenet_matrix_is_the_published_one(name: str) -> None:
    matrix = color_matrix(name, 3)
    assert matrix is not None
    assert matrix.dtype == torch.float32
    np.testing.assert_allclose(matrix.numpy(), np.array(XPLIQUE).T, atol=2e-8)
    # The matrix as Lucid rounds it, row by row.
    np.testing.assert_array_equal(matrix.numpy().round(4)[0], np.array([0.5628, 0.1948, 0.0433], dtype=np.float32))


def test_the_root_is_divided_by_its_largest_column_norm() -> None:
    normalised = normalized_color_root(torch.tensor(LUCID_ROOT, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(normalised * 0.46195, np.array(LUCID_ROOT), rtol=1e-5)  # the norm as published
    assert np.sqrt((normalised**2).sum(axis=0)).max() == pytest.approx(1.0)


def test_columns_not_rows_decide_the_norm() -> None:
    root = torch.tensor([[3.0, 0.0], [4.0, 1.0]])  # columns: 5 and 1, rows: 3 and 4.12
    torch.testing.assert_close(normalized_color_root(root), torch.tensor([[0.6, 0.0], [0.8, 0.2]]))


@pytest.mark.parametrize(("name", "channels"), [("none", 3), (None, 3), ("auto", 1), ("auto", 7), ("none", 1)])
def test_without_a_color_space_there_is_no_matrix(name: str | None, channels: int) -> None:
    assert color_matrix(name, channels) is None


def test_matrices_come_as_lists_tensors_and_statistics() -> None:
    i1i2i3 = [[1 / 3, 1 / 3, 1 / 3], [1 / 2, 0.0, -1 / 2], [-1 / 4, 1 / 2, -1 / 4]]
    tensor = torch.tensor(i1i2i3)
    for color in (i1i2i3, tensor, tensor.double(), np.array(i1i2i3), SimpleNamespace(matrix=tensor)):
        matrix = color_matrix(color, 3)
        assert matrix is not None
        np.testing.assert_allclose(matrix.numpy(), np.array(i1i2i3), rtol=1e-6)
    matrix = color_matrix(tensor, 3)
    tensor.zero_()
    assert matrix is not None
    assert bool(matrix.any()), "the caller's matrix is copied"


@pytest.mark.parametrize(
    ("color", "channels", "message"),
    [
        ("imagnet", 3, "unknown color space 'imagnet'; use 'auto', .* or a 3 x 3 matrix"),
        ("imagenet", 4, r"must be \(4, 4\) .* got shape \(3, 3\)"),
        ("i1i2i3", 4, r"must be \(4, 4\) .* got shape \(3, 3\)"),
        ([[1.0, 0.0], [0.0, 1.0]], 3, r"got shape \(2, 2\)"),
        ([1.0, 2.0, 3.0], 3, r"got shape \(3,\)"),
        ([[1.0, 2.0], [2.0, 4.0]], 2, "cannot be inverted"),
        ([[1.0, float("nan")], [0.0, 1.0]], 2, "cannot be inverted"),
    ],
)
def test_what_cannot_be_a_color_space_is_refused(color: Any, channels: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^color: .*{message}"):
        color_matrix(color, channels)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_the_matrix_does_not_depend_on_the_program_s_default_precision(default: torch.dtype) -> None:
    expected = color_matrix("imagenet", 3)
    torch.set_default_dtype(default)
    try:
        matrix = color_matrix("imagenet", 3)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(matrix, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("channels", "results"), [(3, 3), (1, 1), (2, 5), (7, 7)])
def test_channels_are_mixed_pixel_by_pixel(channels: int, results: int) -> None:
    draw = np.random.default_rng(0)
    image, matrix = draw.normal(size=(2, channels, 3, 5)), draw.normal(size=(results, channels))
    mixed = mix_channels(torch.from_numpy(image), torch.from_numpy(matrix))
    np.testing.assert_allclose(mixed.numpy(), np.einsum("dc,nchw->ndhw", matrix, image), rtol=1e-12)


def test_mixing_keeps_the_precision_of_the_picture() -> None:
    assert mix_channels(torch.ones(1, 2, 2, 2, dtype=torch.float64), [[1.0, 0.0], [0.0, 1.0]]).dtype == torch.float64
    assert mix_channels(torch.ones(1, 2, 2, 2), torch.eye(2, dtype=torch.float64)).dtype == torch.float32


def test_mixing_reads_a_picture_in_any_memory_layout() -> None:
    image = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    matrix = torch.tensor(LUCID_ROOT)
    torch.testing.assert_close(
        mix_channels(image.contiguous(memory_format=torch.channels_last), matrix), mix_channels(image, matrix)
    )


# Ohta's features of a pixel (red, green, blue), as published, and the colors that have one of them alone, found by
# hand.
OHTA = np.array([[1 / 3, 1 / 3, 1 / 3], [1 / 2, 0.0, -1 / 2], [-1 / 4, 1 / 2, -1 / 4]])
OHTA_COLORS = np.array([[1.0, 1.0, -2 / 3], [1.0, 0.0, 4 / 3], [1.0, -1.0, -2 / 3]])


def test_i1i2i3_is_what_ohta_s_features_are_inverted_by() -> None:
    np.testing.assert_allclose(OHTA @ OHTA_COLORS, np.eye(3), atol=1e-12)  # the literal above is right
    matrix = color_matrix("i1i2i3", 3)
    assert matrix is not None
    assert matrix.dtype == torch.float32
    np.testing.assert_allclose(
        matrix.numpy(), OHTA_COLORS / np.sqrt(3), atol=1e-7
    )  # the largest column norm is that of grey


@pytest.mark.parametrize("channel", range(3))
def test_a_picture_from_one_i1i2i3_channel_has_that_feature_alone(channel: int) -> None:
    latent = torch.zeros(1, 3, 4, 5)
    latent[:, channel] = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) + 0.5
    matrix = color_matrix("i1i2i3", 3)
    assert matrix is not None
    features = np.einsum("dc,nchw->ndhw", OHTA, mix_channels(latent, matrix).numpy())
    assert (np.abs(features[:, channel]) > 0.2).all()
    np.testing.assert_allclose(np.delete(features, channel, axis=1), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("color", "channels", "mean"),
    [
        ("auto", 3, [0.48, 0.46, 0.41]),  # Lucid's color_mean
        ("imagenet", 3, [0.48, 0.46, 0.41]),
        ("auto", 1, [0.5]),
        ("none", 3, [0.5, 0.5, 0.5]),
        (None, 2, [0.5, 0.5]),
        ("i1i2i3", 3, [0.5, 0.5, 0.5]),
        (torch.eye(3), 3, [0.5, 0.5, 0.5]),  # a tensor has a mean, which is none of colors
        (np.eye(3), 3, [0.5, 0.5, 0.5]),
        (SimpleNamespace(matrix=torch.eye(2), mean=torch.tensor([0.25, 0.75], dtype=torch.float64)), 2, [0.25, 0.75]),
        (SimpleNamespace(matrix=torch.eye(2), mean=[0.25, 0.75]), 2, [0.25, 0.75]),
    ],
)
def test_the_mean_that_goes_with_a_color_space(color: Any, channels: int, mean: list[float]) -> None:
    result = color_mean(color, channels)
    assert result.dtype == torch.float32
    np.testing.assert_array_equal(result.numpy(), np.array(mean, dtype=np.float32))


@pytest.mark.parametrize("mean", [[0.5, 0.5], [[0.5, 0.5, 0.5]], [0.5, float("nan"), 0.5]])
def test_a_mean_that_does_not_fit_is_refused(mean: Any) -> None:
    with pytest.raises(ValueError, match=r"color: the mean must be finite and \(3,\)"):
        color_mean(SimpleNamespace(matrix=torch.eye(3), mean=mean), 3)
