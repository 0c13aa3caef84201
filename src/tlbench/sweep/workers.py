"""The processes of a sweep: each runs jobs one after the other, every job as the command that a user could type.

Jobs that train heads on the same features share a process, which holds data, network and features once. Every
other job has one of its own. One that dies takes its job with it, and nothing else. No TensorFlow here.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlbench.base import console
from tlbench.base.errors import RunError
from tlbench.base.stopping import JOB, SAVE
from tlbench.config import words
from tlbench.runs.recording import Recording

log = logging.getLogger(__name__)

# -P: nothing is imported from the working folder, which is that of whoever began the sweep.
PYTHON = (sys.executable, "-P", "-m", "tlbench.cli.worker")
KEEP = "--keep"  # what commands share: they have their features in common
ANSWER = "\x1e"  # begins the line that ends a command's lines; the console prints no such character


@dataclass
class Job:
    """One command of a sweep and the folder its run goes to."""

    number: int
    overrides: list[str]
    folder: Path
    label: str
    command: list[str]  # after `tlbench`
    completed: bool  # before the sweep began
    features: str | None  # what jobs have in common that share a process; None for one of its own
    exit_code: int | None = None
    last_words: str = ""

    @property
    def name(self) -> str:
        return f"{self.number} {self.label}"


class Worker:
    """One process, from its start until it takes no more jobs."""

    def __init__(self, features: str | None, width: int, at_once: int) -> None:
        """features: of the jobs that it is for; width: of a line that is passed on; at_once: jobs of the sweep."""
        self.features = features
        self.over = False  # whether it takes no more jobs
        self._process = subprocess.Popen(
            [*PYTHON, *([KEEP] if features else [])],
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends: then the job ends too
            start_new_session=True,  # a terminal's signals reach this process alone, which passes them on
            stdout=subprocess.DEVNULL,  # its results are a row of the sweep's table
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "COLUMNS": str(width), "TTY_COMPATIBLE": "0", JOB: str(at_once)},
        )

    def run(self, command: Sequence[str], say: Callable[[str], None]) -> int:
        """Run a command to its end, giving `say` its lines as they come; the exit code, or that of the process."""
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended, or was asked to
            print(json.dumps(command), file=self._process.stdin, flush=True)
        for line in self._process.stderr:
            text, answered, answer = line.partition(ANSWER)
            if text or not answered:
                say(text.rstrip())
            if answered:
                code, more = map(int, answer.split())
                self.over = not (more and self.features)
                return code
        self.over = True
        return self._process.wait()

    def ask_to_save(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            os.write(self._process.stdin.fileno(), SAVE)

    def ask_to_end(self) -> None:
        """The job under way saves and ends, and the process after it."""
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Wait for the end of a process that has no job."""
        self.ask_to_end()
        assert self._process.stderr is not None
        self._process.stderr.close()  # what nobody reads any more must not hold it up
        self._process.wait()


class Crew:
    """Workers that do the jobs of a sweep among them; `work` is what each of several threads does."""

    def __init__(self, jobs: Sequence[Job], at_once: int) -> None:
        """at_once: jobs that run at a time; of several, lines have to say whose they are."""
        self._left = list(jobs)
        self._at_once = at_once
        # A process keeps its width for jobs of any number.
        self._width = console.err.width - max((len(self._prefix(job)) for job in jobs), default=0)
        self._workers: list[Worker] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()

    def work(self, advance: Callable[[], None]) -> None:
        """Do jobs until none is left, or the sweep ends; advance: called after each."""
        worker: Worker | None = None
        try:
            while job := self._next(worker):
                if job.completed:
                    log.info("job %s is completed already: %s", job.number, job.label)
                    job.exit_code = 0
                else:
                    worker = self._for(job, worker)
                    self._run(job, worker)
                advance()
        finally:
            self._leave(worker)

    def save(self) -> None:
        """Ask the jobs under way for a checkpoint."""
        for worker in list(self._workers):
            worker.ask_to_save()

    def end(self) -> None:
        """Have the jobs under way save and end; the others never start."""
        self._ending.set()
        for worker in list(self._workers):
            worker.ask_to_end()

    def kill(self) -> None:
        for worker in list(self._workers):
            worker.kill()

    def _next(self, worker: Worker | None) -> Job | None:
        """A job for this worker's process, else one that no other has begun with, else any."""
        with self._lock:
            if self._ending.is_set() or not self._left:
                return None
            own = worker.features if worker else None
            taken = {one.features for one in self._workers}

            def rank(job: Job) -> tuple[bool, bool, int]:
                ours = job.features is not None and job.features == own
                return not ours, job.features is not None and job.features in taken, job.number

            job = min(self._left, key=rank)
            self._left.remove(job)
            return job

    def _for(self, job: Job, worker: Worker | None) -> Worker:
        """The worker where it can go on with this job, else a new one."""
        if worker and not worker.over and worker.features == job.features:
            return worker
        self._leave(worker)
        worker = Worker(job.features, self._width, self._at_once)
        self._workers.append(worker)
        if self._ending.is_set():  # it was asked to before this process was there to hear
            worker.ask_to_end()
        return worker

    def _leave(self, worker: Worker | None) -> None:
        if worker in self._workers:
            worker.close()
            self._workers.remove(worker)

    def _prefix(self, job: Job) -> str:
        return f"[{job.number}] " if self._at_once > 1 else "  "

    def _run(self, job: Job, worker: Worker) -> None:
        """Run one job to its end."""
        log.info("job %s: %s", job.number, words.command(*job.command))

        def say(line: str) -> None:
            log.info("%s%s", self._prefix(job), line)
            job.last_words = line.strip() or job.last_words

        job.exit_code = worker.run(job.command, say)
        if job.exit_code:
            job.last_words = reason(job.exit_code, job.last_words)
            _record(job)
            log.warning("job %s failed: %s", job.name, job.last_words)


def reason(code: int, last_words: str) -> str:
    """Why a command did not end well; code: its own, or the negative number of the signal that ended its process."""
    if code == -signal.SIGKILL:
        return "killed by SIGKILL, as the system does when memory runs out"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return last_words.removeprefix("tlbench: ").removeprefix("error: ")


def _record(job: Job) -> None:
    """Say in the manifest what a killed job could not say itself."""
    with contextlib.suppress(RunError, OSError):
        run = Recording.open(job.folder)
        if run.status == "running":
            run.record(status="failed", reason=job.last_words)
