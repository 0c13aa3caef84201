"""The precision that frozen features are computed in: a lower one where it is faster and its noise is small."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.config.schema import Config
from tlbench.data.datasets import Dataset
from tlbench.data.images import Images
from tlbench.features import engines
from tlbench.features.store import remembered
from tlbench.networks.hardware import Machine, keras

log = logging.getLogger(__name__)

SAMPLE = 256  # images on which a lower precision is measured
LEAST_SPEEDUP = 1.1  # below it a lower precision is not worth any noise


def choose(
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


def kept_in(
    network: keras.Model,
    engine: str,
    precision: str,
    cfg: Config,
    machine: Machine,
    dataset: Dataset,
    recipe: dict[str, Any],
    size: int,
) -> str:
    """What maps are kept in: float16, half the bytes, where the noise of that stays below features.max_noise."""

    def compute() -> dict[str, Any]:
        every = np.sort(np.concatenate(list(dataset.splits.values())))
        sample = np.resize(np.random.default_rng(0).permutation(every), size)
        run = engines.build(engine, network, precision, machine, size).run
        (found,) = run(iter([dataset.images.batch(sample)]))
        with np.errstate(over="ignore"):  # infinite, and refused by that
            return {"noise": noise(found, found.astype(np.float16).astype(np.float32))}

    circumstances = {**recipe, "precision": precision, "kept": size, "data": dataset.fingerprint}
    found = remembered(Path(cfg.features.folder), circumstances, compute)
    return "float16" if found["noise"] <= cfg.features.max_noise else "float32"


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
