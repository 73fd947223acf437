from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from metric_cases_sets import activations, choice, embedding, embeddings, pictures, with_targets
from torch import Tensor, nn
from toys import SHARED, needs_shared

import featviz_pl as fv
from featviz_pl.io import as_saved, save_png
from featviz_pl.metrics import (
    Embedding,
    ForcedChoice,
    PhotoActivations,
    PhotoEmbeddings,
    embed_photos,
    measure_activations,
)
from featviz_pl.networks import load_network


def share_right(margins: dict[int, float], strong: list[int], weak: list[int]) -> float:
    """Ask every pair of photos, one by one."""
    answers = [
        1.0 if margins[s] > margins[w] else 0.5 if margins[s] == margins[w] else 0.0 for s in strong for w in weak
    ]
    return sum(answers) / len(answers)


def expected(shown: Tensor, contrasts: Tensor, targets: list[str], k: int) -> list[float]:
    """Score vectors (N, D) against contrasts (N, D)."""
    photos = embeddings().values.double().numpy()
    found = []
    for vector, contrast, target in zip(shown.double().numpy(), contrasts.double().numpy(), targets):
        order = np.argsort(activations().of(target).numpy(), kind="stable").tolist()
        margins = {index: float(photos[index] @ vector) - float(photos[index] @ contrast) for index in order}
        found.append(share_right(margins, order[-k:], order[:k]))
    return found


def mean_of_others(vectors: Tensor, targets: list[str]) -> Tensor:
    rows = [[vectors[j] for j in range(len(targets)) if targets[j] != target] for target in targets]
    return torch.stack([torch.stack(row).mean(0) for row in rows])


@pytest.mark.parametrize("k", [1, 4, 6])
def test_the_score_is_the_share_of_pairs_told_apart(k: int) -> None:
    shown, targets = with_targets(6)
    vectors = embedding()(shown)
    controls = embedding()(1 - pictures(5)).mean(0).expand(6, -1)
    metric = ForcedChoice(
        activations(), embeddings(), embedding=embedding(), k=k, controls=1 - pictures(5), reduction="none"
    )
    metric.update(shown, targets)
    assert metric.compute().tolist() == pytest.approx(expected(vectors, controls, targets, k))


def test_without_controls_the_other_pictures_are_those() -> None:
    shown, targets = with_targets(6)
    vectors = embedding()(shown)
    metric = ForcedChoice(activations(), embeddings(), embedding=embedding(), k=4, reduction="none")
    metric.update(shown[:2], targets[:2])
    metric.update(shown[2:], targets[2:])
    assert metric.compute().tolist() == pytest.approx(expected(vectors, mean_of_others(vectors, targets), targets, 4))
    assert metric.measure(shown, targets).tolist() == metric.compute().tolist()


def test_a_picture_among_the_controls_does_not_change_its_answers() -> None:
    shown = pictures(5)
    targets = [f"features.5:{index}" for index in range(5)]
    joint = ForcedChoice(activations(), embeddings(), embedding=embedding(), k=4).measure(shown, targets)
    given = ForcedChoice(activations(), embeddings(), embedding=embedding(), k=4, controls=shown).measure(
        shown, targets
    )
    vectors = ForcedChoice(
        activations(), embeddings(), embedding=embedding(), k=4, controls=embedding()(shown)
    ).measure(shown, targets)
    assert joint.tolist() == given.tolist() == vectors.tolist()


def test_controls_of_the_own_target_are_left_out() -> None:
    shown, targets = with_targets(4)
    others = ["features.5:1", "features.5:4", "output:2", "output:0"]
    controls = embedding()(1 - pictures(4))
    metric = ForcedChoice(
        activations(), embeddings(), embedding=embedding(), k=4, controls=1 - pictures(4), control_targets=others
    )
    rows = [
        torch.stack([vector for vector, other in zip(controls, others) if other != target]).mean(0)
        for target in targets
    ]
    found = metric.measure(shown, targets).tolist()
    assert found == pytest.approx(expected(embedding()(shown), torch.stack(rows), targets, 4))


def test_controls_may_be_files_of_any_size(tmp_path: Path) -> None:
    shown = [as_saved(pictures(3)[index, :, : 14 - index]) for index in range(3)]
    paths = [str(save_png(picture, tmp_path / f"{index}.png", {})) for index, picture in enumerate(shown)]
    vectors = torch.cat([embedding()(picture[None]) for picture in shown])
    made = [
        ForcedChoice(activations(), embeddings(), embedding=embedding(), k=4, controls=given)
        for given in (paths, vectors)
    ]
    found = [metric.measure(*with_targets(4)).tolist() for metric in made]
    assert found[0] == found[1]


def test_opposites_take_the_place_of_controls() -> None:
    shown, targets = with_targets(3)
    wanted = expected(embedding()(shown), embedding()(1 - shown), targets, 4)
    for metric in (
        choice(reduction="none"),
        ForcedChoice(activations(), embeddings(), embedding=embedding(), k=4, reduction="none"),
    ):
        metric.update(shown, targets, 1 - shown)
        assert metric.compute().tolist() == pytest.approx(wanted)


def test_a_picture_without_controls_has_no_score() -> None:
    metric = ForcedChoice(activations(), embeddings(), embedding=embedding(), reduction="none")
    metric.update(pictures(2), "features.5:1")
    assert metric.compute().isnan().all()
    metric.update(pictures(3)[2:], "features.5:4")
    assert not metric.compute().isnan().any()


def test_ties_count_half_and_few_photos_are_shared_out() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    by_mean = Embedding(Mean(), "output", size=2)
    red, green, blue = torch.eye(3)
    photos = PhotoEmbeddings(torch.stack([red, green, green, blue, green]), list("abcde"), identity=by_mean.identity())
    held = PhotoActivations(
        {"layer": torch.tensor([[4.0], [3.0], [2.0], [1.0], [0.0]])},
        list("abcde"),
        network="any",
        weights_hash="",
        size=2,
    )
    metric = ForcedChoice(held, photos, embedding=by_mean, k=20, controls=blue.view(1, 3, 1, 1).expand(1, 3, 2, 2))
    # Two of five photos on either side: strong red and green, weak green and blue. Green picture: margins 0, 1 against
    # 1, -1.
    assert metric.measure(green.view(1, 3, 1, 1).expand(1, 3, 2, 2), "layer:0").tolist() == [(0 + 1 + 0.5 + 1) / 4]


def test_photos_are_matched_by_path_whatever_their_order() -> None:
    held = embeddings()
    turned = PhotoEmbeddings(held.values.flip(0), held.paths[::-1], identity=held.identity)
    made = ForcedChoice(activations(), turned, embedding=embedding(), k=4, controls=1 - pictures(5))
    assert made.measure(*with_targets(6)).tolist() == choice().measure(*with_targets(6)).tolist()
    fewer = PhotoEmbeddings(held.values[1:], held.paths[1:], identity=held.identity)
    with pytest.raises(
        ValueError,
        match=r"their 11 photos must be the 12 of the activations, by relative path; '00.png' is not once in both; measure both on one folder",
    ):
        ForcedChoice(activations(), fewer, embedding=embedding())


def test_of_one_photo_there_is_no_choice() -> None:
    one = PhotoActivations({"features.5": torch.ones(1, 8)}, ["00.png"], network="toy", weights_hash="", size=12)
    with pytest.raises(ValueError, match=r"^activations: of one photo; a choice needs two or more"):
        ForcedChoice(
            one,
            PhotoEmbeddings(embeddings().values[:1], ["00.png"], identity=embeddings().identity),
            embedding=embedding(),
        )


def test_records_may_be_in_files(tmp_path: Path) -> None:
    paths = [str(activations().save(tmp_path / "a.pt")), str(embeddings().save(tmp_path / "b.pt"))]
    made = ForcedChoice(paths[0], paths[1], embedding=embedding(), k=4, controls=1 - pictures(5))
    assert made.measure(*with_targets(6)).tolist() == choice().measure(*with_targets(6)).tolist()
    assert repr(made).startswith(f"ForcedChoice({paths[0]!r}, {paths[1]!r}, embedding=Embedding(<toy>, ")


@needs_shared
def test_pictures_tell_photos_of_their_own_unit_apart_and_not_those_of_others() -> None:
    network = load_network("squeezenet1_0", SHARED / "weights" / "squeezenet1_0.pth")
    folder = SHARED / "data" / "imagenet-samples"
    units = [3, 33, 77, 120, 200, 260, 350, 380]
    result = fv.render(network, "features.9:" + ",".join(map(str, units)), steps=32, size=80, lr=0.1)
    held = measure_activations(network, folder, "features.9", size=80, limit=200)
    compared = Embedding(size=80)
    photos = embed_photos(compared, folder, limit=200)
    vectors = compared(result.images)
    own: list[float] = []
    others: list[float] = []
    for place, unit in enumerate(units):
        for asked in units:
            controls = vectors[[row for row, other in enumerate(units) if other not in (unit, asked)]]
            metric = ForcedChoice(held, photos, embedding=compared, k=10, controls=controls)
            value = float(metric.measure(result.images[place : place + 1], f"features.9:{asked}"))
            (own if asked == unit else others).append(value)
    assert np.mean(own) > 0.7
    assert abs(np.mean(others) - 0.5) < 0.05
