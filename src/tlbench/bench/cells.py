"""What a bench has measured, a file for each backbone on each data set: what is there is never measured again."""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base import files
from tlbench.base.files import atomic

MEASURED = "measured"  # the folder of these files, in that of the bench
MOST_BYTES = 2**31

# What a row shows: a pretrained network, or what zero looks like.
PRETRAINED, RANDOM, PIXELS, SHUFFLED, MAJORITY = (
    *("pretrained", "random weights", "raw pixels", "labels shuffled"),
    "majority class",
)


@dataclass(frozen=True)
class Cell:
    """One row of the table: who, on which data, and which test images it got right."""

    kind: str
    backbone: str  # its label, "" for a row without one
    data: str
    facts: dict[str, Any] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)  # training images of each probe
    right: dict[str, np.ndarray] = field(default_factory=dict)  # probe -> (draws, test images)
    reason: str = ""  # why there is nothing: it failed, or was left out
    failed: bool = False
    unreadable: Sequence[str] = ()  # a line for each picture that its data set was read without

    @property
    def name(self) -> str:
        """As the table shows it."""
        if self.kind == PRETRAINED:
            return self.backbone
        if self.kind == MAJORITY:
            chance = self.facts.get("chance")
            return f"{MAJORITY} (chance {chance:.3f})" if chance else MAJORITY
        return f"{self.backbone}, {self.kind}" if self.backbone else self.kind


def save(cell: Cell, folder: Path, key: dict[str, Any]) -> None:
    """Write what was measured under a name that is its key's own."""
    facts = {name: value for name, value in asdict(cell).items() if name != "right"}
    arrays: dict[str, Any] = {f"right/{name}": matrix for name, matrix in cell.right.items()}
    place = _place(folder, key)
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic(place) as temporary:
        np.savez_compressed(temporary, cell=np.array(json.dumps(facts)), **arrays)


def found(folder: Path, key: dict[str, Any]) -> Cell | None:
    """What was measured under a key; None where nothing whole is there."""
    try:
        saved = files.read_arrays(_place(folder, key), MOST_BYTES)
        facts = files.parse_json(str(saved.pop("cell")))
        right = {name.removeprefix("right/"): matrix for name, matrix in saved.items()}
        return Cell(**{**facts, "right": right})
    except (OSError, ValueError, TypeError, LookupError, zipfile.BadZipFile):
        return None


def _place(folder: Path, key: dict[str, Any]) -> Path:
    return folder / MEASURED / f"{files.checksum(key)[:24]}.npz"
