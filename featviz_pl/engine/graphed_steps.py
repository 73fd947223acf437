"""Steps and their gradients: one by one, or on a GPU, where the host is slower than the device, captured once and replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from featviz_pl.engine.cuda_graphs import CudaGraphs, Graphs
from featviz_pl.engine.step_invariance import why_not_alike
from featviz_pl.numerics.device_transfer import Transfers

if TYPE_CHECKING:
    from featviz_pl.engine.ascent import Ascent
    from featviz_pl.engine.step import Step

LEAST_REPLAYS = 32  # steps: capturing one costs several, and the device's caches
_CHECKS = 2  # replayed steps, with other draws than the captured one, that are compared with the plain ones
# Of the largest value of a picture: sums that a device adds up in any order differ. As in `networks.traced`.
_TOLERANCES, _REDUCED_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}, 0.05

GRAPHS: dict[str, Callable[[torch.device], Graphs]] = {"cuda": CudaGraphs}  # by the kind of device

Gradients = Sequence[Tensor | None]


class StepGradients:
    """Take the steps of a problem, and the gradients of its parameters.

    On a GPU the first steps, which look for pictures without a gradient, are taken plainly; the next one is captured in
    a graph, and replayed from then on, each time with its own draws. The first two replays are compared with the plain
    steps. Whatever cannot be captured, raises or differs leaves the run with plain steps, and a line in the log: the
    pictures are the same either way.

    Args:
        problem: initialised and prepared.
        parameters: of its image, which an optimizer overwrites where they are.

    Example:
        >>> from featviz_pl.engine.ascent import Ascent, trained_parameters
        >>> from featviz_pl.images import PixelImage
        >>> from featviz_pl.networks import FrozenNetwork
        >>> from featviz_pl.objectives import Channel
        >>> problem = Ascent(PixelImage(8), FrozenNetwork(nn.Conv2d(3, 4, 3)), Channel("output", 1))
        >>> problem.initialize(); problem.prepare()
        >>> result, gradients = StepGradients(problem, trained_parameters(problem.image))(0, 1)
        >>> result.scores.shape, [gradient.shape for gradient in gradients]
        (torch.Size([1]), [torch.Size([1, 3, 8, 8])])
    """

    def __init__(self, problem: Ascent, parameters: Sequence[nn.Parameter]) -> None:
        self._problem, self._parameters = problem, list(parameters)
        device = self._parameters[0].device
        self._graphs = GRAPHS[device.type](device) if device.type in GRAPHS else None
        self._captured: _Captured | None = None

    def __call__(self, step: int | Sequence[int], steps: int) -> tuple[Step, Gradients]:
        """Take a step, and return what nobody will overwrite.

        Args:
            step: counted over the whole run, from 0; or one for each picture.
            steps: of the whole run.
        """
        if self._graphs is None or self._problem.looks_for_dead(step, steps):
            return self._plain(step, steps)
        circumstances = self._circumstances()
        if self._captured is not None and self._captured.circumstances != circumstances:
            if self._captured.replays < LEAST_REPLAYS:
                self._give_up("targets change too often")
                return self._plain(step, steps)
            self._captured = None
        try:
            if self._captured is None:
                self._capture(self._graphs, circumstances, step, steps)
                return self._plain(step, steps)
            replayed = self._captured(step, steps)
        except (
            Exception
        ) as error:  # of torch, of CUDA, of a guest: what is wrong with the step itself, the plain one says
            self._give_up(f"{type(error).__name__}: {error}".partition("\n")[0])
            return self._plain(step, steps)
        if self._captured.replays > _CHECKS:
            return replayed
        plain = self._plain(step, steps)
        if self._captured is not None and not _agree(plain, replayed, self._tolerance()):
            self._give_up("a replayed step differs from the plain one")
        return plain

    def _capture(self, graphs: Graphs, circumstances: tuple[Any, ...], step: int | Sequence[int], steps: int) -> None:
        """Capture a step where enough of them follow, and where it can stand for them."""
        if steps - (step if isinstance(step, int) else min(step)) <= LEAST_REPLAYS:
            return
        problem = self._problem
        reason = why_not_alike(problem.image, problem.views, problem.objective)
        if reason is None:
            self._captured = _Captured(problem, self._parameters, graphs, circumstances, step, steps)
        else:
            self._give_up(reason)

    def _plain(self, step: int | Sequence[int], steps: int) -> tuple[Step, Gradients]:
        try:
            return _step_and_gradients(self._problem, self._parameters, step, steps)
        except torch.OutOfMemoryError:
            if self._captured is None:
                raise
            self._give_up("there is too little memory for captured and plain steps")
        return _step_and_gradients(self._problem, self._parameters, step, steps)

    def _give_up(self, reason: str) -> None:
        self._graphs = self._captured = None
        logging.getLogger(__name__).info("steps are taken one by one, not replayed from a graph: %s", reason)

    def _circumstances(self) -> tuple[Any, ...]:
        """Return what must be as it was for a captured step to hold: where the weights are, what is wanted, and how precisely."""
        device = self._parameters[0].device.type
        autocast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        return (self._problem.objective, *autocast, *(parameter.data_ptr() for parameter in self._parameters))

    def _tolerance(self) -> float:
        device = self._parameters[0].device.type
        held = [*self._parameters, *self._problem.network.module.parameters()]
        precisions = {one.dtype for one in held if one.is_floating_point()}
        if torch.is_autocast_enabled(device):
            precisions.add(torch.get_autocast_dtype(device))
        return max(_TOLERANCES.get(precision, _REDUCED_TOLERANCE) for precision in precisions)


class _Captured:
    """Replay a step with the draws of others.

    Args:
        problem: whose step it is.
        parameters: of its image.
        graphs: captures it.
        circumstances: under which it holds.
        step: that is captured.
        steps: of the whole run.
    """

    def __init__(
        self,
        problem: Ascent,
        parameters: Sequence[nn.Parameter],
        graphs: Graphs,
        circumstances: tuple[Any, ...],
        step: int | Sequence[int],
        steps: int,
    ) -> None:
        self.circumstances, self.replays = circumstances, 0
        self._problem, self._transfers = problem, Transfers()
        with torch.no_grad():
            self._pictures = torch.empty_like(problem.decoded(), device="meta")
        take = partial(_step_and_gradients, problem, parameters, step, steps)
        with self._transfers.recording():
            _without_traces(problem, partial(graphs.rehearse, take))
        self._feed(step, steps)
        self._replay = graphs.capture(partial(_with_buffers, self._transfers, take))

    def __call__(self, step: int | Sequence[int], steps: int) -> tuple[Step, Gradients]:
        self._feed(step, steps)
        self.replays += 1
        result, gradients = self._replay()
        terms = {name: own.clone() for name, own in result.terms.items()}
        kept = replace(result, loss=result.loss.clone(), scores=result.scores.clone(), terms=terms)
        return kept, [None if gradient is None else gradient.clone() for gradient in gradients]

    def _feed(self, step: int | Sequence[int], steps: int) -> None:
        """Let the host do its part of a step: it shows a picture without values, which costs nothing but the draws."""
        with self._transfers.feeding():
            self._problem.show(self._pictures, step, steps)


def _without_traces(problem: Ascent, rehearse: Callable[[], None]) -> None:
    """Rehearse a step that will be taken again, and so must leave everything as it is.

    Raises:
        RuntimeError: when it does not; what the step has changed is as before.
    """
    held = [*problem.image.parameters(), *problem.image.buffers(), *problem.objective.buffers()]
    before = [own.detach().clone() for own in held]
    rehearse()
    if not all(map(torch.equal, held, before)):
        with torch.no_grad():
            for own, first in zip(held, before):
                own.copy_(first)
        raise RuntimeError("a step changes what it works on")


def _with_buffers(transfers: Transfers, take: Callable[[], tuple[Step, Gradients]]) -> tuple[Step, Gradients]:
    with transfers.reading():
        result, gradients = take()
    return replace(result, loss=result.loss.detach()), gradients


def _step_and_gradients(
    problem: Ascent, parameters: Sequence[nn.Parameter], step: int | Sequence[int], steps: int
) -> tuple[Step, Gradients]:
    result = problem.step(step, steps)
    return result, torch.autograd.grad(result.loss, parameters, allow_unused=True)


def _agree(plain: tuple[Step, Gradients], replayed: tuple[Step, Gradients], tolerance: float) -> bool:
    """Compare scores, terms and gradients, picture by picture; this waits for the device."""
    (one, gradients), (other, again) = plain, replayed
    if one.terms.keys() != other.terms.keys() or [own is None for own in gradients] != [own is None for own in again]:
        return False
    pairs = [(one.scores, other.scores), *((one.terms[name], other.terms[name]) for name in one.terms)]
    pairs += [(own, replay) for own, replay in zip(gradients, again) if own is not None and replay is not None]
    return all(_close(own, replay, tolerance) for own, replay in pairs)


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if torch.is_complex(one):
        one, other = torch.view_as_real(one), torch.view_as_real(other)
    rows, others = (own.detach().reshape(len(own) if own.ndim > 1 else 1, -1) for own in (one, other))
    close = torch.isclose(rows, others, rtol=0.0, atol=0.0, equal_nan=True)  # also where both are not finite
    return bool((close | ((rows - others).abs() <= tolerance * rows.abs().amax(1, keepdim=True))).all())
