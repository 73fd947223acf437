"""Pictures that are given: where they come from, and that nothing moves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from featviz_pl.images import FixedImage


def saved(path: Path, levels: object) -> str:
    Pillow.fromarray(np.array(levels, dtype=np.uint8)).save(path)
    return str(path)


def test_a_tensor_is_shown_and_not_shared() -> None:
    given = torch.rand(2, 7, 3, 5, generator=torch.Generator().manual_seed(0))
    image, kept = FixedImage(given), given.clone()
    given.zero_()
    image().zero_()
    assert torch.equal(image(), kept)
    assert (image.count, image.channels, image.size) == (2, 7, (3, 5))
    assert list(image.parameters()) == []
    assert not image().requires_grad


def test_files_are_read_in_256_levels(tmp_path: Path) -> None:
    grey = saved(tmp_path / "grey.png", [[0, 51], [102, 255]])
    for channels in (1, 3):
        expected = np.broadcast_to(np.array([[0.0, 0.2], [0.4, 1.0]]), (2, channels, 2, 2))
        np.testing.assert_allclose(FixedImage([grey, grey], channels=channels)().numpy(), expected, atol=1e-7)


def test_a_file_with_alpha_keeps_it_where_it_is_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "clear.png", [[[255, 0, 0, 51]]])
    image = FixedImage(path, alpha=True)
    assert image.alpha
    np.testing.assert_allclose(image()[0, :, 0, 0].numpy(), [1.0, 0.0, 0.0, 0.2], atol=1e-7)
    assert FixedImage(path).channels == 3
    assert not FixedImage(path).alpha


def test_pictures_are_resampled_to_the_size_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "halves.png", [[0, 0, 255, 255]] * 4)
    other = saved(tmp_path / "large.png", [[255] * 6] * 8)
    image = FixedImage([path, other], size=(4, 2), channels=1)
    # Shrinking by two with a triangle filter of four pixels: weights 1, 3, 3, 1, cut at the border.
    np.testing.assert_allclose(image()[0, 0, 1].numpy(), [1 / 7, 6 / 7], atol=1e-6)
    assert bool((image()[1] == 1).all())
    assert FixedImage(torch.ones(3, 4, 4), size=2).size == (2, 2)
    with pytest.raises(ValueError, match=r"picture: the files have \(4, 4\) and \(8, 6\) pixels; give the size"):
        FixedImage([path, other])
