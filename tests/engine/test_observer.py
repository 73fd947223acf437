"""What objectives ask for and get: references in sets and at the size of the views, gradients by activations, transparent pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from featviz_pl.engine import Ascent
from featviz_pl.images import FixedImage, PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel, Diversity, Logged, Observation, Reference, Setting, Source, Term
from featviz_pl.transforms import Background, ColorShift, Compose, Jitter, Views

GENERATOR = torch.Generator().manual_seed(0)
START = torch.rand(2, 3, 12, 12, generator=GENERATOR, dtype=torch.float64) * 0.8 + 0.1
PHOTOS = torch.rand(5, 3, 12, 12, generator=GENERATOR, dtype=torch.float64)


class Notes(Term):
    """Ask for given sources; keep what was given; score the mean of the first."""

    def __init__(self, *sources: Source) -> None:
        super().__init__()
        self.wanted = sources
        self.given: list[Observation] = []
        self.settings: list[Setting] = []

    def term_sources(self) -> Sequence[Source]:
        return self.wanted

    def check_term(self, setting: Setting) -> None:
        self.settings.append(setting)

    def score(self, seen: Observation) -> Tensor:
        self.given.append(seen)
        return seen.activation(self.wanted[0]).flatten(2).mean(2)

    def formula(self) -> str:
        return "Notes()"


def net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 3), nn.Tanh()).double()


def bound(
    objective: Any, views: Views | None = None, start: Tensor = START, network: nn.Module | None = None
) -> Ascent:
    image = PixelImage(12, count=len(start), color="none").double()
    image.start_from(start)
    made = Ascent(
        image, FrozenNetwork(net() if network is None else network, mean=0.5, std=0.25), objective, seed=1, views=views
    )
    made.initialize()
    made.prepare()
    return made


def standardised(pictures: Tensor) -> Tensor:
    return (pictures - 0.5) / 0.25


def test_a_set_of_references_is_read_together() -> None:
    term = Notes(Source("1"), Source("1", reference=Reference(PHOTOS, together=True)))
    bound(term).step(0, 2)
    given = term.given[-1].activations[term.wanted[1]]
    assert given.shape == (1, 5, 4, 10, 10)
    with torch.no_grad():
        torch.testing.assert_close(given[0], net()[:2](standardised(PHOTOS)))
    assert not given.requires_grad


def test_a_reference_of_the_picture_s_size_follows_it_to_the_size_of_the_views() -> None:
    other, odd = (
        Reference(torch.full((1, 3, 12, 12), 0.25).double()),
        Reference(torch.full((1, 3, 9, 9), 0.25).double()),
    )
    term = Notes(Source("1"), Source("1", reference=other), Source("1", reference=odd))
    made = bound(term, Views(Compose([Jitter(1)], size=8), 2))
    made.step(0, 2)
    assert [term.given[-1].activations[source].shape[-1] for source in term.wanted] == [6, 6, 7]
    made.scores()
    assert [term.given[-1].activations[source].shape[-1] for source in term.wanted] == [10, 10, 7]


def test_a_reference_of_another_size_cannot_go_through_the_views() -> None:
    term = Notes(Source("1", reference=Reference(torch.zeros(1, 3, 9, 9).double(), through_views=True)))
    with pytest.raises(
        ValueError, match=r"reference: a picture of \(3, 9, 9\) cannot be seen .* \(3, 12, 12\); resize it"
    ):
        bound(term)


@pytest.mark.parametrize("moving", [False, True])
def test_another_number_of_references_is_refused(moving: bool) -> None:
    term = Notes(Source("1", reference=Reference(PHOTOS, through_views=moving)))
    with pytest.raises(ValueError, match="reference: 5 pictures do not fit 2; give one, or as many"):
        bound(term)


def gradient_by_hand(network: nn.Sequential, pictures: Tensor, unit: int) -> Tensor:
    """Differentiate the mean of a unit of the last layer by the first rectified layer."""
    middle = network[:2](standardised(pictures)).detach().requires_grad_(True)
    gradient: Tensor = torch.autograd.grad(network[2:](middle)[:, unit].mean((1, 2)).sum(), middle)[0]
    return gradient


def test_the_gradient_of_an_objective_by_an_activation() -> None:
    inner = Channel("3", 1)
    term = Notes(Source("1"), Source("1", gradient_of=inner))
    made = bound(term)
    made.step(0, 2).loss.backward()
    given = term.given[-1].activations[term.wanted[1]]
    assert given.shape == (2, 1, 4, 10, 10)
    assert not given.requires_grad
    torch.testing.assert_close(given[:, 0], gradient_by_hand(net(), made.image(), 1), rtol=0, atol=1e-12)
    (weight,) = made.image.parameters()
    assert weight.grad is not None
    assert bool(weight.grad.any())
    assert set(term.given[-1].terms) == {"Notes.1"}, "the inner objective is evaluated on the side"
    made.scores(PHOTOS[:2])
    torch.testing.assert_close(
        term.given[-1].activations[term.wanted[1]][:, 0], gradient_by_hand(net(), PHOTOS[:2], 1), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("moving", [False, True])
def test_the_gradient_at_a_reference(moving: bool) -> None:
    inner = Channel("3", 0)
    reference = Reference(PHOTOS[:2], through_views=moving)
    term = Notes(Source("1"), Source("1", reference=reference, gradient_of=inner), Source("0", reference=reference))
    made = bound(term, Views(Compose([Jitter(0)]), 3))
    made.step(0, 2)
    given = term.given[-1].activations[term.wanted[1]]
    assert given.shape == ((2, 3, 4, 10, 10) if moving else (2, 1, 4, 10, 10))
    for view in range(given.shape[1]):
        torch.testing.assert_close(given[:, view], gradient_by_hand(net(), PHOTOS[:2], 0), rtol=0, atol=1e-8)
    assert term.settings[0].shapes[term.wanted[1]] == (4, 10, 10)


class LastAxisChannels(nn.Module):
    """Give maps (H, W, C), as some transformers do, then go on."""

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, 3)


class FirstAxisAgain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(3, 1)


def test_gradients_are_laid_out_as_activations_are() -> None:
    network = net()
    turned = nn.Sequential(network[0], network[1], LastAxisChannels(), FirstAxisAgain(), network[2], network[3])
    term = Notes(Source("2"), Source("2", gradient_of=Channel("5", 1)))
    made = bound(term, network=turned)
    made.step(0, 2)
    given = term.given[-1].activations
    assert given[term.wanted[0]].shape == given[term.wanted[1]].shape == (2, 1, 4, 10, 10)
    torch.testing.assert_close(
        given[term.wanted[1]][:, 0], gradient_by_hand(network, made.image(), 1), rtol=0, atol=1e-12
    )


def test_running_states_hear_of_steps_only() -> None:
    term = Notes(Source("1"))
    made = bound(term)
    made.step(3, 5)
    made.scores()
    assert [seen.step for seen in term.given] == [3, None]


def transparent(opacity: float) -> FixedImage:
    pictures = torch.cat([START, torch.full((2, 1, 12, 12), opacity, dtype=torch.float64)], 1)
    return FixedImage(pictures, alpha=True)


def alpha_problem(opacity: float, term: Notes, views: Views | None) -> Ascent:
    made = Ascent(transparent(opacity), FrozenNetwork(net(), mean=0.5, std=0.25), term, seed=1, views=views)
    made.initialize()
    made.prepare()
    return made


def test_transparent_pictures_are_scored_on_grey() -> None:
    term = Notes(Source("1"))
    made = alpha_problem(0.25, term, None)
    with torch.no_grad():
        expected = net()[:2](standardised(0.25 * START + 0.75 * 0.5)).flatten(1).mean(1)
    np.testing.assert_allclose(made.scores().numpy(), expected.numpy(), atol=1e-6)
    assert term.settings[0].alpha is True
    assert term.settings[0].picture == (4, 12, 12)


@pytest.mark.parametrize("views", [None, Views(Compose([Jitter(1)]), 2)], ids=["as it is", "through views"])
def test_transparent_pictures_are_seen_on_random_backgrounds(views: Views | None) -> None:
    term = Notes(Source("1"))
    made = alpha_problem(0.0, term, views)
    first = [made.step(step, 4).scores for step in (0, 1)]
    assert not torch.equal(first[0], first[1]), "every step draws its own background"
    assert torch.equal(made.step(0, 4).scores, first[0]), "which depends on nothing but the step"
    assert term.given[0].network_input().shape[2] == 4, "objectives see how opaque the views are"
    opaque = Notes(Source("1"))
    made = alpha_problem(1.0, opaque, None)
    assert torch.equal(made.step(0, 4).scores, made.step(1, 4).scores), "opaque pictures hide it"


def test_an_objective_that_is_differentiated_at_a_reference_is_checked_too() -> None:
    reference = Reference(PHOTOS[:1])
    with pytest.raises(ValueError, match="unit: '3' has 2 units, 0 to 1; there is no 9"):
        bound(Notes(Source("1"), Source("1", reference=reference, gradient_of=Channel("3", 9))))
    with pytest.raises(ValueError, match="layer: the network has no layer '33'"):
        bound(Notes(Source("1"), Source("1", reference=reference, gradient_of=Channel("33", 0))))


def test_each_reference_is_read_in_one_pass() -> None:
    passes: list[int] = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.convolution.default and args[1].shape == (4, 3, 3, 3):  # the first layer
                passes.append(len(args[0]))
            return func(*args, **(kwargs or {}))

    reference = Reference(PHOTOS[:1], through_views=True)
    wanted = [
        Source("1", reference=reference),
        Source("3", reference=reference),
        Source("1", reference=reference, gradient_of=Channel("3", 0)),
    ]
    made = bound(Notes(Source("1"), *wanted))
    made.step(20, 30)
    with Count():  # type: ignore[no-untyped-call]
        made.step(21, 30)
    assert passes == [2, 2], "one of the pictures, one of the reference"


def test_a_layer_that_does_not_lead_to_the_objective_is_refused() -> None:
    made = bound(Notes(Source("1"), Source("3", gradient_of=Channel("1", 0))))
    with pytest.raises(ValueError, match=r"layer: '3' does not lead to Channel\('1', 0\); choose a layer before it"):
        made.step(0, 2)


def test_a_reference_with_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="reference: it has 1 channels, and the network sees 3"):
        bound(Notes(Source("1"), Source("1", reference=Reference(torch.rand(1, 1, 9, 9).double()))))


def test_what_is_only_watched_changes_no_draw_and_asks_for_no_pictures() -> None:
    views = Views(Compose([Jitter(2)]), 2)
    plain, watched = (
        bound(objective, views) for objective in (Channel("1", 0), Channel("1", 0) + Logged(Diversity("1")))
    )
    assert torch.equal(plain.decode_and_view(0, 2)[1], watched.decode_and_view(0, 2)[1])
    assert (Channel("1", 0) + Logged(Channel("1", [1, 2, 3]))).count() is None
    with pytest.raises(ValueError, match=r"objective: Logged.* has no term to maximize"):
        bound(Logged("1:0"))


def test_colors_are_not_shifted_where_a_picture_is_transparent() -> None:
    term = Notes(Source("1"))
    made = alpha_problem(0.5, term, Views(Compose([Jitter(1), ColorShift()]), 2))
    made.step(0, 4)
    assert term.given[0].network_input().shape[2] == 3, "a background came first"
    assert "Jitter(1), Background(" in repr(made._observer.views)


def test_references_are_opaque_where_pictures_are_transparent() -> None:
    reference = Reference(START[:1], through_views=True)
    term = Notes(Source("1"), Source("1", reference=reference))
    made = alpha_problem(1.0, term, Views(Compose([Background(), Jitter(0)]), 2))
    made.step(0, 4)
    with torch.no_grad():
        expected = net()[:2](standardised(START[:1]))
    torch.testing.assert_close(term.given[0].activations[term.wanted[1]][0, :1], expected, rtol=0, atol=1e-6)


def test_random_backgrounds_alone_can_have_several_views() -> None:
    term = Notes(Source("1"))
    made = alpha_problem(0.0, term, Views(Compose([]), 3))
    made.step(0, 4)
    assert term.given[0].network_input().shape[:2] == (2, 3)
