"""The problem that every run solves, and the bare loop that solves it without a Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.images import Image
from featviz_pl.networks import FrozenNetwork, Shadow, as_network, redirected_relu
from featviz_pl.networks.layers import probe
from featviz_pl.numerics._checks import whole_number
from featviz_pl.numerics.random import generator_for, mix
from featviz_pl.objectives import Objective, Observation, Reference, Setting, Source
from featviz_pl.transforms import Views

REDIRECTED_STEPS = 16  # Lucid's: rectifiers that are off pass gradient only this long, and only where there is no other

CHECK_EVERY = 25  # steps between looks for pictures without a gradient: each one waits for the device


class NonFiniteError(ValueError):
    """Say that a step gave NaN or infinity; it never reached the picture."""


@dataclass
class Step:
    """Hold what one step computed.

    Args:
        loss: to be minimised, one number: minus the scores, summed over pictures.
        scores: (N,) mean over views, detached.
        terms: (N,) for each term of the objective, detached.
    """

    loss: Tensor
    scores: Tensor
    terms: dict[str, Tensor]


class Ascent:
    """Bind an image, a network, an objective and views into a loss for every step.

    Args:
        image: what is trained; its pictures are allocated here, and drawn by `initialize`.
        network: the guest; the run works on shadows of it.
        objective: what is wanted.
        seed: of every draw.
        views: how the pictures are seen; None shows them as they are.

    Raises:
        ValueError: when image and objective ask for different numbers of pictures.
    """

    def __init__(self, image: Image, network: FrozenNetwork, objective: Objective, seed: int = 0, views: Views | None = None) -> None:
        self.image, self.network, self.objective = image, network, objective
        self.seed, self.views = whole_number("seed", seed, least=0), views
        if not objective.terms():
            raise ValueError(f"objective: {objective!r} is a number, and nothing in it can be raised")
        image.allocate(objective.count() or image.count or 1)
        assert image.count is not None
        self.targets = objective.targets(image.count)
        self.keys = picture_keys(self.targets)
        self._shadows: dict[object, Shadow] = {}
        self._fixed: dict[Source, Tensor] = {}
        self._sources = objective.sources()
        self._warned = False
        self._weights_hash: str | None = None

    def initialize(self) -> None:
        """Draw the first weights of the image from the seed, each picture from its own target; started pictures stay."""
        self.image.initialize(len(self.keys), [generator_for(self.seed, "image", key) for key in self.keys])

    def prepare(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> None:
        """Make the shadows, check names and shapes with one pass over a grey picture, and read the fixed references.

        Args:
            device: where the run takes place.
            dtype: of the networks; None leaves each as it is.

        Raises:
            ValueError: when a layer, unit, size or class cannot work.
        """
        for network in self._grouped(self._sources):
            shadow = (self.network if network is None else as_network(network)).shadow()  # type: ignore[arg-type]
            shadow.module.to(device=device, dtype=dtype)
            self._shadows[network] = shadow
        for source in self._sources:
            if source.reference is not None and not source.reference.through_views:
                self._fixed[source] = self._read_reference(source, device)
        size = self.image.size
        self._check(size)  # scores are of the picture as it is …
        if self.views is not None and self.views.transforms.output_size(size) != size:
            self._check(self.views.transforms.output_size(size))  # … and steps are of its views

    def _check(self, size: tuple[int, int]) -> None:
        """Probe every network with a picture of this size and let the objective refuse what cannot work."""
        shapes = {source: tuple(activation.shape[2:]) for source, activation in self._fixed.items()}
        for network, sources in self._grouped(self._sources).items():
            found = probe(self._shadows[network], (self.image.channels, *size), [source.layer for source in sources])
            shapes = {source: found[source.layer] for source in sources} | shapes
        picture = (self.image.channels, *self.image.size)
        self.objective.check(Setting(shapes, len(self.keys), picture, self.network.classes))

    @torch.no_grad()
    def _read_reference(self, source: Source, device: torch.device | str) -> Tensor:
        assert source.reference is not None
        image = source.reference.image.to(device)
        if len(image) not in (1, len(self.keys)):
            raise ValueError(f"reference: {len(image)} pictures do not fit {len(self.keys)}; give one, or as many")
        return self._shadows[source.network].activations(image, [source.layer])[source.layer][:, None]

    def step(self, step: int, steps: int, indices: Sequence[int] | None = None) -> Step:
        """Evaluate one step on a graph that leads to the image.

        Args:
            step: counted over the whole run, from 0.
            steps: of the whole run, for schedules.
            indices: of the views to evaluate; all unless given.
        """
        pictures, views, parameters = self._seen(step, steps, indices)
        seen = self._observe(pictures, views, parameters)
        scores = self._evaluated(seen).expand(-1, views.shape[1])
        if views.requires_grad and scores.requires_grad:
            if step < REDIRECTED_STEPS:
                self._revive(scores, pictures, views, parameters)
            if not self._warned and (step % CHECK_EVERY == REDIRECTED_STEPS or step == steps - 1):
                views.register_hook(lambda gradient: self._warn_of_dead(gradient, step))
        loss = -scores.mean(1).sum()
        return Step(loss, scores.detach().mean(1), {name: own.mean(1) for name, own in seen.terms.items()})

    @torch.no_grad()
    def scores(self, pictures: Tensor | None = None) -> Tensor:
        """Score pictures (N, C, H, W) as they are, without views; the image's own unless given."""
        shown = self._decoded() if pictures is None else pictures
        seen = self._observe(shown, shown[:, None], None)
        return self._evaluated(seen).expand(len(shown), 1).mean(1)

    def _evaluated(self, seen: Observation) -> Tensor:
        """Return the scores (N, V) in full precision: only the networks run under the Trainer's."""
        with torch.autocast(seen.pictures.device.type, enabled=False):
            scores: Tensor = self.objective(seen)
        return scores

    def _decoded(self) -> Tensor:
        with torch.autocast(self.image.initialized.device.type, enabled=False):
            pictures: Tensor = self.image()
        return pictures

    def _seen(self, step: int, steps: int, indices: Sequence[int] | None) -> tuple[Tensor, Tensor, Any]:
        pictures = self._decoded()
        if self.views is None:
            return pictures, pictures[:, None], None
        parameters = self.views.sample(self.seed, step, self.keys, indices)
        progress = step / max(1, steps - 1)
        with torch.autocast(pictures.device.type, enabled=False):
            return pictures, self.views.apply(pictures, parameters, progress), (parameters, progress)

    def _observe(self, pictures: Tensor, views: Tensor, drawn: Any) -> Observation:
        activations: dict[Source, Tensor] = dict(self._fixed)
        own = [source for source in self._sources if source.reference is None]
        for network, sources in self._grouped(own).items():
            activations |= self._read(network, sources, views)
        moving = [source for source in self._sources if source.reference is not None and source.reference.through_views]
        for source in moving:
            with torch.no_grad():
                activations |= self._read(source.network, [source], self._reference_views(source.reference, pictures, drawn))
        return Observation(pictures, activations, self.network.classes)

    def _read(self, network: object, sources: list[Source], views: Tensor) -> dict[Source, Tensor]:
        read = self._shadows[network].activations(views.flatten(0, 1), [source.layer for source in sources])
        return {source: read[source.layer].unflatten(0, views.shape[:2]) for source in sources}

    def _reference_views(self, reference: Reference | None, pictures: Tensor, drawn: Any) -> Tensor:
        assert reference is not None
        image = reference.image.to(pictures).expand(len(pictures), -1, -1, -1)
        if drawn is None or self.views is None:
            return image[:, None]
        parameters, progress = drawn
        return self.views.apply(image, parameters, progress)

    def _revive(self, scores: Tensor, pictures: Tensor, views: Tensor, drawn: Any) -> None:
        """Give pictures whose whole gradient is zero, once it is known, the one that rectifiers would pass if they were on."""
        device = views.device.type
        autocast = torch.autocast(device, torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device))
        # Whatever is done to the loss between here and backward (accumulation, a scaler) arrives as the gradient of the scores.
        upstream: list[Tensor] = []
        scores.register_hook(upstream.append)
        # Detached: a hook that held the views would keep the step's whole graph, and with it the run, alive for ever.
        pictures, shown = pictures.detach(), views.detach()

        def revived(gradient: Tensor) -> Tensor:
            dead = gradient.flatten(1).abs().amax(1) == 0
            if not dead.any():
                return gradient
            fresh = shown.clone().requires_grad_(True)
            with torch.enable_grad(), autocast, redirected_relu():
                again = self._evaluated(self._observe(pictures, fresh, drawn)).expand(-1, shown.shape[1])
            (replacement,) = torch.autograd.grad(again, fresh, upstream[0])
            return torch.where(dead.view(-1, 1, 1, 1, 1), replacement.to(gradient), gradient)

        views.register_hook(revived)

    def _warn_of_dead(self, gradient: Tensor, step: int) -> None:
        dead = (gradient.flatten(1).abs().amax(1) == 0).tolist()
        names = [target for target, is_dead in zip(self.targets, dead) if is_dead]
        if names:
            self._warned = True
            warnings.warn(
                f"at step {step} no gradient reaches {len(names)} of {len(self.targets)} pictures ({', '.join(names[:5])}): "
                "nothing turns the unit on; try the layer before its rectifier, another seed, or a louder start, "
                "such as FourierImage(deviation=0.1)",
                stacklevel=2,
            )

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast what the run made: shadows and fixed activations."""
        for shadow in self._shadows.values():
            shadow.apply_(fn)
        self._fixed = {source: fn(activation) for source, activation in self._fixed.items()}

    def weights_hash(self) -> str:
        """Return the network's weights hash, computed once for all pictures of the run."""
        if self._weights_hash is None:
            self._weights_hash = self.network.weights_hash()
        return self._weights_hash

    @property
    def prepared(self) -> bool:
        """Whether `prepare` has been called."""
        return bool(self._shadows) or not self._sources

    @staticmethod
    def _grouped(sources: Iterable[Source]) -> dict[object, list[Source]]:
        groups: dict[object, list[Source]] = {}
        for source in sources:
            groups.setdefault(source.network, []).append(source)
        return groups


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


def require_finite(step: int, loss: Tensor, gradients: Iterable[Tensor | None]) -> None:
    """Raise, before the step reaches the picture, when the loss or a gradient is NaN or infinite.

    Raises:
        NonFiniteError: naming the step.
    """
    what = "score" if not torch.isfinite(loss).all() else None
    if what is None and not all(bool(torch.isfinite(g).all()) for g in gradients if g is not None):
        what = "gradient"
    if what is not None:
        raise non_finite(step, what)


def non_finite(step: int, what: str) -> NonFiniteError:
    """Make the error for a step that was not finite."""
    return NonFiniteError(
        f"step {step}: the {what} is not finite, and the picture was kept from it. Look for NaN in the network's output or "
        "weights, a division in the objective, or a learning rate that is too high"
    )


def ascend(
    problem: Ascent,
    steps: int = 512,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
    lr: float = 0.05,
    on_step: Callable[[int, Step], None] | None = None,
) -> Tensor:
    """Optimise the image of a problem in a bare loop, without a Trainer, and return the final scores (N,).

    The same steps as `Trainer.fit` takes on one device. Weights of networks get no gradient, and the gradients of other
    parameters are left alone, so the loop can run inside somebody's training.

    Args:
        problem: initialised and prepared here if it is not yet.
        steps: number of optimizer steps, 1 or more.
        optimizer: makes an optimizer of the image's parameters; Adam with `lr` unless given.
        lr: learning rate of the default optimizer.
        on_step: called after every step with its index and result.

    Raises:
        NonFiniteError: when a step gives NaN or infinity.

    Example:
        >>> from featviz_pl.images import PixelImage
        >>> from featviz_pl.objectives import Channel
        >>> net = FrozenNetwork(nn.Conv2d(3, 4, 3))
        >>> problem = Ascent(PixelImage(8), net, Channel("output", 1))
        >>> problem.initialize(); problem.prepare(); before = problem.scores()
        >>> bool((ascend(problem, steps=8) > before).all())
        True
    """
    steps = whole_number("steps", steps)
    with torch.inference_mode(False), torch.enable_grad():
        problem.initialize()
        if not problem.prepared:
            problem.prepare(problem.image.initialized.device)
        parameters = [parameter for parameter in problem.image.parameters() if parameter.requires_grad]
        chosen = torch.optim.Adam(parameters, lr=lr) if optimizer is None else optimizer(parameters)
        for index in range(steps):
            result = problem.step(index, steps)
            gradients = torch.autograd.grad(result.loss, parameters, allow_unused=True)
            require_finite(index, result.loss, gradients)
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad = gradient
            chosen.step()
            if on_step is not None:
                on_step(index, result)
        chosen.zero_grad()
        return problem.scores()
