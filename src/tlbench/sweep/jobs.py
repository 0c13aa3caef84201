"""A sweep: each job is the command a user could type, and their runs end in one table. No TensorFlow here."""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict

from tlbench.base import console, stopping
from tlbench.base.errors import ConfigError, RunError, SweepError
from tlbench.base.stopping import Interrupted, Stopping
from tlbench.config import checks, identity, words
from tlbench.config.identity import config_hash
from tlbench.config.migrations import FORMAT
from tlbench.config.schema import Config
from tlbench.data import augmentations, index
from tlbench.runs import layout, results
from tlbench.runs.run import Run
from tlbench.sweep import folders, table
from tlbench.sweep.workers import Crew, Job


def launch(
    sweep_config: DictConfig,
    compose: Callable[[Sequence[str]], DictConfig],
    job_overrides: Sequence[Sequence[str]],
    first_number: int,
    n_jobs: int,
) -> list[JobReturn]:
    """Run every job, `n_jobs` at a time, and set them in one table.

    compose: overrides -> the whole composed configuration. Every job's configuration is checked
    before the first one starts. Raises ConfigError when there is no job. A job's value is its validation
    accuracy, or SweepError where it failed, for Hydra's sweeper to raise.
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
    _run_all(jobs, n_jobs, asked)
    table.show([_result(job) for job in jobs], folder)
    failed = [job for job in jobs if job.exit_code]
    for job in failed:
        console.say(f"job {job.name} failed: {job.last_words}", style="bad")
    others = "; the others finished" if len(failed) < len(jobs) else ""
    error = SweepError(f"{len(failed)} of {len(jobs)} jobs failed{others}.")
    return [_returned(job, error) for job in jobs]


class _Failed(JobReturn):
    """The return of a job that failed: its error is raised without a line of Hydra's own about it."""

    @property  # type: ignore[misc]  # Hydra's has a setter, which nobody needs here
    def return_value(self) -> Any:
        raise self._return_value


def _returned(job: Job, error: SweepError) -> JobReturn:
    """What Hydra's sweepers learn of a job: its validation accuracy, or the error, which most of them raise."""
    if job.exit_code:
        return _Failed(job.overrides, status=JobStatus.FAILED, _return_value=error)
    accuracy = Run.open(job.folder).metrics["val_accuracy"]
    return JobReturn(job.overrides, status=JobStatus.COMPLETED, _return_value=accuracy)


def _run_all(jobs: list[Job], n_jobs: int, asked: Stopping) -> None:
    crew = Crew(jobs, n_jobs)
    asked.pass_on = crew.save
    pool = ThreadPoolExecutor(n_jobs, thread_name_prefix="jobs")
    try:
        with console.progress("jobs", len(jobs)) as advance:
            for done in [pool.submit(crew.work, advance) for _ in range(min(n_jobs, len(jobs)))]:
                done.result()
    except Interrupted:
        crew.end()
        try:
            pool.shutdown(wait=True)
        except Interrupted:  # asked again: at once
            crew.kill()
        raise
    finally:
        pool.shutdown(wait=True)


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
        checks.check_stages(cfg)
        augmentations.check(cfg)
        index.refuse_output(cfg.data, Path(composed.hydra.sweep.dir), "hydra.sweep.dir")
    except ConfigError as error:
        raise ConfigError(f"job {number} ({label}): {error}") from error
    run = _begun(folder, cfg, overrides)
    job = [*overrides, words.setting("hydra.run.dir", folder.absolute())]
    if run is not None:
        job = [words.setting("resume", folder.absolute()), *_moves(run, cfg)]
    return Job(
        number,
        overrides,
        folder,
        cfg.published.label if cfg.published else label,
        ["train", *job, *flags],
        completed=run is not None and run.status == "completed",
        features=identity.features_hash(cfg),
    )


def _begun(folder: Path, cfg: Config, overrides: list[str]) -> Run | None:
    """This very job's run where the sweep was begun before; None for a new job."""
    if not layout.is_run(folder):
        return None
    run = Run.open(folder)
    if cfg.recipe == "auto" and not identity.differences(run.config(), cfg, overrides):
        return run  # what was not typed was chosen for its images
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


def _result(job: Job) -> results.Result:
    """The job's run, or why it has none: it failed before it had a folder."""
    if layout.is_run(job.folder):
        return results.read(job.folder)
    return results.Result(job.folder, "failed", job.last_words, {"backbone.name": job.name})
