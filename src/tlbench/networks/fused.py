"""A copy of a network to train on: the same layers, names and weights, fused, in another precision.

What is frozen runs in it as in inference. What is saved is always the plain Keras original.
"""

import functools
import inspect
from typing import Any

from tlbench.networks.hardware import keras, tf


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch normalization with TensorFlow's fused kernel in training.

    Keras 3 computes it in some ten elementwise operations, which take over half of a CPU's time in a
    ResNet. Statistics, gradients and moving averages are those of keras.layers.BatchNormalization.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not (training and self.trainable) or mask is not None or len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        scale = tf.ones([channels]) if self.gamma is None else tf.cast(self.gamma, tf.float32)
        offset = tf.zeros([channels]) if self.beta is None else tf.cast(self.beta, tf.float32)
        x = tf.cast(inputs, self.compute_dtype)
        normalized, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=[], variance=[], epsilon=self.epsilon
        )
        # The kernel divides by n - 1 where Keras divides by n.
        count = tf.cast(tf.size(x) // channels, tf.float32)
        variance *= (count - 1.0) / count
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        return normalized


@functools.cache
def _in_inference(kind: type[keras.layers.Layer]) -> type[keras.layers.Layer]:
    """A kind of layer that is called as in inference, whatever is asked of the network around it.

    Keras 3 passes training=True down over everything, also over a part that was called with training=False.
    """
    if "training" not in inspect.signature(kind.call).parameters:
        return kind

    @functools.wraps(kind.call)  # Keras reads the signature
    def call(self: Any, *args: Any, **options: Any) -> Any:
        return kind.call(self, *args, **{**options, "training": False})

    return type(kind.__name__, (kind,), {"call": call})


def accelerate(
    network: keras.Model,
    policy: str,
    *,
    frozen_statistics: bool = False,
    statistics_alone: bool = False,
) -> keras.Model:
    """A copy with fused batch normalization and, but for float32 layers, another dtype policy.

    policy: "float32", "mixed_bfloat16" or "mixed_float16"; frozen_statistics: batch normalization trains its
    scale and offset, and normalizes by its moving statistics; statistics_alone: nothing but batch normalization
    runs as in training. Weights are copied; what is trainable stays so, and what is not runs in inference
    mode: dropout and stochastic depth inside it too.
    """

    def copy_layer(layer: Any) -> Any:
        kind, options = layer.__class__, layer.get_config()
        if not isinstance(layer, keras.layers.Layer):
            return kind.from_config(options)  # plain arithmetic, which has no policy
        normalizes = isinstance(layer, keras.layers.BatchNormalization)
        stays = frozen_statistics if normalizes else statistics_alone
        if stays or not layer.trainable:
            kind = _in_inference(kind)
        elif kind is keras.layers.BatchNormalization and layer.axis in (-1, 3):
            kind = FusedBatchNormalization
        if policy != "float32" and layer.name != "classification":
            options["dtype"] = policy
        return kind.from_config(options)

    copy = keras.models.clone_model(network, clone_function=copy_layer, recursive=True)
    copy.set_weights(network.get_weights())
    return copy
