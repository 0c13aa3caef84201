"""What a command shows of a run that it finished."""

from pathlib import Path
from typing import Any

from tlbench.base.text import counted


def show(run: Any) -> None:
    """The figures of a finished training, what stands out, where everything is and what to try next."""
    from rich.panel import Panel

    from tlbench.base import console

    panel = Panel(_grid(run), title="finished", title_align="left", expand=False)
    console.show(panel)


def _grid(run: Any) -> Any:
    from rich.markup import escape
    from rich.table import Table

    from tlbench.runs import layout, metrics

    results, settings = run.metrics, run.config()
    grid = Table.grid(padding=(0, 2))
    grid.add_row("test accuracy", f"[number]{results['evaluation']:.4f}[/]")
    if words := metrics.say_unseen(results):
        grid.add_row("", words)
    if results.get("mean_average_precision") is not None:  # an image may have several classes
        grid.add_row("mAP", f"{results['mean_average_precision']:.4f}")
    grid.add_row("macro F1", f"{results['macro_f1']:.4f}")
    if "top5_accuracy" in results:
        grid.add_row("top 5", f"{results['top5_accuracy']:.4f}")
    grid.add_row("validation", f"{results['val_accuracy']:.4f}")
    grid.add_row(
        "training",
        f"{results['accuracy']:.4f} ({results['inference_accuracy']:.4f} in inference)",
    )
    if settings.head.solver is not None and settings.trainable is False:
        grid.add_row("head", _solved(results, settings.head))
    elif results["kept_epoch"] < results["epochs"]:
        words = "stopped" if results["stopped_early"] else "ended"
        grid.add_row("epochs", f"{words} after {results['epochs']}, kept {results['kept_epoch']}")
    if corrected := run.manifest["data"].get("corrections"):
        dropped = counted(corrected["dropped"], "picture")
        grid.add_row("corrections", f"{dropped} dropped, {corrected['relabelled']:,} relabelled")
    grid.add_row("cost", _cost(results))
    if settings.backbone.weights is None:
        grid.add_row("weights", "random: nothing was downloaded, nothing was transferred")
    grid.add_row("run folder", f"[path]{escape(str(_from_here(run.folder)))}[/]")
    grid.add_row("  pictures", f"{layout.CURVES}, {layout.CONFUSION}")
    grid.add_row("  model", f"{layout.MODEL} ({_loads_with(run)}, takes 0-255 pixels)")
    grid.add_row("  numbers", f"{layout.METRICS}, {layout.HISTORY}, {layout.PREDICTED_FILES}")
    grid.add_row("next", _next(settings))
    return grid


def _solved(results: dict[str, Any], head: Any) -> str:
    """How a head was solved, and which strength of its path was chosen."""
    if head.neighbours is not None:
        return f"{head.neighbours} nearest neighbours, nothing fitted"
    if "strength" not in results:
        return f"{head.solver}, nothing fitted"
    return f"{head.solver}, strength {results['strength']:.2g} ({results['kept_epoch']} of {results['epochs']})"


def _loads_with(run: Any) -> str:
    packages = list(run.manifest.get("requires", {}))
    return f"Keras with {', '.join(packages)}" if packages else "plain Keras"


def _from_here(folder: Path) -> Path:
    try:
        return folder.relative_to(Path.cwd())
    except ValueError:
        return folder


def _cost(results: dict[str, Any]) -> str:
    features = results["features_seconds"]
    return (
        (f"features {features:.1f} s, " if features else "")
        + f"training {results['training_seconds']:.1f} s, {results['images_per_second']:,.0f} "
        f"images/s, {results['peak_memory_bytes'] / 2**30:.1f} GiB at most"
    )


def _next(cfg: Any) -> str:
    if cfg.data.source not in ("image_folder", "table", "shards"):
        return "tlbench train data=image_folder data.root=my_photos trainable=false"
    if cfg.trainable is False:
        return "the same with strategy=probe_finetune trainable=true"
    return "the same with head=exp, or another backbone=..."
