"""`inflight models`, over home folders with models that have no weights, and a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from build_engines.artefacts.artefact import Artefact, find_artefact
from frontend.cli import app
from frontend.manage.server import write_server_file
from frontend.settings import Settings
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import FakeEngine, FakeRepository
from tests.fakes.gpu_artefacts import VOCAB_SIZE, engine_config
from tests.fakes.server import ServerThread
from tests.fakes.tokenizers import write_tokenizer
from tests.unit.build_engines.test_lora import write_peft

LORA = {
    "lora_config": {"lora_target_modules": ["attn_q"], "max_lora_rank": 8},
    "plugin_config": {"lora_plugin": "auto", "use_paged_context_fmha": True},
}


def publish_version(home: Path, name: str, number: int, variant: str = "q8_0") -> Artefact:
    return publish_model(home, name, variant, bos_id=number)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        publish_version(tmp_path, "tiny", number)
    publish_model(tmp_path, "tiny", "f16")
    publish_model(tmp_path, "other")
    return tmp_path


@pytest.fixture
def engine(home: Path) -> Iterator[FakeEngine]:
    """A server that runs from the home and has tiny/q8_0 loaded."""
    engine = FakeEngine()
    engine.load("tiny")
    settings = Settings(home=home, model="tiny", triton_metrics_url="127.0.0.1:1")
    with ServerThread(settings, engine, FakeRepository(engine)) as server:
        write_server_file(home, server.url)
        yield engine


def run(home: Path, *arguments: object) -> Result:
    command = ["models", *map(str, arguments), "--home", str(home)]
    return CliRunner().invoke(app, command)


def run_json(home: Path, *arguments: object) -> Any:
    result = run(home, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def error_of(result: Result) -> str:
    assert result.exit_code in (1, 2), result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_the_list_has_a_line_for_each_variant(home: Path) -> None:
    lines = [line.split("\t") for line in run(home, "list").stdout.splitlines()]
    assert [line[:3] for line in lines] == [
        ["other", "q8_0", "1"],
        ["tiny", "f16", "1"],
        ["tiny", "q8_0", "3 (1, 2)"],
    ]
    assert lines[0][3:] == ["gguf", "4.2GB", "2048", "-", "-"]


def test_the_list_says_what_the_server_has_loaded(home: Path, engine: FakeEngine) -> None:
    found = {(one["name"], one["variant"]): one["loaded"] for one in run_json(home, "list")}
    assert found == {("other", "q8_0"): False, ("tiny", "f16"): False, ("tiny", "q8_0"): True}


def test_what_cannot_be_used_is_in_the_list_with_the_reason(home: Path) -> None:
    damaged = find_artefact(home, "other", "q8_0")
    assert damaged is not None
    (damaged.path / "tokenizer" / "tokenizer.json").unlink()
    old = home / "models" / "old" / "q8_0"
    old.mkdir(parents=True)
    (old / "manifest.json").write_text('{"schema_version": 1}')
    problems = {one["name"]: one["problem"] for one in run_json(home, "list")}
    assert "tokenizer.json is missing" in problems["other"]
    assert "schema 1" in problems["old"]
    assert problems["tiny"] is None
    assert "damaged" in run(home, "list").stdout
    assert run(home, "remove", "old").exit_code == 0


def test_show_tells_what_the_manifest_says(home: Path) -> None:
    [shown] = run_json(home, "show", "tiny", "--variant", "q8_0")
    assert (shown["version"], shown["previous"], shown["versions"]) == (3, 2, [1, 2, 3])
    assert shown["path"].endswith("models/tiny/q8_0/3")
    assert shown["tokens"]["bos_id"] == 3
    assert "tokens.bos_id\t3" in run(home, "show", "tiny", "-v", "q8_0").stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "nope"), "there is no model 'nope'"),
        (("show", "../tiny"), "there is no model '../tiny'"),
        (("show", "tiny", "-v", "q4_0"), "tiny has no variant 'q4_0', only f16, q8_0"),
        (("rollback", "other"), "other/q8_0 has no version but 1"),
        (("load", "tiny"), "no server runs from"),
        (("list", "--url", "http://127.0.0.1:1"), "no server answers at http://127.0.0.1:1"),
        (("add", "/nowhere"), "/nowhere is no folder of an artefact"),
        (("add", "/nowhere.gguf"), "/nowhere.gguf is not there"),
        (("add", "tiny", "--adapter", "a=/x"), "tiny has variants f16, q8_0: choose one"),
        (("add", "other", "--adapter", "a"), "--adapter is NAME=FOLDER"),
        (("add", "other", "--adapter", "a=/x"), "kind cpu take no LoRA adapters"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    home: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in error_of(run(home, *arguments))


def test_a_rollback_changes_the_current_version(home: Path) -> None:
    assert run(home, "rollback", "tiny").stdout == "tiny/q8_0: version 2 is current\n"
    assert run(home, "rollback", "tiny").stdout == "tiny/q8_0: version 3 is current\n"


def test_collecting_says_what_it_frees(home: Path) -> None:
    [found] = run_json(home, "gc", "--dry-run")
    assert found["path"] == str(home / "models/tiny/q8_0/1")
    assert run_json(home, "gc") == [found]
    assert run_json(home, "gc") == []


def test_collecting_keeps_what_a_server_has_loaded(home: Path) -> None:
    served = home / "models/tiny/q8_0/1"
    folder = home / "repository" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(
        f'parameters {{ key: "artefact_dir" value: {{ string_value: "{served}" }} }}'
    )
    (home / "state" / "loaded.json").write_text('["tiny"]')
    assert run_json(home, "gc") == []
    assert served.is_dir()


def test_what_is_loaded_is_removed_by_force_only(home: Path, engine: FakeEngine) -> None:
    assert "is loaded by the server" in error_of(run(home, "remove", "tiny"))
    assert run(home, "remove", "tiny", "-v", "f16").exit_code == 0
    result = run(home, "remove", "tiny", "--force")
    assert result.exit_code == 0
    assert result.stdout.startswith("tiny/q8_0: unloaded\ntiny/q8_0: removed")
    assert "tiny" not in engine.models
    assert not (home / "models" / "tiny").exists()


def test_a_server_loads_and_unloads(home: Path, engine: FakeEngine) -> None:
    assert run_json(home, "load", "other")["loaded"] is True
    assert "other" in engine.models
    assert run_json(home, "unload", "other")["loaded"] is False
    assert "nope" in error_of(run(home, "load", "nope"))
    assert "q8_0" in error_of(run(home, "load", "tiny", "-v", "fp8"))


def test_changed_weights_are_found(home: Path) -> None:
    assert run_json(home, "verify", "other", "--hashes-only")[0]["num_files"] > 0
    path = home / "models/other/q8_0/1/tokenizer/chat_template.jinja"
    path.write_text(path.read_text().swapcase())
    assert "has changed" in error_of(run(home, "verify", "other", "--hashes-only"))


def test_an_artefact_of_another_machine_is_published_if_it_is_whole(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    source = home / "models/tiny/q8_0/3"
    published = Path(run(other, "add", source).stdout.strip())
    assert published == other / "models/tiny/q8_0/1"
    assert Path(run(other, "add", source, "--name", "mine").stdout.strip()).parts[-3] == "mine"
    path = source / "tokenizer" / "tokenizer.json"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content.swapcase())
    assert "has changed" in error_of(run(other, "add", source, "--name", "third"))
    assert not (other / "models/third/q8_0").exists()
    assert (published / "tokenizer" / "tokenizer.json").read_bytes() == content


@pytest.fixture
def engine_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    (folder / "config.json").write_text(json.dumps(engine_config(**LORA)))
    (folder / "rank0.engine").write_bytes(b"not an engine")
    return folder


def test_an_engine_is_published_with_the_limits_that_it_was_built_for(
    home: Path, engine_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tokenizer = write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    assert "--tokenizer" in error_of(run(home, "add", engine_dir))
    result = run(home, "add", engine_dir, "--tokenizer", tokenizer, "--name", "built")
    assert result.exit_code == 0, result.stderr
    built = find_artefact(home, "built", "fp16")
    assert built is not None
    manifest = built.manifest
    assert (manifest.kind, manifest.limits.vocab_size) == ("tensorrt_llm", VOCAB_SIZE)
    assert manifest.engine is not None
    assert (manifest.engine.max_batch_size, manifest.engine.max_lora_rank) == (64, 8)
    assert (built.path / "engine" / "rank0.engine").is_file()
    info = msgspec.json.decode((built.path / "xgrammar_tokenizer_info.json").read_bytes())
    assert info["stop_token_ids"] == manifest.tokens.eos_ids
    (engine_dir / "rank0.engine").unlink()
    (engine_dir / "rank1.engine").write_bytes(b"x")
    assert "rank0.engine" in error_of(run(home, "add", engine_dir, "--tokenizer", tokenizer))


def test_adapters_make_a_new_version(
    home: Path, engine_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer, peft = write_tokenizer(folder / "tokenizer"), write_peft(folder / "peft")
    assert run(home, "add", engine_dir, "--tokenizer", tokenizer, "--name", "b").exit_code == 0
    for adapter in ("one", "two"):
        assert run(home, "add", "b", "--adapter", f"{adapter}={peft}").exit_code == 0
    [shown] = run_json(home, "show", "b")
    assert (shown["version"], sorted(shown["adapters"])) == (3, ["one", "two"])
    assert shown["adapters"]["one"]["rank"] == 4
    assert run_json(home, "verify", "b", "--hashes-only")[0]["version"] == 3
    assert run(home, "add", "b", "--adapter", f"one={peft}").exit_code == 0
    assert run_json(home, "show", "b")[0]["version"] == 3, "the same adapter again changes nothing"
    wide = write_peft(folder / "wide", r=4)
    published = find_artefact(home, "b", "fp16")
    assert published is not None
    too_low = replace(published.manifest.engine, max_lora_rank=2)  # type: ignore[type-var]
    path = published.path / "manifest.json"
    changed = replace(published.manifest, engine=too_low)
    path.write_bytes(msgspec.json.encode(changed))
    assert "has rank 4" in error_of(run(home, "add", "b", "--adapter", f"x={wide}"))


def test_an_openvino_model_is_published_as_it_is(home: Path, artefact: Artefact) -> None:
    source = home / "exported"
    source.mkdir()
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (source / name).symlink_to(artefact.path / name)
    arguments = ("add", source, "--tokenizer", artefact.path / "tokenizer", "--name", "ir")
    assert "--max-seq-len" in error_of(run(home, *arguments))
    result = run(home, *arguments, "--max-seq-len", 512)
    assert result.exit_code == 0, result.stderr
    published = find_artefact(home, "ir", "openvino")
    assert published is not None
    manifest = published.manifest
    assert (manifest.kind, manifest.limits.max_seq_len) == ("cpu", 512)
    assert manifest.limits.vocab_size == artefact.manifest.limits.vocab_size
    assert artefact.manifest.tokens.eos_ids[0] in manifest.tokens.eos_ids
