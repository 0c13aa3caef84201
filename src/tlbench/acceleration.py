"""A faster copy of a network: the same layers, names and weights in another precision, and fused.

Runs train and compute on the copy; what is saved is always the plain Keras original.
"""

from typing import Any

from tlbench.hardware import keras, tf


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


def accelerate(network: keras.Model, policy: str) -> keras.Model:
    """A copy with fused batch normalization and, but for float32 layers, another dtype policy.

    policy: "float32", "mixed_bfloat16" or "mixed_float16". Weights are copied; what is trainable stays so.
    """

    def copy_layer(layer: Any) -> Any:
        kind, options = layer.__class__, layer.get_config()
        if not isinstance(layer, keras.layers.Layer):
            return kind.from_config(options)  # plain arithmetic, which has no policy
        if kind is keras.layers.BatchNormalization and layer.axis in (-1, 3):
            kind = FusedBatchNormalization
        if policy != "float32" and layer.name != "classification":
            options["dtype"] = policy
        return kind.from_config(options)

    copy = keras.models.clone_model(network, clone_function=copy_layer, recursive=True)
    copy.set_weights(network.get_weights())
    return copy
