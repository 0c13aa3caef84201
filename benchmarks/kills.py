"""Interrupt trainings at random moments, go on with each, and count those that end in the same bits.

Six commands, each on a terminal of its own: a training in two stages (a head on cached features, then every
layer) with dropout, mirroring, a cosine schedule and early stopping; one of all layers with MixUp, CutMix, microbatches
and a mean of the last steps' weights; one that unfreezes gradually, with fixed views on cached maps, a moving average
of the weights and rates that fall from block to block; a sweep of two such as the first, at once; a sweep of
three heads, in one process; and the extension of a completed training from two epochs to five. Each is run once
without interruption (for the extension: a training that had five from the beginning). Then, as often as --kills
says, one is begun anew, interrupted at a random moment by SIGKILL, Ctrl-C or a terminal that goes away, taken
up again as a user would, and compared: history, metrics, test probabilities and the weights of the saved model,
to the bit.
"""

import csv
import fcntl
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pexpect

import measure

SETTINGS = (
    *("data=digits", "data.limit=300", "batch_size=16", "device=cpu"),
    *("backbone=mobilenet", "backbone.arguments.alpha=0.25", "backbone.weights=null"),
    *("backbone.image_size=32", "head.widths=[16]", "head.dropout=0.2", "augment=flip"),
)
TWO_STAGES = (*SETTINGS, "strategy=probe_finetune")
SCHEDULED = (*TWO_STAGES, "epochs=3", "schedule=cosine", "early_stopping.patience=3")
MIXED = (
    *(*SETTINGS, "strategy=all", "epochs=4", "augment.mixup=0.2", "augment.cutmix=1.0"),
    *("microbatch=6", "optimizer.swa=0.5"),
)
GRADUAL = (
    *(*SETTINGS, "strategy=gradual", "epochs=2", "augment=standard", "augment.views=3"),
    *("optimizer=adamw", "optimizer.ema=0.9", "optimizer.layer_decay=0.8"),
)
HEADS = (
    *SETTINGS,
    "trainable=false",
    "epochs=40",
    "schedule=cosine",
    "learning_rate=0.001,0.002,0.003",
)
CLOCK = {
    *("seconds", "images_per_second", "features_seconds", "training_seconds"),
    *("evaluation_seconds", "peak_memory_bytes", "latency_ms"),
}
PATIENCE = 600  # seconds, for a command that is to end by itself


def train(words: tuple[str, ...], cache: Path) -> pexpect.spawn:
    """A training on a terminal of 80 columns, which has to be read: it waits for its reader."""
    return pexpect.spawn(
        sys.executable,
        ["-m", "tlbench", "train", *words],
        env={**os.environ, "TLBENCH_CACHE": str(cache), "TERM": "xterm-256color"},
        dimensions=(24, 80),
        timeout=PATIENCE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup ignores it
    )


def finish(words: tuple[str, ...], cache: Path) -> bool:
    """Run a training to its end; whether it ended well."""
    child = train(words, cache)
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus == 0


@dataclass(frozen=True)
class Command:
    """What is typed at first, what after an interruption, and the run folders that it fills."""

    first: Callable[[Path], tuple[str, ...]]
    again: tuple[str, ...]
    begun: str  # the file by which `again` finds what there is to go on with
    runs: tuple[str, ...] = (".",)

    def words(self, folder: Path) -> tuple[str, ...]:
        """What a user types to have the work done in a folder, begun or not."""
        if (folder / self.begun).is_file():
            return (*self.again, f"resume={folder}")
        return self.first(folder)


COMMANDS = {
    "training": Command(
        lambda folder: (*SCHEDULED, f"hydra.run.dir={folder}"), (), "manifest.json"
    ),
    "mixed": Command(
        lambda folder: (*MIXED, f"hydra.run.dir={folder}"), (), "manifest.json"
    ),
    "gradual": Command(
        lambda folder: (*GRADUAL, f"hydra.run.dir={folder}"), (), "manifest.json"
    ),
    "sweep": Command(
        lambda folder: ("--multirun", *SCHEDULED, "seed=0,1", "n_jobs=2", f"hydra.sweep.dir={folder}"),
        ("--multirun",),
        "multirun.yaml",
        ("0", "1"),
    ),
    "heads": Command(
        lambda folder: ("--multirun", *HEADS, f"hydra.sweep.dir={folder}"),
        ("--multirun",),
        "multirun.yaml",
        ("0", "1", "2"),
    ),
    "extension": Command(
        lambda folder: (*TWO_STAGES, "epochs=5", f"hydra.run.dir={folder}"),
        ("epochs=5",),
        "manifest.json",
    ),
}  # fmt: skip


def hang_up(child: pexpect.spawn) -> None:
    child.ptyproc.fileobj.close()


INTERRUPTIONS: Mapping[str, Callable[[pexpect.spawn], None]] = {
    "SIGKILL": lambda child: child.kill(signal.SIGKILL),
    "Ctrl-C": lambda child: child.sendintr(),
    "a closed terminal": hang_up,
}


def bits(folder: Path) -> dict[str, str]:
    """Digests of all that a run found out, without how long it took, by what they are of."""
    with (folder / "history.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k not in CLOCK} for row in csv.DictReader(file)]
    metrics = json.loads((folder / "metrics.json").read_text())
    kept = {k: v for k, v in metrics.items() if k not in CLOCK}
    found = {"history": json.dumps(rows).encode(), "metrics": json.dumps(kept).encode()}
    for name, member in (
        ("predictions.npz", "probabilities.npy"),
        ("model.keras", "model.weights.h5"),
    ):
        with zipfile.ZipFile(folder / name) as archive:
            found[name] = archive.read(member)
    return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def epochs(folder: Path) -> int:
    """How many epochs the logs in a folder speak of."""
    return sum(path.read_text().count("  loss ") for path in folder.rglob("train.log"))


def interrupt(child: pexpect.spawn, how: str, moment: float) -> bool:
    """Let a training go for so many seconds and stop it; whether it came to its end."""
    if child.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=moment) == 0:
        return True
    INTERRUPTIONS[how](child)
    if not child.ptyproc.fileobj.closed:
        child.expect(pexpect.EOF)
    child.wait()
    return child.exitstatus == 0


def wait_for_jobs(folder: Path) -> None:
    """A sweep that was killed leaves jobs, which save and end: their folders are locked until then."""
    for path in folder.rglob(".lock"):
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)


def attempt(
    name: str, how: str, moment: float, folder: Path, base: Path
) -> tuple[str, list[dict[str, str]]]:
    """Interrupt a command and finish it: where it was interrupted, and the digests of its runs."""
    command, cache = COMMANDS[name], folder.with_name(f"{folder.name} cache")
    if name == "extension":
        shutil.copytree(base, folder)
    before = epochs(folder)
    ended = interrupt(train(command.words(folder), cache), how, moment)
    wait_for_jobs(folder)
    place = "after its end" if ended else "after an epoch" if epochs(folder) > before else "earlier"
    if not finish(command.words(folder), cache):
        return place, []
    found = [bits(folder / run) for run in command.runs]
    shutil.rmtree(folder)
    shutil.rmtree(cache, ignore_errors=True)
    return place, found


def verdict(found: list[dict[str, str]], expected: list[dict[str, str]]) -> str:
    """Whether runs are as expected, and else in what they are not."""
    if not found:
        return "FAILED"
    pairs = [(run, whole) for run, whole in zip(found, expected, strict=True) if run != whole]
    others = sorted({name for run, whole in pairs for name in whole if run[name] != whole[name]})
    return f"DIFFERENT: {', '.join(others)}" if others else "identical"


def main() -> int:
    parser = measure.parser(__doc__, timed=False)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--at-once", type=int, default=2, help="commands under way at a time")
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    ways = list(itertools.product(asked.commands, INTERRUPTIONS))
    kinds = [ways[i % len(ways)] for i in range(asked.kills)]
    moments = [rng.uniform(0.2, 1.1) for _ in kinds]  # of the time that it takes uninterrupted
    with tempfile.TemporaryDirectory() as root:
        expected, lengths = {}, {}
        for name in asked.commands:
            command = COMMANDS[name]
            began, folder = time.monotonic(), Path(root) / f"whole {name}"
            assert finish(command.first(folder), Path(root) / "cache")
            lengths[name] = time.monotonic() - began
            expected[name] = [bits(folder / run) for run in command.runs]
        base = Path(root) / "base"
        if "extension" in asked.commands:
            words = (*TWO_STAGES, "epochs=2", f"hydra.run.dir={base}")
            assert finish(words, Path(root) / "cache")

        def one(i: int) -> tuple[str, list[dict[str, str]]]:
            name, how = kinds[i]
            moment = moments[i] * lengths[name]
            found = attempt(name, how, moment, Path(root) / f"try {i}", base)
            measure.say(f"{i + 1}: {name}, {how} {found[0]}: {verdict(found[1], expected[name])}")
            return found

        with ThreadPoolExecutor(asked.at_once) as pool:
            found = list(pool.map(one, range(asked.kills)))
    places = Counter((*kind, place) for kind, (place, _) in zip(kinds, found, strict=True))
    same = Counter(
        kind for kind, (_, run) in zip(kinds, found, strict=True) if run == expected[kind[0]]
    )
    reached = ("earlier", "after an epoch", "after its end")
    rows = [
        [*kind, *(str(places[(*kind, place)]) for place in reached), str(count), str(same[kind])]
        for kind, count in Counter(kinds).items()
    ]
    ends = (str(sum(places[(*k, p)] for k in set(kinds))) for p in reached)
    rows.append(["all", "", *ends, str(len(kinds)), str(same.total())])
    columns = (
        "what",
        "by",
        "before its first epoch's end",
        *reached[1:],
        "interrupted",
        "identical",
    )
    measure.publish(asked, "kills", columns, rows)
    return 0 if same.total() == len(kinds) else 1


if __name__ == "__main__":
    sys.exit(main())
