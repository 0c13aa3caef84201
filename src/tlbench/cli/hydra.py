"""Hydra inside a verb: composes conf/, calls a job with a checked Config, words its errors."""

import contextlib
import io
import logging
import os
import re
import shlex
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.plugins.completion_plugin import DefaultCompletionPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from tlbench.base import console
from tlbench.base.errors import ConfigError, RunError, TlbenchError, suggest
from tlbench.config import checks
from tlbench.config.schema import Config, settings
from tlbench.config.words import (
    PATHS,
    TEMPLATES,
    expanded,
    for_hydra,
    literal,
    path_of,
    quoted,
    setting,
)
from tlbench.sweep import folders

Job = Callable[[Config, Path, list[str]], None]  # configuration, run folder, typed overrides


def conf_dir() -> Path:
    """The folder of values: inside the installed package, or beside src/ in a checkout."""
    installed = Path(__file__).parents[1] / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "conf"


def features_folder() -> Path:
    """Where frozen features are kept when no command says otherwise."""
    folder = OmegaConf.load(conf_dir() / "train.yaml").features.folder
    return Path(expanded(folder))


def run(words: list[str], job: Job) -> None:
    """Give Hydra the words of a verb: it composes, or shows, or completes, or calls the job."""
    if "${" in str(Path.cwd()):
        raise ConfigError("A folder called '${...}' is no text to Hydra. Go to another: cd ~")
    flags = _check_flags(words)
    sweep = bool(flags.multirun) or "hydra.mode=MULTIRUN" in words
    words = for_hydra(_settings_first(words, flags.overrides), sweep=sweep)
    if sweep and not flags.cfg:
        words = folders.named(words, flags.config_dir)
    failures: list[Exception] = []
    folders.remember(words)

    def task(composed: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        folder = Path(hydra_config.runtime.output_dir)
        folders.remove_empty(folder)  # it may lie among the pictures, and is no class
        typed = any(word.startswith("hydra.run.dir=") for word in hydra_config.overrides.hydra)
        if hydra_config.mode == RunMode.RUN and not typed:
            folder = folders.claimed(folder)
        try:
            cfg = checks.load(composed)
            if hydra_config.mode != RunMode.RUN and (folder / "manifest.json").is_file():
                cfg.resume = str(folder)  # a sweep that goes on, by a launcher other than ours
            job(cfg, folder, list(hydra_config.overrides.task))
        except Exception as error:
            failures.append(error)  # Hydra would print its own lines about an error it sees
            if hydra_config.mode != RunMode.RUN:
                raise  # a launcher other than ours learns of a failure this way
        finally:
            folders.remove_empty(folder)

    # Hydra prints its own version of an error and exits unless it is told to raise it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    logging.raiseExceptions = False  # `--info | head` is no error, but Hydra logs to stdout
    original, sys.argv = sys.argv, [sys.argv[0], *words]
    try:
        shown = _fitted() if flags.help else contextlib.nullcontext()
        with folders.kept(words), _own_yaml(flags.config_dir), shown:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(task)()
    except Exception as error:
        if error in failures:  # of a job, through another launcher
            raise
        _explain_hydra(error)
    except SystemExit as exit:  # Hydra leaves this way after --help
        if exit.code not in (0, None):
            raise
    finally:
        sys.argv = original
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _fitted() -> Iterator[None]:
    """What Hydra prints, its long lines wrapped between words where a terminal would break them anywhere."""
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            yield
    finally:
        width = console.out.width if console.out.is_terminal else sys.maxsize
        for line in text.getvalue().splitlines():
            print(textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False))


def _explain_hydra(error: Exception) -> NoReturn:
    """Raise what Hydra's own code trips over in words for a user; its own errors stay as they are."""
    if isinstance(error, OSError) and not isinstance(error, MissingConfigException):
        if error.filename is None:  # of a stream: its reader is gone, or its disk is full
            raise error
        raise RunError(
            f"{error.filename} cannot be written ({error.strerror}). Choose another folder: "
            "hydra.run.dir=..., or hydra.sweep.dir=... for a --multirun."
        ) from error
    ours = isinstance(error, TlbenchError) or type(error).__module__.startswith(
        ("hydra", "omegaconf")
    )
    if isinstance(error, AssertionError | TypeError | ValueError) and not ours:
        reason = str(error).partition(" : ")[0] or "a value is of no use to Hydra"
        raise ConfigError(
            f"The command cannot be composed: {reason}. Expected key=value."
        ) from error
    raise error


def in_own_folder(words: list[str]) -> list[str]:
    """`resume=RUN` with the run's own folder as Hydra's, which would make another one."""
    for word in words:
        if word.startswith("resume=") and ((folder := path_of(word)) / "manifest.json").is_file():
            return [*words, setting("hydra.run.dir", folder)]
    return words


def _check_flags(words: list[str]) -> Namespace:
    """Hydra's flags. An unknown one is refused in one line; argparse by itself would print its usage."""
    parser = get_args_parser()

    def error(message: str) -> NoReturn:
        raise ConfigError(f"{message}. --help and --hydra-help list the flags.")

    parser.error = error  # type: ignore[method-assign]
    flags = parser.parse_intermixed_args(words)
    modes = (flags.cfg, flags.info, flags.multirun, flags.run, flags.shell_completion)
    if sum(bool(mode) for mode in modes) > 1:
        raise ConfigError("Only one of --multirun, --cfg, --info, --run and -sc at a time.")
    if flags.resolve and flags.cfg is None:
        raise ConfigError("--resolve goes with --cfg, as in: --cfg job --resolve")
    return flags


def _settings_first(words: list[str], overrides: list[str]) -> list[str]:
    """The words with the flags at their end: Hydra takes no setting that follows a flag and a setting."""
    flags = list(words)
    for word in overrides:
        flags.remove(word)
    return [*overrides, *flags]


@contextlib.contextmanager
def _own_yaml(folder: str | None) -> Iterator[None]:
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
        raw.data = _compose(group, config_dir).data
    for override in overrides:
        if override.is_sweep_override():
            raise ConfigError(f"'{override.input_line}' has several values. Expected one.")
        if override.key_or_group != "data":
            OmegaConf.update(raw, override.key_or_group, override.value())
    return checks.load(raw)


def _compose(overrides: list[str], config_dir: str | None) -> DictConfig:
    """What `tlbench train` would compose, from the user's own YAML before ours."""
    with _composer(config_dir) as composer, _own_yaml(config_dir):
        return composer.compose_config("train", overrides, RunMode.RUN, from_shell=False)


@contextlib.contextmanager
def _composer(config_dir: str | None) -> Iterator[Hydra]:
    search = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        if not (own := Path(expanded(config_dir))).is_dir():
            raise ConfigError(
                f"--config-dir {config_dir} is no folder. Expected one with YAML files."
            )
        query = SearchPathQuery(provider="schema")  # as Hydra's own --config-dir
        search.prepend("command-line", f"file://{own.absolute()}", query)
    try:
        yield Hydra.create_main_hydra2("tlbench", search)
    finally:
        GlobalHydra.instance().clear()


def candidates(words: list[str]) -> list[str]:
    """What Tab offers for the last of the words after train and summary; nothing where a path belongs."""
    *before, word = words
    key, equals, value = word.partition("=")
    flags = get_args_parser()
    if word.startswith("-"):
        return [flag for action in flags._actions for flag in action.option_strings]
    if before[-1:] in (["--config-dir"], ["-cd"]) or value.startswith((".", "/", "~")):
        return []
    if equals and key.lstrip("+") in (*PATHS, *TEMPLATES):
        return []
    settled = [w for w in before if re.fullmatch(r"[\w/.]+=[\w.]+", w)]  # such as a group's choice
    with _composer(flags.parse_known_args(before)[0].config_dir) as composer:
        plugin = DefaultCompletionPlugin(composer.config_loader)
        return plugin._query("train", " ".join([*settled, word]))


def defaults() -> dict[str, Any]:
    """Every setting as `tlbench train` has it when nothing is asked for."""
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        settings = OmegaConf.to_container(hydra.compose("train"), resolve=True)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


def explain(error: Exception) -> str:
    """One line from what Hydra or OmegaConf raised."""
    cause = error.__cause__
    message = str(error).strip()
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if match := re.match(r"Could not override '([\w.@/-]+)'", message):
        return _unknown_setting(match[1])
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        hint = suggest(name, error.options)
        if group == "backbone":
            hint += " Another network of Keras: backbone.application=NAME"
        if group == "data":
            hint = _own_pictures(name) or hint
        return f"Unknown {group} '{name}'. {hint}"
    if match := re.match(r"In '(.*)': \w+ raised while composing config:\s*(.*)", message):
        return f"{match[1]}.yaml cannot be used: {match[2]}."
    if isinstance(cause, OmegaConfBaseException):
        return checks.explain(cause)
    if isinstance(error, OmegaConfBaseException):
        return checks.explain(error)
    return " ".join(message.split())


def _unreadable(word: str) -> str:
    """Words for what Hydra's grammar does not hold, and how to give a text that it does not."""
    key, equals, value = word.partition("=")
    if not (equals and re.fullmatch(r"[+~]*[\w./@-]+", key)) or value[:1] in ("[", "{"):
        return f"'{word}' cannot be read. {_own_pictures(word) or 'Expected key=value.'}"
    better = shlex.quote(f"{key}={quoted(value)}")
    return f"'{word}' cannot be read. Expected key=value; a text with such characters in quotes: {better}"


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
