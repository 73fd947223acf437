"""``featviz fit`` and ``featviz predict``: help, mistakes, configurations that are kept and run again, and how runs end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from configured import Labelled

from featviz_pl.cli.config_saving import keep_config
from featviz_pl.cli.lightning import _usual_rate
from featviz_pl.cli.main import main
from featviz_pl.io import read_provenance
from featviz_pl.training import FeatureVisualization

pytestmark = pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")

CPU = "--trainer.accelerator=cpu"
FIT = [
    *("fit", CPU, "--model.network=toys:toy", "--model.objective=features.5:1-2", "--model.steps=3"),
    *("--model.image=PixelImage", "--model.image.size=10"),
]
SNAPSHOT = ["--trainer.callbacks+=ImageSnapshot", "--trainer.callbacks.folder=out"]
PREDICT = [
    "predict",
    CPU,
    "--model.network=toys:toy",
    "--model.size=10",
    "--model.steps=3",
    "--data.targets=features.5:0-2",
]
WRITER = ["--trainer.callbacks+=FeatureWriter", "--trainer.callbacks.folder=out"]
RUNS = {"fit": [*FIT, *SNAPSHOT], "predict": [*PREDICT, "--data.batch_size=2", *WRITER]}
AFTER = ["--trainer.callbacks+=configured.TerminateAfter"]
PICTURE = {"fit": "out/final-2.png", "predict": "out/features.5/2.png"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str) -> int:
    try:
        return main(list(args))
    except SystemExit as stopped:
        return int(stopped.code or 0)


def elsewhere(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / name).mkdir()
    monkeypatch.chdir(folder / name)


# What works.


def test_flags_alone_make_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*RUNS["fit"], "--model.optimizer=torch.optim.SGD", "--model.seed=4", "--trainer.callbacks.every=2") == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"out: 2 pictures, 3 steps in \S+ s\n", out)
    assert err == ""
    origin = read_provenance(folder / "out" / "final-1.png")
    assert (origin["target"], origin["seed"], origin["steps"]) == ("features.5:1", 4, 3)
    assert origin["image"].startswith("PixelImage(size=(10, 10)")
    assert (origin["optimizer"], origin["lr"]) == (
        "SGD",
        0.001,
    )  # torch's default: the configuration's class brings its own
    assert "0x" not in str(origin)  # an address would tell two equal runs apart


@pytest.mark.parametrize("method", RUNS)
def test_what_a_run_saves_and_prints_of_its_configuration_gives_the_same_picture(
    method: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*RUNS[method]) == 0
    first = (folder / PICTURE[method]).read_bytes()
    capsys.readouterr()
    assert run(*RUNS[method], "--print_config") == 0
    (folder / "printed.yaml").write_text(capsys.readouterr().out)
    configs = {
        "saved": folder / "out" / "config.yaml",
        **({"printed": folder / "printed.yaml"} if method == "fit" else {}),
    }
    for name, config in configs.items():
        elsewhere(folder, name, monkeypatch)
        assert run(method, "--config", str(config)) == 0
        assert Path(PICTURE[method]).read_bytes() == first


def test_a_sweep_that_goes_on_keeps_its_configuration_and_one_for_more_units_keeps_both(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*RUNS["predict"]) == 0
    assert capsys.readouterr().out.startswith("out: 3 pictures, 3 of them new, in ")
    first = (folder / "out" / "config.yaml").read_text()
    assert run(*RUNS["predict"]) == 0
    assert capsys.readouterr().out.startswith("out: 3 pictures, 0 of them new, in ")
    assert [path.name for path in folder.glob("out/*.yaml")] == ["config.yaml"]
    assert run(*RUNS["predict"], "--data.targets=features.5:0-3") == 0
    assert capsys.readouterr().out.startswith("out: 4 pictures, 1 of them new, in ")
    assert (folder / "out" / "config-1.yaml").read_text() == first
    assert "features.5:0-3" in (folder / "out" / "config.yaml").read_text()


def test_a_refused_sweep_leaves_the_configuration_that_is_there(folder: Path) -> None:
    assert run(*RUNS["predict"]) == 0
    before = {path: path.read_bytes() for path in folder.glob("out/*.yaml")}
    assert run(*RUNS["predict"], "--model.seed=7") == 2
    assert {path: path.read_bytes() for path in folder.glob("out/*.yaml")} == before


def test_a_configuration_is_kept_whole_and_the_earlier_ones_get_numbers(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.yaml"
    for text in ("first", "second", "second", "third"):
        keep_config(path, text)
    assert {entry.name: entry.read_text() for entry in path.parent.iterdir()} == {
        "config.yaml": "third",
        "config-1.yaml": "first",
        "config-2.yaml": "second",
    }


def test_without_a_callback_that_saves_the_configuration_is_where_the_logger_writes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(*FIT, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", "--trainer.log_every_n_steps=1") == 0
    )
    assert "no picture was saved: trainer.callbacks has no ImageSnapshot" in capsys.readouterr().out
    assert [path.relative_to(folder).parts[0] for path in folder.rglob("config.yaml")] == ["logs"]
    assert run(*FIT) == 0
    assert [path.name for path in folder.iterdir()] == ["logs"]  # nothing is written: no configuration either


def test_subclasses_of_the_users_own_are_taken(folder: Path) -> None:
    assert run(*RUNS["fit"], "--model.class_path=configured.Labelled", "--model.word=mine") == 0
    assert read_provenance(folder / "out" / "final-1.png")["word"] == "mine"
    own = [
        "--model.class_path=configured.Sweep",
        "--data.class_path=configured.FirstTargets",
        "--data.layers=[features.0, features.5]",
    ]
    assert (
        run(
            *(flag for flag in PREDICT if not flag.startswith("--data")),
            *own,
            *WRITER[:1],
            "--trainer.callbacks.folder=swept",
        )
        == 0
    )
    assert sorted(path.relative_to(folder / "swept").as_posix() for path in folder.glob("swept/*/*.png")) == [
        "features.0/0.png",
        "features.5/0.png",
    ]


def test_one_number_of_steps_rules(folder: Path) -> None:
    cosine = ["--model.scheduler=CosineAnnealingLR", "--model.optimizer=SGD", "--model.optimizer.lr=0.5"]
    assert run(*RUNS["fit"], *cosine, "--model.steps=5") == 0
    origin = read_provenance(folder / "out" / "final-1.png")
    assert (origin["steps"], origin["scheduler"]) == (5, "CosineAnnealingLR")
    saved = (folder / "out" / "config.yaml").read_text()
    assert "steps: 5" in saved
    assert "T_max" not in saved
    assert "max_steps" not in saved


# Help and mistakes.


@pytest.mark.parametrize("method", ["fit", "predict"])
def test_the_help_can_be_read(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(method, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"usage: featviz {method} [--config FILE.yaml] [--KEY VALUE …]"
    assert len(lines) < 300
    assert max(map(len, lines)) <= 140
    said = {line.split()[0]: line for line in lines if line.startswith("  --")}
    own = (
        ["--data.targets", "--data.batch_size", "--model.preset"]
        if method == "predict"
        else ["--model.objective", "--model.scheduler"]
    )
    assert {"--config", "--print_config", "--model.network", "--model.steps", "--trainer.devices", *own} <= set(said)
    text = " ".join(" ".join(lines).split())
    assert "FourierImage" in text
    assert "torch.nn" not in text


def test_the_help_of_one_class_is_short_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--trainer.callbacks.help", "Augmentation") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 20
    assert sum(line.startswith("  --trainer.callbacks.") for line in lines) == 4


def test_the_help_of_an_argument_of_the_module_names_the_flags_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--model.objective.help", "Channel") == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"--model.objective.layer", "--model.objective.units"} <= {
        line.split()[0] for line in lines if line.startswith("  --")
    }


def test_a_rate_counts_as_given_where_it_is_not_the_one_of_its_class() -> None:
    assert _usual_rate(FeatureVisualization) is None
    assert _usual_rate(Labelled) is None  # hands it on
    assert _usual_rate(Hurried) == 0.5


class Hurried(FeatureVisualization):
    """Have a learning rate of its own."""

    def __init__(self, lr: float = 0.5) -> None:
        super().__init__(lr=lr)


MISTAKES = {
    "model.stepz: there is no such key; did you mean 'steps'?": ["fit", "--model.stepz=3"],
    "model.steps: must be int, got many": ["fit", "--model.steps=many"],
    "steps must be at least 1, got 0": ["fit", "--model.steps=0"],
    "model.objective: there is no class 'Chanel'; did you mean 'Channel', 'WeightedChannels'?": ["fit", "chanel.yaml"],
    "model.objective.layr: there is no such key; did you mean 'layer'?": ["fit", "layr.yaml"],
    "model.objective.layer: must be given": ["fit", "unnamed.yaml"],
    "model.objective.units: must be int or Sequence[int], got x": ["fit", "units.yaml"],
    "model.optimizer: there is no class 'Adan'; did you mean 'Adam', ": ["fit", "--model.optimizer=torch.optim.Adan"],
    "trainer.callbacks.transforms: there is no class 'Jiter'; did you mean 'Jitter'?": ["fit", "jiter.yaml"],
    "trainer.acelerator: there is no such key; did you mean 'accelerator'?": ["fit", "acelerator.yaml"],
    "trainer.devises: there is no such key; did you mean 'devices'": ["fit", "--trainer.devises=2"],
    "modle: there is no such key; did you mean 'model'?": ["fit", "modle.yaml"],
    "trainer.max_steps: follows from model.steps; leave it out": ["fit", "max_steps.yaml"],
    "model.scheduler.T_max: follows from model.steps; leave it out": ["fit", "cosine.yaml"],
    "model.scheduler.T_max: follows from": ["fit", "--model.scheduler=CosineAnnealingLR", "--model.scheduler.T_max=3"],
    "broken.yaml: Problems parsing config: ": ["fit", "broken.yaml"],
    "config: File does not exist: ": ["fit", "--config=missing.yaml"],
    "empty.yaml: holds no keys; give such as model: {steps: 64}": ["fit", "empty.yaml"],
    "list.yaml: holds no keys; give such as model: {steps: 64}": ["fit", "list.yaml"],
    "model.lr: 0.3 would count for nothing beside model.optimizer": ["fit", "--model.optimizer=SGD", "--model.lr=0.3"],
    "extra: there is no such argument; give --KEY VALUE": ["fit", "extra"],
    "preset: unknown preset 'lucit'; did you mean 'lucid'": [*PREDICT, "--model.preset=lucit"],
    "data.targets: must be given": ["predict"],
    "trainer.callbacks: none of them keeps the pictures; add FeatureWriter with a folder": PREDICT,
    "layer: unknown layer or pattern of layers 'feature.5'": [*PREDICT, *WRITER, "--data.targets=feature.5"],
}
FILES = {
    "chanel.yaml": "model: {objective: {class_path: Chanel, init_args: {layer: a, units: 5}}}",
    "layr.yaml": "model: {objective: {class_path: Channel, init_args: {layr: a, units: 5}}}",
    "unnamed.yaml": "model: {objective: {class_path: Channel, init_args: {units: 5}}}",
    "units.yaml": "model: {objective: {class_path: Channel, init_args: {layer: a, units: x}}}",
    "jiter.yaml": "trainer: {callbacks: [{class_path: Augmentation, init_args: {transforms: [{class_path: Jiter}]}}]}",
    "acelerator.yaml": "trainer: {acelerator: cpu}",
    "modle.yaml": "modle: {steps: 3}",
    "max_steps.yaml": "trainer: {max_steps: 3}",
    "cosine.yaml": "model: {scheduler: {class_path: CosineAnnealingLR, init_args: {T_max: 3}}}",
    "empty.yaml": "",
    "list.yaml": "- model\n- steps\n",
    "broken.yaml": "model:\n  steps: 3\n seed: 4\n",
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key(
    message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method, *given = MISTAKES[message]
    files = [name for name in given if name in FILES]
    for name in files:
        (folder / name).write_text(FILES[name])
    assert run(method, *("--config=" + flag if flag in files else flag for flag in given)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"featviz {method}: error: {message}")
    assert list(folder.glob("**/*.png")) == []


# How runs end.


def test_ctrl_c_ends_a_fit_with_the_pictures_so_far(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*RUNS["fit"], "--trainer.callbacks+=configured.InterruptAfter", "--trainer.callbacks.steps=2") == 130
    assert capsys.readouterr() == ("", "featviz fit: interrupted after 2 steps; the pictures so far are in out\n")
    assert read_provenance(folder / "out" / "final-1.png")["steps"] == 2


def test_ctrl_c_ends_a_sweep_that_then_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*RUNS["predict"], "--trainer.callbacks+=configured.InterruptAfter") == 130
    said = "featviz predict: interrupted; what is done is whole, and the same command goes on from there\n"
    assert capsys.readouterr() == ("", said)
    done = len(list(folder.glob("out/features.5/*.png")))
    assert run(*RUNS["predict"]) == 0
    assert capsys.readouterr().out.startswith(f"out: 3 pictures, {3 - done} of them new, in ")


def test_a_termination_is_no_success(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*RUNS["fit"], *AFTER, "--trainer.callbacks.steps=2") == 143
    assert capsys.readouterr() == ("", "featviz fit: terminated after 2 steps; the pictures so far are in out\n")
    assert read_provenance(folder / "out" / "final-1.png")["steps"] == 2
    (folder / "out").rename(folder / "fitted")
    assert run(*RUNS["predict"], *AFTER) == 143
    said = "featviz predict: terminated; what is done is whole, and the same command goes on from there\n"
    assert capsys.readouterr() == ("", said)


def test_units_that_fail_are_named_and_have_their_own_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*PREDICT, "--model.network=guests:always_nan", "--data.targets=output:0-1", *WRITER) == 3
    out, err = capsys.readouterr()
    assert out.startswith("out: 0 pictures, 0 of them new")
    assert err.startswith("featviz predict: 2 units failed: output:0: ")
