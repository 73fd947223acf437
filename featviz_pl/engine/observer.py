"""Compute what an objective reads: activations of networks, those of reference pictures, and gradients."""

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
    """Hold the random numbers of a step's views, so that other pictures can have the same views.

    Args:
        parameters: of the transforms; None for pictures as they are.
        progress: of the run, from 0 to 1.
        background: behind transparent pictures; None for grey.
        noise_seeds: of the random numbers of forwards: one for all views, and one for each view.
    """

    parameters: Any = None
    progress: float = 0.0
    background: Any = None
    noise_seeds: Sequence[int] = ()


class Observer:
    """Turn pictures into views, and views into an `Observation` for one objective.

    Args:
        image: whose size, channels and alpha are used.
        network: frozen, and left as it is.
        objective: whose sources are read.
        views: of the pictures; None for the pictures as they are.
        count: number of pictures.
    """

    def __init__(
        self, image: Image, network: FrozenNetwork, objective: Objective, views: Views | None, count: int
    ) -> None:
        self.network, self.objective, self.count = network, objective, count
        self.views = _with_background(views) if image.alpha else views
        self.picture = (image.channels, *image.size)
        self.alpha = image.alpha
        self.sources = _with_inputs_of_gradients(objective.sources())
        self._networks: dict[object, FrozenNetwork] = {}
        self._readers: dict[object, ActivationReader] = {}
        self._fixed: dict[tuple[Source, Size], Tensor] = {}  # activations of references that no view changes
        self._references: dict[Reference, Tensor] = {}  # on the device of the pictures
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
        """Copy the networks, check names and shapes with one pass over a grey picture, and read fixed references."""
        of_references = _with_inputs_of_gradients(
            [replace(source, reference=None) for source in self.sources if source.reference is not None]
        )
        for network in dict.fromkeys(source.network for source in [*self.sources, *of_references]):
            self._networks[network] = self.network if network is None else as_network(network)  # type: ignore[arg-type]
            self._readers[network] = self._networks[network].reader()
            self._readers[network].module.to(device=device, dtype=dtype)
        for source in self.sources:
            if source.gradient_of is not None and source.reference is not None:
                self._check_differentiated(source, source.reference)
        size = self.picture[1:]
        size_of_views = size if self.views is None else self.views.transforms.output_size(size)
        for input_size in dict.fromkeys((size, size_of_views)):  # of the scores, and of the steps
            for reference, sources in self._by_reference(through_views=False).items():
                for source, activation in self._read_reference(reference, sources, input_size, device).items():
                    self._fixed[source, input_size] = activation
            self._check(input_size)

    def _class_names(self) -> dict[object, Any]:
        return {key: network.classes for key, network in self._networks.items() if key is not None}

    def _check(self, size: Size) -> None:
        """Run every network on a picture of this size, and let the objective check the shapes."""
        shapes = {
            source: tuple(activation.shape[2:])
            for (source, input_size), activation in self._fixed.items()
            if input_size == size
        }
        for source in self.sources:
            if source.reference is not None and source.reference.through_views:
                self._check_viewed_reference(source.reference)
        remaining = [source for source in self.sources if source not in shapes]
        for network, sources in _by_network(remaining).items():
            layers = list(dict.fromkeys(source.layer for source in sources))
            layer_shapes = probe(self._readers[network], (self.picture[0] - self.alpha, *size), layers)
            shapes |= {source: layer_shapes[source.layer] for source in sources}
        self.objective.check(
            Setting(
                shapes,
                self.count,
                self.picture,
                class_names=self.network.classes,
                alpha=self.alpha,
                class_names_of=self._class_names(),
            )
        )

    def _check_differentiated(self, source: Source, reference: Reference) -> None:
        """Let an objective that is only differentiated at a reference check the shapes there."""
        assert source.gradient_of is not None
        shapes: dict[Source, tuple[int, ...]] = {}
        count, channels, height, width = map(int, reference.image.shape)
        for network, sources in _by_network(source.gradient_of.sources()).items():
            reader = self._readers[source.network if network is None else network]
            layer_shapes = probe(reader, (channels, height, width), [inner.layer for inner in sources])
            shapes |= {inner: layer_shapes[inner.layer] for inner in sources}
        classes = self._networks[source.network].classes
        source.gradient_of.check(Setting(shapes, count, (channels, height, width), class_names=classes))

    def _by_reference(self, through_views: bool) -> dict[Reference, list[Source]]:
        """Return the sources of each reference, of those with the views of each step or of the fixed ones."""
        groups: dict[Reference, list[Source]] = {}
        for source in self.sources:
            if source.reference is not None and source.reference.through_views == through_views:
                groups.setdefault(source.reference, []).append(source)
        return groups

    def _check_viewed_reference(self, reference: Reference) -> None:
        expected = (self.picture[0] - self.alpha, *self.picture[1:])
        if tuple(reference.image.shape[1:]) != expected:
            raise ValueError(
                f"reference: a picture of {tuple(reference.image.shape[1:])} cannot be seen through the same views as "
                f"one of {expected}; resize it"
            )
        self._check_count(reference)

    def _check_count(self, reference: Reference) -> None:
        if not reference.together and len(reference.image) not in (1, self.count):
            raise ValueError(
                f"reference: {len(reference.image)} pictures do not fit {self.count}; give one, or as many"
            )

    def draw(self, seed: int, step: int, progress: float, keys: Sequence[int], indices: Sequence[int] | None) -> Draw:
        """Draw the views of every picture in one step."""
        parameters = None if self.views is None else self.views.sample(seed, step, keys, indices)
        background = None
        if self._backgrounds is not None:
            of_views = [0] if self.views is None else indices
            background = self._backgrounds.sample(mix(seed, "background"), step, keys, of_views)
        noise_seeds: list[int] = []
        if any(reader.draws for reader in self._readers.values()):
            views = indices if indices is not None else range(1 if self.views is None else self.views.count)
            noise_seeds = [mix(seed, "forward", step, key, view) for key in keys for view in views]
            noise_seeds.insert(0, mix(seed, "forward", step))
        return Draw(parameters, progress, background, noise_seeds)

    def view(self, pictures: Tensor, draw: Draw) -> Tensor:
        """Return the views (N, V, C, h, w) of pictures."""
        if self.views is None or draw.parameters is None:
            return pictures[:, None]
        views: Tensor = self.views.apply(pictures, draw.parameters, draw.progress)
        return views

    def observe(self, pictures: Tensor, views: Tensor, draw: Draw, step: int | None = None) -> Observation:
        """Compute everything that the objective reads."""
        for reader in self._readers.values():
            reader.noise_seeds = draw.noise_seeds
        with torch.autocast(views.device.type, enabled=False):
            opaque = self._on_background(views, draw)
        sources = [source for source in self.sources if source.reference is None]
        observation = self._observation(pictures, views, opaque, sources, step)
        activations = dict(observation.activations)
        size = (int(views.shape[-2]), int(views.shape[-1]))
        for sources in self._by_reference(through_views=False).values():
            activations |= {source: self._fixed[source, size] for source in sources}
        for reference, sources in self._by_reference(through_views=True).items():
            activations |= self._read_viewed_reference(reference, sources, pictures, draw)
        return replace(observation, activations=activations)

    def _observation(
        self, pictures: Tensor, views: Tensor, opaque: Tensor, sources: list[Source], step: int | None
    ) -> Observation:
        """Read sources of the views, activations first and then gradients by them."""
        activations: dict[Source, Tensor] = {}
        results: dict[Source, Tensor] = {}
        layers = [source for source in sources if source.gradient_of is None]
        differentiated = {replace(source, gradient_of=None) for source in sources if source.gradient_of is not None}
        for network, group in _by_network(layers).items():
            self._read(network, group, opaque, activations, results if differentiated & set(group) else None)
        observation = Observation(
            pictures,
            activations,
            class_names=self.network.classes,
            views=views,
            step=step,
            class_names_of=self._class_names(),
        )
        for source in sources:
            if source.gradient_of is not None:
                result = results[replace(source, gradient_of=None)]
                activations[source] = self._gradient(source, observation, result)
        return observation

    def _read(
        self,
        network: object,
        sources: list[Source],
        views: Tensor,
        activations: dict[Source, Tensor],
        results: dict[Source, Tensor] | None,
    ) -> None:
        """Read layers for views (N, V, C, h, w); with `results`, also the tensors that deeper layers are computed from."""
        reader, layers = self._readers[network], [source.layer for source in sources]
        tensors: dict[str, Tensor] = {}

        def hook(layer: str) -> Callable[..., None]:
            def record(module: nn.Module, inputs: Any, result: Any) -> None:
                tensor = reader.tensor(layer, result)
                if tensor is not None:
                    tensors[layer] = tensor

            return record

        with reader.hooked({} if results is None else {layer: hook(layer) for layer in layers}):
            outputs = reader.activations(views.flatten(0, 1), layers)
        for source in sources:
            activations[source] = outputs[source.layer].unflatten(0, views.shape[:2])
            if results is not None:
                results[source] = tensors[source.layer]

    def _gradient(self, source: Source, observation: Observation, result: Tensor) -> Tensor:
        """Return the gradient of an objective by an activation, with the axes of the activation."""
        assert source.gradient_of is not None
        unlogged = observation.without_logging()
        with torch.autocast(observation.pictures.device.type, enabled=False):
            scores = source.gradient_of(unlogged if source.network is None else unlogged.for_network(source.network))
        with untraced():
            (gradient,) = torch.autograd.grad(scores.sum(), result, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise ValueError(
                f"layer: {source.layer!r} does not lead to {source.gradient_of!r}; choose a layer before it"
            )
        shape = observation.network_input().shape[:2]
        layout = self._readers[source.network].layout(source.layer)
        standard = None if layout is None else layout.standardized(gradient.detach(), shape.numel())
        assert standard is not None  # as the activation was
        gradients: Tensor = standard.unflatten(0, shape)
        return gradients

    def _read_reference(
        self, reference: Reference, sources: list[Source], size: Size, device: torch.device | str
    ) -> dict[Source, Tensor]:
        """Read a reference as it is, resized like the picture where it has the size of the picture."""
        self._check_count(reference)
        channels = self.picture[0] - self.alpha
        if reference.image.shape[1] != channels:
            raise ValueError(f"reference: it has {reference.image.shape[1]} channels, and the network sees {channels}")
        image = reference.image.to(device)
        if tuple(image.shape[-2:]) == self.picture[1:]:
            image = resize(image, size)
        return self._read_views(sources, image[None] if reference.together else image[:, None])

    def _read_viewed_reference(
        self, reference: Reference, sources: list[Source], pictures: Tensor, draw: Draw
    ) -> dict[Source, Tensor]:
        """Read a reference through the views of this step."""
        image = self._references.get(reference)
        if image is None or image.device != pictures.device or image.dtype != pictures.dtype:
            image = self._references[reference] = reference.image.to(device=pictures.device, dtype=pictures.dtype)
        if self.alpha:
            image = torch.cat([image, torch.ones_like(image[:, :1])], 1)  # opaque: the views may use the alpha
        with torch.autocast(image.device.type, enabled=False):
            views = self._on_background(self.view(image.expand(len(pictures), -1, -1, -1), draw), draw)
        return self._read_views(sources, views)

    def _read_views(self, sources: list[Source], views: Tensor) -> dict[Source, Tensor]:
        """Read views of a reference, in one pass for each network, without a graph."""
        of_views = {source: replace(source, reference=None) for source in sources}
        needs_gradient = any(source.gradient_of is not None for source in sources)
        with torch.inference_mode(False), torch.set_grad_enabled(needs_gradient):
            views = views.detach().clone().requires_grad_(needs_gradient)
            inputs = _with_inputs_of_gradients(list(of_views.values()))
            activations = self._observation(views[:, 0], views, views, inputs, None).activations
        return {source: activations[plain].detach() for source, plain in of_views.items()}

    def _on_background(self, views: Tensor, draw: Draw) -> Tensor:
        """Put transparent views on the background that was drawn, or on grey; opaque views stay."""
        if not self.alpha or views.shape[2] != self.picture[0]:
            return views
        if draw.background is None or self._backgrounds is None:
            return on_grey(views)
        flat: Tensor = self._backgrounds.transforms.apply(views.flatten(0, 1), draw.background)
        opaque: Tensor = flat.unflatten(0, views.shape[:2])
        return opaque

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast the copies of the networks and the fixed activations."""
        for reader in self._readers.values():
            reader.apply_(fn)
        self._fixed = {key: fn(activation) for key, activation in self._fixed.items()}

    def release(self) -> None:
        """Free what `prepare` made."""
        for values in (self._readers, self._fixed, self._references):
            values.clear()


def _with_background(views: Views | None) -> Views | None:
    """Put a random background before the first transform of colors, which must not change the opacity."""
    if views is None:
        return None
    transforms = views.transforms.listed()
    of_colors = (Noise, ColorShift, Torchvision, Background)
    first = next((index for index, transform in enumerate(transforms) if isinstance(transform, of_colors)), None)
    if first is None or isinstance(transforms[first], Background):
        return views
    with_background = Compose([*transforms[:first], Background(), *transforms[first:]], views.transforms.size)
    return Views(with_background, views.count, views.schedule)


def _by_network(sources: Iterable[Source]) -> dict[object, list[Source]]:
    groups: dict[object, list[Source]] = {}
    for source in sources:
        groups.setdefault(source.network, []).append(source)
    return groups


def _with_inputs_of_gradients(sources: Sequence[Source]) -> list[Source]:
    """Add what gradients by activations are computed from: the activations, and the sources of the objective."""
    complete = dict.fromkeys(sources)
    for source in sources:
        if source.gradient_of is not None and source.reference is None:
            inner = [
                replace(read, network=source.network if read.network is None else read.network)
                for read in source.gradient_of.sources()
            ]
            complete |= dict.fromkeys(_with_inputs_of_gradients([replace(source, gradient_of=None), *inner]))
    return list(complete)
