"""Hydra inside a verb: composes conf/, calls a job with a checked Config, words its errors."""

import contextlib
import io
import logging
import os
import re
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException
from hydra.plugins.completion_plugin import DefaultCompletionPlugin
from hydra.types import RunMode
from omegaconf import DictConfig

from tlbench.base.errors import ConfigError, RunError, TlbenchError
from tlbench.config import checks, names
from tlbench.config.compose import compose, composer, conf_dir, own_yaml
from tlbench.config.identity import flat
from tlbench.config.schema import Config
from tlbench.config.words import PATHS, TEMPLATES, for_hydra, path_of, setting
from tlbench.runs import layout
from tlbench.sweep import folders

# Configuration, run folder, typed overrides -> what one of Hydra's sweepers may optimise, if there is such.
Job = Callable[[Config, Path, list[str]], float | None]


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
    # Hydra prints its own version of an error and exits unless it is told to raise it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    logging.raiseExceptions = False  # `--info | head` is no error, but Hydra logs to stdout
    original, sys.argv = sys.argv, [sys.argv[0], *words]
    shown = _fitted() if flags.help else contextlib.nullcontext()
    try:
        with folders.kept(words), own_yaml(flags.config_dir), shown:
            main = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")
            main(_task(job, failures))()
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


def _task(job: Job, failures: list[Exception]) -> Callable[[DictConfig], float | None]:
    """What Hydra calls with a composed configuration; an error of the job is kept in `failures`."""

    def task(composed: DictConfig) -> float | None:
        hydra_config = HydraConfig.get()
        folder = Path(hydra_config.runtime.output_dir)
        folders.remove_empty(folder)  # it may lie among the pictures, and is no class
        typed = any(word.startswith("hydra.run.dir=") for word in hydra_config.overrides.hydra)
        try:
            cfg = checks.load(composed)
            if hydra_config.mode == RunMode.RUN and not typed:
                folder = folders.claimed(_named(folder, hydra_config.runtime.choices, cfg))
            if hydra_config.mode != RunMode.RUN and layout.is_run(folder):
                cfg.resume = str(folder)  # a sweep that goes on, by a launcher other than ours
            return job(cfg, folder, list(hydra_config.overrides.task))
        except Exception as error:
            failures.append(error)  # Hydra would print its own lines about an error it sees
            if hydra_config.mode != RunMode.RUN:
                raise  # a launcher other than ours learns of a failure this way
            return None
        finally:
            folders.remove_empty(folder)

    return task


def recomposed() -> Callable[[Sequence[str]], Config]:
    """What composes other words as the command was, with the user's own YAML; to be asked for within a job."""
    sources = HydraConfig.get().runtime.config_sources
    own = next((source.path for source in sources if source.provider == "command-line"), None)
    return lambda words: compose(words, own)


def _named(folder: Path, choices: Any, cfg: Config) -> Path:
    """A run's folder, called by the choices of YAML files, under the names of the files that some stand for."""
    ending = f"_{choices['backbone']}_{choices['data']}"
    if not folder.name.endswith(ending):
        return folder
    return folder.with_name(f"{folder.name.removesuffix(ending)}_{names.folder(flat(asdict(cfg)))}")


@contextlib.contextmanager
def _fitted() -> Iterator[None]:
    """What Hydra prints, its long lines wrapped between words where a terminal would break them anywhere."""
    from tlbench.base import console

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
        if word.startswith("resume=") and layout.is_run(folder := path_of(word)):
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
    with composer(flags.parse_known_args(before)[0].config_dir) as composing:
        plugin = DefaultCompletionPlugin(composing.config_loader)
        return plugin._query("train", " ".join([*settled, word]))
