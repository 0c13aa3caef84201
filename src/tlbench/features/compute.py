"""Features of a frozen backbone for a data set: which engine, in which precision, from the cache."""

import logging
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.config.schema import Config
from tlbench.data.datasets import Dataset
from tlbench.data.images import Images
from tlbench.features import engines
from tlbench.features.housekeeping import prune
from tlbench.features.store import Store, remembered
from tlbench.networks.classifiers import Classifier
from tlbench.networks.hardware import Machine, enough_memory, keras, tf

log = logging.getLogger(__name__)

SAMPLE = 256  # images on which a lower precision is measured
BATCH_SIZE = {"cpu": 16, "gpu": 128}  # 16 keep a CPU busy and need little memory; a GPU wants more
LEAST_SPEEDUP = 1.1  # below it a lower precision is not worth any noise


@dataclass(frozen=True)
class Features:
    """Pooled features of a data set's images, by row of `rows`."""

    plain: np.ndarray  # (rows, width) float32
    mirrored: np.ndarray | None  # the same images flipped left to right, where augmentation flips
    position: np.ndarray  # (images of the data set,): the row of each image, -1 for none
    facts: dict[str, Any]  # for the manifest


@dataclass(frozen=True)
class _Mirrored:
    """A table of images, each flipped left to right."""

    images: Images

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
        return self.images.batch(indices)[:, :, ::-1]


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
    recipe = _recipe(network, engine, machine, dataset.images.decoding)
    precision, measured = _precision(network, engine, cfg, machine, dataset, recipe, size)
    log.info("Frozen features by %s (%s) in %s (%s)", engine, why, precision, measured["reason"])

    def get(table: Images, view: str) -> tuple[np.ndarray, int]:
        width = network.output_shape[-1]
        about = {
            "backbone": cfg.backbone.name,
            "weights": cfg.backbone.weights,
            "data": cfg.data.name,
            "engine": engine,
            "precision": precision,
            "view": view,
            "features": width,
        }
        whole = {**recipe, "precision": precision, "view": view}
        store = Store(Path(cfg.features.folder), whole, width, about)
        return store.get(
            table,
            rows,
            compute=lambda: engines.build(engine, network, precision, machine, size).run,
            batch_size=size,
            memory_limit_bytes=cfg.features.memory_limit_gb * 2**30,
        )

    plain, computed = get(dataset.images, "as it is")
    mirrored = None
    if cfg.augment.flip:
        mirrored, more = get(_Mirrored(dataset.images), "mirrored")
        computed += more
    prune(Path(cfg.features.folder), cfg.features.limit_gb * 2**30)
    position = np.full(len(dataset.images), -1)
    position[rows] = np.arange(len(rows))
    facts = {
        "engine": engine,
        "precision": precision,
        **measured,
        "images_computed": computed,
        "images_reused": len(rows) * (1 if mirrored is None else 2) - computed,
        "seconds": time.perf_counter() - began,
    }
    return Features(plain, mirrored, position, facts)


def _recipe(network: keras.Model, engine: str, machine: Machine, decoding: str) -> dict[str, Any]:
    """All but precision and view that decides the features of an image, and nothing that does not."""
    packages = {"keras", "tensorflow", engine}  # TensorFlow makes the graph that the engine runs
    return {
        "network": engines.fingerprint(network),
        "decoding": decoding,
        "engine": engine,
        "engines": engines.VERSION,
        "device": machine.device,
        "tf32": machine.device == "gpu"
        and tf.config.experimental.tensor_float_32_execution_enabled(),
        "versions": {name: version(name) for name in sorted(packages)},
    }


def _precision(
    network: keras.Model,
    engine: str,
    cfg: Config,
    machine: Machine,
    dataset: Dataset,
    recipe: dict[str, Any],
    size: int,
) -> tuple[str, dict[str, Any]]:
    """The precision to compute in, and the noise and speed that speak for or against the lower ones.

    Measured once for all runs on the same data and split: a speed near the limit must not let the jobs
    of a sweep come to different precisions.
    """
    asked = cfg.features.precision
    if asked == "float32":
        return asked, {"reason": "asked for", "measured": {}}
    candidates = engines.lower_precisions(engine, machine) if asked == "auto" else [asked]
    if not candidates:
        return "float32", {
            "reason": f"this {machine.device} has none that is faster",
            "measured": {},
        }

    def compute() -> dict[str, Any]:
        log.info("Measuring what %s costs and brings", " and ".join(candidates))
        every = np.sort(np.concatenate(list(dataset.splits.values())))
        sample = np.random.default_rng(0).permutation(every)[:SAMPLE]
        return measure(network, engine, candidates, machine, dataset.images, sample, size)

    asked_of = {"precisions": candidates, "batch_size": size, "processor": machine.name}
    circumstances = {**recipe, **asked_of, "data": dataset.fingerprint}
    measured = remembered(Path(cfg.features.folder), circumstances, compute)
    if asked != "auto":
        return asked, {"reason": f"asked for, {_say(measured[asked])}", "measured": measured}
    for name, figures in measured.items():
        if figures["noise"] <= cfg.features.max_noise and figures["speedup"] >= LEAST_SPEEDUP:
            return name, {"reason": _say(figures), "measured": measured}
    refused = "; ".join(f"{name} refused: {_say(figures)}" for name, figures in measured.items())
    return "float32", {"reason": refused, "measured": measured}


def _say(figures: dict[str, float]) -> str:
    told = f"noise {figures['noise']:.2%} of the variance between images"
    if np.isnan(figures["noise"]):
        told = "features hardly vary between images, so noise cannot be told"
    return f"{told}, {figures['speedup']:.1f}x as fast"


def measure(
    network: keras.Model,
    engine: str,
    precisions: list[str],
    machine: Machine,
    images: Images,
    sample: np.ndarray,
    batch_size: int,
) -> dict[str, dict[str, float]]:
    """Noise and speed of lower precisions against float32 on the same images.

    noise: the mean over features of (mean squared error / variance between images); speedup: of the
    throughput after the first batch, which carries the compilation.
    """
    batches = [
        images.batch(np.resize(sample[i : i + batch_size], batch_size))
        for i in range(0, len(sample), batch_size)
    ]

    def run(precision: str) -> tuple[np.ndarray, float]:
        built = engines.build(engine, network, precision, machine, batch_size)
        next(built.run(iter(batches[:1])))
        began = time.perf_counter()
        found = np.concatenate(list(built.run(iter(batches))))
        return found, time.perf_counter() - began

    exact, exact_seconds = run("float32")
    figures = {}
    for precision in precisions:
        found, seconds = run(precision)
        figures[precision] = {"noise": noise(exact, found), "speedup": exact_seconds / seconds}
    return figures


def noise(exact: np.ndarray, found: np.ndarray) -> float:
    """Mean over features of the squared error as a share of the variance between images.

    Both: (images, features). Features that are the same in every image carry nothing and are left out.
    """
    variance = exact.var(axis=0, dtype=np.float64)
    error = np.square(found.astype(np.float64) - exact).mean(axis=0)
    carries = variance > 1e-12
    return float((error[carries] / variance[carries]).mean()) if carries.any() else float("nan")
