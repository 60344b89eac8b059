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

from build_engines.artefacts.artefact import Artefact

logger = logging.getLogger(__name__)


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
    """New versions that could not take the place of the one that is served; each is tried once.

    Changed by the holder of the repository's lock only.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / "state" / "failed.json"

    def reasons(self) -> dict[str, dict[str, str]]:
        """By model: the artefact's folder and content, and Triton's reason."""
        try:
            failed: dict[str, dict[str, str]] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:  # not ours
            logger.exception("unreadable file ignored", extra={"path": str(self._path)})
            return {}
        return failed

    def holds(self, artefact: Artefact) -> bool:
        failed = self.reasons().get(artefact.manifest.name, {})
        return failed.get("content_hash") == artefact.content_hash

    def add(self, artefact: Artefact, reason: str) -> None:
        failed = {
            "path": str(artefact.path), "content_hash": artefact.content_hash, "reason": reason,
        }  # fmt: skip
        self._write({**self.reasons(), artefact.manifest.name: failed})

    def forget(self, name: str) -> None:
        """A model was loaded: whatever failed before may be tried again."""
        failed = self.reasons()
        if failed.pop(name, None) is not None:
            self._write(failed)

    def _write(self, failed: dict[str, dict[str, str]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(f".{os.getpid()}.new")
        new.write_text(json.dumps(failed))
        new.replace(self._path)
