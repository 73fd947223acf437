"""Optimize an image in a bare loop, without a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from featviz_pl.engine.ascent import Ascent, trained_parameters
from featviz_pl.engine.picture_health import CHECK_INTERVAL
from featviz_pl.engine.step import Step, require_finite
from featviz_pl.numerics.checks import whole_number


def ascend(
    ascent: Ascent,
    steps: int,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    *,
    scheduler: Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler | None] | None = None,
    on_step: Callable[[int, Step], None] | None = None,
    failures: dict[int, str] | None = None,
) -> Tensor:
    """Optimize an image in a bare loop, without a Trainer, and return the final scores (N,).

    The steps are those of `Trainer.fit` on one device. Weights of networks get no gradient, and the gradients of other
    parameters are left alone, so the loop can run inside another training.

    Args:
        ascent: initialized and prepared here if it is not yet.
        steps: number of optimizer steps, 1 or more.
        optimizer: makes an optimizer of the image's parameters, or of each picture's slices of them where there are
            `failures`; such as ``recipe("featviz").make_optimizer``.
        scheduler: makes a scheduler of the optimizer and the number of steps, stepped after every step.
        on_step: called after every step with its index and result.
        failures: filled with the reason of each picture that fails, by its index; without it the first failure ends the
            run. The other pictures go on; when all have failed the run ends. A picture fails when its score or gradient
            is not finite, or when it gets no gradient but a redirected one in its first 64 steps.

    Raises:
        NonFiniteError: when a step gives NaN or infinity, without `failures`.
        ValueError: when `failures` are given and the pictures share weights.

    Example:
        >>> from functools import partial
        >>> from featviz_pl.images import PixelImage
        >>> from featviz_pl.networks import FrozenNetwork
        >>> from featviz_pl.objectives import Channel
        >>> net = FrozenNetwork(nn.Conv2d(3, 4, 3))
        >>> ascent = Ascent(PixelImage(8), net, Channel("output", 1))
        >>> ascent.initialize(); ascent.prepare(); before = ascent.scores()
        >>> bool((ascend(ascent, 8, partial(torch.optim.Adam, lr=0.05)) > before).all())
        True
    """
    steps = whole_number("steps", steps)
    with torch.inference_mode(False), torch.enable_grad():
        ascent.initialize()
        if not ascent.prepared:
            ascent.prepare(ascent.image.initialized.device)
        parameters = trained_parameters(ascent.image)
        health = None if failures is None else ascent.health(steps)
        # An optimizer that looks at whole tensors must not couple pictures that are rendered together by chance.
        indices = range(len(ascent.keys))
        slices = [parameters]
        if health is not None:
            slices = [[nn.Parameter(weight.data[index : index + 1]) for weight in parameters] for index in indices]
        stepper = optimizer([parameter for picture in slices for parameter in picture])
        schedule = None if scheduler is None else scheduler(stepper, steps)
        for step in range(steps):
            result = ascent.step(step, steps)
            gradients: Sequence[Tensor | None] = torch.autograd.grad(result.loss, parameters, allow_unused=True)
            if health is None:
                require_finite(step, result.loss, gradients)
            else:
                gradients = health.mask_failed(result.scores, gradients)
            for index, picture in enumerate(slices):
                for parameter, gradient in zip(picture, gradients):
                    parameter.grad = gradient if health is None or gradient is None else gradient[index : index + 1]
            stepper.step()
            if schedule is not None:
                schedule.step()
            if on_step is not None:
                on_step(step, result)
            if health is not None and failures is not None and ((step + 1) % CHECK_INTERVAL == 0 or step == steps - 1):
                failures.update(health.failures())
                if len(failures) == len(indices):
                    break
        stepper.zero_grad()
        return ascent.scores()
