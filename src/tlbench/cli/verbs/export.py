"""`tlbench export RUN --format ...`: a finished run's model for other runtimes, checked in them."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlbench.base.errors import ConfigError
from tlbench.cli import quiet
from tlbench.cli.arguments import RunParser
from tlbench.inference.formats import FORMATS, parse_formats

ABOUT = "a finished run's model for another runtime, checked in that runtime"
EXAMPLE = "tlbench export outputs/RUN --format onnx,openvino"

log = logging.getLogger(__name__)


def run(words: list[str]) -> int:
    """0: each was kept; 1: some were refused, and nothing of them is left."""
    asked = _parser().parse_intermixed_args(words)
    formats = parse_formats(asked.format, asked.quantize)
    if asked.images < 1:
        raise ConfigError(f"--images {asked.images} is not valid. Expected at least 1.")
    for flag, limit in (("tolerance", asked.tolerance), ("accuracy-loss", asked.accuracy_loss)):
        if not 0 <= limit <= 1:
            raise ConfigError(f"--{flag} {limit} is not valid. Expected 0 to 1.")
    from tlbench.runs.run import Run

    finished = Run.finished(Path(asked.run))
    quiet.import_tensorflow()
    from tlbench.inference.export import Limits, export

    limits = Limits(asked.images, asked.tolerance, asked.accuracy_loss)
    done, failures = export(
        finished, formats, asked.data, limits, asked.config_dir, silence=quiet.silenced
    )
    _show(done)
    for failure in failures:
        log.warning("%s", failure)
    return 1 if failures else 0


def candidates(words: list[str]) -> list[str]:
    *before, word = words or [""]
    if before[-1:] == ["--format"]:
        done, comma, _ = word.rpartition(",")
        return [f"{done}{comma}{name}" for name in FORMATS]
    return _parser().candidates(words)


def _parser() -> RunParser:
    parser = RunParser(
        "export",
        "Export a run's model for other runtimes. Each export takes raw 0-255 pixels, is\n"
        "run in its own runtime on test images, and is kept only if it answers as the\n"
        "model does.",
        example="tlbench export outputs/RUN --format onnx,openvino\n"
        "tlbench export outputs/RUN --format litert --quantize int8",
    )
    parser.add_data("data.KEY=...", "where the data is, if it has moved: data.root=...")
    help_format = f"{', '.join(FORMATS)}; several with commas"
    parser.add_argument(
        "--format", metavar="NAME", action="append", required=True, help=help_format
    )
    help_quantize = "litert in whole numbers: a quarter of the size"
    parser.add_argument("--quantize", choices=["int8"], help=help_quantize)
    help_images = "test images to compare on (default: 256)"
    parser.add_argument("--images", metavar="N", type=int, default=256, help=help_images)
    help_tolerance = "difference of a probability that passes (default: 1e-4)"
    parser.add_argument("--tolerance", metavar="X", type=float, default=1e-4, help=help_tolerance)
    help_loss = "accuracy that quantizing may cost (default: 0.02)"
    parser.add_argument("--accuracy-loss", metavar="X", type=float, default=0.02, help=help_loss)
    return parser


# ---------------------------------------------------------------- what is shown


def _show(exports: Sequence[Any]) -> None:
    """The table, what quantizing costs, and where the kept ones are."""
    from tlbench.base import console

    console.out.print(_table(exports))
    for one in exports:
        if one.form.quantized:
            cost = one.parity.accuracy_of_model - one.parity.accuracy
            console.out.print(f"{one.form.label} costs {cost:.4f} of accuracy", soft_wrap=True)
    for one in exports:
        if not one.refusal:
            console.out.print("kept", console.path(one.folder / one.form.file), soft_wrap=True)


def _table(exports: Sequence[Any]) -> Any:
    from rich.text import Text

    from tlbench.base.columns import Column, FittedTable

    columns = (
        Column("format"),
        Column("difference", "right", rank=1),
        Column("same class", "right", rank=4),
        Column("accuracy", "right", rank=2),
        Column("size", "right", rank=3),
        Column("latency", "right", rank=5),
        Column(""),
    )
    parity = exports[0].parity
    rows: list[list[str | Text]] = [
        [
            one.form.label,
            f"{one.parity.greatest_difference:.1e}",
            f"{one.parity.top_class_agreement:.2%}",
            f"{one.parity.accuracy:.4f}",
            f"{one.bytes / 1e6:,.2f} MB",
            f"{one.parity.latency_ms:.2f} ms",
            Text("refused", "bad") if one.refusal else Text("kept", "good"),
        ]
        for one in exports
    ]
    caption = (
        f"the model itself: accuracy {parity.accuracy_of_model:.4f} on {parity.images} test images"
    )
    return FittedTable(columns, rows, caption=caption)
