"""What `tlbench bench` says of backbones on given pictures, and how long it takes with and without their features.

Words are those of `tlbench bench`: backbones with their weights, and the folder of pictures. The bench runs twice, each
time into a new folder: with an empty cache, and with the features found. Without words: random networks on
scikit-learn's digits, which shows that it runs and says nothing of transfer. Two rounds of 2,000 pictures and three
sizes of an EfficientNet-Lite0 take five minutes on two cores.
"""

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import measure
from work import NETWORKS

SHOWN = ("1-shot", "5-shot", "10-shot", "25-shot", "all", "k-NN")
COLUMNS = ("data", "row", *SHOWN, "95 % of all", "p", "img/s", "ms")
DIGITS = ("backbone=mobilenet", "backbone.weights=null", "backbone.image_size=32", "data=digits")
SHORT = ("data.limit=200", "bench.draws=2", "bench.steps=5", "features.precision=float32")
TINY = (*NETWORKS["small"].words, "data=digits", *SHORT)


def main() -> None:
    args = _arguments()
    words = args.words or [*(TINY if args.tiny else DIGITS)]
    with tempfile.TemporaryDirectory() as folder:
        cold, found = (_bench(words, Path(folder), name) for name in ("cold", "found"))
        with (Path(folder) / "found" / "bench.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    imports = measure.process([sys.executable, "-c", "import keras"])
    said = [
        row["twice the images"]
        for row in rows
        if not row.get("all p") and row["kind"] == "pretrained"
    ]
    notes = [
        f"The whole command: {cold.seconds:.0f} s with an empty cache, {found.seconds:.0f} s with the features found "
        f"({found.cpu:.0f} CPU-seconds), of which the import of Keras alone is {imports.seconds:.0f} s; at most "
        f"{measure.gib(cold.peak_bytes)}.",
        *said,
    ]
    measure.publish(args, "backbones", COLUMNS, [_row(row) for row in rows], notes=notes)


def _bench(words: list[str], folder: Path, name: str) -> measure.Outcome:
    measure.say(f"{name}: {' '.join(words)}")
    command = [sys.executable, "-m", "tlbench", "bench", *words, "--out", str(folder / name)]
    return measure.process(command, environment={"TLBENCH_CACHE": str(folder / "cache")})


def _row(row: dict[str, str]) -> list[str]:
    accuracies = [f"{float(row[name]):.3f}" if row.get(name) else "" for name in SHOWN]
    interval = f"{float(row['all low']):.3f}-{float(row['all high']):.3f}" if row["all"] else ""
    speed = f"{float(row['images_per_second']):,.0f}" if row["images_per_second"] else ""
    latency = f"{float(row['latency_ms']):.1f}" if row["latency_ms"] else ""
    p = f"{float(row['all p']):.2g}" if row.get("all p") else ""
    return [row["data"], row["row"], *accuracies, interval, p, speed, latency]


def _arguments() -> argparse.Namespace:
    parser = measure.parser(__doc__)
    parser.add_argument("words", nargs="*", help="as for tlbench bench")
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    main()
