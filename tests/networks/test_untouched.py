"""The network is a guest: whatever happens to a run, the module that was handed in is found as it was."""

from __future__ import annotations

import copy
import gc
import random
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from guests import Wordy, condition, require_same
from torch import Tensor, nn
from toys import ToyNet, toy

from featviz_pl.networks import FrozenNetwork, load_network


class Bright(nn.Module):
    """Refuse bright pictures, so that a forward can fail in its middle."""

    def forward(self, x: Tensor) -> Tensor:
        if bool((x > 0.9).any()):
            raise RuntimeError("too bright")
        return x


class Tally:
    """Count what copies of a network do: copying it gives itself."""

    def __init__(self) -> None:
        self.count = 0

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Tally:
        return self


class Counting(nn.Module):
    """Count its calls in a tally."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally

    def forward(self, x: Tensor) -> Tensor:
        self.tally.count += 1
        return x


class Diary(nn.Module):
    """Write into a buffer in every pass, in evaluation mode too."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y: Tensor = self.convolution(x)
        return y


def in_the_middle_of_training() -> ToyNet:
    """Build a network with mixed modes, flags, gradients, hooks and layouts: anything that is reset shows."""
    network = toy()
    network.train()
    network.features[3].eval()
    network.features[5].requires_grad_(False)
    network.features[2].to(memory_format=torch.channels_last)
    network.head.weight.grad = torch.ones_like(network.head.weight)
    network.features[0].register_forward_hook(lambda *_: None)
    network.head.register_forward_pre_hook(lambda *_: None)
    return network


DARK = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 0.5


@pytest.mark.parametrize(
    "mode", [torch.enable_grad, torch.no_grad, torch.inference_mode], ids=lambda mode: str(mode.__name__)
)
@pytest.mark.parametrize(
    "layers", [["features.0"], ["features.4", "features.1"], ["output", "features.3"]], ids=".".join
)
def test_a_finished_run_leaves_the_guest_as_it_was(layers: list[str], mode: Any) -> None:
    network = in_the_middle_of_training()
    before = condition(network)
    with mode():
        FrozenNetwork(network, mean=0.5, std=0.25).activations(DARK, layers)
    require_same(before, condition(network))


def test_a_backward_pass_gives_the_guest_no_gradient() -> None:
    network = in_the_middle_of_training()
    before = condition(network)
    picture = DARK.clone().requires_grad_(True)
    FrozenNetwork(network).activations(picture, ["output"])["output"].sum().backward()
    require_same(before, condition(network))
    assert picture.grad is not None
    assert bool(picture.grad.abs().sum() > 0)


def test_a_failing_forward_leaves_guest_and_copy_without_hooks() -> None:
    network = nn.Sequential(in_the_middle_of_training().features, Bright(), nn.ReLU())
    network.train()
    before = condition(network)
    reader = FrozenNetwork(network).reader()
    reader.activations(DARK * 0, ["2"])
    with pytest.raises(RuntimeError, match="too bright"):
        FrozenNetwork(network).activations(DARK * 1000, ["2"])
    with pytest.raises(RuntimeError, match="too bright"):
        reader.activations(DARK * 1000, ["2"])
    require_same(before, condition(network))
    assert not any(
        module._forward_hooks for name, module in reader.module.named_modules() if name != "0.0"
    )  # the guest's own is at 0.0
    assert reader.activations(DARK * 0, ["2"])["2"].shape == (2, 8, 8, 8)


@pytest.mark.parametrize("layer", ["words", "nothing.here"])
def test_a_failed_layer_leaves_guest_and_copy_without_hooks(layer: str) -> None:
    network = Wordy()
    before = condition(network)
    reader = FrozenNetwork(network).reader()
    with pytest.raises(ValueError, match=layer):
        reader.activations(DARK, [layer])
    require_same(before, condition(network))
    assert not any(module._forward_hooks for module in reader.module.modules())


def test_a_forward_that_writes_into_a_buffer_writes_into_the_copy() -> None:
    network = Diary().eval()
    FrozenNetwork(network).activations(DARK, ["convolution"])
    assert network.calls.item() == 0


def test_parameters_share_storage_except_where_the_layout_changes() -> None:
    network = toy()
    reader = FrozenNetwork(network).reader()
    guests, copies = dict(network.named_parameters()), dict(reader.module.named_parameters())
    assert list(guests) == list(copies)
    for name, guest in guests.items():
        assert copies[name] is not guest
        assert not copies[name].requires_grad
        assert torch.equal(copies[name], guest)
        if guest.ndim != 4:
            assert copies[name].data_ptr() == guest.data_ptr(), name


def test_the_copy_is_in_evaluation_mode() -> None:
    network = toy().train()
    assert not any(module.training for module in FrozenNetwork(network).reader().module.modules())


def test_moving_the_copy_to_another_precision_leaves_the_guest() -> None:
    network = toy()
    before = condition(network)
    reader = FrozenNetwork(network).reader()
    reader.apply_(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    assert reader.activations(DARK, ["output"])["output"].dtype == torch.float64
    require_same(before, condition(network))


def test_a_later_layer_is_not_reached() -> None:
    tally = Tally()
    reader = FrozenNetwork(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Counting(tally))).reader()
    reader.activations(DARK, ["0"])  # the first pass learns how often the layer runs, and may go to the end
    after_the_first = tally.count
    for _ in range(3):
        reader.activations(DARK, ["0"])
    assert tally.count == after_the_first <= 1


def test_a_later_layer_that_fails_does_no_harm() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 5)
    )  # the head takes one size, and not this one
    read = FrozenNetwork(network).activations(DARK, ["0"])["0"]
    torch.testing.assert_close(read, network[0](DARK))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        FrozenNetwork(network).activations(DARK, ["0", "2"])


def test_a_layer_runs_once_for_each_reading_also_before_an_operation_in_place() -> None:
    tally = Tally()

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = Counting(tally), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(nn.functional.relu_(self.first(x * 2)))
            return y

    reader = FrozenNetwork(InPlace()).reader()
    reader.activations(DARK - 0.2, ["first", "last"])
    before = tally.count
    reader.activations(DARK - 0.2, ["first", "last"])
    assert tally.count == before + 1


def test_no_activation_outlives_the_step() -> None:
    reader = FrozenNetwork(toy()).reader()
    reader.activations(DARK, ["features.2"])
    gc.collect()
    gc.disable()  # what only the cycle collector frees piles up on a GPU
    try:
        read = reader.activations(DARK.clone().requires_grad_(True), ["features.2"])
        kept = weakref.ref(read["features.2"])
        del read
        assert kept() is None
    finally:
        gc.enable()


def test_a_reader_made_in_inference_mode_serves_a_training() -> None:
    network = toy()
    with torch.inference_mode():
        reader = FrozenNetwork(network).reader()
    picture = DARK.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(reader.activations(picture, ["output"])["output"].sum(), picture)
    assert bool(gradient.abs().sum() > 0)


class Locked(nn.Module):
    """Hold a lock, alone and in containers, and be watched by its own method: none of it can be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.lock, self.calls = nn.Conv2d(3, 4, 3), threading.Lock(), 0
        self.more = {"a": [threading.Lock()], "b": 2}
        self.convolution.register_forward_hook(self.watch)

    def watch(self, module: nn.Module, inputs: Any, result: Any) -> None:
        self.calls += 1

    def forward(self, x: Tensor) -> Tensor:
        with self.lock, self.more["a"][0]:  # type: ignore[index]
            y: Tensor = self.convolution(x).relu()
        return y


class Watcher:
    """Watch a layer under a lock, and change what it gives."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, module: nn.Module, inputs: Any, result: Tensor) -> Tensor:
        with self.lock:
            return result * 3


def test_a_network_with_a_lock_is_read_and_left_alone() -> None:
    network = Locked()
    before = condition(network)
    read = FrozenNetwork(network).activations(DARK, ["convolution", "output"])
    assert network.calls == 0
    require_same(before, condition(network))
    expected = nn.functional.conv2d(DARK, network.convolution.weight, network.convolution.bias)
    torch.testing.assert_close(read["convolution"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(read["output"], expected.clamp(min=0), rtol=1e-4, atol=1e-5)


def test_a_hook_that_cannot_be_copied_works() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    network[0].register_forward_hook(Watcher())
    before = condition(network)
    read = FrozenNetwork(network).activations(DARK, ["0"])["0"]
    require_same(before, condition(network))
    expected = 3 * nn.functional.conv2d(DARK, network[0].weight, network[0].bias)  # type: ignore[arg-type]
    torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-5)


def test_a_copy_shares_the_guest() -> None:
    frozen = FrozenNetwork(toy(), mean=0.5, name="a toy")
    copied = copy.deepcopy({"deep": [frozen]})["deep"][0]
    assert copied is not frozen
    assert copied.module is frozen.module
    assert (copied.mean, copied.name) == ((0.5,), "a toy")


def test_loading_a_network_leaves_all_global_generators() -> None:
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - the global generator is the point
    torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    load_network("squeezenet1_0", weights="none")
    with suppress(ValueError):
        load_network("squeezenet1_0", weights="missing.pth")
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_the_hash_tells_weights_apart_and_nothing_else() -> None:
    first = FrozenNetwork(toy()).weights_hash()
    assert first == FrozenNetwork(toy().train().to(memory_format=torch.channels_last), mean=0.5).weights_hash()
    changed = toy()
    with torch.no_grad():
        changed.head.bias[0] += 1e-3
    assert first != FrozenNetwork(changed).weights_hash()
    assert len(first) == 16
    assert int(first, 16) >= 0


def test_impossible_arguments_are_named() -> None:
    with pytest.raises(TypeError, match=r"module must be an nn\.Module, got str"):
        FrozenNetwork("squeezenet1_0")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="std must be above 0"):
        FrozenNetwork(toy(), std=0.0)
    with pytest.raises(ValueError, match="mean must be finite"):
        FrozenNetwork(toy(), mean=float("nan"))
    with pytest.raises(ValueError, match="size must be at least 1"):
        FrozenNetwork(toy(), size=0)
