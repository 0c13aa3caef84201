"""The schema: every file in conf/ composes, and what does not fit is refused by name."""

from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf, ValidationError

from helpers import make_config
from tlbench.base.errors import ConfigError
from tlbench.config import checks, compose, omegaconf_errors, words
from tlbench.config.identity import config_hash
from tlbench.config.schema import BatchNorm
from tlbench.data import augmentations

CONF = compose.conf_dir()
CHOICES = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(CONF.glob("*/*.yaml"))
    if path.parent.name != "hydra"
]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_into_the_schema(choice: str) -> None:
    needed = {  # what cannot be known without the user
        "data=image_folder": ["data.root=photos"],
        "data=table": ["data.table=labels.csv"],
        "task=multilabel": ["data=table", "data.table=labels.csv"],
        "data=shards": ["data.root=shards"],
        "backbone=file": ["backbone.weights=model.keras", "backbone.image_size=32"],
    }
    extra = needed.get(choice, [])
    cfg = make_config(choice, *extra)
    group, name = choice.split("=")
    if group in ("backbone", "head", "data", "loss", "schedule", "strategy", "tracker"):
        assert getattr(cfg, group).name == name
    if group == "task":
        assert cfg.data.task == name
    if group == "augment":
        assert cfg.augment["name"] == name


def test_the_defaults_are_the_reports_task() -> None:
    cfg = make_config("backbone=mobilenetv3", "head=exp")
    assert (cfg.trainable, cfg.epochs, cfg.data.name) == (True, 5, "cifar100")
    assert cfg.head.widths == [1024, 1024, 512]
    assert len(cfg.data.class_names or []) == 20
    assert make_config("backbone=resnet50").head.widths == [1024, 512]
    assert make_config("backbone=mobilenetv3").head.widths == [512, 512, 512]


def test_the_published_rows_are_the_reports_table() -> None:
    rows = {p.stem: make_config(f"report={p.stem}") for p in (CONF / "report").glob("*.yaml")}
    assert {name: (c.published.parameters, c.published.evaluation) for name, c in rows.items()} == {
        "resnet50_fc": (26_220_948, 0.6551),
        "resnet50_all": (26_220_948, 0.8661),
        "mobilenetv3_fc": (4_023_956, 0.6348),
        "mobilenetv3_all": (4_023_956, 0.8125),
        "mobilenetv3_exp": (5_565_076, 0.8288),
    }
    assert all(c.batch_norm == BatchNorm("batch", None, False) for c in rows.values())
    assert {n for n, c in rows.items() if c.trainable is False} == {"resnet50_fc", "mobilenetv3_fc"}


def test_the_fine_classes_stand_in_twenty_superclasses_of_five() -> None:
    fine, coarse = make_config("data=cifar100_fine").data, make_config("data=cifar100").data
    assert fine.superclasses is not None
    assert list(fine.superclasses) == coarse.class_names
    members = [name for names in fine.superclasses.values() for name in names]
    assert sorted(members) == fine.class_names
    assert {len(names) for names in fine.superclasses.values()} == {5}


def test_a_saved_configuration_loads_equal(tmp_path: Path) -> None:
    cfg = make_config("report=resnet50_fc", "data.root=somewhere", "optimizer=sgd")
    (tmp_path / "config.yaml").write_text(cfg.to_yaml())
    assert checks.load(tmp_path / "config.yaml") == cfg


def test_the_hash_covers_what_changes_results_and_nothing_else() -> None:
    base = make_config()
    assert config_hash(make_config("n_jobs=3", "features.folder=elsewhere")) == config_hash(base)
    assert config_hash(make_config("seed=1")) != config_hash(base)
    assert config_hash(make_config("head.widths=[1]")) != config_hash(base)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epochs=abc", "epochs=abc is not valid. Expected a whole number."),
        ("epochs=0", "epochs=0 is not valid. Expected at least 1."),
        ("batch_size=-3", "batch_size=-3"),
        ("head.widths=[-1]", "head.widths=[-1]"),
        ("head.dropout=1.0", "head.dropout=1.0"),
        ("seed=-1", "seed=-1"),
        ("device=tpu", "Expected one of: auto, cpu, gpu."),
        ("precision=float23", "Did you mean 'float32'?"),
        ("trainable=null", "trainable=null"),
        ("learning_rate=0", "learning_rate=0"),
        ("data.validation=2.5", "data.validation=2.5"),
        ("data.validation=0", "data.validation=0"),
        ("data.resize=zoom", "Unknown data.resize 'zoom'"),
        ("data.limit=1", "data.limit=1"),
        ("data=image_folder", "data.root=null"),
        ("batch_norm.momentum=1.5", "batch_norm.momentum=1.5"),
        ("batch_norm.recalibrate=maybe", "batch_norm.recalibrate=maybe"),
        ("backbone.image_size=0", "backbone.image_size=0"),
        (
            "backbone.interpolation=lanczos",
            "Unknown backbone.interpolation 'lanczos'. Expected one of: bicubic, bilinear.",
        ),
        ("+head.foo=1", "Unknown setting 'head.foo'"),
        ("+head.widht=1", "Did you mean 'widths'?"),
        ("+nonsense=1", "Unknown setting 'nonsense'"),
        ("~epochs", "epochs"),
        ("~seed", "seed is not set"),
        ("strategy.stages=[]", "strategy.stages"),
        ("early_stopping.monitor=val_f1", "Did you mean 'val_macro_f1'?"),
        ("early_stopping.patience=0", "early_stopping.patience=0"),
        ("features.engine=torch", "Unknown features.engine 'torch'"),
        ("features.max_noise=-1", "features.max_noise=-1"),
        ("schedule.warmup=1", "schedule.warmup=1"),
        ("loss=focl", "Unknown loss 'focl'."),
        ("loss.label_smoothing=1", "loss.label_smoothing=1"),
        (
            "loss.class_weights=balancd",
            "Unknown loss.class_weights 'balancd'. Did you mean 'balanced'?",
        ),
        (
            "loss.class_weights=3",
            "loss.class_weights=3 is not valid. Expected null, balanced, or a number",
        ),
        (
            "loss.class_weights={}",
            "loss.class_weights={} is not valid. Expected null, balanced, or a",
        ),
        (
            "loss.class_weights={cat:0}",
            "loss.class_weights.cat=0 is not valid. Expected a number above 0.",
        ),
        ("loss.class_weights={cat:much}", "loss.class_weights.cat=much is not valid."),
        (
            "optimizer.layer_decay=1",
            "optimizer.layer_decay=1.0 is not valid. Expected above 0 and below 1, or null.",
        ),
        (
            "optimizer.ema=0",
            "optimizer.ema=0.0 is not valid. Expected above 0 and below 1, or null.",
        ),
        ("optimizer.clipnorm=0", "optimizer.clipnorm=0.0 is not valid. Expected a number above 0."),
        ("loss.gamma=2", "loss.gamma=2.0 is not valid. Expected null, or loss=focal beside it."),
        ("data.sampling=fair", "Unknown data.sampling 'fair'. Expected one of: balanced, natural."),
    ],
)
def test_what_does_not_fit_is_refused_by_name(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        make_config(override)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["loss=focal", "loss.gamma=-1"],
            "loss.gamma=-1.0 is not valid. Expected a number of at least 0",
        ),
        (["loss=focal", "loss.alpha=0"], "loss.alpha=0.0 is not valid. Expected a number above 0"),
        (["loss=focal", "loss.alpha=null"], "loss.alpha=null is not valid."),
        (
            ["head=ridge", "loss=focal"],
            "loss.name=focal is not valid. Expected cross_entropy: head.solver=ridge",
        ),
        (
            ["head=logistic", "loss.label_smoothing=0.1"],
            "loss.label_smoothing=0.1 is not valid. Expected 0",
        ),
        (
            ["head=nearest", "loss.class_weights=balanced"],
            "Expected null: votes of head.solver=nearest count alike",
        ),
        (
            ["head=nearest", "data.sampling=balanced"],
            "Expected natural: votes of head.solver=nearest count alike",
        ),
        (["data.sampling=balanced", "loss.class_weights=balanced"], "make up for the same twice"),
    ],
)
def test_a_loss_that_cannot_be_had_is_refused_by_name(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        make_config(*overrides)
    assert words in str(refusal.value)


def test_weights_of_classes_whose_names_are_numbers_are_saved_and_read(tmp_path: Path) -> None:
    cfg = make_config("loss.class_weights={0:5,yes:0.5,blue sky:2}")
    assert cfg.loss.class_weights == {"0": 5, "yes": 0.5, "blue sky": 2}
    (tmp_path / "config.yaml").write_text(cfg.to_yaml())
    assert checks.load(tmp_path / "config.yaml") == cfg


def test_statistics_that_are_frozen_cannot_be_recomputed() -> None:
    with pytest.raises(
        ConfigError, match=r"would replace what batch_norm\.statistics=frozen keeps"
    ):
        make_config("batch_norm.statistics=frozen", "batch_norm.recalibrate=true")


def test_a_mapping_where_one_value_belongs_is_refused_by_name() -> None:
    for value, kind, expected in (({"a": 1}, "str", "one value"), (True, "EarlyStopping", "")):
        said = f"Invalid type assigned: dict is not a subclass of {kind}. value: {value}"
        error = ValidationError(said)
        error.full_key, error.msg = "early_stopping", said
        assert "early_stopping=" in omegaconf_errors.explain(error)
        assert (expected or "early_stopping.patience=...") in omegaconf_errors.explain(error)


def test_a_single_width_is_a_list_of_one() -> None:
    assert make_config("head.widths=64") == make_config("head.widths=[64]")


def test_what_is_an_interpolation_elsewhere_is_text_in_a_composed_path() -> None:
    assert make_config(r"data.root='/a/\${oc.env:HOME}'").data.root == "/a/${oc.env:HOME}"


def test_arguments_of_another_library_take_new_names() -> None:
    typed = ["optimizer=sgd", "optimizer.arguments={weight_decay:0.1}", "optimizer.arguments.x=1"]
    arguments = make_config(*words.for_hydra(typed)).optimizer.arguments
    assert arguments == {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "x": 1}


def test_any_launcher_composes() -> None:
    for launcher in ("basic", "tlbench"):
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            composed = hydra.compose(
                "train", [f"hydra/launcher={launcher}", "n_jobs=3"], return_hydra_config=True
            )
        assert composed.hydra.launcher.get("n_jobs", 3) == 3


def test_shifts_cannot_be_cached() -> None:
    with pytest.raises(ConfigError, match=r"features\.cache=false"):
        augmentations.check(make_config("trainable=false", "augment=standard"))
    augmentations.check(make_config("trainable=false", "augment=standard", "features.cache=false"))
    with pytest.raises(ConfigError, match=r"augment\.mixup=0\.2 gives every epoch other images"):
        augmentations.check(make_config("trainable=false", "augment.mixup=0.2"))
    augmentations.check(make_config("trainable=false", "augment=flip"))
    augmentations.check(make_config("trainable=false", "augment=standard", "augment.views=4"))
    with pytest.raises(ConfigError, match=r"augment\.cutmix=1\.0 gives every epoch other images"):
        augmentations.check(
            make_config(
                "trainable=false", "augment.views=4", "augment.cutmix=1.0", "augment.zoom=0.1"
            )
        )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("augment.flip=maybe", "augment.flip=maybe is not valid. Expected true or false."),
        ("augment.shift=1", "augment.shift=1 is not valid. Expected at least 0 and below 1."),
        (
            "augment.rotation=200",
            "augment.rotation=200 is not valid. Expected degrees above 0, up to",
        ),
        ("augment.zoom=-0.1", "augment.zoom=-0.1 is not valid. Expected a share above 0, up to 1;"),
        ("augment.erasing=true", "augment.erasing=True is not valid. Expected a share above 0"),
        ("augment.hue=0.6", "augment.hue=0.6 is not valid. Expected a share of the colour circle"),
        ("augment.blur=nan", "augment.blur=nan is not valid. Expected a share of the size"),
        ("augment.contrast=much", "augment.contrast=much is not valid. Expected a share above 0"),
        (
            "augment.randaugment=11",
            "augment.randaugment=11 is not valid. Expected a strength above",
        ),
        ("augment.mixup=-1", "augment.mixup=-1 is not valid. Expected the parameter of a beta"),
        (
            "augment.cutmix=true",
            "augment.cutmix=True is not valid. Expected the parameter of a beta",
        ),
        ("augment.views=1", "augment.views=1 is not valid. Expected a whole number of at least 2"),
        ("augment.views=many", "augment.views=many is not valid. Expected a whole number of at"),
        ("augment.flap=true", "Unknown augmentation 'flap'. Did you mean 'flip'?"),
    ],
)
def test_an_augmentation_that_is_none_is_refused_by_name(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        augmentations.check(make_config("augment=flip", override))
    assert words in str(refusal.value)


def test_nothing_in_a_configuration_is_a_default_of_python() -> None:
    """Every value stands in YAML: an empty mapping has nothing to fall back on."""
    with pytest.raises(ConfigError, match="is not set"):
        checks.load(OmegaConf.create({}))


def test_the_index_lies_beside_the_features_unless_told_otherwise(tmp_path: Path) -> None:
    cfg = make_config()
    assert (cfg.data.index, cfg.features.folder) == (
        str(tmp_path / "cache" / "index"),
        str(tmp_path / "cache" / "features"),
    )
    assert make_config("data.index=a, b").data.index == str(tmp_path / "a, b")
    assert make_config("data.index=null").data.index is None


def test_the_published_models_are_those_of_the_last_epoch() -> None:
    names = [path.stem for path in (compose.conf_dir() / "report").glob("*.yaml")]
    assert len(names) == 5
    assert {compose.compose([f"report={name}"]).keep for name in names} == {"last"}
    assert compose.compose([]).keep == "best"
