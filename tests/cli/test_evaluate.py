"""``featviz evaluate``: a table, or one line of JSON, or one clear line for every mistake."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import toy

from featviz_pl.cli.main import main
from featviz_pl.io import as_saved, save_png
from featviz_pl.metrics import evaluate
from featviz_pl.networks import FrozenNetwork, load_network


def run(*args: str) -> int:
    """Run the command in this process and return its exit code."""
    try:
        return main(["evaluate", *args])
    except SystemExit as stopped:
        return int(stopped.code or 0)


def save(name: str, target: Any = "output:church", network: str | None = "embedded", seed: int = 0, **more: Any) -> str:
    """Save a picture of noise with the provenance of a run."""
    picture = as_saved(torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(seed)))
    origin = {
        "target": target,
        "objective": "ClassLogit('church')",
        **({} if network is None else {"network": network}),
        **more,
    }
    return str(save_png(picture, name, origin))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with two pictures of the embedded network and some photos, and no downloaded weights anywhere."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    own = load_network().weights_hash()
    save("a.png", weights=own)
    save("b.png", "blocks.2:5", seed=1, objective="Channel('blocks.2', 5)", weights=own)
    for index in range(8):
        save_png(
            torch.rand(3, 30, 34, generator=torch.Generator().manual_seed(index)) * index / 8, f"photos/{index}.png"
        )
    return folder


def test_the_table_has_a_row_for_each_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a.png", "b.png", "--views", "2") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out == evaluate(["a.png", "b.png"], "embedded", views=2).table() + "\n"
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["a.png", "output:church"], ["b.png", "blocks.2:5"]]


def test_json_is_one_line_and_files_hold_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("new/table.json", "table.csv"):
        assert run("a.png", "b.png", "--views", "2", "--json", "-o", name) == 0
        out, err = capsys.readouterr()
        assert (out.count("\n"), err) == (1, "")
    held = json.loads(out)
    assert json.loads(Path("new/table.json").read_text()) == held
    assert set(held) == {"rows", "summary", "settings", "notes"}
    with Path("table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["picture"], float(row["score"])) for row in rows] == [
        (row["picture"], row["score"]) for row in held["rows"]
    ]


def test_a_network_of_ones_own_is_given_with_its_weights_and_normalisation(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(toy(seed=5).state_dict(), "weights.pth")
    path = save("own.png", "features.5:1", "toys:toy", objective="Channel('features.5', 1)")
    network = ["--network", "toys:toy", "--weights", "weights.pth", "--mean", "0.5", "--std", "0.25"]
    assert run(path, *network, "--views", "1", "--json") == 0
    expected = evaluate(path, FrozenNetwork(toy(seed=5), 0.5, std=0.25, name="toys:toy"), views=1)
    assert json.loads(capsys.readouterr().out)["rows"] == expected.rows


def test_pictures_of_other_weights_are_measured_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    save("c.png", weights="0123")
    assert run("a.png", "c.png", "--views", "1") == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(
        r"featviz evaluate: c\.png: made with other weights \(embedded\) than those of 'embedded' here; .*\n", err
    )
    assert [line.split()[0] for line in out.splitlines()] == ["picture", "a.png", "c.png", "mean", "set:", "photos"]


@pytest.mark.slow
class TestWithPhotosAndSweeps:
    """Whole evaluations, of seconds each."""

    def test_targets_judge_photos_and_views_reach_the_evaluation(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = [
            "a.png",
            "b.png",
            "--network",
            "embedded",
            "--target",
            "output:2",
            "output:3",
            "--photos",
            "photos",
            "--limit",
            "7",
        ]
        judge = ["--judge", "squeezenet1_0", "--judge-weights", "none"]
        assert run(*arguments, *judge, "--views", "3", "--workers", "0", "--json") == 0
        held = json.loads(capsys.readouterr().out)
        judged = load_network("squeezenet1_0", "none")
        expected = evaluate(
            ["a.png", "b.png"], "embedded", ["output:2", "output:3"], judge=judged, photos="photos", limit=7, views=3
        )
        assert held["rows"] == expected.rows
        assert held["settings"] == expected.settings
        assert (held["settings"]["photos"], held["settings"]["among"]) == (7, 10)
        assert None not in held["rows"][0].values()

    def test_activations_of_photos_come_from_featviz_stats(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = [
            "--network",
            "embedded",
            "--layer",
            "output",
            "--layer",
            "blocks.2",
            "--size",
            "40",
            "-o",
            "held.pt",
        ]
        assert main(["stats", "photos", *arguments]) == 0
        capsys.readouterr()
        assert run("a.png", "b.png", "--activations", "held.pt", "--views", "1", "--json") == 0
        held = json.loads(capsys.readouterr().out)["rows"]
        assert run("a.png", "b.png", "--photos", "photos", "--views", "1", "--json") == 0
        measured = json.loads(capsys.readouterr().out)["rows"]
        assert [row["percentile"] for row in held] == [row["percentile"] for row in measured]
        assert "nearest" not in held[0]

    def test_activations_with_a_limit_are_compared_with_a_folder_of_more_photos(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = [
            "--network",
            "embedded",
            "--layer",
            "output",
            "--layer",
            "blocks.2",
            "--size",
            "40",
            "-o",
            "held.pt",
            "--limit",
            "5",
        ]
        assert main(["stats", "photos", *arguments]) == 0
        capsys.readouterr()
        tables = []
        for photos in (["--activations", "held.pt"], ["--limit", "5"]):
            assert run("a.png", "b.png", "--photos", "photos", *photos, "--views", "1", "--json") == 0
            tables.append(json.loads(capsys.readouterr().out))
        assert tables[0]["rows"] == tables[1]["rows"]
        assert tables[0]["settings"]["photos"] == 5
        Path("other").mkdir()
        save_png(torch.zeros(3, 30, 34), "other/0.png")
        assert (
            run("a.png", "--photos", "other", "--activations", "held.pt", "--network", "nothing") == 2
        )  # before the network is loaded
        assert "activations: 4 of their 5 photos are not in 'other', such as '" in capsys.readouterr().err

    def test_the_folder_of_a_sweep_is_one_argument_and_its_files_are_many(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert (
            main(
                [
                    "sweep",
                    "embedded",
                    "stem:9-11",
                    "--size",
                    "32",
                    "--steps",
                    "2",
                    "-o",
                    "units",
                    "--accelerator",
                    "cpu",
                ]
            )
            == 0
        )
        capsys.readouterr()
        tables = []
        expanded = sorted(
            str(path) for path in Path("units").iterdir() if not path.name.startswith(".")
        )  # as a shell does it
        for pictures in (["units"], expanded, [f"units/stem/{unit}.png" for unit in (9, 10, 11)]):
            assert run(*pictures, "--views", "1", "--json") == 0
            out, err = capsys.readouterr()
            tables.append(json.loads(out)["rows"])
            assert ("units/stem.png left out: a sheet of several pictures" in err) == (
                "units/stem/9.png" not in pictures
            )
        assert [row["target"] for row in tables[0]] == ["stem:9", "stem:10", "stem:11"]
        assert tables[0] == tables[1] == tables[2]

    def test_nothing_is_downloaded_and_help_needs_no_torch(self, tmp_path: Path) -> None:
        assert run("a.png", "--photos", "photos", "--views", "1") == 0
        assert not (tmp_path / "torch").exists()
        code = "import sys; from featviz_pl.cli.main import main\ntry: main(['evaluate', '--help'])\nexcept SystemExit: print('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.splitlines()[-1] == "False"
        assert "--judge-weights" in done.stdout


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no pictures": ([], "PICTURES"),
    "no such file": (["none.png", "--network", "nothing"], "pictures: there is no file 'none.png'"),
    "no picture": (["text.png", "--network", "embedded"], "cannot read a picture from 'text.png'"),
    "no target": (
        ["photos/1.png", "--network", "embedded"],
        r"the file 'photos/1\.png' does not say what it shows.*--target",
    ),
    "no network": (["photos/1.png"], "network: the pictures name none; give --network NAME"),
    "two networks": (
        ["a.png", "resnet.png"],
        r"network: the pictures name different ones \('embedded', 'resnet18'\); give --network",
    ),
    "a network with weights to download": (
        ["resnet.png"],
        "network: the pictures name 'resnet18', whose weights may have to be downloaded; give --network resnet18",
    ),
    "an unknown network": (["a.png", "--network", "embeded"], "unknown network 'embeded'; did you mean 'embedded'"),
    "a program": (
        ["program.png"],
        "network: the pictures name 'toys:toy', which is not loaded by itself; give --network NAME",
    ),
    "an empty folder": (["empty"], "the folder 'empty' holds no PNG files"),
    "a sheet": (["sheet.png"], r"sheet\.png left out: a sheet of several pictures; evaluate the files of single ones"),
    "an unknown layer": (["a.png", "--target", "block.2:5"], "no layer 'block.2'; did you mean 'blocks.2'"),
    "targets": (["a.png", "b.png", "a.png", "--target", "stem:1", "stem:2"], "targets: 2 do not fit 3 pictures"),
    "no photos": (["a.png", "--photos", "empty"], "'empty' holds no image files"),
    "no folder of photos": (["a.png", "--photos", "nowhere"], "photos: there is no folder 'nowhere'"),
    "no activations": (["a.png", "--activations", "nowhere.pt"], r"activations: there is no file 'nowhere\.pt'"),
    "activations of nothing": (
        ["a.png", "--activations", "text.png"],
        r"activations: cannot read 'text\.png'.* truncated",
    ),
    "a limit of nothing": (["a.png", "--limit", "3"], "limit: is of --photos DIR, which is not given"),
    "a limit of 0": (["a.png", "--photos", "photos", "--limit", "0"], "limit must be at least 1, got 0"),
    "no views": (["a.png", "--views", "0"], "views must be at least 1, got 0"),
    "workers": (["a.png", "--workers", "-1"], "workers must be at least 0, got -1"),
    "weights of no judge": (
        ["a.png", "--judge-weights", "none"],
        "judge_weights: belong to --judge NAME, which is not given",
    ),
    "an unknown judge": (
        ["a.png", "--judge", "squeezenet"],
        "unknown network 'squeezenet'; did you mean 'squeezenet1_",
    ),
    "a judge without the class": (
        ["goldfish.png", "--network", "squeezenet1_0", "--weights", "none", "--judge", "embedded"],
        "class: unknown class of the judge 'goldfish'; ",
    ),
    "an ending": (["a.png", "-o", "table.txt"], r"output: 'table\.txt' must end in \.csv or \.json"),
    "a folder": (["a.png", "-o", "folder.csv"], r"output: 'folder\.csv' is a folder"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line(mistake: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.png").write_text("words")
    for folder in ("empty", "folder.csv"):
        Path(folder).mkdir()
    save("sheet.png", ["output:church", "output:tench"])
    save("resnet.png", network="resnet18")
    save("program.png", "features.5:1", "toys:toy")
    save("goldfish.png", "output:goldfish", "squeezenet1_0")
    before = {path.relative_to(here) for path in here.rglob("*")}
    arguments, message = MISTAKES[mistake]
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert (err.count("\n"), err[:7]) == (1, "featviz")
    assert re.search(message, err), err
    assert {path.relative_to(here) for path in here.rglob("*")} == before
