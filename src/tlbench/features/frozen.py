"""Features of a frozen backbone for a data set: which engine, in which precision, from the cache."""

import functools
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base import kept
from tlbench.config import names
from tlbench.config.identity import flat
from tlbench.config.schema import Config
from tlbench.data import augmentations
from tlbench.data.augmentations import AS_IT_IS
from tlbench.data.datasets import Dataset
from tlbench.data.images import Images
from tlbench.features import engines, precisions
from tlbench.features.housekeeping import prune
from tlbench.features.store import Store, remembered
from tlbench.networks.cuts import Cut
from tlbench.networks.hardware import Machine, enough_memory, keras, tf

log = logging.getLogger(__name__)

BATCH_SIZE = {"cpu": 16, "gpu": 128}  # 16 keep a CPU busy and need little memory; a GPU wants more

SPEED_SAMPLE = 64  # images on which the speed is measured


@dataclass(frozen=True)
class Features:
    """What the frozen part of a classifier makes of a data set's images, by row of `rows`."""

    # (rows, width) float32 each, or maps, float32 or float16: of the images as they are first, then their views
    views: list[np.ndarray]
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


def _views(augment: Mapping[str, Any], seed: int, images: Images) -> dict[str, Images]:
    """Every view of the images that training may draw, by its name; the images as they are come first."""
    tables = {AS_IT_IS: images}
    for name, one in augmentations.chosen(augment, seed).items():
        told = (
            "" if name == augmentations.VIEWS else f"{name}={augment[name]}: "
        )  # more of them: the same first ones
        tables = {
            before if view == AS_IT_IS else f"{before}, {told}{view}": (
                table if view == AS_IT_IS else _Viewed(table, change)
            )
            for before, table in tables.items()
            for view, change in one.views.items()
        }
    return tables


@dataclass(frozen=True)
class Way:
    """How the features of a data set are computed: all that is decided before the first image."""

    network: keras.Model  # from pixels to features, or to maps
    engine: str
    precision: str
    recipe: dict[str, Any]
    facts: dict[str, Any]  # what was measured, for the manifest
    size: int  # images at a time
    machine: Machine
    kind: str  # in which they are kept: "float32", or "float16" for maps where that adds no noise to speak of
    seconds: float  # that it took to decide

    def build(self) -> engines.FeatureEngine:
        """The engine, ready to run."""
        return engines.build(self.engine, self.network, self.precision, self.machine, self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is kept of an image."""
        return tuple(self.network.output_shape[1:])

    def bytes(self, dataset: Dataset, cfg: Config) -> int:
        """What the features of every image of a split take, in all its views."""
        images = sum(len(rows) for rows in dataset.splits.values())
        views = augmentations.count(cfg.augment)
        return images * views * math.prod(self.shape) * np.dtype(self.kind).itemsize

    def store(self, cfg: Config, view: str = AS_IT_IS) -> Store:
        """Where the features of one view are kept."""
        settings, width = flat(asdict(cfg)), math.prod(self.shape)
        about = {
            **{"backbone": names.backbone(settings), "weights": cfg.backbone.weights},
            **{"data": names.data(settings), "engine": self.engine, "precision": self.precision},
            **{"features": width, "view": view},
        }
        whole = {**self.recipe, "precision": self.precision, "view": view}
        if self.kind != "float32":
            whole["kind"] = self.kind
        return Store(Path(cfg.features.folder), whole, width, about, self.kind)


def way(cut: Cut, dataset: Dataset, cfg: Config, machine: Machine) -> Way:
    """The engine and the precision for a data set on this machine."""
    began = time.perf_counter()
    size = cfg.features.batch_size or BATCH_SIZE[machine.device]
    network = cut.prefix
    with enough_memory(f"features.batch_size={size}"):
        engine, why = engines.choose(cfg.features.engine, machine)
        # The backbone is all that jobs of one process share of a classifier.
        key = ("fingerprint", cut.backbone, cut.layer)
        fingerprint = kept.once(key, lambda: engines.fingerprint(network))
        recipe = _recipe(fingerprint, engine, machine, dataset.images.decoding)
        chosen, facts = precisions.choose(network, engine, cfg, machine, dataset, recipe, size)
        kind = "float32" if cut.layer is None else cfg.features.storage or "float32"
        if kind == "auto":
            kind = precisions.kept_in(network, engine, chosen, cfg, machine, dataset, recipe, size)
    log.info("Frozen features by %s (%s) in %s (%s)", engine, why, chosen, facts["reason"])
    seconds = time.perf_counter() - began
    return Way(network, engine, chosen, recipe, facts, size, machine, kind, seconds)


def once(cut: Cut, dataset: Dataset, cfg: Config, machine: Machine) -> Features | None:
    """What a frozen part makes of all images, from the cache where it is there; None where that is not worth it.

    Maps are not where they would take more bytes than the cache may have, where each epoch draws other images, and
    where features.storage is null.
    """
    if cut.layer is not None and cfg.features.storage is None:
        return None
    if cut.layer is not None and any(
        one.endless for one in augmentations.chosen(cfg.augment).values()
    ):
        log.info(
            "What is frozen is computed every epoch: augmentation draws other images each time"
        )
        return None
    chosen = way(cut, dataset, cfg, machine)
    needed, limit = chosen.bytes(dataset, cfg), cfg.features.limit_gb * 2**30
    if cut.layer is not None:
        what = f"What lies below {cut.layer} is frozen: {needed / 2**30:.2f} GiB of maps in {chosen.kind}"
        if needed > limit:
            log.info(
                "%s, over features.limit_gb=%g: it is computed every epoch",
                *(what, cfg.features.limit_gb),
            )
            return None
        log.info("%s, computed once", what)
    elif augmentations.VIEWS in augmentations.chosen(cfg.augment):
        views = augmentations.count(cfg.augment)
        log.info("%d views of each image: %.2f GiB of features", views, needed / 2**30)
    found = compute(chosen, dataset, cfg)
    if cut.layer is not None:
        found.facts.update(layer=cut.layer, storage=chosen.kind, bytes=needed)
    return found


def compute(way: Way, dataset: Dataset, cfg: Config, rows: np.ndarray | None = None) -> Features:
    """The features of rows, None for every image of a split, from the cache where they are."""
    began = time.perf_counter()
    rows = np.sort(np.concatenate(list(dataset.splits.values())) if rows is None else rows)

    def get(store: Store, table: Images) -> tuple[np.ndarray, int]:
        return store.get(
            table,
            rows,
            compute=lambda: way.build().run,
            batch_size=way.size,
            memory_limit_bytes=cfg.features.memory_limit_gb * 2**30,
        )

    views, computed = [], 0
    with enough_memory(f"features.batch_size={way.size}"):
        for view, table in _views(cfg.augment, cfg.seed, dataset.images).items():
            store = way.store(cfg, view)
            found, anew = _once(store, dataset, rows, functools.partial(get, store, table))
            views.append(found.reshape(len(rows), *way.shape))
            computed += anew
    prune(Path(cfg.features.folder), cfg.features.limit_gb * 2**30)
    facts = {
        **{"engine": way.engine, "precision": way.precision, **way.facts},
        **{"images_computed": computed, "images_reused": len(rows) * len(views) - computed},
        "seconds": way.seconds + time.perf_counter() - began,
    }
    return Features(views, _position(rows, len(dataset.images)), facts)


def missing(way: Way, dataset: Dataset, cfg: Config) -> int:
    """How many images of the splits the cache does not hold yet, as they are."""
    rows = np.concatenate(list(dataset.splits.values()))
    return way.store(cfg).lacking(dataset.images, rows)


def images_per_second(way: Way, dataset: Dataset, cfg: Config) -> float:
    """Throughput of a way over images in memory, after the first batch; measured once on a machine."""

    def measured() -> dict[str, Any]:
        run, rows = way.build().run, dataset.splits["train"]
        batch = dataset.images.batch(np.resize(rows, way.size))
        next(run(iter([batch])))
        began = time.perf_counter()
        count = sum(len(found) for found in run(iter([batch] * (1 + SPEED_SAMPLE // way.size))))
        return {"images_per_second": count / (time.perf_counter() - began)}

    circumstances = {"precision": way.precision, "batch_size": way.size, "speed": way.machine.name}
    found = remembered(Path(cfg.features.folder), {**way.recipe, **circumstances}, measured)
    return float(found["images_per_second"])


def _once(
    store: Store, dataset: Dataset, rows: np.ndarray, get: Callable[[], tuple[np.ndarray, int]]
) -> tuple[np.ndarray, int]:
    """Features as jobs of one process keep them, and how many of them this job had to compute."""
    computed = 0

    def make() -> np.ndarray:
        nonlocal computed
        features, computed = get()
        features.flags.writeable = False
        return features

    return kept.once(("features", store.folder, dataset.sha256, rows.tobytes()), make), computed


def _position(rows: np.ndarray, images: int) -> np.ndarray:
    position = np.full(images, -1)
    position[rows] = np.arange(len(rows))
    return position


def _recipe(fingerprint: str, engine: str, machine: Machine, decoding: str) -> dict[str, Any]:
    """All but precision and view that decides the features of an image, and nothing that does not."""
    packages = {"keras", "tensorflow", engine}  # TensorFlow makes the graph that the engine runs
    return {
        "network": fingerprint,
        "decoding": decoding,
        "engine": engine,
        "engines": engines.VERSION,
        "device": machine.device,
        "tf32": machine.device == "gpu"
        and tf.config.experimental.tensor_float_32_execution_enabled(),
        "versions": {name: version(name) for name in sorted(packages)},
    }
