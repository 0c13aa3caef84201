"""What stands in for a Python that is started ends with it, as it does, and passes on what it is told."""

import os
import signal
import subprocess

import processes

WAITING = r"""
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"heard\n"))
print(os.getpid(), flush=True)
sys.exit(int(sys.stdin.read() or 7))
"""


def started() -> tuple["subprocess.Popen[str]", int]:
    """A stand-in, and the process that it stands in for."""
    words = [processes.python(), "-c", WAITING]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert pid != process.pid
    return process, pid


def test_it_has_the_streams_the_exit_code_and_the_signals() -> None:
    process, _ = started()
    process.terminate()
    assert process.stdout is not None
    assert process.stdout.readline() == "heard\n"
    process.communicate("3")
    assert process.returncode == 3


def test_it_is_killed_where_the_process_is() -> None:
    process, pid = started()
    os.kill(pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_the_process_is_killed_where_it_is() -> None:
    process, _ = started()
    process.kill()
    assert process.stdout is not None
    assert process.stdout.read() == ""  # nobody is left that could write into it


def test_processes_within_processes_are_forked_too() -> None:
    code = "import subprocess, sys; print(subprocess.run([sys.executable, '-m', 'tlbench', 'x']).returncode)"
    done = subprocess.run([processes.python(), "-c", code], capture_output=True, text=True)
    assert done.stdout == "2\n"
    assert "Unknown verb 'x'" in done.stderr
