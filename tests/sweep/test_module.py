"""Sweeps: which units are rendered, in which batches, and that a picture is nobody's but its own."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from guests import condition, require_same
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from runs import fit
from sweep_networks import partly_dead
from torch import Tensor, nn
from toys import QUIET, SHARED, adam, needs_shared, toy

from featviz_pl.callbacks import Augmentation
from featviz_pl.engine import Ascent, NonFiniteError, ascend
from featviz_pl.engine.picture_health import DEAD_AFTER
from featviz_pl.images import FourierImage, PixelImage, SharedImage
from featviz_pl.networks import ActivationReader, FrozenNetwork, LayerInfo, load_network
from featviz_pl.objectives import Channel, Target
from featviz_pl.presets import lucid
from featviz_pl.sweep import FeatureSweep, FeatureTargets, RenderedBatch
from featviz_pl.sweep.targets import TargetBatch, TargetBatches, batches_of, parse_sweep, resolve_units, target_order
from featviz_pl.training import FeatureVisualization
from featviz_pl.transforms import Compose, Jitter, Views

TINY: dict[str, Any] = {"steps": 3, "size": 12}


def predict(
    sweep: FeatureSweep, targets: FeatureTargets, *callbacks: Callback, **arguments: Any
) -> list[RenderedBatch]:
    trainer = Trainer(**{**QUIET, "callbacks": list(callbacks), **arguments})
    found: list[RenderedBatch] = trainer.predict(sweep, targets)  # type: ignore[assignment]
    return found


def pictures(
    sweep: FeatureSweep, targets: str | Sequence[str], batch_size: int = 4, **arguments: Any
) -> dict[str, Tensor]:
    batches = predict(sweep, FeatureTargets(targets, batch_size), **arguments)
    return {name: image for batch in batches for name, image in zip(batch.targets, batch.images)}


# Which units.

LAYERS = [
    LayerInfo("a.0", "Conv2d", (6, 8, 8), 6),
    LayerInfo("a.1", "Conv2d", (3, 8, 8), 3),
    LayerInfo("b", "Linear", (2,), 2),
]
FORMS: list[tuple[list[str], dict[str, tuple[int, ...]]]] = [
    (["a.1:all"], {"a.1": (0, 1, 2)}),
    (["a.0:1-3"], {"a.0": (1, 2, 3)}),
    (["a.0:5,1"], {"a.0": (1, 5)}),
    (["a.*:all"], {"a.0": (0, 1, 2, 3, 4, 5), "a.1": (0, 1, 2)}),
    (["a.*:2-4"], {"a.0": (2, 3, 4), "a.1": (2,)}),
    (["*:1"], {"a.0": (1,), "a.1": (1,), "b": (1,)}),
    (["b:all", "a.0:0", "b:1", "a.?:0"], {"a.0": (0,), "a.1": (0,), "b": (0, 1)}),
    (["a.[01]:4-5"], {"a.0": (4, 5)}),
]


@pytest.mark.parametrize(
    ("entries", "expected"), FORMS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_targets_are_resolved_each_once_in_the_order_of_the_network(
    entries: list[str], expected: dict[str, tuple[int, ...]]
) -> None:
    found = resolve_units(parse_sweep(entries), LAYERS)
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["a.2:all"], r"unknown layer .* 'a\.2'; did you mean 'a\.[01]'"),
        (["c.*:all"], r"unknown layer .* 'c\.\*'"),
        (["a.0:6"], r"'a\.0' has 6 units, 0 to 5; there is no 6"),
        (["a.*:0-6"], r"'a\.\*' has 6 units, 0 to 5; there is no 6"),
        (["a.0:3-1"], "ends before it begins"),
        (["a.0:-1"], "negative unit"),
        (["a.0:1@2,3"], "targets: 'a.0:1@2,3' is one position"),
        (["a.0"], "targets: 'a.0' is the whole layer, one picture; write 'a.0:all'"),
        (["output:church"], "targets: 'output:church' names a class"),
        (["a b"], "does not parse"),
        ([""], "does not parse"),
        ([], "there are none"),
        (["missing.txt"], "cannot read 'missing.txt': No such file"),
    ],
    ids=str,
)
def test_impossible_targets_are_refused(entries: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_units(parse_sweep(entries), LAYERS)


def test_a_file_holds_one_target_on_each_line_with_comments(tmp_path: Path) -> None:
    file = tmp_path / "units.txt"
    file.write_text("# those of interest\na.0:1-2\n\n  a.1:all   # every one\nb:1\n")
    assert parse_sweep(str(file)) == [Target("a.0", (1, 2)), Target("a.1", "all"), Target("b", (1,))]
    assert parse_sweep(["a.0:0", str(file)])[0] == Target("a.0", (0,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.0:1\n# fine\na.0:x:y\n", r"line 3: target: 'a\.0:x:y' does not parse"),
        ("a.0:3-1\n", "line 1: target: .* ends before it begins"),
        ("a.0:1\nb:cat\n", "line 2: target: 'b:cat' does not parse"),
        ("a.0:1\n\noutput:cat\n", "line 3: targets: 'output:cat' names a class"),
        ("# nothing\n\n", "names none"),
    ],
)
def test_a_bad_line_of_a_file_is_refused_with_its_number(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "units.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        FeatureTargets(str(file))


@pytest.mark.parametrize("size", [0, -1, 1.5, "many", True])
def test_impossible_batch_sizes_are_refused(size: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="batch_size must be"):
        FeatureTargets("a:all", size)


def test_numbers_in_names_are_ordered_by_value() -> None:
    ordered = ["conv:0", "features.9:2", "features.9:10", "features.10:1", "features.10.bias:0", "output:3"]
    backward = list(reversed(ordered))
    assert sorted(backward, key=target_order) == ordered


# In which batches.


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_each_unit_is_in_one_batch_of_one_process_and_every_batch_is_full(size: int, ranks: int) -> None:
    units = {"a": tuple(range(7)), "b": (3,), "c": (5, 9)}
    targets = FeatureTargets("a:all", size)
    targets.units = units
    shares = [targets.batches(rank, ranks) for rank in range(ranks)]
    rendered = [target for share in shares for batch in share for target in batch.targets]
    assert sorted(rendered) == sorted(f"{layer}:{unit}" for layer, own in units.items() for unit in own)
    for batch in (batch for share in shares for batch in share):
        assert len(batch.units) == size
        assert set(batch.units) <= set(units[batch.layer])
        assert batch.padding == size - len(batch.targets)
    assert {batch for share in shares for batch in share} == set(targets.batches())
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_last_batch_is_filled_with_its_own_units() -> None:
    assert batches_of({"a": (4, 6, 8)}, 2) == [TargetBatch("a", (4, 6), 0), TargetBatch("a", (8, 8), 1)]


def test_what_is_finished_has_no_place_in_any_batch() -> None:
    targets = FeatureTargets("a:all", 3)
    targets.units = {"a": tuple(range(8)), "b": (1, 2)}
    targets.finished = {"a:1", "a:3", "a:4", "b:1", "b:2"}
    assert [(batch.units, batch.padding) for batch in targets.batches()] == [((0, 2, 5), 0), ((6, 7, 6), 1)]
    assert [batch.units for rank in (0, 1) for batch in targets.batches(rank, 2)] == [(0, 2, 5), (6, 7, 6)]


def test_a_process_without_work_gets_one_empty_batch() -> None:
    assert [batch.targets for batch in TargetBatches([])] == [[]]
    assert len(TargetBatches([])) == 1


def test_more_processes_than_units_are_refused() -> None:
    targets = FeatureTargets("features.5:0-2", 2)
    targets.bind(FeatureSweep(toy(), **TINY), 3)
    with pytest.raises(ValueError, match="devices: 3 targets cannot be divided over 4 processes; give at most 3"):
        targets.bind(FeatureSweep(toy(), **TINY), 4)


def test_targets_belong_to_a_sweep() -> None:
    with pytest.raises(TypeError, match="FeatureTargets belong to a FeatureSweep, not to FeatureVisualization"):
        Trainer(**QUIET).predict(
            FeatureVisualization(toy(), "features.5:1", image=FourierImage(8)), FeatureTargets("features.5:all", 2)
        )


# What they look like.


@pytest.mark.parametrize("preset", ["lucid", "article"])
def test_a_picture_is_the_one_that_a_training_of_its_own_makes(preset: str) -> None:
    swept = pictures(FeatureSweep(toy(), preset, seed=5, steps=20, size=14), "features.5:1,4,6", 2)
    for unit in (1, 4, 6):
        alone = FeatureVisualization(toy(), Channel("features.5", unit), preset=preset, size=14, seed=5)
        fit(alone, 20, [Augmentation()])
        torch.testing.assert_close(swept[f"features.5:{unit}"], alone.images[0], rtol=0, atol=1.5 / 255)


def test_a_picture_depends_on_neither_its_companions_nor_its_place() -> None:
    sweep = FeatureSweep(toy(), steps=12, size=13, seed=1)
    first = pictures(sweep, "features.5:1-4")
    assert torch.equal(pictures(sweep, "features.5:1,5,6,7")["features.5:1"], first["features.5:1"])
    assert torch.equal(pictures(sweep, "features.5:0,2,3,4")["features.5:4"], first["features.5:4"])
    padded = pictures(sweep, "features.5:3")
    assert list(padded) == ["features.5:3"]
    assert torch.equal(padded["features.5:3"], first["features.5:3"])


@needs_shared
@pytest.mark.parametrize("layer", ["features.9", "output"])
def test_companions_do_not_matter_in_a_real_network_either(layer: str) -> None:
    network = load_network("squeezenet1_0", SHARED / "weights" / "squeezenet1_0.pth")
    sweep = FeatureSweep(network, steps=2, size=64)
    one, other = pictures(sweep, f"{layer}:10-12", 3), pictures(sweep, f"{layer}:10,30,50", 3)
    assert torch.equal(one[f"{layer}:10"], other[f"{layer}:10"])
    assert not torch.equal(one[f"{layer}:11"], one[f"{layer}:12"])


def test_seeds_and_units_make_different_pictures() -> None:
    one, other = (
        pictures(FeatureSweep(toy(), **TINY), "features.5:0-1"),
        pictures(FeatureSweep(toy(), **TINY, seed=1), "features.5:0-1"),
    )
    shown = [*one.values(), *other.values()]
    assert all(not torch.equal(a, b) for index, a in enumerate(shown) for b in shown[:index])


def test_a_batch_says_what_it_holds() -> None:
    (batch,) = predict(FeatureSweep(toy(), **TINY), FeatureTargets("features.5:2-3", 4))
    assert batch.targets == ["features.5:2", "features.5:3"]
    assert batch.failures == [None, None]
    assert batch.images.shape == (2, 3, 12, 12)
    assert torch.equal((batch.images * 255).round() / 255, batch.images)
    expected = toy().eval().features(batch.images).mean((2, 3))
    assert batch.scores == pytest.approx([expected[0, 2].item(), expected[1, 3].item()], rel=1e-5)
    for target, unit, score, origin in zip(batch.targets, (2, 3), batch.scores, batch.provenance):
        assert (origin["target"], origin["objective"], origin["score"]) == (
            target,
            f"Channel('features.5', {unit})",
            score,
        )
        assert (origin["network"], origin["preset"], origin["seed"], origin["steps"]) == ("ToyNet", "featviz", 0, 3)
        assert (origin["size"], origin["batch_size"], origin["precision"]) == ([12, 12], 4, "32-true")
        assert origin["weights"] == FrozenNetwork(toy()).weights_hash()
        assert set(origin) >= {"featviz_pl", "torch", "image", "views", "optimizer", "lr", "mean", "std"}


def test_a_recipe_is_followed() -> None:
    class Stop:
        """Leave the learning rate as it is for one step, then set it to zero."""

        def __init__(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
            assert steps == 6
            self.optimizer = optimizer

        def step(self) -> None:
            for group in self.optimizer.param_groups:
                group["lr"] = 0.0

    base = replace(lucid(), transforms=Compose([]), size=10, optimizer=torch.optim.SGD, lr=3.0)
    short = pictures(FeatureSweep(toy(), replace(base, steps=1)), "features.5:0-1")
    stopped = pictures(FeatureSweep(toy(), replace(base, steps=6, scheduler=Stop)), "features.5:0-1")  # type: ignore[arg-type]
    unstopped = pictures(FeatureSweep(toy(), replace(base, steps=6)), "features.5:0-1")
    assert short["features.5:0"].shape == (3, 10, 10)
    assert torch.equal(short["features.5:0"], stopped["features.5:0"])
    assert not torch.equal(unstopped["features.5:0"], stopped["features.5:0"])


def test_arguments_go_before_the_recipe() -> None:
    sweep = FeatureSweep(
        toy(), "article", image="pixel", size=(8, 10), views=2, steps=4, lr=0.3, optimizer=torch.optim.SGD, seed=9
    )
    settings = sweep.settings()
    assert (settings["size"], settings["steps"], settings["lr"], settings["optimizer"]) == ([8, 10], 4, 0.3, "SGD")
    assert settings["image"].startswith("PixelImage")
    assert "count=2" in settings["views"]
    (shown,) = pictures(sweep, "features.5:1", 1).values()
    assert shown.shape == (3, 8, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"views": 0}, "views must be at least 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": 1e40}, "lr must be above 0 and at most"),
        ({"size": 10**6}, "size: .* take at least"),
        ({"steps": 10**30}, "steps must be at most"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"size": 0}, "size must be at least 1"),
        ({"preset": "lucit"}, "unknown preset 'lucit'; did you mean 'lucid'"),
        ({"image": "furier"}, "unknown parameterization 'furier'"),
        ({"image": FourierImage(8), "size": 9}, "size: 9 differs from that of the image"),
    ],
    ids=str,
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureSweep(toy(), **arguments)


def test_batches_beyond_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featviz_pl.numerics.host_memory.total_memory", lambda: 3 * 16 * 100 * 100 * 7)
    sweep = FeatureSweep(toy(), "lucid", size=100)
    sweep.ascent("features.5", range(7), "cpu")
    with pytest.raises(ValueError, match="size: 8 pictures of 100 x 100 take at least"):
        sweep.ascent("features.5", range(8), "cpu")


def test_pictures_that_share_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="pictures of SharedImage share weights"):
        pictures(FeatureSweep(toy(), image=SharedImage(PixelImage(8)), steps=2), "features.5:0-3")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("64-true", torch.float64), ("bf16-mixed", torch.float32), ("bf16-true", torch.float32)]
)
def test_precision_is_for_the_network(precision: Any, dtype: torch.dtype) -> None:
    sweep = FeatureSweep(toy(), "lucid", steps=12, size=12)
    exact, shown = pictures(sweep, "features.5:0-2"), pictures(sweep, "features.5:0-2", precision=precision)
    for target, image in shown.items():
        assert image.dtype == dtype
        assert float((image - exact[target]).abs().mean()) < 0.02
        assert not torch.equal(image.float(), torch.full_like(exact[target], 0.5))


@pytest.mark.parametrize(
    "change",
    [
        {"preset": replace(lucid(), optimizer_arguments={"betas": (0.5, 0.9)})},
        {"preset": replace(lucid(), scheduler=torch.optim.lr_scheduler.CosineAnnealingLR)},
        {"image": FourierImage(12, color=torch.eye(3).tolist())},
        {"preset": replace(lucid(), output_overrides={"optimizer_arguments": {"eps": 1e-3}})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings_tell_apart_whatever_makes_other_pictures(change: dict[str, Any]) -> None:
    plain: dict[str, Any] = {
        "preset": "lucid",
        "image": FourierImage(12, color=(2 * torch.eye(3)).tolist()),
        "steps": 3,
    }
    assert FeatureSweep(toy(), **plain).settings() == FeatureSweep(toy(), **plain).settings()
    assert FeatureSweep(toy(), **{**plain, **change}).settings() != FeatureSweep(toy(), **plain).settings()


def test_units_of_the_output_are_seen_and_optimised_as_the_recipe_says_of_outputs() -> None:
    class Watched(torch.optim.SGD):
        decays: ClassVar[list[float]] = []

        def __init__(self, parameters: Any, lr: float, weight_decay: float = 0.0) -> None:
            super().__init__(parameters, lr=lr, weight_decay=weight_decay)
            self.decays.append(weight_decay)

    inner = replace(
        lucid(), optimizer=Watched, optimizer_arguments={"weight_decay": 0.25}, transforms=Compose([Jitter(2)])
    )
    outer = {"optimizer_arguments": {"weight_decay": 0.5}, "transforms": Compose([Jitter(3)])}
    sweep = FeatureSweep(toy(), replace(inner, output_overrides=outer), **TINY)
    for layer, decay, transforms in (("features.5", 0.25, inner.transforms), ("output", 0.5, outer["transforms"])):
        Watched.decays.clear()
        pictures(sweep, f"{layer}:0-1")
        assert Watched.decays[-1] == decay
        assert repr(sweep.views_of(layer).transforms) == repr(transforms)
    settings = sweep.settings()
    assert ("Jitter(2)" in settings["views"], "Jitter(3)" in settings["views_of_outputs"]) == (True, True)
    assert "views_of_outputs" not in FeatureSweep(toy(), inner, **TINY).settings()


def test_the_network_is_a_guest() -> None:
    network = toy().train()
    before = condition(network)
    pictures(FeatureSweep(network, **TINY), "features.5:0-4", 2)
    require_same(before, condition(network))


def test_global_random_numbers_are_left_alone() -> None:
    before = torch.random.get_rng_state()
    pictures(FeatureSweep(toy(), **TINY), "features.5:0-4", 2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_module_has_nothing_to_train_or_to_save() -> None:
    sweep = FeatureSweep(toy(), **TINY)
    assert list(sweep.parameters()) == []
    assert sweep.state_dict() == {}


def test_copies_and_pickles_render_the_same() -> None:
    sweep, targets = FeatureSweep(toy(), **TINY), FeatureTargets("features.5:0-2", 2)
    expected = predict(sweep, targets)
    for _ in range(2):  # fresh, and after a sweep
        for copied in (copy.deepcopy(sweep), pickle.loads(pickle.dumps(sweep))):
            again = predict(copied, FeatureTargets("features.5:0-2", 2))
            assert [batch.scores for batch in again] == [batch.scores for batch in expected]
    fresh = FeatureTargets(["features.5:0-2"], 3)
    for other in (copy.deepcopy(fresh), pickle.loads(pickle.dumps(fresh))):
        assert (other.requested, other.batch_size) == (fresh.requested, 3)


# Lightning 2.6 calls a method that jsonargparse 4.53 deprecates.
@pytest.mark.filterwarnings("ignore:(?s).*:jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_a_configuration_file_builds_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["featviz"])
    config = tmp_path / "sweep.yaml"
    quiet = "".join(f", {name}: {str(value).lower()}" for name, value in QUIET.items())
    config.write_text(
        "model: {network: 'toys:toy', preset: article, image: pixel, size: [8, 10], views: 2, steps: 2, lr: 0.1, seed: 3}\n"
        "data: {targets: ['features.0:all', 'features.5:0-2'], batch_size: 2}\n"
        f"trainer: {{callbacks: [{{class_path: FeatureWriter, init_args: {{folder: {tmp_path / 'atlas'}}}}}]{quiet}}}\n"
    )
    arguments: dict[str, Any] = {"run": False, "save_config_callback": None, "seed_everything_default": False}
    built = LightningCLI(FeatureSweep, FeatureTargets, args=["--config", str(config)], **arguments)
    built.trainer.predict(built.model, built.datamodule, return_predictions=False)
    assert len(list((tmp_path / "atlas").glob("*/*.png"))) == 9


# What fails.


class Brittle(nn.Module):
    """Unit 0 is red; unit 1 rises with green until it breaks beyond 0.6; unit 2 is off and nothing turns it on; unit 3 is blue."""

    def forward(self, x: Tensor) -> Tensor:
        red, green, blue = x.unbind(1)
        return torch.stack([red, -torch.log(0.6 - green), torch.relu(0 * blue - 1), blue], dim=1)


def brittle(steps: int = 24, **arguments: Any) -> FeatureSweep:
    image = PixelImage(6, color="none")
    return FeatureSweep(
        Brittle(), replace(lucid(), transforms=Compose([])), image=image, lr=0.1, steps=steps, **arguments
    )


def test_a_unit_that_fails_is_reported_and_harms_nobody() -> None:
    (batch,) = predict(brittle(), FeatureTargets("output:all", 4))
    assert batch.failures[0] is None
    assert batch.failures[3] is None
    assert batch.failures[1] is not None
    assert batch.failures[2] == "no gradient reaches the picture: nothing turns the unit on"
    # sigmoid(0.1 t) passes 0.6 after 4 or 5 steps of Adam, which goes by its learning rate
    broken = int(batch.failures[1].removeprefix("the score or the gradient of step ").removesuffix(" is not finite"))
    assert 3 <= broken <= 6
    healthy = pictures(brittle(), "output:0,3", 4)
    assert torch.equal(batch.images[0], healthy["output:0"])
    assert torch.equal(batch.images[3], healthy["output:3"])
    assert float(batch.images[0][0].min()) > 0.8
    assert float(batch.images[3][2].min()) > 0.8


@pytest.mark.parametrize("steps", [3, 16, 17, 40])
def test_a_dead_unit_is_told_in_runs_of_any_length(steps: int) -> None:
    (batch,) = predict(brittle(steps), FeatureTargets("output:0,2", 2))
    assert batch.failures == [None, "no gradient reaches the picture: nothing turns the unit on"]


def test_a_unit_that_only_the_redirected_gradient_moves_is_dead() -> None:
    convolution = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        convolution.load_state_dict({"weight": torch.ones(2, 3, 1, 1), "bias": torch.tensor([0.0, -1000.0])})
    sweep = FeatureSweep(nn.Sequential(convolution, nn.ReLU()), steps=30, size=6)
    (batch,) = predict(sweep, FeatureTargets("1:all", 2))
    assert [failure is None for failure in batch.failures] == [True, False]


def dead_beside_live(**arguments: Any) -> FeatureSweep:
    recipe = replace(lucid(), transforms=Compose([]))
    return FeatureSweep(partly_dead(), recipe, image=PixelImage(6, color="none"), **arguments)


@pytest.mark.parametrize(("units", "steps"), [("1:1", DEAD_AFTER), ("1:0-1", 80)])
def test_a_batch_ends_early_only_when_all_its_units_have_failed(units: str, steps: int) -> None:
    sweep, taken = dead_beside_live(steps=80), list[int]()
    sweep.on_render_step = taken.append
    (batch,) = predict(sweep, FeatureTargets(units, 2))
    assert taken == list(range(steps))
    assert batch.failures[-1] == "no gradient reaches the picture: nothing turns the unit on"
    assert batch.failures[:-1] == [None] * (len(batch.targets) - 1)


def test_an_optimizer_that_looks_at_whole_tensors_couples_no_pictures() -> None:
    class ByNorm(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.grad /= parameter.grad.norm()
            super().step(closure)

    sweep = FeatureSweep(toy(), **TINY, optimizer=ByNorm, lr=1.0)
    first, second = pictures(sweep, "features.5:1-2", 2), pictures(sweep, "features.5:1,6", 2)
    assert torch.equal(first["features.5:1"], second["features.5:1"])


def test_without_a_record_of_failures_the_bare_loop_stops_as_before() -> None:
    with pytest.raises(NonFiniteError, match="is not finite"):
        ascend(
            Ascent(PixelImage(6, color="none"), FrozenNetwork(Brittle()), Channel("output", [0, 1])),
            steps=24,
            optimizer=adam(0.1),
        )


def test_the_record_of_failures_changes_no_healthy_run() -> None:
    def run(failures: dict[int, str] | None) -> tuple[Tensor, Tensor]:
        made = Ascent(
            FourierImage(10), FrozenNetwork(toy()), Channel("features.5", [1, 6]), views=Views(lucid().transforms, 2)
        )
        return ascend(made, steps=20, optimizer=adam(), failures=failures), made.image().detach()

    failures: dict[int, str] = {}
    (scores, shown), (watched_scores, watched) = run(None), run(failures)
    assert failures == {}
    assert torch.equal(scores, watched_scores)
    assert torch.equal(shown, watched)


# How much memory.


def test_nothing_of_a_batch_outlives_it() -> None:
    alive: list[int] = []

    class Count(Callback):
        def on_predict_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *more: Any
        ) -> None:
            kinds = (Ascent, ActivationReader, FourierImage, torch.optim.Optimizer)
            alive.append(sum(issubclass(type(held), kinds) for held in gc.get_objects()))

    gc.collect()
    gc.disable()  # a cycle would hold a batch's memory until the collector happens to run
    try:
        Trainer(**{**QUIET, "callbacks": [Count()]}).predict(
            FeatureSweep(toy(), **TINY),
            FeatureTargets(["features.0:0-2", "features.5:0-1"], 1),
            return_predictions=False,
        )
    finally:
        gc.enable()
    assert len(alive) == 5
    assert set(alive[1:]) == {alive[1]}, alive
