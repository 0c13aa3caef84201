"""What task=multilabel asks of the other settings."""

from tlbench.base.errors import ConfigError
from tlbench.config.schema import Config

ONE_EACH = ("digits", "cifar10", "cifar100_coarse", "cifar100_fine", "image_folder", "shards")


def check(c: Config) -> None:
    """Raise ConfigError for settings that mean nothing where an image has any number of classes, or only there."""
    if c.data.task != "multilabel":
        if c.data.label_columns:
            raise ConfigError(
                "data.label_columns has a column for each class: add task=multilabel. Where a picture has one class "
                "it stands in data.label."
            )
        return
    if c.data.source in ONE_EACH:
        raise ConfigError(
            f"task=multilabel needs pictures that may have several classes, and those of data={c.data.name} have one "
            "each. Expected data=table data.table=labels.csv"
        )
    if c.data.superclasses:
        raise ConfigError("data.superclasses needs task=multiclass: one class to an image.")
    if c.head.solver is not None and c.loss.class_weights is not None:
        raise ConfigError(
            f"loss.class_weights={c.loss.class_weights} with task=multilabel needs a head that is trained in steps: "
            f"head.solver={c.head.solver} weighs whole images. Set loss.class_weights=null: the thresholds, which "
            "validation chooses class by class, do the same work."
        )
