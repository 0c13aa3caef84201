"""A classifier cut in two at one tensor: below it nothing trains, so what it holds of an image never changes.

Head-only training is the cut at the pooled features; training the last layers is a cut higher up in the pixels' way;
training all layers is no cut.
"""

from dataclasses import dataclass

import numpy as np

from tlbench.networks import graph
from tlbench.networks.classifiers import Classifier
from tlbench.networks.hardware import keras

LEAST = 0.1  # share of a backbone's operations that must lie below a cut


@dataclass(frozen=True)
class Cut:
    """A frozen part and what is trained on it; both share their weights with the classifier.

    layer: the backbone's layer whose output lies between them; None: the pooled features.
    """

    prefix: keras.Model  # (batch, height, width, 3) in 0-255 -> one tensor
    suffix: keras.Model  # that tensor -> (batch, classes) probabilities
    backbone: keras.Model  # of the classifier
    layer: str | None = None


def pooled(classifier: Classifier) -> Cut:
    """The cut at the pooled features."""
    return Cut(classifier.features, classifier.head, classifier.backbone)


def of(classifier: Classifier) -> Cut | None:
    """The cut above which all lies that trains, as near to the output as there is one.

    None where all trains, or so little lies below it that computing it once spares nothing.
    """
    if all(layer.trainable for layer in classifier.backbone.layers):
        return None
    if not classifier.backbone.trainable_weights:
        return pooled(classifier)
    backbone = graph.in_blocks(classifier.backbone)
    steps = graph.steps(backbone)
    last = max((n for n, step in enumerate(steps) if step.alone and step.frozen), default=-1)
    if last + 1 < LEAST * len(steps):
        return None
    step = steps[last]
    start = keras.Input(step.tensor.shape[1:], name="maps")
    below = keras.Model(backbone.input, step.tensor)
    above = keras.Model(step.tensor, backbone.output, name=classifier.backbone.name)
    rest = keras.Model(classifier.maps, classifier.model.output)
    prefix = keras.Model(classifier.model.input, below(classifier.entrance), name="frozen")
    if len(prefix.output_shape) == 3 and not _tells_its_shape(prefix):
        return None
    suffix = keras.Model(start, rest(above(start)), name="trained")
    return Cut(prefix, suffix, classifier.backbone, step.name)


def _tells_its_shape(network: keras.Model) -> bool:
    """Whether a network gives as many tokens as Keras was told: SigLIP's embedding counts one that is not there."""
    image = np.zeros((1, *network.input_shape[1:]), np.float32)
    return tuple(network(image, training=False).shape[1:]) == tuple(network.output_shape[1:])
