"""The bare loop: dead starts, finite steps, keys, and what a run leaves behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from guests import Breakable, condition, require_same, shrinking
from runs import fit, weights
from torch import Tensor, nn
from toys import adam, toy

from featviz_pl.engine import Ascent, NonFiniteError, Step, ascend
from featviz_pl.engine import ascent as room
from featviz_pl.engine.ascent import REDIRECTED_STEPS, picture_keys
from featviz_pl.engine.step import require_finite
from featviz_pl.images import FourierImage, PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import L2, Alignment, Channel, Constant, DeepDream, Layer, Objective, TotalVariation
from featviz_pl.training import FeatureVisualization
from featviz_pl.transforms import Compose, Jitter, Views


def rectified(weights: list[list[float]], bias: list[float]) -> nn.Sequential:
    """Build a rectified 1 x 1 convolution: each unit is relu(weights . rgb + bias) at every pixel."""
    convolution = nn.Conv2d(3, len(bias), 1)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor(weights).view(-1, 3, 1, 1))
        assert convolution.bias is not None
        convolution.bias.copy_(torch.tensor(bias))
    return nn.Sequential(convolution, nn.ReLU(inplace=True))


# Unit 0 starts below zero on grey and can be brought above it; unit 1 fires where red is above one half; nothing moves
# unit 2.
UNITS = rectified([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [-1.8, -0.5, -1.0])


def problem_of(units: list[int], picture: Tensor | None = None) -> Ascent:
    image = PixelImage(4, color="none")
    if picture is not None:
        image.allocate(len(units))
        image.start_from(picture)
    made = Ascent(image, FrozenNetwork(UNITS), Channel("1", units))
    made.initialize()
    made.prepare()
    return made


def gradient_of(made: Ascent, step: int = 0) -> Tensor:
    (gradient,) = torch.autograd.grad(made.step(step, 100).loss, list(made.image.parameters()))
    return gradient


def test_the_published_number_of_redirected_steps() -> None:
    assert REDIRECTED_STEPS == 16  # field.md: Lucid


def test_a_dead_start_is_revived_by_the_redirected_gradient() -> None:
    made = problem_of([0])
    assert made.scores().item() == 0.0
    assert ascend(made, steps=REDIRECTED_STEPS, optimizer=adam(0.3)).item() > 0.1


def test_a_dead_start_stays_dead_without_the_redirected_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "REDIRECTED_STEPS", 0)
    made = problem_of([0])
    before = made.image().detach().clone()
    with pytest.warns(UserWarning, match="no gradient"):
        assert ascend(made, steps=16, optimizer=adam(0.3)).item() == 0.0
    assert torch.equal(made.image().detach(), before)


def test_the_redirected_gradient_ends_after_sixteen_steps() -> None:
    made = problem_of([0])
    assert float(gradient_of(made, REDIRECTED_STEPS - 1).abs().max()) > 0
    with pytest.warns(UserWarning, match="no gradient"):
        assert float(gradient_of(made, REDIRECTED_STEPS).abs().max()) == 0


def test_the_redirected_gradient_is_that_of_the_unit_without_its_rectifier() -> None:
    picture = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.1  # r + g + b stays below 1.8
    made = problem_of([0], picture)
    # d mean(r + g + b) / d latent of a sigmoid is p (1 - p) / 16 pixels; the loss is minus that.
    expected = -(made.image() * (1 - made.image())) / 16
    torch.testing.assert_close(gradient_of(made), expected.detach())


def test_a_live_picture_beside_a_dead_one_has_exactly_its_own_gradient() -> None:
    picture = torch.full((3, 4, 4), 0.2)
    picture[0] = torch.linspace(0.1, 0.9, 16).view(4, 4)
    alone, both = gradient_of(problem_of([1], picture)), gradient_of(problem_of([0, 1], picture))
    assert torch.equal(both[1], alone[0])
    off = picture[0] <= 0.5  # the redirected gradient would move these too
    assert bool(off.any())
    assert bool((~off).any())
    assert bool((both[1][0][off] == 0).all())
    assert bool((both[1][0][~off] != 0).all())
    assert bool((both[0] != 0).any())


def test_a_unit_that_nothing_moves_warns_after_sixteen_steps_and_names_it() -> None:
    made = problem_of([1, 2], torch.full((3, 4, 4), 0.7))
    with pytest.warns(UserWarning, match=r"at step 16 no gradient .* 1 of 2 pictures.*\(1:2\)") as caught:
        ascend(made, steps=60, optimizer=adam())
    assert len(caught) == 1


def test_a_unit_that_nothing_moves_warns_at_the_end_of_a_short_run() -> None:
    with pytest.warns(UserWarning, match=r"at step 2 no gradient .* 1 of 1 pictures.*\(1:2\)") as caught:
        ascend(problem_of([2]), steps=3, optimizer=adam())
    assert len(caught) == 1


def test_later_steps_look_for_dead_pictures_every_25_steps_until_one_is_named() -> None:
    made = problem_of([2])
    gradient_of(made, 40)
    with pytest.warns(UserWarning, match="at step 41 no gradient"):
        gradient_of(made, 41)
    gradient_of(made, 41)  # warnings are errors: there is no second one


@pytest.mark.parametrize("accumulated", [1, 4])
def test_a_dead_picture_is_moved_as_far_by_accumulated_batches_as_by_one(accumulated: int) -> None:
    image = PixelImage(4, color="none")
    model = FeatureVisualization(UNITS, Channel("1", 0), image=image, optimizer=torch.optim.SGD, lr=10.0)
    model.setup("fit")
    before, picture = weights(model), model.images
    assert float(picture.sum(1).max()) < 1.8  # the unit is off everywhere
    fit(model, 1, accumulate_grad_batches=accumulated)
    # d mean(r + g + b) / d latent of a sigmoid is p (1 - p) / 16 pixels.
    torch.testing.assert_close(weights(model), before + 10 * picture * (1 - picture) / 16)


def test_the_step_is_gradient_ascent_on_the_sum_of_scores() -> None:
    network = toy().eval()
    image = FourierImage(8)
    made = Ascent(image, FrozenNetwork(network, mean=0.5, std=0.25), 2.0 * Channel("features.2", [1, 3]) - 0.01 * L2())
    made.initialize()
    assert image.weight is not None
    start = image.weight.detach().clone()

    ascend(made, steps=1, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))

    own = FourierImage(8, count=2)
    assert own.weight is not None
    own.load_state_dict({"weight": start, "initialized": torch.tensor(True)})
    pictures = own()
    activation = network.features[2](network.features[1](network.features[0]((pictures - 0.5) / 0.25).clone()))
    norm = pictures.flatten(1).norm(dim=1)
    score = sum(2 * activation[picture, unit].mean() for picture, unit in ((0, 1), (1, 3))) - 0.01 * norm.sum()
    (gradient,) = torch.autograd.grad(torch.as_tensor(score), own.weight)
    torch.testing.assert_close(image.weight.detach(), start + 0.1 * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "objective",
    [
        Channel("features.3", 2),
        Layer("features.0"),
        DeepDream("features.5"),
        Channel("features.5", [0, 7]) - 1e-5 * TotalVariation(),
    ],
    ids=repr,
)
def test_scores_rise(objective: Objective) -> None:
    made = Ascent(FourierImage(10), FrozenNetwork(toy()), objective)
    made.initialize()
    made.prepare()
    before = made.scores()
    assert bool((ascend(made, steps=12, optimizer=adam()) > before).all())


def test_on_step_sees_every_step_with_scores_and_terms_that_add_up() -> None:
    seen: list[tuple[int, Step]] = []
    objective = Channel("features.2", [0, 1]) - 0.5 * TotalVariation()
    made = Ascent(PixelImage(6), FrozenNetwork(toy()), objective, views=Views(Jitter(1), 3))
    ascend(made, steps=3, optimizer=adam(), on_step=lambda index, step: seen.append((index, step)))
    assert [index for index, _ in seen] == [0, 1, 2]
    for _, step in seen:
        assert step.scores.shape == (2,)
        torch.testing.assert_close(step.scores, step.terms["Channel.features.2"] - 0.5 * step.terms["TotalVariation"])
        torch.testing.assert_close(step.loss.detach(), -step.scores.sum())


@pytest.mark.parametrize("at", [0, 3])
def test_a_network_that_gives_nan_never_reaches_the_picture(at: int) -> None:
    network = Breakable()
    made = Ascent(FourierImage(6), FrozenNetwork(network), Channel("output", 0))
    made.initialize()
    made.prepare()
    last: list[Tensor] = [made.image().detach().clone()]

    def watch(index: int, step: Step) -> None:
        last.append(made.image().detach().clone())
        network.switch.on = index == at - 1

    network.switch.on = at == 0
    with pytest.raises(NonFiniteError, match=f"step {at}: the score is not finite"):
        ascend(made, steps=6, optimizer=adam(), on_step=watch)
    assert len(last) == at + 1
    assert torch.equal(made.image().detach(), last[-1])


def test_a_gradient_that_is_not_finite_is_named() -> None:
    finite, infinite = torch.ones(2), torch.tensor([1.0, torch.inf])
    require_finite(4, torch.tensor(1.0), [finite, None])
    with pytest.raises(NonFiniteError, match="step 4: the gradient is not finite"):
        require_finite(4, torch.tensor(1.0), [finite, infinite])


def test_the_loop_leaves_the_network_and_other_gradients_alone() -> None:
    network = toy().train()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = condition(network)
    ascend(Ascent(FourierImage(8), FrozenNetwork(network), Channel("features.5", 1)), steps=3, optimizer=adam())
    require_same(before, condition(network))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_the_loop_runs_where_gradients_are_switched_off(context: Callable[[], torch.no_grad]) -> None:
    def run() -> Ascent:
        return Ascent(FourierImage(8), FrozenNetwork(toy()), Channel("features.5", 1))

    outside = run()
    expected = ascend(outside, steps=3, optimizer=adam())
    inside = run()
    with context():
        scores = ascend(inside, steps=3, optimizer=adam())
    assert torch.equal(scores, expected)
    assert torch.equal(inside.image().detach(), outside.image().detach())


def test_equal_targets_get_different_keys_and_no_key_depends_on_its_companions() -> None:
    alone, several = picture_keys(["a", "a"]), picture_keys(["b", "a", "c", "a"])
    assert len(set(several)) == 4
    assert [several[1], several[3]] == alone


def test_pictures_of_one_target_differ() -> None:
    made = Ascent(FourierImage(8, count=2), FrozenNetwork(toy()), Channel("features.5", 1))
    made.initialize()
    first, second = made.image().detach()
    assert not torch.equal(first, second)


def test_another_number_of_pictures_than_the_objective_asks_for_is_refused() -> None:
    with pytest.raises(ValueError, match="holds 3 pictures, but the objective asks for 2"):
        Ascent(FourierImage(8, count=3), FrozenNetwork(toy()), Channel("features.5", [0, 1]))


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_below_one_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="steps must be at least 1"):
        ascend(Ascent(FourierImage(8), FrozenNetwork(toy()), Channel("features.5", 1)), steps=steps, optimizer=adam())


@pytest.mark.parametrize("seed", [-1, 0.5])
def test_impossible_seeds_are_refused(seed: int) -> None:
    with pytest.raises((ValueError, TypeError), match="seed must be"):
        Ascent(FourierImage(8), FrozenNetwork(toy()), Channel("features.5", 1), seed=seed)


@pytest.mark.parametrize("objective", [Constant(1.0), Constant(1.0) + 2.0, -Constant(3.0)], ids=repr)
def test_an_objective_that_is_a_number_is_refused(objective: Objective) -> None:
    with pytest.raises(ValueError, match=r"objective: .* has no term to maximize"):
        Ascent(FourierImage(8), FrozenNetwork(toy()), objective)


@pytest.mark.parametrize(("size", "seen"), [(5, 9), (9, 5)], ids=["picture", "views"])
def test_both_the_picture_and_its_views_must_be_large_enough(size: int, seen: int) -> None:
    made = Ascent(FourierImage(size), FrozenNetwork(shrinking()), Channel("output", 0), views=Views(Compose([], seen)))
    with pytest.raises(ValueError, match="5 x 5 is too small for output; the least size that works is 7"):
        made.prepare()


def test_pictures_that_are_compared_are_seen_through_the_same_views() -> None:
    views = Views(Compose([Jitter(100)]), count=2)

    def drawn(objective: Objective) -> Tensor:
        bound = Ascent(PixelImage(8, count=3), FrozenNetwork(toy()), objective, views=views)
        bound.initialize()
        shifts: Tensor = bound.decode_and_view(1, 4)[2].parameters[0]
        return shifts.view(3, 2, 2)

    alone, compared = drawn(Channel("features.5", 1)), drawn(Channel("features.5", 1) + Alignment("features.3"))
    assert not torch.equal(alone[0], alone[1])
    assert torch.equal(compared[0], compared[1])
    assert torch.equal(compared[0], compared[2])
    assert torch.equal(compared[0], alone[0]), "those of the first picture"
    assert not torch.equal(compared[0, 0], compared[0, 1])
