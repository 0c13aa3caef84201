"""What a Keras model file says of itself, read without TensorFlow and without running any of it."""

import json
import zipfile
from pathlib import Path
from typing import Any

from tlbench.base.errors import ConfigError

MOST_BYTES = 2**26  # of a model's own description
ASK = "Set backbone.image_size to the side, in pixels, of the images that it takes."


def image_size(path: str | None) -> int:
    """The side in pixels of the square images that a model takes.

    path: a .keras or .h5 file with the whole model. Raises ConfigError when there is none, or when it does
    not say.
    """
    if not path or not Path(path).is_file():
        raise ConfigError(
            f"backbone.weights={path or 'null'} is no file. Expected a Keras model to be the backbone: "
            "backbone.weights=model.keras"
        )
    shape = _input_shape(_described(Path(path)))
    if shape is None or len(shape) != 4 or not isinstance(shape[1], int) or shape[1] != shape[2]:
        raise ConfigError(f"backbone.weights={path} does not tell its image size. {ASK}")
    return shape[1]


def _described(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo("config.json").file_size > MOST_BYTES:
                    return None
                return json.loads(archive.read("config.json"))
        import h5py  # brings NumPy, which no other configuration needs

        with h5py.File(path) as file:
            return json.loads(file.attrs["model_config"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, RecursionError):
        return None


def _input_shape(part: Any) -> list[Any] | None:
    """The first shape that an input layer is made with, in the order in which it is written."""
    if isinstance(part, dict):
        for key in ("batch_shape", "batch_input_shape"):
            if isinstance(part.get(key), list | tuple):
                return list(part[key])
    parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return next((shape for inner in parts if (shape := _input_shape(inner)) is not None), None)
