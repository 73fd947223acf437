"""Optimise the image of a problem in a bare loop, without a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from featviz_pl.engine.ascent import Ascent, trained_parameters
from featviz_pl.engine.picture_health import STRETCH
from featviz_pl.engine.step import Step, require_finite
from featviz_pl.numerics.checks import whole_number


def ascend(
    problem: Ascent,
    steps: int,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    *,
    scheduler: Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler | None] | None = None,
    on_step: Callable[[int, Step], None] | None = None,
    failures: dict[int, str] | None = None,
) -> Tensor:
    """Optimise the image of a problem in a bare loop, without a Trainer, and return the final scores (N,).

    The same steps as `Trainer.fit` takes on one device. Weights of networks get no gradient, and the gradients of other
    parameters are left alone, so the loop can run inside somebody's training.

    Args:
        problem: initialised and prepared here if it is not yet.
        steps: number of optimizer steps, 1 or more.
        optimizer: makes an optimizer of the image's parameters, or of each picture's slices of them where there are
            `failures`; such as ``recipe("featviz").make_optimizer``.
        scheduler: makes a scheduler of the optimizer and the number of steps, stepped after every step.
        on_step: called after every step with its index and result.
        failures: where given, a picture that fails does not end the run and does no harm to the others: its index and
            the reason are put in here; when all have failed the run ends. A picture fails when its score or gradient is
            not finite, or when no gradient but a redirected one reaches it in its first 64 steps.

    Raises:
        NonFiniteError: when a step gives NaN or infinity, and no `failures` take it.
        ValueError: when `failures` are asked for of pictures that share weights.

    Example:
        >>> from functools import partial
        >>> from featviz_pl.images import PixelImage
        >>> from featviz_pl.networks import FrozenNetwork
        >>> from featviz_pl.objectives import Channel
        >>> net = FrozenNetwork(nn.Conv2d(3, 4, 3))
        >>> problem = Ascent(PixelImage(8), net, Channel("output", 1))
        >>> problem.initialize(); problem.prepare(); before = problem.scores()
        >>> bool((ascend(problem, 8, partial(torch.optim.Adam, lr=0.05)) > before).all())
        True
    """
    steps = whole_number("steps", steps)
    with torch.inference_mode(False), torch.enable_grad():
        problem.initialize()
        if not problem.prepared:
            problem.prepare(problem.image.initialized.device)
        parameters = trained_parameters(problem.image)
        watch = None if failures is None else problem.watch(steps)
        # An optimizer that looks at whole tensors must not couple pictures that are rendered together by chance.
        indices = range(len(problem.keys))
        slices = [parameters]
        if watch is not None:
            slices = [[nn.Parameter(own.data[index : index + 1]) for own in parameters] for index in indices]
        optimized = [parameter for own in slices for parameter in own]
        stepper = optimizer(optimized)
        schedule = None if scheduler is None else scheduler(stepper, steps)
        for step in range(steps):
            result = problem.step(step, steps)
            gradients: Sequence[Tensor | None] = torch.autograd.grad(result.loss, parameters, allow_unused=True)
            if watch is None:
                require_finite(step, result.loss, gradients)
            else:
                gradients = watch.kept(result.scores, gradients)
            for index, own in enumerate(slices):
                for parameter, gradient in zip(own, gradients):
                    parameter.grad = gradient if watch is None or gradient is None else gradient[index : index + 1]
            stepper.step()
            if schedule is not None:
                schedule.step()
            if on_step is not None:
                on_step(step, result)
            if watch is not None and failures is not None and ((step + 1) % STRETCH == 0 or step == steps - 1):
                failures.update(watch.failures())
                if len(failures) == len(indices):
                    break
        stepper.zero_grad()
        return problem.scores()
