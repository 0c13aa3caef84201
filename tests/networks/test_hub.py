"""KerasHub's networks: built from YAML alone, fed as KerasHub feeds them, cached, fine-tuned, saved and exported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import Answer, make_config, resize_to
from tlbench.data.decoding import decode
from tlbench.features import engines
from tlbench.networks import backbones, classifiers
from tlbench.networks.backbones import inside
from tlbench.networks.fused import accelerate, exportable
from tlbench.networks.hardware import Machine, keras
from tlbench.runs.run import Run

keras_hub = pytest.importorskip("keras_hub")
Command = Callable[..., Answer]
CPU = Machine("cpu", "a processor", bfloat16=False, jit_compile=False)

# Parameters of the backbones, as KerasHub's list of presets has them; where that one counts something else,
# what is left: DINOv2 at 224 pixels, SigLIP without its texts, two without their classifiers.
PARAMETERS = {
    "dinov2_small": 21_727_872,  # twice 1,113 x 384 fewer: both tables of positions are of 16 x 16 patches
    "dinov3_small": 21_596_544,
    "siglip_base": 92_884_420,
    "deit_small": 21_666_432,
    "vit_base": 85_798_656,
    "hgnetv2_b4": 13_599_072,
    "efficientnet_lite0": 3_413_024,
    "resnet_vd50": 23_580_512,
}
# The same families, small: image size, arguments that are set, tokens before the patches, a first unit to train.
SMALL: dict[str, tuple[int, dict[str, Any], int, str]] = {
    "dinov2_small": (
        28,
        {"num_layers": 2, "hidden_dim": 16, "num_heads": 2, "intermediate_dim": 32},
        1,
        "layers_1",
    ),
    "dinov3_small": (
        32,
        {"num_layers": 2, "hidden_dim": 16, "num_heads": 2, "intermediate_dim": 32},
        5,
        "layers_1",
    ),
    "siglip_base": (
        32,
        {"num_layers": 2, "hidden_dim": 16, "num_heads": 2, "intermediate_dim": 32},
        0,
        "encoder_block_1",
    ),
    "deit_small": (
        32,
        {"num_layers": 2, "hidden_dim": 16, "num_heads": 2, "intermediate_dim": 32},
        2,
        "transformer_block_2",
    ),
    "vit_base": (
        32,
        {"num_layers": 2, "hidden_dim": 16, "num_heads": 2, "mlp_dim": 32},
        1,
        "transformer_block_2",
    ),
    "hgnetv2_b4": (
        32,
        {
            "depths": [1, 1, 1, 1],
            "embedding_size": 8,
            "hidden_sizes": [8, 16, 16, 32],
            "stem_channels": [3, 8, 8],
            "stackwise_stage_filters": [
                *([8, 8, 8, 1, 2, 3], [8, 8, 16, 1, 2, 3]),
                *([16, 8, 16, 1, 2, 5], [16, 8, 32, 1, 2, 5]),
            ],
        },
        0,
        "encoder_stage_3",
    ),
    "efficientnet_lite0": (
        32,
        {"stackwise_num_repeats": [1] * 7, "stackwise_width_coefficients": [0.25] * 7},
        0,
        "block6a_expand_conv",
    ),
}
POOLING = {"dinov2_small": "cls+average", "deit_small": "cls", "vit_base": "cls"}


def words(name: str, *more: str) -> list[str]:
    size, arguments, _, _ = SMALL[name]
    return [
        *(f"backbone={name}", "backbone.weights=null", f"backbone.image_size={size}"),
        *(f"backbone.arguments.{key}={value}".replace(" ", "") for key, value in arguments.items()),
        *("data=digits", "head.widths=[8]", "batch_size=16", *more),
    ]


def small(name: str) -> classifiers.Classifier:
    size = SMALL[name][0]
    return classifiers.build(make_config(*words(name)), (size, size, 3), 10)


def pixels(name: str, count: int = 4) -> np.ndarray:
    size = SMALL[name][0]
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", PARAMETERS)
def test_arguments_make_the_published_network(name: str) -> None:
    cfg = make_config(f"backbone={name}", "backbone.weights=null").backbone
    assert cfg.licence
    built = backbones.build(cfg)
    assert built.model.count_params() == PARAMETERS[name]
    preset = getattr(keras_hub.models, str(cfg.architecture), keras_hub.models.SigLIPBackbone)
    presets = {**preset.presets, **keras_hub.models.SigLIPBackbone.presets}
    assert cfg.preset in presets


# As the converters of the presets have it, where KerasHub's tools that made them say so (convert_*_checkpoints.py):
# of HGNetV2 and EfficientNet-Lite it is timm's; where nothing is said it is the converter's default.
INTERPOLATION = {
    **dict.fromkeys(("dinov2_small", "dinov2_base", "siglip_base", "deit_small"), "bicubic"),
    **dict.fromkeys(("hgnetv2_b4", "efficientnet_lite0"), "bicubic"),
    **dict.fromkeys(("dinov3_small", "vit_base", "resnet_vd50"), "bilinear"),
}


@pytest.mark.parametrize("name", INTERPOLATION)
def test_a_larger_picture_becomes_what_kerashub_makes_of_it(name: str, tmp_path: Path) -> None:
    cfg = make_config(f"backbone={name}").backbone
    assert cfg.interpolation == INTERPOLATION[name]
    rng = np.random.default_rng(0)
    # Of middling values: Pillow cuts off what exceeds 0-255 after the rows, and again after the columns.
    picture = rng.integers(60, 196, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    converter = keras_hub.layers.ImageConverter(
        image_size=(224, 224),
        interpolation=INTERPOLATION[name],
        antialias=True,
        crop_to_aspect_ratio=False,
    )
    theirs = keras.ops.convert_to_numpy(converter(picture.astype("float32")))
    ours = decode(tmp_path / "a.png", resize_to(224, "stretch", cfg.interpolation))
    assert np.abs(theirs - ours).max() < 2


@pytest.mark.parametrize("name", SMALL)
def test_a_classifier_is_fed_cached_copied_and_saved_alike(name: str, tmp_path: Path) -> None:
    classifier, images = small(name), pixels(name)
    model = classifier.model
    # As KerasHub: its converter, its forward pass, and features by hand from what comes out.
    cfg = make_config(*words(name)).backbone
    assert cfg.preprocessing is not None
    mean, std = np.array(cfg.preprocessing.mean), np.array(cfg.preprocessing.std)
    size = (cfg.image_size, cfg.image_size)
    converter = keras_hub.layers.ImageConverter(
        image_size=size, scale=(1 / std).tolist(), offset=(-mean / std).tolist()
    )
    given = classifier.backbone(converter(images.astype("float32")))
    output, others = keras.ops.convert_to_numpy(given), SMALL[name][2]
    if output.ndim == 3:
        patches = output[:, others:].mean(axis=1)
        parts = {"average": [patches], "cls": [output[:, 0]]}
        parts["cls+average"] = [output[:, 0], patches]
        expected = np.concatenate(parts[cfg.pooling], axis=1)
    else:
        expected = output.mean(axis=(1, 2)) if output.ndim == 4 else output
    features = classifier.features
    ours = features.predict(images, verbose=0)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    for engine in engines.NAMES:
        built = engines.build(engine, features, "float32", CPU, len(images))
        (found,) = list(built.run(iter([images])))
        np.testing.assert_allclose(found, ours, atol=2e-4)
    answers = model.predict(images, verbose=0)
    for copy in (accelerate(model, "float32"), exportable(model)):
        np.testing.assert_allclose(copy.predict(images, verbose=0), answers, atol=1e-5)
    backbones.settle(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(again.predict(images, verbose=0), answers)
    assert backbones.requires(model) == {"keras-hub": keras_hub.__version__}


@pytest.mark.parametrize(
    "name", ["dinov2_small", "deit_small", "hgnetv2_b4"]
)  # blocks in an encoder
def test_what_is_frozen_stays_and_the_rest_trains(name: str) -> None:
    classifier, images = small(name), pixels(name, 8)
    classifier.set_trainable(SMALL[name][3])
    some = classifier.trainable_parameters
    classifier.set_trainable(True)
    assert 0 < some < classifier.trainable_parameters  # and what was frozen before is not any more
    classifier.set_trainable(SMALL[name][3])
    assert classifier.trainable_parameters == some
    copy = accelerate(classifier.model, "float32")
    assert sum(np.prod(v.shape) for v in copy.trainable_variables) == some
    before = [v.numpy() for v in copy.variables]
    frozen = [not v.trainable for v in copy.variables]
    copy.compile("adam", "sparse_categorical_crossentropy")
    copy.fit(images, np.arange(8), batch_size=4, verbose=0)
    still = [np.array_equal(v.numpy(), old) for v, old in zip(copy.variables, before, strict=True)]
    of_blocks = [i for i, v in enumerate(copy.variables) if "seed" not in v.path]
    moving = {id(v) for layer in inside(copy) for v in layer.non_trainable_variables}
    for i in of_blocks:
        if frozen[i] and id(copy.variables[i]) not in moving:
            assert still[i], copy.variables[i].path
    assert not all(still)


def test_a_fine_tuned_vit_is_exported_to_every_format(tlbench: Command) -> None:
    settings = words("vit_base", "data.limit=200", "strategy=probe_finetune", "epochs=1")
    settings += ["trainable=transformer_block_2", "strategy.stages.0.epochs=1"]
    settings += ["features.precision=float32"]  # else a clock decides what the record was made with
    answer = tlbench("train", *settings, "backbone.pooling=cls+average", "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    assert "Keras with keras-hub" in answer.out
    run = Run.open(Path("run"))
    assert run.manifest["requires"] == {"keras-hub": keras_hub.__version__}
    formats = "saved_model,onnx,openvino,litert,keras"
    answer = tlbench("export", "run", "--format", formats, "--images", "16")
    assert answer.code == 0, answer.out + answer.err
    for name in formats.split(","):
        facts = json.loads((run.folder / "exports" / name / "export.json").read_text())
        assert facts["parity"]["greatest_difference"] < 1e-5
    assert "equals the record" in tlbench("evaluate", "run").out


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("backbone.architecture=ViTBckbone", "Did you mean 'ViTBackbone'?"),
        ("backbone.image_size=33", "Expected a multiple of 16"),
        ("backbone.arguments.num_layer=3", "Did you mean 'num_layers'?"),
        ("backbone.weights=preset", "KerasHub's 'vit_base_patch16_224_imagenet' could not be had"),
        ("backbone.weights=nowhere", "backbone.weights="),
        ("trainable=transformer_block_9", "is no layer of"),
    ],
)
def test_what_does_not_fit_is_one_line(
    tlbench: Command, override: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    answer = tlbench("train", *words("vit_base"), "data.limit=200", override)
    assert answer.code == 2
    assert said in answer.error_lines[-1], answer.err
    assert "internal error" not in answer.err


def test_weights_come_from_a_folder_that_kerashub_saved(tmp_path: Path) -> None:
    source = backbones.build(make_config(*words("vit_base", "seed=1")).backbone).model
    for variable in source.variables:
        variable.assign(keras.ops.ones_like(variable) * 0.01)
    source.save_to_preset(str(tmp_path / "preset"))
    cfg = make_config(*words("vit_base"), f"backbone.weights={tmp_path / 'preset'}")
    taken = backbones.build(cfg.backbone).model
    for one, other in zip(taken.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
