"""Networks of KerasHub (the hub extra): transformers and newer convolutional networks than keras.applications has.

Source: https://keras.io/keras_hub/. Everything is made of layers of Keras and KerasHub, so that a saved classifier
loads in Keras where keras-hub is installed.
"""

import inspect
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tlbench.base.errors import ConfigError, DownloadError, WeightsError, first_line, suggest
from tlbench.base.muted import muted_stdout
from tlbench.config.schema import Backbone
from tlbench.networks import weights
from tlbench.networks.backbones import Network, settle
from tlbench.networks.hardware import keras

TOWERS = {"SigLIPVisionEncoder": "SigLIPBackbone"}  # a part of a published network -> the whole


def keras_hub(cfg: Backbone) -> Network:
    """A backbone of keras_hub.models from its arguments, with the weights of a preset, a file or at random.

    Raises ConfigError where KerasHub is not installed or refuses, and WeightsError for weights that cannot be
    fetched or do not fit.
    """
    if find_spec("keras_hub") is None:
        raise ConfigError(
            f"backbone={cfg.name} is one of KerasHub, which is not installed: pip install 'tlbench[hub]'"
        )
    backbone = _constructed(cfg)
    if cfg.weights == "preset":
        _take(backbone, _preset(cfg, f"{cfg.preset}"), cfg)
    elif cfg.weights_file and (Path(cfg.weights_file) / "config.json").is_file():
        _take(
            backbone, _preset(cfg, cfg.weights_file), cfg
        )  # a folder of KerasHub's save_to_preset
    elif cfg.weights_file:
        weights.load(backbone, cfg.weights_file)
    if hasattr(backbone, "position_embedding_shape"):
        backbone = _of_own_size(backbone)
    return Network(_single(backbone), _others(cfg))


def _others(cfg: Backbone) -> int:
    """Tokens before those of the patches, the class token the first; 0 for maps and features."""
    match cfg.architecture:
        case "ViTBackbone":
            return int(cfg.arguments.get("use_class_token", True))
        case "DeiTBackbone":
            return 2  # class, distillation
        case "DINOV2Backbone":
            return 1 + int(cfg.arguments.get("num_register_tokens", 0))
        case "DINOV3Backbone":
            return 1 + int(cfg.arguments.get("num_register_tokens", 4))
    return 0


def _constructed(cfg: Backbone) -> keras.Model:
    """KerasHub's own object, with random weights."""
    kind = _kind(cfg.architecture)
    patch = cfg.arguments.get("patch_size", 1)
    if cfg.image_size % patch:
        raise ConfigError(
            f"backbone.image_size={cfg.image_size} is not valid. Expected a multiple of {patch}, the side of a patch."
        )
    known = inspect.signature(kind.__init__).parameters
    for name in cfg.arguments:
        if name not in known:
            raise ConfigError(
                f"Unknown setting 'backbone.arguments.{name}'. {suggest(name, set(known) - {'self'})}"
            )
    # EfficientNet alone calls it input_shape.
    name = "image_shape" if "image_shape" in known else "input_shape"
    try:
        return kind(**{name: [cfg.image_size, cfg.image_size, 3], **cfg.arguments})
    except Exception as error:  # KerasHub raises nearly anything for what does not fit
        raise ConfigError(
            f"backbone {cfg.name}: keras_hub.models.{cfg.architecture} refuses: {first_line(error)}"
        ) from error


def _kind(name: str | None) -> Any:
    import keras_hub

    known = [n for n in vars(keras_hub.models) if n.endswith("Backbone")] + list(TOWERS)
    if name not in known:
        raise ConfigError(f"Unknown backbone.architecture '{name}'. {suggest(str(name), known)}")
    return getattr(keras_hub.models, str(name))


def _preset(cfg: Backbone, preset: str) -> keras.Model:
    """Published weights, downloaded once, or those in a folder."""
    try:
        with muted_stdout():
            whole = _whole(cfg).from_preset(preset)
    except Exception as error:
        raise DownloadError(
            f"backbone.weights={cfg.weights}: KerasHub's '{preset}' could not be had ({first_line(error)}).",
            "Set backbone.weights to a file or a folder that holds it, or to null for random weights.",
        ) from error
    return whole.vision_encoder if cfg.architecture in TOWERS else whole


def _whole(cfg: Backbone) -> Any:
    import keras_hub

    return getattr(keras_hub.models, TOWERS.get(str(cfg.architecture), str(cfg.architecture)))


def _take(backbone: keras.Model, source: keras.Model, cfg: Backbone) -> None:
    """Weights of a network that KerasHub made; what it calls the layers is left behind."""
    try:
        backbone.set_weights(source.get_weights())
    except ValueError as error:
        raise WeightsError(
            f"backbone.weights={cfg.weights} does not fit {cfg.name} at {cfg.image_size} pixels "
            f"({first_line(error)})."
        ) from error


def _of_own_size(backbone: keras.Model) -> keras.Model:
    """A DINOV2Backbone whose stored position embeddings are those of its image size.

    KerasHub stores them at the size of pretraining and interpolates at every loading: a fine-tuned model would
    come back as another one.
    """
    config = backbone.get_config()
    config["position_embedding_shape"] = config["image_shape"]
    del config["name"]  # which KerasHub would put before the names of the layers
    copy = backbone.__class__.from_config(config)
    for variable, source in zip(copy.variables, backbone.variables, strict=True):
        if variable.shape == source.shape:
            variable.assign(source)
    settle(copy)
    return copy


def _single(backbone: keras.Model) -> keras.Model:
    """The same layers, not copies, from one tensor to one.

    A backbone that has it so already stays as it is: the layers of ViT and DeiT cannot be saved one by one (their
    get_config gives what __init__ refuses), the backbone as a whole can.
    """
    output = backbone.output
    if isinstance(output, dict):  # HGNetV2: a map for each stage, the last one is the backbone's
        output = list(output.values())[-1]
    if not isinstance(backbone.input, dict) and output is backbone.output:
        return backbone
    (pixels,) = backbone.inputs
    return keras.Model(pixels, output, name=backbone.name)
