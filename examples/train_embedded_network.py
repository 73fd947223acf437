"""Train the network that ships with featviz_pl: a small residual network, robust to L2 perturbations.

Adversarial training (Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018): each step
looks, within an L2 ball around each photo, for the picture that the network gets most wrong, and learns from that one.
The radius grows over the first part of the run, the pictures grow from 64 to 96 pixels (the radius follows the side),
the learning rate rises and falls once.

    python examples/train_embedded_network.py --data DATA --output embedded.pt     # DATA holds imagenette2-160/; or
    --download

The whole run takes half an hour to an hour on two CPU cores with bfloat16. A stopped run continues with --resume
CHECKPOINT.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import Imagenette
from torchvision.transforms import v2

from featviz_pl.networks import EmbeddedNetwork

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FULL_SIZE = 96


class CachedPhotos(Dataset[tuple[Tensor, int]]):
    """Hold every decoded photo in memory (about 1 GB), so that no epoch decodes one again."""

    def __init__(self, photos: Imagenette) -> None:
        self.classes = [names[0] for names in photos.classes]
        to_image = v2.ToImage()
        self.items: list[tuple[Tensor, int]] = [(to_image(photo), label) for photo, label in photos]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.items[index]


class Photos(LightningDataModule):
    """Serve Imagenette at a size that grows with the epoch."""

    def __init__(self, root: str, batch_size: int = 128, download: bool = False) -> None:
        super().__init__()
        self.root, self.batch_size, self.download = root, batch_size, download

    def prepare_data(self) -> None:
        """Fetch the photos where the user allowed it."""
        if self.download and not (Path(self.root) / "imagenette2-160").exists():
            Imagenette(self.root, split="train", size="160px", download=True)

    def setup(self, stage: str) -> None:
        """Decode the photos that this stage needs, once."""
        if stage == "fit" and not hasattr(self, "train"):
            self.train = CachedPhotos(Imagenette(self.root, split="train", size="160px"))
        if not hasattr(self, "held_out"):
            self.held_out = CachedPhotos(Imagenette(self.root, split="val", size="160px"))

    def size(self) -> int:
        """Return the side of this epoch's pictures: 64, then 80, then 96 pixels."""
        assert self.trainer is not None
        assert self.trainer.max_epochs is not None
        progress = self.trainer.current_epoch / self.trainer.max_epochs
        return 64 if progress < 0.5 else 80 if progress < 0.75 else FULL_SIZE

    def train_dataloader(self) -> DataLoader[Any]:
        """Crop, flip and recolor at random."""
        transform = v2.Compose(
            [
                v2.RandomResizedCrop(self.size(), scale=(0.25, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.2, 0.2, 0.2),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=True, collate_fn=Collate(transform))

    def val_dataloader(self) -> DataLoader[Any]:
        """Serve the centre of every held-out photo."""
        transform = v2.Compose([v2.Resize(108), v2.CenterCrop(FULL_SIZE), v2.ToDtype(torch.float32, scale=True)])
        return DataLoader(self.held_out, self.batch_size, collate_fn=Collate(transform))

    test_dataloader = val_dataloader


class Collate:
    """Transform photo by photo and stack."""

    def __init__(self, transform: v2.Compose) -> None:
        self.transform = transform

    def __call__(self, items: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        """Return (N, 3, size, size) in [0, 1] and (N,) labels."""
        images = torch.stack([torch.as_tensor(self.transform(image)) for image, _ in items])
        return images, torch.tensor([label for _, label in items])


def folded(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose batch norms are folded into the convolutions before them (a third faster)."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for parent in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for (first, conv), (second, norm) in zip(list(parent.named_children()), list(parent.named_children())[1:]):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, first, fuse_conv_bn_eval(conv, norm))
                setattr(parent, second, nn.Identity())
    return network


def l2_attack(loss: Any, images: Tensor, radius: float, steps: int) -> Tensor:
    """Search the L2 ball around each image, from a random start, for the picture with the highest loss."""

    def into_ball(delta: Tensor) -> Tensor:
        norm: Tensor = delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        shrink: Tensor = torch.clamp_max(radius / norm, 1)
        return delta * shrink

    start = torch.randn_like(images)
    start = (
        start
        / start.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        * radius
        * torch.rand(len(images), 1, 1, 1, device=images.device)
    )
    adversarial: Tensor = (images + start).clamp(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_(True)
        with torch.enable_grad():
            gradient = torch.autograd.grad(loss(adversarial), adversarial)[0]
        gradient = gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        moved = adversarial.detach() + 2.0 * radius / steps * gradient
        adversarial = (images + into_ball(moved - images)).clamp(0, 1).detach()
    return adversarial


class RobustClassifier(LightningModule):
    """Train `EmbeddedNetwork` on the worst picture in an L2 ball around each photo.

    Args:
        radius: of the ball at 96 px, in the units of a picture in [0, 1].
        attack_steps: gradient steps of the search.
        lr: the highest learning rate.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, radius: float = 1.25, attack_steps: int = 2, lr: float = 0.15, width: int = 32) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = EmbeddedNetwork(10, width)
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.1)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def logits(self, network: nn.Module, images: Tensor) -> Tensor:
        """Classify pictures in [0, 1]."""
        standardised = (images - self.mean) / self.std
        logits: Tensor = network(standardised.contiguous(memory_format=torch.channels_last)).float()
        return logits

    def attacked(self, images: Tensor, labels: Tensor, radius: float, steps: int) -> Tensor:
        """Return the pictures that the network as it is now gets most wrong."""
        network = folded(self.network)
        return l2_attack(
            lambda x: nn.functional.cross_entropy(self.logits(network, x), labels, reduction="sum"),
            images,
            radius,
            steps,
        )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Learn from the attacked photos; the radius grows over the first 40 % of the run."""
        images, labels = batch
        growth = min(1.0, 0.2 + 0.8 * self.trainer.global_step / (0.4 * self.trainer.estimated_stepping_batches))
        radius = self.hparams["radius"] * growth * images.shape[-1] / FULL_SIZE
        adversarial = self.attacked(images, labels, radius, self.hparams["attack_steps"])
        logits = self.logits(self.network, adversarial)
        loss: Tensor = self.loss(logits, labels)
        if batch_idx % 10 == 0:
            self.log_dict({"train/loss": loss.detach(), "train/robust": (logits.argmax(1) == labels).float().mean()})
        return loss

    def measure(self, batch: tuple[Tensor, Tensor], steps: int, prefix: str) -> None:
        """Log clean accuracy and the accuracy under attack at radius 1.0."""
        images, labels = batch
        network = folded(self.network)
        clean = self.logits(network, images).argmax(1) == labels
        robust = self.logits(network, self.attacked(images, labels, 1.0, steps)).argmax(1) == labels
        self.log_dict(
            {f"{prefix}/clean": clean.float().mean(), f"{prefix}/robust": robust.float().mean()},
            batch_size=len(labels),
            prog_bar=True,
        )

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure under a quick attack."""
        self.measure(batch, 3, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure under the attack of the model card: 20 steps."""
        self.measure(batch, 20, "test")

    def configure_optimizers(self) -> Any:
        """One rise and fall of the learning rate; no weight decay on norms and biases."""
        decayed = [p for p in self.parameters() if p.ndim > 1]
        not_decayed = [p for p in self.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": not_decayed, "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(groups, lr=self.hparams["lr"], momentum=0.9, nesterov=True)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self.hparams["lr"],
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=0.15,
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds (or receives) imagenette2-160/")
    parser.add_argument("--download", action="store_true", help="fetch the photos (94 MB)")
    parser.add_argument("--output", type=Path, default=Path("embedded.pt"), help="where the fp16 weights go")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="folder for checkpoints and metrics")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--radius", type=float, default=1.25)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--limit", type=float, default=1.0, help="share of the batches, for a trial")
    parser.add_argument("--resume", help="a checkpoint of a stopped run with the same --epochs, to continue from")
    return parser.parse_args()


def main() -> None:
    """Train, measure, and write the weights with what a reader of them needs."""
    args = arguments()
    seed_everything(0)
    data = Photos(args.data, download=args.download)
    model = RobustClassifier(radius=args.radius).to(memory_format=torch.channels_last)
    trainer = Trainer(
        max_epochs=args.epochs,
        precision=args.precision,
        limit_train_batches=args.limit,
        limit_val_batches=args.limit,
        limit_test_batches=args.limit,
        check_val_every_n_epoch=15,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        gradient_clip_val=5.0,
        log_every_n_steps=10,
        logger=CSVLogger(args.logs, name="embedded"),
        callbacks=[ModelCheckpoint(save_last=True, save_on_train_epoch_end=True), LearningRateMonitor()],
        enable_progress_bar=False,
        inference_mode=False,  # the attack differentiates during measurements too
    )
    trainer.fit(model, data, ckpt_path=args.resume, weights_only=True)
    measured = trainer.test(model, data)[0]
    payload = {
        "state_dict": {
            name: value.half() if value.is_floating_point() else value
            for name, value in model.network.state_dict().items()
        },
        "width": model.hparams["width"],
        "classes": data.held_out.classes,
        "mean": list(MEAN),
        "std": list(STD),
        "size": FULL_SIZE,
        "accuracy": {"clean": measured["test/clean"], "robust": measured["test/robust"]},
    }
    torch.save(payload, args.output)
    print(json.dumps({"output": str(args.output), "bytes": args.output.stat().st_size, **payload["accuracy"]}))


if __name__ == "__main__":
    main()
