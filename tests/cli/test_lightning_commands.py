"""``featviz fit`` and ``featviz predict``: help, mistakes, configurations that are saved and run again, and how runs end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from featviz_pl.cli.config_saving import keep_config
from featviz_pl.cli.main import main
from featviz_pl.io import read_provenance

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning"),
]

CPU = "--trainer.accelerator=cpu"
FIT = [
    *("fit", CPU, "--model.network=toys:toy", "--model.objective=features.5:1-2", "--model.steps=3"),
    *("--model.image=PixelImage", "--model.image.size=10"),
]
SNAPSHOT = ["--trainer.callbacks+=ImageSnapshot", "--trainer.callbacks.folder=out"]
PREDICT = ["predict", CPU, "--model.network=toys:toy", "--model.size=10", "--model.steps=3"]
UNITS = ["--data.targets=features.5:0-2", "--data.batch_size=2"]
WRITER = ["--trainer.callbacks+=FeatureWriter", "--trainer.callbacks.folder=out"]
RUNS = {"fit": [*FIT, *SNAPSHOT], "predict": [*PREDICT, *UNITS, *WRITER]}
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


# What works.


def test_flags_alone_make_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*RUNS["fit"], "--model.optimizer=torch.optim.SGD", "--model.seed=4", "--trainer.callbacks.every=2") == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"out: 2 pictures, 3 steps in \S+ s\n", out)
    assert err == ""
    origin = read_provenance(folder / "out" / "final-1.png")
    assert (origin["target"], origin["seed"], origin["steps"]) == ("features.5:1", 4, 3)
    assert origin["image"].startswith("PixelImage(size=(10, 10)")
    assert (origin["optimizer"], origin["lr"]) == ("SGD", 0.001)  # torch's default: the class brings its own
    assert "0x" not in str(origin)  # an address would tell two equal runs apart


@pytest.mark.parametrize("method", RUNS)
def test_a_saved_and_a_printed_configuration_give_the_same_picture(
    method: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*RUNS[method]) == 0
    expected = (folder / PICTURE[method]).read_bytes()
    capsys.readouterr()
    assert run(*RUNS[method], "--print_config") == 0
    (folder / "printed.yaml").write_text(capsys.readouterr().out)
    for name, config in (("saved", "out/config.yaml"), ("printed", "printed.yaml")):
        (folder / name).mkdir()
        monkeypatch.chdir(folder / name)
        assert run(method, "--config", str(folder / config)) == 0
        assert Path(PICTURE[method]).read_bytes() == expected


def test_a_sweep_saves_its_configuration_beside_an_earlier_one_unless_it_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def configurations() -> dict[str, str]:
        return {path.name: path.read_text() for path in folder.glob("out/*.yaml")}

    first: dict[str, str] = {}
    for more, pictures, new in (([], 3, 3), ([], 3, 0), (["--data.targets=features.5:0-3"], 4, 1)):
        assert run(*RUNS["predict"], *more) == 0
        assert capsys.readouterr().out.startswith(f"out: {pictures} pictures, {new} of them new, in ")
        first = first or configurations()
        assert configurations().keys() == ({"config.yaml", "config-1.yaml"} if more else {"config.yaml"})
    assert configurations()["config-1.yaml"] == first["config.yaml"]
    before = configurations()
    assert run(*RUNS["predict"], "--model.seed=7") == 2
    assert configurations() == before


def test_configurations_are_whole_and_the_earlier_ones_get_numbers(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.yaml"
    for text in ("first", "second", "second", "third"):
        keep_config(path, text)
    texts = {entry.name: entry.read_text() for entry in path.parent.iterdir()}
    assert texts == {"config.yaml": "third", "config-1.yaml": "first", "config-2.yaml": "second"}


def test_without_a_callback_that_saves_the_configuration_is_where_the_logger_writes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", "--trainer.log_every_n_steps=1"]
    assert run(*FIT, *logger) == 0
    assert "no picture was saved" in capsys.readouterr().out
    assert [path.relative_to(folder).parts[0] for path in folder.rglob("config.yaml")] == ["logs"]
    assert run(*FIT) == 0
    assert [path.name for path in folder.iterdir()] == ["logs"]  # nothing is written: no configuration either


def test_subclasses_of_the_users_own_are_taken(folder: Path) -> None:
    assert run(*RUNS["fit"], "--model.class_path=configured.Labelled", "--model.word=mine") == 0
    assert read_provenance(folder / "out" / "final-1.png")["word"] == "mine"
    classes = ["--model.class_path=configured.Sweep", "--data.class_path=configured.FirstTargets"]
    layers = "--data.layers=[features.0, features.5]"
    assert run(*PREDICT, *classes, layers, WRITER[0], "--trainer.callbacks.folder=swept") == 0
    pictures = sorted(path.relative_to(folder / "swept").as_posix() for path in folder.glob("swept/*/*.png"))
    assert pictures == ["features.0/0.png", "features.5/0.png"]


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


@pytest.mark.parametrize(
    ("method", "flags"),
    [("fit", ["--model.objective", "--model.scheduler"]), ("predict", ["--data.targets", "--data.batch_size"])],
)
def test_the_help_can_be_read(method: str, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(method, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"usage: featviz {method} [--config FILE.yaml] [--KEY VALUE …]"
    assert len(lines) < 300
    assert max(map(len, lines)) <= 140
    named = {line.split()[0] for line in lines if line.startswith("  --")}
    common = {"--config", "--print_config", "--model.network", "--model.steps", "--trainer.devices"}
    assert {*common, *flags} <= named
    assert "--weights_only" not in named  # a checkpoint must not run code
    text = " ".join(" ".join(lines).split())
    assert "FourierImage" in text
    assert "torch.nn" not in text


@pytest.mark.parametrize(
    ("flag", "name", "arguments"),
    [
        ("--trainer.callbacks", "Augmentation", {"transforms", "views", "schedule", "size"}),
        ("--model.objective", "Channel", {"layer", "units", "tokens"}),
    ],
)
def test_the_help_of_one_class_is_short(
    flag: str, name: str, arguments: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", f"{flag}.help", name) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 20
    assert {line.split()[0] for line in lines if line.startswith("  --")} >= {f"{flag}.{key}" for key in arguments}


FILES = {
    "chanel": "model: {objective: {class_path: Chanel, init_args: {layer: a, units: 5}}}",
    "layr": "model: {objective: {class_path: Channel, init_args: {layr: a, units: 5}}}",
    "unnamed": "model: {objective: {class_path: Channel, init_args: {units: 5}}}",
    "units": "model: {objective: {class_path: Channel, init_args: {layer: a, units: x}}}",
    "jiter": "trainer: {callbacks: [{class_path: Augmentation, init_args: {transforms: [{class_path: Jiter}]}}]}",
    "acelerator": "trainer: {acelerator: cpu}",
    "modle": "modle: {steps: 3}",
    "max_steps": "trainer: {max_steps: 3}",
    "cosine": "model: {scheduler: {class_path: CosineAnnealingLR, init_args: {T_max: 3}}}",
}
MISTAKES: list[tuple[list[str], str]] = [  # arguments, or the name of a file; words of the message
    (["fit", "--model.stepz=3"], "stepz.*did you mean 'steps'"),
    (["fit", "--model.steps=many"], "steps.*int.*many"),
    (["fit", "--model.steps=0"], "steps must be at least 1, got 0"),
    (["fit", "--model.optimizer=torch.optim.Adan"], "optimizer.*Adan"),
    (["fit", "--model.optimizer=SGD", "--model.lr=0.3"], "model.lr: 0.3 has no effect with model.optimizer"),
    (["fit", "--trainer.devises=2"], "devises.*did you mean 'devices'"),
    (["fit", "--trainer.max_steps=4"], "trainer.max_steps: follows from model.steps"),
    (["fit", "--model.scheduler=CosineAnnealingLR", "--model.scheduler.T_max=3"], "scheduler.T_max: follows from"),
    (["fit", "--weights_only=false"], "weights_only"),
    (["fit", "--config=missing.yaml"], "there is no file 'missing.yaml'"),
    (["fit", "extra"], "unrecognized arguments: extra"),
    (["chanel"], "objective.*Chanel.*did you mean 'Channel'"),
    (["layr"], "layr.*did you mean 'layer'"),
    (["unnamed"], "objective.*required: layer"),
    (["units"], "units.*int.*value: x"),
    (["jiter"], "transforms.*Jiter.*did you mean 'Jitter'"),
    (["acelerator"], "acelerator.*did you mean 'accelerator'"),
    (["modle"], "modle.*did you mean 'model'"),
    (["max_steps"], "trainer.max_steps: follows from model.steps"),
    (["cosine"], "scheduler.T_max: follows from model.steps"),
    (["predict", *WRITER], "required: targets"),
    ([*PREDICT, *UNITS, *WRITER, "--model.preset=lucit"], "unknown preset 'lucit'; did you mean 'lucid'"),
    ([*PREDICT, *UNITS], "trainer.callbacks: none of them keeps the pictures; add FeatureWriter"),
    ([*PREDICT, *WRITER, "--data.targets=feature.5:all"], "unknown layer or pattern of layers 'feature.5'"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=lambda value: str(value)[-40:])
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] in FILES:
        (folder / f"{arguments[0]}.yaml").write_text(FILES[arguments[0]])
        arguments = ["fit", f"--config={arguments[0]}.yaml"]
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"featviz {arguments[0]}: error: ")
    assert len(err) < 500
    assert re.search(message, err), err
    assert list(folder.glob("**/*.png")) == []


# How runs end.


@pytest.mark.parametrize(
    ("callback", "word", "code"),
    [("InterruptAfter", "interrupted", 130), ("TerminateAfter", "terminated", 143)],
)
def test_a_run_that_is_stopped_says_so_and_leaves_what_is_done(
    callback: str, word: str, code: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = f"--trainer.callbacks+=configured.{callback}"
    assert run(*RUNS["fit"], stop, "--trainer.callbacks.steps=2") == code
    saved = f"featviz fit: {word} after 2 steps; the pictures so far are in out\n"
    assert capsys.readouterr() == ("", saved)
    assert read_provenance(folder / "out" / "final-1.png")["steps"] == 2
    (folder / "out").rename(folder / "fitted")
    assert run(*RUNS["predict"], stop) == code
    saved = f"featviz predict: {word}; what is done is whole, and the same command goes on from there\n"
    assert capsys.readouterr() == ("", saved)
    done = len(list(folder.glob("out/features.5/*.png")))
    assert run(*RUNS["predict"]) == 0
    assert capsys.readouterr().out.startswith(f"out: 3 pictures, {3 - done} of them new, in ")


def test_units_that_fail_are_named_and_have_their_own_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*PREDICT, "--model.network=guests:always_nan", "--data.targets=output:0-1", *WRITER) == 3
    out, err = capsys.readouterr()
    assert out.startswith("out: 0 pictures, 0 of them new")
    assert err.startswith("featviz predict: 2 units failed: output:0: ")
