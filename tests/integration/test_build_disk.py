"""A small disk: a tmpfs that `inflight build` gets as its home, in a mount namespace of its own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.unit.build_engines.build_fakes import write_checkpoint

PROJECT = Path(__file__).parents[2]
FILLING = "tests.unit.build_engines.build_fakes"
# Who may mount: a user in a namespace of its own; root, in a container with CAP_SYS_ADMIN; who has
# sudo without a password, as CI's machines do, where user namespaces are forbidden.
NAMESPACES = (
    ("unshare", "--user", "--map-root-user", "--mount"),
    ("unshare", "--mount"),
    ("sudo", "--non-interactive", "unshare", "--mount"),
)


@cache
def namespace() -> tuple[str, ...]:
    """What starts a program that may mount. A machine that lets nobody fails: nothing is shown."""
    problems = []
    for candidate in NAMESPACES:
        probe = (*candidate, "mount", "-t", "tmpfs", "none", "/mnt")
        try:
            found = subprocess.run(probe, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            problems.append(f"{candidate[0]} is not installed")
            continue
        if found.returncode == 0:
            return candidate
        problems.append(f"{shlex.join(candidate)}: {found.stderr.strip()}")
    pytest.fail(
        "a full disk cannot be shown: nothing here may mount a tmpfs. Allow user namespaces "
        "(sysctl kernel.apparmor_restrict_unprivileged_userns=0), give sudo, or start the "
        f"container with --cap-add SYS_ADMIN. {'; '.join(problems)}"
    )


def in_small_disk(home: Path, size: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command where `home` has `size`, then lists what it has published."""
    home.mkdir(exist_ok=True)
    place = shlex.quote(str(home))
    script = (
        f"mount -t tmpfs -o size={size} none {place} || exit 77\n{shlex.join(command)}\n"
        f"code=$?\nfind {place}/models -type f 2>/dev/null\nexit $code"
    )
    return subprocess.run(
        [*namespace(), "sh", "-c", script],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = (sys.executable, "-m", "build_engines", "smollm2-135m-instruct", "--home", str(home))
    finished = in_small_disk(home, "64m", *command)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith("error: the build needs ")
    assert "67 MB are free: make room or choose another directory" in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_a_disk_that_fills_up_is_named_and_nothing_is_published(tmp_path: Path) -> None:
    home = tmp_path / "home"
    checkpoint = write_checkpoint(tmp_path / "model")
    arguments = ("--checkpoint", str(checkpoint), "-v", "q8_0", "--home", str(home))
    finished = in_small_disk(home, "16m", sys.executable, "-m", FILLING, "fill", *arguments)
    assert (finished.returncode, finished.stdout) == (1, "")
    lines = finished.stderr.splitlines()
    assert lines[-1] == f"error: the disk of {home} is full: make room and build again"
    assert "Traceback" not in finished.stderr
