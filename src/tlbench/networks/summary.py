"""The layer table and parameter counts of a classifier, as in the report's figures."""

from rich import box
from rich.table import Table

from tlbench.base import console
from tlbench.base.errors import DataError
from tlbench.config import schema
from tlbench.data import sources
from tlbench.networks.classifiers import Classifier, build
from tlbench.networks.hardware import prepare


def summary(cfg: schema.Config) -> None:
    """Build what `train` would build, with random weights, and print its layers."""
    prepare(cfg.device, cfg.seed)
    names = sources.class_names(cfg.data)
    if len(names) < 2:
        raise DataError(
            f"{cfg.data.root or cfg.data.name} holds {len(names)} class; expected at least 2."
        )
    size = cfg.data.image_size or cfg.backbone.image_size
    cfg.backbone.weights = None  # counts do not depend on them, and nothing is to be downloaded
    console.out.print(layer_table(build(cfg, (size, size, 3), len(names))))


def layer_table(classifier: Classifier) -> Table:
    """Layers with their output shapes and parameters, and the totals."""
    total, trainable = classifier.parameters, classifier.trainable_parameters
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    table.add_column("layer", footer="\n".join(["total", "trainable", "non-trainable"]))
    table.add_column("output shape", footer="")
    counts = "\n".join(f"{n:,}" for n in (total, trainable, total - trainable))
    table.add_column("parameters", footer=counts, justify="right")
    table.add_column("trained", footer="")
    for layer in classifier.model.layers:
        shape = ", ".join(str(n) for n in layer.output.shape[1:])
        table.add_row(layer.name, f"({shape})", f"{layer.count_params():,}", _trained(layer))
    return table


def _trained(layer: object) -> str:
    """yes, no, in part, or nothing for a layer without weights."""
    weights = getattr(layer, "weights", [])
    if not weights:
        return ""
    inner = [part for part in getattr(layer, "layers", [layer]) if part.weights]
    chosen = [part for part in inner if part.trainable_weights]
    return "yes" if len(chosen) == len(inner) else "in part" if chosen else "no"
