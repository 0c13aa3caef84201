"""What people call a backbone and a data set: the name of its YAML file, or of the file or folder that it is."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Names that say where something comes from, not what it is, and the setting that does.
OF_A_FILE = {
    ("backbone.name", "file"): "backbone.weights",
    ("data.name", "image_folder"): "data.root",
    ("data.name", "shards"): "data.root",
    ("data.name", "table"): "data.table",
}


def backbone(settings: Mapping[str, Any]) -> str:
    """Of a backbone; settings: by dotted names."""
    return _name("backbone.name", settings)


def data(settings: Mapping[str, Any]) -> str:
    """Of a data set; settings: by dotted names."""
    return _name("data.name", settings)


def folder(settings: Mapping[str, Any]) -> str:
    """Both, as the name of a folder."""
    return re.sub(r"[^\w.-]+", "_", f"{backbone(settings)}_{data(settings)}")


def place(key: str, settings: Mapping[str, Any]) -> Path | None:
    """Where what `key` names comes from, "backbone.name" or "data.name"; None where its name says what it is."""
    found = settings.get(OF_A_FILE.get((key, str(settings.get(key))), ""))
    return Path(str(found)).absolute() if found else None


def _name(key: str, settings: Mapping[str, Any]) -> str:
    name = str(settings.get(key))
    path = place(key, settings)
    if path is None:
        return name
    return (path.name if key == "data.name" and name != "table" else path.stem) or name
