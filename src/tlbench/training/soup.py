"""A greedy soup: the mean of the weights of several models, while validation does not get worse.

Wortsman et al. 2022 (arXiv 2203.05482): models that were fine-tuned from the same start in other ways are averaged,
the best one first; the mean costs no more to run than any of them.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base.errors import RunError
from tlbench.config.schema import SOUP, Config
from tlbench.networks import classifiers, hardware
from tlbench.networks.hardware import keras
from tlbench.runs import layout, metrics
from tlbench.runs.recording import Recording
from tlbench.runs.run import Run
from tlbench.training import results, surroundings, trackers
from tlbench.training.stages import Trainer
from tlbench.training.train import read, room_to_write

log = logging.getLogger(__name__)

Weights = list[np.ndarray]


def soup(runs: Sequence[Run], folder: Path, command: str) -> Run:
    """Average what makes validation no worse, and leave a finished run in the folder.

    runs: completed ones; those of another network or of other splits than the best are left out, which is said.
    Raises RunError where fewer than two are left, or their images have changed.
    """
    best, *others = members(runs)
    cfg = best.config()
    cfg = replace(cfg, strategy=replace(cfg.strategy, name=SOUP), resume=None, published=None)
    device = best.manifest.get("hardware", {}).get("device", cfg.device)
    machine = hardware.prepare(device, cfg.seed, repeatable=cfg.repeatable)
    dataset = read(cfg)
    if dataset.fingerprint != best.manifest["data"]["fingerprint"]:
        raise RunError(
            f"The images of {best.folder} are others now: what a mean is worth is told by its own validation images. "
            "Put them back as they were."
        )
    images = len(dataset.splits["train"])
    classifier = classifiers.build(
        _without_download(cfg), dataset.images.shape, len(dataset.class_names), images
    )
    precision = hardware.Precision("float32", "a mean is exact")
    facts = surroundings.facts(cfg, machine, precision, dataset, classifier)
    run = Recording.start(folder, cfg, command, facts)
    with room_to_write(run), run, trackers.told(cfg, run.folder) as tracking:
        surroundings.write(run, dataset, classifier)
        trainer = Trainer(None, cfg, dataset, classifier, machine, precision, tracking)
        taken = _mix([best, *others], trainer)
        run.record(soup=[str(one.folder) for one in taken])
        found = results.found(trainer, run)
        results.write(trainer, run, found)
        tracking.end(found)
    return Run.open(run.folder)


def members(runs: Sequence[Run]) -> list[Run]:
    """The runs that can be averaged with the best of them, from the best validation accuracy down."""
    own = [run for run in runs if run.config().strategy.name != SOUP]
    ranked = sorted(own, key=lambda run: -run.metrics["val_accuracy"])
    found: list[Run] = []
    for run in ranked:
        if odd := _unlike(run, found[0]) if found else _no_weights(run):
            log.info("Left out %s: %s", run.folder, odd)
        else:
            found.append(run)
    if len(found) < 2:
        raise RunError(
            f"A soup needs two runs at least of one network on the same images, and {len(found)} can be averaged. "
            "A sweep makes them: tlbench train --multirun seed=0,1,2"
        )
    return found


def _no_weights(run: Run) -> str:
    solver = run.config().head.solver
    return "a head of neighbours has no mean" if solver == "nearest" else ""


def _unlike(run: Run, best: Run) -> str:
    """Why a run cannot be averaged with the best, "" where it can."""
    one, other = run.config(), best.config()
    if run.manifest["data"]["fingerprint"] != best.manifest["data"]["fingerprint"]:
        return f"its images or their splits are others than those of {best.folder}"
    network = (one.backbone, one.head.widths, one.head.solver == "nearest")
    if network != (other.backbone, other.head.widths, False):
        return f"it is another network than {best.folder}"
    return ""


def _without_download(cfg: Config) -> Config:
    """Weights come from the runs; of a network in a file they are the network."""
    if cfg.backbone.builder == "file":
        return cfg
    return replace(cfg, backbone=replace(cfg.backbone, weights=None))


def _mix(runs: Sequence[Run], trainer: Trainer) -> list[Run]:
    """Give the trainer's classifier the mean of all that help, and record each try as an epoch; those that do."""
    model, state = trainer.classifier.model, trainer.state
    taken, total, best = list[Run](), list[np.ndarray](), -1.0
    for number, run in enumerate(runs, 1):
        began = time.perf_counter()
        weights = _weights(run, model)
        tried = [_sum(*pair) for pair in zip(total, weights, strict=True)] if total else weights
        _set(model, tried, len(taken) + 1)
        figures = _figures(trainer)
        helps = figures["val_accuracy"] >= best
        if helps:
            taken, total, best, state.kept = [*taken, run], tried, figures["val_accuracy"], number
        seconds = time.perf_counter() - began
        state.history.append({"stage": SOUP, "epoch": number, **figures, "seconds": seconds})
        state.seconds += seconds
        log.info(
            "%s %d/%d  val %.4f  %s %s",
            *(SOUP, number, len(runs), figures["val_accuracy"]),
            *("with" if helps else "without", run.folder),
        )
    _set(model, total, len(taken))
    return taken


def _sum(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one + other if one.dtype.kind == "f" else one  # states of generators are no weights


def _weights(run: Run, model: keras.Model) -> Weights:
    """A run's weights, in float64 to be summed."""
    found = keras.models.load_model(run.file(layout.MODEL), compile=False).get_weights()
    if [one.shape for one in found] != [one.shape for one in model.get_weights()]:
        raise RunError(f"{run.folder}: its model is not what its settings describe.")
    return [one.astype(np.float64) if one.dtype.kind == "f" else one for one in found]


def _set(model: keras.Model, total: Weights, count: int) -> None:
    means = [one / count if one.dtype.kind == "f" else one for one in total]
    own = model.get_weights()
    model.set_weights([mean.astype(one.dtype) for mean, one in zip(means, own, strict=True)])


def _figures(trainer: Trainer) -> dict[str, Any]:
    """Loss and accuracy on validation images and on a sample of those that were trained on."""
    dataset = trainer.dataset
    splits, found = dataset.splits, dict[str, Any]()
    parts = {"": results.sample(splits["train"], trainer.cfg.seed), "val_": splits["validation"]}
    for prefix, rows in parts.items():
        given = results.predict(trainer, rows)
        found[f"{prefix}loss"] = metrics.loss(dataset.labels[rows], given)
        found[f"{prefix}accuracy"] = metrics.accuracy(dataset.labels[rows], given, None)
    return found
