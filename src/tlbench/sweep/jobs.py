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
from rich.markup import escape

from tlbench.base import console
from tlbench.base.errors import ConfigError, RunError, SweepError
from tlbench.base.files import write_text
from tlbench.base.stopping import JOB, SAVE, Interrupted, Interrupts
from tlbench.config import checks, schema, words
from tlbench.report import rows, tables
from tlbench.runs import records, results
from tlbench.runs.results import natural
from tlbench.runs.run import Run
from tlbench.sweep import folders

log = logging.getLogger(__name__)

END = b""
# -P: nothing is imported from the working folder, which is that of whoever began the sweep.
PYTHON = (sys.executable, "-P", "-m", "tlbench")
MOST_CURVES = 50  # in the picture of a sweep; the page shows them all


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
    console.start_logging()
    interrupts = Interrupts()
    interrupts.resume_command = words.command(
        *("train", "--multirun", words.setting("resume", folder.absolute(), sweep=True)),
        *_config_flags(sweep_config),
    )
    interrupts.pass_on = lambda: _ask(jobs, SAVE)
    with interrupts.heard():
        _run_all(jobs, n_jobs)
    with _costs_itself("the table"):
        _show(rows.rows([_result(job) for job in jobs]), folder)
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


def _begun(folder: Path, cfg: schema.Config) -> Run | None:
    """This very job's run where the sweep was begun before; None for a new job."""
    if not (folder / "manifest.json").is_file():
        return None
    run = Run.open(folder)
    if run.manifest["config_hash"] != cfg.config_hash:
        raise ConfigError(f"{folder} holds another job. Choose another hydra.sweep.dir.")
    return run


def _moves(run: Run, cfg: schema.Config) -> list[str]:
    """What has moved since a job was begun, be it typed or in the user's own YAML, as words for it."""
    with contextlib.suppress(RunError):  # the job itself says what is the matter with its run
        return [words.value(*move) for move in schema.elsewhere(run.config(), cfg).items()]
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
        run = Run.open(job.folder)
        if run.status == "running":
            run.record(status="failed", reason=job.last_words)


def _show(table: list[rows.Row], folder: Path) -> None:
    """The table of all jobs on the terminal; table, page and curves in the sweep's folder."""
    parts: dict[str, Callable[[], None]] = {
        "table.md": lambda: write_text(folder / "table.md", tables.markdown(table)),
        "report.html": lambda: _write_page(table, folder / "report.html"),
        "curves.png": lambda: _draw_curves(table, folder / "curves.png"),
        "the table": lambda: console.show(tables.Terminal(table)),
    }
    for name, make in parts.items():
        with _costs_itself(name):
            make()
    files = [name for name in parts if (folder / name).is_file()]
    place = escape(str(folder))
    console.show(f"[hint]{', '.join(files)} and runs in[/] [path]{place}[/]", soft_wrap=True)


@contextlib.contextmanager
def _costs_itself(name: str) -> Iterator[None]:
    """What cannot be drawn after hours of work costs itself, and nothing else."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        log.warning("%s cannot be made (%s)", name, reason)


def _write_page(table: list[rows.Row], path: Path) -> None:
    from tlbench.report import page  # and with it Matplotlib, which a sweep needs at its end only

    write_text(path, page.html(table, tables.TOLERANCE))


def _draw_curves(table: list[rows.Row], path: Path) -> None:
    histories = []
    for row in table:
        with contextlib.suppress(RunError):  # it has no epochs: it failed
            histories.append((row.name, records.history(row.first.folder)))
    if histories:
        from tlbench.runs import plots

        plots.all_curves(histories[:MOST_CURVES], path)


def show(folder: Path) -> None:
    """Set the runs of a sweep's folder in one table, whichever launcher ran them."""
    runs = sorted((path.parent for path in folder.glob("*/manifest.json")), key=natural)
    _show(rows.rows([results.read(run) for run in runs]), folder)


def _result(job: Job) -> results.Result:
    """The job's run, or why it has none: it failed before it had a folder."""
    if (job.folder / "manifest.json").is_file():
        return results.read(job.folder)
    return results.Result(job.folder, "failed", job.last_words, {"backbone.name": job.name})
