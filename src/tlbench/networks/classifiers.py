"""The classifier: raw pixels -> preprocessing -> backbone -> pooled features -> head -> probabilities.

Built of Keras's own layers only, so that a saved model loads in plain Keras and cannot be fed wrongly.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from tlbench.base import kept
from tlbench.base.draws import reseed, seed_for
from tlbench.base.errors import ConfigError, suggest
from tlbench.config.schema import Backbone, Config, Head, Preprocessing
from tlbench.networks import backbones, graph, lora
from tlbench.networks.hardware import keras

# Of `trainable`: the layers whose maps have the size of the last, or are the largest of all blocks.
LAST_STAGE, FIRST_STAGE = "last_stage", "first_stage"


@dataclass(frozen=True)
class Classifier:
    """One network, cut in two at the pooled features; its views share their weights."""

    model: keras.Model  # (batch, height, width, 3) in 0-255 -> (batch, classes) probabilities
    backbone: (
        keras.Model
    )  # the pretrained network inside it, (batch, height, width, 3) -> maps of features
    head: keras.Model  # (batch, features) -> (batch, classes): what follows the pooled features
    entrance: keras.KerasTensor  # what the backbone is given within the model
    maps: keras.KerasTensor  # what it makes of that
    pooled: keras.KerasTensor  # the features within the model
    lora: int | None  # rank of the pairs that train in the backbone's place

    def set_trainable(self, trainable: bool | str | float) -> None:
        """Train every layer, the head only, or the backbone from a layer on (see `_first`), or its first stage."""
        self.backbone.trainable = (
            False  # first: Keras leaves all inside as it is where nothing changes
        )
        self.backbone.trainable = trainable is not False
        if isinstance(trainable, bool):
            return
        units = backbones.units(self.backbone)
        if trainable == FIRST_STAGE:
            frozen = units[graph.first_stage(self.backbone) :]
        else:
            frozen = units[: _first(self.backbone, trainable)]
        for layer in frozen:
            layer.trainable = False

    @property
    def features(self) -> keras.Model:
        """The network from pixels to pooled features, (batch, features)."""
        return keras.Model(self.model.input, self.pooled, name="features")

    @property
    def parameters(self) -> int:
        return self.model.count_params()

    @property
    def pairs(self) -> int:
        """Parameters of the low-rank pairs that train, which are none of the model's own."""
        if self.lora is None or not self.backbone.trainable_weights:
            return 0
        return lora.parameters(self.backbone, self.lora)

    @property
    def trainable_parameters(self) -> int:
        trained = (self.head if self.pairs else self.model).trainable_weights
        return self.pairs + sum(variable.value.numpy().size for variable in trained)


def check_layers(cfg: Config) -> None:
    """Refuse a stage that begins at no layer of the backbone, before weights or images are read."""
    kinds = [stage.trainable for stage in cfg.strategy.stages]
    stages = (LAST_STAGE, FIRST_STAGE)
    names = [name for name in kinds if isinstance(name, str) and name not in stages]
    if names:
        # Of a file the weights are the network, else they cost a download and name nothing.
        own = cfg.backbone.builder == "file"
        backbone = backbones.build(
            cfg.backbone if own else replace(cfg.backbone, weights=None)
        ).model
        for name in names:
            _number(backbone, name)


def _first(backbone: keras.Model, trainable: str | float) -> int:
    """The number of the first unit that trains: a named one, the last stage's, or the first of a share of them.

    The last two begin where a single tensor lies below them, so that all below is computed once.
    """
    if isinstance(trainable, float):
        units = len(backbones.units(backbone))
        return graph.snapped(backbone, round((1 - trainable) * units))
    if trainable == LAST_STAGE:
        return graph.snapped(backbone, graph.last_stage(backbone))
    return _number(backbone, trainable)


def _number(backbone: keras.Model, name: str) -> int:
    """Where a layer stands in a backbone. Raises ConfigError naming a few where there is none."""
    names = [layer.name for layer in backbones.units(backbone)]
    if name in names:
        return names.index(name)
    if near := difflib.get_close_matches(name, names, n=1):
        hint = f"Did you mean '{near[0]}'?"
    else:
        some = ", ".join(names[len(names) // 2 :: len(names) // 6 or 1])
        known = f"true, false, {LAST_STAGE}, {FIRST_STAGE}, a share"
        hint = f"Expected {known} or one of its {len(names)} layers, such as {some}."
    raise ConfigError(f"trainable={name} is no layer of {backbone.name}. {hint}")


def build(
    cfg: Config, input_shape: tuple[int, int, int], classes: int, images: int = 1
) -> Classifier:
    """The whole classifier of a configuration, frozen or trainable as its first stage says.

    input_shape: (height, width, 3) of the images in the data set; images: that a head of nearest neighbours
    holds, each view of each training image. Raises ConfigError when the backbone's
    settings do not fit keras.applications, WeightsError when its weights do not fit it.
    """
    backbone = _backbone(cfg, input_shape)
    # Apart from the backbone's draws: the head starts alike whatever they were.
    keras.utils.set_random_seed(seed_for(cfg.seed, "head"))
    pixels = keras.Input(input_shape, name="input")
    x = _preprocess(pixels, cfg.backbone.preprocessing)
    entrance = _enlarge(x, cfg.backbone)
    maps = backbone.model(entrance)
    features = backbones.pooled(maps, backbone.others, cfg.backbone.pooling)
    layers = _head_layers(cfg.head, classes, images, several=cfg.data.task == "multilabel")
    model = keras.Model(pixels, _chain(layers, features), name="classifier")
    alone = keras.Input(features.shape[1:], name="features")
    head = keras.Model(alone, _chain(layers, alone), name="head")
    classifier = Classifier(
        *(model, backbone.model, head, entrance, maps, features), cfg.backbone.lora
    )
    classifier.set_trainable(cfg.strategy.stages[0].trainable)
    return classifier


def _backbone(cfg: Config, input_shape: tuple[int, int, int]) -> backbones.Network:
    """The backbone as a process of its own would have it, though one job of several may find it kept."""

    def make() -> backbones.Network:
        keras.utils.set_random_seed(seed_for(cfg.seed, "backbone"))
        return backbones.build(cfg.backbone)

    drawn = cfg.seed if cfg.backbone.weights is None else None
    backbone = kept.once(("backbone", repr(cfg.backbone), input_shape, drawn), make)
    # A layer remembers its calls, and by them the network around each: the head of the job before.
    backbone.model._inbound_nodes.clear()
    backbone.model._outbound_nodes.clear()
    reseed(backbone.model, cfg.seed, stage=0)
    return backbone


def _preprocess(pixels: Any, cfg: Preprocessing | None) -> Any:
    """(pixels - mean) / std in the channel order that the backbone was pretrained with."""
    if cfg is None:
        return pixels
    x = pixels[..., ::-1] if cfg.channel_order == "bgr" else pixels
    scale = [1.0 / s for s in cfg.std]
    offset = [-m / s for m, s in zip(cfg.mean, cfg.std, strict=True)]
    return keras.layers.Rescaling(scale, offset, name="preprocessing")(x)


def _enlarge(x: Any, cfg: Backbone) -> Any:
    """To the backbone's image size: whole factors as in the report, other sizes by its interpolation."""
    (height, width), size = x.shape[1:3], cfg.image_size
    if (height, width) == (size, size):
        return x
    if size % height == 0 and size % width == 0:
        factor = (size // height, size // width)
        return keras.layers.UpSampling2D(factor, name="up_sampling2d")(x)
    if cfg.interpolation == "bicubic":
        return _bicubic(x, size)
    return keras.layers.Resizing(size, size, name="resizing")(x)


def _bicubic(x: Any, size: int) -> Any:
    """As pictures are read: two products of matrices, for rows and for columns.

    Neither OpenVINO nor LiteRT has what Keras's own bicubic Resizing is made of.
    """
    height, width, channels = x.shape[1:]
    x = keras.layers.Reshape((height, width * channels), name="resizing_rows")(x)
    x = keras.ops.matmul(_bicubic_weights(height, size), x)
    x = keras.layers.Reshape((size, width, channels), name="resizing_columns")(x)
    return keras.ops.matmul(_bicubic_weights(width, size), x)


def _bicubic_weights(side: int, size: int) -> np.ndarray:
    """What each of `side` pixels in a row adds to each of `size`, (size, side): Pillow's own, of unit vectors."""
    units = Image.fromarray(np.eye(side, dtype=np.float32))
    return np.asarray(units.resize((side, size), Image.Resampling.BICUBIC))


def _head_layers(
    cfg: Head, classes: int, images: int, *, several: bool
) -> list[Callable[[Any], Any]]:
    """What follows the features, one after the other; several: whether an image may have several classes."""
    if cfg.solver == "nearest":
        return _nearest(min(cfg.neighbours or 1, images), classes, images)
    layers: list[Callable[[Any], Any]] = []
    try:
        keras.activations.get(cfg.activation)
    except ValueError as error:
        known = [n for n, value in vars(keras.activations).items() if inspect.isfunction(value)]
        raise ConfigError(
            f"Unknown head.activation '{cfg.activation}'. {suggest(cfg.activation, known)}"
        ) from error
    for i, width in enumerate(cfg.widths):
        suffix = f"_{i}" if i else ""
        layers.append(keras.layers.Dense(width, activation=cfg.activation, name=f"dense{suffix}"))
        if cfg.dropout:
            layers.append(keras.layers.Dropout(cfg.dropout, name=f"dropout{suffix}"))
    # float32 whatever the precision of the rest: a softmax over half floats loses small classes.
    activation = "sigmoid" if several else "softmax"
    final = keras.layers.Dense(
        classes, activation=activation, dtype="float32", name="classification"
    )
    return [*layers, final]


def _nearest(neighbours: int, classes: int, images: int) -> list[Callable[[Any], Any]]:
    """The share that each class has of the images of the largest cosines; of equal cosines all vote."""
    layers = keras.layers

    def voting(cosines: Any) -> Any:
        least = keras.ops.top_k(cosines, neighbours)[0][:, -1:]
        return keras.ops.cast(keras.ops.greater_equal(cosines, least), "float32")

    held = layers.Dense(images, use_bias=False, dtype="float32", name="neighbours")
    named = layers.Dense(classes, use_bias=False, dtype="float32", name="classification")

    def shares(votes: Any) -> Any:
        return named(votes) / keras.ops.sum(votes, axis=-1, keepdims=True)

    return [layers.UnitNormalization(dtype="float32", name="unit"), held, voting, shares]


def _chain(layers: list[Callable[[Any], Any]], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x
