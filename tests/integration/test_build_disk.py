"""A small disk: a tmpfs that `inflight build` gets as its home, in a mount namespace of its own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.build_engines.build_fakes import write_checkpoint

PROJECT = Path(__file__).parents[2]
FILLING = "tests.unit.build_engines.build_fakes"


def in_small_disk(home: Path, size: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command where `home` has `size`, then lists what it has published."""
    home.mkdir(exist_ok=True)
    place = shlex.quote(str(home))
    script = (
        f"mount -t tmpfs -o size={size} none {place} || exit 77\n{shlex.join(command)}\n"
        f"code=$?\nfind {place}/models -type f 2>/dev/null\nexit $code"
    )
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module", autouse=True)
def namespaces(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = in_small_disk(tmp_path_factory.mktemp("probe"), "1m", "true")
    if found.returncode:
        pytest.skip(f"no mount namespaces here: {found.stderr.strip()}")


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
