"""What a run was made from and on: recorded in its manifest, and said when it begins."""

import logging
from typing import Any

import numpy as np

from tlbench.base import kept, labels
from tlbench.base.files import atomic, write_text
from tlbench.base.text import printable
from tlbench.config.schema import Config
from tlbench.data import oddities
from tlbench.data.datasets import Dataset
from tlbench.networks import backbones, hardware, weights
from tlbench.networks.classifiers import Classifier
from tlbench.networks.summary import layer_table
from tlbench.runs import layout
from tlbench.runs.recording import Recording

log = logging.getLogger(__name__)

IMBALANCED = 3  # times as many training images of one class as of another, worth a line


def facts(
    cfg: Config,
    machine: hardware.Machine,
    precision: hardware.Precision,
    dataset: Dataset,
    classifier: Classifier,
) -> dict[str, Any]:
    """What the manifest records."""
    backbone = classifier.backbone
    return {
        "hardware": {
            **hardware.describe(),
            "device": machine.device,
            "precision": precision.policy,
            "precision_reason": precision.reason,
            "xla": machine.jit_compile,
            "repeatable": cfg.repeatable or machine.device == "cpu",
        },
        "data": {
            "name": cfg.data.name,
            "fingerprint": dataset.fingerprint,
            "contents": dataset.contents,
            "sha256": dataset.sha256,
            "test_sha256": dataset.test_sha256,
            "class_names": dataset.class_names,
            "task": cfg.data.task,
            "images": {name: len(rows) for name, rows in dataset.splits.items()},
            "unreadable": dataset.unreadable,
            "corrections": dataset.corrected,
        },
        "batch_norm": {"statistics": cfg.batch_norm.statistics},
        "weights": {
            "source": cfg.backbone.weights,
            "sha256": kept.once(("digest", backbone), lambda: weights.digest(backbone)),
            "licence": cfg.backbone.licence,
        },
        "requires": backbones.requires(backbone),
    }


def say(
    cfg: Config,
    machine: hardware.Machine,
    precision: hardware.Precision,
    dataset: Dataset,
    classifier: Classifier,
) -> None:
    """Tell of the machine, the data and its oddities, and the layers."""
    xla = "with XLA" if machine.jit_compile else "without XLA"
    log.info("Training on %s in %s (%s), %s", machine.name, precision.policy, precision.reason, xla)
    counts = ", ".join(f"{len(rows):,} {name}" for name, rows in dataset.splits.items())
    log.info("%d classes: %s images", len(dataset.class_names), counts)
    _say_imbalance(cfg, dataset)
    oddities.say(dataset)
    log.info(layer_table(classifier))


def _say_imbalance(cfg: Config, dataset: Dataset) -> None:
    """The largest and the smallest class where they are far apart, and what of it is not done yet."""
    counts = labels.counts(dataset.labels_of("train"), len(dataset.class_names))
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] < IMBALANCED * counts[least]:
        return
    ways = []
    balanced = cfg.loss.class_weights is not None or cfg.data.sampling == "balanced"
    if not balanced and cfg.head.solver != "nearest":  # whose votes count alike
        ways += ["loss.class_weights=balanced", "data.sampling=balanced"]
    if cfg.monitored() in ("val_loss", "val_accuracy"):
        ways.append("early_stopping.monitor=val_macro_f1")
    log.info(
        "Classes differ in size: '%s' has %s training images, '%s' has %s%s",
        *(printable(dataset.class_names[most]), f"{counts[most]:,}"),
        *(printable(dataset.class_names[least]), f"{counts[least]:,}"),
        f". What may help: {', '.join(ways)}" if ways else "",
    )


def write(run: Recording, dataset: Dataset, classifier: Classifier) -> None:
    """Keep the layers, and which images the run is made from: an evaluation can tell those it was trained on.

    Where the images have paths a table says so for people, and for another training on the same splits.
    """
    write_text(run.folder / layout.SUMMARY, str(layer_table(classifier)))
    ids: dict[str, Any] = {split: dataset.ids_of(split) for split in dataset.splits}
    with atomic(run.new / layout.IMAGES) as temporary:
        np.savez(temporary, **ids)
    if dataset.files is not None:
        write_text(run.new / layout.SPLIT_FILES, dataset.listing())
