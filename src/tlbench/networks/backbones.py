"""Pretrained networks: each builder a name at the seam `backbones`, ours and those of others.

A builder is a function of a backbone's configuration. It returns a Keras model from preprocessed images, (batch,
size, size, 3), with the weights that `weights` asks for, or a `Network` where its output needs explaining.
"""

import contextlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from typing import Any

from tlbench.base import registry
from tlbench.base.errors import ConfigError, DownloadError, TlbenchError, first_line, suggest
from tlbench.base.muted import muted_stdout
from tlbench.config.schema import Backbone
from tlbench.networks import weights
from tlbench.networks.hardware import keras


@dataclass(frozen=True)
class Network:
    """A backbone and what its output is.

    model: (batch, size, size, 3) -> maps (batch, rows, columns, width), tokens (batch, tokens, width), or
    features (batch, width); others: tokens before those of the image's patches, the class token the first.
    """

    model: keras.Model
    others: int = 0


def build(cfg: Backbone) -> Network:
    """The backbone of a configuration.

    Raises ConfigError for a builder or an architecture that there is not, or arguments that do not fit it,
    and WeightsError for weights that cannot be fetched, read or fitted.
    """
    made = registry.load("backbones", cfg.builder, "backbone.builder")(cfg)
    return made if isinstance(made, Network) else Network(made)


def keras_applications(cfg: Backbone) -> keras.Model:
    """A network of keras.applications, without its top: https://keras.io/api/applications/"""
    function = _application(cfg.architecture)
    known = inspect.signature(function).parameters
    for name in cfg.arguments:
        if name not in known:
            raise ConfigError(
                f"Unknown setting 'backbone.arguments.{name}'. {suggest(name, known)}"
            )
    shape = (cfg.image_size, cfg.image_size, 3)
    downloaded = "imagenet" if cfg.weights == "imagenet" else None
    try:
        with muted_stdout() if downloaded else contextlib.nullcontext():
            backbone = function(
                include_top=False, weights=downloaded, input_shape=shape, **cfg.arguments
            )
    except Exception as error:
        raise _explained(cfg, error) from error
    if cfg.weights_file:
        weights.load(backbone, cfg.weights_file, whole=function)
    return backbone


def file(cfg: Backbone) -> keras.Model:
    """The Keras model in the file `weights`, up to its global pooling."""
    return weights.as_backbone(cfg.weights or "", cfg.image_size)


def _application(name: str | None) -> Callable[..., keras.Model]:
    """The builder function of this name in keras.applications, and nothing else."""
    builders = [n for n, value in vars(keras.applications).items() if inspect.isfunction(value)]
    if name not in builders:
        raise ConfigError(f"Unknown backbone.architecture '{name}'. {suggest(str(name), builders)}")
    return getattr(keras.applications, str(name))


def _explained(cfg: Backbone, error: Exception) -> TlbenchError:
    """What a user can do when keras.applications refuses to build a backbone."""
    text = first_line(error)
    if "fetch failure" in text or "urlopen" in text:
        reason = re.sub(r".* -- |\[Errno -?\d+\] ", "", text)  # behind the address
        return DownloadError(
            f"backbone.weights=imagenet could not be downloaded for {cfg.architecture} ({reason}).",
            "Set backbone.weights to a Keras weights file or an earlier run, or to null for random weights.",
        )
    if least := re.search(r"[Ii]nput size must be at least (\d+)x", text):
        return ConfigError(
            f"backbone.image_size={cfg.image_size} is too small for {cfg.architecture}. "
            f"Expected at least {least[1]}."
        )
    return ConfigError(
        f"backbone {cfg.name}: keras.applications.{cfg.architecture} refuses: {text}"
    )


# ---------------------------------------------------------------- pooling


def pooled(output: Any, others: int, pooling: str) -> Any:
    """Features of an image, (batch, features), from what a backbone gives: see `Network`.

    pooling: "average" over positions, or over the tokens of patches; "cls", the class token; or both, one after
    the other, as DINOv2 was evaluated (Oquab et al. 2023, arXiv 2304.07193). Raises ConfigError for a token that
    there is not.
    """
    rank = len(output.shape)
    if pooling != "average" and (rank != 3 or not others):
        raise ConfigError(
            f"backbone.pooling={pooling} needs a class token, which this backbone does not have. "
            "Expected average."
        )
    if rank == 2:
        return output
    if rank == 4:
        return keras.layers.GlobalAveragePooling2D(name="global_average_pooling2d")(output)
    parts = []
    if pooling != "average":
        parts.append(output[:, 0])
    if pooling != "cls":
        patches = output[:, others:] if others else output
        parts.append(keras.layers.GlobalAveragePooling1D(name="global_average_pooling1d")(patches))
    return parts[0] if len(parts) == 1 else keras.layers.Concatenate(name="cls_average")(parts)


# ---------------------------------------------------------------- layers


def inside(layer: Any, *, deep: bool = True) -> list[keras.layers.Layer]:
    """Layers that a layer or a network is made of, in order; deep: each followed by those that it is made of."""
    is_network = isinstance(layer, keras.Model)
    parts = (
        layer.layers if is_network else layer._flatten_layers(include_self=False, recursive=False)
    )
    found: dict[int, keras.layers.Layer] = {}  # each once
    for part in parts:
        found.update({id(one): one for one in (part, *(inside(part) if deep else ()))})
    return list(found.values())


def units(backbone: keras.Model) -> list[keras.layers.Layer]:
    """Layers in order, from any of which on a stage may train: an encoder counts as the blocks inside it."""
    found: list[keras.layers.Layer] = []
    for layer in backbone.layers:
        is_encoder = type(layer).__name__.endswith("Encoder")
        found += (inside(layer, deep=False) if is_encoder else []) or [layer]
    return found


def encoder_blocks(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The blocks of a transformer's encoder, in order; none of any other layer."""
    if not type(layer).__name__.endswith("Encoder"):
        return []
    return list(getattr(layer, "encoder_layers", None) or getattr(layer, "layers", []))


def settle(model: keras.Model) -> None:
    """Before a model is saved: let what loading takes for position embeddings be those that were trained.

    KerasHub's DINOv2 keeps both, and writes the trained ones back only where their sum has grown.
    """
    for layer in inside(model):
        if hasattr(layer, "interpolated_position_embeddings"):
            layer.position_embeddings.assign(layer.interpolated_position_embeddings)


# ---------------------------------------------------------------- what a saved one needs


def requires(model: keras.Model) -> dict[str, str]:
    """Packages, with their versions, that must be imported before a model of these layers can be loaded."""
    kinds = {type(layer) for layer in (model, *inside(model))}
    packages = {kind.__module__.partition(".")[0] for kind in kinds} - {"keras", "tlbench"}
    known = packages_distributions() if packages else {}  # it reads every package's files
    return {known[name][0]: version(known[name][0]) for name in sorted(packages) if name in known}
