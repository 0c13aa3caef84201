"""Engines that run a frozen network over many images: TensorFlow, and OpenVINO where it is installed.

Both run one graph: the network from uint8 pixels to features with its variables frozen into constants,
which lets either fold batch normalization into the convolutions and fuse what follows them.
"""

import hashlib
import importlib.util
import json
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tlbench.base import memory, optional
from tlbench.base.errors import ConfigError, DeviceError
from tlbench.networks import hardware
from tlbench.networks.fused import accelerate
from tlbench.networks.hardware import Machine, keras, tf

NAMES = ("tensorflow", "openvino")

# Raise it with every change after which an engine makes other features of the same network: those that
# are cached are then stale.
VERSION = 1


class FeatureEngine(Protocol):
    """Runs a frozen network; every batch holds the same number of images."""

    name: str
    precision: str

    def run(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """(batch, height, width, 3) uint8 in 0-255 -> (batch, features) float32, in order."""
        ...


def fingerprint(network: keras.Model) -> str:
    """64 hexadecimal digits over a functional network's layers, how they are joined, and its weights.

    The same in every process: Keras numbers the names of layers as it makes them, so no name counts.
    """
    sha = hashlib.sha256(layers(network).encode())
    for variable in network.weights:
        sha.update(np.ascontiguousarray(variable.numpy()).data)
    return sha.hexdigest()


def layers(network: keras.Model) -> str:
    """A functional network's layers and how they are joined, as JSON: equal for equal networks."""
    return json.dumps(_nameless(network.get_config(), {}), sort_keys=True)


def _nameless(config: Any, numbers: dict[str, int]) -> Any:
    """A configuration whose layers have their number in the network as a name; what trains is left out."""
    if isinstance(config, dict):
        if "layers" in config:  # a network, which names its layers for itself
            numbers = {layer["config"]["name"]: i for i, layer in enumerate(config["layers"])}
            config = {key: value for key, value in config.items() if key != "name"}
        kept = {key: value for key, value in config.items() if key != "trainable"}
        return {
            key: numbers.get(value, value) if key == "name" else _nameless(value, numbers)
            for key, value in kept.items()
        }
    if isinstance(config, list | tuple):
        if len(config) == 3 and config[0].__class__ is str:  # a layer's output: name, node, tensor
            return [numbers.get(config[0], config[0]), *config[1:]]
        return [_nameless(value, numbers) for value in config]
    return config


def choose(asked: str, machine: Machine) -> tuple[str, str]:
    """The engine to use and why; asked: "auto" or one of NAMES. Raises when it is not there."""
    installed = importlib.util.find_spec("openvino") is not None
    if asked == "openvino":
        if not installed:
            raise ConfigError(
                "features.engine=openvino needs the openvino extra: pip install 'tlbench[openvino]'."
            )
        if machine.device == "gpu":
            raise DeviceError(
                "features.engine=openvino runs on a CPU. Use features.engine=auto or device=cpu."
            )
    if asked != "auto":
        return asked, "asked for"
    if machine.device == "gpu":
        return "tensorflow", "the one for a GPU"
    if installed:
        return "openvino", "the fastest on a CPU"
    return "tensorflow", "openvino, which is faster, is not installed"


def build(
    name: str, network: keras.Model, precision: str, machine: Machine, batch_size: int
) -> FeatureEngine:
    """An engine for a network from pixels to features.

    precision: "float32", "bfloat16" or "float16"; batch_size: images in every batch.
    """
    memory.give_back()  # of the engine before, in another precision
    kind: Any = {"tensorflow": TensorFlowEngine, "openvino": OpenVinoEngine}[name]
    return kind(network, precision, machine, batch_size)


def lower_precisions(name: str, machine: Machine) -> list[str]:
    """Precisions below float32 that this engine computes natively on this machine, fastest first."""
    if machine.device == "gpu":
        return ["bfloat16"] if machine.bfloat16 else ["float16"]
    if name == "openvino":
        native = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return [p for p, flag in (("bfloat16", "BF16"), ("float16", "FP16")) if flag in native]
    return ["bfloat16"] if machine.bfloat16 else []


class TensorFlowEngine:
    """The frozen graph in TensorFlow's own runtime; a lower precision by a Keras dtype policy."""

    name = "tensorflow"

    def __init__(
        self, network: keras.Model, precision: str, machine: Machine, batch_size: int
    ) -> None:
        self.precision = precision
        if precision != "float32":
            network = accelerate(network, hardware.policy(precision))
        self._function = _frozen(network, batch_size, jit_compile=machine.jit_compile)

    def run(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for images in batches:
            (features,) = self._function(tf.constant(images))
            yield features.numpy()


class OpenVinoEngine:
    """The frozen graph in OpenVINO, several batches in flight."""

    name = "openvino"

    def __init__(
        self, network: keras.Model, precision: str, machine: Machine, batch_size: int
    ) -> None:
        del machine
        self.precision = precision
        core = _core()
        with tempfile.TemporaryDirectory() as folder:
            # Read from a file: OpenVINO's converter for Python objects would load its telemetry.
            path = Path(folder) / "network.pb"
            path.write_bytes(_frozen(network, batch_size).graph.as_graph_def().SerializeToString())
            memory.give_back()  # of several copies of the weights
            graph = core.read_model(path)
        hint = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[precision]
        options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "THROUGHPUT"}
        compiled = core.compile_model(graph, "CPU", options)
        # Twice as many as run at once: no core waits for the next batch to be handed over.
        count = 2 * compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._requests = [compiled.create_infer_request() for _ in range(count)]

    def run(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        # Not openvino.AsyncInferQueue: its callbacks are Python's, and a thread that still wants the
        # interpreter's lock when the compiled model is destroyed waits for ever for the one that holds it.
        free, busy = deque(self._requests), deque[Any]()
        for images in batches:
            if not free:
                yield _result(busy, free)
            request = free.popleft()
            request.start_async({0: images})
            busy.append(request)
        while busy:
            yield _result(busy, free)


def _result(busy: deque[Any], free: deque[Any]) -> np.ndarray:
    """What the oldest request computed; the request is free again."""
    request = busy.popleft()
    request.wait()
    free.append(request)
    return request.get_output_tensor().data.copy()


def _core() -> Any:
    return optional.openvino().Core()


def _frozen(network: keras.Model, batch_size: int, *, jit_compile: bool = False) -> Any:
    """The network as a function of uint8 pixels whose variables are constants of its graph."""
    # Not above: TensorFlow is imported by tlbench.hardware first, which keeps it quiet.
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    shape = (batch_size, *network.input_shape[1:])

    def features(pixels: tf.Tensor) -> tf.Tensor:
        return tf.cast(network(tf.cast(pixels, tf.float32), training=False), tf.float32)

    forward = tf.function(
        features, input_signature=[tf.TensorSpec(shape, tf.uint8)], autograph=False
    )
    frozen = convert_variables_to_constants_v2(forward.get_concrete_function())
    return tf.function(frozen, jit_compile=True) if jit_compile else frozen
