"""Find the photos that excite each channel of a trained classifier, on the pass that validates it anyway.

    python examples/training/classifier.py --data DATA
    python examples/training/top_activations.py --data DATA --checkpoint runs/classifier.ckpt

``runs/photos`` gets the patches that each channel sees, with scores and an index, and ``photos.png``: a row of photos
for each channel, framed where it looks.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import torch
from classifier import Classifier, Photos  # type: ignore[import-not-found]
from lightning.pytorch import Trainer
from torchvision.utils import draw_bounding_boxes

from featviz_pl.callbacks import TopActivations
from featviz_pl.io import contact_sheet, save_png, to_uint8


def main(arguments: list[str] | None = None) -> None:
    """Validate once, and show what excites the channels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder that holds imagenette2-160/")
    parser.add_argument("--checkpoint", default="runs/classifier.ckpt")
    parser.add_argument("--output", type=Path, default=Path("runs/photos"))
    parser.add_argument("--channels", default="net.layer2:0-7")
    parser.add_argument("--k", type=int, default=9, help="photos of each channel")
    parser.add_argument("--size", type=int, default=96, help="of the photos, as in the training")
    parser.add_argument("--workers", type=int, default=2, help="processes that read photos")
    options = parser.parse_args(arguments)

    photos = Photos(options.data, options.size, workers=options.workers)
    top_activations = TopActivations(options.channels, k=options.k, folder=options.output)
    trainer = Trainer(callbacks=[top_activations], logger=False, enable_checkpointing=False)
    trainer.validate(Classifier.load_from_checkpoint(options.checkpoint, map_location="cpu"), photos)

    framed = []
    for channel, unit in top_activations.results.items():
        for patch in unit.top:
            top, left, bottom, right = patch.box
            photo = to_uint8(photos.held_out[patch.photo][0])
            framed.append(
                draw_bounding_boxes(photo, torch.tensor([[left, top, right - 1, bottom - 1]]), colors="magenta") / 255
            )
        classes = Counter(photos.held_out.classes[photos.held_out[patch.photo][1]][0] for patch in unit.top)
        print(f"{channel}: {', '.join(f'{count} x {name}' for name, count in classes.most_common())}")
    save_png(contact_sheet(torch.stack(framed), columns=options.k), options.output / "photos.png")


if __name__ == "__main__":
    main()
