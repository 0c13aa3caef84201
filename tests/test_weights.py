"""Backbone weights from files of every kind that Keras writes, and what is said of those that do not fit."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import TINY, make_config
from tlbench import model, weights
from tlbench.errors import WeightsError
from tlbench.hardware import keras
from tlbench.run import Run


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
    cfg = make_config(*TINY, "seed=9")
    built = model.build(cfg, (8, 8, 3), 10)
    with Run.start(folder / "run", cfg, "tlbench train", {"data": {"class_names": ["a"]}}) as run:
        built.model.save(run.model)
    return built.backbone


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("kind", SAVED)
def test_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    source = SAVED[kind](tmp_path)
    (path,) = tmp_path.iterdir()
    built = model.build(make_config(*TINY, f"backbone.weights={path}"), (8, 8, 3), 10)
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
        model.build(make_config(*TINY, f"backbone.weights={tmp_path / name}"), (8, 8, 3), 10)


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
        model.build(make_config(*TINY, f"backbone.weights={tmp_path / name}"), (8, 8, 3), 10)


def test_the_digest_follows_the_values() -> None:
    first, second = network(top=False), network(top=False)
    assert weights.digest(first) == weights.digest(first) != weights.digest(second)
    second.set_weights(first.get_weights())
    assert weights.digest(first) == weights.digest(second)
