"""Networks that are awkward guests, and what each must find unchanged after a run; factories for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from featviz_pl.networks import EmbeddedNetwork


class Switch:
    """Hold one number that copies of a network share: 0, and something else once it is thrown. Copying it gives itself.

    A tensor, as weights are: what a forward reads from Python objects may be read once for a whole run.
    """

    def __init__(self, thrown: float = torch.nan) -> None:
        self.thrown, self.level = thrown, torch.zeros(())

    @property
    def on(self) -> bool:
        return bool(self.level != 0)

    @on.setter
    def on(self, on: bool) -> None:
        self.level.fill_(self.thrown if on else 0.0)

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Switch:
        return self


class Breakable(nn.Module):
    """Give finite numbers until the switch is thrown, then NaN."""

    def __init__(self, switch: Switch | None = None) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 1)
        self.switch = switch or Switch()
        with torch.no_grad():
            self.convolution.weight.copy_(torch.tensor([[1.0, 0.5, 0.25], [0.25, 0.5, 1.0]]).view(2, 3, 1, 1))
            self.convolution.bias.zero_() if self.convolution.bias is not None else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x)
        return y + self.switch.level


class At(Callback):
    """Do something before one batch, or after one optimizer step."""

    def __init__(self, step: int, do: Any, before: bool = False) -> None:
        self.step, self.do, self.before = step, do, before

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.before and batch_idx == self.step:
            self.do()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.before and trainer.global_step == self.step:
            self.do()


class Wordy(nn.Module):
    """Have a layer whose output is a text."""

    class Words(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "no tensor"

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.words = Wordy.Words()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x)
        self.words(y)
        return y


def always_nan() -> Breakable:
    """Build a network that gives NaN from the first pass on."""
    network = Breakable()
    network.switch.on = True
    return network


def shrinking() -> nn.Module:
    """Build a network that needs 7 x 7 pixels: three 3 x 3 convolutions without padding."""
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))


def small_embedded() -> EmbeddedNetwork:
    """Build the embedded network's architecture, narrow and untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return EmbeddedNetwork(10, 4)


def condition(network: nn.Module) -> dict[str, Any]:
    """Return everything that a run must leave as it was."""
    return {
        "weights": {name: tensor.detach().clone() for name, tensor in network.state_dict().items()},
        "identity": {name: tensor.data_ptr() for name, tensor in network.state_dict().items()},
        "layout": {
            name: (tensor.device, tensor.dtype, tensor.stride()) for name, tensor in network.state_dict().items()
        },
        "wants": {name: parameter.requires_grad for name, parameter in network.named_parameters()},
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in network.named_parameters()},
        "modes": {name: module.training for name, module in network.named_modules()},
        "hooks": {
            name: (list(module._forward_hooks), list(module._forward_pre_hooks), list(module._backward_hooks))
            for name, module in network.named_modules()
        },
    }


def require_same(before: Any, after: Any, where: str = "network") -> None:
    """Compare two conditions, tensors bit for bit."""
    if isinstance(before, dict):
        assert list(before) == list(after), where
        for key in before:
            require_same(before[key], after[key], f"{where}.{key}")
    elif isinstance(before, Tensor):
        assert isinstance(after, Tensor), where
        assert torch.equal(before, after), where
    else:
        assert before == after, where
