"""What happens where fine-tuning takes over from the probe, for each way with moving statistics.

A head is trained on the frozen backbone (2 epochs), then every layer for one epoch, then for more. The
seam is the validation loss after that first epoch, of the model as it is saved, over the probe's last.
Needs a pretrained Keras model (--weights) and a folder of pictures (--data); measure no claim about
learning on random weights.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import measure

SIDES = (
    # statistics, recalibrate, share of the first epoch's steps in which the rate rises
    ("batch", "auto", 0.0),
    ("adapted", "auto", 0.0),
    ("adapted", "auto", 0.5),
    ("frozen", "false", 0.0),
)


class Seam(NamedTuple):
    """One run: losses at the seam, and what came of it."""

    probe: float  # validation loss at the probe's end
    first: float  # after the first epoch of fine-tuning, as the model is saved
    accuracy: float  # on the test images, after all epochs


def main() -> int:
    parser = measure.parser(__doc__, timed=False)
    parser.add_argument(
        "--weights", required=True, help="a pretrained Keras model, without its top"
    )
    parser.add_argument("--data", required=True, help="a folder of pictures, one folder a class")
    parser.add_argument("--size", type=int, default=96, help="image size in pixels")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="of fine-tuning")
    parser.add_argument(
        "--preprocessing", default="{channel_order:rgb,mean:[127,127,127],std:[128,128,128]}"
    )
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as root:
        for side in SIDES:
            found = [run(asked, Path(root), *side, seed=seed) for seed in range(asked.seeds)]
            rows.append(row(side, found))
            measure.say(" | ".join(rows[-1]))
    columns = ("statistics", "warm-up", "probe", "first epoch", "seam", "test accuracy")
    about = (
        f"{asked.seeds} seeds, {asked.size} pixels, {asked.epochs} epochs; means, and the standard "
        "deviation over seeds. Seam: the first epoch's loss over the probe's."
    )
    measure.publish(asked, "seam", columns, rows, notes=[about])
    return 0


def row(side: tuple[str, str, float], found: list[Seam]) -> list[str]:
    def mean(values: list[float]) -> str:
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        return f"{statistics.fmean(values):.3f}{spread}"

    name, _, warmup = side
    figures = [[s.probe for s in found], [s.first for s in found]]
    figures += [[s.first / s.probe for s in found], [s.accuracy for s in found]]
    return [name, f"{warmup:.0%} of an epoch" if warmup else "none", *map(mean, figures)]


def run(asked, root: Path, name: str, recalibrate: str, warmup: float, *, seed: int) -> Seam:
    """Probe and one epoch, for the seam, then probe and all epochs, for the accuracy."""
    words = [
        *("data=image_folder", f"data.root={asked.data}", f"seed={seed}", "batch_size=32"),
        *(
            "backbone=file",
            f"backbone.weights={asked.weights}",
            f"backbone.image_size={asked.size}",
        ),
        *(f"backbone.preprocessing={asked.preprocessing}", "strategy=probe_finetune"),
        *(f"batch_norm.statistics={name}", f"batch_norm.recalibrate={recalibrate}"),
        *("device=cpu", "precision=float32", "features.precision=float32"),
    ]
    folders = []
    for epochs in (1, asked.epochs):
        folders.append(root / f"{name}-{warmup}-{seed}-{epochs}")
        more = [
            *(f"epochs={epochs}", f"strategy.stages.1.warmup={warmup / epochs}"),
            f"hydra.run.dir={folders[-1]}",
        ]
        subprocess.run(
            [sys.executable, "-m", "tlbench", "train", *words, *more],
            env={**os.environ, "TLBENCH_CACHE": str(root / "cache")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    with (folders[0] / "history.csv").open() as file:
        probe = [line for line in csv.DictReader(file) if line["stage"] == "probe"][-1]
    first, last = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
    return Seam(float(probe["val_loss"]), first["val_loss"], last["evaluation"])


if __name__ == "__main__":
    sys.exit(main())
