"""What each ingredient of fine-tuning brings and costs: one row an ingredient, against the row without it, in pairs.

--table: pictures with the columns label and group, as a CSV; --words name the backbone, a Keras model in a file. Of
further tables the main rows alone are measured.
Each seed is another split, which keeps groups whole, and another draw of all else; a row and the one that it is set
against have the same. Costs are seconds of all cores for the whole command: reading, features, training, evaluation
and saving. Without --table: scikit-learn's digits and a network of random weights, which shows that it runs and says
nothing of real pictures. 2,500 pictures of 64 pixels, five seeds and all rows take two hours on two cores, --only
some of them less; --folder keeps what was measured, and a second start goes on from there.
"""

import argparse
import csv
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import plain_keras

COLUMNS = (
    "pictures",
    "training",
    "against",
    "accuracy",
    "difference (95 %)",
    "macro F1",
    "seconds",
    "share",
)
PLAIN, HEAD, EXACT = "plain Keras, all layers", "head only, by Adam", "head only, exact"
ALL, BASE, AUTO = "all layers by Adam", "exact head, then half of the layers", "recipe=auto"
EXACTLY = "head=logistic"
TUNED = (
    *(EXACTLY, "strategy=probe_finetune", "trainable=0.5", "learning_rate=1e-3"),
    *("optimizer=adamw", "schedule=cosine"),
)


@dataclass(frozen=True)
class Row:
    """A training, by what is typed, and the rows that it is set against."""

    words: tuple[str, ...]
    against: tuple[str, ...]


def _on(base: str, *words: str) -> Row:
    return Row((*ROWS[base].words, *words), (base,))


ROWS: dict[str, Row] = {
    PLAIN: Row((), ()),
    HEAD: Row(("trainable=false",), (PLAIN,)),
    EXACT: Row((EXACTLY, "trainable=false"), (HEAD,)),
    ALL: Row(("trainable=true",), (PLAIN,)),
    BASE: Row(TUNED, (EXACT,)),
}
ROWS |= {
    "head by Adam first": _on(BASE, "head=linear"),
    "last stage": _on(BASE, "trainable=last_stage"),
    "all layers": _on(BASE, "trainable=true"),
    "gradual": _on(BASE, "strategy=gradual", "trainable=0.5"),
    "surgical": _on(BASE, "strategy=surgical", "trainable=first_stage"),
    "rate 3e-4": _on(BASE, "learning_rate=3e-4"),
    "constant rate": _on(BASE, "schedule=constant"),
    "layer decay 0.8": _on(BASE, "optimizer.layer_decay=0.8"),
    "statistics of batches": _on(BASE, "batch_norm.statistics=batch"),
    "statistics adapted": _on(BASE, "batch_norm.statistics=adapted"),
    "EMA 0.98": _on(BASE, "optimizer.ema=0.98"),
    "label smoothing 0.1": _on(BASE, "loss.label_smoothing=0.1"),
    "gradient clipping": _on(BASE, "optimizer.clipnorm=1"),
    "augment=flip": _on(BASE, "augment=flip"),
    "augment=light, 8 views": _on(BASE, "augment=light", "augment.views=8"),
    "augment=standard, 8 views": _on(BASE, "augment=standard", "augment.views=8"),
    "the last epoch kept": _on(BASE, "keep=last"),
    "the least loss kept": _on(BASE, "early_stopping.monitor=val_loss"),
    AUTO: Row(("recipe=auto",), (PLAIN, HEAD, EXACT)),
}
ROWS["SWA"] = _on("constant rate", "optimizer.swa=0.5")
MAIN = [PLAIN, HEAD, EXACT, AUTO]


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    accuracy: float
    macro_f1: float
    seconds: float  # of all cores


def main() -> None:
    if "--worker" in sys.argv:
        print("answer", json.dumps(_plainly(json.loads(sys.argv[-1]))), flush=True)
        return
    args = _arguments()
    if args.tiny:
        args.seeds, args.epochs = 2, 1
    rows, wanted = [], args.only or (MAIN if args.tiny else list(ROWS))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(args.folder or name).absolute()
        for table in args.table or [_digits(folder / "digits", 200 if args.tiny else 1000)]:
            bench = _Bench(args, table.absolute(), folder / table.stem)
            found = {
                row: [bench.trained(row, seed) for seed in range(args.seeds)] for row in wanted
            }
            rows += [line for name in found for line in _lines(table.stem, name, found)]
            wanted = [row for row in wanted if row in MAIN]
    about = (
        f"{args.seeds} splits, {args.epochs} epochs of what is no recipe; means over the splits, differences in points "
        "from the same splits with Student's interval; seconds of all cores for the whole command, and their share of "
        f"{PLAIN.split(',')[0]}'s."
    )
    measure.publish(args, "fine_tuning", COLUMNS, rows, notes=[about])


class _Bench:
    """Trainings on one table, each kept in a folder where it is found again."""

    def __init__(self, args: argparse.Namespace, table: Path, folder: Path) -> None:
        self.folder, self.epochs = folder, args.epochs
        words = args.words or _random_network(args.tiny)
        self.words = [
            *("data=table", f"data.table={table}", f"data.root={table.parent}", "data.group=group"),
            *("data.test=0.2", "data.validation=0.15", "head=linear", *words),
            f"epochs={args.epochs}",
        ]

    def trained(self, name: str, seed: int) -> Trained:
        """A row with one seed, now or before."""
        record = self.folder / f"{name.replace('/', ' ')}, {seed}.json"
        if not record.is_file():
            measure.say(f"{name}, seed {seed}")
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps(vars(self._train(name, seed))))
        return Trained(**json.loads(record.read_text()))

    def _train(self, name: str, seed: int) -> Trained:
        words = [*self.words, f"seed={seed}", f"data.split_seed={seed}"]
        # Each training computes its features itself: a cache that another one filled would hide what they cost.
        with tempfile.TemporaryDirectory() as cache:
            environment = {"TLBENCH_CACHE": cache}
            if name == PLAIN:
                asked = json.dumps({"words": words, "epochs": self.epochs})
                command = [sys.executable, __file__, "--worker", asked]
                done = measure.process(command, environment=environment)
                lines = [line for line in done.out.splitlines() if line.startswith("answer ")]
                return Trained(**json.loads(lines[-1].removeprefix("answer ")), seconds=done.cpu)
            run = Path(cache) / "run"
            command = [
                sys.executable,
                "-m",
                "tlbench",
                "train",
                *_without_twins(words, ROWS[name].words),
            ]
            done = measure.process([*command, f"hydra.run.dir={run}"], environment=environment)
            metrics = json.loads((run / "metrics.json").read_text())
        return Trained(metrics["evaluation"], metrics["macro_f1"], done.cpu)


def _without_twins(words: Sequence[str], more: Sequence[str]) -> list[str]:
    """Words of which the later ones stand in the place of earlier ones; a recipe decides its own."""
    own = ("epochs", "head") if "recipe=auto" in more else ()
    kept = {word.partition("=")[0]: word for word in words}
    kept = {key: word for key, word in kept.items() if key not in own}
    kept |= {word.partition("=")[0]: word for word in more}
    return list(kept.values())


def _plainly(asked: dict[str, Any]) -> dict[str, float]:
    """Every layer by Adam, as one writes it in plain Keras: on the same pictures, to the last epoch."""
    import keras
    import numpy as np
    from sklearn.metrics import f1_score

    from tlbench.config.compose import compose
    from tlbench.data import datasets
    from tlbench.data.resize import Resize

    cfg = compose(asked["words"])
    keras.utils.set_random_seed(cfg.seed)
    dataset = datasets.load(cfg.data, Resize.of(cfg))
    parts = {
        name: (dataset.images.batch(rows), dataset.labels[rows])
        for name, rows in dataset.splits.items()
    }
    pixels = x = keras.Input(dataset.images.shape)
    if (given := cfg.backbone.preprocessing) is not None:
        scale, offset = zip(
            *((1 / std, -mean / std) for mean, std in zip(given.mean, given.std, strict=True)),
            strict=True,
        )
        x = keras.layers.Rescaling(list(scale), list(offset))(x)
    backbone = keras.models.load_model(cfg.backbone.weights)
    whole = keras.models.clone_model(
        backbone, input_tensors=keras.Input((cfg.backbone.image_size,) * 2 + (3,))
    )
    whole.set_weights(backbone.get_weights())
    x = keras.layers.GlobalAveragePooling2D()(whole(x))
    outputs = keras.layers.Dense(len(dataset.class_names), activation="softmax")(x)
    model = keras.Model(pixels, outputs)
    plain_keras.compile_model(model, 1e-4)
    model.fit(
        *parts["train"],
        batch_size=64,
        epochs=asked["epochs"],
        validation_data=parts["validation"],
        verbose=0,
    )
    images, labels = parts["test"]
    taken = model.predict(images, verbose=0).argmax(axis=1)
    macro = f1_score(
        labels, taken, average="macro", labels=range(len(dataset.class_names)), zero_division=0
    )
    return {"accuracy": float(np.mean(taken == labels)), "macro_f1": float(macro)}


def _lines(table: str, name: str, found: dict[str, list[Trained]]) -> list[list[str]]:
    """A line of the table for each row that one is set against, the first with its own figures."""
    own, plain = found[name], found.get(PLAIN)
    pairs = zip(own, plain, strict=True) if plain else ()
    share = [a.seconds / b.seconds for a, b in pairs]
    figures = [
        f"{statistics.fmean(one.macro_f1 for one in own):.3f}",
        f"{statistics.fmean(one.seconds for one in own):.0f}",
        f"{statistics.median(share):.2f}" if share else "",
    ]
    accuracy = f"{statistics.fmean(one.accuracy for one in own):.3f}"
    against = [other for other in ROWS[name].against if other in found] or [""]
    lines = [
        [table, name, other, accuracy, _difference(own, found[other]) if other else "", *figures]
        for other in against
    ]
    return [lines[0], *([table, name, line[2], "", line[4], "", "", ""] for line in lines[1:])]


def _difference(own: Sequence[Trained], other: Sequence[Trained]) -> str:
    """In points of accuracy, with the interval of the pairs' mean."""
    from scipy import stats

    points = [100 * (a.accuracy - b.accuracy) for a, b in zip(own, other, strict=True)]
    mean, error = statistics.fmean(points), statistics.stdev(points) / len(points) ** 0.5
    reach = float(stats.t.ppf(0.975, len(points) - 1)) * error
    return f"{mean:+.1f} ({mean - reach:+.1f} to {mean + reach:+.1f})"


def _random_network(tiny: bool) -> list[str]:
    size = 8 if tiny else 32
    return ["backbone=file", f"backbone.weights={plain_keras.SMALL}", f"backbone.image_size={size}"]


def _digits(folder: Path, count: int) -> Path:
    """Digits as pictures, each a group of its own."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits, lines = load_digits(), []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.rint(digits.images[i] * 255 / 16).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append({"path": f"{i}.png", "label": f"digit {digits.target[i]}", "group": str(i)})
    table = folder / "table.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return table


def _arguments() -> argparse.Namespace:
    parser = measure.parser(__doc__ or "", timed=False)
    parser.add_argument("--tiny", action="store_true", help="two splits of the least: does it run?")
    parser.add_argument("--table", type=Path, nargs="+", help="CSVs: path, label, group")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--only", nargs="+", choices=list(ROWS), metavar="ROW", help="some of the rows"
    )
    parser.add_argument("--folder", help="where what was measured is kept")
    parser.add_argument("--words", nargs="+", help="of tlbench train, that name the backbone")
    return parser.parse_args()


if __name__ == "__main__":
    main()
