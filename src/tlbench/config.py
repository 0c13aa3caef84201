"""The typed schema of a run's configuration, and the checks that YAML cannot express.

The fields have no defaults: every value stands in conf/, where a user can see and change it.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tlbench.errors import ConfigError

# How a run is carried out, which never changes its result and so is no part of its identity.
NOT_IDENTITY = ("n_jobs", "published", "resume")
NOT_IDENTITY_FEATURES = ("folder", "limit_gb", "memory_limit_gb")

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass
class Preprocessing:
    """(pixel - mean) / std per channel, pixels in 0-255, mean and std in `channel_order`."""

    channel_order: str
    mean: list[float]
    std: list[float]


@dataclass
class Backbone:
    """One function of keras.applications and what it expects."""

    name: str
    application: str
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
    """One call of fit. `trainable`: true, false, or the first backbone layer to train."""

    name: str
    trainable: Any
    epochs: int
    learning_rate: float | None


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
    batch_size: int
    folder: str
    limit_gb: float
    memory_limit_gb: float


@dataclass
class BatchNorm:
    """What is done for moving statistics; momentum: "auto", null or 0-1; recalibrate: "auto" or bool."""

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
    features: Features
    batch_norm: BatchNorm
    early_stopping: EarlyStopping
    resume: str | None
    published: Published | None
    n_jobs: int

    @property
    def config_hash(self) -> str:
        """16 hexadecimal digits that two runs share exactly when they were asked for the same thing."""
        identity = {k: v for k, v in asdict(self).items() if k not in NOT_IDENTITY}
        for name in NOT_IDENTITY_FEATURES:
            del identity["features"][name]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """The resolved configuration as YAML, from which `load` gives an equal Config."""
        return OmegaConf.to_yaml(OmegaConf.create(asdict(self)))


def load(source: DictConfig | Path) -> Config:
    """A checked Config from what Hydra composed, or from the config.yaml of a run."""
    try:
        raw = _read(source) if isinstance(source, Path) else source
        composed = OmegaConf.to_container(raw, resolve=True, throw_on_missing=True)
        merged = OmegaConf.merge(OmegaConf.structured(Config), composed)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(config, Config)
    config.data.root = _absolute(config.data.root)
    config.features.folder = _absolute(config.features.folder) or ""
    if config.backbone.weights not in (None, "imagenet"):
        config.backbone.weights = _absolute(config.backbone.weights)
    try:
        _check(config)
    except TypeError as error:  # a mapping where the schema's list or number was, in an edited file
        raise ConfigError(f"The configuration holds a value of the wrong type: {error}.") from error
    return config


def _read(path: Path) -> DictConfig:
    try:
        raw = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())[:150]
        raise ConfigError(f"{path} is damaged: it is no YAML ({reason}).") from error
    if not isinstance(raw, DictConfig):
        raise ConfigError(f"{path} is damaged: it holds no settings.")
    return raw


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
            kept = key.partition(".")[0] in NOT_IDENTITY or (
                key.removeprefix("features.") in NOT_IDENTITY_FEATURES
            )
            if named and not kept and before.get(key) != now.get(key):
                found[key] = (before.get(key), now.get(key))
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def explain(error: OmegaConfBaseException) -> str:
    """One line from an OmegaConf error: the setting's full name and what is wrong with it."""
    key = error.full_key or ""
    message = (error.msg or str(error)).strip().splitlines()[0]
    if match := re.search(r"[Mm]issing mandatory value: (\S+)", message):
        key = key or match[1]
        return f"{key} is not set. Give it a value: {key}=..."
    if re.match(r"Key '.*' not in '.*'", message):
        schema = error.object_type
        names = [field.name for field in fields(schema)] if is_dataclass(schema) else []
        return f"Unknown setting '{key}'. {suggest(key.rsplit('.', 1)[-1], names)}"
    if match := re.match(r"Value '(.*)' of type '.*' could not be converted to (\w+)", message):
        kinds = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
        return f"{key}={match[1]} is not valid. Expected {kinds.get(match[2], match[2])}."
    return f"{key}: {message}" if key else message


def suggest(name: str, options: Iterable[str]) -> str:
    """The option that was probably meant, and the options where they are few or none is near."""
    options = sorted(options)
    near = difflib.get_close_matches(name, options, n=1)
    guess = [f"Did you mean '{near[0]}'?"] if near else []
    listing = [f"Expected one of: {', '.join(options)}."] if len(options) <= 6 or not near else []
    return " ".join(guess + listing)


def _absolute(path: str | None) -> str | None:
    return path and str(Path(path).expanduser().absolute())


def _require(condition: bool, setting: str, value: Any, expected: str) -> None:
    if not condition:
        value = "null" if value is None else value
        raise ConfigError(f"{setting}={value} is not valid. Expected {expected}.")


def _one_of(setting: str, value: str, options: Iterable[str]) -> None:
    if value not in (options := list(options)):
        raise ConfigError(f"Unknown {setting} '{value}'. {suggest(str(value), options)}")


def _check(c: Config) -> None:
    """Ranges and combinations that types do not express."""
    _one_of("device", c.device, ("auto", "cpu", "gpu"))
    _one_of("precision", c.precision, PRECISIONS)
    _one_of("features.precision", c.features.precision, PRECISIONS)
    _one_of("features.engine", c.features.engine, ("auto", "tensorflow", "openvino"))
    _one_of("schedule.name", c.schedule.name, ("constant", "cosine"))
    _one_of("data.resize", c.data.resize, ("crop", "pad", "stretch"))
    _one_of("data.unreadable", c.data.unreadable, ("skip", "refuse"))
    _require(c.epochs >= 1, "epochs", c.epochs, "at least 1")
    _require(c.batch_size >= 1, "batch_size", c.batch_size, "at least 1")
    _require(c.n_jobs >= 1, "n_jobs", c.n_jobs, "at least 1")
    _require(0 <= c.seed < 2**31, "seed", c.seed, "0 to 2147483647")
    _require(
        0 <= c.data.split_seed < 2**31, "data.split_seed", c.data.split_seed, "0 to 2147483647"
    )
    _check_trainable("trainable", c.trainable)
    _check_backbone(c.backbone)
    _check_rates(c)
    _check_features(c)
    widths = c.head.widths
    whole = all(isinstance(width, int) and width >= 1 for width in widths)
    _require(whole, "head.widths", widths, "a list of layers of at least 1 unit")
    _require(0 <= c.head.dropout < 1, "head.dropout", c.head.dropout, "at least 0 and below 1")
    for name in ("validation", "test"):
        value = getattr(c.data, name)
        whole = value is not None and value >= 1 and value == int(value)
        share = value is None or 0 < value < 1
        _require(whole or share, f"data.{name}", value, "a share between 0 and 1, or a count")
    if c.data.source == "image_folder":
        _require(bool(c.data.root), "data.root", c.data.root, "the folder that holds your pictures")
    limit = c.data.limit
    _require(limit is None or limit >= 2, "data.limit", limit, "at least 2, or null")
    size = c.data.image_size
    _require(size is None or size >= 1, "data.image_size", size, "at least 1, or null")
    memory = c.data.memory_limit_gb
    _require(memory >= 0, "data.memory_limit_gb", memory, "at least 0")
    _require(
        0 <= c.schedule.warmup < 1, "schedule.warmup", c.schedule.warmup, "at least 0 and below 1"
    )
    _require(0 <= c.schedule.final <= 1, "schedule.final", c.schedule.final, "0 to 1")
    _require(0 <= c.augment.shift < 1, "augment.shift", c.augment.shift, "at least 0 and below 1")
    momentum, recalibrate = c.batch_norm.momentum, c.batch_norm.recalibrate
    number = (
        isinstance(momentum, int | float) and not isinstance(momentum, bool) and 0 <= momentum < 1
    )
    _require(
        momentum in ("auto", None) or number,
        "batch_norm.momentum",
        momentum,
        "auto, null, or 0 to below 1",
    )
    _require(
        recalibrate == "auto" or isinstance(recalibrate, bool),
        "batch_norm.recalibrate",
        recalibrate,
        "auto, true or false",
    )
    patience = c.early_stopping.patience
    _require(
        patience is None or patience >= 1,
        "early_stopping.patience",
        patience,
        "at least 1, or null",
    )


def _check_trainable(setting: str, value: Any) -> None:
    _require(
        isinstance(value, bool | str) and value != "",
        setting,
        value,
        "true, false, or the name of the first backbone layer to train",
    )


def _check_backbone(b: Backbone) -> None:
    _require(b.image_size >= 1, "backbone.image_size", b.image_size, "at least 1")
    if b.preprocessing:
        _one_of(
            "backbone.preprocessing.channel_order", b.preprocessing.channel_order, ("rgb", "bgr")
        )
        for name in ("mean", "std"):
            values = getattr(b.preprocessing, name)
            _require(len(values) == 3, f"backbone.preprocessing.{name}", values, "three numbers")
        std = b.preprocessing.std
        _require(all(s > 0 for s in std), "backbone.preprocessing.std", std, "numbers above 0")


def _check_features(c: Config) -> None:
    for name, least in (
        ("max_noise", 0),
        ("limit_gb", 0),
        ("memory_limit_gb", 0),
        ("batch_size", 1),
    ):
        value = getattr(c.features, name)
        _require(value >= least, f"features.{name}", value, f"at least {least}")
    if (
        c.features.cache
        and c.augment.shift
        and any(s.trainable is False for s in c.strategy.stages)
    ):
        raise ConfigError(
            f"augment.shift={c.augment.shift} gives every epoch other images, so the features of a frozen "
            "backbone cannot be computed once. Use augment=flip or augment=none, or set features.cache=false."
        )


def _check_rates(c: Config) -> None:
    rates = {
        "learning_rate": c.learning_rate,
        "optimizer.learning_rate.frozen": c.optimizer.learning_rate.frozen,
        "optimizer.learning_rate.trained": c.optimizer.learning_rate.trained,
    }
    _require(bool(c.strategy.stages), "strategy.stages", "[]", "at least one stage")
    for i, stage in enumerate(c.strategy.stages):
        where = f"strategy.stages[{i}]"
        _check_trainable(f"{where}.trainable", stage.trainable)
        _require(stage.epochs >= 1, f"{where}.epochs", stage.epochs, "at least 1")
        rates[f"{where}.learning_rate"] = stage.learning_rate
    for setting, rate in rates.items():
        _require(rate is None or 0 < rate < float("inf"), setting, rate, "a number above 0")
