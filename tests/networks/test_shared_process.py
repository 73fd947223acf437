"""Reading a network changes nothing that other threads see, and what its forward draws depends on the seed alone."""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import toy

import featviz_pl as fv

SMALL: dict[str, Any] = {"accelerator": "cpu", "size": 16, "steps": 4}


class Noisy(nn.Module):
    """Draw in the forward: a dropout for each picture, and a factor that all share."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.conv.weight.data = torch.linspace(-1, 1, 108).view(4, 3, 3, 3)

    def forward(self, pictures: Tensor) -> Tensor:
        return functional.dropout(self.conv(pictures), 0.5, training=True) * (1 + torch.rand(1))


def process_state() -> dict[str, Any]:
    return {
        "call": nn.Module.__call__,
        "getattr": nn.Module.__getattr__,
        "generator": hash(torch.get_rng_state().numpy().tobytes()),
        "filters": list(warnings.filters),
        "dtype": torch.get_default_dtype(),
        "matmul": torch.get_float32_matmul_precision(),
        "nnpack": torch._C._get_nnpack_enabled(),
        "streams": (sys.stdout, sys.stderr),
    }


TOY, NOISY, PICTURES = toy(), Noisy(), torch.zeros(2, 3, 16, 16, requires_grad=True)


def fail() -> None:
    with pytest.raises(ValueError, match="no layer 'none'"):
        fv.FrozenNetwork(TOY).activations(PICTURES, ["none"])


ACTIONS: dict[str, Callable[[], Any]] = {
    "read": lambda: fv.FrozenNetwork(TOY).activations(PICTURES, ["output"]),
    "draw": lambda: fv.FrozenNetwork(NOISY).activations(PICTURES, ["output"]),
    "list": lambda: fv.FrozenNetwork(TOY).layers(16),
    "load": lambda: fv.load_network("squeezenet1_0", "none"),
    "probe": lambda: fv.networks.receptive_fields(TOY, "features.3", 16),
    "fail": fail,
}


@pytest.mark.parametrize("name", ACTIONS)
def test_other_threads_see_no_change(name: str) -> None:
    ACTIONS[name]()  # imports what it needs
    before, done = process_state(), threading.Event()
    changes: set[str] = set()

    def watch() -> None:
        while not done.is_set():
            changes.update(key for key, value in process_state().items() if value != before[key])
            time.sleep(0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(3):
            ACTIONS[name]()
    finally:
        done.set()
        watcher.join()
    assert not changes
    assert process_state() == before


def test_renders_in_threads_give_what_each_gives_alone_beside_a_training() -> None:
    module, done, steps, errors = toy(), threading.Event(), [0], []

    def train() -> None:
        while not done.is_set():
            try:
                module(torch.zeros(2, 3, 12, 12)).mean().backward()
                steps[0] += 1
            except Exception as error:
                errors.append(error)

    pictures: dict[int, Tensor] = {}

    def render(unit: int) -> None:
        try:
            pictures[unit] = fv.render(TOY, f"features.5:{unit}", **SMALL).images
        except Exception as error:
            errors.append(error)

    training, *renders = (
        threading.Thread(target=train),
        *(threading.Thread(target=render, args=(i,)) for i in range(3)),
    )
    for thread in (training, *renders):
        thread.start()
    for thread in renders:
        thread.join()
    done.set()
    training.join()
    assert not errors
    assert steps[0]
    for unit, picture in pictures.items():
        assert torch.equal(picture, fv.render(TOY, f"features.5:{unit}", **SMALL).images)


def test_what_a_forward_draws_depends_on_seed_step_and_picture() -> None:
    def render(units: str, **options: Any) -> Tensor:
        return fv.render(NOISY, f"output:{units}", **{**SMALL, "views": 2, **options}).images

    state = torch.get_rng_state()
    both = render("1,2")
    assert torch.equal(both, render("1,2"))
    assert torch.equal(both[1:], render("2"))
    assert not torch.equal(both, render("1,2", seed=1))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_step_and_picture_draws_anew() -> None:
    reader = fv.FrozenNetwork(Noisy()).reader()
    pictures = torch.full((2, 3, 16, 16), 0.5).requires_grad_()

    def read(*seeds: int) -> Tensor:
        reader.noise_seeds = seeds
        return reader.activations(pictures, ["output"])["output"]

    first = read(0, 1, 2)
    assert torch.equal(first, read(0, 1, 2))
    assert torch.equal(first[1], read(0, 9, 2)[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], read(0, 9, 2)[0])
    assert not torch.equal(first[0], read(3, 1, 2)[0])
