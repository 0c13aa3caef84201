"""What a run's folder holds: the name of every file, and the columns of those that are tables."""

from pathlib import Path

MANIFEST = "manifest.json"
CONFIG = "config.yaml"
IMAGES = "images.npz"  # digests of the images of each split
SPLIT_FILES = "images.csv"  # the paths of them, where they have any
HISTORY = "history.csv"
METRICS = "metrics.json"
MODEL = "model.keras"
PREDICTIONS = "predictions.npz"
PREDICTED_FILES = "predictions.csv"
# What a run is made of: each is in the manifest, with its SHA-256.
RESULTS = (
    *(CONFIG, IMAGES, SPLIT_FILES, HISTORY, METRICS, MODEL),
    *(PREDICTIONS, PREDICTED_FILES),
)

CHECKPOINTS = "checkpoint"
CHECKPOINT = f"{CHECKPOINTS}/latest.npz"
PLOTS = "plots"
CURVES = f"{PLOTS}/curves.png"
CONFUSION = f"{PLOTS}/confusion_matrix.png"
SUMMARY = "summary.txt"
LOG = "train.log"
LOCK = ".lock"
NEW = ".new"  # results that are not the run's own yet

EVALUATION = "evaluation"
EVALUATED = "evaluation.json"
RELIABILITY = "reliability.png"
MISTAKES = "mistakes.png"
EXPORTS = "exports"
EXPORT = "export.json"
CLASS_NAMES = "class_names.json"
FOLDERS = (CHECKPOINTS, PLOTS, NEW, EVALUATION, EXPORTS)

# What a range test leaves.
RATES, RATES_PICTURE = "learning_rates.csv", "learning_rates.png"

# A sweep's folder: Hydra's record of the command, and what is made of its runs at the end.
MULTIRUN = "multirun.yaml"
TABLE, PAGE, SWEEP_CURVES = "table.md", "report.html", "curves.png"

CURVES_OF_HISTORY = ("accuracy", "val_accuracy", "loss", "val_loss")
ASKED_FOR = (
    "val_macro_f1",
    "val_auc",
    "val_map",
)  # of the history, where early_stopping.monitor names one
HISTORY_COLUMNS = (
    *("stage", "epoch", "strength", "loss", "accuracy", "val_loss", "val_accuracy", *ASKED_FOR),
    *("learning_rate", "seconds", "images_per_second"),
)
SPLITS = ("train", "validation", "test")


def is_run(folder: Path) -> bool:
    """Whether there is a run in a folder, be it a damaged one."""
    return (folder / MANIFEST).is_file()
