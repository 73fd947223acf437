from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from guests import condition, require_same
from torch import Tensor, nn
from toys import toy

from featviz_pl.numerics.isolated_copy import frozen_copy


class Locked(nn.Module):
    """Hold a lock, which cannot be copied, and count calls in a buffer."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.linear = threading.Lock(), nn.Linear(2, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            self.calls += 1
            y: Tensor = self.linear(x)
            return y


@pytest.mark.parametrize(
    "mode", [torch.enable_grad, torch.no_grad, torch.inference_mode], ids=lambda mode: str(mode.__name__)
)
def test_a_copy_is_frozen_shares_the_weights_and_leaves_the_network(mode: Any) -> None:
    network = toy().train()
    network.head.weight.grad = torch.ones_like(network.head.weight)
    before = condition(network)
    with mode():
        copied = frozen_copy(network)
    require_same(before, condition(network))
    copies = dict(copied.named_parameters())
    assert list(copies) == [name for name, _ in network.named_parameters()]
    for name, parameter in network.named_parameters():
        assert copies[name].data_ptr() == parameter.data_ptr(), name
        assert copies[name] is not parameter
        assert not copies[name].requires_grad
        assert copies[name].grad is None
        assert not copies[name].is_inference()
    assert not any(part.training for part in copied.modules())


def test_the_gradient_goes_through_a_copy_to_its_input_and_nowhere_else() -> None:
    network = nn.Linear(2, 1, bias=False)
    x = torch.tensor([[1.0, 2.0]], requires_grad=True)
    frozen_copy(network)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == network.weight.tolist()
    assert network.weight.grad is None


def test_buffers_are_copied_and_what_cannot_be_is_shared() -> None:
    network = Locked()
    copied: Any = frozen_copy(network)
    copied(torch.zeros(1, 2))
    assert (network.calls.item(), copied.calls.item()) == (0, 1)
    assert copied.lock is network.lock


def test_what_is_compiled_is_unwrapped() -> None:
    network = toy()
    inner: Any = torch.compile(network)
    compiled: Any = torch.compile(nn.Sequential(inner))
    copied = frozen_copy(compiled)
    assert [name for name, _ in copied.named_parameters()] == [f"0.{name}" for name, _ in network.named_parameters()]
    assert type(copied) is nn.Sequential


def test_weights_that_are_tied_stay_tied() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    copied: Any = frozen_copy(network)
    assert copied[0].weight is copied[1].weight
