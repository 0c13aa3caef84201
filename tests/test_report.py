"""`tlbench report` on run folders written by hand in the format of real ones. No TensorFlow."""

import copy
import csv
import functools
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from tlbench import artifacts, cli, comparison, config, evaluation, hydra_app, rows, svg, tables
from tlbench.errors import RunError
from tlbench.run import Run, write_json

CLASSES = [f"class {i}" for i in range(20)]


@functools.cache
def _composed(overrides: tuple[str, ...]) -> config.Config:
    with initialize_config_dir(str(hydra_app.conf_dir()), version_base="1.3"):
        return config.load(compose("train", list(overrides)))


def make_run(
    folder: Path,
    *overrides: str,
    evaluation_target: float = 0.8,
    parameters: int = 1_000_000,
    seconds: float = 60.0,
    images: int = 10_000,
    classes: Sequence[str] = CLASSES,
    status: str = "completed",
    reason: str = "",
    fingerprint: str = "0123456789abcdef",
) -> Path:
    """A run folder as `train` leaves it, with predictions of about the accuracy asked for."""
    cfg = copy.deepcopy(_composed(overrides))
    splits = {"train": 45_000, "validation": 5_000, "test": images}
    facts = {
        "hardware": {"processor": "test", "device": "cpu", "precision": "float32"},
        "data": {
            "name": cfg.data.name,
            "fingerprint": fingerprint,
            "class_names": list(classes),
            "images": splits,
        },
    }
    run = Run.start(folder, cfg, "tlbench train " + " ".join(overrides), facts)
    if status != "running":
        run.record(status=status, **({"reason": reason} if reason else {}))
    if status != "completed":
        return folder
    draw = np.random.default_rng([cfg.seed, *folder.name.encode()])
    labels = np.arange(images) % len(classes)
    wrong = draw.random(images) >= evaluation_target
    taken = np.where(
        wrong, (labels + draw.integers(1, len(classes), images)) % len(classes), labels
    )
    probabilities = np.full((images, len(classes)), 0.1 / len(classes), np.float32)
    probabilities[np.arange(images), taken] += 0.9
    np.savez_compressed(folder / "predictions.npz", labels=labels, probabilities=probabilities)
    found = {
        **{"parameters": parameters, "accuracy": evaluation_target + 0.05, "epochs": 5},
        "val_accuracy": evaluation_target + 0.01,
        **evaluation.metrics(labels, probabilities, list(classes)),
        **{"training_seconds": seconds, "images_per_second": 45_000 * 5 / seconds},
    }
    write_json(folder / "metrics.json", found)
    lines = ["stage,epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds"]
    for epoch in range(1, 6):
        share = evaluation_target * (1 - 0.6**epoch)
        lines.append(f"train,{epoch},{2 - share},{share},{2.1 - share},{share - 0.02},0.001,12")
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    (folder / "model.keras").write_bytes(b"0" * 1000)
    return folder
