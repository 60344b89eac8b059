from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from build_engines.artefacts.artefact import FileEntry
from build_engines.errors import BuildError, ConversionError
from build_engines.progress import silent
from build_engines.stages import (
    Stage,
    StageContext,
    StageStore,
    code_hash,
    failures_in_log,
    stage_files,
)

Run = Callable[[Path, StageContext], None]


def writing(text: str, calls: list[str] | None = None) -> Run:
    def run(out: Path, context: StageContext) -> None:
        (out / "sub").mkdir()
        (out / "sub" / "file").write_text(text)
        if calls is not None:
            calls.append(text)

    return run


def stage(name: str = "make", run: Run | None = None, **inputs: object) -> Stage:
    return Stage(name=name, inputs=inputs, run=run or writing(name))


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "builds")


def again(store: StageStore) -> StageStore:
    """What a second program sees."""
    return StageStore(store.root)


def test_a_stage_is_done_once(store: StageStore) -> None:
    calls: list[str] = []
    first = store.run(stage(run=writing("x", calls), a=1), silent)
    assert (first.path / "sub" / "file").read_text() == "x"
    assert again(store).run(stage(run=writing("y", calls), a=1), silent) == first
    assert calls == ["x"]


def test_other_inputs_are_another_stage(store: StageStore) -> None:
    first = store.run(stage(a={"x": [1]}), silent)
    assert again(store).run(stage(a={"x": [2]}), silent).path != first.path
    assert again(store).find(stage(a={"x": [1]})) == first


def test_a_stage_depends_on_the_content_of_those_before_not_on_how_they_were_made(
    store: StageStore,
) -> None:
    calls: list[str] = []
    second = stage("second", writing("second", calls))
    store.run(stage("first", writing("same"), made="here"), silent)
    store.run(second, silent)
    other = again(store)
    other.run(stage("first", writing("same"), made="there"), silent)
    other.run(second, silent)
    assert calls == ["second"]
    changed = again(store)
    changed.run(stage("first", writing("changed"), made="elsewhere"), silent)
    changed.run(second, silent)
    assert calls == ["second", "second"]


def test_equal_inputs_give_equal_digests_wherever_they_run(tmp_path: Path) -> None:
    digests = {StageStore(tmp_path / name).run(stage(), silent).digest for name in "ab"}
    assert len(digests) == 1


def test_a_stage_that_fails_leaves_nothing_that_is_taken(store: StageStore) -> None:
    def fail(out: Path, context: StageContext) -> None:
        (out / "half").write_text("")
        raise ConversionError("no")

    with pytest.raises(ConversionError):
        store.run(stage(run=fail), silent)
    assert store.find(stage()) is None
    store.discard_partial()
    assert list(store.root.iterdir()) == []


def test_what_a_killed_stage_left_is_not_taken_and_deleted(store: StageStore) -> None:
    done = store.run(stage(), silent).path
    (done / "stage.json").unlink()
    done.rename(done.with_name(done.name + ".partial"))
    assert again(store).find(stage()) is None
    again(store).discard_partial()
    assert list(store.root.iterdir()) == []


def test_what_is_known_of_the_files_is_not_read_again(store: StageStore) -> None:
    entry = FileEntry(size_bytes=5, sha256="f" * 64)

    def run(out: Path, context: StageContext) -> dict[str, FileEntry]:
        (out / "link").write_text("12345")
        return {"link": entry}

    finished = store.run(Stage(name="fetch", inputs={}, run=run), silent)
    assert stage_files(finished.path) == {"link": entry}


def test_a_stage_that_has_lost_a_file_is_done_again(store: StageStore, tmp_path: Path) -> None:
    target = tmp_path / "downloaded"

    def link(out: Path, context: StageContext) -> None:
        target.write_text("weights")
        (out / "weights").symlink_to(target)

    first = store.run(stage(run=link), silent)
    target.unlink()
    assert again(store).find(stage()) is None
    assert again(store).run(stage(run=link), silent) == first
    target.write_text("others")
    assert again(store).find(stage()) is None


def test_what_is_behind_a_stage_that_is_to_do_is_to_do(store: StageStore) -> None:
    stages = [stage("a"), stage("b", x=1), stage("c")]
    assert store.todo(stages) == stages
    for one in stages:
        store.run(one, silent)
    fresh = again(store)
    assert fresh.todo(stages) == []
    assert fresh.before == {}
    changed = [stages[0], stage("b", writing("new"), x=2), stages[2]]
    assert fresh.todo(changed) == changed[1:]


def test_small_stages_stay_for_the_next_build_and_links_count_nothing(
    store: StageStore, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(5000))

    def link(out: Path, context: StageContext) -> None:
        (out / "weights").symlink_to(large)

    def copy(out: Path, context: StageContext) -> None:
        shutil.copy(large, out / "weights")

    kept = store.run(stage("fetch", link), silent).path
    gone = store.run(stage("convert", copy), silent).path
    store.collect(small_bytes=1000)
    assert (kept.exists(), gone.exists(), large.exists()) == (True, False, True)


def test_progress_is_that_of_the_stage(store: StageStore) -> None:
    steps: list[tuple[str, int, int]] = []
    reporting = stage(run=lambda out, context: context.report(3, 7))
    store.run(reporting, lambda name, done, total: steps.append((name, done, total)))
    assert steps == [("make", 0, 0), ("make", 3, 7), ("make", 1, 1)]


def test_the_hash_of_code_is_of_every_module_in_the_folder(tmp_path: Path) -> None:
    hashes = []
    for name, text in (("a", "1"), ("b", "1"), ("b", "2")):
        folder = tmp_path / f"{name}{text}"
        folder.mkdir()
        (folder / "a.py").write_text("first")
        (folder / f"{name}.py").write_text(text)
        hashes.append(code_hash(folder))
        assert code_hash(folder) == hashes[-1]
    assert len(set(hashes)) == 3


def test_what_nobody_expected_is_one_line_and_the_log_has_the_rest(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    with pytest.raises(BuildError) as caught, failures_in_log(log):
        raise RuntimeError("first line\nsecond line")
    assert str(caught.value) == (
        f"the build failed unexpectedly (RuntimeError: first line): see {log}"
    )
    assert "second line" in log.read_text()
    with pytest.raises(ConversionError), failures_in_log(log):
        raise ConversionError("known")
