"""Which module of somebody's LightningModule is shown the pictures, and what running it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm
from toys import toy

from featviz_pl_callbacks._watched_network import check_names, find_input_module, find_pictures, full_path, live_network

CPU = torch.device("cpu")


class Module(LightningModule):
    """Hold a network, run it in no particular way."""

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net = toy() if net is None else net


def compiled() -> nn.Module:
    made: Any = torch.compile(toy(), backend="eager")
    assert isinstance(made, nn.Module)
    return made


class Plain(Module):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y


class Normalising(Module):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net((x - 0.5) / 0.25)
        return y


class TakesBatch(Module):
    def forward(self, batch: Any) -> Tensor:
        y: Tensor = self.net(batch["image"])
        return y


class NeedsTrainer(Module):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x + self.trainer.current_epoch)
        return y


class Logs(Module):
    def forward(self, x: Tensor) -> Tensor:
        self.log("mean", x.mean())
        y: Tensor = self.net(x)
        return y


def front_and_body() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 1), toy())


def fixed_head() -> nn.Module:
    """Take one size only, behind the layers."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 2))


class WithOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.output = nn.Conv2d(4, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output(self.stem(x)).mean((2, 3))
        return y


@pytest.mark.parametrize(
    ("module", "layers", "network", "picture", "expected"),
    [
        (Module(), ["net.features.2"], None, (3, 16, 12), ("net.features", (3, 16, 12))),  # the network hands it on
        (Plain(), ["net.features.2", "net.head"], None, (3, 16, 12), ("net", (3, 16, 12))),
        (Plain(), ["net.features.0"], None, (3, 16, 16), ("net.features.0", (3, 16, 16))),  # handed the picture itself
        (Plain(), ["net.features.1"], None, (3, 16, 16), ("net.features", (3, 16, 16))),  # a rectifier takes anything
        (Normalising(), ["net.features.2"], None, (3, 16, 16), ("", (3, 16, 16))),
        (Normalising(), ["features.2"], "net", (3, 16, 16), ("net", (3, 16, 16))),
        (TakesBatch(), ["net.features.2"], None, (3, 16, 16), ("net.features", (3, 16, 16))),
        (NeedsTrainer(), ["net.features.2"], None, (3, 16, 16), ("net.features", (3, 16, 16))),
        (Logs(), ["net.features.2"], None, (3, 16, 16), ("net.features", (3, 16, 16))),
        (Plain(front_and_body()), ["net.1.features.2"], None, (3, 16, 16), ("net", (3, 16, 16))),
        (
            Plain(),
            ["net.features.2"],
            None,
            (1, 16, 16),
            ("net.features", (3, 16, 16)),
        ),  # grey pictures, which the training repeats
        (Plain(fixed_head()), ["net.0", "net.1"], None, (3, 16, 16), ("", (3, 16, 16))),  # what fails lies behind
        (Plain(), ["output"], None, (3, 16, 16), ("", (3, 16, 16))),
        (Plain(), ["output"], "net", (3, 16, 16), ("net", (3, 16, 16))),
        (Plain(), ["net"], None, (3, 16, 16), ("net", (3, 16, 16))),
        (Plain(WithOutput()), ["net.output"], None, (3, 16, 16), ("", (3, 16, 16))),
        (Plain(compiled()), ["net._orig_mod.features.2"], None, (3, 16, 16), ("net.features", (3, 16, 16))),
        (Plain(compiled()), ["features.2"], "net", (3, 16, 16), ("net", (3, 16, 16))),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_the_forward_is_that_of_the_smallest_module_that_is_handed_the_picture(
    module: LightningModule,
    layers: list[str],
    network: str | None,
    picture: tuple[int, int, int],
    expected: tuple[str, Any],
) -> None:
    check_names(module, layers, network)
    paths = [full_path(layer, network) for layer in layers]
    assert find_input_module(module, paths, network, picture, CPU) == expected


def test_where_no_forward_works_each_says_why() -> None:
    parts = Module(nn.ModuleDict({"one": nn.Conv2d(3, 2, 1), "other": nn.Conv2d(3, 2, 1)}))
    with pytest.raises(
        ValueError, match=r"no module that contains net.one, net.other runs on pictures of 3 x 8 x 6; .*network=…"
    ) as raised:
        find_input_module(parts, ["net.one", "net.other"], None, (3, 8, 6), CPU)
    assert "the LightningModule: NotImplementedError" in str(raised.value)
    assert "; net: NotImplementedError" in str(raised.value)
    never = Plain(nn.Sequential(toy()))
    never.spare = nn.Conv2d(3, 2, 1)
    with pytest.raises(ValueError, match="the LightningModule: ValueError: its forward does not run spare"):
        find_input_module(never, ["spare", "net.0.head"], None, (3, 8, 6), CPU)


def test_layers_that_are_not_there_are_refused_with_near_names() -> None:
    with pytest.raises(ValueError, match=r"targets: unknown layer 'net.feature.2'; did you mean 'net.features.2'"):
        check_names(Plain(), ["net.feature.2"], None)
    with pytest.raises(ValueError, match=r"targets: unknown layer 'net.features.2'; did you mean 'features.2'"):
        check_names(Plain(), ["net.features.2"], "net")
    with pytest.raises(ValueError, match=r"network: unknown module 'nett'; did you mean 'net'"):
        check_names(Plain(), ["features.2"], "nett")


@dataclass
class Batch:
    label: Tensor
    image: Tensor


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: (x, 1),
        lambda x: [[torch.zeros(2), x]],
        lambda x: {"y": 1, "x": x},
        lambda x: Batch(torch.zeros(3), x),
    ],
)
def test_pictures_are_found_in_batches_of_many_kinds(wrap: Callable[[Tensor], Any]) -> None:
    picture = torch.zeros(2, 3, 4, 5)
    assert find_pictures(wrap(picture)) is picture
    assert find_pictures(wrap(torch.zeros(2, 3))) is None


def test_hooks_of_users_do_not_run_and_stay_where_they_are() -> None:
    module, calls = Plain(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 2, 3))), []
    for part in module.modules():
        part.register_forward_hook(lambda *_: calls.append(1))
        part.register_forward_pre_hook(lambda *_: calls.append(2))
        part.register_full_backward_hook(lambda *_: calls.append(3))
    reader = live_network(module, "net").reader()
    reader.module(torch.rand(1, 3, 8, 8).requires_grad_(True)).sum().backward()
    find_input_module(module, ["net.2"], None, (3, 8, 8), CPU)
    assert calls == []
    module(torch.rand(1, 3, 8, 8).requires_grad_(True)).sum().backward()
    assert {1, 2, 3} == set(calls)


def test_what_belongs_to_the_function_of_the_network_still_runs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 3))
    prune.l1_unstructured(net[0], "weight", amount=0.5)
    weight_norm(net[1])
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(net[2])  # the older one, by a hook
    x = torch.rand(1, 3, 12, 12)
    for parameter in net.parameters():
        parameter.data *= 1.5  # what was derived before is out of date
    with torch.no_grad():
        shown = live_network(Plain(net), "net").reader().module(x)
        assert torch.allclose(shown, net(x), atol=1e-6)


class Dataset(torch.utils.data.Dataset[Any]):
    def __deepcopy__(self, memo: Any) -> Dataset:
        raise AssertionError("the data were copied")


def test_data_that_the_module_holds_are_not_copied() -> None:
    module = Normalising()
    module.data = [Dataset()]  # type: ignore[assignment]
    module.loader = torch.utils.data.DataLoader(Dataset())  # type: ignore[assignment]
    assert find_input_module(module, ["net.features.2"], None, (3, 8, 8), CPU)[0] == ""
    assert isinstance(module.data, list)  # and stay where they are


@pytest.mark.parametrize("how", ["compiled", "compiled sequence", "patched"])
def test_a_forward_that_was_put_in_place_runs_the_copy(how: str) -> None:
    module = Plain()
    net: Any = module.net
    if how == "compiled sequence":  # torch wraps what is its own once more
        net.features.forward = torch.compile(net.features.forward, backend="eager")
    elif how == "compiled":
        net.forward = torch.compile(net.forward, backend="eager")
    else:
        net.forward = type(net).forward.__get__(net)
    assert find_input_module(module, ["net.features.2"], None, (3, 8, 8), CPU)[0] == "net.features"
    network = live_network(module, "net")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    read = network.activations(torch.rand(2, 3, 8, 8), ["features.5"])["features.5"]
    assert read.shape == (2, 8, 4, 4)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
