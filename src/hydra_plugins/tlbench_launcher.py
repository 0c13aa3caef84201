"""Hydra's way in to the sweep: `hydra/launcher: tlbench` runs its jobs in processes of their own.

Hydra imports this file whenever it composes a configuration, so the work stays in tlbench.sweep.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import II, DictConfig


@dataclass
class TlbenchLauncherConf:
    _target_: str = "hydra_plugins.tlbench_launcher.TlbenchLauncher"
    n_jobs: int = II("n_jobs")  # of conf/train.yaml; other launchers know no such setting


ConfigStore.instance().store(group="hydra/launcher", name="tlbench", node=TlbenchLauncherConf)


class TlbenchTable(Callback):
    """Sets the runs of a sweep in one table at its end, whichever launcher ran them."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if (
            config.hydra.launcher.get("_target_") != TlbenchLauncherConf._target_
        ):  # ours has done so
            from tlbench.sweep import table

            table.of_folder(Path(config.hydra.sweep.dir))


class TlbenchLauncher(Launcher):
    """Runs the jobs of a sweep as commands, `n_jobs` at a time."""

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        del task_function  # each job is a command that finds it by itself
        self.context, self.config = hydra_context, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from tlbench.sweep import jobs

        def compose(overrides: Sequence[str]) -> Any:
            return self.context.config_loader.load_sweep_config(self.config, list(overrides))

        return jobs.launch(self.config, compose, job_overrides, initial_job_idx, self.n_jobs)
