"""conf/ -> a configuration: composed by Hydra, checked, and its errors in words for a user."""

import contextlib
import re
import shlex
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from tlbench.base.errors import ConfigError, suggest
from tlbench.config import checks, omegaconf_errors
from tlbench.config.schema import Config, settings
from tlbench.config.words import expanded, for_hydra, literal, quoted, setting


def conf_dir() -> Path:
    """The folder of values: inside the installed package, or beside src/ in a checkout."""
    installed = Path(__file__).parents[1] / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "conf"


def cache_folders() -> tuple[Path, Path]:
    """Where frozen features and the index of pictures are kept when no command says otherwise."""
    conf = OmegaConf.load(conf_dir() / "train.yaml")
    return Path(expanded(conf.features.folder)), Path(expanded(conf.data.index))


def compose(words: Sequence[str], config_dir: str | None = None) -> Config:
    """The checked configuration of what would be typed after `tlbench train`.

    config_dir: a folder of the user's own YAML. Raises ConfigError for what cannot be composed or used.
    """
    try:
        return checks.load(_composed(for_hydra(words), config_dir))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


def _composed(overrides: Sequence[str], config_dir: str | None) -> DictConfig:
    """What Hydra composes for the verb train, without what is Hydra's own."""
    with composer(config_dir) as hydra, own_yaml(config_dir):
        composed = hydra.compose_config("train", list(overrides), RunMode.RUN, from_shell=False)
    with open_dict(composed):
        composed.pop("hydra", None)
    return composed


@contextlib.contextmanager
def composer(config_dir: str | None) -> Iterator[Hydra]:
    """Hydra over conf/, and before it the user's own YAML; a host's Hydra stays as it is."""
    search = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        if not (own := Path(expanded(config_dir))).is_dir():
            raise ConfigError(
                f"--config-dir {config_dir} is no folder. Expected one with YAML files."
            )
        query = SearchPathQuery(provider="schema")  # as Hydra's own --config-dir
        search.prepend("command-line", f"file://{own.absolute()}", query)
    with _one_at_a_time:
        state = GlobalHydra.instance()
        before, state.hydra = state.hydra, None
        try:
            yield Hydra.create_main_hydra2("tlbench", search)
        finally:
            state.hydra = before


_one_at_a_time = threading.RLock()  # Hydra's state is the process's


def with_data(cfg: Config, words: list[str], config_dir: str | None = None) -> Config:
    """A run's configuration with other data: `data=...` chooses a group, `data.key=value` a value.

    The words mean what they mean after `train`; config_dir: a folder of the user's own YAML. Raises
    ConfigError for any other word, and where the values do not fit.
    """
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or not (key == "data" or key.startswith("data.")):
            raise ConfigError(
                f"'{word}' cannot be used here. Expected data=NAME or data.KEY=VALUE."
            )
    overrides = OverridesParser.create().parse_overrides(for_hydra(words))
    raw = OmegaConf.create(literal(asdict(cfg)))
    if group := [word for word in words if word.startswith("data=")]:
        raw.data = _composed([*group, f"task={cfg.data.task}"], config_dir).data
    for override in overrides:
        if override.is_sweep_override():
            raise ConfigError(f"'{override.input_line}' has several values. Expected one.")
        if override.key_or_group != "data":
            OmegaConf.update(raw, override.key_or_group, override.value())
    return checks.load(raw)


@contextlib.contextmanager
def own_yaml(folder: str | None) -> Iterator[None]:
    """Name the file and the line where YAML cannot be read; folder: the user's own, if there is one."""
    try:
        yield
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{mark.name}, line {mark.line + 1}" if mark else "A YAML file"
        hint = " Indent with spaces." if "'\\t'" in str(error.problem) else ""
        raise ConfigError(f"{where} is no YAML: {error.problem}.{hint}") from error
    except UnicodeDecodeError as error:
        for path in sorted(Path(expanded(folder or ".")).rglob("*.yaml")):
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError as found:
                line = found.object[: found.start].count(b"\n") + 1
                raise ConfigError(
                    f"{path}, line {line} is not UTF-8. Save the file as UTF-8."
                ) from error
        raise ConfigError("A YAML file is not UTF-8. Save it as UTF-8.") from error


# ---------------------------------------------------------------- errors


def explain(error: Exception) -> str:
    """One line from what Hydra or OmegaConf raised."""
    cause = error.__cause__
    message = str(error).strip()
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if match := re.match(r"Ambiguous value for argument '(.*?)'\s+1\.", message, re.S):
        return _several(match[1])
    if match := re.match(r"Could not override '([\w.@/-]+)'", message):
        return _unknown_setting(match[1])
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        hint = suggest(name, error.options)
        if group == "backbone":
            hint += " Another network of Keras: backbone.architecture=NAME"
        if group == "data":
            hint = _own_pictures(name) or hint
        return f"Unknown {group} '{name}'. {hint}"
    if match := re.match(r"In '(.*)': \w+ raised while composing config:\s*(.*)", message):
        return f"{match[1]}.yaml cannot be used: {match[2]}."
    if isinstance(cause, OmegaConfBaseException):
        return omegaconf_errors.explain(cause)
    if isinstance(error, OmegaConfBaseException):
        return omegaconf_errors.explain(error)
    return " ".join(message.split())


def _unreadable(word: str) -> str:
    """Words for what Hydra's grammar does not hold, and how to give a text that it does not."""
    key, equals, value = word.partition("=")
    if not (equals and re.fullmatch(r"[+~]*[\w./@-]+", key)) or value[:1] in ("[", "{"):
        return f"'{word}' cannot be read. {_own_pictures(word) or 'Expected key=value.'}"
    better = shlex.quote(f"{key}={quoted(value)}")
    return f"'{word}' cannot be read. Expected key=value; a text with such characters in quotes: {better}"


def _several(word: str) -> str:
    """Words for a comma where one value belongs."""
    key, _, value = word.partition("=")
    kind = str(settings().get(key, ""))
    said = f"{key}={value} has several values: a comma separates those of a --multirun."
    if re.fullmatch(r"-?\d+,\d+", value) and "float" in kind:
        return f"{said} A decimal point is a dot: did you mean {key}={value.replace(',', '.')}?"
    if kind.startswith("list"):
        return f"{said} A list has brackets: {shlex.quote(f'{key}=[{value}]')}"
    return f"{said} Expected one value, or train --multirun."


def _own_pictures(name: str) -> str:
    """What to type where a folder's name stands for the data."""
    if not Path(name).is_dir():
        return ""
    return f"For your own pictures: data=image_folder {shlex.quote(setting('data.root', name))}"


def _unknown_setting(key: str) -> str:
    """Words for a key that is in no YAML: a group that was misspelt, or a value."""
    level: Any = Config
    names = [field.name for field in fields(Config)]
    parent, _, last = key.rpartition(".")
    for part in parent.split(".") if parent else []:
        types = {field.name: field.type for field in fields(level)} if is_dataclass(level) else {}
        if part not in types:
            return f"Unknown setting '{key}'. {suggest(part, names)}"
        level = types[part]
        names = [field.name for field in fields(level)] if is_dataclass(level) else []
    if not names:  # free-form arguments of another library
        return f"Unknown setting '{key}'. To pass it on, add it with a plus: +{key}=..."
    if not parent and (meant := _meant(key)):
        return f"Unknown setting '{key}'. Did you mean {meant}?"
    groups = [p.name for p in conf_dir().iterdir() if p.is_dir()] if not parent else []
    return f"Unknown setting '{key}'. {suggest(last, {*names, *groups})}"


def _meant(short: str) -> str:
    """The settings that a name without its path, or the initials of one, may stand for."""
    found = [
        f"'{name}'"
        for name in settings()
        if short in ((last := name.rpartition(".")[2]), "".join(w[:1] for w in last.split("_")))
    ]
    exact = [name for name in found if "." not in name]  # lr is the root's before the optimizer's
    return " or ".join((exact or found)[:6])
