"""A sweep: each job is the command a user could type, in a process of its own.

A process a job keeps memory flat, and a job that dies takes nothing with it. No TensorFlow here.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict

from tlbench.base import console, stopping
from tlbench.base.errors import ConfigError, RunError, SweepError
from tlbench.base.stopping import JOB, SAVE, Interrupted
from tlbench.config import checks, identity, words
from tlbench.config.identity import config_hash
from tlbench.config.migrations import FORMAT
from tlbench.config.schema import Config
from tlbench.data import augmentations
from tlbench.runs import layout, results
from tlbench.runs.recording import Recording
from tlbench.runs.run import Run
from tlbench.sweep import folders, table

log = logging.getLogger(__name__)

END = b""
# -P: nothing is imported from the working folder, which is that of whoever began the sweep.
PYTHON = (sys.executable, "-P", "-m", "tlbench")


@dataclass
class Job:
    """One command of a sweep and the folder its run goes to."""

    number: int
    overrides: list[str]
    folder: Path
    label: str
    command: list[str]
    completed: bool  # before the sweep began
    process: subprocess.Popen[str] | None = None
    exit_code: int | None = None
    last_words: str = ""

    @property
    def name(self) -> str:
        return f"{self.number} {self.label}"


def launch(
    sweep_config: DictConfig,
    compose: Callable[[Sequence[str]], DictConfig],
    job_overrides: Sequence[Sequence[str]],
    first_number: int,
    n_jobs: int,
) -> list[JobReturn]:
    """Run every job, `n_jobs` at a time, and set them in one table.

    compose: overrides -> the whole composed configuration. Every job's configuration is checked
    before the first one starts. Raises ConfigError when there is no job, SweepError when any
    failed.
    """
    folder = Path(sweep_config.hydra.sweep.dir)
    try:
        jobs = _jobs(sweep_config, compose, job_overrides, first_number)
    except ConfigError:
        folders.refused(folder)
        raise
    folders.accepted(folder)
    asked = stopping.current()
    asked.resume_command = words.command(
        *("train", "--multirun", words.setting("resume", folder.absolute(), sweep=True)),
        *_config_flags(sweep_config),
    )
    asked.pass_on = lambda: _ask(jobs, SAVE)
    _run_all(jobs, n_jobs)
    table.show([_result(job) for job in jobs], folder)
    if failed := [job for job in jobs if job.exit_code]:
        for job in failed:
            console.say(f"job {job.name} failed: {job.last_words}", style="bad")
        others = "; the others finished" if len(failed) < len(jobs) else ""
        raise SweepError(f"{len(failed)} of {len(jobs)} jobs failed{others}.")
    return [JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED) for job in jobs]


def _run_all(jobs: list[Job], n_jobs: int) -> None:
    pool = ThreadPoolExecutor(n_jobs, thread_name_prefix="job")
    ending = threading.Event()
    try:
        with console.progress("jobs", len(jobs)) as advance:
            for _ in pool.map(lambda job: _run(job, ending, several=n_jobs > 1), jobs):
                advance()
    except Interrupted:
        # Jobs under way save a checkpoint and end, the others never start.
        ending.set()
        pool.shutdown(wait=False, cancel_futures=True)
        _ask(jobs, END)
        try:
            pool.shutdown(wait=True)
        except Interrupted:  # asked again: at once
            for job in _under_way(jobs):
                job.process.kill()
        raise
    finally:
        pool.shutdown(wait=True)


def _under_way(jobs: list[Job]) -> Iterator[Any]:
    """The processes of jobs that have one."""
    return (job for job in jobs if job.process is not None and job.process.poll() is None)


def _ask(jobs: list[Job], request: bytes) -> None:
    """Pass a request on to the jobs under way, through their stdin; a closed one asks them to end."""
    for job in _under_way(jobs):
        with contextlib.suppress(OSError, ValueError):  # it has just ended
            if request == END:
                job.process.stdin.close()
            else:
                os.write(job.process.stdin.fileno(), request)


def _jobs(
    sweep_config: DictConfig,
    compose: Callable[[Sequence[str]], DictConfig],
    job_overrides: Sequence[Sequence[str]],
    first_number: int,
) -> list[Job]:
    if not job_overrides:
        raise ConfigError("The sweep has no job: a glob(...) in the command matches nothing.")
    flags = _config_flags(sweep_config)
    jobs = []
    for number, overrides in enumerate(job_overrides, first_number):
        composed = compose(overrides)
        with open_dict(composed):
            composed.hydra.job.num = composed.hydra.job.id = number
        HydraConfig.instance().set_config(composed)  # ${hydra:...} resolves against it
        folder = Path(composed.hydra.sweep.dir) / str(composed.hydra.sweep.subdir)
        jobs.append(_job(number, list(overrides), composed, folder, flags))
    return jobs


def _job(
    number: int, overrides: list[str], composed: DictConfig, folder: Path, flags: list[str]
) -> Job:
    label = " ".join(map(words.typed, overrides)) or "default"
    task = composed.copy()
    with open_dict(task):
        del task["hydra"]
    try:
        cfg = checks.load(task)
        augmentations.check(cfg)
    except ConfigError as error:
        raise ConfigError(f"job {number} ({label}): {error}") from error
    run = _begun(folder, cfg)
    job = [*overrides, words.setting("hydra.run.dir", folder.absolute())]
    if run is not None:
        job = [words.setting("resume", folder.absolute()), *_moves(run, cfg)]
    return Job(
        number,
        overrides,
        folder,
        cfg.published.label if cfg.published else label,
        [*PYTHON, "train", *job, *flags],
        completed=run is not None and run.status == "completed",
    )


def _begun(folder: Path, cfg: Config) -> Run | None:
    """This very job's run where the sweep was begun before; None for a new job."""
    if not layout.is_run(folder):
        return None
    run = Run.open(folder)
    of_today = run.manifest["format"] == FORMAT
    before = run.manifest.get("config_hash") if of_today else config_hash(run.config())
    if before != config_hash(cfg):
        raise ConfigError(f"{folder} holds another job. Choose another hydra.sweep.dir.")
    return run


def _moves(run: Run, cfg: Config) -> list[str]:
    """What has moved since a job was begun, be it typed or in the user's own YAML, as words for it."""
    with contextlib.suppress(RunError):  # the job itself says what is the matter with its run
        return [words.value(*move) for move in identity.elsewhere(run.config(), cfg).items()]
    return []


def _config_flags(sweep_config: DictConfig) -> list[str]:
    """The flags that let a job find the user's own YAML, as the sweep's command did."""
    sources = OmegaConf.to_container(sweep_config.hydra.runtime.config_sources)
    assert isinstance(sources, list)
    own = [s["path"] for s in sources if s["provider"] == "command-line"]
    name = sweep_config.hydra.job.config_name
    return [f"--config-dir={path}" for path in own] + (
        [f"--config-name={name}"] if name != "train" else []
    )


def _run(job: Job, ending: threading.Event, *, several: bool) -> None:
    """Run one job to its end, passing its lines on as they come; at once where the sweep is `ending`."""
    if job.completed:
        log.info("job %s is completed already: %s", job.number, job.label)
        job.exit_code = 0
        return
    log.info("job %s: %s", job.number, words.command(*job.command[len(PYTHON) :]))
    prefix = f"[{job.number}] " if several else "  "
    width = str(console.err.width - len(prefix))  # of a line that is passed on
    job.process = subprocess.Popen(
        job.command,
        stdin=subprocess.PIPE,  # closed when this process ends, however it ends: then the job ends too
        start_new_session=True,  # a terminal's signals reach this process alone, which passes them on
        stdout=subprocess.DEVNULL,  # its results are a row of the sweep's table
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "COLUMNS": width, "TTY_COMPATIBLE": "0", JOB: "1"},
    )
    with job.process:
        if ending.is_set():  # it was asked to before this process was there to hear
            _ask([job], END)
        assert job.process.stderr is not None
        for line in job.process.stderr:
            log.info("%s%s", prefix, line.rstrip())
            job.last_words = line.strip() or job.last_words
        job.exit_code = job.process.wait()
    if job.exit_code:
        job.last_words = _reason(job)
        _record(job)
        log.warning("job %s failed: %s", job.name, job.last_words)


def _reason(job: Job) -> str:
    code = job.exit_code or 0
    if code == -signal.SIGKILL:
        return "killed by SIGKILL, as the system does when memory runs out"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return job.last_words.removeprefix("tlbench: ").removeprefix("error: ")


def _record(job: Job) -> None:
    """Say in the manifest what a killed job could not say itself."""
    with contextlib.suppress(RunError, OSError):
        run = Recording.open(job.folder)
        if run.status == "running":
            run.record(status="failed", reason=job.last_words)


def _result(job: Job) -> results.Result:
    """The job's run, or why it has none: it failed before it had a folder."""
    if layout.is_run(job.folder):
        return results.read(job.folder)
    return results.Result(job.folder, "failed", job.last_words, {"backbone.name": job.name})
