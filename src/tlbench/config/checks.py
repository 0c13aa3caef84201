"""From YAML to a checked Config: types by OmegaConf, ranges and combinations here, in words for a user."""

import re
from operator import attrgetter
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tlbench.base import files, registry
from tlbench.base.errors import ConfigError
from tlbench.config import modelfile, omegaconf_errors, several, solver, tuning
from tlbench.config.required import one_of, require
from tlbench.config.schema import BatchNorm, Config, Data, Loss, Preprocessing
from tlbench.config.words import expanded, literal

MOST_BYTES = 2**18  # of a config.yaml: no run of ours comes near
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
CHOICES = {
    "device": ("auto", "cpu", "gpu"),
    "keep": ("best", "last"),
    "precision": PRECISIONS,
    "features.precision": PRECISIONS,
    "features.storage": (None, "auto", "float32", "float16"),
    "features.engine": ("auto", "tensorflow", "openvino"),
    "batch_norm.statistics": ("auto", "adapted", "batch", "frozen"),
    "schedule.name": ("constant", "cosine"),
    "data.task": ("multiclass", "multilabel"),
    "data.resize": ("crop", "pad", "stretch"),
    "data.unreadable": ("skip", "refuse"),
    "data.duplicates": ("exact", "near", "ignore"),
    "data.sampling": ("natural", "balanced"),
    "loss.name": ("cross_entropy", "focal"),
    "early_stopping.monitor": (
        *("auto", "val_loss", "val_accuracy", "val_macro_f1", "val_auc", "val_map"),
    ),
    "head.solver": (None, "logistic", "ridge", "class_mean", "nearest"),
    "backbone.interpolation": ("bilinear", "bicubic"),
    "backbone.pooling": ("average", "cls", "cls+average"),
}
LEAST = {
    "epochs": 1,
    "batch_size": 1,
    "n_jobs": 1,
    "backbone.image_size": 1,
    "data.memory_limit_gb": 0,
    "features.max_noise": 0,
    "features.limit_gb": 0,
    "features.memory_limit_gb": 0,
}
LEAST_OR_NULL = {
    "data.limit": 2,
    "data.folds": 2,
    "data.image_size": 1,
    "early_stopping.patience": 1,
    "features.batch_size": 1,
    "microbatch": 1,
}
SEEDS = ("seed", "data.split_seed")
BETWEEN_OR_NULL = ("optimizer.layer_decay", "optimizer.ema", "optimizer.swa")
SHARES = ("head.dropout", "schedule.warmup", "loss.label_smoothing")


def load(source: DictConfig | dict[str, Any] | Path) -> Config:
    """A checked Config from what Hydra composed, or from the config.yaml of a run or what it holds."""
    try:
        raw = OmegaConf.create(read(source) if isinstance(source, Path) else source)
        composed = OmegaConf.to_container(raw, resolve=True, throw_on_missing=True)
        _check_names(composed)
        merged = OmegaConf.merge(OmegaConf.structured(Config), literal(_sized(_listed(composed))))
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(omegaconf_errors.explain(error)) from error
    assert isinstance(config, Config)
    config.data.root = _absolute(config.data.root)
    config.data.table = _absolute(config.data.table)
    config.data.names = _absolute(config.data.names)
    config.data.corrections = _absolute(config.data.corrections)
    config.data.index = _absolute(config.data.index)
    config.features.folder = _absolute(config.features.folder) or ""
    if isinstance(weights := config.loss.class_weights, dict):  # YAML makes numbers of such names
        config.loss.class_weights = {str(name): weight for name, weight in weights.items()}
    if config.backbone.weights_file:
        config.backbone.weights = _absolute(config.backbone.weights)
    try:
        _check(config)
    except TypeError as error:  # a mapping where the schema's list or number was, in an edited file
        raise ConfigError(f"The configuration holds a value of the wrong type: {error}.") from error
    return config


def _check_names(composed: Any) -> None:
    """Refuse names that YAML or Hydra made something else of: the schema would write them anew."""
    data = composed.get("data") if isinstance(composed, dict) else None
    names = data.get("class_names") if isinstance(data, dict) else None
    for name in names if isinstance(names, list) else []:
        if name is None or isinstance(name, bool | float):
            raise ConfigError(
                f"data.class_names holds {str(name).lower()} where a name was expected. Quote names such as "
                "yes, true, null and 1e3: data.class_names=['yes','1e3'], in a shell between double quotes."
            )


def read(path: Path) -> dict[str, Any]:
    """The settings in the config.yaml of a run. Raises ConfigError for what no run has written."""
    try:
        tree = files.read_yaml(path, MOST_BYTES)
        if not isinstance(tree, dict) or not tree:
            raise ValueError("it holds no settings")
        if _interpolates(tree):  # a run's settings are resolved; these could grow without an end
            raise ValueError("it holds an interpolation")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}.") from error
    return tree


def _interpolates(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_interpolates, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and re.search(r"(?<!\\)\$\{", value) is not None


def _listed(composed: Any) -> Any:
    """head.widths=64 is one layer of 64 units, as head.widths=[64] is."""
    head = composed.get("head") if isinstance(composed, dict) else None
    if isinstance(head, dict) and type(head.get("widths")) is int:
        head["widths"] = [head["widths"]]
    return composed


def _sized(composed: Any) -> Any:
    """backbone.image_size=null is the size that the model in backbone.weights was made for."""
    backbone = composed.get("backbone") if isinstance(composed, dict) else None
    if isinstance(backbone, dict) and backbone.get("image_size", 0) is None:
        backbone["image_size"] = modelfile.image_size(_absolute(backbone.get("weights")))
    return composed


def _absolute(path: str | None) -> str | None:
    return path and str(Path(expanded(path)).absolute())


def _check(c: Config) -> None:
    """Ranges and combinations that types do not express."""
    _check_ranges(c)
    swa, averaged = c.optimizer.swa, c.optimizer.ema is not None
    expected = "null: optimizer.ema averages already"
    require(swa is None or not averaged, "optimizer.swa", swa, expected)
    widths = c.head.widths
    whole = all(isinstance(width, int) and width >= 1 for width in widths)
    require(whole, "head.widths", widths, "a list of layers of at least 1 unit")
    _check_loss(c)
    solver.check(c)
    several.check(c)
    tuning.check(c)
    _check_trainable("trainable", c.trainable)
    own = c.backbone.builder != "file" or c.backbone.weights_file
    expected = "the file of a Keras model, to be the backbone"
    require(bool(own), "backbone.weights", c.backbone.weights, expected)
    registry.check("backbones", c.backbone.builder, "backbone.builder")
    registry.check("sources", c.data.source, "data.source")
    if c.tracker.name != "none":
        registry.check("trackers", c.tracker.name, "tracker")
    _check_preprocessing(c.backbone.preprocessing)
    _check_data(c.data)
    _check_batch_norm(c.batch_norm)
    _check_rates(c)


def _check_ranges(c: Config) -> None:
    """Settings each by itself."""
    for setting, options in CHOICES.items():
        one_of(setting, attrgetter(setting)(c), options)
    for setting, least in LEAST.items():
        value = attrgetter(setting)(c)
        require(value >= least, setting, value, f"at least {least}")
    for setting, least in LEAST_OR_NULL.items():
        value = attrgetter(setting)(c)
        require(value is None or value >= least, setting, value, f"at least {least}, or null")
    for setting in SEEDS:
        value = attrgetter(setting)(c)
        require(0 <= value < 2**31, setting, value, "0 to 2147483647")
    for setting in BETWEEN_OR_NULL:
        value = attrgetter(setting)(c)
        require(value is None or 0 < value < 1, setting, value, "above 0 and below 1, or null")
    for setting in SHARES:
        value = attrgetter(setting)(c)
        require(0 <= value < 1, setting, value, "at least 0 and below 1")
    require(0 <= c.schedule.final <= 1, "schedule.final", c.schedule.final, "0 to 1")


def _check_loss(c: Config) -> None:
    """The form of the loss, and what is done for classes of unlike sizes."""
    loss = c.loss
    if loss.name == "focal":
        gamma, alpha = (float("nan") if v is None else v for v in (loss.gamma, loss.alpha))
        require(0 <= gamma < float("inf"), "loss.gamma", loss.gamma, "a number of at least 0")
        require(0 < alpha < float("inf"), "loss.alpha", loss.alpha, "a number above 0")
    else:
        for name in ("gamma", "alpha"):
            value = getattr(loss, name)
            require(value is None, f"loss.{name}", value, "null, or loss=focal beside it")
    _check_class_weights(loss)
    if c.data.sampling == loss.class_weights == "balanced":
        raise ConfigError(
            "data.sampling=balanced and loss.class_weights=balanced would make up for the same twice. Choose one."
        )


def _check_class_weights(loss: Loss) -> None:
    given = loss.class_weights
    if isinstance(given, str):
        one_of("loss.class_weights", given, ("balanced",))
    expected = "null, balanced, or a number above 0 for each class that is named"
    named = isinstance(given, dict) and len(given) > 0
    require(given in (None, "balanced") or named, "loss.class_weights", given, expected)
    for name, weight in given.items() if named else ():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        fits = number and 0 < weight < float("inf")
        require(fits, f"loss.class_weights.{name}", weight, "a number above 0")


def check_stages(c: Config) -> None:
    """Raise ConfigError where several stages train the head alone. Runs of earlier versions may have done so."""
    if len(c.strategy.stages) > 1 and all(stage.frozen for stage in c.strategy.stages):
        last = c.strategy.stages[-1]
        raise ConfigError(
            f"strategy={c.strategy.name} has nothing left to train in its stage '{last.name}': trainable=false keeps "
            "the backbone as it is. Add trainable=true, or the name of the first layer to train; for the head alone "
            "leave the strategy out."
        )


def _check_data(d: Data) -> None:
    for name in ("validation", "test"):
        value = getattr(d, name)
        whole = value is not None and value >= 1 and value == int(value)
        share = value is None or 0 < value < 1
        require(whole or share, f"data.{name}", value, "a share between 0 and 1, or a count")
    if d.source == "digits" and d.root:
        raise ConfigError(
            f"data.root={d.root} is of no use to data=digits. For pictures of your own add data=image_folder."
        )
    if d.source == "image_folder":
        require(bool(d.root), "data.root", d.root, "the folder that holds your pictures")
    if d.source == "table":
        require(bool(d.table), "data.table", d.table, "the file of a table of pictures")
        for name in ("path", "label"):
            require(bool(getattr(d, name)), f"data.{name}", None, "the name of a column")
    if d.source == "shards":
        require(bool(d.root), "data.root", d.root, "the folder that holds the shards")
        for name in ("path", "label"):
            require(bool(getattr(d, name)), f"data.{name}", None, "auto, or what holds it")
        for name in ("validation", "test"):  # of a count every new shard would move some
            by_hash = "a share: shards are split by a hash of the key"
            require((getattr(d, name) or 0) < 1, f"data.{name}", getattr(d, name), by_hash)
    fits = 0 <= d.fold < (d.folds or 1)
    require(
        fits, "data.fold", d.fold, f"0 to {(d.folds or 1) - 1} (data.folds={d.folds or 'null'})"
    )


def _check_batch_norm(b: BatchNorm) -> None:
    number = isinstance(b.momentum, int | float) and not isinstance(b.momentum, bool)
    fits = b.momentum in ("auto", None) or (number and 0 <= b.momentum < 1)
    require(fits, "batch_norm.momentum", b.momentum, "auto, null, or 0 to below 1")
    fits = b.recalibrate == "auto" or isinstance(b.recalibrate, bool)
    require(fits, "batch_norm.recalibrate", b.recalibrate, "auto, true or false")
    if b.statistics == "frozen" and b.recalibrate is True:
        raise ConfigError(
            "batch_norm.recalibrate=true would replace what batch_norm.statistics=frozen keeps. "
            "Set one of them to auto."
        )


def _check_trainable(setting: str, value: Any) -> None:
    share = isinstance(value, float) and 0 < value < 1
    named = isinstance(value, bool | str) and value != ""
    what = "true, false, last_stage, first_stage, a share of the layers, or the name of the first layer to train"
    require(share or named, setting, value, what)


def _check_preprocessing(p: Preprocessing | None) -> None:
    if p is None:
        return
    one_of("backbone.preprocessing.channel_order", p.channel_order, ("rgb", "bgr"))
    for name in ("mean", "std"):
        values = getattr(p, name)
        require(len(values) == 3, f"backbone.preprocessing.{name}", values, "three numbers")
    require(all(s > 0 for s in p.std), "backbone.preprocessing.std", p.std, "numbers above 0")


def _check_rates(c: Config) -> None:
    rates = {
        "learning_rate": c.learning_rate,
        "optimizer.learning_rate.frozen": c.optimizer.learning_rate.frozen,
        "optimizer.learning_rate.trained": c.optimizer.learning_rate.trained,
        "optimizer.clipnorm": c.optimizer.clipnorm,
    }
    require(bool(c.strategy.stages), "strategy.stages", "[]", "at least one stage")
    for i, stage in enumerate(c.strategy.stages):
        where = f"strategy.stages[{i}]"
        _check_trainable(f"{where}.trainable", stage.trainable)
        require(stage.epochs >= 1, f"{where}.epochs", stage.epochs, "at least 1")
        rates[f"{where}.learning_rate"] = stage.learning_rate
        share = stage.warmup is None or 0 <= stage.warmup < 1
        require(share, f"{where}.warmup", stage.warmup, "at least 0 and below 1, or null")
    for setting, rate in rates.items():
        require(rate is None or 0 < rate < float("inf"), setting, rate, "a number above 0")
