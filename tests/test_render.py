"""The one-call door."""

from __future__ import annotations

import copy
import gc
import random
import signal
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guests import At, always_nan, condition, require_same, shrinking
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from toys import QUIET, toy

from featviz_pl.callbacks import Augmentation, ImageSnapshot
from featviz_pl.images import FourierImage, PixelImage
from featviz_pl.io import read_picture, read_provenance, save_png
from featviz_pl.networks import ActivationReader, FrozenNetwork
from featviz_pl.objectives import L2, Channel
from featviz_pl.presets import Recipe, image_class, lucid, recipe
from featviz_pl.rendering import RenderResult, render
from featviz_pl.training import FeatureVisualization

CPU: dict[str, Any] = {"accelerator": "cpu", "steps": 3, "size": 12}


# What it does.


@pytest.mark.parametrize("target", ["features.5:2", "output:1", Channel("features.5", [0, 3]) - 0.01 * L2()], ids=str)
@pytest.mark.parametrize(
    ("arguments", "of_module", "of_views"),
    [
        ({}, {}, {}),
        ({"views": 2, "preset": "article", "lr": 0.1}, {"preset": "article", "lr": 0.1}, {"views": 2}),
        ({"preset": "xplique", "views": 2}, {"preset": "xplique"}, {"views": 2}),
        ({}, {"image": FourierImage(size=12)}, {}),
    ],
    ids=["defaults", "article", "xplique", "an image that is built"],
)
def test_module_and_augmentation_make_the_pictures_of_render(
    target: Any, arguments: dict[str, Any], of_module: dict[str, Any], of_views: dict[str, Any]
) -> None:
    network = FrozenNetwork(toy(), size=14)
    result = render(network, target, size=12, seed=4, steps=4, accelerator="cpu", **arguments)
    model = FeatureVisualization(network, target, size=12, seed=4, steps=4, **copy.deepcopy(of_module))
    Trainer(max_steps=4, callbacks=[Augmentation(**of_views)], **QUIET).fit(model)
    assert torch.equal(result.images, (model.images * 255).round() / 255)
    assert result.scores == model.scores().tolist()
    assert model.provenance(0)["preset"] == result.provenance[0]["preset"]


def test_what_is_given_to_the_module_wins_over_its_preset() -> None:
    network = FrozenNetwork(toy(), size=14)
    model = FeatureVisualization(network, "features.5:2", optimizer=torch.optim.SGD, image=PixelImage(9), steps=5)
    configured: Any = model.configure_optimizers()
    assert isinstance(configured, torch.optim.SGD)  # and no scheduler
    assert (model.image.size, configured.defaults["lr"], model.steps) == ((9, 9), recipe("featviz").lr, 5)
    assert FeatureVisualization(network, "features.5:2").image.size == (14, 14)


def test_scores_are_those_of_the_pictures_without_views() -> None:
    result = render(toy(), "features.5:1,6", **CPU)
    with torch.no_grad():
        activation = toy().eval().features(result.images)
    assert result.scores == pytest.approx([float(activation[0, 1].mean()), float(activation[1, 6].mean())], rel=1e-4)
    assert result.targets == ["features.5:1", "features.5:6"]
    assert not result.interrupted
    assert result.seconds > 0


def test_pictures_have_the_levels_of_a_file() -> None:
    images = render(toy(), "features.5:1", **CPU).images
    torch.testing.assert_close(images * 255, (images * 255).round(), rtol=0, atol=1e-4)


def test_several_objectives_at_once() -> None:
    result = render(toy(), Channel("features.2", [0, 1, 2]) - 0.01 * L2(), **CPU)
    assert result.images.shape == (3, 3, 12, 12)
    assert len(result.provenance) == 3


def test_a_list_of_targets_and_objectives_renders_each_as_if_it_were_alone() -> None:
    result = render(toy(), ["features.5:1", Channel("features.2", 0), "head:2"], **CPU)
    assert result.targets == ["features.5:1", "features.2:0", "head:2"]
    for index, target in enumerate(result.targets):
        alone = render(toy(), target, **CPU)
        torch.testing.assert_close(result.images[index], alone.images[0], rtol=0, atol=1.5 / 255)
        assert result.scores[index] == pytest.approx(alone.scores[0], rel=1e-3)


def test_every_unit_of_a_layer_and_the_layer_as_a_whole_have_their_own_spelling() -> None:
    units = render(toy(), "features.5:0-7", **CPU)
    every = render(toy(), "features.5:all", **CPU)
    assert every.targets == [f"features.5:{unit}" for unit in range(8)]
    assert torch.equal(every.images, units.images)
    assert FeatureVisualization(toy(), "features.5:all", image=FourierImage(12)).targets == every.targets
    assert render(toy(), "features.5", **CPU).targets == ["features.5"]
    assert len(render(toy(), "features.0:all@1,2", **CPU).targets) == 6


@pytest.mark.parametrize("size", [9, (8, 14)])
def test_the_size_is_as_asked(size: Any) -> None:
    assert render(toy(), "features.5:1", **{**CPU, "size": size}).images.shape[-2:] == ((9, 9) if size == 9 else size)


def test_the_size_is_the_networks_own_unless_given() -> None:
    network = FrozenNetwork(toy(), size=(10, 6))
    assert render(network, "features.5:1", accelerator="cpu", steps=1).images.shape == (1, 3, 10, 6)


@pytest.mark.parametrize("channels", [1, 7])
def test_a_network_of_other_channels_gets_pictures_of_as_many(channels: int) -> None:
    assert render(toy(channels), "features.5:1", **CPU).images.shape == (1, channels, 12, 12)


def test_a_network_by_its_factory() -> None:
    result = render("toys:toy", "features.5:2", **CPU)
    assert torch.equal(result.images, render(toy(), "features.5:2", **CPU).images)
    assert result.provenance[0]["network"] == "toys:toy"


def test_zoo_network_with_random_weights() -> None:
    result = render("squeezenet1_0", "features.3:5", weights="none", accelerator="cpu", steps=1, size=32)
    assert result.images.shape == (1, 3, 32, 32)
    assert result.provenance[0]["network"] == "squeezenet1_0"


# The image.


@pytest.mark.parametrize(
    ("name", "kind"), [("fourier", FourierImage), ("pixel", PixelImage), ("PixelImage", PixelImage)]
)
def test_an_image_by_name(name: str, kind: type) -> None:
    assert image_class(name) is kind
    assert render(toy(), "features.5:1", image=name, **CPU).provenance[0]["image"].startswith(kind.__name__)


def test_provenance_tells_precisions_and_starts_apart() -> None:
    plain = render(toy(), "features.5:1", **CPU).provenance[0]
    assert (plain["preset"], plain["precision"], "start" in plain) == ("featviz", "32-true", False)
    first, again, other = (
        render(toy(), "features.5:1", start=begun, precision="bf16-mixed", **CPU).provenance[0]
        for begun in (start(), start(), 1 - start())
    )
    assert first["precision"] == "bf16-mixed"
    assert len(first["start"]) == 16
    assert first["start"] == again["start"] != other["start"]


def test_an_image_that_is_built() -> None:
    image = PixelImage((6, 8))
    result = render(toy(), "features.5:1", image=image, accelerator="cpu", steps=2)
    assert result.images.shape == (1, 3, 6, 8)
    assert result.provenance[0]["image"].startswith("PixelImage(size=(6, 8)")


def test_a_size_beside_a_built_image_must_be_its_own() -> None:
    with pytest.raises(ValueError, match=r"size: 9 differs from that of the image, \(6, 8\)"):
        render(toy(), "features.5:1", image=PixelImage((6, 8)), size=9)


def start() -> Tensor:
    return torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(9)) * 0.8 + 0.1


@pytest.mark.parametrize("from_file", [False, True], ids=["tensor", "file"])
def test_a_start_is_where_the_run_begins_and_sets_the_size(tmp_path: Path, from_file: bool) -> None:
    given: Any = save_png(start(), tmp_path / "start.png") if from_file else start()
    result = render(toy(), "features.5:1", start=given, steps=1, lr=1e-6, accelerator="cpu")
    assert float((result.images[0] - start()).abs().max()) < 1.5 / 255


def test_a_start_is_brought_to_the_size_asked_for() -> None:
    flat = torch.full((3, 20, 10), 0.25)
    result = render(toy(), "features.5:1", start=flat, size=(8, 16), steps=1, lr=1e-6, accelerator="cpu")
    torch.testing.assert_close(result.images, torch.full((1, 3, 8, 16), 0.25), rtol=0, atol=1.5 / 255)


def test_one_start_begins_every_picture() -> None:
    result = render(toy(), "features.5:1,2", start=start(), steps=1, lr=1e-6, accelerator="cpu")
    assert float((result.images - start()).abs().max()) < 1.5 / 255


# Presets.


def test_a_recipe_of_ones_own() -> None:
    own = Recipe("own", "here", PixelImage, lucid().transforms, 2, torch.optim.SGD, 1.0, 4)
    assert recipe(own) is own
    result = render(toy(), "features.5:1", preset=own, size=12, accelerator="cpu")
    assert (result.provenance[0]["preset"], result.provenance[0]["steps"], result.provenance[0]["lr"]) == (
        "own",
        4,
        1.0,
    )


# Equal runs, and runs that leave no trace.


def test_two_runs_with_one_seed_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = (
        render("toys:toy", "features.5:0-2", views=2, seed=3, **CPU).save(tmp_path / str(run) / "a.png")
        for run in range(2)
    )
    assert [path.name for path in one] == [path.name for path in two]
    for first, second in zip([*one, tmp_path / "0" / "a.png"], [*two, tmp_path / "1" / "a.png"]):
        assert first.read_bytes() == second.read_bytes()


def test_another_seed_gives_another_picture() -> None:
    assert not torch.equal(
        render(toy(), "features.5:0", seed=0, **CPU).images, render(toy(), "features.5:0", seed=1, **CPU).images
    )


def test_global_generators_are_left_as_found() -> None:
    state = torch.get_rng_state(), np.random.get_state(legacy=True), random.getstate()  # noqa: NPY002 - the global one is meant
    render("toys:toy", "features.5:0-1", preset="article", **CPU)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert str(np.random.get_state(legacy=True)) == str(state[1])  # noqa: NPY002
    assert random.getstate() == state[2]


def test_the_network_is_left_as_it_was() -> None:
    network = toy().train()
    before = condition(network)
    render(network, "features.5:0-1", **CPU)
    require_same(before, condition(network))


def test_nothing_stays_in_memory_after_many_renders() -> None:
    network = toy()

    def alive() -> tuple[int, int]:
        gc.collect()
        things = gc.get_objects()
        modules = [thing for thing in things if issubclass(type(thing), nn.Module)]
        return len(modules), sum(issubclass(type(thing), Tensor) for thing in things)

    render(network, "features.5:0-1", **CPU)
    before = alive()
    for _ in range(3):
        render(network, "features.5:0-1", **CPU)
    assert alive() == before


# The result.


def test_one_picture_is_saved_alone(tmp_path: Path) -> None:
    result = render(FrozenNetwork(toy(), name="a toy"), "features.5:2", seed=6, views=3, **CPU)
    assert result.save(tmp_path / "a.png") == [tmp_path / "a.png"]
    assert torch.equal(read_picture(tmp_path / "a.png"), result.images[0])
    origin = read_provenance(tmp_path / "a.png")
    assert origin == result.provenance[0]
    expected = {"network": "a toy", "target": "features.5:2", "preset": "featviz", "seed": 6, "steps": 3}
    assert {name: origin[name] for name in expected} == expected
    assert "size=(12, 12)" in origin["image"]
    assert origin["score"] == result.scores[0]
    assert len(origin["weights"]) == 16
    assert {"featviz_pl", "torch"} <= set(origin)


def test_several_pictures_are_saved_each_and_in_a_sheet(tmp_path: Path) -> None:
    result = render(toy(), "features.5:2,0", **CPU)
    paths = result.save(tmp_path / "out" / "a.png")
    assert [path.name for path in paths] == ["a-2.png", "a-0.png"]
    for path, image, target in zip(paths, result.images, result.targets):
        assert torch.equal(read_picture(path), image)
        assert read_provenance(path)["target"] == target
    sheet = read_provenance(tmp_path / "out" / "a.png")
    assert (sheet["target"], sheet["score"]) == (result.targets, result.scores)
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_pictures_of_one_unit_in_two_layers_get_names_of_their_own(tmp_path: Path) -> None:
    origin: dict[str, Any] = {}
    result = RenderResult(torch.zeros(2, 3, 4, 4), [0.0, 0.0], ["a:1", "b:1"], [origin, origin], 0.0)
    assert [path.name for path in result.save(tmp_path / "x.png")] == ["x-0.png", "x-1.png"]


def test_a_result_shows_itself_in_a_notebook() -> None:
    shown = render(toy(), "features.5:2,0", **CPU)._repr_html_()
    assert shown.count("data:image/png;base64,") == 2
    assert "features.5:2" in shown


def test_an_interrupt_keeps_what_was_done() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    result = render(toy(), "features.5:2", callbacks=[At(2, interrupt)], **{**CPU, "steps": 6})
    assert result.interrupted
    assert result.provenance[0]["steps"] == 2
    short = render(toy(), "features.5:2", **{**CPU, "steps": 6}, callbacks=[At(6, lambda: None)])
    assert not short.interrupted
    assert not torch.equal(short.images, result.images)


def test_an_interrupt_before_the_first_step_stays_one() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render(toy(), "features.5:2", callbacks=[At(0, interrupt, before=True)], **CPU)


def test_callbacks_are_passed_on(tmp_path: Path) -> None:
    render(toy(), "features.5:2", callbacks=[ImageSnapshot(tmp_path, every=2)], **CPU)
    assert {"step-000002.png", "final.png", "animation.webp"} == {path.name for path in tmp_path.iterdir()}


# What cannot work.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"views": 0}, "views must be at least 1"),
        ({"size": 0}, "size must be at least 1"),
        ({"size": (4, 4, 4)}, r"size must be one number or \(height, width\)"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"preset": "lucit"}, "unknown preset 'lucit'; did you mean 'lucid'"),
        ({"image": "furier"}, "unknown parameterization 'furier'; did you mean 'fourier'"),
        ({"target": "features.5:8"}, "has 8 units"),
        ({"target": "features.6:0"}, "no layer 'features.6'"),
        ({"target": None}, "target: say what to look for"),
        ({"start": "missing.png"}, "cannot read a picture from 'missing.png'"),
        ({"network": "toys:toi"}, "cannot import 'toys:toi'"),
        ({"network": always_nan(), "target": "output:0"}, "step 0: the score is not finite"),
        (
            {"network": shrinking(), "target": "output:0", "size": 5},
            "a picture of 5 x 5 is too small for output; the least size that works is 7",
        ),
    ],
    ids=str,
)
def test_what_cannot_work_is_one_clear_error(arguments: dict[str, Any], message: str) -> None:
    given = {"network": toy(), "target": "features.5:0", **CPU, **arguments}
    with pytest.raises(ValueError, match=message) as caught:
        render(**given)
    assert "\n" not in str(caught.value)


def test_only_the_first_process_of_a_run_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert render(toy(), "features.5:2", **CPU).is_writer
    monkeypatch.setattr(Trainer, "is_global_zero", property(lambda _: False))
    assert not render(toy(), "features.5:2", **CPU).is_writer


def test_ctrl_c_works_again_after_an_interrupted_run() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    try:
        render(toy(), "features.5:2", callbacks=[At(1, interrupt)], **CPU)
        assert signal.getsignal(signal.SIGINT) == before
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_callers_image_stays_as_it_was_given() -> None:
    given = FourierImage(12)
    first, second = (render(toy(), "features.5:2", image=given, accelerator="cpu", steps=3) for _ in range(2))
    assert given.count is None
    assert torch.equal(first.images, second.images)


@pytest.mark.parametrize(
    "start", [torch.full((3, 12, 12), 200.0), torch.zeros(12, 12), torch.zeros(3, 12, 12, dtype=torch.uint8)]
)
def test_a_start_that_is_no_picture_is_refused(start: Tensor) -> None:
    with pytest.raises(ValueError, match="start must"):
        render(toy(), "features.5:2", start=start, accelerator="cpu", steps=1)


def test_an_exit_that_is_no_interrupt_goes_on() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as stopped:
        render(toy(), "features.5:2", callbacks=[At(1, leave)], **CPU)
    assert stopped.value.code == 3


def test_a_render_that_is_told_to_end_says_so_to_whoever_started_it() -> None:
    def told() -> None:
        raise SIGTERMException  # as Lightning does after the step in which SIGTERM came

    with pytest.raises(SystemExit) as ended:
        render(toy(), "features.5:1", size=8, steps=4, callbacks=[At(2, told)], accelerator="cpu")
    assert ended.value.code == 143


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_nothing_large_waits_for_the_collector_of_cycles(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[object]] = []
    for kind in (ActivationReader, torch.fx.GraphModule):
        make = kind.__init__

        def noted(self: object, *arguments: Any, make: Any = make, **more: Any) -> None:
            held.append(weakref.ref(self))
            make(self, *arguments, **more)

        monkeypatch.setattr(kind, "__init__", noted)
    gc.collect()
    gc.disable()
    try:
        result = render(toy(), "features.5:1", size=16, steps=2, precision=precision, accelerator="cpu")
        assert len(held) >= 2
        assert not [one() for one in held if one() is not None]
    finally:
        gc.enable()
    assert result.images.shape == (1, 3, 16, 16)
