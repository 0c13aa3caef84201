"""The typed schema of a run's configuration.

The fields have no defaults: every value stands in conf/, where a user can see and change it.
"""

from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf

SOUP = "soup"  # the name of a strategy that averaged other runs
PUBLISHED_WEIGHTS = (None, "imagenet", "preset")  # of a backbone, where no file is named


@dataclass
class Preprocessing:
    """(pixel - mean) / std per channel, pixels in 0-255, mean and std in `channel_order`."""

    channel_order: str
    mean: list[float]
    std: list[float]


@dataclass
class Backbone:
    """A pretrained network and all that belongs to it.

    builder: who makes it, a name at the seam `backbones`; architecture: which one, null where the builder has
    but one; weights: "imagenet" (keras.applications), "preset" (`preset`, of KerasHub), a file or run folder,
    or null for random ones; interpolation: by which images are brought to image_size, "bilinear" or "bicubic";
    pooling: "average", "cls" or "cls+average". Where it trains: lora, lora_alpha: rank and scale of the low-rank pairs
    that train in its place, or null; dropout, drop_path: rates, 0-1, or null for the network's own.
    """

    name: str
    builder: str
    architecture: str | None
    preset: str | None
    weights: str | None
    image_size: int
    interpolation: str
    preprocessing: Preprocessing | None
    pooling: str
    lora: int | None
    lora_alpha: float | None
    dropout: float | None
    drop_path: float | None
    arguments: dict[str, Any]
    head_widths: list[int]
    licence: str | None

    @property
    def weights_file(self) -> str | None:
        """The path of the first weights, where a file has them."""
        return None if self.weights in PUBLISHED_WEIGHTS else self.weights


@dataclass
class StrengthPath:
    """Strengths of a penalty to try, in equal ratios from the strongest to the weakest, both above 0."""

    strongest: float
    weakest: float
    steps: int


@dataclass
class Head:
    """Hidden Dense layers between the pooled features and the classes.

    solver: what solves a head without hidden layers exactly, "logistic", "ridge", "class_mean" or "nearest"; null:
    the optimizer trains it. neighbours: of "nearest".
    """

    name: str
    widths: list[int]
    activation: str
    dropout: float
    solver: str | None
    path: StrengthPath | None
    neighbours: int | None


@dataclass
class Data:
    """A data set, how it is split and how its files are read.

    task: "multiclass", or "multilabel": any number of classes to an image;
    index: the folder that keeps which image files were read before; null: none does.
    """

    name: str
    source: str
    task: str
    root: str | None
    image_size: int | None
    class_names: list[str] | None
    names: str | None
    superclasses: dict[str, list[str]] | None
    sampling: str
    validation: float
    test: float | None
    split_seed: int
    limit: int | None
    resize: str
    unreadable: str
    memory_limit_gb: float
    index: str | None
    group: str | None
    duplicates: str
    corrections: str | None
    folds: int | None
    fold: int
    table: str | None
    path: str | None
    label: str | None
    separator: str | None
    label_columns: list[str] | None
    split: str | None
    weight: str | None
    arguments: dict[str, Any]


@dataclass
class Loss:
    """What a training makes small, "cross_entropy" or "focal", and what the images of a class count in it.

    label_smoothing: 0-1; class_weights: null, "balanced" or a number above 0 by class name; gamma, alpha: of "focal".
    """

    name: str
    label_smoothing: float
    class_weights: Any
    gamma: float | None
    alpha: float | None


@dataclass
class LearningRate:
    """Step sizes for a stage whose backbone is frozen, and for one that trains any of it."""

    frozen: float
    trained: float


@dataclass
class Optimizer:
    """One class of keras.optimizers and its arguments.

    layer_decay: null or 0-1, by which the learning rate falls from a block to the one below it; decay_biases: whether
    weight decay acts on biases, and on scales and offsets of norms; clipnorm: of each variable's gradient, or null;
    ema: null or 0-1, what the moving average of the weights keeps of itself in a step; swa: null or 0-1, the share of a
    stage's last steps whose weights are averaged.
    """

    name: str
    learning_rate: LearningRate
    layer_decay: float | None
    decay_biases: bool
    clipnorm: float | None
    ema: float | None
    swa: float | None
    arguments: dict[str, Any]


@dataclass
class Schedule:
    """How the learning rate moves within a stage; warmup and final are shares, 0-1."""

    name: str
    warmup: float
    final: float


@dataclass
class Stage:
    """One call of fit.

    trainable: true, false, "last_stage", "first_stage", a share of the layers, or the first layer to train;
    warmup: share of the stage's steps, 0-1, in which the rate rises; null: the schedule's.
    """

    name: str
    trainable: Any
    epochs: int
    learning_rate: float | None
    warmup: float | None

    @property
    def frozen(self) -> bool:
        """Whether the head alone is trained, so that the backbone's features stay as they are."""
        return self.trainable is False


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
    storage: str | None
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
    """Epochs without a better `monitor` after which a stage stops, null: never.

    monitor: "auto", or a figure of the validation; see `Config.monitored`.
    """

    patience: int | None
    monitor: str


@dataclass
class Tracker:
    """Who is told of a run while it is under way: a name at the seam `trackers`, and its arguments."""

    name: str
    arguments: dict[str, Any]


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
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    augment: dict[str, Any]
    strategy: Strategy
    trainable: Any
    epochs: int
    batch_size: int
    microbatch: int | None
    learning_rate: float | None
    seed: int
    precision: str
    device: str
    repeatable: bool
    keep: str
    features: Features
    batch_norm: BatchNorm
    early_stopping: EarlyStopping
    tracker: Tracker
    recipe: str | None
    resume: str | None
    published: Published | None
    n_jobs: int

    def monitored(self, *, solved: bool = False) -> str:
        """The figure of the validation that the best epoch, or strength of a head that is solved, is best in.

        Fine-tuned further, a network's accuracy rises while its loss does, too: it is surer of its mistakes. A path of
        strengths is told by its loss, which moves where accuracy stands still.
        """
        asked = self.early_stopping.monitor
        if asked != "auto":
            return asked
        return "val_loss" if solved or self.data.task == "multilabel" else "val_accuracy"

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


def unlike(saved: Any) -> str:
    """In which settings, by their dotted names, a tree is not shaped as `Config` is; "" where in none."""
    lacking, unknown = _unlike(Config, saved, "")
    parts = [f"it lacks {', '.join(lacking)}"] if lacking else []
    parts += [f"it has {', '.join(unknown)}"] if unknown else []
    return " and ".join(parts)


def _unlike(kind: Any, saved: Any, name: str) -> tuple[list[str], list[str]]:
    record = next((part for part in (kind, *get_args(kind)) if is_dataclass(part)), None)
    lacking, unknown = list[str](), list[str]()
    if record is None or not isinstance(saved, dict | list):
        return lacking, unknown
    if isinstance(saved, list):
        inside = [(record, item, f"{name}[{i}]") for i, item in enumerate(saved)]
    else:
        dot, kinds = f"{name}." if name else "", get_type_hints(record)
        lacking += [f"{dot}{key}" for key in kinds if key not in saved]
        unknown += [f"{dot}{key}" for key in saved if key not in kinds]
        inside = [(k, saved[key], f"{dot}{key}") for key, k in kinds.items() if key in saved]
    for part in inside:
        less, more = _unlike(*part)
        lacking += less
        unknown += more
    return lacking, unknown
