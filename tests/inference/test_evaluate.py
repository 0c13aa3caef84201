"""evaluate: the record repeated, other data, what is measured, and folders that are no finished run."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from helpers import TINY, Answer
from tlbench.base.errors import ConfigError
from tlbench.cli import main
from tlbench.networks.hardware import keras
from tlbench.runs import metrics
from tlbench.runs.recording import Recording
from tlbench.runs.run import Run


def edit_manifest(folder: Path, **changes: object) -> None:
    Recording.open(folder).record(**changes)


def seal(folder: Path) -> None:
    """Make what a test put into a run's folder the run's own: its checksums are recorded."""
    Recording.open(folder).complete()


@pytest.fixture(scope="module")
def other_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as PNG files, 12 a class, a folder each."""
    from sklearn.datasets import load_digits

    root, digits = tmp_path_factory.mktemp("pictures"), load_digits()
    for digit in range(10):
        (root / str(digit)).mkdir()
        for i in np.flatnonzero(digits.target == digit)[:12]:
            gray = np.rint(digits.images[i] * (255 / 16)).astype(np.uint8)
            Image.fromarray(gray).save(root / str(digit) / f"{i}.png")
    return root


def test_repeats_the_record(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    above = 'data.superclasses={even: ["0","2","4","6","8"], odd: ["1","3","5","7","9"]}'
    assert main.main(["evaluate", str(run_copy), above]) == 0
    out = capsys.readouterr().out
    assert "equals the record" in out
    entry = Run.open(run_copy).metrics["per_class"]["3"]
    right = round(entry["recall"] * entry["images"])
    surely = binomtest(right, entry["images"]).proportion_ci(method="wilson")
    low, high = (f"{bound:.3f}".removeprefix("0") for bound in (surely.low, surely.high))
    assert re.search(rf"^3 .* {entry['recall']:.4f} +{low}-{high} +{entry['images']}$", out, re.M)
    assert "balanced accuracy" not in out  # classes of one size
    for words in ("accuracy", "top 5", "macro F1", "calibration error", "superclass accuracy"):
        assert words in out
    found = json.loads((run_copy / "evaluation" / "evaluation.json").read_text())
    entry = found["per_class"]["3"]
    assert entry["recall_interval"] == pytest.approx([surely.low, surely.high], abs=1e-6)
    recorded = json.loads((run_copy / "metrics.json").read_text())
    for name in ("evaluation", "macro_f1", "top5_accuracy", "test_images"):
        assert found[name] == pytest.approx(recorded[name], abs=1e-6)
    assert found["superclass_accuracy"] > found["evaluation"] > 0.5
    assert found["record"]["equal"] is True
    assert np.sum(found["confusion"]) == found["test_images"]
    mistakes = sum(pair["images"] for pair in found["most_confused"])
    assert mistakes == round((1 - found["evaluation"]) * found["test_images"])
    for name in ("confusion_matrix", "reliability", "mistakes"):
        with Image.open(run_copy / "evaluation" / f"{name}.png") as picture:
            assert picture.width > 300


def test_says_when_the_record_is_not_repeated(
    run_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(run_copy / "predictions.npz") as saved:
        labels, probabilities = saved["labels"], saved["probabilities"]
    rolled = np.roll(probabilities, 1, axis=1)
    np.savez(run_copy / "predictions.npz", labels=labels, probabilities=rolled)
    seal(run_copy)
    assert main.main(["evaluate", str(run_copy)]) == 1
    assert "differs from the record" in capsys.readouterr().out


def test_never_unpickles(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = np.array([object()], dtype=object)
    np.savez(run_copy / "predictions.npz", labels=objects, probabilities=objects)
    seal(run_copy)
    assert main.main(["evaluate", str(run_copy)]) == 2
    assert "predictions.npz is damaged" in capsys.readouterr().err


def evaluated(run: Path, root: Path) -> dict[str, Any]:
    """What the last evaluation of pictures from a folder found."""
    written = (run / "evaluation").glob(f"image_folder_{root.name}_*/evaluation.json")
    return json.loads(max(written, key=lambda path: path.stat().st_mtime_ns).read_text())


def test_a_folder_that_has_grown(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = (*TINY, "data=image_folder", f"data.root={photos}", "data.test=6")
    assert main.main(["train", *tiny, "data.limit=null", "epochs=1", "hydra.run.dir=run"]) == 0
    recorded = Run.open(Path("run")).metrics
    assert recorded["test_images_trained_on"] == 0
    rng = np.random.default_rng(1)
    for i in range(10):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / "grass" / f"new{i}.png")
    moved = photos.rename(tmp_path / "moved")
    for words in ([f"data.root={moved}"], [f"data.root={moved}", "data.split_seed=7"]):
        capsys.readouterr()
        assert main.main(["evaluate", "run", *words]) == 0
        assert "equals the record" in capsys.readouterr().out
    # All of them: 24 old pictures, of which 16 were trained on (6 tested, 2 validated), and 10 new ones.
    assert main.main(["evaluate", "run", f"data.root={moved}", "--all"]) == 0
    found = evaluated(Path("run"), moved)
    assert (found["test_images"], found["test_images_trained_on"]) == (34, 16)
    assert "without the 16 of 34 that were trained on" in " ".join(capsys.readouterr().out.split())
    with np.load("run/images.npz") as ids:
        assert {name: len(ids[name]) for name in ids.files} == {
            **{"train": 16, "validation": 2, "test": 6}
        }
    # Some of the classes will do, and another folder has a record of its own.
    (tmp_path / "some").mkdir()
    (moved / "grass").rename(tmp_path / "some" / "grass")
    assert main.main(["evaluate", "run", f"data.root={tmp_path / 'some'}", "--all"]) == 0
    assert evaluated(Path("run"), tmp_path / "some")["test_images"] == 22
    assert evaluated(Path("run"), moved)["test_images"] == 34


def test_a_test_folder_that_repeats_training_pictures_is_told(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("blue sky", "grass"):
        for part, files in (("train", slice(0, 12)), ("test", slice(9, 12))):
            (photos / part / name).mkdir(parents=True)
            for file in sorted((photos / name).glob("*"))[files]:
                shutil.copy(file, photos / part / name)
        unseen = photos / "test" / name / "unseen.png"
        Image.new("RGB", (40, 40), "blue" if name == "blue sky" else "green").save(unseen)
        shutil.rmtree(photos / name)
    tiny = (*TINY, "data=image_folder", f"data.root={photos}", "data.validation=2")
    assert main.main(["train", *tiny, "data.limit=null", "epochs=1", "hydra.run.dir=run"]) == 0
    said = capsys.readouterr()
    with np.load("run/images.npz") as ids:
        count = int(np.isin(ids["test"], ids["train"]).sum())
    assert 4 <= count <= 6  # of the 6 that are in both folders, what validation did not take
    assert f"{count} of 8 test images are training images too" in said.err
    metrics, run = Run.open(Path("run")).metrics, Run.open(Path("run"))
    assert metrics["test_images_trained_on"] == count
    with np.load("run/predictions.npz") as saved, np.load("run/images.npz") as ids:
        right = saved["probabilities"].argmax(axis=1) == saved["labels"]
        unseen_ones = ~np.isin(ids["test"], ids["train"])
    assert metrics["unseen_accuracy"] == pytest.approx(right[unseen_ones].mean())
    assert f"without the {count} of 8" in " ".join(said.out.split())
    assert run.manifest["data"]["images"] == {"train": 22, "validation": 2, "test": 8}


def test_other_data_of_the_same_classes(run_copy: Path, other_digits: Path) -> None:
    words = ["data=image_folder", f"data.root={other_digits}", "--all"]
    assert main.main(["evaluate", str(run_copy), *words]) == 0
    found = evaluated(run_copy, other_digits)
    assert found["test_images"] == 120
    assert found["evaluation"] > 0.5  # the model was trained on images like these
    assert found["record"]["equal"] is None
    assert not (run_copy / "evaluation" / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=cifar10"], "missing '0', '1'"),
        (["data=cifar10"], "unknown to the run 'airplane'"),
        (["data=digit"], "Did you mean 'digits'?"),
        (["data.lmit=3"], "Did you mean 'limit'?"),
        (["data.limit=many"], "Expected a whole number"),
        (["epochs=3"], "Expected data=NAME or data.KEY=VALUE"),
        (["--nonsense"], "tlbench evaluate --help"),
    ],
)
def test_words_that_do_not_fit(
    run_copy: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["evaluate", str(run_copy), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (run_copy / "evaluation").exists()


def swap(path: Path, old: bytes, new: bytes) -> None:
    """A change that leaves a file well-formed: only a checksum can tell."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def remove_model(folder: Path) -> None:
    (folder / "model.keras").unlink()


def truncate_model(folder: Path) -> None:
    path = folder / "model.keras"
    content = path.read_bytes()[:1000]
    path.unlink()
    path.write_bytes(content)


def unrecorded_text_as_model(folder: Path) -> None:
    remove_model(folder)
    (folder / "model.keras").write_text("not a model")
    seal(folder)


def model_that_runs_code(folder: Path) -> None:
    """A Lambda layer: Python that would run when the model is loaded without safe mode."""
    from tlbench.networks.hardware import keras

    pixels = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(pixels))
    model = keras.Model(pixels, keras.layers.Lambda(lambda x: x * 2)(outputs))
    remove_model(folder)
    model.save(folder / "model.keras")
    seal(folder)


def model_of_other_classes(folder: Path) -> None:
    from tlbench.networks.hardware import keras

    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, keras.layers.Dense(3)(keras.layers.Flatten()(pixels)))
    remove_model(folder)
    model.save(folder / "model.keras")
    seal(folder)


def model_that_names_a_command(folder: Path) -> None:
    """An archive whose configuration asks for a function of Python's own to be called."""
    remove_model(folder)
    call = {"module": "os", "class_name": "system", "config": {"command": "touch called"}}
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(call))
        archive.writestr("model.weights.h5", b"")
    seal(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "is no run"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda f: edit_manifest(f, status="running"), "was killed. Go on with: tlbench"),
        (
            lambda f: edit_manifest(f, status="interrupted", reason="Ctrl-C"),
            "was interrupted. Go on with: tlbench train resume=",
        ),
        (lambda f: edit_manifest(f, status="failed", reason="no space"), "failed"),
        (lambda f: edit_manifest(f, status="failed", reason="no space"), "no space"),
        (lambda f: edit_manifest(f, format=99), "newer tlbench"),
        (lambda f: edit_manifest(f, data={}), "no class names"),
        (lambda f: (f / "config.yaml").unlink(), "no config.yaml"),
        (lambda f: (f / "config.yaml").write_text("a: [b"), "config.yaml is damaged"),
        (lambda f: (f / "config.yaml").write_bytes(b"\xff\xfe\x00"), "config.yaml is damaged"),
        (remove_model, "has no model.keras"),
        (truncate_model, "model.keras is damaged: it is not what the run wrote"),
        (unrecorded_text_as_model, "cannot be loaded as a Keras model"),
        (model_that_runs_code, "cannot be loaded as a Keras model"),
        (model_that_names_a_command, "cannot be loaded as a Keras model"),
        (model_of_other_classes, "Expected square RGB images to 10 classes"),
        (lambda f: (f / "predictions.npz").unlink(), "no predictions.npz"),
        (lambda f: (f / "metrics.json").write_text("{"), "metrics.json is damaged"),
        (lambda f: swap(f / "metrics.json", b"0.9", b"0.8"), "metrics.json is damaged"),
        (lambda f: swap(f / "manifest.json", b"digits", b"digitz"), "manifest.json is damaged"),
        (lambda f: swap(f / "config.yaml", b"seed: 0", b"seed: 1"), "config.yaml is damaged"),
    ],
)
def test_folders_that_cannot_be_evaluated(
    run_copy: Path, damage: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(damage)
    damage(run_copy)
    capsys.readouterr()
    assert main.main(["evaluate", str(run_copy)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("tlbench: error: ")
    assert message in last
    assert len(last) < 400
    assert not (run_copy / "evaluation").exists()


@pytest.mark.parametrize("blocked", ["link", "file"])
def test_an_evaluation_that_cannot_be_written_is_shown(
    run_copy: Path, tmp_path: Path, blocked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run on a disk that cannot be written, or with a link out of its folder."""
    (tmp_path / "precious").mkdir()
    if blocked == "link":
        (run_copy / "evaluation").symlink_to(tmp_path / "precious")
    else:
        (run_copy / "evaluation").touch()  # as root may write everywhere
    assert main.main(["evaluate", str(run_copy)]) == 1
    said = capsys.readouterr()
    assert "equals the record" in said.out
    assert "cannot be written" in said.err
    assert "figures only" in said.err
    assert list((tmp_path / "precious").iterdir()) == []


def test_a_model_of_no_numbers_is_one_line(run_copy: Path, tlbench: Callable[..., Answer]) -> None:
    model = keras.models.load_model(run_copy / "model.keras")
    model.layers[-1].kernel.assign(np.full(model.layers[-1].kernel.shape, np.nan))
    remove_model(run_copy)
    model.save(run_copy / "model.keras")
    seal(run_copy)
    Image.new("RGB", (8, 8)).save("photo.png")
    for words in (
        ("evaluate", "run"),
        ("predict", "run", "photo.png"),
        ("export", "run", "--format", "keras"),
    ):
        answer = tlbench(*words)
        assert answer.code == 2, words
        assert "weights that are no finite numbers (classification/kernel)" in answer.err
        assert len(answer.error_lines) == 1


# ---------------------------------------------------------------- measures


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_have_images() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    probabilities = np.eye(3)[[0, 0, 0, 1, 1, 2]]  # three of four, one of two
    found = metrics.metrics(labels, probabilities, ["a", "b", "none"])
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    f1 = [2 * 3 / (4 + 3), 2 * 1 / (2 + 2)]  # twice the hits over images and predictions
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    assert metrics.macro_f1(labels, probabilities) == pytest.approx(np.mean(f1))


def test_auc_is_how_often_an_image_of_the_class_has_more_of_it_than_another() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    rows = [[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.4, 0.3], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3]]
    given = np.array(rows)
    of_zero = (3 + 1.5) / 6  # the first beats all three; the second one, and ties with one
    of_one = (1 + 3) / 6  # 0.4 beats 0.3 alone; 0.6 beats all three
    of_two = (1 + 3 * 0.5) / 4
    assert metrics.auc(labels, given) == pytest.approx(np.mean([of_zero, of_one, of_two]))
    two = np.array([0, 1, 1, 0])
    sure = np.array([0.2, 0.9, 0.4, 0.5])
    assert metrics.auc(two, np.stack([1 - sure, sure], axis=1)) == pytest.approx(3 / 4)


def test_classes_are_uneven_from_half_as_many_more_on() -> None:
    def sizes(*images: int) -> dict[str, dict[str, int]]:
        return {str(number): {"images": count} for number, count in enumerate(images)}

    assert metrics.uneven(sizes(10, 15, 12))
    assert not metrics.uneven(sizes(10, 14, 12))
    assert not metrics.uneven(sizes(10, 0))  # a class without images is not tested
    assert not metrics.uneven("of a damaged file")


def test_calibration_error_of_a_small_example() -> None:
    # Two images at 0.9 of which one is right, one at 0.6 that is right.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    found = metrics.calibration(np.array([0, 1, 0]), probabilities)
    assert found["calibration_error"] == pytest.approx((2 * 0.4 + 1 * 0.4) / 3)
    assert sum(b["images"] for b in found["bins"]) == 3
    assert found["bins"][0]["accuracy"] is None


def test_a_sure_and_right_classifier_is_calibrated() -> None:
    probabilities = np.eye(4)
    assert metrics.calibration(np.arange(4), probabilities)["calibration_error"] == 0


def test_most_confused_pairs() -> None:
    counts = np.array([[5, 3, 0], [1, 9, 0], [0, 4, 6]])
    pairs = metrics.most_confused(counts, ["a", "b", "c"])
    assert [(p["true"], p["predicted"], p["images"]) for p in pairs] == [
        ("c", "b", 4),
        ("a", "b", 3),
        ("b", "a", 1),
    ]
    assert pairs[0]["share"] == pytest.approx(0.4)


def test_worst_mistakes_are_wrong_and_sure() -> None:
    probabilities = np.array([[0.6, 0.4], [0.99, 0.01], [0.2, 0.8], [0.7, 0.3]])
    worst = metrics.worst_mistakes(np.array([1, 0, 0, 1]), probabilities, 2)
    assert worst.tolist() == [2, 3]


def test_superclass_accuracy() -> None:
    names, above = ["cat", "dog", "car"], {"animal": ["cat", "dog"], "thing": ["car"]}
    probabilities = np.eye(3)[[1, 0, 2, 0]]  # a cat for a dog and so on, then an animal for a car
    labels = np.array([0, 1, 2, 2])
    assert metrics.superclass_accuracy(labels, probabilities, names, above) == 0.75
    with pytest.raises(ConfigError, match="truck"):
        metrics.superclass_accuracy(labels, probabilities, names, {**above, "x": ["truck"]})
    with pytest.raises(ConfigError, match="cat"):
        metrics.superclass_accuracy(labels, probabilities, names, {**above, "x": ["cat"]})


def test_says_how_much_of_what_moved() -> None:
    """Four images, worked out by hand: one of four is now taken for another class, wrongly."""
    from tlbench.inference.evaluate import _changed

    labels = np.array([0, 1, 0, 1])
    old = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
    new = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
    assert _changed(labels, old, new, None) == (
        "probabilities by up to 2.0e-01, 1 of 4 classes, accuracy 0.7500 to 0.5000 (-0.2500)"
    )
    assert _changed(labels, old, old, None).endswith("0 of 4 classes, accuracy the same")


@pytest.mark.parametrize(("size", "images"), [(32, 64), (224, 64), (1024, 5), (8192, 1)])
def test_a_batch_is_what_memory_holds(size: int, images: int) -> None:
    """At most 64 MiB of float32 pixels, whatever batch the head was trained with."""
    from types import SimpleNamespace

    from tlbench.inference.loaded import Loaded

    model = SimpleNamespace(input_shape=(None, size, size, 3))
    assert Loaded(None, None, model).batch_size == images  # type: ignore[arg-type]


def test_the_recall_of_each_of_several_classes_has_its_interval() -> None:
    labels = np.array([[1, 0, 0]] * 12 + [[1, 1, 0]] * 8, np.uint8)
    probabilities = np.tile(np.float32([0.9, 0.6, 0.1]), (20, 1))
    probabilities[:5, 0] = 0.2
    found = metrics.metrics(labels, probabilities, ["a", "b", "none"])["per_class"]
    for name, right, images in (("a", 15, 20), ("b", 8, 8)):
        surely = binomtest(right, images).proportion_ci(method="wilson")
        assert found[name]["recall_interval"] == pytest.approx([*surely], abs=1e-6)
    assert found["none"]["recall_interval"] is None
