from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metric_cases_sets import LAYERS, activations, network, path, photo_folder, pictures
from torch import Tensor

from featviz_pl.metrics import read_photos
from featviz_pl.metrics.path_similarity import mean_ranks

Numbers = np.ndarray[Any, Any]


def ranks(values: Numbers) -> Numbers:
    """Rank by counting, ties at their mean."""
    return np.array([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])


def spearman(first: Numbers, second: Numbers) -> float:
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def cosine(first: Numbers, second: Numbers) -> float:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def by_hooks(images: Tensor, layer: str) -> Numbers:
    """Return the activations (N, D) of the toy, without the library."""
    module, outputs = network().module.eval(), []
    module.get_submodule(layer).register_forward_hook(lambda _m, _i, output: outputs.append(output.detach().numpy()))
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in ([0.5, 0.4, 0.3], [0.2, 0.2, 0.25]))
    with torch.no_grad():
        module((images.double() - mean) / std)
    activation: Numbers = outputs[0].reshape(len(images), -1).copy()
    return activation


def photos_of(target: str, k: int) -> tuple[Tensor, Tensor]:
    """Return the strongest photos, and others evenly spread over the remaining ones."""
    order = np.argsort(-activations().of(target).numpy(), kind="stable")
    spread = [order[k:][int((index + 0.5) * len(order[k:]) / k)] for index in range(k)]
    paths = [[Path(photo_folder(), activations().paths[index]) for index in part] for part in (order[:k], spread)]
    strongest, others = (next(read_photos(part, 12)) for part in paths)
    return strongest, others


@pytest.mark.parametrize(("measure", "similarity"), [("spearman", spearman), ("cosine", cosine)])
def test_values_lie_between_the_similarities_of_other_photos_and_of_the_strongest(
    measure: str, similarity: Any
) -> None:
    images, targets = pictures(3)[:, :, 1:13], ["features.5:4", "features.5:1", "features.5:4"]
    metric = path(measure=measure)
    metric.update(images, targets)
    result = metric.compute()
    for layer in LAYERS:
        gains, spans = [], []
        for picture, target in zip(by_hooks(images, layer), targets):
            strongest, others = (by_hooks(part, layer) for part in photos_of(target, 3))
            within = np.mean([similarity(strongest[i], strongest[j]) for i in range(3) for j in range(i)])
            between = np.mean([similarity(first, second) for first in strongest for second in others])
            gains.append(np.mean([similarity(picture, photo) for photo in strongest]) - between)
            spans.append(within - between)
        assert result[layer].item() == pytest.approx(np.mean(gains) / np.mean(spans), rel=1e-6)


def test_the_strongest_photos_are_near_1_and_the_others_at_0() -> None:
    strongest, others = (path() for _ in range(2))
    for metric, photos in zip((strongest, others), photos_of("features.5:4", 3)):
        metric.update(photos, "features.5:4")
    assert all(value.item() >= 1 for value in strongest.compute().values())  # each is also compared with itself
    assert [value.item() for value in others.compute().values()] == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric .* was called before:UserWarning")
def test_layers_that_do_not_separate_the_photos_have_no_value() -> None:
    metric = path()
    metric.append(gains=torch.ones(1, 2).double(), spans=torch.tensor([[0.5, -0.1]]).double())
    first, second = metric.compute().values()
    assert first == 2
    assert second.isnan()


def test_photos_of_a_target_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    def counted(paths: Any, *arguments: Any, **options: Any) -> Any:
        reads.append(len(paths))
        return read_photos(paths, *arguments, **options)

    monkeypatch.setattr("featviz_pl.metrics.path_similarity.read_photos", counted)
    metric = path()
    for _ in range(2):
        metric.update(pictures(2), ["features.5:4", "features.5:1"])
    assert reads == [6, 6]


@pytest.mark.parametrize("values", [[0.5, 0.0, 0.0, 2.0], [1.0], [3.0, 3.0, 3.0], [2.0, -1.0, 5.0, 2.0, 2.0]])
def test_equal_values_have_the_mean_of_their_ranks(values: list[float]) -> None:
    np.testing.assert_array_equal(mean_ranks(torch.tensor(values)), ranks(np.array(values)))
