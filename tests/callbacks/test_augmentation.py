"""The views of a run: who owns them, when, and how strong."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from guests import At
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from toys import QUIET, toy

from featviz_pl.callbacks import Augmentation
from featviz_pl.images import FourierImage
from featviz_pl.training import FeatureVisualization
from featviz_pl.transforms import Compose, Jitter, Linear, Rotate, Transform, Views, view_preset


def model(target: str = "features.5:1") -> FeatureVisualization:
    return FeatureVisualization(toy(), target, image=FourierImage(10))


def fit(module: FeatureVisualization, *callbacks: Callback, max_steps: int = 2) -> None:
    Trainer(max_steps=max_steps, callbacks=list(callbacks), **QUIET).fit(module)


class RollByOne(Transform):
    """Shift by a whole number of pixels, and remember the shapes that arrive and the strengths asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []
        self.strengths: list[float] = []

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        return torch.randint(-2, 3, (n,), generator=generator)

    def weaken(self, parameters: Tensor, strength: float) -> Tensor:
        self.strengths.append(strength)
        return parameters

    def apply(self, image: Tensor, parameters: Tensor) -> Tensor:  # type: ignore[override]
        self.seen.append(tuple(image.shape))
        return torch.stack([one.roll(int(shift), -1) for one, shift in zip(image, parameters)])


@pytest.mark.parametrize(("name", "views"), [("lucid", 1), ("article", 4)])
def test_presets_bring_their_own_number_of_views(name: str, views: int) -> None:
    seen = Augmentation(name).views_for(model())
    assert seen.count == views
    assert repr(seen.transforms) == repr(view_preset(name)[0])
    assert Augmentation(name, views=7).views_for(model()).count == 7


@pytest.mark.parametrize(
    "transforms",
    [Jitter(2), [Jitter(2)], [Jitter(2), Rotate([0.0, 5.0])], Compose([Jitter(1)])],
    ids=["one", "list", "two", "composed"],
)
def test_transforms_of_ones_own(transforms: Any) -> None:
    callback, module = Augmentation(transforms), model()
    assert callback.views_for(module).count == 1
    fit(module, callback)
    assert torch.isfinite(module.images).all()


def test_every_picture_is_seen_as_often_as_asked() -> None:
    roll = RollByOne()
    fit(model("features.5:0-2"), Augmentation([roll], views=4))
    assert set(roll.seen) == {(3 * 4, 3, 10, 10)}
    assert len(roll.seen) == 2


@pytest.mark.parametrize(("size", "seen"), [(6, (6, 6)), ((7, 12), (7, 12))])
def test_views_have_the_size_asked_for(size: Any, seen: tuple[int, int]) -> None:
    shapes: list[tuple[int, ...]] = []
    network = toy()
    network.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    module = FeatureVisualization(network, "features.5:1", image=FourierImage(10))
    fit(module, Augmentation("article", views=3, size=size))
    assert {shape for shape in shapes if shape[0] == 3} == {(3, 3, *seen)}
    assert module.images.shape == (1, 3, 10, 10)


def test_an_empty_list_shows_the_picture_as_it_is() -> None:
    plain, empty = model(), model()
    fit(plain)
    fit(empty, Augmentation([]))
    assert torch.equal(empty.images, plain.images)


def test_an_empty_list_with_a_size_only_resizes() -> None:
    shown: list[Tensor] = []
    network = torch.nn.Sequential(torch.nn.Identity())
    network.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].detach().clone()))
    module = FeatureVisualization(network, "output:1", image=FourierImage(10))
    fit(module, Augmentation([], size=12), max_steps=1)
    begun = FeatureVisualization(torch.nn.Identity(), "output:1", image=FourierImage(10))
    begun.setup("fit")
    # Bilinear and larger: what torch's own resize gives, also at the border.
    expected = torch.nn.functional.interpolate(begun.images, size=(12, 12), mode="bilinear", align_corners=False)
    seen = [picture for picture in shown if picture.shape[-1] == 12 and float(picture.std()) > 0]
    torch.testing.assert_close(seen[-1].contiguous(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "strengths"),
    [
        (None, [1.0] * 5),
        ("linear", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("cosine", [0.0, 0.1464466, 0.5, 0.8535534, 1.0]),  # (1 - cos(pi t)) / 2
        ("warmup", [0.0, 1.0, 1.0, 1.0, 1.0]),  # over the first tenth
        (Linear(1.0, 0.5), [1.0, 0.875, 0.75, 0.625, 0.5]),
    ],
    ids=str,
)
def test_the_strength_follows_the_steps_of_the_run(schedule: Any, strengths: list[float]) -> None:
    roll = RollByOne()
    fit(model(), Augmentation([roll], schedule=schedule), max_steps=5)
    assert (roll.strengths or [1.0] * 5) == pytest.approx(strengths, abs=1e-6)


def test_without_strength_views_show_the_picture_as_it_is() -> None:
    with_views, plain = model(), model()
    fit(with_views, Augmentation([Jitter(3), Rotate([-20.0, 20.0])], views=2, schedule=Linear(0.0, 0.0)))
    fit(plain)
    torch.testing.assert_close(with_views.images, plain.images, rtol=0, atol=1e-4)


class During(Callback):
    def __init__(self) -> None:
        self.views: list[Views | None] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, FeatureVisualization)
        self.views.append(pl_module.views)


def test_the_module_has_the_views_during_the_run_only() -> None:
    module, callback, during = model(), Augmentation("article"), During()
    fit(module, callback, during)
    assert [repr(views) for views in during.views] == [repr(callback.views_for(module))] * 2
    assert module.views is None
    fit(module, again := During())
    assert again.views == [None, None]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_views_are_taken_back_after_a_failure(error: type[BaseException]) -> None:
    def fail() -> None:
        raise error

    module = model()
    with pytest.raises((SystemExit, RuntimeError)):
        fit(module, Augmentation("article"), At(1, fail))
    assert module.views is None


def test_they_are_no_part_of_the_module() -> None:
    module = model()
    names: list[str] = []

    class Look(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            names.extend(name for name, _ in pl_module.named_modules())

    fit(module, Augmentation("article"), Look())
    assert {name.split(".")[0] for name in names} == {"", "image", "objective"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transforms": "lucit"}, "unknown preset 'lucit'; did you mean 'lucid'"),
        ({"transforms": [torch.nn.ReLU()]}, "transforms must hold featviz_pl transforms, got ReLU"),
        ({"views": 0}, "views must be at least 1"),
        ({"views": 1.5}, "views must be a whole number"),
        ({"size": 0}, "size must be at least 1"),
        ({"size": (4, 4, 4)}, "size must be one number or"),
        ({"schedule": "linea"}, "unknown schedule 'linea'; did you mean 'linear'"),
        ({"schedule": 0.5}, "schedule must be a Schedule or one of"),
    ],
    ids=str,
)
def test_impossible_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Augmentation(**arguments)


def test_views_are_lent_to_the_module_and_no_part_of_it() -> None:
    lent = model()
    lent.set_views(Augmentation("article").views_for(lent))
    assert not any(isinstance(part, Transform) for part in lent.modules())
    lent.apply(lambda _: None)
    copied = copy.deepcopy(lent).views
    assert copied is not None
    assert copied.count == 4
