"""StayNear: distances against numpy, and the balance of feature accentuation against plain autograd."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from references import (
    bound,
    moving,
    numbers,
    observed,
    pictures,
    run_parts,
    small,
    views_of,
    weight_gradient,
)
from runs import fit
from torch import Tensor
from toys import adam, toy

from featviz_pl.engine import ascend
from featviz_pl.images import PixelImage
from featviz_pl.objectives import Channel, Layer, Observation, Source, StayNear
from featviz_pl.training import FeatureVisualization

PICTURE = torch.full((3, 12, 12), 0.25)
SHAPES: dict[str, tuple[int, ...]] = {"map": (4, 3, 5), "tokens": (6, 4), "vector": (4,), "number": ()}


@pytest.mark.parametrize("references", [1, 3])
def test_the_distance_of_pixels_is_a_mean_over_the_picture(references: int) -> None:
    near = pictures(references, seed=3)
    observation = Observation(pictures(3), {}, views=numbers(3, 4, 3, 5, 5))
    difference = observation.pictures.numpy() - near.numpy()
    np.testing.assert_allclose(
        StayNear(near)(observation).numpy(), -(difference**2).mean((1, 2, 3))[:, None], rtol=1e-12
    )
    np.testing.assert_allclose(
        StayNear(near, norm=1)(observation).numpy(), -np.abs(difference).mean((1, 2, 3))[:, None], rtol=1e-12
    )
    assert StayNear(near).sources() == []
    assert not StayNear(near).joint_views


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("count", "views", "references"), [(1, 1, 1), (3, 1, 3), (3, 4, 1)])
def test_the_distance_in_a_layer_is_over_the_whole_layer(count: int, views: int, references: int, kind: str) -> None:
    for through_views in (True, False):
        for norm in (1, 2):
            term = StayNear(PICTURE.expand(references, -1, -1, -1), "a", norm=norm, through_views=through_views)
            observation = observed(term, {"a": SHAPES[kind]}, count, views)
            activation, reference = (observation.activations[source].numpy() for source in term.sources())
            difference = np.abs(activation - reference).reshape(count, views, -1)
            expected = -((difference**norm).sum(2) ** (1 / norm))
            np.testing.assert_allclose(term(observation).numpy(), expected, rtol=1e-12)


def test_gradients_are_those_of_differences_and_nothing_where_there_is_no_difference() -> None:
    term = StayNear(PICTURE, "a")
    source, expected = term.term_sources()
    reference = numbers(1, 1, 4, 3, 3)

    def scores(activation: Tensor) -> Tensor:
        return torch.as_tensor(term(Observation(pictures(1), {source: activation, expected: reference})))

    assert torch.autograd.gradcheck(scores, numbers(1, 1, 4, 3, 3, seed=1).requires_grad_(True))
    second_network = reference.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(scores(second_network).sum(), second_network)
    assert not gradient.any()
    picture = pictures(1).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: StayNear(PICTURE)(Observation(x, {})), picture)


# The balance


class Scene:
    """Make observations whose activations are linear in the views, so that every gradient is known."""

    def __init__(self, term: StayNear, count: int, views: int) -> None:
        self.term, self.count, self.views = term, count, views
        self.maps = {name: numbers(3 * 4, 5, seed=seed) for seed, name in enumerate("ab")}

    def read(self, shift: Tensor | float, step: int | None) -> Observation:
        """Show pictures that differ from the reference by `shift`."""
        base = pictures(self.count, size=2).flatten(1)[:, None].expand(-1, self.views, -1)
        views_shown = (base + shift).requires_grad_(True)
        read: dict[Source, Tensor] = {}
        for source in self.term.sources():
            x = base if source.reference is not None else views_shown
            read[source] = (
                x @ self.maps[source.layer] if source.layer == "a" else (x @ self.maps[source.layer]).square()
            )
        views = views_shown.view(self.count, self.views, 3, 2, 2)
        # The graph goes through `views`, as it does in a run.
        read = {
            source: (views.flatten(2) @ self.maps[source.layer]) ** (1 if source.layer == "a" else 2)
            if source.reference is None
            else value
            for source, value in read.items()
        }
        return Observation(views[:, 0].detach(), read, views=views, step=step)

    def ratio(self, shift: Tensor) -> Tensor:
        """Compute beta (N,) in closed form."""
        base = pictures(self.count, size=2).flatten(1)[:, None].expand(-1, self.views, -1)
        x = base + shift
        # d mean_j (x B)_j ^ 2 / dx = 2 B (x B) / 5 and d |(x - base) A| / dx = A (x - base) A / |(x - base) A|
        pull = (2 / 5) * (x @ self.maps["b"]) @ self.maps["b"].T
        away = (x - base) @ self.maps["a"]
        back = (away / away.norm(dim=2, keepdim=True)) @ self.maps["a"].T
        strengths: list[Tensor] = [gradient.abs().sum((1, 2)) for gradient in (pull, back)]
        return strengths[0] / strengths[1]


def balanced() -> StayNear:
    return StayNear(PICTURE, "a", balance=Layer("b"))


@pytest.mark.parametrize(("count", "views"), [(1, 1), (3, 1), (3, 4)])
def test_beta_is_measured_in_the_first_step_with_both_gradients_and_kept(count: int, views: int) -> None:
    term = balanced()
    assert term.joint_views
    scene = Scene(term, count, views)
    shift = numbers(count, views, 12, seed=8)
    assert not term(scene.read(0.0, step=0)).any()
    assert term.beta.tolist() == [0] * count
    beta = scene.ratio(shift)
    for step, factor in ((1, 1.0), (2, 3.0)):
        observation = scene.read(factor * shift, step)
        distance = (factor * shift @ scene.maps["a"]).norm(dim=2)
        torch.testing.assert_close(term(observation), -beta[:, None] * distance, rtol=1e-10, atol=0)
        torch.testing.assert_close(term.beta, beta, rtol=1e-10, atol=0)


def test_with_beta_the_pull_back_is_as_strong_as_the_pull() -> None:
    term = balanced()
    scene = Scene(term, 2, 3)
    observation = scene.read(numbers(2, 3, 12, seed=8), step=0)
    strengths = []
    for scores in (Layer("b")(observation), term(observation)):
        (gradient,) = torch.autograd.grad(scores.sum(), observation.network_input(), retain_graph=True)
        strengths.append(gradient.flatten(1).abs().sum(1))
    torch.testing.assert_close(strengths[0], strengths[1], rtol=1e-10, atol=0)


def test_each_picture_is_measured_when_it_can_be() -> None:
    term = balanced()
    scene = Scene(term, 2, 1)
    shift = numbers(2, 1, 12, seed=8)
    late = shift * torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None, None]
    term(scene.read(late, step=0))
    assert term.beta[0] == 0
    torch.testing.assert_close(term.beta[1], scene.ratio(shift)[1], rtol=1e-10, atol=0)
    term(scene.read(2 * shift, step=1))
    expected = torch.stack([scene.ratio(2 * shift)[0], scene.ratio(shift)[1]])
    torch.testing.assert_close(term.beta, expected, rtol=1e-10, atol=0)


def test_an_objective_without_gradient_is_waited_for() -> None:
    term = StayNear(PICTURE, "a", balance=Layer("b") * 0)
    scene = Scene(term, 1, 1)
    assert term(scene.read(numbers(1, 1, 12), step=0)).item() == 0
    unread = StayNear(
        PICTURE, "a", balance=StayNear(PICTURE[:, :2, :2])
    )  # depends on the picture alone, not on its views
    assert unread(Scene(unread, 1, 1).read(numbers(1, 1, 12), step=0)).item() == 0
    assert unread.beta.tolist() == [0]


def test_a_score_on_the_side_uses_beta_and_measures_nothing() -> None:
    term = balanced()
    scene = Scene(term, 2, 2)
    shift = numbers(2, 2, 12, seed=8)
    assert not term(scene.read(shift, step=None)).any()
    assert not len(term.beta)
    term(scene.read(shift, step=0))
    expected = -scene.ratio(shift)[:, None] * (2 * shift @ scene.maps["a"]).norm(dim=2)
    torch.testing.assert_close(term(scene.read(2 * shift, step=None)), expected, rtol=1e-10, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(term(scene.read(2 * shift, step=None)), expected, rtol=1e-10, atol=0)


def test_a_new_run_forgets_the_last_one() -> None:
    term = balanced()
    scene = Scene(term, 2, 2)
    term(scene.read(numbers(2, 2, 12, seed=8), step=0))
    second = numbers(2, 2, 12, seed=9)
    term(scene.read(second, step=0))
    torch.testing.assert_close(term.beta, scene.ratio(second), rtol=1e-10, atol=0)
    fewer = Scene(term, 1, 2)
    term(fewer.read(second[:1], step=0))
    torch.testing.assert_close(term.beta, fewer.ratio(second[:1]), rtol=1e-10, atol=0)


def test_a_fresh_objective_goes_on_from_a_checkpoint_and_a_used_one_too(tmp_path: Path) -> None:
    term, fresh, used = balanced(), balanced(), balanced()
    scene = Scene(term, 2, 2)
    shift = numbers(2, 2, 12, seed=8)
    late = shift * torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None, None]
    term(scene.read(late, step=0))
    torch.save((Channel("b", 1) + term).state_dict(), tmp_path / "objective.pt")
    read = {single: Scene(single, 2, 2) for single in (term, fresh, used)}
    read[used].term(read[used].read(shift, step=0))  # has measured all, unlike the checkpoint
    for single in (fresh, used):
        (Channel("b", 1) + single).load_state_dict(torch.load(tmp_path / "objective.pt", weights_only=True))
    for single, scenery in read.items():
        single(scenery.read(3 * shift, step=1))
    assert float(term.beta.min()) > 0
    assert torch.equal(fresh.beta, term.beta)
    assert torch.equal(used.beta, term.beta)


def test_nothing_is_kept_in_checkpoints_without_a_balance() -> None:
    assert not StayNear(PICTURE).state_dict()
    assert not StayNear(PICTURE, "a").state_dict()
    assert list(balanced().state_dict()) == ["beta"]


# Whole runs


@pytest.mark.parametrize("seen_through", [None, moving], ids=["as it is", "views"])
def test_a_balanced_run_equals_plain_autograd(seen_through: Any) -> None:
    start, pull = pictures(2), Channel("4", [1, 2])
    run = bound(
        pull + 0.5 * StayNear(start, "2", balance=pull), start, None if seen_through is None else seen_through()
    )
    weight = next(run.image.parameters())
    moves = numbers(*weight.shape, seed=4) * 0.01

    def parts(step: int) -> tuple[Tensor, Tensor, Tensor]:
        views = views_of(run, run.image(), step, 10)
        source = run_parts(small(), views.flatten(0, 1))
        seed = run_parts(small(), views_of(run, start, step, 10).flatten(0, 1))["2"].detach()
        own_units = source["4"].mean((2, 3)).view(2, -1, 3)
        return (
            views,
            torch.stack([own_units[0, :, 1], own_units[1, :, 2]]),
            (source["2"] - seed).flatten(1).norm(dim=1).view(2, -1),
        )

    beta = torch.zeros(2, dtype=torch.float64)
    for step in range(3):
        views, scores, distance = parts(step)
        if step == 1:  # in step 0 the picture is the seed
            sizes = [
                torch.autograd.grad(x.sum(), views, retain_graph=True)[0].abs().sum((1, 2, 3, 4))
                for x in (scores, distance)
            ]
            beta = sizes[0] / sizes[1]
        expected = scores - 0.5 * beta[:, None] * distance
        result = run.step(step, 10)
        torch.testing.assert_close(result.scores, expected.mean(1).detach(), rtol=0, atol=1e-10)
        if step:
            reference = weight_gradient(run, -expected.mean(1).sum())
            torch.testing.assert_close(weight_gradient(run, result.loss), reference, rtol=0, atol=1e-10)
        with torch.no_grad():
            weight.add_(moves)
    assert float(beta.min()) > 0


def test_a_stronger_pull_back_leaves_the_picture_nearer() -> None:
    start, distances = pictures(1), []
    for weight in (0.0, 1.0, 20.0):
        run = bound(Channel("4", 1) + weight * StayNear(start, "1", balance=Channel("4", 1)), start, moving(4))
        ascend(run, steps=12, optimizer=adam(0.03))
        final = run_parts(small(), run.image())["1"] - run_parts(small(), start)["1"]
        distances.append(float(final.detach().norm()))
    assert distances[0] > distances[1] > distances[2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_run_resumes_exactly(tmp_path: Path) -> None:
    def run(**arguments: Any) -> FeatureVisualization:
        start = pictures(2, seed=5).float()
        image = PixelImage(12, count=2)
        image.start_from(start)
        pull = Channel("features.5", [1, 2])
        model = FeatureVisualization(
            toy(), pull + StayNear(start, "features.0", balance=copy.deepcopy(pull)), image=image, steps=6
        )
        saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        fit(model, 6, [saving], enable_checkpointing=True, **arguments)
        return model

    full, resumed = run(), run(ckpt_path=str(tmp_path / "step=3.ckpt"))
    early = run(ckpt_path=str(tmp_path / "step=1.ckpt"))
    for repeated in (resumed, early):
        assert torch.equal(repeated.images, full.images)
        assert torch.equal(
            repeated.objective.state_dict()["operands.1.beta"], full.objective.state_dict()["operands.1.beta"]
        )
    assert float(full.objective.state_dict()["operands.1.beta"].min()) > 0


# What is asked for and refused


def test_numbers_of_pictures_targets_and_names() -> None:
    two = torch.stack([PICTURE, PICTURE])
    assert StayNear(PICTURE).count() is None
    assert StayNear(two, "a").count() == 2
    assert StayNear(PICTURE, "a", balance=Channel("b", [1, 2, 3])).count() == 3
    pull = Channel("b", [3, 5])
    assert (pull + StayNear(two, "a", balance=pull)).targets(2) == ["b:3", "b:5"]
    assert (StayNear(PICTURE).name(), StayNear(PICTURE, "a", balance=pull).name()) == ("StayNear", "StayNear.a")


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["deepcopy", "pickle"]
)
def test_copies_go_on_where_the_original_was(copied: Callable[[Any], Any]) -> None:
    term = balanced()
    shift = numbers(2, 2, 12, seed=8)
    term(Scene(term, 2, 2).read(shift, step=0))
    twin = copied(term)
    assert repr(twin) == repr(term)
    expected = term(Scene(term, 2, 2).read(2 * shift, step=1))
    torch.testing.assert_close(twin(Scene(twin, 2, 2).read(2 * shift, step=1)), expected, rtol=0, atol=0)
