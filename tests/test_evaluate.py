"""evaluate: the record repeated, other data, what is measured, and folders that are no finished run."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlbench import cli, evaluation
from tlbench.errors import ConfigError
from tlbench.run import Run


def edit_manifest(folder: Path, **changes: object) -> None:
    Run.open(folder).record(**changes)


def seal(folder: Path) -> None:
    """Make what a test put into a run's folder the run's own: its checksums are recorded."""
    Run.open(folder).complete()


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
    assert cli.main(["evaluate", str(run_copy), above]) == 0
    out = capsys.readouterr().out
    assert "equals the record" in out
    for words in ("accuracy", "top 5", "macro F1", "calibration error", "superclass accuracy"):
        assert words in out
    found = json.loads((run_copy / "evaluation" / "evaluation.json").read_text())
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
    assert cli.main(["evaluate", str(run_copy)]) == 1
    assert "differs from the record" in capsys.readouterr().out


def test_never_unpickles(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = np.array([object()], dtype=object)
    np.savez(run_copy / "predictions.npz", labels=objects, probabilities=objects)
    seal(run_copy)
    assert cli.main(["evaluate", str(run_copy)]) == 2
    assert "predictions.npz is damaged" in capsys.readouterr().err


def test_other_data_of_the_same_classes(run_copy: Path, other_digits: Path) -> None:
    words = ["data=image_folder", f"data.root={other_digits}", "--all"]
    assert cli.main(["evaluate", str(run_copy), *words]) == 0
    found = json.loads((run_copy / "evaluation/image_folder/evaluation.json").read_text())
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
    assert cli.main(["evaluate", str(run_copy), *words]) == 2
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
    from tlbench.hardware import keras

    pixels = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(pixels))
    model = keras.Model(pixels, keras.layers.Lambda(lambda x: x * 2)(outputs))
    remove_model(folder)
    model.save(folder / "model.keras")
    seal(folder)


def model_of_other_classes(folder: Path) -> None:
    from tlbench.hardware import keras

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
    assert cli.main(["evaluate", str(run_copy)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("tlbench: error: ")
    assert message in last
    assert len(last) < 400
    assert not (run_copy / "evaluation").exists()


# ---------------------------------------------------------------- measures


def test_calibration_error_of_a_small_example() -> None:
    # Two images at 0.9 of which one is right, one at 0.6 that is right.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    found = evaluation.calibration(np.array([0, 1, 0]), probabilities)
    assert found["calibration_error"] == pytest.approx((2 * 0.4 + 1 * 0.4) / 3)
    assert sum(b["images"] for b in found["bins"]) == 3
    assert found["bins"][0]["accuracy"] is None


def test_a_sure_and_right_classifier_is_calibrated() -> None:
    probabilities = np.eye(4)
    assert evaluation.calibration(np.arange(4), probabilities)["calibration_error"] == 0


def test_most_confused_pairs() -> None:
    counts = np.array([[5, 3, 0], [1, 9, 0], [0, 4, 6]])
    pairs = evaluation.most_confused(counts, ["a", "b", "c"])
    assert [(p["true"], p["predicted"], p["images"]) for p in pairs] == [
        ("c", "b", 4),
        ("a", "b", 3),
        ("b", "a", 1),
    ]
    assert pairs[0]["share"] == pytest.approx(0.4)


def test_worst_mistakes_are_wrong_and_sure() -> None:
    probabilities = np.array([[0.6, 0.4], [0.99, 0.01], [0.2, 0.8], [0.7, 0.3]])
    worst = evaluation.worst_mistakes(np.array([1, 0, 0, 1]), probabilities, 2)
    assert worst.tolist() == [2, 3]


def test_superclass_accuracy() -> None:
    names, above = ["cat", "dog", "car"], {"animal": ["cat", "dog"], "thing": ["car"]}
    probabilities = np.eye(3)[[1, 0, 2, 0]]  # a cat for a dog and so on, then an animal for a car
    labels = np.array([0, 1, 2, 2])
    assert evaluation.superclass_accuracy(labels, probabilities, names, above) == 0.75
    with pytest.raises(ConfigError, match="truck"):
        evaluation.superclass_accuracy(labels, probabilities, names, {**above, "x": ["truck"]})
    with pytest.raises(ConfigError, match="cat"):
        evaluation.superclass_accuracy(labels, probabilities, names, {**above, "x": ["cat"]})
