"""One run's folder, written: whole or not at all, by one process at a time."""

import contextlib
import fcntl
import logging
import os
import platform
import shutil
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tlbench.base import files, logs
from tlbench.base.errors import RunError
from tlbench.config.identity import config_hash
from tlbench.config.migrations import FORMAT
from tlbench.config.schema import Config
from tlbench.runs import layout, manifest
from tlbench.runs.run import Run, resume_command

FOLDER = "hydra.run.dir=... (from Python: folder=...)"

log = logging.getLogger(__name__)

# Which run is under way here: of several in one process each log holds its own.
_under_way: ContextVar["Recording | None"] = ContextVar("recording", default=None)


@dataclass(repr=False)
class Recording(Run):
    """A run under way. As a context it is `running`, and `completed` or `failed` when the block ends.

    Results are written to `new`, and become the run's own when the manifest names them: one rename
    decides, so a completed run stays as it is until an extension of it is completed. The files are
    moved to their places after that; a move that was killed is made again.
    """

    @classmethod
    def start(cls, folder: Path, cfg: Config, command: str, facts: Mapping[str, object]) -> Self:
        """Take a folder for a new run. Raises RunError when it holds one, or cannot be written."""
        if (folder / layout.MANIFEST).exists():
            raise RunError(f"{folder} holds a run already. Choose another folder: {FOLDER}")
        run = cls(folder, manifest.begun(command, config_hash(cfg), facts))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            run._lock()
            files.write_text(folder / layout.CONFIG, cfg.to_yaml())
            run.record(files=run._written())
        except OSError as error:
            raise RunError(
                f"{_unwritable(error, folder)} Choose another folder: {FOLDER}"
            ) from error
        return run

    @classmethod
    def resume(cls, run: Run, cfg: Config, command: str, facts: Mapping[str, Any]) -> Self:
        """Take a run up again. Raises RunError when its images or first weights are others now."""
        for part, key, way_on in (
            ("data", "fingerprint", "Put the images back as they were, or set data.root to them"),
            ("weights", "sha256", "Give the file that it began with: backbone.weights=..."),
        ):
            before, now = (str(kept.get(key)) for kept in (run.manifest.get(part, {}), facts[part]))
            if before != now:
                raise RunError(
                    f"{run.folder} cannot go on: its {part} changed ({key} {before[:16]} then, "
                    f"{now[:16]} now). {way_on}. Or train anew."
                )
        taken = cls(run.folder, run.manifest)
        try:
            taken._lock()
            taken._take_up(cfg, command)
        except OSError as error:
            raise RunError(
                f"{_unwritable(error, run.folder)} A run goes on in its own folder."
            ) from error
        return taken

    def _take_up(self, cfg: Config, command: str) -> None:
        files.write_text(self.new / layout.CONFIG, cfg.to_yaml())
        resumed = [*self.manifest.get("resumed", []), {"at": manifest.now(), "command": command}]
        if self.status == "completed":
            asked = {"epochs": cfg.epochs, "config_hash": config_hash(cfg)}
            self.record(resumed=resumed, extension={"status": "running", **asked})
        else:
            self.manifest.pop("reason", None)
            self._publish(
                status="running", resumed=resumed, config_hash=config_hash(cfg), format=FORMAT
            )

    @property
    def new(self) -> Path:
        """The folder for results that are not the run's own yet."""
        folder = self.folder / layout.NEW
        if folder.is_symlink():  # of a run from elsewhere: it could lead anywhere
            folder.unlink()
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def resume_command(self) -> str:
        return resume_command(self.folder)

    def complete(self) -> None:
        """Record that the run ended well, and what its files hold."""
        extension = self.manifest.pop("extension", {})
        asked = extension.get("config_hash", self.manifest.get("config_hash"))
        self._publish(status="completed", finished=manifest.now(), config_hash=asked, format=FORMAT)

    def record(self, **facts: object) -> None:
        """Add facts to the manifest."""
        self.manifest.update(facts)
        manifest.write(self.folder, self.manifest)

    def _publish(self, **facts: object) -> None:
        """Make what lies in `new` the run's own, together with the facts."""
        self.record(**facts, files=self._written(), moving=True)
        self._settle()

    def _settle(self) -> None:
        """Finish what a publication began: its files go to their places. Other new ones are dropped."""
        if self.manifest.get("moving"):
            for path in sorted(self.new.rglob("*")):
                place = self.folder / path.relative_to(self.new)
                if path.is_dir():
                    files.own_folder(place)
                elif not path.name.startswith(files.TEMPORARY):
                    path.replace(place)
        shutil.rmtree(self.new)
        if self.manifest.pop("moving", False):
            self.record()

    def _written(self) -> dict[str, object]:
        """What each of the run's files holds, the new one where there is one."""
        found: dict[str, object] = {}
        for name in layout.RESULTS:
            for path in (self.folder / name, self.new / name):
                if path.is_file():
                    found[name] = files.file_facts(path)
        return found

    def _lock(self) -> None:
        """Keep every other process out of the folder for the life of this one, and tidy it up."""
        self._held = files.append(self.folder / layout.LOCK)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._held.seek(0)
            holder = " ".join(self._held.read(200).split())
            self._held.close()
            raise RunError(f"{self.folder} is in use by {holder}.") from None
        self._held.truncate(0)
        self._held.write(f"process {os.getpid()} on {platform.node()}")
        self._held.flush()
        self._said = files.append(self.folder / layout.LOG)
        for name in (layout.CHECKPOINTS, layout.PLOTS):
            files.refuse_link(self.folder / name)
            files.remove_temporaries(self.folder / name)
        self._settle()
        files.remove_temporaries(self.folder)

    def __enter__(self) -> Self:
        handler = logging.StreamHandler(self._said)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        handler.addFilter(lambda _: _under_way.get() is self)
        self._listening = contextlib.ExitStack()
        self._listening.callback(_under_way.reset, _under_way.set(self))
        self._listening.enter_context(logs.heard_by(handler))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.complete()
        else:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            reason = " ".join(str(error).split()) or type(error).__name__
            if status == "failed":
                log.debug("%s", reason, exc_info=error)
            else:
                log.debug("Interrupted by %s", reason)
            with contextlib.suppress(OSError):  # the error itself is what the user has to see
                self._record_end(status, reason)
        self._listening.close()
        self._said.close()
        self._held.close()

    def _record_end(self, status: str, reason: str) -> None:
        """Why the run, or the extension of a completed one, did not end well."""
        if self.status == "completed":
            self.record(extension={**self.extension, "status": status, "reason": reason})
        else:
            self.record(status=status, reason=reason, finished=manifest.now())


def _unwritable(error: OSError, folder: Path) -> str:
    return f"{error.filename or folder} cannot be written ({error.strerror})."
