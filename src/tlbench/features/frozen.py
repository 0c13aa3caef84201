"""Features of a frozen backbone for a data set: which engine, in which precision, from the cache."""

import functools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base import kept
from tlbench.config.schema import Config
from tlbench.data import augmentations
from tlbench.data.augmentations import AS_IT_IS
from tlbench.data.datasets import Dataset
from tlbench.data.images import Images
from tlbench.features import engines, precisions
from tlbench.features.housekeeping import prune
from tlbench.features.store import Store
from tlbench.networks.classifiers import Classifier
from tlbench.networks.hardware import Machine, enough_memory, tf

log = logging.getLogger(__name__)

BATCH_SIZE = {"cpu": 16, "gpu": 128}  # 16 keep a CPU busy and need little memory; a GPU wants more


@dataclass(frozen=True)
class Features:
    """Pooled features of a data set's images, by row of `rows`."""

    views: list[
        np.ndarray
    ]  # (rows, width) float32 each: of the images as they are first, then their views
    position: np.ndarray  # (images of the data set,): the row of each image, -1 for none
    facts: dict[str, Any]  # for the manifest


@dataclass(frozen=True)
class _Viewed:
    """A table of images, each in one of its views."""

    images: Images
    view: Callable[[np.ndarray], np.ndarray]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.images.shape

    @property
    def ids(self) -> np.ndarray:
        return self.images.ids

    @property
    def decoding(self) -> str:
        return self.images.decoding

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: np.ndarray) -> np.ndarray:
        return self.view(self.images.batch(indices))


def _views(augment: Mapping[str, Any], images: Images) -> dict[str, Images]:
    """Every view of the images that training may draw, by its name; the images as they are come first."""
    tables = {AS_IT_IS: images}
    for name, one in augmentations.chosen(augment).items():
        tables = {
            before if view == AS_IT_IS else f"{before}, {name}={augment[name]}: {view}": (
                table if view == AS_IT_IS else _Viewed(table, change)
            )
            for before, table in tables.items()
            for view, change in one.views.items()
        }
    return tables


def compute(classifier: Classifier, dataset: Dataset, cfg: Config, machine: Machine) -> Features:
    """The features of every image that a split of the data set uses, from the cache where they are."""
    size = cfg.features.batch_size or BATCH_SIZE[machine.device]
    with enough_memory(f"features.batch_size={size}"):
        return _compute(classifier, dataset, cfg, machine, size)


def _compute(
    classifier: Classifier, dataset: Dataset, cfg: Config, machine: Machine, size: int
) -> Features:
    began = time.perf_counter()
    network = classifier.features
    rows = np.sort(np.concatenate(list(dataset.splits.values())))
    engine, why = engines.choose(cfg.features.engine, machine)
    recipe = _recipe(classifier, engine, machine, dataset.images.decoding)
    chosen, measured = precisions.choose(network, engine, cfg, machine, dataset, recipe, size)
    log.info("Frozen features by %s (%s) in %s (%s)", engine, why, chosen, measured["reason"])

    root, width = Path(cfg.features.folder), network.output_shape[-1]
    about = {
        **{"backbone": cfg.backbone.name, "weights": cfg.backbone.weights, "data": cfg.data.name},
        **{"engine": engine, "precision": chosen, "features": width},
    }

    def get(store: Store, table: Images) -> tuple[np.ndarray, int]:
        return store.get(
            table,
            rows,
            compute=lambda: engines.build(engine, network, chosen, machine, size).run,
            batch_size=size,
            memory_limit_bytes=cfg.features.memory_limit_gb * 2**30,
        )

    views, computed = [], 0
    for view, table in _views(cfg.augment, dataset.images).items():
        whole = {**recipe, "precision": chosen, "view": view}
        store = Store(root, whole, width, {**about, "view": view})
        found, anew = _once(store, dataset, functools.partial(get, store, table))
        views.append(found)
        computed += anew
    prune(root, cfg.features.limit_gb * 2**30)
    facts = {
        **{"engine": engine, "precision": chosen, **measured},
        **{"images_computed": computed, "images_reused": len(rows) * len(views) - computed},
        "seconds": time.perf_counter() - began,
    }
    return Features(views, _position(rows, len(dataset.images)), facts)


def _once(
    store: Store, dataset: Dataset, get: Callable[[], tuple[np.ndarray, int]]
) -> tuple[np.ndarray, int]:
    """Features as jobs of one process keep them, and how many of them this job had to compute."""
    computed = 0

    def make() -> np.ndarray:
        nonlocal computed
        features, computed = get()
        features.flags.writeable = False
        return features

    return kept.once(("features", store.folder, dataset.sha256), make), computed


def _position(rows: np.ndarray, images: int) -> np.ndarray:
    position = np.full(images, -1)
    position[rows] = np.arange(len(rows))
    return position


def _recipe(classifier: Classifier, engine: str, machine: Machine, decoding: str) -> dict[str, Any]:
    """All but precision and view that decides the features of an image, and nothing that does not."""
    key = ("fingerprint", classifier.backbone)
    packages = {"keras", "tensorflow", engine}  # TensorFlow makes the graph that the engine runs
    return {
        "network": kept.once(key, lambda: engines.fingerprint(classifier.features)),
        "decoding": decoding,
        "engine": engine,
        "engines": engines.VERSION,
        "device": machine.device,
        "tf32": machine.device == "gpu"
        and tf.config.experimental.tensor_float_32_execution_enabled(),
        "versions": {name: version(name) for name in sorted(packages)},
    }
