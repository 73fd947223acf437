from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metric_cases_sets import LAYERS, activations, folder, network, path, pictures
from torch import Tensor

from featviz_pl.metrics import PathSimilarity, read_photos
from featviz_pl.metrics.path_similarity import mean_ranks

Numbers = np.ndarray[Any, Any]


def ranks(values: Numbers) -> Numbers:
    """Rank by counting, ties at their mean."""
    return np.array([(values < one).sum() + ((values == one).sum() - 1) / 2 for one in values])


def spearman(one: Numbers, other: Numbers) -> float:
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def cosine(one: Numbers, other: Numbers) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def by_hooks(shown: Tensor, layer: str) -> Numbers:
    """Return the activations (N, D) of the toy itself."""
    net, held = network().module.eval(), []
    net.get_submodule(layer).register_forward_hook(
        lambda _module, _inputs, result: held.append(result.detach().clone().numpy())
    )
    mean, std = (
        torch.tensor(constant, dtype=torch.float64).view(3, 1, 1) for constant in ([0.5, 0.4, 0.3], [0.2, 0.2, 0.25])
    )
    with torch.no_grad():
        net((shown.double() - mean) / std)
    found: Numbers = held[0].reshape(len(shown), -1)
    return found


def photos_of(target: str, k: int) -> tuple[Tensor, Tensor]:
    """Return the strongest photos, and others evenly spread over the rest."""
    order = np.argsort(-activations().of(target).numpy(), kind="stable")
    rest = order[k:]
    others = [rest[int((index + 0.5) * len(rest) / k)] for index in range(k)]
    shown = [
        next(read_photos([Path(folder(), activations().paths[index]) for index in chosen], 12))
        for chosen in (order[:k], others)
    ]
    return shown[0], shown[1]


@pytest.mark.parametrize(("measure", "similarity"), [("spearman", spearman), ("cosine", cosine)])
def test_values_are_similarities_between_those_of_photos_of_other_kinds_and_of_the_same(
    measure: str, similarity: Any
) -> None:
    shown, targets = pictures(3)[:, :, 1:13], ["features.5:4", "features.5:1", "features.5:4"]
    metric = PathSimilarity(network(), LAYERS, photos=activations(), folder=folder(), k=3, measure=measure)
    metric.update(shown, targets)
    found = metric.compute()
    for layer in LAYERS:
        gains, spans = [], []
        for picture, target in zip(by_hooks(shown, layer), targets):
            own, others = (by_hooks(part, layer) for part in photos_of(target, 3))
            same = np.mean([similarity(own[i], own[j]) for i in range(3) for j in range(i)])
            other = np.mean([similarity(one, two) for one in own for two in others])
            gains.append(np.mean([similarity(picture, one) for one in own]) - other)
            spans.append(same - other)
        assert found[layer].item() == pytest.approx(np.mean(gains) / np.mean(spans), rel=1e-6)


def test_photos_of_the_kind_are_near_1_and_the_others_at_0() -> None:
    own, others = photos_of("features.5:4", 3)
    for shown, expected in ((own, None), (others, 0.0)):
        metric = path()
        metric.update(shown, "features.5:4")
        for value in metric.compute().values():
            if expected is None:
                assert value.item() >= 1  # each is also compared with itself
            else:
                assert value.item() == pytest.approx(expected, abs=1e-9)


def test_layers_that_do_not_tell_the_kinds_apart_have_no_value() -> None:
    metric = path()
    metric.update(pictures(1), "features.5:4")
    metric.gains, metric.spans = [torch.ones(1, 2).double()], [torch.tensor([[0.5, -0.1]]).double()]
    metric._computed = None
    first, second = metric.compute().values()
    assert first == 2
    assert second.isnan()


def test_photos_of_a_target_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import featviz_pl.metrics.path_similarity as module

    reads: list[int] = []

    def counted(paths: Any, *others: Any, **options: Any) -> Any:
        reads.append(len(paths))
        return read_photos(paths, *others, **options)

    monkeypatch.setattr(module, "read_photos", counted)
    metric = path()
    for _ in range(2):
        metric.update(pictures(2), ["features.5:4", "features.5:1"])
    assert reads == [6, 6]


@pytest.mark.parametrize("values", [[0.5, 0.0, 0.0, 2.0], [1.0], [3.0, 3.0, 3.0], [2.0, -1.0, 5.0, 2.0, 2.0]])
def test_equal_values_have_the_mean_of_their_ranks(values: list[float]) -> None:
    np.testing.assert_array_equal(mean_ranks(torch.tensor(values)), ranks(np.array(values)))
