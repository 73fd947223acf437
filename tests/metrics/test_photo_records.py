from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import toy

from featviz_pl.metrics import PhotoActivations, load_activations
from featviz_pl.networks import FrozenNetwork

VALUES = {
    "features.5": torch.tensor([[2.0, -1.0], [0.0, 5.0], [3.0, 2.0], [0.0, 4.0], [2.0, 3.0]]),  # unit 0 has ties
    "output": torch.tensor([[1.0, 0.0, 9.0], [2.0, 0.0, 8.0], [3.0, 0.0, 7.0], [4.0, 0.0, 6.0], [5.0, 0.0, 5.0]]),
}


def record(**changes: Any) -> PhotoActivations:
    """Invent the activations of five photos."""
    arguments: dict[str, Any] = {"values": VALUES, "paths": [f"{name}.png" for name in "abcde"], "network": "toy"}
    arguments |= {"weights_hash": "0123", "size": (12, 10), "mean": [0.5], "std": (0.25,)}
    arguments |= {"classes": ("fox", "wolf", "owl"), "enlarged": 2, "unreadable_paths": ["f.png"]}
    return PhotoActivations(**{**arguments, **changes})


def test_targets_are_units_and_classes() -> None:
    assert record().of("features.5:1").tolist() == [-1, 5, 2, 4, 3]
    assert record().of("output:owl").tolist() == record().of("output:2").tolist() == [9, 8, 7, 6, 5]


def test_percentiles_count_photos_below_and_half_of_those_equal() -> None:
    queries = torch.tensor([[-1.0, 0.0, 1.0], [2.0, 3.0, 4.0]])
    scores = np.array([2.0, 0.0, 3.0, 0.0, 2.0])
    expected = [[20 * (np.sum(scores < v) + np.sum(scores == v) / 2) for v in row] for row in queries.tolist()]
    result = record().percentile("features.5:0", queries)
    assert result.tolist() == expected == [[0, 20, 40], [60, 90, 100]]
    assert result.dtype == torch.float64
    assert record().percentile("features.5:0", 2.5).item() == 80
    assert record().percentile("features.5:0", torch.tensor([torch.nan])).isnan().all()
    assert record().percentile("features.5:0", torch.tensor([-torch.inf, torch.inf])).tolist() == [0, 100]


def test_the_strongest_and_the_weakest_are_sorted_with_ties_in_the_order_of_the_photos() -> None:
    assert record().strongest("features.5:0", 3).tolist() == [2, 0, 4]
    assert record().weakest("features.5:0", 4).tolist() == [1, 3, 0, 4]
    assert record().strongest("output:fox", 5).tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: record().of("features.4:1"), "not measured at 'features.4'; did you mean 'features.5'"),
        (lambda: record().of("features.5:2"), "unit: 'features.5' has 2 units, 0 to 1; there is no 2"),
        (lambda: record().of("output:wolv"), "class: unknown class 'wolv'; did you mean 'wolf'"),
        (lambda: record().of("features.5"), "target: 'features.5' is no channel or class"),
        (lambda: record().of("features.5:1@3,4"), "target: 'features.5:1@3,4' is no channel or class"),
        (lambda: record().of("features.5:0,1"), "targets: 'features.5:0,1' names 2 units"),
        (lambda: record().strongest("output:0", 0), "k must be at least 1"),
        (lambda: record().weakest("output:0", 6), "k must be at most the number of photos, 5, got 6"),
        (lambda: record(values={}), "values: there are none"),
        (lambda: record(paths=["a.png"]), r"those of 'features.5' are \(5, 2\), not \(photos, units\) for 1 photos"),
        (lambda: record(values={"a": torch.full((5, 2), torch.nan)}), "values: 'a' gives NaN for 5 of 5 photos"),
        (lambda: record(enlarged=-1), "enlarged must be at least 0"),
    ],
)
def test_mistakes_are_explained(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_another_network_is_refused() -> None:
    photos = record(weights_hash=FrozenNetwork(toy()).weights_hash())
    photos.check(FrozenNetwork(toy(), mean=0.5, std=0.25, name="the same by another name"))
    with pytest.raises(ValueError, match=r"photos: they were measured with 'toy' \(weights .*\), not with 'other' \(w"):
        photos.check(FrozenNetwork(toy(seed=1), mean=0.5, std=0.25, name="other"))
    with pytest.raises(ValueError, match=r"mean=\(0.5,\) and std=\(0.25,\), but the network has mean=\(0.4,\) and"):
        photos.check(FrozenNetwork(toy(), mean=0.4, std=0.25))


def equal(first: PhotoActivations, second: PhotoActivations) -> bool:
    fields = [{key: value for key, value in vars(photos).items() if key != "values"} for photos in (first, second)]
    values = all(torch.equal(scores, second.values[layer]) for layer, scores in first.values.items())
    return fields[0] == fields[1] and first.layers == second.layers and values


def test_files_and_copies_restore_the_record(tmp_path: Path) -> None:
    path = record().save(tmp_path / "deep" / "photos.pt")
    assert [file.name for file in path.parent.iterdir()] == ["photos.pt"]
    assert equal(load_activations(path), record())
    assert record().save(tmp_path / "again.pt").read_bytes() == path.read_bytes()
    plain = record(mean=None, std=None, classes=())
    assert equal(load_activations(plain.save(path)), plain)
    assert equal(pickle.loads(pickle.dumps(record())), record())
    assert equal(copy.deepcopy(record()), record())


def test_a_failed_write_leaves_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record().save(tmp_path / "photos.pt")
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        record(network="other").save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["photos.pt"]


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(ValueError, match="path: there is no file"):
        load_activations(path)
    content = record().save(path).read_bytes()
    for data in (b"", b"hello", content[:500]):
        path.write_bytes(data)
        with pytest.raises(
            ValueError, match=r"cannot read .*; make photo activations of featviz_pl with featviz stats"
        ):
            load_activations(path)
    values: list[Any] = [{"weight": torch.zeros(1)}, [1, 2], torch.zeros(3)]
    for value in [*values, torch.nn.Linear(1, 1)]:  # reading the last would run code
        torch.save(value, path)
        with pytest.raises(ValueError, match=r"(holds no|make) photo activations of featviz_pl"):
            load_activations(path)


CHANGES: list[dict[str, Any]] = [
    *({"size": [8, 8, 8]}, {"paths": ["a"]}, {"values": None}, {"enlarged": -1}, {"surplus": 1}, {"values": {"a": 3}}),
]


def test_other_versions_and_damaged_contents_are_refused(tmp_path: Path) -> None:
    path = record().save(tmp_path / "photos.pt")
    content = torch.load(path, weights_only=True)
    torch.save({**content, "version": 2}, path)
    with pytest.raises(ValueError, match="version 2 of the format"):
        load_activations(path)
    without = {key: value for key, value in content.items() if key != "weights_hash"}
    for damaged in [without, *({**content, **change} for change in CHANGES)]:
        torch.save(damaged, path)
        with pytest.raises(ValueError, match=r"is damaged .*; make it again"):
            load_activations(path)
    torch.save({**content, "unreadable": 1}, path)  # as files of earlier versions have it
    assert load_activations(path).unreadable == 1
