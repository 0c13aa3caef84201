"""Makes small.keras, the backbone of nearly every training of the suite: python tests/small.py

Two convolutions with batch normalization behind them that have seen handwritten digits. TensorFlow traces them in
a tenth of the time that the smallest network of keras.applications takes, and a head on what they find tells
digits apart after a second. It takes 0-255, so no setting has to say how pixels are prepared.
"""

from pathlib import Path

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

FILE = Path(__file__).with_name("small.keras")


def network() -> keras.Model:
    layers = keras.layers
    x = pixels = keras.Input((32, 32, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1, name="rescaling")(x)
    for number, width in enumerate((16, 64), 1):
        convolution = layers.Conv2D(
            width, 3, strides=2, padding="same", use_bias=False, name=f"conv_{number}"
        )
        x = layers.BatchNormalization(momentum=0.9, name=f"bn_{number}")(convolution(x))
        x = layers.ReLU(name=f"relu_{number}")(x)
    return keras.Model(pixels, x, name="small")


def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    gray = [Image.fromarray((image * 255 / 16).astype("uint8")) for image in found.images]
    enlarged = np.stack(
        [
            np.asarray(image.resize((32, 32), Image.Resampling.NEAREST).convert("RGB"))
            for image in gray
        ]
    )
    return enlarged.astype("float32"), found.target


def main() -> None:
    keras.utils.set_random_seed(0)
    backbone = network()
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    whole = keras.Model(backbone.input, keras.layers.Dense(10, activation="softmax")(pooled))
    whole.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    whole.fit(*digits(), epochs=60, verbose=2)
    backbone.save(FILE)


if __name__ == "__main__":
    main()
