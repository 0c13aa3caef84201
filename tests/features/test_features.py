"""Frozen features: the same training as without them, in a precision that was earned, from a safe cache."""

import csv
import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import processes
from helpers import BACKBONE, MOBILENET, Answer, make_config
from tlbench.base import locks
from tlbench.base.errors import RunError
from tlbench.data.images import ArrayImages
from tlbench.features import engines, frozen, housekeeping, precisions, store
from tlbench.networks import classifiers
from tlbench.networks.hardware import Machine, keras, prepare, tf
from tlbench.runs.run import Run
from tlbench.training import inputs

Command = Callable[..., Answer]

CPU = Machine("cpu", "a processor", bfloat16=False, jit_compile=False)
FROZEN = (
    *("data=digits", "data.limit=300", *BACKBONE, "head.widths=[16]", "head.dropout=0.2"),
    *("epochs=2", "trainable=false", "learning_rate=0.01"),
)


def train(tlbench: Command, folder: str, *overrides: str) -> tuple[Run, str]:
    return trained(tlbench, folder, *FROZEN, *overrides)


def trained(tlbench: Command, folder: str, *words: str) -> tuple[Run, str]:
    answer = tlbench("train", *words, f"hydra.run.dir={folder}")
    assert answer.code == 0, answer.err
    return Run.open(Path(folder)), answer.err


def figures(run: Run) -> np.ndarray:
    """Loss and accuracy of each epoch, training and validation."""
    with (run.folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    return np.array([[float(row[name]) for name in names] for row in rows])


def probabilities(run: Run) -> np.ndarray:
    with np.load(run.folder / "predictions.npz", allow_pickle=False) as saved:
        return saved["probabilities"]


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_cached_training_equals_uncached(tlbench: Command, augment: str) -> None:
    chosen = (f"augment={augment}", "precision=float32", "features.precision=float32")
    plain, _ = train(tlbench, "plain", *chosen, "features.cache=false")
    for engine, tolerance in (("tensorflow", 1e-4), ("openvino", 1e-3)):
        if engine == "openvino":
            pytest.importorskip("openvino")
        cached, said = train(tlbench, engine, *chosen, f"features.engine={engine}")
        assert f"Frozen features by {engine}" in said
        np.testing.assert_allclose(figures(cached), figures(plain), atol=tolerance)
        np.testing.assert_allclose(probabilities(cached), probabilities(plain), atol=tolerance)
        assert cached.metrics.keys() == plain.metrics.keys()
    assert "features" not in plain.manifest


def test_the_saved_model_is_the_whole_classifier(tlbench: Command) -> None:
    run, _ = train(tlbench, "run")
    loaded = keras.models.load_model(run.folder / "model.keras", safe_mode=True)
    assert loaded.input_shape == (None, 8, 8, 3)
    assert loaded.count_params() == run.metrics["parameters"]


def test_another_head_seed_or_rate_reuses_the_features_another_backbone_never(
    tlbench: Command,
) -> None:
    computed = ("features.engine=tensorflow", "features.precision=float32")  # nothing is measured
    frozen = (*MOBILENET, "trainable=false", "epochs=1", *computed)
    first, _ = trained(tlbench, "first", *frozen)
    images = first.manifest["features"]["images_computed"]
    assert images == 375
    # A seed draws other random weights too, so those are taken from the first run.
    weights = "backbone.weights=first"
    for i, other in enumerate(
        (["head.widths=[8]", "learning_rate=0.1", "seed=4"], ["data.split_seed=3"])
    ):
        run, said = trained(tlbench, f"other{i}", *frozen, *other, weights)
        assert run.manifest["features"]["images_computed"] < images
        assert "came from the cache" in said
    again, _ = trained(tlbench, "again", *frozen, "seed=1")
    assert again.manifest["features"]["images_computed"] == images


def test_the_listing_and_emptying_of_the_cache(tlbench: Command) -> None:
    assert "empty" in tlbench("cache").out
    train(tlbench, "run")
    listed = tlbench("cache")
    assert listed.code == 0
    assert re.search(r"small +digits .* 375 ", listed.out)
    assert tlbench("cache", "--prune", "1").code == 0
    assert " 375 " in tlbench("cache").out
    assert tlbench("cache", "--clear").code == 0
    assert "empty" in tlbench("cache").out
    run, _ = train(tlbench, "again")
    assert run.manifest["features"]["images_computed"] == 375


# ---------------------------------------------------------------- the store


def table(count: int = 10, seed: int = 0) -> ArrayImages:
    return ArrayImages.of(np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3), np.uint8))


def entry_of(tmp_path: Path, **recipe: Any) -> store.Store:
    return store.Store(tmp_path / "store", recipe, width=3, about={"features": 3})


class Means:
    """An engine whose features are the mean of each channel; counts what it was asked for."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self) -> store.Compute:
        def run(batches: Any) -> Any:
            for batch in batches:
                self.images += len(batch)
                yield batch.mean(axis=(1, 2)).astype(np.float32)

        return run


def get(entry: store.Store, images: ArrayImages, rows: np.ndarray, compute: Means) -> np.ndarray:
    found, _ = entry.get(images, rows, compute=compute, batch_size=4, memory_limit_bytes=1e9)
    return found


def test_each_image_is_computed_once_whatever_its_place(tmp_path: Path) -> None:
    images, engine = table(), Means()
    expected = images.pixels.mean(axis=(1, 2))
    np.testing.assert_allclose(get(entry_of(tmp_path), images, np.arange(4), engine), expected[:4])
    assert engine.images == 4
    np.testing.assert_allclose(get(entry_of(tmp_path), images, np.arange(10), engine), expected)
    assert engine.images == 4 + 8  # six in two batches of four, padded
    moved = ArrayImages.of(images.pixels[::-1])
    np.testing.assert_allclose(
        get(entry_of(tmp_path), moved, np.arange(10), engine), expected[::-1]
    )
    assert engine.images == 12
    get(entry_of(tmp_path, weights="other"), images, np.arange(4), engine)
    assert engine.images == 16


def test_equal_images_are_computed_once(tmp_path: Path) -> None:
    same = ArrayImages.of(np.zeros((9, 2, 2, 3), np.uint8))
    engine = Means()
    assert get(entry_of(tmp_path), same, np.arange(9), engine).shape == (9, 3)
    assert engine.images == 4


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "text"])
def test_a_damaged_block_is_computed_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    images, engine = table(), Means()
    before = get(entry_of(tmp_path), images, np.arange(10), engine)
    (block,) = entry_of(tmp_path).folder.glob("*.npy")
    content = bytearray(block.read_bytes())
    content[-5] ^= 1
    block.write_bytes(
        {"flip": bytes(content), "truncate": bytes(content[:-9]), "empty": b"", "text": b"hi"}[
            damage
        ]
    )
    with caplog.at_level("WARNING", logger="tlbench"):
        np.testing.assert_array_equal(
            get(entry_of(tmp_path), images, np.arange(10), engine), before
        )
    assert engine.images == 24
    assert "damaged" in caplog.text


def test_features_that_do_not_fit_in_memory_are_mapped(tmp_path: Path) -> None:
    images, engine = table(), Means()
    found, _ = entry_of(tmp_path).get(
        images, np.arange(10), compute=engine, batch_size=4, memory_limit_bytes=0
    )
    assert isinstance(found, np.memmap)
    np.testing.assert_allclose(found, images.pixels.mean(axis=(1, 2)))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_features_lie_in_memory_once() -> None:
    """Where operations are deterministic, tf.data copies every tensor that a pipeline reads from."""

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    prepare("cpu", seed=0)
    table = np.repeat(np.arange(50_000, dtype=np.float32)[:, None], 1024, axis=1)
    before = resident_bytes()
    rows = tf.data.Dataset.range(64).batch(8)
    read = list(inputs._read_ahead(rows, inputs._lookup(table)))
    assert resident_bytes() - before < table.nbytes / 2
    np.testing.assert_array_equal(np.concatenate(read), table[:64])


def test_the_least_recently_used_goes_first_and_what_is_in_use_stays(tmp_path: Path) -> None:
    root = tmp_path / "store"
    for i in range(3):
        get(entry_of(tmp_path, number=i), table(), np.arange(10), Means())
        os.utime(entry_of(tmp_path, number=i).folder / "about.json", (i, i))

    def numbers() -> list[int]:
        return [entry.about["recipe"]["number"] for entry in housekeeping.entries(root)]

    housekeeping.prune(root, 2 * housekeeping.entries(root)[0].size)
    assert numbers() == [2, 1]
    with locks.held(entry_of(tmp_path, number=1).folder.with_suffix(store.LOCK), wait=False):
        emptied = housekeeping.prune(root, 0)
    assert [line.rpartition(": ")[2] for line in emptied.left] == ["in use"]
    assert numbers() == [1]


def test_only_what_is_the_caches_own_is_ever_removed(
    tlbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of somebody's that was taken for a cache, with entries in it."""
    root = tmp_path / "store"
    for number in (1, 2):
        get(entry_of(tmp_path, number=number), table(), np.arange(10), Means())
    facts = store.remembered(root, {"a": 1}, lambda: {"noise": 0.5})
    crashed = entry_of(tmp_path, number=3).folder
    crashed.mkdir()
    (crashed / "lock").touch()
    (
        entry_of(tmp_path, number=1).folder / ".tmp-0123abcd.npy"
    ).touch()  # of a write that was killed
    precious = [
        root / "package.json",
        root / f"{'0' * 24}.json",  # of such a name, but not what the name says
        root / "project" / "about.json",
        root / f"{'1' * 24}" / "thesis.npy",
        entry_of(tmp_path, number=2).folder / "notes.txt",
        root / f"{'3' * 24}" / "about.json",
        root / f"{'4' * 24}" / f"{'5' * 32}.npy",
        root / f".{'6' * 24}-backup" / "letters",
        root / f".{'6' * 24}-old.json",
        root / f"{'7' * 24}.lock",
    ]
    for path in precious:
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"recipe": {}, "facts": {}, "name": "mine"}')
    (root / f"{'2' * 24}").symlink_to(root / "project")
    (root / f"{'8' * 24}.lock").symlink_to(tmp_path / "made by nobody")
    (root / f".{'9' * 24}-abc").mkdir()  # of a removal that a crash cut off
    answer = tlbench("cache", "--folder", str(root), "--clear")
    assert answer.code == 0
    assert all(path.exists() for path in precious)
    assert "removed 2 entries" in answer.out
    assert not entry_of(tmp_path, number=1).folder.exists()
    assert not crashed.exists()
    assert facts == {"noise": 0.5}
    assert store.remembered(root, {"a": 1}, lambda: {"noise": 0.7}) == {"noise": 0.7}
    assert (root / f"{'8' * 24}.lock").is_symlink()
    assert not (tmp_path / "made by nobody").exists()
    assert not (root / f".{'9' * 24}-abc").exists()
    left = " ".join(answer.err.split())
    for name in (
        "not the cache's own: ",
        "holds 'notes.txt'",
        "holds 'thesis.npy'",
    ):
        assert name in left
    monkeypatch.chdir(root)
    assert tlbench("cache", "--folder", ".", "--prune", "0").code == 0
    assert all(path.exists() for path in precious)


@pytest.mark.parametrize(
    "about",
    [
        "{}",
        "[]",
        "null",
        '{"features": "many"}',
        "{" * 99_999,
        "\xff",
    ],
)
def test_an_entry_that_cannot_be_read_is_one_bad_row(
    tlbench: Command, tmp_path: Path, about: str
) -> None:
    for number in (1, 2):
        get(entry_of(tmp_path, number=number), table(), np.arange(10), Means())
    (entry_of(tmp_path, number=1).folder / "about.json").write_text(about, encoding="latin-1")
    answer = tlbench("cache", "--folder", str(tmp_path / "store"))
    assert answer.code == 0
    assert answer.out.count("unreadable") == 1
    assert answer.out.count(" 10 ") == 1  # images of the other one
    assert "removed 2 entries" in tlbench("cache", "--folder", "store", "--clear").out


def test_what_an_entry_says_of_itself_need_not_be_text(tlbench: Command, tmp_path: Path) -> None:
    folder = entry_of(tmp_path, number=1).folder
    folder.mkdir(parents=True)
    (folder / "about.json").write_text(
        '{"features": 3, "engine": 1, "data": [], "weights": {"a": 2}}'
    )
    assert tlbench("cache", "--folder", "store").code == 0


def test_a_block_that_begins_as_an_archive_is_damaged(tmp_path: Path) -> None:
    images = table()
    before = get(entry_of(tmp_path), images, np.arange(10), Means())
    (block,) = entry_of(tmp_path).folder.glob("*.npy")
    block.write_bytes(b"PK\x03\x04" + block.read_bytes()[4:])
    np.testing.assert_array_equal(get(entry_of(tmp_path), images, np.arange(10), Means()), before)


def test_a_disk_that_loses_what_is_written_is_never_served_as_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, images = entry_of(tmp_path), table()
    whole = np.save

    def losing(path: Path, block: np.ndarray, **options: Any) -> None:
        whole(path, np.zeros_like(block), **options)

    monkeypatch.setattr(np, "save", losing)
    with pytest.raises(RunError, match="the features of 10 images are lost"):
        get(entry, images, np.arange(10), Means())


def test_an_interruption_keeps_what_is_computed(tmp_path: Path) -> None:
    images, engine = table(), Means()

    def compute() -> store.Compute:
        run = engine()

        def interrupted(batches: Any) -> Any:
            for i, found in enumerate(run(batches)):
                if i == 2:
                    raise KeyboardInterrupt
                yield found

        return interrupted

    with pytest.raises(KeyboardInterrupt):
        entry_of(tmp_path).get(
            images, np.arange(10), compute=compute, batch_size=4, memory_limit_bytes=1e9
        )
    assert engine.images == 12  # the third batch of four was computed and not handed over
    get(entry_of(tmp_path), images, np.arange(10), engine)
    assert engine.images == 12 + 4  # two rows were missing: one padded batch


@pytest.mark.parametrize("memory_limit", [1e9, 0.0])
def test_a_complete_cache_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_limit: float
) -> None:
    """Nor do features have to fit in memory there."""
    images, root = table(), tmp_path / "store"
    before = get(entry_of(tmp_path), images, np.arange(10), Means())
    os_open = os.open

    def read_only(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and Path(os.fsdecode(path)).is_relative_to(root):
            raise OSError(errno.EROFS, "Read-only file system", path)
        return os_open(path, flags, *rest, **options)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only)
    for name in ("mkdir", "touch", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    engine = Means()
    found, computed = entry_of(tmp_path).get(
        images,
        np.arange(10),
        compute=engine,
        batch_size=4,
        memory_limit_bytes=memory_limit,
    )
    np.testing.assert_array_equal(found, before)
    assert computed == engine.images == 0
    assert isinstance(found, np.memmap) is (memory_limit == 0)
    assert store.remembered(root, {"a": 1}, lambda: {"noise": 0.5}) == {"noise": 0.5}


def test_a_removal_that_goes_on_elsewhere_is_left_alone(tmp_path: Path) -> None:
    """It empties its folder while we look, and is neither a stranger's nor ours to finish."""
    get(entry_of(tmp_path), table(), np.arange(10), Means())
    entry = entry_of(tmp_path).folder
    aside = entry.with_name(f".{entry.name}-0123")
    aside.mkdir()
    entry.rename(aside / "entry")
    with locks.held(entry.with_suffix(store.LOCK), wait=False):
        found = housekeeping.clear(tmp_path / "store")
        assert aside.is_dir()
    assert found.left == []
    housekeeping.clear(tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def test_an_entry_says_again_what_it_is_of(tlbench: Command, tmp_path: Path) -> None:
    """Or one damaged file would leave it unreadable in every list to come."""
    get(entry_of(tmp_path), table(), np.arange(10), Means())
    (entry_of(tmp_path).folder / "about.json").write_text("{}")
    get(entry_of(tmp_path), table(), np.arange(10), Means())
    assert "unreadable" not in tlbench("cache", "--folder", "store").out


def test_a_folder_of_somebody_elses_files_is_one_line(tlbench: Command, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"letter {number:02}.txt").touch()
    answer = tlbench("cache", "--folder", str(tmp_path), "--clear")
    assert "not the cache's own: 30, such as letter 00.txt" in answer.err
    assert len(answer.error_lines) == 1


def test_a_file_system_without_locks_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert get(entry_of(tmp_path), table(), np.arange(10), Means()).shape == (10, 3)
    assert "has no locks (No locks available)" in caplog.text


STRESS = """
import sys
from pathlib import Path
import numpy as np
from tlbench.features import housekeeping, store
from tlbench.data.images import ArrayImages
root, seed = Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(seed)
pixels = np.random.default_rng(0).integers(0, 256, (24, 2, 2, 3), np.uint8)
images = ArrayImages.of(pixels)
def compute():
    return lambda batches: (batch.mean(axis=(1, 2)).astype(np.float32) for batch in batches)
for turn in range(60):
    entry = store.Store(root, {"number": int(rng.integers(3))}, 3, {"features": 3})
    found, _ = entry.get(
        images, np.arange(24), compute=compute, batch_size=4, memory_limit_bytes=1e9 * (turn % 2)
    )
    np.testing.assert_allclose(found, pixels.mean(axis=(1, 2)))
    if turn % 3 == 0:
        housekeeping.prune(root, 500)
    if turn % 7 == 0:
        housekeeping.clear(root)
"""


def test_getting_pruning_and_clearing_at_once(tmp_path: Path) -> None:
    words = [[processes.python(), "-c", STRESS, str(tmp_path / "store"), str(i)] for i in range(4)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    for process in [subprocess.Popen(command, **pipes) for command in words]:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    housekeeping.clear(tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []  # no lock, no temporary is left


WORKER = """
import sys, time
from pathlib import Path
import numpy as np
from tlbench.features import store
from tlbench.data.images import ArrayImages
store.BLOCK_ROWS = 8
pixels = np.random.default_rng(0).integers(0, 256, (64, 2, 2, 3), np.uint8)
def compute():
    def run(batches):
        for batch in batches:
            time.sleep(float(sys.argv[2]))
            yield batch.mean(axis=(1, 2)).astype(np.float32)
    return run
entry = store.Store(Path(sys.argv[1]), {}, 3, {"features": 3})
found, computed = entry.get(
    ArrayImages.of(pixels), np.arange(64), compute=compute, batch_size=4, memory_limit_bytes=1e9
)
np.testing.assert_allclose(found, pixels.mean(axis=(1, 2)))
print(computed)
"""


def worker(root: Path, pause: float) -> subprocess.Popen[str]:
    words = [processes.python(), "-c", WORKER, str(root), str(pause)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_computation_goes_on_where_it_was(tmp_path: Path) -> None:
    first = worker(tmp_path, 0.1)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("*/[!.]*.npy")) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    out, err = worker(tmp_path, 0).communicate()
    assert 0 < int(out) < 64, err


def test_processes_that_want_the_same_features_compute_them_once(tmp_path: Path) -> None:
    both = [worker(tmp_path, 0.05) for _ in range(2)]
    computed = sorted(int(process.communicate()[0]) for process in both)
    assert computed == [0, 64]


def test_a_full_disk_is_one_line() -> None:
    """A limit on the size of files fails as a full disk does, and needs no disk."""
    words = ["train", *FROZEN, "hydra.run.dir=run"]
    words += ["features.engine=tensorflow"]  # OpenVINO reads the network from a file of its own
    code, said = processes.Command(*words, limits={"RLIMIT_FSIZE": 50_000}).rest()
    assert code == 2
    last = said.strip().splitlines()[-1]
    assert "features.folder=" in last
    assert "cannot be written" in last
    assert "Traceback" not in said
    assert not list(Path("cache").rglob("*.npy"))


# ---------------------------------------------------------------- precision


def network(offset: float) -> keras.Model:
    """Features whose variance is small beside their size when the offset is large."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Conv2D(16, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, keras.layers.Rescaling(1.0, offset)(x))


@pytest.mark.parametrize(("offset", "passes"), [(0.0, True), (100.0, False)])
def test_a_lower_precision_is_accepted_or_refused_by_its_noise(offset: float, passes: bool) -> None:
    rng = np.random.default_rng(0)
    images = ArrayImages.of(rng.integers(0, 256, (64, 8, 8, 3), np.uint8))
    found = precisions.measure(
        network(offset), "tensorflow", ["bfloat16"], CPU, images, np.arange(64), 32
    )
    assert (found["bfloat16"]["noise"] <= 0.01) is passes


def test_noise_is_relative_to_the_variance_between_images() -> None:
    exact = np.random.default_rng(0).normal(50, 2, (1000, 4)).astype(np.float32)
    exact[:, 3] = 7  # carries nothing
    assert precisions.noise(exact, exact) == 0
    assert precisions.noise(exact, exact + 0.2) == pytest.approx(0.01, rel=0.1)


def test_an_explicit_precision_is_obeyed_and_measured(tlbench: Command) -> None:
    chosen = ("features.precision=bfloat16", "features.engine=tensorflow")
    run, said = train(tlbench, "run", *chosen)
    facts = json.loads((run.folder / "manifest.json").read_text())["features"]
    assert facts["precision"] == "bfloat16"
    assert facts["measured"]["bfloat16"]["noise"] > 0
    assert "Measuring what bfloat16 costs" in said
    again, said = train(tlbench, "again", *chosen, "head.widths=[8]")
    assert "Measuring" not in said
    assert again.manifest["features"]["measured"] == facts["measured"]
    (kept,) = (
        path for path in Path("cache").rglob("features/*.json") if "noise" in path.read_text()
    )
    kept.write_text(kept.read_text().replace('"noise": 0', '"noise": 9'))
    assert "Measuring" in train(tlbench, "third", *chosen)[1]
    assert tlbench("cache", "--clear").code == 0
    assert not list(Path("cache").rglob("*.*"))


def test_a_processor_without_lower_precisions_uses_float32() -> None:
    assert engines.lower_precisions("tensorflow", CPU) == []


def test_an_engine_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert engines.choose("auto", CPU) == (
        "tensorflow",
        "openvino, which is faster, is not installed",
    )
    with pytest.raises(Exception, match=r"tlbench\[openvino\]"):
        engines.choose("openvino", CPU)


# ---------------------------------------------------------------- the key


def features_network(*overrides: str) -> keras.Model:
    words = ("data=digits", "backbone=mobilenet", "backbone.arguments.alpha=0.25")
    cfg = make_config(*words, "backbone.weights=null", "backbone.image_size=36", *overrides)
    return classifiers.build(cfg, (8, 8, 3), 10).features


def test_the_key_covers_the_graph_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever changes features, be it code of ours, gives another key; names and heads do not."""
    first = engines.fingerprint(features_network())
    assert engines.fingerprint(features_network("head.widths=[7]", "trainable=false")) == first
    for other in (
        *("seed=1", "backbone.preprocessing.std=[1,1,1]", "backbone.image_size=40"),
        "backbone.interpolation=bicubic",
    ):
        assert engines.fingerprint(features_network(other)) != first
    enlarge = keras.layers.Resizing(36, 36, interpolation="nearest", name="resizing")
    monkeypatch.setattr(classifiers, "_enlarge", lambda pixels, _: enlarge(pixels))
    assert engines.fingerprint(features_network()) != first


@pytest.mark.parametrize("engine", engines.NAMES)
def test_an_engine_resizes_arrays_bicubically_as_the_network_does(engine: str) -> None:
    cfg = make_config(*FROZEN, "backbone.interpolation=bicubic")
    network = classifiers.build(cfg, (8, 8, 3), 10).features
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    (found,) = list(engines.build(engine, network, "float32", CPU, 4).run(iter([pixels])))
    np.testing.assert_allclose(found, network.predict(pixels, verbose=0), atol=1e-4)


def test_the_key_covers_decoding_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    network = features_network()

    def key(decoding: str = "crop to 8, decoding 2, Pillow 13") -> dict[str, Any]:
        return frozen._recipe(engines.fingerprint(network), "tensorflow", CPU, decoding)

    assert key() == key()
    assert key("crop to 8, decoding 2, Pillow 14") != key()
    before = key()
    monkeypatch.setattr(frozen, "version", lambda _: "another")
    assert key() != before
