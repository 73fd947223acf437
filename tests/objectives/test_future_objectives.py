"""The protocol for new objectives: reference pictures, with and without views, and other networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import toy

from featviz_pl.engine import Ascent
from featviz_pl.images import PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Layer, Observation, Reference, Setting, Source, Term
from featviz_pl.transforms import Compose, Jitter, Rotate, Views

GENERATOR = torch.Generator().manual_seed(0)
START = torch.rand(2, 3, 12, 12, generator=GENERATOR) * 0.8 + 0.1
OTHER = torch.rand(1, 3, 12, 12, generator=GENERATOR)


class Resembles(Term):
    """Ask for one layer of the picture and of a reference; remember what was given."""

    def __init__(self, layer: str, reference: Reference, network: Any = None) -> None:
        super().__init__()
        self.source, self.reference = Source(layer, network), Source(layer, network, reference=reference)
        self.activations: list[tuple[Tensor, Tensor]] = []
        self.settings: list[Setting] = []

    def term_sources(self) -> Sequence[Source]:
        return (self.source, self.reference)

    def check_term(self, setting: Setting) -> None:
        self.settings.append(setting)

    def score(self, observation: Observation) -> Tensor:
        source, expected = observation.activation(self.source), observation.activation(self.reference)
        self.activations.append((source.detach().clone(), expected.detach().clone()))
        return -(source - expected).flatten(2).square().mean(2)

    def formula(self) -> str:
        return f"Resembles({self.source.layer!r})"


class Elsewhere(Term):
    """Compare one layer of the run's network with one of another network."""

    def __init__(self, layer: str, network: Any, other_layer: str) -> None:
        super().__init__()
        self.run_source, self.network_source = Source(layer), Source(other_layer, network)

    def term_sources(self) -> Sequence[Source]:
        return (self.run_source, self.network_source)

    def score(self, observation: Observation) -> Tensor:
        return observation.activation(self.run_source).flatten(2).sum(2) - 2 * observation.activation(
            self.network_source
        ).flatten(2).sum(2)


def bound(term: Term, network: nn.Module, views: Views | None = None, start: Tensor = START) -> Ascent:
    image = PixelImage(12, count=len(start), color="none")
    image.start_from(start)
    run = Ascent(image, FrozenNetwork(network, mean=0.5, std=0.25), term, seed=1, views=views)
    run.initialize()
    run.prepare()
    return run


def moving() -> Views:
    return Views(Compose([Jitter(3), Rotate((-30, 30))]), count=4)


def plain(network: nn.Module, pictures: Tensor, layer: str) -> Tensor:
    """Read a layer of a sequential part by running the part up to it."""
    x: Tensor = (pictures - 0.5) / 0.25
    with torch.no_grad():
        for name, part in network.named_children():
            x = part(x)
            if name == layer:
                return x
    raise AssertionError(layer)


def net() -> nn.Sequential:
    """Build a network that rectifies out of place, so that the plain loop above is right."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))


def test_a_fixed_reference_is_read_once_as_it_is() -> None:
    network, term = net(), Resembles("1", Reference(OTHER))
    run = bound(term, network, moving())
    expected = plain(network, OTHER, "1")
    for step in (0, 1):
        run.step(step, 10)
    assert len(term.activations) == 2
    for source, value in term.activations:
        assert source.shape == (2, 4, 4, 10, 10)
        torch.testing.assert_close(value, expected[:, None], rtol=1e-4, atol=1e-5)


def test_without_views_the_score_is_the_distance_to_the_reference() -> None:
    network, term = net(), Resembles("2", Reference(OTHER))
    run = bound(term, network)
    expected = -(plain(network, run.image().detach(), "2") - plain(network, OTHER, "2")).square().mean((1, 2, 3))
    torch.testing.assert_close(run.scores(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run.step(0, 10).scores, expected, rtol=1e-4, atol=1e-5)


def test_each_picture_may_have_a_reference_of_its_own() -> None:
    network = net()
    references = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(5))
    for through_views in (False, True):
        run = bound(Resembles("2", Reference(references, through_views)), network)
        expected = (
            -(plain(network, run.image().detach(), "2") - plain(network, references, "2")).square().mean((1, 2, 3))
        )
        torch.testing.assert_close(run.scores(), expected, rtol=1e-4, atol=1e-5)


def test_a_reference_through_views_is_seen_through_the_views_of_the_picture() -> None:
    term = Resembles("output", Reference(START * 0.5, through_views=True))
    run = bound(term, nn.Sequential(nn.Identity()), moving())
    run.step(0, 10)
    run.step(1, 10)
    for source, value in term.activations:
        # The network shows the standardised views themselves; half the picture through the same view is half the view.
        own_views, reference_views = source * 0.25 + 0.5, value * 0.25 + 0.5
        torch.testing.assert_close(reference_views, own_views * 0.5, rtol=0, atol=1e-3)
        assert all(float((own_views[:, 0] - own_views[:, view]).abs().max()) > 0.1 for view in range(1, 4))
    assert float((term.activations[0][1] - term.activations[1][1]).abs().max()) > 0.1  # other views at every step


def test_a_reference_through_views_is_the_picture_itself_when_it_is_its_own() -> None:
    network = net()
    source = bound(Resembles("2", Reference(START, through_views=True)), network, moving())
    fixed = bound(Resembles("2", Reference(START)), network, moving())
    assert float(source.step(3, 10).scores.abs().max()) < 1e-6
    assert float(fixed.step(3, 10).scores.abs().max()) > 1e-3


def test_the_views_of_a_term_are_those_that_the_run_draws() -> None:
    network, views = net(), moving()
    term = Resembles("1", Reference(OTHER, through_views=True))
    run = bound(term, network, views)
    run.step(2, 10)
    drawn = views.sample(1, 2, run.keys)
    for pictures, value in zip((run.image().detach(), OTHER.expand(2, -1, -1, -1)), term.activations[0]):
        observation = views.apply(pictures, drawn, progress=2 / 9)
        expected = plain(network, observation.flatten(0, 1), "1").view(2, 4, 4, 10, 10)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_picture_and_no_reference() -> None:
    reference = OTHER.clone().requires_grad_(True)
    for through_views in (False, True):
        run = bound(Resembles("2", Reference(reference, through_views)), net(), moving())
        run.step(0, 10).loss.backward()
        (weight,) = run.image.parameters()
        assert weight.grad is not None
        assert float(weight.grad.abs().max()) > 0
        assert reference.grad is None


def test_a_term_reads_another_network() -> None:
    first_network, second_network = net(), toy()
    for network in (second_network, FrozenNetwork(second_network)):  # a bare module takes pictures as they are
        run = bound(Elsewhere("2", network, "head"), first_network)
        picture = run.image().detach()
        with torch.no_grad():
            expected = plain(first_network, picture, "2").sum((1, 2, 3)) - 2 * second_network.eval()(picture).sum(1)
        torch.testing.assert_close(run.scores(), expected, rtol=1e-4, atol=1e-4)


def test_both_networks_see_the_same_view() -> None:
    with torch.no_grad():
        summing = nn.Conv2d(3, 1, 1, bias=False)
        summing.weight.fill_(1.0)

    class Balanced(Elsewhere):
        def score(self, observation: Observation) -> Tensor:
            return (
                (observation.activation(self.run_source) - observation.activation(self.network_source))
                .flatten(2)
                .abs()
                .amax(2)
            )

    second = FrozenNetwork(nn.Sequential(summing), mean=0.5, std=0.25)
    run = bound(Balanced("0", second, "0"), nn.Sequential(summing), moving())
    assert float(run.step(0, 10).scores.abs().max()) < 1e-6
    unlike = FrozenNetwork(nn.Sequential(summing), mean=0.5, std=0.5)
    assert (
        float(bound(Balanced("0", unlike, "0"), nn.Sequential(summing), moving()).step(0, 10).scores.abs().max()) > 0.1
    )


def test_a_term_may_ask_for_a_reference_in_another_network() -> None:
    second_network = net()
    run = bound(Resembles("2", Reference(OTHER), FrozenNetwork(second_network, mean=0.5, std=0.25)), toy())
    expected = (
        -(plain(second_network, run.image().detach(), "2") - plain(second_network, OTHER, "2")).square().mean((1, 2, 3))
    )
    torch.testing.assert_close(run.scores(), expected, rtol=1e-4, atol=1e-5)


def test_a_term_learns_the_setting_before_the_first_step() -> None:
    term = Resembles("1", Reference(OTHER))
    bound(term, net())
    (setting,) = term.settings
    assert setting.count == 2
    assert setting.picture == (3, 12, 12)
    assert {source: setting.shapes[source] for source in term.term_sources()} == dict.fromkeys(
        term.term_sources(), (4, 10, 10)
    )


def test_a_new_term_joins_the_algebra_and_the_log() -> None:
    term = Resembles("1", Reference(OTHER))
    image = PixelImage(12, count=2, color="none")
    image.start_from(START)
    run = Ascent(image, FrozenNetwork(net()), 2 * term - 0.5 * Layer("1"))
    run.initialize()
    run.prepare()
    step = run.step(0, 10)
    assert list(step.terms) == ["Resembles.1", "Layer.1"]
    torch.testing.assert_close(step.scores, 2 * step.terms["Resembles.1"] - 0.5 * step.terms["Layer.1"])


@pytest.mark.parametrize("layer", ["nothing", "9"])
def test_an_unknown_layer_of_another_network_is_refused_before_the_first_step(layer: str) -> None:
    with pytest.raises(ValueError, match=f"no layer '{layer}'"):
        bound(Elsewhere("2", toy(), layer), net())


def test_the_setting_has_the_shape_of_the_reference_itself() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2))

    class Looks(Resembles):
        def score(self, observation: Observation) -> Tensor:
            return observation.activation(self.source).flatten(2).mean(2)

    term = Looks("1", Reference(torch.rand(1, 3, 20, 8)))
    run = Ascent(PixelImage(12), FrozenNetwork(network), term)
    run.prepare()
    (setting,) = term.settings
    assert dict(setting.shapes) == {term.source: (4, 6, 6), term.reference: (4, 10, 4)}


@pytest.mark.parametrize("value", [2, 4])
def test_references_that_are_neither_one_nor_as_many_as_the_pictures_are_refused(value: int) -> None:
    term = Resembles("0", Reference(torch.rand(value, 3, 12, 12)))
    run = Ascent(PixelImage(12, count=3), FrozenNetwork(net()), term)
    with pytest.raises(ValueError, match=f"reference: {value} pictures do not fit 3; give one, or as many"):
        run.prepare()
