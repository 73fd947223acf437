"""The network inside somebody's LightningModule: found by name and by one pass, and run without touching the training."""

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
from featviz_pl.numerics.checks import first_line, unknown

OUTPUT = "output"
Picture = tuple[int, int, int]  # (C, H, W)

# Set by the Trainer for `fit(torch.compile(module))`: each runs the module that is being trained, whichever copy holds
# it.
_COMPILED_BY_THE_TRAINER = ("forward", "training_step", "validation_step", "test_step", "predict_step")


def clean(name: str) -> str:
    """Return a module's name without what ``torch.compile`` put into it.

    Example:
        >>> clean("net._orig_mod.layer3"), clean("_orig_mod")
        ('net.layer3', '')
    """
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def modules_by_name(module: nn.Module) -> dict[str, nn.Module]:
    """Return all modules by their names, the module itself by the empty one."""
    found: dict[str, nn.Module] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        found.setdefault(clean(name), part)
    return found


def full_path(layer: str, network: str | None) -> str:
    """Return where a layer is in the LightningModule; ``output`` is the network, or the LightningModule itself.

    Example:
        >>> full_path("layer3", "net"), full_path("output", "net"), full_path("net.layer3", None), full_path("output", None)
        ('net.layer3', 'net', 'net.layer3', '')
    """
    return (network or "") if layer == OUTPUT else ".".join(part for part in (network, clean(layer)) if part)


def relative(path: str, forward: str) -> str:
    """Return the name of a layer below a module; the module's own result is ``output``.

    Example:
        >>> relative("net.layer3", "net"), relative("net", "net"), relative("net.layer3", "")
        ('layer3', 'output', 'net.layer3')
    """
    if path == forward:
        return OUTPUT
    return path[len(forward) + 1 :] if forward else path


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
            below = [
                relative(name, network or "") for name in names if not network or f"{name}.".startswith(f"{network}.")
            ]
            raise unknown("targets", "layer", layer, sorted(below))


def pictures_in(batch: Any) -> Tensor | None:
    """Return the first tensor (N, C, H, W) of a batch: itself, or in tuples, lists, mappings and dataclasses.

    Example:
        >>> pictures_in({"label": torch.zeros(2), "image": torch.zeros(2, 3, 8, 6)}).shape
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
    return next((found for part in parts if (found := pictures_in(part)) is not None), None)


class GuestNetwork(FrozenNetwork):
    """Hold a network that is being trained: what runs on its readers reaches nothing of the training.

    Hooks stay behind, because they are somebody's: they would keep activations, count passes or write gradients. Only
    those of ``torch.nn.utils``, such as weight normalisation and pruning, belong to what the network computes.
    """

    @override
    def reader(self) -> ActivationReader:
        made = super().reader()
        for part in made.module.modules():
            for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks):
                for number, hook in list(hooks.items()):
                    if not _belongs_to_the_network(hook):
                        del hooks[number]
            _bind_forward(part)
        return made


def _belongs_to_the_network(hook: Callable[..., Any]) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("torch.nn.utils.")


def _bind_forward(part: nn.Module) -> None:
    """Let a copied module run itself where ``module.forward = torch.compile(module.forward)`` would run the original."""
    held = vars(part).get("forward")
    compiled = getattr(held, "_torchdynamo_orig_callable", None)
    inner = held if compiled is None else inspect.unwrap(compiled)
    if isinstance(inner, MethodType):
        part.__dict__["forward"] = MethodType(inner.__func__, part)


def guest(module: nn.Module, path: str, mean: Any = None, std: Any = None) -> GuestNetwork:
    """Return the module of that name as a guest.

    Raises:
        ValueError: when it is not there, or no longer.
    """
    parts = modules_by_name(module)
    if path not in parts:
        raise unknown("network", "module", path, sorted(set(parts) - {""}))
    part = parts[path]
    name = type(getattr(part, "_orig_mod", part)).__name__
    return GuestNetwork(_without_data(part) if _is_a(part, "LightningModule") else part, mean, std, name=name)


def _is_a(value: Any, name: str) -> bool:
    """Say whether it is of a class of that name: both namespaces of Lightning have their own."""
    return any(kind.__name__ == name for kind in type(value).__mro__)


def _without_data(module: nn.Module) -> nn.Module:
    """Return a LightningModule with the same parts, but without data, which must not be copied with it, and without its Trainer."""
    light: nn.Module = object.__new__(type(module))
    kept = {name: value for name, value in vars(module).items() if not _holds_data(value)}
    if kept.pop("_compiler_ctx", None) is not None:
        for name in _COMPILED_BY_THE_TRAINER:
            kept.pop(name, None)
    light.__dict__.update(kept | {"_trainer": None, "_fabric": None, "_compiler_ctx": None})
    return light


def _holds_data(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_holds_data(part) for part in value)
    if isinstance(value, dict):
        return any(_holds_data(part) for part in value.values())
    return isinstance(value, (Dataset, DataLoader)) or _is_a(value, "LightningDataModule")


def find_forward(
    module: nn.Module,
    paths: Sequence[str],
    network: str | None,
    picture: Picture,
    device: torch.device,
    any_channels: bool = False,
) -> tuple[str, Picture]:
    """Return which module is shown the pictures, and their shape.

    Of the modules that contain all layers, the largest that can be run on a picture of this shape and then reaches
    them; and within it the smallest that is handed the picture itself, not what something else made of it. The forwards
    run on copies. Grey pictures are also tried with three channels, because trainings repeat them, and a module that
    was named with those of its first convolution.

    Args:
        module: the LightningModule.
        paths: of all layers, from the module.
        network: the only module that comes into question, if given.
        picture: shape (C, H, W).
        device: of the training.
        any_channels: whether the number of channels is not known; then it is that of the first convolution.

    Raises:
        ValueError: when there is none, with what each said.
    """
    places = [network] if network is not None else _places(paths)
    # A layer that is called "output" would be taken for the module's result.
    places = [place for place in places if OUTPUT not in [relative(path, place) for path in paths if path != place]]
    said: dict[str, str] = {}
    shapes = [] if any_channels else [picture]
    if any_channels or network is not None:
        shapes.append((guest(module, places[0]).channels, *picture[1:]))
    elif picture[0] == 1:
        shapes.append((3, *picture[1:]))
    for shape in shapes:
        for number, place in enumerate(places):
            inner = {
                relative(other, place): other for other in places[number + 1 :] if relative(other, place) != OUTPUT
            }
            try:
                given = _run(
                    guest(module, place), [relative(path, place) for path in paths], list(inner), shape, device
                )
            except Exception as error:  # a forward refuses a picture in many ways
                said.setdefault(place, f"{place or 'the LightningModule'}: {type(error).__name__}: {first_line(error)}")
            else:
                return next((inner[name] for name in reversed(inner) if name in given), place), shape
    layers, tried = ", ".join(dict.fromkeys(path or OUTPUT for path in paths)), " x ".join(map(str, shapes[0]))
    raise ValueError(
        f"targets: no module that contains {layers} runs on pictures of {tried}; name the one that does, network=…, or the size of the "
        f"pictures, size=… ({'; '.join(said.values())})"
    )


def _places(paths: Sequence[str]) -> list[str]:
    """Return the names of the modules that contain all layers, the largest first.

    Example:
        >>> _places(["net.layer3.0", "net.layer3.1"]), _places(["net.head"])
        (['', 'net', 'net.layer3'], ['', 'net', 'net.head'])
    """
    shared = paths[0].split(".") if paths[0] else []
    while not all(f"{path}.".startswith("".join(f"{part}." for part in shared)) for path in paths):
        shared.pop()
    return [".".join(shared[:depth]) for depth in range(len(shared) + 1)]


def _run(
    network: GuestNetwork, layers: Sequence[str], inner: Sequence[str], picture: Picture, device: torch.device
) -> set[str]:
    """Show a grey picture to a copy of the network; return which of the inner modules are handed that picture.

    Raises:
        Exception: whatever the forward raises before all layers were reached.
    """
    reader = network.reader()
    dtype = next((p.dtype for p in reader.module.parameters() if p.is_floating_point()), torch.float32)
    grey = torch.full((1, *picture), 0.5, device=device, dtype=dtype).requires_grad_(True)
    reached: set[str] = set()
    given: set[str] = set()

    def note(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, inputs: Any, result: Any) -> None:
            reached.add(name)
            if inputs and inputs[0] is grey:
                given.add(name)

        return hook

    with warnings.catch_warnings(), reader.hooked({name: note(name) for name in (*layers, *inner)}):
        warnings.simplefilter("ignore")  # such as that of `self.log` without a Trainer
        try:
            reader.module(grey)
        except Exception:
            if not reached.issuperset(layers):
                raise
            # What fails lies behind every layer, such as a head that takes another size.
    missing = [layer for layer in layers if layer not in reached]
    if missing:
        raise ValueError(f"its forward does not run {', '.join(missing)}")
    return given
