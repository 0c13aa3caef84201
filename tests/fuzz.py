"""Searches for inputs that end in a traceback: overrides, config files, images, damaged run folders.

    python tests/fuzz.py --cases 2000

Hypothesis draws the cases. Prints how many of each kind were tried, and every input that did not end in
one clear line. The suite runs a few of each kind (test_fuzz.py).
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import string
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from tlbench.base.errors import TlbenchError
from tlbench.cli import main as cli
from tlbench.config import checks
from tlbench.data import decoding
from tlbench.data.resize import Resize
from tlbench.runs.recording import Recording
from tlbench.runs.run import Run

VALUES = [
    *("null", "true", "false", "0", "-1", "1e999", "nan", "inf", "3.7", "[]", "[1,2]", "{a:1}"),
    *("''", "'a b'", "${oc.env:HOME}", "${nothing}", "${epochs}", "???", "[", "}", "=", "é", "\\"),
    *("imagenet", "auto", "../../etc", "os.system", "{_target_:os.system,command:id}", "1,2"),
    *("choice(1,2)", "glob(*)", "range(1,3)", "[null]", "[-1]", "[x]", "a" * 3000, "0x10"),
]
KEYS = [
    *("epochs", "batch_size", "seed", "trainable", "precision", "device", "learning_rate"),
    *("backbone", "head", "data", "optimizer", "schedule", "strategy", "augment", "report"),
    *("backbone.weights", "backbone.image_size", "backbone.arguments", "backbone.architecture"),
    *("backbone.preprocessing", "backbone.preprocessing.mean", "head.widths", "head.dropout"),
    "backbone.interpolation",
    *("head.activation", "data.root", "data.source", "data.validation", "data.test", "data.limit"),
    *("data.class_names", "data.superclasses", "optimizer.name", "optimizer.arguments"),
    *("optimizer.learning_rate.frozen", "strategy.stages", "batch_norm.momentum", "features"),
    *("loss", "loss.class_weights", "loss.label_smoothing", "loss.gamma", "data.sampling"),
    *("features.folder", "features.limit_gb", "early_stopping.patience", "published", "n_jobs"),
    *(
        "data.index",
        "resume",
        "hydra.job.name",
        "nothing",
        "head.nothing",
        "a.b.c",
        "_target_",
        "",
        "@",
    ),
]


def some_text(rng: random.Random) -> str:
    return "".join(rng.choices(string.printable.strip() + " é\u202e", k=rng.randint(0, 12)))


def an_override(rng: random.Random, folder: Path) -> str:
    """Words for `tlbench train` that cannot start a training: the data is not there."""
    key = rng.choice(KEYS) if rng.random() < 0.9 else some_text(rng)
    value = rng.choice(VALUES) if rng.random() < 0.7 else some_text(rng)
    override = f"{rng.choice(['', '', '', '+', '~', '++'])}{key}={value}"
    words = [override, "data=image_folder", f"data.root={folder / 'nowhere'}"]
    return answer(["train", *words, f"hydra.run.dir={folder / 'run'}"], override)


def a_config_file(rng: random.Random, folder: Path) -> str:
    """A run's config.yaml with a line changed, lost or added."""
    lines = (folder / "seed" / "config.yaml").read_text().splitlines()
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(lines))
        change = rng.randrange(4)
        if change == 0:
            del lines[i]
        elif change == 1:
            lines[i] = lines[i].partition(":")[0] + ": " + rng.choice(VALUES)
        elif change == 2:
            lines.insert(i, some_text(rng))
        else:
            lines[i] = lines[i][: rng.randint(0, len(lines[i]))]
    path = folder / "config.yaml"
    path.write_text("\n".join(lines))
    return quietly(lambda: checks.load(path), "\n".join(lines))


def an_image(rng: random.Random, folder: Path) -> str:
    """An image file with bytes changed, cut off or added."""
    kind = rng.choice(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((17, 9)).convert("RGB").save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    if rng.random() < 0.4:
        content = content[: rng.randrange(len(content) + 1)]
    path = folder / f"image.{kind.lower()}"
    path.write_bytes(content)
    way, how = rng.choice(["crop", "pad", "stretch"]), rng.choice(["bilinear", "bicubic"])
    return quietly(lambda: decoding.decode(path, Resize(8, way, how)), repr(content))


def a_run_folder(rng: random.Random, folder: Path) -> str:
    """A run whose files are damaged, in the hands of the verbs that read runs."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(folder / "seed", run)
    name = rng.choice(sorted(p.name for p in run.iterdir() if p.is_file()))
    content = bytearray((run / name).read_bytes())
    if rng.random() < 0.5 and content:
        content = content[: rng.randrange(len(content))]
    elif content:
        for _ in range(rng.randint(1, 20)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    (run / name).write_bytes(content)
    if name != "manifest.json" and rng.random() < 0.5:  # so that more than a checksum is tried
        Recording.open(run).complete()
    verb = rng.choice([["report", str(run)], ["report", str(folder)], ["evaluate", str(run)]])
    if verb[0] == "evaluate":
        return quietly(lambda: Run.finished(run).config(), f"{name}: {bytes(content)!r}")
    return answer(verb, f"{verb} {name}: {bytes(content)!r}")


def answer(words: list[str], case: str) -> str:
    """Run a command: "" when it ended well or in one line, else what went wrong."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(words)
    said = err.getvalue()
    if code not in (0, 1, 2) or "Traceback" in said or "internal error" in said:
        return f"{case}\n    exit {code}: {said.strip()[-400:]}"
    return ""


def quietly(call: Callable[[], object], case: str) -> str:
    """Call something that may refuse: "" when it worked or refused, else what it raised."""
    try:
        call()
    except TlbenchError as error:
        return "" if str(error).strip() else f"{case}\n    an empty message"
    except Exception as error:
        return f"{case}\n    {type(error).__name__}: {error}"
    return ""


KINDS: dict[str, Callable[[random.Random, Path], str]] = {
    "overrides": an_override,
    "config files": a_config_file,
    "images": an_image,
    "run folders": a_run_folder,
}


def seed_run(folder: Path) -> None:
    """A small finished run in `folder`/seed, written without training."""
    from hydra import compose, initialize_config_dir

    from tlbench.config.compose import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = checks.load(compose("train", ["data=digits", "backbone.weights=null"]))
    facts = {"data": {"name": "digits", "fingerprint": "0", "class_names": list("0123456789")}}
    run = Recording.start(folder / "seed", cfg, "tlbench train", facts)
    with run:
        header = "stage,epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds"
        row = "train,1,0.5,0.9,0.6,0.8,0.001,1.0"
        (run.folder / "history.csv").write_text(f"{header},images_per_second\n{row},99\n")
        metrics = {"evaluation": 0.9, "parameters": 5, "epochs": 1, "test_images": 100}
        (run.folder / "metrics.json").write_text(json.dumps(metrics))


def search(cases: int, number: int, folder: Path) -> Iterator[tuple[str, int, list[str]]]:
    """For each kind: its name, the cases tried, and the failures found. number: the seed."""
    os.chdir(folder)
    seed_run(folder)
    for name, attempt in KINDS.items():
        found: list[str] = []
        _probe(attempt, cases, number, folder, found)
        yield name, len(found), [failure for failure in found if failure]


def _probe(
    attempt: Callable[[random.Random, Path], str],
    cases: int,
    number: int,
    folder: Path,
    found: list[str],
) -> None:
    """Let Hypothesis draw so many cases of one kind; what each came to is added to `found`."""

    @seed(number)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def probe(rng: random.Random) -> None:
        found.append(attempt(rng, folder))

    probe()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, tried, failures in search(asked.cases, asked.seed, Path(folder)):
            print(f"{name}: {tried} tried, {len(failures)} failures")
            for failure in failures[:10]:
                print(f"  {failure}")
            total += len(failures)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
