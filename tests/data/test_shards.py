"""Shards: pictures are read where they lie, a new shard changes no split, and each defect is one line."""

import functools
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import BACKBONE, Answer, make_config, resize_to
from tlbench.base.errors import ConfigError, DataError
from tlbench.config.schema import Data
from tlbench.data import datasets, known, pictures, shards, sources, tfrecord, webdataset
from tlbench.data.datasets import SPLITS, Dataset
from tlbench.runs.run import Run

Command = Callable[..., Answer]
KINDS = ["tar", "tfrecord"]
Picture = tuple[str, bytes, int]  # its key, its file, its class


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written a moment ago are trusted."""
    monkeypatch.setattr(known, "COARSE_NS", 0)


def png(seed: int, size: int = 8) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)
    return encoded(pixels)


def encoded(pixels: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def some(count: int, first: int = 0) -> list[Picture]:
    """Noise in two classes."""
    return [(f"{i:04d}", png(i), i % 2) for i in range(first, first + count)]


def tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def records(path: Path, examples: Iterable[dict[str, Sequence[bytes] | Sequence[int]]]) -> Path:
    """As TensorFlow itself writes them."""
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for values in examples:
            features = {
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=list(value)))
                if value and isinstance(value[0], bytes)
                else tf.train.Feature(int64_list=tf.train.Int64List(value=list(value)))
                for name, value in values.items()
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    return path


def shard(kind: str, folder: Path, name: str, some: Sequence[Picture]) -> Path:
    if kind == "tar":
        members = [
            (f"{key}.{end}", content)
            for key, picture, label in some
            for end, content in (("png", picture), ("cls", str(label).encode()))
        ]
        return tar(folder / f"{name}.tar", members)
    examples = [
        {"image/encoded": [picture], "image/class/label": [label]} for _, picture, label in some
    ]
    return records(folder / f"{name}.tfrecord", examples)


@functools.cache
def composed(*overrides: str, within: Path) -> Data:
    """Of the folder that paths begin in; composing takes longer than reading what these tests make."""
    del within
    return make_config("data=shards", "data.root=shards", *overrides).data


def load(root: Path, *overrides: str) -> Dataset:
    here = {"root": str(root)}
    if "data.index=null" not in overrides:
        here["index"] = str(Path("cache", "index").absolute())
    return datasets.load(replace(composed(*overrides, within=Path.cwd()), **here), resize_to(8))


def refused(root: Path, *overrides: str) -> str:
    with pytest.raises((DataError, ConfigError)) as raised:
        load(root, *overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def sides(dataset: Dataset) -> dict[bytes, str]:
    """The split of each picture, by its digest."""
    return {i: split for split in SPLITS for i in dataset.ids_of(split).tolist()}


# ---------------------------------------------------------------- the same as a folder's pictures


def digits(kind: str, root: Path) -> None:
    """300 of scikit-learn's digits in three shards, in the order of their classes."""
    from sklearn.datasets import load_digits

    held = load_digits()
    gray = np.rint(held.images * (255 / 16)).astype(np.uint8)
    order = sorted(range(300), key=lambda i: (held.target[i], i))
    found = [(f"{i:04d}", encoded(gray[i]), int(held.target[i])) for i in order]
    for number in range(3):
        shard(kind, root, f"digits-{number}", found[number * 100 : number * 100 + 100])


def as_folder(dataset: Dataset, root: Path) -> Path:
    """The same pictures and splits as image files."""
    paths = dataset.images.paths  # type: ignore[attr-defined]
    for split, rows in dataset.splits.items():
        for row in rows:
            name = dataset.file(row).replace("/", "_")
            path = root / split / dataset.class_names[dataset.labels[row]] / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pictures.content(paths[row]))
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_is_the_same_as_on_a_folder(tlbench: Command, tmp_path: Path, kind: str) -> None:
    digits(kind, tmp_path / "shards")
    found = load(tmp_path / "shards")
    folder = as_folder(found, tmp_path / "folder")
    config = make_config("data=image_folder", f"data.root={folder}").data
    same = datasets.load(config, resize_to(8))
    assert found.class_names == same.class_names == [str(i) for i in range(10)]
    for split in SPLITS:
        np.testing.assert_array_equal(found.ids_of(split), same.ids_of(split))
        np.testing.assert_array_equal(found.labels_of(split), same.labels_of(split))
        rows = (found.splits[split], same.splits[split])
        np.testing.assert_array_equal(found.images.batch(rows[0]), same.images.batch(rows[1]))
    assert (found.contents, found.test_sha256) == (same.contents, same.test_sha256)

    words = (*BACKBONE, "trainable=false", "features.precision=float32", "head=ridge")
    for source, root in (("shards", "shards"), ("image_folder", "folder")):
        data = (f"data={source}", f"data.root={tmp_path / root}")
        answer = tlbench("train", *data, *words, f"hydra.run.dir={source}")
        assert answer.code == 0, answer.err
    ours, theirs = Run.open(Path("shards")), Run.open(Path("image_folder"))
    assert ours.metrics["test_accuracy"] == theirs.metrics["test_accuracy"] > 0.5
    assert ours.metrics["evaluation_loss"] == theirs.metrics["evaluation_loss"]
    listed = tlbench("cache")
    assert f"{300:,}" in listed.out  # the folder's features were those of the shards
    assert listed.out.count("small") == 1
    name = {"tar": "digits-0.tar/00", "tfrecord": "digits-0.tfrecord/0000"}[kind]
    assert name in (Path("shards") / "predictions.csv").read_text()
    answer = tlbench("evaluate", "shards")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("kind", KINDS)
def test_tables_and_corrections_know_pictures_by_their_paths(
    tlbench: Command, tmp_path: Path, kind: str
) -> None:
    made = shard(kind, tmp_path / "shards", "a", some(60))
    words = ("data=shards", f"data.root={made.parent}")
    answer = tlbench("data", "export", *words, "--out", "split.csv")
    assert answer.code == 0, answer.err
    first = load(made.parent)
    config = make_config("data=table", "data.table=split.csv", f"data.root={made.parent}").data
    again = datasets.load(config, resize_to(8))
    for split in SPLITS:
        np.testing.assert_array_equal(first.ids_of(split), again.ids_of(split))

    row = first.splits["train"][0]
    dropped = f"path,label,problem,suggestion,decision\n{first.file(row)},,,,drop\n"
    Path("corrections.csv").write_text(dropped)
    corrected = load(made.parent, "data.corrections=corrections.csv")
    assert set(sides(first)) - set(sides(corrected)) == {first.images.ids[row]}
    answer = tlbench("inspect", *words)
    assert answer.code == 0, answer.err
    assert "60 in 2 classes" in answer.out
    assert "PNG 60" in answer.out


# ---------------------------------------------------------------- what is known


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_start_reads_no_shard_that_has_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    opened: list[str] = []

    def counted(read: Callable[[Path], object]) -> Callable[[Path], object]:
        def open_(path: Path) -> object:
            opened.append(path.name)
            return read(path)

        return open_

    for module in (webdataset, tfrecord, pictures):
        monkeypatch.setattr(module, "opened", counted(module.opened))
    root = tmp_path / "shards"
    paths = [shard(kind, root, f"s{i}", some(30, 30 * i)) for i in range(2)]
    first = load(root)
    assert set(opened) == {path.name for path in paths}
    opened.clear()
    second = load(root)
    assert opened == []
    assert second.sha256 == first.sha256
    shard(kind, root, "s1", some(31, 30))
    assert len(load(root).images) == 61
    assert set(opened) == {paths[1].name}
    opened.clear()
    # Of other settings nothing is known yet.
    load(root, "data.label=" + {"tar": "cls", "tfrecord": "image/class/label"}[kind])
    assert sorted(opened) == sorted(path.name for path in paths)
    load(root, "data.index=null")
    assert len(opened) > 4


def test_a_damaged_index_of_a_shard_is_made_anew(tmp_path: Path, tlbench: Command) -> None:
    root = shard("tar", tmp_path / "shards", "a", some(30)).parent
    first = load(root)
    (file,) = Path("cache", "index").glob(known.SHARDS)
    whole = file.read_bytes()
    for damaged in (b"", whole[:-1], whole.replace(b"0003", b"0004"), b"[]"):
        file.write_bytes(damaged)
        assert load(root).sha256 == first.sha256
        assert file.read_bytes() == whole
    assert tlbench("cache", "--clear").code == 0
    assert not file.exists()


def test_a_shard_that_changes_under_a_run_is_noticed(tmp_path: Path) -> None:
    path = shard("tar", tmp_path / "shards", "a", some(30))
    dataset = load(path.parent, "data.memory_limit_gb=0")
    shard("tar", tmp_path / "shards", "a", some(30, 100))
    (kept,) = Path("cache", "index").glob(known.SHARDS)
    with pytest.raises(DataError, match=r"a\.tar/0000 has changed since the run began"):
        dataset.images.batch(np.array([0]))
    assert not kept.exists()  # it may have told where the picture lies
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"a\.tar/0000: the file ends before the picture does"):
        dataset.images.batch(np.array([0]))


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize("seed", [0, 3])
def test_the_key_decides(tmp_path: Path, seed: int) -> None:
    root = shard("tar", tmp_path / "shards", "a", some(400)).parent
    dataset = load(root, f"data.split_seed={seed}", "data.validation=0.25")
    for split, rows in dataset.splits.items():
        for row in rows:
            key = f"{seed} {dataset.file(row).removeprefix('a.tar/')}"
            value = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) / 2**64
            # A fifth is tested with, a quarter of the rest validates.
            assert split == ("test" if value < 0.2 else "validation" if value < 0.4 else "train")
    sizes = [len(dataset.splits[split]) for split in SPLITS]
    assert np.abs(np.array(sizes) - (240, 80, 80)).max() < 40  # four deviations


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_shard_moves_nobody(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "shards"
    shard(kind, root, "m", some(90))
    before = sides(load(root))
    for name, first in (("a", 1000), ("z", 2000)):
        shard(kind, root, name, some(50, first))
    after = sides(load(root))
    assert len(after) == 190
    assert before.items() <= after.items()
    # Nor does it matter in which shard a picture lies.
    shutil.rmtree(root)
    shard(kind, root, "other", some(90)[::-1])
    assert sides(load(root)) == before


def test_a_group_stays_where_it_is(tmp_path: Path) -> None:
    def patients(count: int, first: int) -> list[Picture]:
        return [(f"p{i % 12:02d}_{i}", png(i), i % 2) for i in range(first, first + count)]

    root = tmp_path / "shards"
    words = (r"data.group=(p\d+)_", "data.validation=0.25")
    shard("tar", root, "m", patients(72, 0))
    before = load(root, *words)
    of = [{before.file(row)[6:9] for row in before.splits[split]} for split in SPLITS]
    assert sum(map(len, of)) == len(set().union(*of)) == 12
    shard("tar", root, "a", patients(48, 500))
    assert sides(before).items() <= sides(load(root, *words)).items()


def test_equal_pictures_are_never_on_two_sides(tmp_path: Path) -> None:
    root = tmp_path / "shards"
    shard("tar", root, "a", some(100))
    before = sides(load(root))
    copies = [(f"copy{key}", picture, label) for key, picture, label in some(100)]
    shard("tar", root, "b", copies)
    dataset = load(root)
    of = [set(dataset.ids_of(split).tolist()) for split in SPLITS]
    assert sum(map(len, of)) == 100
    after = sides(dataset)
    # What was tested with is never trained on.
    assert all(after[i] == "test" for i, split in before.items() if split == "test")
    rank = ("test", "validation", "train").index
    assert all(rank(after[i]) <= rank(before[i]) for i in before)
    alone = load(root, "data.duplicates=ignore")
    assert sum(len(set(alone.ids_of(split).tolist())) for split in SPLITS) > 100


NAMED = [
    (("train-0.tar", "val-0.tar", "test-0.tar"), ("train", "validation", "test")),
    (("train/0.tar", "Validation/0.tar", "test/0.tar"), ("train", "validation", "test")),
    (
        ("digits_training_01.tar", "digits_dev_01.tar", "x.test.tar"),
        ("train", "validation", "test"),
    ),
]


@pytest.mark.parametrize(("names", "expected"), NAMED)
def test_splits_by_name_are_kept(
    tmp_path: Path, names: Sequence[str], expected: Sequence[str]
) -> None:
    """Keys begin anew in each."""
    for number, name in enumerate(names):
        keyed = [(f"{i}", png(100 * number + i), i % 2) for i in range(20)]
        shard("tar", tmp_path / "shards", name.removesuffix(".tar"), keyed)
    dataset = load(tmp_path / "shards")
    for name, split in zip(names, expected, strict=True):
        assert {dataset.file(row).rpartition("/")[0] for row in dataset.splits[split]} == {name}
        assert len(dataset.splits[split]) == 20


def test_what_no_name_says_is_drawn(tmp_path: Path) -> None:
    root = tmp_path / "shards"
    for number, name in enumerate(("a-one-0", "b-two-0")):
        shard("tar", root, name, some(60, 60 * number))
    every = load(root)
    assert {len(every.splits[split]) for split in SPLITS} != {60}
    (root / "b-two-0.tar").rename(root / "test.tar")
    dataset = load(root)
    assert len(dataset.splits["test"]) == 60
    assert 0 < len(dataset.splits["validation"]) < 20
    assert sides(load(root, "data.split=null")) == sides(every)
    (root / "test.tar").rename(root / "b-test of x.tar")
    (root / "a-one-0.tar").rename(root / "a-train of x.tar")
    dataset = load(root, r"data.split=-(\w+) of x")
    assert len(dataset.splits["test"]) == 60
    assert "finds what is no split in 1 shard: 'x' of a-train of x.tar" in refused(
        root, r"data.split=a-.* of (x)"
    )
    assert "fits none of 2 shards, such as a-train of x.tar" in refused(root, "data.split=(q)")
    assert (
        "has no brackets. Expected a pattern on the path whose brackets hold the split"
        in refused(root, "data.split=train")
    )


def test_folds_are_drawn_from_all(tmp_path: Path) -> None:
    root = shard("tar", tmp_path / "shards", "a", some(50)).parent
    tested = [load(root, "data.folds=5", f"data.fold={i}").ids_of("test") for i in range(5)]
    assert [len(ids) for ids in tested] == [10] * 5
    assert len(set(np.concatenate(tested).tolist())) == 50


# ---------------------------------------------------------------- labels


def test_labels_of_a_tar(tmp_path: Path) -> None:
    def loaded(
        *ends: tuple[str, Sequence[str]], words: Sequence[str] = ()
    ) -> tuple[list[str], list[int]]:
        members = [
            (f"a/{i:02d}.{end}", content)
            for i in range(40)
            for end, content in [("jpg", png(i)), *((e, v[i % 2].encode()) for e, v in ends)]
        ]
        root = tar(tmp_path / "labels" / "a.tar", members).parent
        dataset = load(root, *words)
        assert dataset.file(0) == "a.tar/a/00"
        return dataset.class_names, dataset.labels[:4].tolist()

    assert loaded(("cls", ["10", "9"])) == (["9", "10"], [1, 0, 1, 0])
    assert loaded(("cls", ["dog\n", " cat"])) == (["cat", "dog"], [1, 0, 1, 0])
    assert loaded(("txt", ["dog", "cat"])) == (["cat", "dog"], [1, 0, 1, 0])
    assert loaded(("cls", ["0", "1"]), ("txt", ["dog", "cat"])) == (["0", "1"], [0, 1, 0, 1])
    label = [json.dumps({"label": 7, "a": {"b": "x"}}), json.dumps({"label": 3, "a": {"b": "y"}})]
    assert loaded(("json", label)) == (["3", "7"], [1, 0, 1, 0])
    nested = loaded(("json", label), ("cls", ["1", "1"]), words=["data.label=json.a.b"])
    assert nested == (["x", "y"], [0, 1, 0, 1])
    assert loaded(("meta.json", label), words=["data.label=meta.json.a.b"]) == nested
    assert loaded(("json", ["5", '"six"'])) == (["5", "six"], [0, 1, 0, 1])
    assert loaded(("Text", ["1", "0"]), words=["data.label=text", "data.path=jpg"])[1] == [
        1,
        0,
        1,
        0,
    ]
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    words = ["data.names=names.txt"]
    assert loaded(("cls", ["1", "0"]), words=words) == (["ant", "bee"], [1, 0, 1, 0])
    assert loaded(("cls", ["bee", "ant"]), words=words) == (["ant", "bee"], [1, 0, 1, 0])
    words = ["data.class_names=['1','2']"]
    assert loaded(("cls", ["1", "0"]), words=words) == (["1", "2"], [1, 0, 1, 0])
    assert loaded(("cls", ["1", "2"]), words=words) == (["1", "2"], [0, 1, 0, 1])


def test_members_that_are_no_samples_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    members = [
        (f"./{i:02d}.{e}", c)
        for i in range(30)
        for e, c in [("PNG", png(i)), ("cls", b"%d" % (i % 2))]
    ]
    members += [("._00.png", b"x"), ("README", b"x"), ("00.seg.png", png(1)), ("99.cls", b"1")]
    dataset = load(tar(tmp_path / "shards" / "a.tar", members).parent)
    assert len(dataset.images) == 30
    assert "Left out 1 key without a picture: a.tar/99" in caplog.text


def test_labels_of_records(tmp_path: Path) -> None:
    def loaded(first: dict, second: dict, *words: str) -> tuple[list[str], list[int]]:  # type: ignore[type-arg]
        examples = [
            {"image/encoded": [png(i)], "image/height": [8], **(first, second)[i % 2]}
            for i in range(40)
        ]
        root = records(tmp_path / "r" / "r.tfrecord-00000-of-00001", examples).parent
        dataset = load(root, *words)
        return dataset.class_names, dataset.labels[:4].tolist()

    label, text = "image/class/label", "image/class/text"
    assert loaded({label: [10]}, {label: [9]}) == (["9", "10"], [1, 0, 1, 0])
    named = loaded({label: [7], text: [b"ant"]}, {label: [3], text: [b"bee"]})
    assert named == (["bee", "ant"], [1, 0, 1, 0])
    assert loaded({text: [b"ant"]}, {text: ["bée".encode()]}) == (["ant", "bée"], [0, 1, 0, 1])
    own = loaded({label: [1], "kind": [b"x"]}, {label: [1], "kind": [b"w"]}, "data.label=kind")
    assert own == (["w", "x"], [1, 0, 1, 0])
    with pytest.raises(DataError, match=r"1 name is those of several labels: ant\. Set data.names"):
        loaded({label: [7], text: [b"ant"]}, {label: [3], text: [b"ant"]})
    with pytest.raises(DataError, match=r"20 labels are out of range: '-1' of r\.tfrecord-00000"):
        loaded({label: [-1]}, {label: [3]})


def test_a_records_file_name_is_in_its_pictures_path(tmp_path: Path) -> None:
    examples = [
        {
            "photo": [png(i)],
            "image/class/label": [i % 2],
            "image/filename": [b"p%d_%d.png" % (i % 8, i)],
        }
        for i in range(48)
    ]
    root = records(tmp_path / "shards" / "a.tfrecord", examples).parent
    dataset = load(root, "data.path=photo", r"data.group=/(p\d)_")
    assert dataset.file(3) == "a.tfrecord/000003/p3_3.png"
    assert dataset.groups is not None
    assert len(set(dataset.groups.tolist())) == 8


def test_records_are_read_as_tensorflow_writes_them(tmp_path: Path) -> None:
    numbers = [-1, 0, 300, 2**63 - 1, -(2**63)]
    path = records(
        tmp_path / "a.tfrecord",
        [{"a": [b"first"], "image/encoded": [b"x" * 300], "n": [n]} for n in numbers],
    )
    found = tfrecord.read(path, "auto", "n").samples
    assert [sample.label for sample in found] == [str(n) for n in numbers]
    content = path.read_bytes()
    assert [content[s.offset : s.offset + s.length] for s in found] == [b"x" * 300] * 5


def test_numbers_one_by_one_and_fields_that_nobody_knows_are_read(tmp_path: Path) -> None:
    """As protobuf allows others to write them; TensorFlow packs the numbers of a list."""
    import tensorflow as tf

    def message(*fields: tuple[int, bytes]) -> bytes:
        return b"".join(bytes([8 * n + 2, len(held)]) + held for n, held in fields)

    number = message((3, b"\x08\x81\x01"))  # Feature { int64_list { value: 129 } }
    picture = message((1, message((1, b"pixels"))))
    entries = [(1, message((1, b"n"), (2, number))), (1, message((1, b"p"), (2, picture)))]
    unknown = b"\x10\x05" + b"\x1d" + bytes(4) + b"\x21" + bytes(8)
    example = message((1, message(*entries) + unknown))
    assert tf.train.Example.FromString(example).features.feature["n"].int64_list.value == [129]
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        writer.write(example)
    (sample,) = tfrecord.read(tmp_path / "a.tfrecord", "p", "n").samples
    assert sample.label == "129"
    held = (tmp_path / "a.tfrecord").read_bytes()
    assert held[sample.offset : sample.offset + sample.length] == b"pixels"


@pytest.mark.parametrize(
    ("data", "checksum"),
    # RFC 3720, appendix B.4, and the usual check value.
    [(bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (b"123456789", 0xE3069283)],
)
def test_checksums(data: bytes, checksum: int) -> None:
    assert tfrecord.crc32c(data) == checksum


# ---------------------------------------------------------------- defects


def test_folders_without_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root=null is not valid"):
        make_config("data=shards")
    assert "does not exist" in refused(tmp_path / "nothing")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.txt").write_text("x")
    assert "holds no shards. Expected *.tar" in refused(tmp_path / "x")
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "a.tfrecord-00000-of-00001").touch()
    config = make_config("data=image_folder", f"data.root={tmp_path / 'y'}").data
    with pytest.raises(DataError, match="It holds shards: data=shards"):
        sources.check(config)
    for name in ("a b.tar.gz", "b.tgz", "c.tfrecord-00000-of-00001.gz", "d.tar.gz"):
        (tmp_path / "x" / name).write_bytes(b"\x1f\x8b")
    message = refused(tmp_path / "x")
    assert message.startswith("4 shards are compressed")
    assert f"and 1 more. Unpack them: gunzip '{tmp_path}/x/a b.tar.gz'" in message
    for name in ("a b.tar", "b.tar", "c.tfrecord-00000-of-00001", "d.tar"):
        (tmp_path / "x" / name).write_bytes(b"\x1f\x8b0000000000000000000")
    assert "gzipped, whatever its name: gzip -dc unpacks it" in refused(tmp_path / "x")


READERS = {"tar": webdataset.read, "tfrecord": tfrecord.read}


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_that_is_cut_off_is_told_from_a_whole_one(tmp_path: Path, kind: str) -> None:
    path = shard(kind, tmp_path, "a", some(3))
    whole, begins = path.read_bytes(), {0}
    if kind == "tfrecord":  # without its last records it is whole
        while (at := max(begins)) < len(whole):
            begins.add(at + 16 + int.from_bytes(whole[at : at + 8], "little"))
    needed = (
        len(whole) if kind == "tfrecord" else 3 * 4 * 512 + 512
    )  # a tar ends with a block of zeros
    for at in {*range(1, needed, 37), *range(512, needed, 512), needed - 1} - begins:
        path.write_bytes(whole[:at])
        with pytest.raises(DataError, match=r"ends|end of data|truncated|empty"):
            READERS[kind](path, "auto", "auto")
    path.write_bytes(whole[:needed])
    assert len(READERS[kind](path, "auto", "auto").samples) == 3


def test_shards_that_are_cut_off_are_counted(tmp_path: Path) -> None:
    paths = [shard("tar", tmp_path / "shards", f"s{i}", some(9, 9 * i)) for i in range(5)]
    whole = paths[0].read_bytes()
    for path in paths[:4]:
        path.write_bytes(whole[:3000])
    message = refused(tmp_path / "shards")
    assert message.startswith(f"4 of 5 shards cannot be read to the end: {paths[0]} (")
    assert "and 1 more. Copy or make them anew" in message
    for path in paths[:4]:
        path.write_bytes(whole + whole)  # `cat` of two tars: readers end at the end of the first
    assert "something follows the end of the tar" in refused(tmp_path / "shards")


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_or_harmless(tmp_path: Path, kind: str) -> None:
    path = shard(kind, tmp_path, "a", some(4))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            held = READERS[kind](path, "auto", "auto")
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert all(0 <= s.offset <= s.offset + s.length <= len(whole) for s in held.samples)


def test_samples_that_are_no_samples_are_refused(tmp_path: Path) -> None:
    def told(members: list[tuple[str, bytes]], *words: str) -> str:
        shutil.rmtree(tmp_path / "shards", ignore_errors=True)
        return refused(tar(tmp_path / "shards" / "a.tar", members).parent, *words)

    good = [
        (f"{i:02d}.{e}", c)
        for i in range(9)
        for e, c in [("png", png(i)), ("cls", b"%d" % (i % 2))]
    ]
    message = told([m for m in good if m[0] not in ("00.cls", "02.cls", "03.cls", "05.cls")])
    assert message.startswith(
        "4 of 9 pictures have no label: a.tar/00, a.tar/02, a.tar/03 and 1 more."
    )
    assert told([*good, *good[:2]]).startswith(
        "2 samples have a key that is there twice: a.tar/00,"
    )
    message = told([*good, ("01.jpg", png(1))])
    assert message.startswith("1 sample has more than one picture: a.tar/01. Set data.path")
    assert told(good, "data.path=jpg").startswith(
        "The shards hold no pictures (a.tar/00, a.tar/01,"
    )
    assert told(good, "data.label=json.kind").startswith("9 of 9 pictures have no label")
    assert told(good, "data.class_names=[a]").startswith(
        "4 labels are out of range: '1' of a.tar/01, '1' of a.tar/03, '1' of a.tar/05 and 1 more. Expected one of the "
        "1 names of data.class_names, or its number from 0."
    )
    tar(tmp_path / "shards" / "b.tar", good[:8])
    message = refused(tmp_path / "shards")
    assert message.startswith(
        "8 samples have a key that is there twice: a.tar/00, a.tar/01, a.tar/02 and 5"
    )


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    root = shard("tar", tmp_path / "shards", "a", some(40)).parent
    assert "names.txt cannot be read (No such file" in refused(root, "data.names=names.txt")
    for text, words in (
        ("", "is empty"),
        ("a\nb\na\n", "has names twice: a."),
        ("a\n", "20 labels are out of range"),
    ):
        Path("names.txt").write_text(text)
        assert words in refused(root, "data.names=names.txt")


def test_shares_and_splits_that_cannot_be_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "shards"
    shard("tar", root, "a", some(6))
    assert "data.test=2" in refused(root, "data.test=2")
    assert "a share: shards are split by a hash of the key" in refused(root, "data.validation=2")
    assert "No picture of 6 falls into the test split, a share of 0.001" in refused(
        root, "data.test=0.001"
    )
    (root / "a.tar").rename(root / "test.tar")
    assert refused(root).startswith(
        "There is nothing to train on: every image is bound to validation or testing"
    )
    (root / "test.tar").rename(root / "train-or-test.tar")
    assert "names two splits. Set data.split" in refused(root)


def test_what_is_there_to_test_with_needs_nothing_to_train_on(tmp_path: Path) -> None:
    root = shard("tar", tmp_path / "shards", "test", some(6)).parent
    config = make_config("data=shards", f"data.root={root}").data
    tested = datasets.load_for_testing(config, resize_to(8), None, every=False)
    assert len(tested.splits["test"]) == 6
    folder = as_folder(tested, tmp_path / "folder")
    config = make_config("data=image_folder", f"data.root={folder}").data
    same = datasets.load_for_testing(config, resize_to(8), None, every=False)
    np.testing.assert_array_equal(np.sort(same.ids_of("test")), np.sort(tested.ids_of("test")))
    with pytest.raises(DataError, match="There is nothing to train on"):
        datasets.load(config, resize_to(8))


def test_pictures_that_cannot_be_read_are_left_out_or_refused(tmp_path: Path) -> None:
    found = [*some(40), ("bad", b"no picture", 1), ("empty", b"", 0)]
    root = shard("tar", tmp_path / "shards", "a", found).parent
    dataset = load(root)
    assert len(dataset.images) == 40
    assert dataset.unreadable[0].startswith(f"{root}/a.tar/bad: not a readable image (")
    assert len(dataset.unreadable) == 2
    assert refused(root, "data.unreadable=refuse").startswith(
        "2 of 42 images cannot be read, the first"
    )


def test_one_file_is_a_data_set_too(tmp_path: Path) -> None:
    path = shard("tar", tmp_path / "shards", "a", some(40))
    assert shards.find(path) == [path]
    assert load(path).file(0) == "a.tar/0000"
