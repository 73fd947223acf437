"""This library and its peers behind one door: a job in, a picture and the time of each step out.

Peers run unmodified and with the arguments that their own examples use; what each needs to run at all is said in its
class. A further library takes part as ``package.module:Class`` with the methods of `Contestant`.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._device import device_of, now
from benchmarks._networks import MEAN, STD


@dataclass(frozen=True)
class Job:
    """Say what is to be rendered.

    Args:
        layer: of the network.
        unit: of the layer.
        size: of the picture, in pixels.
        steps: of the optimisation.
        precision: of the network, for those that know others than ``"32-true"``.
        alike: one view in every step, for everybody; otherwise what each library does by itself.
        seed: of the draws.
        preset: of this library, where it is not told to be like the others.
    """

    layer: str
    unit: int
    size: int
    steps: int
    precision: str = "32-true"
    alike: bool = True
    seed: int = 0
    preset: str = "featviz"


class Contestant:
    """Render pictures with one library. Whatever the library imports is imported when it is built.

    Args:
        network: that every job is about, in evaluation mode.
    """

    packages: tuple[str, ...] = ()  # distributions that have to be installed
    accelerator = "cpu"  # where it is to run; the network that it gets is there

    def load(self) -> None:
        """Import the library."""

    def prepare(self, network: nn.Module) -> None:
        """Take the network."""
        self.network = network

    def render(self, job: Job) -> tuple[Tensor, list[float]]:
        """Return a picture (3, H, W) in [0, 1], and the times at which the steps began or ended."""
        raise NotImplementedError


class Featviz(Contestant):
    """This library: `render`, with the preset lucid and one view, or with the preset of the job."""

    packages = ("featviz_pl",)

    def load(self) -> None:
        for module in (
            "lightning.pytorch",
            "featviz_pl.rendering",
            "featviz_pl.sweep.module",
            "featviz_pl.callbacks",
            "featviz_pl.metrics",
        ):
            import_module(module)

    def prepare(self, network: nn.Module) -> None:
        import featviz_pl as fv
        from benchmarks._report import quiet

        quiet()
        self.frozen = fv.FrozenNetwork(network, MEAN, std=STD)

    def render(self, job: Job) -> tuple[Tensor, list[float]]:
        import featviz_pl as fv
        from benchmarks._clock import StepTimes

        clock = StepTimes()
        arguments: dict[str, Any] = {"preset": "lucid", "views": 1} if job.alike else {"preset": job.preset}
        result = fv.render(
            self.frozen,
            f"{job.layer}:{job.unit}",
            steps=job.steps,
            size=job.size,
            seed=job.seed,
            precision=job.precision,
            accelerator=self.accelerator,
            callbacks=[clock],
            **arguments,
        )
        return result.images[0], clock.times

    def sweep(self, job: Job, units: list[int], batch_size: int | str) -> None:
        """Render many units in batches into a folder, with the settings of a job."""
        from lightning.pytorch import Trainer

        import featviz_pl as fv
        from featviz_pl.callbacks import FeatureWriter
        from featviz_pl.sweep import FeatureTargets

        arguments: dict[str, Any] = {"preset": "lucid", "views": 1} if job.alike else {"preset": job.preset}
        module = fv.FeatureSweep(self.frozen, size=job.size, steps=job.steps, seed=job.seed, **arguments)
        targets = FeatureTargets(f"{job.layer}:{','.join(map(str, units))}", batch_size)
        with tempfile.TemporaryDirectory() as folder:
            Trainer(
                accelerator=self.accelerator,
                devices=1,
                precision=job.precision,  # type: ignore[arg-type]
                callbacks=[FeatureWriter(folder)],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            ).predict(module, targets, return_predictions=False)

    def scores(self, pictures: Tensor, target: str) -> list[float]:
        """Score pictures (N, 3, H, W) for a target under held-out views, in the 256 levels of a file."""
        from featviz_pl.io import as_saved
        from featviz_pl.metrics import HeldOutActivation

        metric = HeldOutActivation(self.frozen, reduction="none")
        metric.update(as_saved(pictures), target)
        scores: list[float] = metric.compute().tolist()
        return scores


class Peer(Contestant):
    """Time another library from outside: by the passes through its network, of which every step makes one."""

    def prepare(self, network: nn.Module) -> None:
        super().prepare(network)
        self.device = device_of(self.accelerator)
        self.times: list[float] = []
        network.register_forward_pre_hook(self._note)

    def _note(self, module: nn.Module, inputs: Any) -> None:
        self.times.append(now(self.device))

    def render(self, job: Job) -> tuple[Tensor, list[float]]:
        self.times.clear()
        random.seed(job.seed)
        np.random.seed(job.seed)  # noqa: NPY002  # the only way to fix what the peers draw
        torch.default_generator.manual_seed(job.seed)
        return self.picture(job).detach().to("cpu", torch.float32).clamp(0, 1), list(self.times)

    def picture(self, job: Job) -> Tensor:
        """Return the picture (3, H, W) in [0, 1]."""
        raise NotImplementedError


class Lucent(Peer):
    """`torch-lucent`, which asks for a kornia of 2020 (0.4.1 at most); pip installs that with it."""

    packages = ("torch-lucent",)

    def load(self) -> None:
        self.param, self.lucent = import_module("lucent.optvis.param"), import_module("lucent.optvis.render")

    def picture(self, job: Job) -> Tensor:
        target = f"{job.layer.replace('.', '_')}:{job.unit}"
        images = self.lucent.render_vis(
            self.network,
            target,
            lambda: self.param.image(job.size),
            thresholds=(job.steps,),
            progress=False,
            show_image=False,
        )
        return torch.from_numpy(images[0][0]).permute(2, 0, 1)


class TorchDreams(Peer):
    """`torch-dreams`, whose objective is a function of the outputs of layers."""

    packages = ("torch-dreams",)

    def load(self) -> None:
        self.dreams = import_module("torch_dreams")

    def prepare(self, network: nn.Module) -> None:
        super().prepare(network)
        self.dreamer = self.dreams.Dreamer(network, quiet=True, device=self.device.type)

    def picture(self, job: Job) -> Tensor:
        layer = self.network.get_submodule(job.layer)
        dreamed = self.dreamer.render(
            layers=[layer],
            width=job.size,
            height=job.size,
            iters=job.steps,
            custom_func=lambda outputs: -outputs[0][:, job.unit].mean(),
        )
        picture: Tensor = dreamed.to_chw_tensor()
        return picture


class Horama(Peer):
    """`horama`'s Fourier method, whose objective is a function of pictures: here of all of the network, read by a hook.

    Left to itself it shows six crops in every step; where others show one view it shows two, because it fails with one.
    Its pictures are as the network takes them, so they are turned back into [0, 1].
    """

    packages = ("horama",)

    def load(self) -> None:
        self.horama = import_module("horama")

    def prepare(self, network: nn.Module) -> None:
        super().prepare(network)
        self.read: dict[str, Tensor] = {}

    def picture(self, job: Job) -> Tensor:
        def objective(crops: Tensor) -> Tensor:
            self.network(crops)
            return self.read[job.layer][:, job.unit].mean()

        def keep(module: nn.Module, inputs: Any, result: Tensor) -> None:
            self.read[job.layer] = result

        hook = self.network.get_submodule(job.layer).register_forward_hook(keep)
        crops = {"crops_per_iteration": 2} if job.alike else {}
        try:
            picture, _ = self.horama.fourier(
                objective, total_steps=job.steps, image_size=job.size, device=self.device.type, **crops
            )
        finally:
            hook.remove()
            self.read.clear()
        shape = (3, 1, 1)
        restored: Tensor = picture.detach().cpu() * torch.tensor(STD).view(shape) + torch.tensor(MEAN).view(shape)
        return restored


OWN = "featviz_pl"
PEERS: dict[str, type[Contestant]] = {"torch-lucent": Lucent, "torch-dreams": TorchDreams, "horama": Horama}


def contestant(name: str) -> Contestant:
    """Build what takes part under a name, or under ``package.module:Class``.

    Raises:
        ValueError: when there is no such name.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        dreamed: Contestant = getattr(import_module(module), attribute)()
        return dreamed
    known: dict[str, type[Contestant]] = {OWN: Featviz, **PEERS}
    if name not in known:
        raise ValueError(f"name: {name!r} takes no part; known are {', '.join(known)}, and package.module:Class")
    return known[name]()
