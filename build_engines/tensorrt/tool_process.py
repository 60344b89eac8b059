"""Runs one program with its output in a log; it does not outlive us.

Knows nothing of what is run.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TERMINATE_S = 10.0
_SHOWN_CHARACTERS = 300
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a program ended that did not end well. `output` is what it said, its last part."""

    exit_code: int  # negative: the signal that ended it
    output: str
    log: Path

    def message(self, command: Sequence[str]) -> str:
        """One line."""
        name = Path(command[1] if command[0] == "python3" else command[0]).name
        if self.exit_code in (137, -signal.SIGKILL):
            how = "was killed, probably for want of memory"
        elif self.exit_code < 0:
            how = f"ended by signal {-self.exit_code}"
        else:
            how = f"failed (exit {self.exit_code})"
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        said = f": {lines[-1][:_SHOWN_CHARACTERS]}" if lines else ""
        return f"{name} {how}{said} (all of it is in {self.log})"


def run_logged(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path
) -> Failure | None:
    """Runs a program, `env` added to our own environment; None: it ended well.

    When we are interrupted, it and what it has started are ended; when we are killed, it is too.
    """
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except OSError as exc:
            return Failure(exit_code=127, output=f"{command[0]}: {exc.strerror}", log=log)
        try:
            exit_code = process.wait()
        except BaseException:
            _end(process)
            raise
    if exit_code == 0:
        return None
    with log.open("rb") as file:
        file.seek(start)
        said = file.read().decode(errors="replace")
    return Failure(exit_code=exit_code, output=said, log=log)


def _die_with_parent() -> None:
    """A tool that goes on after kill -9 would write into the next build's directory."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(TERMINATE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
