"""What makes two runs the same: what was asked for and which images, not where they lie."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import TINY, Answer, make_config
from tlbench.base.errors import RunError
from tlbench.config import identity
from tlbench.config.identity import config_hash
from tlbench.report import comparison, rows
from tlbench.runs.results import Result
from tlbench.runs.run import Run

Command = Callable[..., Answer]


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("n_jobs=3", True),
        ("data.root=elsewhere", True),
        ("data.memory_limit_gb=1", True),
        ("data.index=elsewhere", True),
        ("data.index=null", True),
        ("features.folder=elsewhere", True),
        ("features.limit_gb=1", True),
        ("features.memory_limit_gb=1", True),
        ("features.batch_size=8", True),
        ("epochs=3", False),
        ("seed=1", False),
        ("data.validation=0.2", False),
        ("data.split_seed=1", False),
        ("features.precision=float32", False),
        ("backbone.image_size=64", False),
        ("backbone.interpolation=bicubic", False),
        ("batch_norm.statistics=frozen", False),
    ],
)
def test_what_makes_a_run_another_one(word: str, same: bool) -> None:
    words = ("data=image_folder", "data.root=photos")
    first, other = make_config(*words), make_config(*words, word)
    assert (config_hash(first) == config_hash(other)) is same
    assert identity.counts(word.partition("=")[0]) is not same


def test_weights_are_the_same_file_wherever_they_lie() -> None:
    words = ("data=digits", "backbone.weights=")
    here, there, none = (
        make_config(words[0], f"{words[1]}{w}") for w in ("/a.h5", "/b.h5", "null")
    )
    assert config_hash(here) == config_hash(there) != config_hash(none)


def result(folder: str, test: str = "t", **settings: object) -> Result:
    data = {"test_sha256": test, "fingerprint": str(settings.pop("fingerprint", "f"))}
    named = {key.replace("__", "."): value for key, value in settings.items()}
    settings = {"backbone.name": "vgg16", **named}
    metrics = {"evaluation": 0.5, "test_images": 100}
    return Result(Path(folder), "completed", "", settings, {"data": data}, metrics)


def test_seeds_are_one_row_wherever_data_and_features_lie() -> None:
    runs = [
        result("a", seed=0, features__folder="/one", data__root="/here"),
        result("b", seed=1, features__folder="/other", data__root="/there"),
    ]
    assert [row.count for row in rows.rows(runs)] == ["2 seeds"]
    runs.append(result("c", seed=2, fingerprint="other images", data__root="/third"))
    assert [len(row.runs) for row in rows.rows(runs)] == [2, 1]


def test_runs_of_another_validation_split_compare_on_the_same_test_images() -> None:
    a = rows.Row("a", (result("a", fingerprint="1", data__validation=0.1),))
    b = rows.Row("b", (result("b", fingerprint="2", data__validation=0.2),))
    with pytest.raises(RunError, match="no run"):  # it comes as far as reading their predictions
        comparison.compare(a, b)
    c = rows.Row("c", (result("c", test="other"),))
    with pytest.raises(RunError, match="tested on different images"):
        comparison.compare(a, c)


def test_a_run_goes_on_where_its_data_and_its_features_have_moved(
    tlbench: Command, photos: Path, tmp_path: Path
) -> None:
    words = (*TINY[1:-2], "data=image_folder", f"data.root={photos}", "trainable=false")
    assert tlbench("train", *words, "epochs=1", "hydra.run.dir=run").code == 0
    moved = photos.rename(tmp_path / "it's moved")
    answer = tlbench("train", "resume=run", "epochs=2")
    assert answer.code == 2
    assert "Set data.root to the folder with the data" in answer.error_lines[-1]
    places = (f"data.root={moved}", f"features.folder={tmp_path / 'new cache'}")
    answer = tlbench("train", "resume=run", "epochs=2", *places)
    assert answer.code == 0, answer.err
    run = Run.open(Path("run"))
    assert run.metrics["epochs"] == 2
    assert run.config().data.root == str(moved)
    assert list((tmp_path / "new cache").rglob("*.npy"))
    (moved / "grass" / "0.png").unlink()
    answer = tlbench("train", "resume=run", "epochs=3")
    assert answer.code == 2
    assert "its data changed" in answer.error_lines[-1]
    answer = tlbench("train", "resume=run", "epochs=3", "head.widths=[8]")
    assert answer.code == 2
    assert "Leave them out, or train anew without resume" in answer.error_lines[-1]
