"""tlbench from Python: docs/python.md in a real notebook, and a host that is left as it was."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

import tlbench
from helpers import TINY
from tlbench.base import logs
from tlbench.base.muted import muted_stdout
from tlbench.runs.run import Run
from tlbench.training.callbacks import Keeper

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.S)
SMALL = [word for word in TINY if not word.startswith("data=")]


def shown(cell: nbformat.NotebookNode) -> str:
    return "\n".join(str(output.get("text", output.get("data"))) for output in cell.outputs)


def test_the_pages_examples_run_in_a_notebook(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(code) for code in EXAMPLES]
    last = "every"
    cells.append(nbformat.v4.new_code_cell(last))
    notebook = nbformat.v4.new_notebook(cells=cells)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    assert "train 2/2  loss" in shown(notebook.cells[0])
    assert "<progress" not in shown(notebook.cells[0])  # the bar is gone
    assert not any(
        "stderr" in output.get("name", "") for c in notebook.cells for output in c.outputs
    )
    assert "Did you mean 'resnet50'?" in shown(notebook.cells[-2])
    html = notebook.cells[-1].outputs[0]["data"]["text/html"]
    assert html.count("<tr>") == 1 + 2  # the seeds of one configuration are one row
    assert tlbench.load(tmp_path / "runs" / "own").class_names[0] == "digit 0"


HOST = """
import gc, logging, os, random, signal, sys, warnings
import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

# What TensorFlow, h5py and scikit-learn set while they are imported.
OF_LIBRARIES = {
    *("ENABLE_RUNTIME_UPTIME_TELEMETRY", "TF2_BEHAVIOR", "TPU_ML_PLATFORM", "TPU_ML_PLATFORM_VERSION"),
    *("HDF5_PLUGIN_PATH", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"),
}
logging.basicConfig(format="host: %(message)s")

def state():
    return {
        "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
        "collector": (gc.isenabled(), gc.get_threshold()),
        "streams": (sys.stdout, sys.stderr, sys.argv[:], os.getcwd()),
        "environment": {k: v for k, v in os.environ.items() if k not in OF_LIBRARIES},
        "logging": (logging.root.handlers[:], logging.root.level, logging.raiseExceptions),
        "own logger": (logging.getLogger("tlbench").level, logging.getLogger("tlbench").propagate),
        "random": (random.getstate(), np.random.get_state()[1].tobytes()),
        "warnings": warnings.filters[:],
        "hydra": GlobalHydra.instance().hydra,
    }

with initialize_config_dir(os.getcwd(), version_base="1.3"):
    before = state()
    import tlbench
    assert state() == before
    run = tlbench.train(*SETTINGS, folder="runs/a")
    tlbench.train(*SETTINGS, folder="runs/b")
    tlbench.load("runs/a").predict(np.zeros((2, 8, 8, 3)))
    tlbench.results("runs").table()
    assert tlbench.compare("runs/a", "runs/b").p == 1.0
    after = state()
for key, value in before.items():
    if key == "warnings":
        continue
    assert after[key] == value, f"{key} changed"
print("as it was")
"""


def test_a_host_is_left_as_it_was_and_is_told_nothing() -> None:
    code = f"SETTINGS = {list(TINY)!r}\n{HOST}"
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == "as it was\n", done.stderr[-2000:]
    assert done.stderr == ""


def test_two_trainings_in_threads_at_once_have_logs_of_their_own(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(name: str, epochs: int) -> None:
        try:
            tlbench.train(*TINY, f"epochs={epochs}", folder=tmp_path / name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in (("a", 1), ("b", 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for name, epochs in (("a", 1), ("b", 2)):
        said = (tmp_path / name / "train.log").read_text()
        assert said.count("train 1/") == 1
        assert f"train {epochs}/{epochs}" in said


def test_a_download_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    other = threading.Thread(target=lambda: print("another thread's"))
    with logs.heard_by(handler), muted_stdout():
        print("Downloading data from https://example.org/weights.h5")
        print("12/100 ====")
        other.start()
        other.join()
    print("a host's")
    assert capsys.readouterr().out == "another thread's\na host's\n"
    assert heard == ["Downloading data from https://example.org/weights.h5"]


def test_a_run_is_shown_in_one_line(digits_run: Path) -> None:
    run = Run.open(digits_run)
    accuracy = json.loads((digits_run / "metrics.json").read_text())["evaluation"]
    assert repr(run) == f"Run('{digits_run}', completed, test accuracy {accuracy:.4f})"
    with pytest.raises(tlbench.TlbenchError, match=re.escape("(from Python: folder=...)")):
        tlbench.train(*TINY, folder=digits_run)


def test_a_folder_stands_for_the_pictures_in_it(digits_run: Path, photos: Path) -> None:
    (photos / "grass" / "broken.png").write_bytes(b"no picture")
    (photos / "grass" / "notes.txt").write_text("left alone")
    model = tlbench.load(digits_run)
    found = model.predict(photos)
    paths = sorted(path for path in photos.rglob("*.*") if path.stem not in ("broken", "notes"))
    assert found.files == paths
    assert found.probabilities.shape == (24, 10)
    alone = model.predict([paths[0], np.zeros((8, 8, 3), np.uint8), str(photos / "grass")])
    assert alone.files[:2] == [paths[0], None]
    np.testing.assert_allclose(alone.probabilities[2:], found.probabilities[12:], atol=1e-6)
    with pytest.raises(tlbench.TlbenchError, match="not a readable image"):
        model.predict(photos / "grass" / "broken.png")
    (photos / "none").mkdir()
    with pytest.raises(tlbench.TlbenchError, match="none: a folder without images"):
        model.predict(photos / "none")


def test_own_images_are_arrays_or_paths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = ["dark", "light"] * 20
    pixels = rng.integers(0, 60, (40, 8, 8, 3)) + 190 * (np.arange(40) % 2)[:, None, None, None]
    run = tlbench.train(
        *SMALL, "learning_rate=0.02", images=pixels, labels=labels, folder=tmp_path / "arrays"
    )
    assert run.class_names == ["dark", "light"]
    assert sorted(run.predictions)[:3] == ["confidence", "p(dark)", "p(light)"]
    paths = []
    for i, image in enumerate(pixels.astype(np.uint8)):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    again = tlbench.train(*SMALL, images=paths, labels=labels, folder=tmp_path / "paths")
    assert again.manifest["data"]["images"] == run.manifest["data"]["images"]
    model = tlbench.load(again.folder)
    mixed = model.predict([paths[0], pixels[1]])
    assert len(mixed.names) == 2
    np.testing.assert_allclose(mixed.probabilities.sum(axis=1), 1, atol=1e-5)
    assert model.predict(paths[0]).names == mixed.names[:1]
    with pytest.raises(tlbench.TlbenchError, match="given in Python"):
        from tlbench.inference.evaluate import evaluate

        evaluate(run, [], every=False)


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (np.zeros((4, 8, 8, 3)), [0, 1, 0], "4 images and 3 labels"),
        (np.zeros((4, 8)), [0, 1, 0, 1], r"shape \(4, 8\)"),
        (np.random.default_rng(0).random((4, 8, 8, 3)), [0, 1, 0, 1], "Expected 0 to 255"),
        (np.full((4, 8, 8, 3), 300), [0, 1, 0, 1], "Expected 0 to 255"),
        (None, [0, 1], "Give both"),
    ],
)
def test_own_images_that_do_not_fit_are_refused(
    images: np.ndarray | None, labels: list[int], said: str
) -> None:
    with pytest.raises(tlbench.TlbenchError, match=said):
        tlbench.train(*SMALL, images=images, labels=labels)
    assert not Path("outputs").exists()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as a script hears it, whatever the tests are run by."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_saves_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Keeper.on_train_batch_end

    def stop(self: Keeper, batch: int, logs: Any = None) -> None:
        if len(self.state.history) == 1 and batch == 2:
            os.kill(os.getpid(), signal.SIGINT)
        own(self, batch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "on_train_batch_end", stop)
        with pytest.raises(tlbench.Interrupted):
            tlbench.train(*TINY, folder="run")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert tlbench.train("resume=run").status == "completed"
    assert "Going on after 1 epochs and 3 steps" in (tmp_path / "run" / "train.log").read_text()
