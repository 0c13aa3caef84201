"""What a refused command leaves: everything that stood there before it, and nothing else."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from helpers import TINY, Answer
from tlbench.sweep import folders

Command = Callable[..., Answer]


@pytest.fixture
def sweep(tiny_run: Path, tmp_path: Path) -> Path:
    """A sweep of one job that is completed, begun in the folder `origin`, as Hydra records it."""
    (tmp_path / "origin").mkdir()
    return begun(tmp_path / "origin" / "a sweep", tiny_run, [*TINY])


def begun(folder: Path, run: Path, overrides: list[str], **hydra: object) -> Path:
    shutil.copytree(run, folder / "0")
    recorded = {
        "runtime": {"cwd": str(folder.parent), "config_sources": []},
        "overrides": {"hydra": [], "task": overrides},
        **hydra,
    }
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": recorded}))
    return folder


def test_a_refused_command_leaves_the_sweep_as_it_was(tlbench: Command, sweep: Path) -> None:
    before = (sweep / "multirun.yaml").read_bytes()
    for words in (
        [f"resume={sweep}", "batch_size=7"],
        [*TINY, "batch_size=7", f"hydra.sweep.dir={sweep}"],
        [*TINY, "epochs=none", f"hydra.sweep.dir={sweep}"],
    ):
        answer = tlbench("train", "--multirun", *words)
        assert answer.code == 2
        assert (sweep / "multirun.yaml").read_bytes() == before
        assert sorted(path.name for path in sweep.iterdir()) == ["0", "multirun.yaml"]
    answer = tlbench("train", "--multirun", f"resume={sweep}")
    assert answer.code == 0, answer.err
    assert "is completed already" in answer.err
    assert (sweep / "multirun.yaml").is_file()
    assert not (sweep / folders.ASIDE).exists()


def test_what_was_killed_while_hydra_wrote_goes_on_from_what_was_kept(
    tlbench: Command, sweep: Path
) -> None:
    (sweep / "multirun.yaml").rename(sweep / folders.ASIDE)
    (sweep / "multirun.yaml").write_text("hydra:\n  runt")
    answer = tlbench("train", "--multirun", f"resume={sweep}")
    assert answer.code == 0, answer.err
    assert yaml.safe_load((sweep / "multirun.yaml").read_text())["hydra"]["overrides"]["task"]


def test_relative_settings_mean_what_they_meant_where_the_sweep_began(
    tlbench: Command, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    answer = tlbench("train", "--multirun", f"resume=../{sweep.parent.name}/{sweep.name}")
    assert answer.code == 0, answer.err
    assert Path.cwd() == sweep.parent


@pytest.mark.parametrize(
    "word",
    [
        "hydra.callbacks.x={_target_:os.system,command:'touch ran'}",
        "+hydra.callbacks.x._target_=os.system",
        "hydra/launcher=basic",
        "~hydra",
        "experiment=../../../../../../tmp/elsewhere",  # YAML that is not ours says all that Hydra can do
        "backbone@hydra.callbacks.x=vgg16",
        "+optimizer.arguments.x={_target_:os.system}",
        "data.root=${oc.env:HOME}",
        "--config-dir=.",
    ],
)
def test_nothing_but_tlbenchs_settings_is_taken_from_a_folder(
    tlbench: Command, tiny_run: Path, tmp_path: Path, word: str
) -> None:
    folder = begun(tmp_path / "foreign", tiny_run, [*TINY, word])
    answer = tlbench("train", "--multirun", f"resume={folder}")
    assert answer.code == 2
    assert len(answer.error_lines) == 1
    assert "only tlbench's own settings" in answer.err
    assert not Path("ran").exists()


def test_what_hydra_would_do_on_its_own_is_not_taken_either(
    tlbench: Command, tiny_run: Path, tmp_path: Path
) -> None:
    callback = {"x": {"_target_": "pathlib.Path.touch", "self": "ran"}}
    folder = begun(tmp_path / "foreign", tiny_run, [*TINY], callbacks=callback)
    assert tlbench("train", "--multirun", f"resume={folder}").code == 0
    assert not Path("ran").exists()


def test_yaml_of_ones_own_is_asked_for_again(
    tlbench: Command, tiny_run: Path, tmp_path: Path
) -> None:
    sources = [{"path": "/some where/conf", "schema": "file", "provider": "command-line"}]
    runtime = {"cwd": str(tmp_path), "config_sources": sources}
    folder = begun(tmp_path / "own", tiny_run, [*TINY], runtime=runtime)
    answer = tlbench("train", "--multirun", f"resume={folder}")
    assert answer.code == 2
    assert "If you trust it, go on with: tlbench train --multirun" in answer.err
    assert "'--config-dir=/some where/conf'" in answer.err


@pytest.mark.parametrize("text", ["", "[]", "hydra: {}", "hydra: [1", "a: &a [*a]", "\x00"])
def test_a_damaged_multirun_yaml_is_one_line(tlbench: Command, tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").write_text(text)
    answer = tlbench("train", "--multirun", "resume=sweep")
    assert answer.code == 2
    assert "is no sweep: it has no readable multirun.yaml" in answer.error_lines[-1]
    assert (tmp_path / "sweep" / "multirun.yaml").read_text() == text


def test_only_folders_that_the_command_made_are_removed(tlbench: Command, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "outputs").symlink_to("disk")
    (tmp_path / "mine" / "empty").mkdir(parents=True)
    refused = ("train", "data=image_folder", "data.root=nowhere")
    assert tlbench(*refused).code == 2
    assert tlbench(*refused, "hydra.run.dir=mine/empty").code == 2
    assert tlbench(*refused, "hydra.run.dir=mine/new/deeper").code == 2
    assert tlbench(*refused, "hydra.run.dir=new/deeper").code == 2
    assert (tmp_path / "outputs").readlink() == Path("disk")
    assert list((tmp_path / "disk").iterdir()) == []
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["empty"]
    assert not (tmp_path / "new").exists()


def test_sweeps_of_one_second_have_folders_of_their_own_unless_own_yaml_names_one() -> None:
    own = Path("own")
    own.mkdir()
    (own / "mine.yaml").write_text("epochs: 3\n")
    for words in (["seed=0,1"], ["seed=0,1", "--config-dir=own"]):
        chosen = folders.named(words, "own")[0]
        assert re.fullmatch(r"hydra\.sweep\.dir=outputs/[\d_-]+_sweep", chosen)
    (own / "mine.yaml").write_text("hydra:\n  sweep:\n    dir: here\n")
    assert folders.named(["seed=0,1"], "own") == ["seed=0,1"]
