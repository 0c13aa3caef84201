"""How near feature extraction and training come to the time inside the convolutions alone.

The limit: every distinct convolution and dense layer of a network is run by itself at its real shapes,
and the layers' own times are added up, each as often as the network has it. OpenVINO's come from its
own counters, without the reordering of data around a layer. TensorFlow's are of a graph that
repeats nothing but the layer, and for training its gradients too, in memory kept between them.
Against it stands what tlbench really does with the whole network. The default takes some five minutes
on two cores.
"""

import argparse
import contextlib
import ctypes
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import measure
from work import NETWORKS, engines

COLUMNS = (
    "network",
    "work",
    "by",
    "precision",
    "convolutions alone, images/s",
    "tlbench, images/s",
    "reached",
)
KINDS = ("Conv2D", "DepthwiseConv2D", "Dense")
KERNELS = ("Convolution", "FullyConnected", "MatMul", "Deconvolution")  # OpenVINO's node types


def main() -> None:
    args = _arguments()
    if args.worker:
        _work(**json.loads(args.worker))
        return
    rows: list[list[str]] = []
    goals: dict[str, str] = {}
    for name in args.networks:
        shares: list[float] = []
        for what, by, precision in _pairs(args):
            row, share = _compare(name, what, by, precision, args)
            rows += row
            shares += [share] if what == "features" and row else []
        goals[f"{name} limit"] = f"{max(shares):.0%}" if shares else "not measured"
    notes = [f"Images of {args.image_size} x {args.image_size}, batches of {args.batch_size}."]
    measure.publish(args, "limit", COLUMNS, rows, notes=notes, goals=goals)


def _pairs(args: argparse.Namespace) -> list[tuple[str, str, str]]:
    """(work, by, precision): features in every precision an engine may have, and training."""
    features = [("features", by, p) for by in args.engines for p in args.precisions]
    return [*features, ("training", "tensorflow", "auto")]


def _compare(
    name: str, what: str, by: str, precision: str, args: argparse.Namespace
) -> tuple[list[list[str]], float]:
    """The row of one kind of work, none where the machine has not got the precision; the share."""
    shared = {
        "network": name,
        "what": what,
        "by": by,
        "precision": precision,
        "size": args.image_size,
        "batch": args.batch_size,
        "batches": args.batches,
    }
    sides = {side: {**shared, "alone": side == "alone"} for side in ("whole", "alone")}
    measure.say(f"{NETWORKS[name].application}: {what} by {by} in {precision}")
    with measure.workers(__file__, {"whole": sides["whole"]}) as started:
        if not started["whole"].about["native"]:
            return [], 0.0
        settled = started["whole"].about["precision"]
        with measure.workers(__file__, {"alone": sides["alone"] | {"precision": settled}}) as more:
            asks = {side: w.ask for side, w in {**started, **more}.items()}
            rates = measure.alternate(asks, args.repeats)
    alone, whole = measure.median(rates["alone"]), measure.median(rates["whole"])
    share = measure.ratio(rates["whole"], rates["alone"])
    cells = [what, by, settled, f"{alone:.1f}", f"{whole:.1f}", f"{share:.0%}"]
    return [[NETWORKS[name].application, *cells]], share


# ---------------------------------------------------------------- inside a worker

Rate = Callable[[], float]


def _work(
    network: str,
    what: str,
    by: str,
    precision: str,
    alone: bool,
    size: int,
    batch: int,
    batches: int,
) -> None:
    """Build one side and tell its images a second whenever asked."""
    import plain_keras
    from tlbench.features import engines
    from tlbench.networks import hardware

    machine = hardware.prepare("cpu", 0)
    known = NETWORKS[network]
    model, backbone = plain_keras.classifier(
        known.application, size, list(known.widths), (size, size, 3), 20
    )
    if what == "training" and precision == "auto":
        precision = hardware.training_precision("auto", machine, backbone).policy
        precision = precision.removeprefix("mixed_")
    native = precision == "float32" or precision in engines.lower_precisions(by, machine)
    about = {"precision": precision, "native": native}
    if not native and what == "features":
        measure.serve(about, lambda: 0.0)
        return
    if alone:
        _keep_memory()
        layers = _layers(backbone, batch)
        rate = (
            _openvino_alone(layers, precision, batches)
            if by == "openvino"
            else _tensorflow_alone(layers, precision, batches, training=what == "training")
        )
    elif what == "features":
        rate = _features(model, by, precision, machine, batch, batches)
    else:
        rate = _training(model, precision, batch, batches)
    rate()
    measure.serve(about, rate)


def _features(model: Any, by: str, precision: str, machine: Any, batch: int, batches: int) -> Rate:
    """tlbench's engine over the network up to its pooled features."""
    import keras

    from tlbench.features import engines

    (pooling,) = (x for x in model.layers if isinstance(x, keras.layers.GlobalAveragePooling2D))
    network = keras.Model(model.input, pooling.output)
    engine = engines.build(by, network, precision, machine, batch)
    images = np.random.default_rng(0).integers(0, 256, (batch, *model.input_shape[1:]), np.uint8)

    def rate() -> float:
        began = time.perf_counter()
        for _ in engine.run(iter([images] * batches)):
            pass
        return batch * batches / (time.perf_counter() - began)

    return rate


def _training(model: Any, precision: str, batch: int, batches: int) -> Rate:
    """tlbench's accelerated copy, every layer trained."""
    import plain_keras
    from tlbench.networks import hardware
    from tlbench.networks.fused import accelerate

    fast = accelerate(model, hardware.policy(precision))
    plain_keras.compile_model(fast, 1e-4)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch * batches, *model.input_shape[1:]), np.uint8)
    labels = rng.integers(0, 20, len(images))
    pipeline = plain_keras.pipeline(images, labels, batch)

    def rate() -> float:
        began = time.perf_counter()
        fast.fit(pipeline, verbose=0)
        return len(images) / (time.perf_counter() - began)

    return rate


# ---------------------------------------------------------------- one layer by itself


def _keep_memory() -> None:
    """Have glibc keep what is freed: fetching fresh pages for each output is no convolution."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for option, value in ((-4, 0), (-1, 1 << 30), (-2, 1 << 28)):  # no mmap, no trimming
            libc.mallopt(option, value)


def _layers(backbone: Any, batch: int) -> dict[tuple[tuple[int, ...], str], int]:
    """(input shape, layer as JSON) -> how often the network has such a layer."""
    found: Counter[tuple[tuple[int, ...], str]] = Counter()
    for layer in backbone.layers:
        if type(layer).__name__ in KINDS:
            options = {k: v for k, v in layer.get_config().items() if k not in ("name", "dtype")}
            shape = (batch, *layer.input.shape[1:])
            found[shape, json.dumps([type(layer).__name__, options], default=str)] += 1
    return found


def _build(shape: tuple[int, ...], text: str, precision: str) -> Any:
    """The layer with weights of its own; its computations in the precision."""
    import keras

    from tlbench.networks import hardware

    kind, options = json.loads(text)
    keep = {k: v for k, v in options.items() if not isinstance(v, (dict, str))}
    keep["padding"] = options.get("padding", "valid")
    if kind == "Dense":
        keep.pop("padding")
    layer = getattr(keras.layers, kind)(**keep, dtype=hardware.policy(precision))
    layer.build(shape)
    return layer


def _frozen(layer: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """A graph of the layer alone, its weights constants."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = [tf.TensorSpec(shape, tf.as_dtype(dtype))]
    function = tf.function(lambda x: layer(x), input_signature=signature)
    return convert_variables_to_constants_v2(function.get_concrete_function())


def _openvino_alone(
    layers: dict[tuple[tuple[int, ...], str], int], precision: str, batches: int
) -> Rate:
    """From OpenVINO's counters, with as many requests in flight as in tlbench's engine."""
    import tempfile
    from pathlib import Path

    import openvino

    core = openvino.Core()
    hint = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[precision]
    options = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "THROUGHPUT",
        "PERF_COUNT": True,
    }
    compiled = []
    with tempfile.TemporaryDirectory() as folder:
        for (shape, text), count in layers.items():
            path = Path(folder) / "layer.pb"
            graph = _frozen(_build(shape, text, "float32"), shape, "float32").graph
            path.write_bytes(graph.as_graph_def().SerializeToString())
            compiled.append(
                (shape, core.compile_model(core.read_model(path), "CPU", options), count)
            )

    def rate() -> float:
        seconds = sum(
            count * _kernel_seconds(model, shape, batches) for shape, model, count in compiled
        )
        return compiled[0][0][0] / seconds

    return rate


def _kernel_seconds(model: Any, shape: tuple[int, ...], batches: int) -> float:
    """Seconds a batch inside a layer's kernel: over all streams at once."""
    import openvino

    queue = openvino.AsyncInferQueue(model)
    spent: list[float] = []

    def collect(request: Any, number: int) -> None:
        del number
        nodes = request.profiling_info
        spent.append(sum(n.real_time.total_seconds() for n in nodes if n.node_type in KERNELS))

    queue.set_callback(collect)
    x = np.ones(shape, np.float32)
    for number in range(len(queue) * (batches + 1)):
        queue.start_async({0: x}, number)
    queue.wait_all()
    streams = int(model.get_property("NUM_STREAMS"))
    return measure.median(spent[len(queue) :]) / streams


def _tensorflow_alone(
    layers: dict[tuple[tuple[int, ...], str], int],
    precision: str,
    batches: int,
    *,
    training: bool,
) -> Rate:
    """From graphs that repeat the layer, and of its gradients where the whole is trained."""
    import tensorflow as tf

    calls = []
    for (shape, text), count in layers.items():
        layer = _build(shape, text, precision)
        call = _repeated(layer, shape, precision, training=training)
        calls.append((call, tf.ones(shape, precision), count))
    batch = next(iter(layers))[0][0]

    def rate() -> float:
        return batch / sum(count * _call_seconds(call, x, batches) for call, x, count in calls)

    return rate


def _repeated(layer: Any, shape: tuple[int, ...], dtype: str, *, training: bool) -> Any:
    """(input, count) -> the layer run so often inside one graph; its gradients too when training."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    def once(x: Any) -> list[Any]:
        if not training:
            return [layer(x)]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        wanted = [x, *layer.trainable_variables]
        return [y, *tape.gradient(y, wanted, output_gradients=tf.ones_like(y))]

    @tf.function(input_signature=[tf.TensorSpec(shape, dtype), tf.TensorSpec([], tf.int32)])
    def repeated(x: Any, count: Any) -> Any:
        total = tf.zeros([])
        for _ in tf.range(count):
            for result in once(x):  # one element keeps the result from being optimized away
                total += tf.cast(tf.reshape(result, [-1])[0], tf.float32)
        return total

    function = repeated.get_concrete_function()
    return function if training else convert_variables_to_constants_v2(function)


def _call_seconds(call: Any, x: Any, batches: int) -> float:
    """Seconds a batch, after one to warm up."""
    import tensorflow as tf

    call(x, tf.constant(1))
    began = time.perf_counter()
    call(x, tf.constant(batches))
    return (time.perf_counter() - began) / batches


def _arguments() -> argparse.Namespace:
    parser = measure.parser(__doc__)
    parser.add_argument("--batches", type=int, default=4, help="of each side in a round")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--engines", nargs="+", default=engines())
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=["resnet50", "mobilenetv3"]
    )
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16", "float16"])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny:
        args.repeats, args.batches, args.batch_size, args.image_size = 1, 1, 4, 32
        args.networks, args.engines, args.precisions = ["small"], ["tensorflow"], ["float32"]
    return args


if __name__ == "__main__":
    main()
