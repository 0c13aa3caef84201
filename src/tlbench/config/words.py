"""The words of a command: as a user types them -> as Hydra's grammar has them, and back.

Hydra gives a meaning to commas, brackets, quotes, spaces and `$`. A path, a column's name and a pattern have none of
that: they are text.
"""

import functools
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf

from tlbench.base.errors import ConfigError
from tlbench.config import schema

# Settings whose value is text, taken as the shell gave it: paths, and what tells of the rows of a table. A --multirun
# may vary all but the last two paths.
TEXTS = ("data.path", "data.label", "data.separator", "data.split", "data.weight", "data.group")
VARIED = (
    "data.root",
    "data.table",
    "data.corrections",
    "data.names",
    "backbone.weights",
    "features.folder",
    *TEXTS,
)
PATHS = (*VARIED, "data.index", "resume")
# Paths of Hydra's, in which ${now:...} and the like keep their meaning, as conf/train.yaml has them.
TEMPLATES = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")

_QUOTED = r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\""  # as Hydra's grammar has it
_ELEMENT = re.compile(rf"\s*(?:({_QUOTED})|([^,]*?))\s*(?:,|\Z)", re.S)
_SWEEP_FUNCTION = re.compile(r"(choice|shuffle|sort|tag)\(.*\)", re.S)
_SETTING = re.compile(r"(\+{0,2})([\w.]+)=(.*)", re.S)


def for_hydra(words: Sequence[str], *, sweep: bool = False) -> list[str]:
    """What a user typed, in Hydra's grammar; what is in Hydra's grammar already stays as it is.

    sweep: whether commas separate the jobs of a --multirun.
    """
    return [_for_hydra(word, sweep=sweep) for word in words]


def _for_hydra(word: str, *, sweep: bool) -> str:
    if word.startswith("--config-dir="):
        flag, _, folder = word.partition("=")
        return f"{flag}={expanded(folder)}"
    if not (match := _SETTING.fullmatch(word)):
        return word
    plus, key, raw = match.groups()
    if key in (*PATHS, *TEMPLATES):
        return f"{plus}{key}={_sweep(key, raw) if sweep and key in VARIED else _path(key, raw)}"
    if "." in key and any(key == name or key.startswith(f"{name}.") for name in _free_form()):
        return (
            f"++{key}={raw}"  # it knows only the names that it has, unless it is forced to add one
        )
    return word


def _path(key: str, raw: str) -> str:
    if raw.lower() in ("", "null") or re.fullmatch(_QUOTED, raw, re.S):
        return raw
    text = raw if key in TEXTS else expanded(raw)
    return quoted(text if key in TEMPLATES else literal(text))


def _sweep(key: str, raw: str) -> str:
    """Each element of a comma-separated list by itself; a quoted one keeps its commas."""
    if _SWEEP_FUNCTION.fullmatch(raw):
        return raw
    elements, start = [], 0
    while start <= len(raw):
        match = _ELEMENT.match(raw, start)
        assert match  # the second branch takes anything
        elements.append(match[1] or _path(key, match[2]))
        start = match.end() + (not match[0].endswith(","))
    return ",".join(elements)


def expanded(path: str) -> str:
    """A path with its leading ~ replaced, which a shell does not do after a `=`.

    Raises ConfigError where nobody knows the home folder, as in a container.
    """
    found = os.path.expanduser(path)  # noqa: PTH111 (a folder may be called ~x: Path would refuse it)
    if found == "~" or found.startswith("~/"):
        raise ConfigError(
            f"{path} is in the home folder, and HOME is not set. Give a path without ~; the features' is set by: "
            "export TLBENCH_CACHE=/tmp/tlbench"
        )
    return found


def quoted(text: str) -> str:
    """Text as a quoted string of Hydra's grammar."""
    return QuotedString(text, Quote.single).with_quotes()


def literal(value: Any) -> Any:
    """Text, or all text in a tree, in which OmegaConf finds no interpolation."""
    found: Any = value
    if isinstance(value, dict):
        found = {key: literal(part) for key, part in value.items()}
    elif isinstance(value, list):
        found = [literal(part) for part in value]
    elif isinstance(value, str):
        found = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)
    return found


def setting(key: str, path: str | Path, *, sweep: bool = False) -> str:
    """The word, before the shell's own quoting, that sets a path: as plain as its characters allow.

    sweep: for a --multirun, in which a comma separates.
    """
    text = str(path)
    if text.startswith("~"):
        text = f"./{text}"
    meant = quoted(literal(text))
    plain = f"{key}={text}"
    return plain if _for_hydra(plain, sweep=sweep) == f"{key}={meant}" else f"{key}={meant}"


def value(key: str, found: Any) -> str:
    """The word, before the shell's own quoting, that sets a path, a number or nothing."""
    if found is None:
        return f"{key}=null"
    return setting(key, found) if key in PATHS else f"{key}={found}"


def typed(word: str) -> str:
    """A word in Hydra's grammar as a user would type it, before the shell's own quoting."""
    match = _SETTING.fullmatch(word)
    _, key, raw = match.groups() if match else ("", "", "")
    plain = f"{key}={raw[1:-1] if re.fullmatch(_QUOTED, raw, re.S) else raw}"
    return plain if plain != word and _for_hydra(plain, sweep=False) == word else word


def several(word: str) -> list[str]:
    """A typed word for each of the values that it has, as for a --multirun: itself where it has one."""
    (parsed,) = OverridesParser.create().parse_overrides(for_hydra([word], sweep=True))
    if not parsed.is_sweep_override():
        return [word]
    words = (f"{parsed.get_key_element()}={value}" for value in parsed.sweep_string_iterator())
    return [typed(word) for word in words]


def path_of(word: str) -> Path:
    """The path that a word sets, typed or in Hydra's grammar."""
    value = OverridesParser.create().parse_override(_for_hydra(word, sweep=False)).value()
    return Path(OmegaConf.create([value])[0])


def command(*words: str | Path) -> str:
    """A tlbench command that can be pasted in bash and zsh."""
    return shlex.join(["tlbench", *map(str, words)])


@functools.cache
def _free_form() -> tuple[str, ...]:
    """Settings that hold arguments of another library, under names that no schema knows."""
    return tuple(name for name, kind in schema.settings().items() if kind == dict[str, Any])
