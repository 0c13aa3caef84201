"""export: every format, run in its own runtime and beside the model; what is refused leaves nothing."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import TINY, make_config
from tlbench.base import optional
from tlbench.cli import main
from tlbench.inference import converters, formats
from tlbench.networks import classifiers

ROOT = Path(__file__).parents[2]
SNIPPETS = Path(__file__).parents[1] / "snippets"


def installed(form: formats.Format) -> bool:
    return all(importlib.util.find_spec(package) for package in form.packages)


HERE = [name for name, form in formats.FORMATS.items() if installed(form)]


def needs(name: str) -> pytest.MarkDecorator:
    missing = name.removesuffix("_int8") not in HERE
    return pytest.mark.skipif(missing, reason=f"what {name} needs is not installed")


EVERY = [pytest.param(name, marks=needs(name)) for name in (*formats.FORMATS, "litert_int8")]


@pytest.fixture(scope="module")
def exports(digits_run: Path) -> Path:
    """The folder of exports of every format whose packages are here."""
    assert main.main(["export", str(digits_run), "--format", ",".join(HERE)]) == 0
    if "litert" in HERE:
        words = ["--format", "litert", "--quantize", "int8", "--accuracy-loss", "0.2"]
        assert main.main(["export", str(digits_run), *words]) == 0
    return digits_run / "exports"


@pytest.mark.parametrize("name", EVERY)
def test_answers_as_the_model_does(exports: Path, name: str) -> None:
    about = json.loads((exports / name / "export.json").read_text())
    parity = about["parity"]
    assert parity["images"] == 150
    if name == "litert_int8":
        assert parity["accuracy_of_model"] - parity["accuracy"] <= 0.2
        float_bytes = json.loads((exports / "litert" / "export.json").read_text())["bytes"]
        assert about["bytes"] < float_bytes / 2
    else:
        assert parity["greatest_difference"] <= 1e-4
        assert parity["top_class_agreement"] == 1
    assert parity["latency_ms"] > 0
    assert about["input"] == {
        "shape": [None, 8, 8, 3],
        "dtype": "float32",
        "values": "RGB in 0-255",
    }
    assert json.loads((exports / name / "class_names.json").read_text()) == list("0123456789")


@pytest.mark.parametrize("name", EVERY)
def test_takes_any_number_of_images(exports: Path, name: str) -> None:
    form = formats.FORMATS[name.removesuffix("_int8")]
    predict = converters.read(form, exports / name / form.file)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3)).astype(np.float32)
    together = predict(pixels)
    assert together.shape == (7, 10)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=0.05)
    np.testing.assert_allclose(together[:1], predict(pixels[:1]), atol=1e-5)


@pytest.mark.parametrize("name", [param for param in EVERY if param.values != ("litert_int8",)])
def test_arrays_that_are_resized_bicubically_can_be_held(name: str, tmp_path: Path) -> None:
    cfg = make_config(*TINY, "backbone.interpolation=bicubic")
    model = classifiers.build(cfg, (20, 20, 3), 10).model
    form, pixels = formats.FORMATS[name], np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3))
    expected = model.predict(pixels, verbose=0)
    converters.write(form, model, list, tmp_path / form.file)
    found = converters.read(form, tmp_path / form.file)(pixels.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_the_snippet_of_the_readme_runs(
    exports: Path,
    digits_run: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = exports / name
    image = np.random.default_rng(1).integers(0, 256, (40, 64, 3)).astype(np.uint8)
    photos = {  # what a snippet has to do itself, in some of them
        "keras": Image.fromarray(image[..., 0].astype(np.uint16) * 16),  # 12 bits in 16
        "saved_model": Image.fromarray(np.dstack([image, image[..., 0]])),  # transparent
    }
    photos.get(name, Image.fromarray(image)).save(folder / "photo.png")
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for part in ("pixels", name.removesuffix("_int8")):
        exec((SNIPPETS / f"{part}.py").read_text(), names)
    printed = capsys.readouterr().out.split()
    assert main.main(["predict", str(digits_run), "photo.png", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    if name != "litert_int8":
        assert printed[0] == row["class"]
        assert float(printed[1]) == pytest.approx(row["confidence"], abs=1e-4)


def test_the_readme_shows_these_snippets() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for snippet in SNIPPETS.glob("*.py"):
        assert snippet.read_text() in readme


def test_over_tolerance_is_a_failure_that_leaves_nothing(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = converters.READERS["keras"]

    def wrong(path: Path) -> converters.Predict:
        predict = read(path)
        return lambda pixels: predict(pixels / 255)  # a runtime fed in the wrong range

    monkeypatch.setitem(converters.READERS, "keras", wrong)
    assert main.main(["export", str(run_copy), "--format", "keras"]) == 1
    said = capsys.readouterr()
    assert "refused" in said.out
    assert "keras differs from the model by" in said.err
    assert not (run_copy / "exports").exists()


def test_one_that_cannot_be_held_does_not_stop_the_others(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = converters.write

    def fail(form: formats.Format, *rest: Any) -> None:
        if form.name == "saved_model":
            raise ValueError("no such operation\nin this format")
        write(form, *rest)

    monkeypatch.setattr(converters, "write", fail)
    earlier = run_copy / "exports" / "keras"
    earlier.mkdir(parents=True)
    (earlier / "of an earlier export").touch()
    assert main.main(["export", str(run_copy), "--format", "saved_model,keras"]) == 1
    assert "saved_model cannot hold this model (ValueError: no such" in capsys.readouterr().err
    assert [path.name for path in (run_copy / "exports").iterdir()] == ["keras"]
    names = sorted(path.name for path in earlier.iterdir())
    assert names == ["class_names.json", "export.json", "model.keras"]
    assert main.main(["export", str(run_copy), "--format", "saved_model"]) == 2


def test_a_missing_package_names_the_extra(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(optional.importlib.util, "find_spec", lambda _: None)
    assert main.main(["export", str(run_copy), "--format", "onnx"]) == 2
    error = capsys.readouterr().err
    assert "--format onnx needs onnx, tf2onnx, onnxruntime" in error
    assert "pip install 'tlbench[export]'" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "onx"], "Did you mean 'onnx'?"),
        (["--format", "keras", "--quantize", "int8"], "is for litert"),
        (["--format", "keras", "--images", "0"], "--images 0 is not valid"),
        (["--format", "keras", "--tolerance", "nan"], "--tolerance nan is not valid"),
        (["--format", "keras", "epochs=3"], "Expected data=NAME or data.KEY=VALUE"),
        ([], "arguments are required: --format"),
    ],
)
def test_words_that_do_not_fit(
    run_copy: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["export", str(run_copy), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (run_copy / "exports").exists()


@needs("onnx")
@needs("openvino")
def test_runtimes_leave_no_trace_in_the_home_folder(tmp_path: Path) -> None:
    """Both write an identifier there as they are imported, and report their use over the network."""
    code = "from tlbench.base import optional as r; r.openvino().Core(); r.onnxruntime().SessionOptions()"
    # Neither starts its telemetry where it takes the machine for a build server.
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "GITHUB_ACTIONS")}
    path = os.pathsep.join([str(ROOT / "src"), environment.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HOME": str(tmp_path), "PYTHONPATH": path},
        check=True,
    )
    assert list(tmp_path.iterdir()) == []
