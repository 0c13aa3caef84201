"""Backbone weights from files of every kind that Keras writes, and what is said of those that do not fit."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from helpers import MOBILENET, Answer, make_config
from tlbench.base.errors import ConfigError, WeightsError
from tlbench.networks import classifiers, weights
from tlbench.networks.classifiers import build, check_layers
from tlbench.networks.hardware import keras
from tlbench.runs.recording import Recording


def network(*, top: bool, alpha: float = 0.25, classes: int = 7) -> keras.Model:
    shape = (32, 32, 3)
    return keras.applications.MobileNet(
        alpha=alpha, weights=None, include_top=top, input_shape=shape, classes=classes
    )


def older_layout(source: keras.Model, path: Path, prefix: str = "") -> None:
    """The HDF5 layout in which keras.applications publishes its weights."""
    with h5py.File(path, "w") as file:
        layers = [layer for layer in source.layers if layer.weights]
        file.attrs["layer_names"] = [(prefix + layer.name).encode() for layer in layers]
        for layer in layers:
            group = file.create_group(prefix + layer.name)
            names = [f"{layer.name}/{i}".encode() for i in range(len(layer.weights))]
            group.attrs["weight_names"] = names
            for name, value in zip(names, layer.get_weights(), strict=True):
                group.create_dataset(name.decode(), data=value)


SAVED: dict[str, Callable[[Path], keras.Model]] = {}


def saved(write: Callable[[Path], keras.Model]) -> Callable[[Path], keras.Model]:
    SAVED[write.__name__] = write
    return write


@saved
def no_top_weights_h5(folder: Path) -> keras.Model:
    source = network(top=False)
    source.save_weights(folder / "file.weights.h5")
    return source


@saved
def full_weights_h5(folder: Path) -> keras.Model:
    source = network(top=True)
    source.save_weights(folder / "file.weights.h5")
    return source


@saved
def full_model(folder: Path) -> keras.Model:
    source = network(top=True)
    source.save(folder / "file.keras")
    return source


@saved
def full_model_h5(folder: Path) -> keras.Model:
    source = network(top=True)
    source.save(folder / "file.h5")
    return source


@saved
def older_no_top(folder: Path) -> keras.Model:
    source = network(top=False)
    older_layout(source, folder / "file.h5")
    return source


@saved
def older_full_with_other_names(folder: Path) -> keras.Model:
    source = network(top=True)
    older_layout(source, folder / "file.h5", prefix="block_")
    return source


@saved
def earlier_run(folder: Path) -> keras.Model:
    cfg = make_config(*MOBILENET, "seed=9")
    built = classifiers.build(cfg, (8, 8, 3), 10)
    with Recording.start(
        folder / "run", cfg, "tlbench train", {"data": {"class_names": ["a"]}}
    ) as run:
        built.model.save(run.model)
    return built.backbone


def guide(source: keras.Model) -> keras.Model:
    """The model of Keras's own guide to transfer learning: augmentation first, the backbone behind it."""
    layers = keras.layers
    augmentation = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])
    pixels = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(augmentation(pixels))
    x = layers.GlobalAveragePooling2D()(source(x, training=False))
    return keras.Model(pixels, layers.Dense(1)(layers.Dropout(0.2)(x)))


@saved
def guide_model(folder: Path) -> keras.Model:
    source = network(top=False)
    guide(source).save(folder / "file.keras")
    return source


@saved
def guide_model_h5(folder: Path) -> keras.Model:
    source = network(top=False)
    guide(source).save(folder / "file.h5")
    return source


@saved
def guide_weights_h5(folder: Path) -> keras.Model:
    source = network(top=False)
    guide(source).save_weights(folder / "file.weights.h5")
    return source


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("kind", SAVED)
def test_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    source = SAVED[kind](tmp_path)
    (path,) = tmp_path.iterdir()
    built = classifiers.build(make_config(*MOBILENET, f"backbone.weights={path}"), (8, 8, 3), 10)
    expected = {layer.name: layer.get_weights() for layer in source.layers if layer.weights}
    for layer in built.backbone.layers:
        for ours, theirs in zip(layer.get_weights(), expected.get(layer.name, []), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("name", ["file.keras", "file.weights.h5"])
def test_a_file_that_does_not_fit_names_the_layer(name: str, top: bool, tmp_path: Path) -> None:
    other = network(top=top, alpha=0.5)
    (other.save if name.endswith(".keras") else other.save_weights)(tmp_path / name)
    with pytest.raises(WeightsError, match=r"does not fit mobilenet.*(conv1|layer)"):
        classifiers.build(
            make_config(*MOBILENET, f"backbone.weights={tmp_path / name}"), (8, 8, 3), 10
        )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nothing.h5", None, "does not exist"),
        ("text.h5", b"hello", "no Keras weights or model file"),
        ("text.keras", b"hello", "no Keras weights or model file"),
        ("empty.weights.h5", b"", "no Keras weights or model file"),
        ("folder", "folder", "no finished run"),
    ],
)
def test_what_is_no_weights_file(
    tmp_path: Path, name: str, content: bytes | str | None, words: str
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content:
        (tmp_path / name).mkdir()
    with pytest.raises(WeightsError, match=words):
        classifiers.build(
            make_config(*MOBILENET, f"backbone.weights={tmp_path / name}"), (8, 8, 3), 10
        )


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    source = network(top=False)
    first = source.layers[1]
    first.set_weights([np.full_like(first.get_weights()[0], np.nan)])
    source.save(tmp_path / "file.keras")
    with pytest.raises(WeightsError, match="no finite numbers"):
        classifiers.build(
            make_config(*MOBILENET, f"backbone.weights={tmp_path}/file.keras"), (8, 8, 3), 10
        )


@pytest.mark.parametrize("kind", ["soft", "external", "storage", "virtual"])
def test_a_file_that_refers_to_another_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(400))
    older_layout(network(top=False), tmp_path / "file.h5")
    with h5py.File(tmp_path / "file.h5", "a") as file:
        group = file["conv1"]
        del group["conv1"]
        if kind == "soft":
            group["conv1"] = h5py.SoftLink("/bn")
        elif kind == "external":
            group["conv1"] = h5py.ExternalLink(str(tmp_path / "secret"), "/")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape=(100,), dtype="<f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret"), "data", shape=(100,))
            group.create_virtual_dataset("conv1", layout)
        else:
            storage = [(str(tmp_path / "secret"), 0, 400)]
            group.create_dataset("conv1", shape=(100,), dtype="<f4", external=storage)
    with pytest.raises(WeightsError, match="refers to other files at '/conv1/conv1': refused"):
        classifiers.build(
            make_config(*MOBILENET, f"backbone.weights={tmp_path}/file.h5"), (8, 8, 3), 10
        )


def test_the_digest_follows_the_values() -> None:
    first, second = network(top=False), network(top=False)
    assert weights.digest(first) == weights.digest(first) != weights.digest(second)
    second.set_weights(first.get_weights())
    assert weights.digest(first) == weights.digest(second)


@pytest.mark.parametrize("name", ["whole.keras", "whole.h5", "no top.keras", "features.keras"])
def test_any_keras_model_is_a_backbone(tmp_path: Path, name: str) -> None:
    model = network(top=name.startswith("whole"))
    if name == "features.keras":
        pooled = keras.layers.GlobalMaxPooling2D()(model.output)
        model = keras.Model(model.input, keras.layers.Dense(5)(pooled))
    model.save(tmp_path / name)
    cfg = make_config(*MOBILENET[:1], "backbone=file", f"backbone.weights={tmp_path / name}")
    assert cfg.backbone.image_size == 32
    built = build(cfg, (8, 8, 3), 10)
    assert built.backbone.output_shape == (None, 1, 1, 256)
    kernel = model.layers[1].get_weights()[0]
    np.testing.assert_array_equal(built.backbone.layers[1].get_weights()[0], kernel)


@pytest.mark.parametrize("name", ["EfficientNetB0", "MobileNetV3Small"])
@pytest.mark.parametrize("top", [True, False])
def test_a_pooling_inside_a_block_is_not_the_top(tmp_path: Path, name: str, top: bool) -> None:
    """Squeeze-and-excitation pools as a classifier does, but its block has a way around it."""
    application, shape = getattr(keras.applications, name), (64, 64, 3)
    application(include_top=top, weights=None, input_shape=shape).save(tmp_path / "model.keras")
    whole = application(include_top=False, weights=None, input_shape=shape)
    found = weights.as_backbone(str(tmp_path / "model.keras"), 64)
    assert found.output_shape == whole.output_shape
    assert found.count_params() == whole.count_params()


def test_a_file_of_no_numbers_is_no_backbone_and_its_layers_can_be_named(tmp_path: Path) -> None:
    source = network(top=False)
    source.save(tmp_path / "file.keras")
    settings = ("data=digits", "backbone=file", f"backbone.weights={tmp_path}/file.keras")
    check_layers(make_config(*settings, "trainable=conv_pw_13"))
    with pytest.raises(ConfigError, match="Did you mean 'conv_pw_13'"):
        check_layers(make_config(*settings, "trainable=conv_pw_113"))
    first = source.layers[1]
    first.set_weights([np.full_like(first.get_weights()[0], np.nan)])
    source.save(tmp_path / "file.keras")
    with pytest.raises(WeightsError, match="no finite numbers"):
        build(make_config(*settings), (8, 8, 3), 10)


def test_a_backbone_of_another_size_keeps_its_weights(tmp_path: Path) -> None:
    model = network(top=False)
    model.save(tmp_path / "model.keras")
    found = weights.as_backbone(str(tmp_path / "model.keras"), 64)
    assert found.output_shape == (None, 2, 2, 256)
    for ours, theirs in zip(found.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_own_model_trains(tmp_path: Path, tlbench: Callable[..., Answer]) -> None:
    network(top=True).save(tmp_path / "my model's.keras")
    words = (
        *("train", "data=digits", "data.limit=300", "epochs=1", "trainable=false"),
        *("backbone=file", f"backbone.weights={tmp_path}/my model's.keras"),
        "backbone.preprocessing={channel_order:rgb,mean:[127,127,127],std:[128,128,128]}",
    )
    answer = tlbench(*words, "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    assert tlbench("evaluate", "run").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["backbone=file"], "Expected a Keras model to be the backbone"),
        (["backbone=file", "backbone.weights=none.keras"], "none.keras is no file"),
        (["backbone=file", "backbone.weights=text.keras"], "does not tell its image size"),
        (
            ["backbone=file", "backbone.weights=text.keras", "backbone.image_size=32"],
            "cannot be the backbone for images of 32 pixels",
        ),
    ],
)
def test_what_is_no_backbone(
    tlbench: Callable[..., Answer], words: list[str], message: str
) -> None:
    Path("text.keras").write_text("no model")
    answer = tlbench("train", "data=digits", *words)
    assert answer.code == 2
    assert message in answer.error_lines[-1]
