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


def record(**changes: Any) -> PhotoActivations:
    """Make up five photos; unit 0 has ties."""
    values = {
        "features.5": torch.tensor([[2.0, -1.0], [0.0, 5.0], [3.0, 2.0], [0.0, 4.0], [2.0, 3.0]]),
        "output": torch.tensor([[1.0, 0.0, 9.0], [2.0, 0.0, 8.0], [3.0, 0.0, 7.0], [4.0, 0.0, 6.0], [5.0, 0.0, 5.0]]),
    }
    arguments: dict[str, Any] = {
        "values": values,
        "paths": [f"{name}.png" for name in "abcde"],
        "network": "toy",
        "weights_hash": "0123",
        "size": (12, 10),
        "mean": [0.5],
        "std": (0.25,),
        "classes": ("fox", "wolf", "owl"),
        "enlarged": 2,
        "unreadable_paths": ["f.png"],
    }
    return PhotoActivations(**{**arguments, **changes})


def test_targets_are_units_and_classes() -> None:
    assert record().of("features.5:1").tolist() == [-1, 5, 2, 4, 3]
    assert record().of("output:owl").tolist() == record().of("output:2").tolist() == [9, 8, 7, 6, 5]


def test_percentiles_count_photos_below_and_half_of_those_equal() -> None:
    asked = torch.tensor([[-1.0, 0.0, 1.0], [2.0, 3.0, 4.0]])
    held = np.array([2.0, 0.0, 3.0, 0.0, 2.0])
    expected = [
        [100 * (np.sum(held < value) + np.sum(held == value) / 2) / 5 for value in row] for row in asked.tolist()
    ]
    found = record().percentile("features.5:0", asked)
    assert found.tolist() == expected == [[0, 20, 40], [60, 90, 100]]
    assert found.dtype == torch.float64
    assert record().percentile("features.5:0", 2.5).item() == 80
    assert record().percentile("features.5:0", torch.tensor([torch.nan])).isnan().all()
    assert record().percentile("features.5:0", torch.tensor([-torch.inf, torch.inf])).tolist() == [0, 100]


def test_the_strongest_and_the_weakest_come_in_order_and_equal_ones_as_they_stand() -> None:
    assert record().strongest("features.5:0", 3).tolist() == [2, 0, 4]
    assert record().weakest("features.5:0", 4).tolist() == [1, 3, 0, 4]
    assert record().strongest("output:fox", 5).tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda held: held.of("features.4:1"),
            "target: the photos were not measured at 'features.4'; did you mean 'features.5'",
        ),
        (lambda held: held.of("features.5:2"), "unit: 'features.5' has 2 units, 0 to 1; there is no 2"),
        (lambda held: held.of("output:wolv"), "class: unknown class 'wolv'; did you mean 'wolf'"),
        (lambda held: held.of("features.5"), "target: 'features.5' is no channel or class"),
        (lambda held: held.of("features.5:1@3,4"), "target: 'features.5:1@3,4' is no channel or class"),
        (lambda held: held.of("features.5:0,1"), "targets: 'features.5:0,1' names 2 units"),
        (lambda held: held.strongest("output:0", 0), "k must be at least 1"),
        (lambda held: held.weakest("output:0", 6), "k must be at most the number of photos, 5, got 6"),
        (lambda _: record(values={}), "values: there are none"),
        (
            lambda _: record(paths=["a.png"]),
            r"values: those of 'features.5' are \(5, 2\), not \(photos, units\) for 1 photos",
        ),
        (lambda _: record(values={"a": torch.full((5, 2), torch.nan)}), "values: 'a' gives NaN for 5 of 5 photos"),
        (lambda _: record(enlarged=-1), "enlarged must be at least 0"),
    ],
)
def test_what_is_not_held_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(record())


def test_another_network_is_refused() -> None:
    net = FrozenNetwork(toy(), mean=0.5, std=0.25, name="toy")
    held = record(weights_hash=net.weights_hash())
    held.check(net)
    held.check(FrozenNetwork(toy(), mean=0.5, std=0.25, name="the same by another name"))
    with pytest.raises(
        ValueError, match=r"photos: they were measured with 'toy' \(weights .*\), not with 'other' \(weights"
    ):
        held.check(FrozenNetwork(toy(seed=1), mean=0.5, std=0.25, name="other"))
    with pytest.raises(
        ValueError, match=r"measured with mean=\(0.5,\) and std=\(0.25,\), but the network has mean=\(0.4,\) and"
    ):
        held.check(FrozenNetwork(toy(), mean=0.4, std=0.25))


def same(first: PhotoActivations, second: PhotoActivations) -> bool:
    rest = [{name: value for name, value in vars(one).items() if name != "values"} for one in (first, second)]
    values = all(torch.equal(held, second.values[layer]) for layer, held in first.values.items())
    return rest[0] == rest[1] and first.layers == second.layers and values


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = record().save(tmp_path / "deep" / "own.pt")
    assert [one.name for one in path.parent.iterdir()] == ["own.pt"]
    assert same(load_activations(path), record())
    assert record().save(tmp_path / "again.pt").read_bytes() == path.read_bytes()
    plain = record(mean=None, std=None, classes=())
    assert same(load_activations(plain.save(path)), plain)


def test_copies_are_the_same_record() -> None:
    assert same(pickle.loads(pickle.dumps(record())), record())
    assert same(copy.deepcopy(record()), record())


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record().save(tmp_path / "own.pt")
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        record(network="other").save(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["own.pt"]


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(ValueError, match="path: there is no file"):
        load_activations(path)
    whole = record().save(path).read_bytes()
    for content in (b"", b"hello", whole[:500]):
        path.write_bytes(content)
        with pytest.raises(
            ValueError,
            match=r"cannot read .*; make photo activations of featviz_pl with featviz stats",
        ):
            load_activations(path)
    for other in (
        {"weight": torch.zeros(1)},
        [1, 2],
        torch.zeros(3),
        torch.nn.Linear(1, 1),
    ):  # reading the last would run code
        torch.save(other, path)
        with pytest.raises(ValueError, match=r"(holds no|make) photo activations of featviz_pl"):
            load_activations(path)


def test_other_versions_and_damaged_contents_are_refused(tmp_path: Path) -> None:
    path = record().save(tmp_path / "own.pt")
    content = torch.load(path, weights_only=True)
    torch.save({**content, "version": 2}, path)
    with pytest.raises(ValueError, match="version 2 of the format"):
        load_activations(path)
    for change in (
        {"size": [8, 8, 8]},
        {"paths": ["a"]},
        {"values": None},
        {"enlarged": -1},
        {"surplus": 1},
        {"values": {"a": 3}},
    ):
        torch.save({**content, **change}, path)
        with pytest.raises(ValueError, match=r"is damaged .*; make it again"):
            load_activations(path)
    del content["weights_hash"]
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"is damaged .*; make it again"):
        load_activations(path)
