"""What the split, the weights of classes and wrong labels do to the figures of a frozen backbone's exact head.

--table: pictures with the columns label, group and maker, as a CSV; further words name the backbone. Compared are a
random split and one that keeps groups whole (five folds each), natural and balanced weights of the classes, and
training on one maker's pictures for another's; and `tlbench inspect` is asked which pictures are alike (against the
groups) and which labels are wrong (a twentieth is flipped). Without --table: scikit-learn's digits, each with a copy
that is turned a little, and a network of random weights, which shows that it runs and says nothing of real pictures.
Two makers with 3,781 pictures each take a quarter of an hour on two cores.
"""

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import measure
import tlbench
from tlbench.config.compose import compose
from tlbench.data import datasets, near
from tlbench.data.resize import Resize
from tlbench.inspection import inspect
from tlbench.inspection.problems import WRONG
from tlbench.report.statistics import wilson
from work import NETWORKS

COLUMNS = ("trained on", "tested on", "weights", "images", "accuracy", "95 %", "macro F1")
RANDOM_NETWORK = ("backbone=mobilenet", "backbone.weights=null", "backbone.image_size=32")
HEAD = ("head=logistic", "trainable=false")
TINY = (*NETWORKS["small"].words, "features.precision=float32", "data.validation=0.2")
FOLDS, FLIPPED = 5, 0.05
SEED = 0

Rows = list[dict[str, str]]


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = args.table or _digits(folder / "digits", 60 if args.tiny else 600)
        words = [*HEAD, *(args.words or (TINY if args.tiny else RANDOM_NETWORK))]
        lines = list(csv.DictReader(table.open(newline="", encoding="utf-8")))
        bench = _Bench(table.parent, words, folder, 2 if args.tiny else FOLDS)
        rows = [row for rows in (bench.splits(lines), bench.makers(lines)) for row in rows]
        notes = [*bench.alike(lines), *bench.flipped(lines)]
    measure.publish(args, "own_data", COLUMNS, rows, notes=notes)


class _Bench:
    """Trainings on tables of one folder's pictures."""

    def __init__(self, root: Path, words: Sequence[str], folder: Path, folds: int) -> None:
        self.root, self.words, self.folder, self.folds, self.count = root, words, folder, folds, 0

    def splits(self, lines: Rows) -> list[list[str]]:
        """The first maker's pictures, split at random and by groups."""
        first = _first_maker(lines)
        some = [line for line in lines if line["maker"] == first]
        rows = []
        for name, weights in (("null", "null"), ("group", "null"), ("group", "balanced")):
            found = [
                self.train(some, f"data.group={name}", f"loss.class_weights={weights}", *fold)
                for fold in self.every_fold()
            ]
            tested = "pictures at random" if name == "null" else "other groups"
            rows.append(_row(first, tested, weights, found))
        return rows

    def every_fold(self) -> list[tuple[str, str]]:
        return [(f"data.folds={self.folds}", f"data.fold={fold}") for fold in range(self.folds)]

    def makers(self, lines: Rows) -> list[list[str]]:
        """Trained on the first maker's pictures, tested on all of the others', and on groups that are new there."""
        first = _first_maker(lines)
        rows = []
        for tested, weights in (("another maker", "null"), ("another maker", "balanced")):
            bound = [
                {**line, "split": "train" if line["maker"] == first else "test"} for line in lines
            ]
            settings = (
                "data.group=null",
                "data.duplicates=ignore",
                f"loss.class_weights={weights}",
            )
            rows.append(_row(first, tested, weights, [self.train(bound, *settings)]))
        return rows

    def alike(self, lines: Rows) -> list[str]:
        """How the pictures that look alike agree with the groups."""
        dataset = self.dataset(lines)
        found = near.pairs(near.looks(dataset.images))
        groups, labels = np.array(dataset.columns["group"]), dataset.labels
        same = groups[found.first] == groups[found.second]
        _, sizes = np.unique(groups, return_counts=True)
        every = int((sizes * (sizes - 1) // 2).sum())
        parted = dataset.splits["test"]
        across = np.isin(found.first, parted) != np.isin(found.second, parted)
        return [
            f"Pictures that look alike (a random split of both makers): {len(same):,} pairs, {same.mean():.0%} of them "
            f"of one group ({same.sum() / max(every, 1):.0%} of all such pairs), "
            f"{(labels[found.first] != labels[found.second]).sum():,} in two classes, {across.sum():,} with one of the "
            "two among the test images."
        ]

    def flipped(self, lines: Rows) -> list[str]:
        """How many of the labels that are doubted first were really flipped."""
        rng = np.random.default_rng(SEED)
        first = _first_maker(lines)
        some = [dict(line) for line in lines if line["maker"] == first]
        names = sorted({line["label"] for line in some})
        wrong = rng.permutation(len(some))[: round(FLIPPED * len(some))]
        for row in wrong:
            others = [name for name in names if name != some[row]["label"]]
            some[row]["label"] = str(rng.choice(others))
        cfg = compose([*self.words, *self.own(some), "data.group=null"])
        found = inspect.inspect(cfg, doubt=True)
        doubted = [found.dataset.file(p.rows[0]) for p in found.problems if p.kind == WRONG]
        bad = {some[row]["path"] for row in wrong}
        true = np.array([path in bad for path in doubted], dtype=int)
        half = int(np.searchsorted(np.cumsum(true), len(bad) / 2)) + 1
        reached = (
            f"{true[:half].mean():.0%} of the first {half}"
            if true.sum() * 2 >= len(bad)
            else "not reached"
        )
        return [
            f"Flipped labels: {len(bad)} of {len(some):,} ({FLIPPED:.0%}); {len(doubted)} labels are doubted, "
            f"{true.sum()} of them flipped ones ({true.sum() / len(bad):.0%} of all). Half of the flipped ones are "
            f"found when {reached} doubted labels are true finds."
        ]

    def train(self, lines: Rows, *settings: str) -> tlbench.Run:
        self.count += 1
        measure.say(f"training {self.count}: {' '.join(settings)}")
        place = self.folder / "runs" / str(self.count)
        return tlbench.train(*self.words, *self.own(lines), *settings, folder=place)

    def dataset(self, lines: Rows) -> datasets.Dataset:
        cfg = compose([*self.words, *self.own(lines), "data.group=null"])
        return datasets.load(cfg.data, Resize.of(cfg))

    def own(self, lines: Rows) -> tuple[str, ...]:
        """Words that name a table with these lines, and a cache that nobody else has."""
        self.count += 1
        table = self.folder / f"{self.count}.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
        cache = f"features.folder={self.folder / 'features'}"
        return "data=table", f"data.table={table}", f"data.root={self.root}", cache


def _first_maker(lines: Rows) -> str:
    return sorted({line["maker"] for line in lines})[0]


def _row(trained: str, tested: str, weights: str, runs: Sequence[tlbench.Run]) -> list[str]:
    """Figures over the test images of all runs; of folds each image is among them once."""
    images = sum(run.metrics["test_images"] for run in runs)
    right = sum(run.metrics["test_accuracy"] * run.metrics["test_images"] for run in runs)
    macro = np.mean([run.metrics["macro_f1"] for run in runs])
    low, high = wilson(right / images, images)
    natural = "natural" if weights == "null" else weights
    return [
        *(trained, tested, natural, f"{images:,}", f"{right / images:.3f}"),
        *(f"{low:.3f}-{high:.3f}", f"{macro:.3f}"),
    ]


def _digits(folder: Path, count: int) -> Path:
    """Digits as pictures of two makers: the second's are darker; each has a copy that is turned a little."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    lines = []
    for i in range(count):
        pixels = Image.fromarray(np.rint(digits.images[i] * 255 / 16).astype(np.uint8))
        for turned in (0, 4):
            for maker, light in (("bright", 1.0), ("dark", 0.6)):
                path = folder / maker / f"{i} {turned}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = pixels.resize((32, 32)).rotate(turned)
                picture.point(lambda value, light=light: value * light).save(path)
                relative = path.relative_to(folder).as_posix()
                lines.append((relative, f"{digits.target[i]}", maker, f"{i}"))
    table = folder / "digits.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "maker", "group"), *lines])
    return table


def _arguments() -> argparse.Namespace:
    parser = measure.parser(__doc__)
    parser.add_argument("--table", type=Path, help="a CSV with path, label, group and maker")
    parser.add_argument("words", nargs="*", help="the backbone, as for tlbench train")
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    main()
