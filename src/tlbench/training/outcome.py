"""What is said of a finished training: its figures, what stands out, where everything is, what to try next."""

import logging
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from tlbench.base import console
from tlbench.config.schema import Config
from tlbench.networks import batch_norm
from tlbench.runs import metrics
from tlbench.runs.run import Run

log = logging.getLogger(__name__)

WIDE_GAP = 0.1  # between training accuracy while training and in inference, worth a line


def say(run: Run, results: dict[str, Any], cfg: Config) -> None:
    """Show the results of a run on stdout, results: as metrics.json has them."""
    gap = results["accuracy"] - results["inference_accuracy"]
    if gap > WIDE_GAP and batch_norm.statistics(cfg) != "frozen":
        log.warning(
            "Training accuracy was %.2f while training but %.2f in inference: batch normalization's moving "
            "statistics do not fit the weights; set batch_norm.recalibrate=true.",
            *(results["accuracy"], results["inference_accuracy"]),
        )
    console.show(_panel(run, results, cfg))


def _panel(run: Run, results: dict[str, Any], cfg: Config) -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_row("test accuracy", f"[number]{results['evaluation']:.4f}[/]")
    if words := metrics.say_unseen(results):
        grid.add_row("", words)
    grid.add_row("macro F1", f"{results['macro_f1']:.4f}")
    if "top5_accuracy" in results:
        grid.add_row("top 5", f"{results['top5_accuracy']:.4f}")
    grid.add_row("validation", f"{results['val_accuracy']:.4f}")
    grid.add_row(
        "training",
        f"{results['accuracy']:.4f} ({results['inference_accuracy']:.4f} in inference)",
    )
    if results["kept_epoch"] < results["epochs"]:
        words = "stopped" if results["stopped_early"] else "ended"
        grid.add_row("epochs", f"{words} after {results['epochs']}, kept {results['kept_epoch']}")
    grid.add_row("cost", _cost(results))
    if cfg.backbone.weights is None:
        grid.add_row("weights", "random: nothing was downloaded, nothing was transferred")
    try:
        shown = run.folder.relative_to(Path.cwd())
    except ValueError:
        shown = run.folder
    grid.add_row("run folder", f"[path]{escape(str(shown))}[/]")
    grid.add_row("  pictures", "plots/curves.png, plots/confusion_matrix.png")
    grid.add_row("  model", "model.keras (plain Keras, takes 0-255 pixels)")
    grid.add_row("  numbers", "metrics.json, history.csv, predictions.npz")
    grid.add_row("next", _next(cfg))
    return Panel(grid, title="finished", title_align="left", expand=False)


def _cost(results: dict[str, Any]) -> str:
    features = results["features_seconds"]
    return (
        (f"features {features:.1f} s, " if features else "")
        + f"training {results['training_seconds']:.1f} s, {results['images_per_second']:,.0f} "
        f"images/s, {results['peak_memory_bytes'] / 2**30:.1f} GiB at most"
    )


def _next(cfg: Config) -> str:
    if cfg.data.name != "image_folder":
        return "tlbench train data=image_folder data.root=my_photos trainable=false"
    if cfg.trainable is False:
        return "the same with trainable=true, or strategy=probe_finetune"
    return "the same with head=exp, or another backbone=..."
