from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from metric_cases_sets import activations, choice, embedding, embeddings, pictures, plain_choice, with_targets
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


def right_answers(margins: dict[int, float], strong: list[int], weak: list[int]) -> float:
    """Return the share of pairs of photos whose margins are in order, ties counted half."""
    differences = [margins[first] - margins[second] for first in strong for second in weak]
    return sum(1.0 if value > 0 else 0.5 if value == 0 else 0.0 for value in differences) / len(differences)


def expected_scores(vectors: Tensor, contrasts: Tensor, targets: list[str], k: int) -> list[float]:
    """Score vectors (N, D) against contrasts (N, D)."""
    photos = embeddings().values.double().numpy()
    scores = []
    for vector, contrast, target in zip(vectors.double().numpy(), contrasts.double().numpy(), targets):
        order = np.argsort(activations().of(target).numpy(), kind="stable").tolist()
        margins = {index: float(photos[index] @ vector) - float(photos[index] @ contrast) for index in order}
        scores.append(right_answers(margins, order[-k:], order[:k]))
    return scores


def means_of_other_targets(vectors: Tensor, vector_targets: list[str], targets: list[str]) -> Tensor:
    rows = [[vector for vector, name in zip(vectors, vector_targets) if name != target] for target in targets]
    return torch.stack([torch.stack(row).mean(0) for row in rows])


@pytest.mark.parametrize("k", [1, 4, 6])
def test_the_score_is_the_share_of_pairs_in_order(k: int) -> None:
    images, targets = with_targets(6)
    controls = embedding()(1 - pictures(5)).mean(0).expand(6, -1)
    metric = choice(k=k, reduction="none")
    metric.update(images, targets)
    assert metric.compute().tolist() == pytest.approx(expected_scores(embedding()(images), controls, targets, k))


def test_without_controls_the_other_pictures_are_the_controls() -> None:
    images, targets = with_targets(6)
    vectors = embedding()(images)
    metric = plain_choice(reduction="none")
    metric.update(images[:2], targets[:2])
    metric.update(images[2:], targets[2:])
    contrasts = means_of_other_targets(vectors, targets, targets)
    assert metric.compute().tolist() == pytest.approx(expected_scores(vectors, contrasts, targets, 4))
    assert metric.measure(images, targets).tolist() == metric.compute().tolist()
    single = plain_choice(reduction="none")
    single.update(pictures(2), "features.5:1")
    assert single.compute().isnan().all()  # no picture of another target yet
    single.update(pictures(3)[2:], "features.5:4")
    assert not single.compute().isnan().any()


def test_a_picture_among_the_controls_does_not_change_its_score() -> None:
    images, targets = pictures(5), [f"features.5:{index}" for index in range(5)]
    metrics = [plain_choice(), plain_choice(controls=images), plain_choice(controls=embedding()(images))]
    joint, batch, vectors = (metric.measure(images, targets).tolist() for metric in metrics)
    assert joint == batch == vectors


def test_controls_of_the_same_target_are_left_out() -> None:
    images, targets = with_targets(4)
    control_targets = ["features.5:1", "features.5:4", "output:2", "output:0"]
    metric = plain_choice(controls=1 - pictures(4), control_targets=control_targets)
    contrasts = means_of_other_targets(embedding()(1 - pictures(4)), control_targets, targets)
    scores = expected_scores(embedding()(images), contrasts, targets, 4)
    assert metric.measure(images, targets).tolist() == pytest.approx(scores)


def test_controls_may_be_files_of_any_size(tmp_path: Path) -> None:
    images = [as_saved(pictures(3)[index, :, : 14 - index]) for index in range(3)]
    paths = [str(save_png(image, tmp_path / f"{index}.png", {})) for index, image in enumerate(images)]
    vectors = torch.cat([embedding()(image[None]) for image in images])
    from_files, from_vectors = (
        plain_choice(controls=controls).measure(*with_targets(4)) for controls in (paths, vectors)
    )
    assert from_files.tolist() == from_vectors.tolist()


def test_opposites_replace_controls() -> None:
    images, targets = with_targets(3)
    scores = expected_scores(embedding()(images), embedding()(1 - images), targets, 4)
    for metric in (choice(reduction="none"), plain_choice(reduction="none")):
        metric.update(images, targets, 1 - images)
        assert metric.compute().tolist() == pytest.approx(scores)


def test_ties_count_half_and_few_photos_are_divided() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    by_mean = Embedding(Mean(), "output", size=2)
    red, green, blue = torch.eye(3)
    vectors = torch.stack([red, green, green, blue, green])
    photos = PhotoEmbeddings(vectors, list("abcde"), identity=by_mean.identity())
    values = {"layer": torch.arange(4.0, -1.0, -1.0)[:, None]}
    record = PhotoActivations(values, list("abcde"), network="any", weights_hash="", size=2)
    metric = ForcedChoice(record, photos, embedding=by_mean, k=20, controls=blue.view(1, 3, 1, 1).expand(1, 3, 2, 2))
    # Two of five photos on either side: strong red and green, weak green and blue. Green picture: margins 0, 1 against
    # 1, -1.
    assert metric.measure(green.view(1, 3, 1, 1).expand(1, 3, 2, 2), "layer:0").tolist() == [(0 + 1 + 0.5 + 1) / 4]


def test_photos_are_matched_by_path_whatever_their_order() -> None:
    record = embeddings()
    reversed_record = PhotoEmbeddings(record.values.flip(0), record.paths[::-1], identity=record.identity)
    metric = ForcedChoice(activations(), reversed_record, embedding=embedding(), k=4, controls=1 - pictures(5))
    assert metric.measure(*with_targets(6)).tolist() == choice().measure(*with_targets(6)).tolist()
    fewer = PhotoEmbeddings(record.values[1:], record.paths[1:], identity=record.identity)
    with pytest.raises(ValueError, match=r"their 11 photos must be the 12 .* '00.png' is not once in both"):
        ForcedChoice(activations(), fewer, embedding=embedding())


def test_of_one_photo_there_is_no_choice() -> None:
    single = PhotoActivations({"features.5": torch.ones(1, 8)}, ["00.png"], network="toy", weights_hash="", size=12)
    with pytest.raises(ValueError, match=r"^activations: of one photo; a choice needs two or more"):
        ForcedChoice(single, embeddings(), embedding=embedding())


def test_records_may_be_in_files(tmp_path: Path) -> None:
    paths = [str(activations().save(tmp_path / "a.pt")), str(embeddings().save(tmp_path / "b.pt"))]
    metric = ForcedChoice(paths[0], paths[1], embedding=embedding(), k=4, controls=1 - pictures(5))
    assert metric.measure(*with_targets(6)).tolist() == choice().measure(*with_targets(6)).tolist()
    assert repr(metric).startswith(f"ForcedChoice({paths[0]!r}, {paths[1]!r}, embedding=Embedding(<toy>, ")


@pytest.mark.slow
@needs_shared
def test_pictures_predict_the_photos_of_their_unit_and_not_those_of_others() -> None:
    network = load_network("squeezenet1_0", SHARED / "weights" / "squeezenet1_0.pth")
    folder = SHARED / "data" / "imagenet-samples"
    units = [3, 33, 77, 120, 200, 260, 350, 380]
    result = fv.render(network, "features.9:" + ",".join(map(str, units)), steps=32, size=80, lr=0.1)
    record = measure_activations(network, folder, "features.9", size=80, limit=200)
    photos = embed_photos(Embedding(size=80), folder, limit=200)
    vectors = Embedding(size=80)(result.images)
    scores: dict[bool, list[float]] = {True: [], False: []}
    for index, unit in enumerate(units):
        for target in units:
            controls = vectors[[row for row, name in enumerate(units) if name not in (unit, target)]]
            metric = ForcedChoice(record, photos, embedding=Embedding(size=80), k=10, controls=controls)
            value = float(metric.measure(result.images[index : index + 1], f"features.9:{target}"))
            scores[unit == target].append(value)
    assert np.mean(scores[True]) > 0.7
    assert abs(np.mean(scores[False]) - 0.5) < 0.05
