"""Memory over the jobs of a sweep of heads, which share a process: what it holds after each, and its peak within it.

A process that has grown by a twentieth since its first job is replaced, so growth shows in how many there are.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import measure

FLAT = 0.05  # a job's peak may differ from the third one's by so much
EVERY = 20  # jobs between the rows of the table
SETTINGS = [
    *("data=digits", "data.limit=300", "epochs=1", "trainable=false", "device=cpu"),
    *("backbone=mobilenet", "backbone.arguments.alpha=0.25", "backbone.weights=null"),
    "backbone.image_size=32",
]


def main() -> int:
    parser = measure.parser(__doc__, timed=False)
    parser.add_argument("--jobs", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        held = _sweep(asked.jobs, Path(root))
        metrics = [Path(root, "sweep", str(i), "metrics.json") for i in range(asked.jobs)]
        peaks = [json.loads(path.read_text())["peak_memory_bytes"] / 2**20 for path in metrics]
    third = peaks[min(2, len(peaks) - 1)]
    shown = [i for i in range(asked.jobs) if i in (2, asked.jobs - 1) or i % EVERY == EVERY - 1]
    rows = [
        [str(i + 1), held.get(i, ("", ""))[0], f"{peaks[i]:,.0f}", f"{peaks[i] / third - 1:+.1%}"]
        for i in shown
    ]
    furthest = max(abs(peak / third - 1) for peak in peaks[2:])
    processes = len({number for _, number in held.values()})
    found = f"{asked.jobs} jobs in {processes} processes, furthest from the third {furthest:.1%}."
    columns = ("jobs done", "held after them, MiB", "peak in the last, MiB", "against the third's")
    measure.publish(asked, "sweep_memory", columns, rows, notes=[found])
    return 0 if furthest <= FLAT else 1


def _sweep(jobs: int, root: Path) -> dict[int, tuple[str, str]]:
    """Run a sweep; for each job but the last what its process held after it, in MiB, and the process's number."""
    rates = ",".join(f"{0.001 + i / 1e6:.6f}" for i in range(jobs))
    words = ["--multirun", *SETTINGS, f"learning_rate={rates}", f"hydra.sweep.dir={root}/sweep"]
    command = [sys.executable, "-m", "tlbench", "train", *words]
    environment = {**os.environ, "TLBENCH_CACHE": f"{root}/cache"}
    held = {}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as sweep:
        assert sweep.stderr is not None
        for line in sweep.stderr:
            # The next job is sent after this line: its process still holds what those before it left.
            if (begun := re.match(r"job (\d+): tlbench train", line)) and begun[1] != "0":
                tasks = Path(f"/proc/{sweep.pid}/task").glob("*/children")
                (child,) = "".join(path.read_text() for path in tasks).split()
                pages = int(Path(f"/proc/{child}/statm").read_text().split()[1])
                mib = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
                held[int(begun[1]) - 1] = (f"{mib:,.0f}", child)
    if sweep.returncode:
        sys.exit("The sweep failed.")
    return held


if __name__ == "__main__":
    sys.exit(main())
