"""`tlbench bench`: its table, what it leaves, its time limit, and going on after a kill."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import processes
from helpers import SMALL, Answer
from tlbench.base import console
from tlbench.bench import entries
from tlbench.bench.settings import Settings
from tlbench.cli.verbs import bench
from tlbench.runs.run import Run

Command = Callable[..., Answer]

SHORT = (
    *("data=digits", "data.limit=300", "features.precision=float32"),
    *("bench.draws=2", "bench.shares=[0.25,0.5]", "bench.shots=[1,5]", "bench.steps=5"),
)
FILE = ("backbone=file", f"backbone.weights={SMALL}")


def lines(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "bench.csv").open(newline="") as file:
        return {line["row"]: line for line in csv.DictReader(file)}


def test_a_bench_is_a_table_a_page_and_the_next_command(tlbench: Command, tmp_path: Path) -> None:
    answer = tlbench("bench", *FILE, "backbone.image_size=32,16", *SHORT, "--out", "b")
    assert answer.code == 0, answer.err
    rows = lines(tmp_path / "b")
    ours = [row for row in rows.values() if row["kind"] == "pretrained"]
    assert {row["row"] for row in ours} == {"small image_size=32", "small image_size=16"}
    best = max(ours, key=lambda row: float(row["all"]))
    assert best["all p"] == ""
    assert sum(row["all p"] == "" for row in ours) == 1
    assert sum(row["5-shot p"] == "" for row in ours) == 1
    for row in ours:
        assert float(row["all low"]) < float(row["all"]) < float(row["all high"])
        assert float(row["5-shot"]) > float(row["1-shot"]) > 0.1
        assert row["5-shot images"] == "50"
        assert float(row["images_per_second"]) > 0
        assert float(row["latency_ms"]) > 0
    nothing = rows[f"{best['row']}, labels shuffled"]
    assert float(nothing["all"]) < 0.3
    assert float(rows["majority class (chance 0.100)"]["all"]) == pytest.approx(0.1, abs=0.03)
    assert "raw pixels" in rows
    page = (tmp_path / "b" / "bench.html").read_text()
    assert all(f"{float(row['all']):.3f}" in page for row in ours)
    assert "<script" not in page
    assert max(len(line) for line in answer.out.splitlines() if "train it" not in line) >= 60
    (command,) = (line for line in answer.out.splitlines() if line.startswith("train it"))
    assert best["row"].removeprefix("small ") in command
    trained = tlbench(*command.split()[3:], "hydra.run.dir=run")
    assert trained.code == 0, trained.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["evaluation"] == pytest.approx(float(best["all"]), abs=0.01)


def test_what_is_measured_is_not_measured_again(tlbench: Command, tmp_path: Path) -> None:
    first = tlbench("bench", *FILE, *SHORT, "--out", "b")
    assert first.code == 0, first.err
    before = lines(tmp_path / "b")
    again = tlbench("bench", *FILE, *SHORT, "--out", "b")
    assert again.code == 0, again.err
    assert "Frozen features" in first.err
    assert "Frozen features" not in again.err
    assert lines(tmp_path / "b") == before
    other = tlbench("bench", *FILE, *SHORT, "seed=1", "--out", "b")
    assert "Frozen features" in other.err


def test_a_backbone_that_fails_leaves_the_others(tlbench: Command, tmp_path: Path) -> None:
    (tmp_path / "broken.keras").write_text("no model")
    words = ("backbone=file", f"backbone.weights={SMALL},broken.keras", "backbone.image_size=32")
    answer = tlbench("bench", *words, *SHORT, "--out", "b")
    assert answer.code == 1
    rows = lines(tmp_path / "b")
    assert float(rows["small"]["all"]) > 0.5
    assert "broken.keras" in rows["broken"]["reason"]
    assert rows["broken"]["reason"] in (tmp_path / "b" / "bench.html").read_text()
    assert (answer.out + answer.err).count("broken.keras cannot be the backbone") == 1
    assert "Failed, as said above and in bench.html: broken." in answer.out


def test_without_network_a_bench_ends_at_once(tmp_path: Path) -> None:
    closed = {"HTTPS_PROXY": "http://127.0.0.1:9", "KERAS_HOME": str(tmp_path / "keras")}
    data = ("data=digits", "data.limit=300,200")
    words = ("bench", "backbone=mobilenet,vgg16", "backbone.image_size=32", *data, *SHORT[2:])
    done = subprocess.run(
        [sys.executable, "-m", "tlbench", *words, "--out", "b"],
        capture_output=True,
        text=True,
        env=os.environ | closed,
    )
    assert done.returncode == 1
    *told, last = done.stderr.splitlines()
    assert last.startswith("tlbench: error: No backbone could be measured: their weights")
    assert "backbone=file backbone.weights=" in last
    failures = [line for line in told if "could not be downloaded" in line]
    assert [line.split()[0] for line in failures] == ["mobilenet", "vgg16"]
    assert all(len(line) < 150 for line in failures)
    assert "random weights)" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "b" / "bench.html").exists()


def test_a_backbone_without_its_weights_has_no_row_of_random_ones(
    tlbench: Command, tmp_path: Path
) -> None:
    (tmp_path / "broken.h5").write_text("no weights")
    small = ("backbone=mobilenet", "backbone.arguments.alpha=0.25", "backbone.image_size=32")
    trained = (*SHORT[:3], "head=linear", "trainable=false", "epochs=1", "hydra.run.dir=run")
    kept = tlbench("train", *small, "backbone.weights=null", *trained)
    assert kept.code == 0, kept.err
    answer = tlbench("bench", *small, "backbone.weights=run,broken.h5", *SHORT, "--out", "b")
    assert answer.code == 1
    rows = lines(tmp_path / "b")
    assert float(rows["mobilenet weights=run"]["all"]) > 0.1
    assert "broken.h5" in rows["mobilenet weights=broken.h5"]["reason"]
    random = [row["row"] for row in rows.values() if row["kind"] == "random weights"]
    assert random == ["mobilenet weights=run, random weights"]


def test_several_data_sets_are_ranked(tlbench: Command, tmp_path: Path, photos: Path) -> None:
    words = ("backbone.image_size=32,16", "--out", "b")
    (tmp_path / "yaml" / "data").mkdir(parents=True)
    (tmp_path / "yaml" / "data" / "mine.yaml").write_text(
        f"defaults: [image_folder]\nroot: {photos}\ntest: 0.3\n"
    )
    answer = tlbench(
        *("bench", *FILE, "data=digits,mine", "data.limit=300", *SHORT[2:], *words),
        *("--config-dir", "yaml"),
    )
    assert answer.code == 0, answer.err
    assert "Mean rank:" in answer.out
    with (tmp_path / "b" / "bench.csv").open(newline="") as file:
        assert {line["data"] for line in csv.DictReader(file)} == {"digits", "photos"}
    winners = [line for line in answer.out.splitlines() if line.startswith("train it")]
    assert len(winners) == 2
    for number, line in enumerate(winners):  # each is trained on its own data
        done = tlbench(*shlex.split(line)[3:], f"hydra.run.dir=run{number}")
        assert done.code == 0, done.err
    sources = {Run.open(Path(f"run{i}")).config().data.source for i in range(2)}
    assert sources == {"digits", "image_folder"}


def test_folders_of_one_name_are_told_apart(tlbench: Command, tmp_path: Path, photos: Path) -> None:
    for place in ("mine/old", "mine/new", "yours/old"):
        shutil.copytree(photos, tmp_path / place / "photos")
    roots = ",".join(f"{place}/photos" for place in ("mine/old", "mine/new", "yours/old"))
    words = ("data=image_folder", f"data.root={roots}", "data.test=0.3", *SHORT[2:])
    answer = tlbench("bench", *FILE, *words, "--out", "b")
    assert answer.code == 0, answer.err
    with (tmp_path / "b" / "bench.csv").open(newline="") as file:
        rows = [line for line in csv.DictReader(file) if line["kind"] == "pretrained"]
    assert {row["data"] for row in rows} == {
        *("mine/old/photos", "new/photos", "yours/old/photos"),
    }
    assert {row["row"] for row in rows} == {"small"}


@pytest.mark.parametrize(
    ("places", "labels"),
    [
        (["a/photos", "a/photos"], ["photos", "photos"]),
        (["a/photos", "b/photos", "b/other"], ["a/photos", "b/photos", "other"]),
        ([None, "a/photos"], ["photos", "a/photos"]),
        (["photos", "photos/photos"], ["here/photos", "photos/photos"]),
    ],
)
def test_labels_are_no_longer_than_it_takes(places: list[str | None], labels: list[str]) -> None:
    paths = [None if place is None else Path("/here", place) for place in places]
    known = [(path.name if path else "photos", path) for path in paths]
    assert entries.apart(known) == labels


def test_images_count_by_their_weights(tlbench: Command, tmp_path: Path) -> None:
    """Labels that are wrong and count next to nothing hurt no probe but votes."""
    photos = tmp_path / "photos"
    photos.mkdir()
    table = [("path", "label", "split", "weight")]
    rng = np.random.default_rng(0)
    for i in range(160):
        red, wrong = i % 2 == 1, i < 90 and i % 6 < 3
        pixels = rng.integers(0, 100, (8, 8, 3))
        pixels[..., 0 if red else 2] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(photos / f"{i}.png")
        split = "train" if i < 100 else "validation" if i < 130 else "test"
        label = "red" if red != wrong else "blue"
        table.append((f"photos/{i}.png", label, split, "1e-6" if wrong else "1"))
    with Path("labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    words = (*FILE, "data=table", "data.table=labels.csv", "backbone.image_size=32", *SHORT[2:])
    found = {}
    for name, more in (("weighted", ()), ("alike", ("data.weight=null",))):
        answer = tlbench("bench", *words, *more, "--out", name)
        assert answer.code == 0, answer.err
        found[name] = lines(tmp_path / name)["small"]
    assert float(found["weighted"]["all"]) == 1.0
    assert float(found["weighted"]["k-NN"]) == float(found["alike"]["k-NN"]) < 1.0
    assert float(found["alike"]["5-shot"]) < float(found["weighted"]["5-shot"])


def test_a_folder_with_a_comma_is_one_folder(
    tlbench: Command, tmp_path: Path, photos: Path
) -> None:
    photos.rename(tmp_path / "my, 'odd' photos")
    words = ("data=image_folder", "data.root=my, 'odd' photos", "data.test=0.3", *SHORT[2:])
    answer = tlbench("bench", *FILE, "backbone.image_size=32", *words, "--out", "b")
    assert answer.code == 0, answer.err
    assert lines(tmp_path / "b")["small"]["data"] == "my, 'odd' photos"
    (command,) = (line for line in answer.out.splitlines() if line.startswith("train it"))
    assert tlbench(*shlex.split(command)[3:], "hydra.run.dir=run").code == 0


def test_no_time_is_no_row_and_says_so(tlbench: Command, tmp_path: Path) -> None:
    answer = tlbench("bench", *FILE, *SHORT, "--time", "0s", "--out", "b")
    assert answer.code == 1
    assert "left out: needs about" in lines(tmp_path / "b")["small"]["reason"]
    later = tlbench("bench", *FILE, *SHORT, "--time", "1h", "--out", "b")
    assert later.code == 0, later.err
    assert float(lines(tmp_path / "b")["small"]["all"]) > 0.5


def test_a_killed_bench_goes_on(tmp_path: Path) -> None:
    words = ("bench", *FILE, *SHORT, "--out", "b")
    process = processes.Command(*words)
    measured = tmp_path / "b" / "measured"
    until = time.monotonic() + 120
    while time.monotonic() < until and not (
        measured.is_dir() and list(measured.glob("[0-9a-f]*.npz"))
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.rest()
    kept = {path.name: path.read_bytes() for path in measured.glob("[0-9a-f]*.npz")}
    assert kept
    code, said = processes.Command(*words).rest()
    assert code == 0, said
    assert all((measured / name).read_bytes() == data for name, data in kept.items())
    assert "small on digits (pretrained)" not in said
    assert float(lines(tmp_path / "b")["small"]["all"]) > 0.5


def test_help_lists_the_settings_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.run(["--help"])
    text = capsys.readouterr().out
    for name in (field.name for field in fields(Settings)):
        assert re.search(rf"^  bench\.{name}=\S+\n      \w", text, re.M), name
    assert "  bench.shots=[1,5,10,25]\n      training images of each class" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_bar_shows_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True, raising=False)
    terminal = Console(file=shown, force_terminal=True, width=80, _environ={"TERM": "xterm"})
    monkeypatch.setattr(console, "err", terminal)
    with console.terminal("bench", 4000, console.SHARE) as advance:
        advance(178)
    assert re.search(r"bench .* 4 %", shown.getvalue())
    assert "4,000" not in shown.getvalue()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--time", "soon"], "--time soon is no time. Expected one such as 90s"),
        (["batch_size=1,2"], "'batch_size=1,2' has several values."),
        (["data=digits", "data.sampling=balanced"], "A bench draws as many images of each class"),
        (["head=exp", "data=digits"], "A bench solves heads of its own"),
        (["strategy=probe_finetune", "trainable=true", "data=digits"], "heads of its own"),
        (["bench.drwas=3"], "Did you mean 'draws'?"),
        (["bench.draws=1"], "bench.draws=1 is not valid. Expected at least 2."),
        (["bench.shares=[2.0]"], "Expected shares between 0 and 1"),
        (["backbone=mobilenet,no_such"], "no_such"),
        (["data=digits,image_folder"], "data.root"),
        (["--out", "."], "holds other things"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    tlbench: Command, tmp_path: Path, words: list[str], line: str
) -> None:
    (tmp_path / "something.txt").touch()
    answer = tlbench("bench", *words)
    assert answer.code == 2
    assert len(answer.error_lines) == 1
    assert line in answer.err
