"""The typed schema of a run's configuration, its identity, and how two of them differ.

The fields have no defaults: every value stands in conf/, where a user can see and change it.
"""

import copy
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf

# How a run is carried out, and where things lie: the result is the same, so two runs that differ in these
# alone are the same run. What lies there is told by digests, in the manifest.
CARRIED_OUT = (
    *("n_jobs", "published", "resume", "data.root", "data.memory_limit_gb"),
    *("features.folder", "features.limit_gb", "features.memory_limit_gb", "features.batch_size"),
)
# What a run that goes on may be given anew: its images and first weights are held against their digests.
MOVABLE = (*CARRIED_OUT, "backbone.weights")


@dataclass
class Preprocessing:
    """(pixel - mean) / std per channel, pixels in 0-255, mean and std in `channel_order`."""

    channel_order: str
    mean: list[float]
    std: list[float]


@dataclass
class Backbone:
    """A function of keras.applications, or null for the model in `weights`, and what it expects."""

    name: str
    application: str | None
    weights: str | None
    image_size: int
    preprocessing: Preprocessing | None
    arguments: dict[str, Any]
    head_widths: list[int]


@dataclass
class Head:
    """Hidden Dense layers between the pooled features and the classes."""

    name: str
    widths: list[int]
    activation: str
    dropout: float


@dataclass
class Data:
    """A data set, how it is split and how its files are read."""

    name: str
    source: str
    root: str | None
    image_size: int | None
    class_names: list[str] | None
    superclasses: dict[str, list[str]] | None
    validation: float
    test: float | None
    split_seed: int
    limit: int | None
    resize: str
    unreadable: str
    memory_limit_gb: float


@dataclass
class LearningRate:
    """Step sizes for a stage whose backbone is frozen, and for one that trains any of it."""

    frozen: float
    trained: float


@dataclass
class Optimizer:
    """One class of keras.optimizers and its arguments."""

    name: str
    learning_rate: LearningRate
    arguments: dict[str, Any]


@dataclass
class Schedule:
    """How the learning rate moves within a stage; warmup and final are shares, 0-1."""

    name: str
    warmup: float
    final: float


@dataclass
class Augment:
    """Random changes to training images, drawn from (seed, epoch, image)."""

    name: str
    flip: bool
    shift: float


@dataclass
class Stage:
    """One call of fit. `trainable`: true, false, or the first backbone layer to train.

    warmup: share of the stage's steps, 0-1, in which the rate rises; null: the schedule's.
    """

    name: str
    trainable: Any
    epochs: int
    learning_rate: float | None
    warmup: float | None


@dataclass
class Strategy:
    """The ordered stages of a training."""

    name: str
    stages: list[Stage]


@dataclass
class Features:
    """How the features of a frozen backbone are computed and kept; sizes in GiB."""

    cache: bool
    engine: str
    precision: str
    max_noise: float
    batch_size: int | None
    folder: str
    limit_gb: float
    memory_limit_gb: float


@dataclass
class BatchNorm:
    """What is done for moving statistics; momentum: "auto", null or 0-1; recalibrate: "auto" or bool.

    statistics: what a backbone that trains normalizes by, "auto", "batch", "adapted" or "frozen".
    """

    statistics: str
    momentum: Any
    recalibrate: Any


@dataclass
class EarlyStopping:
    """Epochs without a better val_loss after which a stage stops; null: never."""

    patience: int | None


@dataclass
class Published:
    """A row of the published table."""

    label: str
    parameters: int
    accuracy: float
    val_accuracy: float
    epochs: int
    evaluation: float


@dataclass
class Config:
    """Everything that makes a run."""

    backbone: Backbone
    head: Head
    data: Data
    optimizer: Optimizer
    schedule: Schedule
    augment: Augment
    strategy: Strategy
    trainable: Any
    epochs: int
    batch_size: int
    learning_rate: float | None
    seed: int
    precision: str
    device: str
    repeatable: bool
    features: Features
    batch_norm: BatchNorm
    early_stopping: EarlyStopping
    resume: str | None
    published: Published | None
    n_jobs: int

    @property
    def config_hash(self) -> str:
        """16 hexadecimal digits that two runs share exactly when they were asked for the same thing."""
        identity = {k: v for k, v in _flat(asdict(self)).items() if counts(k)}
        if self.backbone.weights not in (None, "imagenet"):
            identity["backbone.weights"] = (
                "a file"  # which one is told by its digest, wherever it lies
            )
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """The resolved configuration as YAML, from which `validation.load` gives an equal Config."""
        return OmegaConf.to_yaml(OmegaConf.create(asdict(self)))


def settings(schema: Any = Config, prefix: str = "") -> dict[str, Any]:
    """Every setting's dotted name -> its type; those of lists are not among them."""
    found: dict[str, Any] = {}
    types = get_type_hints(schema)
    for field in fields(schema):
        name, kind = f"{prefix}{field.name}", types[field.name]
        inner = next((part for part in (kind, *get_args(kind)) if is_dataclass(part)), None)
        nested = inner is not None and get_origin(kind) is not list
        found |= settings(inner, f"{name}.") if nested else {name: kind}
    return found


def counts(setting: str) -> bool:
    """Whether a setting makes a run another one. setting: its dotted name."""
    return not _among(setting, CARRIED_OUT)


def _among(setting: str, names: Iterable[str]) -> bool:
    return any(setting == name or setting.startswith(f"{name}.") for name in names)


def moved(saved: Config, asked: Config, overrides: Iterable[str]) -> Config:
    """The saved configuration with what a command names of MOVABLE as the command has it."""
    found = copy.deepcopy(saved)
    for override in overrides:
        name = override.lstrip("+~").partition("=")[0]
        group, _, field_name = name.rpartition(".")
        if name in MOVABLE and group:
            setattr(getattr(found, group), field_name, getattr(getattr(asked, group), field_name))
    return found


def elsewhere(saved: Config, now: Config) -> dict[str, Any]:
    """What of MOVABLE, within a group, another configuration has elsewhere than a saved one."""
    before, after = _flat(asdict(saved)), _flat(asdict(now))
    names = [name for name in MOVABLE if "." in name and before.get(name) != after.get(name)]
    return {name: after.get(name) for name in names}


def differences(
    saved: Config, asked: Config, overrides: Iterable[str]
) -> dict[str, tuple[Any, Any]]:
    """Settings that a command names with another value than a saved configuration has: (saved, asked).

    A group names all of its settings; report and experiment name everything.
    """
    before, now = _flat(asdict(saved)), _flat(asdict(asked))
    found = {}
    for override in overrides:
        name = override.lstrip("+~").partition("=")[0]
        everything = name in ("report", "experiment")
        for key in sorted({*before, *now}):
            named = everything or key == name or key.startswith((f"{name}.", f"{name}["))
            if named and not _among(key, MOVABLE) and before.get(key) != now.get(key):
                found[key] = (before.get(key), now.get(key))
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
