"""A copy of a network to train on: the same layers, names and weights, fused, in another precision.

What is frozen runs in it as in inference. What is saved is always the plain Keras original.
"""

import functools
import inspect
from typing import Any

from tlbench.networks.backbones import inside
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


class DepthwiseConvolution(keras.layers.Conv2D):
    """A convolution with a group for each channel, by the operation that is made for it.

    Keras gives TensorFlow's grouped convolution to XLA on every call: slow on a CPU, and no ONNX.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return keras.ops.depthwise_conv(
            inputs,
            keras.ops.transpose(kernel, (0, 1, 3, 2)),
            strides=tuple(self.strides),
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )


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
        options = _configuration(layer)
        keeps = policy == "float32" or layer.name == "classification"
        if isinstance(layer, keras.layers.Layer) and not keeps:
            options["dtype"] = policy
        return layer.__class__.from_config(options)

    copy = keras.models.clone_model(network, clone_function=copy_layer, recursive=True)
    copy.set_weights(network.get_weights())
    # Layers are copied at the top; what is inside of them, however deep, gets the rest from its original.
    for layer, twin in zip(inside(network), inside(copy), strict=True):
        twin.trainable = layer.trainable  # from_config tells it to the outermost layer alone
        if inside(layer, deep=False):
            continue  # what is made of layers leaves it to them
        normalizes = isinstance(layer, keras.layers.BatchNormalization)
        stays = frozen_statistics if normalizes else statistics_alone
        own: type[keras.layers.Layer] = type(layer)
        kind = _in_inference(own) if stays or not layer.trainable else _faster(layer)  # type: ignore[arg-type]
        if kind is not own:
            twin.__class__ = kind  # with the same variables
    return copy


def _faster(layer: keras.layers.Layer) -> type[keras.layers.Layer]:
    """The kind of layer that computes the same in training, and faster."""
    kind: type[keras.layers.Layer] = type(layer)
    if kind is keras.layers.BatchNormalization and layer.axis in (-1, 3):
        return FusedBatchNormalization
    if (
        kind is keras.layers.Conv2D
        and 1 < layer.groups == layer.filters
        and layer.kernel.shape[2] == 1
    ):
        return DepthwiseConvolution
    return kind


def _configuration(layer: Any) -> dict[str, Any]:
    """What from_config makes a layer of again.

    Some of KerasHub's get_config fail (DeiTEncoder) or give what __init__ refuses (the embeddings of ViT and
    DeiT), but all keep their arguments as attributes.
    """
    kind = type(layer)
    if not kind.__module__.startswith("keras_hub."):
        return layer.get_config()
    config = keras.layers.Layer.get_config(layer)  # name, trainable, dtype
    names = [name for name in inspect.signature(kind.__init__).parameters if name not in config]
    return {**{name: getattr(layer, name) for name in names if hasattr(layer, name)}, **config}


def exportable(network: keras.Model) -> keras.Model:
    """A copy that converters understand: no convolution left to XLA, no tensor caught from outside of the graph."""
    copy = accelerate(network, "float32")
    for layer in inside(copy):
        if _faster(layer) is DepthwiseConvolution:
            layer.__class__ = DepthwiseConvolution
        for name, value in list(vars(layer).items()):
            # Angles of DINOv3, position ids of ViT: tf2onnx takes an eager tensor for an input of the network.
            if keras.ops.is_tensor(value) and not isinstance(value, keras.Variable):
                setattr(layer, name, keras.ops.convert_to_numpy(value))
    copy(keras.ops.zeros((1, *copy.input_shape[1:])))  # Keras exports what has been called
    return copy
