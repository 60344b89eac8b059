from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from build_engines.artefact import find_artefact, list_artefacts, verify_hashes
from build_engines.errors import ArtefactError, ConversionError, DiskSpaceError, SpecError
from build_engines.pipeline import build, collect_leftovers
from build_engines.recipe import Workspace
from tests.unit.build_engines.build_fakes import TINY_SPEC, WEIGHTS, FakeRecipe

PROJECT = Path(__file__).parents[3]


def hidden(home: Path) -> list[Path]:
    return list((home / "models").glob("*/.*"))


def start_build(home: Path, calls: Path, *options: str) -> subprocess.Popen[bytes]:
    module = "tests.unit.build_engines.build_fakes"
    return subprocess.Popen(
        [sys.executable, "-m", module, str(home), str(calls), *options], cwd=PROJECT
    )


def wait_for_file(path: Path, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def test_a_build_is_published_whole_and_leaves_no_scratch(tmp_path: Path) -> None:
    recipe = FakeRecipe()
    built = build(TINY_SPEC, None, tmp_path, recipes={"fake": recipe})

    assert (built.path / "model.bin").read_bytes() == WEIGHTS
    assert built.manifest.variant == "q8_0"
    assert built.manifest.size_bytes == len(WEIGHTS) + len("{}")
    assert list_artefacts(tmp_path) == [built]
    assert hidden(tmp_path) == []
    verify_hashes(built)


def test_what_is_published_is_not_built_again(tmp_path: Path) -> None:
    recipe = FakeRecipe()
    first = build(TINY_SPEC, "f16", tmp_path, recipes={"fake": recipe})
    assert build(TINY_SPEC, "f16", tmp_path, recipes={"fake": recipe}) == first
    assert recipe.builds == ["f16"]


def test_nothing_is_visible_while_it_is_built(tmp_path: Path) -> None:
    seen: list[object] = []

    def look(workspace: Workspace) -> None:
        seen.append(find_artefact(tmp_path, "tiny", "q8_0"))
        seen.extend(list_artefacts(tmp_path))

    build(TINY_SPEC, None, tmp_path, recipes={"fake": FakeRecipe(on_written=look)})
    assert seen == [None]


def test_a_failed_build_leaves_nothing_and_the_next_one_succeeds(tmp_path: Path) -> None:
    def fail(workspace: Workspace) -> None:
        raise ConversionError("no")

    with pytest.raises(ConversionError, match="no"):
        build(TINY_SPEC, None, tmp_path, recipes={"fake": FakeRecipe(on_written=fail)})
    assert hidden(tmp_path) == []
    assert list_artefacts(tmp_path) == []
    build(TINY_SPEC, None, tmp_path, recipes={"fake": FakeRecipe()})


def test_a_build_killed_midway_leaves_nothing_visible_and_the_next_one_succeeds(
    tmp_path: Path,
) -> None:
    calls = tmp_path / "calls"
    process = start_build(tmp_path, calls, "block")
    try:
        wait_for_file(calls)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(hidden(tmp_path)) == 1
    assert list_artefacts(tmp_path) == []
    assert find_artefact(tmp_path, "tiny", "q8_0") is None

    built = build(TINY_SPEC, None, tmp_path, recipes={"fake": FakeRecipe()})
    verify_hashes(built)
    assert hidden(tmp_path) == []


def test_any_build_collects_what_dead_builders_left_but_not_the_work_of_living_ones(
    tmp_path: Path,
) -> None:
    dead = tmp_path / "models" / "other" / ".f16.building"
    (dead / "scratch").mkdir(parents=True)
    calls = tmp_path / "calls"
    living = start_build(tmp_path, calls, "block")
    try:
        wait_for_file(calls)
        collect_leftovers(tmp_path)
        assert not dead.exists()
        assert [path.name for path in hidden(tmp_path)] == [".q8_0.building"]
    finally:
        living.kill()
        living.wait()
    build(TINY_SPEC, "f16", tmp_path, recipes={"fake": FakeRecipe()})
    assert hidden(tmp_path) == []


def test_of_two_builders_at_once_one_builds_and_both_get_the_artefact(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    processes = [start_build(tmp_path, calls) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert len(calls.read_text().splitlines()) == 1
    assert len(list_artefacts(tmp_path)) == 1


def test_a_builder_that_waits_says_so(tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()

    def hold(workspace: Workspace) -> None:
        started.set()
        assert go_on.wait(20)

    def tell(stage: str, done: int, total: int) -> None:
        stages.append(stage)
        go_on.set()

    stages: list[str] = []
    first = threading.Thread(
        target=build,
        args=(TINY_SPEC, None, tmp_path),
        kwargs={"recipes": {"fake": FakeRecipe(hold)}},
    )
    first.start()
    assert started.wait(20)
    second = FakeRecipe()
    built = build(TINY_SPEC, None, tmp_path, tell, recipes={"fake": second})
    first.join()
    assert (stages, second.builds) == (["wait"], [])
    assert built.manifest.name == "tiny"


def test_a_disk_that_is_too_small_is_told_before_anything_is_built(tmp_path: Path) -> None:
    recipe = FakeRecipe(needed_bytes=3_000_000_000)
    with pytest.raises(DiskSpaceError, match=r"needs 3000 MB.* 2000 MB are free: make room"):
        build(
            TINY_SPEC, None, tmp_path, recipes={"fake": recipe}, free_bytes=lambda _: 2_000_000_000
        )
    assert recipe.builds == []
    assert list_artefacts(tmp_path) == []


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    def fill(workspace: Workspace) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskSpaceError, match="is full: make room and build again"):
        build(TINY_SPEC, None, tmp_path, recipes={"fake": FakeRecipe(on_written=fill)})
    assert hidden(tmp_path) == []


def test_a_full_disk_is_named_whatever_the_library_called_it(tmp_path: Path) -> None:
    room = [10_000_000]

    def fill(workspace: Workspace) -> None:
        room[0] = 0
        raise ConversionError("iostream error")

    with pytest.raises(DiskSpaceError, match="is full: make room and build again"):
        build(
            TINY_SPEC,
            None,
            tmp_path,
            recipes={"fake": FakeRecipe(on_written=fill)},
            free_bytes=lambda _: room[0],
        )


def test_other_system_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    def deny(workspace: Workspace) -> None:
        raise PermissionError(errno.EACCES, "denied")

    with pytest.raises(PermissionError):
        build(TINY_SPEC, None, tmp_path, recipes={"fake": FakeRecipe(on_written=deny)})


def test_a_damaged_artefact_is_not_silently_built_over(tmp_path: Path) -> None:
    built = build(TINY_SPEC, None, tmp_path, recipes={"fake": FakeRecipe()})
    (built.path / "model.bin").unlink()
    with pytest.raises(ArtefactError, match="models remove tiny --variant q8_0` deletes it"):
        build(TINY_SPEC, None, tmp_path, recipes={"fake": FakeRecipe()})


def test_a_kind_without_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="kind warp is not one of fake"):
        build(replace(TINY_SPEC, kind="warp"), None, tmp_path, recipes={"fake": FakeRecipe()})


def test_importing_the_pipeline_imports_no_large_library() -> None:
    code = (
        "import sys, build_engines.cli\n"
        "large = {'numpy', 'openvino', 'openvino_genai', 'gguf', 'tokenizers', 'transformers'}\n"
        "sys.exit(','.join(large & set(sys.modules)) or None)"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True)
    assert finished.returncode == 0, finished.stderr
