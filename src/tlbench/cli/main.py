"""The command line: a verb and its words -> a command, and the only place where an error ends.

`main` is imported at every key press of tab completion, so nothing heavy is imported at the top.
"""

import io
import os
import sys
from pathlib import Path

from tlbench.base.errors import ConfigError, TlbenchError, suggest
from tlbench.base.stopping import Interrupted
from tlbench.cli import verbs

USAGE = """\
tlbench: transfer-learning image classification, from YAML to numbers

  tlbench VERB [key=value ...] [flags]

Verbs
{verbs}

Flags
  --help        after a verb: every setting and choice of it
  --multirun    every combination of comma-separated values, one after the other
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
        return _heard(words)
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


def _heard(words: list[str]) -> int:
    """The command, with what it logs and how far it is on the error console."""
    if not words or words[0].startswith("-"):  # help and completion: nothing to hear, and at once
        return program(words)
    import logging

    from tlbench.base import console, logs

    with logs.heard_by(console.Lines(logging.INFO)), console.drawn_on(console.terminal):
        return program(words)


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
        from tlbench.cli import completion, quiet

        with quiet.kept():
            lines = completion.answer(words[1:])
        for line in lines:
            print(line)
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE.format(verbs=verbs.usage()), end="")
        return 0
    if words[0] == "--version":
        from tlbench import __version__

        print(f"tlbench {__version__}")
        return 0
    verb, *rest = words
    _check_working_directory()
    if verb not in verbs.NAMES:
        raise ConfigError(f"Unknown verb '{verb}'. {suggest(verb, verbs.NAMES)}")
    return verbs.load(verb).run(rest)


def _check_working_directory() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigError("The working directory was removed. Go to another: cd ~") from error


def describe(error: Exception) -> tuple[str, int]:
    """The one line and the exit code of an error."""
    if isinstance(error, TlbenchError):
        return " ".join(str(error).split()), error.exit_code
    if type(error).__module__.startswith(("hydra", "omegaconf")):
        from tlbench.config import compose

        return compose.explain(error), 2
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}", 2
    kind = type(error).__name__
    if kind in ("MemoryError", "ResourceExhaustedError"):
        return "Out of memory. Close other programs, or give less at a time.", 2
    text = " ".join(str(error).split())
    return f"internal error, please report it: {kind}: {text} (--traceback shows where)", 70
