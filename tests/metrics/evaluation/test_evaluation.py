"""The table of an evaluation: the right value in the right row, whatever the pictures are and wherever they come from."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluated import ALWAYS, make_photos, named, noise, own_score, save
from metric_cases_transfer import color_judge
from torch import nn
from toys import toy

from featviz_pl import metrics
from featviz_pl.io import read_picture, save_png
from featviz_pl.metrics import Evaluation, evaluate
from featviz_pl.networks import FrozenNetwork


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


# Values.


def test_every_value_is_that_of_its_metric_in_the_row_of_its_picture() -> None:
    """Sizes differ, so the pictures reach the metrics in another order than they have in the table."""
    pictures = [noise(1)[0], noise(1, 64, 64, seed=1)[0], noise(2, seed=2)[0], noise(1, 64, 64, seed=3)[0]]
    targets = ["features.5:1", "features.2:3", "features.5:4", "features.5:1"]
    found = evaluate(pictures, toy(), targets, views=3)
    assert found.columns == ALWAYS
    own: dict[str, Any] = {
        "score": metrics.Activation(toy()),
        "held_out": metrics.HeldOutActivation(toy(), 3),
        "slope": metrics.SpectrumSlope(),
        "clipped": metrics.ClippedShare(),
        "color_distance": metrics.ColorDistance(),
        "variation": metrics.VariationPerPixel(),
        "high_frequency": metrics.HighFrequencyShare(),
    }
    for index, (row, picture, target) in enumerate(zip(found.rows, pictures, targets)):
        assert (row["picture"], row["target"]) == (str(index), target)
        for name, metric in own.items():
            metric.reset()
            metric.update(picture[None], *([[target]] if name in ("score", "held_out") else []))
            assert row[name] == pytest.approx(float(metric.compute()), rel=1e-5, abs=1e-7), name
    assert found.rows[0]["score"] == pytest.approx(own_score(pictures[0], 1), rel=1e-4)
    assert len({row["slope"] for row in found.rows}) == 4
    assert found.settings["views"] == 3


def test_the_summary_is_the_mean_of_each_column_and_what_holds_of_the_set() -> None:
    pictures, targets = noise(4), ["features.5:1", "features.5:1", "features.5:2", "features.5:2"]
    found = evaluate(pictures, toy(), targets, views=1)
    for name in ALWAYS[4:]:
        assert found.summary[name] == pytest.approx(sum(row[name] for row in found.rows) / 4)
    expected: dict[str, Any] = {"pairwise_distance": metrics.PairwiseDistance(), "vendi": metrics.VendiScore()}
    for metric in expected.values():
        metric.update(pictures)
    expected["agreement"] = metrics.Agreement()
    expected["agreement"].update(pictures, targets)
    assert list(found.summary)[len(ALWAYS) - 2 :] == list(expected)
    for name, metric in expected.items():
        assert found.summary[name] == pytest.approx(float(metric.compute()), rel=1e-5)


def test_scores_have_a_mean_only_where_all_pictures_are_of_one_target() -> None:
    """Units differ in scale, so a mean over them is one of nothing."""
    alike = evaluate(noise(2), toy(), "features.5:1", views=1)
    for name in ("score", "held_out"):
        assert alike.summary[name] == pytest.approx(sum(row[name] for row in alike.rows) / 2)
    different = evaluate(noise(2), toy(), ["features.5:1", "features.5:2"], views=1)
    assert (different.summary["score"], different.summary["held_out"]) == (None, None)
    mean = next(line.split() for line in different.table().splitlines() if line.startswith("mean"))
    assert mean[1:3] == ["-", "-"]
    assert float(mean[3]) == pytest.approx(different.summary["slope"], rel=1e-3)
    network = named(("red", "green", "blue", "b", "c"))
    assert (
        evaluate(noise(2), network, ["output:red", "output:0"], views=1).summary["score"] is not None
    )  # one class in two ways


def test_one_picture_is_no_set_and_different_targets_need_not_agree() -> None:
    assert list(evaluate(noise(1), toy(), "features.5:1", views=1).summary) == ALWAYS[2:]
    assert "agreement" not in evaluate(noise(2), toy(), ["features.5:1", "features.5:2"], views=1).summary


def test_pictures_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    bad = noise(3)
    bad[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"^1: pictures: NaN"):
        evaluate(bad, toy(), "features.5:1")
    with pytest.raises(ValueError, match=r"^0: pictures must lie in \[0, 1\], got values from 0 to 2"):
        evaluate(torch.linspace(0, 2, 3 * 40 * 40).view(1, 3, 40, 40), toy(), "features.5:1")


def test_transparent_pictures_are_measured_on_grey(tmp_path: Path) -> None:
    picture, opacity = noise(1)[0], noise(1, channels=1, seed=4)[0]
    on_grey = picture * opacity + 0.5 * (1 - opacity)
    save_png(
        torch.cat([picture, opacity]),
        tmp_path / "a.png",
        {"target": "features.5:1", "objective": "Channel('features.5', 1)"},
    )
    for found in (
        evaluate(torch.cat([picture, opacity])[None], toy(), "features.5:1", views=1),
        evaluate(tmp_path / "a.png", toy(), views=1),
    ):
        assert found.rows[0]["score"] == pytest.approx(own_score(on_grey, 1), rel=1e-4)
        assert found.rows[0]["clipped"] == pytest.approx(
            float(((on_grey < 1.5 / 255) | (on_grey > 253.5 / 255)).float().mean()), abs=1e-6
        )


def test_a_metric_that_cannot_measure_a_picture_leaves_its_place_empty_and_says_why() -> None:
    found = evaluate([noise(1, 20, 40)[0], noise(1)[0]], toy(), "features.5:1", views=1)
    assert found.rows[0]["slope"] is None
    assert found.rows[0]["variation"] is not None
    assert found.summary["slope"] == found.rows[1]["slope"]
    assert found.notes == [
        "0: slope was not measured: pictures: 20 x 40 pixels are too few for a slope; each side needs at least 32"
    ]
    grey = evaluate(noise(2, channels=1), nn.Conv2d(1, 4, 3), "output:1", views=1)
    assert [row["color_distance"] for row in grey.rows] == [None, None]
    assert grey.rows[0]["slope"] is not None
    assert grey.summary["color_distance"] is None
    assert {"pairwise_distance", "vendi"} < set(grey.summary)
    many = evaluate(noise(2, channels=7), nn.Conv2d(7, 4, 3), "output:1", views=1)
    assert many.rows[0]["score"] is not None
    assert "vendi" not in many.summary


# Files.


def test_files_say_their_targets_and_these_can_be_replaced(tmp_path: Path) -> None:
    paths = [
        save(tmp_path / "a.png", noise(1)[0], "features.5:4"),
        save(tmp_path / "b.png", noise(1, 64, 32, seed=1)[0], "features.5:6"),
    ]
    found = evaluate(paths, toy(), views=1)
    assert [(row["picture"], row["target"]) for row in found.rows] == [
        (str(paths[0]), "features.5:4"),
        (str(paths[1]), "features.5:6"),
    ]
    for path, row, unit in zip(paths, found.rows, (4, 6)):
        assert row["score"] == pytest.approx(own_score(read_picture(path), unit), rel=1e-4)
    others = ["features.0:1", "features.5:2"]
    assert [row["target"] for row in evaluate(paths, toy(), others, views=1).rows] == others
    assert [row["target"] for row in evaluate(paths, toy(), "features.0:1", views=1).rows] == ["features.0:1"] * 2


def test_files_and_tensors_stand_in_one_list(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise(1)[0])
    found = evaluate([noise(2), str(path), noise(1)[0]], toy(), "features.5:1", views=1)
    assert [row["picture"] for row in found.rows] == ["0", "1", str(path), "3"]


def test_the_folder_of_a_sweep_is_measured_without_its_sheets_in_the_order_of_the_units(tmp_path: Path) -> None:
    for unit in (10, 9, 0):
        save(tmp_path / "features.5" / f"{unit}.png", noise(1, seed=unit)[0], f"features.5:{unit % 8}")
    # As the writer does it: of a layer, without objective and score.
    save_png(
        noise(1, 90, 90)[0], tmp_path / "features.5.png", {"target": "features.5", "network": "ToyNet", "batch_size": 4}
    )
    save(tmp_path / "final.png", noise(1, 90, 90)[0], ["features.5:1", "features.5:2"])  # as `ImageSnapshot` does it
    (tmp_path / "manifest.jsonl").write_text("{}\n")
    (tmp_path / ".half.png").write_bytes(b"")
    expected = [str(tmp_path / "features.5" / f"{unit}.png") for unit in (0, 9, 10)]
    found = evaluate(tmp_path, toy(), views=1)
    assert [row["picture"] for row in found.rows] == expected
    assert len(found.notes) == 1
    assert "final.png left out: a sheet of several pictures" in found.notes[0]
    everything = sorted(path for path in tmp_path.iterdir() if not path.name.startswith("."))  # as a shell expands *
    assert [row["picture"] for row in evaluate(everything, toy(), views=1).rows] == expected


MISTAKES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no target": ("plain.png", {}, r"the file '.*plain\.png' does not say what it shows; give its target.*--target"),
    "no target of a tensor": (noise(1), {}, "the tensor '0' does not say what it shows"),
    "no file": ("none.png", {}, r"cannot read a picture from '.*none\.png'"),
    "no picture": ("text.png", {}, r"cannot read a picture from '.*text\.png'"),
    "nothing": ([], {}, "pictures: there are none"),
    "an empty folder": ("empty", {}, "the folder '.*empty' holds no PNG files"),
    "a sheet alone": (
        "sheet.png",
        {},
        r"pictures: .*sheet\.png left out: a sheet of several pictures; evaluate the files of single ones",
    ),
    "targets that do not fit": (
        noise(3),
        {"targets": ["features.5:1"] * 2},
        "targets: 2 do not fit 3 pictures; give one for all",
    ),
    "an unknown layer": (noise(1), {"targets": "features.55:1"}, "no layer 'features.55'; did you mean 'features.5'"),
    "an unknown unit": (noise(1), {"targets": "features.5:8"}, "'features.5' has 8 units, 0 to 7; there is no 8"),
    "several units": (noise(1), {"targets": "features.5:1,2"}, "names 2 units"),
    "an unparsable target": (noise(1), {"targets": "features.5:a:b"}, "0: target: 'features.5:a:b' does not parse"),
    "channels": (
        noise(1, channels=1),
        {"targets": "features.5:1"},
        "pictures: 1 channels do not fit the network, which takes 3",
    ),
    "no picture shape": (
        noise(1)[0, 0],
        {"targets": "features.5:1"},
        r"must be \(N, C, H, W\) or \(C, H, W\), got shape \(40, 48\)",
    ),
    "no views": (noise(1), {"targets": "features.5:1", "views": 0}, "views must be at least 1"),
    "no photos": (noise(1), {"targets": "features.5:1", "photos": "empty"}, "'.*empty' holds no image files"),
    "no folder of photos": (
        noise(1),
        {"targets": "features.5:1", "photos": "nowhere"},
        "^photos: there is no folder '.*nowhere'",
    ),
    "unreadable photos": (
        noise(1),
        {"targets": "features.5:1", "photos": "broken"},
        "^photos: none of 2 files in 'broken' can be read",
    ),
    "unreadable photos of a layer": (
        noise(1),
        {"targets": "features.5", "photos": "broken"},
        "^photos: none of 2 files in",
    ),
    "no embeddings": (
        noise(1),
        {"targets": "features.5:1", "photos": "text.png"},
        r"^photos: cannot read 'text\.png'",
    ),
    "no activations": (
        noise(1),
        {"targets": "features.5:1", "activations": "nowhere.pt"},
        r"^activations: there is no file 'nowhere\.pt'",
    ),
    "other activations": (
        noise(1),
        {"targets": "features.5:1", "activations": "text.png"},
        r"^activations: cannot read 'text\.png",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_error(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_png(noise(1)[0], "plain.png")
    save_png(noise(1)[0], "sheet.png", {"target": ["a:1", "a:2"]})
    Path("text.png").write_text("words")
    for folder in ("empty", "broken"):
        Path(folder).mkdir()
    for index in range(2):
        Path(f"broken/{index}.jpg").write_text("words")
    pictures, arguments, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        evaluate(pictures, toy(), **arguments)


def test_what_is_no_picture_is_refused_by_type() -> None:
    with pytest.raises(TypeError, match=r"pictures must be tensors .* or paths, got ndarray"):
        evaluate([np.zeros((3, 4, 4))], toy(), "features.5:1")  # type: ignore[list-item]


def test_pictures_of_other_weights_are_measured_with_a_note(tmp_path: Path) -> None:
    own = FrozenNetwork(toy()).weights_hash()
    paths = [save(tmp_path / "a.png", noise(1)[0], weights=own), save(tmp_path / "b.png", noise(1)[0], weights="0123")]
    found = evaluate(paths, toy(), views=1)
    (note,) = found.notes
    assert "b.png: made with other weights (ToyNet) than those of 'ToyNet' here" in note
    assert "a.png" not in note
    assert found.rows[0]["score"] == found.rows[1]["score"]


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
    found = evaluate([path, save(tmp_path / "b.png", noise(1)[0])], toy(), views=1, photos=photos)
    row = found.rows[0]
    assert (row["target"], row["score"], row["held_out"], row["percentile"], row["forced_choice"]) == (
        target,
        None,
        None,
        None,
        None,
    )
    assert row["slope"] is not None
    assert row["nearest"] is not None
    assert found.rows[1]["percentile"] is not None
    assert any(
        "a.png: the objective has no shorthand, so its activation is not measured" in note for note in found.notes
    )


# Judges.


def test_the_judge_is_asked_for_the_classes_among_those_that_both_know() -> None:
    network = named(("Red", "green", "nothing", "sun", "else"))
    found = evaluate(
        noise(4, seed=5), network, ["output:Red", "output:1", "features.5:1", "output:3"], judge=color_judge(), views=1
    )
    among: list[str | int] = ["red", "green", "sun"]
    for row, picture, name in zip(found.rows, noise(4, seed=5), ["red", "green", None, "sun"]):
        for column, kind in (("transfer", metrics.TransferProbability), ("rank", metrics.TransferRank)):
            if name is None:
                assert row[column] is None
            else:
                metric = kind(color_judge(), among)
                metric.update(picture[None], name)
                assert row[column] == pytest.approx(float(metric.compute()))
    assert found.columns[4:6] == ["transfer", "rank"]
    assert (found.settings["judge"], found.settings["among"]) == ("colors", 3)


def test_a_judge_without_the_class_is_refused_with_near_names() -> None:
    with pytest.raises(ValueError, match="unknown class of the judge 'reddish'; did you mean 'red'"):
        evaluate(
            noise(1), named(("reddish", "green", "blue", "b", "c")), "output:reddish", judge=color_judge(), views=1
        )


@pytest.mark.parametrize(
    ("network", "target"),
    [(named(("red", "green", "blue", "b", "c")), "features.5:1"), (FrozenNetwork(toy()), "output:1")],
)
def test_a_judge_is_not_asked_about_what_is_no_class(network: FrozenNetwork, target: str) -> None:
    found = evaluate(noise(1), network, target, judge=color_judge(), views=1)
    assert (found.rows[0]["transfer"], found.summary["rank"]) == (None, None)
    assert "judge: none of the pictures is of a class with a name, so it is not asked" in found.notes


def test_a_network_is_no_judge_of_its_own_pictures() -> None:
    network = named(("red", "green", "blue", "b", "c"))
    assert (
        "judge: it is the network itself, and no independent one"
        in evaluate(noise(1), network, "output:1", judge=network, views=1).notes
    )


# What is made of the table.

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
    held = {"rows": TABLE.rows, "summary": TABLE.summary, "settings": TABLE.settings, "notes": TABLE.notes}
    assert json.loads(text) == held
    assert json.loads(TABLE.save(tmp_path / "new" / "a.json").read_text()) == held
    with TABLE.save(tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"picture": "a.png", "target": "output:church", "score": "12.345678", "transfer": "0.5"}
    assert rows[1]["transfer"] == ""
    assert {path.name for path in tmp_path.rglob("*")} == {"new", "a.json", "a.csv"}


@pytest.mark.parametrize(("name", "message"), [("a.txt", "must end in .csv or .json"), ("folder.csv", "is a folder")])
def test_a_table_has_one_of_two_endings(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=message):
        TABLE.save(tmp_path / name)


def test_every_number_of_a_real_table_can_be_written(photos: Path) -> None:
    flat = torch.full((2, 3, 40, 40), 0.5)
    found = evaluate(flat, toy(), "features.5:1", photos=photos, views=1)
    assert all(
        value is None or math.isfinite(value)
        for row in found.rows
        for name, value in row.items()
        if name not in ALWAYS[:2]
    )
    assert json.loads(found.to_json())["rows"] == found.rows
