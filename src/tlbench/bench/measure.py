"""One row of a bench: a backbone on a data set, or what zero looks like there."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tlbench.base import labels
from tlbench.base.draws import seed_for
from tlbench.bench import draws, probes
from tlbench.bench.cells import MAJORITY, PIXELS, PRETRAINED, SHUFFLED, Cell
from tlbench.bench.entries import Entry
from tlbench.bench.settings import Settings
from tlbench.config.schema import Config
from tlbench.data import datasets
from tlbench.data.datasets import Dataset
from tlbench.data.resize import Resize
from tlbench.features import frozen
from tlbench.features.frozen import Way
from tlbench.networks import classifiers, cuts
from tlbench.networks.classifiers import Classifier
from tlbench.networks.hardware import Machine, keras
from tlbench.probing import threads
from tlbench.probing.design import Design, taken
from tlbench.training.latency import latency_ms

log = logging.getLogger(__name__)

Told = Callable[[float], object]  # of a share of the work that is done


@dataclass(frozen=True)
class Network:
    """A backbone with all that its features need."""

    classifier: Classifier
    way: Way


def built(cfg: Config, dataset: Dataset, machine: Machine) -> Network:
    """The backbone of a configuration, and how its features are computed on this machine."""
    keras.backend.clear_session()
    classifier = classifiers.build(cfg, dataset.images.shape, len(dataset.class_names))
    return Network(classifier, frozen.way(cuts.pooled(classifier), dataset, cfg, machine))


def pretrained(
    entry: Entry, dataset: Dataset, network: Network, settings: Settings, told: Told
) -> Cell:
    """A pretrained backbone by every probe, with what it costs."""
    cfg = entry.cfg
    found = frozen.compute(network.way, dataset, cfg)
    told(0.5)
    began = time.perf_counter()
    answers = _answers(found.views[0], found.position, dataset, cfg, settings, told)
    facts = {
        "features_seconds": found.facts["seconds"],
        "probing_seconds": time.perf_counter() - began,
        "pretrained_on": pretrained_on(cfg),
        "parameters": network.classifier.backbone.count_params(),
        "features": network.way.network.output_shape[-1],
        "images_per_second": frozen.images_per_second(network.way, dataset, cfg),
        "latency_ms": latency_ms(network.classifier, dataset, cfg, network.way.machine),
        "engine": network.way.engine,
        "precision": network.way.precision,
        "strength": answers.strength,
        "image_size": cfg.backbone.image_size,
    }
    return Cell(PRETRAINED, entry.backbone, entry.data, facts, answers.images, answers.right)


def pretrained_on(cfg: Config) -> str:
    """What a backbone's weights have seen, as far as its configuration says."""
    weights = cfg.backbone.weights
    if weights is None:
        return "nothing"
    if weights == "imagenet":
        return "ImageNet-1k"
    return cfg.backbone.preset or weights if weights == "preset" else weights.rpartition("/")[2]


# ---------------------------------------------------------------- what zero looks like


def raw_pixels(entry: Entry, dataset: Dataset, settings: Settings, told: Told) -> Cell:
    """No network: the values of small images, by the same probes."""
    cfg = entry.cfg
    dataset = datasets.at(dataset, Resize(settings.pixels, cfg.data.resize, "bilinear"), cfg.data)
    every = np.sort(np.concatenate(list(dataset.splits.values())))
    pixels = np.concatenate([dataset.images.batch(rows) for rows in np.array_split(every, 64)])
    position = np.full(len(dataset.images), -1)
    position[every] = np.arange(len(every))
    told(0.5)
    table = pixels.reshape(len(pixels), -1).astype(np.float32) / 255
    answers = _answers(table, position, dataset, cfg, settings, told)
    facts = {"features": table.shape[1], "strength": answers.strength}
    return Cell(PIXELS, "", entry.data, facts, answers.images, answers.right)


def shuffled_labels(
    entry: Entry, dataset: Dataset, network: Network, settings: Settings, told: Told
) -> Cell:
    """The features of a backbone with labels that mean nothing: what the probes find where there is nothing."""
    rng = np.random.default_rng(seed_for(entry.cfg.seed, "shuffled labels"))
    shuffled = dataset.labels.copy()
    for split in ("train", "validation"):
        shuffled[dataset.splits[split]] = rng.permutation(shuffled[dataset.splits[split]])
    meaningless = replace(dataset, labels=shuffled)
    found = frozen.compute(network.way, dataset, entry.cfg)
    told(0.5)
    answers = _answers(found.views[0], found.position, meaningless, entry.cfg, settings, told)
    facts = {"strength": answers.strength}
    return Cell(SHUFFLED, entry.backbone, entry.data, facts, answers.images, answers.right)


def majority_class(entry: Entry, dataset: Dataset) -> Cell:
    """Always the label that most training images have: their class, or all their classes together."""
    kinds, classes = labels.kinds(dataset.labels), len(dataset.class_names)
    most = int(np.bincount(kinds[dataset.splits["train"]]).argmax())
    right = (kinds[dataset.splits["test"]] == most)[None]
    images = {probes.ALL: len(dataset.splits["train"])}
    chance = 2.0**-classes if labels.several(dataset.labels) else 1 / classes
    facts = {"strength": None, "chance": chance}
    return Cell(MAJORITY, "", entry.data, facts, images, {probes.ALL: right})


# ---------------------------------------------------------------- looking first


def screened(way: Way, dataset: Dataset, cfg: Config, settings: Settings) -> float:
    """Accuracy on a few test images after a few training images: enough to see what is promising."""
    rows = dataset.splits["train"]
    places = draws.order(labels.leading(dataset.labels[rows]), cfg.seed, 0)
    train = rows[draws.shots(places, settings.screened_shots)]
    rng = np.random.default_rng(seed_for(cfg.seed, "screened tests"))
    test = rng.permutation(dataset.splits["test"])[: settings.screened_tests]
    some = replace(dataset, splits={"train": train, "validation": test, "test": test})
    found = frozen.compute(way, some, cfg, np.union1d(train, test))
    table, position = found.views[0], found.position
    return probes.screen(
        *(_design(table, position, some, "train"), _design(table, position, some, "test")),
        settings,
    )


def _answers(
    table: np.ndarray,
    position: np.ndarray,
    dataset: Dataset,
    cfg: Config,
    settings: Settings,
    told: Told,
) -> probes.Answers:
    designs = [_design(table, position, dataset, split) for split in datasets.SPLITS]
    train, validation, test = designs
    with threads.over_blocks():
        return probes.answers(
            *(train, validation, test, cfg, settings), lambda share: told(0.5 + 0.5 * share)
        )


def _design(table: np.ndarray, position: np.ndarray, dataset: Dataset, split: str) -> Design:
    images, weights = dataset.splits[split], dataset.weights
    return Design(
        [taken(table, position[images])],
        dataset.labels_of(split),
        len(dataset.class_names),
        weights[images] if split == "train" and weights is not None else None,
    )
