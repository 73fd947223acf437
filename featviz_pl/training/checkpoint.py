"""What a checkpoint says about its run, and where a run goes on from it."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from featviz_pl.images import Image
from featviz_pl.io.provenance import versions
from featviz_pl.objectives import Objective

KEY = "featviz_pl"  # of what is written here, in the checkpoint


def description(image: Image, objective: Objective, seed: int) -> dict[str, Any]:
    """Return what a run must share with the checkpoint from which it goes on: plain values.

    The image is described by the call that builds it, and by a few sums over every tensor that gives its weights their
    meaning but is in no checkpoint: the decay of its spectrum, its colors, the picture around it.
    """
    return {
        "version": versions()["featviz_pl"],
        "image": repr(image),
        "image tensors": {name: sums(value) for name, value in unsaved(image).items()},
        "objective": objective.portable_formula(),
        "seed": seed,
    }


def require_same(checkpoint: dict[str, Any], image: Image, objective: Objective, seed: int) -> None:
    """Refuse a checkpoint of another image, objective or seed, in words.

    Raises:
        ValueError: naming what the checkpoint holds and what this run has.
    """
    there, here = checkpoint.get(KEY), description(image, objective, seed)
    if there is not None:
        for name in ("image", "objective", "seed"):
            if there[name] != here[name]:
                raise ValueError(
                    f"checkpoint: its {name} is {there[name]}, and that of this run is {here[name]}; give the {name} with which it was made"
                )
        held, own = there["image tensors"], here["image tensors"]
        for name in sorted(held.keys() | own.keys()):
            if not _close(held.get(name), own.get(name)):
                raise ValueError(
                    f"checkpoint: its image {there['image']} has another {name.replace('_', ' ')} than that of this run, {here['image']}; "
                    "give the image with which it was made"
                )
    _require_shapes(checkpoint["state_dict"], image)


def require_same_run(checkpoint: dict[str, Any], optimizer: Any, views: str) -> None:
    """Refuse a checkpoint of a run with another optimizer, where it is a class, or with other views.

    Raises:
        ValueError: naming what the checkpoint holds and what this run has.
    """
    state = checkpoint["state_dict"].get("_extra_state")
    run = {} if state is None else json.loads(bytes(state.tolist()))
    expected = {"views": views, **({"optimizer": optimizer.__name__} if isinstance(optimizer, type) else {})}
    for name, value in expected.items():
        if run.get(name, value) != value:
            raise ValueError(
                f"checkpoint: it was made with {name} {run[name]}, and this run has {value}; give the same {name}"
            )


def _require_shapes(state: dict[str, Any], image: Image) -> None:
    held = {name: tuple(value.shape) for name, value in state.items() if name.startswith("image.")}
    own = {f"image.{name}": tuple(value.shape) for name, value in image.state_dict().items()}
    if held != own:
        name = next(name for name in sorted(held.keys() | own.keys(), reverse=True) if held.get(name) != own.get(name))
        raise ValueError(
            f"checkpoint: {name} has {_described(held.get(name))} there and {_described(own.get(name))} in this run; "
            "give the units, the kind of image and the size with which it was made"
        )


def _described(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else f"{shape[0]} pictures of {shape[1:]}" if shape else "one value"


def whole_steps(checkpoint: dict[str, Any], accumulated: int) -> None:
    """Let Lightning's loops go on in the middle of their one epoch, after the optimizer steps that the checkpoint has taken.

    Lightning counts batches, and counts them differently in a checkpoint of a finished run, of a run that failed or was
    stopped inside a step, and of one between two steps. Pictures change in optimizer steps only, so what had been
    accumulated towards the next one is done again.

    Args:
        checkpoint: of Lightning, changed in place.
        accumulated: batches in an optimizer step of the run that goes on.
    """
    loops = checkpoint.get("loops", {}).get("fit_loop", {})
    progress, epochs = loops.get("epoch_loop.batch_progress"), loops.get("epoch_progress")
    if progress is None or epochs is None:
        return
    steps = int(checkpoint["global_step"])
    for part in ("total", "current"):
        progress[part] = dict.fromkeys(progress[part], steps * accumulated)
        epochs[part] = {name: int(name in ("ready", "started")) for name in epochs[part]}
    progress["is_last_batch"] = False
    loops["epoch_loop.state_dict"] = {**loops.get("epoch_loop.state_dict", {}), "_batches_that_stepped": steps}
    loops["state_dict"] = {**loops.get("state_dict", {}), "combined_loader": [{"next": steps * accumulated}]}


def reschedule(checkpoint: dict[str, Any], optimizer: torch.optim.Optimizer, scheduler: LRScheduler | None) -> None:
    """Let the learning rate go on as in a run that was as long from the start as the one that goes on.

    The state of a scheduler holds the number of steps that its own run had.

    Args:
        checkpoint: of Lightning, changed in place.
        optimizer: as in the run that goes on, of any parameters.
        scheduler: of this optimizer, as in the run that goes on; None leaves everything as it is.
    """
    if scheduler is None:
        return
    for _ in range(int(checkpoint["global_step"])):
        optimizer.step()
        scheduler.step()
    checkpoint["lr_schedulers"] = [scheduler.state_dict()]
    for state in checkpoint["optimizer_states"]:
        for group in state["param_groups"]:
            group["lr"] = optimizer.param_groups[0]["lr"]


def unsaved(image: Image) -> dict[str, Tensor]:
    """Return the constants of an image that no checkpoint holds, such as its color matrix and a magnitude that stays."""
    saved = image.state_dict().keys()
    return {name: value for name, value in image.named_buffers() if name not in saved and value is not None}


def sums(tensor: Tensor) -> list[float]:
    """Return the number of values, and three means that tell contents apart; they are compared with a tolerance.

    Not a hash: another processor may compute the same tensor with another last digit.
    """
    values = tensor.detach().cpu().double().flatten()
    place = torch.linspace(0.0, 1.0, len(values), dtype=torch.float64)
    return [
        float(len(values)),
        *(float(mean) for mean in (values.mean(), values.square().mean(), (values * (7 * place).sin()).mean())),
    ]


def _close(held: list[float] | None, own: list[float] | None) -> bool:
    if held is None or own is None:
        return held is own
    scale = max(1e-12, math.sqrt(abs(own[2])), abs(own[2]))
    return held[0] == own[0] and all(
        math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5 * scale) for a, b in zip(held[1:], own[1:])
    )


def optimizer_description(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """Return class and arguments of an optimizer as plain values, without the learning rate, which schedules move.

    Example:
        >>> described = optimizer_description(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.5))
        >>> described["optimizer"], "'momentum': 0.5" in described["optimizer_arguments"], "lr" in described["optimizer_arguments"]
        ('SGD', True, False)
    """
    without = (
        "lr",
        "initial_lr",
        "fused",
        "foreach",
    )  # the forms take the same steps, each on the devices where it is fast
    others = {name: value for name, value in sorted(optimizer.defaults.items()) if name not in without}
    return {"optimizer": type(optimizer).__name__, "optimizer_arguments": repr(others)}
