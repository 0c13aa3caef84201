"""Commands in processes of their own, forked from one that has imported TensorFlow.

What is tested is what signals, limits and terminals do to a process; importing takes twice as long as the least
training. TensorFlow starts its threads, and looks for GPUs, when it is first used: a fork before that is sound.
"""

import contextlib
import multiprocessing
import os
import pty
import resource
import sys
import termios
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pexpect
import pytest
from pexpect import fdpexpect

# None of tlbench's own, some of which look at the streams and at the environment while they are imported.
IMPORTED = ["keras", "hydra.main", "sklearn.datasets", "matplotlib.figure"]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(IMPORTED)


class Command:
    """`tlbench WORDS` under way, as a subprocess.Popen of it would be; nothing is read of its stdout."""

    def __init__(self, *words: str, limits: Mapping[str, int] | None = None) -> None:
        """limits: of the system, by the names that `resource` has."""
        reader, writer = FORKS.Pipe(duplex=False)
        self._process = _started(_into_a_pipe, words, writer, dict(limits or {}))
        writer.close()
        self.stderr = os.fdopen(os.dup(reader.fileno()), encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code; a signal's number, negative, where one has ended it."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def rest(self) -> tuple[int, str]:
        """The exit code, and what stderr said that has not been read."""
        said = self.stderr.read()
        self.stderr.close()
        return self.wait(), said


class Terminal(fdpexpect.fdspawn):
    """`tlbench WORDS` at work on a terminal of its own, to be expected of."""

    def __init__(self, *words: str, columns: int, environment: Mapping[str, str]) -> None:
        outside, inside = pty.openpty()
        termios.tcsetwinsize(inside, (24, columns))
        terminal = Connection(inside)
        self._process = _started(_on_a_terminal, words, terminal, environment=environment)
        terminal.close()
        super().__init__(outside, timeout=240, encoding="utf-8")

    def sendintr(self) -> None:
        """Ctrl-C, as it is typed."""
        self.send("\x03")

    def rest(self) -> tuple[int, str]:
        """The exit code, and what the terminal was sent and nobody has expected."""
        self.expect(pexpect.EOF)
        self.close()
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode, self.before


def _started(
    target: Callable[..., None], *about: object, environment: Mapping[str, str] = os.environ
) -> BaseProcess:
    """A process that ends with this one, should a test leave it behind."""
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # TensorFlow reads once, while it is imported, how much it is to say
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
        forkserver.ensure_running()
    process = FORKS.Process(
        target=target, args=(str(Path.cwd()), dict(environment), *about), daemon=True
    )
    process.start()
    return process


def _into_a_pipe(
    folder: str,
    environment: dict[str, str],
    words: tuple[str, ...],
    stderr: Connection,
    limits: dict[str, int],
) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, stream in enumerate((nothing, nothing, stderr.fileno())):
        os.dup2(stream, number)
    stderr.close()
    for name, limit in limits.items():
        resource.setrlimit(getattr(resource, name), (limit, limit))
    _run(folder, environment, words)


def _on_a_terminal(
    folder: str, environment: dict[str, str], words: tuple[str, ...], terminal: Connection
) -> None:
    os.login_tty(terminal.fileno())
    _run(folder, environment, words)


def _run(folder: str, environment: dict[str, str], words: tuple[str, ...]) -> None:
    """The command, with streams as a new Python has them."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", 1)
    from tlbench.cli import main

    sys.exit(main.main(list(words)))
