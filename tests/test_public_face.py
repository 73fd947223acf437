"""The names that users may rely on: recorded, documented, with an example, and free to import."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import featviz_pl
import featviz_pl.callbacks
import featviz_pl_callbacks

RECORD = Path(__file__).with_name("api_surface.json")
TOP = "featviz_pl"
ROOMS = tuple(name for name in featviz_pl.__all__ if inspect.ismodule(getattr(featviz_pl, name)))

# Public, but without an example of their own, and why.
WITHOUT_EXAMPLE = {
    "engine.Ascent": "the loop that runs it, ascend, shows it",
    "engine.NonFiniteError": "an exception",
    "engine.Step": "a record that Ascent returns",
    "images.Image": "abstract: its subclasses show it",
    "images.LatentImage": "abstract: its subclasses show it",
    "metrics.PictureMetric": "abstract: its subclasses show it",
    "networks.EmbeddedNetwork": "loaded by name; see load_network",
    "networks.LayerInfo": "a record that FrozenNetwork.layers returns",
    "networks.ActivationReader": "made by FrozenNetwork.reader",
    "objectives.Objective": "abstract: its subclasses show it",
    "objectives.Observation": "a record that the run makes; every objective's example builds one",
    "objectives.Reference": "a record for objectives that compare with pictures",
    "objectives.Setting": "a record that the run makes",
    "objectives.Source": "a record; the examples of the objectives build some",
    "objectives.Term": "abstract: its subclasses show it",
    "presets.Recipe": "a record that presets return",
    "presets.recipe": "resolves a name; lucid and article show it",
    "transforms.GeometricTransform": "abstract: its subclasses show it",
    "transforms.Schedule": "abstract: its subclasses show it",
    "transforms.Transform": "abstract: its subclasses show it",
}


def surface() -> dict[str, list[str]]:
    rooms = {TOP: sorted(featviz_pl.__all__)}
    for room in ROOMS:
        rooms[f"{TOP}.{room}"] = sorted(importlib.import_module(f"{TOP}.{room}").__all__)
    return rooms


def public() -> list[tuple[str, Any]]:
    """Return every public class and function by its name below the package."""
    found = []
    for room, names in surface().items():
        for name in names:
            value = getattr(importlib.import_module(room), name)
            if room != f"{TOP}.compat" and (
                inspect.isclass(value) or inspect.isfunction(value)
            ):  # compat: the same classes
                found.append((f"{room}.{name}".removeprefix(f"{TOP}."), value))
    return found


def test_no_public_name_has_vanished() -> None:
    recorded: dict[str, list[str]] = json.loads(RECORD.read_text())
    now = surface()
    vanished = [f"{room}.{name}" for room, names in recorded.items() for name in names if name not in now.get(room, [])]
    assert not vanished, (
        f"public names have vanished: {', '.join(vanished)}. Somebody's program imports them: bring them back, or, where the break is "
        f"meant, write it into CHANGELOG.md and take them out of {RECORD.name}"
    )


def test_no_two_public_classes_have_one_name() -> None:
    rooms: dict[str, set[Any]] = {}
    for path, value in public():
        if inspect.isclass(value):
            rooms.setdefault(path.rpartition(".")[2], set()).add(value)
    assert not [name for name, classes in rooms.items() if len(classes) > 1]


def test_every_public_name_is_recorded() -> None:
    recorded: dict[str, list[str]] = json.loads(RECORD.read_text())
    new = [
        f"{room}.{name}" for room, names in surface().items() for name in names if name not in recorded.get(room, [])
    ]
    assert not new, f"new public names: {', '.join(new)}. Add them to {RECORD}, so that they cannot vanish by accident"


def test_the_record_is_sorted_and_says_everything_once() -> None:
    recorded: dict[str, list[str]] = json.loads(RECORD.read_text())
    assert all(names == sorted(set(names)) for names in recorded.values())


def test_the_two_doors_to_the_callbacks_are_one() -> None:
    assert featviz_pl.callbacks.__all__ == featviz_pl_callbacks.__all__
    for name in featviz_pl_callbacks.__all__:
        assert getattr(featviz_pl.callbacks, name) is getattr(featviz_pl_callbacks, name)


def test_the_top_level_offers_what_the_design_lists() -> None:
    # design.md, section 2, as far as it is built.
    for name in ("FeatureVisualization", "FrozenNetwork", "render", "load_network", "graph_module", *ROOMS):
        assert name in featviz_pl.__all__
        assert getattr(featviz_pl, name) is not None
        assert name in dir(featviz_pl)
    with pytest.raises(AttributeError, match="no attribute 'rendr'"):
        _ = featviz_pl.rendr


@pytest.mark.parametrize(("name", "value"), public(), ids=[name for name, _ in public()])
def test_every_public_class_and_function_is_documented_with_an_example(name: str, value: Any) -> None:
    assert value.__doc__, f"{name} has no docstring"
    assert value.__doc__.strip().splitlines()[0].endswith((".", ":")), (
        f"the first line of {name}'s docstring is no sentence"
    )
    examples = doctest.DocTestParser().get_examples(value.__doc__)
    if name in WITHOUT_EXAMPLE:
        assert not examples, f"{name} has an example now: take it out of WITHOUT_EXAMPLE"
    else:
        assert examples, f"{name} has no example"
        assert any(example.want for example in examples), f"the example of {name} shows no result"


def test_every_exception_still_exists() -> None:
    assert set(WITHOUT_EXAMPLE) <= {name for name, _ in public()}


def test_public_functions_and_constructors_are_annotated() -> None:
    for name, value in public():
        callable_ = value.__init__ if inspect.isclass(value) and "__init__" in vars(value) else value
        if not inspect.isfunction(callable_):
            continue
        parameters = [p for key, p in inspect.signature(callable_).parameters.items() if key != "self"]
        assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters), name


def test_importing_the_package_costs_nothing() -> None:
    code = "import sys, featviz_pl; print(sorted({'torch', 'lightning', 'numpy', 'PIL', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert featviz_pl.__version__ == version("featviz_pl")
