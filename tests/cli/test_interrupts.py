"""Signals: one request is one, whoever passes it on; names of folders that no two processes share."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tlbench.base.stopping import JOB

# A training that is asked to end goes on to the end of its step, here a second, and says what it heard.
TRAINING = """
import sys, time
from tlbench.base.stopping import Interrupted
from tlbench.cli.signals import heard, ignore_saving
ignore_saving()
print("early", flush=True)
sys.stdin.readline() if "early" in sys.argv else None
try:
    with heard() as asked, asked.between_steps():
        print("ready", flush=True)
        until = time.monotonic() + 60
        while asked.ending is None and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(1)
        print("saved" if asked.save else "", end="")
        whole = True
except Interrupted as error:
    print("ended by" if "whole" in globals() else "at once by", error)
"""


def training(*words: str, job: bool = False, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, **({JOB: "1"} if job else {})}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # As on a terminal, though the tests themselves may run under nohup.
    options = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL), **options}
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING, *words], env=environment, **pipes, **options
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "early\n"
    if "early" not in words:
        assert process.stdout.readline() == "ready\n"
    return process


def rest(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = process.stdout.read().strip()
    assert process.wait() == 0
    return said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_everybody_that_is_passed_on_too_is_one_request(number: int) -> None:
    process = training(job=True)
    process.send_signal(number)
    assert process.stdin is not None
    process.stdin.close()  # the sweep passes on what it heard as well
    names = (signal.Signals(number).name, "SIGTERM")  # as they come
    assert rest(process) in [f"ended by {name}" for name in names]


def test_a_sweep_that_is_gone_ends_its_job_and_can_ask_it_to_save() -> None:
    process = training(job=True)
    assert process.stdin is not None
    process.stdin.write("ss")
    process.stdin.close()
    assert rest(process) == "savedended by SIGTERM"


def test_a_second_signal_ends_at_once() -> None:
    process = training()
    process.send_signal(signal.SIGINT)
    while_ending = subprocess.run(["sleep", "0.3"], check=True)
    assert while_ending.returncode == 0
    process.send_signal(signal.SIGTERM)
    assert rest(process) == "at once by SIGTERM"


def test_a_terminal_that_hangs_up_twice_has_asked_once() -> None:
    process = training()
    process.send_signal(signal.SIGHUP)
    subprocess.run(["sleep", "0.3"], check=True)
    process.send_signal(signal.SIGHUP)
    assert rest(process) == "ended by SIGHUP"


def test_a_sweep_that_ends_when_nobody_listens_any_more_ends_nothing() -> None:
    code = (
        "import sys, time; from tlbench.cli.signals import heard\n"
        "with heard(): pass\n"
        "print('done', flush=True); time.sleep(1); print('whole')"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, JOB: "1"}, **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    assert process.stdin is not None
    process.stdin.close()
    assert rest(process) == "whole"


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    process = training(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert rest(process) == "ended by SIGTERM"


def test_asking_to_save_before_there_is_anything_to_save_ends_nothing() -> None:
    process = training("early")
    process.send_signal(signal.SIGUSR1)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert rest(process) == "ended by SIGTERM"


NAMING = """
import sys
from pathlib import Path
from tlbench.sweep import folders
print(folders.claimed(Path("outputs") / "one second"), flush=True)
sys.stdin.readline()
"""


def test_four_that_begin_in_one_second_have_four_folders(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", NAMING], **pipes) for _ in range(4)]
    names = sorted(process.stdout.readline().strip() for process in processes)
    for process in processes:
        process.communicate("\n")
    first = "outputs/one second"
    assert names == [first, f"{first}_2", f"{first}_3", f"{first}_4"]
    (tmp_path / first).mkdir(parents=True)
    (tmp_path / first / "manifest.json").touch()
    done = subprocess.run(
        [sys.executable, "-c", NAMING], input="\n", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{first}_2"
