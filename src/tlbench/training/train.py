"""The main path: configuration -> data -> classifier -> features of what is frozen -> stages -> figures -> run."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tlbench.base import kept, stopping
from tlbench.base.errors import ConfigError, RunError
from tlbench.config import checks
from tlbench.config.schema import Config
from tlbench.data import augmentations, datasets, index
from tlbench.data.datasets import Dataset
from tlbench.data.resize import Resize
from tlbench.data.sources import Contents
from tlbench.features import frozen
from tlbench.features.frozen import Features
from tlbench.networks import classifiers, cuts, hardware
from tlbench.networks.classifiers import Classifier
from tlbench.networks.cuts import Cut
from tlbench.networks.hardware import Machine, Precision
from tlbench.runs import layout
from tlbench.runs.recording import Recording
from tlbench.runs.run import Run
from tlbench.training import decisions, losses, recipes, results, stages, surroundings, trackers
from tlbench.training.decisions import Decisions
from tlbench.training.recipes import Choice, Recipe
from tlbench.training.resuming import Plan
from tlbench.training.stages import Trainer

log = logging.getLogger(__name__)


def train(
    cfg: Config,
    folder: Path,
    command: str,
    given: Contents | None = None,
    recipe: Recipe | None = None,
) -> Run:
    """Train what a configuration describes, and leave a finished run in the folder.

    command: what was typed, for the manifest; given: images and labels that are there already; recipe: what decides
    where the configuration leaves it to recipe=auto.
    """
    checks.check_stages(cfg)
    index.refuse_output(cfg.data, folder, "hydra.run.dir")
    if cfg.recipe != recipes.AUTO:
        return _begin(cfg, folder, command, given)
    if recipe is None:
        raise ConfigError(
            "recipe=auto chooses when the data are known: train from the settings themselves."
        )
    with kept.between_jobs():  # the data are read once
        hardware.prepare(cfg.device, cfg.seed, repeatable=cfg.repeatable)
        cfg, chosen = recipe.settle(cfg, len(read(cfg, given).splits["train"]))
        checks.check_stages(cfg)
        return _begin(cfg, folder, command, given, chosen)


def _begin(
    cfg: Config, folder: Path, command: str, given: Contents | None, chosen: Sequence[Choice] = ()
) -> Run:
    def take(facts: dict[str, Any]) -> Recording:
        return Recording.start(folder, cfg, command, facts)

    return _carry_out(cfg, Decisions(), take, given, chosen)


def go_on(plan: Plan, command: str, given: Contents | None = None) -> Run:
    """Finish a run that was interrupted, or train more epochs of a completed one, in its folder."""
    return _carry_out(
        plan.cfg,
        decisions.of(plan.run.manifest),
        lambda facts: Recording.resume(plan.run, plan.cfg, command, facts),
        given,
    )


def _carry_out(
    cfg: Config,
    decided: Decisions,
    take: Callable[[dict[str, Any]], Recording],
    given: Contents | None = None,
    chosen: Sequence[Choice] = (),
) -> Run:
    """Train and evaluate in the folder that `take` takes.

    decided: what "auto" came to when a run that goes on began: it holds to the end; chosen: by a recipe.
    """
    parts = prepared(cfg, decided, given)
    cfg, dataset, classifier, machine, precision = parts
    run = take(surroundings.facts(cfg, machine, precision, dataset, classifier))
    stopping.current().resume_command = run.resume_command
    with room_to_write(run), run, trackers.told(cfg, run.folder) as tracking:
        surroundings.say(cfg, machine, precision, dataset, classifier)
        recipes.say(chosen)
        surroundings.write(run, dataset, classifier)
        trainer = Trainer(run.folder / layout.CHECKPOINT, *parts, tracking)
        trainer.start()
        for stage in trainer.left():
            trainer.begin(stage)
            features, cut = computed_once(parts)
            if features is not None:
                run.record(features=features.facts | decided.reasons)
            trainer.fit(stage, features, cut)
        found = results.found(trainer, run)
        results.write(trainer, run, found)
        tracking.end(found)
    return Run.open(run.folder)


class Parts(NamedTuple):
    """What a training is made of before its first stage."""

    cfg: Config  # with what was decided in the place of "auto"
    dataset: Dataset
    classifier: Classifier
    machine: Machine
    precision: Precision


def prepared(cfg: Config, decided: Decisions, given: Contents | None = None) -> Parts:
    """Data and classifier of a configuration that can be trained. Raises TlbenchError for one that cannot."""
    machine = hardware.prepare(decided.device or cfg.device, cfg.seed, repeatable=cfg.repeatable)
    cfg = decided.settle(cfg, machine)
    augmentations.check(cfg)
    trackers.check(cfg)
    classifiers.check_layers(cfg)
    dataset = read(cfg, given)
    classifier = _classifier(cfg, dataset)
    stages.check(classifier, cfg)
    precision = decided.precision or hardware.training_precision(
        cfg.precision, machine, classifier.backbone
    )
    return Parts(cfg, dataset, classifier, machine, precision)


def computed_once(parts: Parts) -> tuple[Features | None, Cut | None]:
    """The features of what is frozen now, and where it ends; no features where each epoch computes them."""
    cfg, dataset, classifier, machine, _ = parts
    cut = cuts.of(classifier) if cfg.features.cache else None
    features = frozen.once(cut, dataset, cfg, machine) if cut else None
    if features is not None:
        decisions.hold(cfg, features.facts)  # for the stages that follow
    return features, cut


def read(cfg: Config, given: Contents | None = None) -> Dataset:
    """The data of a configuration; given: images and labels that are there already."""
    resize = Resize.of(cfg)
    if given is not None:
        dataset = datasets.load(cfg.data, resize, given)
    else:
        key = ("dataset", repr(replace(cfg.data, sampling="")), resize)  # jobs may draw unlike
        dataset = kept.once(key, lambda: datasets.load(cfg.data, resize))
    losses.check(dataset, cfg)
    return dataset


def _classifier(cfg: Config, dataset: Dataset) -> Classifier:
    images = len(dataset.splits["train"]) * augmentations.count(cfg.augment)
    return classifiers.build(cfg, dataset.images.shape, len(dataset.class_names), images)


@contextlib.contextmanager
def room_to_write(run: Recording) -> Iterator[None]:
    """What a full or read-only disk leaves to do; the last checkpoint is still whole."""
    try:
        yield
    except BrokenPipeError:  # nobody reads the terminal's lines any more: no matter of disks
        raise
    except OSError as error:
        where = error.filename or "the run folder"
        raise RunError(
            f"{where} cannot be written ({error.strerror or error}). Make room, then go on with: "
            f"{run.resume_command}"
        ) from error
