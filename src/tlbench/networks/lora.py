"""Low-rank pairs (LoRA): two thin matrices train beside a kernel that stays, and their product is added to it.

Hu et al. 2022, arXiv 2106.09685. Keras's own, of the query and value layers of attention. They are in the copy of a
network that a stage trains, and nowhere else: what comes of them goes into the kernels when the stage ends, so that
the network itself is plain Keras with as many parameters as ever.
"""

import math

import numpy as np

from tlbench.base.draws import seed_for
from tlbench.base.errors import ConfigError
from tlbench.config.schema import Backbone
from tlbench.networks import graph
from tlbench.networks.backbones import inside
from tlbench.networks.hardware import keras

# As layers of Keras's and KerasHub's attentions are called.
QUERY_AND_VALUE = ("query", "value", "query_dense", "value_dense", "q_proj", "v_proj")
PAIR = ("lora_kernel_a", "lora_kernel_b")


def check(backbone: keras.Model, cfg: Backbone) -> None:
    """Raise ConfigError where pairs are asked for, and what trains of a backbone has no attention that takes them."""
    if cfg.lora is None:
        return
    found = _places(backbone)
    if not found:
        raise ConfigError(
            f"backbone.lora={cfg.lora} needs attention with query and value layers, and what trains of {cfg.name} has "
            "none. Leave it out, let more train, or take a transformer such as backbone=dinov2_small."
        )
    for layer in found:
        if layer.lora_enabled or layer.kernel_constraint or layer.quantization_mode:
            raise ConfigError(
                f"backbone.lora={cfg.lora} does not fit the layer '{layer.name}' of {cfg.name}: it has pairs "
                "already, or is constrained or quantized. Leave it out."
            )


def parameters(backbone: keras.Model, rank: int) -> int:
    """How many parameters the pairs have that train in the place of what trains of a backbone."""
    shapes = [layer.kernel.shape for layer in _places(backbone)]
    return sum(rank * (math.prod(shape[:-1]) + shape[-1]) for shape in shapes)


def enable(network: keras.Model, backbone: keras.Model, cfg: Backbone, seed: int) -> None:
    """Let pairs train in the place of what trains of a backbone in a network.

    network: a copy to train on. A pair's product is zero at first: the network computes what it did before.
    """
    inner = graph.part(network, backbone)
    places = _places(inner)
    for variable in inner.variables:
        variable.trainable = False
    for number, layer in enumerate(places):
        drawn = keras.initializers.HeUniform(seed=seed_for(seed, "pairs", number))
        layer.enable_lora(cfg.lora, lora_alpha=cfg.lora_alpha, a_initializer=drawn)


def merged(network: keras.Model) -> list[np.ndarray]:
    """A network's weights, in order, as they are without pairs: each product added to its kernel."""
    sums: dict[int, np.ndarray] = {}
    for layer in inside(network):
        if getattr(layer, "lora_enabled", False):
            own = {variable.name: variable for variable in layer.weights}
            a, b = (own[name].numpy() for name in PAIR)
            scale = layer.lora_alpha / layer.lora_rank
            sums[id(own["kernel"])] = own["kernel"].numpy() + scale * (a @ b)
    kept = [variable for variable in network.weights if variable.name not in PAIR]
    return [sums[id(v)] if id(v) in sums else v.numpy() for v in kept]


def _places(network: keras.Model) -> list[keras.layers.Layer]:
    """The query and value layers of what trains, in order."""
    kinds = (keras.layers.Dense, keras.layers.EinsumDense)
    return [
        layer
        for layer in inside(network)
        if isinstance(layer, kinds) and layer.name in QUERY_AND_VALUE and layer.trainable
    ]
