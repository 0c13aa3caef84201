"""Sweeps: a process a job, one table, and a second try that repeats nothing."""

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

import processes
from helpers import MOBILENET, TINY, Answer
from tlbench.report import page, rows
from tlbench.runs.run import Run
from tlbench.sweep import table, workers

Command = Callable[..., Answer]

FROZEN = (
    *(*TINY, "trainable=false", "epochs=1", "hydra.sweep.dir=sweep"),
    "features.precision=float32",  # auto goes by a clock, and tables are compared
)


def test_jobs_share_features_and_end_in_one_table(tlbench: Command) -> None:
    answer = tlbench("train", "--multirun", *FROZEN, "head.widths=[8],[12]", "n_jobs=2")
    assert answer.code == 0, answer.err
    assert "job 0: tlbench train " in answer.err  # what a user could type
    runs = [Run.open(Path(f"sweep/{i}")) for i in range(2)]
    assert [run.config().head.widths for run in runs] == [[8], [12]]
    computed = sorted(run.manifest["features"]["images_computed"] for run in runs)
    assert computed == [0, 375]
    table = Path("sweep/table.md").read_text()
    assert table.count("\n|") >= 3
    assert Path("sweep/curves.png").is_file()
    assert Path("sweep/report.html").is_file()
    assert all(len(line) <= 80 for line in answer.out.splitlines())


def test_hydras_sweepers_learn_each_jobs_validation_accuracy(
    tlbench: Command, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By our launcher and by another; of a job that was done before, too."""
    returned: list[JobReturn] = []
    for launcher in Plugins.instance().discover(Launcher):
        own = launcher.launch

        def launch(self: Any, *jobs: Any, own: Any = own, **numbers: Any) -> Any:
            returned.extend(found := own(self, *jobs, **numbers))
            return found

        monkeypatch.setattr(launcher, "launch", launch)
    shutil.copytree(tiny_run, "sweep/0")
    accuracy = Run.open(tiny_run).metrics["val_accuracy"]
    for name in ("tlbench", "basic"):
        words = (*TINY, "hydra.sweep.dir=sweep", f"hydra/launcher={name}")
        assert tlbench("train", "--multirun", *words).code == 0
    assert [job.return_value for job in returned] == [accuracy, accuracy]


def test_a_job_that_fails_is_a_row_and_a_second_try_does_the_rest(tlbench: Command) -> None:
    frozen = (*MOBILENET, "trainable=false", "epochs=1", "hydra.sweep.dir=sweep")
    words = ("train", "--multirun", *frozen, "backbone.weights=first.keras,null")
    answer = tlbench(*words)
    assert answer.code == 1
    assert "first.keras does not exist" in answer.err
    assert "1 of 2 jobs failed" in answer.error_lines[-1]
    assert Run.open(Path("sweep/1")).status == "completed"
    Path("sweep/1/model.keras").rename("first.keras")
    before = Path("sweep/1/metrics.json").stat().st_mtime_ns
    answer = tlbench("train", "--multirun", "resume=sweep")
    assert answer.code == 0, answer.err
    assert "job 1 is completed already" in answer.err
    assert Path("sweep/1/metrics.json").stat().st_mtime_ns == before
    assert Run.open(Path("sweep/0")).status == "completed"


def stopped_at(line_start: str, number: int, *words: str) -> str:
    """Run a sweep and send it a signal when a line begins so; what it said."""
    command = [processes.python(), "-m", "tlbench", "train", "--multirun", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(line_start):
            process.send_signal(number)
            break
    said = process.stderr.read()
    assert process.wait() == (-number if number == signal.SIGKILL else 128 + number)
    return said


def wait_for_the_job(folder: str) -> None:
    """Until the job of a sweep that was killed has noticed, and has let go of its folder."""
    with Path(folder, ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def untimed_table(folder: str) -> list[list[str]]:
    """The sweep's table without its last columns, which are about time and size."""
    return [line.split("|")[:8] for line in Path(folder, "table.md").read_text().splitlines()]


def test_a_sweep_that_is_stopped_and_killed_twice_ends_in_the_same_table(tlbench: Command) -> None:
    """Killed it has no time to tell its jobs; those end by themselves and can be taken up again."""
    words = (*FROZEN, "head.widths=[8],[12]", "batch_size=16", "epochs=60")
    said = stopped_at("  train 2/60", signal.SIGTERM, *words)
    assert f"tlbench train --multirun resume={Path('sweep').absolute()}" in said
    for line_start in ("  train 10/60", "  train 20/60"):
        stopped_at(line_start, signal.SIGKILL, "resume=sweep")
        wait_for_the_job("sweep/0")
        assert Run.open(Path("sweep/0")).status == "interrupted"
    answer = tlbench("train", "--multirun", "resume=sweep")
    assert answer.code == 0, answer.err
    whole = ("hydra/launcher=basic", "hydra.sweep.dir=whole")  # both jobs in this process: sooner
    assert tlbench("train", "--multirun", *words, *whole).code == 0
    assert untimed_table("sweep") == untimed_table("whole")


def test_a_killed_job_is_a_row_with_its_reason() -> None:
    words = [processes.python(), "-m", "tlbench", "train", "--multirun", *TINY]
    words += ["epochs=1,300", "hydra.sweep.dir=sweep"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "train 2/300" in line:
            break
    holder = Path("sweep/1/.lock").read_text().split()[1]
    os.kill(int(holder), signal.SIGKILL)
    out, said = process.communicate()
    assert process.returncode == 1
    assert "killed by SIGKILL" in said
    assert "killed by SIGKILL" in out
    assert Run.open(Path("sweep/1")).status == "failed"
    assert Run.open(Path("sweep/0")).status == "completed"


def test_another_sweep_does_not_fit_in_the_folder(tlbench: Command) -> None:
    assert tlbench("train", "--multirun", *FROZEN, "seed=0").code == 0
    answer = tlbench("train", "--multirun", *FROZEN, "seed=5")
    assert answer.code == 2
    assert "holds another job" in answer.error_lines[-1]
    answer = tlbench("train", "--multirun", "resume=nowhere")
    assert answer.code == 2
    assert "no sweep" in answer.error_lines[-1]


def test_any_launcher_of_hydra_ends_with_the_table(tlbench: Command) -> None:
    words = (*TINY, "epochs=1", "seed=0,1", "hydra/launcher=basic", "hydra.sweep.dir=sweep")
    answer = tlbench("train", "--multirun", *words)
    assert answer.code == 0, answer.err
    assert "std of 2 seeds" in answer.out
    assert {path.name for path in Path("sweep").iterdir()} >= {"0", "1", "table.md", "report.html"}


def test_a_table_that_cannot_be_drawn_costs_the_table_alone(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(tiny_run, tmp_path / "sweep" / "0")
    monkeypatch.setattr(page, "html", lambda *_: [].index("no such figure"))
    with caplog.at_level("WARNING", "tlbench"):
        table.of_folder(tmp_path / "sweep")
    assert "report.html cannot be made ('no such figure' is not in list)" in caplog.text
    assert not (tmp_path / "sweep" / "report.html").exists()
    assert (tmp_path / "sweep" / "table.md").is_file()
    assert (tmp_path / "sweep" / "curves.png").is_file()


def test_a_sweep_whose_rows_cannot_be_made_has_not_failed(
    tlbench: Command, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_run, tmp_path / "sweep" / "0")
    monkeypatch.setattr(rows, "rows", lambda _: [].index("no such row"))
    answer = tlbench("train", "--multirun", *TINY, "hydra.sweep.dir=sweep")
    assert answer.code == 0, answer.err
    assert "the table cannot be made" in answer.error_lines[-1]


def test_another_launcher_goes_on_with_a_sweep_too(
    tlbench: Command, tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / "sweep" / "0")
    words = (*TINY, "hydra.sweep.dir=sweep", "hydra/launcher=basic")
    answer = tlbench("train", "--multirun", *words)
    assert answer.code == 0, answer.err
    assert "nothing to do" in answer.out
    assert Path("sweep/table.md").is_file()


def test_a_job_imports_nothing_from_the_working_folder() -> None:
    Path("tlbench.py").write_text("raise SystemExit('somebody else')")
    command = b'["--version"]\n'
    done = subprocess.run(workers.PYTHON, input=command, capture_output=True, check=True)
    assert done.stdout.startswith(b"tlbench ")
