"""Settings that an older tlbench wrote: brought to today's names, with the values of their time."""

import copy
from collections.abc import Callable
from typing import Any

FORMAT = 6  # of a run's folder and of the settings in it; a newer one is refused

Tree = dict[str, Any]


def migrated(tree: Tree, format_: int) -> Tree:
    """Settings of an older format as today's; values that had no name then are those that held then."""
    found = copy.deepcopy(tree)
    for step in range(format_, FORMAT):
        for change in _STEPS[step]:
            change(found)
    return found


def _to_builders(tree: Tree) -> None:
    """1 -> 2: a backbone was a function of keras.applications, or null for the model in a file."""
    if isinstance(backbone := tree.get("backbone"), dict):
        architecture = backbone.pop("application", None)
        backbone["builder"] = "file" if architecture is None else "keras_applications"
        backbone |= {"architecture": architecture, "preset": None, "licence": None}
        backbone["pooling"] = "average"
    if isinstance(data := tree.get("data"), dict):
        data["arguments"] = {}
    tree["tracker"] = {"name": "none", "arguments": {}}


def _to_solvers(tree: Tree) -> None:
    """2 -> 3: the optimizer trained every head; every image was brought to a backbone's size bilinearly."""
    if isinstance(head := tree.get("head"), dict):
        head |= {"solver": None, "path": None, "neighbours": None}
    if isinstance(backbone := tree.get("backbone"), dict):
        backbone["interpolation"] = "bilinear"


def _to_groups(tree: Tree) -> None:
    """3 -> 4: no table, no groups and no folds; equal images stood together."""
    if isinstance(data := tree.get("data"), dict):
        data |= {
            "group": None,
            "duplicates": "exact",
            "corrections": None,
            "folds": None,
            "fold": 0,
        }
        data |= {"table": None, "path": None, "label": None, "split": None, "weight": None}


def _to_losses(tree: Tree) -> None:
    """3 -> 4: the loss was cross-entropy, images counted alike, an epoch had each once, the least val_loss was best."""
    tree["loss"] = {"name": "cross_entropy", "label_smoothing": 0.0, "class_weights": None}
    tree["loss"] |= {"gamma": None, "alpha": None}
    if isinstance(data := tree.get("data"), dict):
        data["sampling"] = "natural"
    if isinstance(early := tree.get("early_stopping"), dict):
        early["monitor"] = "val_loss"


def _to_index(tree: Tree) -> None:
    """3 -> 4: image files were read at every start."""
    if isinstance(data := tree.get("data"), dict):
        data["index"] = None


def _to_tasks(tree: Tree) -> None:
    """4 -> 5: an image had one class, and class names stood in no file."""
    if isinstance(data := tree.get("data"), dict):
        data |= {"task": "multiclass", "separator": None, "label_columns": None, "names": None}


def _to_maps(tree: Tree) -> None:
    """4 -> 5: what lay below a layer from which on a stage trained was computed every epoch."""
    if isinstance(features := tree.get("features"), dict):
        features["storage"] = None


def _to_fine_tuning(tree: Tree) -> None:
    """4 -> 5: layers learned alike, weight decay shrank norms too, the last weights were kept, a batch was whole."""
    tree["microbatch"] = None
    if isinstance(optimizer := tree.get("optimizer"), dict):
        optimizer |= {"layer_decay": None, "decay_biases": True, "clipnorm": None, "ema": None}


def _to_best(tree: Tree) -> None:
    """5 -> 6: the best epoch was kept where early stopping was on, else the last."""
    early = tree.get("early_stopping")
    patience = early.get("patience") if isinstance(early, dict) else None
    tree["keep"] = "last" if patience is None else "best"
    tree["recipe"] = None


def _to_swa(tree: Tree) -> None:
    """5 -> 6: weights were averaged by optimizer.ema or not at all."""
    if isinstance(optimizer := tree.get("optimizer"), dict):
        optimizer["swa"] = None


def _to_low_rank(tree: Tree) -> None:
    """5 -> 6: all of a backbone trained, with the rates that it came with."""
    if isinstance(backbone := tree.get("backbone"), dict):
        backbone |= {"lora": None, "lora_alpha": None, "dropout": None, "drop_path": None}


# By the format they begin from; the changes of one step are of different settings, so their order is free.
_STEPS: dict[int, tuple[Callable[[Tree], None], ...]] = {
    1: (_to_builders,),
    2: (_to_solvers,),
    3: (_to_groups, _to_losses, _to_index),
    4: (_to_tasks, _to_maps, _to_fine_tuning),
    5: (_to_best, _to_swa, _to_low_rank),
}
