"""Bad input, over all verbs: one line that says what is wrong, the right exit code, nothing left."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import MOBILENET, Answer
from tlbench.cli import verbs
from tlbench.runs.recording import Recording

Command = Callable[..., Answer]

TRAIN = ("train", *MOBILENET)
FOLDER = ("train", *MOBILENET[1:-1], "data=image_folder")
XCEPTION = ("data=digits", "backbone=xception", "backbone.weights=null", "backbone.image_size=32")

# (the words, a part of the line that answers them); {run} is a finished run.
BAD: list[tuple[tuple[str, ...], str]] = [
    # the command itself
    (("trian",), "Unknown verb 'trian'. Did you mean 'train'?"),
    (("--multirun",), "Unknown verb"),
    (("plugins", "all"), "Unrecognized arguments: all"),
    (("inspect",), "Name the data: data=image_folder"),
    (("inspect", "data=table"), "data.table=null is not valid. Expected the file of a table"),
    (("inspect", "data=table", "data.table=none.csv"), "is no file. Expected a table of pictures"),
    (("data", "exprt"), "Unknown export 'exprt'. Did you mean 'export'?"),
    (("data", "export", "epochs=3"), "'epochs=3' cannot be used here"),
    (("train", "backbone.builder=kears_hub"), "Did you mean 'keras_hub'?"),
    (("train", "data.source=digit"), "Did you mean 'digits'?"),
    ((*TRAIN, "tracker.name=jsonlines"), "Unknown tracker 'jsonlines'. Did you mean 'jsonl'?"),
    ((*TRAIN, "augment.flip=maybe"), "augment.flip=maybe is not valid. Expected true or false."),
    (("train", "--foo"), "unrecognized arguments: --foo"),
    (("train", "--resolve"), "--resolve goes with --cfg"),
    (("train", "--multirun", "--cfg", "job"), "Only one of"),
    (("train", "--config-dir", "nowhere"), "nowhere"),
    (("train", "seed=1", "--multirun", "epochs=0"), "job 0 (seed=1 epochs=0): epochs=0"),
    (("train", "--config-name", "tain"), "tain"),
    # names
    (("train", "backbon=resnet50"), "Did you mean 'backbone'?"),
    (("train", "backbone=resnet5"), "Unknown backbone 'resnet5'. Did you mean 'resnet50'?"),
    (("train", "report=resnet50"), "Unknown report 'resnet50'"),
    (("train", "head.width=[1]"), "Did you mean 'widths'?"),
    (("train", "lr=0.1"), "Did you mean 'learning_rate'?"),
    (("train", "root=photos"), "Did you mean 'data.root'?"),
    (("train", "patience=3"), "Did you mean 'early_stopping.patience'?"),
    (("train", "backbone=resnet18"), "Expected one of: convnexttiny, deit_small"),
    (("train", "backbone=efficientnetb1"), "Expected one of: convnexttiny, deit_small"),
    (("train", "+data.rot=x"), "Did you mean 'root'?"),
    (("train", "~batch_size"), "batch_size is not set"),
    (("train", "~backbone"), "backbone"),
    # values
    (("train", "head.widths=[1,"), "head.widths=[1,"),
    (("train", "epochs=many"), "epochs=many is not valid. Expected a whole number."),
    (("train", "epochs=-1"), "epochs=-1 is not valid. Expected at least 1."),
    (("train", "epochs=1,2"), "several values: a comma separates those of a --multirun."),
    (("train", "learning_rate=0,1"), "did you mean learning_rate=0.1?"),
    (("train", "optimizer.learning_rate.frozen=0,01"), "optimizer.learning_rate.frozen=0.01?"),
    (("train", "head.widths=64,32"), "A list has brackets: 'head.widths=[64,32]'"),
    (("train", "backbone=vgg16,resnet50"), "Expected one value, or train --multirun."),
    (("train", "head.widths=[0]"), "head.widths=[0]"),
    (("train", "head.widths=0"), "head.widths=[0]"),
    (("train", "early_stopping=true"), "early_stopping.patience=..."),
    (("train", "features=false"), "features.cache=..."),
    (("train", "strategy.stages=3"), "Expected one: 'strategy.stages=[...]'"),
    (("train", "optimizer.arguments=3"), "'optimizer.arguments={name:value}'"),
    (("train", "@new"), "Expected key=value"),
    (("train", "an_empty_folder"), "data=image_folder data.root=an_empty_folder"),
    (("train", "data=an_empty_folder"), "data=image_folder data.root=an_empty_folder"),
    (("train", "data=a_file"), "Expected one of: cifar10"),
    (("train", "head.name=a b("), """'head.name='"'"'a b('"'"''"""),
    (("train", "data=digits", "data.root=photos"), "add data=image_folder"),
    # the user's own YAML
    (("train", "--config-dir", "own", "data=tab"), "own/data/tab.yaml, line 2"),
    (("train", "--config-dir", "own", "data=twice"), "own/data/twice.yaml, line 3"),
    (("train", "--config-dir", "own", "data=latin"), "own/data/latin.yaml, line 2"),
    (("train", "--config-dir", "own", "data=list"), "data/list.yaml"),
    (("evaluate", "{run}", "data=tab", "--config-dir", "own"), "own/data/tab.yaml, line 2"),
    (("evaluate", "{run}", "data=digits", "--config-dir", "nowhere"), "--config-dir nowhere"),
    (("train", "head.widths=wide"), "head.widths"),
    (("train", "head.dropout=2"), "head.dropout=2"),
    (("train", "device=cuda"), "Unknown device 'cuda'"),
    (("train", "precision=half"), "Unknown precision 'half'"),
    (("train", "features.precision=int8"), "Unknown features.precision"),
    (("train", "trainable=false", "augment=standard"), "features.cache=false"),
    (("train", "learning_rate=-1"), "learning_rate=-1"),
    (("train", "learning_rate=nan"), "learning_rate=nan"),
    (("train", "data.validation=1.5"), "data.validation=1.5"),
    (("train", "backbone.preprocessing.mean=[1]"), "backbone.preprocessing"),
    # sweeps
    (("train", "--multirun", "report=glob(x*)"), "no job"),
    (("train", "--multirun", "epochs=1,0"), "job 1 (epochs=0): epochs=0"),
    (("train", "--multirun", "resume=nowhere"), "no sweep"),
    # what a network cannot be built of
    ((*TRAIN, "device=gpu"), "device=gpu"),
    ((*TRAIN, "backbone.architecture=ResNet5"), "Did you mean 'ResNet50'?"),
    ((*TRAIN, "backbone.architecture=ResNet18"), "Expected one of: ConvNeXtBase"),
    ((*TRAIN, "backbone.architecture=os.system"), "Unknown backbone.architecture 'os.system'"),
    ((*TRAIN, "optimizer.name=__import__"), "Unknown optimizer.name"),
    ((*TRAIN, "+backbone.arguments.alhpa=1"), "Did you mean 'alpha'?"),
    ((*TRAIN, "backbone.arguments={{alhpa:1}}"), "Did you mean 'alpha'?"),
    ((*TRAIN, "backbone.arguments.alpha=0.3", "backbone.weights=imagenet"), "backbone"),
    (("train", *XCEPTION), "Expected at least 71"),
    ((*TRAIN, "trainable=conv_pw_14"), "Did you mean 'conv_pw_"),
    (("train", "trainable=last10"), "one of its 187 layers, such as "),  # before any image is read
    ((*TRAIN, "optimizer.name=Adm"), "Did you mean 'Adam'?"),
    ((*TRAIN, "+optimizer.arguments.momentun=1"), "optimizer.arguments"),
    ((*TRAIN, "head.activation=rleu"), "Did you mean 'relu'?"),
    ((*TRAIN, "backbone.weights=nowhere.h5"), "nowhere.h5 does not exist"),
    ((*TRAIN, "backbone.weights=a_file"), "no Keras weights or model file"),
    # data
    ((*TRAIN, "data.source=osf"), "Unknown data.source 'osf'"),
    ((*TRAIN, "data.validation=5"), "data.validation=5"),
    ((*TRAIN, "data.limit=12"), "data.limit=12"),
    ((*FOLDER,), "data.root=null"),
    ((*FOLDER, "data.root=nowhere"), "nowhere does not exist"),
    ((*FOLDER, "data.root=a_file"), "is a file"),
    ((*FOLDER, "data.root=an_empty_folder"), "holds no images"),
    (("train", "data.root=an_empty_folder"), "add data=image_folder"),
    # where a run goes
    ((*TRAIN, "hydra.run.dir=a_file/x"), "hydra.run.dir"),
    ((*TRAIN, "hydra.run.dir={run}"), "holds a run already"),
    (("train", "resume=nowhere"), "nowhere is no run"),
    (("train", "resume={run}", "seed=9"), "seed is 0 there, 9 here"),
    # the other verbs
    (("bench", "data=digits", "--time", "soon"), "--time soon is no time."),
    (("bench", "data=image_folder", "data.root=nowhere"), "nowhere does not exist"),
    (("soup", "nowhere"), "nowhere does not exist"),
    (("soup", "run", "--outt", "x"), "--outt"),
    (("soup", "{run}"), "A soup needs two runs at least"),
    (("find-rate", *MOBILENET, "head=lineer"), "Did you mean 'linear'?"),
    (
        ("find-rate", *MOBILENET, "--low", "1", "--high", "1e-3"),
        "--low 1 --high 0.001 is no range.",
    ),
    (("find-rate", *MOBILENET, "--low", "0"), "Expected two rates above 0"),
    (("find-rate", *MOBILENET, "--high", "inf"), "Expected two rates above 0"),
    (
        ("find-rate", *MOBILENET, "--low", "slow"),
        "--low: invalid float value: 'slow'. See: tlbench",
    ),
    (("find-rate", *MOBILENET, "--steps", "5"), "--steps 5 is too few. Expected at least 20."),
    (("find-rate", *MOBILENET, "--out", "own"), "--out own is there already."),
    (("find-rate", *MOBILENET, "--out", "a_file"), "--out a_file is there already."),
    (("find-rate", *MOBILENET, "resume=run"), "find-rate begins anew. Leave resume=run out."),
    (("find-rate", *MOBILENET, "epochs=1,2"), "several values"),
    (("find-rate", *FOLDER[1:], "data.root=nowhere"), "nowhere does not exist"),
    (("find-rate", "data=digits", "strategy=probe_finetune", "trainable=false"), "nothing left to"),
    (("find-batch", "data=digits", "--memory", "0"), "--memory 0 is not valid."),
    (("find-batch", "data=digits", "--memory", "nan"), "--memory nan is not valid."),
    (("find-batch", "data=digits", "--most", "0"), "--most 0 is not valid. Expected at least 1."),
    (("find-batch", "data=digits", "--json", "no/b.json"), "its folder does not exist"),
    (("find-batch", "data=digits", "batch_size=0"), "batch_size=0 is not valid."),
    (("find-batch", "data=digits", "augment.zoom=2"), "augment.zoom=2 is not valid"),
    (("summary", *MOBILENET, "head=lineer"), "Did you mean 'linear'?"),
    (("summary", "data=image_folder", "data.root=nowhere"), "nowhere does not exist"),
    (("summary", "data=image_folder", "data.root=nowhere", "--show", "a.png"), "nowhere does not"),
    (("summary", *MOBILENET, "--show"), "--show expects a file"),
    (("summary", *MOBILENET, "--show", "drawn.txt"), "--show drawn.txt is not valid"),
    (("summary", *MOBILENET, "--show=no/drawn.png"), "its folder does not exist"),
    (("summary", *MOBILENET, "augment.zoom=2", "--show=drawn.png"), "augment.zoom=2 is not valid"),
    (("evaluate",), "required: RUN. "),
    (("evaluate", "{run}", "data.root=*x"), "add data=image_folder"),
    (("evaluate", "{run}", "data=image_folder", "data.root={{a"), "{a does not exist"),
    (("evaluate", "{run}", "data.limit=[1"), "'data.limit=[1' cannot be read"),
    (("evaluate", "{run}", "data.limit=3,4"), "several values"),
    (("evaluate", "nowhere"), "nowhere is no run"),
    (("evaluate", "a_file"), "a_file"),
    (("evaluate", "{run}", "data=cifar10"), "class"),
    (("evaluate", "{run}", "epochs=3"), "epochs"),
    (("evaluate", "{newer}"), "newer tlbench"),
    (("evaluate", "{damaged}"), "damaged"),
    (("evaluate", "{running}"), "was killed. Go on with: tlbench train resume="),
    (("predict", "{run}"), "required"),
    (("predict", "{run}", "a_file", "--top", "0"), "--top 0"),
    (("predict", "{run}", "a_file", "--csv", "no/where.csv"), "no"),
    (("predict", "{bare}", "a_file"), "model.keras"),
    (("export", "{run}"), "required"),
    (("export", "{run}", "--format", "onyx"), "onnx"),
    (("export", "{run}", "--format", "onnx", "--quantize", "int8"), "litert"),
    (("report", "nowhere"), "nowhere"),
    (("report", "an_empty_folder"), "an_empty_folder"),
    (("report", "{run}", "--sort", "accuracee"), "accuracy"),
    (("report", "{run}", "--where", "colour=red"), "colour"),
    (("report", "{run}", "--html", "no/where.html"), "no"),
    # what cannot be written, before anything is computed
    (("bench", "data=digits", "--out", "/proc/b"), "--out /proc/b cannot be written"),
    (("bench", "data=digits", "--out", "a_file/b"), "--out a_file/b cannot be written"),
    (("inspect", "data=digits", "--out", "/proc/b"), "--out /proc/b cannot be written"),
    (("find-rate", "data=digits", "--out", "/proc/b"), "--out /proc/b cannot be written"),
    (("data", "export", "data=digits", "--out", "/proc/t"), "--out /proc/t cannot be written"),
    (("report", "{run}", "--html", "/proc/r.html"), "--html /proc/r.html cannot be written"),
    (("report", "{run}", "--csv", "/proc/r.csv"), "--csv /proc/r.csv cannot be written"),
    (("predict", "{run}", "a_file", "--csv", "/proc/p.csv"), "--csv /proc/p.csv cannot be"),
    (("predict", "{run}", "a_file", "--json", "/proc/p.json"), "--json /proc/p.json cannot be"),
    (("report", "{run}", "--compare", "a", "b"), "a"),
    (("cache", "--prune", "-1"), "--prune -1"),
    (("cache", "--pune", "1"), "--pune"),
]

OWN = {
    "tab": b"name: x\n\tsource: digits\n",
    "twice": b"name: x\nsource: digits\nname: y\n",
    "latin": "name: x\nroot: Übung\n".encode("latin-1"),
    "list": b"- name\n",
}


@pytest.fixture
def runs(digits_run: Path, tmp_path: Path) -> dict[str, Path]:
    """A finished run, and manifests that no verb should trust."""
    found = {"run": digits_run}
    whole = json.loads((digits_run / "manifest.json").read_text())
    for name, text in {
        "newer": json.dumps(whole | {"format": 99}),
        "damaged": json.dumps(whole)[:50],
        "running": json.dumps(whole),
        "bare": json.dumps(whole),
    }.items():
        found[name] = tmp_path / name
        found[name].mkdir()
        (found[name] / "manifest.json").write_text(text)
        shutil.copy(digits_run / "config.yaml", found[name])
    Recording.open(found["running"]).record(status="running")
    return found


@pytest.mark.parametrize(("words", "expected"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_gets_one_line_and_leaves_nothing(
    tlbench: Command,
    tmp_path: Path,
    runs: dict[str, Path],
    words: tuple[str, ...],
    expected: str,
) -> None:
    (tmp_path / "a_file").write_text("hello")
    (tmp_path / "an_empty_folder").mkdir()
    (tmp_path / "own" / "data").mkdir(parents=True)
    for name, content in OWN.items():
        (tmp_path / "own" / "data" / f"{name}.yaml").write_bytes(content)
    before = sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts)
    answer = tlbench(
        *(word.format(**runs) if word[0] == "{" or "={" in word else word for word in words)
    )
    assert answer.code == 2, answer.err
    assert len(answer.error_lines) == 1
    line = answer.error_lines[0]
    assert line.startswith("tlbench: error: ")
    assert expected in line
    assert not re.search(r"Traceback|\b[A-Z]\w+(Error|Exception)\b|internal error", line)
    assert answer.out == ""
    assert sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts) == before


def test_every_verb_is_given_bad_input() -> None:
    assert {words[0] for words, _ in BAD} >= set(verbs.NAMES)
