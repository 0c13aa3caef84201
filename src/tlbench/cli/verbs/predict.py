"""`tlbench predict RUN PATH...`: what a finished run takes image files for."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.base.errors import ConfigError, DataError
from tlbench.base.text import printable
from tlbench.cli import quiet
from tlbench.cli.arguments import RunParser

if TYPE_CHECKING:
    from tlbench.runs.run import Run

ABOUT = "what a finished run takes image files for"
EXAMPLE = "tlbench predict outputs/RUN photos/ --csv predictions.csv"

log = logging.getLogger(__name__)


def run(words: list[str]) -> int:
    """0: all were read; 1: something could not be, and the rest went on."""
    asked = _parser().parse_intermixed_args(words)
    if asked.top < 1:
        raise ConfigError(f"--top {asked.top} is not valid. Expected at least 1.")
    from tlbench.base import console
    from tlbench.cli import sinks
    from tlbench.data import pictures
    from tlbench.inference import predict
    from tlbench.runs.run import Run

    sinks.check_targets(asked.json, asked.csv)
    finished = Run.finished(Path(asked.run))
    found = predict.find(asked.paths)
    paths, problems = found.pictures, found.unreadable
    if left_out := pictures.left_out(found.others):
        log.warning("%s", left_out)
    for problem in problems:
        log.warning("%s", printable(problem))
    if not paths:
        raise DataError(
            "There is no image to classify. Name image files or folders that hold some."
        )
    unreadable = len(problems) + _classified(finished, paths, asked)
    for written in (asked.json, asked.csv):
        if written and written != sinks.STDOUT:
            console.out.print("written to", console.path(written), soft_wrap=True)
    if unreadable:
        log.warning("%d of %d could not be read", unreadable, len(paths) + len(problems))
    return 1 if unreadable or found.missed else 0


def _classified(run: "Run", paths: list[Path], asked: Any) -> int:
    """Classify files into the sinks that were asked for; how many could not be read."""
    quiet.import_tensorflow()
    from tlbench.base import console
    from tlbench.cli import sinks
    from tlbench.inference import loaded, predict

    classifier = loaded.load(run, "auto")
    top, unreadable = min(asked.top, len(run.class_names)), 0
    with (
        sinks.opened(asked.json, asked.csv, top) as targets,
        console.progress("classifying", len(paths), "img") as advance,
    ):
        for predictions, wrong in predict.predicted(classifier, paths, top):
            for line in wrong:
                log.warning("%s", printable(line))
            for prediction in predictions:
                for target in targets:
                    target.add(prediction)
            unreadable += len(wrong)
            advance(len(predictions) + len(wrong))
        if unreadable == len(paths):
            raise DataError("None of the files is a readable image.")
    return unreadable


def candidates(words: list[str]) -> list[str]:
    return _parser().candidates(words)


def _parser() -> RunParser:
    parser = RunParser(
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
