from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metric_cases_sets import embedding, embeddings, nearest, photo_folder, pictures
from torch import Tensor

from featviz_pl.metrics import NearestPhotos, PhotoEmbeddings, read_photos


def cosines(images: Tensor) -> np.ndarray[Any, Any]:
    vectors, photos = embedding()(images).double().numpy(), embeddings().values.double().numpy()
    products: np.ndarray[Any, Any] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ photos.T
    return products


@pytest.mark.parametrize("k", [1, 3, 12, 40])
def test_the_value_is_the_mean_similarity_to_the_nearest_photos(k: int) -> None:
    metric = NearestPhotos(embeddings(), embedding(), k=k, reduction="none")
    metric.update(pictures(4))
    expected = np.sort(cosines(pictures(4)), axis=1)[:, ::-1][:, :k].mean(1)
    np.testing.assert_allclose(metric.compute(), expected, rtol=1e-6)


def test_the_nearest_photos_are_named_with_their_similarity() -> None:
    for row, listed in zip(cosines(pictures(2)), nearest().nearest(pictures(2))):
        order = np.argsort(-row)[:3]
        assert [path for path, _ in listed] == [embeddings().paths[index] for index in order]
        np.testing.assert_allclose([value for _, value in listed], row[order], rtol=1e-6)


def test_a_photo_is_nearest_to_itself() -> None:
    [photos] = read_photos([Path(photo_folder(), f"{index:02}.png") for index in range(12)], (12, 12))
    metric = NearestPhotos(embeddings(), embedding(), k=1)
    assert [listed[0][0] for listed in metric.nearest(photos)] == embeddings().paths
    metric.update(photos)
    assert float(metric.compute()) == pytest.approx(1)


def test_the_value_of_photos_leaves_out_each_photo_itself() -> None:
    products = embeddings().values.double().numpy()
    products = products @ products.T
    np.fill_diagonal(products, -np.inf)
    assert nearest().of_photos() == pytest.approx(np.sort(products, axis=1)[:, ::-1][:, :3].mean())
    single = PhotoEmbeddings(embeddings().values[:1], ["a.png"], identity=embedding().identity())
    assert np.isnan(NearestPhotos(single, embedding()).of_photos())


def test_photos_may_be_in_a_file(tmp_path: Path) -> None:
    path = str(embeddings().save(tmp_path / "photos.pt"))
    metric = NearestPhotos(path, embedding(), k=3)
    assert torch.equal(metric.measure(pictures(2)), nearest().measure(pictures(2)))
    assert repr(metric).startswith(f"NearestPhotos({path!r}, embedding=Embedding(<toy>")
