"""A run's folder through kills, other versions and what somebody else has put there. No TensorFlow."""

import csv
import functools
import io
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import make_config
from tlbench.base import files
from tlbench.base.errors import RunError
from tlbench.config.schema import Config
from tlbench.runs import results
from tlbench.runs.layout import RESULTS
from tlbench.runs.recording import Recording
from tlbench.runs.run import Run

FACTS: dict[str, Any] = {
    "data": {"name": "digits", "fingerprint": "0", "class_names": list("0123456789")},
    "weights": {"sha256": "0"},
}


@functools.cache  # it is composed as often as a run is killed
def of_epochs(epochs: int) -> Config:
    return make_config("data=digits", f"epochs={epochs}")


def write_results(run: Run, epochs: int) -> None:
    """What a training of so many epochs leaves; every file tells their number."""
    (run.new / "plots").mkdir()
    files.write_text(run.new / "plots" / "curves.png", f"{epochs}")
    files.write_text(run.new / "model.keras", f"{epochs}")
    head = "stage,epoch,loss,accuracy,val_loss,val_accuracy\n"
    lines = [f"train,{i + 1},1,0.5,1,0.5\n" for i in range(epochs)]
    files.write_text(run.new / "history.csv", head + "".join(lines))
    files.write_json(run.new / "metrics.json", {"epochs": epochs})
    with files.atomic(run.new / "images.npz") as temporary:
        np.savez(
            temporary, **{split: np.zeros(1, "S16") for split in ("train", "validation", "test")}
        )
    files.write_text(run.new / "images.csv", f"path,split\n{epochs}.png,test\n")
    files.write_text(run.new / "predictions.csv", f"path\n{epochs}.png\n")
    with files.atomic(run.new / "predictions.npz") as temporary:
        np.savez(temporary, labels=np.zeros(epochs, int), probabilities=np.ones((epochs, 10)))


def train(folder: Path, epochs: int) -> None:
    with Recording.start(folder, of_epochs(epochs), "tlbench train", FACTS) as run:
        write_results(run, epochs)


def extend(folder: Path, epochs: int) -> None:
    with Recording.resume(
        Run.open(folder), of_epochs(epochs), "tlbench train resume=", FACTS
    ) as run:
        write_results(run, epochs)


def told_epochs(folder: Path) -> set[int]:
    """The epochs that each of the run's results is of, as every verb would read them."""
    run = Run.finished(folder)
    return {
        run.config().epochs,
        run.metrics["epochs"],
        int(run.model.read_text()),
        len(Run.open(folder).epochs()),
        len(Run.open(folder).tested()[0]),
        int(Run.open(folder).files["test"][0].removesuffix(".png")),
    }


def killed_at(rename: int, folder: Path, epochs: int, *, before: bool) -> bool:
    """Extend a run in a process that dies at a rename, before it or after; whether it came that far."""
    child = os.fork()
    if child == 0:
        calls, rename_file = 0, os.replace

        def replace(source: object, target: object, **named: object) -> None:
            nonlocal calls
            if before and calls == rename:
                os._exit(9)
            rename_file(source, target, **named)  # type: ignore[call-overload]
            if calls == rename:
                os._exit(9)
            calls += 1

        os.replace = replace  # type: ignore[assignment]
        try:
            extend(folder, epochs)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_an_extension_killed_at_any_rename_leaves_the_old_run_or_the_new(tmp_path: Path) -> None:
    train(tmp_path / "seed", 2)
    seen, rename, died = [], 0, True
    while died:
        for before in (True, False):
            folder = tmp_path / f"{rename}{before}"
            shutil.copytree(tmp_path / "seed", folder)
            died = killed_at(rename, folder, 5, before=before)
            assert results.read(folder).status == "completed"
            (epochs,) = told_epochs(folder)
            seen.append(epochs)
            extend(folder, 5)
            assert told_epochs(folder) == {5}
            assert (folder / "plots" / "curves.png").read_text() == "5"
            left = {path.name for path in folder.iterdir()}
            assert left == {*RESULTS, "manifest.json", "plots", ".lock", "train.log"}
        rename += 1
    assert rename > 14  # every result is written and then moved
    assert seen == sorted(seen)
    assert set(seen) == {2, 5}


def test_an_extension_that_fails_leaves_the_finished_run(tmp_path: Path) -> None:
    train(tmp_path / "run", 2)
    run = Recording.resume(Run.open(tmp_path / "run"), of_epochs(5), "tlbench train", FACTS)
    with pytest.raises(ZeroDivisionError), run:
        write_results(run, 4)
        raise ZeroDivisionError("what failed")
    assert told_epochs(tmp_path / "run") == {2}
    extension = Run.open(tmp_path / "run").extension
    assert (extension["status"], extension["reason"]) == ("failed", "what failed")
    read = results.read(tmp_path / "run")
    assert "its extension to 5 epochs is not completed: tlbench train resume=run" in read.reason
    extend(tmp_path / "run", extension["epochs"])
    assert told_epochs(tmp_path / "run") == {5}
    assert Run.open(tmp_path / "run").extension == {}


# ---------------------------------------------------------------- what lies in a folder from elsewhere


@pytest.mark.parametrize("name", [".lock", "train.log", ".new"])
def test_a_link_in_a_run_from_elsewhere_leads_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").mkdir()
    precious = tmp_path / "precious" / "notes"
    precious.write_text("mine")
    train(tmp_path / "run", 2)
    (tmp_path / "run" / name).unlink(missing_ok=True)
    (tmp_path / "run" / name).symlink_to(precious if name != ".new" else precious.parent)
    Recording.open(tmp_path / "run").record(moving=True)
    if name == ".new":
        extend(tmp_path / "run", 5)
    else:
        with pytest.raises(RunError, match=f"{name} cannot be written .a link"):
            extend(tmp_path / "run", 5)
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("name", ["checkpoint", "plots"])
def test_a_folder_that_is_a_link_is_not_written_into(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").mkdir()
    train(tmp_path / "run", 2)
    shutil.rmtree(tmp_path / "run" / name, ignore_errors=True)
    (tmp_path / "run" / name).symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match=f"{name} cannot be written .a link"):
        extend(tmp_path / "run", 5)
    assert list((tmp_path / "precious").iterdir()) == []
    assert Run.open(tmp_path / "run").status == "completed"


def test_what_a_forged_publication_would_move_leads_nowhere(tmp_path: Path) -> None:
    """A folder in .new that is a link in the run: what lies in the one would go where the other leads."""
    (tmp_path / "precious").mkdir()
    train(tmp_path / "run", 2)
    (tmp_path / "run" / ".new" / "evaluation").mkdir(parents=True)
    (tmp_path / "run" / ".new" / "evaluation" / "notes").write_text("forged")
    (tmp_path / "run" / "evaluation").symlink_to(tmp_path / "precious")
    Recording.open(tmp_path / "run").record(moving=True)
    with pytest.raises(RunError, match=r"evaluation cannot be written .a link"):
        extend(tmp_path / "run", 5)
    assert list((tmp_path / "precious").iterdir()) == []


@pytest.mark.parametrize("name", ["manifest.json", ".lock", *RESULTS])
def test_a_pipe_in_place_of_a_file_never_hangs(tmp_path: Path, name: str) -> None:
    train(tmp_path / "run", 2)
    (tmp_path / "run" / name).unlink()
    os.mkfifo(tmp_path / "run" / name)
    read = results.read(tmp_path / "run")
    assert (read.status == "damaged") == (name in ("manifest.json", "config.yaml", "metrics.json"))
    if name in RESULTS:
        with pytest.raises(RunError, match="damaged"):
            Run.open(tmp_path / "run").file(name)


def test_temporaries_of_killed_writes_go_when_the_run_goes_on(tmp_path: Path) -> None:
    train(tmp_path / "run", 2)
    (tmp_path / "run" / "checkpoint").mkdir()
    left = [tmp_path / "run" / ".tmp-1.json", tmp_path / "run" / "checkpoint" / ".tmp-2.npz"]
    for path in left:
        path.touch()
    assert told_epochs(tmp_path / "run") == {2}
    extend(tmp_path / "run", 5)
    assert not any(path.exists() for path in left)


def test_what_others_may_still_write_is_no_temporary_of_a_killed_write(tmp_path: Path) -> None:
    old, folder, new = (tmp_path / "evaluation" / f".tmp-{i}" for i in range(3))
    folder.mkdir(parents=True)
    (folder / "model.onnx").touch()
    for path in (old, new):
        path.touch()
    for path in (old, folder):
        os.utime(path, (0, 0))
    files.own_folder(tmp_path / "evaluation")
    assert [path for path in (old, folder, new) if path.exists()] == [new]


def test_files_are_made_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a.json", "{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640


# ---------------------------------------------------------------- another version's settings


def rewrite_settings(folder: Path, change: Any) -> None:
    """Change a run's config.yaml as if the version that wrote it had had other settings."""
    import yaml

    tree = yaml.safe_load((folder / "config.yaml").read_text())
    change(tree)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    run = Recording.open(folder)
    run.record(versions={**run.manifest["versions"], "tlbench": "0.9.1"}, files=run._written())
    (folder / ".new").rmdir()


def test_a_run_that_a_version_of_other_settings_wrote_is_listed_and_not_taken_up(
    tmp_path: Path,
) -> None:
    train(tmp_path / "run", 2)

    def change(tree: dict[str, Any]) -> None:
        del tree["data"]["resize"], tree["features"], tree["strategy"]["stages"][0]["learning_rate"]
        tree["head"]["shape"] = {"of": "old"}

    rewrite_settings(tmp_path / "run", change)
    with pytest.raises(RunError) as refusal:
        Run.open(tmp_path / "run").config()
    said = str(refusal.value)
    assert "was written by another version of tlbench (0.9.1)" in said
    for name in ("features", "data.resize", "strategy.stages[0].learning_rate"):
        assert name in said.partition("it has")[0]
    assert "it has head.shape" in said
    assert results.read(tmp_path / "run").status == "completed"


# ---------------------------------------------------------------- burdens


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &a [1,2]\nb: [*a, *a]", "alias"),
        ("a: " + "[" * 60 + "]" * 60, "too deep"),
        ("a: " + "[" * 100_000, "too deep"),
        ("a: 0x" + "f" * 5_000, "64 bits"),
        ("a: " + "x" * 2**18, "larger than"),
        ("a: [", "no YAML"),
        ("a: !!timestamp x", "no YAML"),
    ],
)
def test_settings_that_are_a_burden_are_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=why):
        files.read_yaml(tmp_path / "a.yaml", 2**18)


def test_an_archive_that_grows_is_refused_before_it_does(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", zeros=np.zeros(2**20))
    assert (tmp_path / "a.npz").stat().st_size < 2**14
    with pytest.raises(ValueError, match="unpacks to more than"):
        files.read_arrays(tmp_path / "a.npz", 2**20)
    assert files.read_arrays(tmp_path / "a.npz", 2**24)["zeros"].sum() == 0


def test_numbers_and_nesting_in_json_have_limits() -> None:
    for text in ("[" * 5000 + "]" * 5000, "9" * 100, "[" * 60 + "]" * 60):
        with pytest.raises(ValueError, match=r"deep|64 bits"):
            files.parse_json(text)
    assert files.parse_json(json.dumps({"a": [1.5, 2**62]})) == {"a": [1.5, 2**62]}


# ---------------------------------------------------------------- files that a user names


def test_a_pipe_is_written_into_and_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("before")
    (tmp_path / "table.csv").chmod(0o600)
    (tmp_path / "link.csv").symlink_to("table.csv")
    with files.destination(tmp_path / "link.csv") as file:
        file.write("after")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "table.csv").read_text() == "after"
    assert stat.S_IMODE((tmp_path / "table.csv").stat().st_mode) == 0o600
    reader, writer = os.pipe()
    with files.destination(Path(f"/dev/fd/{writer}")) as file:
        file.write("into a pipe")
    os.close(writer)
    assert os.read(reader, 100) == b"into a pipe"
    os.close(reader)
    assert {path.name for path in tmp_path.iterdir()} == {"table.csv", "link.csv"}


def test_a_write_that_fails_leaves_what_a_user_had(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("before")
    (tmp_path / "link.csv").symlink_to("table.csv")
    with pytest.raises(ZeroDivisionError), files.destination(tmp_path / "link.csv") as file:
        file.write("half")
        raise ZeroDivisionError
    assert (tmp_path / "table.csv").read_text() == "before"


def test_a_carriage_return_in_a_name_stays_in_its_cell() -> None:
    text = io.StringIO(newline="")
    csv.writer(files.CsvLines(text)).writerows([["a\rb.png", "1"], ["c", "2"]])
    assert text.getvalue() == '"a\rb.png",1\nc,2\n'
    assert list(csv.reader(io.StringIO(text.getvalue(), newline=""))) == [
        ["a\rb.png", "1"],
        ["c", "2"],
    ]
