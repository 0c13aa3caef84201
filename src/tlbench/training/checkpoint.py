"""One atomic file that holds all a training needs to go on as if it had never stopped."""

import json
import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base import files
from tlbench.base.errors import RunError
from tlbench.base.files import atomic
from tlbench.networks.hardware import keras

log = logging.getLogger(__name__)

Arrays = dict[str, list[np.ndarray]]


@dataclass
class State:
    """Where a training stands."""

    stage: int = 0
    epoch: int = 0  # epochs of the stage that are done
    step: int = 0  # steps of the next epoch that are done
    stopped: bool = False  # early stopping has ended the stage
    seconds: float = 0.0  # of training alone, in epochs that are done
    epoch_seconds: float = 0.0  # of training in the epoch under way
    features_seconds: float = 0.0  # until the features of frozen parts were there
    evaluation_seconds: float = 0.0  # of validation after each epoch
    kept: int = 0  # the epoch of the run, from 1, whose weights the stage before this one left
    recalibrated: bool = False  # whether that stage ended by recomputing statistics
    history: list[dict[str, Any]] = field(default_factory=list)
    early_stopping: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)

    def next_stage(self) -> "State":
        """The start of the stage after this one."""
        fresh: dict[str, Any] = {
            "step": 0,
            "epoch": 0,
            "stopped": False,
            "early_stopping": {},
            "arrays": {},
        }
        return replace(self, stage=self.stage + 1, **fresh)


def save(path: Path, state: State) -> None:
    """Write a checkpoint; the one before it stays until this one is whole."""
    facts = asdict(state) | {"arrays": {name: len(group) for name, group in state.arrays.items()}}
    members: dict[str, Any] = {
        f"{name}/{i}": array
        for name, group in state.arrays.items()
        for i, array in enumerate(group)
    }
    path.parent.mkdir(exist_ok=True)
    with atomic(path) as temporary:
        np.savez(temporary, state=np.array(json.dumps(facts)), **members)


def load(path: Path) -> State:
    """Read a checkpoint, checked against the CRC-32 of each array; a fresh State where none is whole."""
    if not path.is_file():
        return State()
    try:
        saved = files.read_arrays(path, path.stat().st_size)  # np.savez does not compress
        facts = files.parse_json(str(saved["state"]))
        facts["arrays"] = {
            name: [saved[f"{name}/{i}"] for i in range(count)]
            for name, count in facts["arrays"].items()
        }
        return State(**facts)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        log.warning("%s is damaged (%s): training starts from its beginning", path, error)
        return State()


def values(variables: list[keras.Variable]) -> list[np.ndarray]:
    """The values of variables, in order."""
    return [variable.numpy() for variable in variables]


def assign(variables: list[keras.Variable], arrays: list[np.ndarray]) -> None:
    """Put saved values back. Raises RunError when they are of another network."""
    if [tuple(v.shape) for v in variables] != [array.shape for array in arrays]:
        raise RunError("The checkpoint is of another network. Remove checkpoint/ to begin anew.")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
