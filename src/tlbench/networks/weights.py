"""Backbone weights from a file: a Keras weights or model file, full or no-top, or an earlier run."""

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from tlbench.base.errors import RunError, TlbenchError, WeightsError, first_line
from tlbench.networks.hardware import keras
from tlbench.runs.run import Run

Whole = Callable[..., keras.Model]
LayerWeights = list[
    tuple[str, list[np.ndarray]]
]  # (layer name, its arrays), in the network's order


def load(backbone: keras.Model, path: str, whole: Whole | None = None) -> None:
    """Put the weights of a file into a backbone, layer by layer.

    path: a Keras weights or model file, or the folder of a run; whole: makes the network with its top, for files
    that name no layers. Layers are matched by name, or by order where a file's names are other; layers of the file that
    the backbone lacks (a top) are left out. Raises WeightsError naming the first layer that does
    not fit.
    """
    file = Path(path)
    if file.is_dir():
        try:
            file = Run.finished(file).model
        except RunError as error:
            raise WeightsError(f"backbone.weights={path} is no finished run: {error}") from error
    if not file.is_file():
        raise WeightsError(
            f"backbone.weights={path} does not exist. Expected imagenet, null, a Keras file or a run folder."
        )
    try:
        found = _read(file, backbone, whole)
    except TlbenchError:
        raise
    except Exception as error:  # h5py, zipfile and Keras each raise their own for a damaged file
        raise WeightsError(
            f"backbone.weights={path} is no Keras weights or model file ({first_line(error)})."
        ) from error
    _check_finite([array for _, arrays in found for array in arrays], path)
    _assign(backbone, found, path)


def as_backbone(path: str, image_size: int) -> keras.Model:
    """The Keras model in a file as a backbone: up to its global pooling, where it has one.

    image_size: the side, in pixels, of the images it is to take. Raises WeightsError when the file holds
    no model, or one that takes no such images.
    """
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        pooling = _last_pooling(model)
        output = pooling.input if pooling else model.output
        if len(output.shape) == 2:  # features already: one position of a map
            output = keras.layers.Reshape((1, 1, output.shape[-1]))(output)
        backbone = keras.Model(model.input, output, name="backbone")
        if backbone.input_shape[1:3] != (image_size, image_size):
            pixels = keras.Input((image_size, image_size, 3))
            resized = keras.models.clone_model(backbone, input_tensors=pixels)
            resized.set_weights(backbone.get_weights())
            backbone = resized
    except Exception as error:  # h5py, zipfile and Keras each raise their own
        raise WeightsError(
            f"backbone.weights={path} cannot be the backbone for images of {image_size} pixels "
            f"({first_line(error)})."
        ) from error
    _check_finite(backbone.get_weights(), path)
    if len(backbone.output_shape) != 4:
        raise WeightsError(
            f"backbone.weights={path} gives {backbone.output_shape}. Expected maps of features, or features."
        )
    return backbone


def _last_pooling(model: keras.Model) -> keras.layers.Layer | None:
    """The global pooling that all of a model's output comes through; one that squeezes a block is none."""
    kinds = keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D
    for layer in reversed(model.layers):
        if isinstance(layer, kinds):
            try:
                keras.Model(layer.output, model.output)
            except ValueError:  # another way leads around it
                continue
            return layer
    return None


def _check_finite(arrays: list[np.ndarray], path: str) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise WeightsError(f"backbone.weights={path} holds weights that are no finite numbers.")


def digest(model: keras.Model) -> str:
    """SHA-256, in hexadecimal, over every variable's name and value."""
    sha = hashlib.sha256()
    for variable in model.weights:
        sha.update(variable.path.rpartition("/")[2].encode())
        sha.update(np.ascontiguousarray(variable.numpy()).data)
    return sha.hexdigest()


def _read(file: Path, backbone: keras.Model, whole: Whole | None) -> LayerWeights:
    if h5py.is_hdf5(file):
        _check_links(file)
    if file.suffix == ".keras":
        return _of_model(keras.models.load_model(file, compile=False, safe_mode=True), backbone)
    if file.name.endswith(".weights.h5"):
        return _of_weights_file(file, backbone, whole)
    with h5py.File(file) as opened:
        is_model = "model_config" in opened.attrs
    if is_model:  # the weights of a network inside it lie there without their layers' names
        return _of_model(keras.models.load_model(file, compile=False, safe_mode=True), backbone)
    with h5py.File(file) as opened:
        group = opened.get("model_weights", opened)
        if "layer_names" not in group.attrs:
            raise WeightsError(
                f"backbone.weights={file} has no layers in it. Expected a Keras weights or model file."
            )
        return list(_of_h5(group))


def _of_model(model: keras.Model, backbone: keras.Model) -> LayerWeights:
    """Layers of the backbone inside a classifier, or of the model itself.

    A backbone's name may tell its image size, and pretraining at one size serves another.
    """
    wanted = {layer.name for layer in backbone.layers if layer.weights}
    parts = [model, *_nested(model)]
    # The one that has most of the backbone's layers; else the one with the most weights, but for the whole.
    return _layers(
        max(
            parts,
            key=lambda part: (
                len(wanted & {layer.name for layer in part.layers}),
                part is not model,
                part.count_params(),
            ),
        )
    )


def _nested(model: keras.Model) -> list[keras.Model]:
    """Every network inside a network."""
    inside = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return [part for one in inside for part in (one, *_nested(one))]


def _check_links(file: Path) -> None:
    """Refuse an HDF5 file that would bring in the bytes of another one."""

    def check(group: h5py.Group) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            part = group[name] if isinstance(link, h5py.HardLink) else None
            if part is None or (
                isinstance(part, h5py.Dataset) and (part.external or part.is_virtual)
            ):
                raise WeightsError(
                    f"backbone.weights={file} refers to other files at '{group.name}/{name}': refused."
                )
            if isinstance(part, h5py.Group):
                check(part)

    with h5py.File(file) as opened:
        check(opened)


def _layers(model: keras.Model) -> LayerWeights:
    return [(layer.name, layer.get_weights()) for layer in model.layers if layer.weights]


def _of_weights_file(file: Path, backbone: keras.Model, whole: Whole | None) -> LayerWeights:
    """Keras 3 weights files name no layers, so they are loaded into a network of the same shape."""
    try:
        backbone.load_weights(file)
        return _layers(backbone)
    except ValueError as no_top:
        reason = no_top
    for part in _parts_of(file):
        try:
            backbone.load_weights(part)
            return _layers(backbone)
        except ValueError:
            continue
        finally:
            part.unlink()
    if whole and (classes := _classes_of(file)):
        try:
            full = whole(include_top=True, weights=None, classes=classes)
            full.load_weights(file)
            return _layers(full)
        except ValueError as full_network:
            reason = full_network
    raise WeightsError(
        f"backbone.weights={file} does not fit {backbone.name}: {first_line(reason)}"
    ) from reason


def _parts_of(file: Path) -> Iterator[Path]:
    """Each network inside a network of a Keras 3 weights file, as a weights file of its own."""
    with h5py.File(file) as opened, tempfile.TemporaryDirectory() as folder:
        names: list[str] = []
        opened.visit(lambda name: names.append(name) if name.endswith("/layers") else None)
        for i, name in enumerate(names):
            part = Path(folder) / f"{i}.weights.h5"
            with h5py.File(part, "w") as target:
                for inside in opened[name].parent:
                    opened[name].parent.copy(inside, target)
            yield part


def _classes_of(file: Path) -> int | None:
    """Width of the last layer in a Keras 3 weights file of a full network: its one-dimensional bias."""
    shapes: list[tuple[int, ...]] = []
    with h5py.File(file) as opened:
        opened.visititems(
            lambda name, item: (
                shapes.append(item.shape)
                if isinstance(item, h5py.Dataset)
                and re.search(r"(dense|conv2d)[^/]*/vars/1$", name)
                else None
            )
        )
    return shapes[-1][0] if shapes and len(shapes[-1]) == 1 else None


def _of_h5(group: h5py.Group) -> LayerWeights:
    """The older HDF5 layout, which keras.applications publishes its weights in."""
    layers: LayerWeights = []
    for raw in group.attrs["layer_names"]:
        layer = group[_text(raw)]
        if "layer_names" in layer.attrs:  # a network inside the network
            layers += _of_h5(layer)
        elif names := [_text(name) for name in layer.attrs.get("weight_names", [])]:
            layers.append((_text(raw), [np.asarray(layer[name]) for name in names]))
    return layers


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw


def _assign(backbone: keras.Model, found: LayerWeights, path: str) -> None:
    wanted = [layer for layer in backbone.layers if layer.weights]
    named = dict(found)
    by_name = all(layer.name in named for layer in wanted)
    if not by_name and len(found) < len(wanted):
        lost = next(layer.name for layer in wanted if layer.name not in named)
        raise WeightsError(
            f"backbone.weights={path} does not fit {backbone.name}: it has no layer '{lost}' "
            f"({len(found)} layers with weights, {len(wanted)} expected)."
        )
    for layer, (name, arrays) in zip(wanted, found, strict=False):
        if by_name:
            name, arrays = layer.name, named[layer.name]
        shapes = [tuple(variable.shape) for variable in layer.weights]
        if shapes != [array.shape for array in arrays]:
            raise WeightsError(
                f"backbone.weights={path} does not fit {backbone.name}: layer '{layer.name}' expects {shapes}, "
                f"the file's '{name}' holds {[array.shape for array in arrays]}."
            )
        layer.set_weights(arrays)
