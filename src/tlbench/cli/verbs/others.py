"""The words after evaluate, predict, export and cache: parsed, and completed on Tab. No TensorFlow.

What can be refused without loading a model is refused here, at once.
"""

from collections.abc import Callable
from pathlib import Path

from tlbench.base import console
from tlbench.base.errors import ConfigError
from tlbench.cli import hydra
from tlbench.cli.arguments import Parser
from tlbench.inference.formats import FORMATS, parse_formats
from tlbench.inference.sinks import check_targets
from tlbench.runs.run import Run


def evaluate(words: list[str]) -> int:
    """`tlbench evaluate RUN [data=...]`"""
    asked = _evaluate_parser().parse_intermixed_args(words)
    run = Run.finished(Path(asked.run))
    from tlbench.inference.evaluate import evaluate

    return evaluate(run, asked.data, every=asked.all, config_dir=asked.config_dir)


def predict(words: list[str]) -> int:
    """`tlbench predict RUN PATH...`"""
    asked = _predict_parser().parse_intermixed_args(words)
    if asked.top < 1:
        raise ConfigError(f"--top {asked.top} is not valid. Expected at least 1.")
    check_targets(asked.json, asked.csv)
    run = Run.finished(Path(asked.run))
    from tlbench.inference.predict import predict

    return predict(run, asked.paths, top=asked.top, json=asked.json, csv=asked.csv)


def export(words: list[str]) -> int:
    """`tlbench export RUN --format ...`"""
    asked = _export_parser().parse_intermixed_args(words)
    formats = parse_formats(asked.format, asked.quantize)
    if asked.images < 1:
        raise ConfigError(f"--images {asked.images} is not valid. Expected at least 1.")
    for flag, limit in (("tolerance", asked.tolerance), ("accuracy-loss", asked.accuracy_loss)):
        if not 0 <= limit <= 1:
            raise ConfigError(f"--{flag} {limit} is not valid. Expected 0 to 1.")
    run = Run.finished(Path(asked.run))
    from tlbench.inference.export import Limits, export

    limits = Limits(asked.images, asked.tolerance, asked.accuracy_loss)
    return export(run, formats, asked.data, limits, config_dir=asked.config_dir)


def cache(words: list[str]) -> int:
    """`tlbench cache [--prune GB | --clear]`"""
    asked = _cache_parser().parse_args(words)
    if asked.prune is not None and asked.prune < 0:
        raise ConfigError(f"--prune {asked.prune} is not valid. Expected at least 0.")
    from tlbench.features.housekeeping import clear, listing, prune

    folder = Path(asked.folder) if asked.folder else hydra.features_folder()
    if asked.clear or asked.prune is not None:
        emptied = clear(folder) if asked.clear else prune(folder, asked.prune * 2**30)
        freed = sum(entry.size for entry in emptied.removed) / 2**20
        console.out.print(f"removed {len(emptied.removed)} entries, {freed:,.1f} MiB")
        for line in emptied.left:
            text = f"left {console.printable(line)}"
            console.err.print(text, style="warn", markup=False, soft_wrap=True)
    console.out.print(listing(folder))
    return 0


# ---------------------------------------------------------------- parsers


def _parser(verb: str, description: str, *, example: str) -> Parser:
    parser = Parser(verb, description, example=example)
    parser.add_argument("run", metavar="RUN", help="the folder of a finished run")
    return parser


def _add_data(parser: Parser, metavar: str, help_data: str) -> None:
    parser.add_argument("data", metavar=metavar, nargs="*", default=[], help=help_data)
    parser.add_argument(
        "--config-dir", metavar="DIR", help="a folder of your own YAML, as for train"
    )


def _evaluate_parser() -> Parser:
    parser = _parser(
        "evaluate",
        "Evaluate a run on its test images again and say whether that repeats its\n"
        "record, or evaluate it on other data of the same classes. Figures and pictures\n"
        "go to RUN/evaluation.",
        example="tlbench evaluate outputs/RUN\n"
        "tlbench evaluate outputs/RUN data=image_folder data.root=new_photos --all",
    )
    _add_data(parser, "data...=...", "other data, as for train")
    help_all = "on every image, not the test split alone: for data that was not trained on"
    parser.add_argument("--all", action="store_true", help=help_all)
    return parser


def _predict_parser() -> Parser:
    parser = _parser(
        "predict",
        "Say what a run takes image files for. Files that cannot be read are reported,\n"
        "the rest go on, and the exit code is then 1.",
        example="tlbench predict outputs/RUN cat.jpg photos/ 'more/**/*.png'\n"
        "tlbench predict outputs/RUN photos/ --top 5 --csv predictions.csv",
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", help="files, folders, glob patterns")
    help_top = "classes for each image (default: 2)"
    parser.add_argument("--top", metavar="K", type=int, default=2, help=help_top)
    for kind in ("json", "csv"):
        help_kind = f"write {kind.upper()} instead of the table, to a file or to stdout"
        parser.add_argument(f"--{kind}", metavar="FILE", nargs="?", const="-", help=help_kind)
    return parser


def _export_parser() -> Parser:
    parser = _parser(
        "export",
        "Export a run's model for other runtimes. Each export takes raw 0-255 pixels, is\n"
        "run in its own runtime on test images, and is kept only if it answers as the\n"
        "model does.",
        example="tlbench export outputs/RUN --format onnx,openvino\n"
        "tlbench export outputs/RUN --format litert --quantize int8",
    )
    _add_data(parser, "data.KEY=...", "where the data is, if it has moved: data.root=...")
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


def _cache_parser() -> Parser:
    parser = Parser(
        "cache",
        "List the frozen features that trainings have left on disk, or remove some of\n"
        "them. Removed features are computed again when a training needs them.",
        example="tlbench cache\ntlbench cache --prune 5",
    )
    parser.add_argument("--folder", help="another cache than features.folder of conf/train.yaml")
    some = parser.add_mutually_exclusive_group()
    help_prune = "remove the least recently used until the rest is below GB"
    some.add_argument("--prune", metavar="GB", type=float, help=help_prune)
    some.add_argument("--clear", action="store_true", help="remove everything that is not in use")
    return parser


PARSERS: dict[str, Callable[[], Parser]] = {
    "evaluate": _evaluate_parser,
    "predict": _predict_parser,
    "export": _export_parser,
    "cache": _cache_parser,
}


# ---------------------------------------------------------------- Tab


def complete(verb: str, words: list[str]) -> list[str]:
    """What Tab offers for the last of the words after a verb; for nothing the shell offers files."""
    *before, word = words or [""]
    if before[-1:] == ["--format"]:
        done, comma, _ = word.rpartition(",")
        return [f"{done}{comma}{name}" for name in FORMATS]
    if verb != "cache" and len(before) == 1 and not word.startswith("-"):
        return []  # after the run: images, or other data
    return PARSERS[verb]().candidates(words)
