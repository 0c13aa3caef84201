"""What makes two runs the same: said here once, for hashes, resuming, merging of seeds and reports."""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from tlbench.config.schema import Config

# How a run is carried out, and where things lie: the result is the same, so two runs that differ in these
# alone are the same run. What lies there is told by digests, in the manifest.
CARRIED_OUT = (
    *("n_jobs", "published", "resume", "tracker"),
    *("data.root", "data.table", "data.names", "data.memory_limit_gb", "data.index"),
    *("features.folder", "features.limit_gb", "features.memory_limit_gb", "features.batch_size"),
    "backbone.licence",
)
# What a run that goes on may be given anew: its images and first weights are held against their digests.
MOVABLE = (*CARRIED_OUT, "backbone.weights")
SEED, FOLD = "seed", "data.fold"  # runs that differ in them alone are one row of a table
# In what jobs may differ that train heads on the same features of a frozen backbone.
OF_A_HEAD = (
    *("head", "optimizer", "schedule", "strategy", "epochs", "batch_size", "learning_rate", "seed"),
    *("early_stopping", "loss", "data.sampling", FOLD, "tracker", "published", "resume", "n_jobs"),
    *("microbatch", "keep", "recipe"),
)


def counts(setting: str) -> bool:
    """Whether a setting makes a run another one. setting: its dotted name."""
    return not _among(setting, CARRIED_OUT)


def _among(setting: str, names: Iterable[str]) -> bool:
    return any(setting == name or setting.startswith((f"{name}.", f"{name}[")) for name in names)


def config_hash(cfg: Config) -> str:
    """16 hexadecimal digits that two runs share exactly when they were asked for the same thing."""
    identity = {key: value for key, value in flat(asdict(cfg)).items() if counts(key)}
    if cfg.backbone.weights_file:  # which one is told by its digest, wherever it lies
        identity["backbone.weights"] = "a file"
    return _digest(identity)


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def features_hash(cfg: Config) -> str | None:
    """16 hexadecimal digits that jobs share which train heads on the same features; None where a backbone changes."""
    frozen = all(stage.frozen for stage in cfg.strategy.stages)
    if not frozen or not cfg.features.cache or cfg.batch_norm.statistics == "adapted":
        return None
    settings = flat(asdict(cfg))
    shared = {key: value for key, value in settings.items() if not _among(key, OF_A_HEAD)}
    if cfg.backbone.weights is None or cfg.augment.get("views"):
        shared[SEED] = cfg.seed  # which draws them
    return _digest(shared)


def but_for_repeats(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of settings by dotted names those that are equal in runs which differ in their seed or fold only."""
    repeated = (SEED, FOLD)
    return {key: value for key, value in settings.items() if key not in repeated and counts(key)}


def moved(saved: Config, asked: Config, overrides: Iterable[str]) -> Config:
    """The saved configuration with what a command names of MOVABLE as the command has it."""
    found = copy.deepcopy(saved)
    for name in map(_named, overrides):
        group, _, field = name.rpartition(".")
        if name in MOVABLE and group:
            setattr(getattr(found, group), field, getattr(getattr(asked, group), field))
    return found


def elsewhere(saved: Config, now: Config) -> dict[str, Any]:
    """What of MOVABLE, within a group, another configuration has elsewhere than a saved one."""
    before, after = flat(asdict(saved)), flat(asdict(now))
    names = [name for name in MOVABLE if "." in name and before.get(name) != after.get(name)]
    return {name: after.get(name) for name in names}


def differences(
    saved: Config, asked: Config, overrides: Iterable[str]
) -> dict[str, tuple[Any, Any]]:
    """Settings that a command names with another value than a saved configuration has: (saved, asked).

    A group names all of its settings; report and experiment name everything.
    """
    before, now = flat(asdict(saved)), flat(asdict(asked))
    found = {}
    for name in map(_named, overrides):
        everything = name in ("report", "experiment")
        for key in sorted({*before, *now}):
            named = everything or key == name or key.startswith((f"{name}.", f"{name}["))
            if named and not _among(key, MOVABLE) and before.get(key) != now.get(key):
                found[key] = (before.get(key), now.get(key))
    return found


def _named(override: str) -> str:
    """The setting or group that a word of a command sets."""
    return override.lstrip("+~").partition("=")[0]


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"backbone": {"name": "vgg16"}} -> {"backbone.name": "vgg16"}; list items as [0], [1]."""
    if isinstance(tree, dict) and tree:
        parts = ((f"{prefix}.{key}" if prefix else str(key), value) for key, value in tree.items())
    elif isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        parts = ((f"{prefix}[{i}]", value) for i, value in enumerate(tree))
    else:
        return {prefix: tree}
    return {key: value for part in parts for key, value in flat(part[1], part[0]).items()}
