"""Read what an objective asks for: layers of networks, reference pictures, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.images import Image
from featviz_pl.networks import ActivationReader, FrozenNetwork, as_network
from featviz_pl.networks.probing import probe
from featviz_pl.numerics.color import on_grey
from featviz_pl.numerics.jit_tracing import untraced
from featviz_pl.numerics.random import mix
from featviz_pl.numerics.resampling import resize
from featviz_pl.objectives import Objective, Observation, Reference, Setting, Source
from featviz_pl.transforms import Background, ColorShift, Compose, Noise, Torchvision, Views

Size = tuple[int, int]


@dataclass
class Draw:
    """Hold what made the views of a step, so that other pictures can be seen the same way.

    Args:
        parameters: of the transforms; None where pictures are seen as they are.
        progress: of the run, from 0 to 1.
        background: what shows through transparent pictures; None for opaque ones, and for grey.
    """

    parameters: Any = None
    progress: float = 0.0
    background: Any = None


class Observer:
    """Turn pictures into views, and views into an `Observation` for one objective.

    Args:
        image: what is trained: its size, channels and alpha are read here.
        network: the guest; the run works on readers of it.
        objective: what is wanted.
        views: how the pictures are seen; None shows them as they are.
        count: number of pictures.
    """

    def __init__(
        self, image: Image, network: FrozenNetwork, objective: Objective, views: Views | None, count: int
    ) -> None:
        self.network, self.objective, self.count = network, objective, count
        self.views = _on_backgrounds(views) if image.alpha else views
        self.picture = (image.channels, *image.size)
        self.alpha = image.alpha
        self.sources = _with_what_they_need(objective.sources())
        self._networks: dict[object, FrozenNetwork] = {}
        self._readers: dict[object, ActivationReader] = {}
        self._fixed: dict[tuple[Source, Size], Tensor] = {}
        self._moved: dict[Reference, Tensor] = {}  # where the pictures are
        self._backgrounds = Views(Background(), 1 if views is None else views.count) if self.alpha else None

    @property
    def prepared(self) -> bool:
        """Whether `prepare` has been called."""
        return bool(self._readers) or not self.sources

    @property
    def needs_gradient(self) -> bool:
        """Whether scoring needs gradients by activations."""
        return any(source.gradient_of is not None and source.reference is None for source in self.sources)

    def prepare(self, device: torch.device | str, dtype: torch.dtype | None) -> None:
        """Make the readers, check names and shapes with one pass over a grey picture, and read the fixed references."""
        at_references = _with_what_they_need(
            [replace(source, reference=None) for source in self.sources if source.reference is not None]
        )
        for network in dict.fromkeys(source.network for source in [*self.sources, *at_references]):
            self._networks[network] = self.network if network is None else as_network(network)  # type: ignore[arg-type]
            self._readers[network] = self._networks[network].reader()
            self._readers[network].module.to(device=device, dtype=dtype)
        for source in self.sources:
            if source.gradient_of is not None and source.reference is not None:
                self._check_inner(source, source.reference)
        size = self.picture[1:]
        seen_at = size if self.views is None else self.views.transforms.output_size(size)
        for own in dict.fromkeys((size, seen_at)):  # scores are of the picture as it is, steps are of its views
            for reference, sources in self._by_reference(through_views=False).items():
                for source, read in self._read_reference(reference, sources, own, device).items():
                    self._fixed[source, own] = read
            self._check(own)

    def _check(self, size: Size) -> None:
        """Probe every network with a picture of this size and let the objective refuse what cannot work."""
        shapes = {
            source: tuple(activation.shape[2:]) for (source, own), activation in self._fixed.items() if own == size
        }
        channels = self.picture[0] - self.alpha
        for source in self.sources:
            if source.reference is not None and source.reference.through_views:
                self._check_moving(source.reference)
        for network, sources in _grouped(source for source in self.sources if source not in shapes).items():
            found = probe(
                self._readers[network], (channels, *size), list(dict.fromkeys(source.layer for source in sources))
            )
            shapes |= {source: found[source.layer] for source in sources}
        names = {network: held.classes for network, held in self._networks.items() if network is not None}
        self.objective.check(
            Setting(
                shapes,
                self.count,
                self.picture,
                class_names=self.network.classes,
                alpha=self.alpha,
                class_names_of=names,
            )
        )

    def _check_inner(self, source: Source, reference: Reference) -> None:
        """Let an objective that is only differentiated at a reference refuse what cannot work."""
        assert source.gradient_of is not None
        shapes: dict[Source, tuple[int, ...]] = {}
        picture = (int(reference.image.shape[1]), int(reference.image.shape[2]), int(reference.image.shape[3]))
        for network, group in _grouped(source.gradient_of.sources()).items():
            reader = self._readers[source.network if network is None else network]
            found = probe(reader, picture, [one.layer for one in group])
            shapes |= {one: found[one.layer] for one in group}
        names = self._networks[source.network].classes
        source.gradient_of.check(Setting(shapes, len(reference.image), picture, class_names=names))

    def _by_reference(self, through_views: bool) -> dict[Reference, list[Source]]:
        """Return what is read of each reference, of those that go through the views or of the others."""
        groups: dict[Reference, list[Source]] = {}
        for source in self.sources:
            if source.reference is not None and source.reference.through_views == through_views:
                groups.setdefault(source.reference, []).append(source)
        return groups

    def _check_moving(self, reference: Reference) -> None:
        """Refuse a reference that cannot be seen through the picture's views."""
        expected = (self.picture[0] - self.alpha, *self.picture[1:])
        if tuple(reference.image.shape[1:]) != expected:
            raise ValueError(
                f"reference: a picture of {tuple(reference.image.shape[1:])} cannot be seen through the same views as one of "
                f"{expected}; resize it"
            )
        self._check_count(reference)

    def _check_count(self, reference: Reference) -> None:
        if not reference.together and len(reference.image) not in (1, self.count):
            raise ValueError(
                f"reference: {len(reference.image)} pictures do not fit {self.count}; give one, or as many"
            )

    def draw(self, seed: int, step: int, progress: float, keys: Sequence[int], indices: Sequence[int] | None) -> Draw:
        """Draw how every picture is seen in one step."""
        parameters = None if self.views is None else self.views.sample(seed, step, keys, indices)
        background = None
        if self._backgrounds is not None:
            background = self._backgrounds.sample(
                mix(seed, "background"), step, keys, [0] if self.views is None else indices
            )
        return Draw(parameters, progress, background)

    def show(self, pictures: Tensor, draw: Draw) -> Tensor:
        """Return the views (N, V, C, h, w) of pictures."""
        if self.views is None or draw.parameters is None:
            return pictures[:, None]
        views: Tensor = self.views.apply(pictures, draw.parameters, draw.progress)
        return views

    def observe(self, pictures: Tensor, views: Tensor, draw: Draw, step: int | None = None) -> Observation:
        """Read everything that the objective asks for."""
        with torch.autocast(views.device.type, enabled=False):
            opaque = self._opaque(views, draw)
        own = [source for source in self.sources if source.reference is None]
        seen = self._observation(pictures, views, opaque, own, step)
        activations = dict(seen.activations)
        size = (int(views.shape[-2]), int(views.shape[-1]))
        activations |= {
            source: self._fixed[source, size] for sources in self._by_reference(False).values() for source in sources
        }
        for reference, sources in self._by_reference(True).items():
            activations |= self._read_moving(reference, sources, pictures, draw)
        return replace(seen, activations=activations)

    def _observation(
        self, pictures: Tensor, views: Tensor, opaque: Tensor, sources: list[Source], step: int | None
    ) -> Observation:
        """Read sources of the views themselves, activations first and then gradients by them."""
        activations: dict[Source, Tensor] = {}
        graph: dict[Source, Tensor] = {}
        wanted = [source for source in sources if source.gradient_of is None]
        by_gradient = {replace(source, gradient_of=None) for source in sources if source.gradient_of is not None}
        for network, group in _grouped(wanted).items():
            self._read(network, group, opaque, activations, graph if by_gradient & set(group) else None)
        names = {network: held.classes for network, held in self._networks.items() if network is not None}
        seen = Observation(
            pictures, activations, class_names=self.network.classes, views=views, step=step, class_names_of=names
        )
        for source in sources:
            if source.gradient_of is not None:
                activations[source] = self._gradient(source, seen, graph[replace(source, gradient_of=None)])
        return seen

    def _read(
        self,
        network: object,
        sources: list[Source],
        views: Tensor,
        into: dict[Source, Tensor],
        graph: dict[Source, Tensor] | None,
    ) -> None:
        """Read layers for views (N, V, C, h, w); with `graph`, keep also what deeper layers were computed from."""
        reader, layers = self._readers[network], [source.layer for source in sources]
        results: dict[str, Tensor] = {}

        def keeper(layer: str) -> Callable[..., None]:
            def keep(module: nn.Module, inputs: Any, result: Any) -> None:
                tensor = reader.tensor(layer, result)
                if tensor is not None:
                    results[layer] = tensor

            return keep

        with reader.hooked({layer: keeper(layer) for layer in layers} if graph is not None else {}):
            read = reader.activations(views.flatten(0, 1), layers)
        for source in sources:
            into[source] = read[source.layer].unflatten(0, views.shape[:2])
            if graph is not None:
                graph[source] = results[source.layer]

    def _gradient(self, source: Source, seen: Observation, root: Tensor) -> Tensor:
        """Return the gradient of an objective by an activation, laid out as the activation is."""
        assert source.gradient_of is not None
        objective = source.gradient_of
        with torch.autocast(seen.pictures.device.type, enabled=False):
            scores = objective(
                seen.without_logging() if source.network is None else seen.without_logging().for_network(source.network)
            )
        with untraced():
            (gradient,) = torch.autograd.grad(scores.sum(), root, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise ValueError(f"layer: {source.layer!r} does not lead to {objective!r}; choose a layer before it")
        shape = seen.network_input().shape[:2]
        layout = self._readers[source.network].layout(source.layer)
        standard = None if layout is None else layout.standardized(gradient.detach(), shape.numel())
        assert standard is not None  # as the activation was
        gradients: Tensor = standard.unflatten(0, shape)
        return gradients

    def _read_reference(
        self, reference: Reference, sources: list[Source], size: Size, device: torch.device | str
    ) -> dict[Source, Tensor]:
        """Read a reference as it is; one of the picture's size follows it to the size of the views."""
        self._check_count(reference)
        channels = self.picture[0] - self.alpha
        if reference.image.shape[1] != channels:
            raise ValueError(
                f"reference: it has {reference.image.shape[1]} channels, and the network is shown {channels}"
            )
        image = reference.image.to(device)
        if tuple(image.shape[-2:]) == self.picture[1:]:
            image = resize(image, size)
        return self._read_views(sources, image[None] if reference.together else image[:, None])

    def _read_moving(
        self, reference: Reference, sources: list[Source], pictures: Tensor, draw: Draw
    ) -> dict[Source, Tensor]:
        """Read a reference through the views of this step."""
        image = self._moved.get(reference)
        if image is None or image.device != pictures.device or image.dtype != pictures.dtype:
            image = self._moved[reference] = reference.image.to(device=pictures.device, dtype=pictures.dtype)
        if self.alpha:
            image = torch.cat([image, torch.ones_like(image[:, :1])], 1)  # opaque, where views may want to know
        with torch.autocast(image.device.type, enabled=False):
            views = self._opaque(self.show(image.expand(len(pictures), -1, -1, -1), draw), draw)
        return self._read_views(sources, views)

    def _read_views(self, sources: list[Source], views: Tensor) -> dict[Source, Tensor]:
        """Read views of a reference, in one pass for each network; what is read is detached."""
        wanted = {source: replace(source, reference=None) for source in sources}
        needs_gradient = any(source.gradient_of is not None for source in sources)
        with torch.inference_mode(False), torch.set_grad_enabled(needs_gradient):
            views = views.detach().clone().requires_grad_(needs_gradient)
            own = _with_what_they_need(list(wanted.values()))
            read = self._observation(views[:, 0], views, views, own, None).activations
        return {source: read[plain].detach() for source, plain in wanted.items()}

    def _opaque(self, views: Tensor, draw: Draw) -> Tensor:
        """Put transparent views on the background that was drawn, or on grey; views that a transform made opaque stay."""
        if not self.alpha or views.shape[2] != self.picture[0]:
            return views
        if draw.background is None or self._backgrounds is None:
            return on_grey(views)
        flat: Tensor = self._backgrounds.transforms.apply(views.flatten(0, 1), draw.background)
        opaque: Tensor = flat.unflatten(0, views.shape[:2])
        return opaque

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast what the run made: readers and fixed activations."""
        for reader in self._readers.values():
            reader.apply_(fn)
        self._fixed = {key: fn(activation) for key, activation in self._fixed.items()}

    def release(self) -> None:
        """Let go of what `prepare` made."""
        for held in (self._readers, self._fixed, self._moved):
            held.clear()


def _on_backgrounds(views: Views | None) -> Views | None:
    """Put a random background before the first transform of colors: opacity is no color, and must not be shifted as one."""
    if views is None:
        return None
    listed = views.transforms.listed()
    first = next(
        (place for place, one in enumerate(listed) if isinstance(one, (Noise, ColorShift, Torchvision, Background))),
        None,
    )
    if first is None or isinstance(listed[first], Background):
        return views
    return Views(
        Compose([*listed[:first], Background(), *listed[first:]], views.transforms.size), views.count, views.schedule
    )


def _grouped(sources: Iterable[Source]) -> dict[object, list[Source]]:
    groups: dict[object, list[Source]] = {}
    for source in sources:
        groups.setdefault(source.network, []).append(source)
    return groups


def _with_what_they_need(sources: Sequence[Source]) -> list[Source]:
    """Add what gradients by activations are computed from: the activations, and what the differentiated objective reads."""
    found = dict.fromkeys(sources)
    for source in sources:
        if source.gradient_of is not None and source.reference is None:
            inner = [
                replace(one, network=source.network if one.network is None else one.network)
                for one in source.gradient_of.sources()
            ]
            found |= dict.fromkeys(_with_what_they_need([replace(source, gradient_of=None), *inner]))
    return list(found)
