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

from build_engines.artefacts.artefact import find_artefact, list_artefacts, verify_hashes
from build_engines.errors import (
    ArtefactError,
    ChoiceError,
    ConversionError,
    DiskSpaceError,
    MemoryShortError,
    SpecError,
)
from build_engines.machine import Machine
from build_engines.pipeline import build, collect_leftovers
from tests.unit.build_engines.build_fakes import (
    STAGES,
    WEIGHTS,
    FakeRecipe,
    build_tiny,
    tiny_spec,
    write_checkpoint,
)

PROJECT = Path(__file__).parents[3]


def hidden(home: Path) -> list[Path]:
    return list((home / "models").glob("*/.*"))


def start_build(home: Path, calls: Path, *options: str) -> subprocess.Popen[bytes]:
    module = "tests.unit.build_engines.build_fakes"
    return subprocess.Popen(
        [sys.executable, "-m", module, str(home), str(calls), *options], cwd=PROJECT
    )


def wait_for_line(path: Path, text: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, f"{text} did not appear"
        time.sleep(0.01)


def test_a_build_is_published_whole_and_leaves_no_scratch(tmp_path: Path) -> None:
    built = build_tiny(tmp_path)
    assert (built.path / "model.bin").read_bytes() == WEIGHTS
    assert (built.path / "tokenizer" / "first.txt").read_text() == "tokenizer"
    assert built.manifest.variant == "q8_0"
    sizes = [
        path.stat().st_size for path in built.path.rglob("*.*") if path.name != "manifest.json"
    ]
    assert built.manifest.size_bytes == sum(sizes)
    assert list_artefacts(tmp_path) == [built]
    assert hidden(tmp_path) == []
    verify_hashes(built)


def test_what_is_published_is_not_built_again(tmp_path: Path) -> None:
    recipe = FakeRecipe()
    first = build_tiny(tmp_path, recipe, "f16")
    assert build_tiny(tmp_path, recipe, "f16") == first
    assert recipe.runs == list(STAGES)


def test_nothing_is_visible_while_it_is_built(tmp_path: Path) -> None:
    seen: list[object] = []

    def look(stage: str, out: Path) -> None:
        seen.append(find_artefact(tmp_path, "tiny", "q8_0"))
        seen.extend(list_artefacts(tmp_path))

    build_tiny(tmp_path, FakeRecipe(on_written=look))
    assert seen == [None] * len(STAGES)


def test_a_failed_build_leaves_nothing_and_the_next_one_succeeds(tmp_path: Path) -> None:
    def fail(stage: str, out: Path) -> None:
        raise ConversionError("no")

    with pytest.raises(ConversionError, match="no"):
        build_tiny(tmp_path, FakeRecipe(on_written=fail))
    assert hidden(tmp_path) == []
    assert list_artefacts(tmp_path) == []
    build_tiny(tmp_path)


@pytest.mark.parametrize("killed", ["fetch", *STAGES, "publish"])
def test_a_build_killed_midway_loses_the_stage_in_flight_alone(tmp_path: Path, killed: str) -> None:
    calls = tmp_path / "calls"
    process = start_build(tmp_path, calls, killed)
    try:
        wait_for_line(calls, killed)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list_artefacts(tmp_path) == []
    assert find_artefact(tmp_path, "tiny", "q8_0") is None

    recipe = FakeRecipe()
    built = build_tiny(tmp_path, recipe)
    every = ["fetch", *STAGES, "publish"]
    left = every[every.index(killed) :]
    assert recipe.runs == [name for name in STAGES if name in left]
    verify_hashes(built)
    assert hidden(tmp_path) == []
    assert list((tmp_path / "builds").rglob("*.partial")) == []
    assert built.content_hash == build_tiny(tmp_path / "undisturbed").content_hash


def test_any_build_collects_what_dead_builders_left_but_not_the_work_of_living_ones(
    tmp_path: Path,
) -> None:
    dead = tmp_path / "models" / "other" / ".f16.building"
    living = tmp_path / "models" / "tiny" / ".q8_0.building"
    for path in (dead, living):
        path.mkdir(parents=True)
    calls = tmp_path / "calls"
    builder = start_build(tmp_path, calls, "convert")
    try:
        wait_for_line(calls, "convert")
        living.mkdir(exist_ok=True)
        collect_leftovers(tmp_path)
        assert not dead.exists()
        assert living.exists()
    finally:
        builder.kill()
        builder.wait()
    build_tiny(tmp_path, variant="f16")
    assert hidden(tmp_path) == []


def test_of_two_builders_at_once_one_builds_and_both_get_the_artefact(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint")
    calls = tmp_path / "calls"
    processes = [start_build(tmp_path, calls) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert len(calls.read_text().splitlines()) == len(STAGES)
    assert len(list_artefacts(tmp_path)) == 1


def test_a_builder_that_waits_says_so(tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()

    def hold(stage: str, out: Path) -> None:
        started.set()
        assert go_on.wait(20)

    def tell(stage: str, done: int, total: int) -> None:
        stages.append(stage)
        go_on.set()

    stages: list[str] = []
    first = threading.Thread(target=build_tiny, args=(tmp_path, FakeRecipe(hold)))
    first.start()
    assert started.wait(20)
    second = FakeRecipe()
    built = build_tiny(tmp_path, second, progress=tell)
    first.join()
    assert (stages, second.runs) == (["wait"], [])
    assert built.manifest.name == "tiny"


def test_a_disk_that_is_too_small_is_told_before_anything_is_built(tmp_path: Path) -> None:
    recipe = FakeRecipe(needed_bytes=1_000_000_000)
    machine = Machine(free_bytes=lambda _: 2_000_000_000)
    with pytest.raises(DiskSpaceError, match=r"needs 3.0 GB.* 2.0 GB are free: make room"):
        build_tiny(tmp_path, recipe, machine=machine)
    assert recipe.runs == []
    assert list_artefacts(tmp_path) == []


def test_memory_that_is_too_small_is_told_before_anything_is_built(tmp_path: Path) -> None:
    recipe = FakeRecipe(needed_memory_bytes=3_000_000_000)
    machine = Machine(available_memory_bytes=lambda: 2_000_000_000)
    with pytest.raises(MemoryShortError, match=r"needs 3.0 GB of memory, 2.0 GB are free"):
        build_tiny(tmp_path, recipe, machine=machine)
    assert recipe.runs == []


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    def fill(stage: str, out: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskSpaceError, match="is full: make room and build again"):
        build_tiny(tmp_path, FakeRecipe(on_written=fill))
    assert hidden(tmp_path) == []


def test_a_full_disk_is_named_whatever_the_library_called_it(tmp_path: Path) -> None:
    def fill(stage: str, out: Path) -> None:
        (out / "large").write_bytes(b"")
        raise RuntimeError("iostream error")

    def room(path: Path) -> int:
        return 0 if list(tmp_path.glob("builds/tiny/q8_0/*.partial/large")) else 10_000_000

    with pytest.raises(DiskSpaceError, match="is full: make room and build again"):
        build_tiny(
            tmp_path,
            FakeRecipe(on_written=fill),
            machine=Machine(free_bytes=room),
        )
    assert list(tmp_path.glob("builds/tiny/q8_0/*.partial")) == []


def test_other_system_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    def deny(stage: str, out: Path) -> None:
        raise PermissionError(errno.EACCES, "denied")

    with pytest.raises(PermissionError):
        build_tiny(tmp_path, FakeRecipe(on_written=deny))


def test_a_damaged_artefact_is_not_silently_built_over(tmp_path: Path) -> None:
    built = build_tiny(tmp_path)
    (built.path / "model.bin").unlink()
    with pytest.raises(ArtefactError, match="models remove tiny --variant q8_0` deletes it"):
        build_tiny(tmp_path)


def test_a_kind_without_a_recipe_is_refused(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path / "checkpoint")
    with pytest.raises(ChoiceError, match="cpu cannot be built here, only warp"):
        build(spec, None, tmp_path, recipes={"warp": FakeRecipe()})


def test_a_spec_without_a_source_asks_for_a_checkpoint(tmp_path: Path) -> None:
    spec = replace(tiny_spec(tmp_path / "checkpoint"), source=None)
    with pytest.raises(SpecError, match="tiny has no source: give its checkpoint by --checkpoint"):
        build(spec, None, tmp_path)


def test_importing_the_pipeline_imports_no_large_library() -> None:
    code = (
        "import sys, build_engines.cli\n"
        "large = {'numpy', 'openvino', 'openvino_genai', 'gguf', 'tokenizers', 'transformers'}\n"
        "sys.exit(','.join(large & set(sys.modules)) or None)"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True)
    assert finished.returncode == 0, finished.stderr
