"""Commands in processes of their own, forked by a Python that has imported Keras (`forking.py`).

What is tested is what signals, limits and terminals do to a process; importing takes twice as long as the least
training.
"""

import atexit
import functools
import os
import pty
import shutil
import socket
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pexpect
from pexpect import fdpexpect

import forking
from forking import Fork


class Command(Fork):
    """`tlbench WORDS` under way, as a subprocess.Popen of it would be; nothing is read of its stdout."""

    def __init__(self, *words: str, limits: Mapping[str, int] | None = None) -> None:
        """limits: of the system, by the names that `resource` has."""
        reader, writer = os.pipe()
        nothing = os.open(os.devnull, os.O_RDWR)
        streams = (nothing, nothing, writer)
        super().__init__(
            _server().address, ("-m", "tlbench", *words), streams, os.environ, limits=limits
        )
        for stream in (nothing, writer):
            os.close(stream)
        self.stderr = os.fdopen(reader, encoding="utf-8", errors="replace")

    def rest(self) -> tuple[int, str]:
        """The exit code, and what stderr said that has not been read."""
        with self.stderr:
            said = self.stderr.read()
        return self.wait(), said


class Terminal(fdpexpect.fdspawn):
    """`tlbench WORDS` at work on a terminal of its own, to be expected of."""

    def __init__(self, *words: str, columns: int, environment: Mapping[str, str]) -> None:
        outside, inside = pty.openpty()
        termios.tcsetwinsize(inside, (24, columns))
        words = ("-m", "tlbench", *words)
        self._fork = Fork(_server().address, words, [inside] * 3, environment, terminal=True)
        os.close(inside)
        super().__init__(outside, timeout=240, encoding="utf-8")

    def sendintr(self) -> None:
        """Ctrl-C, as it is typed."""
        self.send("\x03")

    def rest(self) -> tuple[int, str]:
        """The exit code, and what the terminal was sent and nobody has expected."""
        self.expect(pexpect.EOF)
        self.close()
        return self._fork.wait(), self.before


def python() -> str:
    """What can be started in place of sys.executable with `-m MODULE` or a script, and has imported Keras before."""
    return _server().python


@dataclass(frozen=True)
class _Server:
    address: str
    python: str  # the path of the stand-in
    process: "subprocess.Popen[bytes]"


@functools.cache
def _server() -> _Server:
    """Begun when it is first needed."""
    folder = Path(tempfile.mkdtemp(prefix="forks"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address, python = str(folder / "socket"), folder / "python"
    code = f"import sys; sys.path.append({str(Path(forking.__file__).parent)!r}); import forking; "
    python.write_text(f"#!{sys.executable} -IS\n{code}forking.stand_in({address!r})\n")
    python.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-P", forking.__file__, str(listener.fileno()), str(python)],
            stdin=subprocess.PIPE,  # closed when this process ends: then the server does
            stderr=subprocess.DEVNULL,  # TensorFlow speaks while a test may listen to its own process
            pass_fds=[listener.fileno()],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        )
    return _Server(address, str(python), process)
