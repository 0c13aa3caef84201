"""One of each: a backbone, a data source, an augmentation and a tracker."""

import numpy as np


def tiny(cfg):
    """A backbone: a Keras model from preprocessed images to maps of features."""
    import keras

    from tlbench.networks import weights

    layers = keras.layers
    pixels = keras.Input((cfg.image_size, cfg.image_size, 3))
    x = layers.Conv2D(cfg.arguments.get("filters", 8), 3, strides=2, activation="relu")(pixels)
    network = keras.Model(pixels, layers.Conv2D(16, 3, activation="relu")(x), name="tiny")
    if cfg.weights_file:
        weights.load(network, cfg.weights_file)
    return network


def stripes(cfg, resize):
    """A data source: images, labels and names of classes, which tlbench splits."""
    from tlbench.data.images import ArrayImages
    from tlbench.data.sources import Contents

    del resize  # these have a size of their own
    labels = np.arange(cfg.arguments.get("count", 200)) % 2
    noise = np.random.default_rng(0).integers(0, 60, (len(labels), 16, 16, 3), dtype=np.uint8)
    noise[labels == 0, ::2] += 150  # across
    noise[labels == 1, :, ::2] += 150  # down
    return Contents.unbound(ArrayImages.of(noise), labels, ["across", "down"])


def turn(value):
    """An augmentation: each image as it is, or turned by half a turn."""
    from tlbench.data.augmentations import AS_IT_IS, Augmentation

    del value  # true: there is nothing to choose
    return Augmentation(
        views={AS_IT_IS: lambda images: images, "turned": lambda images: images[:, ::-1, ::-1]}
    )


class Text:
    """A tracker: a line for each epoch in a text file of the run."""

    def __init__(self, folder, settings, file="epochs.txt"):
        self.path = folder / file
        self.path.write_text(f"{settings['backbone.name']}\n")

    def epoch(self, record):
        with self.path.open("a") as file:
            file.write(f"{record['epoch']} {record['val_accuracy']:.3f}\n")

    def end(self, figures):
        with self.path.open("a") as file:
            file.write("failed\n" if figures is None else f"{figures['test_accuracy']:.3f}\n")
