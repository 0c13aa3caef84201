"""The layer table and parameter counts of a classifier, as in the report's figures."""

from tlbench.base.columns import Column, FittedTable
from tlbench.config.schema import Config
from tlbench.networks import lora
from tlbench.networks.classifiers import Classifier, build

COLUMNS = (
    Column("layer"),
    Column("output shape"),
    Column("parameters", "right"),
    Column("trained", rank=1),
)


def summary(cfg: Config, classes: int) -> FittedTable:
    """The layers of what `train` would build, with random weights."""
    size = cfg.data.image_size or cfg.backbone.image_size
    if cfg.backbone.builder != "file":
        cfg.backbone.weights = None  # counts do not depend on them, and nothing is to be downloaded
    classifier = build(cfg, (size, size, 3), classes)
    if classifier.backbone.trainable_weights:
        lora.check(classifier.backbone, cfg.backbone)
    return layer_table(classifier)


def layer_table(classifier: Classifier) -> FittedTable:
    """Layers with their output shapes and parameters, and the totals."""
    rows = []
    for layer in classifier.model.layers:
        shape = ", ".join(str(n) for n in layer.output.shape[1:])
        trained = "pairs" if classifier.pairs and layer is classifier.backbone else _trained(layer)
        rows.append([layer.name, f"({shape})", f"{layer.count_params():,}", trained])
    total, trainable = classifier.parameters, classifier.trainable_parameters
    pairs = classifier.pairs
    sums = {"total": total, "trainable": trainable, "non-trainable": total + pairs - trainable}
    if pairs:  # what becomes of them goes into the layers' own: no total counts them
        sums |= {"low-rank pairs": pairs}
    rows.append([""] * len(COLUMNS))
    rows += [[name, "", f"{count:,}", ""] for name, count in sums.items()]
    return FittedTable(COLUMNS, rows)


def _trained(layer: object) -> str:
    """yes, no, in part, or nothing for a layer without weights."""
    weights = getattr(layer, "weights", [])
    if not weights:
        return ""
    inner = [part for part in getattr(layer, "layers", [layer]) if part.weights]
    chosen = [part for part in inner if part.trainable_weights]
    return "yes" if len(chosen) == len(inner) else "in part" if chosen else "no"
