"""The problem that every run solves, and the bare loop that solves it without a Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from featviz_pl.engine.observer import Draw, Observer
from featviz_pl.engine.picture_health import Watch
from featviz_pl.engine.step import Step
from featviz_pl.images import Image
from featviz_pl.networks import FrozenNetwork, redirected_relu
from featviz_pl.numerics.checks import whole_number
from featviz_pl.numerics.random import generator_for, mix
from featviz_pl.objectives import Objective, Observation, Term
from featviz_pl.transforms import Views

REDIRECTED_STEPS = 16  # Lucid's: rectifiers that are off pass gradient only this long, and only where there is no other

CHECK_EVERY = 25  # steps between looks for pictures without a gradient: each one waits for the device


class Ascent:
    """Bind an image, a network, an objective and views into a loss for every step.

    Args:
        image: what is trained; its pictures are allocated here, and drawn by `initialize`.
        network: the guest; the run works on readers of it.
        objective: what is wanted.
        seed: of every draw.
        views: how the pictures are seen; None shows them as they are.

    Raises:
        ValueError: when image and objective ask for different numbers of pictures.
    """

    def __init__(
        self, image: Image, network: FrozenNetwork, objective: Objective, seed: int = 0, views: Views | None = None
    ) -> None:
        self.image, self.network, self.objective = image, network, objective
        self.seed, self.views = whole_number("seed", seed, least=0), views
        if not any(isinstance(node, Term) for node in objective.optimized()):
            raise ValueError(f"objective: in {objective!r} nothing can be raised")
        image.allocate(objective.count() or image.count or 1)
        assert image.count is not None
        self.targets = objective.targets(image.count)
        self.keys = picture_keys(self.targets)
        # Pictures that are compared are seen through the same views, or jitter would hide what they have in common.
        joint = any(node.joint for node in objective.optimized())
        self.view_keys = [self.keys[0]] * len(self.keys) if joint else self.keys
        self._observer = Observer(image, network, objective, views, image.count)
        self._warned = False
        self._weights_hash: str | None = None

    def initialize(self) -> None:
        """Draw the first weights of the image from the seed, each picture from its own target; started pictures stay."""
        self.image.initialize(len(self.keys), [generator_for(self.seed, "image", key) for key in self.keys])

    def prepare(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> None:
        """Make the readers, check names and shapes with one pass over a grey picture, and read the fixed references.

        Args:
            device: where the run takes place.
            dtype: of the networks; None leaves each as it is.

        Raises:
            ValueError: when a layer, unit, size or class cannot work.
        """
        self._observer.prepare(device, dtype)
        self.objective.to(device)

    @property
    def prepared(self) -> bool:
        """Whether `prepare` has been called."""
        return self._observer.prepared

    def step(
        self,
        step: int,
        steps: int,
        indices: Sequence[int] | None = None,
        in_all: Callable[[Tensor], Tensor] | None = None,
    ) -> Step:
        """Evaluate one step on a graph that leads to the image.

        Args:
            step: counted over the whole run, from 0.
            steps: of the whole run, for schedules.
            indices: of the views to evaluate; all unless given.
            in_all: where other processes evaluate the other views: turns what holds (N,) in this one into what holds in
                all.
        """
        pictures, views, draw = self.look(step, steps, indices)
        seen = self._observer.observe(pictures, views, draw, step)
        scores = self._evaluated(seen).expand(-1, views.shape[1])
        if views.requires_grad and scores.requires_grad:
            if step < REDIRECTED_STEPS:
                self._revive(scores, pictures, views, draw, in_all or _as_it_is)
            if self._names_dead(step, steps):
                views.register_hook(lambda gradient: self._warn_of_dead(gradient, step, in_all or _as_it_is))
        loss = -scores.mean(1).sum()
        return Step(loss, scores.detach().mean(1), {name: own.mean(1) for name, own in seen.terms.items()})

    def _names_dead(self, step: int, steps: int) -> bool:
        return not self._warned and (step % CHECK_EVERY == REDIRECTED_STEPS or step == steps - 1)

    def look(self, step: int, steps: int, indices: Sequence[int] | None = None) -> tuple[Tensor, Tensor, Draw]:
        """Return the pictures (N, C, H, W) before a step, the step's views of them (N, V, C, h, w), and what was drawn."""
        with torch.autocast(self.image.initialized.device.type, enabled=False):
            self.image.advance(step, steps)
        pictures = self.decoded()
        draw = self._draw(step, steps, indices)
        with torch.autocast(self.image.initialized.device.type, enabled=False):
            return pictures, self._observer.show(pictures, draw), draw

    def _draw(self, step: int, steps: int, indices: Sequence[int] | None) -> Draw:
        return self._observer.draw(self.seed, step, step / max(1, steps - 1), self.view_keys, indices)

    def scores(self, pictures: Tensor | None = None) -> Tensor:
        """Score pictures (N, C, H, W) as they are, without views, on grey where they are transparent; the image's own unless given."""
        with torch.no_grad():
            shown = self.decoded() if pictures is None else pictures
        with torch.inference_mode(False), torch.set_grad_enabled(self._observer.needs_gradient):
            shown = shown.detach().clone().requires_grad_(self._observer.needs_gradient)
            seen = self._observer.observe(shown, shown[:, None], Draw())
            return self._evaluated(seen).detach().expand(len(shown), 1).mean(1)

    def _evaluated(self, seen: Observation) -> Tensor:
        """Return the scores (N, V) in full precision: only the networks run under the Trainer's."""
        with torch.autocast(seen.pictures.device.type, enabled=False):
            scores: Tensor = self.objective(seen)
        return scores

    def decoded(self) -> Tensor:
        """Return the pictures (N, C, H, W), in full precision."""
        with torch.autocast(self.image.initialized.device.type, enabled=False):
            pictures: Tensor = self.image()
        return pictures

    def _revive(
        self, scores: Tensor, pictures: Tensor, views: Tensor, draw: Draw, in_all: Callable[[Tensor], Tensor]
    ) -> None:
        """Give pictures whose whole gradient is zero, once it is known, the one that rectifiers would pass if they were on.

        The whole gradient is that of all views, also of those that other processes evaluate.
        """
        device = views.device.type
        autocast = torch.autocast(device, torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device))
        # Whatever is done to the loss between here and backward (accumulation, a scaler) arrives as the gradient of the
        # scores.
        upstream: list[Tensor] = []
        scores.register_hook(upstream.append)
        # Detached: a hook that held the views would keep the step's whole graph, and with it the run, alive for ever.
        pictures, shown = pictures.detach(), views.detach()

        def revived(gradient: Tensor) -> Tensor:
            dead = in_all(gradient.flatten(1).abs().amax(1) == 0)
            if not dead.any():
                return gradient
            fresh = shown.clone().requires_grad_(True)
            with torch.enable_grad(), autocast, redirected_relu():
                again = self._evaluated(self._observer.observe(pictures, fresh, draw)).expand(-1, shown.shape[1])
            (replacement,) = torch.autograd.grad(again, fresh, upstream[0])
            return torch.where(dead.view(-1, 1, 1, 1, 1), replacement.to(gradient), gradient)

        views.register_hook(revived)

    def _warn_of_dead(self, gradient: Tensor, step: int, in_all: Callable[[Tensor], Tensor]) -> None:
        dead = in_all(gradient.flatten(1).abs().amax(1) == 0).tolist()
        names = [target for target, is_dead in zip(self.targets, dead) if is_dead]
        if names:
            self._warned = True
            warnings.warn(
                f"at step {step} no gradient reaches {len(names)} of {len(self.targets)} pictures ({', '.join(names[:5])}): "
                "nothing turns the unit on; try the layer before its rectifier, another seed, or a louder start, "
                "such as FourierImage(deviation=0.1)",
                stacklevel=2,
            )

    def watch(self, steps: int) -> Watch:
        """Return what watches each picture of a run of so many steps for itself.

        Raises:
            ValueError: when pictures share weights.
        """
        count = len(self.keys)
        if any(parameter.ndim < 2 or len(parameter) != count for parameter in trained_parameters(self.image)):
            raise ValueError(
                f"image: the pictures of {type(self.image).__name__} share weights, so none can fail, or be made, alone"
            )
        self._warned = True  # what the warning would say is in the reasons
        # The redirected gradient of the first steps brings units to life; one that needs it for ever is dead.
        live_from = REDIRECTED_STEPS if steps > REDIRECTED_STEPS else 0
        return Watch(count, steps, live_from, self.image.initialized.device)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast what the run made: readers and fixed activations."""
        self._observer.apply_(fn)

    def release(self) -> None:
        """Let go of what `prepare` made; it can be made again."""
        self._observer.release()

    def weights_hash(self) -> str:
        """Return the network's weights hash, computed once for all pictures of the run."""
        if self._weights_hash is None:
            self._weights_hash = self.network.weights_hash()
        return self._weights_hash


def trained_parameters(image: Image) -> list[nn.Parameter]:
    """Return what an optimizer moves.

    Raises:
        ValueError: when there is nothing.
    """
    parameters = [parameter for parameter in image.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(
            f"image: {type(image).__name__} holds nothing that could be optimised; stack it with another image"
        )
    return parameters


def _as_it_is(holds: Tensor) -> Tensor:
    return holds


def picture_keys(targets: Sequence[str]) -> list[int]:
    """Return a key for each picture, from its target and how often that target came before.

    A picture so draws the same views whatever stands beside it, and two pictures of one target draw different ones.

    Example:
        >>> a, b, again = picture_keys(["a", "b", "a"])
        >>> picture_keys(["b"]) == [b], a == again
        (True, False)
    """
    seen: dict[str, int] = {}
    keys: list[int] = []
    for target in targets:
        keys.append(mix(target, seen.setdefault(target, 0)))
        seen[target] += 1
    return keys
