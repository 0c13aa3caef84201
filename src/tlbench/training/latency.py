"""How long one image takes, measured once for the parts of a network on a machine and remembered."""

import hashlib
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tlbench.base import kept
from tlbench.config.schema import Config
from tlbench.data.datasets import Dataset
from tlbench.features.engines import layers
from tlbench.features.store import remembered
from tlbench.networks.classifiers import Classifier
from tlbench.networks.hardware import Machine, keras, tf

REPEATS = 11


def latency_ms(classifier: Classifier, dataset: Dataset, cfg: Config, machine: Machine) -> float:
    """Milliseconds for one image at a time: through the network up to the pooled features, then the head.

    Either depends on its layers and the machine, not on weights: so runs that share both share the measurement,
    and another head on the same backbone is measured alone.
    """
    features, head = classifier.features, classifier.head
    shared = kept.once(("layers", classifier.backbone), lambda: layers(features))

    def measured(network: keras.Model, described: str) -> float:
        recipe = {
            "latency": hashlib.sha256(described.encode()).hexdigest(),
            "machine": [machine.name, machine.device],
            "versions": {name: version(name) for name in ("keras", "tensorflow")},
        }

        def measure() -> dict[str, float]:
            one = tf.zeros((1, *network.input_shape[1:]))
            if network is features:
                one = tf.constant(dataset.images.batch(dataset.splits["test"][:1]), tf.float32)
            return {"latency_ms": _median_ms(network, one)}

        found = remembered(Path(cfg.features.folder), recipe, measure)
        return float(found["latency_ms"])

    return measured(features, shared) + measured(head, layers(head))


def _median_ms(network: keras.Model, one: tf.Tensor) -> float:
    """Of some calls after a first that compiles."""
    forward = tf.function(lambda x: network(x, training=False), autograph=False)
    forward(one)
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        forward(one).numpy()
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))
