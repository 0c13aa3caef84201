"""Kill trainings at random moments, go on with each, and count those that end in the same bits.

A training in two stages (a head on cached features, then every layer) with dropout, mirroring, a cosine
schedule and early stopping is run once without interruption. Then, as often as --kills says, it is begun
anew, killed by SIGKILL at a random moment, resumed, and compared: history, metrics, test probabilities
and the weights of the saved model, to the bit. A run that had not made its folder yet is begun again.
"""

import csv
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import measure

SETTINGS = [
    *("data=digits", "data.limit=300", "batch_size=16", "epochs=3", "device=cpu"),
    *("backbone=mobilenet", "backbone.arguments.alpha=0.25", "backbone.weights=null"),
    *("backbone.image_size=32", "head.widths=[16]", "head.dropout=0.2", "augment=flip"),
    *("strategy=probe_finetune", "schedule=cosine", "early_stopping.patience=3"),
]
CLOCK = {
    *("seconds", "images_per_second", "features_seconds", "training_seconds"),
    *("evaluation_seconds", "peak_memory_bytes", "latency_ms"),
}


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """A training whose features are its own, so that a kill may fall into computing them."""
    environment = {**os.environ, "TLBENCH_CACHE": str(folder.parent / f"{folder.name}-cache")}
    command = [sys.executable, "-m", "tlbench", "train", *words]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)


def begin(folder: Path) -> subprocess.Popen[bytes]:
    return start(folder, *SETTINGS, f"hydra.run.dir={folder}")


def bits(folder: Path) -> str:
    """A digest of all that a run found out, without how long it took."""
    digest = hashlib.sha256()
    with (folder / "history.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k not in CLOCK} for row in csv.DictReader(file)]
    metrics = json.loads((folder / "metrics.json").read_text())
    kept = {k: v for k, v in metrics.items() if k not in CLOCK}
    digest.update(json.dumps([rows, kept], sort_keys=True).encode())
    for name, member in (
        ("predictions.npz", "probabilities.npy"),
        ("model.keras", "model.weights.h5"),
    ):
        with zipfile.ZipFile(folder / name) as archive:
            digest.update(archive.read(member))
    return digest.hexdigest()


def where(folder: Path) -> str:
    """What a killed run had reached."""
    if not (folder / "manifest.json").is_file():
        return "before its folder"
    log = folder / "train.log"
    lines = log.read_text().splitlines() if log.is_file() else []
    stages = [line for line in lines if "loss" in line]
    if not stages:
        return "in features" if any("Computing" in line for line in lines) else "in the first epoch"
    name, epoch = stages[-1].split()[2:4]
    return f"after {name} {epoch}"


def attempt(folder: Path, moment: float) -> tuple[str, str]:
    """Kill a run after so many seconds and finish it: where it was killed, and its digest."""
    process = begin(folder)
    time.sleep(moment)
    process.kill()
    process.wait()
    place = where(folder)
    again = begin(folder) if place == "before its folder" else start(folder, f"resume={folder}")
    if again.wait() != 0:
        return place, "failed"
    found = bits(folder)
    shutil.rmtree(folder)
    return place, found


def main() -> int:
    parser = measure.parser(__doc__, timed=False)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2, help="trainings under way at a time")
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as root:
        began = time.monotonic()
        assert begin(Path(root) / "whole").wait() == 0
        length = time.monotonic() - began
        expected = bits(Path(root) / "whole")
        moments = [rng.uniform(0.2, 1.1) * length for _ in range(asked.kills)]
        with ThreadPoolExecutor(asked.at_once) as pool:
            folders = (Path(root) / str(i) for i in range(asked.kills))
            found = list(pool.map(attempt, folders, moments))
    kills = Counter(place for place, _ in found)
    same = Counter(place for place, digest in found if digest == expected)
    rows = [[place, str(kills[place]), str(same[place])] for place in sorted(kills)]
    rows.append(["at any moment", str(kills.total()), str(same.total())])
    measure.publish(asked, "kills", ("killed", "kills", "identical"), rows)
    return 0 if same == kills else 1


if __name__ == "__main__":
    sys.exit(main())
