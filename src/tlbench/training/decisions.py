"""What "auto" came to when a run began, as its manifest has it: a run that goes on is bound by it.

Decided again it could come to something else, on another machine or after the cache was cleared, and one
run would be two.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tlbench.base.errors import DeviceError
from tlbench.config.schema import Config
from tlbench.features import engines
from tlbench.networks import batch_norm
from tlbench.networks.hardware import Machine, Precision


@dataclass(frozen=True)
class Decisions:
    """Each is None or empty where nothing was decided yet."""

    device: str | None = None
    precision: Precision | None = None  # to train the network in
    features: Mapping[str, Any] = field(
        default_factory=dict
    )  # engine, precision of features, and why
    statistics: str | None = None  # what a backbone that trains normalizes by

    @property
    def reasons(self) -> dict[str, Any]:
        """Why the features are as they are, which a run that goes on does not find out again."""
        return {k: self.features[k] for k in ("reason", "measured") if k in self.features}

    def settle(self, cfg: Config, machine: Machine) -> Config:
        """The configuration with what was decided in the place of "auto".

        Raises ConfigError or DeviceError where it cannot be had any more.
        """
        settled = copy.deepcopy(cfg)
        settled.batch_norm.statistics = self.statistics or batch_norm.statistics(cfg)
        if not self.features:
            return settled
        engine, precision = self.features["engine"], self.features["precision"]
        engines.choose(engine, machine)  # raises, with what to install, when it is not there
        native = ("float32", *engines.lower_precisions(engine, machine))
        if cfg.features.precision == "auto" and precision not in native:
            raise DeviceError(
                f"This run reads features in {precision}, which this {machine.device} does not compute itself. "
                "Go on with it on a machine like the one it began on, or train anew."
            )
        settled.features.engine, settled.features.precision = engine, precision
        settled.features.storage = self.features.get("storage", cfg.features.storage)
        return settled


def hold(cfg: Config, facts: Mapping[str, Any]) -> None:
    """Let later stages compute features as the first did: going on with one of them nothing is decided anew."""
    cfg.features.engine, cfg.features.precision = facts["engine"], facts["precision"]
    cfg.features.storage = facts.get("storage", cfg.features.storage)


def of(manifest: Mapping[str, Any]) -> Decisions:
    """What the manifest of a run holds of decisions; nothing for a run that is yet to begin."""
    hardware = manifest.get("hardware") or {}
    policy = hardware.get("precision")
    precision = Precision(policy, hardware.get("precision_reason", "")) if policy else None
    return Decisions(
        hardware.get("device"),
        precision,
        manifest.get("features") or {},
        (manifest.get("batch_norm") or {}).get("statistics"),
    )
