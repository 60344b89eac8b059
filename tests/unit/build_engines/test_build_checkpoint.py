"""Checkpoints that are whole, and all the ways in which they are not: each a line, no traceback."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from build_engines.checkpoints.checkpoint import open_checkpoint
from build_engines.checkpoints.gguf_header import check_gguf
from build_engines.errors import SourceError, UnknownArchitectureError
from tests.unit.build_engines.build_fakes import CONFIG, write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model")


def write_gguf(path: Path, *, parts: int = 1) -> Path:
    """A llama of one layer, with a vocabulary, a list of numbers and one tensor."""
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_token_list(["a", "b", "c"])
    writer.add_token_scores([0.0, 1.0, 2.0])
    if parts > 1:
        writer.add_uint16("split.count", parts)
    writer.add_tensor("token_embd.weight", np.zeros((3, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def patched(path: Path, offset: int, content: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(data)
    return path


def refused(path: Path, kind: type[SourceError] = SourceError) -> str:
    with pytest.raises(kind) as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_folder_is_opened_with_its_numbers(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.format, checkpoint.path) == ("hf", folder)
    assert checkpoint.config["eos_token_id"] == 2
    assert checkpoint.architecture.hf_architecture == "LlamaForCausalLM"
    assert checkpoint.architecture.vocab_size == 3


def test_a_whole_gguf_file_is_opened_with_its_numbers(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_gguf(tmp_path / "model.gguf"))
    assert checkpoint.format == "gguf"
    assert checkpoint.config["llama.rope.freq_base"] == 10000.0
    assert checkpoint.config["general.architecture"] == "llama"
    assert checkpoint.architecture.max_position_embeddings == 64


@pytest.mark.parametrize("kept", [0, 5, 8, 40, -1])
def test_truncated_safetensors_are_refused(folder: Path, kept: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    message = refused(folder)
    assert message.startswith(f"{weights} is not a whole safetensors file (")
    assert message.endswith("download it again")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{]", "its header is wrong"),
        (b'{"w": {"dtype": "F32", "data_offsets": [8, 4]}}', "ends before it begins"),
        (b'{"w": {"dtype": "F32", "data_offsets": [0, 80]}}', "its header says"),
        (b'{"w": {"dtype": "F32", "data_offsets": [-1, 8]}}', "its header is wrong"),
        (b'{"w": 5}', "its header is wrong"),
    ],
)
def test_safetensors_whose_header_lies_are_refused(
    folder: Path, header: bytes, message: str
) -> None:
    content = struct.pack("<Q", len(header)) + header + bytes(8)
    (folder / "model.safetensors").write_bytes(content)
    assert message in refused(folder)


def test_a_header_longer_than_any_memory_is_not_read(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + bytes(100))
    assert "it ends within its header" in refused(folder)


def test_a_shard_that_the_index_names_and_is_missing_is_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"w": "model-00001-of-00002.safetensors", "v": "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": shards["w"]}}))
    open_checkpoint(folder)
    index.write_text(json.dumps({"weight_map": shards}))
    assert "names model-00002-of-00002.safetensors, which is missing: download" in refused(folder)
    index.write_text(json.dumps({"weight_map": {"w": "../other.safetensors"}}))
    assert "names ../other.safetensors, which is outside of the folder" in refused(folder)
    index.write_text("[")
    assert "download it again" in refused(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "has no weights (*.safetensors): download the whole checkpoint" in refused(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["WarpForCausalLM"]}, "WarpForCausalLM"),
        ({"architectures": []}, "config.json"),
    ],
)
def test_an_architecture_that_nobody_knows_is_refused_by_name(
    folder: Path, change: dict[str, object], message: str
) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | change))
    found = refused(folder, UnknownArchitectureError)
    assert message in found
    assert "gguf" in found


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"x")
    assert "neither a folder with config.json nor a .gguf file" in refused(tmp_path / "x.bin")
    assert "has no config.json" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "config.json: " in refused(tmp_path)


@pytest.mark.parametrize(
    ("offset", "content", "message"),
    [
        (0, b"GGML", "it does not begin with GGUF"),
        (4, struct.pack("<I", 1), "it is of version 1, versions 2 and 3 are read"),
        (4, struct.pack(">I", 3), "it is for big-endian machines"),
        (8, struct.pack("<Q", 1 << 40), "its header counts 1099511627776 entries"),
        (8, struct.pack("<Q", 2), "it has a tensor without a name"),
        (16, struct.pack("<Q", 1 << 62), "its header counts 4611686018427387904 entries"),
        (24, struct.pack("<Q", 1 << 50), "it ends within its header"),
        (32, b"\xff", "its header has text that is not UTF-8"),
        (32 + len("general.architecture"), struct.pack("<I", 77), "is of the unknown type 77"),
    ],
)
def test_a_gguf_file_whose_header_lies_is_refused(
    tmp_path: Path, offset: int, content: bytes, message: str
) -> None:
    path = patched(write_gguf(tmp_path / "model.gguf"), offset, content)
    found = refused(path)
    assert message in found
    assert found.startswith(f"{path} is not a whole GGUF file (")


def find(path: Path, text: bytes) -> int:
    return path.read_bytes().index(text) + len(text)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        # behind a tensor's name: dimensions u32, two of them u64, type u32, offset u64
        (b"token_embd.weight", lambda at: (at, struct.pack("<I", 9)), "has 9 dimensions"),
        (b"token_embd.weight", lambda at: (at + 4, struct.pack("<Q", 1 << 40)), "beyond its end"),
        (b"token_embd.weight", lambda at: (at + 20, struct.pack("<I", 999)), "unknown type 999"),
        (b"token_embd.weight", lambda at: (at + 24, struct.pack("<Q", 1 << 50)), "beyond its end"),
        # behind an array's key: its type u32, that of its elements u32, how many u64
        (b"ggml.tokens", lambda at: (at + 8, struct.pack("<Q", 1 << 40)), "entries, more than"),
        (b"ggml.scores", lambda at: (at + 8, struct.pack("<Q", 1 << 40)), "entries, more than"),
        (b"ggml.scores", lambda at: (at + 4, struct.pack("<I", 66)), "array of the unknown type"),
    ],
)
def test_a_gguf_file_that_promises_what_is_not_there_is_refused(
    tmp_path: Path, place: bytes, change: Callable[[int], tuple[int, bytes]], message: str
) -> None:
    path = write_gguf(tmp_path / "model.gguf")
    patched(path, *change(find(path, place)))
    assert message in refused(path)


def test_a_gguf_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf")
    content = path.read_bytes()
    for kept in range(len(content)):
        path.write_bytes(content[:kept])
        with pytest.raises(SourceError, match=r"is not a (whole|complete) GGUF file"):
            check_gguf(path)


def test_all_shards_of_a_gguf_model_are_checked(tmp_path: Path) -> None:
    first, second = (
        write_gguf(tmp_path / f"model-0000{number}-of-00002.gguf", parts=2) for number in (1, 2)
    )
    assert open_checkpoint(first).config["split.count"] == 2
    content = second.read_bytes()
    second.write_bytes(content[:-1])
    assert f"{second} is not a whole GGUF file" in refused(first)
    second.unlink()
    assert f"{second} is missing" in refused(first)


def test_a_shard_under_another_name_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", parts=3)
    assert "is one of 3 shards, and is not called so: give them the names" in refused(path)
