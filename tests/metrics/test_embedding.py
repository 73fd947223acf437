from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from metric_cases_sets import embedding, embeddings, network, photo_folder, pictures
from PIL import Image as Pillow
from torch import nn

from featviz_pl.metrics import Embedding, PhotoEmbeddings, VendiScore, embed_photos, load_embeddings, read_photos
from featviz_pl.networks import load_network

# Vectors.


def test_a_vector_is_the_unit_means_of_the_layers_side_by_side() -> None:
    net = network().module
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.5, 0.4, 0.3], [0.2, 0.2, 0.25]))
    images = (pictures(3).double()[:, :, 1:13] - mean) / std
    outputs: list[Any] = []
    for name in ("features.2", "features.5"):
        net.get_submodule(name).register_forward_hook(lambda _m, _i, output: outputs.append(output.clone().numpy()))
    with torch.no_grad():
        net.eval()(images)
    means = [output.mean((2, 3)) for output in outputs]
    expected = np.concatenate([mean / np.linalg.norm(mean, axis=1, keepdims=True) for mean in means], 1) / np.sqrt(2)
    # 14 x 12 pixels are cropped to 12 x 12 about their center.
    np.testing.assert_allclose(embedding()(pictures(3)).numpy(), expected, atol=1e-6)


def test_token_layers_and_vectors_are_read_by_feature() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens: torch.Tensor = self.tokens(x.flatten(2).transpose(1, 2))  # (N, positions, 3)
            return tokens.amax(1)

    images = pictures(2).double()
    for layer, numbers in (("tokens", images.numpy().mean((2, 3))), ("output", images.numpy().max((2, 3)))):
        result = Embedding(Tokens(), layer, size=(14, 12))(images)
        np.testing.assert_allclose(result.numpy(), numbers / np.linalg.norm(numbers, axis=1, keepdims=True))
        assert result.dtype == torch.float64


def test_the_default_is_the_embedded_network_seen_at_192_pixels() -> None:
    embedder = Embedding()
    layers = [f"blocks.{index}" for index in range(5)]
    assert (embedder.layers, embedder.size, repr(embedder)) == (layers, (192, 192), "Embedding()")
    result = embedder(pictures(2))
    assert result.shape == (2, 32 + 64 + 128 + 128 + 192)
    torch.testing.assert_close(result.square().sum(1), torch.ones(2))
    same = Embedding(load_network("embedded"), embedder.layers, size=192)(pictures(2))
    torch.testing.assert_close(result, same)


def test_other_networks_are_seen_at_their_own_size() -> None:
    embedder = Embedding(network(), "features.5")
    assert embedder.size == (12, 12)
    assert repr(embedder) == "Embedding(<toy>, layer='features.5', size=(12, 12))"
    assert Embedding(nn.Conv2d(3, 4, 3), "output").size == (224, 224)


def test_grey_pictures_are_shown_in_color() -> None:
    grey = pictures(2)[:, :1]
    torch.testing.assert_close(embedding()(grey), embedding()(grey.repeat(1, 3, 1, 1)))


def test_pictures_of_inference_mode_and_autocast_are_embedded_the_same() -> None:
    expected = Embedding(size=32)(pictures(2))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        result = Embedding(size=32)(pictures(2))
    assert torch.equal(result, expected)
    assert not result.is_inference()


# jsonargparse 4.53 deprecates the method that older ones have.
@pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_embeddings_are_built_from_configurations() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--metric", type=VendiScore)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    arguments = {"class_path": "featviz_pl.metrics.Embedding", "init_args": {"layer": ["blocks.1"], "size": 32}}
    config = {"class_path": "featviz_pl.metrics.VendiScore", "init_args": {"embedding": arguments}}
    built = instantiate(parser.parse_object({"metric": config}))
    assert repr(built.metric) == "VendiScore(embedding=Embedding('embedded', layer='blocks.1', size=(32, 32)))"


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) / 0


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda: Embedding(nn.Conv2d(3, 4, 3)), "layer: name a layer of 'Conv2d' to compare by"),
        (lambda: Embedding(layer="block.3"), "layer: the network has no layer 'block.3'; did you mean 'blocks"),
        (lambda: Embedding(layer=["blocks.3", "blocks.3"]), "layers must name at least one layer, and each once"),
        (lambda: Embedding(layer=[]), "layers must name at least one layer"),
        (lambda: Embedding(layer=[3]), "layers must be names of layers, got 3"),  # type: ignore[list-item]
        (lambda: Embedding(size=0), "size must be at least 1"),
        (lambda: Embedding(Broken(), "output", size=4)(pictures(1)), "gives activations at output that are not finite"),
        (lambda: Embedding()(pictures(1).repeat(1, 2, 1, 1)), "pictures: 6 channels do not fit"),
    ],
)
def test_mistakes_are_explained(make: Any, pattern: str) -> None:
    with pytest.raises((ValueError, TypeError), match=pattern):
        make()


# Photos.


def test_photos_have_the_vectors_of_their_pictures_in_the_order_of_their_names() -> None:
    record = embeddings()
    assert record.paths == [f"{index:02}.png" for index in range(12)]
    [images] = read_photos([Path(photo_folder(), name) for name in record.paths], 12)
    torch.testing.assert_close(record.values, embedding()(images))
    assert (record.size, record.enlarged, record.unreadable, len(record)) == ((12, 12), 0, 0, 12)


def test_some_photos_or_a_list_of_them_and_any_batches_give_the_same() -> None:
    some = embed_photos(embedding(), photo_folder(), limit=4, batch_size=3)
    assert some.paths == ["00.png", "03.png", "06.png", "09.png"]
    torch.testing.assert_close(some.values, embeddings().values[::3])
    paths = [f"{photo_folder()}/{name}" for name in ("07.png", "02.png")]
    result = embed_photos(embedding(), paths)
    assert result.paths == paths
    torch.testing.assert_close(result.values, embeddings().values[[7, 2]])


def test_unreadable_photos_are_left_out_and_small_and_odd_ones_converted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    Pillow.new("L", (20, 20), 100).save(tmp_path / "a.png")
    Pillow.new("CMYK", (20, 20), (10, 20, 30, 40)).save(tmp_path / "sub" / "b.jpg")
    Pillow.new("RGB", (5, 20), (10, 20, 30)).save(tmp_path / "c.png")
    (tmp_path / "d.jpg").write_bytes(b"no photo")
    reported: list[tuple[int, int]] = []
    record = embed_photos(embedding(), tmp_path, batch_size=2, progress=lambda *counts: reported.append(counts))
    assert (record.paths, record.enlarged, record.unreadable) == (["a.png", "c.png", "sub/b.jpg"], 1, 1)
    assert record.unreadable_paths == ["d.jpg"]
    assert reported == [(2, 4), (4, 4)]


def test_folders_without_photos_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no photo")
    with pytest.raises(ValueError, match="folder: none of 1 files in"):
        embed_photos(embedding(), tmp_path)
    with pytest.raises(ValueError, match="none of 0 files"):
        embed_photos(embedding(), [])


def test_records_are_saved_and_vectors_and_names_must_fit(tmp_path: Path) -> None:
    record = load_embeddings(embeddings().save(tmp_path / "new" / "photos.pt"))
    assert torch.equal(record.values, embeddings().values)
    assert (record.paths, record.identity) == (embeddings().paths, embeddings().identity)
    record.check(embedding())
    with pytest.raises(ValueError, match=r"values must be \(photos, D\) for 3 photos, got shape \(2, 4\)"):
        PhotoEmbeddings(torch.ones(2, 4), ["a", "b", "c"], identity={})
