"""Makes hostile and damaged run folders, some five hundred, and gives each of them to every verb.

    python tests/hostile.py

A verb may refuse, in one line; it may not end in a traceback, hang, eat the memory, follow a link out of the
folder, or take other runs with it. Prints every case that did. The suite tries some of them (test_hostile.py).
"""

import argparse
import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tlbench.base import files
from tlbench.cli import main as cli

SECONDS = 120  # that a verb may take
GROWTH = 2**30  # bytes by which it may need more memory than all before it
SETTINGS = (
    *("data=digits", "data.limit=300", "epochs=1", "trainable=false", "device=cpu"),
    *("backbone=mobilenet", "backbone.arguments.alpha=0.25", "backbone.weights=null"),
    *("backbone.image_size=32", "head=linear", "features.precision=float32"),
)
FILES = (
    *("manifest.json", "config.yaml", "metrics.json", "history.csv", "predictions.npz"),
    *("images.npz", "model.keras", "checkpoint/latest.npz", ".lock", "train.log"),
)
ODD: tuple[Any, ...] = (
    None,
    [],
    {},
    "\x1b[31m|=1+1",
    -1,
    2**70,
    1e308,
    True,
    [[[[[]]]]],
    "x" * 99_999,
)

FINE = re.compile(r"^(mobilenet|small) ", re.M)  # the row of the run that nobody touched
MANIFEST = (
    *("status", "data", "hardware", "versions", "weights", "features", "batch_norm"),
    *("files", "format", "reason", "extension", "moving", "resumed", "started"),
    *("config_hash", "command", "checksum"),
)
INNER = (
    *("data.class_names", "data.images", "data.fingerprint", "data.test_sha256"),
    *("data.unreadable", "data.images.test", "files.model~keras", "files.config~yaml"),
    *("hardware.device", "hardware.precision", "features.engine", "features.precision"),
    *("versions.tlbench",),
)
CONFIG = (
    *("backbone", "backbone.name", "backbone.builder", "backbone.architecture", "backbone.weights"),
    *("backbone.image_size", "backbone.arguments", "head.widths", "data.name"),
    *("data.source", "data.root", "data.class_names", "data.limit", "data.validation"),
    *("strategy.stages", "trainable", "epochs", "batch_size", "seed", "features.folder"),
    *("data.index", "features.batch_size", "published", "resume", "unknown"),
)
METRICS = (
    *("evaluation", "accuracy", "val_accuracy", "epochs", "parameters", "test_images"),
    *("latency_ms", "classes", "calibration_error", "stopped_early", "features_seconds"),
    *("unknown",),
)

Change = Callable[[Path], None]


def damages(path: Path) -> dict[str, Change]:
    """What may be wrong with one file, by name; each is given the run's folder."""

    def flip(share: float) -> Change:
        def change(folder: Path) -> None:
            content = bytearray((folder / path).read_bytes() or b"\0")
            content[int(share * (len(content) - 1))] ^= 0x10
            replace(folder / path, bytes(content))

        return change

    def becomes(make: Callable[[Path], object]) -> Change:
        def change(folder: Path) -> None:
            (folder / path).unlink()
            make(folder / path)

        return change

    def half(folder: Path) -> None:
        content = (folder / path).read_bytes()
        replace(folder / path, content[: len(content) // 2])

    def endless(place: Path) -> None:
        with place.open("wb") as file:
            file.truncate(2**40)

    return {
        **{f"flip at {share}": flip(share) for share in (0.0, 0.3, 0.7, 1.0)},
        "half": half,
        "empty": becomes(Path.touch),
        "missing": becomes(lambda _: None),
        "text": becomes(lambda place: place.write_text("\x1b]0;hello\a, no such thing")),
        "a terabyte": becomes(endless),
        "pipe": becomes(lambda place: os.mkfifo(place)),
        "folder": becomes(Path.mkdir),
        "link out": becomes(lambda place: place.symlink_to("/etc/hostname")),
        "link to itself": becomes(lambda place: place.symlink_to(place)),
        "link to nothing": becomes(lambda place: place.symlink_to("nowhere/at all")),
        "device": becomes(lambda place: place.symlink_to("/dev/zero")),
    }


def replace(path: Path, content: bytes) -> None:
    """Write a file anew: the one that was there may be linked from elsewhere."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a value by its dotted name, in which ~ is a dot of the name itself."""
    *parents, last = (part.replace("~", ".") for part in key.split("."))
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value


def _yaml(text: str) -> Any:
    return OmegaConf.to_container(OmegaConf.create(text))


def sealed(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest whose checksums are right, as a forger would."""
    manifest.pop("checksum", None)
    recorded = manifest.get("files")
    for name, facts in list(recorded.items()) if isinstance(recorded, dict) else ():
        if isinstance(facts, dict) and (folder / name).is_file():
            manifest["files"][name] = files.file_facts(folder / name)
    text = json.dumps({**manifest, "checksum": files.checksum(manifest)})
    replace(folder / "manifest.json", text.encode())


def forgeries() -> Iterator[tuple[str, Change]]:
    """Manifests, settings and figures of another shape, under checksums that are right."""

    def manifest_with(key: str, value: Any) -> Change:
        def change(folder: Path) -> None:
            manifest = json.loads((folder / "manifest.json").read_text())
            sealed(folder, {**manifest, key: value})

        return change

    def manifest_within(key: str, value: Any) -> Change:
        def change(folder: Path) -> None:
            manifest = json.loads((folder / "manifest.json").read_text())
            put(manifest, key, value)
            sealed(folder, manifest)

        return change

    def setting_as(name: str, read: Callable[[str], Any], key: str, value: Any) -> Change:
        def change(folder: Path) -> None:
            tree = read((folder / name).read_text())
            put(tree, key, value)
            replace(folder / name, json.dumps(tree).encode())  # JSON is YAML
            sealed(folder, json.loads((folder / "manifest.json").read_text()))

        return change

    def file_as(name: str, content: bytes) -> Change:
        def change(folder: Path) -> None:
            replace(folder / name, content)
            sealed(folder, json.loads((folder / "manifest.json").read_text()))

        return change

    for number, key in enumerate(MANIFEST):
        for value in ODD[number % 2 :: 2]:
            yield f"manifest {key}={str(value)[:20]!r}", manifest_with(key, value)
    for number, key in enumerate(INNER):
        for value in ODD[number % 2 :: 2]:
            yield f"manifest {key}={str(value)[:20]!r}", manifest_within(key, value)
    for name, read, keys in (
        ("config.yaml", _yaml, CONFIG),
        ("metrics.json", json.loads, METRICS),
    ):
        for number, key in enumerate(keys):
            for value in ODD[number % 3 :: 3]:
                yield f"{name} {key}={str(value)[:20]!r}", setting_as(name, read, key, value)
    deep = b"[" * 50_000
    bomb = b"a: &a [x, x]\n" + b"".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n".encode()
        for i in range(24)
    )
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.npy", bytes(2**26))
        archive.writestr("config.json", "{" * 9999)
    yield "model.keras a bomb", lambda folder: file_as("model.keras", _swollen())(folder)
    contents = (deep, bomb, zipped.getvalue(), b"null", b"{}", b"\xff\xfe", b"epoch\n\r\n", b"- x")
    for name in FILES[1:8]:
        for i, content in enumerate(contents):
            yield f"{name} forged {i}", file_as(name, content)


def _swollen() -> bytes:
    """An archive with two GiB of a model's architecture."""
    written = io.BytesIO()
    with (
        zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("config.json", "w", force_zip64=True) as member,
    ):
        for _ in range(2**11):
            member.write(b"[" * 2**20)
    return written.getvalue()


def cases() -> dict[str, Change]:
    """Every hostile folder by name: what to do to a good one."""
    found = {
        f"{name}: {kind}": change for name in FILES for kind, change in damages(Path(name)).items()
    }
    return found | dict(forgeries())


def good_run(folder: Path) -> Path:
    """A small finished run."""
    run = folder / "good"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert cli.main(["train", *SETTINGS, f"hydra.run.dir={run}"]) == 0
    return run


def try_case(name: str, change: Change, good: Path, folder: Path) -> list[str]:
    """Give one hostile folder to every verb; what went wrong, a line each."""
    place = folder / "case"
    shutil.rmtree(place, ignore_errors=True)
    bad = place / "runs" / "bad"
    shutil.copytree(good, bad, copy_function=os.link)
    shutil.copytree(good, place / "runs" / "fine", copy_function=os.link)
    change(bad)
    verbs = (
        ["report", str(place / "runs")],
        ["report", str(place / "runs"), "--html", str(place / "page.html")],
        ["evaluate", str(bad)],
        ["predict", str(bad), str(place)],
        ["export", str(bad), "--format", "keras"],
        ["train", f"resume={bad}"],
    )
    return [f"{name}, {words[0]}: {wrong}" for words in verbs if (wrong := answer(words))]


def answer(words: list[str]) -> str:
    """What is wrong with how a command ended; nothing where it did its work or refused in a line."""
    out, err = io.StringIO(), io.StringIO()
    before, needed = signal.signal(signal.SIGALRM, _late), _peak_bytes()
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(words)
    except TimeoutError:
        return "hangs"
    except BaseException as error:
        return f"raises {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    said = err.getvalue()
    if (grown := _peak_bytes() - needed) > GROWTH:
        return f"eats {grown / 2**30:.1f} GiB"
    errors = sum(line.startswith("tlbench: error:") for line in said.splitlines())
    if errors != (code == 2):
        return f"gives other than one line of error: {said.strip()[-300:]!r}"
    if code not in (0, 1, 2) or "internal error" in said or "Traceback" in said:
        return f"exit code {code}: {said.strip()[-300:]!r}"
    if "\x1b" in out.getvalue() + said:
        return "sends escapes to the terminal"
    if words[0] == "report" and "--html" not in words and "fine" not in out.getvalue() + said:
        return (
            "" if FINE.search(out.getvalue()) else f"loses the other run: {said.strip()[-200:]!r}"
        )
    return ""


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _late(*_: object) -> None:
    raise TimeoutError


def main() -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        os.environ["TLBENCH_CACHE"] = str(folder / "cache")
        os.chdir(folder)
        good, wrong = good_run(folder), []
        tried = cases()
        for number, (name, change) in enumerate(tried.items(), 1):
            found = try_case(name, change, good, folder)
            if number % 25 == 0:
                print(f"{number} of {len(tried)}", file=sys.stderr, flush=True)
            print("\n".join(found), end="\n" if found else "", flush=True)
            wrong += found
    print(f"{len(tried)} folders, every verb: {len(wrong)} failures")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
