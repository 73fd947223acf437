"""The network inside a LightningModule in training: find it, and run it without changing the training."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from featviz_pl.networks import ActivationReader, FrozenNetwork
from featviz_pl.networks.layer_address import OUTPUT
from featviz_pl.numerics.checks import first_line, unknown
from featviz_pl_callbacks._support import Picture

# Attributes that the Trainer sets for `fit(torch.compile(module))`; each runs the module that is being trained, also
# from a copy.
_SET_BY_THE_TRAINER = ("forward", "training_step", "validation_step", "test_step", "predict_step")


def strip_compiled(name: str) -> str:
    """Return a module's name without the parts that ``torch.compile`` adds.

    Example:
        >>> strip_compiled("net._orig_mod.layer3"), strip_compiled("_orig_mod")
        ('net.layer3', '')
    """
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def modules_by_name(module: nn.Module) -> dict[str, nn.Module]:
    """Return all modules by their names, the module itself by the empty one."""
    modules: dict[str, nn.Module] = {}
    for name, submodule in module.named_modules(remove_duplicate=False):
        modules.setdefault(strip_compiled(name), submodule)
    return modules


def full_path(layer: str, network: str | None) -> str:
    """Return a layer's name in the LightningModule; ``output`` is the network, or the LightningModule itself.

    Example:
        >>> full_path("layer3", "net"), full_path("output", "net"), full_path("output", None)
        ('net.layer3', 'net', '')
    """
    return (network or "") if layer == OUTPUT else ".".join(part for part in (network, strip_compiled(layer)) if part)


def relative(path: str, ancestor: str) -> str:
    """Return the name of a layer below a module; the module's result is ``output``.

    Example:
        >>> relative("net.layer3", "net"), relative("net", "net"), relative("net.layer3", "")
        ('layer3', 'output', 'net.layer3')
    """
    if path == ancestor:
        return OUTPUT
    return path[len(ancestor) + 1 :] if ancestor else path


def check_names(module: nn.Module, layers: Iterable[str], network: str | None) -> None:
    """Refuse layers that the module does not have, and list near names.

    Raises:
        ValueError: naming the argument.
    """
    names = set(modules_by_name(module))
    if network is not None and network not in names:
        raise unknown("network", "module", network, sorted(names - {""}))
    for layer in layers:
        if full_path(layer, network) not in names:
            below = (name for name in names if not network or f"{name}.".startswith(f"{network}."))
            raise unknown("targets", "layer", layer, sorted(relative(name, network or "") for name in below))


def find_pictures(batch: Any) -> Tensor | None:
    """Return the first tensor (N, C, H, W) of a batch: itself, or in tuples, lists, mappings and dataclasses.

    Example:
        >>> find_pictures({"label": torch.zeros(2), "image": torch.zeros(2, 3, 8, 6)}).shape
        torch.Size([2, 3, 8, 6])
    """
    if isinstance(batch, Tensor):
        return batch if batch.ndim == 4 else None
    if isinstance(batch, Mapping):
        parts: Iterable[Any] = batch.values()
    elif isinstance(batch, (tuple, list)):
        parts = batch
    else:
        parts = vars(batch).values() if dataclasses.is_dataclass(batch) else ()
    return next((pictures for part in parts if (pictures := find_pictures(part)) is not None), None)


class LiveNetwork(FrozenNetwork):
    """A network in training; its readers share no hooks with it.

    Users' hooks would store activations, count passes or write gradients. Only those of ``torch.nn.utils``, such as
    weight normalization and pruning, are part of what the network computes.
    """

    @override
    def reader(self) -> ActivationReader:
        reader = super().reader()
        for module in reader.module.modules():
            for hooks in (
                module._forward_hooks,
                module._forward_pre_hooks,
                module._backward_hooks,
                module._backward_pre_hooks,
            ):
                for key, hook in list(hooks.items()):
                    if not str(getattr(hook, "__module__", "")).startswith("torch.nn.utils."):
                        del hooks[key]
            _bind_forward(module)
        return reader


def _bind_forward(module: nn.Module) -> None:
    """Bind ``module.forward = torch.compile(module.forward)`` of a copied module to the copy, not to the original."""
    forward = vars(module).get("forward")
    compiled = getattr(forward, "_torchdynamo_orig_callable", None)
    method = forward if compiled is None else inspect.unwrap(compiled)
    if isinstance(method, MethodType):
        module.__dict__["forward"] = MethodType(method.__func__, module)


def live_network(module: nn.Module, path: str, mean: Any = None, std: Any = None) -> LiveNetwork:
    """Return the submodule of that name as a network.

    Raises:
        ValueError: when there is none, or no longer.
    """
    modules = modules_by_name(module)
    if path not in modules:
        raise unknown("network", "module", path, sorted(set(modules) - {""}))
    submodule = modules[path]
    name = type(getattr(submodule, "_orig_mod", submodule)).__name__
    network = _without_data(submodule) if _is_instance(submodule, "LightningModule") else submodule
    return LiveNetwork(network, mean, std=std, name=name)


def _is_instance(value: Any, name: str) -> bool:
    """Return whether a value is of a class of that name: both packages of Lightning have their own."""
    return any(kind.__name__ == name for kind in type(value).__mro__)


def _without_data(module: nn.Module) -> nn.Module:
    """Return a LightningModule with the same submodules, without its Trainer and data, which must not be copied."""
    light: nn.Module = object.__new__(type(module))
    attributes = {name: value for name, value in vars(module).items() if not _holds_data(value)}
    if attributes.pop("_compiler_ctx", None) is not None:
        for name in _SET_BY_THE_TRAINER:
            attributes.pop(name, None)
    light.__dict__.update(attributes | {"_trainer": None, "_fabric": None, "_compiler_ctx": None})
    return light


def _holds_data(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_holds_data(part) for part in value)
    if isinstance(value, dict):
        return any(_holds_data(part) for part in value.values())
    return isinstance(value, (Dataset, DataLoader)) or _is_instance(value, "LightningDataModule")


def find_input_module(
    module: nn.Module,
    paths: Sequence[str],
    network: str | None,
    picture: Picture,
    device: torch.device,
    any_channels: bool = False,
) -> tuple[str, Picture]:
    """Return the name of the submodule that takes the pictures, and their shape.

    Of the submodules that contain all layers, the largest that runs on a picture of this shape and reaches the layers;
    and within it the smallest that takes the picture itself, not the output of another module. The forwards run on
    copies. Grey pictures are also tried with three channels, because trainings repeat them, and a `network` with those
    of its first convolution.

    Args:
        module: the LightningModule.
        paths: of all layers, from the module.
        network: the only candidate, if given.
        picture: shape (C, H, W).
        device: of the training.
        any_channels: whether the number of channels is unknown; then it is that of the first convolution.

    Raises:
        ValueError: when there is none, with the error of each.
    """
    candidates = [network] if network is not None else _common_ancestors(paths)
    # A layer with the name "output" would be taken for the module's result.
    candidates = [name for name in candidates if OUTPUT not in [relative(path, name) for path in paths if path != name]]
    errors: dict[str, str] = {}
    shapes = [] if any_channels else [picture]
    if any_channels or network is not None:
        shapes.append((live_network(module, candidates[0]).channels, *picture[1:]))
    elif picture[0] == 1:
        shapes.append((3, *picture[1:]))
    for shape in shapes:
        for index, name in enumerate(candidates):
            inner = {relative(path, name): path for path in candidates[index + 1 :] if relative(path, name) != OUTPUT}
            layers = [relative(path, name) for path in paths]
            try:
                takers = _run(live_network(module, name), layers, list(inner), shape, device)
            except Exception as error:  # a forward refuses a picture with any exception
                text = f"{name or 'the LightningModule'}: {type(error).__name__}: {first_line(error)}"
                errors.setdefault(name, text)
            else:
                return next((inner[path] for path in reversed(inner) if path in takers), name), shape
    names, tried = ", ".join(dict.fromkeys(path or OUTPUT for path in paths)), " x ".join(map(str, shapes[0]))
    raise ValueError(
        f"targets: no module that contains {names} runs on pictures of {tried}; name the one that does, network=…, or "
        f"the size of the pictures, size=… ({'; '.join(errors.values())})"
    )


def _common_ancestors(paths: Sequence[str]) -> list[str]:
    """Return the names of the modules that contain all layers, the largest first.

    Example:
        >>> _common_ancestors(["net.layer3.0", "net.layer3.1"]), _common_ancestors(["net.head"])
        (['', 'net', 'net.layer3'], ['', 'net', 'net.head'])
    """
    prefix = paths[0].split(".") if paths[0] else []
    while not all(f"{path}.".startswith("".join(f"{part}." for part in prefix)) for path in paths):
        prefix.pop()
    return [".".join(prefix[:depth]) for depth in range(len(prefix) + 1)]


def _run(
    network: LiveNetwork, layers: Sequence[str], inner: Sequence[str], picture: Picture, device: torch.device
) -> set[str]:
    """Run a copy of the network on a grey picture; return which of the inner modules take that picture as their input.

    Raises:
        Exception: of the forward, before it reaches all layers.
    """
    reader = network.reader()
    dtype = next((p.dtype for p in reader.module.parameters() if p.is_floating_point()), torch.float32)
    grey = torch.full((1, *picture), 0.5, device=device, dtype=dtype).requires_grad_(True)
    reached: set[str] = set()
    takers: set[str] = set()

    def make_hook(name: str) -> Callable[..., None]:
        def hook(submodule: nn.Module, inputs: Any, result: Any) -> None:
            reached.add(name)
            if inputs and inputs[0] is grey:
                takers.add(name)

        return hook

    with warnings.catch_warnings(), reader.hooked({name: make_hook(name) for name in (*layers, *inner)}):
        warnings.simplefilter("ignore")  # such as that of `self.log` without a Trainer
        try:
            reader.module(grey)
        except Exception:  # behind all layers it does not matter, such as in a head for another size
            if not reached.issuperset(layers):
                raise
    if missing := [layer for layer in layers if layer not in reached]:
        raise ValueError(f"its forward does not run {', '.join(missing)}")
    return takers
