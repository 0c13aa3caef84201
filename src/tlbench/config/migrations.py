"""A configuration that another version of tlbench wrote: what it lacks here, and what it has too much."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_args

from tlbench.config.schema import Config


@dataclass
class Differences:
    """Settings by their dotted names: those that a configuration lacks, with what stands in, and others."""

    lacking: dict[str, Any] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lacking or self.unknown)

    def __str__(self) -> str:
        parts = [f"it lacks {', '.join(self.lacking)}"] if self.lacking else []
        parts += [f"it has {', '.join(self.unknown)}"] if self.unknown else []
        return " and ".join(parts)


def compare(saved: Mapping[str, Any]) -> Differences:
    """What a saved configuration lacks for this version, or has too much."""
    return completed(saved, {})[1]


def completed(
    saved: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], Differences]:
    """A saved configuration in the shape of this version, what it lacks taken from `defaults`."""
    found = Differences()
    return _fitted(Config, saved, defaults, "", found), found


def _fitted(kind: Any, saved: Any, default: Any, name: str, found: Differences) -> Any:
    record = next((part for part in (kind, *get_args(kind)) if is_dataclass(part)), None)
    if record is not None and isinstance(saved, list):
        first = default[0] if default else None
        return [_fitted(record, x, first, f"{name}[{i}]", found) for i, x in enumerate(saved)]
    if record is None or not isinstance(saved, dict):
        return saved
    dot = f"{name}." if name else ""
    kinds = {field.name: field.type for field in fields(record)}
    found.unknown += [f"{dot}{key}" for key in saved if key not in kinds]
    whole: dict[str, Any] = {}
    for key, inner in kinds.items():
        standing_in = default.get(key) if isinstance(default, dict) else None
        if key in saved:
            whole[key] = _fitted(inner, saved[key], standing_in, f"{dot}{key}", found)
        else:
            whole[key] = found.lacking[f"{dot}{key}"] = standing_in
    return whole
