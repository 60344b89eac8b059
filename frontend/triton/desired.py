"""What worker processes tell each other in state/ about the models that Triton is to serve:
loaded.json has their names, for now and after a crash; failed.json the versions that did not load.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from build_engines.artefacts.artefact import Artefact

logger = logging.getLogger(__name__)


MAX_DEATHS = 3  # of Triton over one version


def repository_lock(home: Path) -> Path:
    """The file whose lock has whoever changes what Triton serves, or deletes what it may."""
    path = home / "state" / "repository.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class DesiredModels:
    """Every change is atomic, and excludes those of other processes."""

    def __init__(self, home: Path) -> None:
        self._path = home / "state" / "loaded.json"
        self._repository = home / "repository"

    def names(self) -> list[str]:
        """All names, sorted; none when nothing was ever loaded."""
        try:
            names = json.loads(self._path.read_text())
        except FileNotFoundError:
            return []
        except ValueError:  # not ours; a start must not depend on it
            logger.exception("unreadable file ignored", extra={"path": str(self._path)})
            return []
        return sorted(name for name in names if isinstance(name, str))

    def with_folders(self) -> list[str]:
        """The names that have a folder in the repository; the others cannot be loaded."""
        names = self.names()
        there = [name for name in names if (self._repository / name / "config.pbtxt").is_file()]
        for name in sorted(set(names) - set(there)):
            logger.warning("model without a folder not loaded", extra={"model": name})
        return there

    def add(self, name: str) -> None:
        self._change(lambda names: {*names, name})

    def remove(self, name: str) -> None:
        self._change(lambda names: names - {name})

    def replace(self, names: Iterable[str]) -> None:
        self._change(lambda _: set(names))

    def _change(self, change: Callable[[set[str]], set[str]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released by closing the file
            names = sorted(change(set(self.names())))
            new = self._path.with_suffix(f".{os.getpid()}.new")
            new.write_text(json.dumps(names))
            new.replace(self._path)


class FailedVersions:
    """New versions that could not take the place of the one that is served.

    Each is tried once; but where Triton died over it, which it may have done for another reason,
    MAX_DEATHS times. Changed by the holder of the repository's lock only.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / "state" / "failed.json"

    def reasons(self) -> dict[str, dict[str, Any]]:
        """By model: the artefact's folder and content, Triton's reason, and how often it died."""
        try:
            failed: dict[str, dict[str, Any]] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:  # not ours
            logger.exception("unreadable file ignored", extra={"path": str(self._path)})
            return {}
        return failed

    def holds(self, artefact: Artefact) -> bool:
        """Whether it is not to be tried any more."""
        failed = self._of(artefact)
        return bool(failed) and not 0 < failed["num_deaths"] < MAX_DEATHS

    def add(self, artefact: Artefact, reason: str, *, has_died: bool) -> None:
        """
        Args:
            has_died: Triton has, while it loaded the version.
        """
        failed = {
            "path": str(artefact.path),
            "content_hash": artefact.content_hash,
            "reason": reason,
            "num_deaths": self._of(artefact).get("num_deaths", 0) + 1 if has_died else 0,
        }
        self._write({**self.reasons(), artefact.manifest.name: failed})

    def forget(self, name: str) -> None:
        """A model was loaded: whatever failed before may be tried again."""
        failed = self.reasons()
        if failed.pop(name, None) is not None:
            self._write(failed)

    def _of(self, artefact: Artefact) -> dict[str, Any]:
        failed = self.reasons().get(artefact.manifest.name, {})
        return failed if failed.get("content_hash") == artefact.content_hash else {}

    def _write(self, failed: dict[str, dict[str, Any]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(f".{os.getpid()}.new")
        new.write_text(json.dumps(failed))
        new.replace(self._path)
