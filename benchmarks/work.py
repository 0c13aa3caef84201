"""One piece of work as both sides do it: a network, images, epochs, and the command of each side."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cifar_like
import measure
import plain_keras


@dataclass(frozen=True)
class Network:
    """A backbone by its names, with the head that the report gave it."""

    name: str  # of its file in conf/backbone
    application: str  # as plain_keras.py calls it
    widths: tuple[int, ...]
    features: int
    last: str  # the first layer of its last stage, or of its last three blocks

    @property
    def words(self) -> tuple[str, str]:
        """As tlbench is told it."""
        weights = plain_keras.SMALL if self.name == "file" else "null"
        return f"backbone={self.name}", f"backbone.weights={weights}"


NETWORKS = {
    "resnet50": Network("resnet50", "ResNet50", (1024, 512), 2048, "conv5_block1_1_conv"),
    "mobilenetv3": Network(
        "mobilenetv3", "MobileNetV3Large", (512, 512, 512), 960, "expanded_conv_12_expand"
    ),
    "small": Network("file", "small", (16,), 64, "conv_2"),  # for trying the scripts
}


@dataclass(frozen=True)
class Sizes:
    """Images in each split."""

    train: int
    validation: int
    test: int

    def passes(self, epochs: int) -> int:
        """Images that the backbone sees in a training that caches nothing."""
        return epochs * (self.train + self.validation) + self.test

    def __str__(self) -> str:
        return f"{self.train:,}/{self.validation:,}/{self.test:,}"


FULL = Sizes(45_000, 5_000, 10_000)  # CIFAR-100's
TENTH = Sizes(4_500, 500, 1_000)  # in the same proportions
SLICE = Sizes(384, 64, 64)  # what plain Keras really runs of either
SLICE_EPOCHS = 6  # the first carries the compilation, the median of the others is the rate
LEAST = Sizes(180, 20, 40)  # one validation image of each class


@dataclass(frozen=True)
class Work:
    """A training of the head, or of the last layers too; `measured` is what plain Keras really runs of it."""

    network: Network
    root: Path
    sizes: Sizes
    measured: Sizes
    epochs: int
    image_size: int
    batch_size: int = 64
    last_layers: bool = False

    @property
    def first(self) -> str:
        """The first layer that trains; "false": the head alone."""
        return self.network.last if self.last_layers else "false"

    def write_images(self) -> None:
        cifar_like.write(self.root, self.sizes.train + self.sizes.validation, self.sizes.test)

    @property
    def extrapolated(self) -> bool:
        return self.sizes != self.measured

    def plain(self) -> measure.Outcome:
        """Run plain Keras's script; seconds are of the whole work, see `_whole`."""
        epochs = SLICE_EPOCHS if self.extrapolated else self.epochs
        words: list[object] = [
            *(sys.executable, Path(__file__).with_name("plain_keras.py")),
            *("--application", self.network.application, "--image-size", self.image_size),
            *("--widths", *self.network.widths, "--root", self.root),
            *("--slice", *vars(self.measured).values()),
            *("--epochs", epochs, "--batch-size", self.batch_size, "--first", self.first),
        ]
        outcome = measure.process([str(word) for word in words])
        return self._whole(outcome) if self.extrapolated else outcome

    def _whole(self, outcome: measure.Outcome) -> measure.Outcome:
        """A measured slice -> the whole: what is not training once, each image at the slice's rate.

        The rate is the median epoch's after the first, which carries the compilation.
        """
        told = json.loads(outcome.out.splitlines()[-1])

        def whole(total: float, each_epoch: list[float]) -> float:
            _, *epochs = each_epoch
            each = measure.median(epochs) / (self.measured.train + self.measured.validation)
            fixed = total - sum(epochs) - each * self.measured.passes(epochs=1)
            return fixed + each * self.sizes.passes(self.epochs)

        return replace(
            outcome,
            seconds=whole(outcome.seconds, told["epochs"]),
            cpu=whole(outcome.cpu, told["cpu"]),
        )

    def tlbench(
        self, cache: Path, folder: Path, engine: str, precision: str, more: Sequence[str] = ()
    ) -> measure.Outcome:
        """Run `tlbench train` with a cache and an output folder of its own."""
        words = [
            *(sys.executable, "-m", "tlbench", "train", *more),
            *(
                "data=cifar100",
                f"data.root={self.root}",
                f"data.validation={self.sizes.validation}",
            ),
            *(*self.network.words, f"trainable={self.first}"),
            *(f"backbone.image_size={self.image_size}", f"epochs={self.epochs}"),
            *(f"batch_size={self.batch_size}", f"features.engine={engine}"),
            *(f"features.precision={precision}", f"hydra.run.dir={folder}"),
            f"hydra.sweep.dir={folder}",
            *(() if more else (f"head.widths={list(self.network.widths)}".replace(" ", ""),)),
        ]
        return measure.process(words, environment={"TLBENCH_CACHE": str(cache)})


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """The flags of the size of the work."""
    parser.add_argument("--full", action="store_true", help=f"{FULL} images, not {TENTH}")
    parser.add_argument("--image-size", type=int, default=224, help="a multiple of 32")
    parser.add_argument("--epochs", type=int, default=5)
    choices = ["resnet50", "mobilenetv3"]
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=choices)


def works(args: argparse.Namespace, root: Path) -> Iterator[Work]:
    """The work of each network, its images written; plain Keras is measured on a slice of it."""
    sizes, measured = (FULL if args.full else TENTH), SLICE
    names, epochs, image_size = args.networks, args.epochs, args.image_size
    if args.tiny:
        sizes, measured, names, epochs, image_size = LEAST, LEAST, ["small"], 2, 32
    for name in names:
        work = Work(NETWORKS[name], root / name, sizes, measured, epochs, image_size)
        work = replace(work, last_layers=getattr(args, "last_layers", False))
        work.write_images()
        yield work


def size_notes(work: Work) -> list[str]:
    """What stands under a table about the size of the work."""
    notes = [f"{work.sizes} training/validation/test images of 32 x 32, {work.epochs} epochs."]
    if work.extrapolated:
        notes.append(
            f"Plain Keras is extrapolated: start-up and a rate of images a second, the median of {SLICE_EPOCHS - 1} "
            f"epochs of {work.measured} images before and as many after tlbench's runs, times the images of the "
            "whole. tlbench's runs are whole."
        )
    return notes


def in_precisions(asked: str | None, run: Callable[[str], str]) -> None:
    """Run in the precision that auto chooses and, where that is a lower one, in float32 as well.

    asked: "auto" or "float32" for that alone, None for both; run: "auto" or "float32" -> what it was.
    """
    chosen = run("auto") if asked != "float32" else None
    if chosen != "float32" and asked != "auto":
        run("float32")


def label(facts: dict[str, Any], asked: str) -> str:
    """Engine and precision, and whether the precision was chosen."""
    chosen = " (auto)" if asked == "auto" else ""
    return f"{facts['engine']}, {facts['precision']}{chosen}"


def facts_of(folder: Path) -> dict[str, Any]:
    """What a run says of its features: engine, precision, images_computed..."""
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["features"]


def engines() -> list[str]:
    """The feature engines that are installed."""
    return ["tensorflow", *(["openvino"] if measure.installed("openvino") else [])]
