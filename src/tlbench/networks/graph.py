"""A backbone as a graph of operations: where one tensor alone leads on, and what is inside an encoder."""

import itertools
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlbench.networks import backbones
from tlbench.networks.hardware import keras

NEAR = 0.1  # of the units: so far before where it was asked for a stage may begin


@dataclass(frozen=True)
class Step:
    """An operation of a network. alone: whether every path from input to output leads through its one output.

    frozen: whether neither it nor any before it has weights that train.
    """

    name: str
    tensor: keras.KerasTensor
    alone: bool
    frozen: bool


def steps(network: keras.Model) -> list[Step]:
    """The operations of a network, each after those whose outputs it takes; its input is none."""
    by_depth = network._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    own = set(nodes)
    before = {node: [one for one in node.parent_nodes if one in own] for node in nodes}
    into, out_of, frozen = dict[Any, int](), dict.fromkeys(nodes, 0), dict[Any, bool]()
    for node in nodes:  # numbers of paths, exact: Python's whole numbers have no end
        into[node] = sum(into[one] for one in before[node]) or 1
        trains = getattr(node.operation, "trainable_weights", [])
        frozen[node] = not trains and all(frozen[one] for one in before[node])
    (last,) = (node for node in nodes if any(one is network.output for one in node.outputs))
    out_of[last] = 1
    for node in reversed(nodes):
        for one in before[node]:
            out_of[one] += out_of[node]
    return [
        Step(
            node.operation.name,
            node.outputs[0],
            into[node] * out_of[node] == into[last],
            frozen[node],
        )
        for node in nodes
        if before[node]
    ]


def in_blocks(backbone: keras.Model) -> keras.Model:
    """The same layers, not copies, where an encoder of a transformer is the blocks inside it, one after the other.

    As it is where that computes something else: not every encoder only calls its blocks.
    """

    def called(layer: Any, *tensors: Any, **others: Any) -> Any:
        blocks = backbones.encoder_blocks(layer)
        if not blocks or len(tensors) != 1 or any(other is not None for other in others.values()):
            return layer(*tensors, **others)
        (x,) = tensors
        for block in blocks:
            given = block(x)
            x = given[0] if isinstance(given, tuple) else given
        return layer.layer_norm(x) if hasattr(layer, "layer_norm") else x

    if not any(backbones.encoder_blocks(layer) for layer in backbone.layers):
        return backbone
    try:
        made = keras.models.clone_model(
            backbone, clone_function=lambda layer: layer, call_function=called
        )
    except ValueError:  # DeiT's blocks give attention that is none, which Keras lets no graph hold
        return backbone
    shape = (2, *backbone.input_shape[1:])
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    given, expected = (model(images, training=False) for model in (made, backbone))
    same = np.allclose(given, expected, rtol=1e-4, atol=1e-5)
    return made if same else backbone


def last_stage(backbone: keras.Model) -> int:
    """The first of the units with weights after which no map is larger than the last one.

    What pools at the very end is no stage. Of tokens, which keep their number, the last quarter of the units.
    """
    units = backbones.units(backbone)
    if len(backbone.output.shape) != 4:
        return 3 * len(units) // 4
    sides = [unit.output.shape[1] if _is_map(unit) else 0 for unit in units]
    last = max(n for n, unit in enumerate(units) if unit.weights)
    return max((n for n, side in enumerate(sides[:last]) if side > sides[last]), default=-1) + 1


def first_stage(backbone: keras.Model) -> int:
    """How many units make the first stage: all before the first map of less than a quarter of the image's side.

    Of tokens, which keep their number, the first quarter of the units.
    """
    units = backbones.units(backbone)
    if len(backbone.output.shape) != 4:
        return len(units) // 4
    least = backbone.input_shape[1] // 4
    return next(
        (n for n, u in enumerate(units) if _is_map(u) and u.output.shape[1] < least), len(units)
    )


def _is_map(unit: keras.layers.Layer) -> bool:
    return len(getattr(unit.output, "shape", ())) == 4


def snapped(backbone: keras.Model, first: int) -> int:
    """A unit at or shortly before one, by number, below which a single tensor lies, and the smallest of those.

    It is what is kept of every image. The same unit where there is none so near.
    """
    units = backbones.units(backbone)
    number = {unit.name: n + 1 for n, unit in enumerate(units)}
    sizes = {
        number[step.name]: math.prod(step.tensor.shape[1:])
        for step in steps(in_blocks(backbone))
        if step.alone and step.name in number
    }
    near = [start for start in sizes if first - NEAR * len(units) <= start <= first]
    return min(near, key=lambda start: (sizes[start], first - start), default=first)


# ---------------------------------------------------------------- blocks

# How names of layers of one block begin: conv2_block1, block2a, stage_0_block_1, expanded_conv_3, layers_11.
_BLOCK = re.compile(
    r".*((block|stage|stack|layers?)_?\d+[a-z]?|expanded_conv(_\d+)?|conv_dw_\d+)(?=_|$)"
)


def blocks(backbone: keras.Model) -> list[list[keras.layers.Layer]]:
    """Its units, in order, by the blocks that it is made of, the first of them its stem.

    A block begins where a layer's name begins with another block's; a layer whose name tells of no block belongs to
    the one before it, and the stem is what stands before all of them. In a network that names none a block begins at
    each layer with a kernel that all of the network passes through: a convolution of a chain, the first of a branch.
    """
    found: list[list[keras.layers.Layer]] = [[]]
    told = [_BLOCK.match(unit.name) if unit.weights else None for unit in backbones.units(backbone)]
    names = [match and match[0] for match in told]
    named, now = any(names), None
    behind = set() if named else _behind_necks(backbone)
    for unit, name in zip(backbones.units(backbone), names, strict=True):
        kernel = any(len(weight.shape) > 1 for weight in unit.weights)
        if (name and name != now) or (kernel and unit.name in behind):
            found.append([])
        now = name or now
        found[-1].append(unit)
    return [block for block in found if any(unit.weights for unit in block)]


def depths(network: keras.Model, backbone: keras.Model) -> dict[str, int]:
    """How deep below its head each trainable variable of a network lies, by path: 0 in the head, 1 in the last block.

    network: one with layers of the backbone's names, inside of it or among its own; or the head alone.
    """
    depth = {u.name: d for d, block in enumerate(reversed(blocks(backbone)), 1) for u in block}
    inner = part(network, backbone)
    of_units = {
        v.path: depth.get(u.name, 0) for u in backbones.units(inner) for v in u.trainable_variables
    }
    return {v.path: of_units.get(v.path, 0) for v in network.trainable_variables}


def part(network: keras.Model, backbone: keras.Model) -> keras.Model:
    """What of a backbone, under its name, is inside a network; the network itself where nothing is."""
    return next((layer for layer in network.layers if layer.name == backbone.name), network)


def _behind_necks(backbone: keras.Model) -> set[str]:
    """Names of the operations that come next where one tensor alone leads on."""
    found = steps(backbone)
    pairs = itertools.pairwise(found)
    return {found[0].name, *(after.name for one, after in pairs if one.alone)}
