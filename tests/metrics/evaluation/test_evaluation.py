"""The table of an evaluation: the right value in the right row, for pictures of all kinds and origins."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluated import ALWAYS, make_photos, named, noise, save, toy_score
from metric_cases_transfer import color_judge
from torch import nn
from toys import toy

from featviz_pl import metrics
from featviz_pl.io import read_picture, save_png
from featviz_pl.metrics import Evaluation, evaluate
from featviz_pl.networks import FrozenNetwork

CLASSES = ("red", "green", "blue", "b", "c")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


# Values.


def test_every_value_is_that_of_its_metric_in_the_row_of_its_picture() -> None:
    """Sizes differ, so the metrics get the pictures in another order than the table has."""
    pictures = [noise(1)[0], noise(1, 64, 64, seed=1)[0], noise(2, seed=2)[0], noise(1, 64, 64, seed=3)[0]]
    targets = ["features.5:1", "features.2:3", "features.5:4", "features.5:1"]
    result = evaluate(pictures, toy(), targets, views=3)
    assert result.columns == ALWAYS
    columns: dict[str, Any] = {
        "score": metrics.Activation(toy()),
        "held_out": metrics.HeldOutActivation(toy(), 3),
        "slope": metrics.SpectrumSlope(),
        "clipped": metrics.ClippedShare(),
        "color_distance": metrics.ColorDistance(),
        "variation": metrics.VariationPerPixel(),
        "high_frequency": metrics.HighFrequencyShare(),
    }
    for index, (row, picture, target) in enumerate(zip(result.rows, pictures, targets)):
        assert (row["picture"], row["target"]) == (str(index), target)
        for name, metric in columns.items():
            metric.reset()
            metric.update(picture[None], *([[target]] if name in ("score", "held_out") else []))
            assert row[name] == pytest.approx(float(metric.compute()), rel=1e-5, abs=1e-7), name
    assert result.rows[0]["score"] == pytest.approx(toy_score(pictures[0], 1), rel=1e-4)
    assert len({row["slope"] for row in result.rows}) == 4
    assert result.settings["views"] == 3


def test_the_summary_has_the_mean_of_each_column_and_the_values_of_the_set() -> None:
    pictures, targets = noise(4), ["features.5:1", "features.5:1", "features.5:2", "features.5:2"]
    result = evaluate(pictures, toy(), targets, views=1)
    for name in ALWAYS[4:]:
        assert result.summary[name] == pytest.approx(sum(row[name] for row in result.rows) / 4)
    expected: dict[str, Any] = {"pairwise_distance": metrics.PairwiseDistance(), "vendi": metrics.VendiScore()}
    for metric in expected.values():
        metric.update(pictures)
    expected["agreement"] = metrics.Agreement()
    expected["agreement"].update(pictures, targets)
    assert list(result.summary)[len(ALWAYS) - 2 :] == list(expected)
    for name, metric in expected.items():
        assert result.summary[name] == pytest.approx(float(metric.compute()), rel=1e-5)


def test_scores_have_a_mean_only_where_all_pictures_are_of_one_target() -> None:
    """Units differ in scale, so a mean over them is meaningless."""
    single = evaluate(noise(2), toy(), "features.5:1", views=1)
    for name in ("score", "held_out"):
        assert single.summary[name] == pytest.approx(sum(row[name] for row in single.rows) / 2)
    several = evaluate(noise(2), toy(), ["features.5:1", "features.5:2"], views=1)
    assert (several.summary["score"], several.summary["held_out"]) == (None, None)
    mean = next(line.split() for line in several.table().splitlines() if line.startswith("mean"))
    assert mean[1:3] == ["-", "-"]
    assert float(mean[3]) == pytest.approx(several.summary["slope"], rel=1e-3)
    by_name_and_index = evaluate(noise(2), named(CLASSES), ["output:red", "output:0"], views=1)
    assert by_name_and_index.summary["score"] is not None


def test_one_picture_is_no_set_and_different_targets_need_not_agree() -> None:
    assert list(evaluate(noise(1), toy(), "features.5:1", views=1).summary) == ALWAYS[2:]
    assert "agreement" not in evaluate(noise(2), toy(), ["features.5:1", "features.5:2"], views=1).summary


def test_transparent_pictures_are_measured_on_grey(tmp_path: Path) -> None:
    picture, opacity = noise(1)[0], noise(1, channels=1, seed=4)[0]
    on_grey = picture * opacity + 0.5 * (1 - opacity)
    path = save(tmp_path / "a.png", torch.cat([picture, opacity]))
    for pictures in (torch.cat([picture, opacity])[None], path):
        [row] = evaluate(pictures, toy(), "features.5:1", views=1).rows
        assert row["score"] == pytest.approx(toy_score(on_grey, 1), rel=1e-4)
        clipped = float(((on_grey < 1.5 / 255) | (on_grey > 253.5 / 255)).float().mean())
        assert row["clipped"] == pytest.approx(clipped, abs=1e-6)


def test_a_metric_that_cannot_measure_a_picture_is_skipped_with_a_note() -> None:
    result = evaluate([noise(1, 20, 40)[0], noise(1)[0]], toy(), "features.5:1", views=1)
    assert result.rows[0]["slope"] is None
    assert result.rows[0]["variation"] is not None
    assert result.summary["slope"] == result.rows[1]["slope"]
    [note] = result.notes
    assert note.startswith("0: slope was not measured: pictures: 20 x 40 pixels are too few")
    grey = evaluate(noise(2, channels=1), nn.Conv2d(1, 4, 3), "output:1", views=1)
    assert [row["color_distance"] for row in grey.rows] == [None, None]
    assert grey.rows[0]["slope"] is not None
    assert grey.summary["color_distance"] is None
    assert {"pairwise_distance", "vendi"} < set(grey.summary)
    many = evaluate(noise(2, channels=7), nn.Conv2d(7, 4, 3), "output:1", views=1)
    assert many.rows[0]["score"] is not None
    assert "vendi" not in many.summary


# Files.


def test_files_have_targets_which_can_be_replaced(tmp_path: Path) -> None:
    names, images = ["features.5:4", "features.5:6"], [noise(1)[0], noise(1, 64, 32, seed=1)[0]]
    paths = [save(tmp_path / f"{index}.png", images[index], names[index]) for index in range(2)]
    rows = evaluate(paths, toy(), views=1).rows
    assert [(row["picture"], row["target"]) for row in rows] == list(zip(map(str, paths), names))
    for path, row, unit in zip(paths, rows, (4, 6)):
        assert row["score"] == pytest.approx(toy_score(read_picture(path), unit), rel=1e-4)
    targets = ["features.0:1", "features.5:2"]
    assert [row["target"] for row in evaluate(paths, toy(), targets, views=1).rows] == targets
    assert [row["target"] for row in evaluate(paths, toy(), "features.0:1", views=1).rows] == ["features.0:1"] * 2
    mixed = evaluate([noise(2), str(paths[0]), noise(1)[0]], toy(), "features.5:1", views=1)
    assert [row["picture"] for row in mixed.rows] == ["0", "1", str(paths[0]), "3"]


def test_the_folder_of_a_sweep_is_measured_without_its_sheets_in_the_order_of_the_units(tmp_path: Path) -> None:
    for unit in (10, 9, 0):
        save(tmp_path / "features.5" / f"{unit}.png", noise(1, seed=unit)[0], f"features.5:{unit % 8}")
    sheet = {"target": "features.5", "network": "ToyNet", "batch_size": 4}  # of a layer: without an objective
    save_png(noise(1, 90, 90)[0], tmp_path / "features.5.png", sheet)
    save(tmp_path / "final.png", noise(1, 90, 90)[0], ["features.5:1", "features.5:2"])  # as by `ImageSnapshot`
    (tmp_path / "manifest.jsonl").write_text("{}\n")
    (tmp_path / ".half.png").write_bytes(b"")
    expected = [str(tmp_path / "features.5" / f"{unit}.png") for unit in (0, 9, 10)]
    result = evaluate(tmp_path, toy(), views=1)
    assert [row["picture"] for row in result.rows] == expected
    [note] = result.notes
    assert "final.png left out: a sheet of several pictures" in note
    expanded = sorted(path for path in tmp_path.iterdir() if not path.name.startswith("."))  # as a shell expands *
    assert [row["picture"] for row in evaluate(expanded, toy(), views=1).rows] == expected


def with_nan() -> torch.Tensor:
    pictures = noise(3)
    pictures[1, 0, 0, 0] = torch.nan
    return pictures


TARGET = {"targets": "features.5:1"}
MISTAKES: list[tuple[Any, dict[str, Any], str]] = [
    ("plain.png", {}, r"the file '.*plain\.png' does not say what it shows; give its target.*--target"),
    (noise(1), {}, "the tensor '0' does not say what it shows"),
    ("none.png", {}, r"cannot read a picture from '.*none\.png'"),
    ("text.png", {}, r"cannot read a picture from '.*text\.png'"),
    ([], {}, "pictures: there are none"),
    ([np.zeros((3, 4, 4))], TARGET, r"pictures must be tensors .* or paths, got ndarray"),
    (with_nan(), TARGET, "^1: pictures: NaN"),
    (2 * noise(1), TARGET, r"^0: pictures must lie in \[0, 1\]"),
    ("empty", {}, "the folder '.*empty' holds no PNG files"),
    ("sheet.png", {}, r"pictures: .*sheet\.png left out: a sheet of several pictures"),
    (noise(3), {"targets": ["features.5:1"] * 2}, "targets: 2 do not fit 3 pictures; give one for all"),
    (noise(1), {"targets": "features.55:1"}, "no layer 'features.55'; did you mean 'features.5'"),
    (noise(1), {"targets": "features.5:8"}, "'features.5' has 8 units, 0 to 7; there is no 8"),
    (noise(1), {"targets": "features.5:1,2"}, "names 2 units"),
    (noise(1), {"targets": "features.5:a:b"}, "0: target: 'features.5:a:b' does not parse"),
    (noise(1, channels=1), TARGET, "pictures: 1 channels do not fit the network, which takes 3"),
    (noise(1)[0, 0], TARGET, r"must be \(N, C, H, W\) or \(C, H, W\), got shape \(40, 48\)"),
    (noise(1), {**TARGET, "views": 0}, "views must be at least 1"),
    (noise(1), {**TARGET, "photos": "empty"}, "'.*empty' holds no image files"),
    (noise(1), {**TARGET, "photos": "nowhere"}, "^photos: there is no folder '.*nowhere'"),
    (noise(1), {**TARGET, "photos": "broken"}, "^photos: none of 2 files in 'broken' can be read"),
    (noise(1), {"targets": "features.5", "photos": "broken"}, "^photos: none of 2 files in"),
    (noise(1), {**TARGET, "photos": "text.png"}, r"^photos: cannot read 'text\.png'"),
    (noise(1), {**TARGET, "activations": "nowhere.pt"}, r"^activations: there is no file 'nowhere\.pt'"),
    (noise(1), {**TARGET, "activations": "text.png"}, r"^activations: cannot read 'text\.png"),
]


@pytest.mark.parametrize(("pictures", "arguments", "message"), MISTAKES, ids=[mistake[2][:40] for mistake in MISTAKES])
def test_mistakes_are_explained(
    pictures: Any, arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_png(noise(1)[0], "plain.png")
    save_png(noise(1)[0], "sheet.png", {"target": ["a:1", "a:2"]})
    Path("text.png").write_text("words")
    Path("empty").mkdir()
    Path("broken").mkdir()
    for index in range(2):
        Path(f"broken/{index}.jpg").write_text("words")
    with pytest.raises((ValueError, TypeError), match=message):
        evaluate(pictures, toy(), **arguments)


def test_pictures_of_other_weights_are_measured_with_a_note(tmp_path: Path) -> None:
    weights = {"a": FrozenNetwork(toy()).weights_hash(), "b": "0123"}
    paths = [save(tmp_path / f"{name}.png", noise(1)[0], weights=value) for name, value in weights.items()]
    result = evaluate(paths, toy(), views=1)
    [note] = result.notes
    assert "b.png: made with other weights (ToyNet) than those of 'ToyNet' here" in note
    assert "a.png" not in note
    assert result.rows[0]["score"] == result.rows[1]["score"]


@pytest.mark.parametrize(
    ("target", "objective"),
    [
        ("features.5:1 & features.5:2", "Channel('features.5', 1) + Channel('features.5', 2)"),
        ("output:Direction-0a1b", "Direction('output', …)"),
    ],
)
def test_a_file_of_an_objective_without_shorthand_has_no_activation(
    target: str, objective: str, tmp_path: Path, photos: Path
) -> None:
    path = save(tmp_path / "a.png", noise(1)[0], target, objective=objective)
    result = evaluate([path, save(tmp_path / "b.png", noise(1)[0])], toy(), views=1, photos=photos)
    first, second = result.rows
    assert first["target"] == target
    assert [first[name] for name in ("score", "held_out", "percentile", "forced_choice")] == [None] * 4
    assert None not in (first["slope"], first["nearest"], second["percentile"])
    assert any("a.png: the objective has no shorthand" in note for note in result.notes)


# Judges.


def test_the_judge_classifies_among_the_classes_that_both_networks_have() -> None:
    network, targets = named(("Red", "green", "nothing", "sun", "else")), ["output:Red", "output:1", "output:3"]
    pictures = noise(4, seed=5)
    result = evaluate(pictures, network, [*targets, "features.5:1"], judge=color_judge(), views=1)
    among: list[str | int] = ["red", "green", "sun"]
    for row, picture, name in zip(result.rows, pictures, ["red", "green", "sun"]):
        for column, kind in (("transfer", metrics.TransferProbability), ("rank", metrics.TransferRank)):
            metric = kind(color_judge(), among)
            metric.update(picture[None], name)
            assert row[column] == pytest.approx(float(metric.compute()))
    assert (result.rows[3]["transfer"], result.rows[3]["rank"]) == (None, None)
    assert result.columns[4:6] == ["transfer", "rank"]
    assert (result.settings["judge"], result.settings["among"]) == ("colors", 3)


def test_a_judge_without_the_class_is_refused_with_near_names() -> None:
    with pytest.raises(ValueError, match="unknown class of the judge 'reddish'; did you mean 'red'"):
        evaluate(noise(1), named(("reddish", *CLASSES[1:])), "output:reddish", judge=color_judge(), views=1)


def test_what_a_judge_cannot_say_is_noted() -> None:
    for network, target in ((named(CLASSES), "features.5:1"), (FrozenNetwork(toy()), "output:1")):
        result = evaluate(noise(1), network, target, judge=color_judge(), views=1)
        assert (result.rows[0]["transfer"], result.summary["rank"]) == (None, None)
        assert "judge: none of the pictures is of a class with a name, so it is not asked" in result.notes
    same = evaluate(noise(1), named(CLASSES), "output:1", judge=named(CLASSES), views=1)
    assert "judge: it is the network itself, and no independent one" in same.notes


# Output.

TABLE = Evaluation(
    [
        {"picture": "a.png", "target": "output:church", "score": 12.345678, "transfer": 0.5},
        {"picture": "longer.png", "target": "b:1", "score": -1.0, "transfer": None},
    ],
    {"score": 5.672839, "transfer": 0.5, "vendi": 1.75},
    {"network": "ToyNet", "of_photos": {"score": 2.0, "nearest": 0.9}},
    ["something"],
)


def test_the_table_as_text() -> None:
    assert TABLE.table().splitlines() == [
        "picture     target         score  transfer",
        "a.png       output:church  12.35       0.5",
        "longer.png  b:1               -1         -",
        "mean                       5.673       0.5",
        "set: vendi 1.75",
        "photos have: score 2",
    ]


def test_the_table_as_json_and_csv(tmp_path: Path) -> None:
    text = TABLE.to_json()
    assert "\n" not in text
    assert json.loads(text) == vars(TABLE) == json.loads(TABLE.save(tmp_path / "new" / "a.json").read_text())
    with TABLE.save(tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"picture": "a.png", "target": "output:church", "score": "12.345678", "transfer": "0.5"}
    assert rows[1]["transfer"] == ""
    assert {path.name for path in tmp_path.rglob("*")} == {"new", "a.json", "a.csv"}


@pytest.mark.parametrize(("name", "message"), [("a.txt", "must end in .csv or .json"), ("folder.csv", "is a folder")])
def test_a_table_has_one_of_two_suffixes(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=message):
        TABLE.save(tmp_path / name)


def test_every_number_of_a_real_table_can_be_written(photos: Path) -> None:
    result = evaluate(torch.full((2, 3, 40, 40), 0.5), toy(), "features.5:1", photos=photos, views=1)
    values = [value for row in result.rows for name, value in row.items() if name not in ALWAYS[:2]]
    assert all(value is None or math.isfinite(value) for value in values)
    assert json.loads(result.to_json())["rows"] == result.rows
