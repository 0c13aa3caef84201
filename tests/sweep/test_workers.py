"""Jobs that share a process: what they share, and that nobody can tell."""

import csv
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pexpect
import pytest

import processes
from helpers import BACKBONE, TINY, Answer, make_config, once
from tlbench.base import kept
from tlbench.base.stopping import JOB
from tlbench.config import identity
from tlbench.runs.run import Run
from tlbench.sweep.workers import Crew, Job, Worker

Command = Callable[..., Answer]

HEADS = (*TINY, "trainable=false", "augment=flip", "head.dropout=0.2")


def sweep(*words: str) -> subprocess.Popen[str]:
    command = [processes.python(), "-m", "tlbench", "train", "--multirun", "hydra.sweep.dir=sweep"]
    return subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True)


def bits(run: Path) -> dict[str, object]:
    """All that a run found out, without how long it took."""
    with (run / "history.csv").open() as file:
        rows = [
            {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")}
            for row in csv.DictReader(file)
        ]
    with zipfile.ZipFile(run / "model.keras") as archive:
        layers = re.sub(rb'"shared_object_id": \d+', b"", archive.read("config.json"))  # an address
        model = (layers, archive.read("model.weights.h5"))
    with np.load(run / "predictions.npz") as predictions:
        arrays = {name: predictions[name].tobytes() for name in predictions.files}
    return {"history": rows, "model": model, **arrays}


def process_of(run: str | Path) -> int:
    """The process that trains, or trained, in a folder."""
    return int(Path(run, ".lock").read_text().split()[1])


# ---------------------------------------------------------------- one sweep, looked at from several sides


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `sweep`, of four jobs the second of which diverges, what it `said`, and job 3 `alone`."""

    def make(folder: Path) -> None:
        rates = "learning_rate=0.01,1e38,0.02,0.03"
        cache = f"features.folder={folder / 'cache'}"
        for words, code, said in (
            (["--multirun", rates, f"hydra.sweep.dir={folder / 'sweep'}"], 1, "said"),
            (["learning_rate=0.03", f"hydra.run.dir={folder / 'alone'}"], 0, "said alone"),
        ):
            ended, told = processes.Command("train", *HEADS, cache, *words).rest()
            assert ended == code, told
            (folder / said).write_text(told)

    return once(tmp_path_factory, "heads", make)


def test_a_job_of_a_shared_process_has_the_bits_of_one_alone(heads: Path) -> None:
    shared, alone = heads / "sweep" / "3", heads / "alone"
    assert process_of(shared) == process_of(heads / "sweep" / "2")  # it was not the first there
    assert Run.open(shared).manifest["features"]["images_computed"] == 0
    assert bits(shared) == bits(alone)
    assert bits(shared) != bits(heads / "sweep" / "2")


def test_a_job_beside_others_has_the_bits_of_one_alone_and_its_threads_sleep(
    heads: Path, tmp_path: Path
) -> None:
    words = ["train", *HEADS, f"features.folder={heads / 'cache'}", "learning_rate=0.03"]
    command = [*words, f"hydra.run.dir={tmp_path / 'run'}"]
    script = (
        f"from tlbench.cli import main\nassert main.main({command!r}) == 0\n"
        "from tensorflow.python.eager import context\n"
        "print(context.context().config.experimental.disable_thread_spinning)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, JOB: "2"},
        stdin=subprocess.PIPE,  # open to the end: a sweep that closes it asks its job to end
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.read().splitlines()[-1:] == ["True"]
    process.communicate()
    assert bits(tmp_path / "run") == bits(heads / "alone")


def test_a_job_that_fails_in_training_leaves_the_others(heads: Path) -> None:
    runs = [Run.open(heads / "sweep" / str(i)) for i in range(4)]
    assert [run.status for run in runs] == ["completed", "failed", "completed", "completed"]
    assert "no longer finite" in runs[1].manifest["reason"]
    assert process_of(runs[0].folder) == process_of(runs[1].folder)
    assert process_of(runs[2].folder) != process_of(runs[1].folder)  # which might not be sound


def test_lines_are_those_of_the_job(heads: Path) -> None:
    """Each job's own between its command and the next, and in its log; as many as alone."""
    said = (heads / "said").read_text().split("\njob ")[1:]
    assert "internal error" not in "".join(said)
    assert "retracing" not in "".join(said)
    shared = next(part for part in said if part.startswith("3: tlbench train"))
    trained = [line for line in shared.splitlines() if re.match(r"  train \d/\d", line)]
    alone = [
        line
        for line in (heads / "said alone").read_text().splitlines()
        if re.match(r"train \d/\d", line)
    ]
    assert len(trained) == len(alone) == 2
    assert [line.split("  ")[2:5] for line in trained] == [line.split("  ")[1:4] for line in alone]
    assert (heads / "sweep" / "3" / "train.log").read_text().count(" loss ") == 2


def test_the_latency_of_a_backbone_is_measured_once(heads: Path) -> None:
    measured = [p for p in (heads / "cache").rglob("*.json") if "latency_ms" in p.read_text()]
    assert len(measured) == 2  # of the backbone and of the head, which all four have


# ---------------------------------------------------------------- ends that nobody planned


def test_a_killed_process_takes_its_job_alone_and_a_second_try_does_it(tlbench: Command) -> None:
    process = sweep(*HEADS, "epochs=80,1")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("  train 5/80"):
            break
    killed = process_of("sweep/0")
    os.kill(killed, signal.SIGKILL)
    said = process.stderr.read()
    assert process.wait() == 1
    assert re.search(r"job 0 .* failed: killed by SIGKILL", said)
    assert "1 of 2 jobs failed; the others finished." in said
    assert "Error executing" not in said  # which Hydra would say
    runs = [Run.open(Path("sweep", name)) for name in "01"]
    assert [run.status for run in runs] == ["failed", "completed"]
    assert process_of("sweep/1") != killed
    answer = tlbench("train", "--multirun", "resume=sweep")
    assert answer.code == 0, answer.err
    assert "Going on after" in answer.err
    assert Run.open(Path("sweep/0")).metrics["epochs"] == 80


def test_a_later_job_hears_the_terminal_and_a_second_try_comes_to_the_same_bits(
    tlbench: Command,
) -> None:
    """SIGUSR1 saves; Ctrl-C saves and ends; both reach the job under way in a process that has done one."""
    own = [*HEADS, "epochs=80"]
    words = ["-m", "tlbench", "train", "--multirun", *own, "seed=0,1,2", "hydra.sweep.dir=sweep"]
    child = pexpect.spawn(sys.executable, words, dimensions=(24, 80), timeout=120, encoding="utf-8")
    child.expect("job 1: ")
    child.expect("train 3/80")
    child.kill(signal.SIGUSR1)
    child.expect("Saved a checkpoint, as SIGUSR1 asked")
    child.sendintr()
    child.expect("Go on with: tlbench train --multirun resume=")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert Run.open(Path("sweep/0")).status == "completed"
    assert Run.open(Path("sweep/1")).status == "interrupted"
    assert not Path("sweep/2").exists()
    assert tlbench("train", "--multirun", "resume=sweep").code == 0
    assert tlbench("train", *own, "seed=1", "hydra.run.dir=whole").code == 0
    assert bits(Path("sweep/1")) == bits(Path("whole"))


def test_a_process_that_starts_as_the_sweep_ends_does_no_job() -> None:
    job = Job(0, [], Path("0"), "job", ["--version"], completed=False, features=None)
    crew = Crew([job], at_once=1)
    crew.end()
    assert crew._for(job, None).run(job.command, lambda _: None) == 0
    crew.work(lambda: None)
    assert job.exit_code is None


# ---------------------------------------------------------------- which jobs share, and how long


@pytest.mark.parametrize(
    ("word", "shared"),
    [
        ("head.widths=[7,5]", True),
        ("optimizer=sgd", True),
        ("schedule=cosine", True),
        ("epochs=9", True),
        ("batch_size=16", True),
        ("seed=1", True),  # the weights are a file's
        ("early_stopping.patience=2", True),
        ("keep=last", True),
        ("tracker=jsonl", True),
        ("data.folds=5", False),
        ("data.fold=0", True),
        ("backbone.image_size=40", False),
        ("data.limit=200", False),
        ("data.split_seed=1", False),
        ("augment=flip", False),
        ("features.precision=bfloat16", False),
        ("device=cpu", False),
    ],
)
def test_jobs_share_a_process_unless_features_differ(word: str, shared: bool) -> None:
    one, other = (make_config(*TINY, "trainable=false", *more) for more in ((), (word,)))
    assert identity.features_hash(one) is not None
    assert (identity.features_hash(one) == identity.features_hash(other)) is shared


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("trainable=conv_2",),
        ("strategy=probe_finetune",),
        ("trainable=false", "features.cache=false"),
        ("trainable=false", "batch_norm.statistics=adapted"),
    ],
)
def test_a_job_that_changes_its_backbone_is_alone(words: tuple[str, ...]) -> None:
    assert identity.features_hash(make_config(*TINY, *words)) is None


@pytest.mark.parametrize(
    "drawn",
    [
        ("backbone=mobilenet", "backbone.weights=null"),
        (*BACKBONE, "augment=flip", "augment.views=4"),
    ],
)
def test_what_a_seed_draws_is_shared_by_jobs_of_one_seed(drawn: tuple[str, ...]) -> None:
    random = ("data=digits", *drawn, "trainable=false")
    hashes = [identity.features_hash(make_config(*random, f"seed={seed}")) for seed in (0, 1, 0)]
    assert hashes[0] != hashes[1]
    assert hashes[0] == hashes[2]


def answers(commands: bytes, held: list[int], *flags: str) -> tuple[list[str], bytes]:
    """What a worker answers whose commands return the number that they are, and what it leaves unread."""
    code = (
        "import os; from tlbench.cli import main, worker; "
        "main.main = lambda words: int(words[0]); "
        f"worker.memory.resident_bytes = iter({held}).__next__; "
        "worker.main(); os.write(1, os.read(0, 100))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], input=commands, capture_output=True, check=True
    )
    return done.stderr.decode().replace("\x1e", "").splitlines(), done.stdout


def test_a_process_ends_when_a_job_failed_or_memory_has_grown() -> None:
    done, failed = b'["0"]\n', b'["1"]\n'
    assert answers(3 * done, [100, 105, 104]) == (["0 1", "0 1", "0 1"], b"")
    assert answers(4 * done, [100, 105, 106]) == (["0 1", "0 1", "0 0"], done)
    assert answers(failed + done, [100]) == (["1 0"], done)
    assert answers(b"ss" + done, [100]) == (["0 1"], b"")  # asked to save when there was no job


def test_what_is_kept_is_made_once_and_by_default_nothing_is() -> None:
    made = []
    for _ in range(2):
        kept.once("key", lambda: made.append("alone"))
    with kept.between_jobs():
        found = [kept.once(key, lambda: made.append("shared") or len(made)) for key in "aab"]
    kept.once("a", lambda: made.append("alone"))
    assert made == ["alone", "alone", "shared", "shared", "alone"]
    assert found == [3, 3, 4]


def test_a_process_passes_lines_on_and_takes_another_job() -> None:
    said: list[str] = []
    worker = Worker("features", 80, at_once=1)
    assert worker.run(["train", "sed=1"], said.append) == 2
    assert worker.over  # it failed
    worker.close()
    assert said == ["tlbench: error: Unknown setting 'sed'. Did you mean 'seed'?"]
