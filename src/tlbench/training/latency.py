"""How long one image takes, measured once for a network on a machine and remembered."""

import hashlib
import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tlbench.config.schema import Config
from tlbench.data.datasets import Dataset
from tlbench.features.engines import nameless
from tlbench.features.store import remembered
from tlbench.networks.classifiers import Classifier
from tlbench.networks.hardware import Machine, tf

REPEATS = 11


def latency_ms(classifier: Classifier, dataset: Dataset, cfg: Config, machine: Machine) -> float:
    """Median milliseconds for one image at a time through the whole model, after a first that compiles.

    It depends on the layers and the machine, not on weights: so runs that share both share the measurement.
    """
    layers = json.dumps(nameless(classifier.model.get_config()), sort_keys=True)
    recipe = {
        "latency": hashlib.sha256(layers.encode()).hexdigest(),
        "machine": [machine.name, machine.device],
        "versions": {name: version(name) for name in ("keras", "tensorflow")},
    }
    image = dataset.images.batch(dataset.splits["test"][:1])
    measured = remembered(
        Path(cfg.features.folder), recipe, lambda: {"latency_ms": _measured(classifier, image)}
    )
    return float(measured["latency_ms"])


def _measured(classifier: Classifier, image: np.ndarray) -> float:
    pixels = tf.constant(image, tf.float32)
    forward = tf.function(lambda one: classifier.model(one, training=False), autograph=False)
    forward(pixels)
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        forward(pixels).numpy()
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))
