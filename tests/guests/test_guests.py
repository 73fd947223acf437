"""Networks that nobody here wrote: their layers are listed, a middle unit and the output climb, and they stay as they were."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from guest_networks import GUESTS, Guest
from torch import nn

import featviz_pl as fv

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # what other packages warn of is theirs

QUICK: dict[str, Any] = {"accelerator": "cpu", "seed": 0, "views": 1, "preset": "lucid"}


def made(guest: Guest) -> nn.Module:
    if importlib.util.find_spec(guest.package) is None:
        pytest.skip(f"{guest.package} is not installed: tests/guests/requirements.txt")
    torch.manual_seed(0)
    module: nn.Module = guest.make()
    with contextlib.suppress(NotImplementedError):  # exported programs have no modes
        module.eval()
    return module


def fingerprint(module: nn.Module) -> tuple[Any, ...]:
    """Return everything that a run must leave as it was."""
    weights = hashlib.sha256()
    for _, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            weights.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return (
        weights.hexdigest(),
        [parameter.requires_grad for parameter in module.parameters()],
        [parameter.grad is None for parameter in module.parameters()],
        [part.training for part in module.modules()],
        [
            len(part._forward_hooks) + len(part._forward_pre_hooks)
            for part in module.modules()
            if hasattr(part, "_forward_hooks")
        ],
    )


def middle_unit(network: fv.FrozenNetwork, layers: list[Any], size: tuple[int, int]) -> str:
    """Return the unit of the middle layer that noise activates most, of a later layer where random weights leave it at 0."""
    noise = torch.rand(1, network.channels, *size, generator=torch.Generator().manual_seed(0))
    for layer in [*layers[len(layers) // 2 :], *layers]:
        activation = network.activations(noise, [layer.name])[layer.name][0]
        units = activation.movedim(layer.shape.index(layer.units), 0).flatten(1).mean(1)
        if units.max() > 0:
            return f"{layer.name}:{int(units.argmax())}"
    raise AssertionError("no layer is active")


@pytest.mark.parametrize("guest", GUESTS, ids=[guest.name for guest in GUESTS])
def test_a_middle_unit_and_the_output_climb_and_the_network_stays_as_it_was(guest: Guest) -> None:
    module = made(guest)
    before = fingerprint(module)
    network = fv.FrozenNetwork(module, call=guest.call, channels=guest.channels)
    size = guest.size if isinstance(guest.size, tuple) else (guest.size, guest.size)
    layers = network.layers(size)
    assert layers
    for target in filter(None, (guest.unit or middle_unit(network, layers, size), guest.output)):
        first, last = (fv.render(network, target, size=size, steps=steps, **QUICK).scores[0] for steps in (1, 32))
        assert np.isfinite(last)
        assert last > first, target
    assert fingerprint(module) == before
