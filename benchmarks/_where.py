"""Where the time of a step goes: ranges around its parts, laid from outside, and what `torch.profiler` saw in them.

Parts: ``draws`` (of the views, on the CPU), ``decode`` (weights to pictures), ``views``, ``forward`` (of the network,
    from standardised
pictures to activations), ``objective``, ``backward`` (the gradient of all of these together), ``optimizer``; ``rest``
is what lies between them: looking for pictures that fail, handing each picture its slice of the gradient, the
scheduler, Python.

On the host a part takes the time from its beginning to its end, which the profiler lengthens where it sees many short
operations. On a GPU a part has the kernels that were launched between its beginning and its end, by whatever thread:
Python waits for the launches of a gradient, which come from another one. Kernels run later than they are launched, but
how long they take is their own. Copies count as kernels.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from featviz_pl.engine import Ascent

PARTS = ("draws", "decode", "views", "forward", "objective", "backward", "optimizer")
REST = "rest"
_PREFIX = "featviz: "
_OPTIMIZER = "Optimizer.step#"  # the range that torch's own optimizers lay around their steps
Times = dict[str, float]


def _ranged(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        with record_function(f"{_PREFIX}{part}"):
            return function(*arguments, **named)

    return call


def lay_ranges(ascent: Ascent) -> None:
    """Lay ranges around the parts of the steps of an ascent."""
    owners: list[tuple[str, Any, str]] = [
        ("decode", ascent.image, "forward"),
        ("forward", ascent._observer, "observe"),
        ("objective", ascent, "_evaluate"),
    ]
    if ascent.views is not None:
        owners += [("draws", ascent.views, "sample"), ("views", ascent.views, "apply")]
    for part, owner, name in owners:
        setattr(owner, name, _ranged(part, getattr(owner, name)))


def gradients_ranged() -> AbstractContextManager[Any]:
    """Lay a range around every call of `torch.autograd.grad`, with which a sweep takes its gradients."""
    return patch.object(torch.autograd, "grad", _ranged("backward", torch.autograd.grad))


def profiler(device: torch.device) -> profile:
    """Make a profiler of the host and, where there is one, the GPU."""
    activities = {"cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}
    return profile(activities=[ProfilerActivity.CPU, *([activities[device.type]] if device.type in activities else [])])


def times(events: Iterable[Any]) -> tuple[Times, Times]:
    """Return the milliseconds of every part on the host, and of the kernels that were launched in it.

    Args:
        events: of a profiler, see `torch.autograd.profiler_util.FunctionEvent`. Ranges must not lie in one another.
    """
    cpu_events = [event for event in events if event.device_type.name == "CPU"]
    ranges = sorted(
        (event.time_range.start, event.time_range.end, part)
        for event in cpu_events
        if (part := _part(event.name)) is not None
    )
    host, kernels = (dict.fromkeys((*PARTS, REST), 0.0) for _ in range(2))
    if not ranges:
        return host, kernels
    for start, end, part in ranges:
        host[part] += (end - start) / 1e3
    host[REST] = (max(end for _, end, _ in ranges) - ranges[0][0]) / 1e3 - sum(host.values())
    starts = [start for start, _, _ in ranges]
    for event in cpu_events:
        if getattr(event, "is_user_annotation", False):
            continue  # its kernels are those of the operations in it once more
        position = bisect_right(starts, event.time_range.start) - 1
        inside = position >= 0 and event.time_range.start <= ranges[position][1]
        kernels[ranges[position][2] if inside else REST] += sum(kernel.duration for kernel in event.kernels) / 1e3
    return host, kernels


def _part(name: str) -> str | None:
    """Return the part that a range stands for, or None.

    >>> _part("featviz: views"), _part("Optimizer.step#NAdam.step"), _part("aten::add")
    ('views', 'optimizer', None)
    """
    if name.startswith(_OPTIMIZER):
        return "optimizer"
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else None
