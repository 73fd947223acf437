"""Transforms of torchvision and others, with a separate random stream for each view."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from featviz_pl.numerics.jit_tracing import tracing, untraced
from featviz_pl.transforms.base import Transform
from featviz_pl.transforms.noise import Seeded
from featviz_pl.transforms.ranges import draw_seeds, without_address
from featviz_pl.transforms.warp import at_least_float32, sizes


class Torchvision(Transform):
    """Wrap a transform of ``torchvision.transforms.v2``, or anything that maps a picture (C, H, W) to a picture.

    Each view is transformed alone. Whatever the transform draws from torch's global generators comes from the view's
    own seed, and these are left as they were found; those of Python and numpy are not looked after. Gradients flow if
    the transform lets them: torchvision's rotations, affine and perspective maps do so without a fill (``fill=None``),
    which they write in place otherwise. Weakened, it is applied to a share of the views, unless it changes their size.

    Shape:
        (N, C, H, W) -> (N, C, h, w); parameters: seeds (N,) in int64, and (N,) a number from [0, 1): the transform is
        applied below 1

    Args:
        transform: returns a floating tensor with as many channels, and pictures of one size for pictures of one size.

    Raises:
        TypeError: when `transform` cannot be called, or holds parameters or buffers.
        ValueError: when it returns something else.

    Example:
        >>> from torchvision.transforms import v2
        >>> wrapped = Torchvision(v2.RandomHorizontalFlip(p=1.0))
        >>> wrapped(torch.arange(3.0).view(1, 1, 1, 3), torch.Generator()).flatten().tolist()
        [2.0, 1.0, 0.0]
    """

    def __init__(self, transform: nn.Module | Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(transform):
            raise TypeError(f"transform must map a picture (C, H, W) to a picture, got {type(transform).__name__}")
        if isinstance(transform, nn.Module) and transform.state_dict():
            raise TypeError(
                f"transform must hold no parameters or buffers, got {type(transform).__name__}; put it into the network"
            )
        self.transform = transform
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}

    def sample(self, generator: torch.Generator, n: int) -> Seeded:
        """Draw n seeds."""
        return draw_seeds(generator, n), torch.rand(n, generator=generator, dtype=torch.float32)

    def weaken(self, parameters: Seeded, strength: float) -> Seeded:
        """Apply it to fewer views."""
        return parameters[0], parameters[1] / strength if strength > 0 else torch.ones_like(parameters[1])

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size that a black picture of three channels comes to have; tried once for each size."""
        if size not in self._sizes:
            with untraced(), torch.no_grad():
                shape = self._run(torch.zeros(3, *size, dtype=torch.float32, device="cpu"), 0).shape
            self._sizes[size] = (int(shape[-2]), int(shape[-1]))
        return self._sizes[size]

    def apply(self, image: Tensor, parameters: Seeded) -> Tensor:  # type: ignore[override]
        """Transform each picture with its own seed."""
        image = at_least_float32(image)
        with untraced():
            seeds, chances = parameters[0].tolist(), parameters[1].tolist()
        size = sizes(image)[1:]
        may_skip = any(chance >= 1 for chance in chances) and self.output_size(size) == size
        views = [
            picture if may_skip and chance >= 1 else self._run(picture, seed)
            for picture, seed, chance in zip(image.unbind(0), seeds, chances)
        ]
        view_sizes = {sizes(view)[1:] for view in views}
        if len(view_sizes) > 1:
            raise ValueError(f"transform: {self._name()} must return pictures of one size, got {sorted(view_sizes)}")
        return torch.stack(views)

    def _run(self, picture: Tensor, seed: int) -> Tensor:
        with _undisturbed(picture.device, seed), _constant_draws() if tracing() else nullcontext():
            view: Any = self.transform(picture)
        with untraced():
            before, after = tuple(picture.shape), tuple(view.shape) if isinstance(view, Tensor) else ()
        if not isinstance(view, Tensor) or not view.is_floating_point() or len(after) != 3 or after[0] != before[0]:
            result = f"{after} of {view.dtype}" if isinstance(view, Tensor) else type(view).__name__
            raise ValueError(
                f"transform: {self._name()} must return floats of {before[0]} channels for {before}, got {result}"
            )
        return view

    def _name(self) -> str:
        return without_address(repr(self.transform))

    def __repr__(self) -> str:
        """Return the constructor, in one line."""
        return f"Torchvision({self._name()})"


@contextmanager
def _undisturbed(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the global generators, at float32 without autocast, and restore everything afterwards."""
    default = torch.get_default_dtype()
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.autocast("cpu", enabled=False),  # where a transform computes its map
        torch.autocast(device.type, enabled=False),
    ):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        torch.set_default_dtype(torch.float32)  # of draws: a run at another precision sets another one
        try:
            yield
        finally:
            torch.set_default_dtype(default)


DRAWS = {
    torch.rand,
    torch.rand_like,
    torch.randn,
    torch.randn_like,
    torch.randint,
    torch.randint_like,
    torch.randperm,
    torch.normal,
}
DRAWS |= {torch.bernoulli, torch.multinomial, Tensor.uniform_, Tensor.normal_, Tensor.random_, Tensor.bernoulli_}


class _UntracedDraws(TorchFunctionMode):
    """Keep draws out of a traced graph: it would draw others."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with untraced() if func in DRAWS else nullcontext():
            return func(*args, **(kwargs or {}))


@contextmanager
def _constant_draws() -> Iterator[None]:
    """Make what is drawn a constant of the traced graph, and so what depends on it; tracing warns of that."""
    with warnings.catch_warnings(), _UntracedDraws():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield
