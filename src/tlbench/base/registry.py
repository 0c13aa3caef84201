"""What packages add to tlbench, found by name through entry points: ours and those of others alike.

A seam is an entry point group, `tlbench.backbones` for example. A name in YAML chooses among what is installed
there; it never names code to import.
"""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlbench.base.errors import ConfigError, suggest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

log = logging.getLogger(__name__)

SEAMS = ("backbones", "sources", "augmentations", "trackers")
OURS = "tlbench"


@dataclass(frozen=True)
class Plugin:
    """One name at a seam, and the package that brings it."""

    seam: str
    name: str
    package: str
    version: str
    entry: "EntryPoint"

    @functools.cached_property
    def trouble(self) -> str:
        """Why it cannot be used, on one line; "" where it can."""
        try:
            self.entry.load()
        except Exception as error:  # a package may raise anything while it is imported
            return " ".join(f"{type(error).__name__}: {error}".split())
        return ""


@functools.cache
def plugins(seam: str) -> Mapping[str, Plugin]:
    """Everything that is installed at a seam, by name. Of two of one name ours holds, else the first package's."""
    from importlib.metadata import entry_points

    found: dict[str, Plugin] = {}
    for entry in sorted(entry_points(group=f"tlbench.{seam}"), key=_precedence):
        package, version = (entry.dist.name, entry.dist.version) if entry.dist else ("?", "?")
        plugin = Plugin(seam, entry.name, package, version, entry)
        if (first := found.setdefault(entry.name, plugin)).package != package:
            log.warning(
                "Plugin '%s' of %s is left out: %s has one of that name at tlbench.%s",
                *(entry.name, package, first.package, seam),
            )
    return found


def _precedence(entry: "EntryPoint") -> tuple[bool, str, str]:
    package = entry.dist.name if entry.dist else ""
    return package != OURS, package, entry.name


def check(seam: str, name: str, setting: str) -> None:
    """Raise ConfigError, naming the setting, for a name that nothing installed has; nothing is imported."""
    if name not in plugins(seam):
        raise ConfigError(f"Unknown {setting} '{name}'. {suggest(name, plugins(seam))}")


def load(seam: str, name: str, setting: str) -> Any:
    """What a name stands for at a seam.

    A broken one is named in a warning and left out. Raises ConfigError, naming the setting, for a name that
    nothing usable has.
    """
    found = plugins(seam)
    if name in found and not (trouble := found[name].trouble):
        return found[name].entry.load()
    if name in found:
        log.warning("Plugin '%s' of %s cannot be loaded (%s)", name, found[name].package, trouble)
    raise ConfigError(f"Unknown {setting} '{name}'. {suggest(name, set(found) - {name})}")
