"""A model written in each format, and read back in that format's own runtime."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base import optional
from tlbench.inference.formats import Format
from tlbench.networks import backbones
from tlbench.networks.fused import exportable
from tlbench.networks.hardware import keras, tf

Predict = Callable[[np.ndarray], np.ndarray]  # (n, size, size, 3) float32 -> (n, classes)


def write(
    form: Format, model: keras.Model, calibration: Callable[[], Iterable[np.ndarray]], path: Path
) -> None:
    """Write a model as the format's file or folder; raises whatever its converter does.

    calibration: gives images, (1, size, size, 3) float32 each, that int8's ranges are measured on.
    """
    if form.name != "keras" and backbones.requires(model):
        model = exportable(model)
    match form.label:
        case "saved_model":
            model.export(path, format="tf_saved_model", verbose=False)
        case "onnx":
            _teach_erfc()
            model.export(path, format="onnx", verbose=False)
        case "litert":
            model.export(path, format="litert", verbose=False)
        case "openvino":
            _write_openvino(model, path)
        case "litert_int8":
            _write_int8(model, calibration, path)
        case "keras":  # without the optimizer's state, which the run's own file keeps
            model.save(path)


def _teach_erfc() -> None:
    """What the exact GELU of TensorFlow is made of, and tf2onnx does not know: erfc(x) = 1 - erf(x)."""
    from tf2onnx.handler import tf_op

    class Erfc:
        @classmethod
        def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
            given, name = node.input[0], node.output[0]
            kinds = {"dtypes": [ctx.get_dtype(name)], "shapes": [ctx.get_shape(name)]}
            ctx.remove_node(node.name)
            erf = ctx.make_node("Erf", [given], **kinds)
            one = ctx.make_const(f"{node.name}_one", np.array(1, np.float32))
            ctx.make_node("Sub", [one.output[0], erf.output[0]], outputs=[name], **kinds)

    tf_op("Erfc")(Erfc)


def _write_openvino(model: keras.Model, path: Path) -> None:
    """Through a SavedModel, which OpenVINO's core reads itself: its Python converter calls home."""
    openvino = optional.openvino()
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, format="tf_saved_model", verbose=False)
        graph = openvino.Core().read_model(folder)
        openvino.save_model(graph, path, compress_to_fp16=False)


def _write_int8(
    model: keras.Model, calibration: Callable[[], Iterable[np.ndarray]], path: Path
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, format="tf_saved_model", verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image] for image in calibration())
        path.write_bytes(converter.convert())


def read(form: Format, path: Path) -> Predict:
    """The written model as a function of pixels, run by the format's own runtime in float32."""
    return READERS[form.name](path)


def _read_saved_model(path: Path) -> Predict:
    restored = tf.saved_model.load(path)
    return lambda pixels: restored.serve(pixels).numpy()


def _read_onnx(path: Path) -> Predict:
    session = optional.onnxruntime().InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def _read_openvino(path: Path) -> Predict:
    # Without the hint it computes in bfloat16 where the processor can, and differs by some 1e-2.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = optional.openvino().Core().compile_model(path, "CPU", options)
    return lambda pixels: compiled(pixels)[0].copy()


def _read_litert(path: Path) -> Predict:
    interpreter = optional.litert().Interpreter(str(path))
    into, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    prepared: list[tuple[int, ...]] = []

    def predict(pixels: np.ndarray) -> np.ndarray:
        if prepared != [pixels.shape]:  # buffers are laid out for one shape at a time
            interpreter.resize_tensor_input(into["index"], pixels.shape)
            interpreter.allocate_tensors()
            prepared[:] = [pixels.shape]
        interpreter.set_tensor(into["index"], pixels)
        interpreter.invoke()
        return interpreter.get_tensor(out["index"])

    return predict


def _read_keras(path: Path) -> Predict:
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    return model.predict_on_batch


READERS: dict[str, Callable[[Path], Predict]] = {
    "saved_model": _read_saved_model,
    "onnx": _read_onnx,
    "openvino": _read_openvino,
    "litert": _read_litert,
    "keras": _read_keras,
}
