"""A Python that has imported Keras, and forks itself for whoever asks: importing takes twice as long as the least
training.

TensorFlow starts its threads, and looks for GPUs, when it is first used: a fork before that is sound. Imports nothing
at once but what Python has, for it is also what stands in for a Python that is started (`stand_in`).
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

# None of tlbench's own, some of which look at the streams and at the environment while they are imported.
IMPORTED = ("keras", "hydra.main", "sklearn.datasets", "matplotlib.figure")
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Fork:
    """A process that does what `python WORDS` does; it ends with the one that asked for it."""

    def __init__(
        self,
        address: str,
        words: Sequence[str],
        streams: Sequence[int],
        environment: Mapping[str, str],
        *,
        limits: Mapping[str, int] | None = None,
        terminal: bool = False,
    ) -> None:
        """address: of the server; streams: what it has for stdin, stdout and stderr.

        limits: of the system, by the names that `resource` has; terminal: the streams are one, to be its own.
        """
        asked = {
            "words": list(words),
            "folder": str(Path.cwd()),
            "environment": dict(environment),
            "limits": dict(limits or {}),
            "terminal": terminal,
        }
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            socket.send_fds(connection, [b"."], streams)
            connection.sendall(json.dumps(asked).encode() + b"\n")
            self._answers = connection.makefile()
        self.pid = int(self._answers.readline())

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code; a signal's number, negative, where one has ended it."""
        with self._answers:
            return int(self._answers.readline())


def no_waiting(fd: object) -> None:
    """In place of os.fsync, a tenth of a training's time: what is written is read back before the power fails."""
    del fd


def stand_in(address: str) -> None:
    """Pass on the signals that come, and end as the process ends that this one was started to be.

    Where this one is killed, the server sees to it that the other is too.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # what comes early waits
    fork = Fork(address, sys.argv[1:], (0, 1, 2), os.environ)
    for number in PASSED_ON:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: fork.send_signal(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    code = fork.wait()
    if code < 0:
        if -code in PASSED_ON:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(listener: socket.socket, python: str) -> None:
    """Fork for whoever connects, until stdin ends; returns in each fork, which has become what it was asked for.

    python: what takes the place of sys.executable there.
    """
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # the forks' collectors leave it alone, and its pages shared
    os.fsync = no_waiting
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C where the tests run
    waited_for: list[Any] = [0, listener]
    while 0 not in select.select(waited_for, [], [])[0]:
        connection, _ = listener.accept()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:
            listener.close()
            _serve_one(connection, python)
            return
        connection.close()
    sys.exit()


def _serve_one(connection: socket.socket, python: str) -> None:
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as lines:
        asked = json.loads(lines.readline())
    child = os.fork()
    if child == 0:
        connection.close()
        _become(asked, streams, python)
        return
    for stream in streams:
        os.close(stream)
    threading.Thread(target=_end_unheard, args=(connection, child), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{child}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def _end_unheard(connection: socket.socket, child: int) -> None:
    """End a process once nobody listens for its end any more."""
    connection.recv(1)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def _become(asked: dict[str, Any], streams: Sequence[int], python: str) -> None:
    """Streams, folder, environment and limits as a new Python has them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if asked["terminal"]:
        os.login_tty(os.dup(0))
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for name, limit in asked["limits"].items():
        resource.setrlimit(getattr(resource, name), (limit, limit))
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", 1)
    sys.executable = python
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv[1:] = asked["words"]


def run() -> NoReturn:
    """What Python does with the words in sys.argv, and as it ends."""
    code: Any = 0
    try:
        _run()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Python would take all apart that was imported, each page of it a copy by then


def _run() -> None:
    """A script, -c CODE or -m MODULE; what lies in the working folder is found too but for -P."""
    alone = sys.argv[1] == "-P"
    del sys.argv[: 1 + alone]
    script = sys.argv[0]
    if not alone:
        sys.path.insert(0, str(Path.cwd() if script in ("-c", "-m") else Path(script).parent))
    if script == "-c":
        exec(compile(sys.argv.pop(1), "<string>", "exec"), {"__name__": "__main__"})
    elif script == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
    run()
