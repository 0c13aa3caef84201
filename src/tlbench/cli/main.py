"""The command line: a verb and its words -> a command, and the only place where an error ends.

`main` is imported at every key press of tab completion, so nothing heavy is imported at the top.
"""

import io
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlbench.base.errors import ConfigError, TlbenchError, suggest
from tlbench.base.stopping import Interrupted, ignore_saving

USAGE = """\
tlbench: transfer-learning image classification, from YAML to numbers

  tlbench VERB [key=value ...] [flags]

Verbs
  train     train a classifier, keep its model, metrics and plots in a folder
              tlbench train backbone=mobilenetv3 head=exp
              tlbench train data=image_folder data.root=photos trainable=false
              tlbench train experiment=quickstart
  summary   print the layers and parameter counts of what `train` would build
              tlbench summary report=resnet50_fc
  evaluate  a finished run on its test images again, or on others of its classes
              tlbench evaluate outputs/RUN
  predict   what a finished run takes image files for
              tlbench predict outputs/RUN photos/ --csv predictions.csv
  export    a finished run's model for another runtime, checked in that runtime
              tlbench export outputs/RUN --format onnx,openvino
  report    set finished runs in one table, beside the published one
              tlbench report --sort evaluation --html report.html
  cache     list the frozen features on disk, or remove some
              tlbench cache --prune 5

Flags
  --help        after a verb: every setting and choice of it
  --multirun    every combination of comma-separated values, a process each
  --version     the version
  --traceback   show where an error comes from (or set TLBENCH_TRACEBACK=1)
  --config-dir  after a verb that takes settings: your own YAML, which you trust

Tab completion
  bash, zsh     eval "$(tlbench -sc install=bash)"    (install=zsh)
  fish          tlbench -sc install=fish | source
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 1 failed or partly done, 2 bad input, 130 Ctrl-C."""
    _open_streams()
    return _flushed(_ended(list(sys.argv[1:] if argv is None else argv)))


def _ended(words: list[str]) -> int:
    """The exit code of a command, its error told."""
    if "--traceback" in words:
        words.remove("--traceback")
        os.environ["TLBENCH_TRACEBACK"] = "1"
    try:
        return program(words)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except Interrupted as interruption:
        command = interruption.resume_command
        hint = f". Go on with: {command}" if command else ""
        _say(f"interrupted by {interruption}{hint}")
        return interruption.exit_code
    except BrokenPipeError:  # `tlbench ... | head` closed the pipe: nobody is left to tell
        _drop("stdout")
        return 141
    except Exception as error:
        if os.environ.get("TLBENCH_TRACEBACK"):
            raise
        message, code = describe(error)
        _say(f"error: {message}")
        return code


def _say(line: str) -> None:
    from tlbench.base import console

    console.say(f"tlbench: {line}")


def _open_streams() -> None:
    """A closed stream (`2>&-`) leads nowhere, before a file takes its number and libraries write into it.

    What an encoding cannot hold is shown as a replacement.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _flushed(code: int) -> int:
    """The exit code once all is written; Python's own end would make 120 of a stream that is gone."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop("stdout")
        _say(f"error: stdout cannot be written ({error.strerror})")
        code = code or (141 if isinstance(error, BrokenPipeError) else 1)
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        _drop("stderr")
    return code


def _drop(name: str) -> None:
    """Send a stream that nobody can read any more nowhere."""
    setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115


def program(words: list[str]) -> int:
    """The pure path: finds the verb and runs it; errors go up."""
    if words[:1] == ["-sc"] or words[:1] == ["--shell-completion"]:
        from tlbench.cli import completion

        for line in completion.answer(words[1:], VERBS):
            print(line)
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if words[0] == "--version":
        from tlbench import __version__

        print(f"tlbench {__version__}")
        return 0
    verb, *rest = words
    _check_working_directory()
    if verb not in VERBS:
        raise ConfigError(f"Unknown verb '{verb}'. {suggest(verb, VERBS)}")
    return VERBS[verb](rest) or 0


def _check_working_directory() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigError("The working directory was removed. Go to another: cd ~") from error


def train(words: list[str]) -> None:
    """`tlbench train [overrides]`: one run, or with --multirun a sweep of runs."""
    ignore_saving()
    from tlbench.cli import hydra
    from tlbench.sweep import folders

    words = folders.resumed(words)

    def job(cfg: Any, folder: Path, overrides: list[str]) -> None:
        from tlbench.data import sources

        if cfg.resume is None:
            sources.check(cfg.data)  # before TensorFlow takes its seconds
        from tlbench.training import train

        command = shlex.join(["tlbench", "train", *words])
        if cfg.resume is None:
            train.train(cfg, folder, command)
        else:
            train.resume(cfg, overrides, command)

    hydra.run(hydra.in_own_folder(words), job)


def summary(words: list[str]) -> None:
    """`tlbench summary [overrides]`: the layer table, and nothing left behind."""
    from tlbench.cli import hydra

    def job(cfg: Any, folder: Path, overrides: list[str]) -> None:
        del folder, overrides
        from tlbench.networks.summary import summary

        summary(cfg)

    hydra.run([*words, "hydra.run.dir=."], job)


def evaluate(words: list[str]) -> int:
    """`tlbench evaluate RUN [data=...]`: the test evaluation again, or on other data."""
    from tlbench.cli.verbs import others

    return others.evaluate(words)


def predict(words: list[str]) -> int:
    """`tlbench predict RUN PATH... [flags]`: what a run takes image files for."""
    from tlbench.cli.verbs import others

    return others.predict(words)


def export(words: list[str]) -> int:
    """`tlbench export RUN --format ... [flags]`: the model for other runtimes, checked in them."""
    from tlbench.cli.verbs import others

    return others.export(words)


def report(words: list[str]) -> int:
    """`tlbench report [PATH...] [flags]`: a table of runs; 1 when a check fails."""
    from tlbench.cli.verbs.report import report

    return report(words)


def cache(words: list[str]) -> int:
    """`tlbench cache [flags]`: the frozen features on disk."""
    from tlbench.cli.verbs import others

    return others.cache(words)


VERBS: dict[str, Callable[[list[str]], int | None]] = {
    "train": train,
    "summary": summary,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "report": report,
    "cache": cache,
}


def describe(error: Exception) -> tuple[str, int]:
    """The one line and the exit code of an error."""
    if isinstance(error, TlbenchError):
        return " ".join(str(error).split()), error.exit_code
    if type(error).__module__.startswith(("hydra", "omegaconf")):
        from tlbench.cli import hydra

        return hydra.explain(error), 2
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}", 2
    kind = type(error).__name__
    if kind in ("MemoryError", "ResourceExhaustedError"):
        return "Out of memory. Close other programs, or give less at a time.", 2
    text = " ".join(str(error).split())
    return f"internal error, please report it: {kind}: {text} (--traceback shows where)", 70
