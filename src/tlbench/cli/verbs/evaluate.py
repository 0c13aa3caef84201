"""`tlbench evaluate RUN [data=...]`: the test evaluation again, or on other data."""

from pathlib import Path
from typing import Any

from tlbench.base.text import printable
from tlbench.cli import quiet
from tlbench.cli.arguments import RunParser

ABOUT = "a finished run on its test images again, or on others of its classes"
EXAMPLE = "tlbench evaluate outputs/RUN"

SHOWN_CLASSES, SHOWN_PAIRS = 20, 10


def run(words: list[str]) -> int:
    """0: the record is repeated, or there is none; 1: it is not, or the figures could not be written."""
    asked = _parser().parse_intermixed_args(words)
    from tlbench.base import console
    from tlbench.runs.run import Run

    finished = Run.finished(Path(asked.run))
    quiet.import_tensorflow()
    from tlbench.inference.evaluate import evaluate

    found = evaluate(finished, asked.data, every=asked.all, config_dir=asked.config_dir)
    _show(found.results, found.comparison)
    if found.folder is None:
        return 1
    console.out.print("written to", console.path(found.folder), soft_wrap=True)
    return 1 if found.comparison.equal is False and not found.comparison.explained else 0


def candidates(words: list[str]) -> list[str]:
    return _parser().candidates(words)


def _parser() -> RunParser:
    parser = RunParser(
        "evaluate",
        "Evaluate a run on its test images again and say whether that repeats its\n"
        "record, or evaluate it on other data of the same classes. Figures and pictures\n"
        "go to RUN/evaluation.",
        example="tlbench evaluate outputs/RUN\n"
        "tlbench evaluate outputs/RUN data=image_folder data.root=new_photos --all",
    )
    parser.add_data("data...=...", "other data, as for train")
    help_all = "on every image, not the test split alone: for data that was not trained on"
    parser.add_argument("--all", action="store_true", help=help_all)
    return parser


# ---------------------------------------------------------------- what is shown


def _show(results: dict[str, Any], comparison: Any) -> None:
    from rich.text import Text

    from tlbench.base import console

    console.out.print(_figures(results))
    console.out.print(_classes_table(results["per_class"]))
    if results["most_confused"]:
        console.out.print(_pairs_table(results["most_confused"]))
        console.out.print(_mistakes_table(results["worst_mistakes"]))
    style = {True: "good", False: "bad", None: "hint"}[comparison.equal]
    console.out.print(Text(comparison.text), style="warn" if comparison.explained else style)


def _figures(results: dict[str, Any]) -> Any:
    from rich.table import Table

    from tlbench.runs import metrics

    grid = Table.grid(padding=(0, 2))
    uneven = metrics.uneven(results["per_class"]) and "balanced_accuracy" in results
    rows = {
        "test images": f"{results['test_images']:,}",
        "accuracy": f"{results['evaluation']:.4f}",
        **({"unseen": words} if (words := metrics.say_unseen(results)) else {}),
        **({"top 5": f"{top5:.4f}"} if (top5 := results.get("top5_accuracy")) else {}),
        **({"balanced accuracy": f"{results['balanced_accuracy']:.4f}"} if uneven else {}),
        **{
            head: f"{results[key]:.4f}"
            for head, key in (("mAP", "mean_average_precision"), ("micro F1", "micro_f1"))
            if results.get(key) is not None
        },
        "macro F1": f"{results['macro_f1']:.4f}",
        "loss": f"{results['evaluation_loss']:.4f}",
        "calibration error": f"{results['calibration_error']:.4f}",
    }
    if "superclass_accuracy" in results:
        rows["superclass accuracy"] = f"{results['superclass_accuracy']:.4f}"
    for name, value in rows.items():
        grid.add_row(name, f"[number]{value}[/]")
    return grid


def _classes_table(per_class: dict[str, dict[str, Any]]) -> Any:
    """Classes with the least F1 first; those without test images are left out."""
    from tlbench.base.columns import Column, FittedTable
    from tlbench.report import tables

    tested = [(name, c) for name, c in per_class.items() if c["images"]]
    tested.sort(key=lambda item: item[1]["f1"] or 0.0)
    more = len(tested) - SHOWN_CLASSES
    caption = f"and {more} better ones, in evaluation.json" if more > 0 else ""
    columns = [
        Column("class", fold=True),
        Column("F1", "right"),
        Column("precision", "right", rank=4),
        Column("recall", "right", rank=2),
        Column("95 %", "right", rank=3),
        Column("images", "right", rank=1),
    ]
    keys = ["f1", "precision", "recall"]
    if tested and "average_precision" in tested[0][1]:
        columns.insert(1, Column("AP", "right"))
        keys.insert(0, "average_precision")
    rows = []
    for name, c in tested[:SHOWN_CLASSES]:
        figures = ("-" if c[k] is None else f"{c[k]:.4f}" for k in keys)
        surely = tables.bounds(c["recall_interval"])
        rows.append([printable(name), *figures, surely, f"{c['images']:,}"])
    return FittedTable(columns, rows, title="classes, the worst first", caption=caption)


def _pairs_table(pairs: list[dict[str, Any]]) -> Any:
    from tlbench.base.columns import Column, FittedTable

    columns = [
        Column("true", fold=True),
        Column("taken for", fold=True),
        Column("images", "right"),
        Column("of the class", "right", rank=1),
    ]
    rows = []
    for pair in pairs[:SHOWN_PAIRS]:
        names = (printable(pair["true"]), printable(pair["predicted"]))
        rows.append([*names, f"{pair['images']:,}", f"{pair['share']:.0%}"])
    return FittedTable(columns, rows, title="most confused")


def _mistakes_table(mistakes: list[dict[str, Any]]) -> Any:
    from tlbench.base.columns import Column, FittedTable

    columns = [
        Column("image", path=True),
        Column("true", fold=True),
        Column("taken for", fold=True),
        Column("surety", "right", rank=1),
    ]
    rows = [
        [
            *(printable(one[key]) for key in ("file", "true", "predicted")),
            f"{one['probability']:.0%}",
        ]
        for one in mistakes[:SHOWN_PAIRS]
    ]
    return FittedTable(columns, rows, title="most confident mistakes")
