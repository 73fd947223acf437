"""One objective over several networks, and objectives that are only watched."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import adam, toy

from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import (
    Across,
    Channel,
    ClassLogit,
    Diversity,
    Layer,
    Logged,
    Objective,
    Observation,
    Setting,
    Source,
    Term,
    TotalVariation,
)


def seen(**layers: Any) -> Observation:
    """Give each network's layer a value, by ``layer`` or ``network__layer``."""
    argument = {}
    for name, value in layers.items():
        network, _, layer = name.rpartition("__")
        argument[Source(layer, network or None)] = torch.tensor(value, dtype=torch.float64)
    names: dict[object, tuple[str, ...]] = {"other": ("hen", "cat")}
    return Observation(
        torch.zeros(len(next(iter(argument.values()))), 3, 4, 4),
        argument,
        class_names=("cat", "hen"),
        class_names_of=names,
    )


def test_the_score_is_the_mean_over_networks() -> None:
    observation = seen(a=[[[1.0, 5.0]]], other__a=[[[2.0, 9.0]]], third__a=[[[0.0, 4.0]]])
    assert Across("a:1", ["other", "third"])(observation).item() == 6.5
    assert Across("a:1", [None, "other", "third"])(observation).item() == 6.0
    assert Across("a:1", [None])(observation).item() == 5.0
    assert Across(Layer("a") - 1, ["other"])(observation).item() == 4.5


def test_each_network_may_have_an_objective_of_its_own() -> None:
    observation = seen(a=[[[1.0, 5.0]]], other__b=[[[2.0, 9.0]]])
    objective = Across(["a:0", Channel("b", 1)], [None, "other"])
    assert objective(observation).item() == 5.0
    assert objective.sources() == [Source("a"), Source("b", "other")]
    assert objective.targets(1) == ["a:0"]


def test_classes_are_those_of_each_network() -> None:
    observation = seen(output=[[[1.0, 5.0]]], other__output=[[[10.0, 50.0]]])
    assert Across(ClassLogit("cat"), [None, "other"])(observation).item() == (1 + 50) / 2


def test_terms_tell_the_networks_apart() -> None:
    observation = seen(a=[[[1.0, 5.0]]], other__a=[[[2.0, 9.0]]])
    (Channel("a", 0) + Across(2 * Channel("a", 1) - TotalVariation(), [None, "other", "other"]))(observation)
    assert list(observation.terms) == [
        *("Channel.a", "Channel.a.2", "TotalVariation"),
        *("Channel.a@other", "TotalVariation@other", "Channel.a@other.2", "TotalVariation@other.2"),
    ]
    assert observation.terms["Channel.a@other"].item() == 9


class Average(Term):
    """Keep the mean of everything it has scored."""

    def __init__(self) -> None:
        super().__init__()
        self.scored: list[float] = []

    def term_sources(self) -> list[Source]:
        return [Source("a")]

    def score(self, observation: Observation) -> Tensor:
        self.scored.append(float(observation.activation(Source("a")).mean()))
        return torch.full((1, 1), sum(self.scored) / len(self.scored))


def test_running_states_are_not_mixed() -> None:
    value = Average()
    term = Across(value, [None, "other"])
    for step in (0.0, 2.0):
        score = term(seen(a=[[[step]]], other__a=[[[10 + step]]]))
    assert score.item() == (1 + 11) / 2
    assert [objective.scored for objective in term.objectives] == [[0, 2], [10, 12]]


def test_counts_and_joint_terms_go_through() -> None:
    assert Across("a:1,2,3", ["other", None]).count() == 3
    assert any(node.joint for node in Across(Diversity("a"), ["other"]).walk())


def test_networks_within_networks() -> None:
    """Read another network by its name inside an objective that is asked of several."""
    observation = seen(a=[[[1.0]]], other__a=[[[2.0]]], third__a=[[[5.0]]])
    inner = Layer("a") * Across("a:0", ["third", None])
    objective = Across(inner, [None, "other"])
    assert objective.sources() == [Source("a"), Source("a", "third"), Source("a", "other")]
    assert objective(observation).item() == (1 * (5 + 1) / 2 + 2 * (5 + 2) / 2) / 2


def test_formulas() -> None:
    assert repr(Across("a:1", ["resnet18", None])) == "Across(Channel('a', 1), ['resnet18', None])"
    assert repr(Across(["a:1", "b"], ["x", toy()])) == "Across([Channel('a', 1), DeepDream('b')], ['x', <ToyNet>])"
    assert repr(Across("a:1", [FrozenNetwork(toy(), name="mine")])) == "Across(Channel('a', 1), [<mine>])"
    assert repr(-(Across("a:1", "x") ** 2)) == "-Across(Channel('a', 1), ['x']) ** 2"


def bound(objective: Objective, network: nn.Module, count: int = 1) -> Ascent:
    image = PixelImage(12, count=count, color="none", deviation=0.3).double()
    run = Ascent(image, FrozenNetwork(network.double()), objective, seed=3)
    run.initialize()
    run.prepare(dtype=torch.float64)
    return run


@pytest.mark.parametrize("wrap", [lambda network: network, FrozenNetwork], ids=["module", "frozen"])
def test_networks_run_as_if_each_were_the_run_s_own(wrap: Any) -> None:
    first, second = toy(seed=1).double(), toy(seed=2).double()
    alone = [bound(Channel("features.3", 2), network).scores() for network in (first, second)]
    together = bound(Across("features.3:2", [None, wrap(second)]), first)
    torch.testing.assert_close(together.scores(), torch.stack(alone).mean(0))
    before = together.scores()
    assert bool((ascend(together, steps=5, optimizer=adam()) > before).all())
    for network in (first, second):
        assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_networks_are_shared_by_copies_and_are_no_part_of_the_objective() -> None:
    network = toy()
    objective = Across("features.3:2", [network, None])
    assert not list(objective.parameters())
    assert not objective.state_dict()
    twin = copy.deepcopy(objective)
    assert twin.networks[0] is network
    assert twin.objectives[0] is not objective.objectives[0]
    assert repr(twin) == repr(pickle.loads(pickle.dumps(objective))) == repr(objective)


# Only watched


def test_what_is_logged_adds_nothing_and_has_no_gradient() -> None:
    value: Tensor = torch.tensor([[[1.0, 5.0]]], requires_grad=True)
    observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): value})
    score = (Channel("a", 0) + 3 * Logged(Channel("a", 1)))(observation)
    assert score.item() == 1
    assert observation.terms["Channel.a.2"].item() == 5
    (gradient,) = torch.autograd.grad(score.sum(), value)
    assert gradient.flatten().tolist() == [1.0, 0.0]


def test_a_score_that_is_not_finite_may_be_watched() -> None:
    observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): torch.tensor([[[1.0, torch.nan]]])})
    assert (Channel("a", 0) + Logged("a:1"))(observation).item() == 1


def test_what_is_logged_is_read_and_checked_but_names_no_picture() -> None:
    objective = Channel("a", [1, 2]) + Logged("b:1")
    assert objective.sources() == [Source("a"), Source("b")]
    assert objective.targets(2) == ["a:1", "a:2"]
    assert repr(objective) == "Channel('a', [1, 2]) + Logged(Channel('b', 1))"
    with pytest.raises(ValueError, match="unit: 'b' has 1 units"):
        objective.check(Setting({Source("a"): (4,), Source("b"): (1,)}, 2, (3, 8, 8)))


def test_what_is_logged_changes_no_picture() -> None:
    expected = Channel("features.3", 2)
    plain, watched = bound(expected, toy()), bound(expected + Logged("features.5:1"), toy())
    ascend(plain, steps=3, optimizer=adam())
    names: list[list[str]] = []
    ascend(watched, steps=3, optimizer=adam(), on_step=lambda _, step: names.append(list(step.terms)))
    assert torch.equal(plain.image(), watched.image())
    assert names == [["Channel.features.3", "Channel.features.5"]] * 3
