from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from metric_cases_sets import embedding, embeddings, folder, network, pictures
from PIL import Image as Pillow
from torch import nn

from featviz_pl.metrics import Embedding, PhotoEmbeddings, VendiScore, embed_photos, load_embeddings, read_photos
from featviz_pl.networks import load_network

# Vectors.


def test_a_vector_is_the_unit_means_of_the_layers_side_by_side() -> None:
    net = network().module
    shown = (pictures(3).double()[:, :, 1:13] - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.2, 0.2, 0.25]
    ).view(3, 1, 1)
    held: dict[str, np.ndarray[Any, Any]] = {}
    for name in ("features.2", "features.5"):
        net.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: held.__setitem__(name, out.detach().clone().numpy())
        )
    with torch.no_grad():
        net.eval()(shown)
    means = [held[name].mean((2, 3)) for name in ("features.2", "features.5")]
    expected = np.concatenate([mean / np.linalg.norm(mean, axis=1, keepdims=True) for mean in means], 1) / np.sqrt(2)
    # 14 x 12 pixels are cut to 12 x 12 about their centre.
    np.testing.assert_allclose(embedding()(pictures(3)).numpy(), expected, atol=1e-6)


def test_token_layers_and_vectors_are_read_by_feature() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens: torch.Tensor = self.tokens(x.flatten(2).transpose(1, 2))  # (N, positions, 3)
            return tokens.amax(1)

    shown = pictures(2).double()
    for layer, numbers in (("tokens", shown.numpy().mean((2, 3))), ("output", shown.numpy().max((2, 3)))):
        found = Embedding(Tokens(), layer, size=(14, 12))(shown)
        np.testing.assert_allclose(found.numpy(), numbers / np.linalg.norm(numbers, axis=1, keepdims=True))
        assert found.dtype == torch.float64


def test_the_default_is_the_embedded_network_seen_at_192_pixels() -> None:
    made = Embedding()
    assert (made.layers, made.size, repr(made)) == (
        [f"blocks.{index}" for index in range(5)],
        (192, 192),
        "Embedding()",
    )
    found = made(pictures(2))
    assert found.shape == (2, 32 + 64 + 128 + 128 + 192)
    torch.testing.assert_close(found.square().sum(1), torch.ones(2))
    same = Embedding(load_network("embedded"), made.layers, size=192)(pictures(2))
    torch.testing.assert_close(found, same)


def test_other_networks_are_seen_at_their_own_size() -> None:
    made = Embedding(network(), "features.5")
    assert made.size == (12, 12)
    assert repr(made) == "Embedding(<toy>, layer='features.5', size=(12, 12))"
    assert Embedding(nn.Conv2d(3, 4, 3), "output").size == (224, 224)


def test_grey_pictures_are_shown_in_color() -> None:
    grey = pictures(2)[:, :1]
    torch.testing.assert_close(embedding()(grey), embedding()(grey.repeat(1, 3, 1, 1)))


def test_a_picture_s_vector_does_not_depend_on_its_companions() -> None:
    together = embedding()(pictures(4).double())
    np.testing.assert_allclose(together[3:], embedding()(pictures(4)[3:].double()), rtol=0, atol=1e-10)


def test_pictures_of_inference_mode_and_autocast_are_embedded_the_same() -> None:
    expected = Embedding(size=32)(pictures(2))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = Embedding(size=32)(pictures(2))
    assert torch.equal(found, expected)
    assert not found.is_inference()


# jsonargparse 4.53 deprecates the method that older ones have.
@pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_embeddings_are_built_from_configurations() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--metric", type=VendiScore)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    init = {
        "embedding": {"class_path": "featviz_pl.metrics.Embedding", "init_args": {"layer": ["blocks.1"], "size": 32}}
    }
    made = instantiate(
        parser.parse_object({"metric": {"class_path": "featviz_pl.metrics.VendiScore", "init_args": init}})
    )
    assert repr(made.metric) == "VendiScore(embedding=Embedding('embedded', layer='blocks.1', size=(32, 32)))"


def test_embeddings_are_copied_and_pickled() -> None:
    made = embedding()
    expected = made(pictures(1))
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(other(pictures(1)), expected)
        assert other.identity() == made.identity()


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
        (
            lambda: Embedding(Broken(), "output", size=4)(pictures(1)),
            "network: 'Broken' gives activations at output that are not finite",
        ),
        (lambda: Embedding()(pictures(1).repeat(1, 2, 1, 1)), "pictures: 6 channels do not fit"),
    ],
)
def test_mistakes_are_explained(make: object, pattern: str) -> None:
    assert callable(make)
    with pytest.raises((ValueError, TypeError), match=pattern):
        make()


# Photos.


def test_photos_have_the_vectors_of_their_pictures_in_the_order_of_their_names() -> None:
    held = embeddings()
    assert held.paths == [f"{index:02}.png" for index in range(12)]
    [shown] = read_photos([Path(folder(), name) for name in held.paths], 12)
    torch.testing.assert_close(held.values, embedding()(shown))
    assert (held.size, held.enlarged, held.unreadable, len(held)) == ((12, 12), 0, 0, 12)


def test_some_photos_or_a_list_of_them_and_any_batches_give_the_same() -> None:
    whole = embeddings()
    some = embed_photos(embedding(), folder(), limit=4, batch_size=3)
    assert some.paths == ["00.png", "03.png", "06.png", "09.png"]
    torch.testing.assert_close(some.values, whole.values[::3])
    listed = [f"{folder()}/{name}" for name in ("07.png", "02.png")]
    found = embed_photos(embedding(), listed)
    assert found.paths == listed
    torch.testing.assert_close(found.values, whole.values[[7, 2]])


def test_unreadable_photos_are_left_out_and_small_and_odd_ones_converted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    Pillow.new("L", (20, 20), 100).save(tmp_path / "a.png")
    Pillow.new("CMYK", (20, 20), (10, 20, 30, 40)).save(tmp_path / "sub" / "b.jpg")
    Pillow.new("RGB", (5, 20), (10, 20, 30)).save(tmp_path / "c.png")
    (tmp_path / "d.jpg").write_bytes(b"no photo")
    reported: list[tuple[int, int]] = []
    held = embed_photos(
        embedding(), tmp_path, batch_size=2, progress=lambda done, total: reported.append((done, total))
    )
    assert (held.paths, held.enlarged, held.unreadable) == (["a.png", "c.png", "sub/b.jpg"], 1, 1)
    assert held.unreadable_paths == ["d.jpg"]
    assert reported == [(2, 4), (4, 4)]


def test_folders_without_photos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder: there is no folder"):
        embed_photos(embedding(), tmp_path / "missing")
    with pytest.raises(ValueError, match="holds no image files"):
        embed_photos(embedding(), tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"no photo")
    with pytest.raises(ValueError, match="folder: none of 1 files in"):
        embed_photos(embedding(), tmp_path)
    with pytest.raises(ValueError, match="none of 0 files"):
        embed_photos(embedding(), [])


def test_records_are_read_back_as_they_were_saved(tmp_path: Path) -> None:
    held = embeddings()
    found = load_embeddings(held.save(tmp_path / "new" / "photos.pt"))
    assert torch.equal(found.values, held.values)
    assert (found.paths, found.identity, repr(found)) == (held.paths, held.identity, repr(held))
    found.check(embedding())
    (tmp_path / "other.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cannot read .* photo embeddings"):
        load_embeddings(tmp_path / "other.pt")
    with pytest.raises(ValueError, match="there is no file"):
        load_embeddings(tmp_path / "missing.pt")


def test_vectors_and_names_must_fit() -> None:
    with pytest.raises(ValueError, match=r"values must be \(photos, D\) for 3 photos, got shape \(2, 4\)"):
        PhotoEmbeddings(torch.ones(2, 4), ["a", "b", "c"], identity={})
