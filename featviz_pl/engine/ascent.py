"""The gradient ascent of a run: the loss of each step, as a function of the image."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from featviz_pl.engine.observer import Draw, Observer
from featviz_pl.engine.picture_health import PictureHealth
from featviz_pl.engine.step import Step
from featviz_pl.images import Image
from featviz_pl.networks import FrozenNetwork, redirected_relu
from featviz_pl.numerics.checks import whole_number
from featviz_pl.numerics.host_memory import BYTES_PER_WEIGHT, require_memory
from featviz_pl.numerics.random import generator_for, mix
from featviz_pl.objectives import Objective, Observation, Term
from featviz_pl.transforms import Views

REDIRECTED_STEPS = 16  # as in Lucid; afterwards rectifiers that are off pass no gradient

CHECK_EVERY = 25  # steps between checks for pictures without a gradient: each one waits for the device

OverRanks = Callable[[Tensor], Tensor]


class Ascent:
    """Compute a loss for every step from an image, a network, an objective and views.

    Args:
        image: trained; its pictures are allocated here, and drawn by `initialize`.
        network: frozen, and left as it is.
        objective: maximized.
        seed: of every draw.
        views: of the pictures; None for the pictures as they are.

    Raises:
        ValueError: when image and objective have different numbers of pictures, or the objective has no term to
            maximize.
    """

    def __init__(
        self, image: Image, network: FrozenNetwork, objective: Objective, seed: int = 0, views: Views | None = None
    ) -> None:
        self.image, self.network, self.objective = image, network, objective
        self.seed, self.views = whole_number("seed", seed, least=0), views
        if not any(isinstance(node, Term) for node in objective.optimized()):
            raise ValueError(f"objective: {objective!r} has no term to maximize")
        count = objective.count() or image.count or 1
        pixels = count * image.channels * image.size[0] * image.size[1]
        require_memory("size", f"{count} pictures of {image.size[0]} x {image.size[1]}", pixels * BYTES_PER_WEIGHT)
        image.allocate(count)
        assert image.count is not None
        self.targets = objective.targets(image.count)
        self.keys = picture_keys(self.targets)
        # Pictures that are compared have the same views: jitter would hide what they have in common.
        joint = any(node.joint for node in objective.optimized())
        self.view_keys = [self.keys[0]] * len(self.keys) if joint else self.keys
        self._observer = Observer(image, network, objective, views, image.count)
        self._warned = False
        self._weights_hash: str | None = None

    def initialize(self) -> None:
        """Draw the first weights of each picture from the seed and its target; started pictures stay."""
        self.image.initialize(len(self.keys), [generator_for(self.seed, "image", key) for key in self.keys])

    def prepare(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> None:
        """Copy the networks, check names and shapes with one pass over a grey picture, and read fixed references.

        Args:
            device: of the run.
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
        all_over_ranks: OverRanks | None = None,
    ) -> Step:
        """Compute the loss and the scores of one step.

        Args:
            step: counted over the whole run, from 0.
            steps: of the whole run, for schedules.
            indices: of the views to evaluate; all unless given.
            all_over_ranks: where other processes evaluate the other views: reduces a condition (N,) over all processes.
        """
        pictures, views, draw = self.decode_and_view(step, steps, indices)
        observation = self._observer.observe(pictures, views, draw, step)
        scores = self._evaluate(observation).expand(-1, views.shape[1])
        if views.requires_grad and scores.requires_grad:
            if step < REDIRECTED_STEPS:
                self._redirect_zero_gradients(scores, pictures, views, draw, all_over_ranks)
            if self._reports_zero_gradient(step, steps):
                views.register_hook(lambda gradient: self._warn_of_zero_gradient(gradient, step, all_over_ranks))
        loss = -scores.mean(1).sum()
        terms = {name: values.mean(1) for name, values in observation.terms.items()}
        return Step(loss, scores.detach().mean(1), terms)

    def _reports_zero_gradient(self, step: int, steps: int) -> bool:
        return not self._warned and (step % CHECK_EVERY == REDIRECTED_STEPS or step == steps - 1)

    def decode_and_view(
        self, step: int, steps: int, indices: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor, Draw]:
        """Return the pictures (N, C, H, W) before a step, its views of them (N, V, C, h, w), and the random numbers."""
        with torch.autocast(self.image.initialized.device.type, enabled=False):
            self.image.advance(step, steps)
        pictures = self.decode()
        draw = self._observer.draw(self.seed, step, step / max(1, steps - 1), self.view_keys, indices)
        with torch.autocast(self.image.initialized.device.type, enabled=False):
            return pictures, self._observer.view(pictures, draw), draw

    def scores(self, pictures: Tensor | None = None) -> Tensor:
        """Score pictures (N, C, H, W), those of the image unless given, without views; transparent ones on grey."""
        with torch.no_grad():
            pictures = self.decode() if pictures is None else pictures
        with torch.inference_mode(False), torch.set_grad_enabled(self._observer.needs_gradient):
            pictures = pictures.detach().clone().requires_grad_(self._observer.needs_gradient)
            observation = self._observer.observe(pictures, pictures[:, None], Draw())
            return self._evaluate(observation).detach().expand(len(pictures), 1).mean(1)

    def _evaluate(self, observation: Observation) -> Tensor:
        """Return the scores (N, V) in full precision: only the networks run in the Trainer's."""
        with torch.autocast(observation.pictures.device.type, enabled=False):
            scores: Tensor = self.objective(observation)
        return scores

    def decode(self) -> Tensor:
        """Return the pictures (N, C, H, W), in full precision."""
        with torch.autocast(self.image.initialized.device.type, enabled=False):
            pictures: Tensor = self.image()
        return pictures

    def _redirect_zero_gradients(
        self, scores: Tensor, pictures: Tensor, views: Tensor, draw: Draw, all_over_ranks: OverRanks | None
    ) -> None:
        """Replace the gradient of pictures where it is zero in all views by that of redirected rectifiers."""
        device = views.device.type
        autocast = torch.autocast(device, torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device))
        # Factors of the loss between here and backward (accumulation, a scaler) are in the gradient of the scores.
        upstream: list[Tensor] = []
        scores.register_hook(upstream.append)
        # Detached: a hook that refers to the views keeps the graph of the step, and with it the run, alive for ever.
        pictures, values = pictures.detach(), views.detach()

        def redirect(gradient: Tensor) -> Tensor:
            is_zero = _is_zero(gradient, all_over_ranks)
            if not is_zero.any():
                return gradient
            copies = values.clone().requires_grad_(True)
            with torch.enable_grad(), autocast, redirected_relu():
                redirected = self._evaluate(self._observer.observe(pictures, copies, draw)).expand_as(upstream[0])
            (replacement,) = torch.autograd.grad(redirected, copies, upstream[0])
            return torch.where(is_zero.view(-1, 1, 1, 1, 1), replacement.to(gradient), gradient)

        views.register_hook(redirect)

    def _warn_of_zero_gradient(self, gradient: Tensor, step: int, all_over_ranks: OverRanks | None) -> None:
        zeros = _is_zero(gradient, all_over_ranks).tolist()
        names = [target for target, is_zero in zip(self.targets, zeros) if is_zero]
        if names:
            self._warned = True
            warnings.warn(
                f"at step {step} no gradient reaches {len(names)} of {len(self.targets)} pictures "
                f"({', '.join(names[:5])}): nothing turns the unit on; try the layer before its rectifier, another "
                "seed, or a louder start, such as FourierImage(deviation=0.1)",
                stacklevel=2,
            )

    def health(self, steps: int) -> PictureHealth:
        """Return a record of the pictures that fail in a run of so many steps.

        Raises:
            ValueError: when pictures share weights.
        """
        count = len(self.keys)
        if any(parameter.ndim < 2 or len(parameter) != count for parameter in trained_parameters(self.image)):
            raise ValueError(
                f"image: the pictures of {type(self.image).__name__} share weights, so none can fail, or be made, alone"
            )
        self._warned = True  # the reasons of the failures replace the warning
        first_step = REDIRECTED_STEPS if steps > REDIRECTED_STEPS else 0
        return PictureHealth(count, steps, first_step, self.image.initialized.device)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast the copies of the networks and the fixed activations."""
        self._observer.apply_(fn)

    def release(self) -> None:
        """Free what `prepare` made; it can be called again."""
        self._observer.release()

    def weights_hash(self) -> str:
        """Return the network's weights hash, computed once for all pictures of the run."""
        if self._weights_hash is None:
            self._weights_hash = self.network.weights_hash()
        return self._weights_hash


def trained_parameters(image: Image) -> list[nn.Parameter]:
    """Return the parameters of an image that an optimizer updates.

    Raises:
        ValueError: when there are none.
    """
    parameters = [parameter for parameter in image.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(f"image: {type(image).__name__} has no parameters to optimize; stack it with another image")
    return parameters


def _is_zero(gradient: Tensor, all_over_ranks: OverRanks | None) -> Tensor:
    """Return for each picture (N,) whether the gradient of its views is zero, in all processes."""
    is_zero = gradient.flatten(1).abs().amax(1) == 0
    return is_zero if all_over_ranks is None else all_over_ranks(is_zero)


def picture_keys(targets: Sequence[str]) -> list[int]:
    """Return a key for each picture, from its target and how often that target came before.

    The views of a picture do not depend on its companions, and two pictures of one target have different views.

    Example:
        >>> first, second, third = picture_keys(["a", "b", "a"])
        >>> picture_keys(["b"]) == [second], first == third
        (True, False)
    """
    counts: Counter[str] = Counter()
    keys: list[int] = []
    for target in targets:
        keys.append(mix(target, counts[target]))
        counts[target] += 1
    return keys
