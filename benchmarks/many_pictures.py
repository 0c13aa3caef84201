"""How long a start on a large folder of pictures takes, the first time and the second, and how much memory.

Makes JPEG files of 500 x 375 in ten classes, gradients under noise, of some 50 kB each; no two are equal. A bare
loop of Pillow on all cores, with the same draft mode and resize, is what the first start is set against: it reads,
decodes and forgets. The first start also digests each file, finds damaged ones and writes the index; the second
reads no picture. What a start takes is from the configuration to the data set, listed, read and split. The default,
50,000 pictures, takes some ten minutes on two cores and 3 GB of disk.
"""

import argparse
import io
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import measure

COLUMNS = (
    "side",
    "pictures",
    "seconds",
    "seconds of all cores",
    "pictures/s",
    "share of the bare loop, by these",
    "peak memory",
    "of it pictures kept",
)
SIDES = {
    "bare": "bare Pillow loop",
    "first": "tlbench, first start",
    "again": "tlbench, second start",
}
Answer = tuple[measure.Outcome, dict[str, float]]  # of a child: as a process, and what it told
CLASSES, DIFFERENT = 10, 100  # pictures that are drawn; the others are these with another comment
SIZE = 224


def main() -> None:
    args = _arguments()
    if args.side:
        print(json.dumps(_bare(args.folder) if args.side == "bare" else _start(args.folder)))
        return
    found: dict[str, list[Answer]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as root:
        _make(Path(root, "pictures"), args.pictures)
        for repeat in range(args.repeats):
            for side in SIDES:
                measure.say(f"{side}, {repeat + 1} of {args.repeats}")
                found[side].append(_child(side, Path(root), repeat))
    rows = [_row(side, args.pictures, found) for side in SIDES]
    again, cores = (measure.seconds(_median(found["again"], what)) for what in ("seconds", "cpu"))
    goals = {
        "pictures again": f"{again}, {cores} of all cores",
        "pictures first": f"{_share(found):.0%}",
        "pictures memory": measure.gib(
            max(
                o.peak_bytes - told["kept"]
                for side in ("first", "again")
                for o, told in found[side]
            )
        ),
    }
    notes = [f"To {SIZE} x {SIZE}; every file was in the system's cache of files."]
    measure.publish(args, "many_pictures", COLUMNS, rows, notes=notes, goals=goals)


def _row(side: str, pictures: int, found: dict[str, list[Answer]]) -> list[str]:
    seconds = _median(found[side], "seconds")
    return [
        SIDES[side],
        f"{pictures:,}",
        measure.seconds(seconds),
        measure.seconds(_median(found[side], "cpu")),
        f"{pictures / seconds:,.0f}",
        f"{_share(found):.0%}" if side == "first" else "-",
        measure.gib(max(outcome.peak_bytes for outcome, _ in found[side])),
        measure.gib(max(told["kept"] for _, told in found[side])),
    ]


def _share(found: dict[str, list[Answer]]) -> float:
    """The bare loop's seconds of all cores to the first start's: the clock counts who else is at work, too."""
    return _median(found["bare"], "cpu") / _median(found["first"], "cpu")


def _median(answers: list[Answer], figure: str) -> float:
    return measure.median([told[figure] for _, told in answers])


def _child(side: str, root: Path, repeat: int) -> Answer:
    """One side in a process of its own, with an index that the first start of a round has to itself."""
    words = [sys.executable, __file__, "--side", side, "--folder", str(root / "pictures")]
    outcome = measure.process(words, environment={"TLBENCH_CACHE": str(root / f"cache-{repeat}")})
    told: dict[str, float] = json.loads(outcome.out.strip().splitlines()[-1])
    return outcome, told


# ---------------------------------------------------------------- pictures


def _make(folder: Path, count: int) -> None:
    """JPEG files in class folders; more than two seconds old, so that an index trusts them."""
    measure.say(f"making {count:,} pictures")
    different = [_picture(seed) for seed in range(min(count, DIFFERENT))]
    for name in range(CLASSES):
        (folder / f"class {name}").mkdir(parents=True)
    for i in range(count):
        jpeg, comment = different[i % len(different)], b"%08d" % i
        marked = jpeg[:2] + b"\xff\xfe" + (2 + len(comment)).to_bytes(2, "big") + comment + jpeg[2:]
        (folder / f"class {i % CLASSES}" / f"{i:08d}.jpg").write_bytes(marked)
    time.sleep(2.1)


def _picture(seed: int) -> bytes:
    """A JPEG file of three waves of colour under noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:375, :500]
    waves = [
        128 + 100 * np.sin(x / rng.uniform(20, 90)) * np.cos(y / rng.uniform(20, 90) + channel)
        for channel in range(3)
    ]
    pixels = np.stack(waves, axis=-1) + rng.normal(0, 12, (375, 500, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=82)
    return file.getvalue()


# ---------------------------------------------------------------- the sides


def _bare(folder: Path) -> dict[str, float]:
    """Every file through Pillow once, on all cores."""
    paths = sorted(folder.rglob("*.jpg"))

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            scale = 2 * SIZE / min(image.size)
            image.draft("RGB", (int(image.width * scale), int(image.height * scale)))
            image.load()
            np.asarray(ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BILINEAR))

    began, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(measure.cores()) as pool:
        for _ in pool.map(decode, paths):
            pass
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "kept": 0,
    }


def _start(folder: Path) -> dict[str, float]:
    """From a configuration to a data set, as every run begins."""
    from tlbench.config.compose import compose
    from tlbench.data import datasets
    from tlbench.data.images import FileImages
    from tlbench.data.resize import Resize

    cfg = compose(["data=image_folder", f"data.root={folder}", f"data.image_size={SIZE}"])
    began, cpu = time.perf_counter(), time.process_time()
    dataset = datasets.load(cfg.data, Resize.of(cfg))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert isinstance(dataset.images, FileImages)
    held = dataset.images.held
    kept = int(held.there.sum()) * SIZE * SIZE * 3 if held else 0
    return {"seconds": seconds, "cpu": cpu, "kept": kept}


def _arguments() -> argparse.Namespace:
    parser = measure.parser(__doc__ or "")
    parser.set_defaults(repeats=1)
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny:
        args.repeats, args.pictures = 1, 300
    return args


if __name__ == "__main__":
    main()
