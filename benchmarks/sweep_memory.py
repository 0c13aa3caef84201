"""Peak memory of every job of a sweep, and of the process that runs the sweep.

Each job is a process of its own, so a job takes what its training takes however many came before it.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import measure

FLAT = 0.05  # a job's peak may differ from the third one's by so much
SETTINGS = [
    *("data=digits", "data.limit=300", "epochs=1", "trainable=false", "device=cpu"),
    *("backbone=mobilenet", "backbone.arguments.alpha=0.25", "backbone.weights=null"),
    *("backbone.image_size=32", "head=linear"),
]


def main() -> int:
    parser = measure.parser(__doc__, timed=False)
    parser.add_argument("--jobs", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        seeds = ",".join(str(seed) for seed in range(asked.jobs))
        words = ["--multirun", *SETTINGS, f"seed={seeds}", f"hydra.sweep.dir={root}/sweep"]
        environment = {**os.environ, "TLBENCH_CACHE": f"{root}/cache"}
        subprocess.run(
            [sys.executable, "-m", "tlbench", "train", *words], env=environment, check=True
        )
        metrics = [Path(root, "sweep", str(i), "metrics.json") for i in range(asked.jobs)]
        peaks = [json.loads(path.read_text())["peak_memory_bytes"] / 2**20 for path in metrics]
    third = peaks[min(2, len(peaks) - 1)]
    rows = [[str(i), f"{peak:,.0f}", f"{peak / third - 1:+.1%}"] for i, peak in enumerate(peaks)]
    furthest = max(abs(peak / third - 1) for peak in peaks)
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    found = f"{asked.jobs} jobs, furthest from the third {furthest:.1%}; largest process {largest:,.0f} MiB."
    columns = ("job", "peak memory, MiB", "against the third job")
    measure.publish(asked, "sweep_memory", columns, rows, notes=[found])
    return 0 if furthest <= FLAT else 1


if __name__ == "__main__":
    sys.exit(main())
