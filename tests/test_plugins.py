"""The four seams: a package that is installed adds to each of them, and a broken one is named and left out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import processes

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example package is installed into."""
    place = tmp_path_factory.mktemp("site")
    words = ["pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([sys.executable, "-m", *words, "--target", place, EXAMPLE], check=True)
    return place


def tlbench(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [processes.python(), "-m", "tlbench", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_package_adds_a_backbone_a_source_an_augmentation_and_a_tracker(
    installed: Path, tmp_path: Path
) -> None:
    settings = [
        *("backbone=mobilenet", "backbone.builder=tiny", "backbone.weights=null"),
        *("backbone.image_size=16", "backbone.arguments={filters:6}", "head=linear"),
        *("data.source=stripes", "data.class_names=null", "data.test=0.2", "data.image_size=null"),
        *("data.arguments={count:120}", "augment.turn=true", "tracker=jsonl"),
        *("tracker.name=text", "tracker.arguments={file:told.txt}", "learning_rate=0.02"),
        *("trainable=false", "epochs=8", "batch_size=16", "hydra.run.dir=run"),
    ]
    done = tlbench(installed, "train", *settings)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    assert json.loads((run / "metrics.json").read_text())["test_accuracy"] > 0.9
    assert (run / "told.txt").read_text().splitlines()[0] == "mobilenet"
    assert len((run / "told.txt").read_text().splitlines()) == 10
    features = json.loads((run / "manifest.json").read_text())["features"]
    assert features["images_computed"] + features["images_reused"] == 2 * 120  # two views of each
    assert "1,048" in (run / "summary.txt").read_text()  # parameters, with six filters for eight
    assert tlbench(installed, "evaluate", "run").returncode == 0


def test_what_is_installed_is_listed_with_its_package(installed: Path) -> None:
    done = tlbench(installed, "plugins")
    assert done.returncode == 0, done.stderr
    told = [line.split()[:3] for line in done.stdout.splitlines()]
    assert ["backbones", "tiny", "tlbench-example"] in told
    assert ["sources", "stripes", "tlbench-example"] in told
    assert ["augmentations", "turn", "tlbench-example"] in told
    assert ["trackers", "text", "tlbench-example"] in told
    assert ["augmentations", "flip", "tlbench"] in told


def test_a_broken_one_and_one_of_a_name_that_is_taken_are_left_out(tmp_path: Path) -> None:
    site = tmp_path / "site"
    about = site / "broken-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[tlbench.augmentations]\nfog = broken_module:fog\nflip = broken_module:flip\n"
    )
    (site / "broken_module.py").write_text("raise RuntimeError('of another\\nversion')\n")
    done = tlbench(site, "plugins")
    assert done.returncode == 1
    assert "left out augmentations 'fog' of broken: RuntimeError: of another version" in done.stderr
    assert "Plugin 'flip' of broken is left out: tlbench has one of that name" in done.stderr
    assert ["augmentations", "flip", "tlbench"] in [
        line.split()[:3] for line in done.stdout.splitlines()
    ]
    done = tlbench(site, "train", "data=digits", "backbone.weights=null", "augment.fog=1")
    assert done.returncode == 2
    *_, warning, error = done.stderr.splitlines()
    assert "Plugin 'fog' of broken cannot be loaded (RuntimeError: of another version)" in warning
    assert error.startswith("tlbench: error: Unknown augmentation 'fog'. Expected one of: blur")
