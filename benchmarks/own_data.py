"""What the split, the weights of classes and wrong labels do to the figures of a frozen backbone's exact head.

--table: pictures with the columns label, group and maker, as a CSV; further words name the backbone. Compared are a
random split and one that keeps groups whole (five folds each), natural and balanced weights of the classes, and
training on one maker's pictures for another's; and `tlbench inspect` is asked which pictures are alike (against the
groups), by their looks and, each maker a split, by what the network sees, and which labels are wrong (a twentieth is
flipped). Without --table: scikit-learn's digits, each with a copy
that is turned a little, and a network of random weights, which shows that it runs and says nothing of real pictures.
Two makers with 3,781 pictures each take twenty minutes on two cores.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import measure
import tlbench
from tlbench.base.intervals import wilson
from tlbench.config.compose import compose
from tlbench.data import datasets, near
from tlbench.data.resize import Resize
from tlbench.inspection import inspect, seen
from tlbench.inspection.problems import SEEN, WRONG
from tlbench.inspection.seen import CLOSER
from tlbench.probing import threads
from work import NETWORKS

COLUMNS = ("trained on", "tested on", "weights", "images", "accuracy", "95 %", "macro F1")
RANDOM_NETWORK = ("backbone=mobilenet", "backbone.weights=null", "backbone.image_size=32")
HEAD = ("head=logistic", "trainable=false")
TINY = (*NETWORKS["small"].words, "features.precision=float32", "data.validation=0.2")
FOLDS, FLIPPED = 5, 0.05
MANY, WIDTH = 50_000, 1280  # pictures and features of a search
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
        notes = [*bench.alike(lines), *bench.seen(lines), *bench.flipped(lines)]
        notes += [_search(500 if args.tiny else MANY)]
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
        first, bound = _first_maker(lines), _bound(lines)
        rows = []
        for tested, weights in (("another maker", "null"), ("another maker", "balanced")):
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

    def seen(self, lines: Rows) -> list[str]:
        """How the pairs of two makers that the network sees alike agree with the groups; each maker is a split."""
        cfg = compose([*self.words, *self.own(_bound(lines)), "data.group=null"])
        found = inspect.inspect(cfg, doubt=True)
        about = {line["path"]: line for line in lines}
        pairs = [
            tuple(about[found.dataset.file(row)] for row in problem.rows)
            for problem in found.problems
            if problem.kind.startswith(SEEN)
        ]
        across = [pair for pair in pairs if pair[0]["maker"] != pair[1]["maker"]]
        right = [pair for pair in across if pair[0]["group"] == pair[1]["group"]]
        first = _first_maker(lines)
        reached = {line["path"] for pair in right for line in pair if line["maker"] != first}
        others = sum(line["maker"] != first for line in lines)
        names = {pair[0]["group"] for pair in right}
        groups = len({line["group"] for line in lines})
        return [
            f"Pictures that the network sees alike, each maker a split (at {CLOSER:g} of the usual distance): of "
            f"{len(across):,} pairs of two makers {len(right) / max(len(across), 1):.0%} are of one group (precision); "
            f"{len(reached) / others:.0%} of the tested maker's pictures (recall), and of {len(names) / groups:.0%} of "
            f"the groups at least one, are found. Within a maker: {len(pairs) - len(across):,} pairs."
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


def _bound(lines: Rows) -> Rows:
    """The first maker's pictures to train on, all others to test with."""
    first = _first_maker(lines)
    return [{**line, "split": "train" if line["maker"] == first else "test"} for line in lines]


def _search(count: int) -> str:
    """How long the search for pictures that a network sees alike takes, on numbers that mean nothing."""
    rng = np.random.default_rng(SEED)
    features = rng.random((count, WIDTH), dtype=np.float32)
    parts = np.split(rng.permutation(count), [round(0.64 * count), round(0.8 * count)])
    began = time.process_time()
    with threads.over_blocks():
        seen.pairs(features, parts, np.arange(count))
    taken = measure.seconds(time.process_time() - began)
    return f"To search {count:,} pictures of {WIDTH:,} features in three splits takes {taken} of a processor."


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
