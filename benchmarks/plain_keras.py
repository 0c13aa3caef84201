"""The same training as one writes it in plain Keras: the side that tlbench is set against.

    python benchmarks/plain_keras.py --application ResNet50 --root FOLDER

trains a classifier on the images that cifar_like.py wrote, and prints one line of JSON at its end.
"""

import argparse
import json
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np

PREPROCESSING = {
    "ResNet50": "resnet",
    "MobileNetV3Large": "mobilenet_v3",
    "MobileNet": "mobilenet",
}
SMALL = (
    Path(__file__).parents[1] / "tests" / "small.keras"
)  # two convolutions, for trying the scripts


def main() -> None:
    args = _arguments()
    import keras

    keras.utils.set_random_seed(0)
    train, validation, test = _digits() if args.root is None else _cifar(args.root, args.slice)
    classes = int(train[1].max()) + 1
    shape = train[0].shape[1:]
    model, backbone = classifier(args.application, args.image_size, args.widths, shape, classes)
    backbone.trainable = args.trainable or args.first != "false"
    if args.first != "false":
        names = [layer.name for layer in backbone.layers]
        for layer in backbone.layers[: names.index(args.first)]:
            layer.trainable = False
    compile_model(model, 1e-4 if args.trainable else 1e-3)
    clock = _Clock()
    model.fit(
        *train,
        batch_size=args.batch_size,
        epochs=args.epochs,
        validation_data=validation,
        callbacks=[clock],
        verbose=0,
    )
    _, accuracy = model.evaluate(*test, batch_size=args.batch_size, verbose=0)
    print(json.dumps({"epochs": clock.seconds, "cpu": clock.cpu, "accuracy": accuracy}))


def classifier(
    application: str,
    image_size: int,
    widths: list[int],
    shape: tuple[int, ...],
    classes: int,
) -> tuple[Any, Any]:
    """Pixels in 0-255 -> upsampling -> preprocessing -> network -> head; and that network.

    application: of keras.applications, or "small", which prepares its pixels itself.
    """
    import keras

    pixels = keras.Input(shape)
    x = pixels
    if image_size != shape[0]:
        x = keras.layers.UpSampling2D(image_size // shape[0])(x)
    if application == "small":
        backbone = keras.models.load_model(SMALL)
    else:
        x = getattr(keras.applications, PREPROCESSING[application]).preprocess_input(x)
        backbone = getattr(keras.applications, application)(
            include_top=False, weights=None, input_shape=(image_size, image_size, 3)
        )
    x = keras.layers.GlobalAveragePooling2D()(backbone(x))
    for width in widths:
        x = keras.layers.Dense(width, activation="relu")(x)
    model = keras.Model(pixels, keras.layers.Dense(classes, activation="softmax")(x))
    return model, backbone


def compile_model(model: Any, rate: float) -> None:
    """The same optimizer, loss and metric as tlbench's."""
    import keras

    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # XLA on a CPU is many times slower
    )


def pipeline(images: np.ndarray, labels: np.ndarray, batch: int) -> Any:
    """Batches for short rounds: without tf.data's tuning, whose thread may hold up their end by seconds."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    found = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch)
    return found.prefetch(2).with_options(options)


def _Clock() -> Any:
    import keras

    class Clock(keras.callbacks.Callback):
        """Seconds of each epoch, validation included, and those of all cores; says when the first one ends."""

        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []
            self.cpu: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._began = time.perf_counter(), time.process_time()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds.append(time.perf_counter() - self._began[0])
            self.cpu.append(time.process_time() - self._began[1])
            print(f"epoch {epoch + 1}", flush=True)

    return Clock()


Part = tuple[np.ndarray, np.ndarray]


def _cifar(root: Path, counts: list[int]) -> tuple[Part, Part, Part]:
    """Training, validation and test images, so many of each."""
    (images, labels), test = (_file(root / "cifar-100-python" / n) for n in ("train", "test"))
    train, held = counts[0], counts[0] + counts[1]
    return (
        (images[:train], labels[:train]),
        (images[train:held], labels[train:held]),
        (test[0][: counts[2]], test[1][: counts[2]]),
    )


def _file(path: Path) -> Part:
    with path.open("rb") as file:
        batch = pickle.load(file, encoding="bytes")  # written by cifar_like.py a moment ago
    images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array(batch[b"coarse_labels"])


def _digits() -> tuple[Part, Part, Part]:
    """scikit-learn's digits, as few as make one step of training."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.repeat((digits.images * (255 / 16)).astype(np.uint8)[..., None], 3, axis=-1)
    parts = [(images[a:b], digits.target[a:b]) for a, b in ((0, 32), (32, 52), (52, 72))]
    return parts[0], parts[1], parts[2]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--application", choices=[*PREPROCESSING, "small"], default="ResNet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--widths", type=int, nargs="*", default=[1024, 512])
    parser.add_argument("--root", type=Path, help="what cifar_like.py wrote; default: digits")
    parser.add_argument("--slice", type=int, nargs=3, default=[450, 50, 100])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--trainable", action="store_true", help="every layer, not the head only")
    parser.add_argument("--first", default="false", help="the first layer that trains; false: none")
    return parser.parse_args()


if __name__ == "__main__":
    main()
