"""Every benchmark runs at its tiny size, shows both sides, and has a place for its table."""

import os
import re
import subprocess
from pathlib import Path

import pytest

import processes

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
SIDES = {
    "frozen_head": ("plain Keras", "tlbench"),
    "head_sweep": ("plain Keras (extrapolated)", "tlbench, 1 at a time"),
    "full_training": ("plain Keras", "tlbench", "timm"),
    "limit": ("convolutions alone", "tlbench, images/s", "features", "training"),
    "backbones": ("raw pixels", "labels shuffled", "majority class"),
    "probing": ("tlbench", "scikit-learn"),
    "own_data": ("pictures at random", "other groups", "Flipped labels"),
    "many_pictures": ("bare Pillow loop", "tlbench, first start", "tlbench, second start"),
    "fine_tuning": ("plain Keras, all layers", "head only, by Adam", "recipe=auto"),
    "overhead": ("plain Keras, all layers", "tlbench train, all layers", "tab completion"),
}
TABLES = [*SIDES, "frozen_head_full", "head_sweep_full", "probing_full", "last_layers"]


def _run(name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    words = [processes.python(), str(FOLDER / f"{name}.py"), *flags]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"}
    return subprocess.run(words, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", SIDES)
def test_a_tiny_run_prints_a_table_with_both_sides(name: str) -> None:
    done = _run(name, "--tiny")
    assert done.returncode == 0, done.stderr
    for side in SIDES[name]:
        assert side in done.stdout
    header, rule, *rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) >= 2
    assert {row.count("|") for row in (header, rule, *rows)} == {header.count("|")}
    assert f"`python benchmarks/{name}.py --tiny`" in done.stdout


def test_the_last_layers_are_trained_on_either_side() -> None:
    done = _run("frozen_head", "--tiny", "--last-layers")
    assert done.returncode == 0, done.stderr
    assert "plain Keras" in done.stdout
    assert "`python benchmarks/frozen_head.py --tiny --last-layers`" in done.stdout


@pytest.mark.parametrize("name", SIDES)
def test_help_says_what_is_measured(name: str) -> None:
    done = _run(name, "--help")
    assert done.returncode == 0
    assert "--write" in done.stdout
    assert "two cores" in done.stdout  # how long it takes


def test_the_page_has_a_place_for_every_table() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    names = re.findall(r"<!-- ([^:]+):begin -->", page)
    assert len(names) == len(set(names))
    assert set(TABLES) <= set(names)
    for name in names:
        assert page.index(f"<!-- {name}:begin -->") < page.index(f"<!-- {name}:end -->")


def test_writing_replaces_what_stands_between_the_markers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import measure

    page = "a <!-- x:begin -->old<!-- x:end --> b"
    assert measure.fill(page, "x", "new") == "a <!-- x:begin -->new<!-- x:end --> b"
    with pytest.raises(SystemExit):
        measure.fill(page, "y", "new")


def test_a_slice_of_plain_keras_is_extrapolated_by_its_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import measure
    import work

    whole, measured = work.Sizes(1000, 100, 200), work.Sizes(90, 10, 20)
    todo = work.Work(work.NETWORKS["resnet50"], tmp_path, whole, measured, 5, 224)
    # 7 s of start-up and compilation, then 0.1 s an image in all epochs of 100 images but one, which
    # somebody else slowed down, and 20 images for the test; 1.5 cores were busy all the time.
    out = '{"epochs": [14.0, 10.0, 30.0, 10.0], "cpu": [21.0, 15.0, 15.0, 15.0]}\n'
    outcome = measure.Outcome(3 + 64.0 + 2.0, float("nan"), 1, out, 4.5 + 66.0 + 3.0)
    whole = todo._whole(outcome)
    assert whole.seconds == pytest.approx(7 + 0.1 * (5 * 1100 + 200))
    assert whole.cpu == pytest.approx(1.5 * whole.seconds)
