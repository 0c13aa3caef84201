"""Rates of dropout and of stochastic depth inside a backbone, set in the copy of it that a stage trains.

Outside of training either does nothing: the network itself, its features and what is saved stay as they are.
"""

import numpy as np

from tlbench.base.errors import ConfigError
from tlbench.config.schema import Backbone
from tlbench.networks import graph
from tlbench.networks.backbones import inside
from tlbench.networks.hardware import keras

# What a block calls the layer through which its branch goes: one that drops, or passes all where its rate is 0.
HELD = ("drop_path", "drop_path_layer")
UNFIT = ("DINOV2DropPath", "DINOV3DropPath")  # of KerasHub: they need to know how many images come


class StochasticDepth(keras.layers.Dropout):
    """Leaves a branch out for some images (Huang et al. 2016), and makes up for them in the others.

    In the place of layers that networks have for it: KerasHub's DINO scales by noise instead, and it draws, as
    keras.applications' ConvNeXt does, from a state that no checkpoint holds.
    """

    seed, noise_shape = None, None  # of layers that were made as others

    def call(self, inputs, training=None):  # type: ignore[no-untyped-def]  # Keras reads the signature
        if not training or not self.rate:
            return inputs
        of_images = (None, *[1] * (len(inputs.shape) - 1))
        return keras.random.dropout(inputs, self.rate, of_images, seed=self.seed_generator)


def check(backbone: keras.Model, cfg: Backbone) -> None:
    """Raise ConfigError for a rate that no layer of a backbone could have."""
    if cfg.dropout is not None and not _dropouts(backbone):
        raise ConfigError(
            f"backbone.dropout={cfg.dropout} has nothing to act on: {cfg.name} has no Dropout layer. Leave it null; "
            "vit_base, deit_small, dinov2_small and dinov3_small have some."
        )
    if cfg.drop_path is not None and not _branches(backbone):
        raise ConfigError(
            f"backbone.drop_path={cfg.drop_path} has nothing to act on: no branch of {cfg.name} can be left "
            "out. Leave it null; efficientnetb0, efficientnetv2b0, convnexttiny, hgnetv2_b4, dinov2_small and "
            "dinov3_small have such branches."
        )


def set_rates(network: keras.Model, backbone: keras.Model, cfg: Backbone) -> None:
    """Set the rates of what trains of a backbone in a network; network: a copy to train on."""
    inner = graph.part(network, backbone)
    if cfg.dropout is not None:
        for layer in _dropouts(inner):
            if layer.trainable:
                _set_rate(layer, cfg.dropout)
    found = _branches(inner)
    rates: list[float | None] = [None] * len(found)
    if cfg.drop_path is not None:  # counted from the last: this may be the end of the backbone
        shares = _shares(backbone)
        rates = [cfg.drop_path * share for share in shares[len(shares) - len(found) :]]
    for layer, rate in zip(found, rates, strict=True):
        if rate is None and type(layer).__name__ in UNFIT:
            rate = layer.rate
        if rate is not None and layer.trainable:
            layer.__class__ = StochasticDepth
            layer._call_has_context_arg["training"] = True
            _set_rate(layer, rate)


def _set_rate(layer: keras.layers.Dropout, rate: float) -> None:
    layer.rate = rate
    if getattr(layer, "seed_generator", None) is None:  # Keras makes none for a rate of 0
        layer._tracker.unlock()
        layer.seed_generator = keras.random.SeedGenerator(0)  # a stage begins its own draws
        layer._tracker.lock()


def _shares(backbone: keras.Model) -> list[float]:
    """Of the asked rate, for each branch in order: from 0 in the first one to 1 in the last.

    EfficientNet counts its blocks, of which some have no branch, and to one more than there are.
    """
    if not all(isinstance(layer, keras.layers.Dropout) for layer in _branches(backbone)):
        return list(np.linspace(0, 1, len(_branches(backbone))))
    stem, *blocks = graph.blocks(backbone)
    numbers = [0 for _ in _branches(*stem)]
    numbers += [number for number, block in enumerate(blocks) for _ in _branches(*block)]
    return [number / len(blocks) for number in numbers]


def _branches(*roots: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Layers, in order, through which branches go that may be left out."""
    layers = [layer for root in roots for layer in (root, *inside(root))]
    held = {id(getattr(layer, name, None)) for layer in layers for name in HELD}
    return [layer for layer in layers if id(layer) in held or _drops_images(layer)]


def _drops_images(layer: keras.layers.Layer) -> bool:
    """Whether a layer leaves out whole images, or is where keras.applications' ConvNeXt does so at other rates."""
    if isinstance(layer, keras.layers.Dropout):
        shape = layer.noise_shape
        return isinstance(layer, StochasticDepth) or bool(shape and set(shape[1:]) == {1})
    of_convnext = type(layer) is keras.layers.Activation and layer.name.endswith("_identity")
    return of_convnext or type(layer).__name__ == "StochasticDepth"


def _dropouts(network: keras.Model) -> list[keras.layers.Dropout]:
    """All other Dropout layers, but for those of attention's weights: Keras's asks not them for their rate."""
    layers = inside(network)
    attention = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
    parts = [part for layer in layers if isinstance(layer, attention) for part in inside(layer)]
    of_attention = set(map(id, parts))
    found = [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
    return [layer for layer in found if id(layer) not in of_attention and not _drops_images(layer)]
