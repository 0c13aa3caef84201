"""The command line: help, completion, and one line for whatever is wrong with a command."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from helpers import Answer

Command = Callable[..., Answer]

LIGHT = """
    tlbench.cli.main tlbench.config.schema tlbench.config.checks tlbench.base.errors tlbench.base.console
    tlbench.runs.run tlbench.cli.verbs.report tlbench.report.page tlbench.runs.plots tlbench.features.store
    tlbench.sweep.jobs tlbench.cli.hydra
"""


def shell(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlbench", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_what_answers_at_once_never_imports_tensorflow() -> None:
    code = f"import importlib, sys; [importlib.import_module(m) for m in {LIGHT.split()}]; "
    code += "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_names_every_verb(tlbench: Command) -> None:
    from tlbench.cli.verbs import NAMES as VERBS

    for words in ((), ("--help",), ("-h",)):
        answer = tlbench(*words)
        assert answer.code == 0
        assert all(f"  {verb} " in answer.out for verb in VERBS)


def test_hydras_flags_work_with_the_verb(tlbench: Command, tmp_path: Path) -> None:
    assert "backbone: convnexttiny, deit_small" in tlbench("train", "--help").out
    assert "widths: ${backbone.head_widths}" in tlbench("train", "--cfg", "job").out
    resolved = tlbench("train", "--cfg", "job", "--resolve", "backbone=resnet50").out
    assert "- 1024" in resolved
    # In a process of its own: Hydra sets up logging for good to show this.
    assert "Config search path" in shell("train", "--info", "searchpath").stdout
    (tmp_path / "mine" / "backbone").mkdir(parents=True)
    own = "name: own\narchitecture: VGG16\nweights: null\nimage_size: 32\npreprocessing: null\n"
    (tmp_path / "mine" / "backbone" / "own.yaml").write_text(
        own + "arguments: {}\nhead_widths: [7]\n"
    )
    answer = tlbench("summary", "--config-dir", "mine", "backbone=own", "data=digits")
    assert "vgg16" in answer.out
    assert "3,591" in answer.out  # 512 features to 7 units
    assert not (tmp_path / "outputs").exists()


def test_a_traceback_is_shown_on_request() -> None:
    done = shell("train", "epochs=0", "--traceback")
    assert "Traceback" in done.stderr
    assert "ConfigError" in done.stderr


def test_no_network_names_the_setting_that_helps_and_no_other_archive_is_opened(
    tmp_path: Path,
) -> None:
    """One would write beside its folder; Keras holds it against the published SHA-256 and drops it."""
    with tarfile.open("archive", "w:gz") as tar:
        member = tarfile.TarInfo("../../outside")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    archive = tmp_path / "keras" / "datasets" / "cifar-100-python-target_archive"
    code = f"""
from pathlib import Path
from tlbench.cli.main import main
codes = [main(["train"]), main(["train", "data=digits", "trainable=false"])]
Path("archive").rename({str(archive)!r})
print([*codes, main(["train", "backbone.weights=null"])])
"""
    closed = {"HTTPS_PROXY": "http://127.0.0.1:9", "KERAS_HOME": str(tmp_path / "keras")}
    environment = {**os.environ, **closed}  # Keras reads its place while it is imported
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[2, 2, 2]"
    pictures, weights, other = (
        line for line in done.stderr.splitlines() if "tlbench: error: " in line
    )
    assert "Set data.root" in pictures
    assert "backbone.weights" in weights
    assert "could not be downloaded" in other
    assert not archive.exists()
    assert not list(tmp_path.rglob("outside"))
    assert not (tmp_path / "outputs").exists()
