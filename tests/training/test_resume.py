"""Runs that were killed, interrupted or damaged go on to the very same bits."""

import csv
import errno
import os
import re
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import processes
from helpers import BACKBONE, TINY, Answer, once
from tlbench.base import files
from tlbench.features import engines, precisions
from tlbench.runs.run import Run
from tlbench.training import checkpoint
from tlbench.training.callbacks import Keeper
from tlbench.training.checkpoint import State

Command = Callable[..., Answer]

start = partial(processes.Command, "train")  # in a process of its own, its lines as they come

# Everything that has a state: dropout, augmentation, a schedule, early stopping, two stages.
STATEFUL = (
    *TINY,
    *("strategy=probe_finetune", "features.cache=true", "augment=flip", "head.dropout=0.2"),
    *("schedule=cosine", "early_stopping.patience=3", "epochs=3", "batch_size=16"),
    *("batch_norm.statistics=batch", "features.precision=float32"),  # auto goes by a clock
)


def signal_after(process: processes.Command, marker: str, number: int) -> tuple[int, str]:
    """Send a signal once a line holds the marker; the exit code and all that was said."""
    said = []
    for line in process.stderr:
        said.append(line)
        if marker in line:
            process.send_signal(number)
            break
    code, rest = process.rest()
    return code, "".join(said) + rest


def is_clock(figure: str) -> bool:
    """Whether a figure tells time or memory, which differ from run to run."""
    return figure.endswith(("seconds", "per_second", "memory_bytes", "latency_ms"))


def bits(folder: str) -> tuple[Any, ...]:
    """All that a run found out, without how long it took."""
    run = Run.open(Path(folder))
    with (run.folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    history = [{k: v for k, v in row.items() if not is_clock(k)} for row in rows]
    metrics = {k: v for k, v in run.metrics.items() if not is_clock(k)}
    with np.load(run.folder / "predictions.npz") as saved:
        probabilities = saved["probabilities"].tobytes()
    return run.status, history, metrics, probabilities


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    def make(folder: Path) -> None:
        cache = f"features.folder={folder / 'cache'}"
        code, said = start(*STATEFUL, cache, f"hydra.run.dir={folder / 'run'}").rest()
        assert code == 0, said

    return bits(str(once(tmp_path_factory, "uninterrupted", make) / "run"))


def test_a_run_stopped_again_and_again_goes_on_to_the_same_bits(
    uninterrupted: tuple[Any, ...],
) -> None:
    process = start(*STATEFUL, "hydra.run.dir=run")
    for marker, number, code in (
        ("probe 1/2", signal.SIGKILL, -9),
        ("finetune 2/3", signal.SIGTERM, 143),
        ("finetune 3/3", signal.SIGKILL, -9),  # in the last checkpoint or in evaluation
    ):
        ended, said = signal_after(process, marker, number)
        assert ended == code
        words = "resume=run"
        if number == signal.SIGTERM:
            assert Run.open(Path("run")).status == "interrupted"
            command = re.search(r"Go on with: tlbench train (resume=\S+)", said)
            assert command is not None
            words = command[1]
        process = start(words)
    ended, said = process.rest()
    assert ended == 0, said
    assert bits("run") == uninterrupted


def test_draws_without_an_end_go_on_to_the_same_bits(
    tlbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within an epoch, with every operation of the strongest preset."""
    heard, stops = Keeper.on_train_batch_end, [(0, 7)]

    def hear(self: Keeper, batch: int, logs: Any = None) -> None:
        if self.mid_epoch and stops and (self.state.epoch, batch + 1) == stops[0]:
            stops.pop()
            os.kill(os.getpid(), signal.SIGTERM)
        heard(self, batch, logs)

    mixing = ("augment.mixup=0.2", "augment.cutmix=1")
    words = (*TINY, "augment=strong", *mixing, "batch_size=32", "batch_norm.statistics=batch")
    assert tlbench("train", *words, "hydra.run.dir=whole").code == 0
    monkeypatch.setattr(Keeper, "on_train_batch_end", hear)
    assert tlbench("train", *words, "hydra.run.dir=run").code == 143
    assert not stops
    answer = tlbench("train", "resume=run")
    assert answer.code == 0, answer.err
    assert bits("run") == bits("whole")


def test_a_run_that_stops_in_any_step_goes_on_to_the_same_bits(
    uninterrupted: tuple[Any, ...], tlbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an epoch's first of 17, once more in the same epoch, at an epoch's end, and just before one."""
    heard, stops = Keeper.on_train_batch_end, [(0, 1), (0, 9), (1, 17), (2, 16)]

    def hear(self: Keeper, batch: int, logs: Any = None) -> None:
        place = (self.state.epoch, self.first_step + batch + 1)
        if self.mid_epoch and stops and place == stops[0]:
            stops.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)
        heard(self, batch, logs)

    monkeypatch.setattr(Keeper, "on_train_batch_end", hear)
    words = (*STATEFUL, "hydra.run.dir=run")
    for left in (3, 2, 1, 0):
        assert tlbench("train", *words).code == 143
        assert len(stops) == left
        words = ("resume=run",)
    answer = tlbench("train", *words)
    assert answer.code == 0, answer.err
    assert bits("run") == uninterrupted


def test_a_second_signal_ends_at_once_and_usr1_saves_and_goes_on() -> None:
    words = (*TINY, "batch_size=4", "epochs=50", "hydra.run.dir=run")
    process = start(*words)
    for line in process.stderr:
        if "train 1/50" in line:
            process.send_signal(signal.SIGUSR1)
        if "Saved a checkpoint" in line:
            process.send_signal(signal.SIGINT)
            break
    code, said = process.rest()
    assert code == 130
    assert "Go on with" in said
    state = checkpoint.load(Path("run/checkpoint/latest.npz"))
    assert state.epoch >= 1


def test_a_completed_run_stays_as_it_is_and_more_epochs_extend_it(
    tlbench: Command, tiny_run: Path
) -> None:
    shutil.copytree(tiny_run, "run")
    before = bits("run")
    done = tlbench("train", "resume=run")
    assert done.code == 0
    assert "completed" in done.out
    assert bits("run") == before
    refused = tlbench("train", "resume=run", "head.widths=[8]", "seed=3")
    assert refused.code == 2
    assert "head.widths is [16] there, [8] here" in refused.error_lines[-1]
    assert "seed is 0 there, 3 here" in refused.error_lines[-1]
    fewer = tlbench("train", "resume=run", "epochs=1")
    for path in Path("run").rglob("*"):  # as if the clock had gone back since
        os.utime(path, (4e9, 4e9))
    assert "epochs is 2 there, 1 here" in fewer.error_lines[-1]
    assert bits("run") == before
    assert tlbench("train", "resume=run", "epochs=4").code == 0
    assert tlbench("train", *TINY, "epochs=4", "hydra.run.dir=whole").code == 0
    assert bits("run") == bits("whole")


def test_a_killed_resume_leaves_nothing_beside_the_run(tiny_run: Path) -> None:
    shutil.copytree(tiny_run, "run")
    ended, _ = signal_after(start("resume=run", "epochs=90"), "Going on after", signal.SIGKILL)
    assert ended == -signal.SIGKILL
    assert {path.name for path in Path().iterdir()} <= {"run", "cache"}
    assert Run.open(Path("run")).extension["epochs"] == 90


def test_a_run_on_a_disk_that_cannot_be_written_is_not_taken_up(
    tlbench: Command, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_run, "run")
    before = bits("run")

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(files, "append", refuse)
    answer = tlbench("train", "resume=run", "epochs=3")
    assert answer.code == 2
    assert "run/.lock cannot be written (Read-only file system)" in answer.error_lines[-1]
    assert bits("run") == before


def test_other_images_are_refused(tlbench: Command, photos: Path) -> None:
    words = ("data=image_folder", f"data.root={photos}", *BACKBONE, "epochs=1")
    assert tlbench("train", *words, "hydra.run.dir=run").code == 0
    next(photos.glob("*/0.png")).unlink()
    answer = tlbench("train", "resume=run", "epochs=2")
    assert answer.code == 2
    assert "its data changed" in answer.error_lines[-1]


def test_a_vanished_data_root_is_named_and_its_return_lets_the_run_go_on(
    tlbench: Command, photos: Path
) -> None:
    words = ("data=image_folder", f"data.root={photos}", *BACKBONE, "epochs=1")
    assert tlbench("train", *words, "hydra.run.dir=run").code == 0
    before = bits("run")
    photos.rename("elsewhere")
    answer = tlbench("train", "resume=run", "epochs=2")
    assert answer.code == 2
    assert f"data.root={photos} does not exist" in answer.error_lines[-1]
    assert bits("run") == before
    Path("elsewhere").rename(photos)
    assert tlbench("train", "resume=run", "epochs=2").code == 0


@pytest.mark.parametrize("then", ["vanish", "change"])
def test_images_that_vanish_or_change_in_training_end_it_in_one_line(
    photos: Path, then: str
) -> None:
    words = ("data=image_folder", f"data.root={photos}", *BACKBONE, "data.memory_limit_gb=0")
    process = start(*words, "epochs=500", "batch_size=4", "hydra.run.dir=run")
    for line in process.stderr:
        if "train 1/500" in line:
            break
    for path in photos.glob("*/*"):
        if then == "vanish":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes() + b"more")
    code, rest = process.rest()
    said = rest.strip().splitlines()
    assert code == 2
    expected = {"vanish": "cannot be read (No such file", "change": "has changed since"}[then]
    assert expected in said[-1]
    assert not any("Traceback" in line for line in said)
    assert Run.open(Path("run")).status == "failed"


def limited(limit: str, size: int, *words: str) -> tuple[int, list[str]]:
    """`tlbench train` under a limit of the system's; its exit code and what it said."""
    code, said = start(*words, limits={limit: size}).rest()
    assert "Traceback" not in said
    return code, said.strip().splitlines()


def test_a_disk_that_fills_while_a_checkpoint_is_written_loses_nothing(tiny_run: Path) -> None:
    """A limit on the size of files fails as a full disk does, and needs no disk."""
    code, said = limited("RLIMIT_FSIZE", 50_000, *TINY, "hydra.run.dir=run")
    assert code == 2
    assert "run/checkpoint/latest.npz cannot be written (File too large)" in said[-1]
    assert said[-1].endswith("then go on with: tlbench train resume=run")
    assert list(Path("run/checkpoint").iterdir()) == []
    code, rest = start("resume=run").rest()
    assert code == 0, rest
    assert bits("run") == bits(str(tiny_run))


def test_running_out_of_memory_names_the_batch_size() -> None:
    """A batch of 200 GiB; the limit keeps a system that would promise them from trying."""
    words = (*TINY, "backbone.image_size=4096", "batch_size=270", "hydra.run.dir=run")
    code, said = limited("RLIMIT_AS", 2**35, *words)
    assert code == 2
    assert "Out of memory at batch_size=270. Lower it, or backbone.image_size." in said[-1]
    assert Run.open(Path("run")).status == "failed"


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json"])
def test_a_damaged_run_is_not_taken_up(tlbench: Command, tiny_run: Path, name: str) -> None:
    shutil.copytree(tiny_run, "run")
    text = (Path("run") / name).read_text()
    (Path("run") / name).write_text(text.replace("300", "301"))
    answer = tlbench("train", "resume=run", "epochs=4")
    assert answer.code == 2
    assert f"{name} is damaged" in answer.error_lines[-1]


def test_a_damaged_checkpoint_is_never_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint" / "latest.npz"
    state = State(stage=1, epoch=2, history=[{"loss": 0.5}], arrays={"network": [np.arange(999.0)]})
    checkpoint.save(path, state)
    loaded = checkpoint.load(path)
    assert (loaded.stage, loaded.epoch, loaded.history) == (1, 2, [{"loss": 0.5}])
    np.testing.assert_array_equal(loaded.arrays["network"][0], np.arange(999.0))
    whole = path.read_bytes()
    for content in (whole[:500], whole[:2000] + b"x" + whole[2001:], b"", b"text"):
        path.write_bytes(content)
        caplog.clear()
        assert checkpoint.load(path) == State()
        assert "damaged" in caplog.text


def test_a_folder_in_use_is_refused(tlbench: Command) -> None:
    process = start(*TINY, "epochs=200", "hydra.run.dir=run")
    for line in process.stderr:
        if "train 1/200" in line:
            break
    answer = tlbench("train", "resume=run")
    evaluated = tlbench("evaluate", "run")
    process.send_signal(signal.SIGKILL)
    process.rest()
    assert answer.code == 2
    assert f"in use by process {process.pid}" in answer.error_lines[-1]
    assert "still running" in evaluated.error_lines[-1]
    assert "was killed. Go on with" in tlbench("evaluate", "run").error_lines[-1]


def test_a_loss_that_is_lost_stops_the_run(tlbench: Command) -> None:
    answer = tlbench(
        "train", *TINY, "optimizer=sgd", "learning_rate=1e30", "hydra.run.dir=run", "epochs=3"
    )
    assert answer.code == 1
    assert "no longer finite in epoch 1, step" in answer.error_lines[-1]
    run = Run.open(Path("run"))
    assert run.status == "failed"
    assert "no longer finite" in run.manifest["reason"]


def test_a_reader_who_goes_away_does_not_end_a_training() -> None:
    """As `tlbench train ... 2>&1 | head -1` does: the log is in the run's folder."""
    process = start(*TINY, "hydra.run.dir=run")
    process.stderr.readline()
    process.stderr.close()
    assert process.wait() == 0
    assert Run.open(Path("run")).status == "completed"
    said = Path("run/train.log").read_text()
    assert "train 2/2" in said
    assert "Traceback" not in said


def test_a_warm_up_cannot_be_stretched(tlbench: Command) -> None:
    warmup = "strategy.stages.0.warmup=0.5"  # as schedule.warmup, which it is instead of
    words = (*TINY, "trainable=false", warmup, "epochs=1", "hydra.run.dir=run")
    assert tlbench("train", *words).code == 0
    before = bits("run")
    answer = tlbench("train", "resume=run", "epochs=12")
    assert answer.code == 2
    assert "epochs=12 would bend the warm-up of a run of 1 epochs" in answer.error_lines[-1]
    assert bits("run") == before


def test_what_auto_decided_holds_to_the_end(
    tlbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that began in bfloat16 goes on in it, though the cache is gone and auto would now refuse it."""
    monkeypatch.setattr(engines, "lower_precisions", lambda *_: ["bfloat16"])
    figures = {"bfloat16": {"noise": 0.001, "speedup": 2.0}}
    monkeypatch.setattr(precisions, "measure", lambda *_: figures)
    auto = ("features.engine=tensorflow", "features.precision=auto")
    words = (*TINY, "trainable=false", *auto, "hydra.run.dir=run")
    assert tlbench("train", *words, "epochs=1").code == 0
    began = Run.open(Path("run")).manifest["features"]
    assert began["precision"] == "bfloat16"
    assert tlbench("cache", "--clear").code == 0
    monkeypatch.setattr(precisions, "measure", lambda *_: {"bfloat16": {"noise": 9, "speedup": 1}})
    assert tlbench("train", "resume=run", "epochs=2").code == 0
    now = Run.open(Path("run")).manifest["features"]
    assert now["images_computed"] == 375
    for key in ("engine", "precision", "reason", "measured"):
        assert now[key] == began[key]
    monkeypatch.setattr(engines, "lower_precisions", lambda *_: [])
    answer = tlbench("train", "resume=run", "epochs=3")
    assert answer.code == 2
    assert "reads features in bfloat16, which this cpu does not compute" in answer.error_lines[-1]
